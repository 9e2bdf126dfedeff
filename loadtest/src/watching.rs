//! Looking at processes once a second: the servers', where they are on this machine, and our own.

use crate::meter::{self, CpuMeter};
use tidings_report::record::{Process, Sample};

/// One process that is looked at; a server that was killed and started again keeps its name.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) process: Process,
    pid: Option<u32>,
    meter: CpuMeter,
    last_ns: u64,
    last_us: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) cpu_cores: f64,
    pub(crate) memory_bytes: u64,
}

impl Watch {
    pub(crate) fn new(name: String, pid: Option<u32>, now: u64) -> Self {
        let process = Process {
            name,
            ..Process::default()
        };
        let mut watch = Self {
            process,
            pid: None,
            meter: CpuMeter::new(0),
            last_ns: 0,
            last_us: now,
        };
        watch.follow(pid, now);
        watch
    }

    /// It is another process from now on, or none.
    pub(crate) fn follow(&mut self, pid: Option<u32>, now: u64) {
        if self.pid != pid {
            self.pid = pid;
            self.meter = CpuMeter::new(pid.unwrap_or(0));
            (self.last_ns, self.last_us) = (self.meter.read_ns().unwrap_or(0), now);
        }
    }

    /// Looks and keeps what it sees; `None` if there is nothing to be seen.
    pub(crate) fn look(&mut self, epoch_us: u64, now: u64) -> Option<Seen> {
        let pid = self.pid?;
        let cpu_ns = self.meter.read_ns().ok()?;
        let memory_bytes = meter::resident_bytes(pid).ok()?;
        let past_us = now.saturating_sub(self.last_us).max(1);
        let cpu_cores = cpu_ns.saturating_sub(self.last_ns) as f64 / 1e3 / past_us as f64;
        (self.last_ns, self.last_us) = (cpu_ns, now);
        self.process.samples.push(Sample {
            at_ms: now.saturating_sub(epoch_us) / 1_000,
            cpu_cores,
            memory_bytes,
            descriptors: meter::descriptors(pid),
            delivered_per_s: None,
            late_us: None,
        });
        Some(Seen {
            cpu_cores,
            memory_bytes,
        })
    }

    /// What a generator did since the last look.
    pub(crate) fn add(&mut self, delivered_per_s: f64, late_us: u64) {
        if let Some(sample) = self.process.samples.last_mut() {
            sample.delivered_per_s = Some(delivered_per_s);
            sample.late_us = Some(late_us);
        }
    }
}
