//! Real keys and signatures, and the policy as a file.

use super::crypto::{Material, Signer};
use super::*;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::fs;
use tidings_router::access::Action;
use tidings_router::access::jose::Algorithm;

const SECRET: &str = "a secret of the tests, 32 bytes or more";

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("text"))
        .collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

fn public(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().expect("a key").as_ref().to_vec()
}

/// A fresh pair: the private key and the public one, as files hold them.
fn pair(of: Algorithm) -> (String, String) {
    let (private, public) = match of {
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().expect("a pair");
            let private = pair.to_pkcs8v1().expect("PKCS #8").as_ref().to_vec();
            (private, public(pair.public_key()))
        }
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
            let private = pair.to_pkcs8v1().expect("PKCS #8").as_ref().to_vec();
            (private, public(pair.public_key()))
        }
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a pair");
            let private: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS #8");
            let private = private.as_ref().to_vec();
            (private, public(pair.public_key()))
        }
        Algorithm::Hs256 => return (SECRET.to_owned(), SECRET.to_owned()),
    };
    (pem("PRIVATE KEY", &private), pem("PUBLIC KEY", &public))
}

fn claims(issuer: &str) -> serde_json::Value {
    json!({"iss": issuer, "sub": "alice", "iat": now_s(), "exp": now_s() + 600})
}

/// An issuer of each algorithm, named like it, with key id `k`.
struct Stage {
    folder: tempfile::TempDir,
    private: Vec<(Algorithm, String)>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut policy = String::new();
        let mut private = Vec::new();
        for of in Algorithm::ALL {
            let (own, public) = pair(of);
            let name = of.name();
            fs::write(folder.path().join(format!("{name}.pem")), public).expect("written");
            policy += &format!(
                "[[issuer]]\nname = \"{name}\"\nevery.subscribe = [\"{name}:*\"]\n\
                 [[issuer.key]]\nkid = \"k\"\nalgorithm = \"{name}\"\nfile = \"{name}.pem\"\n"
            );
            private.push((of, own));
        }
        fs::write(folder.path().join("policy.toml"), policy).expect("written");
        Self { folder, private }
    }

    fn auth(&self) -> Arc<Auth> {
        self.try_auth().expect("a policy")
    }

    fn try_auth(&self) -> Result<Arc<Auth>, AuthError> {
        Auth::load(&self.config()).map(|auth| auth.expect("there is one"))
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.auth.policy_file = self.folder.path().join("policy.toml").display().to_string();
        config
    }

    fn token(&self, by: Algorithm, claims: &serde_json::Value) -> String {
        let (_, private) = self.private.iter().find(|(of, _)| *of == by).expect("a key");
        let signer = Signer::read(by, private.as_bytes()).expect("a key");
        signer.mint(Some("k"), claims).expect("a token")
    }
}

#[test]
fn a_token_of_each_algorithm_is_believed_and_of_its_own_issuer_only() {
    let stage = Stage::new();
    let auth = stage.auth();
    for by in Algorithm::ALL {
        for issuer in Algorithm::ALL {
            let judged = auth.judge(&stage.token(by, &claims(issuer.name())));
            if by == issuer {
                let identity = judged.expect("believed");
                assert!(identity.allows(Action::Subscribe, &format!("{}:1", by.name())));
            } else {
                assert_eq!(judged, Err(Denial::Token(TokenFault::Algorithm)), "{by:?} {issuer:?}");
            }
        }
    }
}

#[test]
fn a_token_signed_with_the_public_key_as_if_it_were_a_secret_is_refused() {
    let stage = Stage::new();
    let auth = stage.auth();
    for of in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let public = fs::read(stage.folder.path().join(format!("{}.pem", of.name()))).expect("the key");
        let key = jsonwebtoken::EncodingKey::from_secret(&public);
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some("k".to_owned());
        let token = jsonwebtoken::encode(&header, &claims(of.name()), &key).expect("a token");
        assert_eq!(auth.judge(&token), Err(Denial::Token(TokenFault::Algorithm)), "{of:?}");
        // The same with the header claiming the key's algorithm.
        let parts: Vec<&str> = token.split('.').collect();
        let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{}\",\"kid\":\"k\"}}", of.name()));
        let forged = format!("{header}.{}.{}", parts[1], parts[2]);
        assert_eq!(auth.judge(&forged), Err(Denial::Token(TokenFault::Signature)), "{of:?}");
    }
}

#[test]
fn a_signature_with_one_bit_changed_is_refused() {
    let stage = Stage::new();
    let auth = stage.auth();
    for of in Algorithm::ALL {
        let token = stage.token(of, &claims(of.name()));
        let (signed, signature) = token.rsplit_once('.').expect("parts");
        let good = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        for place in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bad));
            assert_eq!(
                auth.judge(&forged),
                Err(Denial::Token(TokenFault::Signature)),
                "{of:?} {place}"
            );
        }
        for bad in [
            vec![0; good.len()],
            good[..good.len() - 1].to_vec(),
            [good.clone(), vec![0]].concat(),
            vec![0; 1],
        ] {
            let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bad));
            assert_eq!(auth.judge(&forged), Err(Denial::Token(TokenFault::Signature)), "{of:?}");
        }
    }
}

