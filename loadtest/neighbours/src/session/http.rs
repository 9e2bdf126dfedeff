//! HTTP/1.1, as far as it is needed: a POST, and answers that say how long they are.

use super::{Broken, line, number};
use std::io::Write as _;

pub(super) struct Answer<'a> {
    pub(super) status: usize,
    pub(super) body: &'a [u8],
    pub(super) used: usize,
}

pub(super) fn post(path: &str, kind: &str, body: &str, out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
}

/// The first answer in `bytes`; `None` if it is not all there.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Answer<'_>>, Broken> {
    let Some((head, mut used)) = line(bytes) else {
        return Ok(None);
    };
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(number);
    let status = status.ok_or_else(|| Broken::what(head))?;
    let mut length = 0;
    loop {
        let Some((header, size)) = line(&bytes[used..]) else {
            return Ok(None);
        };
        used += size;
        if header.is_empty() {
            break;
        }
        let colon = header
            .iter()
            .position(|byte| *byte == b':')
            .ok_or_else(|| Broken::what(header))?;
        let (name, value) = (&header[..colon], &header[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") && status != 101 {
            length = number(value).ok_or_else(|| Broken::what(header))?;
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(Broken::what(header));
        }
    }
    let Some(body) = bytes.get(used..used.saturating_add(length)) else {
        return Ok(None);
    };
    Ok(Some(Answer {
        status,
        body,
        used: used + length,
    }))
}
