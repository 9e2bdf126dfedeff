//! What the histogram of delays costs a delivery, in instructions: docs/benchmarks.md says how to run it.
//!
//! Needs no other crate, so that `rustc -O` alone makes it. `delays` records a million delays of all sizes, `none` makes the
//! same numbers and records nothing: the difference is the cost.

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "of it only what counts is used here"
)]
#[path = "../src/edge/delays.rs"]
mod delays;

use std::hint::black_box;

const MILLION: u64 = 1_000_000;

fn main() {
    let counts = std::env::args().any(|argument| argument == "delays");
    let mut delays = delays::Delays::default();
    let mut random: u64 = 1;
    for _ in 0..MILLION {
        // Knuth's multiplier: numbers of all sizes, the same ones each time.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let us = black_box(random >> 40 >> (random & 15));
        if counts {
            delays.record(us);
        }
    }
    println!("{} counted", black_box(delays).count());
}
