//! The figures of a record, each with a name: what thresholds speak of, what tables show, what comparisons compare.
//!
//! It knows how a figure is computed, and neither what it should be nor how it looks.

mod measure;

pub use measure::Scope;

use crate::record::{Better, Counts, kind};
use std::fmt;

/// The name of a figure, understood: `lost`, `delivered_per_s`, `latency.p99_ms`, `latency.catch_up.max_ms`,
/// `server.memory_mb`, each with `@phase` for one phase alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    figure: Figure,
    /// Of one phase alone.
    pub phase: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Figure {
    Count(String),
    Rate(String),
    Latency { kind: String, stat: Stat, unit: Unit },
    Resource(Resource),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stat {
    Min,
    Mean,
    Max,
    Percentile(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Us,
    Ms,
    S,
}

impl Unit {
    const ALL: [(Self, &'static str, f64); 3] = [(Self::Us, "us", 1.0), (Self::Ms, "ms", 1e3), (Self::S, "s", 1e6)];

    fn suffix(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn in_us(self) -> f64 {
        Self::ALL[self as usize].2
    }
}

macro_rules! resources {
    ($($variant:ident $name:literal $title:literal $unit:ident $better:ident $meaning:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Resource { $($variant),* }

        impl Resource {
            const ALL: &'static [(Self, &'static str, &'static str, Shown, Better, &'static str)] =
                &[$((Self::$variant, $name, $title, Shown::$unit, Better::$better, $meaning)),*];
        }
    };
}

resources! {
    ServerCpu "server.cpu_cores" "Server CPU" Cores Lower "cores that all servers together kept busy, on average";
    ServerCpuPerDelivery "server.cpu_us_per_delivery" "Server CPU per delivery" Us Lower "microseconds of the servers' processor time for each notice delivered";
    ServerCpuPerPublish "server.cpu_us_per_publish" "Server CPU per publish" Us Lower "microseconds of the servers' processor time for each change published";
    ServerMemory "server.memory_mb" "Server memory, peak" Mib Lower "most resident memory of all servers together, in MiB";
    ServerGrowth "server.memory_growth_mb" "Server memory, growth" Mib Lower "resident memory of all servers at the end less at the start, in MiB";
    GeneratorCpu "generator.cpu_cores" "Generator CPU" Cores Lower "cores that the busiest generator process kept busy, on average";
    LatePercent "generator.late_percent" "Sent late" Percent Lower "share of changes that the generator itself sent late, in percent of those due";
    PeakConnections "connections" "Connections, most" Count Neither "most connections open at the end of an interval";
    Violated "verdicts.violated" "Invariants violated" Count Lower "invariants that the checker found violated";
    Inconclusive "verdicts.inconclusive" "Invariants inconclusive" Count Lower "invariants that the run did not put to the test enough";
    Held "verdicts.held" "Invariants held" Count Higher "invariants that the run put to the test and that hold";
    Faults "faults" "Faults" Count Neither "faults injected";
}

/// How a figure is written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A whole number.
    Count,
    /// So many a second.
    PerSecond,
    /// Microseconds, written in the unit that suits.
    Us,
    /// Processor cores.
    Cores,
    /// Mebibytes.
    Mib,
    /// Percent.
    Percent,
}

/// Why a name is no figure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no figure `{name}`; known are:\n{known}", known = Metric::known())]
pub struct UnknownMetric {
    /// As it was given.
    pub name: String,
}

impl Metric {
    /// Understands a name.
    ///
    /// # Errors
    /// A name that stands for nothing; the error lists those that do.
    pub fn parse(name: &str) -> Result<Self, UnknownMetric> {
        let unknown = || UnknownMetric { name: name.to_owned() };
        let (figure, phase) = match name.split_once('@') {
            Some((_, "")) => return Err(unknown()),
            Some((figure, phase)) => (figure, Some(phase.to_owned())),
            None => (name, None),
        };
        let figure = Figure::parse(figure).ok_or_else(unknown)?;
        Ok(Self { figure, phase })
    }

    /// Every name there is, a line each with what it means.
    #[must_use]
    pub fn known() -> String {
        let mut lines = vec![
            format!(
                "  {:28} from when a change was due until a subscriber was told; also p50, p99.9 …, min, mean, max, and _us, _s",
                "latency.p99_ms"
            ),
            format!(
                "  {:28} the same of another kind: {}",
                "latency.KIND.p99_ms",
                kind::KNOWN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        ];
        for counter in Counts::KNOWN {
            lines.push(format!("  {:28} {}", counter.name, counter.meaning));
        }
        lines.push(format!("  {:28} any of these counters a second", "delivered_per_s"));
        lines.push(format!("  {:28} a counter of this scenario alone", "extra.NAME"));
        for (_, name, _, _, _, meaning) in Resource::ALL {
            lines.push(format!("  {name:28} {meaning}"));
        }
        lines.push(format!("  {:28} any of them in one phase alone", "…@PHASE"));
        lines.join("\n")
    }

    /// For people: `p99`, `Lost`, `Delivered /s`, `Catch up after a cut, max`.
    #[must_use]
    pub fn title(&self) -> String {
        let title = match &self.figure {
            Figure::Count(name) => counter_title(name),
            Figure::Rate(name) => format!("{} /s", counter_title(name)),
            Figure::Latency { kind, stat, .. } => {
                let title = kind::KNOWN
                    .iter()
                    .find(|(known, _)| known == kind)
                    .map_or(kind.as_str(), |(_, t)| t);
                format!("{title}, {stat}")
            }
            Figure::Resource(resource) => Resource::ALL[*resource as usize].2.to_owned(),
        };
        match &self.phase {
            Some(phase) => format!("{title} in {phase}"),
            None => title,
        }
    }

    /// Which way the figure should go.
    #[must_use]
    pub fn better(&self) -> Better {
        match &self.figure {
            Figure::Count(name) | Figure::Rate(name) => Counts::KNOWN
                .iter()
                .find(|counter| counter.name == name)
                .map_or(Better::Neither, |counter| counter.better),
            Figure::Latency { .. } => Better::Lower,
            Figure::Resource(resource) => Resource::ALL[*resource as usize].4,
        }
    }

    /// The figure in words with its unit, e.g. `1.24 ms`.
    #[must_use]
    pub fn words(&self, value: f64) -> String {
        use crate::words;
        match self.shown() {
            Shown::Count => words::count(value),
            Shown::PerSecond => words::rate(value),
            Shown::Us => words::duration_us(self.in_us(value)),
            Shown::Cores => words::cores(value),
            Shown::Mib => words::bytes(value * 1_048_576.0),
            Shown::Percent => words::percent(value),
        }
    }

    /// How the figure is written for people.
    #[must_use]
    pub fn shown(&self) -> Shown {
        match &self.figure {
            Figure::Count(_) => Shown::Count,
            Figure::Rate(_) => Shown::PerSecond,
            Figure::Latency { .. } => Shown::Us,
            Figure::Resource(resource) => Resource::ALL[*resource as usize].3,
        }
    }

    /// Whether each single event of it matters, so that no noise excuses one: losses, phantoms, violations.
    #[must_use]
    pub fn is_a_fault(&self) -> bool {
        match &self.figure {
            Figure::Count(name) => matches!(name.as_str(), "lost" | "went_back" | "phantoms"),
            Figure::Resource(resource) => *resource == Resource::Violated,
            Figure::Rate(_) | Figure::Latency { .. } => false,
        }
    }

    /// Whether a single event decides it, so that averages say nothing of its chance: the longest of all.
    #[must_use]
    pub fn is_an_extreme(&self) -> bool {
        matches!(
            self.figure,
            Figure::Latency {
                stat: Stat::Max | Stat::Min,
                ..
            }
        )
    }

    fn in_us(&self, value: f64) -> f64 {
        match &self.figure {
            Figure::Latency { unit, .. } => value * unit.in_us(),
            _ => value,
        }
    }
}

fn counter_title(name: &str) -> String {
    Counts::KNOWN
        .iter()
        .find(|counter| counter.name == name)
        .map_or(name, |counter| counter.title)
        .to_owned()
}

impl Figure {
    fn parse(name: &str) -> Option<Self> {
        if let Some((resource, ..)) = Resource::ALL.iter().find(|(_, known, ..)| *known == name) {
            return Some(Self::Resource(*resource));
        }
        if let Some(rest) = name.strip_prefix("latency.") {
            return Self::latency(rest);
        }
        if let Some(extra) = name.strip_prefix("extra.") {
            return match extra.strip_suffix("_per_s") {
                _ if extra.is_empty() => None,
                Some(counter) => Some(Self::Rate(counter.to_owned())),
                None => Some(Self::Count(extra.to_owned())),
            };
        }
        let known = |name: &str| Counts::KNOWN.iter().any(|counter| counter.name == name);
        match name.strip_suffix("_per_s") {
            Some(counter) if known(counter) => Some(Self::Rate(counter.to_owned())),
            _ => known(name).then(|| Self::Count(name.to_owned())),
        }
    }

    /// `p99_ms`, `p99.9_ms`, `catch_up.max_s`: the percentile may have a point of its own.
    fn latency(rest: &str) -> Option<Self> {
        let (front, unit) = rest.rsplit_once('_')?;
        let unit = Unit::ALL.iter().find(|(_, suffix, _)| *suffix == unit)?.0;
        let kinds = kind::KNOWN.iter().map(|(name, _)| *name);
        let (kind, stat) = kinds
            .filter_map(|kind| Some((kind, front.strip_prefix(kind)?.strip_prefix('.')?)))
            .next()
            .unwrap_or((kind::DELIVER, front));
        Some(Self::Latency {
            kind: kind.to_owned(),
            stat: Stat::parse(stat)?,
            unit,
        })
    }
}

impl Stat {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "min" => Some(Self::Min),
            "mean" => Some(Self::Mean),
            "max" => Some(Self::Max),
            _ => {
                let digits = name.strip_prefix('p')?;
                let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                let percent = digits.parse::<f64>().ok().filter(|_| plain)?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percentile(percent))
            }
        }
    }
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Min => f.write_str("min"),
            Self::Mean => f.write_str("mean"),
            Self::Max => f.write_str("max"),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

/// The name as [`Metric::parse`] understands it.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |name: &str| Counts::KNOWN.iter().any(|counter| counter.name == name);
        let prefix = |name: &str| if known(name) { "" } else { "extra." };
        match &self.figure {
            Figure::Count(name) => write!(f, "{}{name}", prefix(name))?,
            Figure::Rate(name) => write!(f, "{}{name}_per_s", prefix(name))?,
            Figure::Latency { kind, stat, unit } if kind == kind::DELIVER => {
                write!(f, "latency.{stat}_{}", unit.suffix())?;
            }
            Figure::Latency { kind, stat, unit } => write!(f, "latency.{kind}.{stat}_{}", unit.suffix())?,
            Figure::Resource(resource) => f.write_str(Resource::ALL[*resource as usize].1)?,
        }
        match &self.phase {
            Some(phase) => write!(f, "@{phase}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
