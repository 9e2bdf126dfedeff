//! What is confirmed on one connection: a batch that several threads have parts of is confirmed when the last of them has.

use super::super::counts::Counts;
use super::{put, threads_of};
use crate::mesh::session::Outbox;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidings_protocol::copy::Frame;
use tidings_protocol::{Epoch, ShardId};

/// How far one stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    life: u32,
    written: u64,
    synced: u64,
}

/// One owner's stream.
#[derive(Debug, Default)]
struct Stream {
    /// By thread.
    threads: HashMap<usize, Reached>,
    said: Reached,
}

impl Stream {
    /// A thread has got so far; gives what all have, if that is news.
    fn advance(&mut self, expected: impl Iterator<Item = usize>, thread: usize, reached: Reached) -> Option<Reached> {
        let known = self.threads.entry(thread).or_default();
        if reached.life > known.life {
            *known = reached;
        } else if reached.life == known.life {
            known.written = known.written.max(reached.written);
            known.synced = known.synced.max(reached.synced);
        }
        let life = self.threads.values().map(|known| known.life).max()?;
        let mut all: Option<Reached> = None;
        for thread in expected {
            let here = self.threads.get(&thread).filter(|known| known.life == life)?;
            let least = all.get_or_insert(*here);
            least.written = least.written.min(here.written);
            least.synced = least.synced.min(here.synced);
        }
        let all = all.filter(|all| *all != self.said)?;
        self.said = all;
        Some(all)
    }
}

/// The way back on one connection, for every thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CopyReply {
    outbox: Outbox,
    counts: Arc<Counts>,
    owners: u16,
    threads: usize,
    streams: Arc<Mutex<HashMap<u16, Stream>>>,
}

impl CopyReply {
    /// To a node with so many owners, from one with so many threads.
    pub(super) fn new(outbox: Outbox, counts: Arc<Counts>, owners: u16, threads: usize) -> Self {
        Self {
            outbox,
            counts,
            owners,
            threads,
            streams: Arc::default(),
        }
    }

    /// A thread has written this owner's stream up to one place and synced it up to another.
    pub fn confirm(&self, thread: usize, owner: u16, life: u32, (written, synced): (u64, u64)) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = Reached { life, written, synced };
        let expected = threads_of(owner, self.owners, self.threads);
        let news = streams.entry(owner).or_default().advance(expected, thread, reached);
        if let Some(Reached { life, written, synced }) = news {
            // In the lock: what is confirmed later must not be said earlier.
            _ = put(
                &self.outbox,
                &self.counts,
                &Frame::Confirmed {
                    owner,
                    life,
                    written,
                    synced,
                },
            );
        }
    }

    /// There is no copy here of what this batch spoke of. To be said before the batch is confirmed.
    pub fn lacks(&self, owner: u16, (life, place): (u32, u64), (shard, epoch): (ShardId, Epoch)) {
        let frame = Frame::Lacks {
            owner,
            life,
            place,
            shard,
            epoch,
        };
        _ = put(&self.outbox, &self.counts, &frame);
    }

    /// A newer epoch is known here.
    pub fn refuse(&self, owner: u16, shard: ShardId, epoch: Epoch) {
        _ = put(&self.outbox, &self.counts, &Frame::Refused { owner, shard, epoch });
    }

    /// Ends the connection: what is not confirmed comes again on the next one.
    pub fn cut(&self) {
        self.outbox.dismiss();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(life: u32, written: u64, synced: u64) -> Reached {
        Reached { life, written, synced }
    }

    #[test]
    fn a_batch_is_confirmed_when_the_last_thread_has_it() {
        let mut stream = Stream::default();
        let both = || [0, 1].into_iter();
        assert_eq!(stream.advance(both(), 0, reached(1, 3, 2)), None, "the other is silent");
        assert_eq!(stream.advance(both(), 1, reached(1, 1, 0)), Some(reached(1, 1, 0)));
        assert_eq!(stream.advance(both(), 0, reached(1, 4, 4)), None, "the other is behind");
        assert_eq!(stream.advance(both(), 1, reached(1, 4, 3)), Some(reached(1, 4, 3)));
    }

    #[test]
    fn a_new_life_of_the_stream_counts_when_all_have_seen_it() {
        let mut stream = Stream::default();
        let both = || [0, 1].into_iter();
        stream.advance(both(), 0, reached(1, 9, 9));
        stream.advance(both(), 1, reached(1, 9, 9));
        assert_eq!(stream.advance(both(), 0, reached(2, 1, 0)), None);
        assert_eq!(
            stream.advance(both(), 1, reached(1, 12, 12)),
            None,
            "a word of the old life"
        );
        assert_eq!(stream.advance(both(), 1, reached(2, 2, 1)), Some(reached(2, 1, 0)));
    }
}
