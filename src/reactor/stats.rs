//! Event counts: [`Stats`] of a reactor, [`SourceStats`] of one source, and
//! [`SharedStats`] for another thread to watch.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::socket::Sent;

/// Declares the counters once, for the plain struct and its shared copy.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a reactor has done since it was made: plain counters.
        ///
        /// Sources that were removed stay counted.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// A copy of a reactor's [`Stats`] that other threads may read.
        ///
        /// The reactor publishes it once a turn with relaxed stores: each counter is
        /// right as of some recent turn, two of them need not be of the same one.
        #[derive(Debug, Default)]
        pub struct SharedStats {
            $($name: AtomicU64,)+
        }

        impl SharedStats {
            /// The counters as last published.
            pub fn load(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }

            pub(crate) fn publish(&self, stats: &Stats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)+
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Times that the loop asked the operating system for events.
    polls,
    /// Polls that were allowed to block (those with a timeout above zero).
    polls_blocked,
    /// Polls that a signal interrupted, and which were retried.
    polls_interrupted,
    /// Events handled: messages, readiness, timers, wakes, values, signals.
    events,
    /// Whole messages handed to `on_message` handlers; a multipart counts once.
    messages_received,
    /// Frames of those messages.
    frames_received,
    /// Bytes of those frames.
    bytes_received,
    /// Whole messages that handlers sent through the loop's sockets; what libzmq took,
    /// whether or not it drops it later (PUB, ROUTER).
    messages_sent,
    /// Frames of those messages, and of those broken off in the middle.
    frames_sent,
    /// Bytes of those frames.
    bytes_sent,
    /// Receives that found nothing: the sockets drained.
    receives_empty,
    /// Times that a source had more than its budget and went back into the queue.
    budgets_exhausted,
    /// Sockets asked for missed messages because a handler had touched them.
    dirty_probes,
    /// Sources that were reported ready and had nothing to do.
    spurious_wakes,
    /// Timers fired.
    timers_fired,
    /// The most that a timer fired late, in nanoseconds.
    timer_lateness_max_ns,
    /// Wakes by a `Waker` or a `Sender`; several before the loop looks count once.
    wakes,
    /// Values handed on from a `Sender`.
    values_received,
    /// Signals delivered.
    signals,
    /// Errors handed to the error hook.
    errors,
    /// Sockets removed because their context was terminated (ETERM).
    sockets_terminated,
    /// The longest turn without its waiting, in nanoseconds.
    turn_max_ns,
    /// Time spent in polls that were allowed to block, in nanoseconds.
    blocked_ns,
}

/// What one socket or other source has done since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Calls of the source's handler.
    pub events: u64,
    /// Whole messages handed to an `on_message` handler.
    pub messages_received: u64,
    /// Frames of those messages.
    pub frames_received: u64,
    /// Bytes of those frames.
    pub bytes_received: u64,
    /// Whole messages sent through it.
    pub messages_sent: u64,
    /// Frames of those messages, and of those broken off in the middle.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Receives that found nothing.
    pub receives_empty: u64,
    /// Times that there was more than the budget.
    pub budgets_exhausted: u64,
    /// Times that the source was asked for missed messages.
    pub dirty_probes: u64,
    /// Times that it was reported ready and had nothing to do.
    pub spurious_wakes: u64,
}

impl Stats {
    pub(super) fn add_sent(&mut self, sent: Sent) {
        self.messages_sent += sent.messages;
        self.frames_sent += sent.frames;
        self.bytes_sent += sent.bytes;
    }
}

impl SourceStats {
    pub(super) fn add_sent(&mut self, sent: Sent) {
        self.messages_sent += sent.messages;
        self.frames_sent += sent.frames;
        self.bytes_sent += sent.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_copy_carries_every_counter() {
        let shared = SharedStats::default();
        let stats = Stats { turns: 1, blocked_ns: 2, messages_received: 3, ..Stats::default() };
        shared.publish(&stats);
        assert_eq!(shared.load(), stats);
    }
}
