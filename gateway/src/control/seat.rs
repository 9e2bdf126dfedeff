//! Who this node is, in its data directory: its name, its lives, and to which cluster it is bound.
//!
//! One file, written beside its place, synced and renamed. It does not know what the promises in it are good for.

use super::forming::Kept;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tidings_protocol::NodeId;

/// The file.
const NAME: &str = "node";
/// The replicated log's file.
const LOG: &str = "control.redb";
/// Where a log is put that is older than it should be.
const ASIDE: &str = "control.redb.older";
const MAGIC: &[u8; 8] = b"tdnode\x00\x01";

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The node's name.
    pub(super) node: NodeId,
    /// Which start of it this is.
    pub(super) incarnation: u64,
    /// What it promised, and what it is part of.
    pub(super) kept: Kept,
    /// The only cluster that it may be part of: what is in the directory is of that one.
    pub(super) belongs: Option<u64>,
    /// The log has had at least so many entries: if it has fewer, it is an older copy.
    #[serde(default)]
    pub(super) entries: u64,
}

/// Why nobody can say who this node is. **Nothing was changed.**
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The file is damaged.
    #[error("the file {0} in the data directory is damaged: bring it back, or start with an empty directory")]
    Damaged(PathBuf),
    /// There is a log but nobody knows whose.
    #[error(
        "the data directory holds the cluster's log but not the file `node`, without which nobody knows whose it is: bring \
         it back, or remove {0} (this node then joins its cluster under another name)"
    )]
    NoNode(PathBuf),
    /// A node that was alone has data here.
    #[error(
        "the data directory is that of a node that was alone, and a cluster is configured (cluster.join, cluster.expect): \
         choose another directory (--data-dir)"
    )]
    Alone,
    /// Two clusters in one directory.
    #[error(
        "the data directory's files `identity` ({identity:016x}) and `node` ({node:016x}) are of two clusters: was one copied there?"
    )]
    TwoClusters {
        /// Of the versions.
        identity: u64,
        /// Of the log.
        node: u64,
    },
    /// The system refused.
    #[error("the data directory cannot be used: {0}")]
    System(#[from] io::Error),
}

/// A record and where it is kept.
#[derive(Debug)]
pub(super) struct Seat {
    folder: Option<PathBuf>,
    record: Record,
}

fn draw(edge: bool) -> io::Result<NodeId> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    // Zero would look like nobody.
    Ok(NodeId((u64::from_le_bytes(bytes) >> 1).max(1)).with_edge(edge))
}

fn read(path: &Path) -> Result<Option<Record>, SeatError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let record = || {
        let (sum, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        if crc32fast::hash(payload) != u32::from_le_bytes(*sum) {
            return None;
        }
        rmp_serde::from_slice(payload).ok()
    };
    record().map(Some).ok_or_else(|| SeatError::Damaged(path.to_owned()))
}

fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let payload = rmp_serde::to_vec_named(record).map_err(io::Error::other)?;
    let unfinished = folder.join(format!("{NAME}.unfinished"));
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(&[MAGIC, &crc32fast::hash(&payload).to_le_bytes()[..], &payload].concat())?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

fn entries(log: &Path) -> io::Result<u64> {
    tidings_consensus::entries(log).map_err(io::Error::other)
}

/// Whether the data directory is that of a node of a cluster.
///
/// # Errors
/// If nobody can say.
pub fn is_of_a_cluster(folder: &Path) -> Result<bool, SeatError> {
    Ok(read(&folder.join(NAME))?.is_some())
}

impl Seat {
    /// Takes the seat: a new life begins, and is on disk when this returns. `identity` is the cluster whose versions are
    /// in the directory; `wall_us` the time; `edge` whether the node has an edge's secret, which its name says.
    ///
    /// # Errors
    /// If nobody can say who this node is, or it cannot be kept.
    pub(super) fn take(
        folder: Option<&Path>,
        identity: Option<u64>,
        wall_us: u64,
        edge: bool,
    ) -> Result<Self, SeatError> {
        let Some(folder) = folder else {
            let record = Record {
                node: draw(edge)?,
                incarnation: wall_us.max(1),
                kept: Kept::default(),
                belongs: None,
                entries: 0,
            };
            return Ok(Self { folder: None, record });
        };
        let log = folder.join(LOG);
        let known = read(&folder.join(NAME))?;
        let bound = known.as_ref().and_then(|record| record.kept.bound());
        if let (Some(node), Some(identity)) = (bound, identity)
            && node != identity
        {
            return Err(SeatError::TwoClusters { identity, node });
        }
        let fresh = |belongs| {
            Ok::<Record, SeatError>(Record {
                node: draw(edge)?,
                incarnation: wall_us.max(1),
                kept: Kept::default(),
                belongs,
                entries: 0,
            })
        };
        let record = match known {
            None if log.exists() => return Err(SeatError::NoNode(log)),
            None if identity.is_some() => return Err(SeatError::Alone),
            // It may have promised a vote that nobody remembers: so it is another node from now on.
            Some(known) if known.kept.has_log() && !log.exists() => {
                tracing::warn!(
                    node = %known.node,
                    "the cluster's log is missing from the data directory: this node joins its cluster under another name"
                );
                fresh(bound)?
            }
            Some(known) if known.kept.has_log() && entries(&log)? < known.entries => {
                let aside = folder.join(ASIDE);
                tracing::warn!(
                    node = %known.node,
                    aside = %aside.display(),
                    "the cluster's log in the data directory is older than what this node has acknowledged: was it put back from a \
                     copy? It is set aside, and this node joins its cluster under another name"
                );
                fs::rename(&log, aside)?;
                fresh(bound)?
            }
            Some(known) if known.node.is_edge() != edge => {
                tracing::warn!(
                    node = %known.node,
                    "the secret is of another kind of node than before: this node joins its cluster under another name"
                );
                if log.exists() {
                    fs::rename(&log, folder.join(ASIDE))?;
                }
                fresh(bound)?
            }
            Some(known) => Record {
                incarnation: (known.incarnation + 1).max(wall_us),
                kept: known.kept.after_a_restart(known.node),
                ..known
            },
            None => fresh(None)?,
        };
        write(folder, &record)?;
        let folder = Some(folder.to_owned());
        Ok(Self { folder, record })
    }

    /// What is kept.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Where the replicated log is kept; `None` in memory.
    pub(super) fn log(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(LOG))
    }

    /// Keeps this from now on; it is on disk when this returns.
    ///
    /// # Errors
    /// What the system said. Nobody may be told what was to be kept.
    pub(super) fn keep(&mut self, kept: &Kept) -> io::Result<()> {
        if self.record.kept == *kept {
            return Ok(());
        }
        self.put(Record {
            kept: kept.clone(),
            ..self.record.clone()
        })
    }

    /// The log has had so many entries; it is on disk when this returns. What is less than before changes nothing.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn mark(&mut self, entries: u64) -> io::Result<()> {
        if entries <= self.record.entries {
            return Ok(());
        }
        self.put(Record {
            entries,
            ..self.record.clone()
        })
    }

    fn put(&mut self, record: Record) -> io::Result<()> {
        if let Some(folder) = &self.folder {
            write(folder, &record)?;
        }
        self.record = record;
        Ok(())
    }
}
