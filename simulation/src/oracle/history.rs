//! Everything that happened so far, in the order in which questions about it are asked.

use super::facts::Fact;
use crate::plan::Mode;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Cursor, Epoch, ObjectHash, ShardId, Version};

/// A publish.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// Of this object.
    pub object: usize,
    /// When it was called first. The source of truth was written before.
    pub called: u64,
    /// Its key.
    pub key: Option<u128>,
    /// Its revision.
    pub revision: Option<u64>,
}

/// One version of one object.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// By this publish.
    pub publish: usize,
    /// In this epoch.
    pub epoch: Epoch,
    /// When.
    pub at: u64,
    /// When somebody was told that it is acknowledged first.
    pub acked: Option<u64>,
}

/// One object.
#[derive(Debug)]
pub struct ObjectHistory {
    /// Its ID.
    pub name: String,
    /// Its hash.
    pub hash: ObjectHash,
    /// Its shard.
    pub shard: ShardId,
    /// What happened to it.
    pub applied: BTreeMap<Version, Applied>,
    /// The highest version acknowledged.
    pub newest_acked: Option<Version>,
    pub(super) revision: u64,
}

/// What a client holds of an object: it is owed every change that is called later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Since then.
    pub since: u64,
    /// It fetched this version or a newer one.
    pub version: Version,
    /// The most that a cursor claimed it was told.
    pub claimed: Version,
    /// A cut answer left older versions untold because this one is yet to be told.
    pub superseded_by: Option<Version>,
}

/// What a client knows.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// By object.
    pub held: BTreeMap<usize, Held>,
    /// The newest version it was told.
    pub told: BTreeMap<usize, Version>,
    /// The newest version it was told on this connection.
    pub told_here: BTreeMap<usize, Version>,
    /// When it was told to fetch it last.
    pub resynced: BTreeMap<usize, u64>,
    /// Its cursor.
    pub cursor: Option<Cursor>,
    /// It listens by polls.
    pub polls: bool,
    /// Its cursor when it connected last.
    pub came_with: Option<Cursor>,
}

/// What was lost of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// When it was announced first.
    pub at: u64,
    /// Below this nobody can vouch.
    pub floor: Version,
    /// Why.
    pub cause: FloorCause,
}

/// Everything that happened so far.
#[derive(Debug)]
pub struct History {
    /// Every publish.
    pub publishes: Vec<Publication>,
    /// Every object.
    pub objects: Vec<ObjectHistory>,
    pub(super) names: BTreeMap<String, usize>,
    /// Every honest client.
    pub clients: Vec<Knowledge>,
    /// By shard: floors above the first one.
    pub losses: Vec<Vec<Loss>>,
    pub(super) first_floor: Vec<Option<Version>>,
    /// What is being shown.
    pub mode: Mode,
    /// Some clock was far off at some time.
    pub clocks_lied: bool,
}

impl History {
    /// The object's newest loss whose floor is above a version.
    #[must_use]
    pub fn lost_above(&self, object: usize, version: Version) -> Option<&Loss> {
        let shard = self.objects[object].shard;
        self.losses[usize::from(shard.0)]
            .iter()
            .rev()
            .find(|loss| loss.floor > version)
    }

    /// A change that a client holds, up to a version, and that nobody told it of.
    #[must_use]
    pub fn missing(&self, client: usize, object: usize, up_to: Version) -> Option<Version> {
        let knowledge = &self.clients[client];
        let held = knowledge.held.get(&object)?;
        let known = knowledge
            .told
            .get(&object)
            .copied()
            .unwrap_or_default()
            .max(held.version);
        if known >= up_to {
            return None;
        }
        let resynced = knowledge.resynced.get(&object).copied();
        let newer = self.objects[object].applied.range(known.next()..=up_to);
        newer.rev().find_map(|(version, applied)| {
            let called = self.publishes[applied.publish].called;
            let owed = applied.acked.is_some() && called > held.since;
            (owed && resynced.is_none_or(|at| at < called)).then_some(*version)
        })
    }

    /// What a cursor claims that its holder was told of an object.
    #[must_use]
    pub fn claim(&self, cursor: &Cursor, object: usize) -> Version {
        let object = &self.objects[object];
        cursor
            .at(object.shard)
            .max(cursor.told(object.hash).unwrap_or_default())
    }

    pub(super) fn take(&mut self, now: u64, fact: &Fact<'_>) {
        match fact {
            Fact::Applied(publish, _, epoch, version, _) => {
                let object = self.publishes[*publish].object;
                let applied = Applied {
                    publish: *publish,
                    epoch: *epoch,
                    at: now,
                    acked: None,
                };
                self.objects[object].applied.insert(*version, applied);
            }
            Fact::Acked(ack) => {
                let object = &mut self.objects[ack.object];
                if let Some(applied) = object.applied.get_mut(&ack.version) {
                    applied.acked.get_or_insert(now);
                    object.newest_acked = object.newest_acked.max(Some(ack.version));
                }
            }
            Fact::Floor(shard, epoch, floor, cause) => self.floor(now, *shard, *epoch, *floor, *cause),
            Fact::Connected(client, polls) => {
                let knowledge = &mut self.clients[*client];
                knowledge.told_here.clear();
                knowledge.polls = *polls;
                knowledge.came_with = knowledge.cursor.clone();
            }
            Fact::Told(told) => {
                let knowledge = &mut self.clients[told.client];
                for map in [&mut knowledge.told, &mut knowledge.told_here] {
                    let known = map.entry(told.object).or_default();
                    *known = told.version.max(*known);
                }
            }
            Fact::Resynced(client, object, ..) => _ = self.clients[*client].resynced.insert(*object, now),
            Fact::Cursor(client, cursor, cut, live) => self.keep(*client, cursor, *cut, live),
            Fact::Called(_)
            | Fact::CallEnded(_)
            | Fact::Unserved(..)
            | Fact::Closed(..)
            | Fact::Assigned(..)
            | Fact::Elected
            | Fact::KeysMoved(..)
            | Fact::Subscribed(_)
            | Fact::Settled => {}
        }
    }

    fn floor(&mut self, now: u64, shard: ShardId, epoch: Epoch, floor: Version, cause: FloorCause) {
        let index = usize::from(shard.0);
        if epoch == Epoch(1) && self.first_floor[index].is_none() {
            // Nothing was ever given before.
            self.first_floor[index] = Some(floor);
            return;
        }
        let known = self.losses[index]
            .last()
            .map(|loss| loss.floor)
            .or(self.first_floor[index]);
        if known.is_none_or(|known| floor > known) {
            self.losses[index].push(Loss { at: now, floor, cause });
        }
    }

    fn keep(&mut self, client: usize, cursor: &Cursor, cut: bool, live: &BTreeSet<usize>) {
        for object in live {
            let claim = self.claim(cursor, *object);
            let newest = self.objects[*object]
                .applied
                .last_key_value()
                .map(|(version, _)| *version);
            if let Some(held) = self.clients[client].held.get_mut(object) {
                held.claimed = held.claimed.max(claim);
                if cut {
                    held.superseded_by = newest.filter(|newest| *newest > claim);
                }
            }
        }
        self.clients[client].cursor = Some(cursor.clone());
    }
}
