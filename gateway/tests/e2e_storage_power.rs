//! Power cuts on a real file system: what a loop device's file holds at a moment is what its disk would hold if the power
//! went then. The real program starts from that on another boot of the machine.
//!
//! Needs root, a loop device and a way to show the program another boot; says so and passes where that is missing.

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::*;

/// What the kernel calls this start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A machine whose power can be cut.
struct Machine {
    folder: tempfile::TempDir,
    starts: u32,
}

/// The machine while it is up.
struct Up {
    mount: Mount,
    program: Program,
    address: SocketAddr,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("`{}`: {error}", command()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`{}` failed: {said}", command()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

impl Machine {
    /// With an empty disk; or what is missing here to have one.
    fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let new = Self { folder, starts: 0 };
        let disk = new.path("disk");
        let file = std::fs::File::create(&disk).map_err(|error| error.to_string())?;
        file.set_len(40 << 20).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", text(&disk)])?;
        drop(new.mount()?);
        let boot = new.boot_id(0);
        let shown = format!("mount --bind {} {BOOT_ID} && grep -q '^boot 0$' {BOOT_ID}", text(&boot));
        run("unshare", &["-m", "sh", "-c", &shown])?;
        Ok(new)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn boot_id(&self, number: u32) -> PathBuf {
        let path = self.path(&format!("boot-{number}"));
        std::fs::write(&path, format!("boot {number}\n")).expect("written");
        path
    }

    fn mount(&self) -> Result<Mount, String> {
        let at = self.path("mounted");
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", text(&self.path("disk")), text(&at)])?;
        Ok(Mount(at))
    }

    /// Boots, and starts the program.
    fn start(&mut self) -> Up {
        self.starts += 1;
        let mount = self.mount().expect("the file system can be used");
        let boot = self.boot_id(self.starts);
        let mut command = Command::new("unshare");
        let script = format!("mount --bind {} {BOOT_ID} && exec \"$0\" \"$@\"", text(&boot));
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_tidings")]);
        let data = mount.0.join("data");
        let mut arguments = vec!["--data-dir", text(&data), "--storage.log_file_bytes", "30000"];
        arguments.extend(["--storage.log_bytes", "90000"]);
        arguments.extend(OFTEN);
        let (program, address) = Program::serve_by(command, &arguments);
        Up {
            mount,
            program,
            address,
        }
    }

    /// Cuts the power. What was acknowledged before that moment is known to those who were acknowledged.
    fn cut(&self, up: Up) {
        // Stopped first: nothing is acknowledged any more that the copy could not have.
        up.program.signal(Signal::STOP);
        let (disk, copy) = (self.path("disk"), self.path("copy"));
        std::fs::write(&copy, at_rest(&disk)).expect("copied");
        up.program.signal(Signal::KILL);
        _ = up.program.end();
        drop(up.mount);
        std::fs::rename(copy, disk).expect("in its place");
    }
}

/// What the disk holds once nothing is on its way to it any more. Reading takes a while, and a disk that is written
/// meanwhile would look as no power cut leaves one: its journal from later than what the journal is about.
fn at_rest(disk: &Path) -> Vec<u8> {
    let read = || std::fs::read(disk).expect("the disk");
    let mut bytes = read();
    eventually("the disk is at rest", || {
        let again = read();
        let at_rest = bytes == again;
        bytes = again;
        at_rest
    });
    bytes
}

/// Whether the machine can be had; says why not.
fn machine() -> Option<Machine> {
    match Machine::new() {
        Ok(machine) => Some(machine),
        Err(missing) => {
            println!("SKIPPED: a power cut on a real file system needs root and a loop device: {missing}");
            None
        }
    }
}

type Acked = HashMap<String, u64>;

/// Publishers of both kinds until the program dies.
fn publishers(address: SocketAddr, acks: &'static [&'static str]) -> (Arc<AtomicBool>, Vec<JoinHandle<(bool, Acked)>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = acks.iter().enumerate().map(|(number, ack)| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || (*ack == "durable", load(address, number, ack, &stop)))
    });
    let threads = threads.collect();
    (stop, threads)
}

/// Waits until each publisher has published, and a little more.
fn under_load(address: SocketAddr, publishers: usize, more_ms: u64) {
    let first = |number: usize| version_of(address, &format!("load-{number}-1"));
    let before: Vec<_> = (0..publishers).map(first).collect();
    eventually("there is load", || {
        (0..publishers).all(|number| first(number) > before[number])
    });
    std::thread::sleep(Duration::from_millis(50 + more_ms));
}

