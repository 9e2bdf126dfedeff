//! How a shard changes hands: what is known of it comes with it, or it starts empty.
//!
//! What was taken back from a disk lies on a *shelf*: another [`Owner`], which has no links, gives no versions, and whose
//! shards wait there until somebody says who owns them. What is on it is lifted from it and put into the owner that
//! gives versions as a whole, without looking at its objects.
//!
//! It does not know who decides, or whether a table is the one that the epoch before ended with: whoever assigns does.

use super::keeping::Floor;
use super::{Output, Owner, Shard};
use crate::now::Now;
use crate::owner::interest::Interest;
use crate::owner::version_table::VersionTable;
use tidings_protocol::peer::{FloorCause, OwnerToEdge};
use tidings_protocol::{Epoch, ShardId, Version};

/// What is known of one shard: versions and floor, without who wants to hear of it.
#[derive(Debug)]
pub struct Table {
    shard: ShardId,
    epoch: Epoch,
    floor: Version,
    cause: FloorCause,
    last: Version,
    versions: VersionTable,
}

impl Table {
    /// Of which shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The epoch in which it was written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Below which it cannot vouch for the shard.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor {
            version: self.floor,
            cause: self.cause,
        }
    }

    /// How many objects it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.versions.bytes()
    }
}

/// A shard is somebody's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which.
    pub shard: ShardId,
    /// Since this epoch.
    pub epoch: Epoch,
    /// No version of this epoch is below.
    pub begins: Version,
    /// Below this version nobody can vouch for the shard. May be far below `begins` where a table comes along.
    pub floor: Version,
    /// Why the floor is where it is.
    pub cause: FloorCause,
}

impl Owner {
    /// Whether changes of a shard are to be refused ([`super::Published::Paused`]) although it is owned here: it is being
    /// handed over. A new epoch begins without.
    pub fn set_paused(&mut self, shard: ShardId, paused: bool) {
        if let Some(shard) = self.shards.get_mut(usize::from(shard.0)).and_then(Option::as_mut) {
            shard.paused = paused;
        }
    }

    /// Owns a shard no more, as a release, and gives what is known of it: the node may go on holding a copy.
    pub fn give_up(&mut self, shard: ShardId, out: &mut Vec<Output>) -> Option<Table> {
        let table = self.table_of(shard)?;
        self.say_gone(vec![shard], out);
        Some(table)
    }

    /// Lifts what is known of a shard from a shelf, in a step as short for many objects as for few. The shard is not owned here
    /// afterwards. `None` if it was not, or if a link is up: it would have to hear that the shard is gone; give it up.
    pub fn take_table(&mut self, shard: ShardId) -> Option<Table> {
        if self.seats.peers().next().is_some() {
            return None;
        }
        self.table_of(shard)
    }

    fn table_of(&mut self, shard: ShardId) -> Option<Table> {
        let Shard {
            epoch,
            floor,
            cause,
            last,
            versions,
            ..
        } = self.lift(shard)?;
        Some(Table {
            shard,
            epoch,
            floor,
            cause,
            last,
            versions,
        })
    }

    /// Drops what a shelf has of a shard. `false` in the cases in which [`Owner::take_table`] gives nothing.
    pub fn forget(&mut self, shard: ShardId) -> bool {
        self.take_table(shard).is_some()
    }

    /// Goes on owning a shard in a later epoch, with all that is known of it: whoever owned it in between was this process
    /// itself. `false`, and nothing happens, if it is not owned here since an earlier epoch.
    pub fn go_on(&mut self, now: Now, assignment: Assignment, out: &mut Vec<Output>) -> bool {
        let Assignment {
            shard: id,
            epoch,
            begins,
            floor,
            cause,
        } = assignment;
        let known = self.shards.get_mut(usize::from(id.0)).and_then(Option::as_mut);
        let known = known.filter(|shard| shard.epoch < epoch && begins.0 < Version::LIMIT);
        let Some(shard) = known else {
            self.counters.ignored += 1;
            return false;
        };
        shard.epoch = epoch;
        shard.paused = false;
        // Its numbers are checked where the same epoch is assigned again.
        shard.last = shard.last.max(begins.before());
        self.take_over(
            now,
            Assignment {
                shard: id,
                epoch,
                begins,
                floor,
                cause,
            },
            None,
            out,
        )
    }

