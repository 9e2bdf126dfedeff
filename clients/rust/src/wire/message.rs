//! The messages of a WebSocket, and the values that all transports share.

use super::text::{RawJson, Text};
use super::{WireError, fast};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, Visitor};
use tidings_protocol::{Epoch, ShardId, Version};

/// One thing that the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerMessage<'a> {
    /// The first message on a connection.
    Hello(Hello<'a>),
    /// The answer to `subscribe`, object by object.
    Subscribed {
        /// The request's.
        id: Option<RequestId<'a>>,
        /// Each object with its version or its refusal.
        objects: Vec<Answered<'a>>,
    },
    /// The answer to `unsubscribe`.
    Unsubscribed {
        /// The request's.
        id: Option<RequestId<'a>>,
    },
    /// The answer to `auth`.
    Authenticated {
        /// The request's.
        id: Option<RequestId<'a>>,
        /// How long the token holds; `None`: for ever.
        expires_in_ms: Option<u64>,
    },
    /// These changed.
    Changes(Changes<'a>),
    /// Everything before this was told.
    Cursor(Text<'a>),
    /// These may have changed: fetch them.
    Resync(Resync<'a>),
    /// The server is cut off from the owners of some objects, or whole again.
    Stale(bool),
    /// Come back, anywhere, after a while.
    Reconnect(Reconnect<'a>),
    /// A request failed; the connection lives on.
    Error {
        /// The request's.
        id: Option<RequestId<'a>>,
        /// What failed.
        error: Failure<'a>,
    },
    /// The answer to `ping`.
    Pong {
        /// The request's.
        id: Option<RequestId<'a>>,
    },
    /// A message that this client does not know: to be passed over.
    Unknown,
}

/// What a server says of itself at first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hello<'a> {
    /// The connection's name, for operators.
    #[serde(borrow)]
    pub connection: Option<Text<'a>>,
    /// The node's name.
    #[serde(borrow)]
    pub node: Option<Text<'a>>,
    /// At least this often something comes, in milliseconds.
    pub ping_ms: Option<u64>,
    /// What this connection may use.
    pub limits: Option<Limits>,
}

/// What one connection may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Objects watched at a time.
    pub objects: Option<u64>,
    /// Bytes of one frame from the client.
    pub frame_bytes: Option<u64>,
}

/// One object of a `subscribed`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Answered<'a> {
    /// Its ID.
    #[serde(borrow)]
    pub object: Text<'a>,
    /// Its current version; `None`: none is known, or it is refused.
    #[serde(default)]
    pub version: Option<Version>,
    /// Why it is refused, if it is.
    #[serde(borrow, default)]
    pub error: Option<Failure<'a>>,
}

/// An object that will not be heard of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refused<'a> {
    /// Its ID.
    #[serde(borrow)]
    pub object: Text<'a>,
    /// Why.
    #[serde(borrow)]
    pub error: Failure<'a>,
}

/// Why something failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Failure<'a> {
    /// A stable word; [`Failure::known`] compares it with those of the protocol.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// For people.
    #[serde(borrow)]
    pub message: Text<'a>,
    /// Whether the same may succeed later.
    pub retryable: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change<'a> {
    /// The object's ID.
    #[serde(borrow)]
    pub object: Text<'a>,
    /// Its newest version; `None`: unknown, fetch it.
    #[serde(default)]
    pub version: Option<Version>,
    /// The publisher's tag, if it is at hand.
    #[serde(borrow, default)]
    pub kind: Option<Text<'a>>,
    /// The publisher's data as JSON, if it is at hand.
    #[serde(borrow, default)]
    pub data: Option<RawJson<'a>>,
    /// Where the version came from, with `?trace=1`.
    #[serde(default)]
    pub shard: Option<ShardId>,
    /// Of which owner of the shard, with `?trace=1`.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

/// The changes of one message, in their order. A message of one costs no allocation.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    first: Option<Change<'a>>,
    rest: std::vec::IntoIter<Change<'a>>,
}

impl<'a> Changes<'a> {
    pub(super) fn of(first: Option<Change<'a>>, rest: Vec<Change<'a>>) -> Self {
        Self {
            first,
            rest: rest.into_iter(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Change<'a>> {
        self.first.iter().chain(self.rest.as_slice())
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    #[inline]
    fn next(&mut self) -> Option<Change<'a>> {
        self.first.take().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.first.is_some()) + self.rest.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Changes<'_> {}

impl PartialEq for Changes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.all().eq(other.all())
    }
}

impl Eq for Changes<'_> {}

/// "These may have changed: fetch them."
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resync<'a> {
    /// Which; `None`: all that are watched.
    #[serde(borrow, default)]
    pub objects: Option<Vec<Text<'a>>>,
    /// A stable word.
    #[serde(borrow, default)]
    pub cause: Text<'a>,
}

/// "Come back, anywhere, after a while."
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reconnect<'a> {
    /// After so long, in milliseconds.
    pub after_ms: u64,
    /// A stable word.
    #[serde(borrow)]
    pub reason: Text<'a>,
}

/// How a request was named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestId<'a> {
    /// By a number.
    Number(u64),
    /// By a text.
    Text(Text<'a>),
}

