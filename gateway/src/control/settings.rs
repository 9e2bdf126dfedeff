//! What a control plane is told when it starts.

use super::ControlError;
use super::keys;
use super::seeds::Names;
use crate::config::Config;
use crate::storage;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tidings_membership::{Metadata, Roles, Text};
use tidings_protocol::mesh::VERSIONS;
use tidings_protocol::{ClusterId, ShardCount};

/// See the module.
#[derive(Clone)]
pub struct Settings {
    /// What the cluster is called.
    pub name: String,
    /// What people call this node.
    pub node_name: String,
    /// By which its nodes know each other.
    pub secret: String,
    /// Where others may be found.
    pub join: Vec<String>,
    /// How names among them are looked up.
    pub names: Names,
    /// How many form a cluster; 1: this node only joins one.
    pub expect: usize,
    /// Into how many shards a cluster that this node proposes is cut.
    pub shards: ShardCount,
    /// Copies of each shard, its owner's among them, in a cluster that is formed; later the map counts.
    pub copies: u8,
    /// Shards on the move at one time.
    pub moves: usize,
    /// Copies that one node fills at one time.
    pub fills: usize,
    /// How long an owner may go on without a word of the leader.
    pub lease: Duration,
    /// Where this node listens for others, TCP and UDP.
    pub node_listen: SocketAddr,
    /// Where others reach it, `host:port`; `None`: where it listens. Port 0: the port it got.
    pub node_advertise: Option<String>,
    /// Where clients reach it.
    pub client_url: String,
    /// It owns shards.
    pub owner: bool,
    /// It holds subscribers.
    pub edge: bool,
    /// It may vote.
    pub voter: bool,
    /// Where it stands.
    pub zone: String,
    /// The data directory, whose lock the caller holds; `None`: everything is in memory.
    pub data_dir: Option<PathBuf>,
    /// Whose versions are in the data directory, if there are any.
    pub identity: Option<storage::Identity>,
    /// A voter that is held dead for so long is replaced by another node.
    pub replace_voter: Duration,
    /// A node that is not there for so long, and holds nothing, is forgotten.
    pub forget_node: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("expect", &self.expect)
            .field("node_listen", &self.node_listen)
            .finish_non_exhaustive()
    }
}

fn wrong(key: &'static str, reason: impl Into<String>) -> ControlError {
    let reason = reason.into();
    ControlError::Config { key, reason }
}

/// The secret, from the key or from its file, with the name of the key. Perhaps two of them, a line each.
pub(super) fn secret(config: &Config) -> Result<(&'static str, String), ControlError> {
    let key = match config.cluster.secret_file.as_str() {
        "" => "cluster.secret",
        _ => "cluster.secret_file",
    };
    let read = config.cluster_secret();
    Ok((key, read.map_err(|error| wrong(key, error.to_string()))?))
}

impl Settings {
    /// Those of a configuration. `address` is where clients reach the node, `identity` whose versions are in the data
    /// directory.
    ///
    /// # Errors
    /// Names the key that is missing or makes no sense.
    pub fn new(
        config: &Config,
        address: SocketAddr,
        identity: Option<storage::Identity>,
    ) -> Result<Self, ControlError> {
        let (cluster, server) = (&config.cluster, &config.server);
        if ![1, 3, 5].contains(&cluster.expect) {
            return Err(wrong(
                "cluster.expect",
                "must be 3 or 5, or 1 for a node that joins a cluster that is there",
            ));
        }
        if cluster.name.is_empty() {
            return Err(wrong("cluster.name", "must not be empty"));
        }
        if !(500..=60_000).contains(&cluster.lease_ms) {
            return Err(wrong("cluster.lease_ms", "must be from 500 to 60000"));
        }
        let role = |name: &str| server.roles.iter().any(|role| role == name);
        if let Some(strange) = server
            .roles
            .iter()
            .find(|role| !["edge", "owner", "voter"].contains(&role.as_str()))
        {
            return Err(wrong(
                "server.roles",
                format!("names `{strange}`; there are edge, owner and voter"),
            ));
        }
        let (key, text) = secret(config)?;
        let secrets = keys::read(&text).map_err(|reason| wrong(key, reason))?;
        if secrets.first.mesh.is_of_edge() && server.roles != ["edge"] {
            return Err(wrong(
                "server.roles",
                format!(
                    "must be edge alone: {key} has the secret of edges, by which others know that this node is one"
                ),
            ));
        }
        let node_listen = server.node_listen.parse();
        let copies = u8::try_from(cluster.copies).unwrap_or(u8::MAX);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            name: cluster.name.clone(),
            node_name: config.node_name(address),
            secret: text,
            join: cluster.join.clone(),
            names: Names::of_the_system(),
            expect: usize::try_from(cluster.expect).unwrap_or(1),
            shards: ShardCount::new(u16::try_from(cluster.shards).unwrap_or(0))
                .ok_or_else(|| wrong("cluster.shards", "must be a power of two from 1 to 4096"))?,
            copies,
            moves: count(cluster.moves),
            fills: count(cluster.fills),
            lease: Duration::from_millis(cluster.lease_ms),
            node_listen: node_listen.map_err(|_| wrong("server.node_listen", "is not an address and port"))?,
            node_advertise: (!server.node_advertise.is_empty()).then(|| server.node_advertise.clone()),
            client_url: config.client_url(address),
            owner: role("owner"),
            edge: role("edge"),
            voter: role("voter"),
            zone: server.zone.clone(),
            data_dir: config.data_dir(),
            identity,
            replace_voter: Duration::from_millis(cluster.replace_voter_ms),
            forget_node: Duration::from_millis(cluster.forget_node_ms),
        })
    }
}

/// What a node with these settings tells the others of itself.
pub(super) fn metadata(settings: &Settings, address: SocketAddr, formed: Option<u64>, willing: bool) -> Metadata {
    Metadata {
        roles: Roles {
            edge: settings.edge,
            owner: settings.owner,
            // Before there is a cluster, who would not form one is not to be waited for.
            voter: settings.voter && (formed.is_some() || willing),
        },
        zone: Text::new(&settings.zone).unwrap_or_default(),
        node_addr: Some(address),
        client_url: Text::new(&settings.client_url).unwrap_or_default(),
        load_permille: 0,
        map_revision: 0,
        protocol: VERSIONS,
        release: Text::new(env!("CARGO_PKG_VERSION")).unwrap_or_default(),
        formed: formed.map(ClusterId),
        name: Text::new(&settings.node_name).unwrap_or_default(),
    }
}
