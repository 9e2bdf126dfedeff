//! Grants one by one: what matches, what is refused, what a subject can reach.

use super::*;

fn pattern(text: &str) -> Pattern {
    Template::read(text)
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
        .fill("alice")
        .unwrap_or_else(|| panic!("{text:?} grants alice nothing"))
}

fn grants(subscribe: &[&str], subject: &str) -> Grants {
    Templates::read(subscribe, &[], false).expect("grants").fill(subject)
}

#[test]
fn an_exact_grant_is_one_object() {
    let exact = pattern("order:42");
    assert!(exact.matches("order:42"));
    for object in [
        "order:4",
        "order:421",
        "order:42 ",
        "Order:42",
        "order:42:",
        "xorder:42",
        "order:42\u{301}",
        "order%3a42",
    ] {
        assert!(!exact.matches(object), "{object:?}");
    }
}

#[test]
fn a_prefix_grant_is_what_lies_behind_its_separator() {
    for (grant, inside) in [
        ("order:*", "order:42"),
        ("a/*", "a/b/c"),
        ("a.*", "a.b"),
        ("a:b:*", "a:b:c"),
        ("*", "x"),
    ] {
        assert!(pattern(grant).matches(inside), "{grant} {inside}");
    }
    for (grant, outside) in [
        ("order:*", "order:"),
        ("order:*", "order"),
        ("order:*", "orders:1"),
        ("order:*", "ORDER:1"),
        ("order:*", "order/1"),
        ("a:*", "ab"),
        ("a:*", "ab:c"),
        ("a/*", "a"),
        ("a/b/*", "a/c"),
        ("a/b/*", "a/b"),
    ] {
        assert!(!pattern(grant).matches(outside), "{grant} {outside}");
    }
}

#[test]
fn nothing_is_decoded_normalised_or_resolved() {
    // The ID that a path would resolve to is another object.
    assert!(!pattern("b").matches("a/../b"));
    assert!(!pattern("b/*").matches("a/../b/c"));
    assert!(pattern("a/*").matches("a/../b"));
    // NFC and NFD are two objects.
    assert!(!pattern("caf\u{e9}").matches("cafe\u{301}"));
    assert!(!pattern("caf\u{e9}:*").matches("cafe\u{301}:1"));
    for object in [
        "%6frder:42",
        "order%3A42",
        "order\u{ff1a}42",
        "\u{fe0f}order:42",
        "order:\u{200b}42",
    ] {
        assert!(!pattern("order:42").matches(object), "{object:?}");
    }
}

#[test]
fn an_object_that_looks_like_a_grant_is_only_an_object() {
    assert!(!pattern("order:42").matches("*"));
    assert!(!pattern("order:42").matches("order:*"));
    assert!(pattern("order:*").matches("order:*"));
    assert!(!pattern("a:b").matches("a:{subject}"));
}

#[test]
fn what_is_no_grant_is_refused_with_its_reason() {
    for (text, why) in [
        ("", GrantError::NotAnId),
        ("a\0b", GrantError::NotAnId),
        ("a\nb", GrantError::NotAnId),
        ("a*", GrantError::Star),
        ("a-*", GrantError::Star),
        ("a_*", GrantError::Star),
        ("a:**", GrantError::Star),
        ("**", GrantError::Star),
        ("*a", GrantError::Star),
        ("a:*:b", GrantError::Star),
        ("*:a", GrantError::Star),
        ("a:*b:*", GrantError::Star),
        ("user:{subject}*", GrantError::Star),
        ("user:{sub}:*", GrantError::Brace),
        ("user:{Subject}", GrantError::Brace),
        ("user:{subject", GrantError::Brace),
        ("user:subject}", GrantError::Brace),
        ("{}", GrantError::Brace),
        ("{{subject}}", GrantError::Brace),
    ] {
        assert_eq!(Template::read(text), Err(why), "{text:?}");
    }
    let longest = "x".repeat(255);
    assert!(Template::read(&longest).is_ok());
    assert_eq!(Template::read(&format!("{longest}x")), Err(GrantError::NotAnId));
}

