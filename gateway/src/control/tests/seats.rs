//! What is in a data directory, and what happens to a node when something of it is missing.

use super::is_whole;
use super::stage::{Node, Stage, settings};
use crate::control::seat::Seat;
use crate::control::{ControlError, SeatError, Settings, is_of_a_cluster, start};
use crate::storage::Identity;
use tidings_protocol::Version;

fn identity() -> Identity {
    Identity {
        cluster: 7,
        key: [1; 16],
        shards: 16,
        since: Version::ZERO,
    }
}

#[test]
fn each_start_is_a_later_life_of_the_same_node_whatever_the_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let take = |wall_us| {
        Seat::take(Some(folder.path()), None, wall_us, false)
            .unwrap()
            .record()
            .clone()
    };
    assert!(!is_of_a_cluster(folder.path()).unwrap());
    let first = take(1_000);
    assert!(is_of_a_cluster(folder.path()).unwrap());
    let second = take(5_000);
    let third = take(10);
    assert!(first.node == second.node && second.node == third.node);
    assert_eq!(
        [first.incarnation, second.incarnation, third.incarnation],
        [1_000, 5_000, 5_001]
    );
}

#[test]
fn a_node_that_gets_the_secret_of_another_kind_of_node_is_another_node() {
    let folder = tempfile::tempdir().unwrap();
    let take = |edge| Seat::take(Some(folder.path()), None, 1, edge).unwrap().record().node;
    let before = take(false);
    assert!(!before.is_edge() && take(false) == before);
    let edge = take(true);
    assert!(edge.is_edge() && edge.with_edge(false) != before && take(true) == edge);
    assert!(!take(false).is_edge());
}

#[test]
fn a_damaged_seat_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    Seat::take(Some(folder.path()), None, 1, false).unwrap();
    let file = folder.path().join("node");
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let taken = Seat::take(Some(folder.path()), None, 2, false);
        assert!(matches!(taken, Err(SeatError::Damaged(_))), "byte {at}");
    }
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(Seat::take(Some(folder.path()), None, 2, false).is_err());
}

#[test]
fn a_directory_of_a_node_that_was_alone_or_whose_name_is_lost_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let alone = Seat::take(Some(folder.path()), Some(7), 1, false);
    assert!(matches!(alone, Err(SeatError::Alone)));
    std::fs::write(folder.path().join("control.redb"), b"a log").unwrap();
    let nobody = Seat::take(Some(folder.path()), Some(7), 1, false);
    assert!(matches!(nobody, Err(SeatError::NoNode(_))));
}

#[tokio::test]
async fn a_node_whose_log_is_lost_joins_its_cluster_under_another_name() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let (identity, before) = (stage.identity(2), stage.view(2).me.node);
    stage.stop(2, true).await;
    std::fs::remove_file(stage.folder.path().join("2/control.redb")).unwrap();
    stage.start_again(2).await;
    stage.formed(2).await;
    assert_eq!(stage.identity(2), identity);
    stage.sees(2, "it has a lease", is_whole).await;
    let after = stage.view(2).me.node;
    assert_ne!(after, before);
    let voters = stage.view(0).voters.clone();
    assert!(
        voters.contains(&before) && !voters.contains(&after),
        "the lost one may have promised a vote"
    );
}

#[tokio::test]
async fn a_directory_with_versions_of_another_cluster_than_its_log_is_refused() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    stage.stop(2, true).await;
    let settings = Settings {
        identity: Some(identity()),
        ..stage.settings[2].clone()
    };
    let started = start(settings);
    assert!(matches!(
        started,
        Err(ControlError::Seat(SeatError::TwoClusters { identity: 7, .. }))
    ));
    assert!(matches!(stage.nodes[2], Node::Gone));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        node_listen: taken.local_addr().unwrap(),
        ..settings(3)
    };
    let started = start(settings);
    let Err(error) = started else { panic!("it starts") };
    assert!(error.to_string().contains("server.node_listen"), "{error}");
}

