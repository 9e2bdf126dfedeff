//! Each relation at its limit and one past it, and what is refused.

use super::*;
use crate::record::{Counts, Distribution, Interval, Phase, Process, Sample, Status, Verdict, kind};

/// A second of ramp at 9 ms, ten of 1..=5 ms, of which 1,000 deliveries a second.
fn record() -> Record {
    let mut record = Record::new("seed", "tidings", 0, 1_000);
    record.duration_ms = 11_000;
    for second in 0..11_u64 {
        let mut deliver = Distribution::new();
        if second == 0 {
            deliver.record(9_000);
        } else {
            (1..=5).for_each(|ms| deliver.record_n(ms * 1_000, 200));
        }
        record.push(Interval {
            at_ms: second * 1_000,
            warm_up: second == 0,
            counts: Counts {
                intended: 100,
                published: 100,
                late_sends: 1,
                delivered: deliver.count(),
                ..Counts::default()
            },
            connections: 20 + second,
            latency: [(kind::DELIVER.to_owned(), deliver)].into(),
        });
    }
    record.counts.lost = 1;
    for (name, from_ms, to_ms) in [("ramp", 0, 1_000), ("steady", 1_000, 11_000)] {
        record.phases.push(Phase {
            name: name.into(),
            from_ms,
            to_ms,
        });
    }
    let sample = |at_ms, cpu_cores, mib: u64| Sample {
        at_ms,
        cpu_cores,
        memory_bytes: mib << 20,
        ..Sample::default()
    };
    record.servers.push(Process {
        name: "n1".into(),
        samples: vec![sample(1_000, 0.9, 30), sample(6_000, 0.2, 50), sample(11_000, 0.4, 40)],
        ..Process::default()
    });
    record
}

fn passes(name: &str, limit: &str) -> bool {
    let results = Thresholds::parse([(name, limit)]).unwrap().evaluate(&record());
    results[0].passed
}

#[test]
fn a_figure_at_its_limit_passes_and_one_past_it_does_not() {
    for (name, at, past) in [
        ("lost", "<= 1", "<= 0"),
        ("lost", ">= 1", ">= 2"),
        ("lost", "== 1", "== 2"),
        ("lost", "!= 2", "!= 1"),
        ("lost", "< 2", "< 1"),
        ("lost", "> 0", "> 1"),
        ("latency.max_ms", "<= 5", "<= 4.999"),
        ("latency.p80_ms", "< 4.002", "< 4.0"),
        ("delivered_per_s", "== 1000", "> 1000"),
        ("delivered", "<= 10_001", "<= 10_000"),
        ("latency.max_ms@ramp", "<= 9", "<= 8.999"),
        ("delivered@steady", "== 10000", "== 10001"),
        ("server.cpu_cores", "<= 0.3000001", "<= 0.2999999"),
        ("server.memory_mb", "<= 50", "<= 49"),
        ("server.memory_growth_mb", "<= 10", "<= 9"),
        ("server.cpu_us_per_delivery", "<= 300.1", "<= 299.9"),
        ("generator.late_percent", "<= 1", "<= 0.99"),
        ("connections", ">= 30", ">= 31"),
        ("faults", "== 0", "== 1"),
    ] {
        assert!(passes(name, at), "{name} {at}");
        assert!(!passes(name, past), "{name} {past}");
    }
}

#[test]
fn what_the_run_did_not_measure_has_not_passed() {
    for name in [
        "latency.catch_up.max_s",
        "generator.cpu_cores",
        "lost@storm",
        "extra.nothing",
        "verdicts.violated",
    ] {
        assert!(!passes(name, ">= 0"), "{name}");
        let results = Thresholds::parse([(name, ">= 0")]).unwrap().evaluate(&record());
        assert_eq!(results[0].measured, None, "{name}");
    }
}

#[test]
fn verdicts_are_counted_once_there_are_any() {
    let mut judged = record();
    for status in [Status::Held, Status::Inconclusive, Status::Inconclusive] {
        judged.verdicts.push(Verdict {
            status,
            ..Verdict::default()
        });
    }
    let thresholds = Thresholds::parse([("verdicts.violated", "== 0"), ("verdicts.inconclusive", "<= 1")]).unwrap();
    let passed: Vec<_> = thresholds
        .evaluate(&judged)
        .iter()
        .map(|result| result.passed)
        .collect();
    assert_eq!(passed, [true, false]);
}

#[test]
fn a_name_that_stands_for_nothing_is_refused_with_those_that_do() {
    for name in [
        "losst",
        "latency.p101_ms",
        "latency.p99",
        "latency.p99_h",
        "latency.never.p99_ms",
        "lost@",
        "pub_per_s",
        "latency.p1e1_ms",
        "extra.",
    ] {
        let refused = Thresholds::parse([(name, "== 0")]).unwrap_err().to_string();
        assert!(refused.contains(&format!("no figure `{name}`")), "{refused}");
        for known in [
            "lost",
            "latency.p99_ms",
            "server.memory_mb",
            "catch_up",
            "verdicts.violated",
        ] {
            assert!(refused.contains(known), "{refused}");
        }
    }
}

#[test]
fn what_is_no_comparison_is_refused_by_name() {
    for limit in ["", "5", "<= five", "=< 5", "<= ", "<= inf", "<= NaN", "~ 5"] {
        let refused = Thresholds::parse([("lost", limit)]).unwrap_err();
        assert_eq!(
            refused,
            BadThreshold::Limit {
                metric: "lost".into(),
                limit: limit.into()
            }
        );
    }
}

#[test]
fn a_phase_that_the_scenario_lacks_is_refused_before_the_run() {
    let thresholds = Thresholds::parse([("latency.p99_ms@storm", "<= 5"), ("lost", "== 0")]).unwrap();
    assert_eq!(thresholds.check_phases(&["ramp", "storm"]), Ok(()));
    let refused = thresholds.check_phases(&["ramp", "steady"]).unwrap_err().to_string();
    assert!(
        refused.contains("latency.p99_ms@storm") && refused.contains("ramp, steady"),
        "{refused}"
    );
}

#[derive(Deserialize)]
struct Scenario {
    thresholds: Thresholds,
}

#[test]
fn a_scenario_file_may_quote_a_name_or_not() {
    let quoted = "[thresholds]\n\"latency.p99_ms\" = \"<= 5\"\nlost = \"== 0\"\n";
    let bare = "[thresholds]\nlatency.p99_ms = \"<= 5\"\nlost = \"== 0\"\n";
    let table = "[thresholds]\nlost = \"== 0\"\n[thresholds.latency]\np99_ms = \"<= 5\"\n";
    let expected = Thresholds::parse([("latency.p99_ms", "<= 5"), ("lost", "== 0")]).unwrap();
    for text in [quoted, bare, table] {
        assert_eq!(toml::from_str::<Scenario>(text).unwrap().thresholds, expected, "{text}");
    }
}

#[test]
fn a_scenario_file_with_a_wrong_name_says_which_are_right() {
    let refused = toml::from_str::<Scenario>("[thresholds]\nlatency.p99 = \"<= 5\"\n")
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("no figure `latency.p99`") && refused.contains("latency.p99_ms"),
        "{refused}"
    );
    let number = toml::from_str::<Scenario>("[thresholds]\nlost = 0\n")
        .err()
        .unwrap()
        .to_string();
    assert!(number.contains("expected a comparison such as"), "{number}");
}
