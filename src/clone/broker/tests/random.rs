//! Whatever comes on the three ports at whatever time: the broker never panics,
//! and what it promises holds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::replica::Replica;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// A well-formed change: uuid, key, properties, value.
    Change(Option<u8>, String, &'static str, Vec<u8>),
    /// Any message on the changes port.
    AnyChange(Vec<Vec<u8>>),
    /// A request of one of a few peers.
    Request(usize, Vec<Vec<u8>>),
    /// Any message on the updates port.
    Subscription(Vec<Vec<u8>>),
    /// So much time, in microseconds.
    Pass(u64),
    /// One call of `handle_timeout`, due or not.
    Timeout,
    Writable,
    /// A peer's queue has room for so many messages, or for all.
    Room(usize, Option<usize>),
    Gone(usize, bool),
    PublishFails(bool),
}

/// Of half a schedule, at most.
const STEPS: usize = if cfg!(miri) { 8 } else { 60 };
const PEERS: [&str; 4] = ["one", "two", "three", "four"];
const SUBTREES: [&str; 5] = ["", "/a/", "/a/b/", "/b/", "/nothing/"];

fn key() -> impl Strategy<Value = String> {
    let subtree = prop::sample::select(&["/a/", "/a/b/", "/b/", "/"][..]);
    (subtree, 0..6).prop_map(|(subtree, n)| format!("{subtree}{n}"))
}

fn properties() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "",
            "",
            "ttl=0\n",
            "ttl=0.002\n",
            "ttlms=7\n",
            "ttl=-1\n",
            "ttl=never",
            "owner=eva\nttl=1\nx=y",
            "retry=3\n",
            "retry=100000\n",
        ][..],
    )
}

/// Bits of the protocol.
const KNOWN_FRAMES: &[&[u8]] = &[
    b"",
    b"ICANHAZ?",
    b"STATUS?",
    b"KTHXBAI",
    b"HUGZ",
    b"HUGZ/a/",
    b"\x01HUGZ",
    b"\x01HUGZ/a/",
    b"\x01HUGZ/a/b/",
    b"\x00HUGZ/a/",
    b"\x01HUGZ\x07",
    b"/a/1",
    b"/a/",
    b"since=0\n",
    b"since=5497558138985\n",
    b"12345678",
    b"0123456789abcdef",
    b"a=b\nc=d\n",
    b"==\n",
];

/// Frames as a careless or malicious peer might send them: bits of the
/// protocol, and anything.
fn any_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = prop::sample::select(KNOWN_FRAMES);
    let frame = prop_oneof![
        4 => known.prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..20),
        1 => (200..300_usize).prop_map(|length| vec![b'k'; length]),
    ];
    vec(frame, 0..8)
}

fn icanhaz() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let subtree = prop::sample::select(&SUBTREES[..]);
    (any::<bool>(), subtree, prop::option::of(0..40_u64)).prop_map(|(delimited, subtree, since)| {
        let mut frames = vec![b"ICANHAZ?".to_vec(), subtree.as_bytes().to_vec()];
        frames.extend(since.map(|n| format!("since={}\n", START.get() + n).into_bytes()));
        if delimited {
            frames.insert(0, Vec::new());
        }
        frames
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change = (prop::option::of(0..20_u8), key(), properties(), vec(any::<u8>(), 0..40));
    let subscription = prop_oneof![
        any_frames(),
        (0..2_u8, prop::sample::select(&SUBTREES[..]))
            .prop_map(|(verb, subtree)| vec![[&[verb], &b"HUGZ"[..], subtree.as_bytes()].concat()]),
    ];
    prop_oneof![
        12 => change.prop_map(|(uuid, key, properties, value)| {
            Step::Change(uuid, key, properties, value)
        }),
        3 => any_frames().prop_map(Step::AnyChange),
        4 => (0..4_usize, icanhaz()).prop_map(|(peer, frames)| Step::Request(peer, frames)),
        2 => (0..4_usize, any_frames()).prop_map(|(peer, frames)| Step::Request(peer, frames)),
        3 => subscription.prop_map(Step::Subscription),
        6 => (0..3000_u64).prop_map(Step::Pass),
        1 => Just(Step::Pass(1_500_000)),
        8 => Just(Step::Timeout),
        1 => Just(Step::Writable),
        2 => (0..4_usize, prop::option::of(0..5_usize)).prop_map(|(peer, n)| Step::Room(peer, n)),
        1 => (0..4_usize, any::<bool>()).prop_map(|(peer, gone)| Step::Gone(peer, gone)),
        1 => any::<bool>().prop_map(Step::PublishFails),
    ]
}

/// The store as it should be, kept in the plainest way.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Option<Time>)>,
    messages: u64,
}

