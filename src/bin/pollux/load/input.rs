//! What `load` reads, one item at a time, whatever it is read from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::directory::Directory;
use super::lines_input::LinesInput;
use crate::text::Shown;

/// Where an item came from.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// The number of the line, from 1, and where in the input it ends.
    Line {
        number: u64,
        end: u64,
    },
    File(PathBuf),
}

impl Name {
    /// How far in the input it is, if that can be told.
    pub(super) fn position(&self) -> u64 {
        match self {
            Name::Line { end, .. } => *end,
            Name::File(_) => 0,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Line { number, .. } => write!(f, "line {number}"),
            Name::File(path) => {
                write!(f, "{}", Shown(path.as_os_str().as_encoded_bytes()))
            }
        }
    }
}

/// A key to set.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: Name,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) ttl: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Item {
    Pair(Pair),
    /// Something that makes no key: named and counted.
    Skipped(Name, String),
    /// Something that ought to be a key and could not be read.
    Unreadable(Name, String),
    /// The input is not what it should be; nothing comes after this.
    Bad(Name, String),
}

impl Item {
    /// Roughly what it takes to hold it.
    fn size(&self) -> usize {
        match self {
            Item::Pair(pair) => pair.key.len() + pair.value.len(),
            _ => 0,
        }
    }
}

/// A batch is handed on at this many items or bytes: for each the loop is woken.
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Items in batches.
#[derive(Debug)]
pub(super) enum Batches {
    Lines(LinesInput),
    Directory(Directory),
}

impl Iterator for Batches {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            let Some(item) = self.next_item() else { break };
            bytes += item.size();
            batch.push(item);
            if self.would_wait() {
                break;
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

impl Batches {
    fn next_item(&mut self) -> Option<Item> {
        match self {
            Batches::Lines(lines) => lines.next(),
            Batches::Directory(directory) => directory.next(),
        }
    }

    /// Whether the next item may be long in coming, so that what is there is
    /// better handed on.
    fn would_wait(&self) -> bool {
        match self {
            Batches::Lines(lines) => lines.would_wait(),
            Batches::Directory(_) => false,
        }
    }
}
