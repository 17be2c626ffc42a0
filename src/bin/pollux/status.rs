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

pub(crate) const HELP: &str = "\
What the broker is, holds and has counted since its start, by name. A server of
RFC 12 that does not announce the extensions has none to give: exit code 4.

What it is:
  chp  version of the protocol        node  this run of it, anew with each start
  role  active, relay, or passive: a standby, or not ready to serve
  epoch  of its sequences             endpoint  if several are named
  collector  pull or sub              hb  heartbeat interval in ms
  maxkey, maxval  limits in bytes     stable  changes up to this sequence are safe
What it holds:
  sequence  of the last change        keys, bytes  of keys, values and properties
  tombstones  deletions remembered    uuids_remembered  of changes, to apply each once
  watched_subtrees  with a heartbeat of their own
  snapshots_active  clients that are being sent one, or wait for it
Counts:
  changes_applied  expiries included; expired  of these
  changes_repeated  sent again, had their effect before
  changes_malformed  no change within the limits; changes_reserved  of a reserved key
  changes_store_full  refused for a limit of the store
  changes_forgotten  refused: too old to know whether they were applied
  changes_overtaken  refused: a later one of the same client came first
  ttl_malformed  no positive number: the key does not expire
  snapshots_requested, snapshots_done; snapshots_delta  only what had changed
  snapshots_abandoned  the client left or read nothing; snapshots_refused  too many
  entries_sent  in snapshots; snapshot_stalls  times one waited for its client
  requests_malformed  no request; status_requests  like this one
  heartbeats  sent; watches_refused  subtrees over the limit
  publish_failed  updates that no socket took
Of a pair or a relay:
  state  whole or none
  standby  live, syncing or none; policy  --safe of the active: a relay tells those
    of what it follows
  lag_changes, lag_ms  between it and its peer; how far a relay is behind
  syncs, delta_syncs, syncs_failed, follow_gaps, backlogs_cut, followed  taking over the state
  held_dropped  requests over the limit while it could not answer them
  fork, fork_from, root, lineage  epochs before: see src/clone/PROTOCOL.md
Of a pair:
  seat  primary or backup             peer  live, silent or none, by its heartbeats
  peer_node, peer_role, peer_position, peer_epoch  what the peer said last
  changes_held  kept while passive, in case it must take over
  promotions, step_downs, handovers, epochs_lifted  changes of role and epoch
  promoted_ordered, promoted_handed_over, promoted_vote, promoted_better_state,
  promoted_older_state, promoted_first, promoted_alone  why it became active
  votes  requests of clients while passive
  stream_dropped  messages with changes that the standby had no room for
  stream_unasked  messages with changes of one that is not followed any more
  peer_refused, same_seat  messages of the peer that cannot be
  ring_kept, ring_dropped, ring_applied, ring_known  changes kept while passive
  resubmitted, resubmit_conflicts, resubmit_refused  what only it had, as the loser
  taken_over, take_over_conflicts  what only the loser had, as the winner
  refusals_taken  messages with what the loser had refused, as the winner
Of a relay:
  subtree  what it has, if not all; proven  up to here it lacks nothing of that
  upstream  live or lost              upstream_at  the one that it follows
  upstream_sequence, upstream_epoch, upstream_node  what that said last
  via, hops  the brokers between
  forwards_unsent, forwards_unanswered, forwards_not_safe  changes on their way
  requests_held, requests_ahead  of clients that know more than it, until it does
  upstreams_found, upstreams_lost  times; upstream_refused  messages that cannot be
  loops_refused  upstreams that follow it
  changes_outside  refused: of keys outside its subtree
  forwarded, forwards_repeated, forwards_known, forwards_refused, forwards_forgotten
    changes sent upstream, and what became of them
Others may be added.

--json: one object a broker, numbers as numbers, but node and peer_node as text.
sequence, stable and peer_position lie above 2^53, where jq and JavaScript round
them: sequence = epoch * 2^40 + counter.

Examples:
  pollux status
  pollux status --json | jq .keys";

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

/// Whether there is a broker that is a standby and serves nobody.
pub(crate) fn is_passive(endpoint: &str, timeout: Duration) -> bool {
    match ask(endpoint, timeout) {
        Ok(Stage::Answered(figures)) => {
            figures.iter().any(|(name, value)| name == "role" && value == "passive")
        }
        _ => false,
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

/// A DEALER to ask a broker on, and a SUB that hears first whether it can be asked: the broker
/// answers these subscriptions at once, an active one with a heartbeat, a passive one, which
/// sends none, to the second alone.
pub(crate) fn sockets_to(endpoint: &str, context: &zmq::Context) -> io::Result<(Socket, Socket)> {
    let endpoints = Endpoints::from_first(endpoint)?;
    let requests = Socket::builder(SocketType::Dealer)
        .linger(Duration::ZERO)
        .connect(endpoints.snapshots)
        .build(context)?;
    let updates = Socket::builder(SocketType::Sub)
        .linger(Duration::ZERO)
        .subscribe(HUGZ)
        .subscribe(STATUS)
        .connect(endpoints.updates)
        .build(context)?;
    Ok((requests, updates))
}

fn ask(endpoint: &str, timeout: Duration) -> io::Result<Stage> {
    let context = zmq::Context::new();
    let (requests, updates) = sockets_to(endpoint, &context)?;
    let mut reactor = Reactor::new()?;
    let requests =
        reactor.on_message(requests, |app: &mut App, _, message| Ok(app.hear(message)))?;
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
pub(crate) fn is_extended(heartbeat: Message<'_>) -> Option<bool> {
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
    use pollux::clone::broker::{BrokerStats, PairStats, RelayStats};

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
    fn each_count_is_explained() {
        let counts = BrokerStats::default().fields();
        let of_a_pair = PairStats::default().fields();
        let of_a_relay = RelayStats::default().fields();
        for (name, _) in counts.iter().chain(&of_a_pair).chain(&of_a_relay) {
            assert!(HELP.contains(name), "{name}");
        }
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
