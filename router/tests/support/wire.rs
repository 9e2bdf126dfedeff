//! What a client reads: WebSocket frames and event-stream blocks, taken apart into messages.
//!
//! It knows the wires and nothing of the machines that wrote them.

use serde_json::Value;

/// One message of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A JSON message by its name: `changes`, `cursor`, `subscribed`, …, with its body and the request's ID.
    Named {
        name: String,
        body: Value,
        id: Value,
    },
    Ping,
    Comment,
    Close(u16),
}

/// All messages of whole WebSocket frames.
pub fn web_socket(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let opcode = bytes[0] & 0x0f;
        assert_eq!(bytes[0] & 0xf0, 0x80, "a frame of its own, no reserved bits");
        let (length, head) = match bytes[1] {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (
                u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes")) as usize,
                10,
            ),
            short => (usize::from(short), 2),
        };
        let payload = &bytes[head..head + length];
        bytes = &bytes[head + length..];
        match opcode {
            0x1 => {
                let mut map = match serde_json::from_slice(payload).expect("a text frame is JSON") {
                    Value::Object(map) => map,
                    other => panic!("a message is a map, not {other}"),
                };
                let id = map.remove("id").unwrap_or(Value::Null);
                assert_eq!(map.len(), 1, "a message has one name");
                let (name, body) = map.into_iter().next().expect("one");
                messages.push(Message::Named { name, body, id });
            }
            0x8 => messages.push(Message::Close(u16::from_be_bytes([payload[0], payload[1]]))),
            0x9 => messages.push(Message::Ping),
            other => panic!("opcode {other}"),
        }
    }
    messages
}

/// All messages of whole event-stream blocks.
pub fn event_stream(bytes: &[u8]) -> Vec<Message> {
    let text = std::str::from_utf8(bytes).expect("an event stream is UTF-8");
    assert!(text.ends_with("\n\n"), "whole blocks only: {text:?}");
    let named = |name: &str, body| Message::Named {
        name: name.into(),
        body,
        id: Value::Null,
    };
    let mut messages = Vec::new();
    for block in text.split_terminator("\n\n") {
        let mut event = None;
        for line in block.lines() {
            if line == ":" {
                messages.push(Message::Comment);
            } else if let Some(cursor) = line.strip_prefix("id: ") {
                messages.push(named("cursor", Value::from(cursor)));
            } else if let Some(name) = line.strip_prefix("event: ") {
                event = Some(name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let body: Value = serde_json::from_str(data).expect("data is JSON");
                messages.push(match event {
                    Some(name) => named(name, body),
                    None => named("changes", Value::Array(vec![body])),
                });
            } else {
                panic!("an event stream has no line {line:?}");
            }
        }
    }
    messages
}
