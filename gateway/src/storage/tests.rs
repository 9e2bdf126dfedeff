//! What storage promises, on a disk that crashes at every operation, fails, fills up and is damaged.

mod ceilings;
mod copies;
mod epochs;
mod evictions;
mod filled;
mod formats;
mod simulated;
mod world;

use super::disk::Disk;
use super::frame::FORMAT_ALONE;
use super::recovery::Contents;
use super::*;
use simulated::{Back, Fault, Simulated};
use tidings_protocol::ObjectHash;
use tidings_router::owner::keeping::KeptRevision;
use tidings_router::owner::{PublishExtra, Published};
use world::{Memory, WALL_US, key, machine, open_again, open_at};

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
        for back in [Back::Power, Back::PowerTorn, Back::PowerNames] {
            let disk = Simulated::default();
            disk.set_fault(Some(Fault::Crash { at }));
            let memory = live(&disk);
            let disk = disk.back(back);
            let mut world = open_again(&disk, "boot 2", &memory);
            world.assert_true(&format!("{back:?} at {at}"));
            assert_eq!(world.idle.status().metrics().damage.get(), 0, "{back:?} at {at}");
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
                let memory = world.memory.clone();
                let mut cut = open_again(&disk.back(Back::Power), "boot 2", &memory);
                cut.assert_true(&format!("{what}, and a power cut meanwhile"));
                world.idle.writer.next_probe = std::time::Instant::now();
                world.idle.writer.care();
                if world.idle.writer.state.snapshots_wanted() {
                    world.idle.keeper.replace_log(&world.tables);
                }
            }
            assert!(!world.idle.writer.state.is_failing(), "{what}: it works again");
            for (back, boot) in [(Back::Process, "boot 1"), (Back::Power, "boot 2")] {
                let memory = world.memory.clone();
                let mut after = open_again(&disk.back(back), boot, &memory);
                assert_eq!(after.idle.status().metrics().damage.get(), 0, "{what}");
                after.assert_true(&what);
            }
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
fn what_a_killed_process_had_acknowledged_is_durable_once_the_next_one_runs() {
    for at in 0..=operations() {
        let disk = Simulated::default();
        disk.set_fault(Some(Fault::Crash { at }));
        let memory = live(&disk);
        let disk = disk.back(Back::Process);
        let mut second = open_again(&disk, "boot 1", &memory);
        // Only durable ones, so that no floor rises for the second run's sake.
        second.assert_exact(&format!("killed at {at}"));
        let memory = second.memory.clone();
        let mut third = open_again(&disk.back(Back::Power), "boot 2", &memory);
        third.assert_exact(&format!("killed at {at}, then a power cut"));
    }
}

#[test]
fn a_failure_during_the_start_refuses_it_or_is_overcome() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    for number in 0..3 {
        world.publish(ObjectHash(number << 62), false, None);
    }
    let memory = world.memory.clone();
    for at in 0..200 {
        let disk = disk.back(Back::Process);
        disk.set_fault(Some(Fault::Fail { at }));
        let opened = open_at(&disk, "boot 1", 2, WALL_US, memory.clone());
        if disk.operations() <= at {
            return;
        }
        if let Ok(mut world) = opened {
            world.assert_exact(&format!("a failure at {at}, overcome"));
            let memory = world.memory.clone();
            let mut after = open_again(&disk.back(Back::Power), "boot 2", &memory);
            after.assert_exact(&format!("a failure at {at}, overcome, then a power cut"));
        }
        disk.set_fault(None);
        open_again(&disk.back(Back::Process), "boot 1", &memory).assert_exact(&format!("a failure at {at}"));
    }
    panic!("a start takes more operations than were tried");
}

#[test]
fn what_was_applied_and_not_stored_is_stored_once_the_disk_works_so_that_a_repetition_is_answered_truly() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    let object = ObjectHash(0x7777_0000_0000_0001);
    let extra = PublishExtra {
        hint: None,
        revision: Some((key(object), 17)),
        idempotency: Some(key(object) + (1 << 20)),
    };
    disk.set_fault(Some(Fault::Fail { at: disk.operations() }));
    assert_eq!(world.publish(object, true, Some(extra.clone())), None, "not stored");
    world.idle.writer.next_probe = std::time::Instant::now();
    world.idle.writer.care();
    let again = world.publish(object, true, Some(extra.clone()));
    let Some(Published::Duplicate(version)) = again else {
        panic!("it had been applied: {again:?}");
    };
    for (back, boot) in [(Back::Process, "boot 1"), (Back::Power, "boot 2")] {
        let mut after = open_again(&disk.back(back), boot, &world.memory);
        assert_eq!(after.version(object.0), version, "{back:?}");
        let again = after.publish(object, true, Some(extra.clone()));
        assert_eq!(again, Some(Published::Duplicate(version)), "{back:?}");
    }
}

#[test]
fn a_cut_whose_sync_failed_is_not_trusted_at_the_second_try() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    assert!(world.publish(ObjectHash(1), false, None).is_some());
    disk.set_fault(Some(Fault::Fail { at: disk.operations() }));
    assert_eq!(world.publish(ObjectHash(1), false, None), None);
    // The first thing tried is the cut of what was written in part.
    disk.set_fault(Some(Fault::Fail { at: disk.operations() }));
    for _ in 0..4 {
        world.idle.writer.next_probe = std::time::Instant::now();
        world.idle.writer.care();
        if world.idle.writer.state.snapshots_wanted() {
            world.idle.keeper.replace_log(&world.tables);
        }
    }
    assert!(!world.idle.writer.state.is_failing());
    let mut after = open_again(&disk.back(Back::Power), "boot 2", &world.memory);
    assert_eq!(after.idle.status().metrics().damage.get(), 0);
    after.assert_true("what the failed sync lost is in the snapshots");
}

