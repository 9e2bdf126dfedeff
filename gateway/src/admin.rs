//! What operators ask: is it alive, is it ready, what does it count, who owns what.

mod cluster;
mod families;
mod samples;
mod whole;

pub(crate) use cluster::{Cluster, ClusterShard, cluster_of, node_called};

use crate::auth::Caller;
use crate::control;
use crate::node::Node;
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Sample;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use std::time::Duration;
use tidings_protocol::client::query_pairs;
use tidings_protocol::error::Code;
use tidings_protocol::id::check_object_id;
use tidings_protocol::{Epoch, Problem, ShardId, Version};
use tidings_router::access::Action;
use tokio::time::Instant;

/// The routes of this room that tell everybody something.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/object", get(object))
}

/// Those of operators.
pub(crate) fn operators_routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics)).merge(cluster::routes())
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node is fit to serve.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<&'static str>,
}

/// Why a node is not fit to serve; empty if it is.
pub(crate) fn unready(node: &Node) -> Vec<&'static str> {
    let drains = node.control.as_ref().is_some_and(control::Handle::is_draining);
    let failing = node.storage.as_ref().is_some_and(crate::storage::Status::is_failing);
    let reasons = [
        (node.is_draining() || drains, "draining"),
        (failing, "storage_unavailable"),
        (node.cut_off.load(std::sync::atomic::Ordering::Relaxed), "cut_off"),
    ];
    reasons
        .into_iter()
        .filter_map(|(is, reason)| is.then_some(reason))
        .collect()
}

async fn readyz(State(app): State<App>, Extension(caller): Extension<Caller>) -> Response {
    let mut reasons = unready(&app.node);
    let ready = reasons.is_empty();
    if !caller.is_admin() {
        // Strangers learn whether, not why.
        reasons.clear();
    }
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(CACHE_CONTROL, "no-store")],
        Json(Readiness { ready, reasons }),
    )
        .into_response()
}

/// Whether somebody reads the older text format only. Who names none gets the newer one.
fn reads_classic_only(accept: Option<&HeaderValue>) -> bool {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let (mut gathered, mut lanes) = (Vec::new(), Vec::new());
    for (thread, owner) in app.node.owners.iter().enumerate() {
        if let Some(report) = owner.report().await {
            let epoch = report.shards.iter().map(|(_, epoch, _)| epoch.0).max();
            gathered.extend(samples::of_owner(thread, &report.stats, epoch.unwrap_or(0)));
            gathered.extend(samples::of_copies(thread, &report.copies));
        }
    }
    for (thread, lane) in app.node.lanes.iter().enumerate() {
        if let Some(stats) = lane.stats().await {
            gathered.extend(samples::of_lane(thread, &stats));
            lanes.push((thread, stats));
        }
    }
    // The text format wants all samples of one name together.
    gathered.sort_by_key(|sample: &Sample| sample.name);
    let more = samples::of_delays(&lanes) + &whole::of_cursors(&lanes) + &whole::of_node(&app.node);
    let text = app.node.metrics.encode(&gathered, &more);
    let (kind, text) = if reads_classic_only(headers.get(ACCEPT)) {
        ("text/plain; version=0.0.4; charset=utf-8", families::classic(&text))
    } else {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    };
    ([(CONTENT_TYPE, kind), (VARY, "Accept")], text).into_response()
}

/// What is known of one object.
#[derive(Debug, Serialize)]
struct Object {
    object: String,
    version: Option<Version>,
    shard: ShardId,
    epoch: Option<Epoch>,
    floor: Version,
    owner: String,
    /// On this node. For those who publish the object, and for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<usize>,
}

/// How long the owner of an object may take to answer what it knows.
const OWNER_ANSWERS: Duration = Duration::from_secs(2);

async fn object(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let name = only_object(query.as_deref().unwrap_or_default())?;
    let publishes = caller.is_admin() || caller.may(Action::Publish, &name);
    if !publishes {
        caller.check(Action::Subscribe, &name, &app.node.metrics)?;
    }
    let hash = app.node.key.object(&name);
    let shard = app.node.shards.shard(hash);
    let found = app.node.inspect(hash, None, Instant::now() + OWNER_ANSWERS).await;
    let found = found.ok_or_else(|| {
        let detail = format!("no owner of shard {shard} answers now");
        Refusal::new(Code::NoOwner, detail)
    })?;
    let mut subscribers = publishes.then_some(0);
    for lane in &app.node.lanes {
        if let Some(subscribers) = &mut subscribers {
            *subscribers += lane.watchers(&name).await;
        }
    }
    let answer = Object {
        version: found.known.version.known(),
        shard,
        epoch: Some(found.known.epoch),
        floor: found.known.floor,
        owner: app.node.name_of(found.node),
        subscribers,
        object: name,
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn only_object(query: &str) -> Result<String, Problem> {
    let mut found = None;
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        if name == "object" && found.replace(value.into_owned()).is_some() {
            return Err(Problem::new(Code::InvalidField, "`object` is given once"));
        }
    }
    let object = found.ok_or_else(|| Problem::new(Code::NoObjects, "name an object: ?object=…"))?;
    check_object_id(&object).map_err(|error| Problem::new(Code::InvalidObject, format!("`object`: {error}")))?;
    Ok(object)
}
