//! Copies, leases, ceilings and the control plane: who may acknowledge, and what survives.
//!
//! One shard, up to three nodes, and the replicated log of the control plane as a register to which entries are
//! proposed, and applied or lost later, in any order. Time is not a number: a lease is valid until it ends, which may be
//! at any moment, and the one thing that leans on clocks is said as such (`lease.4`: to propose a replacement without a
//! copy takes so long that the old lease has ended). A pause is a node that takes no step while others do. What is sent
//! between nodes is late by being taken late; that loses nothing, because a log only grows within an epoch and who is
//! behind a newer one is refused.
//!
//! Each publish has an object of its own, so that a copy that misses any one of them is found out.

mod control;
mod owner;
mod steps;

use crate::front::{Aside, Epoch, NONE, Version};
use crate::rule::Rules;
use stateright::{Model, Property};

/// Most nodes.
pub const NODES: usize = 3;
/// Most publishes.
pub const PUBLISHES: usize = 3;
/// Most epochs.
const EPOCHS: usize = 6;

/// For each node its incarnation, from 1; 0 where the node is not of the set.
pub type Set = [u8; NODES];

/// How much of everything, and the rules.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// Nodes.
    pub nodes: usize,
    /// How many of them begin as owner and in-sync copies.
    pub copies: usize,
    /// Versions of an epoch.
    pub room: u8,
    /// No more epochs than this.
    pub epochs: u8,
    /// Reading a request, checking the lease and accepting are three steps.
    pub torn: bool,
    /// The control plane may think the living dead. Without a copy it replaces only whose lease has ended, all the same.
    pub gossip_lies: bool,
    /// What a node has survives its crash on its disk.
    pub disks: bool,
    /// A node that starts follows nobody before it has read the map. An alternative to `copy.5`, not one of the rules.
    pub learns_first: bool,
    /// How often what.
    pub budget: Budget,
    /// The rules in force.
    pub rules: Rules,
}

/// How often what may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Publishes.
    pub publishes: u8,
    /// Publishes that are called again.
    pub retries: u8,
    /// Crashes.
    pub crashes: u8,
    /// Crashes that take with them what was not synced. Only with disks.
    pub power_losses: u8,
    /// Proposals to add a copy.
    pub joins: u8,
    /// Proposals to remove one.
    pub removals: u8,
    /// Proposals to replace the owner.
    pub replacements: u8,
    /// Planned moves.
    pub releases: u8,
    /// Proposals that are lost.
    pub losses: u8,
    /// Versions closed.
    pub closes: u8,
    /// Evictions.
    pub evictions: u8,
    /// Raises of the ceiling without a new epoch.
    pub raises: u8,
}

/// What an entry of the control plane's log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fills empty places.
    #[default]
    Nothing,
    /// Adds a copy.
    Join,
    /// Removes one.
    Remove,
    /// A copy becomes owner.
    Promote,
    /// A node becomes owner without a copy.
    Assign,
    /// The owner hands over to a copy.
    Release,
}

/// An entry on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// What it does.
    pub kind: Kind,
    /// To whom.
    pub node: u8,
    /// In which incarnation.
    pub incarnation: u8,
    /// Only in this epoch.
    pub epoch: Epoch,
    /// Only with this in-sync set.
    pub in_sync: Set,
    /// Without R6.6: a new leader does not know of it.
    pub forgotten: bool,
}

/// What the control plane says of the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Map {
    /// The epoch.
    pub epoch: Epoch,
    /// The owner.
    pub owner: u8,
    /// In which incarnation.
    pub incarnation: u8,
    /// Owner and in-sync followers.
    pub in_sync: Set,
    /// The floor.
    pub floor: Version,
    /// The first version of the epoch.
    pub first: Version,
    /// The owner was assigned without a copy.
    pub empty: bool,
}

