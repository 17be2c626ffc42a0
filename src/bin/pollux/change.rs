//! `pollux set` and `pollux del`: one change, until it is applied.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use pollux::clone::client::{Client, ClientConfig, Event, SetError};
use pollux::clone::{Sequence, Uuid};
use pollux::reactor::Registry;
use pollux::time::Time;

use crate::args::{Common, DelArgs, MAX_VALUE, SetArgs, WaitArg};
use crate::clear;
use crate::exit::Failure;
use crate::output;
use crate::session::{self, App, Session, Step, Task};
use crate::text::Shown;

/// `pollux set`.
pub(crate) fn set(common: &Common, args: SetArgs) -> Result<(), Failure> {
    let key = args.key.into_vec();
    session::check(&key)?;
    let value = match (args.value, args.file) {
        (_, Some(path)) => read(&path)?,
        (value, None) => value.unwrap_or_default().into_vec(),
    };
    if value.is_empty() {
        return Err(session::unsent(&key, &SetError::EmptyValue));
    }
    // Without a subtree: nothing is asked for that is not needed.
    let change = Change::new(key, Action::Set { value, ttl: args.ttl }, args.wait);
    make(common, ClientConfig::default(), change)
}

/// The content of a file, `-` for stdin, byte for byte. Of one that is larger than any
/// broker takes no more than that is read.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let result = match path.as_os_str() == "-" {
        true => io::stdin().lock().take(MAX_VALUE as u64 + 1).read_to_end(&mut value),
        false => File::open(path)
            .and_then(|file| file.take(MAX_VALUE as u64 + 1).read_to_end(&mut value)),
    };
    let name = Shown(path.as_os_str().as_encoded_bytes());
    match result {
        Ok(size) if size > MAX_VALUE => {
            Err(Failure::Usage(format!("{name}: over 256M, which no broker takes")))
        }
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::Usage(format!("{name}: {error}"))),
    }
}

/// `pollux del`.
pub(crate) fn del(common: &Common, args: DelArgs) -> Result<(), Failure> {
    if let Some(subtree) = args.subtree {
        return clear::run(common, subtree.0, args.wait);
    }
    let key = args.key.unwrap_or_default().into_vec();
    session::check(&key)?;
    // They tell whether it is there.
    let config = ClientConfig::follow([session::beginning(&key)]);
    make(common, config, Change::new(key, Action::Delete, args.wait))
}

fn make(common: &Common, mut config: ClientConfig, change: Change) -> Result<(), Failure> {
    config.until_safe = change.wait == WaitArg::Safe;
    let mut session = Session::open(common, config, change)?;
    session.run()?;
    if let Stage::NotThere = session.app.task.stage {
        let key = &session.app.task.key;
        return Err(session::not_there(session.app.client.machine(), common, key));
    }
    if session.app.task.wait == WaitArg::Safe {
        session.warn_if_alone();
    }
    if common.json
        && let Stage::Done(sequence) = session.app.task.stage
    {
        output::json(&serde_json::json!({
            "sequence": sequence.get(), "epoch": sequence.epoch(), "counter": sequence.counter(),
        }))?;
    }
    Ok(())
}

#[derive(Debug)]
enum Action {
    Set { value: Vec<u8>, ttl: Option<Duration> },
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The broker, and for a deletion the key, is looked for.
    Looking,
    UnderWay(Uuid),
    /// It is applied, and waits to be safe.
    Applied(Uuid),
    Done(Sequence),
    /// There is nothing to delete.
    NotThere,
}

#[derive(Debug)]
struct Change {
    key: Vec<u8>,
    action: Action,
    wait: WaitArg,
    stage: Stage,
}

impl Change {
    fn new(key: Vec<u8>, action: Action, wait: WaitArg) -> Change {
        Change { key, action, wait, stage: Stage::Looking }
    }

    fn is(&self, uuid: Uuid) -> bool {
        matches!(self.stage, Stage::UnderWay(ours) | Stage::Applied(ours) if ours == uuid)
    }
}

