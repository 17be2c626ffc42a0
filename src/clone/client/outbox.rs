//! [`ClientOutbox`]: what the client asks of its sockets.

use crate::clone::SendFailure;
use crate::clone::collector::Collector;
use crate::clone::kvmsg::FRAMES;

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
