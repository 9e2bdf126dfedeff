//! A node's storage with its owners, and somebody outside who remembers what was acknowledged.

use super::simulated::Simulated;
use crate::storage::disk::Disk;
use crate::storage::frame::Payload;
use crate::storage::notes::Ceiling;
use crate::storage::tables::Tables;
use crate::storage::*;
use std::collections::BTreeMap;
use tidings_protocol::peer::OwnerToEdge;
use tidings_protocol::{ObjectHash, ShardCount};
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};
use tidings_router::owner::{Input, Output, Publish, PublishExtra, Published};

pub(super) const WALL_US: u64 = 1_795_000_000_000_000;
pub(super) const SHARDS: u16 = 4;

pub(super) fn machine() -> Config {
    Config {
        shards: ShardCount::new(SHARDS).expect("a power of two"),
        version_table_bytes: 1 << 24,
        revisions: 1_000,
        idempotency_keys: 1_000,
        idempotency_window_us: 300_000_000,
        link_window_changes: 100,
        link_hint_bytes: 1_000,
        closed_busy_us: 50_000,
        closed_idle_us: 1_000_000,
    }
}

/// The key under which the marks of an object are kept.
pub(super) fn key(object: ObjectHash) -> u128 {
    u128::from(object.0) << 64 | u128::from(object.0 >> 48)
}

/// A node's storage, its owners, and somebody who remembers what was acknowledged.
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) handles: Vec<Handle>,
    pub(super) idle: Idle,
    pub(super) wall_us: u64,
    pub(super) identity: Identity,
    pub(super) memory: Memory,
}

/// What the outside knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Acknowledged, and acknowledged as durable.
    pub(super) acked: BTreeMap<u64, Version>,
    pub(super) durable: BTreeMap<u64, Version>,
    /// The highest version of each shard.
    pub(super) highest: BTreeMap<ShardId, Version>,
    pub(super) revisions: u64,
    pub(super) identity: Option<Identity>,
}

pub(super) fn open_at(
    disk: &Simulated,
    boot: &str,
    owners: usize,
    wall_us: u64,
    memory: Memory,
) -> Result<World, StorageError> {
    open_with(disk, boot, owners, wall_us, memory, machine())
}

