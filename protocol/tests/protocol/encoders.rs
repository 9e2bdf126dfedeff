//! Whatever the server writes, a strict reader takes, and it means what was said.

use crate::documents::any_json;
use crate::wire::{Block, blocks, frames, message, unpack};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::{
    self, ChangeView, Encoding, Hello, Limits, OwnedChange, PollAnswer, RequestId, Resync, ResyncScope,
};
use tidings_protocol::{Code, Hint, Problem, ShardId, Version, version::Epoch};

const SOCKETS: [Encoding; 2] = [Encoding::WebSocketJson, Encoding::WebSocketMessagePack];

fn any_change() -> impl Strategy<Value = OwnedChange> {
    let hint = (prop::option::of("[ -~]{1,32}"), prop::option::of(any_json())).prop_map(|(kind, data)| {
        Arc::new(Hint {
            kind: kind.map(Into::into),
            data: data.map(|data| data.to_string().into()),
        })
    });
    let trace = (0..4096_u16, any::<u64>()).prop_map(|(shard, epoch)| (ShardId(shard), Epoch(epoch)));
    let object = prop_oneof!["[a-z:0-9]{1,20}", "\\PC{1,60}", any::<String>()];
    (
        object,
        1..Version::LIMIT,
        prop::option::of(hint),
        prop::option::of(trace),
    )
        .prop_map(|(object, version, hint, trace)| OwnedChange {
            object: object.into(),
            version: Version(version),
            hint,
            trace,
        })
}

