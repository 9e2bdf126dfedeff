//! What a client says on a WebSocket.

use super::entry::{Entries, EntryResult};
use super::fault::{Fault, Form, Json, Packed};
use super::value::{Flag, Seen, Text, fields};
use crate::codec::{Encoding, RequestId};
use crate::error::{Code, Problem};
use crate::version::Version;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use std::cell::Cell;

/// How many requests one frame may join. What follows is refused with one problem.
pub const MAX_REQUESTS_PER_FRAME: usize = 256;

/// One request on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// "Tell me of these from now on."
    Subscribe {
        /// What to hear of.
        objects: Vec<EntryResult>,
        /// Where to go on. Not yet decoded: an unreadable one is no error.
        cursor: Option<String>,
        /// More pages follow: no cursor before the last one is answered.
        more: bool,
    },
    /// "No longer tell me of these."
    Unsubscribe {
        /// What not to hear of.
        objects: Vec<EntryResult>,
    },
    /// Fresh credentials.
    Auth {
        /// The token, never empty.
        token: String,
    },
    /// "Are you there?"
    Ping,
}

/// The requests in one frame, each with its ID where one could be read.
///
/// In JSON several objects may be joined by newlines; one that makes no sense spoils the rest of its line only. In
/// MessagePack a frame is one map. `limit_objects` bounds the list of each request. For [`Encoding::EventStream`], on
/// which clients say nothing, the payload is read as JSON.
#[must_use]
pub fn parse_requests(
    encoding: Encoding,
    payload: &[u8],
    limit_objects: usize,
) -> Vec<(Option<RequestId>, Result<Request, Problem>)> {
    if encoding == Encoding::WebSocketMessagePack {
        return vec![one::<Packed>(payload, limit_objects)];
    }
    let mut requests = Vec::new();
    let mut rest = payload.trim_ascii_start();
    while !rest.is_empty() {
        if requests.len() == MAX_REQUESTS_PER_FRAME {
            let detail = format!("a frame joins at most {MAX_REQUESTS_PER_FRAME} requests: the rest was not read");
            requests.push((None, Err(Problem::new(Code::BadRequest, detail))));
            return requests;
        }
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        match values.next() {
            Some(Ok(raw)) => {
                rest = &rest[values.byte_offset()..];
                requests.push(one::<Json>(raw.get().as_bytes(), limit_objects));
            }
            Some(Err(error)) => {
                requests.push((
                    None,
                    Err(Problem::new(
                        Code::BadRequest,
                        format!("the frame is not JSON: {error}"),
                    )),
                ));
                rest = rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(&[], |end| &rest[end..]);
            }
            None => break,
        }
        rest = rest.trim_ascii_start();
    }
    if requests.is_empty() {
        requests.push((None, Err(Problem::new(Code::BadRequest, "the frame is empty"))));
    }
    requests
}

fn one<F: Form>(body: &[u8], limit: usize) -> (Option<RequestId>, Result<Request, Problem>) {
    let fault = Fault::default();
    match F::read(body, &fault, RequestMap { fault: &fault, limit }) {
        Ok((id, request)) => (id, Ok(request)),
        Err(problem) => {
            // The ID may stand behind what made no sense: look for it alone.
            let id = Cell::new(None);
            let _unreadable = F::read(body, &Fault::default(), IdAlone(&id));
            (id.take(), Err(problem))
        }
    }
}

fields!(RequestField {
    Subscribe = "subscribe",
    Unsubscribe = "unsubscribe",
    Auth = "auth",
    Ping = "ping",
    Id = "id",
});

