//! Processor time and memory of this thread and of any process of this machine, read from the kernel.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;

/// Nanoseconds that this thread was on a processor or waited for one: what it would have been busy had it been alone.
///
/// Source: the kernel's sched-stats document, `/proc/<pid>/schedstat`: time on the processor, time waiting to run.
pub(crate) fn thread_wanted_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let times = text
        .split(' ')
        .take(2)
        .filter_map(|time| time.trim().parse::<u64>().ok());
    times.sum()
}

/// Processor time of one process, summed over its threads.
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

    /// Nanoseconds on a processor since the process began.
    pub(crate) fn read_ns(&mut self) -> io::Result<u64> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let on_cpu = text.split(' ').next().and_then(|value| value.parse().ok());
            let on_cpu = on_cpu.ok_or_else(|| io::Error::other("unreadable schedstat"))?;
            self.threads
                .insert(entry.file_name().to_string_lossy().into_owned(), on_cpu);
        }
        Ok(self.threads.values().sum())
    }
}

/// Resident bytes of a process.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let page = rustix::param::page_size() as u64;
    pages
        .map(|pages| pages * page)
        .ok_or_else(|| io::Error::other("unreadable statm"))
}

/// Open descriptors of a process; 0 if that cannot be known.
pub(crate) fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// The process of this machine that listens on an address; `None` if there is none that we may look at.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    let inode = listening_inode(address)?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
            descriptors
                .into_iter()
                .flatten()
                .flatten()
                .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link.to_string_lossy() == wanted))
        })
}

/// Source: proc(5), `/proc/net/tcp`: addresses in hexadecimal, state 0A listens, the tenth field is the inode.
fn listening_inode(address: SocketAddr) -> Option<u64> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    let port = format!(":{:04X}", address.port());
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| {
            text.lines().skip(1).find_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
                listens.then(|| fields.get(9)?.parse().ok()).flatten()
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    #[test]
    fn processor_time_of_a_busy_process_grows() {
        let mut meter = CpuMeter::new(std::process::id());
        let before = meter.read_ns().expect("readable");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let used = meter.read_ns().expect("readable") - before;
        assert!(used > 30_000_000, "300 ms of spinning were read as {used} ns");
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert_eq!(super::listener(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(super::listener(address), None);
    }

    #[test]
    fn resident_memory_shows_what_was_touched() {
        let before = resident_bytes(std::process::id()).expect("readable");
        let held = vec![7_u8; 64 << 20];
        let after = resident_bytes(std::process::id()).expect("readable");
        assert!(after > before + (32 << 20), "{before} -> {after} with {}", held.len());
    }
}
