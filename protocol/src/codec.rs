//! What the server tells clients, written straight into bytes.
//!
//! Each function appends **one complete unit**: for WebSocket one unmasked server frame with its RFC 6455 header (text for
//! JSON, binary for MessagePack), for Server-Sent Events one complete block with its empty line. The caller may share the
//! bytes among all who are to be told the same. Long-poll answers are in [`PollAnswer`].
//!
//! It does not know who is told, when, or whether the bytes arrive.

mod frame;
mod pen;
mod poll;

pub use frame::{ws_close, ws_ping, ws_pong};
pub(crate) use pen::{Pen, Pour, TOO_DEEP, TOO_LONG};
pub use poll::{OwnedChange, PollAnswer, Resync, ResyncScope};

use crate::error::Problem;
use crate::hint::Hint;
use crate::id::ShardId;
use crate::version::{Epoch, Version};

/// How one subscriber is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// WebSocket, subprotocol `tidings.v1.json`: one JSON object a text frame.
    WebSocketJson,
    /// WebSocket, subprotocol `tidings.v1.msgpack`: one map a binary frame.
    WebSocketMessagePack,
    /// Server-Sent Events, `text/event-stream`.
    EventStream,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebSocketJson, Self::WebSocketMessagePack, Self::EventStream];
}

/// One change as a subscriber is told of it.
#[derive(Clone, Copy, Debug)]
pub struct ChangeView<'a> {
    /// The object's ID.
    pub object: &'a str,
    /// Its newest version.
    pub version: Version,
    /// What the publisher said about it, if it is at hand.
    pub hint: Option<&'a Hint>,
    /// Where the version came from, for a subscription that asked to be told.
    pub trace: Option<(ShardId, Epoch)>,
}

/// How a client named its request, given back with the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// An integer below 2^53.
    Number(u64),
    /// A text of at most [`RequestId::MAX_BYTES`].
    Text(Box<str>),
}

impl RequestId {
    /// The longest textual ID of a request, in bytes.
    pub const MAX_BYTES: usize = 64;
}

/// The first message on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The connection's name, for operators and support.
    pub connection: &'a str,
    /// The node's name.
    pub node: &'a str,
    /// At least this often something comes, in milliseconds.
    pub ping_ms: u64,
    /// What this connection may use.
    pub limits: Limits,
}

/// What one connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects subscribed to at a time.
    pub objects: u64,
    /// Bytes of one frame from the client.
    pub frame_bytes: u64,
}

/// "These changed." For Server-Sent Events one block a change, of the default event type. Nothing at all if there are none.
pub fn changes<'a>(encoding: Encoding, out: &mut Vec<u8>, changes: impl Iterator<Item = ChangeView<'a>>) {
    if encoding == Encoding::EventStream {
        for change in changes {
            out.extend_from_slice(b"data: ");
            write_change(&mut Pen::json(out), change);
            out.extend_from_slice(b"\n\n");
        }
        return;
    }
    let mut changes = changes.peekable();
    if changes.peek().is_some() {
        message(encoding, out, "changes", None, |pen| write_changes(pen, changes));
    }
}

/// "All before this was told." `text` is an encoded cursor, which needs no escaping.
pub fn cursor(encoding: Encoding, out: &mut Vec<u8>, text: &str) {
    if encoding == Encoding::EventStream {
        debug_assert!(!text.contains(['\n', '\r', '\0']), "a cursor is safe in a header");
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\n\n");
        return;
    }
    message(encoding, out, "cursor", None, |pen| pen.text(text));
}

/// "These may have changed: fetch them."
pub fn resync<'a>(encoding: Encoding, out: &mut Vec<u8>, objects: impl Iterator<Item = &'a str>, cause: &str) {
    message(encoding, out, "resync", None, |pen| {
        write_resync(pen, Some(objects), cause)
    });
}

/// "Everything you watch may have changed: fetch it."
pub fn resync_all(encoding: Encoding, out: &mut Vec<u8>, cause: &str) {
    message(encoding, out, "resync", None, |pen| {
        write_resync(pen, None::<std::iter::Empty<&str>>, cause)
    });
}

