//! Who holds what: it follows from the scenario's seed alone, so that every thread of every process knows it of all.
//!
//! It does not know connections, nor what anybody is told.

use crate::random::Random;
use crate::scenario::{Choice, Scenario};
use crate::zipf::Zipf;
use std::collections::HashSet;

/// Purposes of the random numbers of a run.
mod purpose {
    pub(super) const SUBSCRIBER: u64 = 1 << 40;
    pub(super) const TRANSPORT: u64 = 2 << 40;
}

/// How a subscriber is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Events,
    Poll,
}

/// Draws objects as a scenario says.
#[derive(Clone, Debug)]
pub(crate) enum Draw {
    Uniform(u32),
    Zipf(Zipf),
}

impl Draw {
    pub(crate) fn new(choice: Choice, count: u32, skew: f64) -> Self {
        match choice {
            Choice::Uniform => Self::Uniform(count),
            Choice::Zipf => Self::Zipf(Zipf::new(count, skew)),
        }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Uniform(count) => random.below(u64::from(*count)) as u32,
            Self::Zipf(zipf) => zipf.draw(random),
        }
    }
}

/// The objects that a subscriber holds at first, all different.
pub(crate) fn held_by(scenario: &Scenario, subscriber: u32) -> Vec<u32> {
    let (among, each) = (scenario.among(), scenario.subscribers.objects);
    if each == among {
        return (0..among).collect();
    }
    let mut random = Random::new(scenario.run.seed, purpose::SUBSCRIBER + u64::from(subscriber));
    let draw = Draw::new(scenario.subscribers.choice, among, scenario.subscribers.skew);
    let mut held = Vec::with_capacity(each as usize);
    let mut seen = HashSet::with_capacity(if each > 16 { each as usize } else { 0 });
    // A skewed choice of nearly all there are would draw the same few for ever: then the rest is taken in order.
    for _ in 0..u64::from(each) * 64 {
        let object = draw.draw(&mut random);
        let new = if each > 16 {
            seen.insert(object)
        } else {
            !held.contains(&object)
        };
        if new {
            held.push(object);
            if held.len() == each as usize {
                return held;
            }
        }
    }
    let rest = (0..among)
        .filter(|object| !held.contains(object))
        .take(each as usize - held.len());
    let rest: Vec<_> = rest.collect();
    held.extend(rest);
    held
}

/// How a subscriber is connected.
pub(crate) fn transport_of(scenario: &Scenario, subscriber: u32) -> Transport {
    let weights = &scenario.subscribers.transports;
    let (websocket, events) = (u64::from(weights.websocket), u64::from(weights.events));
    let mut random = Random::new(scenario.run.seed, purpose::TRANSPORT + u64::from(subscriber));
    match random.below(websocket + events + u64::from(weights.poll)) {
        drawn if drawn < websocket => Transport::WebSocket,
        drawn if drawn < websocket + events => Transport::Events,
        _ => Transport::Poll,
    }
}

/// So many subscriptions are sorted to count them; more are counted in a table with a place for each object.
const SORTED: u64 = 1 << 22;

/// Each object that somebody holds at first, ascending, with how many do.
fn count_holders(scenario: &Scenario) -> Vec<(u32, u32)> {
    let subscribers = 0..scenario.subscribers.count;
    let pairs = u64::from(scenario.subscribers.count) * u64::from(scenario.subscribers.objects);
    let held = subscribers.flat_map(|subscriber| held_by(scenario, subscriber));
    if pairs > SORTED {
        let mut holders = vec![0_u32; scenario.among() as usize];
        held.for_each(|object| holders[object as usize] += 1);
        let holders = (0..).zip(holders).filter(|(_, holders)| *holders > 0);
        return holders.collect();
    }
    let mut held: Vec<_> = held.collect();
    held.sort_unstable();
    held.chunk_by(|one, other| one == other)
        .filter_map(|alike| Some((*alike.first()?, u32::try_from(alike.len()).ok()?)))
        .collect()
}

