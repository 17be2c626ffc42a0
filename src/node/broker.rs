//! [`BrokerNode`]: a broker on a loop, with its three sockets and its timer.

mod options;
mod outbox;
mod peer;
mod sockets;

use std::io;
use std::time::Duration;

pub use self::options::BrokerOptions;
use self::options::{check_start, upstreams};
use self::outbox::{AtWork, Outbox};
use self::peer::PeerPorts;
use self::sockets::Sockets;
use super::Endpoints;
use super::burst::Burst;
use crate::clone::Sequence;
use crate::clone::broker::Broker;
use crate::clone::pair::{Role, RoleRefusal};
use crate::message::Message;
use crate::reactor::{Context, Flow, Key, Registry, SocketKey, TimerKey};
use crate::socket::{AnyContext, Interest};
use crate::time::Time;

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

impl BrokerNode {
    /// Binds the three ports. `endpoint` is the first: `tcp://HOST:PORT`,
    /// `ipc://PATH` or `inproc://NAME`; `tcp://HOST:*` looks for three free
    /// neighbours, see [`endpoints`](BrokerNode::endpoints).
    ///
    /// Best in a context with
    /// [`zero_copy_receive`](crate::socket::ContextBuilder::zero_copy_receive) off, as that of
    /// `pollux broker` is: changes then come in memory of their own. Else the broker copies
    /// frames of 34 to 1,023 bytes, lest one that waits for a slow subscriber keep 8 KiB, and
    /// its thread takes a seventh more time for an update of 64 bytes, half as much again for
    /// one of 800.
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
        let burst = Burst::new(context, &endpoints.changes);
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
        let Some(ports) = self.ports else { return Ok(Flow::Continue) };
        let ahead = self.machine.prefetch_count();
        let result = loop {
            let received = match cx.socket(ports.changes) {
                Ok(changes) => self.burst.receive(changes, ahead).map_err(io::Error::from),
                Err(error) => break Err(error.into()),
            };
            if ahead > 1 {
                self.machine.prefetch(self.burst.keys_ahead());
            }
            while self.on_change(cx, ports) {}
            match received {
                Ok(true) => {}
                Ok(false) => break Ok(Flow::Continue),
                Err(error) => break Err(error),
            }
        };
        match cx.socket(ports.updates) {
            Ok(updates) => {
                self.burst.flush(updates, |error| self.machine.handle_unpublished(&error));
            }
            Err(error) => {
                for _ in 0..self.burst.waiting() {
                    self.machine.handle_unpublished(&error);
                }
            }
        }
        self.burst.clear();
        self.set_timer(cx);
        result
    }

    /// Handles the next change of those received; false if there is none.
    fn on_change<S>(&mut self, cx: &mut Context<'_, S>, ports: Ports) -> bool {
        let now = cx.now();
        let Some((frames, waiting)) = self.burst.next_change() else { return false };
        let change = Message::new(&frames);
        let at_work = Some(AtWork { change, forward: None, waiting });
        let mut out = Outbox { registry: cx, ports, at_work, unpublished: 0, wanted: None };
        self.machine.handle_change(now, change, &mut out);
        let (forward, unpublished) = (out.forward(), out.unpublished);
        drop(frames);
        for _ in 0..unpublished {
            self.machine.handle_unpublished(&"the socket for updates is gone");
        }
        self.burst.push(forward);
        true
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
