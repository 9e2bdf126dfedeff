//! The world: true time, what happens next, and everybody it happens to.
//!
//! One thread, one queue. Events of the same moment happen in the order in which they were scheduled, and every choice
//! comes from the seed: a run is a function of its plan. What belongs to nodes, clients, publishers and faults is done in
//! their rooms.

use crate::agreement::Agreement;
use crate::clients::Client;
use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::faults::Faults;
use crate::network::{Body, Carried, Network, Packet};
use crate::node::{Node, Process, Word};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::random::Random;
use crate::trace::Trace;
use crate::wire::{Request, ToClient};
use crate::workload::Publisher;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use tidings_router::Now;
use tidings_router::control::coordinator::Verdict;

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// An owner's machine has a deadline.
    WakeOwner(usize, u64),
    /// A lane's machine has a deadline.
    WakeLane(usize, u64),
    /// A lane's writes are made.
    Writes(usize, u64),
    /// A node looks at its links and its disk.
    Tick(usize, u64),
    /// A process looks at its map, its lease and, while it leads, at everybody's.
    Seat(usize, u64),
    /// The library that keeps the log says something to the process it runs in.
    Word(usize, u64, Word),
    /// A node's process starts.
    Start(usize),
    /// A node's process goes on after a pause.
    Resume(usize),
    /// Something arrives at a node.
    Packet(Box<Packet>),
    /// A node's disk is done with something.
    Disk(usize, u64),
    /// A node takes the next piece of its snapshot.
    Snapshot(usize, u64),
    /// Voters look whether there is a leader.
    Voters,
    /// A quorum agrees to a proposal of this term, if its leader still leads.
    Commit(u64, u64),
    /// A quorum is asked whether this process still leads in this term; comes back with the token.
    Quorum(usize, u64, u64, u64),
    /// A publisher's turn.
    Publish(usize),
    /// A publisher waits no longer for this call.
    PublishOver(usize, u64),
    /// A publisher is answered.
    PublishAnswer(usize, u64, Vec<(usize, crate::workload::Answer)>),
    /// A node tries a call again, or gives it up.
    Call(usize, u64, u64, bool),
    /// A client's turn.
    Client(usize),
    /// A client's request arrives: node, its incarnation, connection.
    ToServer(usize, u64, u64, Box<Request>),
    /// Something arrives at a client, on this connection.
    ToClient(usize, u64, Box<ToClient>),
    /// A poll's wait is over: lane, incarnation, connection, number of the poll.
    PollOver(usize, u64, u64, u64),
    /// The next fault.
    Fault,
    /// An operator does something, or an owner and its copies fail together.
    Trouble,
    /// A part of an aimed fault whose moment has come.
    Strike(crate::faults::Strike),
    /// A fault is over.
    Mend(crate::faults::Fault),
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The next one is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// What this run is made of.
    pub plan: Plan,
    /// True time since the beginning, in microseconds.
    pub now: u64,
    queue: BinaryHeap<Scheduled>,
    number: u64,
    /// For roads and disks.
    pub chance: Random,
    /// For what clients and publishers want.
    pub will: Random,
    /// For faults.
    pub fortune: Random,
    /// For what happens to clusters.
    pub mischief: Random,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Those that have left for good.
    pub gone: Vec<bool>,
    /// One that is to leave for good as soon as no shard names it.
    pub leaving: Option<usize>,
    /// The roads between them.
    pub network: Network,
    /// What they agree on.
    pub agreement: Agreement,
    /// By node: what gossip says of it though it is not so, and until when.
    pub lies: BTreeMap<usize, (Verdict, u64)>,
    /// Since when the control group has no working leader.
    pub leaderless_since: Option<u64>,
    /// Those who are told.
    pub clients: Vec<Client>,
    /// Those who tell.
    pub publishers: Vec<Publisher>,
    /// What is wrong at the moment.
    pub faults: Faults,
    /// Who judges.
    pub oracle: Oracle,
    /// What happened.
    pub trace: Trace,
    /// How often.
    pub coverage: Coverage,
    /// All faults have stopped.
    pub healing: bool,
    /// When all faults stopped.
    pub healed_at: Option<u64>,
    /// Everybody must know everything now.
    pub settled: bool,
    /// Nobody connects any more.
    pub deaf: bool,
    /// Everybody left long ago.
    pub everybody_left: bool,
    /// Nobody publishes any more.
    pub quiet: bool,
    /// Names connections and calls.
    pub names: u64,
    /// Events so far.
    pub events: u64,
}

