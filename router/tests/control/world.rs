//! A cluster's control plane on virtual time: a replicated log with elections, delays and loss, nodes that crash, pause,
//! restart and are cut off, clocks at different rates, gossip that lies.
//!
//! The log is a list that only grows. A leader's proposal is appended late or never; what it appended counts also after it
//! lost its office. A deposed leader learns of it late.

use crate::nodes::{Holding, Node};
use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use tidings_protocol::{ClusterId, Epoch, NodeId, ShardCount, ShardId, Version};
use tidings_router::control::command::{Command, With};
use tidings_router::control::coordinator::{Config, Coordinator, Input, Output, Verdict};
use tidings_router::control::lease::{Grant, Lease, Renewal};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

pub const SHARDS: u16 = 8;
const RENEW_EVERY_US: u64 = 500_000;
const OBJECTS: u64 = 4;

/// What travels to a node.
#[derive(Clone, Debug)]
pub enum Mail {
    Renew(Renewal),
    Grant(Grant),
    Confirmed(u64),
    Unconfirmed(u64),
    Settled(u64),
    Elected(u64),
    Deposed,
}

/// What happens later.
#[derive(Clone, Debug)]
enum Later {
    Mail(usize, u64, Mail),
    /// A proposal reaches the log, if its term still stands.
    Append {
        term: u64,
        from: usize,
        proposal: Option<u64>,
        commands: Vec<Command>,
    },
    /// The quorum is asked.
    Quorum {
        term: u64,
        from: usize,
        token: u64,
    },
}

/// What came to pass, so that a run in which nothing happened is seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub acks: u64,
    pub by_copy: u64,
    pub by_disk: u64,
    pub empty: u64,
    pub handed_over: u64,
    pub joined: u64,
    pub elections: u64,
    pub refused_old_epoch: u64,
    pub stale_grants: u64,
    pub lies: u64,
}

pub struct World {
    pub random: Random,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub tally: Tally,
    pub faults: bool,
    later: BTreeMap<(u64, u64), Later>,
    serial: u64,
    pub log: Vec<Vec<Command>>,
    /// The log applied at once: the truth.
    pub truth: Map,
    term: u64,
    leader: Option<usize>,
    leading: Option<Process>,
    elect_at: u64,
    pub acked: BTreeMap<(ShardId, u8), Version>,
    pub first_ack: BTreeMap<ShardId, Epoch>,
    pub highest: BTreeMap<(ShardId, Epoch), Version>,
    pub emptied: BTreeMap<ShardId, Epoch>,
}

fn shards() -> ShardCount {
    ShardCount::new(SHARDS).unwrap()
}

impl World {
    pub fn new(seed: u64, count: usize, copies: u8) -> Self {
        let mut random = Random(seed);
        let map = Map::new(ClusterId(1), shards(), copies);
        let nodes = (0..count).map(|at| Self::node(&mut random, &map, at, 1)).collect();
        let mut world = Self {
            random,
            now: 1_000_000,
            nodes,
            tally: Tally::default(),
            faults: true,
            later: BTreeMap::new(),
            serial: 0,
            log: Vec::new(),
            truth: map,
            term: 0,
            leader: None,
            leading: None,
            elect_at: 0,
            acked: BTreeMap::new(),
            first_ack: BTreeMap::new(),
            highest: BTreeMap::new(),
            emptied: BTreeMap::new(),
        };
        for at in 0..count {
            world.append(vec![world.registration(at)]);
        }
        world
    }

    fn node(random: &mut Random, map: &Map, at: usize, incarnation: u64) -> Node {
        let process = Process {
            node: NodeId(at as u64),
            incarnation,
        };
        Node {
            process,
            up: true,
            paused_until: 0,
            cut_until: 0,
            rate_permille: random.range(975, 1_025),
            boot_us: random.below(1 << 40),
            wall_off: random.below(20_000_000) as i64 - 10_000_000,
            applied: 0,
            map: Map::new(map.cluster(), shards(), map.copies()),
            lease: Lease::new(process, RENEW_EVERY_US),
            coordinator: Coordinator::new(Config::default()),
            holdings: vec![Holding::default(); SHARDS.into()],
            on_disk: Vec::new(),
            inbox: VecDeque::new(),
        }
    }

