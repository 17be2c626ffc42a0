//! Contexts of our own: options, shutdown, termination.

use std::thread;
use std::time::Duration;

use pollux::Multipart;
use pollux::socket::{Errno, Interest, Socket, SocketType, ZmqContext};

use crate::{DEADLINE, of, receive, send};

#[test]
fn every_option_arrives() {
    let context = ZmqContext::new().unwrap();
    assert_eq!((context.io_threads(), context.max_sockets(), context.ipv6()), (1, 1023, false));
    let context = ZmqContext::builder()
        .io_threads(3)
        .max_sockets(7)
        .ipv6(true)
        .zero_copy_receive(false)
        .thread_name_prefix(42)
        .io_thread_cpus([0; 0])
        .build()
        .unwrap();
    assert_eq!((context.io_threads(), context.max_sockets(), context.ipv6()), (3, 7, true));
    let _socket = Socket::new(&context, SocketType::Pull).unwrap();
    // Each thread gives itself its name.
    crate::eventually("three threads with names", || {
        (names_of_threads("42/ZMQbg/IO/") == 3).then_some(())
    });
}

fn names_of_threads(prefix: &str) -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread may end meanwhile.
        std::fs::read_to_string(task.unwrap().path().join("comm")).ok()
    });
    names.filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn values_out_of_range_are_refused() {
    for (builder, text) in [
        (ZmqContext::builder().io_threads(65), "set IO_THREADS: expected 0 to 64, got 65"),
        (ZmqContext::builder().max_sockets(0), "set MAX_SOCKETS: expected 1 to 65535, got 0"),
        (
            ZmqContext::builder().io_threads(u32::MAX).max_sockets(0),
            "set IO_THREADS: expected 0 to 64, got 4294967295",
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.errno()), (text, Errno::EINVAL));
    }
    let error = ZmqContext::builder().io_thread_cpus([1023]).build().unwrap_err().to_string();
    assert!(error.starts_with("set THREAD_AFFINITY_CPU_ADD: expected one of"), "{error}");
}

#[test]
fn the_threads_stay_on_their_processors() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first: u32 = list.trim().split(['-', ',']).next().unwrap().parse().unwrap();
    let context =
        ZmqContext::builder().io_thread_cpus([first]).thread_name_prefix(43).build().unwrap();
    let _socket = Socket::new(&context, SocketType::Pull).unwrap();
    crate::eventually("the I/O thread on its processor", || {
        std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
            let ours = line("Name:")?.trim().starts_with("43/ZMQbg/IO");
            (ours && line("Cpus_allowed_list:")?.trim() == first.to_string()).then_some(())
        })
    });
}

#[test]
fn its_limit_of_sockets() {
    let context = ZmqContext::builder().max_sockets(2).build().unwrap();
    let kept: Vec<_> = (0..2).map(|_| Socket::new(&context, SocketType::Pair).unwrap()).collect();
    let error = Socket::new(&context, SocketType::Pull).unwrap_err();
    assert_eq!((error.errno(), error.operation()), (Errno::EMFILE, "create"));
    assert!(error.to_string().contains("that of the context"), "{error}");
    drop(kept);
    crate::eventually("a place", || Socket::new(&context, SocketType::Pull).ok());
}

/// Where zero copy is on, neighbours in a message are neighbours in memory: one buffer keeps all
/// of them.
#[test]
fn without_zero_copy_frames_have_memory_of_their_own() {
    let contexts = [true, false].map(|on| ZmqContext::builder().zero_copy_receive(on).build());
    let [with, without] = contexts.map(Result::unwrap);
    assert!(ZmqContext::new().unwrap().has_zero_copy_receive());
    for (context, is_shared) in [(with, true), (without, false)] {
        assert_eq!(context.has_zero_copy_receive(), is_shared);
        let pull = of(SocketType::Pull).bind("tcp://127.0.0.1:*").build(&context).unwrap();
        let endpoint = pull.last_endpoint().unwrap();
        let push = of(SocketType::Push).connect(endpoint).build(&context).unwrap();
        send(&push, &vec![vec![7_u8; 100]; 20][..]);
        pull.wait(Interest::READABLE, Some(DEADLINE)).unwrap();
        let mut frames = Vec::new();
        assert!(pull.receive_frames(&mut frames).unwrap());
        let places: Vec<usize> = frames.iter().map(|frame| frame.as_ptr().addr()).collect();
        // Between two frames lie the two bytes of ZMTP's header.
        let neighbours = places.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) == 102);
        assert_eq!(neighbours.count() > 0, is_shared, "{places:?}");
    }
}

