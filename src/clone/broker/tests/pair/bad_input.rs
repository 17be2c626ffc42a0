//! A hostile or confused peer can neither promote nor demote.

use super::world::{A, B, World};
use crate::clone::Sequence;
use crate::clone::pair::{Role, pair_id};
use crate::message::Message;

/// What a peer would push, with some of it replaced.
fn status(position: Sequence, lines: &[(&str, &str)]) -> [Vec<u8>; 5] {
    let pair = format!("{:016x}", pair_id("test"));
    let mut all = vec![
        ("pair", pair.as_str()),
        ("node", "000000000000beef"),
        ("seat", "backup"),
        ("role", "active"),
        ("hb", "100"),
    ];
    for &(name, value) in lines {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(line) => line.1 = value,
            None => all.push((name, value)),
        }
    }
    let text: String = all
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    [b"PEER?".to_vec(), position.to_wire().to_vec(), vec![], text.into_bytes(), vec![]]
}

fn push(world: &mut World, at: usize, frames: &[Vec<u8>]) {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    world.act(at, |broker, now, net| broker.handle_peer(now, Message::new(&frames), net));
}

fn ready() -> World {
    let mut world = World::ready();
    world.set(A, 1, "/a", "1");
    world.pass_ms(20);
    world
}

#[test]
fn what_a_peer_cannot_say_is_refused_counted_and_changes_nothing() {
    let mut world = ready();
    let sequence = world.broker(A).sequence();
    let root = format!("{sequence}-000000000000beef");
    let far = Sequence::new(sequence.epoch() + 100_000, 5);
    let spans = |sequence: Sequence| format!("{sequence}-{sequence}");
    let (near_spans, far_spans) = (spans(sequence), spans(far));
    let node_of_a = format!("{:016x}", world.broker(A).config().node);
    type Case<'a> = (&'a str, Sequence, &'a [(&'a str, &'a str)]);
    let cases: &[Case] = &[
        (
            "another pair",
            sequence,
            &[("pair", "0000000000000001"), ("root", &root), ("lineage", &near_spans)],
        ),
        ("no pair", sequence, &[("pair", ""), ("root", &root), ("lineage", &near_spans)]),
        ("no node", sequence, &[("node", ""), ("root", &root), ("lineage", &near_spans)]),
        ("ourselves", sequence, &[("node", &node_of_a), ("root", &root), ("lineage", &near_spans)]),
        (
            "a role that is none",
            sequence,
            &[("role", "king"), ("root", &root), ("lineage", &near_spans)],
        ),
        (
            "a seat that is none",
            sequence,
            &[("seat", "third"), ("root", &root), ("lineage", &near_spans)],
        ),
        ("no heartbeat", sequence, &[("hb", "x"), ("root", &root), ("lineage", &near_spans)]),
        ("active without a history", Sequence::ZERO, &[]),
        (
            "a position outside of its history",
            sequence.next(),
            &[("root", &root), ("lineage", &near_spans)],
        ),
        ("a root without spans", sequence, &[("root", &root)]),
        ("an epoch from the far future", far, &[("root", &root), ("lineage", &far_spans)]),
        ("refusal", Sequence::ZERO, &[("refused", "pair")]),
    ];
    for (number, (what, position, lines)) in cases.iter().enumerate() {
        push(&mut world, A, &status(*position, lines));
        assert_eq!(world.stats(A).peer_refused, number as u64 + 1, "{what}");
        world.pass_ms(1);
        assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Passive)], "{what}");
    }
    for frames in [vec![], vec![b"PEER?".to_vec()], vec![b"x".to_vec(); 6]] {
        push(&mut world, A, &frames);
    }
    assert_eq!(world.stats(A).peer_refused, cases.len() as u64 + 3);
    assert_eq!(world.broker(A).sequence(), sequence);
}

#[test]
fn a_standby_cannot_confirm_what_was_never_sent_nor_take_back_what_it_has() {
    let mut world = ready();
    let sequence = world.broker(A).sequence();
    let node_of_a = format!("{:016x}", world.broker(A).config().node);
    let first = Sequence::new(sequence.epoch(), 0);
    let say = |world: &mut World, position: Sequence| {
        let root = format!("{first}-{node_of_a}");
        let spans = format!("{first}-{position}");
        let lines =
            [("role", "passive"), ("of", &*node_of_a), ("root", &*root), ("lineage", &*spans)];
        push(world, A, &status(position, &lines));
    };
    let refused = world.stats(A).peer_refused;
    say(&mut world, sequence.next());
    assert_eq!(world.stats(A).peer_refused, refused + 1, "never sent");
    say(&mut world, sequence);
    assert_eq!(world.stats(A).peer_refused, refused + 1);
    say(&mut world, Sequence::from_u64(sequence.get() - 1));
    assert_eq!(world.stats(A).peer_refused, refused + 2, "went back");
}

