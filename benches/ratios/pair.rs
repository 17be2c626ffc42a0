//! Changes through the active of a pair, whose standby follows it in a process of its own,
//! through a broker and a relay that follows it, and through a broker that is alone.
//!
//! The traffic is that of `relay.rs`, live: a sender at most a window ahead of a subscriber. The
//! standby, or the relay, is this program once more, over a Unix socket, so that the two brokers share
//! nothing but the machine; the loop, the sockets and the traffic of both sides are alike.

use std::env;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use pollux::clone::pair::{PairConfig, SafePolicy, Seat, pair_id};
use pollux::clone::relay::RelayConfig;
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Backend, Reactor};

use super::common::measure::{interleave, median, median_ratio};
use super::outcome::Outcome;
use super::traffic::{Endpoints, Traffic};

const ROUNDS: usize = 15;
const VALUE_LEN: usize = 64;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// The first argument of the process that is the standby, or the relay.
const STANDBY: &str = "--standby";
const RELAY: &str = "--relay";

pub(crate) fn throughput() -> Vec<Outcome> {
    let directory = tempfile::tempdir().expect("a directory");
    let mut lone = Served::lone(directory.path());
    let mut pair = Served::pair(directory.path());
    let [lone_rates, paired] = interleave(ROUNDS, [&mut || lone.round(), &mut || pair.round()]);
    // A standby that was left behind would have cost nothing.
    let behind = pair.wait_for_standby();
    let figures = format!(
        "{:.0} updates/s with a live standby, alone {:.0} (values of {VALUE_LEN} bytes); the \
         standby had all {:.0} ms after the last; processor time an update, of all threads: {:.2} us, \
         alone {:.2}",
        median(&paired),
        median(&lone_rates),
        behind.as_secs_f64() * 1e3,
        pair.cpu_per_update() * 1e6,
        lone.cpu_per_update() * 1e6,
    );
    vec![Outcome::new("broker_pair", median_ratio(&paired, &lone_rates), figures)]
}

/// The same traffic, with the subscriber at a relay or at the broker that it follows.
pub(crate) fn relay_throughput() -> Vec<Outcome> {
    let directory = tempfile::tempdir().expect("a directory");
    let mut direct = Served::lone(directory.path());
    let mut relayed = Served::relayed(directory.path());
    let [direct, relayed] = interleave(ROUNDS, [&mut || direct.round(), &mut || relayed.round()]);
    let figures = format!(
        "{:.0} updates/s through a relay, {:.0} at its upstream (values of {VALUE_LEN} bytes)",
        median(&relayed),
        median(&direct),
    );
    vec![Outcome::new("broker_relay", median_ratio(&relayed, &direct), figures)]
}

/// If this process was started as the standby or the relay, is it until its stdin ends.
pub(crate) fn follow() {
    let args: Vec<String> = env::args().collect();
    let [_, first, own, other] = args.as_slice() else { return };
    let options = match first.as_str() {
        STANDBY => paired(Seat::Backup, other),
        RELAY => relaying(other),
        _ => return,
    };
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let context = zmq::Context::new();
    let (mut reactor, mut node) = attach(&context, own, options);
    reactor.run(&mut node).expect("it runs");
}

fn paired(seat: Seat, peer: &str) -> BrokerOptions {
    let mut options = alone();
    let mut pair = PairConfig::new(pair_id("bench"), seat);
    // Only what the standby has is safe: so one sees whether it has it.
    pair.policy = SafePolicy::Wait;
    options.config.pair = Some(pair);
    options.peer = Some(peer.to_owned());
    options
}

fn relaying(upstream: &str) -> BrokerOptions {
    let mut options = alone();
    options.follow = Some(RelayConfig::new(vec![upstream.to_owned()]));
    options
}

fn alone() -> BrokerOptions {
    let mut options = BrokerOptions::default();
    // Nothing is dropped; the window bounds the queues.
    (options.updates_hwm, options.changes_hwm) = (0, 0);
    options
}

fn attach(
    context: &zmq::Context,
    endpoint: &str,
    options: BrokerOptions,
) -> (Reactor<BrokerNode>, BrokerNode) {
    let mut node = BrokerNode::bind(context, endpoint, options).expect("a broker");
    let mut reactor = Reactor::builder().backend(Backend::Epoll).build().expect("a reactor");
    BrokerNode::attach(&mut reactor, &mut node, |node| node).expect("attached");
    (reactor, node)
}

