//! The body of an HTTP/1.1 answer with `Transfer-Encoding: chunked`, as its bytes come: for those who read event streams
//! by the thousand without an HTTP library.
//!
//! Source: RFC 9112, section 7.1. Extensions and trailers are passed over.

/// Takes the frames of chunks off a body, with no memory but a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    place: Place,
}

/// The frames of the chunks make no sense. **What was given out before was the body; the connection is of no use.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body's chunks make no sense")]
pub struct ChunkError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the line of a chunk's size: the digits so far.
    Size { digits: u8, size: u64 },
    /// In the rest of that line.
    Extension { size: u64 },
    /// In a chunk, so many bytes before its end.
    Data { left: u64 },
    /// In the line break behind a chunk.
    After,
    /// In the trailers: whether their present line is empty so far.
    Trailers { empty: bool },
    /// The body is over.
    Ended,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    /// At the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the body is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.place == Place::Ended
    }

    /// Takes the next piece of body off `bytes`; empty once they are used up, or the body is over.
    ///
    /// # Errors
    /// If the frames make no sense.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<&'a [u8], ChunkError> {
        loop {
            if let Place::Data { left } = self.place {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (piece, rest) = bytes.split_at(length);
                *bytes = rest;
                let left = left - length as u64;
                self.place = if left == 0 { Place::After } else { Place::Data { left } };
                if length > 0 || left > 0 {
                    return Ok(piece);
                }
                continue;
            }
            if self.ended() {
                return Ok(&[]);
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(&[]);
            };
            *bytes = rest;
            self.place = self.place.after(*byte)?;
        }
    }
}

impl Place {
    fn after(self, byte: u8) -> Result<Self, ChunkError> {
        let begin = |size| match size {
            0 => Self::Trailers { empty: true },
            left => Self::Data { left },
        };
        Ok(match (self, byte) {
            (Self::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError)?;
                Self::Size {
                    digits: digits + 1,
                    size: size * 16 + u64::from(digit),
                }
            }
            (Self::Size { digits: 1.., size } | Self::Extension { size }, b'\n') => begin(size),
            (Self::Size { digits: 1.., size }, b'\r' | b';' | b' ' | b'\t') | (Self::Extension { size }, _) => {
                Self::Extension { size }
            }
            (Self::After, b'\r') => Self::After,
            (Self::After, b'\n') => Self::default(),
            (Self::Trailers { empty: true }, b'\n') => Self::Ended,
            (Self::Trailers { empty: false }, b'\n') => Self::Trailers { empty: true },
            (Self::Trailers { empty }, b'\r') => Self::Trailers { empty },
            (Self::Trailers { .. }, _) => Self::Trailers { empty: false },
            _ => return Err(ChunkError),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), ChunkError> {
        let mut chunks = Chunks::new();
        let mut body = Vec::new();
        for mut bytes in pieces.iter().copied() {
            while !bytes.is_empty() && !chunks.ended() {
                body.extend_from_slice(chunks.next(&mut bytes)?);
            }
        }
        Ok((body, chunks.ended()))
    }

    #[test]
    fn wherever_the_bytes_are_cut_the_body_is_the_same() {
        let all = b"4\r\nWiki\r\n6;x=\"y\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..=all.len() {
            let (front, back) = all.split_at(cut);
            let (body, ended) = body(&[front, back]).expect("sense");
            assert_eq!(body, b"Wikipedia in \r\n\r\nchunks.", "cut at {cut}");
            assert!(ended, "cut at {cut}");
        }
    }

    #[test]
    fn frames_that_make_no_sense_are_an_error() {
        for bad in ["\r\n", "x\r\n", "4\r\nWikix\r\n", "1111111111111111\r\n"] {
            assert_eq!(body(&[bad.as_bytes()]), Err(ChunkError), "{bad:?}");
        }
    }

    #[test]
    fn a_body_without_its_end_is_not_over() {
        assert_eq!(body(&[b"4\r\nWi"]), Ok((b"Wi".to_vec(), false)));
    }
}
