//! What a run was allowed to do, and how much of it must have been seen.

use crate::verdict::Invariant;
use std::collections::BTreeSet;

/// The causes that the protocol names (docs/protocol.md, Resync).
pub const CAUSES: [&str; 7] = [
    "cursor_unreadable",
    "cursor_foreign",
    "cursor_future",
    "versions_lost",
    "versions_evicted",
    "power_lost",
    "storage_damaged",
];

/// The causes that say that versions were lost: what [`Rules::lost_copies`] allows.
pub const LOSSES: [&str; 3] = ["versions_lost", "power_lost", "storage_damaged"];

/// How a history is judged.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long after an acknowledgement, a reconnect or the last nemesis event a client may take to be told.
    pub settle_us: u64,
    /// Every copy of some shard was lost (I10): resyncs of [`LOSSES`] are right, versions may be missing at the end,
    /// keys and revisions may be forgotten. What was acknowledged must still be told or confessed.
    pub lost_copies: bool,
    /// An acknowledgement of level `accepted` counts like `replicated`: right for one node without loss of power.
    pub accepted_is_promised: bool,
    /// Causes of resync that the run provoked.
    pub allowed_resyncs: BTreeSet<String>,
    /// Clients that do not drop what is older than what they know, so a version may go back across connections (P3
    /// promises it on one connection only).
    pub raw_clients: bool,
    /// How long an idempotency key is remembered (docs/protocol.md: five minutes).
    pub key_window_us: u64,
    /// A resume may name what the cursor covers already, if it was published no longer ago than this: the edge had not
    /// heard of it yet.
    pub repeat_window_us: u64,
    /// Invariants without which the run says too little: not checked is inconclusive.
    pub required: BTreeSet<Invariant>,
    /// What must have been seen often enough.
    pub floors: Vec<Floor>,
    /// How many violations of each invariant are shown.
    pub samples: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            settle_us: 10_000_000,
            lost_copies: false,
            accepted_is_promised: false,
            allowed_resyncs: BTreeSet::new(),
            raw_clients: false,
            key_window_us: 300_000_000,
            repeat_window_us: 10_000_000,
            required: [
                Invariant::I1,
                Invariant::I2,
                Invariant::I3,
                Invariant::I4,
                Invariant::I5,
                Invariant::I6,
            ]
            .into(),
            floors: Vec::new(),
            samples: 3,
        }
    }
}

/// The least that must have been seen: of one fault (`kill.acks`) or of the whole run (`run.resumes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The kind of fault, or `run`.
    pub fault: String,
    /// Which counter of [`crate::coverage::Counts`].
    pub what: String,
    /// The least count.
    pub least: u64,
}

impl std::str::FromStr for Floor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('=')
            .and_then(|(name, least)| Some((name.split_once('.')?, least.parse().ok()?)));
        let Some(((fault, what), least)) = parts else {
            return Err("a floor reads like kill.acks=100".to_owned());
        };
        if !crate::coverage::NAMES.contains(&what) {
            return Err(format!(
                "there is no counter {what}; there are {}",
                crate::coverage::NAMES.join(", ")
            ));
        }
        Ok(Self {
            fault: fault.to_owned(),
            what: what.to_owned(),
            least,
        })
    }
}
