//! Nodes with everything but a control plane: that is played by the test.

use super::relay::Relay;
use crate::config::Config;
use crate::control::{self, Peer, View};
use crate::mesh::dial::answer;
use crate::mesh::{ClusterKey, Identity, Limits};
use crate::node::Node;
use crate::owner::{self, OwnerReceiver};
use crate::peers::{self, Handle, Running};
use crate::server::{self, Admission, App, Gate, Http};
use crate::telemetry::Metrics;
use crate::testing::{Answer, ask, post};
use crate::{clock, edge};
use serde_json::Value;
use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ClusterId, HashKey, NodeId, ShardCount, ShardId, Version};
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

const CLUSTER: ClusterId = ClusterId(7);

/// What its owners do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// It has none: it is an edge.
    None,
    /// So many.
    Some(usize),
    /// One, which takes batches and never answers.
    Silent,
}

/// A node to be.
pub(super) struct Plan {
    pub(super) owners: Owners,
    pub(super) config: Config,
    pub(super) limits: Limits,
}

/// A plan with two lanes and the usual limits.
pub(super) fn plan(owners: Owners) -> Plan {
    Plan {
        owners,
        config: Config::default(),
        limits: Limits {
            handshake: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            retry_longest: Duration::from_millis(100),
            ..Limits::default()
        },
    }
}

pub(super) fn edge() -> Plan {
    plan(Owners::None)
}

pub(super) fn owner() -> Plan {
    plan(Owners::Some(2))
}

/// A node that runs.
pub(super) struct TestNode {
    pub(super) node: Arc<Node>,
    pub(super) process: Process,
    /// For clients.
    pub(super) address: SocketAddr,
    /// Before its port for other nodes.
    pub(super) relay: Relay,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) proposals: RefCell<control::Proposals>,
    peers: Option<Running>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// See the module. Nodes are called by their place.
pub(super) struct World {
    pub(super) map: Map,
    pub(super) nodes: Vec<TestNode>,
}

impl World {
    /// Nodes that all see all, and shards without an owner.
    pub(super) fn of(plans: impl IntoIterator<Item = Plan>) -> Self {
        let mut world = Self {
            map: Map::new(CLUSTER, shards(), 1),
            nodes: Vec::new(),
        };
        for (place, plan) in plans.into_iter().enumerate() {
            let process = Process {
                node: NodeId(place as u64 + 1),
                incarnation: 1,
            };
            let owns = plan.owners != Owners::None;
            world.register(process, owns);
            world.nodes.push(start(process, plan));
        }
        world.show_all();
        world
    }

    /// Enters a life of a node into the map.
    pub(super) fn register(&mut self, process: Process, owns: bool) {
        let info = NodeInfo {
            roles: Roles {
                owner: owns,
                edge: true,
            },
            zone: String::new(),
            peer_address: String::new(),
            client_address: String::new(),
        };
        self.map.apply(&Command::Register { process, info }).unwrap();
    }

    /// Gives a shard to a node, in the map.
    pub(super) fn give(&mut self, shard: ShardId, node: usize) {
        // No version of an earlier epoch is above.
        let to = Version(clock::now().wall_us + 100_000);
        _ = self.map.apply(&Command::RaiseCeiling { to });
        let known = self.map.shard(shard).unwrap();
        let with = if known.owner.is_none() {
            With::Fresh
        } else {
            With::Nothing(FloorCause::Lost)
        };
        let seen = Seen::of(&self.map, shard).unwrap();
        let to = self.nodes[node].process;
        self.map.apply(&Command::Assign { seen, to, with }).unwrap();
    }

    /// Gives all shards to a node, and shows it to all.
    pub(super) fn give_all(&mut self, node: usize) {
        shards().all().for_each(|shard| self.give(shard, node));
        self.show_all();
    }

    /// Shows a node the map as it is.
    pub(super) fn show(&self, node: usize) {
        self.show_with(node, |_| {});
    }

    /// The same, otherwise than it is.
    pub(super) fn show_with(&self, node: usize, change: impl FnOnce(&mut View)) {
        let others = self
            .nodes
            .iter()
            .filter(|other| other.process.node != self.nodes[node].process.node);
        let peer = |other: &TestNode| Peer {
            process: other.process,
            name: format!("node-{}", other.process.node),
            address: other.relay.address,
            client_url: String::new(),
            alive: true,
        };
        let mut view = View {
            map: Arc::new(self.map.clone()),
            peers: Arc::new(others.map(|other| (other.process.node, peer(other))).collect()),
            ..nothing(self.nodes[node].process)
        };
        change(&mut view);
        self.nodes[node].view.send_replace(Arc::new(view));
    }

