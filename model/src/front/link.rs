//! What joins one owner with one edge: frames in order, both ways, and the owner's interest table for it.
//!
//! A link that breaks loses what is under way. The owner may notice late, and may still read what the edge sent on the
//! older generation: with rule R9 all that changes nothing, so it is modelled only where the rule is removed.

use super::edge::Edge;
use super::{Epoch, Front, OBJECTS, OwnedShard, SHARDS, Shape, Version, Versions, bits};
use crate::fifo::Fifo;
use crate::rule::Rule;

/// How many frames may be under way to an edge. A full link holds the owner back; cutting it is always possible.
pub const DOWN: usize = 5;
/// How many frames may be under way to an owner.
pub const UP: usize = 3;

/// What an owner says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ToEdge {
    /// Fills empty places of queues.
    #[default]
    Nothing,
    /// "I own this."
    Own {
        /// Shard.
        shard: u8,
        /// Since.
        epoch: Epoch,
        /// Vouched for from here up.
        floor: Version,
    },
    /// "No longer."
    Gone {
        /// Shard.
        shard: u8,
    },
    /// The answer to one `Register`.
    Registered {
        /// Which objects.
        objects: u8,
        /// Their versions.
        versions: Versions,
    },
    /// A change.
    Changed {
        /// Object.
        object: u8,
        /// Version.
        version: Version,
    },
    /// "All up to here was sent."
    Closed {
        /// Version.
        version: Version,
    },
}

/// What an edge says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ToOwner {
    /// Fills empty places of queues.
    #[default]
    Nothing,
    /// "Tell me of these." A mask of objects.
    Register(u8),
    /// "No longer."
    Unregister(u8),
}

/// One link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// Both ends are up.
    pub up: bool,
    /// To the edge.
    pub down: Fifo<ToEdge, DOWN>,
    /// To the owner.
    pub upward: Fifo<ToOwner, UP>,
    /// The objects the edge registered in this generation.
    pub interest: u8,
    /// Without R9.1: what the owner may yet read of the older generation, and whether its clean-up is to come.
    pub old: Option<Fifo<ToOwner, UP>>,
    /// Without R8.1: objects and versions that were read, their interest not yet inserted.
    pub half: Option<(u8, Versions)>,
}

impl Front {
    /// Whether every link of a node that is up takes `frames` more.
    #[must_use]
    pub fn has_room(&self, shape: &Shape, node: usize, frames: usize) -> bool {
        self.links[node][..shape.edges]
            .iter()
            .all(|link| !link.up || link.down.has_room(frames))
    }

    /// Tells the edges that want to hear of a change.
    pub fn notify(&mut self, shape: &Shape, node: usize, object: usize, version: Version) {
        for link in &mut self.links[node][..shape.edges] {
            if link.up && link.interest & 1 << object != 0 {
                link.down.push(ToEdge::Changed {
                    object: object as u8,
                    version,
                });
            }
        }
    }

    /// Tells all edges that a node owns a shard, or that its floor rose.
    pub fn announce(&mut self, shape: &Shape, node: usize, shard: usize, owned: OwnedShard) {
        for e in 0..shape.edges {
            if self.links[node][e].up {
                let frame = own(shape, shard, owned);
                self.links[node][e].down.push(frame);
            }
        }
    }

    /// Tells all edges that a node owns a shard no more.
    pub fn gone(&mut self, shape: &Shape, node: usize, shard: usize) {
        for link in &mut self.links[node][..shape.edges] {
            link.interest &= !shape.objects_of(shard);
            if link.up {
                link.down.push(ToEdge::Gone { shard: shard as u8 });
            }
        }
    }

    /// Closes a version on one link.
    pub fn close(&mut self, shape: &Shape, node: usize, e: usize, version: Version) {
        let link = &mut self.links[node][e];
        if !link.up {
            return;
        }
        if shape.rules.has(Rule::ClosedBehindChanges) {
            link.down.push(ToEdge::Closed { version });
        } else {
            self.edges[e].closed(shape, node, version);
        }
    }

    /// The link breaks. The edge sees it at once; what the owner still thinks of the older generation, see [`Link`].
    pub fn cut(&mut self, shape: &Shape, node: usize, e: usize) {
        let link = &mut self.links[node][e];
        let old = (!shape.rules.has(Rule::InterestHasGeneration)).then_some(link.upward);
        let interest = if old.is_some() { link.interest } else { 0 };
        *link = Link {
            old,
            interest,
            ..Link::default()
        };
        self.edges[e].owner_down(shape, node);
    }

