//! Timers: order, cancelling and re-arming inside handlers, missed periods.

use std::time::{Duration, Instant};

use pollux::Time;
use pollux::reactor::{Flow, Missed, Reactor, StaleKey, TimerKey};

use crate::{each, reactor, settle, until};

const MS: Duration = Duration::from_millis(1);

/// Keeps the thread busy: what a slow handler does.
fn busy(duration: Duration) {
    let started = Instant::now();
    while started.elapsed() < duration {
        std::hint::spin_loop();
    }
}

fn log(
    name: &'static str,
) -> impl FnMut(
    &mut Vec<&'static str>,
    &mut pollux::Context<'_, Vec<&'static str>>,
) -> std::io::Result<Flow> {
    move |seen, _| {
        seen.push(name);
        Ok(Flow::Continue)
    }
}

#[test]
fn a_period_beyond_all_time_is_never_over() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let key = reactor.add_periodic(Duration::MAX, Missed::Skip, log("never"));
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap(); // There is nothing to wait for.
        let now = reactor.now();
        reactor.rearm(key, now).unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["never"]);
    });
}

#[test]
fn they_fire_in_order_of_deadline_then_of_arming() {
    each(|backend| {
        let mut reactor = reactor(backend);
        reactor.add_timer(3 * MS, log("late"));
        reactor.add_timer(MS, log("first of two"));
        reactor.add_timer(2 * MS, log("middle"));
        reactor.add_timer(MS, log("second of two"));
        let moved = reactor.add_timer(MS, log("moved to the end"));
        reactor.rearm_after(moved, 4 * MS).unwrap();
        let mut seen = Vec::new();
        let started = Instant::now();
        reactor.run(&mut seen).unwrap(); // until no timer is armed
        assert!(started.elapsed() >= 4 * MS, "none fires early");
        assert_eq!(seen, ["first of two", "second of two", "middle", "late", "moved to the end"]);
        assert_eq!(reactor.stats().timers_fired, 5);
        assert_eq!(reactor.next_deadline(), None);
        assert_eq!(reactor.deadline(moved), Err(StaleKey(moved.into())), "it has fired");
    });
}

#[test]
fn a_cancel_holds_in_the_same_pass() {
    each(|backend| {
        struct State {
            fired: Vec<u8>,
            keys: Vec<TimerKey>,
        }
        let mut reactor: Reactor<State> = reactor(backend);
        let mut keys = Vec::new();
        for number in 0..3 {
            keys.push(reactor.add_timer(Duration::ZERO, move |state, cx| {
                state.fired.push(number);
                // Each cancels the next one, and the one before, and itself.
                let own = state.keys[usize::from(number)];
                if let Some(&next) = state.keys.get(usize::from(number) + 1) {
                    cx.cancel(next)?;
                    assert_eq!(cx.cancel(next), Err(StaleKey(next.into())));
                }
                cx.cancel(own)?;
                assert!(cx.rearm_after(own, MS).is_err());
                Ok(Flow::Continue)
            }));
        }
        let mut state = State { fired: Vec::new(), keys };
        settle(&mut reactor, &mut state);
        assert_eq!(state.fired, [0, 2]);
        reactor.run(&mut state).unwrap();
        assert_eq!(state.fired, [0, 2]);
    });
}

#[test]
fn a_timer_made_in_a_pass_waits_for_the_next() {
    each(|backend| {
        fn again(
            depth: u32,
        ) -> impl FnMut(&mut u32, &mut pollux::Context<'_, u32>) -> std::io::Result<Flow> {
            move |fired, cx| {
                *fired += 1;
                if depth > 0 {
                    // In the past, by far.
                    cx.add_timer_at(Time::ZERO, again(depth - 1));
                }
                Ok(Flow::Continue)
            }
        }
        let mut reactor = reactor(backend);
        reactor.add_timer(Duration::ZERO, again(4));
        let mut fired = 0;
        for turn in 1..=5 {
            assert_eq!(reactor.turn(&mut fired, MS).unwrap(), 1);
            assert_eq!(fired, turn);
        }
        assert_eq!(reactor.turn(&mut fired, Duration::ZERO).unwrap(), 0);
    });
}

