//! [`Collector`]: which kind of socket takes changes.

use std::fmt;
use std::str::FromStr;

/// The kind of socket on a broker's port for changes.
///
/// PUSH and PUB peers cannot share one socket of libzmq, so a broker chooses
/// and names its choice in the property `collector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Collector {
    /// PULL, for clients with PUSH: a sender that outruns the broker is held back.
    #[default]
    Pull,
    /// SUB, for clients with PUB: what RFC 12 and the Guide's Model Six use. A
    /// PUB drops what does not fit its queue.
    Sub,
}

impl Collector {
    /// Its name in the property `collector`.
    pub const fn name(self) -> &'static str {
        match self {
            Collector::Pull => "pull",
            Collector::Sub => "sub",
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Collector {
    type Err = ParseCollectorError;
    fn from_str(text: &str) -> Result<Collector, ParseCollectorError> {
        [Collector::Pull, Collector::Sub]
            .into_iter()
            .find(|collector| collector.name() == text)
            .ok_or(ParseCollectorError)
    }
}

/// A text is not a [`Collector`]: `pull` or `sub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseCollectorError;

impl fmt::Display for ParseCollectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("collector: expected pull or sub")
    }
}

impl std::error::Error for ParseCollectorError {}
