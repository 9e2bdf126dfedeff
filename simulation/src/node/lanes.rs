//! The shells of lanes: one machine each, its writes made into sinks that may be slow, its clients' requests handed in when
//! it may be asked.

use super::LinkState;
use crate::network::{Body, LinkName};
use crate::plan::Plan;
use crate::wire::{Request, ToClient, Transport, Wish};
use crate::world::{Event, World};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use tidings_protocol::Version;
use tidings_protocol::client::Entry;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::Encoding;
use tidings_protocol::peer::EdgeToOwner;
use tidings_router::Now;
use tidings_router::edge::{Lane, Output, Page, PollPage, SinkKind, SubscriberKey};

/// What a sink takes of a reader that stopped: the kernel's buffers, kept small.
const SINK_BYTES: usize = 600;

/// A connection as its lane's node sees it.
#[derive(Debug)]
pub struct ServerSide {
    /// The machine's name for it.
    pub who: SubscriberKey,
    /// Whose it is.
    pub client: usize,
    /// Requests that wait until the machine may be asked.
    requests: VecDeque<Request>,
    /// What the sink took and could not pass on.
    backlog: VecDeque<(Bytes, bool)>,
    backlog_bytes: usize,
    /// The client takes nothing at the moment.
    reader_stopped: bool,
    blocked: bool,
    /// The poll under way.
    poll: Option<u64>,
    /// When the last message to the client arrives.
    last_us: u64,
}

/// See the module.
#[derive(Debug)]
pub struct LaneShell {
    /// The machine.
    pub machine: Lane,
    /// By owner.
    pub links: Vec<LinkState>,
    /// By name.
    pub connections: BTreeMap<u64, ServerSide>,
    by_who: BTreeMap<(u32, u32), u64>,
    wake_at: Option<u64>,
    writes_due: bool,
}

impl LaneShell {
    /// A lane without links and subscribers.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            machine: Lane::new(plan.lane.clone()),
            links: vec![LinkState::Down { not_before_us: 0 }; plan.machines()],
            connections: BTreeMap::new(),
            by_who: BTreeMap::new(),
            wake_at: None,
            writes_due: false,
        }
    }

    fn forget(&mut self, connection: u64) {
        if let Some(side) = self.connections.remove(&connection) {
            self.by_who.remove(&(side.who.index, side.who.generation));
        }
    }

    fn connection_of(&self, who: SubscriberKey) -> Option<u64> {
        self.by_who.get(&(who.index, who.generation)).copied()
    }
}

impl World {
    /// The shell of a lane, if its node has a process.
    pub fn lane_shell(&mut self, lane: usize) -> Option<&mut LaneShell> {
        let (node, thread) = (self.plan.node_of(lane), lane % self.plan.threads);
        self.nodes[node].process.as_mut()?.lanes.get_mut(thread)
    }

    /// One step of a lane's machine, and then what it asks for. `None` if its node has no process.
    pub fn lane_step<T>(&mut self, lane: usize, step: impl FnOnce(&mut Lane, Now, &mut Vec<Output>) -> T) -> Option<T> {
        let now = self.clock(self.plan.node_of(lane));
        let shell = self.lane_shell(lane)?;
        let mut out = Vec::new();
        let value = step(&mut shell.machine, now, &mut out);
        self.perform_lane(lane, out);
        self.arm_lane(lane);
        Some(value)
    }

    fn arm_lane(&mut self, lane: usize) {
        let node = self.plan.node_of(lane);
        let (now, incarnation) = (self.now, self.nodes[node].incarnation);
        let Some(shell) = self.lane_shell(lane) else { return };
        let write = shell.machine.has_writes() && !std::mem::replace(&mut shell.writes_due, true);
        if !shell.machine.has_writes() && !write {
            shell.writes_due = false;
        }
        let deadline_us = shell.machine.next_deadline();
        if write {
            let us = self.chance.range(1, 300);
            self.after(us, Event::Writes(lane, incarnation));
        }
        let Some(deadline_us) = deadline_us else { return };
        let at = self.nodes[node].clock.when(deadline_us).max(now);
        let Some(shell) = self.lane_shell(lane) else { return };
        if shell.wake_at.is_none_or(|armed| at < armed) {
            shell.wake_at = Some(at);
            self.at(at, Event::WakeLane(lane, incarnation));
        }
    }

