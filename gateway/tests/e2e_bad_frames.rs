//! What a WebSocket client must not say, and how it must not say it. After each piece of it the server lives, and a
//! subscriber that has nothing to do with it misses nothing.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use support::*;

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn websocket_requests_that_make_no_sense_get_an_error_and_the_connection_lives_on() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let mut raw = RawWs::open(node.addr);
    raw.say(&json!({ "subscribe": { "objects": ["mine"] }, "id": "first" }));
    let frames: Vec<(&str, &str)> = vec![
        ("", "bad_request"),
        ("   ", "bad_request"),
        ("{", "bad_request"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ("7", "bad_request"),
        ("{}", "bad_request"),
        (r#"{"id":1}"#, "bad_request"),
        (r#"{"hello":{}}"#, "bad_request"),
        (r#"{"subscribe":{"objects":["a"]},"ping":{}}"#, "bad_request"),
        (
            r#"{"subscribe":{"objects":["a"]},"subscribe":{"objects":["a"]}}"#,
            "bad_request",
        ),
        (r#"{"subscribe":{"objects":["a"],"objects":["a"]}}"#, "bad_request"),
        (r#"{"subscribe":{}}"#, "no_objects"),
        (r#"{"subscribe":null}"#, ""),
        (r#"{"subscribe":[]}"#, ""),
        (r#"{"subscribe":{"objects":"a"}}"#, "invalid_field"),
        (r#"{"subscribe":{"objects":[1]}}"#, ""),
        (r#"{"subscribe":{"objects":["a"],"cursor":1}}"#, "invalid_field"),
        (r#"{"subscribe":{"objects":["a"],"more":1}}"#, "invalid_field"),
        (r#"{"unsubscribe":{}}"#, "no_objects"),
        (r#"{"unsubscribe":{"objects":7}}"#, "invalid_field"),
        (r#"{"auth":{}}"#, "invalid_field"),
        (r#"{"auth":{"token":""}}"#, "invalid_field"),
        (r#"{"auth":{"token":7}}"#, "invalid_field"),
        (r#"{"ping":{},"id":-1}"#, ""),
        (r#"{"ping":{},"id":1.5}"#, ""),
        (r#"{"ping":{},"id":[]}"#, ""),
        (r#"{"ping":{},"id":9007199254740992}"#, ""),
    ];
    for (text, code) in &frames {
        raw.raw.send(frame(0x81, text.as_bytes()));
        let error = raw.hear_of("error");
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{text}: {error}"
        );
        assert_eq!(error["retryable"], false, "{text}: {error}");
        if !code.is_empty() {
            assert_eq!(error["code"], *code, "{text}: {error}");
        }
    }
    let long_id = json!({ "ping": {}, "id": "x".repeat(10_000) });
    raw.say(&long_id);
    raw.hear_of("error");
    let deep = format!("{{\"subscribe\":{{\"objects\":{}}}}}", nested(100_000, "[", "]"));
    raw.raw.send(frame(0x81, deep.as_bytes()));
    raw.hear_of("error");
    // Its ID comes back even where the rest makes no sense.
    raw.raw
        .send(frame(0x81, br#"{"subscribe":{"objects":7},"id":"named"}"#));
    let told = loop {
        let told = raw.hear();
        if told.get("error").is_some() {
            break told;
        }
    };
    assert_eq!(told["id"], "named");
    // A frame that joins more requests than allowed is answered as far as it goes.
    raw.raw.send(frame(0x81, "{\"ping\":{}}\n".repeat(300).as_bytes()));
    raw.hear_of("error");
    let version = publish(node.addr, "mine");
    raw.until_told(&[("mine", version)]);
    bystander.misses_nothing();
}

/// Opens, sends these bytes, and gives the code of the close frame that comes back.
#[track_caller]
fn closes_with(at: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut ws = RawWs::open(at);
    ws.raw.try_send(bytes);
    ws.close_code()
}

#[test]
fn frames_against_the_rfc_close_with_1002_or_1007() {
    let node = node();
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    let text = br#"{"ping":{}}"#;
    let unmasked = [&[0x81, text.len() as u8][..], text].concat();
    let protocol: Vec<(&str, Vec<u8>)> = vec![
        ("not masked", unmasked),
        ("a reserved bit", frame(0xc1, text)),
        ("another reserved bit", frame(0x91, text)),
        ("a reserved opcode", frame(0x83, text)),
        ("a reserved control opcode", frame(0x8b, text)),
        ("a ping in pieces", frame(0x09, b"x")),
        ("a ping of 126 bytes", frame(0x89, &[0; 126])),
        ("a close of 126 bytes", frame(0x88, &[3; 126])),
        ("a close of one byte", frame(0x88, &[3])),
        ("a continuation of nothing", frame(0x80, text)),
        ("a text inside a text", [frame(0x01, b"{"), frame(0x81, b"}")].concat()),
    ];
    for (what, bytes) in &protocol {
        assert_eq!(closes_with(at, bytes), Some(1002), "{what}");
    }
    for (what, bytes) in [
        ("a text that is no UTF-8", frame(0x81, b"\"\xff\"")),
        ("half a character", frame(0x81, b"\"\xc3")),
        ("half a surrogate pair", frame(0x81, b"\"\xed\xa0\x80\"")),
        (
            "no UTF-8 in the second piece",
            [frame(0x01, b"\"a"), frame(0x80, b"\xff\"")].concat(),
        ),
    ] {
        assert_eq!(closes_with(at, &bytes), Some(1007), "{what}");
    }
    bystander.misses_nothing();
}

#[test]
fn frames_too_large_close_with_1009_before_they_are_sent_whole() {
    let node = node();
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    let declared = |length: u64| {
        let mut bytes = vec![0x81, 0x80 | 127];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    };
    for length in [262_145, 1 << 20, 1 << 32, (1 << 63) - 1] {
        assert_eq!(closes_with(at, &declared(length)), Some(1009), "{length}");
    }
    // The highest bit must be zero: 1002 is as good an answer.
    for length in [1 << 63, u64::MAX] {
        assert!(
            matches!(closes_with(at, &declared(length)), Some(1002 | 1009)),
            "{length}"
        );
    }
    let pieces = [frame(0x01, &vec![b' '; 200_000]), frame(0x80, &vec![b' '; 100_000])].concat();
    assert_eq!(
        closes_with(at, &pieces),
        Some(1009),
        "pieces that are too much together"
    );
    // At the limit a page is read.
    let mut ws = Ws::open(at);
    let mut request = json!({ "ping": {}, "id": 1, "pad": "" });
    let pad = 262_144 - request.to_string().len();
    request["pad"] = "x".repeat(pad).into();
    assert_eq!(request.to_string().len(), 262_144);
    ws.say(&request);
    ws.hear_of("pong");
    bystander.misses_nothing();
}

#[test]
fn a_frame_of_the_wrong_kind_closes_with_4505() {
    let node = node();
    let text = br#"{"ping":{}}"#;
    assert_eq!(
        closes_with(node.addr, &frame(0x82, text)),
        Some(4505),
        "binary on a JSON connection"
    );
    let (mut ws, answer) = RawWs::handshake(Raw::open(node.addr), "Sec-WebSocket-Protocol: tidings.v1.msgpack\r\n");
    assert_eq!(answer.header("sec-websocket-protocol"), Some("tidings.v1.msgpack"));
    ws.raw.send(frame(0x81, text));
    assert_eq!(ws.close_code(), Some(4505), "text on a MessagePack connection");
}

#[test]
fn a_subprotocol_nobody_knows_is_accepted_and_closed_with_4505() {
    let node = node();
    for protocols in ["tidings.v2.json", "chat, superchat", "TIDINGS.V1.JSON"] {
        let (mut ws, answer) = RawWs::handshake(
            Raw::open(node.addr),
            &format!("Sec-WebSocket-Protocol: {protocols}\r\n"),
        );
        assert_eq!(
            (answer.status, answer.header("sec-websocket-protocol")),
            (101, None),
            "{protocols}"
        );
        assert_eq!(ws.close_code(), Some(4505), "{protocols}");
    }
    // Among several it takes the first that it knows.
    for (protocols, chosen) in [
        ("tidings.v9, tidings.v1.msgpack, tidings.v1.json", "tidings.v1.msgpack"),
        ("x,tidings.v1.json", "tidings.v1.json"),
    ] {
        let (_, answer) = RawWs::handshake(
            Raw::open(node.addr),
            &format!("Sec-WebSocket-Protocol: {protocols}\r\n"),
        );
        assert_eq!(answer.header("sec-websocket-protocol"), Some(chosen));
    }
}

#[test]
fn messages_in_pieces_with_pings_between_them_are_read() {
    let node = node();
    let mut ws = RawWs::open(node.addr);
    let request = br#"{"subscribe":{"objects":["\u00fc"]},"id":1}"#;
    let mut bytes = frame(0x01, &request[..1]);
    for piece in request[1..].chunks(1) {
        bytes.extend(frame(0x89, b"hi"));
        bytes.extend(frame(0x00, piece));
    }
    bytes.extend(frame(0x80, b""));
    // One byte at a time on the wire.
    for byte in bytes {
        ws.raw.send([byte]);
    }
    let mut pongs = 0;
    loop {
        let frame = RawWs::next(&mut ws).expect("a frame");
        match frame.first {
            0x8a => {
                assert_eq!(frame.payload, b"hi");
                pongs += 1;
            }
            0x81 if frame.payload.starts_with(b"{\"subscribed\"") => break,
            _ => {}
        }
    }
    // RFC 6455, 5.5.3: one pong may answer several pings.
    assert!(pongs > 0);
    let version = publish(node.addr, "ü");
    ws.until_told(&[("ü", version)]);
}

#[test]
fn a_flood_of_pings_or_empty_pieces_does_no_harm() {
    // However fast they are taken.
    let node = node_with(|config| config.limits.messages_per_s = 0);
    let mut bystander = Bystander::new(node.addr);
    let floods = [
        frame(0x89, &[b'x'; 125]).repeat(20_000),
        frame(0x8a, b"").repeat(50_000),
        [frame(0x01, b""), frame(0x00, b"").repeat(50_000)].concat(),
    ];
    for flood in floods {
        let mut ws = RawWs::open(node.addr);
        let mut reader = RawWs { raw: ws.raw.twin() };
        let reading = std::thread::spawn(move || while RawWs::next(&mut reader).is_some() {});
        ws.raw.try_send(&flood);
        bystander.misses_nothing();
        ws.raw.half_close();
        reading.join().expect("read to the end");
    }
}

#[test]
fn a_ping_flood_of_a_client_that_reads_nothing_is_bounded_and_harms_nobody() {
    let node = node_with(|config| {
        config.limits.stuck_ms = 1_000;
        config.limits.messages_per_s = 0;
    });
    let mut bystander = Bystander::new(node.addr);
    let (mut ws, _) = RawWs::handshake(Raw::open_small(node.addr), "");
    ws.raw
        .stream
        .set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .expect("a timeout");
    let flood = frame(0x89, &[b'x'; 125]).repeat(10_000);
    let mut sent = 0;
    // The server stops reading once its answers are not read, or closes: either way this ends.
    while sent < 200 && ws.raw.try_send(&flood) {
        sent += 1;
    }
    assert!(
        sent < 200,
        "a gigabyte of pings was read from a client that reads no pong"
    );
    bystander.misses_nothing();
    eventually("the stuck client is gone", || {
        get(node.addr, "/v1/connections").ok()["connections"]
            .as_array()
            .expect("a list")
            .len()
            == 1
    });
    bystander.misses_nothing();
}

#[test]
fn handshakes_that_are_none_are_refused_with_a_reason() {
    let node = node();
    let at = node.addr;
    let base = |method: &str, lines: &str| {
        let mut raw = Raw::open(at);
        raw.send(format!("{method} /v1/ws HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        raw.answer().expect("an answer")
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        (base("GET", ""), 426),
        (
            base(
                "GET",
                &format!("Connection: keep-alive\r\nUpgrade: websocket\r\n{version}{key}"),
            ),
            426,
        ),
        (
            base("GET", &format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{version}{key}")),
            426,
        ),
        (base("GET", &format!("{upgrade}{key}")), 426),
        (
            base("GET", &format!("{upgrade}Sec-WebSocket-Version: 777\r\n{key}")),
            426,
        ),
        (base("GET", &format!("{upgrade}Sec-WebSocket-Version: 8\r\n{key}")), 426),
        (base("GET", &format!("{upgrade}{version}")), 400),
        (
            base("GET", &format!("{upgrade}{version}Sec-WebSocket-Key: short\r\n")),
            400,
        ),
        (base("GET", &format!("{upgrade}{version}Sec-WebSocket-Key: \r\n")), 400),
        (base("POST", &format!("{upgrade}{version}{key}")), 405),
    ];
    for (number, (answer, status)) in cases.iter().enumerate() {
        assert_eq!(answer.status, *status, "case {number}: {answer:?}");
        if *status == 426 && number > 2 && number < 6 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "case {number}");
        }
    }
    // What is allowed: other cases of letters, several tokens, more headers.
    let mut raw = Raw::open(at);
    raw.send(format!(
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nconnection: keep-alive, upgrade\r\nUPGRADE: WebSocket\r\n{version}{key}\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    ));
    let answer = raw.answer().expect("an answer");
    assert_eq!(
        (answer.status, answer.header("sec-websocket-extensions")),
        (101, None),
        "extensions are declined"
    );
}

#[test]
fn frames_sent_in_the_same_packet_as_the_handshake_are_read() {
    let node = node();
    let mut raw = Raw::open(node.addr);
    let mut bytes = format!("{HANDSHAKE}\r\n").into_bytes();
    bytes.extend(frame(0x81, br#"{"subscribe":{"objects":["a"]},"id":1}"#));
    raw.send(bytes);
    assert_eq!(raw.head().expect("an answer").status, 101);
    let mut ws = RawWs { raw };
    ws.hear_of("subscribed");
    let version = publish(node.addr, "a");
    ws.until_told(&[("a", version)]);
}
