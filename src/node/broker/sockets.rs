//! The three sockets of a broker, and where they are bound.

use std::io;
use std::time::Duration;

use super::BrokerOptions;
use crate::clone::Collector;
use crate::node::{Endpoints, check_path_is_free};
use crate::socket::{AnyContext, Socket, SocketType};

/// Connections that may wait to be accepted, as far as the system lets them
/// (`net.core.somaxconn`). With libzmq's 100, of thousands of clients that join at once
/// many would try again only after seconds.
const BACKLOG: u32 = 4096;

/// Bytes of a frame that a subscriber may send; the longest topic is `HUGZ` and a key.
const MAX_SUBSCRIPTION: u64 = 128 * 1024;

/// How often neighbouring ports are tried for a wildcard.
const WILDCARD_TRIES: usize = 64;

#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) snapshots: Socket,
    pub(super) updates: Socket,
    pub(super) changes: Socket,
}

impl Sockets {
    pub(super) fn bind(
        context: &impl AnyContext,
        endpoints: &Endpoints,
        options: &BrokerOptions,
    ) -> io::Result<Sockets> {
        for endpoint in [&endpoints.snapshots, &endpoints.updates, &endpoints.changes] {
            check_path_is_free(endpoint)?;
        }
        // A whole answer may stay behind for a client that is slow to read it;
        // a second is what an ending process grants it.
        let linger = Duration::from_secs(1);
        let collector = match options.config.collector {
            Collector::Pull => Socket::builder(SocketType::Pull),
            Collector::Sub => Socket::builder(SocketType::Sub).subscribe(""),
        };
        // Frames over the limit end the connection; the five frames of a change
        // that breaks a limit by less are refused by the machine, with an answer.
        let max_frame = options.config.limits.max_value.saturating_mul(2).max(64 * 1024);
        let max_frame = max_frame as u64;
        Ok(Sockets {
            snapshots: Socket::builder(SocketType::Router)
                .mandatory(true)
                .send_hwm(options.snapshot_hwm)
                .backlog(BACKLOG)
                .max_message_size(max_frame)
                .linger(linger)
                .bind(&endpoints.snapshots)
                .build(context)?,
            updates: Socket::builder(SocketType::XPub)
                .verbose(true)
                .send_hwm(options.updates_hwm)
                .backlog(BACKLOG)
                // Subscriptions are all that comes in.
                .max_message_size(MAX_SUBSCRIPTION)
                .linger(linger)
                .bind(&endpoints.updates)
                .build(context)?,
            changes: collector
                .receive_hwm(options.changes_hwm)
                .backlog(BACKLOG)
                .max_message_size(max_frame)
                .linger(linger)
                .bind(&endpoints.changes)
                .build(context)?,
        })
    }

    /// Looks for three neighbouring ports that are free.
    pub(super) fn bind_neighbours(
        context: &impl AnyContext,
        transport_and_host: &str,
        options: &BrokerOptions,
    ) -> io::Result<(Sockets, Endpoints)> {
        let mut last = io::Error::other("no three neighbouring ports are free");
        for _ in 0..WILDCARD_TRIES {
            let port = free_port(transport_and_host)?;
            let first = format!("{transport_and_host}:{port}");
            let Ok(endpoints) = Endpoints::from_first(&first) else { continue };
            match Sockets::bind(context, &endpoints, options) {
                Ok(sockets) => return Ok((sockets, endpoints)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A port that the system says is free at the moment; its neighbours may not be.
fn free_port(transport_and_host: &str) -> io::Result<u16> {
    let host = transport_and_host.strip_prefix("tcp://").unwrap_or(transport_and_host);
    let host = if host == "*" { "0.0.0.0" } else { host };
    let probe = std::net::TcpListener::bind(format!("{host}:0"))
        .map_err(|error| io::Error::new(error.kind(), format!("bind tcp://{host}:*: {error}")))?;
    Ok(probe.local_addr()?.port())
}