/// One node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// It runs.
    pub up: bool,
    /// For the how manieth time.
    pub incarnation: u8,
    /// It may accept.
    pub lease: bool,
    /// It may assign and close up to here.
    pub ceiling: Version,
    /// The map it applied.
    pub map: Map,
    /// The highest epoch it heard of.
    pub epoch: Epoch,
    /// It acts as owner in that epoch.
    pub owns: bool,
    /// The newest version of each object.
    pub table: [Version; PUBLISHES],
    /// Below this it cannot vouch.
    pub floor: Version,
    /// As owner: no version up to here is given again.
    pub last: Version,
    /// As owner: whom it waits for, in which incarnation.
    pub waits: Set,
    /// As owner: whom it proposed to join and does not know the outcome of. It waits for these, too.
    pub joining: Set,
    /// As owner: who was brought level in this epoch.
    pub level: u8,
    /// As owner: which incarnation of each follower confirmed.
    pub confirmed_by: Set,
    /// As owner: up to where each follower confirmed.
    pub confirmed: [Version; NODES],
    /// As owner: publishers that wait for an answer.
    pub answers: u8,
    /// History: for each call, the highest epoch and version acknowledged before it.
    pub called_after: [(Epoch, Version); PUBLISHES],
    /// Those of them that called again.
    pub duplicates: u8,
    /// As owner: it takes no more, because it is about to hand over.
    pub drains: bool,
    /// As follower: the epoch in which it was brought level, and up to where it followed.
    pub follows: (Epoch, Version),
    /// Its confirmation under way: to whom, incarnation, epoch, up to where.
    pub ack: Option<(u8, u8, Epoch, Version)>,
    /// A request that was read, plus 1, and whether the lease was checked.
    pub request: (u8, bool),
    /// The incarnation whose complete data its disk has; 0 for none.
    pub disk_of: u8,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The acknowledged version of each publish.
    pub acked: [Version; PUBLISHES],
    /// The control plane's epoch when each was called first.
    pub called_in: [Epoch; PUBLISHES],
    /// The highest epoch that acknowledged anything.
    pub acked_in: Epoch,
    /// The epoch that began with the present floor of the map.
    pub floor_since: Epoch,
    /// The first version of each epoch.
    pub firsts: [Version; EPOCHS],
    /// Faults, as a mask.
    pub faults: u8,
    /// For reachability, as a mask.
    pub seen: Aside<u16>,
}

/// P5: two owners acknowledged.
const TWO_OWNERS: u8 = 1;
/// I8: a version of one epoch lies in another.
const EPOCHS_MEET: u8 = 2;
/// P2: a copy lived, and the shard was given away without one.
const NEEDLESS: u8 = 4;
/// P6: a publish got a version below one that was acknowledged before it was called.
const OUT_OF_ORDER: u8 = 8;

const SEEN_ACK: u16 = 1;
const SEEN_PROMOTION: u16 = 2;
const SEEN_EMPTY: u16 = 4;
const SEEN_JOIN: u16 = 8;
const SEEN_REMOVAL: u16 = 16;
const SEEN_RELEASE: u16 = 32;
const SEEN_ACK_BY_SUCCESSOR: u16 = 128;
const SEEN_DUPLICATE: u16 = 256;
const SEEN_CONDITION: u16 = 512;
const SEEN_FROM_DISK: u16 = 1024;
const SEEN_EVICTION: u16 = 2048;

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The nodes.
    pub nodes: [Node; NODES],
    /// What the control plane applied.
    pub map: Map,
    /// The committed ceiling.
    pub ceiling: Version,
    /// What is proposed.
    pub proposals: crate::fifo::Fifo<Proposal, 2>,
    /// What happened.
    pub history: History,
    /// What is left.
    pub left: Budget,
}

/// One step. `n` is a node, `f` a follower, `p` a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named above")]
pub enum Action {
    /// A publish reaches a node, for the first time or again.
    Call { n: usize, p: usize },
    /// The node checks its lease.
    Check { n: usize },
    /// It accepts: assigns a version, or finds a duplicate.
    Accept { n: usize },
    /// It answers.
    Acknowledge { n: usize, p: usize },
    /// A follower gets the next entry.
    Follow { n: usize, f: usize },
    /// A follower gets everything.
    Snapshot { n: usize, f: usize },
    /// A follower's confirmation arrives.
    Confirm { f: usize },
    /// The owner closes its ceiling.
    Close { n: usize },
    /// The owner drops its oldest version.
    Evict { n: usize },
    /// The owner proposes to add a copy.
    ProposeJoin { n: usize, f: usize },
    /// The owner proposes to remove one.
    ProposeRemoval { n: usize, f: usize },
    /// The owner takes no more.
    Drain { n: usize },
    /// The owner proposes to hand over.
    ProposeRelease { n: usize, f: usize },
    /// The owner takes publishes again.
    Resume { n: usize },
    /// The Raft leader proposes a copy as owner.
    ProposePromotion { n: usize },
    /// The Raft leader proposes a node without a copy as owner.
    ProposeAssignment { n: usize },
    /// A proposal is applied, or refused by its conditions.
    Apply { proposal: usize },
    /// A proposal is lost.
    Lose { proposal: usize },
    /// Without R6.6: a new Raft leader does not know what is proposed.
    LeaderForgets,
    /// The ceiling is raised.
    RaiseCeiling,
    /// A node applies the map.
    Learn { n: usize },
    /// A node applies the map and renews its lease.
    Renew { n: usize },
    /// A lease ends.
    Expire { n: usize },
    /// A node dies.
    Crash { n: usize },
    /// A node's machine dies.
    LosePower { n: usize },
    /// It starts again.
    Restart { n: usize },
}

