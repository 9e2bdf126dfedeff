//! A node on its way: the order in which it comes to life.
//!
//! Configuration, port, data directory; a node of a cluster then looks for the others, and only once it is part of the
//! cluster it knows whose versions it keeps and by which key IDs are hashed. Then storage, threads, the listening socket
//! and the links to other nodes.

use super::forming::Forming;
use super::{Node, Parts, RunningNode, StartError, accept, connections, random, spawn};
use crate::auth::Auth;
use crate::config::Config;
use crate::edge::{self, LaneReceiver};
use crate::owner::{self, OwnerReceiver, OwnerSource};
use crate::recent::Recent;
use crate::server::{self, Admission, Gate, Tls};
use crate::storage::disk::{Disk, Folder};
use crate::storage::{self, StorageError};
use crate::telemetry::Metrics;
use crate::{clock, control, mesh, peers};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tidings_protocol::{ClusterId, HashKey, ShardCount, Version};
use tokio::sync::{mpsc, watch};

/// See the module. Dropping it ends what has begun.
#[derive(Debug)]
pub struct Starting {
    /// Where it listens; the true port where 0 was asked for.
    pub addr: SocketAddr,
    config: Config,
    listener: TcpListener,
    admin: Option<TcpListener>,
    disk: Option<Arc<dyn Disk>>,
    forming: Option<Forming>,
    auth: Option<Arc<Auth>>,
    tls: Option<Arc<Tls>>,
}

/// The channels' ends that its threads take.
type Ends = (Vec<OwnerReceiver>, Vec<LaneReceiver>);

impl Starting {
    pub(super) fn new(config: Config) -> Result<Self, StartError> {
        crate::config::validate(&config)?;
        let auth = Auth::load(&config)?;
        let tls = Tls::load(&config)?.map(Arc::new);
        let bind = |address| server::bind(address).map_err(|cause| StartError::Listen { address, cause });
        let listener = bind(config.listen()?)?;
        let admin = config.admin_listen()?.map(bind).transpose()?;
        let addr = listener.local_addr()?;
        let path = config.data_dir();
        let disk = path.as_deref().map(take_folder).transpose()?;
        let was_clustered = path.as_deref().is_some_and(|path| {
            // What cannot be read there is looked at again, and then named.
            control::is_of_a_cluster(path).unwrap_or(true)
        });
        let forming = if config.is_clustered() || was_clustered {
            if !config.is_clustered() {
                tracing::info!("the data directory is that of a node of a cluster: this node looks for it again");
            }
            config.check_cluster()?;
            let identity = disk.as_deref().map(storage::identity).transpose()?.flatten();
            let settings = control::Settings::new(&config, addr, identity)?;
            Some(Forming::begin(control::start(settings)?, listener.try_clone()?)?)
        } else {
            None
        };
        Ok(Self {
            addr,
            config,
            listener,
            admin,
            disk,
            forming,
            auth,
            tls,
        })
    }

