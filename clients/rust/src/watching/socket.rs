//! A WebSocket over TCP.

use crate::net::{Failure, Net};
use crate::watch::{Ended, Input};
use crate::websocket::{self, HandshakeError, Incoming, Key, MAX_HEAD_BYTES, Message};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const READ_BYTES: usize = 16 * 1024;
/// Answers to pings that nobody takes are no reason to gather more.
const MAX_UNSENT_PONG_BYTES: usize = 64 * 1024;
/// How long the body of a refusal may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BODY_BYTES: usize = 64 * 1024;

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Failure>> + Send>>;

/// See the module.
pub(super) struct Socket {
    number: u64,
    state: State,
}

enum State {
    Opening(Opening),
    Open(Box<Opened>),
}

struct Opened {
    stream: TcpStream,
    incoming: Incoming,
    read: Vec<u8>,
    /// What came behind the handshake.
    early: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Socket {
    pub(super) fn open(net: &Net, number: u64, server: usize, route: String) -> Self {
        let net = net.clone();
        Self {
            number,
            state: State::Opening(Box::pin(async move { open(&net, server, &route).await })),
        }
    }

    pub(super) fn send(&mut self, text: &[u8]) {
        if let State::Open(open) = &mut self.state {
            websocket::write_text(&mut open.out, text, mask());
        }
    }

    /// Says goodbye if that can be said without waiting. The socket is closed when this is dropped.
    pub(super) fn close(&mut self, code: u16) {
        if let State::Open(open) = &mut self.state {
            websocket::write_close(&mut open.out, code, "", mask());
            _ = open.stream.try_write(&open.out[open.written..]);
        }
    }

    /// What comes next; `true`: nothing will come any more.
    pub(super) async fn next(&mut self, mut take: impl FnMut(u64, Input<'_>)) -> bool {
        let number = self.number;
        let mut take = |input: Input<'_>| take(number, input);
        match &mut self.state {
            State::Opening(opening) => match opening.await {
                Ok(opened) => {
                    self.state = State::Open(Box::new(opened));
                    false
                }
                Err(failure) => {
                    take(Input::Ended(failure.ended()));
                    true
                }
            },
            State::Open(open) => open.next(&mut take).await,
        }
    }
}

impl Opened {
    async fn next(&mut self, take: &mut impl FnMut(Input<'_>)) -> bool {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            return self.feed(&early, take);
        }
        let has_output = self.written < self.out.len();
        let (mut reader, mut writer) = self.stream.split();
        self.read.clear();
        tokio::select! {
            read = reader.read_buf(&mut self.read) => match read {
                Ok(1..) => {
                    let read = std::mem::take(&mut self.read);
                    let over = self.feed(&read, take);
                    self.read = read;
                    over
                }
                Ok(0) => {
                    take(Input::Ended(Ended::Cut("its end came without a close frame".to_owned())));
                    true
                }
                Err(error) => {
                    take(Input::Ended(Ended::Cut(error.to_string())));
                    true
                }
            },
            written = writer.write(&self.out[self.written..]), if has_output => {
                // Of a write that fails, reading tells why: a close code may have come already.
                self.written += written.unwrap_or(self.out.len() - self.written);
                if self.written == self.out.len() {
                    self.out.clear();
                    self.written = 0;
                }
                false
            }
        }
    }

    fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(Input<'_>)) -> bool {
        let out = &mut self.out;
        let mut over = false;
        take(Input::Sign);
        let fed = self.incoming.feed(bytes, |message| match message {
            Message::Text(text) => take(Input::Text(text)),
            Message::Ping(payload) => {
                if out.len() < MAX_UNSENT_PONG_BYTES {
                    websocket::write_pong(out, payload, mask());
                }
            }
            Message::Close(close) => {
                over = true;
                let (code, reason) = close.unwrap_or((1005, ""));
                // Without a code there is none to echo.
                websocket::write_close(out, if code == 1005 { 1000 } else { code }, "", mask());
                take(Input::Ended(Ended::Closed { code, reason }));
            }
            Message::Binary(_) | Message::Pong(_) => {}
        });
        if let Err(error) = fed {
            websocket::write_close(&mut self.out, error.close_code(), "", mask());
            take(Input::Ended(Ended::Cut(error.to_string())));
            over = true;
        }
        if over {
            _ = self.stream.try_write(&self.out[self.written..]);
        }
        over
    }
}

async fn open(net: &Net, server: usize, route: &str) -> Result<Opened, Failure> {
    let mut stream = net.connect(server).await?;
    let address = net.address(server);
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Failure::Unreachable(format!("no randomness: {error}")))?;
    let key = Key::new(nonce);
    let authorization = net.authorization();
    let headers: Vec<(&str, &str)> = authorization
        .iter()
        .map(|value| ("Authorization", value.as_str()))
        .collect();
    let mut request = Vec::new();
    websocket::handshake(&mut request, &address.authority, &address.target(route), &key, &headers)
        .map_err(|error| Failure::Unusable(error.to_string()))?;
    let cut = |error: std::io::Error| Failure::Cut(error.to_string());
    stream.write_all(&request).await.map_err(cut)?;
    let mut head = Vec::with_capacity(1024);
    let accepted = loop {
        match websocket::read_handshake(&head, &key) {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err(HandshakeError::Refused {
                status,
                retry_after_s,
                length,
                body,
            }) => {
                let mut rest = head.split_off(length);
                _ = timeout(BODY_TIMEOUT, read_body(&mut stream, &mut rest, body)).await;
                return Err(Failure::Refused {
                    status,
                    retry_after_s,
                    body: Bytes::from(rest),
                });
            }
            Err(error) => return Err(Failure::Unusable(error.to_string())),
        }
        if head.len() >= MAX_HEAD_BYTES + READ_BYTES || stream.read_buf(&mut head).await.map_err(cut)? == 0 {
            return Err(Failure::Cut("its end came within the handshake".to_owned()));
        }
    };
    let early = head.split_off(accepted.length);
    Ok(Opened {
        stream,
        incoming: Incoming::default(),
        read: Vec::with_capacity(READ_BYTES),
        early,
        out: Vec::new(),
        written: 0,
    })
}

/// The body of a refusal, as far as it comes.
async fn read_body(stream: &mut TcpStream, body: &mut Vec<u8>, length: Option<usize>) {
    let length = length.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    while body.len() < length && stream.read_buf(body).await.is_ok_and(|read| read > 0) {}
    body.truncate(length);
}

/// Masks keep a page's script from writing bytes of its choice (RFC 6455, 10.3). There is none here: an ordinary random
/// number does.
fn mask() -> [u8; 4] {
    (crate::net::random() as u32).to_ne_bytes()
}
