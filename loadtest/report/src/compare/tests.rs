//! When a difference is one: made-up runs with a known wobble.

use super::*;
use crate::record::{Distribution, Interval};

/// A minute at about `us` each, one second's level differing from the next by a share of `wobble`.
fn run(us: f64, wobble: f64, seconds: u64) -> Record {
    let mut record = Record::new("seed", "tidings 0.1.0", 1_795_194_312_000, 1_000);
    record.duration_ms = seconds * 1_000;
    for second in 0..seconds {
        let swing = (((second * 7 + us as u64) % 11) as f64 / 5.0 - 1.0) * wobble;
        let mut deliver = Distribution::new();
        for n in 0..100 {
            deliver.record((us * (1.0 + swing) * (1.0 + f64::from(n) / 100.0)) as u64);
        }
        record.push(Interval {
            at_ms: second * 1_000,
            counts: Counts {
                delivered: (1_000.0 * (1.0 + swing)) as u64,
                ..Counts::default()
            },
            latency: [(kind::DELIVER.to_owned(), deliver)].into(),
            ..Interval::default()
        });
    }
    record
}

fn judged(comparison: &Comparison, metric: &str) -> Judgement {
    comparison
        .differences
        .iter()
        .find(|d| d.metric == metric)
        .unwrap()
        .judgement
}

const P99: &str = "latency.p99_ms";

#[test]
fn a_run_is_the_same_as_itself() {
    let record = run(100.0, 0.1, 60);
    let comparison = compare(&record, &record);
    assert!(
        comparison.differences.iter().all(|d| d.judgement == Judgement::Same),
        "{comparison:?}"
    );
    assert!(!comparison.is_worse() && comparison.notes.is_empty());
}

#[test]
fn twice_the_latency_is_worse_and_the_way_back_is_better() {
    let (fast, slow) = (run(100.0, 0.1, 60), run(200.0, 0.1, 60));
    let comparison = compare(&fast, &slow);
    assert_eq!(judged(&comparison, P99), Judgement::Worse);
    assert!(comparison.is_worse());
    let row = comparison.differences.iter().find(|d| d.metric == P99).unwrap();
    assert!((row.percent.unwrap() - 100.0).abs() < 3.0, "{row:?}");
    assert_eq!(judged(&compare(&slow, &fast), P99), Judgement::Better);
}

#[test]
fn a_difference_that_a_steady_run_shows_is_noise_in_one_that_wobbles() {
    let steady = compare(&run(1_000.0, 0.01, 60), &run(1_050.0, 0.01, 60));
    assert_eq!(judged(&steady, P99), Judgement::Worse);
    let wobbly = compare(&run(1_000.0, 0.5, 60), &run(1_050.0, 0.5, 60));
    assert_eq!(judged(&wobbly, P99), Judgement::Noise);
    assert!(!wobbly.is_worse());
}

#[test]
fn a_storm_in_both_runs_is_no_noise_but_in_runs_of_other_lengths_it_is() {
    let storm = |us: f64, seconds: u64| {
        let mut record = run(us, 0.01, seconds);
        for interval in record
            .timeline
            .iter_mut()
            .filter(|interval| interval.at_ms >= 30_000 && interval.at_ms < 40_000)
        {
            let mut slow = Distribution::new();
            slow.record_n(5_000, 100);
            interval.latency.insert(kind::DELIVER.to_owned(), slow);
        }
        record
    };
    assert_eq!(
        judged(&compare(&storm(100.0, 60), &storm(120.0, 60)), "latency.p50_ms"),
        Judgement::Worse
    );
    assert_eq!(
        judged(&compare(&storm(100.0, 60), &storm(120.0, 70)), "latency.p50_ms"),
        Judgement::Noise
    );
}

#[test]
fn fewer_deliveries_a_second_are_worse_and_more_are_better() {
    let mut more = run(100.0, 0.01, 60);
    more.timeline
        .iter_mut()
        .for_each(|interval| interval.counts.delivered *= 2);
    let base = run(100.0, 0.01, 60);
    assert_eq!(judged(&compare(&base, &more), "delivered_per_s"), Judgement::Better);
    assert_eq!(judged(&compare(&more, &base), "delivered_per_s"), Judgement::Worse);
}

#[test]
fn one_lost_change_is_never_noise() {
    let (old, mut new) = (run(100.0, 0.5, 60), run(100.0, 0.5, 60));
    new.counts.lost = 1;
    assert_eq!(judged(&compare(&old, &new), "lost"), Judgement::Worse);
    assert_eq!(judged(&compare(&new, &old), "lost"), Judgement::Better);
}

#[test]
fn losses_are_counted_however_unevenly_they_fall() {
    let losing = |second: usize, lost: u64| {
        let mut record = run(100.0, 0.1, 60);
        record.timeline[second].counts.lost = lost;
        record.counts.lost = lost;
        record
    };
    assert_eq!(
        judged(&compare(&losing(5, 100), &losing(40, 101)), "lost"),
        Judgement::Worse
    );
    assert_eq!(
        judged(&compare(&losing(5, 101), &losing(40, 100)), "lost"),
        Judgement::Better
    );
}

#[test]
fn runs_of_a_few_seconds_are_not_judged() {
    let comparison = compare(&run(100.0, 0.1, 4), &run(150.0, 0.1, 4));
    assert_eq!(judged(&comparison, P99), Judgement::Unknown);
    assert!(!comparison.is_worse(), "what is not known fails nobody's build");
}

#[test]
fn what_only_one_run_measured_is_said() {
    let (old, mut new) = (run(100.0, 0.1, 60), run(100.0, 0.1, 60));
    new.latency.insert(kind::CATCH_UP.into(), {
        let mut one = Distribution::new();
        one.record(9);
        one
    });
    assert_eq!(
        judged(&compare(&old, &new), "latency.catch_up.p99_ms"),
        Judgement::OneSided
    );
}

#[test]
fn other_settings_machines_and_warnings_are_noted() {
    let (mut old, mut new) = (run(100.0, 0.1, 10), run(100.0, 0.1, 10));
    old.set("subscribers", 2_000);
    old.set("gone", 1);
    new.set("subscribers", 1_000);
    new.set("added", 1);
    new.machine.cores = 4;
    new.warn("the generator was late");
    let notes = compare(&old, &new).notes;
    for part in [
        "was 2000 and is 1000",
        "`gone`",
        "`added`",
        "machines differ",
        "warned now: the generator was late",
    ] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    }
}

#[test]
fn the_t_distribution_is_that_of_the_tables() {
    for (freedom, table) in [(5.0, 4.032), (10.0, 3.169), (30.0, 2.750), (f64::INFINITY, 2.576)] {
        assert!((t_at_one_percent(freedom) / table - 1.0).abs() < 0.02, "{freedom}");
    }
}
