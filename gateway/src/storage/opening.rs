//! From a data directory to owners: whose it is, what the last run left and how it ended, what is in doubt because of that.

use super::disk::Disk;
use super::frame::{self, FORMAT, FORMAT_ALONE, Origin};
use super::keeper::{AHEAD, Ahead, Keeper, ceiling_over};
use super::notes::{self, Ceiling, Identity};
use super::recovery::{Contents, Report, Task};
use super::snapshots::Round;
use super::state::State;
use super::tables::{ALONE, Tables};
use super::writer::Writer;
use super::{Handle, Idle, Opened, Plan, Shelf, StorageError};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ShardCount, ShardId, Version};
use tidings_router::owner::Owner;
use tokio::sync::mpsc::unbounded_channel;

/// Reads a data directory, or makes a new one, and begins a run.
///
/// # Errors
/// If the directory cannot be used; see [`StorageError`].
pub fn open(disk: &Arc<dyn Disk>, plan: &Plan) -> Result<Opened, StorageError> {
    let identity = identify(&**disk, plan)?;
    let origin = Origin {
        cluster: identity.cluster,
        format: format_of(plan),
    };
    let shards = ShardCount::new(identity.shards).ok_or(StorageError::Damaged {
        file: notes::IDENTITY.to_owned(),
    })?;
    let past = Past::read(&**disk, plan)?;
    let mut tables = tables(plan, shards, &identity);
    let task = Task {
        disk: &**disk,
        origin,
        shards: shards.all().collect(),
        power_lost: past.power_lost,
        surely: past.surely,
    };
    let mut report = task.run(&mut tables)?;
    let first = past.first_version(plan, &tables);
    let anew = if plan.clustered {
        void_doubtful(&mut tables, &past, &report)
    } else {
        for owner in &mut tables.owners {
            owner.resume_above(first.before());
        }
        raise_floors(&mut tables, &past, &report, first)
    };
    for owner in &mut tables.owners {
        owner.forget_below_floors();
    }
    let round = Round {
        disk: &**disk,
        origin,
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
    let state = Arc::new(State::new(ceiling.version, plan.queue_bytes));
    state.saw(first);
    let opened = begin(disk, plan, (identity, origin), tables, &report, state)?;
    if anew {
        // Only now: without the log file that completes them the snapshots would look damaged.
        for file in &report.damaged_files {
            set_aside(&**disk, file)?;
        }
        round.tidy()?;
    }
    Ok(opened)
}

/// Whom a data directory belongs to, if it was ever used.
///
/// # Errors
/// If that cannot be read.
pub fn identity(disk: &dyn Disk) -> Result<Option<Identity>, StorageError> {
    Ok(notes::identity(disk)?.map(|(identity, _)| identity))
}

/// Further above clock and versions than any ceiling was.
const FAR: Ahead = Ahead {
    of_clock_us: 2 * AHEAD.of_clock_us,
    of_highest: 2 * AHEAD.of_clock_us,
};

fn begin(
    disk: &Arc<dyn Disk>,
    plan: &Plan,
    (identity, origin): (Identity, Origin),
    tables: Tables,
    report: &Report,
    state: Arc<State>,
) -> Result<Opened, StorageError> {
    let metrics = &state.metrics;
    metrics.torn.inc_by(report.torn);
    metrics.damage.inc_by(report.damage);
    state.log_grew(report.log_bytes);
    metrics
        .snapshot_bytes
        .set(i64::try_from(report.snapshot_bytes).unwrap_or(i64::MAX));
    let (answers, ends): (Vec<_>, Vec<_>) = (0..plan.owners).map(|_| unbounded_channel()).unzip();
    let (orders, orders_end) = mpsc::channel();
    let mut writer = Writer::new(
        Arc::clone(disk),
        Arc::clone(&state),
        answers,
        origin,
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
    let shards = tables.shards;
    let (machines, shelves) = put_up(plan, tables);
    Ok(Opened {
        identity,
        machines,
        shelves,
        handles: ends.into_iter().map(handle).collect(),
        idle: Idle {
            keeper: Keeper {
                disk: Arc::clone(disk),
                state,
                origin,
                shards,
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

/// On a member of a cluster what was read goes on shelves; owners keep the marks.
fn put_up(plan: &Plan, tables: Tables) -> (Vec<Owner>, Vec<Shelf>) {
    if !plan.clustered {
        return (tables.owners, Vec::new());
    }
    let of = |number: usize, shard: ShardId| usize::from(shard.0) % plan.owners == number;
    let here: Vec<_> = tables.here().collect();
    let shelves = tables.owners.into_iter().enumerate().map(|(number, owner)| Shelf {
        tables: owner,
        here: here.iter().copied().filter(|(shard, _)| of(number, *shard)).collect(),
    });
    (tables.marked, shelves.collect())
}

fn format_of(plan: &Plan) -> u16 {
    if plan.clustered { FORMAT } else { FORMAT_ALONE }
}

/// Whom the directory belongs to; a new one belongs to us.
fn identify(disk: &dyn Disk, plan: &Plan) -> Result<Identity, StorageError> {
    let fresh = &plan.fresh;
    let Some((identity, format)) = notes::identity(disk)? else {
        if !Contents::of(disk)?.is_empty() {
            return Err(StorageError::NoIdentity);
        }
        // Before the identity: where that is alone, something was lost.
        let ceiling = Ceiling {
            version: fresh.since.before(),
            ..Ceiling::default()
        };
        notes::put_ceiling(disk, &ceiling)?;
        notes::put_identity(disk, fresh, format_of(plan))?;
        return Ok(*fresh);
    };
    match (plan.clustered, format) {
        (true, FORMAT_ALONE) => return Err(StorageError::OfOneAlone),
        (false, FORMAT) => return Err(StorageError::OfACluster),
        _ => {}
    }
    if plan.clustered && identity.cluster != fresh.cluster {
        return Err(StorageError::NotOurs {
            kept: identity.cluster,
            formed: fresh.cluster,
        });
    }
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
    let owners = || (0..plan.owners).map(|_| Owner::new(plan.machine)).collect();
    let mut tables = Tables {
        owners: owners(),
        marked: if plan.clustered { owners() } else { Vec::new() },
        shards,
        now: plan.now,
        newest: Version::ZERO,
        floors: Vec::new(),
        tenures: BTreeMap::new(),
    };
    if !plan.clustered {
        // A table that starts empty cannot vouch for anything before it.
        let everywhere: Vec<ShardId> = shards.all().collect();
        tables.assign(&everywhere, ALONE, identity.since, FloorCause::Lost);
    }
    tables
}

/// Brings the floors back, and raises those of shards that are not whole. Whether everything has to be written anew.
fn raise_floors(tables: &mut Tables, past: &Past, report: &Report, first: Version) -> bool {
    for (shard, floor) in std::mem::take(&mut tables.floors) {
        tables.assign(&[shard], ALONE, floor.version, floor.cause);
    }
    let everywhere: Vec<ShardId> = tables.shards.all().collect();
    let damaged: Vec<ShardId> = report.damaged_shards.iter().copied().collect();
    tables.assign(&damaged, ALONE, first, FloorCause::Damaged);
    if past.ceiling_lost {
        tables.assign(&everywhere, ALONE, first, FloorCause::Damaged);
    }
    if past.acknowledged_lost {
        tracing::warn!(
            "the machine went down with acknowledged changes that were not synced: subscribers are told to fetch again"
        );
        tables.assign(&everywhere, ALONE, first, FloorCause::PowerLost);
    }
    if past.copied {
        tables.assign(&everywhere, ALONE, first, FloorCause::Lost);
    }
    must_be_written_anew(past, report)
}

/// The same for a member of a cluster: a shard that is not whole is not offered, so that whoever gets it begins with a floor
/// above everything that was ever given. Half of what was kept would be of no use: all that lies below that floor is told
/// to be fetched again.
fn void_doubtful(tables: &mut Tables, past: &Past, report: &Report) -> bool {
    tables.void_unfinished();
    for (shard, floor) in std::mem::take(&mut tables.floors) {
        let here = tables.tenures.get(&shard).filter(|tenure| tenure.is_here());
        if let Some(epoch) = here.map(|tenure| tenure.epoch) {
            tables.assign(&[shard], epoch, floor.version, floor.cause);
        }
    }
    let all = past.ceiling_lost || past.acknowledged_lost || past.copied;
    let doubtful = |shard: &ShardId| all || report.damaged_shards.contains(shard);
    let doubtful: Vec<_> = tables.here().filter(|(shard, _)| doubtful(shard)).collect();
    if !doubtful.is_empty() {
        tracing::warn!(
            shards = doubtful.len(),
            damaged = report.damage > 0 || past.ceiling_lost,
            power_lost = past.acknowledged_lost,
            copied = past.copied,
            "shards in the data directory may lack acknowledged changes: they are not used, and if no other node has them \
             subscribers are told to fetch again"
        );
    }
    for (shard, epoch) in doubtful {
        tables.void(shard, epoch);
    }
    must_be_written_anew(past, report)
}

fn must_be_written_anew(past: &Past, report: &Report) -> bool {
    past.acknowledged_lost || past.ceiling_lost || past.copied || report.distrusted || report.damage > 0
}

fn set_aside(disk: &dyn Disk, file: &str) -> Result<(), StorageError> {
    match disk.rename(file, &format!("{file}.damaged")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(disk.sync_names()?),
    }
}
