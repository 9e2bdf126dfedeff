//! Golden frames: the files in `vectors/` are what every client and server must agree on, read here and by the tests of
//! the JavaScript client.
//!
//! Each file is a list of maps with `name`, `encoding`, `meaning` and the bytes, as `text` or, where they are no text,
//! as `hex`. `server.json` also has the `message` that the bytes carry. `client.json` has, for each request in the bytes,
//! what was `read`: the request in words of its own, or the code of the refusal.
//!
//! After a wanted change run with `TIDINGS_WRITE_VECTORS=1` and read the difference; `client.json` is written by hand.

use crate::wire::{blocks, frames, message, unpack};
use serde_json::{Value, json};
use std::sync::Arc;
use tidings_protocol::client::{EntryResult, PollRequest, Request, parse_publish_line, parse_requests};
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::{
    self, ChangeView, Encoding, Hello, Limits, OwnedChange, PollAnswer, RequestId, Resync, ResyncScope,
};
use tidings_protocol::{Code, Hint, Problem, Version};

const NOW: u64 = 1_795_170_000_000_000;

fn assert_golden(file: &str, vectors: &[Value]) {
    let path = format!("{}/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let lines: Vec<String> = vectors.iter().map(|vector| format!("  {vector}")).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("TIDINGS_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (golden, ours) in golden.iter().zip(vectors) {
        assert_eq!(golden, ours, "{file}: {}", golden["name"]);
    }
    assert_eq!(golden.len(), vectors.len(), "{file}");
}

/// The bytes as text where they are some, else in hexadecimal.
fn put_bytes(vector: &mut Value, bytes: &[u8]) {
    match std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.chars().all(|c| c == '\n' || !c.is_control()))
    {
        Some(text) => vector["text"] = json!(text),
        None => vector["hex"] = json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

type Write<'a> = Box<dyn Fn(Encoding, &mut Vec<u8>) + 'a>;

#[test]
fn the_server_writes_the_golden_frames() {
    let updated = Hint {
        kind: Some("updated".into()),
        data: Some(r#"{"total":12,"rate":0.5,"by":"Zoë"}"#.into()),
    };
    let bare = ChangeView {
        object: "order:42",
        version: Version(NOW),
        hint: None,
        trace: None,
    };
    let full = ChangeView {
        hint: Some(&updated),
        object: "a \"b\" \\ ü",
        ..bare
    };
    let forbidden = Problem::new(Code::Forbidden, "not yours");
    let one = RequestId::Number(1);
    let limits = Limits {
        objects: 1000,
        frame_bytes: 65_536,
    };
    let hello = Hello {
        connection: "c-1",
        node: "n1",
        ping_ms: 25_000,
        limits,
    };
    let entries = || {
        [
            ("a", Ok(Version(123))),
            ("b", Ok(Version::ZERO)),
            ("c", Err(&forbidden)),
        ]
        .into_iter()
    };
    let table: Vec<(&str, &str, Write<'_>)> = vec![
        (
            "hello",
            "the first message",
            Box::new(|e, out| codec::hello(e, out, &hello)),
        ),
        (
            "change",
            "one object changed",
            Box::new(move |e, out| codec::changes(e, out, [bare].into_iter())),
        ),
        (
            "changes",
            "two changed, one with hints",
            Box::new(move |e, out| codec::changes(e, out, [bare, full].into_iter())),
        ),
        (
            "cursor",
            "all before it was told",
            Box::new(|e, out| codec::cursor(e, out, "AQEjRWeJq83v-_")),
        ),
        (
            "resync",
            "fetch these",
            Box::new(|e, out| codec::resync(e, out, ["a", "b"].into_iter(), "versions_lost")),
        ),
        (
            "resync all",
            "fetch everything",
            Box::new(|e, out| codec::resync_all(e, out, "cursor_unreadable")),
        ),
        (
            "subscribed",
            "known, none known, refused",
            Box::new(|e, out| codec::subscribed(e, out, Some(&one), entries())),
        ),
        (
            "unsubscribed",
            "the answer",
            Box::new(|e, out| codec::unsubscribed(e, out, Some(&RequestId::Text("x".into())))),
        ),
        (
            "authenticated",
            "the token holds a minute",
            Box::new(|e, out| codec::authenticated(e, out, Some(&one), Some(60_000))),
        ),
        (
            "pong",
            "the answer to ping",
            Box::new(|e, out| codec::pong_message(e, out, None)),
        ),
        (
            "stale",
            "cut off from owners",
            Box::new(|e, out| codec::stale(e, out, true)),
        ),
        (
            "whole again",
            "no longer cut off",
            Box::new(|e, out| codec::stale(e, out, false)),
        ),
        (
            "reconnect",
            "come back after a while",
            Box::new(|e, out| codec::reconnect(e, out, 1500, "drain", &[])),
        ),
        (
            "reconnect elsewhere",
            "come back to one of these",
            Box::new(|e, out| codec::reconnect(e, out, 1500, "cut_off", &["http://b:7400"])),
        ),
        (
            "error",
            "a request failed",
            Box::new(|e, out| codec::error(e, out, Some(&one), &forbidden)),
        ),
        (
            "refused",
            "not heard of, on a stream",
            Box::new(|e, out| {
                if e == Encoding::EventStream {
                    codec::refused(e, out, [("c", &forbidden)].into_iter());
                }
            }),
        ),
    ];
    let mut vectors = Vec::new();
    for (name, meaning, write) in &table {
        for encoding in Encoding::ALL {
            let mut bytes = Vec::new();
            write(encoding, &mut bytes);
            if bytes.is_empty() {
                continue;
            }
            let mut vector = json!({"name": name, "encoding": name_of(encoding), "meaning": meaning});
            if encoding == Encoding::EventStream {
                vector["message"] = blocks(&bytes)
                    .into_iter()
                    .map(|block| {
                        json!({
                            "event": block.event, "id": block.id,
                            "data": block.data.map(|data| serde_json::from_str::<Value>(&data).unwrap()),
                        })
                    })
                    .collect();
                put_bytes(&mut vector, &bytes);
            } else {
                // The payload, which is what a browser sees; headers have tests of their own.
                vector["message"] = message(&bytes);
                put_bytes(&mut vector, frames(&bytes)[0].payload);
            }
            vectors.push(vector);
        }
    }
    vectors.extend(raw_units());
    vectors.extend(poll_answers(&updated));
    assert_golden("server.json", &vectors);
}

fn name_of(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::WebSocketJson => "tidings.v1.json",
        Encoding::WebSocketMessagePack => "tidings.v1.msgpack",
        Encoding::EventStream => "text/event-stream",
    }
}

/// Units that carry no message: whole, with their headers.
fn raw_units() -> Vec<Value> {
    type Unit<'a> = (&'a str, &'a str, &'a str, &'a dyn Fn(&mut Vec<u8>));
    let stream = "text/event-stream";
    let units: [Unit<'_>; 7] = [
        ("comment", stream, "nothing, but the path lives", &codec::comment),
        ("retry", stream, "how long to wait before coming back", &|out| {
            codec::retry(out, 2500)
        }),
        (
            "session unknown",
            stream,
            "send the list again",
            &codec::session_unknown,
        ),
        (
            "ping frame",
            "websocket frame",
            "answer with a pong frame",
            &codec::ws_ping,
        ),
        ("pong frame", "websocket frame", "the answer to a ping frame", &|out| {
            codec::ws_pong(out, b"hi")
        }),
        ("close frame", "websocket frame", "come back", &|out| {
            codec::ws_close(out, CloseCode::Drain, "drain")
        }),
        (
            "text frame",
            "websocket frame",
            "a whole frame with its header",
            &|out| {
                codec::pong_message(Encoding::WebSocketJson, out, None);
            },
        ),
    ];
    let vector = |(name, encoding, meaning, write): &Unit<'_>| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let mut vector = json!({"name": name, "encoding": encoding, "meaning": meaning});
        put_bytes(&mut vector, &bytes);
        vector
    };
    units.iter().map(vector).collect()
}

fn poll_answers(hint: &Hint) -> Vec<Value> {
    let change = OwnedChange {
        object: "a".into(),
        version: Version(NOW),
        hint: Some(Arc::new(hint.clone())),
        trace: Some((tidings_protocol::ShardId(17), tidings_protocol::version::Epoch(3))),
    };
    let quiet = PollAnswer {
        cursor: "AQE".into(),
        session: Some("s-1".into()),
        ..PollAnswer::default()
    };
    let busy = PollAnswer {
        changes: vec![change],
        resync: Some(Resync {
            scope: ResyncScope::Objects(vec!["b".into()]),
            cause: "versions_evicted",
        }),
        refused: vec![("c".into(), Problem::new(Code::NotYet, "not yet at 120"))],
        more: true,
        poll_after_ms: Some(500),
        ..quiet.clone()
    };
    let mut vectors = Vec::new();
    for (name, meaning, answer) in [
        ("quiet poll", "nothing new", quiet),
        ("busy poll", "all that can be said", busy),
    ] {
        let (text, packed) = (answer.to_json(), answer.to_msgpack());
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), unpack(&packed));
        for (encoding, bytes) in [("application/json", text), ("application/msgpack", packed.clone())] {
            let mut vector =
                json!({"name": name, "encoding": encoding, "meaning": meaning, "message": unpack(&packed)});
            put_bytes(&mut vector, &bytes);
            vectors.push(vector);
        }
    }
    vectors
}

