//! The edge: who is told. A [`Lane`] is one core's share of a node's subscribers.
//!
//! A lane keeps, for every object that somebody here watches, its newest version and the set of its subscribers; for
//! every subscriber, what it watches and what it has yet to be told. A change marks the object pending for its
//! subscribers; whoever has a free sink is written to. Nothing queues changes: a subscriber that does not read gathers
//! marks, at most one per object, and is told the newest version when it reads again (after Thialfi, SOSP 2011).
//!
//! Lanes share nothing: each registers its own interest with the owners, over links of its own.
//!
//! It does not know sockets, tasks or clocks. What comes in: calls of the `connect`, `subscribe`, `poll` and
//! `owner_*` families. What goes out: [`Output`]s, and writes, which are *pulled* with [`Lane::next_write`] so that a
//! change of an object with a million subscribers does not become a million queued outputs.

mod catch_up;
mod compose;
mod delays;
mod inspect;
mod name;
mod objects;
mod place;
mod requests;
mod schedule;
mod sessions;
mod silence;
mod subscribers;
mod upstream;
mod withdraw;

pub use delays::Delays;
pub use inspect::{ConnectionView, Explanation, LaneStats, Refusals, SubscriptionPage, SubscriptionView, Tally};
pub use place::{CursorVerdict, Place};
pub use requests::{Page, RequestError};
pub use sessions::PollPage;
pub use subscribers::{Leave, SinkKind, SubscriberKey};
pub use upstream::MAX_OWNERS;

use crate::now::{MonoUs, Now};
use bytes::Bytes;
use compose::FrameCache;
use objects::Objects;
use schedule::Wheel;
use std::collections::VecDeque;
use subscribers::{Sink, Subscribers};
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::PollAnswer;
use tidings_protocol::peer::EdgeToOwner;
use tidings_protocol::{ClusterId, HashKey, ShardCount, Version};
use upstream::Upstream;

/// The bounds of one lane. Times are microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that this lane's cursors belong to.
    pub cluster: ClusterId,
    /// The cluster's key for hashing object IDs.
    pub key: HashKey,
    /// How many shards the cluster has.
    pub shards: ShardCount,
    /// How many owners (links) there are.
    pub owners: usize,
    /// After how many handled changes an owner is told so. Must be below its window, or the link would stop.
    pub handled_every: u32,
    /// Objects one subscriber may watch.
    pub objects_per_subscriber: usize,
    /// Subscriptions of all subscribers of the lane. Beyond it idle sessions go first, then more are refused.
    pub subscriptions: usize,
    /// About how many bytes one write to one subscriber may have. A single change may be larger.
    pub batch_bytes: usize,
    /// `kind` and `data` kept for subscribers that are yet to be told. Beyond it, changes are told without them.
    pub hint_bytes: usize,
    /// How soon after a change its cursor follows.
    pub cursor_us: u64,
    /// A WebSocket hears something at least this often.
    pub ping_us: u64,
    /// An event stream hears something at least this often.
    pub comment_us: u64,
    /// How long a pong may take.
    pub pong_us: u64,
    /// A sink that took nothing for this long is closed.
    pub stuck_us: u64,
    /// How long an object stays registered after its last subscriber left.
    pub linger_us: u64,
    /// Objects that may linger; beyond it the oldest go at once.
    pub lingering_objects: usize,
    /// How long a session without poll or stream is kept.
    pub session_us: u64,
    /// Sessions without poll or stream that are kept; beyond it the one unused for longest goes.
    pub idle_sessions: usize,
    /// How long `at_least` may wait on a WebSocket.
    pub at_least_us: u64,
}

/// What the shell has to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this frame on the link.
    ToOwner {
        /// Which owner.
        owner: usize,
        /// The link's generation.
        generation: u32,
        /// The frame.
        frame: EdgeToOwner,
    },
    /// The subscriber's next request may be handed in (see [`Lane::may_request`]).
    MayRequest {
        /// Who.
        who: SubscriberKey,
    },
    /// The poll is answered.
    Answer {
        /// Which session.
        who: SubscriberKey,
        /// With what.
        answer: Box<PollAnswer>,
    },
    /// The poll ended without an answer of its own: a newer poll of its session took its place.
    Superseded {
        /// Which session.
        who: SubscriberKey,
    },
    /// Cut this subscriber's sink without another word; it is forgotten here.
    Cut {
        /// Who.
        who: SubscriberKey,
        /// Why.
        code: CloseCode,
    },
}

/// One write to one subscriber's sink. It counts as taken; a sink that cannot take all of it keeps the rest and says
/// [`Lane::blocked`].
#[derive(Debug)]
pub struct Write {
    /// To whom.
    pub who: SubscriberKey,
    /// Whole frames, possibly shared with other subscribers.
    pub bytes: Bytes,
    /// Close the sink after this; the subscriber is forgotten here.
    pub last: bool,
}

