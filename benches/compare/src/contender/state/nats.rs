//! NATS key-value: puts into a JetStream bucket in memory, each with its
//! acknowledgement; a watch is a consumer of the bucket, a late joiner one that begins
//! with the last value of each key.

use std::io::Write;

use super::connection::{Connection, parse};
use super::{Changes, Map, Outcome, Sides, Updates, number};

const BUCKET: &str = r#"{"name":"KV_b","subjects":["$KV.b.>"],"storage":"memory",
    "max_msgs_per_subject":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"discard":"new",
    "retention":"limits","num_replicas":1,"allow_rollup_hdrs":true,"deny_delete":true}"#;

pub(super) fn connect(address: &str) -> Outcome<Sides> {
    let mut setter = open(address)?;
    request(&mut setter, "$JS.API.STREAM.CREATE.KV_b", BUCKET)?;
    let mut watcher = open(address)?;
    consume(&mut watcher, "new")?;
    Ok((Box::new(Setter(setter)), Box::new(Watcher(watcher))))
}

pub(super) fn join(address: &str, keys: usize) -> Outcome<Map> {
    let mut connection = open(address)?;
    consume(&mut connection, "last_per_subject")?;
    let mut map = Map::new();
    while map.len() < keys {
        let message = message(&mut connection)?;
        map.insert(message.subject, message.body);
    }
    Ok(map)
}

fn open(address: &str) -> Outcome<Connection> {
    let mut connection = Connection::connect(address)?;
    connection.line()?;
    write!(connection.out(), "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n")?;
    let name = connection.name();
    write!(connection.out(), "SUB _INBOX.{name} 1\r\n")?;
    connection.flush()?;
    Ok(connection)
}

fn request(connection: &mut Connection, subject: &str, body: &str) -> Outcome<()> {
    let reply = connection.name();
    write!(connection.out(), "PUB {subject} _INBOX.{reply} {}\r\n{body}\r\n", body.len())?;
    connection.flush()?;
    let answer = message(connection)?.body;
    let answer = String::from_utf8_lossy(&answer);
    if answer.contains("\"error\"") { Err(format!("NATS: {answer}").into()) } else { Ok(()) }
}

/// Messages of the bucket come to this connection from now on.
fn consume(connection: &mut Connection, from: &str) -> Outcome<()> {
    let name = connection.name();
    write!(connection.out(), "SUB watch.{name} 2\r\n")?;
    let config = format!(
        r#"{{"stream_name":"KV_b","config":{{"deliver_subject":"watch.{name}",
        "deliver_policy":"{from}","ack_policy":"none","replay_policy":"instant","max_deliver":1,
        "filter_subject":"$KV.b.>","mem_storage":true}}}}"#
    );
    request(connection, "$JS.API.CONSUMER.CREATE.KV_b", &config)
}

struct Message {
    subject: Vec<u8>,
    body: Vec<u8>,
}

/// The next message; answers pings on the way.
fn message(connection: &mut Connection) -> Outcome<Message> {
    loop {
        let line = connection.line()?;
        if line.starts_with(b"MSG ") {
            let mut words = line.split(|byte| *byte == b' ');
            let subject = words.nth(1).ok_or("no subject")?.to_vec();
            let len = parse(words.next_back().ok_or("no length")?)?;
            let body = connection.body(len)?.to_vec();
            return Ok(Message { subject, body });
        }
        if line == b"PING" {
            connection.out().extend_from_slice(b"PONG\r\n");
            connection.flush()?;
        } else if line.starts_with(b"-ERR") {
            return Err(String::from_utf8_lossy(line).into());
        }
    }
}

struct Setter(Connection);

impl Changes for Setter {
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()> {
        let (name, key) = (self.0.name(), key.trim_start_matches('/').replace('/', "."));
        let out = self.0.out();
        write!(out, "PUB $KV.b.{key} _INBOX.{name} {}\r\n", value.len())?;
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        self.0.flush()
    }

    fn settle(&mut self) -> Outcome<()> {
        let answer = message(&mut self.0)?.body;
        let answer = String::from_utf8_lossy(&answer);
        if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
    }

    fn settle_aside(&mut self) -> Outcome<()> {
        self.0.forget_input();
        Ok(())
    }
}

struct Watcher(Connection);

impl Updates for Watcher {
    fn next(&mut self) -> Outcome<u64> {
        number(&message(&mut self.0)?.body)
    }
}
