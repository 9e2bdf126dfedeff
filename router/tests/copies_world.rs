//! Random lives of copies: owners, senders and receivers on roads that break, with a map that others see late. What was
//! acknowledged is known to every later owner, unless all copies were lost and the floor says so; in peace all is whole.
//!
//! `TIDINGS_SEED=17` replays one seed; `TIDINGS_SEEDS=5000` runs more.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "copies/control.rs"]
mod control;
#[path = "support/random.rs"]
mod random;
#[path = "copies/roads.rs"]
mod roads;
#[path = "copies/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Tally, World};

fn life(seed: u64) -> Tally {
    let mut world = World::new(seed, 2 + (seed % 2) as usize);
    for _ in 0..3_000 {
        world.step();
    }
    world.peace = true;
    for _ in 0..4_000 {
        world.step();
    }
    // The last words arrive.
    for _ in 0..200 {
        world.now.mono_us += 10_000;
        world.deliver();
    }
    world.judge_whole();
    world.tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_was_acknowledged_is_known_to_every_later_owner() {
    let mut sum = Tally::default();
    let all = number("TIDINGS_SEED").map_or(0..number("TIDINGS_SEEDS").unwrap_or(60), |seed| seed..seed + 1);
    let many = all.end - all.start > 20;
    for seed in all {
        let Ok(tally) = catch_unwind(AssertUnwindSafe(|| life(seed))) else {
            panic!("seed {seed}: TIDINGS_SEED={seed} cargo test -p tidings-router --test copies_world");
        };
        sum.acks += tally.acks;
        sum.promoted += tally.promoted;
        sum.joined += tally.joined;
        sum.removed += tally.removed;
        sum.handed_over += tally.handed_over;
        sum.retaken += tally.retaken;
        sum.deposed += tally.deposed;
        sum.lacked += tally.lacked;
        sum.duplicates += tally.duplicates;
        sum.lost += tally.lost;
    }
    println!("{sum:?}");
    if many {
        let reached = [
            sum.acks,
            sum.promoted,
            sum.joined,
            sum.removed,
            sum.handed_over,
            sum.retaken,
            sum.deposed,
            sum.duplicates,
            sum.lost,
        ];
        assert!(
            reached.iter().all(|count| *count > 0),
            "something never happened: {sum:?}"
        );
    }
}
