//! The documents and the code say the same: every error, close code, limit, configuration key, metric and route is documented,
//! and dashboards and alerts name what there is.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tidings::config::{Config, KEYS, docs_markdown};
use tidings_protocol::Code;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The cells of every table row that begins with `first`, without the empty ones at both ends.
fn rows<'a>(text: &'a str, first: &str) -> Vec<Vec<&'a str>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| cells[0] == first).collect()
}

#[test]
fn every_error_code_stands_in_the_protocol_with_status_and_what_to_do() {
    let document = read("docs/protocol.md");
    for code in Code::ALL {
        let name = format!("`{code}`");
        let found = rows(&document, &name);
        assert_eq!(found.len(), 1, "{name} has one row");
        let retryable = if code.retryable() { "yes" } else { "no" };
        assert_eq!(
            found[0][1..3],
            [code.status().to_string().as_str(), retryable],
            "{name}"
        );
    }
}

#[test]
fn every_close_code_stands_in_the_protocol_and_says_whether_to_come_back() {
    let document = read("docs/protocol.md");
    let source = read("protocol/src/close.rs");
    let variants = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    let codes: Vec<u16> = variants.filter_map(|(_, number)| number.parse().ok()).collect();
    assert!(codes.len() >= 15, "the list is found: {codes:?}");
    for code in codes {
        let found = rows(&document, &code.to_string());
        assert_eq!(found.len(), 1, "{code} has one row");
        let says = found[0][2];
        match code {
            4000..4500 => assert!(says.starts_with("comes back"), "{code}: {says}"),
            1000 => {}
            _ => assert!(says.contains("stop"), "{code}: {says}"),
        }
    }
}

#[test]
fn every_cause_of_a_resync_stands_in_the_protocol() {
    let document = read("docs/protocol.md");
    let mut sources = read("router/src/edge/place.rs");
    sources += &read("protocol/src/peer.rs");
    let causes: BTreeSet<_> = sources
        .split('"')
        .filter(|text| text.starts_with("cursor_") || text.starts_with("versions_"))
        .collect();
    assert!(causes.len() >= 5, "{causes:?}");
    for cause in causes {
        assert_eq!(rows(&document, &format!("`{cause}`")).len(), 1, "{cause}");
    }
}

#[test]
fn the_bounds_of_the_wire_stand_in_the_protocol() {
    use tidings_protocol::limits as l;
    let document = read("docs/protocol.md");
    let thousands = |number: usize| {
        let text = number.to_string();
        if text.len() > 3 {
            format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
        } else {
            text
        }
    };
    let id = tidings_protocol::id::MAX_ID_BYTES;
    for bound in [
        l::MAX_KIND_BYTES,
        l::MAX_DATA_BYTES,
        l::MAX_DATA_DEPTH,
        l::MAX_CURSOR_BYTES,
        l::MAX_IDEMPOTENCY_KEY_BYTES,
        id,
    ] {
        assert!(document.contains(&thousands(bound)), "{bound}");
    }
}

#[test]
fn the_configuration_document_is_what_the_program_prints() {
    let (document, printed) = (read("docs/configuration.md"), docs_markdown());
    let changed: Vec<_> = printed
        .lines()
        .filter(|line| !document.lines().any(|l| l == *line))
        .collect();
    assert!(
        document == printed,
        "write it again: cargo run -p tidings -- config docs > docs/configuration.md\nnew lines:\n{}",
        changed.join("\n")
    );
    assert!(KEYS.len() > 40);
}

/// One answer of a server, head and all.
fn ask(address: &str, path: &str) -> String {
    ask_for(address, path, "*/*")
}

/// The same in a format.
fn ask_for(address: &str, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer
}

fn with_server(check: impl FnOnce(&str)) {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 1;
    let folder = tempfile::tempdir().unwrap();
    config.server.data_dir = folder.path().to_str().unwrap().to_owned();
    let running = tidings::Node::start(config).unwrap();
    check(&running.addr.to_string());
    running.shutdown();
}

/// Three nodes of one cluster in this process.
fn with_cluster(check: impl FnOnce(&str)) {
    let (mut starting, mut join) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".to_owned();
        config.server.node_listen = "127.0.0.1:0".to_owned();
        config.server.threads = 1;
        config.server.data_dir = "none".to_owned();
        config.cluster.expect = 3;
        config.cluster.secret = "what only these three nodes know".to_owned();
        config.cluster.join = join.clone();
        let node = tidings::Node::begin(config).unwrap();
        join.push(node.node_address().unwrap().to_string());
        starting.push(std::thread::spawn(move || node.finish().unwrap()));
    }
    let running: Vec<_> = starting.into_iter().map(|node| node.join().unwrap()).collect();
    let address = running[0].addr.to_string();
    let since = Instant::now();
    // The thread of links names its metrics when it starts.
    while !ask(&address, "/metrics").contains("tidings_peer_") {
        assert!(since.elapsed() < Duration::from_secs(60), "no metrics of links");
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&address);
    running.into_iter().for_each(tidings::RunningNode::shutdown);
}

/// Every metric with what servers say about it, as rows of the document.
fn exported() -> &'static BTreeMap<String, String> {
    static EXPORTED: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let mut rows = BTreeMap::new();
        with_server(|address| rows.extend(rows_of(address)));
        with_cluster(|address| rows.extend(rows_of(address)));
        rows
    })
}

fn rows_of(address: &str) -> BTreeMap<String, String> {
    let answer = ask(address, "/metrics");
    let comments = |mark: &'static str| {
        answer
            .lines()
            .filter_map(move |line| line.strip_prefix(mark)?.split_once(' '))
    };
    let kinds: BTreeMap<_, _> = comments("# TYPE ").collect();
    let row = |(name, help): (&str, &str)| {
        let suffix = if kinds[name] == "counter" { "_total" } else { "" };
        let text = format!("| `{name}{suffix}` | {}, {} |", kinds[name], help.trim_end_matches('.'));
        (name.to_owned(), text)
    };
    comments("# HELP ").map(row).collect()
}

