//! `pollux watch`: the state, then each change as it happens.

use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::AsFd;

use pollux::clone::Sequence;
use pollux::clone::client::{Client, ClientConfig, Event, Why};
use pollux::reactor::{Flow, Interest, Registry};
use pollux::time::Time;
use serde::Serialize;

use crate::args::{Common, WatchArgs};
use crate::endpoint::one_of;
use crate::exit::Failure;
use crate::get::too_large;
use crate::interrupt::on_interrupt;
use crate::lines::{seconds, text_or_base64};
use crate::session::{self, App, Session, Step, Task};
use crate::text::Shown;

/// `pollux watch`.
pub(crate) fn run(common: &Common, args: &WatchArgs) -> Result<(), Failure> {
    let watch = Watch {
        out: BufWriter::with_capacity(64 << 10, io::stdout()),
        servers: common.endpoint().to_owned(),
        server: 0,
        subtree: args.subtree.0.clone(),
        json: common.json,
        left: args.count,
        silent: args.no_initial,
        is_synced: false,
        was_lost: false,
        node: None,
        is_ended: false,
    };
    let mut session = Session::open(common, ClientConfig::follow([&args.subtree.0]), watch)?;
    let end = |app: &mut App<Watch>| app.task.is_ended = true;
    on_interrupt(&mut session.reactor, end).map_err(|error| Failure::system(&error))?;
    on_output_closed(&mut session.reactor, end);
    session.run()
}

/// Notices a reader that goes away while there is nothing to write.
fn on_output_closed<S>(registry: &mut Registry<S>, handler: impl Fn(&mut S) + 'static) {
    let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() else { return };
    let added = registry.add_fd(stdout, Interest::WRITABLE, move |state: &mut S, _, _, ready| {
        if !ready.error && !ready.write_closed {
            return Ok(Flow::Continue);
        }
        handler(state);
        Ok(Flow::Stop)
    });
    // A regular file has no reader to go away.
    if let Err(rejected) = added {
        log::debug!("the output is not watched: {}", rejected.error);
    }
}

#[derive(Debug)]
struct Watch {
    out: BufWriter<Stdout>,
    servers: String,
    /// The number of the one that the state came from.
    server: usize,
    subtree: Vec<u8>,
    json: bool,
    /// Lines to print before the end; `None`: no end.
    left: Option<u64>,
    /// Print nothing before the state is there.
    silent: bool,
    /// The state was there once: from then on a broker that goes is waited for.
    is_synced: bool,
    /// Whether the state is behind, as the user was told.
    was_lost: bool,
    /// The run of the broker that the state came from.
    node: Option<u64>,
    /// By a signal, or by the reader of the output.
    is_ended: bool,
}

impl Task for Watch {
    fn hear(&mut self, client: &Client, now: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Updated { key, value, sequence } => self.print(|watch| {
                let ttl = client.get(&key).filter(|entry| entry.sequence == sequence);
                let ttl = ttl.and_then(|entry| entry.remaining(now));
                watch.print_set(&key, &value, sequence, ttl.map(seconds))
            }),
            Event::Deleted { key, why } => self.print(|watch| watch.print_deleted(&key, why)),
            Event::Synced { .. } => {
                self.server = client.server();
                let endpoint = one_of(&self.servers, self.server);
                match session::outside(client, endpoint, &self.subtree) {
                    Some(failure) if !self.is_synced => return Err(failure),
                    Some(failure) => eprintln!("pollux: {failure}"),
                    None => {}
                }
                self.is_synced = true;
                self.silent = false;
                let was_lost = std::mem::take(&mut self.was_lost);
                match self.is_restarted(client) {
                    true => self.tell("current again; it was restarted and began empty"),
                    false if was_lost => self.tell("current again"),
                    false => {}
                }
                Ok(())
            }
            Event::Lost if self.is_synced => {
                self.was_lost = true;
                match self.servers.contains(',') {
                    true => self.tell("silent; the others are asked, too"),
                    false => self.tell("silent; it is waited for"),
                }
                Ok(())
            }
            Event::UpstreamLost => {
                self.tell("a relay that has lost the broker it follows; this may be old");
                Ok(())
            }
            Event::UpstreamBack => {
                self.tell("in touch again with the broker it follows");
                Ok(())
            }
            Event::LimitReached { .. } => Err(too_large()),
            _ => Ok(()),
        }
    }

    /// What the last turn brought goes out at once.
    fn step(app: &mut App<Watch>, _: &mut Registry<App<Watch>>) -> Result<Step, Failure> {
        let watch = &mut app.task;
        watch.out.flush().map_err(|error| Failure::output(&error))?;
        match watch.is_ended || watch.left == Some(0) {
            true => Ok(Step::Done),
            false => Ok(Step::Wait),
        }
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        (!self.is_synced).then(|| client.stats().synced_entries)
    }

    fn complaint(&self) -> String {
        "sent no whole snapshot, and nothing more of it,".to_owned()
    }
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl Watch {
    /// Whether a broker alone is another run than the last one: nothing of before is left.
    fn is_restarted(&mut self, client: &Client) -> bool {
        let Some(broker) = client.broker() else { return false };
        let before = std::mem::replace(&mut self.node, broker.node);
        before.is_some() && before != broker.node && !broker.paired
    }

    /// Prints a line that is wanted, and counts it.
    fn print(&mut self, line: impl FnOnce(&mut Watch) -> io::Result<()>) -> Result<(), Failure> {
        if self.silent || self.left == Some(0) {
            return Ok(());
        }
        line(self).map_err(|error| Failure::output(&error))?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    fn print_set(
        &mut self,
        key: &[u8],
        value: &[u8],
        sequence: Sequence,
        ttl: Option<f64>,
    ) -> io::Result<()> {
        if !self.json {
            return writeln!(self.out, "{} = {}", Shown(key), Shown(value));
        }
        let ((key, key64), (value, value64)) = (text_or_base64(key), text_or_base64(value));
        self.write_json(&Line {
            event: "set",
            key: key.as_deref(),
            key64: key64.as_deref(),
            value: value.as_deref(),
            value64: value64.as_deref(),
            sequence: Some(sequence.get()),
            epoch: Some(sequence.epoch()),
            counter: Some(sequence.counter()),
            ttl,
            why: None,
        })
    }

    fn print_deleted(&mut self, key: &[u8], why: Why) -> io::Result<()> {
        let why = match why {
            Why::Expired => "expired",
            Why::Absent => "absent",
            _ => "deleted",
        };
        if !self.json {
            return writeln!(self.out, "{} {why}", Shown(key));
        }
        let (key, key64) = text_or_base64(key);
        self.write_json(&Line {
            event: "deleted",
            key: key.as_deref(),
            key64: key64.as_deref(),
            value: None,
            value64: None,
            sequence: None,
            epoch: None,
            counter: None,
            ttl: None,
            why: Some(why),
        })
    }

    fn write_json(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    fn tell(&self, what: &str) {
        eprintln!("pollux: the broker at {} is {what}", one_of(&self.servers, self.server));
    }
}
