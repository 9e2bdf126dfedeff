//! What a client is told when something fails: a stable code and whether to retry.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $retryable:literal, $title:literal;)*) => {
        /// A stable error code. The text never changes once released; the set may grow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, for documents and tests.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text on the wire, `snake_case`.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }

            /// Whether the same request may succeed later without being changed.
            #[must_use]
            pub fn retryable(self) -> bool { match self { $(Self::$name => $retryable,)* } }

            /// A short, fixed title for people.
            #[must_use]
            pub fn title(self) -> &'static str { match self { $(Self::$name => $title,)* } }
        }
    };
}

codes! {
    /// The body, frame or query is not what the route reads.
    BadRequest = "bad_request", 400, false, "Bad request";
    /// A field has the wrong type or a forbidden value.
    InvalidField = "invalid_field", 400, false, "A field is not valid";
    /// An object ID breaks the rules for IDs.
    InvalidObject = "invalid_object", 400, false, "Not an object ID";
    /// Nothing to do: no object was named.
    NoObjects = "no_objects", 400, false, "No object named";
    /// More objects than one request or connection may name.
    TooManyObjects = "too_many_objects", 413, false, "Too many objects";
    /// More changes than one request may hold.
    TooManyChanges = "too_many_changes", 413, false, "Too many changes";
    /// The body or frame is larger than allowed.
    TooLarge = "too_large", 413, false, "Too large";
    /// `data` is larger than allowed.
    DataTooLarge = "data_too_large", 413, false, "The data of a change is too large";
    /// The content type is not one the route reads.
    UnsupportedMediaType = "unsupported_media_type", 415, false, "Unsupported media type";
    /// No credentials, or bad ones.
    Unauthenticated = "unauthenticated", 401, false, "Not authenticated";
    /// The credentials were good, and were revoked.
    Revoked = "revoked", 401, false, "Revoked";
    /// The credentials do not allow this.
    Forbidden = "forbidden", 403, false, "Forbidden";
    /// The page's origin is not allowed here.
    OriginRefused = "origin_refused", 403, false, "Origin refused";
    /// The `Host` is not one this server answers to.
    HostRefused = "host_refused", 403, false, "Host refused";
    /// No such route or thing.
    NotFound = "not_found", 404, false, "Not found";
    /// The route exists but not for this method.
    MethodNotAllowed = "method_not_allowed", 405, false, "Method not allowed";
    /// The acknowledgement level cannot be given by this set-up.
    AckUnavailable = "ack_unavailable", 409, false, "Acknowledgement level unavailable";
    /// A newer poll of the same session took this one's place.
    PollSuperseded = "poll_superseded", 409, false, "A newer poll took over";
    /// The session is not known here: send the list of objects again. Nothing is lost.
    SessionUnknown = "session_unknown", 410, true, "Session unknown";
    /// The object's state does not yet include the version asked for.
    NotYet = "not_yet", 409, true, "Not yet";
    /// An operator's order that does not fit how the cluster is now. Nothing was changed.
    OrderRefused = "order_refused", 409, false, "Not as things are";
    /// Too many requests, connections or sessions from one place.
    TooMany = "too_many", 429, true, "Too many";
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408, true, "The request took too long to arrive";
    /// The request's headers are too large or too many.
    HeadersTooLarge = "headers_too_large", 431, false, "Headers too large";
    /// The server has more work than it can queue.
    Overloaded = "overloaded", 503, true, "Overloaded";
    /// The server is about to stop.
    Draining = "draining", 503, true, "Draining";
    /// The shard has no owner that can be reached.
    NoOwner = "no_owner", 503, true, "No owner";
    /// Another node, which an operator asks about, does not answer.
    NodeSilent = "node_silent", 503, true, "A node does not answer";
    /// Nobody leads the cluster's control plane, or it cannot be reached. Nothing was changed.
    NoLeader = "no_leader", 503, true, "No leader";
    /// The disk does not take what is written. The node tries again by itself.
    StorageUnavailable = "storage_unavailable", 503, true, "Storage unavailable";
    /// A publish, or an operator's order, that may or may not have happened.
    OutcomeUnknown = "outcome_unknown", 504, true, "Outcome unknown";
    /// A fault of the server.
    Internal = "internal", 500, true, "Internal error";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failure as a client is told: inside a WebSocket `error`, in `refused`, in per-change results, and as the core of
/// an RFC 9457 problem document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of failure.
    pub code: Code,
    /// One sentence for people: what was wrong, which field, which limit.
    pub detail: String,
}

impl Problem {
    /// A failure with its explanation.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut map = serializer.serialize_struct("Problem", 3)?;
        map.serialize_field("code", self.code.as_str())?;
        map.serialize_field("message", &self.detail)?;
        map.serialize_field("retryable", &self.code.retryable())?;
        map.end()
    }
}

/// Whether a failed publish may have happened nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// Surely not: it is safe to publish again without a key.
    No,
    /// It may have: publish again with the same `Idempotency-Key`, or accept a second notification.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let texts: HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(
                code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{code}"
            );
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(
                !code.retryable() || code.status() != 400,
                "{code}: a malformed request never gets better"
            );
        }
    }
}