/// A broker in this thread, alone or with a standby.
struct Served {
    traffic: Traffic,
    reactor: Reactor<BrokerNode>,
    node: BrokerNode,
    /// The standby, or the relay.
    follower: Option<Follower>,
    /// Processor time of all rounds, in seconds.
    cpu: f64,
}

/// The process, which ends with this.
struct Follower(Child);

impl Follower {
    /// This program once more, at `own`, following `other`.
    fn start(what: &str, own: &str, other: &str) -> Follower {
        let process = Command::new(env::current_exe().expect("this program"))
            .args([what, own, other])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        Follower(process)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Served {
    fn lone(directory: &Path) -> Served {
        Served::new(&format!("ipc://{}/lone", directory.display()), alone())
    }

    fn pair(directory: &Path) -> Served {
        let at = |name: &str| format!("ipc://{}/{name}", directory.display());
        let (own, other) = (at("active"), at("standby"));
        let mut served = Served::new(&own, paired(Seat::Primary, &other));
        served.follower = Some(Follower::start(STANDBY, &other, &own));
        served.wait_for_standby();
        served
    }

    /// The subscriber is at a relay, the sender at its upstream.
    fn relayed(directory: &Path) -> Served {
        let at = |name: &str| format!("ipc://{}/{name}", directory.display());
        let (own, relay) = (at("upstream"), at("relay"));
        let mut served = Served::new(&own, alone());
        served.follower = Some(Follower::start(RELAY, &relay, &own));
        served.traffic.endpoints.updates =
            pollux::node::Endpoints::from_first(&relay).expect("endpoints").updates;
        served
    }

    fn new(endpoint: &str, options: BrokerOptions) -> Served {
        let context = zmq::Context::new();
        let (reactor, node) = attach(&context, endpoint, options);
        let endpoints = Endpoints {
            changes: node.endpoints().changes.clone(),
            updates: node.endpoints().updates.clone(),
        };
        let traffic = Traffic::new(context, endpoints, VALUE_LEN);
        Served { traffic, reactor, node, follower: None, cpu: 0.0 }
    }

    fn round(&mut self) -> f64 {
        let before = self.cpu_until_now();
        let Served { traffic, reactor, node, .. } = self;
        let rate = traffic.live(|done| {
            while !done.load(Ordering::Acquire) {
                reactor.turn(node, Duration::from_millis(10)).expect("a turn");
            }
        });
        self.cpu += self.cpu_until_now() - before;
        rate
    }

    /// Seconds, of this process and of the follower; zero where it cannot be told.
    fn cpu_until_now(&self) -> f64 {
        let follower = self.follower.as_ref().map(|follower| follower.0.id());
        cpu_of(std::process::id()) + follower.map_or(0.0, cpu_of)
    }

    /// Seconds, of all threads of both processes, sender and subscriber among them.
    fn cpu_per_update(&self) -> f64 {
        self.cpu / self.traffic.sent() as f64
    }

    /// Serves until the standby has confirmed everything; gives how long that took.
    fn wait_for_standby(&mut self) -> Duration {
        let began = Instant::now();
        let heartbeats = self.traffic.context.socket(zmq::SUB).expect("a SUB");
        heartbeats.set_subscribe(b"HUGZ").expect("SUBSCRIBE");
        heartbeats.connect(&self.traffic.endpoints.updates).expect("connected");
        loop {
            assert!(began.elapsed() < DEADLINE, "the standby does not follow");
            self.reactor.turn(&mut self.node, Duration::from_millis(1)).expect("a turn");
            while let Ok(frames) = heartbeats.recv_multipart(zmq::DONTWAIT) {
                let properties = String::from_utf8_lossy(&frames[3]).into_owned();
                let stable = format!("stable={}\n", self.node.machine().sequence());
                if properties.contains("standby=live\n") && properties.contains(&stable) {
                    return began.elapsed();
                }
            }
        }
    }
}

/// Seconds that all threads of a process have had, those that have ended, too; proc(5).
fn cpu_of(process: u32) -> f64 {
    /// Of the times in this file, on all common machines.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which ends with the last parenthesis: utime and stime.
    let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}