#[test]
fn the_placeholder_is_the_subject_and_reaches_nowhere_else() {
    let alice = grants(&["user:{subject}:*", "inbox/{subject}"], "alice");
    for object in ["user:alice:1", "inbox/alice"] {
        assert!(alice.allow(Action::Subscribe, object), "{object}");
    }
    for object in [
        "user:bob:1",
        "user:alice",
        "user:alicex:1",
        "inbox/alice/1",
        "user:{subject}:1",
        "user:*:1",
    ] {
        assert!(!alice.allow(Action::Subscribe, object), "{object}");
    }
}

#[test]
fn a_subject_that_could_reach_beyond_its_place_is_granted_nothing_by_it() {
    for subject in [
        "",
        "a:b",
        "a/b",
        "a.b",
        "*",
        "alice:*",
        "..",
        "a*",
        "{subject}",
        "a{",
        "}",
        "a\nb",
        "a\0",
        "../x",
    ] {
        let granted = grants(&["user:{subject}:*", "user:{subject}"], subject);
        assert_eq!(granted, Grants::default(), "{subject:?}");
        let plain = grants(&["public:*"], subject);
        assert!(plain.allow(Action::Subscribe, "public:1"), "{subject:?}");
    }
    // The result must still be an ID.
    assert_eq!(grants(&["user:{subject}:*"], &"s".repeat(255)), Grants::default());
}

#[test]
fn everything_is_denied_that_is_not_granted() {
    let nothing = Permission::default();
    for object in ["a", "*", "", "order:42"] {
        assert!(!nothing.allow(Action::Subscribe, object));
        assert!(!nothing.allow(Action::Publish, object));
    }
    assert!(!nothing.admin());
    let watcher = grants(&["*"], "alice");
    assert!(!watcher.allow(Action::Publish, "a"), "watching is not publishing");
    assert!(!watcher.admin);
}

#[test]
fn a_credential_grants_of_its_own_only_what_its_issuer_may_give() {
    let all = Templates::read(&["*"], &["*"], true).expect("grants").fill("alice");
    let some = Templates::read(&["a:*"], &["b:*"], false)
        .expect("grants")
        .fill("alice");
    let none = Grants::default();
    let permission = |every: &Grants, own: &Grants, most: &Grants| Permission {
        every: every.clone(),
        own: own.clone(),
        most: most.clone(),
    };
    let wide_token = permission(&none, &all, &some);
    let narrow_token = permission(&none, &some, &all);
    for narrowed in [wide_token, narrow_token] {
        assert!(narrowed.allow(Action::Subscribe, "a:1") && narrowed.allow(Action::Publish, "b:1"));
        assert!(!narrowed.allow(Action::Subscribe, "b:1") && !narrowed.allow(Action::Publish, "a:1"));
        assert!(!narrowed.admin());
    }
    for denied in [permission(&none, &all, &none), permission(&none, &none, &all)] {
        assert!(!denied.allow(Action::Subscribe, "a:1") && !denied.allow(Action::Publish, "b:1") && !denied.admin());
    }
    assert!(permission(&some, &none, &none).allow(Action::Subscribe, "a:1"));
    assert!(permission(&none, &all, &all).admin() && permission(&all, &none, &none).admin());
}

#[test]
fn a_list_has_as_many_grants_as_the_limit_and_not_one_more() {
    let texts: Vec<String> = (0..=MOST_GRANTS).map(|n| format!("a:{n}")).collect();
    assert!(Templates::read(&texts[..MOST_GRANTS], &[], false).is_ok());
    assert_eq!(
        Templates::read(&texts, &[], false).map_err(|(_, why)| why),
        Err(GrantError::TooMany)
    );
    let named = Templates::read(&["a", "b*"], &[], false).expect_err("refused");
    assert_eq!(named, ("b*".to_owned(), GrantError::Star), "the bad one is named");
}
