//! Writes a history while a run goes on: cheap for who records, bounded in memory, on disk by a thread of its own.

use super::binary::{self, Encoder, MAGIC};
use super::event::Event;
use super::reader::Header;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// A body of so many bytes goes to disk.
const BLOCK_BYTES: usize = 256 * 1024;
/// So many bodies may be on their way to disk: 4 MiB. With them full, [`Writer::record`] says [`NotRecorded::Full`].
const BLOCKS: usize = 16;
/// An event waits no longer than this for its body to fill, as long as events come.
const FLUSH_US: u64 = 500_000;

/// Why an event was not recorded. **Nothing of it was written.**
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The disk is behind by all that may wait. Stop reading from the network, then record this event again; or
    /// [`Writer::record_blocking`].
    #[error("the history's disk is behind")]
    Full,
    /// Stamps of one file never go back: the events of one file come from one thread, which stamps them in order.
    #[error("an event of {at_us} us came after one of {last_us} us")]
    Backwards {
        /// Its stamp.
        at_us: u64,
        /// The stamp before.
        last_us: u64,
    },
    /// The disk refused. The file holds what was written before; nothing more will be.
    #[error("the history cannot be written: {0}")]
    Disk(io::Error),
}

/// One file of a history, in the compact form. One per thread that sees events.
///
/// Nothing is ever dropped: an event is recorded or [`NotRecorded`] says so.
pub struct Writer {
    encoder: Encoder,
    body: Vec<u8>,
    first_us: u64,
    last_us: u64,
    events: u64,
    to_disk: Option<SyncSender<Vec<u8>>>,
    from_disk: Receiver<Vec<u8>>,
    disk: Option<JoinHandle<io::Result<()>>>,
    /// The first refusal, for all who ask later.
    refused: Option<(io::ErrorKind, String)>,
}

impl Writer {
    /// A new file, which must not be there yet.
    ///
    /// # Errors
    /// If it is, or cannot be made.
    pub fn create(path: impl AsRef<Path>, header: &Header) -> io::Result<Self> {
        Self::onto(File::create_new(path)?, header, |file| file.sync_all())
    }

