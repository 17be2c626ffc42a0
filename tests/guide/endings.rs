//! SIGINT and SIGTERM end every example in order, whatever it is doing: waiting for peers that
//! never come, most of all.

use pollux::socket::SocketType;

use crate::{after, end, of, receive, send, socket, start};

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
        ] {
            let mut process = start(name, args);
            (0..lines).for_each(|_| drop(process.line()));
            println!("{name} {args:?} ends by {signal}");
            end(process, signal);
        }
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

/// With a task under way, and a sink that is not there: the loss of its result is told, and
/// the exit code says so.
#[test]
fn a_loss_is_told() {
    let tasks = socket(of(SocketType::Push).bind(FREE));
    let control = socket(of(SocketType::XPub).bind(FREE));
    let endpoints = [tasks.last_endpoint().unwrap(), control.last_endpoint().unwrap()];
    let worker = start("pipeline", &["task_work", &endpoints[0], NOBODY, &endpoints[1]]);
    receive(&control);
    // It takes the second one when it is done with the first.
    (0..4).for_each(|_| send(&tasks, "1"));
    while tasks.send("1").is_ok() {}
    send(&tasks, "1");
    worker.signal("TERM");
    let complaint = worker.finish().failure(1);
    assert!(complaint.contains("what was not sent in time is lost"), "{complaint}");
}
