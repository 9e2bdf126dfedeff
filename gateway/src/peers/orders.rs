//! What is to be done with a subject's connections on other nodes, and what other nodes want done here.
//!
//! An order goes by whichever connection there is: the one that was dialled to the node, or, to a node without owners, the one
//! that it dialled. So both ends of a connection take orders.

use super::Stage;
use super::ways::{Handle, put};
use crate::mesh::session::Outbox;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, RwLock};
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Frame;
use tidings_protocol::subject::{SubjectOrder, SubjectTally};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Orders of one connection that are under way at once. They are rare.
const AT_ONCE: usize = 100;

/// Why it is not known what another node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTally {
    /// There is no connection to it. **Nothing was done there.**
    Unreached,
    /// It did not answer in time. It may have been done.
    Unknown,
}

/// Who waits for an answer, and the connections that other nodes opened.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: Mutex<(u64, HashMap<u64, oneshot::Sender<SubjectTally>>)>,
    callers: RwLock<HashMap<NodeId, Outbox>>,
}

impl Orders {
    /// A node opened a connection, or its last one ended.
    pub(super) fn caller(&self, node: NodeId, outbox: Option<Outbox>) {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        match outbox {
            Some(outbox) => _ = callers.insert(node, outbox),
            None => _ = callers.remove(&node),
        }
    }

    fn by(&self, node: NodeId) -> Option<Outbox> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        callers.get(&node).cloned()
    }

    fn wait(&self) -> (u64, oneshot::Receiver<SubjectTally>) {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, asked) = &mut *waiting;
        *last += 1;
        asked.insert(*last, reply);
        (*last, answer)
    }

    fn taken(&self, request: u64) -> Option<oneshot::Sender<SubjectTally>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.1.remove(&request)
    }
}

impl Handle {
    /// Has another node do something with a subject's connections; what it did.
    ///
    /// # Errors
    /// If that is not known.
    pub(crate) async fn order(
        &self,
        node: NodeId,
        order: &SubjectOrder,
        deadline: Instant,
    ) -> Result<SubjectTally, NoTally> {
        let orders = self.orders();
        let outbox = self.outbox_to(node).or_else(|| orders.by(node));
        let outbox = outbox.ok_or(NoTally::Unreached)?;
        let (request, answer) = orders.wait();
        let frame = Frame::Order {
            request,
            order: order.clone(),
        };
        if put(&outbox, self.counts(), &frame).is_none() {
            orders.taken(request);
            return Err(NoTally::Unreached);
        }
        let tally = tokio::time::timeout_at(deadline, answer).await;
        orders.taken(request);
        tally.ok().and_then(Result::ok).ok_or(NoTally::Unknown)
    }

    /// A node answered. That nobody waits any more is no fault.
    pub(super) fn ordered(&self, request: u64, tally: SubjectTally) {
        if let Some(reply) = self.orders().taken(request) {
            _ = reply.send(tally);
        }
    }
}

/// The orders of one connection that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Obeying(Rc<Cell<usize>>);

impl Obeying {
    /// Does what another node wants, and says what was done.
    pub(super) fn obey(
        &self,
        stage: &Rc<Stage>,
        outbox: &Outbox,
        request: u64,
        order: SubjectOrder,
    ) -> Result<(), String> {
        if self.0.get() >= AT_ONCE {
            return Err("too many orders at once".to_owned());
        }
        self.0.set(self.0.get() + 1);
        let (under_way, stage, outbox) = (Rc::clone(&self.0), Rc::clone(stage), outbox.clone());
        tokio::task::spawn_local(async move {
            let tally = crate::edge::act(&stage.node, order).await;
            under_way.set(under_way.get() - 1);
            // If the connection is over, whoever asked does not know, and says so.
            _ = put(&outbox, stage.handle.counts(), &Frame::Ordered { request, tally });
        });
        Ok(())
    }
}
