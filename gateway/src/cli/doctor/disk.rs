//! The disk of the data directory: how long it takes to make a change durable, what it is, and what is left of it.

use super::Finding;
use crate::config::Config;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

const ABOUT: &str = "disk";
/// How often the disk is asked to make something durable.
const SYNCS: usize = 50;
/// Bytes of an object on disk, its part of the log and of a snapshot that replaces another.
const OBJECT_BYTES: u64 = 36;

/// All of it.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let Some(path) = config.data_dir() else {
        let says = "none is used: everything is kept in memory only, `ack=durable` is refused, and a restart tells everybody to \
                    fetch again";
        return vec![Finding::warning(
            ABOUT,
            says,
            "set server.data_dir, unless that is meant",
        )];
    };
    let place = path.display();
    let taken = match syncs(&path) {
        Ok(taken) => taken,
        Err(error) => {
            let todo = "let the user that runs Tidings write there, or set server.data_dir";
            return vec![Finding::fault(ABOUT, format!("cannot write to {place}: {error}"), todo)];
        }
    };
    let mut found = vec![latency(&place.to_string(), &taken)];
    let there = if path.exists() { &path } else { Path::new(".") };
    if let Ok(system) = rustix::fs::statvfs(there) {
        found.push(space(system.f_bavail.saturating_mul(system.f_frsize), config));
    }
    if let (Ok(mounts), Ok(real)) = (std::fs::read_to_string("/proc/self/mounts"), there.canonicalize()) {
        found.extend(file_system(&mounts, &real));
    }
    found
}

/// How long each of some syncs took, shortest first.
fn syncs(folder: &Path) -> io::Result<Vec<Duration>> {
    let is_new = !folder.exists();
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("doctor-{}.unfinished", std::process::id()));
    let result = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .and_then(|mut file| measure(&mut file));
    let removed = std::fs::remove_file(&path);
    if is_new {
        // It may not be empty any more.
        _ = std::fs::remove_dir(folder);
    }
    let mut taken = result?;
    // A server that starts meanwhile takes it for its own and removes it.
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    taken.sort();
    Ok(taken)
}

fn measure(file: &mut File) -> io::Result<Vec<Duration>> {
    let mut taken = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begin = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        taken.push(begin.elapsed());
    }
    Ok(taken)
}

fn latency(place: &str, taken: &[Duration]) -> Finding {
    let at = |share: usize| taken.get(taken.len() * share / 100).copied().unwrap_or_default();
    let (median, slow) = (at(50), at(99));
    let a_second = 1.0 / median.as_secs_f64().max(1e-9);
    let says = format!(
        "a sync of 4 KiB in {place} takes {:.2} ms (median) and {:.2} ms (1 in 100). One publisher that waits for each \
         `ack=durable` gets about {a_second:.0} a second; many at once share each sync",
        median.as_secs_f64() * 1e3,
        slow.as_secs_f64() * 1e3,
    );
    if median < Duration::from_micros(50) {
        let todo = "find out whether the disk, or what stands before it, keeps what it says it has written";
        let says = format!("{says}. That is faster than disks are: `durable` may not survive a power cut");
        Finding::warning(ABOUT, says, todo)
    } else if median > Duration::from_millis(20) {
        Finding::warning(
            ABOUT,
            says,
            "publishers that need `durable` should send batches; or use a faster disk",
        )
    } else {
        Finding::fine(ABOUT, says)
    }
}

fn space(free: u64, config: &Config) -> Finding {
    // The log, and snapshots beside those they replace.
    let wanted = config.storage.log_bytes.saturating_mul(2);
    let says = format!(
        "{} MiB are free: room for about {} million objects",
        free >> 20,
        free / OBJECT_BYTES / 1_000_000
    );
    if free < wanted {
        let todo = format!("make room: the log alone may grow to {} MiB and more", wanted >> 20);
        Finding::fault(ABOUT, says, todo)
    } else {
        Finding::fine(ABOUT, says)
    }
}

/// Those on which something that Tidings needs does not hold.
fn file_system(mounts: &str, place: &Path) -> Option<Finding> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        place.starts_with(at).then_some((at.len(), kind))
    });
    // The innermost holds the folder; of two at one place the later.
    let (_, kind) = mounts.max_by_key(|(length, _)| *length)?;
    let says = match kind {
        "tmpfs" | "ramfs" => "it is memory: what is there is gone when the machine is",
        "overlay" | "aufs" => "it is the layer of a container: what is there is gone when the container is",
        _ if kind.starts_with("nfs") || kind == "cifs" || kind.starts_with("fuse") => {
            "a copy that is put back is not recognised there, and locks and syncs may not hold"
        }
        _ => return Some(Finding::fine(ABOUT, format!("the file system is {kind}"))),
    };
    let todo = "put server.data_dir on a local disk (ext4, XFS, btrfs) or a volume";
    Some(Finding::warning(
        ABOUT,
        format!("the file system is {kind}: {says}"),
        todo,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn the_latency_is_named_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.server.data_dir = folder.path().to_str().expect("text").to_owned();
        let found = look(&config);
        assert!(found[0].says.contains("a sync of 4 KiB"), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
        config.server.data_dir = "none".to_owned();
        assert_eq!(look(&config)[0].level, Level::Warning);
        config.server.data_dir = "/proc/nowhere".to_owned();
        assert_eq!(look(&config)[0].level, Level::Fault);
    }

    #[test]
    fn syncs_that_are_too_fast_or_too_slow_are_warned_of() {
        let level = |micros| latency("x", &[Duration::from_micros(micros); 50]).level;
        assert_eq!(
            [49, 50, 20_000, 20_001].map(level),
            [Level::Warning, Level::Fine, Level::Fine, Level::Warning]
        );
    }

    #[test]
    fn too_little_room_is_a_fault() {
        let config = Config::default();
        let enough = config.storage.log_bytes * 2;
        assert_eq!(space(enough, &config).level, Level::Fine);
        assert_eq!(space(enough - 1, &config).level, Level::Fault);
    }

    #[test]
    fn the_innermost_file_system_counts() {
        let mounts = "a / ext4 rw 0 0\nb /var tmpfs rw 0 0\nc /var/lib nfs4 rw 0 0\nd /variable xfs rw 0 0\n";
        let kind = |place: &str| file_system(mounts, Path::new(place)).expect("one").says;
        assert!(kind("/home").contains("ext4"));
        assert!(kind("/var/x").contains("tmpfs: it is memory"));
        assert!(kind("/var/lib/tidings").contains("nfs4: a copy"));
        assert!(kind("/variable/x").contains("xfs"));
    }
}
