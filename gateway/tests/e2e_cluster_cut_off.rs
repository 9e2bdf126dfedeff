//! A node that hears nobody sends its subscribers to those who may be better, and takes them again when it hears the others; one
//! whose neighbours are gone for sure keeps them.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use support::*;

/// Short, so that the tests are; longer than a failover here takes is not needed.
const SOON: [&str; 4] = ["--limits.stale_ms", "3000", "--drain.cut_off_ms", "600000"];

/// The places that `reconnect` names among what was told.
#[track_caller]
fn named(told: &[Value]) -> Vec<String> {
    let all: Vec<_> = told.iter().filter_map(|told| told.get("reconnect")).collect();
    assert_eq!(all.len(), 1, "{told:?}");
    assert_eq!(all[0]["reason"], "cut_off");
    assert!(all[0]["after_ms"].as_u64().is_some(), "{told:?}");
    let to = all[0]["to"].as_array().expect("places to go to");
    to.iter().map(|url| url.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn subscribers_of_a_node_that_is_cut_off_are_sent_elsewhere_hear_what_they_missed_and_are_taken_again() {
    let mut cluster = Plan::of(3).behind_gates().with(&SOON).start();
    let objects = names("away", 40);
    let alone = cluster.follower();
    let others = cluster.others(alone);
    let at = cluster.address(alone);
    let mut ws = Ws::open(at);
    ws.subscribe(&objects);
    let mut stream = Events::open(at, &["away0"], None);
    stream.hear_of("cursor");
    // What was told before is not told again.
    let before = cluster.publish(others[0], &objects[0]).expect("accepted");
    let heard = ws.up_to(before);
    heard.is_exactly(&[(&objects[0], before)]);
    cluster.gates().between(&[alone], &others, Gate::Cut);
    let (told, code) = ws.read_to_the_end();
    let cursors: Vec<String> = told
        .iter()
        .filter_map(|told| told["cursor"].as_str().map(str::to_owned))
        .collect();
    let elsewhere: BTreeSet<String> = named(&told).into_iter().collect();
    let urls = others.iter().map(|other| format!("http://{}", cluster.address(*other)));
    assert_eq!((elsewhere, code), (urls.collect(), Some(4006)));
    let mut left = Vec::new();
    while let Some(next) = stream.next() {
        left.push(next);
    }
    assert_eq!(named(&left).len(), 2);
    // Whoever comes meanwhile is told the same.
    let (told, code) = Ws::open(at).read_to_the_end();
    assert_eq!((named(&told).len(), code), (2, Some(4006)));
    let poll = Poll::of(at, &["away0"]).ask();
    assert!(poll["poll_after_ms"].as_u64().is_some(), "{poll}");
    assert!(cluster.metric(alone, "tidings_cut_off_sent_away_total", &[]) >= 1);

    cluster.until_owned_by(&others);
    let missed: Vec<(&String, u64)> = objects[10..30]
        .iter()
        .map(|object| {
            (
                object,
                cluster.publish(others[0], object).expect("the majority goes on"),
            )
        })
        .collect();
    let cursor = cursors.last().map_or(heard.cursor.as_str(), |cursor| cursor.as_str());
    let to: SocketAddr = named(&told)[0]["http://".len()..].parse().expect("an address");
    let mut ws = Ws::open(to);
    ws.subscribe_with(&objects, Some(cursor));
    let newest = missed.iter().map(|(_, version)| *version).max().expect("some");
    ws.up_to(newest).is_exactly(&missed);

    cluster.gates().open_all();
    cluster.until_whole();
    // In its next look it sees that it hears again.
    let mut back = None;
    eventually("it takes subscribers again", || {
        let mut ws = Ws::open(at);
        ws.say(&json!({"subscribe": {"objects": objects}, "id": 7}));
        loop {
            match ws.next() {
                Some(told) if told["id"] == 7 => {
                    back = Some(ws);
                    return true;
                }
                Some(told) if told.get("reconnect").is_some() => return false,
                Some(_) => {}
                None => return false,
            }
        }
    });
    let mut back = back.expect("it is there");
    let version = cluster.publish(others[1], &objects[3]).expect("accepted");
    back.until_told(&[(&objects[3], version)]);
}

#[test]
fn subscribers_of_the_last_node_stay_and_are_told_that_they_are_stale() {
    let mut cluster = Plan::of(3).with(&SOON).start();
    let alone = cluster.follower();
    let mut ws = Ws::open(cluster.address(alone));
    ws.subscribe(&names("stay", 40));
    for other in cluster.others(alone) {
        cluster.kill(other);
    }
    assert_eq!(ws.hear_of("stale"), true);
    // Some looks later.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let answer = ws.ask(&json!({"ping": {}}));
    assert!(answer.get("pong").is_some(), "{answer}");
    assert_eq!(cluster.metric(alone, "tidings_cut_off_sent_away_total", &[]), 0);
}
