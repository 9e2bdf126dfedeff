//! The second reading, only if some publish has an unknown outcome: which versions were seen that no acknowledgement
//! names, and which publish may have made each.
//!
//! An attempt with unknown outcome explains at most one version, seen after it was called. Which attempt explains which
//! version is a guess where there are several: the earliest call for the earliest sighting explains the most. So nothing
//! is concluded from when such a version was called but that it was not before the first of them.

use crate::changes::{Change, Changes, seen};
use crate::faults::Faults;
use crate::history::{Event, What};
use crate::objects::Objects;
use crate::publishes::{Outcomes, Possible};
use crate::rules::Rules;
use crate::verdict::{Findings, Invariant};
use hashbrown::{HashMap, HashSet};

/// When a version was seen first, by which event, and when it was promised by an answer that said duplicate.
#[derive(Clone, Copy)]
struct Seen {
    at_us: u64,
    number: u32,
    promise: Option<(u64, u32)>,
}

/// Gathers versions without an acknowledgement.
pub(crate) struct Sightings<'a> {
    changes: &'a Changes,
    /// Objects with a publish that may explain a version.
    open: HashSet<u32>,
    seen: HashMap<(u32, u64), Seen>,
}

impl<'a> Sightings<'a> {
    pub(crate) fn new(changes: &'a Changes, outcomes: &Outcomes) -> Self {
        let open = outcomes.possibles.iter().map(|possible| possible.object).collect();
        let mut sightings = Self {
            changes,
            open,
            seen: HashMap::new(),
        };
        for sighting in &outcomes.sightings {
            let promise = sighting.is_promised.then_some((sighting.at_us, sighting.number));
            sightings.add(
                sighting.object,
                sighting.version,
                sighting.at_us,
                sighting.number,
                promise,
            );
        }
        sightings
    }

    /// Takes one event.
    pub(crate) fn see(&mut self, number: u32, event: &Event<'_>, objects: &mut Objects) {
        match &event.what {
            What::Notify { obj, version, .. }
            | What::Final {
                obj,
                version: Some(version),
            } => {
                self.add(objects.number(obj), *version, event.at_us, number, None);
            }
            What::ResumeOk { changed, .. } => {
                for (obj, version) in changed {
                    self.add(objects.number(obj), *version, event.at_us, number, None);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, object: u32, version: u64, at_us: u64, number: u32, promise: Option<(u64, u32)>) {
        if !self.open.contains(&object) || self.changes.find(object, version).is_some() {
            return;
        }
        let seen = self
            .seen
            .entry((object, version))
            .or_insert(Seen { at_us, number, promise });
        if at_us < seen.at_us {
            (seen.at_us, seen.number) = (at_us, number);
        }
        seen.promise = [seen.promise, promise].into_iter().flatten().min();
    }

    /// The changes that were seen, each explained by a publish; what cannot be explained stays a phantom.
    pub(crate) fn explain(
        self,
        possibles: &[Possible],
        faults: &Faults,
        rules: &Rules,
        found: &mut Findings,
    ) -> Vec<Change> {
        let mut by_object: HashMap<u32, Vec<&Possible>> = HashMap::new();
        let mut earliest_us: HashMap<u32, u64> = HashMap::new();
        for possible in possibles {
            by_object.entry(possible.object).or_default().push(possible);
            let earliest_us = earliest_us.entry(possible.object).or_insert(possible.call_us);
            *earliest_us = possible.call_us.min(*earliest_us);
        }
        for possibles in by_object.values_mut() {
            possibles.sort_unstable_by_key(|possible| possible.call_number);
        }
        let mut all: Vec<_> = self.seen.into_iter().collect();
        all.sort_unstable_by_key(|((object, version), seen)| (*object, seen.at_us, *version));
        let mut changes = Vec::new();
        for ((object, version), seen_at) in all {
            let Some(possibles) = by_object.get_mut(&object) else {
                continue;
            };
            let Some(possible) = take(possibles, version, seen_at.at_us) else {
                continue;
            };
            if let Some((ack_us, acked, ack_number)) = possible.acked.filter(|(_, acked, _)| *acked != version) {
                let numbers = [possible.call_number, ack_number, seen_at.number];
                if faults.overlap(possible.call_us, ack_us) || rules.lost_copies {
                    found.note(Invariant::I4, "a retried publish was applied twice during a fault", 1);
                } else {
                    found.violated(Invariant::I4, &numbers, || {
                        format!("one publish was applied as version {version} and acknowledged as {acked}")
                    });
                }
            }
            let mut change = seen(object, version, earliest_us[&object], possible.call_number);
            if let Some((promise_us, number)) = seen_at.promise {
                (change.promise_us, change.ack_us, change.ack_number) = (promise_us, promise_us, number);
            }
            changes.push(change);
        }
        changes
    }
}

/// The publish that explains a version best: one acknowledged with it, else one never acknowledged, else any.
fn take<'a>(possibles: &mut Vec<&'a Possible>, version: u64, seen_us: u64) -> Option<&'a Possible> {
    let fits = |possible: &Possible| match possible.acked {
        Some((_, acked, _)) if acked == version => 0,
        None => 1,
        Some(_) => 2,
    };
    let called = possibles.iter().take_while(|possible| possible.call_us <= seen_us);
    let (at, _) = called.enumerate().min_by_key(|(at, possible)| (fits(possible), *at))?;
    Some(possibles.remove(at))
}

/// Answers that said duplicate promise the version that they name: the copies have it.
pub(crate) fn promises(changes: &Changes, outcomes: &Outcomes) -> Vec<Change> {
    let promised = outcomes.sightings.iter().filter(|sighting| sighting.is_promised);
    let promised = promised.filter_map(|sighting| {
        let change = changes.find(sighting.object, sighting.version)?;
        (sighting.at_us < change.promise_us).then_some(Change {
            promise_us: sighting.at_us,
            ack_us: change.ack_us.min(sighting.at_us),
            ..*change
        })
    });
    promised.collect()
}
