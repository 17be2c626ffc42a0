//! [`SocketType`]: the messaging pattern that a socket speaks.

use std::fmt;

/// The messaging pattern that a socket speaks: zmq_socket(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketType {
    /// Sends a request, then must receive its reply.
    Req,
    /// Receives a request, then must send its reply.
    Rep,
    /// Talks with many peers in turn, without a fixed order of sending and receiving.
    Dealer,
    /// Names the peer of every message by its first frame.
    Router,
    /// Sends to all subscribers.
    Pub,
    /// Receives what it subscribed to.
    Sub,
    /// A PUB that receives the subscriptions as messages.
    XPub,
    /// A SUB that subscribes by sending messages.
    XSub,
    /// Sends to one of many PULL peers in turn.
    Push,
    /// Receives from many PUSH peers in turn.
    Pull,
    /// Talks with exactly one peer.
    Pair,
    /// Talks with plain TCP peers.
    Stream,
}

impl SocketType {
    /// The name in the documentation of ZeroMQ, such as `ROUTER`.
    pub const fn name(self) -> &'static str {
        match self {
            SocketType::Req => "REQ",
            SocketType::Rep => "REP",
            SocketType::Dealer => "DEALER",
            SocketType::Router => "ROUTER",
            SocketType::Pub => "PUB",
            SocketType::Sub => "SUB",
            SocketType::XPub => "XPUB",
            SocketType::XSub => "XSUB",
            SocketType::Push => "PUSH",
            SocketType::Pull => "PULL",
            SocketType::Pair => "PAIR",
            SocketType::Stream => "STREAM",
        }
    }

    /// The type of number `number` in `zmq.h`; `None` for draft types.
    pub(super) fn from_raw(number: i32) -> Option<SocketType> {
        use SocketType::*;
        let all = [Req, Rep, Dealer, Router, Pub, Sub, XPub, XSub, Push, Pull, Pair, Stream];
        all.into_iter().find(|&socket_type| zmq::SocketType::from(socket_type) as i32 == number)
    }
}

impl fmt::Display for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<SocketType> for zmq::SocketType {
    fn from(socket_type: SocketType) -> zmq::SocketType {
        match socket_type {
            SocketType::Req => zmq::REQ,
            SocketType::Rep => zmq::REP,
            SocketType::Dealer => zmq::DEALER,
            SocketType::Router => zmq::ROUTER,
            SocketType::Pub => zmq::PUB,
            SocketType::Sub => zmq::SUB,
            SocketType::XPub => zmq::XPUB,
            SocketType::XSub => zmq::XSUB,
            SocketType::Push => zmq::PUSH,
            SocketType::Pull => zmq::PULL,
            SocketType::Pair => zmq::PAIR,
            SocketType::Stream => zmq::STREAM,
        }
    }
}

impl From<zmq::SocketType> for SocketType {
    fn from(socket_type: zmq::SocketType) -> SocketType {
        match socket_type {
            zmq::REQ => SocketType::Req,
            zmq::REP => SocketType::Rep,
            zmq::DEALER => SocketType::Dealer,
            zmq::ROUTER => SocketType::Router,
            zmq::PUB => SocketType::Pub,
            zmq::SUB => SocketType::Sub,
            zmq::XPUB => SocketType::XPub,
            zmq::XSUB => SocketType::XSub,
            zmq::PUSH => SocketType::Push,
            zmq::PULL => SocketType::Pull,
            zmq::PAIR => SocketType::Pair,
            zmq::STREAM => SocketType::Stream,
        }
    }
}
