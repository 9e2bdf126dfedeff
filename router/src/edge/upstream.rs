//! The links of a lane to the owners: who owns which shard, what was registered there, and what each has closed.

use super::place::Place;
use super::subscribers::SubscriberKey;
use super::{Lane, Output};
use crate::now::Now;
use std::collections::VecDeque;
use tidings_protocol::peer::{Changed, EdgeToOwner, FloorCause, Owned, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};

/// How many objects one frame to an owner names at most, or a few more.
const AT_ONCE: usize = 8192;

/// The most owners that one lane may have links to: all threads of all nodes.
pub const MAX_OWNERS: usize = 1 << 20;

/// One link.
#[derive(Debug, Default)]
struct Link {
    generation: u32,
    up: bool,
    to_register: Vec<ObjectHash>,
    to_unregister: Vec<ObjectHash>,
    /// Numbers of the last `Register` sent and the last one answered.
    asked: u64,
    answered: u64,
    /// Requests that wait for the answer with this number, in order.
    waiting: VecDeque<(u64, SubscriberKey)>,
    handled: u32,
    /// It stands among those with something to send.
    stirred: bool,
}

/// What is known of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    pub(super) owner: Option<usize>,
    pub(super) epoch: Epoch,
    pub(super) floor: Version,
    pub(super) cause: FloorCause,
    /// Every change of the shard up to here has arrived.
    pub(super) closed: Version,
    /// From this answer on the owner speaks of its present epoch to who was registered in it. An earlier one is to a request
    /// from before; what it names is asked for again.
    asked_from: u64,
    /// `closed` counts only after this answer: what was watched before the owner changed is registered again by then.
    counts_after: u64,
}

/// What owners said of their shards, in one go: going through all objects is worth it only once.
#[derive(Debug, Default)]
struct Claims {
    taken: Vec<ShardId>,
    /// Who owned some of them before.
    replaced: Vec<usize>,
    /// Rule R1: below these floors changes may have been lost before this lane heard of them.
    doubts: Vec<(ShardId, Version, FloorCause)>,
}

#[derive(Debug)]
pub(super) struct Upstream {
    count: ShardCount,
    links: Vec<Link>,
    /// Links with something to send. There may be thousands, of which few have.
    stirred: Vec<usize>,
    /// What was gathered for one frame should go out before more is added.
    full: bool,
    shards: Vec<Shard>,
    /// Requests that wait for a shard without an owner.
    pub(super) orphans: Vec<SubscriberKey>,
    pub(super) place: Place,
    /// Pages that wait for an object to reach a version.
    pub(super) at_least_waiters: Vec<SubscriberKey>,
    /// Frames that made no sense and were ignored.
    pub(super) ignored: u64,
}

impl Upstream {
    pub(super) fn new(count: ShardCount, owners: usize) -> Self {
        let unknown = Shard {
            owner: None,
            epoch: Epoch(0),
            floor: Version::ZERO,
            cause: FloorCause::Lost,
            closed: Version::ZERO,
            asked_from: 0,
            counts_after: 0,
        };
        Self {
            count,
            links: (0..owners).map(|_| Link::default()).collect(),
            stirred: Vec::new(),
            full: false,
            shards: vec![unknown; count.get().into()],
            orphans: Vec::new(),
            place: Place::default(),
            at_least_waiters: Vec::new(),
            ignored: 0,
        }
    }

