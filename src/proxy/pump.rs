//! Moving messages: the hot path.

use std::time::Duration;

use super::{Hook, ProxyError, ProxyStats, Side, SideStats, Verdict, WhenFull};
use crate::socket::{Errno, Interest, SendError, Socket, Stopped, Transit};
use crate::time::Time;

/// The first wait for a socket that says "writable" and then takes nothing, as ROUTER
/// does for a peer who is slower than the others; it doubles up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_MOST: Duration = Duration::from_millis(16);

/// One direction: from a side to the other one.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Whether anything flows here.
    pub(super) open: bool,
    transit: Transit,
    /// The message in `transit` is held until there is room.
    pub(super) held: Option<Held>,
}

/// A message that the other side had no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    bytes: usize,
    pub(super) until: Until,
}

/// When a held message is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When the socket says that it is writable.
    Writable,
    /// It said so and took nothing: at this time, after that much of waiting.
    Retry(Time, Duration),
}

/// The sockets of a proxy, borrowed from the loop.
pub(super) struct Sockets<'a> {
    pub(super) frontend: &'a Socket,
    pub(super) backend: &'a Socket,
    pub(super) capture: Option<&'a Socket>,
}

impl Sockets<'_> {
    fn of(&self, side: Side) -> &Socket {
        match side {
            Side::Frontend => self.frontend,
            Side::Backend => self.backend,
        }
    }
}

/// Messages and their bytes.
#[derive(Default)]
struct Amount {
    messages: u64,
    bytes: u64,
}

impl Amount {
    #[inline]
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

/// What moves messages between two sockets. It is taken out of the application's state
/// while it works, so that a hook can have all of that state.
pub(super) struct Pump<S> {
    /// From the frontend, from the backend.
    lanes: [Lane; 2],
    pub(super) hook: Option<Hook<S>>,
    pub(super) stats: ProxyStats,
    pub(super) budget: u32,
    pub(super) max_message_bytes: usize,
    /// To the frontend, to the backend.
    pub(super) when_full: [WhenFull; 2],
}

impl<S> Pump<S> {
    pub(super) fn new(sources: &[Side]) -> Pump<S> {
        let lane = |side| Lane { open: sources.contains(&side), ..Lane::default() };
        Pump {
            lanes: [lane(Side::Frontend), lane(Side::Backend)],
            hook: None,
            stats: ProxyStats::default(),
            budget: super::DEFAULT_BUDGET,
            max_message_bytes: usize::MAX,
            when_full: [WhenFull::Wait; 2],
        }
    }

    pub(super) fn lane(&self, from: Side) -> &Lane {
        &self.lanes[from as usize]
    }

    fn lane_mut(&mut self, from: Side) -> &mut Lane {
        &mut self.lanes[from as usize]
    }

    fn side(&mut self, side: Side) -> &mut SideStats {
        match side {
            Side::Frontend => &mut self.stats.frontend,
            Side::Backend => &mut self.stats.backend,
        }
    }

    /// Whether no message is held.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.held.is_none())
    }

    /// What to wait for at a side: messages if they can go on, room if one is held.
    pub(super) fn interest(&self, side: Side, reading: bool) -> Option<Interest> {
        let out_of_here = self.lane(side);
        let readable = reading && out_of_here.open && out_of_here.held.is_none();
        let into_here = self.lane(side.other()).held;
        let writable = into_here.is_some_and(|held| held.until == Until::Writable);
        match (readable, writable) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    /// When the next message that is held is to be tried without a word of its socket.
    pub(super) fn next_retry(&self) -> Time {
        let retry = |lane: &Lane| match lane.held {
            Some(Held { until: Until::Retry(at, _), .. }) => at,
            _ => Time::NEVER,
        };
        retry(&self.lanes[0]).min(retry(&self.lanes[1]))
    }

    /// Forgets what is held, and counts it.
    pub(super) fn give_up(&mut self) {
        for lane in &mut self.lanes {
            self.stats.lost += u64::from(lane.held.take().is_some());
            lane.transit.clear();
        }
    }

    /// Moves messages that came from a side to the other one, at most as many as the
    /// budget allows, until there is none (`true`) or no room for one.
    ///
    /// # Errors
    /// If a socket failed for good.
    pub(super) fn forward(
        &mut self,
        state: &mut S,
        from: Side,
        sockets: &Sockets<'_>,
    ) -> Result<bool, ProxyError> {
        let (source, target) = (sockets.of(from), sockets.of(from.other()));
        let watched = self.hook.is_some()
            || sockets.capture.is_some()
            || self.max_message_bytes < usize::MAX
            || !target.takes_any_number_of_frames();
        let (mut received, mut sent) = (Amount::default(), Amount::default());
        let mut result = Ok(false);
        let mut left = self.budget;
        while left > 0 {
            let stopped = if watched {
                left -= 1;
                self.step(state, from, sockets, &mut received, &mut sent)
            } else {
                let transit = &mut self.lane_mut(from).transit;
                let (gone, passed) = transit.pass(source, target, left.into());
                sent.messages += gone.messages;
                sent.bytes += gone.bytes;
                left -= gone.messages as u32;
                if let Err(Stopped::Send(_, bytes)) = &passed {
                    received.add(*bytes);
                    left -= 1;
                }
                passed
            };
            match stopped {
                Ok(()) => {}
                Err(Stopped::Receive(Errno::EAGAIN)) => {
                    result = Ok(true);
                    break;
                }
                // It is not its turn to receive (REQ, REP).
                Err(Stopped::Receive(Errno::EFSM)) => break,
                Err(Stopped::Receive(errno)) => {
                    let error = source.receive_failed(errno);
                    result = Err(ProxyError::Socket { side: from, error });
                    break;
                }
                Err(Stopped::Send(error, bytes)) => match self.not_sent(from, error, bytes) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                },
            }
        }
        if !watched {
            // Whatever was sent had been received: one sum less in the loop.
            received.messages += sent.messages;
            received.bytes += sent.bytes;
        }
        let side = self.side(from);
        side.messages_in += received.messages;
        side.bytes_in += received.bytes;
        let other = self.side(from.other());
        other.messages_out += sent.messages;
        other.bytes_out += sent.bytes;
        let lane = self.lane_mut(from);
        if lane.held.is_none() {
            lane.transit.clear();
        }
        result
    }

