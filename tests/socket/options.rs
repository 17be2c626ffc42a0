//! Options reach libzmq, and only the right ones.

use std::time::Duration;

use pollux::Multipart;
use pollux::socket::{Errno, SocketBuilder, SocketError, SocketType};
use zmq::{Context, Socket as Raw};

use crate::{ALL_TYPES, of, receive, send};

/// What `read` finds on a DEALER made with `set`.
fn reflected<T>(
    set: impl Fn(SocketBuilder) -> SocketBuilder,
    read: impl Fn(&Raw) -> zmq::Result<T>,
) -> T {
    let context = Context::new();
    let socket = set(of(SocketType::Dealer)).build(&context).unwrap();
    read(socket.as_zmq()).unwrap()
}

#[test]
fn options_reach_libzmq() {
    let ms = Duration::from_millis;
    let seconds = Duration::from_secs;
    assert_eq!(reflected(|b| b.send_hwm(17), Raw::get_sndhwm), 17);
    assert_eq!(reflected(|b| b.receive_hwm(0), Raw::get_rcvhwm), 0);
    assert_eq!(reflected(|b| b.linger(ms(250)), Raw::get_linger), 250);
    assert_eq!(reflected(|b| b.linger(None), Raw::get_linger), -1);
    assert_eq!(reflected(|b| b.linger(Duration::from_nanos(1)), Raw::get_linger), 1);
    assert!(reflected(|b| b.immediate(true), Raw::is_immediate));
    assert!(!reflected(|b| b.immediate(true).immediate(false), Raw::is_immediate));
    assert_eq!(reflected(|b| b.max_message_size(1 << 33), Raw::get_maxmsgsize), 1 << 33);
    assert_eq!(reflected(|b| b.heartbeat_interval(seconds(2)), Raw::get_heartbeat_ivl), 2000);
    assert_eq!(reflected(|b| b.heartbeat_timeout(seconds(3)), Raw::get_heartbeat_timeout), 3000);
    assert_eq!(reflected(|b| b.heartbeat_ttl(ms(4900)), Raw::get_heartbeat_ttl), 4900);
    assert_eq!(reflected(|b| b.heartbeat_ttl(ms(1)), Raw::get_heartbeat_ttl), 100);
    assert_eq!(reflected(|b| b.heartbeat_ttl(ms(6_553_500)), Raw::get_heartbeat_ttl), 6_553_500);
    assert_eq!(reflected(|b| b.tcp_keepalive(true), Raw::get_tcp_keepalive), 1);
    assert_eq!(reflected(|b| b.tcp_keepalive(false), Raw::get_tcp_keepalive), 0);
    assert_eq!(reflected(|b| b.tcp_keepalive_count(5), Raw::get_tcp_keepalive_cnt), 5);
    assert_eq!(reflected(|b| b.tcp_keepalive_idle(ms(1500)), Raw::get_tcp_keepalive_idle), 2);
    assert_eq!(
        reflected(|b| b.tcp_keepalive_interval(seconds(7)), Raw::get_tcp_keepalive_intvl),
        7
    );
    assert_eq!(reflected(|b| b.reconnect_interval(ms(50)), Raw::get_reconnect_ivl), 50);
    assert_eq!(reflected(|b| b.reconnect_interval(None), Raw::get_reconnect_ivl), -1);
    assert_eq!(
        reflected(|b| b.reconnect_interval_max(seconds(5)), Raw::get_reconnect_ivl_max),
        5000
    );
    assert_eq!(reflected(|b| b.connect_timeout(seconds(1)), Raw::get_connect_timeout), 1000);
    assert_eq!(reflected(|b| b.handshake_interval(seconds(1)), Raw::get_handshake_ivl), 1000);
    assert_eq!(reflected(|b| b.send_buffer(65_536), Raw::get_sndbuf), 65_536);
    assert_eq!(reflected(|b| b.receive_buffer(32_768), Raw::get_rcvbuf), 32_768);
    assert_eq!(reflected(|b| b.type_of_service(0xb8), Raw::get_tos), 0xb8);
    assert_eq!(reflected(|b| b.backlog(7), Raw::get_backlog), 7);
    assert!(reflected(|b| b.ipv6(true), Raw::is_ipv6));
    assert_eq!(reflected(|b| b.affinity(1 << 63 | 1), Raw::get_affinity), 1 << 63 | 1);
    assert_eq!(reflected(|b| b.routing_id([1, 0, 2]), Raw::get_identity), [1, 0, 2]);
    assert!(reflected(|b| b.conflate(true), Raw::is_conflate));
    assert!(reflected(|b| b.plain_server(), Raw::is_plain_server));
    let user = reflected(|b| b.plain_client("user", "password"), Raw::get_plain_username);
    assert_eq!(user.unwrap(), "user");
    let password = reflected(|b| b.plain_client("user", "password"), Raw::get_plain_password);
    assert_eq!(password.unwrap(), "password");
    assert_eq!(reflected(|b| b.zap_domain("domain"), Raw::get_zap_domain).unwrap(), "domain");
}

