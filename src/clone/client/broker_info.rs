//! [`BrokerInfo`]: what a broker tells of itself.

use std::time::Duration;

use super::config::ClientConfig;
use crate::clone::collector::Collector;
use crate::clone::kvmsg::{KvMsg, Limits};
use crate::clone::sequence::Sequence;

/// Heartbeat intervals that are believed; others are taken for the nearest.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;

/// What the broker announced with its heartbeats and at the end of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerInfo {
    /// Whether it knows the extensions (`chp=2`); else an RFC 12 server.
    pub extended: bool,
    /// This run of this broker.
    pub node: Option<u64>,
    /// Its epoch.
    pub epoch: u32,
    /// How it takes changes.
    pub collector: Collector,
    /// Its heartbeat interval, 1 s unless announced.
    pub heartbeat: Duration,
    /// Longest key and largest value it takes.
    pub limits: Limits,
    /// Changes up to here are safe: what a live standby has confirmed.
    pub stable: Sequence,
    /// Whether it is one of a pair.
    pub paired: bool,
    /// Whether it has a live standby, without which what is safe is lost with it.
    pub has_standby: bool,
    /// What it took over from the epochs before its own: of these, sequences up to here
    /// belong to its history.
    pub fork: Sequence,
    /// Where the epoch of `fork` began; zero if that is not told.
    pub fork_from: Sequence,
    /// Whether it has only a part of the tree: a relay of a subtree.
    pub partial: bool,
    /// Up to here it is known that it lacks nothing; beyond it a relay of a subtree may have
    /// missed what it has not noticed yet.
    pub proven: Sequence,
    /// Whether it is a relay that does not hear the broker it follows: what it has may be old,
    /// and changes wait at it.
    pub upstream_lost: bool,
}

impl BrokerInfo {
    /// Reads a heartbeat or the end of a snapshot; `None` from a standby,
    /// which does not serve.
    pub(crate) fn read(kvmsg: &KvMsg<'_>, config: &ClientConfig) -> Option<BrokerInfo> {
        match kvmsg.properties.get("role") {
            Some(b"passive") => None,
            _ => BrokerInfo::read_any(kvmsg, config),
        }
    }

    /// The same from a standby, too.
    pub(crate) fn read_any(kvmsg: &KvMsg<'_>, config: &ClientConfig) -> Option<BrokerInfo> {
        let properties = kvmsg.properties;
        if properties.parse::<u32>("chp").is_none_or(|version| version < 2) {
            return Some(BrokerInfo {
                extended: false,
                node: None,
                epoch: 0,
                collector: config.rfc12_collector,
                heartbeat: Duration::from_secs(1),
                limits: config.limits,
                stable: Sequence::ZERO,
                paired: false,
                has_standby: false,
                fork: Sequence::ZERO,
                fork_from: Sequence::ZERO,
                partial: false,
                proven: Sequence::MAX,
                upstream_lost: false,
            });
        }
        let heartbeat_ms = properties.parse::<u64>("hb").unwrap_or(1000);
        let mut limits = config.limits;
        limits.max_key = properties.parse("maxkey").unwrap_or(limits.max_key);
        limits.max_value = properties.parse("maxval").unwrap_or(limits.max_value);
        let node = properties.get("node").and_then(|hex| str::from_utf8(hex).ok());
        Some(BrokerInfo {
            extended: true,
            node: node.and_then(|hex| u64::from_str_radix(hex, 16).ok()),
            epoch: properties.parse("epoch").unwrap_or_else(|| kvmsg.sequence.epoch()),
            collector: properties.parse("collector").unwrap_or(Collector::Pull),
            heartbeat: Duration::from_millis(
                heartbeat_ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end()),
            ),
            limits,
            stable: properties.parse("stable").unwrap_or_default(),
            paired: properties.get("standby").is_some(),
            has_standby: properties.get("standby") == Some(b"live"),
            fork: properties.parse("fork").unwrap_or_default(),
            fork_from: properties.parse("fork_from").unwrap_or_default(),
            partial: properties.get("subtree").is_some(),
            proven: properties.parse("proven").unwrap_or(Sequence::MAX),
            upstream_lost: properties.get("upstream") == Some(b"lost"),
        })
    }

    /// Whether `other` is the same run of the same broker, as far as is known.
    pub(crate) fn is_same(&self, other: &BrokerInfo) -> bool {
        self.extended == other.extended && self.node == other.node
    }

    /// Whether what has this sequence survives the loss of this broker.
    pub(crate) fn is_safe(&self, sequence: Sequence) -> bool {
        (!self.paired || self.has(sequence)) && sequence <= self.stable
    }

    /// Whether a sequence that one of the pair gave is known to be in its history: of its
    /// own epoch, or of the one before, up to where it took over. What another gave
    /// beyond that it never had, and of epochs before it says nothing.
    pub(crate) fn has(&self, sequence: Sequence) -> bool {
        let is_taken_over = sequence <= self.fork && sequence.epoch() == self.fork.epoch();
        sequence.epoch() == self.epoch || is_taken_over
    }

    /// By which sequence to tell when something is safe that this broker says it has: what
    /// another one gave before the last takeover but one was there when its epoch began.
    pub(crate) fn as_its_own(&self, sequence: Sequence) -> Sequence {
        match self.paired && sequence.epoch() < self.epoch && !self.has(sequence) {
            true => Sequence::new(self.epoch, 0),
            false => sequence,
        }
    }

    /// Whether it has taken over what was given this sequence. Two histories may have used
    /// one epoch, if both brokers died and were started within two minutes: they differ in
    /// where it began.
    pub(crate) fn took_over(&self, sequence: Sequence) -> bool {
        self.fork_from != Sequence::ZERO
            && self.fork_from.epoch() == self.fork.epoch()
            && (self.fork_from..=self.fork).contains(&sequence)
    }

    /// How long it may be silent. If there are others to turn to, that is shorter.
    pub(crate) fn patience(&self, config: &ClientConfig) -> Duration {
        match (self.extended, config.servers) {
            (true, 1) => self.watch_patience(config),
            (true, _) => self.heartbeat * 2,
            (false, _) => config.heartbeat_timeout,
        }
    }

    /// How long the heartbeats of a subtree may be missing while others come.
    pub(crate) fn watch_patience(&self, config: &ClientConfig) -> Duration {
        match self.extended {
            true => (self.heartbeat * 3).max(Duration::from_secs(1)),
            false => config.heartbeat_timeout,
        }
    }
}
