//! A third-party EventSource: it reconnects by itself and brings the last ID that it saw.

use super::PATIENCE;
use super::ear::Ear;
use super::http::Raw;
use bytes::Bytes;
use eventsource_client::{BoxStream, Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// The client, its runtime, and the wires that it uses.
pub(crate) struct EventSource {
    runtime: tokio::runtime::Runtime,
    stream: BoxStream<eventsource_client::Result<SSE>>,
    wires: Wires,
    /// The last ID it saw.
    pub(crate) last_id: Option<String>,
}

/// The heads of requests made, and the connection in use.
#[derive(Clone, Debug)]
struct Wires {
    address: SocketAddr,
    made: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Option<TcpStream>>>,
}

impl HttpTransport for Wires {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let (sender, receiver) = oneshot::channel();
        let wires = self.clone();
        std::thread::spawn(move || {
            let mut head = format!(
                "{} {} HTTP/1.1\r\nHost: localhost\r\n",
                request.method(),
                request.uri().path_and_query().expect("a path")
            );
            for (name, value) in request.headers() {
                _ = write!(head, "{name}: {}\r\n", value.to_str().expect("text"));
            }
            head.push_str("\r\n");
            let mut raw = Raw::open(wires.address);
            raw.send(&head);
            wires.made.lock().expect("unpoisoned").push(head);
            *wires.open.lock().expect("unpoisoned") = raw.stream.try_clone().ok();
            let Some(answer) = raw.head() else {
                let failed = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                // Whoever asked may have gone.
                _ = sender.send(Err(TransportError::new(failed)));
                return;
            };
            let (pieces, body) = mpsc::channel::<Result<Bytes, TransportError>>(1);
            let body: ByteStream = Box::pin(ReceiverStream::new(body));
            let response = http::Response::builder()
                .status(answer.status)
                .header("content-type", "text/event-stream");
            _ = sender.send(Ok(response.body(body).expect("a response")));
            while let Some(piece) = raw.piece() {
                if pieces.blocking_send(Ok(Bytes::from(piece))).is_err() {
                    return;
                }
            }
        });
        Box::pin(async move { receiver.await.expect("the wire's thread answers") })
    }
}

impl EventSource {
    /// Opens `target` and goes on opening it whenever it ends.
    pub(crate) fn open(address: SocketAddr, target: &str, last_id: Option<&str>) -> Self {
        let wires = Wires {
            address,
            made: Arc::default(),
            open: Arc::default(),
        };
        let mut builder = ClientBuilder::for_url(&format!("http://{address}{target}"))
            .expect("a URL")
            .reconnect(
                ReconnectOptions::reconnect(true)
                    .retry_initial(true)
                    .delay(Duration::from_millis(50))
                    .delay_max(Duration::from_millis(200))
                    .build(),
            );
        if let Some(id) = last_id {
            builder = builder.last_event_id(id.to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let stream = builder.build_with_transport(wires.clone()).stream();
        Self {
            runtime,
            stream,
            wires,
            last_id: last_id.map(str::to_owned),
        }
    }

    /// Cuts the connection in use, as a bad network does.
    pub(crate) fn cut(&self) {
        let open = self
            .wires
            .open
            .lock()
            .expect("unpoisoned")
            .take()
            .expect("a connection");
        open.shutdown(std::net::Shutdown::Both).expect("cut");
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.wires.made.lock().expect("unpoisoned").clone()
    }
}

impl Ear for EventSource {
    /// This client gives IDs with the events that follow them only; they are told as cursors before the event.
    #[track_caller]
    fn next(&mut self) -> Option<Value> {
        loop {
            let next = self
                .runtime
                .block_on(async { tokio::time::timeout(PATIENCE, self.stream.next()).await });
            match next.expect("something is told in time")? {
                Ok(SSE::Event(event)) => {
                    self.last_id.clone_from(&event.id);
                    let said: Value = serde_json::from_str(&event.data).expect("JSON");
                    return Some(match event.event_type.as_str() {
                        "message" => json!({ "changes": [said] }),
                        name => json!({ name: said }),
                    });
                }
                Ok(SSE::Comment(_)) => return Some(json!({ "comment": true })),
                // It says what went wrong and opens the stream again.
                Ok(SSE::Connected(_)) | Err(_) => {}
            }
        }
    }
}