    pub(super) fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[usize::from(shard.0)]
    }

    /// Wants to hear of an object. Says which answer of which link to wait for; `None` while the shard has no owner.
    pub(super) fn register(&mut self, shard: ShardId, object: ObjectHash) -> Option<(usize, u64)> {
        let owner = self.shard(shard).owner?;
        self.ask(owner, object);
        Some((owner, self.links[owner].asked + 1))
    }

    fn ask(&mut self, owner: usize, object: ObjectHash) {
        let to_register = &mut self.links[owner].to_register;
        to_register.push(object);
        self.full |= to_register.len() >= AT_ONCE;
        self.stir(owner);
    }

    fn stir(&mut self, owner: usize) {
        if !std::mem::replace(&mut self.links[owner].stirred, true) {
            self.stirred.push(owner);
        }
    }

    /// The answer to wait for where an object is registered but not answered yet: any later answer will do, since
    /// answers come in order.
    pub(super) fn latest_ask(&self, shard: ShardId) -> Option<(usize, u64)> {
        let owner = self.shard(shard).owner?;
        let link = &self.links[owner];
        Some((owner, link.asked + u64::from(!link.to_register.is_empty())))
    }

    /// Queues a request behind an answer.
    pub(super) fn wait(&mut self, owner: usize, answer: u64, who: SubscriberKey) {
        self.links[owner].waiting.push_back((answer, who));
    }

    pub(super) fn unregister(&mut self, shard: ShardId, object: ObjectHash) {
        if let Some(owner) = self.shard(shard).owner {
            self.links[owner].to_unregister.push(object);
            self.stir(owner);
        }
    }

    /// Sends what was gathered. Unregistrations go first: an object that was given up and taken again ends registered.
    fn flush(&mut self, handled_every: u32, out: &mut Vec<Output>) {
        self.full = false;
        self.stirred.sort_unstable();
        for owner in std::mem::take(&mut self.stirred) {
            let link = &mut self.links[owner];
            link.stirred = false;
            let generation = link.generation;
            let mut send = |frame| {
                out.push(Output::ToOwner {
                    owner,
                    generation,
                    frame,
                })
            };
            let mut left = std::mem::take(&mut link.to_unregister);
            while !left.is_empty() {
                let objects = left.split_off(left.len().saturating_sub(AT_ONCE));
                send(EdgeToOwner::Unregister { objects });
            }
            if !link.to_register.is_empty() {
                link.asked += 1;
                send(EdgeToOwner::Register {
                    objects: std::mem::take(&mut link.to_register),
                });
            }
            if link.handled >= handled_every.max(1) {
                send(EdgeToOwner::Handled {
                    changes: std::mem::take(&mut link.handled),
                });
            }
        }
    }

    /// Whether what was gathered for one frame should go out before more is added.
    pub(super) fn full(&self) -> bool {
        self.full
    }

    /// For each shard whether it is one of these.
    fn set_of(&self, shards: &[ShardId]) -> Vec<bool> {
        let mut set = vec![false; self.shards.len()];
        for shard in shards {
            if let Some(is) = set.get_mut(usize::from(shard.0)) {
                *is = true;
            }
        }
        set
    }

    fn update_place(&mut self) {
        self.place = Place::of(self.shards.iter().map(|s| s.closed));
    }
}

impl Lane {
    /// Sends what was gathered for the owners.
    pub(super) fn flush_upstream(&mut self, out: &mut Vec<Output>) {
        self.upstream.flush(self.config.handled_every, out);
    }

    /// A link to an owner came up (again). What belongs to older generations is ignored from here on. Owners are numbered
    /// densely from zero by whoever names them; one that was never named before is taken in, up to [`MAX_OWNERS`].
    pub fn owner_up(&mut self, now: Now, owner: usize, generation: u32, out: &mut Vec<Output>) {
        if owner >= MAX_OWNERS {
            self.upstream.ignored += 1;
            return;
        }
        if owner >= self.upstream.links.len() {
            self.upstream.links.resize_with(owner + 1, Link::default);
        }
        self.link_broke(now, owner, out);
        let link = &mut self.upstream.links[owner];
        *link = Link {
            generation,
            up: true,
            ..Link::default()
        };
    }

    /// This generation of a link broke. Its shards have no owner until one says `Own`; what they watch is then registered
    /// again.
    pub fn owner_down(&mut self, now: Now, owner: usize, generation: u32, out: &mut Vec<Output>) {
        let known = self
            .upstream
            .links
            .get(owner)
            .is_some_and(|l| l.up && l.generation == generation);
        if known {
            self.link_broke(now, owner, out);
        } else {
            self.upstream.ignored += 1;
        }
    }

    fn link_broke(&mut self, now: Now, owner: usize, out: &mut Vec<Output>) {
        self.upstream.links[owner].up = false;
        let lost: Vec<ShardId> = self
            .upstream
            .count
            .all()
            .filter(|&s| self.upstream.shard(s).owner == Some(owner))
            .collect();
        self.shards_gone(now, owner, &lost, out);
        self.flush_upstream(out);
    }

