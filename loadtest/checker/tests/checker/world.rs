//! A small honest cluster in virtual time, and the history that an outside observer would write of it.
//!
//! Owners give versions per shard; links bring them to edges with any delay; edges mark what clients have yet to hear;
//! clients are slow, lose connections, and come back elsewhere with their cursor. Owners crash and lose what nobody was
//! promised; copies are lost with everything (then the floor rises); edges are cut off, and lag. It is written from the
//! promises, with no code of the server.

mod client;
mod cluster;

use client::Client;
use cluster::{Edge, Owner};
use std::collections::BTreeSet;
use tidings_checker::Rules;
use tidings_checker::history::{Event, Level, Object, Trace, What};
use tidings_protocol::{HashKey, ObjectHash, ShardCount};

pub(crate) const SHARDS: usize = 4;
pub(crate) const OBJECTS: usize = 8;
const EDGES: usize = 3;
const CLIENTS: u32 = 6;
const PUBLISHERS: u32 = 4;
/// Versions are this much above the virtual clock.
pub(crate) const BASE: u64 = 1_795_170_000_000_000;

/// Random numbers from a seed: splitmix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What happens in a life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    /// Owners crash, edges are killed and cut off.
    pub(crate) faults: bool,
    /// All copies of a shard may be lost.
    pub(crate) losses: bool,
    /// Clients record what is older than what they know.
    pub(crate) raw: bool,
    pub(crate) steps: usize,
}

impl Setup {
    pub(crate) fn quiet(seed: u64) -> Self {
        Self {
            seed,
            faults: false,
            losses: false,
            raw: false,
            steps: 2_500,
        }
    }

    pub(crate) fn faulty(seed: u64) -> Self {
        Self {
            faults: true,
            ..Self::quiet(seed)
        }
    }

    pub(crate) fn lossy(seed: u64) -> Self {
        Self {
            losses: true,
            ..Self::faulty(seed)
        }
    }

    /// Any kind of life, by the seed.
    pub(crate) fn any(seed: u64) -> Self {
        let faults = !seed.is_multiple_of(4);
        Self {
            seed,
            faults,
            losses: faults && seed.is_multiple_of(3),
            raw: seed.is_multiple_of(2),
            steps: 2_500,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        let mut rules = Rules {
            lost_copies: self.losses,
            raw_clients: self.raw,
            ..Rules::default()
        };
        rules.samples = 2;
        // One life is short: that all is put to the test is asked of many.
        rules.required.clear();
        rules
    }
}

pub(crate) fn object(object: usize) -> Object<'static> {
    // One of them is named by its text, as a load of mixed names would be.
    if object == OBJECTS - 1 {
        Object::Text("doc/seven".into())
    } else {
        Object::Number(object as u64)
    }
}

pub(crate) fn hash(object: usize) -> ObjectHash {
    HashKey::new([5; 16]).object(&format!("{object}"))
}

pub(crate) fn shard(object: usize) -> usize {
    ShardCount::new(SHARDS as u16).unwrap().shard(hash(object)).0.into()
}

/// A request to publish that is under way.
struct Request {
    publisher: u32,
    call: u64,
    object: usize,
    key: u64,
    level: Level,
    applied: Option<Applied>,
}

#[derive(Clone, Copy)]
struct Applied {
    version: u64,
    epoch: u64,
    is_duplicate: bool,
}

struct World {
    random: Random,
    setup: Setup,
    now: u64,
    events: Vec<Event<'static>>,
    owners: Vec<Owner>,
    edges: Vec<Edge>,
    clients: Vec<Client>,
    requests: Vec<Request>,
    /// Given up by their publisher, but not by the network.
    zombies: Vec<(usize, u64)>,
    retries: Vec<(u32, usize, u64)>,
    calls: u64,
    /// Faults in force: name, and what heals it.
    faults: Vec<(String, Heal)>,
    /// Every version ever given or closed is at most this.
    ceiling: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Heal {
    Owner(usize),
    Edge(usize),
}

/// Lives a life and returns what was seen of it.
pub(crate) fn history(setup: Setup) -> Vec<Event<'static>> {
    let mut world = World {
        random: Random(setup.seed),
        setup,
        now: 1_000_000,
        events: Vec::new(),
        owners: (0..SHARDS).map(|_| Owner::new()).collect(),
        edges: (0..EDGES).map(|_| Edge::new()).collect(),
        clients: (0..CLIENTS).map(Client::new).collect(),
        requests: Vec::new(),
        zombies: Vec::new(),
        retries: Vec::new(),
        calls: 0,
        faults: Vec::new(),
        ceiling: BASE,
    };
    let mood = if setup.losses { "lossy" } else { "lossless" };
    world.tell(What::Note { text: mood.into() });
    for _ in 0..setup.steps {
        world.now += world.random.below(100) as u64;
        world.step();
    }
    world.end();
    world.events
}

