//! [`Counted`]: whether all changes of a subtree have come.

use crate::clone::kvmsg::KvMsg;
use crate::clone::sequence::Sequence;

/// Under a subtree sequences have gaps; what is missing shows in the counts of its
/// heartbeats.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// What the last heartbeat said that was published.
    published: Option<u64>,
    /// Changes that came since, and the last of them: it may come twice.
    pub(super) received: u64,
    last: Sequence,
    /// A heartbeat that fitted said that the whole tree was here.
    pub(super) whole_at: Sequence,
}

impl Counted {
    pub(super) fn take(&mut self, sequence: Sequence) {
        let before = std::mem::replace(&mut self.last, sequence);
        self.received += u64::from(before != sequence);
    }

    /// A heartbeat of the subtree. False: something is missing.
    pub(super) fn check(&mut self, kvmsg: &KvMsg<'_>) -> bool {
        let told = kvmsg.properties.parse::<u64>("published");
        let received = std::mem::take(&mut self.received);
        let is_whole = match (self.published, told) {
            (Some(before), Some(now)) => now.checked_sub(before) == Some(received),
            _ => false,
        };
        self.published = told;
        self.whole_at = match is_whole {
            true => proven(kvmsg, kvmsg.properties.parse("at").unwrap_or(kvmsg.sequence)),
            false => Sequence::ZERO,
        };
        is_whole
    }
}

/// Where nothing is missing at who says this of itself: a relay of a subtree may be further.
pub(super) fn proven(kvmsg: &KvMsg<'_>, position: Sequence) -> Sequence {
    kvmsg.properties.parse("proven").map_or(position, |proven: Sequence| proven.min(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_comes_twice_does_not_stand_for_another() {
        let mut counted = Counted::default();
        for counter in [7, 7, 9] {
            counted.take(Sequence::new(1, counter));
        }
        assert_eq!(counted.received, 2);
    }
}
