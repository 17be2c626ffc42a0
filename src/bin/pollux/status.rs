//! `pollux status`: what the broker says of itself.

use std::io;
use std::time::Duration;

use pollux::Message;
use pollux::clone::kvmsg::{HUGZ, STATUS};
use pollux::clone::{KvMsg, Limits, Properties};
use pollux::node::Endpoints;
use pollux::reactor::{Flow, Reactor, SocketKey};
use pollux::socket::{Socket, SocketType};
use serde_json::{Map, Value};

use crate::args::Common;
use crate::exit::Failure;
use crate::output;
use crate::session::no_broker;
use crate::text::Shown;

/// How far the question is.
struct App {
    /// The DEALER to ask on.
    requests: SocketKey,
    stage: Stage,
}

enum Stage {
    /// No heartbeat has come yet.
    Silent,
    /// The broker knows the question, and was asked.
    Asked,
    /// It is a server that would stop at the question.
    Rfc12,
    Answered(Vec<(String, String)>),
}

/// `pollux status`, of each broker that is named.
pub(crate) fn run(common: &Common) -> Result<(), Failure> {
    let servers: Vec<&str> = common.endpoint().split(',').collect();
    if let [endpoint] = servers[..] {
        return show(endpoint, common, false);
    }
    // The first that fails decides how it ends, when all were asked.
    let outcomes: Vec<_> =
        servers.into_iter().map(|endpoint| show(endpoint, common, true)).collect();
    outcomes.into_iter().collect()
}

/// Prints the figures of one broker, with its name if there are several.
fn show(endpoint: &str, common: &Common, is_one_of_many: bool) -> Result<(), Failure> {
    match figures_of(endpoint, common.timeout)? {
        Some(mut figures) => {
            if is_one_of_many {
                figures.insert(0, ("endpoint".to_owned(), endpoint.to_owned()));
            }
            match common.json {
                true => output::json(&object(&figures)),
                false => output::line(&table(&figures)),
            }
        }
        None => Err(Failure::Refused(format!(
            "the server at {endpoint} speaks plain RFC 12, which has no status; \
             `pollux dump --connect {endpoint}` shows its state"
        ))),
    }
}

/// The figures of one broker; `None`: it speaks plain RFC 12, which has none.
pub(crate) fn figures_of(
    endpoint: &str,
    timeout: Duration,
) -> Result<Option<Vec<(String, String)>>, Failure> {
    match ask(endpoint, timeout).map_err(|error| Failure::system(&error))? {
        Stage::Answered(figures) => Ok(Some(figures)),
        Stage::Rfc12 => Ok(None),
        Stage::Silent => Err(no_broker(endpoint, timeout)),
        Stage::Asked => Err(Failure::NoAnswer(format!(
            "the broker at {endpoint} is there, but did not answer; try a longer --timeout"
        ))),
    }
}

fn ask(endpoint: &str, timeout: Duration) -> io::Result<Stage> {
    let endpoints = Endpoints::from_first(endpoint)?;
    let context = zmq::Context::new();
    let mut reactor = Reactor::new()?;
    let requests = Socket::builder(SocketType::Dealer)
        .linger(Duration::ZERO)
        .connect(endpoints.snapshots)
        .build(&context)?;
    let requests =
        reactor.on_message(requests, |app: &mut App, _, message| Ok(app.hear(message)))?;
    // The broker answers these subscriptions at once: an active one with a heartbeat,
    // a passive one, which sends none, to the second alone.
    let updates = Socket::builder(SocketType::Sub)
        .linger(Duration::ZERO)
        .subscribe(HUGZ)
        .subscribe(STATUS)
        .connect(endpoints.updates)
        .build(&context)?;
    reactor.on_message(updates, |app: &mut App, cx, heartbeat| {
        if !matches!(app.stage, Stage::Silent) {
            return Ok(Flow::Continue);
        }
        match is_extended(heartbeat) {
            None => Ok(Flow::Continue),
            Some(false) => {
                app.stage = Stage::Rfc12;
                Ok(Flow::Stop)
            }
            Some(true) => {
                cx.socket(app.requests)?.send(STATUS).map_err(io::Error::other)?;
                app.stage = Stage::Asked;
                Ok(Flow::Continue)
            }
        }
    })?;
    reactor.add_timer(timeout, |_, _| Ok(Flow::Stop));
    let mut app = App { requests, stage: Stage::Silent };
    reactor.run(&mut app)?;
    Ok(app.stage)
}

