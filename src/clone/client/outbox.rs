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

    /// The same, connected to the changes ports of all servers: those of RFC 12 pass
    /// nothing on to each other by themselves. By default, as
    /// [`open_changes`](ClientOutbox::open_changes).
    fn open_changes_to_all(&mut self, collector: Collector) {
        self.open_changes(collector);
    }

    /// Sends on it.
    ///
    /// # Errors
    /// The client keeps the change and tries again when told that the port may
    /// take more, or after a while.
    fn change(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure>;

    /// Turns to the server with this number, from 0; before the first call it is 0.
    /// A new SUB without subscriptions takes the place of the one before, connected to
    /// its updates port; nothing more may come from the old one. The DEALER is closed
    /// without linger. What is opened next is opened there. Never called with
    /// [one server](super::ClientConfig::servers) only.
    fn turn_to(&mut self, server: usize) {
        let _ = server;
    }
}
