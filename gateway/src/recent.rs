//! What happened here lately: figures of the last minutes and of the last hour, and what became of nodes and shards.
//!
//! Kept so that whoever opens the console sees at once how it came to this. Everything is bounded, one small task gathers it
//! each second, and nothing waits for it. Rooms: `series` and `timeline` decide (pure), `gather` asks lanes, owners and the
//! control plane, `routes` answers, `whole` adds up what all nodes answer.

mod gather;
mod routes;
mod series;
mod timeline;
mod whole;

pub(crate) use gather::record;
pub(crate) use routes::{own_routes, routes};
pub(crate) use whole::of_all;

use series::Series;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use timeline::Timeline;

/// Points of each series, at most.
const POINTS: usize = 300;
/// Milliseconds between two points of the last minutes: five of them.
const SHORT_MS: u64 = 1_000;
/// Milliseconds between two points of the last hour.
const LONG_MS: u64 = 12_000;
/// Events of nodes and shards that are remembered.
const EVENTS: usize = 500;

/// How full something with a bound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
struct Use {
    /// The configuration key that bounds it.
    limit: &'static str,
    used: u64,
    most: u64,
}

#[derive(Debug)]
struct Memory {
    short: Series,
    long: Series,
    timeline: Timeline,
    uses: Vec<Use>,
    /// Counts what became of nodes and shards: while it stays, the map need not be asked for again.
    stamp: u64,
}

/// The memory of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recent(Arc<Mutex<Memory>>);

impl Default for Recent {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Memory {
            short: Series::new(SHORT_MS, POINTS),
            long: Series::new(LONG_MS, POINTS),
            timeline: Timeline::new(EVENTS),
            uses: Vec::new(),
            stamp: 0,
        })))
    }
}

impl Recent {
    /// How full what has a bound was in the last second: the bound's key, how much there is, how much there may be.
    pub(crate) fn uses(&self) -> Vec<(&'static str, u64, u64)> {
        let memory = self.memory();
        let uses = memory.uses.iter();
        uses.map(|one| (one.limit, one.used, one.most)).collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
