//! Subscribers that do not read: they cost nobody anything and, when they read again, hear of the present.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::*;

/// Publishes rounds of large changes of all objects; gives the newest version of each.
fn rounds(at: SocketAddr, objects: &[String], rounds: usize, bytes: usize) -> Vec<(String, u64)> {
    let mut newest = Vec::new();
    for round in 0..rounds {
        newest.clear();
        for page in objects.chunks(50) {
            let changes: Vec<_> = page
                .iter()
                .map(|o| json!({ "object": o, "kind": format!("r{round}"), "data": "x".repeat(bytes) }))
                .collect();
            let answer = post_json(at, "/v1/publish", &json!({ "changes": changes })).ok();
            let results = answer["results"].as_array().expect("results");
            newest.extend(
                page.iter()
                    .zip(results)
                    .map(|(o, r)| (o.clone(), r["version"].as_u64().expect("a version"))),
            );
        }
    }
    newest
}

fn newest_of(told: &[(String, u64)]) -> u64 {
    told.iter().map(|(_, version)| *version).max().expect("a version")
}

#[test]
fn subscribers_that_do_not_read_for_20_seconds_then_have_the_newest_of_every_object() {
    let node = node();
    let at = node.addr;
    let objects = names("large ", 100);
    let mut neighbour = Ws::open(at);
    neighbour.subscribe(&objects);
    let mut slow_ws = Ws::open_with(Raw::open_small(at).stream, "/v1/ws", Some("tidings.v1.json"));
    slow_ws.subscribe(&objects);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(objects.iter().map(|o| ("object", o)))
        .finish();
    let mut slow_stream = Events::open_with(Raw::open_small(at), &format!("/v1/events?{query}"), "");
    slow_stream.hear_of("cursor");
    let since = Instant::now();
    let mut published = 0;
    let mut last = Vec::new();
    while since.elapsed() < Duration::from_secs(20) {
        last = rounds(at, &objects, 1, 8_000);
        published += objects.len();
        // A neighbour that reads has everything meanwhile.
        let heard = neighbour.up_to(newest_of(&last));
        assert!(heard.resyncs.is_empty());
        assert_eq!(heard.newest, last.iter().cloned().collect());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        published > 1_000,
        "the machine is too slow for this test to mean anything"
    );
    for slow in [&mut slow_ws as &mut dyn Ear, &mut slow_stream] {
        let heard = slow.up_to(newest_of(&last));
        assert!(heard.resyncs.is_empty(), "nothing was lost");
        assert_eq!(heard.newest, last.iter().cloned().collect());
        // What lay in buffers, and then the newest of each: far from everything that was published.
        assert!(
            heard.changes.len() < published / 2,
            "{} of {published} were told",
            heard.changes.len()
        );
    }
    // From now on they hear as everyone else.
    let version = publish(at, &objects[0]);
    for ear in [&mut slow_ws as &mut dyn Ear, &mut slow_stream, &mut neighbour] {
        ear.up_to(version).is_exactly(&[(&objects[0], version)]);
    }
}

#[test]
fn a_subscriber_stuck_for_too_long_is_closed_and_comes_back_to_exactly_what_it_missed() {
    let node = node_with(|config| config.limits.stuck_ms = 2_000);
    let at = node.addr;
    let objects = names("large ", 60);
    let mut neighbour = Ws::open(at);
    neighbour.subscribe(&objects);
    neighbour.subscribe(&["the end"]);
    // It reads all the time, and nothing of what befalls the others reaches it.
    let neighbour = std::thread::spawn(move || {
        let mut heard = Heard::default();
        while !heard.newest.contains_key("the end") {
            let told = neighbour.hear();
            heard.add(&told);
        }
        heard
    });
    let mut stuck_ws = Ws::open_with(Raw::open_small(at).stream, "/v1/ws", Some("tidings.v1.json"));
    stuck_ws.subscribe(&objects);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(objects.iter().map(|o| ("object", o)))
        .finish();
    let mut stuck_stream = Events::open_with(Raw::open_small(at), &format!("/v1/events?{query}"), "");
    stuck_stream.hear_of("hello");
    // Both were told of one change and have its cursor.
    let told = publish(at, &objects[7]);
    let cursors = [stuck_ws.up_to(told).cursor, stuck_stream.up_to(told).cursor];
    let connected = || {
        get(at, "/v1/connections").ok()["connections"]
            .as_array()
            .expect("a list")
            .len()
    };
    assert_eq!(connected(), 3);
    // Far more than any buffer holds, of the first forty only.
    let missed = rounds(at, &objects[..40], 3, 40_000);
    eventually("the stuck ones are cut", || {
        // They make no progress as long as nobody reads; changes go on.
        publish(at, &objects[59]);
        connected() == 1
    });
    let last = publish(at, &objects[59]);
    let mut expected = missed.clone();
    expected.push((objects[59].clone(), last));
    for cursor in cursors {
        let mut back = Ws::open(at);
        back.subscribe_with(&objects, Some(&cursor));
        back.up_to(last).is_exactly(&expected);
        let mut back = Events::post(at, &json!({ "objects": objects, "cursor": cursor }));
        back.up_to(last).is_exactly(&expected);
    }
    // What they still find in their buffers is whole frames, and then the end.
    stuck_ws
        .socket
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    while stuck_ws.next().is_some() {}
    publish(at, "the end");
    let heard = neighbour.join().expect("it was told to the end");
    assert!(heard.resyncs.is_empty());
    for (object, version) in &expected {
        assert_eq!(heard.newest.get(object), Some(version));
    }
}
