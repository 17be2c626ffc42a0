//! The schedule: what a step does to the programs and to the network.

use std::cmp::Reverse;
use std::time::Duration;

use pollux::clone::Uuid;
use pollux::clone::client::SetError;
use pollux::clone::pair::{Role, RoleRefusal};

use super::{Program, STALENESS_EVERY, System, Timer};
use crate::frames::Frames;
use crate::impostor::{self, Before};
use crate::logged;
use crate::net::Port;
use crate::plan::{Key, Step, What};
use crate::random::Random;
use crate::truth::GARBAGE;

impl System<'_> {
    pub(super) fn step(&mut self, step: &Step) {
        // Who is never called notices nothing by itself.
        for host in self.plan.servers.len()..self.programs.len() {
            if let Program::Client(program) = &self.programs[host]
                && program.staleness_at + STALENESS_EVERY <= self.net.now
            {
                self.hear(host, self.clock(host).local(self.net.now));
            }
        }
        if self.net.is_traced {
            eprintln!("{:>12.6} {:?}", self.net.now.as_nanos() as f64 / 1e9, step.what);
        }
        let mut random = Random::of(&[self.plan.seed, 0x57e9, step.number]);
        match step.what {
            What::Set { client, key, bytes, ttl_ms } => {
                let value = format!("{}{}", step.number, ".".repeat(bytes));
                self.set(client, key, &value, ttl_ms);
            }
            What::Delete { client, key } => self.set(client, key, "", None),
            What::Burst { client, count } => {
                for number in 0..count {
                    let key = Key::any(&mut random, self.plan.names);
                    self.set(client, key, &format!("{}/{number}", step.number), None);
                }
            }
            What::SetInBroker { server, key, ttl_ms } => {
                let (key, value) = (key.to_string(), step.number.to_string());
                let ttl = ttl_ms.map(Duration::from_millis);
                self.with_broker(server, |broker, now, out| {
                    let _ = broker.set(now, key.as_bytes(), value.as_bytes(), ttl, out);
                });
            }
            What::DeleteInBroker { server, key } => {
                let key = key.to_string();
                self.with_broker(server, |broker, now, out| {
                    broker.delete(now, key.as_bytes(), out);
                });
            }
            What::LeaveEvents { client, ms } => {
                let host = self.plan.client_host(client);
                if let Program::Client(program) = &mut self.programs[host] {
                    program.takes_events_at = self.net.now + Duration::from_millis(ms);
                    program.told.let_wait = true;
                }
            }
            What::Ask { client, subtree, delimited, times, reads } => {
                let host = self.plan.client_host(client);
                if let Program::Asker(asker) = &mut self.programs[host] {
                    asker.ask(&mut self.net, subtree, delimited, times, reads);
                }
            }
            What::AskStatus { client } => {
                let host = self.plan.client_host(client);
                if let Program::Asker(asker) = &mut self.programs[host] {
                    asker.ask_status(&mut self.net);
                }
            }
            _ => self.fault(&step.what, &mut random),
        }
    }

    fn fault(&mut self, what: &What, random: &mut Random) {
        let ms = Duration::from_millis;
        match *what {
            What::Cut { client, server, port } => self.net.cut_port(client, server, port),
            What::Block { from, to, ms: time, both } => {
                self.net.coverage.count("fault: partition");
                self.net.block(from, to, ms(time));
                if both {
                    self.net.block(to, from, ms(time));
                }
            }
            What::Stall { host, ms: time } => {
                self.net.coverage.count("fault: stall");
                self.net.stall(host, ms(time));
            }
            What::Slow { host, each_us, ms: time } => {
                self.net.coverage.count("fault: slow reader");
                self.net.slow(host, Duration::from_micros(each_us), ms(time));
            }
            What::Double { client, server, way, count } => {
                self.net.double(client, server, way, count);
            }
            What::Restart { host, ms: time } => {
                if !matches!(self.programs[host], Program::Off) {
                    self.net.coverage.count("fault: restart");
                    self.stop(host);
                    self.timers.push(Reverse((self.net.now + ms(time), Timer::Start(host))));
                }
            }
            What::Usurp { server, ms: time } => {
                let other = 1 - server;
                if self.plan.servers.len() == 2 && !matches!(self.programs[server], Program::Off) {
                    self.net.coverage.count("fault: usurped");
                    for host in (0..self.programs.len()).filter(|&host| host != other) {
                        self.net.block(host, other, ms(time));
                        self.net.block(other, host, ms(time));
                    }
                    self.stop(server);
                    self.timers.push(Reverse((self.net.now + ms(10), Timer::Start(server))));
                }
            }
            What::Freeze { host, ms: time } => {
                self.net.coverage.count("fault: freeze");
                self.net.stall(host, ms(time));
                for other in (0..self.programs.len()).filter(|&other| other != host) {
                    self.net.block(host, other, ms(time));
                    self.net.block(other, host, ms(time));
                }
                self.net.disconnect(host);
                let until = &mut self.frozen_until[host];
                *until = (*until).max(self.net.now + ms(time));
            }
            What::Promote { server } => {
                let role = self.with_broker(server, |broker, now, out| broker.promote(now, out));
                self.count_order("promote", role);
            }
            What::Demote { server } => {
                let role = self.with_broker(server, |broker, now, out| broker.demote(now, out));
                self.count_order("demote", role);
            }
            What::Garbage { server, port } => self.garbage(server, port, random),
            What::Claim { server, kind } => self.claim(server, kind),
            _ => unreachable!("{what:?} is no fault"),
        }
    }

    fn count_order(&mut self, name: &str, outcome: Option<Result<Role, RoleRefusal>>) {
        if let Some(outcome) = outcome {
            let outcome = outcome.map_or_else(RoleRefusal::name, Role::name);
            self.net.coverage.count(&format!("pair: {name}: {outcome}"));
        }
    }

    fn set(&mut self, client: usize, key: Key, value: &str, ttl_ms: Option<u64>) {
        let host = self.plan.client_host(client);
        let key = key.to_string();
        if let Program::OldClient(client) = &mut self.programs[host] {
            let number = self.truth.submissions.len() as u64;
            let bits = Random::of(&[self.plan.seed, host as u64, number]).next();
            let uuid =
                Uuid::from_bytes((u128::from(bits) << 64 | u128::from(number)).to_be_bytes());
            self.truth.submit(uuid, host, key.as_bytes(), value.as_bytes());
            let ttl_s = ttl_ms.map_or(0, |ms| ms.div_ceil(1000));
            client.set(&mut self.net, key.as_bytes(), value.as_bytes(), uuid, ttl_s);
            return;
        }
        let ttl = ttl_ms.map(Duration::from_millis);
        let local = self.clock(host).local(self.net.now);
        let Program::Client(program) = &mut self.programs[host] else { return };
        let (machine, mut side) = program.with(&mut self.net);
        let set = match value.is_empty() {
            true => machine.delete(local, key.as_bytes(), &mut side),
            false => machine.set(local, key.as_bytes(), value.as_bytes(), ttl, &mut side),
        };
        match set {
            Ok(uuid) => {
                // Nothing answers before the call has returned.
                self.truth.submit(uuid, host, key.as_bytes(), value.as_bytes());
                let before = program.told.open.insert(uuid, key);
                assert_eq!(before, None, "a uuid came twice");
            }
            Err(SetError::TooManyPending { .. }) => {
                self.net.coverage.count("limit: client pending");
            }
            Err(SetError::ValueSize { .. }) => self.net.coverage.count("limit: value size"),
            Err(error) => panic!("{key}: {error}"),
        }
        self.hear(host, local);
    }

    /// Whatever bytes: the broker neither stops nor gives anything away.
    fn garbage(&mut self, server: usize, port: Port, random: &mut Random) {
        const PARTS: [&[u8]; 14] = [
            b"",
            b"ICANHAZ?",
            b"STATUS?",
            b"KTHXBAI",
            b"HUGZ",
            b"\x01HUGZ",
            b"\x00HUGZ/a/",
            b"\x01",
            b"/a/\x07",
            b"12345678",
            &GARBAGE,
            b"a=b",
            b"==\n",
            b"since=5497558138985\n",
        ];
        let frames: Vec<&[u8]> = (0..random.below(8)).map(|_| random.pick(&PARTS)).collect();
        if frames.is_empty() {
            return;
        }
        let frames = match random.chance(10) {
            // In form, but of a key that nobody may have.
            true => Frames::new(&[b"HUGZ", b"12345678", b"0123456789abcdef", b"", b"x"]),
            false => Frames::new(&frames),
        };
        self.net.coverage.count("fault: garbage");
        self.with_broker(server, |broker, now, out| {
            frames.with(|message| match port {
                Port::Snapshots => broker.handle_request(b"nobody", message, out),
                Port::Changes => broker.handle_change(now, message, out),
                Port::Updates => broker.handle_subscription(now, message),
            });
        });
    }

    /// What a peer cannot say, or who is none says, changes nothing, and is counted.
    fn claim(&mut self, host: usize, kind: u64) {
        let Program::Broker(program) = &self.programs[host] else { return };
        let Some(stats) = program.machine.pair_stats() else { return };
        let Some(claim) = impostor::claim(kind, &program.machine, program.heard.as_ref()) else {
            return;
        };
        if self.net.is_traced {
            eprintln!("{}", impostor::trace(self.net.now, host, &claim));
        }
        let before = Before::of(&program.machine, program.stable.clone());
        let due = program.machine.next_deadline();
        let lines = logged::listen(|| {
            self.with_broker(host, |broker, now, out| {
                claim.frames.with(|message| match claim.way {
                    impostor::Way::Line => broker.handle_peer(now, message, out),
                    impostor::Way::Port => broker.handle_request(b"nobody", message, out),
                });
            });
        });
        let Program::Broker(program) = &self.programs[host] else { return };
        let after = Before::of(&program.machine, program.stable.clone());
        assert_eq!(before, after, "host {host} believes: {}", claim.name);
        let refused = program.machine.pair_stats().map_or(0, |stats| stats.peer_refused);
        let expected = stats.peer_refused + u64::from(claim.is_refused);
        assert_eq!(refused, expected, "host {host} does not count: {}", claim.name);
        if claim.is_refused {
            let due_now = program.machine.next_deadline();
            assert_eq!(due, due_now, "host {host} will do something about: {}", claim.name);
        }
        // The first of its kind, and each that doubles the count.
        let is_told = claim.is_refused && refused.is_power_of_two();
        let is_logged = lines.iter().any(|line| line.contains("refused"));
        assert_eq!(is_logged, is_told, "of {}, {refused}, this is logged: {lines:?}", claim.name);
        if is_told {
            self.net.coverage.count(&format!("claim logged: {}", claim.name));
        }
        self.net.coverage.count(&format!("claim: {}", claim.name));
    }
}
