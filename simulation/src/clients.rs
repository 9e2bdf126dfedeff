//! Those who listen: they come with their cursors to any node, ask, read slowly or stop reading, lose their connections
//! without anybody being told, and come back somewhere else. What they are told is judged by the oracle.
//!
//! A few break the rules: they forge cursors, never answer a ping, ask for nonsense and hang up. Others must not notice.

mod hear;
mod rogue;

use crate::plan::Plan;
use crate::random::Random;
use crate::wire::{Request, Transport, Wish};
use crate::world::{Event, World};
use std::collections::{BTreeSet, VecDeque};

/// A client takes a connection for dead after this long without a word. Pings come every three seconds.
const PATIENCE_US: u64 = 7_000_000;
/// When a node's system is sure that nobody is at the other end of a connection.
const KEEPALIVE_US: u64 = 12_000_000;
const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::EventStream, Transport::Poll];

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Objects, when it was asked, whether a cursor went along, whether more pages follow.
    Subscribe(Vec<Wish>, u64, bool, bool),
    Unsubscribe(Vec<usize>),
}

/// A poll under way.
#[derive(Debug)]
pub(crate) struct Polling {
    number: u64,
    asked_at: u64,
    added: Vec<Wish>,
    with_cursor: bool,
}

/// A connection as its client sees it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) connection: u64,
    pub(crate) node: usize,
    incarnation: u64,
    pub(crate) transport: Transport,
    last_us: u64,
    heard_at: u64,
    /// Reads nothing until then.
    stopped_until: Option<u64>,
    /// Objects that count for cursors and may be told.
    live: BTreeSet<usize>,
    asks: VecDeque<Ask>,
    /// Given up after a refusal, though an earlier poll whose answer was lost may have added them.
    perhaps: BTreeSet<usize>,
    /// Pages of a list were answered, but not the last.
    page_open: bool,
    poll: Option<Polling>,
    polls: u64,
    more: bool,
    /// An event stream's list counts from its first cursor on: when it was asked, and whether a cursor went along.
    streaming_since: Option<(u64, bool)>,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub number: usize,
    /// It breaks the rules.
    pub rogue: bool,
    /// What it wants to hear of.
    pub wanted: BTreeSet<usize>,
    /// Its place.
    pub cursor: Option<String>,
    pub(crate) side: Option<Side>,
    /// When it came or went last.
    pub changed_at: u64,
}

impl Client {
    /// A client that is not connected.
    #[must_use]
    pub fn new(number: usize, plan: &Plan, random: &mut Random) -> Self {
        let share = random.range(5, 95);
        let wanted = (0..plan.objects).filter(|_| random.percent(share)).take(60).collect();
        Self {
            number,
            rogue: number >= plan.clients,
            wanted,
            cursor: None,
            side: None,
            changed_at: 0,
        }
    }

    /// Whether this is its connection now.
    #[must_use]
    pub fn is_on(&self, connection: u64) -> bool {
        self.side.as_ref().is_some_and(|side| side.connection == connection)
    }

    /// Whether it takes what is written.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.side.as_ref().is_some_and(|side| side.stopped_until.is_none())
    }

    /// Whether it waits for nothing but news.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let settled = |side: &Side| side.asks.is_empty() && side.streaming_since.is_none() && !side.page_open;
        self.side.as_ref().is_some_and(settled)
    }

    /// The node it is connected to.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        self.side.as_ref().map(|side| side.node)
    }
}

impl World {
    /// A client's turn.
    pub fn client_turn(&mut self, client: usize) {
        let most_us = if self.healing { 200_000 } else { 400_000 };
        let us = self.will.range(10_000, most_us);
        self.after(us, Event::Client(client));
        if self.deaf {
            return;
        }
        if self.clients[client].rogue {
            self.rogue_turn(client);
            return;
        }
        let now = self.now;
        let Some(side) = &mut self.clients[client].side else {
            if self.will.percent(60) {
                self.connect(client);
            }
            return;
        };
        if side.stopped_until.is_some_and(|until| until <= now || self.healing) {
            side.stopped_until = None;
            self.request(client, Request::Reads);
        } else if side.stopped_until.is_none() && now - side.heard_at > PATIENCE_US {
            self.trace
                .note(now, format_args!("c{client}"), || "hears nothing and leaves");
            self.leave_silently(client);
        } else if !self.healing && self.plan.mode != crate::plan::Mode::Calm && self.will.percent(3) {
            self.coverage.saw("subscriber's road went dead");
            self.trace.note(
                now,
                format_args!("c{client}"),
                || "loses its connection, and nobody is told",
            );
            self.leave_silently(client);
        } else if !self.healing && self.will.percent(3) {
            self.trace.note(now, format_args!("c{client}"), || "says goodbye");
            self.request(client, Request::Bye);
            self.leave_silently(client);
        } else {
            self.listen_on(client);
        }
    }

