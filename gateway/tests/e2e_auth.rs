//! Who may do what over plain requests: publishing, asking, polling, sessions, and what operators do.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use support::door::*;
use support::*;

#[test]
fn without_a_credential_only_what_says_nothing_is_answered() {
    let door = Door::new();
    for target in ["/healthz", "/readyz", "/openapi.json", "/docs/", "/tidings.js"] {
        assert_eq!(door.get(target, "").status, 200, "{target}");
    }
    assert_eq!(door.get("/readyz", "").json(), json!({"ready": true, "reasons": []}));
    for target in [
        "/metrics",
        "/v1/cluster",
        "/v1/connections",
        "/v1/connections/0-0-0",
        "/v1/explain?connection=0-0-0&object=a",
        "/v1/revocations",
        "/v1/object?object=a",
        "/v1/poll?object=a",
        "/v1/events?object=a",
        "/v1/nowhere",
    ] {
        let answer = door.get(target, "");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthenticated"),
            "{target}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"tidings\""),
            "{target}"
        );
    }
    for target in [
        "/v1/publish",
        "/v1/poll",
        "/v1/events",
        "/v1/sessions",
        "/v1/tickets",
        "/v1/revocations",
        "/v1/reload",
    ] {
        let answer = door.post(target, "", &json!({"object": "news", "objects": ["news"]}));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthenticated"),
            "{target}"
        );
    }
}

#[test]
fn credentials_that_are_not_good_let_nobody_in() {
    let door = Door::new();
    let header = |kid: &str| jsonwebtoken::Header {
        kid: Some(kid.to_owned()),
        ..Default::default()
    };
    let late = now_s() - 100;
    let bad = [
        "x".to_owned(),
        "tidings_key_".to_owned(),
        PUBLISHER.to_uppercase(),
        format!("{PUBLISHER}x"),
        format!("{PUBLISHER}."),
        format!(".{PUBLISHER}."),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.".to_owned(),
        token_of(&header("k2"), SECRET, &json!({})),
        token_of(&header("../../etc/passwd"), SECRET, &json!({})),
        token_of(&header("' OR 1=1 --"), SECRET, &json!({})),
        token_of(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS384),
            SECRET,
            &json!({}),
        ),
        token_of(
            &jsonwebtoken::Header::default(),
            "another secret, 32 bytes or more of it",
            &json!({}),
        ),
        token_of(&jsonwebtoken::Header::default(), "", &json!({})),
        token(&json!({"iss": "others"})),
        token(&json!({"iss": null})),
        token(&json!({"aud": "others"})),
        token(&json!({"aud": null})),
        token(&json!({"exp": null})),
        token(&json!({"iat": null})),
        token(&json!({"sub": null})),
        token(&json!({"sub": ""})),
        token(&json!({"exp": late})),
        token(&json!({"exp": now_s() + 600, "nbf": now_s() + 300})),
        token(&json!({"iat": now_s() + 300})),
        token(&json!({"exp": now_s() + 90_000})),
        token(&json!({"exp": 1.5})),
        token(&json!({"exp": "9999999999"})),
        token(&json!({"exp": 9_223_372_036_854_775_808_u64})),
        token(&json!({"exp": -1})),
        token(&json!({"tidings": {"subscribe": ["a*"]}})),
        token(&json!({"tidings": {"deny": ["a"]}})),
        token(&json!({"pad": "x".repeat(8_000)})),
        format!("{}x", token(&json!({}))),
    ];
    for credential in &bad {
        let answer = door.post("/v1/poll", credential, &json!({"objects": ["user:alice:1"]}));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthenticated"),
            "{credential:.80}"
        );
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("invalid_token"), "{challenge}");
        assert!(!answer.text().contains(credential.as_str()), "it is not given back");
    }
    for headers in [
        "Authorization: \r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Basic {PUBLISHER}\r\n"),
        format!("Authorization: {PUBLISHER}\r\n"),
        format!("Authorization: Bearer {PUBLISHER} x\r\n"),
        format!("Authorization: Bearer {PUBLISHER}, Bearer {PUBLISHER}\r\n"),
        format!("{0}{0}", bearer(PUBLISHER)),
        format!("{}{}", bearer("x"), bearer(PUBLISHER)),
        "Authorization: Bearer \u{e9}\r\n".to_owned(),
    ] {
        let answer = send(door.at(), "POST", "/v1/publish?object=news", &headers, b"");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthenticated"),
            "{headers:?}"
        );
    }
    for headers in [
        format!("authorization: bearer {PUBLISHER}\r\n"),
        format!("AUTHORIZATION: BEARER {PUBLISHER}\r\n"),
    ] {
        assert_eq!(
            send(door.at(), "POST", "/v1/publish?object=news", &headers, b"").status,
            200,
            "{headers:?}"
        );
    }
    assert!(door.metric("tidings_auth_denied_total{reason=\"expired\"}") >= 1.0);
    assert!(door.metric("tidings_auth_denied_total{reason=\"unknown_api_key\"}") >= 1.0);
}

