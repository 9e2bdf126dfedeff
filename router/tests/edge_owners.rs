//! Shards that change owners as a lane sees it: what the old one still says, what the new one says first, and links that
//! break in between. One claim a test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, config, entry};
use tidings_protocol::Version;
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};
use tidings_router::edge::{Config, MAX_OWNERS, Page};

/// One shard, two owners of different nodes. The first owns it in epoch 1 and has closed 9,000,000; somebody watches `a`.
fn watched() -> (Stage, tidings_router::edge::SubscriberKey) {
    let mut stage = Stage::new(config(1, 2));
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.answer(0, &[("a", 5_000_000)]);
    assert_eq!(stage.told(who), ["subscribed a@5000000", "cursor"]);
    (stage, who)
}

fn registers(frames: &[EdgeToOwner]) -> Vec<usize> {
    let objects = |frame: &EdgeToOwner| match frame {
        EdgeToOwner::Register { objects } => Some(objects.len()),
        _ => None,
    };
    frames.iter().filter_map(objects).collect()
}

#[test]
fn what_an_old_owner_closes_does_not_count_once_the_next_one_spoke() {
    let (mut stage, _) = watched();
    stage.own(1, &[0], 2, 0);
    stage.closed(0, 9_500_000);
    stage.closed(1, 9_600_000);
    assert_eq!(stage.lane.stats().closed, Version(9_000_000), "nobody has answered yet");
    stage.answer(1, &[("a", 5_000_000)]);
    stage.closed(0, 9_700_000);
    assert_eq!(stage.lane.stats().closed, Version(9_000_000));
    stage.closed(1, 9_800_000);
    assert_eq!(stage.lane.stats().closed, Version(9_800_000));
}

#[test]
fn an_old_owners_late_change_is_told_and_its_late_answer_is_not_taken_for_the_new_ones() {
    let (mut stage, who) = watched();
    stage.subscribe(who, &["b"], None);
    stage.own(1, &[0], 2, 0);
    stage.changed(0, "a", 9_100_000);
    assert_eq!(stage.told(who), ["changes a@9100000"]);
    // Asked of the old owner before the new one spoke.
    stage.answer(0, &[("b", 9_200_000)]);
    assert_eq!(stage.told(who), [] as [&str; 0]);
    // Nor for whoever comes just now.
    let other = stage.web_socket();
    stage.subscribe(other, &["b"], None);
    assert_eq!(stage.told(other), [] as [&str; 0]);
    stage.answer(1, &[("a", 9_100_000), ("b", 9_300_000)]);
    assert_eq!(stage.told(who), ["subscribed b@9300000", "cursor"]);
    // An older one is not told after a newer one.
    stage.changed(0, "b", 9_250_000);
    assert_eq!(stage.told(who), [] as [&str; 0]);
}

#[test]
fn whoever_waits_for_an_owner_that_was_replaced_and_is_silent_is_answered_by_the_next() {
    let (mut stage, who) = watched();
    stage.subscribe(who, &["b"], None);
    // The old owner's link stays up; it never answers.
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[("b", 9_300_000)]);
    assert_eq!(stage.told(who), ["subscribed b@9300000", "cursor"]);
}

#[test]
fn a_link_of_an_old_owner_that_breaks_takes_nothing_from_the_next() {
    let (mut stage, who) = watched();
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[("a", 5_000_000)]);
    stage.gone(0, &[0]);
    stage.step(|lane, now, out| lane.owner_down(now, 0, 1, out));
    stage.closed(1, 9_900_000);
    assert_eq!(stage.lane.stats().closed, Version(9_900_000));
    stage.changed(1, "a", 9_950_000);
    assert_eq!(stage.told(who), ["changes a@9950000"]);
    assert_eq!(registers(&stage.heard(1)), [] as [usize; 0], "registered once");
}

#[test]
fn an_older_epoch_on_a_link_that_comes_back_is_ignored_even_while_nobody_owns_the_shard() {
    let (mut stage, who) = watched();
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[("a", 5_000_000)]);
    stage.step(|lane, now, out| lane.owner_down(now, 1, 1, out));
    stage.up(0);
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_950_000);
    assert_eq!(registers(&stage.heard(0)), [] as [usize; 0]);
    assert_eq!(stage.lane.stats().closed, Version(9_000_000));
    // What it knew of the epoch outlasts the link too: the same one is welcome, an older one never.
    stage.up(1);
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[("a", 9_700_000)]);
    assert_eq!(stage.told(who), ["changes a@9700000"]);
}

