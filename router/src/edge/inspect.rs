//! Looking into a lane: for metrics, `/v1/connections` and `/v1/explain`. Changes nothing.

use super::Lane;
use super::delays::Delays;
use super::subscribers::{Sink, Subscriber, SubscriberKey};
use crate::now::{MonoUs, Now};
use tidings_protocol::codec::Encoding;
use tidings_protocol::{Epoch, ShardId, Version};

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) told: u64,
    pub(super) coalesced: u64,
    /// Of what streams were told.
    pub(super) delays: Delays,
    pub(super) stuck: u64,
    pub(super) no_pong: u64,
    pub(super) sessions_evicted: u64,
    pub(super) refusals: Refusals,
    resyncs: Vec<(&'static str, u64)>,
}

impl Counters {
    pub(super) fn resyncs_of(&mut self, cause: &'static str) {
        match self.resyncs.iter_mut().find(|(c, _)| *c == cause) {
            Some((_, count)) => *count += 1,
            None => self.resyncs.push((cause, 1)),
        }
    }
}

/// What was refused because of a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Objects over the bound of one subscriber.
    pub objects: u64,
    /// Sessions forgotten early because there were too many.
    pub sessions: u64,
    /// Objects over the bound of the lane.
    pub subscriptions: u64,
    /// Subscribers sent away because no pong came in time.
    pub no_pong: u64,
}

/// Subscribers, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// WebSockets.
    pub web_sockets: usize,
    /// Event streams.
    pub event_streams: usize,
    /// Polls that wait.
    pub polls: usize,
    /// Sessions without poll or stream.
    pub idle_sessions: usize,
    /// Marks: objects that subscribers have yet to be told of.
    pub pending: usize,
    /// Subscribers whose sink takes no more at the moment.
    pub busy: usize,
}

impl Tally {
    /// Adds the counts of others.
    pub fn add(&mut self, other: &Self) {
        self.web_sockets += other.web_sockets;
        self.event_streams += other.event_streams;
        self.polls += other.polls;
        self.idle_sessions += other.idle_sessions;
        self.pending += other.pending;
        self.busy += other.busy;
    }

    fn count(&mut self, subscriber: &Subscriber) {
        match transport(subscriber) {
            "websocket" => self.web_sockets += 1,
            "sse" => self.event_streams += 1,
            "poll" => self.polls += 1,
            _ => self.idle_sessions += 1,
        }
        self.pending += subscriber.pending.len();
        self.busy += usize::from(subscriber.sink.busy());
    }
}

/// A lane in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// WebSockets.
    pub web_sockets: usize,
    /// Event streams.
    pub event_streams: usize,
    /// Polls that wait.
    pub polls: usize,
    /// Sessions without poll or stream.
    pub idle_sessions: usize,
    /// Subscriptions of all subscribers.
    pub subscriptions: usize,
    /// Objects that are registered with owners or about to be.
    pub objects: usize,
    /// Of these, how many may linger without a subscriber.
    pub lingering: usize,
    /// Marks: objects that subscribers have yet to be told of.
    pub pending: usize,
    /// Bytes of `kind` and `data` kept for them.
    pub hint_bytes: usize,
    /// Changes told so far.
    pub told: u64,
    /// Changes that replaced an older one not yet told.
    pub coalesced: u64,
    /// Hints dropped for want of memory.
    pub hints_dropped: u64,
    /// Subscribers cut because their sink took nothing for too long.
    pub stuck: u64,
    /// Subscribers cut because no pong came.
    pub no_pong: u64,
    /// Sessions forgotten because there were too many.
    pub sessions_evicted: u64,
    /// Frames of owners that made no sense or came from an older link.
    pub ignored_frames: u64,
    /// Objects to be fetched again, by cause.
    pub resyncs: Vec<(&'static str, u64)>,
    /// The version up to which everything has arrived.
    pub closed: Version,
    /// Shards that lag behind it.
    pub lagging_shards: usize,
    /// The newest version that the owner of any shard closed.
    pub newest_closed: Version,
    /// How late streams were told of what changed while they were connected. A stream that does not read counts too.
    pub delays: Delays,
}

