//! [`Collector`]: which kind of socket takes changes.

/// The kind of socket on a broker's port for changes.
///
/// PUSH and PUB peers cannot share one socket of libzmq, so a broker chooses
/// and names its choice in the property `collector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

    /// The collector of that name.
    pub fn from_name(name: &[u8]) -> Option<Collector> {
        [Collector::Pull, Collector::Sub].into_iter().find(|c| c.name().as_bytes() == name)
    }
}
