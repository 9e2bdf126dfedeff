//! What operators order: `POST /v1/cluster/drain`, `move`, `remove` and `copies`.
//!
//! An order is a small JSON object. It is judged by what this node knows, goes into the cluster's log, and may be given again:
//! what is so already is no fault. The answer says how far it has come; how it goes on shows in `/v1/cluster`. What may be
//! ordered is decided in [`crate::control::orders`].

use super::names::Names;
use crate::control::orders::{No, Scene, Share, short};
use crate::control::{self, ProposeError, Status, Verdict};
use crate::node::Node;
use crate::problem::Refusal;
use crate::server::App;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use tidings_protocol::{Code, NodeId, ShardId};
use tidings_router::control::command::{Command, Refusal as Changed};
use tidings_router::control::map::MOST_COPIES;

/// Bytes of an order.
const ORDER_BYTES: usize = 4_096;
/// The map may change between the look and the proposal: then it is looked at again, so often.
const TURNS: usize = 20;
/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    node: String,
    #[serde(default)]
    undo: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    shard: ShardId,
    to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    node: String,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Copies {
    copies: u8,
}

/// What a node has left.
#[derive(Debug, Serialize)]
struct Left {
    node: String,
    id: String,
    draining: bool,
    #[serde(flatten)]
    share: ShareLeft,
}

/// Shards in which it has a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ShareLeft {
    /// Shards that it owns.
    owned: usize,
    /// Shards of which it has a complete copy.
    copies: usize,
    /// Shards of which it is getting a copy.
    filling: usize,
}

impl From<Share> for ShareLeft {
    fn from(share: Share) -> Self {
        let Share { owned, copies, filling } = share;
        Self { owned, copies, filling }
    }
}

#[derive(Debug, Serialize)]
struct Moved {
    shard: ShardId,
    owner: String,
    to: String,
    /// It is there.
    done: bool,
}

#[derive(Debug, Serialize)]
struct Removed {
    node: String,
    id: String,
    /// The cluster does not know it any more. Else the order is to be given again.
    removed: bool,
    /// Shards that still name it.
    shards: usize,
}

#[derive(Debug, Serialize)]
struct Wanted {
    copies: u8,
    /// Shards that lack copies.
    short: usize,
}

fn answer(status: StatusCode, document: impl Serialize) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(document)).into_response()
}

async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    let within = Duration::from_millis(app.node.live().limits.body_idle_ms);
    let body = Limited::new(request.into_body(), ORDER_BYTES).collect();
    let body = match tokio::time::timeout(within, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("an order has at most {ORDER_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, detail).closing());
        }
        Ok(Err(error)) => {
            let detail = format!("the body did not arrive whole: {error}");
            return Err(Refusal::new(Code::BadRequest, detail).closing());
        }
        Err(_) => {
            let detail = "the body did not arrive in time (limits.body_idle_ms)";
            return Err(Refusal::new(Code::RequestTimeout, detail).closing());
        }
    };
    serde_json::from_slice(&body).map_err(|error| Refusal::new(Code::InvalidField, format!("the order: {error}")))
}

/// One look at the cluster, and what may be ordered in it.
struct Desk<'a> {
    node: &'a Node,
    control: &'a control::Handle,
    status: Status,
}

impl<'a> Desk<'a> {
    fn of(node: &'a Node) -> Result<Self, Refusal> {
        let alone = || {
            Refusal::new(
                Code::OrderRefused,
                "this node is alone: there is no cluster to give orders to",
            )
        };
        let control = node.control.as_ref().ok_or_else(alone)?;
        let status = control.status();
        Ok(Self { node, control, status })
    }

    fn names(&self) -> Names<'_> {
        Names::of_status(&self.status, &self.node.name)
    }

    fn find(&self, field: &str, text: &str) -> Result<NodeId, Refusal> {
        self.names().find(text).map_err(|lost| lost.refusal(field))
    }

    fn scene(&self) -> Scene<'_> {
        let members = self.status.members.iter();
        let willing = members.filter(|(_, member)| member.willing && member.verdict == Verdict::Alive);
        let mut willing: BTreeSet<NodeId> = willing.map(|(node, _)| *node).collect();
        if self.node.config.roles().voter {
            willing.insert(self.status.view.me.node);
        }
        Scene {
            map: &self.status.view.map,
            alive: self.names().alive(),
            voters: self.status.view.voters.clone(),
            willing,
        }
    }

    fn left(&self, node: NodeId) -> Left {
        let map = &self.status.view.map;
        Left {
            node: self.names().of(node),
            id: node.to_string(),
            draining: map.node(node).is_some_and(|known| known.draining),
            share: Share::of(map, node).into(),
        }
    }
}

