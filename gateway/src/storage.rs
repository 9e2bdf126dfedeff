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
mod recovery;
mod snapshots;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use notes::{Identity, boot_id};
pub use snapshots::{Marks, Source};
pub use state::StorageMetrics;
pub use writer::{Done, Order};

use disk::{Disk, FolderError};
use keeper::{AHEAD, Ahead, Keeper, ceiling_over};
use notes::Ceiling;
use recovery::{Contents, Report, Task};
use snapshots::{Round, Tables};
use state::State;
use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::{Config, Input, Owner};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
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
    /// For a directory that is new.
    pub fresh: Identity,
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
    /// The owners, with all they knew.
    pub machines: Vec<Owner>,
    /// The owners' ends.
    pub handles: Vec<Handle>,
    /// Bring it to life with [`Idle::start`].
    pub idle: Idle,
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

/// Reads a data directory, or makes a new one, and begins a run.
///
/// # Errors
/// If the directory cannot be used; see [`StorageError`].
pub fn open(disk: &Arc<dyn Disk>, plan: &Plan) -> Result<Opened, StorageError> {
    let identity = identify(&**disk, &plan.fresh)?;
    let shards = ShardCount::new(identity.shards).ok_or(StorageError::Damaged {
        file: notes::IDENTITY.to_owned(),
    })?;
    let past = Past::read(&**disk, plan)?;
    let mut tables = tables(plan, shards, &identity);
    let task = Task {
        disk: &**disk,
        cluster: identity.cluster,
        shards: shards.all().collect(),
        power_lost: past.power_lost,
        surely: past.surely,
    };
    let mut report = task.run(&mut tables)?;
    let first = past.first_version(plan, &tables);
    for owner in &mut tables.owners {
        owner.resume_above(first.before());
    }
    let anew = raise_floors(&mut tables, &past, &report, first, shards);
    for owner in &mut tables.owners {
        owner.forget_below_floors();
    }
    let round = Round {
        disk: &**disk,
        cluster: identity.cluster,
        shards,
        number: report.next_file,
    };
    if anew {
        report.log_bytes = 0;
        // What is damaged is kept for whoever wants to look at it.
        let older = Contents::default();
        report.snapshot_bytes = round.write(&tables, &older, &mut || {})?.unwrap_or_default();
    }
    if past.ceiling_lost {
        set_aside(&**disk, notes::CEILING)?;
    }
    let ceiling = Ceiling {
        version: ceiling_over(plan.now.wall_us, first, AHEAD),
        written: past.surely,
        synced: past.surely,
    };
    notes::put_ceiling(&**disk, &ceiling)?;
    let opened = begin(disk, plan, identity, tables, &report, ceiling.version, first)?;
    if anew {
        // Only now: without the log file that completes them the snapshots would look damaged.
        for file in &report.damaged_files {
            set_aside(&**disk, file)?;
        }
        round.tidy()?;
    }
    Ok(opened)
}

/// Further above clock and versions than any ceiling was.
const FAR: Ahead = Ahead {
    of_clock_us: 2 * AHEAD.of_clock_us,
    of_highest: 2 * AHEAD.of_clock_us,
};

fn begin(
    disk: &Arc<dyn Disk>,
    plan: &Plan,
    identity: Identity,
    tables: Tables,
    report: &Report,
    ceiling: Version,
    first: Version,
) -> Result<Opened, StorageError> {
    let state = Arc::new(State::new(ceiling, plan.queue_bytes));
    let metrics = &state.metrics;
    metrics.torn.inc_by(report.torn);
    metrics.damage.inc_by(report.damage);
    state.log_grew(report.log_bytes);
    metrics
        .snapshot_bytes
        .set(i64::try_from(report.snapshot_bytes).unwrap_or(i64::MAX));
    state.saw(first);
    let (answers, ends): (Vec<_>, Vec<_>) = (0..plan.owners).map(|_| unbounded_channel()).unzip();
    let (orders, orders_end) = mpsc::channel();
    let mut writer = Writer::new(
        Arc::clone(disk),
        Arc::clone(&state),
        answers,
        identity.cluster,
        plan.log_file_bytes,
    );
    writer.place = report.end;
    writer.begin(report.next_file)?;
    notes::begin_run(&**disk, plan.boot.as_deref())?;
    let handle = |done| Handle {
        done,
        orders: orders.clone(),
        state: Arc::clone(&state),
    };
    Ok(Opened {
        identity,
        machines: tables.owners,
        handles: ends.into_iter().map(handle).collect(),
        idle: Idle {
            keeper: Keeper {
                disk: Arc::clone(disk),
                state,
                cluster: identity.cluster,
                shards: tables.shards,
                snapshot_bytes: plan.log_bytes,
                wall_us: plan.wall_us,
                inherited: Cell::new(report.log_bytes),
                complained: Cell::new(false),
            },
            writer,
            orders: orders_end,
        },
    })
}

