//! An application with a busy loop of its own steps the reactor in it: `turn` with
//! a wait of zero never blocks, and says how many events it handled.
//!
//! A simulation of a hundred bodies runs as fast as it can and publishes a
//! position after each step; another thread listens, and steers by messages that
//! the loop takes between two steps.
//!
//!     cargo run --release --example embedded -- [STEPS]

use std::io;
use std::time::{Duration, Instant};

use pollux::socket::{Interest, Socket};
use pollux::{Flow, Reactor};

struct Simulation {
    bodies: Vec<(f64, f64)>,
    /// What the other thread told us last.
    push: f64,
    commands: u64,
}

impl Simulation {
    fn step(&mut self) {
        for (place, speed) in &mut self.bodies {
            *speed += (self.push - *place) * 1e-6;
            *place += *speed;
        }
    }
}

/// The other side: for every tenth position it hears, it steers.
fn steer(pipe: &Socket) -> io::Result<u64> {
    let mut heard = 0;
    loop {
        pipe.wait(Interest::READABLE, None)?;
        while let Some(message) = pipe.receive_message()? {
            if message.get(0).is_some_and(|frame| frame.is_empty()) {
                return Ok(heard);
            }
            heard += 1;
            // A steer that would block is as good as a late one: the next comes soon.
            if heard % 10 == 0 && pipe.send(&heard.to_string()).is_err() {
                continue;
            }
        }
    }
}

fn main() -> io::Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(200_000), |arg| arg.parse::<u64>());
    let steps = steps.map_err(io::Error::other)?;
    let context = zmq::Context::new();
    let mut reactor = Reactor::new()?;
    let (pipe, theirs) =
        reactor.add_pipe(&context, |simulation: &mut Simulation, _, message| {
            simulation.push = String::from_utf8_lossy(&message[0]).parse().unwrap_or_default();
            simulation.commands += 1;
            Ok(Flow::Continue)
        })?;
    let listener = std::thread::spawn(move || steer(&theirs));

    let bodies = (0..100).map(|n| (f64::from(n), 0.0)).collect();
    let mut simulation = Simulation { bodies, push: 0.0, commands: 0 };
    let (start, mut in_turn) = (Instant::now(), Duration::ZERO);
    for step in 0..steps {
        simulation.step();
        if step % 100 == 0 {
            let place = simulation.bodies[0].0.to_string();
            // At the high-water mark nobody listens fast enough: this position is skipped.
            let _ = reactor.socket(pipe).map_err(io::Error::other)?.send(&place);
        }
        let before = Instant::now();
        reactor.turn(&mut simulation, Duration::ZERO)?;
        in_turn += before.elapsed();
    }
    println!("{steps} steps in {:?}, {:?} a turn", start.elapsed(), in_turn / steps.max(1) as u32);
    while reactor.socket(pipe).map_err(io::Error::other)?.send("").is_err() {
        reactor.turn(&mut simulation, Duration::from_millis(1))?;
    }
    let heard = listener.join().map_err(|_| io::Error::other("the listener panicked"))??;
    while reactor.turn(&mut simulation, Duration::ZERO)? > 0 {}
    println!("{heard} positions heard, {} commands taken", simulation.commands);
    assert_eq!(simulation.commands, heard / 10, "a command was lost");
    println!("{:?}", reactor.stats());
    Ok(())
}