impl Task for Change {
    fn hear(&mut self, client: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Applied { uuid, sequence } if self.is(uuid) => {
                log::info!("applied with sequence {sequence}");
                self.stage = match self.wait {
                    WaitArg::Applied => Stage::Done(sequence),
                    WaitArg::Safe => Stage::Applied(uuid),
                };
            }
            Event::Safe { uuid, sequence } if self.is(uuid) => {
                log::info!("safe with sequence {sequence}");
                self.stage = Stage::Done(sequence);
            }
            Event::NotSafe { uuid } if self.is(uuid) => {
                return Err(session::refused(&self.key, &NOT_SAFE));
            }
            Event::Refused { uuid, reason } if self.is(uuid) => {
                let size = match &self.action {
                    Action::Set { value, .. } => value.len(),
                    Action::Delete => 0,
                };
                return Err(refused(client, &self.key, size, &reason));
            }
            _ => {}
        }
        Ok(())
    }

    fn step(app: &mut App<Change>, registry: &mut Registry<App<Change>>) -> Result<Step, Failure> {
        let Change { key, action, stage, .. } = &mut app.task;
        match stage {
            Stage::Done(_) | Stage::NotThere => return Ok(Step::Done),
            Stage::UnderWay(_) | Stage::Applied(_) => return Ok(Step::Wait),
            Stage::Looking => {}
        }
        let made = match action {
            // The broker's limits are known with it.
            _ if !app.client.machine().is_current() => return Ok(Step::Wait),
            Action::Set { value, ttl } => app.client.set(registry, key, value, *ttl),
            Action::Delete if app.client.machine().get(key).is_none() => {
                *stage = Stage::NotThere;
                return Ok(Step::Done);
            }
            Action::Delete => app.client.delete(registry, key),
        };
        let uuid = made.map_err(|error| session::unsent(key, &error))?;
        log::info!("the change goes to the broker as {uuid}");
        *stage = Stage::UnderWay(uuid);
        Ok(Step::Wait)
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        match self.stage {
            Stage::Looking => Some(client.stats().synced_entries),
            // One answer is all there is to come.
            Stage::UnderWay(_) => Some(u64::MAX),
            // And then that it is safe.
            Stage::Applied(_) | Stage::Done(_) | Stage::NotThere => Some(u64::MAX - 1),
        }
    }

    fn complaint(&self) -> String {
        match self.stage {
            Stage::UnderWay(_) => {
                "did not confirm the change, which may have been applied or not,".to_owned()
            }
            Stage::Applied(_) => {
                "applied the change, but did not say that it is safe (has it a live standby?),"
                    .to_owned()
            }
            _ => "sent no state".to_owned(),
        }
    }
}

/// Why one that was applied may be lost.
pub(crate) const NOT_SAFE: &str =
    "applied, but whether it is safe is not known: the broker was lost, or keeps no standby";

/// What a refusal by the broker means.
pub(crate) fn refused(client: &Client, key: &[u8], value_size: usize, reason: &str) -> Failure {
    match client.broker().map(|broker| broker.limits.max_value) {
        Some(max) if value_size > max => {
            session::refused(key, &SetError::ValueSize { got: value_size, max })
        }
        _ => session::refused(key, &format_args!("refused by the broker: {}", in_words(reason))),
    }
}

/// What is said on the wire in one word.
fn in_words(reason: &str) -> &str {
    match reason {
        "store-full-keys" => "the store is full (--max-keys of the broker)",
        "store-full-bytes" => "the store is full (it holds as many bytes as it may)",
        "entry-too-large" => "key, value or properties are larger than the store takes",
        "properties-too-large" => "its properties have no room for the time to live",
        "malformed" => "key, value or properties break a limit of the broker",
        "overtaken" => "a later change of the same client to the key came first",
        "outside-subtree" => "the key lies outside of the subtree that this relay has",
        "reserved-key" => "the key is reserved for the protocol",
        "relay-full" => "the relay has no room for more changes on their way upstream",
        "upstream-lost" => "the relay has lost the broker that it follows",
        "forgotten" => "it came so late that it may have been applied before, or not",
        "no-sequence-left" => "no sequence is left; restart it with a right clock",
        other => other,
    }
}
