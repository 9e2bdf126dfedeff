//! What one node asks of another besides changes and links: operators' questions that are about the other, and orders about a
//! subject's connections there; and their answers.
//!
//! They go over whichever connection there is: the one that was dialled to the node, or the one that it dialled. So both ends of
//! a connection take them. Who asks was judged where it was asked, and that counts for nodes that have the cluster's secret: an
//! edge with less of it gets no answer but that. A question whose answer does not come is given up by its deadline.

use super::Stage;
use super::ways::{Handle, put};
use crate::mesh::session::Outbox;
use crate::problem::Refusal;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidings_protocol::mesh::{Frame, MAX_TARGET_BYTES, Verb};
use tidings_protocol::subject::{SubjectOrder, SubjectTally};
use tidings_protocol::{Code, NodeId};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is worked on at once for one connection. Beyond it what is asked is refused.
const AT_ONCE: usize = 256;

/// What a node answered to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// As of HTTP.
    pub(crate) status: u16,
    /// JSON, or nothing.
    pub(crate) body: String,
}

impl From<Refusal> for Told {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status(),
            body: String::from_utf8_lossy(&refusal.document()).into_owned(),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// There is no connection to the node. **Nothing was done there.**
    Unreached,
    /// It did not take it. **Nothing was done there.**
    Refused,
    /// It did not answer in time. It may have been done.
    Unknown,
}

#[derive(Debug)]
enum Answer {
    Told(Told),
    Ordered(Option<SubjectTally>),
}

type Waiting = HashMap<u64, (NodeId, oneshot::Sender<Answer>)>;

/// Who was asked what, and where nodes are reached that only dialled us.
#[derive(Debug, Default)]
pub(super) struct Asking {
    last: AtomicU64,
    waiting: Mutex<Waiting>,
    accepted: Mutex<HashMap<NodeId, (u32, Outbox)>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A question that is answered or given up: either way nobody waits for it any more.
struct Open<'a> {
    asking: &'a Asking,
    request: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        held(&self.asking.waiting).remove(&self.request);
    }
}

impl Asking {
    /// A node that dialled us is reached here.
    pub(super) fn open(&self, node: NodeId, serial: u32, outbox: &Outbox) {
        held(&self.accepted).insert(node, (serial, outbox.clone()));
    }

    /// It is not any more, unless it dialled again.
    pub(super) fn close(&self, node: NodeId, serial: u32) {
        let mut accepted = held(&self.accepted);
        if accepted.get(&node).is_some_and(|(newest, _)| *newest == serial) {
            accepted.remove(&node);
        }
    }

    fn accepted(&self, node: NodeId) -> Option<Outbox> {
        held(&self.accepted).get(&node).map(|(_, outbox)| outbox.clone())
    }

    /// A node answered. What it was not asked falls to the ground.
    fn answered(&self, node: NodeId, request: u64, answer: Answer) {
        let mut waiting = held(&self.waiting);
        if waiting.get(&request).is_some_and(|(asked, _)| *asked == node)
            && let Some((_, reply)) = waiting.remove(&request)
        {
            // Whoever asked may have given up.
            _ = reply.send(answer);
        }
    }

    #[cfg(test)]
    pub(super) fn open_questions(&self) -> usize {
        held(&self.waiting).len()
    }
}

