//! Two brokers and the connections between them: in order each, cut and made again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clone::broker::tests::RECENT;
use crate::clone::broker::{Broker, BrokerConfig, BrokerOutbox, PairStats};
use crate::clone::kvmsg::{KVPUBS, KvMsg, Limits};
use crate::clone::pair::{PairConfig, Role, Seat, pair_id};
use crate::clone::{SendFailure, Sequence};
use crate::message::Message;
use crate::time::Time;

pub(super) type Frames = Vec<Vec<u8>>;

/// The heartbeat interval of both.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);

/// What a message takes from one to the other.
pub(super) const LATENCY: Duration = Duration::from_micros(300);

/// A message between the two, on its way.
#[derive(Debug)]
enum Packet {
    /// On the line, to the ROUTER.
    Line(Frames),
    /// From the ROUTER, to the line.
    Push(Frames),
    /// On the DEALER for snapshots, and back.
    Request(u64, Frames),
    Entry(u64, Frames),
}

/// One of the two with what is open to the other.
pub(super) struct Side {
    pub(super) broker: Option<Broker>,
    pub(super) net: Net,
    seat: Seat,
    runs: u64,
}

/// What a broker sends, and what it has open.
#[derive(Default)]
pub(super) struct Net {
    /// Everything published, for clients.
    pub(super) published: Vec<Frames>,
    /// What clients got on P, by routing id.
    pub(super) replies: BTreeMap<Vec<u8>, Vec<Frames>>,
    out: Vec<Packet>,
    sync: Option<u64>,
    opened: u64,
    /// Whether the other is reached at all.
    pub(super) is_cut: bool,
    /// Whether the other reads nothing, so that no more goes into its queue.
    pub(super) is_full: bool,
    /// How many messages the line has room for, if not for any number, and how many are on
    /// their way.
    pub(super) line_room: Option<usize>,
    on_line: usize,
}

impl BrokerOutbox for Net {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let frames = own(frames);
        match peer {
            b"line" if self.is_cut => return Err(SendFailure::Unreachable),
            b"line" if self.is_full => return Err(SendFailure::WouldBlock),
            b"line" => self.out.push(Packet::Push(frames)),
            _ => match peer.strip_prefix(b"sync-") {
                Some(number) => {
                    let number = String::from_utf8_lossy(number).parse().unwrap();
                    self.out.push(Packet::Entry(number, frames));
                }
                None => self.replies.entry(peer.to_vec()).or_default().push(frames),
            },
        }
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        self.published.push(own(frames));
        Ok(())
    }

    fn tell_peer(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        if self.is_cut || self.line_room.is_some_and(|room| self.on_line >= room) {
            return Err(SendFailure::WouldBlock);
        }
        self.on_line += 1;
        self.out.push(Packet::Line(own(frames)));
        Ok(())
    }

    fn open_sync(&mut self) {
        self.opened += 1;
        self.sync = Some(self.opened);
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let number = self.sync.ok_or(SendFailure::Unreachable)?;
        self.out.push(Packet::Request(number, own(frames)));
        Ok(())
    }
}

