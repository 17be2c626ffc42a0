//! rrbroker, msgqueue, rrclient, rrworker.

use std::collections::BTreeMap;

use crate::common::Process;
use crate::{after, end, of, receive, send, socket, start};
use pollux::socket::{Socket, SocketType};

const WORKERS: usize = 4;
const CLIENTS: u64 = 10;
const REQUESTS: u64 = 10_000;

struct Broker {
    process: Process,
    frontend: String,
    backend: String,
}

fn broker(role: &str) -> Broker {
    let free = "tcp://127.0.0.1:*";
    let mut process = start("request_reply", &[role, free, free]);
    let frontend = after(&mut process, "clients at ");
    let backend = after(&mut process, "workers at ");
    Broker { process, frontend, backend }
}

/// Asks until as many workers as there are have answered: then all are connected.
fn wait_for_workers(frontend: &str) -> u64 {
    let req = socket(of(SocketType::Req).connect(frontend));
    let mut seen = BTreeMap::new();
    let mut asked = 0;
    while seen.len() < WORKERS {
        let request = asked.to_string();
        send(&req, &request);
        let reply = receive(&req);
        assert_eq!(reply.get(0).unwrap(), request.as_bytes());
        seen.insert(reply.get(1).unwrap().clone(), ());
        asked += 1;
    }
    asked
}

/// 10,000 requests of ten clients are shared fairly among four workers, and each client gets
/// its own replies.
fn shares_requests(role: &str) {
    let broker = broker(role);
    let workers: Vec<Process> = (0..WORKERS)
        .map(|index| {
            let name = format!("worker-{index}");
            start("request_reply", &["rr_worker", &broker.backend, &name])
        })
        .collect();
    let asked = wait_for_workers(&broker.frontend);
    let each = (REQUESTS / CLIENTS).to_string();
    let clients: Vec<Process> = (0..CLIENTS)
        .map(|_| start("request_reply", &["rr_client", &broker.frontend, &each]))
        .collect();
    let mut replies: BTreeMap<String, u64> = BTreeMap::new();
    for client in clients {
        let output = client.finish().success();
        for line in output.lines() {
            let (count, worker) = line.split_once(" times World from ").expect("a count");
            *replies.entry(worker.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
    assert_eq!(replies.values().sum::<u64>(), REQUESTS);
    let share = REQUESTS / WORKERS as u64;
    for (worker, count) in &replies {
        assert!((share * 8 / 10..=share * 12 / 10).contains(count), "{worker}: {replies:?}");
    }
    let mut served = 0;
    for (index, worker) in workers.into_iter().enumerate() {
        let output = end(worker, if index % 2 == 0 { "TERM" } else { "INT" });
        served += output.trim().rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(served, REQUESTS + asked);
    let output = end(broker.process, "TERM");
    assert_eq!(output, format!("{served} requests, {served} replies\n"));
}

#[test]
fn the_broker_shares_requests() {
    shares_requests("rr_broker");
}

#[test]
fn the_proxy_shares_requests() {
    shares_requests("msg_queue");
}

/// Requests without a worker wait, none is lost, and the broker goes on when one comes.
fn holds_requests(role: &str) {
    let broker = broker(role);
    let context = zmq::Context::new();
    let clients: Vec<Socket> = (0..20)
        .map(|index: i32| {
            let req = of(SocketType::Req).connect(&broker.frontend).build(&context).unwrap();
            send(&req, &index.to_string());
            req
        })
        .collect();
    let worker = start("request_reply", &["rr_worker", &broker.backend, "late"]);
    for (index, req) in clients.iter().enumerate() {
        assert_eq!(receive(req).get(0).unwrap(), index.to_string().as_bytes());
    }
    assert_eq!(end(worker, "INT"), "late served 20\n");
    assert_eq!(end(broker.process, "INT"), "20 requests, 20 replies\n");
}

#[test]
fn the_broker_holds_requests_without_a_worker() {
    holds_requests("rr_broker");
}

#[test]
fn the_proxy_holds_requests_without_a_worker() {
    holds_requests("msg_queue");
}
