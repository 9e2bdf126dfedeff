//! Many objects: a start after `kill -9`, the disk they take, and what happens when they do not fit into memory.
//!
//! `TIDINGS_OBJECTS=20000000 cargo test --release -p tidings --test e2e_storage_many -- --nocapture` is the full size;
//! without that variable it is small enough for every run. Times are printed, never judged.

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::*;

/// What an object's version takes on disk.
const BYTES_AN_OBJECT: u64 = 16;

fn objects() -> u64 {
    let text = std::env::var("TIDINGS_OBJECTS");
    text.map_or(1_000_000, |text| text.parse().expect("TIDINGS_OBJECTS is a number"))
}

/// Publishes each of these objects once, in streams of lines.
fn publish_lines(address: SocketAddr, numbers: std::ops::Range<u64>) {
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first + 500_000);
        let mut lines = String::new();
        for number in first..end {
            writeln!(lines, r#"{{"object":"object-{number}"}}"#).expect("text grows");
        }
        let answer = post(address, "/v1/publish", "application/x-ndjson", lines.as_bytes()).ok();
        assert_eq!(answer["accepted"], end - first, "{answer}");
        first = end;
    }
}

/// Evenly from all over.
fn sampled(count: u64) -> impl Iterator<Item = String> {
    let samples = count.min(1_000);
    (0..samples).map(move |sample| format!("object-{}", sample * count / samples))
}

fn versions(address: SocketAddr, count: u64) -> HashMap<String, u64> {
    let known = sampled(count).map(|object| {
        let version = version_of(address, &object).unwrap_or(0);
        (object, version)
    });
    known.collect()
}

fn disk_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A file may go while it is counted.
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Looks again and again how much is on the disk, and remembers the most.
fn watch_disk(folder: PathBuf, most: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            most.fetch_max(disk_bytes(&folder), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

#[test]
fn many_objects_are_exact_after_a_kill_and_take_at_most_three_times_their_size_on_disk() {
    let count = objects();
    let live = count * BYTES_AN_OBJECT;
    let folder = tempfile::tempdir().expect("a folder");
    // Beside so few objects the log would never be replaced; with many it is replaced at the size of the snapshots.
    let (log_bytes, file_bytes) = ((live / 8).to_string(), (live / 32).to_string());
    let mut small = vec![
        "--storage.log_bytes",
        &log_bytes,
        "--storage.log_file_bytes",
        &file_bytes,
    ];
    small.extend(["--owner.version_table_bytes", "4000000000"]);
    let (program, address) = serve_in(folder.path(), &small);
    publish_lines(address, 0..count);
    let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watching = watch_disk(folder.path().to_owned(), Arc::clone(&most), Arc::clone(&stop));
    for _ in 0..4 {
        publish_lines(address, 0..count);
    }
    stop.store(true, Ordering::Relaxed);
    watching.join().expect("it watched");
    let (most, after) = (most.load(Ordering::Relaxed), disk_bytes(folder.path()));
    println!(
        "{count} objects, each changed 5 times: at most {most} bytes on disk, {:.2} times the live {live}; {after} at the end",
        most as f64 / live as f64
    );
    assert!(most <= 3 * live, "{most} bytes on disk for {live}");
    let before = versions(address, count);
    assert!(before.values().all(|version| *version > 0));
    program.signal(Signal::KILL);
    _ = program.end();
    let begin = Instant::now();
    let (_program, address) = serve_in(folder.path(), &small);
    let started = begin.elapsed();
    println!(
        "start with {count} objects after kill -9: {:.2} s until the first client was served",
        started.as_secs_f64()
    );
    assert_eq!(versions(address, count), before);
}

/// Each shard's floor.
fn floors(address: SocketAddr) -> Vec<u64> {
    let cluster = get(address, "/v1/cluster").ok();
    let mut shards: Vec<(u64, u64)> = cluster["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| {
            (
                shard["shard"].as_u64().expect("a number"),
                shard["floor"].as_u64().expect("a floor"),
            )
        })
        .collect();
    shards.sort_unstable();
    shards.into_iter().map(|(_, floor)| floor).collect()
}

#[test]
fn what_did_not_fit_into_memory_stays_confessed_across_kills_while_snapshots_are_taken() {
    const COUNT: u64 = 150_000;
    let folder = tempfile::tempdir().expect("a folder");
    // Room for a third of them; snapshots nearly always under way.
    let tight = [
        "--owner.version_table_bytes",
        "1500000",
        "--storage.log_file_bytes",
        "100000",
        "--storage.log_bytes",
        "300000",
        "--cluster.shards",
        "16",
    ];
    let (mut program, mut address) = serve_in(folder.path(), &tight);
    let first: Vec<String> = (0..50).map(|number| format!("object-{number}")).collect();
    let mut poller = Poller::new(Poll::of(address, &first));
    let newest = publish(address, "object-0");
    poller.up_to(newest);
    for round in 0..3 {
        publish_lines(address, 0..COUNT);
        let (before, known) = (floors(address), versions(address, COUNT));
        program.signal(Signal::KILL);
        _ = program.end();
        (program, address) = serve_in(folder.path(), &tight);
        let after = floors(address);
        assert!(
            before.iter().zip(&after).all(|(before, after)| before <= after),
            "round {round}: a floor fell: {before:?}, {after:?}"
        );
        assert!(
            after.iter().all(|floor| *floor > newest),
            "round {round}: versions were dropped"
        );
        for (object, version) in known {
            let answer = get(address, &format!("/v1/object?object={object}")).ok();
            let there = answer["version"].as_u64().unwrap_or(0);
            assert!(
                there == version || there == 0 && version == 0 || answer["floor"].as_u64() > Some(version),
                "{answer}"
            );
        }
        let mut late = Poller::resume(Poll::of(address, &first), &poller.cursor);
        let heard = late.up_to(publish(address, "mark"));
        assert_eq!(heard.resyncs.len(), 1, "round {round}: {heard:?}");
        assert_eq!(heard.resyncs[0]["cause"], "versions_evicted", "round {round}");
    }
}
