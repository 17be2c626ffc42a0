//! Random schedules: whatever happens, the map is right when it says so, and
//! becomes right when the faults stop; and no message makes the client panic.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::broker::Dialect;
use super::world::{MS, SECOND, World};
use crate::clone::client::{Client, ClientConfig};
use crate::message::Message;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    /// Somebody changes a key; empty: deletes it.
    Put(u8, u8),
    /// The client does.
    Set(u8, u8),
    Delete(u8),
    Wait(u16),
    LoseUpdates(u8),
    LoseChanges(u8),
    LoseHeartbeats(u8),
    Truncate(u8),
    Slice(u8),
    Delays(u8, u8, u8),
    Break(u16),
    RestartBroker,
    Mute(bool),
    Full(bool),
    Forget,
}

/// Of a schedule, at most.
const STEPS: usize = if cfg!(miri) { 8 } else { 80 };

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
        10 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Set(key, value)),
        3 => any::<u8>().prop_map(Act::Delete),
        20 => (0..1500u16).prop_map(Act::Wait),
        6 => (0..4u8).prop_map(Act::LoseUpdates),
        3 => (0..4u8).prop_map(Act::LoseChanges),
        1 => (0..4u8).prop_map(Act::LoseHeartbeats),
        2 => (0..3u8).prop_map(Act::Truncate),
        2 => (1..5u8).prop_map(Act::Slice),
        3 => (0..200u8, 0..200u8, 0..200u8).prop_map(|(a, b, c)| Act::Delays(a, b, c)),
        2 => (0..6000u16).prop_map(Act::Break),
        1 => Just(Act::RestartBroker),
        1 => any::<bool>().prop_map(Act::Mute),
        1 => any::<bool>().prop_map(Act::Full),
        1 => Just(Act::Forget),
    ]
}

fn key(index: u8) -> String {
    let subtrees = ["/a/", "/b/", "", "/a/deep/"];
    format!("{}{}", subtrees[usize::from(index % 4)], index / 4 % 8)
}

fn value(value: u8) -> Vec<u8> {
    match value {
        0..50 => Vec::new(),
        _ => format!("{value}").into_bytes(),
    }
}

impl World {
    fn act(&mut self, act: &Act) {
        match *act {
            Act::Put(index, number) => self.broker.put(key(index).as_bytes(), &value(number)),
            Act::Set(index, number) => {
                self.set(&key(index), &format!("mine {number}"));
            }
            Act::Delete(index) => {
                let now = self.now();
                self.client.delete(now, key(index).as_bytes(), &mut self.net).expect("taken");
                self.drain();
            }
            Act::Wait(ms) => self.run(u32::from(ms) * MS),
            Act::LoseUpdates(count) => self.net.lose_updates = count.into(),
            Act::LoseChanges(count) => self.net.lose_changes = count.into(),
            Act::LoseHeartbeats(count) => self.net.lose_heartbeats = count.into(),
            Act::Truncate(count) => self.broker.truncate = count.into(),
            Act::Slice(count) => self.broker.slice = count.into(),
            Act::Delays(updates, requests, changes) => {
                self.net.update_delay = u32::from(updates) * MS;
                self.net.request_delay = u32::from(requests) * MS;
                self.net.change_delay = u32::from(changes) * MS;
            }
            Act::Break(ms) => {
                self.disconnect();
                self.run(u32::from(ms) * MS);
                self.reconnect();
            }
            Act::RestartBroker => self.restart_broker(),
            Act::Mute(is_mute) => self.broker.is_mute = is_mute,
            Act::Full(is_full) => self.net.is_full = is_full,
            // A store keeps for a snapshot under way what that needs.
            Act::Forget if self.broker.is_slicing() => {}
            Act::Forget => {
                // What is deleted is forgotten: deltas from before are not possible.
                self.broker.floor = self.broker.sequence;
                self.broker.entries.retain(|_, stored| !stored.value.is_empty());
            }
        }
    }

    /// The faults stop.
    fn heal(&mut self) {
        self.net.lose_updates = 0;
        self.net.lose_changes = 0;
        self.net.lose_heartbeats = 0;
        self.broker.truncate = 0;
        self.broker.is_mute = false;
        self.net.is_full = false;
        let now = self.now();
        self.client.handle_writable(now, &mut self.net);
    }
}

