//! Every form of a publish through a real node.

use crate::RunningNode;
use crate::testing::{Raw, ask, node, post};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const JSON: &str = "Content-Type: application/json\r\n";
const LINES: &str = "Content-Type: application/x-ndjson\r\n";
const PACKED: &str = "Content-Type: application/msgpack\r\n";

fn send(node: &RunningNode, target: &str, headers: &str, body: &[u8]) -> Value {
    let answer = post(node.addr, target, headers, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn version(node: &RunningNode, object: &str) -> Value {
    let answer = ask(
        node.addr,
        &format!("GET /v1/object?object={object} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    );
    answer.json()["version"].clone()
}

#[test]
fn one_change_gets_a_version_which_the_object_then_has() {
    let node = node(|_| {});
    assert_eq!(version(&node, "a"), Value::Null);
    let first = send(
        &node,
        "/v1/publish",
        JSON,
        br#"{"object":"a","kind":"updated","data":{"total":12}}"#,
    );
    assert_eq!(version(&node, "a"), first["version"]);
    let second = send(&node, "/v1/publish", "", br#"{"object":"a"}"#);
    assert!(second["version"].as_u64() > first["version"].as_u64());
}

#[test]
fn the_shortest_curl_names_objects_in_the_query() {
    let node = node(|_| {});
    let one = send(&node, "/v1/publish?object=a", "", b"");
    assert_eq!(version(&node, "a"), one["version"]);
    let two = send(&node, "/v1/publish?object=a&object=b%20c", "", b"");
    assert_eq!(version(&node, "a"), two["results"][0]["version"]);
    assert_eq!(version(&node, "b%20c"), two["results"][1]["version"]);
}

#[test]
fn results_of_a_list_are_in_its_order_whoever_owns_the_objects() {
    let node = node(|_| {});
    let objects: Vec<String> = (0..200)
        .map(|n| if n == 77 { String::new() } else { format!("o{n}") })
        .collect();
    let changes: Vec<Value> = objects.iter().map(|object| json!({"object": object})).collect();
    let answer = send(
        &node,
        "/v1/publish",
        JSON,
        json!({"changes": changes}).to_string().as_bytes(),
    );
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 200);
    assert_eq!(results[77]["error"]["code"], "invalid_object");
    assert_eq!(results[77]["error"]["applied"], "no");
    for n in [0, 1, 2, 76, 78, 199] {
        assert_eq!(results[n]["version"], version(&node, &objects[n]), "{n}");
    }
}

#[test]
fn a_stream_goes_on_after_bad_lines_and_sums_up() {
    let node = node(|config| config.limits.publish_line_bytes = 2_000);
    let mut body = String::new();
    for n in 0..10_000 {
        body.push_str(&format!("{{\"object\":\"o{n}\"}}\n"));
    }
    body.push_str("\nnonsense\r\n");
    body.push_str(&format!("{{\"object\":\"{}\"}}\n", "x".repeat(2_000)));
    body.push_str("{\"object\":\"last\"}");
    let sum = send(&node, "/v1/publish", LINES, body.as_bytes());
    assert_eq!(
        (&sum["accepted"], &sum["rejected"]),
        (&json!(10_001), &json!(2)),
        "{sum}"
    );
    assert_eq!(
        (&sum["errors"][0]["line"], &sum["errors"][0]["code"]),
        (&json!(10_002), &json!("bad_request"))
    );
    assert_eq!(
        (&sum["errors"][1]["line"], &sum["errors"][1]["code"]),
        (&json!(10_003), &json!("too_large"))
    );
    assert!(version(&node, "last").as_u64() <= sum["version"].as_u64());
    assert!(version(&node, "o9999").is_u64());
}

#[test]
fn a_stream_names_its_first_hundred_errors_only() {
    let node = node(|_| {});
    let sum = send(&node, "/v1/publish", LINES, "{}\n".repeat(250).as_bytes());
    assert_eq!(sum["rejected"], 250);
    assert_eq!(sum["errors"].as_array().map(Vec::len), Some(100));
    assert_eq!(sum["version"], Value::Null);
}

#[test]
fn message_pack_comes_back_as_it_came_unless_json_is_asked_for() {
    let node = node(|_| {});
    let body = rmp_serde::to_vec_named(&json!({"object": "a", "data": [1, null]})).expect("packed");
    let answer = post(node.addr, "/v1/publish", PACKED, &body);
    assert!(answer.head.contains("content-type: application/msgpack"), "{answer:?}");
    let told: Value = rmp_serde::from_slice(&answer.body).expect("MessagePack");
    assert_eq!(told, json!({"version": version(&node, "a")}));
    let asked = format!("{PACKED}Accept: application/json\r\n");
    assert!(send(&node, "/v1/publish", &asked, &body)["version"].is_u64());
    let packed = format!("{JSON}Accept: application/msgpack\r\n");
    let answer = post(node.addr, "/v1/publish", &packed, br#"{"changes":[{"object":"a"}]}"#);
    let told: Value = rmp_serde::from_slice(&answer.body).expect("MessagePack");
    assert_eq!(told, json!({"results": [{"version": version(&node, "a")}]}));
}

#[test]
fn a_repeat_with_the_same_key_gets_the_first_answer() {
    let node = node(|_| {});
    let keyed = format!("{JSON}Idempotency-Key: once\r\n");
    let body = br#"{"changes":[{"object":"a"},{"object":"b"}]}"#;
    let first = send(&node, "/v1/publish", &keyed, body);
    let again = send(&node, "/v1/publish", &keyed, body);
    for n in 0..2 {
        assert_eq!(again["results"][n]["version"], first["results"][n]["version"]);
        assert_eq!(again["results"][n]["duplicate"], true);
    }
    let other = send(&node, "/v1/publish", JSON, body);
    assert!(other["results"][0]["duplicate"].is_null());
}

#[test]
fn the_same_object_twice_under_one_key_is_two_changes() {
    let node = node(|_| {});
    let keyed = format!("{LINES}Idempotency-Key: lines\r\n");
    let body = b"{\"object\":\"a\"}\n{\"object\":\"a\"}\n";
    assert!(send(&node, "/v1/publish", &keyed, body)["duplicates"].is_null());
    assert_eq!(send(&node, "/v1/publish", &keyed, body)["duplicates"], 2);
}

#[test]
fn a_revision_at_or_below_the_last_changes_nothing() {
    let node = node(|_| {});
    let first = send(&node, "/v1/publish", JSON, br#"{"object":"a","revision":17}"#);
    for revision in [17, 3] {
        let body = json!({"object": "a", "revision": revision}).to_string();
        assert_eq!(
            send(&node, "/v1/publish", JSON, body.as_bytes()),
            json!({"version": first["version"], "duplicate": true})
        );
    }
    let next = send(&node, "/v1/publish?object=a&revision=18", "", b"");
    assert!(next["version"].as_u64() > first["version"].as_u64());
}

#[test]
fn a_trace_names_shard_and_epoch() {
    let node = node(|_| {});
    let one = send(&node, "/v1/publish?trace=1", JSON, br#"{"object":"a"}"#);
    assert!(one["shard"].is_u64() && one["epoch"] == 1, "{one}");
    let list = send(&node, "/v1/publish?object=a&object=b&trace=1", "", b"");
    assert_eq!(list["results"][0]["shard"], one["shard"]);
    assert_eq!(list["results"][1]["epoch"], 1);
}

#[test]
fn every_refusal_says_that_nothing_was_applied() {
    let node = node(|config| {
        config.limits.publish_body_bytes = 1_000;
        config.limits.publish_changes = 3;
    });
    let long_key = format!("{JSON}Idempotency-Key: {}\r\n", "k".repeat(256));
    let three = json!({"changes": [{"object": "a"}, {"object": "a"}, {"object": "a"}, {"object": "a"}]}).to_string();
    let large = vec![b' '; 1_001];
    let cases: [(&str, &str, &[u8], &str); 14] = [
        ("/v1/publish", JSON, b"{", "bad_request"),
        ("/v1/publish", JSON, br#"{"object":1}"#, "invalid_field"),
        ("/v1/publish", JSON, br#"{"object":""}"#, "invalid_object"),
        ("/v1/publish", JSON, br#"{"changes":[]}"#, "no_objects"),
        ("/v1/publish", "", b"", "no_objects"),
        ("/v1/publish?object=", "", b"", "invalid_object"),
        ("/v1/publish?object=a", JSON, br#"{"object":"b"}"#, "bad_request"),
        ("/v1/publish?ack=durable", JSON, br#"{"object":"a"}"#, "ack_unavailable"),
        ("/v1/publish?ack=much", JSON, br#"{"object":"a"}"#, "invalid_field"),
        ("/v1/publish?timeout_ms=0", JSON, br#"{"object":"a"}"#, "invalid_field"),
        (
            "/v1/publish",
            "Content-Type: text/plain\r\n",
            br#"{"object":"a"}"#,
            "unsupported_media_type",
        ),
        ("/v1/publish", &long_key, br#"{"object":"a"}"#, "invalid_field"),
        ("/v1/publish", JSON, three.as_bytes(), "too_many_changes"),
        ("/v1/publish", JSON, &large, "too_large"),
    ];
    for (target, headers, body, code) in cases {
        let answer = post(node.addr, target, headers, body);
        assert_eq!(answer.code(), code, "{target} {headers} {answer:?}");
        assert_eq!(answer.json()["applied"], "no", "{code}");
    }
    assert_eq!(version(&node, "a"), Value::Null);
    assert_eq!(
        ask(node.addr, "GET /v1/publish HTTP/1.1\r\nHost: localhost\r\n\r\n").code(),
        "method_not_allowed"
    );
}

#[test]
fn a_body_far_beyond_the_limit_is_refused_in_a_way_its_sender_can_read() {
    let node = node(|_| {});
    let answer = post(node.addr, "/v1/publish", JSON, &vec![b' '; 8 << 20]);
    assert_eq!(answer.code(), "too_large");
    // Who asks first is answered first.
    let mut raw = Raw::open(node.addr);
    raw.send(
        b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(raw.answer().expect("an answer").status, 413);
}

#[test]
fn each_limit_lets_its_last_through_and_refuses_the_next() {
    let node = node(|config| {
        config.limits.publish_body_bytes = 2_000;
        config.limits.publish_changes = 3;
    });
    let code = |target: &str, headers: &str, body: &[u8]| {
        let answer = post(node.addr, target, headers, body);
        if answer.status == 200 {
            "fine".to_owned()
        } else {
            answer.code()
        }
    };
    let body = |bytes: usize| format!("{:<bytes$}", r#"{"object":"a"}"#).into_bytes();
    assert_eq!(code("/v1/publish", JSON, &body(2_000)), "fine");
    assert_eq!(code("/v1/publish", JSON, &body(2_001)), "too_large");
    let changes = |count: usize| {
        json!({"changes": vec![json!({"object": "a"}); count]})
            .to_string()
            .into_bytes()
    };
    assert_eq!(code("/v1/publish", JSON, &changes(3)), "fine");
    assert_eq!(code("/v1/publish", JSON, &changes(4)), "too_many_changes");
    assert_eq!(code("/v1/publish?object=a&object=a&object=a", "", b""), "fine");
    assert_eq!(
        code("/v1/publish?object=a&object=a&object=a&object=a", "", b""),
        "too_many_changes"
    );
    let key = |bytes: usize| format!("{JSON}Idempotency-Key: {}\r\n", "k".repeat(bytes));
    assert_eq!(code("/v1/publish", &key(255), &body(20)), "fine");
    assert_eq!(code("/v1/publish", &key(256), &body(20)), "invalid_field");
    assert_eq!(code("/v1/publish?timeout_ms=60000", JSON, &body(20)), "fine");
    assert_eq!(code("/v1/publish?timeout_ms=60001", JSON, &body(20)), "invalid_field");
    let object = |bytes: usize| json!({"object": "o".repeat(bytes)}).to_string().into_bytes();
    assert_eq!(code("/v1/publish", JSON, &object(255)), "fine");
    assert_eq!(code("/v1/publish", JSON, &object(256)), "invalid_object");
}

#[test]
fn a_stream_that_pauses_says_that_earlier_lines_may_have_been_applied() {
    let node = node(|config| config.limits.body_idle_ms = 300);
    let mut raw = Raw::open(node.addr);
    raw.send(
        format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\n{LINES}Content-Length: 9999999\r\n\r\n").as_bytes(),
    );
    raw.send("{\"object\":\"a\"}\n".repeat(6_000).as_bytes());
    let answer = raw.answer().expect("an answer");
    assert_eq!(answer.code(), "request_timeout");
    assert_eq!(answer.json()["applied"], "unknown");
    // Nothing had been given to an owner here.
    let mut raw = Raw::open(node.addr);
    raw.send(format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\n{LINES}Content-Length: 99\r\n\r\n{{").as_bytes());
    assert_eq!(raw.answer().expect("an answer").json()["applied"], "no");
}

#[test]
fn a_stop_under_load_answers_every_request_that_it_began_to_read_or_none_of_it() {
    let node = node(|_| {});
    let address = node.addr;
    let answered = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let answered = Arc::clone(&answered);
            std::thread::spawn(move || {
                let mut raw = Raw::open(address);
                let request = format!("POST /v1/publish?object=o{publisher} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                loop {
                    if std::io::Write::write_all(&mut raw.0, request.as_bytes()).is_err() {
                        return;
                    }
                    // `answer` fails the test on a head without its body.
                    let Some(answer) = raw.answer() else { return };
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                    if answer.head.contains("connection: close") {
                        return;
                    }
                }
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(60);
    while answered.load(Ordering::SeqCst) < 100 {
        assert!(Instant::now() < end, "no load in time");
        std::thread::sleep(Duration::from_millis(5));
    }
    node.shutdown();
    for publisher in publishers {
        publisher.join().expect("no broken answer");
    }
}

#[test]
fn a_large_list_is_read_on_another_thread_with_the_same_result() {
    let node = node(|_| {});
    let filler = "x".repeat(400);
    let changes: Vec<Value> = (0..2_000)
        .map(|n| json!({"object": format!("o{n}"), "data": filler}))
        .collect();
    let body = json!({ "changes": changes }).to_string();
    assert!(body.len() > super::READ_ELSEWHERE_BYTES);
    let answer = send(&node, "/v1/publish", JSON, body.as_bytes());
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(2_000));
    assert_eq!(answer["results"][1_999]["version"], version(&node, "o1999"));
}

#[test]
fn many_requests_on_one_connection_also_pipelined() {
    let node = node(|_| {});
    let mut raw = Raw::open(node.addr);
    raw.send(
        "POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .repeat(50)
            .as_bytes(),
    );
    let mut last = 0;
    for _ in 0..50 {
        let version = raw.answer().expect("an answer").json()["version"]
            .as_u64()
            .expect("a version");
        assert!(version > last);
        last = version;
    }
}
