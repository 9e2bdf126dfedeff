//! Clients: what they hold, what they have yet to hear, and their cursors.

use super::{EDGES, OBJECTS, World, hash, object, shard};
use std::collections::{BTreeMap, BTreeSet};
use tidings_checker::history::{Trace, What};
use tidings_protocol::{ClusterId, Cursor, ShardId, Version};

pub(crate) struct Client {
    number: u32,
    pub(crate) edge: Option<usize>,
    pub(crate) is_frozen: bool,
    /// Its cursors list what was told above them, and its answers tell no version when it subscribes.
    polls: bool,
    held: BTreeSet<usize>,
    pending: BTreeSet<usize>,
    doubted: BTreeSet<usize>,
    is_resuming: bool,
    subscribing: Option<usize>,
    cursor: Option<String>,
    /// What it was told, by object: what its library knows.
    known: BTreeMap<usize, u64>,
    /// What a poll's cursor lists.
    told: BTreeMap<usize, u64>,
}

impl Client {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            edge: None,
            is_frozen: false,
            polls: number.is_multiple_of(3),
            held: BTreeSet::new(),
            pending: BTreeSet::new(),
            doubted: BTreeSet::new(),
            is_resuming: false,
            subscribing: None,
            cursor: None,
            known: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Something newer is there to be told.
    pub(crate) fn mark(&mut self, object: usize) {
        if self.held.contains(&object) {
            self.pending.insert(object);
        }
    }

    /// The shard's owner cannot vouch for what it has.
    pub(crate) fn doubt_shard(&mut self, lost: usize) {
        self.doubted
            .extend(self.held.iter().filter(|object| shard(**object) == lost));
    }
}

impl World {
    /// The server does one thing for a client that can read; false if there is nothing to do.
    pub(crate) fn serve(&mut self, at: usize) -> bool {
        let client = &self.clients[at];
        let (Some(edge), number) = (client.edge, client.number) else {
            return false;
        };
        if client.is_frozen {
            return false;
        }
        if !client.doubted.is_empty() {
            self.resync(at);
            return true;
        }
        if !client.pending.is_empty() {
            let skip = self.random.below(client.pending.len());
            let told = *client.pending.iter().nth(skip).unwrap();
            self.clients[at].pending.remove(&told);
            let version = self.edges[edge].known[told];
            self.notify(at, told, version);
            return true;
        }
        if client.is_resuming {
            self.clients[at].is_resuming = false;
            self.tell(What::ResumeOk {
                client: number,
                changed: Vec::new(),
            });
            self.hand(at, edge);
            return true;
        }
        if let Some(object) = client.subscribing {
            self.subscribed(at, edge, object);
            return true;
        }
        let before = self.clients[at].cursor.clone();
        self.hand(at, edge);
        self.clients[at].cursor != before
    }

    fn notify(&mut self, at: usize, told: usize, version: u64) {
        let epoch = self.owners[shard(told)].epoch;
        let trace = (!self.setup.seed.is_multiple_of(5)).then_some(Trace {
            shard: shard(told) as u16,
            epoch,
        });
        let client = &mut self.clients[at];
        let known = client.known.entry(told).or_default();
        // A library keeps to itself what is older than what it knows.
        if version < *known && !self.setup.raw {
            return;
        }
        *known = version.max(*known);
        if client.polls {
            client.told.insert(told, version);
        }
        let number = client.number;
        self.tell(What::Notify {
            client: number,
            obj: object(told),
            version,
            trace,
        });
    }

    fn resync(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let objects = std::mem::take(&mut client.doubted);
        let is_all = objects == client.held;
        let number = client.number;
        let objects = (!is_all).then(|| objects.into_iter().map(object).collect());
        self.tell(What::Resync {
            client: number,
            objects,
            cause: "versions_lost".into(),
        });
    }

    fn subscribed(&mut self, at: usize, edge: usize, told: usize) {
        let client = &mut self.clients[at];
        client.subscribing = None;
        client.held.insert(told);
        let (number, polls) = (client.number, client.polls);
        let known = self.edges[edge].known[told];
        let version = (!polls).then_some(known);
        if !polls {
            let knows = client.known.entry(told).or_default();
            *knows = known.max(*knows);
        }
        self.tell(What::SubOk {
            client: number,
            obj: object(told),
            version,
        });
        if polls {
            self.hand(at, edge);
        }
    }

