//! The program as somebody uses it: every scenario in a few seconds, against the real server; servers that lie, are killed,
//! or are not there; and what its exit code says.

#[path = "support/program.rs"]
mod program;
#[path = "support/stand_in.rs"]
mod stand_in;

use program::{Outcome, program, run, server, short};
use stand_in::Fault;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What every good run says.
#[track_caller]
fn loses_nothing(outcome: &Outcome) {
    outcome.ends_with(0);
    let (lost, pairs) = outcome.lost();
    assert_eq!(lost, 0, "{}", outcome.out);
    assert!(pairs > 0, "nothing was put to the test:\n{}", outcome.out);
    assert_eq!(outcome.verdict("I1 online"), "held");
    assert_eq!(outcome.verdict("I6 online"), "held");
    assert!(outcome.count("delivered") > 0 && outcome.count("published") > 0);
    for none in ["errors", "went_back", "resyncs", "publish_failed"] {
        assert_eq!(outcome.count(none), 0, "{none}:\n{}", outcome.out);
    }
}

#[test]
fn seed_loses_nothing_on_any_transport() {
    let sets = [
        "objects.count=20000",
        "subscribers.count=60",
        "subscribers.objects=20",
        "subscribers.transports={ websocket = 1, events = 1, poll = 1 }",
        "publishers.watched=0.5",
    ];
    let outcome = short("seed", &sets, &["--duration", "2s"]);
    loses_nothing(&outcome);
    let settings = outcome.record["settings"].as_array().expect("settings");
    assert!(settings.iter().any(|setting| setting["name"] == "filled in"));
    assert!(outcome.record["latency"]["deliver"]["count"].as_u64() > Some(0));
    assert!(
        outcome.record["servers"][0]["samples"]
            .as_array()
            .is_some_and(|samples| !samples.is_empty())
    );
}

#[test]
fn firehose_streams_and_loses_nothing() {
    let sets = [
        "objects.count=20000",
        "publishers.watched=0.01",
        "publishers.unlimited=false",
        "publishers.rate=20000",
    ];
    let outcome = short(
        "firehose",
        &sets,
        &["--duration", "2s", "--set", "thresholds.published_per_s=> 100"],
    );
    loses_nothing(&outcome);
    assert_eq!(outcome.count("published"), outcome.count("intended"));
}

#[test]
fn hot_tells_everybody_of_the_one_object() {
    let outcome = short("hot", &["subscribers.count=200"], &["--duration", "2s"]);
    loses_nothing(&outcome);
    assert_eq!(outcome.lost().1, 200);
}

#[test]
fn storm_brings_everybody_back_with_nothing_lost() {
    let sets = [
        "objects.count=2000",
        "subscribers.count=60",
        "storm.every=1s",
        "storm.away=200ms",
    ];
    let outcome = short(
        "storm",
        &sets,
        &[
            "--duration",
            "3500ms",
            "--set",
            "thresholds.latency.catch_up.p99_s=< 60",
        ],
    );
    loses_nothing(&outcome);
    assert!(outcome.count("reconnects") >= 100, "{}", outcome.out);
    assert!(outcome.record["latency"]["catch_up"]["count"].as_u64() >= Some(100));
}

#[test]
fn slow_readers_are_told_the_newest_in_the_end() {
    let sets = ["slow.stop_after=500ms", "slow.stop_for=1s", "publishers.rate=1000"];
    let outcome = short("slow", &sets, &["--duration", "3s"]);
    loses_nothing(&outcome);
    assert_eq!(outcome.lost().1, 60 * 100);
}

#[test]
fn churn_on_two_processes_loses_nothing_and_makes_one_record() {
    let sets = [
        "subscribers.count=100",
        "objects.count=2000",
        "churn.leave_per_s=30",
        "churn.away=300ms",
        "churn.swap_per_s=50",
    ];
    let outcome = short("churn", &sets, &["--duration", "3s", "--processes", "2"]);
    loses_nothing(&outcome);
    assert!(
        outcome.count("left") > 0 && outcome.count("swapped") > 0,
        "{}",
        outcome.out
    );
    assert_eq!(outcome.record["generators"].as_array().map(Vec::len), Some(2));
}

#[test]
fn idle_connects_all_and_they_are_really_subscribed() {
    let outcome = short("idle", &["subscribers.count=1000"], &["--duration", "2s"]);
    loses_nothing(&outcome);
    assert_eq!(outcome.count("subscribes"), 1_000);
}

