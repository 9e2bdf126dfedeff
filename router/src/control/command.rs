//! How the map changes. Every command names what it takes for granted; applied to a map where that is no longer so, it
//! changes nothing (rule R6). So commands of a leader that lost its office, and of owners that were replaced, do no harm.
//!
//! It does not know who proposes, or why.

use super::map::{MOST_COPIES, MOST_NODES, Map, Node, NodeInfo, Process, Shard};
use crate::access::revocations::{Bounds, RevokeError, Target};
use serde::{Deserialize, Serialize};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, NodeId, ShardId, Version};

/// With what a new owner begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum With {
    /// Nobody owned the shard before: there is nothing to know.
    Fresh,
    /// It is in sync.
    Copy,
    /// An earlier process of its node was the owner or in sync, and its disk is proven complete.
    Disk,
    /// It has nothing: the floor rises to its first version (rule R5).
    Nothing(FloorCause),
}

/// On which state of the shard a command was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its in-sync set.
    pub in_sync: Vec<Process>,
    /// How often something was agreed about it.
    pub turn: u64,
}

impl Seen {
    /// The shard as it is in the map now. `None` if there is no such shard.
    #[must_use]
    pub fn of(map: &Map, shard: ShardId) -> Option<Self> {
        let known = map.shard(shard)?;
        Some(Self {
            shard,
            epoch: known.epoch,
            in_sync: known.in_sync.clone(),
            turn: known.turn,
        })
    }
}

/// One change of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A process is there, or has news of itself.
    Register {
        /// Which.
        process: Process,
        /// What it says of itself.
        info: NodeInfo,
    },
    /// A node is to give up what it holds, or no longer.
    Drain {
        /// Which.
        node: NodeId,
        /// Whether it should.
        draining: bool,
    },
    /// A node is no more. Refused while some shard names it.
    Forget {
        /// Which.
        node: NodeId,
    },
    /// So many copies should a shard have.
    SetCopies {
        /// From 1 to [`MOST_COPIES`].
        copies: u8,
    },
    /// Versions may be given up to here.
    RaiseCeiling {
        /// The highest version allowed.
        to: Version,
    },
    /// A shard gets another owner: the next epoch begins above the ceiling.
    Assign {
        /// What is taken for granted.
        seen: Seen,
        /// The new owner.
        to: Process,
        /// With what it begins.
        with: With,
    },
    /// A process should get a copy of a shard.
    Fill {
        /// What is taken for granted.
        seen: Seen,
        /// Who.
        member: Process,
    },
    /// The owner says: from here on it waits for this one before it acknowledges, and this one has everything.
    Join {
        /// What is taken for granted.
        seen: Seen,
        /// Who.
        member: Process,
    },
    /// Somebody is not, or no longer to be, in sync or on the way there.
    Remove {
        /// What is taken for granted.
        seen: Seen,
        /// Who.
        member: Process,
    },
    /// The owner should hand over to this one, or to nobody.
    Move {
        /// What is taken for granted.
        seen: Seen,
        /// To whom.
        to: Option<Process>,
    },
    /// An operator wants the shard to stay with this node once it is there, or lets it go again. Over when another node becomes
    /// its owner.
    Pin {
        /// The shard.
        shard: ShardId,
        /// Where.
        to: Option<NodeId>,
    },
    /// The owner has acknowledged its last change of the epoch and hands over to one that is in sync. It stays in sync
    /// itself. The ceiling rises a little above where the next epoch begins. To itself it may hand over too: that makes an earlier release, whose fate it does not know, void, so that it
    /// may acknowledge again.
    Release {
        /// What is taken for granted.
        seen: Seen,
        /// The owner.
        from: Process,
        /// Its successor.
        to: Process,
    },
    /// The owner can vouch for less than before.
    RaiseFloor {
        /// The shard.
        shard: ShardId,
        /// In which epoch.
        epoch: Epoch,
        /// The owner.
        by: Process,
        /// The new floor.
        floor: Version,
        /// Why.
        cause: FloorCause,
    },
    /// These tokens count no more.
    Revoke {
        /// Whose.
        target: Target,
        /// Which of them, and for how long that must be known.
        bounds: Bounds,
        /// What has had its time by then is forgotten; seconds since the Unix epoch.
        now_s: u64,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// Something was agreed about the shard since. Look at the map and decide anew.
    #[error("the shard changed since the command was decided")]
    Changed,
    /// There is no such shard.
    #[error("no such shard")]
    NoSuchShard,
    /// The process is not known, or its node has started again since.
    #[error("the process is not known, or no longer the node's present one")]
    NotCurrent,
    /// The node does not take this part.
    #[error("the node is not there to own shards")]
    NotAnOwner,
    /// The process has no such part in the shard.
    #[error("the process is not the shard's owner, in sync or on the way there, as the command says")]
    NotItsPart,
    /// What is to rise would not.
    #[error("what is to rise is as high already")]
    NotHigher,
    /// Versions have come to their end.
    #[error("no versions are left above the ceiling")]
    NoVersions,
    /// The node is still named by a shard.
    #[error("a shard still names the node")]
    StillNamed,
    /// The cluster is full, or the number is out of its range.
    #[error("beyond the limit")]
    Limit,
    /// It is so already.
    #[error("it is so already")]
    Same,
    /// No token can have such a name.
    #[error("no token can have such a name")]
    NoSuchName,
}

