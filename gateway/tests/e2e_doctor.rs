//! `tidings doctor` as whoever runs it meets it.

#[path = "support/support.rs"]
mod support;

use serde_json::Value;
use std::net::TcpListener;
use std::process::Command;
use support::*;

/// Exit code and standard output.
fn doctor(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = command
        .arg("doctor")
        .args(arguments)
        .current_dir(folder.path())
        .output();
    let output = output.expect("the program runs");
    let code = output.status.code().expect("it ended by itself");
    (code, String::from_utf8(output.stdout).expect("text"))
}

/// What it says about this, with the level.
fn about(text: &str, what: &str) -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(text).expect("JSON");
    let findings = all["findings"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let chosen = findings.iter().filter(|finding| finding["about"] == what);
    chosen
        .map(|finding| (text(&finding["level"]), text(&finding["says"])))
        .collect()
}

#[test]
fn a_machine_on_which_nothing_runs_yet_is_looked_at_and_a_taken_port_is_a_fault() {
    let (_, text) = doctor(&["--listen", "127.0.0.1:0", "--json"]);
    for what in [
        "configuration",
        "descriptors",
        "memory",
        "threads",
        "ports",
        "clock",
        "disk",
        "kernel",
        "node",
    ] {
        assert!(!about(&text, what).is_empty(), "{what}: {text}");
    }
    assert_eq!(about(&text, "ports")[0].0, "fine");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("its address").to_string();
    // It takes connections and says nothing: no Tidings.
    let (code, text) = doctor(&["--listen", &place, "--json"]);
    assert_eq!(code, 1);
    assert_eq!(about(&text, "ports")[0].0, "fault", "{text}");
    let (code, text) = doctor(&["--listen", &place]);
    assert_eq!(code, 1);
    assert!(text.contains("FAULT    ports: TCP "), "{text}");
    assert!(text.contains("to do: end that program"), "{text}");
}

#[test]
fn a_configuration_that_makes_no_sense_is_a_fault_and_the_machine_is_looked_at_all_the_same() {
    let (code, text) = doctor(&["--limits.head_ms", "0", "--data-dir", "none", "--json"]);
    assert_eq!(code, 1);
    let found = about(&text, "configuration");
    assert_eq!(found[0].0, "fault");
    assert!(found[0].1.contains("limits.head_ms = 0: must be from 1"), "{found:?}");
    assert!(!about(&text, "kernel").is_empty());
}

#[test]
fn a_node_that_runs_is_asked_and_its_port_is_no_fault() {
    let node = node();
    let place = node.addr.to_string();
    let (_, text) = doctor(&["--listen", &place, "--json"]);
    assert!(about(&text, "ports").is_empty(), "{text}");
    let found = about(&text, "cluster");
    assert_eq!(found[0].0, "fine", "{text}");
    assert!(found[0].1.contains("is ready"), "{text}");
    let (code, text) = doctor(&["--server", "http://127.0.0.1:1", "--json"]);
    assert_eq!((code, about(&text, "node")[0].0.as_str()), (1, "fault"));
}
