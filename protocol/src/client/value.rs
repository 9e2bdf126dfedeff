//! Readers of single values, and the rules that hold in every map: known fields once, unknown ones ignored.

use super::fault::Fault;
use crate::error::Code;
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};
use std::borrow::Cow;

/// The fields of one kind of map.
pub(super) trait Field: Copy {
    /// Its place among the known fields and its name; `None` for one that nobody knows.
    fn known(self) -> Option<(u32, &'static str)>;
}

/// Declares the fields of one kind of map.
macro_rules! fields {
    ($name:ident { $($variant:ident = $text:literal,)* }) => {
        #[derive(Clone, Copy)]
        enum $name { $($variant,)* Unknown }

        impl $crate::client::value::Field for $name {
            fn known(self) -> Option<(u32, &'static str)> {
                match self {
                    $(Self::$variant => Some((Self::$variant as u32, $text)),)*
                    Self::Unknown => None,
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Name;
                impl serde::de::Visitor<'_> for Name {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("the name of a field")
                    }

                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$name, E> {
                        Ok(match name { $($text => $name::$variant,)* _ => $name::Unknown })
                    }
                }
                deserializer.deserialize_identifier(Name)
            }
        }
    };
}
pub(super) use fields;

/// Which known fields of one map have come.
pub(super) struct Seen<'f> {
    fault: &'f Fault,
    bits: u32,
}

impl<'f> Seen<'f> {
    pub(super) fn new(fault: &'f Fault) -> Self {
        fault.leave();
        Self { fault, bits: 0 }
    }

    /// Call before a field's value is read.
    pub(super) fn enter<E: Error>(&mut self, field: impl Field) -> Result<(), E> {
        let Some((place, name)) = field.known() else {
            self.fault.leave();
            return Ok(());
        };
        let bit = 1 << place;
        if self.bits & bit != 0 {
            return Err(self
                .fault
                .raise(Code::BadRequest, format!("the field `{name}` comes twice")));
        }
        self.bits |= bit;
        self.fault.enter(name);
        Ok(())
    }

    /// Call after it was read.
    pub(super) fn leave(&self) {
        self.fault.leave();
    }
}

/// A text; null is `None`.
#[derive(Clone, Copy)]
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// An integer from `least` to `most`; null is `None`.
#[derive(Clone, Copy)]
pub(super) struct Integer {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl<'de> DeserializeSeed<'de> for Integer {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Integer {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an integer from {} to {}", self.least, self.most)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        if (self.least..=self.most).contains(&number) {
            Ok(Some(number))
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

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Yes or no; null is `None`.
#[derive(Clone, Copy)]
pub(super) struct Flag;

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = Option<bool>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Flag {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a boolean")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Some(flag))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
