//! Connections as the network and hostile or clumsy clients make them.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use support::*;

/// What the counter of one refused bound says.
#[track_caller]
fn refusals(at: SocketAddr, limit: &str) -> u64 {
    let metrics = get(at, "/metrics").text();
    let name = format!("tidings_refused_total{{limit=\"{limit}\"}} ");
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.parse().ok())
        .unwrap_or_else(|| panic!("no counter {name}"))
}

#[test]
fn a_publisher_that_half_closes_after_its_request_is_answered_truly_or_hung_up_on() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let lines = "{\"object\":\"b\"}\n".repeat(5_000);
    let length = lines.len();
    let requests = [
        "POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n{lines}"
        ),
    ];
    for request in requests {
        for _ in 0..10 {
            let mut raw = Raw::open(node.addr);
            raw.send(&request);
            raw.half_close();
            if let Some(answer) = raw.answer() {
                assert!(answer.ok()["version"].is_u64());
            }
            assert!(raw.is_closed());
        }
    }
    bystander.misses_nothing();
}

#[test]
fn clients_that_reset_at_every_moment_harm_nobody() {
    let node = node();
    let mut bystander = Bystander::new(node.addr);
    let subscribe = frame(0x81, br#"{"subscribe":{"objects":["a"]}}"#);
    let handshake = format!("{HANDSHAKE}\r\n");
    let openings = [
        String::new(),
        "G".to_owned(),
        "GET /v1/events?object=a HTTP/1.1\r\nHost: localh".to_owned(),
        "GET /v1/events?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /v1/poll?object=a&cursor=x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"obj".to_owned(),
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{".to_owned(),
        handshake.clone(),
    ];
    for round in 0..5 {
        for opening in &openings {
            let mut raw = Raw::open(node.addr);
            raw.send(opening);
            if round % 2 == 0 && !opening.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            raw.reset();
        }
        let mut ws = RawWs::open(node.addr);
        ws.raw.send(&subscribe);
        if round % 2 == 0 {
            ws.hear_of("subscribed");
        }
        ws.raw.send(&subscribe[..3]);
        ws.raw.reset();
        publish(node.addr, "a");
        bystander.misses_nothing();
    }
    eventually("only the bystander is left", || {
        let connections = get(node.addr, "/v1/connections").ok();
        let left = connections["connections"].as_array().expect("a list");
        left.iter()
            .filter(|connection| connection["transport"] != "session")
            .count()
            == 1
    });
}

#[test]
fn a_silent_connection_is_cut_and_so_is_one_that_drips_its_headers() {
    let node = node_with(|config| {
        config.limits.first_byte_ms = 500;
        config.limits.head_ms = 700;
    });
    let mut silent = Raw::open(node.addr);
    let mut dripping = Raw::open(node.addr);
    let dripper = std::thread::spawn(move || {
        for byte in
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Filler: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                .bytes()
        {
            if !dripping.try_send([byte]) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // It is cut: neither answered nor left open.
        let rest = dripping.rest();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    });
    assert!(silent.is_closed());
    dripper.join().expect("cut");
    assert_eq!(
        (refusals(node.addr, "first_byte_ms"), refusals(node.addr, "head_ms")),
        (1, 1)
    );
}

#[test]
fn a_keep_alive_publisher_may_rest_for_longer_than_a_head_may_take() {
    let node = node_with(|config| {
        config.limits.first_byte_ms = 300;
        config.limits.head_ms = 300;
        config.limits.body_idle_ms = 300;
    });
    let mut raw = Raw::open(node.addr);
    for _ in 0..3 {
        raw.send("POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        raw.answer().expect("an answer").ok();
        std::thread::sleep(Duration::from_millis(900));
    }
    raw.send("POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw.answer().expect("it was not cut").ok();
}

#[test]
fn a_body_that_pauses_too_long_is_answered_with_408() {
    let node = node_with(|config| config.limits.body_idle_ms = 500);
    for (target, kind) in [
        ("/v1/publish", "application/json"),
        ("/v1/publish", "application/x-ndjson"),
        ("/v1/poll", "application/json"),
    ] {
        let mut raw = Raw::open(node.addr);
        raw.send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n{{\"object"));
        let answer = raw.answer().expect("an answer");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (408, "request_timeout"),
            "{target} {kind}"
        );
        assert!(raw.is_closed(), "what follows on it cannot be trusted");
    }
    assert_eq!(version_of(node.addr, "object"), None);
}

#[test]
fn a_slow_but_steady_stream_of_lines_is_taken() {
    let node = node_with(|config| config.limits.body_idle_ms = 1_000);
    let mut raw = Raw::open(node.addr);
    raw.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..12 {
        raw.send("f\r\n{\"object\":\"a\"}\n\r\n");
        std::thread::sleep(Duration::from_millis(150));
    }
    raw.send("0\r\n\r\n");
    assert_eq!(raw.answer().expect("an answer").ok()["accepted"], 12);
}

#[test]
fn headers_too_large_or_too_many_are_431_and_a_long_target_414() {
    let node = node();
    let at = node.addr;
    let with = |target: &str, headers: &str| {
        let mut raw = Raw::open(at);
        raw.try_send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        raw.answer()
    };
    assert_eq!(
        with("/healthz", &format!("X: {}\r\n", "x".repeat(300_000)))
            .expect("an answer")
            .status,
        431
    );
    assert_eq!(
        with("/healthz", &format!("X: {}\r\n", "x".repeat(17_000)))
            .expect("an answer")
            .status,
        431
    );
    assert_eq!(
        with("/healthz", &format!("X: {}\r\n", "x".repeat(15_000)))
            .expect("an answer")
            .status,
        200
    );
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    assert_eq!(with("/healthz", &many(63)).expect("an answer").status, 200);
    assert_eq!(with("/healthz", &many(64)).expect("an answer").status, 431);
    assert_eq!(with("/healthz", &many(150)).expect("an answer").status, 431);
    let long = |bytes: usize| format!("/healthz?{}", "x".repeat(bytes - "/healthz?".len()));
    assert_eq!(with(&long(4_096), "").expect("an answer").status, 200);
    assert_eq!(with(&long(4_097), "").expect("an answer").status, 414);
}

/// Sends a whole request and gives the status, or `None` if the connection was closed without one.
#[track_caller]
fn status(at: SocketAddr, request: &str) -> Option<u16> {
    let mut raw = Raw::open(at);
    raw.send(request);
    raw.answer().map(|answer| answer.status)
}

#[test]
fn requests_that_two_servers_could_read_differently_are_refused() {
    let node = node();
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    let cases = [
        ("no Host", "POST /v1/publish?object=x HTTP/1.1\r\n\r\n"),
        ("no Host in HTTP/1.0", "POST /v1/publish?object=x HTTP/1.0\r\n\r\n"),
        (
            "two Hosts",
            "POST /v1/publish?object=x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        ),
        (
            "length and chunks",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"object\":\"x\"}\r\n0\r\n\r\n",
        ),
        (
            "chunks and length",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 14\r\n\r\ne\r\n{\"object\":\"x\"}\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\nContent-Length: 15\r\n\r\n{\"object\":\"x\"}",
        ),
        (
            "a signed length",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: +14\r\n\r\n{\"object\":\"x\"}",
        ),
        (
            "a negative length",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{\"object\":\"x\"}",
        ),
        (
            "a coding nobody knows",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\ne\r\n{\"object\":\"x\"}\r\n0\r\n\r\n",
        ),
        (
            "chunks before another coding",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\ne\r\n{\"object\":\"x\"}\r\n0\r\n\r\n",
        ),
        (
            "a space before the colon",
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length : 14\r\n\r\n{\"object\":\"x\"}",
        ),
        (
            "a folded header",
            "POST /v1/publish?object=x HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        ),
        (
            "another host in the target",
            "POST http://evil.example/v1/publish?object=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "a NUL in a header",
            "POST /v1/publish?object=x HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        ),
        ("no version", "POST /v1/publish?object=x\r\nHost: localhost\r\n\r\n"),
        (
            "another protocol",
            "POST /v1/publish?object=x HTTP/3.7\r\nHost: localhost\r\n\r\n",
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03"),
        (
            "CONNECT",
            "CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n",
        ),
    ];
    for (what, request) in cases {
        let mut raw = Raw::open(at);
        raw.send(request);
        raw.half_close();
        let answer = raw.answer();
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(
            status.is_none_or(|status| (400..506).contains(&status)),
            "{what}: {status:?}"
        );
        if let Some(400..=403) = status {
            assert!(raw.is_closed(), "{what}: the connection cannot be trusted any more");
        }
    }
    assert_eq!(version_of(at, "x"), None, "none of them was taken for a publish");
    bystander.misses_nothing();
}

#[test]
fn a_host_that_is_not_ours_is_403_on_every_route() {
    let node = node_with(|config| config.server.allowed_hosts = vec!["tidings.example".to_owned()]);
    let at = node.addr;
    let port = at.port();
    let tricks = [
        "evil.example",
        "localhost.evil.example",
        "evil.example:7400",
        "localhost.",
        "127.0.0.1.nip.io",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "user@localhost",
        "localhost:port",
        "localhost:",
        "localhost:1:2",
        "xn--localhost-",
        "",
        "[::1",
        "tidings.example.evil",
        "a.tidings.example",
    ];
    for host in tricks {
        for (method, target) in [
            ("POST", "/v1/publish?object=x"),
            ("GET", "/v1/poll?object=x"),
            ("GET", "/v1/events?object=x"),
            ("GET", "/v1/ws"),
            ("GET", "/metrics"),
            ("GET", "/healthz"),
            ("GET", "/v1/connections"),
        ] {
            let status = status(
                at,
                &format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
            );
            assert!(matches!(status, Some(400 | 403)), "{host:?} {target}: {status:?}");
        }
    }
    for host in [
        "localhost",
        &format!("localhost:{port}"),
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        "[::1]:80",
        "LOCALHOST",
        "tidings.example",
        "tidings.example:443",
    ] {
        assert_eq!(
            status(at, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Some(200),
            "{host}"
        );
    }
    assert_eq!(version_of(at, "x"), None);
}

#[test]
fn a_foreign_page_can_neither_publish_nor_listen() {
    let node = node_with(|config| config.server.allowed_origins = vec!["https://good.example".to_owned()]);
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    let port = at.port();
    let host = format!("localhost:{port}");
    let ask = |method: &str, target: &str, headers: &str| {
        let mut raw = Raw::open(at);
        raw.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
        raw.head().expect("an answer")
    };
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let other_port = format!("http://localhost:{}", port ^ 1);
    let tricks = [
        "https://evil.example",
        "null",
        "https://good.example.evil.com",
        "https://goodXexample",
        "https://GOOD.example",
        "https://good.example.",
        "https://good.example:443",
        "http://good.example",
        "https://good.example/",
        "https://evil.example@good.example",
        "https://xn--god-0na.example",
        "http://[::1]",
        &other_port,
        "http://localhost",
        "",
        "file://",
        "https://good.example https://evil.example",
    ];
    for origin in tricks {
        let headers = format!("Origin: {origin}\r\n");
        for (method, target) in [
            ("POST", "/v1/publish?object=x"),
            ("GET", "/v1/poll?object=x"),
            ("GET", "/v1/events?object=x"),
            ("GET", "/v1/object?object=x"),
            ("GET", "/metrics"),
            ("DELETE", "/v1/connections/0-0-0"),
        ] {
            let answer = ask(method, target, &headers);
            assert_eq!(answer.status, 403, "{origin:?} {target}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        assert_eq!(
            ask("GET", "/v1/ws", &format!("{handshake}{headers}")).status,
            403,
            "{origin:?} WebSocket"
        );
        let preflight = ask(
            "OPTIONS",
            "/v1/publish",
            &format!("{headers}Access-Control-Request-Method: POST\r\n"),
        );
        assert_eq!(
            (preflight.status, preflight.header("access-control-allow-origin")),
            (403, None),
            "{origin:?} preflight"
        );
    }
    assert_eq!(
        ask(
            "GET",
            "/v1/ws",
            &format!("{handshake}Origin: https://good.example\r\nOrigin: https://evil.example\r\n")
        )
        .status,
        403
    );
    assert_eq!(version_of(at, "x"), None);
    // The listed one, and pages of this server's own.
    let answer = ask(
        "POST",
        "/v1/publish?object=y",
        "Origin: https://good.example\r\nContent-Length: 0\r\n",
    );
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("https://good.example"))
    );
    assert!(
        answer
            .header("vary")
            .is_some_and(|vary| vary.to_ascii_lowercase().contains("origin"))
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let preflight = ask(
        "OPTIONS",
        "/v1/publish",
        "Origin: https://good.example\r\nAccess-Control-Request-Method: POST\r\n",
    );
    assert_eq!(preflight.status, 204);
    for origin in ["https://good.example", &format!("http://localhost:{port}")] {
        assert_eq!(
            ask("GET", "/v1/ws", &format!("{handshake}Origin: {origin}\r\n")).status,
            101,
            "{origin}"
        );
        assert_eq!(
            ask("GET", "/v1/events?object=x", &format!("Origin: {origin}\r\n")).status,
            200,
            "{origin}"
        );
    }
    bystander.misses_nothing();
}

#[test]
fn answers_carry_the_headers_that_browsers_need() {
    let node = node();
    for target in [
        "/healthz",
        "/v1/poll?object=a",
        "/v1/nowhere",
        "/v1/object?object=a",
        "/openapi.json",
    ] {
        assert_eq!(
            get(node.addr, target).header("x-content-type-options"),
            Some("nosniff"),
            "{target}"
        );
    }
    let stream = Events::open(node.addr, &["a"], None);
    assert_eq!(stream.head.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = node();
    let mut raw = Raw::open(node.addr);
    let mut requests = String::new();
    for n in 0..30 {
        requests.push_str(&format!("POST /v1/publish?object=o{n} HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/object?object=o{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    raw.send(requests);
    for n in 0..30 {
        let version = raw.answer().expect("an answer").ok()["version"].clone();
        let object = raw.answer().expect("an answer").ok();
        assert_eq!(
            (&object["object"], &object["version"]),
            (&json!(format!("o{n}")), &version)
        );
    }
}

#[test]
fn the_connection_after_the_last_is_told_429_and_the_others_live_on() {
    let node = node_with(|config| {
        config.limits.connections = 20;
        config.limits.first_byte_ms = 60_000;
    });
    let at = node.addr;
    let mut ws = Ws::open(at);
    ws.subscribe(&["a"]);
    let held: Vec<_> = (0..18).map(|_| Raw::open(at)).collect();
    // The twentieth is fine; it is closed with its answer.
    let mut last = Raw::open(at);
    last.send("POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let version = last.answer().expect("an answer").ok()["version"]
        .as_u64()
        .expect("a version");
    ws.up_to(version).is_exactly(&[("a", version)]);
    let mut beyond = Raw::open(at);
    beyond.try_send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = beyond.answer().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many"));
    assert!(answer.header("retry-after").is_some());
    assert!(answer.text().contains("limits.connections"), "{}", answer.text());
    assert!(beyond.is_closed());
    // Whoever leaves makes room.
    drop(held);
    let mut served = 0;
    eventually("there is room again", || {
        let mut raw = Raw::open(at);
        raw.try_send("POST /v1/publish?object=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        served += u32::from(raw.answer().is_some_and(|answer| answer.status == 200));
        served > 0
    });
    let version = version_of(at, "a").expect("a version");
    ws.up_to(version).is_exactly(&[("a", version)]);
    assert!(refusals(at, "connections") >= 1);
}

#[test]
fn a_thousand_connections_come_and_go_and_leave_nothing_behind() {
    let node = node();
    let at = node.addr;
    let mut bystander = Bystander::new(at);
    for round in 0..10 {
        let all: Vec<_> = (0..100).map(|_| Ws::open(at)).collect();
        assert_eq!(all.len(), 100);
        if round % 3 == 0 {
            all.into_iter().for_each(|mut ws| _ = ws.socket.close(None));
        }
    }
    eventually("all are gone", || {
        get(at, "/v1/connections").ok()["connections"].as_array().map(Vec::len) == Some(1)
    });
    let open = |text: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix("tidings_connections_open ")?.parse::<u64>().ok())
    };
    // The bystander and the one that asks.
    eventually("no place is kept", || {
        open(&get(at, "/metrics").text()).is_some_and(|open| open <= 2)
    });
    bystander.misses_nothing();
}

#[test]
fn a_client_that_says_goodbye_gets_its_close_frame_back() {
    let node = node();
    let mut raw = RawWs::open(node.addr);
    raw.hear_of("hello");
    raw.raw.send(frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
    assert_eq!(raw.close_code(), Some(1000));
    let connections = || get(node.addr, "/v1/connections").ok()["connections"].clone();
    eventually("it is gone", || connections() == json!([]));
}
