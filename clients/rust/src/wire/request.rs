//! What a client asks, appended to a buffer as JSON.
//!
//! IDs are written as they are: checking them is the caller's, with `tidings_protocol::id::check_object_id`.

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_protocol::Version;

/// An object in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its ID.
    pub object: &'a str,
    /// The version that the client knows already.
    pub version: Option<Version>,
    /// A version that the answer's state must include.
    pub at_least: Option<Version>,
}

impl<'a> From<&'a str> for Entry<'a> {
    fn from(object: &'a str) -> Self {
        Self {
            object,
            ..Self::default()
        }
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Long<'a> {
            object: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<Version>,
            #[serde(skip_serializing_if = "Option::is_none")]
            at_least: Option<Version>,
        }
        match *self {
            Self {
                object,
                version: None,
                at_least: None,
            } => serializer.serialize_str(object),
            Self {
                object,
                version,
                at_least,
            } => Long {
                object,
                version,
                at_least,
            }
            .serialize(serializer),
        }
    }
}

/// How many bytes a text takes in JSON, quotes included, at most.
#[must_use]
pub fn escaped_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

fn list<'a>(out: &mut Vec<u8>, name: &str, entries: impl IntoIterator<Item = Entry<'a>>) {
    put(out, name);
    out.extend_from_slice(b":[");
    for (place, entry) in entries.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put(out, &entry);
    }
    out.push(b']');
}

/// A vector takes every text, number and document.
fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "texts and numbers always become JSON");
}

fn end_with_id(out: &mut Vec<u8>, id: Option<u64>) {
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        put(out, &id);
    }
    out.push(b'}');
}

/// `{"subscribe":{"objects":[…],"cursor":"…","more":true},"id":N}`
pub fn subscribe<'a>(
    out: &mut Vec<u8>,
    entries: impl IntoIterator<Item = Entry<'a>>,
    cursor: Option<&str>,
    more: bool,
    id: Option<u64>,
) {
    out.extend_from_slice(b"{\"subscribe\":{");
    list(out, "objects", entries);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":");
        put(out, cursor);
    }
    if more {
        out.extend_from_slice(b",\"more\":true");
    }
    out.push(b'}');
    end_with_id(out, id);
}

/// `{"unsubscribe":{"objects":[…]},"id":N}`
pub fn unsubscribe<'a>(out: &mut Vec<u8>, objects: impl IntoIterator<Item = &'a str>, id: Option<u64>) {
    out.extend_from_slice(b"{\"unsubscribe\":{");
    list(out, "objects", objects.into_iter().map(Entry::from));
    out.push(b'}');
    end_with_id(out, id);
}

/// `{"auth":{"token":"…"},"id":N}`
pub fn auth(out: &mut Vec<u8>, token: &str, id: Option<u64>) {
    out.extend_from_slice(b"{\"auth\":{\"token\":");
    put(out, token);
    out.push(b'}');
    end_with_id(out, id);
}

/// `{"ping":{},"id":N}`
pub fn ping(out: &mut Vec<u8>, id: Option<u64>) {
    out.extend_from_slice(b"{\"ping\":{}");
    end_with_id(out, id);
}

/// One poll. Of `objects` and `session` exactly one is given; `add` and `remove` need the session.
#[derive(Clone, Debug, Default)]
pub struct PollRequest<'a> {
    /// What to watch.
    pub objects: Option<Vec<Entry<'a>>>,
    /// The list that an earlier answer named.
    pub session: Option<&'a str>,
    /// Where to go on.
    pub cursor: Option<&'a str>,
    /// How long to wait for a change, in milliseconds.
    pub wait_ms: Option<u64>,
    /// To add to the session's list.
    pub add: Vec<Entry<'a>>,
    /// To take from it.
    pub remove: Vec<Entry<'a>>,
}

/// The body of `POST /v1/poll`.
pub fn poll(out: &mut Vec<u8>, request: &PollRequest<'_>) {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        objects: Option<&'a [Entry<'a>]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        wait_ms: Option<u64>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        add: &'a [Entry<'a>],
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        remove: &'a [Entry<'a>],
    }
    put(
        out,
        &Body {
            objects: request.objects.as_deref(),
            session: request.session,
            cursor: request.cursor,
            wait_ms: request.wait_ms,
            add: &request.add,
            remove: &request.remove,
        },
    );
}

/// The body of `POST /v1/events`.
pub fn events<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = Entry<'a>>, cursor: Option<&str>) {
    out.push(b'{');
    list(out, "objects", entries);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":");
        put(out, cursor);
    }
    out.push(b'}');
}

/// The body of `POST /v1/sessions`.
pub fn session<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = Entry<'a>>) {
    events(out, entries, None);
}

/// A change to be published.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ChangeRequest<'a> {
    /// The object's ID.
    pub object: &'a str,
    /// A tag of at most 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// Any JSON of at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// The number that the publisher's source gave to this state, below 2^53.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl ChangeRequest<'_> {
    /// The body of a publish of this change alone; with a line break behind it, a line of a stream.
    pub fn write(&self, out: &mut Vec<u8>) {
        put(out, self);
    }
}

/// The body of a publish of several changes.
pub fn changes<'a>(out: &mut Vec<u8>, changes: impl IntoIterator<Item = ChangeRequest<'a>>) {
    out.extend_from_slice(b"{\"changes\":[");
    for (place, change) in changes.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        change.write(out);
    }
    out.extend_from_slice(b"]}");
}