#[test]
fn an_address_in_brackets_is_one_of_ipv6_and_nothing_else_changes() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6: not tested");
        return;
    }
    let context = Context::new();
    let pull = of(SocketType::Pull).bind("tcp://[::1]:*").build(&context).unwrap();
    let endpoint = pull.last_endpoint().unwrap();
    assert!(endpoint.starts_with("tcp://[::1]:"), "{endpoint}");
    assert!(!pull.as_zmq().is_ipv6().unwrap(), "for other endpoints it is as it was");
    let push = of(SocketType::Push).connect(&*endpoint).build(&context).unwrap();
    send(&push, "over IPv6");
    assert_eq!(receive(&pull), Multipart::from(["over IPv6"]));
    let error = of(SocketType::Pull).bind("tcp://[::x]:*").build(&context).unwrap_err();
    assert!(error.to_string().contains("IPv6 one in brackets"), "{error}");
}

#[test]
fn getters_tell_what_was_set() {
    let context = Context::new();
    let socket = of(SocketType::Dealer)
        .send_hwm(3)
        .receive_hwm(4)
        .max_message_size(5)
        .routing_id("six")
        .build(&context)
        .unwrap();
    assert_eq!(socket.send_hwm(), Ok(3));
    assert_eq!(socket.receive_hwm(), Ok(4));
    assert_eq!(socket.max_message_size(), Ok(Some(5)));
    assert_eq!(socket.routing_id(), Ok(b"six".to_vec()));
    assert_eq!(socket.last_endpoint(), Ok(String::new()));
    socket.set_send_hwm(30).unwrap();
    socket.set_receive_hwm(40).unwrap();
    assert_eq!((socket.send_hwm(), socket.receive_hwm()), (Ok(30), Ok(40)));
    let plain = of(SocketType::Pull).build(&context).unwrap();
    assert_eq!(plain.max_message_size(), Ok(None));
    assert_eq!(plain.routing_id(), Ok(vec![]));
    let name = format!("inproc://{}", "n".repeat(5000));
    assert_eq!(plain.bind(&name), Ok(name), "a name longer than the first buffer");
}

type Set = fn(SocketBuilder) -> SocketBuilder;

/// The options that not all types have, and those which do.
const SPECIAL: [(&str, Set, &[SocketType]); 17] = {
    use SocketType::*;
    [
        ("ROUTER_MANDATORY", |b| b.mandatory(true), &[Router]),
        ("ROUTER_HANDOVER", |b| b.handover(true), &[Router]),
        ("ROUTER_RAW", |b| b.raw(true), &[Router]),
        ("PROBE_ROUTER", |b| b.probe_router(true), &[Router, Dealer, Req]),
        ("XPUB_VERBOSE", |b| b.verbose(true), &[XPub]),
        ("XPUB_VERBOSER", |b| b.verboser(true), &[XPub]),
        ("XPUB_NODROP", |b| b.nodrop(true), &[Pub, XPub]),
        ("INVERT_MATCHING", |b| b.invert_matching(true), &[Pub, XPub, Sub]),
        ("CONFLATE", |b| b.conflate(true), &[Push, Pull, Pub, Sub, Dealer]),
        ("REQ_RELAXED", |b| b.relaxed(true), &[Req]),
        ("REQ_CORRELATE", |b| b.correlate(true), &[Req]),
        ("STREAM_NOTIFY", |b| b.notify(false), &[Stream]),
        ("SUBSCRIBE", |b| b.subscribe("topic"), &[Sub]),
        ("ROUTING_ID", |b| b.routing_id("me"), &[Req, Rep, Dealer, Router]),
        ("CONNECT_ROUTING_ID", |b| b.connect_as(b"it", "tcp://127.0.0.1:9"), &[Router, Stream]),
        ("ROUTER_RAW", |b| b.raw(false), &[Router]),
        ("SUBSCRIBE", |b| b.subscribe(""), &[Sub]),
    ]
};

