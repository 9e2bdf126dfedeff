//! What a member may be told about how to behave, with defaults that were measured.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How gossip behaves. All nodes of a cluster should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often each member probes another one. A crash is noticed about one period after it, so larger is slower and
    /// cheaper: a node sends and receives about two small datagrams a period.
    pub probe_period: Duration,
    /// How long an answer may take before others are asked to probe as well. Above the round trip of all but the worst
    /// datagrams; at most half of the period.
    pub probe_rtt: Duration,
    /// How many others are asked then. More of them tell a lossy network from a dead member more surely.
    pub indirect_probes: u8,
    /// How many probe periods a suspect has to speak up before it is held dead, in a small cluster. Falls short of what a
    /// node may be paused for by its host, and it is held dead while it lives; each period more is that much later.
    pub suspicion_periods: u8,
    /// How often news are handed on when there are any, each time to `gossip_fanout` members.
    pub gossip_period: Duration,
    /// See `gossip_period`.
    pub gossip_fanout: u8,
    /// The largest datagram sent or accepted, in bytes. Below what any path carries without fragments.
    pub max_datagram: usize,
    /// How many other nodes are remembered, dead ones included. Beyond it newcomers are refused, counted and named.
    pub max_members: usize,
    /// How long a dead member is remembered, and looked for.
    pub forget_after: Duration,
    /// How often seeds are asked while nobody answers.
    pub join_period: Duration,
    /// How often a seed that is no member is asked although we are connected: heals partitions that outlived
    /// `forget_after`.
    pub reseed_period: Duration,
    /// Changes of our metadata are told at most this often; in large clusters less often (100 ms for each member).
    pub metadata_period: Duration,
    /// When our own timers are late by more than this, we were paused: then the pause counts against nobody.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            probe_rtt: Duration::from_millis(200),
            indirect_probes: 3,
            suspicion_periods: 3,
            gossip_period: Duration::from_millis(200),
            gossip_fanout: 3,
            max_datagram: 1350,
            max_members: 1024,
            forget_after: Duration::from_secs(3600),
            join_period: Duration::from_secs(1),
            reseed_period: Duration::from_secs(60),
            metadata_period: Duration::from_secs(1),
            stall: Duration::from_millis(400),
        }
    }
}

