//! Who may do what over connections that stay: WebSockets, event streams and tickets; strangers, expiry and revocation.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::door::*;
use support::*;

/// The codes of a `subscribed`; an empty text where an object was taken.
fn codes(objects: &Value) -> Vec<String> {
    let code = |object: &Value| object["error"]["code"].as_str().unwrap_or_default().to_owned();
    objects.as_array().expect("objects").iter().map(code).collect()
}

fn auth(ws: &mut Ws, token: &str) -> Value {
    ws.ask(&json!({"auth": {"token": token}}))
}

#[test]
fn a_first_message_says_who_it_is() {
    let door = Door::new();
    let mut ws = Ws::open(door.at());
    let refused = ws.ask(&json!({"subscribe": {"objects": ["user:alice:1"]}}));
    assert_eq!(refused["error"]["code"], "unauthenticated", "{refused}");
    assert!(ws.ask(&json!({"ping": {}}))["pong"].is_object());
    let answer = auth(&mut ws, &watching("alice", &["room:1"]));
    let left = answer["authenticated"]["expires_in_ms"].as_u64().expect("a time");
    assert!((590_000..=600_000).contains(&left), "{answer}");
    let objects = ws.subscribe(&["user:alice:1", "room:1", "room:2", "user:bob:1", "a", "*"]);
    assert_eq!(
        codes(&objects),
        ["", "", "forbidden", "forbidden", "forbidden", "forbidden"]
    );
    door.publish("room:2");
    let version = door.publish("user:alice:1");
    ws.up_to(version).is_exactly(&[("user:alice:1", version)]);
}

#[test]
fn a_handshake_brings_a_token_in_a_header_or_among_the_subprotocols() {
    let door = Door::new();
    let token = watching("alice", &[]);
    let stream = || Raw::open(door.at()).stream;
    let carried = format!("tidings.v1.json, tidings.token.{token}");
    let ours = Some("tidings.v1.json");
    let mut all = vec![
        door.ws(&token),
        Ws::open_asking(stream(), "/v1/ws", Some(&carried), ours, ""),
        Ws::open_asking(
            stream(),
            "/v1/ws",
            Some(&format!("tidings.token.{token}, tidings.v1.json")),
            ours,
            "",
        ),
    ];
    for ws in &mut all {
        assert_eq!(codes(&ws.subscribe(&["user:alice:1", "user:bob:1"])), ["", "forbidden"]);
    }
}

#[test]
fn bad_credentials_are_told_by_the_close_code() {
    let door = Door::new();
    let late = token(&json!({"exp": now_s() - 60, "iat": now_s() - 90}));
    for credential in ["x", "a.b.c", &late, &token(&json!({"aud": "x"}))] {
        let (_, code) = door.ws(credential).read_to_the_end();
        assert_eq!(code, Some(4501), "{credential:.40}");
        let mut ws = Ws::open(door.at());
        assert_eq!(
            auth(&mut ws, credential)["error"]["code"],
            "unauthenticated",
            "{credential:.40}"
        );
        assert_eq!(ws.read_to_the_end().1, Some(4501), "{credential:.40}");
        let asked = format!("tidings.v1.json, tidings.token.{credential}");
        let stream = Raw::open(door.at()).stream;
        let mut ws = Ws::open_asking(stream, "/v1/ws", Some(&asked), Some("tidings.v1.json"), "");
        assert_eq!(ws.read_to_the_end().1, Some(4501), "{credential:.40}");
    }
    let good = watching("alice", &[]);
    let twice = format!("tidings.v1.json, tidings.token.{good}, tidings.token.{good}");
    let stream = Raw::open(door.at()).stream;
    let mut ws = Ws::open_asking(stream, "/v1/ws", Some(&twice), Some("tidings.v1.json"), "");
    assert_eq!(ws.read_to_the_end().1, Some(4501), "two tokens are none");
}