impl Failure<'_> {
    /// The code, if the protocol of this client's time knows it.
    #[must_use]
    pub fn known(&self) -> Option<tidings_protocol::Code> {
        let all = tidings_protocol::Code::ALL.iter();
        all.copied().find(|code| code.as_str() == &*self.code)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RequestId<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RequestId<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(RequestId::Number(number))
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(RequestId::Text(text.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(RequestId::Text(Text(text.to_owned().into())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The messages in the payload of one text frame.
///
/// A line that makes no sense is an error of its own; the lines after it are read nevertheless. A payload that is not
/// UTF-8 is one error.
#[must_use]
pub fn messages(payload: &[u8]) -> Messages<'_> {
    match std::str::from_utf8(payload) {
        Ok(rest) => Messages { rest, broken: false },
        Err(_) => Messages { rest: "", broken: true },
    }
}

/// Reads the messages of one payload; see [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a str,
    broken: bool,
}

impl<'a> Messages<'a> {
    /// Of text that is known to be UTF-8.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        Self {
            rest: text,
            broken: false,
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<ServerMessage<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.broken) {
            return Some(Err(WireError::Utf8));
        }
        while !self.rest.is_empty() {
            if let Some((message, length)) = fast::message(self.rest) {
                // What the fast reader took ends with its line.
                self.rest = self.rest.get(length + 1..).unwrap_or_default();
                return Some(Ok(message));
            }
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            if !line.trim_ascii().is_empty() {
                return Some(read(line));
            }
        }
        None
    }
}

/// Everything a message may be. A field that comes twice is refused, one that is not known is passed over.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    hello: Option<Hello<'a>>,
    #[serde(borrow)]
    subscribed: Option<Subscribed<'a>>,
    unsubscribed: Option<IgnoredAny>,
    authenticated: Option<Authenticated>,
    #[serde(borrow)]
    changes: Option<Vec<Change<'a>>>,
    #[serde(borrow)]
    cursor: Option<Text<'a>>,
    #[serde(borrow)]
    resync: Option<Resync<'a>>,
    stale: Option<bool>,
    #[serde(borrow)]
    reconnect: Option<Reconnect<'a>>,
    #[serde(borrow)]
    error: Option<Failure<'a>>,
    pong: Option<IgnoredAny>,
    #[serde(borrow)]
    id: Option<RequestId<'a>>,
}

#[derive(Deserialize)]
struct Subscribed<'a> {
    #[serde(borrow, default)]
    objects: Vec<Answered<'a>>,
}

#[derive(Deserialize)]
struct Authenticated {
    expires_in_ms: Option<u64>,
}

/// One message with the full parser.
pub(super) fn read(line: &str) -> Result<ServerMessage<'_>, WireError> {
    let Frame {
        hello,
        subscribed,
        unsubscribed,
        authenticated,
        changes,
        cursor,
        resync,
        stale,
        reconnect,
        error,
        pong,
        id,
    } = serde_json::from_str(line)?;
    let mut said = Vec::new();
    said.extend(hello.map(ServerMessage::Hello));
    if let Some(changes) = changes {
        check(changes.iter().filter_map(|change| change.version))?;
        said.push(ServerMessage::Changes(Changes::of(None, changes)));
    }
    said.extend(cursor.map(ServerMessage::Cursor));
    said.extend(resync.map(ServerMessage::Resync));
    said.extend(stale.map(ServerMessage::Stale));
    said.extend(reconnect.map(ServerMessage::Reconnect));
    // At most one message has the ID.
    let mut id = id;
    if let Some(Subscribed { objects }) = subscribed {
        check(objects.iter().filter_map(|answered| answered.version))?;
        let id = id.take();
        said.push(ServerMessage::Subscribed { id, objects });
    }
    if unsubscribed.is_some() {
        said.push(ServerMessage::Unsubscribed { id: id.take() });
    }
    if let Some(Authenticated { expires_in_ms }) = authenticated {
        let id = id.take();
        said.push(ServerMessage::Authenticated { id, expires_in_ms });
    }
    if let Some(error) = error {
        said.push(ServerMessage::Error { id: id.take(), error });
    }
    if pong.is_some() {
        said.push(ServerMessage::Pong { id: id.take() });
    }
    if said.len() > 1 {
        return Err(WireError::Ambiguous);
    }
    Ok(said.pop().unwrap_or(ServerMessage::Unknown))
}

pub(super) fn check(mut versions: impl Iterator<Item = Version>) -> Result<(), WireError> {
    match versions.any(|version| version.0 >= Version::LIMIT) {
        true => Err(WireError::Version),
        false => Ok(()),
    }
}

/// One change with the full parser, as an event stream tells it.
pub(super) fn read_change(line: &str) -> Result<Change<'_>, WireError> {
    if let Some(change) = fast::change(line) {
        return Ok(change);
    }
    let change: Change<'_> = serde_json::from_str(line)?;
    check(change.version.into_iter())?;
    Ok(change)
}

/// `null` counts as absent.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer)
        .map(Option::unwrap_or_default)
        .map_err(D::Error::custom)
}
