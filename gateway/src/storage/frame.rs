//! How things lie in files: frames with checksums, and in each frame sections of changes, marks, floors and tenures.
//!
//! A frame's checksum covers the number of its file and its place in it, so that a frame is never taken for one of
//! another file or from another place. It does not know files.

use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardId, Version};
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};

/// The newest format that this release reads, and what a member of a cluster writes: of each shard it says since which
/// epoch it is there.
pub(super) const FORMAT: u16 = 2;

/// What a node that is alone writes, as releases before clusters did: every shard is there, since epoch 1.
pub(super) const FORMAT_ALONE: u16 = 1;

const MAGIC: [u8; 4] = *b"TDG\x01";
/// Magic, length of the payload, checksum of the payload, checksum of these three with file and place.
pub(super) const HEADER: usize = 16;

/// A place in the log, or in the file of this number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) offset: u64,
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn head_checksum(head: &[u8], at: Place) -> [u8; 4] {
    checksum(&[head, &at.file.to_le_bytes(), &at.offset.to_le_bytes()]).to_le_bytes()
}

/// Appends a frame that will lie at this place.
pub(super) fn append(out: &mut Vec<u8>, at: Place, payload: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(&[payload]).to_le_bytes());
    let sum = head_checksum(&out[begin..], at);
    out.extend_from_slice(&sum);
    out.extend_from_slice(payload);
}

/// What lies at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A frame with this payload.
    Frame(&'a [u8]),
    /// The file ends here.
    End,
    /// The file ends inside a frame: its writing was cut short.
    Torn,
    /// Something that was never written like this.
    Damaged,
}

/// Reads what lies at a place of a file.
pub(super) fn read(file: &[u8], at: Place) -> Found<'_> {
    let rest = usize::try_from(at.offset).ok().and_then(|offset| file.get(offset..));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        return Found::End;
    };
    let Some((head, body)) = rest.split_at_checked(HEADER) else {
        return Found::Torn;
    };
    if head[..4] != MAGIC || head[12..] != head_checksum(&head[..12], at) {
        return Found::Damaged;
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    match body.get(..number(4) as usize) {
        None => Found::Torn,
        Some(payload) if checksum(&[payload]) == number(8) => Found::Frame(payload),
        Some(_) => Found::Damaged,
    }
}

/// The next place behind this one where a whole frame lies.
pub(super) fn next_whole(file: &[u8], after: Place) -> Option<Place> {
    let mut offset = after.offset as usize + 1;
    while let Some(found) = file
        .get(offset..)?
        .windows(MAGIC.len())
        .position(|bytes| bytes == MAGIC)
    {
        offset += found;
        let place = Place {
            offset: offset as u64,
            ..after
        };
        if matches!(read(file, place), Found::Frame(_)) {
            return Some(place);
        }
        offset += 1;
    }
    None
}

/// Whose files they are, and how they are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) cluster: u64,
    pub(super) format: u16,
}

/// What a file says of itself in its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) origin: Origin,
    /// Of a snapshot: with the log from this file on it is complete.
    pub(super) number: u64,
    /// Of a log file: where the log ended before it.
    pub(super) after: Place,
}

const HEAD: u8 = 0;
const CHANGES: u8 = 1;
const REVISIONS: u8 = 2;
const ANSWERS: u8 = 3;
const FLOORS: u8 = 4;
const END: u8 = 5;
const TENURES: u8 = 6;
const DATED_REVISIONS: u8 = 7;

/// What happened to a shard on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It was taken with nothing: whatever was here of it before is void.
    Begun,
    /// It was taken with all that was here at the epoch before.
    Continued,
    /// It is not here any more: what was here of it is void.
    Ended,
    /// A copy of it begins with nothing, and is not whole before that is said: whatever was here of it before is void.
    Filling,
    /// The copy that is being filled is whole.
    Whole,
    /// What was here of it, whole, is level in this epoch too: as a copy, or because this node became the owner.
    Kept,
}

/// A shard's time on this node. Written before the first change of its epoch, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The shard.
    pub shard: ShardId,
    /// Since this epoch, or until its end.
    pub epoch: Epoch,
    /// No version of the epoch is below.
    pub begins: Version,
    /// The floor it began with.
    pub floor: Floor,
    /// What happened.
    pub deed: Deed,
}

