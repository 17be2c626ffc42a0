//! The client from outside, with a broker on another thread.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Client, Error, Options, Wait};
use crate::clone::client::Event;
use crate::node::{BrokerNode, BrokerOptions};
use crate::reactor::{Flow, Reactor, Sender};

/// A broker on a thread of its own until it is dropped.
struct Broker {
    endpoint: String,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    fn start() -> Broker {
        let (made, broker) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let context = zmq::Context::new();
            let mut options = BrokerOptions::default();
            options.config.heartbeat = Duration::from_millis(50);
            let mut broker = BrokerNode::bind(&context, "tcp://127.0.0.1:*", options).unwrap();
            let mut reactor = Reactor::new().unwrap();
            BrokerNode::attach(&mut reactor, &mut broker, |broker| broker).unwrap();
            let stop = reactor.channel(1, |_, _, ()| Ok(Flow::Stop)).unwrap();
            made.send((broker.endpoints().snapshots.clone(), stop)).unwrap();
            reactor.run(&mut broker).unwrap();
        });
        let (endpoint, stop) = broker.recv().unwrap();
        Broker { endpoint, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self, configure: impl FnOnce(&mut Options)) -> Client {
        let mut options = Options { timeout: Duration::from_secs(30), ..Options::default() };
        configure(&mut options);
        Client::connect_with(&self.endpoint, options).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            stop.send(()).unwrap();
            thread.join().unwrap();
        }
    }
}

fn key(event: &Event) -> Option<&[u8]> {
    match event {
        Event::Updated { key, .. } | Event::Deleted { key, .. } => Some(key),
        _ => None,
    }
}

#[test]
fn a_change_is_seen_by_who_made_it_and_by_others() {
    let broker = Broker::start();
    let (one, other) = (broker.connect(|_| {}), broker.connect(|_| {}));
    let watch = other.watch(b"/a/").unwrap();
    let first = one.set(b"/a/1", b"x").unwrap();
    one.set(b"/b", b"of no interest").unwrap();
    let second = one.delete(b"/a/1").unwrap();
    assert!(first < second);
    assert_eq!(one.get(b"/a/1").unwrap(), None);
    assert_eq!(one.snapshot(b"").unwrap(), [("/b".into(), "of no interest".into())]);
    let seen: Vec<Event> =
        watch.map(Result::unwrap).filter(|event| key(event).is_some()).take(2).collect();
    assert!(matches!(&seen[0], Event::Updated { key, value, sequence }
        if **key == *b"/a/1" && **value == *b"x" && *sequence == first));
    assert!(matches!(&seen[1], Event::Deleted { key, .. } if **key == *b"/a/1"));
}

#[test]
fn a_client_that_only_writes_connects_too() {
    let broker = Broker::start();
    let writer = broker.connect(|options| options.subtrees.clear());
    writer.set(b"/a", b"1").unwrap();
    assert_eq!(broker.connect(|_| {}).get(b"/a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_change_can_be_waited_for_until_it_is_safe() {
    let broker = Broker::start();
    let client = broker.connect(|options| options.wait = Wait::Safe);
    let first = client.set(b"/a", b"1").unwrap();
    let second = client.set(b"/a", b"2").unwrap();
    assert!(first < second);
    client.delete(b"/a").unwrap();
    assert_eq!(client.get(b"/a").unwrap(), None);
}

#[test]
fn a_server_that_does_not_answer_is_passed_over() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().min(65_533);
    let broker = Broker::start();
    let servers = format!("tcp://127.0.0.1:{port},{}", broker.endpoint);
    let options = Options { timeout: Duration::from_secs(30), ..Options::default() };
    let client = Client::connect_with(&servers, options).unwrap();
    client.set(b"/a", b"1").unwrap();
    assert_eq!(broker.connect(|_| {}).get(b"/a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn without_a_broker_connect_ends_in_time_and_so_does_its_thread() {
    // Bound and not listened to: nobody else can have the port, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().min(65_533);
    let options = Options { timeout: Duration::from_millis(50), ..Options::default() };
    let start = Instant::now();
    let error = Client::connect_with(&format!("tcp://127.0.0.1:{port}"), options).unwrap_err();
    assert!(matches!(error, Error::NoBroker { .. }), "{error}");
    // The linger time of what was never sent would be another second, for each socket.
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_watch_that_is_read_too_slowly_says_so_and_others_go_on() {
    let broker = Broker::start();
    let client = broker.connect(|options| options.watch_capacity = 3);
    let mut slow = client.watch(b"").unwrap();
    for n in 0..5u8 {
        client.set(b"/a", &[n]).unwrap();
    }
    let read: Vec<_> = slow.by_ref().collect();
    assert_eq!(read.len(), 4);
    assert!(read[..3].iter().all(Result::is_ok));
    assert!(matches!(read[3], Err(Error::Overrun)));
    assert!(slow.next().is_none());
    let mut other = client.watch(b"").unwrap();
    client.set(b"/a", b"last").unwrap();
    for _ in 0..4 {
        client.set(b"/a", b"more").unwrap();
        // Reading makes room.
        assert!(other.next().unwrap().is_ok());
    }
}

#[test]
fn a_watch_that_is_dropped_leaves_nothing_behind_under_a_quiet_subtree() {
    let broker = Broker::start();
    let client = broker.connect(|_| {});
    let watch = client.watch(b"/quiet/").unwrap();
    let queue = std::sync::Arc::downgrade(&watch.queue);
    drop(watch);
    let _other = client.watch(b"/other/").unwrap();
    assert!(queue.upgrade().is_none());
}

#[test]
fn what_is_not_current_is_not_shown() {
    let broker = Broker::start();
    let client = broker.connect(|_| {});
    client.set(b"/a", b"1").unwrap();
    let watch = client.watch(b"").unwrap();
    drop(broker);
    let lost = watch.map(Result::unwrap).find(|event| *event == Event::Lost);
    assert!(lost.is_some());
    assert!(matches!(client.get(b"/a"), Err(Error::Stale)));
    assert!(matches!(client.snapshot(b""), Err(Error::Stale)));
    assert!(matches!(client.watch(b""), Err(Error::Stale)));
}
