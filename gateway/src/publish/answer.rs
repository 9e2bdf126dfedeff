//! What publishers are told, in JSON or MessagePack.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;
use std::io::Write as _;
use tidings_protocol::error::Applied;
use tidings_protocol::{Epoch, Problem, ShardId, Version};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    MessagePack,
}

impl Format {
    /// As `Accept` asks; where it does not care, as the request came.
    pub(super) fn of(headers: &HeaderMap, packed_request: bool) -> Self {
        let accept = headers
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        if accept.contains("msgpack") || (packed_request && !accept.contains("application/json")) {
            Self::MessagePack
        } else {
            Self::Json
        }
    }

    pub(super) fn response(self, answer: &impl Serialize) -> Response {
        // Structs of texts and numbers always become JSON and MessagePack.
        let body = match self {
            Self::Json => serde_json::to_vec(answer).unwrap_or_default(),
            Self::MessagePack => rmp_serde::to_vec_named(answer).unwrap_or_default(),
        };
        self.written(body)
    }

    /// The commonest answer of all.
    pub(super) fn version(self, version: Version) -> Response {
        match self {
            Self::Json => {
                let mut body = Vec::with_capacity(40);
                _ = write!(body, "{{\"version\":{version}}}");
                self.written(body)
            }
            Self::MessagePack => self.response(&Told {
                version: Some(version),
                ..Told::default()
            }),
        }
    }

    fn written(self, body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        let media = match self {
            Self::Json => "application/json",
            Self::MessagePack => "application/msgpack",
        };
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response
    }
}

/// What became of one change that was not refused.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Told {
    pub(super) version: Option<Version>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shard: Option<ShardId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<Epoch>,
}

/// What became of one change of several.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Told(Told),
    Refused { error: ChangeError },
}

/// Why one change of several was refused.
#[derive(Debug, Serialize)]
pub(super) struct ChangeError {
    code: &'static str,
    message: String,
    retryable: bool,
    applied: Applied,
}

impl ChangeError {
    pub(super) fn new(problem: Problem, applied: Applied) -> Self {
        Self {
            code: problem.code.as_str(),
            retryable: problem.code.retryable(),
            message: problem.detail,
            applied,
        }
    }
}

/// The answer to a list of changes.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) results: Vec<Outcome>,
}

/// The answer to a stream of lines.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sum {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) duplicates: u64,
    pub(super) errors: Vec<LineError>,
    pub(super) version: Option<Version>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why one line was refused.
#[derive(Debug, Serialize)]
pub(super) struct LineError {
    pub(super) line: u64,
    #[serde(flatten)]
    pub(super) error: ChangeError,
}
