//! Members that come, change, leave, crash, pause and come back, and what is told of it.

use crate::world::{MS, S, World, addr, metadata, node};
use std::collections::BTreeMap;
use tidings_membership::{Config, Event, Incarnation, Input, Metadata};
use tidings_protocol::NodeId;

fn cluster(seed: u64, size: usize) -> World {
    let mut world = World::cluster(seed, size);
    world.until(20 * S, World::agreed).unwrap();
    world.run(2 * S);
    world
}

/// What one slot was told about a node, as words.
fn told(world: &World, by: usize, about: NodeId) -> Vec<String> {
    let mut words = Vec::new();
    for (_, _, event) in world.log.iter().filter(|(_, slot, _)| *slot == by) {
        let word = match event {
            Event::Joined(peer) if peer.node == about => format!("joined {}", peer.incarnation),
            Event::Changed(peer) if peer.node == about => "changed".to_owned(),
            Event::Restarted { peer, before } if peer.node == about => {
                format!("restarted {before}->{}", peer.incarnation)
            }
            Event::Suspected { node, .. } if *node == about => "suspected".to_owned(),
            Event::Refuted { node, .. } if *node == about => "refuted".to_owned(),
            Event::Down { node, .. } if *node == about => "down".to_owned(),
            Event::Left { node, .. } if *node == about => "left".to_owned(),
            _ => continue,
        };
        words.push(word);
    }
    words
}

#[test]
fn a_crash_is_known_to_all_within_seconds() {
    for (size, loss, within, seeds) in [
        (3, 0.0, 4, 0..50),
        (3, 0.05, 6, 0..50),
        (9, 0.05, 6, 0..50),
        (30, 0.05, 8, 0..20),
        (100, 0.05, 9, 0..8),
    ] {
        for seed in seeds {
            let mut world = World::new(seed);
            world.loss = loss;
            world.grow(size);
            world.until(60 * S, World::agreed).unwrap();
            world.run(3 * S);
            world.crash(size / 2);
            let took = world.until(within * S, |world| world.unseen(size / 2));
            assert!(
                took.is_some(),
                "{size} nodes, seed {seed}: not known to all after {within} s"
            );
            let gone = node(size / 2);
            world.run(5 * S);
            assert!(world.agreed());
            for (_, _, event) in world.downs() {
                assert!(matches!(event, Event::Down { node, .. } if node == gone), "{event:?}");
            }
        }
    }
}

#[test]
fn nobody_is_held_dead_falsely_on_a_lossy_network() {
    for (size, minutes) in [(3, 60), (10, 20), (100, 1)] {
        let mut world = World::new(7);
        world.loss = 0.05;
        world.copies = 0.01;
        world.grow(size);
        world.until(60 * S, World::agreed).unwrap();
        world.run(minutes * 60 * S);
        assert_eq!(world.downs(), [], "{size} nodes");
        let revived = world.events(|event| matches!(event, Event::Revived { .. }));
        assert_eq!(revived, [], "{size} nodes");
        let doubted: u64 = (0..size).map(|i| world.machine(i).counters().suspicions).sum();
        assert!(
            size == 100 || doubted > 0,
            "{size} nodes: the network was bad enough for doubts"
        );
        assert!(world.agreed());
    }
}

#[test]
fn what_is_told_of_a_member_begins_with_its_metadata_and_ends_with_its_end() {
    let mut world = cluster(1, 5);
    world.crash(4);
    world.run(10 * S);
    for by in 0..4 {
        assert_eq!(told(&world, by, node(4)), ["joined 1", "suspected", "down"], "by {by}");
    }
    let joined = world.events(|event| matches!(event, Event::Joined(peer) if peer.node == node(4)));
    assert!(
        joined
            .iter()
            .all(|(_, _, event)| matches!(event, Event::Joined(peer) if peer.metadata == metadata(4)))
    );
    assert_eq!(
        world.machine(0).members().next().map(|peer| peer.gossip_addr.port()),
        Some(7_946)
    );
}

#[test]
fn who_says_good_bye_is_told_to_have_left_at_once() {
    for seed in 0..20 {
        let mut world = cluster(seed, 7);
        world.loss = 0.05;
        world.input(3, Input::Leave);
        assert_eq!(world.machine(3).next_deadline(), None);
        world.run(2 * S);
        for by in (0..7).filter(|by| *by != 3) {
            let words = told(&world, by, node(3));
            assert_eq!(words.last().unwrap(), "left", "seed {seed}, by {by}: {words:?}");
        }
        world.crash(3);
        world.run(30 * S);
        assert!(world.agreed());
        let sent = world.sent;
        world.tape = Some(Vec::new());
        world.run(30 * S);
        assert!(world.sent > sent);
        let looked_for = world.tape.unwrap().iter().filter(|(_, to, _)| *to == addr(3)).count();
        assert!(
            looked_for <= 3,
            "who left is not looked for: {looked_for} datagrams (seeds are asked now and then)"
        );
    }
}

