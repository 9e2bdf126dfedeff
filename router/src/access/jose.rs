//! The header of a token: which key should have signed it, and by which algorithm. Nothing in it is believed.

use super::strict;
use super::token::TokenFault;
use serde_json::Value;

/// The algorithms that are taken. There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// HMAC with SHA-256: whoever can check can also mint.
    Hs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::EdDsa, Self::Es256, Self::Rs256, Self::Hs256];

    /// As tokens name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The algorithm of this name, written exactly so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// What a token's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// By which algorithm it claims to be signed. Counts only if the key is for this one.
    pub algorithm: Algorithm,
    /// The id of the key that it claims to be signed with.
    pub kid: Option<Box<str>>,
}

/// Bytes of a key id.
pub const MOST_KID_BYTES: usize = 128;

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// If it is no header of a signed token, or asks for what is not done here. Names of keys elsewhere (`jku`, `x5u`, `jwk`,
    /// `x5c`) are neither followed nor used.
    pub fn read(bytes: &[u8]) -> Result<Self, TokenFault> {
        let map = strict::map(bytes).ok_or(TokenFault::Malformed)?;
        // RFC 7515, 4.1.11: what is critical and not understood must be refused; here nothing is understood. RFC 7797: an
        // unencoded payload is one.
        if map.contains_key("crit") || map.contains_key("b64") {
            return Err(TokenFault::Critical);
        }
        let algorithm = match map.get("alg") {
            Some(Value::String(name)) => Algorithm::named(name).ok_or(TokenFault::Algorithm)?,
            _ => return Err(TokenFault::Algorithm),
        };
        match map.get("typ") {
            None => {}
            Some(Value::String(kind))
                if ["JWT", "at+jwt", "application/at+jwt"]
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(kind)) => {}
            Some(_) => return Err(TokenFault::Kind),
        }
        let kid = match map.get("kid") {
            None => None,
            Some(Value::String(kid))
                if !kid.is_empty() && kid.len() <= MOST_KID_BYTES && !kid.contains(char::is_control) =>
            {
                Some(kid.as_str().into())
            }
            Some(_) => return Err(TokenFault::UnknownKey),
        };
        Ok(Self { algorithm, kid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Header, TokenFault> {
        Header::read(text.as_bytes())
    }

    #[test]
    fn the_four_algorithms_are_read_by_their_exact_names() {
        for algorithm in Algorithm::ALL {
            let text = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
            assert_eq!(read(&text), Ok(Header { algorithm, kid: None }), "{text}");
        }
        for name in [
            "none",
            "None",
            "nOnE",
            "NONE",
            "",
            " ",
            "hs256",
            "HS256 ",
            "HS384",
            "HS512",
            "RS384",
            "RS512",
            "PS256",
            "ES384",
            "ES512",
            "ES256K",
            "EdDSA\\u0000",
            "ED25519",
            "RSA-OAEP",
            "dir",
            "*",
        ] {
            let text = format!(r#"{{"alg":"{name}"}}"#);
            assert_eq!(read(&text), Err(TokenFault::Algorithm), "{text}");
        }
        for text in [
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":1}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"ALG":"HS256"}"#,
        ] {
            assert_eq!(read(text), Err(TokenFault::Algorithm), "{text}");
        }
    }

    #[test]
    fn what_is_critical_is_refused_whatever_it_is() {
        for text in [
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":null}"#,
            r#"{"alg":"HS256","b64":false}"#,
            r#"{"alg":"HS256","b64":true}"#,
            r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        ] {
            assert_eq!(read(text), Err(TokenFault::Critical), "{text}");
        }
    }

    #[test]
    fn a_header_with_a_key_twice_or_that_is_no_map_is_malformed() {
        for text in [
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","\u0061lg":"HS256"}"#,
            r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
            "[]",
            "",
            "\"HS256\"",
            "{\"alg\":\"HS256\"}{}",
        ] {
            assert_eq!(read(text), Err(TokenFault::Malformed), "{text}");
        }
    }

    #[test]
    fn a_key_id_is_a_short_text() {
        assert_eq!(
            read(r#"{"alg":"HS256","kid":"a"}"#).map(|h| h.kid),
            Ok(Some("a".into()))
        );
        let longest = "k".repeat(MOST_KID_BYTES);
        assert!(read(&format!(r#"{{"alg":"HS256","kid":"{longest}"}}"#)).is_ok());
        for kid in [
            "\"\"".to_owned(),
            "1".to_owned(),
            "null".to_owned(),
            r#""a\u0000b""#.to_owned(),
            r#""a\nb""#.to_owned(),
            format!("\"{longest}k\""),
            format!("\"{}\"", "k".repeat(10_000)),
        ] {
            let text = format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
            assert_eq!(read(&text), Err(TokenFault::UnknownKey), "{kid:.60}");
        }
    }

    #[test]
    fn names_of_keys_elsewhere_change_nothing() {
        let text = r#"{"alg":"ES256","jku":"http://127.0.0.1:1/","x5u":"file:///etc/passwd","jwk":{"kty":"oct","k":"AA"},"x5c":["AA"]}"#;
        let header = Header {
            algorithm: Algorithm::Es256,
            kid: None,
        };
        assert_eq!(read(text), Ok(header));
    }

    #[test]
    fn other_kinds_of_tokens_are_refused() {
        for kind in ["\"JWT\"", "\"jwt\"", "\"at+jwt\""] {
            assert!(read(&format!(r#"{{"alg":"HS256","typ":{kind}}}"#)).is_ok(), "{kind}");
        }
        for kind in ["\"JWE\"", "\"dpop+jwt\"", "\"\"", "1", "null", "\"logout+jwt\""] {
            assert_eq!(
                read(&format!(r#"{{"alg":"HS256","typ":{kind}}}"#)),
                Err(TokenFault::Kind),
                "{kind}"
            );
        }
    }
}
