//! The report as one page: no network, no library, nothing beside it. What hovers is the only thing that needs a script.
//!
//! It does not know how figures are computed, only how they are laid out; every name that came from outside is escaped in
//! `text`.

mod chart;
mod distribution;
mod plots;
mod scale;
mod slots;
mod tables;
mod text;

use crate::compare::compare;
use crate::metric::Metric;
use crate::record::{Record, Status};
use crate::sheet;
use crate::words;
use plots::Group;
use serde_json::json;
use std::fmt::Write;
use text::{escape, script_json};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// The whole page; with an earlier run, compared with it.
#[must_use]
pub fn page(record: &Record, before: Option<&Record>) -> String {
    let shown = slots::aligned(record);
    let (groups, nothing) = plots::plots(&shown, before);
    let mut out = String::with_capacity(200_000);
    let title = format!("{} · {} · load test", record.scenario, record.system);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>{}</title><style>{STYLE}</style></head><body>",
        escape(&title)
    );
    head(&mut out, record);
    out.push_str("<main>");
    cards(&mut out, record);
    list(&mut out, "warnings", "Warnings", &all(record, |r| &r.warnings));
    let beside = sheet::side_by_side(record);
    if !beside.rows.is_empty() {
        let _ = write!(
            out,
            "<section><h2>Side by side</h2>{}</section>",
            tables::sheet(&beside)
        );
    }
    demands(&mut out, record);
    if let Some(before) = before {
        comparison(&mut out, before, record);
    }
    drawings(&mut out, &shown, &groups, &nothing);
    out.push_str("<section><h2>Figures</h2>");
    for table in sheet::sheets(record) {
        if !matches!(table.title.as_str(), "Thresholds" | "Verdicts" | "Side by side") {
            out.push_str(&tables::sheet(&table));
        }
    }
    out.push_str(&tables::numbers(&groups));
    out.push_str("</section>");
    list(
        &mut out,
        "caveats",
        "What these systems do not promise",
        &all(record, |r| &r.caveats),
    );
    circumstances(&mut out, record);
    out.push_str("</main>");
    let _ = writeln!(
        out,
        "<script type=\"application/json\" id=\"lines\">{}</script><script>{SCRIPT}</script></body></html>",
        script_json(&hover(&groups))
    );
    out
}

/// What each run says, the neighbours' with their names.
fn all(record: &Record, what: fn(&Record) -> &Vec<String>) -> Vec<String> {
    let named = |run: &Record| -> Vec<String> {
        let name = |text: &String| {
            if record.neighbours.is_empty() {
                text.clone()
            } else {
                format!("{}: {text}", run.system)
            }
        };
        what(run).iter().map(name).collect()
    };
    std::iter::once(record)
        .chain(&record.neighbours)
        .flat_map(named)
        .collect()
}

fn outcome_words(record: &Record) -> (&'static str, &'static str) {
    match record.outcome() {
        Status::Held => ("good", "passed"),
        Status::Violated => ("bad", "failed"),
        Status::Inconclusive => ("doubt", "inconclusive"),
        Status::NotChecked => ("plain", "not judged"),
    }
}

fn head(out: &mut String, record: &Record) {
    let (class, outcome) = outcome_words(record);
    let against = record
        .neighbours
        .iter()
        .map(|n| format!(" · beside {}", n.system))
        .collect::<String>();
    let _ = write!(
        out,
        "<header><div class=\"name\"><h1>{}</h1><span class=\"outcome {class}\">{outcome}</span></div>\
         <p class=\"system\">{}{} · {} · {}</p><p class=\"about\">{}</p></header>",
        escape(&record.scenario),
        escape(&record.system),
        escape(&against),
        words::utc(record.started_unix_ms),
        words::duration_us(record.duration_ms as f64 * 1e3),
        escape(&record.about)
    );
}

/// The figures to see at a glance.
fn cards(out: &mut String, record: &Record) {
    const NAMES: [(&str, &str); 9] = [
        ("latency.p50_ms", "p50"),
        ("latency.p99_ms", "p99"),
        ("latency.p99.9_ms", "p99.9"),
        ("delivered_per_s", "delivered"),
        ("published_per_s", "published"),
        ("lost", "lost"),
        ("connections", "connections"),
        ("server.cpu_cores", "server CPU"),
        ("server.memory_mb", "server RAM"),
    ];
    out.push_str("<dl class=\"cards\">");
    for (name, title) in NAMES {
        let Some((metric, value)) = Metric::parse(name)
            .ok()
            .and_then(|m| m.of(record).map(|value| (m, value)))
        else {
            continue;
        };
        let tone = if metric.is_a_fault() && value > 0.0 {
            " class=\"bad\""
        } else {
            ""
        };
        let text = metric.words(value);
        let (number, unit) = match text.find([' ', '/']) {
            Some(at) => text.split_at(at),
            None => (text.as_str(), ""),
        };
        let _ = write!(
            out,
            "<div{tone}><dt>{}</dt><dd>{}<small>{}</small></dd></div>",
            escape(title),
            escape(number),
            escape(unit)
        );
    }
    out.push_str("</dl>");
}

fn list(out: &mut String, class: &str, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "<section class=\"{class}\"><h2>{title}</h2><ul>");
    for item in items {
        let _ = write!(out, "<li>{}</li>", escape(item));
    }
    out.push_str("</ul></section>");
}

