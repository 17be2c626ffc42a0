//! An application with a busy loop of its own steps the reactor in it: `turn` with
//! a wait of zero never blocks, and says how many events it handled.
//!
//! A simulation runs as fast as it can and publishes a position every hundred steps;
//! another thread listens and steers, by messages that are taken between two steps.
//!
//!     cargo run --release --example embedded -- [STEPS]

use std::io;
use std::time::{Duration, Instant};

use pollux::reactor::Interest;
use pollux::socket::Socket;
use pollux::{Flow, Reactor};

#[derive(Default)]
struct Body {
    place: f64,
    speed: f64,
    /// Where the other thread wants it.
    target: f64,
    commands: u64,
}

/// The other side: steers after every tenth position, until an empty message comes.
fn steer(pipe: &Socket) -> io::Result<u64> {
    let (mut heard, mut steered) = (0, 0);
    loop {
        pipe.wait(Interest::READABLE, None)?;
        while let Some(message) = pipe.receive_message()? {
            if message.get(0).is_some_and(|frame| frame.is_empty()) {
                return Ok(steered);
            }
            heard += 1;
            // One that would block is not sent: the next will be as good.
            if heard % 10 == 0 && pipe.send(&heard.to_string()).is_ok() {
                steered += 1;
            }
        }
    }
}

fn main() -> io::Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(200_000), |arg| arg.parse::<u32>());
    let steps = steps.map_err(io::Error::other)?;
    let mut reactor = Reactor::new()?;
    let (pipe, theirs) =
        reactor.add_pipe(&zmq::Context::new(), |body: &mut Body, _, message| {
            body.target = String::from_utf8_lossy(&message[0]).parse().unwrap_or_default();
            body.commands += 1;
            Ok(Flow::Continue)
        })?;
    let pilot = std::thread::spawn(move || steer(&theirs));

    let (mut body, mut in_turn) = (Body::default(), Duration::ZERO);
    for step in 0..steps {
        body.speed += (body.target - body.place) * 1e-6;
        body.place += body.speed;
        if step % 100 == 0 {
            // At the high-water mark nobody keeps up: this position is skipped.
            let _ = reactor.socket(pipe)?.send(&body.place.to_string());
        }
        let before = Instant::now();
        reactor.turn(&mut body, Duration::ZERO)?;
        in_turn += before.elapsed();
    }
    while reactor.socket(pipe)?.send("").is_err() {
        reactor.turn(&mut body, Duration::from_millis(1))?;
    }
    let steered = pilot.join().map_err(|_| io::Error::other("the pilot panicked"))??;
    while reactor.turn(&mut body, Duration::ZERO)? > 0 {}
    println!("{steps} steps, {:?} a turn; {:?}", in_turn / steps.max(1), reactor.stats());
    assert_eq!(body.commands, steered, "a command was lost");
    Ok(())
}
