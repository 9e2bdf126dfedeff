//! What the leader looks after beside the map: who votes, who is forgotten, whose log went back; and that a leader that drains
//! hands its office on.
//!
//! Who should vote is the word of [`super::voters`]. It does not know shards, beyond that nobody is forgotten who has some.

use super::plane::{Part, Plane};
use super::voters::{self, Electorate};
use super::words::Request;
use crate::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidings_consensus::Proposal;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Class;
use tidings_router::MonoUs;
use tidings_router::control::command::Command;

/// It is looked so often.
const EVERY: Duration = Duration::from_secs(1);
/// Who follows the log, is not there and not in the map, is forgotten after so long at most.
const UNKNOWN: Duration = Duration::from_secs(10);
/// A node whose log went back is told so again after so many looks.
const TELL_AGAIN: u32 = 5;
/// An answer to that may take so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How far the log has surely come is kept beside the node's name so often.
const MARK_EVERY: Duration = Duration::from_secs(10);

/// Whether a node is to give up what it has.
fn drains(part: &Part, node: NodeId) -> bool {
    let applied = part.consensus.applied();
    let applied = applied.borrow();
    applied.map.node(node).is_some_and(|node| node.draining)
}

/// Hands the office on, if somebody could have it. Whether somebody could.
async fn step_down(plane: &Plane, part: &Part) -> bool {
    let roll = Arc::clone(&plane.roll.borrow());
    let voters = part.consensus.standing().voters;
    let could = |voter: &&NodeId| **voter != plane.me.node && roll.alive.contains_key(voter) && !drains(part, **voter);
    let Some(heir) = voters.iter().find(could) else {
        return false;
    };
    tracing::info!(%heir, "this node drains: another one is to lead the cluster's log");
    if let Err(error) = part.consensus.hand_over(*heir).await {
        tracing::debug!(%error, "the leadership could not be handed on");
    }
    true
}

/// Says who lost what it had acknowledged, here and to that node. `told`: in how many looks it is told again.
fn tell_who_went_back(plane: &Arc<Plane>, part: &Part, told: &mut BTreeMap<NodeId, u32>) {
    let roll = Arc::clone(&plane.roll.borrow());
    let mut went_back = part.consensus.went_back().borrow().clone();
    // Who has ended needs not be told.
    went_back.retain(|node, _| roll.alive.contains_key(node));
    told.retain(|node, _| went_back.contains_key(node));
    for (node, entries) in went_back {
        let looks = told.entry(node).or_insert(0);
        if *looks > 0 {
            *looks -= 1;
            continue;
        }
        *looks = TELL_AGAIN;
        tracing::error!(
            %node,
            entries,
            "a node's part of the cluster's log is older than what it had acknowledged: was its data directory put back from a copy? \
             It gets nothing more, and is to join under another name"
        );
        let (plane, cluster) = (Arc::clone(plane), part.founding.cluster);
        let Some(address) = plane.address_of(part, node) else {
            continue;
        };
        tokio::spawn(async move {
            let request = Request::WentBack { cluster, entries };
            let answer = plane
                .lines
                .ask((node, &address), Class::Control, request, PATIENCE)
                .await;
            tracing::debug!(%node, ?answer, "a node whose log went back was told so");
        });
    }
}

/// Keeps how far the log has surely come, so that an older copy of it is known as one.
pub(super) async fn mark(plane: Arc<Plane>, part: Part) {
    loop {
        tokio::time::sleep(MARK_EVERY).await;
        mark_now(&plane, &part).await;
    }
}

/// The same once.
pub(super) async fn mark_now(plane: &Arc<Plane>, part: &Part) {
    let entries = part.consensus.applied().borrow().entries;
    let desk = Arc::clone(plane);
    let marked = tokio::task::spawn_blocking(move || desk.desk.blocking_lock().seat.mark(entries)).await;
    if let Ok(Err(error)) = marked {
        plane.fail(format!("the data directory fails: {error}"));
    }
}

