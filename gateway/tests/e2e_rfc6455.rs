//! RFC 6455 from outside, section by section, on raw sockets: what a conforming client may send is taken, everything else ends the
//! connection with the code that the section names. The cases are those that the RFC distinguishes, in the order of its sections;
//! `e2e_bad_frames` has floods, sizes and handshakes.

#[path = "support/support.rs"]
mod support;

use std::net::SocketAddr;
use support::*;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// The code of the close frame that these bytes are answered with.
#[track_caller]
fn closes_with(at: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut ws = RawWs::open(at);
    ws.raw.try_send(bytes);
    ws.close_code()
}

/// After these bytes the connection still answers.
#[track_caller]
fn lives(at: SocketAddr, what: &str, bytes: &[u8]) -> Vec<Frame> {
    let mut ws = RawWs::open(at);
    ws.raw.send(bytes);
    ws.raw.send(frame(FIN | TEXT, br#"{"ping":{},"id":"still here"}"#));
    let mut heard = Vec::new();
    loop {
        let next = RawWs::next(&mut ws).unwrap_or_else(|| panic!("{what}: the connection ended after {heard:?}"));
        assert_ne!(next.first, FIN | CLOSE, "{what}: {next:?}");
        let over = next.payload.windows(10).any(|part| part == b"still here");
        heard.push(next);
        if over {
            return heard;
        }
    }
}

/// These bytes are answered with a pong with this payload, whatever else is said before it.
#[track_caller]
fn pongs(at: SocketAddr, bytes: &[u8], payload: &[u8]) {
    let mut ws = RawWs::open(at);
    ws.raw.send(bytes);
    loop {
        let next = RawWs::next(&mut ws).expect("the connection lives");
        assert_ne!(next.first, FIN | CLOSE, "{next:?}");
        if next.first == FIN | PONG {
            return assert_eq!(next.payload, payload);
        }
    }
}

/// A text frame for each piece, the last of them final.
fn pieces(pieces: &[&[u8]]) -> Vec<u8> {
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(number, piece)| {
        let first = if number == 0 { TEXT } else { 0 };
        frame(if number == last { FIN | first } else { first }, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

#[test]
fn section_5_2_reserved_bits_and_opcodes_are_refused() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let mut cases = 0;
    for reserved in 1..8_u8 {
        for (what, first) in [
            ("text", FIN | TEXT),
            ("begun text", TEXT),
            ("binary", FIN | BINARY),
            ("ping", FIN | PING),
            ("pong", FIN | PONG),
            ("close", FIN | CLOSE),
        ] {
            let bytes = frame(first | reserved << 4, b"{}");
            assert_eq!(
                closes_with(node.addr, &bytes),
                Some(1002),
                "{what} with bits {reserved:03b}"
            );
            cases += 1;
        }
        // In the middle of a message.
        let bytes = [frame(TEXT, b"{"), frame(FIN | reserved << 4, b"}")].concat();
        assert_eq!(
            closes_with(node.addr, &bytes),
            Some(1002),
            "continuation with bits {reserved:03b}"
        );
        cases += 1;
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15_u8] {
        for first in [opcode, FIN | opcode] {
            assert_eq!(
                closes_with(node.addr, &frame(first, b"")),
                Some(1002),
                "opcode {opcode}"
            );
            let inside = [frame(TEXT, b"{"), frame(first, b"")].concat();
            assert_eq!(
                closes_with(node.addr, &inside),
                Some(1002),
                "opcode {opcode} inside a message"
            );
            cases += 2;
        }
    }
    bystander.misses_nothing();
    println!("{cases} cases");
}

#[test]
fn section_5_2_every_form_of_length_is_read() {
    let node = node();
    for length in [
        0,
        1,
        124,
        125,
        126,
        127,
        128,
        65_534,
        65_535,
        65_536,
        65_537,
        200_000_usize,
    ] {
        // White space around a request means nothing.
        let mut request = br#"{"ping":{},"id":7}"#.to_vec();
        request.resize(request.len().max(length), b' ');
        let heard = lives(node.addr, "a length", &frame(FIN | TEXT, &request));
        let answered = heard
            .iter()
            .any(|one| one.payload.windows(6).any(|part| part == b"\"id\":7"));
        assert!(answered, "{length}: {heard:?}");
    }
}

#[test]
fn section_5_4_messages_come_in_any_number_of_pieces_and_only_in_order() {
    let node = node();
    let at = node.addr;
    let request = br#"{"ping":{},"id":7}"#;
    let answered = |heard: &[Frame]| {
        let of = |one: &Frame| one.payload.windows(6).any(|part| part == b"\"id\":7");
        assert!(heard.iter().any(of), "{heard:?}");
    };
    for cut in 0..=request.len() {
        let (one, other) = request.split_at(cut);
        answered(&lives(at, "two pieces", &pieces(&[one, other])));
        answered(&lives(
            at,
            "two pieces and empty ones",
            &pieces(&[b"", one, b"", other, b""]),
        ));
    }
    let each: Vec<&[u8]> = request.chunks(1).collect();
    answered(&lives(at, "each byte by itself", &pieces(&each)));
    let pong = frame(FIN | PONG, b"unasked");
    let (one, other) = request.split_at(5);
    let between = [frame(TEXT, one), pong, frame(FIN | PING, b"?"), frame(FIN, other)].concat();
    answered(&lives(at, "control frames between", &between));
    pongs(at, &between, b"?");
    for (what, bytes) in [
        ("a continuation of nothing", frame(0, b"x")),
        ("the end of nothing", frame(FIN, b"x")),
        (
            "a continuation after the end",
            [pieces(&[b"{", b"}"]), frame(FIN, b"x")].concat(),
        ),
        ("a text in a text", [frame(TEXT, b"{"), frame(TEXT, b"}")].concat()),
        (
            "a whole text in a text",
            [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(),
        ),
        (
            "a binary in a text",
            [frame(TEXT, b"{"), frame(FIN | BINARY, b"}")].concat(),
        ),
        (
            "a text in a binary",
            [frame(BINARY, b"{"), frame(FIN | TEXT, b"}")].concat(),
        ),
    ] {
        assert_eq!(closes_with(at, &bytes), Some(1002), "{what}");
    }
}

#[test]
fn section_5_5_control_frames_are_short_whole_and_answered() {
    let node = node();
    let at = node.addr;
    for payload in [&b""[..], b"x", b"\x00\xff\xfe", &[0xfe; 125]] {
        lives(at, "a ping", &frame(FIN | PING, payload));
        pongs(at, &frame(FIN | PING, payload), payload);
        lives(at, "a pong that nobody asked for", &frame(FIN | PONG, payload));
    }
    for opcode in [PING, PONG, CLOSE] {
        for (what, bytes) in [
            ("a piece", frame(opcode, b"")),
            ("a longer piece", frame(opcode, &1000_u16.to_be_bytes())),
            ("126 bytes", frame(FIN | opcode, &[3; 126])),
            ("65,536 bytes", frame(FIN | opcode, &[3; 65_536])),
        ] {
            assert_eq!(closes_with(at, &bytes), Some(1002), "{what} of {opcode}");
        }
    }
    // Nothing after a close counts.
    let after = [frame(FIN | CLOSE, &1000_u16.to_be_bytes()), frame(FIN | PING, b"late")].concat();
    let mut ws = RawWs::open(at);
    ws.raw.try_send(&after);
    while let Some(next) = RawWs::next(&mut ws) {
        assert_ne!(next.first, FIN | PONG, "{next:?}");
    }
}

#[test]
fn section_7_4_close_codes_are_echoed_or_refused() {
    let node = node();
    let close = |code: u16, reason: &[u8]| frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        assert_eq!(closes_with(node.addr, &close(code, b"")), Some(code));
        assert_eq!(closes_with(node.addr, &close(code, "für immer".as_bytes())), Some(code));
    }
    assert_eq!(closes_with(node.addr, &close(1000, &[b'x'; 123])), Some(1000));
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(closes_with(node.addr, &close(code, b"")), Some(1002), "{code}");
    }
    assert_eq!(
        closes_with(node.addr, &frame(FIN | CLOSE, b"\x03")),
        Some(1002),
        "half a code"
    );
    for reason in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"fine \xf4\x90\x80\x80"] {
        let code = closes_with(node.addr, &close(1000, reason));
        assert!(matches!(code, Some(1002 | 1007)), "{reason:?}: {code:?}");
    }
    // A close without a code.
    let mut ws = RawWs::open(node.addr);
    ws.raw.send(frame(FIN | CLOSE, b""));
    let echoed = std::iter::from_fn(|| RawWs::next(&mut ws)).any(|one| one.first == FIN | CLOSE);
    assert!(echoed, "it is echoed");
}

#[test]
fn section_8_1_texts_are_utf_8_wherever_they_are_cut() {
    let node = node();
    let at = node.addr;
    for text in [
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "κόσμε",
        "日本語",
        "🦀🦀",
    ] {
        lives(at, text, &frame(FIN | TEXT, text.as_bytes()));
        for cut in 1..text.len() {
            let (one, other) = text.as_bytes().split_at(cut);
            lives(at, text, &pieces(&[one, other]));
        }
    }
    for text in [
        &b"\x80"[..],
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xc2",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf0\x9f\xa6",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"fine \xce\xba\xed\xa0\x80 not",
    ] {
        assert_eq!(closes_with(at, &frame(FIN | TEXT, text)), Some(1007), "{text:x?}");
        for cut in 1..text.len() {
            let (one, other) = text.split_at(cut);
            assert_eq!(
                closes_with(at, &pieces(&[one, other])),
                Some(1007),
                "{text:x?} cut at {cut}"
            );
        }
    }
    // What can never become a text is not waited for.
    assert_eq!(closes_with(at, &frame(TEXT, b"\"\xff")), Some(1007));
}