#[test]
fn keys_of_a_jwks_file_count_each_for_its_own_algorithm() {
    let stage = Stage::new();
    let pair = Ed25519KeyPair::generate().expect("a pair");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed", "alg": "EdDSA", "use": "sig"},
        {"kty": "oct", "k": secret, "kid": "hs", "alg": "HS256"},
        {"kty": "oct", "k": secret, "kid": "other", "alg": "HS512"},
        {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "enc", "use": "enc"},
    ]});
    fs::write(stage.folder.path().join("jwks.json"), set.to_string()).expect("written");
    let policy = "[[issuer]]\nname = \"i\"\njwks_file = \"jwks.json\"\nevery.subscribe = [\"*\"]\n";
    fs::write(stage.folder.path().join("policy.toml"), policy).expect("written");
    let auth = stage.auth();
    let private = pem("PRIVATE KEY", pair.to_pkcs8v1().expect("PKCS #8").as_ref());
    let ed = Signer::read(Algorithm::EdDsa, private.as_bytes()).expect("a key");
    let hs = Signer::read(Algorithm::Hs256, SECRET.as_bytes()).expect("a key");
    let judged = |signer: &Signer, kid: &str| {
        auth.judge(&signer.mint(Some(kid), &claims("i")).expect("a token"))
            .map(drop)
    };
    assert_eq!(judged(&ed, "ed"), Ok(()));
    assert_eq!(judged(&hs, "hs"), Ok(()));
    assert_eq!(judged(&hs, "ed"), Err(Denial::Token(TokenFault::Algorithm)));
    for kid in ["other", "enc", "x"] {
        assert_eq!(judged(&ed, kid), Err(Denial::Token(TokenFault::UnknownKey)), "{kid}");
    }
    for (bad, why) in [
        ("{", "JSON Web Key Set"),
        ("{\"keys\":[]}", "no key"),
        (
            "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2hvcnQ\",\"kid\":\"a\"}]}",
            "32 bytes",
        ),
        (
            "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2hvcnQ\",\"kid\":\"a\",\"alg\":\"RS256\"}]}",
            "is a key for HS256",
        ),
    ] {
        fs::write(stage.folder.path().join("jwks.json"), bad).expect("written");
        let error = stage.try_auth().map(drop).expect_err("refused").to_string();
        assert!(error.contains(why), "{bad}: {error}");
        assert!(!error.contains("c2hvcnQ"), "no secret in a message: {error}");
    }
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_a_sentence_that_names_the_place() {
    let stage = Stage::new();
    let (private, public) = pair(Algorithm::EdDsa);
    for (name, text) in [
        ("private.pem", private.as_str()),
        ("ed.pem", &public),
        ("short", "too short"),
        ("empty", ""),
    ] {
        fs::write(stage.folder.path().join(name), text).expect("written");
    }
    let hash = "0".repeat(64);
    let issuer = |key: &str| format!("[[issuer]]\nname = \"i\"\n[[issuer.key]]\n{key}\n");
    let cases: &[(&str, &str)] = &[
        ("nonsense", "policy.toml"),
        ("[[keys]]\nname = \"a\"\n", "unknown field"),
        ("[[key]]\nname = \"a\"\n", "sha256"),
        ("[[key]]\nname = \"a\"\nsha256 = []\n", "needs one hash"),
        ("[[key]]\nname = \"\"\nsha256 = []\n", "a name has"),
        (
            "[[key]]\nname = \"a\"\nsha256 = [\"my password\"]\n",
            "never the key itself",
        ),
        (
            &format!("[[key]]\nname = \"a\"\nsha256 = [\"{hash}\"]\npublish = [\"a*\"]\n"),
            "the grant `a*`",
        ),
        (
            &format!("[[key]]\nname = \"a\"\nsha256 = [\"{hash}\"]\nadmin = \"yes\"\n"),
            "invalid type",
        ),
        (
            &format!("[[key]]\nname = \"a\"\nsha256 = [\"{hash}\", \"{hash}\"]\n"),
            "there already",
        ),
        ("[[issuer]]\nname = \"i\"\n", "no keys"),
        (&issuer("algorithm = \"none\"\nfile = \"ed.pem\""), "is one of EdDSA"),
        (&issuer("algorithm = \"HS512\"\nfile = \"short\""), "is one of EdDSA"),
        (&issuer("algorithm = \"EdDSA\"\nfile = \"nowhere\""), "nowhere"),
        (&issuer("algorithm = \"EdDSA\"\nfile = \"empty\""), "empty"),
        (&issuer("algorithm = \"EdDSA\"\nfile = \"RS256.pem\""), "EdDSA"),
        (&issuer("algorithm = \"RS256\"\nfile = \"ed.pem\""), "RS256"),
        (&issuer("algorithm = \"ES256\"\nfile = \"ed.pem\""), "ES256"),
        (&issuer("algorithm = \"HS256\"\nfile = \"short\""), "at least 32 bytes"),
        (&issuer("algorithm = \"EdDSA\"\nfile = \"private.pem\""), "private key"),
    ];
    for &(policy, why) in cases {
        fs::write(stage.folder.path().join("policy.toml"), policy).expect("written");
        let error = stage.try_auth().map(drop).expect_err(policy).to_string();
        assert!(
            error.contains(why) && error.contains("policy.toml"),
            "{policy}\n{error}"
        );
    }
    fs::remove_file(stage.folder.path().join("policy.toml")).expect("removed");
    assert!(stage.try_auth().is_err(), "a policy that is not there");
}

