//! What publishers send: changes, and how surely each must be kept before it is acknowledged.

use super::MAX_TIMEOUT_MS;
use super::fault::{Fault, Form, Json, Packed};
use super::packed::Walk;
use super::query::{integer, once, query_pairs};
use super::value::{Integer, Seen, Text, fields};
use crate::error::{Code, Problem};
use crate::hint::Hint;
use crate::id::check_object_id;
use crate::limits::{MAX_KIND_BYTES, REVISION_LIMIT};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One change to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// What changed; keeps the rules for IDs.
    pub object: Cow<'a, str>,
    /// What to tell beside the fact, if anything.
    pub hint: Option<Hint>,
    /// The publisher's own number of this state of the object.
    pub revision: Option<u64>,
}

impl Change<'_> {
    /// The same change, free of the body it was read from.
    #[must_use]
    pub fn into_owned(self) -> Change<'static> {
        Change {
            object: Cow::Owned(self.object.into_owned()),
            hint: self.hint,
            revision: self.revision,
        }
    }
}

/// The changes of one request, at least one. A bad one among several spoils only itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishBody<'a> {
    /// In the publisher's order.
    pub changes: Vec<Result<Change<'a>, Problem>>,
    /// Not a list but one change: answer with its version alone. Then it is not an `Err`.
    pub single: bool,
}

/// How surely a change must be kept before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ack {
    /// Written by the owner.
    Accepted,
    /// Written by all in-sync copies.
    #[default]
    Replicated,
    /// Synced to disk by all of them.
    Durable,
}

impl Ack {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replicated => "replicated",
            Self::Durable => "durable",
        }
    }
}

/// What the query string of a publish says about the whole request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// How surely each change must be kept.
    pub ack: Ack,
    /// The request's deadline, from 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: Option<u64>,
    /// Whether the answer names shard and epoch.
    pub trace: bool,
}

impl PublishOptions {
    /// From the query string; other parameters are left alone.
    ///
    /// # Errors
    /// Names the parameter and what it may be.
    pub fn from_query(query: &str) -> Result<Self, Problem> {
        let (mut ack, mut timeout_ms, mut trace) = (None, None, None);
        for pair in query_pairs(query) {
            let (name, value) = pair?;
            match &*name {
                "ack" => once(&mut ack, "ack", read_ack(&value)?)?,
                "timeout_ms" => {
                    once(
                        &mut timeout_ms,
                        "timeout_ms",
                        integer("timeout_ms", &value, 1, MAX_TIMEOUT_MS)?,
                    )?;
                }
                "trace" => once(&mut trace, "trace", read_flag("trace", &value)?)?,
                _ => {}
            }
        }
        Ok(Self {
            ack: ack.unwrap_or_default(),
            timeout_ms,
            trace: trace.unwrap_or(false),
        })
    }
}

fn read_ack(text: &str) -> Result<Ack, Problem> {
    [Ack::Accepted, Ack::Replicated, Ack::Durable]
        .into_iter()
        .find(|ack| ack.as_str() == text)
        .ok_or_else(|| {
            Problem::new(
                Code::InvalidField,
                "`ack` must be one of `accepted`, `replicated`, `durable`",
            )
        })
}

fn read_flag(name: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Problem::new(Code::InvalidField, format!("`{name}` must be 1 or 0"))),
    }
}

/// One change in JSON, e.g. a line of a stream, without its line break. Borrows the object unless it holds escapes.
///
/// # Errors
/// Names the field and the limit.
pub fn parse_publish_line(line: &[u8]) -> Result<Change<'_>, Problem> {
    parse_change::<Json>(line)
}

/// A JSON body: one change, or a map with a list of `changes`.
///
/// # Errors
/// If the body makes no sense, or holds no change or more than `max_changes`. Whatever is wrong within one of several
/// changes stands in its place.
pub fn parse_publish_json(body: &[u8], max_changes: usize) -> Result<PublishBody<'_>, Problem> {
    let fault = Fault::default();
    let Some(elements) = Json::read(
        body,
        &fault,
        Batch {
            fault: &fault,
            max_changes,
        },
    )?
    else {
        return Ok(PublishBody {
            changes: vec![Ok(parse_publish_line(body)?)],
            single: true,
        });
    };
    let changes = elements
        .iter()
        .map(|raw| parse_publish_line(raw.get().as_bytes()))
        .collect();
    batch(changes)
}