/// Thresholds and verdicts, and the evidence for what does not hold.
fn demands(out: &mut String, record: &Record) {
    let (thresholds, verdicts) = (sheet::thresholds(record), sheet::verdicts(record));
    let there: Vec<_> = [thresholds, verdicts]
        .into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect();
    if there.is_empty() {
        return;
    }
    out.push_str("<section class=\"demands\"><h2>Demands</h2><div class=\"pair\">");
    for table in &there {
        let _ = write!(out, "<div>{}</div>", tables::sheet(table));
    }
    out.push_str("</div>");
    for verdict in record
        .verdicts
        .iter()
        .filter(|v| !v.text.is_empty() || !v.excerpt.is_empty())
    {
        let open = if verdict.status == Status::Violated {
            " open"
        } else {
            ""
        };
        let tone = match verdict.status {
            Status::Held => "good",
            Status::Violated => "bad",
            Status::Inconclusive => "doubt",
            Status::NotChecked => "plain",
        };
        let _ = write!(
            out,
            "<details class=\"evidence {tone}\"{open}><summary>{} {}: {}</summary><p>{}</p>",
            escape(&verdict.name),
            escape(&verdict.title),
            verdict.status.words(),
            escape(&verdict.text)
        );
        if !verdict.excerpt.is_empty() {
            let _ = write!(out, "<pre>{}</pre>", escape(&verdict.excerpt.join("\n")));
        }
        out.push_str("</details>");
    }
    out.push_str("</section>");
}

fn comparison(out: &mut String, before: &Record, record: &Record) {
    let comparison = compare(before, record);
    out.push_str("<section><h2>Before and now</h2>");
    if !comparison.notes.is_empty() {
        out.push_str("<ul class=\"notes\">");
        comparison.notes.iter().for_each(|note| {
            let _ = write!(out, "<li>{}</li>", escape(note));
        });
        out.push_str("</ul>");
    }
    out.push_str(&tables::sheet(&sheet::comparison(&comparison)));
    out.push_str("</section>");
}

fn drawings(out: &mut String, record: &Record, groups: &[Group], nothing: &[String]) {
    out.push_str("<section><h2>Over time</h2>");
    if !record.events.is_empty() {
        out.push_str("<ol class=\"events\">");
        for event in &record.events {
            let class = if event.fault { "fault" } else { "event" };
            let until = event
                .until_ms
                .map_or_else(String::new, |ms| format!(" to {}", words::moment(ms)));
            let _ = write!(
                out,
                "<li class=\"{class}\">{} <span>{}{until}</span></li>",
                escape(&event.text),
                words::moment(event.at_ms)
            );
        }
        out.push_str("</ol>");
    }
    out.push_str("<p class=\"note\" id=\"keys\">Point at a plot for its values, or focus it and use the arrow keys.</p><div class=\"charts\">");
    let mut at = 0;
    for group in groups {
        for chart in &group.charts {
            out.push_str(&chart.markup(&group.across, at));
            at += 1;
        }
    }
    out.push_str("</div>");
    if !nothing.is_empty() {
        let _ = write!(
            out,
            "<p class=\"note\">Zero throughout: {}.</p>",
            escape(&nothing.join(", ").to_lowercase())
        );
    }
    out.push_str("</section>");
}

fn circumstances(out: &mut String, record: &Record) {
    out.push_str("<section class=\"pair\"><div><h2>Settings</h2><dl class=\"facts\">");
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
    };
    record
        .settings
        .iter()
        .for_each(|setting| fact(&setting.name, &setting.value));
    let interval = words::duration_us(record.interval_ms as f64 * 1e3);
    fact("interval of the record", &interval);
    out.push_str("</dl></div><div><h2>Machine and command</h2><dl class=\"facts\">");
    let machine = &record.machine;
    let known = |n: u64, words: fn(f64) -> String| if n > 0 { words(n as f64) } else { String::new() };
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
    };
    fact("processor", &machine.cpu);
    fact("hardware threads", &known(u64::from(machine.cores), words::count));
    fact("memory", &known(machine.memory_bytes, words::bytes));
    fact("system", &machine.os);
    fact("descriptors a process", &known(machine.descriptors, words::count));
    out.push_str("</dl>");
    let systems = || std::iter::once(record).chain(&record.neighbours);
    for run in systems().filter(|run| !run.command.is_empty()) {
        let _ = write!(out, "<pre class=\"command\">{}</pre>", escape(&run.command));
    }
    out.push_str("</div></section>");
}

/// Where hovering finds the values, plot by plot in the order of the page: the horizontal axis (0 is time), and for each
/// line its column in the table of that axis.
fn hover(groups: &[Group]) -> serde_json::Value {
    let axis = |group: &Group| usize::from(!group.across.time);
    let places = |n: usize| {
        let across = groups
            .iter()
            .find(|group| axis(group) == n)
            .map(|group| &group.across.places);
        across.map(|places| {
            places
                .iter()
                .map(|place| (place * 1e4).round() / 1e4)
                .collect::<Vec<_>>()
        })
    };
    let mut columns = [0; 2];
    let mut charts = Vec::new();
    for group in groups {
        for chart in &group.charts {
            let lines = chart.lines.iter().map(|line| {
                columns[axis(group)] += 1;
                let name: String = line.name.chars().map(text::visible).collect();
                json!({ "name": name, "colour": line.colour, "column": columns[axis(group)] })
            });
            charts.push(json!({ "axis": axis(group), "lines": lines.collect::<Vec<_>>() }));
        }
    }
    json!({ "places": [places(0), places(1)], "charts": charts })
}
