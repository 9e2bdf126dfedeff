//! The ways to other nodes that are open now, for any thread: frames of lanes to owners elsewhere, changes and questions
//! with their answers.
//!
//! It does not dial: whoever keeps a connection up opens and closes its way here.

use super::counts::Counts;
use super::cut;
use super::questions::Asking;
use crate::mesh::session::Outbox;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tidings_protocol::mesh::{AckLevel, ForwardedResult, Frame, Known, LinkName, encode};
use tidings_protocol::peer::EdgeToOwner;
use tidings_protocol::{NodeId, ObjectHash};
use tidings_router::owner::Publish;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Encodes a frame and puts it into an outbox. Returns its bytes, or `None` if it will not arrive.
pub(super) fn put(outbox: &Outbox, counts: &Counts, frame: &Frame) -> Option<usize> {
    let mut bytes = Vec::new();
    match encode(frame, &mut bytes) {
        Ok(()) => {
            let length = bytes.len();
            counts.sent.count(frame, length);
            outbox.push(bytes).then_some(length)
        }
        Err(error) => {
            tracing::error!(%error, "a frame for another node cannot be sent: the connection is cut");
            outbox.dismiss();
            None
        }
    }
}

/// The way to one node with owners: a dialled connection behind its welcome.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) node: NodeId,
    pub(super) generation: u32,
    /// The number of each owner of the node.
    pub(super) owners: Vec<usize>,
    outbox: Outbox,
    counts: Arc<Counts>,
    last: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Who waits for an answer.
#[derive(Debug, Default)]
struct Waiting {
    over: bool,
    publishes: HashMap<u64, Sent>,
    questions: HashMap<u64, oneshot::Sender<Option<Known>>>,
    bytes: usize,
}

#[derive(Debug)]
struct Sent {
    changes: usize,
    bytes: usize,
    reply: oneshot::Sender<Vec<ForwardedResult>>,
}

impl Way {
    pub(super) fn new(
        node: NodeId,
        generation: u32,
        owners: Vec<usize>,
        outbox: Outbox,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            generation,
            owners,
            outbox,
            counts,
            last: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a request, never used twice on the connection.
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn send(&self, frame: &Frame) -> Option<usize> {
        put(&self.outbox, &self.counts, frame)
    }

    /// The node answered a publish. `false` if the answer makes no sense.
    pub(super) fn published(&self, request: u64, results: Vec<ForwardedResult>) -> bool {
        let Some(sent) = self.waiting().take(request, &self.counts) else {
            return false;
        };
        let fits = sent.changes == results.len();
        if fits {
            // Whoever asked may have given up; so below.
            _ = sent.reply.send(results);
        }
        fits
    }

    /// The node answered a question.
    pub(super) fn inspected(&self, request: u64, known: Option<Known>) -> bool {
        let asked = self.waiting().questions.remove(&request);
        asked.map(|reply| _ = reply.send(known)).is_some()
    }

    /// The connection is over: nobody is answered any more.
    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.over = true;
        waiting.publishes.clear();
        waiting.questions.clear();
        self.counts.under_way.dec_by(waiting.bytes as i64);
        waiting.bytes = 0;
    }
}

impl Waiting {
    fn take(&mut self, request: u64, counts: &Counts) -> Option<Sent> {
        let sent = self.publishes.remove(&request)?;
        self.bytes -= sent.bytes;
        counts.under_way.dec_by(sent.bytes as i64);
        Some(sent)
    }
}

/// Why changes were not sent. **Nothing was done with them.**
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no connection to the node.
    NoWay,
    /// Too much is under way to it already.
    Full,
}

/// Changes on their way to another node.
#[derive(Debug)]
pub struct Forwarded(oneshot::Receiver<Vec<ForwardedResult>>);

impl Forwarded {
    /// What became of each; `None` if that is not known, because no answer came in time or the connection broke.
    pub async fn wait(self, deadline: Instant) -> Option<Vec<ForwardedResult>> {
        tokio::time::timeout_at(deadline, self.0).await.ok()?.ok()
    }
}

/// An owner's number on its node, and the way there.
type AwayOwner = (u16, Arc<Way>);

#[derive(Debug)]
struct Shared {
    by_node: RwLock<HashMap<NodeId, Arc<Way>>>,
    /// By number, counted from the first owner of another node: which owner of which node it is.
    by_owner: RwLock<Vec<Option<AwayOwner>>>,
    owners: usize,
    forward_bytes: usize,
    asking: Asking,
    counts: Arc<Counts>,
}

