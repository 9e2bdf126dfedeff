//! The reports of a made-up run: what they say, that they are safe to open, and that they stay small.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "../examples/sample/run.rs"]
mod run;

use tidings_report::record::{Interval, Process, Record, Sample, Verdict};
use tidings_report::{html, table};

const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"\u{1b}[31m\u{202e}&amp;";

/// The texts between `<tag …>` and `</tag>`.
fn texts(page: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
    let parts = page.split(&open).skip(1).filter(|part| part.starts_with(['>', ' ']));
    parts
        .map(|part| part.split_once('>').unwrap().1.split_once(&close).unwrap().0.to_owned())
        .collect()
}

/// Every element that is opened is closed, in order. Returns how many there were.
fn elements(page: &str) -> usize {
    const VOID: [&str; 3] = ["meta", "link", "!doctype"];
    let (mut open, mut count, mut rest) = (Vec::new(), 0, page);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap();
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "before {:.80}", rest);
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        count += 1;
        if VOID.contains(&name.as_str()) || tag.ends_with('/') {
            continue;
        }
        if matches!(name.as_str(), "script" | "style") {
            rest = rest.split_once(&format!("</{name}>")).unwrap().1;
            continue;
        }
        open.push(name);
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    count
}

/// What a browser would fetch, or run, from elsewhere.
fn assert_self_contained(page: &str) {
    for reference in [
        "http:",
        "https:",
        "src=\"",
        "url(",
        "@import",
        "//cdn",
        "fetch(",
        "XMLHttpRequest",
        "import(",
    ] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert_eq!(page.matches("href=").count(), page.matches("href=\"data:,\"").count());
}

