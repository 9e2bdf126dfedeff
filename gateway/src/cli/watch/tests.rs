//! Watching against a stand-in for the server.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const HELLO: &str =
    r#"{"hello":{"connection":"c","node":"n","ping_ms":25000,"limits":{"objects":100,"frame_bytes":65536}}}"#;
const SUBSCRIBED: &str = r#"{"subscribed":{"objects":[{"object":"a","version":5}]},"id":"#;

/// What is printed, readable while it is written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    /// Without the times.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text");
        text.lines()
            .map(|line| line.split_once("  ").expect("a time").1.to_owned())
            .collect()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn listen(args: impl FnOnce(&mut WatchArgs)) -> (TcpListener, Watch<Paper>, Paper) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = ServerArgs {
        server: format!("ws://{}", listener.local_addr().expect("bound")),
        token_file: None,
    };
    let mut with = WatchArgs {
        objects: vec!["a".to_owned()],
        stdin_objects: false,
        cursor: None,
        cursor_file: None,
        json: false,
        server,
    };
    args(&mut with);
    let paper = Paper::default();
    let watch = Watch::new(&with, objects(&with).expect("objects"), paper.clone()).expect("valid");
    (listener, watch, paper)
}

async fn accept(listener: &TcpListener) -> Socket {
    let (stream, _) = listener.accept().await.expect("a connection");
    #[expect(clippy::result_large_err, reason = "the library's own callback")]
    let callback = |request: &http::Request<()>, mut response: http::Response<()>| {
        assert_eq!(request.uri(), "/v1/ws");
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, callback)
        .await
        .expect("an upgrade")
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text.to_owned())).await.expect("sent");
}

async fn heard(socket: &mut Socket) -> String {
    loop {
        if let Message::Text(text) = socket.next().await.expect("a message").expect("readable") {
            return text.to_string();
        }
    }
}

/// Says hello and answers the subscription, which is given back.
async fn greet(listener: &TcpListener, id: u64) -> (Socket, String) {
    let mut socket = accept(listener).await;
    say(&mut socket, HELLO).await;
    let asked = heard(&mut socket).await;
    say(&mut socket, &format!("{SUBSCRIBED}{id}}}")).await;
    (socket, asked)
}

async fn close(socket: &mut Socket, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    socket.close(Some(frame)).await.expect("closed");
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn after_a_cut_it_comes_back_with_its_cursor_and_tells_nothing_twice() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("cursor");
    let (listener, mut watch, paper) = listen(|args| args.cursor_file = Some(file.clone())).await;
    let server = async {
        let (mut socket, asked) = greet(&listener, 1).await;
        assert_eq!(asked, r#"{"subscribe":{"objects":["a"]},"id":1}"#);
        say(
            &mut socket,
            "{\"changes\":[{\"object\":\"a\",\"version\":6,\"kind\":\"k\"}]}\n{\"cursor\":\"C1\"}",
        )
        .await;
        say(&mut socket, r#"{"changes":[{"object":"a","version":7}]}"#).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(socket);
        let (mut socket, asked) = greet(&listener, 2).await;
        assert_eq!(asked, r#"{"subscribe":{"objects":["a"],"cursor":"C1"},"id":2}"#);
        say(
            &mut socket,
            r#"{"changes":[{"object":"a","version":7},{"object":"a","version":8,"data":{"t":1}}]}"#,
        )
        .await;
        say(&mut socket, r#"{"resync":{"all":true,"cause":"floor"}}"#).await;
        say(&mut socket, r#"{"cursor":"C2"}"#).await;
        tokio::time::sleep(SAVE_EVERY * 2).await;
        assert_eq!(std::fs::read_to_string(&file).expect("saved while it runs"), "C2\n");
        close(&mut socket, 4503).await;
    };
    let (why, ()) = tokio::join!(watch.follow(), server);
    assert_eq!(why.as_deref(), Some("the token was revoked (close code 4503)"));
    let told = [
        "a  version 6  k",
        "a  version 7",
        "a  version 8  {\"t\":1}",
        "resync  all objects may have changed: fetch them  (floor)",
    ];
    assert_eq!(paper.lines(), told);
}

#[tokio::test]
async fn a_stop_code_stops_and_its_reason_is_told_in_words() {
    for (code, words) in [(4506, "operator"), (1008, "policy"), (4501, "token")] {
        let (listener, mut watch, _) = listen(|_| {}).await;
        let server = async {
            let (mut socket, _) = greet(&listener, 1).await;
            close(&mut socket, code).await;
        };
        let (why, ()) = tokio::join!(watch.follow(), server);
        assert!(why.as_deref().is_some_and(|why| why.contains(words)), "{code}: {why:?}");
    }
}

#[tokio::test]
async fn a_wish_to_come_back_later_is_obeyed() {
    let (listener, mut watch, _) = listen(|args| args.cursor = Some("C0".to_owned())).await;
    let server = async {
        let (mut socket, asked) = greet(&listener, 1).await;
        assert!(asked.contains(r#""cursor":"C0""#), "{asked}");
        say(&mut socket, r#"{"reconnect":{"after_ms":400,"reason":"drain"}}"#).await;
        close(&mut socket, 4000).await;
        let closed = Instant::now();
        let (mut socket, _) = greet(&listener, 2).await;
        let waited = closed.elapsed().as_millis();
        assert!((350..2000).contains(&waited), "{waited}");
        close(&mut socket, 4500).await;
    };
    let (why, ()) = tokio::join!(watch.follow(), server);
    assert!(why.is_some());
}

#[tokio::test]
async fn silence_beyond_two_ping_intervals_is_a_dead_path() {
    let (listener, mut watch, _) = listen(|_| {}).await;
    let server = async {
        let mut silent = accept(&listener).await;
        say(&mut silent, &HELLO.replace("25000", "500")).await;
        let (mut socket, _) = greet(&listener, 2).await;
        close(&mut socket, 4500).await;
    };
    let (why, ()) = tokio::join!(watch.follow(), server);
    assert!(why.is_some_and(|why| why.contains("4500")));
}

#[tokio::test]
async fn a_server_that_is_no_tidings_server_is_told_apart_from_one_that_is_away() {
    let (listener, mut watch, _) = listen(|_| {}).await;
    let server = async {
        for answer in [
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 2048];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request)
                .await
                .expect("a request");
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                .await
                .expect("answered");
        }
    };
    let (why, ()) = tokio::join!(watch.follow(), server);
    assert_eq!(
        why.as_deref(),
        Some("there is no Tidings server at this address (HTTP status 404)")
    );
}
