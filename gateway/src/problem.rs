//! Failures as HTTP answers: RFC 9457 problem documents with a stable `code` and `retryable`.

use crate::jitter;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tidings_protocol::error::{Applied, Code};
use tidings_protocol::{Problem, codec};

/// A failure on its way to becoming an answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    problem: Problem,
    status: u16,
    applied: Option<Applied>,
    close: bool,
    challenge: Option<&'static str>,
}

impl Refusal {
    /// With the status that belongs to the problem's code.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::from(Problem::new(code, detail))
    }

    /// With another status than the code's own, where HTTP has a finer one.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Says whether the publish may have happened.
    #[must_use]
    pub fn applied(mut self, applied: Applied) -> Self {
        self.applied = Some(applied);
        self
    }

    /// Ends the connection after the answer: what follows on it cannot be trusted, or will not be read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// [`Self::closing`] if the request had a body that is left unread.
    #[must_use]
    pub fn closing_if(mut self, unread: bool) -> Self {
        self.close |= unread;
        self
    }

    /// Says how to authenticate (`WWW-Authenticate`).
    #[must_use]
    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Adds to the explanation.
    #[must_use]
    pub fn adding(mut self, more: &str) -> Self {
        self.problem.detail.push_str(more);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What a request's query says; where it says something else, the refusal names it.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned, S: Sync> axum::extract::FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Refusal> {
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        let refused = |error: axum::extract::rejection::QueryRejection| {
            Problem::new(tidings_protocol::Code::InvalidField, error.body_text()).into()
        };
        read.map(|axum::extract::Query(asked)| Self(asked)).map_err(refused)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let status = problem.code.status();
        Self {
            status,
            problem,
            applied: None,
            close: false,
            challenge: None,
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Applied>,
}

impl Refusal {
    /// As of HTTP.
    #[must_use]
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The document alone, as JSON.
    #[must_use]
    pub fn document(&self) -> Vec<u8> {
        let code = self.problem.code;
        let document = Document {
            r#type: format!("urn:tidings:problem:{code}"),
            title: code.title(),
            status: self.status,
            detail: &self.problem.detail,
            code: code.as_str(),
            retryable: code.retryable(),
            applied: self.applied,
        };
        // A struct of texts and numbers always becomes JSON.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.problem.code;
        let body = self.document();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self.status, 429 | 503) {
            headers.insert(RETRY_AFTER, HeaderValue::from(jitter::wait_s(code)));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(Passing(code));
        response
    }
}

/// Why an answer refuses; in its extensions.
#[derive(Clone, Copy, Debug)]
struct Passing(Code);

/// Whether an EventSource asks.
#[must_use]
pub(crate) fn is_event_source<B>(request: &http::Request<B>) -> bool {
    let wants = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    request.method() == http::Method::GET
        && request.uri().path() == "/v1/events"
        && request.headers().get(ACCEPT).is_some_and(wants)
}

/// What will pass, said to an EventSource in a stream that ends: on any status but 200 it would give up for ever.
#[must_use]
pub(crate) fn in_a_stream(refused: Response) -> Response {
    let Some(Passing(code)) = refused.extensions().get().copied() else {
        return refused;
    };
    if !refused.headers().contains_key(RETRY_AFTER) {
        return refused;
    }
    let (mut body, after_ms) = (Vec::new(), jitter::wait_ms(code));
    codec::retry(&mut body, after_ms);
    codec::reconnect(codec::Encoding::EventStream, &mut body, after_ms, code.as_str(), &[]);
    let mut response = Response::new(Body::from(body));
    // Who may read it, above all.
    *response.headers_mut() = refused.headers().clone();
    response.headers_mut().remove(RETRY_AFTER);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The answer for a path that is no route.
pub async fn not_found(uri: http::Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("no route {}", uri.path()))
}

/// The answer for a route that has not this method.
pub async fn method_not_allowed(method: http::Method, uri: http::Uri) -> Refusal {
    Refusal::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_refusal_is_a_problem_document() {
        let response = Refusal::new(Code::OutcomeUnknown, "no answer")
            .applied(Applied::Unknown)
            .into_response();
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:tidings:problem:outcome_unknown", "title": "Outcome unknown", "status": 504,
                "detail": "no answer", "code": "outcome_unknown", "retryable": true, "applied": "unknown",
            })
        );
    }

    #[test]
    fn whatever_will_pass_says_when_to_come_back_and_nothing_else_does() {
        for code in Code::ALL {
            let response = Refusal::new(*code, "").into_response();
            let after = response
                .headers()
                .get(RETRY_AFTER)
                .map(|value| value.to_str().expect("text"));
            match code.status() {
                429 | 503 => assert!(matches!(after, Some("1" | "2" | "3")), "{code}: {after:?}"),
                _ => assert_eq!(after, None, "{code}"),
            }
        }
    }

    #[tokio::test]
    async fn an_event_source_is_told_in_its_stream_what_will_pass_and_by_status_what_will_not() {
        let told = in_a_stream(Refusal::new(Code::TooMany, "").closing().into_response());
        assert_eq!(
            (told.status().as_u16(), told.headers()[CONTENT_TYPE].as_bytes()),
            (200, &b"text/event-stream"[..])
        );
        assert_eq!(told.headers()[CONNECTION], "close");
        let body = told.into_body().collect().await.expect("a body").to_bytes();
        let text = std::str::from_utf8(&body).expect("text");
        let ms = text
            .strip_prefix("retry: ")
            .and_then(|rest| rest.split_once('\n'))
            .expect("a wait")
            .0;
        assert_eq!(
            text,
            format!("retry: {ms}\n\nevent: reconnect\ndata: {{\"after_ms\":{ms},\"reason\":\"too_many\"}}\n\n")
        );
        assert_eq!(
            in_a_stream(Refusal::new(Code::Unauthenticated, "").into_response()).status(),
            401
        );
        assert_eq!(in_a_stream(Response::new(Body::empty())).status(), 200);
        let asks = |method: &str, path: &str, accept: &str| {
            let request = http::Request::builder().method(method).uri(path).header(ACCEPT, accept);
            is_event_source(&request.body(()).expect("a request"))
        };
        assert!(asks("GET", "/v1/events?object=a", "text/event-stream"));
        assert!(!asks("GET", "/v1/events?object=a", "*/*") && !asks("GET", "/v1/poll", "text/event-stream"));
        assert!(!asks("POST", "/v1/events", "text/event-stream"));
    }
}
