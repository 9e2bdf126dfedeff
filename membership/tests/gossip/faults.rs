//! Networks that are cut: whole, one way, between two only; and two processes where one should be.

use crate::world::{MS, S, World, addr, node};
use tidings_membership::{Conflict, Event, Incarnation, Input};

fn cluster(seed: u64, size: usize) -> World {
    let mut world = World::cluster(seed, size);
    world.until(20 * S, World::agreed).unwrap();
    world.run(2 * S);
    world
}

fn span(from: usize, to: usize) -> Vec<usize> {
    (from..to).collect()
}

#[test]
fn two_members_that_cannot_reach_one_another_but_a_third_can_live_on() {
    for seed in 0..5 {
        let mut world = cluster(seed, 3);
        world.loss = 0.05;
        world.cut(0, 1);
        world.run(30 * 60 * S);
        assert_eq!(world.downs(), [], "seed {seed}");
        assert!(world.agreed());
    }
}

#[test]
fn a_link_that_works_one_way_kills_nobody() {
    for seed in 0..5 {
        let mut world = cluster(seed, 5);
        world.loss = 0.05;
        world.cuts.insert((0, 1));
        world.cuts.insert((2, 3));
        world.run(10 * 60 * S);
        assert_eq!(world.downs(), [], "seed {seed}");
        assert!(world.agreed());
    }
}

#[test]
fn a_link_that_loses_half_of_everything_kills_nobody() {
    for seed in 0..5 {
        let mut world = cluster(seed, 5);
        world.lossy.insert((0, 1), 0.5);
        world.lossy.insert((1, 0), 0.5);
        world.lossy.insert((3, 0), 0.9);
        world.run(10 * 60 * S);
        assert_eq!(world.downs(), [], "seed {seed}");
    }
}

#[test]
fn who_is_heard_by_nobody_is_held_dead_and_who_hears_nobody_too() {
    for deaf in [true, false] {
        let mut world = cluster(3, 5);
        for other in 0..4 {
            world.cuts.insert(if deaf { (other, 4) } else { (4, other) });
        }
        let gone = world.until(20 * S, |world| (0..4).all(|i| !world.view(i).contains(&node(4))));
        assert!(gone.is_some(), "deaf: {deaf}");
        let others = world.events(|event| matches!(event, Event::Down { node: gone, .. } if *gone != node(4)));
        assert!(
            others.iter().all(|(_, by, _)| *by == 4),
            "only itself may think so of others: {others:?}"
        );
        world.heal();
        assert!(world.until(30 * S, World::agreed).is_some(), "deaf: {deaf}");
    }
}

#[test]
fn a_partition_heals_by_itself_however_long_it_lasted() {
    for (left, right, time) in [(1, 2, 10), (2, 3, 60), (5, 5, 600), (1, 9, 1_800)] {
        let size = left + right;
        let mut world = cluster(4, size);
        world.loss = 0.02;
        world.part(&span(0, left), &span(left, size));
        world.run(time * S);
        assert!(world.agreed_among(&span(0, left)), "{left} | {right}");
        assert!(world.agreed_among(&span(left, size)), "{left} | {right}");
        world.heal();
        let took = world.until(30 * S, World::agreed);
        assert!(took.is_some(), "{left} | {right}: not healed after 30 s");
        world.run(30 * S);
        assert!(world.agreed(), "and stays so");
    }
}

#[test]
fn a_partition_that_outlived_memory_heals_over_the_seeds() {
    let mut world = World::new(5);
    world.config.forget_after = std::time::Duration::from_secs(60);
    world.grow(6);
    world.until(10 * S, World::agreed).unwrap();
    world.part(&span(0, 3), &span(3, 6));
    world.run(300 * S);
    assert_eq!(world.machine(0).remembered(), 2, "the others are forgotten");
    world.heal();
    assert!(world.until(150 * S, World::agreed).is_some());
}

#[test]
fn all_in_pieces_come_together_again() {
    let mut world = cluster(6, 7);
    for i in 0..7 {
        world.part(&[i], &span(i + 1, 7));
    }
    world.run(60 * S);
    assert!((0..7).all(|i| world.view(i).is_empty()));
    let alone = world.events(|event| *event == Event::Alone);
    assert_eq!(alone.len(), 7);
    world.heal();
    assert!(world.until(20 * S, World::agreed).is_some());
    let connected = world.events(|event| *event == Event::Connected);
    assert_eq!(connected.len(), 14);
}

