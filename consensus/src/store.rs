//! Log, vote, committed position and snapshot in one embedded database (`redb`), or in memory.
//!
//! Every write is a synced transaction, done one after the other by a thread of its own: nothing here blocks a reactor, and
//! the library is told that something is written only when it is.

use crate::types::{Entry, LogId, SnapshotMeta, Types, Vote};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const WORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("words");

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";

/// Why the store cannot be used. **Nothing was changed.**
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, is not a database, or another process has it.
    #[error("cannot use the cluster's log {path}: {cause}")]
    Open {
        /// Where.
        path: String,
        /// Why.
        cause: String,
    },
    /// The writing thread cannot be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(io::Error),
}

/// How many entries the log in this file has had so far. No other process may use it.
///
/// # Errors
/// If it cannot be opened or read. Nothing was changed.
pub fn entries(path: &Path) -> Result<u64, StoreError> {
    let store = Store::open(Some(path))?;
    store.entries().map_err(|cause| StoreError::Open {
        path: path.display().to_string(),
        cause: cause.to_string(),
    })
}

type Job = Box<dyn FnOnce(&Database) + Send>;

#[derive(Debug)]
struct Inner {
    database: Arc<Database>,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The file is closed when the last handle is gone: whoever waits for that may open it again.
impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Jobs hold no handle, so this is never that thread itself. One that panicked has let go of the file too.
            _ = thread.join();
        }
    }
}

/// A handle; clones share the store.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Inner>);

/// Every error of the database as one of I/O: after it the library stops this node's part in the log.
fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn pack(value: &impl Serialize) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(failed)
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(bytes).map_err(failed)
}

impl Store {
    /// Opens or makes the file at `path`; `None` keeps everything in memory.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, StoreError> {
        let error = |cause: String| StoreError::Open {
            path: path.map_or_else(|| "in memory".to_owned(), |path| path.display().to_string()),
            cause,
        };
        let database = match path {
            Some(path) => Database::create(path),
            None => Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()),
        };
        let database = Arc::new(database.map_err(|cause| error(cause.to_string()))?);
        make_tables(&database).map_err(|cause| error(cause.to_string()))?;
        let (jobs, waiting) = mpsc::channel::<Job>();
        let for_thread = Arc::clone(&database);
        let thread = std::thread::Builder::new()
            .name("tidings-raft-log".to_owned())
            .spawn(move || {
                while let Ok(job) = waiting.recv() {
                    job(&for_thread);
                }
            })
            .map_err(StoreError::Thread)?;
        Ok(Self(Arc::new(Inner {
            database,
            jobs: Some(jobs),
            thread: Some(thread),
        })))
    }

    /// How many entries the log has had so far, those among them that a snapshot took the place of.
    pub(crate) fn entries(&self) -> io::Result<u64> {
        let purged: Option<LogId> = self.get(PURGED)?;
        let snapshot = self.snapshot()?.and_then(|(meta, _)| meta.last_log_id);
        let read = self.0.database.begin_read().map_err(failed)?;
        let table = read.open_table(LOG).map_err(failed)?;
        let last = table.last().map_err(failed)?.map(|(index, _)| index.value());
        let known = [last, purged.map(|id| id.index), snapshot.map(|id| id.index)];
        Ok(known.into_iter().flatten().max().map_or(0, |index| index + 1))
    }

    /// Writes in one synced transaction, behind all writes that were begun before.
    async fn write<F>(&self, change: F) -> io::Result<()>
    where
        F: FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            let written = || -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                change(&transaction)?;
                Ok(transaction.commit()?)
            };
            _ = reply.send(written().map_err(failed));
        });
        let jobs = self.0.jobs.as_ref();
        let sent = jobs.is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(failed("the log's thread is gone"));
        }
        done.await.map_err(|_| failed("the log's thread is gone"))?
    }

    async fn put(&self, word: &'static str, bytes: Vec<u8>) -> io::Result<()> {
        self.write(move |transaction| {
            transaction.open_table(WORDS)?.insert(word, bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    fn get<T: DeserializeOwned>(&self, word: &str) -> io::Result<Option<T>> {
        let read = self.0.database.begin_read().map_err(failed)?;
        let table = read.open_table(WORDS).map_err(failed)?;
        let found = table.get(word).map_err(failed)?;
        found.map(|bytes| unpack(bytes.value())).transpose()
    }

    /// Keeps a snapshot instead of the one before.
    pub(crate) async fn put_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        self.put(SNAPSHOT, pack(&(meta, data.to_vec()))?).await
    }

    /// The snapshot kept last.
    pub(crate) fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        self.get(SNAPSHOT)
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(WORDS)?;
    Ok(transaction.commit()?)
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let read = self.0.database.begin_read().map_err(failed)?;
        let table = read.open_table(LOG).map_err(failed)?;
        let entries = table.range(range).map_err(failed)?;
        entries.map(|entry| unpack(entry.map_err(failed)?.1.value())).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.get(VOTE)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let purged: Option<LogId> = self.get(PURGED)?;
        let read = self.0.database.begin_read().map_err(failed)?;
        let table = read.open_table(LOG).map_err(failed)?;
        let last = table.last().map_err(failed)?;
        let last = last.map(|(_, bytes)| unpack::<Entry>(bytes.value())).transpose()?;
        Ok(LogState {
            last_log_id: last.map(|entry| entry.log_id).or(purged),
            last_purged_log_id: purged,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put(VOTE, pack(vote)?).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Only a hint of where to go on after a restart: it need not be awaited.
        let bytes = pack(&committed)?;
        let store = self.clone();
        drop(tokio::spawn(async move { store.put(COMMITTED, bytes).await }));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.get::<Option<LogId>>(COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let packed = entries.into_iter().map(|entry| Ok((entry.log_id.index, pack(&entry)?)));
        let packed: Vec<(u64, Vec<u8>)> = packed.collect::<io::Result<_>>()?;
        let written = self
            .write(move |transaction| {
                let mut table = transaction.open_table(LOG)?;
                for (index, bytes) in &packed {
                    table.insert(index, bytes.as_slice())?;
                }
                Ok(())
            })
            .await;
        let failed = written.as_ref().err().map(failed);
        done.io_completed(written);
        failed.map_or(Ok(()), Err)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.write(move |transaction| {
            let mut table = transaction.open_table(LOG)?;
            table.retain_in(from.., |_, _| false)?;
            Ok(())
        })
        .await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let word = pack(&upto)?;
        self.write(move |transaction| {
            transaction.open_table(WORDS)?.insert(PURGED, word.as_slice())?;
            transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
            Ok(())
        })
        .await
    }
}
