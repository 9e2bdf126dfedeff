//! Everything a client must not send. After each piece of it the server lives, and a subscriber that has nothing to do
//! with it misses nothing.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
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
        ("/v1/connections?limit=0", "invalid_field"),
        ("/v1/connections?limit=x", "invalid_field"),
        ("/v1/connections?after=zz", ""),
        ("/v1/connections/zz", "not_found"),
        ("/v1/connections/0-0-7", "not_found"),
        ("/v1/connections/ffffffff-0-0", "not_found"),
        ("/v1/connections?limit=1001", "invalid_field"),
        ("/v1/connections?transport=pigeon", "invalid_field"),
        ("/v1/connections?order=alphabet", "invalid_field"),
        ("/v1/connections?order=lag&after=0-0-0", "invalid_field"),
        ("/v1/connections?watching=", "invalid_object"),
        ("/v1/connections/0-0-7/objects", "not_found"),
        ("/v1/connections/0-0-7/objects?limit=0", "invalid_field"),
        ("/v1/live?span=eternity", "invalid_field"),
        ("/v1/live?after=-1", "invalid_field"),
        ("/v1/cluster/events?limit=501", "invalid_field"),
        ("/v1/cluster/figures?order=beauty", "invalid_field"),
        ("/v1/cluster/figures?limit=0", "invalid_field"),
        ("/v1/cluster/figures?limit=1001", "invalid_field"),
        ("/v1/live?node=nobody", "not_found"),
        ("/v1/live?node=*&span=eternity", "invalid_field"),
        ("/v1/live?node=*&node=*", "invalid_field"),
        ("/v1/connections?node=*&limit=101", "invalid_field"),
        ("/v1/connections?node=*&after=0-0-0", "invalid_field"),
        ("/v1/connections?node=*&order=alphabet", "invalid_field"),
        ("/v1/connections?node=*&watching=", "invalid_object"),
        ("/v1/connections/0-0-7?node=*", "invalid_field"),
        ("/v1/explain", "invalid_field"),
        ("/v1/explain?connection=0-0-0", "invalid_field"),
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
