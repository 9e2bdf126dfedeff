//! Frames as sealed records: `length:u16 ciphertext`, and inside `more:u8 part`.
//!
//! A frame is cut into as many records as it needs. Each record is sealed under a number that counts up, so one that was
//! lost, repeated, changed or moved does not open, and the connection ends there. A record with an empty part and no
//! `more` is a heartbeat.

use snow::StatelessTransportState;
use std::io;
use std::sync::Arc;
use tidings_protocol::mesh::MAX_FRAME_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest record that Noise seals.
const RECORD_BYTES: usize = 65_535;
const TAG_BYTES: usize = 16;
/// The most of a frame that one record carries.
const PART_BYTES: usize = RECORD_BYTES - TAG_BYTES - 1;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// Why nothing more can be read. **The connection is of no more use.**
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A record was changed, repeated, left out, or is not one.
    #[error("a record between nodes does not open: it was changed on the way, or is not for here")]
    Forged,
    /// A frame is longer than allowed.
    #[error("a frame between nodes has at most {MAX_FRAME_BYTES} bytes, this one has more")]
    TooLong,
}

/// The sending half.
#[derive(Debug)]
pub struct Sealer<W> {
    to: W,
    noise: Arc<StatelessTransportState>,
    number: u64,
    out: Vec<u8>,
    plain: Vec<u8>,
}

impl<W> Sealer<W> {
    /// Where it writes, and all the rest of it.
    pub(super) fn apart(self) -> (W, Sealer<()>) {
        let rest = Sealer {
            to: (),
            noise: self.noise,
            number: self.number,
            out: self.out,
            plain: self.plain,
        };
        (self.to, rest)
    }
}

impl Sealer<()> {
    pub(super) fn joined<W>(self, to: W) -> Sealer<W> {
        Sealer {
            to,
            noise: self.noise,
            number: self.number,
            out: self.out,
            plain: self.plain,
        }
    }
}

