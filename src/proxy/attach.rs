//! A proxy on its loop: handlers, and the end.

use std::io;
use std::mem;

use super::control::{self, Command};
use super::pump::{self, Held, Pump, Until};
use super::{Phase, Place, Ports, Proxy, ProxyError, Side, Sockets};
use crate::message::Message;
use crate::reactor::{Context, Flow, Key, Ready, Registry, SocketKey, Waker};
use crate::socket::{Errno, SocketType};
use crate::time::Time;

/// Tells the loop when the handler that owns it is gone, and so the socket.
struct Guard(Waker);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl<S: 'static> Proxy<S> {
    /// Puts the sockets on the loop and starts. `project` leads from the application's
    /// state to this proxy.
    ///
    /// The proxy ends if one of its two sockets is removed from the loop or fails. If
    /// their context is terminated, the loop's [error hook](Registry::on_error) is told, as
    /// for any socket, and then [`on_end`](super::ProxyBuilder::on_end).
    ///
    /// # Errors
    /// If it was attached before; what the system says about watching a socket, and
    /// then the sockets are closed.
    pub fn attach<F>(registry: &mut Registry<S>, state: &mut S, project: F) -> io::Result<()>
    where
        F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
    {
        let proxy = project(state);
        let sockets = match mem::replace(&mut proxy.place, Place::Nowhere) {
            Place::Outside(sockets) => *sockets,
            place => {
                proxy.place = place;
                return Err(io::Error::other(
                    "proxy: it was attached to a loop before; make a new one",
                ));
            }
        };
        let mut added = Vec::new();
        match register(registry, sockets, project, &mut added) {
            Ok(ports) => proxy.place = Place::Loop(ports),
            Err(error) => {
                proxy.phase = Phase::Ended;
                for key in added {
                    // They were added just now.
                    let _ = registry.discard(key);
                }
                return Err(error);
            }
        }
        proxy.phase = Phase::Running;
        proxy.settle(registry);
        Ok(())
    }
}

/// Registers everything, with no interest in anything yet; `added` is what to undo if
/// that fails.
fn register<S: 'static, F>(
    registry: &mut Registry<S>,
    sockets: Sockets,
    project: F,
    added: &mut Vec<Key>,
) -> io::Result<Ports>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let Sockets { frontend, backend, capture, control } = sockets;
    let watch = registry.add_waker(move |state, cx| on_removal(state, cx, project))?;
    let watch_id = watch.source().ok_or(io::ErrorKind::NotFound)?;
    added.push(watch_id.into());
    let timer = registry.add_standing_timer(move |state, cx| on_timer(state, cx, project));
    added.push(timer.into());
    let mut side = |socket, side| {
        let guard = Guard(watch.clone());
        let handler = move |state: &mut S, cx: &mut Context<'_, S>, ready| {
            let _owned = &guard;
            on_ready(state, cx, project, side, ready)
        };
        let key = registry.on_ready(socket, None, handler)?;
        added.push(key.into());
        Ok::<SocketKey, io::Error>(key)
    };
    let (frontend, backend) = (side(frontend, Side::Frontend)?, side(backend, Side::Backend)?);
    let capture = match capture {
        Some(capture) => Some(registry.add_socket(capture)?),
        None => None,
    };
    added.extend(capture.map(Key::from));
    let control = match control {
        Some(socket) => {
            let socket_type = socket.socket_type();
            let handler = move |state: &mut S, cx: &mut Context<'_, S>, message: Message<'_>| {
                on_command(state, cx, project, socket_type, message)
            };
            Some(registry.on_message(socket, handler)?)
        }
        None => None,
    };
    Ok(Ports {
        frontend,
        backend,
        capture,
        control,
        timer,
        armed: Time::NEVER,
        watch: watch_id,
        interests: [None; 2],
    })
}

impl<S> Proxy<S> {
    /// What it has on the loop, and what moves its messages; `None` if `key` is not of
    /// this proxy: the application has put another one in its place, or it has ended.
    fn at_work(&mut self, key: Key) -> Option<(Ports, &mut Option<Box<Pump<S>>>)> {
        let Place::Loop(ports) = &self.place else { return None };
        let own = [
            Some(ports.frontend.into()),
            Some(ports.backend.into()),
            ports.control.map(Key::from),
            Some(ports.timer.into()),
            Some(ports.watch.into()),
        ];
        own.contains(&Some(key)).then_some((*ports, &mut self.pump))
    }
}

/// A side can be read, or has room again.
fn on_ready<S: 'static, F>(
    state: &mut S,
    cx: &mut Context<'_, S>,
    project: F,
    side: Side,
    ready: Ready,
) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let mut is_empty = false;
    let flow = with_pump(state, cx, project, |state, pump, sockets, phase, now| {
        let other = side.other();
        if ready.writable
            && pump.lane(other).held.is_some()
            && pump.flush(other, sockets, now)?
            && phase == Phase::Running
        {
            pump.forward(state, other, sockets)?;
        }
        if ready.readable && phase == Phase::Running && pump.lane(side).held.is_none() {
            is_empty = pump.forward(state, side, sockets)?;
        }
        Ok(())
    })?;
    if is_empty && let Key::Socket(key) = cx.key() {
        cx.seen_empty(key);
    }
    Ok(flow)
}

