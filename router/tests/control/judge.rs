//! What must hold in the control world, looked at from outside.

use crate::nodes::name;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, NodeId, ShardId, Version};

impl World {
    /// Every version of an epoch is above all of older ones, at whatever time either is given (I8).
    pub fn judge_version(&mut self, at: usize, id: ShardId, epoch: Epoch, version: Version) {
        let who = name(NodeId(at as u64));
        for ((_, other), highest) in self.highest.range((id, Epoch(0))..=(id, Epoch(u64::MAX))) {
            let fine = if *other <= epoch {
                version > *highest
            } else {
                version < *highest
            };
            assert!(
                fine,
                "{who} gives {version} in {epoch} of shard {id}, epoch {other} gave {highest}"
            );
        }
        let begins = self
            .truth
            .shard(id)
            .filter(|shard| shard.epoch > epoch)
            .map(|shard| shard.begins);
        assert!(
            begins.is_none_or(|begins| version < begins),
            "{who} gives {version} of an old epoch of shard {id} above where the next begins"
        );
        assert!(version <= self.truth.ceiling(), "above the ceiling");
        self.highest.insert((id, epoch), version);
    }

    /// Nobody acknowledges in an old epoch once a newer one did (P5), or once the shard was given away empty.
    pub fn judge_ack(&mut self, at: usize, id: ShardId, epoch: Epoch) {
        let newest = self.first_ack.entry(id).or_default();
        let who = name(NodeId(at as u64));
        assert!(
            epoch >= *newest,
            "{who} acknowledges in {epoch} of shard {id} after {newest} did"
        );
        *newest = epoch;
        let emptied = self.emptied.get(&id).copied().unwrap_or_default();
        assert!(
            epoch >= emptied,
            "{who} acknowledges in {epoch} after shard {id} was given away in {emptied}"
        );
    }

    /// What was acknowledged is with the owner, or below the floor (P1), wherever an owner could answer now.
    pub fn judge_loss(&self) {
        for ((id, object), version) in &self.acked {
            let shard = self.truth.shard(*id).unwrap();
            let owner = shard.owner.unwrap();
            let node = &self.nodes[owner.node.0 as usize];
            let holding = &node.holdings[usize::from(id.0)];
            if node.process != owner || holding.epoch != shard.epoch {
                continue;
            }
            let kept = holding.store.get(object).is_some_and(|kept| kept >= version);
            assert!(
                kept || *version < shard.floor,
                "{} owns shard {id} in {}, but {version} of object {object} is lost (it has {:?}, floor {})",
                name(owner.node),
                shard.epoch,
                holding.store.get(object),
                shard.floor
            );
        }
    }

    /// After healing: every shard has a live owner and its copies, shares are even, and everybody holds the same map.
    pub fn judge_whole(&mut self) {
        for at in 0..self.nodes.len() {
            while self.nodes[at].applied < self.log.len() {
                self.catch_up(at);
            }
        }
        let mut owned = BTreeMap::new();
        let wanted = usize::from(self.truth.copies()).min(self.nodes.len()) - 1;
        for (id, shard) in self.truth.shards() {
            let owner = shard.owner.expect("an owner");
            assert!(self.truth.is_current(owner), "shard {id} has a dead owner");
            assert_eq!(shard.in_sync.len(), wanted, "copies of shard {id}: {shard:?}");
            assert!(shard.in_sync.iter().all(|copy| self.truth.is_current(*copy)));
            *owned.entry(owner.node).or_insert(0_usize) += 1;
        }
        let counts: BTreeSet<usize> = self
            .nodes
            .iter()
            .map(|node| owned.get(&node.process.node).copied().unwrap_or(0))
            .collect();
        let (least, most) = (counts.first().unwrap(), counts.last().unwrap());
        assert!(most - least <= 1, "uneven: {owned:?}");
        for node in &self.nodes {
            assert_eq!(node.map, self.truth, "{} holds another map", name(node.process.node));
        }
    }

    /// An empty start is only ever told as a loss.
    pub fn judge_causes(&self) {
        for (id, shard) in self.truth.shards() {
            assert!(
                shard.floor == Version::ZERO || shard.cause == FloorCause::Lost,
                "shard {id}"
            );
        }
    }
}
