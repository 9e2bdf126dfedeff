//! Faults that are aimed: at owners that have just acknowledged, at copies that are being filled or brought level, at owners that
//! are taken for dead and are not. Chance alone meets such moments too seldom (`Plan::failovers`).

use super::Fault;
use crate::world::{Event, World};
use tidings_protocol::{Epoch, NodeId, ShardId};
use tidings_router::control::command::Command;
use tidings_router::control::coordinator::Verdict;
use tidings_router::control::map::Shard;

/// A part of an aimed fault that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The process of this node dies, and is back after so many microseconds.
    Kill(usize, u64),
    /// Who owns the shard after this epoch dies so many microseconds after it began, if that happens before the time.
    KillNextOwner(ShardId, Epoch, u64, u64),
    /// The node loses its process and everything it kept.
    LoseDisk(usize),
}

impl World {
    /// The next aimed fault comes.
    pub(crate) fn next_aimed(&mut self) {
        if self.healing {
            return;
        }
        let us = self.mischief.range(300_000, 2_500_000);
        self.after(us, Event::Trouble);
        let shards: Vec<(ShardId, Shard)> = self
            .agreement
            .map()
            .shards()
            .map(|(id, shard)| (id, shard.clone()))
            .collect();
        let (id, shard) = self.mischief.pick(&shards).clone();
        let Some(owner) = shard.owner.map(|owner| owner.node.0 as usize) else {
            return;
        };
        let copies: Vec<usize> = shard.in_sync.iter().map(|copy| copy.node.0 as usize).collect();
        let filling: Vec<usize> = shard.filling.iter().map(|copy| copy.node.0 as usize).collect();
        match self.mischief.below(9) {
            0 | 1 => self.owner_dies_behind_a_hanging_copy(owner, &copies),
            2 => self.two_owners_die_before_a_copy_is_level(id, shard.epoch, owner, &copies),
            3 => self.living_owner_is_replaced(owner),
            4 => self.owner_dies_while_a_copy_is_filled(owner, &filling),
            5 => self.owner_and_slow_copy_die(owner, &copies),
            6 => self.move_somewhere(owner),
            7 => self.owner_and_copies_lose_power(owner, &copies),
            _ => self.strike(Strike::Kill(owner, 100_000)),
        }
    }

    /// A part of an aimed fault.
    pub(crate) fn strike(&mut self, strike: Strike) {
        if self.healing {
            return;
        }
        match strike {
            Strike::Kill(node, down_us) => self.kill_for(node, down_us),
            Strike::LoseDisk(node) => {
                if self.nodes[node].process.is_some() {
                    self.fault("fault: disk lost", node);
                    self.stop(node, true);
                    self.nodes[node].disk = crate::disk::Disk::default();
                    self.ends_after(3_000_000, Fault::Down(node));
                }
            }
            Strike::KillNextOwner(id, epoch, rest_us, until) => {
                let shard = self.agreement.map().shard(id);
                let next = shard.filter(|shard| shard.epoch > epoch).and_then(|shard| shard.owner);
                match next {
                    Some(owner) => self.after(rest_us, Event::Strike(Strike::Kill(owner.node.0 as usize, 100_000))),
                    None if self.now < until => self.after(10_000, Event::Strike(strike)),
                    None => {}
                }
            }
        }
    }

    fn kill_for(&mut self, node: usize, down_us: u64) {
        if self.nodes[node].process.is_some() {
            self.fault("fault: kill", node);
            self.nodes[node].disk.kill();
            self.stop(node, true);
            self.ends_after(down_us, Fault::Down(node));
        }
    }

    fn hang_copies(&mut self, to: usize, us: u64) {
        self.fault("fault: connections to a copy hang", to);
        let until = self.now + us;
        for from in 0..self.plan.nodes {
            self.network.hang_copies(from, to, until);
        }
    }

    /// What the owner gives meanwhile is on no copy, and must not be called done, whoever asks how often.
    fn owner_dies_behind_a_hanging_copy(&mut self, owner: usize, copies: &[usize]) {
        let us = self.mischief.range(3_000_000, 7_000_000);
        for copy in copies {
            self.hang_copies(*copy, us);
        }
        let (after_us, down_us) = (self.mischief.range(100_000, 2_000_000), 2_500_000);
        self.after(after_us, Event::Strike(Strike::Kill(owner, down_us)));
    }

    /// The first owner's last changes are on one copy only, which is promoted, and dies in its turn.
    fn two_owners_die_before_a_copy_is_level(&mut self, id: ShardId, epoch: Epoch, owner: usize, copies: &[usize]) {
        let Some(last) = copies.last() else { return };
        let us = self.mischief.range(4_000_000, 8_000_000);
        self.hang_copies(*last, us);
        let after_us = self.mischief.range(100_000, 1_000_000);
        self.after(after_us, Event::Strike(Strike::Kill(owner, 100_000)));
        let (rest_us, until) = (self.mischief.range(20_000, 600_000), self.now + us);
        self.after(
            after_us + 1,
            Event::Strike(Strike::KillNextOwner(id, epoch, rest_us, until)),
        );
    }

    /// Gossip says that the owner is dead, and what the others say does not reach it: it goes on for as long as its lease lasts.
    fn living_owner_is_replaced(&mut self, owner: usize) {
        self.fault("fault: hostile verdict on an owner", owner);
        let us = self.mischief.range(800_000, 3_000_000);
        self.lies.insert(owner, (Verdict::Dead, self.now + us));
        let all = self.mischief.percent(30);
        let leader = self.agreement.leader().map(|leader| leader.node);
        for from in 0..self.plan.nodes {
            if all || leader == Some(NodeId(from as u64)) {
                self.cut_road(from, owner, us);
            }
        }
    }

    fn owner_dies_while_a_copy_is_filled(&mut self, owner: usize, filling: &[usize]) {
        let Some(copy) = filling.first() else { return };
        self.coverage.saw("owner dies while a copy is filled");
        self.kill_for(*copy, 50_000);
        if self.mischief.percent(50) {
            self.strike(Strike::LoseDisk(owner));
        } else {
            self.kill_for(owner, 6_000_000);
        }
    }

    /// What the copy has not written is gone with its process, and everything of the owner with its disk.
    fn owner_and_slow_copy_die(&mut self, owner: usize, copies: &[usize]) {
        let Some(copy) = copies.first() else { return };
        self.nodes[*copy].disk.slowness_us = self.mischief.range(100_000, 1_000_000);
        self.fault("fault: disk slow", *copy);
        let after_us = self.mischief.range(100_000, 1_200_000);
        self.ends_after(2_000_000, Fault::DiskSlow(*copy));
        self.after(after_us, Event::Strike(Strike::Kill(*copy, 50_000)));
        self.after(after_us, Event::Strike(Strike::LoseDisk(owner)));
    }

    /// The owner's node is drained, and whichever is drained comes back.
    fn move_somewhere(&mut self, owner: usize) {
        let drained = self.agreement.map().nodes().find(|(_, known)| known.draining);
        let (node, draining) = match drained {
            Some((node, _)) => (node, false),
            None => (NodeId(owner as u64), true),
        };
        self.fault(
            if draining { "node drained" } else { "node filled again" },
            node.0 as usize,
        );
        self.operate(Command::Drain { node, draining });
    }

    fn owner_and_copies_lose_power(&mut self, owner: usize, copies: &[usize]) {
        for node in std::iter::once(owner).chain(copies.iter().copied()) {
            self.power_lost(node);
        }
    }
}
