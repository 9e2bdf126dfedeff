//! The disk of one node: a log of what its owners did. What is written outlives the process, what is synced outlives the
//! machine.
//!
//! It works as the gateway's storage does: orders gather, are written in one go, and are answered; those that asked for
//! it wait for a sync. Snapshots are taken a piece at a time and replace the log behind them. It keeps records, not bytes:
//! checksums and frames have tests of their own where they live.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::owner::keeping::{KeptAnswer, KeptRevision, shard_of_mark};

/// One thing that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// An object's version.
    Version(ObjectHash, Version),
    /// A publisher's revision.
    Revision(KeptRevision),
    /// The answer to an idempotency key.
    Answer(KeptAnswer),
    /// A shard is owned in this epoch, from this floor; all its versions went before.
    Owned(ShardId, Epoch, Version, FloorCause),
    /// A copy of a shard goes on in this epoch, from this floor; with true, all that was known of the shard is void.
    CopyBegun(ShardId, Epoch, Version, FloorCause, bool),
    /// The floor of a copy rose.
    CopyFloor(ShardId, Epoch, Version, FloorCause),
    /// A copy has everything that was acknowledged.
    CopyComplete(ShardId, Epoch),
    /// A copy is of no use any more.
    CopyEnded(ShardId),
    /// The machine went down here after acknowledgements without sync: what was owned before is in doubt.
    Unsynced,
}

/// What an owner wants written.
#[derive(Clone, Debug)]
pub struct Order {
    /// The owner's number on its node.
    pub owner: usize,
    /// Comes back with the answer.
    pub ticket: Option<u64>,
    /// What to write.
    pub records: Vec<Record>,
    /// Whether the answer waits for the sync.
    pub durable: bool,
}

/// What became of orders.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Owner and ticket.
    pub tickets: Vec<(usize, u64)>,
    /// Whether they are kept.
    pub fine: bool,
}

/// What the disk is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Writing,
    /// The log up to this length is being synced.
    Syncing(usize),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What a snapshot holds: replaces the log before it.
    snapshot: Vec<Record>,
    log: Vec<Record>,
    /// So much of the log is synced.
    synced: usize,
    marked: bool,
    queue: Vec<Order>,
    group: Vec<Order>,
    doing: Doing,
    /// Microseconds that a write and a sync take at most.
    pub slowness_us: u64,
    /// Nothing can be written at the moment.
    pub fails: bool,
    owed: Vec<Record>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            snapshot: Vec::new(),
            log: Vec::new(),
            synced: 0,
            marked: false,
            queue: Vec::new(),
            group: Vec::new(),
            doing: Doing::Nothing,
            slowness_us: 3_000,
            fails: false,
            owed: Vec::new(),
        }
    }
}

/// A shard as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// In this epoch.
    pub epoch: Epoch,
    /// From this floor.
    pub floor: Version,
    /// Because of this.
    pub cause: FloorCause,
    /// It is no copy that was being filled.
    pub complete: bool,
}

/// What is found after a restart.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By shard: how it was left.
    pub shards: BTreeMap<ShardId, Kept>,
    /// Every version, newest last.
    pub versions: Vec<(ObjectHash, Version)>,
    /// Every revision, newest last.
    pub revisions: Vec<KeptRevision>,
    /// Every answer.
    pub answers: Vec<KeptAnswer>,
    /// Shards of which something acknowledged may be missing.
    pub doubtful: BTreeSet<ShardId>,
    /// It began with a snapshot.
    pub from_snapshot: bool,
}

impl Disk {
    /// Takes an order. True if the disk was idle: then it has to be told to go on.
    pub fn give(&mut self, order: Order) -> bool {
        self.queue.push(order);
        self.doing == Doing::Nothing
    }

    /// Begins what is next, and says how long it takes; `None` if there is nothing to do.
    pub fn begin(&mut self, random: &mut Random) -> Option<u64> {
        if self.doing != Doing::Nothing || self.queue.is_empty() {
            return None;
        }
        self.group = std::mem::take(&mut self.queue);
        self.doing = Doing::Writing;
        Some(random.range(20, self.slowness_us))
    }

