//! What a node does as owner and as follower.

use super::{
    Copies, EPOCHS_MEET, OUT_OF_ORDER, PUBLISHES, SEEN_ACK, SEEN_ACK_BY_SUCCESSOR, SEEN_DUPLICATE, SEEN_EVICTION,
    State, TWO_OWNERS,
};
use crate::front::{NONE, Version};
use crate::rule::Rule;

impl Copies {
    /// A publish reaches a node. Torn apart, it is only read; else it is accepted if the lease is valid.
    pub(super) fn call(&self, state: &mut State, n: usize, p: usize) -> bool {
        let first = state.history.called_in[p] == 0;
        if first {
            state.left.publishes -= 1;
            state.history.called_in[p] = state.map.epoch;
        } else {
            state.left.retries -= 1;
        }
        let acked = state.history.acked.iter().copied().max().unwrap_or(0);
        let node = &mut state.nodes[n];
        if node.answers & 1 << p == 0 {
            node.called_after[p] = (state.history.acked_in, acked);
        }
        node.request.0 = p as u8 + 1;
        if self.torn {
            if self.rules.has(Rule::CheckAfterRead) {
                node.request.1 = false;
            }
            return true;
        }
        let may = node.lease || !self.rules.has(Rule::AcceptInLease);
        may && self.accept(state, n)
    }

    pub(super) fn accept(&self, state: &mut State, n: usize) -> bool {
        let node = &mut state.nodes[n];
        let (request, _) = std::mem::take(&mut node.request);
        let p = usize::from(request) - 1;
        if !node.owns || node.drains {
            return false;
        }
        node.answers |= 1 << p;
        if node.table[p] != 0 {
            node.duplicates |= 1 << p;
            return true;
        }
        let above = 2 * u8::from(!self.rules.has(Rule::NothingAboveCeiling));
        let version = node.last + 1;
        if version > node.ceiling + above {
            return false;
        }
        node.last = version;
        node.table[p] = version;
        self.used(state, n, version);
        true
    }

    /// A version was assigned or closed: it must lie in its epoch.
    fn used(&self, state: &mut State, n: usize, version: Version) {
        let epoch = usize::from(state.nodes[n].epoch);
        let firsts = &state.history.firsts;
        let below = firsts[1..=epoch].iter().max().is_some_and(|&first| version < first);
        let above = firsts[epoch + 1..].iter().any(|&first| first > 0 && version >= first);
        if below || above {
            state.history.faults |= EPOCHS_MEET;
        }
    }

    /// The owner answers a publisher: what it answers for is on every copy that it waits for.
    pub(super) fn may_acknowledge(&self, state: &State, n: usize, p: usize) -> bool {
        let node = &state.nodes[n];
        if node.answers & 1 << p == 0 || node.table[p] == 0 || !node.owns {
            return false;
        }
        if node.duplicates & 1 << p != 0 && !self.rules.has(Rule::DuplicateWaits) {
            return true;
        }
        let named = self.rules.has(Rule::IncarnationInAck);
        (0..self.nodes).all(|f| {
            let level = node.level & 1 << f != 0 && node.confirmed[f] >= node.table[p];
            let fine = |waited: u8| waited == 0 || (level && (!named || node.confirmed_by[f] == waited));
            fine(node.waits[f]) && fine(node.joining[f])
        })
    }

    pub(super) fn acknowledge(&self, state: &mut State, n: usize, p: usize) {
        let node = &mut state.nodes[n];
        let duplicate = node.duplicates & 1 << p != 0;
        node.answers &= !(1 << p);
        node.duplicates &= !(1 << p);
        let (version, epoch) = (node.table[p], node.epoch);
        let (acked_in, above) = std::mem::take(&mut node.called_after[p]);
        let history = &mut state.history;
        // To say again what was said before is no second acknowledgement.
        let again = duplicate && history.acked[p] >= version;
        if acked_in > epoch && !again {
            history.faults |= TWO_OWNERS;
        }
        if version <= above && !duplicate {
            history.faults |= OUT_OF_ORDER;
        }
        history.acked[p] = history.acked[p].max(version);
        history.acked_in = history.acked_in.max(epoch);
        history.seen.0 |= SEEN_ACK;
        if epoch > 1 {
            history.seen.0 |= SEEN_ACK_BY_SUCCESSOR;
        }
        if duplicate {
            history.seen.0 |= SEEN_DUPLICATE;
        }
    }

