//! One lie in an honest history is caught by the right invariant, and nothing else cries out.

use crate::honest::seeds_or;
use crate::lies::LIES;
use crate::world::{Random, history};
use std::collections::BTreeMap;
use tidings_checker::{Invariant, Verdict, check};

fn some() -> std::ops::Range<u64> {
    seeds_or(60)
}

#[test]
fn every_lie_is_caught_by_the_right_invariant() {
    let (mut told, mut wrong) = (BTreeMap::new(), Vec::new());
    for lie in LIES {
        for seed in some() {
            let setup = (lie.setup)(seed);
            let mut events = history(setup);
            let Some(right) = (lie.tell)(&mut events, &mut Random(seed + 1)) else {
                continue;
            };
            *told.entry(lie.name).or_insert(0) += 1;
            let report = check(&events, &setup.rules()).unwrap();
            let violated = |invariant: &Invariant| matches!(report.of(*invariant), Verdict::Violated(_));
            let strangers = Invariant::ALL
                .iter()
                .filter(|other| !right.contains(other) && !lie.also.contains(other));
            let strangers: Vec<_> = strangers.filter(|other| violated(other)).collect();
            // The events that show it are there.
            let mut samples = report.verdicts.iter().flat_map(|(_, _, tally)| &tally.samples);
            let is_shown = samples.all(|sample| !sample.lines.is_empty());
            if !right.iter().any(violated) || !strangers.is_empty() || !is_shown {
                wrong.push(format!(
                    "{}, TIDINGS_SEED={seed}: for {right:?} came {strangers:?}\n{report}",
                    lie.name
                ));
            }
        }
    }
    let first = wrong.first().map_or("", |first| first);
    let names: Vec<_> = wrong.iter().filter_map(|wrong| wrong.lines().next()).collect();
    assert!(
        wrong.is_empty(),
        "{first}\n{} of them:\n{}",
        names.len(),
        names.join("\n")
    );
    if some().count() >= 50 {
        for lie in LIES {
            let times = told.get(lie.name).copied().unwrap_or(0);
            assert!(times >= 5, "{} was told {times} times only", lie.name);
        }
    }
}
