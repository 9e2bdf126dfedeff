//! Shards that change hands while people publish and listen.

use super::world::{Told, World, edge, owner, shard_of, shards, until};
use crate::testing::{Raw, ask};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn every_node_publishes_to_and_hears_of_every_other() {
    let mut world = World::of([owner(), owner(), owner()]);
    shards()
        .all()
        .for_each(|shard| world.give(shard, usize::from(shard.0) % 3));
    world.show_all();
    for (a, b) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        world.wait_connected(a, b);
    }
    let objects = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut listeners: Vec<_> = world.nodes.iter().map(|node| node.subscriber(&objects)).collect();
    for (n, object) in objects.into_iter().enumerate() {
        let version = world.nodes[n % 3].version_of(object);
        listeners.iter_mut().for_each(|listener| listener.hear(object, version));
    }
}

#[test]
fn who_asks_the_wrong_node_by_an_old_map_is_sent_on_and_the_change_gets_one_version() {
    let mut world = World::of([edge(), owner(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(0, 2);
    let first = world.nodes[0].version_of("x");
    // The owners know of the move, and who publishes does not.
    world.give(shard_of("x"), 2);
    world.show(1);
    world.show(2);
    let address = world.nodes[0].address;
    let publisher =
        std::thread::spawn(move || crate::testing::post(address, "/v1/publish?object=x&timeout_ms=30000", "", b""));
    until("refused", || {
        world.nodes[0].metric("tidings_peer_changes_forwarded_again_total") > 1
    });
    assert!(!publisher.is_finished());
    world.show(0);
    let answer = publisher.join().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["version"].as_u64() > Some(first));
    assert!(answer.json()["duplicate"].is_null());
}

#[test]
fn a_shard_that_moves_under_load_loses_no_publisher_and_no_subscriber() {
    let mut world = World::of([edge(), owner(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(0, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let objects = ["p", "q", "r"];
    let counts = objects.map(|_| Arc::new(AtomicUsize::new(0)));
    let publishers: Vec<_> = objects
        .into_iter()
        .zip(&counts)
        .map(|(object, count)| {
            let (stop, count, address) = (Arc::clone(&stop), Arc::clone(count), world.nodes[0].address);
            std::thread::spawn(move || {
                let (mut raw, mut last) = (Raw::open(address), 0);
                let request =
                    format!("POST /v1/publish?object={object}&timeout_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                while !stop.load(Ordering::SeqCst) {
                    raw.send(request.as_bytes());
                    let answer = raw.answer().unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let version = answer.json()["version"].as_u64().unwrap();
                    assert!(version > last, "{version} after {last}");
                    last = version;
                    count.fetch_add(1, Ordering::SeqCst);
                }
                last
            })
        })
        .collect();
    let mut listener = world.nodes[0].subscriber(&objects);
    let shards: Vec<_> = objects.into_iter().map(shard_of).collect();
    for turn in 0..12 {
        let before: Vec<_> = counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        shards.iter().for_each(|shard| world.give(*shard, 2 - turn % 2));
        // Who hears first is another one each time; the old owner never last.
        let (old, new) = (1 + turn % 2, 2 - turn % 2);
        let order = [[old, new, 0], [old, 0, new], [0, old, new]][turn % 3];
        for node in order {
            world.show(node);
            std::thread::sleep(Duration::from_millis(15));
        }
        _ = listener.poll("p", 0);
        for (count, before) in counts.iter().zip(before) {
            until("published", || count.load(Ordering::SeqCst) > before);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for (object, publisher) in objects.into_iter().zip(publishers) {
        let last = publisher.join().unwrap();
        // What was published last is told, or that it may have changed.
        let a = &world.nodes[0];
        let known = object_of(a, object);
        assert!(known["version"].as_u64() <= Some(last), "{known}");
        let version = a.version_of(object);
        listener.hear(object, version);
    }
}

fn object_of(node: &super::world::TestNode, object: &str) -> serde_json::Value {
    let request = format!("GET /v1/object?object={object} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = ask(node.address, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn a_subscriber_is_told_to_fetch_again_when_a_shard_moves_with_nothing() {
    let mut world = World::of([edge(), owner(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(0, 2);
    let mut listener = world.nodes[0].subscriber(&["x"]);
    let version = world.nodes[0].version_of("x");
    // Before it polls again the owner is another, which knows of nothing.
    world.give(shard_of("x"), 2);
    world.show_all();
    until("moved", || {
        object_of(&world.nodes[0], "x")["owner"] == "node-0000000000000003"
    });
    let mut told = Vec::new();
    until_told(&mut listener, &mut told);
    let known = told
        .iter()
        .all(|told| *told == Told::Resync("versions_lost".to_owned()) || *told == Told::Version(version));
    assert!(known, "{told:?}");
}

fn until_told(listener: &mut super::world::Subscriber, told: &mut Vec<Told>) {
    for _ in 0..30 {
        match listener.poll("x", 1_000) {
            Told::Nothing => {}
            news => return told.push(news),
        }
    }
    panic!("nothing was told: {:?}", listener.nothing);
}

#[test]
fn an_object_is_asked_about_wherever_its_owner_is() {
    let mut world = World::of([edge(), owner()]);
    let missing = ask(
        world.nodes[0].address,
        "GET /v1/object?object=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!((missing.status, missing.code().as_str()), (503, "no_owner"));
    world.give_all(1);
    world.wait_connected(0, 1);
    let a = &world.nodes[0];
    let version = a.version_of("x");
    let _listener = a.subscriber(&["x"]);
    let known = object_of(a, "x");
    assert_eq!(known["version"], version);
    assert_eq!(known["owner"], "node-0000000000000002");
    assert_eq!((&known["epoch"], &known["subscribers"]), (&json!(1), &json!(1)));
}

#[test]
fn an_edge_that_takes_nothing_is_cut_off_and_catches_up_while_others_hear_on() {
    let mut plans = [edge(), owner(), edge()];
    // Only what waits to be sent ends the connection here.
    plans
        .iter_mut()
        .for_each(|plan| plan.limits.silence = Duration::from_secs(120));
    plans[1].limits.queue_bytes = 200_000;
    let mut world = World::of(plans);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(2, 1);
    let (a, b, c) = (&world.nodes[0], &world.nodes[1], &world.nodes[2]);
    let (mut stuck, mut fine) = (a.subscriber(&["x"]), c.subscriber(&["y"]));
    b.relay.still_for(a.process.node.0, true);
    let change = json!({"object": "x", "data": "x".repeat(60_000)});
    let changes = json!({"changes": vec![change; 30]}).to_string();
    let json = "Content-Type: application/json\r\n";
    until("cut", || {
        let answer = crate::testing::post(b.address, "/v1/publish", json, changes.as_bytes());
        assert_eq!(answer.status, 200);
        let version = b.version_of("y");
        fine.hear("y", version);
        b.metric("tidings_peer_connections{way=\"in\"}") == 1
    });
    b.relay.still_for(a.process.node.0, false);
    let version = b.version_of("x");
    stuck.hear("x", version);
    assert!(a.metric("tidings_peer_reconnects_total") >= 1);
    assert_eq!(c.metric("tidings_peer_reconnects_total"), 0);
}
