//! A subscriber's place: what it was told, as text that any node of the cluster can read.
//!
//! It does not know whether its versions are current, past or of the future, nor which objects it speaks for.
//!
//! The bytes, before base64 for URLs without padding: one byte for the format; the cluster's ID; the base version; the
//! shards that lag; what was told beyond; four bytes of checksum. Integers are LEB128 unless said otherwise. One cursor has
//! exactly one text, so the two can be compared either way.

mod bytes;

use crate::id::{ClusterId, ObjectHash, ShardId};
use crate::limits::MAX_CURSOR_BYTES;
use crate::version::Version;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

/// The first byte of the only format so far.
const FORMAT: u8 = 1;
/// Bytes of the checksum.
const SUM_BYTES: usize = 4;

/// A subscriber's place.
///
/// For an object it says: told up to [`Cursor::at`] its shard, and, if it is in [`Cursor::told`], up to that version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The cluster whose versions these are.
    pub cluster: ClusterId,
    /// Every change up to here was told, except of the shards that lag.
    pub base: Version,
    /// Shards that lag, each with its own lower version (zero: nothing is known); by shard, unique, below `base`.
    pub lagging: Vec<(ShardId, Version)>,
    /// Changes above the shard's version that were told already; by object, unique.
    pub told: Vec<(ObjectHash, Version)>,
}

/// Why a text is not a cursor, or a cursor has no text. **A client is never refused for it: it is told to resync.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Damaged, of an unknown format, or never a cursor.
    #[error("the cursor cannot be read")]
    Unreadable,
    /// The text would be longer than [`MAX_CURSOR_BYTES`].
    #[error("a cursor has at most {MAX_CURSOR_BYTES} bytes of text, this one would have {bytes}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl Cursor {
    /// So many told changes surely fit when all lagging shards share one version, whatever the versions, shards (up to
    /// 4,096) and objects are. More usually do: [`Cursor::encode`] says.
    ///
    /// Of the 1,536 bytes behind 2,048 of text, at most 547 are format, cluster, base, a bitmap of 4,096 shards, their
    /// version, the counts and the checksum. A told change takes at most 16.
    pub const MAX_TOLD: usize = 61;

    /// A cursor that keeps the rules of its fields: sorts them, keeps the lower version of a shard and the higher of an
    /// object that is named twice, and drops shards that do not lag and told changes that the base covers without them.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        base: Version,
        mut lagging: Vec<(ShardId, Version)>,
        mut told: Vec<(ObjectHash, Version)>,
    ) -> Self {
        lagging.retain(|(_, version)| *version < base);
        lagging.sort_unstable();
        lagging.dedup_by_key(|(shard, _)| *shard);
        // Only a lagging shard can have told changes at or below the base.
        let least = if lagging.is_empty() { base } else { Version::ZERO };
        told.retain(|(_, version)| *version > least);
        told.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        told.dedup_by_key(|(object, _)| *object);
        Self {
            cluster,
            base,
            lagging,
            told,
        }
    }

    /// Up to which version every change of this shard was told.
    #[must_use]
    pub fn at(&self, shard: ShardId) -> Version {
        match self.lagging.binary_search_by_key(&shard, |(shard, _)| *shard) {
            Ok(index) => self.lagging[index].1,
            Err(_) => self.base,
        }
    }

    /// The version of this object that was told beyond [`Cursor::at`], if any.
    #[must_use]
    pub fn told(&self, object: ObjectHash) -> Option<Version> {
        let index = self.told.binary_search_by_key(&object, |(object, _)| *object).ok()?;
        Some(self.told[index].1)
    }

    /// The same place with all lagging shards at the version of the one furthest behind: shorter, and never claims more.
    #[must_use]
    pub fn coarser(mut self) -> Self {
        if let Some(least) = self.lagging.iter().map(|(_, version)| *version).min() {
            for (_, version) in &mut self.lagging {
                *version = least;
            }
        }
        self
    }

    /// The text for clients: letters, digits, `-` and `_`.
    ///
    /// Fields that break their rules are put in order first, as by [`Cursor::new`].
    ///
    /// # Errors
    /// [`CursorError::TooLong`]: tell fewer changes at a time, or take [`Cursor::coarser`].
    pub fn encode(&self) -> Result<String, CursorError> {
        let mut out = vec![FORMAT];
        if self.is_in_order() {
            self.write(&mut out);
        } else {
            Self::new(self.cluster, self.base, self.lagging.clone(), self.told.clone()).write(&mut out);
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        let bytes = (out.len() * 4).div_ceil(3);
        if bytes > MAX_CURSOR_BYTES {
            return Err(CursorError::TooLong { bytes });
        }
        Ok(BASE64.encode(out))
    }

    /// Reads a text that [`Cursor::encode`] wrote.
    ///
    /// # Errors
    /// For every other text. A damaged one is recognised by its checksum but for one time in 2^32; that is no defence
    /// against forgery, which gains nothing: a cursor only says what its bearer wants to hear.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        if text.len() > MAX_CURSOR_BYTES {
            return Err(CursorError::TooLong { bytes: text.len() });
        }
        let all = BASE64.decode(text).map_err(|_| CursorError::Unreadable)?;
        let cursor = Self::read(&all).ok_or(CursorError::Unreadable)?;
        // One cursor, one text: whatever the writer would have written otherwise is refused here, in one place.
        if cursor.is_in_order() && cursor.encode().is_ok_and(|again| again == text) {
            Ok(cursor)
        } else {
            Err(CursorError::Unreadable)
        }
    }

    fn is_in_order(&self) -> bool {
        let least = if self.lagging.is_empty() {
            self.base
        } else {
            Version::ZERO
        };
        self.lagging.is_sorted_by(|a, b| a.0 < b.0)
            && self.lagging.iter().all(|(_, version)| *version < self.base)
            && self.told.is_sorted_by(|a, b| a.0 < b.0)
            && self.told.iter().all(|(_, version)| *version > least)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.cluster.0.to_be_bytes());
        bytes::put_integer(out, self.base.0);
        bytes::put_lagging(out, self.base, &self.lagging);
        bytes::put_integer(out, self.told.len() as u64);
        for (object, version) in &self.told {
            out.extend_from_slice(&object.0.to_be_bytes());
            bytes::put_difference(out, self.base, *version);
        }
    }

    fn read(all: &[u8]) -> Option<Self> {
        let (body, sum) = all.split_at_checked(all.len().checked_sub(SUM_BYTES)?)?;
        if body.first() != Some(&FORMAT) || checksum(body) != sum {
            return None;
        }
        let mut reader = bytes::Reader::new(&body[1..]);
        let cluster = ClusterId(reader.fixed()?);
        let base = reader.version()?;
        let lagging = reader.lagging(base)?;
        let count = usize::try_from(reader.integer()?).ok()?;
        // An entry takes nine bytes or more, so a false count cannot make us reserve more than came in.
        if count > reader.left() / 9 {
            return None;
        }
        let mut told = Vec::with_capacity(count);
        for _ in 0..count {
            told.push((ObjectHash(reader.fixed()?), reader.difference(base)?));
        }
        (reader.left() == 0).then_some(Self {
            cluster,
            base,
            lagging,
            told,
        })
    }
}

/// SipHash-1-3 under a fixed key: against damage, not against malice.
fn checksum(body: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = SipHasher13::new_with_key(b"tidings cursor 1");
    hasher.write(body);
    (hasher.finish() as u32).to_be_bytes()
}