#[test]
fn a_run_that_ended_in_order_vouches_for_itself_and_not_for_the_next_one() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    world.work();
    assert!(world.idle.writer.sync().is_ok());
    world.note_places();
    notes::end_run(&disk).expect("written");
    let memory = world.memory.clone();
    open_again(&disk.back(Back::Power), "boot 2", &memory).assert_exact("after an ordered end");
    let mut next = open_again(&disk, "boot 1", &memory);
    next.publish(ObjectHash(7), false, None);
    let memory = next.memory.clone();
    let mut after = open_again(&disk.back(Back::Power), "boot 2", &memory);
    after.assert_true("a power cut in the next run");
    assert!(after.floor(7) > after.identity.since);
}

#[test]
fn a_log_file_cut_between_two_frames_is_noticed_if_another_follows() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    for number in 0..60 {
        world.publish(ObjectHash(number << 58), false, None);
    }
    let memory = world.memory.clone();
    let logs = Contents::of(&disk).expect("names").logs;
    assert!(logs.len() > 2, "{logs:?}");
    for number in logs.range(..logs.last().copied().unwrap_or(0)) {
        let hurt = disk.back(Back::Process);
        let name = recovery::log_name(*number);
        let bytes = hurt.read(&name).expect("a log");
        let head = frame::Place {
            file: *number,
            offset: 0,
        };
        let second = frame::next_whole(&bytes, head).expect("more than a head");
        hurt.lose(&name, Some(second.offset as usize));
        let after = open_again(&hurt, "boot 1", &memory);
        after.assert_confessed(&name);
        assert_eq!(after.idle.status().metrics().damage.get(), 1, "{name}");
    }
}

#[test]
fn a_large_file_is_synced_by_another_thread_before_it_is_ended() {
    for fault in [false, true] {
        let disk = Simulated::default();
        let mut world = open_again(&disk, "boot 1", &Memory::default());
        world.publish(ObjectHash(1), false, None);
        let file = world.idle.writer.place.file;
        let mut payload = frame::Payload::default();
        let mark = |number: u32| KeptRevision {
            key: u128::from(number) << 64,
            revision: 1,
            version: Version::ZERO,
        };
        payload.revisions((0..100_000_u32).map(mark));
        world.idle.writer.group(vec![Order {
            owner: 0,
            ticket: None,
            payload,
            durable: false,
        }]);
        let at = disk.operations();
        disk.set_fault(fault.then_some(Fault::Fail { at }));
        world.idle.writer.care();
        assert_eq!(world.idle.writer.place.file, file, "the writer does not wait");
        while disk.operations() == at || world.idle.writer.is_ending() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        world.idle.writer.care();
        assert_eq!(world.idle.writer.state.is_failing(), fault, "its failure is noticed");
        for _ in 0..5 {
            world.idle.writer.next_probe = std::time::Instant::now();
            world.idle.writer.care();
            if world.idle.writer.state.snapshots_wanted() {
                world.idle.keeper.replace_log(&world.tables);
            }
        }
        assert!(world.idle.writer.place.file > file && !world.idle.writer.state.is_failing());
        world.assert_goes_on("after the roll");
        let memory = world.memory.clone();
        let after = open_again(&disk.back(Back::Power), "boot 2", &memory);
        assert_eq!(after.idle.status().metrics().damage.get(), 0);
    }
}

#[test]
fn the_count_of_the_logs_bytes_stays_true() {
    let disk = Simulated::default();
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    for _ in 0..5 {
        world.work();
        world.idle.writer.state.ask_for_file();
        world.idle.writer.care();
        // Between the beginning of the file and the snapshots.
        world.work();
        assert!(world.idle.keeper.replace_log(&world.tables));
        let logs = Contents::of(&disk).expect("names").logs;
        let bytes = logs
            .iter()
            .map(|log| disk.read(&recovery::log_name(*log)).expect("a log").len());
        assert_eq!(
            world.idle.status().metrics().log_bytes.get(),
            bytes.sum::<usize>() as i64
        );
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
fn an_idempotency_key_is_known_for_its_window_and_no_longer_also_across_restarts() {
    let window_us = machine().idempotency_window_us;
    for snapshots in [false, true] {
        let disk = Simulated::default();
        let mut world = open_again(&disk, "boot 1", &Memory::default());
        let object = ObjectHash(0x7777_0000_0000_0001);
        let extra = PublishExtra {
            idempotency: Some(key(object) + (1 << 20)),
            ..PublishExtra::default()
        };
        let first = world.publish(object, false, Some(extra.clone()));
        assert!(matches!(first, Some(Published::Accepted(_))));
        let mut memory = world.memory.clone();
        // A restart on the way does not begin the window anew.
        let mut world = open_at(&disk, "boot 1", 2, WALL_US + window_us / 2, memory).expect("usable");
        assert!(!snapshots || world.snapshots());
        memory = world.memory;
        for (age_us, known) in [(window_us - 1, true), (window_us, false)] {
            let disk = disk.back(Back::Process);
            let mut world = open_at(&disk, "boot 1", 2, WALL_US + age_us, memory.clone()).expect("usable");
            let again = world.publish(object, false, Some(extra.clone()));
            assert_eq!(
                matches!(again, Some(Published::Duplicate(_))),
                known,
                "{age_us}: {again:?}"
            );
        }
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
        ..notes::identity(&other).expect("whole").expect("there").0
    };
    notes::put_identity(&other, &identity, FORMAT_ALONE).expect("written");
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
    notes::put_identity(&reshaped, &shards, FORMAT_ALONE).expect("written");
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
