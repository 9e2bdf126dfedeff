//! What goes wrong, drawn from the seed, and how it ends.
//!
//! Faults overlap freely: any number of nodes may be down, cut off or paused at once. What is promised then is that nothing
//! is silently lost; that nothing is lost at all is promised only for what was kept.

mod aimed;
mod troubles;

pub use aimed::Strike;

use crate::network::{LinkName, Side};
use crate::node::{LEASE_US, LinkState};
use crate::world::{Event, World};
use tidings_protocol::NodeId;
use tidings_router::control::command::Command;
use tidings_router::control::coordinator::Verdict;

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is gone until then.
    Down(usize),
    /// A road is cut, one way.
    Cut(usize, usize),
    /// Every road is slow.
    Slow,
    /// A disk writes nothing.
    DiskFails(usize),
    /// A disk is slow.
    DiskSlow(usize),
}

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub struct Faults {
    now: Vec<Fault>,
    /// Where one fault comes at a time: since when nothing has been wrong.
    level_since: Option<u64>,
}

/// For so long nothing is wrong before the next fault comes, where one comes at a time: what was under way has arrived.
const CALM_US: u64 = 2_500_000;

type Kind = fn(&mut World);

const KINDS: &[Kind] = &[
    World::kill_one,
    World::kill_one,
    World::power_lost_at_one,
    World::power_lost_at_several,
    World::disk_lost,
    World::pause_briefly,
    World::pause_long,
    World::pause_long,
    World::partition,
    World::partition,
    World::cut_one_way,
    World::cut_one_way,
    World::reset_link,
    World::reset_link,
    World::jump_clock,
    World::jump_clock,
    World::suspect_links,
    World::suspect_owner,
    World::slow_roads,
    World::slow_disk,
    World::failing_disk,
    World::drain_or_fill,
    World::drain_or_fill,
    World::restless_election,
    World::suspect_owner,
];

/// Those that touch one node at most, of which each by itself must cost nobody anything.
const LONE_KINDS: &[Kind] = &[
    World::kill_one,
    World::kill_one,
    World::kill_one,
    World::power_lost_at_one,
    World::disk_lost,
    World::disk_lost,
    World::pause_briefly,
    World::pause_long,
    World::isolate_one,
    World::cut_one_way,
    World::reset_link,
    World::reset_stream,
    World::jump_clock,
    World::suspect_owner,
    World::slow_disk,
    World::failing_disk,
    World::drain_or_fill,
    World::restless_election,
];

/// Those of them that need one node only: kills, and slow disks.
pub const KILLS_AND_SLOW_DISKS: u64 = 0b11 | 1 << 19;

impl World {
    /// The next fault comes.
    pub fn next_fault(&mut self) {
        if self.healing {
            return;
        }
        let us = self.fortune.range(1, 2 * self.plan.fault_every_us);
        if self.plan.one_at_a_time {
            return self.next_lone_fault(us);
        }
        self.after(us, Event::Fault);
        let kind = self.fortune.index(KINDS.len());
        // Roads and moves are nothing to a single node.
        if self.plan.fault_kinds & (1 << kind) != 0 {
            KINDS[kind](self);
        }
    }

    /// The next fault comes when nothing is wrong any more and every copy is whole: then it must cost nobody anything.
    fn next_lone_fault(&mut self, us: u64) {
        self.after(us.min(400_000), Event::Fault);
        let draining = self.agreement.map().nodes().find(|(_, known)| known.draining);
        if let Some((node, _)) = draining {
            if self.fortune.percent(20) {
                self.operate(Command::Drain { node, draining: false });
            }
            return;
        }
        let lied_to = self.lies.values().any(|(_, until)| *until > self.now);
        if lied_to || !self.faults.now.is_empty() || !self.is_level() || self.agreement.is_any_shard_open() {
            self.faults.level_since = None;
            return;
        }
        let since = *self.faults.level_since.get_or_insert(self.now);
        if self.now - since < CALM_US {
            return;
        }
        self.faults.level_since = None;
        let kind = *self.fortune.pick(LONE_KINDS);
        self.coverage.saw("fault while all copies were whole");
        kind(self);
    }

    /// One node is cut off from all others.
    fn isolate_one(&mut self) {
        let (node, us) = (self.some_node(), self.cut_us());
        self.fault("fault: node cut off", node);
        for other in 0..self.plan.nodes {
            self.cut_road(node, other, us);
            self.cut_road(other, node, us);
        }
    }

    fn some_node(&mut self) -> usize {
        match self.agreement.leader() {
            // Leaders are worth more trouble than others.
            Some(leader) if self.fortune.percent(25) => leader.node.0 as usize,
            Some(_) | None => self.fortune.index(self.plan.nodes),
        }
    }

    fn fault(&mut self, name: &'static str, who: usize) {
        self.coverage.saw(name);
        self.trace.note(self.now, format_args!("n{who}"), || name);
    }

    fn ends_after(&mut self, us: u64, fault: Fault) {
        self.faults.now.push(fault);
        self.after(us, Event::Mend(fault));
    }

