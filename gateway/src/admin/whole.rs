//! The node as a whole in the metrics: process, how full what has a bound is, and its part in a cluster.
//!
//! Gathered when somebody asks: nothing here costs anything between two readings.

use super::families::Families;
use crate::control::{self, Status};
use crate::node::Node;
use crate::telemetry::SampleKind;
use rustix::time::{ClockId, clock_gettime};
use tidings_protocol::NodeId;
use tidings_router::control::map::Process;
use tidings_router::edge::LaneStats;

/// All of it but what owners and lanes say.
pub(super) fn of_node(node: &Node) -> String {
    let mut out = Families::default();
    process(&mut out);
    uses(&mut out, node);
    if let Some(control) = &node.control {
        cluster(&mut out, control);
    }
    out.text()
}

/// How far the cursors that each thread can give lie behind the clock.
pub(super) fn of_cursors(lanes: &[(usize, LaneStats)]) -> String {
    let now_us = crate::clock::now().wall_us;
    let mut out = Families::default();
    out.begin(
        "tidings_lane_cursor_lag_seconds",
        SampleKind::Gauge,
        "Seconds by which the version up to which everything has arrived lies behind the clock",
    );
    for (thread, stats) in lanes {
        if let Some(closed) = stats.closed.known() {
            let lag_s = now_us.saturating_sub(closed.0) as f64 / 1e6;
            out.sample(&[("thread", &thread.to_string())], lag_s);
        }
    }
    out.text()
}

/// The figures that every kind of program is expected to have, under the names they have everywhere.
fn process(out: &mut Families) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    out.one(
        "process_cpu_seconds",
        SampleKind::Counter,
        "Processor time of the process",
        cpu_s,
    );
    let read = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
    let statm = read("/proc/self/statm");
    let pages = |at: usize| statm.split(' ').nth(at)?.trim().parse::<u64>().ok();
    let page = rustix::param::page_size() as u64;
    if let (Some(all), Some(resident)) = (pages(0), pages(1)) {
        out.one(
            "process_virtual_memory_bytes",
            SampleKind::Gauge,
            "Address space of the process",
            all * page,
        );
        out.one(
            "process_resident_memory_bytes",
            SampleKind::Gauge,
            "Memory that the process occupies",
            resident * page,
        );
    }
    if let Some(start_s) = started_s(&read("/proc/self/stat"), &read("/proc/stat")) {
        out.one(
            "process_start_time_seconds",
            SampleKind::Gauge,
            "When the process started, since 1970",
            start_s,
        );
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.one(
            "process_max_fds",
            SampleKind::Gauge,
            "Descriptors that the process may have",
            most,
        );
    }
}

/// When a process began, from what the system says of it and of itself.
fn started_s(stat: &str, of_system: &str) -> Option<f64> {
    // The program's name stands in brackets and may hold anything.
    let behind_name = stat.rsplit_once(')')?.1;
    let ticks: f64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    let boot = of_system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot_s: f64 = boot.trim().parse().ok()?;
    Some(boot_s + ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// As the last second had it.
fn uses(out: &mut Families, node: &Node) {
    let uses = node.recent.uses();
    // What is bounded inside [limits] is named without it, as in `tidings_limit`.
    let short = |limit: &'static str| limit.strip_prefix("limits.").unwrap_or(limit);
    out.begin(
        "tidings_limit_used",
        SampleKind::Gauge,
        "How much there is of what has a bound, named like the bound's key",
    );
    for (limit, used, _) in &uses {
        out.sample(&[("name", short(limit))], used);
    }
    out.begin(
        "tidings_limit_max",
        SampleKind::Gauge,
        "How much of it there may be at most",
    );
    for (limit, _, most) in &uses {
        out.sample(&[("name", short(limit))], most);
    }
}

/// What the map says of shards, together with who is alive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shards {
    all: u64,
    without_owner: u64,
    short_of_copies: u64,
    owner_changes: u64,
}

impl Shards {
    fn of(status: &Status) -> Self {
        let view = &status.view;
        let alive = |process: &Process| {
            let answers = |node: NodeId| node == view.me.node || view.peers.get(&node).is_some_and(|peer| peer.alive);
            view.map.is_current(*process) && answers(process.node)
        };
        let owners = view.map.nodes().filter(|(_, node)| node.info.roles.owner).count();
        let copies = usize::from(view.map.copies()).min(owners);
        let mut shards = Self::default();
        for (_, shard) in view.map.shards() {
            let whole = shard
                .owner
                .iter()
                .chain(&shard.in_sync)
                .filter(|process| alive(process));
            shards.all += 1;
            shards.without_owner += u64::from(!shard.owner.as_ref().is_some_and(&alive));
            shards.short_of_copies += u64::from(whole.count() < copies);
            shards.owner_changes += shard.epoch.0;
        }
        shards
    }
}

fn cluster(out: &mut Families, control: &control::Handle) {
    let status = control.status();
    let shards = Shards::of(&status);
    out.one(
        "tidings_control_lease_remaining_seconds",
        SampleKind::Gauge,
        "Seconds for which this node may give versions",
        status.lease_left_us as f64 / 1e6,
    )
    .one(
        "tidings_control_shards",
        SampleKind::Gauge,
        "Shards of the cluster",
        shards.all,
    )
    .one(
        "tidings_control_shards_without_owner",
        SampleKind::Gauge,
        "Shards whose owner this node does not hold alive",
        shards.without_owner,
    )
    .one(
        "tidings_control_shards_short_of_copies",
        SampleKind::Gauge,
        "Shards with fewer whole copies on living nodes than there should be",
        shards.short_of_copies,
    )
    .one(
        "tidings_control_owner_changes",
        SampleKind::Counter,
        "Owners that shards were given: the epochs of all shards together",
        shards.owner_changes,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_so_long_after_the_machine() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 500 20";
        let of_system = "cpu 1 2\nbtime 1000\nprocesses 9\n";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(started_s(stat, of_system), Some(1000.0 + 500.0 / ticks));
        assert_eq!(started_s("", of_system), None);
        assert_eq!(started_s(stat, "cpu 1\n"), None);
    }

    #[test]
    fn this_process_is_counted() {
        let mut out = Families::default();
        process(&mut out);
        let text = out.text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(
            value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"),
            "{text}"
        );
        assert!(value("process_max_fds") >= 1.0, "{text}");
        assert!(value("process_start_time_seconds") > 1.5e9, "{text}");
    }
}
