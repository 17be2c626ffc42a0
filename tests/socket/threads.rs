//! Threads the ZeroMQ way: one context, inproc, and sockets that each have one owner.

use std::thread;

use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketType, ZmqContext, pair};

use crate::{DEADLINE, of, receive, send};

/// Every pair of types that the Guide names, the connecting side first.
#[test]
fn inproc_connects_before_it_is_bound() {
    use SocketType::*;
    for (connects, binds) in [
        (Push, Pull),
        (Req, Rep),
        (Req, Router),
        (Dealer, Rep),
        (Dealer, Router),
        (Dealer, Dealer),
        (Pair, Pair),
    ] {
        let context = ZmqContext::new().unwrap();
        let early = of(connects).connect("inproc://late").build(&context).unwrap();
        // The empty frame is the end of the envelope that REP expects.
        early.send(&["", "said", "early"]).unwrap();
        let late = of(binds).bind("inproc://late").build(&context).unwrap();
        let message = receive(&late);
        let last = message.get(message.len() - 1).unwrap();
        assert_eq!(last, "early", "{connects} to {binds}");
    }
    let context = ZmqContext::new().unwrap();
    let early = of(Sub).subscribe("news").connect("inproc://late").build(&context).unwrap();
    let late = of(XPub).bind("inproc://late").build(&context).unwrap();
    assert_eq!(receive(&late), Multipart::from(["\u{1}news"]));
    late.send("news").unwrap();
    assert_eq!(receive(&early), Multipart::from(["news"]));
}

/// inproc is a name space of one context.
#[test]
fn another_context_has_other_names() {
    let (one, other) = (ZmqContext::new().unwrap(), ZmqContext::new().unwrap());
    let _bound = of(SocketType::Pull).bind("inproc://name").build(&one).unwrap();
    let push = of(SocketType::Push).connect("inproc://name").build(&other).unwrap();
    // Nobody is there yet: it waits in the queue of the connection to be.
    push.send("whoever").unwrap();
    let pull = of(SocketType::Pull).bind("inproc://name").build(&other).unwrap();
    assert_eq!(receive(&pull), Multipart::from(["whoever"]));
}

/// The Guide's signalling between threads: an empty message down, one up.
#[test]
fn pairs_signal_up_and_down() {
    let context = ZmqContext::new().unwrap();
    let (mut up, first) = pair(&context).unwrap();
    let mut threads = Vec::new();
    // A chain: each thread starts the next one with its pipe, and passes signals on.
    for _ in 0..8 {
        let (next, below) = pair(&context).unwrap();
        let above = std::mem::replace(&mut up, next);
        threads.push(thread::spawn(move || {
            assert_eq!(receive(&below), Multipart::from([""]));
            send(&above, "");
        }));
    }
    send(&up, "");
    assert_eq!(receive(&first), Multipart::from([""]));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A PAIR has one peer: a second one is not heard, and does not disturb.
#[test]
fn a_pair_has_one_peer() {
    let context = ZmqContext::new().unwrap();
    let bound = of(SocketType::Pair).bind("inproc://pair").build(&context).unwrap();
    let first = of(SocketType::Pair).connect("inproc://pair").build(&context).unwrap();
    let second = of(SocketType::Pair).connect("inproc://pair").build(&context).unwrap();
    send(&first, "first");
    let _unheard = second.send("second");
    assert_eq!(receive(&bound), Multipart::from(["first"]));
    assert_eq!(bound.receive_message(), Ok(None));
    send(&bound, "answer");
    assert_eq!(receive(&first), Multipart::from(["answer"]));
    assert_eq!(second.receive_message(), Ok(None));
}

/// A socket goes to another thread and comes back, with all that waits in it.
#[test]
fn a_socket_may_move() {
    let context = ZmqContext::new().unwrap();
    let (near, far) = pair(&context).unwrap();
    near.send("before").unwrap();
    let far = thread::spawn(move || {
        assert_eq!(receive(&far), Multipart::from(["before"]));
        far
    })
    .join()
    .unwrap();
    near.send("after").unwrap();
    assert_eq!(receive(&far), Multipart::from(["after"]));
}

/// A pool of workers with REP behind a DEALER, fed by threads with REQ.
#[test]
fn a_pool_of_workers_shares_no_state() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 200;
    let context = ZmqContext::new().unwrap();
    let router = of(SocketType::Router).bind("inproc://clients").build(&context).unwrap();
    let dealer = of(SocketType::Dealer).bind("inproc://workers").build(&context).unwrap();
    let workers: Vec<_> = (0..3).map(|_| thread::spawn(worker(&context))).collect();
    let clients: Vec<_> =
        (0..CLIENTS).map(|index| thread::spawn(client(&context, index, REQUESTS))).collect();
    let mut replies = 0;
    while replies < CLIENTS * REQUESTS {
        while let Some(request) = router.receive_message().unwrap() {
            send(&dealer, &request);
        }
        while let Some(reply) = dealer.receive_message().unwrap() {
            send(&router, &reply);
            replies += 1;
        }
    }
    clients.into_iter().for_each(|thread| thread.join().unwrap());
    // They learn from the context that it is over.
    context.shutdown();
    let done: usize = workers.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(done, CLIENTS * REQUESTS);
    drop((router, dealer));
    context.terminate(DEADLINE).unwrap();
}

fn worker(context: &ZmqContext) -> impl FnOnce() -> usize + Send + use<> {
    let rep = of(SocketType::Rep).connect("inproc://workers").build(context).unwrap();
    move || {
        let mut done = 0;
        while rep.wait(Interest::READABLE, None).is_ok() {
            match rep.receive_message() {
                Ok(Some(request)) => match rep.send(&request) {
                    Ok(()) => done += 1,
                    Err(SendError::Failed(_)) => break,
                    Err(error) => panic!("{error}"),
                },
                Ok(None) => {}
                Err(_) => break,
            }
        }
        done
    }
}

fn client(context: &ZmqContext, index: usize, requests: usize) -> impl FnOnce() + Send + use<> {
    let req: Socket = of(SocketType::Req).connect("inproc://clients").build(context).unwrap();
    move || {
        for number in 0..requests {
            let text = format!("{index}/{number}");
            send(&req, &text);
            assert_eq!(receive(&req), Multipart::from([text]));
        }
    }
}
