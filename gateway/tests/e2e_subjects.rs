//! What a backend does with the connections of its subjects; cookies; and API keys that are taken out of the policy.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use support::door::*;
use support::*;

fn act(door: &Door, what: &str, body: &Value) -> Value {
    door.post(&format!("/v1/subjects/{what}"), OPERATOR, body).ok()
}

#[track_caller]
fn tally(done: &Value, expected: [u64; 5]) {
    let names = ["connections", "sessions", "objects", "refused", "busy"];
    assert_eq!(
        names.map(|name| done[name].as_u64().expect("a number")),
        expected,
        "{done}"
    );
    assert_eq!(done["complete"], expected[4] == 0, "{done}");
    assert_eq!(done["nodes"].as_array().map(Vec::len), Some(1), "{done}");
}

#[test]
fn a_backend_subscribes_all_connections_of_a_subject_to_what_is_granted_to_it() {
    let door = Door::new();
    let alice = watching("alice", &["room:1"]);
    let mut ws = door.ws(&alice);
    let mut stream = Events::open_with(Raw::open(door.at()), "/v1/events?object=user:alice:1", &bearer(&alice));
    stream.hear_of("cursor");
    let poll = door.get("/v1/poll?object=user:alice:1", &alice).ok();
    let mut bob = door.ws(&watching("bob", &["room:1"]));
    let objects = json!({"subject": "alice", "objects": ["room:1", "room:2", "news"]});
    tally(&act(&door, "subscribe", &objects), [2, 1, 3, 6, 0]);
    assert_eq!(ws.hear_of("subscribed")["objects"][0]["object"], "room:1");
    let version = door.publish("room:1");
    ws.until_told(&[("room:1", version)]);
    stream.until_told(&[("room:1", version)]);
    let (session, cursor) = (
        poll["session"].as_str().expect("one"),
        poll["cursor"].as_str().expect("one"),
    );
    let next = door
        .get(&format!("/v1/poll?session={session}&cursor={cursor}"), &alice)
        .ok();
    assert_eq!(next["changes"][0]["object"], "room:1", "{next}");
    // What it had it keeps, and nobody else got anything.
    let version = door.publish("user:alice:1");
    stream.until_told(&[("user:alice:1", version)]);
    bob.subscribe(&["user:bob:1"]);
    let version = door.publish("user:bob:1");
    let heard = bob.until_told(&[("user:bob:1", version)]);
    assert!(!heard.newest.contains_key("room:1"), "{heard:?}");
    // Of another issuer there is nobody of that name.
    let other = json!({"subject": "alice", "issuer": "another", "objects": ["room:1"]});
    tally(&act(&door, "subscribe", &other), [0, 0, 0, 0, 0]);
}

#[test]
fn a_backend_takes_objects_away_and_says_so_to_whoever_watched_them() {
    let door = Door::new();
    let alice = watching("alice", &["room:*"]);
    let mut ws = door.ws(&alice);
    ws.subscribe(&["room:1", "room:2"]);
    tally(
        &act(
            &door,
            "unsubscribe",
            &json!({"subject": "alice", "issuer": "tests", "objects": ["room:1", "room:3"]}),
        ),
        [1, 0, 1, 0, 0],
    );
    let refused = ws.hear_of("refused");
    assert_eq!(
        (&refused[0]["object"], &refused[0]["error"]["code"]),
        (&json!("room:1"), &json!("forbidden"))
    );
    door.publish("room:1");
    let version = door.publish("room:2");
    ws.up_to(version).is_exactly(&[("room:2", version)]);
    // It is not taken from what its token grants.
    assert_eq!(ws.subscribe(&["room:1"])[0]["error"], Value::Null);
}