/// What is wrong with a configuration. Nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A probe must have its answer, and the detour its chance, within one period.
    #[error("probe_rtt must be above zero and at most half of probe_period")]
    Probe,
    /// A count or period that must not be zero is.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// A mistake of unit, surely.
    #[error("no period may be longer than 30 days")]
    TooLong,
    /// A datagram must hold an identity and the largest metadata, and fit UDP.
    #[error("max_datagram must lie between 1,250 and 65,000")]
    Datagram,
    /// Others cannot send to this address.
    #[error("the address that others are told must name a host and a port")]
    Address,
    /// Both keys of a ring have one ID.
    #[error("two keys with one ID")]
    KeyId,
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let periods = [
            self.probe_period,
            self.probe_rtt,
            self.gossip_period,
            self.forget_after,
            self.join_period,
            self.reseed_period,
            self.metadata_period,
            self.stall,
        ];
        if periods.into_iter().any(|period| period > LONGEST) {
            return Err(ConfigError::TooLong);
        }
        if self.probe_rtt.is_zero() || self.probe_rtt * 2 > self.probe_period {
            return Err(ConfigError::Probe);
        }
        for (name, zero) in [
            ("indirect_probes", self.indirect_probes == 0),
            ("suspicion_periods", self.suspicion_periods == 0),
            ("gossip_period", self.gossip_period.is_zero()),
            ("gossip_fanout", self.gossip_fanout == 0),
            ("max_members", self.max_members == 0),
            ("forget_after", self.forget_after.is_zero()),
            ("join_period", self.join_period.is_zero()),
            ("reseed_period", self.reseed_period.is_zero()),
            ("metadata_period", self.metadata_period.is_zero()),
            ("stall", self.stall.is_zero()),
        ] {
            if zero {
                return Err(ConfigError::Zero(name));
            }
        }
        if !(1_250..=65_000).contains(&self.max_datagram) {
            return Err(ConfigError::Datagram);
        }
        Ok(())
    }

    /// What the SWIM library is told for a cluster of so many, with packets of at most so many bytes.
    ///
    /// Two of its defaults do harm and are never used: transmissions derived from the size alone (2 for three nodes: news
    /// die under ordinary loss), and `notify_down_members` (it tells members that refuted in time that they are dead).
    /// docs/decisions/0011-gossip.md has the figures.
    pub(crate) fn swim(&self, members: usize, max_packet: usize) -> foca::Config {
        let size = u32::try_from(members).unwrap_or(u32::MAX);
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: at_least_one(self.indirect_probes.into()),
            max_transmissions: transmissions(size),
            suspect_to_down_after: self.suspicion(size),
            remove_down_after: Some(self.forget_after),
            max_packet_size: at_least_one(max_packet),
            notify_down_members: false,
            periodic_announce: Some(foca::PeriodicParams {
                frequency: Duration::from_secs(30),
                num_members: NonZeroUsize::MIN,
            }),
            // All together look for their dead about ten times a second, however many they are.
            periodic_announce_to_down_members: Some(foca::PeriodicParams {
                frequency: Duration::from_secs(5).max(Duration::from_millis(200) * size),
                num_members: at_least_one(2),
            }),
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_period,
                num_members: at_least_one(self.gossip_fanout.into()),
            }),
        }
    }

    /// Grows with the logarithm of the size, because news take that many rounds to reach everybody.
    fn suspicion(&self, size: u32) -> Duration {
        let periods = self.probe_period * u32::from(self.suspicion_periods);
        periods.mul_f64(f64::from(size.saturating_add(1)).log10().max(1.0))
    }

    /// How often our metadata is told at most, in a cluster of so many.
    pub(crate) fn metadata_period(&self, members: usize) -> Duration {
        let size = u32::try_from(members).unwrap_or(u32::MAX);
        self.metadata_period
            .max(Duration::from_millis(100).saturating_mul(size))
    }
}

/// How often each member hands a piece of news on: ten times, in large clusters up to 20 times.
fn transmissions(size: u32) -> NonZeroU8 {
    let wanted = f64::from(size.saturating_add(1)).log10() * 5.0;
    // Between 10 and 20, so nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let wanted = wanted.ceil().clamp(10.0, 20.0) as u8;
    NonZeroU8::new(wanted).unwrap_or(NonZeroU8::MIN)
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_settings_of_the_library_that_do_harm_are_never_used() {
        for size in [0, 1, 2, 3, 10, 100, 1_000, 100_000] {
            let swim = Config::default().swim(size, 1_000);
            assert!(swim.max_transmissions.get() >= 10, "{size}");
            assert!(!swim.notify_down_members);
            assert!(swim.periodic_announce_to_down_members.is_some());
        }
        assert_eq!(Config::default().swim(1_000, 1_000).max_transmissions.get(), 16);
    }

    #[test]
    fn suspicion_lasts_longer_in_larger_clusters() {
        let after = |size| Config::default().swim(size, 1_000).suspect_to_down_after.as_millis();
        assert_eq!(after(3), 1_500);
        assert_eq!(after(9), 1_500);
        assert_eq!(after(99), 3_000);
        assert!((4_500..4_510).contains(&after(1_000)));
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let fine = Config::default();
        assert_eq!(fine.validate(), Ok(()));
        let rtt = Duration::from_millis(251);
        assert_eq!(
            Config {
                probe_rtt: rtt,
                ..fine.clone()
            }
            .validate(),
            Err(ConfigError::Probe)
        );
        assert_eq!(
            Config {
                max_datagram: 1_249,
                ..fine.clone()
            }
            .validate(),
            Err(ConfigError::Datagram)
        );
        let endless = Config {
            forget_after: Duration::MAX,
            ..fine.clone()
        };
        assert_eq!(endless.validate(), Err(ConfigError::TooLong));
        let none = Config {
            gossip_fanout: 0,
            ..fine
        };
        assert_eq!(none.validate(), Err(ConfigError::Zero("gossip_fanout")));
    }
}
