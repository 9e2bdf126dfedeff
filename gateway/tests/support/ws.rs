//! WebSockets: a third-party client for what clients do, and frames by hand for what they must not do.

use super::PATIENCE;
use super::ear::Ear;
use super::http::{Answer, Raw};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

/// A client made of a WebSocket library that is not ours.
#[derive(Debug)]
pub(crate) struct Ws {
    pub(crate) socket: WebSocket<TcpStream>,
    packed: bool,
    queue: VecDeque<Value>,
    /// What `hello` said.
    pub(crate) hello: Value,
    /// Code and reason of the server's close frame.
    pub(crate) closed: Option<(u16, String)>,
    next_id: u64,
}

impl Ws {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with(Raw::open(address).stream, "/v1/ws", Some("tidings.v1.json"))
    }

    #[track_caller]
    pub(crate) fn open_packed(address: SocketAddr) -> Self {
        Self::open_with(Raw::open(address).stream, "/v1/ws", Some("tidings.v1.msgpack"))
    }

    #[track_caller]
    pub(crate) fn open_with(stream: TcpStream, target: &str, protocol: Option<&str>) -> Self {
        Self::open_asking(stream, target, protocol, protocol, "")
    }

    /// With a credential in the handshake.
    #[track_caller]
    pub(crate) fn open_bearing(address: SocketAddr, credential: &str) -> Self {
        let (protocol, stream) = (Some("tidings.v1.json"), Raw::open(address).stream);
        Self::open_asking(stream, "/v1/ws", protocol, protocol, credential)
    }

    /// Asks for several protocols and expects one of them.
    #[track_caller]
    pub(crate) fn open_asking(
        stream: TcpStream,
        target: &str,
        asked: Option<&str>,
        protocol: Option<&str>,
        credential: &str,
    ) -> Self {
        let mut request = format!("ws://localhost{target}")
            .into_client_request()
            .expect("a request");
        if !credential.is_empty() {
            let value = http::HeaderValue::from_str(&format!("Bearer {credential}")).expect("a value");
            request.headers_mut().insert("authorization", value);
        }
        if let Some(protocol) = asked {
            let value = http::HeaderValue::from_str(protocol).expect("a protocol");
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        let (socket, response) =
            tokio_tungstenite::tungstenite::client::client(request, stream).expect("the handshake is answered");
        let chosen = response
            .headers()
            .get("sec-websocket-protocol")
            .and_then(|value| value.to_str().ok());
        assert_eq!(chosen, protocol, "the protocol asked for, or none");
        let mut new = Self {
            socket,
            packed: protocol == Some("tidings.v1.msgpack"),
            queue: VecDeque::new(),
            hello: Value::Null,
            closed: None,
            next_id: 1,
        };
        let first = new.hear();
        new.hello = first.get("hello").expect("hello comes first").clone();
        new
    }

    /// Its name, as operators know it.
    pub(crate) fn connection(&self) -> String {
        self.hello["connection"].as_str().expect("a name").to_owned()
    }

    #[track_caller]
    pub(crate) fn say(&mut self, request: &Value) {
        let message = match self.packed {
            true => Message::binary(rmp_serde::to_vec_named(request).expect("MessagePack")),
            false => Message::text(request.to_string()),
        };
        self.socket.send(message).expect("said");
    }

    /// Says something and passes over everything before its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        let mut request = request.clone();
        let id = json!(self.next_id);
        self.next_id += 1;
        request["id"] = id.clone();
        self.say(&request);
        loop {
            let told = self.hear();
            if told["id"] == id {
                return told;
            }
        }
    }

    /// Subscribes and gives the `objects` of the answer.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, objects: &[impl AsRef<str>]) -> Value {
        self.subscribe_with(objects, None)
    }

    #[track_caller]
    pub(crate) fn subscribe_with(&mut self, objects: &[impl AsRef<str>], cursor: Option<&str>) -> Value {
        let objects: Vec<_> = objects.iter().map(AsRef::as_ref).collect();
        let mut subscribe = json!({ "objects": objects });
        if let Some(cursor) = cursor {
            subscribe["cursor"] = cursor.into();
        }
        let mut answer = self.ask(&json!({ "subscribe": subscribe }));
        answer["subscribed"]["objects"].take()
    }

    /// Reads to the end; gives the close frame's code, if there was one.
    #[track_caller]
    pub(crate) fn read_to_the_end(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut told = Vec::new();
        while let Some(next) = self.next() {
            told.push(next);
        }
        (told, self.closed.as_ref().map(|(code, _)| *code))
    }

    #[track_caller]
    fn message(&mut self, message: &Message) {
        let values: Vec<Value> = match message {
            Message::Text(text) if !self.packed => text
                .lines()
                .map(|line| serde_json::from_str(line).expect("a line is JSON"))
                .collect(),
            Message::Binary(bytes) if self.packed => {
                vec![rmp_serde::from_slice(bytes).expect("a frame is MessagePack")]
            }
            Message::Close(frame) => {
                self.closed = frame
                    .as_ref()
                    .map(|frame| (frame.code.into(), frame.reason.to_string()));
                return;
            }
            Message::Ping(_) | Message::Pong(_) => return,
            other => panic!("a frame of the wrong kind: {other:?}"),
        };
        assert!(values.iter().all(Value::is_object), "{values:?}");
        self.queue.extend(values);
    }
}

