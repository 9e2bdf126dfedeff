//! A disk that forgets what was not synced, tears what was being written, fills up and fails, as told.

use crate::storage::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// From operation `at` on nothing works any more; that one itself is half done.
    Crash { at: u64 },
    /// Operation `at` alone fails, half done.
    Fail { at: u64 },
    /// Nothing can be appended or created from operation `from` on, `count` times.
    Full { from: u64, count: u64 },
}

/// How the machine comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// Only the process ended: everything written is there.
    Process,
    /// The machine went down: only what was synced is there.
    Power,
    /// The machine went down, and half of what was not synced is there.
    PowerTorn,
    /// The machine went down, and of the names changed since they were last synced only the removals reached the disk.
    PowerNames,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What a process reads.
    data: Vec<u8>,
    /// What the disk holds.
    synced: Vec<u8>,
    /// Parts that a failed sync left behind as if they were written: no later sync writes them.
    lost: Vec<Range<usize>>,
    /// How many syncs failed. Whoever had the file open then is told once.
    failures: u64,
    birth: u64,
}

impl Inode {
    fn sync(&mut self) {
        self.synced.clone_from(&self.data);
        for lost in &self.lost {
            self.synced[lost.clone()].fill(0);
        }
    }

    fn fail_to_sync(&mut self) {
        // Parts that were synced before are not concerned: files only grow, or are cut.
        self.lost.push(self.synced.len().min(self.data.len())..self.data.len());
        self.failures += 1;
    }

