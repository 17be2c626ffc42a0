//! What the machines write to the log, where somebody listens.

use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    /// The lines of this thread, while it listens.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Listener;

impl Log for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push(format!("{} {}", record.level(), record.args()));
            }
        });
    }

    fn flush(&self) {}
}

/// Does something, and gives the warnings and errors that were logged meanwhile.
pub(crate) fn listen(f: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Listener).expect("there is no other logger");
        log::set_max_level(LevelFilter::Warn);
    });
    LINES.set(Some(Vec::new()));
    f();
    LINES.take().unwrap_or_default()
}
