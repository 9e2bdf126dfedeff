//! Clients: what they hold, what they were told, and the cursor they come back with.
//!
//! What an edge writes arrives at once or, with the connection, never. That loses nothing: a client sees some prefix of
//! what was written, and nothing at the edge depends on when.

use super::{Front, Listening, NONE, OBJECTS, SHARDS, Seen, Shape, Version, Versions, bits};
use crate::rule::Rule;

/// A place: everything of a shard up to `at`, and above it these objects at these versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The base, or the own value of a shard that lags.
    pub at: [Version; SHARDS],
    /// What was told above it.
    pub told: Versions,
}

impl Cursor {
    /// Up to which version of an object it claims knowledge.
    #[must_use]
    pub fn knows(&self, object: usize, shard: usize) -> Version {
        self.at[shard].max(self.told[object])
    }
}

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The edge it is connected to.
    pub at: u8,
    /// The edge it was connected to before.
    pub was_at: u8,
    /// The objects it holds.
    pub wants: u8,
    /// Those of them that are subscribed on this connection.
    pub live: u8,
    /// Those of the page that is not answered yet.
    pub page: u8,
    /// Those of the page that are compared with the cursor.
    pub page_with_cursor: u8,
    /// Some owner was asked for the page.
    pub page_asked: bool,
    /// Yet to be told.
    pub pending: u8,
    /// Yet to be told to resync.
    pub resync: u8,
    /// Without R4.5: written, but a cursor may overtake it.
    pub late: (u8, Version),
    /// It has a cursor (or known versions).
    pub has_cursor: bool,
    /// It.
    pub cursor: Cursor,
    /// The objects for which it counts.
    pub counts: u8,
    /// History: of each object, up to which version it was told or fetched everything.
    pub covered: Versions,
    /// History: what was told last on this connection.
    pub last_told: Versions,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            at: NONE,
            was_at: NONE,
            wants: 0,
            live: 0,
            page: 0,
            page_with_cursor: 0,
            page_asked: false,
            pending: 0,
            resync: 0,
            late: (0, 0),
            has_cursor: false,
            cursor: Cursor::default(),
            counts: 0,
            covered: [0; OBJECTS],
            last_told: [0; OBJECTS],
        }
    }
}

impl Client {
    /// It notes the version that `subscribed` named, if it goes by versions.
    pub(super) fn subscribed_at(&mut self, shape: &Shape, object: usize, version: Version) {
        if shape.listening == Listening::KnownVersions && version > 0 {
            self.has_cursor = true;
            self.cursor.told[object] = version;
            self.counts |= 1 << object;
        }
    }

    /// The connection ends.
    pub(super) fn away(&mut self, shape: &Shape) {
        let kept = *self;
        *self = Self {
            was_at: kept.at,
            wants: kept.wants,
            has_cursor: kept.has_cursor,
            cursor: kept.cursor,
            counts: kept.counts,
            covered: kept.covered,
            // The next poll repeats nothing. At another edge, which may be behind, a live change may repeat.
            last_told: if shape.listening == Listening::Poll && shape.nothing_lost && shape.edges == 1 {
                kept.last_told
            } else {
                [0; OBJECTS]
            },
            ..Self::default()
        };
    }
}

impl Front {
    /// A client connects and subscribes to `objects` in one page, with its cursor where that counts.
    pub fn subscribe(&mut self, shape: &Shape, c: usize, e: usize, objects: u8) {
        let client = &mut self.clients[c];
        if client.was_at != NONE && usize::from(client.was_at) != e {
            self.history.saw(Seen::Moved);
        }
        client.at = e as u8;
        client.wants |= objects;
        client.page = objects;
        let counts = if shape.rules.has(Rule::CursorCountsBehindSubscribed) {
            client.counts
        } else {
            u8::MAX
        };
        client.page_with_cursor = if client.has_cursor { objects & counts } else { 0 };
        let edge = &mut self.edges[e];
        let mut ask = 0;
        for object in bits(objects) {
            if !edge.objects[object].present {
                edge.objects[object].present = true;
                ask |= 1 << object;
            }
        }
        self.clients[c].page_asked = !self.edges[e].all_registered(objects);
        self.ask(shape, e, ask);
        self.pages_progress(shape, e);
    }

    /// The connection ends, from either side.
    pub fn leave(&mut self, shape: &Shape, c: usize) {
        self.clients[c].away(shape);
    }

    /// One pending change is written.
    pub fn tell(&mut self, shape: &Shape, c: usize, object: usize) {
        let e = usize::from(self.clients[c].at);
        let version = self.edges[e].objects[object].version;
        self.clients[c].pending &= !(1 << object);
        if shape.rules.has(Rule::CursorInQueue) {
            self.told_of(shape, c, object, version);
        } else {
            self.clients[c].late = (1 << object, version);
        }
    }

    /// Without R4.5: what was written arrives.
    pub fn arrive(&mut self, shape: &Shape, c: usize) {
        let (mask, version) = std::mem::take(&mut self.clients[c].late);
        bits(mask).for_each(|object| self.told_of(shape, c, object, version));
    }

    fn told_of(&mut self, shape: &Shape, c: usize, object: usize, version: Version) {
        self.told(c, object, version);
        if shape.listening == Listening::KnownVersions {
            let client = &mut self.clients[c];
            client.has_cursor = true;
            client.counts |= 1 << object;
            client.cursor.told[object] = client.cursor.told[object].max(version);
        }
    }

    /// What is in doubt is told, and the client fetches it.
    pub fn tell_resync(&mut self, shape: &Shape, c: usize) {
        let client = &mut self.clients[c];
        for object in bits(client.resync) {
            client.covered[object] = client.covered[object].max(self.history.assigned[object]);
        }
        client.resync = 0;
        if shape.nothing_lost {
            self.history.fault(super::Fault::Resynced);
        }
        self.history.saw(Seen::Resync);
    }

