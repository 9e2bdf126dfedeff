//! Who makes a request, and what it brought to prove it.

use super::{Auth, Denial};
use crate::telemetry::Metrics;
use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderMap, Request};
use std::sync::Arc;
use tidings_protocol::client::EntryResult;
use tidings_protocol::{Code, Problem};
use tidings_router::access::{Action, Identity, Subject};

/// The beginning of an entry of `Sec-WebSocket-Protocol` that carries a token.
pub(crate) const SUBPROTOCOL: &str = "tidings.token.";

/// Who makes a request; in the extensions of every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody has to say who they are here.
    Anyone,
    /// This one.
    Known(Arc<Identity>),
    /// Somebody who has not, or not well, said so.
    Nobody(Denial),
}

/// What a request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing.
    Missing,
    /// A token or API key.
    Bearer(&'a str),
    /// What is not understood.
    Unreadable,
}

impl<'a> Credential<'a> {
    /// Of the headers of a request.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Missing;
        };
        let (Ok(text), None) = (value.to_str(), values.next()) else {
            return Self::Unreadable;
        };
        match text.split_once(' ') {
            Some((scheme, token))
                if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ') =>
            {
                Self::Bearer(token)
            }
            _ => Self::Unreadable,
        }
    }
}

impl<'a> Credential<'a> {
    /// What a page's request brings: as any other, or the cookie of this name (empty: none) where a browser can send nothing
    /// else. A cookie comes by itself, whoever made the browser ask; so it counts only beside an `Origin`, which the gate
    /// has let in, and only for listening.
    #[must_use]
    pub fn of_page<B>(cookie: &str, request: &'a Request<B>) -> Self {
        let credential = Self::of(request.headers());
        let listens = request.method() == http::Method::GET && matches!(request.uri().path(), "/v1/ws" | "/v1/events");
        if credential != Self::Missing || cookie.is_empty() || !listens || !request.headers().contains_key(ORIGIN) {
            return credential;
        }
        let values = request.headers().get_all(COOKIE).iter();
        let pairs = values.flat_map(|value| value.to_str().unwrap_or_default().split(';'));
        let mut named = pairs.filter_map(|pair| pair.trim().split_once('=').filter(|(name, _)| *name == cookie));
        match (named.next(), named.next()) {
            (None, _) => Self::Missing,
            // An API key has no dot and has no place in a browser. Two of one name: another host of the site set one of them.
            (Some((_, token)), None) if token.contains('.') => Self::Bearer(token),
            _ => Self::Unreadable,
        }
    }
}

impl Caller {
    /// Who makes this request.
    #[must_use]
    pub fn of<B>(auth: Option<&Auth>, request: &Request<B>) -> Self {
        let Some(auth) = auth else { return Self::Anyone };
        let judged = match Credential::of_page(auth.cookie(), request) {
            Credential::Bearer(credential) => auth.judge(credential),
            Credential::Unreadable => Err(Denial::Unreadable),
            Credential::Missing => Err(Denial::Missing),
        };
        Self::from(judged)
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Known(identity) => Some(identity),
            Self::Anyone | Self::Nobody(_) => None,
        }
    }

    /// To whom what it makes belongs: a session is only for the subject that made it.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.identity().map(|identity| &identity.subject)
    }

    /// Whether what it brought still counts, while a request of it goes on.
    ///
    /// # Errors
    /// Says why not.
    pub fn still_counts(&self, auth: Option<&Auth>) -> Result<(), Denial> {
        match (self, auth) {
            (Self::Known(identity), Some(auth)) => auth.goes_on(identity),
            _ => Ok(()),
        }
    }

    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, action: Action, object: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Known(identity) => identity.allows(action, object),
            Self::Nobody(_) => false,
        }
    }

    /// Whether it may do what operators do.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Known(identity) => identity.is_admin(),
            Self::Nobody(_) => false,
        }
    }

    /// Refuses each entry that it may not watch, in its place.
    #[must_use]
    pub fn sift(&self, entries: Vec<EntryResult>, metrics: &Metrics) -> Vec<EntryResult> {
        if matches!(self, Self::Anyone) {
            return entries;
        }
        let sift = |entry: EntryResult| {
            let entry = entry?;
            match self.check(Action::Subscribe, &entry.object, metrics) {
                Ok(()) => Ok(entry),
                Err(problem) => Err((entry.object.into(), problem)),
            }
        };
        entries.into_iter().map(sift).collect()
    }

    /// Refuses what it may not do, in the same words whether the object exists or not.
    ///
    /// # Errors
    /// The refusal. It has been counted.
    pub fn check(&self, action: Action, object: &str, metrics: &Metrics) -> Result<(), Problem> {
        if self.may(action, object) {
            return Ok(());
        }
        metrics.forbidden.inc();
        Err(forbidden(action))
    }
}

