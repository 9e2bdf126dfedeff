//! A member of a cluster: of each shard the right epoch is offered after a restart, whole, or none.

use super::simulated::{Back, Fault, Simulated};
use super::world::{SHARDS, WALL_US, machine};
use crate::owner::holdings::Holdings;
use crate::storage::disk::Disk;
use crate::storage::frame::{FORMAT, Payload, Tenure};
use crate::storage::recovery::Contents;
use crate::storage::snapshots::Source;
use crate::storage::*;
use std::collections::BTreeMap;
use std::ops::Range;
use tidings_protocol::ObjectHash;
use tidings_protocol::peer::FloorCause;
use tidings_router::owner::taking::Assignment;
use tidings_router::owner::{Input, Output, Publish, Published};

const OWNERS: usize = 2;

pub(super) fn now() -> Now {
    Now {
        mono_us: 0,
        wall_us: WALL_US,
    }
}

/// What the outside knows of one shard.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// The newest epoch that this node had, and whether its record was written.
    epoch: Option<(Epoch, bool)>,
    /// It was let go, and that was written.
    ended: bool,
    /// What was acknowledged in an unbroken line of epochs up to the present one, and whether it was durable.
    acked: BTreeMap<u64, (Version, bool)>,
    /// The same for each epoch that was left behind since the last record that was surely written.
    before: BTreeMap<Epoch, BTreeMap<u64, (Version, bool)>>,
}

/// What the outside knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    shards: BTreeMap<ShardId, Truth>,
    /// Above every version that was ever given: where the next epoch begins.
    ceiling: u64,
}

/// A member's storage with its owners.
pub(super) struct Member {
    owners: Vec<Owner>,
    pub(super) holdings: Vec<Holdings>,
    handles: Vec<Handle>,
    idle: Idle,
    memory: Memory,
}

fn plan(boot: &str, cluster: u64) -> Plan {
    Plan {
        fresh: Identity {
            cluster,
            key: [9; 16],
            shards: SHARDS,
            since: Version(WALL_US),
        },
        clustered: true,
        owners: OWNERS,
        machine: machine(),
        now: now(),
        wall_us: || WALL_US,
        boot: Some(boot.to_owned()),
        log_file_bytes: 600,
        log_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    }
}

pub(super) fn open_member(disk: &Simulated, boot: &str, memory: &Memory) -> Result<Member, StorageError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open(&disk, &plan(boot, 7))?;
    Ok(Member {
        owners: opened.machines,
        holdings: opened
            .shelves
            .into_iter()
            .map(|shelf| Holdings::new(machine(), shelf))
            .collect(),
        handles: opened.handles,
        idle: opened.idle,
        memory: memory.clone(),
    })
}

pub(super) fn reopen(disk: &Simulated, boot: &str, memory: &Memory) -> Member {
    open_member(disk, boot, memory).expect("the directory can be used")
}

pub(super) fn place(shard: u16) -> usize {
    usize::from(shard) % OWNERS
}

/// What a keeper asks.
#[derive(Debug)]
struct Asked<'a>(&'a [Owner], &'a [Holdings]);

impl Source for Asked<'_> {
    fn owners(&self) -> usize {
        self.0.len()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share> {
        let at = place(shard.0);
        let mut all = Vec::new();
        let mut last = None;
        for piece in pieces {
            match self.1[at].share(&self.0[at], shard, piece) {
                Share::Here { versions, tenure } => {
                    all.extend(versions);
                    last = Some(tenure);
                }
                Share::Absent => return Some(Share::Absent),
            }
        }
        Some(Share::Here {
            versions: all,
            tenure: last?,
        })
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        let owner = &self.0[owner];
        Some((owner.kept_revisions(piece), owner.kept_answers(piece, now())))
    }
}

impl Member {
    /// Writes one payload; whether it was written.
    pub(super) fn write(&mut self, payload: Payload, durable: bool) -> bool {
        self.idle.writer.group(vec![Order {
            owner: 0,
            ticket: Some(1),
            payload,
            durable,
        }]);
        self.idle.writer.care();
        self.handles[0].done.try_recv().expect("everybody is answered").fine
    }

