//! What is watched, what was told of it, and how far the application has handled it.
//!
//! An object has at most one change and one resync that wait: a newer one takes the place of the older, so a slow
//! application costs one entry an object and catches up to the present. What waits is handed out in the order in which it
//! first came.
//!
//! A cursor is given out only when everything that was told before it has been handled. Two cursors are kept at most: the
//! one whose turn is next, and the last; so the cursor moves on however busy the stream is.
//!
//! It does not know connections, transports or time.

use crate::wire;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidings_protocol::{Epoch, ShardId, Version};

/// Bytes of hints that may wait for the application. Beyond it changes come without.
const MAX_HINT_BYTES: usize = 16 * 1024 * 1024;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object's ID.
    pub object: Arc<str>,
    /// Its newest version; `None`: it may have changed, nobody can say how: fetch it.
    pub version: Option<Version>,
    /// The publisher's tag, if it is at hand: a hint that may be missing.
    pub kind: Option<Box<str>>,
    /// The publisher's data as JSON, if it is at hand: a hint that may be missing.
    pub data: Option<Box<str>>,
    /// Where the version came from, if the watch traces.
    pub trace: Option<(ShardId, Epoch)>,
    /// Why the version is unknown: a stable word of the protocol's causes of resync; or the code of a refusal, for whose
    /// time nobody can vouch; or `added`, where a transport cannot go on from the version that the application knew.
    pub cause: Option<Box<str>>,
    pub(crate) ticket: Ticket,
}

/// Names a change that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Change {
    /// Names this change when it is acknowledged.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

/// What is held of one object.
#[derive(Debug, Default)]
struct Held {
    /// The newest version that was told, or current when it was first subscribed. Zero: everything is newer.
    told: Option<Version>,
    /// Nobody can vouch for what happened since some time, for this reason: it must be fetched once it is live.
    doubt: Option<Box<str>>,
    /// `told` came from the application and may be older than the resume cursor.
    elsewhere: bool,
    /// It was live once: what happened since then must not be missed.
    began: bool,
    /// Of one from elsewhere: since which cursor (by when it came) cursors speak for it.
    spoken_for: Option<u64>,
    waiting: Option<Waiting>,
}

/// What waits to be handed out.
#[derive(Debug)]
struct Waiting {
    /// When the oldest part of it came.
    since: u64,
    resync: Option<Box<str>>,
    change: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    version: Version,
    kind: Option<Box<str>>,
    data: Option<Box<str>>,
    trace: Option<(ShardId, Epoch)>,
}

impl Newest {
    fn hint_bytes(&self) -> usize {
        self.kind.as_ref().map_or(0, |kind| kind.len()) + self.data.as_ref().map_or(0, |data| data.len())
    }
}

/// What an object is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The resume cursor speaks for it.
    pub(crate) covered: bool,
    /// What is known of it without a cursor.
    pub(crate) version: Option<Version>,
    /// That version may be older than the resume cursor.
    pub(crate) elsewhere: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    objects: BTreeMap<Arc<str>, Held>,
    /// Objects for which the resume cursor does not speak.
    uncovered: BTreeSet<Arc<str>>,
    /// Objects with something waiting, by when it came.
    queue: BTreeMap<u64, Arc<str>>,
    /// Handed out and not handled: the ticket and when it came.
    out: BTreeMap<Ticket, u64>,
    next_ticket: u64,
    clock: u64,
    hint_bytes: usize,
    /// Where to go on when the connection is lost: what waits here is kept.
    resume: Option<Arc<str>>,
    /// Where to go on when this process is lost.
    handled: Option<Arc<str>>,
    /// When that came.
    handled_at: u64,
    /// Cursors that wait for what was told before them to be handled.
    next: Option<(u64, Arc<str>)>,
    last: Option<(u64, Arc<str>)>,
}

impl Ledger {
    /// Goes on where an earlier watch of the same objects came to.
    pub(crate) fn new(cursor: Option<&str>) -> Self {
        let cursor: Option<Arc<str>> = cursor.filter(|cursor| !cursor.is_empty()).map(Arc::from);
        Self {
            resume: cursor.clone(),
            handled: cursor,
            ..Self::default()
        }
    }

    /// The objects of the beginning, for which the cursor speaks if there is one.
    pub(crate) fn begin(&mut self, object: &str, known: Option<Version>) {
        if self.add(object, known) && self.resume.is_some() {
            self.uncovered.remove(object);
            if let Some(held) = self.objects.get_mut(object) {
                held.spoken_for = Some(0);
            }
        }
    }

