//! What the console, and whoever else looks after a node, asks again and again: the figures that came since, the events that
//! came since, and the map in few bytes.

use super::Use;
use super::series::Columns;
use super::timeline::Event;
use crate::admin;
use crate::control;
use crate::node::Node;
use crate::problem::{Asked, Refusal};
use crate::server::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidings_protocol::{Code, NodeId, Problem};
use tidings_router::control::map::Process;

/// Events in one answer, at most.
const EVENTS: usize = 500;

/// What a node knows of itself only.
pub(crate) fn own_routes() -> axum::Router<App> {
    axum::Router::new().route("/v1/live", get(live))
}

pub(crate) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/cluster/figures", get(super::whole::figures))
        .route("/v1/cluster/events", get(events))
        .route("/v1/cluster/map", get(map))
}

pub(super) fn fresh(answer: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

#[derive(Deserialize)]
struct LiveQuery {
    span: Option<Span>,
    after: Option<u64>,
    /// In place of `after`: the points since this moment.
    since_ms: Option<u64>,
    /// 1: the newest point alone.
    newest: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Span {
    #[default]
    Minutes,
    Hour,
}

#[derive(Serialize)]
struct Live {
    node: Itself,
    cluster: Digest,
    series: Columns,
    limits: Vec<Use>,
    refused: BTreeMap<&'static str, u64>,
    /// The highest number of an event: while it stays, there are no new ones.
    events: u64,
    /// While it stays, the map is as it was.
    stamp: u64,
}

/// The node that answers.
#[derive(Serialize)]
struct Itself {
    name: String,
    release: &'static str,
    uptime_ms: u64,
    threads: usize,
    ready: bool,
    reasons: Vec<&'static str>,
    /// A lone node has no cluster to show.
    clustered: bool,
    /// Versions outlive the process.
    keeps: bool,
    now_ms: u64,
}

/// The cluster in a few words.
#[derive(Serialize)]
struct Digest {
    name: String,
    nodes: usize,
    alive: usize,
    leader: Option<String>,
    /// `null` where the node gives no versions by its roles, or is alone.
    lease_left_ms: Option<u64>,
}

async fn live(State(app): State<App>, Asked(query): Asked<LiveQuery>) -> Response {
    let node = &app.node;
    let reasons = admin::unready(node);
    let itself = Itself {
        name: node.name.clone(),
        release: env!("CARGO_PKG_VERSION"),
        uptime_ms: u64::try_from(node.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        threads: node.owners.len(),
        ready: reasons.is_empty(),
        reasons,
        clustered: node.control.is_some(),
        keeps: node.storage.is_some(),
        now_ms: crate::clock::now().wall_us / 1000,
    };
    let refused = node.metrics.refusals().filter(|(_, count)| *count > 0);
    let refused = refused.map(|(limit, count)| (limit.name(), count)).collect();
    let digest = digest(node);
    let memory = node.recent.memory();
    let series = match query.span.unwrap_or_default() {
        Span::Minutes => &memory.short,
        Span::Hour => &memory.long,
    };
    let series = match (query.newest, query.since_ms) {
        (Some(1), _) => series.newest(),
        (_, Some(since_ms)) => series.since(since_ms),
        (_, None) => series.columns(query.after.unwrap_or(0)),
    };
    fresh(Live {
        node: itself,
        cluster: digest,
        series,
        limits: memory.uses.clone(),
        refused,
        events: memory.timeline.number(),
        stamp: memory.stamp,
    })
}

fn digest(node: &Node) -> Digest {
    let name = node.config.cluster.name.clone();
    let Some(control) = &node.control else {
        return Digest {
            name,
            nodes: 1,
            alive: 1,
            leader: None,
            lease_left_ms: None,
        };
    };
    let view = control.view();
    let me = view.me.node;
    let alive = |id: NodeId| id == me || view.peers.get(&id).is_some_and(|peer| peer.alive);
    let lease_left_us = view.until_us.saturating_sub(crate::clock::mono_us());
    Digest {
        name,
        nodes: view.map.nodes().count(),
        alive: view.map.nodes().filter(|(id, _)| alive(*id)).count(),
        leader: view.leader.map(|leader| node.name_of((leader != me).then_some(leader))),
        lease_left_ms: node.config.roles().owner.then_some(lease_left_us.div_ceil(1000)),
    }
}

#[derive(Deserialize)]
struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Events {
    /// Newest first.
    events: Vec<Line>,
    /// To ask for what comes after.
    next: u64,
}

#[derive(Serialize)]
struct Line {
    id: u64,
    at_ms: u64,
    until_ms: u64,
    kind: super::timeline::Kind,
    weight: super::timeline::Weight,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards: Vec<u16>,
}

impl Line {
    fn new(event: &Event) -> Self {
        Self {
            id: event.id,
            at_ms: event.at_ms,
            until_ms: event.until_ms,
            kind: event.kind,
            weight: event.weight(),
            says: event.says(),
            node: event.node.clone(),
            other: event.other.clone(),
            shards: event.shards.iter().copied().collect(),
        }
    }
}

async fn events(State(app): State<App>, Asked(query): Asked<EventsQuery>) -> Result<Response, Refusal> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=EVENTS).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, format!("`limit` is from 1 to {EVENTS}")).into());
    }
    let memory = app.node.recent.memory();
    let events = memory.timeline.after(query.after.unwrap_or(0));
    let answer = Events {
        events: events.rev().take(limit).map(Line::new).collect(),
        next: memory.timeline.number(),
    };
    drop(memory);
    Ok(fresh(answer))
}

