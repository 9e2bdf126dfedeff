//! Clients of all three transports on a [`World`]: what they ask for, when they come and go, how slowly they read. What
//! they are told is judged next door, in `judge.rs`.
//!
//! A client that was told `v` of an object knows everything up to `v` (changes are levels). It *holds* an object, so that
//! it is owed every later change, from its `subscribed`, from its first cursor where there is no `subscribed`, or from
//! the call where it brought a cursor.

use crate::random::Random;
use crate::wire::{self, Message};
use crate::world::{Event, Shape, World};
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::client::Entry;
use tidings_protocol::codec::Encoding;
use tidings_protocol::{Cursor, Hint, Version};
use tidings_router::edge::{Page, SinkKind, SubscriberKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    EventStream,
    Poll,
}

/// From when on a client is owed the changes of an object: later than this step and above this version.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub step: u64,
    pub version: u64,
}

/// A request on a WebSocket that is not answered yet.
#[derive(Debug)]
pub struct Ask {
    pub objects: Vec<String>,
    pub at_least: Vec<Option<Version>>,
    /// The step of the call, and the number of lost tables then.
    pub step: u64,
    pub lost: u64,
    pub cursor: bool,
    pub more: bool,
}

#[derive(Debug)]
pub struct Connection {
    pub lane: usize,
    pub who: SubscriberKey,
    pub transport: Transport,
    /// What its sink has taken and not delivered, while it is blocked.
    pub in_hand: Option<Vec<bytes::Bytes>>,
    /// Objects of which it may be told.
    pub live: BTreeSet<String>,
    /// Objects yet to be asked for, in pages.
    pub pages: Vec<Vec<String>>,
    pub ask: Option<Ask>,
    pub told: BTreeMap<String, u64>,
    /// A poll is under way: when its wait ends, and the step of its call.
    pub poll: Option<(u64, u64)>,
    /// The last answer was cut.
    pub more: bool,
    /// The cursor it came with, read.
    pub came_with: Option<Cursor>,
}

#[derive(Debug, Default)]
pub struct Client {
    pub name: String,
    pub wanted: BTreeSet<String>,
    pub cursor: Option<String>,
    pub held: BTreeMap<String, Held>,
    pub told: BTreeMap<String, u64>,
    pub resynced: BTreeMap<String, u64>,
    /// Objects of which a cut answer left an older version untold, because this newer one is yet to come.
    pub skipped: BTreeMap<String, Version>,
    pub connection: Option<Connection>,
}

/// What happened over a run, to see that it tested something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub told: u64,
    pub cursors: u64,
    pub lagging: u64,
    pub with_told: u64,
    pub resyncs: u64,
    pub more: u64,
    pub repeats: u64,
    pub answers: u64,
    pub not_yet: u64,
    pub blocked: u64,
    pub cut: u64,
}

pub struct Town {
    pub world: World,
    pub clients: Vec<Client>,
    pub log: Vec<String>,
    pub tally: Tally,
    /// Chance in percent that a write blocks its sink.
    pub block: u64,
    /// Chance in percent that a ping is not answered.
    pub mute: u64,
    /// Chance in percent that a client says which version it knows.
    pub says_version: u64,
    /// Chance in percent that a client asks for a state that includes the newest change.
    pub says_at_least: u64,
    /// Causes that a resync may have.
    pub causes: BTreeSet<&'static str>,
    pub random: Random,
    /// The highest cursor of each shard that anybody was handed.
    pub claimed: Vec<u64>,
}

/// Tells what happened when one chosen life ends badly.
impl Drop for Town {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var("TIDINGS_SEED").is_ok() {
            self.log.iter().for_each(|line| println!("{line}"));
        }
    }
}

pub fn encoding(transport: Transport) -> SinkKind {
    match transport {
        Transport::WebSocket => SinkKind::Stream(Encoding::WebSocketJson),
        Transport::EventStream => SinkKind::Stream(Encoding::EventStream),
        Transport::Poll => SinkKind::Poll,
    }
}

