//! A node that the cluster wants to give up what it has, or that is cut off, sends its subscribers away, spread over time, and takes
//! no others until it is to take part again: as long as another node could have them.
//!
//! It does not stop the node: what it owns is answered as before until it has moved. It does not decide whether the node is cut off.

use super::{LaneCommand, LaneHandle};
use crate::control::View;
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_router::cut_off::Elsewhere;
use tidings_router::edge::Leave;
use tokio::sync::watch;

/// How those leave whose node is about to stop.
pub(super) fn drain() -> Leave {
    Leave {
        code: CloseCode::Drain,
        reason: "drain",
        to: Elsewhere::default(),
    }
}

/// How those leave whose node is cut off.
fn cut_off(to: &Elsewhere) -> Leave {
    Leave {
        code: CloseCode::CutOff,
        reason: "cut_off",
        to: Arc::clone(to),
    }
}

/// Runs for as long as there are views.
pub(super) async fn follow(
    lane: LaneHandle,
    mut view: watch::Receiver<Arc<View>>,
    mut elsewhere: watch::Receiver<Option<Elsewhere>>,
) {
    let mut away = None;
    loop {
        let wanted = if is_to_retreat(&view.borrow_and_update()) {
            Some(drain())
        } else {
            elsewhere.borrow_and_update().as_ref().map(cut_off)
        };
        if wanted != away {
            lane.send(match &wanted {
                Some(leave) => LaneCommand::SendAway(leave.clone()),
                None => LaneCommand::TakePart,
            });
            away = wanted;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            // Without its sender the node is gone.
            changed = elsewhere.changed() => if changed.is_err() { return },
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
        let (sent, away) = watch::channel(None);
        let following = tokio::spawn(follow(lane, seen, away));
        let there: Elsewhere = Arc::new(["http://b".into()]);
        for (draining, elsewhere) in [
            (&[1][..], None),
            (&[1], None),
            (&[], None),
            (&[], None),
            (&[], Some(&there)),
            (&[1], Some(&there)),
            (&[], None),
        ] {
            sent.send_replace(elsewhere.cloned());
            shown.send_replace(Arc::new(view(draining, true, true)));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        drop(shown);
        following.await.expect("it ends with the views");
        let mut said = Vec::new();
        while let Ok(command) = told.commands.try_recv() {
            said.push(match command {
                LaneCommand::SendAway(leave) => (leave.reason, leave.to.len()),
                _ => ("", 0),
            });
        }
        assert_eq!(said, [("drain", 0), ("", 0), ("cut_off", 1), ("drain", 0), ("", 0)]);
    }
}
