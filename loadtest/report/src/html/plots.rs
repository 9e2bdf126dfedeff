//! Which plots a run deserves, and what their lines are.

use super::chart::{Across, Axis, Chart, Line};
use super::distribution::distribution;
use super::scale::moments;
use super::slots::Grid;
use crate::record::{Distribution, Process, Record, Sample, kind};
use crate::words;

/// Colours of the percentiles, the same on every plot.
const PERCENTILES: [(&str, f64, &str); 4] = [
    ("p50", 50.0, "p50"),
    ("p90", 90.0, "p90"),
    ("p99", 99.0, "p99"),
    ("p99.9", 99.9, "p999"),
];
/// Colours of lines that have no order.
const COLOURS: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
/// Plots that share one horizontal axis.
pub(super) struct Group {
    pub(super) across: Across,
    pub(super) charts: Vec<Chart>,
}

/// Every plot of a run, in order, and the names of those that would show zero alone.
pub(super) fn plots(record: &Record, before: Option<&Record>) -> (Vec<Group>, Vec<String>) {
    let grid = Grid::of(record);
    let mut main = vec![percentiles_over_time(record, before, grid)];
    if !record.neighbours.is_empty() {
        main.push(side_by_side(record, grid));
    }
    let mut rest = throughput(record, grid);
    rest.extend(processes(record, grid));
    rest.extend(happenings(record, grid));
    let time = over_time(record, grid);
    let mut nothing = Vec::new();
    let mut kept = Vec::new();
    for chart in rest {
        if chart.says_something() {
            kept.push(chart);
        } else if !chart.lines.is_empty() {
            nothing.push(chart.title);
        }
    }
    main.retain(Chart::says_something);
    let groups = [
        Group {
            across: time.clone(),
            charts: main,
        },
        distribution(record, before),
        Group {
            across: time,
            charts: kept,
        },
    ];
    (
        groups.into_iter().filter(|group| !group.charts.is_empty()).collect(),
        nothing,
    )
}

/// What connections went through, and what was told otherwise than change by change.
fn happenings(record: &Record, grid: Grid) -> Vec<Chart> {
    vec![
        chart(
            "Connections",
            "Open at the end of each interval.",
            words::count,
            systems(record, |r| grid.connections(r)),
        ),
        counters(
            record,
            grid,
            "Coalesced",
            "Versions never told because a newer one of the same object was.",
            &["coalesced"],
        ),
        counters(
            record,
            grid,
            "Resyncs",
            "Messages that told a subscriber to fetch objects anew.",
            &["resyncs"],
        ),
        counters(
            record,
            grid,
            "Reconnects",
            "Connections that ended unasked, and those made in their place.",
            &["disconnects", "reconnects", "connects_failed"],
        ),
        counters(
            record,
            grid,
            "Trouble",
            "What was refused, in doubt, or went wrong otherwise.",
            &["publish_failed", "publish_unknown", "errors"],
        ),
    ]
}

pub(super) fn chart(title: &str, about: &str, words: fn(f64) -> String, lines: Vec<Line>) -> Chart {
    Chart {
        title: title.to_owned(),
        about: about.to_owned(),
        lines,
        axis: Axis::Linear,
        words,
        wide: false,
    }
}

pub(super) fn line(name: impl Into<String>, colour: &'static str, values: Vec<Option<f64>>) -> Line {
    Line {
        name: name.into(),
        colour,
        faint: false,
        values,
        bridges_gaps: false,
    }
}

pub(super) fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

fn over_time(record: &Record, grid: Grid) -> Across {
    let end = grid.end_ms() as f64;
    let share = |ms: u64| (ms as f64 / end).min(1.0);
    Across {
        places: (0..grid.number).map(|at| share(grid.middle_ms(at))).collect(),
        names: (0..grid.number)
            .map(|at| words::moment(at as u64 * grid.width_ms))
            .collect(),
        marks: moments(grid.end_ms())
            .into_iter()
            .map(|ms| (share(ms), words::moment(ms)))
            .collect(),
        phases: record
            .phases
            .iter()
            .map(|p| (share(p.from_ms), share(p.to_ms), p.name.clone()))
            .collect(),
        events: record
            .events
            .iter()
            .enumerate()
            .map(|(at, e)| (share(e.at_ms), share(e.until_ms.unwrap_or(e.at_ms)), at + 1, e.fault))
            .collect(),
        time: true,
    }
}

