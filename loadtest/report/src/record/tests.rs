//! Records add up, merge, stay bounded, and come back from JSON.

use super::*;
use proptest::prelude::*;

fn interval(at_ms: u64, delivered: u64, latencies: &[u64]) -> Interval {
    let mut deliver = Distribution::new();
    latencies.iter().for_each(|us| deliver.record(*us));
    Interval {
        at_ms,
        counts: Counts {
            delivered,
            ..Counts::default()
        },
        connections: 10,
        latency: [(kind::DELIVER.to_owned(), deliver)].into(),
        ..Interval::default()
    }
}

fn record(started_unix_ms: u64) -> Record {
    Record::new("seed", "tidings", started_unix_ms, 1_000)
}

fn delivered(record: &Record) -> u64 {
    record.timeline.iter().map(|i| i.counts.delivered).sum()
}

#[test]
fn intervals_add_up_to_the_sums_and_late_pieces_find_their_place() {
    let mut record = record(0);
    record.push(interval(1_000, 5, &[40]));
    record.push(interval(0, 3, &[50]));
    record.push(interval(1_400, 2, &[60]));
    assert_eq!(
        record
            .timeline
            .iter()
            .map(|i| (i.at_ms, i.counts.delivered))
            .collect::<Vec<_>>(),
        [(0, 3), (1_000, 7)]
    );
    assert_eq!(record.counts.delivered, 10);
    assert_eq!(record.latency[kind::DELIVER].count(), 3);
    assert_eq!(
        record.timeline[1].connections, 10,
        "pieces of one interval share their connections"
    );
}

#[test]
fn a_warm_up_counts_but_its_latencies_do_not() {
    let mut record = record(0);
    record.push(Interval {
        warm_up: true,
        ..interval(0, 4, &[9_000])
    });
    record.push(interval(1_000, 4, &[50]));
    assert_eq!(record.counts.delivered, 8);
    assert_eq!(record.latency[kind::DELIVER].max_us(), 50);
    assert_eq!(
        record.timeline[0].latency[kind::DELIVER].max_us(),
        9_000,
        "the plot shows it"
    );
}

#[test]
fn a_run_of_days_keeps_its_sums_and_a_bounded_timeline() {
    let mut record = record(0);
    for second in 0..20_000 {
        record.push(interval(second * 1_000, 1, &[second]));
    }
    assert!(record.timeline.len() <= MAX_INTERVALS, "{}", record.timeline.len());
    assert_eq!(record.interval_ms, 8_000);
    assert_eq!((delivered(&record), record.counts.delivered), (20_000, 20_000));
}

#[test]
fn two_processes_add_up_second_by_second() {
    let mut one = record(5_000);
    one.push(interval(0, 3, &[40]));
    one.push(interval(1_000, 3, &[40]));
    let mut two = record(5_990);
    two.push(interval(0, 2, &[80, 90]));
    for (mut merged, other) in [(one.clone(), two.clone()), (two, one)] {
        merged.merge(other).unwrap();
        assert_eq!(merged.started_unix_ms, 5_000);
        assert_eq!(
            merged
                .timeline
                .iter()
                .map(|i| (i.at_ms, i.counts.delivered, i.connections))
                .collect::<Vec<_>>(),
            [(0, 3, 10), (1_000, 5, 20)]
        );
        assert_eq!(merged.counts.delivered, 8);
        assert_eq!(merged.latency[kind::DELIVER].count(), 4);
    }
}

#[test]
fn processes_whose_intervals_grew_apart_still_merge() {
    let mut long = record(0);
    for second in 0..5_000 {
        long.push(interval(second * 1_000, 1, &[]));
    }
    let mut short = record(0);
    short.push(interval(0, 1, &[]));
    short.push(interval(1_000, 1, &[]));
    short.merge(long).unwrap();
    assert_eq!((short.interval_ms, delivered(&short)), (2_000, 5_002));
    assert_eq!(short.timeline[0].counts.delivered, 4);
}

#[test]
fn what_is_not_one_run_is_not_merged() {
    let mut one = record(0);
    one.push(interval(0, 1, &[]));
    let before = one.clone();
    let hot = Record::new("hot", "tidings", 0, 1_000);
    assert!(matches!(one.merge(hot), Err(MergeError::Scenario { .. })));
    let nats = Record::new("seed", "nats", 0, 1_000);
    assert!(matches!(one.merge(nats), Err(MergeError::System { .. })));
    let odd = Record::new("seed", "tidings", 0, 1_500);
    assert!(matches!(one.merge(odd), Err(MergeError::Interval { .. })));
    assert_eq!(one, before);
}

#[test]
fn the_worse_verdict_speaks_and_coverage_adds_up() {
    let verdict = |status, violations, pairs| Verdict {
        name: "I1".into(),
        status,
        text: format!("{status:?}"),
        violations,
        coverage: [("pairs".to_owned(), pairs)].into(),
        ..Verdict::default()
    };
    let mut one = record(0);
    one.verdicts.push(verdict(Status::Held, 0, 10));
    let mut two = record(0);
    two.verdicts.push(verdict(Status::Violated, 1, 5));
    let mut three = record(0);
    three.verdicts.push(verdict(Status::Inconclusive, 0, 0));
    one.merge(two).unwrap();
    one.merge(three).unwrap();
    assert_eq!(one.verdicts, [verdict(Status::Violated, 1, 15)]);
}

