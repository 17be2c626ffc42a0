//! [`BrokerNode`]: a broker on a loop, with its three sockets and its timer.

mod peer;

use std::io;
use std::time::Duration;

use self::peer::{FollowWanted, PeerPorts, Wanted};
use super::Endpoints;
use super::burst::{Burst, Waiting};
use super::port::Port;
use crate::clone::SendFailure;
use crate::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use crate::clone::kvmsg::FRAMES;
use crate::clone::pair::{Role, RoleRefusal};
use crate::clone::relay::RelayConfig;
use crate::clone::{Collector, Sequence};
use crate::message::Message;
use crate::reactor::{Context, Flow, Key, Registry, SocketKey, TimerKey};
use crate::socket::{AnyContext, Errno, Interest, Slices, Socket, SocketType};
use crate::time::Time;

/// What a [`BrokerNode`] is made with, beyond its machine's [`BrokerConfig`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BrokerOptions {
    /// The machine's configuration. `node` and `start` are new with each
    /// process unless set.
    pub config: BrokerConfig,
    /// Messages kept for a subscriber that is slow to read, before it misses
    /// some, notices, and resynchronises. Default 100,000. The limit counts
    /// messages, not bytes: what is kept for all slow subscribers together is shared,
    /// so it costs at most about this many values. With large values set it lower.
    pub updates_hwm: u32,
    /// Messages of a snapshot in flight for one client. Default 4,096. Messages, not
    /// bytes: a client that does not read holds so many values for up to
    /// [`stall`](crate::clone::broker::SnapshotLimits::stall), or until it
    /// disconnects. With large values set it lower.
    pub snapshot_hwm: u32,
    /// Changes that may wait to be read from one sender, who is then held
    /// back. Default 10,000.
    pub changes_hwm: u32,
    /// Where the peer is, the first of its ports; needed if the configuration
    /// has a [`pair`](BrokerConfig::pair). Default `None`.
    pub peer: Option<String>,
    /// Makes it a relay, which follows one of these [servers](RelayConfig::servers), each
    /// named by the first of its ports, in place of a broker with a history of its own.
    /// Default `None`.
    pub follow: Option<RelayConfig>,
}

impl Default for BrokerOptions {
    /// A broker with a name of its own, whose sequences begin above those of
    /// any earlier run (the clock of the machine tells).
    fn default() -> BrokerOptions {
        BrokerOptions {
            config: BrokerConfig::new(super::random_u64(), Sequence::at_start(super::unix_time())),
            updates_hwm: 100_000,
            snapshot_hwm: 4096,
            changes_hwm: 10_000,
            peer: None,
            follow: None,
        }
    }
}

/// A [`Broker`] that lives on a reactor: a field of the application's state.
///
/// ```
/// use pollux::node::{BrokerNode, BrokerOptions};
/// use pollux::Reactor;
///
/// struct App {
///     broker: BrokerNode,
/// }
///
/// let context = zmq::Context::new();
/// let mut reactor = Reactor::new()?;
/// let broker = BrokerNode::bind(&context, "inproc://doc-broker", BrokerOptions::default())?;
/// let mut app = App { broker };
/// BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker)?;
/// reactor.turn(&mut app, std::time::Duration::ZERO)?;
/// assert_eq!(app.broker.machine().store().len(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BrokerNode {
    machine: Broker,
    endpoints: Endpoints,
    sockets: Option<Sockets>,
    ports: Option<Ports>,
    /// The connections to the peer.
    peer: Option<PeerPorts>,
    burst: Burst,
}

#[derive(Debug)]
struct Sockets {
    snapshots: Socket,
    updates: Socket,
    changes: Socket,
}

/// Where the sockets are once the loop has them.
#[derive(Debug, Clone, Copy)]
struct Ports {
    snapshots: SocketKey,
    updates: SocketKey,
    changes: SocketKey,
    timer: TimerKey,
    /// Calls the application's handler for changes of the role.
    roles: TimerKey,
    /// The line to the peer.
    line: Option<SocketKey>,
    /// The socket for changes at a relay's upstream.
    forward: Option<SocketKey>,
    /// What the timer is set to.
    armed: Time,
}