#[test]
fn a_node_that_moved_to_another_address_is_told_as_restarted_there() {
    let mut world = cluster(7, 4);
    world.crash(3);
    let mut moved = world.setup(3);
    moved.addr = addr(44);
    moved.incarnation = Incarnation(2);
    world.start_as(4, moved);
    world.input(4, Input::Seeds(vec![addr(0)]));
    world.run(5 * S);
    for by in 0..3 {
        let peer = world.machine(by).members().find(|peer| peer.node == node(3)).unwrap();
        assert_eq!((peer.gossip_addr, peer.incarnation), (addr(44), Incarnation(2)));
    }
    assert_eq!(
        world.events(|event| matches!(event, Event::Conflict(_) | Event::Superseded { .. })),
        []
    );
    assert_eq!(world.downs(), []);
}

/// A copy of node 3 at another address, while node 3 runs.
fn copied(incarnation: u64) -> World {
    let mut world = cluster(8, 4);
    let mut copy = world.setup(3);
    copy.addr = addr(44);
    copy.incarnation = Incarnation(incarnation);
    world.start_as(4, copy);
    world.input(4, Input::Seeds(vec![addr(0)]));
    world.run(20 * S);
    world
}

#[test]
fn of_two_processes_of_one_node_the_later_start_counts_and_the_other_stops_and_says_why() {
    for incarnation in [1, 2] {
        let world = copied(incarnation);
        let superseded = world.events(|event| matches!(event, Event::Superseded { .. }));
        assert_eq!(superseded.len(), 1, "{superseded:?}");
        let (_, by, Event::Superseded { by: winner }) = superseded[0].clone() else {
            panic!("{superseded:?}");
        };
        assert_eq!(
            (by, winner.addr, winner.incarnation),
            (3, addr(44), Incarnation(incarnation))
        );
        assert_eq!(world.machine(3).next_deadline(), None, "it is silent");
        for i in 0..3 {
            let peer = world.machine(i).members().find(|peer| peer.node == node(3)).unwrap();
            assert_eq!(peer.gossip_addr, addr(44));
        }
        let named = world.events(|event| matches!(event, Event::Conflict(Conflict::TwoProcesses { .. })));
        assert!(!named.is_empty(), "the others name it");
        assert!(world.downs().is_empty(), "{:?}", world.downs());
    }
}

#[test]
fn a_node_restored_from_a_backup_does_not_run_as_its_own_past() {
    let mut world = cluster(9, 4);
    world.crash(3);
    world.start(3);
    world.input(3, Input::Seeds(vec![addr(0)]));
    world.run(3 * S);
    world.crash(3);
    world.run(10 * S);
    let mut old = world.setup(3);
    old.incarnation = Incarnation(1);
    world.start_as(3, old);
    world.input(3, Input::Seeds(vec![addr(0)]));
    world.run(5 * S);
    let superseded = world.events(|event| matches!(event, Event::Superseded { .. }));
    assert_eq!(superseded.len(), 1);
    assert!((0..3).all(|i| !world.view(i).contains(&node(3))));
}

#[test]
fn a_node_that_kept_its_start_number_over_a_restart_is_let_in_again() {
    let mut world = cluster(10, 4);
    world.pause(3);
    world.run(10 * S);
    world.resume(3);
    world.run(5 * S);
    world.crash(3);
    world.run(10 * S);
    let same = world.setup(3);
    world.start_as(3, same);
    world.input(3, Input::Seeds(vec![addr(0)]));
    assert!(world.until(10 * S, World::agreed).is_some());
}

