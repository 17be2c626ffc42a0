//! Other threads: wakers, channels, pipes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollux::reactor::{Flow, Interest, Key, Reactor, TrySendError, Wait};

use crate::{DEADLINE, each, reactor, settle, until};

#[test]
fn a_waker_interrupts_a_sleep() {
    each(|backend| {
        let mut reactor: Reactor<()> = reactor(backend);
        let waker = reactor.waker();
        let started = Instant::now();
        let waking = thread::spawn({
            let waker = waker.clone();
            move || waker.wake()
        });
        assert_eq!(reactor.turn(&mut (), DEADLINE).unwrap(), 0);
        assert!(started.elapsed() < DEADLINE / 2);
        waking.join().unwrap();
        // A wake before the turn is not lost either, and counts once.
        waker.wake();
        waker.wake();
        assert_eq!(reactor.turn(&mut (), DEADLINE).unwrap(), 0);
        assert!(started.elapsed() < DEADLINE / 2);
        assert_eq!(reactor.stats().wakes, 2);
    });
}

#[test]
fn wakes_coalesce_and_none_is_lost() {
    each(|backend| {
        for wait in [Wait::Block, Wait::SpinFor(Duration::from_micros(20)), Wait::Spin] {
            let mut reactor = Reactor::builder().backend(backend).wait(wait).build().unwrap();
            let written = Arc::new(AtomicU64::new(0));
            let waker = reactor
                .add_waker({
                    let written = Arc::clone(&written);
                    move |seen: &mut Vec<u64>, _| {
                        seen.push(written.load(Ordering::Relaxed));
                        Ok(Flow::Continue)
                    }
                })
                .unwrap();
            const WAKES: u64 = 20_000;
            let thread = thread::spawn(move || {
                for number in 1..=WAKES {
                    written.store(number, Ordering::Relaxed);
                    waker.wake();
                }
            });
            let mut seen = Vec::new();
            // The waker removes itself when it is dropped, and then the loop ends.
            reactor.run(&mut seen).unwrap();
            thread.join().unwrap();
            assert_eq!(seen.last(), Some(&WAKES), "what was written before a wake is seen");
            assert!(seen.len() as u64 <= WAKES);
            assert!(seen.is_sorted());
        }
    });
}

#[test]
fn wakes_made_before_a_turn_run_the_handler_once() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let waker = reactor
            .add_waker(|runs: &mut u32, _| {
                *runs += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut runs = 0;
        for round in 1..=3 {
            for _ in 0..10 {
                waker.wake();
            }
            settle(&mut reactor, &mut runs);
            assert_eq!(runs, round);
        }
        // With the last handle goes the source, after the wake it has made.
        let source = waker.source().unwrap();
        waker.wake();
        drop(waker);
        settle(&mut reactor, &mut runs);
        assert_eq!(runs, 4);
        assert!(!reactor.contains(source));
    });
}

#[test]
fn values_from_many_threads_arrive_in_order_at_capacity() {
    each(|backend| {
        const THREADS: u64 = 4;
        const VALUES: u64 = 5000;
        let mut reactor = reactor(backend);
        let sender = reactor
            .channel(3, |seen: &mut Vec<Vec<u64>>, _, (thread, value): (u64, u64)| {
                seen[thread as usize].push(value);
                Ok(Flow::Continue)
            })
            .unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || {
                    (0..VALUES).for_each(|value| sender.send((thread, value)).unwrap())
                })
            })
            .collect();
        drop(sender);
        let mut seen = vec![Vec::new(); THREADS as usize];
        // It removes itself when all senders have gone.
        reactor.run(&mut seen).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for values in &seen {
            assert!(values.iter().copied().eq(0..VALUES));
        }
        let stats = reactor.stats();
        assert_eq!(stats.values_received, THREADS * VALUES);
        assert_eq!(stats.events, THREADS * VALUES);
    });
}

#[test]
fn a_full_channel_gives_the_value_back() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let sender = reactor
            .channel(2, |seen: &mut Vec<String>, _, value: String| {
                seen.push(value);
                Ok(Flow::Continue)
            })
            .unwrap();
        sender.try_send("a".into()).unwrap();
        sender.try_send("b".into()).unwrap();
        assert_eq!(sender.try_send("c".into()), Err(TrySendError::Full("c".into())));
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["a", "b"]);
        sender.try_send("d".into()).unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["a", "b", "d"]);

        reactor.discard(sender.source()).unwrap();
        assert_eq!(sender.try_send("e".into()), Err(TrySendError::Disconnected("e".into())));
        assert_eq!(sender.send("f".into()).unwrap_err().0, "f");
    });
}

