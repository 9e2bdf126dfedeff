//! With all rules every property holds in every state within the bounds, and nothing holds of nothing.

use tidings_model::catalogue::{self, AnyModel, Entry};
use tidings_model::rule::{Rule, Rules};
use tidings_model::search::Limits;

const LIMITS: Limits = Limits {
    states: 3_000_000,
    stop_at_violation: true,
};

fn entries() -> Vec<Entry> {
    catalogue::all().into_iter().filter(|entry| entry.in_tests).collect()
}

fn holds(entry: &Entry) {
    let found = entry.model.walk(LIMITS);
    println!(
        "{}: {} states, {} steps, depth {}",
        entry.name, found.states, found.steps, found.depth
    );
    assert_eq!(found.violations, [], "`{}`", entry.name);
    assert!(found.complete, "`{}` has more states than a test may walk", entry.name);
    let nothing: [&str; 0] = [];
    assert_eq!(
        found.unreached, nothing,
        "`{}` never gets there, so it proves little",
        entry.name
    );
}

#[test]
fn edges_and_clients_lose_nothing_under_scripted_owners() {
    let is_front = |entry: &&Entry| matches!(entry.model, AnyModel::Scripted(_));
    entries().iter().filter(is_front).for_each(holds);
}

#[test]
fn what_copies_acknowledge_is_kept_or_confessed() {
    let is_copies = |entry: &&Entry| matches!(entry.model, AnyModel::Copies(_));
    entries().iter().filter(is_copies).for_each(holds);
}

#[test]
fn a_disk_keeps_what_it_promised() {
    let is_disk = |entry: &&Entry| matches!(entry.model, AnyModel::Disk(_));
    entries().iter().filter(is_disk).for_each(holds);
}

#[test]
fn both_halves_together_lose_nothing() {
    let is_whole = |entry: &&Entry| matches!(entry.model, AnyModel::Whole(_));
    entries().iter().filter(is_whole).for_each(holds);
}

#[test]
fn the_library_counts_the_same_states() {
    for name in ["loss", "membership", "disk", "links"] {
        let entry = catalogue::named(name).expect("a model of that name");
        let (ours, its) = (entry.model.walk(LIMITS), entry.model.walk_by_library());
        assert_eq!((ours.states, ours.steps), (its.states, its.steps), "`{name}`");
        let nothing: [&str; 0] = [];
        assert_eq!(its.violations, nothing, "`{name}`");
    }
}

#[test]
fn the_library_finds_what_falls_as_well() {
    let entry = catalogue::named("loss").expect("a model of that name");
    let its = entry
        .model
        .with(Rules::all().without(Rule::FloorInAnswer))
        .walk_by_library();
    assert!(its.violations.contains(&"P1 no silent loss"), "{:?}", its.violations);
}
