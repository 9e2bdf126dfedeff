//! How nodes that belong to no cluster become one, or find the one that is there: pure.
//!
//! The lowest of enough nodes that want to vote proposes a cluster and asks each of them for a promise. A promise is kept
//! on disk before it is given; who gave one promises nothing else and joins nobody else. When all have promised, the
//! proposer binds itself and begins the log; a node binds itself when it hears the first word of that log. **So no node
//! ever takes part in two clusters**, whatever is lost, late or restarted.
//!
//! Only the proposer can bring its proposal to life, so its word that it gave up ends it. If the proposer does not answer any
//! more, its proposal is dead once so many of its voters have renounced it, each for good, that it can never have a majority.
//!
//! It does not know disks, sockets or the log. Whatever is in [`Kept`] after a step is to be on disk before any output of
//! that step is carried out.

#[cfg(test)]
mod tests;

use super::words::{Answer, Fate, Founding, Proposal, Request};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::NodeId;
use tidings_router::MonoUs;

/// So long promises are collected before a proposal is given up.
const COLLECT_US: u64 = 5_000_000;
/// A promise is asked for again after so long.
const ASK_US: u64 = 500_000;
/// After so long without a word of the log, the proposer is asked what became of its proposal.
const DOUBT_US: u64 = 1_000_000;
/// After so long without an answer, its voters are asked to renounce it.
const RENOUNCE_US: u64 = 30_000_000;
/// After a proposal that failed the next one waits between once and twice so long.
const PAUSE_US: u64 = 1_000_000;
/// A member is asked to let us join so often.
const JOIN_US: u64 = 1_000_000;
/// So many renounced proposals are remembered.
const RENOUNCED: usize = 256;

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The cluster that this node is part of, for good.
    bound: Option<Founding>,
    /// The proposal of this node that became that cluster, with whom it begins its log.
    begins: Option<Proposal>,
    /// The log of that cluster was begun here.
    log: bool,
    promise: Option<Proposal>,
    /// Clusters of which this node will take no part.
    renounced: Vec<u64>,
}

impl Kept {
    /// The cluster that this node is part of.
    pub(super) fn bound(&self) -> Option<u64> {
        self.bound.map(|founding| founding.cluster)
    }

    /// The same, with all there is to know of it.
    pub(super) fn founding(&self) -> Option<Founding> {
        self.bound
    }

    /// With whom this node begins the log, if it has to.
    pub(super) fn begins(&self) -> Option<&Proposal> {
        self.begins.as_ref()
    }

    /// Whether the log was begun here: if it is missing, it was lost.
    pub(super) fn has_log(&self) -> bool {
        self.log
    }

    /// A proposal of this node itself that it had not bound itself to is given up: nobody asked for its promises since.
    pub(super) fn after_a_restart(&self, me: NodeId) -> Self {
        let promise = self.promise.clone().filter(|promise| promise.proposer != me);
        Self {
            promise,
            ..self.clone()
        }
    }
}

/// Another node as gossip shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Where it is reached.
    pub(super) address: String,
    /// It wants to form a cluster and to vote in it.
    pub(super) willing: bool,
    /// The cluster it is part of.
    pub(super) formed: Option<u64>,
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Gossip shows these nodes, without this one.
    Seen(BTreeMap<NodeId, Sighting>),
    /// Time went by.
    Tick {
        /// For a proposal, if one is made now.
        fresh: Founding,
        /// Drawn evenly.
        chance: u32,
    },
    /// An answer to an [`Output::Ask`]; `None`: there was none.
    Answered {
        /// Who was asked.
        from: NodeId,
        /// About which cluster.
        cluster: u64,
        /// The answer.
        answer: Option<Answer>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Ask a node, and hand its answer in.
    Ask {
        /// Whom.
        to: NodeId,
        /// There.
        address: String,
        /// About which cluster.
        cluster: u64,
        /// This.
        request: Request,
    },
    /// Ask a member of the cluster that is there to let us join.
    Join {
        /// Whom.
        to: NodeId,
        /// There.
        address: String,
    },
    /// A proposal ended without a cluster.
    Failed {
        /// Who did not promise, and why.
        why: String,
    },
}

/// Whether a word of a log may be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    /// It is of this node's cluster.
    Ours,
    /// It is none of this node's business.
    Foreign,
}

/// Who this node is, and what it wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Its name.
    pub(super) me: NodeId,
    /// Where it is reached.
    pub(super) address: String,
    /// So many form a cluster; 1: this node only joins.
    pub(super) expect: usize,
    /// It may vote.
    pub(super) voter: bool,
    /// The only cluster that it may be part of.
    pub(super) belongs: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Forming {
    wish: Wish,
    kept: Kept,
    seen: BTreeMap<NodeId, Sighting>,
    /// Since when this life knows of the promise.
    since_us: MonoUs,
    /// Who promised what this node proposed.
    promised: BTreeSet<NodeId>,
    /// Who renounced what this node promised.
    renounced: BTreeSet<NodeId>,
    ask_us: MonoUs,
    propose_us: MonoUs,
    join_us: MonoUs,
    /// Which of several members is asked next.
    turn: usize,
}