#[test]
fn an_address_that_nobody_can_reach_is_refused() {
    let settings = Settings {
        node_listen: "0.0.0.0:0".parse().unwrap(),
        ..settings(3)
    };
    let Err(error) = start(settings) else {
        panic!("it starts")
    };
    assert!(
        error.to_string().starts_with("server.node_advertise is needed"),
        "{error}"
    );
}

#[tokio::test]
async fn when_a_node_has_stopped_its_log_is_free() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    for round in 0..6 {
        let node = round % 3;
        stage.stop(node, round % 2 == 1).await;
        let log = stage.folder.path().join(format!("{node}/control.redb"));
        let free = std::fs::File::open(&log).is_ok_and(|file| file.try_lock().is_ok());
        assert!(free, "round {round}: the file is in use still");
        stage.start_again(node).await;
        stage.formed(node).await;
    }
}

/// Copies one file of a node's data directory somewhere, or back.
fn copy(stage: &Stage, node: usize, file: &str, back: bool) {
    let here = stage.folder.path().join(node.to_string()).join(file);
    let aside = stage.folder.path().join(format!("{file}-of-{node}"));
    let (from, to) = if back { (&aside, &here) } else { (&here, &aside) };
    std::fs::copy(from, to).expect("a copy");
}

/// Waits until the node's log has gone on for a while.
async fn goes_on(stage: &Stage, node: usize) {
    let before = stage.view(node).map.ceiling();
    stage
        .sees(node, "its log goes on", |view| {
            view.map.ceiling().0 > before.0 + 2_000_000
        })
        .await;
}

fn follower(stage: &Stage, leader: usize) -> usize {
    stage
        .running()
        .into_iter()
        .find(|node| *node != leader)
        .expect("a follower")
}

#[tokio::test]
async fn a_node_whose_log_is_an_older_copy_joins_its_cluster_under_another_name() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let (identity, before) = (stage.identity(2), stage.view(2).me.node);
    stage.stop(2, false).await;
    copy(&stage, 2, "control.redb", false);
    stage.start_again(2).await;
    stage.formed(2).await;
    assert_eq!(
        stage.view(2).me.node,
        before,
        "the same node as long as nothing is wrong"
    );
    stage.sees(2, "it has a lease", is_whole).await;
    goes_on(&stage, 2).await;
    stage.stop(2, false).await;
    copy(&stage, 2, "control.redb", true);
    stage.start_again(2).await;
    stage.formed(2).await;
    assert_eq!(stage.identity(2), identity);
    stage.sees(2, "it has a lease", is_whole).await;
    assert_ne!(stage.view(2).me.node, before);
    let aside = stage.folder.path().join("2/control.redb.older");
    assert!(aside.exists(), "nothing is thrown away");
}

#[tokio::test]
async fn a_node_whose_whole_directory_was_put_back_is_found_out_by_the_leader_and_does_no_harm() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let leader = stage.leader().await;
    let node = follower(&stage, leader);
    let before = stage.view(node).me.node;
    stage.stop(node, false).await;
    for file in ["node", "control.redb"] {
        copy(&stage, node, file, false);
    }
    stage.start_again(node).await;
    stage.formed(node).await;
    stage.sees(node, "it has a lease", is_whole).await;
    goes_on(&stage, node).await;
    assert_eq!(stage.leader().await, leader, "the same one leads throughout");
    stage.stop(node, false).await;
    for file in ["node", "control.redb"] {
        copy(&stage, node, file, true);
    }
    stage.start_again(node).await;
    stage.formed(node).await;
    let mut over = stage.get(node).handle.over();
    let why = tokio::time::timeout(super::stage::PATIENCE, over.wait_for(Option::is_some)).await;
    let why = why.expect("it ends").expect("it says why").clone().expect("it does");
    assert!(why.contains("put back from a copy"), "{why}");
    stage.stop(node, true).await;
    goes_on(&stage, leader).await;
    assert_eq!(stage.leader().await, leader, "the leader goes on");
    stage.start_again(node).await;
    stage.formed(node).await;
    stage.sees(node, "it has a lease", is_whole).await;
    assert_ne!(stage.view(node).me.node, before);
}
