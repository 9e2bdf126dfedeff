//! `/v1/connections/{connection}`: one subscriber as an operator sees it, and its end.

use super::{Connected, Inspect, LaneCommand, connection_name, read_connection_name};
use crate::problem::{Asked, Refusal};
use crate::server::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tidings_protocol::{Code, Problem};
use tidings_router::edge::SubscriberKey;

/// Objects shown of one connection, at most.
const OBJECTS: usize = 10_000;

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new().route("/v1/connections/{connection}", get(one).delete(close))
}

/// One subscriber.
#[derive(Serialize)]
pub(super) struct View {
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
    pub(super) fn new(lane: usize, connected: &Connected) -> Self {
        let view = &connected.view;
        let lag_us = tidings_router::edge::Lane::cursor_lag_us(view, crate::clock::now());
        Self {
            connection: connection_name(lane, view.who),
            transport: view.transport,
            address: connected.peer.map(shown),
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

    pub(super) fn name(&self) -> String {
        self.connection.clone()
    }
}

/// An address as operators see it; its port only where it is known.
pub(super) fn shown(peer: SocketAddr) -> String {
    match peer.port() {
        0 => peer.ip().to_string(),
        _ => peer.to_string(),
    }
}

/// The lane and the place that a connection's name means.
pub(super) fn named(text: &str) -> Result<(usize, SubscriberKey), Refusal> {
    read_connection_name(text).ok_or_else(|| Problem::new(Code::NotFound, "no such connection").into())
}

#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    view: View,
    watches: Vec<Box<str>>,
}

#[derive(Deserialize)]
struct OneQuery {
    /// How many of the objects it watches are named.
    objects: Option<usize>,
}

async fn one(
    State(app): State<App>,
    Path(connection): Path<String>,
    Asked(query): Asked<OneQuery>,
) -> Result<Json<Details>, Refusal> {
    let (lane, who) = named(&connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    let question = |reply| {
        LaneCommand::Inspect(Inspect::Connection {
            who,
            objects: query.objects.unwrap_or(OBJECTS).min(OBJECTS),
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
