//! `/v1/tickets`, `/v1/revocations` and `/v1/reload`; and which route asks for what.

use super::{Auth, Caller, Credential, Denial, RevokeFailure, now_s};
use crate::control::ProposeError;
use crate::problem::Refusal;
use crate::server::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::{Code, Problem};
use tidings_router::access::revocations::{MOST_REVOCATIONS, RevokeError, Target, Whom};
use tidings_router::control::command::{Command, Refusal as Unchanged};

/// Bytes of the body of a revocation.
const MOST_BODY_BYTES: usize = 4 * 1024;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/v1/tickets", post(ticket))
}

/// Those of operators.
pub(crate) fn operators_routes() -> Router<App> {
    Router::new()
        .route("/v1/revocations", get(list).post(revoke))
        .route("/v1/reload", post(reload))
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing: it says nothing about anybody, or finds out for itself.
    Nothing,
    /// To be somebody.
    Identity,
    /// To be an operator.
    Admin,
}

/// What the route of this path asks. Whatever is not named here is an operator's.
pub(crate) fn asks(path: &str) -> Asks {
    const OPEN: [&str; 7] = [
        "/",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/tidings.js",
        "/tidings.d.ts",
        // It authenticates in its first message, or says in a close code what is wrong.
        "/v1/ws",
    ];
    const PAGES: [&str; 3] = ["/docs", "/example", "/console"];
    const SOMEBODY: [&str; 6] = [
        "/v1/publish",
        "/v1/object",
        "/v1/poll",
        "/v1/sessions",
        "/v1/events",
        "/v1/tickets",
    ];
    let below = |page: &str| {
        path.strip_prefix(page)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if OPEN.contains(&path) || PAGES.iter().any(|page| below(page)) {
        Asks::Nothing
    } else if SOMEBODY.contains(&path) {
        Asks::Identity
    } else {
        Asks::Admin
    }
}

/// Who makes the request, if the route may be asked by them.
pub(crate) fn admit<B>(auth: Option<&Auth>, request: &http::Request<B>) -> Result<Caller, Refusal> {
    let Some(auth) = auth else { return Ok(Caller::Anyone) };
    let asks = asks(request.uri().path());
    let ticket = ticket_of(request.uri(), request.headers());
    let credential = Credential::of_page(auth.cookie(), request);
    if asks == Asks::Nothing && ticket.is_none() && credential == Credential::Missing {
        return Ok(Caller::Nobody(Denial::Missing));
    }
    let caller = match ticket {
        Some(ticket) => {
            let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
            let proof = last.and_then(|id| id.split_once('.')).map(|(_, proof)| proof);
            Caller::from(auth.judge_ticket(&ticket, proof))
        }
        None => Caller::of(Some(auth), request),
    };
    match (asks, &caller) {
        (Asks::Nothing, _) => Ok(caller),
        (_, Caller::Nobody(denial)) => Err(denial.refusal()),
        (Asks::Admin, caller) if !caller.is_admin() => Err(Refusal::new(
            Code::Forbidden,
            "this is for operators: `admin` is not granted to you",
        )),
        _ => Ok(caller),
    }
}

/// The ticket of a request for an event stream that brings nothing better.
pub(crate) fn ticket_of(uri: &http::Uri, headers: &http::HeaderMap) -> Option<String> {
    if uri.path() != "/v1/events" || Credential::of(headers) != Credential::Missing {
        return None;
    }
    let query = uri.query()?;
    let mut tickets = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "ticket");
    let first = tickets.next().map(|(_, value)| value.into_owned());
    // Two are none.
    first.filter(|_| tickets.next().is_none())
}

#[derive(Serialize)]
struct Ticket {
    ticket: String,
    open_within_ms: u64,
}

fn no_auth() -> Refusal {
    Refusal::new(Code::NotFound, "nobody has to authenticate here (auth.policy_file)")
}