    fn down_us(&mut self) -> u64 {
        *self.fortune.pick(&[50_000, 400_000, 1_500_000, 3_000_000, 8_000_000])
    }

    /// Often just when publishes wait for an answer.
    fn kill_one(&mut self) {
        let busy = |node: &crate::node::Node| {
            let process = node.process.as_ref();
            process.is_some_and(|process| process.owners.iter().any(|owner| !owner.is_idle()))
        };
        let node = match self.nodes.iter().position(busy) {
            Some(node) if self.fortune.percent(50) => node,
            Some(_) | None => self.some_node(),
        };
        self.kill(node);
    }

    fn kill(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.fault("fault: kill", node);
        self.nodes[node].disk.kill();
        self.stop(node, true);
        let us = self.down_us();
        self.ends_after(us, Fault::Down(node));
    }

    fn power_lost(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.fault("fault: power loss", node);
        let torn = self.nodes[node].disk.lose_power(&mut self.chance);
        if torn > 0 {
            self.coverage.saw("fault: power loss tore unsynced records off");
        }
        self.stop(node, false);
        let us = self.down_us();
        self.ends_after(us, Fault::Down(node));
    }

    fn power_lost_at_one(&mut self) {
        let node = self.some_node();
        self.power_lost(node);
    }

    fn power_lost_at_several(&mut self) {
        let many = self.fortune.range(2, self.plan.nodes.max(2) as u64);
        self.coverage.saw("fault: power loss of several");
        for _ in 0..many {
            self.power_lost_at_one();
        }
    }

    fn disk_lost(&mut self) {
        let node = self.some_node();
        if self.gone[node] {
            return;
        }
        self.fault("fault: disk lost", node);
        self.stop(node, true);
        self.nodes[node].disk = crate::disk::Disk::default();
        let us = self.down_us();
        self.ends_after(us, Fault::Down(node));
    }

    fn pause(&mut self, node: usize, us: u64) {
        if self.nodes[node].runs() {
            self.nodes[node].paused = true;
            self.after(us, Event::Resume(node));
        }
    }

    fn pause_briefly(&mut self) {
        let (node, us) = (self.some_node(), self.fortune.range(10_000, LEASE_US / 2));
        self.fault("fault: pause shorter than a lease", node);
        self.pause(node, us);
    }

    fn pause_long(&mut self) {
        let (node, us) = (self.some_node(), self.fortune.range(LEASE_US, 5 * LEASE_US));
        self.fault("fault: pause longer than a lease", node);
        self.pause(node, us);
    }

    fn cut_us(&mut self) -> u64 {
        *self
            .fortune
            .pick(&[200_000, 1_500_000, 3_500_000, 6_000_000, 10_000_000])
    }

    fn cut_road(&mut self, from: usize, to: usize, us: u64) {
        if from != to {
            self.network.block(from, to);
            self.ends_after(us, Fault::Cut(from, to));
        }
    }

    fn partition(&mut self) {
        let nodes = self.plan.nodes;
        if nodes < 2 {
            return;
        }
        let us = self.cut_us();
        let side: u64 = self.fortune.range(1, (1 << nodes) - 2);
        self.fault("fault: partition", side as usize);
        for from in 0..nodes {
            for to in 0..nodes {
                if (side >> from ^ side >> to) & 1 == 1 {
                    self.cut_road(from, to, us);
                }
            }
        }
    }

    fn cut_one_way(&mut self) {
        if self.plan.nodes < 2 {
            return;
        }
        let from = self.some_node();
        let to = self.fortune.index(self.plan.nodes);
        let us = self.cut_us();
        self.fault("fault: cut one way", from);
        self.cut_road(from, to, us);
    }

    fn reset_link(&mut self) {
        let (lane, owner) = (
            self.fortune.index(self.plan.machines()),
            self.fortune.index(self.plan.machines()),
        );
        if self.plan.node_of(lane) == self.plan.node_of(owner) {
            return;
        }
        let link = self.lane_shell(lane).map(|shell| shell.links[owner]);
        let Some(LinkState::Up { generation, .. }) = link else {
            return;
        };
        let link = LinkName {
            lane,
            owner,
            generation,
        };
        self.fault("fault: link reset", self.plan.node_of(lane));
        // Each end hears of it in its own time, if it does.
        if self.fortune.percent(70) {
            self.give_up(link, 0);
        } else {
            let (from, to) = (self.plan.node_of(owner), self.plan.node_of(lane));
            self.send(to, from, None, crate::network::Body::Reset(link, Side::Lane));
        }
    }

    /// A connection for copies breaks.
    pub(crate) fn reset_stream(&mut self) {
        let node = self.fortune.index(self.plan.nodes);
        let roads = self.nodes[node].process.as_ref().map(|process| &process.roads);
        let roads: Vec<_> = roads.into_iter().flatten().map(|(to, _)| *to).collect();
        if !roads.is_empty() {
            let to = *self.fortune.pick(&roads);
            self.fault("fault: copy's connection reset", node);
            let rest_us = self.fortune.below(1_500_000);
            self.drop_road(node, to, Some(rest_us));
        }
    }

