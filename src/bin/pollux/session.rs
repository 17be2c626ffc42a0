//! [`Session`]: a client on a loop of its own, and the command that waits for it.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::clone::{Limits, check_key};
use pollux::node::{ClientNode, ClientOptions};
use pollux::reactor::{Flow, Reactor, Registry};
use pollux::time::Time;

use crate::args::{Common, DEFAULT_ENDPOINT, MAX_VALUE};
use crate::exit::Failure;
use crate::status;
use crate::text::{Shown, counted};
use crate::units::show_duration;

/// What a command does with a client.
pub(crate) trait Task: Sized + 'static {
    /// Hears of an event, in order.
    fn hear(&mut self, client: &Client, now: Time, event: Event) -> Result<(), Failure>;

    /// Looks after each turn of the loop at what can be done now.
    fn step(app: &mut App<Self>, registry: &mut Registry<App<Self>>) -> Result<Step, Failure>;

    /// A number that changes whenever the broker has done something for this
    /// task: then its patience begins anew. `None`: it waits without end.
    fn progress(&self, client: &Client) -> Option<u64>;

    /// What the broker, which was heard, failed to do when patience ended.
    fn complaint(&self) -> String;
}

/// Whether a task is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    Done,
}

/// The state of the loop: the client, and what it is for.
#[derive(Debug)]
pub(crate) struct App<T> {
    pub(crate) client: ClientNode<App<T>>,
    pub(crate) task: T,
    failure: Option<Failure>,
}

/// A client of the broker that the command line names.
#[derive(Debug)]
pub(crate) struct Session<'a, T> {
    common: &'a Common,
    pub(crate) reactor: Reactor<App<T>>,
    pub(crate) app: App<T>,
    /// The run and the epoch of the broker that was last heard, if ever one was.
    found: Option<(Option<u64>, u32)>,
}

/// A change is never given up before the command's own patience ends.
const NEVER_GIVE_UP: Duration = Duration::from_secs(86_400);

impl<'a, T: Task> Session<'a, T> {
    /// Opens the sockets. Nothing is waited for yet.
    pub(crate) fn open(
        common: &'a Common,
        mut config: ClientConfig,
        task: T,
    ) -> Result<Session<'a, T>, Failure> {
        config.give_up_after = NEVER_GIVE_UP;
        config.keep_for = NEVER_GIVE_UP;
        // Room for one of the largest, at least.
        config.max_pending_bytes = 2 * MAX_VALUE;
        Session::try_open(common, config, task).map_err(|error| Failure::system(&error))
    }

    fn try_open(common: &'a Common, config: ClientConfig, task: T) -> io::Result<Session<'a, T>> {
        let context = zmq::Context::new();
        let mut reactor = Reactor::new()?;
        let client = ClientNode::new(&context, common.endpoint(), ClientOptions::new(config))?;
        let mut app = App { client, task, failure: None };
        ClientNode::attach(
            &mut reactor,
            &mut app,
            |app| &mut app.client,
            |app, cx, event| {
                log_event(&event);
                match app.task.hear(app.client.machine(), cx.now(), event) {
                    Ok(()) => Ok(Flow::Continue),
                    Err(failure) => {
                        app.failure = Some(failure);
                        Ok(Flow::Stop)
                    }
                }
            },
        )?;
        Ok(Session { common, reactor, app, found: None })
    }

    /// Runs the loop until the task is done, or has failed, or the broker has
    /// done nothing for it for as long as `--timeout` says.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let mut progress = self.progress();
        let mut waiting_since = Instant::now();
        loop {
            if T::step(&mut self.app, &mut self.reactor)? == Step::Done {
                return Ok(());
            }
            self.note_broker();
            let now = self.progress();
            if now != progress {
                (progress, waiting_since) = (now, Instant::now());
            }
            let wait = match progress {
                None => Duration::MAX,
                Some(_) => self.common.timeout.saturating_sub(waiting_since.elapsed()),
            };
            if wait.is_zero() {
                return Err(self.no_answer());
            }
            self.reactor.turn(&mut self.app, wait).map_err(|error| Failure::system(&error))?;
            if let Some(failure) = self.app.failure.take() {
                return Err(failure);
            }
        }
    }

    /// What was waited for with `--wait safe` is no safer than applied, if the broker is
    /// alone and calls that safe: then the user must know.
    pub(crate) fn warn_if_alone(&self) {
        if self.app.client.machine().broker().is_some_and(|broker| !broker.has_standby) {
            eprintln!(
                "pollux: applied, but there is no standby: what was set is lost with the broker \
                 at {} (of a pair, --safe wait waits for one)",
                self.common.endpoint()
            );
        }
    }

    /// Logs each broker, and each epoch of it, that is found.
    fn note_broker(&mut self) {
        let client = self.app.client.machine();
        let Some(broker) = client.broker() else { return };
        let identity = (broker.node, broker.epoch);
        if self.found.replace(identity) == Some(identity) {
            return;
        }
        let endpoint = self.common.endpoint().split(',').nth(client.server()).unwrap_or_default();
        match broker.node {
            Some(node) => log::info!(
                "found the broker at {endpoint}: chp=2, node {node:016x}, epoch {}, {}",
                broker.epoch,
                match (broker.paired, broker.has_standby) {
                    (false, _) => "of no pair",
                    (true, false) => "without a standby",
                    (true, true) => "with a standby",
                }
            ),
            None => log::info!("found a server of RFC 12 at {endpoint}"),
        }
    }

    fn progress(&self) -> Option<u64> {
        self.app.task.progress(self.app.client.machine())
    }

    fn no_answer(&self) -> Failure {
        let (endpoint, timeout) = (self.common.endpoint(), self.common.timeout);
        match self.found.is_some() {
            false => no_broker(endpoint, timeout),
            true => Failure::NoAnswer(format!(
                "the broker at {endpoint} {} within {}; look at it with `pollux status`, or try a \
                 longer --timeout",
                self.app.task.complaint(),
                show_duration(timeout)
            )),
        }
    }
}

