//! A simulated cluster for as long as wanted: how soon a crash is known, who was held dead falsely, what it costs.
//!
//! ```sh
//! cargo run --release -p tidings-membership --example gossip -- --nodes 1000 --loss 0.05 --hours 1
//! ```
//!
//! `--seed N` picks another run, `--crashes N` how many nodes crash one after the other once the quiet time is over. Ends
//! with an error if somebody was held dead who was not, or if a crash took ten seconds to be known to all.

#![allow(clippy::unwrap_used, reason = "an experiment: a failure ends it")]

#[path = "../tests/gossip/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Instant;
use tidings_membership::{Event, Input};
use world::{S, World, addr};

struct Plan {
    nodes: usize,
    loss: f64,
    hours: f64,
    seed: u64,
    crashes: usize,
}

fn plan() -> Result<Plan, String> {
    let mut plan = Plan {
        nodes: 100,
        loss: 0.05,
        hours: 0.1,
        seed: 1,
        crashes: 10,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |_| format!("{name}: `{value}` is no number");
        match name.as_str() {
            "--nodes" => plan.nodes = value.parse().map_err(|_| wrong(()))?,
            "--loss" => plan.loss = value.parse().map_err(|_| wrong(()))?,
            "--hours" => plan.hours = value.parse().map_err(|_| wrong(()))?,
            "--seed" => plan.seed = value.parse().map_err(|_| wrong(()))?,
            "--crashes" => plan.crashes = value.parse().map_err(|_| wrong(()))?,
            other => return Err(format!("`{other}` is unknown: --nodes --loss --hours --seed --crashes")),
        }
    }
    if plan.nodes < 2 || plan.crashes + 2 > plan.nodes {
        return Err("at least two nodes must be left".to_owned());
    }
    Ok(plan)
}

fn seconds(us: u64) -> f64 {
    us as f64 / S as f64
}

/// Nodes start over ten seconds; says when all saw all.
fn form(world: &mut World, nodes: usize) -> Option<u64> {
    let pause = 10 * S / nodes as u64;
    for i in 0..nodes {
        world.start(i);
        world.input(i, Input::Seeds((0..3).map(addr).collect()));
        world.run(pause);
    }
    world.until(120 * S, World::agreed)
}

fn traffic(world: &World, before: (u64, u64), time: u64) {
    let each = |total: u64| total as f64 / world.slots.len() as f64 / seconds(time);
    let (sent, bytes) = (world.sent - before.0, world.sent_bytes - before.1);
    println!(
        "traffic: {:.1} datagrams and {:.0} bytes a second sent by each node; the largest had {} bytes",
        each(sent),
        each(bytes),
        world.largest
    );
}

fn quiet(world: &mut World, hours: f64) -> usize {
    let minutes = (hours * 60.0).round() as u64;
    let (begun, before, log) = (world.now, (world.sent, world.sent_bytes), world.log.len());
    let clock = Instant::now();
    for minute in 1..=minutes {
        world.run(60 * S);
        if minute % 10 == 0 || minute == minutes || world.slots.len() >= 500 {
            let downs = world.downs().len();
            println!(
                "minute {minute}: {downs} verdicts of death, {:.0} s of ours",
                clock.elapsed().as_secs_f64()
            );
        }
    }
    traffic(world, before, (world.now - begun).max(1));
    let count = |kind: fn(&Event) -> bool| world.log[log..].iter().filter(|(_, _, event)| kind(event)).count();
    let total = |of: fn(&tidings_membership::Counters) -> u64| -> u64 {
        world.alive().iter().map(|i| of(&world.machine(*i).counters())).sum()
    };
    println!(
        "quiet: {minutes} minutes; {} suspicions raised, {} seen, {} refuted; {} false deaths, {} revivals",
        total(|counters| counters.suspicions),
        count(|event| matches!(event, Event::Suspected { .. })),
        count(|event| matches!(event, Event::Refuted { .. })),
        count(|event| matches!(event, Event::Down { .. })),
        count(|event| matches!(event, Event::Revived { .. })),
    );
    count(|event| matches!(event, Event::Down { .. }))
}

fn crash(world: &mut World, crashes: usize) -> Vec<u64> {
    let mut took = Vec::new();
    for _ in 0..crashes {
        let alive = world.alive();
        let victim = alive[world.dice.below(alive.len() as u64) as usize];
        let log = world.log.len();
        world.crash(victim);
        let all = world.until(60 * S, |world| world.unseen(victim)).unwrap_or(u64::MAX);
        let first = world.log[log..]
            .iter()
            .find(|(_, _, event)| matches!(event, Event::Down { .. }));
        let first = first.map_or(0, |(at, _, _)| *at);
        println!(
            "crash of {victim}: known to all after {:.2} s; first held dead at {first}",
            seconds(all)
        );
        took.push(all);
        world.run(5 * S);
    }
    took.sort_unstable();
    took
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    println!("{} nodes, {} % loss, seed {}", plan.nodes, plan.loss * 100.0, plan.seed);
    let mut world = World::new(plan.seed);
    world.loss = plan.loss;
    match form(&mut world, plan.nodes) {
        Some(took) => println!("all see all {:.2} s after the last one started", seconds(took)),
        None => {
            let missing = |i: &usize| plan.nodes - 1 - world.machine(*i).member_count();
            let blind: Vec<_> = world.alive().into_iter().filter(|i| missing(i) > 0).collect();
            println!("120 s after the last one started {} nodes do not see all", blind.len());
            for i in blind.into_iter().take(10) {
                println!("node {i} misses {}: {:?}", missing(&i), world.machine(i).counters());
            }
        }
    }
    let false_deaths = quiet(&mut world, plan.hours);
    let before = world.downs().len();
    let took = crash(&mut world, plan.crashes);
    let expected: usize = (1..=plan.crashes).map(|gone| plan.nodes - gone).sum();
    let surplus = (world.downs().len() - before).saturating_sub(expected);
    let slowest = took.last().copied().unwrap_or(0);
    if let Some(median) = took.get(took.len() / 2) {
        println!(
            "crashes: known to all after {:.2} s (median), {:.2} s (slowest)",
            seconds(*median),
            seconds(slowest)
        );
    }
    println!("false deaths: {false_deaths} in the quiet time, {surplus} while nodes crashed");
    if false_deaths + surplus > 0 || slowest >= 10 * S {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
