//! Limits of subscribers, each at its value and one past it, with the counter that says so.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use support::*;

/// How often this limit has refused somebody.
#[track_caller]
fn refused(at: SocketAddr, limit: &str) -> u64 {
    let metrics = get(at, "/metrics").text();
    let name = format!("tidings_refused_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.expect("every limit is counted").parse().expect("a number")
}

#[test]
fn a_poll_may_be_as_large_as_the_limit_and_not_one_byte_more() {
    let node = node_with(|config| config.limits.poll_body_bytes = 300);
    let body = |bytes: usize| {
        let empty = json!({ "objects": ["a"], "pad": "" }).to_string().len();
        json!({ "objects": ["a"], "pad": "x".repeat(bytes - empty) })
    };
    for target in ["/v1/poll", "/v1/sessions"] {
        assert!(post_json(node.addr, target, &body(300)).status < 300, "{target}");
        let answer = post_json(node.addr, target, &body(301));
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{target}");
        assert!(answer.text().contains("limits.poll_body_bytes"), "{}", answer.text());
    }
    assert_eq!(refused(node.addr, "poll_body_bytes"), 2);
}

#[test]
fn a_poll_may_wait_as_long_as_the_limit_and_not_longer() {
    let node = node_with(|config| config.limits.poll_wait_ms_max = 50);
    let poll = |wait_ms: u64| post_json(node.addr, "/v1/poll", &json!({ "objects": ["a"], "wait_ms": wait_ms }));
    assert_eq!(poll(50).status, 200);
    let answer = poll(51);
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"));
    assert!(answer.text().contains("`wait_ms` is at most 50"), "{}", answer.text());
    assert_eq!(refused(node.addr, "poll_wait_ms_max"), 1);
}

#[test]
fn one_object_over_the_limit_of_a_connection_is_counted() {
    let node = node_with(|config| config.limits.objects_per_connection = 2);
    let mut ws = Ws::open(node.addr);
    for (object, error) in [("a", None), ("b", None), ("c", Some("too_many_objects"))] {
        ws.say(&json!({ "subscribe": { "objects": [object] }, "id": 1 }));
        let entry = &ws.hear_of("subscribed")["objects"][0];
        assert_eq!(entry["error"]["code"].as_str(), error, "{entry}");
    }
    assert_eq!(refused(node.addr, "objects_per_connection"), 1);
}

#[test]
fn one_subscription_over_the_limit_of_the_node_is_refused_and_counted() {
    let node = node_with(|config| {
        config.server.threads = 1;
        config.limits.subscriptions = 2;
    });
    // What a test's node was asked while it settled may still be held as a session, which makes room first.
    let mut ws = Ws::open(node.addr);
    for (object, error) in [("a", None), ("b", None), ("c", Some("too_many"))] {
        ws.say(&json!({ "subscribe": { "objects": [object] }, "id": 1 }));
        let entry = &ws.hear_of("subscribed")["objects"][0];
        assert_eq!(entry["error"]["code"].as_str(), error, "{entry}");
    }
    assert_eq!(refused(node.addr, "subscriptions"), 1);
}
