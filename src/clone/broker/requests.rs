//! Requests on port P: snapshots and figures.

use super::snapshots::{Request, Slice};
use super::{Broker, BrokerOutbox, warn_rarely};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{DEMOTE, ICANHAZ, KvMsg, PEER, PROMOTE, RESUBMIT, STATUS, UUIDS};
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
            [ICANHAZ, subtree] | [ICANHAZ, subtree, _]
                if subtree.len() > self.config.limits.max_key =>
            {
                // Before anything of it is kept: a frame may have more than a value.
                self.refuse_request("the subtree is longer than any key");
            }
            [ICANHAZ] => self.take_request(peer, Request::new(delimited, b"")),
            [ICANHAZ, subtree] => self.take_request(peer, Request::new(delimited, subtree)),
            [ICANHAZ, subtree, properties] => {
                let mut request = Request::new(delimited, subtree);
                if let Ok(properties) = Properties::check(properties, &self.config.limits) {
                    let since = properties.parse::<u64>("since").map(Sequence::from_u64);
                    request.replica = properties.get("order") == Some(b"changes");
                    request.refusals = request.replica && properties.get("refusals").is_some();
                    if since.is_some_and(|since| self.holds(since)) {
                        request.since = since;
                        return self.hold_request(peer, request);
                    }
                    // Unless it was given in this history, it means nothing here.
                    request.since = since.filter(|&since| {
                        !self.serves()
                            || self.lineage.contains(since, self.sequence)
                            || Fault::TrustAnotherRun.is_planted()
                    });
                }
                self.take_request(peer, request);
            }
            [STATUS] => self.send_status(peer, delimited, out),
            [verb @ (PROMOTE | DEMOTE)] => self.take_order(peer, verb, out),
            [verb @ (PEER | RESUBMIT | UUIDS), ..] if self.pair.is_some() => {
                self.handle_pair_request(peer, verb, request, out);
            }
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

    pub(super) fn take_request(&mut self, peer: &[u8], request: Request) {
        if !self.serves() {
            match self.relay {
                None => self.vote(&request),
                Some(_) => self.hold_without_state(),
            }
        }
        match self.snapshots.push(peer, request) {
            Ok(()) => self.stats.snapshots_requested += 1,
            Err(reason) => self.refuse_request(reason),
        }
    }

    fn refuse_request(&mut self, why: &str) {
        self.stats.snapshots_refused += 1;
        warn_rarely(self.stats.snapshots_refused, "snapshot refused", &why);
    }

    pub(super) fn serve_snapshots(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.snapshots.len() == 0 {
            return;
        }
        self.refresh_capabilities();
        let mut slice = Slice {
            store: &mut self.store,
            stats: &mut self.stats,
            recent: &self.recent,
            refused: &self.refused,
            lineage: &self.lineage,
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
        if let Some(pair) = &self.pair {
            pair.figures(self.sequence, self.follow_stats, &self.recent, to);
        }
        if let Some(relay) = &self.relay {
            relay.figures(self.sequence, self.follow_stats, to);
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