impl World {
    fn tell(&mut self, what: What<'static>) {
        self.events.push(Event { at_us: self.now, what });
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..12 => self.call(),
            12..24 => self.apply(),
            24..36 => self.answer(),
            36..60 => self.carry(),
            60..66 => {
                let shard = self.random.below(SHARDS);
                self.close(shard);
            }
            66..88 => {
                let client = self.random.below(self.clients.len());
                self.serve(client);
            }
            88..97 => {
                let client = self.random.below(self.clients.len());
                self.client_acts(client);
            }
            97 | 98 if self.setup.faults => self.fault(),
            _ if self.random.one_in(8) => self.rest(),
            _ => {}
        }
    }

    fn call(&mut self) {
        let publisher = self.random.below(PUBLISHERS as usize) as u32;
        if self.requests.iter().any(|request| request.publisher == publisher) {
            return;
        }
        let retry = self
            .retries
            .iter()
            .position(|retry| retry.0 == publisher)
            .filter(|_| self.random.one_in(2));
        let (object, key) = match retry {
            Some(at) => {
                let (_, object, key) = self.retries.remove(at);
                (object, key)
            }
            // A few objects change often.
            None => {
                let first = self.random.below(OBJECTS);
                let key = if self.random.one_in(2) { self.calls + 1 } else { 0 };
                (if self.random.one_in(2) { first / 4 } else { first }, key)
            }
        };
        let level = match self.random.below(10) {
            0 => Level::Accepted,
            1 => Level::Durable,
            _ => Level::Replicated,
        };
        self.calls += 1;
        let call = self.calls;
        self.tell(What::PubCall {
            publisher,
            call,
            obj: self::object(object),
            key,
            revision: None,
            level,
        });
        self.requests.push(Request {
            publisher,
            call,
            object,
            key,
            level,
            applied: None,
        });
    }

    fn apply(&mut self) {
        if !self.zombies.is_empty() && self.random.one_in(3) {
            let at = self.random.below(self.zombies.len());
            let (object, key) = self.zombies[at];
            if self.give(object, key).is_some() {
                self.zombies.remove(at);
            }
            return;
        }
        let waiting: Vec<_> = (0..self.requests.len())
            .filter(|at| self.requests[*at].applied.is_none())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = waiting[self.random.below(waiting.len())];
        self.requests[at].applied = self.give(self.requests[at].object, self.requests[at].key);
    }

    fn answer(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at = self.random.below(self.requests.len());
        let request = &self.requests[at];
        let (publisher, call) = (request.publisher, request.call);
        let is_lost = self.random.one_in(12);
        match request.applied {
            Some(applied) if !is_lost => {
                let shard = shard(request.object);
                // Somebody else's reign: the answer died with the owner.
                if applied.epoch != self.owners[shard].epoch || self.owners[shard].is_down {
                    return self.give_up(at);
                }
                if request.level != Level::Accepted {
                    self.owners[shard].replicate(applied.version);
                }
                let trace = Some(Trace {
                    shard: shard as u16,
                    epoch: applied.epoch,
                });
                let Applied {
                    version,
                    is_duplicate: duplicate,
                    ..
                } = applied;
                self.tell(What::PubOk {
                    publisher,
                    call,
                    version,
                    duplicate,
                    trace,
                });
                self.requests.remove(at);
            }
            None if !is_lost && self.random.one_in(3) => {
                self.tell(What::PubFail { publisher, call });
                self.requests.remove(at);
            }
            _ if is_lost || self.random.one_in(20) => self.give_up(at),
            _ => {}
        }
    }

    /// The publisher will never know.
    fn give_up(&mut self, at: usize) {
        let request = self.requests.remove(at);
        if self.random.one_in(5) {
            // Not even the time-out is recorded: the load generator was killed.
        } else {
            self.tell(What::PubUnknown {
                publisher: request.publisher,
                call: request.call,
            });
        }
        if request.applied.is_none() && self.random.one_in(2) {
            self.zombies.push((request.object, request.key));
        }
        if request.key != 0 && self.random.one_in(2) {
            self.retries.push((request.publisher, request.object, request.key));
        }
    }

    /// All is quiet for half a minute.
    fn rest(&mut self) {
        if !self.faults.is_empty() {
            return;
        }
        self.settle();
        self.now += 30_000_000;
        for shard in 0..SHARDS {
            self.close(shard);
        }
        self.settle();
    }

    /// Everything arrives everywhere.
    fn settle(&mut self) {
        while self.carry_any() {}
        for client in 0..self.clients.len() {
            if !self.clients[client].is_frozen {
                while self.serve(client) {
                    self.now += 1;
                }
            }
        }
    }

    fn end(&mut self) {
        while let Some((_, heal)) = self.faults.last().cloned() {
            self.heal(heal);
        }
        while !self.requests.is_empty() {
            self.now += 3;
            self.give_up(0);
        }
        while let Some((object, key)) = self.zombies.pop() {
            self.give(object, key);
        }
        for client in 0..self.clients.len() {
            self.clients[client].is_frozen = false;
        }
        for _ in 0..3 {
            for shard in 0..SHARDS {
                self.close(shard);
            }
            while self.carry_any() {}
            for client in 0..self.clients.len() {
                self.now += 5;
                if self.clients[client].edge.is_none() {
                    self.open(client, false);
                }
            }
            self.settle();
        }
        self.now += 20_000_000;
        let all: BTreeSet<usize> = (0..OBJECTS).collect();
        for object in all {
            let version = self.owners[shard(object)].version(object);
            let version = (version > 0).then_some(version);
            self.tell(What::Final {
                obj: self::object(object),
                version,
            });
        }
    }
}
