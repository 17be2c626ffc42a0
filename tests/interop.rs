//! Our broker with clients, and our client with servers, that were written from
//! RFC 12 alone: the programs in `tests/interop`, which end with an error at
//! whatever would stop a program of the ZeroMQ Guide.
//!
//! They need python3 with pyzmq. Without it these tests say so and pass, unless
//! `POLLUX_INSIST_INTEROP=1` is set.

mod common;
mod world;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use pollux::clone::Collector;
use pollux::clone::client::{Event, ResyncReason, Why};
use pollux::node::ClientOptions;
use pollux::reactor::Backend;
use serde_json::{Value, json};

use common::has_pyzmq;
use world::{Id, Transport, World, broker, client, map_of, state_of};

/// A test that needs the programs.
macro_rules! interop {
    ($($(#[$doc:meta])* fn $name:ident() $body:block)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            if has_pyzmq() {
                $body
            }
        }
    )*};
}

/// One of the programs, running.
struct Peer {
    process: common::Process,
    name: String,
}

impl Peer {
    fn start(script: &str, args: &[&str]) -> Peer {
        let mut command = Command::new("python3");
        command.arg(format!("{}/tests/interop/{script}", env!("CARGO_MANIFEST_DIR"))).args(args);
        Peer {
            name: format!("{script} {}", args.join(" ")),
            process: common::Process::spawn(command),
        }
    }

    /// A client of this server.
    fn client(endpoint: &str, args: &[&str]) -> Peer {
        Peer::start("client.py", &[&["--connect", endpoint], args].concat())
    }

    /// A server with quick heartbeats, and where it is.
    fn server(world: &mut World, args: &[&str]) -> (Peer, String) {
        let mut server = Peer::start("server.py", &[&["--heartbeat", "0.1"], args].concat());
        let listening = server.expect(world, "listening", |_| true);
        let endpoint = format!("tcp://127.0.0.1:{}", listening["port"]);
        (server, endpoint)
    }

    fn command(&mut self, command: Value) {
        self.process.write(format!("{command}\n").as_bytes());
    }

    fn set(&mut self, key: &str, value: &str) {
        self.set_with(json!({"key": key, "value64": to64(value.as_bytes())}));
    }

    fn set_with(&mut self, change: Value) {
        self.command(json!({"set": change}));
    }

    /// The next event of this name that is so; others are passed over. The
    /// world turns meanwhile.
    fn expect(&mut self, world: &mut World, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        let what = format!("{}: {name}", self.name);
        world.until(&what, |_| {
            while let Some(line) = self.process.stdout.next(Duration::ZERO) {
                let event: Value = serde_json::from_slice(&line).expect("an event");
                assert_ne!(event["event"], "timeout", "{}: {event}", self.name);
                if event["event"] == name && is_so(&event) {
                    found = Some(event);
                    return true;
                }
            }
            assert!(!self.process.has_ended(), "{}: {}", self.name, self.process.stderr.seen());
            false
        });
        found.expect("it was found")
    }

    /// Its map.
    fn dump(&mut self, world: &mut World) -> BTreeMap<String, String> {
        self.command(json!({"dump": true}));
        let dump = self.expect(world, "dump", |_| true);
        serde_json::from_value(dump["map"].clone()).expect("a map of texts")
    }

    /// Waits until it has all up to this sequence.
    fn catch_up(&mut self, world: &mut World, sequence: u64) {
        self.command(json!({"wait": {"sequence": sequence, "seconds": 25}}));
        self.expect(world, "waited", |_| true);
    }

    /// Ends it; it has found nothing wrong.
    fn quit(mut self, world: &mut World) {
        self.command(json!({"quit": true}));
        world.until(&format!("{} ends", self.name), |_| self.process.has_ended());
        let finished = self.process.finish();
        assert_eq!(finished.code(), Some(0), "{}: {}", self.name, finished.stderr());
    }
}

fn to64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - chunk.len()));
        (0..4_usize)
            .map(|n| match n <= chunk.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A map as the programs dump it.
fn as_dump(map: BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), to64(&value))).collect()
}

fn broker_dump(world: &World, subtree: &str) -> BTreeMap<String, String> {
    as_dump(state_of(world.broker(0), subtree))
}

