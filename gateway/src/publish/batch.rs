//! One change or a list of them: read, dealt out to the owners, and merged back in the publisher's order.

use super::answer::{ChangeError, Outcome, Results, Told};
use super::{Form, Terms, clustered, failed, hashed, not_applied};
use crate::auth::Caller;
use crate::owner::{Begun, PublishFailure, count_failure};
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Metrics;
use axum::response::Response;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use tidings_protocol::client::{PublishBody, parse_publish_json, parse_publish_msgpack, parse_publish_query};
use tidings_protocol::error::{Applied, Code};
use tidings_protocol::{Epoch, HashKey, ObjectHash, Problem, ShardId};
use tidings_router::access::Action;
use tidings_router::owner::{Publish, Published};

/// What reading a body takes; free of the request, so that it can happen on another thread.
#[derive(Debug)]
pub(super) struct Reading {
    key: HashKey,
    caller: Caller,
    metrics: Arc<Metrics>,
    idempotency: Option<Bytes>,
    most: usize,
}

/// The changes of a request, ready for their owners.
#[derive(Debug)]
pub(super) struct Changes {
    changes: Vec<Result<Publish, Problem>>,
    single: bool,
}

impl Reading {
    pub(super) fn new(app: &App, caller: &Caller, idempotency: Option<Bytes>) -> Self {
        let most = usize::try_from(app.node.live().limits.publish_changes).unwrap_or(usize::MAX);
        Self {
            key: app.node.key,
            caller: caller.clone(),
            metrics: Arc::clone(&app.node.metrics),
            idempotency,
            most,
        }
    }

    pub(super) fn query(&self, query: &str) -> Result<Changes, Problem> {
        Ok(self.hash(parse_publish_query(query, self.most)?))
    }

    pub(super) fn body(&self, form: Form, bytes: &[u8]) -> Result<Changes, Problem> {
        Ok(self.hash(match form {
            Form::MessagePack => parse_publish_msgpack(bytes, self.most)?,
            Form::Json | Form::Lines => parse_publish_json(bytes, self.most)?,
        }))
    }

    fn hash(&self, body: PublishBody<'_>) -> Changes {
        let single = body.single;
        let changes = body.changes.into_iter().enumerate().map(|(place, change)| {
            let change = change?;
            self.caller.check(Action::Publish, &change.object, &self.metrics)?;
            Ok(hashed(&self.key, change, self.idempotency.as_deref(), place as u64))
        });
        Changes {
            changes: changes.collect(),
            single,
        }
    }
}

/// Publishes the changes and says what became of them.
pub(super) async fn answer(app: &App, terms: &Terms, changes: Changes) -> Result<Response, Refusal> {
    if !changes.single {
        return several(app, terms, changes.changes).await;
    }
    match changes.changes.into_iter().next() {
        Some(Ok(change)) => one(app, terms, change).await,
        Some(Err(problem)) => {
            app.node.metrics.rejected.inc();
            Err(not_applied(problem))
        }
        None => Err(not_applied(Problem::new(Code::NoObjects, "no change"))),
    }
}

async fn one(app: &App, terms: &Terms, change: Publish) -> Result<Response, Refusal> {
    if let Some(control) = &app.node.control {
        return clustered::one(app, control, terms, change).await;
    }
    let object = change.object;
    let owner = &app.node.owners[app.node.owner_of(object)];
    let result = owner
        .publish(vec![change], terms.ack_level(), terms.deadline)
        .await
        .map_err(|failure| {
            count_failure(&app.node.metrics, failure);
            let (problem, applied) = failed(failure);
            Refusal::from(problem).applied(applied)
        })?;
    // As many results as changes.
    let published = result
        .first()
        .copied()
        .unwrap_or(Published::NotOwner(app.node.shards.shard(object)));
    if let (Published::Accepted(version), false) = (published, terms.options.trace) {
        app.node.metrics.published.inc();
        return Ok(terms.format.version(version));
    }
    let epochs = epochs(app, terms, &[object]).await;
    match outcome(app, published, object, epochs.as_ref()) {
        Outcome::Told(told) => Ok(terms.format.response(&told)),
        Outcome::Refused { .. } => Err(not_applied(no_owner(app.node.shards.shard(object)))),
    }
}

/// The changes for one owner, with their places in the request.
#[derive(Default)]
struct Share {
    changes: Vec<Publish>,
    places: Vec<usize>,
    begun: Option<Begun>,
    failure: Option<PublishFailure>,
}

