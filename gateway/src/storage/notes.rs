//! The small files: what the directory belongs to, how far versions may have gone, and how the last run ended.
//!
//! Each is one frame, written beside its place, synced and renamed, so that it is there as a whole or not at all.

use super::StorageError;
use super::disk::{self, Disk};
use super::frame::{self, FORMAT, Found, Place};
use std::io;
use tidings_protocol::Version;

/// Whom the directory belongs to.
pub(super) const IDENTITY: &str = "identity";
/// No version above it was ever given or closed.
pub(super) const CEILING: &str = "ceiling";
/// Which start of the machine the last run was in.
const BOOT: &str = "boot";
/// There since the last run ended in order.
const CLEAN: &str = "clean";
/// There since the first acknowledgement that did not wait for a sync.
const UNSYNCED: &str = "unsynced";

/// What never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which cluster.
    pub cluster: u64,
    /// The cluster's secret for hashing IDs.
    pub key: [u8; 16],
    /// Into how many shards the hash space is cut.
    pub shards: u16,
    /// Nothing was known of anything before this version.
    pub since: Version,
}

/// How far versions may have gone, and how far the log surely went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ceiling {
    pub(super) version: Version,
    /// The log was written up to here.
    pub(super) written: Place,
    /// The log was synced up to here.
    pub(super) synced: Place,
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastRun {
    pub(super) clean: bool,
    pub(super) same_boot: bool,
    pub(super) unsynced: bool,
}

/// Writes a file whole or not at all.
fn put(disk: &dyn Disk, name: &str, payload: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, Place::default(), payload);
    disk::put(disk, name, &bytes)?;
    disk.sync_names()
}

/// A small file's payload; `None` if there is none, an error if it is damaged.
fn get(disk: &dyn Disk, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let bytes = match disk.read(name) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match frame::read(&bytes, Place::default()) {
        Found::Frame(payload) if payload.len() + frame::HEADER == bytes.len() => Ok(Some(payload.to_vec())),
        Found::Frame(_) | Found::End | Found::Torn | Found::Damaged => {
            Err(StorageError::Damaged { file: name.to_owned() })
        }
    }
}

fn number(payload: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?))
}

/// Whether a file of this name is one of these.
pub(super) fn is_note(name: &str) -> bool {
    [IDENTITY, CEILING, BOOT, CLEAN, UNSYNCED].contains(&name)
}

/// Writes whom the directory belongs to. `format`: how its other files are to be read, so that an earlier release lets be
/// what it would misunderstand.
pub(super) fn put_identity(disk: &dyn Disk, identity: &Identity, format: u16) -> io::Result<()> {
    let mut payload = format.to_le_bytes().to_vec();
    payload.extend_from_slice(&identity.cluster.to_le_bytes());
    payload.extend_from_slice(&identity.key);
    payload.extend_from_slice(&identity.shards.to_le_bytes());
    payload.extend_from_slice(&identity.since.0.to_le_bytes());
    put(disk, IDENTITY, &payload)
}

/// Whom the directory belongs to, and in which format its files are.
pub(super) fn identity(disk: &dyn Disk) -> Result<Option<(Identity, u16)>, StorageError> {
    let Some(payload) = get(disk, IDENTITY)? else {
        return Ok(None);
    };
    let damaged = || StorageError::Damaged {
        file: IDENTITY.to_owned(),
    };
    let two = |at: usize| Some(u16::from_le_bytes(payload.get(at..at + 2)?.try_into().ok()?));
    let format = two(0).ok_or_else(damaged)?;
    if format > FORMAT {
        return Err(StorageError::Newer { format });
    }
    let read = || {
        Some(Identity {
            cluster: number(&payload, 2)?,
            key: payload.get(10..26)?.try_into().ok()?,
            shards: two(26)?,
            since: Version(number(&payload, 28)?),
        })
    };
    Ok(Some((read().ok_or_else(damaged)?, format)))
}

pub(super) fn put_ceiling(disk: &dyn Disk, ceiling: &Ceiling) -> io::Result<()> {
    let bytes = |birth: Option<u64>| {
        let numbers = [
            ceiling.version.0,
            ceiling.written.file,
            ceiling.written.offset,
            ceiling.synced.file,
            ceiling.synced.offset,
            birth.unwrap_or(0),
        ];
        let mut bytes = Vec::new();
        frame::append(&mut bytes, Place::default(), &numbers.map(u64::to_le_bytes).concat());
        bytes
    };
    disk::put_born(disk, CEILING, &bytes)?;
    disk.sync_names()
}

/// Whether the file with the ceiling is not the one that was written: somebody copied the directory, and nobody knows what
/// happened in the original since then. `false` where the disk cannot tell.
pub(super) fn is_copy(disk: &dyn Disk) -> Result<bool, StorageError> {
    let Some(payload) = get(disk, CEILING)? else {
        return Ok(false);
    };
    let written = number(&payload, 40).filter(|birth| *birth > 0);
    let is = disk.birth(CEILING)?;
    Ok(written.zip(is).is_some_and(|(written, is)| written != is))
}

pub(super) fn ceiling(disk: &dyn Disk) -> Result<Option<Ceiling>, StorageError> {
    let Some(payload) = get(disk, CEILING)? else {
        return Ok(None);
    };
    let read = || {
        let place = |at| {
            Some(Place {
                file: number(&payload, at)?,
                offset: number(&payload, at + 8)?,
            })
        };
        Some(Ceiling {
            version: Version(number(&payload, 0)?),
            written: place(8)?,
            synced: place(24)?,
        })
    };
    read().map(Some).ok_or_else(|| StorageError::Damaged {
        file: CEILING.to_owned(),
    })
}

pub(super) fn last_run(disk: &dyn Disk, boot: Option<&str>) -> Result<LastRun, StorageError> {
    let names = disk.list()?;
    let there = |name: &str| names.iter().any(|there| there == name);
    // A boot file that cannot be read is of another boot: that only raises floors.
    let last = get(disk, BOOT).unwrap_or(None);
    Ok(LastRun {
        clean: there(CLEAN),
        same_boot: boot.is_some() && last.as_deref() == boot.map(str::as_bytes),
        unsynced: there(UNSYNCED),
    })
}

/// From now on, until [`end_run`], the directory looks as after a crash (rule R11).
pub(super) fn begin_run(disk: &dyn Disk, boot: Option<&str>) -> io::Result<()> {
    for name in [CLEAN, UNSYNCED] {
        match disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    put(disk, BOOT, boot.unwrap_or_default().as_bytes())
}

/// From now on something acknowledged may be on its way to the disk.
pub(super) fn begin_unsynced(disk: &dyn Disk) -> io::Result<()> {
    put(disk, UNSYNCED, b"")
}

/// Everything was written and synced.
pub(super) fn end_run(disk: &dyn Disk) -> io::Result<()> {
    put(disk, CLEAN, b"")
}

/// Names this start of the machine, where the system can tell.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
