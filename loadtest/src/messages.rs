//! What the conductor and the workers say to each other: the same values between threads and, as lines of JSON, between
//! processes.

use crate::plan::Part;
use crate::scenario::Scenario;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidings_report::record::Interval;

/// A server to be driven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What goes into `Host`.
    pub(crate) host: String,
}

impl Target {
    /// Whether its clock is ours.
    pub(crate) fn is_here(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

/// What a generating process needs to know before anything else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) scenario: Scenario,
    pub(crate) targets: Vec<Target>,
    /// The workers of this process among all.
    pub(crate) workers: Vec<Part>,
    /// Where the timeline begins, on the monotonic clock.
    pub(crate) epoch_us: u64,
    /// Where the history is written, if it is.
    pub(crate) history: Option<PathBuf>,
}

/// The newest acknowledged version of a watched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64)", into = "(u32, u64, u64)")]
pub(crate) struct Ack {
    pub(crate) object: u32,
    pub(crate) version: u64,
    /// When its publish was called.
    pub(crate) called_us: u64,
}

// There may be hundreds of thousands of them in one line.
impl From<(u32, u64, u64)> for Ack {
    fn from((object, version, called_us): (u32, u64, u64)) -> Self {
        Self {
            object,
            version,
            called_us,
        }
    }
}

impl From<Ack> for (u32, u64, u64) {
    fn from(ack: Ack) -> Self {
        (ack.object, ack.version, ack.called_us)
    }
}

/// From the conductor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The load begins at this time of the monotonic clock.
    Start { at_us: u64 },
    /// The load ends before its time.
    Cease,
    /// Bring everybody back, and see that each was told the newest of what it holds.
    Judge { acks: Vec<Ack> },
    /// Finish the history and end.
    Quit,
}

/// From one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) worker: u32,
    pub(crate) word: Word,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Everybody is connected and subscribed.
    Ready,
    /// What happened since the last such word.
    Tick(Box<Tick>),
    /// The load is over and nothing is under way.
    Published {
        acks: Vec<Ack>,
        /// Watched objects published in streams, which do not say versions, with when.
        unversioned: Vec<(u32, u64)>,
    },
    /// The last word on I1.
    Judged(Judgement),
    /// The history is on disk.
    Ended { history_error: Option<String> },
    /// The worker cannot go on.
    Failed(String),
}

/// One interval of one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tick {
    pub(crate) interval: Interval,
    /// The latest that it was in sending something, in microseconds.
    pub(crate) late_us: u64,
    /// How much of the interval the thread was on a processor or waited for one, 0 to 1.
    pub(crate) busy: f64,
    /// What people should know, each only once.
    pub(crate) warnings: Vec<String>,
}

/// Whether each subscriber was told the newest of what it holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// Pairs of a subscriber and an object that changed while it held it.
    pub(crate) pairs: u64,
    /// Pairs that were told to fetch instead.
    pub(crate) resynced: u64,
    /// Pairs that were told neither.
    pub(crate) lost: u64,
    /// Subscribers that did not get back in, whose pairs may be among the lost.
    pub(crate) away: u64,
    /// Some of the lost.
    pub(crate) examples: Vec<String>,
    /// How long it took until all were told.
    pub(crate) took_us: u64,
}
