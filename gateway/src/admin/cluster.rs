//! `/v1/cluster`: the cluster as this node sees it.
//!
//! A node that is alone tells of itself; a node of a cluster tells what was agreed (the map), who is alive as far as it
//! knows (gossip), and what it may do itself (its lease). `orders` has what operators tell a cluster to do.

mod names;
mod orders;

use crate::control::orders::{Share, short};
use crate::control::{self, Status, Verdict};
use crate::node::Node;
use crate::problem::Refusal;
use crate::server::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::CACHE_CONTROL;
use names::Names;
use orders::ShareLeft;
use serde::Serialize;
use tidings_protocol::{Epoch, NodeId, ShardId, Version};
use tidings_router::control::map::{self, Process};

/// The answer. What only a cluster has is left out by a node that is alone.
#[derive(Debug, Serialize)]
pub(crate) struct Cluster {
    /// Its identity; empty before there is one.
    cluster: String,
    /// What it is called.
    name: String,
    /// The node that answers.
    node: String,
    nodes: Vec<ClusterNode>,
    shards: Vec<ClusterShard>,
    #[serde(flatten)]
    agreed: Option<Agreed>,
}

/// What was agreed, beside nodes and shards, and how far this node takes part in it.
#[derive(Debug, Serialize)]
struct Agreed {
    /// Counts the changes of nodes and shards.
    revision: u64,
    /// No version above was ever allowed.
    ceiling: Version,
    /// Counts the offices of leaders.
    term: u64,
    leader: Option<String>,
    shard_count: usize,
    /// How many copies each shard should have, its owner's among them.
    copies: u8,
    /// Shards that lack copies.
    short_of_copies: usize,
    /// How long this node may give versions without hearing from the leader; `null` if it is not there to give any.
    lease_left_ms: Option<u64>,
    /// A quorum confirmed the map since this node started.
    confirmed: bool,
}

#[derive(Debug, Serialize)]
struct ClusterNode {
    node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
    /// Where clients reach it.
    address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    node_address: String,
    roles: Vec<&'static str>,
    /// The release it runs, if it says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    release: String,
    zone: String,
    alive: bool,
    voter: bool,
    leader: bool,
    draining: bool,
    /// The cluster agreed on it; else it is on its way in.
    member: bool,
    #[serde(flatten)]
    share: ShareLeft,
    #[serde(flatten)]
    process: Option<Own>,
}

/// What a node knows of itself only.
#[derive(Clone, Copy, Debug, Serialize)]
struct Own {
    threads: usize,
    uptime_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClusterShard {
    shard: ShardId,
    owner: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    owner_id: String,
    pub(crate) epoch: Epoch,
    pub(crate) floor: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// Who else has everything that was acknowledged.
    copies: Vec<String>,
    /// Who is getting a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filling: Vec<String>,
    /// To whom it goes as soon as that one has everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    moving: Option<String>,
    /// So many copies of living nodes are missing.
    missing: usize,
    /// Its owner lives and is the process that the cluster assigned it to.
    owned: bool,
}

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/cluster", get(cluster))
        .route("/v1/cluster/drain", post(orders::drain))
        .route("/v1/cluster/move", post(orders::relocate))
        .route("/v1/cluster/remove", post(orders::remove))
        .route("/v1/cluster/copies", post(orders::copies))
}

async fn cluster(State(app): State<App>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(cluster_of(&app.node).await)).into_response()
}

/// The one node of the map that is called so; `mine`: what this node is called.
pub(crate) fn node_called(status: &Status, mine: &str, text: &str) -> Result<NodeId, Refusal> {
    Names::of_status(status, mine)
        .find(text)
        .map_err(|lost| lost.refusal("node"))
}

/// The cluster as this node sees it now.
pub(crate) async fn cluster_of(node: &Node) -> Cluster {
    match &node.control {
        Some(control) => together(node, control),
        None => alone(node).await,
    }
}

impl Cluster {
    /// What it says of shards, which it then says no more.
    pub(crate) fn take_shards(&mut self) -> Vec<ClusterShard> {
        std::mem::take(&mut self.shards)
    }
}

async fn alone(node: &Node) -> Cluster {
    let mut shards = Vec::new();
    for owner in &node.owners {
        if let Some(report) = owner.report().await {
            shards.extend(report.shards.into_iter().map(|(shard, epoch, floor)| ClusterShard {
                shard,
                owner: node.name.clone(),
                owner_id: String::new(),
                epoch,
                floor,
                cause: None,
                copies: Vec::new(),
                filling: Vec::new(),
                moving: None,
                missing: 0,
                owned: true,
            }));
        }
    }
    shards.sort_by_key(|shard| shard.shard);
    Cluster {
        cluster: format!("{:016x}", node.cluster.0),
        name: node.config.cluster.name.clone(),
        node: node.name.clone(),
        nodes: vec![ClusterNode {
            node: node.name.clone(),
            id: String::new(),
            incarnation: None,
            address: node.address.to_string(),
            client_url: String::new(),
            node_address: String::new(),
            roles: roles(node.config.roles()),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            zone: node.config.server.zone.clone(),
            alive: true,
            voter: true,
            leader: true,
            draining: node.is_draining(),
            member: true,
            share: Share {
                owned: shards.len(),
                ..Share::default()
            }
            .into(),
            process: Some(own(node)),
        }],
        shards,
        agreed: None,
    }
}

