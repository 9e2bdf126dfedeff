//! The lane's machine with its sinks: what the tasks of one thread share, borrowed for one step at a time.

use super::events::EventsSink;
use super::{Connected, Inspect, LaneCommand, PollCommand, PollReply, SessionName, websocket};
use crate::clock;
use crate::node::Node;
use crate::telemetry::Limit;
use bytes::{Buf as _, Bytes};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::close::CloseCode;
use tidings_protocol::peer::EdgeToOwner;
use tidings_router::edge::{Config, Lane, Output, SubscriberKey, Write};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

/// Writes made before other work of the thread gets a turn.
const WRITES_AT_ONCE: usize = 128;
/// Commands taken before other work gets a turn.
const COMMANDS_AT_ONCE: usize = 256;
/// How long a client may take to read the last words it is sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The lane of one thread.
pub(super) struct Shell {
    pub(super) thread: usize,
    pub(super) node: Arc<Node>,
    state: RefCell<State>,
    /// There is something to write.
    writes: Notify,
    /// The machine's next deadline may be earlier now.
    deadline: Notify,
}

struct State {
    lane: Lane,
    out: Vec<Output>,
    sinks: Vec<Option<Entry>>,
    by_ticket: HashMap<u64, SubscriberKey>,
    to_owners: Vec<(u32, Vec<EdgeToOwner>)>,
    open: usize,
    /// Told when the last sink has closed.
    drained: Vec<oneshot::Sender<()>>,
    draining: bool,
    jitter: u64,
}

/// What the shell keeps for one subscriber.
struct Entry {
    generation: u32,
    sink: Sink,
    peer: Option<SocketAddr>,
    /// The secret of its name, if it is a session.
    secret: Option<[u8; 16]>,
}

/// Where bytes for a subscriber go.
pub(super) enum Sink {
    Socket(Box<Socket>),
    Events(EventsSink),
    Poll { ticket: u64, reply: Option<oneshot::Sender<PollReply>> },
    /// A session without poll or stream.
    Idle,
}

/// An upgraded WebSocket.
pub(super) struct Socket {
    pub(super) stream: Rc<TcpStream>,
    /// What the socket could not take of the last write.
    pub(super) rest: Bytes,
    /// The reader waits here for its next turn, or learns that the socket was cut.
    pub(super) turn: Rc<Notify>,
}

impl Shell {
    pub(super) fn new(thread: usize, node: Arc<Node>) -> Rc<Self> {
        let limits = &node.config.limits;
        let config = Config {
            cluster: node.cluster,
            key: node.key,
            shards: node.shards,
            owners: node.owners.len(),
            handled_every: (node.config.owner.link_window_changes / 4).min(u64::from(u32::MAX)) as u32,
            objects_per_subscriber: limits.objects_per_connection as usize,
            batch_bytes: limits.batch_frame_bytes as usize,
            hint_bytes: limits.hint_bytes as usize,
            cursor_us: limits.cursor_ms * 1000,
            ping_us: limits.ping_ms * 1000,
            comment_us: limits.ping_ms.min(15_000) * 1000,
            pong_us: limits.pong_ms * 1000,
            stuck_us: limits.stuck_ms * 1000,
            linger_us: limits.linger_ms * 1000,
            lingering_objects: limits.lingering_objects as usize,
            session_us: limits.session_ms * 1000,
            idle_sessions: (limits.sessions as usize).div_ceil(node.lanes.len()),
            at_least_us: limits.at_least_ms * 1000,
        };
        let mut lane = Lane::new(config);
        let mut out = Vec::new();
        for owner in 0..node.owners.len() {
            lane.owner_up(clock::now(), owner, crate::owner::GENERATION, &mut out);
        }
        let mut seed = [0; 8];
        // Only spreads reconnects: without randomness they come in step, which is worse but not wrong.
        _ = getrandom::fill(&mut seed);
        let state = State {
            lane,
            out,
            sinks: Vec::new(),
            by_ticket: HashMap::new(),
            to_owners: node.owners.iter().map(|_| (0, Vec::new())).collect(),
            open: 0,
            drained: Vec::new(),
            draining: false,
            jitter: u64::from_le_bytes(seed) | 1,
        };
        Rc::new(Self { thread, node, state: RefCell::new(state), writes: Notify::new(), deadline: Notify::new() })
    }

