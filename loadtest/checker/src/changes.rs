//! What was published: every change that was acknowledged, or seen although nobody was told that it was applied.
//!
//! By object and version, so that each question is a binary search. It does not know clients.

use crate::verdict::NO_EVENT;

/// In place of a stamp: it never came.
pub(crate) const NEVER: u64 = u64::MAX;

/// One change of one object, all attempts to publish it taken together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) object: u32,
    pub(crate) version: u64,
    /// When the first attempt began.
    pub(crate) call_us: u64,
    /// When the first acknowledgement came; [`NEVER`] if it was only seen.
    pub(crate) ack_us: u64,
    /// When the first acknowledgement came that promises that nobody misses it; else [`NEVER`].
    pub(crate) promise_us: u64,
    /// The events of call and acknowledgement.
    pub(crate) call_number: u32,
    pub(crate) ack_number: u32,
    /// Shard and epoch, if told; else the epoch is zero.
    pub(crate) shard: u16,
    pub(crate) epoch: u64,
    /// Which call made it is a guess: `call_us` is the earliest that may have.
    pub(crate) is_guess: bool,
}

impl Change {
    pub(crate) fn numbers(&self) -> [u32; 2] {
        [self.call_number, self.ack_number]
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.promise_us != NEVER
    }
}

/// All changes of a run.
#[derive(Default)]
pub(crate) struct Changes {
    /// By object, then version.
    all: Vec<Change>,
    /// Where each object's begin; one more than there are objects.
    starts: Vec<u32>,
    /// The highest `call_us` of this and all lower versions of the object.
    latest_call_us: Vec<u64>,
    /// The lowest `promise_us` of this and all higher versions of the object.
    earliest_promise_us: Vec<u64>,
}

impl Changes {
    /// Puts them in order. Equal versions of one object become one.
    pub(crate) fn new(mut all: Vec<Change>, objects: usize) -> Self {
        all.sort_unstable_by_key(|change| (change.object, change.version, change.ack_us));
        all.dedup_by(|again, first| {
            let same = (again.object, again.version) == (first.object, first.version);
            if same {
                first.call_us = first.call_us.min(again.call_us);
                first.promise_us = first.promise_us.min(again.promise_us);
            }
            same
        });
        let mut starts = vec![0; objects + 1];
        for change in &all {
            starts[change.object as usize + 1] += 1;
        }
        for object in 0..objects {
            starts[object + 1] += starts[object];
        }
        let mut changes = Self {
            all,
            starts,
            latest_call_us: Vec::new(),
            earliest_promise_us: Vec::new(),
        };
        changes.summarise();
        changes
    }

    fn summarise(&mut self) {
        self.latest_call_us = self.all.iter().map(|change| change.call_us).collect();
        self.earliest_promise_us = self.all.iter().map(|change| change.promise_us).collect();
        for at in 1..self.all.len() {
            if self.all[at].object == self.all[at - 1].object {
                self.latest_call_us[at] = self.latest_call_us[at].max(self.latest_call_us[at - 1]);
            }
        }
        for at in (1..self.all.len()).rev() {
            if self.all[at].object == self.all[at - 1].object {
                self.earliest_promise_us[at - 1] = self.earliest_promise_us[at - 1].min(self.earliest_promise_us[at]);
            }
        }
    }

    /// The same with some more.
    pub(crate) fn with(self, mut more: Vec<Change>, objects: usize) -> Self {
        more.extend(self.all);
        Self::new(more, objects)
    }

    pub(crate) fn all(&self) -> &[Change] {
        &self.all
    }

    /// Those of one object.
    pub(crate) fn of(&self, object: u32) -> &[Change] {
        let (from, to) = self.range(object);
        &self.all[from..to]
    }

    fn range(&self, object: u32) -> (usize, usize) {
        // An object met after the table was made has no changes.
        match self.starts.get(object as usize..object as usize + 2) {
            Some([from, to]) => (*from as usize, *to as usize),
            _ => (0, 0),
        }
    }

    #[inline]
    pub(crate) fn find(&self, object: u32, version: u64) -> Option<&Change> {
        let changes = self.of(object);
        let at = changes.binary_search_by_key(&version, |change| change.version).ok()?;
        Some(&changes[at])
    }

    /// The changes with a version above `low` and at most `high` that a resync at `resync_us` does not stand for: called
    /// later. The newest first.
    #[inline]
    pub(crate) fn uncovered(&self, object: u32, low: u64, high: u64, resync_us: u64) -> impl Iterator<Item = &Change> {
        let (from, to) = self.range(object);
        let end = from + self.all[from..to].partition_point(|change| change.version <= high);
        (from..end)
            .rev()
            .map_while(move |at| {
                let change = &self.all[at];
                (change.version > low && self.latest_call_us[at] > resync_us).then_some(change)
            })
            .filter(move |change| change.call_us > resync_us)
    }

    /// The newest change that was promised before this time.
    pub(crate) fn newest_promised(&self, object: u32, before_us: u64) -> Option<&Change> {
        let (from, to) = self.range(object);
        let count = self.earliest_promise_us[from..to].partition_point(|promise_us| *promise_us < before_us);
        self.all[from..to].get(count.checked_sub(1)?)
    }

    /// How many changes were called after this time; those that were under way with an older version count as older.
    pub(crate) fn called_after(&self, object: u32, at_us: u64) -> u64 {
        let (from, to) = self.range(object);
        let before = self.latest_call_us[from..to].partition_point(|call_us| *call_us <= at_us);
        (to - from - before) as u64
    }

    /// Whether a change was under way at some time of this span.
    pub(crate) fn overlaps(&self, object: u32, from_us: u64, to_us: u64) -> bool {
        let (from, to) = self.range(object);
        let over = self.earliest_promise_us[from..to].partition_point(|promise_us| *promise_us < from_us);
        self.all[from..to]
            .get(over)
            .is_some_and(|change| change.call_us <= to_us)
    }
}

/// A change that was only seen.
pub(crate) fn seen(object: u32, version: u64, call_us: u64, call_number: u32) -> Change {
    Change {
        object,
        version,
        call_us,
        ack_us: NEVER,
        promise_us: NEVER,
        call_number,
        ack_number: NO_EVENT,
        shard: 0,
        epoch: 0,
        is_guess: true,
    }
}
