//! A hash table that grows in small steps and costs nearly the same per entry at every size.
//!
//! A table that doubles holds twice its memory for a moment, stands still while it moves everything, and is half empty
//! afterwards. Here the hash space is cut into [`PIECES`] pieces, each a table that doubles by itself, and piece `i` is
//! `2^(i/16)` times as wide as piece 0. So one piece after another doubles, never two sizes at once: the loads are
//! spread evenly (on a logarithmic scale) over 7/16 to 7/8, and a table of any size costs about
//! `1.65 * (size_of::<T>() + 1)` bytes per entry.
//!
//! It knows nothing of what it holds: callers bring the 64-bit hash, the comparison, and for growth a way back from an
//! entry to the low [`REST_BITS`] bits of its hash. An entry therefore need not hold the bits that chose table and
//! piece. Empty pieces have no memory, an empty table none at all.

use hashbrown::HashTable;
use hashbrown::hash_table;

/// How many pieces a table has.
pub const PIECES: usize = 16;

/// How many low bits of the hash place an entry inside its piece.
pub const REST_BITS: u32 = 43;

/// Selects the low [`REST_BITS`] bits.
pub const REST_MASK: u64 = (1 << REST_BITS) - 1;

/// How many bits of the hash, below those that the caller has used, choose the piece.
const WIDTH_BITS: u32 = 12;

/// Where each piece begins in the `2^12` slices: `4096 * (2^(i/16) - 1)`, rounded.
const STARTS: [u16; PIECES + 1] = [
    0, 181, 371, 568, 775, 991, 1216, 1451, 1697, 1953, 2221, 2501, 2793, 3098, 3416, 3749, 4096,
];

/// Slice to piece.
static PIECE_OF: [u8; 1 << WIDTH_BITS] = piece_of_slice();

const fn piece_of_slice() -> [u8; 1 << WIDTH_BITS] {
    let mut pieces = [0; 1 << WIDTH_BITS];
    let mut piece = 0;
    while piece < PIECES {
        let mut slice = STARTS[piece] as usize;
        while slice < STARTS[piece + 1] as usize {
            pieces[slice] = piece as u8;
            slice += 1;
        }
        piece += 1;
    }
    pieces
}

/// The table. See the module.
#[derive(Clone, Debug)]
pub struct Staggered<T> {
    pieces: Option<Box<[HashTable<T>; PIECES]>>,
    len: usize,
    bytes: usize,
    skip_bits: u8,
}

impl<T> Staggered<T> {
    /// An empty table. The top `skip_bits` bits of each hash are the same for all its entries (they chose this table
    /// among others), so they are not used again.
    ///
    /// # Panics
    /// If `skip_bits` is more than 12: then too few bits would be left.
    #[must_use]
    pub fn new(skip_bits: u8) -> Self {
        assert!(
            skip_bits <= 12,
            "at most 12 bits of a hash may be skipped, not {skip_bits}"
        );
        Self {
            pieces: None,
            len: 0,
            bytes: 0,
            skip_bits,
        }
    }

    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held, without what entries point to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Which piece holds entries of this hash.
    #[inline]
    #[must_use]
    pub fn piece(&self, hash: u64) -> usize {
        PIECE_OF[((hash << self.skip_bits) >> (64 - WIDTH_BITS)) as usize] as usize
    }

    /// The entry of this hash for which `eq` holds.
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&T> {
        self.pieces.as_ref()?[self.piece(hash)].find(inner_hash(hash), eq)
    }

