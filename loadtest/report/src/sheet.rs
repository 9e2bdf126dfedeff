//! The tables of a report, as rows of words: what the terminal and the HTML page both show.
//!
//! It decides what is told and in which order; not how it looks.

mod processes;

use crate::compare::{Comparison, Judgement};
use crate::metric::Metric;
use crate::record::{Counts, Distribution, Record, Status, kind};
use crate::thresholds::Limit;
use crate::words;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// What it shows.
    pub title: String,
    /// Columns; the first names the row.
    pub columns: Vec<Column>,
    /// Rows with as many cells as there are columns.
    pub rows: Vec<Row>,
    /// A sentence below it.
    pub note: Option<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub title: String,
    /// Whether its cells are figures, to stand one below the other.
    pub figures: bool,
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<String>,
    /// How to take it.
    pub tone: Tone,
}

/// How a row is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Something holds.
    Good,
    /// Something does not.
    Bad,
    /// Nobody can say.
    Doubt,
}

impl From<Status> for Tone {
    fn from(status: Status) -> Self {
        match status {
            Status::NotChecked => Self::Plain,
            Status::Held => Self::Good,
            Status::Inconclusive => Self::Doubt,
            Status::Violated => Self::Bad,
        }
    }
}

impl Sheet {
    /// An empty table; a column's head that begins with `#` is one of figures.
    fn new(title: &str, columns: &[&str]) -> Self {
        let column = |head: &&str| Column {
            title: head.trim_start_matches('#').to_owned(),
            figures: head.starts_with('#'),
        };
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(column).collect(),
            ..Self::default()
        }
    }

    fn row(&mut self, tone: Tone, cells: Vec<String>) {
        self.rows.push(Row { cells, tone });
    }
}

/// The tables of a run that have rows, the most important first.
#[must_use]
pub fn sheets(record: &Record) -> Vec<Sheet> {
    let all = [
        side_by_side(record),
        thresholds(record),
        verdicts(record),
        latencies(record),
        counts(record),
        processes::servers(record),
        processes::generators(record),
    ];
    all.into_iter().filter(|sheet| !sheet.rows.is_empty()).collect()
}

/// The figures that tell systems apart, a row for each; empty where there is one system alone.
#[must_use]
pub fn side_by_side(record: &Record) -> Sheet {
    const FIGURES: [(&str, &str); 9] = [
        ("latency.p50_ms", "#p50"),
        ("latency.p99_ms", "#p99"),
        ("latency.p99.9_ms", "#p99.9"),
        ("delivered", "#delivered"),
        ("lost", "#lost"),
        ("resynced_objects", "#told to resync"),
        ("server.cpu_us_per_delivery", "#CPU a delivery"),
        ("server.cpu_cores", "#CPU"),
        ("server.memory_mb", "#memory"),
    ];
    let columns: Vec<&str> = std::iter::once("system")
        .chain(FIGURES.map(|(_, title)| title))
        .collect();
    let mut sheet = Sheet::new("Side by side", &columns);
    if record.neighbours.is_empty() {
        return sheet;
    }
    for system in std::iter::once(record).chain(&record.neighbours) {
        let metrics = FIGURES.iter().filter_map(|(name, _)| Metric::parse(name).ok());
        let cell = |metric: Metric| metric.of(system).map_or_else(String::new, |value| metric.words(value));
        let cells = std::iter::once(system.system.clone())
            .chain(metrics.map(cell))
            .collect();
        sheet.row(Tone::Plain, cells);
    }
    sheet
}

/// What the scenario demanded and what became of it.
#[must_use]
pub fn thresholds(record: &Record) -> Sheet {
    let mut sheet = Sheet::new("Thresholds", &["figure", "#measured", "#demanded", "result"]);
    for threshold in &record.thresholds {
        let metric = Metric::parse(&threshold.metric);
        let words = |value| metric.as_ref().map_or_else(|_| words::count(value), |m| m.words(value));
        let measured = threshold.measured.map_or_else(|| "not measured".to_owned(), words);
        let demanded =
            Limit::parse(&threshold.limit).map_or_else(|| threshold.limit.clone(), |limit| limit.words(words));
        let result = if threshold.passed { "passed" } else { "failed" };
        let tone = if threshold.passed { Tone::Good } else { Tone::Bad };
        sheet.row(
            tone,
            vec![threshold.metric.clone(), measured, demanded, result.to_owned()],
        );
    }
    sheet
}

/// What the checker says.
#[must_use]
pub fn verdicts(record: &Record) -> Sheet {
    let mut sheet = Sheet::new(
        "Verdicts",
        &["invariant", "verdict", "#violations", "put to the test by"],
    );
    for verdict in &record.verdicts {
        let coverage = verdict
            .coverage
            .iter()
            .map(|(what, n)| format!("{} {what}", words::count(*n as f64)));
        sheet.row(
            verdict.status.into(),
            vec![
                format!("{} {}", verdict.name, verdict.title).trim_end().to_owned(),
                verdict.status.words().to_owned(),
                words::count(verdict.violations as f64),
                coverage.collect::<Vec<_>>().join(", "),
            ],
        );
    }
    sheet
}