#[test]
fn a_recorded_stream_of_an_older_epoch_that_comes_again_changes_nothing_and_is_counted() {
    let (mut stage, who) = watched();
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[("a", 5_000_000)]);
    stage.changed(1, "a", 9_900_000);
    stage.closed(1, 9_950_000);
    assert_eq!(stage.told(who), ["changes a@9900000"]);
    let (before, ignored) = (stage.lane.stats().closed, stage.lane.stats().ignored_frames);
    // All that the first owner said in epoch 1, and what it would have gone on with.
    stage.up(0);
    for _ in 0..3 {
        stage.own(0, &[0], 1, 0);
        stage.changed(0, "a", 8_000_000);
        stage.closed(0, 99_000_000);
    }
    let after = stage.lane.stats();
    assert_eq!(after.closed, before, "nothing is vouched for by it");
    assert_eq!(after.ignored_frames - ignored, 3);
    assert_eq!(stage.told(who), [] as [&str; 0]);
    assert_eq!(
        registers(&stage.heard(0)),
        [] as [usize; 0],
        "nobody asks it for anything"
    );
    // The present owner goes on as if nothing had been.
    stage.changed(1, "a", 9_960_000);
    assert_eq!(stage.told(who), ["changes a@9960000"]);
}

#[test]
fn a_floor_above_what_was_closed_asks_for_a_fetch_also_if_it_comes_from_another_owner() {
    let (mut stage, who) = watched();
    stage.own(1, &[0], 2, 9_500_000);
    assert_eq!(stage.told(who), ["resync all (versions_lost)"]);
    stage.answer(1, &[]);
    // Once is enough: the link breaks, and the same owner says the same again.
    stage.up(1);
    stage.own(1, &[0], 2, 9_500_000);
    stage.answer(1, &[]);
    assert_eq!(stage.told(who), [] as [&str; 0]);
}

#[test]
fn a_floor_that_what_was_closed_covers_asks_for_nothing() {
    let (mut stage, who) = watched();
    stage.own(1, &[0], 2, 9_000_001);
    stage.answer(1, &[]);
    assert_eq!(stage.told(who), [] as [&str; 0]);
    assert_eq!(registers(&stage.heard(1)), [] as [usize; 0]);
}

#[test]
fn an_answer_from_before_a_shard_went_and_came_back_does_not_make_an_object_live() {
    let mut stage = Stage::new(config(1, 2));
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    // Before the answer, the shard goes to another owner and comes back: `a` is asked for a second time.
    stage.own(1, &[0], 2, 0);
    stage.own(0, &[0], 3, 0);
    assert_eq!(registers(stage.to_owner.get(&0).unwrap()), [1, 1]);
    stage.answer(0, &[("a", 5_000_000)]);
    assert_eq!(stage.told(who), [] as [&str; 0], "the second answer is yet to come");
    // So nothing can be given up while an answer is under way, which would be taken for that to a later request.
    stage.step(|lane, now, _| lane.disconnect(now, who));
    stage.wait(60_000_000);
    let gives_up = |frames: &[EdgeToOwner]| frames.iter().any(|f| matches!(f, EdgeToOwner::Unregister { .. }));
    assert!(!gives_up(stage.to_owner.get(&0).unwrap()));
    stage.answer(0, &[("a", 5_000_000)]);
    stage.wait(60_000_000);
    assert!(gives_up(stage.to_owner.get(&0).unwrap()));
}

#[test]
fn an_object_nobody_wants_is_given_up_only_when_its_new_owner_has_answered() {
    let (mut stage, who) = watched();
    stage.step(|lane, now, _| lane.disconnect(now, who));
    stage.own(1, &[0], 2, 0);
    stage.wait(60_000_000);
    assert_eq!(registers(stage.to_owner.get(&1).unwrap()), [1]);
    assert_eq!(stage.to_owner.get(&1).unwrap().len(), 1, "no word of giving up");
    stage.answer(1, &[]);
    stage.wait(60_000_000);
    assert!(matches!(&stage.heard(1)[..], [EdgeToOwner::Unregister { objects }] if objects.len() == 1));
}

