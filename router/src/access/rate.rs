//! How often something may happen: a bucket that fills at a steady rate and holds so much that a burst fits.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). It does not
//! know clocks, nor what is counted.

use crate::MonoUs;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one takes to come back. Zero: it is not limited.
    every_ns: u64,
    /// What all that fits takes to come back.
    full_ns: u64,
    burst: u64,
}

impl Rate {
    /// `per_s` a second, and `burst` at once (at least one). A `per_s` of zero: without a limit.
    #[must_use]
    pub fn new(per_s: u64, burst: u64) -> Self {
        let every_ns = SECOND_NS.checked_div(per_s).map_or(0, |ns| ns.max(1));
        let burst = burst.max(1);
        Self {
            every_ns,
            full_ns: every_ns.saturating_mul(burst),
            burst,
        }
    }

    /// Whether it limits anything.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.every_ns > 0
    }
}

/// What is left of a burst. New ones are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again.
    full_at_ns: u64,
}

impl Bucket {
    /// Takes `count` out. What is more than fits takes all of it.
    ///
    /// # Errors
    /// In how many microseconds it will be there. **Nothing was taken.**
    pub fn take(&mut self, rate: Rate, count: u64, now: MonoUs) -> Result<(), u64> {
        if !rate.is_limited() || count == 0 {
            return Ok(());
        }
        let now_ns = now.saturating_mul(1_000);
        let cost_ns = rate.every_ns.saturating_mul(count.min(rate.burst));
        let full_at_ns = self.full_at_ns.max(now_ns).saturating_add(cost_ns);
        let over_ns = full_at_ns.saturating_sub(now_ns.saturating_add(rate.full_ns));
        if over_ns > 0 {
            return Err(over_ns.div_ceil(1_000));
        }
        self.full_at_ns = full_at_ns;
        Ok(())
    }

    /// Whether it is as good as a new one.
    #[must_use]
    pub fn is_full(&self, now: MonoUs) -> bool {
        self.full_at_ns <= now.saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonoUs = 7_000_000;

    #[test]
    fn a_burst_is_let_through_and_not_one_more() {
        let rate = Rate::new(100, 1_000);
        let mut bucket = Bucket::default();
        for _ in 0..1_000 {
            assert_eq!(bucket.take(rate, 1, NOW), Ok(()));
        }
        assert_eq!(bucket.take(rate, 1, NOW), Err(10_000), "one comes back each 10 ms");
        assert_eq!(bucket.take(rate, 1, NOW + 9_999), Err(1));
        assert_eq!(bucket.take(rate, 1, NOW + 10_000), Ok(()));
        assert_eq!(bucket.take(rate, 1, NOW + 10_000), Err(10_000));
    }

    #[test]
    fn over_a_long_time_exactly_the_rate_is_let_through() {
        let rate = Rate::new(300, 1);
        let mut bucket = Bucket::default();
        // Asked every millisecond for ten seconds.
        let taken = (0..10_000)
            .filter(|ms| bucket.take(rate, 1, NOW + ms * 1_000).is_ok())
            .count();
        assert!(
            (2_499..=2_501).contains(&taken),
            "each third of 10 ms rounds up to 4 ms: {taken}"
        );
        let mut bucket = Bucket::default();
        let taken = (0..1_000_000)
            .filter(|step| bucket.take(rate, 1, NOW + step * 10).is_ok())
            .count();
        assert!((2_990..=3_001).contains(&taken), "{taken}");
    }

    #[test]
    fn several_at_once_are_taken_together_or_not_at_all() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 3, NOW), Ok(()));
        assert_eq!(bucket.take(rate, 3, NOW), Err(100_000));
        assert_eq!(bucket.take(rate, 2, NOW), Ok(()), "what was refused took nothing");
        assert_eq!(bucket.take(rate, 0, NOW), Ok(()));
    }

    #[test]
    fn more_than_fits_takes_a_full_bucket() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, u64::MAX, NOW), Ok(()));
        assert_eq!(bucket.take(rate, 9, NOW), Err(500_000));
        assert_eq!(bucket.take(rate, 9, NOW + 500_000), Ok(()));
    }

    #[test]
    fn a_rest_never_saves_up_more_than_a_burst() {
        let rate = Rate::new(1, 2);
        let mut bucket = Bucket::default();
        assert!(bucket.is_full(NOW));
        assert_eq!(bucket.take(rate, 2, NOW), Ok(()));
        assert!(!bucket.is_full(NOW + 1_999_999));
        assert!(bucket.is_full(NOW + 2_000_000));
        let later = NOW + 3_600_000_000;
        assert_eq!(bucket.take(rate, 2, later), Ok(()));
        assert!(bucket.take(rate, 1, later).is_err());
    }

    #[test]
    fn zero_is_no_limit_and_nothing_overflows() {
        let mut bucket = Bucket::default();
        let free = Rate::new(0, 1);
        assert!(!free.is_limited());
        for _ in 0..10_000 {
            assert_eq!(bucket.take(free, u64::MAX, NOW), Ok(()));
        }
        let widest = Rate::new(u64::MAX, u64::MAX);
        assert_eq!(bucket.take(widest, u64::MAX, u64::MAX), Ok(()));
        let slow = Rate::new(1, u64::MAX);
        assert_eq!(Bucket::default().take(slow, u64::MAX, 0), Ok(()));
        assert_eq!(
            Bucket::default().take(Rate::new(1, 0), 1, NOW),
            Ok(()),
            "a burst is at least one"
        );
    }
}
