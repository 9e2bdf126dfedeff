//! What a publisher may say about a change beyond the fact: a short tag and a small document.
//!
//! It does not know which wire a document came by: MessagePack is turned into JSON text before it gets here.

use crate::error::{Code, Problem};
use crate::limits::{MAX_DATA_BYTES, MAX_DATA_DEPTH};
use std::borrow::Cow;
use std::sync::Arc;

/// `kind` and `data` of one change. Hints save a fetch; they are told with the newest version when it is delivered live
/// and may be absent after coalescing, catch-up or for want of memory. Immutable and shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// A short tag, e.g. `updated`.
    pub kind: Option<Box<str>>,
    /// One JSON value, as compact text: no white space between tokens, so that it holds no line break.
    pub data: Option<Box<str>>,
}

/// A hint as it travels inside one process.
pub type SharedHint = Arc<Hint>;

impl Hint {
    /// Bytes that keeping this hint costs, for budgets.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.kind.as_ref().map_or(0, |k| k.len()) + self.data.as_ref().map_or(0, |d| d.len())
    }
}

/// Why a document may not be the `data` of a change. **The change was not made.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Longer than [`MAX_DATA_BYTES`] in its compact form.
    #[error("`data` has at most {MAX_DATA_BYTES} bytes of compact JSON, this one has {bytes}")]
    TooLarge {
        /// Its length in bytes of compact JSON; where reading stopped early, a lower bound.
        bytes: usize,
    },
    /// Lists and maps inside each other more than [`MAX_DATA_DEPTH`] times.
    #[error("`data` nests at most {MAX_DATA_DEPTH} lists and maps inside each other, this one nests deeper")]
    TooDeep,
    /// A `\u` escape names half a character, which cannot be written in UTF-8.
    #[error("`data` holds half of a surrogate pair in a text, which is no character")]
    Surrogate,
    /// A number beyond what a double holds, e.g. `1e999`.
    #[error("`data` holds a number beyond 1.8e308, the limit of what readers of JSON keep")]
    Number,
}

impl From<DataError> for Problem {
    fn from(error: DataError) -> Self {
        let code = match error {
            DataError::TooLarge { .. } => Code::DataTooLarge,
            DataError::TooDeep | DataError::Surrogate | DataError::Number => Code::InvalidField,
        };
        Self::new(code, error.to_string())
    }
}

/// The compact form of one JSON value: no white space between tokens. Borrows `raw` if that is what it already is.
///
/// `raw` must be one syntactically valid JSON value, e.g. a `serde_json::value::RawValue`; of anything else the answer is
/// meaningless, but there is one.
///
/// # Errors
/// If the value is too large, too deep, or says what JSON's grammar allows but its readers cannot keep.
pub fn compact_json(raw: &str) -> Result<Cow<'_, str>, DataError> {
    let raw = raw.trim_matches(is_space);
    let bytes = raw.as_bytes();
    let mut compact: Option<String> = None;
    // `raw[kept..at]` is compact and not yet copied.
    let (mut kept, mut at, mut depth) = (0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_text(bytes, at)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DATA_DEPTH {
                    return Err(DataError::TooDeep);
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => at = end_of_number(raw, at)?,
            b' ' | b'\t' | b'\n' | b'\r' => {
                compact.get_or_insert_default().push_str(&raw[kept..at]);
                while bytes.get(at).is_some_and(|b| is_space(char::from(*b))) {
                    at += 1;
                }
                kept = at;
            }
            _ => at += 1,
        }
    }
    let text = match compact {
        None => Cow::Borrowed(raw),
        Some(mut text) => {
            text.push_str(&raw[kept..]);
            Cow::Owned(text)
        }
    };
    if text.len() > MAX_DATA_BYTES {
        return Err(DataError::TooLarge { bytes: text.len() });
    }
    Ok(text)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Where the text that opens at `open` is over. Refuses escapes that name half a surrogate pair.
fn end_of_text(bytes: &[u8], open: usize) -> Result<usize, DataError> {
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match escaped_unit(bytes, at) {
                Some(0xD800..=0xDBFF) => match escaped_unit(bytes, at + 6) {
                    Some(0xDC00..=0xDFFF) => at += 12,
                    _ => return Err(DataError::Surrogate),
                },
                Some(0xDC00..=0xDFFF) => return Err(DataError::Surrogate),
                _ => at += 2,
            },
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(bytes.len())
}

/// The UTF-16 unit that `\uXXXX` at this place names.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits
        .iter()
        .try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// Where the number that begins at `start` is over. Refuses one beyond a double.
fn end_of_number(raw: &str, start: usize) -> Result<usize, DataError> {
    let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let rest = &raw.as_bytes()[start..];
    let length = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
    let number = &raw[start..start + length];
    // Without an exponent it takes more than 308 digits to leave the doubles.
    let suspicious = length > 308 || number.contains(['e', 'E']);
    if suspicious && number.parse::<f64>().is_ok_and(f64::is_infinite) {
        return Err(DataError::Number);
    }
    Ok(start + length)
}
