//! Every word between an owner and those who hold copies of its shards.
//!
//! One stream joins one owner (a thread of a process) with one process that holds copies, FIFO. It is made of numbered
//! batches; what is not confirmed is sent again when a connection comes back, in order. A stream that its owner gave up begins
//! a new life with number 1. Versions only rise and marks are kept by their key, so what of a shard comes in which order
//! between its `Begin` and its `Complete` makes no difference.

use crate::id::{ObjectHash, ShardId};
use crate::mesh::{FrameError, MAX_ENTRIES, MAX_FRAME_BYTES};
use crate::peer::FloorCause;
use crate::version::{Epoch, Version};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The answer to an idempotency key as copies keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedAnswer {
    /// The 128-bit key, in halves.
    pub key: (u64, u64),
    /// What was answered.
    pub version: Version,
    /// When it was answered for the first time, in microseconds of the owner's wall clock.
    pub wall_us: u64,
}

/// The last revision of an object as copies keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedRevision {
    /// The object's 128-bit key, in halves.
    pub key: (u64, u64),
    /// The revision.
    pub revision: u64,
    /// The version that the change with it got.
    pub version: Version,
}

/// What happened to a shard, or a part of what its owner knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// What follows is of this epoch. With `replace`, what the copy had is void: it is in sync again only behind `Complete`.
    /// Without, what it had was in sync and stays so: the owner only brings it level.
    #[serde(rename = "b")]
    Begin {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
        /// Whether what the copy had is void.
        replace: bool,
        /// Below this version nobody can vouch for the shard (rule R7).
        floor: Version,
        /// Why the floor is where it is.
        cause: FloorCause,
    },
    /// Objects' versions.
    #[serde(rename = "v")]
    Versions {
        /// Of this shard.
        shard: ShardId,
        /// In this epoch.
        epoch: Epoch,
        /// Each with its version.
        versions: Vec<(ObjectHash, Version)>,
    },
    /// Revisions and answers to idempotency keys.
    #[serde(rename = "m")]
    Marks {
        /// Of this shard.
        shard: ShardId,
        /// In this epoch.
        epoch: Epoch,
        /// Newest revisions.
        revisions: Vec<CopiedRevision>,
        /// Answers.
        answers: Vec<CopiedAnswer>,
    },
    /// The floor rose.
    #[serde(rename = "f")]
    Floor {
        /// Of this shard.
        shard: ShardId,
        /// In this epoch.
        epoch: Epoch,
        /// To this.
        floor: Version,
        /// Because of this.
        cause: FloorCause,
    },
    /// Everything that the owner knew at `Begin` was sent.
    #[serde(rename = "c")]
    Complete {
        /// Of this shard.
        shard: ShardId,
        /// In this epoch.
        epoch: Epoch,
    },
    /// Nothing more of the shard will come in this epoch: the copy is of no use any more.
    #[serde(rename = "e")]
    End {
        /// Of this shard.
        shard: ShardId,
        /// In this epoch.
        epoch: Epoch,
    },
}

