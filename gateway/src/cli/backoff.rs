//! How long to wait before the next try: full jitter, so that clients cut off together do not come back together.
//!
//! It does not know what is tried, nor where randomness comes from.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is uniform between nothing and a ceiling that doubles.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first wait is at most `first`, no wait is longer than `cap`.
    pub(super) fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempt: 0 }
    }

    /// The next wait. `random` is uniform over all 64-bit numbers.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.attempt.min(20)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        let ceiling_us = ceiling.as_micros().min(u128::from(u64::MAX));
        // The upper half of a 64-bit by 64-bit product is uniform in 0..ceiling.
        Duration::from_micros(((u128::from(random) * (ceiling_us + 1)) >> 64) as u64)
    }

    /// All is well: the next wait is a first one again.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A random number for [`Backoff::next`]. Without a source of randomness, half the ceiling: late rather than never.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut longest = || backoff.next(u64::MAX).as_secs();
        assert_eq!(
            [
                longest(),
                longest(),
                longest(),
                longest(),
                longest(),
                longest(),
                longest()
            ],
            [1, 2, 4, 8, 16, 30, 30]
        );
        for _ in 0..100 {
            assert!(
                backoff.next(u64::MAX) <= Duration::from_secs(30),
                "no overflow however long it lasts"
            );
        }
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), Duration::from_secs(1));
    }

    #[test]
    fn jitter_reaches_from_nothing_to_the_ceiling() {
        let wait = |random| Backoff::new(Duration::from_secs(1), Duration::from_secs(30)).next(random);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(u64::MAX / 2).as_millis(), 500);
        assert_eq!(wait(u64::MAX), Duration::from_secs(1));
    }
}
