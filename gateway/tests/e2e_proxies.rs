//! Behind a proxy it is its clients who are counted and shown, and nobody can say so for themselves.

#[path = "support/support.rs"]
mod support;

use serde_json::Value;
use std::net::SocketAddr;
use support::*;
use tidings::RunningNode;

/// Where the proxy is. Other connections of this machine come from 127.0.0.1, which is none.
const PROXY: &str = "127.0.0.2";
const ALICE: &str = "198.51.100.7";
const BOB: &str = "198.51.100.8";

/// A node that believes proxies on this machine, and lets two requests of one address be under way.
fn behind_a_proxy() -> RunningNode {
    node_with(|config| {
        config.server.trusted_proxies = vec![PROXY.to_owned()];
        config.limits.connections_per_address = 2;
    })
}

fn from(client: &str) -> String {
    format!("X-Forwarded-For: {client}\r\n")
}

/// A connection of the proxy's.
fn proxy(at: SocketAddr) -> Raw {
    Raw::open_from(PROXY.parse().expect("an address"), at)
}

/// A request that the proxy passes on.
#[track_caller]
fn ask(at: SocketAddr, target: &str, headers: &str) -> Answer {
    let mut raw = proxy(at);
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    raw.answer().expect("an answer")
}

fn stream(at: SocketAddr, headers: &str) -> Events {
    Events::open_with(proxy(at), "/v1/events?object=a", headers)
}

/// What a stream opened with these headers gets: nothing, or a refusal's code.
#[track_caller]
fn refused(at: SocketAddr, headers: &str) -> String {
    let answer = ask(at, "/v1/events?object=a", headers);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(
        answer.text().contains("limits.connections_per_address"),
        "{}",
        answer.text()
    );
    answer.code()
}

/// The addresses of everybody who is connected.
fn shown(at: SocketAddr) -> Vec<String> {
    let list = get(at, "/v1/connections").ok();
    let all = list["connections"].as_array().expect("a list");
    let address = |one: &Value| one["address"].as_str().unwrap_or("none").to_owned();
    let mut addresses: Vec<_> = all.iter().map(address).collect();
    addresses.sort();
    addresses
}

fn counted(at: SocketAddr) -> u64 {
    let metrics = get(at, "/metrics").text();
    let name = "tidings_refused_total{limit=\"connections_per_address\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.expect("it is counted").parse().expect("a number")
}

