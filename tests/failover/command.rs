//! The pair's part of the command: orders, status, commands run at a change of role.

use crate::common::{Broker, Process, free_endpoint, pollux};
use crate::pair::{A, B, Pair};

#[test]
fn promote_and_demote_switch_over_in_an_orderly_way() {
    let pair = Pair::start(&["--heartbeat", "100ms"]);
    let [a, b] = &pair.endpoints;
    pollux(["set", "/a", "1", "--connect", a]).success();
    assert_eq!(pollux(["promote", "--connect", b]).success(), format!("{b} is active\n"));
    pair.wait_for_standby(B);
    assert_eq!(pollux(["get", "/a", "--connect", b]).success(), "1");
    // What is so already is no error.
    pollux(["promote", "--connect", b]).success();
    pollux(["demote", "--connect", a]).success();
    assert_eq!(pollux(["demote", "--json", "--connect", b]).success(), "{\"role\":\"passive\"}\n");
    pair.wait_for_standby(A);
    let status = pair.status(B).expect("a passive broker has a status, too");
    assert_eq!(status["role"], "passive");
    assert_eq!(status["peer_role"], "active");
    assert_eq!(status["seat"], "backup");
    assert!(status["lag_changes"].is_u64(), "{status:#}");
    // Nothing that was applied had to be handed over afterwards.
    assert_eq!(status["resubmitted"], 0);
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_reason() {
    let lone = Broker::start(&[]);
    for order in ["promote", "demote"] {
        let refused = lone.pollux([order]).failure(4);
        assert!(refused.contains("not one of a pair"), "{refused}");
    }
    let mut pair = Pair::start(&["--heartbeat", "100ms"]);
    pair.kill(B);
    pair.wait_until(A, "alone", |status| status["standby"] == "none");
    let complaint = pollux(["demote", "--connect", &pair.endpoints[A]]).failure(4);
    assert!(complaint.contains("no standby"), "{complaint}");
    let nobody = pollux(["promote", "--timeout", "300ms", "--connect", &pair.endpoints[B]]);
    nobody.failure(3);
}

#[test]
fn a_change_of_role_runs_a_command_and_its_exit_code_is_logged() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("roles");
    let on =
        |code: u8| format!("echo $POLLUX_ROLE $POLLUX_EPOCH >> {}; exit {code}", path.display());
    let (on_active, on_passive) = (on(0), on(7));
    let endpoints = [free_endpoint(), free_endpoint()];
    let start = |at: usize, seat: &str| {
        let mut args = vec!["-v", "broker", "--bind", &endpoints[at], "--heartbeat", "100ms"];
        args.extend(["--pair", seat, "--peer", &endpoints[1 - at]]);
        args.extend(["--on-active", &on_active, "--on-passive", &on_passive]);
        Process::start(args)
    };
    let mut primary = start(A, "primary");
    let mut backup = start(B, "backup");
    primary.complaint("ended with exit code 0");
    backup.complaint("ended with exit status: 7");
    let lines = std::fs::read_to_string(&path).expect("both have written");
    let mut roles: Vec<&str> = lines.lines().collect();
    roles.sort_unstable();
    assert_eq!(roles.len(), 2, "{lines}");
    assert!(roles[0].starts_with("active "), "{lines}");
    assert!(roles[1].starts_with("passive "), "{lines}");
    let epoch = roles[0].split(' ').nth(1).expect("an epoch");
    assert!(epoch.parse::<u32>().is_ok_and(|epoch| epoch > 0), "{lines}");
}

#[test]
fn half_a_pair_is_a_mistake_that_is_explained() {
    for args in [&["--pair", "primary"][..], &["--peer", "tcp://127.0.0.1:5556"]] {
        let complaint = pollux([&["broker"], args].concat()).failure(2);
        assert!(complaint.contains("--pair") && complaint.contains("--peer"), "{complaint}");
    }
    let inproc = pollux(["broker", "--pair", "primary", "--peer", "inproc://x"]).failure(2);
    assert!(inproc.contains("same process"), "{inproc}");
}
