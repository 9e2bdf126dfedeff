//! The thread that writes the log: takes what has gathered, writes it in one go, syncs it once if anybody asked for that,
//! and answers all who wait.
//!
//! When the disk fails, those who wait are told so and nothing more is accepted until a probe succeeds. What was written
//! into a file whose sync failed is not trusted again: a new file is begun, and snapshots replace all the older ones
//! before anything is acknowledged.

use super::disk::{Disk, DiskFile};
use super::frame::{self, Head, Origin, Payload, Place};
use super::notes;
use super::recovery::log_name;
use super::state::{State, Trouble};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// What an owner wants written.
#[derive(Debug)]
pub struct Order {
    /// Which owner.
    pub owner: usize,
    /// Comes back with the answer; `None` if nobody waits.
    pub ticket: Option<u64>,
    /// What to write; may be empty when only the order matters.
    pub payload: Payload,
    /// Whether the answer waits until it is synced.
    pub durable: bool,
}

/// What became of orders.
#[derive(Debug)]
pub struct Done {
    /// Their tickets.
    pub tickets: Vec<u64>,
    /// Whether they were written, or written and synced where that was asked for.
    pub fine: bool,
}

/// What the directory says of acknowledgements that did not wait for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// There were none.
    Absent,
    /// It could not be written when there was one to be given.
    Wanted,
    /// There may have been some.
    Present,
}

/// At most this many bytes are written at one go.
const GROUP_BYTES: usize = 8 << 20;

/// A file with more than this to be synced is synced by another thread before it is ended: whoever waits for a write does
/// not wait for that.
const SYNC_BEHIND_BYTES: usize = 1 << 20;

/// At most so often: where changes come faster than the disk syncs them, the file has to end some time.
const SYNCS_BEHIND: u8 = 3;

