//! How things lie in files: frames with checksums, and in each frame sections of changes, marks and floors.
//!
//! A frame's checksum covers the number of its file and its place in it, so that a frame is never taken for one of
//! another file or from another place. It does not know files.

use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ObjectHash, ShardId, Version};
use tidings_router::owner::keeping::{Floor, KeptAnswer};

/// The format that this release writes, and the newest that it reads.
pub(super) const FORMAT: u16 = 1;

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

/// What a file says of itself in its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) format: u16,
    pub(super) cluster: u64,
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

    /// Adds last revisions.
    pub fn revisions(&mut self, items: impl Iterator<Item = (u128, u64)>) {
        self.section(REVISIONS, 24, items, |out, (key, revision)| {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&revision.to_le_bytes());
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
            out.extend_from_slice(&floor.version.0.to_le_bytes());
            out.push(match floor.cause {
                FloorCause::Lost => 0,
                FloorCause::Evicted => 1,
                FloorCause::PowerLost => 2,
                FloorCause::Damaged => 3,
            });
        });
    }

    /// What a file says of itself.
    pub(super) fn head(head: Head) -> Self {
        let mut new = Self::default();
        new.section(HEAD, 34, std::iter::once(head), |out, head| {
            out.extend_from_slice(&head.format.to_le_bytes());
            out.extend_from_slice(&head.cluster.to_le_bytes());
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

/// Takes what is read.
pub trait Sink {
    /// An object's version.
    fn change(&mut self, object: ObjectHash, version: Version);
    /// An object's last revision.
    fn revision(&mut self, key: u128, revision: u64);
    /// The answer to an idempotency key.
    fn answer(&mut self, answer: KeptAnswer);
    /// A shard's floor.
    fn floor(&mut self, shard: ShardId, floor: Floor);
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
                REVISIONS => sink.revision(u128::from_le_bytes(reader.take()?), reader.u64()?),
                ANSWERS => sink.answer(KeptAnswer {
                    key: u128::from_le_bytes(reader.take()?),
                    version: reader.version()?,
                    wall_us: reader.u64()?,
                }),
                FLOORS => {
                    let shard = ShardId(u16::from_le_bytes(reader.take()?));
                    let version = reader.version()?;
                    let cause = match reader.take()? {
                        [0] => FloorCause::Lost,
                        [1] => FloorCause::Evicted,
                        [2] => FloorCause::PowerLost,
                        [3] => FloorCause::Damaged,
                        [_] => return Err(Unreadable),
                    };
                    sink.floor(shard, Floor { version, cause });
                }
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
        format: u16::from_le_bytes(reader.take()?),
        cluster: reader.u64()?,
        number: reader.u64()?,
        after: Place {
            file: reader.u64()?,
            offset: reader.u64()?,
        },
    })
}
