//! Snapshots: all that is known, one file a shard and one for the marks, so that the log before them can go.
//!
//! They are taken while changes come in. Whatever reached the tables before a snapshot's log file was begun is in it, and
//! what came later is in the log from that file on; what is in both does no harm.

use super::StorageError;
use super::disk::{self, Disk};
use super::frame::{self, FORMAT, Head, Payload, Place, Sink};
use super::recovery::{Contents, Part, snapshot_name};
use std::io;
use std::ops::Range;
use tidings_protocol::{ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::Owner;
use tidings_router::owner::keeping::{Floor, KeptAnswer, MARK_PIECES, SHARD_PIECES};

/// Gives what is known, a piece at a time. `None`: the process ends.
pub trait Source: Send {
    /// How many owners there are.
    fn owners(&self) -> usize;
    /// Some pieces of a shard's versions, and its floor as it is afterwards.
    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<(Vec<(ObjectHash, Version)>, Floor)>;
    /// A piece of an owner's marks: revisions and answers.
    fn marks(&self, owner: usize, piece: usize) -> Option<Marks>;
}

/// Revisions and answers.
pub type Marks = (Vec<(u128, u64)>, Vec<KeptAnswer>);

/// So many pieces an owner is asked for at once: an owner under load answers between two batches of changes, and must
/// not be held up by all of a shard's.
const PIECES_AT_ONCE: usize = 4;

/// So many snapshots are written before the older ones of the same parts are removed.
const PARTS_AT_ONCE: usize = 16;

/// One set of snapshots.
pub(super) struct Round<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) cluster: u64,
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
        let mut append = |payload: &Payload| {
            let place = Place {
                offset: bytes.len() as u64,
                ..part.place(self.number)
            };
            frame::append(&mut bytes, place, payload.bytes());
        };
        append(&Payload::head(Head {
            format: FORMAT,
            cluster: self.cluster,
            number: self.number,
            after: Place::default(),
        }));
        let mut end = Payload::default();
        match part {
            Part::Shard(shard) => {
                let mut last = None;
                for piece in (0..SHARD_PIECES).step_by(PIECES_AT_ONCE) {
                    let pieces = piece..SHARD_PIECES.min(piece + PIECES_AT_ONCE);
                    let (versions, floor) = source.versions(shard, pieces)?;
                    last = Some(floor);
                    let mut payload = Payload::default();
                    payload.changes(versions.into_iter());
                    if !payload.is_empty() {
                        append(&payload);
                    }
                }
                // The floor goes last: what was dropped while the pieces were read lies below it.
                end.floors(last.into_iter().map(|floor| (shard, floor)));
            }
            Part::Marks => {
                // The younger half is read first: if halves change meanwhile, what was young is read again as old and
                // nothing is passed over. Older ones are written first: of one key the last counts.
                let mut read = Vec::new();
                for piece in (0..MARK_PIECES).rev() {
                    for owner in 0..source.owners() {
                        read.push(source.marks(owner, piece)?);
                    }
                }
                for (revisions, answers) in read.into_iter().rev() {
                    let mut payload = Payload::default();
                    payload.revisions(revisions.into_iter());
                    payload.answers(answers.into_iter());
                    if !payload.is_empty() {
                        append(&payload);
                    }
                }
            }
        }
        end.end();
        append(&end);
        Some(bytes)
    }
}

/// The owners of a node before they are given to their threads.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) owners: Vec<Owner>,
    pub(super) shards: ShardCount,
    pub(super) now: Now,
    /// The newest version seen.
    pub(super) newest: Version,
    /// Floors as they were kept.
    pub(super) floors: Vec<(ShardId, Floor)>,
}

impl Tables {
    fn owner_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0) % self.owners.len()
    }

    /// The low bits of a mark's key name the shard.
    fn owner_of_mark(&self, key: u128) -> usize {
        self.owner_of(self.shards.shard(ObjectHash(((key & 0xffff) as u64) << 48)))
    }
}

impl Sink for Tables {
    fn change(&mut self, object: ObjectHash, version: Version) {
        self.newest = self.newest.max(version);
        let owner = self.owner_of(self.shards.shard(object));
        // Each shard has its owner here.
        _ = self.owners[owner].restore(object, version);
    }

    fn revision(&mut self, key: u128, revision: u64) {
        let owner = self.owner_of_mark(key);
        self.owners[owner].restore_revision(key, revision);
    }

    fn answer(&mut self, answer: KeptAnswer) {
        let owner = self.owner_of_mark(answer.key);
        self.owners[owner].restore_answer(answer, self.now);
    }

    fn floor(&mut self, shard: ShardId, floor: Floor) {
        self.floors.push((shard, floor));
    }
}

impl Source for Tables {
    fn owners(&self) -> usize {
        self.owners.len()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<(Vec<(ObjectHash, Version)>, Floor)> {
        let owner = self.owners.get(self.owner_of(shard))?;
        let versions = pieces.flat_map(|piece| owner.kept_versions(shard, piece));
        Some((versions.collect(), owner.kept_floor(shard)?))
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        let owner = self.owners.get(owner)?;
        Some((owner.kept_revisions(piece), owner.kept_answers(piece, self.now)))
    }
}