/// Which objects somebody holds at first, and how many.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Ascending, with the number of their subscribers.
    objects: Vec<(u32, u32)>,
    bits: Vec<u64>,
    count: u32,
}

impl Watched {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let count = scenario.objects.count;
        let mut objects = count_holders(scenario);
        objects.shrink_to_fit();
        let mut bits = vec![0; count.div_ceil(64) as usize];
        for (object, _) in &objects {
            bits[(object / 64) as usize] |= 1 << (object % 64);
        }
        Self { objects, bits, count }
    }

    pub(crate) fn contains(&self, object: u32) -> bool {
        self.bits
            .get((object / 64) as usize)
            .is_some_and(|bits| bits >> (object % 64) & 1 == 1)
    }

    /// How many hold it at first.
    pub(crate) fn watchers(&self, object: u32) -> u32 {
        let found = self.objects.binary_search_by_key(&object, |(object, _)| *object);
        found.map_or(0, |at| self.objects[at].1)
    }

    /// How many objects somebody holds.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The `nth` of them, counted from 0, round and round.
    pub(crate) fn nth(&self, nth: u32) -> Option<u32> {
        let at = nth as usize % self.objects.len().max(1);
        self.objects.get(at).map(|(object, _)| *object)
    }

    /// An object that nobody holds; `None` if there is none, or hardly any.
    pub(crate) fn unwatched(&self, random: &mut Random) -> Option<u32> {
        if self.objects.len() == self.count as usize {
            return None;
        }
        let mut drawn = (0..1_000).map(|_| random.below(u64::from(self.count)) as u32);
        drawn.find(|object| !self.contains(*object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(change: impl FnOnce(&mut Scenario)) -> Scenario {
        let mut scenario = Scenario::default();
        scenario.objects.count = 1_000;
        scenario.subscribers.count = 50;
        scenario.subscribers.objects = 20;
        change(&mut scenario);
        scenario
    }

    #[test]
    fn a_subscriber_holds_as_many_different_objects_as_the_scenario_says() {
        for skew in [0.0, 1.0, 8.0] {
            let scenario = scenario(|scenario| {
                scenario.subscribers.skew = skew;
                scenario.subscribers.choice = if skew > 0.0 { Choice::Zipf } else { Choice::Uniform };
            });
            for subscriber in 0..50 {
                let held = held_by(&scenario, subscriber);
                let different: HashSet<_> = held.iter().collect();
                assert_eq!((held.len(), different.len()), (20, 20));
                assert_eq!(held, held_by(&scenario, subscriber), "the same each time");
            }
        }
    }

    #[test]
    fn what_is_watched_is_what_somebody_holds() {
        let scenario = scenario(|_| {});
        let watched = Watched::of(&scenario);
        let held: Vec<_> = (0..50).flat_map(|subscriber| held_by(&scenario, subscriber)).collect();
        for object in 0..1_000 {
            let watchers = held.iter().filter(|held| **held == object).count();
            assert_eq!(watched.watchers(object) as usize, watchers);
            assert_eq!(watched.contains(object), watchers > 0);
        }
        let mut random = Random::new(1, 1);
        assert!((0..1_000).all(|_| {
            watched
                .unwatched(&mut random)
                .is_some_and(|object| !watched.contains(object))
        }));
    }

    #[test]
    fn transports_come_by_their_weights() {
        let scenario = scenario(|scenario| {
            scenario.subscribers.transports.websocket = 2;
            scenario.subscribers.transports.poll = 2;
        });
        let polls = (0..10_000)
            .filter(|at| transport_of(&scenario, *at) == Transport::Poll)
            .count();
        assert!((4_700..5_300).contains(&polls), "{polls}");
        assert!((0..10_000).all(|at| transport_of(&scenario, at) != Transport::Events));
    }
}
