//! `tidings doctor`: what this machine can give, in plain words.
//!
//! It writes a file of its own into the data directory and removes it again; a server may be running there.

use crate::config::Config;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the disk is asked to make something durable.
const SYNCS: usize = 50;

/// Looks at the machine and says what it means.
///
/// # Errors
/// If the data directory cannot be written.
pub fn report(config: &Config) -> Result<String, String> {
    let mut text = String::new();
    // Writing to a String does not fail; so everywhere below.
    match config.data_dir() {
        None => {
            _ = writeln!(
                text,
                "data directory: none. Everything is kept in memory only; `ack=durable` is refused."
            )
        }
        Some(path) => {
            let taken = syncs(&path).map_err(|error| format!("cannot write to {}: {error}", path.display()))?;
            disk(&mut text, &path, &taken);
        }
    }
    descriptors(&mut text);
    Ok(text)
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

fn disk(text: &mut String, folder: &Path, taken: &[Duration]) {
    let at = |share: usize| taken.get(taken.len() * share / 100).copied().unwrap_or_default();
    let (median, slow) = (at(50), at(99));
    let a_second = 1.0 / median.as_secs_f64().max(1e-9);
    _ = writeln!(
        text,
        "data directory: {}\n  a sync of 4 KiB takes {:.2} ms (median) and {:.2} ms (1 in 100), over {SYNCS} of them.\n  \
         One publisher that waits for each `ack=durable` gets about {a_second:.0} a second; many at once share each sync.",
        folder.display(),
        median.as_secs_f64() * 1e3,
        slow.as_secs_f64() * 1e3,
    );
    if median < Duration::from_micros(50) {
        _ = writeln!(
            text,
            "  That is faster than disks are: this is memory, or a disk that does not wait. `durable` may not survive a power cut."
        );
    } else if median > Duration::from_millis(20) {
        _ = writeln!(
            text,
            "  That is slow: publishers that need `durable` should send batches."
        );
    }
    let place = if folder.exists() { folder } else { Path::new(".") };
    if let Ok(system) = rustix::fs::statvfs(place) {
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let objects = free / 36 / 1_000_000;
        _ = writeln!(
            text,
            "  {} MiB are free: room for about {objects} million objects.",
            free >> 20
        );
    }
}

fn descriptors(text: &mut String) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit
        .maximum
        .map_or("any number of".to_owned(), |most| most.to_string());
    _ = writeln!(
        text,
        "descriptors: the process may open {most}; a subscriber takes one, and 90 % of them are given to connections."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_the_latency_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.server.data_dir = folder.path().to_str().expect("text").to_owned();
        let text = report(&config).expect("it can be written");
        assert!(text.contains("a sync of 4 KiB takes"), "{text}");
        assert!(text.contains("descriptors"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
        config.server.data_dir = "none".to_owned();
        assert!(report(&config).expect("nothing is written").contains("in memory only"));
    }
}
