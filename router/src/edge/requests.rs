//! What clients ask for on a live connection: subscribe in pages, unsubscribe. One request of a subscriber at a time.

use super::place::CursorVerdict;
use super::subscribers::SubscriberKey;
use super::{Lane, Output};
use crate::id_set::IdSet;
use crate::now::{MonoUs, Now};
use tidings_protocol::client::Entry;
use tidings_protocol::codec::{self, Encoding, RequestId};
use tidings_protocol::{Code, Problem, Version};

/// One `subscribe`.
#[derive(Debug, Default)]
pub struct Page {
    /// How the client named the request.
    pub id: Option<RequestId>,
    /// The objects; what is no object ID is refused in its place.
    pub entries: Vec<Result<Entry, (String, Problem)>>,
    /// The client's cursor.
    pub cursor: Option<String>,
    /// More pages follow: no cursor before the last one is answered.
    pub more: bool,
}

/// Why a request was not taken. **Nothing was changed.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The subscriber is gone.
    #[error("no such subscriber")]
    Unknown,
    /// Its last request is not answered yet: wait for [`Output::MayRequest`].
    #[error("a request of this subscriber is under way")]
    Busy,
}

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Subscribe,
    /// All of the session's objects are compared, not only the page's.
    Session,
}

#[derive(Debug)]
pub(super) enum PageEntry {
    Watched {
        slot: u32,
        known: Version,
        at_least: Version,
        added: bool,
    },
    Refused(Box<(String, Problem)>),
}

impl PageEntry {
    /// The version that the client said it knows of this object.
    pub(super) fn known(&self) -> Option<(u32, Version)> {
        match *self {
            Self::Watched { slot, known, .. } if known > Version::ZERO => Some((slot, known)),
            Self::Watched { .. } | Self::Refused(_) => None,
        }
    }
}

/// A page whose objects are not all live here yet.
#[derive(Debug)]
pub(super) struct PageInFlight {
    pub(super) purpose: Purpose,
    pub(super) id: Option<RequestId>,
    pub(super) entries: Vec<PageEntry>,
    /// The page's objects: nothing is told of them before the page is answered.
    pub(super) slots: IdSet,
    /// Those of them that the subscriber did not watch before.
    added: IdSet,
    pub(super) verdict: CursorVerdict,
    pub(super) more: bool,
    /// Places in queues for owners' answers.
    pub(super) waits: usize,
    /// All objects are live; only `at_least` is waited for, until then.
    pub(super) at_least_until_us: Option<MonoUs>,
    /// Only those of `slots` are yet to be compared: the others were when they were live and these were not.
    pub(super) split: bool,
}

impl PageInFlight {
    /// The page has nothing to do with this object any more.
    pub(super) fn forget(&mut self, slot: u32) {
        self.slots.remove(slot);
        self.added.remove(slot);
    }

    /// Whether the object is yet to be compared with what the client knows.
    pub(super) fn will_compare(&self, slot: u32) -> bool {
        let comparing = self.at_least_until_us.is_none();
        let in_time = !self.split || self.slots.contains(slot);
        comparing && in_time && (self.purpose == Purpose::Session || self.added.contains(slot))
    }
}

/// The owners' answers that a page needs.
#[derive(Debug, Default)]
struct Needed {
    /// Owner and number of the answer.
    answers: Vec<(usize, u64)>,
    /// Some shard has no owner to ask.
    orphaned: bool,
}

impl Needed {
    fn add(&mut self, ask: Option<(usize, u64)>) {
        match ask {
            Some(ask) if !self.answers.contains(&ask) => self.answers.push(ask),
            Some(_) => {}
            None => self.orphaned = true,
        }
    }
}

impl Lane {
    /// Whether the subscriber's next request may be handed in. If not, [`Output::MayRequest`] will say when.
    #[must_use]
    pub fn may_request(&self, who: SubscriberKey) -> bool {
        self.subscribers
            .get(who)
            .is_some_and(|s| s.page.is_none() && s.reply.is_empty() && !s.sink.busy() && s.farewell.is_none())
    }

    pub(super) fn offer_request(&self, who: SubscriberKey, out: &mut Vec<Output>) {
        if self.may_request(who) {
            out.push(Output::MayRequest { who });
        }
    }

