//! A lane's promises one by one, with owners that the test plays word for word.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, config, entry};
use tidings_protocol::client::Entry;
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};
use tidings_protocol::{Cursor, Version};
use tidings_router::edge::{Config, Page, PollPage};

fn at_least(object: &str, version: u64) -> Result<Entry, (String, tidings_protocol::Problem)> {
    Ok(Entry {
        object: object.into(),
        version: None,
        at_least: Some(Version(version)),
    })
}

#[test]
fn the_first_watcher_of_an_object_is_not_told_of_its_old_version() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.answer(0, &[("a", 5_000_000)]);
    assert_eq!(stage.told(who), ["subscribed a@5000000", "cursor"]);
}

#[test]
fn the_first_watcher_that_comes_back_is_told_only_of_what_is_above_its_cursor() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    let cursor = stage.cursor(6_000_000);
    stage.subscribe(who, &["a", "b"], Some(&cursor));
    stage.answer(0, &[("a", 5_000_000), ("b", 7_000_000)]);
    assert_eq!(
        stage.told(who),
        ["subscribed a@5000000 b@7000000", "changes b@7000000", "cursor"]
    );
}

#[test]
fn a_poll_without_cursor_answers_with_a_cursor_and_no_changes() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &["a"], None);
    stage.answer(0, &[("a", 5_000_000)]);
    stage.writes();
    let answer = &stage.answers[&who.index];
    assert_eq!(answer.changes, []);
    assert!(Cursor::decode(&answer.cursor).is_ok());
}

#[test]
fn a_change_between_registration_and_answer_is_in_the_answer_or_told_after_it() {
    let mut stage = Stage::new(config(4, 2));
    let (even, odd): (Vec<u16>, Vec<u16>) = (0..4).partition(|s| s % 2 == 0);
    stage.own(0, &even, 1, 0);
    stage.own(1, &odd, 1, 0);
    stage.closed(0, 9_000_000);
    stage.closed(1, 9_000_000);
    let (here, there) = split(&stage);
    let who = stage.web_socket();
    stage.subscribe(who, &[&here, &there], None);
    stage.answer(0, &[]);
    stage.changed(0, &here, 9_500_000);
    assert_eq!(stage.told(who), [""; 0], "nothing before `subscribed`");
    stage.answer(1, &[]);
    let told = stage.told(who).join(", ");
    assert!(
        told.starts_with(&format!("subscribed {here}@9500000 {there}")),
        "{told}"
    );
}

/// An object of an even shard and one of an odd one.
fn split(stage: &Stage) -> (String, String) {
    let odd = |name: &String| stage.config.shards.shard(stage.config.key.object(name)).0 % 2 == 1;
    let names = || (0..).map(|n| format!("o{n}"));
    (names().find(|n| !odd(n)).unwrap(), names().find(odd).unwrap())
}

#[test]
fn a_late_gone_of_the_old_owner_does_not_undo_the_registration_with_the_new_one() {
    let mut stage = Stage::new(config(1, 2));
    stage.own(0, &[0], 1, 0);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.answer(0, &[]);
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[]);
    stage.gone(0, &[0]);
    let explanation = stage.lane.explain(who, "a").unwrap();
    assert!(explanation.subscription.unwrap().registered);
    let other = stage.web_socket();
    stage.subscribe(other, &["a"], None);
    assert_eq!(stage.told(other), ["subscribed a"]);
    // And it can be given up again.
    stage.lane.disconnect(stage.now, who);
    stage.lane.disconnect(stage.now, other);
    stage.heard(1);
    stage.wait(6_000_000);
    assert_eq!(stage.lane.stats().objects, 0);
    assert!(matches!(stage.heard(1)[..], [EdgeToOwner::Unregister { .. }]));
}

#[test]
fn a_page_whose_objects_are_live_is_answered_though_another_shard_goes_away() {
    let mut stage = Stage::new(config(2, 1));
    stage.own(0, &[0, 1], 1, 0);
    let in_shard = |wanted: u16| {
        let stage = &stage;
        move |name: &String| stage.config.shards.shard(stage.config.key.object(name)).0 == wanted
    };
    let names = || (0..).map(|n| format!("o{n}"));
    let mut here = names().filter(in_shard(0));
    let (x, y) = (here.next().unwrap(), here.next().unwrap());
    drop(here);
    let (first, second, third) = (stage.web_socket(), stage.web_socket(), stage.web_socket());
    stage.subscribe(first, &[&x], None);
    stage.subscribe(second, &[&y], None);
    // It waits for the newest question, though the older one is the one for its object.
    stage.subscribe(third, &[&x], None);
    stage.answer(0, &[]);
    stage.gone(0, &[1]);
    stage.answer(0, &[]);
    assert_eq!(stage.told(third), [format!("subscribed {x}")]);
}

