//! By what a repeated publish is recognised: revisions of objects and idempotency keys.
//!
//! Both have keys of 128 bits, because here a collision would suppress a change, and a bound. Each lives in two tables:
//! the young one is written, and once it is half of what is allowed it becomes the old one, and the one that was old is
//! dropped as a whole. What is forgotten is accepted again, never refused.
//!
//! It does not know what was published, nor time other than what it is told.

use crate::now::MonoUs;
use crate::staggered::{PIECES, Staggered};
use tidings_protocol::Version;

/// What is remembered under a key.
trait Mark: Copy {
    fn key(&self) -> u128;
}

/// The top bits of a key place it in the table.
fn hash(key: u128) -> u64 {
    (key >> 64) as u64
}

/// Halves a key: an aligned `u128` would cost eight bytes an entry.
fn halves(key: u128) -> [u64; 2] {
    [hash(key), key as u64]
}

fn whole(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) << 64 | u128::from(halves[1])
}

/// Two tables, of which the older goes when the younger is full.
#[derive(Debug)]
struct Generations<T> {
    young: Staggered<T>,
    old: Staggered<T>,
    half: usize,
}

impl<T: Mark> Generations<T> {
    fn new(max: usize) -> Self {
        Self {
            young: Staggered::new(0),
            old: Staggered::new(0),
            half: max / 2,
        }
    }

    fn get(&self, key: u128) -> Option<T> {
        let is = |mark: &T| mark.key() == key;
        self.young
            .find(hash(key), is)
            .or_else(|| self.old.find(hash(key), is))
            .copied()
    }

    fn put(&mut self, mark: T) {
        let key = mark.key();
        let is = |mark: &T| mark.key() == key;
        if let Some(known) = self.young.find_mut(hash(key), is) {
            *known = mark;
            return;
        }
        self.old.remove(hash(key), is);
        if self.young.len() >= self.half {
            self.turn();
        }
        if self.half > 0 {
            self.young.insert_unique(hash(key), mark, |mark| hash(mark.key()));
        }
    }

    fn turn(&mut self) {
        self.old = std::mem::replace(&mut self.young, Staggered::new(0));
    }

    fn forget_where(&mut self, gone: impl Fn(u128) -> bool) {
        for table in [&mut self.young, &mut self.old] {
            for piece in 0..PIECES {
                table.retain_piece(piece, |mark| !gone(mark.key()), |mark| hash(mark.key()));
            }
        }
    }

    /// The old table's pieces, then the young one's.
    fn piece(&self, piece: usize) -> impl Iterator<Item = &T> {
        let table = if piece < PIECES { &self.old } else { &self.young };
        table.iter_piece(piece % PIECES)
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn bytes(&self) -> usize {
        self.young.bytes() + self.old.bytes()
    }
}

#[derive(Clone, Copy, Debug)]
struct Revision {
    key: [u64; 2],
    revision: u64,
    version: Version,
}

impl Mark for Revision {
    fn key(&self) -> u128 {
        whole(self.key)
    }
}

/// The last revision of each object whose publisher numbers its changes.
#[derive(Debug)]
pub struct Revisions {
    marks: Generations<Revision>,
}

impl Revisions {
    /// Remembers at most `max` objects, at least the half of them that changed last.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            marks: Generations::new(max),
        }
    }

    /// The last revision of an object, and the version that it got.
    #[must_use]
    pub fn last(&self, key: u128) -> Option<(u64, Version)> {
        self.marks.get(key).map(|last| (last.revision, last.version))
    }

    /// Remembers a revision as the last one whatever it was, with the version that it got.
    pub fn put(&mut self, key: u128, revision: u64, version: Version) {
        self.marks.put(Revision {
            key: halves(key),
            revision,
            version,
        });
    }

    /// Forgets the objects whose keys are such. Looks at all.
    pub fn forget_where(&mut self, gone: impl Fn(u128) -> bool) {
        self.marks.forget_where(gone);
    }

    /// One of twice [`PIECES`] pieces of what it remembers.
    #[must_use]
    pub fn piece(&self, piece: usize) -> Vec<(u128, u64, Version)> {
        let marks = self.marks.piece(piece);
        marks.map(|mark| (mark.key(), mark.revision, mark.version)).collect()
    }

    /// How many objects it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.marks.bytes()
    }
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    key: [u64; 2],
    version: Version,
    /// When its window is over.
    until_us: MonoUs,
}

impl Mark for Answer {
    fn key(&self) -> u128 {
        whole(self.key)
    }
}

/// The versions that were answered under idempotency keys, each for a window of time.
#[derive(Debug)]
pub struct Answers {
    marks: Generations<Answer>,
    window_us: u64,
    /// When the young table was begun.
    begun_us: MonoUs,
}

impl Answers {
    /// Remembers at most `max` answers, each for `window_us` unless that is more than `max` allows.
    #[must_use]
    pub fn new(max: usize, window_us: u64) -> Self {
        Self {
            marks: Generations::new(max),
            window_us,
            begun_us: 0,
        }
    }

    /// What was answered under this key less than a window ago.
    #[must_use]
    pub fn get(&self, key: u128, now_us: MonoUs) -> Option<Version> {
        let answer = self.marks.get(key)?;
        (now_us < answer.until_us).then_some(answer.version)
    }

    /// Remembers an answer.
    pub fn put(&mut self, key: u128, version: Version, now_us: MonoUs) {
        self.restore(key, version, 0, now_us);
    }

