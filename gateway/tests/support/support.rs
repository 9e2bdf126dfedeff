//! What the end-to-end suites share: a node on a free port, and clients that know nothing of its inside.
//!
//! Clients are blocking and wait at most [`PATIENCE`] for anything, so that a test fails with a sentence instead of
//! hanging. Nothing here measures speed. Where a test must know that nothing else was told, it reads on until a cursor
//! vouches for everything up to a version ([`Ear::up_to`]), which needs no guess about time.
#![allow(dead_code, unused_imports, reason = "each suite uses its share")]

mod cluster;
mod curl;
pub(crate) mod door;
mod ear;
mod event_source;
mod events;
mod folder;
mod http;
mod poll;
mod process;
mod publish;
mod ws;

pub(crate) use cluster::{
    Cluster, Dice, Disk, Fault, Gate, Hand, LONG, Life, Plan, SHARDS, Told, Try, ask, causes, publish_at,
};
pub(crate) use curl::Curl;
pub(crate) use ear::{Ear, Heard, covers};
pub(crate) use event_source::EventSource;
pub(crate) use events::{Events, blocks};
pub(crate) use folder::{Mount, OFTEN, load, publish_durable, serve_in};
pub(crate) use http::{Answer, Raw, delete, get, post, post_json, send};
pub(crate) use poll::{Poll, Poller};
pub(crate) use process::Program;
pub(crate) use publish::{publish, publish_all, publish_with, version_of};
pub(crate) use ws::{Frame, HANDSHAKE, RawWs, Ws, frame};

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidings::config::Config;
use tidings::{Node, RunningNode};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node of two threads on a free port, which sends cursors often so that tests need not wait for them.
pub(crate) fn node() -> RunningNode {
    node_with(|_| {})
}

/// The same with another configuration.
pub(crate) fn node_with(change: impl FnOnce(&mut Config)) -> RunningNode {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = "none".to_owned();
    config.limits.cursor_ms = 50;
    config.limits.ping_ms = 200;
    config.limits.pong_ms = 30_000;
    config.owner.closed_busy_ms = 20;
    config.owner.closed_idle_ms = 100;
    config.drain.spread_ms = 500;
    change(&mut config);
    let node = Node::start(config).expect("the node starts");
    settle(node.addr);
    node
}

/// Waits until every thread has heard from every owner how far its versions go back. Whoever comes in the first
/// milliseconds may be told to fetch what it asks for once more, which is not what the tests are about.
fn settle(address: SocketAddr) {
    let cluster = get(address, "/v1/cluster").ok();
    let shards = cluster["shards"].as_array().expect("shards");
    let floor = shards
        .iter()
        .filter_map(|shard| shard["floor"].as_u64())
        .max()
        .expect("a floor");
    // Connections are dealt out to the threads in turn.
    for _ in 0..4 {
        Events::open(address, &["settling"], None).up_to(floor);
    }
    eventually("nobody is connected", || {
        get(address, "/v1/connections").ok()["connections"] == serde_json::json!([])
    });
}

/// `count` object names that begin alike.
pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// Asks again and again until the answer is yes.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < PATIENCE, "{what}: still not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A subscriber that has nothing to do with what a test does to the server, and must miss nothing of it.
pub(crate) struct Bystander {
    ws: Ws,
    address: SocketAddr,
    object: String,
}

impl Bystander {
    /// Subscribes to an object of its own.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let object = "bystander's object".to_owned();
        let mut ws = Ws::open(address);
        ws.subscribe(&[&object]);
        Self { ws, address, object }
    }

    /// The server lives, takes a publish, and this subscriber hears of exactly that.
    pub(crate) fn misses_nothing(&mut self) {
        let version = publish(self.address, &self.object);
        let heard = self.ws.up_to(version);
        heard.is_exactly(&[(&self.object, version)]);
    }
}
