//! Programs of RFC 12 as the Guide has them, written from its text and not from
//! our machines: a client like `clone.c`, a server like `clonesrv6.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use pollux::Time;
use pollux::clone::Uuid;

use crate::asker::{Entries, Given};
use crate::frames::Frames;
use crate::net::{Net, Port, SocketKind};

/// A server that was silent for so long is dead to a client.
const SERVER_TTL: Duration = Duration::from_secs(5);
const HUGZ_EVERY: Duration = Duration::from_secs(1);

/// Five frames as they are on the wire.
pub(crate) struct Five {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) uuid: Vec<u8>,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Five {
    pub(crate) fn parse(frames: &Frames) -> Five {
        frames.with(|message| {
            // `kvmsg_recv` takes five frames, and stops the program at a sixth.
            assert_eq!(message.len(), 5, "old programs stop at {message:?}");
            Five {
                key: message[0].to_vec(),
                sequence: u64::from_be_bytes(message[1].try_into().expect("eight bytes")),
                uuid: message[2].to_vec(),
                properties: message[3].to_vec(),
                body: message[4].to_vec(),
            }
        })
    }

    pub(crate) fn frames(&self) -> Frames {
        Frames::new(&[
            &self.key,
            &self.sequence.to_be_bytes(),
            &self.uuid,
            &self.properties,
            &self.body,
        ])
    }

    /// How many entries a snapshot has, as one of our brokers tells at its end.
    fn count(&self) -> Option<u64> {
        let properties = str::from_utf8(&self.properties).ok()?;
        properties.lines().find_map(|line| line.strip_prefix("count="))?.parse().ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initial,
    Syncing,
    Active,
}

#[derive(Debug)]
struct Server {
    host: usize,
    snapshot: usize,
    subscriber: usize,
    requests: u32,
    expiry: Time,
    /// The snapshot that comes in from it. An answer that the client has given up waiting for
    /// goes on where it was.
    given: Given,
}

/// `clone.c`'s agent: at most two servers, one request at a time and two in all
/// to a server that does not answer, a map that is never cleared.
#[derive(Debug)]
pub(crate) struct OldClient {
    subtree: Vec<u8>,
    servers: Vec<Server>,
    /// One PUB to all servers.
    publisher: usize,
    current: usize,
    state: State,
    sequence: u64,
    pub(crate) map: Entries,
    /// Keys that it has changed itself, and of which nothing has come since: what
    /// it shows of them need not have reached anybody.
    pub(crate) own: BTreeSet<Vec<u8>>,
    /// Updates missed when the request was handled by a server that knew its
    /// subscriptions.
    clean_from: Option<u64>,
    /// When its last snapshot was whole.
    pub(crate) synced_at: Time,
}

impl OldClient {
    pub(crate) fn new(net: &mut Net, host: usize, servers: &[usize], subtree: &str) -> OldClient {
        let publisher = net.open(host, SocketKind::Pub);
        let connect = |&server: &usize| {
            let snapshot = net.open(host, SocketKind::Dealer);
            net.connect(snapshot, server, Port::Snapshots);
            let subscriber = net.open(host, SocketKind::Sub);
            net.subscribe(subscriber, subtree.as_bytes());
            if !subtree.is_empty() {
                net.subscribe(subscriber, b"HUGZ");
            }
            net.connect(subscriber, server, Port::Updates);
            net.connect(publisher, server, Port::Changes);
            Server {
                host: server,
                snapshot,
                subscriber,
                requests: 0,
                expiry: Time::ZERO,
                given: Given::default(),
            }
        };
        let servers = servers.iter().map(connect).collect();
        let mut client = OldClient {
            subtree: subtree.as_bytes().to_vec(),
            servers,
            publisher,
            current: 0,
            state: State::Initial,
            sequence: 0,
            map: BTreeMap::new(),
            own: BTreeSet::new(),
            clean_from: None,
            synced_at: Time::ZERO,
        };
        client.ask(net);
        client
    }

    /// The server it holds on to, if it is in step with it.
    pub(crate) fn active_with(&self) -> Option<usize> {
        (self.state == State::Active).then(|| self.servers[self.current].host)
    }

    pub(crate) fn deadline(&self) -> Time {
        self.servers[self.current].expiry
    }

    pub(crate) fn subtree(&self) -> &[u8] {
        &self.subtree
    }

    fn ask(&mut self, net: &mut Net) {
        let server = &mut self.servers[self.current];
        if server.requests < 2 {
            net.request(server.snapshot, &[b"ICANHAZ?", &self.subtree]);
            server.requests += 1;
        }
        server.expiry = net.now + SERVER_TTL;
        self.state = State::Syncing;
        self.listen(net);
    }

    /// It polls one socket of one server, according to its state.
    fn listen(&self, net: &mut Net) {
        for (index, server) in self.servers.iter().enumerate() {
            let is_current = index == self.current;
            net.read(server.snapshot, is_current && self.state == State::Syncing);
            net.read(server.subscriber, is_current && self.state == State::Active);
        }
    }

    pub(crate) fn timeout(&mut self, net: &mut Net) {
        if self.deadline() <= net.now {
            net.coverage.count("old client: server died");
            self.current = (self.current + 1) % self.servers.len();
            self.state = State::Initial;
            self.clean_from = None;
            self.ask(net);
        }
    }

    /// A server begins to answer this client's request.
    pub(crate) fn is_asking(&mut self, net: &Net, server: usize) {
        let Server { host, subscriber, requests, .. } = self.servers[self.current];
        if host != server {
            // It was asked before the client turned to this one.
            return;
        }
        // Of two requests it is the first whose answer is taken, and that may be long on its
        // way: what was lost since then is not known here, so nothing can be promised of it.
        let is_it = self.state == State::Syncing && requests == 1;
        self.clean_from = (is_it && net.is_subscribed(subscriber)).then(|| net.missed(subscriber));
    }