/// A percentile of each piece; `None` where so few were measured that it would be their longest by another name.
fn percentile(distributions: &[Distribution], percent: f64) -> Vec<Option<f64>> {
    let enough = |d: &Distribution| !d.is_empty() && (percent >= 100.0 || d.count() as f64 * (100.0 - percent) >= 30.0);
    let of = |d: &Distribution| enough(d).then(|| d.percentile_us(percent) as f64);
    distributions.iter().map(of).collect()
}

fn percentiles_over_time(record: &Record, before: Option<&Record>, grid: Grid) -> Chart {
    let distributions = grid.latency(record, kind::DELIVER);
    // The longest lies below the others, where they meet.
    let mut lines = vec![line("max", "max", percentile(&distributions, 100.0))];
    for (name, percent, colour) in PERCENTILES.iter().rev() {
        lines.push(line(*name, colour, percentile(&distributions, *percent)));
    }
    // A line in pieces is read as nothing happening between them: rather none.
    let told = |line: &Line| line.values.iter().flatten().count();
    let most = lines.iter().map(told).max().unwrap_or(0);
    lines.retain(|line| told(line) > 0 && told(line) * 5 >= most * 4);
    if let Some(before) = before {
        lines.push(Line {
            faint: true,
            ..line(
                "p99 before",
                "p99",
                percentile(&grid.latency(before, kind::DELIVER), 99.0),
            )
        });
    }
    Chart {
        axis: Axis::Logarithmic,
        wide: true,
        ..chart(
            "Latency over time",
            "From when a change was due to be published until a subscriber was told.",
            words::duration_us,
            lines,
        )
    }
}

fn side_by_side(record: &Record, grid: Grid) -> Chart {
    let of = |percent| {
        systems(record, |system| {
            percentile(&grid.latency(system, kind::DELIVER), percent)
        })
    };
    // Where a second has too few deliveries for its p99, a lower percentile still tells the systems apart.
    let told = |lines: &[Line]| {
        lines
            .iter()
            .all(|line| line.values.iter().flatten().count() * 3 > grid.number)
    };
    let (percent, lines) = [99.0, 90.0]
        .map(|percent| (percent, of(percent)))
        .into_iter()
        .find(|(_, lines)| told(lines))
        .unwrap_or_else(|| (50.0, of(50.0)));
    Chart {
        axis: Axis::Logarithmic,
        wide: true,
        ..chart(
            &format!("p{percent}, side by side"),
            "The same load on each system, one after the other.",
            words::duration_us,
            lines,
        )
    }
}

/// One line for each system.
fn systems(record: &Record, values: impl Fn(&Record) -> Vec<Option<f64>>) -> Vec<Line> {
    let each = std::iter::once(record).chain(&record.neighbours).enumerate();
    each.map(|(at, system)| line(system.system.as_str(), colour(at), values(system)))
        .collect()
}

