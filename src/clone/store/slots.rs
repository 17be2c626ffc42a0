//! [`Slots`]: where the entries are, by number; [`Node`]: one of them.

use std::ops::{Index, IndexMut};

use crate::clone::kvmsg::Uuid;
use crate::clone::properties::Properties;
use crate::clone::sequence::Sequence;

/// The number of no slot and of no place.
pub(super) const NONE: u32 = u32::MAX;

/// Nodes in a page. Pages are never moved: a store grows a page at a time, not
/// by copying all it has into twice the room.
const PAGE: u32 = 1024;
type Page = [Node; PAGE as usize];

const UUID: usize = size_of::<Uuid>();

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing.
    Free,
    /// A key with its value.
    Live,
    /// A key that was deleted.
    Dead,
    /// How far a cursor has come in a list.
    Marker,
    /// Both ends of a list.
    Ends,
}

/// What is in a slot, 48 bytes and one allocation.
pub(super) struct Node {
    /// Key, uuid if there is one, properties, value; then room to spare.
    bytes: Box<[u8]>,
    pub(super) sequence: Sequence,
    /// The neighbours in the list it is in.
    pub(super) older: u32,
    pub(super) newer: u32,
    /// Its place in the heap of deadlines, or `NONE`.
    pub(super) expiry: u32,
    properties_len: u32,
    value_len: u32,
    key_len: u16,
    has_uuid: bool,
    pub(super) kind: Kind,
}

const _: () = assert!(size_of::<Node>() == 48);

impl Node {
    pub(super) fn new(kind: Kind) -> Node {
        Node {
            bytes: Box::default(),
            sequence: Sequence::ZERO,
            older: NONE,
            newer: NONE,
            expiry: NONE,
            properties_len: 0,
            value_len: 0,
            key_len: 0,
            has_uuid: false,
            kind,
        }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }

    #[inline]
    pub(super) fn uuid(&self) -> Option<Uuid> {
        let (uuid, _) = self.bytes[self.key_len as usize..].split_first_chunk::<UUID>()?;
        self.has_uuid.then(|| Uuid::from_bytes(*uuid))
    }

    #[inline]
    pub(super) fn properties(&self) -> Properties<'_> {
        let start = self.properties_start();
        Properties::from_checked(&self.bytes[start..start + self.properties_len as usize])
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        let start = self.properties_start() + self.properties_len as usize;
        &self.bytes[start..start + self.value_len as usize]
    }

    /// Bytes of key, properties and value.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.key_len as usize + self.properties_len as usize + self.value_len as usize
    }

    #[inline]
    fn properties_start(&self) -> usize {
        self.key_len as usize + if self.has_uuid { UUID } else { 0 }
    }

    /// Takes over all of an entry's bytes, into the memory it has if that is of
    /// a fitting size. The lengths have been checked by the store.
    pub(super) fn write(
        &mut self,
        key: &[u8],
        uuid: Option<Uuid>,
        properties: Properties<'_>,
        value: &[u8],
    ) {
        let uuid = uuid.as_ref().map_or(&[][..], |uuid| uuid.as_bytes());
        let parts = [key, uuid, properties.as_bytes(), value];
        let size = parts.iter().map(|part| part.len()).sum();
        if is_fitting(self.bytes.len(), size) {
            let mut rest = &mut self.bytes[..];
            for part in parts {
                let (place, after) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = after;
            }
        } else {
            let mut bytes = Vec::with_capacity(allocation(size));
            for part in parts {
                bytes.extend_from_slice(part);
            }
            bytes.resize(allocation(size), 0);
            self.bytes = bytes.into_boxed_slice();
        }
        self.key_len = key.len() as u16;
        self.has_uuid = !uuid.is_empty();
        self.properties_len = properties.as_bytes().len() as u32;
        self.value_len = value.len() as u32;
    }
}

/// Whether `size` bytes go into `room` without leaving most of it idle.
fn is_fitting(room: usize, size: usize) -> bool {
    size <= room && room <= 2 * size + 64
}

/// How much to allocate for `size` bytes: what an allocator with a header of
/// eight bytes and a grain of sixteen would give anyway.
fn allocation(size: usize) -> usize {
    (size + 8).next_multiple_of(16) - 8
}

/// Nodes by number. A slot that is freed is the next to be used.
pub(super) struct Slots {
    pages: Vec<Box<Page>>,
    /// Slots that were ever used; those behind them are free.
    len: u32,
    /// The slot freed last; each leads to the one freed before by `older`.
    free: u32,
}

impl Slots {
    pub(super) fn new() -> Slots {
        let mut slots = Slots { pages: Vec::new(), len: 0, free: NONE };
        slots.insert_list_ends();
        slots
    }

    pub(super) fn insert(&mut self, node: Node) -> u32 {
        if self.free != NONE {
            let slot = self.free;
            self.free = self[slot].older;
            self[slot] = node;
            return slot;
        }
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(empty_page());
        }
        // The limits of the store keep the number below 2^32.
        let slot = self.len;
        self.len += 1;
        self[slot] = node;
        slot
    }

    /// Frees a slot that is in no list.
    pub(super) fn remove(&mut self, slot: u32) {
        let older = self.free;
        self[slot] = Node { older, ..Node::new(Kind::Free) };
        self.free = slot;
    }
}

fn empty_page() -> Box<Page> {
    let nodes: Box<[Node]> = (0..PAGE).map(|_| Node::new(Kind::Free)).collect();
    nodes.try_into().unwrap_or_else(|_| unreachable!("it has as many nodes as a page"))
}

impl Index<u32> for Slots {
    type Output = Node;
    #[inline]
    fn index(&self, slot: u32) -> &Node {
        &self.pages[(slot / PAGE) as usize][(slot % PAGE) as usize]
    }
}

impl IndexMut<u32> for Slots {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Node {
        &mut self.pages[(slot / PAGE) as usize][(slot % PAGE) as usize]
    }
}
