//! A set of small numbers that costs what it holds: subscribers of an object, objects of a subscriber, pending marks.
//!
//! Most sets have one member, some have a hundred, a few have a million. Up to three members live inside the 16 bytes of
//! the set itself, up to 256 in one sorted array, more in a roaring bitmap (Lemire et al., 2016). Sizes and the reason
//! for these steps: `docs/decisions/0003-sets.md`.

use roaring::RoaringBitmap;
use thin_vec::ThinVec;

/// More members than this live in a bitmap.
const ARRAY_MAX: usize = 256;
/// A bitmap with fewer members than this becomes an array again. Far below `ARRAY_MAX`, so that a set whose size swings
/// around the border does not change its shape each time.
const BITMAP_MIN: u64 = 96;
/// Bitmaps are read this many members at a time: five times faster than one by one.
const CHUNK: usize = 256;

/// A set of `u32`, iterated in ascending order.
#[derive(Clone, Default)]
pub enum IdSet {
    /// No member.
    #[default]
    Empty,
    /// One member.
    One(u32),
    /// Two members in order.
    Two([u32; 2]),
    /// Three members in order.
    Three([u32; 3]),
    /// Up to 256 members in order, or fewer with room for more.
    Array(ThinVec<u32>),
    /// More.
    Bitmap(Box<RoaringBitmap>),
}

impl IdSet {
    /// The empty set. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self::Empty
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bitmap(bitmap) => bitmap.len() as usize,
            _ => self.as_slice().len(),
        }
    }

    /// Whether it has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members, unless they live in a bitmap (then empty).
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::Empty | Self::Bitmap(_) => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Two(ids) => ids,
            Self::Three(ids) => ids,
            Self::Array(ids) => ids,
        }
    }

    /// Whether `id` is a member.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::Array(ids) => ids.binary_search(&id).is_ok(),
            Self::Bitmap(bitmap) => bitmap.contains(id),
            small => small.as_slice().contains(&id),
        }
    }

    /// Adds `id`; `false` if it was a member already.
    pub fn insert(&mut self, id: u32) -> bool {
        if let Self::Bitmap(bitmap) = self {
            return bitmap.insert(id);
        }
        let Err(at) = self.as_slice().binary_search(&id) else {
            return false;
        };
        match self {
            Self::Empty => *self = Self::One(id),
            Self::One(a) => *self = Self::Two(inserted([*a], at, id)),
            Self::Two(ids) => *self = Self::Three(inserted(*ids, at, id)),
            Self::Three(ids) => *self = Self::Array(ThinVec::from(inserted::<3, 4>(*ids, at, id))),
            Self::Array(ids) if ids.len() < ARRAY_MAX => {
                if ids.len() == ids.capacity() {
                    // Grows by a quarter: most sets stop growing soon, and there are very many of them.
                    ids.reserve_exact((ids.len() / 4).max(4));
                }
                ids.insert(at, id);
            }
            Self::Array(ids) => {
                let mut bitmap: RoaringBitmap = ids.iter().copied().collect();
                bitmap.insert(id);
                *self = Self::Bitmap(Box::new(bitmap));
            }
            Self::Bitmap(bitmap) => return bitmap.insert(id),
        }
        true
    }

    /// Takes `id` out; `false` if it was no member.
    pub fn remove(&mut self, id: u32) -> bool {
        if let Self::Bitmap(bitmap) = self {
            let removed = bitmap.remove(id);
            if removed && bitmap.len() < BITMAP_MIN {
                *self = Self::Array(bitmap.iter().collect());
            }
            return removed;
        }
        let Ok(at) = self.as_slice().binary_search(&id) else {
            return false;
        };
        match self {
            Self::Empty | Self::Bitmap(_) => {}
            Self::One(_) => *self = Self::Empty,
            Self::Two(ids) => *self = Self::One(ids[1 - at]),
            Self::Three(ids) => {
                let [a, b, c] = *ids;
                *self = Self::Two([[b, c], [a, c], [a, b]][at]);
            }
            Self::Array(ids) => {
                ids.remove(at);
                match ids[..] {
                    [] => *self = Self::Empty,
                    [a] => *self = Self::One(a),
                    [a, b] => *self = Self::Two([a, b]),
                    [a, b, c] => *self = Self::Three([a, b, c]),
                    _ => {}
                }
            }
        }
        true
    }

    /// The smallest member.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        match self {
            Self::Bitmap(bitmap) => bitmap.min(),
            small => small.as_slice().first().copied(),
        }
    }

    /// The smallest member that is at least `from`.
    #[must_use]
    pub fn first_from(&self, from: u32) -> Option<u32> {
        match self {
            Self::Bitmap(bitmap) => bitmap.range(from..).next(),
            small => {
                let ids = small.as_slice();
                ids.get(ids.partition_point(|&id| id < from)).copied()
            }
        }
    }

    /// Calls `each` for every member in ascending order.
    pub fn for_each(&self, mut each: impl FnMut(u32)) {
        match self {
            Self::Bitmap(bitmap) => {
                let mut members = bitmap.iter();
                let mut chunk = [0u32; CHUNK];
                loop {
                    let read = members.next_many(&mut chunk);
                    if read.is_empty() {
                        return;
                    }
                    read.iter().copied().for_each(&mut each);
                }
            }
            small => small.as_slice().iter().copied().for_each(each),
        }
    }

    /// All members in ascending order.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.len());
        self.for_each(|id| all.push(id));
        all
    }

    /// Makes room for `more` members at once where they will live in an array.
    pub fn reserve(&mut self, more: usize) {
        let total = self.len() + more;
        if !(4..=ARRAY_MAX).contains(&total) {
            return;
        }
        match self {
            Self::Bitmap(_) => {}
            Self::Array(ids) => ids.reserve_exact(more),
            small => {
                let mut ids = ThinVec::with_capacity(total);
                ids.extend_from_slice(small.as_slice());
                *small = Self::Array(ids);
            }
        }
    }
}

