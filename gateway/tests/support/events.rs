//! Server-Sent Events, read by hand: every block is looked at as it was sent.

use super::ear::Ear;
use super::http::{Answer, Raw};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One event stream.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) raw: Raw,
    pub(crate) head: Answer,
    text: Blocks,
}

/// Cuts bytes into blocks and reads them.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    bytes: Vec<u8>,
    read: VecDeque<Value>,
}

impl Blocks {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
            self.read
                .extend(read(std::str::from_utf8(&block).expect("events are UTF-8")));
        }
    }

    pub(crate) fn next(&mut self) -> Option<Value> {
        self.read.pop_front()
    }

    /// Whether a block has begun and not ended.
    pub(crate) fn torn(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// What a whole body says.
pub(crate) fn blocks(body: &[u8]) -> Vec<Value> {
    let mut blocks = Blocks::default();
    blocks.feed(body);
    assert!(!blocks.torn(), "it ends in the middle of a block");
    std::iter::from_fn(|| blocks.next()).collect()
}

/// What one block says, in the words of the WebSocket.
fn read(block: &str) -> Option<Value> {
    let (mut event, mut data, mut id, mut retry, mut comment) = (None, None::<String>, None, None, false);
    for line in block.lines().filter(|line| !line.is_empty()) {
        match line
            .split_once(':')
            .map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value)))
        {
            Some(("", _)) => comment = true,
            Some(("event", value)) => event = Some(value.to_owned()),
            Some(("data", value)) => {
                data = Some(data.map_or_else(|| value.to_owned(), |data| format!("{data}\n{value}")));
            }
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("retry", value)) => retry = Some(value.parse::<u64>().expect("retry is a number")),
            other => panic!("not a line of an event stream: {other:?} in {block:?}"),
        }
    }
    if let Some(id) = id {
        assert!(
            data.is_none() && event.is_none(),
            "an id must not vouch for what stands beside it: {block:?}"
        );
        return Some(json!({ "cursor": id }));
    }
    if let Some(data) = data {
        let said: Value = serde_json::from_str(&data).expect("data is JSON");
        return Some(match event {
            Some(event) => json!({ event: said }),
            None => json!({ "changes": [said] }),
        });
    }
    if let Some(retry) = retry {
        return Some(json!({ "retry": retry }));
    }
    comment.then(|| json!({ "comment": true }))
}

impl Events {
    /// `target` with its query; `headers` are whole lines with their ends.
    #[track_caller]
    pub(crate) fn open_with(mut raw: Raw, target: &str, headers: &str) -> Self {
        raw.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
        ));
        Self::over(raw)
    }

    #[track_caller]
    fn over(mut raw: Raw) -> Self {
        let head = raw.head().expect("an answer");
        assert_eq!(head.status, 200, "an EventSource gives up for ever on anything else");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self {
            raw,
            head,
            text: Blocks::default(),
        }
    }

    #[track_caller]
    pub(crate) fn open(address: SocketAddr, objects: &[impl AsRef<str>], cursor: Option<&str>) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        objects
            .iter()
            .for_each(|object| _ = query.append_pair("object", object.as_ref()));
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        Self::open_with(Raw::open(address), &format!("/v1/events?{}", query.finish()), "")
    }

    #[track_caller]
    pub(crate) fn post(address: SocketAddr, body: &Value) -> Self {
        let mut raw = Raw::open(address);
        let body = body.to_string();
        let length = body.len();
        raw.send(format!(
            "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        Self::over(raw)
    }
}

impl Ear for Events {
    #[track_caller]
    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(told) = self.text.next() {
                return Some(told);
            }
            let piece = self.raw.piece();
            let Some(piece) = piece else {
                assert!(!self.text.torn(), "the stream ended in the middle of a block");
                return None;
            };
            self.text.feed(&piece);
        }
    }
}
