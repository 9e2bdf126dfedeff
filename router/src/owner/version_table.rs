//! The newest version of every object of one shard that ever changed.
//!
//! An entry takes 12 bytes: 43 bits of the object's hash and the version's 53. Shard and piece of the table stand for
//! another 12 bits of the hash, so of 20 million objects in 256 shards a pair shares an entry with a chance below one in
//! a hundred. Such a pair shares its newest version too, which is at least the version of each: somebody may be told
//! once too often, never too little.
//!
//! It does not know clocks, floors or why something is swept away.

use crate::staggered::{PIECES, REST_BITS, REST_MASK, Staggered};
use tidings_protocol::{ObjectHash, Version};

/// How many bits of the rest of the hash share a word with the version.
const LOW_REST_BITS: u32 = 64 - Version::LIMIT.trailing_zeros();

// The rest of the hash and a version fill an entry exactly.
const _: () = assert!(REST_BITS + Version::LIMIT.trailing_zeros() == 96);

/// Version (53 bits) and low bits of the rest (11) in two words, its high bits (32) in the third. Words of four bytes,
/// because 12 bytes aligned to eight would be 16.
#[derive(Clone, Copy, Debug)]
struct Entry([u32; 3]);

impl Entry {
    fn new(hash: ObjectHash, version: Version) -> Self {
        let rest = hash.0 & REST_MASK;
        let word = version.0 << LOW_REST_BITS | (rest & ((1 << LOW_REST_BITS) - 1));
        Self([word as u32, (word >> 32) as u32, (rest >> LOW_REST_BITS) as u32])
    }

    #[inline]
    fn word(self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    #[inline]
    fn rest(self) -> u64 {
        u64::from(self.0[2]) << LOW_REST_BITS | (self.word() & ((1 << LOW_REST_BITS) - 1))
    }

    #[inline]
    fn version(self) -> Version {
        Version(self.word() >> LOW_REST_BITS)
    }
}

/// The table of one shard. See the module.
#[derive(Clone, Debug)]
pub struct VersionTable {
    entries: Staggered<Entry>,
}

impl VersionTable {
    /// An empty table for a shard that is named by the top `shard_bits` bits of the hash.
    ///
    /// # Panics
    /// If `shard_bits` is above 12, the largest shard count.
    #[must_use]
    pub fn new(shard_bits: u8) -> Self {
        Self {
            entries: Staggered::new(shard_bits),
        }
    }

    /// The object's newest version, [`Version::ZERO`] where none is known.
    #[inline]
    #[must_use]
    pub fn get(&self, object: ObjectHash) -> Version {
        let rest = object.0 & REST_MASK;
        self.entries
            .find(object.0, |entry| entry.rest() == rest)
            .map_or(Version::ZERO, |entry| entry.version())
    }

    /// Remembers `version` as the object's newest and says how many bytes the table grew by.
    ///
    /// # Panics
    /// If the version is not below [`Version::LIMIT`]: its top bits would be cut off, and it would look old.
    #[inline]
    pub fn set(&mut self, object: ObjectHash, version: Version) -> usize {
        assert!(version.0 < Version::LIMIT, "version {version} has more than 53 bits");
        let rest = object.0 & REST_MASK;
        let new = Entry::new(object, version);
        if let Some(entry) = self.entries.find_mut(object.0, |entry| entry.rest() == rest) {
            *entry = new;
            return 0;
        }
        let before = self.entries.bytes();
        self.entries.insert_unique(object.0, new, |entry| entry.rest());
        self.entries.bytes() - before
    }

    /// How many objects it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Forgets what is below `floor` in one piece of the table, and says how many objects that were.
    pub fn drop_below(&mut self, piece: usize, floor: Version) -> usize {
        self.entries
            .retain_piece(piece, |entry| entry.version() >= floor, |entry| entry.rest())
    }

    /// One piece of the table of the shard with this number. Bits of a hash that are not kept come back as others that
    /// lead to the same entry.
    #[must_use]
    pub fn piece(&self, shard: u64, piece: usize) -> Vec<(ObjectHash, Version)> {
        let entries = self.entries.iter_piece(piece);
        entries
            .map(|entry| {
                (
                    ObjectHash(self.entries.hash_of(shard, piece, entry.rest())),
                    entry.version(),
                )
            })
            .collect()
    }