impl Entry {
    /// Of which shard, in which epoch.
    #[must_use]
    pub fn of(&self) -> (ShardId, Epoch) {
        match self {
            Self::Begin { shard, epoch, .. }
            | Self::Versions { shard, epoch, .. }
            | Self::Marks { shard, epoch, .. }
            | Self::Floor { shard, epoch, .. }
            | Self::Complete { shard, epoch }
            | Self::End { shard, epoch } => (*shard, *epoch),
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const HEAD: usize = 24;
        match self {
            Self::Begin { .. } | Self::Floor { .. } | Self::Complete { .. } | Self::End { .. } => HEAD,
            Self::Versions { versions, .. } => HEAD + 20 * versions.len(),
            Self::Marks { revisions, answers, .. } => HEAD + 40 * revisions.len() + 40 * answers.len(),
        }
    }
}

/// One word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// From the node with owners, before anything else.
    #[serde(rename = "h")]
    Owners {
        /// How many it has. Owner `i` has the shards `s` with `s % owners == i`.
        owners: u16,
    },
    /// From the owner: a batch.
    #[serde(rename = "b")]
    Batch {
        /// Which owner of the node.
        owner: u16,
        /// Which life of the stream.
        life: u32,
        /// Its number in this life, from 1, without gaps.
        place: u64,
        /// Whether somebody waits for it to be synced to disk.
        sync: bool,
        /// In this order.
        #[serde(with = "shared")]
        entries: Arc<Vec<Entry>>,
    },
    /// From the copy: every batch up to here is in its log file, and up to there synced.
    #[serde(rename = "c")]
    Confirmed {
        /// Of this owner's stream.
        owner: u16,
        /// In this life of it.
        life: u32,
        /// The last one written.
        written: u64,
        /// The last one synced.
        synced: u64,
    },
    /// From the copy, ahead of the batch's confirmation: it has no copy of the shard in this epoch, so what this batch said of
    /// it came to nothing. Everything has to be sent again, from `Begin` on.
    #[serde(rename = "l")]
    Lacks {
        /// Of this owner's stream.
        owner: u16,
        /// In this life of it.
        life: u32,
        /// The batch.
        place: u64,
        /// The shard.
        shard: ShardId,
        /// The epoch.
        epoch: Epoch,
    },
    /// From the copy: it knows of a newer epoch of the shard, and takes nothing of the older one.
    #[serde(rename = "n")]
    Refused {
        /// Of this owner's stream.
        owner: u16,
        /// The shard.
        shard: ShardId,
        /// The newer epoch.
        epoch: Epoch,
    },
}

/// Appends the frame's bytes.
///
/// # Errors
/// [`FrameError::TooLong`] if it was not cut as it should have been; `out` is as before.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let before = out.len();
    let written = rmp_serde::encode::write(out, frame);
    let bytes = out.len() - before;
    match written {
        Ok(()) if bytes <= MAX_FRAME_BYTES => Ok(()),
        Ok(()) => {
            out.truncate(before);
            Err(FrameError::TooLong { bytes })
        }
        Err(error) => {
            out.truncate(before);
            Err(FrameError::Malformed(error.to_string()))
        }
    }
}

/// Reads the one frame that `bytes` are.
///
/// # Errors
/// Says what is wrong.
pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    let frame = Frame::deserialize(&mut reader).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if reader.position() != bytes.len() as u64 {
        return Err(FrameError::Malformed("bytes are left behind the frame".to_owned()));
    }
    let Frame::Batch { entries, .. } = &frame else {
        return Ok(frame);
    };
    let possible = |fine: bool, what| {
        if fine {
            Ok(())
        } else {
            Err(FrameError::Impossible(what))
        }
    };
    possible(entries.len() <= MAX_ENTRIES, "number of entries")?;
    for entry in entries.iter() {
        match entry {
            Entry::Begin { floor, .. } | Entry::Floor { floor, .. } => possible(floor.0 < Version::LIMIT, "version")?,
            Entry::Versions { versions, .. } => {
                let fine = versions.iter().all(|(_, version)| version.0 < Version::LIMIT);
                possible(fine, "version")?;
            }
            Entry::Marks { revisions, answers, .. } => {
                let limit = crate::limits::REVISION_LIMIT;
                possible(revisions.iter().all(|mark| mark.revision < limit), "revision")?;
                possible(revisions.iter().all(|mark| mark.version.0 < Version::LIMIT), "version")?;
                possible(answers.iter().all(|a| a.version.0 < Version::LIMIT), "version")?;
            }
            Entry::Complete { .. } | Entry::End { .. } => {}
        }
    }
    Ok(frame)
}

/// Entries that whoever sends them keeps until they are confirmed.
mod shared {
    use super::Entry;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(entries: &Arc<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
        entries.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<Entry>>, D::Error> {
        Vec::deserialize(from).map(Arc::new)
    }
}
