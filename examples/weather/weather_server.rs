//! Publishes the weather of a thousand places, 50,000 updates a second. Each is an envelope,
//! the zipcode, by which it is subscribed to, and a frame with temperature and humidity.

use std::io;
use std::time::Duration;

use pollux::reactor::Missed;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

const UPDATES_PER_MS: u32 = 50;

struct Weather {
    /// The state of an xorshift generator: weather is not a matter of secrets.
    random: u64,
    updates: u64,
}

impl Weather {
    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

pub(crate) fn run(endpoint: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let publisher = Socket::builder(SocketType::Pub).bind(endpoint).build(&zmq::Context::new())?;
    println!("publishing at {}", publisher.last_endpoint()?);
    let publisher = reactor.add_socket(publisher)?;
    reactor.add_periodic(
        Duration::from_millis(1),
        Missed::Skip,
        move |weather: &mut Weather, cx| {
            for _ in 0..UPDATES_PER_MS {
                let zipcode = (10_000 + weather.below(1000)).to_string();
                let temperature = weather.below(215) as i64 - 80;
                let report = format!("{temperature} {}", 10 + weather.below(50));
                // PUB drops for a subscriber that is too slow: it gets the next weather.
                cx.socket(publisher)?.send(&[zipcode.as_str(), &report])?;
                weather.updates += 1;
            }
            Ok(Flow::Continue)
        },
    );
    let mut weather = Weather { random: 0x5DEE_CE66_D4B1_C9A3, updates: 0 };
    reactor.run(&mut weather)?;
    println!("published {} updates", weather.updates);
    Ok(())
}
