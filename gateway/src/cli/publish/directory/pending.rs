//! The two waiting rooms of a change: hints that wait for a file to come to rest, and changes that wait for the server.
//!
//! Both hold one entry a path however often it changes. They do not know files, sockets or the clock.

use super::Kind;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// A file at rest for so long is looked at.
const QUIET: Duration = Duration::from_millis(50);
/// A file that is written all the time is looked at this often.
const AT_MOST: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
struct Hint {
    first: Instant,
    last: Instant,
    written: bool,
}

impl Hint {
    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + AT_MOST)
    }
}

/// Files that may have changed.
#[derive(Debug, Default)]
pub(super) struct Hints {
    paths: HashMap<String, Hint>,
}

impl Hints {
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Somebody saw something happen to this file.
    pub(super) fn add(&mut self, path: String, now: Instant, written: bool) {
        let hint = self.paths.entry(path).or_insert(Hint {
            first: now,
            last: now,
            written: false,
        });
        hint.last = now;
        hint.written |= written;
    }

    /// When the first file should be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.paths.values().map(Hint::due).min()
    }

    /// Takes out at most `room` of the files that should be looked at now (`all`: also those not yet at rest), in order of
    /// their names, each with whether it was seen being written.
    pub(super) fn take_due(&mut self, now: Instant, room: usize, all: bool) -> Vec<(String, bool)> {
        let is_due = |hint: &Hint| all || hint.due() <= now;
        let due = self.paths.iter().filter(|(_, hint)| is_due(hint));
        let mut taken: Vec<_> = due
            .take(room)
            .map(|(path, hint)| (path.clone(), hint.written))
            .collect();
        for (path, _) in &taken {
            self.paths.remove(path);
        }
        taken.sort_unstable();
        if self.paths.is_empty() {
            // A burst must not be paid for ever after.
            self.paths.shrink_to(1024);
        }
        taken
    }
}

/// Changes the server has yet to be told of, by object.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    objects: BTreeMap<String, Kind>,
    /// The last one taken. The next ones come after it, round and round, so that none waits for ever behind busier ones.
    last: String,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// One more change, newer than all before.
    pub(super) fn add(&mut self, object: String, kind: Kind) {
        let merged = self.objects.get(&object).map_or(kind, |older| older.then(kind));
        self.objects.insert(object, merged);
    }

    /// Takes out at most `changes`.
    pub(super) fn take(&mut self, changes: usize) -> Vec<(String, Kind)> {
        let after = self
            .objects
            .range::<str, _>((Bound::Excluded(self.last.as_str()), Bound::Unbounded));
        let before = self
            .objects
            .range::<str, _>((Bound::Unbounded, Bound::Included(self.last.as_str())));
        let taken: Vec<_> = after
            .chain(before)
            .take(changes)
            .map(|(object, kind)| (object.clone(), *kind))
            .collect();
        for (object, _) in &taken {
            self.objects.remove(object);
        }
        if let Some((object, _)) = taken.last() {
            self.last.clone_from(object);
        }
        taken
    }

    /// A change that was taken and could not be told. It is older than what came since.
    pub(super) fn put_back(&mut self, object: String, kind: Kind) {
        let merged = self.objects.get(&object).map_or(kind, |newer| kind.then(*newer));
        self.objects.insert(object, merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_writes_is_one_look_when_the_file_has_come_to_rest() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut hints = Hints::default();
        for at in [0, 10, 20] {
            hints.add("a".to_owned(), start + ms(at), at == 10);
        }
        assert_eq!(hints.next_due(), Some(start + ms(70)));
        assert_eq!(hints.take_due(start + ms(69), 9, false), []);
        assert_eq!(hints.take_due(start + ms(70), 9, false), [("a".to_owned(), true)]);
        assert_eq!(hints.next_due(), None);
    }

    #[test]
    fn a_file_written_all_the_time_is_looked_at_every_quarter_of_a_second() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut hints = Hints::default();
        for at in (0..=240).step_by(10) {
            hints.add("log".to_owned(), start + ms(at), true);
        }
        assert_eq!(hints.next_due(), Some(start + ms(250)));
    }

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let now = Instant::now();
        let mut hints = Hints::default();
        for name in ["a", "b", "c"] {
            hints.add(name.to_owned(), now, false);
        }
        assert_eq!(hints.take_due(now, 2, true).len(), 2);
        assert_eq!(hints.take_due(now, 2, true).len(), 1);
    }

    #[test]
    fn a_busy_object_does_not_keep_others_waiting() {
        let mut unsent = Unsent::default();
        ["a", "b", "c"]
            .iter()
            .for_each(|name| unsent.add((*name).to_owned(), Kind::Updated));
        let mut order = String::new();
        for _ in 0..4 {
            let (name, kind) = unsent.take(1).remove(0);
            order += &name;
            unsent.add(name, kind);
        }
        assert_eq!(order, "abca");
    }

    #[test]
    fn changes_that_wait_become_one_that_tells_the_same() {
        use Kind::{Created, Deleted, Updated};
        for (older, newer, both) in [
            (Created, Updated, Created),
            (Created, Deleted, Deleted),
            (Updated, Updated, Updated),
            (Updated, Deleted, Deleted),
            (Deleted, Created, Updated),
        ] {
            let mut unsent = Unsent::default();
            unsent.add("a".to_owned(), older);
            unsent.add("a".to_owned(), newer);
            assert_eq!(unsent.take(9), [("a".to_owned(), both)]);
            // The same when the older one was on its way and came back.
            unsent.add("a".to_owned(), newer);
            unsent.put_back("a".to_owned(), older);
            assert_eq!(unsent.take(9), [("a".to_owned(), both)]);
            assert_eq!(unsent.len(), 0);
        }
    }
}
