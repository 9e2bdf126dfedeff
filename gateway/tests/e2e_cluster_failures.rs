//! Nodes of a cluster are killed, paused and cut off while changes go on. Shards of others go on as if nothing had happened;
//! those of the dead one are taken over; and nothing that was acknowledged is missed in silence: every reader is told of it,
//! or told to fetch, which happens only where the one copy of a shard is gone. What more copies bring is in
//! `e2e_cluster_copies`.

#[path = "support/support.rs"]
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::*;

/// Between two changes of one writer.
const PACE: Duration = Duration::from_millis(10);
/// How long things go on before and after something happens.
const A_WHILE: Duration = Duration::from_secs(2);

fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// A client that comes back with a cursor from before hears exactly of what it missed, where the owner lives, and has to fetch
/// the others.
#[track_caller]
fn back_from_away(cluster: &Cluster, at: usize, cursor: &str, objects: &[String], lost: &[String]) {
    let mark = cluster.publish(at, "mark").expect("accepted");
    let heard = Poller::resume(Poll::of(cluster.address(at), objects), cursor).up_to(mark);
    let named = heard
        .resyncs
        .iter()
        .filter_map(|resync| resync["objects"].as_array())
        .flatten();
    let named: BTreeSet<&str> = named.map(|object| object.as_str().expect("an object")).collect();
    for object in objects {
        let is_lost = lost.contains(object);
        assert_eq!(named.contains(object.as_str()), is_lost, "{object}: {heard:?}");
        assert_eq!(heard.newest.contains_key(object), !is_lost, "{object}: {heard:?}");
    }
}

#[test]
fn when_the_only_copy_dies_other_shards_go_on_its_own_are_taken_over_and_nothing_is_lost_in_silence() {
    let mut cluster = Plan::of(3).copies(1).start();
    let objects = names("killed", 180);
    let victim = cluster.follower();
    let living = cluster.others(victim);
    let (of_it, of_others) = cluster.split(living[0], victim, &objects[..120]);
    let frozen = objects[120..].to_vec();
    let (frozen_of_it, _) = cluster.split(living[0], victim, &frozen);
    assert!(!of_it.is_empty() && !of_others.is_empty() && !frozen_of_it.is_empty());
    // One of the readers is at the node that dies.
    let mut life = Life::begin(&cluster, &objects, &[living[0], living[1], victim]);
    life.write(&of_it, &living, PACE);
    life.write(&of_others, &living, PACE);
    pass(A_WHILE);
    assert_eq!(life.failures(), [], "before anything happened");
    // The last change of these is acknowledged just before the end. Somebody who is away has not heard of it.
    let away = Poller::new(Poll::of(cluster.address(living[0]), &frozen)).cursor;
    for object in &frozen {
        life.change(object, living[0]);
    }
    cluster.kill(victim);
    cluster.until_owned_by(&living);
    back_from_away(&cluster, living[1], &away, &frozen, &frozen_of_it);
    for object in &of_it {
        cluster.publish(living[0], object).expect("it is taken over");
    }
    pass(A_WHILE);
    life.assert_none_refused(&of_others);
    let told = life.end();
    assert_eq!(
        causes(&told),
        ["versions_lost".to_owned()].into(),
        "and nobody is told another cause"
    );
    for told in &told[..2] {
        assert!(
            !told.resyncs.is_empty(),
            "the only copy is gone, so everybody who watched it must fetch"
        );
        // Only what was lost.
        let named = told
            .resyncs
            .iter()
            .filter_map(|resync| resync["objects"].as_array())
            .flatten();
        let named: BTreeSet<&str> = named.map(|object| object.as_str().expect("an object")).collect();
        let unharmed = of_others.iter().filter(|object| named.contains(object.as_str()));
        assert_eq!(unharmed.count(), 0, "{named:?}");
    }
}

#[test]
fn a_node_with_the_only_copies_that_is_killed_and_comes_back_with_its_disk_is_exact_and_nobody_fetches() {
    // A lease that lasts longer than a start on a loaded machine: else it would be taken over empty.
    let mut cluster = Plan::of(3).copies(1).lease_ms(15_000).start();
    let objects = names("back", 90);
    let victim = cluster.follower();
    let living = cluster.others(victim);
    let mut life = Life::begin(&cluster, &objects, &[living[0], living[1]]);
    life.write(&objects, &living, PACE);
    pass(A_WHILE);
    for _ in 0..3 {
        cluster.kill(victim);
        cluster.launch(victim);
        cluster.until_whole();
        pass(A_WHILE);
    }
    let told = life.end();
    assert_eq!(causes(&told), BTreeSet::new(), "its disk has everything");
}

