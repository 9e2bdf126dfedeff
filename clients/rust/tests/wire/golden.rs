//! The golden frames of the server.

use super::value;
use serde_json::Value;
use tidings_client::websocket::{Incoming, Message};
use tidings_client::wire::{EventParser, PollAnswer, messages};

fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/../../protocol/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the golden frames");
    serde_json::from_str(&text).expect("JSON")
}

/// The golden frames of one encoding.
fn of(encoding: &str) -> Vec<Value> {
    let all = vectors("server.json").into_iter();
    let found: Vec<_> = all.filter(|vector| vector["encoding"] == encoding).collect();
    assert!(!found.is_empty(), "{encoding}");
    found
}

/// The message as this client understands it: it goes on to the next of its own servers, and does not read where it could go to.
fn understood(mut message: Value) -> Value {
    for place in ["/reconnect", "/data"] {
        if let Some(fields) = message.pointer_mut(place).and_then(Value::as_object_mut) {
            fields.remove("to");
        }
    }
    message
}

fn text(vector: &Value) -> &str {
    vector["text"].as_str().expect("text")
}

#[test]
fn every_golden_message_is_read_as_it_was_meant() {
    for vector in of("tidings.v1.json") {
        let read: Vec<_> = messages(text(&vector).as_bytes())
            .map(|message| value::message(message.expect("sense")))
            .collect();
        assert_eq!(read, [understood(vector["message"].clone())], "{}", vector["name"]);
    }
}

#[test]
fn messages_joined_by_newlines_are_read_one_by_one() {
    let all = of("tidings.v1.json");
    let joined: Vec<_> = all.iter().map(text).collect();
    let joined = joined.join("\n") + "\n\n";
    let read: Vec<_> = messages(joined.as_bytes())
        .map(|message| value::message(message.expect("sense")))
        .collect();
    let meant: Vec<_> = all.iter().map(|vector| understood(vector["message"].clone())).collect();
    assert_eq!(read, meant);
}

/// What the blocks of a golden stream mean.
fn meant(vector: &Value) -> Vec<Value> {
    match (vector["name"].as_str(), &vector["message"]) {
        (Some("comment"), _) => vec![Value::Null],
        (Some("retry"), _) => vec![serde_json::json!({"retry": 2500})],
        (Some("session unknown"), _) => {
            vec![serde_json::json!({"event": "session_unknown", "data": {}, "id": null})]
        }
        (_, Value::Array(blocks)) => blocks.iter().cloned().map(understood).collect(),
        other => panic!("a golden frame this test does not know: {other:?}"),
    }
}

fn blocks(parser: &mut EventParser, read: &mut Vec<Value>) {
    while let Some(block) = parser.next_block().expect("sense") {
        read.push(value::event(block.message().expect("sense")));
    }
}

#[test]
fn every_golden_block_is_read_as_it_was_meant_wherever_it_is_cut() {
    for vector in of("text/event-stream") {
        let bytes = text(&vector).as_bytes();
        for cut in 0..=bytes.len() {
            let mut read = Vec::new();
            let mut parser = EventParser::default();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                parser.push(piece);
                blocks(&mut parser, &mut read);
            }
            assert_eq!(read, meant(&vector), "{} cut at {cut}", vector["name"]);
        }
    }
}

#[test]
fn a_stream_of_all_golden_blocks_is_read_byte_by_byte() {
    let mut read = Vec::new();
    let mut parser = EventParser::default();
    let all = of("text/event-stream");
    for vector in &all {
        for byte in text(vector).as_bytes() {
            parser.push(&[*byte]);
            blocks(&mut parser, &mut read);
        }
    }
    let meant: Vec<_> = all.iter().flat_map(meant).collect();
    assert_eq!(read, meant);
}

#[test]
fn every_golden_poll_answer_is_read_as_it_was_meant() {
    for vector in of("application/json") {
        let answer = PollAnswer::read(text(&vector).as_bytes()).expect("sense");
        assert_eq!(value::poll(&answer), vector["message"], "{}", vector["name"]);
    }
}

#[test]
fn every_golden_websocket_frame_is_read_as_it_was_meant() {
    let read = |name: &str| {
        let all = of("websocket frame");
        let vector = all.iter().find(|vector| vector["name"] == name).expect("the frame");
        let hex = vector["hex"].as_str().expect("hex");
        let digits = hex.as_bytes().chunks(2);
        let bytes: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
            .collect();
        let mut read = Vec::new();
        let taken = Incoming::default().feed(&bytes, |message| read.push(format!("{message:?}")));
        taken.expect("a frame");
        read
    };
    let meant = |message: Message<'_>| vec![format!("{message:?}")];
    assert_eq!(read("ping frame"), meant(Message::Ping(b"")));
    assert_eq!(read("pong frame"), meant(Message::Pong(b"hi")));
    assert_eq!(read("close frame"), meant(Message::Close(Some((4000, "drain")))));
    assert_eq!(read("text frame"), meant(Message::Text("{\"pong\":{}}")));
    assert_eq!(of("websocket frame").len(), 4, "a new frame wants a line here");
}
