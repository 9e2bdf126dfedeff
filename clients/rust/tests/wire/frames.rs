//! Frames that are cut, in fragments, masked, too long, or none.

use proptest::prelude::*;
use tidings_client::websocket::{FrameError, Incoming, Message, write_close, write_ping, write_pong, write_text};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Message<'_>> for Got {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Message::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

fn read(pieces: &[&[u8]], limit: usize) -> (Vec<Got>, Result<(), FrameError>) {
    let mut incoming = Incoming::new(limit);
    let mut got = Vec::new();
    for piece in pieces {
        if let Err(error) = incoming.feed(piece, |message| got.push(message.into())) {
            return (got, Err(error));
        }
    }
    (got, Ok(()))
}

/// A frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        medium @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// A message as the frames of a server, in so many fragments, with a ping between them.
fn fragments(first: u8, payload: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = payload;
    let mut opcode = first;
    for size in sizes {
        let (piece, left) = rest.split_at((*size).min(rest.len()));
        out.extend(frame(opcode, piece));
        out.extend(frame(0x89, b"between"));
        (rest, opcode) = (left, 0);
    }
    out.extend(frame(0x80 | opcode, rest));
    out
}

fn some_message() -> impl Strategy<Value = (Vec<u8>, Vec<Got>)> {
    let length = prop_oneof![0..130_usize, 65_530..65_540_usize];
    let text = (length, "[a-zä]", proptest::collection::vec(0..50_usize, 0..3)).prop_map(|(length, letter, sizes)| {
        let text = letter.repeat(length);
        let mut got = vec![Got::Ping(b"between".to_vec()); sizes.len()];
        got.push(Got::Text(text.clone()));
        (fragments(1, text.as_bytes(), &sizes), got)
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..126);
    let binary = bytes
        .clone()
        .prop_map(|bytes| (frame(0x82, &bytes), vec![Got::Binary(bytes)]));
    let ping = bytes
        .clone()
        .prop_map(|bytes| (frame(0x89, &bytes[..bytes.len().min(125)]), bytes));
    let ping = ping.prop_map(|(frame, mut bytes)| {
        bytes.truncate(125);
        (frame, vec![Got::Ping(bytes)])
    });
    let pong = Just((frame(0x8a, b"hi"), vec![Got::Pong(b"hi".to_vec())]));
    prop_oneof![text, binary, ping, pong]
}

proptest! {
    #[test]
    fn wherever_the_bytes_are_cut_the_messages_are_the_same(
        all in proptest::collection::vec(some_message(), 1..6),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes: Vec<u8> = all.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let meant: Vec<Got> = all.into_iter().flat_map(|(_, got)| got).collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.push(bytes.len());
        places.sort_unstable();
        let mut from = 0;
        let mut pieces = Vec::new();
        for place in places {
            pieces.push(&bytes[from..place]);
            from = place;
        }
        let (got, ended) = read(&pieces, 1 << 20);
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(got, meant);
    }

    #[test]
    fn whatever_bytes_come_there_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300_usize) {
        let cut = cut.min(bytes.len());
        let (front, back) = bytes.split_at(cut);
        let (whole, end) = read(&[&bytes], 4096);
        let (pieces, end_of_pieces) = read(&[front, back], 4096);
        prop_assert_eq!(end, end_of_pieces);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_servers_reader_takes_what_is_written_here(text in ".{0,300}", mask in any::<[u8; 4]>()) {
        use tidings_protocol::client::{Request, parse_requests};
        use tidings_protocol::codec::Encoding;
        let mut out = Vec::new();
        write_text(&mut out, text.as_bytes(), mask);
        let header = match out[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        prop_assert_eq!(out[0], 0x81);
        prop_assert_eq!(out[1] & 0x80, 0x80, "masked");
        prop_assert_eq!(&out[header..header + 4], &mask);
        let plain: Vec<u8> = out[header + 4..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        prop_assert_eq!(&plain, text.as_bytes());
        // And a request is one to the server.
        let mut request = Vec::new();
        tidings_client::wire::ping(&mut request, Some(7));
        let read = parse_requests(Encoding::WebSocketJson, &request, 1);
        prop_assert_eq!(&read[0].1, &Ok(Request::Ping));
    }
}

#[test]
fn what_breaks_the_rules_ends_the_connection_with_its_code() {
    for (bytes, code) in [
        (frame(0xc1, b"a"), 1002),
        (frame(0x83, b""), 1002),
        (frame(0x80, b"a"), 1002),
        (frame(0x09, b"a"), 1002),
        (vec![0x81, 0x81, 1, 2, 3, 4, 5], 1002),
        (vec![0x89, 126, 0, 126], 1002),
        ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        (frame(0x88, &[3]), 1002),
        (frame(0x88, &1005_u16.to_be_bytes()), 1002),
        (frame(0x88, &5000_u16.to_be_bytes()), 1002),
        (frame(0x81, &[0xff]), 1007),
        (frame(0x88, &[0x0f, 0xa0, 0xff]), 1007),
        (frame(0x81, &[b'a'; 101]), 1009),
        ([frame(0x01, &[b'a'; 60]), frame(0x80, &[b'a'; 60])].concat(), 1009),
        (vec![0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        let (_, ended) = read(&[&bytes], 100);
        let error = ended.expect_err("an error");
        assert_eq!(error.close_code(), code, "{bytes:?}: {error}");
    }
}

#[test]
fn a_message_at_the_limit_is_read() {
    let (got, ended) = read(&[&frame(0x81, &[b'a'; 100])], 100);
    assert_eq!(ended, Ok(()));
    assert_eq!(got, [Got::Text("a".repeat(100))]);
}

#[test]
fn nothing_is_read_after_the_end() {
    let bytes = [frame(0x88, b""), frame(0x81, b"late"), vec![0xff]].concat();
    let (got, ended) = read(&[&bytes, &frame(0x81, b"later")], 100);
    assert_eq!(ended, Ok(()));
    assert_eq!(got, [Got::Close(None)]);
}

#[test]
fn a_reader_at_rest_holds_no_memory() {
    assert!(size_of::<Incoming>() <= 40, "{}", size_of::<Incoming>());
    let mut incoming = Incoming::default();
    let bytes = frame(0x81, &[b'a'; 3000]);
    incoming
        .feed(&bytes[..1000], |_| panic!("not whole yet"))
        .expect("a frame");
    assert!(incoming.is_partial());
    let mut count = 0;
    incoming.feed(&bytes[1000..], |_| count += 1).expect("a frame");
    assert_eq!(count, 1);
    assert!(!incoming.is_partial());
}

#[test]
fn control_frames_are_cut_to_what_fits() {
    let mask = [0; 4];
    let mut out = Vec::new();
    write_ping(&mut out, &[7; 200], mask);
    assert_eq!((out[0], out[1]), (0x89, 0x80 | 125));
    out.clear();
    write_pong(&mut out, b"hi", mask);
    assert_eq!(out, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
    out.clear();
    write_close(&mut out, 1000, &"ä".repeat(100), mask);
    assert_eq!((out[0], out[1]), (0x88, 0x80 | 124), "no half of a letter");
}
