//! RFC 6455 frames from the server: never masked, never in fragments.

/// The largest payload of a control frame, in bytes.
const MAX_CONTROL_BYTES: usize = 125;
const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// One frame whose payload `write` appends. The short header is laid down first; the few payloads it does not fit move up.
pub(super) fn data_frame(out: &mut Vec<u8>, binary: bool, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[FIN | if binary { BINARY } else { TEXT }, 0]);
    let body = start + 2;
    write(out);
    let length = out.len() - body;
    if length <= MAX_CONTROL_BYTES {
        out[start + 1] = length as u8;
    } else if let Ok(short) = u16::try_from(length) {
        out[start + 1] = 126;
        out.splice(body..body, short.to_be_bytes());
    } else {
        out[start + 1] = 127;
        out.splice(body..body, (length as u64).to_be_bytes());
    }
}

fn control_frame(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!(length <= MAX_CONTROL_BYTES, "callers cut to size");
    out.extend_from_slice(&[FIN | opcode, length as u8]);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A ping without payload.
pub fn ws_ping(out: &mut Vec<u8>) {
    control_frame(out, PING, &[]);
}

/// The answer to a ping. A payload over 125 bytes, which no valid ping has, is cut.
pub fn ws_pong(out: &mut Vec<u8>, payload: &[u8]) {
    control_frame(out, PONG, &[&payload[..payload.len().min(MAX_CONTROL_BYTES)]]);
}

/// The end of a connection: a code of RFC 6455 or of [`CloseCode`](crate::close::CloseCode), and a reason for people,
/// cut between characters to the 123 bytes that fit.
pub fn ws_close(out: &mut Vec<u8>, code: impl Into<u16>, reason: &str) {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    control_frame(out, CLOSE, &[&code.into().to_be_bytes(), reason.as_bytes()]);
}
