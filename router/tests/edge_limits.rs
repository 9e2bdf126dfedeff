//! A lane's bounds, each at its limit and one past it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, config};
use tidings_router::edge::{Config, Refusals};

fn stage(change: impl FnOnce(&mut Config)) -> Stage {
    let mut config = config(1, 1);
    change(&mut config);
    let mut stage = Stage::new(config);
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    stage
}

fn all_new(objects: &[&'static str]) -> Vec<(&'static str, u64)> {
    objects.iter().map(|object| (*object, 0)).collect()
}

#[test]
fn one_object_over_the_limit_of_a_subscriber_is_refused_by_itself() {
    let mut stage = stage(|config| config.objects_per_subscriber = 2);
    let who = stage.web_socket();
    stage.subscribe(who, &["a", "b"], None);
    stage.answer(0, &all_new(&["a", "b"]));
    assert_eq!(stage.told(who), ["subscribed a b", "cursor"]);
    stage.subscribe(who, &["b", "c"], None);
    assert_eq!(stage.told(who), ["subscribed b c!too_many_objects", "cursor"]);
    assert_eq!(
        stage.lane.take_refusals(),
        Refusals {
            objects: 1,
            ..Refusals::default()
        }
    );
}

#[test]
fn one_subscription_over_the_limit_of_the_lane_is_refused_and_harms_nobody() {
    let mut stage = stage(|config| config.subscriptions = 3);
    let (alice, bob) = (stage.web_socket(), stage.web_socket());
    stage.subscribe(alice, &["a", "b"], None);
    stage.answer(0, &all_new(&["a", "b"]));
    stage.subscribe(bob, &["a"], None);
    assert_eq!(stage.told(bob), ["subscribed a", "cursor"]);
    stage.subscribe(bob, &["a", "c"], None);
    assert_eq!(stage.told(bob), ["subscribed a c!too_many", "cursor"]);
    assert_eq!(
        stage.lane.take_refusals(),
        Refusals {
            subscriptions: 1,
            ..Refusals::default()
        }
    );
    // Whoever leaves makes room.
    stage.step(|lane, now, _| lane.disconnect(now, alice));
    stage.subscribe(bob, &["c"], None);
    stage.answer(0, &all_new(&["c"]));
    assert_eq!(stage.told(bob), ["subscribed c", "cursor"]);
    assert_eq!(stage.lane.stats().subscriptions, 2);
}

#[test]
fn idle_sessions_make_room_before_anybody_is_refused() {
    let mut stage = stage(|config| config.subscriptions = 2);
    let session = stage.step(|lane, now, _| lane.open_session(now));
    stage.poll(session, &["a", "b"], None);
    stage.answer(0, &all_new(&["a", "b"]));
    stage.writes();
    assert!(
        stage.answers.contains_key(&session.index),
        "answered, and idle from now on"
    );
    let who = stage.web_socket();
    stage.subscribe(who, &["c"], None);
    stage.answer(0, &all_new(&["c"]));
    assert_eq!(stage.told(who), ["subscribed c", "cursor"]);
    assert!(stage.lane.connection(session).is_none());
    assert_eq!(
        stage.lane.take_refusals(),
        Refusals {
            sessions: 1,
            ..Refusals::default()
        }
    );
}

#[test]
fn of_idle_sessions_over_the_limit_the_longest_unused_goes() {
    let mut stage = stage(|config| config.idle_sessions = 2);
    let sessions: Vec<_> = (0..3)
        .map(|_| stage.step(|lane, now, _| lane.open_session(now)))
        .collect();
    let known: Vec<_> = sessions
        .iter()
        .map(|who| stage.lane.connection(*who).is_some())
        .collect();
    assert_eq!(known, [false, true, true]);
}
