//! Options that can be read, or changed while the socket is in use.

use std::time::Duration;

use super::error::Operation;
use super::options::{self, SocketOption};
use super::{Errno, Socket, SocketError};

impl Socket {
    /// SUB: receives what begins with `prefix`, too; everything if it is empty.
    ///
    /// # Errors
    /// `EINVAL` on other types of sockets.
    pub fn subscribe(&self, prefix: &[u8]) -> Result<(), SocketError> {
        self.set(options::SUBSCRIBE, Ok(prefix.into()))
    }

    /// Takes one earlier [`subscribe`](Socket::subscribe) back.
    ///
    /// # Errors
    /// `EINVAL` on other types of sockets.
    pub fn unsubscribe(&self, prefix: &[u8]) -> Result<(), SocketError> {
        self.set(options::UNSUBSCRIBE, Ok(prefix.into()))
    }

    /// The endpoint that was bound or connected last, as resolved; empty if none
    /// was.
    ///
    /// # Errors
    /// `ETERM` if the context ended.
    pub fn last_endpoint(&self) -> Result<String, SocketError> {
        // Names can be longer than this only over inproc.
        let mut capacity = 1024;
        let endpoint = loop {
            match self.get_bytes(options::LAST_ENDPOINT, capacity) {
                Err(Errno::EINVAL) if capacity < 1 << 30 => capacity *= 2,
                answer => {
                    break answer.map_err(|errno| self.unknown(options::LAST_ENDPOINT, errno))?;
                }
            }
        };
        let endpoint = String::from_utf8_lossy(&endpoint);
        Ok(endpoint.trim_end_matches('\0').to_owned())
    }

    /// How long the socket goes on delivering after it was dropped; `None` for ever.
    ///
    /// # Errors
    /// `ETERM` if the context ended; so it is with all options.
    pub fn linger(&self) -> Result<Option<Duration>, SocketError> {
        let ms = self.int(options::LINGER)?;
        Ok(u64::try_from(ms).ok().map(Duration::from_millis)) // -1: for ever
    }

    /// Changes the linger time: [`SocketBuilder::linger`](super::SocketBuilder::linger).
    ///
    /// # Errors
    /// `EINVAL` for more than 24 days.
    pub fn set_linger(&self, time: impl Into<Option<Duration>>) -> Result<(), SocketError> {
        self.set(options::LINGER, options::milliseconds_or_none(time.into()))
    }

    /// The high-water mark for sending to each peer, in messages; 0 for none.
    ///
    /// # Errors
    /// `ETERM` if the context ended.
    pub fn send_hwm(&self) -> Result<u32, SocketError> {
        self.int(options::SNDHWM).map(i32::unsigned_abs) // never negative
    }

    /// Changes it, for peers that are connected already, too.
    ///
    /// # Errors
    /// `EINVAL` above 2,147,483,647.
    pub fn set_send_hwm(&self, messages: u32) -> Result<(), SocketError> {
        self.set(options::SNDHWM, options::number(messages))
    }

    /// The high-water mark for receiving from each peer, in messages; 0 for none.
    ///
    /// # Errors
    /// `ETERM` if the context ended.
    pub fn receive_hwm(&self) -> Result<u32, SocketError> {
        self.int(options::RCVHWM).map(i32::unsigned_abs) // never negative
    }

    /// Changes it, for peers that are connected already, too.
    ///
    /// # Errors
    /// `EINVAL` above 2,147,483,647.
    pub fn set_receive_hwm(&self, messages: u32) -> Result<(), SocketError> {
        self.set(options::RCVHWM, options::number(messages))
    }

    /// The largest frame that a peer may send, in bytes; `None` for no limit.
    ///
    /// # Errors
    /// `ETERM` if the context ended.
    pub fn max_message_size(&self) -> Result<Option<u64>, SocketError> {
        let bytes = self
            .get_wide(options::MAXMSGSIZE)
            .map_err(|errno| self.unknown(options::MAXMSGSIZE, errno))?;
        Ok(u64::try_from(bytes).ok()) // -1: no limit
    }

    /// The name by which a ROUTER knows this socket; empty if it was given none.
    ///
    /// # Errors
    /// `ETERM` if the context ended.
    pub fn routing_id(&self) -> Result<Vec<u8>, SocketError> {
        self.get_bytes(options::ROUTING_ID, 255)
            .map_err(|errno| self.unknown(options::ROUTING_ID, errno))
    }

    /// ROUTER: see [`SocketBuilder::mandatory`](super::SocketBuilder::mandatory).
    ///
    /// # Errors
    /// `EINVAL` on other types of sockets.
    pub fn set_mandatory(&self, on: bool) -> Result<(), SocketError> {
        self.set(options::ROUTER_MANDATORY, options::flag(on))
    }

    pub(super) fn int(&self, option: SocketOption) -> Result<i32, SocketError> {
        self.get_int(option).map_err(|errno| self.unknown(option, errno))
    }

    #[cold]
    fn unknown(&self, option: SocketOption, errno: Errno) -> SocketError {
        SocketError::new(Operation::Get, self.socket_type(), errno).about(option.name)
    }
}
