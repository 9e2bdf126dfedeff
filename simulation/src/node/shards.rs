//! What a process does about its shards as the map says: takes them, gives them up, has them copied.
//!
//! What it holds of a shard lies in one of two places: in the owner that gives versions, or with the receiver, as a copy.
//! Moves, joins and removals are decided by the senders; here they are told what the map says.

use super::seat::About;
use crate::sabotage::Sabotage;
use crate::world::World;
use tidings_protocol::{Epoch, ShardId};
use tidings_router::control::command::Command;
use tidings_router::control::map::{Process, Shard};
use tidings_router::copies::receiver::{Output, Part};
use tidings_router::owner::taking::Assignment;

fn begins_empty(shard: &Shard) -> bool {
    // With nothing the floor is where the epoch begins; nobody ever had anything before the first epoch.
    shard.floor >= shard.begins || shard.epoch == Epoch(1)
}

fn part_of(shard: &Shard, me: Process) -> Part {
    if shard.owner == Some(me) {
        Part::Owner
    } else if shard.in_sync.contains(&me) {
        Part::InSync
    } else if shard.filling.contains(&me) {
        Part::Filling
    } else {
        Part::Nothing
    }
}

impl World {
    /// The map moved: serves what it says, and nothing else.
    pub(super) fn follow_map(&mut self, node: usize) {
        let me = self.process_name(node);
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        if !process.seat.confirmed && !self.plan.breaks(Sabotage::MapUnread) {
            return;
        }
        let shards = process.seat.map.shards();
        let shards: Vec<(ShardId, Shard)> = shards.map(|(id, shard)| (id, shard.clone())).collect();
        for (id, shard) in shards {
            self.follow_shard(node, me, id, &shard);
        }
        if let Some(process) = self.nodes[node].process.as_mut() {
            let map = &process.seat.map;
            for owner in &mut process.owners {
                owner.sender.forget_processes(|process| map.is_current(process));
            }
        }
        self.look_at_streams(node);
    }

    fn follow_shard(&mut self, node: usize, me: Process, id: ShardId, shard: &Shard) {
        let owner = self.owner_on(node, id);
        let goes_on_giving = self.plan.breaks(Sabotage::NotPaused);
        let part = part_of(shard, me);
        let process = self.nodes[node].process.as_ref();
        let served = process.and_then(|process| process.serves.get(&id).copied());
        if part != Part::Owner && served.is_some() {
            self.trace
                .note(self.now, format_args!("o{owner}"), || format!("no longer owns {id}"));
            self.release_shard(node, id);
        }
        let Some(shell) = self.owner_shell(owner) else { return };
        let mut out = Vec::new();
        shell.receiver.heed(id, shard.epoch, part, &mut out);
        // Who owns it now in a newer epoch has spoken already: the map here is late.
        let late = shell.receiver.newest(id) > shard.epoch;
        for output in out {
            if let Output::Dropped { shard, .. } = output {
                self.copy_dropped(owner, shard);
            }
        }
        if part != Part::Owner || late {
            self.coverage
                .add("map says less of a shard than its owner did", u64::from(late));
            return;
        }
        if served.is_none_or(|served| served < shard.epoch) {
            self.take_shard(node, id, shard, served.is_some());
        }
        self.sender_step(owner, |sender, machine, now, out| {
            sender.heed(now, id, shard, machine, out);
        });
        let Some(shell) = self.owner_shell(owner) else { return };
        let leaving = shell.sender.is_leaving(id);
        shell.machine.set_paused(id, leaving && !goes_on_giving);
    }

