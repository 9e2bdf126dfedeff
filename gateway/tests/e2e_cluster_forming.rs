//! Real processes become a cluster, in whatever order they start and whoever is missing, and refuse strangers.

#[path = "support/support.rs"]
mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::*;

/// How long a node that must not become ready is looked at.
const A_WHILE: Duration = Duration::from_secs(6);

/// The cluster's identity as each node tells it, which must be one.
#[track_caller]
fn identity(cluster: &Cluster, nodes: &[usize]) -> String {
    let identities: Vec<Value> = nodes
        .iter()
        .map(|node| cluster.status(*node).expect("an answer")["cluster"].clone())
        .collect();
    assert!(
        identities.iter().all(|identity| *identity == identities[0]),
        "{identities:?}"
    );
    let identity = identities[0].as_str().expect("text");
    assert_eq!(identity.len(), 16, "{identity:?}");
    identity.to_owned()
}

/// A change published at one node is told at another.
#[track_caller]
fn carries(cluster: &Cluster, from: usize, to: usize) {
    let mut ws = Ws::open(cluster.address(to));
    ws.subscribe(&["carried"]);
    let version = publish(cluster.address(from), "carried");
    ws.until_told(&[("carried", version)]);
}

#[test]
fn three_nodes_that_start_at_once_are_one_cluster_and_share_the_shards() {
    let cluster = Plan::of(3).start();
    identity(&cluster, &[0, 1, 2]);
    let owners = cluster.owners(0);
    for node in 0..3 {
        let owned = owners.values().filter(|owner| **owner == node).count();
        assert!(owned >= SHARDS / 4, "{owners:?}");
    }
    carries(&cluster, 0, 2);
    carries(&cluster, 2, 1);
}

#[test]
fn nodes_that_start_one_by_one_serve_nobody_before_enough_are_there() {
    let mut cluster = Plan::of(3).build();
    for node in 0..2 {
        cluster.launch(node);
        let since = Instant::now();
        while since.elapsed() < A_WHILE / 2 {
            for started in 0..=node {
                assert!(cluster.is_running(started));
                assert!(!cluster.is_ready(started), "n{started} is ready with {node} others");
            }
            assert!(publish_at(cluster.address(node), "early", 500).is_err());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    cluster.launch(2);
    cluster.until_whole();
    identity(&cluster, &[0, 1, 2]);
    carries(&cluster, 1, 0);
}

#[test]
fn a_dead_seed_a_wrong_one_and_oneself_do_not_matter() {
    let mut cluster = Plan::of(3).build();
    // Something that is no node listens on the second.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let wrong = other.local_addr().expect("an address");
    let dead = "127.0.0.1:1";
    for node in 0..3 {
        let next = cluster.node_address((node + 1) % 3);
        let own = cluster.node_address(node);
        let file = cluster.folder(node).with_extension("seeds");
        std::fs::write(&file, format!("{dead} # long gone\n{wrong}\n\n{own}\n")).expect("written");
        let join = format!("@{},{next},no-such-host.invalid:7401", file.display());
        cluster.change(node, &["--cluster.join", &join]);
        cluster.launch(node);
    }
    cluster.until_whole();
    identity(&cluster, &[0, 1, 2]);
}

#[test]
fn a_fourth_node_joins_without_voting_and_takes_publishes_and_subscriptions() {
    let mut cluster = Plan::of(4).build();
    for node in 0..3 {
        cluster.launch(node);
    }
    cluster.until_whole();
    let formed = identity(&cluster, &[0, 1, 2]);
    cluster.launch(3);
    cluster.until_whole();
    assert_eq!(identity(&cluster, &[3]), formed);
    carries(&cluster, 3, 0);
    carries(&cluster, 0, 3);
    let status = cluster.status(0).expect("an answer");
    let voters = status["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter(|node| node["voter"] == true);
    assert_eq!(voters.count(), 3, "{status}");
}

#[test]
fn five_nodes_are_a_cluster_and_bear_the_loss_of_two() {
    let mut cluster = Plan::of(5).start();
    identity(&cluster, &[0, 1, 2, 3, 4]);
    carries(&cluster, 4, 1);
    cluster.kill(1);
    cluster.kill(3);
    cluster.until_owned_by(&[0, 2, 4]);
    cluster.until_whole();
    carries(&cluster, 0, 4);
}

/// Refused, and told so in the log of one of those that refuse or of the refused.
#[track_caller]
fn stays_out(cluster: &mut Cluster, node: usize, says: &[&str]) {
    cluster.launch(node);
    let since = Instant::now();
    let told =
        |cluster: &Cluster| (0..cluster.count()).any(|each| says.iter().any(|words| cluster.log(each).contains(words)));
    let mut heard = false;
    while since.elapsed() < A_WHILE || !heard {
        assert!(!cluster.is_ready(node), "{} was let in", cluster.name(node));
        heard = heard || told(cluster);
        assert!(since.elapsed() < LONG, "nobody says any of {says:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = cluster.status(0).expect("an answer");
    let members = status["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter(|member| member["member"] == true);
    assert_eq!(members.count(), 3, "{status}");
    if cluster.is_running(node) {
        cluster.kill(node);
    }
    cluster.until_these_are_whole(&[0, 1, 2]);
}

#[test]
fn a_node_with_another_secret_or_of_another_name_is_refused_and_that_is_said() {
    let mut cluster = Plan::of(4).build();
    for node in 0..3 {
        cluster.launch(node);
    }
    cluster.until_whole();
    let secret = cluster.folder(3).with_extension("secret");
    std::fs::write(&secret, "quite another secret, also long enough").expect("written");
    cluster.change(3, &["--secret-file", secret.to_str().expect("text")]);
    stays_out(&mut cluster, 3, &["secret", "key"]);
    cluster.change(3, &["--cluster.name", "elsewhere"]);
    stays_out(&mut cluster, 3, &["another cluster", "elsewhere"]);
    carries(&cluster, 0, 1);
}

#[test]
fn a_node_whose_data_is_of_another_cluster_is_refused_although_name_and_secret_fit() {
    let mut stranger = Plan::of(3).start();
    for node in 0..3 {
        stranger.stop(node);
    }
    let mut cluster = Plan::of(4).build();
    for node in 0..3 {
        cluster.launch(node);
    }
    cluster.until_whole();
    let formed = identity(&cluster, &[0, 1, 2]);
    std::fs::rename(stranger.folder(1), cluster.folder(3)).expect("moved");
    stays_out(&mut cluster, 3, &["another cluster"]);
    assert_eq!(identity(&cluster, &[0, 1, 2]), formed);
    carries(&cluster, 2, 0);
}

#[test]
fn all_nodes_stopped_and_started_again_are_the_same_cluster_and_nobody_resyncs() {
    let mut cluster = Plan::of(3).start();
    let formed = identity(&cluster, &[0, 1, 2]);
    let watched = names("again", 60);
    let mut poller = Poller::new(Poll::of(cluster.address(0), &watched));
    let newest = |told: &[(String, u64)]| told.iter().map(|(_, version)| *version).max().expect("a version");
    poller.up_to(newest(&publish_all(cluster.address(1), &watched)));
    for node in 0..3 {
        cluster.stop(node);
    }
    for node in 0..3 {
        cluster.launch(node);
    }
    cluster.until_whole();
    assert_eq!(identity(&cluster, &[0, 1, 2]), formed);
    let mut poller = Poller::resume(Poll::of(cluster.address(2), &watched), &poller.cursor);
    let changed = publish_all(cluster.address(1), &watched[..30]);
    poller.up_to(newest(&changed)).is_exactly(&changed);
}