    /// Subscribes to a page of objects. Answered by `subscribed` when all of them are live here.
    ///
    /// # Errors
    /// If the subscriber is unknown or its last request is not answered yet; nothing was changed.
    pub fn subscribe(
        &mut self,
        now: Now,
        who: SubscriberKey,
        page: Page,
        out: &mut Vec<Output>,
    ) -> Result<(), RequestError> {
        let subscriber = self.subscribers.get(who).ok_or(RequestError::Unknown)?;
        if subscriber.page.is_some() {
            return Err(RequestError::Busy);
        }
        let verdict = self.read_cursor(page.cursor.as_deref(), now);
        self.open_page(now, who, Purpose::Subscribe, page, verdict, out);
        Ok(())
    }

    /// Takes in a page's objects and waits for the owners' answers.
    pub(super) fn open_page(
        &mut self,
        now: Now,
        who: SubscriberKey,
        purpose: Purpose,
        page: Page,
        verdict: CursorVerdict,
        out: &mut Vec<Output>,
    ) {
        let mut entries = Vec::with_capacity(page.entries.len());
        let (mut slots, mut added_slots) = (IdSet::new(), IdSet::new());
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.slots.reserve(page.entries.len());
            slots.reserve(page.entries.len());
        }
        let mut needed = Needed::default();
        for entry in page.entries {
            let entry = match entry {
                Ok(entry) => self.watch(now, who, entry, &mut needed),
                Err(refused) => PageEntry::Refused(Box::new(refused)),
            };
            if let PageEntry::Watched { slot, added, .. } = entry {
                slots.insert(slot);
                if added {
                    added_slots.insert(slot);
                }
            }
            entries.push(entry);
            if self.upstream.full() {
                self.flush_upstream(out);
            }
        }
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if purpose == Purpose::Session {
            // An earlier poll may have ended before its objects were live; no cursor may speak for them until they are.
            let objects = &self.objects;
            subscriber.slots.for_each(|slot| {
                if !objects.slot(slot).registered() {
                    slots.insert(slot);
                }
            });
        }
        subscriber.page_open = page.more;
        subscriber.page = Some(Box::new(PageInFlight {
            purpose,
            id: page.id,
            entries,
            slots,
            added: added_slots,
            verdict,
            more: page.more,
            waits: 0,
            at_least_until_us: None,
            split: false,
        }));
        self.queue_behind(who, &needed);
        self.flush_upstream(out);
        self.page_progress(now, who, out);
    }

    /// Enters one object into what the subscriber watches.
    fn watch(&mut self, now: Now, who: SubscriberKey, entry: Entry, needed: &mut Needed) -> PageEntry {
        if let Some(problem) = self.refuse_one_more(now, who, &entry.object) {
            return PageEntry::Refused(Box::new((entry.object.into(), problem)));
        }
        let (slot, hash, new) = self.objects.intern(entry.object);
        let shard = self.config.shards.shard(hash);
        if new {
            needed.add(self.upstream.register(shard, hash));
        } else if !self.objects.slot(slot).registered() {
            needed.add(self.upstream.latest_ask(shard));
        }
        let added = self
            .subscribers
            .get_mut(who)
            .is_some_and(|subscriber| subscriber.slots.insert(slot));
        if added {
            self.objects.watch(slot, who.index);
        }
        PageEntry::Watched {
            slot,
            known: entry.version.unwrap_or_default(),
            at_least: entry.at_least.unwrap_or_default(),
            added,
        }
    }

    /// Why the subscriber may not watch one more object, if this is one more.
    fn refuse_one_more(&mut self, now: Now, who: SubscriberKey, object: &str) -> Option<Problem> {
        let Some(subscriber) = self.subscribers.get(who) else {
            return Some(Problem::new(Code::SessionUnknown, "the subscriber is gone"));
        };
        let (limit, limit_here) = (self.config.objects_per_subscriber, self.config.subscriptions);
        let full = subscriber.slots.len() >= limit;
        let crowded = self.objects.subscriptions >= limit_here;
        if !full && !crowded
            || self
                .objects
                .find(object)
                .is_some_and(|slot| subscriber.slots.contains(slot))
        {
            return None;
        }
        if full {
            self.counters.refusals.objects += 1;
            let detail = format!("`objects`: a subscriber watches at most {limit} objects");
            return Some(Problem::new(Code::TooManyObjects, detail));
        }
        // Sessions that nobody uses at the moment lose least: their clients send the list again.
        while self.objects.subscriptions >= limit_here {
            if !self.forget_oldest(now, MonoUs::MAX) {
                self.counters.refusals.subscriptions += 1;
                let detail = format!("this server keeps at most {limit_here} subscriptions on one of its threads");
                return Some(Problem::new(Code::TooMany, detail));
            }
            self.counters.sessions_evicted += 1;
            self.counters.refusals.sessions += 1;
        }
        None
    }

    /// Queues the subscriber's page behind the owners' answers that it still needs.
    pub(super) fn wait_for_answers(&mut self, who: SubscriberKey) {
        let Some(page) = self.subscribers.get(who).and_then(|s| s.page.as_ref()) else {
            return;
        };
        let mut needed = Needed::default();
        page.slots.for_each(|slot| {
            if !self.objects.slot(slot).registered() {
                needed.add(
                    self.upstream
                        .latest_ask(self.config.shards.shard(self.objects.hash(slot))),
                );
            }
        });
        self.queue_behind(who, &needed);
    }

    fn queue_behind(&mut self, who: SubscriberKey, needed: &Needed) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let Some(page) = &mut subscriber.page else { return };
        page.waits += needed.answers.len();
        for &(owner, answer) in &needed.answers {
            self.upstream.wait(owner, answer, who);
        }
        if needed.orphaned && !subscriber.orphan {
            subscriber.orphan = true;
            self.upstream.orphans.push(who);
        }
    }

    /// An owner's answer arrived that the subscriber's page was queued behind.
    pub(super) fn answer_arrived(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        let Some(page) = self.subscribers.get_mut(who).and_then(|s| s.page.as_mut()) else {
            return;
        };
        page.waits = page.waits.saturating_sub(1);
        if page.waits == 0 {
            self.page_progress(now, who, out);
        }
    }

    /// Answers the page if all its objects are live and new enough.
    pub(super) fn page_progress(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        let Some(subscriber) = self.subscribers.get(who) else {
            return;
        };
        let Some(page) = &subscriber.page else { return };
        if page.waits > 0 || page.at_least_until_us.is_some() {
            return;
        }
        // A poll waits for a version as long as the poll itself may.
        let patience_us = subscriber
            .sink
            .encoding()
            .map_or(MonoUs::MAX, |_| self.config.at_least_us);
        let mut live = true;
        page.slots.for_each(|slot| live &= self.objects.slot(slot).registered());
        if !live {
            self.wait_for_answers(who);
            self.go_ahead_without_orphans(who);
            return;
        }
        self.compare_page(who, false);
        if self.wants_newer(who) {
            let until_us = now.mono_us.saturating_add(patience_us);
            let Some(subscriber) = self.subscribers.get_mut(who) else {
                return;
            };
            if let Some(page) = &mut subscriber.page {
                page.at_least_until_us = Some(until_us);
                self.wheel.schedule(subscriber, who.index, until_us);
                self.upstream.at_least_waiters.push(who);
            }
            return;
        }
        self.answer_page(now, who, out);
    }

    /// Whether some object of the page is not yet at the version it must be at least at.
    fn wants_newer(&self, who: SubscriberKey) -> bool {
        let Some(page) = self.subscribers.get(who).and_then(|s| s.page.as_ref()) else {
            return false;
        };
        page.entries.iter().any(|entry| match entry {
            PageEntry::Watched { slot, at_least, .. } => !self.includes(*slot, *at_least),
            PageEntry::Refused(_) => false,
        })
    }

    /// Whether the state known here includes a version of an object: it is that new, or it is live and the shard is
    /// closed up to there.
    fn includes(&self, slot: u32, at_least: Version) -> bool {
        let entry = self.objects.slot(slot);
        at_least == Version::ZERO
            || entry.version() >= at_least
            || entry.registered()
                && self
                    .upstream
                    .shard(self.config.shards.shard(self.objects.hash(slot)))
                    .closed
                    >= at_least
    }

    /// After news from the owners: pages that waited for a version.
    pub(super) fn check_at_least(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.upstream.at_least_waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.upstream.at_least_waiters);
        // A session whose poll gave place to another may stand here once for each.
        waiters.sort_unstable_by_key(|who| (who.index, who.generation));
        waiters.dedup();
        for who in waiters {
            let waits = |page: &PageInFlight| page.at_least_until_us.is_some();
            if !self
                .subscribers
                .get(who)
                .and_then(|s| s.page.as_deref())
                .is_some_and(waits)
            {
                continue;
            }
            if self.wants_newer(who) {
                self.upstream.at_least_waiters.push(who);
            } else {
                self.answer_page(now, who, out);
            }
        }
    }

    /// Time is up: what is still too old is refused, the rest answered.
    pub(super) fn at_least_over(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        self.refuse_too_old(now, who);
        self.answer_page(now, who, out);
    }

    /// Refuses the page's objects that are not yet at the version they must be at least at.
    pub(super) fn refuse_too_old(&mut self, now: Now, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let Some(mut page) = subscriber.page.take() else { return };
        for entry in &mut page.entries {
            let PageEntry::Watched {
                slot, at_least, added, ..
            } = *entry
            else {
                continue;
            };
            if self.includes(slot, at_least) {
                continue;
            }
            let id: String = self.objects.slot(slot).id.as_str().to_owned();
            let detail = format!("`at_least`: version {at_least} of this object is not known here yet");
            *entry = PageEntry::Refused(Box::new((id, Problem::new(Code::NotYet, detail))));
            if added {
                self.unwatch(now, who, slot);
            }
        }
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.page = Some(page);
        }
    }

    fn answer_page(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let Some(page) = subscriber.page.take() else { return };
        match subscriber.sink.encoding() {
            Some(encoding) => {
                let reply = &mut subscriber.reply;
                let objects = &self.objects;
                let refused = page.entries.iter().filter_map(|entry| match entry {
                    PageEntry::Refused(refused) => Some((refused.0.as_str(), &refused.1)),
                    PageEntry::Watched { .. } => None,
                });
                if encoding == Encoding::EventStream {
                    if refused.clone().next().is_some() {
                        codec::refused(encoding, reply, refused);
                    }
                } else {
                    codec::subscribed(
                        encoding,
                        reply,
                        page.id.as_ref(),
                        page.entries.iter().map(|entry| match entry {
                            PageEntry::Watched { slot, .. } => {
                                let slot = objects.slot(*slot);
                                (slot.id.as_str(), Ok(slot.version()))
                            }
                            PageEntry::Refused(refused) => (refused.0.as_str(), Err(&refused.1)),
                        }),
                    );
                }
                subscriber.cursor_owed = !page.more;
                self.make_ready(who.index);
                self.offer_request(who, out);
            }
            None => self.poll_caught_up(now, who, *page),
        }
    }

    /// Takes an object out of what a subscriber watches.
    pub(super) fn unwatch(&mut self, now: Now, who: SubscriberKey, slot: u32) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if !subscriber.slots.remove(slot) {
            return;
        }
        if subscriber.pending.remove(slot) {
            self.objects.hints.told(slot);
        }
        subscriber.drop_resync(slot);
        self.objects
            .unwatch(slot, who.index, now.mono_us, self.config.linger_us);
    }

    /// Ends subscriptions. After `unsubscribed` nothing more is told of them. Objects that were not subscribed to are
    /// passed over.
    ///
    /// # Errors
    /// If the subscriber is unknown or its last request is not answered yet; nothing was changed.
    pub fn unsubscribe(
        &mut self,
        now: Now,
        who: SubscriberKey,
        id: Option<&RequestId>,
        objects: impl Iterator<Item = impl AsRef<str>>,
        out: &mut Vec<Output>,
    ) -> Result<(), RequestError> {
        let subscriber = self.subscribers.get(who).ok_or(RequestError::Unknown)?;
        if subscriber.page.is_some() {
            return Err(RequestError::Busy);
        }
        for object in objects {
            if let Some(slot) = self.objects.find(object.as_ref()) {
                self.unwatch(now, who, slot);
            }
        }
        self.respond(who, |encoding, reply| codec::unsubscribed(encoding, reply, id));
        self.flush_upstream(out);
        Ok(())
    }

    /// Queues a direct answer, encoded by `write`, to be written before anything else.
    pub fn respond(&mut self, who: SubscriberKey, write: impl FnOnce(Encoding, &mut Vec<u8>)) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let Some(encoding) = subscriber.sink.encoding() else {
            return;
        };
        write(encoding, &mut subscriber.reply);
        self.make_ready(who.index);
    }
}
