//! `POST /v1/publish` in all its forms: from bytes to the owners and back to an answer.
//!
//! A change is hashed here once and from then on is a number; the ID's text does not leave this room. It does not know who
//! watches what.

mod answer;
mod batch;
mod body;
mod clustered;
mod dispatch;
mod lines;
mod stream;
#[cfg(test)]
mod tests;

use crate::auth::Caller;
use crate::owner::PublishFailure;
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Limit;
use answer::Format;
use axum::response::{IntoResponse, Response};
use batch::Reading;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use std::time::Duration;
use tidings_protocol::client::{Ack, Change, PublishOptions};
use tidings_protocol::error::{Applied, Code};
use tidings_protocol::hint::SharedHint;
use tidings_protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use tidings_protocol::mesh::AckLevel;
use tidings_protocol::{ObjectHash, Problem};
use tidings_router::owner::{Publish, PublishExtra};
use tokio::time::Instant;

/// The route.
pub const PATH: &str = "/v1/publish";

/// Bodies above this many bytes are read on another thread, so that this one's subscribers need not wait.
const READ_ELSEWHERE_BYTES: usize = 256 * 1024;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    MessagePack,
    Lines,
}

/// What one request says about all of its changes.
#[derive(Clone, Debug)]
struct Terms {
    options: PublishOptions,
    key: Option<Bytes>,
    deadline: Instant,
    timeout: Duration,
    format: Format,
}

impl Terms {
    fn ack_level(&self) -> AckLevel {
        match self.options.ack {
            Ack::Accepted => AckLevel::Accepted,
            Ack::Replicated => AckLevel::Replicated,
            Ack::Durable => AckLevel::Durable,
        }
    }
}

/// Answers one publish.
pub async fn answer(app: &App, caller: &Caller, request: Request<Incoming>) -> Response {
    if request.method() != Method::POST {
        let detail = format!("{PATH} takes POST, not {}", request.method());
        let mut response = Refusal::new(Code::MethodNotAllowed, detail)
            .applied(Applied::No)
            .closing_if(!request.body().is_end_stream())
            .into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    match publish(app, caller, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn publish(app: &App, caller: &Caller, request: Request<Incoming>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let unread = !body.is_end_stream();
    let (terms, form) = terms(app, query, &parts.headers).map_err(|problem| not_applied(problem).closing_if(unread))?;
    if form == Form::Lines {
        return stream::answer(app, caller, &terms, body).await;
    }
    let reading = Reading::new(app, caller, terms.key.clone());
    if !unread {
        return batch::answer(app, &terms, reading.query(query).map_err(not_applied)?).await;
    }
    let bytes = body::whole(app, body, parts.headers.contains_key(EXPECT)).await?;
    if names_objects(query) {
        let detail = "objects are named in the body and in the query: choose one";
        return Err(not_applied(Problem::new(Code::BadRequest, detail)));
    }
    let changes = if bytes.len() > READ_ELSEWHERE_BYTES {
        let read = tokio::task::spawn_blocking(move || reading.body(form, &bytes)).await;
        read.map_err(|_| not_applied(Problem::new(Code::Internal, "reading the body failed")))?
    } else {
        reading.body(form, &bytes)
    };
    batch::answer(app, &terms, changes.map_err(|problem| counted(app, problem))?).await
}

fn terms(app: &App, query: &str, headers: &HeaderMap) -> Result<(Terms, Form), Problem> {
    let options = if query.is_empty() {
        PublishOptions::default()
    } else {
        PublishOptions::from_query(query)?
    };
    // In a cluster the owners say so, wherever they are.
    if options.ack == Ack::Durable && app.node.storage.is_none() && app.node.control.is_none() {
        return Err(no_disk());
    }
    let live = app.node.live();
    let limits = &live.limits;
    let timeout_ms = options
        .timeout_ms
        .unwrap_or(limits.publish_timeout_ms)
        .min(limits.publish_timeout_ms_max);
    let timeout = Duration::from_millis(timeout_ms);
    let form = form(headers)?;
    let key = idempotency_key(headers)?;
    let format = Format::of(headers, form == Form::MessagePack);
    Ok((
        Terms {
            options,
            key,
            deadline: Instant::now() + timeout,
            timeout,
            format,
        },
        form,
    ))
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Form::Json);
    };
    // Parameters such as a charset change nothing: all forms are UTF-8 by definition.
    let media = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let one_of = |names: &[&str]| names.iter().any(|name| media.eq_ignore_ascii_case(name));
    // The last is what `curl -d` says of everything. A form that a foreign page submits is stopped by its `Origin`.
    if one_of(&["application/json", "application/x-www-form-urlencoded"]) {
        Ok(Form::Json)
    } else if one_of(&["application/x-ndjson", "application/ndjson", "application/jsonl"]) {
        Ok(Form::Lines)
    } else if one_of(&[
        "application/msgpack",
        "application/x-msgpack",
        "application/vnd.msgpack",
    ]) {
        Ok(Form::MessagePack)
    } else {
        let detail = "Content-Type must be application/json, application/x-ndjson or application/msgpack";
        Err(Problem::new(Code::UnsupportedMediaType, detail))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Bytes>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let fine = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&bytes.len()) && bytes.iter().all(|b| (0x20..0x7f).contains(b));
    if !fine || values.next().is_some() {
        let detail = format!(
            "`Idempotency-Key` is given once and has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} printable ASCII characters"
        );
        return Err(Problem::new(Code::InvalidField, detail));
    }
    Ok(Some(Bytes::copy_from_slice(bytes)))
}

fn names_objects(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("object"))
}