#[test]
fn the_page_of_a_run_has_every_part_in_its_order() {
    let page = html::page(&run::storm(120, 160.0), Some(&run::storm(120, 140.0)));
    assert_eq!(texts(&page, "h1"), ["storm"]);
    assert_eq!(
        texts(&page, "h2"),
        [
            "Warnings",
            "Demands",
            "Before and now",
            "Over time",
            "Figures",
            "Settings",
            "Machine and command"
        ]
    );
    assert_eq!(
        texts(&page, "h3"),
        [
            "Latency over time",
            "Latency distribution",
            "Throughput",
            "Server CPU",
            "Server memory",
            "Generator CPU",
            "Sent late",
            "Delivered, by process",
            "Connections",
            "Coalesced",
            "Reconnects"
        ]
    );
    assert_eq!(
        texts(&page, "caption"),
        [
            "Thresholds",
            "Verdicts",
            "Compared with tidings 0.1.0, 2026-11-20 17:05:12 UTC",
            "Latency",
            "Counted",
            "Servers",
            "Generator",
            "Over time",
            "Distribution"
        ]
    );
    assert!(page.contains("Zero throughout: resyncs, trouble."));
    for part in [
        "kill -9 of n2",
        "≤ 50 MiB",
        "s0412 was told",
        "itself the bottleneck",
        "tidings-loadtest scenarios/storm.toml",
        "17,402 notices",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn every_drawing_has_a_title_and_every_line_its_column_of_numbers() {
    let page = html::page(&run::storm(120, 160.0), None);
    let drawings = texts(&page, "svg");
    assert_eq!(drawings.len(), texts(&page, "h3").len());
    assert!(drawings.iter().all(|drawing| drawing.contains("<title ")));
    let lines = page.matches("<path class=\"line ").count();
    let data = page
        .split("id=\"lines\">")
        .nth(1)
        .unwrap()
        .split_once("</script>")
        .unwrap()
        .0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let told: usize = data["charts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chart| chart["lines"].as_array().unwrap().len())
        .sum();
    assert_eq!(told, lines);
    let numbers = page.split("<details class=\"numbers\">").nth(1).unwrap();
    let heads = numbers.matches("<th scope=\"col\" class=\"n\">").count();
    assert_eq!(heads, lines);
}

#[test]
fn pages_are_well_formed_and_fetch_nothing() {
    let mut beside = run::storm(60, 160.0);
    beside.neighbours = vec![run::neighbour("nats", 90, 200.0), run::neighbour("redis", 60, 300.0)];
    let empty = Record::new("", "", 0, 0);
    for (record, before) in [
        (run::storm(60, 160.0), Some(run::storm(30, 140.0))),
        (run::storm(3, 160.0), None),
        (beside, None),
        (empty.clone(), Some(empty)),
        (Record::default(), None),
    ] {
        let page = html::page(&record, before.as_ref());
        assert!(elements(&page) > 20);
        assert_self_contained(&page);
        let _ = table::render(&record, before.as_ref(), table::Style::default());
    }
}

#[test]
fn hostile_names_stay_names() {
    let mut record = run::storm(20, 160.0);
    for text in [
        &mut record.scenario,
        &mut record.about,
        &mut record.system,
        &mut record.command,
        &mut record.machine.cpu,
        &mut record.machine.os,
        &mut record.settings[0].value,
        &mut record.phases[0].name,
        &mut record.events[0].text,
        &mut record.servers[0].name,
        &mut record.generators[0].name,
        &mut record.warnings[0],
        &mut record.thresholds[0].limit,
    ] {
        *text = HOSTILE.to_owned();
    }
    record.set(HOSTILE, HOSTILE);
    record.thresholds[1].metric = HOSTILE.into();
    record.caveats.push(HOSTILE.into());
    record.counts.extra.insert(HOSTILE.into(), 1);
    let latency = record.latency["deliver"].clone();
    record.latency.insert(HOSTILE.into(), latency);
    record.verdicts.push(Verdict {
        name: HOSTILE.into(),
        title: HOSTILE.into(),
        text: HOSTILE.into(),
        excerpt: vec![HOSTILE.into()],
        coverage: [(HOSTILE.to_owned(), 1)].into(),
        ..Verdict::default()
    });
    record.neighbours = vec![record.clone()];
    let page = html::page(&record, Some(&record));
    elements(&page);
    assert!(!page.contains("<img") && !page.contains("alert(1)</") && !page.contains(HOSTILE));
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
    assert_eq!(page.matches("<script").count(), 2, "the page's own");
    let text = table::render(&record, Some(&record), table::Style::default());
    assert!(!text.contains('\u{1b}'), "a name cannot steer the terminal");
}

#[test]
fn figures_that_are_no_numbers_break_nothing() {
    let mut record = run::storm(20, 160.0);
    const LATEST_MS: u64 = 1 << 42;
    record.duration_ms = LATEST_MS;
    record.timeline.push(Interval {
        at_ms: LATEST_MS,
        connections: u64::MAX,
        ..Interval::default()
    });
    for cpu_cores in [f64::NAN, f64::INFINITY, -1.0] {
        record.servers.push(Process {
            name: format!("{cpu_cores}"),
            samples: vec![
                Sample {
                    cpu_cores,
                    at_ms: LATEST_MS,
                    memory_bytes: u64::MAX,
                    ..Sample::default()
                };
                3
            ],
            ..Process::default()
        });
    }
    record.counts.delivered = u64::MAX;
    record
        .timeline
        .iter_mut()
        .for_each(|interval| interval.counts.delivered = u64::MAX);
    let mut twice = record.clone();
    twice.merge(record.clone()).unwrap();
    let page = html::page(&record, Some(&twice));
    elements(&page);
    assert!(!page.contains("NaN") || page.contains("<th scope=\"row\">NaN</th>"));
    let _ = table::render(&record, None, table::Style::default());
}

#[test]
fn an_hour_with_its_neighbours_fits_in_400_kilobytes() {
    let hour = run::storm(3_600, 160.0);
    let before = run::storm(3_600, 140.0);
    let mut beside = hour.clone();
    beside.neighbours = ["nats", "redis", "nchan"]
        .map(|name| run::neighbour(name, 3_600, 200.0))
        .into();
    for (what, page) in [
        ("alone", html::page(&hour, None)),
        ("compared", html::page(&hour, Some(&before))),
        ("beside", html::page(&beside, None)),
    ] {
        assert!(page.len() < 400_000, "{what}: {} bytes", page.len());
    }
}

#[test]
fn the_end_table_reads_as_written_down() {
    let text = table::render(
        &run::storm(60, 160.0),
        Some(&run::storm(60, 150.0)),
        table::Style::default(),
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_table.txt");
    if std::env::var_os("TIDINGS_BLESS").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(file).unwrap(),
        "TIDINGS_BLESS=1 writes down what is told now"
    );
}

#[test]
fn colours_mark_what_failed_and_leave_the_text_as_it_is() {
    let record = run::storm(20, 160.0);
    let style = table::Style {
        colours: true,
        ..table::Style::default()
    };
    let coloured = table::render(&record, None, style);
    assert!(coloured.contains("\x1b[1;31m✗ server.memory_mb"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(&plain),
        words(&table::render(&record, None, table::Style::default()))
    );
}
