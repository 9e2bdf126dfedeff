//! Finding subscribers among many, and paging through what one of them watches.
//!
//! A lane looks through its subscribers in pieces, between other work: with a hundred thousand of them nobody waits longer
//! than for one piece. It does not know what the answers look like.

use super::connections::{View, named, shown};
use super::{Connected, Inspect, LaneCommand, connection_name};
use crate::problem::{Asked, Refusal};
use crate::server::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tidings_protocol::id::check_object_id;
use tidings_protocol::{Code, Problem};
use tidings_router::edge::SubscriptionView;

/// Places of subscribers that a lane looks at before other work gets a turn.
pub(super) const PLACES_AT_ONCE: u32 = 4_096;
/// Connections, or objects of one, in one answer, at most.
const PAGE: usize = 1_000;

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/connections", get(list))
        .route("/v1/connections/{connection}/objects", get(objects))
}

/// What is searched for. Everything that is given must hold.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Part of the connection's name or address.
    search: Option<String>,
    transport: Option<String>,
    /// An object that it watches.
    pub(super) watching: Option<Box<str>>,
    /// 1: only those that have something to be told yet, or take no more.
    behind: Option<u8>,
}

impl Wanted {
    fn check(&self) -> Result<(), Refusal> {
        if let Some(object) = &self.watching {
            check_object_id(object)
                .map_err(|error| Problem::new(Code::InvalidObject, format!("`watching`: {error}")))?;
        }
        match self.transport.as_deref() {
            None | Some("websocket" | "sse" | "poll" | "session") => Ok(()),
            Some(_) => Err(field("`transport` is `websocket`, `sse`, `poll` or `session`")),
        }
    }

    pub(super) fn takes(&self, lane: usize, connected: &Connected) -> bool {
        let view = &connected.view;
        let behind = view.pending > 0 || view.resync > 0 || view.busy;
        let named = |text: &str| {
            connection_name(lane, view.who).contains(text)
                || connected.peer.is_some_and(|peer| shown(peer).contains(text))
        };
        (self.behind != Some(1) || behind)
            && self.transport.as_deref().is_none_or(|of| of == view.transport)
            && self.search.as_deref().is_none_or(named)
    }
}

fn field(detail: impl Into<String>) -> Refusal {
    Problem::new(Code::InvalidField, detail.into()).into()
}

/// By what the first connections are chosen out of all.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    Pending,
    Lag,
    Objects,
    Told,
    Oldest,
}

