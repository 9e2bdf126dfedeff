//! Who waits for an answer, and what has to be on disk before it is given.
//!
//! Without a disk answers go out at once. With one, what an owner did is handed to storage in the order in which it was
//! done, repeated publishes too: an answer that says "this had happened already" goes out behind the write of what had
//! happened (rule R5). It does not know files.

use super::{OwnerHandle, PublishFailure, Reply};
use crate::storage::frame::Payload;
use crate::storage::{self, Done, Marks, Order};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc;
use tidings_protocol::peer::Owned;
use tidings_protocol::{ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::keeping::{Floor, KeptAnswer};
use tidings_router::owner::{Owner, Publish, Published};

/// What is written of one batch, before its versions are known.
#[derive(Debug)]
struct Draft {
    objects: Vec<ObjectHash>,
    marks: Vec<Mark>,
    wall_us: u64,
}

/// By what a repetition of one change will be recognised.
#[derive(Debug)]
struct Mark {
    place: usize,
    revision: Option<(u128, u64)>,
    key: Option<u128>,
}

impl Draft {
    fn of(changes: &[Publish], now: Now) -> Self {
        let marks = changes.iter().enumerate().filter_map(|(place, change)| {
            let extra = change.extra.as_ref()?;
            (extra.revision.is_some() || extra.idempotency.is_some()).then_some(Mark {
                place,
                revision: extra.revision,
                key: extra.idempotency,
            })
        });
        Self {
            objects: changes.iter().map(|change| change.object).collect(),
            marks: marks.collect(),
            wall_us: now.wall_us,
        }
    }

    fn payload(&self, results: &[Published]) -> (Payload, Version) {
        let accepted = |published: &Published| match published {
            Published::Accepted(version) => Some(*version),
            Published::Duplicate(_) | Published::NotOwner(_) | Published::Paused(_) => None,
        };
        let mut payload = Payload::default();
        let mut highest = Version::ZERO;
        let changes = self.objects.iter().zip(results);
        payload.changes(changes.filter_map(|(object, published)| {
            let version = accepted(published)?;
            highest = highest.max(version);
            Some((*object, version))
        }));
        let version = |mark: &Mark| results.get(mark.place).and_then(accepted);
        let marks = || self.marks.iter().filter(|mark| version(mark).is_some());
        payload.revisions(marks().filter_map(|mark| mark.revision));
        payload.answers(marks().filter_map(|mark| {
            Some(KeptAnswer {
                key: mark.key?,
                version: version(mark)?,
                wall_us: self.wall_us,
            })
        }));
        (payload, highest)
    }
}

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    durable: bool,
    draft: Option<Draft>,
    results: Vec<Published>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    owner: usize,
    disk: Option<storage::Handle>,
    // What was done in this burst, handed over at its end.
    gathered: Vec<Order>,
    // Who waits for request number `first`, the one after it, and so on.
    waiting: VecDeque<Option<Waiting>>,
    first: u64,
}

