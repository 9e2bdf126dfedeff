//! What goes between the nodes of a cluster in which nobody fails: every node takes every publish and every subscription, one
//! cursor holds on all of them, and nodes that nobody asked hear nothing.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::*;

fn newest(told: &[(String, u64)]) -> u64 {
    told.iter().map(|(_, version)| *version).max().expect("a version")
}

#[test]
fn every_node_takes_publishes_and_subscriptions_of_every_shard() {
    let cluster = Plan::of(3).start();
    let objects = names("every", 600);
    let mut shards = cluster.shards_of(0, &objects);
    assert_eq!(shards, cluster.shards_of(1, &objects), "a shard is the same everywhere");
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards.len(), SHARDS, "the objects are of all shards");
    let mut listeners: Vec<Ws> = (0..3)
        .map(|node| {
            let mut ws = Ws::open(cluster.address(node));
            ws.subscribe(&objects);
            ws
        })
        .collect();
    for publisher in 0..3 {
        let published = publish_all(cluster.address(publisher), &objects);
        for listener in &mut listeners {
            listener.up_to(newest(&published)).is_exactly(&published);
        }
        for (object, version) in &published[..20] {
            for node in 0..3 {
                assert_eq!(
                    version_of(cluster.address(node), object),
                    Some(*version),
                    "{object} at n{node}"
                );
            }
        }
    }
}

#[test]
fn one_cursor_holds_on_every_node_and_what_it_brings_is_exact() {
    let cluster = Plan::of(3).start();
    let objects = names("cursor", 200);
    let mut poller = Poller::new(Poll::of(cluster.address(0), &objects));
    let first = publish_all(cluster.address(1), &objects);
    poller.up_to(newest(&first)).is_exactly(&first);
    let mut cursor = poller.cursor;
    for round in 0..6 {
        // Nobody watches meanwhile; a part of the objects changes, some of them twice.
        let part: Vec<&String> = objects.iter().skip(round).step_by(7).collect();
        publish_all(cluster.address(round % 3), &part[..part.len() / 2]);
        let changed = publish_all(cluster.address((round + 1) % 3), &part);
        let mut poller = Poller::resume(Poll::of(cluster.address((round + 2) % 3), &objects), &cursor);
        poller.up_to(newest(&changed)).is_exactly(&changed);
        cursor = poller.cursor;
    }
}

#[test]
fn the_other_transports_carry_a_change_between_nodes_too() {
    let cluster = Plan::of(3).start();
    let objects = names("stream", 20);
    let mut streams: Vec<Events> = (0..3)
        .map(|node| Events::open(cluster.address(node), &objects, None))
        .collect();
    for stream in &mut streams {
        stream.hear_of("cursor");
    }
    let change = json!({"object": "stream7", "kind": "paid", "data": {"total": 12}});
    let version = publish_with(cluster.address(0), &change);
    for stream in &mut streams {
        let heard = stream.until_told(&[("stream7", version)]);
        assert_eq!(
            (&heard.last()["kind"], &heard.last()["data"]),
            (&json!("paid"), &json!({"total": 12}))
        );
    }
}

#[test]
fn repeats_and_old_revisions_are_recognised_whichever_node_they_come_to() {
    let cluster = Plan::of(3).start();
    for object in names("repeat", 12) {
        let with = |revision: u64| json!({"object": object, "revision": revision});
        let first = post_json(cluster.address(0), "/v1/publish", &with(5)).ok();
        for node in 0..3 {
            let again = post_json(cluster.address(node), "/v1/publish", &with(5)).ok();
            assert_eq!(
                (&again["version"], &again["duplicate"]),
                (&first["version"], &json!(true)),
                "{object} at n{node}"
            );
        }
        let keyed = |node: usize| {
            let target = format!("/v1/publish?object={object}");
            let key = format!("Idempotency-Key: key of {object}\r\n");
            send(cluster.address(node), "POST", &target, &key, b"").ok()
        };
        let first = keyed(1);
        assert_eq!(first["duplicate"], serde_json::Value::Null);
        assert_eq!(
            (&keyed(2)["version"], &keyed(2)["duplicate"]),
            (&first["version"], &json!(true))
        );
    }
}

#[test]
fn a_stream_of_lines_is_spread_over_all_owners_and_every_line_arrives() {
    let cluster = Plan::of(3).start();
    let objects = names("line", 3000);
    let watched = &objects[..300];
    let mut poller = Poller::new(Poll::of(cluster.address(2), watched));
    let lines: String = objects
        .iter()
        .map(|object| format!("{{\"object\":\"{object}\"}}\n"))
        .collect();
    let answer = post(
        cluster.address(0),
        "/v1/publish",
        "application/x-ndjson",
        lines.as_bytes(),
    )
    .ok();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(3000), &json!(0)),
        "{answer}"
    );
    let heard = poller.up_to(answer["version"].as_u64().expect("a version"));
    assert_eq!(heard.newest.len(), 300);
    assert!(heard.resyncs.is_empty(), "{heard:?}");
}

#[test]
fn a_node_at_which_nobody_asks_for_an_object_is_not_told_of_it() {
    let cluster = Plan::of(3).start();
    let objects = names("quiet", 100);
    let mut ws = Ws::open(cluster.address(0));
    ws.subscribe(&objects);
    let before: Vec<u64> = (0..3).map(|node| notices(&cluster, node)).collect();
    for _ in 0..20 {
        let published = publish_all(cluster.address(1), &objects);
        ws.up_to(newest(&published)).is_exactly(&published);
    }
    let after: Vec<u64> = (0..3).map(|node| notices(&cluster, node)).collect();
    assert!(
        after[0] > before[0],
        "the node with the subscriber is told by the others: {before:?} {after:?}"
    );
    assert_eq!((after[1], after[2]), (before[1], before[2]), "nobody there asked");
}

/// Frames with changes that owners of other nodes sent here.
fn notices(cluster: &Cluster, node: usize) -> u64 {
    cluster.metric(node, "tidings_peer_frames_total", &["way=\"in\"", "kind=\"changed\""])
}

/// Not a judgement of speed: the figures are printed, for whoever wants them, as a ratio of one run.
#[test]
fn what_a_hop_between_nodes_costs_is_printed() {
    let rounds: usize = std::env::var("TIDINGS_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(50);
    let cluster = Plan::of(3).start();
    let objects = names("hop", 60);
    let (here, elsewhere) = cluster.split(0, 0, &objects);
    let measure = |object: &str, publisher: SocketAddr, listener: SocketAddr| {
        let mut ws = Ws::open(listener);
        ws.subscribe(&[object]);
        let mut took: Vec<Duration> = (0..rounds)
            .map(|_| {
                let begin = Instant::now();
                let version = publish(publisher, object);
                ws.until_told(&[(object, version)]);
                begin.elapsed()
            })
            .collect();
        took.sort_unstable();
        took
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (_alone, alone) = serve_in(folder.path(), &[]);
    let (n0, n1) = (cluster.address(0), cluster.address(1));
    let rows = [
        ("one node that is alone", measure("alone", alone, alone)),
        (
            "publisher, owner and subscriber at one node of three",
            measure(&here[0], n0, n0),
        ),
        ("the owner elsewhere (two hops)", measure(&elsewhere[0], n0, n0)),
        ("owner here, subscriber elsewhere (one hop)", measure(&here[0], n0, n1)),
    ];
    for (what, took) in rows {
        println!(
            "{:>8.2?} median {:>8.2?} p99  {what}, publish to told, {rounds} rounds",
            took[rounds / 2],
            took[rounds * 99 / 100]
        );
    }
}
