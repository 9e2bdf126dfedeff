//! Edges and clients under owners that come and go by script: one move of a shard is one step, with a copy or without.
//!
//! What a move leaves behind is modelled: a replaced owner goes on, up to its ceiling, until it is told. It can close
//! and answer; what it assigns is never acknowledged if the new owner has a copy (that is what `copies` proves), and it
//! assigns nothing if the new owner has none, because its lease has run out.

mod steps;

use crate::front::{Epoch, Fault, Front, NODES, OBJECTS, OwnedShard, SHARDS, Seen, Shape, Version, Versions};
use stateright::{Model, Property};

/// How often what may happen, and how many versions an epoch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Changes that are acknowledged.
    pub publishes: u8,
    /// Changes that are assigned and told, but never acknowledged.
    pub unacked: u8,
    /// A version is closed on a link.
    pub closes: u8,
    /// A shard goes to another node that has a copy.
    pub moves: u8,
    /// A shard goes to another node without a copy.
    pub losses: u8,
    /// A node dies, and starts again with nothing.
    pub crashes: u8,
    /// A link is cut.
    pub cuts: u8,
    /// A client's connection ends.
    pub leaves: u8,
    /// A client adds the object it does not hold yet.
    pub adds: u8,
    /// The oldest version of a shard is evicted.
    pub evictions: u8,
    /// An object that nobody watches is unregistered.
    pub lingers: u8,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Scripted {
    /// How much of everything.
    pub shape: Shape,
    /// How often what.
    pub budget: Budget,
    /// Versions of an epoch.
    pub room: u8,
    /// What each client holds from the beginning.
    pub holds: u8,
    /// How it begins.
    pub start: Start,
    /// Steps that are taken before all others.
    pub prefix: &'static [Action],
}

/// How a model begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Node 0 owns everything, and all links are up.
    OneOwner,
    /// Each shard has an owner of its own.
    OwnerEach,
    /// Node 0 was replaced by node 1 and does not know it. Edge 0 knows the new owner, edge 1 only the old one.
    Split,
}

/// The control plane's word on one shard, and what is surely kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// The owner.
    pub owner: u8,
    /// Since.
    pub epoch: Epoch,
    /// The floor of map and copies.
    pub floor: Version,
}

/// One node in the role of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerNode {
    /// It may assign and close up to here.
    pub ceiling: Version,
    /// It may assign: its lease has not run out.
    pub lease: bool,
    /// The last version it closed.
    pub closed: Version,
    /// The shards it believes it owns.
    pub owned: [OwnedShard; SHARDS],
    /// No version up to here is given again.
    pub last: [Version; SHARDS],
    /// The newest version of each object.
    pub table: Versions,
    /// Without R8.2: assigned and not yet enqueued, as object and version.
    pub unsent: Option<(u8, Version)>,
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Links, edges, clients, history.
    pub front: Front,
    /// The nodes as owners.
    pub nodes: [OwnerNode; NODES],
    /// The control plane's word.
    pub map: [Assigned; SHARDS],
    /// What every copy has of each object.
    pub copy: Versions,
    /// The committed ceiling.
    pub ceiling: Version,
    /// How often a replaced owner closed.
    pub stale_closes: u8,
    /// What is left.
    pub left: Budget,
}

/// One step. `n` is a node, `e` an edge, `c` a client, `s` a shard, `o` an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named above")]
pub enum Action {
    /// A change is assigned, told and acknowledged.
    Publish { n: usize, o: usize },
    /// A change is assigned and told, and dies with its owner.
    PublishUnacked { n: usize, o: usize },
    /// Without R8.2: the change is enqueued.
    Enqueue { n: usize },
    /// A version is closed on one link: the lowest that may be, or the ceiling.
    Close { n: usize, e: usize, ceiling: bool },
    /// Without R10: the last one is closed again.
    CloseAgain { n: usize, e: usize },
    /// The owner reads a frame.
    OwnerReads { n: usize, e: usize },
    /// Without R8.1: the interest is inserted, the answer enqueued.
    FinishRegistration { n: usize, e: usize },
    /// The edge reads a frame.
    EdgeReads { n: usize, e: usize },
    /// A link is cut.
    Cut { n: usize, e: usize },
    /// It is there again.
    LinkUp { n: usize, e: usize },
    /// Without R9.1: the owner reads a frame of the older generation.
    ReadOldGeneration { n: usize, e: usize },
    /// Without R9.1: the owner cleans up after it.
    CleanUpOldGeneration { n: usize, e: usize },
    /// Without R9.2: a change is dropped from a link.
    Thin { n: usize, e: usize },
    /// A shard gets another owner.
    Move { s: usize, to: usize, with_copy: bool },
    /// A node applies the map and renews.
    Renew { n: usize },
    /// A node crashes.
    Crash { n: usize },
    /// The oldest version of a shard is evicted.
    Evict { n: usize, s: usize },
    /// A client connects to an edge.
    Connect { c: usize, e: usize },
    /// A client subscribes to one more object.
    Add { c: usize, o: usize },
    /// An edge writes a change to a client.
    Tell { c: usize, o: usize },
    /// Without R4.5: what was written arrives.
    Arrive { c: usize },
    /// An edge tells a client to resync.
    Resync { c: usize },
    /// An edge writes a cursor.
    GiveCursor { c: usize, lags: bool },
    /// A poll is answered.
    AnswerPoll { c: usize, count: usize, lags: bool },
    /// A poll times out.
    TimeOut { c: usize },
    /// A connection ends.
    Leave { c: usize },
    /// The linger of an object is over.
    LingerOver { e: usize, o: usize },
}