    /// A new generation of the link: the owner says what it owns.
    pub fn connect(&mut self, shape: &Shape, node: usize, e: usize, owned: &[OwnedShard; SHARDS]) {
        let link = &mut self.links[node][e];
        link.up = true;
        for (shard, owned) in owned.iter().enumerate().take(shape.shards) {
            if owned.epoch > 0 {
                link.down.push(own(shape, shard, *owned));
            }
        }
    }

    /// Without R9.1: the owner reads a frame of the older generation, or cleans up after it.
    pub fn old_generation(&mut self, node: usize, e: usize, clean: bool) {
        let link = &mut self.links[node][e];
        let Some(old) = &mut link.old else { return };
        match old.pop() {
            Some(ToOwner::Unregister(objects)) => link.interest &= !objects,
            Some(ToOwner::Register(objects)) => link.interest |= objects,
            Some(ToOwner::Nothing) | None => {}
        }
        if clean {
            link.interest = 0;
            link.old = None;
        }
    }

    /// The owner reads one frame of an edge. One step (R8.1), or its first half.
    pub fn owner_reads(&mut self, shape: &Shape, node: usize, e: usize, table: &Versions, owned: u8) {
        let link = &mut self.links[node][e];
        match link.upward.pop() {
            Some(ToOwner::Register(objects)) => {
                let mut versions = [0; OBJECTS];
                bits(objects & owned).for_each(|object| versions[object] = table[object]);
                if shape.rules.has(Rule::RegisterInOneStep) {
                    link.interest |= objects & owned;
                    link.down.push(ToEdge::Registered { objects, versions });
                } else {
                    link.half = Some((objects, versions));
                }
            }
            Some(ToOwner::Unregister(objects)) => link.interest &= !objects,
            Some(ToOwner::Nothing) | None => {}
        }
    }

    /// Without R8.1: the second half of a registration.
    pub fn finish_registration(&mut self, node: usize, e: usize) {
        let link = &mut self.links[node][e];
        if let Some((objects, versions)) = link.half.take() {
            link.interest |= objects;
            link.down.push(ToEdge::Registered { objects, versions });
        }
    }

    /// The edge reads one frame of an owner.
    pub fn edge_reads(&mut self, shape: &Shape, node: usize, e: usize) {
        let Some(frame) = self.links[node][e].down.pop() else {
            return;
        };
        match frame {
            ToEdge::Own { shard, epoch, floor } => self.own(shape, node, e, shard.into(), epoch, floor),
            ToEdge::Gone { shard } => self.edges[e].gone(shape, node, shard.into()),
            ToEdge::Registered { objects, versions } => self.registered(shape, node, e, objects, versions),
            ToEdge::Changed { object, version } => self.changed(shape, e, object.into(), version),
            ToEdge::Closed { version } => self.edges[e].closed(shape, node, version),
            ToEdge::Nothing => {}
        }
    }

    /// The edge asks an owner about objects, if their shard has one and the link is up. Each shard's are asked for by
    /// themselves. `false` if there is no room; nothing was changed then.
    pub fn ask(&mut self, shape: &Shape, e: usize, objects: u8) {
        for shard in 0..shape.shards {
            let node = self.edges[e].shards[shard].owner;
            let objects = objects & shape.objects_of(shard);
            if objects != 0 && node != super::NONE {
                self.links[usize::from(node)][e].upward.push(ToOwner::Register(objects));
                self.edges[e].outstanding[usize::from(node)] += 1;
            }
        }
    }

    /// Whether the edge's links take what a step of it may send.
    #[must_use]
    pub fn edge_has_room(&self, shape: &Shape, e: usize, frames: usize) -> bool {
        (0..shape.nodes).all(|node| self.links[node][e].upward.has_room(frames))
    }
}

fn own(shape: &Shape, shard: usize, owned: OwnedShard) -> ToEdge {
    let floor = if shape.rules.has(Rule::FloorInAnswer) {
        owned.floor
    } else {
        0
    };
    ToEdge::Own {
        shard: shard as u8,
        epoch: owned.epoch,
        floor,
    }
}

/// Only what the edge itself knows of its links.
impl Edge {
    /// An answer arrived.
    pub(super) fn answered(&mut self, shape: &Shape, node: usize) {
        self.outstanding[node] = self.outstanding[node].saturating_sub(1);
        for shard in &mut self.shards[..shape.shards] {
            if usize::from(shard.owner) == node {
                shard.awaiting = shard.awaiting.saturating_sub(1);
            }
        }
    }
}
