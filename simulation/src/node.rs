//! One node: a process with owners and lanes wired as the gateway wires them, its clocks and its disk.
//!
//! Shells are thin here as there: each machine takes one input at a time, its outputs are performed, its deadline is
//! asked for. What a process knows dies with it; what its disk has does not.

mod calls;
mod lanes;
mod leases;
mod links;
mod owners;
mod storage;

pub use calls::Call;
pub use lanes::{LaneShell, ServerSide};
pub use links::LinkState;
pub use owners::OwnerShell;
pub use storage::{Copy, Taking};

use crate::clock::Clock;
use crate::control::{Holder, Map};
use crate::disk::Disk;
use crate::network::{Body, Side};
use crate::wire::ToClient;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::MonoUs;

/// How often a node looks at its links and its lease.
pub const TICK_US: u64 = 400_000;

/// A machine that may run a process.
#[derive(Debug)]
pub struct Node {
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Counts its processes.
    pub incarnation: u64,
    /// The one that runs.
    pub process: Option<Process>,
    /// It runs, and does nothing.
    pub paused: bool,
    /// What it will do when it goes on.
    pub deferred: Vec<Event>,
}

/// What a process knows.
#[derive(Debug)]
pub struct Process {
    /// Its owners, one a thread.
    pub owners: Vec<OwnerShell>,
    /// Its lanes, one a thread.
    pub lanes: Vec<LaneShell>,
    /// Who owns what, as far as it heard.
    pub map: Rc<Map>,
    /// Until when it may accept publishes.
    pub lease_until_us: MonoUs,
    /// The highest version it gave or closed.
    pub in_use: Version,
    /// What it serves, since which epoch.
    pub serves: BTreeMap<ShardId, Epoch>,
    /// What it gave away, and the map does not say so yet.
    pub released: BTreeMap<ShardId, Epoch>,
    /// Copies it could go on from.
    pub copies: BTreeMap<ShardId, Copy>,
    /// Publishes it passes on.
    pub calls: BTreeMap<u64, Call>,
    /// The snapshot it takes.
    pub taking: Option<Taking>,
}

impl Node {
    /// A node that does not run yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            disk: Disk::default(),
            incarnation: 0,
            process: None,
            paused: false,
            deferred: Vec::new(),
        }
    }

    /// Whether it does something.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.paused
    }
}

impl World {
    /// The process that runs on a node now.
    #[must_use]
    pub fn holder(&self, node: usize) -> Holder {
        Holder {
            node,
            incarnation: self.nodes[node].incarnation,
        }
    }

    /// A node's process starts: with empty machines, and with what its disk has as copies it may be told to go on from.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        self.nodes[node].incarnation += 1;
        let incarnation = self.nodes[node].incarnation;
        let copies = self.recover(node);
        self.trace.note(self.now, format_args!("n{node}"), || {
            format!("starts, life {incarnation}, with copies of {} shards", copies.len())
        });
        let threads = self.plan.threads;
        self.nodes[node].process = Some(Process {
            owners: (0..threads).map(|_| OwnerShell::new(&self.plan)).collect(),
            lanes: (0..threads).map(|_| LaneShell::new(&self.plan)).collect(),
            map: Rc::new(Map {
                revision: 0,
                entries: Vec::new(),
            }),
            lease_until_us: 0,
            in_use: Version::ZERO,
            serves: BTreeMap::new(),
            released: BTreeMap::new(),
            copies,
            calls: BTreeMap::new(),
            taking: None,
        });
        for lane in node * threads..(node + 1) * threads {
            for owner in node * threads..(node + 1) * threads {
                self.link_inside(lane, owner);
            }
        }
        self.tick(node, incarnation);
    }

    /// A node's process ends at once. `loudly`: its system tells everybody who was connected.
    pub fn stop(&mut self, node: usize, loudly: bool) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.nodes[node].paused = false;
        self.nodes[node].deferred.clear();
        if !process.owners.iter().all(OwnerShell::is_idle) {
            self.coverage.saw("fault: kill with publishes under way");
        }
        if !loudly {
            self.network.forget_from(node);
            return;
        }
        let first = node * self.plan.threads;
        for (number, lane) in process.lanes.iter().enumerate() {
            for (owner, link) in lane.links.iter().enumerate() {
                if let (Some(link), true) = (link.name(first + number, owner), self.plan.node_of(owner) != node) {
                    self.send(node, self.plan.node_of(owner), None, Body::Reset(link, Side::Lane));
                }
            }
            for (connection, side) in &lane.connections {
                let us = self.chance.range(100, 50_000);
                self.after(us, Event::ToClient(side.client, *connection, Box::new(ToClient::Reset)));
            }
        }
        for (number, owner) in process.owners.iter().enumerate() {
            for link in owner.links.keys() {
                debug_assert_eq!(link.owner, first + number);
                let to = self.plan.node_of(link.lane);
                if to != node {
                    self.send(node, to, None, Body::Reset(*link, Side::Owner));
                }
            }
        }
    }

    /// A node looks at its links, its lease and its disk.
    pub fn tick(&mut self, node: usize, incarnation: u64) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        self.look_at_links(node);
        self.renew_lease(node);
        self.consider_snapshot(node);
        let jitter_us = self.chance.below(50_000);
        self.after(TICK_US + jitter_us, Event::Tick(node, incarnation));
    }

    /// A packet arrives.
    pub fn arrive(&mut self, packet: crate::network::Packet) {
        let crate::network::Packet {
            from,
            to,
            incarnation,
            body,
        } = packet;
        if self.nodes[to].process.is_none() || incarnation.is_some_and(|wanted| wanted != self.nodes[to].incarnation) {
            self.nobody_there(from, to, &body);
            return;
        }
        match body {
            Body::Dial(link) => self.dialled(link, from),
            Body::Accepted(link) => self.dial_accepted(link),
            Body::Reset(link, side) => self.link_reset(link, side),
            Body::Ping(link) => self.pinged(link),
            Body::ToLane(link, frames) => self.frames_to_lane(link, frames),
            Body::ToOwner(link, frames) => self.frames_to_owner(link, frames),
            Body::Renew(renewal) => self.lease_asked(to, &renewal),
            Body::Granted(grant) => self.lease_granted(to, &grant),
            Body::Map(map) => self.learn_map(to, &map),
            Body::Publish(call, changes, durable) => self.publish_here(from, to, call, &changes, durable),
            Body::Published(call, fates) => self.call_answered(to, call, fates),
            Body::Drain(shard, target) => self.drain_shard(to, shard, target),
            Body::HandOver(copy) => self.copy_arrived(to, *copy),
        }
    }

    /// The machine is there, its process is not: its system says so to who sent over a connection.
    fn nobody_there(&mut self, from: usize, to: usize, body: &Body) {
        if let Body::HandOver(_) = body {
            self.coverage.saw("hand-over lost");
        }
        let reset = match body {
            Body::Dial(link) | Body::ToOwner(link, _) => Body::Reset(*link, Side::Owner),
            Body::ToLane(link, _) => Body::Reset(*link, Side::Lane),
            _ => return,
        };
        self.send(to, from, None, reset);
    }
}