#[test]
fn the_server_reads_the_golden_requests() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/client.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(golden.len() > 20, "the file is not cut");
    for vector in golden {
        let bytes = bytes_of(&vector);
        let read = match vector["encoding"].as_str().unwrap() {
            "tidings.v1.json" => read_requests(Encoding::WebSocketJson, &bytes),
            "tidings.v1.msgpack" => read_requests(Encoding::WebSocketMessagePack, &bytes),
            "application/x-ndjson" => vec![read_line(&bytes)],
            "query" => vec![read_poll(&bytes)],
            other => panic!("nobody reads {other}"),
        };
        assert_eq!(vector["read"], Value::from(read), "{}", vector["name"]);
    }
}

/// The bytes of a vector.
fn bytes_of(vector: &Value) -> Vec<u8> {
    match (&vector["text"], &vector["hex"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(hex)) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect(),
        _ => panic!("{} needs text or hex", vector["name"]),
    }
}

fn read_requests(encoding: Encoding, bytes: &[u8]) -> Vec<Value> {
    let told = |(id, request): (Option<RequestId>, Result<Request, Problem>)| {
        let mut read = match request {
            Err(problem) => json!({"error": problem.code.as_str()}),
            Ok(Request::Ping) => json!({"ping": {}}),
            Ok(Request::Auth { token }) => json!({"auth": {"token": token}}),
            Ok(Request::Unsubscribe { objects }) => json!({"unsubscribe": {"objects": entries(&objects)}}),
            Ok(Request::Subscribe { objects, cursor, more }) => {
                json!({"subscribe": {"objects": entries(&objects), "cursor": cursor, "more": more}})
            }
        };
        read["id"] = match id {
            None => Value::Null,
            Some(RequestId::Number(number)) => json!(number),
            Some(RequestId::Text(text)) => json!(text),
        };
        read
    };
    parse_requests(encoding, bytes, 10).into_iter().map(told).collect()
}

fn read_line(bytes: &[u8]) -> Value {
    match parse_publish_line(bytes) {
        Err(problem) => json!({"error": problem.code.as_str()}),
        Ok(change) => json!({"object": change.object, "revision": change.revision,
            "kind": change.hint.as_ref().map(|hint| &hint.kind), "data": change.hint.as_ref().map(|hint| &hint.data)}),
    }
}

fn read_poll(bytes: &[u8]) -> Value {
    let poll = PollRequest::from_query(std::str::from_utf8(bytes).unwrap(), 10).unwrap();
    json!({"objects": entries(&poll.objects.unwrap()), "wait_ms": poll.wait_ms, "cursor": poll.cursor})
}

fn entries(objects: &[EntryResult]) -> Vec<Value> {
    let entry = |object: &EntryResult| match object {
        Ok(entry) => json!({"object": entry.object, "version": entry.version, "at_least": entry.at_least}),
        Err((object, problem)) => json!({"object": object, "error": problem.code.as_str()}),
    };
    objects.iter().map(entry).collect()
}