impl Town {
    pub fn new(shape: Shape, clients: usize, seed: u64) -> Self {
        let client = |number| Client {
            name: format!("c{number}"),
            ..Client::default()
        };
        Self {
            world: World::new(shape, seed),
            clients: (0..clients).map(client).collect(),
            log: Vec::new(),
            tally: Tally::default(),
            block: 0,
            mute: 0,
            says_version: 20,
            says_at_least: 10,
            causes: BTreeSet::new(),
            random: Random(seed ^ 0x7469_6469_6e67_7321),
            claimed: vec![0; shape.shards.into()],
        }
    }

    pub fn note(&mut self, client: usize, words: impl std::fmt::Display) {
        let at_ms = self.world.now.mono_us / 1000;
        self.log.push(format!("{at_ms} {}: {words}", self.clients[client].name));
    }

    pub fn connected(&self, client: usize) -> bool {
        self.clients[client].connection.is_some()
    }

    pub fn transport(&self, client: usize) -> Option<Transport> {
        self.clients[client].connection.as_ref().map(|c| c.transport)
    }

    pub fn blocked(&self, client: usize) -> bool {
        self.clients[client]
            .connection
            .as_ref()
            .is_some_and(|c| c.in_hand.is_some())
    }

    /// Whether the client waits for nothing but news.
    pub fn settled(&self, client: usize) -> bool {
        let settled = |c: &Connection| c.ask.is_none() && c.pages.is_empty() && c.in_hand.is_none();
        self.clients[client].connection.as_ref().is_none_or(settled)
    }

    pub fn publish(&mut self, object: &str, hint: Option<Hint>) -> Option<Version> {
        let version = self.world.publish(object, hint)?;
        let shard = usize::from(self.world.shard(object).0);
        self.log
            .push(format!("{} publish {object}@{version}", self.world.now.mono_us / 1000));
        assert!(
            version.0 > self.claimed[shard],
            "{object}@{version} lies below a cursor that somebody holds already"
        );
        Some(version)
    }

    /// A client comes (back): it asks for everything it wants, with its cursor if it has one.
    pub fn connect(&mut self, client: usize, lane: usize, transport: Transport) {
        assert!(self.clients[client].connection.is_none());
        let who = self.world.lane(lane, |l, now, _| match transport {
            Transport::Poll => l.open_session(now),
            _ => l.connect(now, encoding(transport), false),
        });
        let person = &mut self.clients[client];
        if person.cursor.is_none() {
            // Without a cursor it starts from now, and fetches everything.
            person.held.clear();
        }
        let wanted: Vec<String> = person.wanted.iter().cloned().collect();
        let page = if transport == Transport::WebSocket {
            wanted.len() / self.random.range(1, 8) as usize
        } else {
            wanted.len()
        };
        let came_with = person.cursor.as_ref().and_then(|text| Cursor::decode(text).ok());
        person.connection = Some(Connection {
            lane,
            who,
            transport,
            in_hand: None,
            live: BTreeSet::new(),
            pages: wanted.chunks(page.max(1)).rev().map(<[_]>::to_vec).collect(),
            ask: None,
            told: BTreeMap::new(),
            poll: None,
            more: false,
            came_with,
        });
        self.note(client, format_args!("connects to lane {lane} by {transport:?}"));
        if transport == Transport::Poll {
            let pages = std::mem::take(&mut self.clients[client].connection.as_mut().expect("just made").pages);
            self.poll(client, pages.into_iter().flatten().collect(), Vec::new());
        } else {
            self.ask(client);
        }
    }

    pub fn entries(
        &mut self,
        client: usize,
        objects: &[String],
    ) -> Vec<Result<Entry, (String, tidings_protocol::Problem)>> {
        let mut entries = Vec::new();
        for object in objects {
            let person = &self.clients[client];
            // What it was told of last, if it still holds it, says no less than the cursor.
            let known = person.held.get(object).and_then(|_| person.told.get(object)).copied();
            let version = known.filter(|_| self.random.percent(self.says_version)).map(Version);
            let newest = self
                .world
                .history
                .get(object)
                .and_then(|all| all.last())
                .map(|c| c.version);
            let at_least = newest.filter(|_| self.random.percent(self.says_at_least));
            entries.push(Ok(Entry {
                object: object.as_str().into(),
                version,
                at_least,
            }));
        }
        entries
    }

