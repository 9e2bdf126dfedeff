//! Without a rule something falls, and it is what the design says. One test for each rule that can be taken away.

use tidings_model::catalogue::{self, Summary};
use tidings_model::removals::{REDUNDANT, REMOVALS};
use tidings_model::rule::{Rule, Rules};
use tidings_model::search::Limits;

const LIMITS: Limits = Limits {
    states: 3_000_000,
    stop_at_violation: true,
};

fn walk(model: &str, without: &[Rule]) -> Summary {
    let entry = catalogue::named(model).expect("a model of that name");
    let rules = without.iter().fold(Rules::all(), |rules, &rule| rules.without(rule));
    entry.model.with(rules).walk(LIMITS)
}

/// Takes away a rule, wherever the table says that something falls without it.
fn something_falls_without(rule: Rule) {
    let removals: Vec<_> = REMOVALS.iter().filter(|removal| removal.rules[0] == rule).collect();
    assert!(!removals.is_empty(), "{rule:?} is not in the table");
    for removal in removals {
        let found = walk(removal.model, removal.rules);
        let fallen: Vec<_> = found.violations.iter().map(|(property, _)| *property).collect();
        assert!(
            fallen.contains(&removal.falls),
            "without {:?} `{}` should fall in `{}`; fell: {fallen:?} of {} states",
            removal.rules,
            removal.falls,
            removal.model,
            found.states,
        );
        let (property, steps) = &found.violations[0];
        println!(
            "without {:?}: {property} falls after {} steps",
            removal.rules,
            steps.len()
        );
        steps.iter().for_each(|step| println!("    {step}"));
    }
}

/// One test for each rule.
macro_rules! without {
    ($($name:ident: $rule:ident,)+) => {
        $(#[test]
        fn $name() {
            something_falls_without(Rule::$rule);
        })+

        /// The rules that have a test above.
        const TESTED: &[Rule] = &[$(Rule::$rule),+];
    };
}

