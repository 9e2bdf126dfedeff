//! A directory that is not the one that was written: a copy, or a part of it, or with files in each other's place.

use super::simulated::{Back, Simulated};
use super::world::{Memory, WALL_US, open_again, open_at};
use crate::storage::disk::{self, Disk as _};
use crate::storage::recovery::{Contents, Part, snapshot_name};
use crate::storage::{Ceiling, notes};
use tidings_protocol::{ShardId, Version};

#[test]
fn a_copy_is_recognised_vouches_for_nothing_and_gives_no_version_twice() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    let copy = disk.copy();
    world.work();
    let memory = world.memory.clone();
    let before = world.handles[0].ceiling();
    let mut restored = open_again(&copy, "boot 1", &memory);
    restored.assert_confessed("the copy");
    restored.assert_goes_on("the copy");
    for object in memory.acked.keys() {
        assert!(
            restored.floor(*object) > before,
            "every cursor of the original is below the floor"
        );
    }
    let highest = restored.memory.highest.values().max().copied();
    assert!(highest > Some(before), "no version of the original is given again");
    // Told once. From now on the copy is an original.
    let (floor, memory) = (restored.floor(5), restored.memory.clone());
    let again = open_again(&copy.back(Back::Process), "boot 1", &memory);
    assert_eq!(again.floor(5), floor);
    // The original is none the worse.
    let memory = world.memory.clone();
    open_again(&disk.back(Back::Process), "boot 1", &memory).assert_exact("the original");
}

#[test]
fn older_contents_put_into_the_same_files_are_recognised_too() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    let old = disk.read(notes::CEILING).expect("a ceiling");
    world.idle.keeper.wall_us = || WALL_US + 60_000_000;
    world.idle.keeper.raise_ceiling();
    let written = disk.back(Back::Process);
    disk::put(&written, notes::CEILING, &old).expect("written");
    let restored = open_again(&written, "boot 1", &world.memory);
    assert!(restored.floor(5) > restored.identity.since);
}

#[test]
fn an_identity_with_nothing_else_vouches_for_nothing() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    let memory = world.memory.clone();
    for name in disk.list().expect("names") {
        if name != notes::IDENTITY {
            disk.remove(&name).expect("removed");
        }
    }
    open_again(&disk, "boot 1", &memory).assert_confessed("only the identity is left");
}

#[test]
fn a_snapshot_in_the_place_of_another_shards_is_noticed() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    assert!(world.snapshots());
    let memory = world.memory.clone();
    let contents = Contents::of(&disk).expect("names");
    let number = contents.snapshots[&Part::Marks].last().copied().expect("a snapshot");
    let name = |shard| snapshot_name(Part::Shard(ShardId(shard)), number);
    let other = disk.read(&name(0)).expect("a snapshot");
    disk::put(&disk, &name(1), &other).expect("written");
    let world = open_again(&disk, "boot 1", &memory);
    assert_eq!(world.idle.status().metrics().damage.get(), 1);
    world.assert_confessed("exchanged snapshots");
}

#[test]
fn a_cut_log_is_noticed_though_its_end_is_whole() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    let (written, synced) = world.idle.writer.state.places();
    let ceiling = Ceiling {
        version: Version(WALL_US + 6_000_000),
        written,
        synced,
    };
    let memory = world.memory.clone();
    notes::put_ceiling(&disk, &ceiling).expect("written");
    // The last file is gone, and the one before it ends where a frame ends.
    let contents = Contents::of(&disk).expect("names");
    let last = contents.logs.last().expect("a log");
    disk.remove(&crate::storage::recovery::log_name(*last))
        .expect("removed");
    let opened = open_at(&disk, "boot 1", 2, WALL_US, memory).expect("usable");
    opened.assert_confessed("without the last file");
    assert!(opened.idle.status().metrics().damage.get() > 0);
}
