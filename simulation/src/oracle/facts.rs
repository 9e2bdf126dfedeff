//! What the oracle hears: one fact at a time, as it was seen from where it happened.

use std::collections::BTreeSet;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Cursor, Epoch, ShardId, Version};
use tidings_router::control::map::Shard;

/// What somebody did or was told.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A publish was called for the first time.
    Called(usize),
    /// An owner gave it a version: publish, shard, epoch, version, the ceiling agreed on.
    Applied(usize, ShardId, Epoch, Version, Version),
    /// Its caller was told so. When that call began; whether it is said to have happened before.
    Acked(Acked),
    /// A call ended somehow; when it began.
    CallEnded(u64),
    /// A publish was refused, or nobody could say what became of it; when its call began.
    Unserved(usize, u64),
    /// An owner closed a version for these shards, under the ceiling agreed on.
    Closed(usize, &'a [(ShardId, Epoch)], Version, Version),
    /// An owner announced a floor.
    Floor(ShardId, Epoch, Version, FloorCause),
    /// A shard was given to an owner.
    Assigned(ShardId, &'a Shard),
    /// Idempotency keys of another process were taken over by an owner: its thread, and how many.
    KeysMoved(usize, usize),
    /// The control group got another leader.
    Elected,
    /// A client began a connection, perhaps to poll.
    Connected(usize, bool),
    /// A client was answered `subscribed`.
    Subscribed(&'a Subscribed),
    /// A client was told of a version.
    Told(Told),
    /// A client was told to fetch an object; whether it asked for it.
    Resynced(usize, usize, &'a str, bool),
    /// A client was handed a cursor, with an answer that was cut or not, which counts for these objects.
    Cursor(usize, &'a Cursor, bool, &'a BTreeSet<usize>),
    /// All faults have stopped long ago.
    Settled,
}

/// An acknowledgement as its caller saw it.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// The publish.
    pub publish: usize,
    /// The publish that was given this version.
    pub given_to: usize,
    /// Its object.
    pub object: usize,
    /// The shard of that.
    pub shard: ShardId,
    /// The version.
    pub version: Version,
    /// The epoch in which it was given.
    pub epoch: Epoch,
    /// When the publish that was given the version was called first.
    pub first_called: u64,
    /// When the call that was answered began.
    pub called: u64,
    /// It had happened before.
    pub duplicate: bool,
}

/// An answer to a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Subscribed {
    /// Who.
    pub client: usize,
    /// What.
    pub object: usize,
    /// The version it was answered with.
    pub version: Version,
    /// When it asked.
    pub asked_at: u64,
    /// The version it wanted to see.
    pub at_least: Option<u64>,
}

/// A change as a client heard it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Who.
    pub client: usize,
    /// What.
    pub object: usize,
    /// Its version.
    pub version: Version,
    /// The number of the publish, if it came along.
    pub data: Option<u64>,
    /// The client asked for it.
    pub asked: bool,
    /// By a poll's answer, each of which is compared with the client's cursor anew.
    pub polled: bool,
}
