//! What bad connections and bad requests get, tried on a real node with raw sockets.

use crate::telemetry::Limit;
use crate::testing::{Raw, ask, node};
use crate::{RunningNode, config::Config};
use std::io::Write;
use std::time::{Duration, Instant};

const PLAIN: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Deadlines short enough for tests and far enough apart to tell them from each other.
fn impatient(config: &mut Config) {
    config.limits.first_byte_ms = 300;
    config.limits.head_ms = 300;
    config.limits.idle_ms = 1_500;
    config.limits.body_idle_ms = 300;
}

fn refusals(node: &RunningNode, limit: Limit) -> bool {
    node.node
        .metrics
        .encode(&[], "")
        .contains(&format!("tidings_refused_total{{limit=\"{}\"}} 1\n", limit.name()))
}

#[test]
fn a_connection_that_sends_nothing_is_cut() {
    let node = node(impatient);
    let begin = Instant::now();
    assert!(Raw::open(node.addr).is_closed());
    assert!(
        (250..1_400).contains(&begin.elapsed().as_millis()),
        "{:?}",
        begin.elapsed()
    );
    assert!(refusals(&node, Limit::FirstByte));
}

#[test]
fn a_dripped_head_is_cut_though_each_byte_comes_in_time() {
    let node = node(impatient);
    let mut raw = Raw::open(node.addr);
    let begin = Instant::now();
    for byte in PLAIN.iter().cycle().take(PLAIN.len() - 2) {
        if raw.0.write_all(&[*byte]).is_err() || begin.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(raw.is_closed());
    assert!(refusals(&node, Limit::Head));
}

#[test]
fn a_dripped_head_is_cut_on_a_connection_that_was_used_before() {
    let node = node(impatient);
    let mut raw = Raw::open(node.addr);
    raw.send(PLAIN);
    assert_eq!(raw.answer().expect("an answer").status, 200);
    let begin = Instant::now();
    raw.send(b"GET /hea");
    assert!(raw.is_closed());
    assert!(begin.elapsed() < Duration::from_millis(1_200), "{:?}", begin.elapsed());
}

#[test]
fn a_resting_connection_outlives_the_deadline_for_heads_and_is_cut_after_its_own() {
    let node = node(impatient);
    let mut raw = Raw::open(node.addr);
    for _ in 0..3 {
        raw.send(PLAIN);
        assert_eq!(raw.answer().expect("an answer").status, 200);
        std::thread::sleep(Duration::from_millis(800));
    }
    raw.send(PLAIN);
    assert_eq!(raw.answer().expect("an answer").status, 200);
    let begin = Instant::now();
    assert!(raw.is_closed());
    assert!(
        (1_300..4_000).contains(&begin.elapsed().as_millis()),
        "{:?}",
        begin.elapsed()
    );
    assert!(refusals(&node, Limit::Idle));
}

#[test]
fn a_body_that_pauses_is_answered_408_and_cut() {
    let node = node(impatient);
    let mut raw = Raw::open(node.addr);
    raw.send(b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{\"obj");
    let answer = raw.answer().expect("an answer");
    assert_eq!(answer.code(), "request_timeout");
    assert_eq!(answer.json()["applied"], "no");
    assert!(raw.is_closed());
    assert!(refusals(&node, Limit::BodyIdle));
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let node = node(|config| config.limits.write_stall_ms = 400);
    let mut raw = Raw::open(node.addr);
    socket2::SockRef::from(&raw.0)
        .set_recv_buffer_size(4_096)
        .expect("a small buffer");
    // The documents are large; nobody reads the answers.
    let begin = Instant::now();
    raw.0
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a timeout");
    while begin.elapsed() < Duration::from_secs(5) && !refusals(&node, Limit::WriteStall) {
        if raw
            .0
            .write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .is_err()
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(refusals(&node, Limit::WriteStall));
}

#[test]
fn large_and_many_headers_are_431() {
    let node = node(|_| {});
    let with = |headers: &str| {
        ask(
            node.addr,
            &format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"),
        )
        .status
    };
    assert_eq!(with(&format!("X: {}\r\n", "x".repeat(16_384))), 431);
    assert_eq!(with(&format!("X: {}\r\n", "x".repeat(15_000))), 200);
    assert_eq!(with(&"X: x\r\n".repeat(64)), 431);
    assert_eq!(with(&"X: x\r\n".repeat(63)), 200);
    assert!(
        node.node
            .metrics
            .encode(&[], "")
            .contains("tidings_refused_total{limit=\"header_bytes\"} 2\n")
    );
}

#[test]
fn ambiguous_requests_are_400_and_end_the_connection() {
    let node = node(|_| {});
    for request in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: +4\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    ] {
        let mut raw = Raw::open(node.addr);
        raw.send(request.as_bytes());
        assert_eq!(raw.answer().map(|answer| answer.status), Some(400), "{request:?}");
        assert!(raw.is_closed(), "{request:?}");
    }
}

#[test]
fn a_chunked_publish_is_fine() {
    let node = node(|_| {});
    let body = "10\r\n{\"object\": \"ab\"}\r\n0\r\n\r\n";
    let head = "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(ask(node.addr, &format!("{head}{body}")).status, 200);
    // Also as the second request of a connection, and with its body split from its head.
    let mut raw = Raw::open(node.addr);
    for _ in 0..2 {
        raw.send(head.as_bytes());
        raw.send(body.as_bytes());
        assert_eq!(raw.answer().expect("an answer").status, 200);
    }
}

#[test]
fn a_body_that_nobody_reads_is_not_taken_for_the_next_request() {
    let node = node(|_| {});
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost", 200),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example", 403),
        ("PUT /v1/publish HTTP/1.1\r\nHost: localhost", 405),
        ("POST /nothing HTTP/1.1\r\nHost: localhost", 404),
        (
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain",
            415,
        ),
        ("POST /v1/publish?ack=durable HTTP/1.1\r\nHost: localhost", 409),
    ] {
        let mut raw = Raw::open(node.addr);
        raw.send(format!("{head}\r\nContent-Length: 44\r\n\r\n").as_bytes());
        let answer = raw.answer().expect("an answer");
        assert_eq!(answer.status, status, "{head}");
        assert!(answer.head.contains("connection: close"), "{head}: {}", answer.head);
        _ = raw.0.write_all(PLAIN);
        assert!(raw.is_closed(), "{head}");
    }
    // One that was read whole spoils nothing, whatever the answer.
    let mut raw = Raw::open(node.addr);
    for _ in 0..2 {
        raw.send(b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nnonsense");
        assert_eq!(raw.answer().expect("an answer").status, 400);
    }
}

#[test]
fn strange_hosts_and_origins_are_403_before_any_route() {
    let node = node(|_| {});
    let with = |headers: &str| {
        ask(
            node.addr,
            &format!("POST /v1/publish?object=a HTTP/1.1\r\n{headers}\r\n"),
        )
    };
    assert_eq!(with("Host: evil.example\r\n").code(), "host_refused");
    assert_eq!(
        with("Host: localhost\r\nOrigin: https://evil.example\r\n").code(),
        "origin_refused"
    );
    assert_eq!(with("Host: localhost\r\nOrigin: null\r\n").code(), "origin_refused");
    assert_eq!(with("Host: localhost\r\nOrigin: http://localhost\r\n").status, 200);
}

#[test]
fn a_listed_origin_may_ask_first_and_then_read_the_answer() {
    let node = node(|config| config.server.allowed_origins = vec!["https://app.example".to_owned()]);
    let headers = "Host: localhost\r\nOrigin: https://app.example\r\n";
    let first = ask(
        node.addr,
        &format!("OPTIONS /v1/publish HTTP/1.1\r\n{headers}Access-Control-Request-Method: POST\r\n\r\n"),
    );
    assert_eq!(first.status, 204);
    assert!(
        first.head.contains("access-control-allow-origin: https://app.example"),
        "{}",
        first.head
    );
    let then = ask(
        node.addr,
        &format!("POST /v1/publish?object=a HTTP/1.1\r\n{headers}\r\n"),
    );
    assert_eq!(then.status, 200);
    assert!(
        then.head.contains("access-control-allow-origin: https://app.example"),
        "{}",
        then.head
    );
}

#[test]
fn a_connection_beyond_the_limit_is_told_so() {
    let node = node(|config| config.limits.connections = 2);
    let mut held: Vec<Raw> = (0..2).map(|_| Raw::open(node.addr)).collect();
    for raw in &mut held {
        raw.send(PLAIN);
        assert_eq!(raw.answer().expect("an answer").status, 200);
    }
    let mut third = Raw::open(node.addr);
    assert_eq!(third.answer().expect("an answer").code(), "too_many");
    assert!(third.is_closed());
    held.clear();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ask(node.addr, std::str::from_utf8(PLAIN).expect("text")).status, 200);
}

#[test]
fn errors_of_routing_are_problems() {
    let node = node(|_| {});
    let with = |line: &str| ask(node.addr, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(with("GET /nothing").code(), "not_found");
    let answer = with("POST /healthz");
    assert_eq!(answer.code(), "method_not_allowed");
    assert!(answer.head.contains("\r\nallow: get"), "{}", answer.head);
    assert_eq!(with(&format!("GET /{}", "a".repeat(4_096))).status, 414);
}

#[test]
fn draining_refuses_connections_answers_what_is_in_flight_and_ends() {
    let node = node(|_| {});
    let mut flying = Raw::open(node.addr);
    flying.send(b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"obje");
    let mut resting = Raw::open(node.addr);
    resting.send(PLAIN);
    assert_eq!(resting.answer().expect("an answer").status, 200);
    let _silent = Raw::open(node.addr);
    std::thread::sleep(Duration::from_millis(100));
    node.drain();
    assert!(resting.is_closed());
    flying.send(b"ct\":\"a\"}");
    assert_eq!(flying.answer().expect("an answer").status, 200);
    assert!(flying.is_closed());
    let address = node.addr;
    let begin = Instant::now();
    assert!(node.join());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(std::net::TcpStream::connect(address).is_err());
}
