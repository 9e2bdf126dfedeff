//! What the end of a connection commands: come back, or stop, and why in words.

use tidings_protocol::close::CloseCode;

/// What to do after a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Connect again, after a while.
    ComeBack(String),
    /// Coming back would end the same way.
    Stop(String),
}

/// By the close code (1006: none came) and the text beside it.
pub(super) fn of_close(code: u16, text: &str) -> Verdict {
    let said = if text.is_empty() {
        String::new()
    } else {
        format!(": {}", crate::cli::one_line(text))
    };
    let reason = format!("{} (close code {code}){said}", words(code));
    let stop = matches!(code, 1002 | 1003 | 1007 | 1008 | 1009) || code >= 4500;
    if stop {
        Verdict::Stop(reason)
    } else {
        Verdict::ComeBack(reason)
    }
}

/// By the HTTP status of a refused upgrade.
pub(super) fn of_status(status: u16, body: &[u8]) -> Verdict {
    #[derive(Default, serde::Deserialize)]
    struct Problem {
        detail: Option<String>,
    }
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let said = problem
        .detail
        .map(|detail| format!(": {}", crate::cli::one_line(&detail)))
        .unwrap_or_default();
    let what = match status {
        404 => "there is no Tidings server at this address",
        401 => "the server wants a token, or another one",
        403 => "the server does not let this client in",
        429 => "the server has too many connections from here",
        _ => "the server refused the connection",
    };
    let reason = format!("{what} (HTTP status {status}){said}");
    let come_back = status >= 500 || matches!(status, 408 | 425 | 429);
    if come_back {
        Verdict::ComeBack(reason)
    } else {
        Verdict::Stop(reason)
    }
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
            "the server could make no sense of what this client sent",
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

    #[test]
    fn below_4500_come_back_and_from_there_on_stop() {
        for code in [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4003, 4006, 4010, 4499] {
            assert!(matches!(of_close(code, ""), Verdict::ComeBack(_)), "{code}");
        }
        for code in [
            1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4504, 4505, 4506, 4999,
        ] {
            assert!(matches!(of_close(code, ""), Verdict::Stop(_)), "{code}");
        }
    }

    #[test]
    fn the_reason_is_in_words() {
        let stop = |text: &str| Verdict::Stop(text.to_owned());
        assert_eq!(of_close(4503, ""), stop("the token was revoked (close code 4503)"));
        assert_eq!(
            of_close(4506, "bye\n"),
            stop("an operator closed this connection (close code 4506): bye\\n")
        );
    }

    #[test]
    fn a_refused_upgrade_stops_only_where_time_cannot_help() {
        assert!(
            [429, 500, 502, 503]
                .iter()
                .all(|status| matches!(of_status(*status, b""), Verdict::ComeBack(_)))
        );
        assert!(
            [200, 301, 400, 401, 403, 404]
                .iter()
                .all(|status| matches!(of_status(*status, b""), Verdict::Stop(_)))
        );
        let Verdict::Stop(reason) = of_status(403, br#"{"detail":"Host not allowed"}"#) else {
            panic!("come back?")
        };
        assert!(reason.ends_with("(HTTP status 403): Host not allowed"), "{reason}");
    }
}
