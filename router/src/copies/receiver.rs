//! The node that holds copies: takes what owners send, in the newest epoch it knows of, and nothing of older ones.
//!
//! A process that has just started must not take anything before it has read a map that a quorum confirmed: it has
//! forgotten which epochs it refused (`docs/decisions/0010-model.md`). Whoever runs this machine sees to that.

use crate::control::map::Process;
use crate::now::Now;
use crate::owner::taking::{Assignment, Table};
use crate::owner::{Config, Owner};
use std::collections::BTreeMap;
use tidings_protocol::copy::Entry;
use tidings_protocol::{Epoch, ShardId, Version};

/// What part the map gives this process in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// None.
    Nothing,
    /// It is to be brought level.
    Filling,
    /// It is in sync.
    InSync,
    /// It is the owner.
    Owner,
}

/// A copy as its disk should know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The shard.
    pub shard: ShardId,
    /// Of this epoch.
    pub epoch: Epoch,
    /// Whether it has all that was acknowledged.
    pub complete: bool,
    /// What it had before is void.
    pub replaced: bool,
}

/// What a receiver wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write these, in this order, then confirm the batch. May be empty: only the order matters. Marks among them are to be
    /// kept with those of the shards that are owned here.
    Write {
        /// From whom.
        from: Process,
        /// Which owner there.
        owner: u16,
        /// Which life of the stream.
        life: u32,
        /// The batch.
        place: u64,
        /// Whether it is to be synced.
        sync: bool,
        /// What was taken of it.
        entries: Vec<Entry>,
        /// Copies that begin or are whole with it.
        standings: Vec<Standing>,
    },
    /// Tell the sender that there is no copy here of what it speaks of.
    Lack {
        /// Whom.
        to: Process,
        /// Which owner there.
        owner: u16,
        /// Which life of the stream.
        life: u32,
        /// The batch.
        place: u64,
        /// The shard.
        shard: ShardId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Tell the sender that it is late.
    Refuse {
        /// Whom.
        to: Process,
        /// Which owner there.
        owner: u16,
        /// The shard.
        shard: ShardId,
        /// The epoch known here.
        epoch: Epoch,
    },
    /// A newer epoch of the shard was seen than this: who owns it here since an older one must stop.
    Newer {
        /// The shard.
        shard: ShardId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The copy is of no use any more and was dropped: its disk may forget it.
    Dropped {
        /// The shard.
        shard: ShardId,
        /// The copy's epoch.
        epoch: Epoch,
    },
}

/// A batch as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which owner of the sending process.
    pub owner: u16,
    /// Which life of the stream.
    pub life: u32,
    /// Its number.
    pub place: u64,
    /// Whether it is to be synced.
    pub sync: bool,
    /// What it holds.
    pub entries: Vec<Entry>,
}

/// A batch does not follow the one before it: the connection is to be cut, and the sender begins where it was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch {place} of a copy's stream came behind {last}")]
pub struct Gap {
    /// The batch.
    pub place: u64,
    /// The last one taken.
    pub last: u64,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    epoch: Epoch,
    complete: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    /// The newest epoch heard of, from whomever, by shard.
    known: Vec<Epoch>,
    copies: Vec<Option<Copy>>,
    /// Where the tables lie: an owner that nobody asks.
    shelf: Owner,
    /// The life of each stream and the last batch taken of it.
    streams: BTreeMap<(Process, u16), (u32, u64)>,
}

