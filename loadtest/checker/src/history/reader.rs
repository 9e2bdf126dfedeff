//! Reads a history: one file in either form, or several as one, merged by stamp.

use super::binary::{BLOCK, BLOCK_HEAD, Bad, Body, MAGIC, MAX_BODY};
use super::event::Event;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// No line of JSON is longer; longer ones are damage.
const MAX_LINE: u64 = 64 << 20;

/// What holds for a whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The form's number: 1.
    pub format: u32,
    /// What stands before the number in the IDs of numbered objects.
    pub prefix: String,
}

impl Header {
    /// A header for numbered objects with this prefix: `order:`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            format: 1,
            prefix: prefix.to_owned(),
        }
    }
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be opened or read.
    #[error("{}: {error}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What is in the file is no history, or is damaged.
    #[error("{}: at byte {offset}: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Byte of the file where it stops making sense.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// The files name numbered objects differently.
    #[error("{}: the prefix of numbered objects is {found:?}, in the files before {expected:?}", path.display())]
    Prefix {
        /// Which file.
        path: PathBuf,
        /// Its prefix.
        found: String,
        /// That of the files before.
        expected: String,
    },
    /// More than a check can number.
    #[error("the history has {events} events; a check numbers fewer than 2^32")]
    TooLong {
        /// How many events it has.
        events: u64,
    },
}

impl Header {
    /// The first line of a history in JSON, without its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let header = JsonHeader {
            event: "history".to_owned(),
            header: self.clone(),
        };
        // Every key is a text and nothing here refuses to be written.
        serde_json::to_string(&header).unwrap_or_default()
    }
}

/// One file, from its start.
pub struct FileReader {
    path: PathBuf,
    header: Header,
    input: BufReader<File>,
    form: Form,
    /// Where the body or line begins that is being read, and what comes after it.
    offset: u64,
    next_offset: u64,
    last_us: u64,
    is_whole: bool,
    is_cut: bool,
}

enum Form {
    Binary { bytes: Vec<u8>, body: Body },
    Json { line: Vec<u8> },
}

#[derive(Deserialize)]
struct Stamp {
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct JsonHeader {
    event: String,
    #[serde(flatten)]
    header: Header,
}

impl FileReader {
    /// Opens a file in either form.
    ///
    /// # Errors
    /// If it cannot be read or begins like neither form.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let disk = |error| HistoryError::Disk {
            path: path.to_owned(),
            error,
        };
        let mut input = BufReader::with_capacity(1 << 18, File::open(path).map_err(disk)?);
        let is_binary = input.fill_buf().map_err(disk)?.starts_with(MAGIC);
        let form = if is_binary {
            input.consume(MAGIC.len());
            Form::Binary {
                bytes: Vec::new(),
                body: Body::new(),
            }
        } else {
            Form::Json { line: Vec::new() }
        };
        let mut reader = Self {
            path: path.to_owned(),
            header: Header::new(""),
            input,
            form,
            offset: 0,
            next_offset: if is_binary { MAGIC.len() as u64 } else { 0 },
            last_us: 0,
            is_whole: false,
            is_cut: false,
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// True once the end was reached and the writer did not end the file: it was killed, or still writes.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn read_header(&mut self) -> Result<(), HistoryError> {
        let there = self.fill()?;
        let (bytes, is_json) = match &self.form {
            Form::Binary { bytes, .. } => (bytes, false),
            Form::Json { line } => (line, true),
        };
        let header = if !there {
            None
        } else if is_json {
            let header = serde_json::from_slice::<JsonHeader>(bytes).ok();
            header
                .filter(|header| header.event == "history")
                .map(|header| header.header)
        } else {
            serde_json::from_slice(bytes).ok()
        };
        let Some(header) = header else {
            return Err(self.damaged(0, "the file does not begin with the header of a history".to_owned()));
        };
        if header.format != 1 {
            return Err(self.damaged(
                0,
                format!("this is form {} of a history, only 1 is known", header.format),
            ));
        }
        self.header = header;
        match &mut self.form {
            Form::Binary { bytes, .. } => bytes.clear(),
            Form::Json { line } => line.clear(),
        }
        Ok(())
    }

