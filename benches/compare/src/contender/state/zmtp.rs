//! Clients of a broker that speak ZMTP 3.0 themselves, without libzmq, as those of Redis
//! and NATS speak their protocols: what is measured with them is the broker and its
//! libzmq alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::connection::Connection;
use super::{Changes, Map, Outcome, Sides, Updates, Uuids, number};

/// Bits of a frame's first byte (RFC 23, framing).
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

pub(super) fn connect(changes: &str, updates: &str) -> Outcome<Sides> {
    let mut updates = open(updates, "SUB")?;
    frame(updates.out(), 0, b"\x01/state/");
    updates.flush()?;
    let mut setter = Setter { push: open(changes, "PUSH")?, uuids: Uuids::new() };
    let mut watcher = Watcher(updates);
    // Until the first probe is heard the subscription may be under way; those that come
    // later bear the number 0, which nobody waits for.
    let is_heard = AtomicBool::new(false);
    thread::scope(|scope| -> Outcome<()> {
        let prober = scope.spawn(|| -> Outcome<()> {
            while !is_heard.load(Ordering::Relaxed) {
                setter.set("/state/probe", &[0; 8])?;
                setter.flush()?;
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        let first = watcher.next();
        is_heard.store(true, Ordering::Relaxed);
        prober.join().map_err(|_| "the probe has failed")??;
        first.map(drop)
    })?;
    Ok((Box::new(setter), Box::new(watcher)))
}

/// All entries below `/state/`, by a DEALER.
pub(super) fn join(snapshots: &str) -> Outcome<Map> {
    let mut dealer = open(snapshots, "DEALER")?;
    frame(dealer.out(), MORE, b"ICANHAZ?");
    frame(dealer.out(), 0, b"/state/");
    dealer.flush()?;
    let mut map = Map::new();
    loop {
        let (_, len) = message_head(&mut dealer)?;
        let key = dealer.exactly(len)?.to_vec();
        let value = last(&mut dealer)?;
        if key == b"KTHXBAI" {
            return Ok(map);
        }
        map.insert(key, value.to_vec());
    }
}

/// A connection after the handshake of the NULL mechanism.
fn open(endpoint: &str, socket_type: &str) -> Outcome<Connection> {
    let address = endpoint.strip_prefix("tcp://").ok_or("ZMTP by hand is for tcp")?;
    let mut connection = Connection::connect(address)?;
    // Signature, version 3.0, mechanism, no server of a mechanism, filler.
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9..11].copy_from_slice(&[0x7f, 3]);
    greeting[12..16].copy_from_slice(b"NULL");
    let out = connection.out();
    out.extend_from_slice(&greeting);
    let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
    ready.extend_from_slice(&(socket_type.len() as u32).to_be_bytes());
    ready.extend_from_slice(socket_type.as_bytes());
    frame(out, COMMAND, &ready);
    connection.flush()?;
    if connection.exactly(64)?[12..16] != *b"NULL" {
        return Err("the server wants a mechanism".into());
    }
    let (flags, len) = head(&mut connection)?;
    let body = connection.exactly(len)?;
    if flags & COMMAND == 0 || !body.starts_with(b"\x05READY") {
        return Err(format!("not READY: {}", String::from_utf8_lossy(body)).into());
    }
    Ok(connection)
}

fn frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(len) => out.extend_from_slice(&[flags, len]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Flags of the next frame, and the length of its body, which comes next.
#[inline]
fn head(connection: &mut Connection) -> Outcome<(u8, usize)> {
    let &[flags, len] = connection.exactly(2)? else { unreachable!("two bytes") };
    if flags & LONG == 0 {
        return Ok((flags, usize::from(len)));
    }
    let mut long = [len, 0, 0, 0, 0, 0, 0, 0];
    long[1..].copy_from_slice(connection.exactly(7)?);
    Ok((flags, usize::try_from(u64::from_be_bytes(long))?))
}

/// The same of a frame that must belong to a message.
#[inline]
fn message_head(connection: &mut Connection) -> Outcome<(u8, usize)> {
    match head(connection)? {
        (flags, _) if flags & COMMAND != 0 => Err("a command that nobody has asked for".into()),
        head => Ok(head),
    }
}

/// The last frame of a message, or of the rest of one.
#[inline]
fn last(connection: &mut Connection) -> Outcome<&[u8]> {
    loop {
        let (flags, len) = message_head(connection)?;
        if flags & MORE == 0 {
            return connection.exactly(len);
        }
        connection.exactly(len)?;
    }
}

struct Setter {
    push: Connection,
    uuids: Uuids,
}

impl Changes for Setter {
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()> {
        let out = self.push.out();
        for body in [key.as_bytes(), &[0; 8], self.uuids.next(), b""] {
            frame(out, MORE, body);
        }
        frame(out, 0, value);
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        self.push.flush()
    }
}

struct Watcher(Connection);

impl Updates for Watcher {
    fn next(&mut self) -> Outcome<u64> {
        number(last(&mut self.0)?)
    }
}