impl Forming {
    /// As it stands after a start.
    pub(super) fn new(now_us: MonoUs, wish: Wish, kept: Kept) -> Self {
        Self {
            wish,
            kept,
            seen: BTreeMap::new(),
            since_us: now_us,
            promised: BTreeSet::new(),
            renounced: BTreeSet::new(),
            ask_us: now_us,
            propose_us: now_us,
            join_us: now_us,
            turn: 0,
        }
    }

    /// What has to be on disk.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The log of the cluster was begun here.
    pub(super) fn has_log(&mut self) {
        self.kept.log = true;
    }

    /// Whether this node would form a cluster with others.
    pub(super) fn is_willing(&self) -> bool {
        self.wish.voter && self.wish.expect > 1 && self.wish.belongs.is_none()
    }

    /// Takes one step.
    pub(super) fn handle(&mut self, now_us: MonoUs, input: Input, out: &mut Vec<Output>) {
        if self.kept.bound.is_some() {
            return;
        }
        match input {
            Input::Seen(seen) => self.seen = seen,
            Input::Tick { fresh, chance } => self.tick(now_us, fresh, chance, out),
            Input::Answered { from, cluster, answer } => {
                if self
                    .kept
                    .promise
                    .as_ref()
                    .is_some_and(|held| held.founding.cluster == cluster)
                {
                    self.answered(now_us, from, answer, out);
                }
            }
        }
    }

    fn tick(&mut self, now_us: MonoUs, fresh: Founding, chance: u32, out: &mut Vec<Output>) {
        match &self.kept.promise {
            Some(held) if held.proposer == self.wish.me => self.collect(now_us, chance, out),
            Some(held) => {
                let cluster = held.founding.cluster;
                self.join(now_us, Some(cluster), out);
                // Who is seen as part of it may be so alone.
                self.doubt(now_us, out);
            }
            None => {
                if !self.join(now_us, self.wish.belongs, out) {
                    self.consider(now_us, fresh, out);
                }
            }
        }
    }

    /// Who is seen as part of which cluster. One that this node renounced, and holds no promise of, can never be.
    fn members(&self) -> impl Iterator<Item = (NodeId, &Sighting, u64)> {
        let held = self.kept.promise.as_ref().map(|held| held.founding.cluster);
        let dead = move |cluster: u64| held != Some(cluster) && self.kept.renounced.contains(&cluster);
        let formed = self
            .seen
            .iter()
            .filter_map(|(node, seen)| Some((*node, seen, seen.formed?)));
        formed.filter(move |(_, _, cluster)| !dead(*cluster))
    }

    /// Asks a member to let us join, if one is seen. Whether one is.
    fn join(&mut self, now_us: MonoUs, only: Option<u64>, out: &mut Vec<Output>) -> bool {
        let members: Vec<_> = self
            .members()
            .filter(|(_, _, formed)| only.is_none_or(|only| only == *formed))
            .collect();
        if members.is_empty() {
            return false;
        }
        if now_us >= self.join_us {
            let (to, sighting, _) = members[self.turn % members.len()];
            let address = sighting.address.clone();
            out.push(Output::Join { to, address });
            self.join_us = now_us + JOIN_US;
            self.turn += 1;
        }
        true
    }

    /// Proposes, if it is for this node to propose.
    fn consider(&mut self, now_us: MonoUs, fresh: Founding, out: &mut Vec<Output>) {
        let formed = self.members().next().is_some();
        if !self.is_willing() || formed || now_us < self.propose_us {
            return;
        }
        let me = self.wish.me;
        let willing = self.seen.iter().filter(|(_, seen)| seen.willing);
        let mut voters: BTreeMap<_, _> = willing.map(|(node, seen)| (*node, seen.address.clone())).collect();
        voters.insert(me, self.wish.address.clone());
        if voters.len() < self.wish.expect || voters.first_key_value().is_some_and(|(first, _)| *first != me) {
            return;
        }
        let voters = voters.into_iter().take(self.wish.expect).collect();
        self.kept.promise = Some(Proposal {
            founding: fresh,
            proposer: me,
            voters,
        });
        self.promised = BTreeSet::from([me]);
        (self.since_us, self.ask_us) = (now_us, now_us);
        self.collect(now_us, 0, out);
    }