#[test]
fn a_stranger_has_a_while_to_say_who_it_is_and_a_small_frame_to_say_it_in() {
    let door = Door::with(|config| config.limits.auth_ms = 1_000);
    let mut silent = Ws::open(door.at());
    let mut busy = Ws::open(door.at());
    let since = Instant::now();
    busy.say(&json!({"ping": {}}));
    assert_eq!(silent.read_to_the_end().1, Some(4501));
    assert_eq!(busy.read_to_the_end().1, Some(4501), "pings are not enough");
    assert!(since.elapsed() >= Duration::from_millis(900), "not before its time");
    assert_eq!(door.metric("tidings_refused_total{limit=\"auth_ms\"}"), 2.0);
    eventually("nobody is a stranger any more", || {
        door.metric("tidings_auth_unauthenticated") == 0.0
    });
    let frame = |bytes: usize| json!({"auth": {"token": "x".repeat(bytes)}});
    let mut large = Ws::open(door.at());
    large.say(&frame(17 * 1024));
    assert_eq!(large.read_to_the_end().1, Some(1009));
    // Whoever is known may say more at a time.
    let mut known = Ws::open(door.at());
    auth(&mut known, &watching("alice", &[]));
    let objects: Vec<String> = (0..900).map(|n| format!("user:alice:{n:060}")).collect();
    assert!(codes(&known.subscribe(&objects)).iter().all(String::is_empty));
}

#[test]
fn there_are_as_many_strangers_as_the_limit_and_not_one_more() {
    let door = Door::with(|config| config.limits.unauthenticated = 2);
    let _held = [Ws::open(door.at()), Ws::open(door.at())];
    let mut one_more = Ws::open(door.at());
    assert_eq!(one_more.read_to_the_end().1, Some(4004));
    assert_eq!(door.metric("tidings_refused_total{limit=\"unauthenticated\"}"), 1.0);
    // Those who say who they are make room, and need none themselves.
    let mut known = door.ws(&watching("alice", &[]));
    assert_eq!(codes(&known.subscribe(&["user:alice:1"])), [""]);
}

#[test]
fn a_subject_has_as_many_connections_as_the_limit_and_not_one_more() {
    let door = Door::with(|config| config.limits.connections_per_subject = 2);
    let alice = watching("alice", &[]);
    let first = door.ws(&alice);
    let stream = Events::open_with(Raw::open(door.at()), "/v1/events?object=user:alice:1", &bearer(&alice));
    assert_eq!(door.ws(&alice).read_to_the_end().1, Some(4504));
    let answer = door.get("/v1/events?object=user:alice:1", &alice);
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many"));
    assert!(answer.header("retry-after").is_some());
    let mut late = Ws::open(door.at());
    auth_closes(&mut late, &alice, 4504);
    let _bob = door.ws(&watching("bob", &[]));
    drop((first, stream));
    eventually("two of them are gone", || {
        let all = door.get("/v1/connections", OPERATOR).ok();
        all["connections"].as_array().expect("a list").len() == 1
    });
    assert_eq!(codes(&door.ws(&alice).subscribe(&["user:alice:1"])), [""]);
}

fn auth_closes(ws: &mut Ws, token: &str, code: u16) {
    ws.say(&json!({"auth": {"token": token}}));
    assert_eq!(ws.read_to_the_end().1, Some(code));
}

