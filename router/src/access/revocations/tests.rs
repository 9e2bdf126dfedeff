//! Revocations one by one, and against a plain list.

use super::super::grants::Permission;
use super::super::identity::Subject;
use super::*;

const NOW_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;

fn token(issuer: &str, subject: &str, id: Option<&str>, issued_s: u64) -> Identity {
    Identity {
        subject: Subject {
            issuer: issuer.into(),
            name: subject.into(),
            by_key: false,
        },
        key: None,
        token_id: id.map(Into::into),
        issued_s,
        expires_s: Some(issued_s + DAY_S),
        permission: Permission::default(),
        objects: Vec::new(),
    }
}

fn target(issuer: Option<&str>, whom: Whom) -> Target {
    Target {
        issuer: issuer.map(Into::into),
        whom,
    }
}

fn subject(name: &str) -> Target {
    target(None, Whom::Subject(name.into()))
}

fn bounds(issued_to_s: u64) -> Bounds {
    Bounds {
        issued_to_s,
        until_s: issued_to_s + DAY_S,
    }
}

fn revoked(targets: &[Target]) -> Revocations {
    let mut set = Revocations::default();
    for one in targets {
        set.revoke(one.clone(), bounds(NOW_S), NOW_S).expect("taken");
    }
    set
}

#[test]
fn what_is_named_counts_no_more_and_everything_else_does() {
    let alice = token("one", "alice", Some("t1"), NOW_S);
    let cases = [
        (subject("alice"), true),
        (subject("bob"), false),
        (subject("alic"), false),
        (target(Some("one"), Whom::Subject("alice".into())), true),
        (target(Some("two"), Whom::Subject("alice".into())), false),
        (target(None, Whom::Token("t1".into())), true),
        (target(None, Whom::Token("t2".into())), false),
        (target(None, Whom::Token("alice".into())), false),
        (target(Some("one"), Whom::Token("t1".into())), true),
        (target(Some("two"), Whom::Token("t1".into())), false),
        (target(None, Whom::Everybody), true),
        (target(Some("one"), Whom::Everybody), true),
        (target(Some("two"), Whom::Everybody), false),
        (target(Some(""), Whom::Everybody), false),
    ];
    for (target, expected) in cases {
        assert_eq!(
            revoked(std::slice::from_ref(&target)).cover(&alice),
            expected,
            "{target:?}"
        );
    }
    assert!(!Revocations::default().cover(&alice));
}

#[test]
fn a_token_made_afterwards_lets_in_again() {
    let set = revoked(&[subject("alice")]);
    for (issued_s, expected) in [(NOW_S - 1, true), (NOW_S, true), (NOW_S + 1, false)] {
        assert_eq!(
            set.cover(&token("one", "alice", None, issued_s)),
            expected,
            "{issued_s}"
        );
    }
}

#[test]
fn an_api_key_is_not_touched() {
    let mut key = token("", "alice", None, 0);
    key.subject.by_key = true;
    assert!(!revoked(&[subject("alice"), target(None, Whom::Everybody)]).cover(&key));
}

#[test]
fn of_two_for_one_target_the_further_reaching_counts() {
    let mut set = revoked(&[subject("alice")]);
    assert_eq!(
        set.revoke(subject("alice"), bounds(NOW_S - 5), NOW_S),
        Err(RevokeError::Same)
    );
    set.revoke(subject("alice"), bounds(NOW_S + 5), NOW_S)
        .expect("it reaches further");
    assert_eq!(set.len(), 1);
    assert!(set.cover(&token("one", "alice", None, NOW_S + 5)));
    assert!(!set.cover(&token("one", "alice", None, NOW_S + 6)));
}

#[test]
fn an_entry_is_forgotten_when_nothing_it_names_can_be_valid() {
    let mut set = revoked(&[subject("alice")]);
    set.prune(NOW_S + DAY_S);
    assert_eq!(set.len(), 1);
    set.prune(NOW_S + DAY_S + 1);
    assert!(set.is_empty());
    // Each new one does the same.
    let mut set = revoked(&[subject("alice")]);
    let later_s = NOW_S + 2 * DAY_S;
    set.revoke(subject("bob"), bounds(later_s), later_s).expect("taken");
    assert_eq!(
        set.iter().map(|(target, _)| target.clone()).collect::<Vec<_>>(),
        [subject("bob")]
    );
}

fn full() -> Revocations {
    let mut set = Revocations::default();
    for number in 0..MOST_REVOCATIONS {
        set.revoke(subject(&format!("s{number}")), bounds(NOW_S), NOW_S)
            .expect("room");
    }
    set
}