/// Everything at once, with the server killed, paused and restarted: what the checker says counts.
#[test]
fn soak_with_kills_keeps_every_promise_by_its_history() {
    let sets = [
        "subscribers.count=40",
        "subscribers.objects=10",
        "subscribers.back_off=200ms",
        "subscribers.back_off_max=1s",
        "objects.count=500",
        "faults.first=700ms",
        "faults.every=1500ms",
        "faults.pause=300ms",
        "slow.stopped=2",
        "slow.stop_after=1s",
        "slow.stop_for=1s",
        "slow.slow=2",
    ];
    let outcome = short("soak", &sets, &["--duration", "6s", "--history", "history"]);
    outcome.ends_with(0);
    assert_eq!(outcome.lost().0, 0);
    for name in ["I1 online", "I6 online", "I1", "I2", "I5", "I6", "I9", "I14"] {
        assert_eq!(outcome.verdict(name), "held", "{name}:\n{}", outcome.out);
    }
    let faults = outcome.record["events"].as_array().expect("events");
    assert!(faults.len() >= 2, "{faults:?}");
    assert!(
        faults.iter().all(|fault| fault["until_ms"].is_u64()),
        "all are healed: {faults:?}"
    );
    let again = run(&["check", &outcome.folder.path().join("history").to_string_lossy()]);
    again.ends_with(0);
    assert!(again.out.contains("I1 holds"), "{}", again.out);
}

#[test]
fn killing_a_server_without_a_disk_is_confessed_as_resyncs_and_nothing_is_lost() {
    let sets = [
        "subscribers.count=30",
        "subscribers.objects=10",
        "subscribers.back_off=200ms",
        "objects.count=300",
        "slow.stopped=0",
        "slow.slow=0",
        "faults.kinds=[\"kill\"]",
        "faults.first=1s",
        "faults.every=0s",
        "server.in_memory=true",
        "thresholds.resyncs=>= 1",
    ];
    let outcome = short("soak", &sets, &["--duration", "3s", "--history", "history"]);
    outcome.ends_with(0);
    assert_eq!(outcome.lost().0, 0);
    assert!(outcome.count("resync.cursor_foreign") > 0, "{}", outcome.out);
    assert_eq!(outcome.verdict("I1"), "held", "{}", outcome.out);
}

fn against(fault: Fault, more: &[&str]) -> Outcome {
    let target = format!("http://{}", stand_in::start(fault));
    let mut words = vec!["run", "churn", "--target", &target, "--duration", "2s"];
    for set in [
        "run.warm_up=0s",
        "run.settle=2s",
        "run.patience=4s",
        "run.threads=1",
        "subscribers.count=20",
        "subscribers.transports={ websocket = 1, events = 0, poll = 0 }",
        "objects.count=100",
        "publishers.rate=200",
        "churn.leave_per_s=0",
        "churn.swap_per_s=0",
    ] {
        words.extend(["--set", set]);
    }
    words.extend(more);
    run(&words)
}

#[test]
fn an_honest_stand_in_passes() {
    loses_nothing(&against(Fault::Nothing, &[]));
}

#[test]
fn a_server_that_loses_one_notice_is_told_of_with_the_pair() {
    let outcome = against(Fault::LosesOne, &[]);
    outcome.ends_with(1);
    assert_eq!(outcome.lost().0, 1, "{}", outcome.out);
    assert_eq!(outcome.verdict("I1 online"), "violated");
    assert!(outcome.out.contains("was never told version"), "{}", outcome.out);
}

#[test]
fn a_version_that_goes_back_is_a_violation() {
    let outcome = against(Fault::GoesBack, &[]);
    outcome.ends_with(1);
    assert_eq!(outcome.verdict("I6 online"), "violated");
}

/// One connection and 20 ms for each publish make 50 a second; twice as many are due.
#[test]
fn latency_counts_from_when_a_change_was_due_and_not_from_when_it_could_be_sent() {
    let sets = [
        "publishers.connections=1",
        "publishers.rate=100",
        "publishers.arrivals=uniform",
    ];
    let mut words = Vec::new();
    for set in &sets {
        words.extend(["--set", set]);
    }
    let outcome = against(Fault::Slow, &words);
    outcome.ends_with(0);
    for kind in ["publish", "deliver"] {
        let longest = outcome.record["latency"][kind]["max"].as_u64().expect("a latency");
        assert!(longest > 500_000, "{kind}: {longest} us\n{}", outcome.out);
    }
    assert!(outcome.count("waited_for_answers") > 50, "{}", outcome.out);
}

#[test]
fn a_history_of_a_server_that_loses_one_notice_is_judged_violated() {
    let outcome = against(Fault::LosesOne, &["--history", "history"]);
    outcome.ends_with(1);
    assert_eq!(outcome.verdict("I1"), "violated", "{}", outcome.out);
}