without! {
    something_falls_without_floor_in_answer: FloorInAnswer,
    something_falls_without_floor_means_resync: FloorMeansResync,
    something_falls_without_catch_up_compares_floor: CatchUpComparesFloor,
    something_falls_without_index_compares_floor: IndexComparesFloor,
    something_falls_without_known_compares_floor: KnownComparesFloor,
    something_falls_without_incarnation_in_map: IncarnationInMap,
    something_falls_without_incarnation_in_ack: IncarnationInAck,
    something_falls_without_closed_covers_owned: ClosedCoversOwned,
    something_falls_without_closed_behind_changes: ClosedBehindChanges,
    something_falls_without_closed_behind_answers: ClosedBehindAnswers,
    something_falls_without_cursor_covers_every_shard: CursorCoversEveryShard,
    something_falls_without_cursor_behind_pending: CursorBehindPending,
    something_falls_without_cursor_behind_resync: CursorBehindResync,
    something_falls_without_cursor_behind_answers: CursorBehindAnswers,
    something_falls_without_cursor_in_queue: CursorInQueue,
    something_falls_without_cursor_counts_behind_subscribed: CursorCountsBehindSubscribed,
    something_falls_without_last_cursor_counts: LastCursorCounts,
    something_falls_without_timeout_keeps_cursor: TimeoutKeepsCursor,
    something_falls_without_duplicate_waits: DuplicateWaits,
    something_falls_without_promoted_levels: PromotedLevels,
    something_falls_without_waits_before_join: WaitsBeforeJoin,
    something_falls_without_waits_until_removed: WaitsUntilRemoved,
    something_falls_without_entry_names_epoch: EntryNamesEpoch,
    something_falls_without_entry_names_in_sync: EntryNamesInSync,
    something_falls_without_no_renewal_while_replacing: NoRenewalWhileReplacing,
    something_falls_without_leader_commits_first: LeaderCommitsFirst,
    something_falls_without_floor_in_copy: FloorInCopy,
    something_falls_without_register_in_one_step: RegisterInOneStep,
    something_falls_without_assign_in_one_step: AssignInOneStep,
    something_falls_without_close_in_one_step: CloseInOneStep,
    something_falls_without_interest_has_generation: InterestHasGeneration,
    something_falls_without_cut_not_thinned: CutNotThinned,
    something_falls_without_closed_rises: ClosedRises,
    something_falls_without_marker_removed_first: MarkerRemovedFirst,
    something_falls_without_loaded_before_serving: LoadedBeforeServing,
    something_falls_without_epoch_above_ceiling: EpochAboveCeiling,
    something_falls_without_nothing_above_ceiling: NothingAboveCeiling,
    something_falls_without_map_before_ceiling: MapBeforeCeiling,
    something_falls_without_accept_in_lease: AcceptInLease,
    something_falls_without_check_after_read: CheckAfterRead,
    something_falls_without_lease_runs_out: LeaseRunsOut,
    something_falls_without_follower_refuses: FollowerRefuses,
    something_falls_without_edge_refuses: EdgeRefuses,
    something_falls_without_version_rises: VersionRises,
    something_falls_without_floor_compared_with_closed: FloorComparedWithClosed,
    something_falls_without_vouched_is_told: VouchedIsTold,
    something_falls_without_page_first: PageFirst,
    something_falls_without_register_again: RegisterAgain,
    something_falls_without_given_up_behind_answer: GivenUpBehindAnswer,
    something_falls_without_told_is_listed: ToldIsListed,
    something_falls_without_untold_keeps_base: UntoldKeepsBase,
    something_falls_without_only_known_is_listed: OnlyKnownIsListed,
    something_falls_without_promotion_keeps_floor: PromotionKeepsFloor,
    something_falls_without_joins_with_snapshot: JoinsWithSnapshot,
    something_falls_without_joins_complete: JoinsComplete,
    something_falls_without_rejoin_keeps_waiting: RejoinKeepsWaiting,
    something_falls_without_hands_to_in_sync: HandsToInSync,
    something_falls_without_floor_before_eviction: FloorBeforeEviction,
    something_falls_without_ack_behind_disk: AckBehindDisk,
    something_falls_without_unsynced_marker_first: UnsyncedMarkerFirst,
    something_falls_without_ceiling_synced_first: CeilingSyncedFirst,
    something_falls_without_log_synced_first: LogSyncedFirst,
    something_falls_without_floor_synced_first: FloorSyncedFirst,
    something_falls_without_no_needless_doubt: NoNeedlessDoubt,
    something_falls_without_disk_proven_complete: DiskProvenComplete,
}

#[test]
fn every_rule_is_tested_or_named_as_redundant() {
    for &rule in Rule::ALL {
        let redundant = REDUNDANT.iter().any(|redundant| redundant.rule == rule);
        assert!(
            TESTED.contains(&rule) != redundant,
            "{rule:?}: either a counterexample or a reason, and not both"
        );
    }
}

#[test]
fn a_rule_that_is_named_as_redundant_breaks_nothing_within_the_bounds() {
    for redundant in REDUNDANT {
        for model in redundant.models {
            let found = walk(model, &[redundant.rule]);
            assert!(
                found.complete && found.violations.is_empty(),
                "{:?} is not redundant in `{model}`: {:?}",
                redundant.rule,
                found.violations,
            );
        }
    }
}

/// The alternative to waiting for incarnations: who starts again knows the epochs it must refuse before it follows.
#[test]
fn nodes_that_read_the_map_before_they_follow_need_no_incarnations_in_confirmations() {
    for model in ["restart", "restart-rejoin"] {
        let mut entry = catalogue::named(model).expect("a model of that name");
        assert!(entry.model.set("learns_first", 1), "`{model}` has that bound");
        let rules = Rules::all()
            .without(Rule::IncarnationInAck)
            .without(Rule::RejoinKeepsWaiting);
        let found = entry.model.with(rules).walk(LIMITS);
        assert!(found.complete && found.violations.is_empty(), "{:?}", found.violations);
    }
}
