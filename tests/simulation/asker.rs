//! A peer that asks raw questions on the snapshot port, as a REQ does, or one
//! that asks too much and reads too little.

use std::collections::BTreeMap;

use pollux::Message;
use pollux::clone::{KvMsg, Limits};

use crate::frames::Frames;
use crate::net::{Net, Port, SocketKind};
use crate::truth::Truth;

#[derive(Debug)]
pub(crate) struct Asker {
    host: usize,
    server: usize,
    socket: Option<usize>,
    given: Given,
}

/// Values of keys, each with its sequence.
pub(crate) type Entries = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// What came on one connection for snapshots since the last one ended.
#[derive(Default)]
pub(crate) struct Given {
    entries: Vec<(Vec<u8>, u64, Vec<u8>)>,
    last: Option<Frames>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entries.fmt(f)
    }
}

impl Given {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether this is the message before, once more.
    pub(crate) fn is_doubled(&mut self, frames: &Frames) -> bool {
        self.last.replace(frames.clone()).is_some_and(|last| last.is(frames))
    }

    pub(crate) fn take(&mut self, key: &[u8], sequence: u64, value: &[u8]) {
        self.entries.push((key.to_vec(), sequence, value.to_vec()));
    }

    /// Entries of the snapshot that ends, which has so many of them if it says so. What came
    /// before them is of snapshots that were given up, and have no end: that, too, was once so.
    pub(crate) fn end(&mut self, count: Option<u64>, truth: &Truth) -> Entries {
        let mut entries = std::mem::take(&mut self.entries);
        for (key, sequence, value) in &entries {
            let Some(reign) = truth.reign_of(*sequence) else { continue };
            let version = reign.at(key, *sequence);
            assert!(
                version.is_some_and(|it| it.sequence == *sequence && *it.value == **value),
                "a snapshot has {} at {sequence} as {value:?}, not as {version:?}",
                key.escape_ascii()
            );
        }
        let count = count.map_or(entries.len(), |count| count as usize);
        let before = entries.len().saturating_sub(count);
        let given = entries.drain(before..).map(|(key, sequence, value)| (key, (sequence, value)));
        given.collect()
    }
}

impl Asker {
    pub(crate) fn new(host: usize, server: usize) -> Asker {
        Asker { host, server, socket: None, given: Given::default() }
    }

    fn open(&mut self, net: &mut Net, reads: bool) -> usize {
        if let Some(socket) = self.socket.take() {
            net.close(socket);
        }
        let socket = net.open(self.host, SocketKind::Dealer);
        net.connect(socket, self.server, Port::Snapshots);
        net.read(socket, reads);
        self.socket = Some(socket);
        self.given.clear();
        socket
    }

    pub(crate) fn ask(
        &mut self,
        net: &mut Net,
        subtree: &str,
        delimited: bool,
        times: u64,
        reads: bool,
    ) {
        let socket = self.open(net, reads);
        for time in 0..times {
            // One subtree is not asked for twice at a time: ask for others.
            let prefixes = ["", "/a/", "/b/", "/c/", "/a/deep/"];
            let subtree = match time {
                0 => subtree.to_owned(),
                time => format!("{}{time}", prefixes[time as usize % prefixes.len()]),
            };
            match delimited {
                true => net.request(socket, &[b"", b"ICANHAZ?", subtree.as_bytes()]),
                false => net.request(socket, &[b"ICANHAZ?", subtree.as_bytes()]),
            }
        }
    }

    pub(crate) fn ask_status(&mut self, net: &mut Net) {
        let socket = self.open(net, true);
        net.request(socket, &[b"STATUS?"]);
    }

    /// Checks an answer: complete up to its sequence.
    pub(crate) fn message(&mut self, net: &mut Net, truth: &Truth, frames: &Frames) {
        if self.given.is_doubled(frames) {
            return;
        }
        frames.with(|message| match message.get(0) {
            Some(b"") => {
                net.coverage.count("asker: whole answer");
                self.given.clear();
                for five in message.skip(1).frames().chunks(5) {
                    self.take(net, truth, Message::new(five));
                }
            }
            _ => self.take(net, truth, message),
        });
    }

    fn take(&mut self, net: &mut Net, truth: &Truth, message: Message<'_>) {
        let message = KvMsg::decode(message, &Limits::default()).expect("a sound answer");
        match message.key {
            b"STATUS?" => net.coverage.count("asker: status"),
            b"KTHXBAI" => {
                net.coverage.count("asker: snapshot");
                let count = message.properties.parse::<u64>("count").expect("a count");
                let came = self.given.entries.len() as u64;
                assert!(came >= count, "{came} of {count} entries");
                let given = self.given.end(Some(count), truth);
                check_snapshot(truth, message.sequence.get(), message.body, &given);
            }
            key => self.given.take(key, message.sequence.get(), message.body),
        }
    }
}

/// A snapshot has each key as it was at its end, but for those that have changed
/// since, in the same epoch or in one in which the broker went on meanwhile: that change is
/// on its way as such.
pub(crate) fn check_snapshot(truth: &Truth, sequence: u64, subtree: &[u8], given: &Entries) {
    let Some(reign) = truth.reign_of(sequence) else { return };
    for (key, versions) in reign.under(subtree) {
        let Some(last) = versions.last().filter(|last| last.sequence <= sequence) else { continue };
        let value = given.get(&**key).map_or(&[][..], |(_, value)| value);
        assert!(
            *value == *last.value || truth.is_changed_later(key, sequence),
            "a snapshot up to {sequence} has {} as {:?}, not as {last:?}",
            key.escape_ascii(),
            given.get(&**key),
        );
    }
    for key in given.keys() {
        assert!(reign.knows(key), "a snapshot has {}, which never was", key.escape_ascii());
    }
}
