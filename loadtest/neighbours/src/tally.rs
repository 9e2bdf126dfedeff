//! Who was told what, and what is missing: by object and subscriber, out of what was accepted and what arrived.
//!
//! It does not know systems, sockets or clocks; times are microseconds since the start of the run.

use std::collections::HashMap;
use tidings_report::record::Counts;

/// What a message of ours says: its object, its number among the object's messages (from 1), when it was due and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) object: u32,
    pub(crate) number: u32,
    pub(crate) due_us: u64,
    pub(crate) sent_us: u64,
}

impl Message {
    /// As it is published: the same bytes for every system.
    pub(crate) fn text(&self) -> String {
        format!("{} {} {} {}", self.object, self.number, self.due_us, self.sent_us)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        let message = Self {
            object: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            due_us: parts.next()?.parse().ok()?,
            sent_us: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(message)
    }
}

/// A publish that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) number: u32,
    /// 0 where the system has none.
    pub(crate) version: u64,
    /// When it was sent.
    pub(crate) sent_us: u64,
}

/// Everything that was accepted, by object, each in the order of sending.
pub(crate) type Ledger = HashMap<u32, Vec<Accepted>>;

/// One object of one subscriber.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Different messages that were told.
    told: u32,
    /// The highest number told.
    last: u32,
    /// The highest version told, where only versions are.
    version: u64,
    /// Told to fetch anew at this time: whatever was sent before is covered.
    resynced_us: Option<u64>,
}

/// One subscriber's objects, ascending, and what was told of each.
#[derive(Debug)]
pub(crate) struct Tally {
    cells: Vec<Cell>,
}

impl Tally {
    pub(crate) fn new(objects: usize) -> Self {
        Self {
            cells: vec![Cell::default(); objects],
        }
    }

    /// Counts a message; `objects` are those of [`Tally::new`], ascending. Returns whether it is news.
    pub(crate) fn message(&mut self, objects: &[u32], message: Message, version: u64, counts: &mut Counts) -> bool {
        counts.delivered += 1;
        let Some(cell) = cell(&mut self.cells, objects, message.object) else {
            counts.phantoms += 1;
            return false;
        };
        cell.version = cell.version.max(version);
        match message.number.cmp(&cell.last) {
            std::cmp::Ordering::Greater => {
                cell.last = message.number;
                cell.told += 1;
                true
            }
            std::cmp::Ordering::Equal => {
                counts.duplicates += 1;
                false
            }
            std::cmp::Ordering::Less => {
                counts.went_back += 1;
                false
            }
        }
    }

    /// Counts a version told without its content.
    pub(crate) fn changed(&mut self, objects: &[u32], object: u32, version: u64, counts: &mut Counts) {
        counts.delivered += 1;
        let Some(cell) = cell(&mut self.cells, objects, object) else {
            counts.phantoms += 1;
            return;
        };
        match version.cmp(&cell.version) {
            std::cmp::Ordering::Greater => {
                cell.version = version;
                cell.told += 1;
            }
            std::cmp::Ordering::Equal => counts.duplicates += 1,
            std::cmp::Ordering::Less => counts.went_back += 1,
        }
    }

    /// Notes that these objects, or all, are to be fetched anew.
    pub(crate) fn resync(&mut self, objects: &[u32], named: Option<&[u32]>, now_us: u64, counts: &mut Counts) {
        counts.resyncs += 1;
        for (cell, object) in self.cells.iter_mut().zip(objects) {
            if named.is_none_or(|named| named.contains(object)) {
                cell.resynced_us = Some(now_us);
                counts.resynced_objects += 1;
            }
        }
    }

    /// Adds what was due to this subscriber and what it was never told.
    pub(crate) fn settle(&self, objects: &[u32], ledger: &Ledger, counts: &mut Counts) {
        for (cell, object) in self.cells.iter().zip(objects) {
            let Some(accepted) = ledger.get(object) else { continue };
            let newer = |a: &&Accepted| a.number > cell.last && (a.version == 0 || a.version > cell.version);
            let covered = |a: &&Accepted| cell.resynced_us.is_some_and(|resynced| a.sent_us < resynced);
            let lost = accepted.iter().rev().take_while(newer).filter(|a| !covered(a)).count() as u64;
            let due = accepted.len() as u64;
            counts.expected += due;
            counts.lost += lost;
            counts.coalesced += due.saturating_sub(u64::from(cell.told)).saturating_sub(lost);
        }
    }
}

