//! [`ClientNode`]: a client on a loop, with its sockets and its timer.

mod outbox;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use self::outbox::Outbox;
use super::Endpoints;
use crate::clone::client::{Client, ClientConfig, Event, SetError};
use crate::clone::{Collector, Uuid};
use crate::message::Message;
use crate::reactor::{Context, Flow, Registry, SocketKey, TimerKey};
use crate::socket::{AnyContext, ContextHandle, Interest, Socket};
use crate::time::Time;

/// What a [`ClientNode`] is made with, beyond its machine's [`ClientConfig`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The machine's configuration: subtrees, limits, patience.
    pub config: ClientConfig,
    /// Updates that may wait to be read, before some are missed, noticed, and
    /// made good by a resynchronisation. Default 100,000.
    pub updates_hwm: u32,
    /// Changes that may wait to be sent; further ones wait in the machine. Default 10,000.
    pub changes_hwm: u32,
}

impl ClientOptions {
    /// The defaults around a machine's configuration.
    pub fn new(config: ClientConfig) -> ClientOptions {
        ClientOptions { config, updates_hwm: 100_000, changes_hwm: 10_000 }
    }
}

/// Events handed out, and keys compared for them, before other sources have their turn.
pub(super) const STEPS_AT_ONCE: usize = 1024;

/// A timer that fires later than this tells of a loop that stood still: what came
/// meanwhile may be on its way from the network yet.
const STOOD_STILL: Duration = Duration::from_millis(100);

/// A [`Client`] that lives on a reactor: a field of the application's state.
///
/// Events go to the handler given to [`attach`](ClientNode::attach), the map is
/// read through [`machine`](ClientNode::machine), changes are made by
/// [`set`](ClientNode::set) and [`delete`](ClientNode::delete).
///
/// Many events at a time, as after a snapshot that changed a million keys, are handed
/// out over several turns of the loop, in which other sources are served, too. Until
/// all are, nothing more is received.
pub struct ClientNode<S> {
    machine: Client,
    context: ContextHandle,
    /// Of each server.
    endpoints: Vec<Endpoints>,
    options: ClientOptions,
    ports: Option<Ports<S>>,
    /// It is, or was, on a loop; its machine starts once.
    started: bool,
}

struct Ports<S> {
    /// The server they lead to.
    server: usize,
    updates: Option<SocketKey>,
    requests: Option<SocketKey>,
    changes: Option<SocketKey>,
    /// The kind of socket for changes that the machine asked for.
    collector: Option<Collector>,
    /// Whether that leads to all servers.
    reaches_all: bool,
    timer: TimerKey,
    /// What the timer is set to.
    armed: Time,
    /// Whether the loop was asked to tell when `changes` takes more.
    awaiting_room: bool,
    /// Nothing is received, for events are still to be handed out.
    paused: bool,
    /// Events are being handed out: what is left of them is seen to afterwards.
    delivering: bool,
    handlers: Rc<Handlers<S>>,
}

