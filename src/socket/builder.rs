//! [`SocketBuilder`]: a socket with its options, subscriptions and endpoints.

use std::time::Duration;

use super::options::{self, SocketOption, Value};
use super::{AnyContext, Socket, SocketError, SocketType};

/// Options, subscriptions and endpoints of a socket to be made.
///
/// Everything is remembered and applied by [`build`](SocketBuilder::build) in the
/// order options, subscriptions, endpoints (those with a name first). An option that the type of socket
/// does not have, or a value out of range, is an error there that says what was
/// expected; the first one counts. What is not set has the default of libzmq, but
/// for the [linger time](Socket::DEFAULT_LINGER).
///
/// Left out is `ZMQ_XPUB_MANUAL`: libzmq 4.3.4 uses the memory of a subscriber that
/// has gone when its subscription is confirmed afterwards (libzmq pull request 4137).
///
/// ```
/// # fn main() -> Result<(), pollux::socket::SocketError> {
/// use std::time::Duration;
/// use pollux::socket::{Socket, SocketType};
///
/// let context = zmq::Context::new();
/// let router = Socket::builder(SocketType::Router)
///     .mandatory(true)
///     .linger(Duration::ZERO)
///     .bind("tcp://127.0.0.1:*")
///     .build(&context)?;
/// assert!(router.last_endpoint()?.starts_with("tcp://127.0.0.1:"));
///
/// let error = Socket::builder(SocketType::Dealer).mandatory(true).build(&context).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "set ROUTER_MANDATORY (DEALER): expected a socket of type ROUTER"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SocketBuilder {
    socket_type: SocketType,
    settings: Vec<(SocketOption, Vec<u8>)>,
    subscriptions: Vec<Vec<u8>>,
    /// Routing ids and endpoints.
    named: Vec<(Vec<u8>, String)>,
    endpoints: Vec<Endpoint>,
    /// The first mistake; `build` reports it.
    mistake: Option<SocketError>,
    conflate: bool,
    raw: bool,
}

#[derive(Clone, Debug)]
enum Endpoint {
    Bind(String),
    Connect(String),
}

impl SocketBuilder {
    pub(super) fn new(socket_type: SocketType) -> SocketBuilder {
        SocketBuilder {
            socket_type,
            settings: Vec::new(),
            subscriptions: Vec::new(),
            named: Vec::new(),
            endpoints: Vec::new(),
            mistake: None,
            conflate: false,
            raw: false,
        }
    }