    /// How it was configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether [`Starting::finish`] waits for other nodes.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.forming.is_some()
    }

    /// Where other nodes reach it, if it is one of a cluster.
    #[must_use]
    pub fn node_address(&self) -> Option<SocketAddr> {
        self.forming.as_ref().map(|forming| forming.node_address)
    }

    /// Gives up waiting for other nodes, from elsewhere: [`Starting::finish`] then ends with an error.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let stop = self.forming.as_ref().map(Forming::stopper);
        move || {
            if let Some(stop) = &stop {
                stop();
            }
        }
    }

    /// Waits until the node is part of its cluster, **however long that takes**, and brings it to life. At once for a node that
    /// is alone.
    ///
    /// # Errors
    /// If it was stopped, cannot be part of the cluster, or the system gives no threads. Nothing is left running.
    pub fn finish(mut self) -> Result<RunningNode, StartError> {
        let formed = self.forming.take().map(Forming::finish).transpose()?;
        self.launch(formed)
    }

    fn launch(self, formed: Option<control::Formed>) -> Result<RunningNode, StartError> {
        let Self {
            addr,
            config,
            listener,
            admin,
            disk,
            forming: _,
            auth,
            tls,
        } = self;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let fresh = match &formed {
            Some(formed) => formed.identity,
            None => storage::Identity {
                cluster: u64::from_le_bytes(random()?),
                key: random()?,
                shards: shards(config.cluster.shards).get(),
                since: Version(clock::now().wall_us),
            },
        };
        let opened = match &disk {
            Some(disk) => Some(storage::open(disk, &plan(&config, fresh, formed.is_some()))?),
            None => None,
        };
        let mut kept = Kept::of(opened, fresh);
        if let (Some(auth), Some(folder), None) = (&auth, config.data_dir(), &formed) {
            auth.keep_in(&folder)?;
        }
        let (node, ends) = Self::node(
            addr,
            config,
            &kept,
            formed.as_ref(),
            Guards {
                auth,
                tls,
                admin_address,
            },
        );
        let mut running = RunningNode {
            addr,
            node: Arc::clone(&node),
            threads: Vec::new(),
            storage: None,
            peers: None,
            control: None,
            _disk: disk,
        };
        if let Some(idle) = kept.idle.take() {
            node.metrics
                .register(|registry| idle.status().metrics().register(registry));
            let owners = node.owners.clone();
            let shards = node.shards;
            running.storage = Some(idle.start(OwnerSource { owners, shards })?);
        }
        if let Some(formed) = &formed {
            node.metrics
                .register(|registry| formed.handle.metrics().register(registry));
            formed.handle.set_on_disk(kept.on_shelves.clone());
        }
        Self::threads(&mut running, (listener, admin), ends, kept)?;
        if let (Some(formed), Some(handle)) = (formed, &node.peers) {
            running.control = Some(formed.running);
            running.peers = Some(peers::start(peers::Begin {
                handle: handle.clone(),
                node: Arc::clone(&node),
                control: formed.handle,
                identity: formed.mesh,
                limits: mesh::Limits::default(),
                links: formed.links,
            })?);
        }
        Ok(running)
    }

    fn node(
        addr: SocketAddr,
        config: Config,
        kept: &Kept,
        formed: Option<&control::Formed>,
        guards: Guards,
    ) -> (Arc<Node>, Ends) {
        let count = config.threads();
        let queue = usize::try_from(config.limits.owner_queue).unwrap_or(usize::MAX >> 4);
        let (owners, owner_ends): (Vec<_>, Vec<_>) = (0..count).map(|_| owner::channel(queue)).unzip();
        let (lanes, lane_ends): (Vec<_>, Vec<_>) = (0..count).map(|_| edge::channel()).unzip();
        let metrics = Arc::new(Metrics::new(&config));
        let admission = Admission::new(&config, connections(&config), Arc::clone(&metrics));
        let Guards {
            auth,
            tls,
            admin_address,
        } = guards;
        let key = HashKey::new(kept.identity.key);
        if let Some(auth) = &auth {
            auth.set_secret(&key);
            metrics.register(|registry| auth.metrics.register(registry));
        }
        let forward_bytes = usize::try_from(config.limits.forward_bytes).unwrap_or(usize::MAX);
        let node = Node {
            metrics,
            cluster: ClusterId(kept.identity.cluster),
            key,
            auth,
            tls,
            admin_address,
            shards: shards(u64::from(kept.identity.shards)),
            storage: kept.idle.as_ref().map(storage::Idle::status),
            control: formed.map(|formed| formed.handle.clone()),
            peers: formed.map(|_| peers::Handle::new(count, forward_bytes)),
            // Until something was heard of every shard.
            cut_off: AtomicBool::new(formed.is_some()),
            elsewhere: watch::Sender::new(None),
            owners,
            lanes,
            name: config.node_name(addr),
            address: addr,
            first_version: Version(clock::now().wall_us),
            started: Instant::now(),
            serving: watch::Sender::new(0),
            leaving: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            recent: Recent::default(),
            live: super::reloading::Live::new(&config),
            admission,
            config,
        };
        (Arc::new(node), (owner_ends, lane_ends))
    }

    fn threads(
        running: &mut RunningNode,
        (listener, admin): (TcpListener, Option<TcpListener>),
        (owner_ends, lane_ends): Ends,
        kept: Kept,
    ) -> Result<(), StartError> {
        let node = Arc::clone(&running.node);
        let gate = Arc::new(Gate::new(&node.config, node.address));
        let admin_gate = Arc::new(Gate::new(&node.config, node.admin_address.unwrap_or(node.address)));
        let (begun, stop) = (watch::Sender::new(0_usize), watch::Sender::new(0_usize));
        let mut dealers = Vec::new();
        let offered = Arc::new(Mutex::new(kept.on_shelves.into_iter().collect()));
        let mut machines = kept.machines.into_iter();
        let mut shelves = kept.shelves.into_iter();
        for (thread, (receiver, lane)) in owner_ends.into_iter().zip(lane_ends).enumerate() {
            let (dealer, accepted) = mpsc::unbounded_channel();
            dealers.push(dealer);
            let parts = Parts {
                thread,
                node: Arc::clone(&node),
                gate: Arc::clone(&gate),
                admin_gate: Arc::clone(&admin_gate),
                owner: owner::Begin {
                    receiver,
                    kept: machines.next(),
                    shelf: shelves.next(),
                    offered: Arc::clone(&offered),
                },
                lane,
                accepted,
                begun: begun.clone(),
                stop: stop.clone(),
            };
            let thread = spawn(format!("tidings-{thread}"), move |runtime, local| {
                local.block_on(runtime, parts.run());
            });
            running.threads.push(thread?);
        }
        let acceptor = spawn("tidings-accept".to_owned(), move |runtime, local| {
            let admission = Arc::clone(&node.admission);
            if let Err(error) = local.block_on(runtime, accept(listener, admin, node, admission, dealers)) {
                tracing::error!(%error, "the listening socket failed");
            }
        });
        running.threads.push(acceptor?);
        Ok(())
    }
}

