//! Revocation in a cluster: on every node within five seconds, through restarts, and never silently unknown.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use support::door::*;
use support::*;

/// Three nodes with one policy, waited for.
fn cluster(folder: &std::path::Path, plan: Plan) -> Cluster {
    write_policy(folder, POLICY);
    let policy = folder.join("policy.toml").display().to_string();
    let mut cluster = plan.with(&["--auth.policy_file", &policy]).build();
    for node in 0..cluster.count() {
        cluster.launch(node);
    }
    ready(&cluster);
    let status = send(cluster.address(0), "GET", "/v1/cluster", &bearer(OPERATOR), b"");
    cluster.name_gates_as(&status.ok());
    cluster
}

fn ready(cluster: &Cluster) {
    let since = Instant::now();
    for node in 0..cluster.count() {
        loop {
            let answer = ask(cluster.address(node), "GET", "/readyz", &json!(null), PATIENCE);
            if answer.is_ok_and(|(status, _)| status == 200) {
                break;
            }
            assert!(
                since.elapsed() < LONG,
                "node {node} is not ready: {}",
                cluster.log(node)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a node says to somebody who asks for an object it may watch.
fn code(cluster: &Cluster, node: usize, token: &str) -> String {
    let answer = send(
        cluster.address(node),
        "GET",
        "/v1/object?object=user:alice:1",
        &bearer(token),
        b"",
    );
    match answer.status {
        200 => "200".to_owned(),
        _ => answer.code(),
    }
}

fn revoke(cluster: &Cluster, node: usize, body: &serde_json::Value) -> u16 {
    send(
        cluster.address(node),
        "POST",
        "/v1/revocations",
        &bearer(OPERATOR),
        body.to_string().as_bytes(),
    )
    .status
}

#[test]
fn a_revocation_counts_on_every_node_within_five_seconds_and_after_all_of_them_were_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path(), Plan::of(3));
    let alice = token(&json!({"iat": now_s() - 5}));
    let mut sockets: Vec<Ws> = (0..3)
        .map(|node| Ws::open_bearing(cluster.address(node), &alice))
        .collect();
    for node in 0..3 {
        assert_eq!(code(&cluster, node, &alice), "200", "{node}");
    }
    let since = Instant::now();
    assert_eq!(
        revoke(&cluster, 1, &json!({"subject": "alice", "issued_to": now_s() - 1})),
        204
    );
    for ws in &mut sockets {
        assert_eq!(ws.read_to_the_end().1, Some(4503));
    }
    for node in 0..3 {
        assert_eq!(code(&cluster, node, &alice), "revoked", "{node}");
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.launch(node);
    }
    ready(&cluster);
    for node in 0..3 {
        assert_eq!(code(&cluster, node, &alice), "revoked", "{node}");
        assert_eq!(
            code(&cluster, node, &watching("alice", &[])),
            "200",
            "a new token: {node}"
        );
    }
    // A ticket of one node opens at another.
    let made = send(
        cluster.address(0),
        "POST",
        "/v1/tickets",
        &bearer(&watching("alice", &[])),
        b"",
    );
    let ticket = made.json()["ticket"].as_str().expect("a ticket").to_owned();
    let target = format!("/v1/events?object=user:alice:1&ticket={ticket}");
    let mut stream = Events::open_with(Raw::open(cluster.address(2)), &target, "");
    let last = stream.hear_of("cursor").as_str().expect("an ID").to_owned();
    // And its stream comes back at a third, which never saw it.
    let again = format!("Last-Event-ID: {last}\r\n");
    let mut stream = Events::open_with(Raw::open(cluster.address(1)), &target, &again);
    stream.hear_of("hello");
}

/// What was done with a subject's connections, asked of one node.
fn act(cluster: &Cluster, node: usize, what: &str, body: &serde_json::Value) -> serde_json::Value {
    let target = format!("/v1/subjects/{what}");
    let body = body.to_string();
    send(
        cluster.address(node),
        "POST",
        &target,
        &bearer(OPERATOR),
        body.as_bytes(),
    )
    .ok()
}

#[test]
fn a_subject_is_subscribed_unsubscribed_and_disconnected_on_every_node() {
    let folder = tempfile::tempdir().expect("a folder");
    // One of them owns nothing: nobody dials it.
    let mut cluster = cluster(folder.path(), Plan::of(3));
    let alice = watching("alice", &["room:1"]);
    let mut sockets: Vec<Ws> = (0..3)
        .map(|node| Ws::open_bearing(cluster.address(node), &alice))
        .collect();
    let mut bob = Ws::open_bearing(cluster.address(1), &watching("bob", &["room:1"]));
    let of = |done: &serde_json::Value, name: &str| {
        let nodes = done["nodes"].as_array().expect("nodes").iter();
        nodes
            .map(|node| node[name].as_u64().expect("a number"))
            .collect::<Vec<_>>()
    };
    let objects = json!({"subject": "alice", "objects": ["room:1", "room:2"]});
    let done = act(&cluster, 0, "subscribe", &objects);
    assert_eq!(done["complete"], true, "{done}");
    for (name, each) in [("connections", 1), ("objects", 1), ("refused", 1), ("sessions", 0)] {
        assert_eq!(of(&done, name), [each; 3], "{name}: {done}");
    }
    for ws in &mut sockets {
        assert_eq!(ws.hear_of("subscribed")["objects"][0]["object"], "room:1");
    }
    let publish = |node: usize| {
        let target = "/v1/publish?object=room:1";
        let answer = send(cluster.address(node), "POST", target, &bearer(PUBLISHER), b"");
        answer.ok()["version"].as_u64().expect("a version")
    };
    let version = publish(2);
    for ws in &mut sockets {
        ws.until_told(&[("room:1", version)]);
    }
    let done = act(&cluster, 2, "unsubscribe", &objects);
    assert_eq!(
        (done["complete"].as_bool(), of(&done, "objects")),
        (Some(true), vec![1; 3]),
        "{done}"
    );
    for ws in &mut sockets {
        assert_eq!(ws.hear_of("refused")[0]["object"], "room:1");
    }
    // A node that is gone is named; the others did it.
    let left: Vec<_> = sockets.drain(..2).collect();
    drop(sockets);
    cluster.kill(2);
    let since = Instant::now();
    let done = loop {
        let done = act(
            &cluster,
            1,
            "disconnect",
            &json!({"subject": "alice", "come_back": true}),
        );
        let gone = done["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .find(|node| node["error"].is_string());
        if gone.is_some() {
            break done;
        }
        assert!(since.elapsed() < LONG, "{done}");
    };
    assert_eq!(done["complete"], false, "{done}");
    for mut ws in left {
        let (told, code) = ws.read_to_the_end();
        assert_eq!(code, Some(4007));
        let reconnect = told
            .iter()
            .find_map(|told| told.get("reconnect"))
            .expect("when to come back");
        assert!(
            reconnect["after_ms"].as_u64().is_some_and(|ms| ms <= 1_100),
            "{reconnect}"
        );
    }
    assert_eq!(
        bob.subscribe(&["room:1"])[0]["object"],
        "room:1",
        "nobody else was meant"
    );
}

#[test]
fn a_node_that_hears_nothing_of_revocations_lets_nobody_new_in_and_then_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan::of(3).behind_gates().with(&["--auth.cut_off_ms", "3000"]);
    let cluster = cluster(folder.path(), plan);
    let alice = watching("alice", &[]);
    let mut open = Ws::open_bearing(cluster.address(2), &alice);
    cluster.gates().between(&[2], &[0, 1], Gate::Cut);
    eventually("it refuses newcomers", || code(&cluster, 2, &alice) == "overloaded");
    assert_eq!(
        Ws::open_bearing(cluster.address(2), &alice).read_to_the_end().1,
        Some(4006)
    );
    assert!(open.ask(&json!({"ping": {}}))["pong"].is_object(), "who is in stays in");
    assert_eq!(revoke(&cluster, 0, &json!({"subject": "alice"})), 204);
    cluster.gates().open_all();
    assert_eq!(open.read_to_the_end().1, Some(4503), "it hears of what it missed");
    eventually("it knows, and lets others in", || {
        code(&cluster, 2, &alice) == "revoked" && code(&cluster, 2, OPERATOR) == "200"
    });
}
