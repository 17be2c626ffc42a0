//! The pair's part of the command line: `broker --pair`, the commands that are run
//! at a change of role, `promote` and `demote`.

use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pollux::Message;
use pollux::clone::kvmsg::{DEMOTE, PROMOTE, STATUS};
use pollux::clone::pair::{PairConfig, Role, SafePolicy, Seat, pair_id};
use pollux::clone::{KvMsg, Limits};
use pollux::node::BrokerOptions;
use pollux::reactor::{Flow, Reactor, Sender, SocketKey};

use crate::args::Common;
use crate::endpoint::endpoint;
use crate::exit::Failure;
use crate::output;
use crate::session::no_broker;
use crate::status;

/// What makes a broker one of a pair.
#[derive(Debug, Clone, Args)]
pub(crate) struct PairArgs {
    /// Be one of a pair of brokers, of which one takes over when the other fails
    #[arg(long, value_enum, requires = "peer", value_name = "SEAT")]
    pub(crate) pair: Option<SeatArg>,
    /// First endpoint of the other broker
    #[arg(long, value_name = "ENDPOINT", requires = "pair", value_parser = endpoint)]
    pub(crate) peer: Option<String>,
    /// Name of the pair, the same at both: a broker of another pair is refused
    #[arg(long, value_name = "NAME", requires = "pair", default_value = "pollux")]
    pub(crate) pair_name: String,
    /// What is safe while there is no standby
    #[arg(long, value_enum, requires = "pair", default_value = "proceed")]
    pub(crate) safe: PolicyArg,
    /// Command (of the shell) to run when this broker becomes active
    #[arg(long, value_name = "CMD", requires = "pair")]
    pub(crate) on_active: Option<String>,
    /// Command (of the shell) to run when this broker becomes passive
    #[arg(long, value_name = "CMD", requires = "pair")]
    pub(crate) on_passive: Option<String>,
}

/// A place in a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeatArg {
    /// Becomes active if both start
    Primary,
    /// Follows the primary
    Backup,
}

/// What is safe without a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// Nothing new until a standby has it
    Wait,
    /// What the active has
    Proceed,
}

impl PairArgs {
    /// Puts them where the broker looks for them.
    pub(crate) fn apply(&self, options: &mut BrokerOptions) {
        let Some(seat) = self.pair else { return };
        let seat = match seat {
            SeatArg::Primary => Seat::Primary,
            SeatArg::Backup => Seat::Backup,
        };
        let mut pair = PairConfig::new(pair_id(&self.pair_name), seat);
        pair.policy = match self.safe {
            PolicyArg::Wait => SafePolicy::Wait,
            PolicyArg::Proceed => SafePolicy::Proceed,
        };
        options.config.pair = Some(pair);
        options.peer.clone_from(&self.peer);
    }

    /// The command for a role, if there is one.
    pub(crate) fn hook(&self, role: Role) -> Option<&str> {
        match role {
            Role::Active => self.on_active.as_deref(),
            _ => self.on_passive.as_deref(),
        }
    }
}

/// The commands of changes of role: one at a time, in order. What the loop keeps of
/// them; a thread runs them, so that the loop itself never waits.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// `None`: there is nothing to run.
    worker: Option<std::sync::mpsc::Sender<Hook>>,
    /// One is run and has not ended.
    is_busy: bool,
    /// The newest that came meanwhile: what came before it is no longer so.
    waiting: Option<Hook>,
}

/// A command to run, and why.
#[derive(Debug)]
pub(crate) struct Hook {
    command: String,
    role: Role,
    epoch: u32,
}

/// How a command that was run at a change of role has ended.
#[derive(Debug)]
pub(crate) struct HookEnd {
    command: String,
    outcome: io::Result<std::process::ExitStatus>,
}

impl Hooks {
    /// Starts the thread, if there is a command for it.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(crate) fn start(args: &PairArgs, ended: Sender<HookEnd>) -> io::Result<Hooks> {
        let mut hooks = Hooks { worker: None, is_busy: false, waiting: None };
        if args.on_active.is_some() || args.on_passive.is_some() {
            let (worker, commands) = std::sync::mpsc::channel::<Hook>();
            thread::Builder::new().name("pollux-hooks".to_owned()).spawn(move || {
                for hook in commands {
                    // A loop that has ended does not want to know.
                    let _ = ended.send(hook.run());
                }
            })?;
            hooks.worker = Some(worker);
        }
        Ok(hooks)
    }

    /// Runs what belongs to a change of role, after what is run already. A command that
    /// still waits then belongs to a role of before, and is not run.
    pub(crate) fn role_changed(&mut self, args: &PairArgs, role: Role, epoch: u32) {
        let command = args.hook(role).map(str::to_owned);
        let hook = command.map(|command| Hook { command, role, epoch });
        if let Some(late) = std::mem::replace(&mut self.waiting, hook) {
            let Hook { command, role, epoch } = late;
            log::warn!("{role} in epoch {epoch}: over before {command} could be run, it is not");
        }
        self.run_next();
    }

    /// One has ended.
    pub(crate) fn ended(&mut self, end: &HookEnd) {
        end.log();
        self.is_busy = false;
        self.run_next();
    }

    fn run_next(&mut self) {
        let Some(worker) = self.worker.as_ref().filter(|_| !self.is_busy) else { return };
        if let Some(hook) = self.waiting.take() {
            log::info!("{} in epoch {}: runs {}", hook.role, hook.epoch, hook.command);
            self.is_busy = worker.send(hook).is_ok();
        }
    }
}

