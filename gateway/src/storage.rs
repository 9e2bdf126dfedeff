//! What outlives the process: versions, revisions, answers to idempotency keys and floors, in a log and snapshots.
//!
//! Owners hand over what they did and go on; a thread of its own writes it, syncs it where that was asked for, and says
//! so. Another thread raises the ceiling of versions ahead of use and takes snapshots. Nothing here blocks a reactor.
//!
//! It knows no HTTP and no subscribers.

pub mod disk;
pub mod frame;
mod keeper;
mod notes;
mod opening;
mod recovery;
mod snapshots;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use notes::{Identity, boot_id};
pub use opening::{identity, open};
pub use snapshots::{Marks, Share, Source};
pub use state::StorageMetrics;
pub use writer::{Done, Order};

use disk::{Disk, FolderError};
use keeper::Keeper;
use notes::Ceiling;
use state::State;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::{Config, Owner};
use tokio::sync::mpsc::UnboundedReceiver;
use writer::Writer;

/// Why a data directory is not used. **Nothing in it was changed that mattered.**
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has it.
    #[error("{0} is in use by another process; each node needs a data directory of its own (--data-dir)")]
    InUse(PathBuf),
    /// The folder cannot be used at all.
    #[error("cannot use the data directory {0}: {1}")]
    Folder(PathBuf, io::Error),
    /// A newer release wrote it.
    #[error(
        "the data directory was written by a newer release (format {format}, this one reads up to {}): start that release, \
         or choose another directory (--data-dir)",
        frame::FORMAT
    )]
    Newer {
        /// The format found.
        format: u16,
    },
    /// It holds files of several clusters.
    #[error(
        "{file} in the data directory belongs to another cluster than the directory's identity says: was it copied there?"
    )]
    OtherCluster {
        /// The file.
        file: String,
    },
    /// It is of another cluster than this node has joined.
    #[error(
        "the data directory belongs to another cluster ({kept:016x}) than the one that this node is in ({formed:016x}): start \
         with an empty directory, or join the other one"
    )]
    NotOurs {
        /// Whose it is.
        kept: u64,
        /// Where we are.
        formed: u64,
    },
    /// A node that is alone wrote it, and this one is in a cluster.
    #[error(
        "the data directory belongs to a node that was alone, and cannot be taken into a cluster: start with an empty directory"
    )]
    OfOneAlone,
    /// A node of a cluster wrote it, and this one is alone.
    #[error(
        "the data directory belongs to a node of a cluster, and this one is configured to be alone: set cluster.join and \
         cluster.secret, or start with an empty directory"
    )]
    OfACluster,
    /// There are versions but nothing says whose.
    #[error(
        "the data directory holds versions but no identity, without which they mean nothing: bring the file `identity` back, or \
         start with an empty directory (every subscriber is then told to fetch again)"
    )]
    NoIdentity,
    /// The configuration does not fit.
    #[error(
        "the data directory was created with cluster.shards = {kept}, and {configured} is configured: this cannot be changed"
    )]
    Shards {
        /// As it was created.
        kept: u16,
        /// As it is configured.
        configured: u16,
    },
    /// A small file is damaged.
    #[error("the file {file} in the data directory is damaged")]
    Damaged {
        /// The file.
        file: String,
    },
    /// A checksum is right but the contents make no sense to this release.
    #[error("the file {0} in the data directory holds what this release cannot read")]
    Unreadable(String),
    /// The system refused.
    #[error("the data directory cannot be used: {0}")]
    System(#[from] io::Error),
}

impl StorageError {
    /// Why a folder cannot be used.
    #[must_use]
    pub fn folder(path: PathBuf, error: FolderError) -> Self {
        match error {
            FolderError::InUse => Self::InUse(path),
            FolderError::System(error) => Self::Folder(path, error),
        }
    }
}

/// What storage needs to know to begin.
#[derive(Debug)]
pub struct Plan {
    /// For a directory that is new. A member of a cluster takes no directory of another identity.
    pub fresh: Identity,
    /// Whether the node is a member of a cluster: who owns what is not for the directory to say then.
    pub clustered: bool,
    /// How many owners share the shards.
    pub owners: usize,
    /// Of each owner.
    pub machine: Config,
    /// Both clocks.
    pub now: Now,
    /// The wall clock later on.
    pub wall_us: fn() -> u64,
    /// This start of the machine, where the system can tell.
    pub boot: Option<String>,
    /// Bytes of one log file.
    pub log_file_bytes: u64,
    /// The log may grow to this, or to the size of the snapshots, before new snapshots replace it.
    pub log_bytes: u64,
    /// Bytes that may wait to be written before owners take no more changes.
    pub queue_bytes: usize,
}

