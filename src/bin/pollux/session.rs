//! [`Session`]: a client on a loop of its own, and the command that waits for it.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use pollux::clone::client::{Client, ClientConfig, Event, SetError};
use pollux::clone::{Limits, check_key};
use pollux::node::{ClientNode, ClientOptions};
use pollux::reactor::{Flow, Reactor, Registry};
use pollux::time::Time;

use crate::args::{Common, MAX_VALUE};
use crate::endpoint::DEFAULT_ENDPOINT;
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
    /// The broker that was last heard, if ever one was.
    found: Option<Found>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// Which one of those that were named.
    server: usize,
    /// Its run.
    node: Option<u64>,
    epoch: u32,
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
        let client = self.app.client.machine();
        if client.broker().is_some_and(|broker| !broker.has_standby) {
            eprintln!(
                "pollux: applied, but there is no standby: what was set is lost with the broker \
                 at {} (of a pair, --safe wait waits for one)",
                self.common.server(client.server())
            );
        }
    }

    /// Logs each broker, and each epoch of it, that is found.
    fn note_broker(&mut self) {
        let client = self.app.client.machine();
        let Some(broker) = client.broker() else { return };
        let found = Found { server: client.server(), node: broker.node, epoch: broker.epoch };
        if self.found.replace(found) == Some(found) {
            return;
        }
        let endpoint = self.common.server(found.server);
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
        let timeout = self.common.timeout;
        match self.found {
            None => no_broker(self.common.endpoint(), timeout),
            Some(found) => Failure::NoAnswer(format!(
                "the broker at {} {} within {}; look at it with `pollux status`, or try a \
                 longer --timeout",
                self.common.server(found.server),
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
        Event::UpstreamLost => log::warn!("the relay has lost the broker that it follows"),
        Event::UpstreamBack => log::info!("the relay follows a broker again"),
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
            "none of the brokers at {} serves within {}; `pollux status` with the same \
             --connect shows what they do",
            endpoint.replace(',', ", "),
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

/// A relay of a subtree has nothing else, and cannot tell whether that is there: what to say
/// if `asked`, a key or a subtree, lies outside. A part of a wider subtree is one all the same.
pub(crate) fn outside(client: &Client, endpoint: &str, asked: &[u8]) -> Option<Failure> {
    client.broker().filter(|broker| broker.partial)?;
    let figures = status::figures_of(endpoint, PROBE).ok()??;
    let (_, subtree) = figures.into_iter().find(|(name, _)| name == "subtree")?;
    // As a relay writes it, and as it is shown.
    let written = asked.escape_ascii().to_string().replace('=', "\\x3d");
    let asked = Shown(written.as_bytes()).to_string();
    (!asked.starts_with(&subtree) && !subtree.starts_with(&asked)).then(|| {
        Failure::Refused(format!(
            "the relay at {endpoint} has only the subtree \"{subtree}\"; for others ask the \
             broker that it follows, which `pollux status` names (upstream_at)"
        ))
    })
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

/// A change that was not sent, for this reason.
pub(crate) fn unsent(key: &[u8], error: &SetError) -> Failure {
    match error {
        SetError::Key(error) => Failure::Usage(format!("\"{}\": {error}", Shown(key))),
        SetError::EmptyValue => Failure::Usage(format!("\"{}\": {EMPTY_VALUE}", Shown(key))),
        _ => refused(key, error),
    }
}

/// What to do instead.
pub(crate) const EMPTY_VALUE: &str = "an empty value is none; to delete the key use `pollux del`";

/// Why a key is not there, at a broker whose state is.
pub(crate) fn not_there(client: &Client, common: &Common, key: &[u8]) -> Failure {
    let limits = client.broker().map(|broker| broker.limits).unwrap_or_default();
    if let Err(error) = check_key(key, &limits) {
        return unsent(key, &SetError::Key(error));
    }
    outside(client, common.server(client.server()), key)
        .unwrap_or_else(|| Failure::NotFound(format!("\"{}\" is not there", Shown(key))))
}

/// A key, or what is set under it, is refused for this reason.
pub(crate) fn refused(key: &[u8], reason: &dyn fmt::Display) -> Failure {
    Failure::Refused(format!("\"{}\": {reason}", Shown(key)))
}
