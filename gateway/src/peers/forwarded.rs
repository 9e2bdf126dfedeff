//! Changes that another node sent to the owners here: dealt out to threads, and their results gathered into one answer.
//!
//! What is not owned here is refused, never handed on: a change takes one hop at most.

use super::Stage;
use super::cut;
use super::ways::put;
use crate::mesh::session::Outbox;
use crate::node::Node;
use crate::owner::{Begun, PublishFailure};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tidings_protocol::mesh::{AckLevel, ForwardedChange, ForwardedResult, Frame};
use tidings_router::owner::{Publish, Published};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much more than this node would send itself another one may have under way here, as its limit may be another: beyond
/// it changes are refused.
const TIMES_OUR_LIMIT: usize = 4;

/// The changes of one request for one owner.
struct Part {
    changes: Vec<Publish>,
    places: Vec<usize>,
    ack: AckLevel,
    deadline: Instant,
    answer: Rc<RefCell<Answer>>,
}

/// What is gathered for one request.
struct Answer {
    request: u64,
    results: Vec<ForwardedResult>,
    /// Parts without results.
    left: usize,
    _under_way: UnderWay,
}

/// Bytes of the frames of one connection that are not answered. Gives back its own share at its end.
struct UnderWay {
    sum: Rc<Cell<usize>>,
    own: usize,
}

impl UnderWay {
    fn new(sum: &Rc<Cell<usize>>, own: usize) -> Self {
        sum.set(sum.get() + own);
        Self {
            sum: Rc::clone(sum),
            own,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.sum.set(self.sum.get() - self.own);
    }
}

/// Where the publishes of one connection go in. Each owner gets its parts in the order in which they came.
pub(super) struct Inlet {
    stage: Rc<Stage>,
    outbox: Outbox,
    parts: Vec<mpsc::UnboundedSender<Part>>,
    under_way: Rc<Cell<usize>>,
    most: usize,
}

impl Inlet {
    pub(super) fn new(stage: &Rc<Stage>, outbox: &Outbox) -> Self {
        let parts = (0..stage.node.owners.len()).map(|thread| {
            // What waits is bounded by bytes, see below.
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::task::spawn_local(deal(Rc::clone(stage), outbox.clone(), thread, receiver));
            sender
        });
        Self {
            stage: Rc::clone(stage),
            outbox: outbox.clone(),
            parts: parts.collect(),
            under_way: Rc::default(),
            most: stage.handle.forward_bytes().saturating_mul(TIMES_OUR_LIMIT),
        }
    }

    /// Takes the changes of a frame of so many bytes.
    pub(super) fn publish(
        &self,
        bytes: usize,
        request: u64,
        (ack, within_ms): (AckLevel, u32),
        changes: Vec<ForwardedChange>,
    ) {
        let node = &self.stage.node;
        self.stage.handle.counts().served.inc_by(changes.len() as u64);
        let refusal = if ack == AckLevel::Durable && node.storage.is_none() {
            Some(ForwardedResult::NoDisk)
        } else if self.parts.is_empty() {
            Some(not_owner(&self.stage))
        } else if self.under_way.get() > self.most {
            Some(ForwardedResult::Overloaded)
        } else {
            None
        };
        let mut answer = Answer {
            request,
            results: vec![refusal.unwrap_or(ForwardedResult::Unknown); changes.len()],
            left: 0,
            _under_way: UnderWay::new(&self.under_way, bytes),
        };
        if refusal.is_some() || changes.is_empty() {
            return say(&self.stage, &self.outbox, &mut answer);
        }
        let mut shares: Vec<(Vec<Publish>, Vec<usize>)> = self.parts.iter().map(|_| Default::default()).collect();
        for (place, change) in changes.into_iter().enumerate() {
            let (share, places) = &mut shares[node.owner_of(change.object)];
            share.push(cut::arrived(change));
            places.push(place);
        }
        let answer = Rc::new(RefCell::new(answer));
        let deadline = Instant::now() + Duration::from_millis(within_ms.into());
        for (thread, (changes, places)) in shares
            .into_iter()
            .enumerate()
            .filter(|(_, (share, _))| !share.is_empty())
        {
            answer.borrow_mut().left += 1;
            let part = Part {
                changes,
                places,
                ack,
                deadline,
                answer: Rc::clone(&answer),
            };
            // The other end lives as long as this one.
            _ = self.parts[thread].send(part);
        }
    }
}

fn not_owner(stage: &Stage) -> ForwardedResult {
    ForwardedResult::NotOwner {
        revision: stage.control.view().map.revision(),
    }
}

/// Hands parts to one owner, in their order.
async fn deal(stage: Rc<Stage>, outbox: Outbox, thread: usize, mut parts: mpsc::UnboundedReceiver<Part>) {
    while let Some(part) = parts.recv().await {
        let Part {
            changes,
            places,
            ack,
            deadline,
            answer,
        } = part;
        let node: &Node = &stage.node;
        match node.owners[thread].begin(changes, ack, deadline).await {
            Ok(begun) => {
                let (stage, outbox) = (Rc::clone(&stage), outbox.clone());
                tokio::task::spawn_local(settle(stage, outbox, begun, deadline, places, answer));
            }
            Err(failure) => fill(&stage, &outbox, &answer, &places, Err(failure)),
        }
    }
}

async fn settle(
    stage: Rc<Stage>,
    outbox: Outbox,
    begun: Begun,
    deadline: Instant,
    places: Vec<usize>,
    answer: Rc<RefCell<Answer>>,
) {
    let results = begun.wait(deadline).await;
    fill(&stage, &outbox, &answer, &places, results);
}

fn fill(
    stage: &Stage,
    outbox: &Outbox,
    answer: &RefCell<Answer>,
    places: &[usize],
    results: Result<Vec<Published>, PublishFailure>,
) {
    let mut answer = answer.borrow_mut();
    match results {
        Ok(results) => {
            for (place, published) in places.iter().zip(results) {
                answer.results[*place] = result(stage, published);
            }
        }
        Err(failure) => {
            let result = failed(failure);
            places.iter().for_each(|place| answer.results[*place] = result);
        }
    }
    answer.left -= 1;
    if answer.left == 0 {
        say(stage, outbox, &mut answer);
    }
}

fn say(stage: &Stage, outbox: &Outbox, answer: &mut Answer) {
    let frame = Frame::Published {
        request: answer.request,
        results: std::mem::take(&mut answer.results),
    };
    // If the connection is over the sender does not know what happened, and says so.
    _ = put(outbox, stage.handle.counts(), &frame);
}

fn result(stage: &Stage, published: Published) -> ForwardedResult {
    match published {
        Published::Accepted(version) => ForwardedResult::Accepted(version),
        Published::Duplicate(version) => ForwardedResult::Duplicate(version),
        Published::NotOwner(_) => not_owner(stage),
        Published::Paused(_) => ForwardedResult::Unavailable,
    }
}

fn failed(failure: PublishFailure) -> ForwardedResult {
    match failure {
        PublishFailure::Overloaded => ForwardedResult::Overloaded,
        PublishFailure::StorageFails => ForwardedResult::NoStorage,
        PublishFailure::NoDisk => ForwardedResult::NoDisk,
        PublishFailure::OutcomeUnknown | PublishFailure::NotStored => ForwardedResult::Unknown,
    }
}
