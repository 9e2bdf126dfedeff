//! The thread that keeps house: it raises the ceiling ahead of use and takes snapshots when the log has grown.

use super::disk::Disk;
use super::frame::Origin;
use super::notes::{self, Ceiling};
use super::recovery::Contents;
use super::snapshots::{Round, Source};
use super::state::{State, Trouble};
use prometheus_client::metrics::gauge::Gauge;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tidings_protocol::{ShardCount, Version};

/// How far above clock and versions in use the ceiling is raised, in microseconds. Less than what an edge takes for a
/// cursor from the future, so that a cursor under the ceiling is never taken for one.
pub(super) const AHEAD: Ahead = Ahead {
    of_clock_us: 6_000_000,
    of_highest: 2_000_000,
};

/// It is raised again when less than this is left.
const LEFT: Ahead = Ahead {
    of_clock_us: 4_000_000,
    of_highest: 1_000_000,
};

/// How far a ceiling is above the clock, and above the highest version in use. The second is the smaller one: each restart
/// begins above the last ceiling, and many in a row must not run away from the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) of_clock_us: u64,
    pub(super) of_highest: u64,
}

/// How often the keeper looks around.
const LOOK: Duration = Duration::from_millis(200);

/// How long snapshots rest after they failed.
const REST: Duration = Duration::from_secs(5);

/// How long the writer may take to begin a file.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: Arc<State>,
    pub(super) origin: Origin,
    pub(super) shards: ShardCount,
    /// The log may grow to this many bytes before snapshots replace it.
    pub(super) snapshot_bytes: u64,
    pub(super) wall_us: fn() -> u64,
    /// Bytes of the log that the last run left, until they are replaced.
    pub(super) inherited: Cell<u64>,
    // That the ceiling cannot be written was said.
    pub(super) complained: Cell<bool>,
}

/// The ceiling for this clock and these versions in use.
pub(super) fn ceiling_over(wall_us: u64, highest: Version, ahead: Ahead) -> Version {
    let clock = wall_us.saturating_add(ahead.of_clock_us);
    let version = clock.max(highest.0.saturating_add(ahead.of_highest));
    Version(version.min(Version::LIMIT - 1))
}

fn bytes(gauge: &Gauge) -> u64 {
    gauge.get().try_into().unwrap_or(0)
}

impl Keeper {
    pub(super) fn run(self, source: &dyn Source, stop: &Receiver<()>) {
        let mut rest_until = Instant::now();
        while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            self.raise_ceiling();
            if Instant::now() < rest_until {
                continue;
            }
            // Changes that come faster than snapshots are written, or than they are begun, have to wait, or the log would
            // grow without end.
            self.state.limit_log(Some(self.log_limit()));
            if self.snapshots_due() && !self.take_snapshots(source) {
                // Without snapshots the log has to hold everything.
                self.state.limit_log(None);
                rest_until = Instant::now() + REST;
            }
        }
    }

    pub(super) fn raise_ceiling(&self) {
        let (wall_us, highest) = ((self.wall_us)(), self.state.highest());
        if self.state.ceiling() >= ceiling_over(wall_us, highest, LEFT) {
            return;
        }
        let (written, synced) = self.state.places();
        let ceiling = Ceiling {
            version: ceiling_over(wall_us, highest, AHEAD).max(self.state.ceiling()),
            written,
            synced,
        };
        match notes::put_ceiling(&*self.disk, &ceiling) {
            Ok(()) => {
                self.state.set_ceiling(ceiling.version);
                self.complained.set(false);
                self.state.fails(Trouble::Ceiling, false);
            }
            Err(error) => {
                if !self.complained.replace(true) {
                    tracing::error!(%error, "the ceiling of versions cannot be written: publishes are refused once it is reached");
                }
                // Until the old ceiling is reached everything goes on.
                let reached = self.state.ceiling().0 <= wall_us.max(highest.0);
                self.state.fails(Trouble::Ceiling, reached);
            }
        }
    }

    /// How long the log may be before snapshots replace it.
    fn log_bytes(&self) -> u64 {
        self.snapshot_bytes.max(bytes(&self.state.metrics.snapshot_bytes))
    }

    /// How long the log may be at all. What a restart found is no reason to wait.
    fn log_limit(&self) -> u64 {
        let usual = self.log_bytes();
        (usual / 2 * 3).max(self.inherited.get().saturating_add(usual / 2))
    }

    fn snapshots_due(&self) -> bool {
        let is_long = || bytes(&self.state.metrics.log_bytes) > self.log_bytes();
        self.state.snapshots_wanted() || (!self.state.trouble(Trouble::Log) && is_long())
    }

    /// Has a log file begun and takes snapshots. Whether they are all on the disk.
    fn take_snapshots(&self, source: &dyn Source) -> bool {
        if !self.state.snapshots_wanted() {
            self.state.ask_for_file();
            let begin = Instant::now();
            while self.state.wants_new_file() {
                if begin.elapsed() > PATIENCE {
                    return false;
                }
                self.raise_ceiling();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let done = self.replace_log(source);
        if done {
            self.inherited.set(0);
        }
        done
    }

    /// Takes snapshots that make the log files before the present one needless. Whether they are all on the disk.
    pub(super) fn replace_log(&self, source: &dyn Source) -> bool {
        let (number, replaced) = self.state.file();
        let round = Round {
            disk: &*self.disk,
            origin: self.origin,
            shards: self.shards,
            number,
        };
        let written =
            Contents::of(&*self.disk).and_then(|older| Ok(round.write(source, &older, &mut || self.raise_ceiling())?));
        match written {
            Ok(Some(bytes)) => {
                self.state.snapshots_done(round.number);
                self.state
                    .metrics
                    .snapshot_bytes
                    .set(i64::try_from(bytes).unwrap_or(i64::MAX));
                match round.tidy() {
                    Ok(()) => self.state.log_shrank(replaced),
                    Err(error) => tracing::warn!(%error, "old files cannot be removed; tried again later"),
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, "snapshots cannot be written; the log goes on, tried again later");
                false
            }
        }
    }
}
