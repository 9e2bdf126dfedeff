//! WebSockets: the handshake, and the task that reads what a client says. Writing is the lane's business.
//!
//! `tungstenite` checks and unmasks what comes in. It never sees the socket's other half: what it wants to say itself
//! (pongs, the echo of a close) goes through the lane, which keeps frames whole and in order.

mod admitting;
mod pacing;

use super::shell::Shell;
use super::sinks::{Sink, Socket};
use super::{LaneCommand, connection_name};
use crate::auth::{Caller, Credential, Denial, SUBPROTOCOL};
use crate::clock;
use crate::problem::Refusal;
use crate::server::{App, Behind, GuardedStream, PeerAddress, Permit, Wire, subscriber_socket};
use crate::telemetry::Limit;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;
use tidings_protocol::client::{self, Request as ClientRequest};
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::{self, Encoding, Hello, Limits, RequestId};
use tidings_protocol::{Code, Problem};
use tidings_router::edge::{Page, SinkKind, SubscriberKey};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};

/// What is kept ready for one connection's input between two messages.
const READ_BUFFER: usize = 512;

/// How long a client that was sent away may take to close its side.
const HEAR_OUT: Duration = Duration::from_secs(2);

const PROTOCOLS: [(&str, Encoding); 2] = [
    ("tidings.v1.json", Encoding::WebSocketJson),
    ("tidings.v1.msgpack", Encoding::WebSocketMessagePack),
];

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new().route("/v1/ws", get(handshake))
}

/// A connection that will be a WebSocket once the answer is out.
pub(crate) struct Upgrade {
    upgrade: OnUpgrade,
    /// `None`: the client asked for subprotocols of which none is ours.
    encoding: Option<Encoding>,
    trace: bool,
    peer: SocketAddr,
    behind: Option<Behind>,
    caller: Caller,
}

/// RFC 6455 section 4.2: checks the request and answers it.
async fn handshake(State(app): State<App>, mut request: Request) -> Result<Response, Refusal> {
    let headers = request.headers();
    let has = |name, token: &str| tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token));
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        let detail = "this route speaks WebSocket: `Connection: Upgrade` and `Upgrade: websocket` are missing";
        let mut response = Refusal::new(Code::BadRequest, detail).with_status(426).into_response();
        response
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(response);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let detail = "`Sec-WebSocket-Version` must be 13";
        let mut response = Refusal::new(Code::BadRequest, detail).with_status(426).into_response();
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Ok(response);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24 && key.as_bytes().ends_with(b"=="));
    let Some(key) = key else {
        return Err(Refusal::new(Code::BadRequest, "`Sec-WebSocket-Key` must be 16 bytes in base64").closing());
    };
    let accept = derive_accept_key(key.as_bytes());
    let (carried, asked): (Vec<&str>, Vec<&str>) =
        tokens(headers, SEC_WEBSOCKET_PROTOCOL).partition(|token| token.starts_with(SUBPROTOCOL));
    // A browser cannot send headers: its token comes among the subprotocols, and is never answered.
    let caller = match (&app.node.auth, carried.as_slice()) {
        (Some(auth), [one]) if Credential::of(headers) == Credential::Missing => {
            Caller::from(auth.judge(one.strip_prefix(SUBPROTOCOL).unwrap_or_default()))
        }
        (Some(_), [_, ..]) => Caller::Nobody(Denial::Unreadable),
        _ => super::poll::caller_of(request.extensions()),
    };
    let chosen = asked
        .iter()
        .find_map(|asked| PROTOCOLS.iter().find(|(name, _)| name == asked));
    let encoding = match chosen {
        Some((_, encoding)) => Some(*encoding),
        // A token alone asks for no protocol; but a browser would take no answer without one that it asked for.
        None if asked.is_empty() => Some(Encoding::WebSocketJson),
        None => None,
    };
    let protocol = chosen.map(|(name, _)| *name);
    let trace = super::poll::wants_trace(request.uri().query());
    let peer = peer_of(request.extensions());
    let behind = request.extensions().get().cloned();
    let upgrade = hyper::upgrade::on(&mut request);
    app.node.lanes[app.thread].send(LaneCommand::WebSocket(Box::new(Upgrade {
        upgrade,
        encoding,
        trace,
        peer,
        behind,
        caller,
    })));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(response)
}