impl Receiver {
    /// One without copies.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shards = usize::from(config.shards.get());
        Self {
            known: vec![Epoch(0); shards],
            copies: vec![None; shards],
            shelf: Owner::new(config),
            streams: BTreeMap::new(),
        }
    }

    /// One whose tables are those that an earlier process of this node left complete, each of its epoch.
    #[must_use]
    pub fn resume(config: Config, shelf: Owner, here: impl IntoIterator<Item = (ShardId, Epoch)>) -> Self {
        let mut new = Self {
            shelf,
            ..Self::new(config)
        };
        for (shard, epoch) in here {
            if let Some(slot) = new.copies.get_mut(usize::from(shard.0)) {
                *slot = Some(Copy { epoch, complete: true });
            }
        }
        new
    }

    /// The newest epoch of the shard that was heard of here, from whomever. Who owns it since an older one must not act on that.
    #[must_use]
    pub fn newest(&self, shard: ShardId) -> Epoch {
        self.known.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// Somebody said that there is this epoch of the shard.
    pub fn heard_of(&mut self, shard: ShardId, epoch: Epoch) {
        if let Some(known) = self.known.get_mut(usize::from(shard.0)) {
            *known = (*known).max(epoch);
        }
    }

    /// Puts a table back as a complete copy of this epoch: one that was owned here until now.
    pub fn restore(&mut self, now: Now, shard: ShardId, epoch: Epoch, table: Table) {
        let Some(slot) = self.copies.get_mut(usize::from(shard.0)) else {
            return;
        };
        *slot = Some(Copy { epoch, complete: true });
        let assignment = Assignment {
            shard,
            epoch,
            begins: Version::ZERO,
            floor: Version::ZERO,
            cause: tidings_protocol::peer::FloorCause::Lost,
        };
        self.shelf.take_over(now, assignment, Some(table), &mut Vec::new());
    }

    /// The map says so.
    ///
    /// While its epoch lasts a copy is kept although the map does not name it: the owner may have seen it named before and after,
    /// and go on where it was. Its owner ends it with a word of its own.
    pub fn heed(&mut self, shard: ShardId, epoch: Epoch, part: Part, out: &mut Vec<Output>) {
        let at = usize::from(shard.0);
        let (Some(known), Some(slot)) = (self.known.get_mut(at), self.copies.get_mut(at)) else {
            return;
        };
        if epoch < *known && part != Part::Owner {
            // An owner that knows a newer map has spoken already.
            return;
        }
        *known = (*known).max(epoch);
        let Some(copy) = slot else { return };
        if part == Part::Nothing && epoch > copy.epoch {
            let epoch = copy.epoch;
            *slot = None;
            self.shelf.take_table(shard);
            out.push(Output::Dropped { shard, epoch });
        }
    }

    /// A batch of a stream.
    ///
    /// # Errors
    /// If batches are missing before it. Nothing was taken.
    pub fn take(&mut self, now: Now, from: Process, batch: Arrived, out: &mut Vec<Output>) -> Result<(), Gap> {
        let Arrived {
            owner,
            life,
            place,
            sync,
            entries,
        } = batch;
        let (known_life, known_last) = self.streams.get(&(from, owner)).copied().unwrap_or((life, 0));
        let last = if life > known_life { 0 } else { known_last };
        if place > last + 1 {
            return Err(Gap { place, last });
        }
        let (mut taken, mut standings) = (Vec::new(), Vec::new());
        let is_news = life >= known_life && place > last;
        if is_news {
            self.streams.insert((from, owner), (life, place));
            taken.reserve(entries.len());
        }
        for entry in entries {
            // Also of a batch that comes again: the word that it was refused may be lost with the connection that it came on.
            if !self.may_take(from, owner, &entry, out) || !is_news {
                continue;
            }
            if self.apply(now, &entry, &mut standings) {
                taken.push(entry);
            } else {
                let (shard, epoch) = entry.of();
                let lack = Output::Lack {
                    to: from,
                    owner,
                    life,
                    place,
                    shard,
                    epoch,
                };
                if out.last() != Some(&lack) {
                    out.push(lack);
                }
            }
        }
        out.push(Output::Write {
            from,
            owner,
            life,
            place,
            sync,
            entries: taken,
            standings,
        });
        Ok(())
    }

    /// Whether the entry's epoch is the newest known, or newer.
    fn may_take(&mut self, from: Process, owner: u16, entry: &Entry, out: &mut Vec<Output>) -> bool {
        let (shard, epoch) = entry.of();
        let Some(known) = self.known.get_mut(usize::from(shard.0)) else {
            return false;
        };
        if epoch < *known {
            let refused = Output::Refuse {
                to: from,
                owner,
                shard,
                epoch: *known,
            };
            if out.last() != Some(&refused) {
                out.push(refused);
            }
            return false;
        }
        if epoch > *known {
            *known = epoch;
            out.push(Output::Newer { shard, epoch });
        }
        true
    }

    /// Forgets the streams of processes that are no more.
    pub fn retain_streams(&mut self, lives: impl Fn(Process) -> bool) {
        self.streams.retain(|(process, _), _| lives(*process));
    }

    /// The shard's table and whether it has all that was acknowledged up to and in the epoch it is of: this process became its
    /// owner. The copy is gone then.
    pub fn promote(&mut self, shard: ShardId) -> Option<(Table, Epoch, bool)> {
        let copy = self.copies.get_mut(usize::from(shard.0))?.take()?;
        Some((self.shelf.take_table(shard)?, copy.epoch, copy.complete))
    }

    /// Drops the copy of a shard. Its epoch, if there was one.
    pub fn forget(&mut self, shard: ShardId) -> Option<Epoch> {
        self.promote(shard).map(|(_, epoch, _)| epoch)
    }

    /// The tables, for snapshots and questions.
    #[must_use]
    pub fn shelf(&self) -> &Owner {
        &self.shelf
    }

    /// Whether the copy of a shard has all that was acknowledged; `None` if there is no copy.
    #[must_use]
    pub fn is_complete(&self, shard: ShardId) -> Option<bool> {
        self.copies.get(usize::from(shard.0))?.map(|copy| copy.complete)
    }

    /// The epoch of the copy of a shard, if there is one.
    #[must_use]
    pub fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        Some(self.copies.get(usize::from(shard.0))?.as_ref()?.epoch)
    }

    /// The copies: shard, epoch, whether complete.
    pub fn copies(&self) -> impl Iterator<Item = (ShardId, Epoch, bool)> {
        let copies = (0..).map(ShardId).zip(&self.copies);
        copies.filter_map(|(shard, copy)| copy.map(|copy| (shard, copy.epoch, copy.complete)))
    }

    /// Whether the entry made sense.
    fn apply(&mut self, now: Now, entry: &Entry, standings: &mut Vec<Standing>) -> bool {
        let (shard, epoch) = entry.of();
        let copy = &mut self.copies[usize::from(shard.0)];
        if let Entry::Begin {
            replace, floor, cause, ..
        } = entry
        {
            let had = copy.take();
            let kept = had.filter(|had| !replace && had.complete);
            let table = self.shelf.take_table(shard).filter(|_| kept.is_some());
            *copy = Some(Copy {
                epoch,
                complete: kept.is_some(),
            });
            standings.push(Standing {
                shard,
                epoch,
                complete: kept.is_some(),
                replaced: kept.is_none(),
            });
            let assignment = Assignment {
                shard,
                epoch,
                begins: *floor,
                floor: *floor,
                cause: *cause,
            };
            self.shelf.take_over(now, assignment, table, &mut Vec::new());
            return true;
        }
        let Some(copy) = copy.as_mut().filter(|copy| copy.epoch == epoch) else {
            return false;
        };
        match entry {
            Entry::Versions { versions, .. } => {
                for (object, version) in versions {
                    self.shelf.restore(*object, *version);
                }
            }
            // Whoever runs this keeps them with those of its own shards: they belong to keys, not to tables.
            Entry::Marks { .. } => {}
            Entry::Floor { floor, cause, .. } => {
                let raised = Assignment {
                    shard,
                    epoch,
                    begins: *floor,
                    floor: *floor,
                    cause: *cause,
                };
                self.shelf.take_over(now, raised, None, &mut Vec::new());
                self.shelf.forget_below_floors();
            }
            Entry::Complete { .. } => {
                copy.complete = true;
                standings.push(Standing {
                    shard,
                    epoch,
                    complete: true,
                    replaced: false,
                });
            }
            Entry::End { .. } => {
                self.copies[usize::from(shard.0)] = None;
                self.shelf.take_table(shard);
                standings.push(Standing {
                    shard,
                    epoch,
                    complete: false,
                    replaced: true,
                });
            }
            Entry::Begin { .. } => {}
        }
        true
    }
}

/// The key whose halves these are.
#[must_use]
pub fn wide((high, low): (u64, u64)) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// The halves of a key.
#[must_use]
pub fn halves(key: u128) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}
