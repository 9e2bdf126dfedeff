//! Which steps are possible, and what each does.

use super::{Action, Copies, Kind, Node, State};
use crate::rule::Rule;

impl Copies {
    pub(super) fn node_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for n in 0..self.nodes {
            let node = &state.nodes[n];
            if !node.up {
                actions.push(Action::Restart { n });
                if node.ack.is_some() {
                    actions.push(Action::Confirm { f: n });
                }
                continue;
            }
            if node.map != state.map {
                actions.push(Action::Learn { n });
            }
            let concerned = node.owns || usize::from(state.map.owner) == n;
            let news = node.map != state.map || !node.lease || node.ceiling != state.ceiling;
            if concerned && news && self.may_renew(state, n) {
                actions.push(Action::Renew { n });
            }
            if node.lease && node.owns {
                actions.push(Action::Expire { n });
            }
            if state.left.crashes > 0 {
                actions.push(Action::Crash { n });
            }
            if state.left.power_losses > 0 {
                actions.push(Action::LosePower { n });
            }
            if node.ack.is_some() {
                actions.push(Action::Confirm { f: n });
            }
            if self.torn {
                let (request, checked) = node.request;
                let early = request != 0 || !self.rules.has(Rule::CheckAfterRead);
                if node.lease && !checked && early {
                    actions.push(Action::Check { n });
                }
                if request != 0 && (checked || !self.rules.has(Rule::AcceptInLease)) {
                    actions.push(Action::Accept { n });
                }
            }
        }
    }

    pub(super) fn owner_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for n in (0..self.nodes).filter(|&n| state.nodes[n].up && state.nodes[n].owns) {
            let node = &state.nodes[n];
            for p in 0..usize::from(self.budget.publishes) {
                let again = state.history.called_in[p] != 0;
                let next = p == 0 || state.history.called_in[p - 1] != 0;
                let left = if again {
                    state.left.retries
                } else {
                    state.left.publishes
                };
                if left > 0 && next && node.request.0 == 0 && !node.drains {
                    actions.push(Action::Call { n, p });
                }
                if self.may_acknowledge(state, n, p) {
                    actions.push(Action::Acknowledge { n, p });
                }
            }
            if state.left.closes > 0 {
                actions.push(Action::Close { n });
            }
            if state.left.evictions > 0 {
                actions.push(Action::Evict { n });
            }
            for f in (0..self.nodes).filter(|&f| f != n && state.nodes[f].up) {
                self.follower_actions(state, n, f, actions);
            }
            if state.left.releases > 0 && !node.drains {
                actions.push(Action::Drain { n });
            }
            let open = state.proposals.as_slice().iter();
            let open = open
                .filter(|p| p.kind == Kind::Release && p.epoch == node.epoch)
                .count()
                > 0;
            let told = !open && node.map == state.map;
            if node.drains && (told || !self.rules.has(Rule::NoResumeAfterRelease)) {
                actions.push(Action::Resume { n });
            }
        }
    }

    fn follower_actions(&self, state: &State, n: usize, f: usize, actions: &mut Vec<Action>) {
        let (node, follower) = (&state.nodes[n], &state.nodes[f]);
        if follower.ack.is_none() {
            actions.push(Action::Follow { n, f });
            let wanted = node.waits[f] != 0 || state.left.joins > 0;
            if follower.follows.0 != node.epoch && wanted {
                actions.push(Action::Snapshot { n, f });
            }
        }
        let confirmed = node.level & 1 << f != 0 && node.confirmed_by[f] == follower.incarnation;
        let level = confirmed && follower.follows.0 == node.epoch;
        let complete = node.confirmed[f] >= node.acknowledged_up_to() || !self.rules.has(Rule::JoinsComplete);
        let complete = (level && complete) || !self.rules.has(Rule::JoinsWithSnapshot);
        let joins = node.map.in_sync[f] != follower.incarnation && node.joining[f] != follower.incarnation;
        // Who was proposed in another incarnation is waited for until the map tells.
        let joins = joins && (node.joining[f] == 0 || !self.rules.has(Rule::RejoinKeepsWaiting));
        if state.left.joins > 0 && joins && complete {
            actions.push(Action::ProposeJoin { n, f });
        }
        if state.left.removals > 0 && node.map.in_sync[f] != 0 {
            actions.push(Action::ProposeRemoval { n, f });
        }
        let in_sync = node.map.in_sync[f] == follower.incarnation || !self.rules.has(Rule::HandsToInSync);
        let drained = (node.drains && node.answers == 0) || !self.rules.has(Rule::DrainsBeforeRelease);
        if state.left.releases > 0 && in_sync && drained {
            actions.push(Action::ProposeRelease { n, f });
        }
    }

    pub(super) fn control_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for proposal in 0..state.proposals.len() {
            actions.push(Action::Apply { proposal });
            if state.left.losses > 0 {
                actions.push(Action::Lose { proposal });
            }
        }
        if state.left.raises > 0 {
            actions.push(Action::RaiseCeiling);
        }
        let all = state.proposals.as_slice();
        if !self.rules.has(Rule::LeaderCommitsFirst) && all.iter().any(|proposal| !proposal.forgotten) {
            actions.push(Action::LeaderForgets);
        }
        if state.left.replacements == 0 {
            return;
        }
        let any_copy = (0..self.nodes).any(|n| self.is_copy(state, n));
        for n in (0..self.nodes).filter(|&n| state.nodes[n].up) {
            let owner = usize::from(state.map.owner) == n && state.map.incarnation == state.nodes[n].incarnation;
            if self.is_copy(state, n) && !owner {
                actions.push(Action::ProposePromotion { n });
            }
            if (!any_copy || self.gossip_lies) && !owner {
                actions.push(Action::ProposeAssignment { n });
            }
        }
    }

    /// Takes a step; `false` if it is not possible after all.
    pub(super) fn step(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Call { n, p } => return self.call(state, n, p),
            Action::Check { n } => state.nodes[n].request.1 = true,
            Action::Accept { n } => return self.accept(state, n),
            Action::Acknowledge { n, p } => self.acknowledge(state, n, p),
            Action::Follow { n, f } => return self.follow(state, n, f),
            Action::Snapshot { n, f } => return self.snapshot(state, n, f),
            Action::Confirm { f } => return self.confirm(state, f),
            Action::Close { n } => return self.close(state, n),
            Action::Evict { n } => return self.evict(state, n),
            Action::ProposeJoin { n, f } => return self.propose_join(state, n, f),
            Action::ProposeRemoval { n, f } => return self.propose_removal(state, n, f),
            Action::Drain { n } => state.nodes[n].drains = true,
            Action::ProposeRelease { n, f } => {
                let node = state.nodes[n];
                state.left.releases -= 1;
                state.nodes[n].drains = true;
                return self.propose(state, Kind::Release, f, node.epoch, node.map.in_sync);
            }
            Action::Resume { n } => state.nodes[n].drains = false,
            Action::ProposePromotion { n } => return self.propose_owner(state, Kind::Promote, n),
            Action::ProposeAssignment { n } => return self.propose_owner(state, Kind::Assign, n),
            Action::Apply { proposal } => return self.apply(state, proposal),
            Action::Lose { proposal } => {
                state.left.losses -= 1;
                state.proposals.remove(proposal);
            }
            Action::LeaderForgets => self.leader_forgets(state),
            Action::RaiseCeiling => {
                state.left.raises -= 1;
                state.ceiling += 1;
            }
            Action::Learn { n } => self.learn(state, n),
            Action::Renew { n } => self.renew(state, n),
            Action::Expire { n } => state.nodes[n].lease = false,
            Action::Crash { n } => {
                state.left.crashes -= 1;
                self.stop(&mut state.nodes[n], false);
            }
            Action::LosePower { n } => {
                state.left.power_losses -= 1;
                self.stop(&mut state.nodes[n], true);
            }
            Action::Restart { n } => {
                let node = &mut state.nodes[n];
                node.up = true;
                node.incarnation += 1;
            }
        }
        true
    }

    fn renew(&self, state: &mut State, n: usize) {
        if self.rules.has(Rule::MapBeforeCeiling) {
            self.learn(state, n);
        }
        let node = &mut state.nodes[n];
        node.lease = true;
        node.ceiling = state.ceiling;
    }

    fn leader_forgets(&self, state: &mut State) {
        let mut known = std::mem::take(&mut state.proposals);
        while let Some(mut proposal) = known.pop() {
            proposal.forgotten = true;
            state.proposals.push(proposal);
        }
    }

    /// A process ends. Without a disk everything is gone; with one, what was not synced only if the machine went down.
    fn stop(&self, node: &mut Node, power: bool) {
        let kept = *node;
        *node = Node {
            incarnation: kept.incarnation,
            ack: kept.ack,
            ..Node::default()
        };
        if !self.disks {
            return;
        }
        node.table = kept.table;
        node.floor = kept.floor;
        node.epoch = kept.epoch;
        node.disk_of = kept.disk_of;
        if power {
            // What was not synced: the newest version.
            if let Some(newest) = node.table.iter_mut().max() {
                *newest = 0;
            }
            if self.rules.has(Rule::DiskProvenComplete) {
                node.disk_of = 0;
            }
        }
    }

    fn propose_join(&self, state: &mut State, n: usize, f: usize) -> bool {
        let (node, incarnation) = (state.nodes[n], state.nodes[f].incarnation);
        if !self.propose(state, Kind::Join, f, node.epoch, node.map.in_sync) {
            return false;
        }
        state.left.joins -= 1;
        if self.rules.has(Rule::WaitsBeforeJoin) {
            state.nodes[n].joining[f] = incarnation;
            if !self.rules.has(Rule::RejoinKeepsWaiting) {
                state.nodes[n].waits[f] = incarnation;
            }
        }
        true
    }

    fn propose_removal(&self, state: &mut State, n: usize, f: usize) -> bool {
        let node = state.nodes[n];
        if !self.propose(state, Kind::Remove, f, node.epoch, node.map.in_sync) {
            return false;
        }
        state.left.removals -= 1;
        if !self.rules.has(Rule::WaitsUntilRemoved) {
            state.nodes[n].waits[f] = 0;
        }
        true
    }
}
