//! [`ClientConfig`]: what a client follows, and its limits.

use std::fmt;
use std::time::Duration;

use crate::clone::collector::Collector;
use crate::clone::kvmsg::{Limits, is_reserved};

/// What a client follows, how patient it is, how much it holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Which keys to follow: byte prefixes, empty for all keys, by custom
    /// `/segment/.../` (`/a` is also the start of `/ab`). None may be the start
    /// of another. Without any the client only writes.
    pub subtrees: Vec<Vec<u8>>,
    /// The broker counts as lost after this long without a word (RFC 12
    /// servers). A broker that announces its heartbeat interval gets three of
    /// those, at least a second. 5 s.
    pub heartbeat_timeout: Duration,
    /// A snapshot that makes no progress for this long is asked for again; the
    /// time doubles with each attempt in vain, up to 16 times. 2 s.
    pub request_timeout: Duration,
    /// A change without an answer is sent again after this long, which doubles
    /// each time, up to 32 times; after four times as long to a server of
    /// RFC 12, which would apply it twice. 500 ms.
    pub resend_after: Duration,
    /// A change without an answer is given up after this long. 10 s.
    pub give_up_after: Duration,
    /// How many servers the owner knows, one of which is active: see
    /// [`ClientOutbox::turn_to`](super::ClientOutbox::turn_to). 1.
    pub servers: usize,
    /// Keeps each change until it is [safe](super::Event::Safe), and sends it to the
    /// broker that takes over if that may not have it. With several servers it is so
    /// anyway. `false`.
    pub until_safe: bool,
    /// A change that was applied but is not safe is kept no longer than this: brokers
    /// remember uuids for a minute. 60 s.
    pub keep_for: Duration,
    /// Changes without an answer, or kept until they are safe: `set` and `delete` refuse
    /// more. 100,000.
    pub max_pending: usize,
    /// Bytes of keys and values of these changes. 256 MiB.
    pub max_pending_bytes: usize,
    /// Keys of the map, all subtrees together. While a snapshot comes in, the
    /// map it replaces is still held beside it. 10,000,000.
    pub max_keys: usize,
    /// Bytes of their keys and values. 4 GiB.
    pub max_bytes: usize,
    /// Events of keys that may wait for [`Client::poll_event`], beyond which
    /// they are dropped and [`Event::Overrun`] says so. 65,536.
    ///
    /// [`Client::poll_event`]: super::Client::poll_event
    /// [`Event::Overrun`]: super::Event::Overrun
    pub max_events: usize,
    /// Keys outside the subtrees that may have changes under way at the same
    /// time; more wait their turn. Each costs a subscription. 256.
    pub max_echo_keys: usize,
    /// Watches whole directories (keys up to their last slash) instead of single
    /// keys for the answers to changes outside the subtrees: for who writes many
    /// keys. What others change there comes along and is ignored. `false`.
    pub echo_directories: bool,
    /// Longest key and largest value until a broker announces its own.
    pub limits: Limits,
    /// How an RFC 12 server collects changes: `Sub`, as RFC 12 says; `Pull` for
    /// the Guide's Models Three to Five.
    pub rfc12_collector: Collector,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            subtrees: Vec::new(),
            heartbeat_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            resend_after: Duration::from_millis(500),
            give_up_after: Duration::from_secs(10),
            servers: 1,
            until_safe: false,
            keep_for: Duration::from_secs(60),
            max_pending: 100_000,
            max_pending_bytes: 256 << 20,
            max_keys: 10_000_000,
            max_bytes: 4 << 30,
            max_events: 65_536,
            max_echo_keys: 256,
            echo_directories: false,
            limits: Limits::default(),
            rfc12_collector: Collector::Sub,
        }
    }
}

impl ClientConfig {
    /// Follows these subtrees, the rest by default.
    pub fn follow<S: AsRef<[u8]>>(subtrees: impl IntoIterator<Item = S>) -> ClientConfig {
        let subtrees = subtrees.into_iter().map(|subtree| subtree.as_ref().to_vec()).collect();
        ClientConfig { subtrees, ..ClientConfig::default() }
    }

    /// The subtrees in order.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn checked_subtrees(&self) -> Result<Vec<Vec<u8>>, ConfigError> {
        let mut subtrees = self.subtrees.clone();
        subtrees.sort_unstable();
        for subtree in &subtrees {
            self.check_subtree(subtree)?;
        }
        // In byte order the extensions of a prefix follow it directly.
        if let Some(pair) = subtrees.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
            return Err(ConfigError::Overlap { outer: pair[0].clone(), inner: pair[1].clone() });
        }
        for (name, limit) in [
            ("servers", self.servers),
            ("max_pending", self.max_pending),
            ("max_keys", self.max_keys),
            ("max_events", self.max_events),
            ("max_echo_keys", self.max_echo_keys),
        ] {
            if limit == 0 || limit >= u32::MAX as usize {
                return Err(ConfigError::Limit { name });
            }
        }
        for (name, time) in [
            ("heartbeat_timeout", self.heartbeat_timeout),
            ("request_timeout", self.request_timeout),
            ("resend_after", self.resend_after),
            ("give_up_after", self.give_up_after),
            ("keep_for", self.keep_for),
        ] {
            if time < Duration::from_millis(1) {
                return Err(ConfigError::Time { name });
            }
        }
        Ok(subtrees)
    }

    fn check_subtree(&self, subtree: &[u8]) -> Result<(), ConfigError> {
        let bad = |why| Err(ConfigError::Subtree { subtree: subtree.to_vec(), why });
        match subtree {
            [] => Ok(()),
            _ if subtree.len() > self.limits.max_key => bad("longer than any key"),
            _ if subtree.iter().any(|&byte| byte < 0x20 || byte == 0x7f) => {
                bad("has a control byte, which no key has")
            }
            _ if is_reserved(subtree) => bad("reserved for control messages"),
            _ => Ok(()),
        }
    }
}

/// What is wrong with a [`ClientConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No key can be under this subtree.
    Subtree {
        /// The subtree.
        subtree: Vec<u8>,
        /// The reason.
        why: &'static str,
    },
    /// One subtree lies within another (or is the same).
    Overlap {
        /// The one that covers both.
        outer: Vec<u8>,
        /// The one to leave out.
        inner: Vec<u8>,
    },
    /// A limit is zero, or above 4 billion.
    Limit {
        /// Which one.
        name: &'static str,
    },
    /// A time is below a millisecond.
    Time {
        /// Which one.
        name: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Subtree { subtree, why } => {
                write!(f, "subtree \"{}\": {why}", subtree.escape_ascii())
            }
            ConfigError::Overlap { outer, inner } => write!(
                f,
                "subtree \"{}\" lies within \"{}\": leave it out",
                inner.escape_ascii(),
                outer.escape_ascii()
            ),
            ConfigError::Limit { name } => write!(f, "{name}: expected 1 to 4,294,967,294"),
            ConfigError::Time { name } => write!(f, "{name}: expected at least 1 ms"),
        }
    }
}

impl std::error::Error for ConfigError {}
