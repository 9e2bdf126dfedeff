//! Copies of shards, seen from outside: whoever dies, as long as one node has everything nobody fetches, nobody misses
//! anything, and what comes back or is new is given a copy.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};
use support::*;

/// Between two changes of one writer.
const PACE: Duration = Duration::from_millis(10);
/// How long things go on before and after something happens.
const A_WHILE: Duration = Duration::from_secs(2);
/// The lease of these clusters.
const LEASE: Duration = Duration::from_secs(2);

fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Somebody who is away, with what changed meanwhile.
struct Away {
    objects: Vec<String>,
    cursor: String,
    changed: Vec<(String, u64)>,
}

impl Away {
    /// A client gets a cursor and goes; every second of its objects is changed after that, each once.
    #[track_caller]
    fn leaves(cluster: &Cluster, at: usize, prefix: &str) -> Self {
        let objects = names(prefix, 60);
        let poller = Poller::new(Poll::of(cluster.address(at), &objects));
        let changed: Vec<String> = objects.iter().step_by(2).cloned().collect();
        Self {
            cursor: poller.cursor,
            changed: publish_all(cluster.address(at), &changed),
            objects,
        }
    }

    /// It comes back and hears of exactly these.
    #[track_caller]
    fn returns(&self, cluster: &Cluster, at: usize) {
        let mark = cluster.publish(at, "mark").expect("accepted");
        Poller::resume(Poll::of(cluster.address(at), &self.objects), &self.cursor)
            .up_to(mark)
            .is_exactly(&self.changed);
    }
}

/// Ends an application in which nobody was told to fetch.
#[track_caller]
fn ends_exactly(life: Life) {
    let (changes, longest) = life.acknowledged();
    println!(
        "{changes} changes, {} tries in vain, the slowest took {longest:.2?}",
        life.failures().len()
    );
    let told = life.end();
    assert_eq!(causes(&told), BTreeSet::new(), "a copy survived");
}

#[test]
fn an_owner_is_killed_and_nobody_has_to_fetch() {
    let mut cluster = Plan::of(3).start();
    let objects = names("killed", 120);
    let victim = cluster.follower();
    let living = cluster.others(victim);
    let (of_it, of_others) = cluster.split(living[0], victim, &objects);
    assert!(!of_it.is_empty() && !of_others.is_empty());
    let away = Away::leaves(&cluster, victim, "away");
    // One of the readers is at the node that dies.
    let mut life = Life::begin(&cluster, &objects, &[living[0], living[1], victim]);
    life.write(&of_it, &living, PACE);
    life.write(&of_others, &living, PACE);
    pass(A_WHILE);
    assert_eq!(life.failures(), [], "before anything happened");
    cluster.kill(victim);
    cluster.until_owned_by(&living);
    cluster.until_copied(&living);
    living.iter().for_each(|at| away.returns(&cluster, *at));
    pass(A_WHILE);
    life.assert_none_refused(&of_others);
    ends_exactly(life);
}

#[test]
fn an_owner_is_killed_its_successor_too_once_copies_are_full_again() {
    let mut cluster = Plan::of(5).start();
    let objects = names("twice", 90);
    let away = Away::leaves(&cluster, 0, "away");
    let mut life = Life::begin(&cluster, &objects, &[0, 1, 2]);
    life.write(&objects, &[0, 1, 2], PACE);
    for victim in [3, 4] {
        pass(A_WHILE);
        cluster.kill(victim);
        let running = cluster.running();
        cluster.until_owned_by(&running);
        cluster.until_copied(&running);
    }
    away.returns(&cluster, 1);
    ends_exactly(life);
}

/// The node of an object's owner, and the one that has its copy.
#[track_caller]
fn pair_of(cluster: &Cluster, asked: usize, object: &str) -> (usize, usize) {
    let shard = cluster.shards_of(asked, &[object.to_owned()])[0];
    let owner = cluster.owners(asked)[&shard];
    let holders = &cluster.holders(asked)[&shard];
    let copy = holders.iter().find(|node| **node != owner);
    (owner, *copy.expect("a copy"))
}

/// An object of which the copy is on a node that does not lead: with the leader's death an election is waited for as well.
#[track_caller]
fn followed(cluster: &Cluster, asked: usize, prefix: &str) -> (String, usize, usize) {
    let leader = cluster.leader(asked);
    let found = names(prefix, 200).into_iter().find_map(|object| {
        let (owner, copy) = pair_of(cluster, asked, &object);
        (copy != leader).then_some((object, owner, copy))
    });
    found.expect("an object")
}

