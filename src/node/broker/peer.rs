//! The connections of a broker to its peer: the line, and what it opens to follow.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{BrokerNode, BrokerOptions};
use crate::clone::SendFailure;
use crate::node::Endpoints;
use crate::node::port::Port;
use crate::reactor::{Context, Flow, Registry, SocketKey};
use crate::socket::{AnyContext, ContextHandle, Socket, SocketType};

/// How soon a connection that was refused or lost is tried again: a peer that
/// comes back must not be thought dead for libzmq's own patience.
const RECONNECT: Duration = Duration::from_millis(20);

/// Messages of the line that may wait.
const LINE_HWM: u32 = 1000;

/// Where the peer is, and what is open to it.
pub(super) struct PeerPorts {
    endpoints: Endpoints,
    context: ContextHandle,
    updates_hwm: u32,
    max_frame: u64,
    line: Option<SocketKey>,
    follow: Option<SocketKey>,
    sync: Option<SocketKey>,
    pub(super) wanted: Wanted,
}

/// What the machine wants opened or closed. It is done when the machine has
/// returned, since only then the loop's handlers can be made.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// A new SUB (true), or none.
    pub(super) follow: Option<bool>,
    pub(super) sync: bool,
    /// What is to be sent on the new DEALER.
    pub(super) request: Option<Vec<Vec<u8>>>,
}

impl Wanted {
    pub(super) fn is_nothing(&self) -> bool {
        self.follow.is_none() && !self.sync && self.request.is_none()
    }
}

impl fmt::Debug for PeerPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPorts")
            .field("endpoints", &self.endpoints)
            .field("line", &self.line)
            .field("follow", &self.follow)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

impl PeerPorts {
    pub(super) fn new(
        context: &impl AnyContext,
        endpoint: &str,
        options: &BrokerOptions,
    ) -> io::Result<PeerPorts> {
        let max_frame = options.config.limits.max_value.saturating_mul(2).max(64 * 1024);
        Ok(PeerPorts {
            endpoints: Endpoints::from_first(endpoint)?,
            context: context.handle(),
            updates_hwm: options.updates_hwm,
            max_frame: max_frame as u64,
            line: None,
            follow: None,
            sync: None,
            wanted: Wanted::default(),
        })
    }

    /// Whether something is to be opened or closed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.wanted.is_nothing()
    }

    pub(super) fn line(&self) -> Option<SocketKey> {
        self.line
    }

    /// All sockets that are open, to be closed.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = SocketKey> {
        [self.line.take(), self.follow.take(), self.sync.take()].into_iter().flatten()
    }

    fn open_line<S: 'static, F>(&mut self, registry: &mut Registry<S>, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let line = Socket::builder(SocketType::Dealer)
            // Nothing may wait for a peer that is not there.
            .immediate(true)
            .send_hwm(LINE_HWM)
            .max_message_size(self.max_frame)
            .reconnect_interval(RECONNECT)
            .linger(Duration::ZERO)
            .connect(&self.endpoints.snapshots)
            .build(&self.context)?;
        let line = registry.on_message(line, move |state: &mut S, cx, message| {
            let now = cx.now();
            let node = project(state);
            node.with_outbox(cx, |machine, out| machine.handle_peer(now, message, out));
            node.after_peer(cx, project)
        })?;
        self.line = Some(line);
        Ok(())
    }

    fn open_follow<S: 'static, F>(
        &mut self,
        registry: &mut Registry<S>,
        project: F,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let socket = Socket::builder(SocketType::Sub)
            .receive_hwm(self.updates_hwm)
            .max_message_size(self.max_frame)
            .reconnect_interval(RECONNECT)
            .linger(Duration::ZERO)
            // The heartbeat that answers the second proves the first.
            .subscribe("")
            .subscribe("HUGZ")
            .connect(&self.endpoints.updates)
            .build(&self.context)?;
        let key = registry.on_message(socket, move |state: &mut S, cx, message| {
            let now = cx.now();
            let node = project(state);
            node.with_outbox(cx, |machine, out| machine.handle_peer_update(now, message, out));
            node.after_peer(cx, project)
        })?;
        self.follow = Some(key);
        Ok(())
    }

    fn open_sync<S: 'static, F>(&mut self, registry: &mut Registry<S>, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let socket = Socket::builder(SocketType::Dealer)
            .max_message_size(self.max_frame)
            .reconnect_interval(RECONNECT)
            .linger(Duration::ZERO)
            .connect(&self.endpoints.snapshots)
            .build(&self.context)?;
        let key = registry.on_message(socket, move |state: &mut S, cx, message| {
            let now = cx.now();
            let node = project(state);
            node.with_outbox(cx, |machine, out| machine.handle_peer_snapshot(now, message, out));
            node.after_peer(cx, project)
        })?;
        self.sync = Some(key);
        Ok(())
    }

    /// Opens and closes what the machine wants.
    fn settle<S: 'static, F>(&mut self, registry: &mut Registry<S>, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let wanted = std::mem::take(&mut self.wanted);
        if let Some(open) = wanted.follow {
            close(registry, self.follow.take());
            if open {
                self.open_follow(registry, project)?;
            }
        }
        if wanted.sync {
            close(registry, self.sync.take());
            self.open_sync(registry, project)?;
        }
        if let (Some(request), Some(key)) = (wanted.request, self.sync) {
            let frames: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let sent = registry.socket(key).map(|socket| Port::send(socket, &frames));
            if !matches!(sent, Ok(Ok(()))) {
                log::warn!("the request to the peer was not sent; it is tried again");
            }
        }
        Ok(())
    }
}

fn close<S>(registry: &mut Registry<S>, key: Option<SocketKey>) {
    // Gone already if the context has ended.
    drop(key.map(|key| registry.remove(key)));
}

impl BrokerNode {
    /// Opens the line to the peer, if there is to be one.
    pub(super) fn attach_peer<S: 'static, F>(
        registry: &mut Registry<S>,
        state: &mut S,
        project: F,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        match &mut project(state).peer {
            Some(peer) => peer.open_line(registry, project),
            None => Ok(()),
        }
    }

    /// What is left to do after an input that concerns the peer.
    pub(super) fn after_peer<S: 'static, F>(
        &mut self,
        cx: &mut Context<'_, S>,
        project: F,
    ) -> io::Result<Flow>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        match &mut self.peer {
            // It may have gone off the loop just now, with its peer's sockets.
            Some(peer) if self.ports.is_some() && !peer.wanted.is_nothing() => {
                // Without descriptors there is no standby for the moment, but still
                // a broker: the machine asks again.
                if let Err(error) = peer.settle(cx, project) {
                    log::error!("no socket to the peer: {error}");
                }
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }
}

/// Sends on the line.
pub(super) fn tell<S>(
    registry: &Registry<S>,
    line: Option<SocketKey>,
    frames: &[&[u8]],
) -> Result<(), SendFailure> {
    let socket = line.and_then(|line| registry.socket(line).ok());
    Port::send(socket.ok_or(SendFailure::Unreachable)?, frames)
}