#[test]
fn a_run_in_which_nothing_was_seen_is_inconclusive() {
    let sets = ["publishers.rate=0.001", "thresholds.resyncs=== 0"];
    let mut words = Vec::new();
    for set in &sets {
        words.extend(["--set", set]);
    }
    let outcome = against(Fault::Nothing, &words);
    outcome.ends_with(2);
    assert_eq!(outcome.lost(), (0, 0));
}

#[test]
fn a_missed_threshold_exits_with_1_and_is_shown() {
    let outcome = against(Fault::Nothing, &["--set", "thresholds.published=> 1000000"]);
    outcome.ends_with(1);
    assert!(
        outcome.out.contains("FAILED") && outcome.out.contains("published"),
        "{}",
        outcome.out
    );
}

#[test]
fn reports_are_written_and_compared() {
    let first = against(Fault::Nothing, &["--report", "page.html"]);
    loses_nothing(&first);
    let page = std::fs::read_to_string(first.folder.path().join("page.html")).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("churn"));
    let before = first.folder.path().join("record.json");
    let second = against(Fault::Nothing, &["--compare", &before.to_string_lossy()]);
    second.ends_with(0);
    assert!(
        second.out.contains("before") || second.out.contains("earlier"),
        "{}",
        second.out
    );
}

#[test]
fn what_cannot_be_run_says_why_and_exits_with_3() {
    let server = format!("--start-server={}", server().display());
    for (words, part) in [
        (vec!["run", "seed"], "--target"),
        (vec!["run", "nothing", &server], "no scenario `nothing`"),
        (
            vec!["run", "seed", "--target", "http://127.0.0.1:1"],
            "no server answers at http://127.0.0.1:1",
        ),
        (vec!["run", "seed", "--target", "https://127.0.0.1:1"], "TLS"),
        (vec!["run", "soak", "--target", "http://127.0.0.1:1"], "--start-server"),
        (
            vec!["run", "seed", "--start-server=/nowhere/tidings"],
            "no such program",
        ),
        (vec!["run", "seed", &server, "--set", "publishers.rat=1"], "`rate`"),
        (
            vec!["run", "seed", &server, "--set", "thresholds.latenc=< 1"],
            "no figure `latenc`",
        ),
        (
            vec!["run", "seed", &server, "--set", "thresholds.lost@storm=< 1"],
            "phase",
        ),
        (
            vec!["run", "idle", &server, "--set", "subscribers.count=90000000"],
            "do not fit",
        ),
        (vec!["check", "/nowhere/history"], "/nowhere/history"),
    ] {
        let outcome = run(&words);
        outcome.ends_with(3);
        assert!(outcome.err.contains(part), "{words:?}: {}", outcome.err);
    }
}

#[test]
fn a_server_that_never_confirms_is_told_of_instead_of_waited_for() {
    let outcome = against(Fault::NeverSubscribes, &[]);
    outcome.ends_with(3);
    assert!(outcome.err.contains("0 of 20 subscribers"), "{}", outcome.err);
}

#[test]
fn scenarios_are_listed_and_shown_as_files_to_start_from() {
    let list = run(&["list"]);
    list.ends_with(0);
    assert_eq!(list.out.lines().count(), 8, "{}", list.out);
    let shown = run(&["show", "storm"]);
    shown.ends_with(0);
    let folder = tempfile::tempdir().expect("a folder");
    let mine = folder.path().join("mine.toml");
    std::fs::write(&mine, shown.out.replace("[storm]", "[strom]")).expect("written");
    let outcome = run(&["run", &mine.to_string_lossy(), "--target", "http://127.0.0.1:1"]);
    outcome.ends_with(3);
    assert!(
        outcome.err.contains("strom") && outcome.err.contains("`storm`"),
        "{}",
        outcome.err
    );
}

#[test]
fn an_interrupt_ends_the_load_in_order() {
    let target = format!("http://{}", stand_in::start(Fault::Nothing));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    command.args([
        "run",
        "churn",
        "--target",
        &target,
        "--duration",
        "10m",
        "--json",
        "record.json",
    ]);
    for set in [
        "subscribers.count=10",
        "subscribers.transports={ websocket = 1 }",
        "objects.count=50",
        "publishers.rate=200",
        "churn.leave_per_s=0",
        "churn.swap_per_s=0",
        "run.threads=1",
        "run.warm_up=0s",
    ] {
        command.args(["--set", set]);
    }
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let since = Instant::now();
    // The first line of figures is printed in the middle of the load.
    std::thread::sleep(Duration::from_secs(3));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupted");
    let output = child.wait_with_output().expect("it ends");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(since.elapsed() < Duration::from_secs(120));
    assert!(
        out.contains("lost: 0 of") && out.contains("interrupted"),
        "{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{out}");
}
