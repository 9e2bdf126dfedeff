//! CPU time and resident memory of another process, read from `/proc`.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// CPU time of one process in nanoseconds, summed over its threads.
///
/// `schedstat` is exact but lags by up to one scheduler tick for a thread that is running: measure for a second or more.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    pid: u32,
    /// The last reading of each thread, so that one that ended in between still counts.
    threads: HashMap<String, u64>,
}

impl CpuMeter {
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            pid,
            threads: HashMap::new(),
        }
    }

    /// Nanoseconds on a CPU since the process began.
    pub(crate) fn read_ns(&mut self) -> io::Result<u64> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let on_cpu = text.split(' ').next().and_then(|value| value.parse().ok());
            let on_cpu = on_cpu.ok_or_else(|| io::Error::other(format!("unreadable schedstat: {text:?}")))?;
            self.threads
                .insert(entry.file_name().to_string_lossy().into_owned(), on_cpu);
        }
        // A thread that came and went between two readings is only in the total of the process.
        Ok(self.total_ns()?.max(self.threads.values().sum()))
    }

    /// User and system time of all threads there ever were, in ticks of 10 ms rounded down.
    fn total_ns(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The command's name is in parentheses and may hold anything.
        let fields = text.rsplit(')').next().unwrap_or("");
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok());
        Ok(ticks.sum::<u64>() * 10_000_000)
    }
}

/// Resident bytes of a process.
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.trim().split(' ').next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no Rss line in smaps_rollup"))
}

/// Resident bytes once they have stopped falling for three seconds (allocators give back with a delay), or after `limit`.
/// `wait` is called to pass the time, so that the caller can go on serving its sockets.
pub(crate) fn settled_rss_bytes(
    pid: u32,
    limit: Duration,
    mut wait: impl FnMut(Duration) -> io::Result<()>,
) -> io::Result<u64> {
    let began = Instant::now();
    let (mut lowest, mut lowest_at) = (rss_bytes(pid)?, Instant::now());
    while began.elapsed() < limit && lowest_at.elapsed() < Duration::from_secs(3) {
        wait(Duration::from_millis(250))?;
        let now = rss_bytes(pid)?;
        if now < lowest {
            (lowest, lowest_at) = (now, Instant::now());
        }
    }
    rss_bytes(pid)
}

/// The same for a caller without sockets to serve.
pub(crate) fn settled_rss_bytes_asleep(pid: u32, limit: Duration) -> io::Result<u64> {
    settled_rss_bytes(pid, limit, |time| {
        thread::sleep(time);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_busy_process_grows_with_the_wall_clock() {
        let mut meter = CpuMeter::new(std::process::id());
        let before = meter.read_ns().expect("readable");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let used = meter.read_ns().expect("readable") - before;
        assert!(used > 50_000_000, "300 ms of spinning were read as {used} ns");
    }

    #[test]
    fn the_time_of_a_thread_that_has_ended_counts() {
        let mut meter = CpuMeter::new(std::process::id());
        let before = meter.read_ns().expect("readable");
        let spin = || {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(500) {
                std::hint::spin_loop();
            }
        };
        thread::spawn(spin).join().expect("it spins");
        let used = meter.read_ns().expect("readable") - before;
        assert!(used > 50_000_000, "500 ms of a thread were read as {used} ns");
    }

    #[test]
    fn resident_memory_shows_what_was_touched() {
        let before = rss_bytes(std::process::id()).expect("readable");
        let held = vec![7_u8; 64 << 20];
        let after = rss_bytes(std::process::id()).expect("readable");
        assert!(
            after > before + (32 << 20),
            "{before} -> {after} with {} bytes held",
            held.len()
        );
    }
}
