//! `tidings cluster drain`, `move`, `remove` and `copies`: orders to a cluster, and waiting until they are carried out.
//!
//! Without `--wait` the word is done when the cluster has agreed; with it, when nothing is left to do. A wait that ends too soon
//! changes nothing about the order: the cluster goes on.

use super::{Cluster, Node, ask, count_of};
use crate::cli::server::Server;
use crate::cli::{ServerArgs, count, one_line, print_line};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the node may take to answer an order.
const ANSWER: Duration = Duration::from_secs(30);
/// How often it is looked how far an order has come.
const LOOK: Duration = Duration::from_millis(500);

/// Whom to tell, and whether to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct OrderArgs {
    /// Any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Wait until it is done, and say how far it has come
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait at most; then the exit code is 1 and the cluster goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

/// Which node.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// The node, by its name or id
    pub node: String,
    /// It is to take part again
    #[arg(long)]
    pub undo: bool,
    /// Whom to tell.
    #[command(flatten)]
    pub common: OrderArgs,
}

/// What goes where.
#[derive(Clone, Debug, clap::Args)]
pub struct MoveArgs {
    /// The shard's number
    pub shard: u16,
    /// The node, by its name or id
    pub node: String,
    /// Whom to tell.
    #[command(flatten)]
    pub common: OrderArgs,
}

/// Which node.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoveArgs {
    /// The node, by its name or id
    pub node: String,
    /// Also if only this node has some shards: they then begin empty, and everybody who watches one of their objects is told to
    /// fetch it again
    #[arg(long)]
    pub force: bool,
    /// Whom to tell.
    #[command(flatten)]
    pub common: OrderArgs,
}

/// How many.
#[derive(Clone, Debug, clap::Args)]
pub struct CopiesArgs {
    /// Copies of each shard, its owner's among them
    #[arg(value_parser = clap::value_parser!(u8).range(1..=3))]
    pub copies: u8,
    /// Whom to tell.
    #[command(flatten)]
    pub common: OrderArgs,
}

/// A refusal, as problem documents have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

/// Gives an order. The status and what was answered.
async fn order(server: &Server, path: &str, body: &Value) -> Result<(u16, Value), String> {
    let headers = [(CONTENT_TYPE, "application/json".to_owned())];
    let body = Full::new(Bytes::from(body.to_string()));
    let answer = server
        .post(path, &headers, body, Some(ANSWER))
        .await
        .map_err(|error| error.to_string())?;
    match answer.status {
        200 | 202 => {
            let value = serde_json::from_slice(&answer.body);
            let value = value.map_err(|error| format!("{} does not answer as Tidings does: {error}", server.authority));
            Ok((answer.status, value?))
        }
        status => {
            let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
            Err(match problem.code.as_str() {
                "" => format!(
                    "{} answers {status}: {}",
                    server.authority,
                    one_line(&String::from_utf8_lossy(&answer.body))
                ),
                code => format!("{}: {}", one_line(code), one_line(&problem.detail)),
            })
        }
    }
}

