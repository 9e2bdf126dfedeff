//! Writes maps, lists and scalars as JSON or MessagePack, and pours a document of one form into the other.
//!
//! It does not know what the maps mean.

use super::RequestId;
use crate::error::Problem;
use crate::version::Version;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Appends one document to `out`.
pub(crate) struct Pen<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    packed: bool,
    /// JSON: a value or key written next must be set off from the one before it.
    comma: bool,
}

impl<'a> Pen<'a> {
    pub(crate) fn json(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            packed: false,
            comma: false,
        }
    }

    pub(crate) fn message_pack(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            packed: true,
            comma: false,
        }
    }

    #[inline]
    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = !self.packed;
    }

    /// Begins a map; give the mark to [`Pen::close_map`] with the number of its entries.
    #[inline]
    pub(crate) fn open_map(&mut self) -> usize {
        self.open(b'{')
    }

    #[inline]
    pub(crate) fn close_map(&mut self, mark: usize, entries: usize) {
        if self.packed {
            self.fix_count(mark, entries, 0x80, 0xde);
        } else {
            self.out.push(b'}');
            self.comma = true;
        }
    }

    /// Begins a list; give the mark to [`Pen::close_list`] with the number of its entries.
    #[inline]
    pub(crate) fn open_list(&mut self) -> usize {
        self.open(b'[')
    }

    #[inline]
    pub(crate) fn close_list(&mut self, mark: usize, entries: usize) {
        if self.packed {
            self.fix_count(mark, entries, 0x90, 0xdc);
        } else {
            self.out.push(b']');
            self.comma = true;
        }
    }

    #[inline]
    fn open(&mut self, bracket: u8) -> usize {
        self.separate();
        self.comma = false;
        self.out.push(bracket);
        self.out.len() - 1
    }

    /// MessagePack names the count in front: one byte was left for it, which 15 entries fit.
    fn fix_count(&mut self, mark: usize, entries: usize, short: u8, long: u8) {
        if entries < 16 {
            self.out[mark] = short | entries as u8;
        } else if let Ok(entries) = u16::try_from(entries) {
            self.out[mark] = long;
            self.out.splice(mark + 1..mark + 1, entries.to_be_bytes());
        } else {
            self.out[mark] = long + 1;
            self.out.splice(mark + 1..mark + 1, (entries as u32).to_be_bytes());
        }
    }

    /// A key of ours, which needs no escaping.
    #[inline]
    pub(crate) fn key(&mut self, name: &'static str) {
        self.separate();
        if self.packed {
            self.out.push(0xa0 | name.len() as u8);
            self.out.extend_from_slice(name.as_bytes());
        } else {
            self.out.push(b'"');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"\":");
            self.comma = false;
        }
    }

    /// A key of somebody else's.
    fn any_key(&mut self, name: &str) {
        self.text(name);
        if !self.packed {
            self.out.push(b':');
            self.comma = false;
        }
    }

    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        self.separate();
        if !self.packed {
            return self.print(text);
        }
        match text.len() {
            length @ 0..32 => self.out.push(0xa0 | length as u8),
            length @ 32..0x100 => self.out.extend_from_slice(&[0xd9, length as u8]),
            length @ 0x100..0x1_0000 => self.tagged(0xda, &(length as u16).to_be_bytes()),
            length => self.tagged(0xdb, &(length as u32).to_be_bytes()),
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        self.separate();
        if !self.packed {
            return self.print(&number);
        }
        match number {
            0..0x80 => self.out.push(number as u8),
            0x80..0x100 => self.tagged(0xcc, &[number as u8]),
            0x100..0x1_0000 => self.tagged(0xcd, &(number as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.tagged(0xce, &(number as u32).to_be_bytes()),
            _ => self.tagged(0xcf, &number.to_be_bytes()),
        }
    }

    fn signed(&mut self, number: i64) {
        if let Ok(number) = u64::try_from(number) {
            return self.number(number);
        }
        self.separate();
        if !self.packed {
            return self.print(&number);
        }
        match number {
            -32..0 => self.out.push(number as u8),
            -0x80..-32 => self.tagged(0xd0, &[number as u8]),
            -0x8000..-0x80 => self.tagged(0xd1, &(number as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.tagged(0xd2, &(number as i32).to_be_bytes()),
            _ => self.tagged(0xd3, &number.to_be_bytes()),
        }
    }

    /// A finite number.
    fn float(&mut self, number: f64) {
        self.separate();
        if self.packed {
            self.tagged(0xcb, &number.to_be_bytes())
        } else {
            self.print(&number)
        }
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.separate();
        match (self.packed, flag) {
            (true, _) => self.out.push(0xc2 | u8::from(flag)),
            (false, true) => self.out.extend_from_slice(b"true"),
            (false, false) => self.out.extend_from_slice(b"false"),
        }
    }

    pub(crate) fn null(&mut self) {
        self.separate();
        if self.packed {
            self.out.push(0xc0)
        } else {
            self.out.extend_from_slice(b"null")
        }
    }

    /// One document that is at hand as compact JSON. What is not JSON after all becomes null.
    pub(crate) fn data(&mut self, json: &str) {
        if !self.packed {
            self.separate();
            self.out.extend_from_slice(json.as_bytes());
            return;
        }
        let start = self.out.len();
        let mut reader = serde_json::Deserializer::from_str(json);
        if Pour::new(self).deserialize(&mut reader).is_err() {
            debug_assert!(false, "hints are checked when they come in");
            self.out.truncate(start);
            self.null();
        }
    }

    /// A version, null where none is known.
    pub(crate) fn version(&mut self, version: Version) {
        match version.known() {
            Some(version) => self.number(version.0),
            None => self.null(),
        }
    }

    pub(crate) fn empty_map(&mut self) {
        let map = self.open_map();
        self.close_map(map, 0);
    }

    pub(crate) fn request_id(&mut self, id: &RequestId) {
        match id {
            RequestId::Number(number) => self.number(*number),
            RequestId::Text(text) => self.text(text),
        }
    }

    pub(crate) fn problem(&mut self, problem: &Problem) {
        let map = self.open_map();
        self.key("code");
        self.text(problem.code.as_str());
        self.key("message");
        self.text(&problem.detail);
        self.key("retryable");
        self.flag(problem.code.retryable());
        self.close_map(map, 3);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.out.push(tag);
        self.out.extend_from_slice(bytes);
    }

    /// JSON text of a scalar.
    #[inline]
    fn print<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        let written = serde_json::to_writer(&mut *self.out, value);
        debug_assert!(written.is_ok(), "a vector takes every text and number");
    }
}

/// Pours one document of any form into a pen, as far as JSON can say it: text for keys, finite numbers, no bytes.
pub(crate) struct Pour<'p, 'a> {
    pen: &'p mut Pen<'a>,
    /// Lists and maps that may still be opened.
    depth: usize,
    /// Length of the pen's output above which to give up.
    limit: usize,
}

/// The error text of [`Pour`] for a document that nests too deep.
pub(crate) const TOO_DEEP: &str = "nested too deep";
/// The error text of [`Pour`] for a document that is too long.
pub(crate) const TOO_LONG: &str = "too long";

impl<'p, 'a> Pour<'p, 'a> {
    pub(crate) fn new(pen: &'p mut Pen<'a>) -> Self {
        Self {
            pen,
            depth: crate::limits::MAX_DATA_DEPTH,
            limit: usize::MAX,
        }
    }

    /// Gives up when the pen's output is longer than this many bytes.
    pub(crate) fn up_to(pen: &'p mut Pen<'a>, limit: usize) -> Self {
        Self {
            limit,
            ..Self::new(pen)
        }
    }

    fn inner<E: serde::de::Error>(&mut self) -> Result<Pour<'_, 'a>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom(TOO_DEEP))?;
        Ok(Pour {
            pen: &mut *self.pen,
            depth,
            limit: self.limit,
        })
    }

    fn done<E: serde::de::Error>(self) -> Result<(), E> {
        if self.pen.out.len() > self.limit {
            Err(E::custom(TOO_LONG))
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Pour<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pour<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what JSON can say")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.pen.null();
        self.done()
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.pen.flag(flag);
        self.done()
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.pen.number(number);
        self.done()
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.pen.signed(number);
        self.done()
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        if !number.is_finite() {
            return Err(E::custom("a number that is not finite, which JSON cannot say"));
        }
        self.pen.float(number);
        self.done()
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.pen.text(text);
        self.done()
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let list = self.pen.open_list();
        let mut count = 0;
        while items.next_element_seed(self.inner()?)?.is_some() {
            count += 1;
        }
        self.pen.close_list(list, count);
        self.done()
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let map = self.pen.open_map();
        let mut count = 0;
        while entries.next_key_seed(Key(&mut *self.pen))?.is_some() {
            entries.next_value_seed(self.inner()?)?;
            count += 1;
        }
        self.pen.close_map(map, count);
        self.done()
    }
}

struct Key<'p, 'a>(&'p mut Pen<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text as the key of a map")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<(), E> {
        self.0.any_key(name);
        Ok(())
    }
}
