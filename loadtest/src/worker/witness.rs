//! What this worker sees, written down for the checker, if anybody wants it.

use std::path::Path;
use tidings_checker::history::{Event, Header, NotRecorded, What, Writer};

/// A file of the history, or none.
pub(crate) struct Witness {
    writer: Option<Writer>,
    last_us: u64,
    error: Option<String>,
}

impl Witness {
    pub(crate) fn new(path: Option<&Path>, prefix: &str) -> Result<Self, String> {
        let create = |path: &Path| {
            Writer::create(path, &Header::new(prefix)).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Self {
            writer: path.map(create).transpose()?,
            last_us: 0,
            error: None,
        })
    }

    /// Whether anything is written down: to spare the work of putting it into words.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes down what was seen. Stamps of one file never go back.
    pub(crate) fn see(&mut self, at_us: u64, what: What<'_>) {
        let Some(writer) = &mut self.writer else { return };
        self.last_us = self.last_us.max(at_us);
        let event = Event {
            at_us: self.last_us,
            what,
        };
        if let Err(error) = writer.record_blocking(&event)
            && !matches!(error, NotRecorded::Full)
        {
            // A history with a hole proves nothing: it ends here, and the end of the run says so.
            self.error = Some(error.to_string());
            self.writer = None;
        }
    }

    /// To be called now and then.
    pub(crate) fn flush(&mut self) {
        if let Some(writer) = &mut self.writer {
            // What the disk does not take now it takes later.
            let _ = writer.flush();
        }
    }

    /// Writes the rest; what went wrong, if anything did.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let ended = self.writer.take().map(Writer::finish);
        self.error.take().or(match ended {
            Some(Err(error)) => Some(error.to_string()),
            _ => None,
        })
    }
}
