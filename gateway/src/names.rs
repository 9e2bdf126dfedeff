//! Names into addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The C library does the same by plugins that it loads while the program runs, which a static program has not. So that every
//! build finds the same addresses, none of them asks it. Both files are read anew for each question, and no answer is kept.

use domain::base::Name;
use domain::base::name::{RelativeName, UncertainName};
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::ResolvConf;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A question is given up after so long, over all name servers and suffixes.
const PATIENCE: Duration = Duration::from_secs(10);
/// No longer file is read.
const FILE_BYTES: u64 = 1 << 20;

/// Where it is written down how to find names.
#[derive(Clone, Debug)]
struct Places {
    hosts: PathBuf,
    servers: PathBuf,
    /// Of the name servers.
    port: u16,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            servers: "/etc/resolv.conf".into(),
            port: 53,
        }
    }
}

/// All addresses of `host:port`, IPv4 first; at least one.
///
/// # Errors
/// If it is not such a text, or no address is known, or nobody who knows answers.
pub async fn look_up(target: &str) -> io::Result<Vec<SocketAddr>> {
    look_up_in(&Places::default(), target).await
}

/// The same for a caller that may block.
///
/// # Errors
/// As [`look_up`].
pub fn look_up_blocking(target: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = target.parse() {
        return Ok(vec![address]);
    }
    // A thread of its own: the caller may be inside a runtime.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(look_up(target))
        });
        asking
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("looking it up failed")))
    })
}

async fn look_up_in(places: &Places, target: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = target.parse() {
        return Ok(vec![address]);
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a host and port");
    let (host, port) = target.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let mut addresses = of_host(places, host).await?;
    // In the order in which they came, apart from that.
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

async fn of_host(places: &Places, host: &str) -> io::Result<Vec<IpAddr>> {
    let written = in_hosts(&read(places.hosts.clone()).await.unwrap_or_default(), host);
    if !written.is_empty() {
        return Ok(written);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let servers = read(places.servers.clone()).await.unwrap_or_default();
    let mut known = configuration(&servers);
    known
        .servers
        .iter_mut()
        .for_each(|server| server.addr.set_port(places.port));
    match tokio::time::timeout(PATIENCE, ask(known, host)).await {
        Ok(found) => found,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answers")),
    }
}

async fn read(path: PathBuf) -> io::Result<String> {
    let length = tokio::fs::metadata(&path).await?.len();
    if length > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long"));
    }
    let bytes = tokio::fs::read(path).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The addresses of all lines with this name.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else {
            continue;
        };
        if words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// What resolv.conf says. Lines that make no sense are left out, as everybody does who reads that file.
fn configuration(text: &str) -> ResolvConf {
    let mut known = ResolvConf::new();
    for line in text.lines() {
        if let Err(error) = known.parse(&mut line.as_bytes()) {
            tracing::debug!(line, %error, "a line of /etc/resolv.conf is not understood");
        }
    }
    known.finalize();
    known
}

async fn ask(known: ResolvConf, host: &str) -> io::Result<Vec<IpAddr>> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "not a name");
    let name: UncertainName<Vec<u8>> = host.parse().map_err(wrong)?;
    let dots = host.trim_end_matches('.').matches('.').count();
    let resolver = StubResolver::from_conf(known);
    let relative = match name {
        UncertainName::Absolute(name) => return some(absolute(&resolver, &name).await?),
        UncertainName::Relative(name) => name,
    };
    // With enough dots it is most likely whole.
    if dots >= resolver.options().ndots
        && let Ok(name) = whole(&relative)
        && let Ok(found) = absolute(&resolver, &name).await
        && !found.is_empty()
    {
        return Ok(found);
    }
    let found = resolver.search_host(&relative).await?;
    some(found.iter().collect())
}

fn whole(name: &RelativeName<Vec<u8>>) -> Result<Name<Vec<u8>>, impl std::error::Error + use<>> {
    name.clone().into_absolute()
}

async fn absolute(resolver: &StubResolver, name: &Name<Vec<u8>>) -> io::Result<Vec<IpAddr>> {
    Ok(resolver.lookup_host(name).await?.iter().collect())
}

fn some(found: Vec<IpAddr>) -> io::Result<Vec<IpAddr>> {
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