#[test]
fn a_backend_ends_the_connections_of_a_subject_for_good_or_asks_them_to_come_back() {
    let door = Door::new();
    let (alice, bob) = (watching("alice", &["room:1"]), watching("bob", &["room:1"]));
    let mut bystander = door.ws(&bob);
    for (come_back, code) in [(true, 4007), (false, 4506)] {
        let mut ws = door.ws(&alice);
        let mut stream = Events::open_with(Raw::open(door.at()), "/v1/events?object=room:1", &bearer(&alice));
        stream.hear_of("cursor");
        let session = door.get("/v1/poll?object=room:1", &alice).ok()["session"]
            .as_str()
            .expect("one")
            .to_owned();
        tally(
            &act(
                &door,
                "disconnect",
                &json!({"subject": "alice", "come_back": come_back}),
            ),
            [2, 1, 0, 0, 0],
        );
        let (told, closed) = ws.read_to_the_end();
        assert_eq!(closed, Some(code));
        assert_eq!(
            told.iter().any(|told| told.get("reconnect").is_some()),
            come_back,
            "{told:?}"
        );
        while stream.next().is_some() {}
        let gone = door.get(&format!("/v1/poll?session={session}"), &alice);
        assert_eq!((gone.status, gone.code().as_str()), (410, "session_unknown"));
    }
    bystander.subscribe(&["room:1"]);
    let version = door.publish("room:1");
    bystander.until_told(&[("room:1", version)]);
    tally(&act(&door, "disconnect", &json!({"subject": "alice"})), [0, 0, 0, 0, 0]);
}

#[test]
fn only_operators_act_on_subjects_and_only_in_words_that_make_sense() {
    let door = Door::new();
    let fine = json!({"subject": "alice", "objects": ["room:1"]});
    for credential in ["", PUBLISHER, &watching("alice", &["room:1"])] {
        for what in ["subscribe", "unsubscribe", "disconnect"] {
            let answer = door.post(&format!("/v1/subjects/{what}"), credential, &fine);
            assert!(matches!(answer.status, 401 | 403), "{what}: {}", answer.text());
        }
    }
    let many: Vec<_> = (0..10_001).map(|n| format!("room:{n}")).collect();
    for (what, body, status) in [
        ("subscribe", json!({}), 400),
        ("subscribe", json!({"subject": "alice"}), 400),
        ("subscribe", json!({"subject": "alice", "objects": []}), 400),
        ("subscribe", json!({"subject": "alice", "objects": [""]}), 400),
        ("subscribe", json!({"subject": "alice", "objects": ["a\nb"]}), 400),
        (
            "subscribe",
            json!({"subject": "alice", "objects": ["x".repeat(256)]}),
            400,
        ),
        ("subscribe", json!({"subject": "alice", "objects": "room:1"}), 400),
        ("subscribe", json!({"subject": "", "objects": ["a"]}), 400),
        ("subscribe", json!({"subject": 7, "objects": ["a"]}), 400),
        (
            "subscribe",
            json!({"subject": "x".repeat(1_025), "objects": ["a"]}),
            400,
        ),
        ("subscribe", json!({"subject": "alice", "objects": many}), 413),
        (
            "unsubscribe",
            json!({"subject": "alice", "objects": ["a"], "all": true}),
            400,
        ),
        ("disconnect", json!({"subject": "alice", "come_back": "yes"}), 400),
        ("disconnect", json!({"subject": null}), 400),
        ("disconnect", json!([]), 400),
    ] {
        let answer = door.post(&format!("/v1/subjects/{what}"), OPERATOR, &body);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        answer.code();
    }
    tally(
        &act(
            &door,
            "subscribe",
            &json!({"subject": "x".repeat(1_024), "objects": &many[1..]}),
        ),
        [0; 5],
    );
    let nobody = node();
    assert_eq!(post_json(nobody.addr, "/v1/subjects/subscribe", &fine).status, 404);
}

