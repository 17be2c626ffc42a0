//! Redis: SET and PUBLISH in one pipeline, SUBSCRIBE on another connection; a late
//! joiner asks by SCAN, and by MGET for the values while the next SCAN is under way.

use std::io::Write;

use super::connection::{Connection, parse};
use super::{Changes, Map, Outcome, Sides, Updates, number};

const CHANNEL: &[u8] = b"updates";

pub(super) fn connect(address: &str) -> Outcome<Sides> {
    let mut updates = Connection::connect(address)?;
    command(updates.out(), &[b"SUBSCRIBE", CHANNEL]);
    updates.flush()?;
    if array(&mut updates)?.first().map(Vec::as_slice) != Some(b"subscribe") {
        return Err("Redis: no subscription".into());
    }
    Ok((Box::new(Setter(Connection::connect(address)?)), Box::new(Watcher(updates))))
}

struct Setter(Connection);

impl Changes for Setter {
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()> {
        let out = self.0.out();
        command(out, &[b"SET", key.as_bytes(), value]);
        // The channel carries key and value; the key has a known length.
        let _ = write!(out, "*3\r\n$7\r\nPUBLISH\r\n$7\r\n");
        out.extend_from_slice(CHANNEL);
        let _ = write!(out, "\r\n${}\r\n{key}", key.len() + value.len());
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        self.0.flush()
    }

    fn settle(&mut self) -> Outcome<()> {
        for _ in 0..2 {
            let line = self.0.line()?;
            if line.first() == Some(&b'-') {
                return Err(String::from_utf8_lossy(line).into());
            }
        }
        Ok(())
    }

    fn settle_aside(&mut self) -> Outcome<()> {
        self.0.forget_input();
        Ok(())
    }
}

const KEY_LEN: usize = b"/state/00000000".len();

struct Watcher(Connection);

impl Updates for Watcher {
    fn next(&mut self) -> Outcome<u64> {
        // Three elements: "message", the channel, the payload.
        self.0.line()?;
        for _ in 0..2 {
            let len = parse(&self.0.line()?[1..])?;
            self.0.body(len)?;
        }
        let len = parse(&self.0.line()?[1..])?;
        number(self.0.body(len)?.get(KEY_LEN..).ok_or("no value")?)
    }
}

pub(super) fn join(address: &str) -> Outcome<Map> {
    let mut connection = Connection::connect(address)?;
    let mut map = Map::new();
    let mut waiting: Option<Vec<Vec<u8>>> = None;
    let mut cursor = Some(b"0".to_vec());
    while cursor.is_some() || waiting.is_some() {
        if let Some(keys) = &waiting {
            let mut words: Vec<&[u8]> = vec![b"MGET"];
            words.extend(keys.iter().map(Vec::as_slice));
            command(connection.out(), &words);
        }
        if let Some(cursor) = &cursor {
            command(connection.out(), &[b"SCAN", cursor, b"COUNT", b"1000"]);
        }
        connection.flush()?;
        if let Some(keys) = waiting.take() {
            let values = array(&mut connection)?;
            map.extend(keys.into_iter().zip(values));
        }
        if cursor.is_some() {
            // Two elements: the next cursor, and the keys.
            connection.line()?;
            let len = parse(&connection.line()?[1..])?;
            let next = connection.body(len)?.to_vec();
            let keys = array(&mut connection)?;
            waiting = (!keys.is_empty()).then_some(keys);
            cursor = (next != b"0").then_some(next);
        }
    }
    Ok(map)
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// An array of strings; numbers come as their digits.
fn array(connection: &mut Connection) -> Outcome<Vec<Vec<u8>>> {
    let len = parse(&connection.line()?[1..])?;
    let mut all = Vec::with_capacity(len);
    for _ in 0..len {
        let line = connection.line()?;
        all.push(match line.first() {
            Some(b'$') => {
                let len = parse(&line[1..])?;
                connection.body(len)?.to_vec()
            }
            _ => line[1..].to_vec(),
        });
    }
    Ok(all)
}
