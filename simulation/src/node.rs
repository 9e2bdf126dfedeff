//! One node: a process with owners and lanes wired as the gateway wires them, its clocks and its disk.
//!
//! Shells are thin here as there: each machine takes one input at a time, its outputs are performed, its deadline is
//! asked for. What a process knows dies with it; what its disk has does not.

mod calls;
mod copies;
mod inside;
mod lanes;
mod links;
mod owners;
mod seat;
mod shards;
mod storage;
mod streams;

pub use calls::Call;
pub use lanes::{LaneShell, ServerSide};
pub use links::LinkState;
pub use owners::OwnerShell;
pub use seat::{LEASE_US, Lead, Seat, Word, process_of};
pub use storage::Taking;
pub use streams::{Guest, Road};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::network::{Body, Side, StreamWord};
use crate::wire::ToClient;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use storage::Recovered;
use tidings_protocol::{Epoch, ShardId};
use tidings_router::control::map::{Map, Process as Name};

/// How often a node looks at its links and its disk.
pub const TICK_US: u64 = 400_000;

/// A machine that may run a process.
#[derive(Debug)]
pub struct Node {
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// What its last process knew of the log, on a disk that never fails.
    pub kept_map: Option<(usize, Map)>,
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
    /// Map, lease and coordinator.
    pub seat: Seat,
    /// What it serves, since which epoch.
    pub serves: BTreeMap<ShardId, Epoch>,
    /// Complete shards of an earlier process, each as of this epoch, as they were found.
    pub on_disk: BTreeMap<ShardId, Epoch>,
    /// Connections to processes that hold copies of its shards.
    pub roads: BTreeMap<Name, Road>,
    /// Connections from processes of whose shards it holds copies.
    pub guests: BTreeMap<Name, Guest>,
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
            kept_map: None,
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
    /// The process that runs on a node now, or ran there last.
    #[must_use]
    pub fn process_name(&self, node: usize) -> Name {
        process_of(node, self.nodes[node].incarnation)
    }

    /// A node's process starts: with empty machines, and with what its disk has as copies it may be told to go on from.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.gone[node] {
            return;
        }
        self.nodes[node].incarnation += 1;
        let incarnation = self.nodes[node].incarnation;
        let Recovered { owners, on_disk } = self.recover(node);
        let kept = self.nodes[node].kept_map.take().filter(|_| self.chance.percent(60));
        self.trace.note(self.now, format_args!("n{node}"), || {
            let applied = kept.as_ref().map_or(0, |(applied, _)| *applied);
            format!("starts, life {incarnation}, with {on_disk:?} on disk and the log up to {applied}")
        });
        let threads = self.plan.threads;
        self.nodes[node].process = Some(Process {
            owners,
            lanes: (0..threads).map(|_| LaneShell::new(&self.plan)).collect(),
            seat: Seat::new(&self.plan, process_of(node, incarnation), kept),
            serves: BTreeMap::new(),
            on_disk,
            roads: BTreeMap::new(),
            guests: BTreeMap::new(),
            calls: BTreeMap::new(),
            taking: None,
        });
        for lane in node * threads..(node + 1) * threads {
            for owner in node * threads..(node + 1) * threads {
                self.link_inside(lane, owner);
            }
        }
        self.tick(node, incarnation);
        self.seat_tick(node, incarnation);
    }

    /// A node's process ends at once. `loudly`: its system tells everybody who was connected.
    pub fn stop(&mut self, node: usize, loudly: bool) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.nodes[node].paused = false;
        self.nodes[node].deferred.clear();
        self.nodes[node].kept_map = Some((process.seat.applied, process.seat.map.clone()));
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

    /// A node looks at its links and its disk.
    pub fn tick(&mut self, node: usize, incarnation: u64) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        self.look_at_links(node);
        self.look_at_streams(node);
        self.ask_disk_again(node);
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
            Body::Renew(renewal) => self.lease_asked(to, renewal),
            Body::Granted(grant) => self.lease_granted(to, grant),
            Body::Lead(lead) => self.led(to, &lead),
            Body::Ask(command) => self.asked(to, command),
            Body::Publish(call, changes, durable) => self.publish_here(from, to, call, &changes, durable),
            Body::Published(call, fates) => self.call_answered(to, call, fates),
            Body::ToCopy(stream, word) => self.copy_hears(to, stream, word),
            Body::FromCopy(stream, word) => self.copy_says(to, stream, word),
        }
    }

    /// The machine is there, its process is not: its system says so to who sent over a connection.
    fn nobody_there(&mut self, from: usize, to: usize, body: &Body) {
        let reset = match body {
            Body::Dial(link) | Body::ToOwner(link, _) => Body::Reset(*link, Side::Owner),
            Body::ToLane(link, _) => Body::Reset(*link, Side::Lane),
            Body::ToCopy(stream, _) => {
                let reset = Body::FromCopy(*stream, StreamWord::Reset);
                return self.send(to, from, Some(stream.from.incarnation), reset);
            }
            _ => return,
        };
        self.send(to, from, None, reset);
    }
}