    /// Onto anything that takes bytes; `sync` ends it.
    fn onto<W: io::Write + Send + 'static>(
        mut file: W,
        header: &Header,
        sync: impl FnOnce(W) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        write_body(&mut file, &serde_json::to_vec(header)?)?;
        let (to_disk, bodies) = sync_channel::<Vec<u8>>(BLOCKS);
        let (empty, from_disk) = sync_channel(BLOCKS + 1);
        let disk = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            for mut body in bodies {
                write_body(&mut file, &body)?;
                body.clear();
                // If nobody takes it back, it is simply freed.
                drop(empty.try_send(body));
            }
            sync(file)
        })?;
        Ok(Self {
            encoder: Encoder::new(),
            body: Vec::with_capacity(BLOCK_BYTES + 1024),
            first_us: 0,
            last_us: 0,
            events: 0,
            to_disk: Some(to_disk),
            from_disk,
            disk: Some(disk),
            refused: None,
        })
    }

    /// Records an event: some tens of nanoseconds, never a wait.
    ///
    /// # Errors
    /// It was not recorded; see [`NotRecorded`].
    #[inline]
    pub fn record(&mut self, event: &Event<'_>) -> Result<(), NotRecorded> {
        self.make_room(event.at_us, false)?;
        self.put(event);
        Ok(())
    }

    /// The same, but waits for the disk instead of [`NotRecorded::Full`].
    ///
    /// # Errors
    /// It was not recorded; see [`NotRecorded`].
    pub fn record_blocking(&mut self, event: &Event<'_>) -> Result<(), NotRecorded> {
        self.make_room(event.at_us, true)?;
        self.put(event);
        Ok(())
    }

    /// Hands what was recorded to the disk thread; to be called now and then if events may cease to come.
    ///
    /// # Errors
    /// [`NotRecorded::Full`]: later then; [`NotRecorded::Disk`].
    pub fn flush(&mut self) -> Result<(), NotRecorded> {
        if self.body.is_empty() {
            Ok(())
        } else {
            self.hand_over(false)
        }
    }

    /// How many events were recorded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes what is left and the mark of a whole file, and waits until all of it is on disk.
    ///
    /// # Errors
    /// If the disk refused anything of the file.
    pub fn finish(mut self) -> io::Result<()> {
        let mut result = Ok(());
        if !self.body.is_empty() {
            result = self.hand_over(true);
        }
        if result.is_ok() {
            // An empty body is the mark.
            result = self.hand_over(true);
        }
        self.to_disk = None;
        let ended = self.join();
        match result {
            Err(NotRecorded::Disk(error)) => Err(error),
            _ => ended,
        }
    }

    #[inline]
    fn make_room(&mut self, at_us: u64, may_wait: bool) -> Result<(), NotRecorded> {
        if at_us < self.last_us {
            return Err(NotRecorded::Backwards {
                at_us,
                last_us: self.last_us,
            });
        }
        let is_due = self.body.len() >= BLOCK_BYTES || at_us - self.first_us >= FLUSH_US;
        if is_due && !self.body.is_empty() {
            self.hand_over(may_wait)?;
        }
        Ok(())
    }

    #[inline]
    fn put(&mut self, event: &Event<'_>) {
        if self.body.is_empty() {
            self.encoder.begin();
            self.first_us = event.at_us;
        }
        self.last_us = event.at_us;
        self.encoder.put(&mut self.body, event);
        self.events += 1;
    }

    fn hand_over(&mut self, may_wait: bool) -> Result<(), NotRecorded> {
        if let Some((kind, text)) = &self.refused {
            return Err(NotRecorded::Disk(io::Error::new(*kind, text.clone())));
        }
        let next = match self.from_disk.try_recv() {
            Ok(empty) => empty,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Vec::with_capacity(BLOCK_BYTES + 1024),
        };
        let body = std::mem::replace(&mut self.body, next);
        let Some(to_disk) = &self.to_disk else { return Ok(()) };
        let back = if may_wait {
            to_disk.send(body).map_err(|error| (error.0, false))
        } else {
            to_disk.try_send(body).map_err(|error| match error {
                TrySendError::Full(body) => (body, true),
                TrySendError::Disconnected(body) => (body, false),
            })
        };
        match back {
            Ok(()) => Ok(()),
            Err((body, is_full)) => {
                self.body = body;
                if is_full {
                    Err(NotRecorded::Full)
                } else {
                    Err(NotRecorded::Disk(self.fail()))
                }
            }
        }
    }

    /// The disk thread has ended although nobody asked it to: why.
    fn fail(&mut self) -> io::Error {
        let error = self
            .join()
            .err()
            .unwrap_or_else(|| io::Error::other("the disk's thread has ended"));
        self.refused = Some((error.kind(), error.to_string()));
        error
    }

    fn join(&mut self) -> io::Result<()> {
        match self.disk.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the disk's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    /// Writes what can be written; without [`Writer::finish`] the file counts as cut short.
    fn drop(&mut self) {
        if self.disk.is_some() && !self.body.is_empty() {
            drop(self.hand_over(true));
        }
        self.to_disk = None;
        drop(self.join());
    }
}

fn write_body(file: &mut impl io::Write, body: &[u8]) -> io::Result<()> {
    file.write_all(&binary::head(body))?;
    file.write_all(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::What;
    use std::sync::{Arc, Condvar, Mutex};

    /// A disk that takes nothing until it is told to.
    #[derive(Clone, Default)]
    struct Stuck(Arc<(Mutex<(bool, u64)>, Condvar)>);

    impl Stuck {
        fn set_stuck(&self, is_stuck: bool) {
            self.0.0.lock().unwrap().0 = is_stuck;
            self.0.1.notify_all();
        }
    }

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |state| state.0).unwrap();
            state.1 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_disk_pushes_back_and_loses_nothing() {
        let disk = Stuck::default();
        let mut writer = Writer::onto(disk.clone(), &Header::new("order:"), |_| Ok(())).unwrap();
        disk.set_stuck(true);
        let text = "x".repeat(1000);
        let event = |at_us| Event {
            at_us,
            what: What::Note {
                text: format!("{at_us} {text}").into(),
            },
        };
        let mut recorded = 0;
        // Bounded memory: far fewer than a million of these fit.
        while recorded < 1_000_000 {
            match writer.record(&event(recorded)) {
                Ok(()) => recorded += 1,
                Err(NotRecorded::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let room = (BLOCKS + 3) * (BLOCK_BYTES + 2048) / 1000;
        assert!(recorded < room as u64, "{recorded}");
        assert_eq!(writer.events(), recorded);
        assert!(
            matches!(writer.record(&event(recorded)), Err(NotRecorded::Full)),
            "it stays so"
        );
        disk.set_stuck(false);
        writer.record_blocking(&event(recorded)).unwrap();
        assert_eq!(writer.events(), recorded + 1);
        writer.finish().unwrap();
        let written = disk.0.0.lock().unwrap().1;
        assert!(written > recorded * 1000, "{written} bytes for {recorded} events");
    }
}