#[test]
fn a_session_poll_after_a_time_out_waits_until_all_its_objects_are_live() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_000_000);
    stage.poll(who, &["a"], Some(&cursor));
    assert_eq!(stage.poll_over(who).cursor, cursor, "its own cursor back");
    // The owner has not answered yet, and closes past a change of the object.
    stage.closed(0, 9_900_000);
    stage.poll(who, &[], Some(&cursor));
    assert_eq!(stage.poll_over(who).cursor, cursor, "still not live");
    stage.poll(who, &[], Some(&cursor));
    stage.answer(0, &[("a", 9_800_000)]);
    stage.writes();
    assert_eq!(stage.answers[&who.index].changes.len(), 1);
}

#[test]
fn an_idle_session_that_streams_waits_until_all_its_objects_are_live() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &["a"], None);
    stage.closed(0, 9_900_000);
    stage.poll(who, &[], None);
    assert!(
        !stage.answers.contains_key(&who.index),
        "no cursor before the object is live"
    );
}

#[test]
fn an_answer_to_an_older_poll_does_not_end_the_wait_for_a_version() {
    let mut stage = Stage::new(config(1, 1));
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_000_000);
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_900_000);
    stage.poll(who, &["a"], Some(&cursor));
    stage.answer(0, &[]);
    stage.poll(who, &["b"], Some(&cursor));
    let page = PollPage {
        entries: vec![at_least("a", 9_700_000)],
        remove: vec!["b".into()],
        cursor: Some(cursor.clone()),
        trace: false,
    };
    stage.step(|lane, now, out| lane.poll(now, who, page, out)).unwrap();
    stage.answer(0, &[]);
    stage.closed(0, 9_600_000);
    stage.changed(0, "a", 9_650_000);
    stage.writes();
    assert!(!stage.answers.contains_key(&who.index), "9700000 is not included yet");
    stage.changed(0, "a", 9_700_000);
    stage.writes();
    assert_eq!(stage.answers[&who.index].changes[0].version, Version(9_700_000));
}

#[test]
fn a_frozen_client_with_an_unanswered_ping_does_not_stop_the_lane() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.answer(0, &[]);
    stage.writes();
    stage.wait(25_100_000);
    assert!(stage.told(who).contains(&"Ping".to_string()));
    stage.lane.blocked(stage.now, who);
    // `handle_deadline` must come back although the pong is overdue.
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        stage.wait(30_000_000);
        assert!(stage.lane.connection(who).is_some(), "silence is not its fault");
        stage.wait(31_000_000);
        assert_eq!(stage.cut, [who], "no progress for a minute");
        tx.send(()).unwrap();
    });
    rx.recv_timeout(std::time::Duration::from_secs(10))
        .expect("the lane spins");
}

#[test]
fn changes_of_a_page_that_waits_for_a_version_come_after_its_answer() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    let page = Page {
        entries: vec![at_least("a", 9_700_000), entry("b")],
        ..Page::default()
    };
    stage
        .step(|lane, now, out| lane.subscribe(now, who, page, out))
        .unwrap();
    stage.answer(0, &[]);
    stage.changed(0, "b", 9_100_000);
    assert_eq!(stage.told(who), [""; 0]);
    stage.changed(0, "a", 9_700_000);
    assert_eq!(
        stage.told(who),
        [
            "subscribed a@9700000 b@9100000",
            "changes a@9700000 b@9100000",
            "cursor"
        ]
    );
}

#[test]
fn a_poll_waits_for_a_version_as_long_as_the_poll_may() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_900_000);
    let page = PollPage {
        entries: vec![at_least("a", 20_000_000)],
        cursor: Some(cursor.clone()),
        ..PollPage::default()
    };
    stage.step(|lane, now, out| lane.poll(now, who, page, out)).unwrap();
    stage.answer(0, &[]);
    stage.wait(5_000_000);
    stage.writes();
    assert!(
        !stage.answers.contains_key(&who.index),
        "`at_least_us` is for WebSockets"
    );
    let answer = stage.poll_over(who);
    assert_eq!(answer.refused.len(), 1);
}

