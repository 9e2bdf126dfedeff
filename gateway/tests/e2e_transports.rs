//! Every way to listen, against a real node: the same is told on all of them, and one cursor moves between them.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use support::*;

/// What one change said, without its version.
fn hint(change: &Value) -> (Value, Value) {
    (change["kind"].clone(), change["data"].clone())
}

#[test]
fn the_same_change_is_told_on_every_transport() {
    let node = node();
    let at = node.addr;
    let object = "order:42 / Straße";
    let mut json_ws = Ws::open(at);
    let mut packed_ws = Ws::open_packed(at);
    let mut plain_ws = Ws::open_with(Raw::open(at).stream, "/v1/ws", None);
    for ws in [&mut json_ws, &mut packed_ws, &mut plain_ws] {
        assert_eq!(ws.subscribe(&[object]), json!([{ "object": object, "version": null }]));
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("object", object)
        .finish();
    let mut streams: Vec<Box<dyn Ear>> = vec![
        Box::new(Events::open(at, &[object], None)),
        Box::new(Events::post(at, &json!({ "objects": [object] }))),
        Box::new(EventSource::open(at, &format!("/v1/events?{query}"), None)),
        Box::new(Curl::events(at, &query)),
    ];
    // A stream is live once it was given a cursor; a third-party EventSource does not show one before a change, so its
    // subscription is waited for at the server.
    for stream in &mut streams {
        stream.hear_of("hello");
    }
    eventually("all streams watch the object", || {
        get(at, &format!("/v1/object?{query}")).ok()["subscribers"] == 7
    });
    let first = Poll::of(at, &[object]).ask();
    let cursor = first["cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(first["changes"], json!([]));

    let poll = Poll::of(at, &[object]).cursor(&cursor);
    let by_post = std::thread::spawn({
        let poll = poll.clone();
        move || poll.ask()
    });
    let by_get = std::thread::spawn(move || poll.get().ok());
    eventually("both polls wait", || {
        let connections = get(at, "/v1/connections").ok();
        connections["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|c| c["transport"] == "poll")
            .count()
            == 2
    });
    let version = publish_with(
        at,
        &json!({ "object": object, "kind": "updated", "data": { "total": 12 } }),
    );
    let told = json!([{ "object": object, "version": version, "kind": "updated", "data": { "total": 12 } }]);
    for ws in [&mut json_ws, &mut packed_ws, &mut plain_ws] {
        assert_eq!(ws.hear_of("changes"), told);
    }
    for stream in &mut streams {
        assert_eq!(stream.hear_of("changes"), told);
    }
    for poll in [by_post, by_get] {
        assert_eq!(poll.join().expect("an answer")["changes"], told);
    }
    let late = Curl::run(&[
        "--json",
        &json!({ "objects": [object], "cursor": cursor }).to_string(),
        &format!("http://{at}/v1/poll"),
    ]);
    let late: Value = serde_json::from_str(&late).expect("JSON");
    assert_eq!(late["changes"][0]["version"], version);
}

/// A way to listen for a while with a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    WebSocket,
    Packed,
    Stream,
    StreamByPost,
    Curl,
    Poll,
    PollByQuery,
}

const WAYS: [Way; 7] = [
    Way::WebSocket,
    Way::Packed,
    Way::Stream,
    Way::StreamByPost,
    Way::Curl,
    Way::Poll,
    Way::PollByQuery,
];

/// Listens with a cursor until one vouches for `version`.
fn listen(way: Way, at: SocketAddr, objects: &[String], cursor: &str, version: u64) -> Heard {
    match way {
        Way::WebSocket | Way::Packed => {
            let mut ws = if way == Way::Packed {
                Ws::open_packed(at)
            } else {
                Ws::open(at)
            };
            ws.subscribe_with(objects, Some(cursor));
            ws.up_to(version)
        }
        Way::Stream => Events::open(at, objects, Some(cursor)).up_to(version),
        Way::StreamByPost => Events::post(at, &json!({ "objects": objects, "cursor": cursor })).up_to(version),
        Way::Curl => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            objects
                .iter()
                .for_each(|object| _ = query.append_pair("object", object));
            Curl::events(at, &query.append_pair("cursor", cursor).finish()).up_to(version)
        }
        Way::Poll => Poller::resume(Poll::of(at, objects), cursor).up_to(version),
        Way::PollByQuery => Poller::resume(Poll::of(at, objects), cursor).by_get().up_to(version),
    }
}

#[test]
fn one_cursor_moves_between_all_transports_and_each_tells_exactly_what_was_missed() {
    let node = node();
    let objects = names("o", 12);
    let start = publish_all(node.addr, &objects);
    let newest = start.iter().map(|(_, version)| *version).max().expect("a version");
    let mut cursor = Poller::new(Poll::of(node.addr, &objects)).up_to(newest).cursor;
    let mut round = 0;
    for from in WAYS {
        for to in WAYS {
            for way in [from, to] {
                // Another three of the objects each time, one of them twice, and one that nobody listens to.
                let missed: Vec<_> = (0..3)
                    .map(|n| objects[(round * 5 + n * 4) % objects.len()].clone())
                    .collect();
                publish(node.addr, &missed[0]);
                publish(node.addr, "nobody's");
                let expected = publish_all(node.addr, &missed);
                let newest = expected.iter().map(|(_, version)| *version).max().expect("a version");
                let heard = listen(way, node.addr, &objects, &cursor, newest);
                heard.is_exactly(&expected);
                cursor = heard.cursor;
                round += 1;
            }
        }
    }
}

#[test]
fn the_cursor_that_follows_a_change_vouches_for_it_with_the_default_configuration() {
    let node = node_with(|config| {
        let default = tidings::config::Config::default();
        config.limits = default.limits;
        config.owner = default.owner;
    });
    let mut ws = Ws::open(node.addr);
    ws.subscribe(&["a"]);
    ws.hear_of("cursor");
    let version = publish(node.addr, "a");
    assert_eq!(ws.hear_of("changes")[0]["version"], version);
    let cursor = ws.hear_of("cursor");
    assert!(covers(cursor.as_str().expect("text"), version));
}

#[test]
fn hello_says_who_where_and_within_which_limits() {
    let node = node_with(|config| {
        config.server.name = "alpha".to_owned();
        config.limits.objects_per_connection = 77;
        config.limits.client_frame_bytes = 5_000;
    });
    let limits = json!({ "objects": 77, "frame_bytes": 5_000 });
    let one = Ws::open(node.addr);
    let two = Ws::open_packed(node.addr);
    assert_ne!(one.connection(), two.connection());
    for hello in [&one.hello, &two.hello] {
        assert_eq!(
            (&hello["node"], &hello["ping_ms"], &hello["limits"]),
            (&json!("alpha"), &json!(200), &limits)
        );
    }
    let mut stream = Events::open(node.addr, &["a"], None);
    let retry = stream.hear_of("retry").as_u64().expect("a number");
    assert!((1_000..=3_000).contains(&retry), "{retry}");
    let hello = stream.hear_of("hello");
    assert_eq!((&hello["node"], &hello["limits"]), (&json!("alpha"), &limits));
}

#[test]
fn subscribed_names_the_version_or_null_or_an_error_for_each_object_in_order() {
    let node = node();
    let version = publish(node.addr, "b");
    let mut ws = Ws::open(node.addr);
    let long = "x".repeat(256);
    let answer =
        ws.ask(&json!({ "subscribe": { "objects": ["a", "b", "", { "object": "c" }, "x\u{7}y", long, "b"] } }));
    let objects = answer["subscribed"]["objects"].as_array().expect("a list");
    assert_eq!(objects[0], json!({ "object": "a", "version": null }));
    assert_eq!(objects[1], json!({ "object": "b", "version": version }));
    assert_eq!(objects[3], json!({ "object": "c", "version": null }));
    assert_eq!(objects[6], json!({ "object": "b", "version": version }));
    for refused in [2, 4, 5] {
        assert_eq!(
            objects[refused]["error"]["code"], "invalid_object",
            "{}",
            objects[refused]
        );
        assert_eq!(objects[refused]["error"]["retryable"], false);
        assert!(objects[refused].get("version").is_none());
    }
    // Without a cursor nothing is told of before, and the refused ones do no harm.
    let version = publish(node.addr, "c");
    ws.up_to(version).is_exactly(&[("c", version)]);
}

#[test]
fn after_unsubscribed_there_is_silence_until_subscribed_again() {
    let node = node();
    let mut ws = Ws::open(node.addr);
    ws.subscribe(&["a", "b"]);
    let told = publish(node.addr, "a");
    ws.until_told(&[("a", told)]);
    assert_eq!(
        ws.ask(&json!({ "unsubscribe": { "objects": ["a", "never watched"] } }))["unsubscribed"],
        json!({})
    );
    publish(node.addr, "a");
    publish(node.addr, "never watched");
    let version = publish(node.addr, "b");
    ws.up_to(version).is_exactly(&[("b", version)]);
    // Subscribing again without a cursor starts from now; with one it tells what was missed.
    ws.subscribe(&["a"]);
    let version = publish(node.addr, "b");
    ws.up_to(version).is_exactly(&[("b", version)]);
    let version = publish(node.addr, "a");
    ws.up_to(version).is_exactly(&[("a", version)]);
}

#[test]
fn a_subscribe_in_pages_gives_no_cursor_before_its_last_page_is_answered() {
    let node = node();
    let objects = names("p", 30);
    let before = publish_all(node.addr, &objects);
    let newest = before.iter().map(|(_, version)| *version).max().expect("a version");
    let cursor = Poller::new(Poll::of(node.addr, &objects)).up_to(newest).cursor;
    let missed = publish_all(node.addr, &objects);
    let mut ws = Ws::open(node.addr);
    let mut heard = Heard::default();
    for (number, page) in objects.chunks(10).enumerate() {
        let more = number < 2;
        ws.say(&json!({ "subscribe": { "objects": page, "cursor": cursor, "more": more }, "id": number }));
        loop {
            let told = ws.hear();
            assert!(
                told.get("cursor").is_none(),
                "a cursor before page {number} of 3 was answered"
            );
            if told["id"] == number {
                break;
            }
            heard.add(&told);
        }
        if more {
            // Long enough for several cursors if they were not held back.
            std::thread::sleep(Duration::from_millis(450));
        }
    }
    let newest = missed.iter().map(|(_, version)| *version).max().expect("a version");
    while !covers(&heard.cursor, newest) {
        let told = ws.hear();
        heard.add(&told);
    }
    heard.is_exactly(&missed);
}

#[test]
fn a_thousand_objects_are_fine_and_the_next_is_refused_by_name() {
    let node = node();
    let mut ws = Ws::open(node.addr);
    let objects = names("n", 1_000);
    let answer = ws.subscribe(&objects);
    assert!(
        answer
            .as_array()
            .expect("a list")
            .iter()
            .all(|entry| entry["error"].is_null())
    );
    let refused = ws.subscribe(&["n7", "one more", "n999"]);
    assert_eq!(refused[1]["error"]["code"], "too_many_objects");
    assert!(refused[0]["error"].is_null() && refused[2]["error"].is_null());
    // More than the limit in one request is refused as a whole, and changes nothing.
    let error = ws.ask(&json!({ "subscribe": { "objects": names("n", 1_001) } }));
    assert_eq!(error["error"]["code"], "too_many_objects");
    publish(node.addr, "one more");
    let told = publish_all(node.addr, &objects);
    let newest = told.iter().map(|(_, version)| *version).max().expect("a version");
    ws.up_to(newest).is_exactly(&told);
    // Unsubscribing makes room.
    ws.ask(&json!({ "unsubscribe": { "objects": ["n7"] } }));
    assert!(ws.subscribe(&["one more"])[0]["error"].is_null());
    let poll = Poll::of(node.addr, &names("n", 1_001)).send();
    assert_eq!((poll.status, poll.code().as_str()), (413, "too_many_objects"));
}

#[test]
fn ten_thousand_objects_are_fine_where_configured() {
    let node = node_with(|config| config.limits.objects_per_connection = 10_000);
    let objects = names("n", 10_000);
    let mut ws = Ws::open(node.addr);
    ws.subscribe(&objects);
    assert_eq!(ws.subscribe(&["one more"])[0]["error"]["code"], "too_many_objects");
    let session = post_json(node.addr, "/v1/sessions", &json!({ "objects": objects })).json();
    let mut poller = Poller::new(Poll::session(
        node.addr,
        session["session"].as_str().expect("a session"),
    ));
    let told = publish_all(node.addr, &objects);
    let newest = told.iter().map(|(_, version)| *version).max().expect("a version");
    ws.up_to(newest).is_exactly(&told);
    poller.up_to(newest).is_exactly(&told);
}

#[test]
fn a_known_version_is_not_told_again_and_an_older_one_is() {
    let node = node();
    let old = publish(node.addr, "a");
    let new = publish(node.addr, "a");
    let b = publish(node.addr, "b");
    let entries = json!([{ "object": "a", "version": old }, { "object": "b", "version": b }]);
    let mut ws = Ws::open(node.addr);
    ws.ask(&json!({ "subscribe": { "objects": entries } }));
    ws.up_to(b).is_exactly(&[("a", new)]);
    Events::post(node.addr, &json!({ "objects": entries }))
        .up_to(b)
        .is_exactly(&[("a", new)]);
    let poll = Poll::of(node.addr, &["x"]).with("objects", entries).wait_ms(0).ask();
    assert_eq!(poll["changes"].as_array().map(Vec::len), Some(1), "{poll}");
    assert_eq!(
        (&poll["changes"][0]["object"], &poll["changes"][0]["version"]),
        (&json!("a"), &json!(new))
    );
}

#[test]
fn at_least_waits_for_the_version_and_refuses_what_does_not_come() {
    let node = node_with(|config| config.limits.publish_timeout_ms = 1_500);
    let version = publish(node.addr, "a");
    let mut ws = Ws::open(node.addr);
    let satisfied = ws.ask(&json!({ "subscribe": { "objects": [{ "object": "a", "at_least": version }] } }));
    assert_eq!(
        satisfied["subscribed"]["objects"],
        json!([{ "object": "a", "version": version }])
    );
    // A version of the far future does not come.
    let future = version + 3_600_000_000;
    let refused = ws.ask(&json!({ "subscribe": { "objects": [{ "object": "b", "at_least": future }, "c"] } }));
    let refused = &refused["subscribed"]["objects"];
    assert_eq!(
        (&refused[0]["error"]["code"], &refused[0]["error"]["retryable"]),
        (&json!("not_yet"), &json!(true))
    );
    assert_eq!(refused[1], json!({ "object": "c", "version": null }));
    publish(node.addr, "b");
    let told = publish(node.addr, "c");
    ws.up_to(told).is_exactly(&[("c", told)]);

    let poll = Poll::of(node.addr, &["x"]);
    let cursor = poll.ask()["cursor"].as_str().expect("a cursor").to_owned();
    let entries = json!([{ "object": "a", "at_least": version }, { "object": "d", "at_least": future }]);
    let answer = poll.with("objects", entries).cursor(&cursor).wait_ms(300).ask();
    assert_eq!(answer["refused"][0]["object"], "d", "{answer}");
    assert_eq!(answer["refused"][0]["error"]["code"], "not_yet");
    assert_eq!(answer["refused"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_published_version_can_be_waited_for_before_it_is_published() {
    let node = node();
    // Half a second ahead of what the object has now: the next publish after that includes it.
    let at_least = publish(node.addr, "a") + 500_000;
    let at = node.addr;
    let waiting = std::thread::spawn(move || {
        let mut ws = Ws::open(at);
        ws.ask(&json!({ "subscribe": { "objects": [{ "object": "a", "at_least": at_least }] } }))
    });
    std::thread::sleep(Duration::from_millis(600));
    let version = publish(at, "a");
    assert!(version >= at_least);
    let answer = waiting.join().expect("an answer");
    let told = &answer["subscribed"]["objects"][0];
    // Either the newest version, or the one before while the shard was already closed up to `at_least`.
    assert!(told["error"].is_null(), "{answer}");
}

#[test]
fn kind_and_data_come_live_and_after_coalescing_the_newest_or_none() {
    let node = node();
    let at = node.addr;
    let change =
        |n: u64| json!({ "object": "a", "kind": format!("k{n}"), "data": { "n": n, "text": "x".repeat(100) } });
    let mut ws = Ws::open(at);
    ws.subscribe(&["a"]);
    for n in 0..5 {
        let version = publish_with(at, &change(n));
        let heard = ws.until_told(&[("a", version)]);
        assert_eq!(hint(heard.last()), hint(&change(n)));
    }
    // In a burst some are skipped; whichever is told carries its own hint or none, and the last is the newest.
    let changes: Vec<_> = (0..500).map(change).collect();
    let results = post_json(at, "/v1/publish", &json!({ "changes": changes })).ok();
    let versions: Vec<_> = results["results"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["version"].clone())
        .collect();
    let newest = versions.last().and_then(Value::as_u64).expect("a version");
    let heard = ws.until_told(&[("a", newest)]);
    for told in &heard.changes {
        let n = versions
            .iter()
            .position(|version| *version == told["version"])
            .expect("a version of ours");
        assert!(
            told["kind"].is_null() && told["data"].is_null() || hint(told) == hint(&changes[n]),
            "{told}"
        );
    }
    // On catch-up nobody promises a hint; what comes is not an older one's.
    let cursor = ws.up_to(newest).cursor;
    drop(ws);
    publish_with(at, &change(7));
    let version = publish_with(at, &change(8));
    let mut late = Ws::open(at);
    late.subscribe_with(&["a"], Some(&cursor));
    let heard = late.up_to(version);
    let told = heard.last();
    assert!(
        told["kind"].is_null() && told["data"].is_null() || hint(told) == hint(&change(8)),
        "{told}"
    );
}

#[test]
fn a_trace_names_shard_and_epoch_on_every_transport() {
    let node = node();
    let version = publish(node.addr, "a");
    let shard = get(node.addr, "/v1/object?object=a").ok()["shard"].clone();
    let expected = json!([{ "object": "a", "version": version, "shard": shard, "epoch": 1 }]);
    let cursor = |at| {
        Poll::of(at, &["a"]).ask()["cursor"]
            .as_str()
            .expect("a cursor")
            .to_owned()
    };
    let entries = json!([{ "object": "a", "version": version - 1 }]);
    let mut ws = Ws::open_with(
        Raw::open(node.addr).stream,
        "/v1/ws?trace=1",
        Some("tidings.v1.msgpack"),
    );
    ws.ask(&json!({ "subscribe": { "objects": entries } }));
    assert_eq!(ws.hear_of("changes"), expected);
    let old = cursor(node.addr);
    let version = publish(node.addr, "a");
    let expected = json!([{ "object": "a", "version": version, "shard": shard, "epoch": 1 }]);
    let poll = Poll::of(node.addr, &["a"]).cursor(&old).query("?trace=1").ask();
    assert_eq!(poll["changes"], expected);
    let target = format!("/v1/events?object=a&trace=1&cursor={old}");
    assert_eq!(
        Events::open_with(Raw::open(node.addr), &target, "").hear_of("changes"),
        expected
    );
    // Who does not ask is not told.
    let plain = Poll::of(node.addr, &["a"]).cursor(&old).ask();
    assert_eq!(plain["changes"], json!([{ "object": "a", "version": version }]));
}

#[test]
fn refused_objects_are_named_on_streams_and_polls_and_the_others_are_told() {
    let node = node();
    let objects = ["a", "", "b"];
    let mut stream = Events::post(node.addr, &json!({ "objects": objects }));
    let refused = stream.hear_of("refused");
    let refused = refused.get("objects").unwrap_or(&refused);
    assert_eq!(refused.as_array().map(Vec::len), Some(1), "{refused}");
    assert_eq!(refused[0]["error"]["code"], "invalid_object", "{refused}");
    let poll = Poll::of(node.addr, &objects).ask();
    assert_eq!(poll["refused"][0]["object"], "");
    assert_eq!(poll["refused"][0]["error"]["code"], "invalid_object");
    let session = post_json(node.addr, "/v1/sessions", &json!({ "objects": objects }));
    assert_eq!(session.status, 201);
    assert_eq!(session.json()["refused"][0]["error"]["code"], "invalid_object");
    let version = publish(node.addr, "b");
    stream.until_told(&[("b", version)]);
    let mut poller = Poller::resume(
        Poll::of(node.addr, &["a", "b"]),
        poll["cursor"].as_str().expect("a cursor"),
    );
    poller.up_to(version).is_exactly(&[("b", version)]);
}

#[test]
fn pings_are_answered_at_every_level() {
    let node = node();
    let mut ws = Ws::open(node.addr);
    assert_eq!(ws.ask(&json!({ "ping": {} }))["pong"], json!({}));
    let auth = ws.ask(&json!({ "auth": { "token": "whatever" } }));
    assert!(auth.get("authenticated").is_some(), "{auth}");
    // Several requests joined in one frame are answered one after the other.
    let frame =
        "{\"ping\":{},\"id\":\"x\"}\n{\"subscribe\":{\"objects\":[\"a\"]},\"id\":\"y\"}\n{\"ping\":{},\"id\":\"z\"}";
    ws.socket
        .send(tokio_tungstenite::tungstenite::Message::text(frame))
        .expect("sent");
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let told = ws.hear();
        ids.extend(told["id"].as_str().map(str::to_owned));
    }
    assert_eq!(ids, ["x", "y", "z"]);
}

#[test]
fn an_idle_stream_still_hears_something_within_15_seconds_and_a_websocket_within_its_ping() {
    let node = node_with(|config| config.limits.ping_ms = 300);
    let mut stream = Events::open(node.addr, &["a"], None);
    let mut ws = Ws::open(node.addr);
    ws.subscribe(&["a"]);
    for _ in 0..4 {
        assert_eq!(stream.hear_of("comment"), true);
        ws.hear_of("cursor");
    }
}
