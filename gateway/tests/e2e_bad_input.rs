//! Everything a client must not send. After each piece of it the server lives, and a subscriber that has nothing to do
//! with it misses nothing.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::net::SocketAddr;
use support::*;

const PACKED: &str = "application/msgpack";
const JSON: &str = "application/json";

/// Where a body is read, and what its list of objects is called.
const BODIES: [(&str, &str); 4] = [
    ("/v1/publish", "changes"),
    ("/v1/poll", "objects"),
    ("/v1/sessions", "objects"),
    ("/v1/events", "objects"),
];

/// A refusal of the client's own making, as a problem document. Never a fault of the server.
#[track_caller]
fn refused(answer: &Answer, what: &str) {
    assert!(
        (400..500).contains(&answer.status),
        "{what}: {} {}",
        answer.status,
        answer.text()
    );
    let code = answer.code();
    assert_ne!(code, "internal", "{what}");
    let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.len() < 1_000, "{what}: {} bytes of detail", detail.len());
    assert!(
        !detail.contains(['\u{7}', '\u{1b}', '\0']),
        "{what}: control characters come back"
    );
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn bodies_that_are_no_document_are_refused_on_every_route() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let deep = 100_000;
    let texts: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"}".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"7".to_vec(),
        b"\"text\"".to_vec(),
        b"   ".to_vec(),
        b"{}{}".to_vec(),
        b"{} trailing".to_vec(),
        b"{\"object\":\"a\",}".to_vec(),
        b"{'object':'a'}".to_vec(),
        b"{\"object\":\"a\xff\"}".to_vec(),
        b"{\"object\":\"a\n\"}".to_vec(),
        b"\xef\xbb\xbf{\"object\":\"a\"}".to_vec(),
        b"{\"objects\":[\"\\ud800\"],\"object\":\"\\ud800\"}".to_vec(),
        b"{\"object\":\"a\",\"object\":\"b\",\"objects\":[\"a\"],\"objects\":[\"b\"]}".to_vec(),
        vec![0; 64],
        nested(deep, "[", "]").into_bytes(),
        nested(deep, "{\"a\":", "}").into_bytes(),
        format!("{{\"changes\":{0},\"objects\":{0}}}", nested(deep, "[", "]")).into_bytes(),
        format!(
            "{{\"object\":\"a\",\"data\":{0},\"objects\":[{{\"object\":{0}}}]}}",
            nested(deep, "[", "]")
        )
        .into_bytes(),
        "[".repeat(deep).into_bytes(),
    ];
    for (target, _) in BODIES {
        for text in &texts {
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            let answer = post(node.addr, target, JSON, text);
            if answer.status == 200 && shown.starts_with("{\"changes\"") {
                // One change of a list spoils only itself.
                assert_eq!(answer.json()["results"][0]["error"]["code"], "bad_request");
            } else {
                refused(&answer, &format!("{target} {shown}"));
            }
        }
        bystander.misses_nothing();
    }
}

