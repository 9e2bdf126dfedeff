//! Rules that are broken on purpose are caught: each deliberate break makes some seed fall within a few hundred.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use simulation::plan::Plan;
use simulation::run::run_plan;
use simulation::sabotage::Sabotage;

/// Breaks that change nothing, because another rule stands before them; each with the reason.
const REDUNDANT: &[(Sabotage, &str)] = &[];

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
fn every_broken_rule_is_caught() {
    for (name, sabotage) in Sabotage::ALL {
        if REDUNDANT.iter().any(|(other, _)| other == sabotage) {
            continue;
        }
        let caught = caught(*sabotage, 600);
        println!("{name}: {caught:?}");
        assert!(caught.is_some(), "nobody objects to {name}");
    }
}
