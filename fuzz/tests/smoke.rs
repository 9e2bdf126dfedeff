//! The corpus, and some thousands of its mutations, through every target. `TIDINGS_FUZZ_ROUNDS=100000` runs more.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tidings_fuzz::TARGETS;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound.max(1)
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|_| panic!("{} is there", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        match chance.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.below(256) as u8,
            2 => bytes.insert(at, chance.below(256) as u8),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + chance.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                // A piece of another one.
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                let piece = other[from..(from + chance.below(32)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let piece = bytes[at..(at + chance.below(16)).min(bytes.len())].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

fn rounds(target: &str) -> usize {
    let chosen = std::env::var("TIDINGS_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    // One input of these is a whole life.
    chosen.unwrap_or(match target {
        "lanes" => 60,
        "owner" | "control_map" => 1_500,
        _ => 5_000,
    })
}

#[test]
fn no_input_breaks_a_target() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        assert!(!seeds.is_empty(), "{name} has a corpus");
        let mut chance = Chance(7);
        let mutated = (0..rounds(name))
            .map(|_| mutate(&mut chance, &seeds))
            .collect::<Vec<_>>();
        for input in seeds.iter().chain(&mutated) {
            if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
                broken.push(format!("{name}: {input:?}"));
                break;
            }
        }
    }
    assert!(broken.is_empty(), "found:\n{}", broken.join("\n"));
}

/// An oracle that cannot fail proves nothing.
#[test]
fn a_target_panics_where_something_is_wrong() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = catch_unwind(|| {
        tidings_fuzz::target("no such target")
            .map(|target| target(b""))
            .unwrap()
    });
    std::panic::set_hook(quiet);
    assert!(caught.is_err());
    let names: std::collections::BTreeSet<_> = TARGETS.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), TARGETS.len(), "every target has a name of its own");
}