#[test]
fn a_restart_too_short_to_be_noticed_is_told_as_a_restart() {
    let mut world = cluster(2, 5);
    world.crash(2);
    world.run(300 * MS);
    world.start(2);
    world.input(2, Input::Seeds(vec![addr(0)]));
    world.run(3 * S);
    assert!(world.agreed());
    for by in [0, 1, 3, 4] {
        assert_eq!(told(&world, by, node(2)), ["joined 1", "restarted 1->2"], "by {by}");
        let peer = world.machine(by).members().find(|peer| peer.node == node(2)).unwrap();
        assert_eq!(peer.incarnation, Incarnation(2));
    }
}

#[test]
fn a_restart_is_known_without_seeds_because_others_still_ask_for_the_one_before() {
    let mut world = cluster(2, 5);
    world.crash(2);
    world.start(2);
    assert!(world.until(3 * S, World::agreed).is_some());
}

#[test]
fn a_dead_node_that_comes_back_joins_again() {
    let mut world = cluster(3, 5);
    world.crash(1);
    world.run(10 * S);
    world.start(1);
    world.input(1, Input::Seeds(vec![addr(0)]));
    world.run(3 * S);
    for by in [0, 2, 3, 4] {
        assert_eq!(
            told(&world, by, node(1)),
            ["joined 1", "suspected", "down", "joined 2"],
            "by {by}"
        );
    }
}

#[test]
fn a_rolling_restart_ends_with_everybody_seeing_everybody() {
    let mut world = cluster(4, 9);
    world.loss = 0.02;
    for i in 0..9 {
        world.input(i, Input::Leave);
        world.run(300 * MS);
        world.crash(i);
        world.run(S);
        world.start(i);
        world.input(i, Input::Seeds((0..3).map(addr).collect()));
        world.run(2 * S);
    }
    assert!(world.until(5 * S, World::agreed).is_some());
    assert_eq!(world.downs(), [], "they all said good-bye");
    for i in 0..9 {
        assert!(
            world
                .machine(i)
                .members()
                .all(|peer| peer.incarnation == Incarnation(2))
        );
    }
}

#[test]
fn a_node_that_flaps_leaves_no_trace_but_its_last_state() {
    let mut world = cluster(5, 5);
    for _ in 0..60 {
        world.crash(4);
        world.run(700 * MS);
        world.start(4);
        world.input(4, Input::Seeds(vec![addr(0), addr(1)]));
        world.run(1_300 * MS);
    }
    assert!(world.until(5 * S, World::agreed).is_some());
    for i in 0..4 {
        assert_eq!(world.machine(i).remembered(), 4);
        let incarnations: BTreeMap<_, _> = world
            .machine(i)
            .members()
            .map(|peer| (peer.node, peer.incarnation))
            .collect();
        assert_eq!(incarnations[&node(4)], Incarnation(61));
    }
    let others = world.events(|event| matches!(event, Event::Down { node: gone, .. } if *gone != node(4)));
    assert_eq!(others, []);
}

#[test]
fn a_pause_shorter_than_suspicion_is_forgiven() {
    for timers_first in [true, false] {
        for seed in 0..10 {
            let mut world = cluster(seed, 6);
            world.timers_first = timers_first;
            world.pause(2);
            world.run(1_400 * MS);
            world.resume(2);
            world.run(20 * S);
            assert_eq!(world.downs(), [], "seed {seed}");
            assert!(world.agreed());
        }
    }
}

#[test]
fn a_pause_longer_than_suspicion_is_death_and_then_return_and_the_paused_one_accuses_nobody() {
    for timers_first in [true, false] {
        for seed in 0..10 {
            let mut world = cluster(seed, 6);
            world.timers_first = timers_first;
            world.pause(2);
            world.run(30 * S);
            assert!(
                world
                    .alive()
                    .into_iter()
                    .filter(|i| *i != 2)
                    .all(|i| !world.view(i).contains(&node(2)))
            );
            world.resume(2);
            let back = world.until(5 * S, World::agreed);
            assert!(back.is_some(), "seed {seed}: not back after 5 s");
            world.run(20 * S);
            assert!(world.agreed(), "seed {seed}");
            let accused = world.events(|event| matches!(event, Event::Down { node: gone, .. } if *gone != node(2)));
            assert_eq!(accused, [], "seed {seed}, timers first: {timers_first}");
            let revived = world.events(|event| matches!(event, Event::Revived { .. }));
            assert_eq!(revived.len(), 1, "seed {seed}: {revived:?}");
            for by in [0, 1, 3, 4, 5] {
                let words = told(&world, by, node(2));
                assert_eq!(
                    words,
                    ["joined 1", "suspected", "down", "joined 1"],
                    "seed {seed}, by {by}"
                );
            }
        }
    }
}

/// Nothing reaches slot `of` until somebody suspects it: who?
fn suspected(world: &mut World, of: usize) -> usize {
    let others: Vec<usize> = (0..world.slots.len()).filter(|i| *i != of).collect();
    world.part(&[of], &others);
    let raised = |world: &World, by: usize| world.machine(by).counters().suspicions;
    let before: Vec<u64> = (0..world.slots.len()).map(|by| raised(world, by)).collect();
    let first = |world: &World| others.iter().copied().find(|by| raised(world, *by) > before[*by]);
    world.until(20 * S, |world| first(world).is_some()).unwrap();
    world.heal();
    first(world).unwrap()
}