#[test]
fn without_io_threads_there_is_inproc() {
    let context = ZmqContext::builder().io_threads(0).build().unwrap();
    let pull = of(SocketType::Pull).bind("inproc://only").build(&context).unwrap();
    let push = of(SocketType::Push).connect("inproc://only").build(&context).unwrap();
    send(&push, "hello");
    assert_eq!(receive(&pull), Multipart::from(["hello"]));
    let error = pull.bind("tcp://127.0.0.1:*").unwrap_err();
    assert_eq!(error.errno(), Errno::EMTHREAD);
    assert_eq!(
        error.to_string(),
        "bind tcp://127.0.0.1:* (PULL): No thread available; \
         give the context an I/O thread, or use inproc"
    );
}

/// Two threads that wait, one for ever, are told by a third.
#[test]
fn a_shutdown_from_another_thread_ends_all_waiting() {
    let context = ZmqContext::new().unwrap();
    let waiting: Vec<_> = [SocketType::Pull, SocketType::Rep, SocketType::Dealer]
        .into_iter()
        .map(|socket_type| {
            let socket = of(socket_type).bind("tcp://127.0.0.1:*").build(&context).unwrap();
            thread::spawn(move || {
                let answer = socket.wait(Interest::READABLE, None);
                (answer, socket.receive_message().unwrap_err().errno())
            })
        })
        .collect();
    context.clone().shutdown();
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), (Err(Errno::ETERM), Errno::ETERM));
    }
    let error = Socket::new(&context, SocketType::Pull).unwrap_err();
    assert_eq!(error.to_string(), "create (PULL): Context was terminated; close the socket");
    context.shutdown(); // once more does nothing
    context.terminate(DEADLINE).unwrap();
}

#[test]
fn termination_waits_for_others_or_says_who_is_left() {
    let context = ZmqContext::new().unwrap();
    let (clone, socket) = (context.clone(), Socket::new(&context, SocketType::Pull).unwrap());
    let in_use = context.terminate(Duration::from_millis(1)).unwrap_err();
    assert_eq!(in_use.handles, 2);
    drop(clone);
    let in_use = in_use.context.terminate(Duration::ZERO).unwrap_err();
    assert_eq!(in_use.handles, 1);
    let holder = thread::spawn(move || {
        while socket.events() != Err(Errno::ETERM) {}
        drop(socket);
    });
    in_use.context.terminate(DEADLINE).unwrap();
    holder.join().unwrap();

    let context = ZmqContext::new().unwrap();
    let _socket = Socket::new(&context, SocketType::Pull).unwrap();
    let error = context.terminate(Duration::ZERO).unwrap_err().error();
    assert_eq!(
        error.to_string(),
        "terminate context: 1 of its handles and sockets are still in use; \
         drop them, or join their threads"
    );
}

/// A context and its sockets, with and without something to say, bound, connected to
/// somebody and to nobody, in each order of going.
#[test]
fn sockets_and_context_go_in_every_order() {
    fn orders(rest: Vec<usize>, order: Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if rest.is_empty() {
            all.push(order);
            return;
        }
        for (place, index) in rest.iter().enumerate() {
            let mut rest = rest.clone();
            rest.remove(place);
            orders(rest, [&order[..], &[*index]].concat(), all);
        }
    }
    let mut all = Vec::new();
    orders((0..5).collect(), Vec::new(), &mut all);
    assert_eq!(all.len(), 120);
    for (number, order) in all.into_iter().enumerate() {
        let context = ZmqContext::new().unwrap();
        let make = |socket_type| of(socket_type).linger(Duration::from_millis(1));
        let pull = make(SocketType::Pull).bind("tcp://127.0.0.1:*").build(&context).unwrap();
        let endpoint = pull.last_endpoint().unwrap();
        let push = make(SocketType::Push).connect(endpoint).build(&context).unwrap();
        let early = make(SocketType::Pair).connect("inproc://never-bound").build(&context).unwrap();
        let lonely = make(SocketType::Dealer).connect("tcp://127.0.0.1:9").build(&context).unwrap();
        for socket in [&push, &early, &lonely] {
            socket.send(&["under", "way"]).unwrap();
        }
        if number % 2 == 0 {
            context.shutdown();
        }
        let mut things: Vec<Option<Box<dyn std::any::Any>>> = vec![
            Some(Box::new(context)),
            Some(Box::new(pull)),
            Some(Box::new(push)),
            Some(Box::new(early)),
            Some(Box::new(lonely)),
        ];
        for index in order {
            things[index] = None;
        }
    }
}

/// It must neither hang nor use a context that has ended.
#[test]
fn a_socket_given_away_does_not_end_the_context() {
    let context = ZmqContext::new().unwrap();
    let raw = of(SocketType::Pull).bind("inproc://raw").build(&context).unwrap().into_zmq();
    let push = of(SocketType::Push).connect("inproc://raw").build(&context).unwrap();
    drop(context);
    send(&push, "still");
    drop(push);
    assert_eq!(receive(&Socket::from_zmq(raw).unwrap()), Multipart::from(["still"]));
}