/// A message is to be tried again, it has taken too long to end, or it is paused and
/// has to look whether its context is still there.
fn on_timer<S: 'static, F>(state: &mut S, cx: &mut Context<'_, S>, project: F) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let proxy = project(state);
    if proxy.at_work(cx.key()).is_none() {
        return Ok(Flow::Remove);
    }
    if let Place::Loop(ports) = &mut proxy.place {
        ports.armed = Time::NEVER;
    }
    let flush_until = proxy.flush_until;
    with_pump(state, cx, project, |_, pump, sockets, phase, now| {
        if phase == Phase::Paused {
            return sockets.both_alive();
        }
        for from in [Side::Frontend, Side::Backend] {
            let due = |held: Held| matches!(held.until, Until::Retry(at, _) if at <= now);
            if pump.lane(from).held.is_some_and(due) {
                pump.flush(from, sockets, now)?;
            }
        }
        if phase == Phase::Terminating && now >= flush_until {
            pump.give_up();
        }
        Ok(())
    })
}

impl pump::Sockets<'_> {
    fn both_alive(&self) -> Result<(), ProxyError> {
        for (side, socket) in [(Side::Frontend, self.frontend), (Side::Backend, self.backend)] {
            if let Err(errno @ Errno::ETERM) = socket.events() {
                return Err(ProxyError::Socket { side, error: socket.receive_failed(errno) });
            }
        }
        Ok(())
    }
}

/// Takes the pump out of the state, has it do `work`, and does what follows from that.
fn with_pump<S: 'static, F>(
    state: &mut S,
    cx: &mut Context<'_, S>,
    project: F,
    work: impl FnOnce(&mut S, &mut Pump<S>, &pump::Sockets<'_>, Phase, Time) -> Result<(), ProxyError>,
) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let proxy = project(state);
    let phase = proxy.phase;
    let Some((ports, pump)) = proxy.at_work(cx.key()) else { return Ok(Flow::Remove) };
    // It is gone after a hook has panicked.
    let Some(mut pump) = pump.take() else {
        return end(state, cx, project, Err(ProxyError::Removed));
    };
    let result = match (cx.socket(ports.frontend), cx.socket(ports.backend)) {
        (Ok(frontend), Ok(backend)) => {
            let capture = ports.capture.and_then(|key| cx.socket(key).ok());
            let sockets = pump::Sockets { frontend, backend, capture };
            work(state, &mut pump, &sockets, phase, cx.now())
        }
        _ => Err(ProxyError::Removed),
    };
    let proxy = project(state);
    // Else a hook has put another one in its place, and this one goes.
    if proxy.at_work(cx.key()).is_none() {
        return Ok(Flow::Remove);
    }
    let ended = result.is_err() || (phase == Phase::Terminating && pump.is_empty());
    proxy.pump = Some(pump);
    if ended {
        return end(state, cx, project, result);
    }
    proxy.settle(cx);
    Ok(Flow::Continue)
}

/// A message to the control socket.
fn on_command<S: 'static, F>(
    state: &mut S,
    cx: &mut Context<'_, S>,
    project: F,
    socket_type: SocketType,
    message: Message<'_>,
) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let proxy = project(state);
    let Some((_, Some(pump))) = proxy.at_work(cx.key()) else { return Ok(Flow::Remove) };
    let command = Command::parse(message);
    let answer = control::answer(command, socket_type, &pump.stats);
    let answered = match &answer {
        Some(answer) => cx.own_socket()?.send(answer).is_ok(),
        None => command != Some(Command::Statistics),
    };
    if command.is_some() && answered {
        pump.stats.commands += 1;
    } else {
        pump.stats.commands_refused += 1;
        let count = pump.stats.commands_refused;
        match command {
            Some(command) => {
                let why = format_args!("control: {command:?} cannot be answered ({socket_type})");
                pump::warn_rarely(count, &why);
            }
            None => {
                pump::warn_rarely(count, &format_args!("control: {}", control::problem(message)))
            }
        }
    }
    proxy.stats = pump.stats;
    match command {
        Some(Command::Pause) => proxy.pause(cx),
        Some(Command::Resume) => proxy.resume(cx),
        Some(Command::Terminate) => proxy.terminate(cx),
        Some(Command::Statistics) | None => {}
    }
    Ok(Flow::Continue)
}

/// One of the two sockets may have gone.
fn on_removal<S: 'static, F>(state: &mut S, cx: &mut Context<'_, S>, project: F) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    match project(state).at_work(cx.key()) {
        Some((ports, _)) if cx.contains(ports.frontend) && cx.contains(ports.backend) => {
            Ok(Flow::Continue)
        }
        Some(_) => end(state, cx, project, Err(ProxyError::Removed)),
        None => Ok(Flow::Remove),
    }
}

/// Closes everything and tells the application.
fn end<S: 'static, F>(
    state: &mut S,
    cx: &mut Context<'_, S>,
    project: F,
    result: Result<(), ProxyError>,
) -> io::Result<Flow>
where
    F: Fn(&mut S) -> &mut Proxy<S> + Copy + 'static,
{
    let proxy = project(state);
    let Place::Loop(ports) = mem::replace(&mut proxy.place, Place::Nowhere) else {
        return Ok(Flow::Continue);
    };
    proxy.phase = Phase::Ended;
    if let Some(mut pump) = proxy.pump.take() {
        pump.give_up();
        proxy.stats = pump.stats;
    }
    if proxy.stats.lost > 0 {
        log::warn!("proxy: it ended with {} messages that were not taken", proxy.stats.lost);
    }
    let on_end = proxy.on_end.take();
    let sockets = [Some(ports.frontend), Some(ports.backend), ports.capture, ports.control];
    let others = [Key::from(ports.timer), Key::from(ports.watch)];
    for key in sockets.into_iter().flatten().map(Key::from).chain(others) {
        // Some may have gone before, or be the one whose handler this is.
        let _ = cx.discard(key);
    }
    match (on_end, result) {
        (Some(on_end), result) => on_end(state, cx, result),
        (None, Ok(())) => Ok(Flow::Continue),
        (None, Err(error)) => {
            log::error!("{error}");
            Ok(Flow::Continue)
        }
    }
}