/// One subscriber as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// Who.
    pub who: SubscriberKey,
    /// `websocket`, `sse`, `poll` or `session`.
    pub transport: &'static str,
    /// Since when, on the lane's monotonic clock.
    pub since_us: MonoUs,
    /// Objects it watches.
    pub objects: usize,
    /// Of these, how many it has yet to be told of.
    pub pending: usize,
    /// Objects it must be told to fetch again.
    pub resync: usize,
    /// Changes it was told so far.
    pub told: u64,
    /// Its sink does not take more at the moment.
    pub busy: bool,
    /// The base of the last cursor it was sent; zero if none.
    pub cursor: Version,
}

/// One object of one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    /// The newest version known here.
    pub version: Version,
    /// The owner has answered the registration.
    pub registered: bool,
    /// The subscriber has yet to be told of it.
    pub pending: bool,
    /// The subscriber has yet to be told to fetch it again.
    pub resync: bool,
}

/// Some of the objects that a subscriber watches, and where the next ones begin.
pub type SubscriptionPage = (Vec<(Box<str>, SubscriptionView)>, Option<u32>);

/// Why a subscriber did or did not hear of an object, as far as its lane knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The subscriber.
    pub connection: ConnectionView,
    /// Its subscription, if it watches the object.
    pub subscription: Option<SubscriptionView>,
    /// How many subscribers of this lane watch the object.
    pub watchers: usize,
    /// The object's shard.
    pub shard: ShardId,
    /// The epoch of the shard's owner as known here; zero if it has none.
    pub epoch: Epoch,
    /// Up to here every change of the shard has arrived.
    pub closed: Version,
    /// Below this the owner cannot vouch for the shard.
    pub floor: Version,
}