    /// The stamp of the next event; `None` at the end.
    ///
    /// # Errors
    /// Where the file stops making sense.
    pub fn peek(&mut self) -> Result<Option<u64>, HistoryError> {
        loop {
            let stamp = match &self.form {
                Form::Binary { bytes, body } => match body.peek(bytes) {
                    Ok(stamp) => stamp,
                    Err(bad) => return Err(self.bad(bad)),
                },
                Form::Json { line } if line.is_empty() => None,
                Form::Json { line } => match serde_json::from_slice::<Stamp>(line) {
                    Ok(stamp) => Some(stamp.at),
                    Err(error) => return Err(self.damaged(0, error.to_string())),
                },
            };
            match stamp {
                Some(at_us) if at_us < self.last_us => {
                    let last_us = self.last_us;
                    let why = format!("an event of {at_us} us comes after one of {last_us} us");
                    return Err(self.damaged(0, why));
                }
                Some(at_us) => return Ok(Some(at_us)),
                None if !self.fill()? => return Ok(None),
                None => {}
            }
        }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// Where the file stops making sense.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, HistoryError> {
        let Some(at_us) = self.peek()? else { return Ok(None) };
        self.last_us = at_us;
        let (path, offset) = (&self.path, self.offset);
        let damaged = |at: u64, why: String| HistoryError::Damaged {
            path: path.clone(),
            offset: offset + at,
            why,
        };
        match &mut self.form {
            Form::Binary { bytes, body } => body
                .next(bytes)
                .map_err(|bad| damaged((BLOCK_HEAD + bad.at) as u64, bad.why.to_owned())),
            Form::Json { line } => {
                let event = serde_json::from_slice::<Event<'_>>(line).map(Event::into_owned);
                line.clear();
                event.map(Some).map_err(|error| damaged(0, error.to_string()))
            }
        }
    }

    /// The next body or line; false at the end.
    fn fill(&mut self) -> Result<bool, HistoryError> {
        if self.is_whole || self.is_cut {
            return Ok(false);
        }
        self.offset = self.next_offset;
        match &self.form {
            Form::Binary { .. } => self.fill_body(),
            Form::Json { .. } => self.fill_line(),
        }
    }

    fn fill_body(&mut self) -> Result<bool, HistoryError> {
        let mut head = [0; BLOCK_HEAD];
        if self.fill_exactly(&mut head)? < head.len() {
            self.is_cut = true;
            return Ok(false);
        }
        let [a, b, c, d, l0, l1, l2, l3, s0, s1, s2, s3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if [a, b, c, d] != *BLOCK || length > MAX_BODY {
            return Err(self.damaged(0, "there is no block here".to_owned()));
        }
        let Form::Binary { bytes, body } = &mut self.form else {
            return Ok(false);
        };
        let mut next = std::mem::take(bytes);
        body.restart();
        next.clear();
        // Not reserved beforehand: the length is not trusted before the bytes are there.
        let read = (&mut self.input).take(length as u64).read_to_end(&mut next);
        let read = read.map_err(|error| HistoryError::Disk {
            path: self.path.clone(),
            error,
        })?;
        if read < length {
            self.is_cut = true;
            return Ok(false);
        }
        if crc32fast::hash(&next) != u32::from_le_bytes([s0, s1, s2, s3]) {
            return Err(self.damaged(0, "the block's checksum is wrong".to_owned()));
        }
        self.next_offset = self.offset + (BLOCK_HEAD + length) as u64;
        self.is_whole = length == 0;
        if let Form::Binary { bytes, .. } = &mut self.form {
            *bytes = next;
        }
        Ok(length > 0)
    }

    fn fill_line(&mut self) -> Result<bool, HistoryError> {
        let Form::Json { line } = &mut self.form else {
            return Ok(false);
        };
        loop {
            line.clear();
            let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', line);
            let read = read.map_err(|error| HistoryError::Disk {
                path: self.path.clone(),
                error,
            })?;
            self.offset = self.next_offset;
            self.next_offset += read as u64;
            if read == 0 {
                self.is_whole = true;
                return Ok(false);
            }
            if line.last() != Some(&b'\n') {
                let is_too_long = line.len() as u64 == MAX_LINE;
                line.clear();
                if is_too_long {
                    return Err(self.damaged(0, "the line is too long".to_owned()));
                }
                self.is_cut = true;
                return Ok(false);
            }
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn fill_exactly(&mut self, out: &mut [u8]) -> Result<usize, HistoryError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(HistoryError::Disk {
                        path: self.path.clone(),
                        error,
                    });
                }
            }
        }
        Ok(filled)
    }

    fn bad(&self, bad: Bad) -> HistoryError {
        self.damaged((BLOCK_HEAD + bad.at) as u64, bad.why.to_owned())
    }

    fn damaged(&self, at: u64, why: String) -> HistoryError {
        HistoryError::Damaged {
            path: self.path.clone(),
            offset: self.offset + at,
            why,
        }
    }
}