async fn several(app: &App, terms: &Terms, changes: Vec<Result<Publish, Problem>>) -> Result<Response, Refusal> {
    let node = &app.node;
    if let Some(control) = &node.control {
        return clustered::several(app, control, terms, changes).await;
    }
    let mut results: Vec<Option<Outcome>> = Vec::with_capacity(changes.len());
    let mut objects = Vec::with_capacity(changes.len());
    let mut shares: Vec<Share> = node.owners.iter().map(|_| Share::default()).collect();
    for (place, change) in changes.into_iter().enumerate() {
        match change {
            Ok(change) => {
                objects.push(change.object);
                let share = &mut shares[node.owner_of(change.object)];
                share.changes.push(change);
                share.places.push(place);
                results.push(None);
            }
            Err(problem) => {
                node.metrics.rejected.inc();
                objects.push(ObjectHash(0));
                results.push(Some(Outcome::Refused {
                    error: ChangeError::new(problem, Applied::No),
                }));
            }
        }
    }
    // All owners begin before any is waited for.
    for (share, owner) in shares.iter_mut().zip(&node.owners) {
        if !share.changes.is_empty() {
            match owner
                .begin(std::mem::take(&mut share.changes), terms.ack_level(), terms.deadline)
                .await
            {
                Ok(begun) => share.begun = Some(begun),
                Err(failure) => share.failure = Some(failure),
            }
        }
    }
    let epochs = epochs(app, terms, &objects).await;
    let mut answered = results.iter().any(Option::is_some);
    let mut worst = None;
    for share in shares {
        let result = match (share.begun, share.failure) {
            (Some(begun), _) => begun.wait(terms.deadline).await,
            (None, Some(failure)) => Err(failure),
            (None, None) => continue,
        };
        match result {
            Ok(published) => {
                answered = true;
                for (place, published) in share.places.into_iter().zip(published) {
                    results[place] = Some(outcome(app, published, objects[place], epochs.as_ref()));
                }
            }
            Err(failure) => {
                count_failure(&node.metrics, failure);
                if !matches!(worst, Some(PublishFailure::OutcomeUnknown | PublishFailure::NotStored)) {
                    worst = Some(failure);
                }
                for place in share.places {
                    let (problem, applied) = failed(failure);
                    results[place] = Some(Outcome::Refused {
                        error: ChangeError::new(problem, applied),
                    });
                }
            }
        }
    }
    if let (false, Some(failure)) = (answered, worst) {
        let (problem, applied) = failed(failure);
        return Err(Refusal::from(problem).applied(applied));
    }
    Ok(terms.format.response(&Results {
        results: results.into_iter().flatten().collect(),
    }))
}

pub(super) fn outcome(
    app: &App,
    published: Published,
    object: ObjectHash,
    epochs: Option<&HashMap<ShardId, Epoch>>,
) -> Outcome {
    let shard = app.node.shards.shard(object);
    let traced = epochs.map(|epochs| (shard, epochs.get(&shard).copied()));
    let told = Told {
        shard: traced.map(|traced| traced.0),
        epoch: traced.and_then(|traced| traced.1),
        ..Told::default()
    };
    match published {
        Published::Accepted(version) => {
            app.node.metrics.published.inc();
            Outcome::Told(Told {
                version: Some(version),
                ..told
            })
        }
        Published::Duplicate(version) => {
            app.node.metrics.duplicates.inc();
            Outcome::Told(Told {
                version: version.known(),
                duplicate: true,
                ..told
            })
        }
        Published::NotOwner(shard) | Published::Paused(shard) => Outcome::Refused {
            error: ChangeError::new(no_owner(shard), Applied::No),
        },
    }
}

pub(super) fn no_owner(shard: ShardId) -> Problem {
    Problem::new(
        Code::NoOwner,
        format!("shard {shard} has no owner that gives versions now"),
    )
}

/// The epochs of the objects' shards, if the request asks to be traced.
pub(super) async fn epochs(app: &App, terms: &Terms, objects: &[ObjectHash]) -> Option<HashMap<ShardId, Epoch>> {
    if !terms.options.trace {
        return None;
    }
    if let Some(control) = &app.node.control {
        let view = control.view();
        let shards = objects.iter().map(|object| app.node.shards.shard(*object));
        let epochs = shards.filter_map(|shard| Some((shard, view.map.shard(shard)?.epoch)));
        return Some(epochs.collect());
    }
    let mut epochs = HashMap::new();
    for (thread, owner) in app.node.owners.iter().enumerate() {
        if objects.iter().any(|object| app.node.owner_of(*object) == thread)
            && let Some(report) = owner.report().await
        {
            epochs.extend(report.shards.into_iter().map(|(shard, epoch, _)| (shard, epoch)));
        }
    }
    Some(epochs)
}
