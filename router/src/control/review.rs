//! What should change in the map: who is gone and who takes over, who should have copies, what should move.
//!
//! Everything found here is a proposal on the condition of what was seen. It does not know what became of earlier ones,
//! beyond leaving a shard alone while one about it is open.

use super::command::{Command, Seen, With};
use super::coordinator::{Coordinator, Office, Verdict};
use super::map::{Map, Process, Shard};
use super::placement::Loads;
use crate::now::{MonoUs, Now};
use std::collections::BTreeMap;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, NodeId, ShardId};

/// The most commands of one proposal.
const AT_ONCE: usize = 512;

/// How sure it is that a process acts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gone {
    No,
    /// It may: a copy may take over, because copies refuse the old epoch from then on.
    Maybe,
    /// Its lease has run out, or its node has another process.
    Surely,
}

/// One look at the map.
struct Review<'a> {
    now_us: MonoUs,
    map: &'a Map,
    coordinator: &'a Coordinator,
    office: &'a Office,
    loads: Loads,
    commands: Vec<Command>,
    /// How many nodes may have owners and are not known to be gone. A new leader has heard of few of them: that is no reason to
    /// give up the copies on the others.
    there: usize,
    /// How many copies each node is filling.
    filling: BTreeMap<NodeId, usize>,
    moving: usize,
}

impl Coordinator {
    /// See the module.
    pub(super) fn review(&mut self, now: Now, map: &Map) -> Vec<Command> {
        let orphans = self.find_orphans(now.mono_us, map);
        let Some(office) = &mut self.office else {
            return Vec::new();
        };
        office.orphaned_us = orphans;
        let (coordinator, Some(office)) = (&*self, &self.office) else {
            return Vec::new();
        };
        if now.mono_us < office.since_us + coordinator.config.settle_us {
            return Vec::new();
        }
        let mut review = Review::new(coordinator, office, now.mono_us, map);
        for (id, shard) in map.shards() {
            if review.commands.len() >= AT_ONCE {
                break;
            }
            if !coordinator.is_open(id) {
                review.look_at(id, shard);
            }
        }
        review.plan_moves();
        review.plan_copy_moves();
        review.commands
    }

    /// Shards whose owner is surely gone and that have no copy that could take over, with since when that is known.
    fn find_orphans(&self, now_us: MonoUs, map: &Map) -> BTreeMap<ShardId, MonoUs> {
        let Some(office) = &self.office else {
            return BTreeMap::new();
        };
        let orphaned = map.shards().filter(|(_, shard)| {
            let owner = shard.owner.map(|owner| self.gone(office, now_us, map, owner));
            let copy = || {
                shard
                    .in_sync
                    .iter()
                    .any(|copy| self.is_live(office, now_us, map, *copy))
            };
            owner == Some(Gone::Surely) && !copy()
        });
        let since = |id| office.orphaned_us.get(&id).copied().unwrap_or(now_us);
        orphaned.map(|(id, _)| (id, since(id))).collect()
    }

    fn gone(&self, office: &Office, now_us: MonoUs, map: &Map, process: Process) -> Gone {
        if map.is_superseded(process) {
            return Gone::Surely;
        }
        let heard = office.heard.get(&process.node).filter(|heard| heard.process == process);
        let last_us = heard.map_or(0, |heard| heard.granted_us).max(office.since_us);
        let silent_us = now_us.saturating_sub(last_us);
        let dead = self.verdicts.get(&process.node) == Some(&(process.incarnation, Verdict::Dead));
        if silent_us >= self.config.surely_over_us() {
            Gone::Surely
        } else if silent_us >= self.config.lease_us || (dead && silent_us >= self.config.lease_us / 2) {
            Gone::Maybe
        } else {
            Gone::No
        }
    }

    /// Whether a process renewed lately and may take something over.
    pub(super) fn is_live(&self, office: &Office, now_us: MonoUs, map: &Map, process: Process) -> bool {
        let heard = office.heard.get(&process.node);
        map.is_current(process)
            && heard.is_some_and(|heard| heard.process == process)
            && self.gone(office, now_us, map, process) == Gone::No
    }
}

