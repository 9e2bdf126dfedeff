//! WebSocket frames (RFC 6455), as far as a client of well-behaved servers on loopback needs them.
//!
//! The key and the mask are constant: they guard proxies, and there is none here.

use super::Broken;

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
const PONG: u8 = 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    pub(super) used: usize,
}

pub(super) fn handshake(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

pub(super) fn text(content: &str) -> Vec<u8> {
    masked(TEXT, content.as_bytes())
}

pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    masked(PONG, payload)
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        size @ 0..=125 => out.push(0x80 | size as u8),
        size @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((size as u16).to_be_bytes());
        }
        size => {
            out.push(0x80 | 127);
            out.extend((size as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The first frame in `bytes`; `None` if it is not all there. Servers do not mask, and these do not fragment.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Broken> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x80 == 0 || second & 0x80 != 0 {
        return Err(Broken::what(b"a fragment or a masked frame"));
    }
    let (size, head): (usize, usize) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let size = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (
                usize::try_from(size).map_err(|_| Broken::what(b"a frame of many exabytes"))?,
                10,
            )
        }
        (126 | 127, _) => return Ok(None),
        (size, _) => (usize::from(size), 2),
    };
    let payload = bytes.get(head..head.saturating_add(size));
    Ok(payload.map(|payload| Frame {
        opcode: first & 0x0f,
        payload,
        used: head + size,
    }))
}

/// nchan's `ws+meta.nchan`: headers, among them the message's ID, an empty line, the message.
pub(super) fn nchan_message(text: &[u8]) -> Result<(&str, &[u8]), Broken> {
    let end = text
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .ok_or_else(|| Broken::what(text))?;
    let headers = std::str::from_utf8(&text[..end]).map_err(|_| Broken::what(text))?;
    let id = headers.lines().find_map(|header| header.strip_prefix("id: "));
    Ok((id.ok_or_else(|| Broken::what(text))?, &text[end + 2..]))
}
