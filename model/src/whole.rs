//! Everything at once, small: copies and control plane behind, links, edges and clients before them.
//!
//! Where `scripted` takes for granted what `copies` proves, here nothing is: an owner really waits for its copies, and
//! really learns late that it was replaced.

use crate::copies::{self, Copies};
use crate::front::{Fault, Front, NODES, NONE, OBJECTS, OwnedShard, SHARDS, Seen, Shape, Version, Versions, bits};
use crate::rule::Rule;
use stateright::{Model, Property};

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// The half behind.
    pub copies: Copies,
    /// The half before. One shard.
    pub shape: Shape,
    /// Versions closed on links.
    pub closes: u8,
    /// Links cut.
    pub cuts: u8,
    /// Connections ended.
    pub leaves: u8,
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The half behind.
    pub copies: copies::State,
    /// The half before.
    pub front: Front,
    /// The last version that each node closed.
    pub closed: [Version; NODES],
    /// Left.
    pub closes: u8,
    /// Left.
    pub cuts: u8,
    /// Left.
    pub leaves: u8,
}

/// One step. `n` is a node, `e` an edge, `c` a client, `o` an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named above, the steps in the two halves")]
pub enum Action {
    Behind(copies::Action),
    Close { n: usize, e: usize, ceiling: bool },
    OwnerReads { n: usize, e: usize },
    EdgeReads { n: usize, e: usize },
    Cut { n: usize, e: usize },
    LinkUp { n: usize, e: usize },
    Connect { c: usize, e: usize },
    Tell { c: usize, o: usize },
    Resync { c: usize },
    GiveCursor { c: usize },
    Leave { c: usize },
}

impl Whole {
    fn object_of(&self, publish: usize) -> usize {
        publish % self.shape.objects
    }

    fn table(&self, node: &copies::Node) -> Versions {
        let mut table = [0; OBJECTS];
        for (p, &version) in node.table.iter().enumerate() {
            let object = self.object_of(p);
            table[object] = version.max(table[object]);
        }
        table
    }

    fn owned(node: &copies::Node) -> [OwnedShard; SHARDS] {
        let mut owned = [OwnedShard::default(); SHARDS];
        if node.owns {
            owned[0] = OwnedShard {
                epoch: node.epoch,
                floor: node.floor,
            };
        }
        owned
    }

    fn calm(&self, state: &State, e: usize) -> bool {
        let map = &state.copies.map;
        let n = usize::from(map.owner);
        let (node, link) = (&state.copies.nodes[n], &state.front.links[n][e]);
        node.up && node.owns && node.epoch == map.epoch && link.up && link.down.is_empty() && link.upward.is_empty()
    }

    /// A step behind, and what it says to the links.
    fn behind(&self, state: &mut State, action: copies::Action) -> bool {
        let before = state.copies;
        let Some(after) = self.copies.next_state(&before, action) else {
            return false;
        };
        state.copies = after;
        for n in 0..self.shape.nodes {
            let (old, new) = (&before.nodes[n], &after.nodes[n]);
            if !new.up && old.up {
                state.closed[n] = 0;
                (0..self.shape.edges).for_each(|e| state.front.cut(&self.shape, n, e));
                continue;
            }
            let owned = Self::owned(new)[0];
            let news = owned != Self::owned(old)[0];
            if news && !state.front.has_room(&self.shape, n, 2) {
                return false;
            }
            if old.owns && (!new.owns || new.epoch != old.epoch) {
                state.front.gone(&self.shape, n, 0);
            }
            if news && new.owns {
                state.front.announce(&self.shape, n, 0, owned);
            }
        }
        match action {
            copies::Action::Call { n, p } => {
                let (was, version) = (before.nodes[n].table[p], after.nodes[n].table[p]);
                if !state.front.has_room(&self.shape, n, 1) {
                    return false;
                }
                if was != version && version > 0 {
                    let object = self.object_of(p);
                    state.front.history.assign(object, version);
                    state.front.notify(&self.shape, n, object, version);
                }
            }
            copies::Action::Acknowledge { p, .. } => {
                let version = after.history.acked[p];
                state.front.history.ack(self.object_of(p), version);
            }
            _ => {}
        }
        true
    }

    fn close(&self, state: &mut State, n: usize, e: usize, ceiling: bool) -> bool {
        let node = &mut state.copies.nodes[n];
        let lowest = node.last.max(state.closed[n] + 1);
        let version = if ceiling { node.ceiling } else { lowest };
        let new = version >= lowest && version <= node.ceiling && !(ceiling && version == lowest);
        if !new || !state.front.links[n][e].down.has_room(1) {
            return false;
        }
        if self.shape.rules.has(Rule::CloseInOneStep) {
            node.last = node.last.max(version);
        }
        state.closes -= 1;
        state.closed[n] = version;
        state.front.close(&self.shape, n, e, version);
        true
    }