#[test]
fn who_is_paused_while_it_suspects_somebody_reads_the_answer_before_its_verdict() {
    for seed in 0..20 {
        let mut world = cluster(seed, 3);
        let observer = suspected(&mut world, 1);
        world.run(10 * MS);
        world.pause(observer);
        world.run(1_600 * MS);
        world.resume(observer);
        world.run(10 * S);
        let verdicts = world.events(|event| matches!(event, Event::Down { node: gone, .. } if *gone == node(1)));
        assert_eq!(verdicts, [], "seed {seed}");
        assert!(world.agreed());
    }
}

#[test]
fn a_suspect_is_told_at_once_and_need_not_wait_for_the_rumour() {
    let mut sum = 0;
    for seed in 0..10 {
        let mut world = cluster(seed, 60);
        let observer = suspected(&mut world, 40);
        let log = world.log.len();
        let refuted = |event: &Event| matches!(event, Event::Refuted { node: of, .. } if *of == node(40));
        let took = world.until(3 * S, |world| {
            world.log[log..]
                .iter()
                .any(|(_, by, event)| *by == observer && refuted(event))
        });
        sum += took.unwrap();
    }
    assert!(sum / 10 < 200 * MS, "{} ms on average", sum / 10 / MS);
}

#[test]
fn changed_metadata_reaches_all_and_the_newest_stays() {
    let mut world = cluster(6, 20);
    world.loss = 0.1;
    for load in 1..=50 {
        let changed = Metadata {
            load_permille: load,
            map_revision: u64::from(load),
            ..metadata(7)
        };
        world.input(7, Input::Metadata(changed));
        world.run(50 * MS);
    }
    world.run(10 * S);
    for by in (0..20).filter(|by| *by != 7) {
        let peer = world.machine(by).members().find(|peer| peer.node == node(7)).unwrap();
        assert_eq!(peer.metadata.load_permille, 50, "by {by}");
        let changes = told(&world, by, node(7))
            .iter()
            .filter(|word| *word == "changed")
            .count();
        assert!((1..=6).contains(&changes), "changes are gathered: {changes}");
    }
}

#[test]
fn metadata_missed_by_rumour_is_asked_for() {
    let mut world = cluster(8, 4);
    // Node 3 hears nothing while the rumour runs, and is not dead yet when it hears again.
    for other in 0..3 {
        world.cuts.insert((other, 3));
    }
    world.input(
        0,
        Input::Metadata(Metadata {
            map_revision: 77,
            ..metadata(0)
        }),
    );
    world.run(900 * MS);
    world.heal();
    world.run(10 * S);
    let peer = world.machine(3).members().find(|peer| peer.node == node(0)).unwrap();
    assert_eq!(peer.metadata.map_revision, 77);
}

#[test]
fn a_broken_link_makes_a_crash_known_sooner() {
    let mut sum = [0, 0];
    for seed in 0..20 {
        for (hinted, sum) in sum.iter_mut().enumerate() {
            let mut world = cluster(seed, 10);
            world.crash(9);
            if hinted == 1 {
                for by in 0..9 {
                    world.input(by, Input::Unreachable(node(9)));
                }
            }
            *sum += world.until(10 * S, |world| world.unseen(9)).unwrap();
        }
    }
    assert!(
        sum[1] < sum[0],
        "with hints {} µs, without {} µs, over 20 crashes",
        sum[1],
        sum[0]
    );
}

#[test]
fn a_hint_about_a_member_that_lives_does_no_harm() {
    let mut world = cluster(9, 5);
    for _ in 0..100 {
        for by in 0..4 {
            world.input(by, Input::Unreachable(node(4)));
        }
        world.run(500 * MS);
    }
    assert_eq!(world.downs(), []);
    assert_eq!(
        world.events(|event| matches!(event, Event::Suspected { .. })),
        [],
        "it answers, so nobody doubts"
    );
    world.input(0, Input::Unreachable(NodeId(12345)));
}

#[test]
fn the_dead_are_forgotten_after_their_time() {
    let mut world = World::new(10);
    world.config = Config {
        forget_after: std::time::Duration::from_secs(60),
        ..Config::default()
    };
    world.grow(4);
    world.until(10 * S, World::agreed).unwrap();
    world.crash(3);
    world.run(30 * S);
    assert_eq!(world.machine(0).remembered(), 3);
    world.run(60 * S);
    assert_eq!(world.machine(0).remembered(), 2);
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let mut world = World::new(11);
        world.loss = 0.1;
        world.tape = Some(Vec::new());
        world.grow(8);
        world.run(20 * S);
        world.crash(3);
        world.run(20 * S);
        (world.tape, world.log)
    };
    let (one, other) = (run(), run());
    assert!(one.0.as_ref().is_some_and(|tape| tape.len() > 1_000));
    assert!(one == other);
}