#[test]
fn a_token_with_fewer_grants_ends_what_it_no_longer_grants() {
    let door = Door::new();
    let mut ws = door.ws(&watching("alice", &["room:*"]));
    assert_eq!(
        codes(&ws.subscribe(&["room:1", "room:2", "user:alice:1"])),
        ["", "", ""]
    );
    ws.say(&json!({"auth": {"token": watching("alice", &["room:2"])}, "id": 99}));
    let mut refused = Vec::new();
    loop {
        let told = ws.hear();
        if let Some(objects) = told["refused"].as_array() {
            refused.extend(
                objects
                    .iter()
                    .map(|object| object["object"].as_str().expect("text").to_owned()),
            );
            assert!(
                objects.iter().all(|object| object["error"]["code"] == "forbidden"),
                "{told}"
            );
        }
        if told["id"] == 99 {
            assert!(told["authenticated"].is_object(), "{told}");
            break;
        }
    }
    assert_eq!(refused, ["room:1"]);
    door.publish("room:1");
    let (room, mine) = (door.publish("room:2"), door.publish("user:alice:1"));
    ws.up_to(mine).is_exactly(&[("room:2", room), ("user:alice:1", mine)]);
    assert_eq!(codes(&ws.subscribe(&["room:1"])), ["forbidden"]);
    assert_eq!(door.metric("tidings_auth_withdrawn_total"), 1.0);
}

#[test]
fn a_connection_stays_its_subjects() {
    let door = Door::new();
    let mut ws = door.ws(&watching("alice", &["room:*"]));
    ws.subscribe(&["room:1"]);
    assert_eq!(
        auth(&mut ws, &watching("bob", &["room:*"]))["error"]["code"],
        "forbidden"
    );
    assert_eq!(auth(&mut ws, "a.b.c")["error"]["code"], "unauthenticated");
    let version = door.publish("room:1");
    ws.up_to(version).is_exactly(&[("room:1", version)]);
    assert_eq!(codes(&ws.subscribe(&["user:alice:1", "user:bob:1"])), ["", "forbidden"]);
}

#[test]
fn objects_in_a_token_are_subscribed_at_connect() {
    let door = Door::new();
    let own = json!({"tidings": {"subscribe": ["room:1"], "objects": ["room:1", "room:2", "user:alice:1"]}});
    let mut early = door.ws(&token(&own));
    let mut late = Ws::open(door.at());
    auth(&mut late, &token(&own));
    for ws in [&mut early, &mut late] {
        let subscribed = loop {
            let told = ws.hear();
            if told.get("subscribed").is_some() {
                break told;
            }
        };
        assert_eq!(
            codes(&subscribed["subscribed"]["objects"]),
            ["", "forbidden", ""],
            "{subscribed}"
        );
        let version = door.publish("room:1");
        ws.up_to(version).is_exactly(&[("room:1", version)]);
    }
}

#[test]
fn a_token_that_expires_is_told_and_ends_the_connection_after_a_grace() {
    let door = Door::with(|config| config.auth.grace_ms = 1_000);
    let short = |seconds: u64| token(&json!({"exp": now_s() + seconds}));
    let mut ends = door.ws(&short(2));
    ends.subscribe(&["user:alice:1"]);
    let mut goes_on = door.ws(&short(2));
    goes_on.subscribe(&["user:alice:1"]);
    let mut stream = Events::open_with(
        Raw::open(door.at()),
        "/v1/events?object=user:alice:1",
        &bearer(&short(2)),
    );
    assert!(auth(&mut goes_on, &short(600))["authenticated"].is_object());
    let (told, code) = ends.read_to_the_end();
    assert_eq!(code, Some(4010));
    let notice = told
        .iter()
        .find(|told| told.get("token_expired").is_some())
        .expect("a notice");
    assert_eq!(notice["token_expired"]["closes_in_ms"], 1_000);
    let mut blocks = Vec::new();
    while let Some(block) = stream.next() {
        blocks.push(block);
    }
    assert!(
        blocks.iter().any(|block| block.get("token_expired").is_some()),
        "{blocks:?}"
    );
    assert_eq!(door.metric("tidings_auth_ended_expired_total"), 2.0);
    let version = door.publish("user:alice:1");
    goes_on.up_to(version).is_exactly(&[("user:alice:1", version)]);
}