/// The map in columns. Nodes are named by their places in `ids`; -1 is nobody.
#[derive(Debug, Default, Serialize)]
struct Columned {
    ids: Vec<String>,
    owner: Vec<i32>,
    epoch: Vec<u64>,
    /// The version from which on the owner can vouch.
    floor: Vec<u64>,
    copies: Vec<Vec<i32>>,
    /// Copies that are being filled.
    filling: Vec<Vec<i32>>,
    moving: Vec<i32>,
    /// The owner lives and is the process that the cluster assigned it to.
    owned: Vec<bool>,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    cluster: admin::Cluster,
    map: Columned,
    /// How many copies a shard should have, its owner's among them.
    copies: u8,
    stamp: u64,
}

async fn map(State(app): State<App>) -> Response {
    let stamp = app.node.recent.memory().stamp;
    let mut cluster = admin::cluster_of(&app.node).await;
    let (map, copies) = match &app.node.control {
        Some(control) => columns(&control.view()),
        None => (alone(&cluster.take_shards()), 1),
    };
    _ = cluster.take_shards();
    fresh(Whole {
        cluster,
        map,
        copies,
        stamp,
    })
}

fn alone(shards: &[admin::ClusterShard]) -> Columned {
    let count = shards.len();
    Columned {
        ids: vec![String::new()],
        owner: vec![0; count],
        epoch: shards.iter().map(|shard| shard.epoch.0).collect(),
        floor: shards.iter().map(|shard| shard.floor.0).collect(),
        copies: vec![Vec::new(); count],
        filling: vec![Vec::new(); count],
        moving: vec![-1; count],
        owned: vec![true; count],
    }
}

fn columns(view: &control::View) -> (Columned, u8) {
    let map = &view.map;
    let mut ids: Vec<NodeId> = map.nodes().map(|(id, _)| id).collect();
    // Owners and copies that are gone may still be named.
    for (_, shard) in map.shards() {
        ids.extend(shard.owner.iter().chain(&shard.in_sync).map(|process| process.node));
    }
    ids.sort_unstable();
    ids.dedup();
    let place = |process: &Process| ids.binary_search(&process.node).map_or(-1, |place| place as i32);
    let places = |all: &[Process]| all.iter().map(place).collect::<Vec<_>>();
    let lives = |process: &Process| {
        let alive = process.node == view.me.node || view.peers.get(&process.node).is_some_and(|peer| peer.alive);
        alive && map.is_current(*process)
    };
    let shards = || map.shards().map(|(_, shard)| shard);
    let columned = Columned {
        owner: shards().map(|shard| shard.owner.as_ref().map_or(-1, place)).collect(),
        epoch: shards().map(|shard| shard.epoch.0).collect(),
        floor: shards().map(|shard| shard.floor.0).collect(),
        copies: shards().map(|shard| places(&shard.in_sync)).collect(),
        filling: shards().map(|shard| places(&shard.filling)).collect(),
        moving: shards().map(|shard| shard.moving.as_ref().map_or(-1, place)).collect(),
        owned: shards().map(|shard| shard.owner.as_ref().is_some_and(lives)).collect(),
        ids: ids.iter().map(ToString::to_string).collect(),
    };
    (columned, map.copies())
}
