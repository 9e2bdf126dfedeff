//! Where a server is: what may be written, and what is made of it. Pure.

use http::Uri;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// To be looked up.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As `Host` has it.
    pub(crate) authority: String,
    /// Before every route; empty, or with a slash in front and none behind.
    prefix: String,
}

/// Why a text is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of a server: {why}")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl AddressError {
    pub(crate) fn none() -> Self {
        Self {
            text: String::new(),
            why: "there is none",
        }
    }
}

impl Address {
    /// `http://host:port`, `ws://host:port`, each with a path in front of the routes if a proxy wants one, or `host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let refuse = |why| AddressError {
            text: crate::watch::printable(text),
            why,
        };
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: Uri = whole.parse().map_err(|_| refuse("it is no URL"))?;
        let port = match uri.scheme_str() {
            Some("http" | "ws") => uri.port_u16().unwrap_or(80),
            Some("https" | "wss") => {
                return Err(refuse("this client does not speak TLS: go through a proxy that does"));
            }
            _ => return Err(refuse("it must begin with http:// or ws://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("credentials do not belong into a URL: give a token"));
        }
        if uri.query().is_some() {
            return Err(refuse("a query does not belong to a server"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        Ok(Self {
            host,
            port,
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The target of a request for this route.
    pub(crate) fn target(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }
}

/// A value for a query string.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_port_and_path() {
        for (text, host, port, target) in [
            ("http://127.0.0.1:7400", "127.0.0.1", 7400, "/v1/ws"),
            ("ws://example.org/", "example.org", 80, "/v1/ws"),
            ("localhost:7400", "localhost", 7400, "/v1/ws"),
            ("http://[::1]:7400/tidings/", "::1", 7400, "/tidings/v1/ws"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(address.target("/v1/ws"), target, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_says_why() {
        for (text, why) in [
            ("https://example.org", "TLS"),
            ("ftp://example.org", "http://"),
            ("http://me:secret@example.org", "token"),
            ("http://example.org/?a=b", "query"),
            ("http://", "URL"),
            ("", "URL"),
            ("a b", "URL"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn values_survive_the_servers_reading() {
        for text in ["order:42", "a b+c&d=e%", "ü/\u{1f600}"] {
            let query = format!("object={}", encode(text));
            let mut pairs = tidings_protocol::client::query_pairs(&query);
            let (name, value) = pairs.next().expect("a pair").expect("sense");
            assert_eq!((&*name, &*value), ("object", text));
        }
    }
}
