//! What a scenario demands of its figures, so that a load test can stand in somebody's continuous integration.
//!
//! In a scenario file:
//!
//! ```toml
//! [thresholds]
//! "latency.p99_ms" = "<= 5"
//! "latency.catch_up.max_s@storm" = "< 2"
//! lost = "== 0"
//! ```
//!
//! A name that stands for nothing is refused when the file is read, before the run. A figure that the run did not
//! measure is no pass.

use crate::metric::{Metric, UnknownMetric};
use crate::record::{Record, ThresholdResult};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Thresholds in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Entry>")]
pub struct Thresholds(Vec<Threshold>);

/// One figure and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The figure.
    pub metric: Metric,
    /// What it must be.
    pub limit: Limit,
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    relation: Relation,
    number: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    AtMost,
    AtLeast,
    Equal,
    Unequal,
    Below,
    Above,
}

impl Relation {
    /// Two-letter signs first: `<=` starts with `<`.
    const SIGNS: [(Self, &'static str); 6] = [
        (Self::AtMost, "<="),
        (Self::AtLeast, ">="),
        (Self::Equal, "=="),
        (Self::Unequal, "!="),
        (Self::Below, "<"),
        (Self::Above, ">"),
    ];
}

/// Why thresholds were refused. Nothing was run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadThreshold {
    /// No such figure.
    #[error(transparent)]
    Metric(#[from] UnknownMetric),
    /// Not a comparison.
    #[error(
        "the threshold of `{metric}` is `{limit}`; expected a comparison with a number, such as \"<= 5\" or \"== 0\""
    )]
    Limit {
        /// Whose.
        metric: String,
        /// As it was given.
        limit: String,
    },
    /// A phase that the run does not have.
    #[error("the threshold of `{metric}` names a phase that the scenario does not have; it has: {known}")]
    Phase {
        /// Whose.
        metric: String,
        /// The phases there are.
        known: String,
    },
}

impl Thresholds {
    /// Understands pairs of a figure's name and a comparison.
    ///
    /// # Errors
    /// The first that cannot be understood.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadThreshold> {
        let mut thresholds = Vec::new();
        for (name, text) in pairs {
            let limit = Limit::parse(text).ok_or_else(|| BadThreshold::Limit {
                metric: name.to_owned(),
                limit: text.to_owned(),
            })?;
            let metric = Metric::parse(name)?;
            thresholds.push(Threshold { metric, limit });
        }
        Ok(Self(thresholds))
    }

    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Threshold> {
        self.0.iter()
    }

    /// Refuses thresholds of phases that the scenario does not have: to be asked before a run.
    ///
    /// # Errors
    /// The first of them.
    pub fn check_phases(&self, phases: &[&str]) -> Result<(), BadThreshold> {
        let stranger = |t: &&Threshold| t.metric.phase.as_deref().is_some_and(|phase| !phases.contains(&phase));
        match self.iter().find(stranger) {
            None => Ok(()),
            Some(threshold) => Err(BadThreshold::Phase {
                metric: threshold.metric.to_string(),
                known: phases.join(", "),
            }),
        }
    }

    /// Measures and judges each; a figure that the run does not have has not passed.
    #[must_use]
    pub fn evaluate(&self, record: &Record) -> Vec<ThresholdResult> {
        let judge = |threshold: &Threshold| {
            let measured = threshold.metric.of(record).filter(|value| value.is_finite());
            ThresholdResult {
                metric: threshold.metric.to_string(),
                limit: threshold.limit.to_string(),
                measured,
                passed: measured.is_some_and(|value| threshold.limit.admits(value)),
            }
        };
        self.iter().map(judge).collect()
    }
}

impl Limit {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (relation, number) = Relation::SIGNS
            .iter()
            .find_map(|(relation, sign)| Some((*relation, text.strip_prefix(sign)?)))?;
        let number: f64 = number.trim().replace('_', "").parse().ok()?;
        number.is_finite().then_some(Self { relation, number })
    }

    /// The comparison with its number in words, e.g. `≤ 5 ms`.
    pub(crate) fn words(&self, number: impl Fn(f64) -> String) -> String {
        let sign = match self.relation {
            Relation::AtMost => "≤",
            Relation::AtLeast => "≥",
            Relation::Equal => "=",
            Relation::Unequal => "≠",
            Relation::Below => "<",
            Relation::Above => ">",
        };
        format!("{sign} {}", number(self.number))
    }

    /// Whether a measured figure is as demanded.
    #[must_use]
    #[allow(
        clippy::float_cmp,
        reason = "`== 0` means zero: counts are whole numbers, exact as floats"
    )]
    pub fn admits(&self, measured: f64) -> bool {
        match self.relation {
            Relation::AtMost => measured <= self.number,
            Relation::AtLeast => measured >= self.number,
            Relation::Equal => measured == self.number,
            Relation::Unequal => measured != self.number,
            Relation::Below => measured < self.number,
            Relation::Above => measured > self.number,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Relation::SIGNS.iter().find(|(relation, _)| *relation == self.relation);
        write!(f, "{} {}", sign.map_or("", |(_, sign)| sign), self.number)
    }
}

/// A comparison, or a table of them: TOML reads the key `latency.p99_ms` without quotes as a table.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a comparison such as \"<= 5\"")]
enum Entry {
    Comparison(String),
    Table(BTreeMap<String, Entry>),
}

impl TryFrom<BTreeMap<String, Entry>> for Thresholds {
    type Error = BadThreshold;

    fn try_from(table: BTreeMap<String, Entry>) -> Result<Self, BadThreshold> {
        fn flatten(prefix: &str, table: BTreeMap<String, Entry>, into: &mut Vec<(String, String)>) {
            for (key, entry) in table {
                let name = if prefix.is_empty() {
                    key
                } else {
                    format!("{prefix}.{key}")
                };
                match entry {
                    Entry::Comparison(text) => into.push((name, text)),
                    Entry::Table(table) => flatten(&name, table, into),
                }
            }
        }
        let mut pairs = Vec::new();
        flatten("", table, &mut pairs);
        Self::parse(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }
}

#[cfg(test)]
mod tests;
