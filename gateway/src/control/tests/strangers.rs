//! Who does not belong: another name, another secret, a copy of a data directory, a cluster of another founding.

use super::is_whole;
use super::stage::{Node, PATIENCE, Stage};
use crate::control::{ControlError, Settings};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// One more node of three, which is refused and noticed.
async fn refused(change: impl FnOnce(&mut Settings)) {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let before = dropped(&stage);
    let stranger = stage.start(1, change);
    let noticing = async {
        while dropped(&stage) == before {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, noticing)
        .await
        .expect("its gossip is dropped and counted");
    sleep(Duration::from_secs(1)).await;
    let Node::Starting(starting) = std::mem::replace(&mut stage.nodes[stranger], Node::Gone) else {
        panic!("it runs");
    };
    starting.stopper()();
    let ended = timeout(PATIENCE, starting.formed()).await.expect("it stops");
    assert!(matches!(ended, Err(ControlError::Stopped)), "it never joined");
    assert_eq!(stage.view(0).map.nodes().count(), 3);
}

fn dropped(stage: &Stage) -> u64 {
    let nodes = stage.running().into_iter();
    nodes
        .map(|node| stage.get(node).handle.metrics().refused_datagrams.get())
        .sum()
}

#[tokio::test]
async fn a_node_with_another_secret_is_a_stranger() {
    refused(|settings| "another secret that is long enough too".clone_into(&mut settings.secret)).await;
}

#[tokio::test]
async fn a_node_of_a_cluster_with_another_name_is_a_stranger() {
    refused(|settings| "other".clone_into(&mut settings.name)).await;
}

#[tokio::test]
async fn of_two_processes_with_one_data_directory_the_earlier_one_ends() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    stage.stop(2, false).await;
    let copy = stage.folder.path().join("copy");
    std::fs::create_dir(&copy).expect("a folder");
    for name in ["node", "control.redb"] {
        let from = stage.folder.path().join("2").join(name);
        std::fs::copy(from, copy.join(name)).expect("a copy");
    }
    stage.start_again(2).await;
    stage.formed(2).await;
    stage.sees(2, "it has a lease", is_whole).await;
    let mut over = stage.get(2).handle.over();
    let second = stage.start(3, |settings| settings.data_dir = Some(copy));
    let why = timeout(PATIENCE, over.wait_for(Option::is_some))
        .await
        .expect("it ends");
    let why = why.expect("it says why").clone().expect("it does");
    assert!(why.contains("data directory copied"), "{why}");
    stage
        .sees(2, "it may do nothing any more", |view| view.until_us == 0)
        .await;
    stage.formed(second).await;
    stage.sees(second, "it has a lease", is_whole).await;
}

#[tokio::test]
async fn two_clusters_with_one_name_and_secret_do_not_mix() {
    let mut one = Stage::three().await;
    let mut other = Stage::three().await;
    assert_ne!(one.identity(0), other.identity(0));
    let (first, second) = (one.identity(0), other.identity(0));
    one.stop(0, true).await;
    other.stop(0, true).await;
    // Each goes to where the other one is.
    let (here, there) = (one.addresses(), other.addresses());
    one.start_at(0, [there.clone(), here.clone()].concat()).await;
    one.formed(0).await;
    assert_eq!(one.identity(0), first);
    one.sees(0, "it has a lease in its own cluster", is_whole).await;
    other.start_at(0, [here, there].concat()).await;
    other.formed(0).await;
    assert_eq!(other.identity(0), second);
    other.sees(0, "it has a lease in its own cluster", is_whole).await;
    assert_eq!(
        (one.view(0).map.nodes().count(), other.view(0).map.nodes().count()),
        (3, 3)
    );
}
