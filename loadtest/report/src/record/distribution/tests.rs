//! Distributions against plain lists of values.

use super::*;
use proptest::prelude::*;

fn of(values: &[u64]) -> Distribution {
    let mut distribution = Distribution::new();
    values.iter().for_each(|us| distribution.record(*us));
    distribution
}

#[test]
fn percentiles_of_a_hundred_values_are_those_values() {
    let distribution = of(&(1..=100).collect::<Vec<_>>());
    assert_eq!(distribution.percentile_us(50.0), 50);
    assert_eq!(distribution.percentile_us(99.0), 99);
    assert_eq!(distribution.percentile_us(99.1), 100);
    assert_eq!(distribution.percentile_us(100.0), 100);
    assert_eq!(distribution.percentile_us(0.0), 1);
    assert_eq!(distribution.min_us(), 1);
    assert!((distribution.mean_us() - 50.5).abs() < 1e-9);
}

#[test]
fn an_empty_distribution_answers_zero_and_counts_nothing() {
    let empty = Distribution::new();
    assert_eq!((empty.percentile_us(99.0), empty.max_us(), empty.count()), (0, 0, 0));
    let mut one = of(&[7]);
    one.add(&empty);
    assert_eq!(one, of(&[7]));
    let mut grown = Distribution::new();
    grown.add(&one);
    assert_eq!(grown, one);
}

#[test]
fn a_percentile_is_never_told_lower_than_it_was_and_at_most_a_thousandth_higher() {
    let distribution = of(&[1_000_000, 5_000_000]);
    let told = distribution.percentile_us(50.0);
    assert!((1_000_000..=1_001_000).contains(&told), "{told}");
    assert_eq!(distribution.percentile_us(100.0), 5_000_000, "never above the longest");
}

#[test]
fn a_histogram_of_the_load_generator_is_taken_over_whole() {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    for us in [40, 41, 41, 90, 2_500_000] {
        histogram.record(us).unwrap();
    }
    let distribution = Distribution::from(&histogram);
    assert_eq!(distribution.count(), 5);
    assert_eq!(distribution.percentile_us(50.0), 41);
    for percent in [10.0, 50.0, 90.0, 99.0] {
        assert_eq!(
            distribution.percentile_us(percent),
            histogram.value_at_quantile(percent / 100.0)
        );
    }
}

#[test]
fn a_distribution_is_small_as_json() {
    let distribution = of(&(0..100_000).map(|n| 40 + n % 90).collect::<Vec<_>>()).coarse();
    let json = serde_json::to_string(&distribution).unwrap();
    assert!(json.len() < 900, "{} bytes", json.len());
}

#[test]
fn what_is_not_a_distribution_is_refused() {
    for (json, why) in [
        (
            r#"{"count":1,"min":1,"max":1,"sum":1,"buckets":[1]}"#,
            BadDistribution::Odd,
        ),
        (
            r#"{"count":2,"min":1,"max":1,"sum":1,"buckets":[1,1,0,1]}"#,
            BadDistribution::Order,
        ),
        (
            r#"{"count":2,"min":1,"max":1,"sum":1,"buckets":[18446744073709551615,1,1,1]}"#,
            BadDistribution::Order,
        ),
        (
            r#"{"count":3,"min":1,"max":1,"sum":1,"buckets":[1,1]}"#,
            BadDistribution::Count { told: 3, held: 1 },
        ),
    ] {
        let refused = serde_json::from_str::<Distribution>(json).unwrap_err().to_string();
        assert!(refused.starts_with(&why.to_string()), "{refused}");
    }
}

proptest! {
    #[test]
    fn adding_is_recording_both(a in prop::collection::vec(0_u64..10_000_000, 0..60), b in prop::collection::vec(0_u64..10_000_000, 0..60)) {
        let mut sum = of(&a);
        sum.add(&of(&b));
        prop_assert_eq!(sum, of(&[a, b].concat()));
    }

    #[test]
    fn json_brings_back_what_was_written(values in prop::collection::vec(any::<u32>(), 0..60)) {
        let distribution = of(&values.iter().map(|v| u64::from(*v)).collect::<Vec<_>>());
        let json = serde_json::to_string(&distribution).unwrap();
        prop_assert_eq!(serde_json::from_str::<Distribution>(&json).unwrap(), distribution);
    }

    #[test]
    fn coarse_keeps_count_and_ends_and_is_within_a_hundredth(values in prop::collection::vec(1_u64..100_000_000, 1..200), percent in 0.0..100.0) {
        let fine = of(&values);
        let coarse = fine.coarse();
        prop_assert_eq!((coarse.count(), coarse.min_us(), coarse.max_us()), (fine.count(), fine.min_us(), fine.max_us()));
        let (f, c) = (fine.percentile_us(percent), coarse.percentile_us(percent));
        prop_assert!(c >= f && c as f64 <= f as f64 * 1.01, "{} is {} coarse", f, c);
    }
}