fn refused(no: &No) -> Refusal {
    let code = match no {
        No::NoSuchNode | No::NoSuchShard(_) => Code::NotFound,
        No::NobodyElse
        | No::NotAnOwner
        | No::Draining
        | No::NotAlive
        | No::NoOwner(_)
        | No::Alive
        | No::OnlyCopy(_)
        | No::Majority => Code::OrderRefused,
    };
    Refusal::new(code, no.to_string())
}

fn failed(error: &ProposeError) -> Refusal {
    let code = match error {
        ProposeError::NoLeader(_) => Code::NoLeader,
        ProposeError::Changed(_) | ProposeError::Refused(_) => Code::OrderRefused,
        ProposeError::Unknown(_) => Code::OutcomeUnknown,
    };
    Refusal::new(code, error.to_string())
}

/// Has commands applied that may have been overtaken: whether all of them were, or were so already.
async fn propose(control: &control::Handle, commands: Vec<Command>) -> Result<bool, Refusal> {
    match control.propose_all(commands).await {
        Ok(()) | Err(ProposeError::Changed(Changed::Same)) => Ok(true),
        Err(ProposeError::Changed(_)) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// Carries an order out that may be overtaken by what changes meanwhile: judged anew until it was not. When this returns it
/// was applied here too.
async fn carry_out(node: &Node, order: impl Fn(&Desk<'_>) -> Result<Vec<Command>, Refusal>) -> Result<(), Refusal> {
    for _ in 0..TURNS {
        let desk = Desk::of(node)?;
        let commands = order(&desk)?;
        if commands.is_empty() {
            return Ok(());
        }
        propose(desk.control, commands).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let detail = "the cluster changed faster than the order could be carried out: part of it may have been";
    Err(Refusal::new(Code::OutcomeUnknown, detail))
}

pub(super) async fn drain(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let order: Drain = read(&app, request).await?;
    let draining = !order.undo;
    let node = Desk::of(&app.node)?.find("node", &order.node)?;
    carry_out(&app.node, |desk| {
        desk.scene().drain(node, draining).map_err(|no| refused(&no))
    })
    .await?;
    tracing::info!(%node, draining, "an operator ordered a node to drain, or no longer to");
    Ok(answer(StatusCode::OK, Desk::of(&app.node)?.left(node)))
}

pub(super) async fn relocate(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let order: Move = read(&app, request).await?;
    let to = Desk::of(&app.node)?.find("to", &order.to)?;
    carry_out(&app.node, |desk| {
        desk.scene().relocate(order.shard, to).map_err(|no| refused(&no))
    })
    .await?;
    tracing::info!(shard = %order.shard, %to, "an operator ordered a shard to move");
    let desk = Desk::of(&app.node)?;
    let shard = desk.status.view.map.shard(order.shard);
    let owner = shard.and_then(|shard| shard.owner).map(|owner| owner.node);
    let moved = Moved {
        shard: order.shard,
        owner: owner.map_or_else(String::new, |owner| desk.names().of(owner)),
        to: desk.names().of(to),
        done: owner == Some(to),
    };
    Ok(answer(StatusCode::OK, moved))
}

pub(super) async fn remove(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let order: Remove = read(&app, request).await?;
    let desk = Desk::of(&app.node)?;
    let node = desk.find("node", &order.node)?;
    let name = desk.names().of(node);
    for _ in 0..TURNS {
        let desk = Desk::of(&app.node)?;
        if desk.status.view.map.node(node).is_none() {
            break;
        }
        let removal = desk.scene().remove(node, order.force).map_err(|no| refused(&no))?;
        if let Some(voters) = removal.voters {
            desk.control.set_voters(voters).await.map_err(|error| failed(&error))?;
        }
        if !removal.commands.is_empty() {
            propose(desk.control, removal.commands).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let map = &Desk::of(&app.node)?.status.view.map;
    let removed = map.node(node).is_none();
    if removed {
        tracing::info!(%node, name, "an operator removed a node");
    }
    let document = Removed {
        node: name,
        id: node.to_string(),
        removed,
        shards: Share::of(map, node).shards(),
    };
    let status = if removed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer(status, document))
}

pub(super) async fn copies(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let Copies { copies } = read(&app, request).await?;
    if !(1..=MOST_COPIES).contains(&copies) {
        let detail = format!("`copies` is from 1 to {MOST_COPIES}");
        return Err(Refusal::new(Code::InvalidField, detail));
    }
    carry_out(&app.node, |desk| {
        let agreed = desk.status.view.map.copies();
        Ok(if agreed == copies {
            Vec::new()
        } else {
            vec![Command::SetCopies { copies }]
        })
    })
    .await?;
    tracing::info!(copies, "an operator ordered so many copies of each shard");
    let desk = Desk::of(&app.node)?;
    let (map, names) = (&desk.status.view.map, desk.names());
    let lacks = |shard| short(map, shard, |node| names.is_alive(node)) > 0;
    let short = map.shards().filter(|(_, shard)| lacks(shard)).count();
    Ok(answer(StatusCode::OK, Wanted { copies, short }))
}