/// What somebody is told who may not do something with an object.
#[must_use]
pub(crate) fn forbidden(action: Action) -> Problem {
    let what = match action {
        Action::Subscribe => "watching this object is not granted to you",
        Action::Publish => "publishing this object is not granted to you",
    };
    Problem::new(Code::Forbidden, what)
}

impl From<Result<Arc<Identity>, Denial>> for Caller {
    fn from(judged: Result<Arc<Identity>, Denial>) -> Self {
        match judged {
            Ok(identity) => Self::Known(identity),
            Err(denial) => Self::Nobody(denial),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "__Host-tidings";

    fn of(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        format!("{:?}", Credential::of_page(NAME, &request.body(()).expect("a request")))
    }

    const ORIGIN: (&str, &str) = ("origin", "https://app.example");
    const COOKIE: (&str, &str) = ("cookie", "a=b; __Host-tidings=x.y.z; c=d");

    #[test]
    fn a_cookie_counts_for_listening_beside_an_origin() {
        for path in ["/v1/ws", "/v1/events?object=a"] {
            assert_eq!(of("GET", path, &[ORIGIN, COOKIE]), "Bearer(\"x.y.z\")", "{path}");
        }
        let apart = [ORIGIN, ("cookie", "a=b"), ("cookie", "__Host-tidings=x.y.z")];
        assert_eq!(of("GET", "/v1/ws", &apart), "Bearer(\"x.y.z\")");
    }

    #[test]
    fn a_cookie_counts_for_nothing_else() {
        for (method, path) in [
            ("POST", "/v1/publish"),
            ("GET", "/v1/object"),
            ("POST", "/v1/events"),
            ("GET", "/v1/poll"),
            ("POST", "/v1/tickets"),
            ("GET", "/metrics"),
            ("POST", "/v1/ws"),
            ("GET", "/v1/ws/"),
        ] {
            assert_eq!(of(method, path, &[ORIGIN, COOKIE]), "Missing", "{method} {path}");
        }
        assert_eq!(of("GET", "/v1/ws", &[COOKIE]), "Missing", "without an origin");
        let better = of("GET", "/v1/ws", &[ORIGIN, COOKIE, ("authorization", "Bearer h.e.r")]);
        assert_eq!(better, "Bearer(\"h.e.r\")");
        let worse = of("GET", "/v1/ws", &[ORIGIN, COOKIE, ("authorization", "Basic x")]);
        assert_eq!(worse, "Unreadable");
    }

    #[test]
    fn what_is_no_single_token_in_the_cookie_is_not_read() {
        for (cookie, expected) in [
            ("__Host-tidings=key_without_a_dot", "Unreadable"),
            ("__Host-tidings=a.b.c; __Host-tidings=d.e.f", "Unreadable"),
            ("__Host-tidings=", "Unreadable"),
            ("__Host-tidings", "Missing"),
            ("__host-tidings=a.b.c", "Missing"),
            ("x__Host-tidings=a.b.c", "Missing"),
            ("tidings=a.b.c", "Missing"),
            ("", "Missing"),
        ] {
            assert_eq!(of("GET", "/v1/ws", &[ORIGIN, ("cookie", cookie)]), expected, "{cookie}");
        }
        let request = Request::builder()
            .uri("/v1/ws")
            .header("cookie", "=a.b.c")
            .header("origin", "https://a");
        let request = request.body(()).expect("a request");
        assert_eq!(Credential::of_page("", &request), Credential::Missing, "off");
    }
}
