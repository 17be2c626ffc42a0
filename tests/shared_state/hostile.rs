//! Peers that do not keep to the protocol, or do nothing: it is counted, and
//! everybody else is served as before.

use std::time::Duration;

use pollux::Multipart;
use pollux::clone::{KvMsg, Limits};
use pollux::node::BrokerOptions;
use pollux::reactor::Backend;
use pollux::socket::{Socket, SocketType};

use crate::world::{Id, Transport, World, broker, client};

/// A broker over tcp, a good client, and room for a bad one.
struct Scene {
    world: World,
    there: String,
    good: Id,
}

impl Scene {
    fn new(options: BrokerOptions) -> Scene {
        let mut world = World::new(2, Backend::Epoll);
        let here = world.endpoint(Transport::Tcp);
        let there = world.bind(0, &here, options);
        let good = world.join(1, &there, client(&["/good/"]));
        world.until_current(&[good]);
        Scene { world, there, good }
    }

    /// A socket connected to port P plus so many.
    fn connect(&self, kind: SocketType, port: u16) -> Socket {
        let (host, first) = self.there.rsplit_once(':').unwrap();
        let endpoint = format!("{host}:{}", first.parse::<u16>().unwrap() + port);
        // The little that fits before it must be read is in the system's buffers.
        let socket = Socket::builder(kind)
            .receive_hwm(1)
            .receive_buffer(4096)
            .linger(Duration::from_secs(5));
        socket.connect(&endpoint).build(&self.world.context).unwrap()
    }

    fn send(&mut self, socket: &Socket, frames: &[&[u8]]) {
        self.world.until("the message is taken", |_| socket.send(frames).is_ok());
    }

    fn receive(&mut self, socket: &Socket) -> Multipart {
        let mut received = None;
        self.world.until("an answer comes", |_| {
            received = socket.receive_message().unwrap();
            received.is_some()
        });
        received.unwrap()
    }

    /// The good client changes something and sees it; another joins.
    fn goes_on(&mut self) {
        let uuid = self.world.set(self.good, "/good/key", "still served");
        self.world.until_applied(self.good, uuid);
        let late = self.world.join(1, &self.there, client(&["/good/"]));
        self.world.until_equal(&[self.good, late], 0, "/good/");
        self.world.leave(late);
    }

    fn fill(&mut self, count: usize, size: usize) {
        for n in 0..count {
            self.world.broker_set(0, &format!("/large/{n:05}"), &vec![b'x'; size]);
        }
    }
}

/// Messages that no part of the protocol is.
fn nonsense() -> Vec<Vec<Vec<u8>>> {
    let mut messages = vec![
        vec![vec![]],
        vec![vec![], vec![]],
        vec![vec![]; 5],
        vec![vec![]; 1000],
        vec![vec![0xff; 100_000]],
        vec![b"ICANHAZ?".to_vec(), vec![b'k'; 5000]],
        vec![b"ICANHAZ?".to_vec(), b"/a/".to_vec(), vec![0xff; 100]],
        vec![b"HUGZ".to_vec(), vec![0; 8], vec![], vec![], vec![]],
        vec![b"/a".to_vec(), vec![0; 7], vec![], vec![], b"v".to_vec()],
        vec![b"/a".to_vec(), vec![0; 8], vec![1; 15], vec![], b"v".to_vec()],
        vec![b"/a".to_vec(), vec![0; 8], vec![], b"a==b".to_vec(), b"v".to_vec()],
        vec![b"/a\n".to_vec(), vec![0; 8], vec![], vec![], b"v".to_vec()],
        vec![b"/a".to_vec(), vec![0; 8], vec![], vec![], vec![b'v'; 2_000_000]],
        vec![b"\x01HUGZ\x07".to_vec()],
        vec![b"\x00HUGZ/good/".to_vec()],
    ];
    for frames in 1..30_usize {
        messages.push((0..frames).map(|n| vec![n as u8; n * frames % 40]).collect());
    }
    messages
}

#[test]
fn any_message_on_any_port() {
    let mut scene = Scene::new(broker());
    let ports = [(SocketType::Dealer, 0), (SocketType::XSub, 1), (SocketType::Push, 2)];
    for (kind, port) in ports {
        let socket = scene.connect(kind, port);
        for message in nonsense() {
            let frames: Vec<&[u8]> = message.iter().map(Vec::as_slice).collect();
            scene.send(&socket, &frames);
        }
    }
    let total = nonsense().len() as u64;
    scene.world.until("all of it is counted", |world| {
        let stats = world.broker(0).stats();
        let requests =
            stats.requests_malformed + stats.snapshots_requested + stats.snapshots_refused;
        requests > total && stats.changes_malformed + stats.changes_reserved == total
    });
    assert!(scene.world.broker(0).store().is_empty());
    scene.goes_on();
}

#[test]
fn a_frame_too_large_to_be_meant_ends_its_connection_only() {
    let mut options = broker();
    options.config.limits.max_value = 1000;
    let mut scene = Scene::new(options);
    for port in [0, 2] {
        let kind = if port == 0 { SocketType::Dealer } else { SocketType::Push };
        let socket = scene.connect(kind, port);
        // Over the limit of the connection, which is above that of a value.
        scene.send(&socket, &[&vec![b'x'; 10_000_000]]);
        scene.goes_on();
    }
    let push = scene.connect(SocketType::Push, 2);
    scene.send(&push, &[b"/large/a", &[0; 8], b"", b"", &[b'x'; 1001]]);
    scene.world.until("a value a little too large is counted", |world| {
        world.broker(0).stats().changes_malformed == 1
    });
    scene.goes_on();
}

