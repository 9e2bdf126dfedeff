//! The clocks of one node, made of the true time of the world: one that never jumps but drifts, and one that lies.
//!
//! It does not know why a clock is wrong.

use tidings_router::{MonoUs, Now};

/// What honest wall clocks show when a world begins: some day in 2026, far from zero, so that clocks may jump back.
pub const DAWN_US: u64 = 1_790_000_000_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The monotonic clock at the true time zero.
    pub base_us: u64,
    /// How much faster the monotonic clock runs, in millionths. Leases allow for 10 %.
    pub drift_ppm: i64,
    /// How far the wall clock is ahead.
    pub offset_us: i64,
}

impl Clock {
    /// The monotonic clock at a true time.
    #[must_use]
    pub fn mono(&self, at: u64) -> MonoUs {
        let drifted = at as i64 * self.drift_ppm / 1_000_000;
        (self.base_us + at).saturating_add_signed(drifted)
    }

    /// Both clocks at a true time.
    #[must_use]
    pub fn now(&self, at: u64) -> Now {
        let mono_us = self.mono(at);
        let wall_us = (DAWN_US + mono_us - self.base_us).saturating_add_signed(self.offset_us);
        Now { mono_us, wall_us }
    }

    /// A true time at which the monotonic clock shows at least `mono_us`, at most two microseconds late.
    #[must_use]
    pub fn when(&self, mono_us: MonoUs) -> u64 {
        let since = mono_us.saturating_sub(self.base_us);
        let pace = (1_000_000 + self.drift_ppm).unsigned_abs();
        let scaled = u128::from(since) * 1_000_000 / u128::from(pace);
        let mut at = scaled as u64;
        while self.mono(at) < mono_us {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_and_not_missed_by_more_than_two_microseconds() {
        for drift_ppm in [-20_000, -1, 0, 3, 20_000] {
            let clock = Clock {
                base_us: 77_000_000,
                drift_ppm,
                offset_us: -5,
            };
            for wanted in [0, 77_000_001, 80_123_457, 177_000_000] {
                let at = clock.when(wanted);
                assert!(clock.mono(at) >= wanted);
                assert!(at < 3 || clock.mono(at - 3) < wanted, "{drift_ppm} {wanted}");
            }
        }
    }
}