impl App {
    fn hear(&mut self, answer: Message<'_>) -> Flow {
        let Some(kvmsg) = decode(answer).filter(|kvmsg| kvmsg.key == STATUS) else {
            return Flow::Continue;
        };
        self.stage = Stage::Answered(figures(kvmsg.properties));
        Flow::Stop
    }
}

/// Whether the sender of a heartbeat, or of what a passive broker says instead,
/// knows the extensions; `None`: it is neither.
fn is_extended(heartbeat: Message<'_>) -> Option<bool> {
    let is_one = |kvmsg: &KvMsg<'_>| kvmsg.key.starts_with(HUGZ) || kvmsg.key == STATUS;
    let kvmsg = decode(heartbeat).filter(is_one)?;
    Some(kvmsg.properties.parse::<u32>("chp").is_some_and(|version| version >= 2))
}

fn decode(message: Message<'_>) -> Option<KvMsg<'_>> {
    let mut limits = Limits::default();
    // There may be more figures than a key has properties.
    limits.max_properties = 1 << 20;
    KvMsg::decode(message, &limits)
        .inspect_err(|error| log::warn!("a message was dropped: {error}"))
        .ok()
}

fn figures(properties: Properties<'_>) -> Vec<(String, String)> {
    let text = |bytes| Shown(bytes).to_string();
    properties.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn table(figures: &[(String, String)]) -> String {
    let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        figures.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

fn object(figures: &[(String, String)]) -> Value {
    let value = |name: &str, text: &str| match text.parse::<u64>() {
        // The name of a run is no number, though it may have no letter in it.
        Ok(number) if name != "node" => Value::from(number),
        _ => Value::from(text),
    };
    figures
        .iter()
        .map(|(name, text)| (name.clone(), value(name, text)))
        .collect::<Map<String, Value>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_numbers_and_names_are_text() {
        let properties = Properties::check(
            b"chp=2\nnode=1234567890123456\nrole=active\nkeys=7\n",
            &Limits::default(),
        )
        .unwrap();
        let figures = figures(properties);
        let expected = serde_json::json!({
            "chp": 2, "node": "1234567890123456", "role": "active", "keys": 7,
        });
        assert_eq!(object(&figures), expected);
        assert_eq!(table(&figures).lines().last(), Some("keys  7"));
    }

    #[test]
    fn only_a_heartbeat_tells_what_its_sender_knows() {
        let sequence = [0, 0, 0, 0, 0, 0, 0, 1];
        let kvmsg = |key, properties| [key, &sequence[..], b"", properties, b""];
        for (key, properties, expected) in [
            (&b"HUGZ"[..], &b"chp=2\n"[..], Some(true)),
            (b"HUGZ/a/", b"chp=2\n", Some(true)),
            (b"STATUS?", b"chp=2\nrole=passive\n", Some(true)),
            (b"HUGZ", b"", Some(false)),
            (b"HUGZ", b"chp=1\n", Some(false)),
            (b"STATUS?", b"chp=2\n", Some(true)),
            (b"/a", b"chp=2\n", None),
        ] {
            let frames = kvmsg(key, properties);
            assert_eq!(is_extended(Message::new(&frames)), expected);
        }
        assert_eq!(is_extended(Message::new(&[b"HUGZ"])), None);
    }
}