    fn listen_on(&mut self, client: usize) {
        let Some(side) = &self.clients[client].side else { return };
        let (transport, polling, busy) = (side.transport, side.poll.is_some(), !side.asks.is_empty());
        match transport {
            Transport::Poll if !polling => self.poll(client),
            Transport::Poll if !self.healing && self.will.percent(4) => {
                // The answer is lost on the way, the session is not.
                self.poll(client);
            }
            Transport::Poll if !self.healing && self.will.percent(3) => self.attach(client),
            Transport::WebSocket if !busy && !self.healing && self.will.percent(12) => self.change_wishes(client),
            Transport::Poll | Transport::WebSocket | Transport::EventStream => {}
        }
    }

    /// A reader stops reading for a while.
    pub fn reader_stops(&mut self, client: usize, connection: u64) {
        let us = if self.will.percent(10) {
            12_000_000
        } else {
            self.will.range(20_000, 1_500_000)
        };
        let until = self.now + us;
        if let Some(side) = self.clients[client]
            .side
            .as_mut()
            .filter(|side| side.connection == connection)
        {
            side.stopped_until = Some(until);
        }
    }

    /// The connection is over for the client. Its node may not know before its system gives it up.
    pub(crate) fn leave_silently(&mut self, client: usize) {
        if let Some(side) = self.clients[client].side.take() {
            self.clients[client].changed_at = self.now;
            let bye = Event::ToServer(side.node, side.incarnation, side.connection, Box::new(Request::Bye));
            self.after(KEEPALIVE_US, bye);
        }
    }

    /// Sends a request up the client's connection.
    pub(crate) fn request(&mut self, client: usize, request: Request) {
        let us = self.chance.range(50, 8_000);
        let now = self.now;
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        side.last_us = side.last_us.max(now + us);
        let event = Event::ToServer(side.node, side.incarnation, side.connection, Box::new(request));
        let at = side.last_us;
        self.at(at, event);
    }

    /// Opens a connection somewhere; `false` if nobody listens there.
    pub(crate) fn open(&mut self, client: usize, transport: Transport) -> bool {
        let lane = self.will.index(self.plan.machines());
        let node = self.plan.node_of(lane);
        // Who does not know the map yet does not listen yet.
        let process = self.nodes[node].process.as_ref();
        if !process.is_some_and(|process| process.seat.confirmed) {
            return false;
        }
        let (connection, now) = (self.name(), self.now);
        self.clients[client].changed_at = now;
        self.clients[client].side = Some(Side {
            connection,
            node,
            incarnation: self.nodes[node].incarnation,
            transport,
            last_us: now,
            heard_at: now,
            stopped_until: None,
            live: BTreeSet::new(),
            asks: VecDeque::new(),
            perhaps: BTreeSet::new(),
            page_open: false,
            poll: None,
            polls: 0,
            more: false,
            streaming_since: None,
        });
        self.oracle.connected(now, client, transport == Transport::Poll);
        self.trace.note(now, format_args!("c{client}"), || {
            format!("connects to l{lane} by {transport:?} (connection {connection})")
        });
        self.request(client, Request::Open(lane, transport));
        true
    }

