//! Claims one by one: what is read, and when it may be believed.

use super::*;

const NOW_S: u64 = 1_800_000_000;

fn read(text: &str) -> Result<Claims, TokenFault> {
    Claims::read(text.as_bytes())
}

/// Good claims with some text in place of others: `("exp", "12")`; an empty one takes the claim away.
fn with(changed: &[(&str, &str)]) -> Result<Claims, TokenFault> {
    let mut claims: Vec<(&str, String)> = vec![
        ("sub", "\"alice\"".to_owned()),
        ("iat", NOW_S.to_string()),
        ("exp", (NOW_S + 600).to_string()),
    ];
    for (name, text) in changed {
        claims.retain(|(known, _)| known != name);
        if !text.is_empty() {
            claims.push((name, (*text).to_owned()));
        }
    }
    let body: Vec<String> = claims.iter().map(|(name, text)| format!("\"{name}\":{text}")).collect();
    read(&format!("{{{}}}", body.join(",")))
}

fn check(changed: &[(&str, &str)], now_s: u64) -> Result<(), TokenFault> {
    let terms = Terms {
        audience: &[],
        leeway_s: 30,
        lifetime_s: 86_400,
    };
    with(changed)?.check(&terms, now_s)
}

#[test]
fn what_must_be_there_must_be_there() {
    assert!(with(&[]).is_ok());
    for name in ["sub", "iat", "exp"] {
        let fault = with(&[(name, "")]).expect_err("refused");
        assert_eq!(fault, TokenFault::Claim(name));
    }
}

#[test]
fn a_time_is_whole_seconds_and_nothing_else() {
    for name in ["exp", "iat", "nbf"] {
        for text in [
            "1800000000.0",
            "1800000000.5",
            "1.8e9",
            "-1",
            "-9223372036854775808",
            "9223372036854775808",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "9007199254740992",
            "1e400",
            "\"1800000000\"",
            "\"\"",
            "null",
            "true",
            "[]",
            "{}",
            "[1800000000]",
        ] {
            let fault = with(&[(name, text)]).expect_err(text);
            // 1e400 is no number that JSON can hold here.
            let expected = if text == "1e400" {
                TokenFault::Malformed
            } else {
                TokenFault::Claim(name)
            };
            assert_eq!(fault, expected, "{name} {text}");
        }
    }
}

#[test]
fn a_token_counts_until_its_end_and_the_leeway_and_not_a_second_longer() {
    let end = NOW_S + 600;
    for (now, expected) in [
        (NOW_S, Ok(())),
        (end - 1, Ok(())),
        (end, Ok(())),
        (end + 29, Ok(())),
        (end + 30, Err(TokenFault::Expired)),
        (end + 31, Err(TokenFault::Expired)),
        (u64::MAX, Err(TokenFault::Expired)),
    ] {
        assert_eq!(check(&[], now), expected, "{now}");
    }
    assert_eq!(check(&[("exp", "0"), ("iat", "0")], NOW_S), Err(TokenFault::Expired));
}

#[test]
fn a_clock_five_minutes_off_sees_tokens_too_early_or_too_late() {
    let short = (NOW_S + 60).to_string();
    assert_eq!(check(&[("exp", &short)], NOW_S + 300), Err(TokenFault::Expired));
    assert_eq!(check(&[("exp", &short)], NOW_S - 300), Err(TokenFault::NotYet));
    assert_eq!(check(&[], NOW_S - 30), Ok(()), "inside the leeway");
    assert_eq!(check(&[], NOW_S - 31), Err(TokenFault::NotYet));
}

#[test]
fn a_token_does_not_count_before_its_time() {
    for name in ["nbf", "iat"] {
        let at = |s: u64| check(&[(name, &s.to_string())], NOW_S);
        assert_eq!(at(NOW_S + 30), Ok(()), "{name}");
        assert_eq!(at(NOW_S + 31), Err(TokenFault::NotYet), "{name}");
        assert_eq!(at(NOW_S + 5 * 60), Err(TokenFault::NotYet), "{name}");
    }
}

#[test]
fn a_larger_leeway_than_thirty_seconds_cannot_be_had() {
    let terms = Terms {
        audience: &[],
        leeway_s: 3_600,
        lifetime_s: 86_400,
    };
    let claims = with(&[]).expect("claims");
    assert_eq!(claims.check(&terms, NOW_S + 600 + 30), Err(TokenFault::Expired));
}

#[test]
fn a_token_lives_as_long_as_allowed_and_not_a_second_longer() {
    let from = |lifetime: u64| check(&[("exp", &(NOW_S + lifetime).to_string())], NOW_S);
    assert_eq!(from(86_400), Ok(()));
    assert_eq!(from(86_401), Err(TokenFault::Lifetime));
    let backwards = (NOW_S + 20).to_string();
    assert_eq!(
        check(&[("iat", &backwards), ("exp", &NOW_S.to_string())], NOW_S),
        Err(TokenFault::Lifetime),
        "it ends before it was made"
    );
}

