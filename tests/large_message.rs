//! A message of a gigabyte, in parts, through a proxy over tcp. In a process of its own, for
//! what is looked at is the memory of the process.

use std::time::{Duration, Instant};

use pollux::proxy::{Proxy, ProxyStats};
use pollux::reactor::{Backend, Reactor};
use pollux::socket::{Errno, Frame, Socket, SocketType, ZmqContext};

/// It takes seconds; a machine that stands still may take this.
const DEADLINE: Duration = Duration::from_secs(300);

const PART: usize = 1 << 20;
const PARTS: usize = 1024;
const GIB: u64 = 1 << 30;

struct App {
    proxy: Proxy<App>,
}

struct World {
    reactor: Reactor<App>,
    app: App,
    started: Instant,
}

impl World {
    /// Turns the loop until `done` gives something.
    fn until<T>(&mut self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(result) = done() {
                return result;
            }
            assert!(self.started.elapsed() < DEADLINE, "not within the deadline: {what}");
            self.reactor.turn(&mut self.app, Duration::from_millis(1)).expect("a turn");
        }
    }

    /// Sends a gigabyte, and `rest` as one part more unless it is empty. All parts are of the
    /// same content but for a number in front.
    fn send(&mut self, push: &Socket, rest: &[u8]) {
        let mut block = vec![7; PART];
        let mut parts: Vec<Frame> = (0..PARTS).map(|part| numbered(&mut block, part)).collect();
        parts.extend((!rest.is_empty()).then(|| Frame::copy_from(rest)));
        self.until("room for a gigabyte", || push.send_frames(&mut parts).ok());
    }

    /// Receives frame by frame, each of which is let go of before the next one.
    fn frame(&mut self, pull: &Socket, frame: &mut Frame) -> bool {
        self.until("a frame", || match pull.receive(frame) {
            Ok(more) => Some(more),
            Err(Errno::EAGAIN) => None,
            Err(errno) => panic!("{errno}"),
        })
    }

    fn stats(&self) -> ProxyStats {
        self.app.proxy.stats()
    }
}

fn numbered(block: &mut [u8], part: usize) -> Frame {
    block[..8].copy_from_slice(&part.to_be_bytes());
    Frame::copy_from(block)
}

/// The most memory that the process has had, in bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn a_gigabyte_goes_through_in_parts_and_a_byte_more_is_refused_and_counted() {
    let context = ZmqContext::new().expect("a context");
    let of = |socket_type| Socket::builder(socket_type).linger(Duration::ZERO);
    let bound = |socket_type| {
        let socket = of(socket_type).bind("tcp://127.0.0.1:*").build(&context).expect("a socket");
        let endpoint = socket.last_endpoint().expect("an endpoint");
        (socket, endpoint)
    };
    let ((front, to_front), (back, to_back)) = (bound(SocketType::Pull), bound(SocketType::Push));
    let push = of(SocketType::Push).connect(to_front).build(&context).expect("a socket");
    let pull = of(SocketType::Pull).connect(to_back).build(&context).expect("a socket");

    let proxy = Proxy::builder(front, back).max_message_bytes(GIB as usize);
    let mut app = App { proxy: proxy.build().expect("they go together") };
    let mut reactor = Reactor::builder().backend(Backend::Epoll).build().expect("a reactor");
    Proxy::attach(&mut reactor, &mut app, |app| &mut app.proxy).expect("attached");
    let mut world = World { reactor, app, started: Instant::now() };

    world.send(&push, b"");
    let (mut block, mut frame) = (vec![7; PART], Frame::new());
    for part in 0..PARTS {
        let more = world.frame(&pull, &mut frame);
        assert_eq!(more, part + 1 < PARTS, "part {part}");
        assert!(*frame == *numbered(&mut block, part), "part {part} is what it was");
    }
    let stats = world.stats();
    assert_eq!((stats.frontend.messages_in, stats.frontend.bytes_in), (1, GIB));
    assert_eq!((stats.backend.messages_out, stats.backend.bytes_out), (1, GIB));

    world.send(&push, b"1");
    world.until("room", || push.send("after it").ok());
    assert!(!world.frame(&pull, &mut frame), "nothing came of the one before");
    assert_eq!(*frame, *b"after it");
    let stats = world.stats();
    assert_eq!((stats.frontend.messages_in, stats.frontend.oversized), (3, 1));
    assert_eq!(stats.frontend.bytes_in, GIB + (GIB + 1) + 8);
    assert_eq!((stats.backend.messages_out, stats.backend.bytes_out), (2, GIB + 8));

    if let Some(peak) = peak() {
        println!("{:.2} GiB of memory at most", peak as f64 / GIB as f64);
        assert!(peak < 4 * GIB, "sender, proxy and receiver had {peak} bytes");
    }
}
