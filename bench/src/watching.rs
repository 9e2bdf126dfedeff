//! Who holds what: subscribers with random objects out of millions, the population of `seed` and `storm`.

use crate::message;
use crate::random::Random;
use std::collections::HashMap;

/// Each subscriber's objects, and each object's subscribers.
#[derive(Debug)]
pub(crate) struct Watching {
    held: Vec<Vec<u64>>,
    watchers: HashMap<u64, Vec<usize>>,
    objects: u64,
}

impl Watching {
    /// `subscribers` with `each` different objects below `objects`.
    pub(crate) fn random(subscribers: usize, each: usize, objects: u64, random: &mut Random) -> Self {
        let mut held = vec![Vec::with_capacity(each); subscribers];
        let mut watchers: HashMap<u64, Vec<usize>> = HashMap::new();
        for (subscriber, mine) in held.iter_mut().enumerate() {
            while mine.len() < each {
                let object = random.below(objects);
                let watchers = watchers.entry(object).or_default();
                if watchers.last() != Some(&subscriber) {
                    watchers.push(subscriber);
                    mine.push(object);
                }
            }
        }
        Self {
            held,
            watchers,
            objects,
        }
    }

    /// All objects somebody holds, in random order.
    pub(crate) fn watched(&self, random: &mut Random) -> Vec<u64> {
        let mut watched: Vec<_> = self.watchers.keys().copied().collect();
        watched.sort_unstable();
        random.shuffle(&mut watched);
        watched
    }

    /// A random object nobody holds.
    pub(crate) fn unwatched(&self, random: &mut Random) -> u64 {
        loop {
            let object = random.below(self.objects);
            if !self.watchers.contains_key(&object) {
                return object;
            }
        }
    }

    /// Who holds this object.
    pub(crate) fn watchers(&self, object: u64) -> &[usize] {
        self.watchers.get(&object).map_or(&[], Vec::as_slice)
    }

    /// The subscribe message of one subscriber.
    pub(crate) fn subscribe(&self, subscriber: usize, cursor: Option<&str>) -> String {
        let ids: Vec<_> = self.held[subscriber].iter().map(u64::to_string).collect();
        message::subscribe(ids.iter().map(String::as_str), cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_an_object_twice_and_both_directions_agree() {
        let mut random = Random::new(1);
        let watching = Watching::random(50, 20, 100, &mut random);
        for (subscriber, held) in watching.held.iter().enumerate() {
            let distinct: std::collections::HashSet<_> = held.iter().collect();
            assert_eq!(distinct.len(), 20);
            assert!(
                held.iter()
                    .all(|&object| watching.watchers(object).contains(&subscriber))
            );
        }
        let watched = watching.watched(&mut random);
        assert_eq!(
            watched
                .iter()
                .map(|&object| watching.watchers(object).len())
                .sum::<usize>(),
            50 * 20
        );
    }
}
