//! What is written, read by the server's own readers and against the golden frames of clients.

use serde_json::Value;
use tidings_client::wire::{self, ChangeRequest, Entry};
use tidings_protocol::Version;
use tidings_protocol::client::{self, EventsRequest, PollRequest, Request, parse_requests};
use tidings_protocol::codec::{Encoding, RequestId};

fn golden(name: &str) -> Value {
    let path = format!("{}/../../protocol/vectors/client.json", env!("CARGO_MANIFEST_DIR"));
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).expect("the frames")).expect("JSON");
    let one = all
        .into_iter()
        .find(|vector| vector["name"] == name && vector["text"].is_string());
    serde_json::from_str(one.expect("the frame")["text"].as_str().expect("text")).expect("JSON")
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).expect("JSON")
}

fn known(object: &str) -> Entry<'_> {
    Entry {
        object,
        version: Some(Version(7)),
        at_least: Some(Version(6)),
    }
}

#[test]
fn requests_are_those_of_the_golden_frames() {
    let subscribe = written(|out| wire::subscribe(out, ["a".into(), known("b")], Some("AQE"), false, Some(1)));
    assert_eq!(subscribe, golden("subscribe"));
    let page = written(|out| wire::subscribe(out, ["a".into()], None, true, None));
    assert_eq!(page["subscribe"], golden("subscribe a page")["subscribe"]);
    assert_eq!(
        written(|out| wire::unsubscribe(out, ["a"], Some(3))),
        golden("unsubscribe")
    );
    assert_eq!(written(|out| wire::auth(out, "t", Some(4))), golden("auth"));
    assert_eq!(written(|out| wire::ping(out, None)), golden("ping"));
}

#[test]
fn the_server_reads_every_id_that_is_written() {
    let ids = ["a \"b\" \\ c", "ü/\u{1f600}", "\u{7e} {\"x\":1}"];
    let mut out = Vec::new();
    wire::subscribe(&mut out, ids.map(Entry::from), Some("C"), true, Some(9));
    let read = parse_requests(Encoding::WebSocketJson, &out, 10);
    let [(Some(RequestId::Number(9)), Ok(Request::Subscribe { objects, cursor, more }))] = &read[..] else {
        panic!("{read:?}")
    };
    let objects: Vec<_> = objects
        .iter()
        .map(|entry| &*entry.as_ref().expect("an ID").object)
        .collect();
    assert_eq!((&objects[..], cursor.as_deref(), *more), (&ids[..], Some("C"), true));
}

#[test]
fn the_room_a_text_takes_is_never_underestimated() {
    for text in ["a", "\"\\", "ü", "\u{7f}\u{1f600}", "\n\u{1}"] {
        let length = serde_json::to_string(text).expect("text").len();
        assert!(wire::escaped_bytes(text) >= length, "{text:?}");
    }
}

#[test]
fn the_server_reads_polls_and_streams() {
    let mut out = Vec::new();
    let poll = wire::PollRequest {
        session: Some("s"),
        cursor: Some("C"),
        wait_ms: Some(5),
        add: vec!["a".into()],
        remove: vec!["b".into()],
        ..wire::PollRequest::default()
    };
    wire::poll(&mut out, &poll);
    let read = PollRequest::from_json(&out, 10).expect("a poll");
    assert_eq!(read.session.as_deref(), Some("s"));
    assert_eq!((read.add.len(), read.remove.len(), read.wait_ms), (1, 1, Some(5)));
    out.clear();
    let poll = wire::PollRequest {
        objects: Some(vec![known("a")]),
        ..wire::PollRequest::default()
    };
    wire::poll(&mut out, &poll);
    let read = PollRequest::from_json(&out, 10).expect("a poll");
    let objects = read.objects.expect("objects");
    assert_eq!(objects[0].as_ref().expect("an ID").version, Some(Version(7)));
    out.clear();
    wire::events(&mut out, ["a".into()], Some("C"));
    let read = EventsRequest::from_json(&out, 10).expect("a stream");
    assert_eq!(read.cursor.as_deref(), Some("C"));
}

#[test]
fn the_server_reads_changes() {
    let data = serde_json::value::RawValue::from_string("{\"total\":12}".to_owned()).expect("JSON");
    let change = ChangeRequest {
        object: "order:42",
        kind: Some("paid"),
        data: Some(&data),
        revision: Some(17),
    };
    let mut out = Vec::new();
    change.write(&mut out);
    let read = client::parse_publish_line(&out).expect("a change");
    assert_eq!((&*read.object, read.revision), ("order:42", Some(17)));
    out.clear();
    wire::changes(
        &mut out,
        [
            change,
            ChangeRequest {
                object: "a",
                ..ChangeRequest::default()
            },
        ],
    );
    let body: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(body["changes"][1], serde_json::json!({"object": "a"}));
    assert_eq!(body["changes"][0]["data"]["total"], 12);
}