#[test]
fn what_was_found_good_is_looked_at_again_when_it_matters() {
    let stage = Stage::new();
    let auth = stage.auth();
    let token = stage.token(Algorithm::Hs256, &claims("HS256"));
    let first = auth.judge(&token).expect("believed");
    let again = auth.judge(&token).expect("believed");
    assert!(Arc::ptr_eq(&first, &again), "without looking at the signature again");
    let target = |subject: &str| tidings_router::access::revocations::Target {
        issuer: None,
        whom: tidings_router::access::revocations::Whom::Subject(subject.into()),
    };
    auth.revoke_here(target("alice"), now_s()).expect("taken");
    assert_eq!(auth.judge(&token), Err(Denial::Revoked));
    let auth = stage.auth();
    let mut short = claims("HS256");
    short["exp"] = json!(now_s() + 1);
    let short = stage.token(Algorithm::Hs256, &short);
    let identity = auth.judge(&short).expect("believed");
    assert_eq!(
        auth.still_counts(&identity, now_s() + 31, 30),
        Err(Denial::Token(TokenFault::Expired))
    );
    // Of an issuer that is gone nothing is left.
    fs::write(stage.folder.path().join("policy.toml"), "").expect("written");
    auth.prepare(&stage.config()).expect("a policy")();
    assert_eq!(auth.judge(&short), Err(Denial::Token(TokenFault::UnknownIssuer)));
}

#[test]
fn of_revocations_at_the_same_time_each_counts_and_is_kept() {
    use tidings_router::access::revocations::{Target, Whom};
    const EACH: usize = 20;
    let (stage, folder) = (Stage::new(), tempfile::tempdir().expect("a folder"));
    let auth = stage.auth();
    auth.keep_in(folder.path()).expect("a folder");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let auth = &auth;
            scope.spawn(move || {
                for n in 0..EACH {
                    let whom = Whom::Subject(format!("{thread}-{n}").into());
                    auth.revoke_here(Target { issuer: None, whom }, now_s()).expect("taken");
                }
            });
        }
    });
    assert_eq!(auth.revocations().len(), 4 * EACH);
    let again = stage.auth();
    again.keep_in(folder.path()).expect("read");
    assert_eq!(again.revocations().len(), 4 * EACH);
}

#[test]
fn no_more_is_remembered_than_the_bound() {
    let mut cache = cache::Cache::default();
    let stage = Stage::new();
    let identity = stage
        .auth()
        .judge(&stage.token(Algorithm::Hs256, &claims("HS256")))
        .expect("believed");
    let hash = |n: u64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        hash
    };
    for n in 0..3 * cache::MOST as u64 {
        cache.put(hash(n), Arc::clone(&identity));
        assert!(cache.get(&hash(0)).is_some(), "what is used stays");
        assert!(cache.len() <= cache::MOST);
    }
    cache.clear();
    assert_eq!(cache.len(), 0);
}

#[test]
fn a_node_that_hears_nothing_of_revocations_lets_nobody_new_in() {
    let stage = Stage::new();
    let auth = stage.auth();
    let token = stage.token(Algorithm::Hs256, &claims("HS256"));
    auth.judge(&token).expect("believed");
    auth.set_cut_off(true);
    assert_eq!(auth.judge(&token), Err(Denial::CutOff));
    assert_eq!(Denial::CutOff.problem().code, Code::Overloaded, "it may be asked again");
    auth.set_cut_off(false);
    auth.judge(&token).expect("believed again");
}

#[test]
fn material_and_secrets_are_not_shown() {
    let material = Material::read(Algorithm::Hs256, SECRET.as_bytes()).expect("a secret");
    assert!(!format!("{material:?}").contains("secret"));
    assert!(!format!("{:?}", Stage::new().auth()).contains("tests, 32"));
}