    /// A lane's deadline.
    pub fn wake_lane(&mut self, lane: usize, incarnation: u64) {
        let node = self.plan.node_of(lane);
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let now = self.clock(node);
        let Some(shell) = self.lane_shell(lane) else { return };
        shell.wake_at = None;
        if shell.machine.next_deadline().is_some_and(|at| at <= now.mono_us) {
            self.lane_step(lane, |machine, now, out| machine.handle_deadline(now, out));
        } else {
            self.arm_lane(lane);
        }
    }

    /// A lane's writes are made.
    pub fn make_writes(&mut self, lane: usize, incarnation: u64) {
        let node = self.plan.node_of(lane);
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let now = self.clock(node);
        for _ in 0..64 {
            let Some(shell) = self.lane_shell(lane) else { return };
            let mut out = Vec::new();
            let write = shell.machine.next_write(now, &mut out);
            let connection = write.as_ref().and_then(|write| shell.connection_of(write.who));
            self.perform_lane(lane, out);
            let Some(write) = write else { break };
            if let Some(connection) = connection {
                self.write(lane, connection, write.bytes, write.last);
            }
        }
        if let Some(shell) = self.lane_shell(lane) {
            shell.writes_due = false;
        }
        self.arm_lane(lane);
    }

    fn write(&mut self, lane: usize, connection: u64, bytes: Bytes, last: bool) {
        let stalls = self.plan.stalls;
        let stops = !self.healing && stalls > 0 && self.will.percent(stalls);
        let gone = !self.clients.iter().any(|client| client.is_on(connection));
        let Some(side) = self
            .lane_shell(lane)
            .and_then(|shell| shell.connections.get_mut(&connection))
        else {
            return;
        };
        let client = side.client;
        // Nobody reads at the other end of a dead road, and nobody says so.
        side.reader_stopped |= gone;
        if last {
            side.backlog.push_back((bytes, true));
            if !side.reader_stopped {
                self.pass_on(lane, connection);
            }
            if let Some(shell) = self.lane_shell(lane) {
                shell.forget(connection);
            }
            return;
        }
        side.backlog_bytes += bytes.len();
        side.backlog.push_back((bytes, false));
        let full = side.reader_stopped && side.backlog_bytes > SINK_BYTES && !side.blocked;
        if !side.reader_stopped {
            side.reader_stopped = stops;
            self.pass_on(lane, connection);
            if stops {
                self.reader_stops(client, connection);
            }
        } else if full {
            side.blocked = true;
            let who = side.who;
            self.coverage.saw("subscriber blocked");
            self.lane_step(lane, |machine, now, _| machine.blocked(now, who));
        }
    }

    /// What a sink took goes on its way.
    fn pass_on(&mut self, lane: usize, connection: u64) {
        let us = self.chance.range(50, 8_000);
        let now = self.now;
        let Some(side) = self
            .lane_shell(lane)
            .and_then(|shell| shell.connections.get_mut(&connection))
        else {
            return;
        };
        side.last_us = side.last_us.max(now + us);
        side.backlog_bytes = 0;
        let (at, client, backlog) = (side.last_us, side.client, std::mem::take(&mut side.backlog));
        for (bytes, last) in backlog {
            self.at(
                at,
                Event::ToClient(client, connection, Box::new(ToClient::Bytes(bytes, last))),
            );
        }
    }

    fn perform_lane(&mut self, lane: usize, out: Vec<Output>) {
        let node = self.plan.node_of(lane);
        let mut frames: Vec<(LinkName, Vec<EdgeToOwner>)> = Vec::new();
        for output in out {
            match output {
                Output::ToOwner {
                    owner,
                    generation,
                    frame,
                } => {
                    let link = LinkName {
                        lane,
                        owner,
                        generation,
                    };
                    match frames.iter_mut().find(|(other, _)| *other == link) {
                        Some((_, frames)) => frames.push(frame),
                        None => frames.push((link, vec![frame])),
                    }
                }
                Output::MayRequest { who } => {
                    if let Some(connection) = self.lane_shell(lane).and_then(|shell| shell.connection_of(who)) {
                        let incarnation = self.nodes[node].incarnation;
                        // The shell's reader goes on in its own time.
                        let go_on = Event::ToServer(node, incarnation, connection, Box::new(Request::Reads));
                        self.after(10, go_on);
                    }
                }
                Output::Answer { who, answer } => self.answer_poll(lane, who, answer),
                Output::Superseded { .. } => self.coverage.saw("poll superseded"),
                Output::Cut { who, code } => {
                    debug_assert_eq!(code, CloseCode::NoProgress);
                    self.coverage.saw("subscriber cut: no progress");
                    self.cut(lane, who);
                }
            }
        }
        for (link, frames) in frames {
            let to = self.plan.node_of(link.owner);
            self.send(node, to, None, Body::ToOwner(link, frames));
        }
    }