/// A node that takes tokens from a cookie, for pages of one origin beside its own.
fn with_cookie() -> Door {
    Door::with(|config| {
        config.auth.cookie = "__Host-tidings".to_owned();
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
}

const PAGE: &str = "Origin: https://app.example\r\n";

#[test]
fn a_page_of_an_allowed_origin_listens_with_a_cookie() {
    let door = with_cookie();
    let cookie = format!("Cookie: a=b; __Host-tidings={}\r\n", watching("alice", &["room:1"]));
    let mut stream = Events::open_with(
        Raw::open(door.at()),
        "/v1/events?object=room:1",
        &format!("{PAGE}{cookie}"),
    );
    assert_eq!(
        stream.head.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(stream.head.header("access-control-allow-credentials"), Some("true"));
    let (mut ws, answer) = RawWs::handshake(Raw::open(door.at()), &format!("{PAGE}{cookie}"));
    assert_eq!(answer.status, 101);
    ws.say(&json!({"subscribe": {"objects": ["room:1"]}, "id": 1}));
    let version = door.publish("room:1");
    stream.until_told(&[("room:1", version)]);
    let shown = door.get("/v1/connections", OPERATOR).ok();
    let all = shown["connections"].as_array().expect("a list");
    assert_eq!(all.iter().filter(|one| one["subject"] == "alice").count(), 2, "{shown}");
    // Same origin, as browsers send it with a WebSocket.
    let own = format!("Origin: http://localhost\r\n{cookie}");
    Events::open_with(Raw::open(door.at()), "/v1/events?object=room:1", &own).hear_of("hello");
}

#[test]
fn a_cookie_is_worth_nothing_without_an_origin_or_elsewhere_than_for_listening() {
    let door = with_cookie();
    let good = watching("alice", &["room:1"]);
    let cookie = format!("Cookie: __Host-tidings={good}\r\n");
    let ask = |method: &str, target: &str, headers: &str| send(door.at(), method, target, headers, b"");
    for (headers, status) in [
        (cookie.clone(), 401),
        (format!("{cookie}Origin: https://evil.example\r\n"), 403),
        (format!("{cookie}Origin: null\r\n"), 403),
        (format!("{cookie}Origin: https://app.example.evil.example\r\n"), 403),
        (format!("{cookie}{PAGE}{PAGE}"), 403),
        (format!("{cookie}Sec-Fetch-Site: same-origin\r\n"), 401),
        (format!("{cookie}Referer: https://app.example/\r\n"), 401),
        (
            format!("{PAGE}Cookie: __Host-tidings={good}; __Host-tidings={good}\r\n"),
            401,
        ),
        (format!("{PAGE}Cookie: tidings={good}\r\n"), 401),
        (format!("{PAGE}Cookie: __Host-tidings={OPERATOR}\r\n"), 401),
        (format!("{PAGE}Cookie: __Host-tidings=x.y.z\r\n"), 401),
        (format!("{PAGE}{cookie}Authorization: Basic x\r\n"), 401),
    ] {
        let answer = ask("GET", "/v1/events?object=room:1", &headers);
        assert_eq!(answer.status, status, "{headers}: {}", answer.text());
        let (mut ws, answer) = RawWs::handshake(Raw::open(door.at()), &headers);
        match status {
            403 => assert_eq!(answer.status, 403, "{headers}"),
            // It is let in to say who it is, and is nobody until then.
            _ => {
                ws.raw
                    .try_send(frame(0x81, br#"{"subscribe":{"objects":["room:1"]},"id":1}"#));
                // Or it is closed at once, because what it brought is bad.
                let told = loop {
                    let next = ws.next().expect("a close frame at least");
                    let text = String::from_utf8_lossy(&next.payload).into_owned();
                    if next.close_code() == Some(4501) || text.contains("\"id\":1") {
                        break text;
                    }
                };
                assert!(!told.contains("subscribed"), "{headers}: {told}");
            }
        }
    }
    for (method, target) in [
        ("POST", "/v1/publish?object=room:1"),
        ("GET", "/v1/poll?object=room:1"),
        ("GET", "/v1/object?object=room:1"),
        ("POST", "/v1/tickets"),
        ("POST", "/v1/sessions"),
        ("GET", "/metrics"),
        ("POST", "/v1/reload"),
    ] {
        let answer = ask(method, target, &format!("{PAGE}{cookie}"));
        assert_eq!(answer.status, 401, "{method} {target}");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            None,
            "{method} {target}"
        );
    }
    // Off unless it is named.
    let off = Door::with(|config| config.server.allowed_origins = vec!["https://app.example".to_owned()]);
    let headers = format!("{PAGE}{cookie}");
    let answer = send(off.at(), "GET", "/v1/events?object=room:1", &headers, b"");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-credentials")),
        (401, None)
    );
}

#[test]
fn an_api_key_that_is_taken_out_of_the_policy_ends_what_it_opened() {
    let door = Door::new();
    let mut key = door.ws(OPERATOR);
    key.subscribe(&["room:1"]);
    let alice = watching("alice", &["room:1"]);
    let mut token = door.ws(&alice);
    token.subscribe(&["room:1"]);
    let mut publisher = door.ws(PUBLISHER);
    let mut stream = Events::open_with(Raw::open(door.at()), "/v1/events?object=room:1", &bearer(OPERATOR));
    stream.hear_of("cursor");
    let session = door.get("/v1/poll?object=room:1", OPERATOR).ok();
    let query = format!(
        "/v1/poll?session={}&cursor={}&wait_ms=25000",
        session["session"].as_str().expect("one"),
        session["cursor"].as_str().expect("one")
    );
    let (at, headers) = (door.at(), bearer(OPERATOR));
    let waiting = std::thread::spawn(move || send(at, "GET", &query, &headers, b""));
    eventually("the poll waits", || {
        let all = door.get("/v1/connections?transport=poll", OPERATOR).ok();
        all["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|one| one["subject"] == "operator")
    });
    // The operator has another key now, and the publisher may watch something.
    let without = POLICY.replace("OPERATOR", &"ab".repeat(32));
    let without = without.replacen(
        "publish = [\"room:*\"",
        "subscribe = [\"news\"]\npublish = [\"room:*\"",
        1,
    );
    write_policy(door.folder.path(), &without);
    assert_eq!(door.post("/v1/reload", OPERATOR, &json!({})).status, 200);
    assert_eq!(key.read_to_the_end().1, Some(4503));
    while stream.next().is_some() {}
    let denied = waiting.join().expect("an answer");
    assert_eq!((denied.status, denied.code().as_str()), (401, "unauthenticated"));
    assert_eq!(door.get("/metrics", OPERATOR).status, 401);
    // Nobody else noticed, and what a key may do now counts at once.
    let version = door.publish("room:1");
    token.until_told(&[("room:1", version)]);
    assert_eq!(publisher.subscribe(&["news"])[0]["error"], Value::Null);
}

#[test]
fn a_stream_of_publishes_ends_with_its_api_key() {
    let door = Door::new();
    let mut raw = Raw::open(door.at());
    let line = |object: &str| {
        let text = format!("{{\"object\":\"{object}\"}}\n");
        format!("{:x}\r\n{text}\r\n", text.len())
    };
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: \
         chunked\r\n{}\r\n",
        bearer(PUBLISHER)
    );
    raw.send(format!("{head}{}", line("room:1")));
    let version = |object: &str| door.get(&format!("/v1/object?object={object}"), OPERATOR).ok()["version"].clone();
    eventually("the first line is published", || version("room:1").is_u64());
    write_policy(door.folder.path(), &POLICY.replace("PUBLISHER", &"ab".repeat(32)));
    assert_eq!(door.post("/v1/reload", OPERATOR, &json!({})).status, 200);
    raw.send(line("room:2"));
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"));
    assert_eq!(version("room:2"), Value::Null, "what came afterwards was not taken");
}
