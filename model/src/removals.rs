//! What each rule is for: the model in which its removal breaks something, and what.

use crate::rule::Rule;

/// One rule (or two that stand in for each other) taken away.
#[derive(Clone, Copy, Debug)]
pub struct Removal {
    /// What is taken away.
    pub rules: &'static [Rule],
    /// In which model.
    pub model: &'static str,
    /// The first property that falls, on a shortest way.
    pub falls: &'static str,
}

/// A rule without which nothing breaks within the bounds.
#[derive(Clone, Copy, Debug)]
pub struct Redundant {
    /// The rule.
    pub rule: Rule,
    /// The models in which it was taken away and walked to the end.
    pub models: &'static [&'static str],
    /// Why nothing breaks, and what it is for then.
    pub why: &'static str,
}

const P1: &str = "P1 no silent loss";
const I2: &str = "I2 the cursor is sound";
const P1_COPIES: &str = "P1 what was acknowledged is kept or confessed";
const P2_ONCE: &str = "P2 named once on a connection";
const P2_RESYNC: &str = "P2 no needless resync";
const P3: &str = "P3 forward only";
const P5: &str = "P5 one owner acknowledges";
const I8: &str = "I8 epochs do not meet";
const WAITS: &str = "nobody waits for ever";

const fn removal(rule: &'static [Rule], model: &'static str, falls: &'static str) -> Removal {
    Removal {
        rules: rule,
        model,
        falls,
    }
}

