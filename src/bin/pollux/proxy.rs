//! `pollux proxy`: moves messages between two sockets until Ctrl-C.

mod endpoint;

use std::io;
use std::time::Duration;

use clap::Args;
use pollux::proxy::{Proxy, ProxyError, ProxyStats, Side, SideStats, WhenFull};
use pollux::reactor::{Backend, Flow, Missed, Reactor, Wait};
use pollux::socket::{Socket, SocketType, ZmqContext};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::interrupt::on_interrupt;
use crate::printer::{Gone, Printer};
use crate::socket_files::SocketFiles;
use crate::text::{counted, thousands};
use crate::units;
use endpoint::Endpoint;

const HELP: &str = "\
A socket is given as TYPE@ENDPOINT, which binds, or TYPE>ENDPOINT, which
connects (quote the >); give an option again, with the same type, for a further
endpoint of that side. An endpoint is tcp://HOST:PORT or ipc://PATH. To bind, HOST
is an address of this machine (IPv6 in brackets) or * for all of IPv4, and PORT may
be * for any that is free.

Types that go together, either as the frontend:
  requests  router with dealer or pair; dealer with dealer or pair; pair with pair;
            rep with req; stream (plain TCP) with dealer or pair
  one way   pull with push or pub; sub with pub or push
  topics    xsub with xpub

It prints one line when it is there, and its statistics at the end. A side
without room stops the reading of the other. What a router cannot deliver is
dropped and counted (unreachable: nobody of that name; full: too slow), pub and
xpub drop uncounted for slow subscribers; with --no-drop all wait for the slow.

The control socket (rep, pair, pull, sub) takes the words of libzmq: PAUSE,
RESUME, TERMINATE, STATISTICS. The capture socket (pub, push, dealer, pair) gets
a copy of every message. Ctrl-C, SIGTERM or TERMINATE end it in order with exit
code 0, a second signal at once.

Examples:
  pollux proxy --frontend router@tcp://127.0.0.1:5559 --backend dealer@tcp://127.0.0.1:5560
  pollux proxy --frontend 'xsub>tcp://weather:5556' --backend 'xpub@tcp://*:8100'
  pollux proxy --frontend pull@ipc:///tmp/in --backend 'push>tcp://server:5558' \\
               --capture pub@tcp://127.0.0.1:5561 --control rep@tcp://127.0.0.1:5562";

/// `pollux proxy`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ProxyArgs {
    /// One side, as router@tcp://127.0.0.1:5559; may be repeated
    #[arg(long, value_name = "SOCKET", required = true)]
    frontend: Vec<Endpoint>,
    /// The other side, as dealer@tcp://127.0.0.1:5560; may be repeated
    #[arg(long, value_name = "SOCKET", required = true)]
    backend: Vec<Endpoint>,
    /// Where copies of all messages go; may be repeated
    #[arg(long, value_name = "SOCKET")]
    capture: Vec<Endpoint>,
    /// Where commands come from; may be repeated
    #[arg(long, value_name = "SOCKET")]
    control: Vec<Endpoint>,
    /// Messages that may wait for each peer, each way; 0 for no limit
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    hwm: u32,
    /// Largest message, in bytes or with K, M; a frame over it ends its connection [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    max_message: Option<usize>,
    /// Wait for slow clients and subscribers; one holds up all others then
    #[arg(long)]
    no_drop: bool,
    /// Print the statistics each TIME, as 500ms or 10s, too
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    stats: Option<Duration>,
}

/// A sleep and its wake cost more than this, and under load the next message is nearer.
const LINGER_AWAKE: Duration = Duration::from_micros(5);

struct App {
    proxy: Proxy<App>,
    ended: Option<Result<(), ProxyError>>,
}

/// `pollux proxy`.
pub(crate) fn run(args: &ProxyArgs, json: bool) -> Result<(), Failure> {
    check_each_is_there_once(args)?;
    let mut reactor = Reactor::builder()
        .backend(Backend::Epoll)
        .wait(Wait::SpinFor(LINGER_AWAKE))
        .build()
        .map_err(|error| Failure::system(&error))?;
    // A small frame that waits in a queue does not keep the buffer that it came in.
    let context = ZmqContext::builder().zero_copy_receive(false).build();
    let context = context.map_err(|error| Failure::system(&error.into()))?;
    let mut sockets = Sockets { context, args, files: Vec::new() };
    let frontend = sockets.open("--frontend", &args.frontend)?;
    let backend = sockets.open("--backend", &args.backend)?;
    let capture = sockets.open_any("--capture", &args.capture)?;
    let control = sockets.open_any("--control", &args.control)?;
    let all = [Some(&frontend), Some(&backend), capture.as_ref(), control.as_ref()];
    let greeting = greeting(&all, json);
    let proxy = build(frontend, backend, capture, control, args)?;
    let mut app = App { proxy, ended: None };
    serve(&mut reactor, &mut app, args, json, &greeting)
        .map_err(|error| Failure::system(&error))?;
    match app.ended {
        Some(Err(error)) => Err(Failure::Refused(error.to_string())),
        _ => Ok(()),
    }
}