/// How often a disk that failed is tried again.
const PROBE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: Arc<State>,
    pub(super) answers: Vec<UnboundedSender<Done>>,
    pub(super) origin: Origin,
    pub(super) file_bytes: u64,
    file: Option<Box<dyn DiskFile>>,
    /// Where the log ends.
    pub(super) place: Place,
    // Bytes written since the last sync.
    unsynced: usize,
    // The marker for acknowledgements without sync is there, or could not be written.
    mark: Mark,
    // The file is being synced by another thread before it is ended.
    ending: Option<JoinHandle<io::Result<()>>>,
    // How often that was done for this file.
    synced_behind: u8,
    buffer: Vec<u8>,
    // What could not be written, and belongs into the next file.
    owed: Vec<Payload>,
    // A file that could not be cut to the length of what was acknowledged.
    uncut: Option<Place>,
    pub(super) next_probe: Instant,
    /// A file's sync failed: snapshots from this file on must replace everything older.
    distrusted: bool,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        state: Arc<State>,
        answers: Vec<UnboundedSender<Done>>,
        origin: Origin,
        file_bytes: u64,
    ) -> Self {
        Self {
            disk,
            state,
            answers,
            origin,
            file_bytes,
            file: None,
            place: Place::default(),
            unsynced: 0,
            mark: Mark::Absent,
            ending: None,
            synced_behind: 0,
            buffer: Vec::new(),
            owed: Vec::new(),
            uncut: None,
            next_probe: Instant::now(),
            distrusted: false,
        }
    }

    /// Begins the file of this number.
    pub(super) fn begin(&mut self, number: u64) -> io::Result<()> {
        let name = log_name(number);
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = self.disk.create(&name)?;
        let head = Payload::head(Head {
            origin: self.origin,
            number,
            after: self.place,
        });
        let place = Place {
            file: number,
            offset: 0,
        };
        let mut bytes = Vec::new();
        frame::append(&mut bytes, place, head.bytes());
        file.append(&bytes)?;
        file.sync()?;
        self.disk.sync_names()?;
        self.file = Some(file);
        self.place = Place {
            offset: bytes.len() as u64,
            ..place
        };
        self.unsynced = 0;
        self.synced_behind = 0;
        self.state.began_file(number);
        self.state.log_grew(bytes.len() as u64);
        self.state.reached(self.place, Some(self.place));
        Ok(())
    }

    /// Works until nobody is left who could send an order. Whether everything is on the disk then.
    pub(super) fn run(mut self, orders: &Receiver<Vec<Order>>) -> bool {
        loop {
            let mut next = match orders.recv_timeout(PROBE) {
                Ok(orders) => Some(orders),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut group: Vec<Order> = Vec::new();
            let mut bytes = 0;
            while let Some(several) = next {
                bytes += several.iter().map(|order| order.payload.bytes().len()).sum::<usize>();
                group.extend(several);
                next = (bytes < GROUP_BYTES).then(|| orders.try_recv().ok()).flatten();
            }
            self.group(group);
            self.state.took(bytes);
            self.care();
        }
        self.care();
        if self.state.is_failing() {
            self.next_probe = Instant::now();
            self.care();
        }
        self.owed.is_empty() && !self.distrusted && self.sync().is_ok()
    }

    /// What is due without an order.
    pub(super) fn care(&mut self) {
        if self.state.trouble(Trouble::Log) {
            if Instant::now() >= self.next_probe {
                self.next_probe = Instant::now() + PROBE;
                self.probe();
            }
        } else if (self.place.offset >= self.file_bytes || self.state.wants_new_file()) && !self.sync_behind() {
            self.roll();
        }
    }

    /// Whether another thread syncs the file now.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| !ending.is_finished())
    }

    /// Has another thread sync the file while there is much to sync. Whether the file is better ended later.
    fn sync_behind(&mut self) -> bool {
        if self.is_ending() {
            return true;
        }
        // What became of it shows again at our own sync.
        self.ending = None;
        if self.unsynced <= SYNC_BEHIND_BYTES || self.synced_behind >= SYNCS_BEHIND {
            return false;
        }
        let (disk, name) = (Arc::clone(&self.disk), log_name(self.place.file));
        let thread = std::thread::Builder::new().name("tidings-sync".to_owned());
        self.ending = thread.spawn(move || disk.sync_behind(&name)).ok();
        self.synced_behind += 1;
        // What comes from now on has yet to be synced, and our own sync of the rest.
        self.unsynced = 1;
        self.ending.is_some()
    }

    /// Ends the file and begins the next one.
    fn roll(&mut self) {
        if self.sync().is_ok()
            && let Err(error) = self.begin(self.place.file + 1)
        {
            self.fail("a new log file cannot be begun", &error);
        }
    }

    pub(super) fn group(&mut self, group: Vec<Order>) {
        if group.is_empty() {
            return;
        }
        if self.state.trouble(Trouble::Log) {
            return self.refuse(group);
        }
        if let Err(error) = self.write(&group) {
            self.fail("the log cannot be written", &error);
            return self.refuse(group);
        }
        self.state.reached(self.place, None);
        let (durable, accepted): (Vec<_>, Vec<_>) = group.into_iter().partition(|order| order.durable);
        if accepted.iter().any(|order| order.ticket.is_some())
            && let Err(error) = self.mark()
        {
            self.fail("a marker cannot be written", &error);
            // They are in the log, but must not be acknowledged.
            self.answer(&accepted, false);
            return self.answer(&durable, false);
        }
        self.answer(&accepted, true);
        if !durable.is_empty() {
            let fine = self.sync().is_ok();
            self.answer(&durable, fine);
        }
    }

    /// The directory says from now on that something acknowledged may be on its way to the disk.
    fn mark(&mut self) -> io::Result<()> {
        if self.mark != Mark::Present {
            self.mark = Mark::Wanted;
            notes::begin_unsynced(&*self.disk)?;
            self.mark = Mark::Present;
        }
        Ok(())
    }

    fn write(&mut self, group: &[Order]) -> io::Result<()> {
        self.buffer.clear();
        let mut place = self.place;
        for order in group.iter().filter(|order| !order.payload.is_empty()) {
            frame::append(&mut self.buffer, place, order.payload.bytes());
            place.offset = self.place.offset + self.buffer.len() as u64;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| io::Error::other("no log file is open"))?;
        file.append(&self.buffer)?;
        self.unsynced += self.buffer.len();
        self.place = place;
        self.state.log_grew(self.buffer.len() as u64);
        Ok(())
    }

    /// Makes durable what was written; a failure is seen to here.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced == 0 {
            return Ok(());
        }
        let begin = Instant::now();
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| io::Error::other("no log file is open"))?;
        let result = file.sync();
        self.state.metrics.sync_seconds.observe(begin.elapsed().as_secs_f64());
        match &result {
            Ok(()) => {
                self.unsynced = 0;
                self.state.reached(self.place, Some(self.place));
            }
            Err(error) => {
                self.distrusted = true;
                self.fail("the log cannot be synced; its file is not trusted again", error);
            }
        }
        result
    }

    fn fail(&mut self, what: &'static str, error: &io::Error) {
        tracing::error!(%error, what, "storage fails: publishes are refused until it works again");
        self.state.fails(Trouble::Log, true);
        self.next_probe = Instant::now() + PROBE;
        if !self.distrusted {
            self.uncut = Some(self.place);
        }
        self.file = None;
        self.ending = None;
    }

    /// Tells those who wait, and keeps what memory has and the disk has not.
    fn refuse(&mut self, group: Vec<Order>) {
        self.answer(&group, false);
        self.owed.extend(group.into_iter().map(|order| order.payload));
        self.owed.retain(|payload| !payload.is_empty());
    }

    fn answer(&self, orders: &[Order], fine: bool) {
        for (owner, answers) in self.answers.iter().enumerate() {
            let of_owner = orders.iter().filter(|order| order.owner == owner);
            let tickets: Vec<u64> = of_owner.filter_map(|order| order.ticket).collect();
            if !tickets.is_empty() {
                // An owner that is gone has nobody who waits.
                _ = answers.send(Done { tickets, fine });
            }
        }
    }

    /// Tries whether the disk works again.
    fn probe(&mut self) {
        match self.recover() {
            Ok(true) => {
                tracing::info!("storage works again");
                self.state.fails(Trouble::Log, false);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "storage still fails");
                self.file = None;
            }
        }
    }

    /// Whether everything that memory has is on the disk again.
    fn recover(&mut self) -> io::Result<bool> {
        if let Some(place) = self.uncut {
            // Behind what was acknowledged may lie a part of what was not.
            self.disk
                .truncate(&log_name(place.file), place.offset)
                .inspect_err(|_| {
                    // That it was the sync which failed is told only once.
                    self.distrusted = true;
                })?;
            self.uncut = None;
        }
        if self.mark == Mark::Wanted {
            self.mark()?;
        }
        if self.file.is_none() {
            self.begin(self.place.file + 1)?;
        }
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            let orders = owed.into_iter().map(|payload| Order {
                owner: 0,
                ticket: None,
                payload,
                durable: true,
            });
            let orders: Vec<Order> = orders.collect();
            let begun = self.place;
            let written = self.write(&orders).and_then(|()| match &mut self.file {
                Some(file) => file.sync(),
                None => Ok(()),
            });
            if let Err(error) = written {
                self.owed = orders.into_iter().map(|order| order.payload).collect();
                self.place = begun;
                self.uncut = Some(begun);
                return Err(error);
            }
            self.unsynced = 0;
            self.state.reached(self.place, Some(self.place));
        }
        if self.distrusted {
            if self.state.snapshots_since() < self.place.file {
                self.state.ask_for_snapshots();
                return Ok(false);
            }
            self.distrusted = false;
        }
        Ok(true)
    }
}
