//! Every form of a publish against a real node, seen by a subscriber that has nothing to do with it.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use support::*;

const LINES: &str = "application/x-ndjson";
const PACKED: &str = "application/msgpack";

fn subscriber(at: SocketAddr, objects: &[impl AsRef<str>]) -> Ws {
    let mut ws = Ws::open(at);
    ws.subscribe(objects);
    ws
}

/// Publishes a stream of lines in one request.
#[track_caller]
fn lines(at: SocketAddr, body: &str) -> Value {
    post(at, "/v1/publish", LINES, body.as_bytes()).ok()
}

#[test]
fn one_change_in_every_form_is_told_with_its_version() {
    let node = node();
    let at = node.addr;
    let object = "a b/ü";
    let mut ws = subscriber(at, &[object]);
    let change = json!({ "object": object, "kind": "k", "data": [1, { "x": null }] });
    let packed = rmp_serde::to_vec_named(&change).expect("packed");
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("object", object)
        .finish();
    let url = format!("http://{at}/v1/publish");
    let answers = [
        post_json(at, "/v1/publish", &change).ok(),
        send(at, "POST", "/v1/publish", "", change.to_string().as_bytes()).ok(),
        post_json(at, "/v1/publish", &json!({ "changes": [change] })).ok()["results"][0].clone(),
        rmp_serde::from_slice(&post(at, "/v1/publish", PACKED, &packed).body).expect("packed"),
        lines(at, &change.to_string()),
        send(at, "POST", &format!("/v1/publish?{query}&kind=k"), "", b"").ok(),
        serde_json::from_str(&Curl::run(&["--json", &change.to_string(), &url])).expect("JSON"),
        serde_json::from_str(&Curl::run(&["-X", "POST", &format!("{url}?{query}")])).expect("JSON"),
        serde_json::from_str(&Curl::run(&[
            "-d",
            &change.to_string(),
            "-H",
            "Content-Type: application/json",
            &url,
        ]))
        .expect("JSON"),
    ];
    let mut last = 0;
    for (form, answer) in answers.iter().enumerate() {
        let version = answer["version"]
            .as_u64()
            .unwrap_or_else(|| panic!("form {form}: {answer}"));
        assert!(version > last, "form {form}: versions increase");
        last = version;
    }
    assert_eq!(version_of(at, object), Some(last));
    let heard = ws.up_to(last);
    assert_eq!(heard.newest.get(object), Some(&last));
    // A third of a second lies between the first and the last: some may coalesce, and each that was told is one of ours.
    for told in &heard.changes {
        assert!(
            answers.iter().any(|answer| answer["version"] == told["version"]),
            "{told}"
        );
    }
}

#[test]
fn many_changes_get_results_in_order_and_bad_ones_spoil_only_themselves() {
    let node = node();
    let at = node.addr;
    let objects = names("o", 300);
    let mut ws = subscriber(at, &objects);
    let mut changes: Vec<Value> = objects.iter().map(|object| json!({ "object": object })).collect();
    let bad = [
        (5, json!({ "object": "" }), "invalid_object"),
        (50, json!({ "object": 7 }), "invalid_field"),
        (51, json!("just text"), "bad_request"),
        (52, json!(null), "bad_request"),
        (100, json!({ "kind": "k" }), "no_objects"),
        (150, json!({ "object": "o1", "kind": "x".repeat(33) }), "invalid_field"),
        (
            151,
            json!({ "object": "o1", "data": "x".repeat(65_536) }),
            "data_too_large",
        ),
        (200, json!({ "object": "o1", "revision": -1 }), "invalid_field"),
        (250, json!({ "object": "x".repeat(256) }), "invalid_object"),
    ];
    for (place, change, _) in &bad {
        changes[*place] = change.clone();
    }
    let packed = rmp_serde::to_vec_named(&json!({ "changes": changes })).expect("packed");
    for round in 0..2 {
        let answer = match round {
            0 => post_json(at, "/v1/publish", &json!({ "changes": changes })).ok(),
            _ => rmp_serde::from_slice(&post(at, "/v1/publish", PACKED, &packed).body).expect("packed"),
        };
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), changes.len());
        let mut expected = BTreeMap::new();
        for (place, result) in results.iter().enumerate() {
            match bad.iter().find(|(bad, ..)| *bad == place) {
                Some((_, change, code)) => {
                    let error = &result["error"];
                    // In MessagePack a wrong type is found where JSON finds no change at all.
                    assert!(
                        error["code"] == *code || (round == 1 && error["code"] == "invalid_field"),
                        "{change}: {error}"
                    );
                    assert_eq!(
                        (&error["applied"], &error["retryable"]),
                        (&json!("no"), &json!(false)),
                        "{change}: {error}"
                    );
                    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
                }
                None => {
                    let version = result["version"].as_u64().expect("a version");
                    expected.insert(objects[place].clone(), version);
                }
            }
        }
        let expected: Vec<_> = expected.into_iter().collect();
        let newest = expected.iter().map(|(_, version)| *version).max().expect("a version");
        ws.up_to(newest).is_exactly(&expected);
    }
}

