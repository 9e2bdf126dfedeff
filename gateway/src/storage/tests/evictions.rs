//! Versions that are dropped for want of memory stay confessed, whatever happens to the process and the machine.

use super::simulated::{Back, Fault, Simulated};
use super::world::{Memory, WALL_US, World, machine, open_with};
use crate::storage::frame::{Deed, FORMAT_ALONE, Origin, Tenure};
use crate::storage::recovery::Contents;
use crate::storage::snapshots::{Marks, Round, Share, Source};
use crate::storage::tables::Tables;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ObjectHash, ShardId, Version};
use tidings_router::owner::Config;
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision, MARK_PIECES};

/// Room for some hundred objects an owner.
fn tight() -> Config {
    Config {
        version_table_bytes: 20_000,
        ..machine()
    }
}

fn open(disk: &Simulated, boot: &str, memory: &Memory) -> World {
    open_with(disk, boot, 2, WALL_US, memory.clone(), tight()).expect("the directory can be used")
}

fn object(number: u64) -> ObjectHash {
    ObjectHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// More objects than there is room for.
fn fill(world: &mut World, snapshots: bool) {
    for number in 0..3_000 {
        world.publish(object(number), number % 50 == 0, None);
        if snapshots && number % 700 == 699 {
            world.snapshots();
        }
    }
}

fn floors(world: &World) -> Vec<Version> {
    let floor = |shard: u16| {
        let owner = &world.tables.owners[usize::from(shard) % world.tables.owners.len()];
        owner.floor(ShardId(shard)).expect("owned")
    };
    (0..4).map(floor).collect()
}

#[test]
fn what_was_dropped_stays_below_the_floor_after_a_restart_and_no_floor_falls() {
    restart_after_dropping(true);
    restart_after_dropping(false);
}

fn restart_after_dropping(with_snapshots: bool) {
    let disk = Simulated::default();
    let mut world = open(&disk, "boot 1", &Memory::default());
    fill(&mut world, with_snapshots);
    let before = floors(&world);
    assert!(before.iter().all(|floor| *floor > world.identity.since), "{before:?}");
    let kept = world
        .tables
        .owners
        .iter()
        .map(|owner| owner.stats().objects)
        .sum::<usize>();
    let memory = world.memory.clone();
    for snapshots in [false, true] {
        assert!(!snapshots || world.snapshots());
        let after = open(&disk.back(Back::Process), "boot 1", &memory);
        after.assert_confessed("after the restart");
        assert_eq!(floors(&after), before, "a restart alone drops nothing more");
        let again = after
            .tables
            .owners
            .iter()
            .map(|owner| owner.stats().objects)
            .sum::<usize>();
        assert!(again >= kept, "{again} of {kept} are left");
        for owner in &after.tables.owners {
            assert!(
                owner.stats().bytes <= tight().version_table_bytes + 4_096,
                "{:?}",
                owner.stats()
            );
        }
    }
}

#[test]
fn a_crash_while_versions_are_dropped_and_snapshots_taken_loses_nothing_silently() {
    let disk = Simulated::default();
    fill(&mut open(&disk, "boot 1", &Memory::default()), true);
    let operations = disk.operations();
    for at in (0..40).map(|step| operations * step / 40 + step % 7) {
        let disk = Simulated::default();
        disk.set_fault(Some(Fault::Crash { at }));
        let Ok(mut world) = open_with(&disk, "boot 1", 2, WALL_US, Memory::default(), tight()) else {
            continue;
        };
        fill(&mut world, true);
        for (back, boot) in [
            (Back::Process, "boot 1"),
            (Back::Power, "boot 2"),
            (Back::PowerTorn, "boot 2"),
        ] {
            let mut after = open(&disk.back(back), boot, &world.memory);
            after.assert_confessed(&format!("{back:?} at {at}"));
            after.assert_goes_on(&format!("{back:?} at {at}"));
        }
    }
}

fn since(shard: ShardId, floor: Floor) -> Tenure {
    Tenure {
        shard,
        epoch: Epoch(1),
        begins: Version::ZERO,
        floor,
        deed: Deed::Begun,
    }
}

/// Its floors rise while it is asked.
#[derive(Debug)]
struct Rising<'a>(&'a Tables, AtomicU64);

impl Source for Rising<'_> {
    fn owners(&self) -> usize {
        self.0.owners()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share> {
        let Share::Here { mut tenure, .. } = self.0.versions(shard, pieces)? else {
            return None;
        };
        tenure.floor.version.0 += self.1.fetch_add(1, Ordering::Relaxed);
        // What lies below it is gone already.
        Some(Share::Here {
            versions: Vec::new(),
            tenure,
        })
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        self.0.marks(owner, piece)
    }
}

#[test]
fn the_floor_of_a_snapshot_is_the_one_after_its_last_piece() {
    let disk = Simulated::default();
    let mut world = open(&disk, "boot 1", &Memory::default());
    world.idle.writer.state.ask_for_file();
    world.idle.writer.care();
    let (number, _) = world.idle.writer.state.file();
    let round = Round {
        disk: &disk,
        origin: Origin {
            cluster: world.identity.cluster,
            format: FORMAT_ALONE,
        },
        shards: machine().shards,
        number,
    };
    let source = Rising(&world.tables, AtomicU64::new(1));
    round.write(&source, &Contents::default(), &mut || {}).expect("written");
    let asked = source.1.load(Ordering::Relaxed) - 1;
    let since = world.identity.since.0;
    let after = open(&disk.back(Back::Process), "boot 1", &Memory::default());
    let last: Vec<Version> = (1..=4).map(|shard| Version(since + asked / 4 * shard)).collect();
    assert_eq!(floors(&after), last);
}

