//! No version above what the disk knows of, whatever the disk does.

use super::simulated::{Back, Fault, Simulated};
use super::world::{Memory, WALL_US, World, open_again};
use crate::storage::disk::Disk as _;
use crate::storage::keeper::AHEAD;
use crate::storage::notes;
use crate::storage::state::Trouble;
use tidings_protocol::{ObjectHash, Version};
use tidings_router::owner::Published;

/// Longer than ceilings are raised ahead.
const LATER_US: u64 = 2 * AHEAD.of_clock_us;

fn later() -> u64 {
    WALL_US + LATER_US
}

fn on_disk(disk: &Simulated) -> Version {
    notes::ceiling(disk).expect("whole").expect("there").version
}

fn never(disk: &Simulated) {
    disk.set_fault(Some(Fault::Full {
        from: 0,
        count: 1_000_000,
    }));
}

fn give(world: &mut World) -> Option<Published> {
    let ceiling = world.handles[0].ceiling();
    for owner in &mut world.tables.owners {
        owner.set_ceiling(ceiling);
    }
    world.publish(ObjectHash(7), false, None)
}

#[test]
fn a_ceiling_is_used_only_once_it_would_survive_a_power_cut() {
    for at in 0.. {
        let disk = Simulated::default();
        let mut world = open_again(&disk, "boot 1", &Memory::default());
        let (begun, before) = (disk.operations(), world.handles[0].ceiling());
        world.idle.keeper.wall_us = later;
        disk.set_fault(Some(Fault::Crash { at: begun + at }));
        world.idle.keeper.raise_ceiling();
        let used = world.handles[0].ceiling();
        for back in [Back::Process, Back::Power, Back::PowerTorn] {
            assert!(used <= on_disk(&disk.back(back)), "{back:?} at {at}");
        }
        if disk.operations() <= begun + at {
            assert!(used > before, "it was raised");
            return;
        }
    }
}

#[test]
fn a_node_that_cannot_raise_its_ceiling_goes_on_up_to_it_then_refuses_and_recovers_by_itself() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    let ceiling = world.handles[0].ceiling();
    assert!(matches!(give(&mut world), Some(Published::Accepted(_))));
    never(&disk);
    world.idle.keeper.wall_us = || WALL_US + AHEAD.of_clock_us - 1;
    world.idle.keeper.raise_ceiling();
    assert_eq!(world.handles[0].ceiling(), ceiling);
    assert!(!world.handles[0].is_failing(), "some versions are left");
    world.idle.keeper.wall_us = later;
    world.idle.keeper.raise_ceiling();
    assert!(world.handles[0].is_failing() && world.idle.status().is_failing());
    assert!(!world.idle.writer.state.trouble(Trouble::Log), "the log is fine");
    assert_eq!(world.handles[0].ceiling(), ceiling, "it was not used");
    // Whoever gives versions now reaches the ceiling and no further.
    world.wall_us = later();
    disk.set_fault(None);
    assert!(matches!(give(&mut world), Some(Published::Accepted(version)) if version < ceiling));
    for owner in &mut world.tables.owners {
        owner.resume_above(ceiling.before());
    }
    assert_eq!(give(&mut world), Some(Published::Accepted(ceiling)));
    assert!(matches!(give(&mut world), Some(Published::Paused(_))));
    world.idle.keeper.raise_ceiling();
    assert!(!world.handles[0].is_failing());
    let Some(Published::Accepted(version)) = give(&mut world) else {
        panic!("it gives versions again");
    };
    assert!(ceiling < version && version <= on_disk(&disk.back(Back::Power)));
}

#[test]
fn a_marker_that_cannot_be_written_keeps_the_node_refusing_until_it_can() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    // The write is operation 0; the marker is created by operation 1.
    disk.set_fault(Some(Fault::Full {
        from: disk.operations() + 1,
        count: 1_000_000,
    }));
    assert_eq!(give(&mut world), None, "nobody may rely on it");
    for _ in 0..3 {
        world.idle.writer.next_probe = std::time::Instant::now();
        world.idle.writer.care();
        assert!(world.idle.writer.state.trouble(Trouble::Log), "it does not work yet");
    }
    disk.set_fault(None);
    world.idle.writer.next_probe = std::time::Instant::now();
    world.idle.writer.care();
    assert!(!world.handles[0].is_failing());
    let marked = disk.list().expect("names").iter().any(|name| name == "unsynced");
    assert!(marked, "it works only once the marker is there");
    assert!(matches!(give(&mut world), Some(Published::Accepted(_))));
    let memory = world.memory.clone();
    open_again(&disk.back(Back::Power), "boot 2", &memory).assert_true("after the power cut");
}

#[test]
fn a_power_cut_without_acknowledged_losses_raises_no_floor() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    for number in 0..50 {
        world.publish(ObjectHash(number << 60 | 1), true, None);
    }
    let memory = world.memory.clone();
    world.note_places();
    for back in [Back::Power, Back::PowerTorn] {
        open_again(&disk.back(back), "boot 2", &memory).assert_exact("only durable");
    }
    // Just begun, nothing in it.
    world.idle.writer.state.ask_for_file();
    world.idle.writer.care();
    world.note_places();
    open_again(&disk.back(Back::Power), "boot 2", &memory).assert_exact("a file just begun");
    assert!(give(&mut world).is_some(), "accepted, not durable");
    let mut after = open_again(&disk.back(Back::Power), "boot 2", &world.memory);
    after.assert_true("one was lost");
    assert!(after.floor(7) > after.identity.since, "and confessed");
}