    /// Frames of an owner, in order.
    pub fn owner_frames(
        &mut self,
        now: Now,
        owner: usize,
        generation: u32,
        frames: Vec<OwnerToEdge>,
        out: &mut Vec<Output>,
    ) {
        let known = self
            .upstream
            .links
            .get(owner)
            .is_some_and(|l| l.up && l.generation == generation);
        if !known {
            self.upstream.ignored += frames.len() as u64;
            return;
        }
        let mut claims = Claims::default();
        for frame in frames {
            if let OwnerToEdge::Own { shards } = frame {
                self.own(owner, &shards, &mut claims);
                continue;
            }
            self.heed(now, owner, &mut claims, out);
            match frame {
                OwnerToEdge::Own { .. } => {}
                OwnerToEdge::Gone { shards } => self.shards_gone(now, owner, &shards, out),
                OwnerToEdge::Registered { objects } => self.registered(now, owner, &objects, out),
                OwnerToEdge::Changed { changes } => self.changed(owner, changes),
                OwnerToEdge::Closed { version } => self.closed(owner, version),
            }
        }
        self.heed(now, owner, &mut claims, out);
        self.check_at_least(now, out);
        self.flush_upstream(out);
    }

    /// An owner says what it owns, or that a floor rose.
    fn own(&mut self, owner: usize, shards: &[Owned], claims: &mut Claims) {
        for owned in shards {
            let Some(shard) = self.upstream.shards.get_mut(usize::from(owned.shard.0)) else {
                self.upstream.ignored += 1;
                continue;
            };
            if owned.epoch < shard.epoch {
                self.upstream.ignored += 1;
                continue;
            }
            let doubt = owned.floor > shard.floor && owned.floor.before() > shard.closed;
            if owned.floor > shard.floor {
                shard.floor = owned.floor;
                shard.cause = owned.cause;
            }
            let new = shard.owner != Some(owner) || shard.epoch != owned.epoch;
            shard.epoch = owned.epoch;
            if new {
                shard.counts_after = u64::MAX;
                let before = shard.owner.replace(owner);
                claims.taken.push(owned.shard);
                if let Some(before) = before.filter(|before| *before != owner) {
                    claims.replaced.push(before);
                }
            }
            if doubt {
                claims.doubts.push((owned.shard, owned.floor, owned.cause));
            }
        }
    }

    /// Acts on what owners said of their shards.
    fn heed(&mut self, now: Now, owner: usize, claims: &mut Claims, out: &mut Vec<Output>) {
        let claims = std::mem::take(claims);
        if !claims.doubts.is_empty() {
            self.doubt(&claims.doubts);
        }
        if !claims.taken.is_empty() {
            self.register_again(owner, &claims.taken, out);
        }
        for before in claims.replaced {
            self.wait_elsewhere(now, before, out);
        }
    }

    /// Rule R1: changes below the new floors may have been lost before this lane heard of them.
    fn doubt(&mut self, doubts: &[(ShardId, Version, FloorCause)]) {
        let mut floors = vec![None; self.upstream.shards.len()];
        for &(shard, floor, cause) in doubts {
            floors[usize::from(shard.0)] = Some((floor, cause));
        }
        for (slot, hash) in self.objects.all() {
            if let Some((floor, cause)) = floors[usize::from(self.upstream.count.shard(hash).0)]
                && self.objects.slot(slot).version() < floor
            {
                self.resync_watchers(slot, cause.as_str());
            }
        }
    }

    /// Everything watched in these shards is asked for again; until the answer, what the owner closes does not count.
    fn register_again(&mut self, owner: usize, shards: &[ShardId], out: &mut Vec<Output>) {
        let asked_from = self.upstream.links[owner].asked + 1;
        let taken = self.upstream.set_of(shards);
        for (slot, hash) in self.objects.all() {
            if taken[usize::from(self.upstream.count.shard(hash).0)] {
                self.objects.slot_mut(slot).set_registered(false);
                self.upstream.ask(owner, hash);
                if self.upstream.full() {
                    self.flush_upstream(out);
                }
            }
        }
        let link = &self.upstream.links[owner];
        let counts_after = link.asked + u64::from(!link.to_register.is_empty());
        for &shard in shards {
            let shard = &mut self.upstream.shards[usize::from(shard.0)];
            (shard.asked_from, shard.counts_after) = (asked_from, counts_after);
        }
        for who in std::mem::take(&mut self.upstream.orphans) {
            if let Some(subscriber) = self.subscribers.get_mut(who) {
                subscriber.orphan = false;
            }
            self.wait_for_answers(who);
        }
    }