    /// The entry of this hash for which `eq` holds, to be changed in place. Its hash must stay the same.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let piece = self.piece(hash);
        self.pieces.as_mut()?[piece].find_mut(inner_hash(hash), eq)
    }

    /// Adds an entry that the table does not hold yet. `rest_of` gives back the hash of an entry, of which only the low
    /// [`REST_BITS`] bits are looked at; it is asked when the piece grows.
    #[inline]
    pub fn insert_unique(&mut self, hash: u64, value: T, rest_of: impl Fn(&T) -> u64) {
        let piece = self.piece(hash);
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            None => {
                self.bytes += size_of::<[HashTable<T>; PIECES]>();
                self.pieces.insert(Box::new([const { HashTable::new() }; PIECES]))
            }
        };
        let table = &mut pieces[piece];
        let rehash = |entry: &T| inner_hash(rest_of(entry));
        if table.len() == table.capacity() {
            self.bytes += grow(table, rehash);
        }
        table.insert_unique(inner_hash(hash), value, rehash);
        self.len += 1;
    }

    /// Takes out the entry of this hash for which `eq` holds.
    #[inline]
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<T> {
        let piece = self.piece(hash);
        let entry = self.pieces.as_mut()?[piece].find_entry(inner_hash(hash), eq).ok()?;
        self.len -= 1;
        Some(entry.remove().0)
    }

    /// A hash that leads to the entry with this rest in this piece of the table, if `skipped` are the bits that chose
    /// the table.
    #[must_use]
    pub fn hash_of(&self, skipped: u64, piece: usize, rest: u64) -> u64 {
        let width_at = 64 - WIDTH_BITS - u32::from(self.skip_bits);
        let start = u64::from(STARTS[piece]);
        // Where many bits are skipped, the rest has some of the bits that chose the piece.
        let shared = (1_u64 << REST_BITS.saturating_sub(width_at)) - 1;
        let known = (rest & REST_MASK) >> width_at.min(63);
        let slice = start + (known.wrapping_sub(start) & shared);
        // Two shifts, because one by 64 is not defined.
        let skipped = (skipped << 1) << (63 - self.skip_bits);
        skipped | slice << width_at | (rest & REST_MASK)
    }

    /// The entries of one piece, in no particular order. A piece past the last is empty.
    pub fn iter_piece(&self, piece: usize) -> hash_table::Iter<'_, T> {
        self.pieces
            .as_ref()
            .and_then(|pieces| pieces.get(piece))
            .map_or_else(Default::default, HashTable::iter)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..PIECES).flat_map(|piece| self.iter_piece(piece))
    }

    /// Keeps only those entries of one piece for which `keep` holds, and gives back memory no longer needed; says how
    /// many went. A table is swept without a pause by sweeping its pieces one at a time.
    pub fn retain_piece(
        &mut self,
        piece: usize,
        keep: impl FnMut(&mut T) -> bool,
        rest_of: impl Fn(&T) -> u64,
    ) -> usize {
        let Some(table) = self.pieces.as_mut().and_then(|pieces| pieces.get_mut(piece)) else {
            return 0;
        };
        let before = (table.len(), table.allocation_size());
        table.retain(keep);
        let removed = before.0 - table.len();
        if removed > 0 {
            // What was removed leaves marks behind which count as load: the piece would double while it has room.
            // Only a fresh table is free of them.
            let mut fresh = HashTable::with_capacity(table.len());
            for entry in table.drain() {
                let hash = inner_hash(rest_of(&entry));
                fresh.insert_unique(hash, entry, |entry| inner_hash(rest_of(entry)));
            }
            *table = fresh;
            self.len -= removed;
            self.bytes = self.bytes - before.1 + table.allocation_size();
        }
        if self.len == 0 {
            self.pieces = None;
            self.bytes = 0;
        }
        removed
    }
}

/// An odd number near 2^64 divided by the golden ratio (Knuth, volume 3, 6.4): its product spreads all bits of the rest
/// over the top seven, from which hashbrown takes its tags, and leaves the low ones as evenly spread as they came.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn inner_hash(hash: u64) -> u64 {
    (hash & REST_MASK).wrapping_mul(SPREAD)
}