    /// One step of the machine, and then what it asks for.
    fn step<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let before = state.lane.next_deadline();
        let result = step(&mut state);
        state.perform(self);
        let refusals = state.lane.take_refusals();
        self.count(Limit::ObjectsPerConnection, refusals.objects);
        self.count(Limit::Sessions, refusals.sessions);
        if state.lane.has_writes() {
            self.writes.notify_one();
        }
        let after = state.lane.next_deadline();
        if after != before && after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.deadline.notify_one();
        }
        result
    }

    fn count(&self, limit: Limit, times: u64) {
        (0..times).for_each(|_| self.node.metrics.refused(limit));
    }

    /// One step of the machine alone.
    pub(super) fn with<T>(&self, step: impl FnOnce(&mut Lane, &mut Vec<Output>) -> T) -> T {
        self.step(|state| step(&mut state.lane, &mut state.out))
    }

    /// Enters a subscriber's sink.
    pub(super) fn enter(&self, who: SubscriberKey, sink: Sink, peer: SocketAddr) {
        self.step(|state| state.enter(who, sink, Some(peer)));
    }

    /// The subscriber's client is gone.
    pub(super) fn leave(&self, who: SubscriberKey) {
        self.step(|state| {
            state.lane.disconnect(clock::now(), who);
            if state.lane.connection(who).is_none() {
                state.remove(who);
            } else {
                state.set_sink(who, Sink::Idle);
            }
        });
    }

    /// Whether the node is about to stop: newcomers are sent away again.
    pub(super) fn draining(&self) -> bool {
        self.state.borrow().draining
    }

    /// A delay for coming back, spread over the drain's time.
    pub(super) fn jitter_ms(&self) -> u64 {
        self.state.borrow_mut().jitter_ms(self.node.config.drain.spread_ms)
    }

    fn command(self: &Rc<Self>, command: LaneCommand) {
        let now = clock::now();
        match command {
            LaneCommand::FromOwner { owner, generation, frames } => {
                self.with(|lane, out| lane.owner_frames(now, owner, generation, frames, out));
            }
            LaneCommand::WebSocket(upgrade) => {
                tokio::task::spawn_local(websocket::upgraded(Rc::clone(self), upgrade));
            }
            LaneCommand::Events(open) => super::events::open(self, *open),
            LaneCommand::EventsTaken { who, ticket } => self.step(|state| state.events_taken(who, ticket)),
            LaneCommand::Gone { ticket } => {
                let who = self.state.borrow_mut().by_ticket.remove(&ticket);
                if let Some(who) = who {
                    self.leave(who);
                }
            }
            LaneCommand::Poll(poll) => self.poll(*poll),
            LaneCommand::PollOver { ticket } => self.step(|state| {
                if let Some(&who) = state.by_ticket.get(&ticket) {
                    state.lane.poll_over(now, who, None, &mut state.out);
                }
            }),
            LaneCommand::OpenSession { entries, reply } => {
                let name = self.step(|state| {
                    let who = state.lane.open_session(now);
                    let page = tidings_router::edge::PollPage { entries, ..Default::default() };
                    // Watching begins now, so that the first poll or stream finds its objects live.
                    _ = state.lane.poll(now, who, page, &mut state.out);
                    state.enter(who, Sink::Idle, None);
                    state.session_name(self.thread, who)
                });
                _ = reply.send(name.map_or_else(String::new, |name| name.text()));
            }
            LaneCommand::Inspect(question) => self.inspect(question),
            LaneCommand::Close { who, reply } => {
                let known = self.with(|lane, out| {
                    let known = lane.connection(who).is_some();
                    lane.dismiss(now, who, CloseCode::Operator, "closed_by_operator", None, out);
                    known
                });
                _ = reply.send(known);
            }
            LaneCommand::Drain { reply } => self.step(|state| {
                state.draining = true;
                state.drained.push(reply);
                let (spread_ms, mut jitter) = (self.node.config.drain.spread_ms, state.jitter);
                let after_ms = || next_jitter(&mut jitter, spread_ms);
                state.lane.dismiss_all(now, CloseCode::Drain, "drain", after_ms, &mut state.out);
                state.jitter = jitter;
                state.report_drained();
            }),
        }
    }

    fn poll(self: &Rc<Self>, poll: PollCommand) {
        let now = clock::now();
        self.step(|state| {
            let known = match poll.session {
                Some(name) if state.is_session(name) => Some(name.who),
                Some(_) => {
                    _ = poll.reply.send(PollReply::SessionUnknown);
                    return;
                }
                None => None,
            };
            let who = known.unwrap_or_else(|| state.lane.open_session(now));
            if known.is_some() {
                // Whatever the session was doing ends before the new poll takes its place.
                state.set_sink(who, Sink::Idle);
            }
            let sink = Sink::Poll { ticket: poll.ticket, reply: Some(poll.reply) };
            if known.is_some() {
                state.set_sink(who, sink);
            } else {
                state.enter(who, sink, Some(poll.peer));
            }
            state.by_ticket.insert(poll.ticket, who);
            let mut superseded = Vec::new();
            _ = state.lane.poll(now, who, poll.page, &mut superseded);
            // The machine names the poll that gives place; its sink was closed above.
            superseded.retain(|output| !matches!(output, Output::Superseded { .. }));
            state.out.append(&mut superseded);
            if state.draining {
                let after_ms = state.jitter_ms(self.node.config.drain.spread_ms);
                state.lane.poll_over(now, who, Some(after_ms), &mut state.out);
            }
        });
    }

    /// A stream takes over a session; `false` if the session is not known.
    pub(super) fn attach(
        &self,
        name: SessionName,
        sink: EventsSink,
        cursor: Option<&str>,
        trace: bool,
    ) -> Option<SubscriberKey> {
        self.step(|state| {
            if !state.is_session(name) {
                return None;
            }
            let who = name.who;
            state.set_sink(who, Sink::Idle);
            state.by_ticket.insert(sink.ticket, who);
            state.set_sink(who, Sink::Events(sink));
            let kind = tidings_router::edge::SinkKind::Stream(tidings_protocol::codec::Encoding::EventStream);
            let mut out = Vec::new();
            _ = state.lane.attach(clock::now(), who, kind, cursor, trace, &mut out);
            out.retain(|output| !matches!(output, Output::Superseded { .. }));
            state.out.append(&mut out);
            Some(who)
        })
    }

    /// Remembers which subscriber a ticket belongs to.
    pub(super) fn ticket(&self, ticket: u64, who: SubscriberKey) {
        self.state.borrow_mut().by_ticket.insert(ticket, who);
    }

    fn inspect(&self, question: Inspect) {
        let state = self.state.borrow();
        // A reply that nobody waits for any more is no failure.
        match question {
            Inspect::Stats(reply) => _ = reply.send(state.lane.stats()),
            Inspect::Watchers(object, reply) => _ = reply.send(state.lane.watchers(&object)),
            Inspect::Connections { from, at_most, reply } => {
                let connections = state.lane.connections(from, at_most);
                _ = reply.send(connections.into_iter().map(|view| state.connected(view)).collect());
            }
            Inspect::Connection { who, objects, reply } => {
                let found = state.lane.connection(who).map(|view| state.connected(view));
                _ = reply.send(found.map(|connected| (connected, state.lane.watched_by(who, objects))));
            }
            Inspect::Explain { who, object, reply } => _ = reply.send(state.lane.explain(who, &object)),
        }
    }

    /// Makes some writes; whether there is more to write.
    fn write_some(self: &Rc<Self>) -> bool {
        let now = clock::now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for _ in 0..WRITES_AT_ONCE {
            let Some(write) = state.lane.next_write(now, &mut state.out) else { break };
            state.write(self, write);
        }
        state.perform(self);
        state.lane.has_writes()
    }

    /// The socket takes bytes again: what it left is written first.
    fn resume(&self, who: SubscriberKey) -> bool {
        self.step(|state| {
            let now = clock::now();
            let Some(Entry { sink: Sink::Socket(socket), .. }) = state.entry(who) else { return true };
            let before = socket.rest.len();
            let result = write_to(&socket.stream, &mut socket.rest);
            let left = socket.rest.len();
            match result {
                Err(_) => {
                    state.lane.disconnect(now, who);
                    state.remove(who);
                    true
                }
                Ok(()) if left == 0 => {
                    state.lane.writable(now, who, &mut state.out);
                    true
                }
                Ok(()) => {
                    if left < before {
                        state.lane.progress(now, who);
                    }
                    false
                }
            }
        })
    }
}