    /// Owns a shard from now on, and tells all links in the same step (rule R8).
    ///
    /// With a table it goes on from there; its floor and the assignment's merge to the higher one (rule R7). Without one it starts
    /// empty, and the floor is at least where the epoch begins (rule R5), unless it is the first one. The same holds if the shard
    /// is owned here since an earlier epoch, save that a floor never falls. No version is given below `begins`, nor at or below
    /// any that was ever given or closed here.
    ///
    /// If the shard is owned here since this very epoch only the floor is raised. A table of another shard, or of a later epoch,
    /// or for a shard that is owned here since this epoch, counts as none. `false`, and nothing happens, if the shard is owned
    /// here since a later epoch or one of the numbers is none that a shard, floor or version can have.
    pub fn take_over(&mut self, now: Now, assignment: Assignment, table: Option<Table>, out: &mut Vec<Output>) -> bool {
        let Assignment {
            shard: id,
            epoch,
            begins,
            floor,
            cause,
        } = assignment;
        let known = self.shards.get(usize::from(id.0));
        let known = known.filter(|_| floor.0 < Version::LIMIT && begins.0 < Version::LIMIT);
        let since = known.map(|known| known.as_ref().map(|shard| shard.epoch));
        let Some(since) = since.filter(|since| since.is_none_or(|since| since <= epoch)) else {
            self.counters.ignored += 1;
            return false;
        };
        let goes_on = since == Some(epoch);
        let fits = |table: &Table| table.shard == id && table.epoch <= epoch && !goes_on;
        self.ignore_unless(table.as_ref().is_none_or(fits));
        if !goes_on {
            self.begin(assignment, table.filter(fits));
        }
        let Some(shard) = self.shards.get_mut(usize::from(id.0)).and_then(Option::as_mut) else {
            return false;
        };
        shard.raise_floor(floor, cause);
        shard.last = shard.last.max(begins.before());
        let owned = shard.owned(id);
        self.seats.tell_all(&OwnerToEdge::Own { shards: vec![owned] }, out);
        self.evict_if_over_budget(out);
        self.close_due(now, out);
        true
    }

    /// Puts a new epoch's shard in the place of whatever is there. Who wanted to hear of the shard still does.
    fn begin(&mut self, assignment: Assignment, table: Option<Table>) {
        let Assignment {
            shard: id,
            epoch,
            begins,
            floor,
            cause,
        } = assignment;
        let bits = self.config.shards.bits();
        let table = table.unwrap_or_else(|| Table {
            shard: id,
            epoch,
            // Nobody gave anything before the first epoch, so nobody needs to doubt.
            floor: if epoch == Epoch(1) { floor } else { floor.max(begins) },
            cause,
            // As if all below the floor had been given: the next `Closed` is above, and nobody has to fetch it twice.
            last: floor.max(begins).before(),
            versions: VersionTable::new(bits),
        });
        // It counts as given here: what is closed next is not below.
        self.highest = self.highest.max(table.last);
        let Some(slot) = self.shards.get_mut(usize::from(id.0)) else {
            return;
        };
        let before = slot.take();
        self.bytes += table.versions.bytes();
        self.bytes -= before.as_ref().map_or(0, |shard| shard.versions.bytes());
        let mut shard = Shard {
            epoch,
            floor: table.floor,
            cause: table.cause,
            last: self.highest,
            versions: table.versions,
            paused: false,
            interest: Interest::new(bits),
        };
        if let Some(before) = before {
            // The links heard of that floor, and what one hears never falls.
            shard.raise_floor(before.floor, before.cause);
            shard.last = shard.last.max(before.last);
            shard.interest = before.interest;
        }
        *slot = Some(shard);
    }
}
