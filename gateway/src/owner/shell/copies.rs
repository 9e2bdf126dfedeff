//! The shell's part in copies: what is owned here on its way to others, and what others own on its way into the copies here.

use super::{Came, CopyReply, CopyStats, Shell};
use crate::clock;
use crate::control::View;
use crate::owner::draft::{kept_answer, kept_revision};
use crate::owner::journal::CopiedBatch;
use crate::storage::Done;
use crate::storage::frame::Tenure;
use tidings_protocol::ShardId;
use tidings_protocol::copy::Entry;
use tidings_router::MonoUs;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::{Arrived, Output};

impl Shell {
    /// When machine or copies want to be called next.
    pub(super) fn next_deadline(&self) -> Option<MonoUs> {
        let copies = self.copying.as_ref().and_then(|copying| copying.next_deadline());
        self.machine.next_deadline().into_iter().chain(copies).min()
    }

    /// Whether no more changes should be taken now: the disk is behind, or a copy.
    pub(super) fn is_congested(&self) -> bool {
        self.journal.is_congested() || self.copying.as_ref().is_some_and(|copying| copying.is_congested())
    }

    /// The map is another, and what is owned under it was taken.
    pub(super) fn heed_copies(&mut self, view: &View) {
        let mut out = Vec::new();
        self.holdings.heed(&self.shards, view, &mut out);
        for output in out {
            if let Output::Dropped { shard, epoch } = output {
                if let Some(following) = &self.following {
                    following.withdraw(shard);
                }
                self.journal.tenure(Tenure::ended(shard, epoch));
            }
        }
        self.replies.retain(|(process, _), _| !view.map.is_superseded(*process));
        if let Some(copying) = &mut self.copying {
            copying.heed(clock::now(), &self.shards, view, &mut self.machine);
        }
    }

    /// Owns a shard no more. It stays as a copy.
    pub(super) fn let_go(&mut self, shard: ShardId) {
        if let Some(copying) = &mut self.copying {
            copying.end(shard);
        }
        let now = clock::now();
        self.holdings.release(&mut self.machine, now, shard, &mut self.output);
        self.perform();
    }

    /// A batch of an owner elsewhere. Before this process has read a map that a quorum confirmed it has forgotten which epochs it
    /// refused, and takes nothing (rule R2).
    pub(super) fn take_copies(&mut self, from: Process, reply: &CopyReply, batch: Arrived) {
        self.heed();
        let confirmed = self.following.as_ref().and_then(|following| following.done);
        // Nor while the disk fails: what it refuses is kept in memory until it works again, and whoever is taken out is filled
        // anew.
        if !confirmed.is_some_and(|(_, confirmed)| confirmed) || self.journal.is_failing() {
            return reply.cut();
        }
        // Whoever owned a shard here has to stop before another's word of it is taken.
        for (shard, epoch) in batch.entries.iter().map(Entry::of) {
            if self.machine.epoch(shard).is_some_and(|owned| owned < epoch) {
                self.holdings.heard_of(shard, epoch);
                self.let_go(shard);
            }
        }
        let mut out = Vec::new();
        if let Err(gap) = self.holdings.copy(clock::now(), from, batch, &mut out) {
            // What is missing comes again on the next connection.
            tracing::info!(node = %from.node, %gap, "a copy's stream begins anew");
            return reply.cut();
        }
        for output in out {
            self.perform_copy(reply, output);
        }
    }

    fn perform_copy(&mut self, reply: &CopyReply, output: Output) {
        match output {
            Output::Write {
                from,
                owner,
                life,
                place,
                sync,
                entries,
                standings,
            } => {
                self.replies.insert((from, owner), reply.clone());
                // What this process knew of a shard that is filled anew may never have been agreed to by anybody else.
                for standing in standings.iter().filter(|standing| standing.replaced) {
                    self.machine.forget_marks(standing.shard);
                }
                self.keep_marks(&entries);
                if let Some(following) = &self.following {
                    standings.iter().for_each(|standing| following.withdraw(standing.shard));
                }
                let batch = CopiedBatch {
                    from,
                    owner,
                    life,
                    place,
                    sync,
                };
                if let Some(written) = self.journal.copy(batch, &entries, &standings) {
                    self.confirm(written);
                }
            }
            Output::Lack {
                owner,
                life,
                place,
                shard,
                epoch,
                ..
            } => reply.lacks(owner, (life, place), (shard, epoch)),
            Output::Refuse {
                owner, shard, epoch, ..
            } => reply.refuse(owner, shard, epoch),
            // It was let go before the batch was taken.
            Output::Newer { .. } => {}
            Output::Dropped { shard, epoch } => self.journal.tenure(Tenure::ended(shard, epoch)),
        }
    }

    /// Marks belong to keys, not to tables: they are kept with those of what is owned here.
    fn keep_marks(&mut self, entries: &[Entry]) {
        let now = clock::now();
        for entry in entries {
            if let Entry::Marks { revisions, answers, .. } = entry {
                for mark in revisions {
                    self.machine.raise_revision(kept_revision(mark));
                }
                for answer in answers {
                    self.machine.restore_answer(kept_answer(answer), now);
                }
            }
        }
    }

    /// Orders are done: whoever waited for them is answered, and owners elsewhere hear of theirs with the rest of the burst.
    pub(super) fn settle(&mut self, done: &Done) {
        for (batch, fine) in self.journal.settle(done) {
            if fine {
                self.confirm(batch);
            } else if let Some(reply) = self.replies.get(&(batch.from, batch.owner)) {
                // It is confirmed when it has come again and the disk works.
                reply.cut();
            }
        }
    }

    fn confirm(&mut self, batch: CopiedBatch) {
        let entry = self.confirmed.entry((batch.from, batch.owner));
        let (life, written, synced) = entry.or_insert((batch.life, 0, 0));
        if batch.life > *life {
            (*life, *written, *synced) = (batch.life, 0, 0);
        }
        if batch.life == *life {
            *written = (*written).max(batch.place);
            if batch.sync {
                *synced = (*synced).max(batch.place);
            }
        }
    }

    /// Sends what copies elsewhere are to be told, and tells owners elsewhere how far their copies here are.
    pub(super) fn flush_copies(&mut self) {
        let mut deposed = Vec::new();
        if let Some(copying) = &mut self.copying {
            for came in copying.flush(clock::now(), &self.machine) {
                match came {
                    Came::Confirmed(request) => self.journal.copied(request),
                    Came::Lost(request) => self.journal.lost(request),
                    Came::Deposed(shard, epoch) => {
                        tracing::info!(%shard, epoch = epoch.0, "another owns a shard of ours");
                        self.holdings.heard_of(shard, epoch);
                        deposed.push(shard);
                    }
                }
            }
        }
        for shard in deposed {
            self.let_go(shard);
        }
        for ((from, owner), (life, written, synced)) in self.confirmed.drain() {
            if let Some(reply) = self.replies.get(&(from, owner)) {
                reply.confirm(self.thread, owner, life, (written, synced));
            }
        }
    }

    /// What is counted of copies.
    pub(super) fn copy_stats(&self) -> CopyStats {
        let copies = self.holdings.copies();
        let sent = self.copying.as_ref().map(|copying| copying.stats()).unwrap_or_default();
        CopyStats {
            held: copies.copies().filter(|(.., whole)| *whole).count(),
            filling: copies.copies().filter(|(.., whole)| !whole).count(),
            held_bytes: copies.shelf().stats().bytes,
            ..sent
        }
    }
}
