//! A process and what keeps the replicated log: its copy of the map, its lease, and the coordinator that works while it leads.
//!
//! The machines are those of `router/src/control/`. What a node does with the map is done next door, in its shards.

use crate::agreement::Agreement;
use crate::network::Body;
use crate::plan::Plan;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidings_protocol::ShardId;
use tidings_router::MonoUs;
use tidings_router::control::command::Command;
use tidings_router::control::coordinator::{Config, Coordinator, Input, Output, Verdict};
use tidings_router::control::lease::{Grant, Lease, Renewal};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

/// How long a lease holds, counted by its holder from the moment it asked.
pub const LEASE_US: u64 = 2_000_000;
/// How often an owner asks for its lease.
const RENEW_US: u64 = 500_000;
/// How often a process looks at its seat.
const SEAT_US: u64 = 50_000;
/// When something that was asked for is asked for again.
const AGAIN_US: u64 = 400_000;
/// For how long a process answers nobody before gossip holds it dead.
const SUSPECT_US: u64 = 1_200_000;
/// Who is behind by more entries than this gets a snapshot of the map.
const ENTRIES_KEPT: usize = 12;

/// See the module.
#[derive(Debug)]
pub struct Seat {
    /// What was agreed on, as far as it was applied here.
    pub map: Map,
    /// So many entries of the log.
    pub applied: usize,
    /// The permission to give versions.
    pub lease: Lease,
    /// Works while this process leads.
    pub coordinator: Coordinator,
    /// The newest term heard of, and who leads in it.
    pub leads: Option<(u64, usize)>,
    /// The map is no older than this process.
    pub confirmed: bool,
    /// When it was asked for a command last, by what that is about.
    pub asked_us: BTreeMap<About, MonoUs>,
    /// Since when a node cannot be reached, in true time.
    unreachable: BTreeMap<usize, u64>,
    gossip_us: MonoUs,
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// This process is there.
    Registration,
    /// A floor rose.
    Floor(ShardId),
}

/// What the library that keeps the log says to the process it runs in.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// A quorum confirmed the leadership.
    Confirmed(u64),
    /// It could not be had.
    Unconfirmed(u64),
    /// A proposal's fate is decided; the log is applied up to there.
    Settled(u64, usize),
    /// This process leads in this term; the log is applied up to there.
    Elected(u64, usize),
}

/// What a leader says to the others.
#[derive(Clone, Debug)]
pub struct Lead {
    /// Its term.
    pub term: u64,
    /// Who.
    pub leader: usize,
    /// The log goes on from there,
    pub from: usize,
    /// to there.
    pub to: usize,
    /// Or all of it at once.
    pub snapshot: Option<Rc<Map>>,
}

impl Seat {
    /// A process that knows at most an old map.
    #[must_use]
    pub fn new(plan: &Plan, process: Process, kept: Option<(usize, Map)>) -> Self {
        let (applied, map) = kept.unwrap_or_else(|| (0, Agreement::empty_map(plan)));
        let config = Config {
            lease_us: LEASE_US,
            ceiling_ahead_us: plan.ceiling_ahead_us,
            ..Config::default()
        };
        Self {
            map,
            applied,
            lease: Lease::new(process, RENEW_US),
            coordinator: Coordinator::new(config),
            leads: None,
            confirmed: false,
            asked_us: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            gossip_us: 0,
        }
    }

    /// Whether it is time to ask for something (again).
    pub fn may_ask(&mut self, about: About, now_us: MonoUs) -> bool {
        let due = self.asked_us.get(&about).is_none_or(|at| now_us >= at + AGAIN_US);
        if due {
            self.asked_us.insert(about, now_us);
        }
        due
    }
}