/// A data directory that was read and is ready to be written.
#[derive(Debug)]
pub struct Opened {
    /// Whom it belongs to.
    pub identity: Identity,
    /// The owners. On a node that is alone with all they knew; on a member of a cluster they own nothing yet.
    pub machines: Vec<Owner>,
    /// What a member of a cluster has of shards, one shelf for each owner, until it is known whether it is of use.
    pub shelves: Vec<Shelf>,
    /// The owners' ends.
    pub handles: Vec<Handle>,
    /// Bring it to life with [`Idle::start`].
    pub idle: Idle,
}

impl Opened {
    /// The shards on the shelves, with the epoch of which everything is there that was acknowledged.
    pub fn on_shelves(&self) -> impl Iterator<Item = (ShardId, Epoch)> {
        self.shelves.iter().flat_map(|shelf| shelf.here.clone())
    }
}

/// Shards as the last run left them, whole.
#[derive(Debug)]
pub struct Shelf {
    /// Has their tables, and no link.
    pub tables: Owner,
    /// What is there, and of which epoch.
    pub here: Vec<(ShardId, Epoch)>,
}

/// One owner's end of the storage.
#[derive(Debug)]
pub struct Handle {
    /// What became of orders.
    pub done: UnboundedReceiver<Done>,
    orders: mpsc::Sender<Vec<Order>>,
    state: Arc<State>,
}

impl Handle {
    /// The order is about to be handed over.
    pub fn expect(&self, order: &Order) {
        self.state.queues(order.payload.bytes().len());
    }

    /// Hands over orders that are expected. Several at once: each time may wake the writer.
    pub fn give(&self, orders: Vec<Order>) {
        // The writer outlives every owner, unless it panicked; then nobody is answered, which is the truth.
        _ = self.orders.send(orders);
    }

    /// Whether changes are to be refused before they are applied.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.state.is_failing()
    }

    /// Whether so much waits to be written that no more changes should be taken now.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.state.is_congested()
    }

    /// No version above it may be given now.
    #[must_use]
    pub fn ceiling(&self) -> Version {
        self.state.ceiling()
    }

    /// The ceiling has to stay above this version.
    pub fn saw(&self, version: Version) {
        self.state.saw(version);
    }
}

/// What others may ask of a storage.
#[derive(Clone, Debug)]
pub struct Status(Arc<State>);

impl Status {
    /// Whether publishes are refused because the disk fails.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.is_failing()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &StorageMetrics {
        &self.0.metrics
    }
}

/// Storage before its threads run.
pub struct Idle {
    writer: Writer,
    keeper: Keeper,
    orders: mpsc::Receiver<Vec<Order>>,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").finish_non_exhaustive()
    }
}

/// The threads of a storage.
#[derive(Debug)]
pub struct Running {
    writer: JoinHandle<bool>,
    keeper: JoinHandle<()>,
    stop: mpsc::Sender<()>,
    disk: Arc<dyn Disk>,
    state: Arc<State>,
}

impl Idle {
    /// What others may ask.
    #[must_use]
    pub fn status(&self) -> Status {
        Status(Arc::clone(&self.writer.state))
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn start(self, source: impl Source + 'static) -> io::Result<Running> {
        let (stop, stopped) = mpsc::channel();
        let (disk, state) = (Arc::clone(&self.keeper.disk), Arc::clone(&self.keeper.state));
        let Self { writer, keeper, orders } = self;
        Ok(Running {
            writer: vital("tidings-log", move || writer.run(&orders))?,
            keeper: vital("tidings-keeper", move || keeper.run(&source, &stopped))?,
            stop,
            disk,
            state,
        })
    }
}

/// A thread without which nothing is acknowledged any more: if it panics, the process ends rather than go on as if it
/// lived.
fn vital<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        std::panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
            tracing::error!(name, "a vital thread panicked");
            std::process::abort()
        })
    })
}

impl Running {
    /// Waits until all owners are gone and everything is written. Whether it is, and the directory says so.
    #[must_use]
    pub fn join(self) -> bool {
        let whole = self.writer.join().unwrap_or(false);
        drop(self.stop);
        let kept = self.keeper.join().is_ok();
        if !whole || !kept {
            tracing::error!("not everything could be written; the next start takes this for a crash");
            return false;
        }
        let (written, synced) = self.state.places();
        let ceiling = Ceiling {
            version: self.state.ceiling(),
            written,
            synced,
        };
        let ended = notes::put_ceiling(&*self.disk, &ceiling).and_then(|()| notes::end_run(&*self.disk));
        if let Err(error) = &ended {
            tracing::error!(%error, "the mark of a clean stop cannot be written; the next start takes this for a crash");
        }
        ended.is_ok()
    }
}
