//! A whole cluster for as long as wanted on a network that loses one datagram in twenty: how soon a crash is known to all,
//! who was held dead falsely, what it costs.
//!
//! ```sh
//! TIDINGS_GOSSIP_NODES=1000 TIDINGS_GOSSIP_SECONDS=3600 TIDINGS_GOSSIP_CRASHES=20 \
//!     cargo test --release -p tidings-membership --test gossip a_crowd -- --nocapture
//! ```
//!
//! `TIDINGS_SEED` picks another run, `TIDINGS_SEEDS` makes so many, one after the other.

use crate::world::{MS, S, World, addr};
use tidings_membership::{Counters, Event, Input};

/// What the issue that asked for gossip promised.
const KNOWN_WITHIN: u64 = 10 * S;

fn chosen(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no number")),
        Err(_) => default,
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / S as f64
}

/// Nodes start over ten seconds. Says how long after the last one all see all.
fn form(world: &mut World, nodes: usize) -> u64 {
    for i in 0..nodes {
        world.start(i);
        world.input(i, Input::Seeds((0..3).map(addr).collect()));
        world.run(10 * S / nodes as u64);
    }
    world.until(120 * S, World::agreed).expect("all see all in the end")
}

fn sum(world: &World, of: impl Fn(&Counters) -> u64) -> u64 {
    let alive = world.alive().into_iter();
    alive.map(|i| of(&world.machine(i).counters())).sum()
}

/// Nobody crashes for so long. Says what each node sent a second: datagrams and bytes.
fn quiet(world: &mut World, time: u64) -> (f64, f64) {
    let begun = (world.now, world.sent, world.sent_bytes);
    while world.now - begun.0 < time {
        world.run((60 * S).min(time - (world.now - begun.0)));
        let deaths = world.downs().len();
        println!("{} s: {deaths} false deaths", (world.now - begun.0) / S);
        assert_eq!(deaths, 0, "{:?}", world.log);
    }
    let each = |total: u64| total as f64 / world.slots.len() as f64 / seconds(time);
    (each(world.sent - begun.1), each(world.sent_bytes - begun.2))
}

/// So many nodes crash one after the other. Says how long each took to be known to all.
fn crash(world: &mut World, crashes: usize) -> Vec<u64> {
    let mut took = Vec::new();
    for _ in 0..crashes {
        let alive = world.alive();
        let victim = alive[world.dice.below(alive.len() as u64) as usize];
        let deaths = world.downs().len();
        world.crash(victim);
        let known = world.until(KNOWN_WITHIN, |world| world.unseen(victim));
        let known = known.unwrap_or_else(|| panic!("{victim} crashed, and after ten seconds not all know"));
        took.push(known);
        let pause = 3 * S + world.dice.below(500) * MS;
        world.run(pause);
        let told = world.downs().len() - deaths;
        assert_eq!(told, alive.len() - 1, "each is told of this death and of no other");
    }
    took
}

/// One cluster from its beginning to its end. Says how long each crash took to be known to all.
fn live(seed: u64, nodes: usize, time: u64, crashes: usize) -> Vec<u64> {
    println!("{nodes} nodes, 5 % loss, seed {seed}");
    let mut world = World::new(seed);
    world.loss = 0.05;
    world.worth = |event| matches!(event, Event::Down { .. } | Event::Revived { .. });
    println!(
        "all see all {:.1} s after the last one started",
        seconds(form(&mut world, nodes))
    );
    // What was said of the beginning has been handed on by then.
    world.run(60 * S);
    let doubts = |world: &World| sum(world, |counters| counters.suspicions);
    let before = doubts(&world);
    let (datagrams, bytes) = quiet(&mut world, time);
    println!(
        "quiet: {} s, {} suspicions, 0 false deaths; each node sends {datagrams:.1} datagrams and {bytes:.0} bytes a second",
        time / S,
        doubts(&world) - before,
    );
    let took = crash(&mut world, crashes);
    println!(
        "{} reminders; the largest datagram had {} bytes",
        sum(&world, |counters| counters.reminders),
        world.largest
    );
    let revived = world.events(|event| matches!(event, Event::Revived { .. }));
    assert_eq!(revived, [], "nobody was held dead who was not");
    assert!(world.largest <= world.config.max_datagram);
    took
}

#[test]
fn a_crowd_knows_each_crash_within_ten_seconds_and_holds_nobody_dead_falsely() {
    let nodes = usize::try_from(chosen("TIDINGS_GOSSIP_NODES", 60)).unwrap();
    let time = chosen("TIDINGS_GOSSIP_SECONDS", 60) * S;
    let crashes = usize::try_from(chosen("TIDINGS_GOSSIP_CRASHES", 10)).unwrap();
    let first = chosen("TIDINGS_SEED", 1);
    assert!(crashes + 2 <= nodes, "at least two nodes must be left");
    assert!(crashes > 0 && time > 0, "something must happen");
    let seeds = first..first + chosen("TIDINGS_SEEDS", 1);
    let mut took: Vec<u64> = seeds.flat_map(|seed| live(seed, nodes, time, crashes)).collect();
    took.sort_unstable();
    let at = |share: usize| seconds(took[(took.len() - 1) * share / 100]);
    println!(
        "{} crashes: known to all after {:.1} s (median), {:.1} s (99 of 100), {:.1} s (slowest)",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
}
