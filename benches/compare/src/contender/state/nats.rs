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
    let inbox = format!("_INBOX.{}", setter.name());
    Ok((Box::new(Setter { connection: setter, inbox }), Box::new(Watcher(watcher))))
}

pub(super) fn join(address: &str, keys: usize) -> Outcome<Map> {
    let mut connection = open(address)?;
    consume(&mut connection, "last_per_subject")?;
    let mut map = Map::new();
    while map.len() < keys {
        let (subject, body) = message(&mut connection)?;
        map.insert(subject, body.to_vec());
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

fn request(connection: &mut Connection, subject: &str, text: &str) -> Outcome<()> {
    let reply = connection.name();
    write!(connection.out(), "PUB {subject} _INBOX.{reply} {}\r\n{text}\r\n", text.len())?;
    connection.flush()?;
    let answer = String::from_utf8_lossy(body(connection)?);
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

/// The next message, as subject and body; answers pings on the way.
fn message(connection: &mut Connection) -> Outcome<(Vec<u8>, &[u8])> {
    let (subject, len) = head(connection, |line| {
        line.split(|byte| *byte == b' ').nth(1).unwrap_or_default().to_vec()
    })?;
    Ok((subject, connection.body(len)?))
}

/// The body of the next message, where it lies.
fn body(connection: &mut Connection) -> Outcome<&[u8]> {
    let (_, len) = head(connection, |_| ())?;
    connection.body(len)
}

/// What `read` makes of the line before a message, and the length of its body.
fn head<T>(connection: &mut Connection, read: impl Fn(&[u8]) -> T) -> Outcome<(T, usize)> {
    loop {
        let line = connection.line()?;
        if line.starts_with(b"MSG ") {
            let len = line.rsplit(|byte| *byte == b' ').next().ok_or("no length")?;
            return Ok((read(line), parse(len)?));
        }
        if line == b"PING" {
            connection.out().extend_from_slice(b"PONG\r\n");
            connection.flush()?;
        } else if line.starts_with(b"-ERR") {
            return Err(String::from_utf8_lossy(line).into());
        }
    }
}

struct Setter {
    connection: Connection,
    /// Where the answers go.
    inbox: String,
}

impl Changes for Setter {
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()> {
        let out = self.connection.out();
        out.extend_from_slice(b"PUB $KV.b.");
        let key = key.trim_start_matches('/').bytes();
        out.extend(key.map(|byte| if byte == b'/' { b'.' } else { byte }));
        write!(out, " {} {}\r\n", self.inbox, value.len())?;
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        self.connection.flush()
    }

    fn settle(&mut self) -> Outcome<()> {
        let answer = String::from_utf8_lossy(body(&mut self.connection)?);
        if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
    }

    fn settle_aside(&mut self) -> Outcome<()> {
        self.connection.forget_input();
        Ok(())
    }
}

struct Watcher(Connection);

impl Updates for Watcher {
    fn next(&mut self) -> Outcome<u64> {
        number(body(&mut self.0)?)
    }
}