/// The change as its reader should see it.
fn expected(change: &OwnedChange) -> Value {
    let mut map = json!({"object": &*change.object, "version": change.version.0});
    if let Some(kind) = change.hint.as_ref().and_then(|hint| hint.kind.as_ref()) {
        map["kind"] = json!(&**kind);
    }
    if let Some(data) = change.hint.as_ref().and_then(|hint| hint.data.as_ref()) {
        map["data"] = serde_json::from_str(data).unwrap();
    }
    if let Some((shard, epoch)) = change.trace {
        map["shard"] = json!(shard.0);
        map["epoch"] = json!(epoch.0);
    }
    map
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // A full buffer must stay as it is: units are appended.
    let mut out = b"before".to_vec();
    write(&mut out);
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

proptest! {
    #[test]
    fn changes_read_back_in_every_encoding(changes in prop::collection::vec(any_change(), 1..40)) {
        let all: Vec<Value> = changes.iter().map(expected).collect();
        for encoding in SOCKETS {
            let bytes = written(|out| codec::changes(encoding, out, changes.iter().map(OwnedChange::view)));
            prop_assert_eq!(message(&bytes), json!({"changes": all}));
        }
        let bytes = written(|out| codec::changes(Encoding::EventStream, out, changes.iter().map(OwnedChange::view)));
        let read: Vec<Value> = blocks(&bytes).into_iter().map(|block| {
            assert_eq!((block.event, block.id, block.retry), (None, None, None));
            serde_json::from_str(&block.data.unwrap()).unwrap()
        }).collect();
        prop_assert_eq!(read, all);
    }

    #[test]
    fn answers_read_back_with_their_id(
        texts in prop::collection::vec(any::<String>(), 0..20),
        id in prop::option::of(prop_oneof![
            (0..Version::LIMIT).prop_map(RequestId::Number),
            any::<String>().prop_map(|text| RequestId::Text(text.into())),
        ]),
        detail in any::<String>(),
    ) {
        let problem = Problem::new(Code::Forbidden, detail.clone());
        let error = json!({"code": "forbidden", "message": detail, "retryable": false});
        let with_id = |mut value: Value| {
            match &id {
                Some(RequestId::Number(number)) => value["id"] = json!(number),
                Some(RequestId::Text(text)) => value["id"] = json!(&**text),
                None => {}
            }
            value
        };
        let outcome = |i: usize| match i % 3 { 0 => Ok(Version(7)), 1 => Ok(Version::ZERO), _ => Err(&problem) };
        let entries = || texts.iter().enumerate().map(|(i, text)| (text.as_str(), outcome(i)));
        let told: Vec<Value> = texts.iter().enumerate().map(|(i, text)| match i % 3 {
            0 => json!({"object": text, "version": 7}),
            1 => json!({"object": text, "version": null}),
            _ => json!({"object": text, "error": error}),
        }).collect();
        let id = id.as_ref();
        for e in SOCKETS {
            let read = |write: &dyn Fn(&mut Vec<u8>)| message(&written(write));
            prop_assert_eq!(read(&|o| codec::subscribed(e, o, id, entries())), with_id(json!({"subscribed": {"objects": told}})));
            prop_assert_eq!(read(&|o| codec::error(e, o, id, &problem)), with_id(json!({"error": error})));
            prop_assert_eq!(read(&|o| codec::unsubscribed(e, o, id)), with_id(json!({"unsubscribed": {}})));
            prop_assert_eq!(read(&|o| codec::pong_message(e, o, id)), with_id(json!({"pong": {}})));
            prop_assert_eq!(read(&|o| codec::authenticated(e, o, id, Some(5))), with_id(json!({"authenticated": {"expires_in_ms": 5}})));
            prop_assert_eq!(read(&|o| codec::authenticated(e, o, id, None)), with_id(json!({"authenticated": {"expires_in_ms": null}})));
            prop_assert_eq!(read(&|o| codec::resync(e, o, texts.iter().map(String::as_str), &detail)), json!({"resync": {"objects": texts, "cause": detail}}));
        }
    }

    #[test]
    fn poll_answers_read_back_in_both_forms(
        changes in prop::collection::vec(any_change(), 0..20),
        objects in prop::option::of(prop::collection::vec(any::<String>(), 0..20)),
        refused in prop::collection::vec(any::<String>(), 0..4),
        session in prop::option::of(any::<String>()),
        (more, poll_after_ms) in (any::<bool>(), prop::option::of(any::<u64>())),
    ) {
        let mut expect = json!({
            "changes": changes.iter().map(expected).collect::<Vec<_>>(),
            "resync": objects.as_ref().map(|objects| json!({"objects": objects, "cause": "versions_lost"})),
            "refused": refused.iter().map(|object| json!({"object": object,
                "error": {"code": "not_yet", "message": "later", "retryable": true}})).collect::<Vec<_>>(),
            "cursor": "AbC",
        });
        if let Some(session) = &session { expect["session"] = json!(session); }
        if more { expect["more"] = json!(true); }
        if let Some(after) = poll_after_ms { expect["poll_after_ms"] = json!(after); }
        let scope = |objects: Vec<String>| ResyncScope::Objects(objects.into_iter().map(Into::into).collect());
        let answer = PollAnswer {
            changes,
            resync: objects.map(|objects| Resync { scope: scope(objects), cause: "versions_lost" }),
            refused: refused.into_iter().map(|object| (object, Problem::new(Code::NotYet, "later"))).collect(),
            cursor: "AbC".into(),
            session,
            more,
            poll_after_ms,
        };
        prop_assert_eq!(serde_json::from_slice::<Value>(&answer.to_json()).unwrap(), expect.clone());
        prop_assert_eq!(unpack(&answer.to_msgpack()), expect);
    }

    #[test]
    fn a_close_frame_holds_whole_characters_and_fits(reason in any::<String>(), repeat in 1..40_usize) {
        let reason = reason.repeat(repeat);
        let bytes = written(|out| codec::ws_close(out, CloseCode::Drain, &reason));
        let frame = &frames(&bytes)[0];
        prop_assert_eq!(frame.opcode, 8);
        prop_assert_eq!(&frame.payload[..2], 4000_u16.to_be_bytes());
        let told = std::str::from_utf8(&frame.payload[2..]).unwrap();
        prop_assert!(reason.starts_with(told) && (told == reason || told.len() > 119));
    }
}

#[test]
fn the_header_has_the_right_form_at_every_border() {
    for encoding in SOCKETS {
        for length in [
            100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 65_500, 65_519,
        ] {
            for length in [length, length + 8, length + 16] {
                let text = "x".repeat(length);
                assert_eq!(
                    message(&written(|out| codec::cursor(encoding, out, &text))),
                    json!({"cursor": text})
                );
            }
        }
        for count in [0, 15, 16, 65_535, 65_536] {
            let objects = vec!["o"; count];
            let bytes = written(|out| codec::resync(encoding, out, objects.iter().copied(), "c"));
            assert_eq!(message(&bytes), json!({"resync": {"objects": objects, "cause": "c"}}));
        }
    }
}

#[test]
fn the_border_of_125_and_65535_bytes_is_met_exactly() {
    // {"cursor":"…"} is 13 bytes more than its text.
    for (payload, header) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let bytes = written(|out| codec::cursor(Encoding::WebSocketJson, out, &"x".repeat(payload - 13)));
        assert_eq!(bytes.len(), payload + header);
        assert_eq!(frames(&bytes)[0].payload.len(), payload);
    }
}

