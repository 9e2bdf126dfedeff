//! Whether a run was better than an earlier one, or only different by chance.
//!
//! Each run is cut into up to [`BLOCKS`] blocks of time. How much a figure varies from block to block says how far two runs
//! of the same program may differ by chance (batch means; a t-test at 1 %, two-sided). Runs of one scenario and length are
//! compared block with block, so that a storm in both is no noise (paired, Student 1908); others by the variance of each
//! (Welch 1947). A difference inside that is called noise. Whatever varies from run to run but not within one is not seen: machines warm up, other
//! programs start; so a difference found here is to be repeated before it is believed.
//!
//! It does not know what is worth comparing for somebody: it compares every figure that one of the runs has.

use crate::metric::{Metric, Scope, Shown};
use crate::record::{Better, Counts, Record, kind};
use serde::Serialize;

/// A run is cut into this many blocks at most.
pub const BLOCKS: usize = 16;
/// Fewer say too little of the variance.
const FEWEST_BLOCKS: usize = 5;

/// Two runs, figure by figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What names the older run: system and time.
    pub old: String,
    /// What names the newer run.
    pub new: String,
    /// Figure by figure.
    pub differences: Vec<Difference>,
    /// What stands against comparing these two: other settings, another machine, warnings.
    pub notes: Vec<String>,
}

/// One figure of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub metric: String,
    /// For people.
    pub title: String,
    /// In the older run, if it was measured.
    pub old: Option<f64>,
    /// In the newer run.
    pub new: Option<f64>,
    /// By how many percent the newer is more; `None` where the older is zero or either is missing.
    pub percent: Option<f64>,
    /// Up to which difference chance explains it; `None` where the runs do not say.
    pub noise: Option<f64>,
    /// What to make of it.
    pub judgement: Judgement,
}

/// What to make of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Better by more than chance.
    Better,
    /// Worse by more than chance.
    Worse,
    /// Different by more than chance, in a figure that has no better.
    Different,
    /// No more different than either run is from itself.
    Noise,
    /// Equal.
    Same,
    /// Different, but the runs are too short to say whether by chance.
    Unknown,
    /// Measured in one of them only.
    OneSided,
}

impl Judgement {
    /// In a word or two.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
            Self::Noise => "within noise",
            Self::Same => "same",
            Self::Unknown => "too short to tell",
            Self::OneSided => "in one run only",
        }
    }
}

impl Comparison {
    /// Whether something became worse by more than chance.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.differences
            .iter()
            .any(|difference| difference.judgement == Judgement::Worse)
    }
}

/// Compares a run with an earlier one.
#[must_use]
pub fn compare(old: &Record, new: &Record) -> Comparison {
    Comparison {
        old: name(old),
        new: name(new),
        differences: metrics(old, new)
            .iter()
            .filter_map(|metric| difference(metric, old, new))
            .collect(),
        notes: notes(old, new),
    }
}

fn name(record: &Record) -> String {
    format!("{}, {}", record.system, crate::words::utc(record.started_unix_ms))
}

/// The figures that two runs are compared by: rates rather than counts, so that their lengths may differ.
fn metrics(old: &Record, new: &Record) -> Vec<Metric> {
    let mut names = Vec::new();
    for (kind, _) in kind::KNOWN {
        if [old, new].iter().any(|record| record.latency.contains_key(*kind)) {
            let stats = ["p50", "p90", "p99", "p99.9", "max"];
            names.extend(stats.map(|stat| format!("latency.{kind}.{stat}_ms")));
        }
    }
    names.extend(["lost", "went_back", "phantoms", "verdicts.violated"].map(str::to_owned));
    for counter in Counts::KNOWN {
        let counted = [old, new]
            .iter()
            .any(|record| record.counts.get(counter.name) != Some(0));
        if counted && !names.iter().any(|name| name == counter.name) {
            names.push(format!("{}_per_s", counter.name));
        }
    }
    for resource in [
        "server.cpu_cores",
        "server.cpu_us_per_delivery",
        "server.cpu_us_per_publish",
        "server.memory_mb",
        "generator.cpu_cores",
        "generator.late_percent",
        "connections",
    ] {
        names.push(resource.to_owned());
    }
    names.iter().filter_map(|name| Metric::parse(name).ok()).collect()
}

/// `None` if neither run has the figure, or both count zero of something that is normally none.
fn difference(metric: &Metric, old: &Record, new: &Record) -> Option<Difference> {
    let (before, after) = (metric.of(old), metric.of(new));
    let mut difference = Difference {
        metric: metric.to_string(),
        title: metric.title(),
        old: before,
        new: after,
        percent: None,
        noise: None,
        judgement: Judgement::OneSided,
    };
    let (before, after) = match (before, after) {
        (None, None) => return None,
        (Some(before), Some(after)) => (before, after),
        _ => return Some(difference),
    };
    let change = after - before;
    difference.percent = (before != 0.0).then(|| change / before * 100.0);
    difference.noise = if metric.is_a_fault() {
        None
    } else {
        noise(metric, old, new).map(|noise| noise.max(resolution(metric, before, after)))
    };
    difference.judgement = if change == 0.0 {
        Judgement::Same
    } else if metric.is_a_fault() {
        direction(metric.better(), change)
    } else {
        match difference.noise {
            None => Judgement::Unknown,
            Some(noise) if change.abs() <= noise => Judgement::Noise,
            Some(_) => direction(metric.better(), change),
        }
    };
    Some(difference)
}

