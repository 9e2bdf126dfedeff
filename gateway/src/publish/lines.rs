//! A stream of bytes cut into lines, however the bytes come.

/// A line longer than allowed. Its bytes were dropped as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Cuts pieces of a stream into lines. Holds at most one unfinished line, of bounded length.
#[derive(Debug)]
pub(super) struct Lines {
    unfinished: Vec<u8>,
    longest: usize,
    too_long: bool,
    // What `unfinished` holds was given out already.
    given: bool,
}

impl Lines {
    /// Lines of at most `longest` bytes, not counting their line break.
    pub(super) fn new(longest: usize) -> Self {
        Self {
            unfinished: Vec::new(),
            longest,
            too_long: false,
            given: false,
        }
    }

    /// The next line that ends in `piece`, which shrinks to what follows it. `None` once `piece` is used up.
    pub(super) fn next<'s, 'p: 's>(&'s mut self, piece: &mut &'p [u8]) -> Option<Result<&'s [u8], TooLong>> {
        self.forget_given();
        let Some(end) = piece.iter().position(|byte| *byte == b'\n') else {
            self.keep(piece);
            *piece = &[];
            return None;
        };
        let (line, rest) = (&piece[..end], &piece[end + 1..]);
        *piece = rest;
        if self.unfinished.is_empty() && !self.too_long {
            // Nearly always: the line is given out where it lies.
            let line = without_return(line);
            return Some(if line.len() > self.longest {
                Err(TooLong)
            } else {
                Ok(line)
            });
        }
        self.keep(line);
        Some(self.give())
    }

    /// The last line, if it did not end with a line break.
    pub(super) fn last(&mut self) -> Option<Result<&[u8], TooLong>> {
        self.forget_given();
        (self.too_long || !self.unfinished.is_empty()).then(|| self.give())
    }

    fn forget_given(&mut self) {
        if std::mem::take(&mut self.given) {
            self.unfinished.clear();
            self.too_long = false;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One byte more than the longest line: its carriage return.
        if self.too_long || self.unfinished.len() + bytes.len() > self.longest + 1 {
            self.too_long = true;
            self.unfinished.clear();
        } else {
            self.unfinished.extend_from_slice(bytes);
        }
    }

    fn give(&mut self) -> Result<&[u8], TooLong> {
        self.given = true;
        let line = without_return(&self.unfinished);
        if self.too_long || line.len() > self.longest {
            Err(TooLong)
        } else {
            Ok(line)
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Line = Result<Vec<u8>, TooLong>;

    fn cut(pieces: &[&[u8]], longest: usize) -> Vec<Line> {
        let mut lines = Lines::new(longest);
        let mut found = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while let Some(line) = lines.next(&mut piece) {
                found.push(line.map(<[u8]>::to_vec));
            }
        }
        found.extend(lines.last().map(|line| line.map(<[u8]>::to_vec)));
        found
    }

    #[test]
    fn a_stream_is_its_lines_with_or_without_a_last_line_break() {
        for text in ["a\nbc\n\nd", "a\r\nbc\r\n\r\nd\n"] {
            let lines: Vec<Line> = [&b"a"[..], b"bc", b"", b"d"]
                .iter()
                .map(|line| Ok(line.to_vec()))
                .collect();
            assert_eq!(cut(&[text.as_bytes()], 9), lines);
        }
    }

    #[test]
    fn a_line_of_the_longest_length_is_fine_and_one_byte_more_is_not() {
        for end in ["\n", "\r\n"] {
            assert_eq!(cut(&[format!("1234{end}").as_bytes()], 4), [Ok(b"1234".to_vec())]);
            assert_eq!(
                cut(&[format!("12345{end}ok{end}").as_bytes()], 4),
                [Err(TooLong), Ok(b"ok".to_vec())]
            );
        }
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut lines = Lines::new(4);
        for _ in 0..1000 {
            assert_eq!(lines.next(&mut &b"xxxx"[..]), None);
            assert!(lines.unfinished.len() <= 5);
        }
        assert_eq!(lines.last(), Some(Err(TooLong)));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_lines(
            text in "[ab\r\n]{0,60}",
            cuts in prop::collection::vec(0_usize..60, 0..8),
        ) {
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&pieces, 6), cut(&[text], 6));
        }
    }
}
