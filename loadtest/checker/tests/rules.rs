//! Small stories, one for each thing that a verdict depends on.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tidings_checker::history::Event;
use tidings_checker::rules::Floor;
use tidings_checker::{Invariant, Report, Rules, Verdict, check};
use tidings_protocol::{ClusterId, Cursor, ShardId, Version};

/// A cursor up to a version, with shards that lag.
fn cursor(base: u64, lagging: &[(u16, u64)]) -> String {
    let lagging = lagging
        .iter()
        .map(|(shard, version)| (ShardId(*shard), Version(*version)));
    Cursor::new(ClusterId(1), Version(base), lagging.collect(), Vec::new())
        .encode()
        .unwrap()
}

/// Events one second apart, without `at`; `CURSOR(…)` stands for a cursor up to that version.
fn story(lines: &[&str]) -> Vec<Event<'static>> {
    let event = |(number, line): (usize, &&str)| {
        let mut line = (*line).to_owned();
        while let Some(from) = line.find("CURSOR(") {
            let to = from + line[from..].find(')').unwrap();
            let text = cursor(line[from + 7..to].parse().unwrap(), &[]);
            line.replace_range(from..=to, &text);
        }
        let line = format!("{{\"at\":{},{line}}}", (number + 1) * 1_000_000);
        serde_json::from_str::<Event<'_>>(&line)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .into_owned()
    };
    lines.iter().enumerate().map(event).collect()
}

