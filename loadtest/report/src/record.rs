//! What a load test found: the one thing that the table, the JSON, the HTML page, thresholds and comparisons are made of.
//!
//! A load generator fills a [`Record`] interval by interval with [`Record::push`]. Each process fills its own;
//! [`Record::merge`] makes one of them. It reads no clock and knows neither sockets, nor files, nor the server's protocol.
//!
//! Times are milliseconds since the start of the run (`_ms`), durations microseconds (`_us`).

mod counts;
mod distribution;
mod merge;

pub use counts::{Better, Counter, Counts};
pub use distribution::{BadDistribution, Distribution};
pub use merge::MergeError;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that this crate writes. Fields may be added within a format; a reader takes any format up to its own.
pub const FORMAT: u32 = 1;

/// A record keeps at most this many intervals: past it, each two neighbours become one, so that a run of days stays small.
pub const MAX_INTERVALS: usize = 3_600;

/// No run lasts longer: a hundred years.
const LATEST_MS: u64 = 1 << 42;

/// Kinds of latency that the report knows by name. A scenario may add others.
pub mod kind {
    /// From when a change was due to be published until a subscriber was told: the figure that counts.
    pub const DELIVER: &str = "deliver";
    /// From when a change was due to be published until its publish was acknowledged.
    pub const PUBLISH: &str = "publish";
    /// From when a change was really sent until a subscriber was told: what the generator's own lateness hides.
    pub const SERVICE: &str = "service";
    /// From starting to connect until connected.
    pub const CONNECT: &str = "connect";
    /// From asking for a subscription until it was confirmed.
    pub const SUBSCRIBE: &str = "subscribe";
    /// From losing a connection until told what was missed; from coming back, where the plan keeps clients away a while.
    pub const CATCH_UP: &str = "catch_up";
    /// By how much the generator sent after a change was due.
    pub const LATENESS: &str = "lateness";

    /// All of them, each with a title.
    pub const KNOWN: &[(&str, &str)] = &[
        (DELIVER, "Due to delivered"),
        (PUBLISH, "Due to acknowledged"),
        (SERVICE, "Sent to delivered"),
        (CONNECT, "Connect"),
        (SUBSCRIBE, "Subscribe"),
        (CATCH_UP, "Catch up after a cut"),
        (LATENESS, "Sent after due"),
    ];
}

/// Everything that is known of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The scenario's name, e.g. `seed`.
    pub scenario: String,
    /// What the scenario does, in a sentence or two.
    pub about: String,
    /// What was measured, e.g. `tidings 0.1.0` or `nats-server 2.9.10`.
    pub system: String,
    /// When the run began: milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The command line that repeats it.
    pub command: String,
    /// The scenario's settings in the order to show them.
    pub settings: Vec<Setting>,
    /// Where it ran.
    pub machine: Machine,
    /// How long an interval of the timeline is. Grows by doubling when there are more than [`MAX_INTERVALS`].
    pub interval_ms: u64,
    /// What happened, interval by interval, ascending; where nothing was counted an interval may be missing.
    pub timeline: Vec<Interval>,
    /// Sums of all intervals.
    pub counts: Counts,
    /// Sums of the intervals that were not warm-up, by [`kind`].
    pub latency: BTreeMap<String, Distribution>,
    /// Ramp, steady, storm, …
    pub phases: Vec<Phase>,
    /// Faults and other moments worth a mark on the time axis.
    pub events: Vec<Event>,
    /// The servers' processor and memory, where they could be sampled.
    pub servers: Vec<Process>,
    /// The generator's own processes: what says whether it was itself the bottleneck.
    pub generators: Vec<Process>,
    /// What the checker says of the history.
    pub verdicts: Vec<Verdict>,
    /// What became of the scenario's thresholds.
    pub thresholds: Vec<ThresholdResult>,
    /// What makes the figures doubtful, in sentences.
    pub warnings: Vec<String>,
    /// What the measured system does not promise, where it is another than Tidings; shown with its figures.
    pub caveats: Vec<String>,
    /// The same scenario with other systems, shown beside this one.
    pub neighbours: Vec<Record>,
}

/// One setting of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As in the scenario file.
    pub name: String,
    /// As a person would write it.
    pub value: String,
}