impl World {
    /// A new world: all nodes are about to start.
    #[must_use]
    pub fn new(plan: Plan, keeps_trace: bool) -> Self {
        let mut fortune = Random::new(plan.seed, 2);
        let mut chance = Random::new(plan.seed, 3);
        let mut will = Random::new(plan.seed, 4);
        let clock = |random: &mut Random| Clock {
            base_us: random.range(1_000_000, 9_000_000_000),
            drift_ppm: random.range(0, 40_000) as i64 - 20_000,
            offset_us: random.range(0, 400_000) as i64 - 200_000,
        };
        let nodes = (0..plan.nodes).map(|_| Node::new(clock(&mut fortune))).collect();
        let oracle = Oracle::new(&plan);
        let clients = (0..plan.clients + plan.rogues)
            .map(|n| Client::new(n, &plan, &mut will))
            .collect();
        let publishers = (0..plan.publishers).map(|_| Publisher::default()).collect();
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            network: Network::new(plan.nodes, plan.machines(), plan.road_us),
            agreement: Agreement::new(&plan),
            lies: BTreeMap::new(),
            leaderless_since: Some(0),
            gone: vec![false; plan.nodes],
            leaving: None,
            mischief: Random::new(plan.seed, 10),
            nodes,
            clients,
            publishers,
            faults: Faults::default(),
            oracle,
            trace: Trace::new(keeps_trace),
            coverage: Coverage::default(),
            healing: false,
            healed_at: (plan.mode == crate::plan::Mode::Calm).then_some(0),
            settled: false,
            deaf: false,
            everybody_left: false,
            quiet: false,
            names: 0,
            events: 0,
            chance: chance.clone(),
            will,
            fortune,
            plan,
        };
        for node in 0..world.plan.nodes {
            let late_us = world.plan.late_us.filter(|_| node + 1 == world.plan.nodes).unwrap_or(0);
            world.at(late_us + chance.below(50_000), Event::Start(node));
        }
        world.at(100_000, Event::Voters);
        for publisher in 0..world.plan.publishers {
            world.at(2_500_000 + chance.below(100_000), Event::Publish(publisher));
        }
        for client in 0..world.clients.len() {
            world.at(1_000_000 + chance.below(2_000_000), Event::Client(client));
        }
        if world.plan.nodes > 1 && !world.plan.one_at_a_time {
            world.at(4_000_000, Event::Trouble);
        }
        if world.plan.mode != crate::plan::Mode::Calm && !world.plan.aimed {
            world.network.stalls = true;
            world.at(3_500_000, Event::Fault);
        }
        world
    }

    /// Schedules what happens after so many microseconds.
    pub fn after(&mut self, us: u64, event: Event) {
        self.at(self.now + us, event);
    }

    /// Schedules what happens at a true time, at the earliest now.
    pub fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        let (at, number) = (at.max(self.now), self.number);
        self.queue.push(Scheduled { at, number, event });
    }

    /// The clocks of a node.
    #[must_use]
    pub fn clock(&self, node: usize) -> Now {
        self.nodes[node].clock.now(self.now)
    }

    /// The process of a node, if it is this one.
    pub fn process(&mut self, node: usize, incarnation: u64) -> Option<&mut Process> {
        let node = &mut self.nodes[node];
        node.process.as_mut().filter(|_| node.incarnation == incarnation)
    }

    /// A name that nothing had before.
    pub fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Sends a packet between nodes.
    pub fn send(&mut self, from: usize, to: usize, incarnation: Option<u64>, body: Body) {
        let body = match body {
            Body::ToLane(..) | Body::ToOwner(..) | Body::ToCopy(..) | Body::FromCopy(..)
                if self.plan.bytes && from != to =>
            {
                self.coverage.saw("frames between nodes went as bytes");
                match crate::network::over_the_wire(body) {
                    Ok(body) => body,
                    Err(what) => return self.oracle.object_to("wire", what),
                }
            }
            other => other,
        };
        let packet = Packet {
            from,
            to,
            incarnation,
            body,
        };
        if let Carried::At(at, packet) = self.network.carry(&mut self.chance, self.now, packet) {
            self.at(at, Event::Packet(Box::new(packet)));
        }
    }

    /// Sends again what waited for a road.
    pub fn open_road(&mut self, from: usize, to: usize) {
        for packet in self.network.open(from, to) {
            self.send(packet.from, packet.to, packet.incarnation, packet.body);
        }
    }

    /// Lets everything happen up to a true time, or until the oracle objects.
    pub fn run_until(&mut self, until: u64) {
        while self.oracle.verdict().is_none() {
            match self.queue.peek() {
                Some(next) if next.at <= until => {}
                Some(_) | None => break,
            }
            let Some(next) = self.queue.pop() else { break };
            self.now = next.at;
            self.events += 1;
            self.happen(next.event);
        }
        self.now = self.now.max(until);
    }

    /// The node that has to be awake for this.
    fn needs(&self, event: &Event) -> Option<usize> {
        match event {
            Event::WakeOwner(machine, _)
            | Event::WakeLane(machine, _)
            | Event::Writes(machine, _)
            | Event::PollOver(machine, ..) => Some(self.plan.node_of(*machine)),
            Event::Tick(node, _)
            | Event::Seat(node, _)
            | Event::Word(node, ..)
            | Event::Snapshot(node, _)
            | Event::Disk(node, _)
            | Event::Call(node, ..)
            | Event::ToServer(node, ..) => Some(*node),
            Event::Packet(packet) => Some(packet.to),
            Event::Start(_)
            | Event::Resume(_)
            | Event::Voters
            | Event::Commit(..)
            | Event::Quorum(..)
            | Event::Publish(_)
            | Event::PublishOver(..)
            | Event::PublishAnswer(..)
            | Event::Client(_)
            | Event::ToClient(..)
            | Event::Fault
            | Event::Trouble
            | Event::Strike(_)
            | Event::Mend(_) => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = self.needs(&event)
            && self.nodes[node].paused
        {
            self.nodes[node].deferred.push(event);
            return;
        }
        match event {
            Event::WakeOwner(owner, incarnation) => self.wake_owner(owner, incarnation),
            Event::WakeLane(lane, incarnation) => self.wake_lane(lane, incarnation),
            Event::Writes(lane, incarnation) => self.make_writes(lane, incarnation),
            Event::Tick(node, incarnation) => self.tick(node, incarnation),
            Event::Seat(node, incarnation) => self.seat_tick(node, incarnation),
            Event::Word(node, incarnation, word) => self.hear_word(node, incarnation, word),
            Event::Start(node) => self.start(node),
            Event::Resume(node) => self.resume(node),
            Event::Packet(packet) => self.arrive(*packet),
            Event::Disk(node, incarnation) => self.disk_done(node, incarnation),
            Event::Snapshot(node, incarnation) => self.snapshot_piece(node, incarnation),
            Event::Voters => self.voters_look(),
            Event::Commit(term, flight) => self.commit(term, flight),
            Event::Quorum(node, incarnation, term, token) => self.ask_quorum(node, incarnation, term, token),
            Event::Publish(publisher) => self.publisher_turn(publisher),
            Event::PublishOver(publisher, call) => self.publish_over(publisher, call),
            Event::PublishAnswer(publisher, call, results) => self.publish_answered(publisher, call, results),
            Event::Call(node, incarnation, call, over) => self.call_again(node, incarnation, call, over),
            Event::Client(client) => self.client_turn(client),
            Event::ToServer(node, incarnation, connection, request) => {
                self.serve(node, incarnation, connection, *request);
            }
            Event::ToClient(client, connection, message) => self.client_hears(client, connection, *message),
            Event::PollOver(lane, incarnation, connection, number) => {
                self.poll_over(lane, incarnation, connection, number);
            }
            Event::Fault => self.next_fault(),
            Event::Trouble if self.plan.aimed => self.next_aimed(),
            Event::Trouble => self.next_trouble(),
            Event::Strike(strike) => self.strike(strike),
            Event::Mend(fault) => self.mend(fault),
        }
    }

    fn resume(&mut self, node: usize) {
        if !self.nodes[node].paused {
            return;
        }
        self.nodes[node].paused = false;
        self.trace.note(self.now, format_args!("n{node}"), || "goes on");
        for event in std::mem::take(&mut self.nodes[node].deferred) {
            self.after(0, event);
        }
    }
}