    /// Adds about `count` versions to `sample`, evenly from all over the table. Objects lie in the order of their
    /// hashes, which has nothing to do with their versions: the first ones of each piece are as good as any.
    pub fn sample(&self, count: usize, sample: &mut Vec<Version>) {
        let of_each = self.entries.len().min(count).div_ceil(PIECES);
        for piece in 0..PIECES {
            sample.extend(
                self.entries
                    .iter_piece(piece)
                    .take(of_each)
                    .map(|entry| entry.version()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_12_bytes_and_gives_back_hash_and_version() {
        assert_eq!(size_of::<Entry>(), 12);
        for hash in [0, 1, 0x7ff, 0x800, REST_MASK, u64::MAX, 0x0123_4567_89ab_cdef] {
            for version in [0, 1, 0x1f_ffff, 1_795_170_000_000_000, Version::LIMIT - 1] {
                let entry = Entry::new(ObjectHash(hash), Version(version));
                assert_eq!(entry.rest(), hash & REST_MASK);
                assert_eq!(entry.version(), Version(version));
            }
        }
    }

    #[test]
    fn the_last_version_set_is_the_newest_known() {
        let mut table = VersionTable::new(8);
        assert_eq!(table.get(ObjectHash(5)), Version::ZERO);
        assert!(table.set(ObjectHash(5), Version(10)) > 0);
        assert_eq!(table.set(ObjectHash(5), Version(11)), 0);
        table.set(ObjectHash(6), Version(12));
        assert_eq!(
            (table.get(ObjectHash(5)), table.get(ObjectHash(6))),
            (Version(11), Version(12))
        );
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_pair_that_shares_an_entry_is_told_the_newer_version() {
        // These two differ only in a bit that is neither kept nor decides the piece.
        let (a, b) = (ObjectHash(0), ObjectHash(1 << REST_BITS));
        let mut table = VersionTable::new(8);
        table.set(a, Version(10));
        table.set(b, Version(11));
        assert_eq!((table.get(a), table.get(b)), (Version(11), Version(11)));
    }

    #[test]
    fn a_table_given_piece_by_piece_and_taken_back_is_the_same_with_any_number_of_shards() {
        for bits in 0..=12 {
            let shard = 0x0a53 & ((1 << bits) - 1);
            let object = |number: u64| {
                let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                ObjectHash(spread >> bits | shard << 1 << (63 - bits))
            };
            let (mut table, mut back) = (VersionTable::new(bits), VersionTable::new(bits));
            for number in 0..20_000 {
                table.set(object(number), Version(number + 1));
            }
            for (object, version) in (0..PIECES).flat_map(|piece| table.piece(shard, piece)) {
                back.set(object, version);
            }
            assert_eq!(back.len(), table.len());
            for number in 0..20_000 {
                let object = object(number);
                assert_eq!(
                    back.get(object),
                    table.get(object),
                    "{object:?} of one of 2^{bits} shards"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "more than 53 bits")]
    fn a_version_that_does_not_fit_is_refused() {
        VersionTable::new(8).set(ObjectHash(1), Version(Version::LIMIT));
    }

    #[test]
    fn only_what_is_below_the_floor_is_dropped() {
        let mut table = VersionTable::new(0);
        let object = |number: u64| ObjectHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for number in 1..=20_000 {
            table.set(object(number), Version(number));
        }
        let mut sample = Vec::new();
        table.sample(1_000, &mut sample);
        assert!((1_000..1_100).contains(&sample.len()), "{}", sample.len());
        let dropped: usize = (0..PIECES).map(|piece| table.drop_below(piece, Version(5_001))).sum();
        assert_eq!(dropped, 5_000);
        for number in 1..=20_000 {
            let expected = if number <= 5_000 {
                Version::ZERO
            } else {
                Version(number)
            };
            assert_eq!(table.get(object(number)), expected);
        }
    }
}
