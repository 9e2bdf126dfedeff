//! A node and the control group: leases, the map, what it is told to serve and to give away; and the group's own life.

use super::Copy;
use crate::control::{Change, Grant, LEASE_US, Map, Outcome, Renewal};
use crate::disk::{Order, Record, shard_of_mark};
use crate::network::Body;
use crate::world::{Event, World};
use std::rc::Rc;
use tidings_protocol::{Epoch, ShardId};
use tidings_router::owner::Input;

/// How often the control group looks around.
const CONTROL_US: u64 = 100_000;

impl World {
    /// A node asks the leader for its lease.
    pub(super) fn renew_lease(&mut self, node: usize) {
        let Some(leader) = self.control.leader() else { return };
        let (from, sent_us) = (self.holder(node), self.clock(node).mono_us);
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        let renewal = Renewal {
            from,
            sent_us,
            in_use: process.in_use,
            copies: process.copies.values().map(|copy| copy.head).collect(),
            released: process.released.iter().map(|(shard, epoch)| (*shard, *epoch)).collect(),
        };
        self.send(node, leader, None, Body::Renew(renewal));
    }

    /// Whether a node can lead: it runs, and reaches a majority both ways.
    fn has_quorum(&self, leader: usize) -> bool {
        let reaches = |node: &usize| {
            self.nodes[*node].runs()
                && !self.network.is_blocked(leader, *node)
                && !self.network.is_blocked(*node, leader)
        };
        2 * (0..self.plan.nodes).filter(reaches).count() > self.plan.nodes && self.nodes[leader].runs()
    }

    pub(super) fn lease_asked(&mut self, node: usize, renewal: &Renewal) {
        if self.control.leader() != Some(node) || !self.has_quorum(node) {
            return;
        }
        let now_us = self.clock(node).mono_us;
        match self.control.renew(now_us, renewal) {
            Some(grant) => {
                let from = renewal.from;
                self.send(node, from.node, Some(from.incarnation), Body::Granted(grant));
            }
            None => self.coverage.saw("renewal refused: replacement proposed"),
        }
    }

    pub(super) fn lease_granted(&mut self, node: usize, grant: &Grant) {
        self.learn_map(node, &grant.map);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.map.revision > grant.map.revision {
            // It knows a newer map: this grant is of the past, though its time and ceiling are good.
        }
        process.lease_until_us = process.lease_until_us.max(grant.sent_us + LEASE_US);
        for owner in &mut process.owners {
            owner.machine.set_ceiling(grant.ceiling);
        }
    }

