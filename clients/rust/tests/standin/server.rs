//! A server that does what a test says. Its WebSockets are those of a library that is not ours.

use futures_util::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use tidings_client::{Change, Client, ClientBuilder, Watch};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const HELLO: &str = r#"{"connection":"c","node":"n","ping_ms":25000,"limits":{"objects":1000,"frame_bytes":65536}}"#;

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

/// See the module.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

/// A request that was read, and where to answer it.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
    stream: TcpStream,
}

impl Server {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        Self { listener, url }
    }

    /// A client of this server that does not wait long.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder(&self.url).waits(Duration::from_millis(20), Duration::from_millis(100))
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        within(self.listener.accept()).await.expect("a connection").0
    }

    /// Nobody comes for this long.
    pub(crate) async fn nobody_for(&self, time: Duration) {
        assert!(timeout(time, self.listener.accept()).await.is_err(), "somebody came");
    }

    /// A request of HTTP.
    pub(crate) async fn asked(&self) -> Asked {
        let stream = self.accept().await;
        Asked::read(stream).await.expect("a request")
    }

    pub(crate) async fn socket(&self) -> Socket {
        #[expect(clippy::result_large_err, reason = "the library's own callback")]
        let choose = |request: &Request, mut response: Response| {
            assert_eq!(request.uri(), "/v1/ws");
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            assert_eq!(protocol, "tidings.v1.json");
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let stream = self.accept().await;
        let socket = within(tokio_tungstenite::accept_hdr_async(stream, choose)).await;
        Socket(socket.expect("an upgrade"))
    }

    /// Says hello and answers the one page that is asked for, which is given back.
    pub(crate) async fn greet(&self) -> (Socket, String) {
        let mut socket = self.socket().await;
        socket.hello(25_000).await;
        let asked = socket.heard().await;
        socket.subscribed(&asked).await;
        (socket, asked)
    }
}

/// The server's end of a WebSocket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn say(&mut self, text: &str) {
        within(self.0.send(Message::text(text.to_owned()))).await.expect("sent");
    }

    pub(crate) async fn hello(&mut self, ping_ms: u64) {
        let hello = HELLO.replace("25000", &ping_ms.to_string());
        self.say(&format!("{{\"hello\":{hello}}}")).await;
    }

    /// Every object of this page is subscribed, at version 1.
    pub(crate) async fn subscribed(&mut self, asked: &str) {
        let asked: serde_json::Value = serde_json::from_str(asked).expect("JSON");
        let objects = asked["subscribe"]["objects"].as_array().expect("objects");
        let name = |object: &serde_json::Value| object.get("object").unwrap_or(object).clone();
        let objects: Vec<_> = objects
            .iter()
            .map(|object| serde_json::json!({"object": name(object), "version": 1}))
            .collect();
        let answer = serde_json::json!({"subscribed": {"objects": objects}, "id": asked["id"]});
        self.say(&answer.to_string()).await;
    }

    pub(crate) async fn ping(&mut self) {
        within(self.0.send(Message::Ping("x".into()))).await.expect("sent");
    }

    pub(crate) async fn message(&mut self) -> Option<Message> {
        within(self.0.next()).await.and_then(Result::ok)
    }

    pub(crate) async fn heard(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.message().await.expect("a message") {
                return text.to_string();
            }
        }
    }

    /// The end, and everything the client says until it is gone.
    pub(crate) async fn close(&mut self, code: u16) -> Option<u16> {
        let frame = CloseFrame {
            code: code.into(),
            reason: "because".into(),
        };
        within(self.0.send(Message::Close(Some(frame)))).await.expect("sent");
        self.read_to_the_end().await
    }

    pub(crate) async fn read_to_the_end(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(message) = self.message().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }
}

impl Asked {
    pub(crate) async fn read(mut stream: TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if within(stream.read_buf(&mut bytes)).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while bytes.len() < end + 4 + length {
            assert!(
                within(stream.read_buf(&mut bytes)).await.expect("bytes") > 0,
                "the body is whole"
            );
        }
        let body = String::from_utf8(bytes[end + 4..].to_vec()).expect("text");
        Some(Self { head, body, stream })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Answers with this status line, these headers and this body; gives the connection back for another request.
    pub(crate) async fn answer(mut self, status: &str, headers: &str, body: &str) -> TcpStream {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
        within(self.stream.write_all(answer.as_bytes()))
            .await
            .expect("answered");
        self.stream
    }

    /// Begins an event stream.
    pub(crate) async fn stream(mut self) -> TcpStream {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let hello = format!("retry: 30\n\nevent: hello\ndata: {HELLO}\n\n");
        within(self.stream.write_all(format!("{head}{hello}").as_bytes()))
            .await
            .expect("begun");
        self.stream
    }
}

pub(crate) async fn next(watch: &mut Watch) -> Change {
    within(watch.next()).await.expect("not stopped")
}
