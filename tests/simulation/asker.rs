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
    /// The end of the snapshot before, which may come twice.
    ended: Option<(u64, Vec<u8>)>,
    given: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
}

impl Asker {
    pub(crate) fn new(host: usize, server: usize) -> Asker {
        Asker { host, server, socket: None, ended: None, given: BTreeMap::new() }
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
                let end = (message.sequence.get(), message.body.to_vec());
                if self.ended.as_ref() == Some(&end) && self.given.is_empty() {
                    return;
                }
                self.ended = Some(end);
                net.coverage.count("asker: snapshot");
                let count = message.properties.parse::<u64>("count").expect("a count");
                let given = std::mem::take(&mut self.given);
                assert!(given.len() as u64 <= count, "{} of {count} entries", given.len());
                check_snapshot(truth, message.sequence.get(), message.body, &given);
            }
            key => {
                let value = (message.sequence.get(), message.body.to_vec());
                self.given.insert(key.to_vec(), value);
            }
        }
    }
}

/// A snapshot has each key as it was at its end, but for those that have changed
/// since.
pub(crate) fn check_snapshot(
    truth: &Truth,
    sequence: u64,
    subtree: &[u8],
    given: &BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
) {
    let Some(reign) = truth.reign_of(sequence) else { return };
    for (key, versions) in reign.under(subtree) {
        let Some(last) = versions.last().filter(|last| last.sequence <= sequence) else { continue };
        let value = given.get(&**key).map_or(&[][..], |(_, value)| value);
        assert!(
            *value == *last.value,
            "a snapshot up to {sequence} has {} as {:?}, not as {last:?}",
            key.escape_ascii(),
            given.get(&**key),
        );
    }
    for key in given.keys() {
        assert!(reign.knows(key), "a snapshot has {}, which never was", key.escape_ascii());
    }
}
