//! Subscribers of several shards of which one has no owner: one claim a test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, config, entry};
use tidings_protocol::codec::{Encoding, PollAnswer};
use tidings_protocol::{Cursor, ShardId, Version};
use tidings_router::edge::{PollPage, SinkKind, SubscriberKey};

/// Objects of shard 0 and of shard 1.
fn names() -> (&'static str, &'static str) {
    let config = config(2, 2);
    let of = |shard: u16| {
        let mut names = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter();
        names.find(|name| config.shards.shard(config.key.object(name)) == ShardId(shard))
    };
    (of(0).unwrap(), of(1).unwrap())
}

/// Both shards are owned and closed up to 9,000,000.
fn both() -> Stage {
    let mut stage = Stage::new(config(2, 2));
    for owner in 0..2 {
        stage.own(owner, &[owner as u16], 1, 0);
        stage.closed(owner, 9_000_000);
    }
    stage
}

/// A session that watches both, whose poll waits at 9,000,000; then the second shard loses its owner, and the poll ends.
fn session() -> (Stage, SubscriberKey) {
    let (here, gone) = names();
    let mut stage = both();
    let now = stage.now;
    let who = stage.lane.open_session(now);
    let cursor = stage.cursor(9_000_000);
    stage.poll(who, &[here, gone], Some(&cursor));
    stage.answer(0, &[(here, 8_000_000)]);
    stage.answer(1, &[(gone, 8_000_000)]);
    stage.gone(1, &[1]);
    stage.poll_over(who);
    (stage, who)
}

fn told(answer: &PollAnswer) -> Vec<(&str, u64)> {
    let changes = answer.changes.iter();
    changes.map(|change| (&*change.object, change.version.0)).collect()
}

fn answer(stage: &mut Stage, who: SubscriberKey) -> Option<PollAnswer> {
    stage.writes();
    stage.answers.remove(&who.index)
}

#[test]
fn a_poll_hears_of_objects_whose_shard_has_an_owner_while_another_has_none() {
    let (here, gone) = names();
    let (mut stage, who) = session();
    let cursor = stage.cursor(8_900_000);
    stage.poll(who, &[], Some(&cursor));
    assert!(stage.answers.is_empty(), "nothing is newer");
    stage.closed(0, 9_400_000);
    stage.changed(0, here, 9_500_000);
    let first = answer(&mut stage, who).expect("there is news");
    assert_eq!(told(&first), [(here, 9_500_000)]);
    let cursor = Cursor::decode(&first.cursor).unwrap();
    let hash = |name| stage.config.key.object(name);
    assert_eq!(cursor.told(hash(here)), Some(Version(9_500_000)));
    assert_eq!(cursor.told(hash(gone)), None);
    assert_eq!(
        cursor.at(ShardId(1)),
        Version(8_900_000),
        "no more than the client said itself"
    );
    // A change of the other that this lane has not heard of is told when there is an owner again.
    stage.poll(who, &[], Some(&first.cursor));
    assert!(stage.answers.is_empty(), "nothing is told twice");
    stage.own(1, &[1], 2, 0);
    stage.answer(1, &[(gone, 8_950_000)]);
    let second = answer(&mut stage, who).expect("there is news");
    assert_eq!(told(&second), [(gone, 8_950_000)]);
}

#[test]
fn a_version_that_the_lane_knows_of_an_object_without_owner_is_not_taken_for_told() {
    let (here, gone) = names();
    let (mut stage, who) = session();
    // The client says it knows less than the lane once heard.
    let cursor = stage.cursor(7_000_000);
    stage.poll(who, &[], Some(&cursor));
    let first = answer(&mut stage, who).expect("there is news");
    assert_eq!(told(&first), [(here, 8_000_000)]);
    let cursor = Cursor::decode(&first.cursor).unwrap();
    assert_eq!(cursor.told(stage.config.key.object(gone)), None);
    assert_eq!(cursor.at(ShardId(1)), Version(7_000_000));
}

#[test]
fn a_poll_that_is_over_says_no_more_of_the_shard_without_owner_than_its_client_did() {
    let (_, _) = names();
    let (mut stage, who) = session();
    let cursor = stage.cursor(8_950_000);
    stage.poll(who, &[], Some(&cursor));
    stage.closed(0, 9_700_000);
    let over = stage.poll_over(who);
    let cursor = Cursor::decode(&over.cursor).unwrap();
    assert_eq!(cursor.at(ShardId(1)), Version(8_950_000));
    assert!(cursor.at(ShardId(0)) >= Version(9_000_000));
}

#[test]
fn what_a_poll_is_refused_it_hears_also_while_a_shard_has_no_owner() {
    let (mut stage, who) = session();
    let page = PollPage {
        entries: vec![Err((
            "bad".into(),
            tidings_protocol::Problem::new(tidings_protocol::Code::BadRequest, "no"),
        ))],
        cursor: Some(stage.cursor(9_000_000)),
        ..PollPage::default()
    };
    stage.step(|lane, now, out| lane.poll(now, who, page, out)).unwrap();
    let refused = answer(&mut stage, who).expect("it is told at once").refused;
    assert_eq!(refused.len(), 1);
}