    fn tenure(&mut self, tenure: Tenure) -> bool {
        let mut payload = Payload::default();
        payload.tenures([tenure].into_iter());
        self.write(payload, false)
    }

    /// The cluster gives the shard to this process, in this epoch. `lost`: with nothing that was known before.
    pub(super) fn take(&mut self, shard: u16, epoch: u64, lost: bool) {
        self.memory.ceiling += 1_000;
        let begins = Version(self.memory.ceiling);
        let id = ShardId(shard);
        let truth = self.memory.shards.entry(id).or_default();
        let assignment = Assignment {
            shard: id,
            epoch: Epoch(epoch),
            begins,
            floor: if lost { begins } else { Version::ZERO },
            cause: FloorCause::Lost,
        };
        let at = place(shard);
        let tenure = self.holdings[at].take(&mut self.owners[at], now(), assignment, &mut Vec::new());
        let tenure = tenure.expect("a new epoch is written");
        if let Some((before, _)) = truth.epoch {
            truth.before.insert(before, truth.acked.clone());
        }
        if tenure.deed == frame::Deed::Begun {
            truth.acked.clear();
        }
        truth.epoch = Some((Epoch(epoch), false));
        truth.ended = false;
        let written = self.tenure(tenure);
        self.memory.shards.entry(id).or_default().epoch = Some((Epoch(epoch), written));
    }

    fn release(&mut self, shard: u16) {
        let at = place(shard);
        self.holdings[at].release(&mut self.owners[at], now(), ShardId(shard), &mut Vec::new());
        // The map has no part in it for this process.
        let tenure = self.holdings[at].forget(ShardId(shard));
        let written = self.tenure(tenure.expect("it was owned"));
        self.memory.shards.entry(ShardId(shard)).or_default().ended = written;
    }

    /// The map says that what lies on the shelf is of no use.
    fn drop_from_shelf(&mut self, shard: u16) {
        let tenure = self.holdings[place(shard)].forget(ShardId(shard));
        let written = self.tenure(tenure.expect("it lay there"));
        self.memory.shards.entry(ShardId(shard)).or_default().ended = written;
    }

    fn publish(&mut self, shard: u16, number: u64, durable: bool) {
        let object = ObjectHash(u64::from(shard) << 62 | number);
        let input = Input::Publish {
            request: 0,
            changes: vec![Publish { object, extra: None }],
        };
        let mut out = Vec::new();
        self.owners[place(shard)].handle(now(), input, &mut out);
        let published = out.iter().find_map(|output| match output {
            Output::Published { results, .. } => results.first().copied(),
            Output::ToEdge { .. } => None,
        });
        let Some(Published::Accepted(version)) = published else {
            panic!("{published:?}");
        };
        self.memory.ceiling = self.memory.ceiling.max(version.0);
        let mut payload = Payload::default();
        payload.changes([(object, version)].into_iter());
        if self.write(payload, durable) {
            let truth = self.memory.shards.entry(ShardId(shard)).or_default();
            truth.acked.insert(object.0, (version, durable));
        }
    }

    pub(super) fn snapshots(&mut self) -> bool {
        self.idle.writer.state.ask_for_file();
        self.idle.writer.care();
        let source = Asked(&self.owners, &self.holdings);
        !self.idle.writer.state.wants_new_file() && self.idle.keeper.replace_log(&source)
    }

    /// Shards come, go, come back, and go on.
    fn work(&mut self) {
        self.memory.ceiling = self.memory.ceiling.max(WALL_US);
        for shard in 0..SHARDS {
            self.take(shard, 1, true);
        }
        for number in 0..12 {
            self.publish(number as u16 % SHARDS, number, number % 3 == 0);
        }
        self.snapshots();
        self.release(1);
        self.publish(2, 50, false);
        self.take(2, 2, false);
        self.publish(2, 51, false);
        self.take(1, 5, true);
        self.publish(1, 52, true);
        self.release(3);
        self.snapshots();
        self.publish(1, 53, false);
        self.take(0, 2, false);
        self.publish(0, 54, false);
        self.publish(2, 55, true);
        self.release(2);
        self.publish(1, 56, false);
    }

