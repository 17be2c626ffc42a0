//! [`Outbox`]: what the machine sends, and the sockets that it has opened.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{ClientOptions, Ports};
use crate::clone::client::ClientOutbox;
use crate::clone::{Collector, SendFailure};
use crate::node::Endpoints;
use crate::node::port::Port;
use crate::reactor::{Registry, SocketKey};
use crate::socket::{ContextHandle, Interest, Socket, SocketType};

/// The machine's messages go straight into the sockets.
pub(super) struct Outbox<'a, S> {
    pub(super) registry: &'a mut Registry<S>,
    pub(super) ports: &'a mut Ports<S>,
    pub(super) context: &'a ContextHandle,
    pub(super) endpoints: &'a [Endpoints],
    pub(super) options: &'a ClientOptions,
}

impl<S: 'static> Outbox<'_, S> {
    /// A send on a socket that the machine asked to open.
    fn send(&mut self, key: Option<SocketKey>, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let key = key.ok_or(SendFailure::Unreachable)?;
        let port = self.registry.socket(key).map_err(|_| SendFailure::Unreachable)?;
        Port::send(port, frames)
    }

    /// The endpoints of the server that the client is at.
    fn server(&self) -> &Endpoints {
        &self.endpoints[self.ports.server]
    }

    pub(super) fn replace_updates(&mut self) -> io::Result<()> {
        if let Some(old) = self.ports.updates.take() {
            drop(self.registry.remove(old));
        }
        let socket = Socket::builder(SocketType::Sub)
            .receive_hwm(self.options.updates_hwm)
            .linger(Duration::ZERO)
            .connect(&self.server().updates)
            .build(self.context)?;
        let handlers = Rc::clone(&self.ports.handlers);
        let key = self.registry.on_message(socket, move |state: &mut S, cx, message| {
            (handlers.updates)(state, cx, message)
        })?;
        if self.ports.paused {
            self.registry.set_interest(key, None)?;
        }
        self.ports.updates = Some(key);
        Ok(())
    }

    fn replace_requests(&mut self) -> io::Result<()> {
        if let Some(old) = self.ports.requests.take() {
            drop(self.registry.remove(old));
        }
        let socket = Socket::builder(SocketType::Dealer)
            // Servers of RFC 12 send a snapshot in one go, and their ROUTER drops what
            // does not fit: whatever comes must be taken off the wire at once.
            .receive_hwm(0)
            .linger(Duration::ZERO)
            .connect(&self.server().snapshots)
            .build(self.context)?;
        let handlers = Rc::clone(&self.ports.handlers);
        let key = self.registry.on_message(socket, move |state: &mut S, cx, message| {
            (handlers.requests)(state, cx, message)
        })?;
        if self.ports.paused {
            self.registry.set_interest(key, None)?;
        }
        self.ports.requests = Some(key);
        Ok(())
    }

    fn open_changes_as_before(&mut self, collector: Collector) {
        self.ports.collector = Some(collector);
        if let Err(error) = self.replace_changes(collector) {
            log::error!("no socket for changes: {error}");
        }
    }

    /// Opens the socket for changes, of the kind and to the servers asked for.
    fn replace_changes(&mut self, collector: Collector) -> io::Result<()> {
        if let Some(old) = self.ports.changes.take() {
            drop(self.registry.remove(old));
        }
        let socket_type = match collector {
            Collector::Pull => SocketType::Push,
            Collector::Sub => SocketType::Pub,
        };
        let mut socket = Socket::builder(socket_type)
            .send_hwm(self.options.changes_hwm)
            .immediate(true)
            .linger(Duration::from_secs(1));
        let all = match self.ports.reaches_all {
            true => self.endpoints,
            false => std::slice::from_ref(self.server()),
        };
        for endpoints in all {
            socket = socket.connect(&endpoints.changes);
        }
        let socket = socket.build(self.context)?;
        let handlers = Rc::clone(&self.ports.handlers);
        let key = self
            .registry
            .on_ready(socket, None, move |state: &mut S, cx, _| (handlers.writable)(state, cx))?;
        self.ports.awaiting_room = false;
        self.ports.changes = Some(key);
        Ok(())
    }
}

/// A subscription that libzmq 4.3.4 can send: one of 246 to 255 bytes it writes
/// with a length that its flags belie, and the connection is lost (`v3_1_encoder_t`).
/// A shorter one brings more than was asked for, which the client ignores.
fn subscribable(topic: &[u8]) -> &[u8] {
    const GARBLED: std::ops::RangeInclusive<usize> = 246..=255;
    match GARBLED.contains(&topic.len()) {
        true => &topic[..GARBLED.start() - 1],
        false => topic,
    }
}

impl<S: 'static> ClientOutbox for Outbox<'_, S> {
    fn subscribe(&mut self, topic: &[u8]) {
        if let Some(Ok(socket)) = self.ports.updates.map(|key| self.registry.socket(key))
            && let Err(error) = socket.subscribe(subscribable(topic))
        {
            log::error!("{error}");
        }
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        if let Some(Ok(socket)) = self.ports.updates.map(|key| self.registry.socket(key))
            && let Err(error) = socket.unsubscribe(subscribable(topic))
        {
            log::error!("{error}");
        }
    }

    fn open_requests(&mut self) {
        if let Err(error) = self.replace_requests() {
            log::error!("no socket for requests: {error}");
        }
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.send(self.ports.requests, frames)
    }

    fn open_changes(&mut self, collector: Collector) {
        self.ports.reaches_all = false;
        self.open_changes_as_before(collector);
    }

    fn open_changes_to_all(&mut self, collector: Collector) {
        self.ports.reaches_all = true;
        self.open_changes_as_before(collector);
    }

    fn turn_to(&mut self, server: usize) {
        self.ports.server = server;
        if let Some(old) = self.ports.requests.take() {
            drop(self.registry.remove(old));
        }
        if !self.ports.reaches_all {
            self.ports.collector = None;
            if let Some(old) = self.ports.changes.take() {
                drop(self.registry.remove(old));
            }
        }
        // Without it nothing is heard there, and the machine turns to the next.
        if let Err(error) = self.replace_updates() {
            log::error!("no socket for updates: {error}");
        }
    }

    fn change(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        if let (None, Some(collector)) = (self.ports.changes, self.ports.collector) {
            // There was none to be had (no descriptors left): perhaps now.
            self.open_changes_as_before(collector);
        }
        let sent = self.send(self.ports.changes, frames);
        if let (Err(SendFailure::WouldBlock), false, Some(key)) =
            (sent, self.ports.awaiting_room, self.ports.changes)
        {
            // Only now: asking for writability before would wake the loop for nothing.
            self.ports.awaiting_room = true;
            let _ = self.registry.set_interest(key, Interest::WRITABLE);
        }
        sent
    }
}
