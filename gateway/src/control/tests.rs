//! Control planes of several nodes in one process, over real sockets: they form, join, survive, and refuse strangers.

mod orders;
mod roles;
mod seats;
mod stage;
mod strangers;

use crate::clock;
use crate::control::View;
use stage::{Node, Stage};
use std::collections::BTreeSet;
use std::time::Duration;
use tidings_protocol::{Epoch, NodeId, Version};
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::map::Shard;
use tokio::time::sleep;

use super::ProposeError;

/// Every shard has an owner, and this node a lease.
fn is_whole(view: &View) -> bool {
    let owned = view.map.shards().all(|(_, shard)| shard.epoch >= Epoch(1));
    owned && view.confirmed && view.until_us > clock::mono_us()
}

/// What the owner of each shard has to be.
fn is_owned_by_the_living(view: &View) -> bool {
    view.map.shards().all(|(_, shard)| {
        shard.owner.is_some_and(|owner| {
            owner == view.me
                || view
                    .peers
                    .get(&owner.node)
                    .is_some_and(|peer| peer.alive && peer.process == owner)
        })
    })
}

#[tokio::test]
async fn three_nodes_that_start_together_form_a_cluster_and_own_its_shards() {
    let mut stage = Stage::three().await;
    stage
        .all_see("every shard has an owner", |view| {
            is_whole(view) && view.peers.len() == 2
        })
        .await;
    let identity = stage.identity(0);
    let view = stage.view(0);
    for node in 0..3 {
        assert_eq!(stage.identity(node), identity);
        let me = stage.view(node).me;
        let owned = view.map.shards().filter(|(_, shard)| shard.owner == Some(me)).count();
        assert!((5..=6).contains(&owned), "16 shards over three nodes: {owned}");
    }
    let status = stage.get(1).handle.status();
    assert_eq!((status.members.len(), status.learners.len()), (2, 0));
    assert!(status.lease_left_us > 0 && status.term > 0);
    assert_eq!(stage.view(2).voters.len(), 3);
    for node in 0..3 {
        stage.stop(node, false).await;
    }
}

#[tokio::test]
async fn nodes_that_come_one_by_one_wait_for_each_other_and_a_fourth_learns() {
    let mut stage = Stage::new();
    stage.start(3, |_| {});
    sleep(Duration::from_millis(600)).await;
    stage.start(3, |_| {});
    sleep(Duration::from_millis(600)).await;
    assert!(stage.nodes.iter().all(|node| matches!(node, Node::Starting(_))));
    stage.start(3, |_| {});
    stage.all_formed().await;
    stage.all_see("it has a lease", is_whole).await;
    let fourth = stage.start(1, |_| {});
    stage.formed(fourth).await;
    stage.sees(fourth, "it has a lease", is_whole).await;
    assert_eq!(stage.identity(fourth), stage.identity(0));
    let me = stage.view(fourth).me.node;
    stage
        .all_see("there are four", |view| view.map.nodes().count() == 4)
        .await;
    let voters = stage.view(0).voters.clone();
    assert!(voters.len() == 3 && !voters.contains(&me));
    let learners = stage.get(fourth).handle.status().learners;
    assert_eq!(learners, BTreeSet::from([me]));
}

#[tokio::test]
async fn six_nodes_that_could_form_two_clusters_end_in_one() {
    let mut stage = Stage::new();
    for _ in 0..6 {
        stage.start(3, |_| {});
    }
    stage.all_formed().await;
    for node in 1..6 {
        assert_eq!(stage.identity(node), stage.identity(0));
    }
    stage
        .all_see("all are there, and three vote", |view| {
            view.map.nodes().count() == 6 && view.voters.len() == 3
        })
        .await;
}

#[tokio::test]
async fn five_nodes_form_a_cluster_of_five_voters() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.start(5, |_| {});
    }
    stage.all_formed().await;
    stage
        .all_see("five vote", |view| view.voters.len() == 5 && is_whole(view))
        .await;
}

#[tokio::test]
async fn when_the_leader_dies_another_one_leads_and_leases_go_on() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let leader = stage.leader().await;
    let before = stage.view(leader).me;
    let killed = clock::mono_us();
    stage.stop(leader, true).await;
    let others = stage.running();
    let mut lapse = 0;
    for node in &others {
        let what = "another one leads and the lease goes on";
        stage
            .sees(*node, what, |view| {
                lapse_of(view, &mut lapse);
                let led = view.leader.is_some_and(|leader| leader != before.node);
                led && view.until_us > killed + 2_500_000
            })
            .await;
    }
    println!("killed after {killed} µs; longest time without a lease seen: {lapse} µs");
    stage
        .all_see("the shards of the dead are owned by the living", |view| {
            let dead = |shard: &Shard| shard.owner == Some(before);
            !view.map.shards().any(|(_, shard)| dead(shard)) && is_owned_by_the_living(view)
        })
        .await;
    let shards = stage.view(others[0]);
    let lost = shards.map.shards().filter(|(_, shard)| shard.epoch > Epoch(1)).count();
    assert!(
        (5..=6).contains(&lost),
        "only the shards of the dead changed hands: {lost}"
    );
    let floors = shards
        .map
        .shards()
        .filter(|(_, shard)| shard.floor > Version::ZERO)
        .count();
    assert_eq!(floors, lost, "and nobody can vouch for what they had");
}

