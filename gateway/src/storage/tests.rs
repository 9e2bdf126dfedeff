//! What storage promises, on a disk that crashes at every operation, fails, fills up and is damaged.

mod simulated;

use super::disk::Disk;
use super::*;
use crate::storage::frame::Payload;
use simulated::{Back, Fault, Simulated};
use std::collections::BTreeMap;
use tidings_protocol::ObjectHash;
use tidings_router::owner::keeping::KeptAnswer;
use tidings_router::owner::{Output, Publish, PublishExtra, Published};

const WALL_US: u64 = 1_795_000_000_000_000;
const SHARDS: u16 = 4;

fn machine() -> Config {
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
fn key(object: ObjectHash) -> u128 {
    u128::from(object.0) << 64 | u128::from(object.0 >> 48)
}

/// A node's storage, its owners, and somebody who remembers what was acknowledged.
struct World {
    tables: Tables,
    handles: Vec<Handle>,
    idle: Idle,
    wall_us: u64,
    identity: Identity,
    memory: Memory,
}

/// What the outside knows.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Acknowledged, and acknowledged as durable.
    acked: BTreeMap<u64, Version>,
    durable: BTreeMap<u64, Version>,
    /// The highest version of each shard.
    highest: BTreeMap<ShardId, Version>,
    revisions: u64,
    identity: Option<Identity>,
}

