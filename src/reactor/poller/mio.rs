//! Polling by mio: all sources, and with [`Backend::Epoll`](crate::reactor::Backend)
//! the sockets' descriptors.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

use super::{FINE_TIMER, Found, WAKER};
use crate::reactor::context::Ready;

pub(super) fn poll(
    poll: &mut Poll,
    events: &mut Events,
    timeout: Option<Duration>,
    mut found: impl FnMut(Found),
) -> io::Result<()> {
    poll.poll(events, timeout)?;
    for event in &*events {
        let token = event.token();
        let index = (token.0 >> 1) as u32;
        if token == WAKER || token == FINE_TIMER {
            // It has done its work: the poll has returned.
        } else if token.0 & 1 == 1 {
            found(Found::Socket(index));
        } else {
            found(Found::Source(index, Ready::from_mio(event)));
        }
    }
    Ok(())
}
