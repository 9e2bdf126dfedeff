//! How fast strangers may come and speak, how old their connections may become, and when those who are sent away come back.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::*;
use tidings::RunningNode;
use tidings::config::Config;

const PROXY: &str = "127.0.0.2";
const ALICE: &str = "X-Forwarded-For: 198.51.100.7\r\n";
const BOB: &str = "X-Forwarded-For: 198.51.100.8\r\n";

/// A node that believes one proxy: what comes through it are strangers.
fn strangers(change: impl FnOnce(&mut Config)) -> RunningNode {
    node_with(|config| {
        config.server.trusted_proxies = vec![PROXY.to_owned()];
        change(config);
    })
}

/// A stream that somebody behind the proxy opens: its answer's head.
#[track_caller]
fn come(at: SocketAddr, whose: &str) -> (Raw, Answer) {
    let mut raw = Raw::open_from(PROXY.parse().expect("an address"), at);
    raw.send(format!(
        "GET /v1/events?object=a HTTP/1.1\r\nHost: localhost\r\n{whose}\r\n"
    ));
    let head = raw.head().expect("an answer");
    (raw, head)
}

fn refused(at: SocketAddr, limit: &str) -> u64 {
    let metrics = get(at, "/metrics").text();
    let name = format!("tidings_refused_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.expect("every limit is counted").parse().expect("a number")
}

/// Comes until refused; gives how often it was let in, and the refusal. Slower than the limit on no machine.
#[track_caller]
fn until_refused(at: SocketAddr, whose: &str) -> (usize, Answer) {
    let mut let_in = Vec::new();
    loop {
        let (mut raw, head) = come(at, whose);
        if head.status != 200 {
            let length: usize = head
                .header("content-length")
                .and_then(|n| n.parse().ok())
                .expect("a length");
            let body = raw.exactly(length).expect("a body");
            return (let_in.len(), Answer { body, ..head });
        }
        let_in.push(raw);
        assert!(let_in.len() < 500, "nobody is ever refused");
    }
}

#[test]
fn an_address_comes_as_fast_as_its_limit_and_others_are_let_in_all_the_same() {
    let node = strangers(|config| {
        config.limits.connections_per_address_per_s = 1;
        config.limits.connections_per_address_burst = 3;
    });
    let mut bystander = Bystander::new(node.addr);
    let (let_in, answer) = until_refused(node.addr, ALICE);
    assert!(let_in >= 3, "a burst fits: {let_in}");
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many"));
    assert!(
        answer.text().contains("limits.connections_per_address_per_s"),
        "{}",
        answer.text()
    );
    assert!(
        matches!(answer.header("retry-after"), Some("1" | "2" | "3")),
        "{answer:?}"
    );
    assert_eq!(refused(node.addr, "connections_per_address_per_s"), 1);
    assert_eq!(come(node.addr, BOB).1.status, 200);
    // Requests that do not stay are no connections, and those of this machine come as they like.
    for _ in 0..20 {
        let mut raw = Raw::open_from(PROXY.parse().expect("an address"), node.addr);
        raw.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{ALICE}\r\n"));
        assert_eq!(raw.answer().expect("an answer").status, 200);
        assert_eq!(get(node.addr, "/healthz").status, 200);
    }
    // It is let in again as soon as the rate allows.
    eventually("its turn comes", || come(node.addr, ALICE).1.status == 200);
    bystander.misses_nothing();
}

#[test]
fn all_strangers_together_come_as_fast_as_their_limit() {
    let node = strangers(|config| config.limits.connections_per_s = 4);
    let mut bystander = Bystander::new(node.addr);
    let mut came = 0;
    let answer = loop {
        let (_, head) = come(node.addr, &format!("X-Forwarded-For: 198.51.100.{}\r\n", came % 250));
        if head.status != 200 {
            break head;
        }
        came += 1;
        assert!(came < 2_000, "nobody is ever refused");
    };
    assert!(came >= 4, "{came}");
    assert_eq!(answer.status, 429);
    assert_eq!(refused(node.addr, "connections_per_s"), 1);
    bystander.misses_nothing();
}

#[test]
fn an_event_source_that_is_refused_for_now_is_told_in_its_stream() {
    let node = strangers(|config| config.limits.connections_per_address = 1);
    let _held = come(node.addr, ALICE);
    let raw = Raw::open_from(PROXY.parse().expect("an address"), node.addr);
    let page = "Origin: http://localhost\r\n";
    let mut stream = Events::open_with(raw, "/v1/events?object=a", &format!("{ALICE}{page}"));
    let length = stream
        .head
        .header("content-length")
        .and_then(|n| n.parse().ok())
        .expect("it ends");
    let told = blocks(&stream.raw.exactly(length).expect("a body"));
    let [retry, reconnect] = &told[..] else {
        panic!("{told:?}")
    };
    let after_ms = retry["retry"].as_u64().expect("a time");
    assert!((1_000..4_000).contains(&after_ms), "{told:?}");
    assert_eq!(
        reconnect["reconnect"],
        json!({"after_ms": after_ms, "reason": "too_many"})
    );
    assert_eq!(stream.head.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(stream.head.header("retry-after"), None);
    assert_eq!(refused(node.addr, "connections_per_address"), 1);
}

#[test]
fn requests_beyond_the_rate_wait_and_nothing_is_lost() {
    let node = node_with(|config| {
        config.limits.messages_per_s = 1;
        config.limits.messages_burst = 3;
    });
    let mut bystander = node_client(node.addr);
    let mut ws = Ws::open(node.addr);
    let since = Instant::now();
    for id in 0..5 {
        ws.say(&json!({"ping": {}, "id": id}));
    }
    for id in 0..5 {
        let pong = loop {
            let told = ws.hear();
            if told.get("pong").is_some() {
                break told;
            }
        };
        assert_eq!(pong["id"], id, "in order");
    }
    // Three at once, and one a second: the fifth is answered after two seconds, on no machine before.
    assert!(since.elapsed() >= Duration::from_millis(1_990), "{:?}", since.elapsed());
    eventually("a connection that waits is counted", || {
        (0..5).for_each(|id| ws.say(&json!({"ping": {}, "id": id})));
        refused(node.addr, "messages_per_s") > 0
    });
    let version = publish(node.addr, "bystander");
    bystander.until_told(&[("bystander", version)]);
}

fn node_client(at: SocketAddr) -> Ws {
    let mut ws = Ws::open(at);
    ws.subscribe(&["bystander"]);
    ws
}

#[test]
fn objects_beyond_the_rate_wait_and_everybody_may_come_back_with_all_they_had() {
    let node = node_with(|config| {
        config.limits.subscribes_per_s = 1;
        config.limits.subscribes_burst = 1;
        config.limits.objects_per_connection = 3;
    });
    for _ in 0..3 {
        // A burst of its own for each connection, as large as what one may watch.
        let mut ws = Ws::open(node.addr);
        ws.subscribe(&["a", "b", "c"]);
    }
    let mut ws = Ws::open(node.addr);
    let since = Instant::now();
    ws.subscribe(&["a", "b", "c"]);
    ws.ask(&json!({"unsubscribe": {"objects": ["a", "b"]}}));
    ws.subscribe(&["d", "e"]);
    assert!(since.elapsed() >= Duration::from_millis(1_990), "{:?}", since.elapsed());
    eventually("a connection that waits is counted", || {
        ws.ask(&json!({"unsubscribe": {"objects": ["c", "d", "e"]}}));
        ws.subscribe(&["c", "d", "e"]);
        refused(node.addr, "subscribes_per_s") > 0
    });
    let version = publish(node.addr, "e");
    ws.until_told(&[("e", version)]);
}

#[test]
fn without_rates_nobody_waits() {
    let node = node_with(|config| {
        config.limits.messages_per_s = 0;
        config.limits.messages_burst = 1;
        config.limits.subscribes_per_s = 0;
        config.limits.subscribes_burst = 1;
        config.limits.objects_per_connection = 2;
    });
    let mut ws = Ws::open(node.addr);
    for _ in 0..50 {
        ws.subscribe(&["a", "b"]);
        ws.ask(&json!({"unsubscribe": {"objects": ["a", "b"]}}));
    }
    for limit in ["messages_per_s", "subscribes_per_s"] {
        assert_eq!(refused(node.addr, limit), 0, "{limit}");
    }
}

/// Watches the same objects through many lives of its connection.
struct Traveller {
    at: SocketAddr,
    objects: Vec<String>,
    as_stream: bool,
    ear: Option<Box<dyn Ear>>,
    cursor: String,
    lives: usize,
    newest: BTreeMap<String, u64>,
}

impl Traveller {
    fn open(&self) -> Box<dyn Ear> {
        let cursor = Some(self.cursor.as_str()).filter(|cursor| !cursor.is_empty());
        if self.as_stream {
            let query: Vec<_> = self.objects.iter().map(|object| format!("object={object}")).collect();
            let last = cursor.map_or_else(String::new, |cursor| format!("Last-Event-ID: {cursor}\r\n"));
            let target = format!("/v1/events?{}", query.join("&"));
            return Box::new(Events::open_with(Raw::open(self.at), &target, &last));
        }
        let mut ws = Ws::open(self.at);
        ws.say(&json!({"subscribe": {"objects": self.objects, "cursor": cursor}}));
        Box::new(ws)
    }

    /// Listens, and comes back as often as it has to, until it is told this; or, of nothing, until it has a cursor.
    fn until(&mut self, wanted: Option<(&str, u64)>) {
        loop {
            let has = match wanted {
                Some((object, version)) => self.newest.get(object) == Some(&version),
                None => !self.cursor.is_empty(),
            };
            if has {
                return;
            }
            let mut ear = self.ear.take().unwrap_or_else(|| self.open());
            let Some(told) = ear.next() else { continue };
            self.ear = Some(ear);
            self.take(&told);
        }
    }

    fn take(&mut self, told: &Value) {
        if let Some(reconnect) = told.get("reconnect") {
            self.lives += 1;
            assert_eq!(reconnect["reason"], "lifetime");
            let after_ms = reconnect["after_ms"].as_u64().expect("a time");
            assert!((100..=1_100).contains(&after_ms), "{told}");
        }
        if let Some(cursor) = told["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        assert!(told.get("resync").is_none(), "{told}");
        for change in told["changes"].as_array().into_iter().flatten() {
            let object = change["object"].as_str().expect("an object").to_owned();
            let version = change["version"].as_u64().expect("a version");
            // Another life may tell once more what no cursor vouched for yet; none goes back.
            let before = self.newest.insert(object, version);
            assert!(before.is_none_or(|before| before <= version), "{before:?}: {change}");
        }
    }
}

#[test]
fn a_connection_that_is_old_is_asked_to_come_back_and_misses_nothing() {
    let node = node_with(|config| config.limits.connection_lifetime_ms = 400);
    for as_stream in [false, true] {
        let objects = names(if as_stream { "s" } else { "w" }, 40);
        let mut traveller = Traveller {
            at: node.addr,
            objects: objects.clone(),
            as_stream,
            ear: None,
            cursor: String::new(),
            lives: 0,
            newest: BTreeMap::new(),
        };
        traveller.until(None);
        // Some changes come while it is connected, others while it is on its way.
        let since = Instant::now();
        for object in objects.iter().cycle() {
            let version = publish(node.addr, object);
            traveller.until(Some((object, version)));
            if traveller.lives >= 3 {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "it never becomes old");
        }
    }
    assert!(refused(node.addr, "connection_lifetime_ms") >= 6);
    let mut ws = Ws::open(node.addr);
    let (told, code) = ws.read_to_the_end();
    assert_eq!(code, Some(4003));
    assert!(told.iter().any(|told| told.get("reconnect").is_some()), "{told:?}");
}
