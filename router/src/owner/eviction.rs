//! What happens when the version tables are over their budget: the oldest versions are dropped.
//!
//! First the floor of every shard is raised above a version that enough objects are not above, and that is announced;
//! from then on nobody relies on what lies below. Only then, and piece by piece, is what lies below its shard's floor
//! dropped. So no version at or above a floor is ever forgotten, however the sweep is interrupted.

use super::{Output, Owner};
use tidings_protocol::Version;
use tidings_protocol::peer::{FloorCause, OwnerToEdge};

/// How many versions are looked at to find out how old the oldest are. The share dropped is then within one percent.
const SAMPLE: usize = 16_384;

/// The budget is left with one part in this many free, so that the next eviction is not at once.
const SLACK: usize = 16;

impl Owner {
    /// Raises the floors and begins to drop, unless that is under way.
    pub(super) fn evict_if_over_budget(&mut self, out: &mut Vec<Output>) {
        if self.bytes <= self.config.version_table_bytes || self.sweeps.evicts() {
            return;
        }
        let Some(floor) = self.floor_to_fit() else { return };
        let mut raised = Vec::new();
        for (id, shard) in self.config.shards.all().zip(&mut self.shards) {
            let Some(shard) = shard.as_mut().filter(|shard| shard.floor < floor) else {
                continue;
            };
            shard.raise_floor(floor, FloorCause::Evicted);
            raised.push(shard.owned(id));
        }
        if !raised.is_empty() {
            self.seats.tell_all(&OwnerToEdge::Own { shards: raised }, out);
        }
        self.sweeps.begin_eviction();
    }

    /// The floor under which so many objects lie that the others fit the budget with some slack.
    fn floor_to_fit(&self) -> Option<Version> {
        let owned = self.shards.iter().flatten();
        let of_each = SAMPLE.div_ceil(owned.clone().count().max(1));
        let mut sample = Vec::with_capacity(2 * SAMPLE);
        for shard in owned {
            shard.versions.sample(of_each, &mut sample);
        }
        let budget = self.config.version_table_bytes;
        let target = budget - budget / SLACK;
        // The tables cost nearly the same for each object at every size.
        let dropped =
            (sample.len() as u128 * (self.bytes.saturating_sub(target)) as u128 / self.bytes.max(1) as u128) as usize;
        let at = dropped.min(sample.len().checked_sub(1)?);
        let (_, newest_dropped, _) = sample.select_nth_unstable(at);
        Some(newest_dropped.next())
    }
}