    /// Whether nothing of what it should know was lost on the way.
    pub(crate) fn is_clean(&self, net: &Net) -> bool {
        let subscriber = self.servers[self.current].subscriber;
        self.clean_from == Some(net.missed(subscriber))
    }

    /// Takes a message; gives the snapshot that it ends.
    pub(crate) fn message(
        &mut self,
        net: &mut Net,
        socket: usize,
        frames: &Frames,
    ) -> Option<Snapshot> {
        let server = &mut self.servers[self.current];
        let expected = match self.state {
            State::Syncing => server.snapshot,
            State::Active => server.subscriber,
            State::Initial => return None,
        };
        if socket != expected {
            return None;
        }
        let message = Five::parse(frames);
        server.expiry = net.now + SERVER_TTL;
        if self.state == State::Syncing {
            server.requests = 0;
            if message.key == b"KTHXBAI" {
                self.sequence = message.sequence;
                self.synced_at = net.now;
                self.state = State::Active;
                self.listen(net);
                net.coverage.count("old client: snapshot");
                let given = std::mem::take(&mut self.servers[self.current].given);
                return Some(Snapshot {
                    sequence: message.sequence,
                    count: message.count(),
                    given,
                });
            }
            if !server.given.is_doubled(frames) {
                server.given.take(&message.key, message.sequence, &message.body);
            }
            self.store(message);
        } else if message.sequence > self.sequence {
            self.sequence = message.sequence;
            self.store(message);
        }
        None
    }

    fn store(&mut self, message: Five) {
        match message.sequence {
            0 => self.own.insert(message.key.clone()),
            _ => self.own.remove(&message.key),
        };
        match message.body.is_empty() {
            true => self.map.remove(&message.key),
            false => self.map.insert(message.key, (message.sequence, message.body)),
        };
    }

    /// Sets a key, or deletes it with an empty value: here at once, then wherever
    /// its PUB reaches.
    pub(crate) fn set(&mut self, net: &mut Net, key: &[u8], value: &[u8], uuid: Uuid, ttl: u64) {
        let message = Five {
            key: key.to_vec(),
            sequence: 0,
            uuid: uuid.as_bytes().to_vec(),
            properties: format!("ttl={ttl}\n").into_bytes(),
            body: value.to_vec(),
        };
        let frames = message.frames();
        frames
            .with(|message| net.change(self.publisher, message.frames()))
            .expect("a PUB never blocks");
        self.store(message);
    }
}

/// What an old client was given, and how much of it is the snapshot, if that was told: the
/// client itself does not know of it.
pub(crate) struct Snapshot {
    pub(crate) sequence: u64,
    pub(crate) count: Option<u64>,
    pub(crate) given: Given,
}

/// `clonesrv6.c`, one half of it: sequences from 1 after each start, heartbeats
/// without properties, the whole snapshot in one go.
#[derive(Debug)]
pub(crate) struct OldServer {
    host: usize,
    pub(crate) map: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    sequence: u64,
    beats: bool,
    /// It waits for a request for a snapshot before it takes changes.
    is_passive: bool,
    hugz_at: Time,
    /// Answers that the router had no room for.
    pub(crate) dropped: u64,
}

impl OldServer {
    pub(crate) fn new(host: usize, beats: bool, is_passive: bool, now: Time) -> OldServer {
        OldServer {
            host,
            map: HashMap::new(),
            sequence: 0,
            beats,
            is_passive,
            hugz_at: now + HUGZ_EVERY,
            dropped: 0,
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        if self.beats { self.hugz_at } else { Time::NEVER }
    }

    pub(crate) fn timeout(&mut self, net: &mut Net) {
        if self.deadline() <= net.now {
            self.hugz_at = net.now + HUGZ_EVERY;
            let beat = self.control(b"HUGZ", b"");
            net.publish(self.host, &beat.frames());
        }
    }

    fn control(&self, key: &[u8], body: &[u8]) -> Five {
        let (key, body) = (key.to_vec(), body.to_vec());
        Five { key, sequence: self.sequence, uuid: Vec::new(), properties: Vec::new(), body }
    }

    pub(crate) fn request(&mut self, net: &mut Net, peer: &[u8], frames: &Frames) {
        let subtree = frames.with(|message| match *message.frames() {
            [b"ICANHAZ?", subtree] => subtree.to_vec(),
            ref other => panic!("old servers stop at {other:?}"),
        });
        self.is_passive = false;
        let mut entries: Vec<_> =
            self.map.iter().filter(|(key, _)| key.starts_with(&subtree)).collect();
        entries.sort_unstable();
        let end = self.control(b"KTHXBAI", b"");
        let entries = entries.into_iter().map(|(key, (sequence, body))| Five {
            key: key.clone(),
            sequence: *sequence,
            uuid: Vec::new(),
            properties: Vec::new(),
            body: body.clone(),
        });
        for message in entries.chain([end]) {
            let sent = message.frames().with(|message| net.reply(peer, message.frames()));
            self.dropped += u64::from(sent.is_err());
        }
    }

    pub(crate) fn change(&mut self, net: &mut Net, frames: &Frames) {
        let mut message = Five::parse(frames);
        if self.is_passive {
            return;
        }
        self.sequence += 1;
        message.sequence = self.sequence;
        net.publish(self.host, &message.frames());
        match message.body.is_empty() {
            true => self.map.remove(&message.key),
            false => self.map.insert(message.key, (message.sequence, message.body)),
        };
    }
}