#[test]
fn a_poll_without_a_cursor_waits_for_all_its_objects() {
    let (here, _) = names();
    let (mut stage, who) = session();
    stage.poll(who, &[], None);
    stage.changed(0, here, 9_500_000);
    assert!(answer(&mut stage, who).is_none());
    stage.own(1, &[1], 2, 0);
    stage.answer(1, &[]);
    let first = answer(&mut stage, who).expect("all are live");
    assert_eq!(told(&first), []);
}

#[test]
fn an_event_stream_hears_of_the_others_and_gets_no_cursor_before_all_are_live() {
    let (here, gone) = names();
    let mut stage = both();
    stage.gone(1, &[1]);
    let now = stage.now;
    let who = stage.lane.connect(now, SinkKind::Stream(Encoding::EventStream), false);
    let cursor = stage.cursor(9_000_000);
    let page = tidings_router::edge::Page {
        entries: vec![entry(here), entry(gone)],
        cursor: Some(cursor),
        ..Default::default()
    };
    stage
        .step(|lane, now, out| lane.subscribe(now, who, page, out))
        .unwrap();
    stage.answer(0, &[(here, 9_100_000)]);
    let text = |stage: &mut Stage| {
        let mut text = String::new();
        while let Some(write) = stage.step(|lane, now, out| lane.next_write(now, out)) {
            text.push_str(std::str::from_utf8(&write.bytes).unwrap());
        }
        text
    };
    let first = text(&mut stage);
    assert!(first.contains("9100000") && !first.contains("id:"), "{first}");
    stage.closed(0, 9_200_000);
    stage.changed(0, here, 9_300_000);
    stage.wait(16_000_000);
    let second = text(&mut stage);
    assert!(second.contains("9300000") && !second.contains("id:"), "{second}");
    stage.own(1, &[1], 2, 0);
    stage.answer(1, &[(gone, 9_250_000)]);
    let third = text(&mut stage);
    assert!(third.contains("9250000") && third.contains("id:"), "{third}");
    assert!(!third.contains("9300000"), "nothing is told twice: {third}");
}

#[test]
fn a_web_socket_is_told_of_a_page_only_behind_its_answer() {
    let (here, gone) = names();
    let mut stage = both();
    stage.gone(1, &[1]);
    let who = stage.web_socket();
    let cursor = stage.cursor(9_000_000);
    stage.subscribe(who, &[here, gone], Some(&cursor));
    stage.answer(0, &[(here, 9_100_000)]);
    assert_eq!(stage.told(who), [] as [&str; 0]);
    stage.own(1, &[1], 2, 0);
    stage.answer(1, &[]);
    let subscribed = format!("subscribed {here}@9100000 {gone}");
    assert_eq!(
        stage.told(who),
        [&*subscribed, &*format!("changes {here}@9100000"), "cursor"]
    );
}

/// One WebSocket for each shard's object; the second shard's owner falls silent.
fn silent_owner() -> (Stage, SubscriberKey, SubscriberKey) {
    let (here, gone) = names();
    let mut stage = both();
    let now = stage.now;
    stage.lane.tell_silence_after(now, 5_000_000);
    let mut watch = |owner: usize, object: &str| {
        let who = stage.web_socket();
        stage.subscribe(who, &[object], None);
        stage.answer(owner, &[(object, 8_000_000)]);
        stage.writes();
        who
    };
    let (fine, cut_off) = (watch(0, here), watch(1, gone));
    for second in 0..4 {
        stage.wait(1_000_000);
        stage.closed(0, 10_000_000 + second);
    }
    (stage, fine, cut_off)
}

fn stale(told: &[String]) -> Vec<&str> {
    let words = told.iter().map(String::as_str);
    words.filter(|word| word.starts_with("stale")).collect()
}

#[test]
fn whoever_watches_a_shard_that_nothing_is_heard_of_is_told_so_and_when_that_is_over() {
    let (mut stage, fine, cut_off) = silent_owner();
    assert_eq!(stale(&stage.told(cut_off)), [""; 0], "not before its time");
    for second in 0..3 {
        stage.wait(1_000_000);
        stage.closed(0, 11_000_000 + second);
    }
    assert_eq!(stale(&stage.told(cut_off)), ["stale true"]);
    assert_eq!(stale(&stage.told(fine)), [""; 0], "its owner is heard");
    stage.wait(1_000_000);
    assert_eq!(stale(&stage.told(cut_off)), [""; 0], "once is enough");
    stage.closed(1, 12_000_000);
    stage.closed(0, 12_000_000);
    stage.wait(2_000_000);
    assert_eq!(stale(&stage.told(cut_off)), ["stale false"]);
    assert_eq!(stale(&stage.told(fine)), [""; 0]);
}

#[test]
fn whoever_comes_while_nothing_is_heard_is_told_with_the_answer() {
    let (mut stage, _, _) = silent_owner();
    let (_, gone) = names();
    for second in 0..3 {
        stage.wait(1_000_000);
        stage.closed(0, 11_000_000 + second);
    }
    stage.writes();
    let late = stage.web_socket();
    stage.subscribe(late, &[gone], None);
    let told = stage.told(late);
    assert_eq!(
        told[..2],
        [format!("subscribed {gone}@8000000"), "stale true".to_owned()]
    );
}