    fn cut(&mut self, len: usize) {
        self.data.truncate(len);
        for lost in &mut self.lost {
            *lost = lost.start.min(len)..lost.end.min(len);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    operations: u64,
    fault: Option<Fault>,
}

enum Step {
    Whole,
    Half,
}

impl Inner {
    /// Counts an operation; an error if it does nothing at all.
    fn operation(&mut self, takes_room: bool) -> io::Result<Step> {
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some(Fault::Crash { at } | Fault::Fail { at }) if now == at => Ok(Step::Half),
            Some(Fault::Crash { at }) if now > at => Err(broken()),
            Some(Fault::Full { from, count }) if takes_room && (from..from + count).contains(&now) => Ok(Step::Half),
            _ => Ok(Step::Whole),
        }
    }

    /// A sync is half done: whatever it was about is lost unless the process ended in the midst of it.
    fn fail_to_sync(&mut self, inode: usize) {
        if matches!(self.fault, Some(Fault::Fail { .. })) {
            self.inodes[inode].fail_to_sync();
        }
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn broken() -> io::Error {
    io::Error::other("simulated")
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Simulated(Arc<Mutex<Inner>>);

impl Simulated {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().expect("no test panicked here"))
    }

    pub(super) fn operations(&self) -> u64 {
        self.with(|inner| inner.operations)
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.with(|inner| inner.fault = fault);
    }

    /// The same disk after a crash.
    pub(super) fn back(&self, how: Back) -> Self {
        let new = self.with(|inner| {
            let mut new = Inner {
                inodes: inner.inodes.clone(),
                names: inner.names.clone(),
                durable_names: inner.durable_names.clone(),
                ..Inner::default()
            };
            if how != Back::Process {
                let left = |name: &String| how != Back::PowerNames || inner.names.contains_key(name);
                new.names = new.durable_names.clone();
                new.names.retain(|name, _| left(name));
                for inode in &mut new.inodes {
                    let unsynced = inode.data.len().saturating_sub(inode.synced.len());
                    let appended = inode.data.starts_with(&inode.synced) && inode.lost.is_empty();
                    let half = inode.synced.len() + unsynced / 2;
                    if how == Back::PowerTorn && appended {
                        inode.data.truncate(half);
                    } else {
                        inode.data.clone_from(&inode.synced);
                    }
                }
            }
            if how != Back::Process {
                for inode in &mut new.inodes {
                    inode.synced.clone_from(&inode.data);
                    inode.lost.clear();
                }
            }
            new
        });
        Self(Arc::new(Mutex::new(new)))
    }

    /// A copy of all files, as somebody makes it who keeps backups.
    pub(super) fn copy(&self) -> Self {
        let copy = self.back(Back::Process);
        copy.with(|inner| {
            for inode in &mut inner.inodes {
                inode.birth += 1_000_000;
            }
        });
        copy
    }

    /// Changes one byte of a file.
    pub(super) fn flip(&self, name: &str, at: usize, mask: u8) {
        self.with(|inner| {
            let inode = inner.inode(name).expect("the file is there");
            inner.inodes[inode].data[at] ^= mask;
        });
    }

    /// Cuts a file short or removes it.
    pub(super) fn lose(&self, name: &str, left: Option<usize>) {
        self.with(|inner| {
            let inode = inner.inode(name).expect("the file is there");
            match left {
                Some(left) => inner.inodes[inode].data.truncate(left),
                None => drop(inner.names.remove(name)),
            }
        });
    }
}

impl Disk for Simulated {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.with(|inner| {
            if inner.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let step = inner.operation(true)?;
            let inode = inner.inodes.len();
            inner.inodes.push(Inode {
                birth: inode as u64 + 1,
                ..Inode::default()
            });
            inner.names.insert(name.to_owned(), inode);
            match step {
                Step::Whole => Ok(inode),
                Step::Half => Err(broken()),
            }
        })?;
        Ok(Box::new(SimulatedFile {
            disk: self.clone(),
            inode,
            told: 0,
        }))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(|inner| Ok(inner.inodes[inner.inode(name)?].data.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.with(|inner| Ok(inner.names.keys().cloned().collect()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|inner| {
            let inode = inner.inode(from)?;
            let step = inner.operation(false)?;
            inner.names.remove(from);
            inner.names.insert(to.to_owned(), inode);
            match step {
                Step::Whole => Ok(()),
                Step::Half => Err(broken()),
            }
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|inner| {
            inner.inode(name)?;
            inner.operation(false)?;
            inner.names.remove(name);
            Ok(())
        })
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.with(|inner| {
            let inode = inner.inode(name)?;
            let step = inner.operation(false)?;
            inner.inodes[inode].cut(len as usize);
            match step {
                Step::Whole => inner.inodes[inode].sync(),
                Step::Half => {
                    inner.fail_to_sync(inode);
                    return Err(broken());
                }
            }
            Ok(())
        })
    }

    fn sync_behind(&self, name: &str) -> io::Result<()> {
        self.with(|inner| {
            let inode = inner.inode(name)?;
            match inner.operation(false)? {
                Step::Whole => inner.inodes[inode].sync(),
                Step::Half => {
                    inner.fail_to_sync(inode);
                    return Err(broken());
                }
            }
            Ok(())
        })
    }

    fn birth(&self, name: &str) -> io::Result<Option<u64>> {
        self.with(|inner| Ok(Some(inner.inodes[inner.inode(name)?].birth)))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.with(|inner| match inner.operation(false)? {
            Step::Whole => {
                inner.durable_names = inner.names.clone();
                Ok(())
            }
            Step::Half => Err(broken()),
        })
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Simulated,
    inode: usize,
    /// Of how many failed syncs it was told.
    told: u64,
}

impl DiskFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode;
        self.disk.with(|inner| match inner.operation(true)? {
            Step::Whole => {
                inner.inodes[inode].data.extend_from_slice(bytes);
                Ok(())
            }
            Step::Half => {
                inner.inodes[inode].data.extend_from_slice(&bytes[..bytes.len() / 2]);
                Err(io::ErrorKind::StorageFull.into())
            }
        })
    }

    /// After a failure the pages count as clean although they never reached the disk, as on Linux.
    fn sync(&mut self) -> io::Result<()> {
        let (at, told) = (self.inode, self.told);
        let (result, failures) = self.disk.with(|inner| {
            let whole = match inner.operation(false) {
                Ok(Step::Whole) => {
                    inner.inodes[at].sync();
                    true
                }
                Ok(Step::Half) => {
                    inner.fail_to_sync(at);
                    false
                }
                Err(error) => return (Err(error), told),
            };
            let failures = inner.inodes[at].failures;
            let fine = whole && failures == told;
            (if fine { Ok(()) } else { Err(broken()) }, failures)
        });
        self.told = failures;
        result
    }
}
