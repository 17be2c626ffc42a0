//! Which scenes there are, and who takes part in each.

use std::env;
use std::process::Command;

use super::child;
use super::servers::Server;
use super::strace;

/// One scene: a section of the table and a plot.
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    pub(crate) contenders: Vec<Contender>,
}

/// Who takes part, and how it is measured.
pub(crate) struct Contender {
    pub(crate) name: String,
    /// The others are compared with it.
    pub(crate) is_baseline: bool,
    how: How,
}

#[derive(Clone)]
enum How {
    /// A loop: nanoseconds a message.
    Loop { program: Program, scene: &'static str, idle: usize, timers: usize },
    /// System calls a message.
    Calls { program: Program, idle: usize },
    /// Shared state: a server, and the figure of a client.
    State {
        server: &'static str,
        client: &'static str,
        scene: &'static str,
        count: usize,
        size: usize,
    },
}

#[derive(Clone)]
enum Program {
    Contender(&'static str),
    /// CZMQ's, with the libzmq of the system or the one that all others have.
    Zloop {
        is_vendored: bool,
    },
}

impl Program {
    fn command(&self) -> Result<Command, String> {
        match self {
            Program::Contender(kind) => {
                let mut command = child::contender();
                command.arg(kind);
                Ok(command)
            }
            Program::Zloop { is_vendored } => {
                let mut command = Command::new(built("COMPARE_ZLOOP")?);
                if *is_vendored {
                    command.env("LD_LIBRARY_PATH", built("COMPARE_VENDORED")?);
                }
                Ok(command)
            }
        }
    }
}

/// What the script has built, or why it has not.
fn built(variable: &str) -> Result<String, String> {
    let value =
        env::var(variable).map_err(|_| "not built: start benches/compare/run".to_owned())?;
    if value.starts_with('/') { Ok(value) } else { Err(value) }
}

/// Everything, in the order of the table.
pub(crate) fn all() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (idle, timers) in [(0, 0), (0, 1000), (16, 0), (16, 1000), (256, 0), (256, 1000)] {
        scenes.push(Scene {
            name: format!("hot_{idle}_{timers}"),
            title: format!("Hot drain: 1 busy socket, {idle} idle ones, {timers} timers"),
            unit: "messages/s",
            more_is_better: true,
            contenders: loops("hot", idle, timers),
        });
    }
    for (idle, timers) in [(0, 0), (16, 1000)] {
        scenes.push(Scene {
            name: format!("stream_{idle}_{timers}"),
            title: format!("Live stream over tcp, 64 bytes: {idle} idle sockets, {timers} timers"),
            unit: "messages/s",
            more_is_better: true,
            contenders: loops("stream", idle, timers),
        });
    }
    for idle in [0, 16] {
        scenes.push(Scene {
            name: format!("cold_{idle}"),
            title: format!("Cold message over tcp, {idle} idle sockets: system calls"),
            unit: "calls/message",
            more_is_better: false,
            contenders: named(|program| How::Calls { program, idle }),
        });
    }
    scenes.push(Scene {
        name: "trip".into(),
        title: "Round trip over tcp, 64 bytes: p50".into(),
        unit: "us",
        more_is_better: false,
        contenders: loops("trip", 0, 0),
    });
    scenes.extend(states());
    scenes
}

fn states() -> Vec<Scene> {
    let scene = |name: String, title: String, unit, scene: &'static str, count, size| Scene {
        name,
        title,
        unit,
        more_is_better: scene != "trip",
        contenders: [
            ("pollux", "pollux", "libzmq"),
            ("pollux, client by ZMTP", "pollux", "zmtp"),
            ("bare relay", "relay", "libzmq"),
            ("bare relay, client by ZMTP", "relay", "zmtp"),
            ("Redis", "redis", "redis"),
            ("NATS KV", "nats", "nats"),
        ]
        .into_iter()
        .map(|(name, server, client)| Contender {
            name: name.into(),
            is_baseline: server == "pollux",
            how: How::State { server, client, scene, count, size },
        })
        .collect(),
    };
    let mut scenes = Vec::new();
    for size in [64, 800] {
        scenes.push(scene(
            format!("state_trip_{size}"),
            format!("Change to watcher over tcp, {size} bytes: p50"),
            "us",
            "trip",
            3000,
            size,
        ));
        scenes.push(scene(
            format!("state_updates_{size}"),
            format!("Changes to a watcher over tcp, {size} bytes"),
            "updates/s",
            "updates",
            300_000,
            size,
        ));
    }
    scenes.push(scene(
        "state_join".into(),
        "Late joiner: 100,000 keys of 100 bytes over tcp".into(),
        "keys/s",
        "join",
        100_000,
        100,
    ));
    scenes
}

