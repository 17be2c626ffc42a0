//! A subscriber. The first hello shows that its subscription has arrived, which it tells the
//! publisher; then no update may be missing.

use std::io;
use std::time::Duration;

use pollux::reactor::SocketKey;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Subscriber {
    sync: SocketKey,
    synchronised: bool,
    updates: u64,
}

pub(crate) fn run(updates: &str, sync: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let updates = Socket::builder(SocketType::Sub)
        .subscribe("")
        .linger(Duration::ZERO)
        .connect(updates)
        .build(&context)?;
    let sync =
        Socket::builder(SocketType::Req).linger(Duration::ZERO).connect(sync).build(&context)?;
    let sync = reactor.add_socket(sync)?;
    reactor.on_message(updates, |state: &mut Subscriber, cx, update| {
        match &update[0] {
            b"" if state.synchronised => {}
            b"" => {
                cx.socket(state.sync)?.send("")?;
                state.synchronised = true;
            }
            b"END" => return Ok(Flow::Stop),
            number if *number == *state.updates.to_string().as_bytes() => state.updates += 1,
            other => {
                let other = String::from_utf8_lossy(other);
                let problem = format!("expected update {}, got {other}", state.updates);
                return Err(io::Error::other(problem));
            }
        }
        Ok(Flow::Continue)
    })?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut subscriber = Subscriber { sync, synchronised: false, updates: 0 };
    reactor.run(&mut subscriber)?;
    println!("received {} updates, none missing", subscriber.updates);
    Ok(())
}