#[test]
fn two_nodes_with_one_address_are_named() {
    let mut world = cluster(11, 4);
    let mut wrong = world.setup(4);
    // It runs at 10.0.0.5 and tells others that it is where node 3 is.
    wrong.addr = addr(3);
    world.start_as(4, wrong);
    world.input(4, Input::Seeds(vec![addr(0)]));
    world.listen(addr(4), 4);
    world.run(20 * S);
    // Answers go to the address it named, so node 3 gets them and the newcomer never gets in.
    assert!(world.agreed_among(&[0, 1, 2, 3]));
    assert_eq!(world.view(4).len(), 0);
    // One that takes over the address while the other is still held alive is named.
    world.crash(3);
    let mut heir = world.setup(5);
    heir.addr = addr(3);
    world.start_as(5, heir);
    world.listen(addr(3), 5);
    world.input(5, Input::Seeds(vec![addr(0)]));
    world.run(10 * S);
    let shared = world.events(|event| matches!(event, Event::Conflict(Conflict::SharedAddress { .. })));
    assert!(!shared.is_empty());
    let expected = Conflict::SharedAddress {
        addr: addr(3),
        first: node(3),
        second: node(5),
    };
    assert!(
        shared.iter().all(|(_, _, event)| *event == Event::Conflict(expected)),
        "{shared:?}"
    );
    assert!((0..3).all(|i| world.view(i).contains(&node(5)) && !world.view(i).contains(&node(3))));
}

#[test]
fn a_starved_observer_accuses_nobody() {
    let mut world = cluster(12, 9);
    // One node gets 10 ms of every 100 ms for ten minutes.
    for _ in 0..6_000 {
        world.pause(4);
        world.run(90 * MS);
        world.resume(4);
        world.run(10 * MS);
    }
    assert_eq!(world.downs(), []);
    assert!(world.agreed());
}

/// Node 0 ends, and nothing reaches the last node while the rumour of it runs. What follows within three seconds?
fn missed_by_one(seed: u64, size: usize, end: impl Fn(&mut World)) -> World {
    let mut world = cluster(seed, size);
    let straggler = size - 1;
    // It may leave with a word to some.
    world.cuts.insert((0, straggler));
    end(&mut world);
    world
        .until(10 * S, |world| (1..straggler).any(|by| !world.sees(by, 0)))
        .unwrap();
    for other in 0..straggler {
        world.cuts.insert((other, straggler));
    }
    world.run(1_500 * MS);
    assert!(world.sees(straggler, 0), "seed {seed}: it missed the news");
    assert!(
        (1..straggler).all(|by| !world.sees(by, 0)),
        "seed {seed}: all others have it"
    );
    world.heal();
    world.run(3 * S);
    assert!(!world.sees(straggler, 0), "seed {seed}: nobody told it");
    world
}

#[test]
fn who_missed_the_rumour_of_a_death_is_reminded_of_it() {
    for seed in 0..5 {
        let world = missed_by_one(seed, 40, |world| world.crash(0));
        let gone = |event: &Event| matches!(event, Event::Down { node: gone, .. } if *gone == node(0));
        let told = world.events(gone).iter().filter(|(_, by, _)| *by == 39).count();
        assert_eq!(told, 1, "seed {seed}");
        assert_eq!(world.downs().len(), 39, "seed {seed}: nobody else was held dead");
        let reminders: u64 = (1..39).map(|by| world.machine(by).counters().reminders).sum();
        assert!(reminders > 0, "seed {seed}");
    }
}

#[test]
fn who_missed_a_good_bye_is_told_that_it_was_one() {
    for seed in 0..5 {
        let world = missed_by_one(seed, 40, |world| {
            world.input(0, Input::Leave);
            world.crash(0);
        });
        assert_eq!(world.downs(), [], "seed {seed}: it left");
        let left = |event: &Event| matches!(event, Event::Left { node: gone, .. } if *gone == node(0));
        let told = world.events(left).iter().filter(|(_, by, _)| *by == 39).count();
        assert_eq!(told, 1, "seed {seed}");
    }
}

#[test]
fn while_nobody_missed_anything_nobody_is_reminded() {
    let mut world = cluster(1, 20);
    world.crash(7);
    world.run(10 * S);
    let reminders = |world: &World| -> u64 {
        let alive = world.alive().into_iter();
        alive.map(|by| world.machine(by).counters().reminders).sum()
    };
    let before = reminders(&world);
    world.run(60 * S);
    assert_eq!(reminders(&world), before, "all agree");
}