/// The answer to `subscribe`: each object's version (`Version::ZERO`: none known) or why it is refused.
///
/// Nothing for Server-Sent Events, which have [`refused`] instead.
pub fn subscribed<'a>(
    encoding: Encoding,
    out: &mut Vec<u8>,
    id: Option<&RequestId>,
    entries: impl Iterator<Item = (&'a str, Result<Version, &'a Problem>)>,
) {
    if encoding == Encoding::EventStream {
        return;
    }
    message(encoding, out, "subscribed", id, |pen| {
        let map = pen.open_map();
        pen.key("objects");
        let list = pen.open_list();
        let mut count = 0;
        for (object, outcome) in entries {
            let entry = pen.open_map();
            pen.key("object");
            pen.text(object);
            match outcome {
                Ok(version) => {
                    pen.key("version");
                    pen.version(version);
                }
                Err(problem) => {
                    pen.key("error");
                    pen.problem(problem);
                }
            }
            pen.close_map(entry, 2);
            count += 1;
        }
        pen.close_list(list, count);
        pen.close_map(map, 1);
    });
}

/// "You will not hear of these."
pub fn refused<'a>(encoding: Encoding, out: &mut Vec<u8>, entries: impl Iterator<Item = (&'a str, &'a Problem)>) {
    message(encoding, out, "refused", None, |pen| write_refused(pen, entries));
}

/// "Your token has expired: bring another within this time."
pub fn token_expired(encoding: Encoding, out: &mut Vec<u8>, closes_in_ms: u64) {
    message(encoding, out, "token_expired", None, |pen| {
        let map = pen.open_map();
        pen.key("closes_in_ms");
        pen.number(closes_in_ms);
        pen.close_map(map, 1);
    });
}

/// The answer to `unsubscribe`. Nothing for Server-Sent Events.
pub fn unsubscribed(encoding: Encoding, out: &mut Vec<u8>, id: Option<&RequestId>) {
    if encoding != Encoding::EventStream {
        message(encoding, out, "unsubscribed", id, |pen| pen.empty_map());
    }
}

/// The answer to `auth`: how long the token holds, `None` if it does not expire. Nothing for Server-Sent Events.
pub fn authenticated(encoding: Encoding, out: &mut Vec<u8>, id: Option<&RequestId>, expires_in_ms: Option<u64>) {
    if encoding == Encoding::EventStream {
        return;
    }
    message(encoding, out, "authenticated", id, |pen| {
        let map = pen.open_map();
        pen.key("expires_in_ms");
        match expires_in_ms {
            Some(ms) => pen.number(ms),
            None => pen.null(),
        }
        pen.close_map(map, 1);
    });
}

/// The answer to a `ping` message (not to a WebSocket ping frame: [`ws_pong`]). Nothing for Server-Sent Events.
pub fn pong_message(encoding: Encoding, out: &mut Vec<u8>, id: Option<&RequestId>) {
    if encoding != Encoding::EventStream {
        message(encoding, out, "pong", id, |pen| pen.empty_map());
    }
}

/// The first message on a connection.
pub fn hello(encoding: Encoding, out: &mut Vec<u8>, hello: &Hello<'_>) {
    message(encoding, out, "hello", None, |pen| {
        let map = pen.open_map();
        pen.key("connection");
        pen.text(hello.connection);
        pen.key("node");
        pen.text(hello.node);
        pen.key("ping_ms");
        pen.number(hello.ping_ms);
        pen.key("limits");
        let limits = pen.open_map();
        pen.key("objects");
        pen.number(hello.limits.objects);
        pen.key("frame_bytes");
        pen.number(hello.limits.frame_bytes);
        pen.close_map(limits, 2);
        pen.close_map(map, 4);
    });
}

/// "This edge is cut off from owners of your objects" (`true`), or "is whole again" (`false`).
pub fn stale(encoding: Encoding, out: &mut Vec<u8>, stale: bool) {
    message(encoding, out, "stale", None, |pen| pen.flag(stale));
}

/// "Come back after this long": to one of these, bases of URLs, or anywhere if there are none.
pub fn reconnect(encoding: Encoding, out: &mut Vec<u8>, after_ms: u64, reason: &str, to: &[&str]) {
    message(encoding, out, "reconnect", None, |pen| {
        let map = pen.open_map();
        pen.key("after_ms");
        pen.number(after_ms);
        pen.key("reason");
        pen.text(reason);
        if !to.is_empty() {
            pen.key("to");
            let list = pen.open_list();
            to.iter().for_each(|url| pen.text(url));
            pen.close_list(list, to.len());
        }
        pen.close_map(map, 2 + usize::from(!to.is_empty()));
    });
}

