//! The shell of a lane: the sockets of one core's share of the subscribers, and the machine that decides what they are
//! told.
//!
//! One lane lives on each thread, with its connections. Requests of clients and frames of owners go straight into the
//! machine; writes are pulled from it by one task, a limited number at a time, so that a change with a million
//! subscribers delays nobody's requests for long.

mod aging;
mod bearers;
mod connections;
mod events;
mod everywhere;
mod explain;
mod poll;
mod retreat;
mod search;
mod shell;
mod sinks;
mod subjects;
mod websocket;

pub(crate) use everywhere::connections_of_all;

use crate::auth::{Caller, Denial};
use crate::node::Node;
use crate::server::App;
use shell::Shell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
pub(crate) use subjects::act;
use tidings_protocol::codec::PollAnswer;
use tidings_protocol::peer::OwnerToEdge;
use tidings_router::access::Subject;
use tidings_router::edge::{
    ConnectionView, Explanation, LaneStats, Leave, PollPage, SubscriberKey, SubscriptionPage, Tally,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What reaches a lane from outside its thread, or from a route.
pub(crate) enum LaneCommand {
    /// Frames of the owner on thread `owner`, in order.
    FromOwner {
        owner: usize,
        generation: u32,
        frames: Vec<OwnerToEdge>,
    },
    /// The link to an owner elsewhere came up (again).
    OwnerUp { owner: usize, generation: u32 },
    /// It broke.
    OwnerDown { owner: usize, generation: u32 },
    /// A WebSocket whose handshake was answered.
    WebSocket(Box<websocket::Upgrade>),
    /// An event stream.
    Events(Box<events::Open>),
    /// The stream's body took its frame and there is more.
    EventsTaken { who: SubscriberKey, ticket: u64 },
    /// The stream's or poll's client is gone.
    Gone { ticket: u64 },
    /// A long-poll.
    Poll(Box<PollCommand>),
    /// The poll has waited long enough.
    PollOver { ticket: u64 },
    /// A session made beforehand.
    OpenSession {
        caller: Caller,
        entries: Vec<tidings_protocol::client::EntryResult>,
        reply: oneshot::Sender<String>,
    },
    /// Looks into the lane.
    Inspect(Inspect),
    /// Ends one subscriber.
    Close {
        who: SubscriberKey,
        reply: oneshot::Sender<bool>,
    },
    /// Does something with the connections of a subject.
    Act {
        order: Arc<tidings_protocol::subject::SubjectOrder>,
        reply: oneshot::Sender<tidings_protocol::subject::SubjectTally>,
    },
    /// Sends everyone away because the node is about to stop; `reply` when they are gone.
    Drain { reply: oneshot::Sender<()> },
    /// Sends everyone away, and whoever comes, until [`LaneCommand::TakePart`].
    SendAway(Leave),
    /// Newcomers are welcome again.
    TakePart,
}

/// A long-poll on its way to its lane.
pub(crate) struct PollCommand {
    pub(crate) ticket: u64,
    pub(crate) session: Option<SessionName>,
    pub(crate) page: PollPage,
    pub(crate) peer: SocketAddr,
    pub(crate) caller: Caller,
    pub(crate) reply: oneshot::Sender<PollReply>,
}

/// How a poll ended.
pub(crate) enum PollReply {
    Answer(Box<PollAnswer>),
    Superseded,
    SessionUnknown,
    /// Its token does not count any more.
    Denied(Denial),
}

/// Questions about a lane.
pub(crate) enum Inspect {
    Stats(oneshot::Sender<LaneStats>),
    /// Without a walk over the subscribers.
    Figures(oneshot::Sender<LaneStats>),
    /// The subscribers, counted in pieces.
    Tally {
        from: u32,
        places: u32,
        reply: oneshot::Sender<(Tally, Option<u32>)>,
    },
    /// The subscribers, looked through in pieces.
    Search {
        wanted: Arc<search::Wanted>,
        from: u32,
        reply: oneshot::Sender<(Vec<Connected>, Option<u32>)>,
    },
    /// What one subscriber watches, in pages.
    Subscriptions {
        who: SubscriberKey,
        page: search::ObjectPage,
        reply: oneshot::Sender<Option<SubscriptionPage>>,
    },
    Watchers(Box<str>, oneshot::Sender<usize>),
    Connection {
        who: SubscriberKey,
        objects: usize,
        reply: oneshot::Sender<Option<(Connected, Vec<Box<str>>)>>,
    },
    Explain {
        who: SubscriberKey,
        object: Box<str>,
        reply: oneshot::Sender<Option<Explanation>>,
    },
}

/// A subscriber with what the shell knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) view: ConnectionView,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) subject: Option<Subject>,
    pub(crate) for_us: u64,
}

/// A way to reach the lane of one thread from any thread.
#[derive(Clone)]
pub struct LaneHandle {
    commands: mpsc::UnboundedSender<LaneCommand>,
}

impl std::fmt::Debug for LaneHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneHandle")
    }
}

/// The lane's end of its handle.
pub struct LaneReceiver {
    commands: mpsc::UnboundedReceiver<LaneCommand>,
}

/// A handle and the end that [`start`] takes.
#[must_use]
pub fn channel() -> (LaneHandle, LaneReceiver) {
    // Not bounded by itself, but by what feeds it: one request for each connection, and the windows of the owners.
    let (sender, receiver) = mpsc::unbounded_channel();
    (LaneHandle { commands: sender }, LaneReceiver { commands: receiver })
}

impl LaneHandle {
    /// Hands over frames of an owner. After the lane has ended they fall to the ground with everything else.
    pub fn from_owner(&self, owner: usize, generation: u32, frames: Vec<OwnerToEdge>) {
        self.send(LaneCommand::FromOwner {
            owner,
            generation,
            frames,
        });
    }

