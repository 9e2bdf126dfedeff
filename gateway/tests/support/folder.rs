//! Programs with a data directory, and what is published to them while they may die.

use super::http::send;
use super::{PATIENCE, Program};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cursors come often, so that tests need not wait for them.
pub(crate) const OFTEN: [&str; 4] = ["--limits.ping_ms", "200", "--limits.cursor_ms", "50"];

/// Publishes one change that is synced to disk, and gives its version.
#[track_caller]
pub(crate) fn publish_durable(address: SocketAddr, object: &str) -> u64 {
    let target = format!("/v1/publish?object={object}&ack=durable");
    send(address, "POST", &target, "", b"").ok()["version"]
        .as_u64()
        .expect("a version")
}

/// Serves with this data directory and these further arguments.
#[track_caller]
pub(crate) fn serve_in(folder: &Path, more: &[&str]) -> (Program, SocketAddr) {
    let folder = folder.to_str().expect("text");
    let mut arguments = vec!["--data-dir", folder];
    arguments.extend(OFTEN);
    arguments.extend(more);
    Program::serve(&arguments)
}

/// One publish on a connection that may break at any moment; its version if it was acknowledged.
pub(crate) fn try_publish(stream: &mut TcpStream, object: &str, ack: &str) -> Option<u64> {
    let target = format!("/v1/publish?object={object}&ack={ack}");
    let request = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    let text = String::from_utf8(text).ok()?;
    let body = text.split("\r\n\r\n").nth(1)?;
    serde_json::from_str::<Value>(body).ok()?["version"].as_u64()
}

/// Publishes to 20 objects of its own until told to stop or cut off; gives what was acknowledged.
pub(crate) fn load(address: SocketAddr, number: usize, ack: &str, stop: &AtomicBool) -> HashMap<String, u64> {
    let mut acked = HashMap::new();
    let Ok(mut stream) = TcpStream::connect(address) else {
        return acked;
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for change in 0.. {
        let object = format!("load-{number}-{}", change % 20);
        match try_publish(&mut stream, &object, ack) {
            Some(version) => _ = acked.insert(object, version),
            None => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acked
}

/// A mounted file system, unmounted at the end.
#[derive(Debug)]
pub(crate) struct Mount(pub(crate) PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because the program that uses it may end a little later.
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