#[test]
fn a_poll_that_ends_before_its_objects_are_live_says_what_it_refused() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    let cursor = stage.cursor(8_900_000);
    let bad = (
        String::from("bad\u{fffd}"),
        tidings_protocol::Problem::new(tidings_protocol::Code::InvalidObject, "no"),
    );
    let page = PollPage {
        entries: vec![at_least("a", 9_100_000), Err(bad), entry("c")],
        cursor: Some(cursor.clone()),
        ..PollPage::default()
    };
    stage.step(|lane, now, out| lane.poll(now, who, page, out)).unwrap();
    let answer = stage.poll_over(who);
    let refused: Vec<_> = answer
        .refused
        .iter()
        .map(|(o, p)| (o.as_str(), p.code.as_str()))
        .collect();
    assert_eq!(refused, [("a", "not_yet"), ("bad\u{fffd}", "invalid_object")]);
    assert_eq!(answer.cursor, cursor);
}

#[test]
fn a_new_watcher_is_not_told_to_resync_what_it_never_held() {
    let mut stage = Stage::new(config(1, 1));
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.own(0, &[0], 1, 5_000_000);
    stage.answer(0, &[]);
    assert_eq!(stage.told(who), ["subscribed a"]);
}

#[test]
fn what_was_said_with_a_change_is_forgotten_when_nobody_waits_for_it_any_more() {
    let mut stage = Stage::simple();
    let (slow, quick, leaver) = (stage.web_socket(), stage.web_socket(), stage.web_socket());
    for who in [slow, quick, leaver] {
        stage.subscribe(who, &["a"], None);
    }
    stage.answer(0, &[]);
    stage.writes();
    stage.lane.blocked(stage.now, slow);
    stage.lane.blocked(stage.now, leaver);
    stage.changed_with(0, "a", 9_500_000, "{}");
    assert_eq!(stage.told(quick), ["changes a@9500000"]);
    assert!(stage.lane.stats().hint_bytes > 0, "two are yet to be told");
    stage.lane.disconnect(stage.now, leaver);
    assert!(stage.lane.stats().hint_bytes > 0, "one is yet to be told");
    stage
        .step(|lane, now, out| lane.unsubscribe(now, slow, None, ["a"].iter(), out))
        .unwrap();
    assert_eq!(stage.lane.stats().hint_bytes, 0);
}

#[test]
fn a_lost_table_is_told_once_though_the_new_owner_closes_below_its_floor_for_a_while() {
    let mut stage = Stage::simple();
    let (bob, alice) = (stage.lane.open_session(stage.now), stage.web_socket());
    let cursor = stage.cursor(8_900_000);
    stage.poll(bob, &["a"], Some(&cursor));
    stage.subscribe(alice, &["a"], None);
    stage.answer(0, &[]);
    stage.writes();
    // The floor lies above every ceiling, so ahead of the clock.
    stage.own(0, &[0], 2, 12_000_000);
    stage.answer(0, &[]);
    stage.closed(0, 10_100_000);
    assert_eq!(stage.told(alice), ["resync all (versions_lost)"]);
    let answer = stage.answers.remove(&bob.index).unwrap();
    assert!(answer.resync.is_some());
    stage.poll(bob, &[], Some(&answer.cursor));
    assert!(!stage.answers.contains_key(&bob.index), "the next poll waits");
    // Whoever comes back with a cursor from after the resync is not told again.
    let again = stage.web_socket();
    stage.subscribe(again, &["a"], Some(&answer.cursor));
    assert_eq!(stage.told(again), ["subscribed a", "cursor"]);
}

