//! What is checked, and what was found.
//!
//! It does not know how anything is checked.

use std::collections::BTreeMap;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "`says` documents each, for readers of reports as well")]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I11,
    I12,
    I13,
    I14,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
    ];

    /// The statement in a few words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::I1 => "never silent: who holds an object is told of each acknowledged change, or to resync",
            Self::I2 => "a cursor is sound: all it covers was told before, and nothing new appears below it",
            Self::I3 => "one publish after another of an object gets the higher version",
            Self::I4 => "one version, one change; one key, one version",
            Self::I5 => "no phantoms: what is told was published before, with that version",
            Self::I6 => "no travel back: versions told to a client of an object never fall, nor repeat on a connection",
            Self::I7 => "fencing: after an acknowledgement of a higher epoch no later publish gets a lower one",
            Self::I8 => "handover floor: versions of a higher epoch are above all of the lower ones",
            Self::I9 => "at the end the owner knows every acknowledged change or a newer one",
            Self::I11 => "a resume is exact: it names all that is newer than the cursor, and nothing else",
            Self::I12 => "coalescing keeps the last: the last told is what the owner has at the end",
            Self::I13 => "no gap at subscribe: a change is in the answer or told after it",
            Self::I14 => "a resync is rare and true: only where the run allows it, with a known cause",
        }
    }
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::str::FromStr for Invariant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|invariant| invariant.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("{text} is not checked here"))
    }
}

/// One violation with the events that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What happened, in a sentence.
    pub what: String,
    /// Numbers of the events that matter, in the replay's order.
    pub numbers: Vec<u64>,
    /// These events as JSON lines; filled in at the end.
    pub lines: Vec<String>,
}

/// What was found on one invariant.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often it was put to the test.
    pub checked: u64,
    /// How often it failed.
    pub violations: u64,
    /// The first of these.
    pub samples: Vec<Sample>,
    /// What could not be decided, by reason.
    pub doubts: BTreeMap<&'static str, u64>,
    /// What is allowed but worth a number, by kind.
    pub notes: BTreeMap<&'static str, u64>,
}

/// What was found on each.
#[derive(Debug)]
pub(crate) struct Findings {
    tallies: Vec<Tally>,
    samples: usize,
}

impl Findings {
    pub(crate) fn new(samples: usize) -> Self {
        Self {
            tallies: vec![Tally::default(); Invariant::ALL.len()],
            samples,
        }
    }

    pub(crate) fn of(&self, invariant: Invariant) -> &Tally {
        &self.tallies[invariant as usize]
    }

    #[inline]
    pub(crate) fn checked(&mut self, invariant: Invariant, times: u64) {
        self.tallies[invariant as usize].checked += times;
    }

    /// A violation; its words are only made if it will be shown. Numbers of events that are not known are dropped.
    #[cold]
    pub(crate) fn violated(&mut self, invariant: Invariant, numbers: &[u32], what: impl FnOnce() -> String) {
        let most = self.samples;
        let tally = &mut self.tallies[invariant as usize];
        tally.violations += 1;
        if tally.samples.len() < most {
            let known = numbers.iter().filter(|number| **number != NO_EVENT);
            let mut numbers: Vec<_> = known.map(|number| u64::from(*number)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            tally.samples.push(Sample {
                what: what(),
                numbers,
                lines: Vec::new(),
            });
        }
    }

    #[cold]
    pub(crate) fn doubt(&mut self, invariant: Invariant, why: &'static str, times: u64) {
        *self.tallies[invariant as usize].doubts.entry(why).or_default() += times;
    }

    pub(crate) fn note(&mut self, invariant: Invariant, what: &'static str, times: u64) {
        if times > 0 {
            *self.tallies[invariant as usize].notes.entry(what).or_default() += times;
        }
    }

    pub(crate) fn samples_mut(&mut self) -> impl Iterator<Item = &mut Sample> {
        self.tallies.iter_mut().flat_map(|tally| &mut tally.samples)
    }
}

/// In place of an event's number: there is no such event.
pub(crate) const NO_EVENT: u32 = u32::MAX;

/// What is said of one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was put to the test often enough and never failed.
    Holds,
    /// It failed this many times.
    Violated(u64),
    /// No failure was seen, but too little was seen: why.
    Inconclusive(Vec<String>),
    /// The history has nothing to check it by: what is missing.
    NotChecked(&'static str),
}
