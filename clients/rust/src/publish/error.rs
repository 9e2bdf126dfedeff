//! Errors that say what happened to state.

use crate::watch::printable;
use crate::wire::{Failure, ProblemDocument};
use tidings_protocol::error::Applied;

/// Why a publish has no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// What was to be published makes no sense. **Nothing was sent.**
    #[error("not published: {0}")]
    Invalid(String),
    /// The server refused. **Surely nothing was published.**
    #[error("not published: {message} ({code}, status {status})")]
    Refused {
        /// A stable word of the protocol; empty if something else than a Tidings server answered.
        code: String,
        /// For people.
        message: String,
        /// Whether the same may succeed later.
        retryable: bool,
        /// The HTTP status.
        status: u16,
    },
    /// No server could be reached in time. **Surely nothing was published.**
    #[error("not published: {0}")]
    Unreachable(String),
    /// **It may have been published, or not.** With the same idempotency key it may be repeated; without one, a repeat may
    /// tell subscribers twice.
    #[error("nobody knows whether it was published: {0}")]
    Unknown(String),
}

impl PublishError {
    /// Whether it may have happened.
    #[must_use]
    pub fn applied(&self) -> Applied {
        match self {
            Self::Unknown(_) => Applied::Unknown,
            Self::Invalid(_) | Self::Refused { .. } | Self::Unreachable(_) => Applied::No,
        }
    }
}

/// Why one change of several has no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ChangeError {
    /// A stable word of the protocol.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the same may succeed later.
    pub retryable: bool,
    /// Whether it may have happened nevertheless.
    pub applied: Applied,
}

impl ChangeError {
    pub(crate) fn new(failure: &Failure<'_>, applied: Option<Applied>) -> Self {
        Self {
            code: failure.code.to_string(),
            message: printable(&failure.message),
            retryable: failure.retryable,
            // A server that does not say may have done anything.
            applied: applied.unwrap_or(Applied::Unknown),
        }
    }
}

/// Why a question has no answer. **Asking changes nothing.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The server refused.
    #[error("{message} ({code}, status {status})")]
    Refused {
        /// A stable word of the protocol; empty if something else than a Tidings server answered.
        code: String,
        /// For people.
        message: String,
        /// The HTTP status.
        status: u16,
    },
    /// No answer came in time.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// What a refusal says in words.
pub(crate) fn message(status: u16, problem: &ProblemDocument<'_>) -> String {
    match problem.detail.as_ref().or(problem.title.as_ref()) {
        Some(text) => printable(text),
        None => format!("the server answered with HTTP status {status}"),
    }
}