/// One core's share of a node's subscribers. See the module.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    objects: Objects,
    subscribers: Subscribers,
    upstream: Upstream,
    /// Subscribers with something to be told and a free sink, each at most once.
    ready: VecDeque<u32>,
    wheel: Wheel,
    frames: FrameCache,
    idle: sessions::IdleSessions,
    /// Polls whose news fit no cursor before more is closed.
    cramped: Vec<SubscriberKey>,
    /// No version of the cluster is above.
    ceiling: Version,
    silence: silence::Silence,
    counters: inspect::Counters,
}

impl Lane {
    /// A lane without subscribers whose links to the owners are down.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            objects: Objects::new(config.key, config.hint_bytes),
            subscribers: Subscribers::default(),
            upstream: Upstream::new(config.shards, config.owners),
            ready: VecDeque::new(),
            wheel: Wheel::default(),
            frames: FrameCache::default(),
            idle: sessions::IdleSessions::default(),
            cramped: Vec::new(),
            ceiling: Version::ZERO,
            silence: silence::Silence::default(),
            counters: inspect::Counters::default(),
            config,
        }
    }

    /// A new subscriber with a sink of its own: a WebSocket or an event stream.
    ///
    /// It is told nothing before it subscribes. `trace` adds shard and epoch to each change.
    pub fn connect(&mut self, now: Now, kind: SinkKind, trace: bool) -> SubscriberKey {
        let who = self.subscribers.add(now.mono_us, Sink::free(kind), trace);
        self.schedule_heartbeat(now, who);
        who
    }

    /// Forgets a subscriber: its socket is gone. What it knew is in its cursor. A session stays for a while.
    pub fn disconnect(&mut self, now: Now, who: SubscriberKey) {
        match self.subscribers.get(who) {
            Some(subscriber) if subscriber.session => self.detach(now, who),
            Some(_) => self.forget(now, who.index),
            None => {}
        }
    }

    fn forget(&mut self, now: Now, index: u32) {
        let Some(subscriber) = self.subscribers.remove(index) else {
            return;
        };
        if matches!(subscriber.sink, Sink::Idle) {
            self.idle.count = self.idle.count.saturating_sub(1);
        }
        subscriber.pending.for_each(|slot| self.objects.hints.told(slot));
        let config = &self.config;
        let objects = &mut self.objects;
        subscriber
            .slots
            .for_each(|slot| objects.unwatch(slot, index, now.mono_us, config.linger_us));
    }

    /// The sink could not take all of the last write.
    pub fn blocked(&mut self, now: Now, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if !subscriber.sink.busy() {
            subscriber.sink.set_busy(true);
            subscriber.stuck_since_us = now.mono_us;
            let deadline_us = now.mono_us + self.config.stuck_us;
            self.wheel.schedule(subscriber, who.index, deadline_us);
        }
    }

    /// The sink took some bytes but is still busy.
    pub fn progress(&mut self, now: Now, who: SubscriberKey) {
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.stuck_since_us = now.mono_us;
        }
    }

    /// The sink took everything and can take more.
    pub fn writable(&mut self, _now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if subscriber.sink.busy() {
            subscriber.sink.set_busy(false);
            // A ping that waited behind unsent output starts to count only now.
            subscriber.pong_due_us = None;
            self.make_ready(who.index);
            self.offer_request(who, out);
        }
    }

    /// Something came from the client, so its path lives.
    pub fn heard(&mut self, who: SubscriberKey) {
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.pong_due_us = None;
        }
    }

    /// Queues the subscriber for [`Lane::next_write`] if its sink is free.
    fn make_ready(&mut self, index: u32) {
        if let Some(subscriber) = self.subscribers.at_mut(index)
            && !subscriber.queued
            && subscriber.sink.takes_writes()
        {
            subscriber.queued = true;
            self.ready.push_back(index);
        }
    }

    /// Marks an object as yet to be told to one subscriber.
    fn pend(&mut self, index: u32, slot: u32) {
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if !subscriber.sink.gathers() {
            return;
        }
        if subscriber.pending.insert(slot) {
            self.objects.hints.awaited(slot);
        } else {
            self.counters.coalesced += 1;
        }
        self.make_ready(index);
    }

    /// When [`Lane::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoUs> {
        let linger_us = self.objects.next_linger(self.config.lingering_objects);
        let silence_us = self.silence_due_us();
        [
            linger_us,
            self.wheel.next_deadline(),
            self.next_session_end(),
            silence_us,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: heartbeats, cursors, stuck sinks, sessions and objects that nobody came back for.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Vec<Output>) {
        self.run_wheel(now, out);
        self.look_for_silence(now);
        while let Some(slot) = self.objects.pop_lingered(now.mono_us, self.config.lingering_objects) {
            self.retire(slot);
        }
        self.flush_upstream(out);
    }

    /// Tells the owner that nobody here watches the object any more, and forgets it.
    fn retire(&mut self, slot: u32) {
        let (object, shared) = self.objects.free(slot);
        self.frames.forget(slot);
        if !shared {
            self.upstream.unregister(self.config.shards.shard(object), object);
        }
    }
}