impl Scripted {
    /// Whether the present owner of a shard and an edge have nothing left to say to each other.
    #[must_use]
    pub fn calm(&self, state: &State, s: usize, e: usize) -> bool {
        let map = &state.map[s];
        let n = usize::from(map.owner);
        let link = &state.front.links[n][e];
        state.nodes[n].owned[s].epoch == map.epoch
            && state.nodes[n].unsent.is_none()
            && link.up
            && link.half.is_none()
            && link.down.is_empty()
            && link.upward.is_empty()
    }
}

impl Model for Scripted {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            front: Front::default(),
            nodes: [OwnerNode::default(); NODES],
            map: [Assigned::default(); SHARDS],
            copy: [0; OBJECTS],
            ceiling: self.room,
            stale_closes: 0,
            left: self.budget,
        };
        for s in 0..self.shape.shards {
            let n = if self.start == Start::OwnerEach {
                s % self.shape.nodes
            } else {
                0
            };
            state.nodes[n].ceiling = self.room;
            state.nodes[n].owned[s].epoch = 1;
            (state.map[s].owner, state.map[s].epoch) = (n as u8, 1);
        }
        for n in 0..self.shape.nodes {
            state.nodes[n].lease = true;
            for e in 0..self.shape.edges {
                let owned = state.nodes[n].owned;
                state.front.connect(&self.shape, n, e, &owned);
                while !state.front.links[n][e].down.is_empty() {
                    state.front.edge_reads(&self.shape, n, e);
                }
            }
        }
        if self.start == Start::Split {
            state.left.moves += 1;
            self.move_shard(&mut state, 0, 1, true);
            while !state.front.links[1][0].down.is_empty() {
                state.front.edge_reads(&self.shape, 1, 0);
            }
            state.front.links[1][1] = Default::default();
        }
        for &action in self.prefix {
            self.step(&mut state, action);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.owner_actions(state, actions);
        self.link_actions(state, actions);
        self.client_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("P1 no silent loss", |model, state| {
                !state.front.lost(&model.shape, |s, e| model.calm(state, s, e))
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
            Property::<Self>::always("I24 who is cut off shows it", |_, state| {
                !state.front.history.has(Fault::LookedAlive)
            }),
            Property::<Self>::always("nobody waits for ever", |model, state| {
                !state.front.stuck(&model.shape, |s, e| model.calm(state, s, e))
            }),
        ];
        properties.extend(self.reachable());
        properties
    }
}

impl Scripted {
    /// What must be possible within these bounds.
    fn reachable(&self) -> Vec<Property<Self>> {
        macro_rules! sometimes {
            ($name:literal, $seen:ident) => {
                Property::<Self>::sometimes($name, |_, state| state.front.history.reached(Seen::$seen))
            };
        }
        let budget = &self.budget;
        let any = |count: u8| count > 0;
        let mut all = vec![sometimes!("a change is told", Told)];
        if any(budget.leaves) {
            all.push(sometimes!("a client catches up", CaughtUp));
        }
        if self.shape.listening != crate::front::Listening::KnownVersions {
            all.push(sometimes!("a cursor is given", Cursor));
            if self.shape.shards > 1 {
                all.push(sometimes!("a cursor names a shard that lags", Lagged));
            }
        }
        if self.shape.listening == crate::front::Listening::Poll {
            all.push(sometimes!("a cursor lists what was told above it", Listed));
            all.push(sometimes!("a poll times out", TimedOut));
        }
        if self.shape.edges > 1 && (any(budget.leaves) || self.shape.listening == crate::front::Listening::Poll) {
            all.push(sometimes!("a client moves to another edge", Moved));
        }
        if any(budget.moves) {
            all.push(sometimes!("a shard moves with a copy", HandedOver));
        }
        if any(budget.moves) && any(budget.cuts) {
            all.push(sometimes!("an edge refuses an older epoch", Stale));
        }
        if any(budget.losses) {
            all.push(sometimes!("a shard moves without a copy", Lost));
        }
        if any(budget.evictions) {
            all.push(sometimes!("versions are evicted", Evicted));
        }
        if !self.shape.nothing_lost {
            all.push(sometimes!("somebody is told to resync", Resync));
        }
        all
    }
}