#[test]
fn a_revoked_token_ends_every_connection_and_opens_none() {
    let door = Door::new();
    let alice = token(&json!({"jti": "t1", "iat": now_s() - 5}));
    let other = token(&json!({"jti": "t2", "iat": now_s() - 5}));
    let mut ws = door.ws(&alice);
    ws.subscribe(&["user:alice:1"]);
    let mut stays = door.ws(&other);
    stays.subscribe(&["user:alice:1"]);
    let mut stream = Events::open_with(Raw::open(door.at()), "/v1/events?object=user:alice:1", &bearer(&alice));
    let cursor = door
        .post("/v1/poll", &alice, &json!({"objects": ["user:alice:1"]}))
        .ok()["cursor"]
        .clone();
    let poll = std::thread::spawn({
        let (at, alice) = (door.at(), alice.clone());
        move || {
            let body = json!({"objects": ["user:alice:1"], "cursor": cursor, "wait_ms": 20_000}).to_string();
            let headers = format!("{}Content-Type: application/json\r\n", bearer(&alice));
            send(at, "POST", "/v1/poll", &headers, body.as_bytes())
        }
    });
    eventually("the poll waits", || {
        let all = door.get("/v1/connections", OPERATOR).ok();
        let waits = |connection: &Value| connection["transport"] == "poll";
        all["connections"].as_array().expect("a list").iter().any(waits)
    });
    let since = Instant::now();
    assert_eq!(
        door.post("/v1/revocations", OPERATOR, &json!({"token": "t1"})).status,
        204
    );
    assert_eq!(ws.read_to_the_end().1, Some(4503));
    while stream.next().is_some() {}
    let answer = poll.join().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (401, "revoked"));
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "everywhere within five seconds"
    );
    assert_eq!(door.ws(&alice).read_to_the_end().1, Some(4503));
    assert_eq!(
        door.post("/v1/poll", &alice, &json!({"objects": ["user:alice:1"]}))
            .code(),
        "revoked"
    );
    let version = door.publish("user:alice:1");
    stays.up_to(version).is_exactly(&[("user:alice:1", version)]);
    let list = door.get("/v1/revocations", OPERATOR).ok();
    assert_eq!(list["revocations"][0]["token"], "t1", "{list}");
    // Again is no failure; of the subject, it ends the other one too, and a new token is let in.
    assert_eq!(
        door.post("/v1/revocations", OPERATOR, &json!({"token": "t1"})).status,
        204
    );
    let before = now_s() - 2;
    assert_eq!(
        door.post(
            "/v1/revocations",
            OPERATOR,
            &json!({"subject": "alice", "issued_to": before})
        )
        .status,
        204
    );
    assert_eq!(stays.read_to_the_end().1, Some(4503));
    assert_eq!(
        codes(&door.ws(&watching("alice", &[])).subscribe(&["user:alice:1"])),
        [""]
    );
    for bad in [
        json!({}),
        json!({"subject": ""}),
        json!({"subject": "a", "token": "b"}),
        json!({"everybody": true, "issued_to": now_s() + 3600}),
    ] {
        assert_eq!(door.post("/v1/revocations", OPERATOR, &bad).status, 400, "{bad}");
    }
}

#[test]
fn revocations_outlive_the_process_and_a_file_that_cannot_be_read_lets_nobody_in() {
    let data = tempfile::tempdir().expect("a folder");
    let in_data = |config: &mut tidings::config::Config| config.server.data_dir = data.path().display().to_string();
    let alice = token(&json!({"iat": now_s() - 5}));
    let door = Door::with(in_data);
    assert_eq!(
        door.post(
            "/v1/revocations",
            OPERATOR,
            &json!({"subject": "alice", "issued_to": now_s() - 1})
        )
        .status,
        204
    );
    assert_eq!(door.get("/v1/object?object=user:alice:1", &alice).code(), "revoked");
    let Door { node, folder } = door;
    node.shutdown();
    let door = Door::of(folder, in_data);
    assert_eq!(door.get("/v1/object?object=user:alice:1", &alice).code(), "revoked");
    let Door { node, folder } = door;
    node.shutdown();
    std::fs::write(data.path().join("revocations.json"), "{").expect("written");
    let mut config = tidings::config::Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    configure(&mut config, folder.path());
    in_data(&mut config);
    let error = tidings::Node::start(config).map(drop).expect_err("it does not start");
    assert!(error.to_string().contains("revocations.json"), "{error}");
}