#[test]
fn one_forbidden_change_refuses_that_change_and_not_the_batch() {
    let door = Door::new();
    let changes =
        json!({"changes": [{"object": "room:1"}, {"object": "orders:1"}, {"object": "news"}, {"object": "newsx"}]});
    let answer = door.post("/v1/publish", PUBLISHER, &changes).ok();
    let results = answer["results"].as_array().expect("results");
    assert!(
        results[0]["version"].is_u64() && results[2]["version"].is_u64(),
        "{answer}"
    );
    for place in [1, 3] {
        let error = &results[place]["error"];
        assert_eq!(
            (&error["code"], &error["applied"]),
            (&json!("forbidden"), &json!("no")),
            "{answer}"
        );
        assert_eq!(error["retryable"], false);
    }
    let alone = door.post("/v1/publish", PUBLISHER, &json!({"object": "orders:1"}));
    assert_eq!((alone.status, alone.code().as_str()), (403, "forbidden"));
    assert_eq!(alone.json()["applied"], "no");
    let lines = b"{\"object\":\"room:1\"}\n{\"object\":\"orders:1\"}\n{\"object\":\"room:2\"}\n";
    let headers = format!("{}Content-Type: application/x-ndjson\r\n", bearer(PUBLISHER));
    let answer = send(door.at(), "POST", "/v1/publish", &headers, lines).ok();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(2), &json!(1)),
        "{answer}"
    );
    assert_eq!(
        (&answer["errors"][0]["line"], &answer["errors"][0]["code"]),
        (&json!(2), &json!("forbidden"))
    );
    let by_query = send(
        door.at(),
        "POST",
        "/v1/publish?object=room:1&object=orders:1",
        &bearer(PUBLISHER),
        b"",
    )
    .ok();
    assert_eq!(by_query["results"][1]["error"]["code"], "forbidden", "{by_query}");
    assert_eq!(door.metric("tidings_forbidden_total"), 5.0);
    // A subscriber may not publish what it may watch.
    let watcher = watching("alice", &["room:*"]);
    assert_eq!(
        door.post("/v1/publish", &watcher, &json!({"object": "room:1"})).code(),
        "forbidden"
    );
    let publisher = token(&json!({"tidings": {"publish": ["room:7"]}}));
    assert_eq!(
        door.post("/v1/publish", &publisher, &json!({"object": "room:7"}))
            .status,
        200
    );
    assert_eq!(
        door.post("/v1/publish", &publisher, &json!({"object": "room:70"}))
            .code(),
        "forbidden"
    );
}

#[test]
fn of_ten_thousand_objects_one_forbidden_one_is_refused() {
    let door = Door::new();
    let mut changes: Vec<Value> = (0..10_000).map(|n| json!({"object": format!("room:{n}")})).collect();
    changes[7_777] = json!({"object": "rooms:7777"});
    let answer = door.post("/v1/publish", PUBLISHER, &json!({"changes": changes})).ok();
    let refused: Vec<usize> = (0..10_000)
        .filter(|n| answer["results"][n].get("error").is_some())
        .collect();
    assert_eq!(refused, [7_777]);
}

