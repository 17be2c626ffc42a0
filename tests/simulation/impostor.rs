//! Peers of a pair that mean harm, or are confused: what they say can neither promote nor
//! demote a broker, nor make anything safe.
//!
//! What comes over the line, from the peer's own address, is believed if it can be: until
//! there is authentication that takes a trusted network. Here it is what cannot be.

use pollux::Time;
use pollux::clone::broker::Broker;
use pollux::clone::pair::{Lineage, Role, pair_id};
use pollux::clone::{KvMsg, Limits, Sequence};

use crate::frames::Frames;

/// How many kinds of message there are over the line, and how many to the ports.
const LINE_KINDS: u64 = 11;
const PORT_KINDS: u64 = 4;
pub(crate) const KINDS: u64 = LINE_KINDS + PORT_KINDS;

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The connection that the broker made to its peer.
    Line,
    /// Its own port for requests.
    Port,
}

/// A message, and whether it must be refused.
pub(crate) struct Claim {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    pub(crate) frames: Frames,
    pub(crate) is_refused: bool,
}

/// What must be the same after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Before {
    role: Role,
    sequence: Sequence,
    stable: Option<String>,
}

impl Before {
    pub(crate) fn of(broker: &Broker, stable: Option<String>) -> Before {
        Before { role: broker.role(), sequence: broker.sequence(), stable }
    }
}

/// A message to this broker, whose peer said `last` last. `None` if there is none of the
/// kind at the moment.
pub(crate) fn claim(kind: u64, broker: &Broker, last: Option<&Frames>) -> Option<Claim> {
    let own = format!("{:016x}", broker.config().node);
    let sequence = broker.sequence();
    let spans = |sequence: Sequence| format!("{sequence}-{sequence}");
    let (root, near) = (format!("{sequence}-000000000000beef"), spans(sequence));
    let (far, next) = (Sequence::new(sequence.epoch() + 100_000, 5), sequence.next());
    let (far_spans, next_spans) = (spans(far), spans(next));
    let (way, is_refused) =
        if kind < LINE_KINDS { (Way::Line, true) } else { (Way::Port, kind > LINE_KINDS) };
    let (name, frames) = match kind {
        0 => (
            "another pair",
            status(sequence, &[("pair", "01"), ("root", &root), ("lineage", &near)]),
        ),
        1 => ("no node", status(sequence, &[("node", ""), ("root", &root), ("lineage", &near)])),
        2 => {
            ("ourselves", status(sequence, &[("node", &own), ("root", &root), ("lineage", &near)]))
        }
        3 => {
            ("no role", status(sequence, &[("role", "king"), ("root", &root), ("lineage", &near)]))
        }
        4 => ("far future", status(far, &[("root", &root), ("lineage", &far_spans)])),
        5 => {
            let lines =
                [("role", "passive"), ("of", &*own), ("root", &*root), ("lineage", &*next_spans)];
            ("never sent", status(next, &lines))
        }
        6 => ("outside of its history", status(next, &[("root", &root), ("lineage", &near)])),
        7 => ("active without a history", status(Sequence::ZERO, &[])),
        8 => ("refusal", status(Sequence::ZERO, &[("refused", "pair")])),
        9 => ("no message", Frames::new(&[b"PEER?", b"12345678", b"x"])),
        10 => ("went back", went_back(last?)?),
        11 => {
            let pair = format!("{:016x}", pair_id("simulated"));
            let greeting = format!("pair={pair}\nnode=beef\nseat=backup\nhb=100\nrole=active\n");
            ("greeting", Frames::new(&[b"PEER?", greeting.as_bytes()]))
        }
        12 => ("claim of a client", status(far, &[("root", &root), ("lineage", &far_spans)])),
        13 => ("another greeting", Frames::new(&[b"PEER?", b"pair=01\nnode=02\n"])),
        _ => {
            let change: [&[u8]; 7] =
                [b"RESUBMIT", b"base=0\n", b"/a/evil", &[0; 8], &[9; 16], b"", b"evil"];
            ("handed over by a client", Frames::new(&change))
        }
    };
    Some(Claim { name, way, frames, is_refused })
}

/// What a peer would push, with some of it replaced.
fn status(position: Sequence, lines: &[(&str, &str)]) -> Frames {
    let pair = format!("{:016x}", pair_id("simulated"));
    let mut all = vec![
        ("pair", pair.as_str()),
        ("node", "000000000000beef"),
        ("seat", "backup"),
        ("role", "active"),
        ("hb", "100"),
    ];
    for &(name, value) in lines {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(line) => line.1 = value,
            None => all.push((name, value)),
        }
    }
    let lines = all.iter().filter(|(_, value)| !value.is_empty());
    let text: String = lines.map(|(name, value)| format!("{name}={value}\n")).collect();
    Frames::new(&[b"PEER?", &position.to_wire(), b"", text.as_bytes(), b""])
}

/// What the peer said last, but from an earlier position of its present epoch.
fn went_back(last: &Frames) -> Option<Frames> {
    last.with(|message| {
        let limits = Limits::default();
        let said = KvMsg::decode(message, &limits).ok()?;
        let text = str::from_utf8(said.properties.as_bytes()).ok()?;
        let spans = str::from_utf8(said.properties.get("lineage")?).ok()?;
        let root = str::from_utf8(said.properties.get("root")?).ok()?;
        let first = Lineage::parse(root, spans)?.first();
        if first >= said.sequence {
            return None;
        }
        let before = format!("{first}-{}\n", said.sequence);
        let text = text.replace(&before, &format!("{first}-{first}\n"));
        Some(Frames::new(&[b"PEER?", &first.to_wire(), b"", text.as_bytes(), b""]))
    })
}

/// A message that came at `now` from nobody, for the trace.
pub(crate) fn trace(now: Time, host: usize, claim: &Claim) -> String {
    format!("{:>12.6} to {host}, {:?}: {}", now.as_nanos() as f64 / 1e9, claim.way, claim.name)
}
