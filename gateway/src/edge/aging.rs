//! Connections that are as old as they may become: they are asked to come back, so that subscribers spread over nodes that came
//! later and nothing lives for ever. Each has an age of its own, so that those that came together do not leave together.

use super::shell::Shell;
use super::sinks::State;
use crate::clock;
use crate::telemetry::Limit;
use tidings_protocol::close::CloseCode;
use tidings_router::MonoUs;
use tidings_router::edge::SubscriberKey;

/// A client that is asked to come back does so within this, in milliseconds. It may well be the only one.
const BACK_WITHIN_MS: u64 = 1_000;

/// An age between nine and eleven tenths of what is configured, in microseconds; `random` chooses. `None`: no age is too great.
fn age_us(lifetime_ms: u64, random: u64) -> Option<u64> {
    let tenth_us = lifetime_ms.saturating_mul(100);
    let more_us = random.checked_rem(tenth_us.saturating_mul(2))?;
    Some(tenth_us.saturating_mul(9).saturating_add(more_us))
}

impl State {
    /// The subscriber has a connection from now on, and it begins to age.
    pub(super) fn age_from_now(&mut self, who: SubscriberKey) {
        let random = self.random();
        let Some(age_us) = age_us(self.lifetime_ms, random) else {
            return;
        };
        self.forget_age(who);
        let ends_us = clock::mono_us().saturating_add(age_us);
        if let Some(entry) = self.entry(who) {
            entry.ends_us = ends_us;
            self.aging.insert((ends_us, who.index));
        }
    }

    /// It has none any more, or another one.
    pub(super) fn forget_age(&mut self, who: SubscriberKey) {
        if let Some(entry) = self.entry(who) {
            let before: (MonoUs, u32) = (std::mem::take(&mut entry.ends_us), who.index);
            self.aging.remove(&before);
        }
    }

    /// Asks those whose time has come to come back.
    pub(super) fn see_off_old(&mut self, shell: &Shell) {
        let now = clock::now();
        while let Some(&(ends_us, index)) = self.aging.first().filter(|(ends_us, _)| *ends_us <= now.mono_us) {
            self.aging.remove(&(ends_us, index));
            let Some(who) = self.key_at(index) else { continue };
            shell.node.metrics.refused(Limit::ConnectionLifetime);
            let after_ms = Some(self.jitter_ms(BACK_WITHIN_MS));
            self.lane
                .dismiss(now, who, CloseCode::Lifetime, "lifetime", after_ms, &mut self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_lie_within_a_tenth_of_what_is_configured_and_differ() {
        for random in [0, 1, 7_199_999, 1_440_000_000, u64::MAX] {
            let age_us = age_us(7_200_000, random).expect("an age");
            assert!((6_480_000_000..7_920_000_000).contains(&age_us), "{age_us}");
        }
        assert_eq!(age_us(7_200_000, 0), Some(6_480_000_000));
        assert_eq!(age_us(7_200_000, 1_439_999_999), Some(7_919_999_999));
        assert_eq!(age_us(0, 5), None, "zero is for ever");
        assert!(age_us(1, 1_234_567).is_some() && age_us(u64::MAX, u64::MAX).is_some());
    }
}