#[test]
fn a_poll_hears_of_what_is_granted_and_the_rest_is_refused_object_by_object() {
    let door = Door::new();
    let alice = watching("alice", &["room:1"]);
    let asked =
        json!({"objects": ["user:alice:1", "room:1", "room:2", "user:bob:1", "news", "user:alice:", "user:alicex:1"]});
    let answer = door.post("/v1/poll", &alice, &asked).ok();
    let mut refused: Vec<_> = answer["refused"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["object"].as_str().expect("text"))
        .collect();
    refused.sort_unstable();
    assert_eq!(
        refused,
        ["news", "room:2", "user:alice:", "user:alicex:1", "user:bob:1"],
        "{answer}"
    );
    assert!(
        answer["refused"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|r| r["error"]["code"] == "forbidden")
    );
    for object in ["news", "room:2", "user:bob:1"] {
        door.publish(object);
    }
    let (mine, room) = (door.publish("user:alice:1"), door.publish("room:1"));
    let next = json!({"session": answer["session"], "cursor": answer["cursor"], "wait_ms": 5000});
    let mut told = Vec::new();
    let mut next = next;
    while told.len() < 2 {
        let answer = door.post("/v1/poll", &alice, &next).ok();
        for change in answer["changes"].as_array().expect("a list") {
            told.push((
                change["object"].as_str().expect("text").to_owned(),
                change["version"].as_u64().expect("a version"),
            ));
        }
        next["cursor"] = answer["cursor"].clone();
    }
    told.sort();
    assert_eq!(told, [("room:1".to_owned(), room), ("user:alice:1".to_owned(), mine)]);
}

#[test]
fn an_object_that_is_not_granted_looks_the_same_whether_it_exists_or_not() {
    let door = Door::new();
    let alice = watching("alice", &[]);
    door.publish("news");
    let (known, unknown) = (
        door.get("/v1/object?object=news", &alice),
        door.get("/v1/object?object=nows", &alice),
    );
    assert_eq!((known.status, unknown.status), (403, 403));
    assert_eq!(known.text(), unknown.text());
    let polled = |object: &str| {
        let answer = door
            .post("/v1/poll", &alice, &json!({"objects": [object], "wait_ms": 0}))
            .ok();
        answer["refused"][0]["error"].clone()
    };
    assert_eq!(polled("news"), polled("nows"));
}

#[test]
fn how_many_watch_an_object_is_for_those_who_publish_it() {
    let door = Door::new();
    door.publish("user:alice:1");
    let target = "/v1/object?object=user:alice:1";
    assert!(
        door.get(target, &watching("alice", &[]))
            .ok()
            .get("subscribers")
            .is_none()
    );
    for credential in [PUBLISHER, OPERATOR] {
        assert_eq!(door.get(target, credential).ok()["subscribers"], 0);
    }
}

#[test]
fn a_session_is_its_subjects_and_to_others_it_does_not_exist() {
    let door = Door::new();
    let alice = watching("alice", &["room:*"]);
    let made = door.post("/v1/sessions", &alice, &json!({"objects": ["room:1", "user:bob:1"]}));
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["refused"][0]["object"], "user:bob:1");
    let session = made.json()["session"].clone();
    let poll = json!({"session": session, "wait_ms": 0});
    let bob = watching("bob", &["room:*"]);
    for (credential, expected) in [(&bob, 410), (&OPERATOR.to_owned(), 410), (&alice, 200)] {
        assert_eq!(
            door.post("/v1/poll", credential, &poll).status,
            expected,
            "{credential:.20}"
        );
    }
    // The same person with another token.
    assert_eq!(
        door.post("/v1/poll", &watching("alice", &["room:1"]), &poll).status,
        200
    );
    let mut raw = Raw::open(door.at());
    let name = session.as_str().expect("text");
    raw.send(format!(
        "GET /v1/events?session={name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
        bearer(&bob)
    ));
    assert_eq!(raw.head().expect("an answer").status, 200);
    let text = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(text.contains("session_unknown") && !text.contains("room"), "{text}");
}