    pub(super) fn show_all(&self) {
        (0..self.nodes.len()).for_each(|node| self.show(node));
    }

    /// Waits until a node has a connection to the owners of another.
    pub(super) fn wait_connected(&self, from: usize, to: usize) {
        let peers = self.nodes[from].handle();
        until("connected", || peers.is_connected(self.nodes[to].process.node));
    }
}

impl TestNode {
    pub(super) fn handle(&self) -> &Handle {
        self.node.peers.as_ref().unwrap()
    }

    /// How many frames of a kind it sent to other nodes.
    pub(super) fn sent(&self, kind: &str) -> u64 {
        self.handle().counts().sent.of_kind(kind)
    }

    /// A number of `/metrics`.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let mut number = None;
        // The thread of peers names its own when it starts.
        until(name, || {
            let text = ask(self.address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body;
            let text = String::from_utf8(text).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            number = line.map(|line| line.parse().unwrap());
            number.is_some()
        });
        number.unwrap()
    }

    pub(super) fn publish(&self, query: &str) -> Answer {
        post(self.address, &format!("/v1/publish?{query}"), "", b"")
    }

    /// Publishes an object, which must succeed, and gives its version.
    #[track_caller]
    pub(super) fn version_of(&self, object: &str) -> u64 {
        let answer = self.publish(&format!("object={object}"));
        assert_eq!(
            answer.status,
            200,
            "{:?} {}",
            answer,
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()["version"].as_u64().unwrap()
    }

    /// A subscriber that has a cursor and knows nothing yet.
    pub(super) fn subscriber(&self, objects: &[&str]) -> Subscriber {
        let first = poll(self.address, objects, None, 5_000);
        Subscriber {
            address: self.address,
            objects: objects.iter().map(|object| (*object).to_owned()).collect(),
            cursor: first["cursor"].as_str().unwrap().to_owned(),
            nothing: Vec::new(),
        }
    }
}

/// One poll; it watches the objects and goes on behind the cursor.
fn poll(address: SocketAddr, objects: &[&str], cursor: Option<&str>, wait_ms: u64) -> Value {
    let mut query = format!("wait_ms={wait_ms}");
    objects
        .iter()
        .for_each(|object| query.push_str(&format!("&object={object}")));
    if let Some(cursor) = cursor {
        query.push_str(&format!("&cursor={cursor}"));
    }
    let answer = ask(
        address,
        &format!("GET /v1/poll?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Somebody who polls one node.
pub(super) struct Subscriber {
    address: SocketAddr,
    objects: Vec<String>,
    cursor: String,
    /// Answers that named nothing that was asked for.
    pub(super) nothing: Vec<Value>,
}

/// What a subscriber was told of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Version(u64),
    Resync(String),
    Nothing,
}

impl Subscriber {
    /// Polls once and tells what it says of an object.
    pub(super) fn poll(&mut self, object: &str, wait_ms: u64) -> Told {
        let objects: Vec<&str> = self.objects.iter().map(String::as_str).collect();
        let answer = poll(self.address, &objects, Some(&self.cursor), wait_ms);
        answer["cursor"].as_str().unwrap().clone_into(&mut self.cursor);
        let changes = answer["changes"].as_array().into_iter().flatten();
        let versions = changes.filter(|change| change["object"] == object);
        if let Some(version) = versions.filter_map(|change| change["version"].as_u64()).max() {
            return Told::Version(version);
        }
        let resync = answer["resync"]["objects"].as_array().into_iter().flatten();
        if answer["resync"]["all"] == true || resync.into_iter().any(|name| name == object) {
            return Told::Resync(answer["resync"]["cause"].as_str().unwrap().to_owned());
        }
        self.nothing.push(answer);
        Told::Nothing
    }

    /// Polls until it is told of this version of an object, or a newer one.
    #[track_caller]
    pub(super) fn hear(&mut self, object: &str, version: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.poll(object, 1_000) {
                Told::Version(told) if told >= version => return,
                told => assert!(
                    Instant::now() < end,
                    "{object} at {version} is never told, but {told:?}: {:?}",
                    self.nothing
                ),
            }
        }
    }
}

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "not {what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn shards() -> ShardCount {
    ShardCount::new(16).unwrap()
}

pub(super) fn shard_of(object: &str) -> ShardId {
    shards().shard(HashKey::new([7; 16]).object(object))
}

fn nothing(me: Process) -> View {
    View {
        me,
        map: Arc::new(Map::new(CLUSTER, shards(), 1)),
        until_us: u64::MAX,
        ceiling: Version(Version::LIMIT - 1),
        confirmed: true,
        peers: Arc::default(),
        leader: None,
        voters: Default::default(),
    }
}

/// What runs on the node's thread.
struct Stage {
    node: Arc<Node>,
    listener: TcpListener,
    mesh: TcpListener,
    identity: Identity,
    limits: Limits,
    owners: Vec<OwnerReceiver>,
    silent: bool,
    lanes: Vec<edge::LaneReceiver>,
    links: mpsc::UnboundedSender<crate::mesh::handshake::Connection>,
}

fn start(process: Process, plan: Plan) -> TestNode {
    let Plan { owners, config, limits } = plan;
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mesh = TcpListener::bind("127.0.0.1:0").unwrap();
    mesh.set_nonblocking(true).unwrap();
    let relay = Relay::to(mesh.local_addr().unwrap());
    let count = match owners {
        Owners::None => 0,
        Owners::Some(count) => count,
        Owners::Silent => 1,
    };
    let (owner_handles, owner_ends) = (0..count).map(|_| owner::channel(64)).unzip();
    let (lanes, lane_ends) = (0..2).map(|_| edge::channel()).unzip();
    let view = watch::Sender::new(Arc::new(nothing(process)));
    let (control, proposals) = control::Handle::observed(view.subscribe());
    let handle = Handle::new(count, config.limits.forward_bytes as usize);
    let metrics = Arc::new(Metrics::new(&config));
    let node = Arc::new(Node {
        cluster: CLUSTER,
        key: HashKey::new([7; 16]),
        shards: shards(),
        owners: owner_handles,
        lanes,
        name: format!("node-{}", process.node.0),
        address,
        first_version: Version(clock::now().wall_us),
        started: Instant::now(),
        serving: watch::Sender::new(0),
        leaving: watch::Sender::new(false),
        draining: watch::Sender::new(false),
        cut_off: AtomicBool::new(false),
        elsewhere: watch::Sender::new(None),
        recent: crate::recent::Recent::default(),
        admission: Admission::new(&config, 1_000, Arc::clone(&metrics)),
        live: crate::node::Live::new(&config),
        storage: None,
        control: Some(control.clone()),
        peers: Some(handle.clone()),
        auth: None,
        tls: None,
        admin_address: None,
        metrics,
        config,
    });
    let identity = Identity::new(CLUSTER, process.node, process.incarnation, ClusterKey::new([3; 32]));
    let (links, links_end) = mpsc::unbounded_channel();
    let begin = peers::Begin {
        handle,
        node: Arc::clone(&node),
        control,
        identity: identity.clone(),
        limits,
        links: links_end,
    };
    let stage = Stage {
        node: Arc::clone(&node),
        listener,
        mesh,
        identity,
        limits,
        owners: owner_ends,
        silent: owners == Owners::Silent,
        lanes: lane_ends,
        links,
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, run(stage, stopped));
    });
    TestNode {
        node,
        process,
        address,
        relay,
        view,
        proposals: RefCell::new(proposals),
        peers: Some(peers::start(begin).unwrap()),
        stop: Some(stop),
        thread: Some(thread),
    }
}