impl Ear for Ws {
    #[track_caller]
    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(told) = self.queue.pop_front() {
                return Some(told);
            }
            match self.socket.read() {
                Ok(message) => self.message(&message),
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => return None,
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    panic!("nothing was told within {PATIENCE:?}")
                }
                Err(Error::Io(_)) => return None,
                Err(error) => panic!("the server's frames make no sense: {error}"),
            }
        }
    }
}

/// A WebSocket whose frames are written by hand.
#[derive(Debug)]
pub(crate) struct RawWs {
    pub(crate) raw: Raw,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk::<2>()?;
        (self.first == 0x88).then(|| u16::from_be_bytes(*code))
    }
}

/// A client's frame: `first` is the byte with the final bit and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl RawWs {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        let (new, answer) = Self::handshake(Raw::open(address), "");
        assert_eq!(answer.status, 101);
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        new
    }

    /// With more header lines.
    #[track_caller]
    pub(crate) fn handshake(mut raw: Raw, headers: &str) -> (Self, Answer) {
        raw.send(format!("{HANDSHAKE}{headers}\r\n"));
        let answer = raw.head().expect("an answer");
        (Self { raw }, answer)
    }

    pub(crate) fn say(&mut self, request: &Value) {
        self.raw.send(frame(0x81, request.to_string().as_bytes()));
    }

    /// The next frame; `None` at the end.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let head = self.raw.exactly(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.raw.exactly(2)?.try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.raw.exactly(8)?.try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        let payload = self.raw.exactly(usize::try_from(length).expect("a length"))?;
        Some(Frame {
            first: head[0],
            payload,
        })
    }

    /// Reads to the end; the code of the close frame, if there was one.
    #[track_caller]
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.first == 0x88 {
                code = frame.close_code();
            }
        }
        code
    }
}

impl Ear for RawWs {
    /// The text frames, one line at a time is not needed: the server joins lines only where this reads them apart.
    #[track_caller]
    fn next(&mut self) -> Option<Value> {
        loop {
            let frame = RawWs::next(self)?;
            match frame.first {
                0x81 => {
                    let text = String::from_utf8(frame.payload).expect("UTF-8");
                    assert_eq!(text.lines().count(), 1, "read by hand, frames hold one line");
                    return Some(serde_json::from_str(&text).expect("JSON"));
                }
                0x88 => return None,
                _ => {}
            }
        }
    }
}
