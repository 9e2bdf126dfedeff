//! HTTP/1.1 by hand: what is sent is exactly what a test says.

use super::PATIENCE;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A connection that sends what it is told to.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffered: Vec<u8>,
    /// The body being read is chunked.
    chunked: bool,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {}", self.text()))
    }

    /// The body of an answer that must be good.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The code of a problem document, which must be well formed.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let document = self.json();
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{document}"
        );
        assert_eq!(document["status"], self.status, "{document}");
        for field in ["type", "title", "detail"] {
            assert!(
                document[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {document}"
            );
        }
        assert!(document["retryable"].is_boolean(), "{document}");
        document["code"].as_str().expect("a code").to_owned()
    }
}

impl Raw {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("connected"))
    }

    /// With a receive buffer as small as the system allows.
    pub(crate) fn open_small(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(2048).expect("a small buffer");
        socket.connect(&address.into()).expect("connected");
        Self::over(socket.into())
    }

    /// From another address of this machine.
    pub(crate) fn open_from(from: std::net::IpAddr, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .expect("an address of this machine");
        socket.connect(&address.into()).expect("connected");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            buffered: Vec::new(),
            chunked: false,
        }
    }

    /// The same connection once more, for another thread. What was read and not used stays with the first.
    pub(crate) fn twin(&self) -> Self {
        let stream = self.stream.try_clone().expect("a second handle");
        Self {
            stream,
            buffered: Vec::new(),
            chunked: false,
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Sends what the other side will still take; a connection that was closed meanwhile is no failure.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn half_close(&self) {
        // The other side may have gone first.
        _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("no linger");
    }

    /// Reads more; `false` at the end of the connection.
    #[track_caller]
    pub(crate) fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.buffered.extend_from_slice(&piece[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    return false;
                }
                Err(error) => panic!("nothing came within {PATIENCE:?}: {error}"),
            }
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        self.buffered.drain(..count).collect()
    }

    /// The next `count` bytes; `None` if the connection ends before.
    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffered.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.take(count))
    }

    /// Everything up to and with `mark`; `None` if the connection ends before.
    #[track_caller]
    pub(crate) fn up_to(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        let mut from = 0;
        loop {
            let found = self.buffered[from..]
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = found {
                return Some(self.take(from + at + mark.len()));
            }
            from = self.buffered.len().saturating_sub(mark.len() - 1);
            if !self.fill() {
                return None;
            }
        }
    }

    /// Everything until the server closes.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffered)
    }

    /// The head of an answer; `None` if the connection ends instead.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.up_to(b"\r\n\r\n")?).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status");
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        self.chunked = answer.header("transfer-encoding") == Some("chunked");
        Some(answer)
    }

    /// The next piece of a body without a length; `None` at its end.
    #[track_caller]
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        if !self.chunked {
            if self.buffered.is_empty() && !self.fill() {
                return None;
            }
            return Some(std::mem::take(&mut self.buffered));
        }
        let line = self.up_to(b"\r\n")?;
        let line = std::str::from_utf8(&line).expect("a chunk's size is text").trim();
        let size = usize::from_str_radix(line, 16).expect("a chunk's size");
        let mut piece = self.exactly(size + 2)?;
        piece.truncate(size);
        (size > 0).then_some(piece)
    }

    /// The next answer; `None` if the server closes instead.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        if matches!(answer.status, 100..=199 | 204 | 304) {
            return Some(answer);
        }
        match answer
            .header("content-length")
            .map(|length| length.parse().expect("a length"))
        {
            Some(length) => answer.body = self.exactly(length)?,
            None => {
                while let Some(piece) = self.piece() {
                    answer.body.extend_from_slice(&piece);
                }
            }
        }
        Some(answer)
    }

    /// Whether the server closes without another byte.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffered.is_empty() && !self.fill()
    }
}

/// One request on a connection of its own. `headers` are whole lines with their ends.
#[track_caller]
pub(crate) fn send(address: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut raw = Raw::open(address);
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    raw.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n"
    ));
    // A server that refuses a body by its length need not read it.
    raw.try_send(body);
    raw.answer().expect("an answer")
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, "GET", target, "", b"")
}

#[track_caller]
pub(crate) fn delete(address: SocketAddr, target: &str) -> Answer {
    send(address, "DELETE", target, "", b"")
}

#[track_caller]
pub(crate) fn post(address: SocketAddr, target: &str, kind: &str, body: &[u8]) -> Answer {
    send(address, "POST", target, &format!("Content-Type: {kind}\r\n"), body)
}

#[track_caller]
pub(crate) fn post_json(address: SocketAddr, target: &str, body: &Value) -> Answer {
    post(address, target, "application/json", body.to_string().as_bytes())
}