#[test]
fn there_are_as_many_as_the_limit_and_not_one_more() {
    let mut set = full();
    let before = set.clone();
    assert_eq!(
        set.revoke(subject("one more"), bounds(NOW_S), NOW_S),
        Err(RevokeError::Full)
    );
    assert_eq!(set, before);
    set.revoke(subject("s7"), bounds(NOW_S + 1), NOW_S)
        .expect("a known target takes no room");
    // Those that have had their time make room.
    set.revoke(subject("later"), bounds(NOW_S + 3 * DAY_S), NOW_S + 3 * DAY_S)
        .expect("room");
    assert_eq!(set.len(), 1);
}

#[test]
fn everybody_takes_the_place_of_all_that_it_covers() {
    let mut set = full();
    set.revoke(target(None, Whom::Everybody), bounds(NOW_S), NOW_S)
        .expect("always room");
    assert_eq!(set.len(), 1);
    assert!(set.cover(&token("one", "s3", None, NOW_S)));
    let mut mixed = revoked(&[
        target(Some("one"), Whom::Subject("a".into())),
        target(Some("two"), Whom::Subject("a".into())),
        subject("a"),
    ]);
    mixed
        .revoke(target(Some("one"), Whom::Everybody), bounds(NOW_S), NOW_S)
        .expect("taken");
    assert_eq!(mixed.len(), 3, "only what is of that issuer is covered");
    assert!(mixed.cover(&token("two", "a", None, NOW_S)));
    // One that reaches further than "everybody" stays.
    let mut further = Revocations::default();
    further.revoke(subject("a"), bounds(NOW_S + 50), NOW_S).expect("taken");
    further
        .revoke(target(None, Whom::Everybody), bounds(NOW_S), NOW_S)
        .expect("taken");
    assert!(further.cover(&token("one", "a", None, NOW_S + 50)));
}

#[test]
fn a_name_that_no_token_can_have_is_refused() {
    let mut set = Revocations::default();
    for name in ["", &"n".repeat(MOST_BYTES + 1)] {
        for whom in [Whom::Subject(name.into()), Whom::Token(name.into())] {
            assert_eq!(
                set.revoke(target(None, whom), bounds(NOW_S), NOW_S),
                Err(RevokeError::Name)
            );
        }
    }
    let longest = "n".repeat(MOST_BYTES);
    set.revoke(subject(&longest), bounds(NOW_S), NOW_S).expect("a name");
    assert_eq!(
        set.revoke(
            target(Some(&"n".repeat(MOST_BYTES + 1)), Whom::Everybody),
            bounds(NOW_S),
            NOW_S
        ),
        Err(RevokeError::Name)
    );
    set.revoke(target(Some(""), Whom::Everybody), bounds(NOW_S), NOW_S)
        .expect("those that name no issuer");
}

proptest::proptest! {
    /// The set answers as a plain list would, whatever came in which order.
    #[test]
    fn it_covers_what_a_plain_list_covers(
        taken in proptest::collection::vec((0_u8..3, 0_u8..3, 0_u8..4, 0_u64..20), 0..30),
        asked in proptest::collection::vec((0_u8..2, 0_u8..4, 0_u8..4, 0_u64..20), 0..30),
    ) {
        let issuer = |n: u8| ["one", "two"].get(usize::from(n)).copied();
        let whom = |kind: u8, n: u8| match kind {
            0 => Whom::Everybody,
            1 => Whom::Subject(format!("n{n}").into()),
            _ => Whom::Token(format!("n{n}").into()),
        };
        let mut set = Revocations::default();
        let mut list = Vec::new();
        for (of, kind, name, at) in taken {
            let target = target(issuer(of), whom(kind, name));
            _ = set.revoke(target.clone(), bounds(NOW_S + at), NOW_S);
            list.push((target, NOW_S + at));
        }
        for (of, name, id, at) in asked {
            let identity = token(issuer(of).expect("an issuer"), &format!("n{name}"), Some(&format!("n{id}")), NOW_S + at);
            let expected = list.iter().any(|(target, to)| {
                let fits = match &target.whom {
                    Whom::Everybody => true,
                    Whom::Subject(name) => *name == identity.subject.name,
                    Whom::Token(id) => Some(id) == identity.token_id.as_ref(),
                };
                let of = target.issuer.as_ref().is_none_or(|issuer| *issuer == identity.subject.issuer);
                fits && of && identity.issued_s <= *to
            });
            proptest::prop_assert_eq!(set.cover(&identity), expected);
        }
    }
}