/// Whom the directory belongs to; a new one belongs to us.
fn identify(disk: &dyn Disk, fresh: &Identity) -> Result<Identity, StorageError> {
    let Some(identity) = notes::identity(disk)? else {
        if !Contents::of(disk)?.is_empty() {
            return Err(StorageError::NoIdentity);
        }
        // Before the identity: where that is alone, something was lost.
        let ceiling = Ceiling {
            version: fresh.since.before(),
            ..Ceiling::default()
        };
        notes::put_ceiling(disk, &ceiling)?;
        notes::put_identity(disk, fresh)?;
        return Ok(*fresh);
    };
    if identity.shards != fresh.shards {
        return Err(StorageError::Shards {
            kept: identity.shards,
            configured: fresh.shards,
        });
    }
    Ok(identity)
}

/// What the last run left.
struct Past {
    ceiling: Option<Ceiling>,
    /// The file with the ceiling is damaged or missing.
    ceiling_lost: bool,
    /// The directory is a copy of one that may have lived on.
    copied: bool,
    /// The machine went down.
    power_lost: bool,
    /// Something may have been acknowledged that was lost then.
    acknowledged_lost: bool,
    surely: frame::Place,
}

impl Past {
    fn read(disk: &dyn Disk, plan: &Plan) -> Result<Self, StorageError> {
        let ceiling = match notes::ceiling(disk) {
            Ok(ceiling) => ceiling,
            Err(StorageError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if ceiling.is_none() {
            let file = notes::CEILING;
            tracing::error!(file, "damaged or missing: subscribers are told to fetch again");
        }
        let copied = ceiling.is_some() && notes::is_copy(disk)?;
        if copied {
            tracing::warn!(
                "the data directory is a copy, and nobody knows what happened after it was made: subscribers are told to \
                 fetch again"
            );
        }
        let last = notes::last_run(disk, plan.boot.as_deref())?;
        let power_lost = !last.clean && !last.same_boot && !Contents::of(disk)?.is_empty();
        let surely = ceiling.map(|ceiling| if power_lost { ceiling.synced } else { ceiling.written });
        Ok(Self {
            ceiling_lost: ceiling.is_none(),
            ceiling,
            copied,
            power_lost,
            acknowledged_lost: power_lost && last.unsynced,
            surely: surely.unwrap_or_default(),
        })
    }

    /// Above every version that was ever given or closed.
    fn first_version(&self, plan: &Plan, tables: &Tables) -> Version {
        let known = self.ceiling.unwrap_or_default().version.max(tables.newest);
        if self.ceiling_lost || self.copied {
            // Nobody knows how far versions went beyond what is here; a running node is at most so far ahead.
            ceiling_over(plan.now.wall_us, known, FAR)
        } else {
            known.next()
        }
    }
}

fn tables(plan: &Plan, shards: ShardCount, identity: &Identity) -> Tables {
    let mut tables = Tables {
        owners: (0..plan.owners).map(|_| Owner::new(plan.machine)).collect(),
        shards,
        now: plan.now,
        newest: Version::ZERO,
        floors: Vec::new(),
    };
    // A table that starts empty cannot vouch for anything before it.
    let everywhere: Vec<ShardId> = shards.all().collect();
    assign(&mut tables, &everywhere, identity.since, FloorCause::Lost);
    tables
}

fn assign(tables: &mut Tables, shards: &[ShardId], floor: Version, cause: FloorCause) {
    let (count, mut out) = (tables.owners.len(), Vec::new());
    for (number, owner) in tables.owners.iter_mut().enumerate() {
        let of_owner = shards.iter().filter(|shard| usize::from(shard.0) % count == number);
        let assign = Input::Assign {
            shards: of_owner.copied().collect(),
            epoch: Epoch(1),
            floor,
            cause,
        };
        // No link is up yet, so nobody is told.
        owner.handle(Now::default(), assign, &mut out);
    }
}

/// Brings the floors back, and raises those of shards that are not whole. Whether everything has to be written anew.
fn raise_floors(tables: &mut Tables, past: &Past, report: &Report, first: Version, shards: ShardCount) -> bool {
    for (shard, floor) in std::mem::take(&mut tables.floors) {
        assign(tables, &[shard], floor.version, floor.cause);
    }
    let everywhere: Vec<ShardId> = shards.all().collect();
    let damaged: Vec<ShardId> = report.damaged_shards.iter().copied().collect();
    assign(tables, &damaged, first, FloorCause::Damaged);
    if past.ceiling_lost {
        assign(tables, &everywhere, first, FloorCause::Damaged);
    }
    if past.acknowledged_lost {
        tracing::warn!(
            "the machine went down with acknowledged changes that were not synced: subscribers are told to fetch again"
        );
        assign(tables, &everywhere, first, FloorCause::PowerLost);
    }
    if past.copied {
        assign(tables, &everywhere, first, FloorCause::Lost);
    }
    past.acknowledged_lost || past.ceiling_lost || past.copied || report.distrusted || report.damage > 0
}

fn set_aside(disk: &dyn Disk, file: &str) -> Result<(), StorageError> {
    match disk.rename(file, &format!("{file}.damaged")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(disk.sync_names()?),
    }
}