fn throughput(record: &Record, grid: Grid) -> Vec<Chart> {
    if !record.neighbours.is_empty() {
        let of = |counter: &'static str| systems(record, move |system| grid.rate(system, counter));
        return vec![
            chart(
                "Published",
                "Changes acknowledged, a second.",
                words::rate,
                of("published"),
            ),
            chart(
                "Delivered",
                "Notices received by subscribers, a second.",
                words::rate,
                of("delivered"),
            ),
        ];
    }
    let published = grid.rate(record, "published");
    let due = grid.rate(record, "intended");
    let delivered = grid.rate(record, "delivered");
    let most = |values: &[Option<f64>]| values.iter().flatten().copied().fold(0.0, f64::max);
    let mut plans = vec![line("published", "s2", published.clone())];
    // Only where it differs: a line hidden below another is none.
    if published
        .iter()
        .zip(&due)
        .any(|(done, due)| matches!((done, due), (Some(done), Some(due)) if due - done > due * 0.02))
    {
        plans.push(Line {
            faint: true,
            ..line("due", "max", due)
        });
    }
    let notices = line("delivered", "s1", delivered.clone());
    let (p, d) = (most(&published), most(&delivered));
    if p > 0.0 && d > 0.0 && (p / d).max(d / p) < 8.0 {
        plans.insert(0, notices);
        return vec![chart(
            "Throughput",
            "Changes acknowledged and notices received, a second.",
            words::rate,
            plans,
        )];
    }
    vec![
        chart(
            "Delivered",
            "Notices received by subscribers, a second.",
            words::rate,
            vec![notices],
        ),
        chart("Published", "Changes acknowledged, a second.", words::rate, plans),
    ]
}

fn counters(record: &Record, grid: Grid, title: &str, about: &str, names: &[&'static str]) -> Chart {
    let several = !record.neighbours.is_empty();
    let lines = names.iter().flat_map(|name| {
        systems(record, move |system| grid.rate(system, name))
            .into_iter()
            .map(move |line| Line {
                name: match (several, names.len()) {
                    (true, 1) => line.name,
                    (true, _) => format!("{}, {}", line.name, name.replace('_', " ")),
                    (false, _) => name.replace('_', " "),
                },
                ..line
            })
    });
    let mut lines: Vec<Line> = lines.collect();
    if lines.len() > names.len().max(1) || names.len() > 1 {
        lines.retain(|line| line.values.iter().flatten().any(|value| *value != 0.0));
    }
    lines
        .iter_mut()
        .enumerate()
        .for_each(|(at, line)| line.colour = colour(at));
    if lines.is_empty() {
        lines.push(line(title, "s1", vec![Some(0.0)]));
    }
    chart(title, about, words::rate, lines)
}

fn processes(record: &Record, grid: Grid) -> Vec<Chart> {
    let servers: Vec<(String, &Process)> = std::iter::once(record)
        .chain(&record.neighbours)
        .flat_map(|system| {
            system.servers.iter().map(|server| match record.neighbours.is_empty() {
                true => (server.name.clone(), server),
                false => (format!("{}: {}", system.system, server.name), server),
            })
        })
        .collect();
    let generators: Vec<(String, &Process)> = record.generators.iter().map(|g| (g.name.clone(), g)).collect();
    let lines = |of: &[(String, &Process)], what: fn(&Sample) -> Option<f64>| -> Vec<Line> {
        let each = of.iter().enumerate().map(|(at, (name, process))| Line {
            bridges_gaps: true,
            ..line(name.as_str(), colour(at), grid.sampled(process, what))
        });
        each.filter(|line| line.values.iter().any(Option::is_some)).collect()
    };
    let mut charts = vec![
        chart(
            "Server CPU",
            "Cores kept busy.",
            words::cores,
            lines(&servers, |s| Some(s.cpu_cores)),
        ),
        Chart {
            axis: Axis::Bytes,
            ..chart(
                "Server memory",
                "Resident.",
                words::bytes,
                lines(&servers, |s| Some(s.memory_bytes as f64)),
            )
        },
        chart(
            "Generator CPU",
            "Cores kept busy by what made the load. Near one core a thread, the figures are its own, not the server's.",
            words::cores,
            lines(&generators, |s| Some(s.cpu_cores)),
        ),
        chart(
            "Sent late",
            "The latest that the generator was in sending what was due.",
            words::duration_us,
            lines(&generators, |s| s.late_us.map(|us| us as f64)),
        ),
    ];
    if generators.len() > 1 {
        charts.push(chart(
            "Delivered, by process",
            "Notices a second that each process of the generator received.",
            words::rate,
            lines(&generators, |s| s.delivered_per_s),
        ));
    }
    charts.retain(|chart| !chart.lines.is_empty());
    charts
}
