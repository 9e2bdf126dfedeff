//! Cursors that are none of ours: the client fetches everything once, and goes on with one that works.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use support::*;

/// What could stand where a cursor belongs, beside real ones that are damaged.
fn odd_cursors(real: &str) -> Vec<String> {
    let mut cursors: Vec<String> = ["", "x", "0", "null", "AAAA", "....", "a b", "ü", "%00", "\u{1f600}"]
        .map(str::to_owned)
        .to_vec();
    cursors.push("A".repeat(2_048));
    cursors.push("A".repeat(3_000));
    cursors.push(real[..real.len() - 1].to_owned());
    cursors.push(format!("{real}A"));
    cursors.push(real.replace(|c: char| c.is_ascii_digit(), "_"));
    cursors.push(real.to_lowercase());
    for place in [0, 1, real.len() / 2, real.len() - 1] {
        let mut bytes = real.as_bytes().to_vec();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        cursors.push(String::from_utf8(bytes).expect("text"));
    }
    cursors.retain(|cursor| cursor != real);
    cursors
}

#[test]
fn a_cursor_that_is_none_means_fetching_everything_once_and_never_a_loop() {
    let node = node();
    let elsewhere = support::node();
    let mut bystander = Bystander::new(node.addr);
    let objects = ["a", "b"];
    let settle = |at: SocketAddr| {
        let version = publish(at, "a");
        Poller::resume(Poll::of(at, &objects), "").up_to(version).cursor
    };
    let real = settle(node.addr);
    let foreign = settle(elsewhere.addr);
    let own = tidings_protocol::Cursor::decode(&real).expect("a cursor");
    let future = tidings_protocol::Version(own.base.0 + 3_600_000_000);
    let future = tidings_protocol::Cursor::new(own.cluster, future, Vec::new(), Vec::new())
        .encode()
        .expect("short");
    let endless = tidings_protocol::Version((1 << 53) - 1);
    let endless = tidings_protocol::Cursor::new(own.cluster, endless, Vec::new(), Vec::new())
        .encode()
        .expect("short");
    let mut cases = vec![
        (foreign, "cursor_foreign"),
        (future, "cursor_future"),
        (endless, "cursor_future"),
    ];
    cases.extend(
        odd_cursors(&real)
            .into_iter()
            .map(|cursor| (cursor, "cursor_unreadable")),
    );
    for (cursor, cause) in &cases {
        let mut poller = Poller::resume(Poll::of(node.addr, &objects), cursor);
        let answer = poller.next(5_000);
        assert_eq!(
            answer["resync"],
            json!({ "all": true, "cause": cause }),
            "{cursor:?}: {answer}"
        );
        assert_ne!(poller.cursor, *cursor);
        // The next poll has a cursor that works: it waits, and it tells what is new and nothing else.
        let version = publish(node.addr, "b");
        let heard = poller.up_to(version);
        assert!(
            heard.resyncs.is_empty() && heard.newest["b"] == version,
            "{cursor:?}: {heard:?}"
        );

        let mut ws = Ws::open(node.addr);
        ws.subscribe_with(&objects, Some(cursor));
        assert_eq!(ws.hear_of("resync"), json!({ "all": true, "cause": cause }));
        let fresh = ws.hear_of("cursor").as_str().expect("text").to_owned();
        let mut again = Ws::open(node.addr);
        again.subscribe_with(&objects, Some(&fresh));
        let version = publish(node.addr, "a");
        let heard = again.up_to(version);
        assert!(heard.resyncs.is_empty(), "{cursor:?}: {heard:?}");

        let mut stream = Events::post(node.addr, &json!({ "objects": objects, "cursor": cursor }));
        assert_eq!(stream.hear_of("resync"), json!({ "all": true, "cause": cause }));
        stream.hear_of("cursor");
    }
    bystander.misses_nothing();
}

#[test]
fn a_bad_last_event_id_means_fetching_everything_too() {
    let node = node();
    for id in ["x", "\u{ff}", &"A".repeat(5_000)] {
        let mut stream = Events::open_with(
            Raw::open(node.addr),
            "/v1/events?object=a",
            &format!("Last-Event-ID: {id}\r\n"),
        );
        assert_eq!(
            stream.hear_of("resync"),
            json!({ "all": true, "cause": "cursor_unreadable" })
        );
        stream.hear_of("cursor");
    }
}