    /// Remembers an answer that was given so many microseconds ago, unless its window is over.
    pub fn restore(&mut self, key: u128, version: Version, age_us: u64, now_us: MonoUs) {
        self.expire(now_us);
        let left_us = self.window_us.saturating_sub(age_us);
        if left_us == 0 {
            return;
        }
        self.marks.put(Answer {
            key: halves(key),
            version,
            until_us: now_us.saturating_add(left_us),
        });
        if self.marks.young.len() == 1 {
            self.begun_us = now_us;
        }
    }

    /// Forgets the answers under such keys. Looks at all.
    pub fn forget_where(&mut self, gone: impl Fn(u128) -> bool) {
        self.marks.forget_where(gone);
    }

    /// Drops answers whose window is over, in the order of their coming, a table at a time.
    pub fn expire(&mut self, now_us: MonoUs) {
        if self.marks.len() > 0 && now_us.saturating_sub(self.begun_us) >= self.window_us {
            self.marks.turn();
            self.begun_us = now_us;
        }
    }

    /// One of twice [`PIECES`] pieces of what it remembers: key, version, and how long ago it was answered.
    #[must_use]
    pub fn piece(&self, piece: usize, now_us: MonoUs) -> Vec<(u128, Version, u64)> {
        let marks = self.marks.piece(piece).filter(|mark| now_us < mark.until_us);
        marks
            .map(|mark| {
                let left_us = mark.until_us - now_us;
                (mark.key(), mark.version, self.window_us.saturating_sub(left_us))
            })
            .collect()
    }

    /// How many answers it remembers, some perhaps past their window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.marks.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revisions: &mut Revisions, key: u128) {
        revisions.put(key, 1, Version(1));
    }

    #[test]
    fn the_last_revision_is_remembered_with_its_version() {
        let mut revisions = Revisions::new(100);
        revisions.put(1, 17, Version(5));
        revisions.put(2, 3, Version(6));
        revisions.put(1, 18, Version(7));
        assert_eq!(revisions.last(1), Some((18, Version(7))));
        assert_eq!(revisions.last(2), Some((3, Version(6))));
        assert_eq!(revisions.last(3), None);
    }

    #[test]
    fn keys_that_differ_only_in_their_low_half_are_two() {
        let mut revisions = Revisions::new(100);
        put(&mut revisions, 1 << 64 | 1);
        assert_eq!(revisions.last(1 << 64 | 2), None);
    }

    #[test]
    fn no_more_than_allowed_is_remembered_and_the_newest_half_always() {
        let mut revisions = Revisions::new(100);
        let key = |number: u128| number << 64 | number;
        for number in 0..1_000 {
            put(&mut revisions, key(number));
            assert!(revisions.len() <= 100);
            for recent in number.saturating_sub(49)..=number {
                assert!(
                    revisions.last(key(recent)).is_some(),
                    "{recent} was forgotten at {number}"
                );
            }
        }
        assert_eq!(revisions.last(key(0)), None, "the oldest is forgotten");
    }

    #[test]
    fn nothing_is_remembered_where_nothing_is_allowed() {
        let mut revisions = Revisions::new(0);
        put(&mut revisions, 1);
        assert_eq!(revisions.last(1), None);
        let mut answers = Answers::new(0, 1_000);
        answers.put(1, Version(5), 0);
        assert_eq!(answers.get(1, 0), None);
    }

    #[test]
    fn an_answer_is_remembered_for_its_window_and_no_longer() {
        let mut answers = Answers::new(100, 1_000);
        answers.put(1, Version(5), 10_000);
        answers.put(2, Version(6), 10_900);
        assert_eq!(answers.get(1, 10_999), Some(Version(5)));
        assert_eq!(answers.get(1, 11_000), None);
        answers.put(3, Version(7), 11_000);
        assert_eq!(answers.get(2, 11_899), Some(Version(6)));
        assert_eq!(answers.get(2, 11_900), None);
        answers.expire(12_000);
        answers.expire(13_000);
        assert!(answers.is_empty());
    }

    #[test]
    fn an_answer_taken_back_has_what_was_left_of_its_window() {
        let mut answers = Answers::new(100, 1_000);
        answers.put(1, Version(5), 10_000);
        answers.put(2, Version(6), 10_600);
        let kept = answers.piece(PIECES, 10_900);
        assert_eq!(kept.len(), 2, "small keys lie in the first piece");
        // Another process, whose clock begins at 0, 50 later.
        let mut after = Answers::new(100, 1_000);
        for (key, version, age_us) in kept {
            after.restore(key, version, age_us + 50, 0);
        }
        assert_eq!((after.get(1, 49), after.get(1, 50)), (Some(Version(5)), None));
        assert_eq!((after.get(2, 649), after.get(2, 650)), (Some(Version(6)), None));
        after.restore(3, Version(7), 1_000, 60);
        assert_eq!(after.get(3, 60), None, "its window was over before");
    }

    #[test]
    fn every_answer_is_kept_for_a_window_while_there_is_room() {
        let mut answers = Answers::new(1_000, 1_000);
        for number in 0..20_000_u64 {
            // 100 a window.
            answers.put(u128::from(number), Version(number), number * 10);
            let oldest = number.saturating_sub(99);
            assert_eq!(answers.get(u128::from(oldest), number * 10), Some(Version(oldest)));
            assert!(answers.len() <= 300);
        }
    }
}
