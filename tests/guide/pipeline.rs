//! taskvent, taskwork2, tasksink2, and msreader and mspoller, which read from two sources.

use std::collections::HashSet;

use pollux::socket::SocketType;

use crate::common::Process;
use crate::{after, end, of, receive, send, socket, start};

const FREE: &str = "tcp://127.0.0.1:*";

#[test]
fn the_sink_counts_all_tasks_and_every_worker_ends() {
    const TASKS: u64 = 300;
    let mut sink = start("pipeline", &["task_sink", FREE, FREE]);
    let results = after(&mut sink, "results at ");
    let control = after(&mut sink, "control at ");
    let mut ventilator = start("pipeline", &["task_vent", FREE, &results, &TASKS.to_string()]);
    let tasks = after(&mut ventilator, "tasks at ");
    let workers: Vec<Process> =
        (0..4).map(|_| start("pipeline", &["task_work", &tasks, &results, &control])).collect();
    assert_eq!(ventilator.line(), "press Enter when the workers are ready");
    ventilator.write(b"\n");

    let worked: Vec<u64> = workers
        .into_iter()
        .map(|worker| {
            let output = worker.finish().success();
            let count = output.strip_prefix("worked on ").and_then(|rest| rest.split(' ').next());
            count.expect("a count").parse().unwrap()
        })
        .collect();
    assert_eq!(worked.iter().sum::<u64>(), TASKS, "{worked:?}");
    let output = sink.finish().success();
    let work_ms: u64 = (0..TASKS).map(|index| 1 + index * 7 % 10).sum();
    let expected = format!("{TASKS} results, {work_ms} ms of work in ");
    assert!(output.starts_with(&expected), "{output}");
    assert_eq!(ventilator.finish().success(), format!("dealt {TASKS} tasks\n"));
}

/// Either way of reading shows all that comes from both sources, each in its order.
fn reads_two_sources(way: &str) {
    const COUNT: usize = 500;
    let tasks = socket(of(SocketType::Push).bind(FREE));
    let updates = socket(of(SocketType::XPub).nodrop(true).bind(FREE));
    let endpoints = [tasks.last_endpoint().unwrap(), updates.last_endpoint().unwrap()];
    let mut reader = start("two_sources", &[way, &endpoints[0], &endpoints[1]]);
    assert_eq!(receive(&updates).get(0).unwrap(), "\u{1}10001");
    let mut expected = HashSet::new();
    for index in 0..COUNT {
        send(&tasks, &format!("{index}"));
        send(&updates, &["10001", &format!("{index}")]);
        send(&updates, &["20002", "elsewhere"]);
        expected.insert(format!("task: {index}"));
        expected.insert(format!("update: 10001 {index}"));
    }
    let mut next = [0; 2];
    while !expected.is_empty() {
        let line = reader.line();
        assert!(expected.remove(&line), "{line}");
        let source = usize::from(line.starts_with("update"));
        let number: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(number, next[source], "in order");
        next[source] += 1;
    }
    assert_eq!(end(reader, "INT"), "");
}

#[test]
fn two_sources_by_hand() {
    reads_two_sources("ms_reader");
}

#[test]
fn two_sources_by_the_loop() {
    reads_two_sources("ms_poller");
}
