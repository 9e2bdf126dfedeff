//! Server-Sent Events: a body that hands hyper one frame at a time, so that what is not yet sent can still coalesce.

use super::shell::Shell;
use super::sinks::Sink;
use super::{LaneCommand, LaneHandle, SessionName, connection_name};
use crate::auth::{self, Caller, Place};
use crate::clock;
use crate::problem::Refusal;
use crate::server::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tidings_protocol::client::{EntryResult, EventsRequest};
use tidings_protocol::codec::{self, Encoding, Hello, Limits};
use tidings_protocol::{Code, Problem};
use tidings_router::edge::{Page, SinkKind, SubscriberKey};

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new().route("/v1/events", get(from_query).post(from_body))
}

/// A stream to be opened by its lane.
pub(crate) struct Open {
    pub(super) session: Option<SessionName>,
    pub(super) entries: Vec<EntryResult>,
    pub(super) cursor: Option<String>,
    pub(super) trace: bool,
    pub(super) peer: SocketAddr,
    pub(super) caller: Caller,
    /// Among the connections of its subject.
    pub(super) place: Option<Place>,
    pub(super) sink: EventsSink,
}

/// Between the lane and the body of the answer: at most one frame.
#[derive(Debug, Default)]
struct Slot {
    frame: Bytes,
    /// To whom the lane wants to write more as soon as the frame is taken.
    more_for: Option<SubscriberKey>,
    ended: bool,
    waker: Option<Waker>,
}

/// The lane's end.
#[derive(Debug)]
pub(crate) struct EventsSink {
    pub(super) ticket: u64,
    slot: Arc<Mutex<Slot>>,
    who: Option<SubscriberKey>,
    /// What found the slot taken.
    rest: Bytes,
    /// What IDs end with, if the stream was opened with a ticket.
    proof: Option<Box<str>>,
}

/// Behind every cursor that the stream can be resumed from stands the proof that it was this one's.
fn with_proof(bytes: &[u8], proof: &str) -> Bytes {
    let mut proven = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(id) if id.starts_with(b"id: ") => {
                proven.extend_from_slice(id);
                proven.push(b'.');
                proven.extend_from_slice(proof.as_bytes());
                proven.push(b'\n');
            }
            _ => proven.extend_from_slice(line),
        }
    }
    proven.into()
}

/// The cursor of an ID, whose proof is not for the lane.
fn without_proof(id: &str) -> &str {
    id.split_once('.').map_or(id, |(cursor, _)| cursor)
}

impl EventsSink {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what the lane wrote, as [`Self::put`] does.
    pub(super) fn write(&mut self, bytes: Bytes) -> bool {
        let bytes = match &self.proof {
            Some(proof) => with_proof(&bytes, proof),
            None => bytes,
        };
        self.put(bytes)
    }

    /// Hands over a frame; `false` if the last one is still there: the sink keeps this one and takes no more before
    /// [`EventsSink::resume`] says so.
    fn put(&mut self, bytes: Bytes) -> bool {
        let who = self.who;
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.frame.is_empty() {
            slot.frame = bytes;
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
            return true;
        }
        slot.more_for = who;
        drop(slot);
        self.rest = bytes;
        false
    }

    /// The last frame was taken: the kept one takes its place.
    pub(super) fn resume(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        rest.is_empty() || self.put(rest)
    }