/// A change as its owner takes it. `place` is the change's place in the request.
fn hashed(key: &tidings_protocol::HashKey, change: Change<'_>, idempotency: Option<&[u8]>, place: u64) -> Publish {
    let object = key.object(&change.object);
    if change.hint.is_none() && change.revision.is_none() && idempotency.is_none() {
        return Publish { object, extra: None };
    }
    let id = change.object.as_bytes();
    let extra = PublishExtra {
        hint: change.hint.map(SharedHint::new),
        revision: change
            .revision
            .map(|revision| (of_shard(key.wide(&[b"rev", id]), object), revision)),
        idempotency: idempotency.map(|secret| of_shard(key.wide(&[secret, &place.to_le_bytes(), id]), object)),
    };
    Publish {
        object,
        extra: Some(Box::new(extra)),
    }
}

/// The low 16 bits of a wide key are the top bits of its object's hash: they name its shard, so that what is kept on disk
/// under the key finds its owner again.
fn of_shard(key: u128, object: ObjectHash) -> u128 {
    key & !0xffff | u128::from(object.0 >> 48)
}

fn not_applied(problem: Problem) -> Refusal {
    Refusal::from(problem).applied(Applied::No)
}

/// A refusal of a whole body, counted under its limit if one was reached.
fn counted(app: &App, problem: Problem) -> Refusal {
    if problem.code == Code::TooManyChanges {
        app.node.metrics.refused(Limit::PublishChanges);
    }
    app.node.metrics.rejected.inc();
    not_applied(problem)
}

fn no_disk() -> Problem {
    let detail = "`durable` needs an owner that keeps changes on disk; this one has them in memory only";
    Problem::new(Code::AckUnavailable, detail)
}

/// What a publisher is told when an owner did not answer.
fn failed(failure: PublishFailure) -> (Problem, Applied) {
    match failure {
        PublishFailure::Overloaded => {
            let detail =
                "the owner of the object has more work than it can queue (limits.owner_queue, limits.forward_bytes)";
            (Problem::new(Code::Overloaded, detail), Applied::No)
        }
        PublishFailure::StorageFails => {
            let detail = "the disk does not take what is written; the node tries again every second";
            (Problem::new(Code::StorageUnavailable, detail), Applied::No)
        }
        PublishFailure::NoDisk => (no_disk(), Applied::No),
        PublishFailure::NotStored => {
            let detail =
                "the disk did not take the change: it was told to subscribers, and may be lost if the node stops now";
            (Problem::new(Code::StorageUnavailable, detail), Applied::Unknown)
        }
        PublishFailure::OutcomeUnknown => {
            let detail =
                "no answer within the deadline (timeout_ms): it may have happened. Repeat it with an Idempotency-Key";
            (Problem::new(Code::OutcomeUnknown, detail), Applied::Unknown)
        }
    }
}
