//! Three processes with owners, senders and receivers, one map that changes by commands, roads that delay, break and lose,
//! and views of the map that lag and skip.

use super::random::Random;
use std::collections::{BTreeMap, VecDeque};
use tidings_protocol::copy::Entry;
use tidings_protocol::{ClusterId, Epoch, NodeId, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tidings_router::copies::receiver::{self, Arrived, Part, Receiver};
use tidings_router::copies::sender::{self, Sender, Wish};
use tidings_router::owner::taking::{Assignment, Table};
use tidings_router::owner::{Config, Input, Output, Owner, Publish, PublishExtra, Published};

pub const SHARDS: u16 = 2;

pub fn shards() -> ShardCount {
    ShardCount::new(SHARDS).unwrap()
}

fn config() -> Config {
    Config {
        shards: shards(),
        version_table_bytes: 1 << 24,
        revisions: 1 << 12,
        idempotency_keys: 1 << 12,
        idempotency_window_us: 1 << 50,
        link_window_changes: 64,
        link_hint_bytes: 1 << 16,
        closed_busy_us: 1 << 40,
        closed_idle_us: 1 << 40,
    }
}

/// A word on its way.
#[derive(Clone, Debug)]
pub enum Word {
    Batch(Arrived),
    Confirmed(u32, u64, u64),
    Lacks((u32, u64), (ShardId, Epoch)),
    Refused(ShardId, Epoch),
}

/// When it arrives, from whom, to whom, what.
pub type Sent = (u64, Process, Process, Word);

/// What a publisher asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub object: ObjectHash,
    pub version: Version,
    pub key: Option<u128>,
    pub epoch: Epoch,
}

pub struct Node {
    pub me: Process,
    pub map: Map,
    pub owner: Owner,
    pub sender: Sender,
    pub receiver: Receiver,
    /// Whether it has read a map that is certainly not of the time before its start.
    pub open: bool,
    pub owns: BTreeMap<ShardId, Epoch>,
    pub waiting: BTreeMap<u64, Asked>,
    pub linked: Vec<bool>,
}

impl Node {
    fn new(me: Process, map: Map, others: usize) -> Self {
        let config = sender::Config {
            shards: shards(),
            window_bytes: 400,
            queue_bytes: 1 << 20,
            silence_us: 400_000,
            again_us: 50_000,
        };
        Self {
            me,
            map,
            owner: Owner::new(self::config()),
            sender: Sender::new(me, config),
            receiver: Receiver::new(self::config()),
            open: false,
            owns: BTreeMap::new(),
            waiting: BTreeMap::new(),
            linked: vec![false; others],
        }
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    pub acks: u64,
    pub promoted: u64,
    pub joined: u64,
    pub removed: u64,
    pub handed_over: u64,
    pub retaken: u64,
    pub deposed: u64,
    pub lacked: u64,
    pub duplicates: u64,
    pub lost: u64,
}

pub struct World {
    pub random: Random,
    pub now: Now,
    pub map: Map,
    pub nodes: Vec<Option<Node>>,
    incarnations: Vec<u64>,
    pub roads: BTreeMap<(usize, usize), VecDeque<Sent>>,
    pub proposals: Vec<(u64, Command)>,
    /// Acknowledged: object, version.
    pub acked: Vec<Asked>,
    /// Versions that were answered under a key.
    keys: BTreeMap<u128, (ObjectHash, Version)>,
    pub copies: usize,
    pub peace: bool,
    next: u64,
    pub tally: Tally,
    pub log: Vec<String>,
}

impl World {
    pub fn new(seed: u64, copies: usize) -> Self {
        let mut map = Map::new(ClusterId(1), shards(), copies as u8);
        map.apply(&Command::RaiseCeiling { to: Version(1_000_000) }).unwrap();
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Now {
                mono_us: 1,
                wall_us: 1_000,
            },
            map,
            nodes: (0..3).map(|_| None).collect(),
            incarnations: vec![0; 3],
            roads: BTreeMap::new(),
            proposals: Vec::new(),
            acked: Vec::new(),
            keys: BTreeMap::new(),
            copies,
            peace: false,
            next: 1,
            tally: Tally::default(),
            log: Vec::new(),
        };
        (0..3).for_each(|node| world.start(node));
        world
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let text = format!("{:>8} {}", self.now.mono_us / 1000, text());
        self.log.push(text);
    }