    /// The link to an owner of another node came up. Owners of other nodes count on from those of this node.
    pub fn owner_up(&self, owner: usize, generation: u32) {
        self.send(LaneCommand::OwnerUp { owner, generation });
    }

    /// It broke.
    pub fn owner_down(&self, owner: usize, generation: u32) {
        self.send(LaneCommand::OwnerDown { owner, generation });
    }

    pub(crate) fn send(&self, command: LaneCommand) {
        _ = self.commands.send(command);
    }

    pub(crate) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> LaneCommand) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.send(question(sender));
        receiver.await.ok()
    }

    /// The lane in numbers; `None` once it has ended.
    pub async fn stats(&self) -> Option<LaneStats> {
        self.ask(|reply| LaneCommand::Inspect(Inspect::Stats(reply))).await
    }

    /// [`LaneHandle::stats`] without what takes a walk over the subscribers.
    pub(crate) async fn figures(&self) -> Option<LaneStats> {
        self.ask(|reply| LaneCommand::Inspect(Inspect::Figures(reply))).await
    }

    /// The subscribers, counted in pieces so that nobody waits long meanwhile.
    pub(crate) async fn tally(&self) -> Option<Tally> {
        let (mut sum, mut from) = (Tally::default(), Some(0));
        while let Some(place) = from {
            let question = |reply| Inspect::Tally {
                from: place,
                places: search::PLACES_AT_ONCE,
                reply,
            };
            let (tally, next) = self.ask(|reply| LaneCommand::Inspect(question(reply))).await?;
            sum.add(&tally);
            from = next;
        }
        Some(sum)
    }

    /// How many subscribers of this lane watch an object.
    pub async fn watchers(&self, object: &str) -> usize {
        self.ask(|reply| LaneCommand::Inspect(Inspect::Watchers(object.into(), reply)))
            .await
            .unwrap_or(0)
    }
}

/// Starts the lane of this thread. To be called inside the thread's `LocalSet`, once.
pub fn start(thread: usize, node: Arc<Node>, receiver: LaneReceiver) {
    let shell = Shell::new(thread, node);
    crate::node::spawn_vital("lane writer", shell::write(Rc::clone(&shell)));
    if let Some(control) = &shell.node.control {
        crate::node::spawn_vital("lane's ceiling", shell::heed(Rc::clone(&shell), control.watch()));
    }
    if let Some(auth) = &shell.node.auth {
        let heed = bearers::heed_revocations(Rc::clone(&shell), Arc::clone(auth));
        crate::node::spawn_vital("lane's revocations", heed);
    }
    crate::node::spawn_vital("lane", shell::run(shell, receiver.commands));
}

/// Sends the lane's subscribers away; done when all are gone. The caller bounds the wait.
pub async fn drain(lane: &LaneHandle, _deadline: Instant) {
    _ = lane.ask(|reply| LaneCommand::Drain { reply }).await;
}

/// Follows what the cluster wants of this node, on the lane's thread; see `retreat`.
pub(crate) fn follow_cluster(node: &Node, thread: usize) {
    if let Some(control) = &node.control {
        let lane = node.lanes[thread].clone();
        tokio::task::spawn_local(retreat::follow(lane, control.watch(), node.elsewhere.subscribe()));
    }
}

/// The routes of subscribers.
pub fn routes() -> axum::Router<App> {
    websocket::routes().merge(events::routes()).merge(poll::routes())
}

/// The routes of those who look after subscribers.
pub(crate) fn operators_routes() -> axum::Router<App> {
    subjects::routes()
}

/// Those that tell of this node only, and can be asked of another.
pub(crate) fn own_routes() -> axum::Router<App> {
    connections::routes().merge(search::routes()).merge(explain::routes())
}

/// The name of a subscriber as clients and operators see it: lane, place and generation.
pub(crate) fn connection_name(lane: usize, who: SubscriberKey) -> String {
    format!("{lane:x}-{:x}-{:x}", who.index, who.generation)
}

/// Reads what [`connection_name`] wrote.
pub(crate) fn read_connection_name(text: &str) -> Option<(usize, SubscriberKey)> {
    let mut parts = text.splitn(3, '-').map(|part| u32::from_str_radix(part, 16).ok());
    let (lane, index, generation) = (parts.next()??, parts.next()??, parts.next()??);
    let who = SubscriberKey { index, generation };
    (connection_name(lane as usize, who) == text).then_some((lane as usize, who))
}

/// What a client holds of its session. The secret keeps others from guessing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionName {
    pub(crate) lane: u16,
    pub(crate) who: SubscriberKey,
    pub(crate) secret: [u8; 16],
}

impl SessionName {
    fn text(&self) -> String {
        use base64::Engine as _;
        let mut bytes = Vec::with_capacity(26);
        bytes.extend_from_slice(&self.lane.to_be_bytes());
        bytes.extend_from_slice(&self.who.index.to_be_bytes());
        bytes.extend_from_slice(&self.who.generation.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str) -> Option<Self> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?;
        let (lane, rest) = bytes.split_first_chunk::<2>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (generation, secret) = rest.split_first_chunk::<4>()?;
        let who = SubscriberKey {
            index: u32::from_be_bytes(*index),
            generation: u32::from_be_bytes(*generation),
        };
        Some(Self {
            lane: u16::from_be_bytes(*lane),
            who,
            secret: secret.try_into().ok()?,
        })
    }

    /// The lane that holds the session, if there is such a lane.
    fn lane<'a>(&self, node: &'a Node) -> Option<&'a LaneHandle> {
        node.lanes.get(usize::from(self.lane))
    }
}
