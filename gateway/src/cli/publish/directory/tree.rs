//! The directory: what is there, what was there, and where to look next.
//!
//! The snapshot is the truth; the kernel's hints only say where to look, and every so often everything is looked at. Each
//! directory is watched before it is read, so that what is created in between is either read or hinted at. Hints are
//! translated and directories read by one thread in turn: a hint never meets a half-updated table of watches.
//!
//! It does not know the server, nor which changes it was told of.

#[cfg(target_os = "linux")]
use super::inotify::{Seen, WatchError, Watches};
use super::pending::Hints;
use super::snapshot::{Full, Snapshot, Stamp};
use super::{Kind, Options, names};
use crate::cli::{note, one_line};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Without hints from the system, everything is looked at this often (or ten times as long as a look takes).
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// Why nothing more can be seen. **What was seen before is still to be published.**
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("{0} below the directory: raise --max-files, or watch a smaller directory")]
    TooManyFiles(#[from] Full),
    #[error("more than {0} directories: raise --max-files, or watch a smaller directory")]
    TooManyDirectories(usize),
    #[error("the directory was removed or moved away")]
    Gone,
    #[error("cannot read the directory: {0}")]
    Unreadable(io::Error),
}

/// One directory with everything below it.
pub(super) struct Tree {
    root: PathBuf,
    prefix: String,
    all: bool,
    max_files: usize,
    rescan: Option<Duration>,
    snapshot: Snapshot,
    hints: Hints,
    /// The kernel may have more to say.
    more_hints: bool,
    #[cfg(target_os = "linux")]
    watches: Option<Watches>,
    look: u32,
    next_look: Option<Instant>,
    warned_name: bool,
    warned_unreadable: bool,
}

impl Tree {
    /// Looks at everything for the first time. Files that are there are known from then on, or, if `initial`, changes.
    pub(super) fn open(options: &Options) -> Result<Self, TreeError> {
        let root = options.root.canonicalize().map_err(TreeError::Unreadable)?;
        let mut tree = Self {
            root,
            prefix: options.prefix.clone(),
            all: options.all,
            max_files: options.max_files,
            rescan: options.rescan,
            snapshot: Snapshot::new(options.max_files),
            hints: Hints::default(),
            more_hints: false,
            #[cfg(target_os = "linux")]
            watches: Watches::new().inspect_err(|error| no_hints(&error.to_string())).ok(),
            look: 0,
            next_look: None,
            warned_name: false,
            warned_unreadable: false,
        };
        tree.look_at_everything(Instant::now())?;
        Ok(tree)
    }

    /// How many files are known.
    pub(super) fn files(&self) -> usize {
        self.snapshot.len()
    }

    /// A descriptor that becomes readable when [`Tree::read_hints`] has something to read.
    #[cfg(target_os = "linux")]
    pub(super) fn descriptor(&self) -> Option<std::os::fd::OwnedFd> {
        self.watches.as_ref()?.descriptor().ok()
    }