    pub(super) fn on_shelves(&self) -> BTreeMap<ShardId, Epoch> {
        self.holdings.iter().flat_map(Holdings::on_shelf).collect()
    }

    /// What lies on a shelf, by its pieces.
    pub(super) fn kept(&self, shard: ShardId) -> (BTreeMap<u64, Version>, Version) {
        let source = Asked(&self.owners, &self.holdings);
        let share = source.versions(shard, 0..tidings_router::owner::keeping::SHARD_PIECES);
        let Some(Share::Here { versions, tenure }) = share else {
            panic!("{shard:?}: {share:?}");
        };
        let bits = machine().shards.bits();
        let whole = |object: ObjectHash| u64::from(shard.0) << (64 - bits) | object.0 << bits >> bits;
        let versions = versions.into_iter().map(|(object, version)| (whole(object), version));
        (versions.collect(), tenure.floor.version)
    }

    /// Whatever is offered is the epoch it says, with all that was acknowledged up to then.
    fn assert_true(&self, what: &str, power_lost: bool) {
        for (shard, epoch) in self.on_shelves() {
            let truth = &self.memory.shards[&shard];
            let (newest, _) = truth.epoch.expect("it was taken once");
            assert!(epoch <= newest, "{what}: {shard:?} of {epoch:?}, which never was");
            let acked = if epoch == newest {
                Some(&truth.acked)
            } else {
                truth.before.get(&epoch)
            };
            let (versions, floor) = self.kept(shard);
            for (object, (version, durable)) in acked.expect("an epoch that was") {
                let there = versions.get(object) >= Some(version) || floor > *version;
                assert!(
                    there,
                    "{what}: {version} of {object:x} is missing in {epoch:?}, durable: {durable}"
                );
            }
            assert!(
                !(truth.ended && epoch == newest && !power_lost),
                "{what}: {shard:?} was let go"
            );
        }
    }

    /// Everything is offered that was taken and not let go.
    fn assert_exact(&self, what: &str) {
        let offered = self.on_shelves();
        for (shard, truth) in &self.memory.shards {
            // What was not written yet when the process ended may be there or not.
            if let Some((epoch, true)) = truth.epoch
                && !truth.ended
                && !self.memory.is_letting_go(*shard)
            {
                assert_eq!(offered.get(shard), Some(&epoch), "{what}: {shard:?}");
            }
        }
    }
}

impl Memory {
    /// Whether the last that is known of the shard is that it was to be let go.
    fn is_letting_go(&self, shard: ShardId) -> bool {
        // The only shards that `work` leaves let go; whether that was written is another question.
        [ShardId(2), ShardId(3)].contains(&shard)
    }
}

fn live(disk: &Simulated) -> Memory {
    let Ok(mut member) = open_member(disk, "boot 1", &Memory::default()) else {
        return Memory::default();
    };
    member.work();
    member.memory
}

fn operations() -> u64 {
    let disk = Simulated::default();
    live(&disk);
    disk.operations()
}

#[test]
fn after_a_life_without_faults_exactly_what_was_held_is_offered() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let member = reopen(&disk.back(Back::Process), "boot 1", &memory);
    let offered = member.on_shelves();
    assert_eq!(offered, [(ShardId(0), Epoch(2)), (ShardId(1), Epoch(5))].into());
    member.assert_exact("in order");
    let (versions, floor) = member.kept(ShardId(1));
    assert!(
        versions.values().all(|version| *version >= floor),
        "nothing of before it was lost"
    );
    assert!(
        member.owners.iter().all(|owner| owner.stats().shards == 0),
        "nothing is owned"
    );
}

