//! Owners, links and edges, and what befalls them.

use super::{Applied, BASE, EDGES, Heal, OBJECTS, SHARDS, World, shard};
use std::collections::VecDeque;
use tidings_checker::history::What;

/// An edge whose shard is this far behind the others names it in cursors.
const LAG_US: u64 = 600;

/// One shard's owner: a log of what it gave.
pub(crate) struct Owner {
    /// Object, version, key.
    log: Vec<(usize, u64, u64)>,
    /// So much of the log survives the owner.
    replicated: usize,
    last: u64,
    pub(crate) epoch: u64,
    floor: u64,
    pub(crate) is_down: bool,
}

enum Message {
    Change(usize, u64),
    Closed(u64),
    /// The link is new: what the owner has, and its floor.
    Registered {
        versions: Vec<(usize, u64)>,
        floor: u64,
    },
}

pub(crate) struct Edge {
    pub(crate) known: [u64; OBJECTS],
    closed: [u64; SHARDS],
    pub(crate) floor: [u64; SHARDS],
    is_registered: [bool; SHARDS],
    links: [VecDeque<Message>; SHARDS],
    is_cut: bool,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self {
            log: Vec::new(),
            replicated: 0,
            last: BASE,
            epoch: 1,
            floor: 0,
            is_down: false,
        }
    }

    pub(crate) fn version(&self, object: usize) -> u64 {
        self.log
            .iter()
            .rev()
            .find(|entry| entry.0 == object)
            .map_or(0, |entry| entry.1)
    }

    /// Everything up to here is on all copies.
    pub(crate) fn replicate(&mut self, version: u64) {
        let count = self.log.partition_point(|entry| entry.1 <= version);
        self.replicated = self.replicated.max(count);
    }

    fn registered(&self) -> Message {
        let versions = (0..OBJECTS)
            .map(|object| (object, self.version(object)))
            .filter(|entry| entry.1 > 0);
        Message::Registered {
            versions: versions.collect(),
            floor: self.floor,
        }
    }
}

impl Edge {
    pub(crate) fn new() -> Self {
        Self {
            known: [0; OBJECTS],
            closed: [BASE; SHARDS],
            floor: [0; SHARDS],
            is_registered: [true; SHARDS],
            links: Default::default(),
            is_cut: false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_registered.iter().all(|is| *is)
    }

    /// Base version, and the shards that lag with theirs.
    pub(crate) fn place(&self) -> (u64, Vec<(usize, u64)>) {
        let most = self.closed.iter().max().unwrap();
        let lags = |closed: &u64| closed + LAG_US < *most;
        let base = *self.closed.iter().filter(|closed| !lags(closed)).min().unwrap();
        let lagging = self.closed.iter().enumerate().filter(|(_, closed)| lags(closed));
        (base, lagging.map(|(shard, closed)| (shard, *closed)).collect())
    }
}

impl World {
    /// The owner gives a version, unless it knows the key.
    pub(crate) fn give(&mut self, object: usize, key: u64) -> Option<Applied> {
        let shard = shard(object);
        let owner = &mut self.owners[shard];
        if owner.is_down {
            return None;
        }
        let epoch = owner.epoch;
        if let Some(known) = owner.log.iter().find(|entry| key != 0 && entry.2 == key) {
            return Some(Applied {
                version: known.1,
                epoch,
                is_duplicate: true,
            });
        }
        owner.last = (owner.last + 1).max(BASE + self.now);
        let version = owner.last;
        self.ceiling = self.ceiling.max(version);
        owner.log.push((object, version, key));
        for edge in &mut self.edges {
            edge.links[shard].push_back(Message::Change(object, version));
        }
        Some(Applied {
            version,
            epoch,
            is_duplicate: false,
        })
    }

    /// The owner promises that all up to now was sent.
    pub(crate) fn close(&mut self, shard: usize) {
        let owner = &mut self.owners[shard];
        if owner.is_down {
            return;
        }
        owner.last = (owner.last + 1).max(BASE + self.now - 1);
        self.ceiling = self.ceiling.max(owner.last);
        for edge in &mut self.edges {
            edge.links[shard].push_back(Message::Closed(owner.last));
        }
    }

    /// Some link brings a message.
    pub(crate) fn carry(&mut self) {
        for _ in 0..4 {
            let (edge, shard) = (self.random.below(EDGES), self.random.below(SHARDS));
            if !self.edges[edge].is_cut && !self.edges[edge].links[shard].is_empty() {
                return self.carry_one(edge, shard);
            }
        }
    }

