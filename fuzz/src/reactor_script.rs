//! Any script of what can be done with a loop, from outside and from within its handlers,
//! against a model: each message is handled once and in order, what is removed gives back
//! what it has not delivered, a timer fires when it is armed and due and not otherwise,
//! and a key that is over is refused.

use std::time::Duration;

use pollux::reactor::{
    Backend, Context, Flow, Interest, Key, Reactor, Registry, SocketKey, TimerKey,
};
use pollux::socket::{Socket, ZmqContext, pair};
use pollux::{Message, Time};

const PIPES: usize = 4;
const MAX_STEPS: usize = 200;
const MAX_TIMERS: usize = 16;
/// More turns than any script leads to.
const MAX_TURNS: usize = 10_000;
/// Beyond the end of every run.
const FAR: Duration = Duration::from_secs(1 << 20);
/// For libzmq to close what was let go of, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// One end with the loop, the other here.
struct Pipe {
    key: SocketKey,
    theirs: Socket,
    fed: Vec<u32>,
    handled: Vec<u32>,
    /// Sent by our end.
    sent: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Armed {
    No,
    Due,
    /// Not in the pass in which it was armed.
    DueAfter(u64),
    Far(Time),
}

struct Timer {
    key: TimerKey,
    is_standing: bool,
    armed: Armed,
    is_alive: bool,
}

struct World {
    /// Each run has its own, which ends only if no socket is left, wherever it was.
    context: ZmqContext,
    script: Vec<u8>,
    at: usize,
    pipes: Vec<Option<Pipe>>,
    timers: Vec<Timer>,
    /// Keys that must be refused.
    over: Vec<Key>,
    next: u32,
    turn: u64,
    /// A timer's handler runs.
    in_timer: bool,
}

pub fn run(input: &[u8]) {
    let (&header, script) = input.split_first().unwrap_or((&0, &[]));
    for backend in [Backend::ZmqPoll, Backend::Epoll] {
        play(backend, u32::from(header % 5 + 1), script);
    }
}

fn play(backend: Backend, budget: u32, script: &[u8]) {
    let builder = Reactor::builder().backend(backend).budget(budget);
    let mut reactor: Reactor<World> = builder.build().expect("a loop");
    // inproc needs no I/O thread.
    let context = ZmqContext::builder().io_threads(0).build().expect("a context");
    let mut world = World {
        context,
        script: script.to_vec(),
        at: 0,
        pipes: (0..PIPES).map(|_| None).collect(),
        timers: Vec::new(),
        over: Vec::new(),
        next: 0,
        turn: 0,
        in_timer: false,
    };
    for pipe in 0..PIPES - 1 {
        world.open(&mut reactor, pipe);
    }
    for _ in 0..MAX_STEPS {
        if world.at >= world.script.len() {
            break;
        }
        if world.byte().is_multiple_of(4) {
            turn(&mut reactor, &mut world);
        } else {
            world.act(&mut reactor);
        }
        world.check_keys(&mut reactor);
    }
    world.at = world.script.len();
    finish(&mut reactor, &mut world);
    drop(reactor);
    let World { context, pipes, .. } = world;
    drop(pipes);
    context.terminate(PATIENCE).expect("no socket is left");
}

fn turn(reactor: &mut Reactor<World>, world: &mut World) -> usize {
    world.turn += 1;
    reactor.turn(world, Duration::ZERO).expect("a turn")
}

/// In the end nothing is paused, so everything is handled and everything due has fired.
fn finish(reactor: &mut Reactor<World>, world: &mut World) {
    for pipe in world.pipes.iter().flatten() {
        reactor.set_interest(pipe.key, Interest::READABLE).expect("it is alive");
    }
    let mut turns = 0;
    while turn(reactor, world) > 0 {
        turns += 1;
        assert!(turns < MAX_TURNS, "the loop does not come to rest");
    }
    world.check_keys(reactor);
    for timer in world.timers.iter().filter(|timer| timer.is_alive) {
        assert!(!matches!(timer.armed, Armed::Due | Armed::DueAfter(_)), "due and not fired");
    }
    for pipe in world.pipes.iter().flatten() {
        assert_eq!(pipe.handled, pipe.fed);
        assert_eq!(received(&pipe.theirs), pipe.sent);
    }
    let alive: Vec<SocketKey> = world.pipes.iter().flatten().map(|pipe| pipe.key).collect();
    for key in alive {
        let socket = reactor.remove(key).expect("it is alive");
        assert!(received(&socket).is_empty(), "all of it was handled");
    }
}

fn received(socket: &Socket) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(message) = socket.receive_message().expect("a pipe") {
        let frame = message.iter().next().expect("a frame");
        numbers.push(u32::from_be_bytes(frame[..].try_into().expect("four bytes")));
    }
    numbers
}