    /// A newer map: serves what it says, and nothing else.
    pub(super) fn learn_map(&mut self, node: usize, map: &Rc<Map>) {
        let me = self.holder(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if !process.map.entries.is_empty() && process.map.revision >= map.revision {
            return;
        }
        process.map = Rc::clone(map);
        for (index, entry) in map.entries.iter().enumerate() {
            let shard = ShardId(index as u16);
            let Some(process) = self.nodes[node].process.as_mut() else {
                return;
            };
            let mine = entry.owner == Some(me);
            let copy = process.copies.remove(&shard);
            if process.released.get(&shard).is_some_and(|epoch| *epoch < entry.epoch) {
                process.released.remove(&shard);
            }
            if mine && process.serves.get(&shard) != Some(&entry.epoch) {
                if !process.released.contains_key(&shard) {
                    let copy = copy.filter(|copy| entry.continues == Some(copy.head.epoch));
                    self.take_shard(node, shard, copy);
                }
            } else if !mine {
                let served = process.serves.remove(&shard).is_some();
                if let Some(copy) = copy.filter(|copy| copy.head.epoch == entry.epoch) {
                    // Still as good as any.
                    process.copies.insert(shard, copy);
                }
                if served {
                    let owner = self.owner_on(node, shard);
                    self.trace
                        .note(self.now, format_args!("o{owner}"), || format!("no longer owns {shard}"));
                    self.owner_input(owner, Input::Release { shards: vec![shard] });
                }
            }
        }
    }

    /// A shard is served from now on: empty, or from a copy.
    fn take_shard(&mut self, node: usize, shard: ShardId, copy: Option<Copy>) {
        let owner = self.owner_on(node, shard);
        let now = self.clock(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let entry = process.map.entries[usize::from(shard.0)];
        process.serves.insert(shard, entry.epoch);
        let what = match &copy {
            None => "shard replaced empty",
            Some(copy) if copy.moved => "shard moved with its versions",
            Some(_) => "shard continued from disk",
        };
        self.coverage.saw(what);
        self.trace.note(self.now, format_args!("o{owner}"), || {
            format!(
                "owns {shard} in epoch {} from floor {}: {what}",
                entry.epoch, entry.floor
            )
        });
        if let Some(copy) = copy.as_ref().filter(|copy| copy.moved && self.plan.disks) {
            // What is not on this disk yet has to be there before the shard counts as owned.
            let records = copy.records();
            self.give_order(
                node,
                Order {
                    owner: owner % self.plan.threads,
                    ticket: None,
                    records,
                    durable: false,
                },
            );
        }
        let assign = Input::Assign {
            shards: vec![shard],
            epoch: entry.epoch,
            floor: entry.floor,
            cause: entry.cause,
        };
        self.owner_step(owner, |machine, _, out| {
            machine.resume_above(entry.start.before());
            machine.handle(now, assign, out);
            let Some(copy) = copy else { return };
            for (object, version) in copy.versions {
                machine.restore(object, version);
            }
            for (key, revision) in copy.revisions {
                machine.restore_revision(key, revision);
            }
            for answer in copy.answers {
                machine.restore_answer(answer, now);
            }
        });
    }

    /// A planned move: the shard is served no longer, and its copy goes to the node that is to have it.
    pub(super) fn drain_shard(&mut self, node: usize, shard: ShardId, target: usize) {
        let owner = self.owner_on(node, shard);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(epoch) = process.serves.remove(&shard) else {
            return;
        };
        process.released.insert(shard, epoch);
        let (shards, now) = (self.plan.shards, self.clock(node));
        let Some(copy) = self
            .owner_shell(owner)
            .map(|shell| Copy::of(&shell.machine, shards, shard, epoch, now))
        else {
            return;
        };
        self.trace.note(self.now, format_args!("o{owner}"), || {
            format!("gives {shard} to n{target}")
        });
        self.owner_input(owner, Input::Release { shards: vec![shard] });
        self.send(node, target, None, Body::HandOver(Box::new(copy)));
    }

    pub(super) fn copy_arrived(&mut self, node: usize, copy: Copy) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let shard = copy.head.shard;
        let current = process.map.entries.get(usize::from(shard.0)).map(|entry| entry.epoch);
        if current == Some(copy.head.epoch) || current.is_none() {
            process.copies.insert(shard, copy);
            self.renew_lease(node);
        } else {
            self.coverage.saw("hand-over lost");
        }
    }

    /// The control group looks around: elects, proposes.
    pub fn control_tick(&mut self) {
        self.after(CONTROL_US, Event::Control);
        let leader = self.control.leader();
        if leader.is_some_and(|leader| self.has_quorum(leader)) {
            self.leaderless_since = None;
        } else {
            let since = *self.leaderless_since.get_or_insert(self.now);
            let patience_us = self.chance.range(300_000, 1_200_000);
            if self.now - since > patience_us {
                self.elect();
            }
        }
        let Some(leader) = self.control.leader().filter(|leader| self.has_quorum(*leader)) else {
            return;
        };
        let now = self.clock(leader);
        let term = self.control.term();
        for change in self.control.consider(now) {
            let us = self.quorum_us(leader);
            self.after(us, Event::Commit(term, change));
        }
    }

    fn quorum_us(&mut self, leader: usize) -> u64 {
        let other = (leader + 1) % self.plan.nodes;
        self.network.delay_us(&mut self.chance, leader, other) + self.network.delay_us(&mut self.chance, other, leader)
    }

    fn elect(&mut self) {
        let able: Vec<usize> = (0..self.plan.nodes).filter(|node| self.has_quorum(*node)).collect();
        if able.is_empty() {
            return;
        }
        let node = *self.chance.pick(&able);
        let mono_us = self.clock(node).mono_us;
        // What the last leader proposed is in the new one's log, or is not.
        for change in self.control.proposed().to_vec() {
            if self.chance.percent(50) {
                let outcome = self.control.apply(&change);
                self.count_outcome(outcome, &change);
            } else {
                self.coverage.saw("proposal lost");
            }
        }
        self.control.elect(node, mono_us);
        self.leaderless_since = None;
        self.coverage.saw("election");
        self.oracle.elected(self.now);
        self.trace.note(self.now, "control", || {
            format!("n{node} leads, term {}", self.control.term())
        });
    }

    /// A proposal comes back.
    pub fn commit(&mut self, term: u64, change: &Change) {
        if term != self.control.term() {
            // Decided when the next leader was elected.
            return;
        }
        let agreed = self.control.leader().is_some_and(|leader| self.has_quorum(leader));
        if !agreed {
            self.coverage.saw("proposal lost");
        }
        let outcome = self.control.settle(term, change, agreed);
        if agreed {
            self.count_outcome(outcome, change);
        }
        if let (Outcome::Assigned(_), Some(leader)) = (outcome, self.control.leader()) {
            for node in 0..self.plan.nodes {
                let map = Rc::clone(self.control.map());
                self.send(leader, node, None, Body::Map(map));
            }
        }
    }

    fn count_outcome(&mut self, outcome: Outcome, change: &Change) {
        match outcome {
            Outcome::Void => self.coverage.saw("proposal no longer true when applied"),
            Outcome::Raised => {}
            Outcome::Assigned(shard) => {
                let entry = self.control.map().entries[usize::from(shard.0)];
                self.oracle.assigned(self.now, shard, &entry);
                self.trace
                    .note(self.now, "control", || format!("{change:?}: {entry:?}"));
            }
        }
    }
}

impl Copy {
    /// Everything an owner knows of a shard.
    #[must_use]
    pub fn of(
        machine: &tidings_router::owner::Owner,
        shards: tidings_protocol::ShardCount,
        shard: ShardId,
        epoch: Epoch,
        now: tidings_router::Now,
    ) -> Self {
        use tidings_router::owner::keeping::{MARK_PIECES, SHARD_PIECES};
        let versions = (0..SHARD_PIECES)
            .flat_map(|piece| machine.kept_versions(shard, piece))
            .collect();
        let of_shard = |key: &u128| shard_of_mark(shards, *key) == shard;
        let revisions = (0..MARK_PIECES).flat_map(|piece| machine.kept_revisions(piece));
        let answers = (0..MARK_PIECES).flat_map(|piece| machine.kept_answers(piece, now));
        let floor = machine.kept_floor(shard);
        Self {
            head: crate::control::CopyHead {
                shard,
                epoch,
                floor: floor.map_or_else(Default::default, |floor| floor.version),
                cause: floor.map_or(tidings_protocol::peer::FloorCause::Lost, |floor| floor.cause),
                doubt: None,
            },
            versions,
            revisions: revisions.filter(|(key, _)| of_shard(key)).collect(),
            answers: answers.filter(|answer| of_shard(&answer.key)).collect(),
            moved: true,
        }
    }

    fn records(&self) -> Vec<Record> {
        let versions = self
            .versions
            .iter()
            .map(|(object, version)| Record::Version(*object, *version));
        let revisions = self
            .revisions
            .iter()
            .map(|(key, revision)| Record::Revision(*key, *revision));
        let answers = self.answers.iter().copied().map(Record::Answer);
        versions.chain(revisions).chain(answers).collect()
    }
}
