//! Copies between real nodes of this process. The test plays the control plane: it agrees to what owners propose, or does not.

use super::world::{Owners, Plan, Told, World, owner, plan, shards, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidings_protocol::ShardId;
use tidings_router::control::command::{Command, Seen, With};

/// Objects of many shards.
fn objects() -> Vec<String> {
    (0..48).map(|number| format!("object-{number}")).collect()
}

/// A world in which node 0 owns everything and node 1 is to have copies, which it has not yet.
fn filled(plans: [Plan; 2]) -> World {
    let mut world = World::of(plans);
    world.map.apply(&Command::SetCopies { copies: 2 }).unwrap();
    world.give_all(0);
    shards().all().for_each(|shard| {
        let fill = Command::Fill {
            seen: Seen::of(&world.map, shard).unwrap(),
            member: world.nodes[1].process,
        };
        world.map.apply(&fill).unwrap();
    });
    world
}

/// The same with so many threads, in which nobody is taken out because this machine is slow.
fn pair(threads: [usize; 2]) -> World {
    filled(threads.map(|threads| {
        let mut plan = plan(Owners::Some(threads));
        plan.config.cluster.lease_ms = 60_000;
        plan
    }))
}

impl World {
    /// What was proposed since the last time.
    fn proposed(&self) -> Vec<Command> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let mut proposals = node.proposals.borrow_mut();
            while let Some(commands) = proposals.next() {
                all.extend(commands);
            }
        }
        all
    }

    /// Agrees to what was proposed and shows it. What is of an older map changes nothing, as it would not.
    fn agree(&mut self) {
        let before = self.map.revision();
        for command in self.proposed() {
            _ = self.map.apply(&command);
        }
        if self.map.revision() > before {
            self.show_all();
        }
    }

    fn is_in_sync(&self, shard: ShardId) -> bool {
        let copy = self.nodes[1].process;
        self.map.shard(shard).is_some_and(|shard| shard.in_sync.contains(&copy))
    }

    /// Agrees until node 1 is in sync with every shard.
    #[track_caller]
    fn until_in_sync(&mut self) {
        until("in sync", || {
            self.agree();
            shards().all().all(|shard| self.is_in_sync(shard))
        });
    }

    /// Node 0 is gone: node 1 goes on with its copies.
    fn promote(&mut self) {
        shards().all().for_each(|shard| {
            let to = self.nodes[1].process;
            let ceiling = Command::RaiseCeiling {
                to: tidings_protocol::Version(crate::clock::now().wall_us + 200_000),
            };
            _ = self.map.apply(&ceiling);
            let assign = Command::Assign {
                seen: Seen::of(&self.map, shard).unwrap(),
                to,
                with: With::Copy,
            };
            self.map.apply(&assign).unwrap();
        });
        self.show(1);
    }

    /// Node 1 owns all objects now, each with at least this version.
    #[track_caller]
    fn has_all(&self, versions: &[(String, u64)]) {
        for (object, version) in versions {
            until("it is known to the new owner", || {
                let request = format!("GET /v1/object?object={object} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let known = crate::testing::ask(self.nodes[1].address, &request);
                known.status == 200 && known.json()["version"].as_u64() >= Some(*version)
            });
        }
    }

    #[track_caller]
    fn publish_all(&self) -> Vec<(String, u64)> {
        let each = objects().into_iter().map(|object| {
            let version = self.nodes[0].version_of(&object);
            (object, version)
        });
        each.collect()
    }
}

#[test]
fn streams_are_dealt_out_between_nodes_with_different_numbers_of_threads() {
    for threads in [[1, 1], [1, 3], [3, 1], [2, 3], [3, 2], [4, 2]] {
        let mut world = pair(threads);
        // Some are there before the copies are, some come after.
        world.publish_all();
        world.show_all();
        world.until_in_sync();
        let versions = world.publish_all();
        let watched: Vec<String> = objects();
        let watched: Vec<&str> = watched.iter().map(String::as_str).collect();
        world.promote();
        world.has_all(&versions);
        let mut subscriber = world.nodes[1].subscriber(&watched);
        let next = world.nodes[1].version_of(watched[0]);
        assert!(next > versions[0].1, "{threads:?}: versions go on");
        assert_eq!(
            subscriber.poll(watched[0], 5_000),
            Told::Version(next),
            "{threads:?}: the copy vouches for everything"
        );
    }
}

/// Publishes at node 0 and tells whether that was acknowledged in time.
fn is_acknowledged(world: &World, ack: &str) -> bool {
    let answer = world.nodes[0].publish(&format!("object=x&ack={ack}&timeout_ms=700"));
    assert!([200, 503, 504].contains(&answer.status), "{answer:?}");
    answer.status == 200
}

