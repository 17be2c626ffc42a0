//! HTTP over ZMQ_STREAM.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::common::{DEADLINE, Process};
use crate::{after, end, start};

fn server() -> (Process, String) {
    let mut server = start("http_status", &["tcp://127.0.0.1:*"]);
    let address = after(&mut server, "serving at http://");
    (server, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// The answer up to the end of the connection, which the server closes.
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A whole answer: its length is as announced.
fn body(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length.unwrap().parse::<usize>().unwrap(), body.len(), "{answer}");
    body
}

#[test]
fn a_page_of_event_counts() {
    let (server, address) = server();
    for number in 1..=3 {
        let mut stream = connect(&address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: pollux\r\n\r\n").unwrap();
        let answer = answer(stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(body(&answer).starts_with(&format!("answer {number}\nStats {{\n")), "{answer}");
        assert!(answer.contains("messages_received: "), "{answer}");
    }
    assert_eq!(end(server, "INT"), "answered 3 requests\n");
}

/// A request comes in whatever pieces the network makes, while others ask, and some go.
#[test]
fn split_requests_and_several_clients() {
    let (server, address) = server();
    let request = b"GET / HTTP/1.1\r\nHost: pollux\r\n\r\n";
    let mut streams: Vec<TcpStream> = (0..20).map(|_| connect(&address)).collect();
    for piece in request.chunks(5) {
        for stream in &mut streams {
            stream.set_nodelay(true).unwrap();
            stream.write_all(piece).unwrap();
        }
        // Somebody who goes in the middle of it.
        connect(&address).write_all(b"GET / HT").unwrap();
    }
    for stream in streams {
        assert!(body(&answer(stream)).starts_with("answer "));
    }
    assert_eq!(end(server, "TERM"), "answered 20 requests\n");
}

#[test]
fn what_it_does_not_have() {
    let (server, address) = server();
    for (request, status) in [
        (b"GET /favicon.ico HTTP/1.1\r\n\r\n".to_vec(), "404"),
        (b"\0\xff\r\n\r\n".to_vec(), "404"),
        ([&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 10_000]].concat(), "431"),
    ] {
        let mut stream = connect(&address);
        stream.write_all(&request).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(String::from_utf8_lossy(&line), format!("HTTP/1.1 {status}"));
    }
    end(server, "INT");
}

#[test]
fn curl_reads_it() {
    let (server, address) = server();
    match Command::new("curl").args(["-sS", &format!("http://{address}/")]).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            assert!(output.stdout.starts_with(b"answer 1\n"), "{output:?}");
        }
        Err(error) => println!("no curl here: {error}"),
    }
    end(server, "INT");
}