    /// Holds one more object. `false`: it is held already.
    pub(crate) fn add(&mut self, object: &str, known: Option<Version>) -> bool {
        if self.objects.contains_key(object) {
            return false;
        }
        let object: Arc<str> = object.into();
        let held = Held {
            told: known,
            elsewhere: known.is_some(),
            ..Held::default()
        };
        self.objects.insert(Arc::clone(&object), held);
        self.uncovered.insert(object);
        true
    }

    /// Lets an object go: nothing more is handed out of it. `false`: it was not held.
    pub(crate) fn remove(&mut self, object: &str) -> bool {
        let Some(held) = self.objects.remove(object) else {
            return false;
        };
        self.uncovered.remove(object);
        if let Some(waiting) = held.waiting {
            self.queue.remove(&waiting.since);
            self.hint_bytes -= waiting.change.map_or(0, |newest| newest.hint_bytes());
        }
        self.advance();
        true
    }

    pub(crate) fn contains(&self, object: &str) -> bool {
        self.objects.contains_key(object)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Arc<str>> {
        self.objects.keys()
    }

    pub(crate) fn known(&self, object: &str) -> Option<Known> {
        let held = self.objects.get(object)?;
        Some(Known {
            covered: self.resume.is_some() && !self.uncovered.contains(object),
            elsewhere: held.elsewhere && self.uncovered.contains(object),
            // Zero would say that nothing is known; one is older than every change.
            version: held.told.map(|told| told.max(Version(1))),
        })
    }

    /// The newest version that was told of the object, or that it had when it was first subscribed.
    pub(crate) fn version(&self, object: &str) -> Option<Version> {
        self.objects.get(object)?.told?.known()
    }

    /// Where a new connection goes on.
    pub(crate) fn resume(&self) -> Option<&Arc<str>> {
        self.resume.as_ref()
    }

    /// Where a new process goes on: everything before it has been handled.
    pub(crate) fn cursor(&self) -> Option<&Arc<str>> {
        self.handled.as_ref()
    }

    /// Whether the cursor that is given out speaks for the object. One that was added with a version that was known from
    /// elsewhere is spoken for by cursors that came after it was live; all others by every cursor.
    pub(crate) fn vouches(&self, object: &str) -> bool {
        self.objects.get(object).is_some_and(|held| {
            !held.elsewhere || self.handled.is_none() || held.spoken_for.is_some_and(|since| since <= self.handled_at)
        })
    }

    /// The server speaks of it from now on. `version`: its current one, if this is where it begins.
    pub(crate) fn live(&mut self, object: &str, version: Option<Version>) {
        let Some(held) = self.objects.get_mut(object) else {
            return;
        };
        held.began = true;
        if held.told.is_none() {
            held.told = version;
        }
        if let Some(cause) = held.doubt.take() {
            self.must_be_fetched(object, &cause);
        }
    }

    /// The server does not speak of it for now, or what is known of it cannot be compared: it has to be fetched once it is
    /// live, unless it begins only then.
    pub(crate) fn doubt(&mut self, object: &str, cause: &str) {
        let covered = self.known(object).is_some_and(|known| known.covered);
        let Some((object, held)) = self.objects.get_key_value(object) else {
            return;
        };
        let began = covered || held.began || held.told.is_some();
        let object = Arc::clone(object);
        if let Some(held) = self.objects.get_mut(&object)
            && began
            && held.doubt.is_none()
        {
            held.doubt = Some(cause.into());
        }
        self.uncovered.insert(object);
    }

    /// A change was told. An older version than one that was told before changes nothing.
    pub(crate) fn change(&mut self, told: &wire::Change<'_>) {
        let Some(version) = told.version else {
            return self.resync(&told.object, "");
        };
        let Some((object, _)) = self.objects.get_key_value(&*told.object) else {
            return;
        };
        let object = Arc::clone(object);
        let Some(held) = self.objects.get_mut(&object) else {
            return;
        };
        if held.told.is_some_and(|known| version <= known) {
            return;
        }
        held.told = Some(version);
        let mut newest = Newest {
            version,
            kind: told.kind.as_deref().map(Into::into),
            data: told.data.map(|data| data.get().into()),
            trace: told.shard.zip(told.epoch),
        };
        if self.hint_bytes + newest.hint_bytes() > MAX_HINT_BYTES {
            (newest.kind, newest.data) = (None, None);
        }
        self.hint_bytes += newest.hint_bytes();
        let older = self.waiting(&object).and_then(|waiting| waiting.change.replace(newest));
        self.hint_bytes -= older.map_or(0, |older| older.hint_bytes());
    }

    /// The object may have changed.
    pub(crate) fn resync(&mut self, object: &str, cause: &str) {
        if !comparable(cause) {
            self.begin_anew(object, cause);
            // The cursor said so for those it speaks for; what is known of the others is as foreign.
            for other in self.uncovered.clone() {
                self.begin_anew(&other, cause);
            }
        }
        self.must_be_fetched(object, cause);
    }

    fn begin_anew(&mut self, object: &str, cause: &str) {
        if let Some(held) = self.objects.get_mut(object) {
            held.told = Some(Version::ZERO);
            self.must_be_fetched(object, cause);
        }
    }

    fn must_be_fetched(&mut self, object: &str, cause: &str) {
        let Some((object, _)) = self.objects.get_key_value(object) else {
            return;
        };
        let object = Arc::clone(object);
        if let Some(waiting) = self.waiting(&object) {
            waiting.resync.get_or_insert_with(|| cause.into());
        }
    }

    /// All that is held may have changed.
    pub(crate) fn resync_all(&mut self, cause: &str) {
        let objects: Vec<_> = self.objects.keys().cloned().collect();
        for object in objects {
            self.resync(&object, cause);
        }
    }

    /// What waits of the object; it gets its place in the queue if nothing did.
    fn waiting(&mut self, object: &Arc<str>) -> Option<&mut Waiting> {
        let held = self.objects.get_mut(object)?;
        if held.waiting.is_none() {
            self.clock += 1;
            self.queue.insert(self.clock, Arc::clone(object));
        }
        Some(held.waiting.get_or_insert(Waiting {
            since: self.clock,
            resync: None,
            change: None,
        }))
    }

    /// Everything that was told before is vouched for by this. `whole`: for every object that is held.
    pub(crate) fn told_up_to(&mut self, cursor: &str, whole: bool) {
        let cursor: Arc<str> = cursor.into();
        self.resume = Some(Arc::clone(&cursor));
        if !whole {
            return;
        }
        self.clock += 1;
        for object in std::mem::take(&mut self.uncovered) {
            if let Some(held) = self.objects.get_mut(&object) {
                held.spoken_for.get_or_insert(self.clock);
            }
        }
        let place = (self.clock, cursor);
        match self.next {
            None => self.next = Some(place),
            Some(_) => self.last = Some(place),
        }
        self.advance();
    }

    /// The next thing to hand out.
    pub(crate) fn hand_out(&mut self) -> Option<Change> {
        let (&since, object) = self.queue.first_key_value()?;
        let object = Arc::clone(object);
        let held = self.objects.get_mut(&object)?;
        let waiting = held.waiting.as_mut()?;
        let cause = waiting.resync.take();
        let newest = match cause {
            Some(_) => None,
            None => waiting.change.take(),
        };
        if waiting.change.is_none() {
            held.waiting = None;
            self.queue.remove(&since);
        }
        self.hint_bytes -= newest.as_ref().map_or(0, Newest::hint_bytes);
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.out.insert(ticket, since);
        let (version, kind, data, trace) = match newest {
            Some(newest) => (Some(newest.version), newest.kind, newest.data, newest.trace),
            None => (None, None, None, None),
        };
        Some(Change {
            object,
            version,
            kind,
            data,
            trace,
            cause,
            ticket,
        })
    }

    /// Whether something waits to be handed out.
    pub(crate) fn has_news(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many changes are handed out and not handled.
    pub(crate) fn unhandled(&self) -> usize {
        self.out.len()
    }

    /// The application has handled one change.
    pub(crate) fn handled(&mut self, ticket: Ticket) {
        self.out.remove(&ticket);
        self.advance();
    }

    /// The application has handled everything that was handed out.
    pub(crate) fn handled_all(&mut self) {
        self.out.clear();
        self.advance();
    }

    /// Gives out the cursor before which nothing is left to be handled.
    fn advance(&mut self) {
        let waiting = self.queue.keys().next();
        let oldest = waiting.into_iter().chain(self.out.values()).min().copied();
        let is_due = |at: u64| oldest.is_none_or(|oldest| oldest > at);
        while let Some((at, cursor)) = self.next.take_if(|(at, _)| is_due(*at)) {
            (self.handled_at, self.handled) = (at, Some(cursor));
            self.next = self.last.take();
        }
    }
}

/// Whether versions told after a resync of this cause can be compared with those told before: they are of the same
/// cluster, whose versions only grow. Where that is not known, the next version counts, whatever it is.
fn comparable(cause: &str) -> bool {
    matches!(
        cause,
        "cursor_unreadable" | "versions_lost" | "versions_evicted" | "power_lost" | "storage_damaged"
    )
}
