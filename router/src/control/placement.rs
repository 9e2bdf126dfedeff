//! Where shards should be: even over the nodes that may have them, copies of one shard in different zones where nodes name
//! zones, and as little movement as that takes.
//!
//! Pure functions of the map and of who may be used. They do not know who is alive or what is under way elsewhere.

use super::map::{Map, Process, Shard};
use std::collections::BTreeMap;
use tidings_protocol::{NodeId, ShardId};

/// What one node bears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Load {
    incarnation: u64,
    zone: String,
    owned: usize,
    copies: usize,
}

/// Who may be used, and what each bears. Changes as plans are made, so that one round of plans is even in itself.
#[derive(Clone, Debug)]
pub struct Loads {
    nodes: BTreeMap<NodeId, Load>,
}

impl Loads {
    /// What these processes bear according to the map. A shard that moves counts where it goes.
    #[must_use]
    pub fn new(map: &Map, usable: impl IntoIterator<Item = Process>) -> Self {
        let load = |process: Process| {
            let zone = map
                .node(process.node)
                .map_or_else(String::new, |node| node.info.zone.clone());
            let load = Load {
                incarnation: process.incarnation,
                zone,
                ..Load::default()
            };
            (process.node, load)
        };
        let mut loads = Self {
            nodes: usable.into_iter().map(load).collect(),
        };
        for (_, shard) in map.shards() {
            if let Some(owner) = shard.moving.or(shard.owner) {
                loads.add_owned(owner.node);
            }
            for copy in shard.in_sync.iter().chain(&shard.filling) {
                if let Some(load) = loads.nodes.get_mut(&copy.node) {
                    load.copies += 1;
                }
            }
        }
        loads
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nobody may be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn add_owned(&mut self, node: NodeId) {
        if let Some(load) = self.nodes.get_mut(&node) {
            load.owned += 1;
        }
    }

    fn process(&self, node: NodeId) -> Process {
        Process {
            node,
            incarnation: self.nodes[&node].incarnation,
        }
    }

    /// The one among `among` that owns least, which from now on counts as owner of one more.
    pub fn take_owner(&mut self, among: impl Fn(Process) -> bool) -> Option<Process> {
        let usable = self.nodes.keys().map(|node| self.process(*node)).filter(|p| among(*p));
        let process = usable.min_by_key(|process| (self.nodes[&process.node].owned, process.node))?;
        self.add_owned(process.node);
        Some(process)
    }

    /// Who should get the next copy of a shard: in a zone that has none, and then the one that bears least.
    pub fn take_copy(&mut self, map: &Map, shard: &Shard) -> Option<Process> {
        let zone_of = |node: NodeId| map.node(node).map_or("", |node| node.info.zone.as_str());
        let parts = || shard.owner.iter().chain(&shard.in_sync).chain(&shard.filling);
        let free = self.nodes.iter().filter(|(node, _)| !shard.involves(**node));
        let (node, _) = free.min_by_key(|(node, load)| {
            let same_zone = parts().filter(|part| zone_of(part.node) == load.zone).count();
            (same_zone, load.owned + load.copies, **node)
        })?;
        let process = self.process(*node);
        self.nodes.get_mut(&process.node)?.copies += 1;
        Some(process)
    }

    /// Which of these should give a copy up: the one that bears most.
    #[must_use]
    pub fn most_laden(&self, among: impl IntoIterator<Item = Process>) -> Option<Process> {
        let bears = |process: &Process| {
            self.nodes
                .get(&process.node)
                .map_or(usize::MAX, |load| load.owned + load.copies)
        };
        among.into_iter().max_by_key(|process| (bears(process), process.node))
    }

    /// A copy was given up.
    pub fn give_up_copy(&mut self, node: NodeId) {
        if let Some(load) = self.nodes.get_mut(&node) {
            load.copies = load.copies.saturating_sub(1);
        }
    }

    /// The next shard of which another node should have a copy instead of one that bears two more, and which: as even as owners
    /// are, and no zone worse off.
    pub fn take_copy_move(
        &mut self,
        map: &Map,
        movable: impl Fn(ShardId, &Shard) -> bool,
    ) -> Option<(ShardId, Process)> {
        let bears = |node: &NodeId| self.nodes.get(node).map(|load| load.owned + load.copies);
        let (least, least_bears) = self
            .nodes
            .keys()
            .filter_map(|node| Some((*node, bears(node)?)))
            .min_by_key(|(node, bears)| (*bears, *node))?;
        let zone_of = |node: NodeId| map.node(node).map_or("", |node| node.info.zone.as_str());
        let may = |shard: &Shard| {
            let laden = self.most_laden(shard.in_sync.iter().copied());
            let laden = laden.filter(|laden| bears(&laden.node).is_some_and(|bears| bears >= least_bears + 2));
            laden.is_some_and(|laden| {
                let others = || {
                    shard
                        .owner
                        .iter()
                        .chain(&shard.in_sync)
                        .filter(|other| **other != laden)
                };
                let shared = |node: NodeId| others().filter(|other| zone_of(other.node) == zone_of(node)).count();
                !shard.involves(least) && shared(least) <= shared(laden.node)
            })
        };
        let (id, shard) = map.shards().find(|(id, shard)| movable(*id, shard) && may(shard))?;
        let laden = self.most_laden(shard.in_sync.iter().copied())?;
        let to = self.process(least);
        self.give_up_copy(laden.node);
        self.nodes.get_mut(&least)?.copies += 1;
        Some((id, to))
    }

    /// The next shard that should move so that nobody owns two more than another, those that are pinned apart, or so that its
    /// owner, which may not be used any more, owns nothing. Prefers a target that is in sync already.
    pub fn take_move(&mut self, map: &Map, movable: impl Fn(ShardId, &Shard) -> bool) -> Option<(ShardId, Process)> {
        let least = self.nodes.values().map(|load| load.owned).min()?;
        let burden = |owner: NodeId| self.nodes.get(&owner).map_or(usize::MAX, |load| load.owned);
        let candidates = map.shards().filter(|(id, shard)| {
            let owner = shard.owner.filter(|_| shard.moving.is_none());
            let stays = |owner: NodeId| shard.pinned == Some(owner) && self.nodes.contains_key(&owner);
            owner.is_some_and(|owner| burden(owner.node) >= least.saturating_add(2) && !stays(owner.node))
                && movable(*id, shard)
        });
        let is_least = |process: &&Process| {
            let load = self.nodes.get(&process.node);
            load.is_some_and(|load| load.owned == least && load.incarnation == process.incarnation)
        };
        let ready = |shard: &Shard| shard.in_sync.iter().find(is_least).copied();
        let (id, shard) = candidates.max_by_key(|(id, shard)| {
            let owner = shard.owner.map_or(0, |owner| burden(owner.node));
            (owner, ready(shard).is_some(), std::cmp::Reverse(*id))
        })?;
        let any = || {
            let mut nodes = self.nodes.iter();
            nodes
                .find(|(_, load)| load.owned == least)
                .map(|(node, _)| self.process(*node))
        };
        let to = ready(shard).or_else(any)?;
        let from = shard.owner?.node;
        if let Some(load) = self.nodes.get_mut(&from) {
            load.owned -= 1;
        }
        self.add_owned(to.node);
        Some((id, to))
    }
}
