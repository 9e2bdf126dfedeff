//! Where bytes for subscribers go: sockets, bodies of event streams, polls that wait. What the machine asks for is done here.

use super::bearers::Bearer;
use super::events::EventsSink;
use super::shell::Shell;
use super::{Connected, PollReply, SessionName};
use crate::auth::Caller;
use crate::clock;
use crate::server::Wire;
use crate::telemetry::Limit;
use bytes::{Buf as _, Bytes};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tidings_protocol::peer::EdgeToOwner;
use tidings_router::MonoUs;
use tidings_router::edge::{Lane, Leave, Output, SubscriberKey, Write};
use tokio::sync::{Notify, oneshot};

/// How long a client may take to read the last words it is sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What one step of the lane may touch.
pub(super) struct State {
    pub(super) lane: Lane,
    pub(super) out: Vec<Output>,
    sinks: Vec<Option<Entry>>,
    pub(super) by_ticket: HashMap<u64, SubscriberKey>,
    to_owners: Vec<(u32, Vec<EdgeToOwner>)>,
    /// Owners for whom there is something.
    addressed: Vec<usize>,
    /// Subscribers that were sent away and are still reading why.
    leaving: usize,
    /// Told when the last sink has closed.
    pub(super) drained: Vec<oneshot::Sender<()>>,
    /// Nobody is to stay here: how they are sent away.
    pub(super) leave: Option<Leave>,
    pub(super) jitter: u64,
    /// When bearers are to be looked at, and which.
    pub(super) due: BTreeSet<(MonoUs, u32)>,
    /// When connections are too old, and which.
    pub(super) aging: BTreeSet<(MonoUs, u32)>,
    /// How old one may become, more or less; zero: as it likes.
    pub(super) lifetime_ms: u64,
}

/// What the shell keeps for one subscriber.
pub(super) struct Entry {
    generation: u32,
    pub(super) sink: Sink,
    peer: Option<SocketAddr>,
    /// The secret of its name, if it is a session.
    secret: Option<[u8; 16]>,
    /// When its connection is too old; zero: it has none, or may live for ever.
    pub(super) ends_us: MonoUs,
    /// Who is behind it, where that has to be known.
    pub(super) bearer: Option<Box<Bearer>>,
}

/// Where bytes for a subscriber go.
pub(super) enum Sink {
    Socket(Box<Socket>),
    Events(EventsSink),
    Poll {
        ticket: u64,
        reply: Option<oneshot::Sender<PollReply>>,
    },
    /// A session without poll or stream.
    Idle,
}

/// An upgraded WebSocket.
pub(super) struct Socket {
    pub(super) stream: Rc<Wire>,
    /// What the socket could not take of the last write.
    pub(super) rest: Bytes,
    /// The reader waits here for its next turn, or learns that the socket was cut.
    pub(super) turn: Rc<Notify>,
}

impl State {
    pub(super) fn new(lane: Lane, out: Vec<Output>, owners: usize, jitter: u64, lifetime_ms: u64) -> Self {
        Self {
            lane,
            out,
            sinks: Vec::new(),
            by_ticket: HashMap::new(),
            to_owners: (0..owners).map(|_| (0, Vec::new())).collect(),
            addressed: Vec::new(),
            leaving: 0,
            drained: Vec::new(),
            leave: None,
            jitter,
            due: BTreeSet::new(),
            aging: BTreeSet::new(),
            lifetime_ms,
        }
    }

    /// How many places there are, taken or not.
    pub(super) fn places(&self) -> u32 {
        self.sinks.len() as u32
    }

    /// Whoever is behind the subscriber of a place.
    pub(super) fn bearer_at(&mut self, index: u32) -> Option<(SubscriberKey, &mut Bearer)> {
        let entry = self.sinks.get_mut(index as usize)?.as_mut()?;
        let generation = entry.generation;
        let bearer = entry.bearer.as_deref_mut()?;
        Some((SubscriberKey { index, generation }, bearer))
    }

