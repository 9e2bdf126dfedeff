//! What an honest cluster does is found to hold, whatever happens to it.

use crate::world::{Setup, history};
use tidings_checker::{Invariant, Verdict, check};

/// How many lives: `TIDINGS_SEEDS=5000` lives more, `TIDINGS_SEED=17` one.
pub(crate) fn seeds_or(usual: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text: String| text.parse::<u64>().ok())
    };
    match number("TIDINGS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_SEEDS").unwrap_or(usual),
    }
}

#[test]
fn whatever_an_honest_cluster_does_holds() {
    let mut tested = [0; Invariant::ALL.len()];
    let mut coverage = std::collections::BTreeMap::<String, u64>::new();
    for seed in seeds_or(300) {
        let setup = Setup::any(seed);
        let events = history(setup);
        let report = check(&events, &setup.rules()).unwrap();
        for (invariant, verdict, tally) in &report.verdicts {
            let is_fine = match verdict {
                Verdict::Holds | Verdict::NotChecked(_) => true,
                // Where a shard lags, nobody told its objects' shard if nothing of it was acknowledged.
                Verdict::Inconclusive(why) => why.iter().all(|why| why.contains("shard is unknown")),
                Verdict::Violated(_) => false,
            };
            assert!(is_fine, "TIDINGS_SEED={seed}, {setup:?}\n{report}");
            tested[*invariant as usize] += tally.checked;
        }
        for (fault, counts) in &report.coverage.faults {
            for what in [
                "acks",
                "unknown",
                "resumes",
                "resyncs",
                "closes",
                "cursors",
                "handovers",
                "coalesced",
            ] {
                *coverage.entry(format!("{fault}.{what}")).or_default() += counts.of(what);
            }
        }
    }
    if seeds_or(300).count() > 1 {
        for (invariant, times) in Invariant::ALL.into_iter().zip(tested) {
            assert!(times > 100, "{invariant} was put to the test {times} times");
        }
        for need in [
            "kill.acks",
            "cut.resumes",
            "lose.resyncs",
            "kill.unknown",
            "restart.closes",
            "cut.cursors",
        ] {
            assert!(coverage[need] > 10, "{need}: {coverage:?}");
        }
    }
}
