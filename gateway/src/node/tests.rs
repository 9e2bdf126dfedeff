//! Nodes on their way, and several in one process.

use super::{Node, RunningNode, StartError, Starting};
use crate::config::Config;
use crate::control::ControlError;
use crate::testing::{Answer, ask, post};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(90);

fn config(folder: &Path, number: usize, join: &[SocketAddr]) -> Config {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.node_listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = folder.join(number.to_string()).to_str().expect("text").to_owned();
    config.cluster.join = join.iter().map(SocketAddr::to_string).collect();
    config.cluster.expect = 3;
    config.cluster.shards = 16;
    config.cluster.secret = "a secret that is long enough for a test".to_owned();
    // A busy machine must not look like a dead one.
    config.cluster.lease_ms = 10_000;
    config
}

fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// Begins nodes that know each other.
fn begin(folder: &Path, ports: &[Option<SocketAddr>]) -> Vec<Starting> {
    let mut begun: Vec<Starting> = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let mut join: Vec<_> = begun.iter().filter_map(Starting::node_address).collect();
        join.extend(ports.iter().flatten());
        let mut config = config(folder, number, &join);
        if let Some(port) = port {
            config.server.node_listen = port.to_string();
        }
        begun.push(Node::begin(config).expect("it begins"));
    }
    begun
}

/// Waits until all of them are part of the cluster and ready.
fn finish(begun: Vec<Starting>) -> Vec<RunningNode> {
    let waiting: Vec<_> = begun
        .into_iter()
        .map(|starting| std::thread::spawn(move || starting.finish()))
        .collect();
    let running = waiting
        .into_iter()
        .map(|thread| thread.join().expect("no panic").expect("it runs"));
    let running: Vec<RunningNode> = running.collect();
    until("every shard has an owner, as every node sees it", || {
        running.iter().all(|node| {
            let view = node.node.control.as_ref().expect("of a cluster").view();
            view.map.shards().all(|(_, shard)| shard.owner.is_some())
        })
    });
    running
}

#[track_caller]
fn until(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn publish(node: &RunningNode, object: &str) -> u64 {
    let begin = Instant::now();
    loop {
        let answer = post(node.addr, &format!("/v1/publish?object={object}"), "", b"");
        if answer.status == 200 {
            return answer.json()["version"].as_u64().expect("a version");
        }
        // While shards find their owners. Where the outcome is unknown, once more does no harm.
        assert!([503, 504].contains(&answer.status), "{object}: {answer:?}");
        assert!(begin.elapsed() < PATIENCE, "{object} is published in time: {answer:?}");
    }
}

fn poll(node: &RunningNode, objects: &[String], cursor: Option<&str>, wait_ms: u64) -> Value {
    let mut body = json!({ "objects": objects, "wait_ms": wait_ms });
    if let Some(cursor) = cursor {
        body["cursor"] = cursor.into();
    }
    let body = serde_json::to_vec(&body).expect("JSON");
    let answer = post(node.addr, "/v1/poll", "Content-Type: application/json\r\n", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The objects that an answer names as changed.
fn changed(answer: &Value) -> Vec<String> {
    let changes = answer["changes"].as_array().expect("changes").iter();
    changes
        .filter_map(|change| change["object"].as_str().map(str::to_owned))
        .collect()
}

fn stop(nodes: Vec<RunningNode>) {
    for node in &nodes {
        let over = node
            .node
            .control
            .as_ref()
            .and_then(|control| control.over().borrow().clone());
        assert_eq!(over, None, "it is one of its cluster to the end");
    }
    let stopping: Vec<_> = nodes
        .into_iter()
        .map(|node| {
            std::thread::spawn(move || {
                node.drain();
                node.join()
            })
        })
        .collect();
    for thread in stopping {
        assert!(thread.join().expect("no panic"), "it ends in order");
    }
}

#[test]
fn a_node_that_looks_for_its_cluster_says_so_and_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let starting = Node::begin(config(folder.path(), 0, &[])).expect("it begins");
    assert!(starting.is_clustered() && starting.node_address().is_some());
    assert_eq!(get(starting.addr, "/healthz").status, 200);
    let ready = get(starting.addr, "/readyz");
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({ "ready": false, "reasons": ["forming"] }))
    );
    let refused = post(starting.addr, "/v1/publish?object=a", "", b"");
    assert_eq!((refused.status, refused.code()), (503, "no_owner".to_owned()));
    assert_eq!(refused.json()["applied"], "no");
    let second = Node::begin(config(folder.path(), 0, &[]));
    assert!(matches!(second, Err(StartError::Storage(_))), "the directory is in use");
    let stop = starting.stopper();
    let waiting = std::thread::spawn(move || starting.finish());
    stop();
    let ended = waiting.join().expect("no panic");
    assert!(
        matches!(ended, Err(StartError::Control(ControlError::Stopped))),
        "{ended:?}"
    );
    // Nothing is left: the directory is free again.
    let again = Node::begin(config(folder.path(), 0, &[]));
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_cluster_without_a_secret_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path(), 0, &[]);
    config.cluster.secret = String::new();
    let refused = Node::begin(config).expect_err("no secret");
    assert!(refused.to_string().contains("secret"), "{refused}");
}

