//! How long something took, many times: a histogram small enough to keep one for each second of a run.
//!
//! Only buckets that hold something are kept, named by the highest value they stand for, so that no percentile is ever
//! told lower than it was. Buckets are those of HdrHistogram (Tene, 2012): above 2,048 µs each is 0.1 % wide. Two
//! distributions add up whatever their precision.
//!
//! It does not know what was measured.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Bits of a value that are kept: 11 bits are three significant digits.
const FINE_BITS: u32 = 11;
/// Two significant digits: enough for one interval of many.
const COARSE_BITS: u32 = 8;

/// Counts of durations in microseconds.
///
/// As JSON: `{"count": 6, "min": 41, "max": 97, "sum": 333, "buckets": [41, 3, 2, 2, 54, 1]}`. `buckets` holds pairs: by
/// how much the bucket's highest value exceeds that of the pair before, and how many durations fell into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Distribution {
    buckets: Vec<(u64, u64)>,
    count: u64,
    min_us: u64,
    max_us: u64,
    sum_us: u64,
}

impl Distribution {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one duration. Where there are millions, fill a [`Histogram`] of microseconds and convert it.
    pub fn record(&mut self, us: u64) {
        self.record_n(us, 1);
    }

    /// Counts `n` equal durations.
    pub fn record_n(&mut self, us: u64, n: u64) {
        if n > 0 {
            self.note(us, us, us.saturating_mul(n));
            self.insert(highest_equivalent(us, FINE_BITS), n);
        }
    }

    /// Counts everything that `other` counted.
    pub fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.note(other.min_us, other.max_us, other.sum_us);
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut left, mut right) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        while let (Some(&&(a, n)), Some(&&(b, m))) = (left.peek(), right.peek()) {
            merged.push(match a.cmp(&b) {
                std::cmp::Ordering::Less => (a, n),
                std::cmp::Ordering::Greater => (b, m),
                std::cmp::Ordering::Equal => (a, n.saturating_add(m)),
            });
            if a <= b {
                left.next();
            }
            if b <= a {
                right.next();
            }
        }
        merged.extend(left);
        merged.extend(right);
        self.buckets = merged;
        self.count = self.count.saturating_add(other.count);
    }

    /// The same in buckets 1 % wide instead of 0.1 %: a tenth of the memory.
    #[must_use]
    pub fn coarse(&self) -> Self {
        let mut buckets: Vec<(u64, u64)> = Vec::new();
        for &(value, n) in &self.buckets {
            let value = highest_equivalent(value, COARSE_BITS);
            match buckets.last_mut() {
                Some(last) if last.0 == value => last.1 = last.1.saturating_add(n),
                _ => buckets.push((value, n)),
            }
        }
        Self { buckets, ..*self }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The shortest, in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn min_us(&self) -> u64 {
        self.min_us
    }

    /// The longest, in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The arithmetic mean in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum_us as f64 / self.count as f64
        }
    }

    /// The duration that `percent` of all did not exceed, in microseconds, rounded up to its bucket but never above
    /// the longest; 0 if nothing was counted. `percent` outside 0..=100 counts as the nearer end.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let percent = percent.clamp(0.0, 100.0);
        // An exact rank such as 0.99 x 100 must not be pushed to the next one by the last bit of a float.
        let rank = ((percent / 100.0 * self.count as f64) - 1e-6).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        for &(value, n) in &self.buckets {
            seen = seen.saturating_add(n);
            if seen >= rank {
                return value.min(self.max_us);
            }
        }
        self.max_us
    }

    /// Each bucket's highest value in microseconds with its count, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().copied()
    }

    fn note(&mut self, min_us: u64, max_us: u64, sum_us: u64) {
        self.min_us = if self.count == 0 {
            min_us
        } else {
            self.min_us.min(min_us)
        };
        self.max_us = self.max_us.max(max_us);
        self.sum_us = self.sum_us.saturating_add(sum_us);
    }

    fn insert(&mut self, value: u64, n: u64) {
        self.count = self.count.saturating_add(n);
        match self.buckets.binary_search_by_key(&value, |&(value, _)| value) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(n),
            Err(at) => self.buckets.insert(at, (value, n)),
        }
    }
}

/// Takes over a histogram of microseconds with two or three significant digits; more digits are rounded to three.
impl From<&Histogram<u64>> for Distribution {
    fn from(histogram: &Histogram<u64>) -> Self {
        let mut distribution = Self::new();
        for step in histogram.iter_recorded() {
            let n = step.count_at_value();
            let value = histogram.highest_equivalent(step.value_iterated_to());
            distribution.insert(highest_equivalent(value, FINE_BITS), n);
        }
        if distribution.count > 0 {
            distribution.min_us = histogram.min();
            distribution.max_us = histogram.max();
            distribution.sum_us = (histogram.mean() * distribution.count as f64) as u64;
        }
        distribution
    }
}

/// The highest value in the bucket of `value`, where a bucket shares the leading `bits` bits.
fn highest_equivalent(value: u64, bits: u32) -> u64 {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(bits);
    value | ((1_u64 << shift) - 1)
}

#[derive(Serialize, Deserialize)]
struct Wire {
    count: u64,
    min: u64,
    max: u64,
    sum: u64,
    buckets: Vec<u64>,
}

impl From<Distribution> for Wire {
    fn from(distribution: Distribution) -> Self {
        let mut before = 0;
        let mut buckets = Vec::with_capacity(distribution.buckets.len() * 2);
        for (value, n) in &distribution.buckets {
            buckets.extend([value - before, *n]);
            before = *value;
        }
        Self {
            count: distribution.count,
            min: distribution.min_us,
            max: distribution.max_us,
            sum: distribution.sum_us,
            buckets,
        }
    }
}

/// Why a distribution could not be read. Nothing was taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadDistribution {
    /// Buckets come in pairs.
    #[error("a distribution's buckets are pairs: one number is missing")]
    Odd,
    /// A bucket repeats the one before, or values or counts do not fit 64 bits.
    #[error("a distribution's buckets do not ascend within 64 bits")]
    Order,
    /// The counts do not add up.
    #[error("a distribution of {told} durations holds {held} in its buckets")]
    Count {
        /// What `count` says.
        told: u64,
        /// What the buckets hold.
        held: u64,
    },
}

impl TryFrom<Wire> for Distribution {
    type Error = BadDistribution;

    fn try_from(wire: Wire) -> Result<Self, BadDistribution> {
        let (pairs, []) = wire.buckets.as_chunks::<2>() else {
            return Err(BadDistribution::Odd);
        };
        let mut buckets: Vec<(u64, u64)> = Vec::with_capacity(pairs.len());
        let mut held = 0_u64;
        for &[step, n] in pairs {
            let before = buckets.last().map_or(0, |&(value, _)| value);
            if step == 0 && !buckets.is_empty() {
                return Err(BadDistribution::Order);
            }
            buckets.push((before.checked_add(step).ok_or(BadDistribution::Order)?, n));
            held = held.checked_add(n).ok_or(BadDistribution::Order)?;
        }
        if held != wire.count {
            return Err(BadDistribution::Count { told: wire.count, held });
        }
        Ok(Self {
            buckets,
            count: wire.count,
            min_us: wire.min,
            max_us: wire.max,
            sum_us: wire.sum,
        })
    }
}

#[cfg(test)]
mod tests;
