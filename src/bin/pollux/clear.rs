//! `pollux del --subtree`: all keys of a subtree, until all are deleted.

use std::collections::HashSet;
use std::vec;

use pollux::clone::Uuid;
use pollux::clone::client::{Client, ClientConfig, Event, SetError};
use pollux::reactor::Registry;
use pollux::time::Time;

use crate::args::{Common, WaitArg};
use crate::change::{NOT_SAFE, refused};
use crate::endpoint::one_of;
use crate::exit::Failure;
use crate::get::too_large;
use crate::output;
use crate::session::{self, App, Session, Step, Task};
use crate::text::{Shown, counted};

/// Deletions under way at the same time.
const MAX_UNDER_WAY: usize = 10_000;

/// Deletes what is there under `subtree`; what comes meanwhile stays.
pub(crate) fn run(common: &Common, subtree: Vec<u8>, wait: WaitArg) -> Result<(), Failure> {
    let mut config = ClientConfig::follow([&subtree]);
    config.max_pending = MAX_UNDER_WAY;
    config.until_safe = wait == WaitArg::Safe;
    let mut session =
        Session::open(common, config, Clear::new(common.endpoint().to_owned(), subtree, wait))?;
    let outcome = session.run();
    if wait == WaitArg::Safe && outcome.is_ok() {
        session.warn_if_alone();
    }
    let deleted = session.app.task.deleted;
    match common.json {
        true => output::json(&serde_json::json!({ "deleted": deleted }))?,
        false => eprintln!("pollux: {} deleted", counted(deleted, "key")),
    }
    outcome
}

#[derive(Debug)]
struct Clear {
    servers: String,
    subtree: Vec<u8>,
    wait: WaitArg,
    /// What is still to be deleted; `None` before the state is there.
    keys: Option<vec::IntoIter<Vec<u8>>>,
    /// A key for which there was no room yet.
    held: Option<Vec<u8>>,
    under_way: HashSet<Uuid>,
    deleted: u64,
}

impl Clear {
    fn new(servers: String, subtree: Vec<u8>, wait: WaitArg) -> Clear {
        let under_way = HashSet::new();
        Clear { servers, subtree, wait, keys: None, held: None, under_way, deleted: 0 }
    }

    fn answered(&mut self, uuid: Uuid) {
        self.deleted += u64::from(self.under_way.remove(&uuid));
    }

    /// The keys that are there, once they are known.
    fn find(&mut self, client: &Client) -> Result<(), Failure> {
        if self.keys.is_none() && client.is_current() {
            let endpoint = one_of(&self.servers, client.server());
            if let Some(failure) = session::outside(client, endpoint, &self.subtree) {
                return Err(failure);
            }
            let keys: Vec<_> = client.iter(&self.subtree).map(|entry| entry.key.to_vec()).collect();
            if keys.is_empty() {
                let problem = format!("there is no key under \"{}\"", Shown(&self.subtree));
                return Err(Failure::NotFound(problem));
            }
            self.keys = Some(keys.into_iter());
        }
        Ok(())
    }
}

impl Task for Clear {
    fn hear(&mut self, client: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Superseded { uuid, .. } | Event::Safe { uuid, .. } => self.answered(uuid),
            Event::Applied { uuid, .. } if self.wait == WaitArg::Applied => self.answered(uuid),
            Event::NotSafe { uuid } if self.under_way.contains(&uuid) => {
                return Err(session::refused(&self.subtree, &NOT_SAFE));
            }
            Event::Refused { uuid, reason } if self.under_way.contains(&uuid) => {
                return Err(refused(client, &self.subtree, 0, &reason));
            }
            Event::LimitReached { .. } => return Err(too_large()),
            _ => {}
        }
        Ok(())
    }

    fn step(app: &mut App<Clear>, registry: &mut Registry<App<Clear>>) -> Result<Step, Failure> {
        let App { client, task, .. } = app;
        task.find(client.machine())?;
        let Some(keys) = &mut task.keys else { return Ok(Step::Wait) };
        while let Some(key) = task.held.take().or_else(|| keys.next()) {
            match client.delete(registry, &key) {
                Ok(uuid) => drop(task.under_way.insert(uuid)),
                Err(SetError::TooManyPending { .. }) => {
                    task.held = Some(key);
                    return Ok(Step::Wait);
                }
                Err(error) => return Err(session::unsent(&key, &error)),
            }
        }
        match task.under_way.is_empty() {
            true => Ok(Step::Done),
            false => Ok(Step::Wait),
        }
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        match self.keys {
            None => Some(client.stats().synced_entries),
            Some(_) => Some(u64::MAX - self.deleted),
        }
    }

    fn complaint(&self) -> String {
        match self.keys {
            None => "sent no whole snapshot, and nothing more of it,".to_owned(),
            Some(_) => format!(
                "did not confirm {}, which may have been applied or not,",
                counted(self.under_way.len() as u64, "deletion")
            ),
        }
    }
}
