//! The subscribers of a lane: dense indices with generations, and what is kept of each.

use super::requests::PageInFlight;
use super::sessions::PollState;
use crate::cut_off::Elsewhere;
use crate::id_set::IdSet;
use crate::now::MonoUs;
use tidings_protocol::Version;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::Encoding;

/// A subscriber of this lane. The index is dense and recycled; the generation tells the tenants of one index apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriberKey {
    /// Place in the lane's table.
    pub index: u32,
    /// Which tenant of that place.
    pub generation: u32,
}

/// What carries the subscriber's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkKind {
    /// A stream of frames in this encoding: WebSocket or event stream.
    Stream(Encoding),
    /// Long-poll: one answer at a time.
    Poll,
}

/// Where a subscriber's news go.
#[derive(Debug)]
pub(super) enum Sink {
    Stream {
        encoding: Encoding,
        busy: bool,
    },
    /// A session without a poll or stream: gathers nothing, its next poll compares versions.
    Idle,
    /// A session with a poll that waits.
    Poll(Box<PollState>),
}

impl Sink {
    pub(super) fn free(kind: SinkKind) -> Self {
        match kind {
            SinkKind::Stream(encoding) => Self::Stream { encoding, busy: false },
            SinkKind::Poll => Self::Idle,
        }
    }

    pub(super) fn busy(&self) -> bool {
        matches!(self, Self::Stream { busy: true, .. })
    }

    pub(super) fn set_busy(&mut self, value: bool) {
        if let Self::Stream { busy, .. } = self {
            *busy = value;
        }
    }

    /// Whether something may be handed to it now.
    pub(super) fn takes_writes(&self) -> bool {
        match self {
            Self::Stream { busy, .. } => !busy,
            Self::Poll(_) => true,
            Self::Idle => false,
        }
    }

    /// Whether marks are kept for it.
    pub(super) fn gathers(&self) -> bool {
        !matches!(self, Self::Idle)
    }

    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self {
            Self::Stream { encoding, .. } => Some(*encoding),
            Self::Idle | Self::Poll(_) => None,
        }
    }
}

/// Objects a subscriber must be told to fetch again, with the reason.
#[derive(Debug)]
pub(super) struct Resync {
    pub(super) cause: &'static str,
    pub(super) slots: IdSet,
}

impl Resync {
    /// Takes those objects out that are also in `held`, if there are any.
    pub(super) fn split_off(&mut self, held: &IdSet) -> Option<Self> {
        let mut slots = IdSet::new();
        held.for_each(|slot| {
            if self.slots.remove(slot) {
                slots.insert(slot);
            }
        });
        (!slots.is_empty()).then_some(Self {
            cause: self.cause,
            slots,
        })
    }
}

/// How subscribers are sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// With which code.
    pub code: CloseCode,
    /// A stable word.
    pub reason: &'static str,
    /// Where to: bases of URLs, none of which has to be there. Empty: anywhere.
    pub to: Elsewhere,
}

/// How one subscriber is sent away.
#[derive(Clone, Debug)]
pub(super) struct Farewell {
    pub(super) code: CloseCode,
    pub(super) reason: &'static str,
    /// Come back after this long, if it should.
    pub(super) after_ms: Option<u64>,
    /// To one of these.
    pub(super) to: Option<Elsewhere>,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) generation: u32,
    pub(super) trace: bool,
    /// It stands in the lane's `ready` queue.
    pub(super) queued: bool,
    /// A subscribe came with `more`: no cursor before its last page is answered.
    pub(super) page_open: bool,
    /// A cursor is to be sent as soon as everything before it was told.
    pub(super) cursor_owed: bool,
    /// A heartbeat is to be sent with the next write.
    pub(super) ping_owed: bool,
    /// It stands among those that wait for a shard without an owner.
    pub(super) orphan: bool,
    /// Nothing is heard of a shard that it watches.
    pub(super) stale: bool,
    /// What it was told of that.
    pub(super) stale_told: bool,
    /// Kept when its stream ends: it was made as a session.
    pub(super) session: bool,
    pub(super) sink: Sink,
    pub(super) slots: IdSet,
    pub(super) pending: IdSet,
    pub(super) resync: Vec<Resync>,
    pub(super) page: Option<Box<PageInFlight>>,
    /// Encoded answers to requests, to be written before anything else.
    pub(super) reply: Vec<u8>,
    pub(super) farewell: Option<Box<Farewell>>,
    pub(super) since_us: MonoUs,
    pub(super) stuck_since_us: MonoUs,
    pub(super) pong_due_us: Option<MonoUs>,
    pub(super) cursor_due_us: MonoUs,
    pub(super) heartbeat_due_us: MonoUs,
    /// The earliest time for which it stands in the wheel.
    pub(super) wheel_us: MonoUs,
    /// A later time for which it stands there too.
    pub(super) wheel_later_us: MonoUs,
    pub(super) last_cursor: Version,
    /// The highest version it was told: a cursor below it is followed by another soon.
    pub(super) told_to: Version,
    pub(super) told: u64,
}