    /// When [`Tree::settle`] should be called next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.more_hints {
            Some(Instant::now())
        } else {
            self.hints.next_due().into_iter().chain(self.next_look).min()
        }
    }

    /// There are no hints on this system.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_hints(&mut self, _now: Instant) -> Result<(), TreeError> {
        Ok(())
    }

    /// Reads what the kernel has to say, up to a limit.
    #[cfg(target_os = "linux")]
    pub(super) fn read_hints(&mut self, now: Instant) -> Result<(), TreeError> {
        self.more_hints = false;
        let Some(watches) = &mut self.watches else {
            return Ok(());
        };
        let (mut seen, mut unreadable_names) = (Vec::new(), 0);
        self.more_hints = watches
            .read(&mut seen, &mut || unreadable_names += 1)
            .map_err(TreeError::Unreadable)?;
        if unreadable_names > 0 {
            self.warn_name("a name that is not UTF-8", "not UTF-8");
        }
        let (mut directories, mut everything, mut gone) = (std::collections::BTreeSet::new(), false, false);
        for seen in seen {
            match seen {
                Seen::File(path, written) => self.hint(path, now, written),
                Seen::Directory(path) if self.is_ignored(&path) => {}
                Seen::Directory(path) => {
                    directories.insert(path);
                }
                Seen::Everything => everything = true,
                Seen::RootGone => gone = true,
            }
        }
        // Too many to keep: a look at everything finds them again.
        everything |= self.hints.len() > self.max_files.saturating_mul(2);
        if everything {
            self.look_at_everything(now)?;
        } else {
            let mut covered: Option<String> = None;
            for path in directories {
                if covered.as_ref().is_none_or(|parent| !names::is_within(&path, parent)) {
                    self.look_at(&path, now)?;
                    covered = Some(path);
                }
            }
        }
        if gone { Err(TreeError::Gone) } else { Ok(()) }
    }

    /// Compares at most `room` of the files that should be looked at now (`all`: also those not yet at rest) with what was
    /// known of them, takes over what is, and says what changed: object and kind. The changes are appended also when it
    /// fails.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        room: usize,
        all: bool,
        changes: &mut Vec<(String, Kind)>,
    ) -> Result<(), TreeError> {
        if self.next_look.is_some_and(|at| at <= now) && room > 0 {
            self.look_at_everything(now)?;
        }
        for (path, written) in self.hints.take_due(now, room, all) {
            let stamp = match std::fs::symlink_metadata(self.root.join(&path)) {
                Ok(metadata) if metadata.is_file() => Some(stamp(&metadata)),
                Ok(_) => None,
                Err(error) if is_gone(&error) => None,
                Err(error) => {
                    self.warn_unreadable(&path, &error);
                    continue;
                }
            };
            // Only names that can be objects become hints.
            let Ok(object) = names::object_id(&self.prefix, &path) else {
                continue;
            };
            if let Some(kind) = self.snapshot.settle(&path, stamp, wall_ns(), written)? {
                changes.push((object, kind));
            }
        }
        Ok(())
    }

    /// Takes what the first look found for known: only what happens from now on is a change. With `changes`, these become
    /// `updated`: whether they changed while nobody looked is not known.
    pub(super) fn take_for_known(&mut self, changes: Option<&mut Vec<(String, Kind)>>) -> Result<(), TreeError> {
        let mut found = Vec::new();
        self.settle(Instant::now(), usize::MAX, true, &mut found)?;
        if let Some(changes) = changes {
            changes.extend(found.into_iter().map(|(object, _)| (object, Kind::Updated)));
        }
        Ok(())
    }

    fn look_at_everything(&mut self, now: Instant) -> Result<(), TreeError> {
        let started = Instant::now();
        self.look_at("", now)?;
        let took = started.elapsed();
        #[cfg(target_os = "linux")]
        let hinted = self.watches.is_some();
        #[cfg(not(target_os = "linux"))]
        let hinted = false;
        let every = if hinted { self.rescan } else { Some(SCAN_EVERY) };
        // Looking must not become all that is done.
        self.next_look = every.map(|every| now + every.max(took * 10));
        Ok(())
    }

    /// Looks at the directory at `path` and everything below, watching each directory before reading it. What is new, gone
    /// or different becomes a hint.
    fn look_at(&mut self, path: &str, now: Instant) -> Result<(), TreeError> {
        self.look = self.look.wrapping_add(1).max(1);
        let mut unread = Vec::new();
        let (mut waiting, mut directories) = (vec![path.to_owned()], 0);
        while let Some(directory) = waiting.pop() {
            directories += 1;
            self.check_directories(directories)?;
            self.watch(&directory)?;
            match self.read(&directory, &mut waiting, now) {
                Ok(()) => {}
                Err(error) if directory.is_empty() && is_gone(&error) => return Err(TreeError::Gone),
                Err(error) if directory.is_empty() => return Err(TreeError::Unreadable(error)),
                Err(error) if is_gone(&error) => self.unwatch(&directory),
                Err(error) => {
                    self.warn_unreadable(&directory, &error);
                    unread.push(directory);
                }
            }
        }
        for gone in self.snapshot.not_met(path, self.look) {
            // Files in a directory that cannot be read are not gone: nothing is known of them.
            if !unread.iter().any(|parent| names::is_within(&gone, parent)) {
                self.hint(gone, now, false);
            }
        }
        Ok(())
    }

    /// Reads one directory: its directories join `waiting`, its files become hints if they differ from what is known.
    fn read(&mut self, directory: &str, waiting: &mut Vec<String>, now: Instant) -> io::Result<()> {
        let place = self.root.join(directory);
        // Reading would follow a symbolic link that took the directory's place. The root itself may be one.
        if !directory.is_empty() && !std::fs::symlink_metadata(&place)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        for entry in std::fs::read_dir(place)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(path) = names::join(directory, &name) else {
                self.warn_name(&name.to_string_lossy(), "not UTF-8");
                continue;
            };
            if self.is_ignored(&path) {
                continue;
            }
            // Of the entry itself: a symbolic link is neither file nor directory here.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(path),
                Ok(metadata) if metadata.is_file() => {
                    if self.snapshot.met(&path, stamp(&metadata), self.look) {
                        self.hint(path, now, true);
                    }
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => self.warn_unreadable(&path, &error),
            }
        }
        Ok(())
    }

    fn hint(&mut self, path: String, now: Instant, written: bool) {
        if self.is_ignored(&path) {
            return;
        }
        match names::object_id(&self.prefix, &path) {
            Ok(_) => self.hints.add(path, now, written),
            Err(why) => self.warn_name(&path, &why.to_string()),
        }
    }

    /// By the last name alone: what lies in an ignored directory is never seen.
    fn is_ignored(&self, path: &str) -> bool {
        !self.all && names::is_ignored(path.rsplit_once('/').map_or(path, |(_, name)| name))
    }

    fn check_directories(&self, met: usize) -> Result<(), TreeError> {
        #[cfg(target_os = "linux")]
        let watched = self.watches.as_ref().map_or(0, Watches::len);
        #[cfg(not(target_os = "linux"))]
        let watched = 0;
        if met.max(watched) > self.max_files {
            Err(TreeError::TooManyDirectories(self.max_files))
        } else {
            Ok(())
        }
    }

    #[cfg(target_os = "linux")]
    fn watch(&mut self, directory: &str) -> Result<(), TreeError> {
        let Some(watches) = &mut self.watches else {
            return Ok(());
        };
        match watches.add(directory, &self.root.join(directory)) {
            // Reading it will find out.
            Ok(()) | Err(WatchError::Gone) => {}
            Err(WatchError::NoMore) => {
                no_hints("the system allows no more watches (sysctl fs.inotify.max_user_watches)");
                self.watches = None;
                // From now on by looking, and soon: what happened since the last look has no hint any more.
                self.next_look = Some(Instant::now() + SCAN_EVERY);
            }
            Err(WatchError::Other(error)) => self.warn_unreadable(directory, &error),
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn watch(&mut self, _directory: &str) -> Result<(), TreeError> {
        Ok(())
    }

    fn unwatch(&mut self, directory: &str) {
        #[cfg(target_os = "linux")]
        if let Some(watches) = &mut self.watches {
            watches.remove(directory);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = directory;
    }

    fn warn_name(&mut self, name: &str, why: &str) {
        if !std::mem::replace(&mut self.warned_name, true) {
            note(&format!(
                "{} is skipped: {why}. Other such names are skipped without a word",
                one_line(name)
            ));
        }
    }

    fn warn_unreadable(&mut self, path: &str, error: &io::Error) {
        if !std::mem::replace(&mut self.warned_unreadable, true) {
            let path = one_line(path);
            note(&format!(
                "{path} cannot be looked at: {error}. Other such places are skipped without a word"
            ));
        }
    }
}

#[cfg(target_os = "linux")]
fn no_hints(why: &str) {
    note(&format!(
        "no hints from the system: {why}; looking at every file again and again instead"
    ));
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn wall_ns() -> i64 {
    nanoseconds(SystemTime::now())
}

fn nanoseconds(time: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or_else(|before| -whole(before.duration()), whole)
}

fn stamp(metadata: &Metadata) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Stamp {
        mtime_ns: metadata.modified().map_or(0, nanoseconds),
        size: metadata.len(),
        inode,
    }
}

/// The directory as it was named, for messages.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
