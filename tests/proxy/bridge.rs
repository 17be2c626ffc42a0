//! From one transport to another, and to what is not ZeroMQ.

use std::io::{Read, Write};
use std::net::TcpStream;

use pollux::Multipart;
use pollux::proxy::{Proxy, Side, Verdict};
use pollux::reactor::Backend;
use pollux::socket::SocketType::*;

use super::{BACKENDS, DEADLINE, World, assert_balanced, numbered, of};

#[test]
fn transports_follow_one_another() {
    let directory = tempfile::tempdir().expect("a directory");
    for backend in BACKENDS {
        // tcp | inproc, inproc | ipc, ipc | tcp: three proxies in a row, two contexts.
        let mut world = World::new(backend);
        let ipc = format!("ipc://{}/{backend:?}", directory.path().display());
        let outer = zmq::Context::new();
        let inner = world.context.clone();
        let tcp = ["tcp://127.0.0.1:*"; 2];
        let front = of(Router).bind(tcp[0]).build(&outer).expect("bound");
        let back = of(Dealer).bind(tcp[1]).build(&outer).expect("bound");
        let clients = front.last_endpoint().expect("an endpoint");
        let workers = back.last_endpoint().expect("an endpoint");
        let middle = |socket_type, endpoint: &str, bound| {
            let socket = of(socket_type);
            let socket = if bound { socket.bind(endpoint) } else { socket.connect(endpoint) };
            socket.build(&inner).expect("a socket")
        };
        let rows = [
            (front, middle(Dealer, "inproc://middle", true)),
            (middle(Router, "inproc://middle", false), middle(Dealer, &ipc, true)),
            (middle(Router, &ipc, false), back),
        ];
        for (frontend, backend) in rows {
            world.attach(Proxy::builder(frontend, backend));
        }
        let client = of(Req).connect(&clients).build(&outer).expect("a client");
        let worker = of(Rep).connect(&workers).build(&outer).expect("a worker");
        for number in 0..100 {
            world.send(&client, &numbered(number));
            assert_eq!(world.receive(&worker), numbered(number));
            worker.send(&numbered(number + 1)).expect("room");
            assert_eq!(world.receive(&client), numbered(number + 1));
        }
        for proxy in &world.app.proxies {
            assert_eq!(proxy.stats().frontend.messages_out, 100);
            assert_balanced(&proxy.stats(), 0);
        }
    }
}

/// Plain tcp in front, lines in capitals behind: the hook lets no news of connections
/// through and marks what comes from outside.
#[test]
fn a_raw_tcp_stream_talks_with_a_worker() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let stream = world.socket(of(Stream).bind("tcp://127.0.0.1:*"));
        let address = stream.last_endpoint().expect("an endpoint");
        let address = address.strip_prefix("tcp://").expect("tcp").to_owned();
        let worker_side = world.socket(of(Dealer).bind("inproc://worker"));
        world.attach(Proxy::builder(stream, worker_side).hook(
            |app: &mut super::App, from, frames| {
                app.seen += 1;
                if frames[1].is_empty() && from == Side::Frontend {
                    return Verdict::Drop;
                }
                let text = frames[1].to_ascii_uppercase();
                frames[1] = text[..].into();
                Verdict::Forward
            },
        ));
        let worker = world.connected(Dealer, "inproc://worker");
        let mut tcp = TcpStream::connect(&address).expect("connected");
        tcp.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        for round in 0..10 {
            tcp.write_all(format!("line {round}\n").as_bytes()).expect("written");
            let request = world.receive(&worker);
            assert_eq!(
                request.get(1).map(|data| &data[..]),
                Some(format!("LINE {round}\n").as_bytes())
            );
            worker.send(&request).expect("room");
            world.settle();
            world.until("the reply has gone", |app| {
                (app.proxies[0].stats().frontend.messages_out == round + 1).then_some(())
            });
            let mut reply = [0; 7];
            tcp.read_exact(&mut reply).expect("a reply");
            assert_eq!(reply, *format!("LINE {round}\n").as_bytes());
        }
        let id = {
            tcp.write_all(b"x").expect("written");
            world.receive(&worker).pop_front().expect("a routing id")
        };
        // An empty piece hangs up.
        worker.send(&[&id[..], b""]).expect("room");
        world.until("it is hung up", |app| {
            (app.proxies[0].stats().frontend.messages_out == 11).then_some(())
        });
        tcp.set_nonblocking(true).expect("non-blocking");
        let end = world.until("the end", |_| tcp.read(&mut [0; 8]).ok());
        assert_eq!(end, 0);
        // Three frames are none of STREAM's, and one who has gone is not there.
        worker.send(&[&id[..], b"a", b"b"]).expect("room");
        worker.send(&[&id[..], b"a"]).expect("room");
        world.until("both are counted", |app| {
            let side = app.proxies[0].stats().frontend;
            (side.refused == 1 && side.unreachable == 1).then_some(())
        });
        assert!(world.stats().frontend.hook_drops >= 1, "the news of the connection");
        assert_balanced(&world.stats(), 0);
    }
}

/// A peer over the limit for frames is cut off, and nobody else.
#[test]
fn a_frame_over_the_maximum_ends_its_connection_alone() {
    let mut world = World::new(Backend::Epoll);
    let front = world.socket(of(Pull).max_message_size(1000).bind("tcp://127.0.0.1:*"));
    let endpoint = front.last_endpoint().expect("an endpoint");
    let events = zmq::SocketEvent::DISCONNECTED.to_raw();
    front.as_zmq().monitor("inproc://monitor", events.into()).expect("monitored");
    let monitor = world.connected(Pair, "inproc://monitor");
    let back = world.socket(of(Push).bind("inproc://back"));
    world.attach(Proxy::builder(front, back));
    let pull = world.connected(Pull, "inproc://back");
    let [good, bad] = [0, 1].map(|_| world.connected(Push, &endpoint));
    world.send(&good, "before");
    assert_eq!(world.receive(&pull), Multipart::from(["before"]));
    // Parts of a gigabyte would each be within the limit; one frame over it is not.
    world.send(&bad, &[&[0; 1000][..], &[0; 1001]]);
    let event = world.receive(&monitor);
    assert_eq!(event.get(0).map(|frame| u16::from_ne_bytes([frame[0], frame[1]])), Some(events));
    world.send(&good, &[&[0; 1000][..], &[0; 1000]]);
    assert_eq!(world.receive(&pull).len(), 2, "nothing came of the other one, not a part");
}