#[test]
fn a_client_that_claims_to_be_the_peer_changes_nothing() {
    let mut world = ready();
    let pair = format!("{:016x}", pair_id("test"));
    let node_of_b = format!("{:016x}", world.broker(B).config().node);
    // It may ask, and is told; what it says is not believed.
    let greeting =
        format!("pair={pair}\nnode={node_of_b}\nseat=backup\nhb=100\nrole=active\nepoch=999999\n");
    world.request(A, "mallory", &[b"PEER?", greeting.as_bytes()]);
    world.pass_ms(20);
    assert!(world.sides[A].net.replies.contains_key(&b"mallory"[..]));
    let mut claim = status(Sequence::new(1_000_000, 5), &[]);
    claim[0] = b"PEER?".to_vec();
    let frames: Vec<&[u8]> = claim.iter().map(Vec::as_slice).collect();
    world.request(A, "mallory", &frames);
    world.request(B, "mallory", &frames);
    world.pass_ms(500);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Passive)]);
    assert!(world.stats(A).peer_refused > 0);
    // Many of them do not push the peer out for long.
    for n in 0..100 {
        world.request(A, &format!("mallory-{n}"), &[b"PEER?", greeting.as_bytes()]);
    }
    world.pass_ms(500);
    assert_eq!(world.told(A, "standby").as_deref(), Some("live"));
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Passive)]);
}

#[test]
fn a_greeting_of_another_pair_is_told_so_and_hears_nothing() {
    let mut world = ready();
    let refused = world.stats(A).peer_refused;
    world.request(A, "other", &[b"PEER?", b"pair=0000000000000001\nnode=01\n"]);
    world.request(A, "other", &[b"PEER?", b"no properties"]);
    world.request(A, "other", &[b"PEER?"]);
    world.pass_ms(500);
    assert_eq!(world.stats(A).peer_refused, refused + 3);
    let answers = &world.sides[A].net.replies[&b"other"[..]];
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][3], b"refused=pair\n");
}

#[test]
fn a_resubmission_from_who_is_not_the_passive_peer_is_refused() {
    let mut world = ready();
    let change: [&[u8]; 7] = [b"RESUBMIT", b"base=0\n", b"/evil", &[0; 8], &[9; 16], b"", b"x"];
    let refused = world.stats(A).peer_refused;
    world.request(A, "mallory", &change);
    world.request(B, "mallory", &change);
    world.request(A, "mallory", &change[..3]);
    world.pass_ms(100);
    assert_eq!(world.stats(A).peer_refused, refused + 2);
    assert!(!world.map(A).contains_key("/evil"));
}

#[test]
fn what_the_loser_refused_is_not_taken_if_it_cannot_be_read() {
    let mut world = ready();
    let refused = world.stats(A).peer_refused;
    let too_many = vec![0; 28 * 3000];
    let cases: [(&[u8], &[u8]); 5] = [
        (b"next=1\n", &[0; 28]),
        (b"refused=overtaken\n", &[0; 28]),
        (b"refused=overtaken\nnext=1\n", &[0; 27]),
        (b"refused=overtaken\nnext=1\n", &too_many),
        (b"no property", &[0; 28]),
    ];
    for (properties, records) in cases {
        world.request(A, "line", &[b"RESUBMIT", properties, records]);
        world.pass_ms(1);
    }
    assert_eq!((world.stats(A).peer_refused, world.stats(A).refusals_taken), (refused + 5, 0));
    world.request(A, "line", &[b"RESUBMIT", b"refused=overtaken\nnext=1\n", &[7; 28]]);
    world.pass_ms(1);
    assert_eq!((world.stats(A).peer_refused, world.stats(A).refusals_taken), (refused + 5, 1));
    world.set(A, 7, "/refused", "1");
    assert!(!world.map(A).contains_key("/refused"));
}

#[test]
fn two_of_different_pairs_serve_each_for_itself() {
    let mut world = World::down(|_, _| {});
    world.start(A);
    world.pass_ms(2500);
    world.reconfigure(|_, pair| pair.pair = pair_id("another"));
    world.start(B);
    world.pass_ms(6000);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Active)]);
    assert!(world.stats(A).peer_refused > 0 && world.stats(B).peer_refused > 0);
}

#[test]
fn changes_that_end_within_one_are_refused_and_what_they_lacked_is_asked_for() {
    let mut world = ready();
    let (refused, gaps) = (world.stats(B).peer_refused, world.stats(B).follow_gaps);
    for changes in [&b"\0"[..], &[0xff; 40], &[0; 24]] {
        push(&mut world, B, &[b"KVPUBS".to_vec(), changes.to_vec()]);
    }
    // Too short, a length beyond the end, a change without a key.
    assert_eq!(world.stats(B).peer_refused, refused + 3);
    world.set(A, 2, "/b", "2");
    world.pass_ms(20);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(B).follow_gaps, gaps, "nothing was missing");
}

#[test]
fn who_claims_to_be_the_standby_does_not_get_its_changes() {
    let mut world = ready();
    let (a, b) = (world.broker(A).config().node, world.broker(B).config().node);
    let greeting = format!(
        "pair={:016x}\nnode={b:016x}\nseat=backup\nhb=100\nfollow={a:016x}\n",
        pair_id("test")
    );
    // More than are remembered.
    for n in 0..6 {
        world.request(A, &format!("impostor {n}"), &[b"PEER?", greeting.as_bytes()]);
        world.pass_ms(10);
    }
    world.set(A, 2, "/b", "2");
    world.pass_ms(20);
    assert_eq!(world.map(B)["/b"], "2");
    let told = &world.sides[A].net.replies;
    assert!(!told.values().flatten().any(|frames| frames[0] == b"KVPUBS"));
    assert_eq!(world.stats(B).follow_gaps, 0);
}
