//! The Redis protocol (RESP 2), as far as it is needed: flat arrays of texts and numbers.

use super::{Broken, Told, line, number, object_name};
use std::io::Write as _;

pub(super) fn subscribe(objects: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = write!(out, "*{}\r\n$9\r\nSUBSCRIBE\r\n", objects.len() + 1);
    objects.iter().for_each(|object| text(&object_name(*object), &mut out));
    out
}

pub(super) fn publish(object: u32, payload: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"*3\r\n$7\r\nPUBLISH\r\n");
    text(&object_name(object), out);
    text(payload, out);
}

fn text(content: &str, out: &mut Vec<u8>) {
    let _ = write!(out, "${}\r\n{content}\r\n", content.len());
}

pub(super) fn read_subscriber(
    missing: &mut usize,
    bytes: &[u8],
    on: &mut dyn FnMut(Told<'_>),
) -> Result<usize, Broken> {
    let mut used = 0;
    while let Some((parts, length)) = array(&bytes[used..])? {
        match parts {
            [b"message", _, payload] => on(Told::Message { payload, version: 0 }),
            [b"subscribe", ..] => {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    on(Told::Ready);
                }
            }
            [what, ..] => return Err(Broken::what(what)),
        }
        used += length;
    }
    Ok(used)
}

pub(super) fn read_publisher(bytes: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken> {
    let mut used = 0;
    while let Some((text, length)) = line(&bytes[used..]) {
        match text.first() {
            Some(b':') => on(Told::Accepted { version: 0 }),
            Some(b'-') => on(Told::Refused(String::from_utf8_lossy(&text[1..]).into_owned())),
            _ => return Err(Broken::what(text)),
        }
        used += length;
    }
    Ok(used)
}

/// Its parts, and how long it is in all.
type Array<'a> = ([&'a [u8]; 3], usize);

/// An array of three, and how long it is; `None` if it is not all there. An error of the server comes alone.
fn array(bytes: &[u8]) -> Result<Option<Array<'_>>, Broken> {
    let Some((head, mut used)) = line(bytes) else {
        return Ok(None);
    };
    match head {
        b"*3" => {}
        [b'-', why @ ..] => return Err(Broken::Refused(String::from_utf8_lossy(why).into_owned())),
        _ => return Err(Broken::what(head)),
    }
    let mut parts: [&[u8]; 3] = [&[]; 3];
    for part in &mut parts {
        let Some((head, length)) = line(&bytes[used..]) else {
            return Ok(None);
        };
        used += length;
        match head {
            [b':', digits @ ..] => *part = digits,
            [b'$', size @ ..] => {
                let size = number(size).ok_or_else(|| Broken::what(head))?;
                let Some(content) = bytes.get(used..used.saturating_add(size)) else {
                    return Ok(None);
                };
                *part = content;
                used += size + 2;
                if bytes.len() < used {
                    return Ok(None);
                }
            }
            _ => return Err(Broken::what(head)),
        }
    }
    Ok(Some((parts, used)))
}
