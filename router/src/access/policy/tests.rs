//! Policies that make sense and that do not, and which key a token means.

use super::super::grants::Action;
use super::*;

fn api_key(name: &str, hashes: &[u8]) -> ApiKey {
    ApiKey {
        name: name.into(),
        hashes: hashes.iter().map(|byte| [*byte; 32]).collect(),
        grants: Templates::read(&["a:*"], &["b:{subject}"], false).expect("grants"),
    }
}

fn token_key(kid: Option<&str>, algorithm: Algorithm, material: u8) -> TokenKey<u8> {
    TokenKey {
        kid: kid.map(Into::into),
        algorithm,
        material,
    }
}

fn issuer(name: &str, keys: Vec<TokenKey<u8>>) -> Issuer<u8> {
    Issuer {
        name: name.into(),
        audience: Vec::new(),
        every: Templates::default(),
        most: Templates::default(),
        keys,
    }
}

fn policy(api_keys: Vec<ApiKey>, issuers: Vec<Issuer<u8>>) -> Policy<u8> {
    Policy {
        api_keys,
        issuers,
        leeway_s: 30,
        lifetime_s: 86_400,
    }
}

fn header(kid: Option<&str>, algorithm: Algorithm) -> Header {
    Header {
        algorithm,
        kid: kid.map(Into::into),
    }
}

#[test]
fn either_hash_of_a_key_lets_in_and_no_other() {
    let policy = policy(vec![api_key("shop", &[1, 2]), api_key("crm", &[3])], vec![]);
    policy.check().expect("a policy");
    for (hash, name) in [(1, "shop"), (2, "shop"), (3, "crm")] {
        let identity = policy.api_key(&[hash; 32]).expect("let in");
        assert_eq!(&*identity.subject.name, name);
        assert!(identity.subject.by_key && identity.expires_s.is_none());
        assert!(identity.allows(Action::Publish, &format!("b:{name}")) && !identity.allows(Action::Publish, "b:other"));
        assert!(!identity.is_admin());
    }
    let mut nearly = [1; 32];
    for place in 0..32 {
        nearly[place] ^= 0x80;
        assert_eq!(policy.api_key(&nearly), None, "{place}");
        nearly[place] ^= 0x80;
    }
    assert_eq!(policy.api_key(&[0; 32]), None);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let key = |kid: Option<&str>| token_key(kid, Algorithm::EdDsa, 0);
    let cases = [
        (policy(vec![api_key("a", &[])], vec![]), PolicyError::Hashes("a".into())),
        (
            policy(vec![api_key("a", &[1, 2, 3])], vec![]),
            PolicyError::Hashes("a".into()),
        ),
        (
            policy(vec![api_key("a", &[1]), api_key("a", &[2])], vec![]),
            PolicyError::Twice("a".into()),
        ),
        (
            policy(vec![api_key("a", &[1]), api_key("b", &[1])], vec![]),
            PolicyError::SameHash("b".into()),
        ),
        (
            policy(vec![], vec![issuer("i", vec![])]),
            PolicyError::NoKeys("i".into()),
        ),
        (
            policy(vec![], vec![issuer("i", vec![key(None)]), issuer("i", vec![key(None)])]),
            PolicyError::Twice("i".into()),
        ),
        (
            policy(vec![], vec![issuer("i", vec![key(Some("k")), key(Some("k"))])]),
            PolicyError::SameKid("i".into()),
        ),
        (
            policy(vec![], vec![issuer("i", vec![key(None), key(None)])]),
            PolicyError::SameKid("i".into()),
        ),
    ];
    for (policy, why) in cases {
        assert_eq!(policy.check(), Err(why));
    }
    let mut lax = policy(vec![], vec![]);
    lax.leeway_s = 31;
    assert_eq!(lax.check(), Err(PolicyError::Leeway));
}

#[test]
fn a_key_is_found_by_issuer_and_id_in_either_order() {
    // Both issuers call their key `k`.
    let one = issuer("https://one.example", vec![token_key(Some("k"), Algorithm::EdDsa, 1)]);
    let two = issuer("https://two.example", vec![token_key(Some("k"), Algorithm::EdDsa, 2)]);
    for issuers in [vec![one.clone(), two.clone()], vec![two, one]] {
        let policy = policy(vec![], issuers);
        let header = header(Some("k"), Algorithm::EdDsa);
        for (name, material) in [("https://one.example", 1), ("https://two.example", 2)] {
            let (issuer, key) = policy.key(name, &header).expect("a key");
            assert_eq!((&*issuer.name, key.material), (name, material));
        }
        for name in [
            "",
            "https://three.example",
            "https://one.example/",
            "HTTPS://one.example",
            "k",
        ] {
            assert_eq!(
                policy.key(name, &header).map(|_| ()),
                Err(TokenFault::UnknownIssuer),
                "{name}"
            );
        }
    }
}

#[test]
fn an_id_that_names_no_key_finds_none() {
    let keys = vec![
        token_key(Some("a"), Algorithm::EdDsa, 1),
        token_key(Some("b"), Algorithm::EdDsa, 2),
    ];
    let policy = policy(vec![], vec![issuer("i", keys)]);
    for kid in ["../../etc/passwd", "' OR 1=1 --", "c", "A", "a ", "a/b"] {
        let header = header(Some(kid), Algorithm::EdDsa);
        assert_eq!(
            policy.key("i", &header).map(|_| ()),
            Err(TokenFault::UnknownKey),
            "{kid}"
        );
    }
    let unnamed = header(None, Algorithm::EdDsa);
    assert_eq!(
        policy.key("i", &unnamed).map(|_| ()),
        Err(TokenFault::UnknownKey),
        "two could be meant"
    );
}

#[test]
fn a_key_without_id_serves_what_names_no_other_and_the_only_key_serves_what_names_none() {
    let both = vec![
        token_key(Some("a"), Algorithm::EdDsa, 1),
        token_key(None, Algorithm::Es256, 2),
    ];
    let with_unnamed = policy(vec![], vec![issuer("i", both)]);
    let found = |kid: Option<&str>, algorithm| {
        with_unnamed
            .key("i", &header(kid, algorithm))
            .map(|(_, key)| key.material)
    };
    assert_eq!(found(Some("a"), Algorithm::EdDsa), Ok(1));
    assert_eq!(found(Some("z"), Algorithm::Es256), Ok(2));
    assert_eq!(found(None, Algorithm::Es256), Ok(2));
    let only = policy(
        vec![],
        vec![issuer("i", vec![token_key(Some("a"), Algorithm::EdDsa, 1)])],
    );
    assert!(only.key("i", &header(None, Algorithm::EdDsa)).is_ok());
    assert!(only.key("i", &header(Some("b"), Algorithm::EdDsa)).is_err());
}

#[test]
fn a_key_is_for_its_own_algorithm_only() {
    for own in Algorithm::ALL {
        let policy = policy(vec![], vec![issuer("i", vec![token_key(Some("a"), own, 1)])]);
        for asked in Algorithm::ALL {
            let found = policy.key("i", &header(Some("a"), asked)).map(|_| ());
            let expected = if asked == own {
                Ok(())
            } else {
                Err(TokenFault::Algorithm)
            };
            assert_eq!(found, expected, "{own:?} {asked:?}");
        }
    }
}