impl State {
    fn entry(&mut self, who: SubscriberKey) -> Option<&mut Entry> {
        self.sinks.get_mut(who.index as usize)?.as_mut().filter(|entry| entry.generation == who.generation)
    }

    fn enter(&mut self, who: SubscriberKey, sink: Sink, peer: Option<SocketAddr>) {
        let index = who.index as usize;
        if self.sinks.len() <= index {
            self.sinks.resize_with(index + 1, || None);
        }
        if self.sinks[index].is_none() {
            self.open += 1;
        }
        self.sinks[index] = Some(Entry { generation: who.generation, sink, peer, secret: None });
    }

    /// Ends what the subscriber's sink was, and gives it another.
    fn set_sink(&mut self, who: SubscriberKey, sink: Sink) {
        let Some(entry) = self.entry(who) else { return };
        let old = std::mem::replace(&mut entry.sink, sink);
        self.end(old);
    }

    fn end(&mut self, sink: Sink) {
        match sink {
            Sink::Socket(socket) => socket.turn.notify_one(),
            Sink::Events(events) => {
                self.by_ticket.remove(&events.ticket);
                events.end();
            }
            Sink::Poll { ticket, reply } => {
                self.by_ticket.remove(&ticket);
                if let Some(reply) = reply {
                    _ = reply.send(PollReply::Superseded);
                }
            }
            Sink::Idle => {}
        }
    }