/// Few cases unless `PROPTEST_CASES` says more: each is minutes of virtual time.
fn config() -> ProptestConfig {
    let standard = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => standard,
        None => ProptestConfig { cases: 80, ..standard },
    }
}

fn converges(dialect: Dialect, subtrees: &[&str], acts: &[Act]) -> Result<(), TestCaseError> {
    let mut world = World::new(dialect, subtrees);
    world.start();
    for act in acts {
        world.act(act);
        world.run(MS);
    }
    world.heal();
    // The longest back-off and the longest time without progress are over.
    world.run(90 * SECOND);
    prop_assert!(world.client.is_current(), "{:?} {:?}", world.client, world.milestones());
    prop_assert_eq!(world.map(), world.model());
    prop_assert_eq!(world.client.pending(), 0);
    let stats = world.client.stats();
    let answered = stats.confirmed + stats.refused + stats.superseded + stats.timed_out;
    prop_assert_eq!(stats.submitted, answered);
    prop_assert_eq!(world.answers().len() as u64, answered, "one answer for each");
    if dialect == Dialect::Extended {
        prop_assert!(!world.broker.has_doubled(), "a change took effect twice");
    }
    // And it goes on from there.
    world.broker.put(b"/a/last", b"last");
    world.broker.put(b"/b/last", b"last");
    world.run(2 * SECOND);
    prop_assert_eq!(world.map(), world.model());
    prop_assert!(world.client.is_current());
    Ok(())
}

/// Found by chance: heartbeats stop while a snapshot is under way that turns
/// out to be truncated.
#[test]
fn an_attempt_ends_when_its_proof_is_gone() -> Result<(), TestCaseError> {
    let acts = [
        Act::Put(0, 0),
        Act::Wait(2800),
        Act::LoseHeartbeats(2),
        Act::Truncate(1),
        Act::Wait(1387),
        Act::Delays(89, 176, 0),
        Act::LoseUpdates(2),
        Act::Put(0, 0),
        Act::Put(0, 0),
        Act::Wait(816),
        Act::LoseHeartbeats(1),
        Act::Put(0, 0),
        Act::Wait(506),
    ];
    converges(Dialect::Extended, &[""], &acts)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_subtree_converges(acts in vec(act(), 0..STEPS)) {
        converges(Dialect::Extended, &["/a/"], &acts)?;
    }

    #[test]
    fn the_whole_tree_converges(acts in vec(act(), 0..STEPS)) {
        converges(Dialect::Extended, &[""], &acts)?;
    }

    #[test]
    fn several_subtrees_converge(acts in vec(act(), 0..STEPS)) {
        converges(Dialect::Extended, &["/a/", "/b/", "zz"], &acts)?;
    }

    /// Of losses a server of RFC 12 cannot tell: without any it converges, too.
    #[test]
    fn rfc12_servers_converge(
        acts in vec(act(), 0..STEPS),
        subtrees in select(&SUBTREES[..]),
        dialect in prop_oneof![Just(Dialect::Rfc12), Just(Dialect::Heartbeatless)],
    ) {
        let is_lossless = |act: &Act| {
            use Act::{Break, LoseUpdates, RestartBroker, Truncate};
            !matches!(act, LoseUpdates(_) | Truncate(_) | Break(_) | RestartBroker)
        };
        let acts: Vec<_> = acts.into_iter().filter(is_lossless).collect();
        converges(dialect, subtrees, &acts)?;
    }

    #[test]
    fn any_message_is_survived(
        messages in vec((any::<bool>(), vec(vec(any::<u8>(), 0..20), 0..7)), 0..50),
    ) {
        let mut world = World::synced(Dialect::Extended, &["/a/"]);
        for (is_update, frames) in &messages {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            match is_update {
                true => world.inject_update(&frames),
                false => world.inject_answer(&frames),
            }
        }
        let stats = world.client.stats();
        prop_assert!(stats.malformed + stats.unasked + stats.strays >= 1 || messages.is_empty());
    }

    /// Frames that look like the protocol's, in any combination.
    #[test]
    fn any_sensible_message_is_survived(
        messages in vec((any::<bool>(), sensible()), 0..80),
        dialect in prop_oneof![Just(Dialect::Extended), Just(Dialect::Rfc12)],
    ) {
        let mut world = World::new(dialect, &["/a/", "/b/"]);
        world.start();
        for (index, (is_update, frames)) in messages.iter().enumerate() {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let (now, message) = (world.now(), Message::new(&frames));
            match is_update {
                true => world.client.handle_update(now, message, &mut world.net),
                false => world.client.handle_snapshot(now, message, &mut world.net),
            }
            while world.client.poll_event().is_some() {}
            if index % 8 == 0 {
                world.net.now += SECOND;
                let now = world.now();
                world.client.handle_timeout(now, &mut world.net);
                world.client.set(now, b"/a/1", b"x", None, &mut world.net).expect("taken");
            }
        }
        let (keys, bytes) = (world.client.iter(b"").count(), world.client.bytes());
        prop_assert_eq!(keys, world.client.len());
        let counted: usize =
            world.client.iter(b"").map(|entry| entry.key.len() + entry.value.len()).sum();
        prop_assert_eq!(counted, bytes);
    }

    #[test]
    fn a_limit_holds(limit in 1..20usize, acts in vec(act(), 0..60)) {
        let mut config = ClientConfig::follow(["/a/"]);
        config.max_keys = limit;
        let mut world = World::with(Dialect::Extended, config);
        world.start();
        for act in &acts {
            world.act(act);
            world.run(MS);
            prop_assert!(world.client.len() <= 2 * limit);
            prop_assert!(!world.client.is_current() || world.client.len() <= limit);
        }
    }
}

