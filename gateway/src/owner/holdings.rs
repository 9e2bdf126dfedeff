//! What one owner of a cluster's member has of its shards, and what becomes of that when the cluster agrees on another map.
//!
//! A shard that the map gives to this process is taken, once: with the copy of it that is here, if that is whole and the map
//! knows of it; else empty. A shard that the map gives to another stays here as a copy until the map says that it is of no use, or its
//! owner that it is to be filled anew. What an earlier process left on the disk is such a copy, for the very next epoch only.
//!
//! It does not know disks, links or leases. On a node that is alone nothing ever changes here.

use crate::control::View;
use crate::storage::frame::{Deed, Tenure};
use crate::storage::{Share, Shelf};
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::Command;
use tidings_router::control::map;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::{self, Arrived, Gap, Part, Receiver};
use tidings_router::owner::taking::Assignment;
use tidings_router::owner::{Input, Output, Owner};

/// The epoch of a shard's first owner.
const FIRST: Epoch = Epoch(1);

/// Something to be done because of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The shard is ours since this epoch; or its floor is higher than was known.
    Take(Assignment),
    /// It is somebody else's.
    Release(ShardId),
    /// What an earlier process left of it is of no use any more.
    Forget(ShardId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Holdings {
    copies: Receiver,
    /// Copies that an earlier process left on the disk.
    from_disk: BTreeSet<ShardId>,
    /// Where the epochs of the shards that are owned began.
    begins: BTreeMap<ShardId, Version>,
}

impl Holdings {
    pub(crate) fn new(config: tidings_router::owner::Config, shelf: Shelf) -> Self {
        Self {
            from_disk: shelf.here.iter().map(|(shard, _)| *shard).collect(),
            copies: Receiver::resume(config, shelf.tables, shelf.here),
            begins: BTreeMap::new(),
        }
    }

    /// Nothing.
    pub(crate) fn none(config: tidings_router::owner::Config) -> Self {
        Self {
            copies: Receiver::new(config),
            from_disk: BTreeSet::new(),
            begins: BTreeMap::new(),
        }
    }

    /// What an earlier process left, with the epoch of which it is complete.
    #[cfg(test)]
    pub(crate) fn on_shelf(&self) -> impl Iterator<Item = (ShardId, Epoch)> {
        let copies = self.copies.copies();
        copies
            .map(|(shard, epoch, _)| (shard, epoch))
            .filter(|(shard, _)| self.from_disk.contains(shard))
    }

    /// Copies of shards that others own, whole and not.
    pub(crate) fn copies(&self) -> &Receiver {
        &self.copies
    }

    /// What is to be done with these shards of `machine` under a view.
    pub(crate) fn steps(&self, machine: &Owner, shards: &[ShardId], view: &View) -> Vec<Step> {
        let mut steps = Vec::new();
        for id in shards {
            let Some(agreed) = view.map.shard(*id) else { continue };
            let owned = machine.epoch(*id);
            let is_ours = agreed.owner == Some(view.me);
            // A map that nobody confirmed in this life may be of the time before a crash: it shows what is not ours, but not
            // what is. Nor does one that is older than what an owner of the shard has said.
            let take = is_ours && view.confirmed && self.copies.newest(*id) <= agreed.epoch;
            match owned {
                None if take => steps.push(Step::Take(assignment(*id, agreed))),
                Some(epoch) if take && epoch < agreed.epoch => steps.push(Step::Take(assignment(*id, agreed))),
                Some(epoch) if take && epoch == agreed.epoch && machine.floor(*id) < Some(agreed.floor) => {
                    steps.push(Step::Take(assignment(*id, agreed)));
                }
                Some(epoch) if !is_ours && epoch < agreed.epoch => steps.push(Step::Release(*id)),
                Some(_) | None => {}
            }
            if self.from_disk.contains(id) {
                let kept = self.copies.epoch(*id);
                // At its own epoch, or handed on from it to this process, it may yet be of use.
                let of_use = |kept: Epoch| agreed.epoch <= kept || (is_ours && follows(agreed.epoch, kept));
                if kept.is_some_and(|kept| !of_use(kept)) {
                    steps.push(Step::Forget(*id));
                }
            }
        }
        steps
    }

    /// What part the map gives this process in these shards. Copies that are of no use any more come out as dropped.
    pub(crate) fn heed(&mut self, shards: &[ShardId], view: &View, out: &mut Vec<receiver::Output>) {
        for id in shards {
            let Some(agreed) = view.map.shard(*id) else { continue };
            let part = match () {
                () if agreed.owner == Some(view.me) => Part::Owner,
                () if agreed.in_sync.contains(&view.me) => Part::InSync,
                () if agreed.filling.contains(&view.me) => Part::Filling,
                () => Part::Nothing,
            };
            self.copies.heed(*id, agreed.epoch, part, out);
        }
        self.copies.retain_streams(|process| !view.map.is_superseded(process));
    }

    /// Takes a batch of an owner elsewhere. What an earlier process left of a shard that it begins anew is offered no more.
    ///
    /// # Errors
    /// If batches are missing before it. Nothing was taken.
    pub(crate) fn copy(
        &mut self,
        now: Now,
        from: Process,
        batch: Arrived,
        out: &mut Vec<receiver::Output>,
    ) -> Result<(), Gap> {
        let before = out.len();
        self.copies.take(now, from, batch, out)?;
        for output in &out[before..] {
            if let receiver::Output::Write { standings, .. } = output {
                for standing in standings {
                    self.from_disk.remove(&standing.shard);
                }
            }
        }
        Ok(())
    }

    /// Somebody knows of this epoch of the shard.
    pub(crate) fn heard_of(&mut self, shard: ShardId, epoch: Epoch) {
        self.copies.heard_of(shard, epoch);
    }

    /// Takes a shard, or raises the floor of one that is owned since this epoch. What has to be written before anything else is
    /// done with it; `None` if nothing has to.
    pub(crate) fn take(
        &mut self,
        machine: &mut Owner,
        now: Now,
        assignment: Assignment,
        out: &mut Vec<Output>,
    ) -> Option<Tenure> {
        let Assignment {
            shard, epoch, begins, ..
        } = assignment;
        let owned = machine.epoch(shard);
        // Where a floor is as high as the epoch begins, nothing from before counts.
        let goes_on = assignment.floor < begins;
        let from_disk = self.from_disk.remove(&shard);
        let copy = self.copies.promote(shard);
        // The map gives a shard that goes on to whom it knows in sync, or for the next epoch to whose disk is whole.
        let copy = copy.filter(|(_, known, whole)| *whole && goes_on && (!from_disk || follows(epoch, *known)));
        let is_here = owned.is_some_and(|owned| owned < epoch) && goes_on;
        let deed = match (owned, &copy) {
            (Some(owned), _) if is_here && follows(epoch, owned) => Deed::Continued,
            (None, Some((_, known, _))) if follows(epoch, *known) => Deed::Continued,
            (None, Some(_)) => Deed::Kept,
            _ if is_here => Deed::Kept,
            _ => Deed::Begun,
        };
        if is_here {
            // It stays as it is, in the next epoch.
            let goes_on = Input::Assign {
                shards: vec![shard],
                epoch,
                floor: assignment.floor,
                cause: assignment.cause,
            };
            machine.handle(now, goes_on, out);
        }
        let table = copy.filter(|_| owned.is_none()).map(|(table, ..)| table);
        if !machine.take_over(now, assignment, table, out) || owned == Some(epoch) {
            return None;
        }
        machine.set_paused(shard, false);
        self.begins.insert(shard, begins);
        Some(Tenure {
            shard,
            epoch,
            begins,
            floor: machine.kept_floor(shard)?,
            deed,
        })
    }

    /// Lets a shard go. It stays here as a copy: whoever owns it now may count on that.
    pub(crate) fn release(&mut self, machine: &mut Owner, now: Now, shard: ShardId, out: &mut Vec<Output>) {
        self.begins.remove(&shard);
        if let Some(epoch) = machine.epoch(shard)
            && let Some(table) = machine.give_up(shard, out)
        {
            self.copies.restore(now, shard, epoch, table);
        }
    }

    /// Drops the copy of a shard. What has to be written of that.
    pub(crate) fn forget(&mut self, shard: ShardId) -> Option<Tenure> {
        self.from_disk.remove(&shard);
        let epoch = self.copies.forget(shard)?;
        Some(Tenure::ended(shard, epoch))
    }

    /// Floors that are higher here than the map knows, of shards that are owned under it: it has to know them too (rule R7).
    pub(crate) fn floors_above(&self, machine: &Owner, view: &View) -> Vec<Command> {
        let owned = self.begins.iter().filter_map(|(shard, begins)| {
            let agreed = view.map.shard(*shard)?;
            let floor = machine.kept_floor(*shard)?;
            // Before a shard's first epoch there was nothing that could have been missed.
            let is_first = agreed.epoch == FIRST && floor.version <= *begins;
            let is_news = agreed.owner == Some(view.me)
                && machine.epoch(*shard) == Some(agreed.epoch)
                && floor.version > agreed.floor
                && !is_first;
            is_news.then_some(Command::RaiseFloor {
                shard: *shard,
                epoch: agreed.epoch,
                by: view.me,
                floor: floor.version,
                cause: floor.cause,
            })
        });
        owned.collect()
    }

    /// A piece of what is here of a shard, owned or a copy.
    pub(crate) fn share(&self, machine: &Owner, shard: ShardId, piece: usize) -> Share {
        let begins = self.begins.get(&shard).copied().unwrap_or(Version::ZERO);
        let owned = share(machine, shard, piece, begins, Deed::Begun);
        let whole = self.copies.is_complete(shard);
        let deed = if whole == Some(true) {
            Deed::Begun
        } else {
            Deed::Filling
        };
        let copy = || share(self.copies.shelf(), shard, piece, Version::ZERO, deed);
        owned.or_else(|| whole.and_then(|_| copy())).unwrap_or(Share::Absent)
    }
}

/// Whether an epoch is the one after another.
fn follows(epoch: Epoch, other: Epoch) -> bool {
    other.0.checked_add(1) == Some(epoch.0)
}

fn assignment(shard: ShardId, agreed: &map::Shard) -> Assignment {
    Assignment {
        shard,
        epoch: agreed.epoch,
        begins: agreed.begins,
        floor: agreed.floor,
        cause: agreed.cause,
    }
}

fn share(machine: &Owner, shard: ShardId, piece: usize, begins: Version, deed: Deed) -> Option<Share> {
    let tenure = Tenure {
        shard,
        epoch: machine.epoch(shard)?,
        begins,
        floor: machine.kept_floor(shard)?,
        deed,
    };
    let versions = machine.kept_versions(shard, piece);
    Some(Share::Here { versions, tenure })
}