fn serve(
    reactor: &mut Reactor<App>,
    app: &mut App,
    args: &ProxyArgs,
    json: bool,
    greeting: &str,
) -> io::Result<()> {
    // Before anybody can know that we are here, and send a signal.
    on_interrupt(reactor, |_: &mut App| {})?;
    Proxy::attach(reactor, app, |app| &mut app.proxy)?;
    let printer = Printer::start(io::stdout())?;
    print(&printer, greeting);
    if let Some(interval) = args.stats {
        let printer = printer.clone();
        reactor.add_periodic(interval, Missed::Skip, move |app: &mut App, _| {
            Ok(print(&printer, &statistics(&app.proxy.stats(), json)))
        });
    }
    reactor.run(app)?;
    if app.ended.is_none() {
        app.proxy.terminate(reactor);
        reactor.run(app)?;
    }
    print(&printer, &statistics(&app.proxy.stats(), json));
    printer.finish();
    Ok(())
}

/// A proxy whose stdout is closed or not read goes on; what the reader is too slow for
/// is left out, since the next line says it anew.
fn print(printer: &Printer, line: &str) -> Flow {
    match printer.print(format!("{line}\n").into_bytes()) {
        Ok(_) => Flow::Continue,
        Err(Gone) => {
            log::warn!("nothing more is printed: the reader of the output has gone");
            Flow::Remove
        }
    }
}

fn build(
    frontend: Opened,
    backend: Opened,
    capture: Option<Opened>,
    control: Option<Opened>,
    args: &ProxyArgs,
) -> Result<Proxy<App>, Failure> {
    let mut proxy =
        Proxy::builder(frontend.socket, backend.socket).on_end(|app: &mut App, _, end| {
            app.ended = Some(end);
            Ok(Flow::Stop)
        });
    if let Some(bytes) = args.max_message {
        proxy = proxy.max_message_bytes(bytes);
    }
    for (side, socket_type) in
        [(Side::Frontend, frontend.socket_type), (Side::Backend, backend.socket_type)]
    {
        if socket_type == SocketType::Router && !args.no_drop {
            proxy = proxy.when_full(side, WhenFull::Drop);
        }
    }
    if let Some(capture) = capture {
        proxy = proxy.capture(capture.socket);
    }
    if let Some(control) = control {
        proxy = proxy.control(control.socket);
    }
    proxy.build().map_err(|error| Failure::Usage(error.to_string()))
}

/// An address that is bound is there once: a further socket there would be in its way, or
/// get what the proxy itself has sent.
fn check_each_is_there_once(args: &ProxyArgs) -> Result<(), Failure> {
    let sides = [
        ("--frontend", &args.frontend),
        ("--backend", &args.backend),
        ("--capture", &args.capture),
        ("--control", &args.control),
    ];
    let mut seen: Vec<(&str, &Endpoint)> = Vec::new();
    for (option, endpoint) in
        sides.into_iter().flat_map(|(option, all)| all.iter().map(move |one| (option, one)))
    {
        if let Some((first, _)) = seen.iter().find(|(_, other)| other.meets(endpoint)) {
            return Err(Failure::Usage(format!(
                "{option}: {} is given for {first}, too; each socket that is bound needs an \
                 endpoint of its own",
                endpoint.address
            )));
        }
        seen.push((option, endpoint));
    }
    Ok(())
}

/// A socket, and what to say of it.
struct Opened {
    option: &'static str,
    socket_type: SocketType,
    /// Where, as resolved.
    shown: Vec<String>,
    socket: Socket,
}

/// The sockets as they are opened.
struct Sockets<'a> {
    context: ZmqContext,
    args: &'a ProxyArgs,
    /// Of each endpoint from when it is bound: a later one may fail.
    files: Vec<SocketFiles>,
}

