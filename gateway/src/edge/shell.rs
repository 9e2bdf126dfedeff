//! The lane's machine with its sinks: what the tasks of one thread share, borrowed for one step at a time.

use super::events::EventsSink;
use super::retreat::drain;
use super::search::PLACES_AT_ONCE;
use super::sinks::{Entry, Sink, State, next_jitter, write_to};
use super::{Inspect, LaneCommand, PollCommand, PollReply, SessionName, websocket};
use crate::auth::Caller;
use crate::clock;
use crate::control::View;
use crate::node::Node;
use crate::telemetry::Limit;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_router::edge::{Config, Lane, Leave, Output, SubscriberKey};
use tokio::sync::{Notify, mpsc, watch};

/// Writes made before other work of the thread gets a turn.
const WRITES_AT_ONCE: usize = 128;
/// Writes after which the clock is looked at again.
const WRITES_A_LOOK: usize = 16;
/// Commands taken before other work gets a turn.
const COMMANDS_AT_ONCE: usize = 256;

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
            subscriptions: (limits.subscriptions as usize).div_ceil(node.lanes.len()),
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
        if node.control.is_some() {
            lane.tell_silence_after(clock::now(), limits.stale_ms * 1000);
        }
        for owner in 0..node.owners.len() {
            lane.owner_up(clock::now(), owner, crate::owner::GENERATION, &mut out);
        }
        let mut seed = [0; 8];
        // Only spreads reconnects: without randomness they come in step, which is worse but not wrong.
        _ = getrandom::fill(&mut seed);
        let state = State::new(
            lane,
            out,
            node.owners.len(),
            u64::from_le_bytes(seed) | 1,
            limits.connection_lifetime_ms,
        );
        Rc::new(Self {
            thread,
            node,
            state: RefCell::new(state),
            writes: Notify::new(),
            deadline: Notify::new(),
        })
    }

    /// One step of the machine, and then what it asks for.
    pub(super) fn step<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let before = state.next_deadline();
        let result = step(&mut state);
        state.perform(self);
        let refusals = state.lane.take_refusals();
        self.count(Limit::ObjectsPerConnection, refusals.objects);
        self.count(Limit::Sessions, refusals.sessions);
        self.count(Limit::Subscriptions, refusals.subscriptions);
        self.count(Limit::Pong, refusals.no_pong);
        if state.lane.has_writes() {
            self.writes.notify_one();
        }
        let after = state.next_deadline();
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
                state.give_up_place(who);
            }
        });
    }

    /// Sends a newcomer away again, if nobody is to stay here.
    pub(super) fn turn_away(&self, who: SubscriberKey) -> bool {
        self.step(|state| {
            let Some(leave) = state.leave.clone() else {
                return false;
            };
            let after_ms = state.jitter_ms(self.node.live().drain.spread_ms);
            state
                .lane
                .send_away(clock::now(), who, &leave, after_ms, &mut state.out);
            true
        })
    }

    /// A delay for coming back, spread over the drain's time.
    pub(super) fn jitter_ms(&self) -> u64 {
        self.state.borrow_mut().jitter_ms(self.node.live().drain.spread_ms)
    }

    fn command(self: &Rc<Self>, command: LaneCommand) {
        let now = clock::now();
        match command {
            LaneCommand::FromOwner {
                owner,
                generation,
                frames,
            } => {
                self.with(|lane, out| lane.owner_frames(now, owner, generation, frames, out));
            }
            LaneCommand::OwnerUp { owner, generation } => {
                self.with(|lane, out| lane.owner_up(now, owner, generation, out));
            }
            LaneCommand::OwnerDown { owner, generation } => {
                self.with(|lane, out| lane.owner_down(now, owner, generation, out));
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
            LaneCommand::OpenSession { caller, entries, reply } => {
                let entries = caller.sift(entries, &self.node.metrics);
                let name = self.step(|state| {
                    let who = state.lane.open_session(now);
                    let page = tidings_router::edge::PollPage {
                        entries,
                        ..Default::default()
                    };
                    // Watching begins now, so that the first poll or stream finds its objects live.
                    _ = state.lane.poll(now, who, page, &mut state.out);
                    state.enter(who, Sink::Idle, None);
                    if let Caller::Known(identity) = caller {
                        state.known(who, identity, None);
                    }
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
            LaneCommand::Act { order, reply } => self.act(order, reply),
            LaneCommand::Drain { reply } => self.step(|state| {
                state.drained.push(reply);
                self.send_all_away(state, drain());
                state.report_drained();
            }),
            LaneCommand::SendAway(leave) => self.step(|state| self.send_all_away(state, leave)),
            // A node that is about to stop does so, whatever the cluster wants of it.
            LaneCommand::TakePart => self.step(|state| state.leave = self.node.is_draining().then(drain)),
        }
    }

    fn send_all_away(&self, state: &mut State, leave: Leave) {
        let (spread_ms, mut jitter) = (self.node.live().drain.spread_ms, state.jitter);
        let after_ms = || next_jitter(&mut jitter, spread_ms);
        state.lane.send_all_away(clock::now(), &leave, after_ms, &mut state.out);
        state.jitter = jitter;
        state.leave = Some(leave);
    }

    fn poll(self: &Rc<Self>, mut poll: PollCommand) {
        let now = clock::now();
        poll.page.entries = poll.caller.sift(poll.page.entries, &self.node.metrics);
        self.step(|state| {
            let known = match poll.session {
                Some(name) if state.is_session(name, &poll.caller) => Some(name.who),
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
            let sink = Sink::Poll {
                ticket: poll.ticket,
                reply: Some(poll.reply),
            };
            if known.is_some() {
                state.set_sink(who, sink);
            } else {
                state.enter(who, sink, Some(poll.peer));
            }
            state.by_ticket.insert(poll.ticket, who);
            if let Caller::Known(identity) = &poll.caller {
                if known.is_some() {
                    state.refuse_withdrawn(who, &poll.caller, &mut poll.page);
                }
                state.known(who, Arc::clone(identity), None);
            }
            let mut superseded = Vec::new();
            _ = state.lane.poll(now, who, poll.page, &mut superseded);
            // The machine names the poll that gives place; its sink was closed above.
            superseded.retain(|output| !matches!(output, Output::Superseded { .. }));
            state.out.append(&mut superseded);
            if state.leave.is_some() {
                let after_ms = state.jitter_ms(self.node.live().drain.spread_ms);
                state.lane.poll_over(now, who, Some(after_ms), &mut state.out);
            }
        });
    }

    /// A stream takes over a session; `false` if the session is not known.
    pub(super) fn attach(
        &self,
        name: SessionName,
        caller: &Caller,
        sink: EventsSink,
        cursor: Option<&str>,
        trace: bool,
    ) -> Option<SubscriberKey> {
        self.step(|state| {
            if !state.is_session(name, caller) {
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
            Inspect::Figures(reply) => _ = reply.send(state.lane.figures()),
            Inspect::Tally { from, places, reply } => _ = reply.send(state.lane.tally(from, places)),
            Inspect::Watchers(object, reply) => _ = reply.send(state.lane.watchers(&object)),
            Inspect::Search { wanted, from, reply } => {
                let (found, next) = state
                    .lane
                    .look_through(from, PLACES_AT_ONCE, wanted.watching.as_deref());
                let found = found.into_iter().map(|view| state.connected(view));
                let found = found.filter(|connected| wanted.takes(self.thread, connected));
                _ = reply.send((found.collect(), next));
            }
            Inspect::Subscriptions { who, page, reply } => {
                let found = state
                    .lane
                    .subscriptions(who, page.from, page.at_most, |id, one| page.takes(id, one));
                _ = reply.send(found);
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
        let mut now = clock::now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for written in 0..WRITES_AT_ONCE {
            if written % WRITES_A_LOOK == WRITES_A_LOOK - 1 {
                now = clock::now();
            }
            let Some(write) = state.lane.next_write(now, &mut state.out) else {
                break;
            };
            state.write(self, write);
        }
        state.perform(self);
        state.lane.has_writes()
    }

    /// The socket takes bytes again: what it left is written first.
    pub(super) fn resume(&self, who: SubscriberKey) -> bool {
        self.step(|state| {
            let now = clock::now();
            let Some(Entry {
                sink: Sink::Socket(socket),
                ..
            }) = state.entry(who)
            else {
                return true;
            };
            let before = socket.rest.len();
            let waited = socket.stream.unsent();
            let result = write_to(&socket.stream, &mut socket.rest);
            let left = socket.rest.len();
            let moved = left < before || waited != socket.stream.unsent();
            match result {
                Err(_) => {
                    state.lane.disconnect(now, who);
                    state.remove(who);
                    true
                }
                Ok(true) => {
                    state.lane.writable(now, who, &mut state.out);
                    true
                }
                Ok(false) => {
                    if moved {
                        state.lane.progress(now, who);
                    }
                    false
                }
            }
        })
    }
}

/// The task that tells the lane up to where versions may go: a cursor from above was not given by this cluster.
pub(super) async fn heed(shell: Rc<Shell>, mut view: watch::Receiver<Arc<View>>) {
    loop {
        let ceiling = view.borrow_and_update().map.ceiling();
        shell.with(|lane, _| lane.set_ceiling(ceiling));
        if view.changed().await.is_err() {
            return;
        }
    }
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
        let deadline = shell.state.borrow().next_deadline();
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
            () = timer => shell.step(|state| {
                state.lane.handle_deadline(clock::now(), &mut state.out);
                state.look(&shell);
                state.see_off_old(&shell);
            }),
            () = shell.deadline.notified() => {}
        }
    }
}
