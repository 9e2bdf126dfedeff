//! Signatures and hashes, by the crates that do such things well. One provider for all of it, TLS among it: AWS-LC.

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, EncodingKey};
use tidings_router::access::jose::Algorithm;

/// Bytes of a secret for `HS256`, at least: as many as the hash has.
pub(crate) const LEAST_SECRET_BYTES: usize = 32;

/// What signatures of one key are checked with. The algorithm is the key's, not the token's.
#[derive(Clone)]
pub(crate) struct Material(DecodingKey);

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never a secret.
        f.write_str("Material")
    }
}

fn algorithm(of: Algorithm) -> jsonwebtoken::Algorithm {
    match of {
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
    }
}

/// The secret of a file: without the end of its line.
fn secret(bytes: &[u8]) -> Result<&[u8], String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() < LEAST_SECRET_BYTES {
        return Err(format!("a secret for HS256 has at least {LEAST_SECRET_BYTES} bytes"));
    }
    Ok(bytes)
}

impl Material {
    /// From the bytes of a file: a PEM file with a public key, or a secret for `HS256`.
    pub(crate) fn read(of: Algorithm, bytes: &[u8]) -> Result<Self, String> {
        // A private key in a public key's place would lie where more people read.
        if of != Algorithm::Hs256 && String::from_utf8_lossy(bytes).contains("PRIVATE KEY") {
            return Err("this is a private key: the server needs only the public one".to_owned());
        }
        let not_this = |error: jsonwebtoken::errors::Error| format!("no public key in PEM for {}: {error}", of.name());
        let key = match of {
            Algorithm::EdDsa => DecodingKey::from_ed_pem(bytes),
            Algorithm::Es256 => DecodingKey::from_ec_pem(bytes),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(bytes),
            Algorithm::Hs256 => Ok(DecodingKey::from_secret(secret(bytes)?)),
        };
        key.map(Self).map_err(not_this)
    }

    /// One key of a JWKS file with its algorithm. `None`: it is for something else than signatures, or for an algorithm that
    /// is not taken.
    pub(crate) fn of_jwk(jwk: &Jwk) -> Option<Result<(Algorithm, Self), String>> {
        if jwk
            .common
            .public_key_use
            .as_ref()
            .is_some_and(|of| *of != PublicKeyUse::Signature)
        {
            return None;
        }
        let own = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDsa,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::Es256,
            AlgorithmParameters::RSA(_) => Algorithm::Rs256,
            AlgorithmParameters::OctetKey(_) => Algorithm::Hs256,
            _ => return None,
        };
        let named = match jwk.common.key_algorithm {
            None => own,
            Some(KeyAlgorithm::EdDSA) => Algorithm::EdDsa,
            Some(KeyAlgorithm::ES256) => Algorithm::Es256,
            Some(KeyAlgorithm::RS256) => Algorithm::Rs256,
            Some(KeyAlgorithm::HS256) => Algorithm::Hs256,
            Some(_) => return None,
        };
        if named != own {
            return Some(Err(format!("it says {} and is a key for {}", named.name(), own.name())));
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string());
        let long_enough = |key: &DecodingKey| {
            own != Algorithm::Hs256
                || key
                    .try_get_as_bytes()
                    .is_ok_and(|bytes| bytes.len() >= LEAST_SECRET_BYTES)
        };
        Some(key.and_then(|key| {
            if long_enough(&key) {
                Ok((own, Self(key)))
            } else {
                Err(format!("a secret for HS256 has at least {LEAST_SECRET_BYTES} bytes"))
            }
        }))
    }

    /// Whether the signature over these bytes was made with this key.
    pub(crate) fn verify(&self, of: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        use base64::Engine as _;
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature);
        jsonwebtoken::crypto::verify(&signature, signed, &self.0, algorithm(of)).unwrap_or(false)
    }
}

/// What tokens are signed with: for development, where no backend does it.
pub(crate) struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Signer {
    /// From the bytes of a file: a PEM file with a private key (PKCS #8), or a secret for `HS256`.
    pub(crate) fn read(of: Algorithm, bytes: &[u8]) -> Result<Self, String> {
        let key = match of {
            Algorithm::EdDsa => EncodingKey::from_ed_pem(bytes),
            Algorithm::Es256 => EncodingKey::from_ec_pem(bytes),
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(bytes),
            Algorithm::Hs256 => Ok(EncodingKey::from_secret(secret(bytes)?)),
        };
        let key = key.map_err(|error| format!("no private key in PEM (PKCS #8) for {}: {error}", of.name()))?;
        Ok(Self { key, algorithm: of })
    }

    /// A token that says this.
    pub(crate) fn mint(&self, kid: Option<&str>, claims: &serde_json::Value) -> Result<String, String> {
        let mut header = jsonwebtoken::Header::new(algorithm(self.algorithm));
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|error| error.to_string())
    }
}

/// SHA-256.
#[must_use]
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