#[test]
fn when_the_leader_dies_shards_that_it_did_not_own_never_refuse() {
    let mut cluster = Plan::of(3).lease_ms(6_000).start();
    let objects = names("leader", 120);
    let leader = cluster.leader(0);
    let living = cluster.others(leader);
    let (of_it, of_others) = cluster.split(living[0], leader, &objects);
    let mut life = Life::begin(&cluster, &objects, &living);
    life.write(&of_others, &living, PACE);
    life.write(&of_it, &living, PACE);
    pass(A_WHILE);
    cluster.kill(leader);
    cluster.until_owned_by(&living);
    pass(A_WHILE);
    life.assert_none_refused(&of_others);
    life.end();
    assert_ne!(cluster.leader(living[0]), leader);
}

#[test]
fn a_leader_that_stands_still_for_longer_than_its_lease_does_no_harm_when_it_goes_on() {
    let mut cluster = Plan::of(3).start();
    let objects = names("paused", 90);
    let leader = cluster.leader(0);
    let living = cluster.others(leader);
    let (of_it, _) = cluster.split(living[0], leader, &objects);
    let mut life = Life::begin(&cluster, &objects, &[living[0], living[1], leader]);
    life.write(&objects, &living, PACE);
    pass(A_WHILE);
    cluster.pause(leader);
    cluster.until_owned_by(&living);
    for object in &of_it {
        cluster.publish(living[1], object).expect("it is taken over");
    }
    cluster.resume(leader);
    cluster.until_whole();
    pass(A_WHILE);
    life.end();
}

/// Cut off or held back from the others for longer than a lease, both ways or one.
fn cut_off(gate: Gate, directions: impl Fn(&Cluster, usize, usize)) {
    let mut cluster = Plan::of(3).behind_gates().start();
    let objects = names("minority", 90);
    let alone = cluster.follower();
    let majority = cluster.others(alone);
    let (of_it, _) = cluster.split(alone, alone, &objects);
    assert!(!of_it.is_empty());
    let mut life = Life::begin(&cluster, &objects, &[majority[0], majority[1], alone]);
    life.write(&objects, &majority, PACE);
    pass(A_WHILE);
    println!("now {alone} is cut off: {gate:?}");
    for &other in &majority {
        directions(&cluster, alone, other);
    }
    cluster.until(alone, "its lease ends", |status| status["lease_left_ms"] == 0);
    let told = cluster.status(alone).expect("it answers");
    for object in &of_it {
        let answer = publish_at(cluster.address(alone), object, 300);
        assert!(
            answer.is_err(),
            "{object} was acknowledged without a lease: {answer:?}; {told}"
        );
    }
    cluster.until_owned_by(&majority);
    for object in &of_it {
        cluster.publish(majority[0], object).expect("the majority takes over");
        assert!(
            publish_at(cluster.address(alone), object, 100).is_err(),
            "{object} at the minority"
        );
    }
    cluster.gates().open_all();
    cluster.until_whole();
    pass(A_WHILE);
    life.end();
}

#[test]
fn a_minority_whose_links_are_refused_acknowledges_nothing_and_the_majority_takes_over() {
    cut_off(Gate::Cut, |cluster, alone, other| {
        cluster.gates().between(&[alone], &[other], Gate::Cut);
    });
}

#[test]
fn a_node_whose_words_are_held_back_in_silence_acknowledges_nothing_and_the_majority_takes_over() {
    cut_off(Gate::Held, |cluster, alone, other| {
        cluster.gates().set(alone, other, Gate::Held);
    });
}

#[test]
fn two_nodes_that_cannot_reach_each_other_while_both_reach_the_leader_lose_nothing() {
    let mut cluster = Plan::of(3).behind_gates().start();
    let objects = names("pair", 90);
    let leader = cluster.leader(0);
    let pair = cluster.others(leader);
    let mut life = Life::begin(&cluster, &objects, &[0, 1, 2]);
    life.write(&objects, &[leader], PACE);
    pass(A_WHILE);
    cluster.gates().between(&pair[..1], &pair[1..], Gate::Cut);
    pass(Duration::from_secs(8));
    cluster.gates().open_all();
    cluster.until_whole();
    pass(A_WHILE);
    life.assert_none_refused(&objects);
    life.end();
}