/// Neither does one that is always due keep others from firing.
#[test]
fn a_timer_that_is_always_due_starves_nobody() {
    each(|backend| {
        struct State {
            own: Option<TimerKey>,
            restless: u32,
            other: u32,
        }
        let mut reactor: Reactor<State> = reactor(backend);
        let own = reactor.add_timer(Duration::ZERO, |state: &mut State, cx| {
            state.restless += 1;
            cx.rearm(state.own.expect("it is set"), Time::ZERO)?;
            Ok(Flow::Continue)
        });
        reactor.add_timer(MS, |state: &mut State, _| {
            state.other += 1;
            Ok(Flow::Continue)
        });
        let mut state = State { own: Some(own), restless: 0, other: 0 };
        until(&mut reactor, &mut state, |state| state.other == 1);
        assert_eq!(u64::from(state.restless) + 1, reactor.stats().timers_fired);
    });
}

#[test]
fn a_one_shot_timer_arms_itself_again() {
    each(|backend| {
        struct State {
            key: Option<TimerKey>,
            fired: u32,
        }
        let mut reactor: Reactor<State> = reactor(backend);
        let key = reactor.add_timer(MS, |state, cx| {
            state.fired += 1;
            if state.fired < 3 {
                cx.rearm_after(state.key.expect("it is set"), MS)?;
            }
            Ok(Flow::Continue)
        });
        let mut state = State { key: Some(key), fired: 0 };
        reactor.run(&mut state).unwrap();
        assert_eq!(state.fired, 3);
        assert!(!reactor.contains(key));
    });
}

#[test]
fn a_standing_timer_stays_until_it_is_cancelled() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let timer = reactor.add_standing_timer(log("fired"));
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert!(seen.is_empty(), "it is not armed");
        assert_eq!(reactor.deadline(timer), Ok(None));
        for round in 1..=3 {
            reactor.rearm_after(timer, MS).unwrap();
            assert_eq!(reactor.deadline(timer).unwrap(), reactor.next_deadline());
            reactor.run(&mut seen).unwrap();
            assert_eq!(seen.len(), round);
        }
        reactor.rearm_after(timer, MS).unwrap();
        reactor.rearm(timer, Time::NEVER).unwrap();
        assert_eq!(reactor.next_deadline(), None, "disarmed");
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen.len(), 3);
        reactor.cancel(timer).unwrap();
        assert!(reactor.rearm_after(timer, MS).is_err());
    });
}

#[test]
fn a_deadline_moves_both_ways() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let far = reactor.add_timer(Duration::from_secs(3600), log("was far"));
        let near = reactor.add_timer(MS, log("was near"));
        reactor.rearm_after(near, 3 * MS).unwrap();
        reactor.rearm_after(far, 2 * MS).unwrap();
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen, ["was far", "was near"]);
    });
}

/// How often a periodic timer fires in a loop that was busy for `periods` and a half.
fn firings_after_a_stall(missed: Missed) -> (u32, Duration) {
    const PERIOD: Duration = Duration::from_millis(20);
    struct State {
        fired: u32,
        at: Time,
    }
    let mut reactor: Reactor<State> = Reactor::new().unwrap();
    let key = reactor.add_periodic(PERIOD, missed, |state: &mut State, cx| {
        state.fired += 1;
        state.at = cx.now();
        Ok(Flow::Continue)
    });
    let mut state = State { fired: 0, at: Time::ZERO };
    let first = reactor.deadline(key).unwrap().unwrap();
    busy(PERIOD * 5 + PERIOD / 2);
    settle(&mut reactor, &mut state);
    let next = reactor.deadline(key).unwrap().unwrap();
    let fired = state.fired;
    match missed {
        // On the grid that the first deadline is on.
        Missed::Skip | Missed::Burst => {
            let lines = next.since(first).as_nanos() / PERIOD.as_nanos();
            assert_eq!(next, first + PERIOD * lines as u32);
            assert!(next > state.at);
        }
        Missed::Delay => assert_eq!(next, state.at + PERIOD),
    }
    (fired, next.since(first))
}