/// Publishes go on when a copy has been taken out, and none is refused before.
#[track_caller]
fn without_a_copy(prefix: &str, hit: impl FnOnce(&mut Cluster, usize)) {
    let mut cluster = Plan::of(3).start();
    let (object, owner, copy) = followed(&cluster, 0, prefix);
    let living = cluster.others(copy);
    let away = Away::leaves(&cluster, owner, "away");
    let mut life = Life::begin(&cluster, std::slice::from_ref(&object), &living);
    life.write(std::slice::from_ref(&object), &[owner], PACE);
    pass(A_WHILE);
    hit(&mut cluster, copy);
    let since = Instant::now();
    let version = publish_at(cluster.address(owner), &object, 10_000).expect("after it was taken out");
    let took = since.elapsed();
    println!("{took:.2?} until a publish went on without the copy");
    assert!(took < LEASE * 3, "{took:?}");
    pass(A_WHILE);
    away.returns(&cluster, owner);
    assert_eq!(life.failures(), [], "publishes wait for that");
    assert!(version_of(cluster.address(owner), &object) > Some(version), "and go on");
    if cluster.is_running(copy) {
        cluster.resume(copy);
    } else {
        cluster.launch(copy);
    }
    cluster.until_healed();
    ends_exactly(life);
}

#[test]
fn publishes_go_on_when_a_copy_that_stands_still_has_been_taken_out() {
    without_a_copy("still", |cluster, copy| cluster.pause(copy));
}

#[test]
fn publishes_go_on_when_a_copy_that_died_has_been_taken_out() {
    without_a_copy("dead", Cluster::kill);
}

/// Objects of which a copy is elsewhere than on these nodes, and those of which none is.
#[track_caller]
fn survivors(cluster: &Cluster, dead: &[usize], objects: &[String]) -> (Vec<String>, Vec<String>) {
    let dead: BTreeSet<usize> = dead.iter().copied().collect();
    let asked = (0..cluster.count()).find(|node| !dead.contains(node)).expect("a node");
    let holders = cluster.holders(asked);
    let shards = cluster.shards_of(asked, objects);
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for (object, shard) in objects.iter().zip(shards) {
        let is_lost = holders[&shard].is_subset(&dead);
        let side = if is_lost { &mut lost } else { &mut kept };
        side.push(object.clone());
    }
    (kept, lost)
}

#[test]
fn owner_and_leader_die_at_once_and_what_has_a_copy_elsewhere_is_exact() {
    let mut cluster = Plan::of(5).start();
    let leader = cluster.leader(0);
    let owner = cluster.others(leader)[2];
    let dead = [leader, owner];
    let living: Vec<usize> = (0..5).filter(|node| !dead.contains(node)).collect();
    let (objects, _) = survivors(&cluster, &dead, &names("both", 150));
    let mut life = Life::begin(&cluster, &objects, &living);
    life.write(&objects, &living, PACE);
    pass(A_WHILE);
    cluster.kill(leader);
    cluster.kill(owner);
    cluster.until_owned_by(&living);
    cluster.until_copied(&living);
    ends_exactly(life);
}

#[test]
fn with_all_copies_dead_a_floor_rises_and_those_who_watch_are_told_why() {
    let mut cluster = Plan::of(5).start();
    let objects = names("lost", 200);
    let (owner, copy) = pair_of(&cluster, 0, &objects[0]);
    let (kept, lost) = survivors(&cluster, &[owner, copy], &objects);
    assert!(!kept.is_empty() && !lost.is_empty());
    let living: Vec<usize> = (0..5).filter(|node| ![owner, copy].contains(node)).collect();
    // Half of what is lost changes again as soon as somebody owns it.
    let (quiet, busy) = lost.split_at(lost.len().div_ceil(2));
    let mut life = Life::begin(&cluster, &objects, &living);
    quiet.iter().for_each(|object| life.change(object, living[0]));
    life.write(&[&kept, busy].concat(), &living, PACE);
    pass(A_WHILE);
    cluster.kill(owner);
    cluster.kill(copy);
    // Versions of who owns the shards next: nobody does before the leases have ended.
    let after = SystemTime::now() + LEASE / 8;
    let after = after
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock")
        .as_micros();
    cluster.until_owned_by(&living);
    pass(A_WHILE);
    let told = life.end();
    assert_eq!(causes(&told), ["versions_lost".to_owned()].into());
    let (lost, quiet): (BTreeSet<&str>, BTreeSet<&str>) = (
        lost.iter().map(String::as_str).collect(),
        quiet.iter().map(String::as_str).collect(),
    );
    for told in told {
        let resyncs = told.resyncs.iter();
        let named = resyncs.filter_map(|resync| resync["objects"].as_array()).flatten();
        let named: BTreeSet<&str> = named.map(|object| object.as_str().expect("an object")).collect();
        assert!(named.is_subset(&lost), "{named:?} but lost are {lost:?}");
        assert!(named.is_superset(&quiet), "{named:?} without some of {quiet:?}");
        // Whoever hears of a version above the floor in the same moment is not told to fetch besides: it is the newest there is.
        for object in lost.difference(&named) {
            let version = told.versions.get(*object).copied().unwrap_or(0);
            assert!(
                u128::from(version) > after,
                "{object} at {version}, which is not after {after}"
            );
        }
    }
}

