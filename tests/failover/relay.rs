//! A network in the test's hands: what goes through it can be held up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Three neighbouring ports that lead to three others.
pub(crate) struct Relay {
    switch: Arc<Switch>,
    ports: Vec<u16>,
}

#[derive(Default)]
struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    is_over: bool,
    /// Rises when all connections are to end.
    generation: u64,
}

impl Switch {
    /// Waits while nothing passes. False: the connection of this generation ends.
    fn pass(&self, generation: u64) -> bool {
        let mut state = self.state.lock().expect("nobody panics with it");
        while state.is_cut && !state.is_over && state.generation == generation {
            state = self.changed.wait(state).expect("nobody panics with it");
        }
        !state.is_over && state.generation == generation
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("nobody panics with it"));
        self.changed.notify_all();
    }

    fn generation(&self) -> u64 {
        self.state.lock().expect("nobody panics with it").generation
    }
}

impl Relay {
    /// From the three ports at `from` to those at `to`.
    pub(crate) fn start(from: &str, to: &str) -> Relay {
        let switch = Arc::new(Switch::default());
        let ports: Vec<u16> = (0..3).map(|offset| port(from) + offset).collect();
        for (offset, &here) in ports.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", here)).expect("the port is free");
            let (switch, there) = (Arc::clone(&switch), port(to) + offset as u16);
            thread::spawn(move || {
                for accepted in listener.incoming() {
                    if switch.state.lock().expect("nobody panics with it").is_over {
                        return;
                    }
                    let Ok(near) = accepted else { continue };
                    let switch = Arc::clone(&switch);
                    thread::spawn(move || connect(&switch, near, there));
                }
            });
        }
        Relay { switch, ports }
    }

    /// Nothing passes any more, in either direction; connections stay.
    pub(crate) fn cut(&self) {
        self.switch.change(|state| state.is_cut = true);
    }

    /// What was held up arrives, late.
    pub(crate) fn heal(&self) {
        self.switch.change(|state| state.is_cut = false);
    }

    /// What was held up is lost with its connections.
    pub(crate) fn heal_and_drop(&self) {
        self.switch.change(|state| {
            state.generation += 1;
            state.is_cut = false;
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.switch.change(|state| state.is_over = true);
        for &port in &self.ports {
            // Wakes who waits for a connection.
            drop(TcpStream::connect(("127.0.0.1", port)));
        }
    }
}

fn port(endpoint: &str) -> u16 {
    let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
    port.expect("an endpoint with a port")
}

fn connect(switch: &Arc<Switch>, near: TcpStream, there: u16) {
    let generation = switch.generation();
    if !switch.pass(generation) {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", there)) else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("it is tcp");
    }
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
    let there = Arc::clone(switch);
    thread::spawn(move || carry(&there, generation, near_too, far_too));
    carry(switch, generation, far, near);
}

/// Carries bytes one way until the connection ends.
fn carry(switch: &Switch, generation: u64, mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut bytes) {
        if read == 0 || !switch.pass(generation) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
