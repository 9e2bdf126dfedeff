//! The edge: after `router/src/edge/upstream.rs` and `catch_up.rs`, with a number for each queue of answers.

use super::{Epoch, Fault, Front, Listening, NODES, NONE, OBJECTS, SHARDS, Seen, Shape, Version, Versions, bits};
use crate::rule::Rule;

/// What an edge knows of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeShard {
    /// Who said `Own`.
    pub owner: u8,
    /// Since.
    pub epoch: Epoch,
    /// The highest floor it was told.
    pub floor: Version,
    /// Everything up to here has arrived.
    pub closed: Version,
    /// How many answers of the owner must come before its `Closed` counts.
    pub awaiting: u8,
    /// Without R3.1: the nodes that ever said `Own`.
    pub said: u8,
}

/// What an edge knows of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeObject {
    /// Somebody watches it, or did lately.
    pub present: bool,
    /// An owner answered that it is registered.
    pub registered: bool,
    /// The newest version that it heard of.
    pub version: Version,
}

/// One edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Its shards.
    pub shards: [EdgeShard; SHARDS],
    /// Its objects.
    pub objects: [EdgeObject; OBJECTS],
    /// Registrations not yet answered, on each link.
    pub outstanding: [u8; NODES],
}

impl Default for EdgeShard {
    fn default() -> Self {
        Self {
            owner: NONE,
            epoch: 0,
            floor: 0,
            closed: 0,
            awaiting: 0,
            said: 0,
        }
    }
}

impl Edge {
    /// `Closed` of a node.
    pub fn closed(&mut self, shape: &Shape, node: usize, version: Version) {
        for shard in &mut self.shards[..shape.shards] {
            let owned = if shape.rules.has(Rule::ClosedCoversOwned) {
                usize::from(shard.owner) == node
            } else {
                shard.said & 1 << node != 0
            };
            let answered = shard.awaiting == 0 || !shape.rules.has(Rule::ClosedBehindAnswers);
            if owned && answered {
                shard.closed = shard.closed.max(version);
            }
        }
    }

    /// A node owns a shard no more.
    pub fn gone(&mut self, shape: &Shape, node: usize, shard: usize) {
        let entry = &mut self.shards[shard];
        if usize::from(entry.owner) != node {
            return;
        }
        entry.owner = NONE;
        for object in bits(shape.objects_of(shard)) {
            self.objects[object].registered = false;
        }
    }

    /// The link to a node broke: none of its shards has an owner until one says `Own`.
    pub fn owner_down(&mut self, shape: &Shape, node: usize) {
        for shard in 0..shape.shards {
            self.gone(shape, node, shard);
            self.shards[shard].said &= !(1 << node);
        }
        self.outstanding[node] = 0;
    }

    /// The objects of a mask that are present.
    #[must_use]
    pub fn present(&self, mask: u8) -> u8 {
        bits(mask)
            .filter(|&object| self.objects[object].present)
            .fold(0, |mask, object| mask | 1 << object)
    }

    /// Whether all objects of a mask are registered.
    #[must_use]
    pub fn all_registered(&self, mask: u8) -> bool {
        bits(mask).all(|object| self.objects[object].registered)
    }
}

/// What comparing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    Newer,
    Unknown,
}

impl Front {
    /// An owner says what it owns, or that a floor rose.
    pub(super) fn own(&mut self, shape: &Shape, node: usize, e: usize, shard: usize, epoch: Epoch, floor: Version) {
        let entry = &mut self.edges[e].shards[shard];
        if epoch < entry.epoch && shape.rules.has(Rule::EdgeRefuses) {
            self.history.saw(Seen::Stale);
            return;
        }
        let known = floor.saturating_sub(1) <= entry.closed;
        let doubt = if shape.rules.has(Rule::FloorComparedWithClosed) {
            floor > entry.floor && floor.saturating_sub(1) > entry.closed
        } else {
            floor > 0
        };
        entry.floor = entry.floor.max(floor);
        let new = usize::from(entry.owner) != node || entry.epoch != epoch;
        entry.epoch = epoch;
        entry.owner = node as u8;
        if !shape.rules.has(Rule::ClosedCoversOwned) {
            entry.said |= 1 << node;
        }
        if doubt && shape.rules.has(Rule::FloorMeansResync) {
            for object in bits(shape.objects_of(shard)) {
                let vouched = self.edges[e].objects[object].version >= floor;
                if !vouched || !shape.rules.has(Rule::VouchedIsTold) {
                    self.resync_watchers(shape, e, object, vouched || known);
                }
            }
        }
        if new {
            let watched = self.edges[e].present(shape.objects_of(shard));
            if shape.rules.has(Rule::RegisterAgain) {
                bits(watched).for_each(|object| self.edges[e].objects[object].registered = false);
                self.ask(shape, e, watched);
            } else {
                bits(watched).for_each(|object| self.edges[e].objects[object].registered = true);
            }
            self.edges[e].shards[shard].awaiting = self.edges[e].outstanding[node];
        }
    }

