//! Operators' questions that a node passes on to the node they are about, and their answers.
//!
//! They go over whichever connection of links there is, no matter who dialled it. Who asks was judged where it was asked; what
//! may be asked is what [`crate::elsewhere::answers`] has. A question whose answer does not come is given up by its deadline.

use super::Stage;
use super::counts::Counts;
use super::ways::put;
use crate::mesh::session::Outbox;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::{Frame, MAX_TARGET_BYTES, Verb};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Questions of one connection that are worked on at once. They are asked by people.
const QUESTIONS: usize = 64;

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// As of HTTP.
    pub(crate) status: u16,
    /// JSON, or nothing.
    pub(crate) body: String,
}

type Waiting = HashMap<u64, (NodeId, oneshot::Sender<Told>)>;

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

    pub(super) fn accepted(&self, node: NodeId) -> Option<Outbox> {
        held(&self.accepted).get(&node).map(|(_, outbox)| outbox.clone())
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(
        &self,
        node: NodeId,
        outbox: &Outbox,
        counts: &Counts,
        (verb, target): (Verb, &str),
        deadline: Instant,
    ) -> Option<Told> {
        if target.len() > MAX_TARGET_BYTES {
            return None;
        }
        let request = self.last.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        held(&self.waiting).insert(request, (node, reply));
        let open = Open { asking: self, request };
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = Frame::Ask {
            request,
            within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            verb,
            target: target.to_owned(),
        };
        put(outbox, counts, &frame)?;
        let told = tokio::time::timeout_at(deadline, answer).await.ok()?.ok();
        drop(open);
        told
    }

    /// A node answered. What it was not asked falls to the ground.
    pub(super) fn told(&self, node: NodeId, request: u64, told: Told) {
        let mut waiting = held(&self.waiting);
        if waiting.get(&request).is_some_and(|(asked, _)| *asked == node)
            && let Some((_, reply)) = waiting.remove(&request)
        {
            // Whoever asked may have given up.
            _ = reply.send(told);
        }
    }

    #[cfg(test)]
    pub(super) fn open_questions(&self) -> usize {
        held(&self.waiting).len()
    }
}

/// Answers the questions of one connection.
pub(super) struct Desk {
    stage: Rc<Stage>,
    outbox: Outbox,
    at_work: Rc<Cell<usize>>,
}

impl Desk {
    pub(super) fn new(stage: &Rc<Stage>, outbox: &Outbox) -> Self {
        Self {
            stage: Rc::clone(stage),
            outbox: outbox.clone(),
            at_work: Rc::default(),
        }
    }

    /// Works on a question. Where there are too many, the node that asks hears nothing and says so.
    pub(super) fn answer(&self, request: u64, within_ms: u32, verb: Verb, target: String) {
        if self.at_work.get() >= QUESTIONS {
            return;
        }
        let (stage, outbox, at_work) = (Rc::clone(&self.stage), self.outbox.clone(), Rc::clone(&self.at_work));
        at_work.set(at_work.get() + 1);
        tokio::task::spawn_local(async move {
            let patience = Duration::from_millis(within_ms.into());
            let answer = crate::elsewhere::answer(&stage.answers, verb, &target);
            if let Ok(Told { status, body }) = tokio::time::timeout(patience, answer).await {
                _ = put(&outbox, stage.handle.counts(), &Frame::Told { request, status, body });
            }
            at_work.set(at_work.get() - 1);
        });
    }
}
