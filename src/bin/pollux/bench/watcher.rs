//! A client that follows all producers.

use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::reactor::Registry;
use pollux::time::Time;

use super::counts::ClientCounts;
use super::figures::digest;
use super::stage::{News, Reporter, Stage};
use crate::args::Common;
use crate::exit::Failure;
use crate::session::{App, Session, Step, Task};

/// What a watcher has seen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Updates, before the keys were deleted.
    pub(super) seen: u64,
    /// How often it noticed a loss and synchronised again.
    pub(super) gaps: u64,
    /// Of the state when all was there.
    pub(super) digest: u64,
    pub(super) counts: ClientCounts,
}

#[derive(Debug)]
pub(super) struct Watcher {
    subtree: String,
    watched: Watched,
    /// Of `seen`, what the sum over all watchers has.
    counted: u64,
    reporter: Reporter,
}

impl Watcher {
    pub(super) fn new(subtree: String, reporter: Reporter) -> Watcher {
        Watcher { subtree, watched: Watched::default(), counted: 0, reporter }
    }

    /// Goes through the stages. `None`: it failed, and told so.
    pub(super) fn run(self, common: &Common) -> Option<Watched> {
        let reporter = self.reporter.clone();
        let config = ClientConfig::follow([&self.subtree]);
        let outcome = Session::open(common, config, self).and_then(|mut session| {
            reporter.tell(News::Waker(session.reactor.waker()));
            session.run()?;
            let counts = ClientCounts::of(&session);
            Ok(Watched { counts, ..session.app.task.watched })
        });
        outcome.map_err(|failure| reporter.tell(News::Failed(failure))).ok()
    }
}

impl Task for Watcher {
    fn hear(&mut self, _: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Updated { .. } => self.watched.seen += 1,
            Event::Gap { .. } => self.watched.gaps += 1,
            _ => {}
        }
        Ok(())
    }

    fn step(app: &mut App<Watcher>, _: &mut Registry<App<Watcher>>) -> Result<Step, Failure> {
        let App { client, task, .. } = app;
        let machine = client.machine();
        task.reporter.count_deliveries(task.watched.seen - task.counted);
        task.counted = task.watched.seen;
        let is_current = machine.is_current();
        match task.reporter.stage() {
            Stage::Prepare if is_current => task.reporter.reached(Stage::Prepare),
            Stage::Check
                if is_current && machine.sequence().get() >= task.reporter.stages().last() =>
            {
                task.watched.digest = digest(machine, &task.subtree);
                task.reporter.reached(Stage::Check);
            }
            Stage::End => return Ok(Step::Done),
            _ => {}
        }
        Ok(Step::Wait)
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        (!client.is_current()).then(|| client.stats().synced_entries)
    }

    fn complaint(&self) -> String {
        "sent no whole snapshot".to_owned()
    }
}