#[test]
fn a_node_that_comes_back_without_its_disk_is_filled_and_may_be_the_last_one_then() {
    let mut cluster = Plan::of(3).start();
    let objects = names("blank", 90);
    let away = Away::leaves(&cluster, 0, "away");
    let mut life = Life::begin(&cluster, &objects, &[0, 1]);
    life.write(&objects, &[0, 1], PACE);
    pass(A_WHILE);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.folder(2)).expect("its disk is gone");
    cluster.launch(2);
    cluster.until_healed();
    cluster.until(0, "it takes part and has copies", |status| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let mine = nodes
            .iter()
            .any(|node| node["node"] == "n2" && node["alive"] == true && node["copies"].as_u64().unwrap_or(0) > 0);
        mine && status["short_of_copies"] == 0
    });
    away.returns(&cluster, 2);
    pass(A_WHILE);
    ends_exactly(life);
}

/// One change with a key and a revision; what was answered.
fn change(cluster: &Cluster, at: usize, body: &Value, key: &str) -> Value {
    let target = "/v1/publish?timeout_ms=8000";
    let headers = format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n");
    send(
        cluster.address(at),
        "POST",
        target,
        &headers,
        body.to_string().as_bytes(),
    )
    .ok()
}

#[test]
fn a_repeat_and_an_old_revision_are_recognised_by_whoever_took_over() {
    let mut cluster = Plan::of(3).start();
    let victim = cluster.follower();
    let living = cluster.others(victim);
    let objects = names("marked", 90);
    let (of_it, _) = cluster.split(living[0], victim, &objects);
    let body = |object: &String, revision: u64| json!({"object": object, "revision": revision});
    let first: Vec<Value> = of_it
        .iter()
        .map(|object| change(&cluster, living[0], &body(object, 7), object))
        .collect();
    cluster.kill(victim);
    cluster.until_owned_by(&living);
    for (object, first) in of_it.iter().zip(first) {
        let again = change(&cluster, living[1], &body(object, 7), object);
        assert_eq!(again["duplicate"], true, "{object}: {again}");
        assert_eq!(again["version"], first["version"], "{object}: the same key");
        let old = change(&cluster, living[0], &body(object, 6), &format!("{object} once more"));
        assert_eq!(old["duplicate"], true, "{object}: an older revision: {old}");
        let new = change(&cluster, living[0], &body(object, 8), &format!("{object} and more"));
        assert!(
            new["duplicate"].is_null() && new["version"].as_u64() > first["version"].as_u64(),
            "{new}"
        );
    }
}

fn paused_owner(time: Duration, taken_over: bool) {
    let mut cluster = Plan::of(3).start();
    let objects = names("paused", 90);
    let victim = cluster.follower();
    let living = cluster.others(victim);
    let (of_it, _) = cluster.split(living[0], victim, &objects);
    let away = Away::leaves(&cluster, victim, "away");
    let mut life = Life::begin(&cluster, &objects, &[living[0], living[1], victim]);
    life.write(&objects, &living, PACE);
    pass(A_WHILE);
    let before = cluster.owners(living[0]);
    cluster.pause(victim);
    pass(time);
    if taken_over {
        cluster.until_owned_by(&living);
        for object in &of_it {
            cluster.publish(living[1], object).expect("it is taken over");
        }
    }
    cluster.resume(victim);
    cluster.until_healed();
    away.returns(&cluster, victim);
    if !taken_over {
        println!("owned as before: {}", before == cluster.owners(living[0]));
    }
    pass(A_WHILE);
    ends_exactly(life);
}