    /// Asks for the promises that are missing; gives up if that takes too long.
    fn collect(&mut self, now_us: MonoUs, chance: u32, out: &mut Vec<Output>) {
        let Some(own) = self.kept.promise.clone() else { return };
        if self.members().next().is_some() {
            return self.give_up(now_us, chance, "a cluster is there".to_owned(), out);
        }
        if now_us >= self.since_us + COLLECT_US {
            let missing = own.voters.keys().filter(|voter| !self.promised.contains(*voter));
            let names: Vec<_> = missing.map(ToString::to_string).collect();
            return self.give_up(now_us, chance, format!("no answer from {}", names.join(", ")), out);
        }
        if now_us < self.ask_us {
            return;
        }
        self.ask_us = now_us + ASK_US;
        for (to, address) in own.voters.iter().filter(|(voter, _)| !self.promised.contains(*voter)) {
            out.push(Output::Ask {
                to: *to,
                address: address.clone(),
                cluster: own.founding.cluster,
                request: Request::Promise(own.clone()),
            });
        }
    }

    /// From here on nobody can bring the proposal to life.
    fn give_up(&mut self, now_us: MonoUs, chance: u32, why: String, out: &mut Vec<Output>) {
        self.kept.promise = None;
        let share = u64::from(chance) * PAUSE_US / u64::from(u32::MAX);
        self.propose_us = now_us + PAUSE_US + share;
        out.push(Output::Failed { why });
    }

    /// Nothing was heard of the cluster that was promised: asks what became of it.
    fn doubt(&mut self, now_us: MonoUs, out: &mut Vec<Output>) {
        let Some(held) = self.kept.promise.clone() else { return };
        if now_us < self.since_us + DOUBT_US || now_us < self.ask_us {
            return;
        }
        self.ask_us = now_us + 2 * ASK_US;
        let cluster = held.founding.cluster;
        let mut ask = |to: NodeId, address: &String, request| {
            let address = address.clone();
            out.push(Output::Ask {
                to,
                address,
                cluster,
                request,
            });
        };
        for (voter, address) in held.voters.iter().filter(|(voter, _)| **voter == held.proposer) {
            ask(*voter, address, Request::Fate { cluster });
        }
        if now_us < self.since_us + RENOUNCE_US {
            return;
        }
        self.renounce(cluster);
        let others = |voter: &NodeId| *voter != self.wish.me && !self.renounced.contains(voter);
        for (voter, address) in held.voters.iter().filter(|(voter, _)| others(voter)) {
            ask(*voter, address, Request::Renounce { cluster });
        }
        self.renounced.insert(self.wish.me);
        self.count_renounced();
    }

    fn answered(&mut self, now_us: MonoUs, from: NodeId, answer: Option<Answer>, out: &mut Vec<Output>) {
        let Some(held) = &self.kept.promise else { return };
        let own = held.proposer == self.wish.me;
        match answer {
            Some(Answer::Promised) if own => {
                self.promised.insert(from);
                if held.voters.keys().all(|voter| self.promised.contains(voter)) {
                    self.kept.bound = Some(held.founding);
                    self.kept.begins = self.kept.promise.take();
                }
            }
            Some(Answer::Refused(why)) if own => {
                let share = (from.0 ^ held.founding.cluster) as u32;
                self.give_up(now_us, share, format!("{from} refused: {why}"), out);
            }
            Some(Answer::Fate(Fate::Dropped)) if !own && from == held.proposer => self.drop_promise(),
            Some(Answer::Renounced) if !own => {
                self.renounced.insert(from);
                self.count_renounced();
            }
            _ => {}
        }
    }

    fn drop_promise(&mut self) {
        self.kept.promise = None;
        self.renounced.clear();
    }

    /// So many that the others are no majority: then it is dead.
    fn count_renounced(&mut self) {
        let Some(held) = &self.kept.promise else { return };
        let voters = held.voters.len();
        let left = held
            .voters
            .keys()
            .filter(|voter| !self.renounced.contains(voter))
            .count();
        if left < voters / 2 + 1 {
            self.drop_promise();
        }
    }

    fn renounce(&mut self, cluster: u64) {
        if !self.kept.renounced.contains(&cluster) {
            self.kept.renounced.push(cluster);
            let too_many = self.kept.renounced.len().saturating_sub(RENOUNCED);
            self.kept.renounced.drain(..too_many);
        }
    }