/// What is known of an object: its version, and below what nothing is known.
fn known(address: SocketAddr, object: &str) -> (u64, u64) {
    let answer = get(address, &format!("/v1/object?object={object}")).ok();
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    (number("version"), number("floor"))
}

#[test]
fn after_a_power_cut_what_was_durable_is_there_and_whatever_else_is_missing_is_confessed() {
    let Some(mut machine) = machine() else { return };
    let (mut durable, mut others) = (Acked::new(), Acked::new());
    let mut cursor: Option<String> = None;
    let mut confessed = 0;
    for round in 0..4 {
        let up = machine.start();
        let watched: Vec<String> = (0..6).map(|number| format!("load-{number}-0")).collect();
        for (object, version) in &durable {
            let (there, _) = known(up.address, object);
            assert!(
                there >= *version,
                "round {round}: {object} was durable at {version}, not {there}"
            );
        }
        for (object, version) in &others {
            let (there, floor) = known(up.address, object);
            assert!(
                there >= *version || floor > *version,
                "round {round}: {object} was accepted at {version} and is silently at {there}, floor {floor}"
            );
            confessed += u32::from(there < *version);
        }
        let mut poller = Poller::resume(Poll::of(up.address, &watched), cursor.as_deref().unwrap_or_default());
        if cursor.is_none() {
            poller = Poller::new(Poll::of(up.address, &watched));
        }
        let heard = poller.up_to(publish(up.address, "mark"));
        let causes: Vec<_> = heard.resyncs.iter().map(|resync| resync["cause"].as_str()).collect();
        assert!(
            cursor.is_none() || causes == [Some("power_lost")],
            "round {round}: {heard:?}"
        );
        let acks = &["durable", "accepted", "durable", "replicated", "durable", "accepted"];
        let (stop, threads) = publishers(up.address, acks);
        under_load(up.address, threads.len(), 170 * round);
        cursor = Some(poller.cursor);
        if round % 2 == 1 {
            // Under no load, so that nothing syncs by the way what was only accepted.
            stop.store(true, Ordering::Relaxed);
            eventually("the load ends", || threads.iter().all(JoinHandle::is_finished));
            for object in ["last-1", "last-2"] {
                others.insert(object.to_owned(), publish(up.address, object));
            }
        }
        machine.cut(up);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let (is_durable, acked) = thread.join().expect("a publisher");
            assert!(!acked.is_empty(), "round {round}: there was load");
            let known = if is_durable { &mut durable } else { &mut others };
            for (object, version) in acked {
                let before = known.insert(object, version);
                assert!(before < Some(version), "versions go up across power cuts");
            }
        }
    }
    println!(
        "{} durable, {} others, of which {confessed} times one was lost and confessed",
        durable.len(),
        others.len()
    );
    assert!(confessed > 0, "the power cuts lost nothing: they were none");
}

#[test]
fn after_a_power_cut_nobody_has_to_fetch_anything_if_everything_was_durable() {
    let Some(mut machine) = machine() else { return };
    let (mut durable, mut acked_since) = (Acked::new(), Acked::new());
    let mut cursor: Option<String> = None;
    let watched: Vec<String> = (0..4)
        .flat_map(|n| (0..20).map(move |k| format!("load-{n}-{k}")))
        .collect();
    for round in 0..4 {
        let up = machine.start();
        for (object, version) in &durable {
            let (there, _) = known(up.address, object);
            assert!(
                there >= *version,
                "round {round}: {object} was durable at {version}, not {there}"
            );
        }
        let mut poller = Poller::resume(Poll::of(up.address, &watched), cursor.as_deref().unwrap_or_default());
        if cursor.is_none() {
            poller = Poller::new(Poll::of(up.address, &watched));
        }
        let heard = poller.up_to(publish_durable(up.address, "mark"));
        assert_eq!(heard.resyncs, Vec::<Value>::new(), "round {round}: {heard:?}");
        for (object, version) in acked_since {
            assert!(
                heard.newest.get(&object) >= Some(&version),
                "round {round}: {object} at {version}: {heard:?}"
            );
        }
        cursor = Some(poller.cursor);
        let (stop, threads) = publishers(up.address, &["durable"; 4]);
        under_load(up.address, threads.len(), 190 * round);
        machine.cut(up);
        stop.store(true, Ordering::Relaxed);
        acked_since = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a publisher").1)
            .collect();
        durable.extend(acked_since.clone());
    }
    println!("{} objects were durable", durable.len());
}