/// All that breaks something.
pub const REMOVALS: &[Removal] = &[
    removal(&[Rule::FloorInAnswer], "loss", P1),
    removal(&[Rule::FloorMeansResync], "loss", P1),
    removal(&[Rule::CatchUpComparesFloor], "loss", P1),
    removal(&[Rule::IndexComparesFloor], "loss", P1),
    removal(&[Rule::KnownComparesFloor], "known", P1),
    removal(&[Rule::IncarnationInMap], "alone-crash", P1_COPIES),
    removal(&[Rule::IncarnationInMap], "rejoin", P1_COPIES),
    removal(&[Rule::IncarnationInAck], "restart", P5),
    removal(&[Rule::ClosedCoversOwned], "shards", I2),
    removal(&[Rule::ClosedBehindChanges], "moves", I2),
    removal(&[Rule::ClosedBehindAnswers], "moves", I2),
    removal(&[Rule::CursorCoversEveryShard], "polls", I2),
    removal(&[Rule::CursorBehindPending], "moves", I2),
    removal(&[Rule::CursorBehindResync], "loss", I2),
    removal(&[Rule::CursorBehindAnswers], "objects", I2),
    removal(&[Rule::CursorInQueue], "moves", I2),
    removal(&[Rule::CursorCountsBehindSubscribed], "objects", P1),
    removal(&[Rule::LastCursorCounts], "edges-objects", I2),
    removal(&[Rule::TimeoutKeepsCursor], "polls-edges", I2),
    removal(&[Rule::DuplicateWaits], "pair", P1_COPIES),
    removal(&[Rule::PromotedLevels], "three", P1_COPIES),
    removal(&[Rule::WaitsBeforeJoin], "membership", P1_COPIES),
    removal(&[Rule::WaitsUntilRemoved], "membership", P1_COPIES),
    removal(&[Rule::EntryNamesEpoch], "three-join", P1_COPIES),
    removal(&[Rule::EntryNamesInSync], "membership", P1_COPIES),
    removal(&[Rule::NoRenewalWhileReplacing], "alone", P1_COPIES),
    removal(&[Rule::LeaderCommitsFirst], "alone", P1_COPIES),
    removal(&[Rule::FloorInCopy], "copy-eviction", P1_COPIES),
    removal(&[Rule::FloorInCopy, Rule::FloorInMap], "loss-join", P1_COPIES),
    removal(&[Rule::RegisterInOneStep], "moves", P1),
    removal(&[Rule::AssignInOneStep], "moves", I2),
    removal(&[Rule::CloseInOneStep], "moves", I2),
    removal(&[Rule::InterestHasGeneration], "links", P1),
    removal(&[Rule::CutNotThinned], "links", P1),
    removal(&[Rule::ClosedRises], "moves", "I24 who is cut off shows it"),
    removal(&[Rule::MarkerRemovedFirst], "disk", P1_COPIES),
    removal(&[Rule::LoadedBeforeServing], "disk", P1_COPIES),
    removal(&[Rule::EpochAboveCeiling], "moves", I2),
    removal(&[Rule::EpochAboveCeiling], "pair", I8),
    removal(&[Rule::NothingAboveCeiling], "moves", I2),
    removal(&[Rule::NothingAboveCeiling], "pair", I8),
    removal(&[Rule::MapBeforeCeiling], "alone", P1_COPIES),
    removal(&[Rule::MapBeforeCeiling], "links-moves", I2),
    removal(&[Rule::AcceptInLease], "alone", P1_COPIES),
    removal(&[Rule::CheckAfterRead], "alone", P1_COPIES),
    removal(&[Rule::LeaseRunsOut], "alone", P1_COPIES),
    removal(&[Rule::FollowerRefuses], "pair", P1_COPIES),
    removal(&[Rule::EdgeRefuses], "links-moves", WAITS),
    removal(&[Rule::VersionRises], "known", P3),
    removal(&[Rule::FloorComparedWithClosed], "loss", P2_RESYNC),
    removal(&[Rule::VouchedIsTold], "loss", P2_RESYNC),
    removal(&[Rule::PageFirst], "moves", P2_ONCE),
    removal(&[Rule::RegisterAgain], "moves", WAITS),
    removal(&[Rule::GivenUpBehindAnswer], "links", I2),
    removal(&[Rule::ToldIsListed], "polls-cut", P2_ONCE),
    removal(&[Rule::UntoldKeepsBase], "polls-cut", I2),
    removal(&[Rule::OnlyKnownIsListed], "polls-cut", I2),
    removal(&[Rule::PromotionKeepsFloor], "eviction", P1),
    removal(&[Rule::JoinsWithSnapshot], "membership", P1_COPIES),
    removal(&[Rule::JoinsComplete], "membership", P1_COPIES),
    removal(&[Rule::RejoinKeepsWaiting], "restart-rejoin", P5),
    removal(&[Rule::HandsToInSync], "hand-over-alone", P1_COPIES),
    removal(&[Rule::FloorBeforeEviction], "eviction", P1),
    removal(&[Rule::FloorBeforeEviction], "copy-eviction", P1_COPIES),
    removal(&[Rule::AckBehindDisk], "disk", "durable means durable"),
    removal(&[Rule::UnsyncedMarkerFirst], "disk", P1_COPIES),
    removal(&[Rule::CeilingSyncedFirst], "disk", P1_COPIES),
    removal(&[Rule::LogSyncedFirst], "disk", P1_COPIES),
    removal(&[Rule::FloorSyncedFirst], "disk", P1_COPIES),
    removal(&[Rule::NoNeedlessDoubt], "disk", P2_RESYNC_DISK),
    removal(&[Rule::DiskProvenComplete], "disks", P1_COPIES),
];

const P2_RESYNC_DISK: &str = "P2 no needless doubt";

/// All that breaks nothing.
pub const REDUNDANT: &[Redundant] = &[
    Redundant {
        rule: Rule::StartsEmpty,
        models: &["loss-join", "loss-after-move"],
        why: "what an older table still has lies below the floor of the new epoch, and the floor is what counts there; \
              it saves memory and keeps revisions and idempotency keys of another life out",
    },
    Redundant {
        rule: Rule::FloorInMap,
        models: &["loss-join", "copy-eviction"],
        why: "every node that can become owner got the floor with its snapshot; the map is the second place, and \
              without both a loss is forgotten",
    },
    Redundant {
        rule: Rule::SnapshotReplaces,
        models: &["rejoin", "three-crash", "restart"],
        why: "what a copy has too much was never acknowledged and has versions below the epoch; replacing keeps \
              copies equal, which makes them comparable",
    },
    Redundant {
        rule: Rule::DrainsBeforeRelease,
        models: &["hand-over", "hand-over-alone"],
        why: "the new owner refuses the old epoch, so what was under way is never acknowledged there; draining spares \
              publishers an unknown outcome",
    },
    Redundant {
        rule: Rule::NoResumeAfterRelease,
        models: &["hand-over", "hand-over-alone"],
        why: "for the same reason: an old owner that resumes assigns in vain",
    },
];
