//! Three threads in a row, each waiting for the one before: the Guide's mtrelay. They signal each
//! other by PAIR sockets over inproc, never by shared memory.
//!
//!     cargo run --example mt_relay -- [ROUNDS]

use std::io;
use std::thread;

use pollux::reactor::SocketKey;
use pollux::socket::{Socket, ZmqContext, pair};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

/// A thread with a loop of its own: what comes from `near` goes on to `far`, and what comes back
/// from there goes back. An empty message is the end, and goes through as well.
fn relay(near: Socket, far: Socket) -> io::Result<()> {
    let mut reactor: Reactor<[SocketKey; 2]> = Reactor::new()?;
    let near = reactor.on_message(near, |[_, far], cx, signal| {
        cx.socket(*far)?.send(&signal)?;
        Ok(if signal[0].is_empty() { Flow::Stop } else { Flow::Continue })
    })?;
    let far = reactor.on_message(far, |[near, _], cx, signal| {
        cx.socket(*near)?.send(&signal)?;
        Ok(Flow::Continue)
    })?;
    reactor.run(&mut [near, far])
}

/// The last one turns signals round.
fn turn(near: Socket) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.on_message(near, |(): &mut (), cx, signal| {
        if signal[0].is_empty() {
            return Ok(Flow::Stop);
        }
        cx.own_socket()?.send(&signal)?;
        Ok(Flow::Continue)
    })?;
    reactor.run(&mut ())
}

fn main() -> io::Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(1000), |arg| arg.parse::<u64>());
    let rounds = rounds.map_err(io::Error::other)?;
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = ZmqContext::new()?;
    let (first, second) = pair(&context)?;
    let (third, fourth) = pair(&context)?;
    let threads =
        [thread::spawn(move || relay(second, third)), thread::spawn(move || turn(fourth))];
    first.send("ready")?;
    let first = reactor.on_message(first, move |round: &mut u64, cx, signal| {
        *round += 1;
        if *round >= rounds {
            return Ok(Flow::Stop);
        }
        cx.own_socket()?.send(&signal)?;
        Ok(Flow::Continue)
    })?;
    let mut round = 0;
    reactor.run(&mut round)?;
    reactor.socket(first)?.send("")?;
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a thread panicked"))??;
    }
    println!("{round} times through three threads and back");
    Ok(())
}
