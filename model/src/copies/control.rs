//! The control plane: proposals, their conditions, the map, and who renews.

use super::{
    Copies, EPOCHS, Kind, Map, NEEDLESS, Node, Proposal, SEEN_CONDITION, SEEN_EMPTY, SEEN_FROM_DISK, SEEN_JOIN,
    SEEN_PROMOTION, SEEN_RELEASE, SEEN_REMOVAL, State,
};
use crate::rule::Rule;

impl Copies {
    /// Whether a node is, as it runs now, one of the in-sync copies; with disks also if what it has on disk is complete.
    pub(super) fn is_copy(&self, state: &State, n: usize) -> bool {
        let node = &state.nodes[n];
        let named = state.map.in_sync[n];
        if !self.rules.has(Rule::IncarnationInMap) {
            return node.up && named != 0;
        }
        node.up && named != 0 && (named == node.incarnation || named == node.disk_of)
    }

    /// Whether the Raft leader renews a node's lease: not while it means to replace it (R6.5).
    pub(super) fn may_renew(&self, state: &State, n: usize) -> bool {
        let replacing = state.proposals.as_slice().iter().any(|proposal| {
            matches!(proposal.kind, Kind::Promote | Kind::Assign)
                && proposal.epoch == state.map.epoch
                && !proposal.forgotten
        });
        let owner = usize::from(state.map.owner) == n;
        !(owner && replacing && self.rules.has(Rule::NoRenewalWhileReplacing))
    }

    pub(super) fn propose(&self, state: &mut State, kind: Kind, n: usize, epoch: u8, in_sync: super::Set) -> bool {
        let proposal = Proposal {
            kind,
            node: n as u8,
            incarnation: state.nodes[n].incarnation,
            epoch,
            in_sync,
            forgotten: false,
        };
        if !state.proposals.has_room(1) || state.proposals.as_slice().contains(&proposal) {
            return false;
        }
        state.proposals.push(proposal);
        true
    }

    /// The Raft leader proposes an owner. Without a copy, the old lease must surely have run out first: here that is
    /// said by ending it, because so much time has passed.
    pub(super) fn propose_owner(&self, state: &mut State, kind: Kind, n: usize) -> bool {
        let map = state.map;
        if usize::from(map.epoch) + 1 >= EPOCHS.min(usize::from(self.epochs) + 1)
            || !self.propose(state, kind, n, map.epoch, map.in_sync)
        {
            return false;
        }
        state.left.replacements -= 1;
        if kind == Kind::Assign && self.rules.has(Rule::LeaseRunsOut) {
            state.nodes[usize::from(map.owner)].lease = false;
        }
        true
    }

    /// An entry is applied if its conditions hold.
    pub(super) fn apply(&self, state: &mut State, at: usize) -> bool {
        let proposal = state.proposals.remove(at);
        let n = usize::from(proposal.node);
        let wrong_epoch = proposal.epoch != state.map.epoch && self.rules.has(Rule::EntryNamesEpoch);
        let wrong_set = proposal.in_sync != state.map.in_sync && self.rules.has(Rule::EntryNamesInSync);
        if wrong_epoch || wrong_set {
            state.history.seen.0 |= SEEN_CONDITION;
            return true;
        }
        match proposal.kind {
            Kind::Join => {
                state.map.in_sync[n] = proposal.incarnation;
                state.history.seen.0 |= SEEN_JOIN;
            }
            Kind::Remove => {
                state.map.in_sync[n] = 0;
                state.history.seen.0 |= SEEN_REMOVAL;
            }
            Kind::Promote | Kind::Release | Kind::Assign => {
                if usize::from(state.map.epoch) + 1 >= EPOCHS {
                    return false;
                }
                self.begin_epoch(state, &proposal);
            }
            Kind::Nothing => {}
        }
        true
    }

