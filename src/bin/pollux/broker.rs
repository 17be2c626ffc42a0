//! `pollux broker`: keeps the state until Ctrl-C.

use std::io;
use std::time::Duration;

use pollux::clone::Collector;
use pollux::clone::broker::Broker;
use pollux::clone::pair::Role;
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Flow, Missed, Reactor};
use pollux::socket::ZmqContext;
use serde_json::json;

use crate::args::{BrokerArgs, CollectorArg};
use crate::exit::Failure;
use crate::interrupt::on_interrupt;
use crate::pair::{HookEnd, Hooks};
use crate::printer::{Gone, Printer};
use crate::socket_files::SocketFiles;
use crate::text::{counted, thousands};

/// Ends of commands that may wait to be logged.
const HOOKS: usize = 16;

struct App {
    broker: BrokerNode,
    /// Changes applied when figures were last printed.
    applied: u64,
    hooks: Hooks,
}

/// `pollux broker`.
pub(crate) fn run(args: &BrokerArgs, json: bool) -> Result<(), Failure> {
    serve(args, json).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Refused(format!(
            "{error} (with --bind; --bind 'tcp://127.0.0.1:*' takes any that are free)"
        )),
        _ => Failure::system(&error),
    })
}

fn serve(args: &BrokerArgs, json: bool) -> io::Result<()> {
    let context = ZmqContext::builder().zero_copy_receive(false).build()?;
    let mut reactor = Reactor::new()?;
    let broker = BrokerNode::bind(&context, &args.bind, options(args))?;
    let at = broker.endpoints();
    let _files = SocketFiles::of([&*at.snapshots, &*at.updates, &*at.changes]);
    let ended = reactor.channel(HOOKS, |app: &mut App, _, ended: HookEnd| {
        app.hooks.ended(&ended);
        Ok(Flow::Continue)
    })?;
    let mut app = App { broker, applied: 0, hooks: Hooks::start(&args.pair, ended)? };
    // Before anybody can know that we are here, and send a signal.
    on_interrupt(&mut reactor, |_: &mut App| {})?;
    let printer = Printer::start(io::stdout())?;
    let mut output = Output { printer: printer.clone(), dropped: 0 };
    let mut roles = Output { printer: printer.clone(), dropped: 0 };
    let commands = args.pair.clone();
    BrokerNode::attach_with(
        &mut reactor,
        &mut app,
        |app| &mut app.broker,
        move |app, _, (role, epoch)| {
            app.hooks.role_changed(&commands, role, epoch);
            // That nobody reads it is no reason to end.
            roles.print(role_line(role, epoch, json));
            Ok(Flow::Continue)
        },
    )?;
    output.print(app.greeting(json));
    if let Some(interval) = args.stats {
        reactor.add_periodic(interval, Missed::Skip, move |app: &mut App, _| {
            Ok(output.print(app.figures(interval, json)))
        });
    }
    reactor.run(&mut app)?;
    printer.finish();
    let keys = app.broker.machine().store().len() as u64;
    app.broker.detach(&mut reactor);
    log::info!("ended in order with {}", counted(keys, "key"));
    Ok(())
}

fn options(args: &BrokerArgs) -> BrokerOptions {
    let mut options = BrokerOptions::default();
    options.snapshot_hwm = args.snapshot_hwm.unwrap_or(options.snapshot_hwm);
    options.updates_hwm = args.updates_hwm.unwrap_or(options.updates_hwm);
    let config = &mut options.config;
    config.heartbeat = args.heartbeat;
    config.collector = match args.collector {
        CollectorArg::Pull => Collector::Pull,
        CollectorArg::Sub => Collector::Sub,
    };
    let store = &mut config.store;
    store.history = args.history.unwrap_or(store.history);
    store.max_keys = args.max_keys.unwrap_or(store.max_keys);
    let limits = &mut config.limits;
    limits.max_value = args.max_value.unwrap_or(limits.max_value);
    args.pair.apply(&mut options);
    args.relay.apply(&mut options);
    let (limits, store) = (&options.config.limits, &mut options.config.store);
    // One value at least must fit.
    store.max_bytes = store.max_bytes.max(limits.max_value.saturating_mul(2));
    options
}

/// What a broker of a pair prints when its role has changed.
fn role_line(role: Role, epoch: u32, json: bool) -> String {
    match json {
        true => json!({ "role": role.name(), "epoch": epoch }).to_string(),
        false => format!("{role}, epoch {epoch}"),
    }
}

/// Lines on stdout. A broker goes on serving when nobody reads them.
struct Output {
    printer: Printer,
    /// Lines dropped since one was last taken.
    dropped: u64,
}

impl Output {
    fn print(&mut self, mut line: String) -> Flow {
        line.push('\n');
        match self.printer.print(line.into_bytes()) {
            Ok(true) => {
                if self.dropped > 0 {
                    log::warn!("stdout is read again; {} lines were dropped", self.dropped);
                }
                self.dropped = 0;
            }
            Ok(false) => {
                if self.dropped == 0 {
                    log::warn!("stdout is not read; lines are dropped until it is");
                }
                self.dropped += 1;
            }
            Err(Gone) => return Flow::Remove,
        }
        Flow::Continue
    }
}

impl App {
    fn greeting(&self, json: bool) -> String {
        let at = self.broker.endpoints();
        match json {
            true => json!({
                "listening": at.snapshots, "updates": at.updates, "changes": at.changes,
            })
            .to_string(),
            false => format!(
                "listening on {} (updates {}, changes {})",
                at.snapshots, at.updates, at.changes
            ),
        }
    }

    /// What happened since it was last asked, `interval` ago.
    fn figures(&mut self, interval: Duration, json: bool) -> String {
        let machine = self.broker.machine();
        let applied = machine.stats().changes_applied;
        let per_second = (applied - self.applied) as f64 / interval.as_secs_f64();
        self.applied = applied;
        match json {
            true => json_figures(machine, per_second),
            false => text_figures(machine, per_second),
        }
    }
}

fn json_figures(broker: &Broker, per_second: f64) -> String {
    let mut figures = json!({
        "sequence": broker.sequence().get(),
        "epoch": broker.sequence().epoch(),
        "counter": broker.sequence().counter(),
        "keys": broker.store().len(),
        "bytes": broker.store().bytes(),
        "changes_per_second": per_second,
    });
    for (name, count) in broker.stats().fields() {
        figures[name] = count.into();
    }
    figures.to_string()
}

fn text_figures(broker: &Broker, per_second: f64) -> String {
    let stats = broker.stats();
    let of_a_relay =
        broker.relay_stats().map_or(0, |relay| relay.changes_outside + relay.forwards_refused);
    let dropped = of_a_relay
        + stats.changes_malformed
        + stats.changes_reserved
        + stats.changes_store_full
        + stats.changes_forgotten
        + stats.changes_overtaken
        + stats.requests_malformed
        + stats.snapshots_refused;
    format!(
        "{}, {}; {} ({per_second:.0}/s), {} expired; {}; {} refused",
        counted(broker.store().len() as u64, "key"),
        counted(broker.store().bytes() as u64, "byte"),
        counted(stats.changes_applied, "change"),
        thousands(stats.expired),
        counted(stats.snapshots_done, "snapshot"),
        thousands(dropped),
    )
}
