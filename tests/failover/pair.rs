//! Two processes that are a pair.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::common::{Broker, DEADLINE, Process, free_endpoint, pollux, status_of};

/// Which of the two.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

pub(crate) struct Pair {
    brokers: [Option<Broker>; 2],
    /// Where they listen.
    pub(crate) endpoints: [String; 2],
    /// Where each is told that the other is.
    peers: [String; 2],
    args: Vec<String>,
}

impl Pair {
    /// Both are started; the primary is active when this returns, with a standby.
    pub(crate) fn start(args: &[&str]) -> Pair {
        let endpoints = [free_endpoint(), free_endpoint()];
        let peers = [endpoints[B].clone(), endpoints[A].clone()];
        Pair::start_at(endpoints, peers, args)
    }

    /// The same, with endpoints at which each reaches the other.
    pub(crate) fn start_at(endpoints: [String; 2], peers: [String; 2], args: &[&str]) -> Pair {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut pair = Pair { brokers: [None, None], endpoints, peers, args };
        pair.run(A);
        pair.run(B);
        pair.wait_for_standby(A);
        pair
    }

    /// Starts one that does not run.
    pub(crate) fn run(&mut self, at: usize) {
        let seat = ["primary", "backup"][at];
        let mut args = vec!["-v", "--pair", seat, "--peer", &self.peers[at]];
        args.extend(self.args.iter().map(String::as_str));
        self.brokers[at] = Some(Broker::start_at(&self.endpoints[at], &args));
    }

    pub(crate) fn process(&self, at: usize) -> &Process {
        &self.brokers[at].as_ref().expect("it runs").process
    }

    /// `kill -9`. Gives the moment before.
    pub(crate) fn kill(&mut self, at: usize) -> Instant {
        let mut broker = self.brokers[at].take().expect("it runs");
        let moment = Instant::now();
        broker.process.signal("KILL");
        broker.process.wait();
        moment
    }

    /// The list that clients are given.
    pub(crate) fn list(&self) -> String {
        self.endpoints.join(",")
    }

    /// What a broker says of itself, be it active or passive.
    pub(crate) fn status(&self, at: usize) -> Option<Value> {
        status_of(&self.endpoints[at])
    }

    /// All that they said, for a test that fails.
    pub(crate) fn report(&self) -> String {
        let of = |at: usize| match &self.brokers[at] {
            None => format!("broker {at} does not run\n"),
            Some(broker) => format!(
                "broker {at}: {}\nit said:\n{}\n",
                self.status(at).map_or("no status".to_owned(), |status| format!("{status:#}")),
                broker.process.stderr.seen()
            ),
        };
        of(A) + &of(B)
    }

    /// Waits until the status of a broker is so.
    pub(crate) fn wait_until(&self, at: usize, what: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.status(at);
            if last.as_ref().is_some_and(&is_so) {
                return;
            }
        }
        panic!("broker {at} not {what} in {DEADLINE:?}; its status: {last:#?}\n{}", self.report());
    }

    /// Waits until it is active, and the other has its state and follows.
    pub(crate) fn wait_for_standby(&self, at: usize) {
        self.wait_until(at, "active with a standby", |status| {
            status["role"] == "active" && status["standby"] == "live"
        });
    }

    /// The active, once the other has its state and follows. It need not be the one that
    /// was: a machine that is busy enough for a process not to run for two short heartbeats
    /// makes the other take over.
    pub(crate) fn active(&self) -> Active {
        self.find_active("active with a standby", |_, _| true)
    }

    /// The active, once what it has applied by then is safe: from then on its writers go on.
    pub(crate) fn progressing(&self) -> Active {
        let mut applied = [None; 2];
        self.find_active("making progress", |at, status| {
            let number = |name: &str| status[name].as_u64().unwrap_or_default();
            number("stable") > *applied[at].get_or_insert(number("sequence"))
        })
    }

    fn find_active(&self, what: &str, mut is_so: impl FnMut(usize, &Value) -> bool) -> Active {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            for at in [A, B] {
                let Some(status) = self.status(at) else { continue };
                let has_standby = status["role"] == "active" && status["standby"] == "live";
                if has_standby && is_so(at, &status) {
                    let epoch = status["epoch"].as_u64().expect("a number") as u32;
                    return Active { at, epoch };
                }
            }
        }
        panic!("none of the two is {what} in {DEADLINE:?}\n{}", self.report());
    }

    /// The whole state of a broker: each key with its sequence and value.
    pub(crate) fn state(&self, at: usize) -> State {
        let dump = pollux(["dump", "--timeout", "30s", "--connect", &self.endpoints[at]]);
        let lines = dump.success();
        let entry = |line: &str| {
            let entry: Value = serde_json::from_str(line).expect("a line of a dump");
            let text = |name: &str| entry[name].as_str().expect("text").to_owned();
            (text("key"), (entry["sequence"].as_u64().expect("a number"), text("value")))
        };
        lines.lines().map(entry).collect()
    }
}

/// Which of the two is active, and since which epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    pub(crate) at: usize,
    pub(crate) epoch: u32,
}

/// Keys with the sequence of their last change and their value.
pub(crate) type State = BTreeMap<String, (u64, String)>;
