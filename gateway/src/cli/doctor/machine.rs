//! The machine: descriptors, memory, ports, clock; with disk and kernel beside.

use super::{Finding, disk, kernel};
use crate::config::Config;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Bytes of an idle connection, by measurement (docs/benchmarks.md).
const CONNECTION_BYTES: u64 = 3 << 10;
/// Versions are given up to so far ahead of the clock; beyond it some clock is wrong.
const CLOCK_AHEAD: Duration = Duration::from_secs(60);
/// 2024-01-01. No release is older.
const NOT_BEFORE_US: u64 = 1_704_067_200_000_000;

/// All of it. `serving`: a node runs here already, so its ports are taken by right.
pub(super) fn look(config: &Config, serving: bool) -> Vec<Finding> {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let connections = match (config.limits.connections, hard) {
        (0, hard) => hard.unwrap_or(1 << 20) / 10 * 9,
        (connections, _) => connections,
    };
    let mut found = vec![descriptors(hard, config.limits.connections)];
    found.extend(
        std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| memory(&text, config)),
    );
    found.push(threads(config));
    if !serving {
        found.extend(ports(config));
    }
    found.push(clock(
        super::now_us(),
        Path::new("/").join("run/systemd/timesync/synchronized").exists(),
    ));
    found.extend(disk::look(config));
    found.extend(kernel::look(connections, |path| {
        std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()
    }));
    found
}

fn descriptors(hard: Option<u64>, wanted: u64) -> Finding {
    let about = "descriptors";
    let Some(hard) = hard else {
        return Finding::fine(about, "the process may open any number");
    };
    let most = hard / 10 * 9;
    let says = format!("the process may open {hard}: {most} connections and the rest for itself");
    let todo = "raise the hard limit: LimitNOFILE= of a systemd service, --ulimit nofile= of a container";
    if wanted > most {
        let says = format!("{says}, but limits.connections is {wanted}");
        Finding::fault(about, says, todo)
    } else if hard < 65_536 {
        Finding::warning(about, says, todo)
    } else {
        Finding::fine(about, says)
    }
}

fn memory(meminfo: &str, config: &Config) -> Option<Finding> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_whitespace().next()?.parse::<u64>().ok()? << 10;
    let versions = config.owner.version_table_bytes;
    let says = format!(
        "{} MiB; owner.version_table_bytes may take {} MiB of it, and 100,000 idle connections {} MiB",
        total >> 20,
        versions >> 20,
        (100_000 * CONNECTION_BYTES) >> 20
    );
    Some(if versions > total / 4 * 3 {
        Finding::warning(
            "memory",
            says,
            "lower owner.version_table_bytes to at most three quarters",
        )
    } else {
        Finding::fine("memory", says)
    })
}

fn threads(config: &Config) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.threads();
    let says = format!("{threads} threads serve on {cores} cores");
    if threads > cores {
        Finding::warning(
            "threads",
            says,
            "more threads than cores only cost: set server.threads to 0",
        )
    } else {
        Finding::fine("threads", says)
    }
}

fn ports(config: &Config) -> Vec<Finding> {
    let (server, mut places) = (&config.server, Vec::new());
    places.push(("server.listen", &server.listen, false));
    if !server.admin_listen.is_empty() {
        places.push(("server.admin_listen", &server.admin_listen, false));
    }
    if config.is_clustered() {
        places.push(("server.node_listen", &server.node_listen, false));
        places.push(("server.node_listen", &server.node_listen, true));
    }
    places
        .into_iter()
        .map(|(key, place, udp)| port(key, place, udp))
        .collect()
}

fn port(key: &str, place: &str, udp: bool) -> Finding {
    let about = "ports";
    let kind = if udp { "UDP" } else { "TCP" };
    // It listens for no longer than this takes.
    let tried = if udp {
        UdpSocket::bind(place).map(drop)
    } else {
        TcpListener::bind(place).map(drop)
    };
    match tried {
        Ok(()) => Finding::fine(about, format!("{kind} {place} is free ({key})")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let says = format!("{kind} {place} is taken by another program ({key})");
            Finding::fault(
                about,
                says,
                format!("end that program (`ss -lnp` names it), or set another {key}"),
            )
        }
        Err(error) => {
            let says = format!("nothing can listen on {kind} {place} ({key}): {error}");
            Finding::fault(about, says, format!("set {key} to an address of this machine"))
        }
    }
}

