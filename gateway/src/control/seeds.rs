//! Where to look for the cluster: the entries of `cluster.join` as addresses.
//!
//! An entry is `host:port`, whose name may have many addresses, or `@FILE` with such an entry a line.

use std::net::SocketAddr;
use std::time::Duration;

/// While nobody is there, names are looked up so often.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// Later.
pub(super) const LATER: Duration = Duration::from_secs(30);

/// More addresses are not tried.
const MOST: usize = 1_024;
/// The longest file of addresses that is read.
const FILE_BYTES: usize = 1 << 20;

/// The entries of a file: one a line, without empty ones and those that begin with `#`.
fn lines(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
}

/// All addresses that are found now, in order. What cannot be looked up is left out and said.
pub(super) async fn look_up(join: &[String]) -> Vec<SocketAddr> {
    let mut names = Vec::new();
    for entry in join {
        match entry.strip_prefix('@') {
            None => names.push(entry.clone()),
            Some(file) => match tokio::fs::read_to_string(file).await {
                Ok(text) if text.len() <= FILE_BYTES => names.extend(lines(&text)),
                Ok(_) => tracing::warn!(file, "a file of cluster.join is too long"),
                Err(error) => tracing::warn!(file, %error, "a file of cluster.join cannot be read"),
            },
        }
    }
    let mut found = Vec::new();
    for name in names {
        match tokio::net::lookup_host(&name).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::debug!(name, %error, "a name of cluster.join has no address now"),
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_are_names_addresses_and_files_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodes");
        std::fs::write(&file, "# the others\n 127.0.0.3:7401 \n\n127.0.0.1:7401\n").unwrap();
        let join = [
            "127.0.0.1:7401".to_owned(),
            format!("@{}", file.display()),
            "no such name:1".to_owned(),
            "@/no/such/file".to_owned(),
            "[::1]:9".to_owned(),
        ];
        let found: Vec<String> = look_up(&join).await.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1:7401", "127.0.0.3:7401", "[::1]:9"]);
    }
}