impl<'a> Review<'a> {
    fn new(coordinator: &'a Coordinator, office: &'a Office, now_us: MonoUs, map: &'a Map) -> Self {
        let usable = map.nodes().filter(|(_, node)| node.info.roles.owner && !node.draining);
        let usable = usable.map(|(node, known)| Process {
            node,
            incarnation: known.incarnation,
        });
        let usable = usable.filter(|process| coordinator.is_live(office, now_us, map, *process));
        let there = map.nodes().filter(|(id, node)| {
            let process = Process {
                node: *id,
                incarnation: node.incarnation,
            };
            node.info.roles.owner && !node.draining && coordinator.gone(office, now_us, map, process) == Gone::No
        });
        let there = there.count();
        let mut filling = BTreeMap::new();
        for process in map.shards().flat_map(|(_, shard)| &shard.filling) {
            *filling.entry(process.node).or_insert(0) += 1;
        }
        Self {
            now_us,
            map,
            coordinator,
            office,
            loads: Loads::new(map, usable),
            commands: Vec::new(),
            there,
            filling,
            moving: map.shards().filter(|(_, shard)| shard.moving.is_some()).count(),
        }
    }

    fn is_live(&self, process: Process) -> bool {
        self.coordinator.is_live(self.office, self.now_us, self.map, process)
    }

    fn gone(&self, process: Process) -> Gone {
        self.coordinator.gone(self.office, self.now_us, self.map, process)
    }

    fn is_draining(&self, node: NodeId) -> bool {
        self.map.node(node).is_none_or(|node| node.draining)
    }

    fn seen(id: ShardId, shard: &Shard) -> Seen {
        Seen {
            shard: id,
            epoch: shard.epoch,
            in_sync: shard.in_sync.clone(),
            turn: shard.turn,
        }
    }

    fn look_at(&mut self, id: ShardId, shard: &Shard) {
        match shard.owner {
            None => self.give(id, shard, With::Fresh, |_| true),
            Some(owner) if self.gone(owner) != Gone::No => self.replace(id, shard, owner),
            Some(_) => self.tend_copies(id, shard),
        }
    }

    fn give(&mut self, id: ShardId, shard: &Shard, with: With, among: impl Fn(Process) -> bool) {
        if let Some(to) = self.loads.take_owner(among) {
            self.assign(id, shard, to, with);
        }
    }

    fn assign(&mut self, id: ShardId, shard: &Shard, to: Process, with: With) {
        let seen = Self::seen(id, shard);
        self.commands.push(Command::Assign { seen, to, with });
    }

    /// The owner does not renew. A copy takes over at once; a complete disk, or nobody's memory, only when the lease is
    /// surely over.
    fn replace(&mut self, id: ShardId, shard: &Shard, owner: Process) {
        let live: Vec<Process> = shard
            .in_sync
            .iter()
            .copied()
            .filter(|copy| self.is_live(*copy))
            .collect();
        if !live.is_empty() {
            // One that drains is better than none.
            let best = self.loads.take_owner(|process| live.contains(&process));
            return self.assign(id, shard, best.unwrap_or(live[0]), With::Copy);
        }
        let Some(since_us) = self.office.orphaned_us.get(&id) else {
            return;
        };
        if let Some(to) = self.with_disk(id, shard) {
            return self.assign(id, shard, to, With::Disk);
        }
        let returned = self.map.is_superseded(owner);
        let patience_us = if returned {
            self.coordinator.config.disk_patience_us
        } else {
            0
        };
        if self.now_us >= since_us + patience_us {
            self.give(id, shard, With::Nothing(FloorCause::Lost), |_| true);
        }
    }

    /// A node that holds all that was acknowledged, left there by an earlier process of its own.
    fn with_disk(&self, id: ShardId, shard: &Shard) -> Option<Process> {
        let holders = shard.owner.iter().chain(&shard.in_sync);
        let candidates = holders.filter_map(|holder| {
            let heard = self.office.heard.get(&holder.node)?;
            let complete = heard.on_disk.get(&id) == Some(&shard.epoch) && shard.epoch > Epoch(0);
            (complete && heard.process.incarnation > holder.incarnation).then_some(heard.process)
        });
        candidates.into_iter().find(|process| self.is_live(*process))
    }

    /// As many copies as there should be, on who is there and in zones that differ.
    fn tend_copies(&mut self, id: ShardId, shard: &Shard) {
        let parts = || shard.in_sync.iter().chain(&shard.filling);
        if let Some(gone) = parts().copied().find(|part| self.gone(*part) != Gone::No) {
            let seen = Self::seen(id, shard);
            return self.commands.push(Command::Remove { seen, member: gone });
        }
        let wanted = usize::from(self.map.copies() - 1).min(self.loads.len().saturating_sub(1));
        let wanted = wanted + usize::from(shard.moving.is_some_and(|to| parts().any(|part| *part == to)));
        let lasting = parts().filter(|part| !self.is_draining(part.node)).count();
        if lasting < wanted {
            return self.fill(id, shard);
        }
        let kept = usize::from(self.map.copies() - 1).min(self.there.saturating_sub(1));
        if shard.in_sync.len() > kept && shard.moving.is_none() {
            // One whose node drains goes first, else one whose node bears most.
            let draining = shard.in_sync.iter().find(|part| self.is_draining(part.node)).copied();
            if let Some(member) = draining.or_else(|| self.loads.most_laden(shard.in_sync.iter().copied())) {
                self.loads.give_up_copy(member.node);
                let seen = Self::seen(id, shard);
                self.commands.push(Command::Remove { seen, member });
            }
        }
    }