/// A publisher goes on while snapshots are taken: before each answer one more change under an idempotency key.
#[derive(Debug)]
struct Busy {
    changes: Mutex<Vec<(ObjectHash, Version, u128)>>,
    since: Version,
}

impl Busy {
    /// What has happened by now.
    fn now(&self) -> Vec<(ObjectHash, Version, u128)> {
        let mut changes = self.changes.lock().expect("one thread");
        let number = changes.len() as u64;
        let object = object(number);
        let key = u128::from(number) << 16 | u128::from(object.0 >> 48);
        changes.push((object, Version(self.since.0 + 1 + number), key));
        changes.clone()
    }
}

impl Source for Busy {
    fn owners(&self) -> usize {
        1
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share> {
        let known = self.now().into_iter();
        let of_shard = known.filter(|(object, _, _)| pieces.start == 0 && machine().shards.shard(*object) == shard);
        let floor = Floor {
            version: self.since,
            cause: FloorCause::Lost,
        };
        Some(Share::Here {
            versions: of_shard.map(|(object, version, _)| (object, version)).collect(),
            tenure: since(shard, floor),
        })
    }

    fn marks(&self, _: usize, piece: usize) -> Option<Marks> {
        let known = self.now().into_iter().filter(|_| piece == 0);
        let answer = |(_, version, key)| KeptAnswer {
            key,
            version,
            wall_us: WALL_US,
        };
        Some((Vec::new(), known.map(answer).collect()))
    }
}

#[test]
fn a_snapshot_knows_no_answer_without_the_change_it_is_the_answer_of() {
    let disk = Simulated::default();
    let world = open(&disk, "boot 1", &Memory::default());
    let (number, _) = world.idle.writer.state.file();
    let busy = Busy {
        changes: Mutex::default(),
        since: world.identity.since,
    };
    let round = Round {
        disk: &disk,
        origin: Origin {
            cluster: world.identity.cluster,
            format: FORMAT_ALONE,
        },
        shards: machine().shards,
        number,
    };
    round.write(&busy, &Contents::default(), &mut || {}).expect("written");
    // Nothing of it reached the log: the process was killed before.
    let after = open(&disk.back(Back::Process), "boot 1", &Memory::default());
    let answered = after
        .tables
        .owners
        .iter()
        .flat_map(|owner| (0..MARK_PIECES).flat_map(|piece| owner.kept_answers(piece, after.tables.now)));
    let answered: Vec<u128> = answered.map(|answer| answer.key).collect();
    assert!(!answered.is_empty(), "some are known");
    for (object, version, key) in busy.changes.lock().expect("one thread").iter() {
        let owner = usize::from(machine().shards.shard(*object).0) % after.tables.owners.len();
        let known = after.tables.owners[owner].version(*object) >= *version;
        assert!(
            known || !answered.contains(key),
            "a retry of {version} would be taken for done"
        );
    }
}

/// Its halves change while they are read: what was young is old from the middle on.
#[derive(Debug)]
struct Turning(AtomicU64);

const KEY: u128 = 7 << 16;

impl Source for Turning {
    fn owners(&self) -> usize {
        1
    }

    fn versions(&self, shard: ShardId, _: Range<usize>) -> Option<Share> {
        let floor = Floor {
            version: Version(1),
            cause: FloorCause::Lost,
        };
        Some(Share::Here {
            versions: Vec::new(),
            tenure: since(shard, floor),
        })
    }

    fn marks(&self, _: usize, piece: usize) -> Option<Marks> {
        let half = MARK_PIECES / 2;
        let turned = self.0.fetch_add(1, Ordering::Relaxed) >= half as u64;
        let mark = KeptRevision {
            key: KEY,
            revision: 17,
            version: Version::ZERO,
        };
        let here = piece == if turned { 3 } else { half + 3 };
        Some((here.then_some(mark).into_iter().collect(), Vec::new()))
    }
}

#[test]
fn a_mark_that_grows_old_while_a_snapshot_is_taken_is_in_it() {
    let disk = Simulated::default();
    let world = open(&disk, "boot 1", &Memory::default());
    let (number, _) = world.idle.writer.state.file();
    let round = Round {
        disk: &disk,
        origin: Origin {
            cluster: world.identity.cluster,
            format: FORMAT_ALONE,
        },
        shards: machine().shards,
        number,
    };
    let turning = Turning(AtomicU64::new(0));
    round
        .write(&turning, &Contents::default(), &mut || {})
        .expect("written");
    let after = open(&disk.back(Back::Process), "boot 1", &Memory::default());
    let known: Vec<_> = after
        .tables
        .owners
        .iter()
        .flat_map(|owner| (0..MARK_PIECES).flat_map(|piece| owner.kept_revisions(piece)))
        .map(|mark| (mark.key, mark.revision))
        .collect();
    assert_eq!(known, [(KEY, 17)]);
}
