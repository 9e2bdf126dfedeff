//! Those who publish: each one call at a time, through any node, with or without a key, and again if nobody can say what
//! became of it.
//!
//! The source of truth is written before the call: whoever fetches after a call began sees its change.

use crate::clock::DAWN_US;
use crate::world::{Event, World};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidings_protocol::{Hint, Version};
use tidings_router::owner::{Publish, PublishExtra};

/// What a publisher is told of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has this version.
    Accepted(Version),
    /// It had happened; zero if nobody knows any more at which version.
    Duplicate(Version),
    /// Surely not applied.
    Failed,
    /// Perhaps applied.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Publisher {
    call: Option<(u64, BTreeMap<usize, Publish>)>,
    called_at: u64,
    again: VecDeque<(usize, Publish)>,
}

impl World {
    /// A publisher's turn.
    pub fn publisher_turn(&mut self, publisher: usize) {
        if self.publishers[publisher].call.is_some() {
            return;
        }
        let drawn = self.will.index(self.plan.nodes);
        let nodes = self.plan.nodes;
        let mut there = (drawn..drawn + nodes)
            .map(|node| node % nodes)
            .filter(|node| !self.gone[*node]);
        let node = there.next().unwrap_or(drawn);
        let durable = self.will.percent(25);
        let mut changes: Vec<(usize, Publish)> = Vec::new();
        let eager = self.plan.aimed;
        if (eager || self.will.percent(50))
            && let Some(again) = self.publishers[publisher].again.pop_front()
        {
            self.coverage.saw("publish retried under its key");
            changes.push(again);
        }
        if changes.is_empty() || self.will.percent(50) {
            let many = if self.will.percent(80) {
                1
            } else {
                self.will.range(2, 6)
            };
            changes.extend((0..many).map(|_| self.new_change()));
        }
        let call = self.name();
        self.coverage.add("publish called durable", u64::from(durable));
        self.trace.note(self.now, format_args!("pub{publisher}"), || {
            let names = changes.iter().map(|(publish, _)| format!("p{publish}"));
            format!("calls n{node}: {}", names.collect::<Vec<_>>().join(" "))
        });
        let state = &mut self.publishers[publisher];
        state.call = Some((call, changes.iter().cloned().collect()));
        state.called_at = self.now;
        if self.nodes[node].runs() {
            self.begin_call(node, publisher, call, durable, changes);
        } else if self.nodes[node].process.is_none() {
            // Nobody listens there: nothing was sent.
            let failed = changes.iter().map(|(publish, _)| (*publish, Answer::Failed)).collect();
            self.after(2_000, Event::PublishAnswer(publisher, call, failed));
        }
        self.after(self.plan.patience_us, Event::PublishOver(publisher, call));
    }

    fn new_change(&mut self) -> (usize, Publish) {
        // A few objects change far more often than the others.
        let objects = self.plan.objects as u64;
        let limit = if self.will.percent(50) {
            objects.div_ceil(4)
        } else {
            objects
        };
        let object = self.will.below(limit) as usize;
        let hash = self.oracle.object_hash(object);
        let low = u128::from(hash.0 >> 48);
        let key = self
            .will
            .percent(40)
            .then(|| (u128::from(self.will.word()) << 64) | (1 << 20) | low);
        let revision = (object % 5 == 4).then(|| {
            let stale = self.will.percent(20);
            self.oracle.next_revision(object, stale)
        });
        let revision = revision.map(|revision| ((u128::from(hash.0) << 64) | low, revision));
        let publish = self
            .oracle
            .called(self.now, object, key, revision.map(|(_, revision)| revision));
        let hint = self.will.percent(50).then(|| {
            Arc::new(Hint {
                kind: None,
                data: Some(publish.to_string().into()),
            })
        });
        let extra = PublishExtra {
            hint,
            revision,
            idempotency: key,
        };
        let change = Publish {
            object: hash,
            extra: (extra != PublishExtra::default()).then(|| Box::new(extra)),
        };
        (publish, change)
    }