#[test]
fn the_audience_is_looked_at_where_one_is_configured() {
    let ours: Vec<Box<str>> = vec!["tidings".into(), "other-name".into()];
    let terms = Terms {
        audience: &ours,
        leeway_s: 0,
        lifetime_s: 86_400,
    };
    let judged = |aud: &str| with(&[("aud", aud)]).expect("claims").check(&terms, NOW_S);
    for aud in ["\"tidings\"", "[\"x\",\"tidings\"]", "[\"other-name\"]"] {
        assert_eq!(judged(aud), Ok(()), "{aud}");
    }
    for aud in ["", "\"Tidings\"", "\"tidings \"", "[]", "[\"x\"]", "\"tidings,x\""] {
        assert_eq!(judged(aud), Err(TokenFault::Audience), "{aud:?}");
    }
}

#[test]
fn names_are_texts_without_control_characters() {
    let longest = format!("\"{}\"", "n".repeat(MOST_NAME_BYTES));
    let longer = format!("\"{}\"", "n".repeat(MOST_NAME_BYTES + 1));
    for name in ["sub", "iss", "jti", "aud"] {
        assert!(with(&[(name, &longest)]).is_ok(), "{name}");
        for text in [
            "\"\"",
            "1",
            "null",
            "true",
            "{}",
            r#""a\u0000b""#,
            r#""a\r\nb""#,
            r#""\u001b[2J""#,
            &longer,
        ] {
            assert_eq!(with(&[(name, text)]), Err(TokenFault::Claim(name)), "{name} {text:.40}");
        }
    }
    for text in ["[1]", "[\"\"]", "[[\"a\"]]", "[null]"] {
        assert_eq!(with(&[("aud", text)]), Err(TokenFault::Claim("aud")), "{text}");
    }
    let audiences = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    assert!(with(&[("aud", &audiences(MOST_AUDIENCES))]).is_ok());
    assert!(with(&[("aud", &audiences(MOST_AUDIENCES + 1))]).is_err());
}

#[test]
fn claims_with_a_key_twice_are_malformed() {
    let good = format!("\"sub\":\"alice\",\"iat\":{NOW_S},\"exp\":{}", NOW_S + 60);
    assert!(read(&format!("{{{good}}}")).is_ok());
    for more in [
        "\"sub\":\"bob\"",
        "\"exp\":9000000000",
        "\"\\u0065xp\":9000000000",
        "\"tidings\":{\"admin\":false,\"admin\":true}",
        "\"x\":1,\"x\":1",
    ] {
        assert_eq!(
            read(&format!("{{{good},{more}}}")),
            Err(TokenFault::Malformed),
            "{more}"
        );
    }
}

#[test]
fn own_grants_and_objects_are_read() {
    let claims = with(&[(
        "tidings",
        r#"{"subscribe":["user:{subject}:*","a"],"publish":["b"],"admin":true,"objects":["a","user:alice:1"]}"#,
    )])
    .expect("claims");
    let own = claims.own.fill("alice");
    assert_eq!((own.subscribe.len(), own.publish.len(), own.admin), (2, 1, true));
    assert_eq!(claims.objects, ["a".into(), "user:alice:1".into()]);
    assert!(with(&[]).expect("claims").own.is_empty(), "none, if it says none");
}

#[test]
fn grants_that_are_none_refuse_the_token() {
    let many = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    let texts = [
        "null".to_owned(),
        "[]".to_owned(),
        "true".to_owned(),
        r#"{"subscribe":"a"}"#.to_owned(),
        r#"{"subscribe":[1]}"#.to_owned(),
        r#"{"subscribe":["a*"]}"#.to_owned(),
        r#"{"publish":["{x}"]}"#.to_owned(),
        r#"{"subscribe":[""]}"#.to_owned(),
        r#"{"subscribe":["a\u0000"]}"#.to_owned(),
        r#"{"admin":"true"}"#.to_owned(),
        r#"{"admin":1}"#.to_owned(),
        r#"{"objects":["a",1]}"#.to_owned(),
        r#"{"objects":[""]}"#.to_owned(),
        r#"{"except":["a"]}"#.to_owned(),
        format!("{{\"subscribe\":{}}}", many(super::super::grants::MOST_GRANTS + 1)),
        format!("{{\"objects\":{}}}", many(MOST_OBJECTS + 1)),
    ];
    for text in texts {
        assert_eq!(
            with(&[("tidings", &text)]),
            Err(TokenFault::Claim("tidings")),
            "{text:.60}"
        );
    }
    assert!(with(&[("tidings", &format!("{{\"objects\":{}}}", many(MOST_OBJECTS)))]).is_ok());
}
