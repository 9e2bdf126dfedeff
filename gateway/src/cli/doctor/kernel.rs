//! Settings of the kernel that limit a server with many connections. Those that are not there limit nothing.

use super::Finding;

const ABOUT: &str = "kernel";
/// Connections that may wait to be accepted: what the server asks for.
const BACKLOG: u64 = 4_096;
/// What one subscriber's socket takes of the kernel's memory while something is unsent.
const SOCKET_BYTES: u64 = 16_384;
const PAGE_BYTES: u64 = 4_096;

/// All of them. `read` gives the text of a file below `/proc/sys`.
pub(super) fn look(connections: u64, read: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let numbers = |path: &str| -> Option<Vec<u64>> {
        let text = read(path)?;
        text.split_whitespace().map(|word| word.parse().ok()).collect()
    };
    let first = |path: &str| numbers(path)?.first().copied();
    let mut found = Vec::new();
    if let Some(most) = first("net/core/somaxconn") {
        found.push(at_least(
            "net.core.somaxconn",
            most,
            BACKLOG,
            "connections that may wait to be accepted; in a storm of reconnects more than that are thrown away",
        ));
    }
    if let Some(&[_, _, pages]) = numbers("net/ipv4/tcp_mem").as_deref() {
        let wanted = connections.saturating_mul(SOCKET_BYTES) / PAGE_BYTES;
        let says = format!(
            "net.ipv4.tcp_mem: TCP may use {} MiB; {connections} connections with something unsent take {} MiB",
            (pages * PAGE_BYTES) >> 20,
            (wanted * PAGE_BYTES) >> 20
        );
        found.push(if pages >= wanted {
            Finding::fine(ABOUT, says)
        } else {
            let todo = format!(
                "sysctl -w net.ipv4.tcp_mem=\"{} {} {wanted}\" (if the machine has that memory), or a lower limits.connections",
                wanted / 2,
                wanted / 4 * 3
            );
            Finding::warning(ABOUT, says, todo)
        });
    }
    if let Some(&[from, to]) = numbers("net/ipv4/ip_local_port_range").as_deref() {
        let ports = to.saturating_sub(from) + 1;
        let says = format!(
            "net.ipv4.ip_local_port_range: {ports} ports; a proxy on this machine can open so many connections to one address"
        );
        found.push(if ports >= 28_000 {
            Finding::fine(ABOUT, says)
        } else {
            Finding::warning(ABOUT, says, "sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"")
        });
    }
    if let Some(most) = first("net/netfilter/nf_conntrack_max") {
        found.push(at_least(
            "net.netfilter.nf_conntrack_max",
            most,
            connections.saturating_add(connections / 4),
            "connections that the firewall can follow; packets of more are dropped",
        ));
    }
    if let Some(most) = first("fs/nr_open") {
        found.push(at_least(
            "fs.nr_open",
            most,
            connections,
            "descriptors that one process can be allowed to open",
        ));
    }
    found
}

fn at_least(name: &str, is: u64, wanted: u64, what: &str) -> Finding {
    let says = format!("{name} = {is}: {what}");
    if is >= wanted {
        Finding::fine(ABOUT, says)
    } else {
        Finding::warning(ABOUT, says, format!("sysctl -w {name}={wanted}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    fn levels(connections: u64, files: &[(&str, &str)]) -> Vec<Level> {
        let read = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        look(connections, read)
            .into_iter()
            .map(|finding| finding.level)
            .collect()
    }

    #[test]
    fn each_setting_is_fine_at_what_is_wanted_and_a_warning_one_below() {
        for (path, enough, less) in [
            ("net/core/somaxconn", "4096\n", "4095\n"),
            ("net/ipv4/tcp_mem", "1 2 4000\n", "1 2 3999\n"),
            ("net/ipv4/ip_local_port_range", "1 28000\n", "1 27999\n"),
            ("net/netfilter/nf_conntrack_max", "1250\n", "1249\n"),
            ("fs/nr_open", "1000\n", "999\n"),
        ] {
            assert_eq!(levels(1_000, &[(path, enough)]), [Level::Fine], "{path}");
            assert_eq!(levels(1_000, &[(path, less)]), [Level::Warning], "{path}");
        }
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_not_spoken_of() {
        assert_eq!(
            levels(
                1_000,
                &[("net/core/somaxconn", "many\n"), ("net/ipv4/tcp_mem", "1 2\n")]
            ),
            []
        );
    }
}
