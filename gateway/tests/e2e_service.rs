//! What the program tells systemd, heard at a socket in its place.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{LONG, PATIENCE, Plan, Program, get};

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").to_str().unwrap().to_owned()
    }

    /// The program with this manager.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.env("NOTIFY_SOCKET", self.path());
        command
    }

    /// The next notice within a tenth of a second.
    fn notice(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// The next notice but pings of the watchdog.
    #[track_caller]
    fn told(&self) -> String {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            match self.notice() {
                Some(notice) if notice != "WATCHDOG=1\n" => return notice,
                _ => {}
            }
        }
        panic!("nothing is told");
    }

    /// Waits for a ping.
    #[track_caller]
    fn pinged(&self) {
        let since = Instant::now();
        while self.notice().as_deref() != Some("WATCHDOG=1\n") {
            assert!(since.elapsed() < PATIENCE, "no ping comes");
        }
    }

    /// Waits until nothing was told for a second. What was under way before may still come.
    #[track_caller]
    fn falls_silent(&self) {
        let since = Instant::now();
        while !self.hears_within(Duration::from_secs(1)).is_empty() {
            assert!(since.elapsed() < PATIENCE, "notices go on and on");
        }
    }

    /// What comes within this time.
    fn hears_within(&self, time: Duration) -> Vec<String> {
        let since = Instant::now();
        let mut heard = Vec::new();
        while since.elapsed() < time {
            heard.extend(self.notice());
        }
        heard
    }
}

fn start(manager: &Manager, environment: &[(&str, &str)]) -> (Program, SocketAddr) {
    let mut command = manager.command();
    command.envs(environment.iter().copied());
    let arguments = ["--listen", "127.0.0.1:0", "--threads", "2", "--data-dir", "none"];
    let program = Program::start_by(command, &arguments);
    let line = program.line();
    let address = line.split("http://").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap().parse().unwrap();
    (program, address)
}

#[test]
fn ready_is_told_once_it_serves_reloading_around_a_reload_and_stopping_at_the_end() {
    let manager = Manager::new();
    let (program, address) = start(&manager, &[]);
    assert_eq!(manager.told(), "READY=1\nSTATUS=serving\n");
    assert_eq!(get(address, "/readyz").status, 200);
    program.signal(Signal::HUP);
    let reloading = manager.told();
    let since = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap_or_else(|| panic!("{reloading}"));
    assert!(since.trim().parse::<u64>().is_ok_and(|since| since > 0), "{reloading}");
    assert_eq!(manager.told(), "READY=1\nSTATUS=serving\n");
    program.terminate();
    assert_eq!(manager.told(), "STOPPING=1\nSTATUS=stopping\n");
    assert!(program.end().0.success());
}

#[test]
fn a_reload_that_fails_says_that_everything_goes_on() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "").unwrap();
    let policy = policy.to_str().unwrap();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--threads", "1", "--data-dir", "none"];
    arguments.extend(["--auth.policy_file", policy]);
    let program = Program::start_by(manager.command(), &arguments);
    assert_eq!(manager.told(), "READY=1\nSTATUS=serving\n");
    std::fs::write(policy, "nonsense").unwrap();
    program.signal(Signal::HUP);
    assert!(manager.told().starts_with("RELOADING=1\n"));
    let told = manager.told();
    assert!(
        told.starts_with("READY=1\nSTATUS=serving; nothing was changed by the reload: "),
        "{told}"
    );
}

#[test]
fn a_node_of_a_cluster_is_ready_only_once_the_cluster_has_formed() {
    let managers = [Manager::new(), Manager::new(), Manager::new()];
    let mut cluster = Plan::of(3).build();
    for (node, manager) in managers.iter().enumerate() {
        cluster.environment(node, "NOTIFY_SOCKET", &manager.path());
    }
    for (node, manager) in managers.iter().take(2).enumerate() {
        cluster.launch(node);
        let status = manager.told();
        assert!(
            status.starts_with("STATUS=A node on ") && status.contains("waits for 3 nodes"),
            "{status}"
        );
    }
    // Two cannot form it, so that nothing more may be told.
    assert_eq!(managers[0].hears_within(Duration::from_secs(1)), [""; 0]);
    cluster.launch(2);
    assert!(managers[2].told().starts_with("STATUS="));
    let since = Instant::now();
    let told = loop {
        if let Some(told) = managers[0].notice() {
            break told;
        }
        assert!(since.elapsed() < LONG, "the cluster does not form");
    };
    assert_eq!(told, "READY=1\nSTATUS=serving\n");
}

#[test]
fn a_node_that_is_stopped_while_it_looks_for_its_cluster_says_stopping_and_never_ready() {
    let manager = Manager::new();
    let mut cluster = Plan::of(3).build();
    cluster.environment(0, "NOTIFY_SOCKET", &manager.path());
    cluster.launch(0);
    assert!(manager.told().starts_with("STATUS="));
    cluster.signal(0, Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1\nSTATUS=stopping\n");
}

#[test]
fn pings_come_while_all_threads_answer_and_stop_with_any_one_of_them() {
    let manager = Manager::new();
    let (mut program, _) = start(&manager, &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(manager.told(), "READY=1\nSTATUS=serving\n");
    manager.pinged();
    manager.pinged();
    for thread in ["tidings-0", "tidings-1"] {
        let Some(held) = Held::hold(program.id(), thread) else {
            eprintln!("SKIPPED: one thread of a process cannot be held here (it needs python3 and the right to trace)");
            break;
        };
        manager.falls_silent();
        drop(held);
        manager.pinged();
    }
    program.signal(Signal::STOP);
    manager.falls_silent();
    program.signal(Signal::CONT);
    manager.pinged();
    assert!(program.is_running());
}

#[test]
fn without_a_watchdog_or_with_that_of_another_process_there_are_no_pings() {
    for environment in [&[][..], &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")]] {
        let manager = Manager::new();
        let (_program, _) = start(&manager, environment);
        assert_eq!(manager.told(), "READY=1\nSTATUS=serving\n");
        assert_eq!(manager.hears_within(Duration::from_millis(500)), [""; 0]);
    }
}

/// One thread of another process that stands still, as long as this lives: traced by a program that does nothing else.
struct Held {
    _tracer: Program,
}

impl Held {
    fn hold(process: u32, thread: &str) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let named =
            |task: &std::path::Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
        let task = tasks
            .map(|task| task.unwrap().path())
            .find(|task| named(task))
            .expect("the thread");
        let task = task.file_name().unwrap().to_str().unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", HOLD, task]);
        if Command::new("python3").arg("--version").output().is_err() {
            return None;
        }
        let tracer = Program::start_by(python, &[]);
        (tracer.line() == "held").then_some(Self { _tracer: tracer })
    }
}

/// PTRACE_SEIZE and PTRACE_INTERRUPT; the thread goes on when the tracer ends.
const HOLD: &str = "
import ctypes, os, sys
trace, task = ctypes.CDLL(None, use_errno=True).ptrace, int(sys.argv[1])
if trace(0x4206, task, 0, 0) or trace(0x4207, task, 0, 0):
    print('refused', flush=True)
else:
    os.waitpid(task, 0x40000000)
    print('held', flush=True)
sys.stdin.read()
";