type OnMessage<S> = Box<dyn Fn(&mut S, &mut Context<'_, S>, Message<'_>) -> io::Result<Flow>>;
type OnWritable<S> = Box<dyn Fn(&mut S, &mut Context<'_, S>) -> io::Result<Flow>>;

/// How the loop finds back to this node, for sockets opened later.
struct Handlers<S> {
    updates: OnMessage<S>,
    requests: OnMessage<S>,
    writable: OnWritable<S>,
}

impl<S> fmt::Debug for ClientNode<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientNode")
            .field("endpoints", &self.endpoints)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

impl<S: 'static> ClientNode<S> {
    /// A client of the broker whose first port is at `endpoint`. Nothing is
    /// opened before [`attach`](ClientNode::attach), and the broker need not be
    /// there yet. Of a pair, or of any number of servers one of which is active,
    /// `endpoint` is a list: see [`Endpoints::of_servers`].
    ///
    /// # Errors
    /// An endpoint or subtrees that cannot be; the text says what was expected.
    pub fn new(
        context: &impl AnyContext,
        endpoint: &str,
        options: ClientOptions,
    ) -> io::Result<ClientNode<S>> {
        let endpoints = Endpoints::of_servers(endpoint)?;
        let config = ClientConfig { servers: endpoints.len(), ..options.config.clone() };
        let machine = Client::new(config, super::random_u64())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(ClientNode {
            machine,
            context: context.handle(),
            endpoints,
            options,
            ports: None,
            started: false,
        })
    }

    /// Opens the sockets on the loop and begins. `project` leads from the
    /// application's state to this node; `on_event` hears what happens.
    ///
    /// A node has four places on the loop: three sockets and a timer. If `on_event`
    /// returns [`Flow::Remove`], all of them go, as by [`detach`](ClientNode::detach);
    /// so they do when the loop's error hook lets one of them be removed for an error
    /// (which is what happens unless a hook is set), since a client without all its
    /// ears would call itself current when it is not.
    ///
    /// # Errors
    /// If the node is or was attached to a loop, or a socket cannot be made.
    pub fn attach<F, H>(
        registry: &mut Registry<S>,
        state: &mut S,
        project: F,
        on_event: H,
    ) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut ClientNode<S> + Copy + 'static,
        H: Fn(&mut S, &mut Context<'_, S>, Event) -> io::Result<Flow> + Copy + 'static,
    {
        let now = registry.now();
        let node = project(state);
        if node.started {
            return Err(io::Error::other(
                "client: it was attached to a loop before; make a new one",
            ));
        }
        let timer = registry.add_standing_timer(move |state: &mut S, cx| {
            project(state).on_timer(cx);
            deliver(state, cx, project, on_event)
        });
        registry.rearm(timer, now)?;
        let handlers = Rc::new(Handlers {
            updates: Box::new(move |state: &mut S, cx, message| {
                let now = cx.now();
                project(state).run(cx, |machine, out| machine.handle_update(now, message, out));
                deliver(state, cx, project, on_event)
            }),
            requests: Box::new(move |state: &mut S, cx, message| {
                let now = cx.now();
                project(state).run(cx, |machine, out| machine.handle_snapshot(now, message, out));
                deliver(state, cx, project, on_event)
            }),
            writable: Box::new(move |state: &mut S, cx| {
                let now = cx.now();
                let node = project(state);
                node.room_again(cx);
                node.run(cx, |machine, out| machine.handle_writable(now, out));
                deliver(state, cx, project, on_event)
            }),
        });
        let node = project(state);
        node.ports = Some(Ports {
            server: 0,
            updates: None,
            requests: None,
            changes: None,
            collector: None,
            reaches_all: false,
            timer,
            armed: now,
            awaiting_room: false,
            paused: false,
            delivering: false,
            handlers,
        });
        if let Some(Err(error)) = node.run(registry, |_, out| out.replace_updates()) {
            node.detach(registry);
            return Err(error);
        }
        node.started = true;
        node.run(registry, |machine, out| machine.start(now, out));
        node.arm(registry);
        Ok(())
    }

    /// Whether it is on a loop: before [`attach`](ClientNode::attach) and after
    /// [`detach`](ClientNode::detach) it is not, and its map stands still.
    pub fn is_attached(&self) -> bool {
        self.ports.is_some()
    }

    /// Takes the sockets off the loop and closes them, for good. The map stays
    /// readable as it is at this moment; changes without an answer never get one.
    pub fn detach(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = self.ports.take() else { return };
        for key in [ports.updates, ports.requests, ports.changes].into_iter().flatten() {
            drop(registry.remove(key));
        }
        let _ = registry.cancel(ports.timer);
    }

    /// The state machine: the map, its views and its counts.
    pub fn machine(&self) -> &Client {
        &self.machine
    }

    /// Sets a key, for ever or for `ttl`. Returns the uuid that
    /// [`Event::Applied`] will name.
    ///
    /// # Errors
    /// A key or value that no broker would take, or the limit of changes
    /// under way: what was expected and what came.
    pub fn set(
        &mut self,
        registry: &mut Registry<S>,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Uuid, SetError> {
        let now = registry.now();
        let made = self.run(registry, |machine, out| machine.set(now, key, value, ttl, out));
        self.arm(registry);
        made.unwrap_or(Err(SetError::NotStarted))
    }

    /// Deletes a key, as [`set`](ClientNode::set) sets it.
    ///
    /// # Errors
    /// As `set`.
    pub fn delete(&mut self, registry: &mut Registry<S>, key: &[u8]) -> Result<Uuid, SetError> {
        let now = registry.now();
        let made = self.run(registry, |machine, out| machine.delete(now, key, out));
        self.arm(registry);
        made.unwrap_or(Err(SetError::NotStarted))
    }

    /// Closes the socket for changes, as if it could not have been opened.
    #[cfg(test)]
    pub(super) fn lose_changes(&mut self, registry: &mut Registry<S>) {
        let key = self.ports.as_mut().and_then(|ports| ports.changes.take());
        drop(key.and_then(|key| registry.remove(key).ok()).expect("a socket for changes"));
    }

    /// Detaches what is left if the loop has removed a part, for an error of the
    /// application's handler or the end of the context.
    fn detach_if_torn(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = &self.ports else { return };
        let sockets = [ports.updates, ports.requests, ports.changes];
        let is_whole = registry.contains(ports.timer)
            && sockets.into_iter().flatten().all(|key| registry.contains(key));
        if !is_whole {
            let endpoint = &self.endpoints[ports.server].snapshots;
            log::error!("client of {endpoint}: off the loop, which removed a part");
            self.detach(registry);
        }
    }

    fn on_timer(&mut self, registry: &mut Registry<S>) {
        let now = registry.now();
        let armed = match &mut self.ports {
            Some(ports) => std::mem::replace(&mut ports.armed, Time::NEVER),
            None => now,
        };
        self.detach_if_torn(registry);
        if self.machine.has_events() {
            // What happened is told before more can happen.
            return;
        }
        let is_behind = now.since(armed) > STOOD_STILL || self.has_unread(registry);
        self.run(registry, |machine, out| {
            if is_behind {
                machine.handle_backlog(now);
            }
            machine.handle_timeout(now, out);
        });
    }

    /// Whether there are messages that the loop has not come to yet.
    fn has_unread(&self, registry: &Registry<S>) -> bool {
        let Some(ports) = &self.ports else { return false };
        [ports.updates, ports.requests].into_iter().flatten().any(|key| {
            let events = registry.socket(key).map(Socket::events);
            events.is_ok_and(|events| events.is_ok_and(|events| events.readable))
        })
    }

    /// Sets the timer to the machine's next deadline, or to now if there is something
    /// to hand out; then nothing is received meanwhile.
    fn arm(&mut self, registry: &mut Registry<S>) {
        let has_events = self.machine.has_events();
        let Some(ports) = &mut self.ports else { return };
        if has_events && ports.delivering {
            return;
        }
        if has_events != ports.paused {
            ports.paused = has_events;
            let interest = (!has_events).then_some(Interest::READABLE);
            for key in [ports.updates, ports.requests].into_iter().flatten() {
                // Stale if the loop has removed it: the timer sees to that.
                let _ = registry.set_interest(key, interest);
            }
        }
        let next = match has_events {
            true => registry.now().min(ports.armed),
            false => self.machine.next_deadline().unwrap_or(Time::NEVER),
        };
        if next != ports.armed {
            ports.armed = next;
            // Stale if the loop has removed it.
            let _ = registry.rearm(ports.timer, next);
        }
    }

    /// Runs the machine with its sockets at hand. `None`: it is on no loop.
    fn run<R>(
        &mut self,
        registry: &mut Registry<S>,
        act: impl FnOnce(&mut Client, &mut Outbox<'_, S>) -> R,
    ) -> Option<R> {
        if !registry.contains(self.ports.as_ref()?.timer) {
            self.detach_if_torn(registry);
        }
        let ports = self.ports.as_mut()?;
        let mut outbox = Outbox {
            registry,
            ports,
            context: &self.context,
            endpoints: &self.endpoints,
            options: &self.options,
        };
        Some(act(&mut self.machine, &mut outbox))
    }

    fn set_delivering(&mut self, delivering: bool) {
        if let Some(ports) = &mut self.ports {
            ports.delivering = delivering;
        }
    }

    /// The changes port takes more: no need to hear of it again.
    fn room_again(&mut self, registry: &mut Registry<S>) {
        let Some(ports) = &mut self.ports else { return };
        ports.awaiting_room = false;
        if let Some(key) = ports.changes {
            let _ = registry.set_interest(key, None);
        }
    }
}

/// Hands events to the application, as many as may be in one go.
fn deliver<S: 'static, F, H>(
    state: &mut S,
    cx: &mut Context<'_, S>,
    project: F,
    on_event: H,
) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut ClientNode<S> + Copy + 'static,
    H: Fn(&mut S, &mut Context<'_, S>, Event) -> io::Result<Flow>,
{
    let mut steps = STEPS_AT_ONCE;
    let mut result = Ok(Flow::Continue);
    project(state).set_delivering(true);
    while let Some(event) = project(state).machine.poll_event_within(&mut steps) {
        result = on_event(state, cx, event);
        if !matches!(result, Ok(Flow::Continue)) {
            break;
        }
    }
    let node = project(state);
    node.set_delivering(false);
    match result {
        Ok(Flow::Remove) => node.detach(cx),
        Ok(_) => node.arm(cx),
        Err(_) => {
            node.arm(cx);
            // The error hook may remove the part that brought the event. By then it has.
            cx.add_timer(Duration::ZERO, move |state: &mut S, cx| {
                project(state).detach_if_torn(cx);
                Ok(Flow::Remove)
            });
        }
    }
    result
}