    fn answer_poll(&mut self, lane: usize, who: SubscriberKey, answer: Box<tidings_protocol::codec::PollAnswer>) {
        let us = self.chance.range(50, 8_000);
        let now = self.now;
        let Some(shell) = self.lane_shell(lane) else { return };
        let Some(connection) = shell.connection_of(who) else {
            return;
        };
        let Some(side) = shell.connections.get_mut(&connection) else {
            return;
        };
        let Some(number) = side.poll.take() else { return };
        side.last_us = side.last_us.max(now + us);
        let (at, client) = (side.last_us, side.client);
        self.at(
            at,
            Event::ToClient(client, connection, Box::new(ToClient::Answer(number, answer))),
        );
    }

    fn cut(&mut self, lane: usize, who: SubscriberKey) {
        let Some(shell) = self.lane_shell(lane) else { return };
        let Some(connection) = shell.connection_of(who) else {
            return;
        };
        let client = shell.connections.get(&connection).map(|side| side.client);
        shell.forget(connection);
        if let Some(client) = client {
            let us = self.chance.range(100, 20_000);
            self.after(us, Event::ToClient(client, connection, Box::new(ToClient::Reset)));
        }
    }

    /// A client's request arrives at a node.
    pub fn serve(&mut self, node: usize, incarnation: u64, connection: u64, request: Request) {
        if self.process(node, incarnation).is_none() {
            return;
        }
        if let Request::Open(lane, transport) = request {
            self.open_connection(lane, connection, transport);
            return;
        }
        let lanes = node * self.plan.threads..(node + 1) * self.plan.threads;
        let Some(lane) = lanes.into_iter().find(|lane| {
            self.lane_shell(*lane)
                .is_some_and(|shell| shell.connections.contains_key(&connection))
        }) else {
            self.refuse_unknown(connection);
            return;
        };
        let Some(side) = self
            .lane_shell(lane)
            .and_then(|shell| shell.connections.get_mut(&connection))
        else {
            return;
        };
        let who = side.who;
        match request {
            Request::Pong => _ = self.lane_step(lane, |machine, _, _| machine.heard(who)),
            Request::Reads => {
                self.reader_goes_on(lane, connection);
                self.take_requests(lane, connection);
            }
            Request::Bye => {
                self.lane_step(lane, |machine, now, _| machine.disconnect(now, who));
                if let Some(shell) = self.lane_shell(lane) {
                    shell.forget(connection);
                }
            }
            other => {
                side.requests.push_back(other);
                self.take_requests(lane, connection);
            }
        }
    }

    fn refuse_unknown(&mut self, connection: u64) {
        let client = self.clients.iter().position(|client| client.is_on(connection));
        if let Some(client) = client {
            let us = self.chance.range(50, 8_000);
            self.after(us, Event::ToClient(client, connection, Box::new(ToClient::Reset)));
        }
    }

    fn open_connection(&mut self, lane: usize, connection: u64, transport: Transport) {
        let Some(client) = self.clients.iter().position(|client| client.is_on(connection)) else {
            return;
        };
        let who = self.lane_step(lane, |machine, now, _| match transport {
            Transport::WebSocket => machine.connect(now, SinkKind::Stream(Encoding::WebSocketJson), false),
            Transport::EventStream => machine.connect(now, SinkKind::Stream(Encoding::EventStream), false),
            Transport::Poll => machine.open_session(now),
        });
        let (Some(who), now) = (who, self.now) else { return };
        let side = ServerSide {
            who,
            client,
            requests: VecDeque::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            reader_stopped: false,
            blocked: false,
            poll: None,
            last_us: now,
        };
        if let Some(shell) = self.lane_shell(lane) {
            shell.by_who.insert((who.index, who.generation), connection);
            shell.connections.insert(connection, side);
        }
    }