#[test]
fn fields_of_a_wrong_type_or_value_are_refused_by_name() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let wrong_objects = [
        json!(7),
        json!("a"),
        json!({}),
        json!([7]),
        json!([["a"]]),
        json!([null]),
        json!([true]),
        json!([{ "object": 1 }]),
        json!([{}]),
        json!([{ "object": "a", "version": "1" }]),
        json!([{ "object": "a", "version": -1 }]),
        json!([{ "object": "a", "version": 1.5 }]),
        json!([{ "object": "a", "version": 9_007_199_254_740_992_u64 }]),
        json!([{ "object": "a", "at_least": [] }]),
        json!([{ "object": "a", "at_least": u64::MAX }]),
    ];
    let mut cases: Vec<(&str, Value, &str)> = Vec::new();
    for objects in wrong_objects {
        for target in ["/v1/poll", "/v1/sessions", "/v1/events"] {
            cases.push((target, json!({ "objects": objects }), "objects"));
        }
        cases.push(("/v1/poll", json!({ "session": "x", "add": objects }), "add"));
    }
    for value in [
        json!("1"),
        json!(-1),
        json!(60_001),
        json!(0.5),
        json!([]),
        json!(u64::MAX),
    ] {
        cases.push(("/v1/poll", json!({ "objects": ["a"], "wait_ms": value }), "wait_ms"));
    }
    for value in [json!(1), json!([]), json!({})] {
        cases.push(("/v1/poll", json!({ "objects": ["a"], "cursor": value }), "cursor"));
        cases.push(("/v1/events", json!({ "objects": ["a"], "cursor": value }), "cursor"));
        cases.push(("/v1/poll", json!({ "session": value }), "session"));
        cases.push(("/v1/publish", json!({ "object": value }), "object"));
        cases.push(("/v1/publish", json!({ "object": "a", "kind": value }), "kind"));
    }
    for value in [
        json!("1"),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_992_u64),
        json!([]),
    ] {
        cases.push(("/v1/publish", json!({ "object": "a", "revision": value }), "revision"));
    }
    for value in [json!(1), json!("a"), json!({})] {
        cases.push(("/v1/publish", json!({ "changes": value }), "changes"));
    }
    for kind in ["".to_owned(), "x".repeat(33), "a\u{7}b".to_owned(), "\u{85}".to_owned()] {
        cases.push(("/v1/publish", json!({ "object": "a", "kind": kind }), "kind"));
    }
    for object in [
        "".to_owned(),
        "x".repeat(256),
        "ü".repeat(128),
        "a\nb".to_owned(),
        "\u{7f}".to_owned(),
        "\u{9f}".to_owned(),
        "\0".to_owned(),
    ] {
        cases.push(("/v1/publish", json!({ "object": object }), "object"));
    }
    for (target, body, field) in &cases {
        for packed in [false, true] {
            let answer = match packed {
                false => post_json(node.addr, target, body),
                true => post(
                    node.addr,
                    target,
                    PACKED,
                    &rmp_serde::to_vec_named(body).expect("packed"),
                ),
            };
            // A list of objects may be answered with each bad one refused in its place.
            let in_place =
                answer.status < 300 && answer.text().contains("error") && !answer.text().contains("event: resync");
            if !in_place || *field != "objects" && *field != "add" {
                refused(&answer, &format!("{target} {body} packed: {packed}"));
                let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
                // A list says which field of its entry it was.
                let inside = ["`object`", "`version`", "`at_least`"];
                let named = detail.contains(&format!("`{field}`")) || inside.iter().any(|name| detail.contains(name));
                assert!(named, "{target} {body}: {detail}");
            }
        }
    }
    bystander.misses_nothing();
}

