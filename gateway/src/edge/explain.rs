//! `/v1/explain`: why a subscriber did or did not hear of an object.
//!
//! The way of a change has links: the subscription, the lane, its interest at the owner, the owner, the versions of both,
//! what is closed, the cursor, the socket. Each is shown with a figure and a plain sentence; the verdict names the first weak
//! one. It does not decide anything.

use super::connections::{View, named};
use super::{Inspect, LaneCommand};
use crate::problem::{Asked, Refusal};
use crate::server::App;
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidings_protocol::id::check_object_id;
use tidings_protocol::mesh::Known;
use tidings_protocol::{Code, Problem, Version};
use tidings_router::edge::Explanation;
use tokio::time::Instant;

/// How long the owner of an object may take to answer what it knows.
const OWNER_ANSWERS: Duration = Duration::from_secs(2);
/// What is closed this far behind the clock lags. Owners close several times a second.
const LAGS_US: u64 = 2_000_000;

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new().route("/v1/explain", get(explain))
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
    /// The way of a change, link by link.
    chain: Vec<Link>,
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
    /// `null`: no owner answers.
    node: Option<String>,
    shard: u16,
    epoch: u64,
    floor: u64,
    version: Option<u64>,
    interested: Option<bool>,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    /// As it should be.
    Fine,
    /// Something is on its way.
    Waiting,
    /// Here it ends.
    Broken,
    /// It says nothing, because of a link before it.
    Idle,
}

/// One link of the way of a change.
#[derive(Debug, Serialize)]
struct Link {
    link: &'static str,
    health: Health,
    figure: String,
    says: String,
}

/// Everything the chain is judged by.
struct Facts<'a> {
    /// The node that holds the connection.
    me: &'a str,
    lane: usize,
    explained: &'a Explanation,
    /// The owner's name and what it knows.
    owner: Option<(String, Known)>,
    wall_us: u64,
}

async fn explain(State(app): State<App>, Asked(query): Asked<ExplainQuery>) -> Result<Json<Explained>, Refusal> {
    check_object_id(&query.object).map_err(|error| Problem::new(Code::InvalidObject, format!("`object`: {error}")))?;
    let (lane, who) = named(&query.connection)?;
    let gone = || Refusal::new(Code::NotFound, "no such connection");
    let handle = app.node.lanes.get(lane).ok_or_else(gone)?;
    let hash = app.node.key.object(&query.object);
    // The owner first: what it has told until then, the lane has heard or is about to.
    let found = app.node.inspect(hash, Some(lane), Instant::now() + OWNER_ANSWERS).await;
    let object: Box<str> = query.object.as_str().into();
    let explained = handle
        .ask(|reply| LaneCommand::Inspect(Inspect::Explain { who, object, reply }))
        .await;
    let explained = explained.flatten().ok_or_else(gone)?;
    let question = |reply| LaneCommand::Inspect(Inspect::Connection { who, objects: 0, reply });
    let (connected, _) = handle.ask(question).await.flatten().ok_or_else(gone)?;
    let facts = Facts {
        me: &app.node.name,
        lane,
        explained: &explained,
        owner: found.map(|found| (app.node.name_of(found.node), found.known)),
        wall_us: crate::clock::now().wall_us,
    };
    let known = facts.owner.as_ref().map(|(_, known)| known);
    Ok(Json(Explained {
        verdict: verdict(&explained, known),
        object: query.object,
        connection: View::new(lane, &connected),
        subscription: explained.subscription.as_ref().map(|s| Subscription {
            version: s.version.known().map(|v| v.0),
            registered: s.registered,
            pending: s.pending,
            resync: s.resync,
        }),
        edge: EdgeState {
            lane,
            subscribers: explained.watchers,
            closed: explained.closed.0,
        },
        owner: OwnerState {
            node: facts.owner.as_ref().map(|(name, _)| name.clone()),
            shard: explained.shard.0,
            epoch: explained.epoch.0,
            floor: explained.floor.0,
            version: known.and_then(|known| known.version.known()).map(|v| v.0),
            interested: known.map(|known| known.interested),
        },
        chain: chain(&facts),
    }))
}

