//! PLAIN with a ZAP handler, and CURVE where libzmq has it.

use std::time::Duration;

use pollux::Multipart;
use pollux::socket::{SendError, Socket, SocketType};

use crate::{bound, eventually, of, receive, send};

/// Answers requests of ZAP (RFC 27) for the name `ada` with the password `lovelace`.
fn answer(zap: &Socket) {
    while let Some(request) = zap.receive_message().unwrap() {
        let text: Vec<&str> =
            request.iter().map(|frame| std::str::from_utf8(frame).unwrap()).collect();
        let [version, id, domain, _address, _identity, mechanism, name, password] = text[..] else {
            panic!("{request:?}");
        };
        assert_eq!((version, domain, mechanism), ("1.0", "observatory", "PLAIN"));
        let (code, reason) =
            if (name, password) == ("ada", "lovelace") { ("200", "OK") } else { ("400", "No") };
        send(zap, &[version, id, code, reason, name, ""]);
    }
}

#[test]
fn plain_lets_in_who_knows_the_password() {
    let context = zmq::Context::new();
    let zap = of(SocketType::Rep).bind("inproc://zeromq.zap.01").build(&context).unwrap();
    let server = of(SocketType::Pull).plain_server().zap_domain("observatory");
    let (server, endpoint) = bound(&context, server);
    let client = |password| {
        of(SocketType::Push)
            .plain_client("ada", password)
            .linger(Duration::ZERO)
            .immediate(true)
            .connect(&endpoint)
            .build(&context)
            .unwrap()
    };
    let wrong = client("byron");
    let right = client("lovelace");
    eventually("the right one let in", || {
        answer(&zap);
        right.send("let me in").ok()
    });
    assert_eq!(receive(&server), Multipart::from(["let me in"]));
    answer(&zap);
    assert_eq!(wrong.send("let me in"), Err(SendError::WouldBlock));
}

#[test]
fn curve_where_libzmq_has_it() {
    let context = zmq::Context::new();
    if zmq::has("curve") != Some(true) {
        for builder in [
            of(SocketType::Pull).curve_server(&[1; 32]),
            of(SocketType::Push).curve_client(&[1; 32], &[2; 32], &[3; 32]),
        ] {
            let error = builder.build(&context).unwrap_err().to_string();
            assert!(error.contains("built without") && error.contains("README"), "{error}");
        }
        return;
    }
    let (server_keys, client_keys) =
        (zmq::CurveKeyPair::new().unwrap(), zmq::CurveKeyPair::new().unwrap());
    let (server, endpoint) =
        bound(&context, of(SocketType::Pull).curve_server(&server_keys.secret_key));
    let client = of(SocketType::Push)
        .curve_client(&client_keys.public_key, &client_keys.secret_key, &server_keys.public_key)
        .connect(endpoint)
        .build(&context)
        .unwrap();
    assert_eq!(client.as_zmq().get_mechanism(), Ok(zmq::Mechanism::ZMQ_CURVE));
    send(&client, "secret");
    assert_eq!(receive(&server), Multipart::from(["secret"]));
}
