//! The sending side of a link from an owner to an edge: what it has yet to hear, and when it may be told `Closed`.
//!
//! A link has a window of changes that were sent and not yet handled. While it is open, changes are sent as they come.
//! Once it is full they wait, at most one per object: a newer one *replaces* the waiting older one, so a slow edge costs
//! one entry per object it wants, and catches up to the present, never through history.
//!
//! # Order
//! `Own`, `Gone` and `Registered` are sent at once, ahead of changes that wait. That is safe, because a change that waits
//! is overtaken only by what knows more than it does:
//! - `Registered` reads the newest version, which is at least the one that waits; that one is told once more, later.
//! - `Own` is sent in the step that begins its epoch, so before any change of it; a raised floor covers versions below
//!   it, and a waiting change below it is told all the same.
//! - `Gone` ends what the link is promised of a shard, and its waiting changes are dropped in the same step.
//!
//! `Closed` must not overtake: it says that every change up to it was sent. While anything waits, none is due.
//!
//! It does not know sockets, what an edge is, or which objects it wants, and never drops a change silently: only a hint,
//! and it counts them.

use crate::now::MonoUs;
use hashbrown::HashMap;
use std::collections::VecDeque;
use tidings_protocol::ObjectHash;
use tidings_protocol::peer::Changed;

/// What became of an offered change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It goes out with [`Link::take_ready`].
    Ready,
    /// It waits for the window.
    Waits,
    /// It replaced an older change of the object that waited.
    Coalesced,
}

/// Bounds of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Changes that may be sent and not yet handled; at least 1. More bridges longer roads, and lets more stale changes
    /// pile up in front of a slow edge.
    pub window_changes: u32,
    /// Bytes of hints that may wait. Beyond it changes wait without theirs.
    pub hint_bytes: usize,
    /// From one `Closed` to the next while something was sent in between, in microseconds.
    pub closed_busy_us: u64,
    /// From one `Closed` to the next on a silent link, in microseconds.
    pub closed_idle_us: u64,
}

/// One receiver's link. See the module.
#[derive(Debug)]
pub struct Link {
    limits: Limits,
    in_flight: u32,
    /// Within the window, to be sent before this step ends.
    ready: Vec<Changed>,
    waiting: Waiting,
    hints_dropped: u64,
    /// When the last `Closed` was sent, if any was.
    closed_us: Option<MonoUs>,
    sent_since_closed: bool,
}

impl Link {
    /// A link on which nothing was sent and a `Closed` is due at once.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            window_changes: limits.window_changes.max(1),
            ..limits
        };
        Self {
            limits,
            in_flight: 0,
            ready: Vec::new(),
            waiting: Waiting::default(),
            hints_dropped: 0,
            closed_us: None,
            sent_since_closed: false,
        }
    }

    /// Takes a change of an object that the edge wants.
    pub fn offer(&mut self, mut change: Changed) -> Offered {
        if self.in_flight < self.limits.window_changes {
            debug_assert!(self.waiting.is_empty(), "changes wait only while the window is full");
            self.in_flight += 1;
            self.ready.push(change);
            return Offered::Ready;
        }
        let freed = self.waiting.hint_bytes_of(change.object);
        let bytes = change.hint.as_ref().map_or(0, |hint| hint.bytes());
        if self.waiting.hint_bytes - freed + bytes > self.limits.hint_bytes {
            self.hints_dropped += u64::from(change.hint.take().is_some());
        }
        if self.waiting.put(change) {
            Offered::Coalesced
        } else {
            Offered::Waits
        }
    }

    /// The edge has handled this many changes: as many that wait become ready. `false` if it claims more than it was
    /// sent; then everything counts as handled.
    pub fn handled(&mut self, changes: u32) -> bool {
        let honest = changes <= self.in_flight;
        self.in_flight = self.in_flight.saturating_sub(changes);
        while self.in_flight < self.limits.window_changes {
            let Some(change) = self.waiting.take_first() else { break };
            self.in_flight += 1;
            self.ready.push(change);
        }
        honest
    }

    /// Whether changes are ready to be sent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The changes for one frame, to be sent in this very step.
    pub fn take_ready(&mut self) -> Vec<Changed> {
        self.sent_since_closed |= self.is_ready();
        std::mem::take(&mut self.ready)
    }

    /// Something other than changes and `Closed` was sent.
    pub fn sent(&mut self) {
        self.sent_since_closed = true;
    }

    /// The edge no longer wants this object.
    pub fn forget(&mut self, object: ObjectHash) {
        self.waiting.remove(object);
    }

    /// The edge is no longer promised the objects for which `gone` holds.
    pub fn forget_where(&mut self, gone: impl Fn(ObjectHash) -> bool) {
        self.waiting.remove_where(gone);
    }

    /// How many changes wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.waiting.places.len()
    }

    /// How many hints were dropped for want of room.
    #[must_use]
    pub fn hints_dropped(&self) -> u64 {
        self.hints_dropped
    }

    /// When the next `Closed` is due: never while changes wait.
    #[must_use]
    pub fn closed_due_us(&self) -> Option<MonoUs> {
        let after = if self.sent_since_closed {
            self.limits.closed_busy_us
        } else {
            self.limits.closed_idle_us
        };
        let due_us = self.closed_us.map_or(0, |last_us| last_us.saturating_add(after));
        (self.waiting.is_empty() && !self.is_ready()).then_some(due_us)
    }

    /// A `Closed` was sent.
    pub fn closed(&mut self, now_us: MonoUs) {
        self.closed_us = Some(now_us);
        self.sent_since_closed = false;
    }
}