impl Sockets<'_> {
    fn open_any(
        &mut self,
        option: &'static str,
        endpoints: &[Endpoint],
    ) -> Result<Option<Opened>, Failure> {
        (!endpoints.is_empty()).then(|| self.open(option, endpoints)).transpose()
    }

    fn open(&mut self, option: &'static str, endpoints: &[Endpoint]) -> Result<Opened, Failure> {
        let [first, rest @ ..] = endpoints else {
            return Err(Failure::Usage(format!("{option}: expected a socket")));
        };
        let socket_type = first.socket_type;
        if let Some(other) = rest.iter().find(|other| other.socket_type != socket_type) {
            return Err(Failure::Usage(format!(
                "{option}: all endpoints of a side are of one socket, of type {socket_type}; got {}",
                other.socket_type
            )));
        }
        let mut builder =
            Socket::builder(socket_type).send_hwm(self.args.hwm).receive_hwm(self.args.hwm);
        if let Some(bytes) = self.args.max_message {
            builder = builder.max_message_size(bytes as u64);
        }
        match socket_type {
            SocketType::Router => builder = builder.mandatory(true),
            SocketType::Pub | SocketType::XPub => builder = builder.nodrop(self.args.no_drop),
            SocketType::Sub => builder = builder.subscribe(""),
            _ => {}
        }
        let failed = |error: io::Error| match error {
            error if error.kind() == io::ErrorKind::InvalidInput => {
                Failure::Usage(format!("{option}: {error}"))
            }
            error => Failure::Refused(format!("{option}: {error}")),
        };
        let socket = builder.build(&self.context).map_err(|error| failed(error.into()))?;
        let mut shown = Vec::new();
        for endpoint in endpoints {
            endpoint.open(&socket).map_err(failed)?;
            self.files.extend(endpoint.bound().map(|address| SocketFiles::of([address])));
            shown.push(endpoint.show(&resolved(endpoint, &socket)));
        }
        Ok(Opened { option, socket_type, shown, socket })
    }
}

/// The address with the port that the system has chosen.
fn resolved(endpoint: &Endpoint, socket: &Socket) -> String {
    match endpoint.has_wildcard() {
        true => socket.last_endpoint().unwrap_or_else(|_| endpoint.address.clone()),
        false => endpoint.address.clone(),
    }
}

fn greeting(all: &[Option<&Opened>], json: bool) -> String {
    let all = all.iter().flatten();
    if json {
        let mut object = json!({});
        for opened in all {
            object[opened.option.trim_start_matches('-')] = json!({
                "type": opened.socket_type.name(),
                "endpoints": opened.shown,
            });
        }
        return object.to_string();
    }
    let parts: Vec<String> = all
        .map(|opened| {
            let name = opened.option.trim_start_matches('-');
            format!("{name} {}{}", opened.socket_type, opened.shown.join(" "))
        })
        .collect();
    parts.join(", ")
}

fn statistics(stats: &ProxyStats, json: bool) -> String {
    if json { json_stats(stats).to_string() } else { text_stats(stats) }
}

fn json_stats(stats: &ProxyStats) -> Value {
    let side = |side: &SideStats| -> Value {
        side.fields()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), Value::from(count)))
            .collect()
    };
    json!({
        "frontend": side(&stats.frontend),
        "backend": side(&stats.backend),
        "captured": stats.captured,
        "capture_drops": stats.capture_drops,
        "commands": stats.commands,
        "commands_refused": stats.commands_refused,
        "lost": stats.lost,
    })
}

fn text_stats(stats: &ProxyStats) -> String {
    let way = |to: &SideStats| {
        format!("{} ({})", counted(to.messages_out, "message"), counted(to.bytes_out, "byte"))
    };
    let mut text =
        format!("to backend {}; to frontend {}", way(&stats.backend), way(&stats.frontend));
    let dropped = stats.frontend.dropped() + stats.backend.dropped() + stats.lost;
    text += &format!("; {} dropped", thousands(dropped));
    if dropped > 0 {
        let sum = |of: fn(&SideStats) -> u64| of(&stats.frontend) + of(&stats.backend);
        for (name, count) in [
            ("unreachable", sum(|side| side.unreachable)),
            ("full", sum(|side| side.full_drops)),
            ("refused", sum(|side| side.refused)),
            ("oversized", sum(|side| side.oversized)),
            ("not flushed", stats.lost),
        ] {
            if count > 0 {
                text += &format!(", {} {name}", thousands(count));
            }
        }
    }
    if stats.captured + stats.capture_drops > 0 {
        text += &format!(
            "; {} captured, {} not",
            thousands(stats.captured),
            thousands(stats.capture_drops)
        );
    }
    text
}