fn cell<'a>(cells: &'a mut [Cell], objects: &[u32], object: u32) -> Option<&'a mut Cell> {
    let at = objects.binary_search(&object).ok()?;
    cells.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: [u32; 2] = [3, 7];

    fn message(object: u32, number: u32) -> Message {
        Message {
            object,
            number,
            due_us: 10,
            sent_us: 11,
        }
    }

    /// Five publishes of object 3, versions 101 to 105 where there are any, sent at 1,000 to 5,000 µs.
    fn ledger(versions: bool) -> Ledger {
        let entry = |number: u32| Accepted {
            number,
            version: if versions { 100 + u64::from(number) } else { 0 },
            sent_us: u64::from(number) * 1_000,
        };
        [(3, (1..=5).map(entry).collect())].into()
    }

    fn settled(tally: &Tally, versions: bool) -> (u64, u64, u64) {
        let mut counts = Counts::default();
        tally.settle(&OBJECTS, &ledger(versions), &mut counts);
        (counts.expected, counts.lost, counts.coalesced)
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        assert_eq!(Message::parse(message(3, 4).text().as_bytes()), Some(message(3, 4)));
        for bad in ["", "1 2 3", "1 2 3 4 5", "a b c d", "1 2 3 4294967296000000000000"] {
            assert_eq!(Message::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_nothing_newer_followed_is_lost_and_the_rest_is_skipped() {
        let mut counts = Counts::default();
        let mut tally = Tally::new(2);
        assert_eq!(settled(&tally, false), (5, 5, 0), "told nothing");
        assert!(tally.message(&OBJECTS, message(3, 1), 0, &mut counts));
        assert!(tally.message(&OBJECTS, message(3, 3), 0, &mut counts));
        assert_eq!(settled(&tally, false), (5, 2, 1), "4 and 5 are lost, 2 was skipped");
        tally.message(&OBJECTS, message(3, 5), 0, &mut counts);
        assert_eq!(settled(&tally, false), (5, 0, 2));
        assert_eq!(counts.delivered, 3);
    }

    #[test]
    fn what_is_told_twice_or_late_or_to_a_stranger_is_counted_as_such() {
        let mut counts = Counts::default();
        let mut tally = Tally::new(2);
        assert!(tally.message(&OBJECTS, message(3, 2), 0, &mut counts));
        assert!(!tally.message(&OBJECTS, message(3, 2), 0, &mut counts));
        assert!(!tally.message(&OBJECTS, message(3, 1), 0, &mut counts));
        assert!(!tally.message(&OBJECTS, message(4, 1), 0, &mut counts));
        assert_eq!(
            (counts.duplicates, counts.went_back, counts.phantoms, counts.delivered),
            (1, 1, 1, 4)
        );
    }

    #[test]
    fn a_version_without_content_covers_what_it_is_newer_than() {
        let mut counts = Counts::default();
        let mut tally = Tally::new(2);
        tally.message(&OBJECTS, message(3, 1), 101, &mut counts);
        tally.changed(&OBJECTS, 3, 104, &mut counts);
        assert_eq!(settled(&tally, true), (5, 1, 2));
        tally.changed(&OBJECTS, 3, 104, &mut counts);
        tally.changed(&OBJECTS, 3, 103, &mut counts);
        tally.changed(&OBJECTS, 9, 1, &mut counts);
        assert_eq!((counts.duplicates, counts.went_back, counts.phantoms), (1, 1, 1));
    }

    #[test]
    fn a_resync_covers_what_was_sent_before_it() {
        let mut counts = Counts::default();
        let mut tally = Tally::new(2);
        tally.resync(&OBJECTS, Some(&[7]), 9_000, &mut counts);
        assert_eq!(settled(&tally, false).1, 5, "another object");
        tally.resync(&OBJECTS, None, 3_500, &mut counts);
        assert_eq!(settled(&tally, false).1, 2, "4 and 5 were sent after it");
        assert_eq!((counts.resyncs, counts.resynced_objects), (2, 3));
    }
}
