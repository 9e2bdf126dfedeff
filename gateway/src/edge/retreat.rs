//! A node that the cluster wants to give up what it has sends its subscribers away, spread over time, and takes no others until it
//! is to take part again: as long as another node could have them.
//!
//! It does not stop the node: what it owns is answered as before until it has moved.

use super::{LaneCommand, LaneHandle};
use crate::control::View;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// Runs for as long as there are views.
pub(super) async fn follow(lane: LaneHandle, mut view: watch::Receiver<Arc<View>>) {
    let mut away = false;
    loop {
        let wanted = is_to_retreat(&view.borrow_and_update());
        if wanted != away {
            away = wanted;
            lane.send(if away {
                // Nobody waits until they are gone.
                LaneCommand::Drain {
                    reply: oneshot::channel().0,
                }
            } else {
                LaneCommand::TakePart
            });
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the node drains and another one that lives holds subscribers.
fn is_to_retreat(view: &View) -> bool {
    let mut others = view.map.nodes().filter(|(node, _)| *node != view.me.node);
    let better = others.any(|(node, known)| {
        let alive = view.peers.get(&node).is_some_and(|peer| peer.alive);
        alive && known.info.roles.edge && !known.draining
    });
    view.is_draining() && better
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Peer;
    use std::collections::{BTreeMap, BTreeSet};
    use tidings_protocol::{ClusterId, NodeId, ShardCount, Version};
    use tidings_router::control::command::Command;
    use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

    fn process(node: u64) -> Process {
        Process {
            node: NodeId(node),
            incarnation: 1,
        }
    }

    /// This node is the first of two.
    fn view(draining: &[u64], other_lives: bool, other_is_edge: bool) -> View {
        let mut map = Map::new(ClusterId(1), ShardCount::new(1).expect("one"), 1);
        for node in [1, 2] {
            let info = NodeInfo {
                roles: Roles {
                    owner: true,
                    edge: node == 1 || other_is_edge,
                },
                zone: String::new(),
                peer_address: String::new(),
                client_address: String::new(),
            };
            let process = process(node);
            map.apply(&Command::Register { process, info }).expect("registered");
        }
        for &node in draining {
            let (node, draining) = (NodeId(node), true);
            map.apply(&Command::Drain { node, draining }).expect("drained");
        }
        let other = Peer {
            process: process(2),
            name: String::new(),
            address: ([127, 0, 0, 1], 1).into(),
            client_url: String::new(),
            alive: other_lives,
        };
        View {
            me: process(1),
            map: Arc::new(map),
            until_us: 0,
            ceiling: Version::ZERO,
            confirmed: true,
            peers: Arc::new(BTreeMap::from([(NodeId(2), other)])),
            leader: None,
            voters: BTreeSet::new(),
        }
    }

    #[test]
    fn subscribers_are_sent_away_while_the_node_drains_and_somebody_else_could_have_them() {
        assert!(is_to_retreat(&view(&[1], true, true)));
        for stays in [
            view(&[], true, true),
            view(&[2], true, true),
            view(&[1, 2], true, true),
            view(&[1], false, true),
            view(&[1], true, false),
        ] {
            assert!(!is_to_retreat(&stays), "{stays:?}");
        }
    }

    #[tokio::test]
    async fn the_lane_is_told_once_each_way() {
        let (lane, mut told) = super::super::channel();
        let (shown, seen) = watch::channel(Arc::new(view(&[], true, true)));
        let following = tokio::spawn(follow(lane, seen));
        for draining in [&[1][..], &[1], &[], &[], &[1]] {
            shown.send_replace(Arc::new(view(draining, true, true)));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        drop(shown);
        following.await.expect("it ends with the views");
        let mut said = Vec::new();
        while let Ok(command) = told.commands.try_recv() {
            said.push(matches!(command, LaneCommand::Drain { .. }));
        }
        assert_eq!(said, [true, false, true]);
    }
}
