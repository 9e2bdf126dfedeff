//! The outside truth: every publish and what its caller was told, every word that reached a client, and what cannot be
//! seen from outside but must hold: which version was given when, by whom, under which ceiling.
//!
//! It hears facts, shows each to the invariants, and then adds it to its history. It takes no part in anything.

mod facts;
mod history;

pub use facts::{Acked, Fact, Subscribed, Told};
pub use history::{Applied, Held, History, Knowledge, Loss, ObjectHistory, Publication};

use crate::invariants::{self, Invariant};
use crate::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Cursor, Epoch, HashKey, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::control::map::Shard;

/// How a change compares with what its client was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Newer.
    New,
    /// The same version.
    Again,
    /// Older than what it heard on another connection.
    Older,
}

/// What an invariant objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When, in microseconds of true time.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    /// What happened so far.
    pub history: History,
    invariants: Vec<Box<dyn Invariant>>,
    verdict: Option<Violation>,
}

impl Oracle {
    /// An oracle that knows which objects there are.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let (key, shards): (HashKey, ShardCount) = (plan.lane.key, plan.shards);
        let object = |number: usize| {
            let name = format!("object-{number}");
            let hash = key.object(&name);
            ObjectHistory {
                shard: shards.shard(hash),
                name,
                hash,
                applied: BTreeMap::new(),
                newest_acked: None,
                revision: 0,
            }
        };
        // Rogues ask for a few objects that never change.
        let objects: Vec<ObjectHistory> = (0..plan.objects + 5).map(object).collect();
        Self {
            history: History {
                publishes: Vec::new(),
                names: objects
                    .iter()
                    .enumerate()
                    .map(|(number, object)| (object.name.clone(), number))
                    .collect(),
                objects,
                clients: (0..plan.clients + plan.rogues).map(|_| Knowledge::default()).collect(),
                losses: vec![Vec::new(); shards.get().into()],
                first_floor: vec![None; shards.get().into()],
                mode: plan.mode,
                clocks_lied: false,
            },
            invariants: invariants::all(plan),
            verdict: None,
        }
    }

    /// What was objected to first.
    #[must_use]
    pub fn verdict(&self) -> Option<&Violation> {
        self.verdict.as_ref()
    }

    /// Something is wrong that no invariant is needed to see.
    pub fn object_to(&mut self, invariant: &'static str, what: String) {
        self.verdict.get_or_insert(Violation { invariant, at: 0, what });
    }

    fn hear(&mut self, now: u64, fact: &Fact<'_>) {
        for invariant in &mut self.invariants {
            if let Some(what) = invariant.see(&self.history, now, fact) {
                let invariant = invariant.name();
                self.verdict.get_or_insert(Violation {
                    invariant,
                    at: now,
                    what,
                });
            }
        }
        self.history.take(now, fact);
    }

    /// Lets the invariants look at the world as it is.
    pub fn look(&mut self, world: &crate::world::World) {
        for invariant in &mut self.invariants {
            if let Some(what) = invariant.look(&self.history, world) {
                let (invariant, at) = (invariant.name(), world.now);
                self.verdict.get_or_insert(Violation { invariant, at, what });
            }
        }
    }

    /// All is quiet: everybody must know everything.
    pub fn settled(&mut self, now: u64) {
        self.hear(now, &Fact::Settled);
    }

    /// The ID of an object.
    #[must_use]
    pub fn object_name(&self, object: usize) -> &str {
        self.history
            .objects
            .get(object)
            .map_or("", |object| object.name.as_str())
    }

    /// The object of an ID.
    #[must_use]
    pub fn object_named(&self, name: &str) -> Option<usize> {
        self.history.names.get(name).copied()
    }

    /// The hash of an object.
    #[must_use]
    pub fn object_hash(&self, object: usize) -> ObjectHash {
        self.history.objects[object].hash
    }

    /// The next revision of an object's source, or its last one again.
    pub fn next_revision(&mut self, object: usize, stale: bool) -> u64 {
        let revision = &mut self.history.objects[object].revision;
        *revision += u64::from(!stale || *revision == 0);
        *revision
    }

    /// The newest version that a publisher was told of.
    #[must_use]
    pub fn newest_acked(&self, object: usize) -> Option<Version> {
        self.history.objects[object].newest_acked
    }

    /// What a client was told of an object that it holds.
    #[must_use]
    pub fn known(&self, client: usize, object: usize) -> Option<Version> {
        let knowledge = &self.history.clients[client];
        knowledge.held.get(&object)?;
        knowledge.told.get(&object).copied()
    }

    /// Whether a publish has a key.
    #[must_use]
    pub fn has_key(&self, publish: usize) -> bool {
        self.history.publishes[publish].key.is_some()
    }

    /// A publish is called; gives its number.
    pub fn called(&mut self, now: u64, object: usize, key: Option<u128>, revision: Option<u64>) -> usize {
        let publish = self.history.publishes.len();
        self.history.publishes.push(Publication {
            object,
            called: now,
            key,
            revision,
        });
        self.hear(now, &Fact::Called(publish));
        publish
    }

    /// An owner gave a version.
    pub fn applied(
        &mut self,
        now: u64,
        publish: usize,
        shard: ShardId,
        epoch: Epoch,
        version: Version,
        ceiling: Version,
    ) {
        self.hear(now, &Fact::Applied(publish, shard, epoch, version, ceiling));
    }

    /// A publisher was told of a version. When its call began.
    pub fn acked(&mut self, now: u64, publish: usize, version: Version, called: u64, duplicate: bool) {
        let Publication { object, .. } = self.history.publishes[publish];
        let history = &self.history.objects[object];
        let Some(applied) = history.applied.get(&version).copied() else {
            // Of a duplicate whose version was dropped nothing is known but that.
            if version != Version::ZERO || !duplicate {
                self.object_to(
                    "I5",
                    format!("p{publish} is acknowledged with {version}, which nobody gave"),
                );
            }
            return;
        };
        let ack = Acked {
            publish,
            given_to: applied.publish,
            object,
            shard: history.shard,
            version,
            epoch: applied.epoch,
            first_called: self.history.publishes[applied.publish].called,
            called,
            duplicate,
        };
        self.hear(now, &Fact::Acked(ack));
    }

    /// A call ended somehow.
    pub fn call_ended(&mut self, now: u64, called: u64) {
        self.hear(now, &Fact::CallEnded(called));
    }

    /// A publish was refused, or nobody could say what became of it.
    pub fn unserved(&mut self, now: u64, publish: usize, called: u64) {
        self.hear(now, &Fact::Unserved(publish, called));
    }

    /// An owner closed a version.
    pub fn closed(&mut self, now: u64, owner: usize, shards: &[(ShardId, Epoch)], version: Version, ceiling: Version) {
        self.hear(now, &Fact::Closed(owner, shards, version, ceiling));
    }

    /// An owner announced a floor.
    pub fn floor(&mut self, now: u64, shard: ShardId, epoch: Epoch, floor: Version, cause: FloorCause) {
        self.hear(now, &Fact::Floor(shard, epoch, floor, cause));
    }

    /// A shard was given to an owner.
    pub fn assigned(&mut self, now: u64, shard: ShardId, known: &Shard) {
        self.hear(now, &Fact::Assigned(shard, known));
    }

    /// An owner remembers so many keys more, of other processes.
    pub fn keys_moved(&mut self, thread: usize, keys: usize) {
        self.hear(0, &Fact::KeysMoved(thread, keys));
    }

    /// Another leader.
    pub fn elected(&mut self, now: u64) {
        self.hear(now, &Fact::Elected);
    }

    /// A client connects.
    pub fn connected(&mut self, now: u64, client: usize, polls: bool) {
        self.hear(now, &Fact::Connected(client, polls));
    }

    /// A client comes without a cursor: it knows nothing.
    pub fn starts_anew(&mut self, client: usize) {
        self.history.clients[client].held.clear();
    }

    /// A client no longer wants an object.
    pub fn unasked(&mut self, _now: u64, client: usize, object: usize) {
        let knowledge = &mut self.history.clients[client];
        knowledge.held.remove(&object);
        knowledge.told_here.remove(&object);
    }

    /// From then on a client is owed every change of an object, unless it was before.
    pub fn holds(&mut self, _now: u64, client: usize, object: usize, since: u64) {
        let held = self.history.clients[client].held.entry(object);
        held.or_insert(Held {
            since,
            ..Held::default()
        });
    }

    /// A client is answered `subscribed`.
    #[expect(clippy::too_many_arguments, reason = "an entry of the answer, field by field")]
    pub fn subscribed(
        &mut self,
        now: u64,
        client: usize,
        object: usize,
        version: Version,
        asked_at: u64,
        at_least: Option<u64>,
        with_cursor: bool,
    ) {
        self.hear(
            now,
            &Fact::Subscribed(&Subscribed {
                client,
                object,
                version,
                asked_at,
                at_least,
            }),
        );
        if let Some(told) = self.history.clients[client].told_here.get_mut(&object) {
            // A new subscription is compared with the cursor anew: the same version may come again, an older one not.
            *told = told.before();
        }
        let shard = usize::from(self.history.objects[object].shard.0);
        // What was lost between question and answer was lost before the client fetched for the first time.
        let lost = self.history.losses[shard]
            .last()
            .is_some_and(|loss| loss.at >= asked_at);
        let held = Held {
            since: if lost { now } else { asked_at },
            version: if with_cursor { Version::ZERO } else { version },
            ..Held::default()
        };
        self.history.clients[client].held.entry(object).or_insert(held);
    }

    /// A client is told of a change.
    #[expect(clippy::too_many_arguments, reason = "one change as it was heard, field by field")]
    pub fn told(
        &mut self,
        now: u64,
        client: usize,
        object: usize,
        version: Version,
        data: Option<u64>,
        asked: bool,
        polled: bool,
    ) -> Seen {
        let known = self.history.clients[client]
            .told
            .get(&object)
            .copied()
            .unwrap_or_default();
        let told = Told {
            client,
            object,
            version,
            data,
            asked,
            polled,
        };
        self.hear(now, &Fact::Told(told));
        match version.cmp(&known) {
            std::cmp::Ordering::Greater => Seen::New,
            std::cmp::Ordering::Equal => Seen::Again,
            std::cmp::Ordering::Less => Seen::Older,
        }
    }

    /// A client is told to fetch an object.
    pub fn resynced(&mut self, now: u64, client: usize, object: usize, cause: &str, asked: bool) {
        self.hear(now, &Fact::Resynced(client, object, cause, asked));
    }

    /// A client is handed a cursor.
    pub fn cursor(&mut self, now: u64, client: usize, cursor: &Cursor, cut: bool, live: &BTreeSet<usize>) {
        self.hear(now, &Fact::Cursor(client, cursor, cut, live));
    }
}
