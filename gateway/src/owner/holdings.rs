//! What one owner of a cluster's member has of its shards, and what becomes of that when the cluster agrees on another map.
//!
//! A shard that the map gives to this process is taken, once: with the table that lay on the shelf, or with the one that
//! is here already, if it is the one that the epoch before ended with; else empty. A shard that the map gives to another
//! is let go. Whatever lies on the shelf stays there until the map says that it is of no use.
//!
//! It does not know disks, links or leases. On a node that is alone nothing ever changes here.

use crate::control::View;
use crate::storage::frame::{Deed, Tenure};
use crate::storage::{Share, Shelf};
use std::collections::BTreeMap;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::Command;
use tidings_router::control::map;
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
    /// What lies on the shelf is of no use any more.
    Forget(ShardId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Holdings {
    shelf: Owner,
    /// What lies on the shelf, and of which epoch.
    here: BTreeMap<ShardId, Epoch>,
    /// Where the epochs of the shards that are owned began.
    begins: BTreeMap<ShardId, Version>,
}

impl Holdings {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self {
            shelf: shelf.tables,
            here: shelf.here.into_iter().collect(),
            begins: BTreeMap::new(),
        }
    }

    /// Nothing, and nothing on the shelf.
    pub(crate) fn none(config: tidings_router::owner::Config) -> Self {
        Self::new(Shelf {
            tables: Owner::new(config),
            here: Vec::new(),
        })
    }

    /// What the shelf has, with the epoch of which it is complete.
    #[cfg(test)]
    pub(crate) fn on_shelf(&self) -> impl Iterator<Item = (ShardId, Epoch)> {
        self.here.iter().map(|(shard, epoch)| (*shard, *epoch))
    }

    /// What is to be done with these shards of `machine` under a view.
    pub(crate) fn steps(&self, machine: &Owner, shards: &[ShardId], view: &View) -> Vec<Step> {
        let mut steps = Vec::new();
        for id in shards {
            let Some(agreed) = view.map.shard(*id) else { continue };
            let owned = machine.epoch(*id);
            let is_ours = agreed.owner == Some(view.me);
            // A map that nobody confirmed in this life may be of the time before a crash: it shows what is not ours, but not
            // what is.
            let take = is_ours && view.confirmed;
            match owned {
                None if take => steps.push(Step::Take(assignment(*id, agreed))),
                Some(epoch) if take && epoch < agreed.epoch => steps.push(Step::Take(assignment(*id, agreed))),
                Some(epoch) if take && epoch == agreed.epoch && machine.floor(*id) < Some(agreed.floor) => {
                    steps.push(Step::Take(assignment(*id, agreed)));
                }
                Some(epoch) if !is_ours && epoch < agreed.epoch => steps.push(Step::Release(*id)),
                Some(_) | None => {}
            }
            let kept = self.here.get(id).copied();
            // At its own epoch, or handed on from it to this process, it may yet be of use.
            let of_use = |kept: Epoch| agreed.epoch <= kept || (is_ours && follows(agreed.epoch, kept));
            if kept.is_some_and(|kept| !of_use(kept)) {
                steps.push(Step::Forget(*id));
            }
        }
        steps
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
        let before = |known: Epoch| follows(epoch, known) && assignment.floor < begins;
        let is_here = owned.is_some_and(before);
        let on_shelf = owned.is_none() && self.here.get(&shard).copied().is_some_and(before);
        let table = self.forget(shard).filter(|_| on_shelf);
        let deed = if is_here || table.is_some() {
            Deed::Continued
        } else {
            Deed::Begun
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
        if !machine.take_over(now, assignment, table, out) || owned == Some(epoch) {
            return None;
        }
        self.begins.insert(shard, begins);
        Some(Tenure {
            shard,
            epoch,
            begins,
            floor: machine.kept_floor(shard)?,
            deed,
        })
    }

    /// Lets a shard go. What has to be written of that.
    pub(crate) fn release(
        &mut self,
        machine: &mut Owner,
        now: Now,
        shard: ShardId,
        out: &mut Vec<Output>,
    ) -> Option<Tenure> {
        let epoch = machine.epoch(shard)?;
        self.begins.remove(&shard);
        let release = Input::Release { shards: vec![shard] };
        machine.handle(now, release, out);
        Some(Tenure::ended(shard, epoch))
    }

    /// Drops what the shelf has of a shard. What has to be written of that.
    pub(crate) fn drop_from_shelf(&mut self, shard: ShardId) -> Option<Tenure> {
        let epoch = self.here.get(&shard).copied()?;
        self.forget(shard);
        Some(Tenure::ended(shard, epoch))
    }

    fn forget(&mut self, shard: ShardId) -> Option<tidings_router::owner::taking::Table> {
        self.here.remove(&shard)?;
        self.shelf.take_table(shard)
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

    /// A piece of what is here of a shard, owned or on the shelf.
    pub(crate) fn share(&self, machine: &Owner, shard: ShardId, piece: usize) -> Share {
        let begins = self.begins.get(&shard).copied().unwrap_or(Version::ZERO);
        let owned = share(machine, shard, piece, begins);
        owned
            .or_else(|| share(&self.shelf, shard, piece, Version::ZERO))
            .unwrap_or(Share::Absent)
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

fn share(machine: &Owner, shard: ShardId, piece: usize, begins: Version) -> Option<Share> {
    let tenure = Tenure {
        shard,
        epoch: machine.epoch(shard)?,
        begins,
        floor: machine.kept_floor(shard)?,
        deed: Deed::Begun,
    };
    let versions = machine.kept_versions(shard, piece);
    Some(Share::Here { versions, tenure })
}