#[test]
fn the_client_behind_the_proxy_is_shown_for_every_transport() {
    let node = behind_a_proxy();
    let _events = stream(node.addr, &from(ALICE));
    let mut raw = proxy(node.addr);
    raw.send(format!("{HANDSHAKE}{}\r\n", from(BOB)));
    assert_eq!(raw.head().expect("an answer").status, 101);
    let poll = ask(node.addr, "/v1/poll?object=a", &from("2001:db8::7"));
    assert_eq!(poll.status, 200, "{}", poll.text());
    eventually("all three are shown", || {
        shown(node.addr) == [ALICE, BOB, "2001:db8::7"]
    });
    let found = get(node.addr, &format!("/v1/connections?search={BOB}"));
    assert_eq!(found.ok()["connections"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_address_behind_the_proxy_has_as_many_requests_under_way_as_the_limit_and_not_one_more() {
    let node = behind_a_proxy();
    let mut bystander = Bystander::new(node.addr);
    let first = stream(node.addr, &from(ALICE));
    let mut socket = proxy(node.addr);
    socket.send(format!("{HANDSHAKE}{}\r\n", from(ALICE)));
    assert_eq!(socket.head().expect("an answer").status, 101);
    assert_eq!(refused(node.addr, &from(ALICE)), "too_many");
    assert_eq!(counted(node.addr), 1);
    // The proxy's connection goes on for others.
    let mut shared = proxy(node.addr);
    for (client, status) in [(BOB, 200), (ALICE, 429), (BOB, 200)] {
        shared.send(format!(
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            from(client)
        ));
        assert_eq!(shared.answer().expect("an answer").status, status, "{client}");
    }
    // A stream gives its place back when it ends, and so does a WebSocket.
    drop(first);
    drop(socket);
    let mut kept = Vec::new();
    eventually("two places are free again", || {
        let (mut raw, ask) = (proxy(node.addr), from(ALICE));
        raw.send(format!(
            "GET /v1/events?object=a HTTP/1.1\r\nHost: localhost\r\n{ask}\r\n"
        ));
        if raw.head().expect("an answer").status == 200 {
            kept.push(raw);
        }
        kept.len() == 2
    });
    refused(node.addr, &from(ALICE));
    bystander.misses_nothing();
}

#[test]
fn nothing_that_a_client_writes_dodges_the_limit() {
    let node = behind_a_proxy();
    let _open = [stream(node.addr, &from(ALICE)), stream(node.addr, &from(ALICE))];
    // What the proxy received from its client stands left of what it added.
    for spoofed in [
        "X-Forwarded-For: 203.0.113.9, ALICE",
        "X-Forwarded-For: 127.0.0.1, ALICE",
        "X-Forwarded-For: unknown, ALICE",
        "X-Forwarded-For: \"203.0.113.9\", ALICE",
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: ALICE",
        "X-Forwarded-For: ALICE, 127.0.0.2",
        "X-Forwarded-For: ALICE:4711",
        "X-Forwarded-For: ::ffff:ALICE",
        "X-Forwarded-For: ALICE\r\nForwarded: for=203.0.113.9",
        "Forwarded: for=203.0.113.9\r\nX-Forwarded-For: ALICE",
        "X-Forwarded-For: ALICE\r\nX-Real-IP: 203.0.113.9\r\nTrue-Client-IP: 203.0.113.9",
        "Connection: close, X-Forwarded-For\r\nX-Forwarded-For: ALICE",
        "x-FORWARDED-for:ALICE",
    ] {
        assert_eq!(
            refused(node.addr, &format!("{}\r\n", spoofed.replace("ALICE", ALICE))),
            "too_many"
        );
    }
    // Where the proxy names nobody it is counted itself, so that taking the header away is no way out.
    let _own = [stream(node.addr, ""), stream(node.addr, "X-Forwarded-For: unknown\r\n")];
    for nobody in ["", "X-Forwarded-For: \r\n", "X-Forwarded-For: 203.0.113.9, _hidden\r\n"] {
        assert_eq!(refused(node.addr, nobody), "too_many", "{nobody:?}");
    }
}

#[test]
fn whoever_is_no_proxy_is_not_believed() {
    let node = node_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.3".to_owned()];
        config.limits.connections_per_address = 1;
    });
    // All of loopback is exempt by itself, and may say what it likes.
    let open: Vec<_> = (0..3).map(|_| stream(node.addr, &from(ALICE))).collect();
    let all = shown(node.addr);
    assert_eq!(all.len(), open.len());
    let proxy = format!("{PROXY}:");
    assert!(all.iter().all(|address| address.starts_with(&proxy)), "{all:?}");
}

#[test]
fn the_standard_header_counts_where_it_is_chosen() {
    let node = node_with(|config| {
        config.server.trusted_proxies = vec![PROXY.to_owned()];
        config.server.forwarded_header = "forwarded".to_owned();
        config.limits.connections_per_address = 1;
    });
    let ask = "Forwarded: for=203.0.113.9, for=\"[2001:db8::7]:4711\";proto=https\r\n";
    let _open = stream(node.addr, ask);
    assert_eq!(shown(node.addr), ["2001:db8::7"]);
    assert_eq!(
        refused(node.addr, "Forwarded: For=\"[2001:db8::1]\"\r\n"),
        "too_many",
        "one network of 64 bits"
    );
    let _other = stream(node.addr, "X-Forwarded-For: 2001:db8::7\r\n");
}

/// The program with the PROXY protocol in front of it, one connection an address.
fn program() -> (Program, SocketAddr) {
    Program::serve(&[
        "--server.trusted_proxies",
        PROXY,
        "--server.proxy_protocol",
        "true",
        "--limits.connections_per_address",
        "1",
    ])
}

const PLAIN: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A header of version 1 for this address.
fn first_version(address: &str) -> Vec<u8> {
    format!("PROXY TCP4 {address} 10.0.0.1 4711 80\r\n").into_bytes()
}

/// A header of version 2 for this IPv4 address.
fn second_version(address: [u8; 4]) -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    let ports = [4711_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    [&fixed[..], &address, &[10, 0, 0, 1], &ports].concat()
}

#[test]
fn a_proxy_of_connections_says_first_whom_it_saw() {
    let (_program, at) = program();
    // Also when it comes in pieces.
    let mut alice = proxy(at);
    for piece in first_version(ALICE).chunks(5) {
        alice.send(piece);
    }
    let mut alice = Events::open_with(alice, "/v1/events?object=a", "");
    let mut bob = proxy(at);
    bob.send(
        [
            &second_version([198, 51, 100, 8]),
            &b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        ]
        .concat(),
    );
    assert_eq!(bob.answer().expect("an answer").status, 200);
    assert_eq!(shown(at), [format!("{ALICE}:4711")]);
    // One more of each is one too many, whatever a header of theirs says.
    for (again, header) in [
        (first_version(ALICE), "X-Forwarded-For: 203.0.113.9\r\n"),
        (second_version([198, 51, 100, 8]), ""),
    ] {
        let mut raw = proxy(at);
        raw.send(again);
        raw.try_send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"));
        let answer = raw.answer().expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (429, "too_many"));
    }
    assert_eq!(counted(at), 2);
    // The proxy itself, looking whether the server lives; and somebody who is no proxy.
    let mut own = proxy(at);
    own.send(format!("PROXY UNKNOWN\r\n{PLAIN}"));
    assert_eq!(own.answer().expect("an answer").status, 200);
    let mut direct = Raw::open(at);
    direct.send([&first_version("203.0.113.9"), PLAIN.as_bytes()].concat());
    assert_eq!(
        direct.answer().expect("an answer").status,
        400,
        "nobody else may say so"
    );
    // Alice heard all the while.
    let version = publish(at, "a");
    alice.up_to(version).is_exactly(&[("a", version)]);
}

#[test]
fn a_proxys_connection_that_does_not_begin_so_is_closed() {
    let (_program, at) = program();
    let mut bystander = Bystander::new(at);
    let wrong = [
        PLAIN.as_bytes().to_vec(),
        format!("PROXY TCP4 198.51.100.999 10.0.0.1 1 80\r\n{PLAIN}").into_bytes(),
        format!("PROXY TCP4 {ALICE}\r\n{PLAIN}").into_bytes(),
        format!("PROXY TCP4 {}\r\n{PLAIN}", "1".repeat(5_000)).into_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............".to_vec(),
    ];
    for bytes in &wrong {
        let mut raw = proxy(at);
        raw.try_send(bytes);
        assert!(raw.is_closed(), "{}", String::from_utf8_lossy(bytes));
    }
    let metrics = get(at, "/metrics").text();
    let counted = format!("tidings_gate_refused_total{{reason=\"proxy\"}} {}\n", wrong.len());
    assert!(metrics.contains(&counted), "{metrics}");
    bystander.misses_nothing();
}
