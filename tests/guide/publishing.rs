//! wuserver, wuclient, wuproxy, syncpub, syncsub, psenvpub, psenvsub.

use std::thread;

use pollux::Multipart;
use pollux::socket::SocketType;

use crate::common::Process;
use crate::{after, end, is_slowed, of, receive, send, socket, start};

const FREE: &str = "tcp://127.0.0.1:*";

#[test]
fn the_weather_of_one_place() {
    let mut server = start("weather", &["server", FREE]);
    let endpoint = after(&mut server, "publishing at ");
    let client = start("weather", &["client", &endpoint, "10001", "20"]);
    let output = client.finish().success();
    let average = output
        .strip_prefix("10001: ")
        .and_then(|rest| rest.strip_suffix(" F on average of 20 updates\n")?.parse::<i64>().ok());
    assert!((-80..=135).contains(&average.expect(&output)), "{output}");

    // Only what was subscribed to comes.
    let sub = socket(of(SocketType::Sub).subscribe("10002").connect(&endpoint));
    for _ in 0..5 {
        let update = receive(&sub);
        assert_eq!(update.get(0).unwrap(), "10002");
        assert_eq!(update.len(), 2);
    }
    let published = end(server, "INT");
    assert!(published.starts_with("published "), "{published}");
}

#[test]
fn envelopes_are_filtered_by_their_key() {
    let mut publisher = start("envelopes", &["ps_env_pub", FREE]);
    let address = after(&mut publisher, "publishing at ");
    for (key, text) in
        [("A", "We do not want to see this, B or no B"), ("B", "We would like to see this")]
    {
        let subscriber = start("envelopes", &["ps_env_sub", &address, key, "3"]);
        let expected = format!("[{key}] from {address}: {text}\n").repeat(3);
        assert_eq!(subscriber.finish().success(), expected);
    }
    end(publisher, "TERM");
}

/// From ipc inside to tcp outside: below the high-water mark nothing is lost, and subscriptions
/// go back to the publisher.
#[test]
fn the_forwarder_loses_nothing_below_the_high_water_mark() {
    const COUNT: usize = 5000;
    const HWM: u32 = 2 * COUNT as u32;
    let directory = tempfile::tempdir().unwrap();
    let inside = format!("ipc://{}", directory.path().join("inside").display());
    let publisher = socket(of(SocketType::XPub).send_hwm(HWM).bind(&inside));
    let hwm = HWM.to_string();
    let mut forwarder = start("wu_proxy", &[&inside, FREE, &hwm]);
    let outside = after(&mut forwarder, "subscribers at ");
    let subscribers: Vec<_> = (0..3)
        .map(|_| {
            let sub = of(SocketType::Sub).receive_hwm(HWM).subscribe("even");
            socket(sub.connect(&outside))
        })
        .collect();
    let other = socket(of(SocketType::Sub).receive_hwm(HWM).subscribe("o").connect(&outside));
    // The proxy passes the first subscription to each prefix on; that all subscribers are there
    // they see themselves.
    let mut topics = [receive(&publisher), receive(&publisher)].map(|m| m.get(0).unwrap().clone());
    topics.sort();
    assert_eq!(topics, ["\u{1}even", "\u{1}o"]);
    let mut waiting: Vec<_> = subscribers.iter().chain([&other]).collect();
    while !waiting.is_empty() {
        send(&publisher, &["even", "hello"]);
        send(&publisher, &["odd", "hello"]);
        waiting.retain(|sub| {
            !sub.wait(pollux::socket::Interest::READABLE, Some(std::time::Duration::from_millis(5)))
                .unwrap()
                .readable
        });
    }
    for index in 0..COUNT {
        let topic = if index % 2 == 0 { "even" } else { "odd" };
        send(&publisher, &[topic, &index.to_string()]);
    }
    for (sub, first) in subscribers.iter().map(|sub| (sub, 0)).chain([(&other, 1)]) {
        for index in (first..COUNT).step_by(2) {
            let message = std::iter::repeat_with(|| receive(sub))
                .find(|message| message.get(1).unwrap() != "hello")
                .unwrap();
            let topic = if first == 0 { "even" } else { "odd" };
            assert_eq!(message, Multipart::from([topic.to_owned(), index.to_string()]));
        }
    }
    let output = end(forwarder, "INT");
    let forwarded = output.strip_prefix("forwarded ").and_then(|rest| rest.split(' ').next());
    assert!(forwarded.unwrap().parse::<usize>().unwrap() >= COUNT, "{output}");
}

struct Publisher {
    process: Process,
    updates: String,
    sync: String,
}

fn publisher(subscribers: usize, count: u64) -> Publisher {
    let (subscribers, count) = (subscribers.to_string(), count.to_string());
    let mut process = start("node_sync", &["sync_pub", FREE, FREE, &subscribers, &count]);
    let updates = after(&mut process, "updates at ");
    let sync = after(&mut process, "sync at ");
    Publisher { process, updates, sync }
}

fn synchronise(subscribers: usize, count: u64) {
    let publisher = publisher(subscribers, count);
    let subscribers: Vec<_> = (0..subscribers)
        .map(|_| start("node_sync", &["sync_sub", &publisher.updates, &publisher.sync]))
        .collect();
    for subscriber in subscribers {
        let output = subscriber.finish().success();
        assert_eq!(output, format!("received {count} updates, none missing\n"));
    }
    let output = publisher.process.finish().success();
    assert_eq!(output, format!("published {count} updates\n"));
}

/// Ten publishers, each with its subscriber, fifty times.
#[test]
fn no_subscriber_misses_the_first_message() {
    let rounds = if is_slowed() { 1 } else { 50 };
    let pairs: Vec<_> = (0..10)
        .map(|_| thread::spawn(move || (0..rounds).for_each(|_| synchronise(1, 20))))
        .collect();
    pairs.into_iter().for_each(|pair| pair.join().unwrap());
}

/// Ten subscribers of one publisher, whose updates are many more than the marks hold.
#[test]
fn ten_subscribers_get_every_update() {
    synchronise(10, 20_000);
}
