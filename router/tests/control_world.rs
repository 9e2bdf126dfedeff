//! Random lives of a cluster's control plane, judged from outside: one acknowledger a shard, versions of a new epoch above
//! all older ones, nothing acknowledged lost without a floor above it, and whole again when the faults end.
//!
//! `TIDINGS_SEED=17` replays one seed; `TIDINGS_SEEDS=5000` runs more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_wrap,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "control/judge.rs"]
mod judge;
#[path = "control/nodes.rs"]
mod nodes;
#[path = "support/random.rs"]
mod random;
#[path = "control/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Tally, World};

/// Half a minute or so of faults, then peace until everything must be whole.
fn life(seed: u64) -> Tally {
    let (count, copies) = [(3, 2), (3, 1), (5, 3), (2, 2), (4, 2), (1, 1)][(seed % 6) as usize];
    let mut world = World::new(seed, count, copies);
    for _ in 0..3_000 {
        world.step();
        world.judge_loss();
    }
    world.heal();
    for _ in 0..4_000 {
        world.step();
        world.judge_loss();
    }
    world.judge_whole();
    world.judge_causes();
    world.tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_acknowledged_is_lost_and_all_is_whole_in_the_end() {
    let mut sum = Tally::default();
    let all = number("TIDINGS_SEED").map_or(0..number("TIDINGS_SEEDS").unwrap_or(120), |seed| seed..seed + 1);
    let many = all.end - all.start > 50;
    for seed in all {
        let Ok(tally) = catch_unwind(AssertUnwindSafe(|| life(seed))) else {
            panic!("seed {seed}: TIDINGS_SEED={seed} cargo test -p tidings-router --test control_world");
        };
        sum.acks += tally.acks;
        sum.by_copy += tally.by_copy;
        sum.by_disk += tally.by_disk;
        sum.empty += tally.empty;
        sum.handed_over += tally.handed_over;
        sum.joined += tally.joined;
        sum.elections += tally.elections;
        sum.refused_old_epoch += tally.refused_old_epoch;
        sum.stale_grants += tally.stale_grants;
        sum.lies += tally.lies;
    }
    println!("{sum:?}");
    let happened = [
        sum.acks,
        sum.by_copy,
        sum.by_disk,
        sum.empty,
        sum.handed_over,
        sum.joined,
        sum.elections,
        sum.refused_old_epoch,
        sum.stale_grants,
        sum.lies,
    ];
    assert!(
        !many || happened.iter().all(|count| *count > 0),
        "something never happened: {sum:?}"
    );
}