/// The way to other nodes from any thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// One that leads nowhere before [`super::start`]. `owners`: how many this node has itself. `forward_bytes`: how much of
    /// changes may be under way to one node.
    #[must_use]
    pub fn new(owners: usize, forward_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            by_node: RwLock::default(),
            by_owner: RwLock::default(),
            owners,
            forward_bytes,
            asking: Asking::default(),
            counts: Arc::new(Counts::new()),
        }))
    }

    pub(super) fn forward_bytes(&self) -> usize {
        self.0.forward_bytes
    }

    /// Of the connection that was dialled to a node.
    pub(super) fn outbox_to(&self, node: NodeId) -> Option<Outbox> {
        self.to(node).map(|way| way.outbox.clone())
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    pub(super) fn asking(&self) -> &Asking {
        &self.0.asking
    }

    /// Frames of a lane here for an owner elsewhere, straight into its connection's outbox. `owner` counts on from the
    /// owners of this node. What belongs to a connection that is over falls to the ground.
    pub fn from_lane(&self, lane: usize, owner: usize, generation: u32, frames: Vec<EdgeToOwner>) {
        let by_owner = self.0.by_owner.read().unwrap_or_else(PoisonError::into_inner);
        let place = owner
            .checked_sub(self.0.owners)
            .and_then(|at| by_owner.get(at)?.clone());
        drop(by_owner);
        let Some((owner, way)) = place.filter(|(_, way)| way.generation == generation) else {
            return;
        };
        let link = LinkName {
            lane: lane as u16,
            owner,
        };
        for frame in frames {
            cut::from_edge(frame, |frame| {
                _ = way.send(&Frame::FromEdge {
                    link,
                    generation,
                    frame,
                });
            });
        }
    }

    /// Opens a way: from now on what is said to the node goes there.
    pub(super) fn open(&self, way: &Arc<Way>) {
        let mut by_owner = self.0.by_owner.write().unwrap_or_else(PoisonError::into_inner);
        for (owner, number) in way.owners.iter().enumerate() {
            let at = number - self.0.owners;
            if at >= by_owner.len() {
                by_owner.resize(at + 1, None);
            }
            by_owner[at] = Some((owner as u16, Arc::clone(way)));
        }
        drop(by_owner);
        let mut by_node = self.0.by_node.write().unwrap_or_else(PoisonError::into_inner);
        by_node.insert(way.node, Arc::clone(way));
    }

    /// Closes it. Who waits for an answer learns that none will come.
    pub(super) fn close(&self, way: &Arc<Way>) {
        let mut by_owner = self.0.by_owner.write().unwrap_or_else(PoisonError::into_inner);
        for number in &way.owners {
            by_owner[number - self.0.owners] = None;
        }
        drop(by_owner);
        let mut by_node = self.0.by_node.write().unwrap_or_else(PoisonError::into_inner);
        by_node.remove(&way.node);
        drop(by_node);
        way.end();
    }

    fn to(&self, node: NodeId) -> Option<Arc<Way>> {
        let by_node = self.0.by_node.read().unwrap_or_else(PoisonError::into_inner);
        by_node.get(&node).cloned()
    }

    /// Whether there is a connection to the owners of a node.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.to(node).is_some()
    }

    /// Sends changes to the node that owns their shards. They arrive in the order in which this was called.
    ///
    /// # Errors
    /// If they were not sent.
    pub(crate) fn publish<'a>(
        &self,
        node: NodeId,
        ack: AckLevel,
        within_ms: u32,
        changes: impl Iterator<Item = &'a Publish>,
    ) -> Result<Forwarded, NotSent> {
        let way = self.to(node).ok_or(NotSent::NoWay)?;
        let changes: Vec<_> = changes.map(cut::forwarded).collect();
        let count = changes.len();
        let (reply, answer) = oneshot::channel();
        let request = way.next();
        let frame = Frame::Publish {
            request,
            ack,
            within_ms,
            changes,
        };
        let mut bytes = Vec::new();
        if let Err(error) = encode(&frame, &mut bytes) {
            tracing::error!(%error, "changes for another node do not fit one frame");
            return Err(NotSent::Full);
        }
        let length = bytes.len();
        // Held until the frame is in the outbox: no answer finds nobody who waits for it.
        let mut waiting = way.waiting();
        if waiting.bytes > 0 && waiting.bytes + length > self.0.forward_bytes {
            return Err(NotSent::Full);
        }
        if waiting.over || !way.outbox.push(bytes) {
            return Err(NotSent::NoWay);
        }
        waiting.bytes += length;
        waiting.publishes.insert(
            request,
            Sent {
                changes: count,
                bytes: length,
                reply,
            },
        );
        drop(waiting);
        self.0.counts.under_way.inc_by(length as i64);
        self.0.counts.sent.count(&frame, length);
        self.0.counts.forwarded.inc_by(count as u64);
        Ok(Forwarded(answer))
    }

    /// Changes have to be routed again.
    pub(crate) fn count_again(&self, changes: usize) {
        self.0.counts.again.inc_by(changes as u64);
    }

    /// What the owner of an object on another node knows of it; `None` if it does not own it, or does not answer in time.
    pub async fn inspect(
        &self,
        node: NodeId,
        object: ObjectHash,
        lane: Option<usize>,
        deadline: Instant,
    ) -> Option<Known> {
        let way = self.to(node)?;
        let (reply, answer) = oneshot::channel();
        let request = {
            let mut waiting = way.waiting();
            if waiting.over {
                return None;
            }
            let request = way.next();
            waiting.questions.insert(request, reply);
            request
        };
        let lane = lane.map(|lane| lane as u16);
        _ = way.send(&Frame::Inspect { request, object, lane })?;
        let known = tokio::time::timeout_at(deadline, answer).await;
        if known.is_err() {
            way.waiting().questions.remove(&request);
        }
        known.ok()?.ok()?
    }
}