#[test]
fn a_ticket_opens_an_event_stream_once_and_its_reconnects() {
    let door = Door::new();
    let alice = watching("alice", &["room:1"]);
    let ticket = |credential: &str| {
        let answer = door.post("/v1/tickets", credential, &json!({}));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["ticket"].as_str().expect("a ticket").to_owned()
    };
    let one = ticket(&alice);
    assert!(!one.contains(&alice));
    let target = format!("/v1/events?object=room:1&object=room:2&ticket={one}");
    let mut stream = Events::open_with(Raw::open(door.at()), &target, "");
    let version = door.publish("room:1");
    let heard = stream.up_to(version);
    assert_eq!(heard.refused.len(), 1, "{heard:?}");
    assert_eq!(door.get(&target, "").code(), "unauthenticated", "opened already");
    let (cursor, proof) = heard.cursor.split_once('.').expect("a proof behind the cursor");
    // Whoever only saw the URL cannot come back with it.
    let other = format!("/v1/events?object=room:1&ticket={}", ticket(&alice));
    let foreign = Events::open_with(Raw::open(door.at()), &other, "")
        .up_to(version)
        .cursor;
    for last in [
        cursor.to_owned(),
        format!("{cursor}."),
        format!("{cursor}.{}", &proof[1..]),
        foreign,
    ] {
        let ask = format!("Last-Event-ID: {last}\r\n");
        assert_eq!(
            send(door.at(), "GET", &target, &ask, b"").code(),
            "unauthenticated",
            "{last}"
        );
    }
    let again = format!("Last-Event-ID: {}\r\n", heard.cursor);
    let mut stream = Events::open_with(Raw::open(door.at()), &target, &again);
    let version = door.publish("room:1");
    assert_eq!(stream.up_to(version).newest["room:1"], version);
    // For event streams only, and no other way.
    for target in [
        format!("/v1/poll?object=room:1&ticket={one}"),
        format!("/v1/object?object=room:1&ticket={one}"),
    ] {
        assert_eq!(door.get(&target, "").status, 401, "{target:.30}");
    }
    assert_eq!(door.get("/v1/object?object=room:1", &one).status, 401);
    let fresh = ticket(&alice);
    for bad in [
        String::new(),
        "x".to_owned(),
        format!("{fresh}x"),
        fresh[1..].to_owned(),
        format!("{fresh}&ticket={fresh}"),
    ] {
        let answer = door.get(&format!("/v1/events?object=room:1&ticket={bad}"), "");
        assert_eq!(answer.status, 401, "{bad:.20}");
    }
    // A revoked token's ticket opens nothing.
    door.post("/v1/revocations", OPERATOR, &json!({"subject": "alice"}));
    assert_eq!(
        door.get(&format!("/v1/events?object=room:1&ticket={fresh}"), "").code(),
        "revoked"
    );
}

