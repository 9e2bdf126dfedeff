//! Who waits for an answer, and what has to be on disk and on copies before it is given.
//!
//! Without either answers go out at once. With a disk, what an owner did is handed to storage in the order in which it was
//! done, repeated publishes too: an answer that says "this had happened already" goes out behind the write of what had
//! happened (rule R5). What is taken as a copy goes the same way. It does not know files, or who has copies.

use super::draft::{Draft, of_copy};
use super::{PublishFailure, Reply};
use crate::storage::frame::{Payload, Tenure};
use crate::storage::{self, Done, Order};
use std::collections::{HashMap, VecDeque};
use tidings_protocol::Version;
use tidings_protocol::copy::Entry;
use tidings_protocol::mesh::AckLevel;
use tidings_protocol::peer::Owned;
use tidings_router::Now;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::Standing;
use tidings_router::owner::keeping::Floor;
use tidings_router::owner::{Publish, Published};

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    ack: AckLevel,
    draft: Option<Draft>,
    results: Vec<Published>,
    /// Its record is not written, or not synced where that was asked for.
    on_disk: bool,
    /// Some copy has not confirmed it.
    on_copies: bool,
    failure: Option<PublishFailure>,
}

/// A batch of a copy's stream that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedBatch {
    pub(super) from: Process,
    pub(super) owner: u16,
    pub(super) life: u32,
    pub(super) place: u64,
    pub(super) sync: bool,
}

/// Tickets of batches of copies; below are numbers of requests.
const COPIES: u64 = 1 << 63;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    owner: usize,
    disk: Option<storage::Handle>,
    /// The node is one of a cluster: copies may have to be told of what is done.
    clustered: bool,
    // What was done in this burst, handed over at its end.
    gathered: Vec<Order>,
    // Who waits for request number `first`, the one after it, and so on.
    waiting: VecDeque<Option<Waiting>>,
    first: u64,
    // Batches of copies that are being written.
    copies: HashMap<u64, CopiedBatch>,
    next_copy: u64,
}

/// What became of a batch of a copy's stream.
pub(super) type Settled = (CopiedBatch, bool);

impl Journal {
    pub(super) fn new(owner: usize, disk: Option<storage::Handle>, clustered: bool) -> Self {
        Self {
            owner,
            disk,
            clustered,
            gathered: Vec::new(),
            waiting: VecDeque::new(),
            first: 0,
            copies: HashMap::new(),
            next_copy: COPIES,
        }
    }

    /// Whether changes are to be refused before they are applied.
    pub(super) fn is_failing(&self) -> bool {
        self.disk.as_ref().is_some_and(storage::Handle::is_failing)
    }

    /// Whether the disk is so far behind that no more changes should be taken now.
    pub(super) fn is_congested(&self) -> bool {
        self.disk.as_ref().is_some_and(storage::Handle::is_congested)
    }

    /// No version above it may be given now.
    pub(super) fn ceiling(&self) -> Option<Version> {
        self.disk.as_ref().map(storage::Handle::ceiling)
    }

    /// A batch is about to be applied; gives the number of its request.
    pub(super) fn begin(&mut self, now: Now, changes: &[Publish], ack: AckLevel, reply: Reply) -> u64 {
        let request = self.first + self.waiting.len() as u64;
        let drafted = self.clustered || self.disk.is_some();
        self.waiting.push_back(Some(Waiting {
            reply,
            ack,
            draft: drafted.then(|| Draft::of(changes, now)),
            results: Vec::new(),
            on_disk: false,
            on_copies: false,
            failure: None,
        }));
        request
    }

    fn waits(&mut self, request: u64) -> Option<&mut Waiting> {
        place(self.first, request).and_then(|place| self.waiting.get_mut(place)?.as_mut())
    }

    /// A batch was applied. It is handed to the disk; gives what copies have to be told of it, and at which level it is to be
    /// acknowledged. [`Journal::answer_if_done`] has to follow.
    pub(super) fn applied(&mut self, request: u64, results: Vec<Published>) -> Option<(Draft, AckLevel)> {
        let owner = self.owner;
        let (has_disk, clustered) = (self.disk.is_some(), self.clustered);
        let waiting = self.waits(request)?;
        waiting.results = results;
        let draft = waiting.draft.take()?;
        let ack = waiting.ack;
        if has_disk {
            waiting.on_disk = true;
            let (payload, highest) = draft.payload(&waiting.results, clustered);
            let order = Order {
                owner,
                ticket: Some(request),
                payload,
                durable: ack == AckLevel::Durable,
            };
            self.order(order, highest);
        }
        Some((draft, ack))
    }

    /// What became of a request's changes so far.
    pub(super) fn results(&mut self, request: u64) -> &[Published] {
        self.waits(request).map_or(&[], |waiting| &waiting.results)
    }

