//! How connections end, and what a watch makes of it.

use super::server::{Server, next, within};
use std::time::{Duration, Instant};
use tidings_client::{Client, Status, StopReason, Transport, Version};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn after_each_code_that_says_come_back_it_comes_back_with_its_cursor_and_tells_nothing_twice() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::WebSocket)
        .build()
        .expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    let (mut socket, asked) = server.greet().await;
    assert_eq!(asked, r#"{"subscribe":{"objects":["a"]},"id":1}"#);
    let mut version = 5;
    for code in [1001, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005, 4006, 4010] {
        version += 1;
        socket
            .say(&format!("{{\"changes\":[{{\"object\":\"a\",\"version\":{version}}}]}}"))
            .await;
        socket.say(&format!("{{\"cursor\":\"C{version}\"}}")).await;
        assert_eq!(next(&mut watch).await.version, Some(Version(version)), "{code}");
        socket.close(code).await;
        let (again, asked) = server.greet().await;
        assert_eq!(
            asked,
            format!("{{\"subscribe\":{{\"objects\":[\"a\"],\"cursor\":\"C{version}\"}},\"id\":1}}")
        );
        socket = again;
        socket
            .say(&format!("{{\"changes\":[{{\"object\":\"a\",\"version\":{version}}}]}}"))
            .await;
    }
}

#[tokio::test]
async fn after_each_code_that_says_stop_it_stops_and_says_why() {
    for (code, reason) in [
        (1002, StopReason::Protocol),
        (1003, StopReason::Protocol),
        (1007, StopReason::Protocol),
        (1008, StopReason::Forbidden),
        (1009, StopReason::Protocol),
        (4500, StopReason::Protocol),
        (4501, StopReason::Unauthenticated),
        (4502, StopReason::Forbidden),
        (4503, StopReason::Revoked),
        (4504, StopReason::Limit),
        (4505, StopReason::Protocol),
        (4506, StopReason::Operator),
    ] {
        let server = Server::new().await;
        let client = server
            .client()
            .transport(Transport::WebSocket)
            .build()
            .expect("an address");
        let mut watch = client.watch(["a"]).start().expect("an ID");
        let (mut socket, _) = server.greet().await;
        assert_eq!(
            socket.close(code).await,
            Some(code),
            "the client answers the close frame"
        );
        assert_eq!(within(watch.next()).await, None);
        let stop = watch.stopped().expect("stopped");
        assert_eq!(stop.reason, reason, "{code}");
        assert!(
            stop.detail.contains(&code.to_string()) && stop.detail.contains("because"),
            "{stop}"
        );
        server.nobody_for(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_cut_without_a_word_is_survived_and_what_was_told_without_a_cursor_is_said() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::WebSocket)
        .build()
        .expect("an address");
    let mut watch = client.watch(["a", "b"]).start().expect("IDs");
    let (mut socket, _) = server.greet().await;
    socket.say(r#"{"changes":[{"object":"a","version":7}]}"#).await;
    assert_eq!(next(&mut watch).await.version, Some(Version(7)));
    drop(socket);
    let (_socket, asked) = server.greet().await;
    let versions = r#"{"subscribe":{"objects":[{"object":"a","version":7},{"object":"b","version":1}]},"id":1}"#;
    assert_eq!(asked, versions, "without a cursor, versions say what is known");
}

#[tokio::test]
async fn silence_beyond_the_servers_interval_and_grace_is_a_dead_path() {
    let server = Server::new().await;
    let builder = server
        .client()
        .transport(Transport::WebSocket)
        .grace(Duration::from_millis(200));
    let client = builder.build().expect("an address");
    let watch = client.watch(["a"]).start().expect("an ID");
    let mut silent = server.socket().await;
    silent.hello(100).await;
    let asked = silent.heard().await;
    silent.subscribed(&asked).await;
    within(watch.ready()).await.expect("live");
    // Signs of life keep it.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        silent.ping().await;
    }
    assert!(matches!(watch.status(), Status::Live { .. }));
    let (_socket, _) = server.greet().await;
    // The old one was closed before the new one came.
    assert_eq!(silent.read_to_the_end().await, Some(1000));
}

#[tokio::test]
async fn a_server_that_never_greets_is_left() {
    let server = Server::new().await;
    let builder = server
        .client()
        .transport(Transport::WebSocket)
        .opening_timeout(Duration::from_millis(300));
    let client = builder.build().expect("an address");
    let _watch = client.watch(["a"]).start().expect("an ID");
    let _mute = server.accept().await;
    let _silent = server.socket().await;
    server.greet().await;
}

#[tokio::test]
async fn a_wish_to_come_back_later_is_obeyed() {
    comes_back_later(r#"{"reconnect":{"after_ms":700,"reason":"drain"}}"#, 4000).await;
    let cut_off = r#"{"reconnect":{"after_ms":700,"reason":"cut_off","to":["http://127.0.0.1:1"]}}"#;
    comes_back_later(cut_off, 4006).await;
}

async fn comes_back_later(wish: &str, code: u16) {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::WebSocket)
        .build()
        .expect("an address");
    let watch = client.watch(["a"]).start().expect("an ID");
    let (mut socket, _) = server.greet().await;
    socket.say(wish).await;
    socket.close(code).await;
    let closed = Instant::now();
    let waiting = watch.handle();
    within(waiting.until(|status| matches!(status, Status::Waiting { .. }))).await;
    server.greet().await;
    assert!(closed.elapsed() >= Duration::from_millis(600), "{:?}", closed.elapsed());
}

#[tokio::test]
async fn a_wish_by_retry_after_is_obeyed() {
    for transport in [Transport::WebSocket, Transport::Events, Transport::LongPoll] {
        let server = Server::new().await;
        let client = server.client().transport(transport).build().expect("an address");
        let _watch = client.watch(["a"]).start().expect("an ID");
        let busy = r#"{"code":"overloaded","detail":"full","retryable":true}"#;
        server
            .asked()
            .await
            .answer("503 Busy", "retry-after: 1\r\n", busy)
            .await;
        let told = Instant::now();
        _ = server.asked().await;
        assert!(
            told.elapsed() >= Duration::from_millis(900),
            "{transport:?}: {:?}",
            told.elapsed()
        );
    }
}

#[tokio::test]
async fn an_event_stream_that_ends_is_made_again_with_the_cursor_after_its_retry_time() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::Events)
        .build()
        .expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    let asked = server.asked().await;
    assert_eq!(asked.body, r#"{"objects":["a"]}"#);
    let mut stream = asked.stream().await;
    let told = "data: {\"object\":\"a\",\"version\":7}\n\nid: C7\n\ndata: {\"object\":\"a\",\"ver";
    within(stream.write_all(told.as_bytes())).await.expect("told");
    assert_eq!(next(&mut watch).await.version, Some(Version(7)));
    drop(stream);
    assert_eq!(server.asked().await.body, r#"{"objects":["a"],"cursor":"C7"}"#);
}

#[tokio::test]
async fn polls_go_on_with_their_cursor_and_session_and_an_unknown_session_is_made_again() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::LongPoll)
        .build()
        .expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    let kind = "content-type: application/json\r\n";
    let asked = server.asked().await;
    assert_eq!(asked.body, r#"{"objects":["a"],"wait_ms":25000}"#);
    let first = r#"{"changes":[],"resync":null,"refused":[],"cursor":"C1","session":"s1"}"#;
    let stream = asked.answer("200 OK", kind, first).await;
    let asked = super::server::Asked::read(stream).await.expect("the same connection");
    assert_eq!(asked.body, r#"{"session":"s1","cursor":"C1","wait_ms":25000}"#);
    let gone = r#"{"code":"session_unknown","detail":"gone","retryable":true}"#;
    let stream = asked
        .answer("410 Gone", "content-type: application/problem+json\r\n", gone)
        .await;
    let asked = super::server::Asked::read(stream).await.expect("the same connection");
    assert_eq!(asked.body, r#"{"objects":["a"],"cursor":"C1","wait_ms":25000}"#);
    let news = r#"{"changes":[{"object":"a","version":7}],"resync":null,"refused":[],"cursor":"C7","session":"s2"}"#;
    let stream = asked.answer("200 OK", kind, news).await;
    assert_eq!(next(&mut watch).await.version, Some(Version(7)));
    // The server closes at this very moment: the next poll comes over another connection.
    drop(stream);
    assert_eq!(
        server.asked().await.body,
        r#"{"session":"s2","cursor":"C7","wait_ms":25000}"#
    );
}

#[tokio::test]
async fn a_poll_that_is_answered_too_soon_again_and_again_is_slowed_down() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::LongPoll)
        .build()
        .expect("an address");
    let _watch = client.watch(["a"]).start().expect("an ID");
    let empty = r#"{"changes":[],"resync":null,"refused":[],"cursor":"C1","session":"s1"}"#;
    let mut stream = server.asked().await.answer("200 OK", "", empty).await;
    let since = Instant::now();
    let mut polls = 0;
    while since.elapsed() < Duration::from_secs(2) {
        match super::server::Asked::read(stream).await {
            Some(asked) => stream = asked.answer("200 OK", "", empty).await,
            None => stream = server.asked().await.answer("200 OK", "", empty).await,
        }
        polls += 1;
    }
    assert!(polls < 12, "{polls} polls in two seconds");
}

