//! Query strings, strictly: what is not UTF-8 or not an escape is refused instead of becoming another object's name.

use super::entry::{EntryResult, entry, too_many_objects};
use crate::error::{Code, Problem};
use std::borrow::Cow;

/// The pairs of a query string, decoded.
///
/// # Errors
/// For a `%` without two hexadecimal digits and for what does not decode to UTF-8.
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Problem>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let bad = |what| Problem::new(Code::BadRequest, format!("the query string: {what}"));
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(bad("a `%` must be followed by two hexadecimal digits"));
                };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| bad("its escapes do not make UTF-8"))
}

/// Collects repeated `object` pairs, never more than `limit`.
pub(super) struct Objects {
    pub(super) entries: Option<Vec<EntryResult>>,
    pub(super) limit: usize,
}

impl Objects {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: None, limit }
    }

    pub(super) fn push(&mut self, object: &str) -> Result<(), Problem> {
        let entries = self.entries.get_or_insert_default();
        if entries.len() == self.limit {
            return Err(too_many_objects("object", self.limit));
        }
        entries.push(entry(object));
        Ok(())
    }
}

/// Fills a field that may come once.
pub(super) fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    if slot.replace(value).is_some() {
        return Err(Problem::new(
            Code::BadRequest,
            format!("the query parameter `{name}` comes twice"),
        ));
    }
    Ok(())
}

/// A decimal integer from `least` to `most`.
pub(super) fn integer(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Problem> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (least..=most).contains(&number) => Ok(number),
        _ => Err(Problem::new(
            Code::InvalidField,
            format!("`{name}` must be an integer from {least} to {most}"),
        )),
    }
}