const KEYS: [&[u8]; 9] =
    [b"/a/1", b"/a/2", b"/b/1", b"/c", b"HUGZ", b"HUGZ/a/", b"HUGZ/b/", b"KTHXBAI", b"ICANHAZ?"];
const PROPERTIES: [&str; 24] = [
    "chp=2\n",
    "chp=2\n",
    "node=0000000000000abc\n",
    "node=1\n",
    "node=x\n",
    "published=3\n",
    "published=4\n",
    "published=18446744073709551615\n",
    "hb=0\n",
    "hb=99999999999\n",
    "count=1\n",
    "mode=delta\n",
    "stable=9223372036854775807\n",
    "role=passive\n",
    "collector=sub\n",
    "ttl=30\n",
    "maxval=1000\n",
    "ttl=1e300\n",
    "ttl=-1\n",
    "ttlms=18446744073709551615\n",
    "ttl=NaN\n",
    "applied=7\n",
    "refused=no\n",
    "nonsense",
];
const BODIES: [&[u8]; 3] = [b"", b"/a/", b"value"];

const SUBTREES: [&[&str]; 3] = [&[""], &["/a/"], &["/a/", "/b/", "zz"]];

fn sensible() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let (key, body) = (select(&KEYS[..]), select(&BODIES[..]));
    let property = select(&PROPERTIES[..]);
    let sequence = prop_oneof![0..20u64, any::<u64>()];
    let uuid = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 16), vec(any::<u8>(), 3)];
    (key, sequence, uuid, vec(property, 0..6), body).prop_map(
        |(key, sequence, uuid, properties, body)| {
            let sequence = sequence.to_be_bytes().to_vec();
            vec![key.to_vec(), sequence, uuid, properties.concat().into_bytes(), body.to_vec()]
        },
    )
}

#[test]
fn two_clients_never_give_the_same_name() {
    let mut world = World::new(Dialect::Extended, &[]);
    let mut names = std::collections::HashSet::new();
    for seed in [0, 1, 16, 1 << 63, u64::MAX] {
        let mut client = Client::new(ClientConfig::default(), seed).expect("good");
        for _ in 0..100 {
            let now = world.now();
            let uuid = client.set(now, b"/a", b"x", None, &mut world.net).expect("taken");
            assert!(names.insert(uuid));
        }
        // Another client subscribes on its own socket.
        world.net.topics.clear();
    }
}