#[test]
fn three_nodes_are_one_service_and_a_restart_of_all_of_them_names_exactly_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = begin(folder.path(), &[None; 3]);
    let ports: Vec<_> = begun.iter().map(Starting::node_address).collect();
    let nodes = finish(begun);
    let cluster = nodes[0].node.cluster;
    assert!(
        nodes
            .iter()
            .all(|node| node.node.cluster == cluster && node.node.key == nodes[0].node.key)
    );

    let objects: Vec<String> = (0..30).map(|number| format!("object-{number}")).collect();
    for (number, object) in objects.iter().enumerate() {
        publish(&nodes[number % 3], object);
    }
    // Whoever watches at one node hears of what is published at another.
    for (number, node) in nodes.iter().enumerate() {
        let first = poll(node, &objects, None, 0);
        let cursor = first["cursor"].as_str().expect("a cursor").to_owned();
        let object = &objects[number];
        publish(&nodes[(number + 1) % 3], object);
        let heard = poll(node, &objects, Some(&cursor), 30_000);
        assert!(changed(&heard).contains(object), "{heard}");
    }
    let map = nodes[0].node.control.as_ref().expect("of a cluster").view().map.clone();
    let owners: std::collections::BTreeSet<_> = map.shards().filter_map(|(_, shard)| shard.owner).collect();
    assert_eq!(owners.len(), 3, "each owns some");

    let before = poll(&nodes[0], &objects, None, 0);
    let cursor = before["cursor"].as_str().expect("a cursor").to_owned();
    publish(&nodes[1], &objects[7]);
    stop(nodes);

    until("the cluster's logs of the life before are closed", || {
        (0..3).all(|number| {
            let log = std::fs::File::open(folder.path().join(number.to_string()).join("control.redb"));
            log.is_ok_and(|log| log.try_lock().is_ok())
        })
    });
    let nodes = finish(begin(folder.path(), &ports));
    // What becomes of them is said where a failure shows it.
    _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_test_writer()
        .try_init();
    assert_eq!(nodes[0].node.cluster, cluster, "it is the same cluster");
    until("every shard is owned by a process that lives", || {
        let view = nodes[0].node.control.as_ref().expect("of a cluster").view();
        view.map
            .shards()
            .all(|(_, shard)| shard.owner.is_some_and(|owner| view.map.is_current(owner)))
    });
    publish(&nodes[2], &objects[11]);
    let mut told = std::collections::BTreeSet::new();
    let mut cursor = cursor;
    while told.len() < 2 {
        let answer = poll(&nodes[2], &objects, Some(&cursor), 30_000);
        assert!(answer["resync"].is_null(), "nothing was lost: {answer}");
        told.extend(changed(&answer));
        cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(told, [objects[7].clone(), objects[11].clone()].into());
    stop(nodes);
}
