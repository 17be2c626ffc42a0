//! When sockets or descriptors run out. A process of its own: it takes them all.

use std::time::{Duration, Instant};

use pollux::socket::{Errno, Socket, SocketType};

#[test]
fn a_context_without_room_for_another_socket() {
    let context = zmq::Context::new();
    let mut sockets = Vec::new();
    let error = loop {
        // 1023 sockets, unless the process runs out of descriptors before.
        match Socket::new(&context, SocketType::Pair) {
            Ok(socket) => sockets.push(socket),
            Err(error) => break error,
        }
        assert!(sockets.len() <= 1023);
    };
    assert_eq!(error.errno(), Errno::EMFILE);
    assert!(error.to_string().starts_with("create (PAIR): Too many open files"), "{error}");
    assert!(error.remedy().is_some());
    sockets.pop();
    // libzmq closes in the background, and does not tell when it has.
    let started = Instant::now();
    while Socket::new(&context, SocketType::Pair).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "room again after a close");
        std::thread::yield_now();
    }
}
