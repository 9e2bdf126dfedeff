//! What clients ask for, read as they meant it.

use crate::wire::pack;
use proptest::prelude::*;
use serde_json::json;
use tidings_protocol::client::{
    Entry, EventsRequest, MAX_REQUESTS_PER_FRAME, PollRequest, Request, SessionRequest, parse_publish_json,
    parse_publish_line, parse_requests,
};
use tidings_protocol::codec::{Encoding, RequestId};
use tidings_protocol::{Code, Problem, Version};

const JSON: Encoding = Encoding::WebSocketJson;
const PACKED: Encoding = Encoding::WebSocketMessagePack;

fn entry(object: &str) -> Result<Entry, (String, Problem)> {
    Ok(Entry {
        object: object.into(),
        version: None,
        at_least: None,
    })
}

#[test]
fn each_request_is_read_from_both_forms() {
    let precise = Entry {
        object: "b".into(),
        version: Some(Version(7)),
        at_least: Some(Version(6)),
    };
    for (value, id, request) in [
        (
            json!({"subscribe": {"objects": ["a", {"object": "b", "version": 7, "at_least": 6}], "cursor": "c", "more": true}, "id": 1}),
            Some(RequestId::Number(1)),
            Request::Subscribe {
                objects: vec![entry("a"), Ok(precise)],
                cursor: Some("c".into()),
                more: true,
            },
        ),
        (
            json!({"id": "x", "subscribe": {"objects": [], "cursor": null, "later": [{}]}, "also": {"a": [1.5]}}),
            Some(RequestId::Text("x".into())),
            Request::Subscribe {
                objects: vec![],
                cursor: None,
                more: false,
            },
        ),
        (
            json!({"unsubscribe": {"objects": ["a"], "cursor": 7}}),
            None,
            Request::Unsubscribe {
                objects: vec![entry("a")],
            },
        ),
        (
            json!({"auth": {"token": "t"}, "id": null}),
            None,
            Request::Auth { token: "t".into() },
        ),
        (json!({"ping": {}}), None, Request::Ping),
        (json!({"ping": {"deep": [[[]]]}}), None, Request::Ping),
    ] {
        let expect = vec![(id, Ok(request))];
        assert_eq!(parse_requests(JSON, value.to_string().as_bytes(), 9), expect);
        assert_eq!(
            parse_requests(JSON, serde_json::to_string_pretty(&value).unwrap().as_bytes(), 9),
            expect
        );
        assert_eq!(parse_requests(PACKED, &pack(&value), 9), expect);
    }
}

#[test]
fn a_bad_object_spoils_only_itself() {
    let value = json!({"subscribe": {"objects": ["a", "", "x\ny", "é".repeat(200), {"object": "", "version": 1}]}});
    for requests in [
        parse_requests(JSON, value.to_string().as_bytes(), 5),
        parse_requests(PACKED, &pack(&value), 5),
    ] {
        let [(None, Ok(Request::Subscribe { objects, .. }))] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        assert_eq!(objects[0], entry("a"));
        let echoes = ["", "x\u{fffd}y", &"é".repeat(128), ""];
        for (object, echo) in objects[1..].iter().zip(echoes) {
            let (told, problem) = object.as_ref().unwrap_err();
            assert_eq!(told, echo);
            assert_eq!(problem.code, Code::InvalidObject);
            assert!(problem.detail.contains("`object`"), "{problem}");
        }
    }
}

#[test]
fn a_failed_request_keeps_its_id_wherever_it_stands() {
    for text in [
        r#"{"id":5,"subscribe":7}"#,
        r#"{"subscribe":7,"id":5}"#,
        r#"{"subscribe":{"objects":[7]},"id":5}"#,
        r#"{"ping":{},"auth":{},"id":5}"#,
        r#"{"id":5}"#,
        r#"{"id":5,"id":6,"ping":{}}"#,
    ] {
        let (id, request) = parse_requests(JSON, text.as_bytes(), 9).remove(0);
        assert_eq!((id, request.is_err()), (Some(RequestId::Number(5)), true), "{text}");
    }
    let packed = pack(&json!({"subscribe": 7, "id": 5}));
    assert_eq!(parse_requests(PACKED, &packed, 9)[0].0, Some(RequestId::Number(5)));
}