fn direction(better: Better, change: f64) -> Judgement {
    match better {
        Better::Neither => Judgement::Different,
        Better::Higher if change > 0.0 => Judgement::Better,
        Better::Lower if change < 0.0 => Judgement::Better,
        Better::Higher | Better::Lower => Judgement::Worse,
    }
}

/// Up to which difference chance explains the figure; `None` where a run has too few blocks.
fn noise(metric: &Metric, old: &Record, new: &Record) -> Option<f64> {
    let (long, short) = (measured(old), measured(new));
    let (long, short) = if long.len() < short.len() {
        (short, long)
    } else {
        (long, short)
    };
    // Some runs have a piece of an interval more than others.
    let as_long = (long.len() - short.len()) * 20 <= long.len();
    let alike = as_long && old.scenario == new.scenario && long.first() == short.first();
    let each = if alike { short.len().div_ceil(BLOCKS).max(1) } else { 0 };
    let (old, new) = (blocks(metric, old, each), blocks(metric, new, each));
    let chance = if metric.is_an_extreme() {
        range(&old)?.max(range(&new)?)
    } else if alike {
        let pairs = old.iter().zip(&new).filter_map(|(old, new)| Some((*new)? - (*old)?));
        paired(&pairs.collect::<Vec<_>>())?
    } else {
        let values = |blocks: &[Option<f64>]| blocks.iter().flatten().copied().collect::<Vec<_>>();
        unpaired(&values(&old), &values(&new))?
    };
    Some(chance)
}

/// How far the blocks of one run lie apart.
fn range(blocks: &[Option<f64>]) -> Option<f64> {
    let values = || blocks.iter().flatten().copied();
    let enough = values().count() >= FEWEST_BLOCKS;
    enough.then(|| values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min))
}

fn paired(differences: &[f64]) -> Option<f64> {
    let freedom = differences.len() as f64 - 1.0;
    let enough = differences.len() >= FEWEST_BLOCKS;
    enough.then(|| t_at_one_percent(freedom) * squared_error(differences).sqrt())
}

fn unpaired(old: &[f64], new: &[f64]) -> Option<f64> {
    if old.len() < FEWEST_BLOCKS || new.len() < FEWEST_BLOCKS {
        return None;
    }
    let (of_old, of_new) = (squared_error(old), squared_error(new));
    let error = of_old + of_new;
    if error == 0.0 {
        return Some(0.0);
    }
    let share = |squared: f64, n: usize| squared * squared / (n as f64 - 1.0);
    let freedom = error * error / (share(of_old, old.len()) + share(of_new, new.len()));
    Some(t_at_one_percent(freedom) * error.sqrt())
}

/// What cannot be told apart whatever the variance: a microsecond, a bucket, a page of memory.
fn resolution(metric: &Metric, before: f64, after: f64) -> f64 {
    let largest = before.abs().max(after.abs());
    match metric.shown() {
        Shown::Us => (largest * 0.01).max(0.001),
        Shown::Count | Shown::PerSecond | Shown::Cores | Shown::Mib | Shown::Percent => largest * 0.005,
    }
}

/// The moments of what is not warm-up.
fn measured(record: &Record) -> Vec<u64> {
    record
        .timeline
        .iter()
        .filter(|interval| !interval.warm_up)
        .map(|interval| interval.at_ms)
        .collect()
}

/// The figure in each block of so many intervals of what was measured (0: as many as make [`BLOCKS`] of them); `None`
/// where a block has none.
fn blocks(metric: &Metric, record: &Record, each: usize) -> Vec<Option<f64>> {
    let measured = measured(record);
    let each = if each > 0 {
        each
    } else {
        measured.len().div_ceil(BLOCKS).max(1)
    };
    let of_block = |block: &[u64]| {
        let (first, last) = (block.first()?, block.last()?);
        // The last block of a run is often a piece: too short to speak for as much time as the others.
        (block.len() == each).then_some(())?;
        metric.within(record, Scope::Between(*first, last + record.interval_ms))
    };
    measured.chunks(each).map(of_block).collect()
}

/// The squared standard error of the mean.
fn squared_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (n - 1.0) / n
}

/// The two-sided 1 % point of Student's t: Fisher's expansion about the normal one (Abramowitz and Stegun 26.7.5).
fn t_at_one_percent(freedom: f64) -> f64 {
    let z = 2.575_829_3_f64;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}

fn notes(old: &Record, new: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    if old.scenario != new.scenario {
        notes.push(format!(
            "different scenarios: `{}` before, `{}` now",
            old.scenario, new.scenario
        ));
    }
    if old.system != new.system {
        notes.push(format!("different systems: {} before, {} now", old.system, new.system));
    }
    for setting in &new.settings {
        match old.settings.iter().find(|before| before.name == setting.name) {
            Some(before) if before.value == setting.value => {}
            Some(before) => notes.push(format!(
                "`{}` was {} and is {}",
                setting.name, before.value, setting.value
            )),
            None => notes.push(format!("`{}` is {} and was not set", setting.name, setting.value)),
        }
    }
    for setting in &old.settings {
        if !new.settings.iter().any(|now| now.name == setting.name) {
            notes.push(format!("`{}` was {} and is not set", setting.name, setting.value));
        }
    }
    if old.machine != new.machine {
        notes.push("the machines differ: absolute figures say little".to_owned());
    }
    for (record, when) in [(old, "before"), (new, "now")] {
        for warning in &record.warnings {
            notes.push(format!("warned {when}: {warning}"));
        }
    }
    notes
}

#[cfg(test)]
mod tests;