/// So many versions an epoch that begins by handing over has at once. More would run further ahead of clocks with each of many
/// moves in a row.
const HANDED_OVER_ROOM: u64 = 10_000;

impl Map {
    /// Applies one command: all of it or, refused, nothing.
    ///
    /// # Errors
    /// Says why the map stays as it was.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            // The ceiling is not news of nodes or shards: the revision stays.
            Command::RaiseCeiling { to } => return self.raise_ceiling(*to),
            // Nor are tokens.
            Command::Revoke { target, bounds, now_s } => return self.revoke(target, *bounds, *now_s),
            Command::Register { process, info } => self.register(*process, info)?,
            Command::Drain { node, draining } => self.drain(*node, *draining)?,
            Command::Forget { node } => self.forget(*node)?,
            Command::SetCopies { copies } => self.set_copies(*copies)?,
            Command::Assign { seen, to, with } => self.assign(seen, *to, *with)?,
            Command::Fill { seen, member } => self.fill(seen, *member)?,
            Command::Join { seen, member } => self.join(seen, *member)?,
            Command::Remove { seen, member } => self.remove(seen, *member)?,
            Command::Move { seen, to } => self.set_moving(seen, *to)?,
            Command::Pin { shard, to } => self.pin(*shard, *to)?,
            Command::Release { seen, from, to } => self.hand_over(seen, *from, *to)?,
            Command::RaiseFloor {
                shard,
                epoch,
                by,
                floor,
                cause,
            } => self.raise_floor(*shard, *epoch, *by, (*floor, *cause))?,
        }
        self.revision += 1;
        Ok(())
    }

    fn raise_ceiling(&mut self, to: Version) -> Result<(), Refusal> {
        if to.0 >= Version::LIMIT {
            return Err(Refusal::NoVersions);
        }
        if to <= self.ceiling {
            return Err(Refusal::NotHigher);
        }
        self.ceiling = to;
        Ok(())
    }

    fn revoke(&mut self, target: &Target, bounds: Bounds, now_s: u64) -> Result<(), Refusal> {
        self.revocations
            .revoke(target.clone(), bounds, now_s)
            .map_err(|error| match error {
                RevokeError::Full => Refusal::Limit,
                RevokeError::Name => Refusal::NoSuchName,
                RevokeError::Same => Refusal::Same,
            })
    }

    fn register(&mut self, process: Process, info: &NodeInfo) -> Result<(), Refusal> {
        if process.node.is_edge() && info.roles.owner {
            return Err(Refusal::NotAnOwner);
        }
        let room = self.nodes.len() < MOST_NODES;
        match self.nodes.get_mut(&process.node) {
            Some(node) if node.incarnation > process.incarnation => return Err(Refusal::NotCurrent),
            Some(node) if node.incarnation == process.incarnation && node.info == *info => return Err(Refusal::Same),
            Some(node) => {
                // A node that was drained and comes back is there to be used.
                node.draining &= node.incarnation == process.incarnation;
                node.incarnation = process.incarnation;
                node.info = info.clone();
            }
            None if !room => return Err(Refusal::Limit),
            None => {
                let node = Node {
                    incarnation: process.incarnation,
                    info: info.clone(),
                    draining: false,
                };
                self.nodes.insert(process.node, node);
            }
        }
        Ok(())
    }

    fn drain(&mut self, node: NodeId, draining: bool) -> Result<(), Refusal> {
        let known = self.nodes.get_mut(&node).ok_or(Refusal::NotCurrent)?;
        if known.draining == draining {
            return Err(Refusal::Same);
        }
        known.draining = draining;
        Ok(())
    }

    fn forget(&mut self, node: NodeId) -> Result<(), Refusal> {
        if self.shards.iter().any(|shard| shard.involves(node)) {
            return Err(Refusal::StillNamed);
        }
        self.nodes.remove(&node).ok_or(Refusal::NotCurrent)?;
        for shard in &mut self.shards {
            shard.pinned = shard.pinned.filter(|pinned| *pinned != node);
        }
        Ok(())
    }

    fn set_copies(&mut self, copies: u8) -> Result<(), Refusal> {
        if !(1..=MOST_COPIES).contains(&copies) {
            return Err(Refusal::Limit);
        }
        if copies == self.copies {
            return Err(Refusal::Same);
        }
        self.copies = copies;
        Ok(())
    }

    /// A process that may take part in shards.
    fn expect_owner(&self, process: Process) -> Result<(), Refusal> {
        if !self.is_current(process) {
            return Err(Refusal::NotCurrent);
        }
        let owns = self.nodes[&process.node].info.roles.owner;
        if owns { Ok(()) } else { Err(Refusal::NotAnOwner) }
    }

    fn expect(&mut self, seen: &Seen) -> Result<&mut Shard, Refusal> {
        let shard = self.shards.get_mut(usize::from(seen.shard.0));
        let shard = shard.ok_or(Refusal::NoSuchShard)?;
        if shard.epoch != seen.epoch || shard.in_sync != seen.in_sync || shard.turn != seen.turn {
            return Err(Refusal::Changed);
        }
        Ok(shard)
    }

    /// The first version of an epoch that begins now: above whatever may have been given or closed.
    fn next_begin(&self) -> Result<Version, Refusal> {
        let begins = self.ceiling.next();
        (begins.0 < Version::LIMIT).then_some(begins).ok_or(Refusal::NoVersions)
    }

    fn assign(&mut self, seen: &Seen, to: Process, with: With) -> Result<(), Refusal> {
        self.expect_owner(to)?;
        let begins = self.next_begin()?;
        let shard = self.expect(seen)?;
        let held = |process: &Process| process.node == to.node && process.incarnation < to.incarnation;
        let fits = match with {
            With::Fresh => shard.epoch == Epoch(0),
            With::Copy => shard.in_sync.contains(&to),
            With::Disk => shard.owner.iter().chain(&shard.in_sync).any(held),
            With::Nothing(_) => shard.epoch > Epoch(0),
        };
        if !fits {
            return Err(Refusal::NotItsPart);
        }
        if let With::Nothing(cause) = with {
            shard.in_sync.clear();
            shard.floor = begins;
            shard.cause = cause;
        }
        shard.begin(to, begins);
        Ok(())
    }

    fn fill(&mut self, seen: &Seen, member: Process) -> Result<(), Refusal> {
        self.expect_owner(member)?;
        let shard = self.expect(seen)?;
        let owns = shard.owner.is_none_or(|owner| owner.node == member.node);
        if owns || shard.in_sync.contains(&member) || shard.filling.contains(&member) {
            return Err(Refusal::NotItsPart);
        }
        shard.filling.retain(|other| other.node != member.node);
        // What an earlier process of the node had is overwritten from here on.
        shard.in_sync.retain(|other| other.node != member.node);
        shard.filling.push(member);
        shard.filling.sort_unstable();
        shard.turn += 1;
        Ok(())
    }

    fn join(&mut self, seen: &Seen, member: Process) -> Result<(), Refusal> {
        self.expect_owner(member)?;
        let shard = self.expect(seen)?;
        if !shard.filling.contains(&member) {
            return Err(Refusal::NotItsPart);
        }
        shard.filling.retain(|other| *other != member);
        shard.in_sync.push(member);
        shard.in_sync.sort_unstable();
        shard.turn += 1;
        Ok(())
    }

    fn remove(&mut self, seen: &Seen, member: Process) -> Result<(), Refusal> {
        let shard = self.expect(seen)?;
        let before = shard.in_sync.len() + shard.filling.len();
        shard.in_sync.retain(|other| *other != member);
        shard.filling.retain(|other| *other != member);
        if shard.in_sync.len() + shard.filling.len() == before {
            return Err(Refusal::NotItsPart);
        }
        shard.moving = shard.moving.filter(|to| *to != member);
        shard.turn += 1;
        Ok(())
    }

    fn set_moving(&mut self, seen: &Seen, to: Option<Process>) -> Result<(), Refusal> {
        if let Some(to) = to {
            self.expect_owner(to)?;
        }
        let shard = self.expect(seen)?;
        if shard.moving == to {
            return Err(Refusal::Same);
        }
        if to.is_some_and(|to| !shard.in_sync.contains(&to) && !shard.filling.contains(&to)) {
            return Err(Refusal::NotItsPart);
        }
        shard.moving = to;
        shard.turn += 1;
        Ok(())
    }

    fn pin(&mut self, id: ShardId, to: Option<NodeId>) -> Result<(), Refusal> {
        if to.is_some_and(|to| !self.nodes.contains_key(&to)) {
            return Err(Refusal::NotCurrent);
        }
        let shard = self.shards.get_mut(usize::from(id.0)).ok_or(Refusal::NoSuchShard)?;
        if shard.pinned == to {
            return Err(Refusal::Same);
        }
        shard.pinned = to;
        Ok(())
    }

    fn hand_over(&mut self, seen: &Seen, from: Process, to: Process) -> Result<(), Refusal> {
        self.expect_owner(to)?;
        let begins = self.next_begin()?;
        let shard = self.expect(seen)?;
        if shard.owner != Some(from) || (to != from && !shard.in_sync.contains(&to)) {
            return Err(Refusal::NotItsPart);
        }
        shard.begin(to, begins);
        if to != from {
            shard.in_sync.push(from);
            shard.in_sync.sort_unstable();
        }
        // The next epoch has room at once, however soon the coordinator looks.
        let room = Version((begins.0 + HANDED_OVER_ROOM).min(Version::LIMIT - 1));
        self.ceiling = self.ceiling.max(room);
        Ok(())
    }

    fn raise_floor(
        &mut self,
        id: ShardId,
        epoch: Epoch,
        by: Process,
        (floor, cause): (Version, FloorCause),
    ) -> Result<(), Refusal> {
        let ceiling = self.ceiling;
        let shard = self.shards.get_mut(usize::from(id.0)).ok_or(Refusal::NoSuchShard)?;
        if shard.epoch != epoch || shard.owner != Some(by) {
            return Err(Refusal::Changed);
        }
        if floor <= shard.floor {
            return Err(Refusal::NotHigher);
        }
        if floor > ceiling.next() {
            return Err(Refusal::NoVersions);
        }
        shard.floor = floor;
        shard.cause = cause;
        Ok(())
    }
}

impl Shard {
    /// The next epoch, with what the shard's other copies still have.
    fn begin(&mut self, owner: Process, begins: Version) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.in_sync.retain(|other| other.node != owner.node);
        self.pinned = self.pinned.filter(|node| *node == owner.node);
        self.owner = Some(owner);
        self.begins = begins;
        self.turn += 1;
        self.filling.clear();
        self.moving = None;
    }
}
