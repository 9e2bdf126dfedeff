//! Subscriptions that end because they are no longer granted: when, and what of them is still told.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, entry};
use tidings_protocol::peer::EdgeToOwner;
use tidings_protocol::{Code, Problem};
use tidings_router::edge::{PollPage, SubscriberKey};

fn withdraw(stage: &mut Stage, who: SubscriberKey, kept: &[&str]) -> usize {
    let why = Problem::new(Code::Forbidden, "not yours");
    stage.step(|lane, now, out| lane.withdraw(now, who, |object| kept.contains(&object), &why, out))
}

/// A WebSocket that watches `a` and `b`, and was told so.
fn watching() -> (Stage, SubscriberKey) {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    stage.subscribe(who, &["a", "b"], None);
    stage.answer(0, &[("a", 5_000_000), ("b", 5_000_000)]);
    stage.told(who);
    (stage, who)
}

#[test]
fn nothing_is_told_of_what_was_withdrawn_and_the_rest_goes_on() {
    let (mut stage, who) = watching();
    assert_eq!(withdraw(&mut stage, who, &["b"]), 1);
    assert_eq!(stage.told(who), ["refused"]);
    stage.changed(0, "a", 9_100_000);
    stage.changed(0, "b", 9_200_000);
    assert_eq!(stage.told(who), ["changes b@9200000"]);
    assert_eq!((stage.lane.watchers("a"), stage.lane.watchers("b")), (0, 1));
}

#[test]
fn a_mark_that_was_waiting_is_never_told() {
    let (mut stage, who) = watching();
    stage.step(|lane, now, _| lane.blocked(now, who));
    stage.changed(0, "a", 9_100_000);
    stage.changed(0, "b", 9_100_001);
    withdraw(&mut stage, who, &["b"]);
    stage.step(|lane, now, out| lane.writable(now, who, out));
    let told = stage.told(who);
    assert!(!told.iter().any(|told| told.contains("a@")), "{told:?}");
    assert!(told.iter().any(|told| told.contains("b@9100001")), "{told:?}");
}

#[test]
fn who_may_keep_everything_is_told_nothing() {
    let (mut stage, who) = watching();
    assert_eq!(withdraw(&mut stage, who, &["a", "b"]), 0);
    assert_eq!(stage.told(who), <[String; 0]>::default());
}

#[test]
fn a_request_under_way_answers_with_the_refusal() {
    let (mut stage, who) = watching();
    stage.subscribe(who, &["c", "d"], None);
    assert_eq!(withdraw(&mut stage, who, &["a", "d"]), 2);
    assert_eq!(stage.told(who), ["refused"], "of b, which the request did not name");
    stage.answer(0, &[("c", 6_000_000), ("d", 6_000_000)]);
    assert_eq!(stage.told(who), ["subscribed c!forbidden d@6000000", "cursor"]);
    stage.changed(0, "c", 9_100_000);
    assert_eq!(stage.told(who), <[String; 0]>::default());
}

#[test]
fn a_request_of_which_nothing_is_left_is_answered_when_the_owner_has() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    withdraw(&mut stage, who, &[]);
    stage.answer(0, &[("a", 5_000_000)]);
    assert_eq!(stage.told(who), ["subscribed a!forbidden", "cursor"]);
    assert!(stage.lane.may_request(who));
    stage.subscribe(who, &["a"], None);
    assert_eq!(stage.told(who), ["subscribed a@5000000", "cursor"]);
}

#[test]
fn a_resync_that_is_due_is_not_told_of_what_was_withdrawn() {
    let (mut stage, who) = watching();
    stage.step(|lane, now, _| lane.blocked(now, who));
    // Another owner that can vouch for nothing before.
    stage.own(0, &[0], 2, 9_500_000);
    stage.answer(0, &[]);
    withdraw(&mut stage, who, &["b"]);
    stage.step(|lane, now, out| lane.writable(now, who, out));
    // All that it still watches, which is b.
    assert_eq!(stage.told(who), ["refused", "resync all (versions_lost)"]);
    assert_eq!(stage.lane.watched_by(who, 9), ["b".into()]);
}

#[test]
fn a_poll_that_waits_is_told_what_it_will_not_hear_of() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_000_000);
    stage.poll(who, &["a", "b"], Some(&cursor));
    stage.answer(0, &[]);
    stage.writes();
    assert!(!stage.answers.contains_key(&who.index), "it waits");
    withdraw(&mut stage, who, &["b"]);
    stage.writes();
    let answer = stage.answers.remove(&who.index).expect("answered");
    assert_eq!(answer.refused.len(), 1);
    assert_eq!(
        (answer.refused[0].0.as_str(), answer.refused[0].1.code),
        ("a", Code::Forbidden)
    );
    assert_eq!(answer.changes, []);
}

#[test]
fn a_session_at_rest_only_forgets() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &["a", "b"], None);
    stage.answer(0, &[]);
    stage.writes();
    assert_eq!(withdraw(&mut stage, who, &["b"]), 1);
    assert_eq!(stage.lane.watched_by(who, 9), ["b".into()]);
    let page = PollPage {
        entries: vec![entry("c")],
        ..PollPage::default()
    };
    stage
        .step(|lane, now, out| lane.poll(now, who, page, out))
        .expect("known");
}

#[test]
fn nobody_else_loses_anything_and_the_owner_is_told_when_the_last_one_left() {
    let (mut stage, who) = watching();
    let other = stage.web_socket();
    stage.subscribe(other, &["a"], None);
    stage.told(other);
    withdraw(&mut stage, who, &[]);
    stage.wait(6_000_000);
    let heard = stage.heard(0);
    let unregistered = |frame: &EdgeToOwner| matches!(frame, EdgeToOwner::Unregister { objects } if objects.len() == 1);
    assert_eq!(
        heard.iter().filter(|frame| unregistered(frame)).count(),
        1,
        "b and not a: {heard:?}"
    );
    stage.changed(0, "a", 19_100_000);
    let told = stage.told(other);
    assert!(told.iter().any(|told| told.contains("a@19100000")), "{told:?}");
}

#[test]
fn somebody_who_is_gone_has_nothing_to_lose() {
    let (mut stage, who) = watching();
    stage.step(|lane, now, _| lane.disconnect(now, who));
    assert_eq!(withdraw(&mut stage, who, &[]), 0);
}