/// The chain from the subscription to the owner, as one sentence that names its first weak link.
fn verdict(explained: &Explanation, owner: Option<&Known>) -> String {
    let Some(subscription) = &explained.subscription else {
        return "not subscribed: this connection does not watch the object".to_owned();
    };
    let Some(owner) = owner else {
        return "cut off: no owner of the object's shard answers now; what changes there is not accepted, or not heard here"
            .to_owned();
    };
    if !subscription.registered {
        return "not live yet: the owner of the object's shard has not answered the registration".to_owned();
    }
    if !owner.interested {
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
    let version = owner.version;
    if version == Version::ZERO {
        return "nothing to tell: no change of the object is known".to_owned();
    }
    if version > subscription.version {
        return "on its way: the owner has a newer version than this lane has heard of".to_owned();
    }
    format!("told: the subscriber knows version {version} or newer, or knew it when it subscribed")
}

fn chain(facts: &Facts<'_>) -> Vec<Link> {
    vec![
        subscription(facts),
        edge(facts),
        interest(facts),
        owner(facts),
        version(facts),
        closed(facts),
        cursor(facts),
        socket(facts),
    ]
}

fn link(link: &'static str, health: Health, figure: impl Into<String>, says: impl Into<String>) -> Link {
    Link {
        link,
        health,
        figure: figure.into(),
        says: says.into(),
    }
}

/// A time in words that fit its size.
fn ago(us: u64) -> String {
    match us {
        0..1_000_000 => format!("{} ms ago", us / 1_000),
        1_000_000..120_000_000 => format!("{:.1} s ago", us as f64 / 1e6),
        120_000_000..7_200_000_000 => format!("{} min ago", us / 60_000_000),
        _ => format!("{} h ago", us / 3_600_000_000),
    }
}

fn number(version: Version) -> String {
    version
        .known()
        .map_or_else(|| "none".to_owned(), |version| version.to_string())
}

fn subscription(facts: &Facts<'_>) -> Link {
    let objects = facts.explained.connection.objects;
    match &facts.explained.subscription {
        None => {
            let says = format!("This connection watches {objects} objects, and this one is not among them.");
            link("subscription", Health::Broken, "not watched", says)
        }
        Some(one) if !one.registered => link(
            "subscription",
            Health::Waiting,
            "not live yet",
            "The object was asked for; its owner has yet to answer. Until then nothing is told of it.",
        ),
        Some(_) => {
            let says = format!("The connection watches the object, one of {objects}, and it is live.");
            link("subscription", Health::Fine, "live", says)
        }
    }
}

fn edge(facts: &Facts<'_>) -> Link {
    let (me, lane) = (facts.me, facts.lane);
    let (watchers, shard) = (facts.explained.watchers, facts.explained.shard);
    let figure = format!("{me}, lane {lane}, {watchers} watching");
    if facts.explained.epoch.0 == 0 {
        let says = format!("Lane {lane} of {me} knows no owner of shard {shard} at the moment.");
        return link("edge", Health::Broken, figure, says);
    }
    let says = match watchers {
        0 => format!("Lane {lane} of {me} holds the connection; none of its subscribers watches the object."),
        1 => format!("Lane {lane} of {me} holds the connection, and one subscriber of it watches the object."),
        _ => format!("Lane {lane} of {me} holds the connection; {watchers} of its subscribers watch the object."),
    };
    let health = if watchers > 0 { Health::Fine } else { Health::Idle };
    link("edge", health, figure, says)
}

fn interest(facts: &Facts<'_>) -> Link {
    let registered = facts.explained.subscription.as_ref().is_some_and(|one| one.registered);
    match &facts.owner {
        None => link("interest", Health::Idle, "unknown", "Nobody answers who would know."),
        Some((_, known)) if known.interested => {
            let says = "The owner knows that this lane wants to hear of the object.";
            link("interest", Health::Fine, lanes(known), says)
        }
        Some((_, known)) => {
            let (health, says) = if registered {
                (
                    Health::Broken,
                    "The owner does not know that this lane wants to hear of the object. Please report this.",
                )
            } else {
                (
                    Health::Idle,
                    "Nobody on this lane watches the object, so its owner does not tell the lane.",
                )
            };
            link("interest", health, format!("{}, not this one", lanes(known)), says)
        }
    }
}

fn lanes(known: &Known) -> String {
    match known.watchers {
        1 => "1 lane".to_owned(),
        several => format!("{several} lanes"),
    }
}

fn owner(facts: &Facts<'_>) -> Link {
    let explained = facts.explained;
    let shard = explained.shard;
    let Some((name, known)) = &facts.owner else {
        let says =
            format!("No owner of shard {shard} answers now. Publishes of the object are refused or wait meanwhile.");
        return link("owner", Health::Broken, format!("shard {shard}, nobody"), says);
    };
    let figure = format!("{name}, shard {shard}, epoch {}", known.epoch);
    if explained.epoch != known.epoch && explained.epoch.0 > 0 {
        let says = format!(
            "{name} owns shard {shard} since epoch {}; the lane still follows epoch {}.",
            known.epoch, explained.epoch
        );
        return link("owner", Health::Waiting, figure, says);
    }
    link(
        "owner",
        Health::Fine,
        figure,
        format!("{name} owns shard {shard}, to which the object belongs."),
    )
}

fn version(facts: &Facts<'_>) -> Link {
    let Some((_, known)) = &facts.owner else {
        return link(
            "version",
            Health::Idle,
            "unknown",
            "Without an owner nobody can say which version is the newest.",
        );
    };
    if known.version == Version::ZERO {
        let says = if known.floor > Version::ZERO {
            format!(
                "No change of the object is known since version {}, from which on its owner can vouch ({}).",
                known.floor,
                ago(facts.wall_us.saturating_sub(known.floor.0))
            )
        } else {
            "No change of the object is known.".to_owned()
        };
        return link("version", Health::Idle, "none", says);
    }
    let when = ago(facts.wall_us.saturating_sub(known.version.0));
    let heard = facts.explained.subscription.as_ref().map(|one| one.version);
    let (health, says) = match heard {
        Some(heard) if heard < known.version => (
            Health::Waiting,
            format!(
                "The last change was {when}; the lane has heard of {} so far.",
                number(heard)
            ),
        ),
        Some(_) => (
            Health::Fine,
            format!("The last change was {when}, and the lane has heard of it."),
        ),
        None => (Health::Idle, format!("The last change was {when}.")),
    };
    link("version", health, number(known.version), says)
}

fn closed(facts: &Facts<'_>) -> Link {
    let closed = facts.explained.closed;
    if closed == Version::ZERO {
        let says = "The owner has not yet said up to where the lane has everything.";
        return link("closed", Health::Waiting, "nothing", says);
    }
    let behind_us = facts.wall_us.saturating_sub(closed.0);
    let figure = ago(behind_us);
    if behind_us > LAGS_US {
        let says = "The owner has not said for a while that the lane has everything: it is cut off, or busy.";
        return link("closed", Health::Waiting, figure, says);
    }
    link(
        "closed",
        Health::Fine,
        figure,
        "Up to then, every change of the shard has arrived at the lane.",
    )
}

fn cursor(facts: &Facts<'_>) -> Link {
    let cursor = facts.explained.connection.cursor;
    let newest = facts.owner.as_ref().map(|(_, known)| known.version);
    if matches!(facts.explained.connection.transport, "poll" | "session") {
        let says = "Each poll brings the client's cursor along, and is told what is newer.";
        return link("cursor", Health::Idle, "with the client", says);
    }
    if cursor == Version::ZERO {
        let says = "The client got no cursor yet: coming back, it would be told everything anew.";
        return link("cursor", Health::Waiting, "none", says);
    }
    let figure = ago(facts.wall_us.saturating_sub(cursor.0));
    match newest {
        Some(newest) if newest > cursor && facts.explained.subscription.is_some() => link(
            "cursor",
            Health::Waiting,
            figure,
            "The last cursor that the client got is from before the last change. Coming back, it would be told again.",
        ),
        _ => link(
            "cursor",
            Health::Fine,
            figure,
            "The last cursor that the client got includes the last change. Coming back, it is told what is newer.",
        ),
    }
}

fn socket(facts: &Facts<'_>) -> Link {
    let connection = &facts.explained.connection;
    let (pending, resync) = (connection.pending, connection.resync);
    let figure = format!("{}, {} to be told", connection.transport, pending + resync);
    if connection.busy {
        let says = format!("The client does not read: its socket takes no more, and {pending} objects wait for it.");
        return link("socket", Health::Waiting, figure, says);
    }
    let (health, says) = match &facts.explained.subscription {
        _ if connection.transport == "session" => (
            Health::Idle,
            "No poll or stream is open: the next one is told what is newer than its cursor.",
        ),
        Some(one) if one.resync => (
            Health::Waiting,
            "The subscriber will be told to fetch the object again.",
        ),
        Some(one) if one.pending => (Health::Waiting, "The change is next to be written."),
        _ if pending + resync > 0 => (Health::Waiting, "Other objects are next to be written."),
        _ => (Health::Fine, "Everything was written, and the socket takes more."),
    };
    link("socket", health, figure, says)
}

#[cfg(test)]
mod tests;
