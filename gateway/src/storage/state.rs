//! What the writer, the keeper and the owners know of each other.

use super::frame::Place;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tidings_protocol::Version;

/// What does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The log.
    Log,
    /// The ceiling cannot be raised.
    Ceiling,
}

/// What storage counts.
#[derive(Debug)]
pub struct StorageMetrics {
    /// Seconds that one sync of the log took.
    pub sync_seconds: Histogram,
    /// Bytes of the log.
    pub log_bytes: Gauge,
    /// Bytes of the snapshots.
    pub snapshot_bytes: Gauge,
    /// Writes cut short that were found at the start.
    pub torn: Counter,
    /// Places that were found damaged at the start.
    pub damage: Counter,
    /// 1 while publishes are refused because the disk fails.
    pub failing: Gauge,
}

impl StorageMetrics {
    fn new() -> Self {
        Self {
            sync_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            log_bytes: Gauge::default(),
            snapshot_bytes: Gauge::default(),
            torn: Counter::default(),
            damage: Counter::default(),
            failing: Gauge::default(),
        }
    }

    /// Names them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "storage_sync_seconds",
            "Seconds that one sync of the log took",
            self.sync_seconds.clone(),
        );
        registry.register("storage_log_bytes", "Bytes of the log", self.log_bytes.clone());
        registry.register(
            "storage_snapshot_bytes",
            "Bytes of the snapshots",
            self.snapshot_bytes.clone(),
        );
        registry.register(
            "storage_torn_tails",
            "Writes found cut short at the start",
            self.torn.clone(),
        );
        registry.register(
            "storage_damage_found",
            "Places found damaged at the start",
            self.damage.clone(),
        );
        registry.register(
            "storage_failing",
            "1 while publishes are refused because the disk fails",
            self.failing.clone(),
        );
    }
}

/// Shared by all threads; nothing on the way of a change waits for a lock.
#[derive(Debug)]
pub(super) struct State {
    log_fails: AtomicBool,
    ceiling_fails: AtomicBool,
    ceiling: AtomicU64,
    highest: AtomicU64,
    queued: AtomicUsize,
    queue_bytes: usize,
    log_limit: AtomicI64,
    new_file: AtomicBool,
    // Number of the log's file, and the bytes of all files before it.
    file: Mutex<(u64, i64)>,
    snapshots_wanted: AtomicBool,
    snapshots_since: AtomicU64,
    // Written and synced up to.
    places: Mutex<(Place, Place)>,
    pub(super) metrics: StorageMetrics,
}

impl State {
    pub(super) fn new(ceiling: Version, queue_bytes: usize) -> Self {
        Self {
            log_fails: AtomicBool::new(false),
            ceiling_fails: AtomicBool::new(false),
            ceiling: AtomicU64::new(ceiling.0),
            highest: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            queue_bytes,
            log_limit: AtomicI64::new(i64::MAX),
            new_file: AtomicBool::new(false),
            file: Mutex::default(),
            snapshots_wanted: AtomicBool::new(false),
            snapshots_since: AtomicU64::new(0),
            places: Mutex::default(),
            metrics: StorageMetrics::new(),
        }
    }

    fn flag(&self, trouble: Trouble) -> &AtomicBool {
        match trouble {
            Trouble::Log => &self.log_fails,
            Trouble::Ceiling => &self.ceiling_fails,
        }
    }

    pub(super) fn trouble(&self, trouble: Trouble) -> bool {
        self.flag(trouble).load(Ordering::Acquire)
    }

    pub(super) fn fails(&self, trouble: Trouble, fails: bool) {
        self.flag(trouble).store(fails, Ordering::Release);
        self.metrics.failing.set(i64::from(self.is_failing()));
    }

    pub(super) fn is_failing(&self) -> bool {
        self.trouble(Trouble::Log) || self.trouble(Trouble::Ceiling)
    }

    pub(super) fn ceiling(&self) -> Version {
        Version(self.ceiling.load(Ordering::Acquire))
    }

    pub(super) fn set_ceiling(&self, ceiling: Version) {
        self.ceiling.store(ceiling.0, Ordering::Release);
    }

    /// The highest version that any owner has given.
    pub(super) fn highest(&self) -> Version {
        Version(self.highest.load(Ordering::Relaxed))
    }

    pub(super) fn saw(&self, version: Version) {
        self.highest.fetch_max(version.0, Ordering::Relaxed);
    }

    pub(super) fn queues(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn took(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_congested(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        // What waits to be written will be in the log as well.
        let log = self.metrics.log_bytes.get().saturating_add_unsigned(queued as u64);
        queued > self.queue_bytes || log > self.log_limit.load(Ordering::Relaxed)
    }

    /// The log must not grow beyond this; `None` while nothing could make it shorter.
    pub(super) fn limit_log(&self, bytes: Option<u64>) {
        let limit = bytes.map_or(i64::MAX, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self.log_limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn log_grew(&self, bytes: u64) {
        self.metrics.log_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn reached(&self, written: Place, synced: Option<Place>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.0 = written;
        places.1 = synced.unwrap_or(places.1);
    }

    /// Up to where the log is written, and up to where it is synced.
    pub(super) fn places(&self) -> (Place, Place) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the writer to begin a new file.
    pub(super) fn ask_for_file(&self) {
        self.new_file.store(true, Ordering::Release);
    }

    pub(super) fn wants_new_file(&self) -> bool {
        self.new_file.load(Ordering::Acquire)
    }

    /// A file was begun, of which nothing is counted yet.
    pub(super) fn began_file(&self, number: u64) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = (number, self.metrics.log_bytes.get());
        self.new_file.store(false, Ordering::Release);
    }

    /// Files with so many bytes were removed.
    pub(super) fn log_shrank(&self, bytes: i64) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.log_bytes.dec_by(bytes);
        file.1 -= bytes;
    }

    /// The number of the file that is written now, and the bytes of all files before it.
    pub(super) fn file(&self) -> (u64, i64) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask_for_snapshots(&self) {
        self.snapshots_wanted.store(true, Ordering::Release);
    }

    pub(super) fn snapshots_wanted(&self) -> bool {
        self.snapshots_wanted.load(Ordering::Acquire)
    }

    /// Snapshots of everything, which are complete with the log from this file on, are on the disk.
    pub(super) fn snapshots_done(&self, since: u64) {
        self.snapshots_wanted.store(false, Ordering::Release);
        self.snapshots_since.store(since, Ordering::Release);
    }

    pub(super) fn snapshots_since(&self) -> u64 {
        self.snapshots_since.load(Ordering::Acquire)
    }
}
