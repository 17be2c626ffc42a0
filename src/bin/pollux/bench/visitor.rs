//! Clients that come, take a snapshot of everything, set keys that expire, and leave.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use pollux::clone::Uuid;
use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::reactor::{Flow, Registry};
use pollux::time::Time;

use super::counts::ClientCounts;
use super::stage::{News, Reporter, Stage};
use crate::args::Common;
use crate::exit::Failure;
use crate::session::{App, Session, Step, Task};

/// How long one stays. Four at a time are eight joins a second then.
const STAY: Duration = Duration::from_millis(500);

/// Keys that each sets.
const KEYS: u64 = 20;

/// How long those live: longer than whoever set them stays.
const TTL: Duration = Duration::from_secs(1);

/// What all that followed one another have done.
#[derive(Debug, Default)]
pub(super) struct Visits {
    pub(super) count: u64,
    /// Keys that the snapshots brought.
    pub(super) entries: u64,
    /// Changes applied, each of a key that nobody else sets.
    pub(super) set: u64,
    pub(super) counts: ClientCounts,
}

impl Visits {
    pub(super) fn add(&mut self, other: &Visits) {
        self.count += other.count;
        self.entries += other.entries;
        self.set += other.set;
        self.counts.add(&other.counts);
    }
}

#[derive(Debug)]
struct Visitor {
    under_way: HashSet<Uuid>,
    has_set: bool,
    is_time_over: bool,
    applied: u64,
    key: Vec<u8>,
    /// What its own keys begin with.
    prefix: Vec<u8>,
    value: Vec<u8>,
}

/// One comes after the other until the load ends. `None`: one failed, and told so.
pub(super) fn visits(
    common: &Common,
    everything: &str,
    own: &str,
    value_size: usize,
    reporter: &Reporter,
) -> Option<Visits> {
    let mut visits = Visits::default();
    while reporter.stage() == Stage::Load {
        let prefix = format!("{own}{}/", visits.count).into_bytes();
        if let Err(failure) = visit(common, [everything, own], prefix, value_size, &mut visits) {
            reporter.tell(News::Failed(failure));
            return None;
        }
    }
    Some(visits)
}

fn visit(
    common: &Common,
    subtrees: [&str; 2],
    prefix: Vec<u8>,
    value_size: usize,
    visits: &mut Visits,
) -> Result<(), Failure> {
    let visitor = Visitor {
        under_way: HashSet::new(),
        has_set: false,
        is_time_over: false,
        applied: 0,
        key: Vec::new(),
        prefix,
        value: vec![b'v'; value_size],
    };
    let mut session = Session::open(common, ClientConfig::follow(subtrees), visitor)?;
    session.reactor.add_timer(STAY, |app: &mut App<Visitor>, _| {
        app.task.is_time_over = true;
        Ok(Flow::Remove)
    });
    session.run()?;
    visits.count += 1;
    visits.entries += session.app.client.machine().stats().synced_entries;
    visits.set += session.app.task.applied;
    visits.counts.add(&ClientCounts::of(&session));
    Ok(())
}

impl Task for Visitor {
    fn hear(&mut self, _: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Applied { uuid, .. } if self.under_way.remove(&uuid) => self.applied += 1,
            Event::Refused { reason, .. } => {
                return Err(Failure::Refused(format!("the broker refused a change: {reason}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn step(
        app: &mut App<Visitor>,
        registry: &mut Registry<App<Visitor>>,
    ) -> Result<Step, Failure> {
        let App { client, task, .. } = app;
        if !client.machine().is_current() {
            return Ok(Step::Wait);
        }
        if !task.has_set {
            task.has_set = true;
            for number in 0..KEYS {
                task.key.clone_from(&task.prefix);
                // A Vec takes everything.
                let _ = write!(task.key, "{number}");
                let made = client.set(registry, &task.key, &task.value, Some(TTL));
                let uuid = made.map_err(|error| Failure::Refused(error.to_string()))?;
                task.under_way.insert(uuid);
            }
        }
        let is_over = task.is_time_over && task.under_way.is_empty();
        Ok(if is_over { Step::Done } else { Step::Wait })
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        let waits = !self.under_way.is_empty() || !client.is_current();
        waits.then(|| client.stats().confirmed + client.stats().synced_entries)
    }

    fn complaint(&self) -> String {
        match self.under_way.is_empty() {
            true => "sent no whole snapshot".to_owned(),
            false => "did not confirm all changes of a client that came".to_owned(),
        }
    }
}
