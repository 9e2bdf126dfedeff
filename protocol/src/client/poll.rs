//! What opens or continues a long-poll or a stream of Server-Sent Events.

use super::MAX_WAIT_MS;
use super::entry::{Entries, EntryResult};
use super::fault::{Fault, Form, Json, Packed};
use super::query::{Objects, integer, once, query_pairs};
use super::value::{Integer, Seen, Text, fields};
use crate::error::{Code, Problem};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// One long-poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollRequest {
    /// What to hear of; `None` if a session says.
    pub objects: Option<Vec<EntryResult>>,
    /// The session that holds the list.
    pub session: Option<String>,
    /// Where to go on. Not yet decoded: an unreadable one is no error.
    pub cursor: Option<String>,
    /// How long to wait for a change, at most [`MAX_WAIT_MS`].
    pub wait_ms: Option<u64>,
    /// What to add to the session.
    pub add: Vec<EntryResult>,
    /// What to take out of the session.
    pub remove: Vec<EntryResult>,
}

/// One stream of Server-Sent Events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsRequest {
    /// What to hear of; `None` if a session says.
    pub objects: Option<Vec<EntryResult>>,
    /// Where to go on, unless the header `Last-Event-ID` says.
    pub cursor: Option<String>,
    /// The session that holds the list.
    pub session: Option<String>,
}

/// A session made beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRequest {
    /// What it is to hold: at least one entry.
    pub objects: Vec<EntryResult>,
}

impl PollRequest {
    /// From a JSON body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_json(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Json>(body, limit_objects)?.checked()
    }

    /// From a MessagePack body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_msgpack(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Packed>(body, limit_objects)?.checked()
    }

    /// From a query string, with `object` repeated; `add` and `remove` need a body.
    ///
    /// # Errors
    /// Names the parameter and the limit.
    pub fn from_query(query: &str, limit_objects: usize) -> Result<Self, Problem> {
        read_query(query, limit_objects)?.checked()
    }

    fn checked(self) -> Result<Self, Problem> {
        if self.session.is_none() && self.objects.as_ref().is_none_or(Vec::is_empty) {
            return Err(no_objects());
        }
        if self.session.is_none() && !(self.add.is_empty() && self.remove.is_empty()) {
            return Err(Problem::new(Code::BadRequest, "`add` and `remove` need a `session`"));
        }
        Ok(self)
    }

    /// The part that a stream has too; it ignores the rest like any field it does not know.
    fn into_events(self) -> Result<EventsRequest, Problem> {
        let Self {
            objects,
            cursor,
            session,
            ..
        } = self;
        if session.is_none() && objects.as_ref().is_none_or(Vec::is_empty) {
            return Err(no_objects());
        }
        Ok(EventsRequest {
            objects,
            cursor,
            session,
        })
    }

    fn into_session(self) -> Result<SessionRequest, Problem> {
        match self.objects {
            Some(objects) if !objects.is_empty() => Ok(SessionRequest { objects }),
            _ => Err(Problem::new(Code::NoObjects, "`objects` must name at least one object")),
        }
    }
}

impl EventsRequest {
    /// From a JSON body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_json(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Json>(body, limit_objects)?.into_events()
    }

    /// From a MessagePack body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_msgpack(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Packed>(body, limit_objects)?.into_events()
    }

    /// From a query string, with `object` repeated.
    ///
    /// # Errors
    /// Names the parameter and the limit.
    pub fn from_query(query: &str, limit_objects: usize) -> Result<Self, Problem> {
        read_query(query, limit_objects)?.into_events()
    }
}

impl SessionRequest {
    /// From a JSON body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_json(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Json>(body, limit_objects)?.into_session()
    }

    /// From a MessagePack body.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn from_msgpack(body: &[u8], limit_objects: usize) -> Result<Self, Problem> {
        read::<Packed>(body, limit_objects)?.into_session()
    }
}

fn no_objects() -> Problem {
    Problem::new(
        Code::NoObjects,
        "name at least one object (`objects`, or `object` in a query) or a `session`",
    )
}

fn read<F: Form>(body: &[u8], limit: usize) -> Result<PollRequest, Problem> {
    let fault = Fault::default();
    F::read(body, &fault, PollMap { fault: &fault, limit })
}

fn read_query(query: &str, limit: usize) -> Result<PollRequest, Problem> {
    let mut poll = PollRequest::default();
    let mut objects = Objects::new(limit);
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        match &*name {
            "object" => objects.push(&value)?,
            "session" => once(&mut poll.session, "session", value.into_owned())?,
            "cursor" => once(&mut poll.cursor, "cursor", value.into_owned())?,
            "wait_ms" => once(
                &mut poll.wait_ms,
                "wait_ms",
                integer("wait_ms", &value, 0, MAX_WAIT_MS)?,
            )?,
            _ => {}
        }
    }
    poll.objects = objects.entries;
    Ok(poll)
}

fields!(PollField {
    Objects = "objects",
    Session = "session",
    Cursor = "cursor",
    WaitMs = "wait_ms",
    Add = "add",
    Remove = "remove",
});

struct PollMap<'f> {
    fault: &'f Fault,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for PollMap<'_> {
    type Value = PollRequest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PollRequest, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PollMap<'_> {
    type Value = PollRequest;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map with `objects` or `session`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PollRequest, A::Error> {
        let mut poll = PollRequest::default();
        let mut seen = Seen::new(self.fault);
        let entries = |field| Entries {
            fault: self.fault,
            field,
            limit: self.limit,
        };
        while let Some(field) = map.next_key::<PollField>()? {
            seen.enter(field)?;
            match field {
                PollField::Objects => poll.objects = map.next_value_seed(entries("objects"))?,
                PollField::Session => poll.session = map.next_value_seed(Text)?.map(Into::into),
                PollField::Cursor => poll.cursor = map.next_value_seed(Text)?.map(Into::into),
                PollField::WaitMs => {
                    poll.wait_ms = map.next_value_seed(Integer {
                        least: 0,
                        most: MAX_WAIT_MS,
                    })?
                }
                PollField::Add => poll.add = map.next_value_seed(entries("add"))?.unwrap_or_default(),
                PollField::Remove => poll.remove = map.next_value_seed(entries("remove"))?.unwrap_or_default(),
                PollField::Unknown => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        Ok(poll)
    }
}
