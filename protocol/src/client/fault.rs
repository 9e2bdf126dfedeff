//! Carries a problem past serde, whose errors are only text, and runs a reader over a whole body of either form.

use super::packed;
use crate::codec::{Pen, Pour, TOO_DEEP, TOO_LONG};
use crate::error::{Code, Problem};
use crate::hint::{DataError, compact_json};
use crate::limits::{MAX_DATA_BYTES, MAX_DATA_DEPTH};
use serde::de::{DeserializeSeed, MapAccess};
use std::cell::{Cell, RefCell};

/// The longest explanation made from a parser's own words, in bytes: these may quote the client's text.
const MAX_WORDS: usize = 300;

/// What went wrong, and in which field, while one body was read.
#[derive(Default)]
pub(super) struct Fault {
    problem: RefCell<Option<Problem>>,
    field: Cell<Option<&'static str>>,
}

impl Fault {
    /// Notes the problem and gives the error that stops serde.
    #[cold]
    pub(super) fn raise<E: serde::de::Error>(&self, code: Code, detail: impl Into<String>) -> E {
        self.raise_problem(Problem::new(code, detail))
    }

    #[cold]
    pub(super) fn raise_problem<E: serde::de::Error>(&self, problem: Problem) -> E {
        let error = E::custom(&problem.detail);
        *self.problem.borrow_mut() = Some(problem);
        error
    }

    /// The field whose value is read next: a wrong type there is the field's fault.
    pub(super) fn enter(&self, field: &'static str) {
        self.field.set(Some(field));
    }

    pub(super) fn leave(&self) {
        self.field.set(None);
    }

    /// `words` came from the parser; `wrong_type` if the bytes make sense but not as what was expected.
    #[cold]
    fn problem(&self, words: &str, wrong_type: bool) -> Problem {
        if let Some(problem) = self.problem.take() {
            return problem;
        }
        let mut end = words.len().min(MAX_WORDS);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        let words = &words[..end];
        match self.field.get() {
            Some(field) if wrong_type => Problem::new(Code::InvalidField, format!("`{field}`: {words}")),
            _ => Problem::new(Code::BadRequest, words),
        }
    }
}

/// A form of body. They differ in how a document inside (`data`) becomes compact JSON.
pub(super) trait Form {
    /// Reads the whole of `body` as one value.
    fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], fault: &Fault, seed: S) -> Result<S::Value, Problem>;

    /// The next value of `map` as compact JSON, `None` for null.
    fn document<'de, A: MapAccess<'de>>(map: &mut A, fault: &Fault) -> Result<Option<Box<str>>, A::Error>;
}

/// JSON text.
pub(super) struct Json;

/// MessagePack.
pub(super) struct Packed;

impl Form for Json {
    fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], fault: &Fault, seed: S) -> Result<S::Value, Problem> {
        let text = std::str::from_utf8(body).map_err(|error| {
            Problem::new(
                Code::BadRequest,
                format!("the body is not UTF-8, at byte {}", error.valid_up_to()),
            )
        })?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = seed.deserialize(&mut reader).and_then(|value| {
            fault.leave();
            reader.end().map(|()| value)
        });
        read.map_err(|error| fault.problem(&error.to_string(), error.is_data()))
    }

    fn document<'de, A: MapAccess<'de>>(map: &mut A, fault: &Fault) -> Result<Option<Box<str>>, A::Error> {
        let Some(raw) = map.next_value::<Option<&serde_json::value::RawValue>>()? else {
            return Ok(None);
        };
        let compact = compact_json(raw.get()).map_err(|error| fault.raise_problem::<A::Error>(error.into()))?;
        Ok(Some(compact.into()))
    }
}

impl Form for Packed {
    fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], fault: &Fault, seed: S) -> Result<S::Value, Problem> {
        if packed::Walk::new(body).skip() != Some(body.len()) {
            return Err(Problem::new(
                Code::BadRequest,
                "the body is not exactly one value of MessagePack",
            ));
        }
        let mut reader = rmp_serde::Deserializer::from_read_ref(body);
        // Beyond `data`, whose own limit is told apart, nothing nests more than a few levels.
        reader.set_max_depth(2 * MAX_DATA_DEPTH);
        seed.deserialize(&mut reader)
            .map_err(|error| fault.problem(&error.to_string(), true))
    }

    fn document<'de, A: MapAccess<'de>>(map: &mut A, fault: &Fault) -> Result<Option<Box<str>>, A::Error> {
        let mut json = Vec::new();
        if let Err(error) = map.next_value_seed(Pour::up_to(&mut Pen::json(&mut json), MAX_DATA_BYTES)) {
            let words = error.to_string();
            let problem = if words.contains(TOO_DEEP) {
                DataError::TooDeep.into()
            } else if words.contains(TOO_LONG) {
                DataError::TooLarge { bytes: json.len() }.into()
            } else {
                Problem::new(Code::InvalidField, format!("`data`: {words}"))
            };
            return Err(fault.raise_problem(problem));
        }
        let json = String::from_utf8(json).map_err(serde::de::Error::custom)?;
        Ok((json != "null").then(|| json.into_boxed_str()))
    }
}