impl Hook {
    /// Runs it with POLLUX_ROLE and POLLUX_EPOCH in its environment, and waits for its
    /// end. What it prints goes to stderr: stdout has lines of ours alone.
    fn run(self) -> HookEnd {
        let outcome = Command::new("/bin/sh")
            .args(["-c", &self.command])
            .env("POLLUX_ROLE", self.role.name())
            .env("POLLUX_EPOCH", self.epoch.to_string())
            .stdin(Stdio::null())
            .stdout(io::stderr())
            .status();
        HookEnd { command: self.command, outcome }
    }
}

impl HookEnd {
    /// Says it in the log.
    fn log(&self) {
        let command = &self.command;
        match &self.outcome {
            Ok(status) if status.success() => log::info!("{command}: ended with exit code 0"),
            Ok(status) => log::warn!("{command}: ended with {status}"),
            Err(error) => log::error!("{command}: could not be run: {error}"),
        }
    }
}

/// `pollux promote`.
pub(crate) fn promote(common: &Common) -> Result<(), Failure> {
    order(common, PROMOTE, Role::Active)
}

/// `pollux demote`.
pub(crate) fn demote(common: &Common) -> Result<(), Failure> {
    order(common, DEMOTE, Role::Passive)
}

struct App {
    requests: SocketKey,
    verb: &'static [u8],
    wanted: Role,
    stage: Stage,
}

enum Stage {
    Silent,
    /// It is a broker that knows the order, and was given it.
    Ordered,
    /// It is a server that would stop at the order.
    Rfc12,
    Done,
    Refused(String),
}

/// Gives the order and waits until the broker has the role.
fn order(common: &Common, verb: &'static [u8], wanted: Role) -> Result<(), Failure> {
    let endpoint = common.endpoint();
    if endpoint.contains(',') {
        return Err(Failure::Usage(format!(
            "name the one broker that is to become {wanted} with --connect"
        )));
    }
    let stage =
        give(endpoint, common.timeout, verb, wanted).map_err(|error| Failure::system(&error))?;
    match stage {
        Stage::Done if common.json => output::json(&serde_json::json!({ "role": wanted.name() })),
        Stage::Done => output::line(&format!("{endpoint} is {wanted}")),
        Stage::Silent => Err(no_broker(endpoint, common.timeout)),
        Stage::Ordered => Err(Failure::NoAnswer(format!(
            "the broker at {endpoint} was told to become {wanted}, but is not so far"
        ))),
        Stage::Rfc12 => Err(Failure::Refused(format!(
            "the server at {endpoint} speaks plain RFC 12, which knows no such order"
        ))),
        Stage::Refused(why) => Err(Failure::Refused(match why.as_str() {
            "no-pair" => format!("the broker at {endpoint} is not one of a pair (--pair)"),
            "no-standby" => format!(
                "the broker at {endpoint} has no standby to hand over to; `pollux status` shows \
                 its peer"
            ),
            "no-state" => format!(
                "the broker at {endpoint} has not taken over the state of its peer yet; try again"
            ),
            _ => format!("the broker at {endpoint} refused: {why}"),
        })),
    }
}

fn give(endpoint: &str, timeout: Duration, verb: &'static [u8], wanted: Role) -> io::Result<Stage> {
    let context = zmq::Context::new();
    let (requests, updates) = status::sockets_to(endpoint, &context)?;
    let mut reactor = Reactor::new()?;
    let requests =
        reactor.on_message(requests, |app: &mut App, _, message| Ok(app.answered(message)))?;
    // Brokers of either role answer the subscription to their status, and tell of each change
    // of theirs; others ignore it, and are never asked what would stop them. These are known
    // by their heartbeats.
    reactor.on_message(updates, |app: &mut App, cx, status| {
        if matches!(app.stage, Stage::Silent) && status::is_extended(status) == Some(false) {
            app.stage = Stage::Rfc12;
            return Ok(Flow::Stop);
        }
        let Some(role) = role_in(status) else { return Ok(Flow::Continue) };
        if matches!(app.stage, Stage::Silent) {
            app.stage = Stage::Ordered;
            cx.socket(app.requests)?.send(app.verb).map_err(io::Error::other)?;
        } else if role == app.wanted.name() {
            app.stage = Stage::Done;
            return Ok(Flow::Stop);
        }
        Ok(Flow::Continue)
    })?;
    reactor.add_timer(timeout, |_, _| Ok(Flow::Stop));
    let mut app = App { requests, verb, wanted, stage: Stage::Silent };
    reactor.run(&mut app)?;
    Ok(app.stage)
}

impl App {
    fn answered(&mut self, answer: Message<'_>) -> Flow {
        let limits = Limits::default();
        let Some(kvmsg) = KvMsg::decode(answer, &limits).ok().filter(|it| it.key == self.verb)
        else {
            return Flow::Continue;
        };
        let text = |name| kvmsg.properties.get(name).map(String::from_utf8_lossy);
        match (text("refused"), text("ok")) {
            (Some(why), _) => self.stage = Stage::Refused(why.into_owned()),
            (None, Some(role)) if role == self.wanted.name() => self.stage = Stage::Done,
            _ => return Flow::Continue,
        }
        Flow::Stop
    }
}

/// The role in an answer to the subscription.
fn role_in(status: Message<'_>) -> Option<&str> {
    let kvmsg = KvMsg::decode(status, &Limits::default()).ok()?;
    let role = kvmsg.properties.get("role").filter(|_| kvmsg.key == STATUS)?;
    std::str::from_utf8(role).ok()
}