/// Changes that wait, in the order in which their objects began to.
#[derive(Debug, Default)]
struct Waiting {
    /// `None` where a change was taken out of the middle.
    queue: VecDeque<Option<Changed>>,
    /// Where in the queue each object waits, counted from the first change that ever did.
    places: HashMap<ObjectHash, u64>,
    /// How many have left the queue at the front.
    left: u64,
    hint_bytes: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn at(&mut self, object: ObjectHash) -> Option<&mut Option<Changed>> {
        let place = *self.places.get(&object)?;
        self.queue.get_mut(usize::try_from(place - self.left).ok()?)
    }

    fn hint_bytes_of(&mut self, object: ObjectHash) -> usize {
        self.at(object).map_or(0, |waiting| hint_bytes(waiting.as_ref()))
    }

    /// Whether an older change of the object waited.
    fn put(&mut self, change: Changed) -> bool {
        let object = change.object;
        let bytes = hint_bytes(Some(&change));
        if let Some(waiting) = self.at(object) {
            let freed = hint_bytes(waiting.as_ref());
            *waiting = Some(change);
            self.hint_bytes = self.hint_bytes - freed + bytes;
            return true;
        }
        self.places.insert(object, self.left + self.queue.len() as u64);
        self.queue.push_back(Some(change));
        self.hint_bytes += bytes;
        false
    }

    fn take_first(&mut self) -> Option<Changed> {
        while let Some(first) = self.queue.pop_front() {
            self.left += 1;
            if let Some(change) = first {
                self.places.remove(&change.object);
                self.hint_bytes -= hint_bytes(Some(&change));
                self.give_back();
                return Some(change);
            }
        }
        None
    }

    fn remove(&mut self, object: ObjectHash) {
        let Some(change) = self.at(object).and_then(Option::take) else {
            return;
        };
        self.places.remove(&object);
        self.hint_bytes -= hint_bytes(Some(&change));
        if self.queue.len() > 64 && self.queue.len() > 2 * self.places.len() {
            self.remove_where(|_| false);
        }
        self.give_back();
    }

    /// Takes these objects out and closes the gaps.
    fn remove_where(&mut self, gone: impl Fn(ObjectHash) -> bool) {
        self.queue
            .retain(|waiting| waiting.as_ref().is_some_and(|change| !gone(change.object)));
        self.places.clear();
        self.hint_bytes = 0;
        for (place, change) in self.queue.iter().flatten().enumerate() {
            self.places.insert(change.object, self.left + place as u64);
            self.hint_bytes += hint_bytes(Some(change));
        }
        self.give_back();
    }

    /// An empty waiting room holds no memory.
    fn give_back(&mut self) {
        if self.places.is_empty() {
            *self = Self::default();
        }
    }
}

