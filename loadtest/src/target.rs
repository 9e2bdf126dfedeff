//! Which servers to drive: from what was typed to addresses that answer.

use crate::clock;
use crate::http::Client;
use crate::messages::Target;
use std::io::{Read as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// A server is given so long to vouch for a moment; usually it takes a quarter of a second.
const SETTLED_US: u64 = 1_500_000;
/// So often it is asked whether a server has settled.
const ROUNDS: usize = 20;

/// Reads `http://host:port`.
pub(crate) fn parse(text: &str) -> Result<Target, String> {
    let wrong = |why: &str| format!("--target {text}: {why}; a target looks like http://127.0.0.1:7400");
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    match scheme {
        "http" | "ws" => {}
        "https" | "wss" => return Err(wrong("TLS is not spoken here, measure behind the proxy")),
        _ => return Err(wrong("this is not an http:// address")),
    }
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("this is not a host and port"));
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
    let address = addresses.next().ok_or_else(|| wrong("this name has no address"))?;
    let host = host.to_owned();
    Ok(Target { address, host })
}

/// Whether a fit Tidings server answers there; its version as it says it.
pub(crate) fn ask(target: &Target) -> Result<String, String> {
    let at = format!("http://{}", target.host);
    let mut client = Client::connect(target.address, &target.host, PATIENCE)
        .map_err(|error| format!("no server answers at {at}: {error}"))?;
    let (status, body) = client
        .get("/readyz")
        .map_err(|error| format!("{at} does not answer HTTP requests: {error}"))?;
    match status {
        200 => {}
        503 => {
            let why = String::from_utf8_lossy(&body);
            return Err(format!("the server at {at} is not ready: {why}"));
        }
        _ => {
            return Err(format!(
                "what answers at {at} is no Tidings server (/readyz gave status {status})"
            ));
        }
    }
    let version = client.get("/openapi.json").ok().and_then(|(_, body)| {
        let document: serde_json::Value = serde_json::from_slice(&body).ok()?;
        Some(format!("tidings {}", document["info"]["version"].as_str()?))
    });
    Ok(version.unwrap_or_else(|| "tidings".to_owned()))
}

/// Waits until every thread of a server that may just have started vouches for all that came before: who comes earlier
/// may be told to fetch what it asks for, which is not what a run is about.
pub(crate) fn settle(target: &Target) {
    let Some((threads, floor)) = threads_and_floor(target) else {
        return;
    };
    // Floors and versions are times of day.
    let settled_us = (floor + SETTLED_US).min(clock::unix_us() + SETTLED_US);
    let left_us = settled_us.saturating_sub(clock::unix_us());
    std::thread::sleep(Duration::from_micros(left_us));
    for _ in 0..ROUNDS {
        // Connections are dealt out to the threads in turn.
        let listeners = (0..2 * threads).map(|_| {
            let target = target.clone();
            std::thread::spawn(move || is_told_to_fetch(&target).unwrap_or(false))
        });
        let listeners: Vec<_> = listeners.collect();
        let told = listeners.into_iter().filter_map(|one| one.join().ok());
        if !told.collect::<Vec<_>>().contains(&true) {
            return;
        }
    }
}

/// How many threads a server has, and up to which version it vouches for nothing.
fn threads_and_floor(target: &Target) -> Option<(u64, u64)> {
    let mut client = Client::connect(target.address, &target.host, PATIENCE).ok()?;
    let (_, body) = client.get("/v1/cluster").ok()?;
    let cluster: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let threads = cluster["nodes"][0]["threads"].as_u64()?.clamp(1, 64);
    let shards = cluster["shards"].as_array()?;
    let floors = shards.iter().filter_map(|shard| shard["floor"].as_u64());
    Some((threads, floors.max().unwrap_or(0)))
}

/// Whether a new listener is told to fetch before it is given its first cursor.
fn is_told_to_fetch(target: &Target) -> std::io::Result<bool> {
    let mut stream = std::net::TcpStream::connect_timeout(&target.address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let host = &target.host;
    write!(
        stream,
        "GET /v1/events?object=settling HTTP/1.1\r\nHost: {host}\r\n\r\n"
    )?;
    let (mut heard, mut piece) = (String::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut piece)?;
        heard.push_str(&String::from_utf8_lossy(&piece[..read]));
        if heard.contains("event: resync") {
            return Ok(true);
        }
        // Something that gives no cursors is no Tidings server: that is for others to say.
        if read == 0 || heard.contains("\nid:") || !heard.starts_with("HTTP/1.1 200") || heard.contains("Length:") {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_people_type_them() {
        for (text, address, host) in [
            ("http://127.0.0.1:7400", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("127.0.0.1:7400/", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://[::1]:7400", "[::1]:7400", "[::1]:7400"),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1"),
        ] {
            let target = parse(text).expect("a target");
            assert_eq!(
                (target.address.to_string().as_str(), target.host.as_str()),
                (address, host)
            );
        }
        for wrong in ["", "https://x:1", "ftp://x", "http://a/b", "http://a b:1"] {
            let told = parse(wrong).expect_err("no target");
            assert!(told.contains("looks like http://127.0.0.1:7400"), "{told}");
        }
    }
}
