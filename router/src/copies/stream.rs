//! The sending side of one stream: batches numbered without gaps, kept until they are confirmed.

use crate::now::MonoUs;
use std::collections::VecDeque;
use std::sync::Arc;
use tidings_protocol::copy::Entry;

/// A batch is ended when it has so many bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// Versions of one entry: an entry is never cut, and a frame between nodes has a limit.
const MOST_VERSIONS: usize = 8_192;

/// A batch on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Of which life of the stream.
    pub life: u32,
    /// Its number.
    pub place: u64,
    /// Whether somebody waits for it to be synced.
    pub sync: bool,
    /// What it holds, shared with the copy that is kept here until it is confirmed.
    pub entries: Arc<Vec<Entry>>,
}

#[derive(Debug)]
struct Kept {
    batch: Batch,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) up: bool,
    pub(super) life: u32,
    next: u64,
    pub(super) written: u64,
    pub(super) synced: u64,
    kept: VecDeque<Kept>,
    /// Ended, and not sent yet.
    ready: Vec<Batch>,
    bytes: usize,
    gathered: Vec<Entry>,
    gathered_bytes: usize,
    sync: bool,
    /// Since when something has waited without any progress.
    pub(super) waits_since_us: Option<MonoUs>,
}

impl Stream {
    pub(super) fn new(up: bool) -> Self {
        Self {
            up,
            life: 1,
            next: 1,
            written: 0,
            synced: 0,
            kept: VecDeque::new(),
            ready: Vec::new(),
            bytes: 0,
            gathered: Vec::new(),
            gathered_bytes: 0,
            sync: false,
            waits_since_us: None,
        }
    }

    /// Adds to the batch that is being gathered, in parts if it is long.
    pub(super) fn push(&mut self, entry: Entry) {
        match entry {
            Entry::Versions { shard, epoch, versions } if versions.len() > MOST_VERSIONS => {
                for part in versions.chunks(MOST_VERSIONS) {
                    let versions = part.to_vec();
                    self.add(Entry::Versions { shard, epoch, versions });
                }
            }
            entry => self.add(entry),
        }
    }

    fn add(&mut self, entry: Entry) {
        if self.gathered_bytes >= BATCH_BYTES {
            self.end_batch();
        }
        self.gathered_bytes += entry.bytes();
        self.gathered.push(entry);
    }

    /// Whoever waits for the batch that is being gathered, or for all before it, waits until it is synced.
    pub(super) fn want_sync(&mut self) {
        self.sync = true;
    }

    /// The number of the last batch, the one that is being gathered included.
    pub(super) fn last_place(&self) -> u64 {
        self.next - u64::from(self.gathered.is_empty() && !self.sync)
    }

    /// Bytes that wait to be confirmed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.gathered_bytes
    }

    fn end_batch(&mut self) {
        if self.gathered.is_empty() && !self.sync {
            return;
        }
        let batch = Batch {
            life: self.life,
            place: self.next,
            sync: std::mem::take(&mut self.sync),
            entries: Arc::new(std::mem::take(&mut self.gathered)),
        };
        self.next += 1;
        let bytes = std::mem::take(&mut self.gathered_bytes);
        self.bytes += bytes;
        self.kept.push_back(Kept {
            batch: batch.clone(),
            bytes,
        });
        self.ready.push(batch);
    }

    /// Ends the batch that is being gathered, and gives what can be sent now.
    pub(super) fn flush(&mut self, now_us: MonoUs) -> Vec<Batch> {
        self.end_batch();
        if !self.ready.is_empty() {
            self.waits_since_us.get_or_insert(now_us);
        }
        let ready = std::mem::take(&mut self.ready);
        // Whatever is not confirmed is sent when the connection is up.
        if self.up { ready } else { Vec::new() }
    }

    /// Takes a confirmation. `false` if it confirms what was never sent.
    pub(super) fn confirmed(&mut self, now_us: MonoUs, written: u64, synced: u64) -> bool {
        if written >= self.next || synced > written {
            return false;
        }
        let before = (self.written, self.synced);
        self.written = self.written.max(written);
        self.synced = self.synced.max(synced);
        // What is wanted on disk is done when it is there.
        while let Some(first) = self.kept.front() {
            let reached = if first.batch.sync { self.synced } else { self.written };
            if first.batch.place > reached {
                break;
            }
            self.bytes -= first.bytes;
            self.kept.pop_front();
        }
        if self.kept.is_empty() {
            self.waits_since_us = None;
        } else if (self.written, self.synced) != before {
            self.waits_since_us = Some(now_us);
        }
        true
    }

    /// Nobody waits for anything of it any more: what was under way is given up, and the next batch begins a new life. Its
    /// numbers begin anew, and the other end must not take them for those it has seen.
    pub(super) fn void(&mut self) {
        if self.next > 1 || !self.gathered.is_empty() {
            *self = Self {
                life: self.life + 1,
                ..Self::new(self.up)
            };
        }
    }

    /// All that is not confirmed, in order, to be sent again.
    pub(super) fn again(&mut self) -> impl Iterator<Item = Batch> {
        self.ready.clear();
        self.kept.iter().map(|kept| kept.batch.clone())
    }
}
