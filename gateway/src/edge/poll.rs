//! Long-poll and sessions.

use super::{LaneCommand, LaneHandle, PollCommand, PollReply, SessionName};
use crate::auth::{Caller, Denial};
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Limit;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidings_protocol::client::{EntryResult, PollRequest, SessionRequest};
use tidings_protocol::{Code, Problem};
use tidings_router::edge::PollPage;
use tokio::sync::oneshot;

/// How long a poll without cursor waits at least for the owners to say how its objects are: they do at once, or else it
/// would get a cursor that claims nothing.
const FIRST_WAIT_MS: u64 = 1_000;

/// How long a poll waits that does not say.
const WAIT_MS: u64 = 25_000;

static TICKETS: AtomicU64 = AtomicU64::new(1);

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/poll", get(from_query).post(from_body))
        .route("/v1/sessions", post(open_session))
}

/// A number for one poll or stream, never used twice in one process.
pub(super) fn next_ticket() -> u64 {
    TICKETS.fetch_add(1, Ordering::Relaxed)
}

/// Who makes the request.
pub(super) fn caller_of(extensions: &http::Extensions) -> Caller {
    // Put there before any route is asked.
    let nobody = || Caller::Nobody(Denial::Missing);
    extensions.get::<Caller>().cloned().unwrap_or_else(nobody)
}

/// A poll ends with its token, as a connection would.
fn longest_wait_ms(app: &App, caller: &Caller) -> u64 {
    let left_ms = caller
        .identity()
        .and_then(|identity| super::bearers::expires_in_ms(identity));
    match (left_ms, &app.node.auth) {
        (Some(left_ms), Some(auth)) => {
            left_ms.saturating_add(u64::try_from(auth.grace().as_millis()).unwrap_or(u64::MAX))
        }
        _ => u64::MAX,
    }
}

/// Whether the query asks for shard and epoch with each change.
pub(super) fn wants_trace(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        form_urlencoded::parse(query.as_bytes()).any(|(k, v)| k == "trace" && v != "0" && v != "false")
    })
}

pub(super) fn is_msgpack(headers: &HeaderMap, name: HeaderName) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/msgpack"))
}

/// The body of a subscriber's request, within its limit and in time.
pub(super) async fn read_body(app: &App, request: Request) -> Result<(Parts, Bytes), Refusal> {
    let limits = app.node.live().limits.clone();
    let (head, body) = request.into_parts();
    let collect = Limited::new(body, limits.poll_body_bytes as usize).collect();
    match tokio::time::timeout(Duration::from_millis(limits.body_idle_ms), collect).await {
        Ok(Ok(body)) => Ok((head, body.to_bytes())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            app.node.metrics.refused(Limit::PollBodyBytes);
            let most = limits.poll_body_bytes;
            Err(Refusal::new(
                Code::TooLarge,
                format!("the body has at most {most} bytes (limits.poll_body_bytes)"),
            )
            .closing())
        }
        Ok(Err(error)) => {
            Err(Refusal::new(Code::BadRequest, format!("the body did not arrive whole: {error}")).closing())
        }
        Err(_) => Err(Refusal::new(
            Code::RequestTimeout,
            "the body did not arrive in time (limits.body_idle_ms)",
        )
        .closing()),
    }
}

async fn from_query(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let limit = app.node.config.limits.objects_per_connection as usize;
    let (head, _) = request.into_parts();
    let asked = PollRequest::from_query(head.uri.query().unwrap_or_default(), limit)?;
    poll(&app, &head, asked).await
}

async fn from_body(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let limit = app.node.config.limits.objects_per_connection as usize;
    let (head, body) = read_body(&app, request).await?;
    let asked = match is_msgpack(&head.headers, CONTENT_TYPE) {
        true => PollRequest::from_msgpack(&body, limit)?,
        false => PollRequest::from_json(&body, limit)?,
    };
    poll(&app, &head, asked).await
}

/// Tells the lane that nobody waits for the poll any more, if it goes without an answer.
struct Waiting {
    lane: LaneHandle,
    ticket: u64,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.lane.send(LaneCommand::Gone { ticket: self.ticket });
        }
    }
}

