//! What is asked of a system: how many listen, to what, and what is published when. The same numbers make the same load.

use std::collections::BTreeSet;
use std::time::Duration;

/// A load in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The scenario's name, as it stands in the report.
    pub scenario: String,
    /// Connections that listen.
    pub subscribers: u32,
    /// Objects that each of them watches.
    pub topics: u32,
    /// Objects there are, numbered from 0.
    pub objects: u32,
    /// Changes published a second.
    pub rate: f64,
    /// Share of the changes that concern a watched object, 0 to 1.
    pub watched: f64,
    /// How long to publish.
    pub length: Duration,
    /// Share of the subscribers that are cut off, 0 to 1; 0 for none.
    pub cut: f64,
    /// How long they stay away.
    pub away: Duration,
    /// Of the choices that look like chance.
    pub seed: u64,
}

impl Load {
    /// 2,000 subscribers of 100 out of 10 million objects, 300 events a second, every tenth of them watched.
    #[must_use]
    pub fn seed() -> Self {
        Self {
            scenario: "seed".into(),
            subscribers: 2_000,
            topics: 100,
            objects: 10_000_000,
            rate: 300.0,
            watched: 0.1,
            length: Duration::from_secs(60),
            cut: 0.5,
            away: Duration::from_secs(3),
            seed: 1,
        }
    }

    /// One object that everybody watches.
    #[must_use]
    pub fn hot() -> Self {
        Self {
            scenario: "hot".into(),
            topics: 1,
            objects: 1,
            rate: 20.0,
            watched: 1.0,
            ..Self::seed()
        }
    }

    /// When the cut comes, counted from the first publish: after six tenths of the time.
    #[must_use]
    pub fn cut_after(&self) -> Duration {
        self.length.mul_f64(0.6)
    }

    /// How many subscribers, the first ones, are cut off.
    #[must_use]
    pub fn cut_off(&self) -> u32 {
        (f64::from(self.subscribers) * self.cut.clamp(0.0, 1.0)).round() as u32
    }

    /// When the `n`th change is due, counted from the first.
    #[must_use]
    pub fn due(&self, n: u64) -> Duration {
        Duration::from_secs_f64(n as f64 / self.rate.max(1e-3))
    }

    /// The objects that a subscriber watches, ascending.
    #[must_use]
    pub fn watches(&self, subscriber: u32) -> Vec<u32> {
        let wanted = self.topics.min(self.objects) as usize;
        let mut chance = Chance(self.seed ^ (u64::from(subscriber) + 1).wrapping_mul(0xd134_2543_de82_ef95));
        let mut objects = BTreeSet::new();
        if wanted * 2 > self.objects as usize {
            objects.extend(0..wanted as u32);
        }
        while objects.len() < wanted {
            objects.insert(chance.below(self.objects));
        }
        objects.into_iter().collect()
    }
}

/// Which object each change concerns.
#[derive(Clone, Debug)]
pub struct Choice {
    watched: Vec<u32>,
    objects: u32,
    share: f64,
    chance: Chance,
}

impl Choice {
    /// For a load whose subscribers watch `watched` (each object once).
    #[must_use]
    pub fn new(load: &Load, watched: Vec<u32>) -> Self {
        Self {
            watched,
            objects: load.objects,
            share: load.watched,
            chance: Chance(load.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
        }
    }

    /// The next change's object.
    pub fn next_object(&mut self) -> u32 {
        let watched = self.chance.share() < self.share;
        if watched && !self.watched.is_empty() {
            let at = self.chance.below(self.watched.len() as u32);
            self.watched[at as usize]
        } else {
            self.chance.below(self.objects)
        }
    }
}

/// Numbers that look like chance and are the same every time (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, limit: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(limit.max(1))) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_watches_as_many_different_objects_as_it_should_and_the_same_every_time() {
        let load = Load::seed();
        for subscriber in [0, 1, 1_999] {
            let objects = load.watches(subscriber);
            assert_eq!(objects.len(), 100);
            assert!(objects.windows(2).all(|pair| pair[0] < pair[1]) && objects[99] < load.objects);
            assert_eq!(objects, load.watches(subscriber));
        }
        assert_ne!(load.watches(0), load.watches(1));
        assert_eq!(Load::hot().watches(7), [0]);
        let crowded = Load {
            topics: 10,
            objects: 3,
            ..Load::hot()
        };
        assert_eq!(crowded.watches(7), [0, 1, 2]);
    }

    #[test]
    fn the_share_of_changes_that_somebody_watches_is_as_asked_for() {
        let load = Load::seed();
        let watched: Vec<u32> = (0..1_000).collect();
        let mut choice = Choice::new(&load, watched);
        let hits = (0..10_000).filter(|_| choice.next_object() < 1_000).count();
        assert!((900..1_100).contains(&hits), "{hits}");
    }

    #[test]
    fn changes_are_due_evenly() {
        let load = Load::seed();
        assert_eq!(load.due(0), Duration::ZERO);
        assert_eq!(load.due(300), Duration::from_secs(1));
        assert_eq!((load.cut_off(), load.cut_after()), (1_000, Duration::from_secs(36)));
    }
}
