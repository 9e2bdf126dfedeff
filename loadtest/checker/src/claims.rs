//! What cursors claim: read with the protocol's own codec.
//!
//! It does not know whether the claims are true.

use std::rc::Rc;
use tidings_protocol::{Cursor, ShardId};

/// How many texts are remembered: a cursor is told to thousands of clients at a time.
const SLOTS: usize = 1024;
/// So many claims of one client that do not contain each other are kept, more than ever are at a time.
const CLAIMS: usize = 64;

/// Whether a cursor says that a version was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    Yes,
    No,
    /// Some shards lag, and nobody was told the object's shard.
    Unknown,
}

/// A cursor, read.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) cursor: Cursor,
    /// Claimed for every shard, whichever lag.
    pub(crate) certain: u64,
}

impl Place {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let cursor = Cursor::decode(text).ok()?;
        let lowest = cursor.lagging.iter().map(|(_, version)| version.0).min();
        let certain = lowest.unwrap_or(cursor.base.0);
        Some(Self { cursor, certain })
    }

    /// Claimed for the shards that do not lag.
    pub(crate) fn base(&self) -> u64 {
        self.cursor.base.0
    }

    pub(crate) fn claims(&self, version: u64, shard: Option<u16>) -> Claimed {
        if version <= self.certain {
            return Claimed::Yes;
        }
        if version > self.base() {
            return Claimed::No;
        }
        match shard {
            Some(shard) if version <= self.cursor.at(ShardId(shard)).0 => Claimed::Yes,
            Some(_) => Claimed::No,
            None => Claimed::Unknown,
        }
    }
}

/// A text and what it says, if it is a cursor.
#[derive(Clone)]
struct Text {
    text: Box<str>,
    place: Option<Rc<Place>>,
}

/// Texts of cursors, read once.
pub(crate) struct Places {
    slots: Vec<Option<Text>>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }

    /// `None` if this is no cursor.
    pub(crate) fn read(&mut self, text: &str) -> Option<Rc<Place>> {
        // The last letters are a checksum.
        let last = text.len().saturating_sub(6);
        let hash = text.as_bytes()[last..].iter().fold(0_usize, |hash, byte| {
            hash.wrapping_mul(67).wrapping_add(usize::from(*byte))
        });
        let slot = &mut self.slots[hash % SLOTS];
        if let Some(known) = slot
            && *known.text == *text
        {
            return known.place.clone();
        }
        let place = Place::read(text).map(Rc::new);
        *slot = Some(Text {
            text: text.into(),
            place: place.clone(),
        });
        place
    }
}

/// Everything that the cursors handed to one client claim, by when they were handed.
#[derive(Default)]
pub(crate) struct Claims {
    /// In the order in which they were handed; none is contained in a later one.
    all: Vec<(u32, Rc<Place>)>,
}

impl Claims {
    /// A cursor was handed by this event. Returns false if an older claim had to be forgotten.
    pub(crate) fn hand(&mut self, number: u32, place: Rc<Place>) -> bool {
        while let Some((_, last)) = self.all.last() {
            let same_shards = || {
                last.cursor
                    .lagging
                    .iter()
                    .map(|lag| lag.0)
                    .eq(place.cursor.lagging.iter().map(|lag| lag.0))
            };
            let contains = last.base() <= place.certain
                || last.base() <= place.base()
                    && same_shards()
                    && last
                        .cursor
                        .lagging
                        .iter()
                        .zip(&place.cursor.lagging)
                        .all(|(old, new)| old.1 <= new.1);
            if !contains {
                break;
            }
            self.all.pop();
        }
        self.all.push((number, place));
        let fits = self.all.len() <= CLAIMS;
        if !fits {
            self.all.remove(0);
        }
        fits
    }

    /// The highest version that a cursor handed after this event may claim.
    #[inline]
    pub(crate) fn highest(&self, after: u32) -> u64 {
        let handed = self.all.iter().rev().take_while(|(number, _)| *number > after);
        handed.map(|(_, place)| place.base()).max().unwrap_or(0)
    }

    /// Whether a cursor handed after this event claims a version, and which.
    pub(crate) fn claimed(&self, after: u32, version: u64, shard: Option<u16>) -> (Claimed, u32) {
        let mut claimed = (Claimed::No, after);
        for (number, place) in self.all.iter().rev().take_while(|(number, _)| *number > after) {
            match place.claims(version, shard) {
                Claimed::Yes => return (Claimed::Yes, *number),
                Claimed::Unknown => claimed = (Claimed::Unknown, *number),
                Claimed::No => {}
            }
        }
        claimed
    }
}

/// The highest cursor handed to anybody, over time: below it nothing new may appear. Of the last cluster only, where a
/// node that keeps nothing was started anew.
#[derive(Default)]
pub(crate) struct Closed {
    /// Stamp, event, cursor; each claims more than the one before.
    certain: Vec<(u64, u32, Rc<Place>)>,
    base: Vec<(u64, u32, Rc<Place>)>,
}

impl Closed {
    pub(crate) fn hand(&mut self, at_us: u64, number: u32, place: &Rc<Place>) {
        let cluster = self.base.last().map(|last| last.2.cursor.cluster);
        if cluster.is_some_and(|cluster| cluster != place.cursor.cluster) {
            // Another cluster has versions of its own: what the one before closed says nothing of them.
            self.certain.clear();
            self.base.clear();
        }
        if self.certain.last().is_none_or(|last| last.2.certain < place.certain) {
            self.certain.push((at_us, number, Rc::clone(place)));
        }
        if self.base.last().is_none_or(|last| last.2.base() < place.base()) {
            self.base.push((at_us, number, Rc::clone(place)));
        }
    }

    /// Whether a cursor handed before this time claims a version, and which.
    pub(crate) fn claimed(&self, before_us: u64, version: u64, shard: Option<u16>) -> (Claimed, u32) {
        let mut claimed = (Claimed::No, 0);
        for list in [&self.certain, &self.base] {
            let count = list.partition_point(|(at_us, ..)| *at_us < before_us);
            let Some((_, number, place)) = count.checked_sub(1).map(|last| &list[last]) else {
                continue;
            };
            match place.claims(version, shard) {
                Claimed::Yes => return (Claimed::Yes, *number),
                Claimed::Unknown => claimed = (Claimed::Unknown, *number),
                Claimed::No => {}
            }
        }
        claimed
    }

    /// Whether there is anything to compare with.
    pub(crate) fn is_empty(&self) -> bool {
        self.base.is_empty()
    }
}