    /// The first that can; false if nothing is under way.
    pub(crate) fn carry_any(&mut self) -> bool {
        for edge in 0..EDGES {
            for shard in 0..SHARDS {
                if !self.edges[edge].is_cut && !self.edges[edge].links[shard].is_empty() {
                    self.carry_one(edge, shard);
                    return true;
                }
            }
        }
        false
    }

    fn carry_one(&mut self, edge: usize, shard: usize) {
        let Some(message) = self.edges[edge].links[shard].pop_front() else {
            return;
        };
        match message {
            Message::Change(object, version) => self.arrive(edge, object, version),
            Message::Closed(version) => self.edges[edge].closed[shard] = version,
            Message::Registered { versions, floor } => {
                for (object, version) in versions {
                    self.arrive(edge, object, version);
                }
                let at = &mut self.edges[edge];
                at.is_registered[shard] = true;
                if floor > at.floor[shard] {
                    at.floor[shard] = floor;
                    if at.closed[shard] < floor - 1 {
                        for client in self.clients.iter_mut().filter(|client| client.edge == Some(edge)) {
                            client.doubt_shard(shard);
                        }
                    }
                }
            }
        }
    }

    fn arrive(&mut self, edge: usize, object: usize, version: u64) {
        if version > self.edges[edge].known[object] {
            self.edges[edge].known[object] = version;
            for client in self.clients.iter_mut().filter(|client| client.edge == Some(edge)) {
                client.mark(object);
            }
        }
    }

    pub(crate) fn fault(&mut self) {
        if !self.faults.is_empty() && !self.random.one_in(4) {
            let at = self.random.below(self.faults.len());
            let heal = self.faults[at].1;
            return self.heal(heal);
        }
        let (owner, edge) = (self.random.below(SHARDS), self.random.below(EDGES));
        let (name, heal) = match self.random.below(4) {
            0 => (format!("kill s{owner}"), Heal::Owner(owner)),
            1 if self.setup.losses => (format!("lose s{owner}"), Heal::Owner(owner)),
            2 => (format!("cut e{edge}"), Heal::Edge(edge)),
            _ => (format!("restart e{edge}"), Heal::Edge(edge)),
        };
        if self.faults.iter().any(|(_, other)| *other == heal) {
            return;
        }
        self.tell(What::NemesisStart {
            fault: name.clone().into(),
        });
        match heal {
            Heal::Owner(shard) => self.strike_owner(shard, name.starts_with("lose")),
            Heal::Edge(edge) if name.starts_with("cut") => self.edges[edge].is_cut = true,
            Heal::Edge(edge) => self.restart_edge(edge),
        }
        self.faults.push((name, heal));
    }

    /// The owner is gone: with it what was on no copy, and what was on its links.
    fn strike_owner(&mut self, shard: usize, is_lost: bool) {
        let owner = &mut self.owners[shard];
        owner.is_down = true;
        let kept = owner.replicated + self.random.below(owner.log.len() - owner.replicated + 1);
        owner.log.truncate(kept);
        if is_lost {
            owner.log.clear();
            owner.replicated = 0;
            owner.floor = u64::MAX;
        }
        for edge in &mut self.edges {
            let link = &mut edge.links[shard];
            let kept = self.random.below(link.len() + 1);
            // An edge that waits for its registration gets the next owner's.
            link.truncate(kept);
        }
    }

    fn restart_edge(&mut self, edge: usize) {
        let floor = self.edges[edge].floor;
        let closed = [0; SHARDS];
        self.edges[edge] = Edge {
            closed,
            is_registered: [false; SHARDS],
            floor,
            ..Edge::new()
        };
        for shard in 0..SHARDS {
            if !self.owners[shard].is_down {
                let message = self.owners[shard].registered();
                self.edges[edge].links[shard].push_back(message);
            }
        }
        for client in 0..self.clients.len() {
            if self.clients[client].edge == Some(edge) {
                self.drop_connection(client);
            }
        }
    }

    pub(crate) fn heal(&mut self, heal: Heal) {
        let Some(at) = self.faults.iter().position(|(_, other)| *other == heal) else {
            return;
        };
        let (name, _) = self.faults.remove(at);
        match heal {
            Heal::Edge(edge) => self.edges[edge].is_cut = false,
            Heal::Owner(shard) => {
                self.ceiling += 50;
                let owner = &mut self.owners[shard];
                owner.is_down = false;
                owner.epoch += 1;
                owner.last = self.ceiling;
                owner.replicated = owner.log.len();
                if owner.floor == u64::MAX {
                    owner.floor = owner.last + 1;
                }
                for edge in &mut self.edges {
                    edge.links[shard].push_back(owner.registered());
                }
            }
        }
        self.tell(What::NemesisStop { fault: name.into() });
    }
}