/// Changes handled in one turn, before others have theirs.
const CHANGES_AT_ONCE: usize = 64;

/// Connections that may wait to be accepted, as far as the system lets them
/// (`net.core.somaxconn`). With libzmq's 100, of thousands of clients that join at once
/// many would try again only after seconds.
const BACKLOG: u32 = 4096;

/// Bytes of a frame that a subscriber may send; the longest topic is `HUGZ` and a key.
const MAX_SUBSCRIPTION: u64 = 128 * 1024;

/// The longest subtree that can be followed: subscriptions longer than 245 bytes do not
/// reach libzmq's other end, and that to its heartbeat has four more.
const MAX_RELAYED: usize = 240;

/// How often neighbouring ports are tried for a wildcard.
const WILDCARD_TRIES: usize = 64;

impl BrokerNode {
    /// Binds the three ports. `endpoint` is the first: `tcp://HOST:PORT`,
    /// `ipc://PATH` or `inproc://NAME`; `tcp://HOST:*` looks for three free
    /// neighbours, see [`endpoints`](BrokerNode::endpoints).
    ///
    /// # Errors
    /// An endpoint that cannot be used or is taken; the text names it and the
    /// remedy. Only one of `peer` and `config.pair`, or both and `follow`. A relay that
    /// follows itself, nobody, or a subtree longer than 240 bytes. A `start` above which there
    /// is no sequence left.
    pub fn bind(
        context: &impl AnyContext,
        endpoint: &str,
        options: BrokerOptions,
    ) -> io::Result<BrokerNode> {
        check_start(options.config.start)?;
        let peer = match (&options.peer, options.config.pair, &options.follow) {
            (Some(peer), Some(_), None) => {
                let peer = vec![Endpoints::from_first(peer)?];
                Some(PeerPorts::new(context, peer, &options))
            }
            (None, None, Some(relay)) => {
                Some(PeerPorts::new(context, upstreams(endpoint, relay)?, &options))
            }
            (None, None, None) => None,
            (_, _, Some(_)) => {
                let problem = "a relay cannot be one of a pair: expected `follow` or `peer`";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
            _ => {
                let problem =
                    "a pair: expected both `peer`, the other's endpoint, and `config.pair`";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let (sockets, endpoints) = match endpoint.strip_suffix(":*") {
            Some(host) => Sockets::bind_neighbours(context, host, &options)?,
            None => {
                let endpoints = Endpoints::from_first(endpoint)?;
                (Sockets::bind(context, &endpoints, &options)?, endpoints)
            }
        };
        let machine = match options.follow {
            None => Broker::new(options.config, Time::ZERO),
            Some(relay) => Broker::relay(options.config, relay, Time::ZERO),
        };
        let burst = Burst::new(&endpoints.changes);
        Ok(BrokerNode { machine, endpoints, sockets: Some(sockets), ports: None, peer, burst })
    }

    /// Hands the sockets to the loop. `project` leads from the application's
    /// state to this node. If the loop removes one of them (the context ended), the
    /// others and the timer go within a heartbeat, as by [`detach`](BrokerNode::detach).
    ///
    /// # Errors
    /// If the node is or was attached to a loop, or the loop cannot take a socket: then all
    /// of them are closed, and it is over with this node.
    pub fn attach<S: 'static, F>(
        registry: &mut Registry<S>,
        state: &mut S,
        project: F,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        BrokerNode::attach_with(registry, state, project, |_, _, _| Ok(Flow::Continue))
    }

    /// The same, with a handler for each change of its [role](Broker::role) as one
    /// of a pair: the role and the epoch. A handler that fails, or says
    /// [`Flow::Remove`], is not called any more; the broker goes on.
    ///
    /// # Errors
    /// As [`attach`](BrokerNode::attach).
    pub fn attach_with<S: 'static, F, H>(
        registry: &mut Registry<S>,
        state: &mut S,
        project: F,
        mut on_role: H,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
        H: FnMut(&mut S, &mut Context<'_, S>, (Role, u32)) -> io::Result<Flow> + 'static,
    {
        // First of all: what a node that is attached already has on its loop stays there.
        let sockets = project(state).sockets.take().ok_or_else(|| {
            io::Error::other("broker: it was attached to a loop before; make a new one")
        })?;
        let roles = registry.add_standing_timer(move |state: &mut S, cx| {
            match project(state).machine.poll_role() {
                Some(change) => on_role(state, cx, change),
                None => Ok(Flow::Continue),
            }
        });
        let mut added: Vec<Key> = vec![roles.into()];
        let result =
            BrokerNode::attach_ports(registry, state, project, (sockets, roles), &mut added);
        if result.is_err() {
            added.extend(
                project(state).peer.iter_mut().flat_map(PeerPorts::take_all).map(Key::from),
            );
            for key in added {
                // A socket that the loop has removed meanwhile is closed already.
                let _ = registry.discard(key);
            }
        }
        result
    }

    /// What it hands to the loop it adds to `added`.
    fn attach_ports<S: 'static, F>(
        registry: &mut Registry<S>,
        state: &mut S,
        project: F,
        (sockets, roles): (Sockets, TimerKey),
        added: &mut Vec<Key>,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut BrokerNode + Copy + 'static,
    {
        let now = registry.now();
        let snapshots = registry
            .on_message(sockets.snapshots, move |state: &mut S, cx, message| {
                project(state).on_request(cx, message)
            })?;
        added.push(snapshots.into());
        let updates = registry.on_message(sockets.updates, move |state: &mut S, cx, message| {
            project(state).on_subscription(cx, message)
        })?;
        added.push(updates.into());
        let changes = registry.on_ready(
            sockets.changes,
            Interest::READABLE,
            move |state: &mut S, cx, _| project(state).on_changes(cx),
        )?;
        added.push(changes.into());
        let timer = registry.add_standing_timer(move |state: &mut S, cx| {
            project(state).on_timer(cx)?;
            project(state).after_peer(cx, project)?;
            Ok(Flow::Continue)
        });
        added.push(timer.into());
        registry.rearm(timer, now)?;
        BrokerNode::attach_peer(registry, state, project)?;
        let node = project(state);
        let line = node.peer.as_ref().and_then(PeerPorts::line);
        let (forward, armed) = (None, now);
        let ports = Ports { snapshots, updates, changes, timer, roles, line, forward, armed };
        node.ports = Some(ports);
        Ok(())
    }

    /// Takes the sockets off the loop and closes them.
    pub fn detach<S>(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = self.ports.take() else { return };
        for key in [ports.snapshots, ports.updates, ports.changes] {
            drop(registry.remove(key));
        }
        for key in self.peer.iter_mut().flat_map(PeerPorts::take_all) {
            drop(registry.remove(key));
        }
        let _ = registry.cancel(ports.timer);
        let _ = registry.cancel(ports.roles);
    }

    /// Whether it is on a loop: before [`attach`](BrokerNode::attach) and after
    /// [`detach`](BrokerNode::detach) it is not.
    pub fn is_attached(&self) -> bool {
        self.ports.is_some()
    }

    /// Removes the socket for changes behind the node's back, as the loop does
    /// when the context ends.
    #[cfg(test)]
    pub(super) fn lose_changes<S>(&self, registry: &mut Registry<S>) {
        let key = self.ports.map(|ports| ports.changes);
        drop(key.and_then(|key| registry.remove(key).ok()).expect("a socket for changes"));
    }

    /// The connection to the peer.
    #[cfg(test)]
    pub(super) fn line(&self) -> Option<SocketKey> {
        self.ports.and_then(|ports| ports.line)
    }

    /// Detaches what is left if the loop has removed a socket.
    fn detach_if_torn<S>(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = self.ports else { return };
        let sockets = [ports.snapshots, ports.updates, ports.changes];
        if !sockets.into_iter().all(|key| registry.contains(key)) {
            let endpoint = &self.endpoints.snapshots;
            log::error!("broker at {endpoint}: off the loop, which removed a socket of it");
            self.detach(registry);
        }
    }

    /// The endpoints bound, the first of which is what clients connect to.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The state machine: its state, limits and counts.
    pub fn machine(&self) -> &Broker {
        &self.machine
    }

    /// Sets a key from within the process.
    ///
    /// # Errors
    /// `InvalidInput` with the limit that refuses it; `NotConnected` before
    /// [`attach`](BrokerNode::attach).
    pub fn set<S>(
        &mut self,
        registry: &mut Registry<S>,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> io::Result<Sequence> {
        let now = registry.now();
        let set = self.with_outbox(registry, |machine, out| machine.set(now, key, value, ttl, out));
        set.ok_or(io::ErrorKind::NotConnected)?
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))
    }

    /// Deletes a key from within the process. False: it was not there.
    ///
    /// # Errors
    /// `NotConnected` before [`attach`](BrokerNode::attach).
    pub fn delete<S>(&mut self, registry: &mut Registry<S>, key: &[u8]) -> io::Result<bool> {
        let now = registry.now();
        let deleted = self.with_outbox(registry, |machine, out| machine.delete(now, key, out));
        Ok(deleted.ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Makes it the active of its pair: at once if the peer is silent, else by a
    /// planned handover that takes a moment. Gives the role it has now.
    ///
    /// # Errors
    /// It is not one of a pair, or not on a loop, or lacks the state to serve.
    pub fn promote<S>(&mut self, registry: &mut Registry<S>) -> Result<Role, RoleRefusal> {
        let now = registry.now();
        let promoted = self.with_outbox(registry, |machine, out| machine.promote(now, out));
        promoted.unwrap_or(Err(RoleRefusal::NoPair))
    }

    /// Hands over to the live standby. Gives the role it has now.
    ///
    /// # Errors
    /// It is not one of a pair, or not on a loop, or has no standby.
    pub fn demote<S>(&mut self, registry: &mut Registry<S>) -> Result<Role, RoleRefusal> {
        let now = registry.now();
        let demoted = self.with_outbox(registry, |machine, out| machine.demote(now, out));
        demoted.unwrap_or(Err(RoleRefusal::NoPair))
    }

    fn on_request<S>(&mut self, cx: &mut Context<'_, S>, message: Message<'_>) -> io::Result<Flow> {
        if let Some(peer) = message.get(0) {
            self.with_outbox(cx, |machine, out| {
                machine.handle_request(peer, message.skip(1), out);
            });
        }
        Ok(Flow::Continue)
    }

    fn on_subscription<S>(
        &mut self,
        cx: &mut Context<'_, S>,
        message: Message<'_>,
    ) -> io::Result<Flow> {
        let now = cx.now();
        self.with_outbox(cx, |machine, _| machine.handle_subscription(now, message));
        Ok(Flow::Continue)
    }

    /// Takes changes from their socket, as many as a socket may have in one turn.
    ///
    /// Not by `on_message`, which lends the frames only: most changes are published
    /// with the very frames they came in.
    fn on_changes<S>(&mut self, cx: &mut Context<'_, S>) -> io::Result<Flow> {
        let mut result = Ok(Flow::Continue);
        for _ in 0..CHANGES_AT_ONCE {
            match self.on_change(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.publish_waiting(cx);
        self.burst.clear();
        self.set_timer(cx);
        result
    }

    /// Takes one change; false if there is none.
    fn on_change<S>(&mut self, cx: &mut Context<'_, S>) -> io::Result<bool> {
        let Some(ports) = self.ports else { return Ok(false) };
        let now = cx.now();
        let (frames, waiting) = self.burst.split();
        let mut slices = Slices::new();
        match frames.receive(cx.socket(ports.changes)?, &mut slices) {
            Ok(None) => {}
            Ok(Some(frame)) => slices.push(frame),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let change = Message::new(&slices);
        let at_work = Some(AtWork { change, forward: None, waiting });
        let mut out = Outbox { registry: cx, ports, at_work, unpublished: 0, wanted: None };
        self.machine.handle_change(now, change, &mut out);
        let (forward, unpublished) = (out.forward(), out.unpublished);
        drop(slices);
        for _ in 0..unpublished {
            self.machine.handle_unpublished(&"the socket for updates is gone");
        }
        if forward.is_some_and(|sequence| self.burst.push(sequence)) {
            self.publish_waiting(cx);
        }
        Ok(true)
    }

    /// Publishes the changes that wait for others to be published with them.
    fn publish_waiting<S>(&mut self, cx: &mut Context<'_, S>) {
        let BrokerNode { machine, burst, ports, .. } = self;
        if let Some(updates) = ports.and_then(|ports| cx.socket(ports.updates).ok()) {
            burst.flush(updates, |error| machine.handle_unpublished(&error));
        }
    }

    fn on_timer<S>(&mut self, cx: &mut Context<'_, S>) -> io::Result<Flow> {
        let now = cx.now();
        if let Some(ports) = &mut self.ports {
            // It has fired: whatever comes next must be armed anew.
            ports.armed = Time::NEVER;
        }
        self.detach_if_torn(cx);
        self.with_outbox(cx, |machine, out| machine.handle_timeout(now, out));
        Ok(Flow::Continue)
    }

    /// Runs the machine with its sockets at hand, then sets the timer to its
    /// next deadline. `None`: there is no loop yet.
    fn with_outbox<S, R>(
        &mut self,
        registry: &mut Registry<S>,
        act: impl FnOnce(&mut Broker, &mut Outbox<'_, S>) -> R,
    ) -> Option<R> {
        let ports = self.ports?;
        let wanted = self.peer.as_mut().map(|peer| &mut peer.wanted);
        let mut out = Outbox { registry, ports, at_work: None, unpublished: 0, wanted };
        let result = act(&mut self.machine, &mut out);
        self.set_timer(registry);
        Some(result)
    }

    /// Sets the timer to the machine's next deadline.
    fn set_timer<S>(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = &mut self.ports else { return };
        if self.machine.has_role_change() && registry.rearm(ports.roles, Time::ZERO).is_err() {
            // Its handler has failed; nobody else wants to know.
            let _ = self.machine.poll_role();
        }
        let mut next = self.machine.next_deadline().unwrap_or(Time::NEVER);
        if self.peer.as_ref().is_some_and(PeerPorts::is_waiting) {
            // The timer's handler looks after it.
            next = Time::ZERO;
        }
        let is_there = if next == ports.armed {
            registry.contains(ports.timer)
        } else {
            ports.armed = next;
            registry.rearm(ports.timer, next).is_ok()
        };
        if !is_there {
            // Its handler has failed, or the application has cancelled it. A broker that
            // looks alive and is not would be worse than none.
            log::error!("broker at {}: off the loop, its timer is gone", self.endpoints.snapshots);
            self.detach(registry);
        }
    }
}

/// The machine's messages go straight into the sockets, but for a change that is
/// published as it came: that waits until the machine has done with its frames, and
/// for others to be published with it.
struct Outbox<'a, S> {
    registry: &'a mut Registry<S>,
    ports: Ports,
    at_work: Option<AtWork<'a>>,
    /// Changes that could not be published although they had been taken.
    unpublished: u64,
    /// What is to be opened to the peer when the machine has returned.
    wanted: Option<&'a mut Wanted>,
}

/// A change while the machine has it.
struct AtWork<'a> {
    change: Message<'a>,
    /// Its new sequence, if it is to go on in its own frames.
    forward: Option<[u8; 8]>,
    /// Changes before it that are still to be published.
    waiting: Waiting<'a>,
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
    fn forward(&self) -> Option<[u8; 8]> {
        self.at_work.as_ref()?.forward
    }

    /// Sends what waits, for something else is to be sent after it.
    fn flush(&mut self) -> Result<(), SendFailure> {
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

impl Sockets {
    fn bind(
        context: &impl AnyContext,
        endpoints: &Endpoints,
        options: &BrokerOptions,
    ) -> io::Result<Sockets> {
        for endpoint in [&endpoints.snapshots, &endpoints.updates, &endpoints.changes] {
            check_path_is_free(endpoint)?;
        }
        // A whole answer may stay behind for a client that is slow to read it;
        // a second is what an ending process grants it.
        let linger = Duration::from_secs(1);
        let collector = match options.config.collector {
            Collector::Pull => Socket::builder(SocketType::Pull),
            Collector::Sub => Socket::builder(SocketType::Sub).subscribe(""),
        };
        // Frames over the limit end the connection; the five frames of a change
        // that breaks a limit by less are refused by the machine, with an answer.
        let max_frame = options.config.limits.max_value.saturating_mul(2).max(64 * 1024);
        let max_frame = max_frame as u64;
        Ok(Sockets {
            snapshots: Socket::builder(SocketType::Router)
                .mandatory(true)
                .send_hwm(options.snapshot_hwm)
                .backlog(BACKLOG)
                .max_message_size(max_frame)
                .linger(linger)
                .bind(&endpoints.snapshots)
                .build(context)?,
            updates: Socket::builder(SocketType::XPub)
                .verbose(true)
                .send_hwm(options.updates_hwm)
                .backlog(BACKLOG)
                // Subscriptions are all that comes in.
                .max_message_size(MAX_SUBSCRIPTION)
                .linger(linger)
                .bind(&endpoints.updates)
                .build(context)?,
            changes: collector
                .receive_hwm(options.changes_hwm)
                .backlog(BACKLOG)
                .max_message_size(max_frame)
                .linger(linger)
                .bind(&endpoints.changes)
                .build(context)?,
        })
    }

    /// Looks for three neighbouring ports that are free.
    fn bind_neighbours(
        context: &impl AnyContext,
        transport_and_host: &str,
        options: &BrokerOptions,
    ) -> io::Result<(Sockets, Endpoints)> {
        let mut last = io::Error::other("no three neighbouring ports are free");
        for _ in 0..WILDCARD_TRIES {
            let port = free_port(transport_and_host)?;
            let first = format!("{transport_and_host}:{port}");
            let Ok(endpoints) = Endpoints::from_first(&first) else { continue };
            match Sockets::bind(context, &endpoints, options) {
                Ok(sockets) => return Ok((sockets, endpoints)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Where a relay looks for its upstream.
fn upstreams(own: &str, relay: &RelayConfig) -> io::Result<Vec<Endpoints>> {
    let invalid = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    if relay.servers.is_empty() {
        return invalid("follow: expected an endpoint at least, got none".to_owned());
    }
    if relay.subtree.len() > MAX_RELAYED {
        let length = relay.subtree.len();
        return invalid(format!("subtree: expected at most {MAX_RELAYED} bytes, got {length}"));
    }
    if relay.servers.iter().any(|server| server == own) {
        return invalid(format!("follow: {own} is this relay itself; name the broker to follow"));
    }
    let servers = relay.servers.iter().map(|server| Endpoints::from_first(server));
    Ok(servers.collect::<Result<_, _>>()?)
}

/// Sequences have to rise from one run to the next, by the clock unless the
/// application knows better.
fn check_start(start: Sequence) -> io::Result<()> {
    if start == Sequence::MAX {
        let problem = "start: no sequence lies above it; is the clock set beyond December 2040?";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if start == Sequence::ZERO {
        log::warn!(
            "sequences begin at zero (a clock before 2025 does that): RFC 12 clients that know \
             an earlier run will ignore this one until they are restarted"
        );
    }
    Ok(())
}

/// libzmq removes the socket file that it finds at a path, also if another
/// process listens there, who then is cut off without a word.
fn check_path_is_free(endpoint: &str) -> io::Result<()> {
    let Some(path) = endpoint.strip_prefix("ipc://") else { return Ok(()) };
    // Never blocks: a listener with a full queue would block.
    match mio::net::UnixStream::connect(path) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "bind {endpoint}: Address already in use; choose another path or stop the other \
                 process"
            ),
        )),
    }
}

/// A port that the system says is free at the moment; its neighbours may not be.
fn free_port(transport_and_host: &str) -> io::Result<u16> {
    let host = transport_and_host.strip_prefix("tcp://").unwrap_or(transport_and_host);
    let host = if host == "*" { "0.0.0.0" } else { host };
    let probe = std::net::TcpListener::bind(format!("{host}:0"))
        .map_err(|error| io::Error::new(error.kind(), format!("bind tcp://{host}:*: {error}")))?;
    Ok(probe.local_addr()?.port())
}
