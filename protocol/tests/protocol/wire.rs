//! Readers of our own for what the server writes: they share no code with the writers.

use serde_json::Value;

/// One WebSocket frame as a strict receiver takes it.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Splits bytes into frames. Panics at a mask, a fragment, a reserved bit, a length not in its shortest form, or a rest.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(first & 0xf0, 0x80, "final, no reserved bits");
        assert_eq!(second & 0x80, 0, "a server never masks");
        let (length, rest) = match second & 0x7f {
            126 => {
                let length = usize::from(u16::from_be_bytes(rest[..2].try_into().unwrap()));
                assert!(length > 125, "{length} has a shorter form");
                (length, &rest[2..])
            }
            127 => {
                let length = u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize;
                assert!(length > 65535, "{length} has a shorter form");
                (length, &rest[8..])
            }
            length => (usize::from(length), rest),
        };
        let opcode = first & 0x0f;
        assert!(opcode < 8 || length <= 125, "a control frame of {length} bytes");
        frames.push(Frame {
            opcode,
            payload: &rest[..length],
        });
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "a rest of {bytes:?}");
    frames
}

/// One block of an event stream, as EventSource reads it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<String>,
}

/// Splits a stream into blocks. Panics at fields nobody knows, a field that comes twice, or a block that does not end.
pub(crate) fn blocks(bytes: &[u8]) -> Vec<Block> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(!text.contains(['\r', '\0']));
    let mut blocks = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (block, after) = rest.split_once("\n\n").expect("every block ends");
        rest = after;
        let mut read = Block::default();
        for line in block.split('\n') {
            if line.starts_with(':') {
                continue;
            }
            let (name, value) = line.split_once(": ").expect("every line is a field");
            let slot = match name {
                "event" => &mut read.event,
                "data" => &mut read.data,
                "id" => &mut read.id,
                "retry" => &mut read.retry,
                _ => panic!("nobody knows the field {name:?}"),
            };
            assert_eq!(slot.replace(value.to_owned()), None, "{name} comes twice");
        }
        blocks.push(read);
    }
    blocks
}

/// The one message in one data frame, of either form.
pub(crate) fn message(bytes: &[u8]) -> Value {
    let frames = frames(bytes);
    let [frame] = frames.as_slice() else {
        panic!("{} frames", frames.len())
    };
    match frame.opcode {
        1 => {
            assert!(!frame.payload.contains(&b'\n'), "newlines join messages");
            serde_json::from_slice(frame.payload).unwrap()
        }
        2 => unpack(frame.payload),
        other => panic!("opcode {other}"),
    }
}

/// One value of MessagePack and nothing behind it.
pub(crate) fn unpack(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = rmp_serde::decode::from_read(&mut rest).unwrap();
    assert!(rest.is_empty(), "a rest of {rest:?}");
    value
}

/// MessagePack of what JSON says.
pub(crate) fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}