/// Runs for as long as this node is part of the cluster.
pub(super) async fn run(plane: Arc<Plane>, part: Part) {
    let (mut missing, mut gone, mut told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    loop {
        tokio::time::sleep(EVERY).await;
        if !part.consensus.office().borrow().ours {
            missing.clear();
            gone.clear();
            told.clear();
            continue;
        }
        tell_who_went_back(&plane, &part, &mut told);
        if drains(&part, plane.me.node) && step_down(&plane, &part).await {
            continue;
        }
        let now = electorate(&plane, &part, &mut missing);
        forget(&plane, &part, &mut gone).await;
        let Some(voters) = voters::plan(&now) else { continue };
        let names: Vec<String> = voters.iter().map(ToString::to_string).collect();
        match part.consensus.set_voters(voters, true).await {
            Ok(()) => tracing::info!(voters = names.join(", "), "other nodes vote now"),
            Err(error) => tracing::warn!(%error, "the voters could not be changed"),
        }
    }
}

/// `missing`: since when a voter is not held alive, as far as this leader knows.
fn electorate(plane: &Plane, part: &Part, missing: &mut BTreeMap<NodeId, MonoUs>) -> Electorate {
    let standing = part.consensus.standing();
    let roll = Arc::clone(&plane.roll.borrow());
    let now_us = clock::mono_us();
    let patience_us = u64::try_from(plane.settings.replace_voter.as_micros()).unwrap_or(u64::MAX);
    let others = standing.voters.iter().filter(|voter| **voter != plane.me.node);
    let dead: BTreeSet<NodeId> = others
        .filter(|voter| !roll.alive.contains_key(voter))
        .copied()
        .collect();
    missing.retain(|voter, _| dead.contains(voter));
    for voter in &dead {
        missing.entry(*voter).or_insert(now_us);
    }
    let lost = missing
        .iter()
        .filter(|(_, since_us)| now_us.saturating_sub(**since_us) >= patience_us);
    let willing = roll.alive.values().filter(|peer| {
        let ours = peer
            .metadata
            .formed
            .is_some_and(|formed| formed.0 == part.founding.cluster);
        let learns = standing.learners.contains(&peer.node);
        ours && peer.metadata.roles.voter && !peer.node.is_edge() && learns && !drains(part, peer.node)
    });
    let mut willing: BTreeSet<_> = willing.map(|peer| peer.node).collect();
    let me = plane.me.node;
    if plane.settings.voter && !me.is_edge() && standing.learners.contains(&me) && !drains(part, me) {
        willing.insert(me);
    }
    Electorate {
        willing,
        lost: lost.map(|(voter, _)| *voter).collect(),
        leaving: standing
            .voters
            .iter()
            .copied()
            .filter(|voter| drains(part, *voter))
            .collect(),
        dead,
        wanted: plane.settings.expect.clamp(3, 5),
        voters: standing.voters,
    }
}

/// Forgets nodes that are gone for long and hold nothing: who starts with an empty data directory is another node each
/// time. `gone`: since when, as far as this leader knows.
async fn forget(plane: &Arc<Plane>, part: &Part, gone: &mut BTreeMap<NodeId, MonoUs>) {
    let roll = Arc::clone(&plane.roll.borrow());
    let map = Arc::clone(&part.consensus.applied().borrow().map);
    let standing = part.consensus.standing();
    let now_us = clock::mono_us();
    let learners = standing.learners.iter().copied();
    let known: BTreeSet<NodeId> = map.nodes().map(|(node, _)| node).chain(learners).collect();
    let absent = |node: &NodeId| *node != plane.me.node && !roll.alive.contains_key(node);
    gone.retain(|node, _| known.contains(node) && absent(node));
    for node in known.into_iter().filter(absent) {
        gone.entry(node).or_insert(now_us);
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let patience_us = |node: NodeId| match map.node(node) {
        Some(_) => micros(plane.settings.forget_node),
        // It was removed, or never said who it is.
        None => micros(plane.settings.forget_node.min(UNKNOWN)),
    };
    let holds = |node: NodeId| map.shards().any(|(_, shard)| shard.involves(node));
    let due = gone.iter().find(|(node, since_us)| {
        let long = now_us.saturating_sub(**since_us) >= patience_us(**node);
        long && !standing.voters.contains(node) && !holds(**node)
    });
    let Some((&node, _)) = due else { return };
    let done = if map.node(node).is_some() {
        let commands = vec![Command::Forget { node }];
        part.consensus
            .propose(Proposal { term: None, commands })
            .await
            .map(drop)
    } else {
        part.consensus.remove_learners(BTreeSet::from([node])).await
    };
    match done {
        Ok(()) => tracing::info!(%node, "a node that is gone for long is forgotten"),
        Err(error) => tracing::debug!(%node, %error, "a node that is gone could not be forgotten"),
    }
}
