//! Errors say what failed, where, why, and what to do about it.

use std::io;

use pollux::Multipart;
use pollux::socket::{Errno, Frame, SendError, Socket, SocketError, SocketType};
use proptest::prelude::*;

use crate::{bound, of};

fn bind_error(socket_type: SocketType, endpoint: &str) -> SocketError {
    let context = zmq::Context::new();
    Socket::new(&context, socket_type).unwrap().bind(endpoint).unwrap_err()
}

#[test]
fn a_taken_port_is_named_with_its_remedy() {
    let context = zmq::Context::new();
    let (_taken, endpoint) = bound(&context, of(SocketType::Router));
    let second = Socket::new(&context, SocketType::Router).unwrap();
    let error = second.bind(&endpoint).unwrap_err();
    assert_eq!(error.errno(), Errno::EADDRINUSE);
    assert_eq!(error.operation(), "bind");
    assert_eq!(error.endpoint(), Some(&endpoint[..]));
    assert_eq!(error.socket_type(), Some(SocketType::Router));
    let port = endpoint.rsplit(':').next().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "bind tcp://127.0.0.1:{port} (ROUTER): Address already in use; \
             choose another port or stop the other process"
        )
    );
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(port), "{error}");
    // The socket is as good as before.
    assert_ne!(second.bind("tcp://127.0.0.1:*").unwrap(), endpoint);
}

#[test]
fn a_taken_name_is_named_with_its_remedy() {
    let context = zmq::Context::new();
    let _taken = of(SocketType::Pull).bind("inproc://taken").build(&context).unwrap();
    let error = of(SocketType::Pull).bind("inproc://taken").build(&context).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bind inproc://taken (PULL): Address already in use; choose another name"
    );
}

#[test]
fn wrong_endpoints() {
    for (endpoint, errno, remedy) in [
        ("5556", Errno::EINVAL, "tcp://127.0.0.1:5556"),
        ("", Errno::EINVAL, "tcp://127.0.0.1:5556"),
        ("tcp://127.0.0.1:port", Errno::EINVAL, "tcp://127.0.0.1:5556"),
        ("http://127.0.0.1:80", Errno::EPROTONOSUPPORT, "use tcp, ipc or inproc"),
        ("udp://127.0.0.1:5556", Errno::ENOCOMPATPROTO, "another transport"),
        ("tcp://203.0.113.1:5556", Errno::EADDRNOTAVAIL, "address of this machine"),
        ("tcp://no-such-interface:5556", Errno::ENODEV, "address of this machine"),
    ] {
        let error = bind_error(SocketType::Pull, endpoint);
        assert_eq!(error.errno(), errno, "{error}");
        assert_eq!(error.endpoint(), Some(endpoint));
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(error.to_string().starts_with(&format!("bind {endpoint} (PULL): ")), "{error}");
    }
    let long = format!("ipc:///tmp/{}", "x".repeat(200));
    let error = bind_error(SocketType::Pull, &long);
    assert_eq!(error.errno(), Errno::ENAMETOOLONG);
    assert!(error.to_string().ends_with("choose a shorter path"), "{error}");
    let error = bind_error(SocketType::Pull, "tcp://\0");
    assert_eq!((error.errno(), error.endpoint()), (Errno::EINVAL, Some("tcp://\\u{0}")));
    let error = bind_error(SocketType::Stream, "inproc://stream");
    assert!(error.to_string().contains("expected tcp"), "{error}");
}

