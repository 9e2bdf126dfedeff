//! What is read from a data directory: the tables of shards and the marks, before they are given to the threads that own them.
//!
//! On a node that is alone every shard is there from the beginning. On a member of a cluster a shard is there since the
//! newest epoch that the directory speaks of: what it says of older ones is void, but where an epoch went on from the one
//! before. It does not know files.

use super::frame::{Deed, Sink, Tenure};
use super::snapshots::{Marks, Share, Source};
use std::collections::BTreeMap;
use std::ops::Range;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};
use tidings_router::owner::{Input, Owner};

/// The epoch of all shards of a node that is alone.
pub(super) const ALONE: Epoch = Epoch(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Tables {
    /// They have the versions. Shard `s` is with number `s % owners.len()`.
    pub(super) owners: Vec<Owner>,
    /// They have the marks; empty on a node that is alone, where the owners have them.
    pub(super) marked: Vec<Owner>,
    pub(super) shards: ShardCount,
    pub(super) now: Now,
    /// The newest version seen.
    pub(super) newest: Version,
    /// Floors as they were kept.
    pub(super) floors: Vec<(ShardId, Floor)>,
    /// What the directory last said of each shard. Nothing on a node that is alone.
    pub(super) tenures: BTreeMap<ShardId, Tenure>,
}

impl Tables {
    fn owner_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0) % self.owners.len()
    }

    /// Who keeps a mark: the low bits of its key name the shard.
    fn keeper_of(&mut self, key: u128) -> &mut Owner {
        let owner = self.owner_of(self.shards.shard(ObjectHash(((key & 0xffff) as u64) << 48)));
        match self.marked.get_mut(owner) {
            Some(keeper) => keeper,
            None => &mut self.owners[owner],
        }
    }

    /// Has shards there since this epoch, or raises their floors if they are.
    pub(super) fn assign(&mut self, shards: &[ShardId], epoch: Epoch, floor: Version, cause: FloorCause) {
        let (count, mut out) = (self.owners.len(), Vec::new());
        for (number, owner) in self.owners.iter_mut().enumerate() {
            let of_owner = shards.iter().filter(|shard| usize::from(shard.0) % count == number);
            let assign = Input::Assign {
                shards: of_owner.copied().collect(),
                epoch,
                floor,
                cause,
            };
            // No link is up yet, so nobody is told.
            owner.handle(Now::default(), assign, &mut out);
        }
    }

    /// What was read of a shard is void: it is not whole, or there is newer.
    pub(super) fn void(&mut self, shard: ShardId, epoch: Epoch) {
        self.clear(shard);
        self.tenures.insert(shard, Tenure::ended(shard, epoch));
    }

    fn begin(&mut self, tenure: Tenure) {
        self.assign(&[tenure.shard], tenure.epoch, tenure.floor.version, tenure.floor.cause);
        self.tenures.insert(tenure.shard, tenure);
    }

    /// Copies that were not whole when the last run ended are of no use.
    pub(super) fn void_unfinished(&mut self) {
        let unfinished: Vec<_> = self
            .tenures
            .values()
            .filter(|tenure| tenure.deed == Deed::Filling)
            .copied()
            .collect();
        for tenure in unfinished {
            self.void(tenure.shard, tenure.epoch);
        }
    }

    fn clear(&mut self, shard: ShardId) {
        let owner = self.owner_of(shard);
        if self.owners[owner].epoch(shard).is_some() {
            let release = Input::Release { shards: vec![shard] };
            self.owners[owner].handle(Now::default(), release, &mut Vec::new());
        }
    }

    /// Shards that are there, with their epoch.
    pub(super) fn here(&self) -> impl Iterator<Item = (ShardId, Epoch)> {
        let here = self.tenures.values().filter(|tenure| tenure.is_here());
        here.map(|tenure| (tenure.shard, tenure.epoch))
    }
}

impl Sink for Tables {
    fn change(&mut self, object: ObjectHash, version: Version) {
        self.newest = self.newest.max(version);
        let owner = self.owner_of(self.shards.shard(object));
        // What belongs to a shard that is not here is void.
        _ = self.owners[owner].restore(object, version);
    }

    fn revision(&mut self, mark: KeptRevision) {
        self.keeper_of(mark.key).restore_revision(mark);
    }

    fn answer(&mut self, answer: KeptAnswer) {
        let now = self.now;
        self.keeper_of(answer.key).restore_answer(answer, now);
    }

    fn floor(&mut self, shard: ShardId, floor: Floor) {
        self.floors.push((shard, floor));
    }

    fn tenure(&mut self, tenure: Tenure) {
        let shard = tenure.shard;
        let known = self.tenures.get(&shard).copied();
        // A snapshot may be younger than the log behind it: of an epoch what was read first is as new.
        let last = known.map_or(Epoch(0), |known| known.epoch);
        match tenure.deed {
            Deed::Ended if tenure.epoch >= last => self.void(shard, tenure.epoch),
            // Once more in one epoch too: all that the copy gets from here on is in the log behind this.
            Deed::Filling if tenure.epoch >= last => {
                self.clear(shard);
                let keeper = self.owner_of(shard);
                if let Some(keeper) = self.marked.get_mut(keeper) {
                    keeper.forget_marks(shard);
                }
                self.begin(tenure);
            }
            Deed::Whole if tenure.epoch == last => {
                if let Some(known) = self.tenures.get_mut(&shard).filter(|known| known.deed == Deed::Filling) {
                    known.deed = Deed::Whole;
                }
            }
            Deed::Begun | Deed::Continued | Deed::Kept if tenure.epoch > last => {
                let here = known.filter(Tenure::is_here);
                let goes_on = match tenure.deed {
                    Deed::Continued => here.is_some_and(|known| known.epoch.0 + 1 == tenure.epoch.0),
                    Deed::Kept => here.is_some(),
                    _ => true,
                };
                if !goes_on {
                    // What it went on from is not here, so nor is all of it.
                    return self.void(shard, tenure.epoch);
                }
                if tenure.deed == Deed::Begun {
                    self.clear(shard);
                }
                self.begin(tenure);
            }
            Deed::Ended | Deed::Begun | Deed::Continued | Deed::Filling | Deed::Whole | Deed::Kept => {}
        }
    }
}

impl Source for Tables {
    fn owners(&self) -> usize {
        self.owners.len()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share> {
        let owner = self.owners.get(self.owner_of(shard))?;
        let (Some(epoch), Some(floor)) = (owner.epoch(shard), owner.kept_floor(shard)) else {
            return Some(Share::Absent);
        };
        let versions = pieces.flat_map(|piece| owner.kept_versions(shard, piece)).collect();
        let tenure = Tenure {
            shard,
            epoch,
            begins: self.tenures.get(&shard).map_or(Version::ZERO, |tenure| tenure.begins),
            floor,
            deed: Deed::Begun,
        };
        Some(Share::Here { versions, tenure })
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        let keepers = if self.marked.is_empty() {
            &self.owners
        } else {
            &self.marked
        };
        let owner = keepers.get(owner)?;
        Some((owner.kept_revisions(piece), owner.kept_answers(piece, self.now)))
    }
}