    /// Whether a follower takes what an owner sends: not from an older epoch.
    fn takes(&self, state: &State, n: usize, f: usize) -> bool {
        if self.learns_first && state.nodes[f].map.epoch == 0 {
            return false;
        }
        state.nodes[f].epoch <= state.nodes[n].epoch || !self.rules.has(Rule::FollowerRefuses)
    }

    /// The next entry of the owner's log reaches a follower.
    pub(super) fn follow(&self, state: &mut State, n: usize, f: usize) -> bool {
        if !self.takes(state, n, f) {
            return false;
        }
        let (owner, follower) = (state.nodes[n], &mut state.nodes[f]);
        if follower.follows.0 != owner.epoch && self.rules.has(Rule::FollowerRefuses) {
            if self.rules.has(Rule::PromotedLevels) || owner.waits[f] == 0 {
                return false;
            }
            follower.follows = (owner.epoch, owner.map.first - 1);
        }
        let next = (0..PUBLISHES)
            .filter(|&p| owner.table[p] > follower.follows.1)
            .min_by_key(|&p| owner.table[p]);
        if let Some(p) = next {
            follower.table[p] = owner.table[p];
            follower.follows.1 = owner.table[p];
        } else if owner.floor > follower.follows.1 + 1 {
            // A floor is an entry of its own.
            follower.follows.1 = owner.floor - 1;
        } else {
            return false;
        }
        self.hear(state, n, f);
        true
    }

    /// Everything that the owner has reaches a follower.
    pub(super) fn snapshot(&self, state: &mut State, n: usize, f: usize) -> bool {
        if !self.takes(state, n, f) {
            return false;
        }
        let (owner, follower) = (state.nodes[n], &mut state.nodes[f]);
        if self.rules.has(Rule::SnapshotReplaces) {
            follower.table = owner.table;
            follower.floor = 0;
        } else {
            for (mine, its) in follower.table.iter_mut().zip(owner.table) {
                *mine = its.max(*mine);
            }
        }
        follower.follows = (owner.epoch, owner.last);
        follower.disk_of = if self.disks { follower.incarnation } else { 0 };
        self.hear(state, n, f);
        true
    }

    /// What comes with every word of the owner: its epoch and floor; and what goes back.
    fn hear(&self, state: &mut State, n: usize, f: usize) {
        let owner = state.nodes[n];
        let follower = &mut state.nodes[f];
        if owner.epoch > follower.epoch {
            follower.demote();
            follower.epoch = owner.epoch;
        }
        if self.rules.has(Rule::FloorInCopy) {
            follower.floor = follower.floor.max(owner.floor);
        }
        follower.ack = Some((n as u8, follower.incarnation, owner.epoch, follower.follows.1));
    }

    /// A follower's word arrives.
    pub(super) fn confirm(&self, state: &mut State, f: usize) -> bool {
        let Some((n, incarnation, epoch, up_to)) = state.nodes[f].ack.take() else {
            return false;
        };
        let node = &mut state.nodes[usize::from(n)];
        if !node.up || !node.owns || node.epoch != epoch {
            return true;
        }
        if self.rules.has(Rule::IncarnationInAck) {
            if incarnation < node.confirmed_by[f] {
                return true;
            }
            if incarnation > node.confirmed_by[f] {
                node.confirmed[f] = 0;
            }
        }
        node.confirmed_by[f] = incarnation;
        node.confirmed[f] = node.confirmed[f].max(up_to);
        node.level |= 1 << f;
        true
    }

    pub(super) fn close(&self, state: &mut State, n: usize) -> bool {
        let above = 2 * u8::from(!self.rules.has(Rule::NothingAboveCeiling));
        let node = &mut state.nodes[n];
        let version = node.ceiling + above;
        if version <= node.last {
            return false;
        }
        state.left.closes -= 1;
        node.last = version;
        self.used(state, n, version);
        true
    }

    /// The oldest version goes, and the floor rises above it.
    pub(super) fn evict(&self, state: &mut State, n: usize) -> bool {
        let node = &mut state.nodes[n];
        let answered = |p: &usize| node.table[*p] > 0 && node.answers & 1 << p == 0;
        let oldest = (0..PUBLISHES).filter(answered).min_by_key(|&p| node.table[p]);
        let Some(p) = oldest else { return false };
        state.left.evictions -= 1;
        if self.rules.has(Rule::FloorBeforeEviction) {
            node.floor = node.floor.max(node.table[p] + 1);
        }
        node.table[p] = 0;
        state.history.floor_since = NONE;
        state.history.seen.0 |= SEEN_EVICTION;
        true
    }
}
