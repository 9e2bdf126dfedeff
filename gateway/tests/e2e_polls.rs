//! Long-polls: what one answer told, the next does not repeat, however the answers are cut.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;

#[test]
fn a_poll_without_cursor_answers_at_once_with_one_and_no_changes() {
    let node = node();
    publish(node.addr, "a");
    let since = Instant::now();
    let answer = Poll::of(node.addr, &["a", "b"]).wait_ms(60_000).ask();
    assert!(since.elapsed() < Duration::from_secs(30), "it waited");
    assert_eq!(
        (&answer["changes"], &answer["resync"], &answer["refused"]),
        (&json!([]), &Value::Null, &json!([]))
    );
    assert!(
        answer["cursor"]
            .as_str()
            .is_some_and(|cursor| (1..=2_048).contains(&cursor.len()))
    );
    assert!(answer["session"].is_string());
    let headers = Poll::of(node.addr, &["a"]).send();
    assert_eq!(headers.header("cache-control"), Some("no-store"));
    assert_eq!(headers.header("content-type"), Some("application/json"));
}

#[test]
fn a_poll_with_wait_0_looks_and_one_with_a_wait_comes_back_with_a_fresh_cursor() {
    let node = node();
    let mut poller = Poller::new(Poll::of(node.addr, &["a"]));
    assert_eq!(poller.next(0)["changes"], json!([]));
    let version = publish(node.addr, "b");
    let heard = poller.up_to(version);
    heard.is_exactly::<&str>(&[]);
    let before = poller.cursor.clone();
    std::thread::sleep(Duration::from_millis(300));
    let since = Instant::now();
    assert_eq!(poller.next(400)["changes"], json!([]));
    assert!(since.elapsed() >= Duration::from_millis(400), "it did not wait");
    assert_ne!(poller.cursor, before, "the cursor is fresh");
    let version = publish(node.addr, "a");
    poller.up_to(version).is_exactly(&[("a", version)]);
}

#[test]
fn a_first_poll_that_does_not_want_to_wait_gets_a_cursor_that_speaks_for_its_objects() {
    let node = node();
    // A cursor that claims nothing has the next poll told to fetch everything. Many at once, so that some owner is slow.
    let address = node.addr;
    let changes: Vec<Value> = (0..10_000).map(|n| json!({"object": format!("busy-{n}")})).collect();
    let body = json!({"changes": changes}).to_string().into_bytes();
    let over = Arc::new(AtomicBool::new(false));
    let busy = Arc::clone(&over);
    let publisher = std::thread::spawn(move || {
        while !busy.load(Ordering::Relaxed) {
            post(address, "/v1/publish", "application/json", &body);
        }
    });
    let pollers: Vec<_> = (0..24)
        .map(|number| {
            std::thread::spawn(move || {
                for round in 0..10 {
                    // Without the session, which would remember that nothing was missed.
                    let ask = |cursor: Option<&str>| {
                        let object = format!("new-{number}-{round}");
                        let body = json!({"objects": [object], "wait_ms": 0, "cursor": cursor}).to_string();
                        let answer = post(address, "/v1/poll", "application/json", body.as_bytes());
                        serde_json::from_slice::<Value>(&answer.body).expect("JSON")
                    };
                    let first = ask(None);
                    let second = ask(first["cursor"].as_str());
                    assert_eq!(second["resync"], Value::Null, "poller {number}, round {round}");
                }
            })
        })
        .collect();
    for poller in pollers {
        poller.join().expect("no resync");
    }
    over.store(true, Ordering::Relaxed);
    publisher.join().expect("it published");
}

#[test]
fn what_one_poll_told_the_next_does_not_repeat() {
    let node = node_with(|config| {
        // Cursors stay far behind, so that what was told must be listed in them.
        config.owner.closed_busy_ms = 2_000;
        config.owner.closed_idle_ms = 2_000;
    });
    let objects = names("o", 20);
    let mut poller = Poller::new(Poll::of(node.addr, &objects));
    let mut told = Vec::new();
    for object in &objects {
        let version = publish(node.addr, object);
        let answer = poller.next(10_000);
        assert_eq!(answer["changes"], json!([{ "object": object, "version": version }]));
        told.push((object.clone(), version));
    }
    assert_eq!(poller.next(0)["changes"], json!([]));
    // The same object again is news again.
    let again = publish(node.addr, &objects[3]);
    assert_eq!(
        poller.next(10_000)["changes"],
        json!([{ "object": objects[3], "version": again }])
    );
}

#[test]
fn hundreds_of_changes_come_in_answers_that_say_more_and_nothing_is_told_twice() {
    for closed_ms in [20, 700] {
        // The longer, the more of what is told must fit into the cursors.
        let node = node_with(|config| {
            config.owner.closed_busy_ms = closed_ms;
            config.owner.closed_idle_ms = closed_ms;
        });
        let objects = names("object with a longer name ", 900);
        let mut poller = Poller::new(Poll::of(node.addr, &objects));
        let told: Vec<_> = objects
            .chunks(30)
            .flat_map(|page| publish_all(node.addr, page))
            .collect();
        let (mut heard, mut more) = (Heard::default(), 0);
        while heard.newest.len() < objects.len() {
            let answer = poller.next(10_000);
            more += usize::from(answer["more"] == true);
            heard.add(
                &json!({ "changes": answer["changes"], "resync": answer["resync"], "refused": answer["refused"] }),
            );
        }
        heard.is_exactly(&told);
        assert!(more > 0, "900 changes fit no single answer");
        assert_eq!(poller.next(0)["changes"], json!([]));
    }
}

#[test]
fn msgpack_polls_are_answered_in_msgpack_unless_json_is_asked_for() {
    let node = node();
    let body = rmp_serde::to_vec_named(&json!({ "objects": ["a"] })).expect("packed");
    let answer = post(node.addr, "/v1/poll", "application/msgpack", &body);
    assert_eq!(answer.header("content-type"), Some("application/msgpack"));
    let told: Value = rmp_serde::from_slice(&answer.body).expect("MessagePack");
    assert_eq!(told["changes"], json!([]));
    let version = publish(node.addr, "a");
    let body = rmp_serde::to_vec_named(&json!({ "objects": ["a"], "cursor": told["cursor"] })).expect("packed");
    let headers = "Content-Type: application/msgpack\r\nAccept: application/json\r\n";
    let answer = send(node.addr, "POST", "/v1/poll", headers, &body).ok();
    assert_eq!(answer["changes"], json!([{ "object": "a", "version": version }]));
}
