//! Random lives of lanes, owners and clients, judged from outside: whoever holds an object hears of its newest version or
//! is told to fetch it, cursors claim only what was told, versions never go back, and at the end no memory is left.
//!
//! `TIDINGS_SEED=17` replays one seed; `TIDINGS_SEEDS=5000` runs more.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "support/clients.rs"]
mod clients;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/judge.rs"]
mod judge;
#[path = "support/life.rs"]
mod life;
#[path = "support/polls.rs"]
mod polls;
#[path = "support/random.rs"]
mod random;
#[path = "support/wire.rs"]
mod wire;
#[path = "support/world.rs"]
mod world;

use clients::{Tally, Town};
use life::{Weather, life, resumes};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `life` with many seeds. A failing one is named with the command that replays it.
fn lives(name: &str, seeds: u64, life: impl Fn(u64) -> Town) -> Tally {
    let mut sum = Tally::default();
    let chosen = std::env::var("TIDINGS_SEED").ok().and_then(|text| text.parse().ok());
    let count = std::env::var("TIDINGS_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(seeds);
    let all = chosen.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in all {
        let ended = catch_unwind(AssertUnwindSafe(|| life(seed)));
        let Ok(town) = ended else {
            panic!("seed {seed}: TIDINGS_SEED={seed} cargo test -p tidings-router --test edge_world {name}");
        };
        add(&mut sum, &town.tally);
    }
    println!("{name}: {sum:?}");
    sum
}

fn add(sum: &mut Tally, one: &Tally) {
    sum.told += one.told;
    sum.cursors += one.cursors;
    sum.lagging += one.lagging;
    sum.with_told += one.with_told;
    sum.resyncs += one.resyncs;
    sum.more += one.more;
    sum.repeats += one.repeats;
    sum.answers += one.answers;
    sum.not_yet += one.not_yet;
    sum.blocked += one.blocked;
    sum.cut += one.cut;
}

#[test]
fn in_fair_weather_nothing_is_lost_and_nobody_is_told_to_resync() {
    let sum = lives("in_fair_weather", 150, |seed| life(seed, Weather::Fair));
    assert!(sum.told > 0 && sum.resyncs == 0);
}

#[test]
fn in_foul_weather_nothing_is_lost_without_a_word() {
    lives("in_foul_weather", 200, |seed| life(seed, Weather::Foul));
}

#[test]
fn one_seed_run_twice_is_the_same_to_the_letter() {
    for seed in 0..5 {
        let (one, two) = (life(seed, Weather::Foul), life(seed, Weather::Foul));
        assert_eq!(one.log, two.log);
    }
}

#[test]
fn whoever_comes_back_hears_exactly_what_it_missed() {
    lives("whoever_comes_back", 60, resumes);
}