#[test]
fn changes_of_one_object_in_one_request_get_increasing_versions_in_order() {
    let node = node();
    let changes: Vec<_> = (0..1_000)
        .map(|n| json!({ "object": format!("o{}", n % 3), "data": n }))
        .collect();
    let mut ws = subscriber(node.addr, &names("o", 3));
    let results = post_json(node.addr, "/v1/publish", &json!({ "changes": changes })).ok();
    let mut last = [0; 3];
    for (n, result) in results["results"].as_array().expect("results").iter().enumerate() {
        let version = result["version"].as_u64().expect("a version");
        assert!(version > last[n % 3], "place {n}");
        last[n % 3] = version;
    }
    let expected: Vec<_> = names("o", 3).into_iter().zip(last).collect();
    ws.up_to(*last.iter().max().expect("a version")).is_exactly(&expected);
}

#[test]
fn a_stream_in_odd_pieces_with_bad_lines_and_no_last_line_break_is_summed_up() {
    let node = node();
    let at = node.addr;
    let objects = names("line ü ", 400);
    let mut ws = subscriber(at, &objects);
    let mut body = String::from("\r\n\n");
    let mut bad_lines = Vec::new();
    for (n, object) in objects.iter().enumerate() {
        if n % 40 == 7 {
            bad_lines.push(body.matches('\n').count() as u64 + 1);
            body.push_str(
                [
                    "not json",
                    "{\"object\":1}",
                    "{\"object\":\"\"}",
                    "[]",
                    "{\"object\":\"a\"} {}",
                ][n / 40 % 5],
            );
            body.push('\n');
        }
        body.push_str(&json!({ "object": object, "data": n }).to_string());
        body.push_str(if n % 3 == 0 { "\r\n" } else { "\n" });
    }
    body.truncate(body.trim_end().len());
    for piece in [1, 7, 61, 4_096, usize::MAX] {
        let mut raw = Raw::open(at);
        raw.send(format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: {LINES}\r\nTransfer-Encoding: chunked\r\n\r\n"));
        let mut chunked = Vec::new();
        for piece in body.as_bytes().chunks(piece.min(body.len())) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        for piece in chunked.chunks(1_000) {
            raw.send(piece);
        }
        let sum = raw.answer().expect("an answer").ok();
        assert_eq!(
            (&sum["accepted"], &sum["rejected"]),
            (&json!(400), &json!(bad_lines.len())),
            "pieces of {piece}: {sum}"
        );
        let named: Vec<_> = sum["errors"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|e| e["line"].as_u64().expect("a line"))
            .collect();
        assert_eq!(named, bad_lines);
        assert!(
            sum["errors"]
                .as_array()
                .expect("a list")
                .iter()
                .all(|error| error["applied"] == "no")
        );
        let newest = sum["version"].as_u64().expect("the newest version");
        let heard = ws.up_to(newest);
        assert_eq!(heard.newest.len(), objects.len(), "everyone is told of every object");
        assert_eq!(heard.newest.values().max(), Some(&newest));
    }
}

#[test]
fn a_stream_may_be_longer_than_any_other_publish() {
    let node = node();
    let mut ws = subscriber(node.addr, &["the last"]);
    let mut body = json!({ "object": "o", "data": "x".repeat(500) }).to_string();
    body.push('\n');
    let mut body = body.repeat(20_000);
    assert!(body.len() > 2 * 4 * 1024 * 1024);
    body.push_str("{\"object\":\"the last\"}");
    let sum = lines(node.addr, &body);
    assert_eq!((&sum["accepted"], &sum["rejected"]), (&json!(20_001), &json!(0)));
    let version = version_of(node.addr, "the last").expect("a version");
    ws.up_to(version).is_exactly(&[("the last", version)]);
}

#[test]
fn what_a_stream_that_breaks_off_has_sent_whole_lines_of_is_applied_or_was_never_answered() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let mut raw = Raw::open(node.addr);
    raw.send(format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: {LINES}\r\nContent-Length: 1000\r\n\r\n"
    ));
    raw.send("{\"object\":\"a\"}\n{\"obj");
    raw.reset();
    bystander.misses_nothing();
    // A broken line is never a change of another object.
    assert_eq!(version_of(node.addr, "obj"), None);
}

