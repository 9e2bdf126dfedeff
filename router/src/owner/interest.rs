//! Which links want to hear of the objects of one shard. Only watched objects have an entry.
//!
//! An entry takes 12 bytes: the whole hash, and either the one link that wants it or the place of a set of several. A
//! link is named by its [`Seat`], which the owner gives out anew for each generation of a link (rule R9): what an older
//! generation registered can neither be mistaken for nor erase what a newer one did.
//!
//! It does not know links, versions or who still listens.

use crate::staggered::{PIECES, Staggered};
use slab::Slab;
use thin_vec::ThinVec;
use tidings_protocol::ObjectHash;

/// One generation of one link, as a small number below [`SEATS`].
pub type Seat = u32;

/// How many seats there can be.
pub const SEATS: u32 = SHARED;

/// Marks the third word of an entry as the place of a set.
const SHARED: u32 = 1 << 31;

/// Hash in two words (an aligned `u64` would make 16 bytes of the 12), then a seat or [`SHARED`] and the place of a set.
#[derive(Clone, Copy, Debug)]
struct Entry([u32; 3]);

impl Entry {
    fn new(object: ObjectHash, seat: Seat) -> Self {
        Self([object.0 as u32, (object.0 >> 32) as u32, seat])
    }

    #[inline]
    fn hash(&self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    /// Where the set lies, unless the one seat is here.
    #[inline]
    fn place(&self) -> Option<usize> {
        (self.0[2] & SHARED != 0).then_some((self.0[2] & !SHARED) as usize)
    }
}

/// The table of one shard. See the module.
#[derive(Clone, Debug)]
pub struct Interest {
    entries: Staggered<Entry>,
    /// Sorted, two seats or more each.
    sets: Slab<ThinVec<Seat>>,
}

impl Interest {
    /// An empty table for a shard that is named by the top `shard_bits` bits of the hash.
    ///
    /// # Panics
    /// If `shard_bits` is above 12, the largest shard count.
    #[must_use]
    pub fn new(shard_bits: u8) -> Self {
        Self {
            entries: Staggered::new(shard_bits),
            sets: Slab::new(),
        }
    }

    /// Whether nobody wants anything.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many objects are wanted.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory held, those of the sets estimated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const SET_BYTES: usize = 32;
        self.entries.bytes() + self.sets.capacity() * size_of::<(u64, u64)>() + self.sets.len() * SET_BYTES
    }

    /// Who wants to hear of the object.
    #[inline]
    #[must_use]
    pub fn seats(&self, object: ObjectHash) -> &[Seat] {
        match self.entries.find(object.0, |entry| entry.hash() == object.0) {
            None => &[],
            Some(entry) => match entry.place() {
                None => std::slice::from_ref(&entry.0[2]),
                Some(place) => &self.sets[place],
            },
        }
    }

    /// Adds an interest; `false` if it was there.
    ///
    /// # Panics
    /// If the seat is not below [`SEATS`].
    pub fn insert(&mut self, object: ObjectHash, seat: Seat) -> bool {
        assert!(seat < SEATS, "seat {seat} is not below {SEATS}");
        let Some(entry) = self.entries.find_mut(object.0, |entry| entry.hash() == object.0) else {
            self.entries
                .insert_unique(object.0, Entry::new(object, seat), Entry::hash);
            return true;
        };
        if let Some(place) = entry.place() {
            let set = &mut self.sets[place];
            let Err(at) = set.binary_search(&seat) else {
                return false;
            };
            set.insert(at, seat);
            return true;
        }
        let first = entry.0[2];
        if first == seat {
            return false;
        }
        let mut set = ThinVec::with_capacity(2);
        set.extend([first.min(seat), first.max(seat)]);
        entry.0[2] = SHARED | self.sets.insert(set) as u32;
        true
    }

    /// Takes an interest away; `false` if it was not there.
    pub fn remove(&mut self, object: ObjectHash, seat: Seat) -> bool {
        let Some(entry) = self.entries.find_mut(object.0, |entry| entry.hash() == object.0) else {
            return false;
        };
        let Some(place) = entry.place() else {
            if entry.0[2] != seat {
                return false;
            }
            self.entries.remove(object.0, |entry| entry.hash() == object.0);
            return true;
        };
        let set = &mut self.sets[place];
        let Ok(at) = set.binary_search(&seat) else { return false };
        set.remove(at);
        if let [only] = set[..] {
            entry.0[2] = only;
            self.sets.remove(place);
        }
        true
    }

    /// Erases the interests of those seats for which `left` holds from one piece of the table. Only when all pieces were
    /// swept may a seat be given out again.
    pub fn sweep_piece(&mut self, piece: usize, left: impl Fn(Seat) -> bool) {
        let sets = &mut self.sets;
        let keep = |entry: &mut Entry| {
            let Some(place) = entry.place() else {
                return !left(entry.0[2]);
            };
            let set = &mut sets[place];
            set.retain(|seat| !left(*seat));
            match set[..] {
                [] => {
                    sets.remove(place);
                    false
                }
                [only] => {
                    entry.0[2] = only;
                    sets.remove(place);
                    true
                }
                _ => true,
            }
        };
        self.entries.retain_piece(piece, keep, Entry::hash);
        if self.sets.is_empty() {
            self.sets = Slab::new();
        }
    }

    /// Calls `each` for every interest of the shard.
    pub fn for_each(&self, mut each: impl FnMut(Seat)) {
        for piece in 0..PIECES {
            for entry in self.entries.iter_piece(piece) {
                match entry.place() {
                    None => each(entry.0[2]),
                    Some(place) => self.sets[place].iter().copied().for_each(&mut each),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: u64) -> ObjectHash {
        ObjectHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn an_entry_takes_12_bytes() {
        assert_eq!(size_of::<Entry>(), 12);
    }

    #[test]
    fn one_two_and_many_seats_come_and_go() {
        let mut interest = Interest::new(8);
        let o = object(7);
        assert_eq!(interest.seats(o), [] as [Seat; 0]);
        assert!(interest.insert(o, 5));
        assert!(!interest.insert(o, 5));
        assert_eq!(interest.seats(o), [5]);
        assert!(interest.insert(o, 3));
        assert!(interest.insert(o, 9));
        assert!(!interest.insert(o, 9));
        assert_eq!(interest.seats(o), [3, 5, 9]);
        assert!(!interest.remove(o, 4));
        assert!(interest.remove(o, 5));
        assert!(interest.remove(o, 3));
        assert_eq!(interest.seats(o), [9]);
        assert!(interest.sets.is_empty());
        assert!(!interest.remove(o, 3));
        assert!(interest.remove(o, 9));
        assert!(interest.is_empty());
        assert!(!interest.remove(o, 9));
    }

    #[test]
    fn a_sweep_erases_the_seats_that_left_and_no_other() {
        let mut interest = Interest::new(0);
        for number in 0..3_000 {
            for seat in 0..(number % 5) as u32 {
                interest.insert(object(number), seat);
            }
        }
        let mut before = 0;
        interest.for_each(|_| before += 1);
        assert_eq!(before, 600 * (1 + 2 + 3 + 4));
        for piece in 0..PIECES {
            interest.sweep_piece(piece, |seat| seat < 2);
        }
        for number in 0..3_000 {
            let left: &[Seat] = match number % 5 {
                3 => &[2],
                4 => &[2, 3],
                _ => &[],
            };
            assert_eq!(interest.seats(object(number)), left);
        }
        assert_eq!((interest.objects(), interest.sets.len()), (1_200, 600));
    }
}