    /// A client comes (back): it asks for everything it wants, with its cursor if it has one.
    fn connect(&mut self, client: usize) {
        let drawn = *self.will.pick(&TRANSPORTS);
        let transport = if self.plan.polls_only { Transport::Poll } else { drawn };
        if !self.open(client, transport) {
            return;
        }
        if self.clients[client].cursor.is_none() {
            // Without a cursor it starts from now, and fetches everything.
            self.oracle.starts_anew(client);
        }
        let objects: Vec<usize> = self.clients[client].wanted.iter().copied().collect();
        let wishes = self.wishes(client, &objects, transport != Transport::EventStream);
        match transport {
            Transport::Poll => self.poll(client),
            Transport::EventStream => {
                let cursor = self.clients[client].cursor.clone();
                let (now, with_cursor) = (self.now, cursor.is_some());
                if let Some(side) = &mut self.clients[client].side {
                    side.live.extend(&objects);
                    side.streaming_since = Some((now, with_cursor));
                }
                self.request(client, Request::Subscribe(wishes, cursor, false));
            }
            Transport::WebSocket => {
                let size = wishes.len().div_ceil(self.will.range(1, 3) as usize).max(1);
                let pages: Vec<Vec<Wish>> = wishes.chunks(size).map(<[Wish]>::to_vec).collect();
                let last = pages.len().saturating_sub(1);
                for (number, page) in pages.into_iter().enumerate() {
                    self.subscribe(client, page, number < last);
                }
                if objects.is_empty() {
                    self.subscribe(client, Vec::new(), false);
                }
            }
        }
    }

    fn subscribe(&mut self, client: usize, wishes: Vec<Wish>, more: bool) {
        let cursor = self.clients[client].cursor.clone();
        let now = self.now;
        if let Some(side) = &mut self.clients[client].side {
            side.asks
                .push_back(Ask::Subscribe(wishes.clone(), now, cursor.is_some(), more));
        }
        self.request(client, Request::Subscribe(wishes, cursor, more));
    }

    /// What it says with each object: sometimes the version it knows, sometimes one it wants to see.
    fn wishes(&mut self, client: usize, objects: &[usize], at_least: bool) -> Vec<Wish> {
        let mut wishes = Vec::with_capacity(objects.len());
        for object in objects {
            let known = self.oracle.known(client, *object).filter(|_| self.will.percent(15));
            let newest = self
                .oracle
                .newest_acked(*object)
                .filter(|_| at_least && self.will.percent(8));
            wishes.push((*object, known.map(|v| v.0), newest.map(|v| v.0)));
        }
        wishes
    }

    fn change_wishes(&mut self, client: usize) {
        let object = self.will.index(self.plan.objects);
        if self.clients[client].wanted.remove(&object) {
            self.oracle.unasked(self.now, client, object);
            if let Some(side) = &mut self.clients[client].side {
                side.asks.push_back(Ask::Unsubscribe(vec![object]));
            }
            self.request(client, Request::Unsubscribe(vec![object]));
        } else {
            self.clients[client].wanted.insert(object);
            let wishes = self.wishes(client, &[object], true);
            self.subscribe(client, wishes, false);
        }
    }

    pub(crate) fn poll(&mut self, client: usize) {
        let mut removed = Vec::new();
        if !self.healing && self.will.percent(15) {
            let object = self.will.index(self.plan.objects);
            let wanted = &mut self.clients[client].wanted;
            if wanted.remove(&object) {
                self.oracle.unasked(self.now, client, object);
                removed.push(object);
            } else {
                wanted.insert(object);
            }
        }
        let Some(side) = &self.clients[client].side else { return };
        let new = self.clients[client].wanted.difference(&side.live).copied();
        let new: Vec<usize> = new.collect();
        let added = self.wishes(client, &new, true);
        let cursor = self.clients[client].cursor.clone();
        let wait_us = self.will.range(0, 2_500_000);
        let (now, number) = (self.now, self.name());
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        for object in &removed {
            side.live.remove(object);
        }
        side.polls += 1;
        side.more = false;
        side.poll = Some(Polling {
            number,
            asked_at: now,
            added: added.clone(),
            with_cursor: cursor.is_some(),
        });
        self.request(client, Request::Poll(number, added, removed, cursor, wait_us));
    }

    /// An event stream takes over the session, whatever that is doing.
    fn attach(&mut self, client: usize) {
        let cursor = self.clients[client].cursor.clone();
        let now = self.now;
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        if cursor.is_none() || side.live.is_empty() {
            return;
        }
        if let Some(poll) = side.poll.take() {
            // What the poll was to add is added, answered or not.
            side.live.extend(poll.added.iter().map(|(object, ..)| *object));
        }
        side.transport = Transport::EventStream;
        side.streaming_since = Some((now, true));
        self.oracle.connected(now, client, false);
        self.request(client, Request::Attach(cursor));
    }
}