#[test]
fn every_metric_stands_in_the_operations_document_and_no_other_does() {
    let document = read("docs/operations.md");
    let exported = exported();
    assert!(exported.len() > 15, "{exported:?}");
    let names = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = names
        .filter(|name| name.starts_with("tidings_") || name.starts_with("process_"))
        .map(|n| n.strip_suffix("_total").unwrap_or(n))
        .collect();
    let missing: Vec<_> = exported
        .iter()
        .filter(|(name, _)| !documented.contains(name.as_str()))
        .map(|(_, row)| row.as_str())
        .collect();
    assert!(missing.is_empty(), "not in docs/operations.md:\n{}", missing.join("\n"));
    let stale: Vec<_> = documented
        .iter()
        .filter(|name| !exported.contains_key(**name))
        .collect();
    assert!(stale.is_empty(), "no longer exported: {stale:?}");
}

/// The names of the samples that servers give.
fn sample_names() -> BTreeSet<String> {
    let exported = exported();
    let of = |(name, row): (&String, &String)| {
        let kind = row.split(" | ").nth(1).unwrap().split(',').next().unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "gauge" => &[""],
            other => panic!("{name} is a {other}"),
        };
        suffixes
            .iter()
            .map(|suffix| format!("{name}{suffix}"))
            .collect::<Vec<_>>()
    };
    exported.iter().flat_map(of).collect()
}

/// The metrics that an expression, or a file of them, names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| word.starts_with("tidings_") || word.starts_with("process_"))
        .collect()
}

const OBSERVABILITY: &str = "deploy/observability";

/// Every expression of a dashboard, with the titles of dashboard and panel.
fn expressions(name: &str) -> Vec<(String, String)> {
    let board: serde_json::Value = serde_json::from_str(&read(name)).unwrap();
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let place = format!("{}: {}", board["title"], panel["title"]);
            found.push((place, target["expr"].as_str().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_servers_give() {
    let there = sample_names();
    let mut expressions_of_all = Vec::new();
    for board in ["overview", "cluster", "storage", "node"] {
        let found = expressions(&format!("{OBSERVABILITY}/dashboards/tidings-{board}.json"));
        assert!(found.len() > 8, "{board}: {found:?}");
        expressions_of_all.extend(found);
    }
    for file in ["alerts.yml", "alerts.test.yml"] {
        expressions_of_all.push((file.to_owned(), read(&format!("{OBSERVABILITY}/{file}"))));
    }
    for (place, expression) in &expressions_of_all {
        let named = named(expression);
        assert!(!named.is_empty(), "{place}: {expression} names no metric");
        let missing: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
        assert!(missing.is_empty(), "{place}: nothing is called {missing:?}");
    }
}

/// What stands behind a key in a file of ours, line by line.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)).collect()
}

#[test]
fn every_alert_leads_to_a_heading_that_says_what_to_do_and_is_tested_both_ways() {
    let (alerts, tests) = (
        read(&format!("{OBSERVABILITY}/alerts.yml")),
        read(&format!("{OBSERVABILITY}/alerts.test.yml")),
    );
    let document = read("docs/operations.md");
    let section = document.split("\n## Alerts\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let headings: BTreeMap<&str, &str> = section
        .split("\n### ")
        .skip(1)
        .map(|part| part.split_once('\n').unwrap())
        .collect();
    let (names, books) = (values(&alerts, "alert: "), values(&alerts, "runbook: "));
    assert!(names.len() >= 20 && names.len() == books.len(), "{names:?} {books:?}");
    for (name, book) in names.iter().zip(books) {
        assert_eq!(book, format!("docs/operations.md#{}", name.to_lowercase()));
        let says = headings.get(name).unwrap_or_else(|| panic!("{name} has no heading"));
        for part in ["**What it means.**", "**How to confirm.**", "**What to do.**"] {
            assert!(says.contains(part), "{name}: {part}");
        }
        for way in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {name} {way}\n")), "{name} {way}");
        }
    }
    assert_eq!(headings.len(), names.len(), "headings without an alert");
}

/// Prometheus' own tool with something on its standard input; `None` where it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let mut command = Command::new("promtool");
    command
        .args(arguments)
        .current_dir(root().join(OBSERVABILITY))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut tool) = command.spawn() else {
        eprintln!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return None;
    };
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && !said.contains("error"),
        "{arguments:?}: {said}"
    );
    Some(())
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let check = |address: &str| {
        let answer = ask_for(address, "/metrics", "text/plain;version=0.0.4");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.to_lowercase().contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(
            body.contains("\n# TYPE tidings_changes_published_total counter\n"),
            "{body}"
        );
        _ = promtool(&["check", "metrics"], body);
    };
    with_server(check);
    with_cluster(check);
}

#[test]
fn the_alerts_pass_their_own_tests() {
    _ = promtool(&["check", "rules", "alerts.yml"], "")
        .and_then(|()| promtool(&["test", "rules", "alerts.test.yml"], ""));
}

#[test]
fn every_route_stands_in_the_protocol() {
    let document = read("docs/protocol.md");
    with_server(|address| {
        let answer = ask(address, "/openapi.json");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let json = &body[body.find('{').unwrap()..=body.rfind('}').unwrap()];
        let described: serde_json::Value = serde_json::from_str(json).unwrap();
        let paths = described["paths"].as_object().unwrap();
        assert!(paths.len() >= 12, "{paths:?}");
        for path in paths.keys() {
            assert!(document.contains(path.as_str()), "{path}");
        }
    });
}
