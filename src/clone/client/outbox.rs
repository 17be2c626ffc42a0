//! [`ClientOutbox`]: what the client asks of its sockets.

use std::fmt;
use std::str::FromStr;

use crate::clone::SendFailure;
use crate::clone::kvmsg::FRAMES;

/// How a broker takes changes, and so the socket a client sends them with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collector {
    /// By PULL, from PUSH: a sender that outruns the broker is held back.
    Pull,
    /// By SUB, from PUB, as RFC 12 says: PUB drops at its high-water mark.
    Sub,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Collector::Pull => "pull",
            Collector::Sub => "sub",
        })
    }
}

impl FromStr for Collector {
    type Err = ParseCollectorError;
    fn from_str(text: &str) -> Result<Collector, ParseCollectorError> {
        match text {
            "pull" => Ok(Collector::Pull),
            "sub" => Ok(Collector::Sub),
            _ => Err(ParseCollectorError),
        }
    }
}

/// A text is not a [`Collector`]: `pull` or `sub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseCollectorError;

impl fmt::Display for ParseCollectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("collector: expected pull or sub")
    }
}

impl std::error::Error for ParseCollectorError {}

/// What a [`Client`](super::Client) asks of its sockets. Its calls come from
/// within the client's `handle_*` methods, `start`, `set` and `delete`.
pub trait ClientOutbox {
    /// Subscribes to a topic on the SUB. No topic is subscribed twice before
    /// it is unsubscribed.
    fn subscribe(&mut self, topic: &[u8]);

    /// Unsubscribes from it.
    fn unsubscribe(&mut self, topic: &[u8]);

    /// Opens a new DEALER for the next request. The one before is closed
    /// without linger: what it still receives must never reach the client.
    fn open_requests(&mut self);

    /// Sends on the DEALER opened last.
    ///
    /// # Errors
    /// The client then tries again after a while, with a new DEALER.
    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure>;

    /// Opens the socket for changes: a PUSH for [`Collector::Pull`], a PUB for
    /// [`Collector::Sub`], with IMMEDIATE set; one opened before is closed
    /// without linger.
    fn open_changes(&mut self, collector: Collector);

    /// Sends on it.
    ///
    /// # Errors
    /// The client keeps the change and tries again when told that the port may
    /// take more, or after a while.
    fn change(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure>;
}
