//! The policy as a file: who is let in and what they may do. Read as a whole or not at all.

use super::AuthError;
use super::crypto::Material;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use std::path::Path;
use tidings_router::access::grants::GrantError;
use tidings_router::access::jose::Algorithm;
use tidings_router::access::policy::{ApiKey, Issuer, KeyHash, TokenKey};
use tidings_router::access::{Policy, Templates};

/// Bytes of the policy or of one key file: more is not read.
const MOST_BYTES: u64 = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyFile {
    key: Vec<KeyPart>,
    issuer: Vec<IssuerPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPart {
    name: String,
    sha256: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    admin: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GrantsPart {
    subscribe: Vec<String>,
    publish: Vec<String>,
    admin: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerPart {
    name: String,
    #[serde(default)]
    audience: Vec<String>,
    #[serde(default)]
    every: GrantsPart,
    #[serde(default)]
    most: GrantsPart,
    #[serde(default)]
    jwks_file: Option<String>,
    #[serde(default)]
    key: Vec<TokenKeyPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenKeyPart {
    #[serde(default)]
    kid: Option<String>,
    algorithm: String,
    file: String,
}

/// Reads a policy and the key files that it names, which lie beside it unless their paths say otherwise.
pub(crate) fn read(path: &Path, leeway_s: u64, lifetime_s: u64) -> Result<Policy<Material>, AuthError> {
    let wrong = |why: String| AuthError::Policy {
        path: path.display().to_string(),
        why,
    };
    let text = bytes(path).map_err(wrong)?;
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    // The message of the parser may quote the line: hashes are no secrets, and nothing else in the file is.
    let file: PolicyFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let api_keys = file.key.iter().map(api_key).collect::<Result<_, _>>().map_err(wrong)?;
    let issuers = file.issuer.iter().map(|part| issuer(part, folder));
    let policy = Policy {
        api_keys,
        issuers: issuers.collect::<Result<_, _>>().map_err(wrong)?,
        leeway_s,
        lifetime_s,
    };
    policy.check().map_err(|error| wrong(error.to_string()))?;
    Ok(policy)
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if read as u64 > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    Ok(bytes)
}

fn grants(of: &str, subscribe: &[String], publish: &[String], admin: bool) -> Result<Templates, String> {
    Templates::read(subscribe, publish, admin).map_err(|(text, error)| match error {
        GrantError::TooMany => format!("{of}: {error}"),
        _ => format!("{of}: the grant `{}`: {error}", text.escape_debug()),
    })
}

fn api_key(part: &KeyPart) -> Result<ApiKey, String> {
    let of = format!("the key `{}`", part.name.escape_debug());
    if part.name.is_empty() || part.name.len() > 128 || part.name.contains(char::is_control) {
        return Err(format!("{of}: a name has 1 to 128 bytes without control characters"));
    }
    let hashes =
        part.sha256.iter().map(|text| {
            key_hash(text).ok_or_else(|| {
        format!("{of}: `sha256` holds 64 hexadecimal digits, as `tidings token hash` prints them, never the key itself")
    })
        });
    Ok(ApiKey {
        name: part.name.as_str().into(),
        hashes: hashes.collect::<Result<_, _>>()?,
        grants: grants(&of, &part.subscribe, &part.publish, part.admin)?,
    })
}

fn key_hash(text: &str) -> Option<KeyHash> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(hash)
}

fn issuer(part: &IssuerPart, folder: &Path) -> Result<Issuer<Material>, String> {
    let of = format!("the issuer `{}`", part.name.escape_debug());
    let list = |name: &str, grants_part: &GrantsPart| {
        let of = format!("{of}, `{name}`");
        grants(&of, &grants_part.subscribe, &grants_part.publish, grants_part.admin)
    };
    let mut keys = Vec::new();
    for key in &part.key {
        let algorithm = Algorithm::named(&key.algorithm)
            .ok_or_else(|| format!("{of}: `algorithm` is one of EdDSA, ES256, RS256, HS256"))?;
        let material = bytes(&folder.join(&key.file))
            .and_then(|bytes| Material::read(algorithm, &bytes))
            .map_err(|why| format!("{of}: {}: {why}", key.file))?;
        keys.push(TokenKey {
            kid: key.kid.as_deref().map(Into::into),
            algorithm,
            material,
        });
    }
    if let Some(file) = &part.jwks_file {
        let found = bytes(&folder.join(file)).and_then(|bytes| jwks(&bytes));
        keys.extend(found.map_err(|why| format!("{of}: {file}: {why}"))?);
    }
    Ok(Issuer {
        name: part.name.as_str().into(),
        audience: part.audience.iter().map(|text| text.as_str().into()).collect(),
        every: list("every", &part.every)?,
        most: list("most", &part.most)?,
        keys,
    })
}

fn jwks(bytes: &[u8]) -> Result<Vec<TokenKey<Material>>, String> {
    // Not the parser's own words: they could quote a secret.
    let set: JwkSet = serde_json::from_slice(bytes)
        .map_err(|error| format!("no JSON Web Key Set (line {}, column {})", error.line(), error.column()))?;
    let mut keys = Vec::new();
    for (place, jwk) in set.keys.iter().enumerate() {
        if let Some(key) = Material::of_jwk(jwk) {
            let (algorithm, material) = key.map_err(|why| format!("key {}: {why}", place + 1))?;
            keys.push(TokenKey {
                kid: jwk.common.key_id.as_deref().map(Into::into),
                algorithm,
                material,
            });
        }
    }
    if keys.is_empty() {
        return Err("it has no key for EdDSA, ES256, RS256 or HS256".to_owned());
    }
    Ok(keys)
}
