//! One node: its threads, what they share, and the order in which it starts and stops.
//!
//! Threads share nothing that is written on the way of a change: each has its runtime, its connections, its lane of
//! subscribers and its owner of shards, and they speak through channels.

use crate::clock;
use crate::config::{Config, ConfigError};
use crate::control;
use crate::edge::{self, LaneHandle, LaneReceiver};
use crate::owner::{self, OwnerHandle, OwnerSource};
use crate::peers;
use crate::server::{self, Accepted, Admission, App, Gate, Http};
use crate::storage::{self, StorageError};
use crate::telemetry::Metrics;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidings_protocol::{ClusterId, HashKey, ObjectHash, ShardCount, Version};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// Threads beside each thread for what would hold it up: reading large bodies.
const BLOCKING_THREADS: usize = 2;

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
    /// Becomes true when the node is about to stop.
    pub draining: watch::Sender<bool>,
    /// Its open connections.
    pub admission: Arc<Admission>,
    /// What outlives the process; `None` in memory only.
    pub storage: Option<storage::Status>,
    /// What the cluster agreed on; `None` for a node that is alone and owns everything.
    pub control: Option<control::Handle>,
    /// The way to other nodes; `None` likewise.
    pub peers: Option<peers::Handle>,
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
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
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
}

impl RunningNode {
    /// Begins to stop: not ready, no new connections, subscribers sent elsewhere, requests in flight answered.
    pub fn drain(&self) {
        self.node.draining.send_replace(true);
    }

    /// Waits until the node has stopped. Returns whether every thread ended in order.
    #[must_use]
    pub fn join(mut self) -> bool {
        let mut fine = true;
        for thread in self.threads.drain(..) {
            fine &= thread.join().is_ok();
        }
        if let Some(storage) = self.storage.take() {
            fine &= storage.join();
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
    /// Starts a node on threads of its own.
    ///
    /// # Errors
    /// If the configuration makes no sense, the port is taken, or the system gives no threads.
    pub fn start(config: Config) -> Result<RunningNode, StartError> {
        crate::config::validate(&config)?;
        let address = config.listen()?;
        let listener = server::bind(address).map_err(|cause| StartError::Listen { address, cause })?;
        let address = listener.local_addr()?;
        let count = config.threads();
        let (owners, owner_ends): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| owner::channel(usize::try_from(config.limits.owner_queue).unwrap_or(usize::MAX >> 4)))
            .unzip();
        let (lanes, lane_ends): (Vec<_>, Vec<_>) = (0..count).map(|_| edge::channel()).unzip();
        let metrics = Arc::new(Metrics::new(&config));
        let admission = Admission::new(
            connections(&config),
            config.limits.connections_per_address,
            Arc::clone(&metrics),
        );
        let shards = ShardCount::new(config.cluster.shards as u16).unwrap_or(ShardCount::DEFAULT);
        let fresh = storage::Identity {
            cluster: u64::from_le_bytes(random()?),
            key: random()?,
            shards: shards.get(),
            since: Version(clock::now().wall_us),
        };
        let opened = open(&config, shards, count, fresh)?;
        let (identity, mut kept, idle) = match opened {
            Some(opened) => {
                let kept = opened.machines.into_iter().zip(opened.handles).map(Some).collect();
                (opened.identity, kept, Some(opened.idle))
            }
            None => (fresh, Vec::new(), None),
        };
        kept.resize_with(count, || None);
        if let Some(idle) = &idle {
            metrics.register(|registry| idle.status().metrics().register(registry));
        }
        let node = Arc::new(Self {
            metrics,
            cluster: ClusterId(identity.cluster),
            key: HashKey::new(identity.key),
            shards,
            storage: idle.as_ref().map(storage::Idle::status),
            control: None,
            peers: None,
            owners,
            lanes,
            name: if config.server.name.is_empty() {
                format!("node-{}", address.port())
            } else {
                config.server.name.clone()
            },
            address,
            first_version: Version(crate::clock::now().wall_us),
            started: Instant::now(),
            draining: watch::Sender::new(false),
            admission,
            config,
        });
        let mut running = RunningNode {
            addr: address,
            node: Arc::clone(&node),
            threads: Vec::new(),
            storage: None,
        };
        if let Some(idle) = idle {
            let owners = node.owners.clone();
            running.storage = Some(idle.start(OwnerSource { owners, shards })?);
        }
        let gate = Arc::new(Gate::new(&node.config, address));
        let (begun, stop) = (watch::Sender::new(0_usize), watch::Sender::new(0_usize));
        let mut dealers = Vec::new();
        for (thread, ((receiver, kept), lane)) in owner_ends.into_iter().zip(kept).zip(lane_ends).enumerate() {
            let (dealer, accepted) = mpsc::unbounded_channel();
            dealers.push(dealer);
            let parts = Parts {
                thread,
                node: Arc::clone(&node),
                gate: Arc::clone(&gate),
                owner: owner::Begin {
                    receiver,
                    kept,
                    shelf: None,
                },
                lane,
                accepted,
                begun: begun.clone(),
                stop: stop.clone(),
            };
            running
                .threads
                .push(spawn(format!("tidings-{thread}"), move |runtime, local| {
                    local.block_on(runtime, parts.run());
                })?);
        }
        running
            .threads
            .push(spawn("tidings-accept".to_owned(), move |runtime, local| {
                let admission = Arc::clone(&node.admission);
                if let Err(error) = local.block_on(runtime, accept(listener, node, admission, dealers)) {
                    tracing::error!(%error, "the listening socket failed");
                }
            })?);
        Ok(running)
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

/// Reads what the last run left; `None` if everything is kept in memory only.
fn open(
    config: &Config,
    shards: ShardCount,
    owners: usize,
    fresh: storage::Identity,
) -> Result<Option<storage::Opened>, StorageError> {
    let Some(path) = config.data_dir() else { return Ok(None) };
    let folder = storage::disk::Folder::open(&path).map_err(|error| StorageError::folder(path, error))?;
    let plan = storage::Plan {
        fresh,
        clustered: false,
        owners,
        machine: owner::machine_config(config, shards, owners),
        now: clock::now(),
        wall_us: || clock::now().wall_us,
        boot: storage::boot_id(),
        log_file_bytes: config.storage.log_file_bytes,
        log_bytes: config.storage.log_bytes,
        queue_bytes: usize::try_from(config.storage.queue_bytes).unwrap_or(usize::MAX),
    };
    let disk: Arc<dyn storage::disk::Disk> = Arc::new(folder);
    storage::open(&disk, &plan).map(Some)
}

async fn accept(
    listener: TcpListener,
    node: Arc<Node>,
    admission: Arc<Admission>,
    dealers: Vec<mpsc::UnboundedSender<Accepted>>,
) -> io::Result<()> {
    let result = server::accept(listener, Arc::clone(&node), admission, dealers).await;
    if result.is_err() {
        node.draining.send_replace(true);
    }
    result
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
    _ = node.lanes[thread].stats().await;
}

/// One thread's share of a node.
struct Parts {
    thread: usize,
    node: Arc<Node>,
    gate: Arc<Gate>,
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
        let app = App {
            node: Arc::clone(&self.node),
            thread: self.thread,
        };
        hear_owners(&self.node, self.thread, &self.begun).await;
        let http = Http::new(app.clone(), crate::routes(app), self.gate);
        let mut draining = self.node.draining.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                Some(accepted) = self.accepted.recv() => http.spawn(accepted),
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.node.config.drain.deadline_ms);
        let lane = &self.node.lanes[self.thread];
        let drained = async { tokio::join!(edge::drain(lane, deadline), http.drain()) };
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