    /// Answers a proposer.
    pub(super) fn promise(&mut self, now_us: MonoUs, proposal: &Proposal) -> Answer {
        let cluster = proposal.founding.cluster;
        if let Some(bound) = self.kept.bound() {
            return if bound == cluster {
                Answer::Promised
            } else {
                Answer::Refused(format!("it is part of cluster {bound:016x}"))
            };
        }
        let me = self.wish.me;
        let refused = match &self.kept.promise {
            Some(held) if held == proposal && !self.kept.renounced.contains(&cluster) => return Answer::Promised,
            Some(held) => Some(format!("it has promised to form {:016x}", held.founding.cluster)),
            None if !self.is_willing() => Some("it only joins a cluster that is there".to_owned()),
            None if self.kept.renounced.contains(&cluster) => Some("it renounced that cluster".to_owned()),
            None if proposal.voters.len() != self.wish.expect => {
                Some(format!("its cluster.expect is {}", self.wish.expect))
            }
            None if proposal.proposer == me || !proposal.voters.contains_key(&me) => Some("it is not asked".to_owned()),
            None => None,
        };
        if let Some(why) = refused {
            return Answer::Refused(why);
        }
        self.kept.promise = Some(proposal.clone());
        self.renounced.clear();
        (self.since_us, self.ask_us) = (now_us, now_us);
        Answer::Promised
    }

    /// Answers who promised what this node proposed.
    pub(super) fn fate(&self, cluster: u64) -> Fate {
        let open = self
            .kept
            .promise
            .as_ref()
            .is_some_and(|held| held.founding.cluster == cluster);
        if self.kept.bound() == Some(cluster) {
            Fate::Formed
        } else if open {
            Fate::Open
        } else {
            Fate::Dropped
        }
    }

    /// Answers who wants to be sure that a cluster will never be.
    pub(super) fn asked_to_renounce(&mut self, cluster: u64) -> Answer {
        if self.kept.bound() == Some(cluster) {
            return Answer::Bound { cluster };
        }
        let held = self
            .kept
            .promise
            .as_ref()
            .filter(|held| held.founding.cluster == cluster);
        if held.is_some_and(|held| held.proposer == self.wish.me) {
            // Never brought to life from here on.
            self.drop_promise();
        }
        self.renounce(cluster);
        Answer::Renounced
    }

    /// A word of a log came. The first one of the cluster that was promised binds.
    pub(super) fn heed(&mut self, cluster: u64) -> Heed {
        if let Some(bound) = self.kept.bound() {
            return if bound == cluster { Heed::Ours } else { Heed::Foreign };
        }
        let held = self
            .kept
            .promise
            .as_ref()
            .filter(|held| held.founding.cluster == cluster);
        let Some(held) = held.filter(|held| held.proposer != self.wish.me) else {
            return Heed::Foreign;
        };
        if self.kept.renounced.contains(&cluster) {
            return Heed::Foreign;
        }
        self.bind(held.founding);
        Heed::Ours
    }

    /// The leader of a cluster let this node join. `false` if it may not.
    pub(super) fn joined(&mut self, founding: Founding) -> bool {
        let cluster = founding.cluster;
        if let Some(bound) = self.kept.bound() {
            return bound == cluster;
        }
        let free = self
            .kept
            .promise
            .as_ref()
            .is_none_or(|held| held.founding.cluster == cluster);
        if !free || self.wish.belongs.is_some_and(|only| only != cluster) {
            return false;
        }
        self.bind(founding);
        true
    }

    fn bind(&mut self, founding: Founding) {
        self.kept.bound = Some(founding);
        self.kept.promise = None;
    }

    /// The only cluster that may be joined now, if only one may.
    pub(super) fn only(&self) -> Option<u64> {
        let promised = self.kept.promise.as_ref().map(|held| held.founding.cluster);
        self.wish.belongs.or(promised)
    }

    /// What it waits for, for people.
    pub(super) fn waits_for(&self) -> String {
        let names: Vec<String> = self.seen.keys().map(ToString::to_string).collect();
        let sees = if names.is_empty() {
            "sees nobody".to_owned()
        } else {
            format!("sees {}", names.join(", "))
        };
        let willing = self.seen.values().filter(|seen| seen.willing).count() + 1;
        if let Some(held) = &self.kept.promise {
            let cluster = held.founding.cluster;
            return if held.proposer == self.wish.me {
                let missing = held.voters.len() - self.promised.len().min(held.voters.len());
                format!("proposed a cluster and waits for {missing} promises; {sees}")
            } else {
                format!(
                    "promised node {} to form cluster {cluster:016x} and waits for it; {sees}",
                    held.proposer
                )
            };
        }
        if let Some(only) = self.wish.belongs {
            return format!("waits for a member of cluster {only:016x}, whose data is here; {sees}");
        }
        if self.members().next().is_some() {
            return format!("asks to join the cluster that is there; {sees}");
        }
        if !self.is_willing() {
            return format!("waits for a cluster to join; {sees}");
        }
        match self.wish.expect.saturating_sub(willing) {
            0 => format!("waits for node {} to propose a cluster; {sees}", self.lowest()),
            1 => format!("waits for 1 more node; {sees}"),
            more => format!("waits for {more} more nodes; {sees}"),
        }
    }

    fn lowest(&self) -> NodeId {
        let others = self.seen.iter().filter(|(_, seen)| seen.willing);
        others.map(|(node, _)| *node).fold(self.wish.me, NodeId::min)
    }
}
