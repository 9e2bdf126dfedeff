//! What a connection and a subscription cost: resident memory of the server, and its CPU time to make them.

use crate::meter::{self, CpuMeter};
use crate::net::{Net, Speech};
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::{message, swarm};
use serde_json::json;
use std::io;
use std::time::Duration;

/// Memory and CPU of idle connections and of subscriptions
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Subscriptions {
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Objects each connection subscribes
    #[arg(long, default_value_t = 100)]
    pub(crate) each: usize,
    /// Distinct objects in all; by default no two subscriptions share one
    #[arg(long)]
    pub(crate) pool: Option<usize>,
    /// Seconds to wait at most until the server's allocator has given back what it can
    #[arg(long, default_value_t = 15.0)]
    pub(crate) settle: f64,
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Subscriptions {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let pool = self.pool.unwrap_or(self.connections * self.each).max(self.each);
        let parameters = json!({
            "connections": self.connections, "objects_each": self.each, "distinct_objects": pool, "id_bytes": 10,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("subscriptions", parameters);
        self.launcher.pin_self()?;
        for _ in 0..self.rounds {
            self.round(pool, &mut report)?;
        }
        report.note("resident memory of the server process; the kernel's socket buffers are not in it");
        Ok(report)
    }

    fn round(&self, pool: usize, report: &mut Report) -> io::Result<()> {
        let settle = Duration::from_secs_f64(self.settle);
        let server = self.launcher.start()?;
        let mut cpu = CpuMeter::new(server.pid);
        let mut net = Net::new()?;
        let empty = meter::settled_rss_bytes_asleep(server.pid, Duration::from_secs(3))?;

        let before = cpu.read_ns()?;
        let ids = swarm::connect(&mut net, server.address, Speech::WebSocket, self.connections)?;
        // The hellos are still on their way.
        swarm::idle(&mut net, Duration::from_millis(200))?;
        let connecting = (cpu.read_ns()? - before) as f64;
        let idle = meter::settled_rss_bytes(server.pid, settle, |time| swarm::idle(&mut net, time))?;

        let before = cpu.read_ns()?;
        let subscribed = swarm::subscribe(&mut net, &ids, self.each, 64, |at| {
            let objects: Vec<_> = (0..self.each)
                .map(|nth| format!("o{:09}", (at * self.each + nth) % pool))
                .collect();
            message::subscribe(objects.iter().map(String::as_str), None)
        })?;
        let subscribing = (cpu.read_ns()? - before) as f64;
        let after = meter::settled_rss_bytes(server.pid, settle, |time| swarm::idle(&mut net, time))?;

        let (connections, subscriptions) = (self.connections as f64, (self.connections * self.each) as f64);
        let grown = |from: u64, to: u64| to as f64 - from as f64;
        let bytes = grown(idle, after) / subscriptions;
        report.add_goal(
            "RSS per idle connection",
            "bytes",
            grown(empty, idle) / connections,
            Goal::AtMost(3072.0),
        );
        report.add("CPU per connection made", "us", connecting / connections / 1e3);
        report.add_goal("RSS per subscription", "bytes", bytes, Goal::AtMost(100.0));
        report.add_goal(
            "CPU per subscription made",
            "us",
            subscribing / subscriptions / 1e3,
            Goal::AtMost(1.1),
        );
        report.add("subscribing took", "s", subscribed.time.as_secs_f64());
        report.add("RSS empty", "MiB", empty as f64 / f64::from(1 << 20));
        report.add("RSS with connections", "MiB", idle as f64 / f64::from(1 << 20));
        report.add("RSS with subscriptions", "MiB", after as f64 / f64::from(1 << 20));
        Ok(())
    }
}
