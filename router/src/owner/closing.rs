//! `Closed`: the promise that every change up to a version was sent.

use super::{Output, Owner};
use crate::now::{MonoUs, Now};
use tidings_protocol::Version;
use tidings_protocol::peer::OwnerToEdge;

/// A clock that shows more than this is broken (it would be the year 2255, twelve days before versions end). Counting
/// on from here still leaves room for 2^40 changes.
const LATEST_WALL_US: u64 = Version::LIMIT - (1 << 40);

/// So far below the ceiling a clock that is above it counts for, in microseconds: as many changes can still be made before
/// the ceiling has to rise. Without it such a clock would use all versions up with the first change.
const ROOM_US: u64 = 1_000_000;

impl Owner {
    /// The version that follows `last` and whatever was closed, at least the clock's as far as the ceiling allows with some
    /// room. `None` when there are no more: better to refuse than to give one that looks old, or that is given again after
    /// a restart.
    #[inline]
    pub(super) fn version_after(ceiling: Version, closed: Version, last: Version, now: Now) -> Option<Version> {
        let clock = now.wall_us.min(LATEST_WALL_US).min(ceiling.0.saturating_sub(ROOM_US));
        let version = last.max(closed).next().0.max(clock);
        (version < Version::LIMIT && version <= ceiling.0).then_some(Version(version))
    }

    /// No version is given or closed from this moment on. Without a word about it there is no such moment.
    pub fn set_lease(&mut self, until_us: MonoUs) {
        self.silenced &= self.lease_until_us == until_us;
        self.lease_until_us = until_us;
    }

    /// No version above this one is given or closed from now on. Without a word about it there is no such bound.
    pub fn set_ceiling(&mut self, ceiling: Version) {
        self.silenced &= self.ceiling == ceiling;
        self.ceiling = ceiling;
    }

    /// The highest version given or closed here, or taken over: whoever raises the ceiling must know it.
    #[must_use]
    pub fn highest(&self) -> Version {
        self.highest.max(self.closed)
    }

    /// When `Closed` is due somewhere, if it can be sent then.
    pub(super) fn closing_due_us(&self) -> Option<MonoUs> {
        let due_us = self.seats.closed_due_us().filter(|_| !self.silenced)?;
        (due_us < self.lease_until_us).then_some(due_us)
    }

    /// Sends `Closed` on every link where it is due.
    ///
    /// The version is at least that of every change so far, and from this step on counts as every shard's last: what was
    /// given is on its way, and what is yet to be given is above. It is higher than any closed before (rule R10).
    pub(super) fn close_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.closing_due_us().is_none_or(|due_us| due_us > now.mono_us) {
            return;
        }
        let closed = Self::version_after(self.ceiling, self.closed, self.highest.before(), now);
        let Some(closed) = closed.filter(|_| now.mono_us < self.lease_until_us) else {
            // Whoever extends the lease or raises the ceiling makes it due again.
            self.silenced = true;
            return;
        };
        self.closed = closed;
        for peer in self.seats.peers_mut() {
            if peer.sending.closed_due_us().is_none_or(|due_us| due_us > now.mono_us) {
                continue;
            }
            peer.sending.closed(now.mono_us);
            let frame = OwnerToEdge::Closed { version: closed };
            out.push(Output::ToEdge {
                link: peer.link_id,
                generation: peer.generation,
                frame,
            });
        }
    }
}
