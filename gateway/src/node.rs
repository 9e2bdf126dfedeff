//! One node: its threads, what they share, and the order in which it starts and stops.
//!
//! Threads share nothing that is written on the way of a change: each has its runtime, its connections, its lane of
//! subscribers and its owner of shards, and they speak through channels.

mod cut_off;
mod forming;
mod leaving;
mod reloading;
mod starting;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use reloading::Live;
pub use reloading::{Change, ReadAgain, Reloaded};
pub use starting::Starting;

use crate::auth::{self, Auth, AuthError};
use crate::config::{Config, ConfigError};
use crate::control;
use crate::edge::{self, LaneHandle, LaneReceiver};
use crate::owner::{self, OwnerHandle};
use crate::peers;
use crate::recent::{self, Recent};
use crate::server::{self, Accepted, Admission, App, Gate, Http, Tls, TlsError};
use crate::storage::disk::Disk;
use crate::storage::{self, StorageError};
use crate::telemetry::Metrics;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidings_protocol::{ClusterId, HashKey, ObjectHash, ShardCount, Version};
use tidings_router::cut_off::Elsewhere;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// Threads beside each thread for what would hold it up: reading large bodies.
const BLOCKING_THREADS: usize = 2;

/// A node of a cluster waits so long for owners elsewhere before it serves.
const HEAR_FOR: Duration = Duration::from_secs(5);
/// And looks so often.
const HEAR_EVERY: Duration = Duration::from_millis(50);
/// A node that has heard nothing from the owner of some shard for so long is not ready. Longer than a failover takes.
const CUT_OFF_AFTER: Duration = Duration::from_secs(10);

/// What all threads of one node share.
#[derive(Debug)]
pub struct Node {
    /// As it was started.
    pub config: Config,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Which cluster it is in. In memory only, drawn at each start.
    pub cluster: ClusterId,
    /// The cluster's secret for hashing IDs. Drawn at each start likewise.
    pub key: HashKey,
    /// Into how many shards the hash space is cut.
    pub shards: ShardCount,
    /// The owner of each thread. Shard `s` belongs to owner `s % owners.len()`.
    pub owners: Vec<OwnerHandle>,
    /// The lane of each thread.
    pub lanes: Vec<LaneHandle>,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Below every version that its owners give: all of them begin with this floor, and none closes below it.
    pub first_version: Version,
    /// When it started.
    pub started: Instant,
    /// How many of its threads serve.
    pub serving: watch::Sender<usize>,
    /// Becomes true when a node of a cluster is asked to give up what it has before it stops.
    pub leaving: watch::Sender<bool>,
    /// Becomes true when the node is about to stop.
    pub draining: watch::Sender<bool>,
    /// Its open connections.
    pub admission: Arc<Admission>,
    /// What outlives the process; `None` in memory only.
    pub storage: Option<storage::Status>,
    /// What the cluster agreed on; `None` for a node that is alone and owns everything.
    pub control: Option<control::Handle>,
    /// Who is let in; `None` where nobody has to say who they are.
    pub auth: Option<Arc<Auth>>,
    /// Where operators reach it, if not where clients do.
    pub admin_address: Option<SocketAddr>,
    /// TLS for clients; `None`: in the clear.
    pub tls: Option<Arc<Tls>>,
    /// The way to other nodes; `None` likewise.
    pub peers: Option<peers::Handle>,
    /// Nothing has been heard for a while from owners of some shards.
    pub cut_off: AtomicBool,
    /// Where subscribers are to go, while they are sent away because this node is cut off.
    pub elsewhere: watch::Sender<Option<Elsewhere>>,
    /// What happened lately, for those who look.
    pub recent: Recent,
    /// The configuration as it counts now.
    pub(crate) live: reloading::Live,
}

/// Why a node did not start. **Nothing is left running.**
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listening socket cannot be opened.
    #[error("cannot listen on {address}: {}", explain(.cause))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Nobody could be let in as configured.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// There is no certificate to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node cannot be one of its cluster, or was stopped before it was.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A thread or runtime cannot be made, or there is no randomness.
    #[error("cannot start: {0}")]
    System(String),
}