/// What stands between it and strangers.
struct Guards {
    auth: Option<Arc<Auth>>,
    tls: Option<Arc<Tls>>,
    admin_address: Option<SocketAddr>,
}

/// What was found in the data directory, or would have been.
struct Kept {
    identity: storage::Identity,
    machines: Vec<(tidings_router::owner::Owner, storage::Handle)>,
    shelves: Vec<storage::Shelf>,
    on_shelves: Vec<(tidings_protocol::ShardId, tidings_protocol::Epoch)>,
    idle: Option<storage::Idle>,
}

impl Kept {
    fn of(opened: Option<storage::Opened>, fresh: storage::Identity) -> Self {
        let Some(opened) = opened else {
            return Self {
                identity: fresh,
                machines: Vec::new(),
                shelves: Vec::new(),
                on_shelves: Vec::new(),
                idle: None,
            };
        };
        Self {
            identity: opened.identity,
            on_shelves: opened.on_shelves().collect(),
            machines: opened.machines.into_iter().zip(opened.handles).collect(),
            shelves: opened.shelves,
            idle: Some(opened.idle),
        }
    }
}

fn shards(count: u64) -> ShardCount {
    ShardCount::new(u16::try_from(count).unwrap_or(0)).unwrap_or(ShardCount::DEFAULT)
}

fn take_folder(path: &Path) -> Result<Arc<dyn Disk>, StorageError> {
    let folder = Folder::open(path).map_err(|error| StorageError::folder(path.to_owned(), error))?;
    Ok(Arc::new(folder))
}

fn plan(config: &Config, fresh: storage::Identity, clustered: bool) -> storage::Plan {
    let owners = config.threads();
    storage::Plan {
        fresh,
        clustered,
        owners,
        machine: owner::machine_config(config, shards(u64::from(fresh.shards)), owners),
        now: clock::now(),
        wall_us: || clock::now().wall_us,
        boot: storage::boot_id(),
        log_file_bytes: config.storage.log_file_bytes,
        log_bytes: config.storage.log_bytes,
        queue_bytes: usize::try_from(config.storage.queue_bytes).unwrap_or(usize::MAX),
    }
}
