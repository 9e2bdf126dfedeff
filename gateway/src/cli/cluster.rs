//! `tidings cluster`: what one node knows of its cluster, as a table for people and a verdict for scripts (`status`), and
//! orders to it (`orders`).

use super::server::Server;
use super::{FAILED, ServerArgs, USAGE, note, one_line, print_line};
use orders::{CopiesArgs, DrainArgs, MoveArgs, RemoveArgs};
use serde::Deserialize;
use std::process::ExitCode;
use std::time::Duration;
use table::table;

mod orders;
mod table;

/// How long the node may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Shards that are named one by one.
const NAMED: usize = 8;

/// What to do with a cluster.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClusterWord {
    /// Show nodes, owners and what is wrong; exit code 0 if nothing is
    Status(StatusArgs),
    /// Have a node give up its shards, copies, vote and subscribers, so that it can be stopped without anybody noticing
    Drain(DrainArgs),
    /// Move one shard to a node, and keep it there
    Move(MoveArgs),
    /// Forget a node that is gone for good
    Remove(RemoveArgs),
    /// Change how many copies each shard has
    Copies(CopiesArgs),
    /// Print what edges get in place of the cluster's secret: they join with it, and can neither own shards nor vote
    EdgeSecret(EdgeSecretArgs),
}