#[test]
fn a_client_that_never_reads_its_snapshot_stalls_nobody() {
    let mut options = broker();
    options.snapshot_hwm = 10;
    options.config.snapshots.stall = Duration::from_millis(500);
    let mut scene = Scene::new(options);
    // 30 MB, of which the system's buffers take a few.
    scene.fill(3000, 10_000);
    let deaf: Vec<Socket> = (0..5).map(|_| scene.connect(SocketType::Dealer, 0)).collect();
    for socket in &deaf {
        scene.send(socket, &[b"ICANHAZ?", b"/large/"]);
    }
    scene
        .world
        .until("their snapshots stand still", |world| world.broker(0).stats().snapshot_stalls >= 5);
    scene.goes_on();
    scene
        .world
        .until("they are given up", |world| world.broker(0).stats().snapshots_abandoned == 5);
    assert_eq!(scene.world.broker(0).store().cursors(), 0);
    scene.goes_on();
}

#[test]
fn a_slow_reader_gets_all_of_it() {
    let mut options = broker();
    options.snapshot_hwm = 10;
    let mut scene = Scene::new(options);
    scene.fill(3000, 10_000);
    let slow = scene.connect(SocketType::Dealer, 0);
    scene.send(&slow, &[b"ICANHAZ?", b""]);
    scene.world.until("its queue is full", |world| world.broker(0).stats().snapshot_stalls > 0);
    let mut count = 0;
    loop {
        let message = scene.receive(&slow);
        assert_eq!(message.len(), 5);
        if message.get(0).unwrap() == "KTHXBAI" {
            let frames: Vec<&[u8]> = message.iter().map(|frame| &frame[..]).collect();
            let end = KvMsg::decode(pollux::Message::new(&frames), &Limits::default()).unwrap();
            assert_eq!(end.properties.parse::<u64>("count"), Some(count));
            break;
        }
        count += 1;
    }
    assert_eq!(count, 3000);
    scene.goes_on();
}

#[test]
fn a_client_that_asks_in_a_loop_gets_its_turn_and_no_more() {
    let mut scene = Scene::new(broker());
    scene.fill(200, 100);
    let greedy = scene.connect(SocketType::Dealer, 0);
    for n in 0..5000 {
        let subtree = format!("/large/{:05}", n % 300);
        scene.send(&greedy, &[b"ICANHAZ?", subtree.as_bytes()]);
        scene.send(&greedy, &[b"ICANHAZ?", b""]);
        if n % 1000 == 0 {
            scene.goes_on();
        }
    }
    scene.goes_on();
    scene.world.until("all are answered or refused", |world| {
        let stats = world.broker(0).stats();
        // Those of the good clients among them.
        stats.snapshots_requested + stats.snapshots_refused >= 10_000
    });
    assert!(scene.world.broker(0).stats().snapshots_refused > 0);
    scene.goes_on();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_snapshot() {
    let mut options = broker();
    options.snapshot_hwm = 10;
    let mut scene = Scene::new(options);
    scene.fill(3000, 10_000);
    let leaving = scene.connect(SocketType::Dealer, 0);
    scene.send(&leaving, &[b"ICANHAZ?", b""]);
    scene.world.until("its queue is full", |world| world.broker(0).stats().snapshot_stalls > 0);
    drop(leaving);
    scene.world.until("it is missed", |world| world.broker(0).stats().snapshots_abandoned == 1);
    assert_eq!(scene.world.broker(0).store().cursors(), 0);
    scene.goes_on();
}

#[test]
fn a_req_has_one_message_for_all() {
    let mut scene = Scene::new(broker());
    scene.fill(100, 100);
    for request in [&[&b"ICANHAZ?"[..]][..], &[b"ICANHAZ?", b"/large/"]] {
        let req = scene.connect(SocketType::Req, 0);
        scene.send(&req, request);
        let answer = scene.receive(&req);
        assert_eq!(answer.len(), 505);
        assert_eq!(answer.get(500).unwrap(), "KTHXBAI");
    }
}

#[test]
fn figures_are_told_to_whoever_asks() {
    let mut scene = Scene::new(broker());
    scene.fill(3, 10);
    for kind in [SocketType::Dealer, SocketType::Req] {
        let socket = scene.connect(kind, 0);
        scene.send(&socket, &[b"STATUS?"]);
        let answer = scene.receive(&socket);
        let frames: Vec<&[u8]> = answer.iter().map(|frame| &frame[..]).collect();
        let status = KvMsg::decode(pollux::Message::new(&frames), &Limits::default()).unwrap();
        assert_eq!(status.key, b"STATUS?");
        assert_eq!(status.properties.parse::<u64>("keys"), Some(3));
        assert_eq!(status.properties.parse::<u64>("watched_subtrees"), Some(1));
        assert_eq!(status.properties.get("role"), Some(&b"active"[..]));
    }
}
