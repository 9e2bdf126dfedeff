//! Which steps are possible, and what each does.

use super::{Action, Scripted, State};
use crate::front::link::ToEdge;
use crate::front::{Fault, Listening, NONE, OwnedShard, Seen, Version, bits};
use crate::rule::Rule;

impl Scripted {
    pub(super) fn owner_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let shape = &self.shape;
        for n in 0..shape.nodes {
            let node = &state.nodes[n];
            for s in 0..shape.shards {
                if node.owned[s].epoch == 0 {
                    continue;
                }
                for o in bits(shape.objects_of(s)) {
                    if self.is_owner(state, n, s) && state.left.publishes > 0 {
                        actions.push(Action::Publish { n, o });
                    }
                    if state.left.unacked > 0 {
                        actions.push(Action::PublishUnacked { n, o });
                    }
                }
                if state.left.evictions > 0 && self.is_owner(state, n, s) {
                    actions.push(Action::Evict { n, s });
                }
            }
            if node.unsent.is_some() {
                actions.push(Action::Enqueue { n });
            }
            if state.left.crashes > 0 && node.owned.iter().any(|owned| owned.epoch > 0) {
                actions.push(Action::Crash { n });
            }
            let behind = (0..shape.shards).any(|s| node.owned[s].epoch > 0 && !self.is_owner(state, n, s));
            if behind || (node.ceiling < state.ceiling && node.owned.iter().any(|owned| owned.epoch > 0)) {
                actions.push(Action::Renew { n });
            }
        }
        for s in 0..shape.shards {
            let owner = usize::from(state.map[s].owner);
            for to in 0..shape.nodes {
                let gone = state.nodes[owner].owned[s].epoch == 0;
                if to == owner && !gone {
                    continue;
                }
                if state.left.moves > 0 {
                    actions.push(Action::Move { s, to, with_copy: true });
                }
                if state.left.losses > 0 {
                    actions.push(Action::Move {
                        s,
                        to,
                        with_copy: false,
                    });
                }
            }
        }
    }

    pub(super) fn link_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let shape = &self.shape;
        for n in 0..shape.nodes {
            for e in 0..shape.edges {
                let link = &state.front.links[n][e];
                if !link.up {
                    actions.push(Action::LinkUp { n, e });
                    if let Some(old) = &link.old {
                        if !old.is_empty() {
                            actions.push(Action::ReadOldGeneration { n, e });
                        }
                        actions.push(Action::CleanUpOldGeneration { n, e });
                    }
                    continue;
                }
                if let Some(old) = &link.old {
                    if !old.is_empty() {
                        actions.push(Action::ReadOldGeneration { n, e });
                    }
                    actions.push(Action::CleanUpOldGeneration { n, e });
                }
                if state.left.closes > 0 && state.nodes[n].owned.iter().any(|owned| owned.epoch > 0) {
                    actions.push(Action::Close { n, e, ceiling: false });
                    actions.push(Action::Close { n, e, ceiling: true });
                    if !shape.rules.has(Rule::ClosedRises) && state.nodes[n].closed > 0 {
                        actions.push(Action::CloseAgain { n, e });
                    }
                }
                if !link.upward.is_empty() && link.half.is_none() && link.down.has_room(1) {
                    actions.push(Action::OwnerReads { n, e });
                }
                if link.half.is_some() && link.down.has_room(1) {
                    actions.push(Action::FinishRegistration { n, e });
                }
                if !link.down.is_empty() && state.front.edge_has_room(shape, e, 1) {
                    actions.push(Action::EdgeReads { n, e });
                }
                if !shape.rules.has(Rule::CutNotThinned)
                    && matches!(link.down.as_slice().first(), Some(ToEdge::Changed { .. }))
                {
                    actions.push(Action::Thin { n, e });
                }
                if state.left.cuts > 0 {
                    actions.push(Action::Cut { n, e });
                }
            }
        }
    }

    pub(super) fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let shape = &self.shape;
        for c in 0..shape.clients {
            let client = &state.front.clients[c];
            if client.at == NONE {
                let first = client.was_at == NONE;
                if first || state.left.leaves > 0 || shape.listening != Listening::Poll {
                    actions.extend((0..shape.edges).map(|e| Action::Connect { c, e }));
                }
                continue;
            }
            if shape.listening == Listening::Poll {
                self.poll_actions(state, c, actions);
                continue;
            }
            if client.late.0 != 0 {
                actions.push(Action::Arrive { c });
            } else {
                actions.extend(bits(client.pending).map(|o| Action::Tell { c, o }));
            }
            if client.resync != 0 {
                actions.push(Action::Resync { c });
            }
            if shape.listening == Listening::Stream && state.front.may_have_cursor(shape, c) {
                actions.push(Action::GiveCursor { c, lags: false });
                if shape.shards > 1 {
                    actions.push(Action::GiveCursor { c, lags: true });
                }
            }
            if client.page == 0 && state.left.adds > 0 {
                let more = bits(shape.all_objects() & !client.wants);
                actions.extend(more.map(|o| Action::Add { c, o }));
            }
            if state.left.leaves > 0 {
                actions.push(Action::Leave { c });
            }
        }
        for e in 0..shape.edges {
            for o in 0..shape.objects {
                let watched = state.front.clients[..shape.clients]
                    .iter()
                    .any(|client| usize::from(client.at) == e && (client.live | client.page) & 1 << o != 0);
                let object = &state.front.edges[e].objects[o];
                let answered = object.registered || !shape.rules.has(Rule::GivenUpBehindAnswer);
                if state.left.lingers > 0 && object.present && !watched && answered {
                    actions.push(Action::LingerOver { e, o });
                }
            }
        }
    }

    fn poll_actions(&self, state: &State, c: usize, actions: &mut Vec<Action>) {
        let client = &state.front.clients[c];
        if client.page != 0 {
            actions.push(Action::TimeOut { c });
            return;
        }
        let news = client.pending.count_ones() as usize;
        let ready = client.live != 0 && (news > 0 || client.resync != 0 || !client.has_cursor);
        if ready {
            for count in news.min(1)..=news {
                actions.push(Action::AnswerPoll { c, count, lags: false });
                if self.shape.shards > 1 {
                    actions.push(Action::AnswerPoll { c, count, lags: true });
                }
            }
        }
        if state.left.leaves > 0 {
            actions.push(Action::Leave { c });
        }
    }

    fn is_owner(&self, state: &State, n: usize, s: usize) -> bool {
        usize::from(state.map[s].owner) == n && state.map[s].epoch == state.nodes[n].owned[s].epoch
    }

    /// Takes a step; `false` if it is not possible after all.
    pub(super) fn step(&self, state: &mut State, action: Action) -> bool {
        let shape = &self.shape;
        match action {
            Action::Publish { n, o } => return self.publish(state, n, o, true),
            Action::PublishUnacked { n, o } => return self.publish(state, n, o, false),
            Action::Enqueue { n } => return self.enqueue(state, n),
            Action::Close { n, e, ceiling } => return self.close(state, n, e, ceiling),
            Action::CloseAgain { n, e } => return self.close_again(state, n, e),
            Action::OwnerReads { n, e } => {
                let node = &state.nodes[n];
                let owned = (0..shape.shards)
                    .filter(|&s| node.owned[s].epoch > 0)
                    .fold(0, |mask, s| mask | shape.objects_of(s));
                let table = node.table;
                state.front.owner_reads(shape, n, e, &table, owned);
            }
            Action::FinishRegistration { n, e } => state.front.finish_registration(n, e),
            Action::EdgeReads { n, e } => state.front.edge_reads(shape, n, e),
            Action::Cut { n, e } => {
                state.left.cuts -= 1;
                state.front.cut(shape, n, e);
            }
            Action::LinkUp { n, e } => {
                let owned = state.nodes[n].owned;
                state.front.connect(shape, n, e, &owned);
            }
            Action::ReadOldGeneration { n, e } => state.front.old_generation(n, e, false),
            Action::CleanUpOldGeneration { n, e } => state.front.old_generation(n, e, true),
            Action::Thin { n, e } => {
                state.front.links[n][e].down.remove(0);
            }
            Action::Move { s, to, with_copy } => return self.move_shard(state, s, to, with_copy),
            Action::Renew { n } => return self.renew(state, n),
            Action::Crash { n } => self.crash(state, n),
            Action::Evict { n, s } => return self.evict(state, n, s),
            Action::Connect { c, e } => return self.connect(state, c, e),
            Action::Add { c, o } => return self.add(state, c, o),
            Action::LingerOver { e, o } => return self.linger_over(state, e, o),
            Action::Tell { c, o } => state.front.tell(shape, c, o),
            Action::Arrive { c } => state.front.arrive(shape, c),
            Action::Resync { c } => state.front.tell_resync(shape, c),
            Action::GiveCursor { c, lags } => {
                let before = state.front.clients[c];
                return state.front.give_cursor(shape, c, lags) && state.front.clients[c] != before;
            }
            Action::AnswerPoll { c, count, lags } => return state.front.answer_poll(shape, c, count, lags),
            Action::TimeOut { c } => state.front.time_out(shape, c),
            Action::Leave { c } => {
                if shape.listening != Listening::Poll {
                    state.left.leaves -= 1;
                }
                state.front.leave(shape, c);
            }
        }
        true
    }

    fn publish(&self, state: &mut State, n: usize, o: usize, acked: bool) -> bool {
        let s = self.shape.shard_of(o);
        let node = &mut state.nodes[n];
        let version = node.last[s] + 1;
        let stays = node.lease && node.unsent.is_none() && version <= node.ceiling;
        if !stays || !state.front.has_room(&self.shape, n, 1) {
            return false;
        }
        node.last[s] = version;
        node.table[o] = version;
        state.front.history.assign(o, version);
        if acked {
            state.left.publishes -= 1;
            state.copy[o] = version;
            state.front.history.ack(o, version);
        } else {
            state.left.unacked -= 1;
        }
        if self.shape.rules.has(Rule::AssignInOneStep) {
            state.front.notify(&self.shape, n, o, version);
        } else {
            state.nodes[n].unsent = Some((o as u8, version));
        }
        true
    }

    fn enqueue(&self, state: &mut State, n: usize) -> bool {
        if !state.front.has_room(&self.shape, n, 1) {
            return false;
        }
        if let Some((o, version)) = state.nodes[n].unsent.take() {
            state.front.notify(&self.shape, n, o.into(), version);
        }
        true
    }

    fn close(&self, state: &mut State, n: usize, e: usize, ceiling: bool) -> bool {
        let shape = &self.shape;
        let node = &mut state.nodes[n];
        let highest = (0..shape.shards)
            .filter(|&s| node.owned[s].epoch > 0)
            .map(|s| node.last[s])
            .max()
            .unwrap_or(0);
        let lowest = highest.max(node.closed + 1);
        let above = 2 * u8::from(!shape.rules.has(Rule::NothingAboveCeiling));
        let version = if ceiling { node.ceiling + above } else { lowest };
        let possible = version >= lowest && version <= node.ceiling + above && !(ceiling && version == lowest);
        if !possible || !state.front.links[n][e].down.has_room(1) {
            return false;
        }
        state.left.closes -= 1;
        node.closed = version;
        if shape.rules.has(Rule::CloseInOneStep) {
            for s in 0..shape.shards {
                node.last[s] = node.last[s].max(version);
            }
        }
        self.count_stale_close(state, n);
        state.front.close(shape, n, e, version);
        true
    }

    fn close_again(&self, state: &mut State, n: usize, e: usize) -> bool {
        if !state.front.links[n][e].down.has_room(1) {
            return false;
        }
        self.count_stale_close(state, n);
        let version = state.nodes[n].closed;
        state.front.close(&self.shape, n, e, version);
        true
    }

    /// An owner that was replaced has no more versions to close than it had left.
    fn count_stale_close(&self, state: &mut State, n: usize) {
        if self.shape.rules.has(Rule::ClosedRises) {
            return;
        }
        let shards = 0..self.shape.shards;
        let owned = |s: &usize| state.nodes[n].owned[*s].epoch > 0;
        if shards.clone().any(|s| owned(&s)) && shards.filter(owned).all(|s| !self.is_owner(state, n, s)) {
            state.stale_closes += 1;
            if state.stale_closes > self.room * (self.budget.moves + self.budget.losses) {
                state.front.history.fault(Fault::LookedAlive);
            }
        }
    }

    pub(super) fn move_shard(&self, state: &mut State, s: usize, to: usize, with_copy: bool) -> bool {
        let shape = &self.shape;
        if !state.front.has_room(shape, to, 1 + shape.shards) {
            return false;
        }
        let copied = bits(shape.objects_of(s)).map(|o| state.copy[o]).max().unwrap_or(0);
        let first = if shape.rules.has(Rule::EpochAboveCeiling) {
            state.ceiling + 1
        } else {
            copied + 1
        };
        state.ceiling += self.room;
        let old = usize::from(state.map[s].owner);
        let map = &mut state.map[s];
        map.owner = to as u8;
        map.epoch += 1;
        if with_copy {
            state.left.moves -= 1;
            state.front.history.saw(Seen::HandedOver);
            if !shape.rules.has(Rule::PromotionKeepsFloor) {
                map.floor = 0;
            }
        } else {
            state.left.losses -= 1;
            state.front.history.saw(Seen::Lost);
            map.floor = map.floor.max(first);
            bits(shape.objects_of(s)).for_each(|o| state.copy[o] = 0);
            state.nodes[old].lease = false;
        }
        let owned = OwnedShard {
            epoch: map.epoch,
            floor: map.floor,
        };
        self.renew_node(state, to, shape.rules.has(Rule::MapBeforeCeiling));
        let node = &mut state.nodes[to];
        node.owned[s] = owned;
        // Above all that was ever given or closed here, too.
        node.last[s] = (first - 1).max(if shape.rules.has(Rule::CloseInOneStep) {
            node.closed
        } else {
            0
        });
        if with_copy || shape.rules.has(Rule::StartsEmpty) {
            bits(shape.objects_of(s)).for_each(|o| node.table[o] = state.copy[o]);
        }
        state.front.announce(shape, to, s, owned);
        true
    }

    fn renew(&self, state: &mut State, n: usize) -> bool {
        if !state.front.has_room(&self.shape, n, self.shape.shards) {
            return false;
        }
        let before = state.nodes[n];
        self.renew_node(state, n, true);
        if !self.shape.rules.has(Rule::MapBeforeCeiling) {
            // The ceiling is used, the map is not looked at.
            let ceiling = state.nodes[n].ceiling;
            state.nodes[n] = before;
            state.nodes[n].ceiling = ceiling;
            return before.ceiling != ceiling;
        }
        true
    }

    fn renew_node(&self, state: &mut State, n: usize, look_at_map: bool) {
        for s in 0..self.shape.shards {
            if look_at_map && state.nodes[n].owned[s].epoch > 0 && !self.is_owner(state, n, s) {
                state.nodes[n].owned[s] = OwnedShard::default();
                if self.shape.rules.has(Rule::StartsEmpty) {
                    bits(self.shape.objects_of(s)).for_each(|o| state.nodes[n].table[o] = 0);
                }
                state.nodes[n].unsent = None;
                state.front.gone(&self.shape, n, s);
            }
        }
        state.nodes[n].ceiling = state.ceiling;
        state.nodes[n].lease = true;
    }

    fn crash(&self, state: &mut State, n: usize) {
        state.left.crashes -= 1;
        state.nodes[n] = super::OwnerNode::default();
        for e in 0..self.shape.edges {
            state.front.cut(&self.shape, n, e);
        }
    }

    /// Drops the oldest version of a shard and raises the floor above it.
    fn evict(&self, state: &mut State, n: usize, s: usize) -> bool {
        let shape = &self.shape;
        let objects = shape.objects_of(s);
        let oldest = bits(objects).map(|o| state.nodes[n].table[o]).filter(|&v| v > 0).min();
        let Some(oldest) = oldest else { return false };
        if !state.front.has_room(shape, n, 1) || oldest < state.nodes[n].owned[s].floor {
            return false;
        }
        state.left.evictions -= 1;
        state.front.history.saw(Seen::Evicted);
        for o in bits(objects) {
            for version in [&mut state.nodes[n].table[o], &mut state.copy[o]] {
                *version = if *version <= oldest { 0 } else { *version };
            }
        }
        if shape.rules.has(Rule::FloorBeforeEviction) {
            let floor: Version = oldest + 1;
            state.nodes[n].owned[s].floor = floor;
            state.nodes[n].last[s] = state.nodes[n].last[s].max(floor - 1);
            state.map[s].floor = state.map[s].floor.max(floor);
            let owned = state.nodes[n].owned[s];
            state.front.announce(shape, n, s, owned);
        }
        true
    }

    fn connect(&self, state: &mut State, c: usize, e: usize) -> bool {
        if !state.front.edge_has_room(&self.shape, e, self.shape.shards) {
            return false;
        }
        let client = &state.front.clients[c];
        let objects = if client.wants == 0 { self.holds } else { client.wants };
        if client.was_at != NONE && self.shape.listening == Listening::Poll {
            state.left.leaves -= 1;
        }
        state.front.subscribe(&self.shape, c, e, objects);
        true
    }

    fn add(&self, state: &mut State, c: usize, o: usize) -> bool {
        let e = usize::from(state.front.clients[c].at);
        if !state.front.edge_has_room(&self.shape, e, 1) {
            return false;
        }
        state.left.adds -= 1;
        state.front.subscribe(&self.shape, c, e, 1 << o);
        true
    }

    fn linger_over(&self, state: &mut State, e: usize, o: usize) -> bool {
        if !state.front.edge_has_room(&self.shape, e, 1) {
            return false;
        }
        state.left.lingers -= 1;
        state.front.linger_over(e, o, &self.shape);
        true
    }
}