    fn registration(&self, at: usize) -> Command {
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: format!("z{}", at % 2),
            peer_address: format!("n{at}:7401"),
            client_address: String::new(),
        };
        let process = self.nodes[at].process;
        Command::Register { process, info }
    }

    fn after(&mut self, us: u64, what: Later) {
        self.serial += 1;
        self.later.insert((self.now + us, self.serial), what);
    }

    fn mail(&mut self, to: usize, mail: Mail) {
        let us = self.random.range(200, 60_000);
        let incarnation = self.nodes[to].process.incarnation;
        self.after(us, Later::Mail(to, incarnation, mail));
    }

    /// Between two nodes: lost when either is cut off, and sometimes anyway.
    fn mail_between(&mut self, from: usize, to: usize, mail: Mail) {
        let whole = self.nodes[from].reaches(self.now) && self.nodes[to].reaches(self.now);
        if from == to || (whole && !(self.faults && self.random.percent(4))) {
            self.mail(to, mail);
        }
    }

    fn append(&mut self, commands: Vec<Command>) {
        for command in &commands {
            let applied = self.truth.apply(command);
            self.truth.check().unwrap();
            if applied.is_ok() {
                self.note(command);
            }
        }
        self.log.push(commands);
    }

    fn note(&mut self, command: &Command) {
        match command {
            Command::Assign { with: With::Copy, .. } => self.tally.by_copy += 1,
            Command::Assign { with: With::Disk, .. } => self.tally.by_disk += 1,
            Command::Assign {
                seen,
                with: With::Nothing(_),
                ..
            } => {
                self.tally.empty += 1;
                let epoch = self.truth.shard(seen.shard).unwrap().epoch;
                self.emptied.insert(seen.shard, epoch);
            }
            Command::Release { .. } => self.tally.handed_over += 1,
            Command::Join { .. } => self.tally.joined += 1,
            _ => {}
        }
    }

    /// One step of everybody.
    pub fn step(&mut self) {
        self.now += self.random.range(1_000, 20_000);
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let what = entry.remove();
            self.happen(what);
        }
        self.elect();
        if self.faults {
            self.go_wrong();
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].runs(self.now) {
                self.live(at);
            }
        }
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Mail(to, incarnation, mail) => {
                let node = &mut self.nodes[to];
                if node.up && node.process.incarnation == incarnation {
                    node.inbox.push_back(mail);
                }
            }
            Later::Append { term, from, .. } if term == self.term && !self.nodes[from].reaches(self.now) => {
                // As long as it is not deposed, a leader goes on trying.
                self.after(20_000, what);
            }
            Later::Append {
                term,
                from,
                proposal,
                commands,
            } => {
                if term == self.term {
                    self.append(commands);
                    if let Some(proposal) = proposal {
                        self.mail(from, Mail::Settled(proposal));
                    }
                }
            }
            Later::Quorum { term, from, token } => {
                let leads = term == self.term && self.nodes[from].reaches(self.now);
                let answer = if leads {
                    Mail::Confirmed(token)
                } else {
                    Mail::Unconfirmed(token)
                };
                self.mail(from, answer);
            }
        }
    }

    fn elect(&mut self) {
        let fit = |node: &Node, now| node.runs(now) && node.reaches(now);
        let process = self.leader.map(|at| self.nodes[at].process);
        let lost = process != self.leading || self.leader.is_none_or(|at| !fit(&self.nodes[at], self.now));
        let restless = self.faults && self.random.below(4_000) == 0;
        if !lost && !restless {
            self.elect_at = 0;
            return;
        }
        if self.elect_at == 0 {
            self.elect_at = self.now + self.random.range(100_000, 900_000);
        }
        if self.now < self.elect_at && !restless {
            return;
        }
        let fit: Vec<usize> = (0..self.nodes.len())
            .filter(|at| fit(&self.nodes[*at], self.now))
            .collect();
        if fit.len() * 2 <= self.nodes.len() {
            return;
        }
        if let Some(old) = self.leader {
            self.mail(old, Mail::Deposed);
        }
        self.term += 1;
        self.elect_at = 0;
        self.tally.elections += 1;
        let at = *self.random.pick(&fit);
        self.leader = Some(at);
        self.leading = Some(self.nodes[at].process);
        let term = self.term;
        self.mail(at, Mail::Elected(term));
    }

    fn go_wrong(&mut self) {
        let at = self.random.below(self.nodes.len() as u64) as usize;
        match self.random.below(1_500) {
            0 if self.nodes[at].up => self.nodes[at].up = false,
            1..=3 if !self.nodes[at].up => self.restart(at),
            4 | 5 => self.nodes[at].paused_until = self.now + self.random.range(100_000, 6_000_000),
            6 | 7 => self.nodes[at].cut_until = self.now + self.random.range(100_000, 6_000_000),
            8..=10 => {
                let verdict = if self.random.percent(50) {
                    Verdict::Dead
                } else {
                    Verdict::Alive
                };
                self.gossip(at, verdict);
                self.tally.lies += 1;
            }
            11 => {
                let node = NodeId(at as u64);
                let draining = self.random.percent(50);
                self.append(vec![Command::Drain { node, draining }]);
            }
            12 => self.nodes[at].wall_off += self.random.below(40_000_000) as i64 - 20_000_000,
            _ => {}
        }
    }

    fn gossip(&mut self, about: usize, verdict: Verdict) {
        let process = self.nodes[about].process;
        for at in 0..self.nodes.len() {
            let now = self.nodes[at].now(self.now);
            let node = &mut self.nodes[at];
            let input = Input::Heard { process, verdict };
            node.coordinator.handle(now, &node.map, input, &mut Vec::new());
        }
    }

    /// The process died with its disk whole, or with a disk that is of no use.
    fn restart(&mut self, at: usize) {
        let whole = self.random.percent(60);
        let old = &self.nodes[at];
        let incarnation = old.process.incarnation + 1;
        let mut fresh = Self::node(&mut self.random, &self.truth, at, incarnation);
        fresh.rate_permille = old.rate_permille;
        fresh.boot_us = old.boot_us;
        if whole {
            let kept = old.map.shards().filter(|(_, shard)| shard.involves(old.process.node));
            let epochs = kept.map(|(id, _)| (id, old.holdings[usize::from(id.0)].epoch));
            fresh.on_disk = epochs.filter(|(id, _)| Self::has_part(old, *id)).collect();
            fresh.holdings = old.holdings.clone();
            for holding in &mut fresh.holdings {
                holding.joining.clear();
                holding.level = false;
            }
        }
        self.nodes[at] = fresh;
        let registration = self.registration(at);
        self.append(vec![registration]);
    }

    /// Whether it owned the shard or was in sync, as far as it knew.
    fn has_part(node: &Node, id: ShardId) -> bool {
        let shard = node.map.shard(id).unwrap();
        shard.owner == Some(node.process) || shard.in_sync.contains(&node.process)
    }

    fn live(&mut self, at: usize) {
        self.catch_up(at);
        let now = self.nodes[at].now(self.now);
        let mut out = Vec::new();
        while let Some(mail) = self.nodes[at].inbox.pop_front() {
            self.read(at, mail, &mut out);
        }
        let node = &mut self.nodes[at];
        node.coordinator.handle_deadline(now, &node.map, &mut out);
        self.perform(at, out);
        let highest = self.nodes[at].highest();
        let on_disk = self.nodes[at].on_disk.clone();
        if let (Some(renewal), Some(leader)) = (self.nodes[at].lease.ask(now, highest, &on_disk), self.leader) {
            self.mail_between(at, leader, Mail::Renew(renewal));
        }
        for id in self.nodes[at].owned() {
            self.own(at, id);
        }
    }

    /// Applies more of the log; a leader has all of it, others lag.
    pub fn catch_up(&mut self, at: usize) {
        if !self.nodes[at].reaches(self.now) {
            return;
        }
        let all = self.leader == Some(at) || self.random.percent(30);
        let node = &mut self.nodes[at];
        while all && node.applied < self.log.len() {
            for command in &self.log[node.applied] {
                let _ = node.map.apply(command);
                node.follow_map();
            }
            node.applied += 1;
        }
        node.lease.applied(node.map.revision());
    }

    fn read(&mut self, at: usize, mail: Mail, out: &mut Vec<Output>) {
        let now = self.nodes[at].now(self.now);
        let node = &mut self.nodes[at];
        let input = match mail {
            Mail::Renew(renewal) => Input::Renew(renewal),
            Mail::Confirmed(token) => Input::Confirmed { token },
            Mail::Unconfirmed(token) => Input::Unconfirmed { token },
            Mail::Settled(proposal) => Input::Settled { proposal },
            // The word of its election may have come first.
            Mail::Deposed if self.leader == Some(at) => return,
            Mail::Deposed => Input::Deposed,
            Mail::Elected(term) => {
                if term != self.term {
                    return;
                }
                Input::Elected { term }
            }
            Mail::Grant(grant) => {
                self.tally.stale_grants += u64::from(grant.revision > node.map.revision());
                return node.lease.granted(grant, node.map.revision());
            }
        };
        node.coordinator.handle(now, &node.map, input, out);
    }

    fn perform(&mut self, at: usize, out: Vec<Output>) {
        for output in out {
            let us = self.random.range(200, 40_000);
            match output {
                Output::Confirm { term, token } => self.after(us, Later::Quorum { term, from: at, token }),
                Output::Propose {
                    term,
                    proposal,
                    commands,
                } => {
                    let proposal = Some(proposal);
                    if self.leader == Some(at) {
                        self.after(
                            us,
                            Later::Append {
                                term,
                                from: at,
                                proposal,
                                commands,
                            },
                        );
                    }
                }
                Output::Grant { to, grant } => {
                    let to = to.node.0 as usize;
                    self.mail_between(at, to, Mail::Grant(grant));
                }
            }
        }
    }

    /// What an owner does with a shard in one step: bring copies level, fill, propose, publish.
    fn own(&mut self, at: usize, id: ShardId) {
        let now = self.nodes[at].now(self.now);
        let slot = usize::from(id.0);
        let shard = self.nodes[at].map.shard(id).unwrap().clone();
        let epoch = shard.epoch;
        if !self.nodes[at].holdings[slot].level {
            let level = shard.in_sync.iter().all(|copy| self.send_all(at, id, *copy, epoch));
            self.nodes[at].holdings[slot].level = level;
        }
        for member in &shard.filling {
            if !self.nodes[at].holdings[slot].joining.contains(member) && self.send_all(at, id, *member, epoch) {
                self.nodes[at].holdings[slot].joining.insert(*member);
            }
        }
        let reaches = self.nodes[at].reaches(self.now) && self.leader.is_some();
        if reaches
            && self.random.percent(30)
            && let Some(command) = self.nodes[at].owner_proposal(id)
        {
            let (us, term) = (self.random.range(200, 80_000), self.term);
            let from = self.leader.unwrap();
            self.after(
                us,
                Later::Append {
                    term,
                    from,
                    proposal: None,
                    commands: vec![command],
                },
            );
        }
        if self.nodes[at].holdings[slot].level
            && self.random.percent(20)
            && let Some(version) = self.nodes[at].tick(now, id)
        {
            self.publish(at, id, epoch, version);
        }
    }

    /// The whole store to a copy, which replaces what that one had.
    fn send_all(&mut self, from: usize, id: ShardId, to: Process, epoch: Epoch) -> bool {
        let store = self.nodes[from].holdings[usize::from(id.0)].store.clone();
        let Some(holding) = self.copy_at(from, id, to, epoch) else {
            return false;
        };
        holding.store = store;
        holding.epoch = epoch;
        true
    }

    /// The holding of a copy that can be reached and does not refuse the epoch.
    fn copy_at(&mut self, from: usize, id: ShardId, to: Process, epoch: Epoch) -> Option<&mut Holding> {
        let now = self.now;
        let at = to.node.0 as usize;
        let whole = self.nodes[from].reaches(now) && self.nodes[at].reaches(now) && self.nodes[at].runs(now);
        let node = &mut self.nodes[at];
        let holding = &mut node.holdings[usize::from(id.0)];
        if !whole || node.process != to {
            return None;
        }
        if holding.epoch > epoch {
            self.tally.refused_old_epoch += 1;
            return None;
        }
        Some(holding)
    }

    fn publish(&mut self, at: usize, id: ShardId, epoch: Epoch, version: Version) {
        self.judge_version(at, id, epoch, version);
        let object = self.random.below(OBJECTS) as u8;
        let slot = usize::from(id.0);
        let shard = self.nodes[at].map.shard(id).unwrap().clone();
        self.nodes[at].holdings[slot].store.insert(object, version);
        let joining = self.nodes[at].holdings[slot].joining.clone();
        let mut acked = true;
        for copy in shard.in_sync.iter().chain(&joining) {
            match self.copy_at(at, id, *copy, epoch) {
                Some(holding) => {
                    holding.store.insert(object, version);
                }
                None => {
                    acked = false;
                    self.give_up(at, id, *copy);
                }
            }
        }
        if acked {
            self.judge_ack(at, id, epoch);
            self.tally.acks += 1;
            self.acked.insert((id, object), version);
        }
    }

    /// A copy did not take a change: out of the in-sync set by decision; on the way there it starts again.
    fn give_up(&mut self, at: usize, id: ShardId, copy: Process) {
        let Some(seen) = tidings_router::control::command::Seen::of(&self.nodes[at].map, id) else {
            return;
        };
        if self.nodes[at].reaches(self.now)
            && self.random.percent(20)
            && let Some(from) = self.leader
        {
            let commands = vec![Command::Remove { seen, member: copy }];
            let term = self.term;
            self.after(
                30_000,
                Later::Append {
                    term,
                    from,
                    proposal: None,
                    commands,
                },
            );
        }
    }

    /// All faults end; everybody comes back.
    pub fn heal(&mut self) {
        self.faults = false;
        for at in 0..self.nodes.len() {
            if !self.nodes[at].up {
                self.restart(at);
            }
            self.nodes[at].paused_until = 0;
            self.nodes[at].cut_until = 0;
            self.gossip(at, Verdict::Alive);
            let node = NodeId(at as u64);
            self.append(vec![Command::Drain { node, draining: false }]);
        }
    }
}