    /// The subscriber is gone from the machine: so is its sink.
    fn remove(&mut self, who: SubscriberKey) {
        let Some(place) = self.sinks.get_mut(who.index as usize) else { return };
        if place.as_ref().is_some_and(|entry| entry.generation == who.generation)
            && let Some(entry) = place.take()
        {
            self.open -= 1;
            self.end(entry.sink);
            self.report_drained();
        }
    }

    fn report_drained(&mut self) {
        if self.drained.is_empty() {
            return;
        }
        let busy = self.sinks.iter().flatten().any(|entry| !matches!(entry.sink, Sink::Idle));
        if !busy {
            // Whoever asked may have given up waiting.
            self.drained.drain(..).for_each(|reply| _ = reply.send(()));
        }
    }

    fn jitter_ms(&mut self, spread_ms: u64) -> u64 {
        next_jitter(&mut self.jitter, spread_ms)
    }

    fn is_session(&self, name: SessionName) -> bool {
        let entry = self.sinks.get(name.who.index as usize).and_then(Option::as_ref);
        entry.is_some_and(|e| e.generation == name.who.generation && e.secret == Some(name.secret))
            && self.lane.connection(name.who).is_some()
    }

    /// The session's name, made on first use. `None` without randomness: then there is no session to come back to.
    fn session_name(&mut self, thread: usize, who: SubscriberKey) -> Option<SessionName> {
        let entry = self.entry(who)?;
        if entry.secret.is_none() {
            let mut secret = [0; 16];
            getrandom::fill(&mut secret).ok()?;
            entry.secret = Some(secret);
        }
        Some(SessionName { lane: thread as u16, who, secret: entry.secret? })
    }

    fn connected(&self, view: tidings_router::edge::ConnectionView) -> Connected {
        let entry = self.sinks.get(view.who.index as usize).and_then(Option::as_ref);
        Connected { peer: entry.and_then(|entry| entry.peer), for_us: clock::mono_us() - view.since_us, view }
    }

