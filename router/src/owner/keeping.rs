//! What an owner gives to a disk, and takes back from it after a restart.
//!
//! Everything is given piece by piece, so that nothing waits for it, and taken back in any order: the newest version of
//! an object counts, of marks the one taken back last. It does not know disks or when it is asked.

use super::{Owner, Shard};
use crate::now::Now;
use crate::staggered::PIECES;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ObjectHash, ShardCount, ShardId, Version};

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

/// The answer to an idempotency key as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The key.
    pub key: u128,
    /// What was answered.
    pub version: Version,
    /// When it was answered for the first time, in microseconds of the wall clock: the only one that two processes share.
    pub wall_us: u64,
}

/// The last revision of an object as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRevision {
    /// The object's key.
    pub key: u128,
    /// The revision.
    pub revision: u64,
    /// The version that the change with it got; [`Version::ZERO`] if that was not kept.
    pub version: Version,
}

/// The shard that a mark's key names in its low bits.
#[must_use]
pub fn shard_of_mark(shards: ShardCount, key: u128) -> ShardId {
    shards.shard(ObjectHash(((key & 0xffff) as u64) << 48))
}

impl Owner {
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
    pub fn restore_revision(&mut self, mark: KeptRevision) {
        self.revisions.put(mark.key, mark.revision, mark.version);
    }

    /// Takes an object's last revision from another owner, unless one as high is known: they may come in any order.
    pub fn raise_revision(&mut self, mark: KeptRevision) {
        let known = self.revisions.last(mark.key);
        if known.is_none_or(|(revision, version)| (revision, version) < (mark.revision, mark.version)) {
            self.restore_revision(mark);
        }
    }

    /// Takes the answer to an idempotency key back, for what is left of its window.
    pub fn restore_answer(&mut self, answer: KeptAnswer, now: Now) {
        let age_us = now.wall_us.saturating_sub(answer.wall_us);
        self.answers.restore(answer.key, answer.version, age_us, now.mono_us);
    }

    /// Forgets every revision and answer of a shard: what is known of its objects is void and comes anew from elsewhere, and a mark
    /// must not speak of a change that only this process knew. Looks at all marks, as whoever sends them does.
    pub fn forget_marks(&mut self, shard: ShardId) {
        let shards = self.config.shards;
        let of_shard = |key: u128| shard_of_mark(shards, key) == shard;
        self.revisions.forget_where(of_shard);
        self.answers.forget_where(of_shard);
    }

    /// Drops what lies below the floors, if the tables are over their budget: it was taken back only because nobody
    /// removes it from where it was kept.
    pub fn forget_below_floors(&mut self) {
        if self.bytes <= self.config.version_table_bytes {
            return;
        }
        for shard in self.shards.iter_mut().flatten() {
            let before = shard.versions.bytes();
            for piece in 0..PIECES {
                shard.versions.drop_below(piece, shard.floor);
            }
            self.bytes = self.bytes - before + shard.versions.bytes();
        }
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
    pub fn kept_revisions(&self, piece: usize) -> Vec<KeptRevision> {
        let marks = self.revisions.piece(piece).into_iter();
        marks
            .map(|(key, revision, version)| KeptRevision { key, revision, version })
            .collect()
    }

    /// One of the [`MARK_PIECES`] pieces of the answers, older ones in the first half.
    #[must_use]
    pub fn kept_answers(&self, piece: usize, now: Now) -> Vec<KeptAnswer> {
        let answers = self.answers.piece(piece, now.mono_us).into_iter();
        answers
            .map(|(key, version, age_us)| KeptAnswer {
                key,
                version,
                wall_us: now.wall_us.saturating_sub(age_us),
            })
            .collect()
    }

    fn shard_mut(&mut self, shard: ShardId) -> Option<&mut Shard> {
        self.shards.get_mut(usize::from(shard.0))?.as_mut()
    }
}
