//! What clients send, read from bytes into typed values.
//!
//! Every refusal is a [`Problem`](crate::Problem) that names the field and the limit. Fields that nobody knows are ignored,
//! fields that come twice are refused, and `null` means that an optional field is absent. A list of objects is never stored
//! beyond the limit the caller gave.
//!
//! It does not know who the client is, what it may do, or what the server makes of it.

mod entry;
mod fault;
mod packed;
mod poll;
mod publish;
mod query;
mod request;
mod value;

pub use entry::{Entry, EntryResult};
pub use poll::{EventsRequest, PollRequest, SessionRequest};
pub use publish::{
    Ack, Change, PublishBody, PublishOptions, parse_publish_json, parse_publish_line, parse_publish_msgpack,
    parse_publish_query,
};
pub use query::query_pairs;
pub use request::{MAX_REQUESTS_PER_FRAME, Request, parse_requests};

/// The longest wait a long-poll may ask for, in milliseconds.
pub const MAX_WAIT_MS: u64 = 60_000;
/// The longest deadline a publish may ask for, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 60_000;
/// How many characters of a refused object ID are given back.
pub const MAX_ECHO_CHARS: usize = 128;
