//! `tidings-check` as a person or a script meets it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings-check"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_made_up_history_is_green_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let (binary, json, again) = (
        folder.path().join("a"),
        folder.path().join("b"),
        folder.path().join("c"),
    );
    let output = check(&["--generate", "50000", path(&binary)]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("I1 holds"), "{}", text(&output));
    let output = check(&["--to-json", path(&binary)]);
    std::fs::write(&json, &output.stdout).unwrap();
    assert!(check(&[path(&json)]).status.success());
    assert!(check(&["--to-binary", path(&again), path(&json)]).status.success());
    assert_eq!(
        std::fs::read(&binary).unwrap().len(),
        std::fs::read(&again).unwrap().len()
    );
    assert_eq!(check(&["--to-json", path(&again)]).stdout, output.stdout);
}

#[test]
fn the_exit_code_says_violated_inconclusive_or_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    let header = "{\"event\":\"history\",\"format\":1,\"prefix\":\"order:\"}\n";
    std::fs::write(&file, header).unwrap();
    assert_eq!(check(&[path(&file)]).status.code(), Some(2), "nothing was seen");
    let phantom = "{\"at\":1,\"event\":\"notify\",\"client\":1,\"obj\":1,\"version\":5}\n";
    std::fs::write(&file, format!("{header}{phantom}")).unwrap();
    let output = check(&[path(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("I5 VIOLATED 1 times") && text(&output).contains(phantom.trim()),
        "{}",
        text(&output)
    );
    std::fs::write(&file, "what is this\n").unwrap();
    let output = check(&[path(&file)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("a.json: at byte 0: "), "{}", text(&output));
    assert_eq!(check(&["--floor", "nonsense", path(&file)]).status.code(), Some(3));
    assert_eq!(check(&[]).status.code(), Some(3));
    assert_eq!(check(&["--help"]).status.code(), Some(0));
}

#[test]
fn what_was_written_before_the_writer_was_killed_is_read_and_not_green() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidings-check"))
        .args(["--generate", "2000000000", path(&file)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&file).map_or(0, |file| file.len()) < 2_000_000 {
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = check(&[path(&file)]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("cut short: "), "{}", text(&output));
}
