//! The connections of a broker to its peer, and of a relay to its upstream: the line, what
//! it opens to follow, and where it forwards changes.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{BrokerNode, BrokerOptions};
use crate::clone::kvmsg::{FRAMES, HUGZ, STATUS};
use crate::clone::{Collector, SendFailure};
use crate::node::Endpoints;
use crate::node::port::Port;
use crate::reactor::{Context, Flow, Registry, SocketKey};
use crate::socket::{AnyContext, ContextHandle, Interest, Socket, SocketType};

/// How soon a connection that was refused or lost is tried again: a peer that
/// comes back must not be thought dead for libzmq's own patience.
const RECONNECT: Duration = Duration::from_millis(20);

/// What a frame with many changes may have on top of the largest of them.
const MAX_STREAMED: u64 = 128 << 10;

/// Messages of the line that may wait.
const LINE_HWM: u32 = 1000;

/// Where the peer is, or each server that can be the upstream, and what is open to it.
pub(super) struct PeerPorts {
    endpoints: Vec<Endpoints>,
    /// Which of them it is.
    server: usize,
    has_line: bool,
    context: ContextHandle,
    updates_hwm: u32,
    changes_hwm: u32,
    max_frame: u64,
    line: Option<SocketKey>,
    follow: Option<SocketKey>,
    sync: Option<SocketKey>,
    forward: Option<SocketKey>,
    /// The topic of the heartbeats that are followed.
    heartbeats: Vec<u8>,
    pub(super) wanted: Wanted,
}

/// What the SUB is to be.
#[derive(Debug)]
pub(super) enum FollowWanted {
    Closed,
    /// At this server.
    Upstream {
        server: usize,
        subtree: Vec<u8>,
    },
}

/// What the machine wants opened or closed. It is done when the machine has
/// returned, since only then the loop's handlers can be made.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) follow: Option<FollowWanted>,
    /// A heartbeat at once.
    pub(super) heartbeat: bool,
    /// A new socket for changes.
    pub(super) forward: Option<Collector>,
    pub(super) sync: bool,
    /// What is to be sent on the new DEALER.
    pub(super) request: Option<Vec<Vec<u8>>>,
}

impl Wanted {
    pub(super) fn is_nothing(&self) -> bool {
        let has_sockets = self.follow.is_none() && self.forward.is_none() && !self.sync;
        has_sockets && !self.heartbeat && self.request.is_none()
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
        endpoints: Vec<Endpoints>,
        options: &BrokerOptions,
    ) -> PeerPorts {
        let max_frame = options.config.limits.max_value.saturating_mul(2).max(64 * 1024);
        PeerPorts {
            endpoints,
            server: 0,
            has_line: options.follow.is_none(),
            context: context.handle(),
            updates_hwm: options.updates_hwm,
            changes_hwm: options.changes_hwm,
            max_frame: max_frame as u64,
            line: None,
            follow: None,
            sync: None,
            forward: None,
            heartbeats: Vec::new(),
            wanted: Wanted::default(),
        }
    }

    /// Those of the peer, or of the server that is the upstream.
    fn endpoints(&self) -> &Endpoints {
        &self.endpoints[self.server]
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
        let all = [self.line.take(), self.follow.take(), self.sync.take(), self.forward.take()];
        all.into_iter().flatten()
    }

    fn open_line<S: 'static, F>(&mut self, registry: &mut Registry<S>, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let line = Socket::builder(SocketType::Dealer)
            // Nothing may wait for a peer that is not there.
            .immediate(true)
            .send_hwm(LINE_HWM)
            // Changes come many in a frame.
            .max_message_size(self.max_frame + MAX_STREAMED)
            .reconnect_interval(RECONNECT)
            .linger(Duration::ZERO)
            .connect(&self.endpoints().snapshots)
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
        subtree: &[u8],
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let socket = Socket::builder(SocketType::Sub)
            .receive_hwm(self.updates_hwm)
            .max_message_size(self.max_frame)
            .reconnect_interval(RECONNECT)
            .linger(Duration::ZERO)
            .build(&self.context)?;
        self.heartbeats = [HUGZ, subtree].concat();
        // The heartbeat that answers the second proves the first.
        socket.subscribe(subtree)?;
        socket.subscribe(&self.heartbeats)?;
        socket.subscribe(STATUS)?;
        socket.connect(&self.endpoints().updates)?;
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
            .connect(&self.endpoints().snapshots)
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

    /// Opens the socket for changes at the upstream.
    fn open_forward<S: 'static, F>(
        &mut self,
        registry: &mut Registry<S>,
        project: F,
        collector: Collector,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let socket_type = match collector {
            Collector::Pull => SocketType::Push,
            Collector::Sub => SocketType::Pub,
        };
        let socket = Socket::builder(socket_type)
            .send_hwm(self.changes_hwm)
            // Nothing may wait in it for an upstream that is not there.
            .immediate(true)
            .reconnect_interval(RECONNECT)
            .linger(Duration::from_secs(1))
            .connect(&self.endpoints().changes)
            .build(&self.context)?;
        let key = registry.on_ready(socket, None, move |state: &mut S, cx, _| {
            let now = cx.now();
            let node = project(state);
            if let Some(key) = node.ports.and_then(|ports| ports.forward) {
                // Only until it is full again.
                let _ = cx.set_interest(key, None);
            }
            node.with_outbox(cx, |machine, out| machine.handle_forward_room(now, out));
            node.after_peer(cx, project)
        })?;
        self.forward = Some(key);
        Ok(())
    }

    /// Opens and closes what the machine wants.
    fn settle<S: 'static, F>(&mut self, registry: &mut Registry<S>, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let wanted = std::mem::take(&mut self.wanted);
        if let Some(follow) = wanted.follow {
            close(registry, self.follow.take());
            match follow {
                FollowWanted::Closed => {}
                FollowWanted::Upstream { server, subtree } => {
                    self.server = server.min(self.endpoints.len() - 1);
                    self.open_follow(registry, project, &subtree)?;
                }
            }
        }
        if let (true, Some(Ok(socket))) =
            (wanted.heartbeat, self.follow.map(|key| registry.socket(key)))
        {
            // Only what is new is told to the other end.
            socket.unsubscribe(&self.heartbeats)?;
            socket.subscribe(&self.heartbeats)?;
        }
        if let Some(collector) = wanted.forward {
            close(registry, self.forward.take());
            self.open_forward(registry, project, collector)?;
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
            Some(peer) if peer.has_line => peer.open_line(registry, project),
            _ => Ok(()),
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
                    log::error!("no socket to the peer or upstream: {error}");
                }
                let forward = peer.forward;
                if let Some(ports) = &mut self.ports {
                    ports.forward = forward;
                }
                if forward.is_some() {
                    // Changes may have waited for it.
                    let now = cx.now();
                    self.with_outbox(cx, |machine, out| machine.handle_forward_room(now, out));
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

/// Sends a change to a relay's upstream. If it has to wait, the machine is told when
/// there is room.
pub(super) fn forward<S>(
    registry: &mut Registry<S>,
    key: Option<SocketKey>,
    frames: &[&[u8]; FRAMES],
) -> Result<(), SendFailure> {
    let key = key.ok_or(SendFailure::Unreachable)?;
    let socket = registry.socket(key).map_err(|_| SendFailure::Unreachable)?;
    let sent = Port::send(socket, frames);
    if sent == Err(SendFailure::WouldBlock) {
        let _ = registry.set_interest(key, Interest::WRITABLE);
    }
    sent
}