#[test]
fn a_revision_at_or_below_the_last_notifies_nobody() {
    let node = node();
    let at = node.addr;
    let mut ws = subscriber(at, &["a", "b"]);
    let first = post_json(at, "/v1/publish", &json!({ "object": "a", "revision": 17 })).ok();
    let version = first["version"].as_u64().expect("a version");
    ws.up_to(version).is_exactly(&[("a", version)]);
    for revision in [17, 16, 0] {
        let again = post_json(at, "/v1/publish", &json!({ "object": "a", "revision": revision })).ok();
        assert_eq!(again, json!({ "version": version, "duplicate": true }));
    }
    let sum = lines(
        at,
        "{\"object\":\"a\",\"revision\":3}\n{\"object\":\"a\",\"revision\":17}",
    );
    assert_eq!((&sum["accepted"], &sum["duplicates"]), (&json!(2), &json!(2)), "{sum}");
    // Revisions belong to their object, and a change without one is always news.
    let b = publish_with(at, &json!({ "object": "b", "revision": 5 }));
    ws.up_to(b).is_exactly(&[("b", b)]);
    let a = publish(at, "a");
    ws.up_to(a).is_exactly(&[("a", a)]);
    let largest = (1_u64 << 53) - 1;
    let a = publish_with(at, &json!({ "object": "a", "revision": largest }));
    ws.up_to(a).is_exactly(&[("a", a)]);
    let beyond = post_json(at, "/v1/publish", &json!({ "object": "a", "revision": largest + 1 }));
    assert_eq!(beyond.code(), "invalid_field");
}

