//! The configuration as whoever runs the program meets it: checked, printed, laid over each other, read again.

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::*;

/// A folder with a configuration file.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tidings.toml")
    }

    fn write(&self, text: &str) {
        write(&self.path(), text);
    }

    /// Exit code, standard output and standard error of `tidings config check` with this file.
    fn check(&self, more: &[&str]) -> (i32, String, String) {
        let path = self.path().display().to_string();
        let mut words = vec!["config", "check", "--config", &path];
        words.extend(more);
        run(&words, &[])
    }

    fn serve(&self, more: &[&str]) -> (Program, SocketAddr) {
        let path = self.path().display().to_string();
        let mut words = vec!["--config", &path];
        words.extend(more);
        Program::serve(&words)
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

fn run(words: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    let output = command.args(words).envs(variables.iter().copied()).output();
    let output = output.expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let code = output.status.code().expect("it ended by itself");
    (code, text(output.stdout), text(output.stderr))
}

/// The configured bound that counts now.
#[track_caller]
fn limit(at: SocketAddr, name: &str) -> u64 {
    let metrics = get(at, "/metrics").text();
    let name = format!("tidings_limit{{name=\"{name}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.expect("every limit is exported").parse().expect("a number")
}

fn keys(of: &Value) -> Vec<&str> {
    let list = of.as_array().expect("a list");
    list.iter()
        .map(|change| change["key"].as_str().expect("a key"))
        .collect()
}

fn publish_two(at: SocketAddr) -> u16 {
    let two = json!({"changes": [{"object": "a"}, {"object": "b"}]});
    post_json(at, "/v1/publish", &two).status
}

#[test]
fn the_printed_default_file_is_itself_fine_and_the_printed_page_is_the_document() {
    let (code, default, _) = run(&["config", "default"], &[]);
    assert_eq!(code, 0);
    let desk = Desk::new();
    desk.write(&default);
    let (code, said, _) = desk.check(&[]);
    assert_eq!(
        (code, said.lines().next()),
        (0, Some("The configuration is fine.")),
        "{said}"
    );
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let (code, printed, _) = run(&["config", "docs"], &[]);
    assert_eq!(
        (code, printed),
        (0, std::fs::read_to_string(page).expect("the document"))
    );
}

#[test]
fn what_is_wrong_is_named_with_file_line_key_value_and_what_is_allowed() {
    let desk = Desk::new();
    let file = desk.path().display().to_string();
    for (text, says) in [
        (
            "[limits]\nhead_ms = 0\n",
            ", line 2: limits.head_ms = 0: must be from 1 to 2592000000",
        ),
        (
            "[limits]\nheadms = 5\n",
            ", line 2: there is no key `limits.headms`; did you mean `limits.head_ms`?",
        ),
        (
            "[log]\nformat = \"xml\"\n",
            ", line 2: log.format = \"xml\": must be `text` or `json`",
        ),
    ] {
        desk.write(text);
        let (code, _, error) = desk.check(&[]);
        assert_eq!((code, error), (1, format!("tidings: {file}{says}\n")), "{text}");
    }
    desk.write("");
    let (code, _, error) = desk.check(&["--limits.head_ms", "0"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("--limits.head_ms: limits.head_ms = 0: must be from 1"),
        "{error}"
    );
    let (code, _, error) = run(&["config", "check"], &[("TIDINGS_LIMITS__HAED_MS", "5")]);
    assert_eq!(code, 1);
    assert!(
        error.contains("TIDINGS_LIMITS__HAED_MS: there is no key `limits.haed_ms`; did you mean `limits.head_ms`?"),
        "{error}"
    );
    // A policy that it names is part of it.
    desk.write("[auth]\npolicy_file = \"nowhere.toml\"\n");
    let (code, _, error) = desk.check(&[]);
    assert_eq!(code, 1);
    assert!(error.contains("nowhere.toml"), "{error}");
    // The command line makes no sense.
    assert_eq!(desk.check(&["--limits.haed_ms", "5"]).0, 2);
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let desk = Desk::new();
    desk.write("[limits]\nhead_ms = 1001\nidle_ms = 1001\nbody_idle_ms = 1001\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.envs([
        ("TIDINGS_LIMITS__IDLE_MS", "1002"),
        ("TIDINGS_LIMITS__BODY_IDLE_MS", "1002"),
    ]);
    let path = desk.path().display().to_string();
    let flags = ["--config", &path, "--limits.body_idle_ms", "1003"];
    let (_program, at) = Program::serve_by(command, &flags);
    let found = ["head_ms", "idle_ms", "body_idle_ms", "first_byte_ms"].map(|name| limit(at, name));
    assert_eq!(found, [1001, 1002, 1003, 5000]);
}

#[test]
fn a_reload_counts_at_once_and_nobody_who_is_connected_notices() {
    let desk = Desk::new();
    desk.write("[limits]\npublish_changes = 2\n");
    let (program, at) = desk.serve(&["--drain.spread_ms", "100"]);
    let mut bystander = Bystander::new(at);
    assert_eq!(publish_two(at), 200);
    desk.write(
        "[limits]\npublish_changes = 1\npublish_line_bytes = 1024\n[owner]\nrevisions = 5\n[drain]\nspread_ms = 7\n",
    );
    let answer = post(at, "/v1/reload", "application/json", b"").ok();
    assert_eq!(
        keys(&answer["changed"]),
        ["limits.publish_changes", "limits.publish_line_bytes"]
    );
    assert_eq!(answer["changed"][0]["from"], "2");
    assert_eq!(answer["changed"][0]["to"], "1");
    // A flag wins over the file, now as at the start.
    assert_eq!(keys(&answer["needs_restart"]), ["owner.revisions"]);
    assert_eq!(publish_two(at), 413);
    assert_eq!(limit(at, "publish_changes"), 1);
    let long = format!("{{\"object\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(1_024));
    let stream = post(at, "/v1/publish", "application/x-ndjson", long.as_bytes()).ok();
    assert_eq!(stream["rejected"], 1, "{stream}");
    bystander.misses_nothing();
    // A signal does the same.
    desk.write("[limits]\npublish_changes = 2\n");
    program.signal(Signal::HUP);
    eventually("the signal is heard", || limit(at, "publish_changes") == 2);
    assert_eq!(publish_two(at), 200);
    bystander.misses_nothing();
}

#[test]
fn a_reload_that_fails_changes_nothing_at_all_and_names_file_and_key() {
    let desk = Desk::new();
    let policy = desk.folder.path().join("policy.toml");
    let named = format!("[auth]\npolicy_file = {:?}\n", policy.display().to_string());
    // SHA-256 of `operator`: whoever has it may do everything.
    let hash = "06e55b633481f7bb072957eabcf110c972e86691c3cfedabe088024bffe42f23";
    let right = format!("[[key]]\nname = \"x\"\nsha256 = [\"{hash}\"]\nadmin = true\npublish = [\"*\"]\n");
    write(&policy, &right);
    desk.write(&format!("{named}[limits]\npublish_changes = 2\n"));
    let path = desk.path().display().to_string();
    let (program, at) = Program::serve_quietly(&["--config", &path]);
    let bearer = "Authorization: Bearer operator\r\n";
    let reload = || send(at, "POST", "/v1/reload", bearer, b"");
    let two = json!({"changes": [{"object": "a"}, {"object": "b"}]}).to_string();
    let json = format!("{bearer}Content-Type: application/json\r\n");
    let publish = || send(at, "POST", "/v1/publish", &json, two.as_bytes()).status;
    assert_eq!(publish(), 200);
    // The file is wrong; or what it names is, while a limit in it is right and would count.
    let wrong = format!("{named}[limits]\npublish_changes = 1\nhead_ms = 0\n");
    let limits = format!("{named}[limits]\npublish_changes = 1\n");
    for (text, policy_text, says) in [
        (
            &wrong,
            &*right,
            "line 5: limits.head_ms = 0: must be from 1 to 2592000000",
        ),
        (&limits, "[[key]]\nnaem = 1\n", "policy.toml"),
        (
            &format!("{limits}[log]\nfilter = \"tidings=loud\"\n"),
            &*right,
            "log.filter",
        ),
    ] {
        desk.write(text);
        write(&policy, policy_text);
        let answer = reload();
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{text}");
        let detail = answer.json()["detail"].as_str().expect("words").to_owned();
        assert!(detail.starts_with("nothing was changed: "), "{detail}");
        assert!(detail.contains(says), "{detail}");
        assert_eq!(publish(), 200, "the limit is as it was");
        // By signal it is said in the log.
        program.signal(Signal::HUP);
        let line = std::iter::repeat_with(|| program.error_line())
            .find(|line| line.contains("nothing was changed by the reload"));
        assert!(line.is_some_and(|line| line.contains(says)));
        assert_eq!(publish(), 200, "still");
    }
    desk.write(&limits);
    write(&policy, &right);
    assert_eq!(
        reload().ok()["read"],
        json!(["certificate", "policy", "log", "limits"][1..])
    );
    assert_eq!(publish(), 413);
}

#[test]
fn the_log_filter_is_read_again() {
    let desk = Desk::new();
    desk.write("[log]\nfilter = \"error\"\n");
    let (program, at) = desk.serve(&[]);
    desk.write("[log]\nfilter = \"info,tidings=debug\"\n");
    assert_eq!(
        keys(&post(at, "/v1/reload", "application/json", b"").ok()["changed"]),
        ["log.filter"]
    );
    assert_eq!(get(at, "/nowhere").status, 404);
    let said = std::iter::repeat_with(|| program.error_line()).find(|line| line.contains("a request was refused"));
    assert!(said.is_some_and(|line| line.contains("status=404")));
}

#[test]
fn a_flood_of_bad_requests_writes_a_bounded_log_that_says_how_many_were_left_out() {
    let desk = Desk::new();
    let most = 3;
    desk.write(&format!(
        "[log]\nfilter = \"info,tidings=debug\"\nlines_per_second = {most}\n"
    ));
    let path = desk.path().display().to_string();
    let (program, at) = Program::serve_quietly(&["--config", &path]);
    let since = std::time::Instant::now();
    let flood: u64 = 500;
    let mut raw = Raw::open(at);
    for _ in 0..flood {
        raw.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(raw.answer().expect("an answer").status, 404);
    }
    // Seconds that began while it went on, the first and the last among them.
    let seconds = since.elapsed().as_secs() + 2;
    program.terminate();
    let (status, _, log) = program.end();
    assert!(status.success());
    let written = log
        .iter()
        .filter(|line| line.contains("a request was refused") && line.contains("status=404"));
    let written = written.count() as u64;
    let left_out = |line: &String| {
        line.contains("a request was refused").then_some(())?;
        let number = line.split("left_out=").nth(1)?.split(' ').next()?;
        number.parse::<u64>().ok()
    };
    let left_out: u64 = log.iter().filter_map(left_out).sum();
    assert!(
        (1..=most * seconds).contains(&written),
        "{written} lines in {seconds} s"
    );
    assert_eq!(written + left_out, flood, "{log:?}");
}