async fn poll(app: &App, head: &Parts, asked: PollRequest) -> Result<Response, Refusal> {
    let limits = app.node.live().limits.clone();
    if asked.session.is_none() && asked.objects.as_ref().is_none_or(Vec::is_empty) {
        return Err(Problem::new(
            Code::NoObjects,
            "`objects` must name at least one object, or `session` a session",
        )
        .into());
    }
    let wait_ms = asked.wait_ms.unwrap_or(WAIT_MS);
    if wait_ms > limits.poll_wait_ms_max {
        let most = limits.poll_wait_ms_max;
        app.node.metrics.refused(Limit::PollWait);
        return Err(Problem::new(Code::InvalidField, format!("`wait_ms` is at most {most}")).into());
    }
    let unknown = || {
        Refusal::new(
            Code::SessionUnknown,
            "`session` is not known here: send the list of objects again",
        )
    };
    let session = match asked.session.as_deref() {
        Some(text) => Some(SessionName::read(text).ok_or_else(unknown)?),
        None => None,
    };
    let lane = match &session {
        Some(name) => name.lane(&app.node).ok_or_else(unknown)?,
        None => &app.node.lanes[app.thread],
    };
    let mut entries = asked.objects.unwrap_or_default();
    entries.extend(asked.add);
    // Whoever asks for a version is told within its own wait that it did not come.
    let asks_for_version = |entry: &EntryResult| entry.as_ref().is_ok_and(|entry| entry.at_least.is_some());
    let wait_ms = if asked.cursor.is_none() && !entries.iter().any(asks_for_version) {
        wait_ms.max(FIRST_WAIT_MS)
    } else {
        wait_ms
    };
    let remove = asked.remove.into_iter().flatten().map(|entry| entry.object).collect();
    let page = PollPage {
        entries,
        remove,
        cursor: asked.cursor,
        trace: wants_trace(head.uri.query()),
    };
    let caller = caller_of(&head.extensions);
    let wait_ms = wait_ms.min(longest_wait_ms(app, &caller));
    let (reply, mut answer) = oneshot::channel();
    let ticket = next_ticket();
    let peer = super::websocket::peer_of(&head.extensions);
    lane.send(LaneCommand::Poll(Box::new(PollCommand {
        ticket,
        session,
        page,
        peer,
        caller,
        reply,
    })));
    let mut waiting = Waiting {
        lane: lane.clone(),
        ticket,
        answered: false,
    };
    let outcome = match tokio::time::timeout(Duration::from_millis(wait_ms), &mut answer).await {
        Ok(outcome) => outcome,
        Err(_) => {
            waiting.lane.send(LaneCommand::PollOver { ticket });
            answer.await
        }
    };
    waiting.answered = true;
    match outcome {
        Ok(PollReply::Answer(answer)) => {
            let packed = is_msgpack(&head.headers, ACCEPT)
                || (is_msgpack(&head.headers, CONTENT_TYPE) && !head.headers.contains_key(ACCEPT));
            Ok(if packed {
                typed(StatusCode::OK, "application/msgpack", answer.to_msgpack())
            } else {
                typed(StatusCode::OK, "application/json", answer.to_json())
            })
        }
        Ok(PollReply::Superseded) => Err(Refusal::new(
            Code::PollSuperseded,
            "a newer poll or stream of this session took over",
        )),
        Ok(PollReply::SessionUnknown) => Err(unknown()),
        Ok(PollReply::Denied(denial)) => Err(denial.refusal()),
        Err(_) => Err(Refusal::new(Code::Draining, "the server is about to stop")),
    }
}

fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize)]
struct Opened<'a> {
    session: String,
    refused: Vec<RefusedObject<'a>>,
}

#[derive(Serialize)]
struct RefusedObject<'a> {
    object: &'a str,
    error: &'a Problem,
}

async fn open_session(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let limit = app.node.config.limits.objects_per_connection as usize;
    let (head, body) = read_body(&app, request).await?;
    let asked = match is_msgpack(&head.headers, CONTENT_TYPE) {
        true => SessionRequest::from_msgpack(&body, limit)?,
        false => SessionRequest::from_json(&body, limit)?,
    };
    if asked.objects.is_empty() {
        return Err(Problem::new(Code::NoObjects, "`objects` must name at least one object").into());
    }
    let caller = caller_of(&head.extensions);
    let objects = caller.sift(asked.objects, &app.node.metrics);
    let refused: Vec<_> = objects
        .iter()
        .filter_map(|entry| entry.as_ref().err().cloned())
        .collect();
    let entries = objects.into_iter().filter(Result::is_ok).collect();
    let lane = &app.node.lanes[app.thread];
    let session = lane
        .ask(|reply| LaneCommand::OpenSession { caller, entries, reply })
        .await
        .filter(|name| !name.is_empty());
    let Some(session) = session else {
        return Err(Refusal::new(
            Code::Draining,
            "no session could be made: the server is about to stop",
        ));
    };
    let refused = refused
        .iter()
        .map(|(object, error)| RefusedObject { object, error })
        .collect();
    let body = Opened { session, refused };
    let body = serde_json::to_vec(&body).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(typed(StatusCode::CREATED, "application/json", body))
}
