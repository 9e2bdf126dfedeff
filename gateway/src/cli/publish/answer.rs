//! What the server's answer to a publish says about each change, in words.
//!
//! It does not know sockets. Where an answer leaves open what happened, the change counts as "may have happened".

use serde::Deserialize;
use tidings_protocol::error::Applied;

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has this version.
    Published {
        /// Its version, if the server told one.
        version: Option<u64>,
        /// The server had it already: nobody was notified again.
        duplicate: bool,
    },
    /// It failed.
    Failed {
        /// The server's stable code, if it gave one.
        code: Option<String>,
        /// Why, in words.
        message: String,
        /// The same may succeed later.
        retryable: bool,
        /// Whether it may have happened nevertheless.
        applied: Applied,
    },
}

impl Outcome {
    /// Nothing left this machine.
    pub(super) fn not_sent(why: &str) -> Self {
        Self::Failed {
            code: None,
            message: why.to_owned(),
            retryable: true,
            applied: Applied::No,
        }
    }

    /// It was sent, and then there was silence.
    pub(super) fn no_answer(why: &str) -> Self {
        Self::Failed {
            code: None,
            message: why.to_owned(),
            retryable: true,
            applied: Applied::Unknown,
        }
    }

    pub(super) fn is_published(&self) -> bool {
        matches!(self, Self::Published { .. })
    }

    /// One line for a person.
    pub(super) fn line(&self, object: &str) -> String {
        match self {
            Self::Published { version, duplicate } => {
                let version = version.map_or_else(|| "published".to_owned(), |version| format!("version {version}"));
                let tail = if *duplicate {
                    "  (known already: nobody was notified again)"
                } else {
                    ""
                };
                format!("{object}  {version}{tail}")
            }
            Self::Failed { .. } => format!("{object}  {}", self.reason()),
        }
    }

    /// Why it failed and what that means for the object, without its name.
    pub(super) fn reason(&self) -> String {
        let Self::Failed {
            code, message, applied, ..
        } = self
        else {
            return "published".to_owned();
        };
        let state = match applied {
            Applied::No => "not published",
            Applied::Unknown => "may or may not have been published (publishing again is harmless)",
        };
        let code = code
            .as_ref()
            .map(|code| format!(" ({})", crate::cli::one_line(code)))
            .unwrap_or_default();
        format!("{state}: {}{code}", crate::cli::one_line(message))
    }
}

/// A failure as it stands in a result or as a whole problem document.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    code: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    title: Option<String>,
    retryable: Option<bool>,
    applied: Option<Applied>,
}

/// One result, or a whole answer to one change, or the results of many.
#[derive(Debug, Default, Deserialize)]
struct Told {
    version: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<Problem>,
    applied: Option<Applied>,
    results: Option<Vec<Told>>,
}

/// The outcome of each of `changes` changes, by the answer's status and body.
pub(super) fn outcomes(changes: usize, status: u16, body: &[u8]) -> Vec<Outcome> {
    if !(200..300).contains(&status) {
        return vec![refusal(status, body); changes];
    }
    let Ok(told) = serde_json::from_slice::<Told>(body) else {
        return vec![Outcome::no_answer("the answer makes no sense: is this a Tidings server?"); changes];
    };
    let mut outcomes: Vec<_> = match told.results {
        Some(results) => results.into_iter().map(outcome).collect(),
        None => vec![outcome(told)],
    };
    outcomes.resize(changes, Outcome::no_answer("the answer does not speak of this change"));
    outcomes
}

fn outcome(told: Told) -> Outcome {
    match told.error {
        None => Outcome::Published {
            version: told.version,
            duplicate: told.duplicate,
        },
        Some(problem) => failed(
            problem,
            told.applied,
            "the server did not say why",
            Applied::Unknown,
            false,
        ),
    }
}

/// The failure of a whole request.
pub(super) fn refusal(status: u16, body: &[u8]) -> Outcome {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let retryable = status >= 500 || matches!(status, 408 | 425 | 429);
    // A client error is decided before anything is done; of others only the server itself can know.
    let applied = if (400..500).contains(&status) {
        Applied::No
    } else {
        Applied::Unknown
    };
    failed(
        problem,
        None,
        &format!("the server answered with HTTP status {status}"),
        applied,
        retryable,
    )
}

fn failed(problem: Problem, applied: Option<Applied>, unsaid: &str, otherwise: Applied, retryable: bool) -> Outcome {
    Outcome::Failed {
        code: problem.code,
        message: problem
            .detail
            .or(problem.message)
            .or(problem.title)
            .unwrap_or_else(|| unsaid.to_owned()),
        retryable: problem.retryable.unwrap_or(retryable),
        applied: problem.applied.or(applied).unwrap_or(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: u16, body: &str) -> String {
        outcomes(1, status, body.as_bytes())[0].line("order:42")
    }

    #[test]
    fn a_version_is_printed_beside_its_object() {
        assert_eq!(
            line(200, r#"{"version":1795170000000000}"#),
            "order:42  version 1795170000000000"
        );
        assert!(line(200, r#"{"version":7,"duplicate":true}"#).contains("version 7  (known already"));
    }

    #[test]
    fn each_change_of_a_batch_has_its_own_outcome() {
        let body = br#"{"results":[{"version":1},{"error":{"code":"no_owner","message":"nobody","retryable":true,"applied":"no"}}]}"#;
        let outcomes = outcomes(3, 200, body);
        assert_eq!(
            outcomes[0],
            Outcome::Published {
                version: Some(1),
                duplicate: false
            }
        );
        assert_eq!(outcomes[1].line("b"), "b  not published: nobody (no_owner)");
        assert!(
            outcomes[2]
                .line("c")
                .starts_with("c  may or may not have been published"),
            "{}",
            outcomes[2].line("c")
        );
    }

    #[test]
    fn an_error_says_whether_the_change_may_have_happened() {
        let refused = line(
            400,
            r#"{"code":"invalid_object","detail":"too long","retryable":false,"applied":"no"}"#,
        );
        assert_eq!(refused, "order:42  not published: too long (invalid_object)");
        let unknown = line(
            504,
            r#"{"code":"outcome_unknown","detail":"no copy answered","applied":"unknown"}"#,
        );
        assert!(
            unknown.starts_with("order:42  may or may not have been published"),
            "{unknown}"
        );
        // A proxy's answer says nothing: a refusal surely changed nothing, a failure may have come after the fact.
        assert!(line(404, "<html>").starts_with("order:42  not published"));
        assert!(line(502, "<html>").starts_with("order:42  may or may not"));
        assert!(line(200, "<html>").starts_with("order:42  may or may not"));
    }

    #[test]
    fn a_refusal_is_worth_repeating_only_if_time_can_help() {
        let retryable = |status| matches!(refusal(status, b""), Outcome::Failed { retryable: true, .. });
        assert!([408, 429, 500, 502, 503, 504].into_iter().all(retryable));
        assert!(![400, 401, 403, 404, 409, 413].into_iter().any(retryable));
    }
}