#[test]
fn an_owner_that_stands_still_for_longer_than_its_lease_is_followed_exactly() {
    paused_owner(LEASE * 2, true);
}

#[test]
fn an_owner_that_stands_still_for_a_moment_goes_on() {
    paused_owner(LEASE / 3, false);
}

#[test]
fn every_level_of_acknowledgement_is_given_with_copies_on_disk_and_in_memory() {
    let kept: [&[&str]; 2] = [&[], &["--data-dir", "none"]];
    for more in kept {
        let cluster = Plan::of(3).with(more).start();
        let objects = names("level", 30);
        let mut poller = Poller::new(Poll::of(cluster.address(2), &objects));
        for level in ["accepted", "replicated", "durable"] {
            let target = |object: &String| format!("/v1/publish?object={object}&ack={level}");
            let mut told = Vec::new();
            for object in &objects {
                let answer = send(cluster.address(0), "POST", &target(object), "", b"");
                if level == "durable" && !more.is_empty() {
                    assert_eq!(answer.code(), "ack_unavailable", "nothing is durable here");
                    continue;
                }
                told.push((object.clone(), answer.ok()["version"].as_u64().expect("a version")));
            }
            if let Some(newest) = told.iter().map(|(_, version)| *version).max() {
                poller.up_to(newest).is_exactly(&told);
            }
        }
    }
}