impl Model for Copies {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut map = Map {
            epoch: 1,
            owner: 0,
            incarnation: 1,
            first: 1,
            ..Map::default()
        };
        map.in_sync[..self.copies].fill(1);
        let mut nodes = [Node::default(); NODES];
        for (n, node) in nodes.iter_mut().enumerate().take(self.nodes) {
            node.up = true;
            node.incarnation = 1;
            node.map = map;
            node.epoch = 1;
            if n < self.copies {
                node.follows = (1, 0);
                node.disk_of = u8::from(self.disks);
            }
        }
        let owner = &mut nodes[0];
        (owner.owns, owner.lease, owner.ceiling) = (true, true, self.room);
        owner.waits = map.in_sync;
        owner.waits[0] = 0;
        owner.level = 0b111;
        owner.confirmed_by = owner.waits;
        let mut history = History::default();
        history.firsts[1] = 1;
        vec![State {
            nodes,
            map,
            ceiling: self.room,
            proposals: Default::default(),
            history,
            left: self.budget,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.node_actions(state, actions);
        self.owner_actions(state, actions);
        self.control_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always("P1 what was acknowledged is kept or confessed", |model, state| {
                model.kept_or_confessed(state)
            }),
            Property::<Self>::always("P5 one owner acknowledges", |_, state| {
                state.history.faults & TWO_OWNERS == 0
            }),
            Property::<Self>::always("I8 epochs do not meet", |_, state| {
                state.history.faults & EPOCHS_MEET == 0
            }),
            Property::<Self>::always("P2 given away only when no copy lives", |_, state| {
                state.history.faults & NEEDLESS == 0
            }),
            Property::<Self>::always("P6 later is higher", |_, state| {
                state.history.faults & OUT_OF_ORDER == 0
            }),
        ];
        all.extend(self.reachable());
        all
    }
}

impl Copies {
    /// Whether the present owner, if it serves, has each acknowledged change, or a floor above it that came after the
    /// change was called: who is told to resync at that floor fetches what the publisher wrote before it called.
    pub(crate) fn kept_or_confessed(&self, state: &State) -> bool {
        let serves = |node: &&Node| node.up && node.owns && node.epoch == state.map.epoch;
        state.nodes[..self.nodes].iter().filter(serves).all(|node| {
            (0..PUBLISHES).all(|p| {
                let acked = state.history.acked[p];
                let evicted = node.floor > acked && state.history.floor_since == NONE;
                let confessed = node.floor > acked && state.history.called_in[p] < state.history.floor_since;
                node.table[p] >= acked || confessed || evicted
            })
        })
    }

    /// Whether a replaced owner waits for a follower that takes nothing from it any more.
    fn refuses(&self, state: &State) -> bool {
        let nodes = &state.nodes[..self.nodes];
        nodes.iter().any(|node| {
            let waits_for = |f: usize| node.waits[f] != 0 && nodes[f].up && nodes[f].epoch > node.epoch;
            node.owns && node.answers != 0 && (0..nodes.len()).any(waits_for)
        })
    }

    fn reachable(&self) -> Vec<Property<Self>> {
        macro_rules! sometimes {
            ($name:literal, $seen:ident) => {
                Property::<Self>::sometimes($name, |_, state| state.history.seen.0 & $seen != 0)
            };
        }
        let mut all = vec![sometimes!("a publish is acknowledged", SEEN_ACK)];
        let budget = &self.budget;
        if budget.replacements > 0 {
            all.push(sometimes!("a successor acknowledges", SEEN_ACK_BY_SUCCESSOR));
            if self.copies > 1 || budget.joins > 0 {
                all.push(sometimes!("a copy is promoted", SEEN_PROMOTION));
                all.push(Property::<Self>::sometimes(
                    "an older epoch is refused",
                    |model, state| model.refuses(state),
                ));
            }
            if usize::from(budget.crashes) >= self.copies || self.gossip_lies {
                all.push(sometimes!("a shard is given away without a copy", SEEN_EMPTY));
            }
        }
        if budget.joins > 0 {
            all.push(sometimes!("a copy joins", SEEN_JOIN));
        }
        if budget.removals > 0 {
            all.push(sometimes!("a copy is removed", SEEN_REMOVAL));
        }
        if budget.removals + budget.crashes > 0 && budget.joins > 0 && budget.replacements > 0 {
            all.push(sometimes!("an entry is refused by its condition", SEEN_CONDITION));
        }
        if budget.releases > 0 {
            all.push(sometimes!("a shard is handed over", SEEN_RELEASE));
        }
        if budget.retries > 0 {
            all.push(sometimes!("a duplicate is acknowledged", SEEN_DUPLICATE));
        }
        if budget.evictions > 0 {
            all.push(sometimes!("a version is evicted", SEEN_EVICTION));
        }
        if self.disks && budget.replacements > 0 && budget.crashes > 0 {
            all.push(sometimes!("a disk counts as a copy", SEEN_FROM_DISK));
        }
        all
    }
}
