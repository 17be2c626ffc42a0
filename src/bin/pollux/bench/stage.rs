//! What all threads of the benchmark do at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use pollux::clone::Sequence;
use pollux::reactor::Waker;

use crate::exit::Failure;

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Stage {
    /// All find the broker.
    #[default]
    Prepare,
    /// One change under way at a time.
    OneByOne,
    /// As many as the window allows, of all producers.
    Load,
    /// No more, but those under way are answered.
    Drain,
    /// Everything has come everywhere, or was noticed to be lost.
    Check,
    /// The keys are deleted.
    Clean,
    End,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Prepare,
        Stage::OneByOne,
        Stage::Load,
        Stage::Drain,
        Stage::Check,
        Stage::Clean,
        Stage::End,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::OneByOne => "one at a time",
            Stage::Load => "full load",
            _ => "",
        }
    }
}

/// The current stage, and sums over all threads.
#[derive(Debug, Default)]
pub(super) struct Stages {
    stage: AtomicU8,
    updates: AtomicU64,
    deliveries: AtomicU64,
    /// The highest sequence of a change of ours.
    last: AtomicU64,
}

impl Stages {
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    pub(super) fn current(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::SeqCst))]
    }

    /// Changes applied so far.
    pub(super) fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }

    /// Changes seen by watchers so far.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// The highest sequence of a change of ours, once all are answered.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }
}

/// What a thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// How to have it look at a new stage.
    Waker(Waker),
    /// It has done what there is to do in the stage.
    Reached(Stage),
    Failed(Failure),
}

/// A thread's line to the one that leads.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    stages: Arc<Stages>,
    news: Sender<News>,
    reached: Option<Stage>,
}

impl Reporter {
    pub(super) fn new(stages: Arc<Stages>, news: Sender<News>) -> Reporter {
        Reporter { stages, news, reached: None }
    }

    pub(super) fn stages(&self) -> &Stages {
        &self.stages
    }

    pub(super) fn stage(&self) -> Stage {
        self.stages.current()
    }

    pub(super) fn tell(&self, news: News) {
        // The leader that has gone needs no news.
        let _ = self.news.send(news);
    }

    /// Tells that `stage` is done, once.
    pub(super) fn reached(&mut self, stage: Stage) {
        if self.reached.is_none_or(|before| before < stage) {
            self.reached = Some(stage);
            self.tell(News::Reached(stage));
        }
    }

    pub(super) fn count_update(&self, sequence: Sequence) {
        self.stages.updates.fetch_add(1, Ordering::Relaxed);
        self.stages.last.fetch_max(sequence.get(), Ordering::SeqCst);
    }

    pub(super) fn count_deliveries(&self, deliveries: u64) {
        self.stages.deliveries.fetch_add(deliveries, Ordering::Relaxed);
    }
}
