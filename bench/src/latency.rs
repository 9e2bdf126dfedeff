//! Times and their quantiles.

use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

/// Longer times count as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// Many times, kept to three digits each.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> io::Result<Self> {
        Histogram::new_with_bounds(1, LONGEST_NS, 3)
            .map(Self)
            .map_err(io::Error::other)
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0
            .saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS));
    }

    /// The time that this share of all did not exceed, in milliseconds; 0 if there were none.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits_over_seven_orders_of_magnitude() {
        let mut latency = Latency::new().expect("valid bounds");
        for exponent in 0..7 {
            latency.record(Duration::from_micros(10_u64.pow(exponent)));
        }
        for (quantile, ms) in [(0.1, 0.001), (0.5, 1.0), (1.0, 1000.0)] {
            assert!(
                (latency.ms(quantile) / ms - 1.0).abs() < 0.002,
                "{quantile}: {}",
                latency.ms(quantile)
            );
        }
    }
}