/// Each kind of latency; with neighbours, theirs beside it.
#[must_use]
pub fn latencies(record: &Record) -> Sheet {
    let columns = ["latency", "#n", "#min", "#p50", "#p90", "#p99", "#p99.9", "#max"];
    let mut sheet = Sheet::new("Latency", &columns);
    let unknown = record
        .latency
        .keys()
        .filter(|name| !kind::KNOWN.iter().any(|(known, _)| known == name));
    let known = kind::KNOWN
        .iter()
        .copied()
        .chain(unknown.map(|name| (name.as_str(), name.as_str())));
    for (name, title) in known {
        for system in std::iter::once(record).chain(&record.neighbours) {
            if let Some(distribution) = system.latency.get(name).filter(|d| !d.is_empty()) {
                let head = if record.neighbours.is_empty() {
                    title.to_owned()
                } else {
                    format!("{title}: {}", system.system)
                };
                sheet.row(Tone::Plain, percentiles(head, distribution));
            }
        }
    }
    sheet
}

fn percentiles(head: String, distribution: &Distribution) -> Vec<String> {
    let us = |us: u64| words::duration_us(us as f64);
    let mut cells = vec![
        head,
        words::count(distribution.count() as f64),
        us(distribution.min_us()),
    ];
    cells.extend([50.0, 90.0, 99.0, 99.9].map(|percent| us(distribution.percentile_us(percent))));
    cells.push(us(distribution.max_us()));
    cells
}

/// What was counted; what counts losses is shown also when it is zero.
#[must_use]
pub fn counts(record: &Record) -> Sheet {
    let mut columns = vec!["counted".to_owned()];
    let systems = || std::iter::once(record).chain(&record.neighbours);
    for system in systems() {
        let name = if record.neighbours.is_empty() {
            "in all"
        } else {
            system.system.as_str()
        };
        columns.extend([format!("#{name}"), "#a second".to_owned()]);
    }
    let mut sheet = Sheet::new("Counted", &columns.iter().map(String::as_str).collect::<Vec<_>>());
    let mut extra: Vec<&str> = systems()
        .flat_map(|s| s.counts.extra.keys().map(String::as_str))
        .collect();
    extra.sort_unstable();
    extra.dedup();
    for name in Counts::KNOWN.iter().map(|counter| counter.name).chain(extra) {
        let of = |system: &Record| system.counts.get(name).unwrap_or(0);
        let always = matches!(name, "published" | "delivered" | "lost");
        if !always && systems().all(|system| of(system) == 0) {
            continue;
        }
        let known = Counts::KNOWN.iter().find(|counter| counter.name == name);
        let fault = matches!(name, "lost" | "went_back" | "phantoms");
        let tone = if fault && of(record) > 0 {
            Tone::Bad
        } else {
            Tone::Plain
        };
        let mut cells = vec![known.map_or(name, |counter| counter.title).to_owned()];
        for system in systems() {
            cells.push(words::count(of(system) as f64));
            let metric = if known.is_some() {
                format!("{name}_per_s")
            } else {
                format!("extra.{name}_per_s")
            };
            let rate = Metric::parse(&metric).ok().and_then(|metric| metric.of(system));
            // What is only known at the end, such as losses, has no rate.
            let rate = rate.filter(|rate| *rate > 0.0);
            cells.push(rate.map_or_else(String::new, words::rate));
        }
        sheet.row(tone, cells);
    }
    sheet
}

/// Two runs beside each other.
#[must_use]
pub fn comparison(comparison: &Comparison) -> Sheet {
    let title = format!("Compared with {}", comparison.old);
    let columns = ["figure", "#before", "#now", "#difference", "#chance explains", "judged"];
    let mut sheet = Sheet::new(&title, &columns);
    let mut differences: Vec<_> = comparison.differences.iter().collect();
    differences.sort_by_key(|difference| weight(difference.judgement));
    for difference in differences {
        let metric = Metric::parse(&difference.metric);
        let shown = |value: f64| metric.as_ref().map_or_else(|_| words::count(value), |m| m.words(value));
        let side = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
        let percent = difference.percent.map_or_else(String::new, signed_percent);
        let noise = difference.noise.filter(|noise| *noise > 0.0);
        let noise = noise.map_or_else(String::new, |noise| format!("± {}", shown(noise)));
        let tone = match difference.judgement {
            Judgement::Better => Tone::Good,
            Judgement::Worse => Tone::Bad,
            Judgement::Unknown => Tone::Doubt,
            Judgement::Different | Judgement::Noise | Judgement::Same | Judgement::OneSided => Tone::Plain,
        };
        let judged = difference.judgement.words().to_owned();
        let (before, now) = (side(difference.old), side(difference.new));
        sheet.row(
            tone,
            vec![difference.title.clone(), before, now, percent, noise, judged],
        );
    }
    sheet.note = Some(
        "Chance: how far each run differs from itself, block by block (t-test at 1 %). What changes from run to run \
         but not within one is not seen: repeat both before believing a small difference."
            .to_owned(),
    );
    sheet
}

/// What somebody should see first comes first.
fn weight(judgement: Judgement) -> u8 {
    match judgement {
        Judgement::Worse => 0,
        Judgement::Better => 1,
        Judgement::Different => 2,
        Judgement::Unknown | Judgement::OneSided => 3,
        Judgement::Noise => 4,
        Judgement::Same => 5,
    }
}

fn signed_percent(percent: f64) -> String {
    if percent.abs() < 0.05 {
        return "0 %".to_owned();
    }
    let digits = if percent.abs() < 9.95 { 1 } else { 0 };
    format!("{percent:+.digits$} %")
}

#[cfg(test)]
mod tests;
