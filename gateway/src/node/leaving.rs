//! A node of a cluster that is about to stop first gives up what it has: others take its shards over by handing over, so
//! that no publish fails and nobody has to fetch again.
//!
//! It decides nothing about the cluster: it says that this node drains, and waits. If nobody could take anything, or it takes too
//! long, the node stops all the same; then the others find out by themselves.

use super::Node;
use crate::control::View;
use std::sync::Arc;
use std::time::Duration;
use tidings_router::control::command::Command;

/// A proposal waits at most so long, and what is left is looked at so often if nothing changes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until the node is asked to leave, leaves, and lets it drain.
pub(super) async fn leave_then_drain(node: Arc<Node>) {
    // Pending for ever if the node ends otherwise.
    if node.leaving.subscribe().wait_for(|leaving| *leaving).await.is_err() {
        return;
    }
    let most = Duration::from_millis(node.live().drain.leave_ms);
    if most > Duration::ZERO && tokio::time::timeout(most, leave(&node)).await.is_err() {
        let left = node.control.as_ref().map_or(0, |control| held(&control.view()));
        tracing::warn!(
            left,
            "this node stops although others do not have all of its shards yet"
        );
    }
    node.draining.send_replace(true);
}

async fn leave(node: &Node) {
    let Some(control) = &node.control else { return };
    let mut view = control.watch();
    let begun = held(&view.borrow());
    while held(&view.borrow_and_update()) > 0 {
        let seen = Arc::clone(&view.borrow());
        if !can_be_taken(&seen) {
            return;
        }
        if !seen.map.node(seen.me.node).is_none_or(|known| known.draining) {
            let drain = Command::Drain {
                node: seen.me.node,
                draining: true,
            };
            // Tried again if nobody leads just now.
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, control.propose(drain)).await {
                tracing::debug!(%error, "the cluster does not know yet that this node leaves");
            }
        }
        _ = tokio::time::timeout(PATIENCE, view.changed()).await;
    }
    if begun > 0 {
        tracing::info!(shards = begun, "others have taken over what this node had");
    }
}

/// In how many shards this process has a part that counts.
fn held(view: &View) -> usize {
    let has_part =
        |shard: &tidings_router::control::map::Shard| shard.owner == Some(view.me) || shard.in_sync.contains(&view.me);
    view.map.shards().filter(|(_, shard)| has_part(shard)).count()
}

/// Whether anybody is there who could take a shard over.
fn can_be_taken(view: &View) -> bool {
    let mut others = view.map.nodes().filter(|(node, _)| *node != view.me.node);
    others.any(|(node, known)| {
        let alive = view.peers.get(&node).is_some_and(|peer| peer.alive);
        alive && known.info.roles.owner && !known.draining
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Peer;
    use std::collections::{BTreeMap, BTreeSet};
    use tidings_protocol::{ClusterId, NodeId, ShardCount, ShardId, Version};
    use tidings_router::control::command::{Seen, With};
    use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

    fn process(node: u64) -> Process {
        Process {
            node: NodeId(node),
            incarnation: 1,
        }
    }

    /// Node 1 of two owns the only shard; node 2 is as told.
    fn view(owner: bool, draining: bool, alive: bool) -> View {
        let mut map = Map::new(ClusterId(1), ShardCount::new(1).unwrap(), 2);
        for node in 1..=2 {
            let info = NodeInfo {
                roles: Roles {
                    owner: owner || node == 1,
                    edge: true,
                },
                zone: String::new(),
                peer_address: String::new(),
                client_address: String::new(),
            };
            let process = process(node);
            map.apply(&Command::Register { process, info }).unwrap();
        }
        let seen = Seen::of(&map, ShardId(0)).unwrap();
        let (to, with) = (process(1), With::Fresh);
        map.apply(&Command::Assign { seen, to, with }).unwrap();
        if draining {
            let (node, draining) = (NodeId(2), true);
            map.apply(&Command::Drain { node, draining }).unwrap();
        }
        let peer = Peer {
            process: process(2),
            name: String::new(),
            address: "127.0.0.1:1".parse().unwrap(),
            client_url: String::new(),
            alive,
        };
        View {
            me: process(1),
            map: Arc::new(map),
            until_us: 0,
            ceiling: Version::ZERO,
            confirmed: true,
            peers: Arc::new(BTreeMap::from([(NodeId(2), peer)])),
            leader: None,
            voters: BTreeSet::new(),
        }
    }

    #[test]
    fn what_is_owned_is_waited_for_only_while_somebody_could_take_it() {
        assert_eq!(held(&view(true, false, true)), 1);
        assert!(can_be_taken(&view(true, false, true)));
        assert!(!can_be_taken(&view(false, false, true)), "it owns no shards");
        assert!(!can_be_taken(&view(true, true, true)), "it leaves as well");
        assert!(!can_be_taken(&view(true, false, false)), "it is dead");
    }
}
