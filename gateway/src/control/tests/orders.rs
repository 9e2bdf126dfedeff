//! What operators and configuration want of a cluster, seen from the control plane. Nobody owns anything really here: the tests
//! say what owners would say.

use super::is_whole;
use super::stage::{PATIENCE, Stage};
use crate::control::View;
use crate::control::orders::Share;
use crate::control::seeds::Names;
use futures_util::FutureExt as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_router::control::command::{Command, Seen};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn nodes_that_know_only_one_name_with_several_addresses_form_a_cluster() {
    let known = Arc::new(Mutex::new(Vec::<SocketAddr>::new()));
    let names = {
        let known = Arc::clone(&known);
        Names::new(move |name| {
            assert_eq!(name, "nodes.test:7401");
            let known = known.lock().expect("a lock").clone();
            async move { Ok(known) }.boxed()
        })
    };
    let mut stage = Stage::new();
    for _ in 0..3 {
        let names = names.clone();
        stage.start(3, |settings| {
            settings.join = vec!["nodes.test:7401".to_owned()];
            settings.names = names;
        });
        let addresses = stage.addresses();
        let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
        *known.lock().expect("a lock") = addresses.collect();
    }
    stage.all_formed().await;
    stage.all_see("it has a lease", is_whole).await;
    assert_eq!(stage.view(0).map.nodes().count(), 3);
}

/// Says what owners would say: copies that are being filled are whole, shards that should move are handed over.
async fn own(stage: &Stage, at: usize, until: impl Fn(&View) -> bool) {
    let handle = &stage.get(at).handle;
    let owning = async {
        loop {
            let view = handle.view();
            if until(&view) {
                return;
            }
            for (id, shard) in view.map.shards() {
                let seen = Seen::of(&view.map, id).expect("a shard");
                let command = match (shard.owner, shard.moving, shard.filling.first()) {
                    (Some(from), Some(to), _) if shard.in_sync.contains(&to) => Command::Release { seen, from, to },
                    (Some(_), _, Some(&member)) => Command::Join { seen, member },
                    _ => continue,
                };
                // The coordinator may have been faster.
                _ = handle.propose(command).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, owning).await.is_err() {
        panic!("never so: {:#?}", stage.view(at));
    }
}

async fn with_copies(copies: u8, nodes: usize) -> Stage {
    let mut stage = Stage::new();
    for number in 0..nodes {
        stage.start(if number < 3 { 3 } else { 1 }, |settings| {
            settings.copies = copies;
            (settings.moves, settings.fills) = (8, 4);
        });
        if number >= 2 {
            stage.all_formed().await;
        }
    }
    stage.all_see("it has a lease", is_whole).await;
    stage
}

/// Every shard has its copies, and nothing is under way.
fn is_level(view: &View) -> bool {
    view.map.shards().all(|(_, shard)| {
        let copies = usize::from(view.map.copies()) - 1;
        shard.in_sync.len() == copies && shard.filling.is_empty() && shard.moving.is_none()
    })
}

#[tokio::test]
async fn a_cluster_is_formed_with_as_many_copies_as_are_configured_and_gets_them_and_others_by_order() {
    let stage = with_copies(2, 3).await;
    stage
        .all_see("two copies were agreed on", |view| view.map.copies() == 2)
        .await;
    own(&stage, 0, is_level).await;
    let handle = &stage.get(1).handle;
    assert_eq!(handle.propose(Command::SetCopies { copies: 3 }).await, Ok(()));
    own(&stage, 0, |view| view.map.copies() == 3 && is_level(view)).await;
    assert_eq!(handle.propose(Command::SetCopies { copies: 1 }).await, Ok(()));
    own(&stage, 0, |view| view.map.copies() == 1 && is_level(view)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.view(0).map.copies(), 1, "the map counts, whatever is configured");
}

#[tokio::test]
async fn a_node_that_drains_gives_up_shards_copies_vote_and_office_and_takes_part_again() {
    let stage = with_copies(2, 4).await;
    own(&stage, 0, is_level).await;
    let leader = stage.leader().await;
    let node = stage.view(leader).me.node;
    let drain = |draining| Command::Drain { node, draining };
    let handle = &stage.get((leader + 1) % 4).handle;
    assert_eq!(handle.propose(drain(true)).await, Ok(()));
    let is_empty = move |view: &View| Share::of(&view.map, node).shards() == 0;
    own(&stage, (leader + 1) % 4, move |view| is_empty(view) && is_level(view)).await;
    let votes_and_leads = |view: &View| (view.voters.contains(&node), view.leader == Some(node));
    stage
        .all_see("it neither votes nor leads, and three vote", |view| {
            votes_and_leads(view) == (false, false) && view.leader.is_some() && view.voters.len() == 3
        })
        .await;
    assert_eq!(handle.propose(drain(false)).await, Ok(()));
    own(&stage, (leader + 1) % 4, move |view| !is_empty(view) && is_level(view)).await;
}

#[tokio::test]
async fn a_voter_that_drains_keeps_its_vote_while_nobody_else_would_vote() {
    let stage = Stage::three().await;
    stage.all_see("it has a lease", is_whole).await;
    let leader = stage.leader().await;
    let node = stage.view(leader).me.node;
    let draining = true;
    let handle = &stage.get((leader + 1) % 3).handle;
    assert_eq!(handle.propose(Command::Drain { node, draining }).await, Ok(()));
    stage
        .all_see("it does not lead and votes", |view| {
            let led = view.leader.is_some_and(|leader| leader != node);
            led && view.voters.contains(&node)
        })
        .await;
    sleep(Duration::from_secs(2)).await;
    let voters = stage.view(leader).voters.clone();
    let all: Vec<NodeId> = stage.view(leader).map.nodes().map(|(node, _)| node).collect();
    assert!(all.iter().all(|node| voters.contains(node)), "three vote: {voters:?}");
}

#[tokio::test]
async fn what_an_operator_moves_somewhere_stays_there() {
    let stage = with_copies(1, 3).await;
    let view = stage.view(0);
    let target = view.me;
    let (id, shard) = {
        let mut shards = view.map.shards();
        let found = shards
            .find(|(_, shard)| shard.owner != Some(target))
            .expect("of another node");
        (found.0, found.1.clone())
    };
    let scene = crate::control::orders::Scene {
        map: &view.map,
        alive: view.map.nodes().map(|(node, _)| node).collect(),
        voters: view.voters.clone(),
        willing: view.voters.clone(),
    };
    let commands = scene.relocate(id, target.node).expect("ordered");
    assert_eq!(stage.get(1).handle.propose_all(commands).await, Ok(()));
    let is_there = move |view: &View| view.map.shard(id).is_some_and(|shard| shard.owner == Some(target));
    own(&stage, 0, move |view| is_there(view) && is_level(view)).await;
    sleep(Duration::from_secs(1)).await;
    own(&stage, 0, is_level).await;
    assert!(is_there(&stage.view(0)), "it is not moved back: {shard:?}");
}