impl Handle {
    /// Asks a node an operator's question about itself. `None` if there is no connection, or no answer in time: then it is not
    /// known whether something was ended.
    pub(crate) async fn ask(&self, node: NodeId, verb: Verb, target: &str, deadline: Instant) -> Option<Told> {
        if target.len() > MAX_TARGET_BYTES {
            return None;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = |request| Frame::Ask {
            request,
            within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            verb,
            target: target.to_owned(),
        };
        match self.exchange(node, frame, deadline).await {
            Ok(Answer::Told(told)) => Some(told),
            Ok(Answer::Ordered(_)) | Err(_) => None,
        }
    }

    /// Has another node do something with a subject's connections; what it did.
    ///
    /// # Errors
    /// If that is not known.
    pub(crate) async fn order(
        &self,
        node: NodeId,
        order: &SubjectOrder,
        deadline: Instant,
    ) -> Result<SubjectTally, NoAnswer> {
        let order = order.clone();
        match self
            .exchange(node, |request| Frame::Order { request, order }, deadline)
            .await?
        {
            Answer::Ordered(tally) => tally.ok_or(NoAnswer::Refused),
            Answer::Told(_) => Err(NoAnswer::Unknown),
        }
    }

    async fn exchange(
        &self,
        node: NodeId,
        frame: impl FnOnce(u64) -> Frame,
        deadline: Instant,
    ) -> Result<Answer, NoAnswer> {
        let asking = self.asking();
        let outbox = self.outbox_to(node).or_else(|| asking.accepted(node));
        let outbox = outbox.ok_or(NoAnswer::Unreached)?;
        let request = asking.last.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        held(&asking.waiting).insert(request, (node, reply));
        let _open = Open { asking, request };
        put(&outbox, self.counts(), &frame(request)).ok_or(NoAnswer::Unreached)?;
        let answer = tokio::time::timeout_at(deadline, answer).await;
        answer.ok().and_then(Result::ok).ok_or(NoAnswer::Unknown)
    }
}

/// Places for what is worked on at once.
#[derive(Clone, Debug, Default)]
struct Places(Rc<Cell<usize>>);

/// One of them. Dropping it gives it back.
struct Place(Rc<Cell<usize>>);

impl Places {
    fn take(&self) -> Option<Place> {
        if self.0.get() >= AT_ONCE {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(Place(Rc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Takes questions, orders and answers of one connection.
pub(super) struct Desk {
    stage: Rc<Stage>,
    node: NodeId,
    outbox: Outbox,
    places: Places,
}

impl Desk {
    pub(super) fn new(stage: &Rc<Stage>, node: NodeId, outbox: &Outbox) -> Self {
        Self {
            stage: Rc::clone(stage),
            node,
            outbox: outbox.clone(),
            places: Places::default(),
        }
    }

    /// Takes what is said on connections in either direction. Any other frame comes back.
    pub(super) fn take(&self, frame: Frame) -> Option<Frame> {
        match frame {
            Frame::Ask {
                request,
                within_ms,
                verb,
                target,
            } => self.asked(request, within_ms, verb, target),
            Frame::Order { request, order } => self.ordered(request, order),
            Frame::Told { request, status, body } => {
                let told = Answer::Told(Told { status, body });
                self.stage.handle.asking().answered(self.node, request, told);
            }
            Frame::Ordered { request, tally } => {
                let ordered = Answer::Ordered(tally);
                self.stage.handle.asking().answered(self.node, request, ordered);
            }
            other => return Some(other),
        }
        None
    }

    /// A place to work on what the node asked for.
    fn place(&self) -> Result<Place, Refusal> {
        if self.node.is_edge() {
            self.stage.control.metrics().refused_roles.inc();
            let detail = "a node with an edge's secret may not ask about other nodes: ask one that has the cluster's";
            return Err(Refusal::new(Code::Forbidden, detail));
        }
        self.places.take().ok_or_else(|| {
            self.stage.handle.counts().questions_refused.inc();
            Refusal::new(Code::Overloaded, "the node is asked too much at once; nothing was done")
        })
    }

    fn asked(&self, request: u64, within_ms: u32, verb: Verb, target: String) {
        let place = match self.place() {
            Ok(place) => place,
            Err(refusal) => return say(&self.stage, &self.outbox, &told(request, refusal.into())),
        };
        let (stage, outbox) = (Rc::clone(&self.stage), self.outbox.clone());
        tokio::task::spawn_local(async move {
            let _place = place;
            let patience = Duration::from_millis(within_ms.into());
            let answer = crate::elsewhere::answer(&stage.answers, verb, &target);
            if let Ok(answer) = tokio::time::timeout(patience, answer).await {
                say(&stage, &outbox, &told(request, answer));
            }
        });
    }

    fn ordered(&self, request: u64, order: SubjectOrder) {
        let Ok(place) = self.place() else {
            return say(&self.stage, &self.outbox, &Frame::Ordered { request, tally: None });
        };
        let (stage, outbox) = (Rc::clone(&self.stage), self.outbox.clone());
        tokio::task::spawn_local(async move {
            let _place = place;
            let tally = Some(crate::edge::act(&stage.node, order).await);
            say(&stage, &outbox, &Frame::Ordered { request, tally });
        });
    }
}

fn told(request: u64, Told { status, body }: Told) -> Frame {
    Frame::Told { request, status, body }
}

fn say(stage: &Stage, outbox: &Outbox, frame: &Frame) {
    // If the connection is over, whoever asked does not know, and says so.
    _ = put(outbox, stage.handle.counts(), frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_the_limit_is_worked_on_at_once_and_not_one_more() {
        let places = Places::default();
        let mut taken: Vec<_> = (0..AT_ONCE).map(|_| places.take().expect("a place")).collect();
        assert!(places.take().is_none());
        taken.pop();
        assert!(places.take().is_some());
        drop(taken);
        assert_eq!(places.0.get(), 0);
    }
}