impl World {
    fn byte(&mut self) -> u8 {
        let byte = self.script.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, registry: &mut Registry<World>, index: usize) {
        let (ours, theirs) = pair(&self.context).expect("a pipe");
        let key = register(registry, index, ours);
        let (fed, handled, sent) = (Vec::new(), Vec::new(), Vec::new());
        self.pipes[index] = Some(Pipe { key, theirs, fed, handled, sent });
    }

    fn feed(&mut self, index: usize) {
        let number = self.number();
        if let Some(pipe) = &mut self.pipes[index] {
            pipe.theirs.send(&number.to_be_bytes()[..]).expect("far below the limit");
            pipe.fed.push(number);
        }
    }

    /// The next action of the script. Nothing at its end, so that each script ends.
    fn act(&mut self, registry: &mut Registry<World>) {
        if self.at >= self.script.len() {
            return;
        }
        let action = self.byte() % 24;
        match action {
            0..=14 => self.act_on_pipe(registry, action),
            _ => self.act_on_timer(registry, action),
        }
    }

    fn act_on_pipe(&mut self, registry: &mut Registry<World>, action: u8) {
        let index = usize::from(self.byte()) % PIPES;
        if action < 4 {
            return (0..=action).for_each(|_| self.feed(index));
        }
        let number = self.number();
        let Some(pipe) = &mut self.pipes[index] else {
            return self.open(registry, index);
        };
        let key = pipe.key;
        match action {
            4 | 5 => {
                let socket = registry.socket(key).expect("it is alive");
                socket.send(&number.to_be_bytes()[..]).expect("far below the limit");
                pipe.sent.push(number);
            }
            6 => drop(registry.socket(key).expect("it is alive").events().expect("its events")),
            7 => registry.set_interest(key, None).expect("it is alive"),
            8 | 9 => registry.set_interest(key, Interest::READABLE).expect("it is alive"),
            10 => registry.set_budget(key, number % 4).expect("it is alive"),
            11 => {
                let socket = registry.remove(key).expect("it is alive");
                let mut handled = std::mem::take(&mut pipe.handled);
                handled.extend(received(&socket));
                assert_eq!(handled, pipe.fed, "it gives back what it has not delivered");
                self.close(index);
            }
            12 | 13 => {
                let socket = registry.remove(key).expect("it is alive");
                pipe.key = register(registry, index, socket);
                self.over.push(key.into());
            }
            _ => {
                registry.discard(key).expect("it is alive");
                self.close(index);
            }
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(pipe) = self.pipes[index].take() {
            self.over.push(pipe.key.into());
        }
    }

    fn act_on_timer(&mut self, registry: &mut Registry<World>, action: u8) {
        let (which, when) = (usize::from(self.byte()), self.byte());
        let at = match when % 4 {
            0 => Time::NEVER,
            1 => registry.now() + FAR + Duration::from_nanos(when.into()),
            2 => registry.now(),
            _ => Time::ZERO,
        };
        let armed = match when % 4 {
            0 => Armed::No,
            1 => Armed::Far(at),
            _ if self.in_timer => Armed::DueAfter(self.turn),
            _ => Armed::Due,
        };
        if action < 18 && self.timers.len() < MAX_TIMERS {
            let index = self.timers.len();
            let fire = move |world: &mut World, cx: &mut Context<'_, World>| world.fire(cx, index);
            let is_standing = action == 17;
            let key = match is_standing {
                true => registry.add_standing_timer(fire),
                false => registry.add_timer_at(at, fire),
            };
            let armed = if is_standing { Armed::No } else { armed };
            return self.timers.push(Timer { key, is_standing, armed, is_alive: true });
        }
        let count = self.timers.len().max(1);
        let Some(timer) = self.timers.get_mut(which % count) else { return };
        if action < 22 {
            assert_eq!(registry.rearm(timer.key, at).is_ok(), timer.is_alive);
            if timer.is_alive {
                timer.armed = armed;
            }
        } else {
            assert_eq!(registry.cancel(timer.key).is_ok(), timer.is_alive);
            timer.is_alive = false;
        }
    }

    fn fire(&mut self, cx: &mut Context<'_, World>, index: usize) -> std::io::Result<Flow> {
        let timer = &mut self.timers[index];
        assert!(timer.is_alive, "it was cancelled");
        match timer.armed {
            Armed::Due => {}
            Armed::DueAfter(turn) => assert!(turn < self.turn, "armed in this pass"),
            Armed::No | Armed::Far(_) => panic!("it is not due: {:?}", timer.armed),
        }
        timer.armed = Armed::No;
        self.in_timer = true;
        self.act(cx);
        self.in_timer = false;
        let flow = if self.at < self.script.len() && self.byte().is_multiple_of(16) {
            Flow::Remove
        } else {
            Flow::Continue
        };
        let timer = &mut self.timers[index];
        let is_over = flow == Flow::Remove || (!timer.is_standing && timer.armed == Armed::No);
        timer.is_alive &= !is_over;
        Ok(flow)
    }

    fn check_keys(&self, registry: &mut Registry<World>) {
        for &key in &self.over {
            assert!(!registry.contains(key));
            match key {
                Key::Socket(key) => {
                    assert!(registry.socket(key).is_err() && registry.remove(key).is_err());
                    assert!(registry.set_interest(key, Interest::READABLE).is_err());
                    assert!(registry.set_budget(key, 1).is_err());
                    assert!(registry.source_stats(key).is_err());
                }
                other => panic!("only those of sockets are kept here: {other:?}"),
            }
            assert!(registry.discard(key).is_err());
        }
        for pipe in self.pipes.iter().flatten() {
            assert!(registry.contains(pipe.key));
        }
        let mut first = None;
        for timer in &self.timers {
            assert_eq!(registry.contains(timer.key), timer.is_alive);
            let deadline = registry.deadline(timer.key);
            match timer.armed {
                _ if !timer.is_alive => assert!(deadline.is_err()),
                Armed::No => assert_eq!(deadline, Ok(None)),
                Armed::Far(at) => assert_eq!(deadline, Ok(Some(at))),
                Armed::Due | Armed::DueAfter(_) => {
                    assert!(matches!(deadline, Ok(Some(at)) if at < registry.now() + FAR));
                }
            }
            let deadline = deadline.ok().flatten();
            first = [first, deadline].into_iter().flatten().min();
        }
        assert_eq!(registry.next_deadline().is_some(), first.is_some());
        assert!(registry.next_deadline() <= first, "nobody would wake for it");
    }
}

fn register(registry: &mut Registry<World>, index: usize, socket: Socket) -> SocketKey {
    let handler = move |world: &mut World, cx: &mut Context<'_, World>, message: Message<'_>| {
        let number = u32::from_be_bytes(message[0].try_into().expect("four bytes"));
        let pipe = world.pipes[index].as_mut().expect("no message comes from what is removed");
        assert_eq!(Key::from(pipe.key), cx.key());
        pipe.handled.push(number);
        world.act(cx);
        if world.at < world.script.len() && world.byte().is_multiple_of(16) {
            // Unless the action has closed it, or put another in its place.
            if let Some(pipe) = &world.pipes[index]
                && cx.key() == Key::from(pipe.key)
            {
                world.close(index);
            }
            return Ok(Flow::Remove);
        }
        Ok(Flow::Continue)
    };
    registry.on_message(socket, handler).expect("registered")
}
