//! How a proxy ends: in order, with what it holds, or because something is gone.

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use pollux::Multipart;
use pollux::proxy::{Phase, Proxy, ProxyError, Side};
use pollux::socket::SocketType::*;
use pollux::socket::{SendError, Socket};

use super::{App, BACKENDS, World, numbered, of};

/// A proxy that holds a message for which there is nobody.
fn holding(backend: pollux::reactor::Backend, flush_time: Duration) -> (World, Socket, String) {
    let mut world = World::new(backend);
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.flush_time(flush_time));
    let push = world.connected(Push, &front);
    world.send(&push, &numbered(1));
    world.until("it is held", |app| (app.proxies[0].stats().backend.waits == 1).then_some(()));
    (world, push, back)
}

#[test]
fn an_idle_one_ends_in_the_next_turn() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, _back] = world.proxy(of(Router), of(Dealer), |proxy| proxy);
        world.app.proxies[0].terminate(&mut world.reactor);
        assert_eq!(world.phase(), Phase::Terminating);
        world.until("it ends", |app| app.ended.pop()).expect("in order");
        assert_eq!(world.phase(), Phase::Ended);
        assert_eq!(world.app.proxies[0].socket_key(Side::Frontend), None);
        // Nothing is left on the loop, and the name is free again.
        world.reactor.run(&mut world.app).expect("there is nothing to wait for");
        let context = world.context.clone();
        world.until("its sockets are closed", |_| of(Router).bind(&front).build(&context).ok());
        // Without effect now.
        for proxy in &mut world.app.proxies {
            proxy.pause(&mut world.reactor);
            proxy.resume(&mut world.reactor);
            proxy.terminate(&mut world.reactor);
            assert_eq!(proxy.phase(), Phase::Ended);
        }
    }
}

#[test]
fn what_is_held_is_sent_before_the_end() {
    for backend in BACKENDS {
        let (mut world, push, back) = holding(backend, Duration::from_secs(60));
        world.app.proxies[0].terminate(&mut world.reactor);
        world.settle();
        assert_eq!(world.phase(), Phase::Terminating);
        let _ = push.send("too late");
        let pull = world.connected(Pull, &back);
        assert_eq!(world.receive(&pull), numbered(1));
        world.until("it ends", |app| app.ended.pop()).expect("in order");
        assert_eq!(pull.receive_message().expect("receive"), None, "nothing more was read");
        assert_eq!((world.stats().backend.messages_out, world.stats().lost), (1, 0));
    }
}

#[test]
fn or_given_up_in_time_and_counted() {
    for backend in BACKENDS {
        let (mut world, _push, _back) = holding(backend, Duration::from_millis(5));
        world.app.proxies[0].pause(&mut world.reactor);
        world.app.proxies[0].terminate(&mut world.reactor);
        world.until("it ends", |app| app.ended.pop()).expect("in order");
        assert_eq!((world.stats().backend.messages_out, world.stats().lost), (0, 1));
    }
}

#[test]
fn a_terminated_context_ends_it_with_an_error_and_the_loop() {
    for backend in BACKENDS {
        for paused in [false, true] {
            let mut world = World::new(backend);
            let [_front, _back] = world.proxy(of(Router), of(Dealer), |proxy| proxy);
            if paused {
                world.app.proxies[0].pause(&mut world.reactor);
            }
            let World { mut reactor, mut app, mut context } = world;
            let ender = thread::spawn(move || {
                let ended = context.destroy();
                // It has freed what dropping it would use once more (zmq 0.10).
                std::mem::forget(context);
                ended
            });
            // Ends, since nothing is left.
            reactor.run(&mut app).expect("it ends");
            ender.join().expect("joined").expect("all sockets are closed");
            match app.ended.pop() {
                Some(Err(ProxyError::Removed | ProxyError::Socket { .. })) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(app.proxies[0].phase(), Phase::Ended);
        }
    }
}

#[test]
fn a_socket_that_is_removed_takes_the_proxy_with_it() {
    for side in [Side::Frontend, Side::Backend] {
        let mut world = World::new(pollux::reactor::Backend::Epoll);
        world.proxy(of(Router), of(Dealer), |proxy| proxy);
        let key = world.app.proxies[0].socket_key(side).expect("it is on the loop");
        drop(world.reactor.remove(key).expect("it was there"));
        let ended = world.until("it ends", |app| app.ended.pop());
        assert_eq!(ended, Err(ProxyError::Removed));
        world.reactor.run(&mut world.app).expect("there is nothing to wait for");
    }
}

#[test]
fn a_hook_that_panics_takes_the_proxy_with_it_and_not_the_loop() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, _] = world.proxy(of(Pull), of(Push), |proxy| {
            proxy.hook(|_, _, frames| panic!("a hook that fails at {:?}", frames[0]))
        });
        let [other_front, other_back] = world.proxy(of(Pull), of(Push), |proxy| proxy);
        let push = world.connected(Push, &front);
        push.send("anything").expect("room");
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..1000 {
                world.reactor.turn(&mut world.app, Duration::from_millis(1)).expect("a turn");
            }
        }));
        assert!(unwound.is_err());
        assert_eq!(world.until("it ends", |app| app.ended.pop()), Err(ProxyError::Removed));
        let push = world.connected(Push, &other_front);
        let pull = world.connected(Pull, &other_back);
        world.send(&push, "the other one");
        assert_eq!(world.receive(&pull), Multipart::from(["the other one"]));
    }
}

#[test]
fn one_is_attached_once() {
    let mut world = World::new(pollux::reactor::Backend::Epoll);
    world.proxy(of(Pull), of(Push), |proxy| proxy);
    let error =
        Proxy::attach(&mut world.reactor, &mut world.app, |app: &mut App| &mut app.proxies[0])
            .unwrap_err();
    assert!(error.to_string().contains("attached to a loop before"), "{error}");
    assert_eq!(world.phase(), Phase::Running, "the first attachment holds");
}

/// A peer that goes away in the middle of everything, again and again.
#[test]
fn peers_that_come_and_go_break_no_message() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(of(Pull), of(Push).send_hwm(3), |proxy| proxy);
        let push = world.connected(Push, &front);
        let mut number = 0;
        for _ in 0..50 {
            let pull = world.socket(of(Pull).receive_hwm(3).connect(&back));
            for _ in 0..20 {
                match push.send(&numbered(number)) {
                    Ok(()) => number += 1,
                    Err(SendError::WouldBlock) => world.settle(),
                    Err(error) => panic!("{error}"),
                }
            }
            let message = world.receive(&pull);
            assert_eq!(message.len(), 3, "{message:?}");
            assert!(message[0].starts_with(b"message "), "{message:?}");
        }
    }
}
