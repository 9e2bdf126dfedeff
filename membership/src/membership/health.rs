//! How far our own probes can be trusted.
//!
//! A member that hears nothing finds everybody silent. Were its word taken, one deaf member would have all others held
//! dead before they notice that it is the one. So it keeps count of how its own probes go, and the worse they go, the longer
//! it waits with its verdicts; meanwhile the others, who have no complaint about each other, hold it dead.
//!
//! After Lifeguard (2017), "Local Health Multiplier".

/// Beyond this, failures are not counted.
const WORST: u8 = 4;
/// From here on our own ears are in doubt: two probes more failed than succeeded of late.
const DOUBTFUL: u8 = 2;

/// Failed probes of late, less those that succeeded.
#[derive(Default)]
pub(super) struct Health(u8);

impl Health {
    /// A probe ended.
    pub(super) fn probed(&mut self, failed: bool) {
        self.0 = if failed {
            (self.0 + 1).min(WORST)
        } else {
            self.0.saturating_sub(1)
        };
    }

    /// So many times longer than usual we wait with a verdict of death. `None` while our ears seem to be fine.
    pub(super) fn factor(&self) -> Option<u64> {
        (self.0 >= DOUBTFUL).then_some(self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dead_member_among_many_leaves_our_ears_beyond_doubt() {
        let mut health = Health::default();
        for round in 0..100 {
            health.probed(round % 2 == 0);
            assert_eq!(health.factor(), None);
        }
    }

    #[test]
    fn who_finds_everybody_silent_doubts_itself_until_answers_come() {
        let mut health = Health::default();
        for _ in 0..50 {
            health.probed(true);
        }
        assert_eq!(health.factor(), Some(4));
        for _ in 0..3 {
            health.probed(false);
        }
        assert_eq!(health.factor(), None);
    }
}
