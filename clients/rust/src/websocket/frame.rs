//! Frames: from the server in pieces of any size, to the server masked and whole.

use crate::wire::MAX_MESSAGE_BYTES;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const MAX_CONTROL_BYTES: usize = 125;
/// The longest header of a frame that a server sends.
const MAX_HEADER_BYTES: usize = 10;

/// What came over the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text, put together if it came in fragments.
    Text(&'a str),
    /// Bytes likewise.
    Binary(&'a [u8]),
    /// To be answered with [`write_pong`] and the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping.
    Pong(&'a [u8]),
    /// The end: code and reason, if the server gave any. To be answered with [`write_close`]; nothing follows.
    Close(Option<(u16, &'a str)>),
}

/// Why bytes are no frames. **Everything before them was given out; the connection must be closed with
/// [`FrameError::close_code`].**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Broke RFC 6455.
    #[error("the server broke the rules of WebSockets: {0}")]
    Protocol(&'static str),
    /// A text that is no text.
    #[error("the server sent a text that is not UTF-8")]
    NotUtf8,
    /// Longer than allowed.
    #[error("the server sent a message of more than {limit} bytes")]
    TooBig {
        /// The limit.
        limit: usize,
    },
}

impl FrameError {
    /// The code to close with.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig { .. } => 1009,
        }
    }
}

/// Puts messages together from what a socket gives. Holds memory only while a message has come in part.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The frame that has come in part.
    held: Vec<u8>,
    /// The message that has come in part: its fragments so far.
    fragments: Option<Box<Fragments>>,
    limit: u32,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Fragments {
    text: bool,
    payload: Vec<u8>,
}

/// A frame's first bytes.
struct Header {
    fin: bool,
    opcode: u8,
    header: usize,
    payload: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl Incoming {
    /// No message may have more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            fragments: None,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            closed: false,
        }
    }

    /// Takes what the socket gave and calls `each` with every message that is whole by now. After a close frame the rest is
    /// passed over.
    ///
    /// # Errors
    /// If the bytes are no frames. Messages before them were given out.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Message<'_>)) -> Result<(), FrameError> {
        if !self.held.is_empty() {
            let Some(rest) = self.complete(bytes)? else {
                return Ok(());
            };
            bytes = rest;
            let held = std::mem::take(&mut self.held);
            self.frames(&held, &mut each)?;
        }
        let rest = self.frames(bytes, &mut each)?;
        if !self.closed {
            self.held.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Whether a message has come in part.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.held.is_empty() || self.fragments.is_some()
    }

    /// Adds to the held frame what it lacks. Gives what is left of `bytes` once it is whole.
    fn complete<'b>(&mut self, mut bytes: &'b [u8]) -> Result<Option<&'b [u8]>, FrameError> {
        loop {
            let (wanted, whole) = match self.header(&self.held)? {
                Some(Header { header, payload, .. }) => (header + payload, true),
                None => (self.held.len() + 1, false),
            };
            let lacking = wanted.saturating_sub(self.held.len());
            if lacking == 0 && whole {
                return Ok(Some(bytes));
            }
            let (taken, rest) = bytes.split_at(lacking.min(bytes.len()));
            self.held.extend_from_slice(taken);
            bytes = rest;
            if taken.len() < lacking {
                return Ok(None);
            }
        }
    }

    /// Gives out every whole frame, and gives back what is left.
    fn frames<'b>(&mut self, mut bytes: &'b [u8], each: &mut impl FnMut(Message<'_>)) -> Result<&'b [u8], FrameError> {
        while !self.closed {
            let Some(Header {
                fin,
                opcode,
                header,
                payload,
            }) = self.header(bytes)?
            else {
                return Ok(bytes);
            };
            let Some((frame, rest)) = bytes.split_at_checked(header + payload) else {
                return Ok(bytes);
            };
            bytes = rest;
            self.frame(fin, opcode, &frame[header..], each)?;
        }
        Ok(bytes)
    }

    #[inline]
    fn frame(
        &mut self,
        fin: bool,
        opcode: u8,
        payload: &[u8],
        each: &mut impl FnMut(Message<'_>),
    ) -> Result<(), FrameError> {
        match opcode {
            PING => each(Message::Ping(payload)),
            PONG => each(Message::Pong(payload)),
            CLOSE => {
                self.closed = true;
                each(Message::Close(read_close(payload)?));
            }
            CONTINUATION => {
                let Some(mut fragments) = self.fragments.take() else {
                    return Err(FrameError::Protocol("a continuation of nothing"));
                };
                if fragments.payload.len() + payload.len() > self.limit as usize {
                    return Err(self.too_big());
                }
                fragments.payload.extend_from_slice(payload);
                match fin {
                    true => whole(fragments.text, &fragments.payload, each)?,
                    false => self.fragments = Some(fragments),
                }
            }
            _ if self.fragments.is_some() => return Err(FrameError::Protocol("a message inside another")),
            _ if fin => whole(opcode == TEXT, payload, each)?,
            _ => {
                self.fragments = Some(Box::new(Fragments {
                    text: opcode == TEXT,
                    payload: payload.to_vec(),
                }));
            }
        }
        Ok(())
    }

    /// A frame's header; `None`: it is not whole yet.
    #[inline]
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let (fin, opcode) = (first & FIN != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(FrameError::Protocol("bits that no extension asked for"));
        }
        if second & MASKED != 0 {
            return Err(FrameError::Protocol("a masked frame"));
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(FrameError::Protocol("an unknown kind of frame"));
        }
        let short = usize::from(second & 0x7f);
        if opcode >= CLOSE && (!fin || short > MAX_CONTROL_BYTES) {
            return Err(FrameError::Protocol("a control frame that is long or cut"));
        }
        let (header, payload) = match short {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (MAX_HEADER_BYTES, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            short => (2, short as u64),
        };
        if payload > u64::from(self.limit) {
            return Err(self.too_big());
        }
        Ok(Some(Header {
            fin,
            opcode,
            header,
            payload: payload as usize,
        }))
    }

    fn too_big(&self) -> FrameError {
        FrameError::TooBig {
            limit: self.limit as usize,
        }
    }
}

#[inline]
fn whole(text: bool, payload: &[u8], each: &mut impl FnMut(Message<'_>)) -> Result<(), FrameError> {
    if text {
        each(Message::Text(
            std::str::from_utf8(payload).map_err(|_| FrameError::NotUtf8)?,
        ));
    } else {
        each(Message::Binary(payload));
    }
    Ok(())
}

fn read_close(payload: &[u8]) -> Result<Option<(u16, &str)>, FrameError> {
    match payload {
        [] => Ok(None),
        [_] => Err(FrameError::Protocol("half a close code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // What must never be sent in a frame, and what nobody may use.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(FrameError::Protocol("a close code that nobody may send"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// Appends one text frame.
pub fn write_text(out: &mut Vec<u8>, text: &[u8], mask: [u8; 4]) {
    write(out, TEXT, &[text], mask);
}

/// Appends a ping. A payload over 125 bytes is cut.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    write(out, PING, &[&payload[..payload.len().min(MAX_CONTROL_BYTES)]], mask);
}

/// Appends the answer to a ping. A payload over 125 bytes, which no valid ping has, is cut.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    write(out, PONG, &[&payload[..payload.len().min(MAX_CONTROL_BYTES)]], mask);
}

/// Appends the end. The reason is cut between characters to the 123 bytes that fit.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str, mask: [u8; 4]) {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write(out, CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]], mask);
}

fn write(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]], mask: [u8; 4]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(14 + length);
    out.push(FIN | opcode);
    match length {
        0..=125 => out.push(MASKED | length as u8),
        126..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    for piece in out[start..].chunks_mut(4) {
        for (byte, mask) in piece.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}
