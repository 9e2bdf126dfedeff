//! What the model of an owner knows of shards that change hands, of leases and of ceilings.

use super::{LINKS, SHARDS, Step, WINDOW, World, config, object, shard};
use proptest::prelude::*;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::taking::{Assignment, Table};
use tidings_router::owner::{Input, Owner, Published};

/// What was kept of a shard somewhere: how far behind the newest epoch, how far its floor and its versions are behind the
/// clock, and the objects it knows.
#[derive(Clone, Debug)]
pub struct Kept {
    epoch_down: u64,
    floor_behind_us: u64,
    newest_behind_us: i64,
    objects: Vec<u16>,
}

#[derive(Clone, Debug)]
pub struct Move {
    shard: u16,
    epoch_up: i64,
    begins_ahead_us: i64,
    floor_behind_us: u64,
    kept: Option<Kept>,
}

pub fn moves(objects: u16) -> impl Strategy<Value = Step> {
    let kept = (
        0..3_u64,
        0..10_000_000_u64,
        -5_000_000..5_000_000_i64,
        proptest::collection::vec(0..objects, 0..20),
    );
    let kept = kept.prop_map(|(epoch_down, floor_behind_us, newest_behind_us, objects)| Kept {
        epoch_down,
        floor_behind_us,
        newest_behind_us,
        objects,
    });
    // Far above the clock, or below it.
    let begins = prop_oneof![Just(3_600_000_000), -5_000_000..5_000_000_i64];
    let one = (
        0..SHARDS + 1,
        -1..2_i64,
        begins,
        0..20_000_000_u64,
        proptest::option::of(kept),
    );
    one.prop_map(|(shard, epoch_up, begins_ahead_us, floor_behind_us, kept)| {
        Step::Move(Move {
            shard,
            epoch_up,
            begins_ahead_us,
            floor_behind_us,
            kept,
        })
    })
}

pub fn bounds() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_000_000_u64).prop_map(|for_us| Step::Lease { for_us: Some(for_us) }),
        Just(Step::Lease { for_us: None }),
        (-1_000_000..5_000_000_i64).prop_map(|ahead_us| Step::Ceiling {
            ahead_us: Some(ahead_us)
        }),
        Just(Step::Ceiling { ahead_us: None }),
    ]
}

impl World {
    fn behind(&self, us: u64) -> Version {
        Version(self.now.wall_us.saturating_sub(us))
    }

    /// The table as it comes from a shelf, and the versions in it.
    fn shelved(&self, of: u16, kept: &Kept) -> (Option<Table>, Vec<(ObjectHash, Version)>, Version, Epoch) {
        let mut shelf = Owner::new(config(1 << 20));
        let floor = self.behind(kept.floor_behind_us);
        let epoch = Epoch(self.epoch.saturating_sub(kept.epoch_down));
        let assign = Input::Assign {
            shards: vec![ShardId(of)],
            epoch,
            floor,
            cause: FloorCause::Evicted,
        };
        shelf.handle(Now::default(), assign, &mut Vec::new());
        let newest = self.now.wall_us.saturating_add_signed(-kept.newest_behind_us);
        let mut versions = Vec::new();
        for (place, number) in kept.objects.iter().enumerate() {
            let (object, version) = (object(*number), Version(newest - place as u64));
            if shelf.restore(object, version) {
                versions.push((object, version));
            }
        }
        let bytes = shelf.stats().bytes;
        let table = shelf.take_table(ShardId(of));
        assert!(table.as_ref().is_none_or(|table| table.bytes() == bytes));
        assert_eq!((shelf.stats().bytes, shelf.stats().shards), (0, 0));
        (table, versions, floor, epoch)
    }

