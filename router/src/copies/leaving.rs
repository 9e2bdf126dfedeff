//! How a shard goes to another: handed over, which rests until its last change is everywhere, or taken away, which a copy may
//! know of first.

use super::sender::{Level, Output, Part, Sender, Wish, range};
use crate::control::map::Process;
use crate::now::Now;
use tidings_protocol::{Epoch, ShardId};

impl Sender {
    /// A copy refuses the epoch in which it was told something of the shard, because it knows of this one. Nothing of the older
    /// one is acknowledged from this word on: who owns the shard now may not have it.
    pub fn refused(&mut self, shard: ShardId, epoch: Epoch, out: &mut Vec<Output>) {
        if self.epochs.get(&shard).is_some_and(|known| *known < epoch) {
            let newer = self.newer.entry(shard).or_insert(epoch);
            *newer = (*newer).max(epoch);
            out.push(Output::Deposed { shard, epoch });
        }
    }

    /// Whether a copy knows of a newer epoch of the shard than the one in which it is owned here.
    pub(super) fn is_deposed(&self, shard: ShardId) -> bool {
        self.newer.get(&shard) > self.epochs.get(&shard)
    }

    /// Whether the shard is being handed over, because the map wants it elsewhere and who is to have it is in sync: nothing may
    /// be given out.
    #[must_use]
    pub fn is_leaving(&self, shard: ShardId) -> bool {
        self.leaving.contains_key(&shard)
    }

    /// The map does not want the shard to go where it is going. If that was proposed already, it may yet be applied: then the
    /// shard is handed over to this process itself, which makes the earlier proposal void.
    pub(super) fn reconsider(&mut self, id: ShardId, moving: Option<Process>) {
        let Some((to, proposed_us)) = self.leaving.get_mut(&id) else {
            return;
        };
        if *to == self.me || moving == Some(*to) {
            return;
        }
        if proposed_us.is_none() {
            self.leaving.remove(&id);
        } else {
            (*to, *proposed_us) = (self.me, None);
        }
    }

    pub(super) fn propose_handovers(&mut self, now: Now, out: &mut Vec<Output>) {
        let parts = &self.parts;
        let streams = &self.streams;
        for (shard, (to, proposed_us)) in &mut self.leaving {
            let settled = |((_, process), part): (&(ShardId, Process), &Part)| {
                let stream = streams.get(process);
                let level = part.level == Level::Reached;
                // The shard is at rest; others of the stream are not.
                !part.waited_for || (level && stream.is_some_and(|stream| part.last <= stream.written))
            };
            let in_sync = parts.get(&(*shard, *to)).is_some_and(|part| part.in_sync);
            let ready = *to == self.me || (in_sync && range(parts, *shard).all(settled));
            let due = proposed_us.is_none_or(|at| now.mono_us >= at + 4 * self.config.again_us);
            if ready && due {
                *proposed_us = Some(now.mono_us);
                let epoch = self.epochs.get(shard).copied().unwrap_or_default();
                out.push(Output::Propose(Wish::HandOver {
                    shard: *shard,
                    epoch,
                    to: *to,
                }));
            }
        }
    }
}
