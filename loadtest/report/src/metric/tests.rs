//! Names of figures are understood, written back, and read like words.

use super::*;

#[test]
fn a_name_is_written_as_it_was_understood() {
    for name in [
        "lost",
        "delivered_per_s",
        "latency.p99_ms",
        "latency.p99.9_us",
        "latency.catch_up.max_s@storm",
        "extra.close.4008",
        "extra.polls_per_s",
        "server.memory_mb@steady",
        "verdicts.violated",
    ] {
        assert_eq!(Metric::parse(name).unwrap().to_string(), name);
    }
}

#[test]
fn every_kind_of_latency_and_every_resource_has_a_name_that_is_understood() {
    for (kind, title) in kind::KNOWN {
        let metric = Metric::parse(&format!("latency.{kind}.p99_ms")).unwrap();
        assert_eq!(metric.title(), format!("{title}, p99"));
    }
    for (at, (resource, name, ..)) in Resource::ALL.iter().enumerate() {
        assert_eq!(*resource as usize, at);
        assert_eq!(Metric::parse(name).unwrap().to_string(), *name);
        assert!(Metric::known().contains(name));
    }
}

#[test]
fn figures_read_like_a_sentence() {
    let words = |name: &str, value| Metric::parse(name).unwrap().words(value);
    assert_eq!(words("latency.p99_ms", 1.24), "1.24 ms");
    assert_eq!(words("latency.p99_s", 0.000_05), "50 µs");
    assert_eq!(words("server.memory_mb", 35.2), "35.2 MiB");
    assert_eq!(words("lost", 0.0), "0");
    assert_eq!(Metric::parse("lost@storm").unwrap().title(), "Lost in storm");
}
