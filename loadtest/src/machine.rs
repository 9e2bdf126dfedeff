//! Which machine a run was on. A figure without it cannot be compared with anything.

use std::fs;
use tidings_report::record::Machine;

/// Reads `/proc`; what is missing there stays empty.
pub(crate) fn here(descriptors: u64) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1));
        value.map_or_else(String::new, |value| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: Option<u64> = memory.split(' ').next().and_then(|kib| kib.parse().ok());
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32),
        memory_bytes: kib.unwrap_or(0) * 1_024,
        os: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        descriptors,
    }
}
