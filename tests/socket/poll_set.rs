//! Waiting for several sockets and descriptors at once.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pollux::socket::{Errno, Events, Interest, PollSet, Socket, SocketType, ZmqContext, pair};

use crate::{DEADLINE, of, receive};

#[test]
fn sockets_and_descriptors_together() {
    let context = zmq::Context::new();
    let (left, right) = pair(&context).unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let mut set = PollSet::new();
    let mut poll = |timeout| {
        let mut list = set.clear();
        list.push(&right, Interest::READABLE);
        list.push_fd(far.as_fd(), Interest::READABLE);
        list.push(&left, Interest::READABLE | Interest::WRITABLE);
        let count = list.poll(timeout).unwrap();
        (count, [set.ready(0), set.ready(1), set.ready(2)])
    };
    let readable = Events { readable: true, writable: false };
    let writable = Events { readable: false, writable: true };
    assert_eq!(poll(Some(Duration::ZERO)), (1, [Events::NONE, Events::NONE, writable]));
    left.send("message").unwrap();
    assert_eq!(poll(Some(DEADLINE)), (2, [readable, Events::NONE, writable]));
    near.write_all(b"bytes").unwrap();
    assert_eq!(poll(None), (3, [readable, readable, writable]));
    receive(&right);
    (&far).read_exact(&mut [0; 5]).unwrap();
    assert_eq!(poll(None), (1, [Events::NONE, Events::NONE, writable]));
    right.send("back").unwrap();
    let both = Events { readable: true, writable: true };
    assert_eq!(poll(None), (1, [Events::NONE, Events::NONE, both]));
    assert!(both.any() && !Events::NONE.any());
}

#[test]
fn a_set_forgets_what_was_in_it() {
    let context = zmq::Context::new();
    let mut set = PollSet::default();
    {
        let (left, right) = pair(&context).unwrap();
        left.send("message").unwrap();
        let mut list = set.clear();
        list.push(&right, Interest::READABLE);
        assert_eq!(list.poll(Some(DEADLINE)), Ok(1));
    }
    // The sockets are gone; the answer is still there, until the next list.
    assert_eq!((set.len(), set.is_empty()), (1, false));
    assert!(set.ready(0).readable);
    assert_eq!(set.ready(1), Events::NONE);
    assert_eq!(set.clear().poll(None), Ok(0), "an empty list does not wait for ever");
    assert_eq!((set.len(), set.ready(0)), (0, Events::NONE));
}

#[test]
fn a_list_that_was_never_polled_is_harmless() {
    let context = zmq::Context::new();
    let mut set = PollSet::new();
    {
        let (_left, right) = pair(&context).unwrap();
        let mut list = set.clear();
        list.push(&right, Interest::READABLE);
    }
    assert_eq!(set.ready(0), Events::NONE);
    assert_eq!(set.clear().poll(Some(Duration::ZERO)), Ok(0));
}

#[test]
fn a_timeout_is_never_cut_short() {
    let context = zmq::Context::new();
    let (_left, right) = pair(&context).unwrap();
    let mut set = PollSet::new();
    for timeout in [Duration::from_micros(300), Duration::from_micros(2_100)] {
        let started = Instant::now();
        let mut list = set.clear();
        list.push(&right, Interest::READABLE);
        assert_eq!(list.poll(Some(timeout)), Ok(0));
        // libzmq counts whole milliseconds, of which the first may be nearly over.
        assert!(started.elapsed() + Duration::from_millis(1) >= timeout);
        assert_eq!(right.wait(Interest::READABLE, Some(timeout)), Ok(Events::NONE));
        assert_eq!(set.clear().poll(Some(timeout)), Ok(0));
    }
}

#[test]
fn a_broken_descriptor_is_reported_as_what_was_waited_for() {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let mut set = PollSet::new();
    let mut list = set.clear();
    list.push_fd(near.as_fd(), Interest::READABLE);
    list.push_fd(near.as_fd(), Interest::WRITABLE);
    assert_eq!(list.poll(Some(DEADLINE)), Ok(2));
    assert!(set.ready(0).readable);
    assert!(set.ready(1).writable);
}

#[test]
fn a_socket_twice_and_more_than_libzmq_keeps_on_its_stack() {
    let context = zmq::Context::new();
    let pairs: Vec<_> = (0..20).map(|_| pair(&context).unwrap()).collect();
    pairs[17].0.send("message").unwrap();
    let mut set = PollSet::new();
    let mut list = set.clear();
    for (_, right) in pairs.iter().chain(&pairs[17..18]) {
        list.push(right, Interest::READABLE);
    }
    assert_eq!(list.poll(Some(DEADLINE)), Ok(2));
    let ready: Vec<usize> = (0..set.len()).filter(|&index| set.ready(index).readable).collect();
    assert_eq!(ready, [17, 20]);
}

#[test]
fn a_context_that_ends_wakes_whoever_waits() {
    let context = ZmqContext::new().unwrap();
    let socket = Socket::new(&context, SocketType::Pull).unwrap();
    let ending = std::thread::spawn(move || context.terminate(DEADLINE));
    let mut set = PollSet::new();
    let mut list = set.clear();
    list.push(&socket, Interest::READABLE);
    assert_eq!(list.poll(Some(DEADLINE)), Err(Errno::ETERM));
    assert_eq!(set.ready(0), Events::NONE);
    assert_eq!(socket.wait(Interest::READABLE, None), Err(Errno::ETERM));
    drop(socket);
    ending.join().unwrap().unwrap();
}

#[test]
fn the_descriptor_becomes_readable_with_a_message() {
    let context = zmq::Context::new();
    let push = of(SocketType::Push).bind("inproc://fd").build(&context).unwrap();
    let pull = of(SocketType::Pull).connect("inproc://fd").build(&context).unwrap();
    assert_eq!(pull.fd(), pull.as_zmq().get_fd().unwrap());
    while pull.events().unwrap().any() {}
    push.send("message").unwrap();
    let mut poll = mio::Poll::new().unwrap();
    poll.registry()
        .register(&mut mio::unix::SourceFd(&pull.fd()), mio::Token(7), mio::Interest::READABLE)
        .unwrap();
    let mut events = mio::Events::with_capacity(4);
    poll.poll(&mut events, Some(DEADLINE)).unwrap();
    assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [mio::Token(7)]);
    assert_eq!(pull.events(), Ok(Events { readable: true, writable: false }));
}