#[test]
fn credentials_are_nowhere_in_what_is_logged_counted_or_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    write_policy(folder.path(), POLICY);
    let canary = "canary8f1c2b";
    let policy = folder.path().join("policy.toml").display().to_string();
    let (program, at) = Program::serve_quietly(&["--auth.policy_file", &policy, "--log.filter", "trace"]);
    let good = token(&json!({"sub": format!("alice-{canary}"), "tidings": {"subscribe": ["room:*"]}}));
    let bad = token_of(
        &jsonwebtoken::Header::default(),
        "another secret, 32 bytes or more of it",
        &json!({"sub": canary}),
    );
    let key = format!("tidings_key_{canary}");
    let mut answers = String::new();
    let text_of = |answer: Answer| format!("{:?}{}", answer.headers, answer.text());
    for credential in [&good, &bad, &key] {
        let headers = bearer(credential);
        answers += &text_of(send(at, "POST", "/v1/publish?object=room:1", &headers, b""));
        answers += &text_of(send(at, "GET", "/v1/object?object=room:1", &headers, b""));
        answers += &text_of(send(at, "GET", "/v1/poll?object=room:1&wait_ms=0", &headers, b""));
        answers += &text_of(send(
            at,
            "POST",
            "/v1/sessions",
            &headers,
            b"{\"objects\":[\"room:1\"]}",
        ));
        answers += &text_of(send(at, "GET", "/metrics", &headers, b""));
        answers += &text_of(send(
            at,
            "GET",
            &format!("/v1/events?object=room:1&ticket={credential}"),
            "",
            b"",
        ));
        answers += &text_of(send(
            at,
            "GET",
            &format!("/v1/poll?object=room:1&token={credential}"),
            "",
            b"",
        ));
        answers += &text_of(send(at, "GET", &format!("/nowhere/{credential}"), "", b""));
        let mut ws = Ws::open(at);
        ws.say(&json!({"auth": {"token": credential}, "id": 1}));
        let told = ws.hear();
        answers.push_str(&told.to_string());
        let asked = format!("tidings.v1.json, tidings.token.{credential}");
        let ws = Ws::open_asking(
            Raw::open(at).stream,
            "/v1/ws",
            Some(&asked),
            Some("tidings.v1.json"),
            "",
        );
        answers.push_str(&ws.hello.to_string());
    }
    let metrics = send(at, "GET", "/metrics", &bearer(OPERATOR), b"").text();
    program.terminate();
    let (_, lines, errors) = program.end();
    let logged = format!("{lines:?}{errors:?}");
    assert!(!errors.is_empty(), "something was logged");
    for secret in [
        good.as_str(),
        &bad,
        &key,
        canary,
        good.rsplit('.').next().expect("a signature"),
        SECRET,
    ] {
        assert!(!metrics.contains(secret), "in the metrics: {secret:.30}");
        assert!(!logged.contains(secret), "in the log: {secret:.30}");
        assert!(!answers.contains(secret), "in an answer: {secret:.30}");
    }
}

#[test]
fn what_clients_say_cannot_forge_a_line_of_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    write_policy(folder.path(), POLICY);
    let policy = folder.path().join("policy.toml").display().to_string();
    for format in ["text", "json"] {
        let arguments = [
            "--auth.policy_file",
            &policy,
            "--log.filter",
            "trace",
            "--log.format",
            format,
        ];
        let (program, at) = Program::serve_quietly(&arguments);
        let forged = "forged\r\nERROR the node is on fire \u{1b}[2J ${jndi:ldap://x}";
        let subject = token(&json!({"sub": "mallory", "tidings": {"admin": true}}));
        for text in [forged, "a\0b", "\u{2028}line"] {
            let body = json!({"objects": [text], "object": text}).to_string();
            for target in ["/v1/publish", "/v1/poll", "/v1/sessions"] {
                let headers = format!("{}Content-Type: application/json\r\n", bearer(&subject));
                send(at, "POST", target, &headers, body.as_bytes());
            }
            let mut ws = Ws::open_bearing(at, &subject);
            ws.ask(&json!({"subscribe": {"objects": [text]}}));
            ws.ask(&json!({"auth": {"token": text}}));
            let revoke = json!({"subject": text}).to_string();
            send(at, "POST", "/v1/revocations", &bearer(&subject), revoke.as_bytes());
        }
        program.terminate();
        let (_, lines, errors) = program.end();
        for line in lines.iter().chain(&errors) {
            assert!(!line.starts_with("ERROR the node"), "{format}: {line}");
            assert!(!line.contains('\u{1b}'), "{format}: {line:?}");
        }
    }
}