async fn ticket(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let auth = app.node.auth.as_deref().ok_or_else(no_auth)?;
    let Credential::Bearer(credential) = Credential::of(request.headers()) else {
        return Err(Denial::Missing.refusal());
    };
    let answer = Ticket {
        ticket: auth.ticket(credential)?,
        open_within_ms: app.node.config.auth.ticket_ms,
    };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

#[derive(Serialize)]
struct Revoked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    everybody: bool,
    issued_to: u64,
    until: u64,
}

#[derive(Serialize)]
struct List<'a> {
    revocations: Vec<Revoked<'a>>,
}

async fn list(State(app): State<App>) -> Result<Response, Refusal> {
    let auth = app.node.auth.as_deref().ok_or_else(no_auth)?;
    let revocations = auth.revocations();
    let all = revocations.iter().map(|(target, bounds)| {
        let (subject, token) = match &target.whom {
            Whom::Everybody => (None, None),
            Whom::Subject(name) => (Some(&**name), None),
            Whom::Token(id) => (None, Some(&**id)),
        };
        Revoked {
            issuer: target.issuer.as_deref(),
            subject,
            token,
            everybody: target.whom == Whom::Everybody,
            issued_to: bounds.issued_to_s,
            until: bounds.until_s,
        }
    });
    let list = List {
        revocations: all.collect(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(list)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    subject: Option<String>,
    token: Option<String>,
    #[serde(default)]
    everybody: bool,
    issuer: Option<String>,
    /// Seconds since the Unix epoch.
    issued_to: Option<u64>,
}

impl Revoke {
    fn target(self) -> Result<Target, Problem> {
        let whom = match (self.subject, self.token, self.everybody) {
            (Some(subject), None, false) => Whom::Subject(subject.into()),
            (None, Some(token), false) => Whom::Token(token.into()),
            (None, None, true) => Whom::Everybody,
            _ => {
                let detail = "name one of `subject`, `token` (its `jti`) and `everybody`: true";
                return Err(Problem::new(Code::BadRequest, detail));
            }
        };
        Ok(Target {
            issuer: self.issuer.map(Into::into),
            whom,
        })
    }
}

async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: http::Request<Body>,
) -> Result<StatusCode, Refusal> {
    let auth = app.node.auth.as_ref().ok_or_else(no_auth)?;
    let asked: Revoke = read(&app, request).await?;
    let now_s = now_s();
    let issued_to_s = asked.issued_to.unwrap_or(now_s);
    // A time far ahead would refuse tokens that nobody has made yet, and could not be taken back.
    if issued_to_s > now_s + app.node.config.auth.leeway_s {
        return Err(Problem::new(Code::InvalidField, "`issued_to` is not in the future").into());
    }
    let target = asked.target()?;
    let by = caller.subject().map_or("", |subject| &subject.name).to_owned();
    let kind = match target.whom {
        Whom::Everybody => "everybody",
        Whom::Subject(_) => "subject",
        Whom::Token(_) => "token",
    };
    let outcome = match &app.node.control {
        None => auth.revoke_here(target, issued_to_s).or_else(already),
        Some(control) => {
            let bounds = auth.bounds(issued_to_s);
            return propose(control, Command::Revoke { target, bounds, now_s })
                .await
                .inspect(|_| {
                    tracing::info!(by, kind, "tokens were revoked");
                });
        }
    };
    match outcome {
        Ok(()) => {
            tracing::info!(by, kind, "tokens were revoked");
            Ok(StatusCode::NO_CONTENT)
        }
        Err(RevokeFailure::Refused(error)) => Err(refused(error)),
        Err(failure @ RevokeFailure::NotKept(_)) => Err(Refusal::new(Code::StorageUnavailable, failure.to_string())),
    }
}

/// To revoke what is revoked is no failure.
fn already(failure: RevokeFailure) -> Result<(), RevokeFailure> {
    match failure {
        RevokeFailure::Refused(RevokeError::Same) => Ok(()),
        other => Err(other),
    }
}

fn refused(error: RevokeError) -> Refusal {
    match error {
        RevokeError::Full => Refusal::new(Code::TooMany, error.to_string()),
        RevokeError::Name | RevokeError::Same => Refusal::new(Code::InvalidField, error.to_string()),
    }
}

async fn propose(control: &crate::control::Handle, command: Command) -> Result<StatusCode, Refusal> {
    match control.propose(command).await {
        Ok(()) | Err(ProposeError::Changed(Unchanged::Same)) => Ok(StatusCode::NO_CONTENT),
        Err(ProposeError::Changed(Unchanged::Limit)) => {
            let detail = format!("{MOST_REVOCATIONS} revocations are in force: revoke everybody's instead");
            Err(Refusal::new(Code::TooMany, detail))
        }
        Err(error @ (ProposeError::Changed(_) | ProposeError::Refused(_))) => {
            Err(Refusal::new(Code::InvalidField, error.to_string()))
        }
        Err(error @ ProposeError::NoLeader(_)) => Err(Refusal::new(Code::NoOwner, error.to_string())),
        Err(error @ ProposeError::Unknown(_)) => Err(Refusal::new(Code::OutcomeUnknown, error.to_string())),
    }
}

async fn reload(State(app): State<App>) -> Result<Response, Refusal> {
    let node = Arc::clone(&app.node);
    let read = tokio::task::spawn_blocking(move || node.reload()).await;
    match read {
        Ok(Ok(done)) => Ok(([(CACHE_CONTROL, "no-store")], Json(done)).into_response()),
        Ok(Err(why)) => Err(Refusal::new(Code::BadRequest, format!("nothing was changed: {why}"))),
        Err(_) => Err(Refusal::new(Code::Internal, "reading failed; nothing was changed")),
    }
}

async fn read<T: for<'de> Deserialize<'de>>(app: &App, request: http::Request<Body>) -> Result<T, Refusal> {
    let within = Duration::from_millis(app.node.live().limits.body_idle_ms);
    let collect = Limited::new(request.into_body(), MOST_BODY_BYTES).collect();
    let body = match tokio::time::timeout(within, collect).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body has at most {MOST_BODY_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, detail).closing());
        }
        Ok(Err(_)) => return Err(Refusal::new(Code::BadRequest, "the body did not arrive whole").closing()),
        Err(_) => return Err(Refusal::new(Code::RequestTimeout, "the body did not arrive in time").closing()),
    };
    serde_json::from_slice(&body).map_err(|error| Refusal::new(Code::BadRequest, format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_an_operators() {
        for path in [
            "/metrics",
            "/v1/cluster",
            "/v1/connections",
            "/v1/explain",
            "/v1/reload",
            "/v1/revocations",
            "/x",
            "",
            "/v1/publish/",
            "/v1/poll/x",
            "/V1/poll",
            "/docsx",
            "//healthz",
            "/v1/cluster/move",
            "/debug",
        ] {
            assert_eq!(asks(path), Asks::Admin, "{path}");
        }
        for path in [
            "/v1/publish",
            "/v1/object",
            "/v1/poll",
            "/v1/sessions",
            "/v1/events",
            "/v1/tickets",
        ] {
            assert_eq!(asks(path), Asks::Identity, "{path}");
        }
        for path in [
            "/healthz",
            "/readyz",
            "/docs",
            "/docs/x.css",
            "/v1/ws",
            "/openapi.json",
            "/tidings.js",
        ] {
            assert_eq!(asks(path), Asks::Nothing, "{path}");
        }
    }

    #[test]
    fn a_revocation_names_exactly_one_thing() {
        let target = |text: &str| {
            serde_json::from_str::<Revoke>(text)
                .map_err(drop)
                .and_then(|r| r.target().map_err(drop))
        };
        for good in [
            r#"{"subject":"a"}"#,
            r#"{"token":"t","issuer":"i"}"#,
            r#"{"everybody":true,"issued_to":5}"#,
        ] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in [
            "{}",
            r#"{"everybody":false}"#,
            r#"{"subject":"a","token":"t"}"#,
            r#"{"subject":"a","everybody":true}"#,
            r#"{"subjekt":"a"}"#,
            r#"{"subject":1}"#,
            r#"{"issued_to":-1,"everybody":true}"#,
            r#"{"issued_to":1.5,"everybody":true}"#,
            "[]",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
