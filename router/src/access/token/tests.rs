//! With a signature that anybody can make: whether real ones are checked is the caller's part.

use super::super::grants::{Action, Templates};
use super::super::policy::{Issuer, TokenKey};
use super::*;

const NOW_S: u64 = 1_800_000_000;

/// The key is a word; its signature over some bytes is a sum of both.
fn sign(word: &str, signed: &[u8]) -> Vec<u8> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (word, signed).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}

fn policy() -> Policy<&'static str> {
    let issuer = |name: &str, material, grants: &[&str]| Issuer {
        name: name.into(),
        audience: vec!["tidings".into()],
        every: Templates::read(grants, &[], false).expect("grants"),
        most: Templates::read(&["*"], &["b:*"], false).expect("grants"),
        keys: vec![TokenKey {
            kid: Some("k".into()),
            algorithm: Algorithm::EdDsa,
            material,
        }],
    };
    Policy {
        api_keys: Vec::new(),
        issuers: vec![
            issuer("one", "word-of-one", &["user:{subject}:*"]),
            issuer("two", "word-of-two", &["two:*"]),
        ],
        leeway_s: 30,
        lifetime_s: 86_400,
    }
}

fn token(header: &str, claims: &str, word: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(word, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn claims(issuer: &str, more: &str) -> String {
    format!(
        r#"{{"iss":"{issuer}","sub":"alice","aud":"tidings","iat":{NOW_S},"exp":{}{more}}}"#,
        NOW_S + 600
    )
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

fn judge_at(token: &str, now_s: u64) -> Result<Identity, TokenFault> {
    judge(&policy(), token, now_s, |word, _, signed, signature| {
        sign(word, signed) == signature
    })
}

fn judged(token: &str) -> Result<Identity, TokenFault> {
    judge_at(token, NOW_S)
}

#[test]
fn a_good_token_is_an_identity() {
    let more = r#","jti":"t1","tidings":{"subscribe":["a:*"],"publish":["b:1","c:1"],"objects":["a:1"]}"#;
    let identity = judged(&token(HEADER, &claims("one", more), "word-of-one")).expect("believed");
    let subject = Subject {
        issuer: "one".into(),
        name: "alice".into(),
        by_key: false,
    };
    assert_eq!(identity.subject, subject);
    assert_eq!((identity.issued_s, identity.expires_s), (NOW_S, Some(NOW_S + 600)));
    assert_eq!((identity.token_id, identity.objects.len()), (Some("t1".into()), 1));
    let allow = |action, object: &str| identity.permission.allow(action, object);
    assert!(allow(Action::Subscribe, "user:alice:1") && allow(Action::Subscribe, "a:1"));
    assert!(allow(Action::Publish, "b:1"));
    assert!(!allow(Action::Publish, "c:1"), "more than the issuer may give");
    assert!(!allow(Action::Subscribe, "user:bob:1") && !allow(Action::Subscribe, "two:1"));
}

#[test]
fn a_token_of_one_issuer_signed_with_the_key_of_another_is_worth_nothing() {
    for (issuer, word) in [("one", "word-of-two"), ("two", "word-of-one")] {
        assert_eq!(
            judged(&token(HEADER, &claims(issuer, ""), word)),
            Err(TokenFault::Signature)
        );
    }
}

#[test]
fn what_was_changed_after_signing_is_worth_nothing() {
    let good = token(HEADER, &claims("one", ""), "word-of-one");
    assert!(judged(&good).is_ok());
    let other = token(HEADER, &claims("one", r#","x":1"#), "word-of-one");
    let signature = |token: &str| token.rsplit('.').next().map(str::to_owned).expect("a signature");
    let body = |token: &str| token.rsplit_once('.').map(|(body, _)| body.to_owned()).expect("a body");
    assert_eq!(
        judged(&format!("{}.{}", body(&good), signature(&other))),
        Err(TokenFault::Signature)
    );
    for end in ["", ".", "=", "==", " ", "\n"] {
        assert!(judged(&format!("{good}{end}")).is_err() || end.is_empty(), "{end:?}");
    }
    assert_eq!(
        judged(&format!("{}.", body(&good))),
        Err(TokenFault::Signature),
        "an empty signature"
    );
}

#[test]
fn an_algorithm_of_the_senders_choice_is_refused_before_anything_is_verified() {
    for header in [
        r#"{"alg":"none","kid":"k"}"#,
        r#"{"alg":"None","kid":"k"}"#,
        r#"{"alg":"nOnE","kid":"k"}"#,
        r#"{"alg":"HS256","kid":"k"}"#,
        r#"{"alg":"RS256","kid":"k"}"#,
        r#"{"alg":"ES256","kid":"k"}"#,
    ] {
        let token = token(header, &claims("one", ""), "word-of-one");
        let result = judge(&policy(), &token, NOW_S, |_, _, _, _| {
            panic!("nothing is to be verified")
        });
        assert_eq!(result, Err(TokenFault::Algorithm), "{header}");
    }
}

#[test]
fn claims_do_not_count_before_the_signature() {
    // Expired, for another audience, and wrongly signed: only the last is said.
    let wrong = r#"{"iss":"one","sub":"alice","aud":"x","iat":1,"exp":2}"#;
    assert_eq!(
        judged(&token(HEADER, wrong, "another word")),
        Err(TokenFault::Signature)
    );
    assert_eq!(judged(&token(HEADER, wrong, "word-of-one")), Err(TokenFault::Expired));
    let foreign = claims("one", "").replace("\"tidings\"", "\"elsewhere\"");
    assert_eq!(
        judged(&token(HEADER, &foreign, "word-of-one")),
        Err(TokenFault::Audience)
    );
}

#[test]
fn texts_that_are_no_tokens_are_malformed() {
    let good = token(HEADER, &claims("one", ""), "word-of-one");
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else {
        panic!("three parts")
    };
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{body}"),
        format!("{header}.{body}.{signature}.{signature}"),
        format!("{header}.{body}.{signature}."),
        format!(".{header}.{body}.{signature}"),
        format!("{header}..{signature}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{header}=.{body}.{signature}"),
        format!("{header}.{body}.{signature}="),
        format!("{header}.{body}.+{signature}"),
        format!("{header}.{body}\n.{signature}"),
        format!("Bearer {good}"),
        "\0".to_owned(),
        "é.é.é".to_owned(),
    ] {
        assert_eq!(judged(&text), Err(TokenFault::Malformed), "{text:.60}");
    }
}

#[test]
fn bits_that_mean_nothing_must_be_zero() {
    // A base64 text whose last character carries unused bits could be written in several ways.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k" }"#);
    assert_eq!(header.len() % 4, 3, "the last character has two unused bits");
    let twin: String = header[..header.len() - 1].chars().chain(['1']).collect();
    assert_ne!(header, twin);
    let rest = format!("{}.AA", URL_SAFE_NO_PAD.encode(claims("one", "")));
    assert_eq!(judged(&format!("{twin}.{rest}")), Err(TokenFault::Malformed));
}

#[test]
fn a_token_has_as_many_bytes_as_the_limit_and_not_one_more() {
    let padded = |spaces: usize| {
        let header = format!("{HEADER}{}", " ".repeat(spaces));
        token(&header, &claims("one", ""), "word-of-one")
    };
    let at_most = (0..MOST_TOKEN_BYTES)
        .take_while(|spaces| padded(*spaces).len() <= MOST_TOKEN_BYTES)
        .last()
        .expect("a size");
    assert!(judged(&padded(at_most)).is_ok());
    assert!(padded(at_most).len() > MOST_TOKEN_BYTES - 4);
    assert_eq!(judged(&padded(at_most + 2)), Err(TokenFault::TooLong));
    assert_eq!(judged(&"a".repeat(100_000)), Err(TokenFault::TooLong));
}

#[test]
fn the_fault_of_a_token_says_nothing_of_its_content() {
    let secret = "canary-8f1c";
    let claims = format!(r#"{{"iss":"{secret}","sub":"{secret}","iat":1,"exp":"{secret}"}}"#);
    for text in [token(HEADER, &claims, secret), format!("{secret}.{secret}.{secret}")] {
        let fault = judged(&text).expect_err("refused");
        assert!(!fault.to_string().contains(secret) && !format!("{fault:?}").contains(secret));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[A-Za-z0-9_.={}\":,-]{0,200}") {
        _ = judged(&text);
    }

    #[test]
    fn no_header_or_claims_make_it_panic(header in ".{0,80}", claims in ".{0,200}") {
        _ = judged(&token(&header, &claims, "word-of-one"));
    }

    #[test]
    fn one_changed_character_is_never_believed(place in 0_usize..1_000, to in "[A-Za-z0-9_-]") {
        let good = token(HEADER, &claims("one", ""), "word-of-one");
        let place = place % good.len();
        let mut changed = good.clone();
        changed.replace_range(place..=place, &to);
        proptest::prop_assert!(changed == good || judged(&changed).is_err());
    }
}