fn loops(scene: &'static str, idle: usize, timers: usize) -> Vec<Contender> {
    named(|program| How::Loop { program, scene, idle, timers })
}

fn named(how: impl Fn(Program) -> How) -> Vec<Contender> {
    [
        ("pollux", Program::Contender("pollux")),
        ("pollux, zmq_poll backend", Program::Contender("pollux_zmq_poll")),
        ("bare receive loop, 1 socket", Program::Contender("bare")),
        ("zmq_poll, 1 receive a turn", Program::Contender("zmq_poll")),
        ("zloop, system libzmq", Program::Zloop { is_vendored: false }),
        ("zloop, same libzmq", Program::Zloop { is_vendored: true }),
        ("calloop + ZMQ_FD", Program::Contender("calloop")),
        ("tmq", Program::Contender("tmq")),
        ("zmq.rs", Program::Contender("zmq_rs")),
    ]
    .map(|(name, program)| Contender {
        name: name.into(),
        is_baseline: name == "pollux",
        how: how(program),
    })
    .into()
}

impl Contender {
    /// Gets ready for the first round.
    ///
    /// # Errors
    /// Why it cannot take part.
    pub(crate) fn start(&self) -> Result<Running, String> {
        let server = match self.how {
            How::Loop { program: Program::Contender("zmq_rs"), scene: "hot", .. } => {
                return Err("it has no inproc transport".into());
            }
            How::State { server: "relay", scene: "join", .. } => {
                return Err("it sends no snapshots".into());
            }
            How::State { server, .. } => Some(Server::start(server)?),
            _ => None,
        };
        Ok(Running { how: self.how.clone(), server, ns: None })
    }
}

/// A contender between its turns.
pub(crate) struct Running {
    how: How,
    server: Option<Server>,
    /// What a message took the last time, for the number of messages.
    ns: Option<f64>,
}

/// How long a turn of a loop is to be.
const TURN_NS: f64 = 0.2e9;

impl Running {
    /// One turn.
    pub(crate) fn figure(&mut self) -> Result<f64, String> {
        match self.how.clone() {
            How::Loop { program, scene: "trip", .. } => {
                Ok(child::figure(&turn(&program, "trip", 3000, 64, 0, 0)?, "p50")? / 1e3)
            }
            How::Loop { program, scene, idle, timers } => {
                let (size, most) = if scene == "hot" { (32, 2_000_000.0) } else { (64, 1e6) };
                let count = self.ns.map_or(10_000.0, |ns| (TURN_NS / ns).clamp(5_000.0, most));
                let line = turn(&program, scene, count as usize, size, idle, timers)?;
                let ns = child::figure(&line, "ns")?;
                self.ns = Some(ns);
                Ok(1e9 / ns)
            }
            How::Calls { program, idle } => {
                let mut command = program.command()?;
                command.args(["stream", "COUNT", "64", &idle.to_string(), "0"]);
                strace::calls_per_message(&command)
            }
            How::State { client, scene, count, size, .. } => {
                let address = &self.server.as_ref().expect("started").address;
                let mut process = child::contender();
                process.args(["state", client, scene, &count.to_string(), &size.to_string()]);
                let (_process, lines) = child::spawn(process.args(address))?;
                let line = child::expect(&lines, "")?;
                match scene {
                    "trip" => Ok(child::figure(&line, "p50")? / 1e3),
                    _ => child::figure(&line, "rate"),
                }
            }
        }
    }
}

/// A turn of a loop, with its peer over tcp.
fn turn(
    program: &Program,
    scene: &str,
    count: usize,
    size: usize,
    idle: usize,
    timers: usize,
) -> Result<String, String> {
    let [count, size, idle, timers] = [count, size, idle, timers].map(|number| number.to_string());
    let mut command = program.command()?;
    let (_child, lines) = child::spawn(command.args([scene, &count, &size, &idle, &timers]))?;
    let _peer = match scene {
        "hot" => None,
        _ => {
            let endpoint = child::expect(&lines, "endpoint ")?;
            let mut peer = child::contender();
            match scene {
                "trip" => peer.args(["echo", &endpoint]),
                _ => peer.args(["feed", &endpoint, &count, &size, "0"]),
            };
            Some(child::spawn(&mut peer)?)
        }
    };
    child::expect(&lines, "")
}
