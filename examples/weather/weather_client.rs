//! Averages the temperature of one place over some updates. What it did not subscribe to, the
//! publisher does not even send.

use std::io;
use std::time::Duration;

use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

#[derive(Default)]
struct Observed {
    updates: u32,
    temperatures: i64,
}

pub(crate) fn run(endpoint: &str, zipcode: &str, updates: u32) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let subscriber = Socket::builder(SocketType::Sub)
        .subscribe(zipcode)
        .linger(Duration::ZERO) // what it sends are subscriptions, of no use after the end
        .connect(endpoint)
        .build(&zmq::Context::new())?;
    reactor.on_message(subscriber, move |observed: &mut Observed, _, message| {
        let report = message.get(1).and_then(|frame| std::str::from_utf8(frame).ok());
        let temperature = report.and_then(|text| text.split(' ').next()?.parse::<i64>().ok());
        observed.temperatures += temperature.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no weather: {message:?}"))
        })?;
        observed.updates += 1;
        Ok(if observed.updates == updates { Flow::Stop } else { Flow::Continue })
    })?;
    // A publisher that sends something else is ignored, and told about.
    reactor.on_error(|_, _, error| {
        eprintln!("{error}");
        Flow::Continue
    });
    let mut observed = Observed::default();
    reactor.run(&mut observed)?;
    let average = observed.temperatures / i64::from(observed.updates.max(1));
    println!("{zipcode}: {average} F on average of {} updates", observed.updates);
    Ok(())
}
