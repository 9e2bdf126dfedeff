//! Sessions: subscribers that outlive their polls and streams. Each poll compares versions with its own cursor, so a
//! session that is lost costs its client one more list of objects and nothing else.

use super::place::Place;
use super::requests::{Page, PageEntry, PageInFlight, Purpose, RequestError};
use super::subscribers::{Sink, SinkKind, Subscriber, SubscriberKey};
use super::{Lane, Output};
use crate::id_set::IdSet;
use crate::now::{MonoUs, Now};
use std::collections::VecDeque;
use tidings_protocol::client::Entry;
use tidings_protocol::codec::{OwnedChange, PollAnswer, Resync, ResyncScope};
use tidings_protocol::{Cursor, ObjectHash, Problem, ShardId, Version};

/// How often a poll waits for more to be closed before it is told things again that did not fit its cursor.
const PATIENCE: u8 = 20;

/// One poll.
#[derive(Debug, Default)]
pub struct PollPage {
    /// Objects to watch from now on, beside those of the session.
    pub entries: Vec<Result<Entry, (String, Problem)>>,
    /// Objects to watch no longer.
    pub remove: Vec<Box<str>>,
    /// The client's cursor. Without one, the answer comes at once with a cursor and no changes.
    pub cursor: Option<String>,
    /// Add shard and epoch to each change.
    pub trace: bool,
}

/// A poll that waits.
#[derive(Debug)]
pub(super) struct PollState {
    cursor: Option<String>,
    refused: Vec<(String, Problem)>,
    /// Its objects are live and compared, save those whose shards have no owner.
    caught_up: bool,
    /// What is to be told does not fit a cursor before more is closed.
    cramped: bool,
    /// How often more was closed since.
    waited: u8,
}

impl PollState {
    /// These will not be heard of.
    pub(super) fn refuse(&mut self, objects: Vec<(String, Problem)>) {
        self.refused.extend(objects);
    }
}

/// Sessions without poll or stream, the one unused for longest first. Entries of sessions that came back are stale.
#[derive(Debug, Default)]
pub(super) struct IdleSessions {
    queue: VecDeque<(MonoUs, SubscriberKey)>,
    pub(super) count: usize,
}

/// An object, the version up to which its subscriber knows it, and its shard.
type Known = (ObjectHash, Version, ShardId);

/// One object that a poll has yet to be told of.
#[derive(Clone, Copy)]
struct News {
    version: Version,
    slot: u32,
    hash: ObjectHash,
    shard: ShardId,
}

impl Lane {
    /// A new session that watches nothing yet. Sessions that stay without poll or stream for too long are forgotten.
    pub fn open_session(&mut self, now: Now) -> SubscriberKey {
        let who = self.subscribers.add(now.mono_us, Sink::free(SinkKind::Poll), false);
        self.idle_since(now, who);
        who
    }

    fn idle_since(&mut self, now: Now, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        subscriber.since_us = now.mono_us;
        self.idle.queue.push_back((now.mono_us, who));
        self.idle.count += 1;
        while self.idle.count > self.config.idle_sessions && self.forget_oldest(now, MonoUs::MAX) {
            self.counters.sessions_evicted += 1;
            self.counters.refusals.sessions += 1;
        }
    }

    /// Forgets the session unused for longest if that was since `before_us`; `false` if there is none.
    pub(super) fn forget_oldest(&mut self, now: Now, before_us: MonoUs) -> bool {
        while let Some(&(since_us, who)) = self.idle.queue.front() {
            let idle = self
                .subscribers
                .get(who)
                .is_some_and(|s| matches!(s.sink, Sink::Idle) && s.since_us == since_us);
            if idle && since_us > before_us {
                return false;
            }
            self.idle.queue.pop_front();
            if idle {
                self.forget(now, who.index);
                return true;
            }
        }
        false
    }