struct RequestMap<'f> {
    fault: &'f Fault,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for RequestMap<'_> {
    type Value = (Option<RequestId>, Request);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RequestMap<'_> {
    type Value = (Option<RequestId>, Request);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map with one request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut id, mut request) = (None, None);
        let mut seen = Seen::new(self.fault);
        let (fault, limit) = (self.fault, self.limit);
        while let Some(field) = map.next_key::<RequestField>()? {
            seen.enter(field)?;
            let is_request = !matches!(field, RequestField::Id | RequestField::Unknown);
            if is_request && request.is_some() {
                return Err(fault.raise(Code::BadRequest, "two requests in one object: send one object for each"));
            }
            match field {
                RequestField::Id => id = map.next_value_seed(Id)?,
                RequestField::Subscribe => {
                    request = Some(map.next_value_seed(Body {
                        fault,
                        limit,
                        what: field,
                    })?)
                }
                RequestField::Unsubscribe => {
                    request = Some(map.next_value_seed(Body {
                        fault,
                        limit,
                        what: field,
                    })?)
                }
                RequestField::Auth => {
                    request = Some(map.next_value_seed(Body {
                        fault,
                        limit,
                        what: field,
                    })?)
                }
                RequestField::Ping => {
                    map.next_value::<IgnoredAny>()?;
                    request = Some(Request::Ping);
                }
                RequestField::Unknown => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        match request {
            Some(request) => Ok((id, request)),
            None => Err(fault.raise(
                Code::BadRequest,
                "no request: the object must have one of `subscribe`, `unsubscribe`, `auth`, `ping`",
            )),
        }
    }
}

/// What stands behind `subscribe`, `unsubscribe` or `auth`.
struct Body<'f> {
    fault: &'f Fault,
    limit: usize,
    what: RequestField,
}

fields!(BodyField { Objects = "objects", Cursor = "cursor", More = "more", Token = "token", });

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Request;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Request, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Request;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.what, RequestField::Auth) {
            "a map with `token`"
        } else {
            "a map with `objects`"
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request, A::Error> {
        let (mut objects, mut cursor, mut more, mut token) = (None, None, None, None);
        let (is_auth, is_subscribe) = (
            matches!(self.what, RequestField::Auth),
            matches!(self.what, RequestField::Subscribe),
        );
        let mut seen = Seen::new(self.fault);
        while let Some(field) = map.next_key::<BodyField>()? {
            seen.enter(field)?;
            match field {
                BodyField::Objects if !is_auth => {
                    let entries = Entries {
                        fault: self.fault,
                        field: "objects",
                        limit: self.limit,
                    };
                    objects = map.next_value_seed(entries)?;
                }
                BodyField::Cursor if is_subscribe => cursor = map.next_value_seed(Text)?,
                BodyField::More if is_subscribe => more = map.next_value_seed(Flag)?,
                BodyField::Token if is_auth => token = map.next_value_seed(Text)?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        if is_auth {
            return match token {
                Some(token) if !token.is_empty() => Ok(Request::Auth { token: token.into() }),
                _ => Err(self
                    .fault
                    .raise(Code::InvalidField, "`token` must be a text that is not empty")),
            };
        }
        let Some(objects) = objects else {
            return Err(self
                .fault
                .raise(Code::NoObjects, "`objects` is missing: it must be a list of objects"));
        };
        Ok(if is_subscribe {
            Request::Subscribe {
                objects,
                cursor: cursor.map(Into::into),
                more: more.unwrap_or(false),
            }
        } else {
            Request::Unsubscribe { objects }
        })
    }
}

/// A request's ID; null is `None`.
struct Id;

impl<'de> DeserializeSeed<'de> for Id {
    type Value = Option<RequestId>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Id {
    type Value = Option<RequestId>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = Version::LIMIT - 1;
        write!(
            f,
            "an integer from 0 to {most} or a text of at most {} bytes",
            RequestId::MAX_BYTES
        )
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        if number < Version::LIMIT {
            Ok(Some(RequestId::Number(number)))
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.len() <= RequestId::MAX_BYTES {
            Ok(Some(RequestId::Text(text.into())))
        } else {
            Err(E::invalid_length(text.len(), &self))
        }
    }
}

/// Reads a request's ID and nothing else, and keeps it even if what follows breaks off.
struct IdAlone<'c>(&'c Cell<Option<RequestId>>);

impl<'de> DeserializeSeed<'de> for IdAlone<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IdAlone<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<RequestField>()? {
            if matches!(field, RequestField::Id) {
                self.0.set(map.next_value_seed(Id)?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