#[test]
fn events_and_samples_move_to_the_common_clock_and_nothing_is_there_twice() {
    let event = |at_ms| Event {
        at_ms,
        fault: true,
        text: "kill -9 of n2".into(),
        ..Event::default()
    };
    let process = |samples: &[u64]| Process {
        name: "n1".into(),
        samples: samples
            .iter()
            .map(|&at_ms| Sample {
                at_ms,
                ..Sample::default()
            })
            .collect(),
        ..Process::default()
    };
    let mut one = record(0);
    one.events.push(event(2_000));
    one.servers.push(process(&[0]));
    let mut two = record(500);
    two.events.push(event(1_500));
    two.servers.push(process(&[0, 1_000]));
    two.generators.push(process(&[7]));
    one.merge(two).unwrap();
    assert_eq!(one.events, [event(2_000)]);
    assert_eq!(one.servers, [process(&[500, 1_500])]);
    assert_eq!(one.generators, [process(&[507])]);
}

#[test]
fn a_record_comes_back_from_json_and_a_newer_format_is_refused() {
    let mut record = record(17);
    record.push(interval(0, 3, &[40, 4_000]));
    record.set("subscribers", 2_000);
    record.counts.extra.insert("close.4008".into(), 2);
    let json = record.to_json().unwrap();
    assert_eq!(Record::from_json(&json).unwrap(), record);
    let newer = json.replacen("\"format\":1", "\"format\":2", 1);
    assert!(matches!(Record::from_json(&newer), Err(ReadError::Format(2))));
    assert!(matches!(Record::from_json("{}"), Err(ReadError::Format(0))));
    record.servers.push(Process {
        samples: vec![Sample {
            cpu_cores: f64::NAN,
            ..Sample::default()
        }],
        ..Process::default()
    });
    let read = Record::from_json(&record.to_json().unwrap()).unwrap();
    assert_eq!(read.servers[0].samples[0].cpu_cores, 0.0, "what is no number is none");
    assert!(matches!(Record::from_json("[1"), Err(ReadError::Json(_))));
}

#[test]
fn a_record_of_moments_out_of_any_run_is_refused() {
    let json = |change: fn(&mut Record)| {
        let mut record = record(17);
        change(&mut record);
        Record::from_json(&record.to_json().unwrap())
    };
    assert!(json(|record| record.duration_ms = LATEST_MS).is_ok());
    for change in [
        |record: &mut Record| record.duration_ms = LATEST_MS + 1,
        |record: &mut Record| record.interval_ms = u64::MAX,
        |record: &mut Record| record.started_unix_ms = u64::MAX,
        |record: &mut Record| record.timeline.push(interval(u64::MAX, 0, &[])),
        |record: &mut Record| {
            record.servers.push(Process {
                samples: vec![Sample {
                    at_ms: u64::MAX,
                    ..Sample::default()
                }],
                ..Process::default()
            });
        },
        |record: &mut Record| {
            record.events.push(Event {
                until_ms: Some(u64::MAX),
                ..Event::default()
            });
        },
        |record: &mut Record| {
            record.phases.push(Phase {
                to_ms: u64::MAX,
                ..Phase::default()
            });
        },
        |record: &mut Record| {
            let mut neighbour = record.clone();
            neighbour.duration_ms = u64::MAX;
            record.neighbours.push(neighbour);
        },
    ] {
        assert!(matches!(json(change), Err(ReadError::Time(_))));
    }
}

#[test]
fn every_counter_is_found_by_its_name() {
    let counts = Counts::default();
    for counter in Counts::KNOWN {
        assert_eq!(counts.get(counter.name), Some(0), "{}", counter.name);
        assert!(counter.meaning.ends_with('.') && !counter.title.is_empty());
    }
    assert_eq!(counts.get("no_such_counter"), None);
}

proptest! {
    #[test]
    fn merging_is_the_sum_of_every_process(parts in prop::collection::vec((0_u64..5_000, prop::collection::vec((0_u64..60_000, 0_u64..50, 0_u64..100_000), 0..20)), 1..5)) {
        let mut whole: Option<Record> = None;
        let (mut sent, mut latencies) = (0, Distribution::new());
        for (started, pieces) in parts {
            let mut part = record(started);
            for (at_ms, n, us) in pieces {
                part.push(interval(at_ms, n, &[us]));
                sent += n;
                latencies.record(us);
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.merge(part).unwrap(),
            }
        }
        let whole = whole.unwrap();
        prop_assert_eq!((whole.counts.delivered, delivered(&whole)), (sent, sent));
        prop_assert_eq!(whole.latency.get(kind::DELIVER).cloned().unwrap_or_default(), latencies);
    }
}
