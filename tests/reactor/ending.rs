//! Threads the ZeroMQ way around a loop, and how all of it ends.

use std::thread;
use std::time::Duration;

use pollux::reactor::{Flow, Key, Reactor, SocketKey};
use pollux::socket::{Errno, Interest, Socket, SocketType, ZmqContext};

use crate::{DEADLINE, each, reactor, until};

/// Requests from clients go by a DEALER to threads, of which half wait in a REP socket and
/// half have a loop of their own; replies find their way back. Then the context ends them all.
#[test]
fn a_pool_of_workers_around_the_loop() {
    const CLIENTS: usize = 6;
    const REQUESTS: usize = 100;
    struct Pool {
        clients: SocketKey,
        workers: SocketKey,
        replies: usize,
    }
    each(|backend| {
        let context = ZmqContext::new().unwrap();
        let make = |socket_type| Socket::builder(socket_type);
        let router = make(SocketType::Router).bind("inproc://clients").build(&context).unwrap();
        let dealer = make(SocketType::Dealer).bind("inproc://workers").build(&context).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|index| {
                let rep = make(SocketType::Rep).connect("inproc://workers");
                let rep = rep.build(&context).unwrap();
                thread::spawn(move || if index % 2 == 0 { wait(&rep) } else { looping(rep) })
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let req = make(SocketType::Req).connect("inproc://clients");
                let req = req.build(&context).unwrap();
                thread::spawn(move || ask(&req, client, REQUESTS))
            })
            .collect();

        let mut reactor = reactor(backend);
        let clients_key = reactor
            .on_message(router, |pool: &mut Pool, cx, request| {
                cx.socket(pool.workers)?.send(&request)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        let workers_key = reactor
            .on_message(dealer, |pool: &mut Pool, cx, reply| {
                cx.socket(pool.clients)?.send(&reply)?;
                pool.replies += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.on_error(|_, cx, error| panic!("{:?}: {error}", cx.key()));
        let mut pool = Pool { clients: clients_key, workers: workers_key, replies: 0 };
        until(&mut reactor, &mut pool, |pool| pool.replies == CLIENTS * REQUESTS);
        clients.into_iter().for_each(|client| client.join().unwrap());
        context.shutdown();
        let served: Vec<usize> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(served.iter().sum::<usize>(), CLIENTS * REQUESTS);
        assert!(served.iter().all(|count| *count > 0), "{served:?}");
        drop(reactor);
        context.terminate(DEADLINE).unwrap();
    });
}

fn wait(rep: &Socket) -> usize {
    let mut served = 0;
    while rep.wait(Interest::READABLE, None).is_ok() {
        if let Ok(Some(request)) = rep.receive_message() {
            rep.send(&request).unwrap();
            served += 1;
        }
    }
    served
}

/// The loop ends by itself when its last socket is gone.
fn looping(rep: Socket) -> usize {
    let mut reactor = Reactor::new().unwrap();
    reactor
        .on_message(rep, |served: &mut usize, cx, request| {
            cx.own_socket()?.send(&request)?;
            *served += 1;
            Ok(Flow::Continue)
        })
        .unwrap();
    let mut served = 0;
    reactor.run(&mut served).unwrap();
    assert_eq!(reactor.stats().sockets_terminated, 1);
    served
}

fn ask(req: &Socket, client: usize, requests: usize) {
    for number in 0..requests {
        let request = format!("{client}/{number}");
        req.send(&request).unwrap();
        assert!(req.wait(Interest::READABLE, Some(DEADLINE)).unwrap().readable);
        let reply = req.receive_message().unwrap().unwrap();
        assert_eq!(reply.get(0).unwrap(), request.as_bytes());
    }
}

/// A loop that sleeps is told by another thread that the context ends: its sockets go, with an
/// error each, and it ends, for nothing is left to wait for.
#[test]
fn a_shutdown_from_another_thread_ends_a_sleeping_loop() {
    each(|backend| {
        let context = ZmqContext::new().unwrap();
        let mut reactor = reactor(backend);
        for socket_type in [SocketType::Pull, SocketType::Router] {
            let socket = Socket::builder(socket_type).bind("tcp://127.0.0.1:*");
            let socket = socket.build(&context).unwrap();
            reactor.on_message(socket, |_: &mut Vec<Key>, _, _| Ok(Flow::Continue)).unwrap();
        }
        reactor.on_error(|ended: &mut Vec<Key>, cx, error| {
            let errno = error.get_ref().and_then(|inner| inner.downcast_ref::<Errno>());
            assert_eq!(errno, Some(&Errno::ETERM));
            ended.push(cx.key());
            Flow::Remove
        });
        let mut ended = Vec::new();
        crate::settle(&mut reactor, &mut ended);
        let other = context.clone();
        let ending = thread::spawn(move || other.shutdown());
        reactor.run(&mut ended).unwrap();
        assert_eq!(ended.len(), 2);
        ending.join().unwrap();
        // The loop has closed them, so nobody is waited for.
        context.terminate(DEADLINE).unwrap();
    });
}

/// Loop, sockets outside of it, and context go in every order, with messages under way.
#[test]
fn loop_sockets_and_context_go_in_every_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        each(|backend| {
            let context = ZmqContext::new().unwrap();
            let linger = Duration::from_millis(1);
            let pull = Socket::builder(SocketType::Pull).bind("tcp://127.0.0.1:*");
            let pull = pull.build(&context).unwrap();
            let push = Socket::builder(SocketType::Push).linger(linger);
            let push = push.connect(pull.last_endpoint().unwrap()).build(&context).unwrap();
            let mut reactor = reactor(backend);
            reactor.on_message(pull, |(): &mut (), _, _| Ok(Flow::Continue)).unwrap();
            let (_, theirs) =
                reactor.add_pipe(&context, |(): &mut (), _, _| Ok(Flow::Continue)).unwrap();
            theirs.send("under way").unwrap();
            push.send("under way").unwrap();
            reactor.turn(&mut (), Duration::ZERO).unwrap();
            let mut things: [Option<Box<dyn std::any::Any>>; 3] =
                [Some(Box::new(context)), Some(Box::new((push, theirs))), Some(Box::new(reactor))];
            order.into_iter().for_each(|index| things[index] = None);
        });
    }
}