#[test]
fn a_lane_with_many_objects_asks_for_them_in_frames_of_bounded_size_and_waits_for_all_answers() {
    let mut stage = Stage::new(Config {
        objects_per_subscriber: 100_000,
        lingering_objects: 100_000,
        ..config(1, 2)
    });
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    let names: Vec<String> = (0..20_000).map(|number| format!("object/{number}")).collect();
    let who = stage.web_socket();
    let page = Page {
        entries: names.iter().map(|name| entry(name)).collect(),
        ..Page::default()
    };
    stage
        .step(|lane, now, out| lane.subscribe(now, who, page, out))
        .unwrap();
    while !registers(stage.to_owner.get(&0).unwrap()).is_empty() {
        stage.answer(0, &[]);
    }
    assert_eq!(stage.told(who).len(), 2);
    stage.own(1, &[0], 2, 0);
    let asked = registers(stage.to_owner.get(&1).unwrap());
    assert_eq!(asked.iter().sum::<usize>(), 20_000);
    assert!(asked.len() > 2 && asked.iter().all(|objects| *objects <= 8_192));
    for _ in 0..asked.len() {
        stage.closed(1, 9_500_000);
        assert_eq!(stage.lane.stats().closed, Version(9_000_000));
        stage.answer(1, &[]);
    }
    stage.closed(1, 9_600_000);
    assert_eq!(stage.lane.stats().closed, Version(9_600_000));
    stage.step(|lane, now, _| lane.disconnect(now, who));
    stage.wait(60_000_000);
    let given_up = stage.heard(1).into_iter().map(|frame| match frame {
        EdgeToOwner::Unregister { objects } => objects.len(),
        other => panic!("{other:?}"),
    });
    let given_up: Vec<usize> = given_up.collect();
    assert_eq!(given_up.iter().sum::<usize>(), 20_000);
    assert!(given_up.iter().all(|objects| *objects <= 8_192));
}

#[test]
fn an_owner_that_was_never_named_before_is_taken_in() {
    let (mut stage, who) = watched();
    stage.up(700);
    stage.own(700, &[0], 2, 0);
    stage.answer(700, &[("a", 9_300_000)]);
    assert_eq!(stage.told(who), ["changes a@9300000"]);
    stage.changed(700, "a", 9_400_000);
    assert_eq!(stage.told(who), ["changes a@9400000"]);
    // Those in between are known now, and down: what is said in their names is ignored.
    let before = stage.lane.stats().ignored_frames;
    let frames = vec![OwnerToEdge::Closed {
        version: Version(9_999_999),
    }];
    stage.step(|lane, now, out| lane.owner_frames(now, 699, 1, frames.clone(), out));
    stage.step(|lane, now, out| lane.owner_frames(now, 701, 1, frames, out));
    stage.step(|lane, now, out| lane.owner_down(now, 701, 1, out));
    assert_eq!(stage.lane.stats().ignored_frames, before + 3);
}

#[test]
fn an_owner_numbered_past_the_most_there_can_be_is_ignored_and_takes_no_memory() {
    let mut stage = Stage::simple();
    let before = stage.lane.stats().ignored_frames;
    for owner in [MAX_OWNERS, usize::MAX] {
        stage.step(|lane, now, out| lane.owner_up(now, owner, 1, out));
    }
    assert_eq!(stage.lane.stats().ignored_frames, before + 2);
}

#[test]
fn a_cursor_above_the_clock_is_from_the_future_only_above_the_ceiling_of_the_cluster() {
    let verdict = |ceiling: u64, base: u64| {
        let mut stage = Stage::simple();
        stage.lane.set_ceiling(Version(ceiling));
        // What was known of a ceiling stays known.
        stage.lane.set_ceiling(Version(1));
        let who = stage.web_socket();
        let cursor = stage.cursor(base);
        stage.subscribe(who, &["a"], Some(&cursor));
        stage.answer(0, &[("a", 5_000_000)]);
        stage.told(who)
    };
    let fine = ["subscribed a@5000000", "cursor"];
    let future = ["subscribed a@5000000", "resync all (cursor_future)", "cursor"];
    assert_eq!(verdict(0, 20_000_000), fine, "ten seconds above the clock");
    assert_eq!(verdict(0, 20_000_001), future);
    assert_eq!(verdict(3_600_000_000, 3_600_000_000), fine);
    assert_eq!(verdict(3_600_000_000, 3_600_000_001), future);
    assert_eq!(verdict(15_000_000, 20_000_000), fine, "the clock counts as well");
}

#[test]
fn who_was_told_to_fetch_is_not_told_again_when_something_changes_before_the_floor_is_closed() {
    let mut stage = Stage::new(config(1, 2));
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_900_000);
    stage.poll(who, &["a", "b"], Some(&cursor));
    stage.answer(0, &[]);
    stage.writes();
    // The floor lies above every ceiling, so ahead of the clock.
    stage.own(1, &[0], 2, 12_000_000);
    stage.answer(1, &[]);
    stage.closed(1, 10_100_000);
    stage.writes();
    let mut answer = stage.answers.remove(&who.index).expect("told to fetch");
    assert!(answer.resync.is_some(), "{answer:?}");
    for version in 12_000_001..12_000_004 {
        stage.poll(who, &[], Some(&answer.cursor));
        stage.writes();
        assert!(!stage.answers.contains_key(&who.index), "the poll waits");
        stage.changed(1, "b", version);
        stage.writes();
        answer = stage.answers.remove(&who.index).expect("told of the change");
        assert_eq!((answer.changes.len(), &answer.resync), (1, &None), "{answer:?}");
    }
}
