//! The opening handshake (RFC 6455, section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};
use std::fmt::Write as _;

/// The subprotocol of Tidings in JSON.
pub const SUBPROTOCOL: &str = "tidings.v1.json";
/// The longest head of an answer that is read.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client proves by that the answer is meant for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// From random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(BASE64.encode(random))
    }

    /// The answer's `Sec-WebSocket-Accept`.
    fn accept(&self) -> String {
        BASE64.encode(Sha1::new().chain_update(&self.0).chain_update(GUID).finalize())
    }
}

/// The upgrade was accepted: frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many bytes the answer takes. What follows them are frames.
    pub length: usize,
    /// The server speaks the subprotocol asked for; else it chose none.
    pub subprotocol: bool,
}

/// Why there is no WebSocket. **Nothing was subscribed.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The server refused with a status of HTTP.
    #[error("the server refused the WebSocket with status {status}")]
    Refused {
        /// The status.
        status: u16,
        /// When to come back, in seconds.
        retry_after_s: Option<u64>,
        /// How many bytes the head takes. What follows them is the body, e.g. a problem document.
        length: usize,
        /// How long the body is, if the server says.
        body: Option<usize>,
    },
    /// The answer is no answer to a WebSocket.
    #[error("no WebSocket server answers: {0}")]
    NoWebSocket(&'static str),
    /// The request cannot be written: a text of it has control characters.
    #[error("a header or address with control characters")]
    Text,
}

/// Appends the request. `authority` is the server's `host:port`, `target` the path with its query; `headers` come in addition.
///
/// # Errors
/// If a text has control characters; nothing is appended then.
pub fn handshake(
    out: &mut Vec<u8>,
    authority: &str,
    target: &str,
    key: &Key,
    headers: &[(&str, &str)],
) -> Result<(), HandshakeError> {
    let texts = headers.iter().flat_map(|(name, value)| [*name, *value]);
    if texts
        .chain([authority, target])
        .any(|text| text.contains(char::is_control))
        || target.contains(' ')
    {
        return Err(HandshakeError::Text);
    }
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n",
        key.0
    );
    for (name, value) in headers {
        _ = write!(head, "{name}: {value}\r\n");
    }
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Reads the answer. `None`: it is not whole yet.
///
/// # Errors
/// If there is no WebSocket to be had.
pub fn read_handshake(bytes: &[u8], key: &Key) -> Result<Option<Accepted>, HandshakeError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(HandshakeError::NoWebSocket("its head does not end")),
        Err(_) => return Err(HandshakeError::NoWebSocket("it does not speak HTTP/1.1")),
    };
    let header = |name: &str| {
        let mut found = response
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        let first = found.next().and_then(|header| std::str::from_utf8(header.value).ok());
        first.map(str::trim)
    };
    let status = response.code.unwrap_or_default();
    if status != 101 {
        return Err(HandshakeError::Refused {
            status,
            retry_after_s: header("retry-after").and_then(|seconds| seconds.parse().ok()),
            length,
            body: header("content-length").and_then(|length| length.parse().ok()),
        });
    }
    if !header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err(HandshakeError::NoWebSocket("it upgrades to something else"));
    }
    let mut options = header("connection").unwrap_or_default().split(',');
    if !options.any(|option| option.trim().eq_ignore_ascii_case("upgrade")) {
        return Err(HandshakeError::NoWebSocket("its connection is not upgraded"));
    }
    if header("sec-websocket-accept") != Some(&*key.accept()) {
        return Err(HandshakeError::NoWebSocket("it answers somebody else"));
    }
    if header("sec-websocket-extensions").is_some_and(|extensions| !extensions.is_empty()) {
        return Err(HandshakeError::NoWebSocket("it uses extensions that nobody asked for"));
    }
    let subprotocol = match header("sec-websocket-protocol") {
        None => false,
        Some(SUBPROTOCOL) => true,
        Some(_) => return Err(HandshakeError::NoWebSocket("it speaks another subprotocol")),
    };
    Ok(Some(Accepted { length, subprotocol }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: tidings.v1.json\r\n\r\n";

    /// The key of RFC 6455's own example.
    fn key() -> Key {
        Key::new(*b"the sample nonce")
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let mut out = Vec::new();
        handshake(&mut out, "localhost:7400", "/v1/ws?trace=1", &key(), &[("A", "b")]).expect("no control characters");
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.starts_with("GET /v1/ws?trace=1 HTTP/1.1\r\nHost: localhost:7400\r\n"),
            "{text}"
        );
        assert!(
            text.contains("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            "{text}"
        );
        assert!(text.ends_with("A: b\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_header_cannot_smuggle_another() {
        let mut out = Vec::new();
        for (name, value) in [("A", "b\r\nHost: x"), ("A\r\nB", "")] {
            let refused = handshake(&mut out, "h", "/", &key(), &[(name, value)]);
            assert_eq!(refused, Err(HandshakeError::Text));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn the_answer_counts_wherever_it_is_cut_and_frames_may_follow_at_once() {
        for cut in 0..ANSWER.len() {
            assert_eq!(read_handshake(&ANSWER.as_bytes()[..cut], &key()), Ok(None), "{cut}");
        }
        let accepted = Accepted {
            length: ANSWER.len(),
            subprotocol: true,
        };
        let more = format!("{ANSWER}\u{1}\u{2}");
        assert_eq!(read_handshake(more.as_bytes(), &key()), Ok(Some(accepted)));
    }

    #[test]
    fn an_answer_to_somebody_else_is_none() {
        for (from, to) in [
            ("s3pP", "S3pP"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Connection: Upgrade", "Connection: close"),
            (".json", ".msgpack"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"),
            ("HTTP/1.1", "SMTP/1.1"),
        ] {
            let answer = ANSWER.replacen(from, to, 1);
            let read = read_handshake(answer.as_bytes(), &key());
            assert!(matches!(read, Err(HandshakeError::NoWebSocket(_))), "{from}: {read:?}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_where_its_body_begins() {
        let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}";
        let refused = HandshakeError::Refused {
            status: 503,
            retry_after_s: Some(7),
            length: answer.len() - 2,
            body: Some(2),
        };
        assert_eq!(read_handshake(answer.as_bytes(), &key()), Err(refused));
    }

    #[test]
    fn a_head_without_end_is_not_read_for_ever() {
        let endless = format!("HTTP/1.1 101 Yes\r\nA: {}", "b".repeat(MAX_HEAD_BYTES));
        assert!(matches!(
            read_handshake(endless.as_bytes(), &key()),
            Err(HandshakeError::NoWebSocket(_))
        ));
    }
}