    /// Everyone who watches an object must fetch it; `needless` if nothing of it can have been lost.
    fn resync_watchers(&mut self, shape: &Shape, e: usize, object: usize, needless: bool) {
        for client in &mut self.clients[..shape.clients] {
            if usize::from(client.at) == e && client.live & 1 << object != 0 {
                client.resync |= 1 << object;
                if needless {
                    self.history.fault(Fault::Resynced);
                }
            }
        }
    }

    /// The answer to a registration.
    pub(super) fn registered(&mut self, shape: &Shape, node: usize, e: usize, objects: u8, versions: Versions) {
        self.edges[e].answered(shape, node);
        for object in bits(objects) {
            if usize::from(self.edges[e].shards[shape.shard_of(object)].owner) != node {
                continue;
            }
            if self.edges[e].objects[object].present {
                self.edges[e].objects[object].registered = true;
                self.advance(shape, e, object, versions[object]);
            }
        }
        self.pages_progress(shape, e);
    }

    /// A change.
    pub(super) fn changed(&mut self, shape: &Shape, e: usize, object: usize, version: Version) {
        if self.edges[e].objects[object].present {
            self.advance(shape, e, object, version);
        }
    }

    fn advance(&mut self, shape: &Shape, e: usize, object: usize, version: Version) {
        let entry = &mut self.edges[e].objects[object];
        let rises = shape.rules.has(Rule::VersionRises);
        if (rises && version <= entry.version) || version == 0 {
            return;
        }
        entry.version = version;
        for client in &mut self.clients[..shape.clients] {
            let watches = client.live
                | if shape.rules.has(Rule::PageFirst) {
                    0
                } else {
                    client.page
                };
            if usize::from(client.at) == e && watches & 1 << object != 0 {
                client.pending |= 1 << object;
            }
        }
    }

    /// Answers the pages whose objects are all registered: compares, and the client is live.
    pub(super) fn pages_progress(&mut self, shape: &Shape, e: usize) {
        for c in 0..shape.clients {
            let client = &self.clients[c];
            if usize::from(client.at) == e && client.page != 0 && self.edges[e].all_registered(client.page) {
                self.answer_page(shape, c, e);
            }
        }
    }

    fn answer_page(&mut self, shape: &Shape, c: usize, e: usize) {
        for object in bits(self.clients[c].page) {
            let missed = self.missed(shape, c, e, object);
            let version = self.edges[e].objects[object].version;
            let assigned = self.history.assigned[object];
            let client = &mut self.clients[c];
            match missed {
                // It starts from now, and fetches what there is once it is subscribed.
                None => {
                    client.covered[object] = if shape.trusting { version } else { assigned };
                    client.subscribed_at(shape, object, version);
                }
                Some(Missed::Nothing) => {}
                Some(Missed::Newer) => {
                    self.history.saw(Seen::CaughtUp);
                    client.pending |= 1 << object;
                }
                Some(Missed::Unknown) => {
                    client.resync |= 1 << object;
                    if version >= self.edges[e].shards[shape.shard_of(object)].floor {
                        self.history.fault(Fault::Resynced);
                    }
                }
            }
        }
        let client = &mut self.clients[c];
        client.live |= client.page;
        client.page = 0;
        client.page_with_cursor = 0;
        client.page_asked = false;
    }

    /// Compares one object with what the client brought; `None` if it brought nothing.
    fn missed(&self, shape: &Shape, c: usize, e: usize, object: usize) -> Option<Missed> {
        let client = &self.clients[c];
        if client.page_with_cursor & 1 << object == 0 {
            return None;
        }
        let shard = shape.shard_of(object);
        let known = client.cursor.knows(object, shard);
        let version = self.edges[e].objects[object].version;
        let floor = self.edges[e].shards[shard].floor;
        let rules = &shape.rules;
        let compares = match shape.listening {
            Listening::KnownVersions => rules.has(Rule::KnownComparesFloor),
            Listening::Stream | Listening::Poll => rules.has(Rule::CatchUpComparesFloor),
        } && (client.page_asked || rules.has(Rule::IndexComparesFloor));
        let below = version < floor || !rules.has(Rule::VouchedIsTold);
        Some(if compares && below && known < floor.saturating_sub(1) {
            Missed::Unknown
        } else if version > known {
            Missed::Newer
        } else {
            Missed::Nothing
        })
    }

    /// The last subscriber of an object left, and its linger is over.
    pub fn linger_over(&mut self, e: usize, object: usize, shape: &Shape) {
        let edge = &mut self.edges[e];
        edge.objects[object] = EdgeObject::default();
        let node = edge.shards[shape.shard_of(object)].owner;
        if node != NONE {
            let frame = super::link::ToOwner::Unregister(1 << object);
            self.links[usize::from(node)][e].upward.push(frame);
        }
    }

    /// What a client is told of one object: marks of what must not be.
    pub(super) fn told(&mut self, c: usize, object: usize, version: Version) {
        let client = &mut self.clients[c];
        if version < client.last_told[object] {
            self.history.fault(Fault::WentBack);
        } else if version == client.last_told[object] {
            self.history.fault(Fault::Repeated);
        }
        client.last_told[object] = version;
        client.covered[object] = client.covered[object].max(version);
        self.history.saw(Seen::Told);
    }
}
