//! The control plane of the world, which decides at random what it may, and the judge at the end.

use super::world::{SHARDS, World, shards};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ShardId, Version};
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::Process;

impl World {
    /// The control plane does something that it may do.
    pub fn control(&mut self) {
        let now_us = self.now.mono_us;
        let due: Vec<Command> = {
            let (due, rest) = std::mem::take(&mut self.proposals)
                .into_iter()
                .partition(|(at, _)| *at <= now_us);
            self.proposals = rest;
            due.into_iter().map(|(_, command)| command).collect()
        };
        for command in due {
            let fine = self.agree(&command);
            match command {
                Command::Join { .. } => self.tally.joined += u64::from(fine),
                Command::Remove { .. } => self.tally.removed += u64::from(fine),
                Command::Release { .. } => self.tally.handed_over += u64::from(fine),
                _ => {}
            }
        }
        let id = ShardId(self.random.below(u64::from(SHARDS)) as u16);
        let seen = Seen::of(&self.map, id).unwrap();
        let shard = self.map.shard(id).cloned().unwrap();
        let alive = |process: &Process| {
            let node = self.nodes[Self::index(*process)].as_ref();
            node.is_some_and(|node| node.me == *process)
        };
        let all: Vec<Process> = self.nodes.iter().flatten().map(|node| node.me).collect();
        if all.is_empty() {
            return;
        }
        let any = *self.random.pick(&all);
        let Some(owner) = shard.owner else {
            self.agree(&Command::Assign {
                seen,
                to: any,
                with: With::Fresh,
            });
            return;
        };
        let live: Vec<Process> = shard.in_sync.iter().copied().filter(|process| alive(process)).collect();
        let replace = !alive(&owner) || (!self.peace && self.random.percent(2));
        if replace && !live.is_empty() {
            let to = *self.random.pick(&live);
            self.agree(&Command::Assign {
                seen,
                to,
                with: With::Copy,
            });
        } else if !alive(&owner) {
            // Nothing is left: confessed.
            let cause = FloorCause::Lost;
            self.agree(&Command::Assign {
                seen,
                to: any,
                with: With::Nothing(cause),
            });
        } else {
            let parts: Vec<Process> = shard.in_sync.iter().chain(&shard.filling).copied().collect();
            let gone = parts.iter().copied().find(|process| !alive(process));
            if let Some(member) = gone.or((!self.peace && self.random.percent(3))
                .then(|| parts.first().copied())
                .flatten())
            {
                self.tally.removed += u64::from(self.agree(&Command::Remove { seen, member }));
            } else if parts.len() < self.copies - 1 && any.node != owner.node {
                self.agree(&Command::Fill { seen, member: any });
            } else if !self.peace && self.random.percent(15) {
                let to = self.random.percent(70).then(|| live.first().copied()).flatten();
                self.agree(&Command::Move { seen, to });
            }
        }
        // The ceiling goes up ahead of use.
        let to = Version(self.map.ceiling().0 + 1_000);
        self.map.apply(&Command::RaiseCeiling { to }).unwrap();
    }

    /// Everybody has as many copies as there should be, and nothing waits.
    pub fn judge_whole(&self) {
        for (id, shard) in self.map.shards() {
            let owner = Self::index(shard.owner.expect("an owner"));
            let text = || self.log[self.log.len().saturating_sub(60)..].join("\n");
            assert_eq!(shard.in_sync.len(), self.copies - 1, "{id}: {shard:?}\n{}", text());
            let node = self.nodes[owner].as_ref().expect("it lives");
            for asked in self.acked.iter().filter(|asked| shards().shard(asked.object) == id) {
                let version = node.owner.version(asked.object);
                assert!(
                    version >= asked.version || asked.version < shard.floor,
                    "{asked:?}\n{}",
                    text()
                );
            }
            for copy in &shard.in_sync {
                let copy = self.nodes[Self::index(*copy)].as_ref().expect("it lives");
                for asked in self.acked.iter().filter(|asked| shards().shard(asked.object) == id) {
                    let version = copy.receiver.shelf().version(asked.object);
                    let fine = version >= asked.version || asked.version < shard.floor;
                    assert!(fine, "a copy lacks {asked:?}\n{}", text());
                }
            }
        }
        for node in self.nodes.iter().flatten() {
            assert!(node.waiting.is_empty(), "{:?} waits: {:?}", node.me, node.waiting);
        }
    }
}
