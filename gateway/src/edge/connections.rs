//! `/v1/connections` and `/v1/explain`: what an operator asks about subscribers.

use super::{Connected, Inspect, LaneCommand, connection_name, read_connection_name};
use crate::problem::Refusal;
use crate::server::App;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidings_protocol::id::check_object_id;
use tidings_protocol::{Code, Problem};
use tidings_router::edge::Explanation;
use tokio::time::Instant;

/// Connections in one answer, at most.
const PAGE: usize = 1_000;
/// Objects shown of one connection, at most.
const OBJECTS: usize = 10_000;

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/connections", get(list))
        .route("/v1/connections/{connection}", get(one).delete(close))
        .route("/v1/explain", get(explain))
}

#[derive(Serialize)]
struct View {
    connection: String,
    transport: &'static str,
    address: Option<String>,
    /// Who is behind it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    connected_ms: u64,
    objects: usize,
    pending: usize,
    resync: usize,
    told: u64,
    busy: bool,
    cursor_lag_ms: Option<u64>,
}

impl View {
    fn new(lane: usize, connected: &Connected) -> Self {
        let view = &connected.view;
        let lag_us = tidings_router::edge::Lane::cursor_lag_us(view, crate::clock::now());
        Self {
            connection: connection_name(lane, view.who),
            transport: view.transport,
            address: connected.peer.map(|peer| peer.to_string()),
            subject: connected.subject.as_ref().map(|subject| subject.name.to_string()),
            connected_ms: connected.for_us / 1000,
            objects: view.objects,
            pending: view.pending,
            resync: view.resync,
            told: view.told,
            busy: view.busy,
            cursor_lag_ms: lag_us.map(|us| us / 1000),
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct List {
    connections: Vec<View>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<List>, Refusal> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, format!("`limit` is from 1 to {PAGE}")).into());
    }
    let (first_lane, mut from) = match query.after.as_deref() {
        None => (0, 0),
        Some(text) => {
            let (lane, who) = named(text)?;
            (lane, who.index.saturating_add(1))
        }
    };
    let mut connections = Vec::new();
    for (number, lane) in app.node.lanes.iter().enumerate().skip(first_lane) {
        let at_most = limit - connections.len();
        let page = lane
            .ask(|reply| LaneCommand::Inspect(Inspect::Connections { from, at_most, reply }))
            .await;
        connections.extend(
            page.unwrap_or_default()
                .iter()
                .map(|connected| View::new(number, connected)),
        );
        if connections.len() == limit {
            break;
        }
        from = 0;
    }
    let after = (connections.len() == limit)
        .then(|| connections.last().map(|view| view.connection.clone()))
        .flatten();
    Ok(Json(List { connections, after }))
}

fn named(text: &str) -> Result<(usize, tidings_router::edge::SubscriberKey), Refusal> {
    read_connection_name(text).ok_or_else(|| Problem::new(Code::NotFound, "no such connection").into())
}

#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    view: View,
    watches: Vec<Box<str>>,
}

async fn one(State(app): State<App>, Path(connection): Path<String>) -> Result<Json<Details>, Refusal> {
    let (lane, who) = named(&connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    let question = |reply| {
        LaneCommand::Inspect(Inspect::Connection {
            who,
            objects: OBJECTS,
            reply,
        })
    };
    let (connected, watches) = handle.ask(question).await.flatten().ok_or_else(gone)?;
    Ok(Json(Details {
        view: View::new(lane, &connected),
        watches,
    }))
}

async fn close(State(app): State<App>, Path(connection): Path<String>) -> Result<StatusCode, Refusal> {
    let (lane, who) = named(&connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    match handle.ask(|reply| LaneCommand::Close { who, reply }).await {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) | None => Err(gone()),
    }
}

#[derive(Deserialize)]
struct ExplainQuery {
    connection: String,
    object: String,
}

#[derive(Serialize)]
struct Explained {
    /// One sentence: the answer.
    verdict: String,
    object: String,
    connection: View,
    subscription: Option<Subscription>,
    edge: EdgeState,
    owner: OwnerState,
}

#[derive(Serialize)]
struct Subscription {
    version: Option<u64>,
    registered: bool,
    pending: bool,
    resync: bool,
}

#[derive(Serialize)]
struct EdgeState {
    lane: usize,
    subscribers: usize,
    closed: u64,
}

#[derive(Serialize)]
struct OwnerState {
    node: String,
    shard: u16,
    epoch: u64,
    floor: u64,
    version: Option<u64>,
    interested: bool,
}

/// How long the owner of an object may take to answer what it knows.
const OWNER_ANSWERS: Duration = Duration::from_secs(2);

async fn explain(State(app): State<App>, Query(query): Query<ExplainQuery>) -> Result<Json<Explained>, Refusal> {
    check_object_id(&query.object).map_err(|error| Problem::new(Code::InvalidObject, format!("`object`: {error}")))?;
    let (lane, who) = named(&query.connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    let object: Box<str> = query.object.as_str().into();
    let explained = handle
        .ask(|reply| LaneCommand::Inspect(Inspect::Explain { who, object, reply }))
        .await;
    let explained = explained.flatten().ok_or_else(gone)?;
    let question = |reply| LaneCommand::Inspect(Inspect::Connection { who, objects: 0, reply });
    let (connected, _) = handle.ask(question).await.flatten().ok_or_else(gone)?;
    let hash = app.node.key.object(&query.object);
    let found = app.node.inspect(hash, Some(lane), Instant::now() + OWNER_ANSWERS).await;
    let found = found.ok_or_else(|| Refusal::new(Code::NoOwner, "no owner of the object's shard answers now"))?;
    let (inspected, interested) = (found.known, found.known.interested);
    let verdict = verdict(&explained, inspected.version.0, interested);
    let subscription = explained.subscription.map(|s| Subscription {
        version: s.version.known().map(|v| v.0),
        registered: s.registered,
        pending: s.pending,
        resync: s.resync,
    });
    Ok(Json(Explained {
        verdict,
        object: query.object,
        connection: View::new(lane, &connected),
        subscription,
        edge: EdgeState {
            lane,
            subscribers: explained.watchers,
            closed: explained.closed.0,
        },
        owner: OwnerState {
            node: app.node.name_of(found.node),
            shard: explained.shard.0,
            epoch: explained.epoch.0,
            floor: explained.floor.0,
            version: inspected.version.known().map(|v| v.0),
            interested,
        },
    }))
}

/// The chain from the subscription to the owner, as one sentence that names its first weak link.
fn verdict(explained: &Explanation, owner_version: u64, interested: bool) -> String {
    let Some(subscription) = &explained.subscription else {
        return "not subscribed: this connection does not watch the object".to_owned();
    };
    if !subscription.registered {
        return "not live yet: the owner of the object's shard has not answered the registration".to_owned();
    }
    if !interested {
        return "broken: the owner does not know that this lane watches the object; please report this".to_owned();
    }
    if subscription.resync {
        return "to be told: the subscriber will be told to fetch the object again".to_owned();
    }
    if subscription.pending {
        let why = if explained.connection.busy {
            "its socket does not take more"
        } else {
            "it is next to be written"
        };
        return format!("to be told: a newer version waits for the subscriber; {why}");
    }
    if owner_version == 0 {
        return "nothing to tell: no change of the object is known".to_owned();
    }
    if owner_version > subscription.version.0 {
        return "on its way: the owner has a newer version than this lane has heard of".to_owned();
    }
    format!("told: the subscriber knows version {owner_version} or newer, or knew it when it subscribed")
}
