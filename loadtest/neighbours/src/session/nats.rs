//! The NATS client protocol, as far as it is needed: lines, and payloads with their length before them.

use super::{Broken, Told, line, number, object_name};
use std::fmt::Write as _;
use std::io::Write as _;

pub(super) fn connect(verbose: bool) -> Vec<u8> {
    format!("CONNECT {{\"verbose\":{verbose},\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1,\"echo\":false}}\r\n")
        .into_bytes()
}

/// The answer to the ping at its end says that everything before it was taken.
pub(super) fn subscribe(objects: &[u32]) -> Vec<u8> {
    let mut text = String::new();
    for (id, object) in objects.iter().enumerate() {
        let _ = write!(text, "SUB {} {id}\r\n", object_name(*object));
    }
    [connect(false), text.into_bytes(), b"PING\r\n".to_vec()].concat()
}

pub(super) fn publish(object: u32, payload: &str, out: &mut Vec<u8>) {
    let _ = write!(out, "PUB {} {}\r\n{payload}\r\n", object_name(object), payload.len());
}

pub(super) fn read_subscriber(
    missing: &mut usize,
    bytes: &[u8],
    on: &mut dyn FnMut(Told<'_>),
) -> Result<usize, Broken> {
    read(bytes, &mut |word, payload| match word {
        Word::Message => on(Told::Message { payload, version: 0 }),
        Word::Ping => on(Told::Answer(b"PONG\r\n".to_vec())),
        Word::Pong if *missing > 0 => {
            *missing = 0;
            on(Told::Ready);
        }
        Word::Pong | Word::Ok => {}
    })
}

pub(super) fn read_publisher(bytes: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken> {
    read(bytes, &mut |word, _| match word {
        Word::Ok => on(Told::Accepted { version: 0 }),
        Word::Ping => on(Told::Answer(b"PONG\r\n".to_vec())),
        Word::Message | Word::Pong => {}
    })
}

#[derive(Clone, Copy)]
enum Word {
    Message,
    Ping,
    Pong,
    Ok,
}

fn read(bytes: &[u8], on: &mut dyn FnMut(Word, &[u8])) -> Result<usize, Broken> {
    let mut used = 0;
    while let Some((text, length)) = line(&bytes[used..]) {
        let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        match word {
            b"MSG" => {
                let size = text.rsplit(|byte| *byte == b' ').next().and_then(number);
                let size = size.ok_or_else(|| Broken::what(text))?;
                let from = used + length;
                let Some(payload) = bytes.get(from..from.saturating_add(size)) else {
                    return Ok(used);
                };
                if bytes.len() < from + size + 2 {
                    return Ok(used);
                }
                on(Word::Message, payload);
                used = from + size + 2;
                continue;
            }
            b"PING" => on(Word::Ping, &[]),
            b"PONG" => on(Word::Pong, &[]),
            b"+OK" => on(Word::Ok, &[]),
            b"INFO" => {}
            b"-ERR" => return Err(Broken::Refused(String::from_utf8_lossy(text).into_owned())),
            _ => return Err(Broken::what(text)),
        }
        used += length;
    }
    Ok(used)
}