fn explain(cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::AddrInUse {
        "the port is taken by another program (choose another with --listen ADDR:PORT)".to_owned()
    } else {
        cause.to_string()
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}

/// A node that runs. Dropping it drains the node without waiting.
#[derive(Debug)]
pub struct RunningNode {
    /// Where it listens; the true port where 0 was asked for.
    pub addr: SocketAddr,
    /// What its threads share.
    pub node: Arc<Node>,
    threads: Vec<JoinHandle<()>>,
    storage: Option<storage::Running>,
    peers: Option<peers::Running>,
    control: Option<control::Running>,
    /// The data directory is this process's until everything has ended.
    _disk: Option<Arc<dyn Disk>>,
}

impl RunningNode {
    /// Begins to stop: not ready, no new connections, subscribers sent elsewhere, requests in flight answered. A node of a cluster
    /// gives its shards up first, and serves meanwhile.
    pub fn leave(&self) {
        if self.node.control.is_some() {
            self.node.leaving.send_replace(true);
        } else {
            self.drain();
        }
    }

    /// The same without giving shards up: others find out by themselves.
    pub fn drain(&self) {
        self.node.draining.send_replace(true);
    }

    /// Waits until the node has stopped. Returns whether every thread ended in order.
    #[must_use]
    pub fn join(mut self) -> bool {
        let mut fine = true;
        let mut ended = |what: &'static str, in_order: bool| {
            if !in_order {
                tracing::error!(what, "did not end in order");
            }
            fine &= in_order;
        };
        for thread in self.threads.drain(..) {
            ended("a serving thread", thread.join().is_ok());
        }
        if let Some(peers) = self.peers.take() {
            ended("the links to other nodes", peers.join());
        }
        if let Some(storage) = self.storage.take() {
            ended("storage", storage.join());
        }
        if let Some(control) = &self.node.control {
            ended("membership of the cluster", control.over().borrow().is_none());
        }
        if let Some(control) = self.control.take() {
            ended("the control plane", control.stop());
        }
        fine
    }

    /// Stops and waits, at most about `drain.deadline_ms`.
    pub fn shutdown(self) {
        self.drain();
        _ = self.join();
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Node {
    /// Begins to start a node: what can be wrong with its configuration, its port or its data directory shows here. A node of
    /// a cluster looks for the others from now on and answers that it does.
    ///
    /// # Errors
    /// If the configuration makes no sense, the port is taken, or the data directory cannot be used.
    pub fn begin(config: Config) -> Result<Starting, StartError> {
        Starting::new(config)
    }

    /// Starts a node on threads of its own. One that is alone is there when this returns; one of a cluster is part of it
    /// then, **however long that takes**: see [`Node::begin`].
    ///
    /// # Errors
    /// If the configuration makes no sense, the port is taken, or the system gives no threads.
    pub fn start(config: Config) -> Result<RunningNode, StartError> {
        Self::begin(config)?.finish()
    }

    /// The index of the thread whose owner has this object.
    #[must_use]
    #[inline]
    pub fn owner_of(&self, object: ObjectHash) -> usize {
        usize::from(self.shards.shard(object).0) % self.owners.len()
    }

    /// Whether the node is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

async fn accept(
    listener: TcpListener,
    admin: Option<TcpListener>,
    node: Arc<Node>,
    admission: Arc<Admission>,
    dealers: Vec<mpsc::UnboundedSender<Accepted>>,
) -> io::Result<()> {
    if let Some(control) = &node.control {
        tokio::task::spawn_local(end_with(Arc::clone(&node), control.over()));
        tokio::task::spawn_local(leaving::leave_then_drain(Arc::clone(&node)));
        if let Some(auth) = &node.auth {
            let cut_off_after = Duration::from_millis(node.config.auth.cut_off_ms);
            tokio::task::spawn_local(auth::follow(Arc::clone(auth), control.watch(), cut_off_after));
        }
    }
    let clients = server::accept(
        listener,
        false,
        Arc::clone(&node),
        Arc::clone(&admission),
        dealers.clone(),
    );
    let result = match admin {
        None => clients.await,
        Some(admin) => {
            let operators = server::accept(admin, true, Arc::clone(&node), admission, dealers);
            tokio::try_join!(clients, operators).map(|((), ())| ())
        }
    };
    if result.is_err() {
        node.draining.send_replace(true);
    }
    result
}

/// Without its control plane a node must not go on.
async fn end_with(node: Arc<Node>, mut over: watch::Receiver<Option<String>>) {
    // An error: it was stopped, which is in order.
    if let Ok(why) = over.wait_for(Option::is_some).await {
        let why = why.as_deref().unwrap_or_default();
        tracing::error!(why, "this node cannot be part of its cluster any more, and stops");
        node.draining.send_replace(true);
    }
}

fn spawn(
    name: String,
    body: impl FnOnce(&runtime::Runtime, &LocalSet) + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    Ok(std::thread::Builder::new()
        .name(name)
        .spawn(move || body(&runtime, &LocalSet::new()))?)
}

/// Waits until this thread's lane has heard from every owner what it owns and how far back it can vouch: whoever
/// subscribed before would have to be told to fetch again.
async fn hear_owners(node: &Node, thread: usize, begun: &watch::Sender<usize>) {
    begun.send_modify(|begun| *begun += 1);
    let threads = node.owners.len();
    // A failure means that the other threads are gone already; so below.
    _ = begun.subscribe().wait_for(|begun| *begun >= threads).await;
    let heard_by = tokio::time::Instant::now() + HEAR_FOR;
    while let Some(stats) = node.lanes[thread].stats().await {
        let all = stats.closed > Version::ZERO && stats.lagging_shards == 0;
        // Owners here spoke before their lanes could be asked. Others may be far away, or dead.
        if node.control.is_none() || all || node.is_draining() || tokio::time::Instant::now() >= heard_by {
            return;
        }
        tokio::time::sleep(HEAR_EVERY).await;
    }
}

/// Looks whether something comes from the owners of all shards.
async fn watch_owners(node: Arc<Node>, thread: usize) {
    let (mut last, mut since) = (Version::ZERO, None::<Instant>);
    while let Some(stats) = node.lanes[thread].stats().await {
        if stats.closed > last && stats.lagging_shards == 0 {
            since = Some(Instant::now());
        }
        last = last.max(stats.closed);
        let is = since.is_none_or(|since| since.elapsed() > CUT_OFF_AFTER);
        if node.cut_off.swap(is, Ordering::Relaxed) != is {
            let lagging = stats.lagging_shards;
            if is {
                tracing::warn!(lagging, "nothing is heard from the owners of some shards: not ready");
            } else {
                tracing::info!("the owners of all shards are heard again");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One thread's share of a node.
struct Parts {
    thread: usize,
    node: Arc<Node>,
    gate: Arc<Gate>,
    admin_gate: Arc<Gate>,
    owner: owner::Begin,
    lane: LaneReceiver,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    // Counts the threads whose owner has spoken to every lane.
    begun: watch::Sender<usize>,
    // Counts the threads that have drained. All leave together: until then each may need another's owner.
    stop: watch::Sender<usize>,
}

impl Parts {
    async fn run(mut self) {
        owner::start(self.thread, &self.node, self.owner);
        edge::start(self.thread, Arc::clone(&self.node), self.lane);
        edge::follow_cluster(&self.node, self.thread);
        let app = App {
            node: Arc::clone(&self.node),
            thread: self.thread,
        };
        if self.node.control.is_some() && self.thread == 0 {
            tokio::task::spawn_local(watch_owners(Arc::clone(&self.node), self.thread));
            tokio::task::spawn_local(cut_off::watch(Arc::clone(&self.node)));
        }
        if self.thread == 0 {
            tokio::task::spawn_local(recent::record(Arc::clone(&self.node)));
        }
        hear_owners(&self.node, self.thread, &self.begun).await;
        self.node.serving.send_modify(|serving| *serving += 1);
        let separate = !self.node.config.server.admin_listen.is_empty();
        let tls = self.node.tls.clone();
        let http = Http::new(app.clone(), crate::routes(app.clone(), !separate), self.gate, tls);
        // Without a listener of its own nobody is dealt to it.
        let operators = Http::new(app.clone(), crate::operators_routes(app), self.admin_gate, None);
        let mut draining = self.node.draining.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                Some(accepted) = self.accepted.recv() => match accepted.operator {
                    true => operators.spawn(accepted),
                    false => http.spawn(accepted),
                },
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.node.live().drain.deadline_ms);
        let lane = &self.node.lanes[self.thread];
        let drained = async { tokio::join!(edge::drain(lane, deadline), http.drain(), operators.drain()) };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            tracing::warn!(thread = self.thread, "connections were still open at the deadline");
        }
        self.stop.send_modify(|drained| *drained += 1);
        let threads = self.node.owners.len();
        // A failure means that the other threads are gone already.
        _ = self.stop.subscribe().wait_for(|drained| *drained >= threads).await;
    }
}

/// Runs a task without which the process must not go on: if it panics, so does the process.
pub(crate) fn spawn_vital(name: &'static str, task: impl Future<Output = ()> + 'static) {
    let task = tokio::task::spawn_local(task);
    tokio::task::spawn_local(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(
                name,
                "a vital task panicked; the process ends rather than go on with broken state"
            );
            std::process::abort();
        }
    });
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::System(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// How many connections may be open: as configured, else 90 % of the descriptors the process may open.
fn connections(config: &Config) -> u64 {
    match config.limits.connections {
        0 => descriptors() / 10 * 9,
        connections => connections,
    }
}

/// How many descriptors the process may open, after asking for as many as the system allows.
fn descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let wider = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, wider).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.unwrap_or(1 << 20)
}