#[test]
fn a_repeat_with_its_key_gets_the_same_version_and_notifies_nobody() {
    let node = node();
    let at = node.addr;
    let mut ws = subscriber(at, &["a", "b"]);
    let keyed = |key: &str, target: &str, body: &[u8]| {
        send(
            at,
            "POST",
            target,
            &format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n"),
            body,
        )
        .ok()
    };
    let first = keyed("k1", "/v1/publish", br#"{"object":"a"}"#);
    let version = first["version"].as_u64().expect("a version");
    ws.up_to(version).is_exactly(&[("a", version)]);
    for _ in 0..3 {
        let again = keyed("k1", "/v1/publish", br#"{"object":"a"}"#);
        assert_eq!(
            (&again["version"], &again["duplicate"]),
            (&json!(version), &json!(true))
        );
    }
    let query = keyed("k2", "/v1/publish?object=a&object=b", b"");
    let again = keyed("k2", "/v1/publish?object=a&object=b", b"");
    let versions = |answer: &Value| {
        [
            answer["results"][0]["version"].clone(),
            answer["results"][1]["version"].clone(),
        ]
    };
    assert_eq!(versions(&query), versions(&again));
    let newest = publish(at, "b");
    let heard = ws.up_to(newest);
    assert!(heard.changes.len() <= 3, "the repeats were not told: {heard:?}");
    assert_eq!(heard.newest["a"], query["results"][0]["version"]);
    // Another key is another publish.
    let other = keyed("k3", "/v1/publish", br#"{"object":"a"}"#)["version"]
        .as_u64()
        .expect("a version");
    ws.up_to(other).is_exactly(&[("a", other)]);
}

#[test]
fn keyed_repeats_sent_at_the_same_time_make_one_change() {
    let node = node();
    let at = node.addr;
    let send_one = move || {
        let headers = "Content-Type: application/json\r\nIdempotency-Key: same\r\n";
        send(at, "POST", "/v1/publish", headers, br#"{"object":"a"}"#).ok()["version"].clone()
    };
    let all: Vec<_> = (0..16).map(|_| std::thread::spawn(send_one)).collect();
    let versions: Vec<_> = all.into_iter().map(|one| one.join().expect("an answer")).collect();
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
}

#[test]
fn the_levels_of_acknowledgement_are_given_or_refused() {
    let node = node();
    let at = node.addr;
    for ack in ["accepted", "replicated"] {
        let answer = send(at, "POST", &format!("/v1/publish?object=a&ack={ack}"), "", b"");
        assert!(answer.ok()["version"].is_u64());
    }
    let before = version_of(at, "a");
    let refused = send(at, "POST", "/v1/publish?object=a&ack=durable", "", b"");
    assert_eq!((refused.status, refused.code().as_str()), (409, "ack_unavailable"));
    assert_eq!(refused.json()["applied"], "no");
    for form in [LINES, "application/json"] {
        let refused = post(at, "/v1/publish?ack=durable", form, br#"{"object":"a"}"#);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "ack_unavailable"),
            "{form}"
        );
    }
    assert_eq!(
        send(at, "POST", "/v1/publish?object=a&ack=DURABLE", "", b"").code(),
        "invalid_field"
    );
    assert_eq!(version_of(at, "a"), before);
}

#[test]
fn timeout_and_trace_are_parameters_of_the_request() {
    let node = node();
    let at = node.addr;
    for timeout_ms in [1, 4_000, 60_000] {
        let answer = send(
            at,
            "POST",
            &format!("/v1/publish?object=a&timeout_ms={timeout_ms}&trace=1"),
            "",
            b"",
        );
        if answer.status == 504 {
            // A millisecond may be too short, which must then be said.
            assert_eq!(
                (answer.code().as_str(), &answer.json()["applied"]),
                ("outcome_unknown", &json!("unknown"))
            );
            continue;
        }
        let answer = answer.ok();
        assert_eq!(answer["epoch"], 1);
        assert_eq!(answer["shard"], get(at, "/v1/object?object=a").ok()["shard"]);
    }
    for timeout in ["0", "60001", "-1", "1.5", "", "x", "99999999999999999999"] {
        let refused = send(
            at,
            "POST",
            &format!("/v1/publish?object=a&timeout_ms={timeout}"),
            "",
            b"",
        );
        assert_eq!(refused.code(), "invalid_field", "{timeout}");
    }
    let several = send(at, "POST", "/v1/publish?object=a&object=b&trace=1", "", b"").ok();
    for result in several["results"].as_array().expect("results") {
        assert!(result["shard"].is_u64() && result["epoch"] == 1, "{result}");
    }
}

#[test]
fn ten_thousand_changes_are_taken_and_one_more_is_refused_whole() {
    let node = node();
    let at = node.addr;
    let mut ws = subscriber(at, &["o0", "o9999"]);
    let changes = |count: usize| json!({ "changes": names("o", count).iter().map(|object| json!({ "object": object })).collect::<Vec<_>>() });
    let refused = post_json(at, "/v1/publish", &changes(10_001));
    assert_eq!((refused.status, refused.code().as_str()), (413, "too_many_changes"));
    assert_eq!(refused.json()["applied"], "no");
    let packed = rmp_serde::to_vec_named(&changes(10_001)).expect("packed");
    assert_eq!(post(at, "/v1/publish", PACKED, &packed).code(), "too_many_changes");
    assert_eq!(version_of(at, "o0"), None, "nothing of it was applied");
    let results = post_json(at, "/v1/publish", &changes(10_000)).ok();
    let results = results["results"].as_array().expect("results");
    assert_eq!(results.len(), 10_000);
    let version = |n: usize| results[n]["version"].as_u64().expect("a version");
    let newest = results
        .iter()
        .filter_map(|result| result["version"].as_u64())
        .max()
        .expect("a version");
    ws.up_to(newest)
        .is_exactly(&[("o0", version(0)), ("o9999", version(9_999))]);
}

#[test]
fn four_mebibytes_are_taken_and_one_byte_more_is_refused() {
    let node = node();
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    let limit = 4 * 1024 * 1024;
    let head = r#"{"object":"a"}"#;
    let body = |length: usize| {
        let mut body = head.as_bytes().to_vec();
        body.resize(length, b' ');
        body
    };
    assert!(post(at, "/v1/publish", "application/json", &body(limit)).ok()["version"].is_u64());
    let before = version_of(at, "a");
    let refused = post(at, "/v1/publish", "application/json", &body(limit + 1));
    assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"));
    assert_eq!(refused.json()["applied"], "no");
    // Also where the length is not known beforehand.
    let mut raw = Raw::open(at);
    raw.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = body(limit + 1);
    raw.try_send(format!("{:x}\r\n", body.len()));
    raw.try_send(&body);
    raw.try_send("\r\n0\r\n\r\n");
    if let Some(refused) = raw.answer() {
        assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"));
    }
    assert_eq!(version_of(at, "a"), before);
    bystander.misses_nothing();
}

#[test]
fn data_of_64_kibibytes_is_told_whole_and_one_byte_more_is_refused() {
    let node = node();
    let at = node.addr;
    let mut ws = subscriber(at, &["a"]);
    let data = "x".repeat(65_534);
    let version = publish_with(at, &json!({ "object": "a", "kind": "k".repeat(32), "data": data }));
    let heard = ws.up_to(version);
    assert_eq!(
        (&heard.last()["data"], &heard.last()["kind"]),
        (&json!(data), &json!("k".repeat(32)))
    );
    let refused = post_json(at, "/v1/publish", &json!({ "object": "a", "data": "x".repeat(65_535) }));
    assert_eq!((refused.status, refused.code().as_str()), (413, "data_too_large"));
    assert_eq!(
        post_json(at, "/v1/publish", &json!({ "object": "a", "kind": "k".repeat(33) })).code(),
        "invalid_field"
    );
    // White space does not count.
    let spaced = format!("{{\"object\":\"a\",\"data\":[{}1]}}", " ".repeat(70_000));
    let version = post(at, "/v1/publish", "application/json", spaced.as_bytes()).ok()["version"]
        .as_u64()
        .expect("a version");
    assert_eq!(ws.up_to(version).last()["data"], json!([1]));
}

#[test]
fn an_object_is_told_with_version_shard_owner_and_subscribers() {
    let node = node_with(|config| config.server.name = "alpha".to_owned());
    let at = node.addr;
    let before = get(at, "/v1/object?object=a").ok();
    assert_eq!(
        (
            &before["object"],
            &before["version"],
            &before["owner"],
            &before["subscribers"]
        ),
        (&json!("a"), &Value::Null, &json!("alpha"), &json!(0))
    );
    assert!(before["shard"].as_u64().is_some_and(|shard| shard < 256));
    let first = subscriber(at, &["a"]);
    let _second = subscriber(at, &["a", "b"]);
    let version = publish(at, "a");
    let after = get(at, "/v1/object?object=a").ok();
    assert_eq!((&after["version"], &after["subscribers"]), (&json!(version), &json!(2)));
    drop(first);
    eventually("the one that left is not counted", || {
        get(at, "/v1/object?object=a").ok()["subscribers"] == 1
    });
    for (query, code) in [
        ("", "no_objects"),
        ("?object=", "invalid_object"),
        ("?object=a&object=b", "invalid_field"),
        ("?object=%ff", "bad_request"),
        ("?object=%00", "invalid_object"),
    ] {
        assert_eq!(get(at, &format!("/v1/object{query}")).code(), code, "{query}");
    }
}

#[test]
fn publishers_on_many_connections_at_once_lose_nothing_and_versions_only_grow() {
    let node = node();
    let at = node.addr;
    let mut ws = subscriber(at, &names("o", 8));
    let publishers: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                let mut raw = Raw::open(at);
                let mut last = 0;
                for _ in 0..200 {
                    raw.send(format!(
                        "POST /v1/publish?object=o{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    ));
                    let version = raw.answer().expect("an answer").ok()["version"]
                        .as_u64()
                        .expect("a version");
                    assert!(version > last);
                    last = version;
                }
                (format!("o{n}"), last)
            })
        })
        .collect();
    let last: Vec<_> = publishers
        .into_iter()
        .map(|one| one.join().expect("published"))
        .collect();
    let newest = last.iter().map(|(_, version)| *version).max().expect("a version");
    ws.up_to(newest).is_exactly(&last);
}
