//! Failures as HTTP answers: RFC 9457 problem documents with a stable `code` and `retryable`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tidings_protocol::Problem;
use tidings_protocol::error::{Applied, Code};

/// A failure on its way to becoming an answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    problem: Problem,
    status: u16,
    applied: Option<Applied>,
    retry_after_s: Option<u32>,
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

    /// Says when to come back, in seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
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
            retry_after_s: None,
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
        let retry_after_s = self.retry_after_s.or_else(|| {
            matches!(
                code,
                Code::TooMany
                    | Code::Overloaded
                    | Code::Draining
                    | Code::NoOwner
                    | Code::NoLeader
                    | Code::StorageUnavailable
            )
            .then_some(1)
        });
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
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

    #[tokio::test]
    async fn too_many_says_when_to_come_back() {
        assert_eq!(
            Refusal::new(Code::TooMany, "").into_response().headers()[RETRY_AFTER],
            "1"
        );
    }
}
