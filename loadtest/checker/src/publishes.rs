//! The first reading of a history: who published what, with which outcome, and which faults there were.
//!
//! It joins calls with their outcomes and attempts with one key into one publish, and judges I4, which is about exactly
//! that. What clients were told it does not know.

use crate::changes::{Change, NEVER};
use crate::faults::Faults;
use crate::history::{Event, Level, Trace, What};
use crate::objects::Objects;
use crate::rules::Rules;
use crate::verdict::{Findings, Invariant, NO_EVENT};
use hashbrown::HashMap;

/// One request to publish one change.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    object: u32,
    key: u64,
    call_us: u64,
    return_us: u64,
    version: u64,
    call_number: u32,
    return_number: u32,
    outcome: Outcome,
    is_promised: bool,
    has_revision: bool,
    shard: u16,
    epoch: u64,
}

impl Attempt {
    fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Acked | Outcome::Duplicate)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Failed,
    Acked,
    Duplicate,
}

/// A publish that may have been applied: if a version is seen that nobody was told of, it may be this one's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Possible {
    pub(crate) object: u32,
    pub(crate) call_us: u64,
    pub(crate) call_number: u32,
    /// When and with which version another attempt of the same publish was acknowledged.
    pub(crate) acked: Option<(u64, u64, u32)>,
}

/// A version that an answer named although it made none: a duplicate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) object: u32,
    pub(crate) version: u64,
    pub(crate) at_us: u64,
    pub(crate) number: u32,
    /// The answer promises the version that it names.
    pub(crate) is_promised: bool,
}

/// What the first reading gathers.
#[derive(Default)]
pub(crate) struct Publishes {
    attempts: Vec<Attempt>,
    open: HashMap<(u32, u64), u32>,
    pub(crate) objects: Objects,
    pub(crate) faults: Faults,
    /// The owner's versions at the end, by object.
    pub(crate) finals: HashMap<u32, (u64, u32, u64)>,
    /// The last stamp.
    pub(crate) end_us: u64,
    /// Whether anybody was told shards.
    pub(crate) has_traces: bool,
    /// Outcomes of calls that are not in the history.
    pub(crate) strays: u64,
}

/// What became of all attempts.
#[derive(Default)]
pub(crate) struct Outcomes {
    pub(crate) changes: Vec<Change>,
    pub(crate) possibles: Vec<Possible>,
    pub(crate) sightings: Vec<Sighting>,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
}

impl Publishes {
    /// Takes one event.
    pub(crate) fn see(&mut self, number: u32, event: &Event<'_>, rules: &Rules) {
        let at_us = event.at_us;
        self.end_us = at_us;
        match &event.what {
            What::PubCall {
                publisher,
                call,
                obj,
                key,
                level,
                revision,
            } => {
                let attempt = Attempt {
                    object: self.objects.number(obj),
                    key: *key,
                    call_us: at_us,
                    return_us: NEVER,
                    version: 0,
                    call_number: number,
                    return_number: NO_EVENT,
                    outcome: Outcome::Unknown,
                    is_promised: *level != Level::Accepted || rules.accepted_is_promised,
                    has_revision: revision.is_some(),
                    shard: 0,
                    epoch: 0,
                };
                self.open.insert((*publisher, *call), self.attempts.len() as u32);
                self.attempts.push(attempt);
            }
            What::PubOk {
                publisher,
                call,
                version,
                duplicate,
                trace,
            } => {
                let outcome = if *duplicate { Outcome::Duplicate } else { Outcome::Acked };
                self.close((*publisher, *call), (at_us, number), outcome, *version, *trace);
            }
            What::PubFail { publisher, call } => {
                self.close((*publisher, *call), (at_us, number), Outcome::Failed, 0, None);
            }
            What::PubUnknown { publisher, call } => {
                self.close((*publisher, *call), (at_us, number), Outcome::Unknown, 0, None);
            }
            What::Notify {
                obj,
                trace: Some(trace),
                ..
            } => {
                let object = self.objects.number(obj);
                self.objects.learn_shard(object, trace.shard);
            }
            What::NemesisStart { fault } => self.faults.start(fault, at_us),
            What::NemesisStop { fault } => self.faults.stop(fault, at_us),
            What::Final { obj, version } => {
                let object = self.objects.number(obj);
                self.finals.insert(object, (version.unwrap_or(0), number, at_us));
            }
            _ => {}
        }
    }

    fn close(&mut self, call: (u32, u64), at: (u64, u32), outcome: Outcome, version: u64, trace: Option<Trace>) {
        let Some(index) = self.open.remove(&call) else {
            self.strays += 1;
            return;
        };
        let attempt = &mut self.attempts[index as usize];
        (attempt.return_us, attempt.return_number) = at;
        attempt.outcome = outcome;
        attempt.version = version;
        if let Some(trace) = trace {
            (attempt.shard, attempt.epoch) = (trace.shard, trace.epoch);
            self.has_traces = true;
            self.objects.learn_shard(attempt.object, trace.shard);
        }
    }

