//! What is to be published when, decided beforehand: an open loop. A server that falls behind changes nothing of it.
//!
//! It does not know connections nor the present time.

use crate::population::{Draw, Watched};
use crate::random::Random;
use crate::scenario::{Arrivals, Mode, Scenario};
use std::sync::Arc;

/// One worker's share of what is published.
#[derive(Debug)]
pub(crate) struct Plan {
    random: Random,
    watched: Arc<Watched>,
    /// Among the watched objects, by rank.
    draw: Draw,
    watched_share: f64,
    arrivals: Arrivals,
    /// Microseconds from one request to the next, on average; infinite: never.
    gap_us: f64,
    /// When the next request is due, after the start.
    next_us: f64,
    unlimited: bool,
    until_us: u64,
}

/// One of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) of: u32,
}

impl Part {
    /// This part's share of `0..count`.
    pub(crate) fn range(self, count: u32) -> std::ops::Range<u32> {
        let cut = |index: u32| (u64::from(count) * u64::from(index) / u64::from(self.of.max(1))) as u32;
        cut(self.index)..cut(self.index + 1)
    }
}

impl Plan {
    pub(crate) fn new(scenario: &Scenario, watched: Arc<Watched>, part: Part) -> Self {
        let publishers = &scenario.publishers;
        let changes = match publishers.mode {
            Mode::Batch => f64::from(publishers.batch),
            Mode::Single | Mode::Stream => 1.0,
        };
        let rate = publishers.rate / changes / f64::from(part.of.max(1));
        let gap_us = 1e6 / rate;
        let mut random = Random::new(scenario.run.seed, (3 << 40) + u64::from(part.index));
        // The shares of several workers interleave.
        let next_us = match publishers.arrivals {
            Arrivals::Uniform => gap_us * f64::from(part.index) / f64::from(part.of.max(1)),
            Arrivals::Poisson => gap_us * random.exponential(),
        };
        let ranks = u32::try_from(watched.len()).unwrap_or(u32::MAX).max(1);
        Self {
            random,
            draw: Draw::new(publishers.choice, ranks, publishers.skew),
            watched_share: if watched.len() == 0 { 0.0 } else { publishers.watched },
            watched,
            arrivals: publishers.arrivals,
            gap_us,
            next_us,
            unlimited: publishers.unlimited,
            until_us: scenario.run.duration.us(),
        }
    }

    /// When the next request is due, in microseconds after the start; `None` if there is none any more. An unlimited
    /// plan is always due `now_us`.
    pub(crate) fn due_us(&self, now_us: u64) -> Option<u64> {
        if self.unlimited {
            return (now_us < self.until_us).then_some(now_us);
        }
        (self.next_us < self.until_us as f64).then_some(self.next_us as u64)
    }

    /// The request that was due has been taken.
    pub(crate) fn advance(&mut self) {
        self.next_us += match self.arrivals {
            Arrivals::Uniform => self.gap_us,
            Arrivals::Poisson => self.gap_us * self.random.exponential(),
        };
    }

    /// When nothing more will be due, in microseconds after the start.
    pub(crate) fn end_us(&self) -> u64 {
        self.until_us
    }

    /// Nothing more is due.
    pub(crate) fn cease(&mut self) {
        self.until_us = 0;
    }

    /// The object of the next change, and whether somebody watches it.
    pub(crate) fn object(&mut self) -> (u32, bool) {
        let watched = self.watched_share > 0.0 && self.random.unit() < self.watched_share;
        if !watched && let Some(object) = self.watched.unwatched(&mut self.random) {
            return (object, false);
        }
        let rank = self.draw.draw(&mut self.random);
        (self.watched.nth(rank).unwrap_or(rank), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arrivals: Arrivals, of: u32) -> Vec<Plan> {
        let mut scenario = Scenario::default();
        scenario.run.duration = crate::scenario::Span::seconds(100);
        scenario.publishers.rate = 500.0;
        scenario.publishers.arrivals = arrivals;
        scenario.publishers.watched = 0.1;
        let watched = Arc::new(Watched::of(&scenario));
        (0..of)
            .map(|index| Plan::new(&scenario, Arc::clone(&watched), Part { index, of }))
            .collect()
    }

    fn all(plan: &mut Plan) -> Vec<u64> {
        let due = std::iter::from_fn(|| {
            let due = plan.due_us(0);
            plan.advance();
            due
        });
        due.collect()
    }

    #[test]
    fn all_parts_together_publish_at_the_rate_of_the_scenario() {
        for arrivals in [Arrivals::Uniform, Arrivals::Poisson] {
            for of in [1, 3] {
                let due: usize = plan(arrivals, of).iter_mut().map(|plan| all(plan).len()).sum();
                assert!((49_000..=51_000).contains(&due), "{arrivals:?} of {of}: {due}");
            }
        }
    }

    #[test]
    fn uniform_parts_interleave_at_equal_distances() {
        let mut due: Vec<_> = plan(Arrivals::Uniform, 4).iter_mut().flat_map(all).collect();
        due.sort_unstable();
        assert!(due.windows(2).all(|two| (1_998..=2_002).contains(&(two[1] - two[0]))));
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_they_last() {
        let due = all(&mut plan(Arrivals::Poisson, 1)[0]);
        let gaps: Vec<f64> = due.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn the_share_of_watched_objects_is_kept() {
        let plan = &mut plan(Arrivals::Uniform, 1)[0];
        let watched = (0..20_000)
            .filter(|_| {
                let (object, watched) = plan.object();
                assert_eq!(watched, plan.watched.contains(object));
                watched
            })
            .count();
        assert!((1_800..2_200).contains(&watched), "{watched}");
    }

    #[test]
    fn parts_share_out_everything_once() {
        for count in [0, 1, 7, 2_000] {
            let parts = (0..3).map(|index| Part { index, of: 3 }.range(count));
            assert_eq!(parts.flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