    fn link_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for n in 0..self.shape.nodes {
            let node = &state.copies.nodes[n];
            for e in 0..self.shape.edges {
                let link = &state.front.links[n][e];
                if !link.up {
                    if node.up {
                        actions.push(Action::LinkUp { n, e });
                    }
                    continue;
                }
                if state.closes > 0 && node.owns {
                    actions.push(Action::Close { n, e, ceiling: false });
                    actions.push(Action::Close { n, e, ceiling: true });
                }
                if !link.upward.is_empty() && link.down.has_room(1) {
                    actions.push(Action::OwnerReads { n, e });
                }
                if !link.down.is_empty() && state.front.edge_has_room(&self.shape, e, 1) {
                    actions.push(Action::EdgeReads { n, e });
                }
                if state.cuts > 0 {
                    actions.push(Action::Cut { n, e });
                }
            }
        }
    }

    fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for c in 0..self.shape.clients {
            let client = &state.front.clients[c];
            if client.at == NONE {
                actions.extend((0..self.shape.edges).map(|e| Action::Connect { c, e }));
                continue;
            }
            actions.extend(bits(client.pending).map(|o| Action::Tell { c, o }));
            if client.resync != 0 {
                actions.push(Action::Resync { c });
            }
            if state.front.may_have_cursor(&self.shape, c) {
                actions.push(Action::GiveCursor { c });
            }
            if state.leaves > 0 {
                actions.push(Action::Leave { c });
            }
        }
    }
}

impl Model for Whole {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let copies = self.copies.init_states()[0];
        let mut front = Front::default();
        for n in 0..self.shape.nodes {
            for e in 0..self.shape.edges {
                front.connect(&self.shape, n, e, &Self::owned(&copies.nodes[n]));
                while !front.links[n][e].down.is_empty() {
                    front.edge_reads(&self.shape, n, e);
                }
            }
        }
        vec![State {
            copies,
            front,
            closed: [0; NODES],
            closes: self.closes,
            cuts: self.cuts,
            leaves: self.leaves,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut behind = Vec::new();
        self.copies.actions(&state.copies, &mut behind);
        actions.extend(behind.into_iter().map(Action::Behind));
        self.link_actions(state, actions);
        self.client_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        let shape = &self.shape;
        let possible = match action {
            Action::Behind(action) => self.behind(&mut next, action),
            Action::Close { n, e, ceiling } => self.close(&mut next, n, e, ceiling),
            Action::OwnerReads { n, e } => {
                let node = &state.copies.nodes[n];
                let owned = if node.owns { shape.all_objects() } else { 0 };
                next.front.owner_reads(shape, n, e, &self.table(node), owned);
                true
            }
            Action::EdgeReads { n, e } => {
                next.front.edge_reads(shape, n, e);
                true
            }
            Action::Cut { n, e } => {
                next.cuts -= 1;
                next.front.cut(shape, n, e);
                true
            }
            Action::LinkUp { n, e } => {
                let owned = Self::owned(&state.copies.nodes[n]);
                next.front.connect(shape, n, e, &owned);
                true
            }
            Action::Connect { c, e } => {
                let room = state.front.edge_has_room(shape, e, 1);
                if room {
                    next.front.subscribe(shape, c, e, shape.all_objects());
                }
                room
            }
            Action::Tell { c, o } => {
                next.front.tell(shape, c, o);
                true
            }
            Action::Resync { c } => {
                next.front.tell_resync(shape, c);
                true
            }
            Action::GiveCursor { c } => {
                next.front.give_cursor(shape, c, false) && next.front.clients[c] != state.front.clients[c]
            }
            Action::Leave { c } => {
                next.leaves -= 1;
                next.front.leave(shape, c);
                true
            }
        };
        possible.then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always("P1 no silent loss", |model, state| {
                !model.front_lost(state) && model.copies.kept_or_confessed(&state.copies)
            }),
            Property::<Self>::always("I2 the cursor is sound", |model, state| {
                !state.front.cursor_lies(&model.shape)
            }),
            Property::<Self>::always("P3 forward only", |_, state| !state.front.history.has(Fault::WentBack)),
            Property::<Self>::always("P2 named once on a connection", |_, state| {
                !state.front.history.has(Fault::Repeated)
            }),
            Property::<Self>::always("P2 no needless resync", |_, state| {
                !state.front.history.has(Fault::Resynced)
            }),
            Property::<Self>::always("P5, P6, I8", |_, state| state.copies.history.faults == 0),
            Property::<Self>::always("nobody waits for ever", |model, state| {
                !state.front.stuck(&model.shape, |_, e| model.calm(state, e))
            }),
        ];
        macro_rules! sometimes {
            ($name:literal, $seen:ident) => {
                all.push(Property::<Self>::sometimes($name, |_, state| {
                    state.front.history.reached(Seen::$seen)
                }))
            };
        }
        sometimes!("a change is told", Told);
        sometimes!("a cursor is given", Cursor);
        if self.leaves > 0 {
            sometimes!("a client catches up", CaughtUp);
        }
        if !self.shape.nothing_lost {
            sometimes!("somebody is told to resync", Resync);
        }
        all.push(Property::<Self>::sometimes("a successor acknowledges", |_, state| {
            state.copies.history.acked_in > 1
        }));
        all
    }
}

impl Whole {
    fn front_lost(&self, state: &State) -> bool {
        state.front.lost(&self.shape, |_, e| self.calm(state, e))
    }
}
