//! What an owner gives to a disk, and takes back from it after a restart.
//!
//! Everything is given piece by piece, so that nothing waits for it, and taken back in any order: the newest version of
//! an object counts, of marks the one taken back last. It does not know disks or when it is asked.

use super::{Owner, Shard};
use crate::now::MonoUs;
use crate::staggered::PIECES;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ObjectHash, ShardId, Version};

/// Into how many pieces a shard's versions are cut. Each is given at one go: at 20 million objects in 256 shards about
/// 5,000 versions.
pub const SHARD_PIECES: usize = PIECES;

/// Into how many pieces the marks of an owner are cut.
pub const MARK_PIECES: usize = 2 * PIECES;

/// A shard's floor and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Below this version the owner cannot vouch for the shard.
    pub version: Version,
    /// Why it is where it is.
    pub cause: FloorCause,
}

impl Owner {
    /// No version above this one is given or closed from now on. Without a word about it there is no such bound.
    pub fn set_ceiling(&mut self, ceiling: Version) {
        self.ceiling = ceiling;
    }

    /// No version up to this one is given or closed again.
    pub fn resume_above(&mut self, version: Version) {
        self.closed = self.closed.max(version);
    }

    /// Takes an object's version back, unless a newer one is known. `false` if its shard is not owned here.
    pub fn restore(&mut self, object: ObjectHash, version: Version) -> bool {
        let Some(shard) = self.shard_mut(self.config.shards.shard(object)) else {
            return false;
        };
        if version.0 >= Version::LIMIT {
            return false;
        }
        shard.last = shard.last.max(version);
        let grown = if shard.versions.get(object) < version {
            shard.versions.set(object, version)
        } else {
            0
        };
        self.bytes += grown;
        self.highest = self.highest.max(version);
        true
    }

    /// Takes an object's last revision back.
    pub fn restore_revision(&mut self, key: u128, revision: u64) {
        self.revisions.restore(key, revision);
    }

    /// Takes the answer to an idempotency key back; its window begins anew.
    pub fn restore_answer(&mut self, key: u128, version: Version, now_us: MonoUs) {
        self.answers.put(key, version, now_us);
    }

    /// The floor of a shard as it is kept, if the shard is owned.
    #[must_use]
    pub fn kept_floor(&self, shard: ShardId) -> Option<Floor> {
        let shard = self.shards.get(usize::from(shard.0))?.as_ref()?;
        Some(Floor {
            version: shard.floor,
            cause: shard.cause,
        })
    }

    /// One of the [`SHARD_PIECES`] pieces of a shard's versions. An object's hash comes back with other bits where the
    /// table does not keep them; [`Owner::restore`] takes it for the same object.
    #[must_use]
    pub fn kept_versions(&self, shard: ShardId, piece: usize) -> Vec<(ObjectHash, Version)> {
        let known = self.shards.get(usize::from(shard.0)).and_then(Option::as_ref);
        known.map_or_else(Vec::new, |known| known.versions.piece(u64::from(shard.0), piece))
    }

    /// One of the [`MARK_PIECES`] pieces of the revisions, older ones in the first half.
    #[must_use]
    pub fn kept_revisions(&self, piece: usize) -> Vec<(u128, u64)> {
        self.revisions.piece(piece)
    }

    /// One of the [`MARK_PIECES`] pieces of the answers, older ones in the first half.
    #[must_use]
    pub fn kept_answers(&self, piece: usize) -> Vec<(u128, Version)> {
        self.answers.piece(piece)
    }

    fn shard_mut(&mut self, shard: ShardId) -> Option<&mut Shard> {
        self.shards.get_mut(usize::from(shard.0))?.as_mut()
    }
}