    /// A shard is served from now on: empty, or from what is here.
    fn take_shard(&mut self, node: usize, id: ShardId, shard: &Shard, goes_on: bool) {
        let owner = self.owner_on(node, id);
        let empty = begins_empty(shard);
        let Some(shell) = self.owner_shell(owner) else { return };
        let held = shell.receiver.promote(id);
        let complete = held.as_ref().is_some_and(|(.., complete)| *complete);
        let table = held.map(|(table, ..)| table).filter(|_| complete && !empty);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let from_disk = process.on_disk.remove(&id);
        process.serves.insert(id, shard.epoch);
        let what = match (empty, goes_on, table.is_some()) {
            (true, ..) => "shard replaced empty",
            (_, true, _) => "shard goes on in a new epoch",
            (_, _, false) => "shard replaced empty, though it should have been here",
            _ if from_disk.is_some() => "shard continued from disk",
            _ => "copy promoted",
        };
        self.coverage.saw(what);
        self.trace.note(self.now, format_args!("o{owner}"), || {
            let (epoch, floor, begins) = (shard.epoch, shard.floor, shard.begins);
            format!("owns {id} in epoch {epoch} from {begins}, floor {floor}: {what}")
        });
        if !empty && !goes_on && table.is_none() {
            let what = format!(
                "n{node} is to own {id} in epoch {} and has no whole copy of it",
                shard.epoch
            );
            self.oracle.object_to("I9", what);
        }
        let assignment = Assignment {
            shard: id,
            epoch: shard.epoch,
            begins: shard.begins,
            floor: shard.floor,
            cause: shard.cause,
        };
        let now_us = self.clock(node).mono_us;
        if let Some(shell) = self.owner_shell(owner) {
            shell.taken_us.insert(id, now_us);
        }
        self.owner_step(owner, |machine, now, out| {
            if goes_on {
                machine.go_on(now, assignment, out);
            } else {
                machine.take_over(now, assignment, table, out);
            }
        });
    }

    /// A shard is served no longer. What is known of it stays as a copy, until the map says that it is of no use.
    pub(super) fn release_shard(&mut self, node: usize, id: ShardId) {
        let owner = self.owner_on(node, id);
        let served = self.nodes[node]
            .process
            .as_mut()
            .and_then(|process| process.serves.remove(&id));
        let Some(epoch) = served else { return };
        let mut table = None;
        self.owner_step(owner, |machine, _, out| table = machine.give_up(id, out));
        let now = self.clock(node);
        if let (Some(shell), Some(table)) = (self.owner_shell(owner), table) {
            shell.receiver.restore(now, id, epoch, table);
        }
        self.sender_step(owner, |sender, _, _, out| sender.end(id, out));
    }

    /// As owner: what cannot be vouched for goes into the map as well (rule R7).
    pub(super) fn tend_shards(&mut self, node: usize) {
        let me = self.process_name(node);
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        let served = process.serves.iter().filter_map(|(id, epoch)| {
            let shard = process.seat.map.shard(*id)?;
            (shard.owner == Some(me) && shard.epoch == *epoch).then(|| (*id, shard.clone()))
        });
        let served: Vec<(ShardId, Shard)> = served.collect();
        for (id, shard) in served {
            self.tell_floor(node, id, &shard);
        }
    }

    fn tell_floor(&mut self, node: usize, id: ShardId, shard: &Shard) {
        let (me, now_us) = (self.process_name(node), self.clock(node).mono_us);
        let thread = usize::from(id.0) % self.plan.threads;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(floor) = process.owners[thread].machine.kept_floor(id) else {
            return;
        };
        let forgets = self.plan.breaks(Sabotage::FloorForgotten);
        let known = !forgets && floor.version > shard.floor && floor.version <= process.seat.map.ceiling().next();
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

    /// Whether every shard has its owner and as many copies as there should be, and everybody runs and knows that.
    #[must_use]
    pub fn is_level(&self) -> bool {
        self.not_level().is_none()
    }

    /// What is not as it should be of owners and copies, if something is.
    #[must_use]
    pub fn not_level(&self) -> Option<String> {
        let map = self.agreement.map();
        let usable = map.nodes().filter(|(_, known)| !known.draining).count();
        let wanted = usize::from(map.copies() - 1).min(usable.saturating_sub(1));
        for (id, shard) in map.shards() {
            let parts = || shard.owner.iter().chain(&shard.in_sync);
            let gone = parts().find(|part| self.process_name(part.node.0 as usize) != **part);
            if let Some(gone) = gone {
                return Some(format!("{gone:?} is no more, and shard {id} counts on it: {shard:?}"));
            }
            let serves = shard.owner.is_some_and(|owner| {
                let node = &self.nodes[owner.node.0 as usize];
                let process = node.process.as_ref();
                node.incarnation == owner.incarnation
                    && process.is_some_and(|process| process.serves.get(&id) == Some(&shard.epoch))
            });
            if !serves || shard.in_sync.len() != wanted || !shard.filling.is_empty() || shard.moving.is_some() {
                return Some(format!("shard {id} is not served as was agreed: {shard:?}"));
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            if self.gone[number] {
                continue;
            }
            let Some(process) = node.process.as_ref().filter(|_| !node.paused) else {
                return Some(format!("n{number} does not run"));
            };
            let known = process.seat.map.revision();
            if known != map.revision() {
                return Some(format!("n{number} knows map {known} and not {}", map.revision()));
            }
        }
        None
    }
}