#[test]
fn after_a_crash_at_any_operation_only_whole_epochs_are_offered() {
    for at in 0..=operations() {
        for back in [Back::Process, Back::Power, Back::PowerTorn, Back::PowerNames] {
            let disk = Simulated::default();
            disk.set_fault(Some(Fault::Crash { at }));
            let memory = live(&disk);
            let boot = if back == Back::Process { "boot 1" } else { "boot 2" };
            let disk = disk.back(back);
            let what = format!("{back:?} at {at}");
            let member = reopen(&disk, boot, &memory);
            assert_eq!(member.idle.status().metrics().damage.get(), 0, "{what}");
            member.assert_true(&what, back != Back::Process);
            if back == Back::Process {
                member.assert_exact(&what);
            }
            // What was offered once and not answered is offered again.
            let again = reopen(&disk.back(Back::Process), boot, &memory);
            assert_eq!(again.on_shelves(), member.on_shelves(), "{what}");
        }
    }
}

#[test]
fn a_shelf_outlives_snapshots_and_crashes_while_they_are_taken() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let disk = disk.back(Back::Process);
    for at in 0.. {
        let again = disk.back(Back::Process);
        let mut member = reopen(&again, "boot 1", &memory);
        let offered = member.on_shelves();
        let begun = again.operations();
        again.set_fault(Some(Fault::Crash { at: begun + at }));
        // Twice: the first one makes all earlier files needless.
        _ = member.snapshots() && member.snapshots();
        let after = reopen(&again.back(Back::Process), "boot 1", &memory);
        assert_eq!(after.on_shelves(), offered, "crash at {at}");
        after.assert_true(&format!("crash at {at}"), false);
        if again.operations() <= begun + at {
            let logs = Contents::of(&again).expect("names").logs;
            assert_eq!(logs.len(), 1, "the log before them is gone: {logs:?}");
            return;
        }
    }
}

#[test]
fn what_goes_on_from_the_shelf_is_whole_in_the_next_epoch_and_what_is_dropped_is_not_offered() {
    for at in 0.. {
        let disk = Simulated::default();
        let memory = live(&disk);
        let disk = disk.back(Back::Process);
        let mut member = reopen(&disk, "boot 1", &memory);
        let begun = disk.operations();
        disk.set_fault(Some(Fault::Crash { at: begun + at }));
        member.take(0, 3, false);
        member.publish(0, 70, true);
        member.drop_from_shelf(1);
        member.snapshots();
        member.publish(0, 71, false);
        let what = format!("crash at {at}");
        let after = reopen(&disk.back(Back::Process), "boot 1", &member.memory);
        after.assert_true(&what, false);
        let offered = after.on_shelves();
        let truth = &member.memory.shards;
        let (epoch, written) = truth[&ShardId(0)].epoch.expect("taken");
        if written {
            assert_eq!(offered.get(&ShardId(0)), Some(&epoch), "{what}");
        }
        if disk.operations() <= begun + at {
            assert_eq!(offered, [(ShardId(0), Epoch(3))].into());
            let (versions, floor) = after.kept(ShardId(0));
            assert!(
                versions.len() > 2 && floor < Version(WALL_US + 2_000),
                "with all from before: {versions:?}"
            );
            return;
        }
    }
}

#[test]
fn a_shard_that_another_had_meanwhile_is_taken_empty() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let mut member = reopen(&disk.back(Back::Process), "boot 1", &memory);
    // Epoch 3 was another's.
    member.take(0, 4, false);
    let (versions, floor) = member.kept(ShardId(0));
    assert!(versions.is_empty(), "{versions:?}");
    assert!(floor > Version(memory.ceiling), "nothing is vouched for");
    assert!(!member.on_shelves().contains_key(&ShardId(0)), "nor kept for later");
}