    /// Makes the socket.
    ///
    /// # Errors
    /// The first mistake in the options, else those of [`Socket::new`],
    /// [`Socket::bind`] and [`Socket::connect`].
    pub fn build(self, context: &impl AnyContext) -> Result<Socket, SocketError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let mut socket = Socket::new(context, self.socket_type)?;
        for (option, value) in &self.settings {
            socket.set_bytes(*option, value)?;
        }
        socket.limit_frames(self.conflate, self.raw);
        for prefix in &self.subscriptions {
            socket.subscribe(prefix)?;
        }
        for (id, endpoint) in &self.named {
            socket.connect_as(id, endpoint)?;
        }
        for endpoint in &self.endpoints {
            match endpoint {
                Endpoint::Bind(endpoint) => drop(socket.bind(endpoint)?),
                Endpoint::Connect(endpoint) => socket.connect(endpoint)?,
            }
        }
        Ok(socket)
    }

    /// Accepts peers at `endpoint`: see [`Socket::bind`]. May be repeated.
    /// [`Socket::last_endpoint`] tells the port that `*` was given.
    pub fn bind(mut self, endpoint: impl Into<String>) -> SocketBuilder {
        self.endpoints.push(Endpoint::Bind(endpoint.into()));
        self
    }

    /// Connects to `endpoint`: see [`Socket::connect`]. May be repeated.
    pub fn connect(mut self, endpoint: impl Into<String>) -> SocketBuilder {
        self.endpoints.push(Endpoint::Connect(endpoint.into()));
        self
    }

    /// ROUTER, STREAM: connects to `endpoint`, whose peer is then called
    /// `routing_id`: see [`Socket::connect_as`].
    pub fn connect_as(mut self, routing_id: &[u8], endpoint: impl Into<String>) -> SocketBuilder {
        self.named.push((routing_id.into(), endpoint.into()));
        self
    }

    /// SUB: receives what begins with `prefix`; everything if it is empty. May be
    /// repeated.
    pub fn subscribe(mut self, prefix: impl AsRef<[u8]>) -> SocketBuilder {
        match options::SUBSCRIBE.check(self.socket_type) {
            Ok(()) => self.subscriptions.push(prefix.as_ref().into()),
            Err(mistake) => drop(self.mistake.get_or_insert(mistake)),
        }
        self
    }

    /// At most this many messages wait to be sent to each peer; 0 for no limit,
    /// 1,000 by default (`ZMQ_SNDHWM`). Beyond it, sending would block, or PUB and
    /// ROUTER drop.
    pub fn send_hwm(self, messages: u32) -> SocketBuilder {
        self.set(options::SNDHWM, options::number(messages))
    }

    /// At most this many messages from each peer wait to be received; 0 for no
    /// limit, 1,000 by default (`ZMQ_RCVHWM`). Beyond it, the peer waits or drops.
    pub fn receive_hwm(self, messages: u32) -> SocketBuilder {
        self.set(options::RCVHWM, options::number(messages))
    }

    /// How long the socket goes on delivering after it was dropped; `None` for ever.
    /// [One second](Socket::DEFAULT_LINGER) by default (`ZMQ_LINGER`).
    pub fn linger(self, time: impl Into<Option<Duration>>) -> SocketBuilder {
        self.set(options::LINGER, options::milliseconds_or_none(time.into()))
    }

    /// Queues messages only for connections that are complete, so that sending
    /// would block while there is none (`ZMQ_IMMEDIATE`). Off by default.
    pub fn immediate(self, on: bool) -> SocketBuilder {
        self.set(options::IMMEDIATE, options::flag(on))
    }

    /// A peer that sends a larger frame is disconnected (`ZMQ_MAXMSGSIZE`; not over
    /// inproc). No limit by default.
    pub fn max_message_size(self, bytes: u64) -> SocketBuilder {
        let value = i64::try_from(bytes)
            .map(|bytes| bytes.to_ne_bytes().into())
            .map_err(|_| format!("expected at most {}, got {bytes}", i64::MAX));
        self.set(options::MAXMSGSIZE, value)
    }

    /// Pings each peer this often (`ZMQ_HEARTBEAT_IVL`); zero, the default, never.
    pub fn heartbeat_interval(self, interval: Duration) -> SocketBuilder {
        self.set(options::HEARTBEAT_IVL, options::milliseconds(interval))
    }

    /// How long the peer should keep the connection without hearing a ping, at
    /// most 6,553.5 s, in steps of 100 ms rounded up (`ZMQ_HEARTBEAT_TTL`); zero,
    /// the default, leaves it to the peer.
    pub fn heartbeat_ttl(self, time: Duration) -> SocketBuilder {
        const STEP_MS: u128 = 100;
        let steps = time.as_nanos().div_ceil(STEP_MS * 1_000_000);
        let value = u16::try_from(steps)
            .map_err(|_| format!("expected at most 6553.5s, got {time:?}"))
            .and_then(|steps| options::number(u32::from(steps) * STEP_MS as u32));
        self.set(options::HEARTBEAT_TTL, value)
    }

    /// How long to wait for any traffic after a ping before the connection is
    /// closed (`ZMQ_HEARTBEAT_TIMEOUT`); the heartbeat interval by default.
    pub fn heartbeat_timeout(self, time: Duration) -> SocketBuilder {
        self.set(options::HEARTBEAT_TIMEOUT, options::milliseconds(time))
    }

    /// Turns the keep-alive of TCP on or off (`ZMQ_TCP_KEEPALIVE`); that of the
    /// system by default.
    pub fn tcp_keepalive(self, on: bool) -> SocketBuilder {
        self.set(options::TCP_KEEPALIVE, options::flag(on))
    }

    /// Probes that may stay without an answer (`ZMQ_TCP_KEEPALIVE_CNT`).
    pub fn tcp_keepalive_count(self, probes: u32) -> SocketBuilder {
        self.set(options::TCP_KEEPALIVE_CNT, options::number(probes))
    }

    /// Silence before the first probe, in whole seconds rounded up
    /// (`ZMQ_TCP_KEEPALIVE_IDLE`).
    pub fn tcp_keepalive_idle(self, time: Duration) -> SocketBuilder {
        self.set(options::TCP_KEEPALIVE_IDLE, options::seconds(time))
    }

    /// Time between probes, in whole seconds rounded up
    /// (`ZMQ_TCP_KEEPALIVE_INTVL`).
    pub fn tcp_keepalive_interval(self, time: Duration) -> SocketBuilder {
        self.set(options::TCP_KEEPALIVE_INTVL, options::seconds(time))
    }

    /// How long data may stay unacknowledged before TCP gives the connection up
    /// (`ZMQ_TCP_MAXRT`); zero, the default, for that of the system.
    pub fn tcp_max_retransmit(self, time: Duration) -> SocketBuilder {
        self.set(options::TCP_MAXRT, options::milliseconds(time))
    }

    /// Time before a lost connection is tried again, 100 ms by default; `None`
    /// never tries again (`ZMQ_RECONNECT_IVL`).
    pub fn reconnect_interval(self, time: impl Into<Option<Duration>>) -> SocketBuilder {
        self.set(options::RECONNECT_IVL, options::milliseconds_or_none(time.into()))
    }

    /// Doubles the reconnect interval with each attempt up to this
    /// (`ZMQ_RECONNECT_IVL_MAX`); zero, the default, does not.
    pub fn reconnect_interval_max(self, time: Duration) -> SocketBuilder {
        self.set(options::RECONNECT_IVL_MAX, options::milliseconds(time))
    }

    /// How long one attempt to connect may take (`ZMQ_CONNECT_TIMEOUT`); zero, the
    /// default, for that of the system.
    pub fn connect_timeout(self, time: Duration) -> SocketBuilder {
        self.set(options::CONNECT_TIMEOUT, options::milliseconds(time))
    }

    /// How long the handshake of a new connection may take, 30 s by default; zero
    /// for ever (`ZMQ_HANDSHAKE_IVL`).
    pub fn handshake_interval(self, time: Duration) -> SocketBuilder {
        self.set(options::HANDSHAKE_IVL, options::milliseconds(time))
    }

    /// The buffer of the system for sending, of each connection (`ZMQ_SNDBUF`).
    pub fn send_buffer(self, bytes: u32) -> SocketBuilder {
        self.set(options::SNDBUF, options::number(bytes))
    }

    /// The buffer of the system for receiving, of each connection (`ZMQ_RCVBUF`).
    pub fn receive_buffer(self, bytes: u32) -> SocketBuilder {
        self.set(options::RCVBUF, options::number(bytes))
    }

    /// The type of service (DSCP and ECN) of IP packets (`ZMQ_TOS`).
    pub fn type_of_service(self, tos: u8) -> SocketBuilder {
        self.set(options::TOS, options::number(tos))
    }

    /// Connections that may wait to be accepted, 100 by default (`ZMQ_BACKLOG`).
    pub fn backlog(self, connections: u32) -> SocketBuilder {
        self.set(options::BACKLOG, options::number(connections))
    }

    /// Allows IPv6 besides IPv4 (`ZMQ_IPV6`): for `*` and for what names resolve to; an
    /// address in brackets, as `tcp://[::1]:5556`, needs no leave. Off by default.
    pub fn ipv6(self, on: bool) -> SocketBuilder {
        self.set(options::IPV6, options::flag(on))
    }

    /// The I/O threads of the context that serve new connections, one bit each;
    /// 0, the default, for all (`ZMQ_AFFINITY`).
    pub fn affinity(self, threads: u64) -> SocketBuilder {
        self.set(options::AFFINITY, Ok(threads.to_ne_bytes().into()))
    }

    /// REQ, REP, DEALER, ROUTER: the name by which a ROUTER knows this socket, 1 to
    /// 255 bytes, the first one not 0 (`ZMQ_ROUTING_ID`).
    pub fn routing_id(self, id: impl AsRef<[u8]>) -> SocketBuilder {
        self.set(options::ROUTING_ID, options::routing_id(id.as_ref()))
    }

    /// ROUTER: a message that cannot be delivered is given back
    /// ([`SendError::Unreachable`](super::SendError::Unreachable),
    /// [`WouldBlock`](super::SendError::WouldBlock)) and not dropped in silence
    /// (`ZMQ_ROUTER_MANDATORY`). Off by default.
    pub fn mandatory(self, on: bool) -> SocketBuilder {
        self.set(options::ROUTER_MANDATORY, options::flag(on))
    }

    /// ROUTER: a new peer with a routing id that is in use takes it over, else it is
    /// not let in (`ZMQ_ROUTER_HANDOVER`). Off by default.
    pub fn handover(self, on: bool) -> SocketBuilder {
        self.set(options::ROUTER_HANDOVER, options::flag(on))
    }

    /// ROUTER: talks with plain TCP peers, in messages of a routing id and one frame
    /// of data (`ZMQ_ROUTER_RAW`). STREAM is newer.
    pub fn raw(mut self, on: bool) -> SocketBuilder {
        self.raw = on;
        self.set(options::ROUTER_RAW, options::flag(on))
    }

    /// REQ, DEALER, ROUTER: sends an empty message on each new connection, so that
    /// a ROUTER at the other end learns of this peer (`ZMQ_PROBE_ROUTER`).
    pub fn probe_router(self, on: bool) -> SocketBuilder {
        self.set(options::PROBE_ROUTER, options::flag(on))
    }

    /// XPUB: receives every subscription, not only the first to each prefix
    /// (`ZMQ_XPUB_VERBOSE`).
    pub fn verbose(self, on: bool) -> SocketBuilder {
        self.set(options::XPUB_VERBOSE, options::flag(on))
    }

    /// XPUB: receives every subscription and every unsubscription
    /// (`ZMQ_XPUB_VERBOSER`).
    pub fn verboser(self, on: bool) -> SocketBuilder {
        self.set(options::XPUB_VERBOSER, options::flag(on))
    }

    /// PUB, XPUB: sending would block when a subscriber is at its high-water mark,
    /// and nothing is dropped (`ZMQ_XPUB_NODROP`). One slow subscriber then stops
    /// all.
    pub fn nodrop(self, on: bool) -> SocketBuilder {
        self.set(options::XPUB_NODROP, options::flag(on))
    }

    /// PUB, XPUB, SUB: delivers what does *not* begin with a subscription; to be set
    /// at both ends (`ZMQ_INVERT_MATCHING`).
    pub fn invert_matching(self, on: bool) -> SocketBuilder {
        self.set(options::INVERT_MATCHING, options::flag(on))
    }

    /// PUSH, PULL, PUB, SUB, DEALER: keeps only the last message, which must be of one
    /// frame (`ZMQ_CONFLATE`).
    pub fn conflate(mut self, on: bool) -> SocketBuilder {
        self.conflate = on;
        self.set(options::CONFLATE, options::flag(on))
    }

    /// REQ: may send the next request before the reply has come, which is then
    /// ignored (`ZMQ_REQ_RELAXED`). To be used with [`correlate`](Self::correlate).
    pub fn relaxed(self, on: bool) -> SocketBuilder {
        self.set(options::REQ_RELAXED, options::flag(on))
    }

    /// REQ: numbers the requests and ignores replies to earlier ones
    /// (`ZMQ_REQ_CORRELATE`).
    pub fn correlate(self, on: bool) -> SocketBuilder {
        self.set(options::REQ_CORRELATE, options::flag(on))
    }

    /// STREAM: receives an empty frame when a peer connects or disconnects
    /// (`ZMQ_STREAM_NOTIFY`). On by default.
    pub fn notify(self, on: bool) -> SocketBuilder {
        self.set(options::STREAM_NOTIFY, options::flag(on))
    }

    /// Lets only those in whose name and password the ZAP handler of the context
    /// accepts: a REP socket at `inproc://zeromq.zap.01` (RFC 27). Without one, nobody
    /// gets in. The password crosses the network in clear.
    pub fn plain_server(self) -> SocketBuilder {
        self.set(options::PLAIN_SERVER, options::flag(true))
    }

    /// Name and password for a PLAIN server, 1 to 255 bytes each.
    pub fn plain_client(self, username: &str, password: &str) -> SocketBuilder {
        self.set(options::PLAIN_USERNAME, options::short_bytes(username.as_bytes()))
            .set(options::PLAIN_PASSWORD, options::short_bytes(password.as_bytes()))
    }

    /// Encrypts, and lets only those in who know the public key that belongs to
    /// `secret_key`. Which clients they may be, a ZAP handler decides, if there is
    /// one (RFC 26, 27). Needs a libzmq with CURVE, which the one compiled by the
    /// `zmq` crate is not.
    pub fn curve_server(self, secret_key: &[u8; 32]) -> SocketBuilder {
        self.curve(options::CURVE_SERVER)
            .set(options::CURVE_SERVER, options::flag(true))
            .set(options::CURVE_SECRETKEY, Ok(secret_key.into()))
    }

    /// Encrypts, with this pair of keys, for a server that has the secret key that
    /// belongs to `server_key`. Needs a libzmq with CURVE.
    pub fn curve_client(
        self,
        public_key: &[u8; 32],
        secret_key: &[u8; 32],
        server_key: &[u8; 32],
    ) -> SocketBuilder {
        self.curve(options::CURVE_SERVERKEY)
            .set(options::CURVE_PUBLICKEY, Ok(public_key.into()))
            .set(options::CURVE_SECRETKEY, Ok(secret_key.into()))
            .set(options::CURVE_SERVERKEY, Ok(server_key.into()))
    }

    /// The domain that ZAP requests for this server name, 1 to 255 bytes
    /// (`ZMQ_ZAP_DOMAIN`).
    pub fn zap_domain(self, domain: &str) -> SocketBuilder {
        self.set(options::ZAP_DOMAIN, options::short_bytes(domain.as_bytes()))
    }

    /// libzmq would only say "Invalid argument".
    fn curve(self, option: SocketOption) -> SocketBuilder {
        if zmq::has("curve") == Some(true) {
            return self;
        }
        let problem = "expected a libzmq with CURVE, but this one was built without; \
                       link one of the system that has it (README, \"A system libzmq\")";
        self.mistaken(option, problem.into())
    }

    fn set(mut self, option: SocketOption, value: Value) -> SocketBuilder {
        if let Err(mistake) = option.check(self.socket_type) {
            self.mistake.get_or_insert(mistake);
            return self;
        }
        match value {
            Ok(value) => self.settings.push((option, value)),
            Err(problem) => return self.mistaken(option, problem),
        }
        self
    }

    fn mistaken(mut self, option: SocketOption, problem: String) -> SocketBuilder {
        self.mistake.get_or_insert(option.refused(self.socket_type, problem));
        self
    }
}
