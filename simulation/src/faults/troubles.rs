//! What happens to clusters beside faults: operators change the number of copies, drain nodes and take them out for good, and
//! owners fail together with their copies. In a calm world only what operators do.

use crate::plan::Mode;
use crate::world::{Event, World};
use tidings_protocol::NodeId;
use tidings_router::control::command::Command;

impl World {
    /// The next one comes.
    pub fn next_trouble(&mut self) {
        self.let_go();
        if self.healing {
            return;
        }
        let us = self.mischief.range(500_000, 6_000_000);
        self.after(us, Event::Trouble);
        let calm = self.plan.mode == Mode::Calm;
        match self.mischief.below(if calm { 3 } else { 8 }) {
            0 => self.change_copies(),
            1..=2 => self.drain_another(),
            3 => self.take_out(),
            4 => self.owner_and_copies_fail(),
            5 => self.copy_fails(),
            _ => self.reset_stream(),
        }
    }

    fn trouble(&mut self, name: &'static str, who: usize) {
        self.coverage.saw(name);
        self.trace.note(self.now, format_args!("n{who}"), || name);
    }

    fn change_copies(&mut self) {
        let copies = self.mischief.range(1, 3) as u8;
        if copies != self.agreement.map().copies() {
            self.trouble("number of copies changed", 0);
            self.operate(Command::SetCopies { copies });
        }
    }

    fn drain_another(&mut self) {
        let draining = self.agreement.map().nodes().find(|(_, known)| known.draining);
        if let Some((node, _)) = draining {
            if self.leaving != Some(node.0 as usize) {
                self.trouble("node filled again", node.0 as usize);
                self.operate(Command::Drain { node, draining: false });
            }
            return;
        }
        let node = self.mischief.index(self.plan.nodes);
        let id = NodeId(node as u64);
        if self.agreement.map().node(id).is_some() {
            self.trouble("node drained", node);
            self.operate(Command::Drain {
                node: id,
                draining: true,
            });
        }
    }

    /// A node that has no vote is drained, to leave for good.
    fn take_out(&mut self) {
        let node = self.plan.nodes - 1;
        let known = self.agreement.map().node(NodeId(node as u64)).is_some();
        if self.leaving.is_none() && node >= self.plan.voters && known && !self.gone[node] {
            self.trouble("node is to leave for good", node);
            self.leaving = Some(node);
        }
        self.let_go();
    }

    /// A node that is to leave goes as soon as nothing of the cluster rests on it.
    pub(crate) fn let_go(&mut self) {
        let Some(node) = self.leaving else { return };
        let id = NodeId(node as u64);
        let map = self.agreement.map();
        let Some(known) = map.node(id) else { return };
        if !known.draining {
            return self.operate(Command::Drain {
                node: id,
                draining: true,
            });
        }
        if map.shards().all(|(_, shard)| !shard.involves(id)) && self.nodes[node].runs() {
            self.trouble("node left for good", node);
            self.gone[node] = true;
            self.leaving = None;
            self.nodes[node].disk.kill();
            self.stop(node, true);
            self.operate(Command::Forget { node: id });
        }
    }

    /// The process of some shard's owner dies, and those of its copies, or some of them.
    fn owner_and_copies_fail(&mut self) {
        let shards: Vec<_> = self.agreement.map().shards().map(|(_, shard)| shard.clone()).collect();
        let shard = self.mischief.pick(&shards).clone();
        let Some(owner) = shard.owner else { return };
        self.trouble("owner and copies fail together", owner.node.0 as usize);
        let parts = std::iter::once(owner).chain(shard.in_sync);
        for part in parts.collect::<Vec<_>>() {
            let node = part.node.0 as usize;
            if self.mischief.percent(80) {
                if self.mischief.percent(50) {
                    self.power_lost(node);
                } else {
                    self.kill(node);
                }
            }
        }
    }

    /// A process that is filled, or in sync, dies.
    fn copy_fails(&mut self) {
        let shards = self.agreement.map().shards();
        let parts = shards.flat_map(|(_, shard)| shard.filling.iter().chain(&shard.in_sync));
        let parts: Vec<usize> = parts.map(|part| part.node.0 as usize).collect();
        if !parts.is_empty() {
            let node = *self.mischief.pick(&parts);
            self.trouble("copy fails", node);
            self.kill(node);
        }
    }
}