impl Journal {
    pub(super) fn new(owner: usize, disk: Option<storage::Handle>) -> Self {
        Self {
            owner,
            disk,
            gathered: Vec::new(),
            waiting: VecDeque::new(),
            first: 0,
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
    pub(super) fn begin(&mut self, now: Now, changes: &[Publish], durable: bool, reply: Reply) -> u64 {
        let request = self.first + self.waiting.len() as u64;
        self.waiting.push_back(Some(Waiting {
            reply,
            durable,
            draft: self.disk.is_some().then(|| Draft::of(changes, now)),
            results: Vec::new(),
        }));
        request
    }

    /// A batch was applied: it is answered, or written first.
    pub(super) fn applied(&mut self, request: u64, results: Vec<Published>) {
        let Some(disk) = &self.disk else {
            return self.answer(request, |_| Ok(results));
        };
        let Some(waiting) = place(self.first, request).and_then(|place| self.waiting.get_mut(place)?.as_mut()) else {
            return;
        };
        let Some(draft) = waiting.draft.take() else { return };
        let (payload, highest) = draft.payload(&results);
        waiting.results = results;
        disk.saw(highest);
        let order = Order {
            owner: self.owner,
            ticket: Some(request),
            payload,
            durable: waiting.durable,
        };
        disk.expect(&order);
        self.gathered.push(order);
    }

    /// Floors rose: nobody waits for that, but what comes later must not be written before it.
    pub(super) fn owned(&mut self, shards: &[Owned]) {
        let Some(disk) = &self.disk else { return };
        let mut payload = Payload::default();
        payload.floors(shards.iter().map(|owned| {
            let floor = Floor {
                version: owned.floor,
                cause: owned.cause,
            };
            (owned.shard, floor)
        }));
        let order = Order {
            owner: self.owner,
            ticket: None,
            payload,
            durable: false,
        };
        disk.expect(&order);
        self.gathered.push(order);
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

    /// Answers those whose orders are done.
    pub(super) fn settle(&mut self, done: &Done) {
        for ticket in &done.tickets {
            self.answer(*ticket, |results| {
                if done.fine {
                    Ok(results)
                } else {
                    Err(PublishFailure::NotStored)
                }
            });
        }
    }

    fn answer(&mut self, request: u64, result: impl FnOnce(Vec<Published>) -> Result<Vec<Published>, PublishFailure>) {
        let waiting = place(self.first, request).and_then(|place| self.waiting.get_mut(place)?.take());
        if let Some(waiting) = waiting {
            // Whoever asked may have gone.
            _ = waiting.reply.send(result(waiting.results));
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

/// A piece of what is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    Versions { shard: ShardId, piece: usize },
    Marks { piece: usize },
}

/// What a [`Piece`] holds.
#[derive(Debug)]
pub(super) enum Kept {
    Versions(Option<(Vec<(ObjectHash, Version)>, Floor)>),
    Marks(Marks),
}

impl Kept {
    pub(super) fn of(machine: &Owner, now: Now, piece: Piece) -> Self {
        match piece {
            Piece::Versions { shard, piece } => {
                let versions = machine.kept_versions(shard, piece);
                Self::Versions(machine.kept_floor(shard).map(|floor| (versions, floor)))
            }
            Piece::Marks { piece } => Self::Marks((machine.kept_revisions(piece), machine.kept_answers(piece, now))),
        }
    }
}

/// The owners of a node as storage asks them, from a thread that may wait.
#[derive(Debug)]
pub struct OwnerSource {
    /// The owners.
    pub owners: Vec<OwnerHandle>,
    /// Shard `s` belongs to owner `s % owners.len()`.
    pub shards: ShardCount,
}

impl OwnerSource {
    fn ask(&self, owner: usize, piece: Piece) -> Option<Kept> {
        let (reply, answer) = mpsc::channel();
        self.owners.get(owner)?.keep(piece, reply);
        answer.recv().ok()
    }
}

impl storage::Source for OwnerSource {
    fn owners(&self) -> usize {
        self.owners.len()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<(Vec<(ObjectHash, Version)>, Floor)> {
        let owner = self.owners.get(usize::from(shard.0) % self.owners.len())?;
        let (reply, answers) = mpsc::channel();
        let count = pieces.len();
        for piece in pieces {
            owner.keep(Piece::Versions { shard, piece }, reply.clone());
        }
        // Without this a process that ends would be waited for.
        drop(reply);
        let (mut all, mut last) = (Vec::new(), None);
        for _ in 0..count {
            let Kept::Versions(Some((versions, floor))) = answers.recv().ok()? else {
                return None;
            };
            all.extend(versions);
            last = Some(floor);
        }
        Some((all, last?))
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        match self.ask(owner, Piece::Marks { piece })? {
            Kept::Marks(marks) => Some(marks),
            Kept::Versions(_) => None,
        }
    }
}
