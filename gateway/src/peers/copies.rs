//! The roads of copies: from each owner here to whoever holds copies of its shards, and from owners elsewhere to us.
//!
//! A node with owners dials every node that the map names in sync, or on the way there, with a shard owned here: one
//! connection of class `Copies`, on which the streams of all its owners go. It does not know what is in a batch beyond whom it is
//! for, nor who waits for what.

mod confirming;
mod held;
mod kept;

pub use confirming::CopyReply;
pub(super) use held::serve;
pub(super) use kept::{holders, keep};

use super::counts::Counts;
use crate::mesh::session::Outbox;
use std::sync::Arc;
use tidings_protocol::ShardId;
use tidings_protocol::copy::{Frame, encode};
use tidings_router::copies::sender::Batch;

/// Puts a frame into an outbox. `false` if it will not arrive.
fn put(outbox: &Outbox, counts: &Counts, frame: &Frame) -> bool {
    let mut bytes = Vec::new();
    match encode(frame, &mut bytes) {
        Ok(()) => {
            counts.copies_sent.inc_by(bytes.len() as u64);
            outbox.push(bytes)
        }
        Err(error) => {
            tracing::error!(%error, "a copy's frame cannot be sent: the connection is cut");
            outbox.dismiss();
            false
        }
    }
}

/// One life of the way from the owners here to a process that holds copies. What is sent when it is over falls to the ground.
#[derive(Clone, Debug)]
pub struct CopyRoad {
    outbox: Outbox,
    counts: Arc<Counts>,
}

impl CopyRoad {
    /// Sends a batch of this owner's stream.
    pub fn send(&self, owner: usize, batch: Batch) {
        let frame = Frame::Batch {
            owner: owner as u16,
            life: batch.life,
            place: batch.place,
            sync: batch.sync,
            entries: batch.entries,
        };
        // A connection that is over tells so itself.
        _ = put(&self.outbox, &self.counts, &frame);
    }

    /// Ends it: what came back made no sense.
    pub fn cut(&self) {
        self.outbox.dismiss();
    }
}

/// The threads here that have shards of an owner elsewhere: shard `s` is with owner `s % owners` there and on thread
/// `s % threads` here.
fn threads_of(owner: u16, owners: u16, threads: usize) -> impl Iterator<Item = usize> {
    let common = gcd(usize::from(owners), threads).max(1);
    (0..threads).filter(move |thread| thread % common == usize::from(owner) % common)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn thread_of(shard: ShardId, threads: usize) -> usize {
    usize::from(shard.0) % threads
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_threads_of_an_owner_elsewhere_are_those_that_share_a_shard_with_it() {
        for (owners, threads) in [(1, 1), (2, 2), (2, 3), (4, 2), (2, 4), (6, 4), (5, 1), (1, 5)] {
            for owner in 0..owners {
                let shards = (0..4096_u16).filter(|shard| shard % owners == owner).map(ShardId);
                let shared: BTreeSet<usize> = shards.map(|shard| thread_of(shard, threads)).collect();
                let named: BTreeSet<usize> = threads_of(owner, owners, threads).collect();
                assert_eq!(named, shared, "owner {owner} of {owners} to {threads} threads");
            }
        }
    }
}