/// A MessagePack body, of the same shapes as in JSON.
///
/// # Errors
/// As [`parse_publish_json`].
pub fn parse_publish_msgpack(body: &[u8], max_changes: usize) -> Result<PublishBody<'_>, Problem> {
    match packed_elements(body, max_changes)? {
        None => Ok(PublishBody {
            changes: vec![Ok(parse_change::<Packed>(body)?)],
            single: true,
        }),
        Some(elements) => batch(elements.into_iter().map(parse_change::<Packed>).collect()),
    }
}

/// A query string: `object`, also repeated, with `kind` and `revision` for all of them.
///
/// # Errors
/// As [`parse_publish_json`].
pub fn parse_publish_query(query: &str, max_changes: usize) -> Result<PublishBody<'static>, Problem> {
    let (mut objects, mut kind, mut revision) = (Vec::new(), None, None);
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        match &*name {
            "object" if objects.len() == max_changes => return Err(too_many_changes("object", max_changes)),
            "object" => objects.push(value.into_owned()),
            "kind" => {
                check_kind(&value)?;
                once(&mut kind, "kind", Box::from(value))?;
            }
            "revision" => {
                once(
                    &mut revision,
                    "revision",
                    integer("revision", &value, 0, REVISION_LIMIT - 1)?,
                )?;
            }
            _ => {}
        }
    }
    let hint = kind.map(|kind| Hint {
        kind: Some(kind),
        data: None,
    });
    let change = |object: String| {
        check_object(&object)?;
        Ok(Change {
            object: Cow::Owned(object),
            hint: hint.clone(),
            revision,
        })
    };
    if objects.len() == 1 {
        return Ok(PublishBody {
            changes: vec![Ok(change(objects.remove(0))?)],
            single: true,
        });
    }
    batch(objects.into_iter().map(change).collect())
}

fn batch(changes: Vec<Result<Change<'_>, Problem>>) -> Result<PublishBody<'_>, Problem> {
    if changes.is_empty() {
        return Err(Problem::new(Code::NoObjects, "no change: name at least one `object`"));
    }
    Ok(PublishBody { changes, single: false })
}

fn too_many_changes(field: &str, limit: usize) -> Problem {
    let detail =
        format!("`{field}`: a request holds at most {limit} changes; send more requests, or a stream of lines");
    Problem::new(Code::TooManyChanges, detail)
}

fn both_shapes() -> Problem {
    Problem::new(
        Code::BadRequest,
        "the body has both `object` and `changes`: it is one change or a list, not both",
    )
}

fn check_object(object: &str) -> Result<(), Problem> {
    check_object_id(object).map_err(|error| Problem::new(Code::InvalidObject, format!("`object`: {error}")))
}

fn check_kind(kind: &str) -> Result<(), Problem> {
    if kind.is_empty() || kind.len() > MAX_KIND_BYTES || kind.contains(char::is_control) {
        let detail = format!("`kind` has 1 to {MAX_KIND_BYTES} bytes and no control characters");
        return Err(Problem::new(Code::InvalidField, detail));
    }
    Ok(())
}

fn parse_change<F: Form>(body: &[u8]) -> Result<Change<'_>, Problem> {
    let fault = Fault::default();
    F::read(
        body,
        &fault,
        ChangeMap::<F> {
            fault: &fault,
            form: std::marker::PhantomData,
        },
    )
}

fields!(ChangeField { Object = "object", Kind = "kind", Data = "data", Revision = "revision", });

struct ChangeMap<'f, F> {
    fault: &'f Fault,
    form: std::marker::PhantomData<F>,
}

