//! A node and its disk: orders in, answers out, snapshots a piece at a time, and what is found after a restart.

use super::OwnerShell;
use crate::disk::{Found, Order, Record};
use crate::sabotage::Sabotage;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::owner::keeping::{MARK_PIECES, SHARD_PIECES, shard_of_mark};
use tidings_router::owner::{Input, Owner};

/// Snapshots replace a log of this many records.
const LOG_RECORDS: usize = 120;

/// What a process finds on its disk.
#[derive(Debug)]
pub(super) struct Recovered {
    /// By thread: the owners, which remember revisions and keys and own nothing yet.
    pub(super) owners: Vec<OwnerShell>,
    /// Shards that are complete, each as of this epoch.
    pub(super) on_disk: BTreeMap<ShardId, Epoch>,
}

/// A snapshot that is being taken.
#[derive(Debug, Default)]
pub struct Taking {
    records: Vec<Record>,
    /// So much of the log it will replace.
    length: usize,
    /// What is here: since which epoch, whether owned, whether complete.
    here: BTreeMap<ShardId, (Epoch, bool, bool)>,
    /// Shards yet to be asked for, and the next piece of the first one.
    shards: Vec<ShardId>,
    piece: usize,
    marks: usize,
    /// So many records come before the marks: copies that are being filled begin with nothing.
    heads: usize,
}

impl World {
    pub(super) fn give_order(&mut self, node: usize, order: Order) {
        let machine = &mut self.nodes[node];
        if machine.disk.give(order)
            && let Some(us) = machine.disk.begin(&mut self.chance)
        {
            let incarnation = machine.incarnation;
            self.after(us, Event::Disk(node, incarnation));
        }
    }