/// A broker of ours over tcp.
fn our_broker(collector: Collector) -> (World, String) {
    let mut world = World::new(2, Backend::ZmqPoll);
    let mut options = broker();
    options.config.collector = collector;
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, options);
    (world, there)
}

/// A world with nothing of ours but a client to come.
fn no_broker() -> World {
    World::new(1, Backend::Epoll)
}

/// A client of ours for a server of RFC 12.
fn our_client(subtrees: &[&str]) -> ClientOptions {
    let mut options = client(subtrees);
    options.config.heartbeat_timeout = Duration::from_secs(1);
    options
}

fn our_broker_with_their_clients(collector: Collector) {
    let (mut world, there) = our_broker(collector);
    let args = ["--collector", collector.name()];
    let (mut one, mut two) = (Peer::client(&there, &args), Peer::client(&there, &args));
    let ours = world.join(1, &there, client(&["/a/"]));
    world.until_current(&[ours]);
    for peer in [&mut one, &mut two] {
        peer.expect(&mut world, "live", |_| true);
    }

    // Theirs to theirs and to ours, with what properties there are.
    let uuid = "00112233445566778899aabbccddeeff";
    one.set_with(json!({
        "key": "/a/1", "value64": to64(b"by one"), "uuid": uuid,
        "properties": {"zeta": "1", "owner": "eva", "alpha": "2"},
    }));
    let update = two.expect(&mut world, "update", |event| event["key"] == "/a/1");
    assert_eq!(update["uuid"], uuid);
    assert_eq!(update["properties"], json!({"zeta": "1", "owner": "eva", "alpha": "2"}));
    world.until("ours has it", |world| world.value(ours, "/a/1").as_deref() == Some("by one"));

    // Ours to theirs.
    let uuid = world.set(ours, "/a/2", "by ours");
    world.until_applied(ours, uuid);
    let update = one.expect(&mut world, "update", |event| event["key"] == "/a/2");
    assert_eq!(update["uuid"], uuid.to_string());
    assert_eq!(update["value64"], to64(b"by ours"));

    // Deleted and expired.
    two.set("/a/1", "");
    one.expect(&mut world, "update", |event| event["key"] == "/a/1" && event["value64"] == "");
    one.set_with(json!({"key": "/a/brief", "value64": to64(b"x"), "ttl": 0.3}));
    let set = two.expect(&mut world, "update", |event| event["key"] == "/a/brief");
    assert_eq!(set["properties"]["ttl"], "1", "what remains, in whole seconds");
    let gone = two.expect(&mut world, "update", |event| event["key"] == "/a/brief");
    assert_eq!((&gone["value64"], &gone["properties"]["why"]), (&json!(""), &json!("expired")));
    world.until("ours has heard of it", |world| {
        world.has(ours, |event| matches!(event, Event::Deleted { why: Why::Expired, .. }))
    });

    // All at once, from everybody.
    for n in 0..200 {
        one.set(&format!("/a/{}", n % 20), &format!("one {n}"));
        two.set(&format!("/b/{}", n % 20), &format!("two {n}"));
        world.set(ours, &format!("/a/{}", n % 20), &format!("ours {n}"));
    }
    world.until("all has come", |world| {
        world.broker(0).stats().changes_applied == 605 && world.client(ours).pending() == 0
    });
    let last = world.broker(0).sequence().get();
    for peer in [&mut one, &mut two] {
        peer.catch_up(&mut world, last);
        assert_eq!(peer.dump(&mut world), broker_dump(&world, ""));
    }
    world.until_equal(&[ours], 0, "/a/");
    let stats = world.broker(0).stats();
    assert_eq!((stats.changes_malformed, stats.requests_malformed), (0, 0), "{stats:?}");
    one.quit(&mut world);
    two.quit(&mut world);
}