    /// What was begun is done. The second value is how long the next step takes, if there is one.
    pub fn done(&mut self, random: &mut Random) -> (Done, Option<u64>) {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => (Done::default(), self.begin(random)),
            Doing::Writing if self.fails => {
                let group = std::mem::take(&mut self.group);
                let done = Done {
                    tickets: tickets(&group),
                    fine: false,
                };
                // What memory has, the disk is owed.
                self.owed.extend(group.into_iter().flat_map(|order| order.records));
                (done, self.begin(random))
            }
            Doing::Writing => {
                let owed = std::mem::take(&mut self.owed);
                self.log.extend(owed);
                let group = std::mem::take(&mut self.group);
                self.log.extend(group.iter().flat_map(|order| &order.records));
                let (durable, accepted): (Vec<Order>, Vec<Order>) = group.into_iter().partition(|order| order.durable);
                if !self.marked && accepted.iter().any(|order| order.ticket.is_some()) {
                    self.marked = true;
                }
                let done = Done {
                    tickets: tickets(&accepted),
                    fine: true,
                };
                if durable.is_empty() {
                    return (done, self.begin(random));
                }
                self.group = durable;
                self.doing = Doing::Syncing(self.log.len());
                (done, Some(random.range(100, 3 * self.slowness_us)))
            }
            Doing::Syncing(length) => {
                self.synced = self.synced.max(length);
                let group = std::mem::take(&mut self.group);
                let done = Done {
                    tickets: tickets(&group),
                    fine: true,
                };
                (done, self.begin(random))
            }
        }
    }

    /// Records in the log.
    #[must_use]
    pub fn log_length(&self) -> usize {
        self.log.len()
    }

    /// A snapshot that was begun when the log had `length` records is whole: it replaces them.
    pub fn replace(&mut self, snapshot: Vec<Record>, length: usize) {
        self.snapshot = snapshot;
        self.log.drain(..length);
        self.synced = self.synced.saturating_sub(length);
        if let Doing::Syncing(end) = &mut self.doing {
            *end = end.saturating_sub(length);
        }
    }

    /// The process ends. What was given and not yet written is gone.
    pub fn kill(&mut self) {
        self.queue.clear();
        self.group.clear();
        self.owed.clear();
        self.doing = Doing::Nothing;
    }

    /// The machine goes down: of what was not synced a first part is there, or none. Says how many records are gone.
    pub fn lose_power(&mut self, random: &mut Random) -> usize {
        self.kill();
        let kept = self.synced + random.index(self.log.len() - self.synced + 1);
        let lost = self.log.len() - kept;
        self.log.truncate(kept);
        if self.marked {
            self.log.push(Record::Unsynced);
        }
        self.synced = self.log.len();
        lost
    }

    /// Reads everything after a restart, and begins a new run.
    pub fn recover(&mut self, shards: ShardCount) -> Found {
        let mut found = Found {
            from_snapshot: !self.snapshot.is_empty(),
            ..Found::default()
        };
        for record in self.snapshot.iter().chain(&self.log) {
            found.read(*record, shards);
        }
        // A start makes durable what the last process wrote and did not sync.
        self.synced = self.log.len();
        self.marked = false;
        found
    }
}