/// Three that only vote, and two that own shards and hold subscribers.
fn apart(lease_ms: u64) -> Cluster {
    let mut cluster = Plan::of(5).expect(3).lease_ms(lease_ms).build();
    for node in 0..5 {
        cluster.change(node, &["--server.roles", if node < 3 { "voter" } else { "edge,owner" }]);
        cluster.launch(node);
    }
    cluster.until_whole();
    cluster
}

#[test]
fn without_the_control_plane_for_less_than_a_lease_nobody_notices() {
    let cluster = apart(20_000);
    let objects = names("short", 60);
    let mut life = Life::begin(&cluster, &objects, &[3, 4]);
    life.write(&objects, &[3, 4], PACE);
    pass(A_WHILE);
    (0..3).for_each(|voter| cluster.pause(voter));
    pass(Duration::from_secs(4));
    (0..3).for_each(|voter| cluster.resume(voter));
    pass(A_WHILE);
    assert_eq!(life.failures(), []);
    assert_eq!(causes(&life.end()), BTreeSet::new());
}

#[test]
fn without_the_control_plane_for_more_than_a_lease_owners_refuse_and_come_back() {
    let mut cluster = apart(2_000);
    let objects = names("long", 60);
    let mut life = Life::begin(&cluster, &objects, &[3, 4]);
    life.write(&objects, &[3, 4], PACE);
    pass(A_WHILE);
    (0..3).for_each(|voter| cluster.pause(voter));
    // Both: either may own the object.
    for node in [3, 4] {
        cluster.until(node, "its lease ends", |status| status["lease_left_ms"] == 0);
    }
    for node in [3, 4] {
        // 504 where the owner is at the other node and does not say so in time.
        let refused = publish_at(cluster.address(node), &objects[0], 1_000).expect_err("nobody may");
        assert!(refused.starts_with("503") || refused.starts_with("504"), "{refused}");
    }
    (0..3).for_each(|voter| cluster.resume(voter));
    cluster.until_whole();
    pass(A_WHILE);
    println!("resyncs: {:?}", causes(&life.end()));
}

/// Not a judgement of speed: `TIDINGS_ROUNDS=50` prints figures worth reading.
#[test]
fn how_long_shards_of_a_dead_owner_are_without_one_is_printed() {
    let rounds: usize = std::env::var("TIDINGS_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let mut cluster = Plan::of(3).start();
    let objects = names("gap", 200);
    let (mut of_followers, mut of_leaders) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let leader = cluster.leader(0);
        let victim = *cluster.owners(0).values().next().expect("a shard");
        let living = cluster.others(victim);
        let (of_it, _) = cluster.split(0, victim, &objects);
        let since = Instant::now();
        cluster.kill(victim);
        let waits: Vec<_> = of_it
            .iter()
            .take(8)
            .map(|object| {
                let (address, object) = (cluster.address(living[0]), object.clone());
                std::thread::spawn(move || {
                    // What was under way to the dead node is answered with "unknown": asked again.
                    while let Err(why) = publish_at(address, &object, 10_000) {
                        assert!(since.elapsed() < LONG, "{object}: {why}");
                    }
                    since.elapsed()
                })
            })
            .collect();
        let took = waits.into_iter().map(|wait| wait.join().expect("accepted in the end"));
        let sums = if victim == leader {
            &mut of_leaders
        } else {
            &mut of_followers
        };
        sums.extend(took);
        cluster.launch(victim);
        cluster.until_whole();
    }
    for (whose, mut took) in [("a follower", of_followers), ("the leader", of_leaders)] {
        took.sort_unstable();
        if let (Some(median), Some(slow)) = (took.get(took.len() / 2), took.get(took.len() * 99 / 100)) {
            println!(
                "{median:>8.2?} median {slow:>8.2?} p99  from the kill of {whose} to the acknowledgement of a publish to its \
                 shards ({} of them, lease 2 s)",
                took.len()
            );
        }
    }
}
