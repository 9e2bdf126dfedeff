//! Changes come in, get their versions, and go out to whoever wants them.

use super::{Output, Owner, Publish, PublishExtra, Published};
use crate::link::Offered;
use crate::now::Now;
use tidings_protocol::peer::Changed;
use tidings_protocol::{ObjectHash, Version};

/// How many changes are looked up together before they are written one by one. Nearly each touches memory that is in no
/// cache, and look-ups that do not depend on each other wait for it at the same time.
const BLOCK: usize = 16;

impl Owner {
    /// Gives every change its version, in order, and tells the links: one frame for each link, then the answer.
    pub(super) fn publish(&mut self, now: Now, request: u64, mut changes: Vec<Publish>, out: &mut Vec<Output>) {
        if now.mono_us >= self.lease_until_us {
            let results = changes.iter().map(|change| self.refuse(change.object)).collect();
            return out.push(Output::Published { request, results });
        }
        let mut results = Vec::with_capacity(changes.len());
        let mut told = Vec::new();
        for block in changes.chunks_mut(BLOCK) {
            self.warm(block);
            for change in block {
                results.push(self.publish_one(now, change, &mut told));
            }
        }
        for seat in told {
            self.seats.flush(seat, out);
        }
        let pieces = 1 + results.len() / super::sweep::CHANGES_A_PIECE;
        out.push(Output::Published { request, results });
        self.sweep(now.mono_us, pieces);
        self.evict_if_over_budget(out);
    }

    /// What became of a change after the lease was over. Not even that it had happened already may be said: a successor may
    /// not know of it.
    #[cold]
    fn refuse(&self, object: ObjectHash) -> Published {
        let id = self.config.shards.shard(object);
        match self.shards[usize::from(id.0)] {
            Some(_) => Published::Paused(id),
            None => Published::NotOwner(id),
        }
    }

    /// Brings what a block of changes is about to touch into the cache.
    #[inline]
    fn warm(&self, block: &[Publish]) {
        let mut seen = 0;
        for change in block {
            seen |= self.version(change.object).0;
        }
        std::hint::black_box(seen);
    }

    #[inline]
    fn publish_one(&mut self, now: Now, change: &mut Publish, told: &mut Vec<u32>) -> Published {
        let id = self.config.shards.shard(change.object);
        let Some(shard) = &mut self.shards[usize::from(id.0)] else {
            return Published::NotOwner(id);
        };
        if shard.paused {
            return Published::Paused(id);
        }
        let Some(version) = Self::version_after(self.ceiling, self.closed, shard.last, now) else {
            return Published::Paused(id);
        };
        let mut hint = None;
        if let Some(extra) = change.extra.take() {
            let PublishExtra {
                hint: told_hint,
                revision,
                idempotency,
            } = *extra;
            // A mark outlives its change where a table was lost and filled anew without it. It counts only if everybody was told
            // of that version or a newer one, or to fetch again: else the retry is what brings the change back.
            let newest = shard.versions.get(change.object);
            let floor = shard.floor;
            let counts = |version: &Version| *version <= newest || *version < floor;
            let first = idempotency.and_then(|key| self.answers.get(key, now.mono_us));
            if let Some(first) = first.filter(counts) {
                self.counters.duplicates += 1;
                return Published::Duplicate(first);
            }
            if let Some((key, revision)) = revision {
                let last = self.revisions.last(key).filter(|(_, version)| counts(version));
                if last.is_some_and(|(last, _)| revision <= last) {
                    self.counters.duplicates += 1;
                    return Published::Duplicate(newest);
                }
                self.revisions.put(key, revision, version);
            }
            if let Some(key) = idempotency {
                self.answers.put(key, version, now.mono_us);
            }
            hint = told_hint;
        }
        shard.last = version;
        self.highest = self.highest.max(version);
        self.bytes += shard.versions.set(change.object, version);
        if shard.interest.is_empty() {
            return Published::Accepted(version);
        }
        for seat in shard.interest.seats(change.object) {
            let Some(peer) = self.seats.peer_mut(*seat) else {
                continue;
            };
            let was_ready = peer.sending.is_ready();
            let offered = peer.sending.offer(Changed {
                object: change.object,
                version,
                hint: hint.clone(),
            });
            if offered == Offered::Ready && !was_ready {
                told.push(*seat);
            }
            self.counters.coalesced += u64::from(offered == Offered::Coalesced);
        }
        Published::Accepted(version)
    }
}
