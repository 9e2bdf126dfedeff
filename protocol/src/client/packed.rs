//! Finds where values of MessagePack begin and end, without reading what is in them.
//!
//! Needed where one bad element must not spoil its neighbours: serde cannot go on after an error.

/// A place in a body. Every answer is `None` once the bytes are used up or make no sense.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        let bytes = self.take(width)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Enters a map: the number of its entries.
    pub(super) fn enter_map(&mut self) -> Option<usize> {
        match self.take(1)?[0] {
            tag @ 0x80..=0x8f => Some(usize::from(tag & 0x0f)),
            0xde => self.number(2),
            0xdf => self.number(4),
            _ => None,
        }
    }

    /// Enters a list: the number of its elements.
    pub(super) fn enter_list(&mut self) -> Option<usize> {
        match self.take(1)?[0] {
            tag @ 0x90..=0x9f => Some(usize::from(tag & 0x0f)),
            0xdc => self.number(2),
            0xdd => self.number(4),
            _ => None,
        }
    }

    /// The bytes of a text.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = match self.take(1)?[0] {
            tag @ 0xa0..=0xbf => usize::from(tag & 0x1f),
            0xd9 => self.number(1)?,
            0xda => self.number(2)?,
            0xdb => self.number(4)?,
            _ => return None,
        };
        self.take(length)
    }

    /// One whole value, as its bytes.
    pub(super) fn value(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let end = self.skip()?;
        Some(&self.bytes[start..end])
    }

    /// Goes past one whole value, however deep: where it ends.
    pub(super) fn skip(&mut self) -> Option<usize> {
        let mut due = 1_usize;
        while due > 0 {
            due -= 1;
            let (bytes, values) = match self.take(1)?[0] {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                tag @ 0x80..=0x8f => (0, 2 * usize::from(tag & 0x0f)),
                tag @ 0x90..=0x9f => (0, usize::from(tag & 0x0f)),
                tag @ 0xa0..=0xbf => (usize::from(tag & 0x1f), 0),
                0xc1 => return None,
                0xc4 | 0xd9 => (self.number(1)?, 0),
                0xc5 | 0xda => (self.number(2)?, 0),
                0xc6 | 0xdb => (self.number(4)?, 0),
                0xc7 => (self.number(1)? + 1, 0),
                0xc8 => (self.number(2)? + 1, 0),
                0xc9 => (self.number(4)? + 1, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 | 0xd4 => (2, 0),
                0xce | 0xd2 | 0xca => (4, 0),
                0xcf | 0xd3 | 0xcb => (8, 0),
                0xd5 => (3, 0),
                0xd6 => (5, 0),
                0xd7 => (9, 0),
                0xd8 => (17, 0),
                0xdc => (0, self.number(2)?),
                0xdd => (0, self.number(4)?),
                0xde => (0, 2 * self.number(2)?),
                0xdf => (0, self.number(4)?.checked_mul(2)?),
            };
            self.take(bytes)?;
            due = due.checked_add(values)?;
        }
        Some(self.at)
    }
}