async fn run(stage: Stage, mut stopped: oneshot::Receiver<()>) {
    let node = stage.node;
    let mut idle = Vec::new();
    for (thread, receiver) in stage.owners.into_iter().enumerate() {
        if stage.silent {
            idle.push(receiver);
        } else {
            owner::start(thread, &node, owner::Begin::in_memory(receiver));
        }
    }
    for (thread, receiver) in stage.lanes.into_iter().enumerate() {
        edge::start(thread, Arc::clone(&node), receiver);
    }
    let mesh = tokio::net::TcpListener::from_std(stage.mesh).unwrap();
    let (links, identity, limits) = (stage.links, stage.identity, stage.limits);
    spawn_local(async move {
        while let Ok((stream, _)) = mesh.accept().await {
            let (links, identity) = (links.clone(), identity.clone());
            spawn_local(async move {
                if let Ok(connection) = answer(stream, &identity, &limits).await {
                    _ = links.send(connection);
                }
            });
        }
    });
    let app = App {
        node: Arc::clone(&node),
        thread: 0,
    };
    let gate = Arc::new(Gate::new(&node.config, node.address));
    let http = Http::new(app.clone(), crate::routes(app, true), gate, None);
    let (dealer, mut accepted) = mpsc::unbounded_channel();
    let admission = Arc::clone(&node.admission);
    spawn_local(server::accept(
        stage.listener,
        false,
        Arc::clone(&node),
        admission,
        vec![dealer],
    ));
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(accepted) = accepted.recv() => http.spawn(accepted),
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(|thread| thread.join().is_ok());
        let peers = self.peers.take().map(Running::join);
        if !std::thread::panicking() {
            assert_eq!((ended, peers), (Some(true), Some(true)), "a thread of a node failed");
        }
    }
}