impl std::fmt::Debug for IdSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.to_vec()).finish()
    }
}

impl FromIterator<u32> for IdSet {
    fn from_iter<T: IntoIterator<Item = u32>>(ids: T) -> Self {
        let mut set = Self::new();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

/// `ids` with `id` put at position `at`.
fn inserted<const N: usize, const M: usize>(ids: [u32; N], at: usize, id: u32) -> [u32; M] {
    std::array::from_fn(|i| match i.cmp(&at) {
        std::cmp::Ordering::Less => ids[i],
        std::cmp::Ordering::Equal => id,
        std::cmp::Ordering::Greater => ids[i - 1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_is_16_bytes() {
        assert_eq!(size_of::<IdSet>(), 16);
    }

    #[test]
    fn a_set_shrinks_back_to_an_array_only_well_below_the_border() {
        let mut set: IdSet = (0..300).collect();
        assert!(matches!(set, IdSet::Bitmap(_)));
        for id in 0..204 {
            assert!(set.remove(id));
        }
        assert!(matches!(set, IdSet::Bitmap(_)), "96 members stay a bitmap");
        set.remove(204);
        assert!(matches!(set, IdSet::Array(_)), "95 become an array");
        assert_eq!(set.to_vec(), (205..300).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_set(steps in prop::collection::vec((any::<bool>(), 0u32..600), 0..1500)) {
            let mut set = IdSet::new();
            let mut model = BTreeSet::new();
            for (add, id) in steps {
                if add {
                    prop_assert_eq!(set.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(set.remove(id), model.remove(&id));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.contains(id), add);
                prop_assert_eq!(set.first(), model.first().copied());
                prop_assert_eq!(set.first_from(id), model.range(id..).next().copied());
            }
            prop_assert_eq!(set.to_vec(), model.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn reserving_changes_nothing(ids in prop::collection::btree_set(any::<u32>(), 0..300), more in 0usize..400) {
            let mut set: IdSet = ids.iter().copied().collect();
            set.reserve(more);
            prop_assert_eq!(set.to_vec(), ids.into_iter().collect::<Vec<_>>());
        }
    }
}
