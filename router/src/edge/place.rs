//! Where the lane stands, and what a client's cursor is worth here.

use super::Lane;
use crate::now::Now;
use tidings_protocol::{ClusterId, Cursor, ObjectHash, ShardId, Version};

/// Shards that lag behind the newest by more than this do not hold the cursor back; they are named in it instead. Twice the
/// second within which even an idle owner of another node closes.
const LAG_US: u64 = 2_000_000;
/// How far above everything known here a cursor may be before it is taken for a forgery: other lanes and owners are a
/// little ahead of this one.
const AHEAD_US: u64 = 10_000_000;

/// Up to where every change has arrived: one version for all shards, and the few that lag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Every change up to here of every shard that is not named in `lagging` has arrived.
    pub base: Version,
    /// Shards for which less is known, with what is known.
    pub lagging: Vec<(ShardId, Version)>,
    /// The highest closed version of any shard.
    pub newest: Version,
}

impl Place {
    /// From each shard's closed version, in shard order.
    pub(super) fn of(closed: impl Iterator<Item = Version> + Clone) -> Self {
        let newest = closed.clone().max().unwrap_or_default();
        let border = Version(newest.0.saturating_sub(LAG_US));
        let lags = |version: Version| version == Version::ZERO || version < border;
        let base = closed.clone().filter(|&v| !lags(v)).min().unwrap_or_default();
        let numbered = closed
            .enumerate()
            .map(|(shard, version)| (ShardId(shard as u16), version));
        let lagging = numbered.filter(|&(_, v)| base > Version::ZERO && lags(v)).collect();
        Self { base, lagging, newest }
    }

    /// The cursor of a client that was told everything up to here and, above it, `told` (sorted by object).
    pub(super) fn cursor(&self, cluster: ClusterId, told: Vec<(ObjectHash, Version)>) -> Cursor {
        Cursor {
            cluster,
            base: self.base,
            lagging: self.lagging.clone(),
            told,
        }
    }

    /// What is known of one shard.
    pub(super) fn at(&self, shard: ShardId) -> Version {
        match self.lagging.binary_search_by_key(&shard, |&(s, _)| s) {
            Ok(at) => self.lagging[at].1,
            Err(_) => self.base,
        }
    }
}

/// What a client's cursor is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorVerdict {
    /// The client brought none: it starts from now.
    None,
    /// It was told everything up to here.
    At(Box<Cursor>),
    /// Nothing can be said about what it missed, for this reason: everything it asks for is to be fetched again.
    Resync(&'static str),
}

impl CursorVerdict {
    /// Reads a client's cursor. Never an error: a cursor that is worth nothing means resync. No version above `highest` was
    /// ever given.
    fn read(text: Option<&str>, cluster: ClusterId, highest: Version) -> Self {
        let Some(text) = text else { return Self::None };
        let Ok(cursor) = Cursor::decode(text) else {
            return Self::Resync("cursor_unreadable");
        };
        if cursor.cluster != cluster {
            return Self::Resync("cursor_foreign");
        }
        let claimed = cursor
            .lagging
            .iter()
            .map(|&(_, v)| v)
            .chain(cursor.told.iter().map(|&(_, v)| v));
        if claimed.fold(cursor.base, Version::max) > highest {
            return Self::Resync("cursor_future");
        }
        Self::At(Box::new(cursor))
    }
}

impl Lane {
    /// Versions of the cluster may go up to here. The highest one that was ever heard of counts: where versions run ahead of
    /// the clocks, a cursor that does so too is none from the future.
    pub fn set_ceiling(&mut self, ceiling: Version) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    pub(super) fn read_cursor(&self, text: Option<&str>, now: Now) -> CursorVerdict {
        let ahead_us = self.upstream.place.newest.0.max(now.wall_us).saturating_add(AHEAD_US);
        CursorVerdict::read(text, self.config.cluster, self.ceiling.max(Version(ahead_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(closed: &[u64]) -> Place {
        Place::of(closed.iter().map(|&v| Version(v)))
    }

    #[test]
    fn the_slowest_shard_holds_the_base_back() {
        let place = place(&[5_000_000, 4_500_000, 4_900_000]);
        assert_eq!(place.base, Version(4_500_000));
        assert_eq!(place.lagging, []);
    }

    #[test]
    fn a_shard_that_lags_more_than_two_seconds_is_named_instead() {
        let place = place(&[5_000_000, 2_999_999, 4_900_000, 0]);
        assert_eq!(place.base, Version(4_900_000));
        assert_eq!(
            place.lagging,
            [(ShardId(1), Version(2_999_999)), (ShardId(3), Version(0))]
        );
        assert_eq!(place.at(ShardId(1)), Version(2_999_999));
        assert_eq!(place.at(ShardId(2)), Version(4_900_000));
    }

    #[test]
    fn where_nothing_is_known_the_base_is_zero() {
        assert_eq!(place(&[0, 0]), Place::default());
    }
}
