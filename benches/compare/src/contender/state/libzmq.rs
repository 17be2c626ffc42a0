//! Clients of a broker and of the relay by bare libzmq calls, five frames a message; a late
//! joiner is a [`ClientNode`].

use pollux::clone::client::{ClientConfig, Event};
use pollux::node::{ClientNode, ClientOptions};
use pollux::reactor::{Flow, Reactor};

use super::{Changes, Outcome, Sides, Updates, Uuids, number};
use crate::bare::{Bare, Part};

pub(super) fn connect(changes: &str, updates: &str) -> Outcome<Sides> {
    let context = zmq::Context::new();
    let (push, sub) = (Bare::new(&context, zmq::PUSH), Bare::new(&context, zmq::SUB));
    push.connect(changes);
    sub.zmq().set_subscribe(b"/state/")?;
    sub.connect(updates);
    let mut setter = Setter { push, uuids: Uuids::new() };
    let mut watcher = Watcher { sub, part: Part::new() };
    // Until the first is heard the subscription may be under way.
    watcher.sub.zmq().set_rcvtimeo(10)?;
    loop {
        setter.set("/state/probe", &[0; 8])?;
        if watcher.receive() {
            break;
        }
    }
    while watcher.receive() {}
    watcher.sub.zmq().set_rcvtimeo(-1)?;
    Ok((Box::new(setter), Box::new(watcher)))
}

struct Setter {
    push: Bare,
    uuids: Uuids,
}

impl Changes for Setter {
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()> {
        self.push.send_all(&[key.as_bytes(), &[0; 8], self.uuids.next(), b"", value]);
        Ok(())
    }

    /// libzmq sends by itself.
    fn flush(&mut self) -> Outcome<()> {
        Ok(())
    }
}

struct Watcher {
    sub: Bare,
    part: Part,
}

impl Watcher {
    /// The last part of the next message is in `part`, unless the wait is over.
    fn receive(&mut self) -> bool {
        if !self.sub.receive(&mut self.part) {
            return false;
        }
        while self.part.more() && self.sub.receive(&mut self.part) {}
        true
    }
}

impl Updates for Watcher {
    fn next(&mut self) -> Outcome<u64> {
        while !self.receive() {}
        number(self.part.bytes())
    }
}

struct Joiner {
    client: ClientNode<Joiner>,
}

/// Keys in the map of a client that has just become current.
pub(super) fn join(snapshots: &str) -> Outcome<usize> {
    let context = zmq::Context::new();
    let mut reactor = Reactor::new()?;
    let options = ClientOptions::new(ClientConfig::follow(["/state/"]));
    let client = ClientNode::new(&context, snapshots, options)?;
    let mut joiner = Joiner { client };
    ClientNode::attach(
        &mut reactor,
        &mut joiner,
        |joiner| &mut joiner.client,
        |_, _, event| {
            Ok(if matches!(event, Event::Synced { .. }) { Flow::Stop } else { Flow::Continue })
        },
    )?;
    reactor.run(&mut joiner)?;
    Ok(joiner.client.machine().len())
}