fn own(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

/// Both brokers, and the time.
pub(super) struct World {
    pub(super) sides: [Side; 2],
    pub(super) now: Time,
    air: VecDeque<(Time, usize, Packet)>,
    configure: fn(&mut BrokerConfig, &mut PairConfig),
    /// Messages with changes to a standby that are lost on the way.
    pub(super) lose_changes: usize,
    /// Messages with changes to a standby.
    pub(super) streamed: usize,
    /// What comes on the DEALERs for snapshots, if it is held up.
    late: Option<Vec<(usize, Packet)>>,
}

pub(super) const ACTIVE: Option<Role> = Some(Role::Active);
pub(super) const PASSIVE: Option<Role> = Some(Role::Passive);

/// The primary.
pub(super) const A: usize = 0;
/// The backup.
pub(super) const B: usize = 1;

impl World {
    pub(super) fn new() -> World {
        World::with(|_, _| {})
    }

    /// Both are started.
    pub(super) fn with(configure: fn(&mut BrokerConfig, &mut PairConfig)) -> World {
        let mut world = World::down(configure);
        world.start(A);
        world.start(B);
        world
    }

    /// The primary is active, the backup follows it.
    pub(super) fn ready() -> World {
        let mut world = World::new();
        world.pass_ms(500);
        assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
        world
    }

    /// The primary alone, with so many keys.
    pub(super) fn filled(keys: usize) -> World {
        let mut world = World::down(|_, _| {});
        world.start(A);
        world.pass_ms(2500);
        for n in 0..keys {
            world.set(A, (n % 250) as u8 + 1, &format!("/{n}"), "x");
            if n % 250 == 249 {
                world.pass_ms(1);
            }
        }
        world
    }

    /// Neither is started.
    pub(super) fn down(configure: fn(&mut BrokerConfig, &mut PairConfig)) -> World {
        let side = |seat| Side { broker: None, net: Net::default(), seat, runs: 0 };
        let sides = [side(Seat::Primary), side(Seat::Backup)];
        let now = Time::ZERO + Duration::from_secs(1000);
        let air = VecDeque::new();
        World { sides, now, air, configure, lose_changes: 0, streamed: 0, late: None }
    }

    pub(super) fn start(&mut self, at: usize) {
        let side = &mut self.sides[at];
        side.runs += 1;
        let node = (at as u64 + 1) * 0x1000 + side.runs;
        // A millisecond of the wall clock for each of ours.
        let minutes = 1000 + self.now.as_nanos() / 60_000_000_000;
        let ms = self.now.as_nanos() / 1_000_000 % 60_000;
        let mut config = BrokerConfig::new(node, Sequence::new(minutes as u32, ms << 24));
        config.heartbeat = HEARTBEAT;
        config.recent_count = RECENT;
        let mut pair = PairConfig::new(pair_id("test"), side.seat);
        (self.configure)(&mut config, &mut pair);
        config.pair = Some(pair);
        let is_cut = side.net.is_cut;
        side.net = Net { is_cut, opened: side.net.opened + 1, ..Net::default() };
        side.broker = Some(Broker::new(config, self.now));
    }

    /// What is started from now on is another.
    pub(super) fn reconfigure(&mut self, configure: fn(&mut BrokerConfig, &mut PairConfig)) {
        self.configure = configure;
    }

    /// It is gone without a word, and all that is on the way from it.
    pub(super) fn kill(&mut self, at: usize) {
        self.sides[at].broker = None;
        self.air.retain(|&(_, to, _)| to == at);
    }

    /// The network between the two, which carries nothing any more, or does again.
    pub(super) fn cut(&mut self, is_cut: bool) {
        for side in &mut self.sides {
            side.net.is_cut = is_cut;
            side.net.on_line = 0;
        }
        self.air.clear();
    }

    /// Cuts them off from one another, with clients at both.
    pub(super) fn split(&mut self) {
        self.cut(true);
        self.pass(HEARTBEAT * 2);
        self.ask(B);
        self.pass_ms(50);
        assert_eq!(self.roles(), [ACTIVE, ACTIVE]);
    }

    pub(super) fn heal(&mut self) {
        self.cut(false);
        self.pass_ms(1000);
    }

    /// The connections for snapshots are slower than the others, until they are let go.
    pub(super) fn hold_snapshots(&mut self) {
        self.late = Some(Vec::new());
    }

    pub(super) fn let_snapshots_go(&mut self) {
        for (to, packet) in self.late.take().unwrap_or_default() {
            self.deliver(to, packet);
        }
    }

    pub(super) fn broker(&self, at: usize) -> &Broker {
        self.sides[at].broker.as_ref().expect("it runs")
    }

    /// Does something with one of them, and takes what it sends.
    pub(super) fn act<R>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Broker, Time, &mut Net) -> R,
    ) -> R {
        let side = &mut self.sides[at];
        let result = act(side.broker.as_mut().expect("it runs"), self.now, &mut side.net);
        for packet in std::mem::take(&mut side.net.out) {
            if !side.net.is_cut {
                self.air.push_back((self.now + LATENCY, 1 - at, packet));
            }
        }
        result
    }

    pub(super) fn set(&mut self, at: usize, uuid: u8, key: &str, value: &str) {
        self.set_with(at, uuid, key, "", value);
    }

    pub(super) fn set_with(&mut self, at: usize, uuid: u8, key: &str, lines: &str, value: &str) {
        let frames: [&[u8]; 5] =
            [key.as_bytes(), &[0; 8], &[uuid; 16], lines.as_bytes(), value.as_bytes()];
        self.act(at, |broker, now, net| broker.handle_change(now, Message::new(&frames), net));
    }

    pub(super) fn request(&mut self, at: usize, peer: &str, frames: &[&[u8]]) {
        self.act(at, |broker, _, net| {
            broker.handle_request(peer.as_bytes(), Message::new(frames), net);
        });
    }

    /// A client asks for a snapshot: a vote, if the broker is passive.
    pub(super) fn ask(&mut self, at: usize) {
        self.request(at, "client", &[b"ICANHAZ?", b""]);
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let sync = self.sides[to].net.sync;
        if matches!(packet, Packet::Line(_)) {
            let on_line = &mut self.sides[1 - to].net.on_line;
            *on_line = on_line.saturating_sub(1);
        }
        if self.sides[to].broker.is_none() {
            return;
        }
        fn frames_of(frames: &Frames) -> Vec<&[u8]> {
            frames.iter().map(Vec::as_slice).collect()
        }
        self.act(to, |broker, now, net| match &packet {
            Packet::Line(frames) => {
                broker.handle_request(b"line", Message::new(&frames_of(frames)), net);
            }
            Packet::Push(frames) => {
                broker.handle_peer(now, Message::new(&frames_of(frames)), net);
            }
            Packet::Request(number, frames) => {
                let peer = format!("sync-{number}");
                broker.handle_request(peer.as_bytes(), Message::new(&frames_of(frames)), net);
            }
            Packet::Entry(number, frames) if sync == Some(*number) => {
                broker.handle_peer_snapshot(now, Message::new(&frames_of(frames)), net);
            }
            _ => {}
        });
    }

    fn next_event(&self) -> Time {
        let deadline = |side: &Side| side.broker.as_ref().and_then(Broker::next_deadline);
        let timers = self.sides.iter().filter_map(deadline);
        let first = self.air.front().map(|&(at, _, _)| at);
        timers.chain(first).min().unwrap_or(Time::NEVER).max(self.now)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200_000 {
            let next = self.next_event();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while self.air.front().is_some_and(|&(at, _, _)| at <= self.now) {
                let Some((_, to, packet)) = self.air.pop_front() else { break };
                let is_change = matches!(&packet, Packet::Push(frames) if frames[0] == KVPUBS);
                self.streamed += usize::from(is_change);
                if is_change && self.lose_changes > 0 {
                    self.lose_changes -= 1;
                    continue;
                }
                match &mut self.late {
                    Some(late) if matches!(packet, Packet::Entry(..)) => late.push((to, packet)),
                    _ => self.deliver(to, packet),
                }
            }
            for at in [A, B] {
                let is_due = |broker: &Broker| {
                    broker.next_deadline().is_some_and(|deadline| deadline <= self.now)
                };
                if self.sides[at].broker.as_ref().is_some_and(is_due) {
                    self.act(at, Broker::handle_timeout);
                }
            }
        }
        panic!("the brokers do not come to rest");
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    pub(super) fn roles(&self) -> [Option<Role>; 2] {
        [A, B].map(|at| self.sides[at].broker.as_ref().map(Broker::role))
    }

    pub(super) fn map(&self, at: usize) -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = self.broker(at).store().iter(b"");
        entries.map(|entry| (text(entry.key), text(entry.value))).collect()
    }

    pub(super) fn stats(&self, at: usize) -> PairStats {
        self.broker(at).pair_stats().expect("one of a pair")
    }

    /// A property of the last heartbeat that was published for everybody.
    pub(super) fn told(&self, at: usize, name: &str) -> Option<String> {
        self.sides[at].net.published.iter().rev().find_map(|frames| {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let kvmsg = KvMsg::decode(Message::new(&frames), &Limits::default()).ok()?;
            let value = kvmsg.properties.get(name)?;
            (kvmsg.key == b"HUGZ").then(|| String::from_utf8(value.to_vec()).unwrap())
        })
    }

    /// What was published for everybody, by kind: changes only.
    pub(super) fn changes(&self, at: usize) -> usize {
        let is_change =
            |frames: &&Frames| !frames[0].starts_with(b"HUGZ") && frames[0] != b"STATUS?";
        self.sides[at].net.published.iter().filter(is_change).count()
    }
}
