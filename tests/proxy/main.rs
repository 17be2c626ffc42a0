//! Proxies on a loop, with real peers: what goes through, what waits, what is counted,
//! and how it ends.

mod bridge;
mod control;
mod ending;
mod flows;
mod pressure;

use std::time::{Duration, Instant};

use pollux::proxy::{Phase, Proxy, ProxyBuilder, ProxyError, ProxyStats};
use pollux::reactor::{Backend, Flow, Reactor};
use pollux::socket::{SendError, Socket, SocketBuilder, SocketType};
use pollux::{Frames, Multipart};

/// Longer than anything that works takes; what fails may take it.
const DEADLINE: Duration = Duration::from_secs(20);

const BACKENDS: [Backend; 2] = [Backend::ZmqPoll, Backend::Epoll];

#[derive(Default)]
struct App {
    proxies: Vec<Proxy<App>>,
    /// How proxies have ended.
    ended: Vec<Result<(), ProxyError>>,
    /// What hooks have seen.
    seen: usize,
}

/// A loop with proxies that is turned by the test.
struct World {
    reactor: Reactor<App>,
    app: App,
    context: zmq::Context,
}

impl World {
    fn new(backend: Backend) -> World {
        let reactor = Reactor::builder().backend(backend).build().expect("a reactor");
        World { reactor, app: App::default(), context: zmq::Context::new() }
    }

    /// A proxy between two sockets at inproc endpoints, with further options, and
    /// where its sides are.
    fn proxy(
        &mut self,
        frontend: SocketBuilder,
        backend: SocketBuilder,
        options: impl FnOnce(ProxyBuilder<App>) -> ProxyBuilder<App>,
    ) -> [String; 2] {
        let number = self.app.proxies.len();
        let endpoints = ["frontend", "backend"].map(|name| format!("inproc://{name}-{number}"));
        let [frontend, backend] = [(frontend, &endpoints[0]), (backend, &endpoints[1])]
            .map(|(socket, endpoint)| self.socket(socket.bind(endpoint)));
        self.attach(options(Proxy::builder(frontend, backend)));
        endpoints
    }

    fn attach(&mut self, builder: ProxyBuilder<App>) {
        let index = self.app.proxies.len();
        let builder = builder.on_end(|app, _, result| {
            app.ended.push(result);
            Ok(Flow::Continue)
        });
        self.app.proxies.push(builder.build().expect("they go together"));
        Proxy::attach(&mut self.reactor, &mut self.app, move |app| &mut app.proxies[index])
            .expect("attached");
    }

    fn socket(&self, builder: SocketBuilder) -> Socket {
        builder.build(&self.context).expect("a socket")
    }

    fn connected(&self, socket_type: SocketType, endpoint: &str) -> Socket {
        self.socket(of(socket_type).connect(endpoint))
    }

    fn stats(&self) -> ProxyStats {
        self.app.proxies[0].stats()
    }

    fn phase(&self) -> Phase {
        self.app.proxies[0].phase()
    }

    /// Turns the loop until it is idle.
    fn settle(&mut self) {
        while self.reactor.turn(&mut self.app, Duration::ZERO).expect("a turn") > 0 {}
    }

    /// Turns the loop until `done` gives something.
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut App) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(result) = done(&mut self.app) {
                return result;
            }
            assert!(started.elapsed() < DEADLINE, "not within the deadline: {what}");
            self.reactor.turn(&mut self.app, Duration::from_millis(1)).expect("a turn");
        }
    }

    /// The next message of a peer, while the loop turns.
    fn receive(&mut self, socket: &Socket) -> Multipart {
        self.until("a message", |_| socket.receive_message().expect("receive"))
    }

    /// Sends from a peer, while the loop turns.
    fn send(&mut self, socket: &Socket, frames: &(impl Frames + ?Sized)) {
        self.until("room", |_| match socket.send(frames) {
            Ok(()) => Some(()),
            Err(SendError::WouldBlock) => None,
            Err(error) => panic!("{error}"),
        });
    }
}

fn of(socket_type: SocketType) -> SocketBuilder {
    Socket::builder(socket_type)
}

/// A message that is told from others.
fn numbered(number: usize) -> Multipart {
    Multipart::from([format!("message {number}"), String::new(), "x".repeat(number % 100)])
}

/// What came in is accounted for.
#[track_caller]
fn assert_balanced(stats: &ProxyStats, held: u64) {
    let (frontend, backend) = (&stats.frontend, &stats.backend);
    let of = |from: &pollux::proxy::SideStats, to: &pollux::proxy::SideStats| {
        let gone = to.messages_out + to.unreachable + to.refused + to.full_drops;
        from.messages_in - (from.hook_drops + from.oversized + gone)
    };
    assert_eq!(of(frontend, backend) + of(backend, frontend), held + stats.lost, "{stats:?}");
}