#[test]
fn a_copy_in_memory_holds_no_durable_publish_up_and_stays() {
    let mut cluster = Plan::of(3).build();
    cluster.change(2, &["--data-dir", "none"]);
    (0..3).for_each(|node| cluster.launch(node));
    cluster.until_healed();
    let (owners, holders) = (cluster.owners(0), cluster.holders(0));
    let objects = names("mixed", 60);
    let shards = cluster.shards_of(0, &objects);
    let (mut accepted, mut refused) = (0, 0);
    for (object, shard) in objects.iter().zip(shards) {
        let target = format!("/v1/publish?object={object}&ack=durable&timeout_ms=10000");
        let answer = send(cluster.address(0), "POST", &target, "", b"");
        if owners[&shard] == 2 {
            assert_ne!(answer.status, 200, "its owner has no disk: {object}: {answer:?}");
            refused += 1;
        } else {
            assert_eq!(answer.status, 200, "{object}: {answer:?}");
            accepted += 1;
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} and {refused}");
    // Nor is it taken out for its silence afterwards.
    pass(LEASE);
    assert_eq!(cluster.holders(0), holders);
}

#[test]
fn three_copies_bear_two_deaths_at_once() {
    let mut cluster = Plan::of(5).copies(3).start();
    let objects = names("three", 90);
    let holders = cluster.holders(0);
    assert!(holders.values().all(|of| of.len() == 3), "{holders:?}");
    let away = Away::leaves(&cluster, 0, "away");
    let mut life = Life::begin(&cluster, &objects, &[0, 1, 2]);
    life.write(&objects, &[0, 1, 2], PACE);
    pass(A_WHILE);
    cluster.kill(3);
    cluster.kill(4);
    cluster.until_owned_by(&[0, 1, 2]);
    cluster.until_copied(&[0, 1, 2]);
    away.returns(&cluster, 2);
    ends_exactly(life);
}

#[test]
fn a_cluster_in_memory_bears_the_loss_of_a_node_and_refills_it() {
    let mut cluster = Plan::of(3).with(&["--data-dir", "none"]).start();
    let objects = names("memory", 90);
    let away = Away::leaves(&cluster, 0, "away");
    let mut life = Life::begin(&cluster, &objects, &[0, 1]);
    life.write(&objects, &[0, 1], PACE);
    pass(A_WHILE);
    cluster.kill(2);
    cluster.until_owned_by(&[0, 1]);
    cluster.until_copied(&[0, 1]);
    away.returns(&cluster, 1);
    ends_exactly(life);
}

/// An order by HTTP, at any node.
#[track_caller]
fn order(cluster: &Cluster, at: usize, what: &str, body: &Value) {
    let answer = ask(
        cluster.address(at),
        "POST",
        &format!("/v1/cluster/{what}"),
        body,
        PATIENCE,
    );
    assert!(matches!(answer, Ok((200, _))), "{what} {body}: {answer:?}");
}

/// The part of everything that a node has, as another knows it.
fn share(status: &Value, name: &str) -> Option<(u64, u64)> {
    let nodes = status["nodes"].as_array()?;
    let row = nodes.iter().find(|node| node["node"] == name)?;
    Some((
        row["owned"].as_u64()?,
        row["copies"].as_u64()? + row["filling"].as_u64()?,
    ))
}

#[test]
fn shards_are_moved_by_hand_a_node_is_drained_and_takes_part_again_and_nobody_notices() {
    let mut cluster = Plan::of(3).start();
    let objects = names("moved", 90);
    let away = Away::leaves(&cluster, 0, "away");
    let mut life = Life::begin(&cluster, &objects, &[0, 2]);
    life.write(&objects, &[0, 2], PACE);
    pass(A_WHILE);
    let phase = |cluster: &mut Cluster, life: &Life, what: &str| {
        cluster.until_healed();
        pass(A_WHILE / 2);
        let (changes, longest) = life.acknowledged();
        println!("{what}: {changes} changes so far, the slowest took {longest:.2?}");
        assert_eq!(life.failures(), [], "{what}");
    };
    for (shard, owner) in cluster.owners(0).into_iter().take(8) {
        let to = format!("n{}", (owner + 1) % 3);
        order(&cluster, 0, "move", &json!({"shard": shard, "to": to}));
        cluster.until(0, "it moved", |status| {
            let shards = status["shards"].as_array().map_or(&[][..], Vec::as_slice);
            shards.iter().any(|row| row["shard"] == shard && row["owner"] == *to)
        });
    }
    phase(&mut cluster, &life, "eight moves");
    order(&cluster, 0, "drain", &json!({"node": "n1"}));
    cluster.until(0, "it has nothing", |status| share(status, "n1") == Some((0, 0)));
    pass(A_WHILE / 2);
    order(&cluster, 0, "drain", &json!({"node": "n1", "undo": true}));
    cluster.until(0, "it owns shards again", |status| {
        share(status, "n1").is_some_and(|(owned, copies)| owned > 0 && copies > 0)
    });
    phase(&mut cluster, &life, "a drain and back");
    away.returns(&cluster, 1);
    ends_exactly(life);
}

/// All nodes are stopped and started again, one after the other, first drained or not. Nobody is told to fetch, and no node
/// that stays refuses anything.
fn rolled(drained: bool) {
    let mut cluster = Plan::of(3).start();
    let objects = names("rolled", 90);
    let away = Away::leaves(&cluster, 0, "away");
    // Whoever polls goes on at the next node; publishers of a node that stops as well.
    let mut life = Life::begin(&cluster, &objects, &[0, 1, 2]);
    life.write(&objects, &[0, 1, 2], PACE);
    pass(A_WHILE);
    let mut spans = Vec::new();
    for node in 0..3 {
        let other = (node + 1) % 3;
        let name = format!("n{node}");
        if drained {
            order(&cluster, other, "drain", &json!({"node": name}));
            cluster.until(other, "it has nothing", |status| share(status, &name) == Some((0, 0)));
        }
        let begin = life.age();
        cluster.stop(node);
        cluster.launch(node);
        if drained {
            order(&cluster, other, "drain", &json!({"node": name, "undo": true}));
        }
        cluster.until_healed();
        spans.push((node, begin..life.age()));
        cluster.until(other, "it owns shards again", |status| {
            share(status, &name).is_some_and(|(owned, _)| owned > 0)
        });
    }
    // While it starts a node says at once that it knows no owner yet.
    let starting = |one: &Try| {
        spans
            .iter()
            .any(|(node, span)| one.node == *node && span.contains(&one.at))
    };
    let (there, elsewhere): (Vec<_>, Vec<_>) = life.tries().into_iter().partition(starting);
    println!(
        "{} tries in vain at nodes that were down or starting, {elsewhere:?} elsewhere",
        there.len()
    );
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    away.returns(&cluster, 2);
    ends_exactly(life);
}

#[test]
fn all_nodes_are_started_again_one_after_the_other_and_nobody_notices() {
    rolled(false);
}

#[test]
fn all_nodes_are_drained_and_started_again_one_after_the_other_and_nobody_notices() {
    rolled(true);
}