interop! {
    fn their_clients_over_push() {
        our_broker_with_their_clients(Collector::Pull);
    }

    fn their_clients_over_pub() {
        our_broker_with_their_clients(Collector::Sub);
    }

    /// Old Python clients ask with one frame; a REQ wants one message for all.
    fn their_ways_to_ask() {
        let (mut world, there) = our_broker(Collector::Pull);
        for n in 0..300 {
            world.broker_set(0, &format!("/{}/{n}", ["a", "b"][n % 2]), format!("{n}").as_bytes());
        }
        for args in [&[][..], &["--one-frame"], &["--req"], &["--req", "--one-frame"]] {
            let mut peer = Peer::client(&there, args);
            let synced = peer.expect(&mut world, "synced", |_| true);
            assert_eq!(synced["count"], 300, "{args:?}");
            assert_eq!(synced["properties"]["chp"], "2");
            assert_eq!(peer.dump(&mut world), broker_dump(&world, ""));
            peer.quit(&mut world);
        }
        let mut peer = Peer::client(&there, &["--subtree", "/a/"]);
        let synced = peer.expect(&mut world, "synced", |_| true);
        assert_eq!((&synced["count"], &synced["subtree"]), (&json!(150), &json!("/a/")));
        peer.expect(&mut world, "live", |_| true);
        world.broker_set(0, "/b/new", b"not for it");
        let last = world.broker_set(0, "/a/new", b"for it").get();
        peer.catch_up(&mut world, last);
        assert_eq!(peer.dump(&mut world), broker_dump(&world, "/a/"));
        peer.quit(&mut world);
    }

    /// Where the Guide's own servers lose most of it, at 1,000 messages.
    fn a_large_snapshot_reaches_them_whole_while_others_write() {
        let (mut world, there) = our_broker(Collector::Pull);
        for n in 0..30_000 {
            world.broker_set(0, &format!("/{n}"), b"a value of some length, as they are");
        }
        let mut peer = Peer::client(&there, &["--quiet"]);
        let mut number = 0;
        while world.broker(0).stats().snapshots_done == 0 {
            number += 1;
            world.broker_set(0, &format!("/{}", number % 30_000), format!("{number}").as_bytes());
            world.turn();
        }
        let synced = peer.expect(&mut world, "synced", |_| true);
        assert!(synced["count"].as_u64().unwrap() >= 30_000, "{synced}");
        peer.expect(&mut world, "live", |_| true);
        // Old clients may miss what comes between their snapshot and their
        // subscription; every key is written once more.
        for n in 0..30_000 {
            world.broker_set(0, &format!("/{n}"), format!("last {n}").as_bytes());
            if n % 100 == 0 {
                world.turn();
            }
        }
        let last = world.broker(0).sequence().get();
        peer.catch_up(&mut world, last);
        assert_eq!(peer.dump(&mut world), broker_dump(&world, ""));
        peer.quit(&mut world);
    }

    /// Heartbeats of subtrees reach whoever subscribed to HUGZ, too.
    fn heartbeats_of_subtrees_do_them_no_harm() {
        let (mut world, there) = our_broker(Collector::Pull);
        let ours: Vec<Id> = ["/a/", "/b/", ""]
            .iter()
            .map(|subtree| world.join(1, &there, client(&[subtree])))
            .collect();
        world.until_current(&ours);
        let mut peer = Peer::client(&there, &[]);
        peer.expect(&mut world, "hugz", |event| event["key"] == "HUGZ/a/");
        peer.expect(&mut world, "hugz", |event| event["key"] == "HUGZ/b/");
        let plain = peer.expect(&mut world, "hugz", |event| event["key"] == "HUGZ");
        assert_eq!(plain["properties"]["collector"], "pull");
        // A confirmation of a repeated change comes as one, with a uuid.
        let uuid = "ffeeddccbbaa99887766554433221100";
        for _ in 0..2 {
            peer.set_with(json!({"key": "/a/x", "value64": to64(b"once"), "uuid": uuid}));
        }
        let told = peer.expect(&mut world, "hugz", |event| event["uuid"] == uuid);
        assert!(told["properties"]["applied"].is_string(), "{told}");
        assert_eq!(world.broker(0).stats().changes_repeated, 1);
        assert!(!peer.dump(&mut world).contains_key("HUGZ/a/"));
        peer.quit(&mut world);
    }

    /// They follow a restarted broker of ours by the number alone.
    fn they_follow_a_restart() {
        let (mut world, there) = our_broker(Collector::Pull);
        world.broker_set(0, "/first", b"run");
        let mut peer = Peer::client(&there, &["--silence", "1"]);
        peer.expect(&mut world, "live", |_| true);
        world.kill_broker(0);
        peer.expect(&mut world, "silence", |_| true);
        world.until("the endpoint is free", |world| world.try_bind(0, &there, broker()).is_ok());
        world.broker_set(0, "/second", b"run");
        peer.expect(&mut world, "synced", |event| event["count"] == 1);
        // Old clients ask before their subscription works; from here on it does.
        peer.expect(&mut world, "live", |_| true);
        let last = world.broker_set(0, "/third", b"run").get();
        peer.catch_up(&mut world, last);
        let dump = peer.dump(&mut world);
        assert_eq!(dump.get("/third"), Some(&to64(b"run")));
        peer.quit(&mut world);
    }

    fn model_six_with_ttl_as_python_writes_it() {
        model_six("python");
    }

    fn model_six_with_ttl_as_c_writes_it() {
        model_six("c");
    }

    /// No heartbeats, and PULL for changes.
    fn model_five() {
        let mut world = no_broker();
        let (mut server, there) = Peer::server(&mut world, &["--model", "5"]);
        server.set("/a/1", "first");
        server.expect(&mut world, "change", |_| true);
        let mut options = our_client(&["/a/"]);
        options.config.rfc12_collector = Collector::Pull;
        let ours = world.join(0, &there, options);
        world.until_current(&[ours]);
        assert_eq!(world.value(ours, "/a/1").as_deref(), Some("first"));
        let uuid = world.set(ours, "/a/2", "by ours");
        world.until_applied(ours, uuid);
        server.set("/a/1", "second");
        world.until("ours has it", |world| world.value(ours, "/a/1").as_deref() == Some("second"));
        let uuid = world.delete(ours, "/a/1");
        world.until_applied(ours, uuid);
        assert_eq!(as_dump(map_of(world.client(ours), "")), server.dump(&mut world));
        server.quit(&mut world);
    }

    /// The sequence starts from zero again, on the same connections.
    fn a_server_that_forgets_everything() {
        let mut world = no_broker();
        let (mut server, there) = Peer::server(&mut world, &[]);
        for n in 0..10 {
            server.set(&format!("/{n}"), "first run");
        }
        server.expect(&mut world, "change", |event| event["sequence"] == 10);
        let ours = world.join(0, &there, our_client(&[""]));
        world.until("ours has it", |world| world.client(ours).len() == 10);
        world.forget(ours);
        server.command(json!({"restart": true}));
        server.expect(&mut world, "restarted", |_| true);
        server.set("/new", "second run");
        world.until("ours has noticed", |world| {
            world.has(ours, |event| matches!(event, Event::Resync {
                reason: ResyncReason::SequenceDown, ..
            }))
        });
        world.until("and followed", |world| {
            world.client(ours).is_current() && world.client(ours).len() == 1
        });
        assert_eq!(world.value(ours, "/new").as_deref(), Some("second run"));
        let uuid = world.set(ours, "/newer", "by ours");
        world.until_applied(ours, uuid);
        server.quit(&mut world);
    }

    /// Another process at the same port.
    fn a_server_that_is_killed_and_comes_back() {
        let mut world = no_broker();
        let (mut server, there) = Peer::server(&mut world, &[]);
        server.set("/a", "first run");
        let ours = world.join(0, &there, our_client(&[""]));
        world.until("ours has it", |world| world.value(ours, "/a").is_some());
        drop(server);
        world.until("it is lost", |world| {
            world.has(ours, |event| matches!(event, Event::Lost))
        });
        assert_eq!(world.value(ours, "/a").as_deref(), Some("first run"), "still readable");
        let port = there.rsplit_once(':').unwrap().1;
        let (mut server, _) = Peer::server(&mut world, &["--port", port]);
        server.set("/b", "second run");
        world.until("ours has followed", |world| {
            world.client(ours).is_current() && world.value(ours, "/b").is_some()
        });
        assert_eq!(world.value(ours, "/a"), None);
        server.quit(&mut world);
    }

    /// Heartbeats go on, changes are swallowed; a snapshot frees it.
    fn a_wedged_server_is_freed() {
        let mut world = no_broker();
        let (mut server, there) = Peer::server(&mut world, &[]);
        let ours = world.join(0, &there, our_client(&["/a/"]));
        world.until_current(&[ours]);
        server.command(json!({"stop_publishing": true, "requests": "free"}));
        server.expect(&mut world, "stopped", |_| true);
        let uuid = world.set(ours, "/a/1", "swallowed at first");
        server.expect(&mut world, "swallowed", |event| event["key"] == "/a/1");
        world.until_applied(ours, uuid);
        assert!(world.client(ours).stats().requests >= 2, "it has asked again");
        // The answer to the request told it; the change itself is on the way.
        world.until("ours has it", |world| world.value(ours, "/a/1").is_some());
        server.quit(&mut world);
    }

    /// A wedge that nothing frees: the change is given up, and nobody hangs.
    fn a_wedged_server_that_stays_so() {
        let mut world = no_broker();
        let (mut server, there) = Peer::server(&mut world, &[]);
        let mut options = our_client(&["/a/"]);
        options.config.give_up_after = Duration::from_secs(4);
        let ours = world.join(0, &there, options);
        world.until_current(&[ours]);
        server.command(json!({"stop_publishing": true}));
        server.expect(&mut world, "stopped", |_| true);
        let uuid = world.set(ours, "/a/1", "swallowed");
        world.until("it is given up", |world| world.has(ours, |event| {
            matches!(event, Event::TimedOut { uuid: own, sent: true } if *own == uuid)
        }));
        server.command(json!({"stop_publishing": false}));
        server.expect(&mut world, "resumed", |_| true);
        let uuid = world.set(ours, "/a/2", "taken again");
        world.until_applied(ours, uuid);
        server.quit(&mut world);
    }
}

