//! What passes between clients and lanes: requests one way; frames, blocks and answers the other, read from the very bytes
//! that a lane wrote.
//!
//! It knows the wires and nothing of the machines that wrote them.

use bytes::Bytes;
use serde_json::Value;
use tidings_protocol::codec::PollAnswer;

/// How a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Frames both ways.
    WebSocket,
    /// Blocks one way.
    EventStream,
    /// One answer at a time.
    Poll,
}

/// An object that a client asks for: its number, the version it says it knows, the version it wants at least.
pub type Wish = (usize, Option<u64>, Option<u64>);

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// A connection to this lane.
    Open(usize, Transport),
    /// Objects, a cursor, and whether more pages follow.
    Subscribe(Vec<Wish>, Option<String>, bool),
    /// Objects to hear of no longer.
    Unsubscribe(Vec<usize>),
    /// Number of the poll, objects to add and to remove, a cursor, how long to wait in microseconds.
    Poll(u64, Vec<Wish>, Vec<usize>, Option<String>, u64),
    /// An event stream takes over the session, with a cursor.
    Attach(Option<String>),
    /// "I am there."
    Pong,
    /// The client takes what is written again.
    Reads,
    /// The client goes.
    Bye,
}

/// What reaches a client.
#[derive(Debug)]
pub enum ToClient {
    /// Whole frames or blocks; with true, the connection ends behind them.
    Bytes(Bytes, bool),
    /// The poll of this number is answered.
    Answer(u64, Box<PollAnswer>),
    /// The connection broke, or its node is not there.
    Reset,
}

/// One message of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A message by its name: `changes`, `cursor`, `subscribed`, …, with its body.
    Named(String, Value),
    /// A ping.
    Ping,
    /// A comment.
    Comment,
    /// The server closes with this code.
    Close(u16),
    /// What no server may say.
    Nonsense(String),
}

/// All messages of whole WebSocket frames.
#[must_use]
pub fn web_socket(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let Some((opcode, payload, rest)) = frame(bytes) else {
            messages.push(Message::Nonsense(format!("no whole frame: {bytes:?}")));
            break;
        };
        bytes = rest;
        messages.push(match opcode {
            0x1 => named(payload),
            0x8 => Message::Close(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
            0x9 => Message::Ping,
            other => Message::Nonsense(format!("opcode {other}")),
        });
    }
    messages
}

fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [first, second, ..] = *bytes else { return None };
    if first & 0xf0 != 0x80 {
        return None;
    }
    let (length, head) = match second {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (
            usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let (payload, rest) = bytes.get(head..)?.split_at_checked(length)?;
    Some((first & 0x0f, payload, rest))
}

fn named(payload: &[u8]) -> Message {
    let Ok(Value::Object(map)) = serde_json::from_slice(payload) else {
        return Message::Nonsense(String::from_utf8_lossy(payload).into_owned());
    };
    let mut names = map.into_iter().filter(|(name, _)| name != "id");
    match (names.next(), names.next()) {
        (Some((name, body)), None) => Message::Named(name, body),
        _ => Message::Nonsense(String::from_utf8_lossy(payload).into_owned()),
    }
}

/// All messages of whole event-stream blocks.
#[must_use]
pub fn event_stream(bytes: &[u8]) -> Vec<Message> {
    let text = String::from_utf8_lossy(bytes);
    let mut messages = Vec::new();
    if !text.ends_with("\n\n") {
        messages.push(Message::Nonsense(format!("no whole block: {text:?}")));
    }
    for block in text.split_terminator("\n\n") {
        let mut event = None;
        for line in block.lines() {
            messages.push(if line == ":" {
                Message::Comment
            } else if let Some(cursor) = line.strip_prefix("id: ") {
                Message::Named("cursor".into(), Value::from(cursor))
            } else if let Some(name) = line.strip_prefix("event: ") {
                event = Some(name);
                continue;
            } else if let Some(data) = line.strip_prefix("data: ") {
                match (serde_json::from_str(data), event) {
                    (Ok(body), Some(name)) => Message::Named(name.into(), body),
                    (Ok(body), None) => Message::Named("changes".into(), Value::Array(vec![body])),
                    (Err(_), _) => Message::Nonsense(line.into()),
                }
            } else {
                Message::Nonsense(line.into())
            });
        }
    }
    messages
}
