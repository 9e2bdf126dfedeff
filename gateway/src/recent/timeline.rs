//! What became of nodes and shards, told apart by comparing two pictures of the cluster.
//!
//! A failover is many commands of the map; what belongs together becomes one line that grows. It does not know where
//! pictures come from.

mod words;

pub(super) use words::Weight;

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidings_protocol::{Epoch, NodeId, ShardId, Version};
use tidings_router::control::map::{Map, Process};

/// A line grows as long as more of the same comes within this time.
const TOGETHER_MS: u64 = 15_000;
/// So many lines back it is looked for what belongs together.
const LOOK_BACK: usize = 24;
/// Shards that a line names.
const NAMED: usize = 64;

/// A node in a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeState {
    pub(super) name: String,
    pub(super) incarnation: u64,
    pub(super) alive: bool,
    pub(super) member: bool,
    pub(super) draining: bool,
    pub(super) voter: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardState {
    owner: Option<Process>,
    epoch: Epoch,
    floor: Version,
    in_sync: Vec<Process>,
    filling: Vec<Process>,
    moving: Option<Process>,
}

/// The cluster at one moment, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) revision: u64,
    pub(super) me: String,
    pub(super) nodes: BTreeMap<NodeId, NodeState>,
    pub(super) leader: Option<NodeId>,
    /// Whether this node may give versions; `None` if it is not there for that.
    pub(super) lease: Option<bool>,
    pub(super) shards: Vec<ShardState>,
}

impl Picture {
    /// Takes over what the map says of shards.
    pub(super) fn set_shards(&mut self, map: &Map) {
        let state = |(_, shard): (ShardId, &tidings_router::control::map::Shard)| ShardState {
            owner: shard.owner,
            epoch: shard.epoch,
            floor: shard.floor,
            in_sync: shard.in_sync.clone(),
            filling: shard.filling.clone(),
            moving: shard.moving,
        };
        self.shards = map.shards().map(state).collect();
    }

    /// Takes over what an earlier picture says of shards.
    pub(super) fn keep_shards(&mut self, earlier: &Self) {
        self.shards.clone_from(&earlier.shards);
    }

    fn name(&self, node: NodeId) -> String {
        let name = self.nodes.get(&node).map(|node| node.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| node.to_string())
    }

    /// Whether this life of the node may still be there.
    fn lives(&self, process: Process) -> bool {
        let node = self.nodes.get(&process.node);
        node.is_some_and(|node| node.alive && node.incarnation == process.incarnation)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Here the memory begins.
    Started,
    Joined,
    Removed,
    Silent,
    Back,
    Restarted,
    DrainBegan,
    DrainEnded,
    Leads,
    NoLeader,
    VoterAdded,
    VoterRemoved,
    LeaseLost,
    LeaseBack,
    /// Shards without an owner before got one.
    Assigned,
    /// Shards of a dead owner, by one who had a copy.
    TakenOver,
    /// Shards whose newest versions nobody knows any more.
    Lost,
    /// The owner is back with its disk.
    Kept,
    /// Handed over by an owner that lives.
    Moved,
    MovePlanned,
    Copying,
    CopyReady,
    CopyGone,
    /// Old versions were dropped, or others may be missing.
    FloorRaised,
}

impl Kind {
    /// Whether lines of it grow: those about shards, and what comes and goes.
    fn grows(self) -> bool {
        self >= Self::Assigned || matches!(self, Self::Silent | Self::Back | Self::LeaseLost | Self::LeaseBack)
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Higher than that of every line that began or grew before.
    pub(super) number: u64,
    /// Stays when the line grows.
    pub(super) id: u64,
    pub(super) at_ms: u64,
    pub(super) until_ms: u64,
    pub(super) kind: Kind,
    pub(super) node: Option<String>,
    /// From whom, or of whom.
    pub(super) other: Option<String>,
    /// Shards, or how many times it happened.
    pub(super) count: usize,
    /// The first shards of them.
    pub(super) shards: BTreeSet<u16>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Timeline {
    most: usize,
    events: VecDeque<Event>,
    number: u64,
}

impl Timeline {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            events: VecDeque::new(),
            number: 0,
        }
    }

    /// The lines that began or grew after this number, oldest first.
    pub(super) fn after(&self, number: u64) -> impl DoubleEndedIterator<Item = &Event> {
        // Who has heard of more than there is was told by another life of the node.
        let number = if number > self.number { 0 } else { number };
        self.events.iter().filter(move |event| event.number > number)
    }