    /// A disk is done with what it did.
    pub fn disk_done(&mut self, node: usize, incarnation: u64) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        let (done, next_us) = self.nodes[node].disk.done(&mut self.chance);
        if let Some(us) = next_us {
            self.after(us, Event::Disk(node, incarnation));
        }
        for (thread, ticket) in done.tickets {
            self.disk_has(node * self.plan.threads + thread, ticket, done.fine);
        }
    }

    /// Begins a snapshot if the log has grown.
    pub(super) fn consider_snapshot(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let length = self.nodes[node].disk.log_length();
        let fails = self.nodes[node].disk.fails;
        let (shards, threads) = (self.plan.shards, self.plan.threads);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.taking.is_some() || length < LOG_RECORDS || fails {
            return;
        }
        let here = |shard: ShardId| {
            let owner = process.owners.get(usize::from(shard.0) % threads)?;
            Some((shard, owner.standing(shard)?))
        };
        let here: BTreeMap<_, _> = shards.all().filter_map(here).collect();
        let unfinished = here.iter().filter(|(_, (_, _, complete))| !complete);
        let nothing = |(shard, (epoch, ..)): (&ShardId, &(Epoch, bool, bool))| {
            Record::CopyBegun(*shard, *epoch, Version::ZERO, FloorCause::Lost, true)
        };
        let records: Vec<Record> = unfinished.map(nothing).collect();
        process.taking = Some(Taking {
            length,
            heads: records.len(),
            records,
            shards: here.keys().copied().collect(),
            here,
            ..Taking::default()
        });
        self.after(1_000, Event::Snapshot(node, incarnation));
    }

    /// The next piece of a snapshot, taken while changes come in.
    pub fn snapshot_piece(&mut self, node: usize, incarnation: u64) {
        let (shards_here, now) = (self.plan.shards, self.clock(node));
        let threads = self.plan.threads;
        let Some(process) = self.process(node, incarnation) else {
            return;
        };
        let Some(mut taking) = process.taking.take() else {
            return;
        };
        let changed = |(shard, known): (&ShardId, &(Epoch, bool, bool))| {
            let owner = process.owners.get(usize::from(shard.0) % threads);
            owner.and_then(|owner| owner.standing(*shard)) != Some(*known)
        };
        if taking.here.iter().any(changed) {
            // A shard went away meanwhile, or is another's: another time.
            return;
        }
        // Marks first: none may be kept without the change it is of.
        if taking.marks < MARK_PIECES {
            // The younger half first, so that halves that change meanwhile hide nothing; written behind the older ones.
            let piece = MARK_PIECES - 1 - taking.marks;
            let mut records = Vec::new();
            for owner in &process.owners {
                let revisions = owner.machine.kept_revisions(piece);
                let answers = owner.machine.kept_answers(piece, now);
                let here = |key: &u128| taking.here.contains_key(&shard_of_mark(shards_here, *key));
                let revisions = revisions.into_iter().filter(|mark| here(&mark.key));
                records.extend(revisions.map(Record::Revision));
                let answers = answers.into_iter().filter(|answer| here(&answer.key));
                records.extend(answers.map(Record::Answer));
            }
            let heads = taking.heads;
            taking.records.splice(heads..heads, records);
            taking.marks += 1;
        } else if let Some(shard) = taking.shards.first().copied() {
            let Some(owner) = process.owners.get(usize::from(shard.0) % threads) else {
                return;
            };
            let (epoch, owned, complete) = taking.here.get(&shard).copied().unwrap_or_default();
            let tables = if owned { &owner.machine } else { owner.receiver.shelf() };
            let versions = tables.kept_versions(shard, taking.piece).into_iter();
            taking
                .records
                .extend(versions.map(|(object, version)| Record::Version(object, version)));
            taking.piece += 1;
            if taking.piece == SHARD_PIECES {
                // The floor goes last: what was dropped while the pieces were read lies below it.
                if let Some(floor) = tables.kept_floor(shard) {
                    let (floor, cause) = (floor.version, floor.cause);
                    taking.records.push(if complete {
                        Record::Owned(shard, epoch, floor, cause)
                    } else {
                        Record::CopyFloor(shard, epoch, floor, cause)
                    });
                }
                taking.piece = 0;
                taking.shards.remove(0);
            }
        } else {
            let length = taking.length;
            self.nodes[node].disk.replace(taking.records, length);
            self.coverage.saw("snapshot taken");
            self.trace.note(self.now, format_args!("n{node}"), || {
                format!("has a snapshot for {length} records")
            });
            return;
        }
        process.taking = Some(taking);
        let us = self.chance.range(100, 3_000);
        self.after(us, Event::Snapshot(node, incarnation));
    }

    /// What a process finds on its disk, put where it may be told to go on from. A shard of which something acknowledged may be
    /// missing is worth nothing: whoever gets it starts empty.
    pub(super) fn recover(&mut self, node: usize) -> Recovered {
        let (threads, shards, now) = (self.plan.threads, self.plan.shards, self.clock(node));
        let me = self.process_name(node);
        let mut recovered = Recovered {
            owners: (0..threads).map(|_| OwnerShell::new(&self.plan, me)).collect(),
            on_disk: BTreeMap::new(),
        };
        if !self.plan.disks {
            return recovered;
        }
        let found: Found = self.nodes[node].disk.recover(shards);
        if found.from_snapshot {
            self.coverage.saw("restart from a snapshot");
        }
        let thread_of = |shard: ShardId| usize::from(shard.0) % threads;
        let mut shelves: Vec<Owner> = (0..threads).map(|_| Owner::new(self.plan.owner)).collect();
        for (shard, kept) in &found.shards {
            if found.doubtful.contains(shard) && !self.plan.breaks(Sabotage::DoubtForgotten) {
                self.coverage.saw("shard in doubt after a restart");
                continue;
            }
            if !kept.complete && !self.plan.breaks(Sabotage::HalfCopyOffered) {
                self.coverage.saw("copy found that was being filled");
                continue;
            }
            recovered.on_disk.insert(*shard, kept.epoch);
            let assign = Input::Assign {
                shards: vec![*shard],
                epoch: kept.epoch,
                floor: kept.floor,
                cause: kept.cause,
            };
            shelves[thread_of(*shard)].handle(now, assign, &mut Vec::new());
        }
        for (object, version) in &found.versions {
            shelves[thread_of(shards.shard(*object))].restore(*object, *version);
        }
        for (shard, epoch) in &recovered.on_disk {
            let thread = thread_of(*shard);
            if let Some(table) = shelves[thread].take_table(*shard) {
                recovered.owners[thread].receiver.restore(now, *shard, *epoch, table);
            }
        }
        // In the order in which they were written, so that the newest are remembered.
        for mark in &found.revisions {
            let thread = thread_of(shard_of_mark(shards, mark.key));
            recovered.owners[thread].machine.restore_revision(*mark);
        }
        for answer in &found.answers {
            let thread = thread_of(shard_of_mark(shards, answer.key));
            recovered.owners[thread].machine.restore_answer(*answer, now);
        }
        recovered
    }
}