impl Order {
    /// Who has more comes first.
    fn rank(self, connected: &Connected) -> u64 {
        let view = &connected.view;
        match self {
            Self::Pending => (view.pending + view.resync) as u64,
            Self::Lag => tidings_router::edge::Lane::cursor_lag_us(view, crate::clock::now()).unwrap_or(0),
            Self::Objects => view.objects as u64,
            Self::Told => view.told,
            Self::Oldest => connected.for_us,
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<Order>,
    search: Option<String>,
    transport: Option<String>,
    watching: Option<Box<str>>,
    behind: Option<u8>,
}

#[derive(Serialize)]
struct List {
    connections: Vec<View>,
    /// Names the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// With `order`: how many there are in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
}

async fn list(State(app): State<App>, Asked(query): Asked<ListQuery>) -> Result<Json<List>, Refusal> {
    let limit = page(query.limit)?;
    let wanted = Arc::new(Wanted {
        search: query.search.filter(|text| !text.is_empty()),
        transport: query.transport,
        watching: query.watching,
        behind: query.behind,
    });
    wanted.check()?;
    let from = match query.after.as_deref() {
        None => (0, 0),
        Some(_) if query.order.is_some() => return Err(field("`after` goes without `order`: there are no pages then")),
        Some(text) => {
            let (lane, who) = named(text)?;
            (lane, who.index.saturating_add(1))
        }
    };
    match query.order {
        None => Ok(Json(first(&app, &wanted, from, limit).await)),
        Some(order) => Ok(Json(top(&app, &wanted, order, limit).await)),
    }
}

fn page(limit: Option<usize>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(100);
    if !(1..=PAGE).contains(&limit) {
        return Err(field(format!("`limit` is from 1 to {PAGE}")));
    }
    Ok(limit)
}

/// Walks over the subscribers of all lanes, from a place on, until `each` says that it is enough.
async fn walk(
    app: &App,
    wanted: &Arc<Wanted>,
    from: (usize, u32),
    mut each: impl FnMut(usize, Vec<Connected>) -> bool,
) {
    let (first_lane, mut place) = from;
    for (number, lane) in app.node.lanes.iter().enumerate().skip(first_lane) {
        let mut from = Some(std::mem::take(&mut place));
        while let Some(at) = from {
            let wanted = Arc::clone(wanted);
            let question = |reply| Inspect::Search {
                wanted,
                from: at,
                reply,
            };
            // A lane that has ended has no subscribers.
            let answer = lane.ask(|reply| LaneCommand::Inspect(question(reply))).await;
            let (found, next) = answer.unwrap_or_default();
            if !each(number, found) {
                return;
            }
            from = next;
        }
    }
}

/// The first of those wanted, in the order of their places.
async fn first(app: &App, wanted: &Arc<Wanted>, from: (usize, u32), limit: usize) -> List {
    let mut connections = Vec::new();
    walk(app, wanted, from, |lane, found| {
        let room = limit - connections.len();
        connections.extend(found.iter().take(room).map(|connected| View::new(lane, connected)));
        connections.len() < limit
    })
    .await;
    let after = (connections.len() == limit).then(|| connections.last().map(View::name));
    List {
        connections,
        after: after.flatten(),
        found: None,
    }
}

/// Those who come first by some order, out of all that are wanted.
async fn top(app: &App, wanted: &Arc<Wanted>, order: Order, limit: usize) -> List {
    let mut found = 0;
    let mut heap = BinaryHeap::new();
    let mut views = std::collections::HashMap::new();
    walk(app, wanted, (0, 0), |lane, page| {
        for connected in page {
            let key = (order.rank(&connected), found);
            found += 1;
            if heap.len() == limit && heap.peek().is_some_and(|Reverse(least)| key <= *least) {
                continue;
            }
            heap.push(Reverse(key));
            views.insert(key.1, (lane, connected));
            if heap.len() > limit
                && let Some(Reverse((_, out))) = heap.pop()
            {
                views.remove(&out);
            }
        }
        true
    })
    .await;
    let ordered = heap.into_sorted_vec().into_iter();
    let connections = ordered.filter_map(|Reverse((_, number))| views.remove(&number));
    List {
        connections: connections
            .map(|(lane, connected)| View::new(lane, &connected))
            .collect(),
        after: None,
        found: Some(found),
    }
}

/// Which objects of a subscriber are asked for.
#[derive(Debug)]
pub(crate) struct ObjectPage {
    pub(super) from: u32,
    pub(super) at_most: usize,
    search: Option<Box<str>>,
    /// Only those it has yet to be told of.
    behind: bool,
}

impl ObjectPage {
    pub(super) fn takes(&self, id: &str, subscription: &SubscriptionView) -> bool {
        let behind = subscription.pending || subscription.resync || !subscription.registered;
        (!self.behind || behind) && self.search.as_deref().is_none_or(|text| id.contains(text))
    }
}

#[derive(Deserialize)]
struct ObjectsQuery {
    after: Option<u32>,
    limit: Option<usize>,
    search: Option<Box<str>>,
    behind: Option<u8>,
}

#[derive(Serialize)]
struct Objects {
    objects: Vec<Watched>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u32>,
}

#[derive(Serialize)]
struct Watched {
    object: Box<str>,
    version: Option<u64>,
    registered: bool,
    pending: bool,
    resync: bool,
}

async fn objects(
    State(app): State<App>,
    Path(connection): Path<String>,
    Asked(query): Asked<ObjectsQuery>,
) -> Result<Json<Objects>, Refusal> {
    let page = ObjectPage {
        from: query.after.unwrap_or(0),
        at_most: page(query.limit)?,
        search: query.search.filter(|text| !text.is_empty()),
        behind: query.behind == Some(1),
    };
    let (lane, who) = named(&connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    let question = |reply| Inspect::Subscriptions { who, page, reply };
    let answer = handle.ask(|reply| LaneCommand::Inspect(question(reply))).await;
    let (found, after) = answer.flatten().ok_or_else(gone)?;
    let objects = found.into_iter().map(|(object, one)| Watched {
        object,
        version: one.version.known().map(|version| version.0),
        registered: one.registered,
        pending: one.pending,
        resync: one.resync,
    });
    Ok(Json(Objects {
        objects: objects.collect(),
        after,
    }))
}
