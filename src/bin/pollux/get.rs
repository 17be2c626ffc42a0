//! `pollux get`: the value of one key.

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;

use pollux::clone::client::{Client, ClientConfig, Entry, Event};
use pollux::reactor::Registry;
use pollux::time::Time;

use crate::args::{Common, GetArgs};
use crate::exit::Failure;
use crate::lines::{Record, write_line};
use crate::session::{self, App, Session, Step, Task};
use crate::text::ShownLines;

/// `pollux get`.
pub(crate) fn run(common: &Common, args: GetArgs) -> Result<(), Failure> {
    let key = args.key.into_vec();
    session::check(&key)?;
    let session = synced(common, session::beginning(&key))?;
    let client = session.app.client.machine();
    let Some(entry) = client.get(&key) else {
        return Err(session::not_there(client, common, &key));
    };
    let mut out = io::stdout().lock();
    let printed = match (common.json, out.is_terminal() && !args.raw) {
        (true, _) => write_line(&mut out, &record(&entry, session.reactor.now())),
        // Whoever set the key has no say over the terminal.
        (false, true) => writeln!(out, "{}", ShownLines(entry.value)),
        (false, false) => out.write_all(entry.value),
    };
    printed.and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// An entry as a line shows it.
pub(crate) fn record<'a>(entry: &Entry<'a>, now: Time) -> Record<'a> {
    Record {
        key: entry.key.into(),
        value: entry.value.into(),
        sequence: Some(entry.sequence.get()),
        ttl: entry.remaining(now),
    }
}

/// A session whose client has the whole state under `subtree`.
pub(crate) fn synced<'a>(common: &'a Common, subtree: &[u8]) -> Result<Session<'a, Sync>, Failure> {
    let mut session = Session::open(common, ClientConfig::follow([subtree]), Sync)?;
    session.run()?;
    Ok(session)
}

/// Waits until the state is there.
#[derive(Debug)]
pub(crate) struct Sync;

impl Task for Sync {
    fn hear(&mut self, _: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::LimitReached { .. } => Err(too_large()),
            _ => Ok(()),
        }
    }

    fn step(app: &mut App<Sync>, _: &mut Registry<App<Sync>>) -> Result<Step, Failure> {
        match app.client.machine().is_current() {
            true => Ok(Step::Done),
            false => Ok(Step::Wait),
        }
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        Some(client.stats().synced_entries)
    }

    fn complaint(&self) -> String {
        "sent no whole snapshot, and nothing more of it,".to_owned()
    }
}

/// The state does not fit.
pub(crate) fn too_large() -> Failure {
    let limits = ClientConfig::default();
    Failure::Refused(format!(
        "the state is larger than a client takes ({} keys, {} bytes); name a subtree",
        limits.max_keys, limits.max_bytes
    ))
}