/// Of which secret.
#[derive(Clone, Debug, clap::Args)]
pub struct EdgeSecretArgs {
    /// The file with the secret of nodes that own and vote; each of its lines gives one
    #[arg(long, value_name = "FILE")]
    pub secret_file: std::path::PathBuf,
}

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Print what the node answers, as it is, instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Asks and prints.
pub async fn run(word: ClusterWord) -> ExitCode {
    let server = match &word {
        ClusterWord::Status(args) => &args.server,
        ClusterWord::Drain(args) => &args.common.server,
        ClusterWord::Move(args) => &args.common.server,
        ClusterWord::Remove(args) => &args.common.server,
        ClusterWord::Copies(args) => &args.common.server,
        ClusterWord::EdgeSecret(args) => return edge_secret(args),
    };
    let server = match Server::new(server) {
        Ok(server) => server,
        Err(why) => {
            note(&why);
            return ExitCode::from(USAGE);
        }
    };
    let done = match word {
        ClusterWord::Status(args) => status(&server, args.json).await,
        ClusterWord::Drain(args) => orders::drain(&server, &args).await,
        ClusterWord::Move(args) => orders::relocate(&server, &args).await,
        ClusterWord::Remove(args) => orders::remove(&server, &args).await,
        ClusterWord::Copies(args) => orders::copies(&server, &args).await,
        // Answered above: it asks nobody.
        ClusterWord::EdgeSecret(_) => Ok(Vec::new()),
    };
    let faults = done.unwrap_or_else(|why| vec![why]);
    for fault in &faults {
        note(fault);
    }
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

fn edge_secret(args: &EdgeSecretArgs) -> ExitCode {
    let file = args.secret_file.display();
    let text = match std::fs::read_to_string(&args.secret_file) {
        Ok(text) => text,
        Err(error) => {
            note(&format!("{file} cannot be read: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    match lines.map(crate::control::for_edges).collect::<Result<Vec<_>, _>>() {
        Ok(secrets) if !secrets.is_empty() => {
            for secret in secrets {
                _ = print_line(&secret);
            }
            ExitCode::SUCCESS
        }
        Ok(_) => {
            note(&format!("{file} is empty"));
            ExitCode::from(USAGE)
        }
        Err(why) => {
            note(&format!("a secret in {file} {why}"));
            ExitCode::from(USAGE)
        }
    }
}

async fn status(server: &Server, json: bool) -> Result<Vec<String>, String> {
    let (text, cluster) = ask(server).await?;
    let ready = server.get("/readyz", ANSWER).await.map_err(|error| error.to_string())?;
    let mut faults = faults(&cluster);
    if ready.status != 200 {
        let why = reasons(&ready.body).unwrap_or_else(|| format!("status {}", ready.status));
        faults.insert(0, format!("the node that was asked is not ready: {why}"));
    }
    if json {
        _ = print_line(&text);
        return Ok(faults);
    }
    _ = print_line(&head(&cluster));
    _ = print_line(&table(&rows(&cluster)));
    if faults.is_empty() {
        _ = print_line("Healthy.");
    }
    Ok(faults)
}

/// A node's view of its cluster, for `tidings doctor`.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) node: String,
    pub(super) summary: String,
    /// What is wrong.
    pub(super) faults: Vec<String>,
    /// No version above was ever allowed; only in a cluster.
    pub(super) ceiling: Option<u64>,
}

/// Asks a node.
pub(super) async fn look(server: &Server) -> Result<Look, String> {
    let (_, cluster) = ask(server).await?;
    let ready = server.get("/readyz", ANSWER).await.map_err(|error| error.to_string())?;
    let mut faults = faults(&cluster);
    if ready.status != 200 {
        let why = reasons(&ready.body).unwrap_or_else(|| format!("status {}", ready.status));
        faults.insert(0, format!("the node is not ready: {why}"));
    }
    Ok(Look {
        node: one_line(&cluster.node),
        summary: head(&cluster).lines().next().unwrap_or_default().to_owned(),
        faults,
        ceiling: cluster.ceiling,
    })
}

/// What a node answers about its cluster, as it is and as it is understood.
async fn ask(server: &Server) -> Result<(String, Cluster), String> {
    let answer = server
        .get("/v1/cluster", ANSWER)
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status != 200 {
        return Err(format!(
            "{} answers {}: {}",
            server.authority,
            answer.status,
            one_line(&text)
        ));
    }
    let cluster = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{} does not answer as Tidings does: {error}", server.authority))?;
    Ok((text, cluster))
}

/// The reasons in the body of `/readyz`.
pub(super) fn reasons(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Readiness {
        reasons: Vec<String>,
    }
    let readiness: Readiness = serde_json::from_slice(body).ok()?;
    (!readiness.reasons.is_empty()).then(|| one_line(&readiness.reasons.join(", ")))
}

/// `/v1/cluster`, as far as it is used. What an older node does not say is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cluster {
    cluster: String,
    name: String,
    node: String,
    nodes: Vec<Node>,
    shards: Vec<Shard>,
    shard_count: Option<usize>,
    revision: Option<u64>,
    term: Option<u64>,
    leader: Option<String>,
    lease_left_ms: Option<u64>,
    ceiling: Option<u64>,
    copies: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    node: String,
    id: String,
    address: String,
    roles: Vec<String>,
    zone: String,
    alive: Option<bool>,
    voter: bool,
    leader: bool,
    draining: bool,
    member: Option<bool>,
    owned: usize,
    copies: usize,
    filling: usize,
}

impl Node {
    fn is_alive(&self) -> bool {
        self.alive.unwrap_or(true)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shard {
    shard: u16,
    owner: String,
    owner_id: String,
    /// The owner lives and is the process that the cluster assigned the shard to.
    owned: Option<bool>,
    moving: Option<String>,
    missing: usize,
}

fn head(cluster: &Cluster) -> String {
    let mut parts = vec![format!("cluster {}", one_line(&cluster.cluster))];
    if !cluster.name.is_empty() {
        parts.push(format!("name {}", one_line(&cluster.name)));
    }
    parts.push(super::count(cluster.nodes.len() as u64, "node"));
    parts.push(super::count(cluster.shards.len() as u64, "shard"));
    if let (Some(revision), Some(term)) = (cluster.revision, cluster.term) {
        parts.push(format!("revision {revision}"));
        parts.push(format!("term {term}"));
    }
    if let Some(copies) = cluster.copies {
        parts.push(format!("{} wanted", count_of(u64::from(copies), "copy", "copies")));
    }
    let moving = cluster.shards.iter().filter(|shard| shard.moving.is_some()).count();
    if moving > 0 {
        parts.push(format!("{moving} moving"));
    }
    let mut text = parts.join(", ");
    if let (Some(left_ms), Some(ceiling)) = (cluster.lease_left_ms, cluster.ceiling) {
        let node = one_line(&cluster.node);
        text += &format!("\nasked: {node}, whose lease lasts {left_ms} ms more, up to version {ceiling}");
    }
    text
}

fn rows(cluster: &Cluster) -> Vec<Vec<String>> {
    let title = [
        "NODE",
        "ID",
        "CLIENTS AT",
        "ROLES",
        "ZONE",
        "STATE",
        "CONTROL",
        "SHARDS",
        "COPIES",
        "FILLING",
    ];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    for node in &cluster.nodes {
        let state = match (node.is_alive(), node.draining) {
            (false, _) => "not alive",
            (true, true) => "draining",
            (true, false) if node.member == Some(false) => "joining",
            (true, false) => "alive",
        };
        let control = match (node.leader, node.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "",
        };
        let unless_none = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        rows.push(vec![
            one_line(&node.node),
            one_line(&node.id),
            one_line(&node.address),
            one_line(&node.roles.join(" ")),
            one_line(&node.zone),
            state.to_owned(),
            control.to_owned(),
            node.owned.to_string(),
            unless_none(node.copies),
            unless_none(node.filling),
        ]);
    }
    rows
}

fn count_of(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How many shards are so, and the first of them.
fn named(cluster: &Cluster, so: impl Fn(&Shard) -> bool, what: &str) -> Option<String> {
    let shards: Vec<&Shard> = cluster.shards.iter().filter(|shard| so(shard)).collect();
    let mut named: Vec<_> = shards.iter().take(NAMED).map(|shard| shard.shard.to_string()).collect();
    if shards.len() > NAMED {
        named.push("…".to_owned());
    }
    let count = super::count(shards.len() as u64, "shard");
    (!shards.is_empty()).then(|| format!("{count} {what}: {}", named.join(", ")))
}

/// What is wrong, most important first.
fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(named(
        cluster,
        |shard| shard.owned == Some(false),
        "without a living owner",
    ));
    faults.extend(named(cluster, |shard| shard.missing > 0, "short of copies"));
    if let Some(count) = cluster.shard_count
        && cluster.shards.len() < count
    {
        let missing = super::count((count - cluster.shards.len()) as u64, "shard");
        faults.push(format!("{missing} not assigned to anybody"));
    }
    // A node that is alone has no term.
    if cluster.term.is_some() && cluster.leader.is_none() {
        faults.push("nobody is known to lead the control plane".to_owned());
    }
    if cluster.lease_left_ms == Some(0) {
        faults.push(format!("the lease of {} has ended", one_line(&cluster.node)));
    }
    for node in cluster.nodes.iter().filter(|node| !node.is_alive()) {
        faults.push(format!(
            "{} ({}) is not alive",
            one_line(&node.node),
            one_line(&node.address)
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(change: impl FnOnce(&mut serde_json::Value)) -> Cluster {
        let node = |name: &str, id: &str, leader: bool| {
            json!({"node": name, "id": id, "address": "127.0.0.1:1", "roles": ["edge", "owner"], "zone": "", "alive": true,
                "voter": true, "leader": leader, "draining": false, "owned": 1, "copies": 1, "filling": 0})
        };
        let shard =
            |shard: u16, owner: &str, id: &str| json!({"shard": shard, "owner": owner, "owner_id": id, "owned": true});
        let mut answer = json!({"cluster": "00ff", "name": "dev", "node": "n1", "revision": 7, "term": 2, "leader": "aa",
            "lease_left_ms": 1500, "ceiling": 9, "shard_count": 2, "copies": 2,
            "nodes": [node("n1", "aa", true), node("n2", "bb", false)],
            "shards": [shard(0, "n1", "aa"), shard(1, "n2", "bb")]});
        change(&mut answer);
        serde_json::from_value(answer).expect("an answer")
    }

    fn says(change: impl FnOnce(&mut serde_json::Value), what: &str) {
        let faults = faults(&cluster(change));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(what), "{faults:?}");
    }

    #[test]
    fn a_cluster_in_order_has_no_faults_and_a_row_for_each_node() {
        let cluster = cluster(|_| {});
        assert_eq!(faults(&cluster), Vec::<String>::new());
        let rows = rows(&cluster);
        assert_eq!(
            rows[1..],
            [
                [
                    "n1",
                    "aa",
                    "127.0.0.1:1",
                    "edge owner",
                    "",
                    "alive",
                    "leader",
                    "1",
                    "1",
                    ""
                ],
                [
                    "n2",
                    "bb",
                    "127.0.0.1:1",
                    "edge owner",
                    "",
                    "alive",
                    "voter",
                    "1",
                    "1",
                    ""
                ],
            ]
        );
        assert!(head(&cluster).contains("2 nodes, 2 shards, revision 7, term 2, 2 copies wanted"));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        says(
            |answer| answer["nodes"][1]["alive"] = false.into(),
            "n2 (127.0.0.1:1) is not alive",
        );
        says(
            |answer| answer["shards"][1]["owned"] = false.into(),
            "1 shard without a living owner: 1",
        );
        says(
            |answer| answer["shards"][0]["missing"] = 1.into(),
            "1 shard short of copies: 0",
        );
        says(|answer| answer["leader"] = ().into(), "nobody is known to lead");
        says(|answer| answer["lease_left_ms"] = 0.into(), "the lease of n1 has ended");
        says(|answer| answer["shard_count"] = 4.into(), "2 shards not assigned");
    }

    #[test]
    fn many_shards_are_counted_and_not_all_named() {
        says(
            |answer| {
                let shards = (0..20).map(|shard| json!({"shard": shard, "owner": "n2", "owned": shard < 3}));
                answer["shards"] = shards.collect();
            },
            "17 shards without a living owner: 3, 4, 5, 6, 7, 8, 9, 10, …",
        );
    }

    #[test]
    fn a_node_that_is_alone_is_no_fault() {
        let answer = json!({"cluster": "00ff", "nodes": [{"node": "node-7400", "address": "127.0.0.1:7400", "owned": 1}],
            "shards": [{"shard": 0, "owner": "node-7400"}]});
        let cluster: Cluster = serde_json::from_value(answer).expect("an answer");
        assert_eq!(faults(&cluster), Vec::<String>::new());
        assert_eq!(rows(&cluster)[1][7], "1");
    }

    #[test]
    fn a_name_from_outside_cannot_steer_the_terminal() {
        let cluster = cluster(|answer| answer["nodes"][0]["node"] = "\u{1b}[2J".into());
        assert_eq!(rows(&cluster)[1][0], "\\u{1b}[2J");
    }
}