    /// Does what the machine asked for.
    fn perform(&mut self, shell: &Shell) {
        let mut to_owners = false;
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::ToOwner { owner, generation, frame } => {
                    to_owners = true;
                    let (last, frames) = &mut self.to_owners[owner];
                    *last = generation;
                    frames.push(frame);
                }
                Output::MayRequest { who } => {
                    if let Some(Entry { sink: Sink::Socket(socket), .. }) = self.entry(who) {
                        socket.turn.notify_one();
                    }
                }
                Output::Answer { who, mut answer } => {
                    answer.session = self.session_name(shell.thread, who).map(|name| name.text());
                    self.answer(who, PollReply::Answer(answer));
                }
                Output::Superseded { who } => self.set_sink(who, Sink::Idle),
                Output::Cut { who, code } => {
                    tracing::debug!(code = code.number(), "a subscriber was cut");
                    let limit = if code == CloseCode::NoPong { Limit::Pong } else { Limit::Stuck };
                    shell.node.metrics.refused(limit);
                    if let Some(Entry { sink: Sink::Socket(socket), .. }) = self.entry(who) {
                        _ = socket2::SockRef::from(&*socket.stream).shutdown(std::net::Shutdown::Both);
                    }
                    self.remove(who);
                }
            }
        }
        if to_owners {
            for (owner, (generation, frames)) in self.to_owners.iter_mut().enumerate() {
                if !frames.is_empty() {
                    shell.node.owners[owner].from_lane(shell.thread, *generation, std::mem::take(frames));
                }
            }
        }
    }

    fn answer(&mut self, who: SubscriberKey, answer: PollReply) {
        let Some(entry) = self.entry(who) else { return };
        if let Sink::Poll { ticket, reply } = std::mem::replace(&mut entry.sink, Sink::Idle) {
            if let Some(reply) = reply {
                _ = reply.send(answer);
            }
            self.by_ticket.remove(&ticket);
        }
        self.report_drained();
    }

    fn events_taken(&mut self, who: SubscriberKey, ticket: u64) {
        let Some(Entry { sink: Sink::Events(events), .. }) = self.entry(who) else { return };
        if events.ticket == ticket && events.resume() {
            self.lane.writable(clock::now(), who, &mut self.out);
        }
    }

    /// Hands one write to its sink.
    fn write(&mut self, shell: &Rc<Shell>, write: Write) {
        let now = clock::now();
        let who = write.who;
        let Some(entry) = self.entry(who) else { return };
        match &mut entry.sink {
            Sink::Socket(socket) => {
                socket.rest = write.bytes;
                let result = write_to(&socket.stream, &mut socket.rest);
                if write.last {
                    let place = self.sinks[who.index as usize].take();
                    self.open -= 1;
                    if let Some(Entry { sink: Sink::Socket(socket), .. }) = place {
                        tokio::task::spawn_local(last_words(Rc::clone(shell), socket));
                    }
                } else if result.is_err() {
                    self.lane.disconnect(now, who);
                    self.remove(who);
                } else if !socket.rest.is_empty() {
                    let stream = Rc::clone(&socket.stream);
                    self.lane.blocked(now, who);
                    tokio::task::spawn_local(wait_writable(Rc::clone(shell), stream, who));
                }
            }
            Sink::Events(events) => {
                let taken = events.put(write.bytes);
                if write.last {
                    self.remove(who);
                } else if !taken {
                    self.lane.blocked(now, who);
                }
            }
            // The machine writes to streams only.
            Sink::Poll { .. } | Sink::Idle => {}
        }
    }
}

/// Writes as much as the socket takes; what it does not take stays in `bytes`.
fn write_to(stream: &TcpStream, bytes: &mut Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            // Not advanced to its end: even empty it would hold on to its frame.
            Ok(written) if written == bytes.len() => *bytes = Bytes::new(),
            Ok(written) => bytes.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn wait_writable(shell: Rc<Shell>, stream: Rc<TcpStream>, who: SubscriberKey) {
    loop {
        // An error of the socket shows again when it is written to.
        _ = stream.writable().await;
        if shell.resume(who) {
            return;
        }
    }
}

/// Writes what a dismissed subscriber is still to read, then ends the connection in order.
async fn last_words(shell: Rc<Shell>, mut socket: Box<Socket>) {
    let finish = async {
        loop {
            if write_to(&socket.stream, &mut socket.rest).is_err() || socket.rest.is_empty() {
                break;
            }
            _ = socket.stream.writable().await;
        }
    };
    // A client that does not read even this loses nothing but the reason.
    _ = tokio::time::timeout(LAST_WORDS, finish).await;
    _ = socket2::SockRef::from(&*socket.stream).shutdown(std::net::Shutdown::Write);
    socket.turn.notify_one();
    shell.step(State::report_drained);
}

fn next_jitter(state: &mut u64, spread_ms: u64) -> u64 {
    // xorshift64 (Marsaglia, 2003): good enough to spread clients.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    100 + *state % spread_ms.max(1)
}

/// The task that makes the lane's writes.
pub(super) async fn write(shell: Rc<Shell>) {
    loop {
        shell.writes.notified().await;
        while shell.write_some() {
            tokio::task::yield_now().await;
        }
    }
}

/// The task that takes the lane's commands and deadlines. Ends with the last handle.
pub(super) async fn run(shell: Rc<Shell>, mut commands: mpsc::UnboundedReceiver<LaneCommand>) {
    shell.step(|_| ());
    let mut batch = Vec::with_capacity(COMMANDS_AT_ONCE);
    loop {
        let deadline = shell.state.borrow().lane.next_deadline();
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(clock::instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            taken = commands.recv_many(&mut batch, COMMANDS_AT_ONCE) => {
                if taken == 0 {
                    return;
                }
                batch.drain(..).for_each(|command| shell.command(command));
            }
            () = timer => shell.with(|lane, out| lane.handle_deadline(clock::now(), out)),
            () = shell.deadline.notified() => {}
        }
    }
}