#[test]
fn missed_periods_are_skipped_caught_up_or_put_off() {
    let period = Duration::from_millis(20);
    let (fired, _) = firings_after_a_stall(Missed::Skip);
    assert_eq!(fired, 1);
    let (fired, shift) = firings_after_a_stall(Missed::Burst);
    assert_eq!(period * fired, shift, "one for each line of the grid");
    assert!(fired >= 5);
    let (fired, shift) = firings_after_a_stall(Missed::Delay);
    assert_eq!(fired, 1);
    assert!(shift >= period * 5, "{shift:?}");
}

#[test]
fn a_periodic_timer_is_moved_and_cancelled_in_its_own_handler() {
    each(|backend| {
        struct State {
            key: Option<TimerKey>,
            at: Vec<Time>,
        }
        let mut reactor: Reactor<State> = reactor(backend);
        let key = reactor.add_periodic(MS, Missed::Burst, |state: &mut State, cx| {
            state.at.push(cx.now());
            let key = state.key.expect("it is set");
            match state.at.len() {
                2 => cx.rearm_after(key, 10 * MS)?,
                4 => cx.cancel(key)?,
                _ => {}
            }
            Ok(Flow::Continue)
        });
        let mut state = State { key: Some(key), at: Vec::new() };
        reactor.run(&mut state).unwrap();
        assert_eq!(state.at.len(), 4);
        assert!(state.at[2].since(state.at[1]) >= 10 * MS);
        assert!(
            state.at[3].since(state.at[2]) < 10 * MS || reactor.stats().turn_max_ns > 1_000_000
        );
    });
}

#[test]
fn removing_a_periodic_timer_ends_the_loop() {
    each(|backend| {
        let mut reactor = reactor(backend);
        reactor.add_periodic(MS, Missed::Skip, |left: &mut u32, _| {
            *left -= 1;
            Ok(if *left == 0 { Flow::Remove } else { Flow::Continue })
        });
        let mut left = 3;
        reactor.run(&mut left).unwrap();
        assert_eq!(left, 0);
    });
}

#[test]
fn more_due_timers_than_one_turn_fires_all_fire() {
    each(|backend| {
        let mut reactor = reactor(backend);
        for _ in 0..5000 {
            reactor.add_timer(Duration::ZERO, |fired: &mut u32, _| {
                *fired += 1;
                Ok(Flow::Continue)
            });
        }
        let mut fired = 0;
        let first = reactor.turn(&mut fired, Duration::ZERO).unwrap();
        assert!((1..5000).contains(&first), "sockets have their turn between: {first}");
        settle(&mut reactor, &mut fired);
        assert_eq!(fired, 5000);
    });
}

#[test]
fn lateness_is_counted() {
    let mut reactor = Reactor::new().unwrap();
    reactor.add_timer(MS, log("late"));
    busy(20 * MS);
    settle(&mut reactor, &mut Vec::new());
    let late = Duration::from_nanos(reactor.stats().timer_lateness_max_ns);
    assert!(late >= 19 * MS && late < crate::DEADLINE, "{late:?}");
}

/// Between turns the clock goes on: what is armed then counts from then.
#[test]
fn a_timer_armed_between_turns_is_not_early() {
    each(|backend| {
        let mut reactor = reactor(backend);
        reactor.turn(&mut Vec::new(), Duration::ZERO).unwrap();
        let before = reactor.now();
        busy(5 * MS);
        assert!(reactor.now().since(before) >= 5 * MS);
        let armed = Instant::now();
        let standing = reactor.add_standing_timer(log("standing"));
        reactor.rearm_after(standing, 3 * MS).unwrap();
        reactor.add_timer(3 * MS, log("once"));
        reactor.add_periodic(3 * MS, Missed::Skip, |seen: &mut Vec<&str>, _| {
            seen.push("periodic");
            Ok(Flow::Remove)
        });
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert!(armed.elapsed() >= 3 * MS);
        assert_eq!(seen.len(), 3);
    });
}