#[test]
fn twice_the_same_field_is_refused_and_an_unknown_field_is_passed_over() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let twice = [
        ("/v1/publish", r#"{"object":"a","object":"a"}"#),
        ("/v1/publish", r#"{"object":"a","kind":"x","kind":"x"}"#),
        ("/v1/publish", r#"{"object":"a","data":1,"data":1}"#),
        ("/v1/publish", r#"{"object":"a","revision":1,"revision":1}"#),
        ("/v1/publish", r#"{"changes":[],"changes":[]}"#),
        ("/v1/publish", r#"{"changes":[{"object":"a"}],"object":"a"}"#),
        ("/v1/poll", r#"{"objects":["a"],"objects":["a"]}"#),
        ("/v1/poll", r#"{"objects":["a"],"cursor":"","cursor":""}"#),
        ("/v1/poll", r#"{"objects":["a"],"wait_ms":0,"wait_ms":0}"#),
        ("/v1/poll", r#"{"objects":[{"object":"a","object":"b"}]}"#),
        ("/v1/sessions", r#"{"objects":["a"],"objects":["a"]}"#),
        ("/v1/events", r#"{"objects":["a"],"cursor":"x","cursor":"x"}"#),
    ];
    for (target, body) in twice {
        let answer = post(node.addr, target, JSON, body.as_bytes());
        if answer.status == 200 {
            // One entry among several is refused in its place.
            assert_eq!(
                answer.json()["refused"].as_array().map(Vec::len),
                Some(1),
                "{target} {body}: {}",
                answer.text()
            );
        } else {
            refused(&answer, body);
        }
    }
    for query in [
        "/v1/poll?object=a&wait_ms=0&wait_ms=0",
        "/v1/poll?object=a&cursor=x&cursor=y",
        "/v1/poll?session=x&session=x",
    ] {
        refused(&get(node.addr, query), query);
    }
    for query in [
        "ack=accepted&ack=accepted",
        "trace=1&trace=1",
        "timeout_ms=5&timeout_ms=5",
        "kind=a&kind=a",
        "revision=1&revision=1",
    ] {
        refused(
            &send(node.addr, "POST", &format!("/v1/publish?object=a&{query}"), "", b""),
            query,
        );
    }
    let odd = json!({ "nobody": { "knows": [1, 2, { "this": null }] }, "Object": "capital" });
    let with = |mut body: Value| {
        body.as_object_mut()
            .expect("a map")
            .extend(odd.as_object().expect("a map").clone());
        body
    };
    post_json(node.addr, "/v1/publish", &with(json!({ "object": "a" }))).ok();
    post_json(
        node.addr,
        "/v1/publish",
        &with(json!({ "changes": [with(json!({ "object": "a" }))] })),
    )
    .ok();
    post_json(
        node.addr,
        "/v1/poll",
        &with(json!({ "objects": [with(json!({ "object": "a" }))], "wait_ms": 0 })),
    )
    .ok();
    assert_eq!(
        post_json(node.addr, "/v1/sessions", &with(json!({ "objects": ["a"] }))).status,
        201
    );
    Events::post(node.addr, &with(json!({ "objects": ["a"] }))).hear_of("hello");
    get(node.addr, "/v1/poll?object=a&unknown=1&unknown=2").ok();
    send(node.addr, "POST", "/v1/publish?object=a&unknown=1", "", b"").ok();
    let mut ws = Ws::open(node.addr);
    let answer = ws.ask(&with(
        json!({ "subscribe": with(json!({ "objects": [with(json!({ "object": "a" }))] })) }),
    ));
    assert!(answer["subscribed"]["objects"][0]["error"].is_null(), "{answer}");
    bystander.misses_nothing();
}

#[test]
fn queries_that_are_no_query_are_refused() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    for query in [
        "object=%",
        "object=%4",
        "object=%zz",
        "object=%ff",
        "object=%c3%28",
        "%ff=a&object=a",
        "object=%ed%a0%80",
    ] {
        for target in ["/v1/poll", "/v1/events", "/v1/object"] {
            refused(&get(node.addr, &format!("{target}?{query}")), query);
        }
        refused(
            &send(node.addr, "POST", &format!("/v1/publish?{query}"), "", b""),
            query,
        );
    }
    for query in [
        "object=%00",
        "object=a%0d%0ab",
        "object=",
        &format!("object={}", "x".repeat(256)),
    ] {
        let answer = get(node.addr, &format!("/v1/poll?{query}")).ok();
        assert_eq!(answer["refused"][0]["error"]["code"], "invalid_object", "{query}");
        refused(
            &send(node.addr, "POST", &format!("/v1/publish?{query}"), "", b""),
            query,
        );
    }
    for query in ["", "?", "?cursor=x", "?wait_ms=0", "?Object=a", "?objects=a"] {
        assert_eq!(
            get(node.addr, &format!("/v1/poll{query}")).code(),
            "no_objects",
            "{query}"
        );
        assert_eq!(
            get(node.addr, &format!("/v1/events{query}")).code(),
            "no_objects",
            "{query}"
        );
    }
    for wait in [
        "",
        "x",
        "-1",
        "60001",
        "1.0",
        "+1",
        "0x10",
        " 1",
        "99999999999999999999999",
    ] {
        let answer = get(
            node.addr,
            &format!("/v1/poll?object=a&wait_ms={}", wait.replace(' ', "%20")),
        );
        assert_eq!(answer.code(), "invalid_field", "{wait}");
    }
    for (target, code) in [
        ("/v1/connections?limit=0", ""),
        ("/v1/connections?limit=x", ""),
        ("/v1/connections?after=zz", ""),
        ("/v1/connections/zz", "not_found"),
        ("/v1/connections/0-0-7", "not_found"),
        ("/v1/connections/ffffffff-0-0", "not_found"),
        ("/v1/explain", ""),
        ("/v1/explain?connection=0-0-0", ""),
        ("/v1/explain?connection=0-7777-0&object=a", "not_found"),
        ("/v1/explain?connection=0-0-0&object=", ""),
        ("/v1/nowhere", "not_found"),
        ("/", ""),
    ] {
        let answer = get(node.addr, target);
        assert!((300..500).contains(&answer.status), "{target}: {}", answer.status);
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "{target}");
        }
    }
    bystander.misses_nothing();
}

#[test]
fn a_path_with_another_method_is_405_and_no_path_404() {
    let node = node();
    for (method, target) in [
        ("GET", "/v1/publish"),
        ("PUT", "/v1/publish"),
        ("DELETE", "/v1/poll"),
        ("GET", "/v1/sessions"),
        ("POST", "/v1/ws"),
        ("PATCH", "/v1/events"),
        ("POST", "/healthz"),
        ("POST", "/v1/object"),
        ("BREW", "/v1/poll"),
    ] {
        let answer = send(node.addr, method, target, "", b"");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "method_not_allowed"),
            "{method} {target}"
        );
        assert!(
            answer.header("allow").is_some(),
            "{method} {target}: RFC 9110 wants an Allow header"
        );
    }
    for target in [
        "/v1",
        "/v1/",
        "/v1/publish/",
        "/V1/publish",
        "/v1/publish/x",
        "//v1/publish",
        "/v1/%70ublish",
        "/v1/../v1/poll",
    ] {
        assert_eq!(send(node.addr, "POST", target, "", b"").status, 404, "{target}");
    }
}

#[test]
fn content_types_that_a_publish_does_not_read_are_refused() {
    let node = node();
    for kind in [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "",
        "json",
        "application/jsonx",
    ] {
        let answer = post(node.addr, "/v1/publish", kind, br#"{"object":"a"}"#);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (415, "unsupported_media_type"),
            "{kind}"
        );
        assert_eq!(answer.json()["applied"], "no");
    }
    for kind in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/json;x=y",
    ] {
        post(node.addr, "/v1/publish", kind, br#"{"object":"a"}"#).ok();
    }
    assert_eq!(version_of(node.addr, "missing"), None);
}

/// What could stand where a cursor belongs, beside real ones that are damaged.
fn odd_cursors(real: &str) -> Vec<String> {
    let mut cursors: Vec<String> = ["", "x", "0", "null", "AAAA", "....", "a b", "ü", "%00", "\u{1f600}"]
        .map(str::to_owned)
        .to_vec();
    cursors.push("A".repeat(2_048));
    cursors.push("A".repeat(3_000));
    cursors.push(real[..real.len() - 1].to_owned());
    cursors.push(format!("{real}A"));
    cursors.push(real.replace(|c: char| c.is_ascii_digit(), "_"));
    cursors.push(real.to_lowercase());
    for place in [0, 1, real.len() / 2, real.len() - 1] {
        let mut bytes = real.as_bytes().to_vec();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        cursors.push(String::from_utf8(bytes).expect("text"));
    }
    cursors.retain(|cursor| cursor != real);
    cursors
}

#[test]
fn a_cursor_that_is_none_means_fetching_everything_once_and_never_a_loop() {
    let node = node();
    let elsewhere = support::node();
    let mut bystander = Bystander::new(node.addr);
    let objects = ["a", "b"];
    let settle = |at: SocketAddr| {
        let version = publish(at, "a");
        Poller::resume(Poll::of(at, &objects), "").up_to(version).cursor
    };
    let real = settle(node.addr);
    let foreign = settle(elsewhere.addr);
    let own = tidings_protocol::Cursor::decode(&real).expect("a cursor");
    let future = tidings_protocol::Version(own.base.0 + 3_600_000_000);
    let future = tidings_protocol::Cursor::new(own.cluster, future, Vec::new(), Vec::new())
        .encode()
        .expect("short");
    let endless = tidings_protocol::Version((1 << 53) - 1);
    let endless = tidings_protocol::Cursor::new(own.cluster, endless, Vec::new(), Vec::new())
        .encode()
        .expect("short");
    let mut cases = vec![
        (foreign, "cursor_foreign"),
        (future, "cursor_future"),
        (endless, "cursor_future"),
    ];
    cases.extend(
        odd_cursors(&real)
            .into_iter()
            .map(|cursor| (cursor, "cursor_unreadable")),
    );
    for (cursor, cause) in &cases {
        let mut poller = Poller::resume(Poll::of(node.addr, &objects), cursor);
        let answer = poller.next(5_000);
        assert_eq!(
            answer["resync"],
            json!({ "all": true, "cause": cause }),
            "{cursor:?}: {answer}"
        );
        assert_ne!(poller.cursor, *cursor);
        // The next poll has a cursor that works: it waits, and it tells what is new and nothing else.
        let version = publish(node.addr, "b");
        let heard = poller.up_to(version);
        assert!(
            heard.resyncs.is_empty() && heard.newest["b"] == version,
            "{cursor:?}: {heard:?}"
        );

        let mut ws = Ws::open(node.addr);
        ws.subscribe_with(&objects, Some(cursor));
        assert_eq!(ws.hear_of("resync"), json!({ "all": true, "cause": cause }));
        let fresh = ws.hear_of("cursor").as_str().expect("text").to_owned();
        let mut again = Ws::open(node.addr);
        again.subscribe_with(&objects, Some(&fresh));
        let version = publish(node.addr, "a");
        let heard = again.up_to(version);
        assert!(heard.resyncs.is_empty(), "{cursor:?}: {heard:?}");

        let mut stream = Events::post(node.addr, &json!({ "objects": objects, "cursor": cursor }));
        assert_eq!(stream.hear_of("resync"), json!({ "all": true, "cause": cause }));
        stream.hear_of("cursor");
    }
    bystander.misses_nothing();
}

#[test]
fn a_bad_last_event_id_means_fetching_everything_too() {
    let node = node();
    for id in ["x", "\u{ff}", &"A".repeat(5_000)] {
        let mut stream = Events::open_with(
            Raw::open(node.addr),
            "/v1/events?object=a",
            &format!("Last-Event-ID: {id}\r\n"),
        );
        assert_eq!(
            stream.hear_of("resync"),
            json!({ "all": true, "cause": "cursor_unreadable" })
        );
        stream.hear_of("cursor");
    }
}

#[test]
fn cut_and_odd_messagepack_is_refused_at_every_length() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    for (target, list) in BODIES {
        let body = match list {
            "changes" => {
                json!({ "changes": [{ "object": "cut", "kind": "k", "data": { "x": [1, 2, 3] }, "revision": 7 }] })
            }
            _ => json!({ "objects": ["cut", { "object": "b", "version": 1_000_000 }] }),
        };
        let whole = rmp_serde::to_vec_named(&body).expect("packed");
        for length in 1..whole.len() {
            refused(
                &post(node.addr, target, PACKED, &whole[..length]),
                &format!("{target} cut at {length}"),
            );
        }
        let mut odd: Vec<Vec<u8>> = vec![
            // Lengths of 4 GiB that are not there: array, map, text, binary, extension.
            vec![0xdd, 0xff, 0xff, 0xff, 0xff],
            vec![0xdf, 0xff, 0xff, 0xff, 0xff],
            vec![0xdb, 0xff, 0xff, 0xff, 0xff],
            vec![0xc6, 0xff, 0xff, 0xff, 0xff],
            vec![0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
            vec![0xc1],
            vec![
                0x81, 0xa7, b'o', b'b', b'j', b'e', b'c', b't', b's', 0xdd, 0xff, 0xff, 0xff, 0xff,
            ],
            vec![
                0x81, 0xa7, b'c', b'h', b'a', b'n', b'g', b'e', b's', 0xdd, 0xff, 0xff, 0xff, 0xff,
            ],
            [vec![0x91; 100_000], vec![0x01]].concat(),
            [[0x81, 0xa1, b'a'].repeat(100_000), vec![0x01]].concat(),
            // A map whose names are numbers, or bytes that are no UTF-8.
            vec![0x81, 0x01, 0x01],
            vec![0x81, 0xa1, 0xff, 0x01],
            vec![0x81, 0xa6, b'o', b'b', b'j', b'e', b'c', b't', 0xa1, 0xff],
        ];
        odd.push([whole.clone(), vec![0xc0]].concat());
        for bytes in odd {
            let shown = format!("{target} {:02x?}", &bytes[..bytes.len().min(16)]);
            refused(&post(node.addr, target, PACKED, &bytes), &shown);
        }
        bystander.misses_nothing();
    }
    assert_eq!(version_of(node.addr, "cut"), None);
}

#[test]
fn a_million_objects_in_one_request_are_refused_everywhere() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let list = format!("[{}1]", "\"o\",".repeat(1_000_000));
    for (target, name) in BODIES {
        let answer = post(node.addr, target, JSON, format!("{{\"{name}\":{list}}}").as_bytes());
        assert_eq!(answer.status, 413, "{target}: {}", answer.text());
        assert!(
            ["too_large", "too_many_objects", "too_many_changes"].contains(&answer.code().as_str()),
            "{target}"
        );
        bystander.misses_nothing();
    }
    // Small enough in bytes, too many in number.
    let list = format!("[{}\"o\"]", "\"o\",".repeat(1_000));
    for (target, name) in &BODIES[1..] {
        let answer = post(node.addr, target, JSON, format!("{{\"{name}\":{list}}}").as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "too_many_objects"),
            "{target}"
        );
    }
    let mut packed = vec![0x81, 0xa7];
    packed.extend_from_slice(b"objects");
    packed.extend_from_slice(&[0xdd, 0, 0x0f, 0x42, 0x40]);
    packed.extend(std::iter::repeat_n([0xa1, b'o'], 1_000_000).flatten());
    for (target, _) in &BODIES[1..] {
        assert_eq!(post(node.addr, target, PACKED, &packed).status, 413, "{target}");
    }
    bystander.misses_nothing();
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
    let node = node();
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
    let node = node_with(|config| config.limits.stuck_ms = 1_000);
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

#[test]
fn random_bytes_at_every_place_leave_the_server_alive() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 24) as u8
            })
            .collect()
    };
    for round in 0..100 {
        let mut raw = Raw::open(node.addr);
        raw.try_send(random(1 + round * 7));
        raw.half_close();
        raw.rest();
        let mut ws = RawWs::open(node.addr);
        ws.raw.try_send(random(1 + round * 13));
        ws.raw.half_close();
        ws.raw.rest();
        for (target, _) in BODIES {
            let answer = post(node.addr, target, PACKED, &random(1 + round));
            assert!(answer.status < 500, "{target}: {}", answer.text());
        }
    }
    bystander.misses_nothing();
}
