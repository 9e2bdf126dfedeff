//! Who may speak to this server at all: the first look at every request.
//!
//! Without authentication nothing but these rules keeps a web page from publishing to somebody's loopback: the `Host` must
//! be one of ours (a name that was rebound to our address is not), and an `Origin`, if there is one, must be our own or
//! listed. Comparisons are exact: browsers send one canonical form, and whatever differs is not that page.

use crate::config::Config;
use crate::problem::Refusal;
use crate::telemetry::{GateRefusal, Limit, Metrics};
use axum::body::Body;
use axum::response::Response;
use http::header::{self, HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode};
use std::net::{IpAddr, SocketAddr};
use tidings_protocol::error::Code;

/// The rules.
#[derive(Debug)]
pub struct Gate {
    // Lower case; `name` stands for every port, `name:port` for one.
    hosts: Vec<String>,
    origins: Vec<String>,
    url_bytes: usize,
    wildcard: bool,
    /// Pages may bring a cookie.
    cookies: bool,
}

/// What the gate knows of a request that it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// No page of elsewhere is involved.
    Plain,
    /// A page of this listed origin asks: the answer must say that it may read it.
    CrossOrigin(HeaderValue),
}

impl Gate {
    /// The rules of a server that listens on `listen`.
    #[must_use]
    pub fn new(config: &Config, listen: SocketAddr) -> Self {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        hosts.push(literal(listen.ip()));
        hosts.extend(config.server.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()));
        Self {
            hosts,
            origins: config.server.allowed_origins.clone(),
            url_bytes: usize::try_from(config.limits.url_bytes).unwrap_or(usize::MAX),
            wildcard: listen.ip().is_unspecified(),
            cookies: config.has_auth() && !config.auth.cookie.is_empty(),
        }
    }

    /// Whether the gate needs to know to which of this machine's addresses a peer connected.
    #[must_use]
    pub fn wants_local_address(&self) -> bool {
        self.wildcard
    }

    /// Lets a request in or says why not. `length` is whether the raw head had a `Content-Length` (`None`: not known),
    /// `local` the address that the peer connected to, if it was asked for.
    ///
    /// # Errors
    /// The answer for the client. It has been counted.
    pub fn check<B>(
        &self,
        request: &Request<B>,
        length: Option<bool>,
        local: Option<IpAddr>,
        metrics: &Metrics,
    ) -> Result<Passage, Refusal> {
        let headers = request.headers();
        let malformed = |detail: &str| {
            metrics.gate_refused(GateRefusal::Malformed);
            Refusal::new(Code::BadRequest, detail).closing()
        };
        if headers.contains_key(TRANSFER_ENCODING) && length != Some(false) {
            // A chunked request behind another one in the same packet was not looked at: the same answer, to be sure.
            return Err(malformed(
                "a request with Transfer-Encoding must not have Content-Length or be pipelined",
            ));
        }
        let host = match sole(headers, &HOST) {
            Sole::One(host) => host,
            Sole::None => return Err(malformed("the Host header is missing")),
            Sole::Many => return Err(malformed("there is more than one Host header")),
        };
        if request
            .uri()
            .authority()
            .is_some_and(|authority| authority.as_str().as_bytes() != host.as_bytes())
        {
            return Err(malformed(
                "the request's target names another host than the Host header",
            ));
        }
        if request
            .uri()
            .path_and_query()
            .is_some_and(|target| target.as_str().len() > self.url_bytes)
        {
            metrics.refused(Limit::UrlBytes);
            let detail = format!(
                "path and query have more than {} bytes (limits.url_bytes)",
                self.url_bytes
            );
            return Err(Refusal::new(Code::TooLarge, detail).with_status(414).closing());
        }
        if !self.host_allowed(host.as_bytes(), local) {
            metrics.gate_refused(GateRefusal::Host);
            let shown = String::from_utf8_lossy(&host.as_bytes()[..host.len().min(128)]).into_owned();
            let detail = format!("this server does not answer to the host {shown:?} (server.allowed_hosts)");
            return Err(Refusal::new(Code::HostRefused, detail));
        }
        let origin = match sole(headers, &ORIGIN) {
            Sole::None => return Ok(Passage::Plain),
            Sole::One(origin) => origin,
            Sole::Many => return Err(self.origin_refused(metrics)),
        };
        if same_origin(origin.as_bytes(), host.as_bytes()) {
            return Ok(Passage::Plain);
        }
        if self
            .origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes())
        {
            return Ok(Passage::CrossOrigin(origin.clone()));
        }
        Err(self.origin_refused(metrics))
    }

    /// Whether a page of elsewhere may read an answer to a request that brought a cookie: only where one is looked at.
    #[must_use]
    pub fn takes_cookie<B>(&self, request: &Request<B>) -> bool {
        self.cookies && request.method() == Method::GET && request.uri().path() == "/v1/events"
    }

    fn origin_refused(&self, metrics: &Metrics) -> Refusal {
        metrics.gate_refused(GateRefusal::Origin);
        Refusal::new(
            Code::OriginRefused,
            "pages of this origin may not use this server (server.allowed_origins)",
        )
    }

    fn host_allowed(&self, host: &[u8], local: Option<IpAddr>) -> bool {
        let name = match host.iter().rposition(|byte| *byte == b':') {
            // The last colon of a bare IPv6 literal is inside the brackets.
            Some(colon) if !host[colon..].contains(&b']') => {
                if !port(&host[colon + 1..]) {
                    return false;
                }
                &host[..colon]
            }
            _ => host,
        };
        let listed = |allowed: &String| {
            name.eq_ignore_ascii_case(allowed.as_bytes()) || host.eq_ignore_ascii_case(allowed.as_bytes())
        };
        self.hosts.iter().any(listed) || local.is_some_and(|local| name == literal(local).as_bytes())
    }

    /// The answer to a browser that asks first whether a listed origin may send a request.
    #[must_use]
    pub fn preflight<B>(request: &Request<B>, passage: &Passage) -> Option<Response> {
        let Passage::CrossOrigin(_) = passage else { return None };
        if request.method() != Method::OPTIONS || !request.headers().contains_key("access-control-request-method") {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, cache-control, content-type, idempotency-key, last-event-id"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(response)
    }
}

