//! Random scripts: handlers that send, touch, pause, resume, remove, register and arm as
//! the messages tell them. Both backends must see the same events, and nothing may be
//! lost, repeated or out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use pollux::reactor::{Flow, Interest, Reactor, SocketKey, TimerKey};
use pollux::socket::Socket;
use proptest::prelude::*;

use crate::{pipe, settle};
use pollux::reactor::Backend;

const PIPES: usize = 4;

/// What a message makes its handler do to pipe `target`.
#[derive(Clone, Copy, Debug)]
enum Action {
    Nothing,
    /// Sends a message to it from outside, so that it becomes ready.
    Feed,
    /// Sends through it.
    Send,
    /// Asks it for events.
    Touch,
    Remove,
    /// Removes it and registers the same socket again.
    Renew,
    /// Feeds it from a timer.
    FeedLater,
    /// Cancels the timer made last.
    Cancel,
    Resume,
    Pause,
}

const ACTIONS: [Action; 10] = [
    Action::Nothing,
    Action::Feed,
    Action::Send,
    Action::Touch,
    Action::Remove,
    Action::Renew,
    Action::FeedLater,
    Action::Cancel,
    Action::Resume,
    // The last one: see below.
    Action::Pause,
];

struct World {
    /// The test's ends.
    theirs: Vec<Socket>,
    keys: Vec<Option<SocketKey>>,
    timer: Option<TimerKey>,
    /// By pipe: the numbers of the messages it was fed, and of those it has handled.
    fed: BTreeMap<usize, Vec<u32>>,
    handled: BTreeMap<usize, Vec<u32>>,
    fired: u32,
    next: u32,
}

impl World {
    fn feed(&mut self, pipe: usize, action: u8, target: u8) {
        let number = self.next;
        self.next += 1;
        let message = [&[action, target][..], &number.to_be_bytes()];
        // How long a pipe whose other end is closed takes messages is up to libzmq.
        if self.keys[pipe].is_some() {
            self.theirs[pipe].send(&message).unwrap();
            self.fed.entry(pipe).or_default().push(number);
        }
    }
}

fn register(
    reactor: &mut pollux::reactor::Registry<World>,
    pipe: usize,
    socket: Socket,
) -> SocketKey {
    let handler = move |world: &mut World,
                        cx: &mut pollux::Context<'_, World>,
                        message: pollux::Message<'_>| {
        let number = u32::from_be_bytes(message[1].try_into().expect("four bytes"));
        world.handled.entry(pipe).or_default().push(number);
        act(world, cx, ACTIONS[usize::from(message[0][0])], usize::from(message[0][1]));
        Ok(Flow::Continue)
    };
    reactor.on_message(socket, handler).expect("registered")
}

fn act(world: &mut World, cx: &mut pollux::Context<'_, World>, action: Action, target: usize) {
    let key = world.keys[target];
    match (action, key) {
        (Action::Nothing, _) => {}
        (Action::Feed, _) => world.feed(target, 0, 0),
        (Action::FeedLater, _) => {
            world.timer = Some(cx.add_timer(Duration::ZERO, move |world: &mut World, _| {
                world.fired += 1;
                world.feed(target, 0, 0);
                Ok(Flow::Continue)
            }));
        }
        (Action::Cancel, _) => {
            if let Some(timer) = world.timer.take() {
                // It may have fired.
                let _ = cx.cancel(timer);
            }
        }
        (_, None) => {}
        (Action::Send, Some(key)) => cx.socket(key).unwrap().send("out").unwrap(),
        (Action::Touch, Some(key)) => drop(cx.socket(key).unwrap().events().unwrap()),
        (Action::Pause, Some(key)) => cx.set_interest(key, None).unwrap(),
        (Action::Resume, Some(key)) => cx.set_interest(key, Interest::READABLE).unwrap(),
        (Action::Remove, Some(key)) => {
            world.keys[target] = None;
            cx.discard(key).unwrap();
        }
        (Action::Renew, Some(key)) => {
            let socket = cx.remove(key).unwrap();
            world.keys[target] = Some(register(cx, target, socket));
        }
    }
}

/// What came of a script.
#[derive(Debug, PartialEq)]
struct Outcome {
    handled: BTreeMap<usize, Vec<u32>>,
    fed: BTreeMap<usize, Vec<u32>>,
    alive: Vec<bool>,
    fired: u32,
}

fn play(backend: Backend, budget: u32, script: &[(usize, u8, u8)], at_once: usize) -> Outcome {
    let mut reactor: Reactor<World> =
        Reactor::builder().backend(backend).budget(budget).build().unwrap();
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..PIPES).map(|_| pipe()).unzip();
    let keys = ours
        .into_iter()
        .enumerate()
        .map(|(pipe, socket)| Some(register(&mut reactor, pipe, socket)))
        .collect();
    let mut world = World {
        theirs,
        keys,
        timer: None,
        fed: BTreeMap::new(),
        handled: BTreeMap::new(),
        fired: 0,
        next: 0,
    };
    for steps in script.chunks(at_once) {
        for &(pipe, action, target) in steps {
            world.feed(pipe, action, target);
        }
        settle(&mut reactor, &mut world);
    }
    // In the end nothing is paused, so all that was fed to those alive is handled.
    loop {
        for key in world.keys.iter().flatten() {
            reactor.set_interest(*key, Interest::READABLE).unwrap();
        }
        if settle(&mut reactor, &mut world) == 0 {
            break;
        }
    }
    let alive = world.keys.iter().map(Option::is_some).collect();
    Outcome { handled: world.handled, fed: world.fed, alive, fired: world.fired }
}

fn script(actions: usize) -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    prop::collection::vec((0..PIPES, 0..actions as u8, 0..PIPES as u8), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// One message at a time, and none held back by a pause: then the order of everything
    /// is given.
    #[test]
    fn both_backends_see_the_same_events(
        script in script(ACTIONS.len() - 1),
        budget in 1..5_u32,
    ) {
        let zmq = play(Backend::ZmqPoll, budget, &script, 1);
        let epoll = play(Backend::Epoll, budget, &script, 1);
        prop_assert_eq!(zmq, epoll);
    }

    /// With many messages at once the backends may find the sockets in another order, and
    /// so act in another; but each socket has all its messages, once and in order.
    #[test]
    fn nothing_is_lost_repeated_or_out_of_order(
        script in script(ACTIONS.len()),
        budget in 1..5_u32,
        at_once in prop::sample::select(vec![1, 2, 7, 60]),
    ) {
        for backend in [Backend::ZmqPoll, Backend::Epoll] {
            let outcome = play(backend, budget, &script, at_once);
            for (pipe, fed) in &outcome.fed {
                let handled = outcome.handled.get(pipe).map_or(&[][..], Vec::as_slice);
                let expected = if outcome.alive[*pipe] { fed } else { &fed[..handled.len()] };
                prop_assert_eq!(handled, expected);
            }
        }
    }
}
