//! [`Fault`]: mistakes made on purpose, so that the simulation can show that it
//! notices them.
//!
//! They exist only with the feature `simulation-faults` and debug assertions; in
//! all other builds `Fault::is_planted` is the constant `false`. What is planted
//! holds for the thread, so that runs side by side do not see one another's.

#[cfg(all(feature = "simulation-faults", debug_assertions))]
use std::cell::Cell;

/// A mistake in a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(not(all(feature = "simulation-faults", debug_assertions)), allow(dead_code))]
pub enum Fault {
    /// The broker applies a change that comes again once more.
    SkipDeduplication,
    /// The broker takes a repetition for new though its uuid may be forgotten.
    TrustTheWindow,
    /// The broker deletes a key after half its time.
    ExpireEarly,
    /// A key set anew without a time to live keeps its old one.
    KeepDeadline,
    /// The broker takes one key more than its limit.
    ExceedTheLimit,
    /// A snapshot does not tell what changed while it went out.
    AnswerFromAStaleSnapshot,
    /// A delta does not tell deletions.
    LoseDeletions,
    /// A delta is given though deletions since then are forgotten.
    DeltaWithoutHistory,
    /// The client does not compare what it received with what was published.
    SkipGapCheck,
    /// The client forgets what changes while its snapshot comes in.
    ForgetWhatIsStaged,
    /// The client keeps a key that its snapshot says was deleted.
    KeepTheUndone,
    /// The client never notices that its broker is silent.
    NeverLost,
    /// What another history gave is asked for, and answered, as if it were this one.
    TrustAnotherRun,
    /// The client sends an older change of a key again behind a newer one.
    ResendOutOfOrder,
    /// The broker takes a change behind a later one of its sender to the same key.
    TakeTheOvertaken,
    /// The client applies a change though it has a newer one.
    ApplyOlder,
    /// A standby that takes over goes on in the epoch of the one before.
    PromoteInTheSameEpoch,
    /// The active calls safe what its standby does not have.
    SafeTooEarly,
    /// The winner applies what the loser hands over though it has had its effect.
    TakeOverTwice,
    /// A standby does not remember the uuids of what it follows.
    ForgetWhatWasFollowed,
    /// A standby that takes over forgets what clients have sent it meanwhile.
    ForgetTheRing,
    /// A relay sends each change upstream twice, the second time under another uuid.
    ForwardTwice,
    /// A relay confirms a change when it has sent it, before its upstream has.
    ConfirmWhatIsSent,
    /// A relay keeps the keys that a delta of its upstream says are gone.
    KeepWhatIsGone,
    /// A relay deletes what has expired itself, under a number that its upstream did not give.
    ExpireInARelay,
}

#[cfg(all(feature = "simulation-faults", debug_assertions))]
thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

impl Fault {
    /// All of them: the simulation notices each in its default seeds.
    #[cfg(all(feature = "simulation-faults", debug_assertions))]
    pub const ALL: &'static [Fault] = &[
        Fault::SkipDeduplication,
        Fault::TrustTheWindow,
        Fault::ExpireEarly,
        Fault::KeepDeadline,
        Fault::ExceedTheLimit,
        Fault::AnswerFromAStaleSnapshot,
        Fault::LoseDeletions,
        Fault::DeltaWithoutHistory,
        Fault::SkipGapCheck,
        Fault::ForgetWhatIsStaged,
        Fault::KeepTheUndone,
        Fault::NeverLost,
        Fault::TrustAnotherRun,
        Fault::ResendOutOfOrder,
        Fault::TakeTheOvertaken,
        Fault::ApplyOlder,
        Fault::PromoteInTheSameEpoch,
        Fault::SafeTooEarly,
        Fault::TakeOverTwice,
        Fault::ForgetWhatWasFollowed,
        Fault::ForgetTheRing,
        Fault::ForwardTwice,
        Fault::ConfirmWhatIsSent,
        Fault::KeepWhatIsGone,
        Fault::ExpireInARelay,
    ];

    /// Whether the machines of this thread make this mistake.
    #[cfg(all(feature = "simulation-faults", debug_assertions))]
    pub(crate) fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// Whether the machines of this thread make this mistake.
    #[cfg(not(all(feature = "simulation-faults", debug_assertions)))]
    #[inline(always)]
    pub(crate) const fn is_planted(self) -> bool {
        false
    }

    /// The machines of this thread make this mistake from now on, or none.
    #[cfg(all(feature = "simulation-faults", debug_assertions))]
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }
}
