//! One object in a list of objects: its ID as text, or a map that says more.

use super::MAX_ECHO_CHARS;
use super::fault::Fault;
use super::value::{Integer, Seen, Text, fields};
use crate::error::{Code, Problem};
use crate::id::check_object_id;
use crate::version::Version;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An object that a client wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its ID, which keeps the rules for IDs.
    pub object: Box<str>,
    /// The version the client knows already.
    pub version: Option<Version>,
    /// A version the answer's state must include.
    pub at_least: Option<Version>,
}

/// An entry, or the text that is no object ID (printable, cut to [`MAX_ECHO_CHARS`]) and why.
pub type EntryResult = Result<Entry, (String, Problem)>;

/// An entry without more than its ID.
pub(super) fn entry(object: &str) -> EntryResult {
    match check_object_id(object) {
        Ok(()) => Ok(Entry {
            object: object.into(),
            version: None,
            at_least: None,
        }),
        Err(error) => Err((
            echo(object),
            Problem::new(Code::InvalidObject, format!("`object`: {error}")),
        )),
    }
}

/// A text that may be told back: short and printable.
fn echo(text: &str) -> String {
    text.chars()
        .take(MAX_ECHO_CHARS)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Any version a JSON number can hold.
pub(super) const ANY_VERSION: Integer = Integer {
    least: 0,
    most: Version::LIMIT - 1,
};

/// Too many objects in `field`.
pub(super) fn too_many_objects(field: &str, limit: usize) -> Problem {
    Problem::new(Code::TooManyObjects, format!("`{field}` names at most {limit} objects"))
}

/// A list of entries; null is `None`.
#[derive(Clone, Copy)]
pub(super) struct Entries<'f> {
    pub(super) fault: &'f Fault,
    pub(super) field: &'static str,
    pub(super) limit: usize,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Option<Vec<EntryResult>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Option<Vec<EntryResult>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        loop {
            self.fault.enter(self.field);
            let Some(entry) = items.next_element_seed(OneEntry {
                fault: self.fault,
                field: self.field,
            })?
            else {
                return Ok(Some(entries));
            };
            if entries.len() == self.limit {
                return Err(self.fault.raise_problem(too_many_objects(self.field, self.limit)));
            }
            entries.push(entry);
        }
    }
}

struct OneEntry<'f> {
    fault: &'f Fault,
    field: &'static str,
}

fields!(EntryField { Object = "object", Version = "version", AtLeast = "at_least", });

impl<'de> DeserializeSeed<'de> for OneEntry<'_> {
    type Value = EntryResult;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EntryResult, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneEntry<'_> {
    type Value = EntryResult;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object ID as text, or a map with `object`")
    }

    fn visit_str<E: serde::de::Error>(self, object: &str) -> Result<EntryResult, E> {
        Ok(entry(object))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntryResult, A::Error> {
        let (mut object, mut version, mut at_least) = (None, None, None);
        let mut seen = Seen::new(self.fault);
        while let Some(field) = map.next_key::<EntryField>()? {
            seen.enter(field)?;
            match field {
                EntryField::Object => object = map.next_value_seed(Text)?,
                EntryField::Version => version = map.next_value_seed(ANY_VERSION)?,
                EntryField::AtLeast => at_least = map.next_value_seed(ANY_VERSION)?,
                EntryField::Unknown => _ = map.next_value::<IgnoredAny>()?,
            }
            seen.leave();
        }
        let Some(object) = object else {
            let detail = format!("`{}`: an entry that is a map must have the field `object`", self.field);
            return Err(self.fault.raise(Code::InvalidField, detail));
        };
        let (version, at_least) = (version.map(Version), at_least.map(Version));
        Ok(entry(&object).map(|entry| Entry {
            version,
            at_least,
            ..entry
        }))
    }
}
