//! Snapshots: all that is known, one file a shard and one for the marks, so that the log before them can go.
//!
//! They are taken while changes come in. Whatever reached the tables before a snapshot's log file was begun is in it, and
//! what came later is in the log from that file on; what is in both does no harm.

use super::StorageError;
use super::disk::{self, Disk};
use super::frame::{self, FORMAT_ALONE, Head, Origin, Payload, Place, Tenure};
use super::recovery::{Contents, Part, snapshot_name};
use std::io;
use std::ops::Range;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::owner::keeping::{KeptAnswer, KeptRevision, MARK_PIECES, SHARD_PIECES};

/// Gives what is known, a piece at a time. `None`: the process ends.
pub trait Source: Send {
    /// How many owners there are.
    fn owners(&self) -> usize;
    /// Some pieces of a shard's versions.
    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share>;
    /// A piece of an owner's marks: revisions and answers.
    fn marks(&self, owner: usize, piece: usize) -> Option<Marks>;
}

/// What a node has of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// It is here.
    Here {
        /// Some of its versions.
        versions: Vec<(ObjectHash, Version)>,
        /// Since when, with the floor as it was after these were read: begun, or as a copy that is being filled.
        tenure: Tenure,
    },
    /// It is not.
    Absent,
}

/// Revisions and answers.
pub type Marks = (Vec<KeptRevision>, Vec<KeptAnswer>);

/// So many pieces an owner is asked for at once: an owner under load answers between two batches of changes, and must
/// not be held up by all of a shard's.
const PIECES_AT_ONCE: usize = 4;

/// So many snapshots are written before the older ones of the same parts are removed.
const PARTS_AT_ONCE: usize = 16;

/// One set of snapshots.
pub(super) struct Round<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) origin: Origin,
    pub(super) shards: ShardCount,
    /// The log file from which on the log completes them.
    pub(super) number: u64,
}

impl Round<'_> {
    /// Writes them all and gives their bytes; `None` if the process ends. `between` is called now and then.
    ///
    /// Of `older` each goes as soon as its successor is there, so that never all are on the disk twice.
    pub(super) fn write(
        &self,
        source: &dyn Source,
        older: &Contents,
        between: &mut dyn FnMut(),
    ) -> io::Result<Option<u64>> {
        let mut total = 0;
        // Marks are read before versions and written behind them. A change that has not reached the log yet may be read
        // here; if the process is killed then, its answer must not be known without it: a retry would be taken for done.
        let Some(marks) = self.part(Part::Marks, source) else {
            return Ok(None);
        };
        let mut marks = Some(marks);
        let parts: Vec<Part> = self.shards.all().map(Part::Shard).chain([Part::Marks]).collect();
        for some in parts.chunks(PARTS_AT_ONCE) {
            for part in some {
                let bytes = match part {
                    Part::Marks => marks.take(),
                    Part::Shard(_) => self.part(*part, source),
                };
                let Some(bytes) = bytes else {
                    return Ok(None);
                };
                disk::put(self.disk, &snapshot_name(*part, self.number), &bytes)?;
                total += bytes.len() as u64;
                between();
            }
            self.disk.sync_names()?;
            for part in some {
                older.remove_older(self.disk, *part, self.number)?;
            }
        }
        Ok(Some(total))
    }

    /// Removes what they make needless.
    pub(super) fn tidy(&self) -> Result<(), StorageError> {
        Contents::of(self.disk)?.remove_covered(self.disk, self.number)?;
        Ok(self.disk.sync_names()?)
    }

    fn part(&self, part: Part, source: &dyn Source) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let head = Payload::head(Head {
            origin: self.origin,
            number: self.number,
            after: Place::default(),
        });
        let (payloads, mut end) = match part {
            Part::Shard(shard) => self.shard(shard, source)?,
            Part::Marks => (self.marks(source)?, Payload::default()),
        };
        end.end();
        for payload in [head].iter().chain(&payloads).chain([&end]) {
            let place = Place {
                offset: bytes.len() as u64,
                ..part.place(self.number)
            };
            frame::append(&mut bytes, place, payload.bytes());
        }
        Some(bytes)
    }

    /// What goes into the snapshot of a shard, and what goes at its end.
    fn shard(&self, shard: ShardId, source: &dyn Source) -> Option<(Vec<Payload>, Payload)> {
        let mut payloads = Vec::new();
        let mut end = Payload::default();
        for piece in (0..SHARD_PIECES).step_by(PIECES_AT_ONCE) {
            let pieces = piece..SHARD_PIECES.min(piece + PIECES_AT_ONCE);
            let share = source.versions(shard, pieces)?;
            let Share::Here { versions, tenure } = share else {
                // Also if it went while it was asked for: the log from this file on says so. A file is written all the
                // same: one that is missing is damage.
                return Some((vec![tenure_alone(Tenure::ended(shard, Epoch(0)))], Payload::default()));
            };
            if self.origin.format != FORMAT_ALONE && payloads.is_empty() {
                // Whatever becomes of the shard from here on is in the log from this file on, in order.
                payloads.push(tenure_alone(tenure));
            }
            let mut payload = Payload::default();
            payload.changes(versions.into_iter());
            if !payload.is_empty() {
                payloads.push(payload);
            }
            // The floor goes last: what was dropped while the pieces were read lies below it.
            end = Payload::default();
            end.floors([(shard, tenure.floor)].into_iter());
        }
        Some((payloads, end))
    }

    fn marks(&self, source: &dyn Source) -> Option<Vec<Payload>> {
        // The younger half is read first: if halves change meanwhile, what was young is read again as old and nothing is
        // passed over. Older ones are written first: of one key the last counts.
        let mut read = Vec::new();
        for piece in (0..MARK_PIECES).rev() {
            for owner in 0..source.owners() {
                read.push(source.marks(owner, piece)?);
            }
        }
        let payloads = read.into_iter().rev().map(|(revisions, answers)| {
            let mut payload = Payload::default();
            if self.origin.format == FORMAT_ALONE {
                payload.revisions(revisions.into_iter());
            } else {
                payload.dated_revisions(revisions.into_iter());
            }
            payload.answers(answers.into_iter());
            payload
        });
        Some(payloads.filter(|payload| !payload.is_empty()).collect())
    }
}

fn tenure_alone(tenure: Tenure) -> Payload {
    let mut payload = Payload::default();
    payload.tenures([tenure].into_iter());
    payload
}