pub(super) fn peer_of(extensions: &http::Extensions) -> SocketAddr {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    extensions.get::<PeerAddress>().map_or(unknown, |peer| peer.0)
}

/// The comma-separated tokens of all headers of one name.
fn tokens(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Takes over a connection once its handshake is answered, and leaves it to a task that is as small as an idle connection
/// deserves.
pub(super) async fn upgraded(shell: Rc<Shell>, upgrade: Box<Upgrade>) {
    let Upgrade {
        upgrade,
        encoding,
        trace,
        peer,
        behind,
        caller,
    } = *upgrade;
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<GuardedStream>>() else {
        tracing::error!("an upgraded connection is not the stream it was accepted as");
        return;
    };
    let (stream, permit) = parts.io.into_inner().into_parts();
    if let Err(error) = subscriber_socket(stream.tcp(), &shell.node.live()) {
        tracing::debug!(%error, "a subscriber's socket keeps its default buffers");
    }
    // The stream still knows how to wake the HTTP task, and with that keeps its memory: let it forget.
    _ = stream.poll_read_ready(&mut Context::from_waker(Waker::noop()));
    let reader = Reader::new(shell, stream, encoding, trace, peer, (permit, behind));
    reader.admit(caller);
    // Copied, because even an empty rest holds on to all of the HTTP parser's buffer.
    tokio::task::spawn_local(reader.run(parts.read_buf.to_vec()));
}

/// Reads one client's frames.
struct Reader {
    shell: Rc<Shell>,
    who: SubscriberKey,
    encoding: Encoding,
    stream: Rc<Wire>,
    turn: Rc<Notify>,
    pace: pacing::Pace,
    /// The connection's places among those allowed at once, held as long as it lives.
    _places: (Permit, Option<Behind>),
}

impl Reader {
    fn new(
        shell: Rc<Shell>,
        stream: Wire,
        encoding: Option<Encoding>,
        trace: bool,
        peer: SocketAddr,
        places: (Permit, Option<Behind>),
    ) -> Self {
        let (stream, turn) = (Rc::new(stream), Rc::new(Notify::new()));
        let written = encoding.unwrap_or(Encoding::WebSocketJson);
        let now = clock::now();
        let who = shell.with(|lane, _| lane.connect(now, SinkKind::Stream(written), trace));
        let socket = Socket {
            stream: Rc::clone(&stream),
            rest: Bytes::new(),
            turn: Rc::clone(&turn),
        };
        shell.enter(who, Sink::Socket(Box::new(socket)), peer);
        shell.step(|state| state.age_from_now(who));
        let live = shell.node.live();
        let limits = &live.limits;
        let connection = connection_name(shell.thread, who);
        let hello = Hello {
            connection: &connection,
            node: &shell.node.name,
            ping_ms: limits.ping_ms,
            limits: Limits {
                objects: limits.objects_per_connection,
                frame_bytes: limits.client_frame_bytes,
            },
        };
        shell.with(|lane, _| lane.respond(who, |encoding, reply| codec::hello(encoding, reply, &hello)));
        if encoding.is_none() {
            shell.with(|lane, out| lane.dismiss(now, who, CloseCode::Unsupported, "subprotocol", None, out));
        } else {
            shell.turn_away(who);
        }
        Self {
            shell,
            who,
            encoding: written,
            stream,
            turn,
            pace: pacing::Pace::default(),
            _places: places,
        }
    }

    async fn run(self, already_read: Vec<u8>) {
        let mut stranger = self.is_stranger();
        let mut config = self.limits_of(stranger);
        let context_bytes = already_read.len() as u64;
        let mut context = WebSocketContext::from_partially_read(already_read, Role::Server, Some(config));
        let mut said = Vec::new();
        let (mut fed, mut consumed) = (context_bytes, 0);
        loop {
            match context.read(&mut Half {
                stream: &self.stream,
                said: &mut said,
                fed: &mut fed,
            }) {
                Ok(message) => {
                    self.shell.with(|lane, _| lane.heard(self.who));
                    // Boxed, as everything that an idle connection does not need.
                    if !Box::pin(self.message(&message)).await {
                        Box::pin(self.see_off()).await;
                        break;
                    }
                    if stranger && !self.is_stranger() {
                        stranger = false;
                        config = self.limits_of(stranger);
                        context.set_config(|limits| *limits = config);
                    }
                    consumed += frame_bytes(&message);
                    if consumed == fed && message.len() > READ_BUFFER && !message.is_close() {
                        // The library's buffer grew for this message and would stay so. It is empty now: start afresh.
                        context = WebSocketContext::from_partially_read(Vec::new(), Role::Server, Some(config));
                    }
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.say(&mut said);
                    if !self.readable().await {
                        break;
                    }
                }
                Err(error) => {
                    if self.refuse(&error, &mut said) {
                        Box::pin(self.see_off()).await;
                    }
                    break;
                }
            }
            self.say(&mut said);
            if !self.is_my_turn() && !Box::pin(self.my_turn()).await {
                break;
            }
        }
        let sent_away = !self.alive();
        self.shell.leave(self.who);
        if sent_away {
            Box::pin(self.hear_out()).await;
        }
    }

    /// Waits until a client that is sent away was written why; one that does not read it is cut as stuck.
    async fn see_off(&self) {
        while self.alive() {
            self.turn.notified().await;
        }
    }

    /// Takes what the client still sends, for a while: closing over unread input would reset the connection, and the
    /// client might never see why it was closed.
    async fn hear_out(&self) {
        let end = async {
            let mut ignored = [0; 512];
            loop {
                if self.stream.readable().await.is_err() {
                    return;
                }
                match self.stream.try_read(&mut ignored) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // After that the client has had its time.
        _ = tokio::time::timeout(HEAR_OUT, end).await;
    }

    /// Waits for input; `false` if the subscriber was sent away meanwhile and has read its last words.
    async fn readable(&self) -> bool {
        loop {
            tokio::select! {
                result = self.stream.readable() => return result.is_ok(),
                () = self.turn.notified() => if !self.alive() { return false },
            }
        }
    }

    fn alive(&self) -> bool {
        self.shell.with(|lane, _| lane.connection(self.who).is_some())
    }

    fn is_my_turn(&self) -> bool {
        self.shell.with(|lane, _| lane.may_request(self.who))
    }

    /// Waits until the client's next request may be taken: one at a time, and none while its answers are not read.
    async fn my_turn(&self) -> bool {
        loop {
            if self.is_my_turn() {
                return true;
            }
            if !self.alive() {
                return false;
            }
            self.turn.notified().await;
        }
    }

    /// Passes on what the WebSocket library has to say.
    fn say(&self, said: &mut Vec<u8>) {
        if !said.is_empty() {
            self.shell
                .with(|lane, _| lane.respond(self.who, |_, reply| reply.extend_from_slice(said)));
            said.clear();
        }
    }

    /// Ends the connection because of what the client sent, or because it ended it; whether it is told so.
    fn refuse(&self, error: &Error, said: &mut Vec<u8>) -> bool {
        let code = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. } | CapacityError::TooManyHeaders) => {
                self.shell.node.metrics.refused(Limit::ClientFrameBytes);
                Some((CloseCode::TooBig, "frame_too_large"))
            }
            Error::Utf8(_) => Some((CloseCode::NotUtf8, "not_utf8")),
            Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) => Some((CloseCode::Protocol, "protocol_error")),
            _ => None,
        };
        let now = clock::now();
        match code {
            Some((code, reason)) => self
                .shell
                .with(|lane, out| lane.dismiss(now, self.who, code, reason, None, out)),
            None if !said.is_empty() => self.shell.with(|lane, out| {
                lane.respond(self.who, |_, reply| reply.append(said));
                lane.end(now, self.who, out);
            }),
            None => return false,
        }
        true
    }

    /// Does what one message asks for; `false` if the connection ends with it.
    async fn message(&self, message: &Message) -> bool {
        let payload = match (message, self.encoding) {
            (Message::Text(text), Encoding::WebSocketJson) => text.as_bytes(),
            (Message::Binary(bytes), Encoding::WebSocketMessagePack) => bytes,
            (Message::Text(_) | Message::Binary(_), _) => {
                let (now, reason) = (clock::now(), "wrong_frame_type");
                self.shell
                    .with(|lane, out| lane.dismiss(now, self.who, CloseCode::Unsupported, reason, None, out));
                return false;
            }
            (Message::Ping(_) | Message::Pong(_), _) => return self.paced_frame().await,
            (Message::Close(_) | Message::Frame(_), _) => return true,
        };
        let limit = self.shell.node.config.limits.objects_per_connection as usize;
        for (id, request) in client::parse_requests(self.encoding, payload, limit) {
            if !self.paced(&request).await || (!self.is_my_turn() && !self.my_turn().await) {
                return false;
            }
            self.request(id.as_ref(), request);
        }
        true
    }

    fn request(&self, id: Option<&RequestId>, request: Result<ClientRequest, Problem>) {
        let (now, who) = (clock::now(), self.who);
        let request = match request {
            Ok(ClientRequest::Auth { token }) => return self.authenticate(id, &token),
            Ok(ClientRequest::Subscribe { objects, cursor, more }) => {
                let caller = self.shell.caller(who);
                if let Caller::Nobody(denial) = caller {
                    Err(denial.problem())
                } else {
                    let objects = caller.sift(objects, &self.shell.node.metrics);
                    Ok(ClientRequest::Subscribe { objects, cursor, more })
                }
            }
            other => other,
        };
        let result = self.shell.with(|lane, out| match request {
            Ok(ClientRequest::Subscribe { objects, cursor, more }) => {
                let page = Page {
                    id: id.cloned(),
                    entries: objects,
                    cursor,
                    more,
                };
                lane.subscribe(now, who, page, out)
            }
            Ok(ClientRequest::Unsubscribe { objects }) => {
                let objects = objects
                    .iter()
                    .filter_map(|entry| entry.as_ref().ok())
                    .map(|entry| &entry.object);
                lane.unsubscribe(now, who, id, objects, out)
            }
            Ok(ClientRequest::Auth { .. } | ClientRequest::Ping) => {
                lane.respond(who, |encoding, reply| codec::pong_message(encoding, reply, id));
                Ok(())
            }
            Err(problem) => {
                lane.respond(who, |encoding, reply| codec::error(encoding, reply, id, &problem));
                Ok(())
            }
        });
        if let Err(error) = result {
            let problem = Problem::new(Code::Internal, error.to_string());
            self.shell.with(|lane, _| {
                lane.respond(who, |encoding, reply| codec::error(encoding, reply, id, &problem));
            });
        }
    }
}

/// The least that a client's message takes on the wire: one masked frame with the shortest header. A message in several
/// frames takes more, so that a sum of these never exceeds what was read.
fn frame_bytes(message: &Message) -> u64 {
    let payload = message.len() as u64;
    let length = match payload {
        0..=125 => 0,
        126..=65_535 => 2,
        _ => 8,
    };
    2 + length + 4 + payload
}

/// The socket as the WebSocket library sees it: it reads from it, and what it writes is gathered.
struct Half<'a> {
    stream: &'a Wire,
    said: &'a mut Vec<u8>,
    /// Bytes that the library has read so far.
    fed: &'a mut u64,
}

impl io::Read for Half<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.try_read(buffer)?;
        *self.fed += read as u64;
        Ok(read)
    }
}

impl io::Write for Half<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.said.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
