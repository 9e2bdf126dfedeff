//! The half of the system that faces subscribers: links, edges, clients, and what history says about them.
//!
//! It does not know how a node came to own a shard. Whoever drives it (`scripted` with owners out of thin air, `whole`
//! with real copies) says what owners assign, announce and close; the front carries it to the clients. The edge follows
//! `router/src/edge/`: the same fields, and the same comparisons.

pub mod client;
pub mod edge;
pub mod link;

use crate::rule::Rules;
use client::Client;
use edge::Edge;
use link::Link;
use std::hash::{Hash, Hasher};

/// A version. Models count them one by one; 0 is none.
pub type Version = u8;
/// An epoch. 0 is none.
pub type Epoch = u8;

/// Most nodes that can own, as seen from edges.
pub const NODES: usize = 2;
/// Most edges.
pub const EDGES: usize = 2;
/// Most clients.
pub const CLIENTS: usize = 2;
/// Most shards.
pub const SHARDS: usize = 2;
/// Most objects.
pub const OBJECTS: usize = 2;
/// No node, no edge.
pub const NONE: u8 = u8::MAX;

/// A version for each object.
pub type Versions = [Version; OBJECTS];

/// How clients listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listening {
    /// On a connection, with cursors (WebSocket, event stream).
    Stream,
    /// On a connection, remembering the last version of each object instead of a cursor.
    KnownVersions,
    /// By long-poll: an answer, a cursor that lists what was told above it, and away.
    Poll,
}

/// How much of everything there is, and the rules.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Nodes that can own.
    pub nodes: usize,
    /// Edges.
    pub edges: usize,
    /// Clients.
    pub clients: usize,
    /// Shards; object `o` is in shard `o mod shards`.
    pub shards: usize,
    /// Objects.
    pub objects: usize,
    /// How clients listen.
    pub listening: Listening,
    /// Nothing can be lost, so nobody may be told to resync.
    pub nothing_lost: bool,
    /// A client that subscribes does not fetch: it has the object as of the version that `subscribed` names.
    pub trusting: bool,
    /// The rules in force.
    pub rules: Rules,
}

impl Shape {
    /// The shard of an object.
    #[must_use]
    pub const fn shard_of(&self, object: usize) -> usize {
        object % self.shards
    }

    /// The objects of a shard, as a mask.
    #[must_use]
    pub fn objects_of(&self, shard: usize) -> u8 {
        (0..self.objects)
            .filter(|&object| self.shard_of(object) == shard)
            .fold(0, |mask, object| mask | 1 << object)
    }

    /// All objects, as a mask.
    #[must_use]
    pub const fn all_objects(&self) -> u8 {
        (1 << self.objects) - 1
    }
}

/// The bits of a mask.
pub fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |bit| mask & 1 << bit != 0)
}

/// What must never happen and shows in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// P3: a version went back on one connection.
    WentBack = 1,
    /// P2: a version was named twice on one connection.
    Repeated = 2,
    /// P2: somebody was told to resync who knew all that could have been lost.
    Resynced = 4,
    /// R10: an owner that was replaced looked alive longer than its versions reach.
    LookedAlive = 8,
}

/// What happened, as nobody in the system knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The highest version that was assigned to each object, by anyone. A fetch of the source shows all that.
    pub assigned: Versions,
    /// The versions of each object that were acknowledged, as masks.
    pub acked: [u32; OBJECTS],
    /// [`Fault`]s, as a mask.
    pub faults: u8,
    /// For reachability: [`Seen`], as a mask.
    pub seen: Aside<u16>,
}

/// Something noted beside the state: two states that differ only here are one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aside<T>(pub T);

impl<T> PartialEq for Aside<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Aside<T> {}

