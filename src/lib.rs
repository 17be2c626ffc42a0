//! One thread, one loop, shared state.
//!
//! * [`reactor`]: a loop in the manner of CZMQ's zloop, on `zmq_poll` or on epoll over
//!   `ZMQ_FD`. [`Reactor::run`] owns the thread; [`Reactor::turn`] is one pass, for a
//!   process that has a loop of its own.
//! * [`socket`]: ZeroMQ sockets that give a message back when it would block.
//! * [`clone`]: the Clone pattern of the ZeroMQ Guide (RFC 12/CHP) as state machines
//!   without I/O: a broker that holds key-value state, a client that follows it.
//! * [`node`]: those machines on the loop, each a field of the application's state.
//! * [`proxy`]: what zmq_proxy(3) does, as a part of the loop: proxies, forwarders, bridges.
//! * [`blocking`]: a client for programs that do not want to see a loop.
//!
//! The command `pollux` needs the feature `cli`. Unix only; Windows is out of scope.
//!
//! ```
//! use std::time::Duration;
//!
//! use pollux::{Flow, Reactor};
//!
//! // Handlers get the application's state, here a counter, and the loop.
//! let mut reactor = Reactor::new()?;
//! reactor.add_timer(Duration::from_millis(1), |count: &mut u32, _cx| {
//!     *count += 1;
//!     Ok(Flow::Stop)
//! });
//! let mut count = 0;
//! reactor.run(&mut count)?;
//! assert_eq!(count, 1);
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod blocking;
pub mod clone;
pub mod message;
pub mod node;
pub mod proxy;
pub mod reactor;
pub mod socket;
pub mod time;

/// The README's programs are compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use message::{Frames, Message, Multipart};
pub use reactor::{Context, Flow, Reactor, Sender};
pub use time::Time;