    fn has_room(&self, node: NodeId) -> bool {
        let count = self.filling.get(&node).copied().unwrap_or_default();
        count < self.coordinator.config.fills
    }

    fn fill(&mut self, id: ShardId, shard: &Shard) {
        if let Some(member) = self
            .loads
            .take_copy(self.map, shard)
            .filter(|to| self.has_room(to.node))
        {
            *self.filling.entry(member.node).or_insert(0) += 1;
            let seen = Self::seen(id, shard);
            self.commands.push(Command::Fill { seen, member });
        }
    }

    /// Even shares, and nothing left on nodes that drain. Not before what was planned earlier is in the map or lost: shares
    /// that look uneven still would be evened out once more.
    fn plan_moves(&mut self) {
        if self.coordinator.is_any_open() {
            return;
        }
        while self.moving < self.coordinator.config.moves && self.commands.len() < AT_ONCE {
            let touched: Vec<ShardId> = self.commands.iter().filter_map(shard_of).collect();
            let movable = |id: ShardId, shard: &Shard| {
                let owner = shard.owner.is_some_and(|owner| self.is_live(owner));
                owner && !touched.contains(&id) && !self.coordinator.is_open(id)
            };
            let mut loads = self.loads.clone();
            let Some((id, to)) = loads.take_move(self.map, movable) else {
                return;
            };
            let Some(shard) = self.map.shard(id) else { return };
            let fills = !shard.in_sync.contains(&to) && !shard.filling.contains(&to);
            if fills {
                if !self.has_room(to.node) {
                    return;
                }
                *self.filling.entry(to.node).or_insert(0) += 1;
                let seen = Self::seen(id, shard);
                self.commands.push(Command::Fill { seen, member: to });
            }
            self.loads = loads;
            let mut seen = Self::seen(id, shard);
            // Filling it made void what an earlier process of that node had.
            seen.in_sync.retain(|other| other.node != to.node || *other == to);
            seen.turn += u64::from(fills);
            self.commands.push(Command::Move { seen, to: Some(to) });
            self.moving += 1;
        }
    }

    /// Even shares of copies. Who gets one is filled first; who bears most gives one up when it is level.
    fn plan_copy_moves(&mut self) {
        let quiet = !self.coordinator.is_any_open() && self.commands.is_empty() && self.moving == 0;
        if !quiet || self.map.shards().any(|(_, shard)| !shard.filling.is_empty()) {
            return;
        }
        let wanted = usize::from(self.map.copies() - 1);
        for _ in 0..self.coordinator.config.moves {
            let settled = |id: ShardId, shard: &Shard| {
                let touched = self.commands.iter().filter_map(shard_of).any(|other| other == id);
                let owner = shard.owner.is_some_and(|owner| self.is_live(owner));
                owner
                    && !touched
                    && shard.in_sync.len() == wanted
                    && shard.in_sync.iter().all(|part| self.is_live(*part))
            };
            let mut loads = self.loads.clone();
            let Some((id, member)) = loads.take_copy_move(self.map, settled) else {
                return;
            };
            let (Some(shard), true) = (self.map.shard(id), self.has_room(member.node)) else {
                return;
            };
            *self.filling.entry(member.node).or_insert(0) += 1;
            let seen = Self::seen(id, shard);
            self.commands.push(Command::Fill { seen, member });
            self.loads = loads;
        }
    }
}

fn shard_of(command: &Command) -> Option<ShardId> {
    match command {
        Command::Assign { seen, .. }
        | Command::Fill { seen, .. }
        | Command::Join { seen, .. }
        | Command::Remove { seen, .. }
        | Command::Move { seen, .. }
        | Command::Release { seen, .. } => Some(seen.shard),
        Command::RaiseFloor { shard, .. } | Command::Pin { shard, .. } => Some(*shard),
        Command::Register { .. }
        | Command::Drain { .. }
        | Command::Forget { .. }
        | Command::SetCopies { .. }
        | Command::Revoke { .. }
        | Command::RaiseCeiling { .. } => None,
    }
}
