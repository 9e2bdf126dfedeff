//! The commonest messages, read in one pass without allocation: changes without data, and cursors, as the server writes
//! them. Whatever looks different is left to the full parser; a test holds the two together.

use super::message::{Change, Changes, ServerMessage};
use super::text::Text;
use tidings_protocol::{Epoch, ShardId, Version};

/// A message at the start of `text` that ends with its line, and its length without the line break. `None`: not one of
/// the common ones, ask the full parser.
pub(super) fn message(text: &str) -> Option<(ServerMessage<'_>, usize)> {
    let mut eye = Eye { text, at: 0 };
    let message = if eye.take("{\"changes\":[") {
        let first = eye.change()?;
        let mut rest = Vec::new();
        while eye.take(",") {
            rest.push(eye.change()?);
        }
        eye.expect("]}")?;
        ServerMessage::Changes(Changes::of(Some(first), rest))
    } else if eye.take("{\"cursor\":\"") {
        let cursor = eye.rest_of_text()?;
        eye.expect("}")?;
        ServerMessage::Cursor(cursor)
    } else {
        return None;
    };
    matches!(eye.peek(), None | Some(b'\n')).then_some((message, eye.at))
}

/// One change that fills `text`.
pub(super) fn change(text: &str) -> Option<Change<'_>> {
    let mut eye = Eye { text, at: 0 };
    let change = eye.change()?;
    (eye.at == text.len()).then_some(change)
}

struct Eye<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Eye<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, expected: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(expected.as_bytes());
        self.at += if found { expected.len() } else { 0 };
        found
    }

    #[inline]
    fn expect(&mut self, expected: &str) -> Option<()> {
        self.take(expected).then_some(())
    }

    /// What is left of a text whose opening quote was read. Neither escapes nor what JSON forbids.
    #[inline]
    fn rest_of_text(&mut self) -> Option<Text<'a>> {
        let start = self.at;
        let length = self.text.as_bytes()[start..]
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        self.at = start + length;
        self.expect("\"")?;
        Some(self.text[start..start + length].into())
    }

    /// A number below 2^53 without sign, fraction, exponent or leading zeros.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let start = self.at;
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            if self.at - start == 16 {
                return None;
            }
            number = number * 10 + u64::from(digit - b'0');
            self.at += 1;
        }
        let digits = self.at - start;
        let leading_zero = digits > 1 && self.text.as_bytes()[start] == b'0';
        (digits > 0 && !leading_zero && number < Version::LIMIT).then_some(number)
    }

    #[inline]
    fn change(&mut self) -> Option<Change<'a>> {
        self.expect("{\"object\":\"")?;
        let object = self.rest_of_text()?;
        self.expect(",\"version\":")?;
        let version = Some(Version(self.number()?));
        let kind = match self.take(",\"kind\":\"") {
            true => Some(self.rest_of_text()?),
            false => None,
        };
        let (mut shard, mut epoch) = (None, None);
        if self.take(",\"shard\":") {
            shard = Some(ShardId(u16::try_from(self.number()?).ok()?));
            self.expect(",\"epoch\":")?;
            epoch = Some(Epoch(self.number()?));
        }
        self.expect("}")?;
        Some(Change {
            object,
            version,
            kind,
            data: None,
            shard,
            epoch,
        })
    }
}

#[cfg(test)]
mod tests;
