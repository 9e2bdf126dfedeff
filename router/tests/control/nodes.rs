//! The processes of the control world: what an owner of the cluster will do with its map and lease, as simply as can be.
//!
//! A store is a map of objects per shard. Writing to copies is a call that succeeds or fails at once: what may come between
//! is the business of the model and of the simulation; here the map, the lease and the coordinator are on trial.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidings_protocol::{Epoch, NodeId, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::coordinator::Coordinator;
use tidings_router::control::lease::Lease;
use tidings_router::control::map::{Map, Process};

/// Versions by object.
pub type Store = BTreeMap<u8, Version>;

/// What one process holds of one shard.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    pub store: Store,
    /// The epoch of which it knows.
    pub epoch: Epoch,
    /// The last version given, while owner.
    pub last: Version,
    /// As owner: the copies were brought level in this epoch.
    pub level: bool,
    /// As owner: who gets every change from now on, though not in the map as in sync yet.
    pub joining: BTreeSet<Process>,
    /// As owner: hands over and acknowledges nothing more in this epoch.
    pub released: bool,
}

/// One node.
pub struct Node {
    pub process: Process,
    pub up: bool,
    /// Frozen until then: it takes no step, but its clock runs.
    pub paused_until: u64,
    /// Reaches nobody until then.
    pub cut_until: u64,
    pub rate_permille: u64,
    pub boot_us: u64,
    pub wall_off: i64,
    /// How much of the log was applied here.
    pub applied: usize,
    pub map: Map,
    pub lease: Lease,
    pub coordinator: Coordinator,
    pub holdings: Vec<Holding>,
    pub on_disk: Vec<(ShardId, Epoch)>,
    /// What came for it while it was paused.
    pub inbox: VecDeque<crate::world::Mail>,
}

impl Node {
    /// What its clocks show.
    pub fn now(&self, true_us: u64) -> Now {
        Now {
            mono_us: self.boot_us + true_us * self.rate_permille / 1_000,
            wall_us: (1_000_000_000_000 + true_us as i64 + self.wall_off) as u64,
        }
    }

    pub fn runs(&self, true_us: u64) -> bool {
        self.up && self.paused_until <= true_us
    }

    pub fn reaches(&self, true_us: u64) -> bool {
        self.up && self.cut_until <= true_us
    }

    /// Takes over what the map says by now about the shards it has to do with.
    pub fn follow_map(&mut self) {
        for (id, shard) in self.map.shards() {
            let holding = &mut self.holdings[usize::from(id.0)];
            if shard.epoch <= holding.epoch {
                continue;
            }
            let part = shard.in_sync.contains(&self.process) || shard.owner == Some(self.process);
            holding.epoch = shard.epoch;
            holding.level = false;
            holding.released = false;
            holding.joining.clear();
            if !part || (shard.owner == Some(self.process) && shard.floor == shard.begins) {
                // A copy that is not in sync is worth nothing; an owner without a copy starts empty.
                holding.store.clear();
            }
            if shard.owner == Some(self.process) {
                holding.last = shard.begins.before();
            }
        }
    }

    /// The shards that it believes it owns. Who took a copy of a newer epoch knows better than its own map.
    pub fn owned(&self) -> Vec<ShardId> {
        let mine = |(id, shard): (ShardId, &tidings_router::control::map::Shard)| {
            let newest = self.holdings[usize::from(id.0)].epoch == shard.epoch;
            (shard.owner == Some(self.process) && newest).then_some(id)
        };
        self.map.shards().filter_map(mine).collect()
    }

    /// The next version of a shard, if the lease allows one.
    pub fn tick(&mut self, now: Now, id: ShardId) -> Option<Version> {
        let holding = &mut self.holdings[usize::from(id.0)];
        if !self.lease.holds(now) || holding.released {
            return None;
        }
        let ceiling = self.lease.ceiling();
        let version = holding.last.next().0.max(now.wall_us.min(ceiling.0));
        if version > ceiling.0 {
            return None;
        }
        holding.last = Version(version);
        Some(holding.last)
    }

    pub fn highest(&self) -> Version {
        self.holdings
            .iter()
            .map(|holding| holding.last)
            .max()
            .unwrap_or_default()
    }

    /// What the owner itself has to propose about a shard: to hand over, or that a filled copy is in sync.
    pub fn owner_proposal(&mut self, id: ShardId) -> Option<Command> {
        let shard = self.map.shard(id)?;
        let seen = Seen::of(&self.map, id)?;
        let holding = &mut self.holdings[usize::from(id.0)];
        let from = self.process;
        let ready = shard.moving.filter(|to| holding.level && shard.in_sync.contains(to));
        if let Some(to) = ready.or(holding.released.then_some(from)) {
            // Whatever becomes of it: nothing more is acknowledged in this epoch.
            holding.released = true;
            return Some(Command::Release { seen, from, to });
        }
        if !holding.level {
            return None;
        }
        let member = *shard.filling.iter().find(|member| holding.joining.contains(member))?;
        Some(Command::Join { seen, member })
    }
}

/// Who is who, for the report of a failure.
pub fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}