/// "That request failed"; the connection lives on. Nothing for Server-Sent Events, where no request follows the first.
pub fn error(encoding: Encoding, out: &mut Vec<u8>, id: Option<&RequestId>, problem: &Problem) {
    if encoding != Encoding::EventStream {
        message(encoding, out, "error", id, |pen| pen.problem(problem));
    }
}

/// "Send your list of objects again", on a stream of Server-Sent Events.
pub fn session_unknown(out: &mut Vec<u8>) {
    message(Encoding::EventStream, out, "session_unknown", None, |pen| {
        pen.empty_map()
    });
}

/// Something to read, meaning nothing, on a stream of Server-Sent Events.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// How long EventSource waits before it comes back, in milliseconds.
pub fn retry(out: &mut Vec<u8>, after_ms: u64) {
    out.extend_from_slice(b"retry: ");
    Pen::json(out).number(after_ms);
    out.extend_from_slice(b"\n\n");
}

/// One message: `{"name":body}` with the request's ID, or an event of that name whose data is the body.
fn message(
    encoding: Encoding,
    out: &mut Vec<u8>,
    name: &'static str,
    id: Option<&RequestId>,
    body: impl FnOnce(&mut Pen<'_>),
) {
    if encoding == Encoding::EventStream {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        body(&mut Pen::json(out));
        out.extend_from_slice(b"\n\n");
        return;
    }
    let packed = encoding == Encoding::WebSocketMessagePack;
    frame::data_frame(out, packed, |out| {
        let mut pen = if packed { Pen::message_pack(out) } else { Pen::json(out) };
        let map = pen.open_map();
        pen.key(name);
        body(&mut pen);
        if let Some(id) = id {
            pen.key("id");
            pen.request_id(id);
        }
        pen.close_map(map, 1 + usize::from(id.is_some()));
    });
}

/// A list of changes.
fn write_changes<'a>(pen: &mut Pen<'_>, changes: impl Iterator<Item = ChangeView<'a>>) {
    let list = pen.open_list();
    let mut count = 0;
    for change in changes {
        write_change(pen, change);
        count += 1;
    }
    pen.close_list(list, count);
}

fn write_change(pen: &mut Pen<'_>, change: ChangeView<'_>) {
    let map = pen.open_map();
    let mut count = 2;
    pen.key("object");
    pen.text(change.object);
    pen.key("version");
    pen.number(change.version.0);
    if let Some(hint) = change.hint {
        if let Some(kind) = &hint.kind {
            pen.key("kind");
            pen.text(kind);
            count += 1;
        }
        if let Some(data) = &hint.data {
            pen.key("data");
            pen.data(data);
            count += 1;
        }
    }
    if let Some((shard, epoch)) = change.trace {
        pen.key("shard");
        pen.number(u64::from(shard.0));
        pen.key("epoch");
        pen.number(epoch.0);
        count += 2;
    }
    pen.close_map(map, count);
}

/// What to fetch: these, or everything where `objects` is `None`.
fn write_resync<'a>(pen: &mut Pen<'_>, objects: Option<impl Iterator<Item = &'a str>>, cause: &str) {
    let map = pen.open_map();
    match objects {
        None => {
            pen.key("all");
            pen.flag(true);
        }
        Some(objects) => {
            pen.key("objects");
            let list = pen.open_list();
            let mut count = 0;
            for object in objects {
                pen.text(object);
                count += 1;
            }
            pen.close_list(list, count);
        }
    }
    pen.key("cause");
    pen.text(cause);
    pen.close_map(map, 2);
}

/// Which objects were refused, and why.
fn write_refused<'a>(pen: &mut Pen<'_>, entries: impl Iterator<Item = (&'a str, &'a Problem)>) {
    let list = pen.open_list();
    let mut count = 0;
    for (object, problem) in entries {
        let entry = pen.open_map();
        pen.key("object");
        pen.text(object);
        pen.key("error");
        pen.problem(problem);
        pen.close_map(entry, 2);
        count += 1;
    }
    pen.close_list(list, count);
}