fn hint_bytes(change: Option<&Changed>) -> usize {
    change
        .and_then(|change| change.hint.as_ref())
        .map_or(0, |hint| hint.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidings_protocol::{Hint, Version};

    fn link(window_changes: u32) -> Link {
        let limits = Limits {
            window_changes,
            hint_bytes: 200,
            closed_busy_us: 50,
            closed_idle_us: 1_000,
        };
        Link::new(limits)
    }

    fn change(object: u64, version: u64) -> Changed {
        Changed {
            object: ObjectHash(object),
            version: Version(version),
            hint: None,
        }
    }

    fn with_data(object: u64, version: u64, bytes: usize) -> Changed {
        let hint = Hint {
            kind: None,
            data: Some("x".repeat(bytes).into()),
        };
        Changed {
            hint: Some(Arc::new(hint)),
            ..change(object, version)
        }
    }

    #[test]
    fn changes_go_straight_out_while_the_window_is_open() {
        let mut link = link(2);
        assert_eq!(link.offer(change(1, 1)), Offered::Ready);
        assert_eq!(link.offer(change(2, 2)), Offered::Ready);
        assert_eq!(link.offer(change(3, 3)), Offered::Waits);
        assert_eq!(link.take_ready(), [change(1, 1), change(2, 2)]);
        assert!(!link.is_ready());
        assert_eq!(link.pending(), 1);
    }

    #[test]
    fn a_full_link_keeps_the_newest_change_of_each_object() {
        let mut link = link(1);
        link.offer(change(9, 1));
        link.take_ready();
        assert_eq!(link.offer(change(1, 2)), Offered::Waits);
        assert_eq!(link.offer(change(2, 3)), Offered::Waits);
        assert_eq!(link.offer(change(1, 4)), Offered::Coalesced);
        assert!(link.handled(1));
        assert_eq!(link.take_ready(), [change(1, 4)]);
        assert!(link.handled(1));
        assert_eq!(link.take_ready(), [change(2, 3)]);
        assert_eq!(link.pending(), 0);
    }

    #[test]
    fn a_new_change_does_not_overtake_those_that_wait() {
        let mut link = link(2);
        for version in 1..=5 {
            link.offer(change(version, version));
        }
        link.take_ready();
        link.handled(1);
        assert_eq!(link.take_ready(), [change(3, 3)]);
        link.handled(2);
        assert_eq!(link.offer(change(6, 6)), Offered::Waits);
        assert_eq!(link.take_ready(), [change(4, 4), change(5, 5)]);
    }

    #[test]
    fn an_edge_that_claims_too_much_gets_no_more_than_a_window() {
        let mut link = link(2);
        for version in 1..=9 {
            link.offer(change(version, version));
        }
        link.take_ready();
        assert!(!link.handled(1_000));
        assert_eq!(link.take_ready().len(), 2);
    }

    #[test]
    fn hints_over_the_budget_are_dropped_but_never_the_change() {
        let mut link = link(1);
        link.offer(change(9, 1));
        link.take_ready();
        link.offer(with_data(1, 2, 100));
        link.offer(with_data(2, 3, 100));
        assert_eq!(link.hints_dropped(), 1);
        // The newer change of the same object frees the older one's hint.
        assert_eq!(link.offer(with_data(1, 4, 110)), Offered::Coalesced);
        assert_eq!(link.hints_dropped(), 1);
        link.handled(1);
        assert_eq!(link.take_ready(), [with_data(1, 4, 110)]);
        link.handled(1);
        assert_eq!(link.take_ready(), [change(2, 3)]);
        assert_eq!(link.waiting.hint_bytes, 0);
    }

    #[test]
    fn closed_is_never_due_while_changes_wait() {
        let mut link = link(1);
        assert_eq!(link.closed_due_us(), Some(0), "the first one at once");
        link.closed(10_000);
        assert_eq!(link.closed_due_us(), Some(11_000));
        link.offer(change(1, 1));
        assert_eq!(link.closed_due_us(), None);
        link.take_ready();
        assert_eq!(link.closed_due_us(), Some(10_050));
        link.offer(change(2, 2));
        assert_eq!(link.closed_due_us(), None);
        link.handled(1);
        assert_eq!(link.closed_due_us(), None);
        link.take_ready();
        assert_eq!(link.closed_due_us(), Some(10_050));
    }

    #[test]
    fn forgotten_objects_wait_no_longer_and_the_others_keep_their_order() {
        let mut link = link(1);
        link.offer(change(0, 1));
        link.take_ready();
        for object in 1..=200 {
            link.offer(change(object, object));
        }
        for object in 1..=150 {
            link.forget(ObjectHash(object));
        }
        assert_eq!(link.pending(), 50);
        assert!(link.waiting.queue.len() <= 100, "gaps are closed");
        link.forget_where(|object| object.0 % 2 == 0);
        link.offer(change(151, 999));
        let mut told = Vec::new();
        while link.handled(1) {
            told.extend(link.take_ready());
        }
        let expected: Vec<_> = (151..=200)
            .step_by(2)
            .map(|o| change(o, if o == 151 { 999 } else { o }))
            .collect();
        assert_eq!(told, expected);
    }
}