impl Subscriber {
    /// Whether news of an object are noted for it: not while a page is yet to compare that object, because then the
    /// comparison says what is news.
    pub(super) fn gathers(&self, slot: u32) -> bool {
        self.sink.gathers() && !self.page.as_ref().is_some_and(|page| page.will_compare(slot))
    }

    /// Whether it has yet to be told to fetch an object.
    pub(super) fn is_to_fetch(&self, slot: u32) -> bool {
        self.resync.iter().any(|resync| resync.slots.contains(slot))
    }

    /// Objects with a resync due.
    pub(super) fn resync_due(&self) -> usize {
        self.resync.iter().map(|r| r.slots.len()).sum()
    }

    /// Adds an object to what must be fetched again; `false` if it was there already.
    pub(super) fn add_resync(&mut self, slot: u32, cause: &'static str) -> bool {
        let all = &mut self.resync;
        if all.iter().any(|r| r.slots.contains(slot)) {
            return false;
        }
        match all.iter_mut().find(|r| r.cause == cause) {
            Some(same) => same.slots.insert(slot),
            None => {
                all.push(Resync {
                    cause,
                    slots: IdSet::One(slot),
                });
                true
            }
        }
    }

    pub(super) fn drop_resync(&mut self, slot: u32) {
        for resync in &mut self.resync {
            resync.slots.remove(slot);
        }
        self.resync.retain(|r| !r.slots.is_empty());
    }

    /// Everything it watches was told up to what the lane knows, and nothing is under way.
    pub(super) fn drained(&self) -> bool {
        self.pending.is_empty() && self.resync.is_empty() && self.page.is_none() && !self.page_open
    }
}

/// The table of subscribers.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Debug)]
enum Place {
    Taken(Box<Subscriber>),
    /// The generation its next tenant gets.
    Free(u32),
}

impl Subscribers {
    pub(super) fn add(&mut self, now_us: MonoUs, sink: Sink, trace: bool) -> SubscriberKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free(0));
            (self.places.len() - 1) as u32
        });
        let generation = match &self.places[index as usize] {
            Place::Free(generation) => *generation,
            Place::Taken(_) => unreachable!("a free index has no tenant"),
        };
        self.places[index as usize] = Place::Taken(Box::new(Subscriber {
            generation,
            trace,
            queued: false,
            page_open: false,
            cursor_owed: false,
            ping_owed: false,
            stale: false,
            stale_told: false,
            orphan: false,
            session: matches!(sink, Sink::Idle),
            sink,
            slots: IdSet::new(),
            pending: IdSet::new(),
            resync: Vec::new(),
            page: None,
            reply: Vec::new(),
            farewell: None,
            since_us: now_us,
            stuck_since_us: now_us,
            pong_due_us: None,
            cursor_due_us: MonoUs::MAX,
            heartbeat_due_us: MonoUs::MAX,
            wheel_us: MonoUs::MAX,
            wheel_later_us: MonoUs::MAX,
            last_cursor: Version::ZERO,
            told_to: Version::ZERO,
            told: 0,
        }));
        self.count += 1;
        SubscriberKey { index, generation }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Subscriber>> {
        let place = self.places.get_mut(index as usize)?;
        let Place::Taken(subscriber) = place else { return None };
        let next = subscriber.generation.wrapping_add(1);
        let Place::Taken(subscriber) = std::mem::replace(place, Place::Free(next)) else {
            return None;
        };
        self.free.push(index);
        self.count -= 1;
        Some(subscriber)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn at(&self, index: u32) -> Option<&Subscriber> {
        match self.places.get(index as usize)? {
            Place::Taken(subscriber) => Some(subscriber),
            Place::Free(_) => None,
        }
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Subscriber> {
        match self.places.get_mut(index as usize)? {
            Place::Taken(subscriber) => Some(subscriber),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get(&self, who: SubscriberKey) -> Option<&Subscriber> {
        self.at(who.index).filter(|s| s.generation == who.generation)
    }

    pub(super) fn get_mut(&mut self, who: SubscriberKey) -> Option<&mut Subscriber> {
        self.at_mut(who.index).filter(|s| s.generation == who.generation)
    }

    pub(super) fn key(&self, index: u32) -> Option<SubscriberKey> {
        self.at(index).map(|s| SubscriberKey {
            index,
            generation: s.generation,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriberKey, &Subscriber)> {
        self.piece(0, u32::MAX).0
    }

    /// Those in `places` places, from `from` on, and where to go on.
    pub(super) fn piece(
        &self,
        from: u32,
        places: u32,
    ) -> (impl Iterator<Item = (SubscriberKey, &Subscriber)>, Option<u32>) {
        let from = (from as usize).min(self.places.len());
        let end = from.saturating_add(places as usize).min(self.places.len());
        let found = (from..)
            .zip(&self.places[from..end])
            .filter_map(|(index, place)| match place {
                Place::Taken(s) => Some((
                    SubscriberKey {
                        index: index as u32,
                        generation: s.generation,
                    },
                    &**s,
                )),
                Place::Free(_) => None,
            });
        (found, (end < self.places.len()).then_some(end as u32))
    }

    /// All taken indices, for loops that change subscribers as they go.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.iter().map(|(key, _)| key.index).collect()
    }
}