/// The machine of a run. Empty or zero: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many hardware threads the run could use.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Operating system and kernel.
    pub os: String,
    /// Open descriptors allowed to one process.
    pub descriptors: u64,
}

/// What happened in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    /// When it began. [`Record::push`] rounds it down to a multiple of the record's `interval_ms`.
    pub at_ms: u64,
    /// Whether its latencies stay out of the record's sums: the ramp before the load is what the scenario says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub warm_up: bool,
    /// What was counted.
    pub counts: Counts,
    /// Connections open at its end.
    pub connections: u64,
    /// Latencies of what ended in it, by [`kind`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latency: BTreeMap<String, Distribution>,
}

/// A part of the run with a purpose of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `ramp`, `steady`, `storm`, …: as thresholds name it.
    pub name: String,
    /// When it began.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
}

/// What somebody did to the system, or what it did of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// When it began.
    pub at_ms: u64,
    /// When it ended, if it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Whether it was done to the system on purpose.
    pub fault: bool,
    /// In a few words: `kill -9 of n2`.
    pub text: String,
}

/// A process that was watched: a server, or a part of the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// `n1`, `generator 2`, …: the same name is the same process.
    pub name: String,
    /// Ascending.
    pub samples: Vec<Sample>,
    /// Durations of what this process alone received, when a run was made of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Distribution>,
    /// What this process alone counted, when a run was made of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

/// One look at a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When.
    pub at_ms: u64,
    /// Processor time since the sample before, as a share of that time: 1.0 is one core busy.
    #[serde(deserialize_with = "number_or_zero")]
    pub cpu_cores: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Open descriptors; 0 if not known.
    #[serde(skip_serializing_if = "no_descriptors")]
    pub descriptors: u64,
    /// Of a generator: changes a second that it delivered to its subscribers since the sample before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_per_s: Option<f64>,
    /// Of a generator: the latest that it was in sending something since the sample before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_us: Option<u64>,
}

/// What the checker says of one invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// `I1`, …
    pub name: String,
    /// What must hold, in a few words: `Never silent`.
    pub title: String,
    /// Held, violated, …
    pub status: Status,
    /// What was found, or why nothing can be said.
    pub text: String,
    /// How many violations were found.
    pub violations: u64,
    /// The fewest lines of the history that show one violation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpt: Vec<String>,
    /// How often the history put the invariant to the test, by what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub coverage: BTreeMap<String, u64>,
}

/// How a verdict or a threshold came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was not asked.
    #[default]
    NotChecked,
    /// It was put to the test and holds.
    Held,
    /// It was not put to the test enough: not green.
    Inconclusive,
    /// It does not hold.
    Violated,
}

impl Status {
    /// In a word or two.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotChecked => "not checked",
            Self::Held => "held",
            Self::Inconclusive => "inconclusive",
            Self::Violated => "violated",
        }
    }
}

/// What became of one threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdResult {
    /// `latency.p99_ms`, `lost`, `latency.p99_ms@steady`, …
    pub metric: String,
    /// `<= 5`
    pub limit: String,
    /// What was measured; `None` where the run has no such figure, which is no pass.
    pub measured: Option<f64>,
    /// Whether it holds.
    pub passed: bool,
}

impl Record {
    /// An empty record of a run that starts now.
    #[must_use]
    pub fn new(scenario: &str, system: &str, started_unix_ms: u64, interval_ms: u64) -> Self {
        Self {
            format: FORMAT,
            scenario: scenario.to_owned(),
            system: system.to_owned(),
            started_unix_ms,
            interval_ms: interval_ms.max(1),
            ..Self::default()
        }
    }

    /// Adds an interval to the timeline and to the sums. Intervals may come late or in pieces: what falls into one that
    /// is there already is added to it, except the number of connections, where the newer one holds.
    pub fn push(&mut self, interval: Interval) {
        self.counts.add(&interval.counts);
        if !interval.warm_up {
            add_latencies(&mut self.latency, &interval.latency);
        }
        self.place(interval, |_, newer| newer);
        self.thin();
    }