fn clock(now_us: u64, is_kept: bool) -> Finding {
    let about = "clock";
    if now_us < NOT_BEFORE_US {
        let says = "it is years behind: tokens are refused, and versions begin below those that were given before";
        return Finding::fault(
            about,
            says,
            "set it, and let something keep it (chrony, systemd-timesyncd)",
        );
    }
    if is_kept {
        return Finding::fine(about, "systemd-timesyncd keeps it");
    }
    Finding::fine(
        about,
        "plausible; whether something keeps it right was not found out (`timedatectl` or `chronyc tracking` says so)",
    )
}

/// This machine's clock beside what the cluster's versions, which follow the fastest clock of its owners, say.
pub(super) fn clock_beside(ceiling_us: u64, now_us: u64) -> Finding {
    let about = "clock";
    let ahead = Duration::from_micros(ceiling_us.saturating_sub(now_us));
    let behind = Duration::from_micros(now_us.saturating_sub(ceiling_us));
    if ahead > CLOCK_AHEAD {
        let says = format!(
            "the cluster's versions run {} s ahead of this machine's clock: that of some owner is or was ahead, or this one is behind",
            ahead.as_secs()
        );
        let todo = "compare the clocks of all nodes; nothing is lost by it, but delays are measured wrongly and tokens may be refused";
        return Finding::warning(about, says, todo);
    }
    if behind > CLOCK_AHEAD {
        let says = format!(
            "the cluster's versions stay {} s behind this machine's clock, which is ahead, or nobody leads",
            behind.as_secs()
        );
        return Finding::warning(about, says, "compare the clocks of all nodes");
    }
    Finding::fine(about, "in step with the cluster's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn descriptors_must_hold_what_is_configured() {
        assert_eq!(descriptors(Some(100_000), 90_000).level, Level::Fine);
        assert_eq!(descriptors(Some(100_000), 90_001).level, Level::Fault);
        assert_eq!(descriptors(Some(65_535), 0).level, Level::Warning);
        assert_eq!(descriptors(None, 1 << 40).level, Level::Fine);
    }

    #[test]
    fn versions_must_fit_into_memory() {
        let mut config = Config::default();
        config.owner.version_table_bytes = 3 << 20;
        let level = |config: &Config| {
            memory("MemFree: 1 kB\nMemTotal:    4096 kB\n", config)
                .expect("a line")
                .level
        };
        assert_eq!(level(&config), Level::Fine);
        config.owner.version_table_bytes += 1;
        assert_eq!(level(&config), Level::Warning);
    }

    #[test]
    fn a_port_that_is_taken_is_a_fault_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let place = taken.local_addr().expect("its address").to_string();
        let found = port("server.listen", &place, false);
        assert_eq!(found.level, Level::Fault);
        assert!(
            found.says.contains("taken by another program (server.listen)"),
            "{found:?}"
        );
        assert_eq!(port("server.listen", "127.0.0.1:0", false).level, Level::Fine);
        assert_eq!(port("server.node_listen", "192.0.2.1:1", true).level, Level::Fault);
    }

    #[test]
    fn a_clock_beside_the_clusters_may_differ_by_a_minute() {
        let minute = 60_000_000;
        let now = NOT_BEFORE_US;
        assert_eq!(clock_beside(now + minute, now).level, Level::Fine);
        assert_eq!(clock_beside(now + minute + 1_000_000, now).level, Level::Warning);
        assert_eq!(clock_beside(now - minute - 1_000_000, now).level, Level::Warning);
        assert_eq!(clock(now - 1, true).level, Level::Fault);
        assert_eq!(clock(now, false).level, Level::Fine);
    }
}