/// Makes room for at least one more entry and says how many bytes that took.
#[cold]
fn grow<T>(table: &mut HashTable<T>, rehash: impl Fn(&T) -> u64) -> usize {
    let before = table.allocation_size();
    table.reserve(1, rehash);
    table.allocation_size() - before
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64 (Steele, Lea and Flood, 2014): a stand-in for the keyed hash.
    fn hash(number: u64) -> u64 {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn filled(skip_bits: u8, numbers: u64) -> Staggered<u64> {
        let mut table = Staggered::new(skip_bits);
        for number in 0..numbers {
            let hash = hash(number) >> skip_bits;
            table.insert_unique(hash, hash, |entry| *entry);
        }
        table
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        for skip_bits in [0, 8, 12] {
            let mut table = filled(skip_bits, 50_000);
            assert_eq!(table.len(), 50_000);
            assert_eq!(table.iter().count(), 50_000);
            for number in 0..60_000 {
                let hash = hash(number) >> skip_bits;
                assert_eq!(
                    table.find(hash, |entry| *entry == hash).is_some(),
                    number < 50_000,
                    "{number}"
                );
            }
            for number in 0..25_000 {
                let hash = hash(number) >> skip_bits;
                assert_eq!(table.remove(hash, |entry| *entry == hash), Some(hash));
                assert_eq!(table.remove(hash, |entry| *entry == hash), None);
            }
            assert_eq!(table.len(), 25_000);
            let hash = hash(30_000) >> skip_bits;
            assert!(table.find_mut(hash, |entry| *entry == hash).is_some());
        }
    }

    #[test]
    fn a_rest_gives_back_a_hash_that_leads_to_its_entry_however_many_bits_chose_the_table() {
        for skip_bits in 0..=12 {
            let table = Staggered::<u64>::new(skip_bits);
            for number in 0..40_000 {
                let hash = hash(number);
                // Two shifts, because one by 64 is not defined.
                let skipped = hash >> 1 >> (63 - skip_bits);
                let piece = table.piece(hash);
                let back = table.hash_of(skipped, piece, hash & REST_MASK);
                assert_eq!(
                    back >> 1 >> (63 - skip_bits),
                    skipped,
                    "{hash:x}: the same table of 2^{skip_bits}"
                );
                assert_eq!(table.piece(back), piece, "{hash:x}: the same piece");
                assert_eq!(back & REST_MASK, hash & REST_MASK, "{hash:x}: the same entry");
            }
            for (piece, start) in STARTS[..PIECES].iter().enumerate() {
                let at = 64 - WIDTH_BITS - u32::from(skip_bits);
                let end = (u128::from(STARTS[piece + 1]) << at) - 1;
                for hash in [u64::from(*start) << at, end as u64] {
                    let back = table.hash_of(0, piece, hash & REST_MASK);
                    assert_eq!((table.piece(back), back & REST_MASK), (piece, hash & REST_MASK));
                }
            }
        }
    }

    #[test]
    fn an_empty_table_has_no_memory() {
        let table = Staggered::<u64>::new(8);
        assert_eq!(table.bytes(), 0);
        assert!(table.is_empty());
        assert!(size_of::<Staggered<u64>>() <= 32);
        assert_eq!(table.find(7, |_| true), None);
    }

    #[test]
    fn the_widest_piece_is_almost_twice_the_narrowest_and_all_slices_have_one() {
        let width = |piece: usize| PIECE_OF.iter().filter(|of| **of as usize == piece).count();
        assert_eq!((0..PIECES).map(width).sum::<usize>(), 4096);
        assert_eq!((width(0), width(15)), (181, 347));
        assert!(PIECE_OF.is_sorted());
    }

    #[test]
    fn bytes_per_entry_are_nearly_the_same_at_every_size() {
        let mut table = Staggered::new(0);
        for number in 0..400_000 {
            let hash = hash(number);
            table.insert_unique(hash, hash, |entry| *entry);
            if number >= 10_000 && number % 1_000 == 0 {
                let bytes = table.bytes() as f64 / table.len() as f64;
                assert!((13.0..17.0).contains(&bytes), "{bytes} bytes an entry at {number}");
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_pieces() {
        let mut table = filled(0, 30_000);
        let of_pieces = |table: &Staggered<u64>| -> usize {
            let pieces = table.pieces.as_ref().expect("it was filled");
            size_of_val(&**pieces) + pieces.iter().map(HashTable::allocation_size).sum::<usize>()
        };
        assert_eq!(table.bytes(), of_pieces(&table));
        for piece in 0..PIECES {
            table.retain_piece(piece, |entry| *entry & 3 == 0, |entry| *entry);
        }
        assert_eq!(table.bytes(), of_pieces(&table));
        for piece in 0..PIECES {
            table.retain_piece(piece, |_| false, |entry| *entry);
        }
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn a_swept_piece_keeps_what_was_asked_for_and_gives_memory_back() {
        let mut table = filled(0, 100_000);
        let before = table.bytes();
        let mut removed = 0;
        for piece in 0..PIECES {
            removed += table.retain_piece(piece, |entry| entry.is_multiple_of(4), |entry| *entry);
        }
        assert_eq!(table.len() + removed, 100_000);
        for number in 0..100_000 {
            let hash = hash(number);
            assert_eq!(
                table.find(hash, |entry| *entry == hash).is_some(),
                hash.is_multiple_of(4)
            );
        }
        assert!(table.bytes() * 3 < before, "{} of {before}", table.bytes());
    }
}