    /// Joins attempts with one key, after the last event.
    pub(crate) fn outcomes(&mut self, rules: &Rules, found: &mut Findings) -> Outcomes {
        self.open = HashMap::new();
        let mut attempts = std::mem::take(&mut self.attempts);
        let mut outcomes = Outcomes::default();
        for attempt in &attempts {
            match attempt.outcome {
                Outcome::Failed => outcomes.failed += 1,
                Outcome::Unknown => outcomes.unknown += 1,
                Outcome::Acked | Outcome::Duplicate => {}
            }
        }
        attempts.retain(|attempt| attempt.outcome != Outcome::Failed);
        // Without a key each attempt stands for itself; with one they are grouped in the order of their calls.
        attempts.sort_unstable_by_key(|attempt| (attempt.key, attempt.object, attempt.call_number));
        let same = |a: &Attempt, b: &Attempt| a.key != 0 && (a.key, a.object) == (b.key, b.object);
        for group in attempts.chunk_by(same) {
            self.one_publish(group, rules, found, &mut outcomes);
        }
        drop(attempts);
        one_version_one_change(&mut outcomes.changes, found);
        outcomes
    }

    /// All attempts of one publish, in the order of their calls.
    fn one_publish(&self, group: &[Attempt], rules: &Rules, found: &mut Findings, outcomes: &mut Outcomes) {
        let (call_us, call_number) = (group[0].call_us, group[0].call_number);
        let answered = group.iter().filter(|attempt| attempt.is_answered());
        let first = answered.min_by_key(|attempt| attempt.return_number);
        // The first attempt without an answer; a later answer "duplicate" is the answer to it, unless revisions say so.
        let silent = group.iter().find(|attempt| attempt.outcome == Outcome::Unknown);
        let has_revision = group.iter().any(|attempt| attempt.has_revision);
        let repeats =
            |attempt: &Attempt| !has_revision && silent.is_some_and(|silent| silent.call_number < attempt.call_number);
        for attempt in group {
            let mut change = Change {
                object: attempt.object,
                version: attempt.version,
                call_us,
                ack_us: attempt.return_us,
                promise_us: if attempt.is_promised { attempt.return_us } else { NEVER },
                call_number,
                ack_number: attempt.return_number,
                shard: attempt.shard,
                epoch: attempt.epoch,
                is_guess: false,
            };
            match attempt.outcome {
                Outcome::Unknown => outcomes.possibles.push(Possible {
                    object: attempt.object,
                    call_us: attempt.call_us,
                    call_number: attempt.call_number,
                    acked: first.map(|first| (first.return_us, first.version, first.return_number)),
                }),
                Outcome::Duplicate if repeats(attempt) => {
                    // The epoch is that of the answer, not that of the version.
                    change.epoch = 0;
                    outcomes.changes.push(change);
                }
                Outcome::Duplicate => outcomes.sightings.push(Sighting {
                    object: attempt.object,
                    version: attempt.version,
                    at_us: attempt.return_us,
                    number: attempt.return_number,
                    is_promised: attempt.is_promised,
                }),
                Outcome::Acked => outcomes.changes.push(change),
                Outcome::Failed => {}
            }
        }
        if let Some(first) = first {
            one_key_one_version(group, first, rules, found);
        }
    }
}

/// I4: all attempts of one publish were answered with the version of the first answer.
fn one_key_one_version(group: &[Attempt], first: &Attempt, rules: &Rules, found: &mut Findings) {
    found.checked(Invariant::I4, 1);
    let answered = group.iter().filter(|attempt| attempt.is_answered());
    for other in answered.filter(|other| other.version != first.version) {
        let later_us = first.return_us.max(other.call_us);
        if later_us - group[0].call_us > rules.key_window_us || rules.lost_copies {
            let note = "a key answered with another version after it may be forgotten";
            found.note(Invariant::I4, note, 1);
            continue;
        }
        let numbers = [
            first.call_number,
            first.return_number,
            other.call_number,
            other.return_number,
        ];
        found.violated(Invariant::I4, &numbers, || {
            let (key, one, another) = (first.key, first.version, other.version);
            format!("key {key} was answered with version {one} and with {another}")
        });
    }
}

/// No version of an object was given to two publishes. Attempts of one publish with one version become one.
fn one_version_one_change(changes: &mut Vec<Change>, found: &mut Findings) {
    changes.sort_unstable_by_key(|change| (change.object, change.version, change.ack_us));
    changes.dedup_by(|again, first| {
        if (again.object, again.version) != (first.object, first.version) {
            return false;
        }
        // Attempts of one publish share its first call.
        if again.call_number != first.call_number {
            let numbers = [again.call_number, again.ack_number, first.call_number, first.ack_number];
            found.violated(Invariant::I4, &numbers, || {
                format!("two publishes were given version {}", first.version)
            });
        }
        first.promise_us = first.promise_us.min(again.promise_us);
        first.call_us = first.call_us.min(again.call_us);
        true
    });
}
