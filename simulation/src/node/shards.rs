//! What a process does about its shards as the map says: takes them, gives them up, hands them over.
//!
//! There is one copy a shard, so a hand-over is done at rest: the owner serves the shard no longer, sends what it has, and only
//! then proposes that the other is in sync and gets it. Whoever owns a shard with copies in sync, which nobody feeds, gives no
//! versions for it until they are taken out (rule R6): this is where followers will be.

use super::seat::About;
use super::storage::Copy;
use crate::disk::Order;
use crate::network::Body;
use crate::world::World;
use tidings_protocol::{Epoch, ShardId};
use tidings_router::MonoUs;
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::map::{Process, Shard};
use tidings_router::owner::Input;
use tidings_router::owner::taking::Assignment;

/// How long a hand-over may take before it is taken back.
const HAND_OVER_US: u64 = 3_000_000;

/// A shard that is owned, served no longer, and on its way to somebody else.
#[derive(Clone, Copy, Debug)]
pub struct HandingOver {
    epoch: Epoch,
    to: Process,
    /// It said that it has everything.
    has_all: bool,
    since_us: MonoUs,
    /// Where what it had comes from when it is served again.
    taken_back: bool,
}

/// Where a new owner's versions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Nothing,
    Memory,
    Disk,
}

fn begins_empty(shard: &Shard) -> bool {
    // With nothing the floor is where the epoch begins; nobody ever had anything before the first epoch.
    shard.floor >= shard.begins || shard.epoch == Epoch(1)
}

fn has_part(shard: &Shard, process: Process) -> bool {
    shard.owner == Some(process) || shard.in_sync.contains(&process) || shard.filling.contains(&process)
}

impl World {
    /// The map moved: serves what it says, and nothing else.
    pub(super) fn follow_map(&mut self, node: usize) {
        let me = self.process_name(node);
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        if !process.seat.confirmed {
            return;
        }
        let shards: Vec<(ShardId, Shard)> = process
            .seat
            .map
            .shards()
            .map(|(id, shard)| (id, shard.clone()))
            .collect();
        let revision = process.seat.map.revision();
        for (id, shard) in shards {
            let Some(process) = self.nodes[node].process.as_mut() else {
                return;
            };
            if let Some(copy) = process.copies.get_mut(&id)
                && shard.in_sync.contains(&me)
            {
                // In sync still: whoever owned it since acknowledged nothing that this one lacks.
                copy.epoch = copy.epoch.max(shard.epoch);
            }
            if shard.owner == Some(me) {
                self.follow_own(node, id, &shard);
                continue;
            }
            let served = process.serves.remove(&id).is_some();
            process.handing.remove(&id);
            if process
                .copies
                .get(&id)
                .is_some_and(|copy| copy.revision <= revision && !has_part(&shard, me))
            {
                process.copies.remove(&id);
            }
            self.forget_old_disk(node, id, &shard);
            if served {
                let owner = self.owner_on(node, id);
                self.trace
                    .note(self.now, format_args!("o{owner}"), || format!("no longer owns {id}"));
                self.owner_input(owner, Input::Release { shards: vec![id] });
            }
        }
    }

