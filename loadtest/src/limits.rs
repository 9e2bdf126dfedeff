//! What this machine lets one process do: descriptors and ports, and what to do when they run out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Descriptors that a generating process needs besides its connections.
const BESIDES: u64 = 64;

/// How many descriptors this process may open, after asking for as many as it may have.
pub(crate) fn descriptors() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    // A limit that cannot be raised stays what it is.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Says why so many connections do not fit into so many processes, and how many would.
pub(crate) fn check(connections: u64, processes: u64, limit: u64) -> Result<(), String> {
    let room = limit.saturating_sub(BESIDES);
    let each = connections.div_ceil(processes.max(1));
    if each <= room {
        return Ok(());
    }
    let fit = if room == 0 { 0 } else { connections.div_ceil(room) };
    Err(format!(
        "{connections} connections do not fit: a process may open {limit} descriptors (ulimit -n), and {processes} \
         {} would need {each} each; use --processes {fit}, or raise the limit",
        if processes == 1 { "process" } else { "processes" },
    ))
}

/// Whether a connection could not be begun for want of descriptors or ports.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS];
    known
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The same for people.
pub(crate) fn explain(error: &io::Error, open: usize) -> String {
    use rustix::io::Errno;
    if error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) {
        return format!(
            "no port is left for connection {}: {error}. A client address has some 28,000 ports \
             (net.ipv4.ip_local_port_range) for each server address; use several --target, or a server on 127.0.0.1, \
             where source addresses are spread",
            open + 1
        );
    }
    format!(
        "connection {} cannot be opened: {error} (ulimit -n); use more --processes",
        open + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_what_would() {
        assert!(check(19_000, 1, 20_000).is_ok());
        assert!(check(100_000, 6, 20_000).is_ok());
        let told = check(100_000, 2, 20_000).expect_err("too many");
        assert!(
            told.contains("--processes 6") && told.contains("20000 descriptors"),
            "{told}"
        );
    }
}
