//! SIGINT and SIGTERM end every example in order, whatever it is doing: waiting for peers that
//! never come, most of all.

use pollux::socket::SocketType;

use crate::common::DEADLINE;
use crate::{after, end, is_slowed, of, receive, send, socket, start};

const FREE: &str = "tcp://127.0.0.1:*";
/// Where nobody listens: the port is reserved.
const NOBODY: &str = "tcp://127.0.0.1:1";

#[test]
fn interrupt_ends_in_order() {
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let mut server = start("interrupt", &[FREE]);
        let endpoint = after(&mut server, "serving at ");
        let req = socket(of(SocketType::Req).connect(endpoint));
        for _ in 0..3 {
            send(&req, "hello");
            assert_eq!(receive(&req).get(0).unwrap(), "hello");
        }
        let output = end(server, signal);
        assert_eq!(output, format!("signal {number} after 3 requests\nall replies are sent\n"));
    }
}

/// Those that say when they are ready, and how many lines it takes them.
#[test]
fn those_that_serve_end_without_a_peer() {
    for signal in ["INT", "TERM"] {
        for (name, args, lines) in [
            ("weather", &["server", FREE][..], 1),
            ("envelopes", &["ps_env_pub", FREE], 1),
            ("request_reply", &["rr_broker", FREE, FREE], 2),
            ("request_reply", &["msg_queue", FREE, FREE], 2),
            ("wu_proxy", &[NOBODY, FREE], 1),
            ("mt_server", &[FREE, "3"], 1),
            ("pipeline", &["task_sink", FREE, FREE], 2),
            ("node_sync", &["sync_pub", FREE, FREE, "1", "10"], 2),
            ("http_status", &[FREE], 1),
            ("transport_bridge", &[FREE, FREE, "secret"], 1),
            ("tcp_bridge", &[FREE, "127.0.0.1:0"], 1),
        ] {
            let mut process = start(name, args);
            (0..lines).for_each(|_| drop(process.line()));
            println!("{name} {args:?} ends by {signal}");
            end(process, signal);
        }
    }
}

/// It has told the sink how many tasks to expect; without a sink that would be lost, and said.
#[test]
fn a_ventilator_ends_before_it_has_dealt_anything() {
    for signal in ["INT", "TERM"] {
        let sink = socket(of(SocketType::Pull).bind(FREE));
        let mut vent = start("pipeline", &["task_vent", FREE, &sink.last_endpoint().unwrap()]);
        (0..2).for_each(|_| drop(vent.line()));
        assert_eq!(receive(&sink).get(0).unwrap(), "tasks");
        assert_eq!(end(vent, signal), "dealt 0 tasks\n");
    }
}

/// Those that wait for others in silence show by their connection that they are there.
#[test]
fn those_that_ask_end_without_an_answer() {
    for signal in ["INT", "TERM"] {
        for (name, role, peers) in [
            ("weather", "client", &[SocketType::XPub][..]),
            ("envelopes", "ps_env_sub", &[SocketType::XPub]),
            ("request_reply", "rr_client", &[SocketType::Router]),
            ("request_reply", "rr_worker", &[SocketType::Dealer]),
            ("two_sources", "ms_reader", &[SocketType::Push, SocketType::XPub]),
            ("two_sources", "ms_poller", &[SocketType::Push, SocketType::XPub]),
            ("pipeline", "task_work", &[SocketType::Push, SocketType::Pull, SocketType::XPub]),
            ("node_sync", "sync_sub", &[SocketType::XPub, SocketType::Router]),
        ] {
            let sockets: Vec<_> =
                peers.iter().map(|peer| socket(of(*peer).immediate(true).bind(FREE))).collect();
            let endpoints: Vec<_> =
                sockets.iter().map(|socket| socket.last_endpoint().unwrap()).collect();
            let args: Vec<&str> =
                [role].into_iter().chain(endpoints.iter().map(String::as_str)).collect();
            let process = start(name, &args);
            for (socket, peer) in sockets.iter().zip(peers) {
                match peer {
                    // Its subscription, or its request.
                    SocketType::XPub => drop(receive(socket)),
                    SocketType::Router if role == "rr_client" => drop(receive(socket)),
                    SocketType::Dealer => send(socket, &["", "request"]),
                    _ => {}
                }
                if *peer == SocketType::Dealer {
                    receive(socket);
                }
            }
            println!("{name} {args:?} ends by {signal}");
            end(process, signal);
        }
    }
}

/// Those that only connect, with nobody there, and one that is at work with itself: nothing
/// holds them up.
#[test]
fn those_that_ask_end_without_anybody() {
    const SIGTERM: u32 = 15;
    if is_slowed() {
        return; // valgrind handles all signals from the beginning
    }
    for (name, args) in [
        ("weather", &["client", NOBODY][..]),
        ("envelopes", &["ps_env_sub", NOBODY]),
        ("request_reply", &["rr_client", NOBODY]),
        ("request_reply", &["rr_worker", NOBODY]),
        ("two_sources", &["ms_reader", NOBODY, NOBODY]),
        ("two_sources", &["ms_poller", NOBODY, NOBODY]),
        ("pipeline", &["task_work", NOBODY, NOBODY, NOBODY]),
        ("node_sync", &["sync_sub", NOBODY, NOBODY]),
        ("mt_relay", &["1000000000"]),
    ] {
        let process = start(name, args);
        let started = std::time::Instant::now();
        while !process.handles(SIGTERM) {
            assert!(started.elapsed() < DEADLINE, "{args:?} handles no signal");
            std::thread::yield_now();
        }
        println!("{name} {args:?} ends");
        end(process, "TERM");
    }
}

/// A sink that is not there: that its message is lost is told, and the exit code says so.
#[test]
fn a_loss_is_told() {
    let mut ventilator = start("pipeline", &["task_vent", FREE, NOBODY]);
    after(&mut ventilator, "tasks at ");
    after(&mut ventilator, "press Enter");
    // The loop reads it after it has sent its message to the sink; and there is no worker.
    ventilator.write(b"\n");
    ventilator.signal("TERM");
    let complaint = ventilator.finish().failure(1);
    assert!(complaint.contains("what was not sent in time is lost"), "{complaint}");
}
