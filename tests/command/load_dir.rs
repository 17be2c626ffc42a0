//! `load --dir`: files as keys.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Broker, Finished};

fn load(broker: &Broker, dir: &Path, prefix: &str) -> Finished {
    broker.pollux(["load", "--dir", dir.to_str().expect("text"), "--prefix", prefix])
}

#[test]
fn each_file_is_a_key_and_what_makes_none_is_named() {
    let broker = Broker::start(&["--max-value", "1000"]);
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).expect("ours");
    fs::create_dir_all(root.join("deep/er")).expect("it is ours");
    let binary: Vec<u8> = (0..=255).collect();
    write("text", b"plain\n");
    write("deep/er/binary", &binary);
    write("deep/at-limit", &[b'x'; 1000]);
    write("deep/over-limit", &[b'x'; 1001]);
    write("empty", b"");
    write("con\ntrol", b"x");
    write(&"n".repeat(251), b"x");
    symlink("text", root.join("link")).expect("it is ours");
    symlink("..", root.join("deep/loop")).expect("it is ours");
    symlink("nowhere", root.join("dangling")).expect("it is ours");

    let finished = load(&broker, root, "/p/q/");
    assert_eq!(finished.success(), "");
    let told = finished.stderr();
    for name in ["over-limit: skipped", "empty: skipped", "con\\ntrol: skipped", "loop: skipped"] {
        assert!(told.contains(name), "{name:?} is missing in\n{told}");
    }
    for name in ["nnnn: skipped", "dangling: skipped", "4 keys set, 6 skipped"] {
        assert!(told.contains(name), "{name:?} is missing in\n{told}");
    }
    assert_eq!(told.lines().count(), 7, "nothing else is said:\n{told}");

    for (key, value) in [
        ("/p/q/text", &b"plain\n"[..]),
        ("/p/q/link", b"plain\n"),
        ("/p/q/deep/er/binary", &binary),
        ("/p/q/deep/at-limit", &[b'x'; 1000]),
    ] {
        let got = broker.pollux(["get", key]);
        assert_eq!((got.code(), &got.stdout[..]), (Some(0), value), "{key}");
    }
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 4);
}

#[test]
fn all_files_of_a_large_tree_are_there_byte_for_byte() {
    let broker = Broker::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    for number in 0..2_000_u32 {
        let below = dir.path().join(format!("{}/{}", number % 7, number % 31));
        fs::create_dir_all(&below).expect("it is ours");
        // Sizes from 1 byte to 12 KiB, all bytes.
        let content: Vec<u8> = (0..=number * 6).map(|at| (at ^ number) as u8).collect();
        fs::write(below.join(number.to_string()), content).expect("it is ours");
    }
    let summary = broker
        .pollux(["load", "--json", "--prefix", "/", "--dir", dir.path().to_str().expect("text")])
        .success();
    let summary: Value = serde_json::from_str(&summary).expect("an object");
    assert_eq!(
        summary,
        json!({ "applied": 2_000, "skipped": 0, "refused": 0, "invalid": 0, "unreadable": 0 })
    );

    let second = Broker::start(&[]);
    second.pipe(["load"], &broker.pollux(["dump"]).stdout).success();
    for number in [0, 1, 999, 1_999_u32] {
        let path = format!("{}/{}/{number}", number % 7, number % 31);
        let got = second.pollux(["get", &format!("/{path}")]);
        assert_eq!(got.stdout, fs::read(dir.path().join(&path)).expect("it is there"), "{path}");
    }
    assert_eq!(second.pollux(["dump"]).success().lines().count(), 2_000);
}

#[test]
fn a_file_that_may_not_be_read_is_no_success() {
    let broker = Broker::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("open"), "x").expect("it is ours");
    let closed = dir.path().join("shut");
    fs::write(&closed, "x").expect("it is ours");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let finished = load(&broker, dir.path(), "/");
    // The superuser may read it all the same.
    if fs::read(&closed).is_ok() {
        assert!(finished.stderr().contains("2 keys set"), "{}", finished.stderr());
        return finished.success().clear();
    }
    let complaint = finished.failure(4);
    assert!(complaint.contains("shut: cannot be read"), "{complaint}");
    assert!(complaint.contains("1 key set, 1 not readable"), "{complaint}");
    assert_eq!(broker.pollux(["get", "/open"]).success(), "x");
}
