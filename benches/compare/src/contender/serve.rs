//! Servers of shared state over tcp: a broker, and a relay by hand.

use std::collections::HashMap;
use std::error::Error;

use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::Reactor;
use pollux::socket::{Socket, SocketError, SocketType, ZmqContext};

use crate::bare::{Bare, Part};
use crate::job::say_endpoint;

/// Runs until it is killed.
pub(crate) fn serve(kind: &str) -> Result<(), Box<dyn Error>> {
    match kind {
        "pollux" => broker(),
        "relay" => relay(),
        _ => Err(format!("no server is called {kind}").into()),
    }
}

/// That of `pollux broker`. Who sends on what it has received does better without zero copy,
/// the relay too.
fn context() -> Result<ZmqContext, SocketError> {
    ZmqContext::builder().zero_copy_receive(false).build()
}

/// A broker as a program would embed it: epoll, all limits as they are.
fn broker() -> Result<(), Box<dyn Error>> {
    let context = context()?;
    let options = BrokerOptions::default();
    let mut node = BrokerNode::bind(&context, "tcp://127.0.0.1:*", options)?;
    let mut reactor = Reactor::new()?;
    BrokerNode::attach(&mut reactor, &mut node, |node| node)?;
    let at = node.endpoints();
    say_endpoint(&format!("{} {} {}", at.changes, at.updates, at.snapshots));
    Ok(reactor.run(&mut node)?)
}

/// A relay: the parts received are the parts sent, but for the sequence; a map
/// keeps the values. It knows no limits, no expiry, no snapshots.
fn relay() -> Result<(), Box<dyn Error>> {
    let context = context()?;
    let bare = |socket_type| -> Result<Bare, SocketError> {
        Ok(Bare::of(Socket::new(&context, socket_type)?.into_zmq()))
    };
    let (changes, updates) = (bare(SocketType::Pull)?, bare(SocketType::XPub)?);
    let [pull, publish] = [&changes, &updates].map(|socket| socket.bind("tcp://127.0.0.1:*"));
    say_endpoint(&format!("{pull} {publish}"));
    let mut parts: [Part; 5] = std::array::from_fn(|_| Part::new());
    let (mut map, mut sequence) = (HashMap::<Vec<u8>, Vec<u8>>::new(), 0_u64);
    loop {
        let mut count = 0;
        while count < 5 && changes.receive(&mut parts[count]) && parts[count].more() {
            count += 1;
        }
        if count != 4 {
            return Err("a change has five parts".into());
        }
        sequence += 1;
        let (key, value) = (parts[0].bytes(), parts[4].bytes());
        match map.get_mut(key) {
            Some(old) => {
                old.clear();
                old.extend_from_slice(value);
            }
            None => drop(map.insert(key.to_vec(), value.to_vec())),
        }
        parts[1] = Part::of(&sequence.to_be_bytes());
        for (index, part) in parts.iter_mut().enumerate() {
            updates.send(part, index < 4);
        }
    }
}