    /// The client reads again: what the sink took goes out, and there is room.
    fn reader_goes_on(&mut self, lane: usize, connection: u64) {
        let reads = self
            .clients
            .iter()
            .any(|client| client.is_on(connection) && client.reads());
        let Some(side) = self
            .lane_shell(lane)
            .and_then(|shell| shell.connections.get_mut(&connection))
        else {
            return;
        };
        if !side.reader_stopped || !reads {
            return;
        }
        side.reader_stopped = false;
        let was_blocked = std::mem::replace(&mut side.blocked, false);
        let who = side.who;
        self.pass_on(lane, connection);
        if was_blocked {
            self.lane_step(lane, |machine, now, out| {
                machine.progress(now, who);
                machine.writable(now, who, out);
            });
        }
    }

    fn entries(&self, wishes: &[Wish]) -> Vec<Result<Entry, (String, tidings_protocol::Problem)>> {
        let entry = |(object, version, at_least): &Wish| {
            Ok(Entry {
                object: self.oracle.object_name(*object).into(),
                version: version.map(Version),
                at_least: at_least.map(Version),
            })
        };
        wishes.iter().map(entry).collect()
    }

    /// Hands in the next requests of a connection, as far as the machine may be asked.
    fn take_requests(&mut self, lane: usize, connection: u64) {
        loop {
            let Some(shell) = self.lane_shell(lane) else { return };
            let Some(side) = shell.connections.get_mut(&connection) else {
                return;
            };
            let who = side.who;
            let Some(next) = side.requests.front() else { return };
            let waits = matches!(next, Request::Subscribe(..) | Request::Unsubscribe(_));
            if waits && !shell.machine.may_request(who) {
                return;
            }
            let Some(next) = side.requests.pop_front() else { return };
            if !self.ask_machine(lane, connection, who, next) {
                return;
            }
        }
    }

    /// False if the connection is over.
    fn ask_machine(&mut self, lane: usize, connection: u64, who: SubscriberKey, request: Request) -> bool {
        let known = match request {
            Request::Subscribe(wishes, cursor, more) => {
                let page = Page {
                    id: None,
                    entries: self.entries(&wishes),
                    cursor,
                    more,
                };
                self.lane_step(lane, |machine, now, out| machine.subscribe(now, who, page, out).is_ok())
            }
            Request::Unsubscribe(objects) => {
                let names: Vec<String> = objects.iter().map(|o| self.oracle.object_name(*o).to_owned()).collect();
                self.lane_step(lane, |machine, now, out| {
                    machine.unsubscribe(now, who, None, names.iter(), out).is_ok()
                })
            }
            Request::Poll(number, add, remove, cursor, wait_us) => {
                let page = PollPage {
                    entries: self.entries(&add),
                    remove: remove.iter().map(|o| self.oracle.object_name(*o).into()).collect(),
                    cursor,
                    trace: false,
                };
                if let Some(side) = self
                    .lane_shell(lane)
                    .and_then(|shell| shell.connections.get_mut(&connection))
                {
                    side.poll = Some(number);
                }
                let incarnation = self.nodes[self.plan.node_of(lane)].incarnation;
                self.after(wait_us, Event::PollOver(lane, incarnation, connection, number));
                self.lane_step(lane, |machine, now, out| machine.poll(now, who, page, out).is_ok())
            }
            Request::Attach(cursor) => {
                if let Some(side) = self
                    .lane_shell(lane)
                    .and_then(|shell| shell.connections.get_mut(&connection))
                {
                    side.poll = None;
                }
                self.coverage.saw("session streamed");
                let kind = SinkKind::Stream(Encoding::EventStream);
                self.lane_step(lane, |machine, now, out| {
                    machine.attach(now, who, kind, cursor.as_deref(), false, out).is_ok()
                })
            }
            Request::Open(..) | Request::Pong | Request::Reads | Request::Bye => Some(true),
        };
        if known == Some(false) {
            // The session or subscriber is gone.
            self.cut(lane, who);
            return false;
        }
        true
    }

    /// A poll waited long enough.
    pub fn poll_over(&mut self, lane: usize, incarnation: u64, connection: u64, number: u64) {
        if self.process(self.plan.node_of(lane), incarnation).is_none() {
            return;
        }
        let side = self
            .lane_shell(lane)
            .and_then(|shell| shell.connections.get(&connection));
        if let Some(who) = side.filter(|side| side.poll == Some(number)).map(|side| side.who) {
            self.lane_step(lane, |machine, now, out| machine.poll_over(now, who, None, out));
        }
    }
}