    pub(super) fn expire_sessions(&mut self, now: Now) {
        let Some(before_us) = now.mono_us.checked_sub(self.config.session_us) else {
            return;
        };
        while self.forget_oldest(now, before_us) {}
    }

    pub(super) fn next_session_end(&self) -> Option<MonoUs> {
        self.idle
            .queue
            .front()
            .map(|(since_us, _)| since_us + self.config.session_us + 1)
    }

    /// Ends what a session is doing, so that something newer can take its place.
    fn take_over(&mut self, who: SubscriberKey, out: &mut Vec<Output>) -> Option<&mut Subscriber> {
        let subscriber = self.subscribers.get_mut(who)?;
        match subscriber.sink {
            Sink::Idle => self.idle.count = self.idle.count.saturating_sub(1),
            Sink::Poll(_) | Sink::Stream { .. } => out.push(Output::Superseded { who }),
        }
        self.clear_marks(who);
        let subscriber = self.subscribers.get_mut(who)?;
        subscriber.page = None;
        subscriber.reply = Vec::new();
        subscriber.page_open = false;
        Some(subscriber)
    }

    fn clear_marks(&mut self, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let pending = std::mem::take(&mut subscriber.pending);
        pending.for_each(|slot| self.objects.hints.told(slot));
        subscriber.resync = Vec::new();
    }