#[test]
fn requests_joined_by_newlines_fail_one_by_one() {
    let text = "{\"ping\":{},\"id\":1}\n{\"subscribe\":7,\"id\":2}\r\n{broken\n\n{\"ping\":{},\"id\":4}{\"ping\":{},\"id\":5}\n";
    let read: Vec<_> = parse_requests(JSON, text.as_bytes(), 9)
        .into_iter()
        .map(|(id, request)| (id, request.is_ok()))
        .collect();
    let number = |n| Some(RequestId::Number(n));
    assert_eq!(
        read,
        [
            (number(1), true),
            (number(2), false),
            (None, false),
            (number(4), true),
            (number(5), true)
        ]
    );
}

#[test]
fn a_frame_of_very_many_requests_is_cut_with_one_problem() {
    let text = "{\"ping\":{}}\n".repeat(MAX_REQUESTS_PER_FRAME);
    assert!(
        parse_requests(JSON, text.as_bytes(), 9)
            .iter()
            .all(|(_, request)| request.is_ok())
    );
    let read = parse_requests(JSON, "1 ".repeat(1_000_000).as_bytes(), 9);
    assert_eq!(read.len(), MAX_REQUESTS_PER_FRAME + 1);
    assert!(read.last().unwrap().1.as_ref().unwrap_err().detail.contains("256"));
}

#[test]
fn polls_are_read_from_body_and_query() {
    let value =
        json!({"session": "s", "cursor": "c", "wait_ms": 0, "add": ["a"], "remove": ["b"], "objects": null, "x": {}});
    let expect = PollRequest {
        objects: None,
        session: Some("s".into()),
        cursor: Some("c".into()),
        wait_ms: Some(0),
        add: vec![entry("a")],
        remove: vec![entry("b")],
    };
    assert_eq!(
        PollRequest::from_json(value.to_string().as_bytes(), 1),
        Ok(expect.clone())
    );
    assert_eq!(PollRequest::from_msgpack(&pack(&value), 1), Ok(expect));
    let read = PollRequest::from_query("object=a%20b&object=c+d%C3%A4&&wait_ms=60000&cursor=x-_&trace=1&odd", 2);
    let objects = Some(vec![entry("a b"), entry("c dä")]);
    let expect = PollRequest {
        objects,
        cursor: Some("x-_".into()),
        wait_ms: Some(60_000),
        ..PollRequest::default()
    };
    assert_eq!(read, Ok(expect));
}

#[test]
fn streams_and_sessions_are_read_alike() {
    let value = json!({"objects": ["a"], "cursor": "c"});
    let expect = EventsRequest {
        objects: Some(vec![entry("a")]),
        cursor: Some("c".into()),
        session: None,
    };
    assert_eq!(
        EventsRequest::from_json(value.to_string().as_bytes(), 1),
        Ok(expect.clone())
    );
    assert_eq!(EventsRequest::from_msgpack(&pack(&value), 1), Ok(expect.clone()));
    assert_eq!(EventsRequest::from_query("object=a&cursor=c", 1), Ok(expect));
    let session = EventsRequest {
        session: Some("s".into()),
        ..EventsRequest::default()
    };
    assert_eq!(EventsRequest::from_query("session=s", 1), Ok(session));
    let expect = SessionRequest {
        objects: vec![entry("a")],
    };
    assert_eq!(
        SessionRequest::from_json(value.to_string().as_bytes(), 1),
        Ok(expect.clone())
    );
    assert_eq!(SessionRequest::from_msgpack(&pack(&value), 1), Ok(expect));
}

