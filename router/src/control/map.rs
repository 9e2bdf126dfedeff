//! The replicated map: which processes there are, who owns which shard, and up to where versions may go.
//!
//! It changes only by [`crate::control::command::Command`]s, the same on every node. It does not know time, who is alive,
//! or what should be: only what was agreed.

use crate::access::Revocations;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ClusterId, Epoch, NodeId, ShardCount, ShardId, Version};

/// The most copies of a shard that may be asked for, its owner's among them.
pub const MOST_COPIES: u8 = 3;

/// The most nodes of a cluster.
pub const MOST_NODES: usize = 4096;

/// One life of a node. A node that restarts is another process: it owns nothing and is in sync with nothing (rule R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The node.
    pub node: NodeId,
    /// Higher with each start of the node.
    pub incarnation: u64,
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// It may own shards and hold copies.
    pub owner: bool,
    /// It holds subscribers.
    pub edge: bool,
}

/// What others must know of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// What it is there for.
    pub roles: Roles,
    /// Where it stands: copies of a shard are spread over zones. Empty: says nothing.
    pub zone: String,
    /// Where other nodes reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port` or a URL. Empty: nowhere.
    pub client_address: String,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its present life.
    pub incarnation: u64,
    /// What it said of itself.
    pub info: NodeInfo,
    /// It is to give up what it holds, and gets nothing new.
    pub draining: bool,
}

/// What was agreed about one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Counts its owners. Zero: nobody ever owned it.
    pub epoch: Epoch,
    /// Who gives versions. `None` only in epoch zero.
    pub owner: Option<Process>,
    /// No version of this epoch is below.
    pub begins: Version,
    /// Below this version nobody can vouch for the shard. Never falls (rule R7).
    pub floor: Version,
    /// Why the floor is where it is.
    pub cause: FloorCause,
    /// Who else has everything that was acknowledged, in order. May name processes that are gone: their disks may still
    /// hold it.
    pub in_sync: Vec<Process>,
    /// Who is on the way to be in sync, in order.
    pub filling: Vec<Process>,
    /// To whom the owner should hand over as soon as that one is in sync.
    pub moving: Option<Process>,
    /// Counts what was agreed about epoch, copies and moves. A process may be taken out and brought level again in one epoch: a
    /// late word about its first time must not count for its second.
    pub turn: u64,
    /// Where an operator put it: while it is there, it does not move for the sake of even shares.
    #[serde(default)]
    pub pinned: Option<NodeId>,
}

impl Shard {
    fn unowned() -> Self {
        Self {
            epoch: Epoch(0),
            owner: None,
            begins: Version::ZERO,
            floor: Version::ZERO,
            cause: FloorCause::Lost,
            in_sync: Vec::new(),
            filling: Vec::new(),
            moving: None,
            turn: 0,
            pinned: None,
        }
    }

    /// Whether any process of the node owns it, has a copy or is getting one.
    #[must_use]
    pub fn involves(&self, node: NodeId) -> bool {
        let mut all = self.owner.iter().chain(&self.in_sync).chain(&self.filling);
        all.any(|process| process.node == node)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    cluster: ClusterId,
    pub(super) revision: u64,
    pub(super) ceiling: Version,
    pub(super) copies: u8,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) shards: Vec<Shard>,
    /// Absent in maps of before there were any.
    #[serde(default)]
    pub(super) revocations: Revocations,
}

impl Map {
    /// The map of a cluster that was just created: no nodes, no owners. `copies` is brought into 1 to [`MOST_COPIES`].
    #[must_use]
    pub fn new(cluster: ClusterId, shards: ShardCount, copies: u8) -> Self {
        Self {
            cluster,
            revision: 0,
            ceiling: Version::ZERO,
            copies: copies.clamp(1, MOST_COPIES),
            nodes: BTreeMap::new(),
            shards: shards.all().map(|_| Shard::unowned()).collect(),
            revocations: Revocations::default(),
        }
    }

    /// Which cluster it is of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Counts what changed about nodes and shards.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// No version above this one was ever allowed.
    #[must_use]
    pub fn ceiling(&self) -> Version {
        self.ceiling
    }

    /// How many copies a shard should have, its owner's among them.
    #[must_use]
    pub fn copies(&self) -> u8 {
        self.copies
    }

    /// Which tokens count no more.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        (0..).map(ShardId).zip(&self.shards)
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(id.0))
    }

    /// Whether this is the present life of a known node.
    #[must_use]
    pub fn is_current(&self, process: Process) -> bool {
        let node = self.nodes.get(&process.node);
        node.is_some_and(|node| node.incarnation == process.incarnation)
    }

    /// Whether the node has started again since, which proves that this process is no more: both would need the node's
    /// data directory, which one process locks.
    #[must_use]
    pub fn is_superseded(&self, process: Process) -> bool {
        let node = self.nodes.get(&process.node);
        node.is_some_and(|node| node.incarnation > process.incarnation)
    }

    /// Says what is wrong with the map, for tests and for a snapshot that comes from elsewhere.
    ///
    /// # Errors
    /// Names the shard and the rule it breaks.
    pub fn check(&self) -> Result<(), String> {
        if ShardCount::new(u16::try_from(self.shards.len()).unwrap_or(0)).is_none() {
            return Err(format!("{} shards are no power of two up to 4,096", self.shards.len()));
        }
        for (id, shard) in self.shards() {
            let mut nodes: Vec<NodeId> = shard.owner.iter().chain(&shard.in_sync).map(|p| p.node).collect();
            nodes.extend(shard.filling.iter().map(|p| p.node));
            nodes.sort_unstable();
            let count = nodes.len();
            nodes.dedup();
            let rules = [
                (nodes.len() == count, "a node has one part in it"),
                (
                    shard.owner.is_some() == (shard.epoch.0 > 0),
                    "it has an owner since its first epoch",
                ),
                (shard.floor <= shard.begins.max(self.ceiling), "its floor is a version"),
                (
                    shard.begins.before() <= self.ceiling,
                    "it begins at most above the ceiling",
                ),
                (
                    shard.in_sync.is_sorted() && shard.filling.is_sorted(),
                    "copies are in order",
                ),
            ];
            if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
                return Err(format!("shard {id}: not so: {rule}"));
            }
        }
        Ok(())
    }
}