    /// A publisher is answered.
    pub fn publish_answered(&mut self, publisher: usize, call: u64, answers: Vec<(usize, Answer)>) {
        let called_at = self.publishers[publisher].called_at;
        let Some((_, mut changes)) = self.publishers[publisher].call.take_if(|(current, _)| *current == call) else {
            return;
        };
        self.oracle.call_ended(self.now, called_at);
        for (publish, answer) in answers {
            let change = changes.remove(&publish);
            self.trace.note(self.now, format_args!("pub{publisher}"), || {
                format!("p{publish}: {answer:?}")
            });
            match answer {
                Answer::Accepted(version) => {
                    self.coverage.saw("publish acknowledged");
                    if self.epoch_is_past(publish, version) {
                        self.coverage
                            .saw("publish acknowledged after its shard had a newer owner");
                    }
                    self.oracle.acked(self.now, publish, version, called_at, false);
                    // As if the answer had been lost on its last step.
                    if publish.is_multiple_of(16)
                        && self.oracle.has_key(publish)
                        && let Some(change) = change
                    {
                        self.publishers[publisher].again.push_back((publish, change));
                    }
                }
                Answer::Duplicate(version) => {
                    let by_key = self.oracle.has_key(publish);
                    self.coverage.saw(if by_key {
                        "publish duplicate by key"
                    } else {
                        "publish duplicate by revision"
                    });
                    if self.epoch_is_past(publish, version) {
                        self.coverage
                            .saw("retry answered 'duplicate' after its shard had a newer owner");
                    }
                    self.oracle.acked(self.now, publish, version, called_at, true);
                }
                Answer::Failed => {
                    self.oracle.unserved(self.now, publish, called_at);
                    self.coverage.saw("publish failed");
                    self.consider_again(publisher, publish, change);
                }
                Answer::Unknown => {
                    self.oracle.unserved(self.now, publish, called_at);
                    self.coverage.saw("publish outcome unknown");
                    self.consider_again(publisher, publish, change);
                }
            }
        }
        for (publish, change) in changes {
            self.consider_again(publisher, publish, Some(change));
        }
        self.next_turn(publisher);
    }

    /// Whether a version was given by an owner that has a successor.
    fn epoch_is_past(&self, publish: usize, version: Version) -> bool {
        let history = &self.oracle.history;
        let object = &history.objects[history.publishes[publish].object];
        let epoch = object.applied.get(&version).map(|applied| applied.epoch);
        let present = self.agreement.map().shard(object.shard).map(|shard| shard.epoch);
        epoch.is_some_and(|epoch| Some(epoch) < present)
    }

    /// Nobody answered.
    pub fn publish_over(&mut self, publisher: usize, call: u64) {
        let called_at = self.publishers[publisher].called_at;
        let Some((_, changes)) = self.publishers[publisher].call.take_if(|(current, _)| *current == call) else {
            return;
        };
        self.oracle.call_ended(self.now, called_at);
        self.trace
            .note(self.now, format_args!("pub{publisher}"), || "waits no longer");
        for (publish, change) in changes {
            self.oracle.unserved(self.now, publish, called_at);
            self.coverage.saw("publish outcome unknown");
            self.consider_again(publisher, publish, Some(change));
        }
        self.next_turn(publisher);
    }

    fn consider_again(&mut self, publisher: usize, publish: usize, change: Option<Publish>) {
        if let Some(change) = change
            && (self.plan.aimed || self.will.percent(70))
            && self.publishers[publisher].again.len() < 20
        {
            self.publishers[publisher].again.push_back((publish, change));
        }
    }

    fn next_turn(&mut self, publisher: usize) {
        if self.quiet {
            return;
        }
        let us = self.will.range(1, 2 * self.plan.publish_every_us);
        self.after(us, Event::Publish(publisher));
    }
}

/// How far a version is ahead of the true time, in microseconds.
#[must_use]
pub fn ahead_us(version: Version, now: u64) -> i64 {
    version.0 as i64 - (DAWN_US + now) as i64
}
