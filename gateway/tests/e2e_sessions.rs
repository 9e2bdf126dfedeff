//! Sessions: lists of objects that the server keeps for clients whose requests cannot hold them.

#[path = "support/support.rs"]
mod support;

use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use support::*;

#[track_caller]
fn session(at: SocketAddr, objects: &[&str]) -> String {
    let answer = post_json(at, "/v1/sessions", &json!({ "objects": objects }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["session"].as_str().expect("a session").to_owned()
}

#[test]
fn a_session_made_beforehand_is_polled_without_its_list() {
    let node = node();
    let name = session(node.addr, &["a", "b"]);
    let mut poller = Poller::new(Poll::session(node.addr, &name));
    assert_eq!(poller.session, name);
    let (a, b) = (publish(node.addr, "a"), publish(node.addr, "b"));
    publish(node.addr, "c");
    poller.up_to(b).is_exactly(&[("a", a), ("b", b)]);
    let mut poller = poller.by_get();
    let a = publish(node.addr, "a");
    poller.up_to(a).is_exactly(&[("a", a)]);
}

#[test]
fn a_poll_with_a_list_gives_a_session_that_the_next_poll_may_use() {
    let node = node();
    let mut first = Poller::new(Poll::of(node.addr, &["a", "b"]));
    let mut next = Poller::resume(Poll::session(node.addr, &first.session), &first.cursor);
    let b = publish(node.addr, "b");
    next.up_to(b).is_exactly(&[("b", b)]);
    // The list works on as well, from the older cursor.
    first.up_to(b).is_exactly(&[("b", b)]);
}

#[test]
fn objects_are_added_to_a_session_and_removed_from_it() {
    let node = node();
    let name = session(node.addr, &["a", "b"]);
    let poll = Poll::session(node.addr, &name);
    let cursor = poll.ask()["cursor"].as_str().expect("a cursor").to_owned();
    let changed = poll
        .clone()
        .cursor(&cursor)
        .with("add", json!(["c", { "object": "d" }, ""]))
        .with("remove", json!(["a", "z"]));
    let answer = changed.wait_ms(0).ask();
    assert_eq!(answer["refused"][0]["error"]["code"], "invalid_object", "{answer}");
    let mut poller = Poller::resume(poll, answer["cursor"].as_str().expect("a cursor"));
    publish(node.addr, "a");
    let expected = publish_all(node.addr, &["b", "c", "d"]);
    let newest = expected.iter().map(|(_, version)| *version).max().expect("a version");
    poller.up_to(newest).is_exactly(&expected);
    // Removed and added in one poll means added.
    let answer = Poll::session(node.addr, &name)
        .cursor(&poller.cursor)
        .with("remove", json!(["b"]))
        .with("add", json!(["a"]));
    answer.wait_ms(0).ask();
    publish(node.addr, "b");
    let a = publish(node.addr, "a");
    poller.up_to(a).is_exactly(&[("a", a)]);
}

#[test]
fn an_object_added_to_a_session_was_not_vouched_for_by_its_cursor() {
    let node = node();
    let poll = Poll::session(node.addr, &session(node.addr, &["a"]));
    let mut poller = Poller::new(poll.clone());
    let b = publish(node.addr, "b");
    poller.up_to(b).is_exactly::<&str>(&[]);
    let b = publish(node.addr, "b");
    // The cursor is older than the last change of `b`: that change is told, as it is newer than what the client knows.
    let answer = poll
        .cursor(&poller.cursor)
        .with("add", json!(["b"]))
        .wait_ms(5_000)
        .ask();
    assert_eq!(answer["changes"], json!([{ "object": "b", "version": b }]));
}

#[test]
fn a_newer_poll_of_the_session_takes_the_place_of_the_one_that_waits() {
    let node = node();
    let name = session(node.addr, &["a"]);
    let cursor = Poll::session(node.addr, &name).ask()["cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let poll = Poll::session(node.addr, &name).cursor(&cursor).wait_ms(20_000);
    let waits = |count: usize| {
        let connections = get(node.addr, "/v1/connections").ok();
        connections["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|c| c["transport"] == "poll")
            .count()
            == count
    };
    let first = std::thread::spawn({
        let poll = poll.clone();
        move || poll.send()
    });
    eventually("the first poll waits", || waits(1));
    let second = std::thread::spawn(move || poll.send());
    let first = first.join().expect("an answer");
    assert_eq!((first.status, first.code().as_str()), (409, "poll_superseded"));
    eventually("the second poll waits", || waits(1));
    let version = publish(node.addr, "a");
    let answer = second.join().expect("an answer").ok();
    assert_eq!(answer["changes"], json!([{ "object": "a", "version": version }]));
}

#[test]
fn a_stream_of_a_session_supersedes_its_poll_and_gives_way_to_the_next_poll() {
    let node = node();
    let name = session(node.addr, &["a"]);
    let mut poller = Poller::new(Poll::session(node.addr, &name));
    let poll = Poll::session(node.addr, &name).cursor(&poller.cursor).wait_ms(20_000);
    let waiting = std::thread::spawn(move || poll.send());
    eventually("the poll waits", || {
        get(node.addr, "/v1/connections").ok()["connections"][0]["transport"] == "poll"
    });
    let mut stream = Events::open_with(Raw::open(node.addr), &format!("/v1/events?session={name}"), "");
    assert_eq!(waiting.join().expect("an answer").code(), "poll_superseded");
    stream.hear_of("cursor");
    let a = publish(node.addr, "a");
    stream.until_told(&[("a", a)]);
    poller.up_to(a).is_exactly(&[("a", a)]);
    while stream.next().is_some() {}
}

#[test]
fn a_third_party_event_source_by_session_reconnects_with_its_last_id_and_misses_nothing() {
    let node = node();
    let name = session(node.addr, &["a", "b"]);
    let mut source = EventSource::open(node.addr, &format!("/v1/events?session={name}"), None);
    source.hear_of("hello");
    let a = publish(node.addr, "a");
    source.until_told(&[("a", a)]);
    // Its ID comes to light with the next event.
    let b = {
        std::thread::sleep(Duration::from_millis(400));
        let b = publish(node.addr, "b");
        source.until_told(&[("b", b)]);
        b
    };
    assert!(source.last_id.is_some());
    source.cut();
    let a = publish(node.addr, "a");
    let heard = source.until_told(&[("a", a)]);
    assert!(heard.resyncs.is_empty(), "{heard:?}");
    assert!(
        heard.newest.get("b").is_none_or(|told| *told == b),
        "never older than told"
    );
    let requests = source.requests();
    assert!(requests.len() >= 2, "it reconnected");
    assert!(
        requests.iter().skip(1).all(|head| head.contains("last-event-id: ")),
        "{requests:?}"
    );
    assert!(requests.iter().all(|head| head.contains(&name)));
}

#[test]
fn the_last_event_id_counts_more_than_the_cursor_of_the_address() {
    let node = node();
    let old = Poll::of(node.addr, &["a"]).ask()["cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let a = publish(node.addr, "a");
    let mut poller = Poller::resume(Poll::of(node.addr, &["a"]), &old);
    let new = poller.up_to(a).cursor;
    let target = format!("/v1/events?object=a&cursor={old}");
    let mut stream = Events::open_with(Raw::open(node.addr), &target, &format!("Last-Event-ID: {new}\r\n"));
    stream.up_to(a).is_exactly::<&str>(&[]);
    let mut stream = Events::open_with(Raw::open(node.addr), &target, "Last-Event-ID: \r\n");
    stream.up_to(a).is_exactly(&[("a", a)]);
}

#[test]
fn an_unknown_session_is_410_for_polls_and_an_event_for_streams() {
    let node = node();
    let name = session(node.addr, &["a"]);
    // One character of the secret is another: guessed, cut, from another server, and never a session at all.
    let other = |index: usize| {
        let mut bytes = name.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("text")
    };
    let elsewhere = support::node();
    let foreign = session(elsewhere.addr, &["a"]);
    let guesses = [
        other(0),
        other(4),
        other(20),
        other(30),
        name[..20].to_owned(),
        foreign,
        "x".to_owned(),
        "\u{e4}".repeat(500),
        String::new(),
    ];
    for guess in &guesses {
        let answer = Poll::session(node.addr, guess).send();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (410, "session_unknown"),
            "{guess}"
        );
        assert_eq!(answer.json()["retryable"], true);
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("session", guess)
            .finish();
        let mut stream = Events::open_with(Raw::open(node.addr), &format!("/v1/events?{query}"), "");
        stream.hear_of("session_unknown");
        assert_eq!(stream.next(), None, "the stream ends");
    }
    // None of it did the session any harm.
    let mut poller = Poller::new(Poll::session(node.addr, &name));
    let a = publish(node.addr, "a");
    poller.up_to(a).is_exactly(&[("a", a)]);
}

#[test]
fn a_session_expires_after_its_time_and_the_list_with_the_old_cursor_loses_nothing() {
    let node = node_with(|config| config.limits.session_ms = 700);
    let name = session(node.addr, &["a"]);
    let poll = Poll::session(node.addr, &name);
    let mut poller = Poller::new(poll.clone());
    // Used now and then, it lives on.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(350));
        poller.next(0);
    }
    let a = publish(node.addr, "a");
    std::thread::sleep(Duration::from_millis(1_500));
    let gone = poll.cursor(&poller.cursor).send();
    assert_eq!((gone.status, gone.code().as_str()), (410, "session_unknown"));
    Poller::resume(Poll::of(node.addr, &["a"]), &poller.cursor)
        .up_to(a)
        .is_exactly(&[("a", a)]);
}

#[test]
fn a_session_does_not_expire_while_its_poll_or_stream_lasts() {
    let node = node_with(|config| config.limits.session_ms = 500);
    let (polled, streamed) = (session(node.addr, &["a"]), session(node.addr, &["a"]));
    let poller = Poller::new(Poll::session(node.addr, &polled));
    let mut stream = Events::open_with(Raw::open(node.addr), &format!("/v1/events?session={streamed}"), "");
    let poll = Poll::session(node.addr, &polled).cursor(&poller.cursor).wait_ms(2_000);
    assert_eq!(poll.ask()["changes"], json!([]));
    let a = publish(node.addr, "a");
    stream.until_told(&[("a", a)]);
    assert_eq!(poll.ask()["changes"], json!([{ "object": "a", "version": a }]));
}

#[test]
fn beyond_the_limit_the_session_unused_for_longest_is_forgotten() {
    let node = node_with(|config| {
        config.server.threads = 1;
        config.limits.sessions = 3;
    });
    let all: Vec<_> = (0..4).map(|_| session(node.addr, &["a"])).collect();
    assert_eq!(Poll::session(node.addr, &all[0]).send().code(), "session_unknown");
    for name in &all[1..] {
        assert_eq!(Poll::session(node.addr, name).send().status, 200);
    }
}

#[test]
fn a_client_that_breaks_off_its_poll_finds_its_session_and_everything_it_missed() {
    let node = node();
    let name = session(node.addr, &["a"]);
    let mut poller = Poller::new(Poll::session(node.addr, &name));
    for _ in 0..10 {
        let mut raw = Raw::open(node.addr);
        let target = format!("/v1/poll?session={name}&cursor={}&wait_ms=20000", poller.cursor);
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        drop(raw);
        let a = publish(node.addr, "a");
        poller.up_to(a).is_exactly(&[("a", a)]);
    }
}