impl Tenure {
    /// What was here of the shard up to this epoch is void.
    #[must_use]
    pub fn ended(shard: ShardId, epoch: Epoch) -> Self {
        let floor = Floor {
            version: Version::ZERO,
            cause: FloorCause::Lost,
        };
        Self {
            shard,
            epoch,
            begins: Version::ZERO,
            floor,
            deed: Deed::Ended,
        }
    }

    /// Whether the shard is here since then, with all that was acknowledged.
    #[must_use]
    pub fn is_here(&self) -> bool {
        !matches!(self.deed, Deed::Ended | Deed::Filling)
    }
}

/// The payload of a frame while it is written.
#[derive(Debug, Default)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn section<T>(&mut self, kind: u8, size: usize, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
        let begin = self.0.len();
        self.0.reserve(5 + items.size_hint().0 * size);
        self.0.push(kind);
        self.0.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        for item in items {
            write(&mut self.0, item);
            count += 1;
        }
        if count == 0 {
            self.0.truncate(begin);
        } else {
            self.0[begin + 1..begin + 5].copy_from_slice(&count.to_le_bytes());
        }
    }

    /// Adds changes.
    pub fn changes(&mut self, items: impl Iterator<Item = (ObjectHash, Version)>) {
        self.section(CHANGES, 16, items, |out, (object, version)| {
            out.extend_from_slice(&object.0.to_le_bytes());
            out.extend_from_slice(&version.0.to_le_bytes());
        });
    }

    /// Adds last revisions, as a node writes them that is alone: it never has a mark without its change.
    pub fn revisions(&mut self, items: impl Iterator<Item = KeptRevision>) {
        self.section(REVISIONS, 24, items, |out, mark| {
            out.extend_from_slice(&mark.key.to_le_bytes());
            out.extend_from_slice(&mark.revision.to_le_bytes());
        });
    }

    /// Adds last revisions with the versions that their changes got.
    pub fn dated_revisions(&mut self, items: impl Iterator<Item = KeptRevision>) {
        self.section(DATED_REVISIONS, 32, items, |out, mark| {
            out.extend_from_slice(&mark.key.to_le_bytes());
            out.extend_from_slice(&mark.revision.to_le_bytes());
            out.extend_from_slice(&mark.version.0.to_le_bytes());
        });
    }

    /// Adds answers to idempotency keys.
    pub fn answers(&mut self, items: impl Iterator<Item = KeptAnswer>) {
        self.section(ANSWERS, 32, items, |out, answer| {
            out.extend_from_slice(&answer.key.to_le_bytes());
            out.extend_from_slice(&answer.version.0.to_le_bytes());
            out.extend_from_slice(&answer.wall_us.to_le_bytes());
        });
    }

    /// Adds floors.
    pub fn floors(&mut self, items: impl Iterator<Item = (ShardId, Floor)>) {
        self.section(FLOORS, 11, items, |out, (shard, floor)| {
            out.extend_from_slice(&shard.0.to_le_bytes());
            write_floor(out, floor);
        });
    }

    /// Adds what happened to shards.
    pub fn tenures(&mut self, items: impl Iterator<Item = Tenure>) {
        self.section(TENURES, 28, items, |out, tenure| {
            out.extend_from_slice(&tenure.shard.0.to_le_bytes());
            out.extend_from_slice(&tenure.epoch.0.to_le_bytes());
            out.extend_from_slice(&tenure.begins.0.to_le_bytes());
            write_floor(out, tenure.floor);
            out.push(match tenure.deed {
                Deed::Begun => 0,
                Deed::Continued => 1,
                Deed::Ended => 2,
                Deed::Filling => 3,
                Deed::Whole => 4,
                Deed::Kept => 5,
            });
        });
    }

    /// What a file says of itself.
    pub(super) fn head(head: Head) -> Self {
        let mut new = Self::default();
        new.section(HEAD, 34, std::iter::once(head), |out, head| {
            out.extend_from_slice(&head.origin.format.to_le_bytes());
            out.extend_from_slice(&head.origin.cluster.to_le_bytes());
            for number in [head.number, head.after.file, head.after.offset] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        });
        new
    }

    /// The mark without which a snapshot is not complete.
    pub(super) fn end(&mut self) {
        self.section(END, 0, std::iter::once(()), |_, ()| {});
    }
}