    /// The request is answered when copies have it, too.
    pub(super) fn wait_for_copies(&mut self, request: u64) {
        if let Some(waiting) = self.waits(request) {
            waiting.on_copies = true;
        }
    }

    /// Every copy that the request waits for has it.
    pub(super) fn copied(&mut self, request: u64) {
        if let Some(waiting) = self.waits(request) {
            waiting.on_copies = false;
        }
        self.answer_if_done(request);
    }

    /// The shard went elsewhere while the request waited for its copies: whether they have it is not known here.
    pub(super) fn lost(&mut self, request: u64) {
        if let Some(waiting) = self.waits(request) {
            waiting.failure = Some(PublishFailure::OutcomeUnknown);
            waiting.on_copies = false;
        }
        self.answer_if_done(request);
    }

    fn order(&mut self, order: Order, highest: Version) {
        let Some(disk) = &self.disk else { return };
        disk.saw(highest);
        disk.expect(&order);
        self.gathered.push(order);
    }

    fn note(&mut self, payload: Payload, highest: Version) {
        let order = Order {
            owner: self.owner,
            ticket: None,
            payload,
            durable: false,
        };
        self.order(order, highest);
    }

    /// Floors rose: nobody waits for that, but what comes later must not be written before it.
    pub(super) fn owned(&mut self, shards: &[Owned]) {
        let mut payload = Payload::default();
        payload.floors(shards.iter().map(|owned| {
            let floor = Floor {
                version: owned.floor,
                cause: owned.cause,
            };
            (owned.shard, floor)
        }));
        self.note(payload, Version::ZERO);
    }

    /// A shard was taken or let go: nothing that is done with it later is written before that.
    pub(super) fn tenure(&mut self, tenure: Tenure) {
        let mut payload = Payload::default();
        payload.tenures([tenure].into_iter());
        // What comes next is above where the epoch begins.
        self.note(payload, tenure.begins);
    }

    /// A batch of a copy's stream was taken. `Some` if it counts as written already, because there is no disk: never as synced.
    pub(super) fn copy(
        &mut self,
        batch: CopiedBatch,
        entries: &[Entry],
        standings: &[Standing],
    ) -> Option<CopiedBatch> {
        if self.disk.is_none() {
            return Some(CopiedBatch { sync: false, ..batch });
        }
        let (payload, highest) = of_copy(entries, standings);
        let ticket = self.next_copy;
        self.next_copy += 1;
        self.copies.insert(ticket, batch);
        let order = Order {
            owner: self.owner,
            ticket: Some(ticket),
            payload,
            durable: batch.sync,
        };
        self.order(order, highest);
        None
    }

    /// Hands over what was gathered.
    pub(super) fn flush(&mut self) {
        if let (Some(disk), false) = (&self.disk, self.gathered.is_empty()) {
            disk.give(std::mem::take(&mut self.gathered));
        }
    }

    /// What became of orders; pending for ever without a disk.
    pub(super) async fn done(&mut self) -> Done {
        let done = match &mut self.disk {
            Some(disk) => disk.done.recv().await,
            None => None,
        };
        match done {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// The same for what has come already.
    pub(super) fn try_done(&mut self) -> Option<Done> {
        self.disk.as_mut()?.done.try_recv().ok()
    }

    /// Answers those whose orders are done; gives the batches of copies among them, and whether they are written.
    pub(super) fn settle(&mut self, done: &Done) -> Vec<Settled> {
        let mut copies = Vec::new();
        for ticket in &done.tickets {
            if *ticket >= COPIES {
                copies.extend(self.copies.remove(ticket).map(|batch| (batch, done.fine)));
                continue;
            }
            if let Some(waiting) = self.waits(*ticket) {
                waiting.on_disk = false;
                if !done.fine {
                    waiting.failure = Some(PublishFailure::NotStored);
                }
            }
            self.answer_if_done(*ticket);
        }
        copies
    }

    /// Answers a request for which nothing has to be waited any more.
    pub(super) fn answer_if_done(&mut self, request: u64) {
        // A change that the disk refused is not answered better by copies.
        let done = self.waits(request).is_some_and(|waiting| {
            !waiting.on_disk && (!waiting.on_copies || waiting.failure == Some(PublishFailure::NotStored))
        });
        if !done {
            return;
        }
        let waiting = place(self.first, request).and_then(|place| self.waiting.get_mut(place)?.take());
        if let Some(waiting) = waiting {
            // Whoever asked may have gone.
            _ = waiting.reply.send(match waiting.failure {
                Some(failure) => Err(failure),
                None => Ok(waiting.results),
            });
        }
        while matches!(self.waiting.front(), Some(None)) {
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

fn place(first: u64, request: u64) -> Option<usize> {
    usize::try_from(request.checked_sub(first)?).ok()
}
