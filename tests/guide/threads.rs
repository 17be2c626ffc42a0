//! mtserver, mtrelay.

use std::collections::BTreeSet;
use std::thread;

use pollux::socket::SocketType;

use crate::{after, end, is_slowed, of, receive, send, socket, start};

#[test]
fn mt_server_answers_eight_clients() {
    let requests = if is_slowed() { 20 } else { 200 };
    let mut server = start("mt_server", &["tcp://127.0.0.1:*", "4"]);
    let endpoint = after(&mut server, "serving at ");
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let endpoint = endpoint.clone();
            thread::spawn(move || {
                let req = socket(of(SocketType::Req).connect(endpoint));
                let mut threads = BTreeSet::new();
                for number in 0..requests {
                    let request = format!("{client}/{number}");
                    send(&req, &request);
                    let reply = receive(&req);
                    assert_eq!(reply.get(0).unwrap(), request.as_bytes());
                    threads.insert(String::from_utf8_lossy(reply.get(1).unwrap()).into_owned());
                }
                threads
            })
        })
        .collect();
    let mut threads = BTreeSet::new();
    clients.into_iter().for_each(|client| threads.extend(client.join().unwrap()));
    assert_eq!(threads.len(), 4, "all threads work: {threads:?}");
    let output = end(server, "TERM");
    let served = output.lines().map(|line| line.rsplit(' ').next().unwrap());
    let served: u64 = served.map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!(served, 8 * requests);
}

#[test]
fn mt_relay_passes_every_signal() {
    let relay = start("mt_relay", &["500"]);
    assert_eq!(relay.finish().success(), "500 times through three threads and back\n");
}