fn write_floor(out: &mut Vec<u8>, floor: Floor) {
    out.extend_from_slice(&floor.version.0.to_le_bytes());
    out.push(match floor.cause {
        FloorCause::Lost => 0,
        FloorCause::Evicted => 1,
        FloorCause::PowerLost => 2,
        FloorCause::Damaged => 3,
    });
}

/// Takes what is read.
pub trait Sink {
    /// An object's version.
    fn change(&mut self, object: ObjectHash, version: Version);
    /// An object's last revision.
    fn revision(&mut self, mark: KeptRevision);
    /// The answer to an idempotency key.
    fn answer(&mut self, answer: KeptAnswer);
    /// A shard's floor.
    fn floor(&mut self, shard: ShardId, floor: Floor);
    /// What happened to a shard.
    fn tenure(&mut self, tenure: Tenure);
}

/// A payload that no release up to this one wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn version(&mut self) -> Result<Version, Unreadable> {
        let version = self.u64()?;
        (version < Version::LIMIT).then_some(Version(version)).ok_or(Unreadable)
    }

    fn shard(&mut self) -> Result<ShardId, Unreadable> {
        Ok(ShardId(u16::from_le_bytes(self.take()?)))
    }

    fn floor(&mut self) -> Result<Floor, Unreadable> {
        let version = self.version()?;
        let cause = match self.take()? {
            [0] => FloorCause::Lost,
            [1] => FloorCause::Evicted,
            [2] => FloorCause::PowerLost,
            [3] => FloorCause::Damaged,
            [_] => return Err(Unreadable),
        };
        Ok(Floor { version, cause })
    }

    fn tenure(&mut self) -> Result<Tenure, Unreadable> {
        Ok(Tenure {
            shard: self.shard()?,
            epoch: Epoch(self.u64()?),
            begins: self.version()?,
            floor: self.floor()?,
            deed: match self.take()? {
                [0] => Deed::Begun,
                [1] => Deed::Continued,
                [2] => Deed::Ended,
                [3] => Deed::Filling,
                [4] => Deed::Whole,
                [5] => Deed::Kept,
                [_] => return Err(Unreadable),
            },
        })
    }
}

/// Hands the sections of a payload over; gives whether the end mark was among them.
pub(super) fn sections(payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Unreadable> {
    let mut reader = Reader(payload);
    let mut end = false;
    while !reader.0.is_empty() {
        let [kind] = reader.take()?;
        let count = u32::from_le_bytes(reader.take()?);
        for _ in 0..count {
            match kind {
                CHANGES => sink.change(ObjectHash(reader.u64()?), reader.version()?),
                REVISIONS | DATED_REVISIONS => sink.revision(KeptRevision {
                    key: u128::from_le_bytes(reader.take()?),
                    revision: reader.u64()?,
                    version: match kind {
                        DATED_REVISIONS => reader.version()?,
                        _ => Version::ZERO,
                    },
                }),
                ANSWERS => sink.answer(KeptAnswer {
                    key: u128::from_le_bytes(reader.take()?),
                    version: reader.version()?,
                    wall_us: reader.u64()?,
                }),
                FLOORS => sink.floor(reader.shard()?, reader.floor()?),
                TENURES => sink.tenure(reader.tenure()?),
                END => end = true,
                _ => return Err(Unreadable),
            }
        }
    }
    Ok(end)
}

/// Reads a payload that is a head.
pub(super) fn head(payload: &[u8]) -> Result<Head, Unreadable> {
    let mut reader = Reader(payload);
    let ([HEAD], [1, 0, 0, 0]) = (reader.take::<1>()?, reader.take::<4>()?) else {
        return Err(Unreadable);
    };
    Ok(Head {
        origin: Origin {
            format: u16::from_le_bytes(reader.take()?),
            cluster: reader.u64()?,
        },
        number: reader.u64()?,
        after: Place {
            file: reader.u64()?,
            offset: reader.u64()?,
        },
    })
}