/// What happens to the connection with `-v`, each event with `-vv`.
fn log_event(event: &Event) {
    match event {
        Event::Synced { keys, sequence, .. } => {
            let keys = counted(*keys as u64, "key");
            log::info!("the state is there: {keys}, up to sequence {sequence}");
        }
        Event::Turned { .. } => log::info!("the next broker is asked"),
        Event::Gap { .. }
        | Event::Resync { .. }
        | Event::LimitReached { .. }
        | Event::Lost
        | Event::Overrun { .. } => log::info!("{event:?}"),
        _ => log::debug!("{event:?}"),
    }
}

/// How long to ask whether a broker that does not serve is there all the same.
const PROBE: Duration = Duration::from_millis(300);

/// Nobody serves: whether somebody is there, and what to do about it.
pub(crate) fn no_broker(endpoint: &str, timeout: Duration) -> Failure {
    if !endpoint.contains(',') && status::is_passive(endpoint, PROBE.min(timeout)) {
        return Failure::NoAnswer(format!(
            "the broker at {endpoint} is the standby of a pair; name both with --connect"
        ));
    }
    if endpoint.contains(',') {
        return Failure::NoAnswer(format!(
            "none of the brokers at {endpoint} serves within {}; `pollux status` with the same \
             --connect shows what they do",
            show_duration(timeout)
        ));
    }
    let bind = match endpoint {
        DEFAULT_ENDPOINT => String::new(),
        other => format!(" --bind {other}"),
    };
    Failure::NoAnswer(format!(
        "no broker answered at {endpoint} within {}; start one with `pollux broker{bind}`, \
         or name another with --connect",
        show_duration(timeout)
    ))
}

/// Refuses a key that no broker can have, before one is asked.
pub(crate) fn check(key: &[u8]) -> Result<(), Failure> {
    let mut limits = Limits::default();
    // How long a key may be is the broker's to say.
    limits.max_key = limits.max_key.max(key.len());
    check_key(key, &limits).map_err(|error| Failure::Usage(format!("\"{}\": {error}", Shown(key))))
}

/// What to follow for the sake of one key: brokers know beginnings of keys only.
/// A heartbeat has it in its key frame, behind four bytes of its own, which is
/// why the end of a very long key is left out.
pub(crate) fn beginning(key: &[u8]) -> &[u8] {
    &key[..key.len().min(240)]
}

/// A key, or what is set under it, is refused for this reason.
pub(crate) fn refused(key: &[u8], reason: &dyn fmt::Display) -> Failure {
    Failure::Refused(format!("\"{}\": {reason}", Shown(key)))
}