    /// Whether a subscriber may be given a cursor (R4).
    #[must_use]
    pub fn may_have_cursor(&self, shape: &Shape, c: usize) -> bool {
        let client = &self.clients[c];
        let rules = &shape.rules;
        client.at != NONE
            && client.live != 0
            && (client.pending == 0 || !rules.has(Rule::CursorBehindPending))
            && (client.resync == 0 || !rules.has(Rule::CursorBehindResync))
            && (client.page == 0 || !rules.has(Rule::CursorBehindAnswers))
    }

    /// The edge's place as a cursor: held back by the slowest shard or, if it `lags`, naming that with its own value.
    /// `None` where nothing is known, or nothing lags.
    #[must_use]
    pub fn place(&self, shape: &Shape, e: usize, lags: bool) -> Option<[Version; SHARDS]> {
        let closed = |shard: usize| self.edges[e].shards[shard].closed;
        let newest = (0..shape.shards).map(closed).max()?;
        let oldest = (0..shape.shards).map(closed).min()?;
        let base = if lags { newest } else { oldest };
        if base == 0 || (lags && newest == oldest) {
            return None;
        }
        let mut at = [0; SHARDS];
        for (shard, at) in at.iter_mut().enumerate().take(shape.shards) {
            let own = closed(shard).min(base);
            *at = match (lags, shape.rules.has(Rule::CursorCoversEveryShard)) {
                (false, _) => oldest,
                (true, true) => own,
                (true, false) => newest,
            };
        }
        Some(at)
    }

    /// A subscriber on a connection is given a cursor.
    pub fn give_cursor(&mut self, shape: &Shape, c: usize, lags: bool) -> bool {
        let e = usize::from(self.clients[c].at);
        let Some(at) = self.place(shape, e, lags) else {
            return false;
        };
        let client = &mut self.clients[c];
        if shape.rules.has(Rule::LastCursorCounts) {
            client.cursor.at = at;
        } else {
            for (kept, at) in client.cursor.at.iter_mut().zip(at) {
                *kept = at.max(*kept);
            }
        }
        client.cursor.told = [0; OBJECTS];
        client.has_cursor = true;
        client.counts = client.live;
        if !shape.rules.has(Rule::CursorCountsBehindSubscribed) || !shape.rules.has(Rule::CursorBehindAnswers) {
            client.counts = client.wants;
        }
        self.history.saw(Seen::Cursor);
        if lags {
            self.history.saw(Seen::Lagged);
        }
        true
    }

    /// A poll is answered with the oldest `count` of its news (and any resync), and a cursor that vouches for them.
    pub fn answer_poll(&mut self, shape: &Shape, c: usize, count: usize, lags: bool) -> bool {
        let e = usize::from(self.clients[c].at);
        let place = self.place(shape, e, lags).or_else(|| (!lags).then_some([0; SHARDS]));
        let Some(mut at) = place else { return false };
        let version = |front: &Self, object: usize| front.edges[e].objects[object].version;
        let mut news: Vec<usize> = bits(self.clients[c].pending).collect();
        news.sort_by_key(|&object| version(self, object));
        if let Some(&untold) = news.get(count)
            && shape.rules.has(Rule::UntoldKeepsBase)
        {
            let most = version(self, untold).saturating_sub(1);
            at.iter_mut().for_each(|at| *at = most.min(*at));
        }
        for &object in &news[..count] {
            let version = version(self, object);
            self.told(c, object, version);
        }
        let told = self.known(shape, c, e, &news[count..], &at);
        if self.clients[c].resync != 0 {
            self.tell_resync(shape, c);
        }
        if told != [0; OBJECTS] {
            self.history.saw(Seen::Listed);
        }
        let client = &mut self.clients[c];
        client.cursor = super::client::Cursor { at, told };
        client.has_cursor = true;
        client.counts = client.live;
        client.away(shape);
        self.history.saw(Seen::Cursor);
        if lags {
            self.history.saw(Seen::Lagged);
        }
        true
    }

    /// What the cursor lists as told above its base: what the client knows, and up to its floor what it is about to fetch.
    fn known(&self, shape: &Shape, c: usize, e: usize, untold: &[usize], at: &[Version; SHARDS]) -> Versions {
        let client = &self.clients[c];
        let mut told = [0; OBJECTS];
        if !shape.rules.has(Rule::ToldIsListed) {
            return told;
        }
        for object in bits(client.live) {
            let shard = shape.shard_of(object);
            if untold.contains(&object) && shape.rules.has(Rule::OnlyKnownIsListed) {
                continue;
            }
            let told_now = client.pending & 1 << object != 0;
            let known = if told_now || client.resync & 1 << object == 0 {
                self.edges[e].objects[object].version
            } else {
                self.edges[e].shards[shard].floor.saturating_sub(1)
            };
            if known > at[shard] {
                told[object] = known;
            }
        }
        told
    }

    /// A poll times out before its registrations are answered: it gets its own cursor back (R4.8).
    pub fn time_out(&mut self, shape: &Shape, c: usize) {
        let e = usize::from(self.clients[c].at);
        if !shape.rules.has(Rule::TimeoutKeepsCursor)
            && let Some(at) = self.place(shape, e, false)
        {
            let client = &mut self.clients[c];
            client.cursor.at = at;
            client.cursor.told = [0; OBJECTS];
            client.has_cursor = true;
            client.counts = client.wants;
        }
        self.clients[c].away(shape);
        self.history.saw(Seen::TimedOut);
    }
}