#[test]
fn a_copy_that_confirms_nothing_holds_up_who_waits_for_it_and_nobody_else() {
    let mut world = pair([2, 2]);
    world.show_all();
    world.until_in_sync();
    assert!(is_acknowledged(&world, "replicated"));
    world.nodes[1].relay.still(true);
    assert!(is_acknowledged(&world, "accepted"));
    assert!(!is_acknowledged(&world, "replicated"));
    assert!(is_acknowledged(&world, "accepted"), "also behind one that waits");
    world.nodes[1].relay.still(false);
    until("acknowledged", || is_acknowledged(&world, "replicated"));
}

#[test]
fn a_copy_that_does_not_answer_is_proposed_to_be_taken_out_and_counts_until_that_is_agreed() {
    let mut world = filled([owner(), owner()]);
    world.show_all();
    world.until_in_sync();
    world.nodes[1].relay.still(true);
    let waiting = {
        let address = world.nodes[0].address;
        std::thread::spawn(move || {
            crate::testing::post(address, "/v1/publish?object=x&ack=replicated&timeout_ms=30000", "", b"")
        })
    };
    let copy = world.nodes[1].process;
    let shard = super::world::shard_of("x");
    let mut wanted = Vec::new();
    until("proposed", || {
        wanted.extend(world.proposed());
        let of_x = |command: &Command| matches!(command, Command::Remove { seen, member } if *member == copy && seen.shard == shard);
        wanted.iter().any(of_x)
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "nobody agreed yet");
    until("agreed", || {
        world.agree();
        !world.is_in_sync(shard)
    });
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    world.nodes[1].relay.still(false);
}

/// Everything that goes to it is held, but it is heard: its copies seem silent, and the control plane too.
#[test]
fn an_owner_that_hears_nobody_has_no_copies_taken_out() {
    let mut world = filled([owner(), owner()]);
    world.show_all();
    world.until_in_sync();
    world.nodes[1].relay.still(true);
    let lease_us = world.nodes[0].node.config.cluster.lease_ms * 1_000;
    world.show_with(0, |view| view.until_us = crate::clock::now().mono_us + lease_us * 2 / 5);
    assert!(!is_acknowledged(&world, "replicated"));
    let end = Instant::now() + Duration::from_micros(lease_us * 2);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(world.proposed(), []);
    }
    world.show(0);
    until("proposed", || {
        let proposed = world.proposed();
        proposed.iter().any(|command| matches!(command, Command::Remove { .. }))
    });
    world.nodes[1].relay.still(false);
}

#[test]
fn what_was_not_confirmed_when_a_connection_broke_comes_again_on_the_next() {
    let mut world = pair([2, 3]);
    world.show_all();
    world.until_in_sync();
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = objects()
        .chunks(16)
        .map(|objects| {
            let (stop, address, objects) = (Arc::clone(&stop), world.nodes[0].address, objects.to_vec());
            std::thread::spawn(move || {
                let mut last: Vec<(String, u64)> = objects.into_iter().map(|object| (object, 0)).collect();
                while !stop.load(Ordering::Relaxed) {
                    for (object, version) in &mut last {
                        let target = format!("/v1/publish?object={object}&timeout_ms=30000");
                        let answer = crate::testing::post(address, &target, "", b"");
                        assert_eq!(answer.status, 200, "{answer:?}");
                        *version = answer.json()["version"].as_u64().unwrap();
                    }
                }
                last
            })
        })
        .collect();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(150));
        world.nodes[1].relay.cut();
        world.agree();
    }
    stop.store(true, Ordering::Relaxed);
    let versions = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap());
    let versions: Vec<(String, u64)> = versions.collect();
    world.until_in_sync();
    world.promote();
    world.has_all(&versions);
}

#[test]
fn a_process_that_read_no_confirmed_map_takes_no_copies() {
    let mut world = pair([2, 2]);
    // Node 1 started again, and shows what it found.
    world.show_with(1, |view| view.confirmed = false);
    world.show(0);
    assert!(is_acknowledged(&world, "accepted"));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let joins = world.proposed().into_iter();
        let joins: Vec<Command> = joins
            .filter(|command| matches!(command, Command::Join { .. }))
            .collect();
        assert_eq!(joins, [], "it confirmed something");
    }
    assert_eq!(held(&world), 0);
    world.show(1);
    world.until_in_sync();
    until("held", || held(&world) == shards().all().count());
}

/// Whole copies that node 1 has.
fn held(world: &World) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let owners = world.nodes[1].node.owners.iter();
    let reports = owners.map(|owner| runtime.block_on(owner.report()).unwrap());
    reports.map(|report| report.copies.held).sum()
}
