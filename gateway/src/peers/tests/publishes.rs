//! Publishes that have their owner on another node.

use super::world::{Owners, World, edge, owner, plan, until};
use crate::testing::post;
use serde_json::{Value, json};

#[test]
fn a_publish_reaches_the_owner_on_another_node_in_every_form() {
    let mut world = World::of([edge(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    let a = &world.nodes[0];
    let first = a.version_of("x");
    assert!(a.version_of("x") > first);
    let json = "Content-Type: application/json\r\n";
    let objects: Vec<Value> = (0..500)
        .map(|n| json!({"object": format!("o{n}"), "data": n}))
        .collect();
    let list = post(
        a.address,
        "/v1/publish",
        json,
        json!({ "changes": objects }).to_string().as_bytes(),
    )
    .json();
    let results = list["results"].as_array().unwrap();
    assert_eq!(results.len(), 500);
    assert!(results.iter().all(|result| result["version"].is_u64()), "{list}");
    let lines = "{\"object\":\"l\"}\n".repeat(6_000) + "nonsense\n";
    let sum = post(
        a.address,
        "/v1/publish",
        "Content-Type: application/x-ndjson\r\n",
        lines.as_bytes(),
    )
    .json();
    assert_eq!(
        (&sum["accepted"], &sum["rejected"]),
        (&json!(6_000), &json!(1)),
        "{sum}"
    );
    assert_eq!(a.metric("tidings_peer_changes_forwarded_total"), 6_502);
    until("answered", || a.metric("tidings_peer_forward_bytes") == 0);
}

#[test]
fn a_key_or_a_revision_counts_at_the_owner_whichever_node_is_asked() {
    let mut world = World::of([edge(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    let keyed = "Idempotency-Key: once\r\n";
    let first = post(a.address, "/v1/publish?object=x", keyed, b"").json();
    let again = post(b.address, "/v1/publish?object=x", keyed, b"").json();
    assert_eq!(again, json!({"version": first["version"], "duplicate": true}));
    let first = b.publish("object=y&revision=7").json();
    let again = a.publish("object=y&revision=7").json();
    assert_eq!(again, json!({"version": first["version"], "duplicate": true}));
}

#[test]
fn without_an_owner_nothing_is_applied_and_the_publisher_may_try_again() {
    let world = World::of([edge(), owner()]);
    world.wait_connected(0, 1);
    let refused = world.nodes[0].publish("object=x&timeout_ms=200");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_owner"));
    assert_eq!(
        (&refused.json()["applied"], &refused.json()["retryable"]),
        (&json!("no"), &json!(true))
    );
}

#[test]
fn a_publish_waits_within_its_deadline_for_a_map_that_names_an_owner() {
    let mut world = World::of([edge(), owner()]);
    let address = world.nodes[0].address;
    let publisher = std::thread::spawn(move || post(address, "/v1/publish?object=x&timeout_ms=30000", "", b""));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!publisher.is_finished());
    world.give_all(1);
    let answer = publisher.join().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(world.nodes[0].metric("tidings_peer_changes_forwarded_again_total") > 0);
}

#[test]
fn a_connection_that_breaks_under_a_publish_leaves_its_outcome_unknown() {
    let mut world = World::of([edge(), plan(Owners::Silent)]);
    world.give_all(1);
    world.wait_connected(0, 1);
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    let address = a.address;
    let publisher = std::thread::spawn(move || post(address, "/v1/publish?object=x&timeout_ms=60000", "", b""));
    until("sent", || a.metric("tidings_peer_changes_forwarded_total") == 1);
    b.relay.cut();
    let answer = publisher.join().unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (504, "outcome_unknown"));
    assert_eq!(answer.json()["applied"], "unknown");
    assert_eq!(a.metric("tidings_peer_forward_bytes"), 0);
}

#[test]
fn an_owner_that_does_not_answer_in_time_leaves_the_outcome_unknown() {
    let mut world = World::of([edge(), plan(Owners::Silent)]);
    world.give_all(1);
    world.wait_connected(0, 1);
    let answer = world.nodes[0].publish("object=x&timeout_ms=300");
    assert_eq!((answer.status, answer.code().as_str()), (504, "outcome_unknown"));
}

#[test]
fn what_is_under_way_to_one_node_is_bounded() {
    let mut small = edge();
    small.config.limits.forward_bytes = 1;
    let mut world = World::of([small, plan(Owners::Silent)]);
    world.give_all(1);
    world.wait_connected(0, 1);
    let a = &world.nodes[0];
    // The first goes whatever its size; while nobody answers it, nothing more fits.
    let address = a.address;
    let first = std::thread::spawn(move || post(address, "/v1/publish?object=x&timeout_ms=20000", "", b""));
    until("sent", || a.metric("tidings_peer_changes_forwarded_total") == 1);
    let second = a.publish("object=x&timeout_ms=100");
    assert_eq!((second.status, second.code().as_str()), (503, "overloaded"));
    assert_eq!(second.json()["applied"], "no");
    assert_eq!(a.metric("tidings_refused_total{limit=\"forward_bytes\"}"), 1);
    assert_eq!(a.metric("tidings_peer_changes_forwarded_total"), 1);
    world.nodes[1].relay.cut();
    assert_eq!(first.join().unwrap().code(), "outcome_unknown");
}

#[test]
fn durable_needs_an_owner_with_a_disk() {
    let mut world = World::of([edge(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    for node in &world.nodes {
        let answer = node.publish("object=x&ack=durable");
        assert_eq!((answer.status, answer.code().as_str()), (409, "ack_unavailable"));
        assert_eq!(answer.json()["applied"], "no");
        assert_eq!(answer.json()["retryable"], false);
    }
}
