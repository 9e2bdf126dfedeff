//! How each figure is computed, over a whole run or a part of it.

use super::{Figure, Metric, Resource, Stat};
use crate::record::{Counts, Distribution, Interval, Process, Record, Status};

/// Which part of a run a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that was counted; latencies, rates and loads without the warm-up.
    Run,
    /// The intervals that began in this time, warm-up or not: from, until (not included), in milliseconds.
    Between(u64, u64),
}

impl Scope {
    fn has(self, interval: &Interval) -> bool {
        match self {
            Self::Run => !interval.warm_up,
            Self::Between(from, to) => (from..to).contains(&interval.at_ms),
        }
    }
}

impl Metric {
    /// The figure of the whole run, or of the metric's phase; `None` where the run has none: no such latency was
    /// measured, no server was sampled, there was no such phase.
    #[must_use]
    pub fn of(&self, record: &Record) -> Option<f64> {
        match &self.phase {
            None => self.within(record, Scope::Run),
            Some(name) => {
                let phase = record.phases.iter().find(|phase| phase.name == *name)?;
                self.within(record, Scope::Between(phase.from_ms, phase.to_ms))
            }
        }
    }

    /// The figure of a part of the run, whatever the metric's phase.
    #[must_use]
    pub fn within(&self, record: &Record, scope: Scope) -> Option<f64> {
        match &self.figure {
            Figure::Count(name) => match scope {
                Scope::Run => counter(&record.counts, name),
                Scope::Between(..) => Some(sum(record, scope, name)),
            },
            Figure::Rate(name) => {
                let seconds = seconds(record, scope);
                (seconds > 0.0).then(|| sum(record, scope, name) / seconds)
            }
            Figure::Latency { kind, stat, unit } => {
                let distribution = latency(record, scope, kind);
                (!distribution.is_empty()).then(|| stat.of(&distribution) / unit.in_us())
            }
            Figure::Resource(resource) => resource.of(record, scope),
        }
    }
}

/// The latencies of one kind in a part of a run.
pub(crate) fn latency(record: &Record, scope: Scope, kind: &str) -> Distribution {
    if scope == Scope::Run {
        return record.latency.get(kind).cloned().unwrap_or_default();
    }
    let mut all = Distribution::new();
    for interval in record.timeline.iter().filter(|interval| scope.has(interval)) {
        if let Some(distribution) = interval.latency.get(kind) {
            all.add(distribution);
        }
    }
    all
}

/// A counter that this scenario never touched is zero, unless nobody knows its name.
fn counter(counts: &Counts, name: &str) -> Option<f64> {
    counts.get(name).map(|n| n as f64)
}

fn sum(record: &Record, scope: Scope, name: &str) -> f64 {
    let intervals = record.timeline.iter().filter(|interval| scope.has(interval));
    intervals.filter_map(|interval| counter(&interval.counts, name)).sum()
}

/// How long the part lasted. The last interval may be a piece only: the run's end says how much of it.
fn seconds(record: &Record, scope: Scope) -> f64 {
    let intervals: Vec<_> = record.timeline.iter().filter(|interval| scope.has(interval)).collect();
    let (Some(first), Some(last)) = (intervals.first(), intervals.last()) else {
        return 0.0;
    };
    let end = last.at_ms + record.interval_ms;
    let end = if record.duration_ms > last.at_ms {
        end.min(record.duration_ms)
    } else {
        end
    };
    end.saturating_sub(first.at_ms) as f64 / 1e3
}

/// The time that a part covers, for samples: after the start, up to the end.
fn span(record: &Record, scope: Scope) -> (u64, u64) {
    match scope {
        Scope::Between(from, to) => (from, to),
        Scope::Run => {
            let measured = || record.timeline.iter().filter(|interval| !interval.warm_up);
            let from = measured().next().map_or(0, |interval| interval.at_ms);
            let to = measured()
                .next_back()
                .map_or(u64::MAX, |interval| interval.at_ms + record.interval_ms);
            (from, to)
        }
    }
}

impl Stat {
    fn of(self, distribution: &Distribution) -> f64 {
        match self {
            Self::Min => distribution.min_us() as f64,
            Self::Mean => distribution.mean_us(),
            Self::Max => distribution.max_us() as f64,
            Self::Percentile(percent) => distribution.percentile_us(percent) as f64,
        }
    }
}

impl Resource {
    fn of(self, record: &Record, scope: Scope) -> Option<f64> {
        let verdicts = |status| {
            let of_them = record.verdicts.iter().filter(|verdict| verdict.status == status);
            (!record.verdicts.is_empty()).then_some(of_them.count() as f64)
        };
        let servers = record.servers.iter();
        match self {
            Self::ServerCpu => total(servers.map(|server| cpu(server, span(record, scope)))),
            Self::ServerCpuPerDelivery => per(record, scope, "delivered"),
            Self::ServerCpuPerPublish => per(record, scope, "published"),
            Self::ServerMemory => total(servers.map(|server| peak_mib(server, span(record, scope)))),
            Self::ServerGrowth => total(servers.map(|server| growth_mib(server, span(record, scope)))),
            Self::GeneratorCpu => {
                let each = record
                    .generators
                    .iter()
                    .filter_map(|process| cpu(process, span(record, scope)));
                each.reduce(f64::max)
            }
            Self::LatePercent => {
                let due = sum(record, scope, "intended");
                (due > 0.0).then(|| sum(record, scope, "late_sends") / due * 100.0)
            }
            Self::PeakConnections => {
                let there = record.timeline.iter().filter(|i| scope == Scope::Run || scope.has(i));
                there.map(|interval| interval.connections as f64).reduce(f64::max)
            }
            Self::Violated => verdicts(Status::Violated),
            Self::Inconclusive => verdicts(Status::Inconclusive),
            Self::Held => verdicts(Status::Held),
            Self::Faults => Some(record.events.iter().filter(|event| event.fault).count() as f64),
        }
    }
}

/// Sums what every process has; `None` if there is no process or one was not sampled.
fn total(each: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut sum = None;
    for value in each {
        sum = Some(sum.unwrap_or(0.0) + value?);
    }
    sum
}

/// Cores busy on average: each sample speaks for the time since the one before.
fn cpu(process: &Process, (from, to): (u64, u64)) -> Option<f64> {
    let (mut busy, mut time) = (0.0, 0.0);
    for pair in process.samples.windows(2) {
        let [before, sample] = pair else { continue };
        if sample.at_ms > from && sample.at_ms <= to {
            let gap = sample.at_ms.saturating_sub(before.at_ms) as f64;
            busy += sample.cpu_cores * gap;
            time += gap;
        }
    }
    (time > 0.0).then(|| busy / time)
}

fn mib_within(process: &Process, (from, to): (u64, u64)) -> impl DoubleEndedIterator<Item = f64> {
    let within = process
        .samples
        .iter()
        .filter(move |sample| (from..=to).contains(&sample.at_ms));
    within.map(|sample| sample.memory_bytes as f64 / 1_048_576.0)
}

fn peak_mib(process: &Process, span: (u64, u64)) -> Option<f64> {
    mib_within(process, span).reduce(f64::max)
}

fn growth_mib(process: &Process, span: (u64, u64)) -> Option<f64> {
    let mut samples = mib_within(process, span);
    let first = samples.next()?;
    Some(samples.next_back()? - first)
}

fn per(record: &Record, scope: Scope, what: &str) -> Option<f64> {
    let cores = Resource::ServerCpu.of(record, scope)?;
    let n = sum(record, scope, what);
    (n > 0.0).then(|| cores * seconds(record, scope) * 1e6 / n)
}