    /// Sends the next page of a stream, if one is due.
    pub fn ask(&mut self, client: usize) {
        let Some(connection) = &mut self.clients[client].connection else {
            return;
        };
        if connection.transport == Transport::Poll || connection.ask.is_some() {
            return;
        }
        let Some(objects) = connection.pages.pop() else { return };
        let (lane, who, transport) = (connection.lane, connection.who, connection.transport);
        let more = !connection.pages.is_empty();
        if transport == Transport::EventStream {
            connection.live.extend(objects.iter().cloned());
        }
        let mut entries = self.entries(client, &objects);
        if transport == Transport::EventStream {
            // A refusal would need an answer that names the others.
            entries.iter_mut().flatten().for_each(|entry| entry.at_least = None);
        }
        let person = &mut self.clients[client];
        let cursor = person.cursor.clone();
        let ask = Ask {
            step: self.world.step,
            lost: self.world.lost,
            cursor: cursor.is_some(),
            more,
            objects: objects.clone(),
            at_least: entries.iter().flatten().map(|entry| entry.at_least).collect(),
        };
        if cursor.is_some() {
            hold_from(person, &objects, self.world.step);
        }
        person.connection.as_mut().expect("connected").ask = Some(ask);
        let page = Page {
            id: None,
            entries,
            cursor,
            more,
        };
        self.world
            .lane(lane, |l, now, out| l.subscribe(now, who, page, out))
            .expect("a request is due");
        self.note(
            client,
            format_args!(
                "subscribes {}{}",
                objects.join(" "),
                if more { " and more" } else { "" }
            ),
        );
    }

    /// Whether the client could ask for more or less on its stream now.
    pub fn may_ask(&self, client: usize) -> bool {
        let may = |c: &Connection| c.transport == Transport::WebSocket && c.ask.is_none() && c.in_hand.is_none();
        self.clients[client].connection.as_ref().is_some_and(may)
    }

    pub fn subscribe(&mut self, client: usize, objects: Vec<String>) {
        self.clients[client].wanted.extend(objects.iter().cloned());
        if let Some(connection) = &mut self.clients[client].connection {
            connection.pages.insert(0, objects);
        }
        self.ask(client);
    }

    pub fn unsubscribe(&mut self, client: usize, objects: &[String]) {
        let person = &mut self.clients[client];
        let Some(connection) = &mut person.connection else {
            return;
        };
        for object in objects {
            person.wanted.remove(object);
            person.held.remove(object);
            connection.live.remove(object);
            connection
                .pages
                .iter_mut()
                .for_each(|page| page.retain(|o| o != object));
            connection.told.remove(object);
        }
        let (lane, who) = (connection.lane, connection.who);
        self.note(client, format_args!("unsubscribes {}", objects.join(" ")));
        self.world
            .lane(lane, |l, now, out| l.unsubscribe(now, who, None, objects.iter(), out))
            .expect("a request is due");
    }

