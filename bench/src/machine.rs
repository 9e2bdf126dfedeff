//! Which machine a figure was taken on. A figure without it cannot be compared with anything.

use serde::Serialize;
use std::fs;

/// What a reader needs to judge a figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// Runnable tasks over the last minute when the run began: on a busy machine wall-clock figures mean little.
    pub(crate) load: String,
}

impl Machine {
    /// Reads `/proc`; what is missing there reads "unknown".
    pub(crate) fn here() -> Self {
        let field = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split(':').nth(1))
                .map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
        };
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: memory
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            load: read("/proc/loadavg").split(' ').next().unwrap_or("unknown").to_owned(),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let Self {
            cpu,
            cores,
            kernel,
            memory_mib,
            load,
        } = self;
        format!("{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, load {load}")
    }
}
