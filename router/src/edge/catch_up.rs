//! Catch-up: what a subscriber missed, by comparing versions. There is no other recovery.

use super::Lane;
use super::place::CursorVerdict;
use super::requests::{PageEntry, PageInFlight, Purpose};
use super::subscribers::{Sink, SubscriberKey};
use crate::id_set::IdSet;
use tidings_protocol::Version;
use tidings_protocol::codec::Encoding;

/// What comparing says about one object of one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    /// There is a newer version than the one it knows.
    Newer,
    /// Nobody can say what it missed, for this reason.
    Unknown(&'static str),
}

/// Compares what the lane knows of an object with what the client knows of it.
///
/// A version at or above the floor is the newest there is. Below the floor a newer one may have been lost, so whoever
/// knows less than the floor vouches for must fetch (rule R1); this holds for known versions and cursors alike.
fn missed(version: Version, floor: Version, known: Version) -> bool {
    version < floor && known < floor.before()
}

/// Whether what is live of a page may be told before the rest is. A WebSocket is told of none before `subscribed`, which names
/// all; a poll without a cursor starts from now, which is when all are live.
fn may_go_ahead(page: &PageInFlight, sink: &Sink) -> bool {
    let told_apart = match sink {
        Sink::Poll(_) => page.verdict != CursorVerdict::None,
        Sink::Stream { encoding, .. } => *encoding == Encoding::EventStream,
        Sink::Idle => false,
    };
    let waits_for_version =
        |entry: &PageEntry| matches!(entry, PageEntry::Watched { at_least, .. } if *at_least > Version::ZERO);
    told_apart && page.waits == 0 && !page.entries.iter().any(waits_for_version)
}

impl Lane {
    /// Where nothing is waited for but shards without an owner, which may last: who watches objects of others too hears of
    /// those meanwhile. No cursor says anything about the objects left out: a stream gets none, and the answer to a poll leaves
    /// their shards where the client's own cursor had them (rule R4).
    pub(super) fn go_ahead_without_orphans(&mut self, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get(who) else {
            return;
        };
        let ahead = subscriber
            .page
            .as_ref()
            .is_some_and(|p| may_go_ahead(p, &subscriber.sink));
        if !ahead {
            return;
        }
        self.compare_page(who, true);
        self.poll_goes_ahead(who);
        self.make_ready(who.index);
    }

    /// Notes what the subscriber missed of the page's objects (of all its objects for a session), or only of those of them
    /// that are live. The others are left to be compared.
    pub(super) fn compare_page(&mut self, who: SubscriberKey, only_live: bool) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let Some(mut page) = subscriber.page.take() else { return };
        let mut known: Vec<(u32, Version)> = page.entries.iter().filter_map(PageEntry::known).collect();
        known.sort_unstable();
        let slots = match page.purpose {
            _ if page.split => page.slots.to_vec(),
            Purpose::Session => subscriber.slots.to_vec(),
            Purpose::Subscribe => {
                let watched = |entry: &PageEntry| match *entry {
                    PageEntry::Watched { slot, .. } => Some(slot),
                    PageEntry::Refused(_) => None,
                };
                page.entries.iter().filter_map(watched).collect()
            }
        };
        let mut left = IdSet::new();
        for slot in slots {
            if only_live && !self.objects.slot(slot).registered() {
                left.insert(slot);
                continue;
            }
            let at = known.partition_point(|&(s, _)| s <= slot);
            let known = at.checked_sub(1).map(|at| known[at]).filter(|&(s, _)| s == slot);
            self.catch_up(who.index, slot, &page.verdict, known.map_or(Version::ZERO, |(_, v)| v));
        }
        if only_live {
            (page.slots, page.split) = (left, true);
        } else {
            page.verdict = CursorVerdict::None;
        }
        if let Some(subscriber) = self.subscribers.get_mut(who) {
            subscriber.page = Some(page);
        }
    }

    /// Compares one object with the client's cursor and with the version it said it knows (zero: none), and notes what
    /// it missed.
    pub(super) fn catch_up(&mut self, index: u32, slot: u32, verdict: &CursorVerdict, known: Version) {
        if known == Version::ZERO && *verdict == CursorVerdict::None {
            // It starts from now: there is nothing to compare with.
            return;
        }
        let hash = self.objects.hash(slot);
        let shard_id = self.config.shards.shard(hash);
        let shard = self.upstream.shard(shard_id);
        let version = self.objects.slot(slot).version();
        let outcome = match verdict {
            CursorVerdict::Resync(cause) => Missed::Unknown(cause),
            CursorVerdict::None | CursorVerdict::At(_) => {
                let known = match verdict {
                    CursorVerdict::At(cursor) => known
                        .max(cursor.at(shard_id))
                        .max(cursor.told(hash).unwrap_or_default()),
                    CursorVerdict::None | CursorVerdict::Resync(_) => known,
                };
                if missed(version, shard.floor, known) {
                    Missed::Unknown(shard.cause.as_str())
                } else if version > known {
                    Missed::Newer
                } else {
                    Missed::Nothing
                }
            }
        };
        match outcome {
            Missed::Nothing => {}
            Missed::Newer => self.pend(index, slot),
            Missed::Unknown(cause) => self.resync(index, slot, cause),
        }
    }

    /// One subscriber must fetch one object again.
    fn resync(&mut self, index: u32, slot: u32, cause: &'static str) {
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if subscriber.sink.gathers() && subscriber.add_resync(slot, cause) {
            self.counters.resyncs_of(cause);
            self.make_ready(index);
        }
    }

    /// Everyone who watches the object must fetch it again.
    pub(super) fn resync_watchers(&mut self, slot: u32, cause: &'static str) {
        for index in self.objects.slot(slot).watchers.to_vec() {
            if !self.subscribers.at(index).is_some_and(|s| s.gathers(slot)) {
                continue;
            }
            self.resync(index, slot, cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_lost_below_the_floor_is_in_doubt_for_whoever_knows_less() {
        let floor = Version(100);
        assert!(
            missed(Version(0), floor, Version(98)),
            "knows up to 98; 99 may have been lost"
        );
        assert!(
            !missed(Version(0), floor, Version(99)),
            "knows all that may have been lost"
        );
        assert!(
            missed(Version(50), floor, Version(10)),
            "50 is known, but a newer one may have been lost"
        );
        assert!(
            !missed(Version(100), floor, Version(10)),
            "what the owner vouches for is the newest"
        );
        assert!(
            !missed(Version(0), Version(0), Version(0)),
            "a table that never lost anything"
        );
    }
}
