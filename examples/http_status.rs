//! HTTP over a STREAM socket: a page of the loop's own event counts, for a browser or curl.
//!
//!     cargo run --example http_status -- [ENDPOINT]    (tcp://127.0.0.1:8080)
//!
//! A message is a connection's routing id and a piece of its stream: whatever has come. An empty
//! one tells that the connection begins or ends, and sent, ends it.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use pollux::reactor::{Context, Missed, Stats};
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Message, Reactor, Time};
use signal_hook::consts::{SIGINT, SIGTERM};

const MAX_CONNECTIONS: usize = 256;
const MAX_REQUEST: usize = 8192;
const MAX_AGE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Server {
    /// Connections without an answer: since when, and what has come of the request.
    open: HashMap<Vec<u8>, (Time, Vec<u8>)>,
    answered: u64,
}

/// The answer, once the request is there as a whole.
fn answer(request: &[u8], number: u64, stats: &Stats) -> Option<String> {
    let whole = request.windows(4).any(|end| end == b"\r\n\r\n");
    (whole || request.len() > MAX_REQUEST).then_some(())?;
    let (status, text) = match request.starts_with(b"GET / ") {
        _ if !whole => ("431 Request Header Fields Too Large", String::new()),
        true => ("200 OK", format!("answer {number}\n{stats:#?}\n")),
        false => ("404 Not Found", "there is only GET /\n".into()),
    };
    let head = format!("Content-Type: text/plain\r\nContent-Length: {}", text.len());
    Some(format!("HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\n\r\n{text}"))
}

fn serve(server: &mut Server, cx: &mut Context<'_, Server>, message: Message) -> io::Result<Flow> {
    let (id, piece) = (&message[0], message.get(1).unwrap_or_default());
    let send = |piece: &[u8]| cx.own_socket().map(|socket| socket.send(&[id, piece]));
    if let Some((_, request)) = server.open.get_mut(id) {
        request.extend_from_slice(piece);
        if let Some(answer) = answer(request, server.answered + 1, &cx.stats()) {
            server.answered += 1;
            let _gone = (send(answer.as_bytes())?, send(b"")?, server.open.remove(id));
        } else if piece.is_empty() {
            server.open.remove(id);
        }
    } else if server.open.len() == MAX_CONNECTIONS {
        let _gone = send(b"")?;
    } else if piece.is_empty() {
        // Or the end of one that was answered, which goes when it is old.
        server.open.insert(id.to_vec(), (cx.now(), Vec::new()));
    }
    Ok(Flow::Continue)
}

fn main() -> io::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:8080".into());
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let socket = Socket::builder(SocketType::Stream).bind(endpoint).build(&zmq::Context::new())?;
    println!("serving at {}", socket.last_endpoint()?.replace("tcp:", "http:"));
    let socket = reactor.on_message(socket, serve)?;
    reactor.add_periodic(MAX_AGE / 10, Missed::Skip, move |server: &mut Server, cx| {
        let (now, socket) = (cx.now(), cx.socket(socket)?);
        for (id, _) in server.open.extract_if(|_, (since, _)| now.since(*since) > MAX_AGE) {
            let _gone = socket.send(&[&id[..], b""]);
        }
        Ok(Flow::Continue)
    });
    let mut server = Server::default();
    reactor.run(&mut server)?;
    println!("answered {} requests", server.answered);
    Ok(())
}
