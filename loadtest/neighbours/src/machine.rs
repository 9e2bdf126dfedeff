//! What processes use, read from `/proc`, and what machine this is.

use std::fs;
use std::time::Instant;
use tidings_report::record::{Machine, Sample};

/// Watches one process and its children.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: u32,
    began: Instant,
    /// Processor time and moment of the look before.
    before: Option<(u64, Instant)>,
}

impl Watch {
    /// Times count from `began`.
    pub(crate) fn new(pid: u32, began: Instant) -> Self {
        Self {
            pid,
            began,
            before: None,
        }
    }

    /// Looks now; `None` once the process is gone.
    pub(crate) fn look(&mut self) -> Option<Sample> {
        let family = family(self.pid);
        let cpu_ns: u64 = family.iter().filter_map(|pid| cpu_ns(*pid)).sum();
        let memory_bytes: u64 = family.iter().filter_map(|pid| memory_bytes(*pid)).sum();
        let now = Instant::now();
        let share = self.before.map_or(0.0, |(before_ns, then)| {
            let time = now.duration_since(then).as_nanos() as f64;
            if time > 0.0 {
                cpu_ns.saturating_sub(before_ns) as f64 / time
            } else {
                0.0
            }
        });
        self.before = Some((cpu_ns, now));
        let descriptors = family
            .iter()
            .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
        (memory_bytes > 0).then(|| Sample {
            at_ms: u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX),
            cpu_cores: share,
            memory_bytes,
            descriptors: descriptors.map(|folder| folder.count() as u64).sum(),
            ..Sample::default()
        })
    }
}

/// The process and its children: nginx works in one.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return family;
    };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        family.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    family
}

/// Nanoseconds on a processor, all threads.
fn cpu_ns(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let of = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat"))
            .ok()?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    Some(tasks.flatten().filter_map(|task| of(task.path())).sum())
}

/// Resident memory, what processes share counted once where the kernel tells.
fn memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let proportional = text.and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:").map(str::to_owned))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    match proportional {
        Some(kib) => Some(kib * 1024),
        None => {
            let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
            Some(pages * rustix::param::page_size() as u64)
        }
    }
}

/// This machine.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(':').nth(1));
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Machine {
        cpu: cpu.unwrap_or("").trim().to_owned(),
        cores: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(0)),
        memory_bytes: kib.unwrap_or(0) * 1024,
        os: format!("Linux {}", kernel.trim().split('-').next().unwrap_or("")),
        descriptors: limit.current.unwrap_or(0),
    }
}

/// Raises the limit of open descriptors to what the machine allows; returns it.
pub(crate) fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_processor_time() {
        let mut watch = Watch::new(std::process::id(), Instant::now());
        watch.look().unwrap();
        let mut n = 0_u64;
        while watch.before.unwrap().1.elapsed().as_millis() < 50 {
            n = std::hint::black_box(n + 1);
        }
        let sample = watch.look().unwrap();
        assert!(sample.memory_bytes > 100_000 && sample.cpu_cores > 0.0, "{sample:?}");
        assert!(machine().cores > 0);
    }

    #[test]
    fn a_process_that_is_gone_has_no_sample() {
        assert_eq!(Watch::new(u32::MAX, Instant::now()).look(), None);
    }
}