    /// Whoever has a place.
    pub(super) fn key_at(&self, index: u32) -> Option<SubscriberKey> {
        let entry = self.sinks.get(index as usize)?.as_ref()?;
        let generation = entry.generation;
        Some(SubscriberKey { index, generation })
    }

    fn vacate(&mut self, index: usize) -> Option<Entry> {
        let entry = self.sinks.get_mut(index)?.take()?;
        self.no_longer_due(index as u32, entry.bearer.as_deref());
        self.aging.remove(&(entry.ends_us, index as u32));
        Some(entry)
    }

    pub(super) fn entry(&mut self, who: SubscriberKey) -> Option<&mut Entry> {
        self.sinks
            .get_mut(who.index as usize)?
            .as_mut()
            .filter(|entry| entry.generation == who.generation)
    }

    pub(super) fn enter(&mut self, who: SubscriberKey, sink: Sink, peer: Option<SocketAddr>) {
        let index = who.index as usize;
        if self.sinks.len() <= index {
            self.sinks.resize_with(index + 1, || None);
        }
        // A session that the machine forgot may still stand there.
        self.vacate(index);
        self.sinks[index] = Some(Entry {
            generation: who.generation,
            sink,
            peer,
            secret: None,
            ends_us: 0,
            bearer: None,
        });
    }

