//! What the end of a connection commands: come back, or stop and tell a person.

use crate::wire::{ProblemDocument, WireError};
use tidings_protocol::close::CloseCode;

/// Why a watch has stopped for good. **What was handed out stays told; the cursor stays true.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Stop {
    /// What to do something about.
    pub reason: StopReason,
    /// In words.
    pub detail: String,
}

/// Why coming back would end the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The server wants credentials, or others.
    #[error("not authenticated")]
    Unauthenticated,
    /// The credentials do not allow this, or the server does not answer to this name.
    #[error("forbidden")]
    Forbidden,
    /// The credentials were revoked.
    #[error("the credentials were revoked")]
    Revoked,
    /// More objects than the server allows, or a limit that was passed again and again.
    #[error("a limit of the server")]
    Limit,
    /// The server could make no sense of what this client sent.
    #[error("client and server do not understand each other")]
    Protocol,
    /// An operator closed the connection.
    #[error("closed by an operator")]
    Operator,
    /// There is no Tidings server at this address.
    #[error("no Tidings server")]
    NoServer,
    /// The server refused every object, for good.
    #[error("every object was refused")]
    AllRefused,
    /// A close code that says stop and that this client does not know.
    #[error("closed")]
    Other,
}

/// What to do after a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Connect again, after a wait of one's own or at least this one.
    ComeBack { why: String, at_least_ms: Option<u64> },
    /// The transport does not work here: take another, or stop if there is none.
    Unusable(String),
    /// Coming back would end the same way.
    Stop(Stop),
}

impl Verdict {
    pub(crate) fn come_back(why: &str) -> Self {
        Self::ComeBack {
            why: why.to_owned(),
            at_least_ms: None,
        }
    }

    /// Another node, or another try, may make more sense.
    pub(crate) fn nonsense(error: &WireError) -> Self {
        Self::come_back(&error.to_string())
    }

    pub(crate) fn stop(reason: StopReason, detail: impl Into<String>) -> Self {
        Self::Stop(Stop {
            reason,
            detail: printable(&detail.into()),
        })
    }

    /// By the close code (1006: none came) and the reason beside it.
    pub(crate) fn of_close(code: u16, said: &str) -> Self {
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        let detail = format!("{} (close code {code}){said}", words(code));
        if !matches!(code, 1002 | 1003 | 1007 | 1008 | 1009) && code < 4500 {
            return Self::come_back(&printable(&detail));
        }
        let known = |known: CloseCode| known.number() == code;
        let reason = match code {
            _ if known(CloseCode::Unauthenticated) => StopReason::Unauthenticated,
            _ if known(CloseCode::Forbidden) => StopReason::Forbidden,
            _ if known(CloseCode::Revoked) => StopReason::Revoked,
            _ if known(CloseCode::Limit) => StopReason::Limit,
            _ if known(CloseCode::Operator) => StopReason::Operator,
            _ if known(CloseCode::BadRequest) || known(CloseCode::Unsupported) => StopReason::Protocol,
            1008 => StopReason::Forbidden,
            1002 | 1003 | 1007 | 1009 => StopReason::Protocol,
            _ => StopReason::Other,
        };
        Self::stop(reason, detail)
    }

    /// By the HTTP status of a refusal and its body.
    pub(crate) fn of_status(status: u16, retry_after_s: Option<u64>, body: &[u8]) -> Self {
        let problem = ProblemDocument::read(body);
        let said = problem.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        let detail = format!("the server answered with HTTP status {status}{said}");
        match status {
            401 => Self::stop(StopReason::Unauthenticated, detail),
            403 => Self::stop(StopReason::Forbidden, detail),
            413 | 414 | 431 => Self::stop(StopReason::Limit, detail),
            // One of ours that makes no sense of the request; from anybody else it says that the transport is unknown.
            400 | 415 if !problem.code.is_empty() => Self::stop(StopReason::Protocol, detail),
            408 | 409 | 410 | 425 | 429 | 500 | 502..=599 => Self::ComeBack {
                why: printable(&detail),
                at_least_ms: retry_after_s.map(|seconds| seconds.saturating_mul(1000)),
            },
            _ => Self::Unusable(printable(&detail)),
        }
    }
}

/// Nothing that a terminal would obey, and not too long: the text is the server's.
pub(crate) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(500).map(clean).collect()
}