    fn begin_epoch(&self, state: &mut State, proposal: &Proposal) {
        let n = usize::from(proposal.node);
        let copied = state.nodes[n].table.iter().copied().max().unwrap_or(0);
        let first = if self.rules.has(Rule::EpochAboveCeiling) {
            state.ceiling + 1
        } else {
            copied + 1
        };
        let empty = proposal.kind == Kind::Assign;
        if empty {
            let lives = (0..self.nodes).any(|n| {
                let node = &state.nodes[n];
                node.up && state.map.in_sync[n] == node.incarnation
            });
            if lives && !self.gossip_lies {
                state.history.faults |= NEEDLESS;
            }
        }
        state.history.seen.0 |= match proposal.kind {
            Kind::Assign => SEEN_EMPTY,
            Kind::Release => SEEN_RELEASE,
            Kind::Promote | Kind::Join | Kind::Remove | Kind::Nothing => SEEN_PROMOTION,
        };
        let map = &mut state.map;
        map.epoch += 1;
        map.owner = proposal.node;
        map.incarnation = proposal.incarnation;
        map.first = first;
        map.empty = empty;
        if !self.rules.has(Rule::FloorInMap) {
            map.floor = 0;
        }
        if empty {
            map.floor = map.floor.max(first);
            map.in_sync = super::Set::default();
            state.history.floor_since = map.epoch;
        } else if map.in_sync[n] != 0 && map.in_sync[n] != proposal.incarnation {
            state.history.seen.0 |= SEEN_FROM_DISK;
        }
        map.in_sync[n] = proposal.incarnation;
        state.ceiling += self.room;
        state.history.firsts[usize::from(map.epoch)] = first;
    }

    /// A node applies the map.
    pub(super) fn learn(&self, state: &mut State, n: usize) {
        let map = state.map;
        let node = &mut state.nodes[n];
        node.map = map;
        let named = usize::from(map.owner) == n
            && (map.incarnation == node.incarnation || !self.rules.has(Rule::IncarnationInMap));
        if !named {
            if node.owns && map.epoch >= node.epoch {
                node.demote();
            }
        } else if node.owns && node.epoch == map.epoch {
            self.update_waits(node, &map, n);
        } else if map.epoch >= node.epoch {
            self.begin(node, &map, n);
        }
        node.epoch = node.epoch.max(map.epoch);
    }

    fn update_waits(&self, node: &mut Node, map: &Map, n: usize) {
        for f in 0..self.nodes {
            if f == n {
                continue;
            }
            node.waits[f] = map.in_sync[f];
            if node.joining[f] == map.in_sync[f] {
                node.joining[f] = 0;
            }
        }
    }

    /// A node begins as owner.
    fn begin(&self, node: &mut Node, map: &Map, n: usize) {
        node.owns = true;
        node.epoch = map.epoch;
        if map.empty && self.rules.has(Rule::StartsEmpty) {
            node.table = Default::default();
            node.floor = 0;
        }
        node.floor = node.floor.max(map.floor);
        node.last = map.first - 1;
        node.waits = map.in_sync;
        node.waits[n] = 0;
        node.joining = Default::default();
        node.confirmed = Default::default();
        node.confirmed_by = Default::default();
        node.level = 0;
        if !self.rules.has(Rule::PromotedLevels) {
            // What it inherited it takes to be everywhere.
            node.level = 0b111;
            node.confirmed.fill(map.first - 1);
            node.confirmed_by = node.waits;
        }
        node.answers = 0;
        node.duplicates = 0;
        node.drains = false;
        node.follows = (map.epoch, map.first - 1);
        node.disk_of = if self.disks { node.incarnation } else { 0 };
    }
}

impl Node {
    /// The highest version that it may have answered for.
    pub(super) fn acknowledged_up_to(&self) -> super::Version {
        // Who calls again may have been answered before.
        let unanswered = self.answers & !self.duplicates;
        let answered = (0..super::PUBLISHES).filter(|p| unanswered & 1 << p == 0);
        answered
            .map(|p| self.table[p])
            .max()
            .unwrap_or(0)
            .max(self.floor.saturating_sub(1))
    }

    /// It owns no more. Who waits for an answer gets none.
    pub(super) fn demote(&mut self) {
        self.owns = false;
        self.called_after = Default::default();
        self.answers = 0;
        self.duplicates = 0;
        self.waits = Default::default();
        self.joining = Default::default();
        self.confirmed_by = Default::default();
        self.level = 0;
        self.confirmed = Default::default();
        self.last = 0;
        self.drains = false;
    }
}