    /// A poll of a session. Answered by [`Output::Answer`] as soon as something is newer than its cursor; the shell ends
    /// the wait with [`Lane::poll_over`]. A poll or stream of the same session that is under way gives place to it.
    ///
    /// # Errors
    /// If the session is unknown; nothing was changed.
    pub fn poll(
        &mut self,
        now: Now,
        who: SubscriberKey,
        page: PollPage,
        out: &mut Vec<Output>,
    ) -> Result<(), RequestError> {
        self.take_over(who, out).ok_or(RequestError::Unknown)?;
        for object in &page.remove {
            if let Some(slot) = self.objects.find(object) {
                self.unwatch(now, who, slot);
            }
        }
        let verdict = self.read_cursor(page.cursor.as_deref(), now);
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return Err(RequestError::Unknown);
        };
        subscriber.trace = page.trace;
        subscriber.sink = Sink::Poll(Box::new(PollState {
            cursor: page.cursor,
            refused: Vec::new(),
            caught_up: false,
            cramped: false,
            waited: 0,
        }));
        let page = Page {
            id: None,
            entries: page.entries,
            cursor: None,
            more: false,
        };
        self.open_page(now, who, Purpose::Session, page, verdict, out);
        Ok(())
    }

    /// A stream takes over a session: an EventSource that named it. It is told what is newer than its cursor.
    ///
    /// # Errors
    /// If the session is unknown; nothing was changed.
    pub fn attach(
        &mut self,
        now: Now,
        who: SubscriberKey,
        kind: SinkKind,
        cursor: Option<&str>,
        trace: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), RequestError> {
        let subscriber = self.take_over(who, out).ok_or(RequestError::Unknown)?;
        subscriber.sink = Sink::free(kind);
        subscriber.trace = trace;
        subscriber.stale_told = false;
        subscriber.stuck_since_us = now.mono_us;
        let verdict = self.read_cursor(cursor, now);
        self.schedule_heartbeat(now, who);
        self.open_page(now, who, Purpose::Session, Page::default(), verdict, out);
        Ok(())
    }

    /// The poll or stream of a session ended without our doing. The session stays for a while.
    pub fn detach(&mut self, now: Now, who: SubscriberKey) {
        self.clear_marks(who);
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if matches!(subscriber.sink, Sink::Idle) {
            return;
        }
        subscriber.sink = Sink::Idle;
        subscriber.page = None;
        subscriber.reply = Vec::new();
        subscriber.page_open = false;
        subscriber.farewell = None;
        self.idle_since(now, who);
    }

    /// The poll's page is live and compared.
    pub(super) fn poll_caught_up(&mut self, _now: Now, who: SubscriberKey, mut page: PageInFlight) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if let Sink::Poll(state) = &mut subscriber.sink {
            state.caught_up = true;
            state.refused.extend(refused(&mut page));
            self.make_ready(who.index);
        }
    }

    /// The poll's page is compared as far as its objects are live; the rest may take long.
    pub(super) fn poll_goes_ahead(&mut self, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if let (Sink::Poll(state), Some(page)) = (&mut subscriber.sink, &mut subscriber.page) {
            state.caught_up = true;
            state.refused.extend(refused(page));
        }
    }

    /// The poll's wait is over: it is answered now, with a fresh cursor if all its objects are live, else with its own.
    pub fn poll_over(&mut self, now: Now, who: SubscriberKey, poll_after_ms: Option<u64>, out: &mut Vec<Output>) {
        match self.subscribers.get(who).and_then(|s| s.page.as_ref()) {
            Some(page) if page.at_least_until_us.is_some() => self.at_least_over(now, who, out),
            Some(_) => {
                self.refuse_too_old(now, who);
                let Some(subscriber) = self.subscribers.get_mut(who) else {
                    return;
                };
                if let (Sink::Poll(state), Some(mut page)) = (&mut subscriber.sink, subscriber.page.take()) {
                    state.refused.extend(refused(&mut page));
                    // What it left out no cursor may speak for.
                    subscriber.page = Some(page).filter(|page| page.split);
                }
            }
            None => {}
        }
        self.answer_poll(now, who, Some(poll_after_ms), out);
    }

    /// More is closed now: polls whose news did not fit a cursor may be answered.
    pub(super) fn wake_cramped_polls(&mut self) {
        for who in std::mem::take(&mut self.cramped) {
            if let Some(Sink::Poll(state)) = self.subscribers.get_mut(who).map(|s| &mut s.sink) {
                state.cramped = false;
                state.waited = state.waited.saturating_add(1);
            }
            self.make_ready(who.index);
        }
    }

    /// Answers a poll if there is something to say, or in any case if it is `over`.
    pub(super) fn answer_poll(
        &mut self,
        now: Now,
        who: SubscriberKey,
        over: Option<Option<u64>>,
        out: &mut Vec<Output>,
    ) {
        let Some(subscriber) = self.subscribers.get(who) else {
            return;
        };
        let Sink::Poll(state) = &subscriber.sink else { return };
        let nothing = subscriber.pending.is_empty() && subscriber.resync.is_empty() && state.refused.is_empty();
        let wait = !state.caught_up || (nothing && state.cursor.is_some());
        if wait && over.is_none() {
            return;
        }
        let mut answer = if state.caught_up {
            self.compose_answer(who.index)
        } else {
            None
        };
        if answer.is_none() {
            let Some(subscriber) = self.subscribers.get_mut(who) else {
                return;
            };
            let Sink::Poll(state) = &mut subscriber.sink else {
                return;
            };
            if over.is_none() {
                if !std::mem::replace(&mut state.cramped, true) {
                    self.cramped.push(who);
                }
                return;
            }
            let refused = std::mem::take(&mut state.refused);
            answer = Some(PollAnswer {
                refused,
                cursor: self.own_cursor(who.index),
                ..PollAnswer::default()
            });
        }
        let Some(mut answer) = answer else { return };
        answer.poll_after_ms = over.flatten();
        let told = answer.changes.len() as u64;
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.told += told;
            self.counters.told += told;
        }
        out.push(Output::Answer {
            who,
            answer: Box::new(answer),
        });
        self.detach(now, who);
    }

    /// The cursor the client brought: what is said when nothing better is known. Without one, a cursor that claims
    /// nothing.
    fn own_cursor(&self, index: u32) -> String {
        match self.subscribers.at(index).map(|s| &s.sink) {
            Some(Sink::Poll(state)) if state.cursor.is_some() => state.cursor.clone().unwrap_or_default(),
            _ => Cursor::new(self.config.cluster, Version::ZERO, Vec::new(), Vec::new())
                .encode()
                .unwrap_or_default(),
        }
    }

    /// The answer with as many news as fit, shard by shard, so that the cursor can vouch for all that was told. `None` if
    /// nothing fits before more is closed.
    fn compose_answer(&mut self, index: u32) -> Option<PollAnswer> {
        let subscriber = self.subscribers.at(index)?;
        let Sink::Poll(state) = &subscriber.sink else {
            return None;
        };
        // Nothing was compared of these yet.
        let nothing = IdSet::new();
        let left_out = subscriber.page.as_ref().map_or(&nothing, |page| &page.slots);
        let mut news = Vec::with_capacity(subscriber.pending.len());
        subscriber.pending.for_each(|slot| {
            let hash = self.objects.hash(slot);
            news.push(News {
                version: self.objects.slot(slot).version(),
                slot,
                hash,
                shard: self.config.shards.shard(hash),
            });
        });
        self.by_shard(&mut news);
        let own = state.cursor.as_deref().and_then(|text| Cursor::decode(text).ok());
        let own = own.filter(|own| own.cluster == self.config.cluster);
        let own = own.unwrap_or_else(|| Cursor::new(self.config.cluster, Version::ZERO, Vec::new(), Vec::new()));
        let mut place = self.upstream.place.clone();
        left_out.for_each(|slot| {
            let shard = self.config.shards.shard(self.objects.hash(slot));
            place.hold_back(shard, own.at(shard));
        });
        let known = self.known(subscriber, &own, left_out);
        let fit = self.fitting(&news);
        let (count, cursor) = self.longest_cut(&news, fit, &own, &place, &known, state.waited >= PATIENCE)?;
        let trace = subscriber.trace;
        let changes = news[..count]
            .iter()
            .enumerate()
            .map(|(place, n)| OwnedChange {
                object: self.objects.slot(n.slot).id.as_str().into(),
                version: n.version,
                // Past what fits only names and versions are told.
                hint: self.objects.hints.get(n.slot).filter(|_| place < fit).cloned(),
                trace: trace.then(|| (n.shard, self.upstream.shard(n.shard).epoch)),
            })
            .collect();
        Some(PollAnswer {
            changes,
            resync: self.poll_resync(subscriber),
            refused: state.refused.clone(),
            cursor,
            session: None,
            more: count < news.len(),
            poll_after_ms: None,
        })
    }

    /// How many of the news fit one answer's bytes; at least one.
    fn fitting(&self, news: &[News]) -> usize {
        let mut left = self.config.batch_bytes;
        let fitting = news.iter().take_while(|n| {
            let bytes = self.change_bytes(n.slot);
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        });
        fitting.count().max(1).min(news.len())
    }

    /// The news of each shard together, the oldest first, and the shards in the order of their oldest.
    fn by_shard(&self, news: &mut [News]) {
        let mut oldest = vec![Version(u64::MAX); self.config.shards.get().into()];
        for n in news.iter() {
            let of_shard = &mut oldest[usize::from(n.shard.0)];
            *of_shard = (*of_shard).min(n.version);
        }
        news.sort_unstable_by_key(|n| (oldest[usize::from(n.shard.0)], n.shard, n.version));
    }

    /// How many of the news to tell, and the cursor that vouches for them. `None` if it is better to wait until more is
    /// closed.
    ///
    /// A shard of which anything is left untold stays where the client's own cursor had it, and everything told above
    /// that must be listed. So where too much would have to be listed, the cut is made between two shards: all news of
    /// one are told together, whatever they take.
    fn longest_cut(
        &self,
        news: &[News],
        fit: usize,
        own: &Cursor,
        place: &Place,
        known: &[Known],
        impatient: bool,
    ) -> Option<(usize, String)> {
        let whole = |count: usize| match count.checked_sub(1) {
            Some(last) => {
                let behind = news[last..].iter().take_while(|n| n.shard == news[last].shard);
                last + behind.count()
            }
            None => 0,
        };
        let some = fit.min(Cursor::MAX_TOLD);
        for count in [fit, whole(fit), some, whole(1)] {
            let cursor = self.cursor_after(own, place, known, news, count);
            if let Ok(text) = cursor.encode().or_else(|_| cursor.coarser().encode()) {
                return Some((count, text));
            }
        }
        if !impatient {
            return None;
        }
        // A shard closes nothing. What the client knew before may be told again.
        let cursor = self.cursor_after(own, place, &[], news, some).coarser().encode().ok()?;
        Some((some, cursor))
    }

    /// The place of a client that knows the first `count` of the news and, of its other objects, what is `known`.
    ///
    /// The newest version of an object that is left untold says nothing about the first one that its client missed: that
    /// one may be acknowledged, and the newest lost with its owner before anybody kept it. Only the client's own cursor is
    /// sure to lie below both.
    fn cursor_after(&self, own: &Cursor, place: &Place, known: &[Known], news: &[News], count: usize) -> Cursor {
        let mut place = place.clone();
        for untold in &news[count..] {
            place.hold_back(untold.shard, own.at(untold.shard));
        }
        let told = news[..count].iter().map(|n| (n.hash, n.version, n.shard));
        let told = known.iter().copied().chain(told);
        let above = told.filter(|&(_, version, shard)| version > place.at(shard));
        let told = above.map(|(hash, version, _)| (hash, version)).collect();
        Cursor::new(self.config.cluster, place.base, place.lagging.clone(), told)
    }

    /// What a client knows of those of its objects that it need not be told of now, as far as the cursor may have to say
    /// so: because its cursor covers it, perhaps beyond what this lane has heard; because it was told before; because it
    /// fetches them after this answer, which is its first or tells it to.
    fn known(&self, subscriber: &Subscriber, own: &Cursor, left_out: &IdSet) -> Vec<Known> {
        let place = &self.upstream.place;
        let mut known = Vec::new();
        subscriber.slots.for_each(|slot| {
            if subscriber.pending.contains(slot) || left_out.contains(slot) {
                return;
            }
            let (version, hash) = (self.objects.slot(slot).version(), self.objects.hash(slot));
            let shard = self.config.shards.shard(hash);
            // That it was told to fetch it is known from nothing but its cursor.
            let said = own.told(hash).filter(|_| !subscriber.is_to_fetch(slot));
            let version = version.max(said.unwrap_or_default());
            if version > own.at(shard).min(place.at(shard)) {
                known.push((hash, version, shard));
            }
        });
        for resync in &subscriber.resync {
            // Up to the floor, or a shard that closes nothing yet would have the next poll told the same at once.
            resync.slots.for_each(|slot| {
                let hash = self.objects.hash(slot);
                let shard = self.config.shards.shard(hash);
                known.push((hash, self.upstream.shard(shard).floor.before(), shard));
            });
        }
        known
    }

    fn poll_resync(&self, subscriber: &Subscriber) -> Option<Resync> {
        let all = &subscriber.resync;
        let cause = all.first()?.cause;
        let scope = if subscriber.resync_due() == subscriber.slots.len() {
            ResyncScope::All
        } else {
            let mut objects = Vec::new();
            for resync in all.iter() {
                resync
                    .slots
                    .for_each(|slot| objects.push(self.objects.slot(slot).id.as_str().into()));
            }
            ResyncScope::Objects(objects)
        };
        Some(Resync { scope, cause })
    }
}

/// Takes out what a page refused.
fn refused(page: &mut PageInFlight) -> Vec<(String, Problem)> {
    let is_refused = |entry: &PageEntry| matches!(entry, PageEntry::Refused(_));
    let (refused, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut page.entries).into_iter().partition(is_refused);
    page.entries = kept;
    let refused = refused.into_iter().filter_map(|entry| match entry {
        PageEntry::Refused(refused) => Some(*refused),
        PageEntry::Watched { .. } => None,
    });
    refused.collect()
}
