//! What one worker counts and measures between two ticks.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use tidings_report::record::{Counts, Distribution, kind};

/// Longer durations count as this: ten minutes.
const LONGEST_US: u64 = 600_000_000;
/// Warnings of one worker: enough to see what is wrong.
const WARNINGS: usize = 20;

/// A kind of its own: from a change's version (the server's clock) until told, where it came without its stamp: after a gap,
/// or coalesced.
const FROM_VERSION: &str = "from_version";

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timed {
    Deliver,
    Publish,
    Connect,
    Subscribe,
    CatchUp,
    Lateness,
    FromVersion,
}

impl Timed {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Deliver, kind::DELIVER),
        (Self::Publish, kind::PUBLISH),
        (Self::Connect, kind::CONNECT),
        (Self::Subscribe, kind::SUBSCRIBE),
        (Self::CatchUp, kind::CATCH_UP),
        (Self::Lateness, kind::LATENESS),
        (Self::FromVersion, FROM_VERSION),
    ];
}

/// Counters and histograms; taking them sets them back.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    times: Vec<Histogram<u64>>,
    /// The latest that this worker itself was in sending something.
    pub(super) late_us: u64,
    warned: Vec<String>,
    unsaid: usize,
}

impl Tally {
    pub(super) fn new() -> Result<Self, String> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| error.to_string());
        Ok(Self {
            counts: Counts::default(),
            times: Timed::ALL.iter().map(|_| histogram()).collect::<Result<_, _>>()?,
            late_us: 0,
            warned: Vec::new(),
            unsaid: 0,
        })
    }

    #[inline]
    pub(super) fn time(&mut self, what: Timed, us: u64) {
        self.times[what as usize].saturating_record(us);
    }

    /// Counts what has no counter of its own.
    pub(super) fn extra(&mut self, name: &str) {
        *self.counts.extra.entry(name.to_owned()).or_default() += 1;
    }

    /// Something that went wrong: counted always, told while it is news.
    pub(super) fn error(&mut self, text: impl FnOnce() -> String) {
        self.counts.errors += 1;
        self.warn(text);
    }

    pub(super) fn warn(&mut self, text: impl FnOnce() -> String) {
        if self.warned.len() < WARNINGS {
            let text = text();
            if !self.warned.contains(&text) {
                self.warned.push(text);
            }
        }
    }

    pub(super) fn last_warning(&self) -> Option<&str> {
        self.warned.last().map(String::as_str)
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        let said = std::mem::replace(&mut self.unsaid, self.warned.len());
        self.warned[said..].to_vec()
    }

    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    pub(super) fn take_times(&mut self) -> BTreeMap<String, Distribution> {
        let mut taken = BTreeMap::new();
        for ((_, name), histogram) in Timed::ALL.iter().zip(&mut self.times) {
            if !histogram.is_empty() {
                taken.insert((*name).to_owned(), Distribution::from(&*histogram));
                histogram.reset();
            }
        }
        taken
    }
}
