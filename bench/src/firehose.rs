//! Changes of objects nobody watches, as fast as one core of the server takes them, into a table that already holds
//! millions.

use crate::meter::{self, CpuMeter};
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::stream::{self, Published};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Unwatched changes into a table of millions: changes per second and CPU per change on one core
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Firehose {
    /// Objects in the table before measuring
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) objects: u64,
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: u64,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Firehose {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "objects": self.objects, "connections": self.connections, "seconds": self.seconds,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("firehose", parameters);
        self.launcher.pin_self()?;
        let server = self.launcher.start()?;
        let mut cpu = CpuMeter::new(server.pid);
        let empty = meter::settled_rss_bytes_asleep(server.pid, Duration::from_secs(3))?;
        let filled = stream::fill(server.address, self.objects, self.connections)?;
        report.add(
            "pre-fill",
            "changes/s",
            filled.changes as f64 / filled.time.as_secs_f64(),
        );
        let full = meter::settled_rss_bytes_asleep(server.pid, Duration::from_secs(15))?;
        report.add(
            "RSS per object in the table",
            "bytes",
            full.saturating_sub(empty) as f64 / self.objects as f64,
        );

        for _ in 0..self.rounds {
            let lines = self.measure(&mut cpu, server.address, stream::random_ndjson)?;
            report.add_goal("NDJSON changes", "1/s", lines.rate, Goal::AtLeast(1e6));
            report.add("NDJSON CPU per change", "ns", lines.cpu_ns);
            report.add("NDJSON changes per CPU second", "1/s", 1e9 / lines.cpu_ns);
            let batches = self.measure(&mut cpu, server.address, stream::random_batches)?;
            report.add("JSON batch changes", "1/s", batches.rate);
            report.add("JSON batch CPU per change", "ns", batches.cpu_ns);
        }
        report.note(
            "where changes per second are fewer than changes per CPU second, the generator or the disk was the limit",
        );
        Ok(report)
    }

    fn measure(
        &self,
        cpu: &mut CpuMeter,
        server: SocketAddr,
        publish: fn(SocketAddr, u64, u64, Duration) -> io::Result<Published>,
    ) -> io::Result<Half> {
        let before = cpu.read_ns()?;
        let done = publish(
            server,
            self.objects,
            self.connections,
            Duration::from_secs_f64(self.seconds),
        )?;
        let used = (cpu.read_ns()? - before) as f64;
        let changes = done.changes.max(1) as f64;
        Ok(Half {
            rate: changes / done.time.as_secs_f64(),
            cpu_ns: used / changes,
        })
    }
}

/// Half a round.
#[derive(Debug)]
struct Half {
    rate: f64,
    cpu_ns: f64,
}