    /// Whoever waits for answers of this owner waits for whom it may have to wait for now: an owner that was replaced may never
    /// answer, although its link is up.
    fn wait_elsewhere(&mut self, now: Now, owner: usize, out: &mut Vec<Output>) {
        for (_, who) in std::mem::take(&mut self.upstream.links[owner].waiting) {
            self.answer_arrived(now, who, out);
        }
    }

    fn shards_gone(&mut self, now: Now, owner: usize, shards: &[ShardId], out: &mut Vec<Output>) {
        let mut lost = Vec::with_capacity(shards.len());
        for &shard in shards {
            // A shard that another owner has taken over meanwhile is registered there: this word comes too late.
            if let Some(entry) = self.upstream.shards.get_mut(usize::from(shard.0))
                && entry.owner == Some(owner)
            {
                entry.owner = None;
                lost.push(shard);
            }
        }
        if !lost.is_empty() {
            let lost = self.upstream.set_of(&lost);
            for (slot, hash) in self.objects.all() {
                if lost[usize::from(self.upstream.count.shard(hash).0)] {
                    self.objects.slot_mut(slot).set_registered(false);
                }
            }
        }
        // Whoever waited for this owner waits for the next one.
        self.wait_elsewhere(now, owner, out);
    }

    fn registered(&mut self, now: Now, owner: usize, objects: &[(ObjectHash, Version)], out: &mut Vec<Output>) {
        self.upstream.links[owner].answered += 1;
        let answered = self.upstream.links[owner].answered;
        for &(hash, version) in objects {
            let shard = self.upstream.shard(self.upstream.count.shard(hash));
            if shard.owner != Some(owner) {
                // The shard went away after the answer was asked for; it is asked again of its next owner.
                continue;
            }
            let counts = answered >= shard.asked_from;
            let slots = self.objects.with_hash(hash);
            if slots.is_empty() {
                // Given up while the shard was elsewhere: the question was read only when it had come back.
                self.upstream.links[owner].to_unregister.push(hash);
                self.upstream.stir(owner);
            }
            if !counts {
                // The shard went away after the answer was asked for, and came back; it is asked for again.
                continue;
            }
            slots.for_each(|slot| {
                let entry = self.objects.slot_mut(slot);
                entry.set_registered(true);
                if entry.advance(version) {
                    self.mark_changed(slot, None);
                }
                self.objects
                    .linger_if_unwatched(slot, now.mono_us, self.config.linger_us);
            });
        }
        loop {
            let link = &mut self.upstream.links[owner];
            match link.waiting.front() {
                Some(&(number, who)) if number <= answered => {
                    link.waiting.pop_front();
                    self.answer_arrived(now, who, out);
                }
                _ => break,
            }
        }
    }

    fn changed(&mut self, owner: usize, changes: Vec<Changed>) {
        let link = &mut self.upstream.links[owner];
        link.handled = link.handled.saturating_add(changes.len() as u32);
        if link.handled >= self.config.handled_every {
            self.upstream.stir(owner);
        }
        for Changed { object, version, hint } in changes {
            let slots = self.objects.with_hash(object);
            slots.for_each(|slot| {
                if self.objects.slot_mut(slot).advance(version) {
                    self.mark_changed(slot, hint.clone());
                }
            });
        }
    }

    /// The object has a new version: everyone who watches it has yet to be told.
    fn mark_changed(&mut self, slot: u32, hint: Option<tidings_protocol::hint::SharedHint>) {
        let Self {
            objects,
            subscribers,
            ready,
            counters,
            ..
        } = self;
        let mut awaiting = 0;
        objects.slot(slot).watchers.for_each(|index| {
            let Some(subscriber) = subscribers.at_mut(index) else {
                return;
            };
            if !subscriber.gathers(slot) {
                return;
            }
            awaiting += 1;
            if !subscriber.pending.insert(slot) {
                counters.coalesced += 1;
            }
            if !subscriber.queued && subscriber.sink.takes_writes() {
                subscriber.queued = true;
                ready.push_back(index);
            }
        });
        objects.hints.set(slot, hint, awaiting);
    }

    fn closed(&mut self, owner: usize, version: Version) {
        let answered = self.upstream.links[owner].answered;
        for shard in &mut self.upstream.shards {
            if shard.owner == Some(owner) && answered >= shard.counts_after && version > shard.closed {
                shard.closed = version;
            }
        }
        self.upstream.update_place();
        self.frames.place_moved();
        self.wake_cramped_polls();
    }
}