    pub fn agree(&mut self, command: &Command) -> bool {
        let fine = self.map.apply(command).is_ok();
        if fine {
            self.note(|| format!("agreed {command:?}"));
        }
        fine
    }

    pub fn start(&mut self, node: usize) {
        self.incarnations[node] += 1;
        let me = Process {
            node: NodeId(node as u64 + 1),
            incarnation: self.incarnations[node],
        };
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: String::new(),
            peer_address: format!("{node}:1"),
            client_address: String::new(),
        };
        self.agree(&Command::Register { process: me, info });
        self.nodes[node] = Some(Node::new(me, self.map.clone(), 3));
        self.note(|| format!("{me:?} starts"));
    }

    pub fn kill(&mut self, node: usize) {
        let Some(dead) = self.nodes[node].take() else { return };
        self.note(|| format!("{:?} dies", dead.me));
        for other in 0..3 {
            self.cut(node, other);
        }
    }

    /// The connection between two nodes breaks, both ways.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.roads.remove(&(a, b));
        self.roads.remove(&(b, a));
        for (one, other) in [(a, b), (b, a)] {
            if let Some(node) = &mut self.nodes[one] {
                node.linked[other] = false;
            }
            let Some(to) = self.nodes[other].as_ref().map(|node| node.me) else {
                continue;
            };
            self.on(one, |node, now, out| node.sender.link(now, to, false, out));
        }
    }

    pub fn join_roads(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            let (Some(from), Some(to)) = (&self.nodes[one], &self.nodes[other]) else {
                return;
            };
            if from.linked[other] || !from.open || !to.open {
                continue;
            }
            let to = to.me;
            if let Some(node) = &mut self.nodes[one] {
                node.linked[other] = true;
            }
            self.on(one, |node, now, out| node.sender.link(now, to, true, out));
        }
    }

    pub fn index(process: Process) -> usize {
        process.node.0 as usize - 1
    }

    pub fn send(&mut self, from: usize, to: Process, word: Word) {
        let Some(me) = self.nodes[from].as_ref().map(|node| node.me) else {
            return;
        };
        let target = Self::index(to);
        let linked = |a: usize, b: usize| self.nodes[a].as_ref().is_some_and(|node| node.linked[b]);
        // Answers take the connection of the stream they answer.
        let way = if matches!(word, Word::Batch(_)) {
            linked(from, target)
        } else {
            linked(target, from)
        };
        if !way {
            return;
        }
        let delay = self.random.below(if self.peace { 2_000 } else { 60_000 });
        let road = self.roads.entry((from, target)).or_default();
        let at = road.back().map_or(0, |(at, ..)| *at).max(self.now.mono_us + delay);
        road.push_back((at, me, to, word));
    }

    /// A step of a node's sender, and what comes of it.
    pub fn on(&mut self, index: usize, step: impl FnOnce(&mut Node, Now, &mut Vec<sender::Output>)) {
        let Some(node) = &mut self.nodes[index] else { return };
        let mut out = Vec::new();
        step(node, self.now, &mut out);
        node.sender.flush(self.now, &node.owner, &mut out);
        for output in out {
            self.perform(index, output);
        }
    }

    fn perform(&mut self, index: usize, output: sender::Output) {
        match output {
            sender::Output::Send { to, batch } => {
                let arrived = Arrived {
                    owner: 0,
                    life: batch.life,
                    place: batch.place,
                    sync: batch.sync,
                    entries: Vec::<Entry>::clone(&batch.entries),
                };
                self.send(index, to, Word::Batch(arrived));
            }
            sender::Output::Confirmed { request } => self.acknowledge(index, request),
            sender::Output::Lost { request } => {
                self.tally.lost += 1;
                if let Some(node) = &mut self.nodes[index] {
                    node.waiting.remove(&request);
                }
            }
            sender::Output::Deposed { shard, epoch } => {
                self.tally.deposed += 1;
                self.note(|| format!("node {index} is deposed of {shard} by {epoch:?}"));
                self.release(index, shard);
            }
            sender::Output::Propose(wish) => self.propose(index, wish),
        }
    }

    fn propose(&mut self, index: usize, wish: Wish) {
        let Some(node) = &self.nodes[index] else { return };
        let (shard, epoch) = match wish {
            Wish::Join { shard, epoch, .. }
            | Wish::Remove { shard, epoch, .. }
            | Wish::HandOver { shard, epoch, .. } => (shard, epoch),
        };
        let Some(seen) = Seen::of(&node.map, shard).filter(|seen| seen.epoch == epoch) else {
            return;
        };
        let command = match wish {
            Wish::Join { member, .. } => Command::Join { seen, member },
            Wish::Remove { member, .. } => Command::Remove { seen, member },
            Wish::HandOver { to, .. } => Command::Release {
                seen,
                from: node.me,
                to,
            },
        };
        if !self.peace && self.random.percent(20) {
            return;
        }
        let delay = self.random.below(if self.peace { 5_000 } else { 300_000 });
        self.proposals.push((self.now.mono_us + delay, command));
    }

    fn acknowledge(&mut self, index: usize, request: u64) {
        let Some(asked) = self.nodes[index]
            .as_mut()
            .and_then(|node| node.waiting.remove(&request))
        else {
            return;
        };
        self.tally.acks += 1;
        self.note(|| format!("node {index} acknowledges {asked:?}"));
        if let Some(key) = asked.key {
            let floor = self
                .map
                .shard(shards().shard(asked.object))
                .map_or(Version::ZERO, |shard| shard.floor);
            let first = self.keys.entry(key).or_insert((asked.object, asked.version));
            if first.1 < floor {
                // Every copy was lost, and the key with them.
                *first = (asked.object, asked.version);
            }
            let text = self.log.join("\n");
            assert_eq!(*first, (asked.object, asked.version), "one key, one version\n{text}");
        }
        self.acked.push(asked);
    }

    /// Somebody publishes at a node that believes to own the shard.
    pub fn publish(&mut self, index: usize) {
        let object = ObjectHash(self.random.below(6) << 60 | self.random.below(40) << 20);
        let key = self.random.percent(30).then(|| {
            let key = u128::from(self.random.below(200)) << 64;
            key | u128::from(object.0 >> 48)
        });
        // A key belongs to one object.
        let object = key.map_or(object, |key| ObjectHash((key as u64) << 48 | 7));
        let shard = shards().shard(object);
        let (request, sync) = (self.next, self.random.percent(30));
        self.next += 1;
        let Some(node) = &mut self.nodes[index] else { return };
        let Some(epoch) = node.owns.get(&shard).copied() else {
            return;
        };
        if node.sender.is_leaving(shard) {
            return;
        }
        let extra = key.map(|key| {
            Box::new(PublishExtra {
                idempotency: Some(key),
                ..PublishExtra::default()
            })
        });
        let changes = vec![Publish { object, extra }];
        let mut out = Vec::new();
        node.owner
            .handle(self.now, Input::Publish { request, changes }, &mut out);
        let published = out.iter().find_map(|output| match output {
            Output::Published { results, .. } => results.first().copied(),
            Output::ToEdge { .. } => None,
        });
        let version = match published {
            Some(Published::Accepted(version)) => {
                node.sender.versions(shard, &[(object, version)]);
                if let Some(key) = key {
                    let answer = tidings_protocol::copy::CopiedAnswer {
                        key: receiver::halves(key),
                        version,
                        wall_us: self.now.wall_us,
                    };
                    node.sender.marks(shard, &[], &[answer]);
                }
                version
            }
            Some(Published::Duplicate(version)) => {
                self.tally.duplicates += 1;
                version
            }
            _ => return,
        };
        let asked = Asked {
            object,
            version,
            key,
            epoch,
        };
        node.waiting.insert(request, asked);
        let waits = node.sender.request(request, &[shard], sync);
        self.on(index, |_, _, _| ());
        if !waits {
            self.acknowledge(index, request);
        }
    }

    pub fn release(&mut self, index: usize, shard: ShardId) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[index] {
            // It may be in sync still.
            if let Some(epoch) = node.owns.remove(&shard)
                && let Some(table) = node.owner.give_up(shard, &mut Vec::new())
            {
                node.receiver.restore(now, shard, epoch, table);
            }
        }
        self.on(index, |node, _, out| node.sender.end(shard, out));
    }

    /// A node reads the newest map.
    pub fn read_map(&mut self, index: usize) {
        let map = self.map.clone();
        let Some(node) = &mut self.nodes[index] else { return };
        node.map = map.clone();
        node.open = true;
        for (id, shard) in map.shards() {
            let mine = shard.owner == self.nodes[index].as_ref().map(|node| node.me);
            let Some(node) = &mut self.nodes[index] else { return };
            let part = match () {
                () if mine => Part::Owner,
                () if shard.in_sync.contains(&node.me) => Part::InSync,
                () if shard.filling.contains(&node.me) => Part::Filling,
                () => Part::Nothing,
            };
            let owned = node.owns.get(&id).copied();
            if !mine && owned.is_some_and(|epoch| epoch < shard.epoch) {
                self.release(index, id);
            }
            let Some(node) = &mut self.nodes[index] else { return };
            node.receiver.heed(id, shard.epoch, part, &mut Vec::new());
            if mine && owned.is_none_or(|epoch| epoch < shard.epoch) {
                self.take_over(index, id);
            }
            if mine {
                let shard = shard.clone();
                self.on(index, |node, now, out| {
                    let Node { sender, owner, .. } = node;
                    sender.heed(now, id, &shard, owner, out);
                });
            }
        }
    }

    fn take_over(&mut self, index: usize, id: ShardId) {
        let now = self.now;
        let Some(node) = &mut self.nodes[index] else { return };
        let shard = node.map.shard(id).cloned().unwrap();
        let held: Option<Table> = match node.receiver.promote(id) {
            Some((table, _, complete)) => {
                assert!(
                    complete || shard.floor == shard.begins,
                    "node {index} is to own {id} with a copy that is not complete\n{}",
                    self.log.join("\n")
                );
                self.tally.promoted += 1;
                Some(table)
            }
            None => None,
        };
        let again = node.owns.insert(id, shard.epoch).is_some();
        self.tally.retaken += u64::from(again);
        let assignment = Assignment {
            shard: id,
            epoch: shard.epoch,
            begins: shard.begins,
            floor: shard.floor,
            cause: shard.cause,
        };
        if again {
            node.owner.go_on(now, assignment, &mut Vec::new());
        } else {
            assert!(
                held.is_some() || shard.epoch == Epoch(1) || shard.floor == shard.begins,
                "node {index} is to own {id} and has nothing\n{}",
                self.log.join("\n")
            );
            node.owner.take_over(now, assignment, held, &mut Vec::new());
        }
        // What was acknowledged in older epochs is here.
        for asked in &self.acked {
            if shards().shard(asked.object) == id && asked.epoch < shard.epoch && asked.version >= shard.floor {
                let node = self.nodes[index].as_ref().unwrap();
                assert!(
                    node.owner.version(asked.object) >= asked.version,
                    "{asked:?} is not known to node {index}, which owns {id} since {:?}\n{}",
                    shard.epoch,
                    self.log.join("\n")
                );
            }
        }
    }

    pub fn step(&mut self) {
        let pass = 1 + self.random.below(20_000);
        self.now.mono_us += pass;
        self.now.wall_us += pass / 1_000;
        self.deliver();
        for index in 0..3 {
            let due = self.nodes[index]
                .as_ref()
                .and_then(|node| node.sender.next_deadline())
                .is_some_and(|at| at <= self.now.mono_us);
            if due {
                self.on(index, |node, now, out| node.sender.handle_deadline(now, out));
            }
        }
        let node = self.random.below(3) as usize;
        let other = (node + 1 + self.random.below(2) as usize) % 3;
        match self.random.below(100) {
            0..40 => self.publish(node),
            40..60 => self.read_map(node),
            60..80 => self.control(),
            80..92 => self.join_roads(node, other),
            92..94 if !self.peace => self.cut(node, other),
            94 if !self.peace => {
                if self.random.percent(30) {
                    self.kill(node);
                }
            }
            _ => {
                if self.nodes[node].is_none() {
                    self.start(node);
                }
            }
        }
    }
}