    /// Ends what the subscriber's sink was, and gives it another.
    pub(super) fn set_sink(&mut self, who: SubscriberKey, sink: Sink) {
        self.forget_age(who);
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
    pub(super) fn remove(&mut self, who: SubscriberKey) {
        if self.entry(who).is_some()
            && let Some(entry) = self.vacate(who.index as usize)
        {
            self.end(entry.sink);
            self.report_drained();
        }
    }

    pub(super) fn report_drained(&mut self) {
        if self.drained.is_empty() {
            return;
        }
        let busy = self.leaving > 0
            || self
                .sinks
                .iter()
                .flatten()
                .any(|entry| !matches!(entry.sink, Sink::Idle));
        if !busy {
            // Whoever asked may have given up waiting.
            self.drained.drain(..).for_each(|reply| _ = reply.send(()));
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        next_random(&mut self.jitter)
    }

    pub(super) fn jitter_ms(&mut self, spread_ms: u64) -> u64 {
        next_jitter(&mut self.jitter, spread_ms)
    }

    /// Whether there is this session, and it is this one's: to others it does not exist.
    pub(super) fn is_session(&self, name: SessionName, of: &Caller) -> bool {
        let entry = self.sinks.get(name.who.index as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| {
            let owner = entry.bearer.as_ref().and_then(|bearer| bearer.subject());
            let named = entry.generation == name.who.generation && entry.secret == Some(name.secret);
            named && owner == of.subject()
        }) && self.lane.connection(name.who).is_some()
    }

    /// The session's name, made on first use. `None` without randomness: then there is no session to come back to.
    pub(super) fn session_name(&mut self, thread: usize, who: SubscriberKey) -> Option<SessionName> {
        let entry = self.entry(who)?;
        if entry.secret.is_none() {
            let mut secret = [0; 16];
            getrandom::fill(&mut secret).ok()?;
            entry.secret = Some(secret);
        }
        Some(SessionName {
            lane: thread as u16,
            who,
            secret: entry.secret?,
        })
    }

    pub(super) fn connected(&self, view: tidings_router::edge::ConnectionView) -> Connected {
        let entry = self.sinks.get(view.who.index as usize).and_then(Option::as_ref);
        Connected {
            peer: entry.and_then(|entry| entry.peer),
            subject: entry.and_then(|entry| entry.bearer.as_ref()?.subject().cloned()),
            for_us: clock::mono_us() - view.since_us,
            view,
        }
    }

    /// Does what the machine asked for.
    pub(super) fn perform(&mut self, shell: &Shell) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::ToOwner {
                    owner,
                    generation,
                    frame,
                } => {
                    if owner >= self.to_owners.len() {
                        self.to_owners.resize_with(owner + 1, Default::default);
                    }
                    let (last, frames) = &mut self.to_owners[owner];
                    // Links change between steps, so all frames of one step are of one life of the link.
                    *last = generation;
                    if frames.is_empty() {
                        self.addressed.push(owner);
                    }
                    frames.push(frame);
                }
                Output::MayRequest { who } => {
                    if let Some(Entry {
                        sink: Sink::Socket(socket),
                        ..
                    }) = self.entry(who)
                    {
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
                    shell.node.metrics.refused(Limit::Stuck);
                    if let Some(Entry {
                        sink: Sink::Socket(socket),
                        ..
                    }) = self.entry(who)
                    {
                        _ = socket2::SockRef::from(socket.stream.tcp()).shutdown(std::net::Shutdown::Both);
                    }
                    self.remove(who);
                }
            }
        }
        for owner in self.addressed.drain(..) {
            let (generation, frames) = &mut self.to_owners[owner];
            let frames = std::mem::take(frames);
            if let Some(owner) = shell.node.owners.get(owner) {
                owner.from_lane(shell.thread, *generation, frames);
            } else if let Some(peers) = &shell.node.peers {
                peers.from_lane(shell.thread, owner, *generation, frames);
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

    pub(super) fn events_taken(&mut self, who: SubscriberKey, ticket: u64) {
        let Some(Entry {
            sink: Sink::Events(events),
            ..
        }) = self.entry(who)
        else {
            return;
        };
        if events.ticket == ticket && events.resume() {
            self.lane.writable(clock::now(), who, &mut self.out);
        }
    }

    /// Hands one write to its sink.
    pub(super) fn write(&mut self, shell: &Rc<Shell>, write: Write) {
        let now = clock::now();
        let who = write.who;
        let Some(entry) = self.entry(who) else { return };
        match &mut entry.sink {
            Sink::Socket(socket) => {
                socket.rest = write.bytes;
                let result = write_to(&socket.stream, &mut socket.rest);
                if write.last {
                    let place = self.vacate(who.index as usize);
                    if let Some(Entry {
                        sink: Sink::Socket(socket),
                        ..
                    }) = place
                    {
                        self.leaving += 1;
                        tokio::task::spawn_local(last_words(Rc::clone(shell), socket));
                    }
                } else if result.is_err() {
                    self.lane.disconnect(now, who);
                    self.remove(who);
                } else if !matches!(result, Ok(true)) {
                    let stream = Rc::clone(&socket.stream);
                    self.lane.blocked(now, who);
                    tokio::task::spawn_local(wait_writable(Rc::clone(shell), stream, who));
                }
            }
            Sink::Events(events) => {
                let taken = events.write(write.bytes);
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

/// Writes as much as the socket takes; what it does not take stays in `bytes`. Whether it took everything.
pub(super) fn write_to(stream: &Wire, bytes: &mut Bytes) -> io::Result<bool> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            // Not advanced to its end: even empty it would hold on to its frame.
            Ok(written) if written == bytes.len() => *bytes = Bytes::new(),
            Ok(written) => bytes.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    match stream.flush() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        flushed => flushed.map(|()| true),
    }
}

async fn wait_writable(shell: Rc<Shell>, stream: Rc<Wire>, who: SubscriberKey) {
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
            if !matches!(write_to(&socket.stream, &mut socket.rest), Ok(false)) {
                break;
            }
            _ = socket.stream.writable().await;
        }
    };
    // A client that does not read even this loses nothing but the reason.
    _ = tokio::time::timeout(LAST_WORDS, finish).await;
    socket.stream.end();
    socket.turn.notify_one();
    shell.step(|state| {
        state.leaving -= 1;
        state.report_drained();
    });
}

pub(super) fn next_jitter(state: &mut u64, spread_ms: u64) -> u64 {
    100 + next_random(state) % spread_ms.max(1)
}

fn next_random(state: &mut u64) -> u64 {
    // xorshift64 (Marsaglia, 2003): good enough to spread clients.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
