//! Rules that are broken on purpose are caught: each of these breaks makes some seed fall within a few hundred.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use simulation::plan::Plan;
use simulation::run::run_plan;
use simulation::sabotage::Sabotage;

/// Those that were seen to be caught where things go wrong by chance. The others of [`Sabotage::ALL`] were not within the seeds
/// tried so far (`docs/testing.md`), or are below.
const CAUGHT: &[Sabotage] = &[
    Sabotage::NoWait,
    Sabotage::DoubtForgotten,
    Sabotage::MarksNotCopied,
    Sabotage::NotPaused,
];

/// Those that were seen to be caught in the worlds of [`Plan::failovers`], by these seeds.
const CAUGHT_IN_FAILOVERS: &[(Sabotage, u64)] = &[(Sabotage::DuplicateAtOnce, 16), (Sabotage::ConfirmedUnwritten, 0)];

/// The first seed that falls, and the invariant that objects.
fn caught(sabotage: Sabotage, within: u64) -> Option<(u64, &'static str)> {
    (0..within).find_map(|seed| {
        let plan = Plan {
            sabotage: Some(sabotage),
            ..Plan::draw(seed, None)
        };
        let violation = run_plan(plan, false).violation?;
        Some((seed, violation.invariant))
    })
}

#[test]
fn rules_that_are_broken_are_caught() {
    for sabotage in CAUGHT {
        let caught = caught(*sabotage, 400);
        println!("{sabotage:?}: {caught:?}");
        assert!(caught.is_some(), "nobody objects to {sabotage:?}");
    }
}

#[test]
fn rules_of_copies_that_are_broken_are_caught_where_shards_change_hands_all_the_time() {
    for (sabotage, seed) in CAUGHT_IN_FAILOVERS {
        let whole = Plan::draw(*seed, None).failovers();
        let broken = Plan {
            sabotage: Some(*sabotage),
            ..whole.clone()
        };
        let objection = run_plan(whole, false).violation;
        assert!(objection.is_none(), "with the rule seed {seed} passes: {objection:?}");
        let objection = run_plan(broken, false).violation;
        println!("{sabotage:?}: {objection:?}");
        assert!(objection.is_some(), "nobody objects to {sabotage:?} in seed {seed}");
    }
}
