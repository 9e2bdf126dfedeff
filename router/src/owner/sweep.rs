//! Work on whole tables, done a piece at a time so that nothing waits for it.

use super::{Owner, Shard};
use crate::now::MonoUs;
use crate::staggered::PIECES;

/// How long the sweeps rest between two deadlines, in microseconds.
const REST_US: u64 = 1_000;

/// How many pieces of each table are swept at a deadline: at 20 million objects some hundred microseconds.
pub(super) const PIECES_A_TICK: usize = 4;

/// While changes come, one more piece is swept for as many changes, so that memory is freed faster than it is taken.
pub(super) const CHANGES_A_PIECE: usize = 256;

/// How far each sweep has come: the next piece, counted over all shards.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    eviction: Option<usize>,
    interest: Option<usize>,
}

impl Sweeps {
    /// Whether versions are being dropped.
    pub(super) fn evicts(&self) -> bool {
        self.eviction.is_some()
    }

    /// Begins to drop what lies below the floors.
    pub(super) fn begin_eviction(&mut self) {
        self.eviction = Some(0);
    }
}

impl Owner {
    /// Goes on with both sweeps, by at most as many pieces of each.
    pub(super) fn sweep(&mut self, now_us: MonoUs, pieces: usize) {
        if self.sweeps.evicts() {
            self.sweep_versions(pieces);
            self.sweep_us = now_us.saturating_add(REST_US);
        }
        if self.seats.must_sweep() {
            self.sweep_interest(pieces);
            self.sweep_us = now_us.saturating_add(REST_US);
        }
    }

    fn sweep_versions(&mut self, pieces: usize) {
        let Some(mut next) = self.sweeps.eviction else { return };
        for _ in 0..pieces {
            let Some((shard, piece)) = owned_piece(&mut self.shards, &mut next) else {
                break;
            };
            let before = shard.versions.bytes();
            self.counters.evicted += shard.versions.drop_below(piece, shard.floor) as u64;
            self.bytes = self.bytes - before + shard.versions.bytes();
        }
        self.sweeps.eviction = (next < self.shards.len() * PIECES).then_some(next);
    }

    fn sweep_interest(&mut self, pieces: usize) {
        let begun = self.sweeps.interest.or_else(|| self.seats.begin_sweep().then_some(0));
        let Some(mut next) = begun else { return };
        let seats = &self.seats;
        for _ in 0..pieces {
            let Some((shard, piece)) = owned_piece(&mut self.shards, &mut next) else {
                break;
            };
            shard.interest.sweep_piece(piece, |seat| seats.is_swept(seat));
        }
        self.sweeps.interest = (next < self.shards.len() * PIECES).then_some(next);
        if self.sweeps.interest.is_none() {
            self.seats.end_sweep();
        }
    }
}

/// The piece at `next` or, past shards that are not owned, the first one after it; `next` moves on behind it.
fn owned_piece<'a>(shards: &'a mut [Option<Shard>], next: &mut usize) -> Option<(&'a mut Shard, usize)> {
    let first = *next / PIECES;
    let skipped = shards.get(first..)?.iter().position(Option::is_some);
    let Some(skipped) = skipped else {
        *next = shards.len() * PIECES;
        return None;
    };
    let piece = if skipped == 0 { *next % PIECES } else { 0 };
    *next = (first + skipped) * PIECES + piece + 1;
    Some((shards[first + skipped].as_mut()?, piece))
}
