//! How much was seen, in the whole run and during each kind of fault: a check that was never put to the test is not green.

use crate::changes::{Change, NEVER};
use crate::faults::{Faults, overlaps};
use std::collections::BTreeMap;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Acks,
    Unknown,
    Cursors,
    Closes,
    Resumes,
    Resyncs,
    Subscribes,
    Coalesced,
    Handovers,
}

/// The names of the counters, for floors and reports: `acks` publishes acknowledged, `unknown` publishes without known
/// outcome, `cursors` handed, `closes` connections lost, `resumes` catch-ups completed, `resyncs` told, `subscribes`
/// answered, `coalesced` versions skipped for a newer one, `handovers` first acknowledgements of a new epoch. What lasts
/// counts for a fault if it overlaps it.
pub const NAMES: [&str; 9] = [
    "acks",
    "unknown",
    "cursors",
    "closes",
    "resumes",
    "resyncs",
    "subscribes",
    "coalesced",
    "handovers",
];

/// One count for each of [`NAMES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; NAMES.len()]);

impl Counts {
    /// The count of this name, zero for others.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        NAMES.iter().position(|known| *known == name).map_or(0, |at| self.0[at])
    }
}

/// When the first acknowledgement of a new epoch came.
#[derive(Clone, Copy)]
pub(crate) struct Handover {
    pub(crate) at_us: u64,
}

/// What was seen when.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// In the whole run.
    pub run: Counts,
    /// During each kind of fault.
    pub faults: BTreeMap<String, Counts>,
    spans: Vec<(String, Vec<(u64, u64)>)>,
}

impl Coverage {
    pub(crate) fn new(faults: &Faults) -> Self {
        let spans: Vec<_> = faults
            .kinds()
            .map(|(kind, spans)| (kind.to_owned(), spans.to_vec()))
            .collect();
        let counts = spans.iter().map(|(kind, _)| (kind.clone(), Counts::default()));
        Self {
            run: Counts::default(),
            faults: counts.collect(),
            spans,
        }
    }

    /// Something that lasted from one time to another.
    #[inline]
    pub(crate) fn saw(&mut self, counter: Counter, from_us: u64, to_us: u64) {
        self.run.0[counter as usize] += 1;
        for (kind, spans) in &self.spans {
            if overlaps(spans, from_us, to_us)
                && let Some(counts) = self.faults.get_mut(kind)
            {
                counts.0[counter as usize] += 1;
            }
        }
    }

    pub(crate) fn saw_changes(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.ack_us != NEVER) {
            self.saw(Counter::Acks, change.call_us, change.ack_us);
        }
    }
}