fn own(node: &Node) -> Own {
    Own {
        threads: node.owners.len(),
        uptime_ms: u64::try_from(node.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn roles(roles: tidings_membership::Roles) -> Vec<&'static str> {
    let all = [(roles.edge, "edge"), (roles.owner, "owner"), (roles.voter, "voter")];
    all.into_iter().filter_map(|(has, role)| has.then_some(role)).collect()
}

fn together(node: &Node, control: &control::Handle) -> Cluster {
    let status = control.status();
    let mine = Mine {
        name: &node.name,
        roles: node.config.roles(),
        zone: &node.config.server.zone,
        client_url: node.config.client_url(node.address),
        draining: node.is_draining(),
        own: own(node),
    };
    describe(&mine, &node.config.cluster.name, &status)
}

/// What this node says of itself.
struct Mine<'a> {
    name: &'a str,
    roles: tidings_membership::Roles,
    zone: &'a str,
    client_url: String,
    draining: bool,
    own: Own,
}

fn describe(mine: &Mine<'_>, name: &str, status: &Status) -> Cluster {
    let view = &*status.view;
    let names = Names::of_status(status, mine.name);
    let mut ids: Vec<NodeId> = view.map.nodes().map(|(id, _)| id).collect();
    ids.extend(view.peers.keys());
    // Those on their way in. Who is neither of the cluster nor alive is no news.
    let alive = status
        .members
        .iter()
        .filter(|(_, member)| member.verdict == Verdict::Alive);
    ids.extend(alive.map(|(id, _)| *id));
    ids.push(view.me.node);
    ids.sort_unstable();
    ids.dedup();
    let mut nodes: Vec<ClusterNode> = ids.iter().map(|id| node_of(&names, mine, *id)).collect();
    nodes.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
    let shards: Vec<ClusterShard> = view
        .map
        .shards()
        .filter_map(|(id, shard)| shard_of(&names, id, shard))
        .collect();
    let short_of_copies = shards.iter().filter(|shard| shard.missing > 0).count();
    let formed = view.map.cluster().0 != 0;
    Cluster {
        cluster: if formed {
            format!("{:016x}", view.map.cluster().0)
        } else {
            String::new()
        },
        name: name.to_owned(),
        node: mine.name.to_owned(),
        nodes,
        shards,
        agreed: Some(Agreed {
            revision: view.map.revision(),
            ceiling: view.map.ceiling(),
            term: status.term,
            leader: view.leader.map(|leader| leader.to_string()),
            shard_count: view.map.shards().count(),
            copies: view.map.copies(),
            short_of_copies,
            lease_left_ms: mine.roles.owner.then(|| status.lease_left_us.div_ceil(1000)),
            confirmed: view.confirmed,
        }),
    }
}

fn node_of(names: &Names<'_>, mine: &Mine<'_>, id: NodeId) -> ClusterNode {
    let view = names.view;
    let is_me = id == view.me.node;
    let agreed = view.map.node(id);
    let peer = view.peers.get(&id);
    let member = names.members.get(&id);
    let client_url = match (is_me, peer, agreed, member) {
        (true, _, _, _) => mine.client_url.clone(),
        (false, Some(peer), _, _) => peer.client_url.clone(),
        (false, None, Some(agreed), _) => agreed.info.client_address.clone(),
        (false, None, None, Some(member)) => member.client_url.clone(),
        (false, None, None, None) => String::new(),
    };
    let node_address = match (peer, agreed, member.and_then(|member| member.address)) {
        (Some(peer), _, _) => peer.address.to_string(),
        (None, Some(agreed), _) => agreed.info.peer_address.clone(),
        (None, None, Some(address)) => address.to_string(),
        (None, None, None) => String::new(),
    };
    let voter = view.voters.contains(&id);
    let known = agreed.map(|agreed| tidings_membership::Roles {
        edge: agreed.info.roles.edge,
        owner: agreed.info.roles.owner,
        voter,
    });
    ClusterNode {
        node: names.of(id),
        id: id.to_string(),
        incarnation: if is_me {
            Some(view.me.incarnation)
        } else {
            peer.map(|peer| peer.process.incarnation)
                .or(agreed.map(|agreed| agreed.incarnation))
                .or(member.map(|member| member.incarnation))
        },
        address: without_scheme(&client_url),
        client_url,
        node_address,
        roles: roles(if is_me { mine.roles } else { known.unwrap_or_default() }),
        release: match member {
            _ if is_me => env!("CARGO_PKG_VERSION").to_owned(),
            Some(member) => member.release.clone(),
            None => String::new(),
        },
        zone: match agreed {
            _ if is_me => mine.zone.to_owned(),
            Some(agreed) => agreed.info.zone.clone(),
            None => String::new(),
        },
        alive: names.is_alive(id),
        voter,
        leader: view.leader == Some(id),
        draining: (is_me && mine.draining) || agreed.is_some_and(|agreed| agreed.draining),
        member: agreed.is_some(),
        share: Share::of(&view.map, id).into(),
        process: is_me.then_some(mine.own),
    }
}

/// `None` for a shard that nobody ever owned.
fn shard_of(names: &Names<'_>, id: ShardId, shard: &map::Shard) -> Option<ClusterShard> {
    let owner: Process = shard.owner?;
    let map = &names.view.map;
    let all = |processes: &[Process]| processes.iter().map(|process| names.of(process.node)).collect();
    Some(ClusterShard {
        shard: id,
        owner: names.of(owner.node),
        owner_id: owner.node.to_string(),
        epoch: shard.epoch,
        floor: shard.floor,
        cause: Some(shard.cause.as_str()),
        copies: all(&shard.in_sync),
        filling: all(&shard.filling),
        moving: shard.moving.map(|to| names.of(to.node)),
        missing: short(map, shard, |node| names.is_alive(node)),
        owned: map.is_current(owner) && names.is_alive(owner.node),
    })
}

/// `host:port`, as people type it.
fn without_scheme(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
}

#[cfg(test)]
mod tests;
