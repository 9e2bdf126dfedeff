//! WebSocket framing, client's half: what this program sends is masked, what it receives is not.
//!
//! As little as a measuring client needs: no fragments, no extensions.

/// A key and the answer RFC 6455 section 1.3 works out for it: nothing here is secret, so no hash is needed.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`KEY`].
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What one frame from the server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// Code (1005 if none) and reason.
    Close(u16, &'a [u8]),
}

/// The first whole frame of `bytes` and its length; `None` if more must arrive first.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, String> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err("the server masked a frame".to_owned());
    }
    if first & 0xf0 != 0x80 {
        return Err(format!("a fragment or a reserved bit: first byte {first:#04x}"));
    }
    let (length, header) = match second {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (
                usize::try_from(u64::from_be_bytes(*length)).map_err(|e| e.to_string())?,
                10,
            ),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    let Some(payload) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    let frame = match first & 0x0f {
        1 | 2 => Frame::Text(payload),
        8 => match payload {
            [high, low, reason @ ..] => Frame::Close(u16::from_be_bytes([*high, *low]), reason),
            _ => Frame::Close(1005, b""),
        },
        9 => Frame::Ping(payload),
        10 => Frame::Pong,
        other => return Err(format!("unknown opcode {other}")),
    };
    Ok(Some((frame, header + length)))
}

/// A masked text frame.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    masked(0x81, payload)
}

/// A masked pong.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    masked(0x8a, payload)
}

/// An unmasked text frame as a server sends it: for bare loops and stand-ins.
pub(crate) fn server_text(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    head(&mut frame, 0x81, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    head(&mut frame, first, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn head(frame: &mut Vec<u8>, first: u8, mask_bit: u8, length: usize) {
    frame.push(first);
    match length {
        0..126 => frame.push(mask_bit | length as u8),
        126..0x1_0000 => {
            frame.push(mask_bit | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask_bit | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_class_survive_and_wait_for_their_last_byte() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = server_text(&payload);
            assert_eq!(parse(&frame), Ok(Some((Frame::Text(&payload), frame.len()))));
            assert_eq!(parse(&frame[..frame.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn a_masked_frame_unmasks_to_what_was_said() {
        let frame = text(b"{\"ping\":{}}");
        assert_eq!(frame[1], 0x80 | 11);
        let key = &frame[2..6];
        let said: Vec<u8> = frame[6..]
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        assert_eq!(said, b"{\"ping\":{}}");
        assert!(parse(&frame).is_err(), "a server must not mask");
    }

    #[test]
    fn a_close_gives_its_code_and_reason() {
        assert_eq!(
            parse(&[0x88, 4, 0x0f, 0xa0, b'b', b'y']),
            Ok(Some((Frame::Close(4000, b"by"), 6)))
        );
        assert_eq!(parse(&[0x88, 0]), Ok(Some((Frame::Close(1005, b""), 2))));
    }
}