impl<'de, F: Form> DeserializeSeed<'de> for ChangeMap<'_, F> {
    type Value = Change<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Change<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Form> Visitor<'de> for ChangeMap<'_, F> {
    type Value = Change<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a change: a map with `object`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Change<'de>, A::Error> {
        let (mut object, mut kind, mut data, mut revision) = (None, None, None, None);
        let fault = self.fault;
        let mut seen = Seen::new(fault);
        while let Some(field) = map.next_key::<ChangeField>()? {
            seen.enter(field)?;
            match field {
                ChangeField::Object => object = map.next_value_seed(Text)?,
                ChangeField::Kind => kind = map.next_value_seed(Text)?,
                ChangeField::Data => data = F::document(&mut map, fault)?,
                ChangeField::Revision => {
                    revision = map.next_value_seed(Integer {
                        least: 0,
                        most: REVISION_LIMIT - 1,
                    })?;
                }
                ChangeField::Unknown => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        let Some(object) = object else {
            return Err(fault.raise(Code::NoObjects, "the field `object` is missing: it names what changed"));
        };
        check_object(&object).map_err(|problem| fault.raise_problem::<A::Error>(problem))?;
        if let Some(kind) = &kind {
            check_kind(kind).map_err(|problem| fault.raise_problem::<A::Error>(problem))?;
        }
        let hint = (kind.is_some() || data.is_some()).then(|| Hint {
            kind: kind.map(Into::into),
            data,
        });
        Ok(Change { object, hint, revision })
    }
}

/// The elements of `changes`, unread; `None` for a body that is one change.
struct Batch<'f> {
    fault: &'f Fault,
    max_changes: usize,
}

fields!(BatchField { Changes = "changes", Object = "object", });

impl<'de> DeserializeSeed<'de> for Batch<'_> {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map with `object`, or one with a list of `changes`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut elements, mut is_change) = (None, false);
        let mut seen = Seen::new(self.fault);
        while let Some(field) = map.next_key::<BatchField>()? {
            seen.enter(field)?;
            match field {
                BatchField::Changes => {
                    let list = Elements {
                        fault: self.fault,
                        max_changes: self.max_changes,
                    };
                    elements = Some(map.next_value_seed(list)?);
                }
                BatchField::Object => {
                    is_change = true;
                    map.next_value::<IgnoredAny>()?;
                }
                BatchField::Unknown => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        if is_change && elements.is_some() {
            return Err(self.fault.raise_problem(both_shapes()));
        }
        Ok(elements)
    }
}

struct Elements<'f> {
    fault: &'f Fault,
    max_changes: usize,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of changes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(raw) = items.next_element()? {
            if elements.len() == self.max_changes {
                return Err(self.fault.raise_problem(too_many_changes("changes", self.max_changes)));
            }
            elements.push(raw);
        }
        Ok(elements)
    }
}

/// The elements of `changes`, unread; `None` for a body that is one change or makes no sense.
fn packed_elements(body: &[u8], max_changes: usize) -> Result<Option<Vec<&[u8]>>, Problem> {
    let broken = || Problem::new(Code::BadRequest, "the body is not exactly one value of MessagePack");
    if Walk::new(body).skip() != Some(body.len()) {
        return Err(broken());
    }
    let mut walk = Walk::new(body);
    let Some(entries) = walk.enter_map() else {
        return Ok(None);
    };
    let (mut elements, mut is_change) = (None, false);
    for _ in 0..entries {
        let Some(name) = walk.text() else { return Ok(None) };
        if name != b"changes" {
            is_change |= name == b"object";
            walk.value().ok_or_else(broken)?;
            continue;
        }
        if elements.is_some() {
            return Err(Problem::new(Code::BadRequest, "the field `changes` comes twice"));
        }
        let Some(count) = walk.enter_list() else {
            return Err(Problem::new(Code::InvalidField, "`changes` must be a list of changes"));
        };
        if count > max_changes {
            return Err(too_many_changes("changes", max_changes));
        }
        elements = Some(
            (0..count)
                .map(|_| walk.value().ok_or_else(broken))
                .collect::<Result<Vec<_>, _>>()?,
        );
    }
    if is_change && elements.is_some() {
        return Err(both_shapes());
    }
    Ok(elements)
}
