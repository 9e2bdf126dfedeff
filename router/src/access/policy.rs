//! Who is let in: API keys by their hashes, and the issuers whose tokens count.
//!
//! `K` is what signatures are checked with; this room passes it on and knows nothing of it.

use super::grants::{Permission, Templates};
use super::identity::{Identity, Subject};
use super::jose::{Algorithm, Header};
use super::token::TokenFault;
use subtle::ConstantTimeEq as _;

/// The hash (SHA-256) of an API key. Keys are random and long, so that a fast hash is enough.
pub type KeyHash = [u8; 32];

/// Hashes one API key may have at a time: the old and the new one during a rotation.
pub const MOST_HASHES: usize = 2;

/// One API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Whose it is: the subject it proves.
    pub name: Box<str>,
    /// Either of these lets in.
    pub hashes: Vec<KeyHash>,
    /// What it allows.
    pub grants: Templates,
}

/// A key that tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey<K> {
    /// Its id. One key of an issuer may be without: it serves tokens whose `kid` names no other.
    pub kid: Option<Box<str>>,
    /// The only algorithm it is for.
    pub algorithm: Algorithm,
    /// What signatures are checked with.
    pub material: K,
}

/// Somebody who makes tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer<K> {
    /// As tokens name it in `iss`. Empty: tokens without `iss`.
    pub name: Box<str>,
    /// One of these must be in `aud`. Empty: not looked at.
    pub audience: Vec<Box<str>>,
    /// What each of its tokens allows, whatever it says.
    pub every: Templates,
    /// The most that its tokens may say they allow.
    pub most: Templates,
    /// What it signs with.
    pub keys: Vec<TokenKey<K>>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy<K> {
    /// API keys.
    pub api_keys: Vec<ApiKey>,
    /// Issuers.
    pub issuers: Vec<Issuer<K>>,
    /// Seconds by which clocks may differ.
    pub leeway_s: u64,
    /// The longest life of a token in seconds.
    pub lifetime_s: u64,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Two of one name.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// An API key without hash, or with too many.
    #[error("the key `{0}` needs one hash, or two during a rotation")]
    Hashes(String),
    /// The same hash twice: who comes with it would be two.
    #[error("the key `{0}` has a hash that is there already")]
    SameHash(String),
    /// An issuer without keys.
    #[error("the issuer `{0}` has no keys")]
    NoKeys(String),
    /// Two keys of one issuer that a token could not tell apart.
    #[error("the issuer `{0}` has two keys of one `kid`, or two without")]
    SameKid(String),
    /// A leeway that is no leeway any more.
    #[error("the leeway is at most {} seconds", super::claims::MOST_LEEWAY_S)]
    Leeway,
}

impl<K> Policy<K> {
    /// Checks what single parts cannot show.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.leeway_s > super::claims::MOST_LEEWAY_S {
            return Err(PolicyError::Leeway);
        }
        let mut seen: Vec<&KeyHash> = Vec::new();
        for (place, key) in self.api_keys.iter().enumerate() {
            if self.api_keys[..place].iter().any(|other| other.name == key.name) {
                return Err(PolicyError::Twice(key.name.to_string()));
            }
            if key.hashes.is_empty() || key.hashes.len() > MOST_HASHES {
                return Err(PolicyError::Hashes(key.name.to_string()));
            }
            for hash in &key.hashes {
                if seen.contains(&hash) {
                    return Err(PolicyError::SameHash(key.name.to_string()));
                }
                seen.push(hash);
            }
        }
        for (place, issuer) in self.issuers.iter().enumerate() {
            let name = || issuer.name.to_string();
            if self.issuers[..place].iter().any(|other| other.name == issuer.name) {
                return Err(PolicyError::Twice(name()));
            }
            if issuer.keys.is_empty() {
                return Err(PolicyError::NoKeys(name()));
            }
            for (place, key) in issuer.keys.iter().enumerate() {
                if issuer.keys[..place].iter().any(|other| other.kid == key.kid) {
                    return Err(PolicyError::SameKid(name()));
                }
            }
        }
        Ok(())
    }

    /// Whose API key has this hash. Takes as long whichever it is, or whether it is one.
    #[must_use]
    pub fn api_key(&self, hash: &KeyHash) -> Option<Identity> {
        let mut found = None;
        for key in &self.api_keys {
            for known in &key.hashes {
                if bool::from(known.ct_eq(hash)) {
                    found = Some(key);
                }
            }
        }
        found.map(|key| Identity {
            subject: Subject {
                issuer: "".into(),
                name: key.name.clone(),
                by_key: true,
            },
            key: Some(*hash),
            token_id: None,
            issued_s: 0,
            expires_s: None,
            permission: Permission {
                every: key.grants.fill(&key.name),
                ..Permission::default()
            },
            objects: Vec::new(),
        })
    }

    /// The issuer of this name and its key for a token with this header. The algorithm must be the key's own.
    ///
    /// # Errors
    /// If there is no such issuer or key, or the key is for another algorithm.
    pub fn key(&self, issuer: &str, header: &Header) -> Result<(&Issuer<K>, &TokenKey<K>), TokenFault> {
        let issuer = self.issuers.iter().find(|known| &*known.name == issuer);
        let issuer = issuer.ok_or(TokenFault::UnknownIssuer)?;
        let named = |key: &&TokenKey<K>| key.kid.is_some() && key.kid == header.kid;
        let unnamed = |key: &&TokenKey<K>| key.kid.is_none();
        let mut keys = issuer.keys.iter();
        let key = keys.clone().find(named).or_else(|| keys.clone().find(unnamed));
        // A token that names no key can only mean the one that there is.
        let only = (header.kid.is_none() && issuer.keys.len() == 1)
            .then(|| keys.next())
            .flatten();
        let key = key.or(only).ok_or(TokenFault::UnknownKey)?;
        if key.algorithm != header.algorithm {
            return Err(TokenFault::Algorithm);
        }
        Ok((issuer, key))
    }
}

#[cfg(test)]
mod tests;