fn lapse_of(view: &View, longest: &mut u64) {
    if view.until_us > 0 {
        *longest = (*longest).max(clock::mono_us().saturating_sub(view.until_us));
    }
}

#[tokio::test]
async fn a_node_that_starts_again_is_another_process_of_the_same_node() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        // Long enough to start again before the shards are given away.
        stage.start(3, |settings| settings.lease = Duration::from_secs(20));
    }
    stage.all_formed().await;
    stage.all_see("it has a lease", is_whole).await;
    let (identity, before) = (stage.identity(1), stage.view(1).me);
    let owned: Vec<_> = {
        let view = stage.view(1);
        let owned = view.map.shards().filter(|(_, shard)| shard.owner == Some(before));
        owned.map(|(id, shard)| (id, shard.epoch)).collect()
    };
    stage.stop(1, true).await;
    stage.start_again(1).await;
    stage.formed(1).await;
    stage.get(1).handle.set_on_disk(owned.clone());
    assert_eq!(stage.identity(1), identity);
    stage.sees(1, "it has a lease", is_whole).await;
    let after = stage.view(1).me;
    assert!(after.node == before.node && after.incarnation > before.incarnation);
    stage
        .sees(1, "it has its shards again, without a floor", |view| {
            owned.iter().all(|(id, epoch)| {
                let shard = view.map.shard(*id);
                shard.is_some_and(|shard| {
                    shard.owner == Some(after) && shard.epoch.0 == epoch.0 + 1 && shard.floor == Version::ZERO
                })
            })
        })
        .await;
}

#[tokio::test]
async fn all_nodes_may_start_again_and_are_the_cluster_that_they_were() {
    let mut stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let identity = stage.identity(0);
    let before = stage.view(0).map.ceiling();
    let lives: Vec<_> = (0..3).map(|node| stage.view(node).me).collect();
    for node in 0..3 {
        stage.stop(node, node != 1).await;
    }
    for node in 0..3 {
        stage.start_again(node).await;
    }
    stage.all_formed().await;
    stage
        .all_see("it has a lease and a ceiling", |view| {
            is_whole(view) && view.ceiling >= before
        })
        .await;
    for (node, before) in lives.into_iter().enumerate() {
        assert_eq!(stage.identity(node), identity);
        let me = stage.view(node).me;
        assert!(me.node == before.node && me.incarnation > before.incarnation);
    }
    stage.all_see("the living own all", is_owned_by_the_living).await;
}

#[tokio::test]
async fn a_command_is_applied_wherever_it_is_proposed() {
    let stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    for node in 0..3 {
        let drained = stage.view((node + 1) % 3).me.node;
        let command = Command::Drain {
            node: drained,
            draining: true,
        };
        let handle = stage.get(node).handle.clone();
        assert_eq!(handle.propose(command.clone()).await, Ok(()));
        assert_eq!(handle.propose(command).await, Err(ProposeError::Changed(Refusal::Same)));
    }
    stage
        .all_see("all drain", |view| view.map.nodes().all(|(_, node)| node.draining))
        .await;
}

#[tokio::test]
async fn a_voter_that_stays_away_is_replaced_by_one_who_is_willing() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        stage.start(3, |settings| settings.replace_voter = Duration::from_secs(1));
    }
    stage.all_formed().await;
    let fourth = stage.start(1, |settings| settings.replace_voter = Duration::from_secs(1));
    stage.formed(fourth).await;
    stage.all_see("it has a lease", is_whole).await;
    let (newcomer, gone) = (stage.view(fourth).me.node, stage.view(0).me.node);
    stage.stop(0, true).await;
    stage
        .all_see("the newcomer votes instead", |view| {
            view.voters.contains(&newcomer) && !view.voters.contains(&gone) && view.voters.len() == 3
        })
        .await;
    let back: BTreeSet<NodeId> = [1, 2].map(|node| stage.view(node).me.node).into();
    let handle = stage.get(1).handle.clone();
    let without: Result<(), _> = handle.set_voters(BTreeSet::from([gone, NodeId(1)])).await;
    assert!(without.is_err(), "a stranger cannot vote");
    stage.start_again(0).await;
    stage.formed(0).await;
    let voters: BTreeSet<NodeId> = back.into_iter().chain([gone]).collect();
    assert_eq!(handle.set_voters(voters.clone()).await, Ok(()));
    stage
        .all_see("the old one votes again", |view| view.voters == voters)
        .await;
}

#[tokio::test]
async fn a_node_that_is_gone_and_holds_nothing_is_forgotten() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        stage.start(3, |settings| settings.forget_node = Duration::from_secs(1));
    }
    stage.all_formed().await;
    let fourth = stage.start(1, |settings| settings.owner = false);
    stage.formed(fourth).await;
    stage
        .all_see("there are four", |view| view.map.nodes().count() == 4)
        .await;
    stage.stop(fourth, true).await;
    stage
        .all_see("there are three", |view| view.map.nodes().count() == 3)
        .await;
    let mut learners = Vec::new();
    for _ in 0..600 {
        learners = stage
            .running()
            .into_iter()
            .map(|node| stage.get(node).handle.status().learners.len())
            .collect();
        if learners.iter().all(|count| *count == 0) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody learns any more: {learners:?}");
}

#[tokio::test]
async fn nodes_without_a_disk_form_a_cluster_too() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        stage.start(3, |settings| settings.data_dir = None);
    }
    stage.all_formed().await;
    stage.all_see("it has a lease", is_whole).await;
}
