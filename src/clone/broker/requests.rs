//! Requests on port P: snapshots and figures.

use super::snapshots::{Request, Slice};
use super::{Broker, BrokerOutbox, warn_rarely};
use crate::clone::kvmsg::{ICANHAZ, KvMsg, STATUS};
use crate::clone::properties::Properties;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

impl Broker {
    /// Handles a message from port P without its routing id, which is `peer`.
    pub fn handle_request(
        &mut self,
        peer: &[u8],
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let delimited = message.len() > 1 && message.get(0) == Some(b"");
        let request = if delimited { message.skip(1) } else { message };
        match *request.frames() {
            [ICANHAZ] => self.take_request(peer, delimited, b"", None),
            [ICANHAZ, subtree] => self.take_request(peer, delimited, subtree, None),
            [ICANHAZ, subtree, properties] => {
                let since = Properties::check(properties, &self.config.limits)
                    .ok()
                    .and_then(|properties| properties.parse::<u64>("since"))
                    .map(Sequence::from_u64)
                    // This run never gave it: it means nothing here.
                    .filter(|since| *since <= self.sequence);
                self.take_request(peer, delimited, subtree, since);
            }
            [STATUS] => self.send_status(peer, delimited, out),
            _ => {
                self.stats.requests_malformed += 1;
                let verb = request.get(0).unwrap_or_default();
                warn_rarely(
                    self.stats.requests_malformed,
                    "request dropped",
                    &format_args!(
                        "expected ICANHAZ? with a subtree, or STATUS?; got {} frame(s), the first \
                         \"{}\"",
                        request.len(),
                        verb[..verb.len().min(32)].escape_ascii()
                    ),
                );
            }
        }
    }

    fn take_request(
        &mut self,
        peer: &[u8],
        delimited: bool,
        subtree: &[u8],
        since: Option<Sequence>,
    ) {
        let outcome = if subtree.len() > self.config.limits.max_key {
            Err("the subtree is longer than any key")
        } else {
            self.snapshots.push(peer, Request { delimited, subtree: subtree.into(), since })
        };
        match outcome {
            Ok(()) => self.stats.snapshots_requested += 1,
            Err(reason) => {
                self.stats.snapshots_refused += 1;
                warn_rarely(self.stats.snapshots_refused, "snapshot refused", &reason);
            }
        }
    }

    pub(super) fn serve_snapshots(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.snapshots.len() == 0 {
            return;
        }
        self.refresh_capabilities();
        let mut slice = Slice {
            store: &mut self.store,
            stats: &mut self.stats,
            scratch: &mut self.scratch,
            capabilities: &self.capabilities,
            now,
        };
        self.snapshots.serve(&mut slice, out);
    }

    fn send_status(&mut self, peer: &[u8], delimited: bool, out: &mut impl BrokerOutbox) {
        self.stats.status_requests += 1;
        self.refresh_capabilities();
        let to = &mut self.scratch;
        to.clear();
        to.copy_except(self.capabilities.as_properties(), &[]);
        to.push("sequence", self.sequence.get());
        to.push("keys", self.store.len());
        to.push("bytes", self.store.bytes());
        to.push("tombstones", self.store.tombstones());
        to.push("watched_subtrees", self.watched.len());
        to.push("snapshots_active", self.snapshots.len());
        to.push("uuids_remembered", self.recent.len());
        for (name, count) in self.stats.fields() {
            to.push(name, count);
        }
        let status = KvMsg {
            key: STATUS,
            sequence: self.sequence,
            uuid: None,
            properties: to.as_properties(),
            body: b"",
        };
        let sent = status.with_frames(|frames| match delimited {
            false => out.reply(peer, frames),
            true => {
                let [key, sequence, uuid, properties, body] = *frames;
                out.reply(peer, &[b"", key, sequence, uuid, properties, body])
            }
        });
        if let Err(failure) = sent {
            log::debug!("the answer to STATUS? was not taken: {failure:?}");
        }
    }
}