impl Lane {
    /// The lane in numbers. Walks all subscribers: for scrapes, not for hot paths.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        let (tally, _) = self.tally(0, u32::MAX);
        LaneStats {
            web_sockets: tally.web_sockets,
            event_streams: tally.event_streams,
            polls: tally.polls,
            idle_sessions: tally.idle_sessions,
            pending: tally.pending,
            ..self.figures()
        }
    }

    /// [`Lane::stats`] without what takes a walk over the subscribers: those stay zero.
    #[must_use]
    pub fn figures(&self) -> LaneStats {
        LaneStats {
            subscriptions: self.objects.subscriptions,
            objects: self.objects.len(),
            lingering: self.objects.lingering(),
            hint_bytes: self.objects.hints.bytes(),
            told: self.counters.told,
            coalesced: self.counters.coalesced,
            hints_dropped: self.objects.hints.dropped,
            stuck: self.counters.stuck,
            no_pong: self.counters.no_pong,
            sessions_evicted: self.counters.sessions_evicted,
            ignored_frames: self.upstream.ignored,
            resyncs: self.counters.resyncs.clone(),
            closed: self.upstream.place.base,
            lagging_shards: self.upstream.place.lagging.len(),
            newest_closed: self.newest_closed(),
            delays: self.counters.delays.clone(),
            ..LaneStats::default()
        }
    }

    /// Counts the subscribers of `places` places, from `from` on, and says where to go on: many are counted in pieces.
    #[must_use]
    pub fn tally(&self, from: u32, places: u32) -> (Tally, Option<u32>) {
        let mut tally = Tally::default();
        let (found, next) = self.subscribers.piece(from, places);
        found.for_each(|(_, subscriber)| tally.count(subscriber));
        (tally, next)
    }

    /// What was refused since this was last asked.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.counters.refusals)
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// How many subscribers of this lane watch an object.
    #[must_use]
    pub fn watchers(&self, object: &str) -> usize {
        self.objects
            .find(object)
            .map_or(0, |slot| self.objects.slot(slot).watchers.len())
    }

    /// The subscribers of `places` places, from `from` on; with `watching`, only those that watch this object. Also says
    /// where to go on: many are looked through in pieces.
    #[must_use]
    pub fn look_through(&self, from: u32, places: u32, watching: Option<&str>) -> (Vec<ConnectionView>, Option<u32>) {
        let slot = match watching.map(|object| self.objects.find(object)) {
            // Nobody here watches it.
            Some(None) => return (Vec::new(), None),
            Some(slot) => slot,
            None => None,
        };
        let (found, next) = self.subscribers.piece(from, places);
        let found = found.filter(|(_, subscriber)| slot.is_none_or(|slot| subscriber.slots.contains(slot)));
        (found.map(|(who, subscriber)| view(who, subscriber)).collect(), next)
    }

    /// One subscriber.
    #[must_use]
    pub fn connection(&self, who: SubscriberKey) -> Option<ConnectionView> {
        self.subscribers.get(who).map(|subscriber| view(who, subscriber))
    }

    /// The objects a subscriber watches, at most `at_most`.
    #[must_use]
    pub fn watched_by(&self, who: SubscriberKey, at_most: usize) -> Vec<Box<str>> {
        let mut objects = Vec::new();
        if let Some(subscriber) = self.subscribers.get(who) {
            subscriber.slots.for_each(|slot| {
                if objects.len() < at_most {
                    objects.push(self.objects.slot(slot).id.as_str().into());
                }
            });
        }
        objects
    }

    /// The objects of one subscriber with how far it was told of each, from slot `from` on, at most `at_most` of those that
    /// `wanted` takes; also says where to go on.
    #[must_use]
    pub fn subscriptions(
        &self,
        who: SubscriberKey,
        from: u32,
        at_most: usize,
        wanted: impl Fn(&str, &SubscriptionView) -> bool,
    ) -> Option<SubscriptionPage> {
        let subscriber = self.subscribers.get(who)?;
        let (mut found, mut from) = (Vec::new(), from);
        while let Some(slot) = subscriber.slots.first_from(from) {
            let id = self.objects.slot(slot).id.as_str();
            let subscription = self.subscription(subscriber, slot);
            if wanted(id, &subscription) {
                if found.len() == at_most {
                    return Some((found, Some(slot)));
                }
                found.push((id.into(), subscription));
            }
            let Some(next) = slot.checked_add(1) else { break };
            from = next;
        }
        Some((found, None))
    }

    fn subscription(&self, subscriber: &Subscriber, slot: u32) -> SubscriptionView {
        SubscriptionView {
            version: self.objects.slot(slot).version(),
            registered: self.objects.slot(slot).registered(),
            pending: subscriber.pending.contains(slot),
            resync: subscriber.resync.iter().any(|r| r.slots.contains(slot)),
        }
    }

    /// Why a subscriber did or did not hear of an object.
    #[must_use]
    pub fn explain(&self, who: SubscriberKey, object: &str) -> Option<Explanation> {
        let subscriber = self.subscribers.get(who)?;
        let slot = self.objects.find(object);
        let shard = self.config.shards.shard(self.config.key.object(object));
        let state = self.upstream.shard(shard);
        let subscription = slot
            .filter(|&slot| subscriber.slots.contains(slot))
            .map(|slot| self.subscription(subscriber, slot));
        Some(Explanation {
            connection: view(who, subscriber),
            subscription,
            watchers: slot.map_or(0, |slot| self.objects.slot(slot).watchers.len()),
            shard,
            epoch: if state.owner.is_some() { state.epoch } else { Epoch(0) },
            closed: state.closed,
            floor: state.floor,
        })
    }

    /// How far the subscriber's last cursor is behind the clock, in microseconds.
    #[must_use]
    pub fn cursor_lag_us(view: &ConnectionView, now: Now) -> Option<u64> {
        view.cursor.known().map(|cursor| now.wall_us.saturating_sub(cursor.0))
    }
}

fn transport(subscriber: &Subscriber) -> &'static str {
    match subscriber.sink {
        Sink::Stream {
            encoding: Encoding::EventStream,
            ..
        } => "sse",
        Sink::Stream { .. } => "websocket",
        Sink::Poll(_) => "poll",
        Sink::Idle => "session",
    }
}

fn view(who: SubscriberKey, subscriber: &Subscriber) -> ConnectionView {
    ConnectionView {
        who,
        transport: transport(subscriber),
        since_us: subscriber.since_us,
        objects: subscriber.slots.len(),
        pending: subscriber.pending.len(),
        resync: subscriber.resync_due(),
        told: subscriber.told,
        busy: subscriber.sink.busy(),
        cursor: subscriber.last_cursor,
    }
}