impl Passage {
    /// Adds to an answer what browsers need to know.
    pub fn finish(self, headers: &mut HeaderMap, takes_cookie: bool) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Self::CrossOrigin(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if takes_cookie {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("retry-after"),
            );
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

enum Sole<'a> {
    None,
    One(&'a HeaderValue),
    Many,
}

fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Sole<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Sole::None,
        (Some(value), None) => Sole::One(value),
        (Some(_), Some(_)) => Sole::Many,
    }
}

fn same_origin(origin: &[u8], host: &[u8]) -> bool {
    let rest = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    rest.is_some_and(|rest| rest == host)
}

fn port(text: &[u8]) -> bool {
    (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

/// An address as it stands in a URL.
fn literal(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let mut config = Config::default();
        config.server.allowed_hosts = vec!["Tidings.example".to_owned(), "fixed.example:8443".to_owned()];
        config.server.allowed_origins = vec![
            "https://good.example".to_owned(),
            "https://port.example:8443".to_owned(),
        ];
        Gate::new(&config, "192.0.2.7:7400".parse().expect("an address"))
    }

    fn ask(headers: &[(&str, &str)]) -> Result<Passage, Code> {
        ask_target("/v1/publish", headers)
    }

    fn ask_target(target: &str, headers: &[(&str, &str)]) -> Result<Passage, Code> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let metrics = Metrics::new(&Config::default());
        gate()
            .check(&request, None, None, &metrics)
            .map_err(|refusal| refusal.problem().code)
    }

    #[test]
    fn our_own_names_are_let_in_on_any_port() {
        for host in [
            "localhost",
            "localhost:7400",
            "LOCALHOST:9",
            "127.0.0.1",
            "127.0.0.1:7400",
            "[::1]",
            "[::1]:7400",
            "192.0.2.7:7400",
            "tidings.example",
            "tidings.example:1",
            "fixed.example:8443",
        ] {
            assert_eq!(ask(&[("host", host)]), Ok(Passage::Plain), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "",
            "evil.example",
            "localhost.",
            "localhost.evil.example",
            "xlocalhost",
            "localhost:",
            "localhost:7400:1",
            "localhost:+1",
            "localhost:123456",
            "user@localhost",
            "127.0.0.1.",
            "127.1",
            "[::1",
            "::1",
            "[::1]x",
            "[::2]",
            "192.0.2.8",
            "fixed.example",
            "fixed.example:8444",
            "tidings.example.evil.example",
        ] {
            assert_eq!(ask(&[("host", host)]), Err(Code::HostRefused), "{host}");
        }
    }

    #[test]
    fn the_address_connected_to_is_a_name_of_ours_where_we_listen_on_all() {
        let gate = Gate::new(&Config::default(), "0.0.0.0:7400".parse().expect("an address"));
        let request = |host: &str| Request::builder().header(HOST, host).body(()).expect("a request");
        let metrics = Metrics::new(&Config::default());
        let local = Some("10.1.2.3".parse().expect("an address"));
        assert!(gate.wants_local_address());
        assert!(gate.check(&request("10.1.2.3:7400"), None, local, &metrics).is_ok());
        assert!(gate.check(&request("10.1.2.4:7400"), None, local, &metrics).is_err());
    }

    #[test]
    fn a_request_without_host_or_with_two_is_malformed() {
        assert_eq!(ask(&[]), Err(Code::BadRequest));
        assert_eq!(
            ask(&[("host", "localhost"), ("host", "localhost")]),
            Err(Code::BadRequest)
        );
    }

    #[test]
    fn a_target_that_names_another_host_is_malformed() {
        assert_eq!(
            ask_target("http://evil.example/x", &[("host", "localhost")]),
            Err(Code::BadRequest)
        );
        assert_eq!(
            ask_target("http://localhost/x", &[("host", "localhost")]),
            Ok(Passage::Plain)
        );
    }

    #[test]
    fn a_page_of_our_own_or_of_a_listed_origin_is_let_in() {
        for origin in ["http://localhost:7400", "https://localhost:7400"] {
            assert_eq!(
                ask(&[("host", "localhost:7400"), ("origin", origin)]),
                Ok(Passage::Plain),
                "{origin}"
            );
        }
        for origin in ["https://good.example", "https://port.example:8443"] {
            let passage = Passage::CrossOrigin(HeaderValue::from_str(origin).expect("a value"));
            assert_eq!(
                ask(&[("host", "localhost:7400"), ("origin", origin)]),
                Ok(passage),
                "{origin}"
            );
        }
    }

    #[test]
    fn every_other_page_is_refused() {
        for origin in [
            "null",
            "",
            "https://evil.example",
            "https://good.example.evil.com",
            "https://goodXexample",
            "http://good.example",
            "https://GOOD.example",
            "HTTPS://good.example",
            "https://good.example.",
            "https://good.example:443",
            "https://good.example/",
            "https://port.example",
            "https://port.example:8444",
            "https://port.example:84430",
            "https://evil.example@good.example",
            "https://xn--good-xyz.example",
            "https://[::1]:7400",
            "http://localhost",
            "http://localhost:74000",
            "http://localhost:7400.evil.example",
            "ftp://localhost:7400",
            "localhost:7400",
            "http://LOCALHOST:7400",
            "http://localhost:7400 ",
            "http://127.0.0.1:7400",
        ] {
            assert_eq!(
                ask(&[("host", "localhost:7400"), ("origin", origin)]),
                Err(Code::OriginRefused),
                "{origin:?}"
            );
        }
        let two = [
            ("host", "localhost"),
            ("origin", "http://localhost"),
            ("origin", "http://localhost"),
        ];
        assert_eq!(ask(&two), Err(Code::OriginRefused));
    }

    #[test]
    fn a_length_beside_transfer_encoding_is_malformed() {
        let request = Request::builder()
            .header(HOST, "localhost")
            .header(TRANSFER_ENCODING, "chunked")
            .body(());
        let request = request.expect("a request");
        let metrics = Metrics::new(&Config::default());
        for (length, fine) in [(Some(true), false), (None, false), (Some(false), true)] {
            assert_eq!(
                gate().check(&request, length, None, &metrics).is_ok(),
                fine,
                "{length:?}"
            );
        }
    }

    #[test]
    fn a_target_may_have_4096_bytes_and_not_one_more() {
        let host = [("host", "localhost")];
        assert_eq!(ask_target(&format!("/{}", "a".repeat(4095)), &host), Ok(Passage::Plain));
        assert_eq!(
            ask_target(&format!("/{}", "a".repeat(4096)), &host),
            Err(Code::TooLarge)
        );
    }

    #[test]
    fn a_preflight_is_answered_for_listed_origins_only() {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .header("access-control-request-method", "POST")
            .body(())
            .expect("a request");
        assert!(Gate::preflight(&request, &Passage::Plain).is_none());
        let passage = Passage::CrossOrigin(HeaderValue::from_static("https://good.example"));
        let mut response = Gate::preflight(&request, &passage).expect("an answer");
        passage.finish(response.headers_mut(), false);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "https://good.example"
        );
    }
}
