//! What the server says, read from bytes, and what it is asked, written into bytes. Pure, and lean: what a message says is
//! borrowed from the bytes it came in, and the commonest messages cost no allocation.
//!
//! | came as | read with | gives |
//! | --- | --- | --- |
//! | the payload of a WebSocket text frame | [`messages`] | [`ServerMessage`]s, one a line |
//! | the body of `/v1/events` | [`next_block`], or [`EventParser`] that keeps the rest for you | [`EventBlock`]s; [`EventBlock::message`] gives an [`EventMessage`] |
//! | the body of `/v1/poll` | [`PollAnswer::read`] | changes, resync, refusals, cursor, session |
//! | the body of a refused request | [`ProblemDocument::read`] | code, detail, `retryable`, `applied` |
//! | the body of `/v1/publish` | [`Told::read`], [`Results::read`], [`Sum::read`] | versions |
//! | a body in chunks, read without an HTTP library | [`Chunks`] | the bytes of the body |
//!
//! Requests are appended to a buffer by [`subscribe`], [`unsubscribe`], [`ping`], [`auth`], [`poll`], [`events`],
//! [`session`] and [`changes`]. Nothing here fails on a field it does not know.
//!
//! It does not know sockets, time, or what anybody makes of the messages. MessagePack is not spoken here.

mod answer;
mod chunks;
mod events;
mod fast;
mod message;
mod request;
mod text;

pub use answer::{LineFailure, ObjectState, Outcome, PollAnswer, ProblemDocument, Results, Session, Sum, Told};
pub use chunks::{ChunkError, Chunks};
pub use events::{EventBlock, EventMessage, EventParser, next_block};
pub use message::{
    Answered, Change, Changes, Failure, Hello, Limits, Messages, Reconnect, Refused, RequestId, Resync, ServerMessage,
    messages,
};
pub use request::{
    ChangeRequest, Entry, PollRequest, auth, changes, escaped_bytes, events, ping, poll, session, subscribe,
    unsubscribe,
};
pub use text::{RawJson, Text};

/// The largest event or message that is put together from pieces, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Why bytes of the server make no sense. **What was read before stays read; the connection cannot be trusted any more.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not JSON, or a field of the wrong type.
    #[error("the server's message makes no sense: {0}")]
    Json(String),
    /// Not UTF-8.
    #[error("the server's message is not UTF-8")]
    Utf8,
    /// One JSON object with two messages: taking one would lose the other.
    #[error("the server's message says two things at once")]
    Ambiguous,
    /// A version that no server gives: 2^53 or above.
    #[error("a version of 2^53 or above")]
    Version,
    /// Longer than [`MAX_MESSAGE_BYTES`] or the limit that was set.
    #[error("a message of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

impl From<serde_json::Error> for WireError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}