#[test]
fn a_cut_answer_whose_cursor_carries_much_already_still_makes_progress() {
    let mut stage = Stage::new(Config {
        batch_bytes: 200,
        ..config(2, 1)
    });
    // Shard 0 lost its table; shard 1 has news from long ago.
    stage.own(0, &[1], 1, 0);
    stage.own(0, &[0], 1, 9_800_000);
    stage.closed(0, 9_900_000);
    let in_shard = |name: &String| stage.config.shards.shard(stage.config.key.object(name)).0;
    let named = |shard: u16, prefix: &str, count: usize| {
        let names = (0..)
            .map(|n| format!("{prefix}{n}"))
            .filter(|name| in_shard(name) == shard);
        names.take(count).collect::<Vec<_>>()
    };
    let (told, fetch, news) = (named(1, "told", 90), named(0, "fetch", 200), named(1, "news", 6));
    let list = told
        .iter()
        .map(|o| (stage.config.key.object(o), Version(9_950_000)))
        .collect();
    let cursor = Cursor::new(stage::CLUSTER, Version(8_000_000), Vec::new(), list)
        .encode()
        .unwrap();
    let all: Vec<&str> = told.iter().chain(&fetch).chain(&news).map(String::as_str).collect();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &all, Some(&cursor));
    let known = told
        .iter()
        .map(|o| (o.as_str(), 9_950_000))
        .chain(news.iter().map(|o| (o.as_str(), 8_100_000)));
    let known: Vec<_> = known.collect();
    stage.answer(0, &known);
    stage.writes();
    let mut heard = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let Some(answer) = stage.answers.remove(&who.index) else {
            break;
        };
        heard.extend(answer.changes.iter().map(|change| change.object.to_string()));
        stage.poll(who, &[], Some(&answer.cursor));
    }
    assert!(news.iter().all(|object| heard.contains(object)), "{heard:?}");
}

#[test]
fn what_an_older_link_still_says_is_ignored() {
    let mut stage = Stage::simple();
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.up(0);
    stage.own(0, &[0], 1, 0);
    // An answer to the question of the older link must not pass for one to the new link's.
    let object = stage.config.key.object("a");
    let late = OwnerToEdge::Registered {
        objects: vec![(object, Version(9_100_000))],
    };
    let closed = OwnerToEdge::Closed {
        version: Version(9_900_000),
    };
    stage.step(|lane, now, out| lane.owner_frames(now, 0, 1, vec![late, closed], out));
    assert_eq!(stage.told(who), [""; 0]);
    assert_eq!(stage.lane.stats().closed, Version(9_000_000));
    assert_eq!(stage.lane.stats().ignored_frames, 2);
    stage
        .heard(0)
        .retain(|frame| matches!(frame, EdgeToOwner::Register { .. }));
    let answer = OwnerToEdge::Registered {
        objects: vec![(object, Version(9_800_000))],
    };
    stage.frame(0, answer);
    assert_eq!(stage.told(who), ["subscribed a@9800000", "cursor"]);
}

#[test]
fn an_owner_of_an_older_epoch_is_not_believed() {
    let mut stage = Stage::new(config(1, 2));
    stage.own(1, &[0], 2, 0);
    stage.closed(1, 9_000_000);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.answer(1, &[]);
    stage.own(0, &[0], 1, 0);
    stage.closed(0, 9_500_000);
    assert_eq!(stage.heard(0), [], "nothing is asked of it");
    assert_eq!(stage.lane.stats().closed, Version(9_000_000));
}

#[test]
fn an_answer_of_the_owner_before_makes_nothing_live() {
    let mut stage = Stage::new(config(1, 2));
    stage.own(0, &[0], 1, 0);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    stage.own(1, &[0], 2, 0);
    stage.answer(0, &[("a", 9_100_000)]);
    assert_eq!(stage.told(who), [""; 0], "its new owner has not answered");
    stage.answer(1, &[("a", 9_700_000)]);
    assert_eq!(stage.told(who), ["subscribed a@9700000"]);
}

#[test]
fn an_operator_who_closes_idle_sessions_does_not_shrink_the_room_for_others() {
    let mut stage = Stage::new(stage::config(1, 1));
    stage.config.idle_sessions = 2;
    stage.lane = tidings_router::edge::Lane::new(stage.config.clone());
    for _ in 0..5 {
        let who = stage.lane.open_session(stage.now);
        let code = tidings_protocol::close::CloseCode::Operator;
        stage.step(|lane, now, out| lane.dismiss(now, who, code, "", None, out));
    }
    let (one, two) = (stage.lane.open_session(stage.now), stage.lane.open_session(stage.now));
    assert!(stage.lane.connection(one).is_some() && stage.lane.connection(two).is_some());
}

