//! Where to look for the cluster: the entries of `cluster.join` as addresses.
//!
//! An entry is `host:port`, whose name may have many addresses, or `@FILE` with such an entry a line. How names are looked up
//! comes in as [`Names`].

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The addresses of a name, once they are found.
type Found = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Looks the addresses of one `host:port` up.
#[derive(Clone)]
pub struct Names(Arc<dyn Fn(String) -> Found + Send + Sync>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// As this machine's files say: see [`crate::names`].
    #[must_use]
    pub fn of_the_system() -> Self {
        Self::new(|name| async move { crate::names::look_up(&name).await }.boxed())
    }

    /// By this.
    pub(super) fn new(look_up: impl Fn(String) -> Found + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }
}

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
pub(super) async fn look_up(names_of: &Names, join: &[String]) -> Vec<SocketAddr> {
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
        match names_of.0(name.clone()).await {
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
        let found: Vec<String> = look_up(&Names::of_the_system(), &join)
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["127.0.0.1:7401", "127.0.0.3:7401", "[::1]:9"]);
    }

    #[tokio::test]
    async fn a_name_has_as_many_addresses_as_it_resolves_to_and_no_more_than_are_tried() {
        let names = Names::new(|name| {
            async move {
                let address =
                    |number: u16| SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8], 7401));
                match name.as_str() {
                    "three.test:7401" => Ok([3, 1, 2, 3].map(address).to_vec()),
                    "many.test:7401" => Ok((0..MOST as u16 + 1).map(address).collect()),
                    _ => Err(io::ErrorKind::NotFound.into()),
                }
            }
            .boxed()
        });
        let found = |join: &[&str]| {
            let join: Vec<String> = join.iter().map(|&name| name.to_owned()).collect();
            let names = names.clone();
            async move { look_up(&names, &join).await }
        };
        let three = found(&["gone.test:7401", "three.test:7401"]).await;
        let three: Vec<String> = three.iter().map(ToString::to_string).collect();
        assert_eq!(three, ["10.0.0.1:7401", "10.0.0.2:7401", "10.0.0.3:7401"]);
        assert_eq!(found(&["many.test:7401", "three.test:7401"]).await.len(), MOST);
        assert!(found(&["gone.test:7401"]).await.is_empty());
    }
}
