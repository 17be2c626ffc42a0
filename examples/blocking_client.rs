//! A program without a loop: set, get, watch and snapshot through a client that
//! runs on a thread of its own.
//!
//!     cargo run --example blocking_client -- [ENDPOINT]
//!
//! Without an endpoint it starts a broker of its own on a free port.

use std::error::Error;
use std::time::Duration;

use pollux::Reactor;
use pollux::blocking::Client;
use pollux::node::{BrokerNode, BrokerOptions};

/// A broker on a thread of its own, for as long as the program runs.
fn start_broker() -> Result<String, Box<dyn Error>> {
    let context = zmq::Context::new();
    let mut broker = BrokerNode::bind(&context, "tcp://127.0.0.1:*", BrokerOptions::default())?;
    let endpoint = broker.endpoints().snapshots.clone();
    std::thread::spawn(move || {
        let mut reactor = Reactor::new()?;
        BrokerNode::attach(&mut reactor, &mut broker, |broker| broker)?;
        reactor.run(&mut broker)
    });
    Ok(endpoint)
}

fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = match std::env::args().nth(1) {
        Some(endpoint) => endpoint,
        None => start_broker()?,
    };
    let client = Client::connect(&endpoint)?;
    println!("connected to {endpoint}");

    client.set(b"/robot/1/speed", b"0.7")?;
    client.set_for(b"/robot/1/alive", b"yes", Duration::from_secs(10))?;
    println!("/robot/1/speed = {:?}", client.get(b"/robot/1/speed")?);

    let watch = client.watch(b"/robot/")?;
    client.delete(b"/robot/1/speed")?;
    for event in watch.take(3) {
        println!("{:?}", event?);
    }
    println!("at the end: {:?}", client.snapshot(b"/robot/")?);
    Ok(())
}