#[test]
fn a_channel_is_removed_and_stopped_by_its_handler() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let sender = reactor
            .channel(10, |seen: &mut Vec<u32>, cx, value: u32| {
                seen.push(value);
                match value {
                    2 => Ok(Flow::Stop),
                    4 => {
                        let key = cx.key();
                        cx.discard(key)?;
                        Ok(Flow::Continue)
                    }
                    _ => Ok(Flow::Continue),
                }
            })
            .unwrap();
        (1..=6).for_each(|value| sender.try_send(value).unwrap());
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen, [1, 2]);
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen, [1, 2, 3, 4], "after its removal nothing is handed over");
        assert!(matches!(sender.try_send(7), Err(TrySendError::Disconnected(7))));
    });
}

/// A channel with more than its budget takes its place in the queue again.
#[test]
fn a_channel_has_a_budget() {
    each(|backend| {
        let mut reactor = Reactor::builder().backend(backend).budget(2).build().unwrap();
        let senders: Vec<_> = (0..2)
            .map(|number| {
                reactor
                    .channel(10, move |seen: &mut Vec<u32>, _, ()| {
                        seen.push(number);
                        Ok(Flow::Continue)
                    })
                    .unwrap()
            })
            .collect();
        for _ in 0..3 {
            senders.iter().for_each(|sender| sender.try_send(()).unwrap());
        }
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, [0, 0, 1, 1, 0, 1]);
    });
}

#[test]
fn a_paused_channel_holds_its_values() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let sender = reactor
            .channel(10, |seen: &mut u32, _, value: u32| {
                *seen += value;
                Ok(Flow::Continue)
            })
            .unwrap();
        let source = sender.source();
        reactor.set_source_interest(source, None).unwrap();
        sender.try_send(1).unwrap();
        let mut seen = 0;
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, 0);
        reactor.set_source_interest(source, Interest::READABLE).unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, 1);
    });
}

#[test]
fn a_channel_that_pauses_itself_has_nothing_more() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let sender = reactor
            .channel(10, |seen: &mut Vec<u32>, cx, value: u32| {
                seen.push(value);
                let Key::Source(own) = cx.key() else { panic!("{:?}", cx.key()) };
                cx.set_source_interest(own, None)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        for value in 0..3 {
            sender.try_send(value).unwrap();
        }
        let mut seen = Vec::new();
        for expected in 1..=3 {
            settle(&mut reactor, &mut seen);
            assert_eq!(seen.len(), expected);
            reactor.set_source_interest(sender.source(), Interest::READABLE).unwrap();
        }
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, [0, 1, 2]);
    });
}

#[test]
fn handles_outlive_the_reactor() {
    each(|backend| {
        let mut reactor: Reactor<()> = reactor(backend);
        let waker = reactor.waker();
        let with_handler = reactor.add_waker(|_, _| Ok(Flow::Continue)).unwrap();
        let sender = reactor.channel(1, |_, _, _: u8| Ok(Flow::Continue)).unwrap();
        let stats = reactor.shared_stats();
        drop(reactor);
        waker.wake();
        with_handler.wake();
        assert!(matches!(sender.try_send(1), Err(TrySendError::Disconnected(1))));
        assert_eq!(stats.load().turns, 0);
    });
}

#[test]
fn a_pipe_talks_with_a_thread() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (key, theirs) = reactor
            .add_pipe(&zmq::Context::new(), |sum: &mut u64, cx, message| {
                let number = u64::from_be_bytes(message[1].try_into().unwrap());
                *sum += number;
                cx.own_socket()?.send(&number.to_be_bytes())?;
                Ok(if number == 100 { Flow::Remove } else { Flow::Continue })
            })
            .unwrap();
        let thread = thread::spawn(move || {
            for number in 1..=100_u64 {
                theirs.send(&[&b"add"[..], &number.to_be_bytes()]).unwrap();
                assert!(
                    theirs
                        .wait(pollux::socket::Interest::READABLE, Some(DEADLINE))
                        .unwrap()
                        .readable
                );
                let reply = theirs.receive_message().unwrap().unwrap();
                assert_eq!(reply.get(0).unwrap()[..], number.to_be_bytes());
            }
        });
        let mut sum = 0;
        reactor.run(&mut sum).unwrap();
        assert_eq!(sum, 5050);
        thread.join().unwrap();
        assert!(!reactor.contains(key));
    });
}

#[test]
fn another_thread_watches_the_counters() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let shared = reactor.shared_stats();
        let sender = reactor
            .channel(1, |seen: &mut u64, _, ()| {
                *seen += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let watcher = thread::spawn(move || {
            let started = Instant::now();
            let mut sent = 0;
            while shared.load().values_received < 100 {
                assert!(started.elapsed() < DEADLINE);
                if shared.load().values_received == sent {
                    sender.send(()).unwrap();
                    sent += 1;
                }
                thread::yield_now();
            }
        });
        let mut seen = 0;
        until(&mut reactor, &mut seen, |seen| *seen == 100);
        watcher.join().unwrap();
    });
}
