//! What several owners do in a cluster: a shard goes from one to the other with what is known of it, the old one hears of
//! it late, and leases end.

use crate::world::{NO_CEILING, World, owner_config};
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::owner::keeping::SHARD_PIECES;
use tidings_router::owner::taking::{Assignment, Table};
use tidings_router::owner::{Input, Owner};

impl World {
    /// All that the owner of a shard knows of it, by way of a shelf, as if it came from a disk.
    fn copy(&self, shard: ShardId, owner: usize, epoch: Epoch) -> Option<Table> {
        let old = &self.owners[owner];
        let floor = old.kept_floor(shard)?;
        let mut shelf = Owner::new(owner_config(&self.shape));
        let assign = Input::Assign {
            shards: vec![shard],
            epoch,
            floor: floor.version,
            cause: floor.cause,
        };
        shelf.handle(self.now, assign, &mut Vec::new());
        for (object, version) in (0..SHARD_PIECES).flat_map(|piece| old.kept_versions(shard, piece)) {
            assert!(shelf.restore(object, version));
        }
        shelf.take_table(shard)
    }

    /// A shard goes to another owner with everything known of it. Its epoch begins above everything that was given or closed,
    /// and the old owner, which hears of it only in [`World::tell_replaced`], goes no further.
    pub fn hand_over(&mut self, shard: u16, to: usize, ahead_us: u64) {
        self.tell_replaced();
        let (Some(from), epoch) = self.map[usize::from(shard)] else {
            return;
        };
        if from == to {
            return;
        }
        self.step += 1;
        let id = ShardId(shard);
        let table = self.copy(id, from, Epoch(epoch));
        let begins = Version(self.highest + 1 + ahead_us);
        self.highest = begins.0;
        for owner in 0..self.owners.len() {
            let ceiling = if owner == from { begins.before() } else { NO_CEILING };
            self.owners[owner].set_ceiling(ceiling);
        }
        for lane in &mut self.lanes {
            // The ceiling is always ahead of what is in use.
            lane.set_ceiling(Version(begins.0 + 10_000_000));
        }
        self.map[usize::from(shard)] = (Some(to), epoch + 1);
        let assignment = Assignment {
            shard: id,
            epoch: Epoch(epoch + 1),
            begins,
            floor: Version::ZERO,
            cause: tidings_protocol::peer::FloorCause::Lost,
        };
        self.owner(to, |owner, now, out| {
            assert!(owner.take_over(now, assignment, table, out));
        });
        self.replaced.push((from, shard));
    }

    /// An owner has no lease for a while.
    pub fn lapse(&mut self, owner: usize, for_us: u64) {
        self.owners[owner].set_lease(self.now.mono_us);
        self.leases_us[owner] = Some(self.now.mono_us + for_us);
    }
}