    fn jump_clock(&mut self) {
        let node = self.some_node();
        let sizes = [50_000, 900_000, 4_000_000, 30_000_000, 3_600_000_000];
        let us = self.fortune.below(*self.fortune.clone().pick(&sizes)) as i64;
        let clock = &mut self.nodes[node].clock;
        let ahead = self.fortune.percent(50);
        clock.offset_us += if ahead { us } else { -us };
        self.oracle.history.clocks_lied = true;
        self.fault(
            if ahead {
                "fault: clock jumped ahead"
            } else {
                "fault: clock jumped back"
            },
            node,
        );
    }

    /// A node is told that another one is dead, which is not.
    fn suspect_links(&mut self) {
        let (node, other) = (self.some_node(), self.fortune.index(self.plan.nodes));
        if node == other {
            return;
        }
        self.fault("fault: hostile verdict on links", node);
        let threads = self.plan.threads;
        let rest_us = self.fortune.range(100_000, 3_000_000);
        for lane in node * threads..(node + 1) * threads {
            for owner in other * threads..(other + 1) * threads {
                let link = self
                    .lane_shell(lane)
                    .and_then(|shell| shell.links[owner].name(lane, owner));
                if let Some(link) = link {
                    self.give_up(link, rest_us);
                }
            }
        }
    }

    /// The leader is told that a node is dead, which is not, or that it is alive.
    fn suspect_owner(&mut self) {
        let node = self.fortune.index(self.plan.nodes);
        let (verdict, name) = if self.fortune.percent(70) {
            (Verdict::Dead, "fault: hostile verdict on an owner")
        } else {
            (Verdict::Alive, "fault: gossip holds whoever is dead alive")
        };
        self.fault(name, node);
        let until = self.now + self.cut_us();
        self.lies.insert(node, (verdict, until));
    }

    /// Voters elect another leader, though the present one is well and does not know yet.
    fn restless_election(&mut self) {
        self.fault("fault: election without need", 0);
        self.elect();
    }

    fn slow_roads(&mut self) {
        self.network.slowness = self.fortune.range(3, 40);
        self.fault("fault: slow roads", 0);
        let us = self.cut_us();
        self.ends_after(us, Fault::Slow);
    }

    fn slow_disk(&mut self) {
        let node = self.some_node();
        self.nodes[node].disk.slowness_us = self.fortune.range(50_000, 1_500_000);
        self.fault("fault: disk slow", node);
        let us = self.cut_us();
        self.ends_after(us, Fault::DiskSlow(node));
    }

    fn failing_disk(&mut self) {
        if !self.plan.disks {
            return;
        }
        let node = self.some_node();
        self.nodes[node].disk.fails = true;
        self.fault("fault: disk fails", node);
        let us = self.cut_us();
        self.ends_after(us, Fault::DiskFails(node));
    }

    /// No fault: an operator takes a node out, or in again, and shards move as planned.
    fn drain_or_fill(&mut self) {
        let drained = self.agreement.map().nodes().find(|(_, known)| known.draining);
        let node = match drained {
            Some((id, _)) if self.fortune.percent(60) => id.0 as usize,
            Some(_) | None => self.fortune.index(self.plan.nodes),
        };
        if self.leaving == Some(node) {
            return;
        }
        let id = NodeId(node as u64);
        let Some(known) = self.agreement.map().node(id) else {
            return;
        };
        let draining = !known.draining;
        self.fault(if draining { "node drained" } else { "node filled again" }, node);
        self.operate(Command::Drain { node: id, draining });
    }

    /// A fault is over, unless one like it has begun meanwhile: then that one's end is the end of both.
    pub fn mend(&mut self, fault: Fault) {
        if let Some(at) = self.faults.now.iter().position(|other| *other == fault) {
            self.faults.now.remove(at);
        }
        if self.faults.now.contains(&fault) {
            return;
        }
        match fault {
            Fault::Down(node) => self.start(node),
            Fault::Cut(from, to) => self.open_road(from, to),
            Fault::Slow => self.network.slowness = 1,
            Fault::DiskFails(node) => self.nodes[node].disk.fails = false,
            Fault::DiskSlow(node) => self.nodes[node].disk.slowness_us = 3_000,
        }
    }

    /// All faults stop.
    pub fn stop_faults(&mut self) {
        self.healing = true;
        self.leaving = None;
        self.network.stalls = false;
        self.lies.clear();
        self.healed_at = Some(self.now);
        self.trace.note(self.now, "world", || "all faults stop");
        let mut faults = std::mem::take(&mut self.faults.now);
        faults.dedup();
        for fault in faults {
            self.mend(fault);
        }
        for node in 0..self.plan.nodes {
            if self.nodes[node].paused {
                self.after(0, Event::Resume(node));
            }
        }
    }
}