#[test]
fn options_are_for_the_types_that_have_them() {
    let context = Context::new();
    for (name, set, types) in SPECIAL {
        for socket_type in ALL_TYPES {
            let result = set(of(socket_type).linger(Duration::ZERO)).build(&context);
            if types.contains(&socket_type) {
                result.unwrap_or_else(|error| panic!("{error}"));
                continue;
            }
            let error = result.expect_err(name);
            assert_eq!(error.errno(), Errno::EINVAL);
            let names: Vec<&str> = types.iter().map(|expected| expected.name()).collect();
            // In the order of the table of options, which need not be that above.
            let text = error.to_string();
            assert!(text.starts_with(&format!("set {name} ({socket_type}): expected ")), "{text}");
            assert!(names.iter().all(|name| text.contains(name)), "{text}");
        }
    }
}

#[test]
fn runtime_options_are_checked_too() {
    let context = Context::new();
    let socket = of(SocketType::Push).build(&context).unwrap();
    assert_eq!(
        socket.set_mandatory(true).unwrap_err().to_string(),
        "set ROUTER_MANDATORY (PUSH): expected a socket of type ROUTER"
    );
    assert!(socket.subscribe(b"").is_err() && socket.unsubscribe(b"").is_err());
    assert!(socket.connect_as(b"name", "tcp://127.0.0.1:9").is_err());
    assert!(socket.set_send_hwm(u32::MAX).is_err());
    assert!(socket.set_linger(Duration::MAX).is_err());
}

fn refused(builder: SocketBuilder) -> SocketError {
    builder.build(&Context::new()).expect_err("out of range")
}

#[test]
fn values_out_of_range_say_what_was_expected() {
    let dealer = || of(SocketType::Dealer);
    for (builder, text) in [
        (
            dealer().send_hwm(u32::MAX),
            "set SNDHWM (DEALER): expected at most 2147483647, got 4294967295",
        ),
        (
            dealer().heartbeat_ttl(Duration::from_secs(7000)),
            "set HEARTBEAT_TTL (DEALER): expected at most 6553.5s, got 7000s",
        ),
        (
            dealer().linger(Duration::from_secs(3_000_000)),
            "set LINGER (DEALER): expected at most 2147483.647s, got 3000000s",
        ),
        (
            dealer().tcp_keepalive_idle(Duration::from_secs(1 << 31)),
            "set TCP_KEEPALIVE_IDLE (DEALER): expected at most 2147483647s, got 2147483648s",
        ),
        (
            dealer().max_message_size(u64::MAX),
            "set MAXMSGSIZE (DEALER): expected at most 9223372036854775807, got 18446744073709551615",
        ),
        (dealer().routing_id(""), "set ROUTING_ID (DEALER): expected 1 to 255 bytes, got 0"),
        (
            dealer().routing_id([1; 256]),
            "set ROUTING_ID (DEALER): expected 1 to 255 bytes, got 256",
        ),
        (
            dealer().routing_id([0, 1]),
            "set ROUTING_ID (DEALER): expected a first byte other than 0, which libzmq keeps for itself",
        ),
        (
            dealer().plain_client("user", ""),
            "set PLAIN_PASSWORD (DEALER): expected 1 to 255 bytes, got 0",
        ),
        (dealer().zap_domain(""), "set ZAP_DOMAIN (DEALER): expected 1 to 255 bytes, got 0"),
    ] {
        let error = refused(builder);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.errno(), Errno::EINVAL);
    }
}

#[test]
fn the_first_mistake_counts() {
    let error = refused(of(SocketType::Pull).mandatory(true).send_hwm(u32::MAX).subscribe("a"));
    assert!(error.to_string().contains("ROUTER_MANDATORY"), "{error}");
    let error = refused(of(SocketType::Pull).subscribe("a").mandatory(true).bind("nonsense"));
    assert!(error.to_string().contains("SUBSCRIBE"), "{error}");
    let error = refused(of(SocketType::Pull).bind("inproc://fine").bind("nonsense"));
    assert_eq!(error.endpoint(), Some("nonsense"));
}
