//! The rules, each of which can be taken away to see what breaks.

use std::fmt;

macro_rules! rules {
    ($($(#[doc = $text:literal])+ $rule:ident = $label:literal,)+) => {
        /// One sentence of the design that the models obey.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[doc = $text])+ $rule,)+ }

        impl Rule {
            /// Every rule, in the order of the decision document.
            pub const ALL: &[Self] = &[$(Self::$rule),+];

            /// Its number in `docs/architecture.md`, with the sentence of it; for what has no number there, a word.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$rule => $label,)+ }
            }

            /// What it says.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$rule => concat!($($text),+).trim_ascii(),)+ }
            }
        }
    };
}

rules! {
    /// Every registration answer is preceded by the floor.
    FloorInAnswer = "R1.1",
    /// A floor above what the edge counted makes all connected subscribers of the shard resync.
    FloorMeansResync = "R1.2",
    /// Each catch-up by cursor compares with the floor.
    CatchUpComparesFloor = "R1.3",
    /// So does a catch-up from the edge's own index, for which no owner is asked.
    IndexComparesFloor = "R1.4",
    /// So does a catch-up of an entry with a known version.
    KnownComparesFloor = "R1.5",
    /// Owner and in-sync entries name an incarnation: a restarted process owns nothing until it is assigned or rejoins.
    IncarnationInMap = "R2.1",
    /// Acknowledgements of followers count only from the named incarnation.
    IncarnationInAck = "R2.2",
    /// `Closed` counts only for shards that this link was told `Own` of and not since `Gone`.
    ClosedCoversOwned = "R3.1",
    /// `Closed` does not overtake changes.
    ClosedBehindChanges = "R3.2",
    /// `Closed` counts only behind the answers to what was registered again.
    ClosedBehindAnswers = "R3.3",
    /// A cursor covers every shard, or names those that lag.
    CursorCoversEveryShard = "R4.1",
    /// No cursor while something is pending.
    CursorBehindPending = "R4.2",
    /// No cursor while a resync is due.
    CursorBehindResync = "R4.3",
    /// No cursor before all registrations are answered.
    CursorBehindAnswers = "R4.4",
    /// A cursor does not overtake changes that were written before it.
    CursorInQueue = "R4.5",
    /// A client counts a cursor for an object only if it came after that object's `subscribed`.
    CursorCountsBehindSubscribed = "R4.6",
    /// A client keeps the last cursor, not the largest.
    LastCursorCounts = "R4.7",
    /// An answer that times out gives back the client's own cursor.
    TimeoutKeepsCursor = "R4.8",
    /// An answer "duplicate" waits until the original is on all in-sync copies.
    DuplicateWaits = "R5.1",
    /// A promoted owner brings the remaining followers level before it acknowledges anything.
    PromotedLevels = "R5.2",
    /// An owner assigned without a copy starts empty.
    StartsEmpty = "R5.3",
    /// The owner waits for a follower from before it proposes it in-sync.
    WaitsBeforeJoin = "R6.1",
    /// The owner waits for a follower until its removal is committed.
    WaitsUntilRemoved = "R6.2",
    /// A control entry is conditional on the epoch.
    EntryNamesEpoch = "R6.3",
    /// A control entry is conditional on the in-sync set.
    EntryNamesInSync = "R6.4",
    /// Once a replacement is proposed, nothing is renewed for the owner until the proposal is applied or lost.
    NoRenewalWhileReplacing = "R6.5",
    /// A new Raft leader renews nothing before an entry of its own term is committed.
    LeaderCommitsFirst = "R6.6",
    /// The floor is in each copy.
    FloorInCopy = "R7.1",
    /// The floor is in the map.
    FloorInMap = "R7.2",
    /// Insert interest, read the version and enqueue the answer are one step.
    RegisterInOneStep = "R8.1",
    /// Assign and enqueue are one step.
    AssignInOneStep = "R8.2",
    /// `last := max(last, T)` and enqueue `Closed(T)` are one step.
    CloseInOneStep = "R8.3",
    /// Interest is keyed by the generation of the link.
    InterestHasGeneration = "R9.1",
    /// A link is cut, never thinned.
    CutNotThinned = "R9.2",
    /// `Closed` is strictly higher each time.
    ClosedRises = "R10",
    /// The marker of a clean stop is removed and synced before the first publish.
    MarkerRemovedFirst = "R11.1",
    /// Registrations wait until the table is loaded.
    LoadedBeforeServing = "R11.2",
    /// Every new epoch starts above the ceiling.
    EpochAboveCeiling = "ceiling.1",
    /// An owner assigns and closes nothing above the ceiling it was given.
    NothingAboveCeiling = "ceiling.2",
    /// A node applies the map revision before it uses the ceiling that came with it.
    MapBeforeCeiling = "lease.1",
    /// Nothing is accepted outside the lease.
    AcceptInLease = "lease.2",
    /// The lease is checked after the request was read.
    CheckAfterRead = "lease.3",
    /// Without a living copy a shard is given away only when the old lease has surely run out.
    LeaseRunsOut = "lease.4",
    /// Followers refuse older epochs.
    FollowerRefuses = "fence",
    /// The edge ignores `Own` of an older epoch.
    EdgeRefuses = "edge.1",
    /// An object's version at the edge never falls.
    VersionRises = "edge.2",
    /// The floor is compared with what was counted, not taken as a loss by itself.
    FloorComparedWithClosed = "edge.3",
    /// What the owner vouches for (a version at or above the floor) is told, not resynced.
    VouchedIsTold = "edge.4",
    /// Of a page's objects nothing is told before the page is answered.
    PageFirst = "edge.5",
    /// When links and owners change, what is watched is registered again.
    RegisterAgain = "edge.6",
    /// An object is given up only after its registration was answered.
    GivenUpBehindAnswer = "edge.7",
    /// What was told above the cursor's base is listed in it.
    ToldIsListed = "told.1",
    /// What is left untold by a cut answer keeps the cursor's base below it.
    UntoldKeepsBase = "told.2",
    /// Only an object that the client knows is listed as told.
    OnlyKnownIsListed = "told.3",
    /// A promoted copy keeps the floor it has.
    PromotionKeepsFloor = "copy.1",
    /// A snapshot replaces what the follower had.
    SnapshotReplaces = "copy.2",
    /// A copy is proposed only after it took a snapshot.
    JoinsWithSnapshot = "copy.3",
    /// ... and confirmed all that was acknowledged until the owner began to wait for it.
    JoinsComplete = "copy.4",
    /// Before a release is proposed the old owner drains.
    DrainsBeforeRelease = "move.1",
    /// After a proposed release with unknown outcome the old owner does not resume until the map tells.
    NoResumeAfterRelease = "move.2",
    /// A new incarnation takes the place of the old one among those waited for only when that is committed.
    RejoinKeepsWaiting = "copy.5",
    /// A shard is handed only to an in-sync copy.
    HandsToInSync = "move.3",
    /// Eviction raises the floor before it drops anything.
    FloorBeforeEviction = "evict",
    /// An acknowledgement waits for the write, or for the sync if it promises one.
    AckBehindDisk = "disk.1",
    /// The marker of acknowledgements without sync is synced before the first of them.
    UnsyncedMarkerFirst = "disk.2",
    /// The ceiling is synced before a version below it is given or closed.
    CeilingSyncedFirst = "disk.3",
    /// A disk counts as a copy only if it is proven complete.
    DiskProvenComplete = "disk.4",
    /// What the last process wrote and did not sync is synced before its marker is forgotten.
    LogSyncedFirst = "disk.7",
    /// A floor is synced before what made it rise is forgotten.
    FloorSyncedFirst = "disk.6",
    /// After an ordered stop, or a crash of the process alone, nothing is doubted.
    NoNeedlessDoubt = "disk.5",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.label())
    }
}

/// The rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    removed: u128,
}

impl Rules {
    /// All of them.
    #[must_use]
    pub const fn all() -> Self {
        Self { removed: 0 }
    }

    /// All but one more.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self {
            removed: self.removed | 1 << rule as u8,
        }
    }

    /// Whether a rule is in force.
    #[must_use]
    #[inline]
    pub const fn has(self, rule: Rule) -> bool {
        self.removed & (1 << rule as u8) == 0
    }

    /// Those that were removed.
    pub fn removed(self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(move |&rule| !self.has(rule))
    }
}