impl World {
    /// A process looks at its seat: as leader at what should change and at who is behind, as owner at its lease and shards.
    pub fn seat_tick(&mut self, node: usize, incarnation: u64) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        let us = SEAT_US / 2 + self.chance.below(SEAT_US);
        self.after(us, Event::Seat(node, incarnation));
        self.gossip(node);
        self.coordinate(node, |coordinator, now, map, out| {
            coordinator.handle_deadline(now, map, out)
        });
        if self.agreement.leader() == Some(self.process_name(node)) {
            self.spread_log(node);
        }
        self.register(node);
        self.ask_for_lease(node);
        self.tend_shards(node);
    }

    /// One step of a coordinator, and then what it asks for.
    fn coordinate(
        &mut self,
        node: usize,
        step: impl FnOnce(&mut Coordinator, tidings_router::Now, &Map, &mut Vec<Output>),
    ) {
        let now = self.clock(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let seat = &mut process.seat;
        let mut out = Vec::new();
        step(&mut seat.coordinator, now, &seat.map, &mut out);
        let incarnation = self.nodes[node].incarnation;
        for output in out {
            match output {
                Output::Confirm { term, token } => {
                    let us = self.quorum_us(node) / 2;
                    self.after(us, Event::Quorum(node, incarnation, term, token));
                }
                Output::Propose {
                    term,
                    proposal,
                    commands,
                } => {
                    self.judge_proposal(node, &commands);
                    self.propose(term, Some(proposal), commands);
                }
                Output::Grant { to, grant } => {
                    self.judge_grant(node, to);
                    self.send(node, to.node.0 as usize, Some(to.incarnation), Body::Granted(grant));
                }
            }
        }
    }

    /// What a leader wants in the log reaches a quorum late, if it still leads.
    pub(crate) fn propose(&mut self, term: u64, proposal: Option<u64>, commands: Vec<Command>) {
        let Some(flight) = self.agreement.propose(term, proposal, commands) else {
            self.coverage.saw("proposal of a deposed leader refused");
            return;
        };
        let leader = self.agreement.leader().map_or(0, |leader| leader.node.0 as usize);
        let mut us = self.quorum_us(leader);
        if self.network.stalls && self.chance.percent(4) {
            // A voter's disk is slow.
            us += self.chance.range(200_000, 3_000_000);
            self.coverage.saw("proposal agreed on late");
        }
        self.after(us, Event::Commit(term, flight));
    }

    /// Commands on their way to whoever is thought to lead.
    pub(super) fn ask_leader(&mut self, node: usize, command: Command) {
        let seat = self.nodes[node].process.as_ref().map(|process| &process.seat);
        if let Some((_, leader)) = seat.and_then(|seat| seat.leads) {
            self.send(node, leader, None, Body::Ask(command));
        }
    }

    /// A command reaches a node.
    pub(super) fn asked(&mut self, node: usize, command: Command) {
        if self.agreement.leader() == Some(self.process_name(node)) {
            self.propose(self.agreement.term(), None, vec![command]);
        } else {
            self.coverage.saw("command sent to a node that does not lead");
        }
    }

    /// A quorum is asked whether a leader still leads.
    pub fn ask_quorum(&mut self, node: usize, incarnation: u64, term: u64, token: u64) {
        let process = Process {
            incarnation,
            ..self.process_name(node)
        };
        let leads = self.agreement.leader() == Some(process) && self.agreement.term() == term;
        let (word, us) = if leads && self.reaches_quorum(node) {
            (Word::Confirmed(token), self.quorum_us(node) / 2)
        } else {
            self.coverage.saw("leadership not confirmed");
            (Word::Unconfirmed(token), self.chance.range(1_000, 600_000))
        };
        self.after(us, Event::Word(node, incarnation, word));
    }

    /// The library says something.
    pub fn hear_word(&mut self, node: usize, incarnation: u64, word: Word) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        let input = match word {
            Word::Confirmed(token) => Input::Confirmed { token },
            Word::Unconfirmed(token) => Input::Unconfirmed { token },
            Word::Settled(proposal, length) => {
                self.apply_log(node, length);
                Input::Settled { proposal }
            }
            Word::Elected(term, length) => {
                self.apply_log(node, length);
                let Some(process) = self.nodes[node].process.as_mut() else {
                    return;
                };
                if process.seat.leads.is_some_and(|(known, _)| known > term) {
                    return;
                }
                process.seat.leads = Some((term, node));
                process.seat.lease.hurry();
                Input::Elected { term }
            }
        };
        self.coordinate(node, |coordinator, now, map, out| {
            coordinator.handle(now, map, input, out)
        });
    }

    /// A leader sends what others lack.
    pub(crate) fn spread_log(&mut self, node: usize) {
        let (length, term) = (self.agreement.log().len(), self.agreement.term());
        self.apply_log(node, length);
        for other in (0..self.plan.nodes).filter(|other| *other != node) {
            let known = self.nodes[other].process.as_ref().map(|process| process.seat.applied);
            let from = known.unwrap_or(length).min(length);
            let behind = length - from > ENTRIES_KEPT;
            let lead = Lead {
                term,
                leader: node,
                from,
                to: length,
                snapshot: behind.then(|| Rc::new(self.agreement.map().clone())),
            };
            self.send(node, other, None, Body::Lead(lead));
        }
    }

    /// A leader's word arrives.
    pub(super) fn led(&mut self, node: usize, lead: &Lead) {
        let office = (lead.term, lead.leader);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let seat = &mut process.seat;
        if seat.leads.is_some_and(|known| known.0 > lead.term) {
            return;
        }
        if seat.leads != Some(office) {
            let deposed = seat.coordinator.leads();
            seat.leads = Some(office);
            seat.lease.hurry();
            if deposed {
                self.coverage.saw("leader learnt that it was deposed");
                self.coordinate(node, |coordinator, now, map, out| {
                    coordinator.handle(now, map, Input::Deposed, out);
                });
            }
        }
        let Some(seat) = self.nodes[node].process.as_mut().map(|process| &mut process.seat) else {
            return;
        };
        match &lead.snapshot {
            Some(map) if seat.applied < lead.to => {
                seat.map = Map::clone(map);
                seat.applied = lead.to;
                self.coverage.saw("map taken from a snapshot");
                self.map_moved(node);
            }
            None if seat.applied >= lead.from => self.apply_log(node, lead.to),
            Some(_) | None => {}
        }
    }

    /// Applies the log up to a length.
    fn apply_log(&mut self, node: usize, length: usize) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let seat = &mut process.seat;
        if seat.applied >= length {
            return;
        }
        for entry in &self.agreement.log()[seat.applied..length] {
            for command in &entry.commands {
                // Refused here as everywhere.
                _ = seat.map.apply(command);
            }
        }
        seat.applied = length;
        self.map_moved(node);
    }

    fn map_moved(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.as_mut() {
            let revision = process.seat.map.revision();
            process.seat.lease.applied(revision);
        }
        self.lease_moved(node);
        self.follow_map(node);
    }

    /// Lease and ceiling as they are now count for all owners of a node.
    fn lease_moved(&mut self, node: usize) {
        let threads = self.plan.threads;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let (until_us, ceiling) = (process.seat.lease.until_us(), process.seat.lease.ceiling());
        // Granted with a revision that is applied here: from now on the map is no older than this process.
        process.seat.confirmed |= until_us > 0;
        for lane in &mut process.lanes {
            lane.machine.set_ceiling(process.seat.map.ceiling());
        }
        for owner in node * threads..(node + 1) * threads {
            self.owner_step(owner, |machine, _, _| {
                machine.set_lease(until_us);
                machine.set_ceiling(ceiling);
            });
        }
    }

    fn register(&mut self, node: usize) {
        let (me, now_us) = (self.process_name(node), self.clock(node).mono_us);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.seat.map.is_current(me) || !process.seat.may_ask(About::Registration, now_us) {
            return;
        }
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: format!("zone-{}", node % 2),
            peer_address: format!("n{node}:7401"),
            client_address: String::new(),
        };
        self.ask_leader(node, Command::Register { process: me, info });
    }

    fn ask_for_lease(&mut self, node: usize) {
        let now = self.clock(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let highest = process.owners.iter().map(|owner| owner.machine.highest()).max();
        // What lies there still as it was found.
        let whole = |(shard, epoch): &(&ShardId, &tidings_protocol::Epoch)| {
            let owner = process.owners.get(usize::from(shard.0) % self.plan.threads);
            owner.and_then(|owner| owner.standing(**shard)) == Some((**epoch, false, true))
        };
        let on_disk = process.on_disk.iter().filter(whole);
        let on_disk: Vec<_> = on_disk.map(|(shard, epoch)| (*shard, *epoch)).collect();
        let seat = &mut process.seat;
        let renewal = seat.lease.ask(now, highest.unwrap_or_default(), &on_disk);
        if let (Some(renewal), Some((_, leader))) = (renewal, seat.leads) {
            self.send(node, leader, None, Body::Renew(renewal));
        }
    }

    /// A process asks for its lease.
    pub(super) fn lease_asked(&mut self, node: usize, renewal: Renewal) {
        let from = renewal.from;
        if self.agreement.leader() == Some(self.process_name(node)) && self.is_being_replaced(from) {
            self.coverage.saw("renewal refused: replacement proposed");
        }
        self.coordinate(node, |coordinator, now, map, out| {
            coordinator.handle(now, map, Input::Renew(renewal), out);
        });
    }

    pub(super) fn lease_granted(&mut self, node: usize, grant: Grant) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let revision = process.seat.map.revision();
        if grant.revision > revision {
            self.coverage.saw("lease granted for a map not yet known");
        }
        process.seat.lease.granted(grant, revision);
        let was_confirmed = process.seat.confirmed;
        self.lease_moved(node);
        if !was_confirmed {
            self.follow_map(node);
        }
    }

    /// What gossip says to a coordinator: who can be reached, late, unless somebody lies.
    fn gossip(&mut self, node: usize) {
        let (now, now_us) = (self.now, self.clock(node).mono_us);
        let reached: Vec<bool> = (0..self.plan.nodes)
            .map(|other| {
                let open = !self.network.is_blocked(node, other) && !self.network.is_blocked(other, node);
                open && self.nodes[other].runs()
            })
            .collect();
        let incarnations: Vec<u64> = self.nodes.iter().map(|node| node.incarnation).collect();
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let seat = &mut process.seat;
        for (other, reached) in reached.iter().enumerate() {
            if *reached {
                seat.unreachable.remove(&other);
            } else {
                seat.unreachable.entry(other).or_insert(now);
            }
        }
        if !seat.coordinator.leads() || now_us < seat.gossip_us {
            return;
        }
        seat.gossip_us = now_us + 300_000;
        let mut heard = Vec::new();
        for (other, incarnation) in incarnations.into_iter().enumerate() {
            let silent = seat
                .unreachable
                .get(&other)
                .is_some_and(|since| now - since > SUSPECT_US);
            let lie = self.lies.get(&other).filter(|(_, until)| *until > now);
            let verdict = lie.map_or(if silent { Verdict::Dead } else { Verdict::Alive }, |lie| lie.0);
            if incarnation > 0 {
                let process = process_of(other, incarnation);
                heard.push(Input::Heard { process, verdict });
            }
        }
        for input in heard {
            self.coordinate(node, |coordinator, now, map, out| {
                coordinator.handle(now, map, input, out)
            });
        }
    }
}

/// A process by its numbers.
#[must_use]
pub fn process_of(node: usize, incarnation: u64) -> Process {
    Process {
        node: tidings_protocol::NodeId(node as u64),
        incarnation,
    }
}