/// Looks again and again, says what is new, and ends when nothing is left: `left` says what is, in words.
async fn wait(server: &Server, seconds: u64, left: impl Fn(&Cluster) -> Option<String>) -> Result<Vec<String>, String> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut said = String::new();
    loop {
        // A node that does not answer now may be one that starts again.
        let now = match ask(server).await {
            Ok((_, cluster)) => left(&cluster),
            Err(why) => Some(why),
        };
        let Some(now) = now else {
            _ = print_line("Done.");
            return Ok(Vec::new());
        };
        if now != said {
            _ = print_line(&now);
            said = now;
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "not done after {seconds} s: the cluster goes on with it ({said})"
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn text(value: &Value, field: &str) -> String {
    one_line(value[field].as_str().unwrap_or_default())
}

/// What a node has, in words; `None` if nothing.
fn share(node: &Node) -> Option<String> {
    let all = [
        (node.owned, count(node.owned as u64, "shard")),
        (node.copies, count_of(node.copies as u64, "copy", "copies")),
        (
            node.filling,
            format!("{} on the way", count_of(node.filling as u64, "copy", "copies")),
        ),
    ];
    let has: Vec<String> = all
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(_, words)| words)
        .collect();
    (!has.is_empty()).then(|| format!("{} has {}", one_line(&node.node), has.join(", ")))
}

/// Everything that a node is to give up before it is stopped: shards, copies, and the control plane's lead. Not its vote: there
/// may be nobody else to have it.
fn holds(cluster: &Cluster, id: &str) -> Option<String> {
    let node = cluster.nodes.iter().find(|node| node.id == id)?;
    let leads = || {
        node.leader
            .then(|| format!("{} leads the control plane", one_line(&node.node)))
    };
    share(node).or_else(leads)
}

pub(super) async fn drain(server: &Server, args: &DrainArgs) -> Result<Vec<String>, String> {
    let body = json!({ "node": args.node, "undo": args.undo });
    let (_, told) = order(server, "/v1/cluster/drain", &body).await?;
    let (name, id) = (text(&told, "node"), text(&told, "id"));
    if args.undo {
        _ = print_line(&format!("{name} takes part again."));
        return Ok(Vec::new());
    }
    _ = print_line(&format!("{name} gives up what it has."));
    if args.common.wait {
        return wait(server, args.common.timeout, |cluster| holds(cluster, &id)).await;
    }
    Ok(Vec::new())
}

pub(super) async fn relocate(server: &Server, args: &MoveArgs) -> Result<Vec<String>, String> {
    let body = json!({ "shard": args.shard, "to": args.node });
    let (_, told) = order(server, "/v1/cluster/move", &body).await?;
    let (owner, to) = (text(&told, "owner"), text(&told, "to"));
    if told["done"] == true {
        _ = print_line(&format!("Shard {} is at {to}.", args.shard));
        return Ok(Vec::new());
    }
    _ = print_line(&format!("Shard {} goes from {owner} to {to}.", args.shard));
    if args.common.wait {
        return wait(server, args.common.timeout, |cluster| {
            on_its_way(cluster, args.shard, &to)
        })
        .await;
    }
    Ok(Vec::new())
}

/// Where a shard is while it is not where it should be.
fn on_its_way(cluster: &Cluster, shard: u16, to: &str) -> Option<String> {
    let known = cluster.shards.iter().find(|known| known.shard == shard);
    match known {
        Some(known) if known.owner == to && known.moving.is_none() => None,
        Some(known) => Some(format!("shard {shard} is at {}", one_line(&known.owner))),
        None => Some(format!("shard {shard} has no owner")),
    }
}

pub(super) async fn remove(server: &Server, args: &RemoveArgs) -> Result<Vec<String>, String> {
    let deadline = Instant::now() + Duration::from_secs(args.common.timeout);
    let mut body = json!({ "node": args.node, "force": args.force });
    let mut said = None;
    loop {
        let (status, told) = order(server, "/v1/cluster/remove", &body).await?;
        let (name, id) = (text(&told, "node"), text(&told, "id"));
        if status == 200 {
            _ = print_line(&format!("{name} ({id}) is not of the cluster any more."));
            return Ok(Vec::new());
        }
        let shards = told["shards"].as_u64().unwrap_or_default();
        let left = format!("{name} is still named by {}", count(shards, "shard"));
        if !args.common.wait {
            return Err(format!(
                "{left}: these are about to get other owners; say it again, or --wait"
            ));
        }
        if said.as_ref() != Some(&left) {
            _ = print_line(&left);
            said = Some(left);
        }
        if Instant::now() >= deadline {
            return Err(format!("not done after {} s", args.common.timeout));
        }
        // A name that another node has too may be refused once this one is half gone.
        body["node"] = id.into();
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn copies(server: &Server, args: &CopiesArgs) -> Result<Vec<String>, String> {
    let (_, told) = order(server, "/v1/cluster/copies", &json!({ "copies": args.copies })).await?;
    _ = print_line(&format!(
        "{} of each shard from now on.",
        count_of(u64::from(args.copies), "copy", "copies")
    ));
    if args.common.wait {
        return wait(server, args.common.timeout, short).await;
    }
    let short = told["short"].as_u64().unwrap_or_default();
    if short > 0 {
        _ = print_line(&format!("{} short of copies yet.", count(short, "shard")));
    }
    Ok(Vec::new())
}

/// How many shards lack copies or have some on the way.
fn short(cluster: &Cluster) -> Option<String> {
    let lacking = cluster.shards.iter().filter(|shard| shard.missing > 0).count();
    (lacking > 0).then(|| format!("{} short of copies", count(lacking as u64, "shard")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(answer: Value) -> Cluster {
        serde_json::from_value(answer).expect("an answer")
    }

    #[test]
    fn what_a_node_has_left_is_said_until_it_has_nothing() {
        let nodes = |owned, copies, filling| {
            cluster(json!({"nodes": [{"node": "n1", "id": "aa", "owned": 9},
                {"node": "n2", "id": "bb", "owned": owned, "copies": copies, "filling": filling}]}))
        };
        assert_eq!(
            holds(&nodes(2, 1, 3), "bb").as_deref(),
            Some("n2 has 2 shards, 1 copy, 3 copies on the way")
        );
        assert_eq!(holds(&nodes(0, 2, 0), "bb").as_deref(), Some("n2 has 2 copies"));
        assert_eq!(holds(&nodes(0, 0, 0), "bb"), None);
        assert_eq!(holds(&nodes(1, 0, 0), "cc"), None, "it is gone altogether");
        let leader = cluster(json!({"nodes": [{"node": "n2", "id": "bb", "leader": true}]}));
        assert_eq!(holds(&leader, "bb").as_deref(), Some("n2 leads the control plane"));
    }

    #[test]
    fn a_shard_is_on_its_way_until_it_is_there_and_nothing_more_is_planned() {
        let at = |owner: &str, moving: Option<&str>| {
            cluster(json!({"shards": [{"shard": 4, "owner": owner, "moving": moving}]}))
        };
        assert!(on_its_way(&at("n1", Some("n2")), 4, "n2").is_some());
        assert!(on_its_way(&at("n2", Some("n3")), 4, "n2").is_some());
        assert_eq!(on_its_way(&at("n2", None), 4, "n2"), None);
        assert!(on_its_way(&at("n2", None), 5, "n2").is_some());
    }
}