    pub fn take_over(&mut self, step: &Move) {
        let epoch = Epoch(self.epoch.saturating_add_signed(step.epoch_up));
        self.epoch = self.epoch.max(epoch.0);
        let id = ShardId(step.shard);
        let begins = Version(self.now.wall_us.saturating_add_signed(step.begins_ahead_us));
        let floor = self.behind(step.floor_behind_us);
        let shelved = step.kept.as_ref().map(|kept| self.shelved(step.shard, kept));
        let (table, versions, table_floor, table_epoch) = shelved.unwrap_or_default();
        let since = self.shards.get(&id).map(|(epoch, _)| *epoch);
        let taken = id.0 < SHARDS && since.is_none_or(|since| since <= epoch);
        if taken && since == Some(epoch) {
            let known = self.shards.get_mut(&id).unwrap();
            known.1 = known.1.max(floor);
        } else if taken {
            self.versions.retain(|o, _| shard(*o) != id);
            let fits = table.is_some() && table_epoch <= epoch;
            let floor = if fits {
                floor.max(table_floor)
            } else if epoch == Epoch(1) {
                // Nobody gave anything before the first epoch.
                floor
            } else {
                floor.max(begins)
            };
            let known = self.shards.entry(id).or_insert((epoch, floor));
            *known = (epoch, floor.max(known.1));
            let newest = self.newest_of_shard.entry(id).or_default();
            for (object, version) in versions.into_iter().filter(|_| fits) {
                *newest = (*newest).max(version);
                let known = self.versions.entry(object).or_default();
                *known = (*known).max(version);
            }
            // Edges ask again when they hear of the epoch: what the table knows is told then.
            for link in self.links.values_mut() {
                for object in link.wants.iter().filter(|o| shard(**o) == id) {
                    let told = link.told.entry(*object).or_default();
                    *told = (*told).max(self.versions.get(object).copied().unwrap_or_default());
                }
            }
        }
        if taken {
            let known = self.begins.entry(id).or_default();
            *known = begins.max(*known);
        }
        let assignment = Assignment {
            shard: id,
            epoch,
            begins,
            floor,
            cause: FloorCause::Lost,
        };
        let mut out = Vec::new();
        assert_eq!(self.owner.take_over(self.now, assignment, table, &mut out), taken);
        assert!(taken || out.is_empty());
        self.hear(out);
    }

    pub fn bound_lease(&mut self, for_us: Option<u64>) {
        self.lease_us = for_us.map_or(u64::MAX, |for_us| self.now.mono_us + for_us);
        self.owner.set_lease(self.lease_us);
    }

    pub fn bound_ceiling(&mut self, ahead_us: Option<i64>) {
        let highest = self.owner.highest().0.max(self.now.wall_us);
        let ceiling = ahead_us.map_or(Version::LIMIT - 1, |ahead_us| highest.saturating_add_signed(ahead_us));
        self.ceiling = Version(ceiling);
        self.owner.set_ceiling(self.ceiling);
    }

    pub fn has_lease(&self) -> bool {
        self.now.mono_us < self.lease_us
    }

    /// Whether a version may be given in each shard, as far as the ceiling goes.
    pub fn has_room(&self) -> bool {
        let owned = self.shards.iter().map(|(id, (_, floor))| {
            let begins = self.begins.get(id).copied().unwrap_or_default();
            begins.max(*floor)
        });
        owned.fold(self.owner.highest().next(), Version::max) <= self.ceiling
    }

    /// Whether this is the answer to a change for which there is no lease or perhaps no version.
    pub fn paused(&self, id: ShardId, result: Published) -> bool {
        if !self.has_lease() {
            assert_eq!(result, Published::Paused(id), "a lease is over");
        }
        assert!(
            result != Published::Paused(id) || !self.has_lease() || !self.has_room(),
            "it could have been accepted"
        );
        result == Published::Paused(id)
    }

    /// Nobody is woken up in vain, nor slept past.
    pub fn check_deadline(&self, after_deadline: bool) {
        let next_us = self.owner.next_deadline();
        if after_deadline {
            assert!(next_us.is_none_or(|at_us| at_us > self.now.mono_us), "it spins");
        }
        let idle = self.links.values().any(|model| model.up && model.in_flight == 0);
        let lasts = self.lease_us > self.now.mono_us + 1_000_000;
        assert!(
            next_us.is_some() || !idle || !lasts || !self.has_room(),
            "nobody would wake it up to close"
        );
    }

    /// All faults stop: each link handles everything it gets and is closed over it.
    pub fn settle(&mut self) {
        self.play(Step::Lease { for_us: None });
        self.play(Step::Ceiling { ahead_us: None });
        for link in 0..LINKS {
            while self.links[&link].up && self.links[&link].in_flight > 0 {
                self.play(Step::Handled { link, changes: WINDOW });
            }
        }
        assert_eq!(self.owner.stats().pending, 0);
        let last = self.closed;
        self.now.mono_us += 1_000_000;
        self.play(Step::Deadline);
        for model in self.links.values().filter(|model| model.up) {
            assert!(model.closed > last, "every link hears Closed within a second");
        }
        for _ in 0..SHARDS * 16 {
            self.play(Step::Deadline);
        }
    }
}