/// A history that can be gone through as often as one likes.
pub trait History {
    /// Shows every event in the order of their stamps, with its number from 0. The order is the same each time.
    ///
    /// # Errors
    /// Where the history stops making sense; the events before were shown.
    fn replay(&self, see: &mut dyn FnMut(u64, &Event<'_>)) -> Result<Replayed, HistoryError>;

    /// What stands before the number in the IDs of numbered objects.
    fn prefix(&self) -> &str;
}

/// What a replay found out besides the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many events there were.
    pub events: u64,
    /// Files that their writer did not end: whatever came after is unknown.
    pub cut: Vec<PathBuf>,
}

/// Several files as one history.
#[derive(Clone, Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    prefix: String,
}

impl Files {
    /// Looks at the header of each file.
    ///
    /// # Errors
    /// If one cannot be opened, or they disagree on how objects are numbered.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, HistoryError> {
        let mut prefix: Option<String> = None;
        for path in paths {
            let found = FileReader::open(path.as_ref())?.header.prefix;
            match &prefix {
                Some(expected) if *expected != found => {
                    let (path, expected) = (path.as_ref().to_owned(), expected.clone());
                    return Err(HistoryError::Prefix { path, found, expected });
                }
                _ => prefix = Some(found),
            }
        }
        Ok(Self {
            paths: paths.iter().map(|path| path.as_ref().to_owned()).collect(),
            prefix: prefix.unwrap_or_default(),
        })
    }
}

impl History for Files {
    fn replay(&self, see: &mut dyn FnMut(u64, &Event<'_>)) -> Result<Replayed, HistoryError> {
        let mut readers = Vec::new();
        for path in &self.paths {
            let mut reader = FileReader::open(path)?;
            let next = reader.peek()?;
            readers.push((reader, next));
        }
        let mut replayed = Replayed::default();
        loop {
            // The file with the lowest stamp goes on until another's turn comes; the first of equals goes first.
            let mut turn: Option<(usize, u64)> = None;
            let mut until = (u64::MAX, usize::MAX);
            for (index, (_, next)) in readers.iter().enumerate() {
                let Some(at_us) = *next else { continue };
                match turn {
                    Some((other, lowest)) if lowest <= at_us => {
                        debug_assert!(other < index);
                        until = until.min((at_us, index));
                    }
                    _ => {
                        if let Some((other, lowest)) = turn {
                            until = until.min((lowest, other));
                        }
                        turn = Some((index, at_us));
                    }
                }
            }
            let Some((index, _)) = turn else { break };
            let (reader, next) = &mut readers[index];
            loop {
                if let Some(event) = reader.next_event()? {
                    see(replayed.events, &event);
                    replayed.events += 1;
                }
                *next = reader.peek()?;
                if next.is_none_or(|at_us| (at_us, index) > until) {
                    break;
                }
            }
        }
        let cut = readers.iter().filter(|(reader, _)| reader.is_cut());
        replayed.cut = cut.map(|(reader, _)| reader.path.clone()).collect();
        Ok(replayed)
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// A history in memory, its events in the order of their stamps; its numbered objects are `order:<n>`.
impl History for Vec<Event<'_>> {
    fn replay(&self, see: &mut dyn FnMut(u64, &Event<'_>)) -> Result<Replayed, HistoryError> {
        for (number, event) in self.iter().enumerate() {
            see(number as u64, event);
        }
        Ok(Replayed {
            events: self.len() as u64,
            cut: Vec::new(),
        })
    }

    fn prefix(&self) -> &'static str {
        "order:"
    }
}