    /// The connection is lost, and what was under way to the client with it.
    pub fn disconnect(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.note(client, "disconnects");
            self.world
                .lane(connection.lane, |l, now, _| l.disconnect(now, connection.who));
        }
    }

    pub fn dismiss(&mut self, client: usize) {
        let Some(connection) = &self.clients[client].connection else {
            return;
        };
        let (lane, who) = (connection.lane, connection.who);
        let code = tidings_protocol::close::CloseCode::Drain;
        self.note(client, "is sent away");
        self.world
            .lane(lane, |l, now, out| l.dismiss(now, who, code, "drain", Some(1), out));
        // A poll is answered on the spot.
        while let Some(event) = self.world.events.pop_front() {
            self.happen(event);
        }
    }

    /// A blocked sink delivers what it took and is free again, or only says that it goes on.
    pub fn unblock(&mut self, client: usize, all: bool) {
        let Some(connection) = &mut self.clients[client].connection else {
            return;
        };
        let (lane, who) = (connection.lane, connection.who);
        if !all {
            self.world.lane(lane, |l, now, _| l.progress(now, who));
            return;
        }
        let Some(bytes) = connection.in_hand.take() else { return };
        for bytes in bytes {
            self.read(client, &bytes);
        }
        self.world.lane(lane, |l, now, out| l.writable(now, who, out));
    }

    /// Ends polls whose wait is over.
    pub fn end_polls(&mut self) {
        for client in 0..self.clients.len() {
            let now_us = self.world.now.mono_us;
            let Some(connection) = &self.clients[client].connection else {
                continue;
            };
            if connection.poll.is_some_and(|(until_us, _)| until_us <= now_us) {
                let (lane, who) = (connection.lane, connection.who);
                self.world.lane(lane, |l, now, out| l.poll_over(now, who, None, out));
            }
        }
    }

    pub fn find(&self, lane: usize, who: SubscriberKey) -> Option<usize> {
        let is = |c: &Client| c.connection.as_ref().is_some_and(|c| c.lane == lane && c.who == who);
        self.clients.iter().position(is)
    }

    /// Lets the lanes write and answer, and the clients read.
    pub fn pump(&mut self) {
        loop {
            while let Some(event) = self.world.events.pop_front() {
                self.happen(event);
            }
            let lanes = self.world.lanes.len();
            // One write at a time, so that a sink can say that it is blocked before the next one.
            if !(0..lanes).any(|lane| self.world.write(lane)) && self.world.events.is_empty() {
                break;
            }
        }
        for client in 0..self.clients.len() {
            if !self.blocked(client) {
                self.ask(client);
            }
        }
    }

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Written { lane, who, bytes, last } => {
                let Some(client) = self.find(lane, who) else { return };
                let block = !last && self.random.percent(self.block);
                let Some(connection) = &mut self.clients[client].connection else {
                    return;
                };
                assert!(connection.in_hand.is_none(), "nothing is written to a blocked sink");
                if block {
                    connection.in_hand = Some(vec![bytes]);
                    self.tally.blocked += 1;
                    self.world.lane(lane, |l, now, _| l.blocked(now, who));
                } else {
                    self.read(client, &bytes);
                }
                if last {
                    self.note(client, "connection closed");
                    self.clients[client].connection = None;
                }
            }
            Event::Answered { lane, who, answer } => {
                if let Some(client) = self.find(lane, who) {
                    self.answered(client, *answer);
                }
            }
            Event::Superseded { .. } => {}
            Event::Cut { lane, who } => {
                if let Some(client) = self.find(lane, who) {
                    self.tally.cut += 1;
                    self.note(client, "is cut");
                    self.clients[client].connection = None;
                }
            }
        }
    }

    pub fn read(&mut self, client: usize, bytes: &[u8]) {
        let stream = self.transport(client) == Some(Transport::EventStream);
        let messages = if stream {
            wire::event_stream(bytes)
        } else {
            wire::web_socket(bytes)
        };
        for message in messages {
            match message {
                Message::Named { name, body, .. } => self.hear(client, &name, &body),
                Message::Ping => {
                    if !self.random.percent(self.mute)
                        && let Some(connection) = &self.clients[client].connection
                    {
                        let (lane, who) = (connection.lane, connection.who);
                        self.world.lane(lane, |l, _, _| l.heard(who));
                    }
                }
                Message::Comment | Message::Close(_) => {}
            }
        }
    }

    /// Lets time go by, with everything that happens in it.
    pub fn wait(&mut self, us: u64) {
        let until_us = self.world.now.mono_us + us;
        loop {
            let poll_us = self
                .clients
                .iter()
                .filter_map(|c| Some(c.connection.as_ref()?.poll?.0))
                .min();
            let stop_us = poll_us.map_or(until_us, |at| at.clamp(self.world.now.mono_us, until_us));
            let some = self.world.advance(stop_us);
            self.end_polls();
            self.pump();
            if !some && stop_us == until_us {
                break;
            }
        }
    }
}

pub fn hold_from(person: &mut Client, objects: &[String], step: u64) {
    for object in objects {
        person.held.entry(object.clone()).or_insert(Held { step, version: 0 });
    }
}
