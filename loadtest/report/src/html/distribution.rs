//! The plot of a latency's distribution, percentile by percentile.

use super::chart::{Across, Axis, Chart, Line};
use super::plots::{Group, chart, colour, line};
use crate::record::{Distribution, Record, kind};
use crate::words;

/// Points on a line.
const PLACES: usize = 120;

/// A distribution worth a line.
struct Curve<'a> {
    name: &'a str,
    distribution: &'a Distribution,
    faint: bool,
}

/// The kinds of latency of one system, or the one that counts of several.
fn curves<'a>(record: &'a Record, before: Option<&'a Record>) -> Vec<Curve<'a>> {
    let curve = |name, run: &'a Record, kind: &str| {
        let distribution = run.latency.get(kind).filter(|distribution| !distribution.is_empty())?;
        Some(Curve {
            name,
            distribution,
            faint: false,
        })
    };
    let mut curves: Vec<Curve<'a>> = if record.neighbours.is_empty() {
        let known = kind::KNOWN
            .iter()
            .filter(|(name, _)| ![kind::LATENESS, kind::CONNECT].contains(name));
        let known = known.filter_map(|(name, title)| curve(title, record, name));
        let strange = |name: &&String| !kind::KNOWN.iter().any(|(known, _)| known == name);
        let strange = record
            .latency
            .keys()
            .filter(strange)
            .filter_map(|name| curve(name.as_str(), record, name));
        known.chain(strange).collect()
    } else {
        let systems = std::iter::once(record).chain(&record.neighbours);
        systems
            .filter_map(|run| curve(run.system.as_str(), run, kind::DELIVER))
            .collect()
    };
    if let Some(before) = before.and_then(|before| curve("before", before, kind::DELIVER)) {
        curves.push(Curve { faint: true, ..before });
    }
    curves
}

/// Percentile by percentile, each nine as wide as the next: the tail is where systems differ.
pub(super) fn distribution(record: &Record, before: Option<&Record>) -> Group {
    let curves = curves(record, before);
    let most = curves.iter().map(|curve| curve.distribution.count()).max().unwrap_or(1);
    let nines = (most as f64).log10().clamp(1.0, 7.0);
    let place = |at: usize| at as f64 / (PLACES - 1) as f64;
    let above = |at: usize| 10_f64.powf(-nines * place(at));
    let lines = curves.iter().enumerate().map(|(n, curve)| {
        let value = |at: usize| {
            // Beyond one in all of them there is nothing to tell.
            let told = above(at) * curve.distribution.count() as f64 > 0.999;
            told.then(|| curve.distribution.percentile_us(100.0 * (1.0 - above(at))) as f64)
        };
        Line {
            faint: curve.faint,
            ..line(
                curve.name,
                if curve.faint { "s1" } else { colour(n) },
                (0..PLACES).map(value).collect(),
            )
        }
    });
    let chart = Chart {
        axis: Axis::Logarithmic,
        wide: true,
        lines: lines.collect(),
        ..chart(
            "Latency distribution",
            "How long the slowest took: one in ten beyond p90, one in a hundred beyond p99, and so on to the right.",
            words::duration_us,
            Vec::new(),
        )
    };
    let marks = [
        (0.5, "p50"),
        (0.9, "p90"),
        (0.99, "p99"),
        (0.999, "p99.9"),
        (0.9999, "p99.99"),
        (0.99999, "p99.999"),
        (0.999_999, "p99.9999"),
    ];
    let position = |share: f64| -(1.0 - share).log10() / nines;
    let across = Across {
        places: (0..PLACES).map(place).collect(),
        names: (0..PLACES).map(|at| place_name(above(at))).collect(),
        marks: marks
            .iter()
            .map(|(share, name)| (position(*share), (*name).to_owned()))
            .filter(|(at, _)| *at <= 1.0)
            .collect(),
        phases: Vec::new(),
        events: Vec::new(),
        time: false,
    };
    Group {
        across,
        charts: if chart.lines.is_empty() {
            Vec::new()
        } else {
            vec![chart]
        },
    }
}

/// `p99.9 · slowest 1 in 1,000`, as exact as the tail is long.
fn place_name(above: f64) -> String {
    let digits = (-above.log10()).floor().clamp(0.0, 6.0) as usize;
    format!(
        "p{:.digits$} · 1 in {}",
        100.0 * (1.0 - above),
        words::count((1.0 / above).round())
    )
}