/// The same for owners that are configured otherwise.
pub(super) fn open_with(
    disk: &Simulated,
    boot: &str,
    owners: usize,
    wall_us: u64,
    memory: Memory,
    machine: Config,
) -> Result<World, StorageError> {
    let shards = ShardCount::new(SHARDS).expect("a power of two");
    let plan = Plan {
        fresh: Identity {
            cluster: 7,
            key: [9; 16],
            shards: SHARDS,
            since: Version(wall_us),
        },
        clustered: false,
        owners,
        machine,
        now: Now { mono_us: 0, wall_us },
        wall_us: || WALL_US,
        boot: Some(boot.to_owned()),
        log_file_bytes: 600,
        log_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open(&disk, &plan)?;
    let mut tables = Tables {
        owners: opened.machines,
        marked: Vec::new(),
        shards,
        now: plan.now,
        newest: Version::ZERO,
        floors: Vec::new(),
        tenures: BTreeMap::new(),
    };
    for owner in &mut tables.owners {
        owner.set_ceiling(opened.handles[0].ceiling());
        let up = Input::LinkUp { link: 0, generation: 1 };
        owner.handle(plan.now, up, &mut Vec::new());
    }
    Ok(World {
        tables,
        handles: opened.handles,
        idle: opened.idle,
        wall_us,
        identity: opened.identity,
        memory,
    })
}

pub(super) fn open_again(disk: &Simulated, boot: &str, memory: &Memory) -> World {
    open_at(disk, boot, 2, WALL_US, memory.clone()).expect("the directory can be used")
}

/// What an owner's shell has written when floors rise.
fn floors_raised(output: &Output) -> Option<Order> {
    let Output::ToEdge {
        frame: OwnerToEdge::Own { shards },
        ..
    } = output
    else {
        return None;
    };
    let mut payload = Payload::default();
    payload.floors(shards.iter().map(|owned| {
        let floor = Floor {
            version: owned.floor,
            cause: owned.cause,
        };
        (owned.shard, floor)
    }));
    Some(Order {
        owner: 0,
        ticket: None,
        payload,
        durable: false,
    })
}

impl World {
    pub(super) fn owner(&mut self, object: ObjectHash) -> &mut Owner {
        let shard = machine().shards.shard(object);
        let owner = usize::from(shard.0) % self.tables.owners.len();
        &mut self.tables.owners[owner]
    }

    /// Publishes as an owner's shell does; whether it was acknowledged.
    pub(super) fn publish(
        &mut self,
        object: ObjectHash,
        durable: bool,
        extra: Option<PublishExtra>,
    ) -> Option<Published> {
        let marks = extra.clone().unwrap_or_default();
        let now = Now {
            mono_us: 0,
            wall_us: self.wall_us,
        };
        let mut out = Vec::new();
        let change = Publish {
            object,
            extra: extra.map(Box::new),
        };
        let input = Input::Publish {
            request: 0,
            changes: vec![change],
        };
        self.owner(object).handle(now, input, &mut out);
        let published = out.iter().find_map(|output| match output {
            Output::Published { results, .. } => results.first().copied(),
            Output::ToEdge { .. } => None,
        })?;
        let mut orders = vec![Order {
            owner: 0,
            ticket: Some(1),
            payload: self.payload(object, published, &marks),
            durable,
        }];
        orders.extend(out.iter().filter_map(floors_raised));
        self.idle.writer.group(orders);
        self.idle.writer.care();
        let done = self.handles[0].done.try_recv().expect("everybody is answered");
        if let (true, Published::Accepted(version)) = (done.fine, published) {
            self.memory.acked.insert(object.0, version);
            if durable {
                self.memory.durable.insert(object.0, version);
            }
        }
        done.fine.then_some(published)
    }

    fn payload(&mut self, object: ObjectHash, published: Published, marks: &PublishExtra) -> Payload {
        let mut payload = Payload::default();
        if let Published::Accepted(version) = published {
            let before = self.memory.highest.insert(machine().shards.shard(object), version);
            assert!(before < Some(version), "{version} was given before: {before:?}");
            payload.changes([(object, version)].into_iter());
            let revision = |(key, revision)| KeptRevision { key, revision, version };
            payload.revisions(marks.revision.map(revision).into_iter());
            let answer = |key| KeptAnswer {
                key,
                version,
                wall_us: self.wall_us,
            };
            payload.answers(marks.idempotency.map(answer).into_iter());
        }
        payload
    }

    pub(super) fn snapshots(&mut self) -> bool {
        self.idle.writer.state.ask_for_file();
        self.idle.writer.care();
        !self.idle.writer.state.wants_new_file() && self.idle.keeper.replace_log(&self.tables)
    }

    /// The ceiling is written again, and with it how far the log goes.
    pub(super) fn note_places(&self) {
        let (written, synced) = self.idle.writer.state.places();
        let ceiling = Ceiling {
            version: self.idle.writer.state.ceiling(),
            written,
            synced,
        };
        // A failure leaves the old one, which is as true.
        _ = notes::put_ceiling(&*self.idle.keeper.disk, &ceiling);
    }

    /// Some changes, snapshots and files of the log, the same each time.
    pub(super) fn work(&mut self) {
        self.memory.identity = Some(self.identity);
        for number in 0..40_u64 {
            let object = ObjectHash((number % 11).wrapping_mul(0x1234_5678_9abc_def1));
            let extra = (number % 5 == 0).then(|| {
                self.memory.revisions += 1;
                PublishExtra {
                    hint: None,
                    revision: Some((key(object), self.memory.revisions)),
                    idempotency: Some(key(object) + (u128::from(number) << 20)),
                }
            });
            self.publish(object, number % 3 == 0, extra);
            if number % 13 == 12 {
                self.snapshots();
            }
            if number % 9 == 4 {
                self.note_places();
            }
        }
    }

    pub(super) fn version(&self, object: u64) -> Version {
        let object = ObjectHash(object);
        let shard = machine().shards.shard(object);
        self.tables.owners[usize::from(shard.0) % self.tables.owners.len()].version(object)
    }

    pub(super) fn floor(&self, object: u64) -> Version {
        let shard = machine().shards.shard(ObjectHash(object));
        let owner = &self.tables.owners[usize::from(shard.0) % self.tables.owners.len()];
        owner.floor(shard).expect("every shard is owned")
    }

    /// Whatever was acknowledged is there or confessed, and whatever was durable is there.
    pub(super) fn assert_true(&mut self, what: &str) {
        let memory = self.memory.clone();
        for (object, version) in &memory.durable {
            assert!(
                self.version(*object) >= *version,
                "{what}: a durable {version} is missing"
            );
        }
        self.assert_confessed(what);
        self.assert_goes_on(what);
    }

    pub(super) fn assert_confessed(&self, what: &str) {
        for (object, version) in &self.memory.acked {
            let there = self.version(*object) >= *version || self.floor(*object) > *version;
            assert!(there, "{what}: {version} of {object:x} is missing silently");
        }
    }

    pub(super) fn assert_goes_on(&mut self, what: &str) {
        let published = self.publish(ObjectHash(5), true, None);
        assert!(
            matches!(published, Some(Published::Accepted(_))),
            "{what}: {published:?}"
        );
    }

    /// Everything acknowledged is there and nobody has to fetch anything.
    pub(super) fn assert_exact(&mut self, what: &str) {
        for (object, version) in &self.memory.acked {
            assert!(
                self.version(*object) >= *version,
                "{what}: {version} of {object:x} is missing"
            );
            assert_eq!(self.floor(*object), self.identity.since, "{what}: a floor rose");
        }
        if let Some(identity) = self.memory.identity {
            assert_eq!(self.identity, identity, "{what}");
        }
        self.assert_goes_on(what);
    }
}
