//! A node and its disk: orders in, answers out, snapshots a piece at a time, and what is found after a restart.

use super::OwnerShell;
use crate::disk::{Found, Order, Record, shard_of_mark};
use crate::world::{Event, World};
use std::collections::BTreeMap;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision, MARK_PIECES, SHARD_PIECES};
use tidings_router::owner::taking::Table;
use tidings_router::owner::{Config, Input, Owner};

/// Snapshots replace a log of this many records.
const LOG_RECORDS: usize = 120;

/// A complete copy of a shard outside of a machine, in the memory of its process.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The shard.
    pub shard: ShardId,
    /// It has everything that was acknowledged up to this epoch.
    pub epoch: Epoch,
    /// The map that its owner knew when it was made.
    pub revision: u64,
    /// Its floor.
    pub floor: Floor,
    /// Every object's version.
    pub versions: Vec<(ObjectHash, Version)>,
    /// Revisions.
    pub revisions: Vec<KeptRevision>,
    /// Answers to idempotency keys.
    pub answers: Vec<KeptAnswer>,
    /// It came from another node.
    pub moved: bool,
}

/// What a process finds on its disk.
#[derive(Debug)]
pub(super) struct Recovered {
    /// By thread: the owners, which remember revisions and keys and own nothing yet.
    pub(super) owners: Vec<OwnerShell>,
    /// By thread: an owner without links, on which the shards wait.
    pub(super) shelves: Vec<Owner>,
    /// Shards that are complete, each as of this epoch.
    pub(super) on_disk: BTreeMap<ShardId, Epoch>,
}

/// A snapshot that is being taken.
#[derive(Debug, Default)]
pub struct Taking {
    records: Vec<Record>,
    /// So much of the log it will replace.
    length: usize,
    /// Shards yet to be asked for, and the next piece of the first one.
    shards: Vec<ShardId>,
    piece: usize,
    marks: usize,
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
            self.answer(node * self.plan.threads + thread, ticket, done.fine);
        }
    }

    /// Begins a snapshot if the log has grown.
    pub(super) fn consider_snapshot(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let length = self.nodes[node].disk.log_length();
        let fails = self.nodes[node].disk.fails;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        // What is not served, and may be again, lives in the log alone.
        let waits = !process.copies.is_empty() || !process.on_disk.is_empty();
        if process.taking.is_some() || length < LOG_RECORDS || waits || fails {
            return;
        }
        process.taking = Some(Taking {
            length,
            shards: process.serves.keys().copied().collect(),
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
        if taking.shards.iter().any(|shard| !process.serves.contains_key(shard)) {
            // A shard went away meanwhile: another time.
            return;
        }
        let epochs = process.serves.clone();
        // Marks first: none may be kept without the change it is of.
        if taking.marks < MARK_PIECES {
            // The younger half first, so that halves that change meanwhile hide nothing; written behind the older ones.
            let piece = MARK_PIECES - 1 - taking.marks;
            let mut records = Vec::new();
            for owner in &process.owners {
                let revisions = owner.machine.kept_revisions(piece);
                let answers = owner.machine.kept_answers(piece, now);
                let served = |key: &u128| epochs.contains_key(&shard_of_mark(shards_here, *key));
                let revisions = revisions.into_iter().filter(|mark| served(&mark.key));
                records.extend(revisions.map(Record::Revision));
                let answers = answers.into_iter().filter(|answer| served(&answer.key));
                records.extend(answers.map(Record::Answer));
            }
            taking.records.splice(0..0, records);
            taking.marks += 1;
        } else if let Some(shard) = taking.shards.first().copied() {
            let Some(owner) = process.owners.get(usize::from(shard.0) % threads) else {
                return;
            };
            let versions = owner.machine.kept_versions(shard, taking.piece).into_iter();
            taking
                .records
                .extend(versions.map(|(object, version)| Record::Version(object, version)));
            taking.piece += 1;
            if taking.piece == SHARD_PIECES {
                // The floor goes last: what was dropped while the pieces were read lies below it.
                if let (Some(floor), Some(epoch)) = (owner.machine.kept_floor(shard), epochs.get(&shard)) {
                    taking
                        .records
                        .push(Record::Owned(shard, *epoch, floor.version, floor.cause));
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
        let mut recovered = Recovered {
            owners: (0..threads).map(|_| OwnerShell::new(&self.plan)).collect(),
            shelves: (0..threads).map(|_| Owner::new(self.plan.owner)).collect(),
            on_disk: BTreeMap::new(),
        };
        if !self.plan.disks {
            return recovered;
        }
        let found: Found = self.nodes[node].disk.recover();
        if found.from_snapshot {
            self.coverage.saw("restart from a snapshot");
        }
        let thread_of = |shard: ShardId| usize::from(shard.0) % threads;
        for (shard, (epoch, floor, cause)) in &found.owned {
            if found.doubtful.contains(shard) {
                self.coverage.saw("shard in doubt after a restart");
                continue;
            }
            recovered.on_disk.insert(*shard, *epoch);
            let assign = Input::Assign {
                shards: vec![*shard],
                epoch: *epoch,
                floor: *floor,
                cause: *cause,
            };
            recovered.shelves[thread_of(*shard)].handle(now, assign, &mut Vec::new());
        }
        for (object, version) in &found.versions {
            recovered.shelves[thread_of(shards.shard(*object))].restore(*object, *version);
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

impl Copy {
    /// Everything an owner knows of a shard.
    #[must_use]
    pub fn of(machine: &Owner, shards: ShardCount, shard: ShardId, epoch: Epoch, revision: u64, now: Now) -> Self {
        let versions = (0..SHARD_PIECES)
            .flat_map(|piece| machine.kept_versions(shard, piece))
            .collect();
        let of_shard = |key: &u128| shard_of_mark(shards, *key) == shard;
        let revisions = (0..MARK_PIECES).flat_map(|piece| machine.kept_revisions(piece));
        let answers = (0..MARK_PIECES).flat_map(|piece| machine.kept_answers(piece, now));
        let nothing = Floor {
            version: Version::ZERO,
            cause: FloorCause::Lost,
        };
        Self {
            shard,
            epoch,
            revision,
            floor: machine.kept_floor(shard).unwrap_or(nothing),
            versions,
            revisions: revisions.filter(|mark| of_shard(&mark.key)).collect(),
            answers: answers.filter(|answer| of_shard(&answer.key)).collect(),
            moved: false,
        }
    }

    /// Its versions and floor as an owner takes them over.
    #[must_use]
    pub fn table(&self, config: &Config, now: Now) -> Option<Table> {
        let mut shelf = Owner::new(*config);
        let assign = Input::Assign {
            shards: vec![self.shard],
            epoch: self.epoch,
            floor: self.floor.version,
            cause: self.floor.cause,
        };
        shelf.handle(now, assign, &mut Vec::new());
        for (object, version) in &self.versions {
            shelf.restore(*object, *version);
        }
        shelf.take_table(self.shard)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let versions = self.versions.iter();
        let versions = versions.map(|(object, version)| Record::Version(*object, *version));
        let revisions = self.revisions.iter().copied().map(Record::Revision);
        let answers = self.answers.iter().copied().map(Record::Answer);
        versions.chain(revisions).chain(answers).collect()
    }
}