    /// A cursor: all that the edge has heard was told.
    fn hand(&mut self, at: usize, edge: usize) {
        let (base, lagging) = self.edges[edge].place();
        let lagging: Vec<_> = lagging
            .iter()
            .map(|(shard, closed)| (ShardId(*shard as u16), Version(*closed)))
            .collect();
        let client = &mut self.clients[at];
        let place = Cursor::new(ClusterId(9), Version(base), lagging.clone(), Vec::new());
        client
            .told
            .retain(|object, version| Version(*version) > place.at(ShardId(shard(*object) as u16)));
        let told = client
            .told
            .iter()
            .map(|(object, version)| (hash(*object), Version(*version)))
            .collect();
        let text = Cursor::new(ClusterId(9), Version(base), lagging, told)
            .encode()
            .unwrap();
        if client.cursor.as_ref() == Some(&text) {
            return;
        }
        client.cursor = Some(text.clone());
        let number = client.number;
        self.tell(What::Cursor {
            client: number,
            text: text.into(),
        });
    }

    /// A client does something of its own accord.
    pub(crate) fn client_acts(&mut self, at: usize) {
        let choice = self.random.below(12);
        let wanted = self.random.below(OBJECTS);
        let client = &mut self.clients[at];
        let number = client.number;
        match (client.edge, choice) {
            (None, _) => {
                let anew = self.random.one_in(40);
                self.open(at, anew);
            }
            (Some(_), 0) => self.drop_connection(at),
            (Some(_), 1) => client.is_frozen = !client.is_frozen,
            (Some(_), 2 | 3) => client.is_frozen = false,
            (Some(_), 4) => {
                if let Some(gone) = client.held.pop_last() {
                    client.pending.remove(&gone);
                    client.doubted.remove(&gone);
                    client.told.remove(&gone);
                    self.tell(What::UnsubCall {
                        client: number,
                        obj: object(gone),
                    });
                    self.now += 1;
                    self.tell(What::UnsubOk {
                        client: number,
                        obj: object(gone),
                    });
                }
            }
            (Some(_), _) => {
                let is_free = client.subscribing.is_none() && !client.held.contains(&wanted);
                if is_free && !client.is_resuming && !client.is_frozen {
                    client.subscribing = Some(wanted);
                    self.tell(What::SubCall {
                        client: number,
                        obj: object(wanted),
                    });
                }
            }
        }
    }

    pub(crate) fn drop_connection(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.edge = None;
        client.pending.clear();
        client.doubted.clear();
        client.is_resuming = false;
        client.subscribing = None;
        let number = client.number;
        self.tell(What::ConnClose { client: number });
    }

    pub(crate) fn open(&mut self, at: usize, anew: bool) {
        let edge = self.random.below(EDGES);
        if !self.edges[edge].is_ready() {
            return;
        }
        let client = &mut self.clients[at];
        if anew {
            client.cursor = None;
        }
        if client.cursor.is_none() {
            client.held.clear();
            client.told.clear();
        }
        client.edge = Some(edge);
        let (number, text) = (client.number, client.cursor.clone());
        let cursor = text.clone().map(Into::into);
        self.tell(What::ConnOpen {
            client: number,
            edge: format!("e{edge}").into(),
            cursor,
        });
        let Some(text) = text else { return };
        let cursor = Cursor::decode(&text).unwrap();
        let (client, edge) = (&mut self.clients[at], &self.edges[edge]);
        client.is_resuming = true;
        for object in client.held.clone() {
            let place = cursor.at(ShardId(shard(object) as u16));
            let told = cursor.told(hash(object)).unwrap_or(place).max(place);
            if place.0 + 1 < edge.floor[shard(object)] {
                client.doubted.insert(object);
            }
            if edge.known[object] > told.0 {
                client.pending.insert(object);
            }
        }
    }
}