impl<W: AsyncWrite + Unpin> Sealer<W> {
    pub(super) fn new(to: W, noise: Arc<StatelessTransportState>) -> Self {
        Self {
            to,
            noise,
            number: 0,
            out: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Seals a frame behind what waits already. A frame is never empty.
    pub fn seal(&mut self, frame: &[u8]) {
        let mut rest = frame;
        while rest.len() > PART_BYTES {
            let (part, behind) = rest.split_at(PART_BYTES);
            self.record(MORE, part);
            rest = behind;
        }
        self.record(LAST, rest);
    }

    /// Seals a heartbeat.
    pub fn beat(&mut self) {
        self.record(LAST, &[]);
    }

    fn record(&mut self, more: u8, part: &[u8]) {
        self.plain.clear();
        self.plain.push(more);
        self.plain.extend_from_slice(part);
        let sealed = self.plain.len() + TAG_BYTES;
        let at = self.out.len();
        self.out.extend_from_slice(&(sealed as u16).to_be_bytes());
        self.out.resize(at + 2 + sealed, 0);
        let written = self
            .noise
            .write_message(self.number, &self.plain, &mut self.out[at + 2..]);
        // It fails only for buffers of the wrong length.
        debug_assert_eq!(written.ok(), Some(sealed));
        self.number += 1;
    }

    /// What waits, instead of writing it.
    #[cfg(test)]
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// If the connection failed.
    pub async fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.out).await;
        self.out.clear();
        // A burst does not keep its memory.
        self.out.shrink_to(256 * 1024);
        written
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Opener<R> {
    from: R,
    noise: Arc<StatelessTransportState>,
    number: u64,
    read: Vec<u8>,
    /// Of `read`, what was taken already.
    taken: usize,
    frame: Vec<u8>,
    plain: Vec<u8>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Came<'a> {
    /// A whole frame.
    Frame(&'a [u8]),
    /// A heartbeat, or a part of a frame: a sign of life.
    Life,
    /// The other end is done.
    End,
}

impl<R> Opener<R> {
    /// Where it reads, and all the rest of it.
    pub(super) fn apart(self) -> (R, Opener<()>) {
        let rest = Opener {
            from: (),
            noise: self.noise,
            number: self.number,
            read: self.read,
            taken: self.taken,
            frame: self.frame,
            plain: self.plain,
        };
        (self.from, rest)
    }
}

impl Opener<()> {
    pub(super) fn joined<R>(self, from: R) -> Opener<R> {
        Opener {
            from,
            noise: self.noise,
            number: self.number,
            read: self.read,
            taken: self.taken,
            frame: self.frame,
            plain: self.plain,
        }
    }
}

impl<R: AsyncRead + Unpin> Opener<R> {
    pub(super) fn new(from: R, noise: Arc<StatelessTransportState>) -> Self {
        Self {
            from,
            noise,
            number: 0,
            read: Vec::new(),
            taken: 0,
            frame: Vec::new(),
            plain: vec![0; RECORD_BYTES],
        }
    }

    /// Waits for the heartbeat with which a connection begins.
    pub(super) async fn first_record(&mut self) -> Result<(), OpenError> {
        match self.next().await? {
            Came::Life => Ok(()),
            Came::Frame(_) | Came::End => Err(OpenError::Forged),
        }
    }

    /// Waits for what comes next. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// If nothing more can be read.
    pub async fn next(&mut self) -> Result<Came<'_>, OpenError> {
        // A large frame does not keep its memory.
        self.plain.truncate(RECORD_BYTES);
        self.plain.shrink_to(RECORD_BYTES);
        let Some(length) = self.fill_record().await? else {
            return Ok(Came::End);
        };
        let record = &self.read[self.taken + 2..self.taken + 2 + length];
        let opened = self.noise.read_message(self.number, record, &mut self.plain);
        let plain = opened.map_err(|_| OpenError::Forged)?;
        self.number += 1;
        self.taken += 2 + length;
        let (more, part) = self.plain[..plain].split_first().ok_or(OpenError::Forged)?;
        if self.frame.len() + part.len() > MAX_FRAME_BYTES {
            return Err(OpenError::TooLong);
        }
        match *more {
            MORE => {
                self.frame.extend_from_slice(part);
                Ok(Came::Life)
            }
            LAST if self.frame.is_empty() && part.is_empty() => Ok(Came::Life),
            LAST if self.frame.is_empty() => {
                let end = 1 + part.len();
                Ok(Came::Frame(&self.plain[1..end]))
            }
            LAST => {
                self.frame.extend_from_slice(part);
                // The frame moves to where it may stay until the next call.
                std::mem::swap(&mut self.frame, &mut self.plain);
                self.frame.clear();
                let end = self.plain.len();
                self.restore();
                Ok(Came::Frame(&self.plain[..end]))
            }
            _ => Err(OpenError::Forged),
        }
    }

    /// After a swap: room for the next record behind the frame.
    fn restore(&mut self) {
        let room = self.plain.len().max(RECORD_BYTES);
        self.plain.resize(room, 0);
    }

    /// Reads until a whole record is there; its length without the prefix. `None` at the end of the connection.
    async fn fill_record(&mut self) -> Result<Option<usize>, OpenError> {
        loop {
            let rest = &self.read[self.taken..];
            if let [high, low, sealed @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length <= TAG_BYTES {
                    return Err(OpenError::Forged);
                }
                if sealed.len() >= length {
                    return Ok(Some(length));
                }
            }
            if self.taken > 0 {
                self.read.drain(..self.taken);
                self.taken = 0;
            }
            self.read.reserve(16 * 1024);
            if self.from.read_buf(&mut self.read).await? == 0 {
                let torn = !self.read.is_empty();
                return if torn {
                    Err(OpenError::Io(io::ErrorKind::UnexpectedEof.into()))
                } else {
                    Ok(None)
                };
            }
        }
    }
}