    /// Moves one message, with all that there is to do about it.
    fn step(
        &mut self,
        state: &mut S,
        from: Side,
        sockets: &Sockets<'_>,
        received: &mut Amount,
        sent: &mut Amount,
    ) -> Result<(), Stopped> {
        let transit = &mut self.lane_mut(from).transit;
        let bytes = transit.receive(sockets.of(from)).map_err(Stopped::Receive)?;
        received.add(bytes);
        let Some(bytes) = self.look(state, from, bytes, sockets.capture) else { return Ok(()) };
        let transit = &mut self.lane_mut(from).transit;
        transit.send(sockets.of(from.other())).map_err(|error| Stopped::Send(error, bytes))?;
        sent.add(bytes);
        Ok(())
    }

    /// Tries to send the message held on its way from a side. Whether there is none
    /// any more.
    ///
    /// # Errors
    /// If the socket failed for good.
    pub(super) fn flush(
        &mut self,
        from: Side,
        sockets: &Sockets<'_>,
        now: Time,
    ) -> Result<bool, ProxyError> {
        let Some(held) = self.lane_mut(from).held.take() else { return Ok(true) };
        let to = from.other();
        match self.lane_mut(from).transit.send(sockets.of(to)) {
            Ok(()) => {
                let side = self.side(to);
                side.messages_out += 1;
                side.bytes_out += held.bytes as u64;
            }
            Err(SendError::WouldBlock) => {
                let after = match held.until {
                    Until::Writable => RETRY_FIRST,
                    Until::Retry(_, before) => (before * 2).min(RETRY_MOST),
                };
                let until = Until::Retry(now + after, after);
                self.lane_mut(from).held = Some(Held { until, ..held });
                return Ok(false);
            }
            Err(error) => {
                self.not_sent(from, error, held.bytes)?;
            }
        }
        self.lane_mut(from).transit.clear();
        Ok(true)
    }

    /// What there is to do about a message besides passing it on. Its length then, or
    /// `None` if it is dropped.
    fn look(
        &mut self,
        state: &mut S,
        from: Side,
        mut bytes: usize,
        capture: Option<&Socket>,
    ) -> Option<usize> {
        if bytes > self.max_message_bytes {
            let side = self.side(from);
            side.oversized += 1;
            let count = side.oversized;
            let most = self.max_message_bytes;
            warn_rarely(count, &format_args!("{from}: {bytes} bytes, of at most {most}"));
            // It is large: not to be kept until the next one comes.
            self.lane_mut(from).transit.clear();
            return None;
        }
        let transit = &mut self.lanes[from as usize].transit;
        if let Some(hook) = &mut self.hook {
            if hook(state, from, transit.frames_mut()) == Verdict::Drop {
                self.side(from).hook_drops += 1;
                return None;
            }
            bytes = transit.changed();
        }
        if let Some(capture) = capture {
            match transit.send_copy(capture) {
                Ok(()) => self.stats.captured += 1,
                Err(_) => self.stats.capture_drops += 1,
            }
        }
        Some(bytes)
    }

    /// What becomes of a message that was not sent, and whether to go on with the next.
    #[cold]
    fn not_sent(&mut self, from: Side, error: SendError, bytes: usize) -> Result<bool, ProxyError> {
        let to = from.other();
        match error {
            SendError::WouldBlock if self.when_full[to as usize] == WhenFull::Wait => {
                self.side(to).waits += 1;
                self.lane_mut(from).held = Some(Held { bytes, until: Until::Writable });
                return Ok(false);
            }
            SendError::WouldBlock => self.side(to).full_drops += 1,
            SendError::Unreachable => self.side(to).unreachable += 1,
            SendError::Failed(error) => match error.errno() {
                // The message is at fault, which a peer has made.
                Errno::EINVAL | Errno::EFSM => {
                    self.side(to).refused += 1;
                    let count = self.side(to).refused;
                    warn_rarely(count, &format_args!("{to}: {error}"));
                }
                _ => return Err(ProxyError::Socket { side: to, error }),
            },
        }
        Ok(true)
    }
}

/// Logs the first of its kind and then each that doubles the count, so that a flood of
/// bad input does not become a flood of log lines.
#[cold]
pub(super) fn warn_rarely(count: u64, what: &dyn std::fmt::Display) {
    if count.is_power_of_two() {
        log::warn!("proxy, a message is dropped ({count} so far), {what}");
    }
}