#[test]
fn a_token_with_fewer_grants_takes_objects_out_of_a_session() {
    let door = Door::new();
    let wide = watching("alice", &["room:1", "room:2"]);
    let first = door
        .post("/v1/poll", &wide, &json!({"objects": ["room:1", "room:2"]}))
        .ok();
    let narrow = watching("alice", &["room:1"]);
    let next = json!({"session": first["session"], "cursor": first["cursor"], "wait_ms": 2000});
    let answer = door.post("/v1/poll", &narrow, &next).ok();
    assert_eq!(answer["refused"][0]["object"], "room:2", "{answer}");
    assert_eq!(answer["refused"][0]["error"]["code"], "forbidden");
    door.publish("room:2");
    let version = door.publish("room:1");
    let next = json!({"session": first["session"], "cursor": answer["cursor"], "wait_ms": 5000});
    let answer = door.post("/v1/poll", &narrow, &next).ok();
    assert_eq!(
        answer["changes"],
        json!([{"object": "room:1", "version": version}]),
        "{answer}"
    );
}

#[test]
fn operators_routes_are_for_operators() {
    let door = Door::new();
    let admin = token(&json!({"sub": "root", "tidings": {"admin": true}}));
    let alice = watching("alice", &["room:*"]);
    for target in ["/metrics", "/v1/cluster", "/v1/connections", "/v1/revocations"] {
        for credential in [PUBLISHER, &alice] {
            let answer = door.get(target, credential);
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{target}");
        }
        for credential in [OPERATOR, &admin] {
            assert_eq!(door.get(target, credential).status, 200, "{target}");
        }
    }
    for target in ["/v1/reload", "/v1/revocations"] {
        assert_eq!(
            door.post(target, PUBLISHER, &json!({"everybody": true})).code(),
            "forbidden",
            "{target}"
        );
    }
    let _ws = door.ws(&alice);
    let connections = door.get("/v1/connections", OPERATOR).ok();
    assert_eq!(connections["connections"][0]["subject"], "alice", "{connections}");
}

#[test]
fn a_policy_is_read_again_and_a_bad_one_changes_nothing() {
    let door = Door::new();
    let reload = || door.post("/v1/reload", OPERATOR, &json!({}));
    let publishes = |object: &str| door.post("/v1/publish", PUBLISHER, &json!({"object": object})).status;
    assert_eq!((publishes("news"), publishes("more")), (200, 403));
    for bad in [
        "[[key]]\nname = 1",
        "",
        "[[key]]\nname=\"x\"\nsha256=[\"zz\"]",
        &POLICY.replace("\"news\"", "\"news*\""),
    ] {
        if bad.is_empty() {
            std::fs::remove_file(door.folder.path().join("policy.toml")).expect("removed");
        } else {
            write_policy(door.folder.path(), bad);
        }
        let answer = reload();
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.text().contains("nothing was changed"), "{}", answer.text());
        assert_eq!((publishes("news"), publishes("more")), (200, 403), "as before");
    }
    write_policy(door.folder.path(), &POLICY.replace("\"news\"", "\"more\""));
    assert_eq!(reload().status, 200);
    assert_eq!((publishes("news"), publishes("more")), (403, 200));
    // A key that is gone lets in no more, although it was let in a moment ago.
    write_policy(door.folder.path(), &POLICY.replace("PUBLISHER", &"0".repeat(64)));
    assert_eq!(reload().status, 200);
    assert_eq!(publishes("more"), 401);
}

#[test]
fn an_operator_that_is_alone_with_no_policy_asks_nobody() {
    let node = node();
    assert_eq!(get(node.addr, "/v1/connections").status, 200);
    assert_eq!(post_json(node.addr, "/v1/tickets", &json!({})).status, 404);
    let with_something = send(node.addr, "POST", "/v1/publish?object=a", &bearer("anything"), b"");
    assert_eq!(with_something.status, 200);
}