    /// Appends a setting.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`record.set(\"seed\", 17)` is how it is called"
    )]
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.push(Setting {
            name: name.to_owned(),
            value: value.to_string(),
        });
    }

    /// Appends a warning, unless it was given before.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// How the run came out: violated if a verdict or a threshold is, inconclusive if a verdict is, held if something was
    /// put to the test and nothing speaks against it.
    #[must_use]
    pub fn outcome(&self) -> Status {
        let verdicts = || self.verdicts.iter().map(|verdict| verdict.status);
        let failed = self.thresholds.iter().any(|threshold| !threshold.passed);
        if failed || verdicts().any(|status| status == Status::Violated) {
            Status::Violated
        } else if verdicts().any(|status| status == Status::Inconclusive) {
            Status::Inconclusive
        } else if !self.thresholds.is_empty() || verdicts().any(|status| status == Status::Held) {
            Status::Held
        } else {
            Status::NotChecked
        }
    }

    /// As JSON, one line.
    ///
    /// # Errors
    /// A number that JSON cannot say (a share that is not finite).
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Reads what [`Record::to_json`] wrote, of this or an older version of this crate.
    ///
    /// # Errors
    /// What is not JSON, not a record, or of a newer format.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        let record: Self = serde_json::from_str(text)?;
        if !(1..=FORMAT).contains(&record.format) {
            return Err(ReadError::Format(record.format));
        }
        record.check_times()?;
        Ok(record)
    }

    /// Figures may be anything; moments are added up and divided by, so they must be moments.
    fn check_times(&self) -> Result<(), ReadError> {
        let samples = self
            .servers
            .iter()
            .chain(&self.generators)
            .flat_map(|process| &process.samples);
        let mut latest = self.duration_ms.max(self.interval_ms).max(self.started_unix_ms >> 6);
        latest = latest.max(self.timeline.iter().map(|interval| interval.at_ms).max().unwrap_or(0));
        latest = latest.max(samples.map(|sample| sample.at_ms).max().unwrap_or(0));
        for phase in &self.phases {
            latest = latest.max(phase.from_ms).max(phase.to_ms);
        }
        for event in &self.events {
            latest = latest.max(event.at_ms).max(event.until_ms.unwrap_or(0));
        }
        if latest > LATEST_MS {
            return Err(ReadError::Time(latest));
        }
        self.neighbours.iter().try_for_each(Self::check_times)
    }

    /// Puts an interval where it belongs; `connections` says what two numbers of connections become.
    fn place(&mut self, mut interval: Interval, connections: fn(u64, u64) -> u64) {
        let length = self.interval_ms.max(1);
        interval.at_ms -= interval.at_ms % length;
        interval.latency.values_mut().for_each(|d| *d = d.coarse());
        match self.timeline.binary_search_by_key(&interval.at_ms, |i| i.at_ms) {
            Err(at) => self.timeline.insert(at, interval),
            Ok(at) => {
                let there = &mut self.timeline[at];
                there.counts.add(&interval.counts);
                there.connections = connections(there.connections, interval.connections);
                there.warm_up |= interval.warm_up;
                add_latencies(&mut there.latency, &interval.latency);
            }
        }
    }

    /// Makes one interval of two while there are too many.
    fn thin(&mut self) {
        while self.timeline.len() > MAX_INTERVALS {
            self.double();
        }
    }

    fn double(&mut self) {
        self.interval_ms = self.interval_ms.max(1).saturating_mul(2);
        for interval in std::mem::take(&mut self.timeline) {
            self.place(interval, |_, newer| newer);
        }
    }
}

fn add_latencies(to: &mut BTreeMap<String, Distribution>, from: &BTreeMap<String, Distribution>) {
    for (kind, distribution) in from {
        to.entry(kind.clone()).or_default().add(distribution);
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn no_descriptors(n: &u64) -> bool {
    *n == 0
}

/// JSON has no word for what is not a number and says `null`.
fn number_or_zero<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(0.0))
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not a record.
    #[error("this is not the record of a load test: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version, or by something else.
    #[error("the record has format {0}; this version reads formats 1 to {FORMAT}")]
    Format(u32),
    /// A moment out of any run.
    #[error("the record speaks of a moment {0} ms from the start of its run")]
    Time(u64),
}

#[cfg(test)]
mod tests;