#[test]
fn a_hundred_thousand_levels_and_a_million_objects_end_in_a_problem() {
    let deep = 100_000;
    for (open, close) in [
        ("[", "]"),
        ("{\"a\":", "}"),
        ("{\"subscribe\":", "}"),
        ("{\"subscribe\":{\"objects\":[", "]}}"),
    ] {
        for text in [open.repeat(deep), open.repeat(deep) + "1" + &close.repeat(deep)] {
            assert!(
                parse_requests(JSON, text.as_bytes(), 9)
                    .iter()
                    .any(|(_, request)| request.is_err())
            );
            assert!(PollRequest::from_json(text.as_bytes(), 9).is_err());
            let unknown = format!("{{\"ping\":{{}},\"unknown\":{text}}}");
            assert!(!parse_requests(JSON, unknown.as_bytes(), 9).is_empty());
        }
    }
    for tag in [0x91, 0x81, 0xdd, 0xdf, 0xdc] {
        assert!(parse_requests(PACKED, &vec![tag; deep], 9)[0].1.is_err());
    }
    let mut packed = b"\x82\xa4ping\x80\xa1x".to_vec();
    packed.extend(vec![0x91; deep]);
    packed.push(0xc0);
    assert!(parse_requests(PACKED, &packed, 9)[0].1.is_err());
    let million = json!({"subscribe": {"objects": vec!["o"; 1_000_000]}, "id": 3});
    let texts = [(JSON, million.to_string().into_bytes()), (PACKED, pack(&million))];
    for (encoding, bytes) in texts {
        let (id, request) = parse_requests(encoding, &bytes, 100).remove(0);
        assert_eq!(id, Some(RequestId::Number(3)));
        assert_eq!(request.unwrap_err().code, Code::TooManyObjects);
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    for bytes in [
        &b"{\"object\":\"a\xff\"}"[..],
        b"\xff",
        b"{\"object\":\"a\",\"data\":\"\xc3\"}",
        b"{\"\xff\":1,\"object\":\"a\"}",
    ] {
        assert_eq!(parse_publish_line(bytes).unwrap_err().code, Code::BadRequest);
        assert_eq!(parse_publish_json(bytes, 9).unwrap_err().code, Code::BadRequest);
        assert_eq!(PollRequest::from_json(bytes, 9).unwrap_err().code, Code::BadRequest);
        let requests = parse_requests(JSON, bytes, 9);
        assert_eq!(requests[0].1.as_ref().unwrap_err().code, Code::BadRequest);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in Encoding::ALL {
            prop_assert!(!parse_requests(encoding, &bytes, 5).is_empty());
        }
        let _read = PollRequest::from_json(&bytes, 5);
        let _read = PollRequest::from_msgpack(&bytes, 5);
        let _read = PollRequest::from_query(&String::from_utf8_lossy(&bytes), 5);
    }

    #[test]
    fn nearly_json_never_panics_either(text in r#"([{}\[\],:"\\\n ]|"(subscribe|objects|object|id|ping|auth|token|more)"|[0-9.eE-]|null|true|\\u[dD]8){0,40}"#) {
        prop_assert!(!parse_requests(JSON, text.as_bytes(), 5).is_empty());
    }

    #[test]
    fn a_request_cut_anywhere_is_refused(at in any::<prop::sample::Index>()) {
        let value = json!({"subscribe": {"objects": ["a", {"object": "é", "version": 70_000}], "more": true}, "id": "x"});
        let (text, packed) = (value.to_string().into_bytes(), pack(&value));
        for (encoding, bytes) in [(JSON, text), (PACKED, packed)] {
            let requests = parse_requests(encoding, &bytes[..at.index(bytes.len())], 5);
            prop_assert!(requests.iter().all(|(_, request)| request.is_err()));
        }
    }

    #[test]
    fn flipped_bits_never_panic(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let value = json!({"subscribe": {"objects": ["a", {"object": "é", "version": 70_000}], "more": true}, "id": "x"});
        for (encoding, mut bytes) in [(JSON, value.to_string().into_bytes()), (PACKED, pack(&value))] {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(!parse_requests(encoding, &bytes, 5).is_empty());
        }
    }
}