#[test]
fn damage_power_loss_and_copies_are_not_offered() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let whole = disk.back(Back::Process);
    assert_eq!(reopen(&whole, "boot 1", &memory).on_shelves().len(), 2);

    let powerless = reopen(&disk.back(Back::Power), "boot 2", &memory);
    assert!(
        powerless.on_shelves().is_empty(),
        "something acknowledged was not synced"
    );
    let copy = reopen(&disk.copy(), "boot 1", &memory);
    assert!(copy.on_shelves().is_empty(), "what the original did since is unknown");

    let contents = Contents::of(&disk).expect("names");
    for (part, numbers) in &contents.snapshots {
        let hurt = disk.back(Back::Process);
        let name = recovery::snapshot_name(*part, *numbers.last().expect("one"));
        let bytes = hurt.read(&name).expect("a snapshot").len();
        hurt.flip(&name, bytes - 3, 1);
        let member = reopen(&hurt, "boot 1", &memory);
        member.assert_true(&name, false);
        let offered = member.on_shelves();
        assert!(
            !matches!(part, recovery::Part::Shard(shard) if offered.contains_key(shard)),
            "{name}: {offered:?}"
        );
        // For good: what was set aside is not found again.
        let again = reopen(&hurt.back(Back::Process), "boot 1", &memory);
        assert_eq!(again.on_shelves(), offered, "{name}");
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_file_of_a_member_is_noticed_or_harmless() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let disk = disk.back(Back::Process);
    let truth = reopen(&disk.back(Back::Process), "boot 1", &memory);
    for name in disk.list().expect("names") {
        for at in 0..disk.read(&name).expect("a file").len() {
            let flipped = disk.back(Back::Process);
            flipped.flip(&name, at, 1 << (at % 8));
            let Ok(member) = open_member(&flipped, "boot 1", &memory) else {
                continue;
            };
            let what = format!("{name} at {at}");
            member.assert_true(&what, true);
            for (shard, epoch) in member.on_shelves() {
                // An older epoch is refused by the cluster: the map names a newer one.
                if truth.on_shelves().get(&shard) == Some(&epoch) {
                    assert_eq!(member.kept(shard), truth.kept(shard), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_member_takes_no_directory_of_another_cluster_or_of_one_alone_and_the_other_way_round() {
    let disk = Simulated::default();
    let memory = live(&disk);
    let directory: Arc<dyn Disk> = Arc::new(disk.back(Back::Process));
    let error = open(&directory, &plan("boot 1", 8)).err();
    assert!(
        matches!(error, Some(StorageError::NotOurs { kept: 7, formed: 8 })),
        "{error:?}"
    );
    let alone = Plan {
        clustered: false,
        ..plan("boot 1", 7)
    };
    let error = open(&directory, &alone).err();
    assert!(matches!(error, Some(StorageError::OfACluster)), "{error:?}");
    drop(directory);
    assert_eq!(
        reopen(&disk, "boot 1", &memory).on_shelves().len(),
        2,
        "nothing happened to it"
    );

    let directory: Arc<dyn Disk> = Arc::new(Simulated::default());
    assert!(open(&directory, &alone).is_ok());
    let error = open(&directory, &plan("boot 1", 7)).err();
    assert!(matches!(error, Some(StorageError::OfOneAlone)), "{error:?}");
}

#[test]
fn files_of_others_in_the_folder_are_let_be() {
    let disk = Simulated::default();
    live(&disk);
    for name in ["node", "node.unfinished", "log.redb", "ceiling.unfinished"] {
        drop(disk.create(name).expect("created"));
    }
    let memory = Memory::default();
    let names = |disk: &Simulated| {
        reopen(disk, "boot 1", &memory);
        disk.list().expect("names")
    };
    let names = names(&disk);
    for name in ["node", "node.unfinished", "log.redb"] {
        assert!(names.iter().any(|there| there == name), "{name} is gone");
    }
    assert!(
        !names.iter().any(|there| there == "ceiling.unfinished"),
        "our own is removed"
    );
    let (_, format) = notes::identity(&disk).expect("whole").expect("there");
    assert_eq!(format, FORMAT, "an earlier release lets it be");
}
