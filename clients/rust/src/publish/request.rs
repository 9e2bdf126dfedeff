//! Requests over HTTP/1.1: how they are said, sent and answered.

use super::change::{Ack, NewChange};
use super::error::{ChangeError, PublishError, RequestError, message};
use super::tries::{Next, Tries};
use crate::address::encode;
use crate::net::{Body, Failure, Net, Wire, json, random, whole};
use crate::wire::{self, Outcome, ProblemDocument};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidings_protocol::error::Applied;
use tidings_protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use tidings_protocol::{Epoch, ShardId, Version};
use tokio::time::{Instant, sleep, timeout_at};

/// Connections at rest that are kept for the next request.
const KEPT: usize = 16;
/// What the server's own answer "too late" may take on its way.
const ANSWER_SLACK: Duration = Duration::from_millis(250);
/// Changes of a stream that go out together if they are there together.
const STREAM_CHUNK: usize = 64;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The change's version; of a duplicate, the version that the object has.
    pub version: Option<Version>,
    /// It was known already, by its key or its revision: nobody is told again.
    pub duplicate: bool,
    /// Where the version came from.
    pub trace: Option<(ShardId, Epoch)>,
}

impl From<wire::Told> for Published {
    fn from(told: wire::Told) -> Self {
        Self {
            version: told.version,
            duplicate: told.duplicate,
            trace: told.shard.zip(told.epoch),
        }
    }
}

/// What became of a stream of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSum {
    /// Changes that were taken.
    pub accepted: u64,
    /// Changes that were refused.
    pub rejected: u64,
    /// Those among the taken that were known already.
    pub duplicates: u64,
    /// The first hundred refusals, each with its place in the stream, counted from 1.
    pub errors: Vec<(u64, ChangeError)>,
    /// The highest version.
    pub version: Option<Version>,
}

/// What a server knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// Its ID.
    pub object: String,
    /// Its newest version; `None`: none is known.
    pub version: Option<Version>,
    /// Its shard.
    pub shard: Option<ShardId>,
    /// Which of the shard's owners answers.
    pub epoch: Option<Epoch>,
    /// Below this version the owner cannot vouch for the shard.
    pub floor: Option<Version>,
    /// The owner's name.
    pub owner: Option<String>,
    /// How many watch it there.
    pub subscribers: Option<u64>,
}

/// The connections for requests that a client's clones share.
#[derive(Debug)]
pub(crate) struct Requests {
    net: Net,
    timeout: Duration,
    kept: Mutex<Vec<Wire>>,
    /// The server that answered last.
    server: AtomicUsize,
}

/// How a publish is to be done.
#[derive(Clone, Debug)]
struct How {
    ack: Ack,
    key: Option<String>,
    timeout: Duration,
    retry_unknown: bool,
    trace: bool,
}

impl Requests {
    pub(crate) fn new(net: Net, timeout: Duration) -> Self {
        let server = (random() % net.servers.len().max(1) as u64) as usize;
        Self {
            net,
            timeout,
            kept: Mutex::new(Vec::new()),
            server: AtomicUsize::new(server),
        }
    }

    async fn wire(&self, server: usize) -> Result<Wire, Failure> {
        loop {
            let kept = {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.retain(|wire| !wire.is_closed());
                kept.iter()
                    .position(|wire| wire.server == server)
                    .map(|place| kept.swap_remove(place))
            };
            match kept {
                None => return self.net.open(server).await,
                Some(mut wire) => {
                    if wire.is_ready().await {
                        return Ok(wire);
                    }
                }
            }
        }
    }

