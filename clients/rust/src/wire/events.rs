//! Server-Sent Events: blocks out of bytes as they come, and what the blocks say.
//!
//! Source: the HTML standard, "Server-sent events", interpreting an event stream. A block's ID counts only when the whole
//! block has come.

use super::message::{Changes, Hello, Reconnect, Refused, Resync, ServerMessage, read_change};
use super::text::Text;
use super::{MAX_MESSAGE_BYTES, WireError};

/// One block of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBlock<'a> {
    /// The event's type; `None`: the default.
    pub event: Option<&'a str>,
    /// Its data, lines joined by line breaks; `None`: the block has none, and dispatches nothing.
    pub data: Option<Text<'a>>,
    /// The cursor: everything before and in this block was told.
    pub id: Option<&'a str>,
    /// How long to wait before coming back, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventMessage<'a> {
    /// The same as on a WebSocket: hello, changes (one), cursor, resync, stale, reconnect, or unknown.
    Message(ServerMessage<'a>),
    /// Objects that will not be heard of.
    Refused(Vec<Refused<'a>>),
    /// The session is not known: the stream ends, make it again.
    SessionUnknown,
    /// How long to wait before coming back, in milliseconds.
    Retry(u64),
    /// Nothing but a sign of life.
    Nothing,
}

impl<'a> EventBlock<'a> {
    /// What the block says. A block that has both data and an `id` says what its data says; the `id` counts after it.
    ///
    /// # Errors
    /// If the data of a known event makes no sense.
    pub fn message(&'a self) -> Result<EventMessage<'a>, WireError> {
        let Some(data) = &self.data else {
            return Ok(match (self.id, self.retry_ms) {
                (Some(cursor), _) => EventMessage::Message(ServerMessage::Cursor(cursor.into())),
                (None, Some(retry_ms)) => EventMessage::Retry(retry_ms),
                (None, None) => EventMessage::Nothing,
            });
        };
        let message = match self.event.unwrap_or("message") {
            "message" => ServerMessage::Changes(Changes::of(Some(read_change(data)?), Vec::new())),
            "hello" => ServerMessage::Hello(serde_json::from_str::<Hello<'_>>(data)?),
            "resync" => ServerMessage::Resync(serde_json::from_str::<Resync<'_>>(data)?),
            "stale" => ServerMessage::Stale(serde_json::from_str(data)?),
            "reconnect" => ServerMessage::Reconnect(serde_json::from_str::<Reconnect<'_>>(data)?),
            "refused" => return Ok(EventMessage::Refused(serde_json::from_str(data)?)),
            "session_unknown" => return Ok(EventMessage::SessionUnknown),
            _ => ServerMessage::Unknown,
        };
        Ok(EventMessage::Message(message))
    }
}

/// The first whole block of `bytes` and how many bytes it takes, its empty line included. `None`: more is needed.
///
/// Blocks of comments alone come out as blocks with nothing in them. It reads `bytes` from their start each time: who
/// reads a large block in many small pieces uses [`EventParser`].
///
/// # Errors
/// If the block is not UTF-8.
pub fn next_block(bytes: &[u8]) -> Result<Option<(EventBlock<'_>, usize)>, WireError> {
    let Some(end) = end_of_block(bytes, 0).1 else {
        return Ok(None);
    };
    Ok(Some((read_block(&bytes[..end])?, end)))
}

/// Where the block ends, if it does, looking from the start of a line at `from`; and where the last line begins that is
/// not over yet.
fn end_of_block(bytes: &[u8], from: usize) -> (usize, Option<usize>) {
    let mut line = from;
    while let Some(length) = bytes[line..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let at = line + length;
        let next = match bytes[at] {
            b'\n' => at + 1,
            // A line break may follow that belongs to this one.
            _ => match bytes.get(at + 1) {
                None => return (line, None),
                Some(b'\n') => at + 2,
                Some(_) => at + 1,
            },
        };
        if length == 0 {
            return (next, Some(next));
        }
        line = next;
    }
    (line, None)
}

fn read_block(bytes: &[u8]) -> Result<EventBlock<'_>, WireError> {
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Utf8)?;
    let mut block = EventBlock::default();
    for line in text.split(['\n', '\r']) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => match &mut block.data {
                None => block.data = Some(value.into()),
                Some(data) => {
                    let data = data.0.to_mut();
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "event" => block.event = Some(value).filter(|event| !event.is_empty()),
            "id" if !value.contains('\0') => block.id = Some(value),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                block.retry_ms = value.parse().ok();
            }
            _ => {}
        }
    }
    Ok(block)
}

/// Keeps the bytes of a block until it is whole. Holds no memory while nothing is half read.
#[derive(Clone, Debug)]
pub struct EventParser {
    held: Vec<u8>,
    taken: usize,
    /// Where the last line begins that was not over when it was looked at.
    looked: usize,
    began: bool,
    limit: usize,
}

impl Default for EventParser {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl EventParser {
    /// No block may be longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            taken: 0,
            looked: 0,
            began: false,
            limit,
        }
    }

    /// Takes what came. Call [`EventParser::next_block`] until it gives `None` before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..std::mem::take(&mut self.taken));
        self.held.extend_from_slice(bytes);
    }

    /// The next whole block.
    ///
    /// # Errors
    /// If it is not UTF-8, or longer than the limit. Nothing after it can be read.
    pub fn next_block(&mut self) -> Result<Option<EventBlock<'_>>, WireError> {
        if !self.began {
            let mark = b"\xef\xbb\xbf";
            if self.held.len() < mark.len() && mark.starts_with(&self.held) {
                return Ok(None);
            }
            self.taken = if self.held.starts_with(mark) { mark.len() } else { 0 };
            self.looked = self.taken;
            self.began = true;
        }
        let start = self.taken;
        let (line, end) = end_of_block(&self.held, self.looked.max(start));
        if let Some(end) = end {
            (self.taken, self.looked) = (end, end);
            if end - start > self.limit {
                return Err(WireError::TooLong { limit: self.limit });
            }
            return read_block(&self.held[start..end]).map(Some);
        }
        // What was read goes; what is looked at next begins at the front.
        self.held.drain(..start);
        self.taken = 0;
        self.looked = line - start;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        if self.held.len() > self.limit {
            return Err(WireError::TooLong { limit: self.limit });
        }
        Ok(None)
    }
}