impl Found {
    fn read(&mut self, record: Record, shards: ShardCount) {
        match record {
            Record::Version(object, version) => self.versions.push((object, version)),
            Record::Revision(mark) => self.revisions.push(mark),
            Record::Answer(answer) => self.answers.push(answer),
            Record::Owned(shard, epoch, floor, cause) => {
                let kept = self.merge(shard, epoch, floor, cause);
                kept.complete = true;
            }
            Record::CopyBegun(shard, epoch, floor, cause, void) => {
                if void {
                    self.forget(shard, shards);
                }
                let kept = self.merge(shard, epoch, floor, cause);
                kept.complete &= !void;
            }
            Record::CopyFloor(shard, epoch, floor, cause) => {
                if self.shards.contains_key(&shard) {
                    self.merge(shard, epoch, floor, cause);
                }
            }
            Record::CopyComplete(shard, epoch) => {
                if let Some(kept) = self.shards.get_mut(&shard).filter(|kept| kept.epoch == epoch) {
                    kept.complete = true;
                }
            }
            Record::CopyEnded(shard) => self.forget(shard, shards),
            Record::Unsynced => self.doubtful.extend(self.shards.keys()),
        }
    }

    fn merge(&mut self, shard: ShardId, epoch: Epoch, floor: Version, cause: FloorCause) -> &mut Kept {
        let kept = self.shards.entry(shard).or_insert(Kept {
            epoch,
            floor,
            cause,
            complete: true,
        });
        if epoch > kept.epoch {
            // Whatever was in doubt then is below the floor of the newer epoch.
            self.doubtful.remove(&shard);
        }
        if floor > kept.floor {
            (kept.floor, kept.cause) = (floor, cause);
        }
        kept.epoch = kept.epoch.max(epoch);
        kept
    }

    /// All that was known of a shard is void, its marks too: they speak of changes that are gone.
    fn forget(&mut self, shard: ShardId, shards: ShardCount) {
        self.shards.remove(&shard);
        self.doubtful.remove(&shard);
        self.versions.retain(|(object, _)| shards.shard(*object) != shard);
        self.revisions.retain(|mark| shard_of_mark(shards, mark.key) != shard);
        self.answers.retain(|answer| shard_of_mark(shards, answer.key) != shard);
    }
}