    fn keep(&self, wire: Wire) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !wire.is_closed() && kept.len() < KEPT {
            kept.push(wire);
        }
    }

    /// One try. `sent` becomes true when the server may have heard of it.
    async fn once(
        &self,
        server: usize,
        method: Method,
        route: &str,
        headers: HeaderMap,
        body: Body,
        sent: &mut bool,
    ) -> Result<Bytes, Failure> {
        let request = self.net.request(server, method, route, headers, body)?;
        let mut wire = self.wire(server).await?;
        *sent = true;
        let answer = wire.ask(request).await;
        // After a cut nothing follows; after an answer another request may.
        if !matches!(answer, Err(Failure::Cut(_) | Failure::Unreachable(_))) {
            self.keep(wire);
        }
        answer
    }

    /// Tries until there is an answer, the time is over, or another try might do harm.
    async fn publish(&self, how: &How, body: Vec<u8>) -> Result<Bytes, PublishError> {
        let deadline = Instant::now() + how.timeout;
        let body = Bytes::from(body);
        let harmless = how.key.is_some() || how.retry_unknown;
        let mut server = self.server.load(Ordering::Relaxed);
        let mut tries = Tries::new(self.net.servers.len(), server, harmless, random());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let route = how.route(left);
            let headers = how.headers("application/json").map_err(PublishError::Invalid)?;
            let mut sent = false;
            let once = self.once(server, Method::POST, &route, headers, whole(body.clone()), &mut sent);
            let failure = match timeout_at(deadline + ANSWER_SLACK, once).await {
                Ok(Ok(answer)) => {
                    self.server.store(server, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(tries.too_late(sent)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match tries.failed(&failure, left) {
                Next::Fail(error) => return Err(error),
                Next::Again(wait, next) => {
                    sleep(wait).await;
                    server = next;
                }
            }
        }
    }

    pub(crate) async fn object(&self, object: &str) -> Result<ObjectState, RequestError> {
        let deadline = Instant::now() + self.timeout;
        let route = format!("/v1/object?object={}", encode(object));
        let mut server = self.server.load(Ordering::Relaxed);
        let mut tries = Tries::new(self.net.servers.len(), server, true, random());
        loop {
            let mut sent = false;
            let once = self.once(
                server,
                Method::GET,
                &route,
                HeaderMap::new(),
                whole(Bytes::new()),
                &mut sent,
            );
            let failure = match timeout_at(deadline, once).await {
                Ok(Ok(body)) => {
                    let nonsense = |error: wire::WireError| RequestError::NoAnswer(error.to_string());
                    return wire::ObjectState::read(&body).map(ObjectState::from).map_err(nonsense);
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(RequestError::NoAnswer("not in time".to_owned())),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match (tries.failed(&failure, left), failure) {
                (Next::Again(wait, next), _) => {
                    sleep(wait).await;
                    server = next;
                }
                (Next::Fail(_), Failure::Refused { status, body, .. }) => {
                    let problem = ProblemDocument::read(&body);
                    return Err(RequestError::Refused {
                        code: problem.code.to_string(),
                        message: message(status, &problem),
                        status,
                    });
                }
                (Next::Fail(error), _) => return Err(RequestError::NoAnswer(error.to_string())),
            }
        }
    }
}

impl From<wire::ObjectState<'_>> for ObjectState {
    fn from(state: wire::ObjectState<'_>) -> Self {
        Self {
            object: state.object.to_string(),
            version: state.version,
            shard: state.shard,
            epoch: state.epoch,
            floor: state.floor,
            owner: state.owner.map(|owner| owner.to_string()),
            subscribers: state.subscribers,
        }
    }
}

impl How {
    fn new(timeout: Duration) -> Self {
        Self {
            ack: Ack::default(),
            key: None,
            timeout,
            retry_unknown: false,
            trace: false,
        }
    }

    fn route(&self, left: Duration) -> String {
        let timeout_ms = left.as_millis().clamp(1, 60_000);
        let trace = if self.trace { "&trace=1" } else { "" };
        format!("/v1/publish?ack={}&timeout_ms={timeout_ms}{trace}", self.ack.as_str())
    }

    fn headers(&self, kind: &'static str) -> Result<HeaderMap, String> {
        let mut headers = json();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(key) = &self.key {
            let printable = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            let value = HeaderValue::from_str(key).ok();
            let value = value.filter(|_| printable && (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()));
            let value = value.ok_or("an idempotency key has 1 to 255 printable ASCII characters")?;
            headers.insert(HeaderName::from_static("idempotency-key"), value);
        }
        Ok(headers)
    }
}

/// What all three kinds of publishing can be told.
macro_rules! said_of_publishing {
    () => {
        /// When it counts as published. [`Ack::Replicated`] unless said otherwise.
        pub fn ack(mut self, ack: Ack) -> Self {
            self.how.ack = ack;
            self
        }

        /// The answer says from which shard and epoch the version came.
        pub fn trace(mut self) -> Self {
            self.how.trace = true;
            self
        }

        /// Within this time it is answered, tries included: at most 60 s.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.how.timeout = timeout.min(Duration::from_secs(60));
            self
        }

        /// A repeat with the same key within five minutes notifies nobody: 1 to 255 printable ASCII characters. With a key,
        /// a try whose outcome is unknown is repeated until the time is over.
        pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
            self.how.key = Some(key.into());
            self
        }
    };
}

/// What can be told of those that are repeated.
macro_rules! said_of_repeating {
    () => {
        /// A random idempotency key, so that a try whose outcome is unknown can be repeated.
        pub fn idempotent(self) -> Self {
            let key = format!("{:016x}{:016x}", random(), random());
            self.idempotency_key(key)
        }

        /// A second notification does no harm: a try whose outcome is unknown is repeated even without a key.
        pub fn repeat_unknown(mut self) -> Self {
            self.how.retry_unknown = true;
            self
        }
    };
}

/// One change on its way; made by [`Client::publish`](crate::Client::publish).
#[derive(Debug)]
#[must_use = "nothing is published before `send`"]
pub struct Publish {
    requests: Arc<Requests>,
    change: NewChange,
    how: How,
}

impl Publish {
    pub(crate) fn new(requests: Arc<Requests>, change: NewChange) -> Self {
        let how = How::new(requests.timeout);
        Self { requests, change, how }
    }

    said_of_publishing!();
    said_of_repeating!();

    /// Publishes.
    ///
    /// # Errors
    /// Says whether it may have happened.
    pub async fn send(self) -> Result<Published, PublishError> {
        let mut body = Vec::new();
        self.change.check().map_err(PublishError::Invalid)?.write(&mut body);
        let answer = self.requests.publish(&self.how, body).await?;
        let told = wire::Told::read(&answer).map_err(|error| PublishError::Unknown(error.to_string()))?;
        Ok(told.into())
    }
}

/// Several changes on their way; made by [`Client::publish_batch`](crate::Client::publish_batch).
#[derive(Debug)]
#[must_use = "nothing is published before `send`"]
pub struct PublishBatch {
    requests: Arc<Requests>,
    changes: Vec<NewChange>,
    how: How,
}

impl PublishBatch {
    pub(crate) fn new(requests: Arc<Requests>, changes: Vec<NewChange>) -> Self {
        let how = How::new(requests.timeout);
        Self { requests, changes, how }
    }

    said_of_publishing!();
    said_of_repeating!();

    /// Publishes; gives what became of each change, in their order.
    ///
    /// # Errors
    /// If there is no answer to the whole. Says whether any of it may have happened. A change that makes no sense is an
    /// error of the whole, and nothing is sent.
    pub async fn send(self) -> Result<Vec<Result<Published, ChangeError>>, PublishError> {
        if self.changes.is_empty() {
            return Ok(Vec::new());
        }
        let checked = self.changes.iter().map(NewChange::check).collect::<Result<Vec<_>, _>>();
        let mut body = Vec::new();
        wire::changes(&mut body, checked.map_err(PublishError::Invalid)?);
        let answer = self.requests.publish(&self.how, body).await?;
        let unknown = |why: String| PublishError::Unknown(why);
        let results = wire::Results::read(&answer)
            .map_err(|error| unknown(error.to_string()))?
            .results;
        if results.len() != self.changes.len() {
            return Err(unknown("the server answered another number of changes".to_owned()));
        }
        let one = |outcome| match outcome {
            Outcome::Told(told) => Ok(told.into()),
            Outcome::Refused { error, applied } => Err(ChangeError::new(&error, applied)),
        };
        Ok(results.into_iter().map(one).collect())
    }
}

/// A stream of changes on its way; made by [`Client::publish_stream`](crate::Client::publish_stream).
#[derive(Debug)]
#[must_use = "nothing is published before `send`"]
pub struct PublishStream<S> {
    requests: Arc<Requests>,
    changes: S,
    how: How,
}

impl<S> PublishStream<S>
where
    S: Stream<Item = NewChange> + Send + 'static,
{
    pub(crate) fn new(requests: Arc<Requests>, changes: S) -> Self {
        let how = How::new(requests.timeout);
        Self { requests, changes, how }
    }

    said_of_publishing!();

    /// Publishes every change as it comes, until the stream ends. It may last as long as it makes progress; the timeout
    /// counts for each change. It is never repeated.
    ///
    /// # Errors
    /// If there is no answer to the whole: what was sent before then may have been published. A change that makes no sense
    /// ends it in the same way.
    pub async fn send(self) -> Result<StreamSum, PublishError> {
        let route = self.how.route(self.how.timeout);
        let headers = self
            .how
            .headers("application/x-ndjson")
            .map_err(PublishError::Invalid)?;
        let lines = self.changes.ready_chunks(STREAM_CHUNK).map(|changes| {
            let mut lines = Vec::new();
            for change in &changes {
                change.check().map_err(std::io::Error::other)?.write(&mut lines);
                lines.push(b'\n');
            }
            Ok(Frame::data(Bytes::from(lines)))
        });
        let server = self.requests.server.load(Ordering::Relaxed);
        let mut sent = false;
        let body = StreamBody::new(lines).boxed_unsync();
        let once = self
            .requests
            .once(server, Method::POST, &route, headers, body, &mut sent);
        let answer = match once.await {
            Ok(answer) => answer,
            Err(failure) => {
                let mut tries = Tries::new(1, 0, false, 0);
                return Err(match tries.failed(&failure, Duration::ZERO) {
                    Next::Fail(error) if !sent || error.applied() == Applied::Unknown => error,
                    // What was read before the refusal may have been taken.
                    Next::Fail(error) => PublishError::Unknown(error.to_string()),
                    Next::Again(..) => tries.too_late(sent),
                });
            }
        };
        let sum = wire::Sum::read(&answer).map_err(|error| PublishError::Unknown(error.to_string()))?;
        Ok(StreamSum {
            accepted: sum.accepted,
            rejected: sum.rejected,
            duplicates: sum.duplicates,
            version: sum.version,
            errors: sum.errors.iter().map(line).collect(),
        })
    }
}

fn line(failure: &wire::LineFailure<'_>) -> (u64, ChangeError) {
    let error = wire::Failure {
        code: failure.code.clone(),
        message: failure.message.clone(),
        retryable: failure.retryable,
    };
    (failure.line, ChangeError::new(&error, failure.applied))
}