/// A client that holds object 1 from the start.
const HOLDS: [&str; 3] = [
    r#""event":"conn.open","client":1,"edge":"a""#,
    r#""event":"sub.call","client":1,"obj":1"#,
    r#""event":"sub.ok","client":1,"obj":1,"version":0"#,
];
const CALL: &str = r#""event":"pub.call","publisher":1,"call":1,"obj":1"#;
const OK: &str = r#""event":"pub.ok","publisher":1,"call":1,"version":100"#;
const TOLD: &str = r#""event":"notify","client":1,"obj":1,"version":100"#;
const CURSOR: &str = r#""event":"cursor","client":1,"text":"CURSOR(150)""#;
const WAIT: [&str; 11] = [r#""event":"note","text":"waits""#; 11];

fn judge(rules: &Rules, parts: &[&[&str]]) -> Report {
    check(&story(&parts.concat()), rules).unwrap()
}

fn verdict(parts: &[&[&str]], invariant: Invariant) -> Verdict {
    judge(&Rules::default(), parts).of(invariant).clone()
}

fn why(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Inconclusive(why) => why.join("; "),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_that_is_told_in_time_holds() {
    let report = judge(&Rules::default(), &[&HOLDS, &[CALL, OK, TOLD, CURSOR], &WAIT]);
    for invariant in [
        Invariant::I1,
        Invariant::I2,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
    ] {
        assert_eq!(*report.of(invariant), Verdict::Holds, "{report}");
    }
    assert_eq!((report.interested, report.missed), (1, 0));
}

#[test]
fn silence_is_counted_per_million_and_shown_by_the_events_that_matter() {
    let report = judge(&Rules::default(), &[&HOLDS, &[CALL, OK], &WAIT]);
    assert_eq!(*report.of(Invariant::I1), Verdict::Violated(1));
    assert!((report.missed_per_million() - 1e6).abs() < 0.1);
    assert_eq!(report.exit_code(), 1);
    let (_, _, tally) = report
        .verdicts
        .iter()
        .find(|verdict| verdict.0 == Invariant::I1)
        .unwrap();
    let lines = tally.samples[0].lines.join("\n");
    assert_eq!(tally.samples[0].lines.len(), 4, "{lines}");
    for word in ["conn.open", "sub.ok", "pub.call", "pub.ok"] {
        assert!(lines.contains(word), "{lines}");
    }
}

#[test]
fn a_resync_after_the_call_covers_and_one_before_it_does_not() {
    let resync = r#""event":"resync","client":1,"cause":"versions_lost""#;
    let rules = Rules {
        allowed_resyncs: ["versions_lost".to_owned()].into(),
        ..Rules::default()
    };
    let after = judge(&rules, &[&HOLDS, &[CALL, resync, OK], &WAIT]);
    assert_eq!(*after.of(Invariant::I1), Verdict::Holds, "{after}");
    let before = judge(&rules, &[&HOLDS, &[resync, CALL, OK], &WAIT]);
    assert_eq!(*before.of(Invariant::I1), Verdict::Violated(1), "{before}");
    let of_another = r#""event":"resync","client":1,"objects":[2],"cause":"versions_lost""#;
    let other = judge(&rules, &[&HOLDS, &[CALL, of_another, OK], &WAIT]);
    assert_eq!(*other.of(Invariant::I1), Verdict::Violated(1), "{other}");
}

#[test]
fn who_is_away_or_not_yet_settled_is_inconclusive_not_green() {
    let away = verdict(
        &[&HOLDS, &[CALL, OK, r#""event":"conn.close","client":1"#], &WAIT],
        Invariant::I1,
    );
    assert!(why(&away).contains("not connected"), "{away:?}");
    let early = verdict(&[&HOLDS, &[CALL, OK]], Invariant::I1);
    assert!(why(&early).contains("settle window"), "{early:?}");
    let fault = r#""event":"nemesis.start","fault":"kill n1""#;
    let late = verdict(&[&HOLDS, &[CALL, OK], &WAIT, &[fault]], Invariant::I1);
    assert!(why(&late).contains("settle window"), "{late:?}");
}

#[test]
fn nothing_seen_is_inconclusive_where_it_is_required() {
    let report = judge(&Rules::default(), &[&WAIT]);
    assert!(why(report.of(Invariant::I1)).contains("never put to the test"));
    assert!(matches!(report.of(Invariant::I11), Verdict::NotChecked(_)));
    assert_eq!(report.exit_code(), 2);
    let mut rules = Rules::default();
    rules.required.insert(Invariant::I11);
    let report = judge(&rules, &[&WAIT]);
    assert!(why(report.of(Invariant::I11)).contains("nobody came back"));
}

#[test]
fn a_floor_that_is_not_reached_is_not_green() {
    let fault = [
        r#""event":"nemesis.start","fault":"kill n1""#,
        CALL,
        OK,
        r#""event":"nemesis.stop","fault":"kill n1""#,
    ];
    let mut rules = Rules {
        required: [].into(),
        ..Rules::default()
    };
    for (floor, code) in [
        ("kill.acks=1", 0),
        ("kill.acks=2", 2),
        ("pause.acks=1", 2),
        ("run.acks=1", 0),
    ] {
        rules.floors = vec![floor.parse().unwrap()];
        let report = judge(&rules, &[&fault]);
        assert_eq!(report.exit_code(), code, "{floor}\n{report}");
    }
    assert!("kill.nonsense=1".parse::<Floor>().is_err());
    assert!("kill=1".parse::<Floor>().is_err());
}

#[test]
fn an_acknowledgement_of_level_accepted_promises_only_by_the_rules() {
    let call = r#""event":"pub.call","publisher":1,"call":1,"obj":1,"level":"accepted""#;
    let parts: &[&[&str]] = &[&HOLDS, &[call, OK], &WAIT];
    assert_ne!(verdict(parts, Invariant::I1), Verdict::Violated(1));
    let rules = Rules {
        accepted_is_promised: true,
        ..Rules::default()
    };
    assert_eq!(*judge(&rules, parts).of(Invariant::I1), Verdict::Violated(1));
}

#[test]
fn an_unknown_publish_may_be_told_and_a_failed_one_may_not() {
    let unknown = r#""event":"pub.unknown","publisher":1,"call":1"#;
    let failed = r#""event":"pub.fail","publisher":1,"call":1"#;
    assert_eq!(
        verdict(&[&HOLDS, &[CALL, unknown, TOLD], &WAIT], Invariant::I5),
        Verdict::Holds
    );
    assert_eq!(
        verdict(&[&HOLDS, &[CALL, TOLD], &WAIT], Invariant::I5),
        Verdict::Holds,
        "no outcome at all"
    );
    assert_eq!(
        verdict(&[&HOLDS, &[CALL, failed, TOLD], &WAIT], Invariant::I5),
        Verdict::Violated(1)
    );
    let again = r#""event":"notify","client":1,"obj":1,"version":101"#;
    let twice = verdict(&[&HOLDS, &[CALL, unknown, TOLD, again], &WAIT], Invariant::I5);
    assert_eq!(twice, Verdict::Violated(1), "one publish explains one version");
    assert_eq!(
        verdict(&[&HOLDS, &[TOLD, CALL, unknown], &WAIT], Invariant::I5),
        Verdict::Violated(1)
    );
}

#[test]
fn publishes_that_touch_in_one_microsecond_may_have_any_order() {
    let later = r#""event":"pub.call","publisher":2,"call":1,"obj":1"#;
    let below = r#""event":"pub.ok","publisher":2,"call":1,"version":90"#;
    let mut events = story(&[CALL, OK, later, below]);
    let after = check(&events, &Rules::default()).unwrap();
    assert_eq!(*after.of(Invariant::I3), Verdict::Violated(1), "{after}");
    events[2].at_us = events[1].at_us;
    let touching = check(&events, &Rules::default()).unwrap();
    assert!(
        !matches!(touching.of(Invariant::I3), Verdict::Violated(_)),
        "{touching}"
    );
}

#[test]
fn a_phantom_covers_nothing() {
    let phantom = r#""event":"notify","client":1,"obj":1,"version":500"#;
    let report = judge(&Rules::default(), &[&HOLDS, &[CALL, OK, phantom], &WAIT]);
    assert_eq!(*report.of(Invariant::I5), Verdict::Violated(1), "{report}");
    assert_eq!(*report.of(Invariant::I1), Verdict::Violated(1), "{report}");
}

#[test]
fn a_final_version_shows_that_an_unknown_publish_was_applied() {
    let unknown = r#""event":"pub.unknown","publisher":1,"call":1"#;
    let resync = r#""event":"resync","client":1,"cause":"versions_lost""#;
    let last = r#""event":"final","obj":1,"version":100"#;
    // Who was told to fetch after the call has it, who was told so before it has not.
    let before = verdict(&[&HOLDS, &[resync, CALL, unknown], &WAIT, &[last]], Invariant::I12);
    assert_eq!(before, Verdict::Violated(1));
    let after = verdict(&[&HOLDS, &[CALL, unknown, resync], &WAIT, &[last]], Invariant::I12);
    assert!(matches!(after, Verdict::NotChecked(_)), "{after:?}");
}

#[test]
fn a_cursor_claims_only_for_what_was_held_when_it_came() {
    let early = [HOLDS[0], CURSOR, HOLDS[1], HOLDS[2]];
    // The first cursor came before the object was held: nothing is wrong with telling after it.
    let call = r#""event":"pub.call","publisher":1,"call":1,"obj":1"#;
    assert_eq!(
        verdict(&[&[call, OK], &early, &[TOLD], &WAIT], Invariant::I2),
        Verdict::Holds
    );
    assert_eq!(
        verdict(&[&[call, OK], &HOLDS, &[CURSOR, TOLD], &WAIT], Invariant::I2),
        Verdict::Violated(1)
    );
}

#[test]
fn a_lagging_shard_is_judged_where_it_is_known_and_else_left_open() {
    let text = cursor(150, &[(3, 50)]);
    let handed = format!(r#""event":"cursor","client":1,"text":"{text}""#);
    let traced = |shard: u16| {
        let ok = format!(r#""event":"pub.ok","publisher":1,"call":1,"version":100,"shard":{shard},"epoch":1"#);
        verdict(
            &[&HOLDS, &[CALL, ok.as_str(), handed.as_str(), TOLD], &WAIT],
            Invariant::I2,
        )
    };
    assert_eq!(
        traced(3),
        Verdict::Holds,
        "its shard lags, so the cursor claims nothing"
    );
    assert_eq!(traced(4), Verdict::Violated(1), "another shard lags");
    let untraced = verdict(&[&HOLDS, &[CALL, OK, handed.as_str(), TOLD], &WAIT], Invariant::I2);
    assert!(why(&untraced).contains("shard is unknown"), "{untraced:?}");
}

#[test]
fn a_version_below_a_cursor_that_was_handed_before_is_a_false_close() {
    let parts: &[&[&str]] = &[&HOLDS, &[CURSOR, CALL, OK, TOLD], &WAIT];
    let report = judge(&Rules::default(), parts);
    // Once because the client was told late, once because the version was given late.
    assert_eq!(*report.of(Invariant::I2), Verdict::Violated(2), "{report}");
}

#[test]
fn a_cluster_that_was_started_anew_is_not_bound_by_what_the_old_one_closed() {
    let by = |cluster: u64, base: u64| {
        let cursor = Cursor::new(ClusterId(cluster), Version(base), Vec::new(), Vec::new());
        format!(r#""event":"cursor","client":2,"text":"{}""#, cursor.encode().unwrap())
    };
    let (old, new, same) = (by(1, 150), by(2, 50), by(1, 50));
    assert_eq!(verdict(&[&[&old, &new, CALL, OK]], Invariant::I2), Verdict::Holds);
    assert_eq!(
        verdict(&[&[&old, &same, CALL, OK]], Invariant::I2),
        Verdict::Violated(1)
    );
}

#[test]
fn a_key_answers_one_version_until_it_may_be_forgotten() {
    let keyed = |call: u32| format!(r#""event":"pub.call","publisher":1,"call":{call},"obj":1,"key":7"#);
    let ok = |call: u32, version: u32| {
        format!(
            r#""event":"pub.ok","publisher":1,"call":{call},"version":{version},"duplicate":{}"#,
            call > 1
        )
    };
    let parts = [keyed(1), ok(1, 100), keyed(2), ok(2, 100)];
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    assert_eq!(verdict(&[&parts], Invariant::I4), Verdict::Holds);
    let parts = [keyed(1), ok(1, 100), keyed(2), ok(2, 101)];
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    assert_eq!(verdict(&[&parts], Invariant::I4), Verdict::Violated(1));
    let rules = Rules {
        key_window_us: 1_000_000,
        ..Rules::default()
    };
    assert_eq!(*judge(&rules, &[&parts]).of(Invariant::I4), Verdict::Holds);
}

#[test]
fn a_duplicate_by_revision_names_a_version_of_another_publish() {
    let first = r#""event":"pub.call","publisher":1,"call":1,"obj":1,"revision":5"#;
    let again = r#""event":"pub.call","publisher":2,"call":1,"obj":1,"revision":5"#;
    let ok = r#""event":"pub.ok","publisher":2,"call":1,"version":100,"duplicate":true"#;
    let report = judge(&Rules::default(), &[&HOLDS, &[first, OK, TOLD, again, ok], &WAIT]);
    assert_eq!(*report.of(Invariant::I4), Verdict::Holds, "{report}");
    // The first attempt got no answer: then it is the one that made the version.
    let report = judge(&Rules::default(), &[&HOLDS, &[first, again, ok], &WAIT]);
    assert_eq!(
        *report.of(Invariant::I13),
        Verdict::NotChecked("nobody asked for an object after it was published")
    );
    assert_eq!(
        *report.of(Invariant::I1),
        Verdict::Violated(1),
        "a duplicate's answer promises as well\n{report}"
    );
}

#[test]
fn a_fault_excuses_the_loss_of_what_nobody_was_promised() {
    let unknown = r#""event":"pub.unknown","publisher":1,"call":1"#;
    let to_another = r#""event":"notify","client":2,"obj":1,"version":100"#;
    let (start, stop) = (
        r#""event":"nemesis.start","fault":"kill n1""#,
        r#""event":"nemesis.stop","fault":"kill n1""#,
    );
    let quiet = verdict(&[&HOLDS, &[CALL, to_another, unknown, CURSOR], &WAIT], Invariant::I2);
    assert_eq!(quiet, Verdict::Violated(1));
    let faulty = verdict(
        &[&HOLDS, &[CALL, to_another, start, stop, unknown, CURSOR], &WAIT],
        Invariant::I2,
    );
    assert_eq!(faulty, Verdict::Holds);
    let acked = verdict(
        &[&HOLDS, &[CALL, to_another, start, stop, OK, CURSOR], &WAIT],
        Invariant::I2,
    );
    assert_eq!(acked, Verdict::Violated(1), "what was promised is never excused");
}

#[test]
fn resyncs_need_a_known_cause_and_a_run_that_allows_it() {
    let resync = |cause: &str| format!(r#""event":"resync","client":1,"cause":"{cause}""#);
    let fault = r#""event":"nemesis.start","fault":"lose s1""#;
    let judged = |rules: &Rules, cause: &str, is_after: bool| {
        let text = resync(cause);
        let parts: [&str; 2] = if is_after { [fault, &text] } else { [&text, fault] };
        judge(rules, &[&HOLDS, &parts]).of(Invariant::I14).clone()
    };
    let rules = Rules::default();
    assert_eq!(judged(&rules, "versions_lost", true), Verdict::Violated(1));
    let lossy = Rules {
        lost_copies: true,
        ..Rules::default()
    };
    assert_eq!(judged(&lossy, "versions_lost", true), Verdict::Holds);
    assert_eq!(
        judged(&lossy, "versions_lost", false),
        Verdict::Violated(1),
        "nothing was lost yet"
    );
    assert_eq!(judged(&lossy, "cursor_foreign", true), Verdict::Violated(1));
    let allowed = Rules {
        allowed_resyncs: ["cursor_foreign".to_owned(), "whatever".to_owned()].into(),
        ..lossy
    };
    assert_eq!(judged(&allowed, "cursor_foreign", true), Verdict::Holds);
    assert_eq!(
        judged(&allowed, "whatever", true),
        Verdict::Violated(1),
        "a cause that the protocol does not name"
    );
}

#[test]
fn an_answer_without_a_version_stands_for_a_fetch() {
    let polls = [
        HOLDS[0],
        HOLDS[1],
        r#""event":"sub.ok","client":1,"obj":1,"version":null"#,
    ];
    let report = judge(&Rules::default(), &[&[CALL, OK], &polls, &[CURSOR], &WAIT]);
    assert_eq!(*report.of(Invariant::I2), Verdict::Holds, "{report}");
    assert!(matches!(report.of(Invariant::I13), Verdict::NotChecked(_)), "{report}");
    let null = verdict(&[&[CALL, OK], &HOLDS, &WAIT], Invariant::I13);
    assert_eq!(
        null,
        Verdict::Violated(1),
        "an answer that says null, 0 here, knows nothing of the change"
    );
}

#[test]
fn a_resume_from_a_lagging_edge_may_leave_for_later_what_its_cursor_leaves_out() {
    let away = [
        CURSOR,
        r#""event":"conn.close","client":1"#,
        r#""event":"pub.call","publisher":1,"call":2,"obj":1"#,
        r#""event":"pub.ok","publisher":1,"call":2,"version":200"#,
        r#""event":"conn.open","client":1,"edge":"b","cursor":"CURSOR(150)""#,
        r#""event":"resume.ok","client":1"#,
    ];
    let later = r#""event":"notify","client":1,"obj":1,"version":200"#;
    let behind = [r#""event":"cursor","client":1,"text":"CURSOR(160)""#, later];
    let first: &[&str] = &[CALL, OK, TOLD];
    let report = judge(&Rules::default(), &[&HOLDS, first, &away, &behind, &WAIT]);
    assert_eq!(*report.of(Invariant::I11), Verdict::Holds, "{report}");
    assert_eq!(*report.of(Invariant::I1), Verdict::Holds, "{report}");
    let ahead = [r#""event":"cursor","client":1,"text":"CURSOR(250)""#, later];
    let report = judge(&Rules::default(), &[&HOLDS, first, &away, &ahead, &WAIT]);
    assert_eq!(*report.of(Invariant::I11), Verdict::Violated(1), "{report}");
    // For ever it cannot be behind.
    let rules = Rules {
        settle_us: 500_000,
        ..Rules::default()
    };
    let report = judge(&rules, &[&HOLDS, first, &away, &behind, &WAIT]);
    assert_eq!(*report.of(Invariant::I11), Verdict::Violated(1), "{report}");
}