#[test]
fn lingering_objects_over_the_limit_go_at_once() {
    let mut stage = Stage::simple();
    stage.config.lingering_objects = 2;
    stage.lane = tidings_router::edge::Lane::new(stage.config.clone());
    stage.up(0);
    stage.own(0, &[0], 1, 0);
    let who = stage.web_socket();
    stage.subscribe(who, &["a", "b", "c", "d"], None);
    stage.answer(0, &[]);
    stage.lane.disconnect(stage.now, who);
    stage.wait(100_000);
    assert_eq!(stage.lane.stats().lingering, 2);
}

#[test]
fn a_client_that_begins_is_not_told_again_what_changed_just_before() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &["a", "b"], None);
    // Published a moment ago: the owner has not closed it yet.
    stage.answer(0, &[("a", 9_500_000), ("b", 0)]);
    stage.writes();
    let first = stage
        .answers
        .remove(&who.index)
        .expect("a first poll is answered at once");
    assert!(first.changes.is_empty());
    stage.poll(who, &["a", "b"], Some(&first.cursor));
    assert!(
        !stage.answers.contains_key(&who.index),
        "nothing is newer than what it fetched after its first poll"
    );
    stage.changed(0, "a", 9_600_000);
    stage.writes();
    assert_eq!(stage.answers[&who.index].changes.len(), 1);
}

#[test]
fn a_web_socket_without_a_pong_is_told_so_and_closed() {
    let mut stage = Stage::simple();
    let (silent, alive) = (stage.web_socket(), stage.web_socket());
    stage.subscribe(silent, &["a"], None);
    stage.answer(0, &[("a", 0)]);
    stage.subscribe(alive, &["a"], None);
    stage.writes();
    stage.wait(25_100_000);
    let told = stage.writes();
    assert!(
        told.contains_key(&silent.index) && told.contains_key(&alive.index),
        "both are pinged"
    );
    stage.step(|lane, _, _| lane.heard(alive));
    stage.wait(10_100_000);
    assert_eq!(stage.told(silent), ["Close(4002)"]);
    assert!(stage.lane.connection(silent).is_none());
    assert!(stage.lane.connection(alive).is_some());
    assert_eq!(stage.lane.take_refusals().no_pong, 1);
}

#[test]
fn hundreds_of_changes_that_share_one_version_are_all_told_once() {
    let mut stage = Stage::new(Config {
        batch_bytes: 4_000,
        ..config(256, 1)
    });
    stage.own(0, &(0..256).collect::<Vec<_>>(), 1, 0);
    stage.closed(0, 9_000_000);
    let names: Vec<String> = (0..600).map(|n| format!("object-{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let who = stage.lane.open_session(stage.now);
    stage.poll(who, &all, None);
    let nothing: Vec<(&str, u64)> = all.iter().map(|name| (*name, 0)).collect();
    stage.answer(0, &nothing);
    stage.writes();
    let mut cursor = stage.answers.remove(&who.index).expect("a first poll").cursor;
    for name in &all {
        stage.changed(0, name, 9_500_000);
    }
    stage.closed(0, 9_600_000);
    let mut told = Vec::new();
    for answers in 1.. {
        stage.poll(who, &[], Some(&cursor));
        let answer = stage.answers.remove(&who.index).expect("there is more to tell");
        told.extend(answer.changes.iter().map(|change| change.object.to_string()));
        cursor = answer.cursor;
        // About 45 fit an answer.
        assert!(answers <= 15, "told {} of {} so far", told.len(), all.len());
        if !answer.more {
            break;
        }
    }
    assert_eq!(told.len(), all.len(), "each is told once");
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), all.len(), "and none is left out");
}

#[test]
fn a_poll_that_moves_to_a_lane_behind_its_cursor_is_not_told_again_afterwards() {
    let mut stage = Stage::simple();
    let who = stage.lane.open_session(stage.now);
    // Another lane, further ahead, told all up to here; this one has closed 9,000,000 only.
    let cursor = stage.cursor(9_700_000);
    stage.poll(who, &["a", "b"], Some(&cursor));
    stage.answer(0, &[("a", 9_500_000), ("b", 9_800_000)]);
    stage.writes();
    let answer = stage.answers.remove(&who.index).expect("b is newer");
    assert_eq!(answer.changes.len(), 1);
    stage.poll(who, &[], Some(&answer.cursor));
    assert!(!stage.answers.contains_key(&who.index), "neither a nor b is told again");
}
