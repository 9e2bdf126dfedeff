//! What was last seen of each file: the truth against which a hint, or a look at everything, is compared.
//!
//! It does not know the file system, time or who listens. One entry a file, at most as many as allowed.

use super::Kind;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Time of the last change of content, in nanoseconds since the Unix epoch.
    pub(super) mtime_ns: i64,
    /// Bytes.
    pub(super) size: u64,
    /// Which file it is, where the system has such numbers: a file replaced by another one changes it.
    pub(super) inode: u64,
}

/// File systems count time in ticks: a second write within the tick of the first one does not change the time.
const TICK_NS: i64 = 20_000_000;
/// Some count seconds, or two.
const COARSE_TICK_NS: i64 = 2_000_000_000;

impl Stamp {
    /// Whether a write just after `seen_ns` could leave the same stamp.
    fn is_fresh(&self, seen_ns: i64) -> bool {
        let tick = if self.mtime_ns % 1_000_000_000 == 0 {
            COARSE_TICK_NS
        } else {
            TICK_NS
        };
        (-tick..=tick).contains(&seen_ns.saturating_sub(self.mtime_ns))
    }
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    /// The file was so new when it was seen that one more write may not show in the stamp.
    fresh: bool,
    /// The last look at everything that met this file.
    look: u32,
}

/// There are more files than allowed. **The snapshot is as it was.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} files")]
pub(super) struct Full(pub(super) usize);

/// All files, by path.
#[derive(Debug)]
pub(super) struct Snapshot {
    files: BTreeMap<Box<str>, Entry>,
    max_files: usize,
}

impl Snapshot {
    pub(super) fn new(max_files: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            max_files,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Takes over the state of one file (`None`: there is none) and says what that means.
    ///
    /// `written`: somebody saw it being written, so an equal stamp proves nothing while the file is fresh.
    pub(super) fn settle(
        &mut self,
        path: &str,
        now: Option<Stamp>,
        seen_ns: i64,
        written: bool,
    ) -> Result<Option<Kind>, Full> {
        let Some(stamp) = now else {
            return Ok(self.files.remove(path).map(|_| Kind::Deleted));
        };
        let fresh = stamp.is_fresh(seen_ns);
        if let Some(entry) = self.files.get_mut(path) {
            let changed = entry.stamp != stamp || (written && entry.fresh);
            (entry.stamp, entry.fresh) = (stamp, fresh);
            return Ok(changed.then_some(Kind::Updated));
        }
        if self.files.len() >= self.max_files {
            return Err(Full(self.max_files));
        }
        self.files.insert(path.into(), Entry { stamp, fresh, look: 0 });
        Ok(Some(Kind::Created))
    }

    /// Notes that look `look` met this file. `true` if it needs to be settled: it is new, differs, or may differ.
    pub(super) fn met(&mut self, path: &str, stamp: Stamp, look: u32) -> bool {
        match self.files.get_mut(path) {
            None => true,
            Some(entry) => {
                entry.look = look;
                entry.stamp != stamp || entry.fresh
            }
        }
    }

    /// The files at or below `parent` (empty: all) that look `look` did not meet.
    pub(super) fn not_met(&self, parent: &str, look: u32) -> Vec<String> {
        self.within(parent)
            .filter(|(_, entry)| entry.look != look)
            .map(|(path, _)| path.to_string())
            .collect()
    }

    fn within<'a>(&'a self, parent: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        // Everything below `a` lies between `a/` and `a0`: `0` follows `/`.
        let (own, from, to) = (parent.to_owned(), format!("{parent}/"), format!("{parent}0"));
        let range = if parent.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()))
        };
        let itself = self.files.get_key_value(own.as_str());
        let below = self.files.range::<str, _>(range);
        itself.into_iter().chain(below).map(|(path, entry)| (&**path, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Stamp = Stamp {
        mtime_ns: 1_000_000_001,
        size: 5,
        inode: 7,
    };
    const LONG_AFTER: i64 = 900_000_000_000;

    fn with(paths: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::new(10);
        for path in paths {
            assert_eq!(
                snapshot.settle(path, Some(OLD), LONG_AFTER, true),
                Ok(Some(Kind::Created))
            );
        }
        snapshot
    }

    #[test]
    fn a_difference_in_time_size_or_inode_is_an_update_and_none_is_silence() {
        let mut snapshot = with(&["a"]);
        assert_eq!(snapshot.settle("a", Some(OLD), LONG_AFTER, true), Ok(None));
        for stamp in [
            Stamp { mtime_ns: 2, ..OLD },
            Stamp { size: 6, ..OLD },
            Stamp { inode: 8, ..OLD },
        ] {
            assert_eq!(
                snapshot.settle("a", Some(stamp), LONG_AFTER, false),
                Ok(Some(Kind::Updated))
            );
            assert_eq!(
                snapshot.settle("a", Some(OLD), LONG_AFTER, false),
                Ok(Some(Kind::Updated))
            );
        }
        assert_eq!(snapshot.settle("a", None, LONG_AFTER, false), Ok(Some(Kind::Deleted)));
        assert_eq!(snapshot.settle("a", None, LONG_AFTER, false), Ok(None));
    }

    #[test]
    fn a_second_write_within_one_tick_of_the_clock_is_an_update_though_the_stamp_is_equal() {
        let mut snapshot = Snapshot::new(10);
        let just_after = OLD.mtime_ns + 1_000_000;
        assert_eq!(
            snapshot.settle("a", Some(OLD), just_after, true),
            Ok(Some(Kind::Created))
        );
        assert_eq!(
            snapshot.settle("a", Some(OLD), LONG_AFTER, true),
            Ok(Some(Kind::Updated))
        );
        assert_eq!(
            snapshot.settle("a", Some(OLD), LONG_AFTER, true),
            Ok(None),
            "only once: it is no longer fresh"
        );
    }

    #[test]
    fn a_look_finds_what_is_new_what_differs_and_what_is_gone() {
        let mut snapshot = with(&["a/b", "a/c", "a0", "ab", "a"]);
        assert!(!snapshot.met("a/b", OLD, 1));
        assert!(snapshot.met("a/c", Stamp { size: 1, ..OLD }, 1));
        assert!(snapshot.met("a/new", OLD, 1));
        assert_eq!(snapshot.not_met("a", 1), ["a"]);
        assert_eq!(snapshot.not_met("a", 2), ["a", "a/b", "a/c"]);
        assert_eq!(snapshot.not_met("", 1), ["a", "a0", "ab"]);
    }

    #[test]
    fn one_file_too_many_is_refused_and_changes_nothing() {
        let mut snapshot = Snapshot::new(1);
        assert_eq!(
            snapshot.settle("a", Some(OLD), LONG_AFTER, false),
            Ok(Some(Kind::Created))
        );
        assert_eq!(snapshot.settle("b", Some(OLD), LONG_AFTER, false), Err(Full(1)));
        assert_eq!(
            snapshot.settle("a", Some(Stamp { size: 1, ..OLD }), LONG_AFTER, false),
            Ok(Some(Kind::Updated))
        );
        assert_eq!(snapshot.len(), 1);
    }
}
