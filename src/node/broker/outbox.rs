//! What the machine has to send, straight into the sockets.

use super::Ports;
use super::peer::{self, FollowWanted, Wanted};
use crate::clone::broker::BrokerOutbox;
use crate::clone::kvmsg::FRAMES;
use crate::clone::{Collector, SendFailure};
use crate::message::Message;
use crate::node::burst::Waiting;
use crate::node::port::Port;
use crate::reactor::Registry;

/// The machine's messages go straight into the sockets, but for a change that is
/// published as it came: that waits until the machine has done with its frames, and
/// for others to be published with it.
pub(super) struct Outbox<'a, S> {
    pub(super) registry: &'a mut Registry<S>,
    pub(super) ports: Ports,
    pub(super) at_work: Option<AtWork<'a>>,
    /// Changes that could not be published although they had been taken.
    pub(super) unpublished: u64,
    /// What is to be opened to the peer when the machine has returned.
    pub(super) wanted: Option<&'a mut Wanted>,
}

/// A change while the machine has it.
pub(super) struct AtWork<'a> {
    pub(super) change: Message<'a>,
    /// Its new sequence, if it is to go on in its own frames.
    pub(super) forward: Option<[u8; 8]>,
    /// Changes before it that are still to be published.
    pub(super) waiting: Waiting<'a>,
}

impl AtWork<'_> {
    /// Whether `frames` are those of the change but for the sequence.
    #[inline]
    fn is_change(&self, frames: &[&[u8]; FRAMES]) -> bool {
        let &[key, _, uuid, properties, body] = self.change.frames() else { return false };
        std::ptr::eq(body, frames[4])
            && std::ptr::eq(key, frames[0])
            && std::ptr::eq(properties, frames[3])
            && uuid == frames[2]
    }
}

impl<S> Outbox<'_, S> {
    fn want(&mut self, change: impl FnOnce(&mut Wanted)) {
        if let Some(wanted) = &mut self.wanted {
            change(wanted);
        }
    }

    /// The sequence under which the change at work is to be published as it came.
    #[inline]
    pub(super) fn forward(&self) -> Option<[u8; 8]> {
        self.at_work.as_ref()?.forward
    }

    /// Sends what waits, for something else is to be sent after it.
    pub(super) fn flush(&mut self) -> Result<(), SendFailure> {
        let updates =
            self.registry.socket(self.ports.updates).map_err(|_| SendFailure::Unreachable)?;
        let Some(at_work) = &mut self.at_work else { return Ok(()) };
        at_work.waiting.flush(updates, |_| self.unpublished += 1);
        match (at_work.forward.take(), at_work.change.frames()) {
            (Some(sequence), &[key, _, uuid, properties, body]) => {
                Port::send(updates, &[key, &sequence, uuid, properties, body])
            }
            _ => Ok(()),
        }
    }

    fn send(&self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        let port =
            self.registry.socket(self.ports.updates).map_err(|_| SendFailure::Unreachable)?;
        Port::send(port, frames)
    }
}

impl<S> BrokerOutbox for Outbox<'_, S> {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let port =
            self.registry.socket(self.ports.snapshots).map_err(|_| SendFailure::Unreachable)?;
        port.send_to(peer, frames)
    }

    fn publish(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        match (&mut self.at_work, frames[1].try_into()) {
            (Some(at_work), Ok(sequence))
                if at_work.forward.is_none() && at_work.is_change(frames) =>
            {
                at_work.forward = Some(sequence);
                Ok(())
            }
            _ => {
                self.flush()?;
                self.send(frames)
            }
        }
    }

    fn tell_peer(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        peer::tell(self.registry, self.ports.line, frames)
    }

    fn open_upstream(&mut self, server: usize, subtree: &[u8]) {
        let subtree = subtree.into();
        self.want(|wanted| {
            // A request that was to go to another server is none for this one.
            (wanted.sync, wanted.request, wanted.heartbeat) = (false, None, false);
            wanted.follow = Some(FollowWanted::Upstream { server, subtree });
        });
    }

    fn ask_heartbeat(&mut self) {
        self.want(|wanted| wanted.heartbeat = true);
    }

    fn close_follow(&mut self) {
        self.want(|wanted| wanted.follow = Some(FollowWanted::Closed));
    }

    fn open_forward(&mut self, collector: Collector) {
        self.want(|wanted| wanted.forward = Some(collector));
    }

    fn forward(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        peer::forward(self.registry, self.ports.forward, frames)
    }

    fn open_sync(&mut self) {
        self.want(|wanted| (wanted.sync, wanted.request) = (true, None));
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let request = frames.iter().map(|frame| frame.to_vec()).collect();
        self.want(|wanted| wanted.request = Some(request));
        Ok(())
    }
}
