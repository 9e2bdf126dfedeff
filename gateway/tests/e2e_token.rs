//! `tidings token` and `tidings config check`: what a person types before a server trusts anybody.

#[path = "support/support.rs"]
mod support;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use support::door::{POLICY, SECRET, write_policy};
use support::*;

#[track_caller]
fn tidings(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One that reads nothing may be gone already.
    _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    child.wait_with_output().expect("its output")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_key_is_printed_with_the_hash_that_stands_in_the_policy() {
    let made = text(&tidings(&["token", "key"], "").stdout);
    let (key, hash) = made.trim().split_once('\n').expect("two lines");
    assert!(key.starts_with("tidings_key_") && key.len() == 76, "{key}");
    let hashed = text(&tidings(&["token", "hash"], &format!("{key}\n")).stdout);
    assert_eq!(hash, format!("sha256 = [\"{}\"]", hashed.trim()));
    assert_eq!(
        text(&tidings(&["token", "hash"], "abc").stdout).trim(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert!(!tidings(&["token", "hash"], "").status.success());
}

#[test]
fn a_token_is_made_inspected_and_let_in() {
    let folder = tempfile::tempdir().expect("a folder");
    write_policy(folder.path(), POLICY);
    let (secret, policy) = (folder.path().join("secret"), folder.path().join("policy.toml"));
    let (secret, policy) = (secret.to_str().expect("text"), policy.to_str().expect("text"));
    let mint = [
        "token",
        "mint",
        "--algorithm",
        "HS256",
        "--key-file",
        secret,
        "--kid",
        "k1",
        "--issuer",
        "tests",
        "--audience",
        "tidings",
        "--subject",
        "alice",
        "--id",
        "t1",
        "--subscribe",
        "room:*",
        "--lifetime-s",
        "600",
    ];
    let made = tidings(&mint, "");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout).trim().to_owned();
    let shown = text(&tidings(&["token", "inspect"], &token).stdout);
    for line in [
        "algorithm HS256",
        "kid       k1",
        "subject   alice",
        "id        t1",
        "subscribe room:*",
        "Not verified",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let judged = [
        "token",
        "inspect",
        "--policy",
        policy,
        "--object",
        "room:1",
        "--object",
        "user:bob:1",
    ];
    let shown = text(&tidings(&judged, &token).stdout);
    for line in [
        "Accepted",
        "room:1: subscribe yes, publish no",
        "user:bob:1: subscribe no",
        "admin: no",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let door = door::Door::of(folder, |_| {});
    assert_eq!(
        send(door.at(), "GET", "/v1/object?object=room:1", &door::bearer(&token), b"").status,
        200
    );
    let place = token.len() - 10;
    let other = if &token[place..=place] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &token[..place], &token[place + 1..]);
    let refused = tidings(&judged, &forged);
    let said = text(&refused.stdout) + &text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("ot accepted"), "{said}");
}

#[test]
fn a_token_that_no_server_would_take_is_not_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    let path = file.to_str().expect("text");
    std::fs::write(&file, SECRET).expect("written");
    let with = |more: &[&str]| {
        let mut all = vec![
            "token",
            "mint",
            "--algorithm",
            "HS256",
            "--key-file",
            path,
            "--subject",
            "alice",
        ];
        all.extend(more);
        tidings(&all, "")
    };
    assert!(with(&[]).status.success());
    for (more, why) in [
        (&["--subscribe", "a*"][..], "stands alone"),
        (&["--publish", "{x}"], "braces"),
        (&["--object", ""], "not be accepted"),
        (&["--kid", ""], "not be accepted"),
    ] {
        let made = with(more);
        assert!(
            !made.status.success() && text(&made.stderr).contains(why),
            "{more:?}: {}",
            text(&made.stderr)
        );
        assert_eq!(text(&made.stdout), "");
    }
    std::fs::write(&file, "short").expect("written");
    assert!(text(&with(&[]).stderr).contains("at least 32 bytes"));
    let unknown = tidings(
        &[
            "token",
            "mint",
            "--algorithm",
            "none",
            "--key-file",
            path,
            "--subject",
            "a",
        ],
        "",
    );
    assert!(
        text(&unknown.stderr).contains("none of EdDSA"),
        "{}",
        text(&unknown.stderr)
    );
}

#[test]
fn the_check_names_insecure_choices_and_a_policy_that_makes_no_sense() {
    let folder = tempfile::tempdir().expect("a folder");
    write_policy(folder.path(), POLICY);
    let path = folder.path().join("policy.toml");
    let policy = path.to_str().expect("text");
    let check = |arguments: &[&str]| {
        let mut all = vec!["config", "check"];
        all.extend(arguments);
        tidings(&all, "")
    };
    let fine = text(&check(&["--auth.policy_file", policy]).stdout);
    assert_eq!(fine.trim(), "The configuration is fine.");
    let open = text(&check(&["--listen", "0.0.0.0:7400", "--insecure"]).stdout);
    for key in ["server.insecure", "server.tls_cert_file", "server.admin_listen"] {
        assert!(open.contains(&format!("- {key}:")), "{key}: {open}");
    }
    assert!(!check(&["--listen", "0.0.0.0:7400"]).status.success());
    std::fs::write(&path, "[[key]]").expect("written");
    let bad = check(&["--auth.policy_file", policy]);
    assert!(
        !bad.status.success() && text(&bad.stderr).contains("policy.toml"),
        "{}",
        text(&bad.stderr)
    );
}

#[test]
fn a_hang_up_reads_the_policy_again() {
    let folder = tempfile::tempdir().expect("a folder");
    write_policy(folder.path(), POLICY);
    let path = folder.path().join("policy.toml");
    let (program, at) = Program::serve_quietly(&["--auth.policy_file", path.to_str().expect("text")]);
    let publishes = |object: &str| {
        let target = format!("/v1/publish?object={object}");
        send(at, "POST", &target, &door::bearer(door::PUBLISHER), b"").status
    };
    assert_eq!((publishes("news"), publishes("more")), (200, 403));
    std::fs::write(&path, "nonsense").expect("written");
    program.signal(rustix::process::Signal::HUP);
    assert_eq!((publishes("news"), publishes("more")), (200, 403));
    write_policy(folder.path(), &POLICY.replace("\"news\"", "\"more\""));
    program.signal(rustix::process::Signal::HUP);
    eventually("the new policy counts", || publishes("more") == 200);
    assert_eq!(publishes("news"), 403);
}
