//! Where a shard's owner is, by the newest view of this node. It may be wrong: then the owner says so.

use crate::control::{self, View};
use crate::node::Node;
use crate::owner::Inspection;
use tidings_protocol::mesh::Known;
use tidings_protocol::{NodeId, ObjectHash, ShardId};
use tokio::time::Instant;

/// Who gives versions for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The owner on this thread of this node.
    Local(usize),
    /// An owner of this node.
    Remote(NodeId),
    /// Nobody as far as is known.
    Nobody,
}

/// The way to the owner of a shard. `threads`: how many owners this node has.
#[must_use]
pub fn route(view: &View, threads: usize, shard: ShardId) -> Route {
    let owner = view.map.shard(shard).and_then(|shard| shard.owner);
    match owner {
        Some(owner) if owner == view.me => match usize::from(shard.0).checked_rem(threads) {
            Some(thread) => Route::Local(thread),
            None => Route::Nobody,
        },
        // An older life of this node, or a node that has started again: it owns nothing now.
        Some(owner) if owner.node == view.me.node || view.map.is_superseded(owner) => Route::Nobody,
        Some(owner) => Route::Remote(owner.node),
        None => Route::Nobody,
    }
}

/// What is known of an object, and who knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node that answered; `None` for this one.
    pub node: Option<NodeId>,
    /// What it knows.
    pub known: Known,
}

impl Node {
    /// What people call a node; `None`: this one.
    #[must_use]
    pub fn name_of(&self, node: Option<NodeId>) -> String {
        let Some(node) = node else { return self.name.clone() };
        let view = self.control.as_ref().map(control::Handle::view);
        let known = view.and_then(|view| Some(view.peers.get(&node)?.name.clone()));
        known
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| node.to_string())
    }

    /// Asks the owner of an object, wherever it is, what it knows. `lane`: one of this node's; whether it is interested is
    /// part of the answer. `None` if there is no owner, or none that answers in time.
    pub async fn inspect(&self, object: ObjectHash, lane: Option<usize>, deadline: Instant) -> Option<Found> {
        let shard = self.shards.shard(object);
        let route = match &self.control {
            Some(control) => route(&control.view(), self.owners.len(), shard),
            None => Route::Local(self.owner_of(object)),
        };
        match (route, &self.peers) {
            (Route::Local(thread), _) => {
                let owner = self.owners.get(thread)?;
                let inspection = tokio::time::timeout_at(deadline, owner.inspect(object)).await.ok()??;
                Some(Found {
                    node: None,
                    known: known(&inspection, lane)?,
                })
            }
            (Route::Remote(node), Some(peers)) => {
                let known = peers.inspect(node, object, lane, deadline).await?;
                Some(Found {
                    node: Some(node),
                    known,
                })
            }
            (Route::Remote(_) | Route::Nobody, _) => None,
        }
    }
}

/// What an owner of this node knows, if it owns the shard. `link`: whether it is interested is part of the answer.
pub(super) fn known(inspection: &Inspection, link: Option<usize>) -> Option<Known> {
    Some(Known {
        version: inspection.version,
        epoch: inspection.epoch?,
        floor: inspection.floor,
        watchers: u32::try_from(inspection.watchers.len()).unwrap_or(u32::MAX),
        interested: link.is_some_and(|link| inspection.watchers.contains(&link)),
    })
}
