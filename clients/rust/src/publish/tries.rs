//! Whether to try once more. Pure: time and randomness come in.

use super::error::{PublishError, message};
use crate::net::Failure;
use crate::watch::{Route, Transport, Waits};
use crate::wire::ProblemDocument;
use std::time::Duration;
use tidings_protocol::error::Applied;

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Tries {
    route: Route,
    /// A repeat of what may have happened does no harm.
    harmless: bool,
    /// One try may have happened.
    unknown: bool,
    failures: u32,
}

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try at this server after a wait.
    Again(Duration, usize),
    /// No more.
    Fail(PublishError),
}

const WAITS: Waits = Waits {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(2),
};

impl Tries {
    pub(crate) fn new(servers: usize, first: usize, harmless: bool, seed: u64) -> Self {
        Self {
            route: Route::new(servers, Transport::LongPoll, WAITS, seed).at(first),
            harmless,
            unknown: false,
            failures: 0,
        }
    }

    /// After a failure, with so much time left.
    pub(crate) fn failed(&mut self, failure: &Failure, left: Duration) -> Next {
        let (error, retryable, at_least) = read(failure);
        let unknown = error.applied() == Applied::Unknown;
        self.unknown |= unknown;
        self.failures += 1;
        // As long as a server is left that was not asked, it is asked soon; then they are waited for as they wish.
        let wait = self.route.next();
        let wait = if self.failures < self.route.servers() {
            wait / 10
        } else {
            wait.saturating_add(at_least)
        };
        let safe = !unknown || self.harmless;
        if retryable && safe && wait < left {
            return Next::Again(wait, self.route.server());
        }
        Next::Fail(self.told(error))
    }

    /// The time is over.
    pub(crate) fn too_late(&mut self, sent: bool) -> PublishError {
        self.unknown |= sent;
        match self.unknown {
            true => PublishError::Unknown("no answer came in time".to_owned()),
            false => PublishError::Unreachable("no server answered in time".to_owned()),
        }
    }

    /// An earlier try that may have happened is not undone by a later one that did not.
    fn told(&self, error: PublishError) -> PublishError {
        match error {
            PublishError::Unknown(_) => error,
            other if self.unknown => PublishError::Unknown(format!("an earlier try may have; the last one: {other}")),
            other => other,
        }
    }
}

/// What a failure means: the error, whether another try may go better, and how long to wait for it at least.
fn read(failure: &Failure) -> (PublishError, bool, Duration) {
    match failure {
        Failure::Unreachable(why) => (PublishError::Unreachable(why.clone()), true, Duration::ZERO),
        Failure::Cut(why) => {
            let why = format!("the connection was cut: {why}");
            (PublishError::Unknown(why), true, Duration::ZERO)
        }
        Failure::Unusable(why) => (PublishError::Invalid(why.clone()), false, Duration::ZERO),
        Failure::Refused {
            status,
            retry_after_s,
            body,
        } => {
            let problem = ProblemDocument::read(body);
            let message = message(*status, &problem);
            let ours = !problem.code.is_empty();
            // Who is not ours cannot say what became of it, unless the request itself was at fault.
            let applied = problem.applied.unwrap_or(match status {
                400..=499 => Applied::No,
                _ => Applied::Unknown,
            });
            let retryable = if ours {
                problem.retryable
            } else {
                matches!(status, 408 | 425 | 429 | 500..)
            };
            let error = match applied {
                Applied::Unknown => PublishError::Unknown(message),
                Applied::No => PublishError::Refused {
                    code: problem.code.to_string(),
                    message,
                    retryable,
                    status: *status,
                },
            };
            let at_least = Duration::from_secs(retry_after_s.unwrap_or(0));
            (error, retryable, at_least)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const LEFT: Duration = Duration::from_secs(4);

    fn refused(status: u16, code: &str, retryable: bool, applied: &str) -> Failure {
        let body =
            format!("{{\"code\":\"{code}\",\"detail\":\"d\",\"retryable\":{retryable},\"applied\":\"{applied}\"}}");
        Failure::Refused {
            status,
            retry_after_s: None,
            body: Bytes::from(body),
        }
    }

    fn cut() -> Failure {
        Failure::Cut("reset".to_owned())
    }

    fn after(harmless: bool, failures: &[Failure]) -> Next {
        let mut tries = Tries::new(2, 0, harmless, 1);
        let all = failures.iter().map(|failure| tries.failed(failure, LEFT));
        all.last().expect("a failure")
    }

    fn applied(next: &Next) -> Option<Applied> {
        match next {
            Next::Again(..) => None,
            Next::Fail(error) => Some(error.applied()),
        }
    }

    #[test]
    fn what_surely_did_not_happen_is_tried_again_without_a_key() {
        assert_eq!(applied(&after(false, &[Failure::Unreachable("x".to_owned())])), None);
        assert_eq!(applied(&after(false, &[refused(503, "overloaded", true, "no")])), None);
    }

    #[test]
    fn what_may_have_happened_is_tried_again_only_where_that_does_no_harm() {
        for failure in [cut(), refused(504, "outcome_unknown", true, "unknown")] {
            assert_eq!(
                applied(&after(false, std::slice::from_ref(&failure))),
                Some(Applied::Unknown)
            );
            assert_eq!(applied(&after(true, &[failure])), None);
        }
    }

    #[test]
    fn a_proxys_answer_does_not_say_that_nothing_happened() {
        let page = Failure::Refused {
            status: 502,
            retry_after_s: None,
            body: Bytes::from_static(b"<html>"),
        };
        assert_eq!(applied(&after(false, &[page])), Some(Applied::Unknown));
    }

    #[test]
    fn what_will_never_succeed_is_not_tried_again() {
        let failed = after(true, &[refused(400, "invalid_object", false, "no")]);
        assert_eq!(applied(&failed), Some(Applied::No));
    }

    #[test]
    fn a_later_refusal_does_not_undo_an_earlier_try_that_may_have_happened() {
        let failed = after(true, &[cut(), refused(400, "invalid_object", false, "no")]);
        assert_eq!(applied(&failed), Some(Applied::Unknown));
        let mut tries = Tries::new(1, 0, true, 1);
        _ = tries.failed(&cut(), LEFT);
        assert_eq!(tries.too_late(false).applied(), Applied::Unknown);
    }

    #[test]
    fn nothing_is_tried_after_the_deadline_or_before_the_server_allows_it() {
        let mut tries = Tries::new(1, 0, true, 1);
        let failure = Failure::Refused {
            status: 503,
            retry_after_s: Some(u64::MAX),
            body: Bytes::new(),
        };
        assert!(matches!(tries.failed(&failure, LEFT), Next::Fail(_)));
        assert!(matches!(tries.failed(&cut(), Duration::ZERO), Next::Fail(_)));
    }

    #[test]
    fn another_server_is_tried_next() {
        let Next::Again(_, server) = after(false, &[Failure::Unreachable("x".to_owned())]) else {
            panic!("again")
        };
        assert_eq!(server, 1);
    }
}
