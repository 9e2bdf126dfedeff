//! What a token says of its bearer, and whether it may be believed at a time. Read before the signature is checked only to
//! learn the issuer; everything else counts after.

use super::grants::Templates;
use super::strict;
use super::token::TokenFault;
use serde_json::{Map, Value};
use tidings_protocol::id::check_object_id;

/// Bytes of a subject, issuer, audience or token id.
pub const MOST_NAME_BYTES: usize = 255;
/// Audiences of one token.
pub const MOST_AUDIENCES: usize = 32;
/// Objects that a token may have subscribed at connect.
pub const MOST_OBJECTS: usize = 256;
/// Seconds by which clocks may differ.
pub const MOST_LEEWAY_S: u64 = 30;
/// No time is as late: numbers above do not survive every reader.
const LATEST_S: u64 = 1 << 53;

/// The claims of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who made it (`iss`); empty if it does not say.
    pub issuer: Box<str>,
    /// Whom it is about (`sub`).
    pub subject: Box<str>,
    /// Its own name (`jti`).
    pub id: Option<Box<str>>,
    /// For whom it was made (`aud`).
    pub audience: Vec<Box<str>>,
    /// When it ends (`exp`), in seconds since the Unix epoch; so are the next two.
    pub expires_s: u64,
    /// Before when it does not count (`nbf`).
    pub not_before_s: Option<u64>,
    /// When it was made (`iat`).
    pub issued_s: u64,
    /// What it says it grants (`tidings`).
    pub own: Templates,
    /// What to subscribe its bearer to at connect (`tidings.objects`).
    pub objects: Vec<Box<str>>,
}

/// How claims are held against the time and the one who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// One of these must be in `aud`. Empty: `aud` is not looked at.
    pub audience: &'a [Box<str>],
    /// Seconds by which clocks may differ, at most [`MOST_LEEWAY_S`].
    pub leeway_s: u64,
    /// The most seconds from `iat` to `exp`. A revocation is forgotten after so long.
    pub lifetime_s: u64,
}

impl Claims {
    /// Reads claims.
    ///
    /// # Errors
    /// Names the claim that is missing or not what it has to be.
    pub fn read(bytes: &[u8]) -> Result<Self, TokenFault> {
        let map = strict::map(bytes).ok_or(TokenFault::Malformed)?;
        let (own, objects) = match map.get("tidings") {
            None => (Templates::default(), Vec::new()),
            Some(Value::Object(own)) => own_claims(own)?,
            Some(_) => return Err(TokenFault::Claim("tidings")),
        };
        Ok(Self {
            issuer: name(&map, "iss")?.unwrap_or_default(),
            subject: name(&map, "sub")?.ok_or(TokenFault::Claim("sub"))?,
            id: name(&map, "jti")?,
            audience: audience(&map)?,
            expires_s: time(&map, "exp")?.ok_or(TokenFault::Claim("exp"))?,
            not_before_s: time(&map, "nbf")?,
            issued_s: time(&map, "iat")?.ok_or(TokenFault::Claim("iat"))?,
            own,
            objects,
        })
    }

    /// Whether they may be believed now.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self, terms: &Terms<'_>, now_s: u64) -> Result<(), TokenFault> {
        let leeway_s = terms.leeway_s.min(MOST_LEEWAY_S);
        let latest_s = now_s.saturating_add(leeway_s);
        if now_s >= self.expires_s.saturating_add(leeway_s) {
            return Err(TokenFault::Expired);
        }
        if self.issued_s > latest_s || self.not_before_s.is_some_and(|from_s| from_s > latest_s) {
            return Err(TokenFault::NotYet);
        }
        match self.expires_s.checked_sub(self.issued_s) {
            Some(lifetime_s) if lifetime_s <= terms.lifetime_s => {}
            _ => return Err(TokenFault::Lifetime),
        }
        if !terms.audience.is_empty() && !self.audience.iter().any(|one| terms.audience.contains(one)) {
            return Err(TokenFault::Audience);
        }
        Ok(())
    }
}

fn name(map: &Map<String, Value>, key: &'static str) -> Result<Option<Box<str>>, TokenFault> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if is_name(text) => Ok(Some(text.as_str().into())),
        Some(_) => Err(TokenFault::Claim(key)),
    }
}

fn is_name(text: &str) -> bool {
    (1..=MOST_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control)
}

/// Whole seconds. Fractions, texts and negative numbers are refused rather than read in some way.
fn time(map: &Map<String, Value>, key: &'static str) -> Result<Option<u64>, TokenFault> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(seconds) if seconds < LATEST_S => Ok(Some(seconds)),
            _ => Err(TokenFault::Claim(key)),
        },
        Some(_) => Err(TokenFault::Claim(key)),
    }
}

fn audience(map: &Map<String, Value>) -> Result<Vec<Box<str>>, TokenFault> {
    let fault = TokenFault::Claim("aud");
    match map.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) if is_name(one) => Ok(vec![one.as_str().into()]),
        Some(Value::Array(several)) if several.len() <= MOST_AUDIENCES => {
            let one = |value: &Value| match value {
                Value::String(one) if is_name(one) => Ok(one.as_str().into()),
                _ => Err(fault),
            };
            several.iter().map(one).collect()
        }
        Some(_) => Err(fault),
    }
}

fn own_claims(map: &Map<String, Value>) -> Result<(Templates, Vec<Box<str>>), TokenFault> {
    const KNOWN: [&str; 4] = ["subscribe", "publish", "admin", "objects"];
    let fault = TokenFault::Claim("tidings");
    // A word that nobody understands might be meant as a restriction.
    if map.keys().any(|key| !KNOWN.contains(&key.as_str())) {
        return Err(fault);
    }
    let list = |key: &str| match map.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(texts)) => {
            let text = |value: &Value| match value {
                Value::String(text) => Ok(text.clone()),
                _ => Err(fault),
            };
            texts.iter().map(text).collect::<Result<Vec<_>, _>>()
        }
        Some(_) => Err(fault),
    };
    let admin = match map.get("admin") {
        None => false,
        Some(Value::Bool(admin)) => *admin,
        Some(_) => return Err(fault),
    };
    let templates = Templates::read(&list("subscribe")?, &list("publish")?, admin).map_err(|_| fault)?;
    let objects = list("objects")?;
    if objects.len() > MOST_OBJECTS || objects.iter().any(|object| check_object_id(object).is_err()) {
        return Err(fault);
    }
    Ok((templates, objects.into_iter().map(Into::into).collect()))
}

#[cfg(test)]
mod tests;
