//! Polling by zmq_poll(3): the sockets, and mio's epoll as one item more.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::{Events, Interest, Poll};

use super::{Found, mio as mio_poll};
use crate::reactor::slots::Slots;
use crate::reactor::sockets::SocketSlot;
use crate::socket::{Errno, PollSet};

#[derive(Debug, Default)]
pub(in crate::reactor) struct ZmqPoll {
    set: PollSet,
    /// The slots of the sockets in the set, in the same order.
    polled: Vec<u32>,
}

impl ZmqPoll {
    /// zmq_poll(3) over all sockets that are not in the queue already, then mio's events
    /// if its descriptor is ready. What is waited for for nothing else is so for its end.
    pub(super) fn poll<S>(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        sockets: &Slots<SocketSlot<S>>,
        timeout: Option<Duration>,
        mut found: impl FnMut(Found),
    ) -> io::Result<()> {
        self.polled.clear();
        let mut list = self.set.clear();
        // The first item, so that the answer is easily found again.
        list.push_fd(poll.registry().as_fd(), Interest::READABLE);
        for (key, slot) in sockets.iter() {
            if slot.queued {
                continue;
            }
            match slot.interest {
                Some(interest) => list.push(&slot.socket, interest),
                None => list.push_end(&slot.socket),
            }
            self.polled.push(key.index);
        }
        if self.polled.is_empty() {
            return mio_poll::poll(poll, events, timeout, found);
        }
        match list.poll(timeout) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // It does not say which socket's context has ended: each is asked.
            Err(Errno::ETERM) => {
                self.polled.iter().for_each(|index| found(Found::Socket(*index)));
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
        for (item, index) in self.polled.iter().enumerate() {
            if self.set.ready(item + 1).any() {
                found(Found::Socket(*index));
            }
        }
        if self.set.ready(0).any() {
            mio_poll::poll(poll, events, Some(Duration::ZERO), found)?;
        }
        Ok(())
    }
}