fn tickets(orders: &[Order]) -> Vec<(usize, u64)> {
    orders
        .iter()
        .filter_map(|order| Some((order.owner, order.ticket?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: ObjectHash = ObjectHash(7);

    fn order(ticket: u64, version: u64, durable: bool) -> Order {
        Order {
            owner: 0,
            ticket: Some(ticket),
            records: vec![Record::Version(OBJECT, Version(version))],
            durable,
        }
    }

    fn owned(disk: &mut Disk, random: &mut Random, epoch: u64) {
        disk.give(Order {
            owner: 0,
            ticket: None,
            records: vec![Record::Owned(ShardId(0), Epoch(epoch), Version(1), FloorCause::Lost)],
            durable: false,
        });
        work(disk, random);
    }

    fn work(disk: &mut Disk, random: &mut Random) -> Vec<u64> {
        let mut done = Vec::new();
        let mut next = disk.begin(random);
        while next.is_some() {
            let (answer, after) = disk.done(random);
            done.extend(answer.tickets.iter().map(|(_, ticket)| *ticket));
            next = after;
        }
        done
    }

    fn newest(disk: &mut Disk) -> Option<Version> {
        disk.recover(ShardCount::DEFAULT)
            .versions
            .iter()
            .map(|(_, version)| *version)
            .max()
    }

    #[test]
    fn what_is_written_outlives_the_process_and_what_is_not_does_not() {
        let (mut disk, mut random) = (Disk::default(), Random::new(1, 1));
        disk.give(order(1, 10, false));
        assert_eq!(work(&mut disk, &mut random), [1]);
        disk.give(order(2, 20, false));
        disk.kill();
        assert_eq!(newest(&mut disk), Some(Version(10)));
    }

    #[test]
    fn what_is_synced_outlives_the_machine_and_what_is_not_is_in_doubt_until_the_next_epoch() {
        let mut torn = 0;
        for seed in 0..20 {
            let (mut disk, mut random) = (Disk::default(), Random::new(seed, 1));
            owned(&mut disk, &mut random, 1);
            disk.give(order(1, 10, true));
            assert_eq!(work(&mut disk, &mut random), [1]);
            disk.give(order(2, 20, false));
            assert_eq!(work(&mut disk, &mut random), [2]);
            torn += disk.lose_power(&mut random);
            let found = disk.recover(ShardCount::DEFAULT);
            assert!(found.versions.contains(&(OBJECT, Version(10))), "it was synced");
            assert!(found.doubtful.contains(&ShardId(0)));
            assert!(
                disk.recover(ShardCount::DEFAULT).doubtful.contains(&ShardId(0)),
                "doubt outlives a second restart"
            );
            owned(&mut disk, &mut random, 2);
            assert!(disk.recover(ShardCount::DEFAULT).doubtful.is_empty());
        }
        assert!((1..20).contains(&torn), "sometimes the record is lost, sometimes not");
    }

    #[test]
    fn without_acknowledgements_before_a_sync_nothing_is_in_doubt() {
        let (mut disk, mut random) = (Disk::default(), Random::new(1, 1));
        owned(&mut disk, &mut random, 1);
        disk.give(order(1, 10, true));
        work(&mut disk, &mut random);
        disk.lose_power(&mut random);
        assert!(disk.recover(ShardCount::DEFAULT).doubtful.is_empty());
    }

    #[test]
    fn a_copy_that_was_being_filled_is_not_complete_and_voids_what_was_there() {
        let (mut disk, mut random) = (Disk::default(), Random::new(1, 1));
        let shard = ShardCount::DEFAULT.shard(OBJECT);
        let give = |disk: &mut Disk, random: &mut Random, record| {
            disk.give(Order {
                owner: 0,
                ticket: None,
                records: vec![record],
                durable: false,
            });
            work(disk, random);
            disk.recover(ShardCount::DEFAULT)
        };
        disk.give(order(1, 10, false));
        let found = give(
            &mut disk,
            &mut random,
            Record::Owned(shard, Epoch(1), Version(1), FloorCause::Lost),
        );
        assert!(found.shards[&shard].complete && found.versions.len() == 1);
        let begun = |void| Record::CopyBegun(shard, Epoch(2), Version(1), FloorCause::Lost, void);
        let found = give(&mut disk, &mut random, begun(false));
        assert!(found.shards[&shard].complete && found.versions.len() == 1);
        let found = give(&mut disk, &mut random, begun(true));
        assert!(!found.shards[&shard].complete && found.versions.is_empty());
        let found = give(&mut disk, &mut random, Record::CopyComplete(shard, Epoch(1)));
        assert!(!found.shards[&shard].complete, "that was another epoch");
        let found = give(&mut disk, &mut random, Record::CopyComplete(shard, Epoch(2)));
        assert!(found.shards[&shard].complete);
        assert!(give(&mut disk, &mut random, Record::CopyEnded(shard)).shards.is_empty());
    }

    #[test]
    fn a_snapshot_replaces_the_log_it_was_begun_behind() {
        let (mut disk, mut random) = (Disk::default(), Random::new(1, 1));
        for version in 1..=5 {
            disk.give(order(version, version, false));
            work(&mut disk, &mut random);
        }
        disk.replace(vec![Record::Version(OBJECT, Version(3))], 3);
        assert_eq!(disk.log_length(), 2);
        let found = disk.recover(ShardCount::DEFAULT);
        let versions: Vec<u64> = found.versions.iter().map(|(_, version)| version.0).collect();
        assert_eq!((versions, found.from_snapshot), (vec![3, 4, 5], true));
    }

    #[test]
    fn a_disk_that_fails_refuses_and_owes_what_memory_has() {
        let (mut disk, mut random) = (Disk::default(), Random::new(1, 1));
        disk.fails = true;
        disk.give(order(1, 10, false));
        disk.begin(&mut random);
        assert!(!disk.done(&mut random).0.fine);
        disk.fails = false;
        disk.give(order(2, 20, false));
        assert_eq!(work(&mut disk, &mut random), [2]);
        let found = disk.recover(ShardCount::DEFAULT);
        assert_eq!(found.versions, [(OBJECT, Version(10)), (OBJECT, Version(20))]);
    }
}
