//! Paths on which a transport does not work, and the way back.

use super::server::{Server, next, within};
use std::time::Duration;
use tidings_client::{Status, StopReason, Transport, Version, Watch};
use tokio::io::AsyncWriteExt as _;

fn used(watch: &Watch) -> Option<Transport> {
    match watch.status() {
        Status::Live { transport, .. } | Status::Connecting { transport, .. } => Some(transport),
        _ => None,
    }
}

#[tokio::test]
async fn where_no_websocket_can_be_had_it_listens_to_a_stream_and_where_none_flows_it_polls() {
    let server = Server::new().await;
    let builder = server.client().opening_timeout(Duration::from_millis(400));
    let client = builder.build().expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    // A proxy that knows no upgrade.
    server.asked().await.answer("426 Upgrade", "", "").await;
    // A proxy that holds streams back: twice, as once may be an accident.
    let held = server.asked().await;
    assert!(held.head.starts_with("POST /v1/events "), "{}", held.head);
    let again = server.asked().await;
    assert!(again.head.starts_with("POST /v1/events "), "{}", again.head);
    let poll = server.asked().await;
    assert!(poll.head.starts_with("POST /v1/poll "), "{}", poll.head);
    let answer = r#"{"changes":[{"object":"a","version":7}],"cursor":"C7","session":"s"}"#;
    poll.answer("200 OK", "", answer).await;
    assert_eq!(next(&mut watch).await.version, Some(Version(7)));
    assert_eq!(used(&watch), Some(Transport::LongPoll));
}

#[tokio::test]
async fn a_better_transport_is_tried_again_and_the_cursor_goes_with_it() {
    let server = Server::new().await;
    let builder = server.client().better_after(Duration::from_millis(300));
    let client = builder.build().expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    server.asked().await.answer("404 Not Found", "", "").await;
    let mut stream = server.asked().await.stream().await;
    let told = b"data: {\"object\":\"a\",\"version\":7}\n\nid: C7\n\n";
    within(stream.write_all(told)).await.expect("told");
    assert_eq!(next(&mut watch).await.version, Some(Version(7)));
    // Tried in vain: back to what works, at once.
    server.asked().await.answer("404 Not Found", "", "").await;
    let asked = server.asked().await;
    assert_eq!(asked.body, r#"{"objects":["a"],"cursor":"C7"}"#);
    let mut stream = asked.stream().await;
    within(stream.write_all(b"id: C8\n\n")).await.expect("told");
    // And once more with success.
    let (mut socket, asked) = server.greet().await;
    assert_eq!(asked, r#"{"subscribe":{"objects":["a"],"cursor":"C8"},"id":1}"#);
    socket
        .say(r#"{"changes":[{"object":"a","version":6},{"object":"a","version":9}]}"#)
        .await;
    assert_eq!(next(&mut watch).await.version, Some(Version(9)), "and never back to 6");
    assert_eq!(used(&watch), Some(Transport::WebSocket));
}

#[tokio::test]
async fn a_server_that_is_away_is_no_reason_to_leave_the_transport() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let watch = client.watch(["a"]).start().expect("an ID");
    for _ in 0..4 {
        let busy = server.asked().await;
        assert!(busy.head.starts_with("GET /v1/ws "), "{}", busy.head);
        busy.answer("503 Busy", "", "").await;
    }
    let (_socket, _) = server.greet().await;
    within(watch.ready()).await.expect("live");
}

#[tokio::test]
async fn where_nothing_of_ours_answers_it_stops() {
    for body in ["", "<html>"] {
        let server = Server::new().await;
        let client = server.client().build().expect("an address");
        let mut watch = client.watch(["a"]).start().expect("an ID");
        for _ in 0..3 {
            server.asked().await.answer("404 Not Found", "", body).await;
        }
        assert_eq!(within(watch.next()).await, None);
        assert_eq!(watch.stopped().expect("stopped").reason, StopReason::NoServer);
    }
}

#[tokio::test]
async fn what_is_no_event_stream_is_not_read_as_one() {
    let server = Server::new().await;
    let client = server
        .client()
        .transport(Transport::Events)
        .build()
        .expect("an address");
    let mut watch = client.watch(["a"]).start().expect("an ID");
    server
        .asked()
        .await
        .answer("200 OK", "content-type: text/html\r\n", "<html>")
        .await;
    assert_eq!(within(watch.next()).await, None);
    assert_eq!(watch.stopped().expect("stopped").reason, StopReason::NoServer);
}

#[tokio::test]
async fn who_may_not_listen_is_told_so() {
    for transport in [Transport::Auto, Transport::Events, Transport::LongPoll] {
        let server = Server::new().await;
        let client = server.client().transport(transport).build().expect("an address");
        let mut watch = client.watch(["a"]).start().expect("an ID");
        let problem = r#"{"code":"host_refused","detail":"`x` is no name of this server","retryable":false}"#;
        server.asked().await.answer("403 Forbidden", "", problem).await;
        assert_eq!(within(watch.next()).await, None);
        let stop = watch.stopped().expect("stopped");
        assert_eq!(stop.reason, StopReason::Forbidden);
        assert!(stop.detail.contains("no name of this server"), "{stop}");
    }
}