    fn follow_own(&mut self, node: usize, id: ShardId, shard: &Shard) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let handing = process.handing.get(&id).is_some_and(|under| under.epoch == shard.epoch);
        if process.serves.get(&id) == Some(&shard.epoch) || handing {
            return;
        }
        process.handing.remove(&id);
        self.take_shard(node, id, shard);
        self.forget_old_disk(node, id, shard);
    }

    /// What the disk has of a shard is worth nothing once the shard has gone on without it.
    fn forget_old_disk(&mut self, node: usize, id: ShardId, shard: &Shard) {
        let thread = usize::from(id.0) % self.plan.threads;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.on_disk.get(&id).is_some_and(|epoch| *epoch < shard.epoch) {
            process.on_disk.remove(&id);
            process.shelves[thread].forget(id);
        }
    }

    /// A shard is served from now on: empty, or from what is here.
    fn take_shard(&mut self, node: usize, id: ShardId, shard: &Shard) {
        let owner = self.owner_on(node, id);
        let thread = owner % self.plan.threads;
        let now = self.clock(node);
        let before = Epoch(shard.epoch.0 - 1);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let copy = process.copies.remove(&id);
        let source = if begins_empty(shard) {
            Source::Nothing
        } else if copy.as_ref().is_some_and(|copy| copy.epoch == before) {
            Source::Memory
        } else if process.on_disk.get(&id) == Some(&before) {
            Source::Disk
        } else {
            Source::Nothing
        };
        let table = match source {
            Source::Nothing => None,
            Source::Memory => copy.as_ref().and_then(|copy| copy.table(&self.plan.owner, now)),
            Source::Disk => process.shelves[thread].take_table(id),
        };
        process.serves.insert(id, shard.epoch);
        let what = match source {
            Source::Nothing if begins_empty(shard) => "shard replaced empty",
            Source::Nothing => "shard replaced empty, though it should have been here",
            Source::Memory => "shard moved with its versions",
            Source::Disk => "shard continued from disk",
        };
        self.coverage.saw(what);
        self.trace.note(self.now, format_args!("o{owner}"), || {
            let (epoch, floor, begins) = (shard.epoch, shard.floor, shard.begins);
            format!("owns {id} in epoch {epoch} from {begins}, floor {floor}: {what}")
        });
        let copy = copy.filter(|_| source == Source::Memory);
        if let Some(copy) = copy.as_ref().filter(|_| self.plan.disks) {
            // What is not on this disk yet has to be there before the shard counts as owned.
            let order = Order {
                owner: thread,
                ticket: None,
                records: copy.records(),
                durable: false,
            };
            self.give_order(node, order);
        }
        if let Some(copy) = &copy {
            self.oracle.keys_moved(thread, copy.answers.len());
        }
        let assignment = Assignment {
            shard: id,
            epoch: shard.epoch,
            begins: shard.begins,
            floor: shard.floor,
            cause: shard.cause,
        };
        self.owner_step(owner, |machine, now, out| {
            machine.take_over(now, assignment, table, out);
            let Some(copy) = copy else { return };
            for mark in copy.revisions {
                machine.restore_revision(mark);
            }
            for answer in copy.answers {
                machine.restore_answer(answer, now);
            }
        });
    }

    /// As owner: what the map says should move is handed over, step by step.
    pub(super) fn tend_shards(&mut self, node: usize) {
        let (me, now_us) = (self.process_name(node), self.clock(node).mono_us);
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        if !process.seat.confirmed {
            return;
        }
        let owned = process.seat.map.shards().filter(|(_, shard)| shard.owner == Some(me));
        let owned: Vec<(ShardId, Shard)> = owned.map(|(id, shard)| (id, shard.clone())).collect();
        for (id, shard) in owned {
            let Some(process) = self.nodes[node].process.as_ref() else {
                return;
            };
            if process.serves.get(&id) == Some(&shard.epoch) {
                let to = shard.moving.filter(|to| has_part(&shard, *to));
                if let Some(to) = to {
                    self.drain_shard(node, id, to);
                } else {
                    self.tell_floor(node, id, &shard);
                }
            } else if let Some(handing) = process.handing.get(&id).copied() {
                self.go_on_handing(node, id, &shard, handing, now_us);
            }
        }
    }

    /// What this owner cannot vouch for goes into the map as well (rule R7).
    fn tell_floor(&mut self, node: usize, id: ShardId, shard: &Shard) {
        let (me, now_us) = (self.process_name(node), self.clock(node).mono_us);
        let thread = usize::from(id.0) % self.plan.threads;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(floor) = process.owners[thread].machine.kept_floor(id) else {
            return;
        };
        let known = floor.version > shard.floor && floor.version <= process.seat.map.ceiling().next();
        if known && process.seat.may_ask(About::Floor(id), now_us) {
            let command = Command::RaiseFloor {
                shard: id,
                epoch: shard.epoch,
                by: me,
                floor: floor.version,
                cause: floor.cause,
            };
            self.ask_leader(node, command);
        }
    }

    /// A shard is served no longer: what it has lies ready for whoever is to have it.
    fn drain_shard(&mut self, node: usize, id: ShardId, to: Process) {
        let owner = self.owner_on(node, id);
        let (shards, now) = (self.plan.shards, self.clock(node));
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(epoch) = process.serves.remove(&id) else {
            return;
        };
        let machine = &process.owners[owner % self.plan.threads].machine;
        let copy = Copy::of(machine, shards, id, epoch, process.seat.map.revision(), now);
        process.copies.insert(id, copy);
        process.handing.insert(
            id,
            HandingOver {
                epoch,
                to,
                has_all: false,
                since_us: now.mono_us,
                taken_back: false,
            },
        );
        self.trace.note(self.now, format_args!("o{owner}"), || {
            format!("hands {id} over to n{}", to.node.0)
        });
        self.owner_input(owner, Input::Release { shards: vec![id] });
    }

    fn go_on_handing(&mut self, node: usize, id: ShardId, shard: &Shard, handing: HandingOver, now_us: MonoUs) {
        let from = self.process_name(node);
        let HandingOver { to, has_all, .. } = handing;
        let withdrawn = shard.moving != Some(to) || !has_part(shard, to);
        let late = now_us.saturating_sub(handing.since_us) > HAND_OVER_US;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if !process.seat.may_ask(About::HandOver(id), now_us) {
            return;
        }
        let Some(seen) = Seen::of(&process.seat.map, id) else {
            return;
        };
        if withdrawn || late || handing.taken_back {
            if let Some(known) = process.handing.get_mut(&id) {
                known.taken_back = true;
            }
            // To itself: whatever became of proposals under way, the next epoch may acknowledge again.
            let to = from;
            return self.ask_leader(node, Command::Release { seen, from, to });
        }
        if !has_all {
            if let Some(copy) = process.copies.get(&id).cloned() {
                let there = to.node.0 as usize;
                self.send(node, there, Some(to.incarnation), Body::HandOver(from, Box::new(copy)));
            }
        } else if shard.in_sync.contains(&to) {
            self.ask_leader(node, Command::Release { seen, from, to });
        } else {
            self.ask_leader(node, Command::Join { seen, member: to });
        }
    }

    /// A copy arrives. Who does not know the map, or a newer epoch, takes nothing.
    pub(super) fn copy_arrived(&mut self, node: usize, from: Process, mut copy: Copy) {
        let id = copy.shard;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let known = process.seat.map.shard(id).map_or(Epoch(0), |shard| shard.epoch);
        let held = process.copies.get(&id).map_or(Epoch(0), |held| held.epoch);
        let serves = process.serves.contains_key(&id) || process.handing.contains_key(&id);
        if !process.seat.confirmed || copy.epoch < known.max(held) || serves {
            self.coverage.saw("hand-over refused");
            return;
        }
        copy.moved = true;
        let epoch = copy.epoch;
        process.copies.insert(id, copy);
        let there = from.node.0 as usize;
        self.send(node, there, Some(from.incarnation), Body::HasAll(id, epoch));
    }

    /// Somebody has everything of a shard.
    pub(super) fn copy_taken(&mut self, node: usize, from: usize, id: ShardId, epoch: Epoch) {
        let handing = self.nodes[node]
            .process
            .as_mut()
            .and_then(|process| process.handing.get_mut(&id));
        if let Some(handing) = handing.filter(|handing| handing.epoch == epoch && handing.to.node.0 as usize == from) {
            handing.has_all = true;
        }
    }

    /// Whether versions of a shard may be given here as far as copies go: none must be in sync that nobody feeds.
    #[must_use]
    pub fn feeds_all_copies(&self, node: usize, id: ShardId) -> bool {
        let process = self.nodes[node].process.as_ref();
        let shard = process.and_then(|process| process.seat.map.shard(id));
        shard.is_none_or(|shard| shard.in_sync.is_empty())
    }
}
