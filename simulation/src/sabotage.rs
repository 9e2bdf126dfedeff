//! Deliberate breaks: shells that do not keep a rule. A simulation that is green with one of them has shown nothing about that
//! rule; `tests/breaks.rs` holds those that were caught.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// An owner acknowledges without waiting for its copies (rule R6).
    NoWait,
    /// "Duplicate" is answered before the original is on all copies (rule R5).
    DuplicateAtOnce,
    /// A promoted owner takes its copies for level before they are (rule R5).
    NotLevelled,
    /// Floors reach neither copies nor map (rule R7).
    FloorForgotten,
    /// A copy takes what an older epoch sends as if it were of the newest.
    OlderEpochTaken,
    /// A process takes from owners, and serves, before it has read a map that is no older than itself (rule R2).
    MapUnread,
    /// A copy that was being filled is offered after a restart as a whole one.
    HalfCopyOffered,
    /// What the machine lost with its power is not asked about: the disk is offered as whole.
    DoubtForgotten,
    /// Revisions and answers to keys are not copied.
    MarksNotCopied,
    /// Marks of a table that was replaced are kept.
    StaleMarksKept,
    /// A batch is confirmed before the disk has it.
    ConfirmedUnwritten,
    /// A shard that is being handed over goes on giving versions.
    NotPaused,
}

impl Sabotage {
    /// All of them, with their names.
    pub const ALL: &[(&str, Self)] = &[
        ("no-wait", Self::NoWait),
        ("duplicate-at-once", Self::DuplicateAtOnce),
        ("not-levelled", Self::NotLevelled),
        ("floor-forgotten", Self::FloorForgotten),
        ("older-epoch-taken", Self::OlderEpochTaken),
        ("map-unread", Self::MapUnread),
        ("half-copy-offered", Self::HalfCopyOffered),
        ("doubt-forgotten", Self::DoubtForgotten),
        ("marks-not-copied", Self::MarksNotCopied),
        ("stale-marks-kept", Self::StaleMarksKept),
        ("confirmed-unwritten", Self::ConfirmedUnwritten),
        ("not-paused", Self::NotPaused),
    ];
}