    /// Nothing follows what is in the slot.
    pub(super) fn end(mut self) {
        let rest = std::mem::take(&mut self.rest);
        let mut slot = self.lock();
        if !rest.is_empty() {
            let mut joined = slot.frame.to_vec();
            joined.extend_from_slice(&rest);
            slot.frame = Bytes::from(joined);
        }
        slot.ended = true;
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

/// The body's end.
struct EventsBody {
    slot: Arc<Mutex<Slot>>,
    lane: LaneHandle,
    ticket: u64,
}

impl http_body::Body for EventsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.frame.is_empty() {
            let frame = std::mem::take(&mut slot.frame);
            if let Some(who) = slot.more_for.take() {
                self.lane.send(LaneCommand::EventsTaken {
                    who,
                    ticket: self.ticket,
                });
            }
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for EventsBody {
    fn drop(&mut self) {
        self.lane.send(LaneCommand::Gone { ticket: self.ticket });
    }
}

async fn from_query(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let limit = app.node.config.limits.objects_per_connection as usize;
    let (head, _) = request.into_parts();
    let asked = EventsRequest::from_query(head.uri.query().unwrap_or_default(), limit)?;
    answer(&app, &head, asked)
}

async fn from_body(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let limit = app.node.config.limits.objects_per_connection as usize;
    let (head, body) = super::poll::read_body(&app, request).await?;
    let asked = match super::poll::is_msgpack(&head.headers, CONTENT_TYPE) {
        true => EventsRequest::from_msgpack(&body, limit)?,
        false => EventsRequest::from_json(&body, limit)?,
    };
    answer(&app, &head, asked)
}

fn answer(app: &App, head: &Parts, asked: EventsRequest) -> Result<Response, Refusal> {
    if asked.objects.as_ref().is_none_or(Vec::is_empty) && asked.session.is_none() {
        return Err(Problem::new(Code::NoObjects, "name at least one `object`, or a `session`").into());
    }
    let caller = super::poll::caller_of(&head.extensions);
    let place = match (&app.node.auth, caller.subject()) {
        (Some(auth), Some(subject)) => auth.place(subject, &app.node.metrics).map_err(|limit| {
            let detail = format!("too many connections of one subject (limits.{})", limit.name());
            Refusal::new(Code::TooMany, detail)
        })?,
        _ => None,
    };
    let last = head.headers.get(HeaderName::from_static("last-event-id"));
    // The browser's own memory counts more than the address it was given at first.
    let last = last
        .map(|value| without_proof(&String::from_utf8_lossy(value.as_bytes())).to_owned())
        .filter(|text| !text.is_empty());
    let proof = auth::ticket_of(&head.uri, &head.headers)
        .zip(app.node.auth.as_deref())
        .and_then(|(ticket, auth)| auth.ticket_proof(&ticket));
    let ticket = super::poll::next_ticket();
    let slot = Arc::new(Mutex::new(Slot::default()));
    let read = |text| SessionName::read(text).filter(|name| name.lane(&app.node).is_some());
    let session = match asked.session.as_deref().map(read) {
        // Names nobody: the lane will say so in the stream, where an EventSource can hear it.
        Some(None) => Some(SessionName {
            lane: app.thread as u16,
            who: SubscriberKey {
                index: u32::MAX,
                generation: 0,
            },
            secret: [0; 16],
        }),
        Some(name) => name,
        None => None,
    };
    let lane = session
        .and_then(|name| name.lane(&app.node))
        .unwrap_or(&app.node.lanes[app.thread])
        .clone();
    lane.send(LaneCommand::Events(Box::new(Open {
        session,
        entries: caller.sift(asked.objects.unwrap_or_default(), &app.node.metrics),
        cursor: last.or_else(|| asked.cursor.as_deref().map(without_proof).map(str::to_owned)),
        trace: super::poll::wants_trace(head.uri.query()),
        peer: super::websocket::peer_of(&head.extensions),
        caller,
        place,
        sink: EventsSink {
            ticket,
            slot: Arc::clone(&slot),
            who: None,
            rest: Bytes::new(),
            proof: proof.map(Into::into),
        },
    })));
    let mut response = Response::new(Body::new(EventsBody { slot, lane, ticket }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Understood by nginx and those who follow it: do not gather the stream.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// Opens a stream in its lane.
pub(super) fn open(shell: &Rc<Shell>, open: Open) {
    let Open {
        session,
        entries,
        cursor,
        trace,
        peer,
        caller,
        place,
        mut sink,
    } = open;
    let now = clock::now();
    let mut first = Vec::new();
    codec::retry(&mut first, 1000 + shell.jitter_ms() % 2000);
    let kind = SinkKind::Stream(Encoding::EventStream);
    let who = match session {
        None => {
            let who = shell.with(|lane, _| lane.connect(now, kind, trace));
            sink.who = Some(who);
            shell.ticket(sink.ticket, who);
            shell.enter(who, Sink::Events(sink), peer);
            who
        }
        Some(name) => {
            sink.who = Some(name.who);
            let slot = Arc::clone(&sink.slot);
            let Some(who) = shell.attach(name, &caller, sink, cursor.as_deref(), trace) else {
                codec::session_unknown(&mut first);
                let mut gone = EventsSink {
                    ticket: 0,
                    slot,
                    who: None,
                    rest: Bytes::new(),
                    proof: None,
                };
                gone.put(Bytes::from(first));
                gone.end();
                return;
            };
            who
        }
    };
    shell.step(|state| state.age_from_now(who));
    if let Caller::Known(identity) = caller {
        shell.step(|state| state.known(who, identity, place));
    }
    let limits = &shell.node.config.limits;
    let connection = connection_name(shell.thread, who);
    let hello = Hello {
        connection: &connection,
        node: &shell.node.name,
        ping_ms: limits.ping_ms.min(15_000),
        limits: Limits {
            objects: limits.objects_per_connection,
            frame_bytes: limits.client_frame_bytes,
        },
    };
    codec::hello(Encoding::EventStream, &mut first, &hello);
    shell.with(|lane, _| lane.respond(who, |_, reply| reply.extend_from_slice(&first)));
    if session.is_some() {
        shell.withdraw(who);
    }
    if !shell.turn_away(who) && (session.is_none() || !entries.is_empty()) {
        let page = Page {
            id: None,
            entries,
            cursor,
            more: false,
        };
        if let Err(error) = shell.with(|lane, out| lane.subscribe(now, who, page, out)) {
            tracing::warn!(%error, "an event stream was not subscribed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_ends_with_the_proof_and_nothing_else_does() {
        let told = b"event: hello\ndata: {}\n\ndata: {\"object\":\"id: x\"}\n\nid: abc\n\n:\n\nid: def\n\n";
        let proven = with_proof(told, "P-_9");
        let expected =
            "event: hello\ndata: {}\n\ndata: {\"object\":\"id: x\"}\n\nid: abc.P-_9\n\n:\n\nid: def.P-_9\n\n";
        assert_eq!(std::str::from_utf8(&proven), Ok(expected));
        assert_eq!(
            (without_proof("abc.P-_9"), without_proof("abc"), without_proof("")),
            ("abc", "abc", "")
        );
    }
}