fn words(code: u16) -> &'static str {
    const KNOWN: [(CloseCode, &str); 15] = [
        (CloseCode::Drain, "the server is about to stop"),
        (CloseCode::NoProgress, "this client took too long to read"),
        (CloseCode::NoPong, "this client did not answer the server's ping"),
        (CloseCode::Lifetime, "the connection reached its greatest age"),
        (CloseCode::Overload, "the server has too much to do"),
        (CloseCode::Internal, "the server failed"),
        (CloseCode::CutOff, "the server is cut off from the rest of its cluster"),
        (CloseCode::TokenExpired, "the token expired"),
        (
            CloseCode::BadRequest,
            "the server made no sense of what this client sent",
        ),
        (CloseCode::Unauthenticated, "the server wants a token, or another one"),
        (CloseCode::Forbidden, "this is not allowed"),
        (CloseCode::Revoked, "the token was revoked"),
        (CloseCode::Limit, "a limit of the connection was passed again and again"),
        (
            CloseCode::Unsupported,
            "the server does not support what this client sent",
        ),
        (CloseCode::Operator, "an operator closed this connection"),
    ];
    if let Some((_, words)) = KNOWN.iter().find(|(known, _)| known.number() == code) {
        return words;
    }
    match code {
        1000 | 1001 => "the server closed the connection",
        1002 => "the server found an error in the protocol",
        1003 | 1007 => "the server could not read what this client sent",
        1006 => "the connection was cut",
        1008 => "the server's policy forbids this",
        1009 => "a message was too large",
        1011 => "the server failed",
        1012 => "the server restarts",
        1013 => "the server has too much to do",
        _ => "the server closed the connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(verdict: &Verdict) -> Option<StopReason> {
        match verdict {
            Verdict::Stop(stop) => Some(stop.reason),
            _ => None,
        }
    }

    #[test]
    fn close_codes_below_4500_say_come_back_and_those_above_name_why_to_stop() {
        for code in [
            1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005, 4006, 4010, 4499,
        ] {
            assert_eq!(stops(&Verdict::of_close(code, "")), None, "{code}");
        }
        for (code, reason) in [
            (1002, StopReason::Protocol),
            (1003, StopReason::Protocol),
            (1007, StopReason::Protocol),
            (1008, StopReason::Forbidden),
            (1009, StopReason::Protocol),
            (4500, StopReason::Protocol),
            (4501, StopReason::Unauthenticated),
            (4502, StopReason::Forbidden),
            (4503, StopReason::Revoked),
            (4504, StopReason::Limit),
            (4505, StopReason::Protocol),
            (4506, StopReason::Operator),
            (4999, StopReason::Other),
        ] {
            assert_eq!(stops(&Verdict::of_close(code, "")), Some(reason), "{code}");
        }
    }

    #[test]
    fn the_reason_is_in_words_and_printable() {
        let Verdict::Stop(stop) = Verdict::of_close(4506, "bye\u{1b}[2J") else {
            panic!("come back?")
        };
        let words = "closed by an operator: an operator closed this connection (close code 4506): bye\u{fffd}[2J";
        assert_eq!(stop.to_string(), words);
    }

    #[test]
    fn a_status_says_stop_only_where_time_cannot_help() {
        for status in [408, 409, 410, 429, 500, 502, 503, 504] {
            assert!(
                matches!(Verdict::of_status(status, None, b""), Verdict::ComeBack { .. }),
                "{status}"
            );
        }
        for status in [400, 404, 405, 426, 501, 200, 301] {
            assert!(
                matches!(Verdict::of_status(status, None, b""), Verdict::Unusable(_)),
                "{status}"
            );
        }
        for (status, reason) in [
            (401, StopReason::Unauthenticated),
            (403, StopReason::Forbidden),
            (413, StopReason::Limit),
        ] {
            assert_eq!(stops(&Verdict::of_status(status, None, b"")), Some(reason), "{status}");
        }
        let ours = br#"{"code":"bad_request","detail":"`objects` is missing"}"#;
        let verdict = Verdict::of_status(400, None, ours);
        assert_eq!(stops(&verdict), Some(StopReason::Protocol));
        let busy = Verdict::of_status(503, Some(7), b"");
        assert!(matches!(
            busy,
            Verdict::ComeBack {
                at_least_ms: Some(7000),
                ..
            }
        ));
    }
}