/// PUB and SUB, heartbeats, absolute times in snapshots.
fn model_six(dialect: &str) {
    let mut world = no_broker();
    let (mut server, there) = Peer::server(&mut world, &["--dialect", dialect]);
    server.set_with(json!({"key": "/a/brief", "value64": to64(b"x"), "ttl": 3}));
    server.set_with(json!({"key": "/a/kept", "value64": to64(b"kept"), "properties": {"x": "y"}}));
    server.set("/b/1", "outside");
    server.expect(&mut world, "change", |event| event["sequence"] == 3);

    let ours = world.join(0, &there, our_client(&["/a/"]));
    world.until_current(&[ours]);
    assert_eq!(world.client(ours).len(), 2);
    // Its snapshot has points in Unix time, of which a machine without a
    // calendar makes nothing; the deletion comes all the same.
    assert_eq!(world.remaining(ours, "/a/brief"), None);

    // Ours and theirs, in and outside the subtree.
    for n in 0..100 {
        world.set(ours, &format!("/a/{}", n % 10), &format!("{n}"));
        world.set(ours, &format!("/b/{}", n % 10), &format!("{n}"));
        server.set(&format!("/a/theirs/{}", n % 10), &format!("{n}"));
    }
    world.until("all have their answer", |world| world.client(ours).pending() == 0);
    world.until("theirs are there", |world| {
        world.value(ours, "/a/theirs/9").as_deref() == Some("99")
    });
    let stats = world.client(ours).stats();
    assert_eq!((stats.confirmed, stats.timed_out, stats.malformed), (200, 0, 0), "{stats:?}");
    let gone = world.delete(ours, "/a/kept");
    world.until_applied(ours, gone);
    world.set_for(ours, "/a/gone", b"x", Some(Duration::from_secs(2))).unwrap();
    world.until("what remains is known", |world| world.value(ours, "/a/gone").is_some());
    let remaining = world.remaining(ours, "/a/gone").expect("its KVPUB is relative");
    assert!((500..=2000).contains(&remaining.as_millis()), "{remaining:?} of 2 s");
    for gone in ["/a/gone", "/a/brief"] {
        world.until("it came and went", |world| {
            world.has(
                ours,
                |event| matches!(event, Event::Deleted { key, .. } if **key == *gone.as_bytes()),
            )
        });
    }
    let theirs = server.dump(&mut world);
    let under: BTreeMap<_, _> =
        theirs.into_iter().filter(|(key, _)| key.starts_with("/a/")).collect();
    assert_eq!(as_dump(map_of(world.client(ours), "")), under);
    server.quit(&mut world);
}
