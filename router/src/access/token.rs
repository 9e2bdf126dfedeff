//! A token from text to identity: what is looked at, in which order.
//!
//! Size, form and header come first; then the issuer and the key that it and the key id name; then the signature; and only
//! then anything else that the token says. Nothing in a token makes us ask anybody else.

use super::claims::{Claims, Terms};
use super::grants::Permission;
use super::identity::{Identity, Subject};
use super::jose::{Algorithm, Header};
use super::policy::Policy;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of one token.
pub const MOST_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenFault {
    /// More bytes than a token may have.
    #[error("it has more than {MOST_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not three parts of base64url, or parts that are no JSON map, or with a key twice, or too deep.
    #[error("it is no signed JSON Web Token")]
    Malformed,
    /// It asks for an extension.
    #[error("its header asks for an extension (`crit`, `b64`)")]
    Critical,
    /// Its algorithm is not taken, or not the key's.
    #[error("its algorithm is not the one of its key")]
    Algorithm,
    /// Its `typ` says that it is something else.
    #[error("its `typ` is not JWT")]
    Kind,
    /// Nobody of this name makes tokens for us.
    #[error("its issuer is not known here")]
    UnknownIssuer,
    /// The issuer has no such key.
    #[error("its issuer has no key of this `kid`")]
    UnknownKey,
    /// It was not signed with the key, or was changed since.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or not what it has to be.
    #[error("its claim `{0}` is missing or not as it must be")]
    Claim(&'static str),
    /// It has ended.
    #[error("it has expired")]
    Expired,
    /// It was made, or begins to count, in the future.
    #[error("it is not valid yet")]
    NotYet,
    /// It lives longer than tokens may.
    #[error("it is valid for longer than this server takes tokens for")]
    Lifetime,
    /// It was made for somebody else.
    #[error("its audience is not this server")]
    Audience,
}

impl TokenFault {
    /// A stable word for counting.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::Kind => "kind",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claim(_) => "claim",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Lifetime => "lifetime",
            Self::Audience => "audience",
        }
    }
}

/// A token cut into its parts, none of them believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// What its header says.
    pub header: Header,
    /// What it claims.
    pub claims: Claims,
    /// The bytes that were signed.
    pub signed: &'a [u8],
    /// The signature over them.
    pub signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Cuts a token.
    ///
    /// # Errors
    /// If it is none, or its header or claims are not as they must be.
    pub fn read(token: &'a str) -> Result<Self, TokenFault> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(TokenFault::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Malformed);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed);
        let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
        let signature = decode(signature)?;
        let header = Header::read(&decode(header)?)?;
        if signature.is_empty() {
            return Err(TokenFault::Signature);
        }
        Ok(Self {
            header,
            claims: Claims::read(&decode(claims)?)?,
            signed,
            signature,
        })
    }
}

/// What a token is worth at `now_s`, in seconds since the Unix epoch. `verify` says whether a signature over some bytes was
/// made with a key, by its algorithm.
///
/// # Errors
/// Says why it is worth nothing.
pub fn judge<K>(
    policy: &Policy<K>,
    token: &str,
    now_s: u64,
    verify: impl FnOnce(&K, Algorithm, &[u8], &[u8]) -> bool,
) -> Result<Identity, TokenFault> {
    let parts = Parts::read(token)?;
    let (issuer, key) = policy.key(&parts.claims.issuer, &parts.header)?;
    if !verify(&key.material, key.algorithm, parts.signed, &parts.signature) {
        return Err(TokenFault::Signature);
    }
    let claims = parts.claims;
    claims.check(
        &Terms {
            audience: &issuer.audience,
            leeway_s: policy.leeway_s,
            lifetime_s: policy.lifetime_s,
        },
        now_s,
    )?;
    let name = &claims.subject;
    Ok(Identity {
        permission: Permission {
            every: issuer.every.fill(name),
            own: claims.own.fill(name),
            most: issuer.most.fill(name),
        },
        subject: Subject {
            issuer: claims.issuer,
            name: claims.subject,
            by_key: false,
        },
        key: None,
        token_id: claims.id,
        issued_s: claims.issued_s,
        expires_s: Some(claims.expires_s),
        objects: claims.objects,
    })
}

#[cfg(test)]
mod tests;
