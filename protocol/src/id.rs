//! Names: object IDs and their keyed hash, shards, clusters.

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13Wide};
use std::hash::Hasher;

/// The longest object ID, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 255;

/// Why a text is not an object ID. **Nothing was done with the object.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an object ID must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("an object ID has at most {MAX_ID_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text holds a control character.
    #[error("an object ID must not contain control characters (found one at byte {at})")]
    Control {
        /// Byte position of the first one.
        at: usize,
    },
}

/// Checks that `text` may name an object: 1 to 255 bytes of UTF-8 without control characters.
///
/// # Errors
/// Says which rule the text breaks.
pub fn check_object_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    // Control characters are U+0000..=U+001F, U+007F and U+0080..=U+009F. The first pass is the common case: plain ASCII.
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(IdError::Control { at }),
        None => Ok(()),
    }
}

/// The keyed 64-bit hash of an object ID. Its top bits name the shard.
///
/// Two IDs with one hash share a version: a spurious notification, never a lost one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectHash(pub u64);

/// The cluster's secret for hashing IDs, so that nobody outside can aim for a collision or for one shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

impl HashKey {
    /// A key of 128 bits, which the caller drew from a secure source.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// SipHash-1-3 of the ID (Aumasson and Bernstein, 2012), the same on every node and in every release.
    #[must_use]
    pub fn object(&self, id: &str) -> ObjectHash {
        self.object_bytes(id.as_bytes())
    }

    /// The same for an ID at hand as bytes.
    #[must_use]
    #[inline]
    pub fn object_bytes(&self, id: &[u8]) -> ObjectHash {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(id);
        ObjectHash(hasher.finish())
    }

    /// A 128-bit key for tables in which a collision would suppress a change: revisions and idempotency keys.
    #[must_use]
    pub fn wide(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher13Wide::new_with_key(&self.0);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// A node of the cluster, for as long as its data directory lives. Drawn at random, never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl NodeId {
    const EDGE: u64 = 1 << 63;

    /// Whether it is the name of a node that only holds subscribers, and whose secret opens nothing else: its first bit says so.
    #[must_use]
    pub fn is_edge(self) -> bool {
        self.0 & Self::EDGE != 0
    }

    /// The same name, of such a node or of another one.
    #[must_use]
    pub fn with_edge(self, edge: bool) -> Self {
        Self(if edge {
            self.0 | Self::EDGE
        } else {
            self.0 & !Self::EDGE
        })
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A fixed slice of the hash space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How many shards the cluster was created with: a power of two from 1 to 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardCount {
    bits: u8,
}

impl ShardCount {
    /// The default: 256 shards.
    pub const DEFAULT: Self = Self { bits: 8 };

    /// `count` shards, or `None` unless it is a power of two from 1 to 4,096.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= 4096).then_some(Self {
            bits: count.trailing_zeros() as u8,
        })
    }

    /// The number of shards.
    #[must_use]
    pub fn get(self) -> u16 {
        1 << self.bits
    }

    /// How many top bits of an [`ObjectHash`] name its shard.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The shard of an object.
    #[must_use]
    #[inline]
    pub fn shard(self, hash: ObjectHash) -> ShardId {
        // A shift by 64 is not defined, so one shard (0 bits) goes through two shifts.
        ShardId(((hash.0 >> 1) >> (63 - self.bits)) as u16)
    }

    /// All shards in order.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.get()).map(ShardId)
    }
}

/// Which cluster a cursor belongs to. Drawn once when the cluster is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_255_bytes() {
        assert_eq!(check_object_id(""), Err(IdError::Empty));
        assert_eq!(check_object_id("a"), Ok(()));
        assert_eq!(check_object_id(&"a".repeat(255)), Ok(()));
        assert_eq!(check_object_id(&"a".repeat(256)), Err(IdError::TooLong { bytes: 256 }));
        // 128 characters of two bytes each are one byte too many.
        assert_eq!(check_object_id(&"ä".repeat(128)), Err(IdError::TooLong { bytes: 256 }));
        assert_eq!(check_object_id(&"ä".repeat(127)), Ok(()));
    }

    #[test]
    fn an_id_has_no_control_characters_of_either_set() {
        for (text, at) in [("a\nb", 1), ("\0", 0), ("ab\u{7f}", 2), ("ä\u{85}", 2), ("\u{9f}", 0)] {
            assert_eq!(check_object_id(text), Err(IdError::Control { at }), "{text:?}");
        }
        assert_eq!(check_object_id("Straße 7 / \u{1f600} ~"), Ok(()));
    }

    #[test]
    fn the_top_bits_name_the_shard() {
        let shards = ShardCount::DEFAULT;
        assert_eq!(shards.get(), 256);
        assert_eq!(shards.shard(ObjectHash(0)), ShardId(0));
        assert_eq!(shards.shard(ObjectHash(u64::MAX)), ShardId(255));
        assert_eq!(shards.shard(ObjectHash(0x0100_0000_0000_0000)), ShardId(1));
        let one = ShardCount::new(1).expect("one shard is allowed");
        assert_eq!(one.shard(ObjectHash(u64::MAX)), ShardId(0));
    }

    #[test]
    fn shard_counts_are_powers_of_two_up_to_4096() {
        for count in [0, 3, 255, 8192] {
            assert_eq!(ShardCount::new(count), None, "{count}");
        }
        for count in [1, 2, 256, 4096] {
            assert_eq!(ShardCount::new(count).map(ShardCount::get), Some(count));
        }
    }

    #[test]
    fn the_hash_is_the_published_siphash_1_3_and_depends_on_the_key() {
        let key = HashKey::new([0; 16]);
        // Frozen: a change here would orphan every version table on disk. The same values come from CPython, whose
        // `hash` of bytes is SipHash-1-3 (under the zero key with PYTHONHASHSEED=0), and from the reference algorithm.
        assert_eq!(key.object("order:42"), ObjectHash(FROZEN));
        let counting = HashKey::new(std::array::from_fn(|i| i as u8));
        assert_eq!(counting.object(" !\"#$%&'()*+,-."), ObjectHash(0x1241_4f80_a8e3_1159));
        assert_ne!(key.object("order:42"), HashKey::new([1; 16]).object("order:42"));
    }

    #[test]
    fn wide_keys_do_not_confuse_where_one_part_ends() {
        let key = HashKey::new([7; 16]);
        assert_ne!(key.wide(&[b"ab", b"c"]), key.wide(&[b"a", b"bc"]));
    }

    const FROZEN: u64 = 0xc951_06ec_d921_2ace;
}
