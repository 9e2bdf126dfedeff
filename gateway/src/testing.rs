//! For tests: a node in this process, and a client that writes bytes as they are.

use crate::config::Config;
use crate::{Node, RunningNode};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A node of two threads on a free port.
pub(crate) fn node(change: impl FnOnce(&mut Config)) -> RunningNode {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = "none".to_owned();
    change(&mut config);
    Node::start(config).expect("the node starts")
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The code of a problem document.
    pub(crate) fn code(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{document}");
        document["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection that sends what it is told to.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("sent");
    }

    /// The next answer; `None` if the server closed instead.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let head = String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        Some(Answer { status, head, body })
    }

    /// Whether the server closes within the read timeout without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut raw = Raw::open(address);
    raw.send(request.as_bytes());
    raw.answer().expect("an answer")
}

/// `POST` with these header lines (each with its line end) and body.
pub(crate) fn post(address: SocketAddr, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut raw = Raw::open(address);
    raw.send(
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    raw.send(body);
    raw.answer().expect("an answer")
}
