//! An allocator that counts, for one thread at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what each thread asks of it.
///
/// libzmq allocates by the C library's own calls and is not counted: what is
/// counted is what this library does.
#[derive(Debug)]
pub(crate) struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// Allocations and re-allocations that this thread has made.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes that this thread holds: allocated less freed, each block as large as
/// the C library makes it.
pub(crate) fn bytes() -> i64 {
    BYTES.get()
}

/// What glibc's malloc(3) takes for a block: 8 bytes for its size, a multiple
/// of 16, at least 32.
fn rounded(size: usize) -> i64 {
    ((size + 8).next_multiple_of(16).max(32)) as i64
}

// SAFETY: every call goes to the system's allocator with the very same arguments;
// counting neither allocates (the cells are constants without a destructor) nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + rounded(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + rounded(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + rounded(size) - rounded(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - rounded(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