    /// The highest number so far.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Notes what differs between two pictures; with no earlier one, that memory begins.
    pub(super) fn compare(&mut self, at_ms: u64, earlier: Option<&Picture>, now: &Picture) {
        let Some(earlier) = earlier else {
            self.note(at_ms, Kind::Started, Some(now.me.clone()), None, None);
            return;
        };
        self.compare_nodes(at_ms, earlier, now);
        if earlier.leader != now.leader {
            let kind = if now.leader.is_some() {
                Kind::Leads
            } else {
                Kind::NoLeader
            };
            self.note(at_ms, kind, now.leader.map(|leader| now.name(leader)), None, None);
        }
        if let (Some(before), Some(after)) = (earlier.lease, now.lease)
            && before != after
        {
            let kind = if after { Kind::LeaseBack } else { Kind::LeaseLost };
            self.note(at_ms, kind, Some(now.me.clone()), None, None);
        }
        if earlier.revision != now.revision {
            self.compare_shards(at_ms, earlier, now);
        }
    }

    fn compare_nodes(&mut self, at_ms: u64, earlier: &Picture, now: &Picture) {
        let none = NodeState {
            name: String::new(),
            incarnation: 0,
            alive: false,
            member: false,
            draining: false,
            voter: false,
        };
        let ids: BTreeSet<NodeId> = earlier.nodes.keys().chain(now.nodes.keys()).copied().collect();
        for id in ids {
            let before = earlier.nodes.get(&id).unwrap_or(&none);
            let after = now.nodes.get(&id).unwrap_or(&none);
            let name = if after.name.is_empty() {
                earlier.name(id)
            } else {
                now.name(id)
            };
            let new = !before.member && after.member;
            let again = before.member && after.member && after.incarnation > before.incarnation;
            let kinds = [
                (new, Kind::Joined),
                (before.member && !after.member, Kind::Removed),
                (again, Kind::Restarted),
                (
                    before.member && after.member && before.alive && !after.alive,
                    Kind::Silent,
                ),
                (before.member && !before.alive && after.alive && !again, Kind::Back),
                (!before.draining && after.draining, Kind::DrainBegan),
                (before.draining && !after.draining && after.member, Kind::DrainEnded),
                (!before.voter && after.voter, Kind::VoterAdded),
                (before.voter && !after.voter, Kind::VoterRemoved),
            ];
            for (_, kind) in kinds.into_iter().filter(|(happened, _)| *happened) {
                self.note(at_ms, kind, Some(name.clone()), None, None);
            }
        }
    }

    fn compare_shards(&mut self, at_ms: u64, earlier: &Picture, now: &Picture) {
        for (number, after) in (0_u16..).zip(&now.shards) {
            let Some(before) = earlier.shards.get(usize::from(number)) else {
                continue;
            };
            if before == after {
                continue;
            }
            let mut note = |kind, node: Process, other: Option<Process>| {
                let other = other.map(|other| now.name(other.node));
                self.note(at_ms, kind, Some(now.name(node.node)), other, Some(number));
            };
            if let Some(owner) = after.owner {
                let vouches = after.floor == before.floor;
                match before.owner {
                    None => note(Kind::Assigned, owner, None),
                    Some(old) if old == owner && vouches => {}
                    Some(old) if old == owner => note(Kind::FloorRaised, owner, None),
                    Some(old) if !vouches => note(Kind::Lost, owner, Some(old)),
                    Some(old) if old.node == owner.node => note(Kind::Kept, owner, None),
                    Some(old) if now.lives(old) => note(Kind::Moved, owner, Some(old)),
                    Some(old) => note(Kind::TakenOver, owner, Some(old)),
                }
                if let Some(to) = after.moving.filter(|to| before.moving != Some(*to)) {
                    note(Kind::MovePlanned, to, Some(owner));
                }
            }
            let new = |all: &[Process], of: &[Process]| -> Vec<Process> {
                of.iter().filter(|process| !all.contains(process)).copied().collect()
            };
            for copy in new(&before.in_sync, &after.in_sync) {
                // Who handed over stays as a copy: it had everything before.
                if before.owner != Some(copy) {
                    note(Kind::CopyReady, copy, None);
                }
            }
            for copy in new(&after.in_sync, &before.in_sync) {
                if after.owner != Some(copy) {
                    note(Kind::CopyGone, copy, None);
                }
            }
            for copy in new(&before.filling, &after.filling) {
                note(Kind::Copying, copy, None);
            }
        }
    }

    fn note(&mut self, at_ms: u64, kind: Kind, node: Option<String>, other: Option<String>, shard: Option<u16>) {
        self.number += 1;
        let number = self.number;
        if kind.grows()
            && let Some(same) = self.events.iter_mut().rev().take(LOOK_BACK).find(|event| {
                (event.kind, &event.node, &event.other) == (kind, &node, &other)
                    && at_ms <= event.until_ms.saturating_add(TOGETHER_MS)
            })
        {
            (same.number, same.until_ms) = (number, at_ms);
            same.count += 1;
            if same.shards.len() < NAMED {
                same.shards.extend(shard);
            }
            return;
        }
        if self.events.len() == self.most {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            number,
            id: number,
            at_ms,
            until_ms: at_ms,
            kind,
            node,
            other,
            count: 1,
            shards: shard.into_iter().collect(),
        });
    }
}

#[cfg(test)]
mod tests;