impl<T> Hash for Aside<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What must be possible, or the properties would hold of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Seen {
    /// A change was told.
    Told = 1,
    /// A resync was told.
    Resync = 2,
    /// A client came back with a cursor and was told by comparing.
    CaughtUp = 4,
    /// A client came back to another edge.
    Moved = 8,
    /// A shard went to another node that had a copy.
    HandedOver = 16,
    /// A shard went to another node without a copy.
    Lost = 32,
    /// A cursor named a shard that lags.
    Lagged = 64,
    /// A cursor listed what was told above its base.
    Listed = 128,
    /// Versions were evicted.
    Evicted = 256,
    /// A frame of a replaced owner reached an edge.
    Stale = 512,
    /// A cursor was given.
    Cursor = 1024,
    /// A poll timed out.
    TimedOut = 2048,
}

impl History {
    /// A change got its version.
    pub fn assign(&mut self, object: usize, version: Version) {
        self.assigned[object] = self.assigned[object].max(version);
    }

    /// A change was acknowledged.
    pub fn ack(&mut self, object: usize, version: Version) {
        self.acked[object] |= 1 << version;
    }

    /// The newest acknowledged version of an object up to a version.
    #[must_use]
    pub fn acked_up_to(&self, object: usize, version: Version) -> Version {
        let mask = self.acked[object] & ((2u64 << version) - 1) as u32;
        (31 - (mask | 1).leading_zeros()) as Version
    }

    /// Notes a fault.
    pub fn fault(&mut self, fault: Fault) {
        self.faults |= fault as u8;
    }

    /// Whether a fault happened.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.faults & fault as u8 != 0
    }

    /// Notes that something was reached.
    pub fn saw(&mut self, seen: Seen) {
        self.seen.0 |= seen as u16;
    }

    /// Whether something was reached.
    #[must_use]
    pub fn reached(&self, seen: Seen) -> bool {
        self.seen.0 & seen as u16 != 0
    }
}

/// Links, edges and clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Front {
    /// From each node to each edge.
    pub links: [[Link; EDGES]; NODES],
    /// The edges.
    pub edges: [Edge; EDGES],
    /// The clients.
    pub clients: [Client; CLIENTS],
    /// What happened.
    pub history: History,
}

/// What an owner is, as far as its links show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnedShard {
    /// Since which epoch; 0 if not owned.
    pub epoch: Epoch,
    /// Below this it cannot vouch.
    pub floor: Version,
}

impl Front {
    /// Whether a client that waits for nothing and sees all of an object's owner knows what was acknowledged (P1).
    ///
    /// `calm` says of which shards, at which edge, the present owner's link is up and everything on it was handled.
    #[must_use]
    pub fn lost(&self, shape: &Shape, calm: impl Fn(usize, usize) -> bool) -> bool {
        (0..shape.clients).any(|c| {
            let client = &self.clients[c];
            client.at != NONE
                && client.page == 0
                && client.late.0 == 0
                && bits(client.live).any(|object| {
                    let settled = (client.pending | client.resync) & 1 << object == 0;
                    let acked = self.history.acked_up_to(object, 31);
                    settled && client.covered[object] < acked && calm(shape.shard_of(object), client.at.into())
                })
        })
    }

    /// Whether some client's cursor claims what it was not told (I2). Holds at any time, for whatever is acknowledged.
    #[must_use]
    pub fn cursor_lies(&self, shape: &Shape) -> bool {
        (0..shape.clients).any(|c| {
            let client = &self.clients[c];
            client.has_cursor
                && bits(client.counts).any(|object| {
                    let known = client.cursor.knows(object, shape.shard_of(object));
                    self.history.acked_up_to(object, known) > client.covered[object]
                })
        })
    }

    /// Whether an edge that could go on waits for ever: everything was handled, yet something is not answered.
    #[must_use]
    pub fn stuck(&self, shape: &Shape, calm: impl Fn(usize, usize) -> bool) -> bool {
        (0..shape.edges).any(|e| {
            let edge = &self.edges[e];
            let watched = |object: usize| edge.objects[object].present;
            (0..shape.objects)
                .any(|object| watched(object) && !edge.objects[object].registered && calm(shape.shard_of(object), e))
                || (0..shape.clients).any(|c| {
                    let client = &self.clients[c];
                    usize::from(client.at) == e
                        && client.page != 0
                        && bits(client.page).all(|object| calm(shape.shard_of(object), e))
                })
        })
    }
}
