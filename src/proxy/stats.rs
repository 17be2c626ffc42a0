//! What a proxy counts.

/// What went through one side of a proxy.
///
/// Nothing is lost without one of these going up, but for what libzmq drops on its own
/// account (the [module](super) says what). For messages that came in here:
///
/// `messages_in == hook_drops + oversized` of this side
/// `+ messages_out + unreachable + refused + full_drops` of the other
/// `+ 1` if one is held `+` [`lost`](ProxyStats::lost).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SideStats {
    /// Messages received from the peers of this side; a multipart counts once.
    pub messages_in: u64,
    /// Bytes of their frames.
    pub bytes_in: u64,
    /// Messages sent to the peers of this side.
    pub messages_out: u64,
    /// Bytes of their frames.
    pub bytes_out: u64,
    /// Messages received that the hook had dropped.
    pub hook_drops: u64,
    /// Messages received that were larger than allowed, and dropped.
    pub oversized: u64,
    /// Messages to this side for a peer that is not there: ROUTER with `mandatory`, STREAM.
    pub unreachable: u64,
    /// Messages to this side that its type of socket cannot send: without a routing id
    /// (ROUTER), not of two frames (STREAM), out of turn (REQ, REP).
    pub refused: u64,
    /// Messages to this side dropped because there was no room and [`WhenFull::Drop`]
    /// was set.
    ///
    /// [`WhenFull::Drop`]: super::WhenFull::Drop
    pub full_drops: u64,
    /// Times that this side had no room and the other was not read any more.
    pub waits: u64,
}

impl SideStats {
    /// Each count with its name, in the order of declaration, for printing.
    pub fn fields(&self) -> [(&'static str, u64); 10] {
        [
            ("messages_in", self.messages_in),
            ("bytes_in", self.bytes_in),
            ("messages_out", self.messages_out),
            ("bytes_out", self.bytes_out),
            ("hook_drops", self.hook_drops),
            ("oversized", self.oversized),
            ("unreachable", self.unreachable),
            ("refused", self.refused),
            ("full_drops", self.full_drops),
            ("waits", self.waits),
        ]
    }

    /// All messages that were dropped at this side.
    pub fn dropped(&self) -> u64 {
        self.hook_drops + self.oversized + self.unreachable + self.refused + self.full_drops
    }
}

/// What a proxy has done since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyStats {
    /// The frontend.
    pub frontend: SideStats,
    /// The backend.
    pub backend: SideStats,
    /// Copies sent to the capture socket.
    pub captured: u64,
    /// Copies that it had no room for.
    pub capture_drops: u64,
    /// Commands obeyed.
    pub commands: u64,
    /// Messages to the control socket that were none, or that it could not answer.
    pub commands_refused: u64,
    /// Messages held when the proxy ended, which the other side did not take in time.
    pub lost: u64,
}

impl ProxyStats {
    /// The eight numbers with which zmq_proxy_steerable(3) answers STATISTICS: messages
    /// and bytes received, messages and bytes sent, of the frontend and then of the
    /// backend.
    pub fn libzmq(&self) -> [u64; 8] {
        let four =
            |side: &SideStats| [side.messages_in, side.bytes_in, side.messages_out, side.bytes_out];
        let ([a, b, c, d], [e, f, g, h]) = (four(&self.frontend), four(&self.backend));
        [a, b, c, d, e, f, g, h]
    }
}
