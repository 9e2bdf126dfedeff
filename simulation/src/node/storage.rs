//! A node and its disk: orders in, answers out, snapshots a piece at a time, and what is found after a restart.

use crate::control::CopyHead;
use crate::disk::{Found, Order, Record, shard_of_mark};
use crate::world::{Event, World};
use std::collections::BTreeMap;
use tidings_protocol::{ObjectHash, ShardId, Version};
use tidings_router::owner::keeping::{KeptAnswer, MARK_PIECES, SHARD_PIECES};

/// Snapshots replace a log of this many records.
const LOG_RECORDS: usize = 120;

/// A complete copy of a shard outside of a machine.
#[derive(Clone, Debug)]
pub struct Copy {
    /// What it is a copy of.
    pub head: CopyHead,
    /// Every object's version.
    pub versions: Vec<(ObjectHash, Version)>,
    /// Revisions.
    pub revisions: Vec<(u128, u64)>,
    /// Answers to idempotency keys.
    pub answers: Vec<KeptAnswer>,
    /// It came from another node.
    pub moved: bool,
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
        // Copies that are not served live in the log alone.
        if process.taking.is_some() || length < LOG_RECORDS || !process.copies.is_empty() || fails {
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
                let revisions = revisions.into_iter().filter(|(key, _)| served(key));
                records.extend(revisions.map(|(key, revision)| Record::Revision(key, revision)));
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

    /// What a process finds on its disk: one copy a shard that was owned here, newest epoch.
    pub(super) fn recover(&mut self, node: usize) -> BTreeMap<ShardId, Copy> {
        if !self.plan.disks {
            return BTreeMap::new();
        }
        let found: Found = self.nodes[node].disk.recover();
        if found.from_snapshot {
            self.coverage.saw("restart from a snapshot");
        }
        let shards = self.plan.shards;
        let mut copies = BTreeMap::new();
        for (shard, (epoch, floor, cause)) in &found.owned {
            let doubt = found
                .doubtful
                .contains(shard)
                .then_some(tidings_protocol::peer::FloorCause::PowerLost);
            let mark = |key: &u128| shard_of_mark(shards, *key) == *shard;
            let copy = Copy {
                head: CopyHead {
                    shard: *shard,
                    epoch: *epoch,
                    floor: *floor,
                    cause: *cause,
                    doubt,
                },
                versions: found
                    .versions
                    .iter()
                    .filter(|(o, _)| shards.shard(*o) == *shard)
                    .copied()
                    .collect(),
                revisions: found.revisions.iter().filter(|(key, _)| mark(key)).copied().collect(),
                answers: found
                    .answers
                    .iter()
                    .filter(|answer| mark(&answer.key))
                    .copied()
                    .collect(),
                moved: false,
            };
            copies.insert(*shard, copy);
        }
        copies
    }
}
