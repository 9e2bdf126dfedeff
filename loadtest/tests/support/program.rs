//! The program as somebody types it, with everything it says.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// What `--json` wrote; null if nothing.
    pub(crate) record: Value,
    pub(crate) folder: TempDir,
}

impl Outcome {
    /// With everything that was said, if it did not end as it should.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "\n{}\n{}", self.out, self.err);
        self
    }

    /// The headline's two numbers.
    #[track_caller]
    pub(crate) fn lost(&self) -> (u64, u64) {
        let line = self.out.lines().rfind(|line| line.starts_with("lost: "));
        let line = line.unwrap_or_else(|| panic!("no headline in\n{}\n{}", self.out, self.err));
        let mut numbers = line
            .split_whitespace()
            .filter_map(|word| word.replace(',', "").parse().ok());
        (numbers.next().expect("how many"), numbers.next().expect("of how many"))
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.record["counts"][name]
            .as_u64()
            .or_else(|| self.record["counts"]["extra"][name].as_u64())
            .unwrap_or(0)
    }

    /// How a verdict came out.
    #[track_caller]
    pub(crate) fn verdict(&self, name: &str) -> &str {
        let verdicts = self.record["verdicts"].as_array().expect("verdicts");
        let verdict = verdicts.iter().find(|verdict| verdict["name"] == name);
        verdict
            .and_then(|verdict| verdict["status"].as_str())
            .unwrap_or("missing")
    }
}

/// Runs it with these words.
pub(crate) fn run(words: &[&str]) -> Outcome {
    let folder = TempDir::new().expect("a folder");
    let json = folder.path().join("record.json");
    let mut command = program(folder.path());
    command.args(words);
    if words.first() == Some(&"run") {
        command.arg("--json").arg(&json);
    }
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let record = std::fs::read_to_string(&json).ok();
    Outcome {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
        record: record
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(Value::Null),
        folder,
    }
}

/// The program in a folder of its own.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-loadtest"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A short run of a scenario against a server that it starts itself, with these values changed.
pub(crate) fn short(scenario: &str, sets: &[&str], more: &[&str]) -> Outcome {
    let server = format!("--start-server={}", server().display());
    let mut words = vec!["run", scenario, &server];
    // Figures of a loaded machine are no figures: what is tested here is what was told.
    let common = [
        "run.warm_up=200ms",
        "run.patience=60s",
        "run.settle=60s",
        "publishers.timeout=30s",
        "publishers.give_up=60s",
        "server.threads=2",
    ];
    for set in common.iter().chain(sets) {
        words.extend(["--set", set]);
    }
    words.extend(more);
    run(&words)
}

/// The server's program: beside ours if it was built with it, else built now.
pub(crate) fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        if let Some(given) = std::env::var_os("TIDINGS_LOADTEST_SERVER") {
            return given.into();
        }
        let beside = Path::new(env!("CARGO_BIN_EXE_tidings-loadtest")).with_file_name("tidings");
        if !beside.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build
                .args(["build", "-p", "tidings"])
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(build.status().expect("cargo runs").success(), "the server builds");
        }
        beside
    })
}