impl Model {
    fn apply(&mut self, bench: &Bench, key: &[u8], properties: &str, value: &[u8]) {
        let ttl = match properties {
            "ttl=0.002\n" => Some(Duration::from_millis(2)),
            "ttlms=7\n" => Some(Duration::from_millis(7)),
            "owner=eva\nttl=1\nx=y" => Some(Duration::from_secs(1)),
            _ => None,
        };
        if value.is_empty() {
            self.entries.remove(key);
        } else {
            let deadline = ttl.map(|ttl| bench.now + ttl);
            self.entries.insert(key.to_vec(), (value.to_vec(), deadline));
        }
    }

    fn expire(&mut self, now: Time) {
        self.entries.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }
}

fn refs(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

fn take(bench: &mut Bench, model: &mut Model, step: &Step) {
    match step {
        Step::Change(uuid, key, properties, value) => {
            model.messages += 1;
            let before = bench.stats().changes_applied;
            let uuid = uuid.map_or(Vec::new(), |uuid| vec![uuid; 16]);
            bench.change(&[key.as_bytes(), &[0; 8], &uuid, properties.as_bytes(), value]);
            // Whether a uuid is still remembered is tested elsewhere: the model
            // follows what the broker says it has applied.
            if bench.stats().changes_applied > before {
                model.apply(bench, key.as_bytes(), properties, value);
            } else {
                assert!(!uuid.is_empty(), "nothing else can refuse this change");
            }
        }
        Step::AnyChange(frames) => {
            model.messages += 1;
            let before = bench.stats().changes_applied;
            bench.change(&refs(frames));
            if bench.stats().changes_applied > before {
                model.apply(bench, &frames[0], "", &frames[4]);
            }
        }
        Step::Request(peer, frames) => bench.request(PEERS[*peer], &refs(frames)),
        Step::Subscription(frames) => {
            let frames = refs(frames);
            bench.broker.handle_subscription(bench.now, Message::new(&frames));
        }
        Step::Pass(us) => {
            bench.pass(Duration::from_micros(*us));
            bench.settle();
            model.expire(bench.now);
        }
        Step::Timeout => {
            bench.broker.handle_timeout(bench.now, &mut bench.net);
            model.expire(bench.now);
        }
        Step::Writable => bench.broker.handle_writable(),
        Step::Room(peer, room) => {
            let peer = PEERS[*peer].as_bytes().to_vec();
            match room {
                Some(room) => _ = bench.net.room.insert(peer, *room),
                None => _ = bench.net.room.remove(&peer),
            }
        }
        Step::Gone(peer, true) => _ = bench.net.gone.insert(PEERS[*peer].into()),
        Step::Gone(peer, false) => _ = bench.net.gone.remove(PEERS[*peer].as_bytes()),
        Step::PublishFails(fails) => bench.net.publish_fails = *fails,
    }
}

fn check_against(bench: &Bench, model: &Model) {
    let stats = bench.stats();
    let counted = stats.changes_applied - stats.expired
        + stats.changes_repeated
        + stats.changes_malformed
        + stats.changes_reserved
        + stats.changes_store_full
        + stats.changes_forgotten
        + stats.changes_overtaken;
    assert_eq!(counted, model.messages, "every message is applied or counted: {stats:?}");
    let given = bench.broker.sequence().get() - START.get();
    assert_eq!(given, stats.changes_applied, "each applied change has one sequence");
    let live = bench.broker.store().iter(b"");
    let live: BTreeMap<Vec<u8>, (Vec<u8>, Option<Time>)> =
        live.map(|e| (e.key.to_vec(), (e.value.to_vec(), e.deadline))).collect();
    assert_eq!(live, model.entries);
}

/// What was published: sequences as they should be, heartbeats that tell the truth.
fn check_published(bench: &Bench) {
    let (mut last, mut published) = (START.get() as i64, 0);
    for wire in &bench.net.published {
        if wire.key == b"HUGZ" {
            assert!(wire.sequence >= last, "a heartbeat behind an update");
            published = wire.number("published").unwrap();
            assert_eq!(published, wire.sequence as u64 - START.get());
        } else if wire.is_heartbeat() {
            assert!(wire.number("published").unwrap() <= bench.stats().changes_applied);
        } else {
            assert!(wire.sequence > last, "{} behind {last}", wire.sequence);
            last = wire.sequence;
        }
    }
    assert!(published <= bench.stats().changes_applied);
    if bench.stats().publish_failed == 0 {
        assert_eq!(bench.updates().len() as u64, bench.stats().changes_applied);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn anything_at_any_time(steps in vec(step(), 1..2 * STEPS), small in any::<bool>()) {
        let mut bench = Bench::with(|config| {
            config.heartbeat = Duration::from_millis(500);
            config.snapshots.stall = Duration::from_millis(200);
            config.snapshots.slice_entries = 3;
            if small {
                config.recent_count = 3;
                config.max_watched = 1;
                config.snapshots.active = 1;
                config.snapshots.waiting = 2;
                config.snapshots.per_client = 2;
                config.store.history = 1;
                config.store.max_cursors = 2;
            }
        });
        let mut model = Model::default();
        for step in &steps {
            take(&mut bench, &mut model, step);
        }
        // At last all peers read, or leave, and the broker comes to rest.
        bench.net.room.clear();
        bench.net.publish_fails = false;
        bench.pass(Duration::from_secs(1));
        bench.settle();
        model.expire(bench.now);
        check_against(&bench, &model);
        check_published(&bench);
        let stats = bench.stats();
        prop_assert_eq!(stats.snapshots_requested, stats.snapshots_done + stats.snapshots_abandoned);
        prop_assert_eq!(bench.broker.store().cursors(), 0);
        prop_assert!(bench.deadline() > bench.now);
    }

    /// A client that asks once in the middle of anything has the state, from
    /// its snapshot and what came behind it.
    #[test]
    fn a_snapshot_in_the_middle_of_anything_is_exact(
        before in vec(step(), 1..STEPS),
        during in vec(step(), 1..STEPS),
        subtree in prop::sample::select(&SUBTREES[..]),
        slice in 1..8_usize,
    ) {
        let mut bench = Bench::with(|config| config.snapshots.slice_entries = slice);
        let mut model = Model::default();
        for step in before.iter().filter(|step| !matches!(step, Step::PublishFails(_))) {
            take(&mut bench, &mut model, step);
        }
        bench.net.published.clear();
        bench.request("the one", &[ICANHAZ, subtree.as_bytes()]);
        for step in during.iter().filter(|step| !matches!(step, Step::PublishFails(_))) {
            take(&mut bench, &mut model, step);
        }
        bench.net.room.clear();
        bench.settle();
        let mut replica = Replica::new(subtree);
        for reply in bench.received("the one") {
            replica.snapshot(&reply.five_frames());
        }
        prop_assert!(replica.ended());
        let state = bench.broker.store().iter(subtree.as_bytes());
        let state: BTreeMap<_, _> = state.map(|e| (e.key.to_vec(), e.value.to_vec())).collect();
        prop_assert_eq!(replica.map_with(&bench.net.published), state);
    }
}
