//! What operators order: drain a node, move a shard, remove a node. Pure: a map and who lives come in, commands go out, or why
//! not.
//!
//! An order that was carried out already is none, so that it may be given again. It does not know how commands reach the log,
//! or what became of earlier orders.

use std::collections::BTreeSet;
use tidings_protocol::{NodeId, ShardId};
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::map::{Map, Process, Shard};

/// What an order is judged by.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// What was agreed.
    pub map: &'a Map,
    /// Who lives, as far as this node knows.
    pub alive: BTreeSet<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who lives and would vote, whether it does or not.
    pub willing: BTreeSet<NodeId>,
}

/// Why an order is not carried out. **Nothing was changed.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum No {
    /// There is no such node.
    #[error("the cluster knows no such node")]
    NoSuchNode,
    /// There is no such shard.
    #[error("there is no shard {0}")]
    NoSuchShard(ShardId),
    /// Nobody could take what the node has.
    #[error("no other node that lives and owns shards could take its shards: they would have to stay")]
    NobodyElse,
    /// The target is not there to own shards.
    #[error("that node does not own shards (server.roles)")]
    NotAnOwner,
    /// The target drains.
    #[error("that node is draining: `--undo` first")]
    Draining,
    /// The target is not alive.
    #[error("that node is not alive, as far as the node that was asked knows")]
    NotAlive,
    /// The shard has no living owner that could hand it over.
    #[error("shard {0} has no living owner that could hand it over: it is about to get one")]
    NoOwner(ShardId),
    /// Who is removed must be gone.
    #[error("that node is alive: drain it and stop it first, else it would only come back")]
    Alive,
    /// Nobody else has what the node has.
    #[error(
        "no other living node has a copy of {} of this node: {}. Bring it back with its disk, or wait until they have other \
         owners. Or say `force`: they then begin empty, and everybody who watches one of their objects is told to fetch it again",
        count(.0.len()), list(.0)
    )]
    OnlyCopy(Vec<ShardId>),
    /// Without it nothing could be agreed on.
    #[error("fewer than half of the voters would be left alive: nothing could be agreed on")]
    Majority,
}

/// Shards that are named one by one.
const NAMED: usize = 8;

fn count(shards: usize) -> String {
    format!("{shards} shard{}", if shards == 1 { "" } else { "s" })
}

fn list(shards: &[ShardId]) -> String {
    let mut named: Vec<String> = shards.iter().take(NAMED).map(ToString::to_string).collect();
    if shards.len() > NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

/// What is left of a node in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Shards that it owns.
    pub owned: usize,
    /// Shards of which it has a complete copy.
    pub copies: usize,
    /// Shards of which it is getting a copy.
    pub filling: usize,
}

impl Share {
    /// What the map says of a node, whichever life of it.
    #[must_use]
    pub fn of(map: &Map, node: NodeId) -> Self {
        let mut share = Self::default();
        for (_, shard) in map.shards() {
            share.owned += usize::from(shard.owner.is_some_and(|owner| owner.node == node));
            share.copies += usize::from(shard.in_sync.iter().any(|copy| copy.node == node));
            share.filling += usize::from(shard.filling.iter().any(|copy| copy.node == node));
        }
        share
    }

    /// In how many shards it has a part.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.owned + self.copies + self.filling
    }
}

/// How to remove a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Who should vote, if that changes.
    pub voters: Option<BTreeSet<NodeId>>,
    /// What to propose now, one by one.
    pub commands: Vec<Command>,
    /// Shards that name it still after that: their owner is yet to be replaced.
    pub left: usize,
}

