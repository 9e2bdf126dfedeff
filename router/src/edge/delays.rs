//! How late changes are told: a histogram of the time from a change's version, which is when its owner took it, to the
//! write that tells it.
//!
//! Eight steps to each doubling, so that a quantile is at most an eighth too high. It does not know clocks or sinks.

use std::array::from_fn;

/// Steps to each doubling, as a power of two.
const FINE: u32 = 3;
/// Doublings that are told apart: beyond about 69 seconds everything falls into the last step.
const DOUBLINGS: u32 = 36;
const STEPS: usize = ((DOUBLINGS - FINE + 1) << FINE) as usize;

/// Counts of delays in microseconds. Only grows; two readings of one histogram can be told apart with [`Delays::since`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    counts: Box<[u64; STEPS]>,
    sum_us: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            counts: Box::new([0; STEPS]),
            sum_us: 0,
        }
    }
}

#[inline]
fn step(us: u64) -> usize {
    let doubling = (us | 1).ilog2();
    if doubling < FINE {
        return us as usize;
    }
    let within = (us >> (doubling - FINE)) & ((1 << FINE) - 1);
    ((u64::from((doubling - FINE + 1) << FINE) + within) as usize).min(STEPS - 1)
}

/// The lowest delay beyond a step.
fn end_us(step: usize) -> u64 {
    let (doubling, within) = (step >> FINE, (step & ((1 << FINE) - 1)) as u64);
    match doubling {
        0 => within + 1,
        _ => ((1 << FINE) + within + 1) << (doubling - 1),
    }
}

impl Delays {
    /// Counts one.
    #[inline]
    pub fn record(&mut self, us: u64) {
        self.counts[step(us)] += 1;
        self.sum_us = self.sum_us.wrapping_add(us);
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&*other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }

    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            counts: Box::new(from_fn(|step| self.counts[step].saturating_sub(earlier.counts[step]))),
            sum_us: self.sum_us.wrapping_sub(earlier.sum_us),
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The delay that this share (0 to 1) of them did not exceed, at most an eighth too high; `None` if there are none.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let found = self.counts.iter().position(|of_step| {
            seen += of_step;
            seen >= wanted
        });
        found.map(|step| end_us(step) - 1)
    }

    /// How many were below a power of two of microseconds.
    #[must_use]
    pub fn below(&self, power: u32) -> u64 {
        let ends_us = 1_u64 << power.min(DOUBLINGS);
        let steps = (0..STEPS).take_while(|step| end_us(*step) <= ends_us);
        steps.map(|step| self.counts[step]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delay_has_a_step_and_steps_follow_each_other() {
        for step_of in 0..STEPS - 1 {
            let end = end_us(step_of);
            assert_eq!(step(end - 1), step_of, "the last of step {step_of}");
            assert_eq!(step(end), step_of + 1, "the first beyond step {step_of}");
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
        assert_eq!(step(0), 0);
    }

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_high_and_never_too_low() {
        for us in [1, 7, 8, 9, 100, 1_000, 12_345, 999_999, 60_000_000] {
            let mut delays = Delays::default();
            delays.record(us);
            let found = delays.quantile_us(0.5).expect("one was counted");
            assert!(found >= us && found <= us + us / 8, "{us}: {found}");
        }
    }

    #[test]
    fn quantiles_stand_where_the_counts_do() {
        let mut delays = Delays::default();
        assert_eq!(delays.quantile_us(0.99), None);
        (0..99).for_each(|_| delays.record(5));
        delays.record(6_000);
        assert_eq!(delays.quantile_us(0.5), Some(5));
        assert_eq!(delays.quantile_us(0.99), Some(5));
        assert!(delays.quantile_us(1.0) >= Some(6_000));
        assert_eq!((delays.count(), delays.sum_us()), (100, 99 * 5 + 6_000));
        assert_eq!((delays.below(2), delays.below(3), delays.below(13)), (0, 99, 100));
    }

    #[test]
    fn two_readings_differ_by_what_came_between() {
        let mut delays = Delays::default();
        delays.record(10);
        let earlier = delays.clone();
        delays.record(2_000);
        let since = delays.since(&earlier);
        assert_eq!((since.count(), since.sum_us()), (1, 2_000));
        let mut again = earlier.clone();
        again.add(&since);
        assert_eq!(again, delays);
    }
}