fn open_at(disk: &Simulated, boot: &str, owners: usize, wall_us: u64, memory: Memory) -> Result<World, StorageError> {
    let shards = ShardCount::new(SHARDS).expect("a power of two");
    let plan = Plan {
        fresh: Identity {
            cluster: 7,
            key: [9; 16],
            shards: SHARDS,
            since: Version(wall_us),
        },
        owners,
        machine: machine(),
        now: Now { mono_us: 0, wall_us },
        wall_us: || WALL_US,
        boot: Some(boot.to_owned()),
        log_file_bytes: 600,
        log_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    };
    let opened = open(Arc::new(disk.clone()), &plan)?;
    let mut tables = Tables {
        owners: opened.machines,
        shards,
        now: plan.now,
        newest: Version::ZERO,
        floors: Vec::new(),
    };
    for owner in &mut tables.owners {
        owner.set_ceiling(opened.handles[0].ceiling());
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

fn open_again(disk: &Simulated, boot: &str, memory: &Memory) -> World {
    open_at(disk, boot, 2, WALL_US, memory.clone()).expect("the directory can be used")
}

impl World {
    fn owner(&mut self, object: ObjectHash) -> &mut Owner {
        let shard = machine().shards.shard(object);
        let owner = usize::from(shard.0) % self.tables.owners.len();
        &mut self.tables.owners[owner]
    }

    /// Publishes as an owner's shell does; whether it was acknowledged.
    fn publish(&mut self, object: ObjectHash, durable: bool, extra: Option<PublishExtra>) -> Option<Published> {
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
        let mut payload = Payload::default();
        if let Published::Accepted(version) = published {
            let before = self.memory.highest.insert(machine().shards.shard(object), version);
            assert!(before < Some(version), "{version} was given before: {before:?}");
            payload.changes([(object, version)].into_iter());
            payload.revisions(marks.revision.into_iter());
            let answer = |key| KeptAnswer {
                key,
                version,
                wall_us: self.wall_us,
            };
            payload.answers(marks.idempotency.map(answer).into_iter());
        }
        self.idle.writer.group(vec![Order {
            owner: 0,
            ticket: Some(1),
            payload,
            durable,
        }]);
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

    fn snapshots(&mut self) -> bool {
        self.idle.writer.state.ask_for_file();
        self.idle.writer.care();
        !self.idle.writer.state.wants_new_file() && self.idle.keeper.replace_log(&self.tables)
    }

    /// Some changes, snapshots and files of the log, the same each time.
    fn work(&mut self) {
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
        }
    }

    fn version(&self, object: u64) -> Version {
        let object = ObjectHash(object);
        let shard = machine().shards.shard(object);
        self.tables.owners[usize::from(shard.0) % self.tables.owners.len()].version(object)
    }

    fn floor(&self, object: u64) -> Version {
        let shard = machine().shards.shard(ObjectHash(object));
        let owner = &self.tables.owners[usize::from(shard.0) % self.tables.owners.len()];
        owner.floor(shard).expect("every shard is owned")
    }

    /// Whatever was acknowledged is there or confessed, and whatever was durable is there.
    fn assert_true(&mut self, what: &str) {
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

    fn assert_confessed(&self, what: &str) {
        for (object, version) in &self.memory.acked {
            let there = self.version(*object) >= *version || self.floor(*object) > *version;
            assert!(there, "{what}: {version} of {object:x} is missing silently");
        }
    }

    fn assert_goes_on(&mut self, what: &str) {
        let published = self.publish(ObjectHash(5), true, None);
        assert!(
            matches!(published, Some(Published::Accepted(_))),
            "{what}: {published:?}"
        );
    }

    /// Everything acknowledged is there and nobody has to fetch anything.
    fn assert_exact(&mut self, what: &str) {
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

/// The whole life of a directory up to a fault; gives what was acknowledged.
fn live(disk: &Simulated) -> Memory {
    match open_at(disk, "boot 1", 2, WALL_US, Memory::default()) {
        Ok(mut world) => {
            world.work();
            world.memory
        }
        // The fault came before anything could be published.
        Err(_) => Memory::default(),
    }
}

fn operations() -> u64 {
    let disk = Simulated::default();
    live(&disk);
    disk.operations()
}

#[test]
fn after_a_crash_of_the_process_at_any_operation_everything_acknowledged_is_there() {
    for at in 0..=operations() {
        let disk = Simulated::default();
        disk.set_fault(Some(Fault::Crash { at }));
        let memory = live(&disk);
        let mut world = open_again(&disk.back(Back::Process), "boot 1", &memory);
        world.assert_exact(&format!("crash at {at}"));
        assert_eq!(world.idle.status().metrics().damage.get(), 0, "crash at {at}");
    }
}

#[test]
fn after_a_power_cut_at_any_operation_what_was_durable_is_there_and_the_rest_is_there_or_confessed() {
    for at in 0..=operations() {
        for back in [Back::Power, Back::PowerTorn] {
            let disk = Simulated::default();
            disk.set_fault(Some(Fault::Crash { at }));
            let memory = live(&disk);
            let disk = disk.back(back);
            let mut world = open_again(&disk, "boot 2", &memory);
            world.assert_true(&format!("{back:?} at {at}"));
            // What was confessed once stays confessed.
            let memory = world.memory.clone();
            let mut world = open_again(&disk.back(Back::Process), "boot 2", &memory);
            world.assert_true(&format!("{back:?} at {at}, started again"));
        }
    }
}

#[test]
fn a_crash_while_a_crash_is_being_recovered_from_loses_nothing_more() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let disk = disk.back(Back::PowerTorn);
    for at in 0..300 {
        let again = disk.back(Back::Process);
        again.set_fault(Some(Fault::Crash { at }));
        let opened = open_at(&again, "boot 2", 2, WALL_US, memory.clone()).is_ok();
        let mut world = open_again(&again.back(Back::Power), "boot 3", &memory);
        world.assert_true(&format!("second crash at {at}"));
        if opened {
            return;
        }
    }
    panic!("recovery takes more operations than were tried");
}

#[test]
fn a_failing_operation_refuses_and_the_disk_is_used_again_by_itself() {
    for at in 20..operations() {
        for fault in [Fault::Fail { at }, Fault::Full { from: at, count: 9 }] {
            let what = format!("{fault:?}");
            let disk = Simulated::default();
            let mut world = open_again(&disk, "boot 1", &Memory::default());
            disk.set_fault(Some(fault));
            world.work();
            for _ in 0..40 {
                world.idle.writer.next_probe = std::time::Instant::now();
                world.idle.writer.care();
                if world.idle.writer.state.snapshots_wanted() {
                    world.idle.keeper.replace_log(&world.tables);
                }
            }
            assert!(!world.idle.writer.state.is_failing(), "{what}: it works again");
            world.work();
            let memory = world.memory.clone();
            for (back, boot) in [(Back::Process, "boot 1"), (Back::Power, "boot 2")] {
                let mut world = open_again(&disk.back(back), boot, &memory);
                assert_eq!(world.idle.status().metrics().damage.get(), 0, "{what}");
                world.assert_true(&what);
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_file_is_noticed_or_harmless() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let disk = disk.back(Back::Process);
    let truth = open_again(&disk.back(Back::Process), "boot 1", &memory);
    for name in disk.list().expect("names") {
        for at in 0..disk.read(&name).expect("a file").len() {
            let flipped = disk.back(Back::Process);
            flipped.flip(&name, at, 1 << (at % 8));
            // A directory that is refused serves nothing wrong either.
            let Ok(mut world) = open_at(&flipped, "boot 1", 2, WALL_US, memory.clone()) else {
                continue;
            };
            let what = format!("{name} at {at}");
            world.assert_confessed(&what);
            for object in memory.acked.keys() {
                let (served, floor) = (world.version(*object), world.floor(*object));
                assert!(
                    served == truth.version(*object) || floor > truth.version(*object),
                    "{what}: {served} was served"
                );
            }
            world.assert_goes_on(&what);
        }
    }
}

#[test]
fn a_file_that_is_cut_short_or_missing_is_noticed() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let disk = disk.back(Back::Process);
    let logs_and_snapshots = disk
        .list()
        .expect("names")
        .into_iter()
        .filter(|name| name.contains('-'));
    for name in logs_and_snapshots {
        let len = disk.read(&name).expect("a file").len();
        for left in [None, Some(0), Some(len / 2)] {
            let hurt = disk.back(Back::Process);
            // Up to here the directory knows how far the log went.
            let ceiling = Ceiling {
                version: notes::ceiling(&hurt).expect("whole").expect("there").version,
                written: end_of_log(&hurt),
                synced: end_of_log(&hurt),
            };
            notes::put_ceiling(&hurt, &ceiling).expect("written");
            hurt.lose(&name, left);
            let world = open_at(&hurt, "boot 1", 2, WALL_US, memory.clone());
            let what = format!("{name} cut to {left:?}");
            world.expect(&what).assert_confessed(&what);
        }
    }
}

fn end_of_log(disk: &Simulated) -> frame::Place {
    let file = *Contents::of(disk).expect("names").logs.last().expect("a log");
    frame::Place {
        file,
        offset: disk.read(&recovery::log_name(file)).expect("the log").len() as u64,
    }
}

#[test]
fn versions_never_go_back_though_the_clock_does_and_the_threads_may_be_others() {
    let disk = Simulated::default();
    let mut memory = live(&disk);
    for (start, (owners, back_us)) in [(1, 0), (3, 3_600_000_000), (4, 7_200_000_000), (2, 0)]
        .into_iter()
        .enumerate()
    {
        let reopened = open_at(
            &disk.back(Back::Process),
            "boot 1",
            owners,
            WALL_US - back_us,
            memory.clone(),
        );
        let mut world = reopened.expect("the directory can be used");
        world.assert_exact(&format!("start {start}"));
        memory.revisions = world.memory.revisions;
    }
}

#[test]
fn many_restarts_in_a_row_stay_near_the_clock() {
    let disk = Simulated::default();
    let mut memory = live(&disk);
    for _ in 0..20 {
        let mut world = open_again(&disk, "boot 1", &memory);
        world.assert_goes_on("restart");
        memory = world.memory;
    }
    let highest = memory.highest.values().max().expect("versions");
    assert!(highest.0 < WALL_US + 60_000_000, "{highest}");
}

#[test]
fn repeats_are_recognised_after_a_restart_also_from_snapshots() {
    for snapshots in [false, true] {
        let disk = Simulated::default();
        let mut world = open_again(&disk, "boot 1", &Memory::default());
        let object = ObjectHash(0x7777_0000_0000_0001);
        let extra = PublishExtra {
            hint: None,
            revision: Some((key(object), 17)),
            idempotency: Some(key(object) + (1 << 20)),
        };
        let first = world.publish(object, false, Some(extra.clone()));
        let Some(Published::Accepted(version)) = first else {
            panic!("{first:?}");
        };
        assert!(!snapshots || world.snapshots());
        let memory = world.memory.clone();
        let mut world = open_at(&disk, "boot 1", 3, WALL_US, memory).expect("the directory can be used");
        let again = world.publish(object, false, Some(extra.clone()));
        assert_eq!(again, Some(Published::Duplicate(version)), "the idempotency key");
        let older = PublishExtra {
            revision: Some((key(object), 16)),
            ..PublishExtra::default()
        };
        assert_eq!(
            world.publish(object, false, Some(older)),
            Some(Published::Duplicate(version))
        );
    }
}

#[test]
fn nothing_is_kept_twice_for_long() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    for _ in 0..30 {
        world.work();
        assert!(world.snapshots());
        let contents = Contents::of(&disk).expect("names");
        assert_eq!(contents.logs.len(), 1, "{contents:?}");
        assert!(
            contents.snapshots.values().all(|numbers| numbers.len() == 1),
            "{contents:?}"
        );
    }
}

#[test]
fn a_directory_of_another_cluster_a_newer_format_or_other_shards_is_refused() {
    let disk = Simulated::default();
    live(&disk);
    let other = disk.back(Back::Process);
    let identity = Identity {
        cluster: 8,
        ..notes::identity(&other).expect("whole").expect("there")
    };
    notes::put_identity(&other, &identity).expect("written");
    let error = open_at(&other, "boot 1", 2, WALL_US, Memory::default()).err();
    assert!(matches!(error, Some(StorageError::OtherCluster { .. })), "{error:?}");

    let newer = disk.back(Back::Process);
    let mut payload = (frame::FORMAT + 1).to_le_bytes().to_vec();
    payload.extend_from_slice(&[0; 8]);
    let mut bytes = Vec::new();
    frame::append(&mut bytes, frame::Place::default(), &payload);
    disk::put(&newer, notes::IDENTITY, &bytes).expect("written");
    let error = open_at(&newer, "boot 1", 2, WALL_US, Memory::default()).err();
    assert!(matches!(error, Some(StorageError::Newer { .. })), "{error:?}");

    let shards = Identity { shards: 8, ..identity };
    let reshaped = Simulated::default();
    notes::put_identity(&reshaped, &shards).expect("written");
    let error = open_at(&reshaped, "boot 1", 2, WALL_US, Memory::default()).err();
    assert!(matches!(error, Some(StorageError::Shards { .. })), "{error:?}");

    disk.lose(notes::IDENTITY, None);
    let error = open_at(&disk, "boot 1", 2, WALL_US, Memory::default()).err();
    assert!(matches!(error, Some(StorageError::NoIdentity)), "{error:?}");
}

#[test]
fn a_folder_that_a_process_has_is_refused_to_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = disk::Folder::open(folder.path()).expect("free");
    assert!(matches!(disk::Folder::open(folder.path()), Err(FolderError::InUse)));
    drop(held);
    assert!(disk::Folder::open(folder.path()).is_ok());
}
