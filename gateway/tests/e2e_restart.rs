//! Restarts of the real program: killed under load, stopped in order, twice on one directory, on a disk that is full.

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;

#[test]
fn killed_again_and_again_under_load_nothing_acknowledged_is_missing_and_nobody_resyncs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acked: HashMap<String, u64> = HashMap::new();
    let mut cursor: Option<String> = None;
    let watched: Vec<String> = (0..6).map(|number| format!("load-{number}-0")).collect();
    for round in 0..10 {
        let small = ["--storage.log_file_bytes", "20000", "--storage.log_bytes", "60000"];
        let (program, address) = serve_in(folder.path(), &small);
        let mut poller = Poller::resume(Poll::of(address, &watched), cursor.as_deref().unwrap_or_default());
        if cursor.is_none() {
            poller = Poller::new(Poll::of(address, &watched));
        }
        let heard = poller.up_to(publish(address, "mark"));
        assert_eq!(heard.resyncs, Vec::<Value>::new(), "round {round}: {heard:?}");
        cursor = Some(poller.cursor);
        for (object, version) in &acked {
            let there = version_of(address, object);
            assert!(
                there >= Some(*version),
                "round {round}: {object} was acknowledged at {version}, not {there:?}"
            );
        }
        let stop = Arc::new(AtomicBool::new(false));
        let publishers: Vec<_> = (0..6)
            .map(|number| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    load(
                        address,
                        number,
                        ["accepted", "replicated", "durable"][number % 3],
                        &stop,
                    )
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        program.signal(Signal::KILL);
        stop.store(true, Ordering::Relaxed);
        for publisher in publishers {
            for (object, version) in publisher.join().expect("a publisher") {
                let before = acked.insert(object, version);
                assert!(before < Some(version), "versions go up across restarts");
            }
        }
        _ = program.end();
    }
    assert!(acked.len() >= 60, "there was load: {}", acked.len());
}

#[test]
fn a_stop_in_order_and_a_start_are_invisible_to_a_subscriber_who_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, address) = serve_in(folder.path(), &[]);
    let a = publish(address, "a");
    let mut poller = Poller::new(Poll::of(address, &["a", "b"]));
    poller.up_to(a);
    let cursor = poller.cursor.clone();
    let b = publish(address, "b");
    program.terminate();
    assert!(program.end().0.success());
    assert!(folder.path().join("clean").exists());
    let (_program, address) = serve_in(folder.path(), &[]);
    assert!(
        !folder.path().join("clean").exists(),
        "it is gone before the first publish"
    );
    let answer = Poll::of(address, &["a", "b"]).cursor(&cursor).ask();
    assert_eq!(answer["resync"], Value::Null, "{answer}");
    assert_eq!(answer["changes"], json!([{ "object": "b", "version": b }]));
    assert_eq!(version_of(address, "a"), Some(a));
}

#[test]
fn a_second_process_on_a_directory_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_program, _) = serve_in(folder.path(), &[]);
    let text = folder.path().to_str().expect("text");
    let second = Program::start(&["--listen", "127.0.0.1:0", "--data-dir", text]);
    let (status, _, errors) = second.end();
    assert!(!status.success());
    assert!(errors.join("\n").contains("in use by another process"), "{errors:?}");
}

#[test]
fn a_full_disk_refuses_publishes_keeps_subscribers_and_is_used_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: only root can mount the small file system that this test fills up");
        return;
    }
    let _mount = Mount(folder.path().to_owned());
    let data = folder.path().join("data");
    let (_program, address) = serve_in(&data, &[]);
    let mut ws = Ws::open(address);
    ws.subscribe(&["watched"]);
    let before = publish(address, "kept");
    let ballast = folder.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("a file");
    while file.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
    let begin = Instant::now();
    let refused = loop {
        let answer = post_json(
            address,
            "/v1/publish",
            &json!({"object": "filler", "revision": begin.elapsed().as_micros() as u64}),
        );
        if answer.status != 200 {
            break answer;
        }
        assert!(begin.elapsed() < PATIENCE, "the disk does not fill up");
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "storage_unavailable"));
    assert_eq!(refused.json()["retryable"], true);
    let next = post_json(address, "/v1/publish", &json!({"object": "filler"}));
    assert_eq!((next.status, &next.json()["applied"]), (503, &json!("no")));
    let lines = b"{\"object\":\"filler\"}\n{\"object\":\"other\"}\n";
    let stream = post(address, "/v1/publish", "application/x-ndjson", lines);
    assert_eq!((stream.status, stream.code().as_str()), (503, "storage_unavailable"));
    assert_eq!(stream.json()["applied"], "no", "{}", stream.text());
    assert_eq!(get(address, "/readyz").status, 503);
    std::fs::remove_file(&ballast).expect("removed");
    drop(file);
    eventually("it accepts again", || {
        post_json(address, "/v1/publish", &json!({"object": "filler"})).status == 200
    });
    let watched = publish(address, "watched");
    ws.until_told(&[("watched", watched)]);
    assert_eq!(get(address, "/readyz").status, 200);
    assert_eq!(version_of(address, "kept"), Some(before));
}
