//! What any node does for a publisher: finds the owners in its map, passes changes on, tries again within the deadline,
//! and says what became of them.

use crate::network::{Body, Fate};
use crate::workload::Answer;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use tidings_router::owner::Publish;

/// How long a node tries.
const CALL_US: u64 = 4_000_000;

/// One change of a call.
#[derive(Debug)]
struct Item {
    change: Publish,
    /// An owner has it, and did not answer yet.
    sent: bool,
    /// An owner may have applied it.
    doubt: bool,
}

/// A call under way.
#[derive(Debug)]
pub struct Call {
    publisher: usize,
    durable: bool,
    open: BTreeMap<usize, Item>,
    done: Vec<(usize, Answer)>,
}

impl World {
    /// A publisher's call reaches a node.
    pub fn begin_call(
        &mut self,
        node: usize,
        publisher: usize,
        call: u64,
        durable: bool,
        changes: Vec<(usize, Publish)>,
    ) {
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let item = |(publish, change)| {
            let item = Item {
                change,
                sent: false,
                doubt: false,
            };
            (publish, item)
        };
        process.calls.insert(
            call,
            Call {
                publisher,
                durable,
                open: changes.into_iter().map(item).collect(),
                done: Vec::new(),
            },
        );
        self.after(CALL_US, Event::Call(node, incarnation, call, true));
        self.pass_on_call(node, call);
    }

    fn pass_on_call(&mut self, node: usize, call: u64) {
        let shards = self.plan.shards;
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(state) = process.calls.get_mut(&call) else {
            return;
        };
        let mut to: BTreeMap<usize, Vec<(usize, Publish)>> = BTreeMap::new();
        let mut ownerless = false;
        for (publish, item) in state.open.iter_mut().filter(|(_, item)| !item.sent) {
            let shard = process.seat.map.shard(shards.shard(item.change.object));
            match shard.and_then(|shard| shard.owner) {
                Some(owner) => {
                    item.sent = true;
                    let node = owner.node.0 as usize;
                    to.entry(node).or_default().push((*publish, item.change.clone()));
                }
                None => ownerless = true,
            }
        }
        let durable = state.durable;
        for (owner, changes) in to {
            self.send(node, owner, None, Body::Publish(call, changes, durable));
        }
        if ownerless {
            self.after(100_000, Event::Call(node, incarnation, call, false));
        }
    }

    /// An owner answered.
    pub(super) fn call_answered(&mut self, node: usize, call: u64, fates: Vec<(usize, Fate)>) {
        let incarnation = self.nodes[node].incarnation;
        let Some(state) = self.nodes[node]
            .process
            .as_mut()
            .and_then(|process| process.calls.get_mut(&call))
        else {
            return;
        };
        let mut again = false;
        let mut elsewhere = 0;
        for (publish, fate) in fates {
            let Some(item) = state.open.get_mut(&publish) else {
                continue;
            };
            item.sent = false;
            let answer = match fate {
                Fate::Accepted(version) => Answer::Accepted(version),
                Fate::Duplicate(version) => Answer::Duplicate(version),
                Fate::Refused => {
                    elsewhere += 1;
                    again = true;
                    continue;
                }
                Fate::StorageFails if item.doubt => Answer::Unknown,
                Fate::StorageFails => Answer::Failed,
                Fate::NotStored => Answer::Unknown,
            };
            state.open.remove(&publish);
            state.done.push((publish, answer));
        }
        let finished = state.open.is_empty();
        self.coverage
            .add("publish sent to a node that is not the owner", elsewhere);
        if finished {
            self.finish_call(node, call);
        } else if again {
            let us = self.chance.range(20_000, 150_000);
            self.after(us, Event::Call(node, incarnation, call, false));
        }
    }

    /// A call's time to try again, or its end.
    pub fn call_again(&mut self, node: usize, incarnation: u64, call: u64, over: bool) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        if over {
            self.finish_call(node, call);
        } else {
            self.pass_on_call(node, call);
        }
    }

    fn finish_call(&mut self, node: usize, call: u64) {
        let Some(state) = self.nodes[node]
            .process
            .as_mut()
            .and_then(|process| process.calls.remove(&call))
        else {
            return;
        };
        let mut answers = state.done;
        let left = state.open.into_iter().map(|(publish, item)| {
            let unknown = item.sent || item.doubt;
            (publish, if unknown { Answer::Unknown } else { Answer::Failed })
        });
        answers.extend(left);
        let us = self.chance.range(50, 8_000);
        self.after(us, Event::PublishAnswer(state.publisher, call, answers));
    }
}