#[test]
fn single_messages_read_back_in_every_encoding() {
    let hello = Hello {
        connection: "c1",
        node: "n\"1",
        ping_ms: 25_000,
        limits: Limits {
            objects: 9,
            frame_bytes: 8,
        },
    };
    let expect =
        json!({"connection": "c1", "node": "n\"1", "ping_ms": 25000, "limits": {"objects": 9, "frame_bytes": 8}});
    type Write<'a> = &'a dyn Fn(Encoding, &mut Vec<u8>);
    let elsewhere = json!({"after_ms": 9, "reason": "cut_off", "to": ["http://b:1", "http://c:1"]});
    let table: [(&str, Value, Write<'_>); 6] = [
        ("reconnect", elsewhere, &|e, out| {
            codec::reconnect(e, out, 9, "cut_off", &["http://b:1", "http://c:1"])
        }),
        ("hello", expect, &|e, out| codec::hello(e, out, &hello)),
        ("stale", json!(true), &|e, out| codec::stale(e, out, true)),
        ("stale", json!(false), &|e, out| codec::stale(e, out, false)),
        ("reconnect", json!({"after_ms": 250, "reason": "drain"}), &|e, out| {
            codec::reconnect(e, out, 250, "drain", &[])
        }),
        ("resync", json!({"all": true, "cause": "foreign"}), &|e, out| {
            codec::resync_all(e, out, "foreign")
        }),
    ];
    for (name, body, write) in table {
        for encoding in SOCKETS {
            assert_eq!(message(&written(|out| write(encoding, out))), json!({name: body}));
        }
        let bytes = written(|out| write(Encoding::EventStream, out));
        let block = Block {
            event: Some(name.into()),
            data: Some(body.to_string()),
            ..Block::default()
        };
        let mut read = blocks(&bytes);
        let again: Value = serde_json::from_str(read[0].data.as_ref().unwrap()).unwrap();
        read[0].data = Some(again.to_string());
        assert_eq!(read, [block]);
    }
}

#[test]
fn an_event_stream_has_its_own_words() {
    let problem = Problem::new(Code::Forbidden, "no\nline \u{2028} break");
    let bytes = written(|out| {
        codec::retry(out, 2500);
        codec::comment(out);
        codec::cursor(Encoding::EventStream, out, "abc-_");
        codec::refused(Encoding::EventStream, out, [("a", &problem)].into_iter());
        codec::session_unknown(out);
    });
    let read = blocks(&bytes);
    assert_eq!(
        read[0],
        Block {
            retry: Some("2500".into()),
            ..Block::default()
        }
    );
    assert_eq!(read[1], Block::default());
    assert_eq!(
        read[2],
        Block {
            id: Some("abc-_".into()),
            ..Block::default()
        },
        "alone, so that it vouches for the past"
    );
    assert_eq!(read[3].event.as_deref(), Some("refused"));
    let refused: Value = serde_json::from_str(read[3].data.as_ref().unwrap()).unwrap();
    assert_eq!(refused[0]["error"]["message"], "no\nline \u{2028} break");
    assert_eq!(
        (read[4].event.as_deref(), read[4].data.as_deref()),
        (Some("session_unknown"), Some("{}"))
    );
}

#[test]
fn what_has_no_place_on_an_event_stream_writes_nothing_there() {
    let problem = Problem::new(Code::Forbidden, "");
    let e = Encoding::EventStream;
    let bytes = written(|out| {
        codec::subscribed(e, out, None, [("a", Ok(Version(1)))].into_iter());
        codec::unsubscribed(e, out, None);
        codec::authenticated(e, out, None, None);
        codec::pong_message(e, out, None);
        codec::error(e, out, None, &problem);
    });
    assert_eq!(bytes, b"");
    for e in Encoding::ALL {
        assert_eq!(
            written(|out| codec::changes(e, out, std::iter::empty::<ChangeView<'_>>())),
            b"",
            "no changes"
        );
    }
}

#[test]
fn control_frames_are_as_rfc_6455_has_them() {
    let bytes = written(|out| {
        codec::ws_ping(out);
        codec::ws_pong(out, b"hi");
        codec::ws_pong(out, &[7; 126]);
        codec::ws_close(out, 1001_u16, "");
    });
    let read: Vec<_> = frames(&bytes)
        .into_iter()
        .map(|frame| (frame.opcode, frame.payload.to_vec()))
        .collect();
    assert_eq!(
        read,
        [
            (9, vec![]),
            (10, b"hi".to_vec()),
            (10, vec![7; 125]),
            (8, vec![3, 0xe9])
        ]
    );
}

#[test]
fn numbers_keep_their_kind_in_message_pack() {
    for (data, hex) in [
        ("0", "00"),
        ("127", "7f"),
        ("128", "cc80"),
        ("256", "cd0100"),
        ("65536", "ce00010000"),
        ("-1", "ff"),
        ("-33", "d0df"),
        ("-129", "d1ff7f"),
        ("-32769", "d2ffff7fff"),
        ("-2147483649", "d3ffffffff7fffffff"),
        ("18446744073709551615", "cfffffffffffffffff"),
        ("4294967296", "cf0000000100000000"),
        ("1.5", "cb3ff8000000000000"),
        ("1e2", "cb4059000000000000"),
        ("18446744073709551616", "cb43f0000000000000"),
        ("null", "c0"),
        ("true", "c3"),
        ("[]", "90"),
        ("{}", "80"),
        ("\"\\u00e4\"", "a2c3a4"),
    ] {
        let hint = Hint {
            kind: None,
            data: Some(data.into()),
        };
        let change = ChangeView {
            object: "o",
            version: Version(1),
            hint: Some(&hint),
            trace: None,
        };
        let bytes = written(|out| codec::changes(Encoding::WebSocketMessagePack, out, [change].into_iter()));
        let read: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(read.ends_with(&format!("a464617461{hex}")), "{data}: {read}");
    }
}

#[test]
fn what_a_bearer_of_a_token_is_told_has_one_shape_in_every_encoding() {
    let problem = Problem::new(Code::Forbidden, "not yours");
    let json = written(|out| {
        codec::refused(Encoding::WebSocketJson, out, [("a", &problem)].into_iter());
        codec::token_expired(Encoding::WebSocketJson, out, 25_000);
    });
    let messages: Vec<Value> = frames(&json)
        .iter()
        .map(|frame| serde_json::from_slice(frame.payload).unwrap())
        .collect();
    let refused =
        serde_json::json!([{"object":"a","error":{"code":"forbidden","message":"not yours","retryable":false}}]);
    let expired = serde_json::json!({"closes_in_ms":25_000});
    assert_eq!(
        messages,
        [
            serde_json::json!({"refused":refused}),
            serde_json::json!({"token_expired":expired})
        ]
    );
    let stream = written(|out| codec::token_expired(Encoding::EventStream, out, 25_000));
    assert_eq!(stream, b"event: token_expired\ndata: {\"closes_in_ms\":25000}\n\n");
}