#[tokio::test]
async fn servers_are_tried_in_turn_until_one_answers() {
    let server = Server::new().await;
    let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2", &server.url];
    let client = Client::builder(urls.as_slice())
        .waits(Duration::from_millis(20), Duration::from_millis(100))
        .build()
        .expect("addresses");
    let watch = client.watch(["a"]).start().expect("an ID");
    let (_socket, _) = server.greet().await;
    within(watch.ready()).await.expect("live");
    assert!(matches!(watch.status(), Status::Live { server: 2, .. }));
}

#[tokio::test]
async fn a_fresh_token_is_shown_each_time() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let server = Server::new().await;
    let count = AtomicU32::new(0);
    let token = move || Some(format!("t{}", count.fetch_add(1, Ordering::Relaxed)));
    let builder = server.client().transport(Transport::Events).token_from(token);
    let client = builder.build().expect("an address");
    let _watch = client.watch(["a"]).start().expect("an ID");
    for n in 0..3 {
        let asked = server.asked().await;
        assert_eq!(asked.header("authorization"), Some(&*format!("Bearer t{n}")));
        asked.answer("503 Busy", "", "").await;
    }
}

#[tokio::test]
async fn dropping_a_watch_says_goodbye() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let watch = client.watch(["a"]).start().expect("an ID");
    let (mut socket, _) = server.greet().await;
    within(watch.ready()).await.expect("live");
    drop(watch);
    assert_eq!(socket.read_to_the_end().await, Some(1000));
    server.nobody_for(Duration::from_millis(200)).await;
}