#[test]
fn unbind_and_disconnect_of_what_is_not_there() {
    let context = zmq::Context::new();
    let socket = Socket::new(&context, SocketType::Dealer).unwrap();
    for error in [
        socket.unbind("tcp://127.0.0.1:5556").unwrap_err(),
        socket.disconnect("tcp://127.0.0.1:5556").unwrap_err(),
    ] {
        assert_eq!(error.errno(), Errno::ENOENT);
        assert!(error.remedy().is_some(), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }
    let endpoint = socket.bind("tcp://127.0.0.1:*").unwrap();
    socket.unbind(&endpoint).unwrap();
    assert_eq!(socket.unbind(&endpoint).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn an_unbound_port_is_free_again() {
    let context = zmq::Context::new();
    let (socket, endpoint) = bound(&context, of(SocketType::Pull));
    socket.unbind(&endpoint).unwrap();
    let other = Socket::new(&context, SocketType::Pull).unwrap();
    crate::eventually("the port released", || other.bind(&endpoint).ok());
}

fn failure(result: Result<(), SendError>) -> SocketError {
    match result {
        Err(SendError::Failed(error)) => error,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn messages_without_frames_are_refused() {
    let context = zmq::Context::new();
    for socket_type in crate::ALL_TYPES {
        let socket = Socket::new(&context, socket_type).unwrap();
        let none: [&[u8]; 0] = [];
        for error in [
            failure(socket.send(&none)),
            failure(socket.send(&Multipart::new())),
            failure(socket.send_frames(&mut Vec::new())),
        ] {
            assert_eq!(error.errno(), Errno::EINVAL);
            assert!(error.to_string().ends_with("got 0"), "{error}");
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
        }
    }
}

/// libzmq would take these and drop them, or take a part of them for an address.
#[test]
fn messages_that_cannot_be_addressed_are_refused() {
    let context = zmq::Context::new();
    let router = Socket::new(&context, SocketType::Router).unwrap();
    assert_eq!(
        failure(router.send("alone")).to_string(),
        "send (ROUTER): expected a routing id and at least one frame more, got 1"
    );
    assert_eq!(router.send(&["unknown", "dropped as documented"]), Ok(()));
    let raw = of(SocketType::Router).raw(true).build(&context).unwrap();
    let stream = Socket::new(&context, SocketType::Stream).unwrap();
    for socket in [&raw, &stream] {
        for count in [1, 3] {
            let error = failure(socket.send(&vec![b"frame".to_vec(); count][..]));
            let expected = format!("expected a routing id and one frame of data, got {count}");
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
    }
    let conflate = of(SocketType::Push).conflate(true).build(&context).unwrap();
    for socket in [
        &conflate,
        &Socket::from_zmq(
            of(SocketType::Dealer).conflate(true).build(&context).unwrap().into_zmq(),
        )
        .unwrap(),
    ] {
        let error = failure(socket.send(&["two", "frames"]));
        assert!(error.to_string().ends_with("expected one frame (conflate), got 2"), "{error}");
    }
}

#[test]
fn the_wrong_direction() {
    let context = zmq::Context::new();
    for socket_type in [SocketType::Pull, SocketType::Sub] {
        let socket = Socket::new(&context, socket_type).unwrap();
        let error = failure(socket.send("backwards"));
        assert_eq!(error.errno(), Errno::ENOTSUP);
        assert!(error.to_string().ends_with("this type of socket only receives"), "{error}");
    }
    for socket_type in [SocketType::Push, SocketType::Pub] {
        let socket = Socket::new(&context, socket_type).unwrap();
        assert_eq!(socket.receive(&mut Frame::new()), Err(Errno::ENOTSUP));
        let error = socket.receive_message().unwrap_err();
        assert!(error.to_string().ends_with("this type of socket only sends"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
    }
}

#[test]
fn sending_maps_to_io_errors() {
    assert_eq!(io::Error::from(SendError::WouldBlock).kind(), io::ErrorKind::WouldBlock);
    assert_eq!(io::Error::from(SendError::Unreachable).kind(), io::ErrorKind::HostUnreachable);
    assert_eq!(io::Error::from(Errno::EAGAIN).kind(), io::ErrorKind::WouldBlock);
    assert_eq!(io::Error::from(Errno::EINTR).kind(), io::ErrorKind::Interrupted);
    assert_eq!(io::Error::from(Errno::ETERM).kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(io::Error::from(Errno::ETERM).to_string(), "Context was terminated");
    assert!(size_of::<Result<(), SendError>>() <= 16, "the answer fits into registers");
}

#[test]
fn the_numbers_of_libzmq_have_names_and_texts() {
    for (errno, name) in [
        (Errno::EAGAIN, "EAGAIN"),
        (Errno::ETERM, "ETERM"),
        (Errno::EFSM, "EFSM"),
        (Errno::ENOCOMPATPROTO, "ENOCOMPATPROTO"),
        (Errno::EMTHREAD, "EMTHREAD"),
        (Errno::EADDRINUSE, "EADDRINUSE"),
        (Errno::ENFILE, "ENFILE"),
    ] {
        assert_eq!(errno.name(), Some(name));
        assert_eq!(format!("{errno:?}"), name);
        // The zmq crate, which asks zmq_strerror, would panic at this one.
        if errno != Errno::ENFILE {
            assert_eq!(errno.to_string(), zmq::Error::from_raw(errno.raw()).message());
        }
    }
}

proptest! {
    #[test]
    fn no_number_can_panic(number in any::<i32>()) {
        let errno = Errno::from_raw(number);
        prop_assert_eq!(errno.raw(), number);
        prop_assert!(!errno.to_string().is_empty());
        prop_assert!(!errno.to_string().contains("os error"));
        let debug = format!("{errno:?}");
        prop_assert!(!debug.is_empty());
        let error = io::Error::from(errno);
        prop_assert!(!error.to_string().is_empty());
        prop_assert_eq!(error.kind(), errno.kind());
    }

    /// Those of the system and of libzmq, and their neighbours.
    #[test]
    fn no_number_near_a_known_one_can_panic(offset in -200..200i32) {
        for base in [0, 156_384_712] {
            let errno = Errno::from_raw(base + offset);
            prop_assert!(!errno.to_string().is_empty());
            prop_assert_eq!(io::Error::from(errno).kind(), errno.kind());
        }
    }
}