impl Scene<'_> {
    fn process(&self, node: NodeId) -> Result<Process, No> {
        let known = self.map.node(node).ok_or(No::NoSuchNode)?;
        let incarnation = known.incarnation;
        Ok(Process { node, incarnation })
    }

    /// Whether the process lives and is the present one of its node.
    fn lives(&self, process: Process) -> bool {
        self.alive.contains(&process.node) && self.map.is_current(process)
    }

    /// A node is to give up what it has, or no longer.
    ///
    /// # Errors
    /// If there is no such node, or nobody could take its shards.
    pub fn drain(&self, node: NodeId, draining: bool) -> Result<Vec<Command>, No> {
        let known = self.map.node(node).ok_or(No::NoSuchNode)?;
        if known.draining == draining {
            return Ok(Vec::new());
        }
        let others = || {
            let others = self
                .map
                .nodes()
                .filter(|(other, _)| *other != node && self.alive.contains(other));
            others
                .filter(|(_, other)| other.info.roles.owner && !other.draining)
                .count()
        };
        if draining && known.info.roles.owner && others() == 0 {
            return Err(No::NobodyElse);
        }
        Ok(vec![Command::Drain { node, draining }])
    }

    /// A shard is to go to a node, and to stay there.
    ///
    /// # Errors
    /// If there is no such shard or node, the node may not have it, or nobody could hand it over.
    pub fn relocate(&self, id: ShardId, node: NodeId) -> Result<Vec<Command>, No> {
        let shard = self.map.shard(id).ok_or(No::NoSuchShard(id))?;
        let to = self.process(node)?;
        let known = self.map.node(node).ok_or(No::NoSuchNode)?;
        if !known.info.roles.owner {
            return Err(No::NotAnOwner);
        }
        if known.draining {
            return Err(No::Draining);
        }
        if !self.lives(to) {
            return Err(No::NotAlive);
        }
        let owner = shard.owner.filter(|owner| self.lives(*owner)).ok_or(No::NoOwner(id))?;
        let mut commands = Vec::new();
        if shard.pinned != Some(node) {
            let to = Some(node);
            commands.push(Command::Pin { shard: id, to });
        }
        if owner.node != node && shard.moving != Some(to) {
            commands.extend(self.to_move(id, shard, to));
        }
        Ok(commands)
    }

    /// The target gets a copy first, if it has none.
    fn to_move(&self, id: ShardId, shard: &Shard, to: Process) -> Vec<Command> {
        let mut seen = Seen {
            shard: id,
            epoch: shard.epoch,
            in_sync: shard.in_sync.clone(),
            turn: shard.turn,
        };
        let mut commands = Vec::new();
        if !shard.in_sync.contains(&to) && !shard.filling.contains(&to) {
            commands.push(Command::Fill {
                seen: seen.clone(),
                member: to,
            });
            // Filling it makes void what an earlier process of that node had.
            seen.in_sync.retain(|other| other.node != to.node);
            seen.turn += 1;
        }
        commands.push(Command::Move { seen, to: Some(to) });
        commands
    }

    /// A node that is gone for good is to be forgotten. What is owned by it is given to others by the coordinator; until then
    /// something is left, and the order is to be given again.
    ///
    /// # Errors
    /// If there is no such node, it lives, others could not agree without it, or only it has some shards and `force` was not
    /// said.
    pub fn remove(&self, node: NodeId, force: bool) -> Result<Removal, No> {
        if self.map.node(node).is_none() {
            return Err(No::NoSuchNode);
        }
        if self.alive.contains(&node) {
            return Err(No::Alive);
        }
        let elsewhere = |shard: &Shard| {
            let mut parts = shard.owner.iter().chain(&shard.in_sync);
            parts.any(|part| part.node != node && self.lives(*part))
        };
        let has = |shard: &Shard| {
            let mut parts = shard.owner.iter().chain(&shard.in_sync);
            parts.any(|part| part.node == node)
        };
        let shards = self.map.shards();
        let only: Vec<ShardId> = shards
            .filter(|(_, shard)| has(shard) && !elsewhere(shard))
            .map(|(id, _)| id)
            .collect();
        if !only.is_empty() && !force {
            return Err(No::OnlyCopy(only));
        }
        let voters = self.without(node)?;
        let mut removal = Removal {
            voters,
            ..Removal::default()
        };
        for (id, shard) in self.map.shards().filter(|(_, shard)| shard.involves(node)) {
            if shard.owner.is_some_and(|owner| owner.node == node) {
                removal.left += 1;
                continue;
            }
            let members = shard.in_sync.iter().chain(&shard.filling);
            for member in members.filter(|member| member.node == node).copied() {
                let seen = Seen::of(self.map, id).ok_or(No::NoSuchShard(id))?;
                removal.commands.push(Command::Remove { seen, member });
            }
        }
        if removal.left == 0 {
            removal.commands.push(Command::Forget { node });
        }
        Ok(removal)
    }

    /// The voters without this one, and with somebody in its place, if there is one.
    fn without(&self, node: NodeId) -> Result<Option<BTreeSet<NodeId>>, No> {
        if !self.voters.contains(&node) {
            return Ok(None);
        }
        let living = self.voters.intersection(&self.alive).count();
        if living < self.voters.len() / 2 + 1 {
            return Err(No::Majority);
        }
        let mut voters = self.voters.clone();
        voters.remove(&node);
        let drains = |node: &NodeId| self.map.node(*node).is_none_or(|node| node.draining);
        let mut others = self.willing.difference(&self.voters).filter(|other| !drains(other));
        voters.extend(others.next());
        Ok(Some(voters))
    }
}

/// How many copies each shard should have, its owner's among them: as agreed, and no more than there are nodes that own
/// shards.
#[must_use]
pub fn wanted(map: &Map) -> usize {
    let owners = map
        .nodes()
        .filter(|(_, node)| node.info.roles.owner && !node.draining)
        .count();
    usize::from(map.copies()).min(owners.max(1))
}

/// How many copies a shard lacks: those of processes that live and are complete count.
#[must_use]
pub fn short(map: &Map, shard: &Shard, alive: impl Fn(NodeId) -> bool) -> usize {
    let parts = shard.owner.iter().chain(&shard.in_sync);
    let whole = parts.filter(|part| map.is_current(**part) && alive(part.node)).count();
    wanted(map).saturating_sub(whole)
}

#[cfg(test)]
mod tests;
