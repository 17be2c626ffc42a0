//! [`Attempt`]: the request for a snapshot that is under way.

use std::time::Duration;

use super::staging::Staging;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The map of this subtree.
    Subtree(usize),
    /// To be heard by a server that serves nobody; the answer is not kept.
    Vote,
}

/// A request and what came for it so far.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) target: Target,
    /// Only changes after this were asked for.
    pub(crate) since: Option<Sequence>,
    /// The epoch of the broker when it was asked.
    pub(crate) epoch: Option<u32>,
    pub(crate) staging: Staging,
    /// Entries received.
    pub(crate) received: u64,
    /// One of them could not be read.
    pub(crate) is_damaged: bool,
    /// How long it may make no progress.
    pub(crate) timeout: Duration,
    pub(crate) deadline: Time,
}

impl Attempt {
    pub(crate) fn is_for(&self, subtree: usize) -> bool {
        self.target == Target::Subtree(subtree)
    }
}
