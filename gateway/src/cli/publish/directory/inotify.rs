//! Hints from the Linux kernel that something happened below the directory. They may be late, doubled or about a path that
//! has since moved: they say where to look, never what is true.

use super::names;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What is read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers read before others get their turn.
const MAX_READS: usize = 64;

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// At this file. `true`: it was written.
    File(String, bool),
    /// At this directory and everything below.
    Directory(String),
    /// At everything: the kernel had more to say than it could keep.
    Everything,
    /// The directory itself was removed or moved away.
    RootGone,
}

/// Why a directory is not watched.
#[derive(Debug)]
pub(super) enum WatchError {
    /// The system allows no more watches.
    NoMore,
    /// It is no directory (any more).
    Gone,
    /// Something else.
    Other(io::Error),
}

/// A watch on each directory.
pub(super) struct Watches {
    inotify: Inotify,
    by_number: HashMap<i32, (WatchDescriptor, Box<str>)>,
    by_path: BTreeMap<Box<str>, i32>,
    buffer: Vec<u8>,
}

impl Watches {
    pub(super) fn new() -> io::Result<Self> {
        let (by_number, by_path) = (HashMap::new(), BTreeMap::new());
        Ok(Self {
            inotify: Inotify::init()?,
            by_number,
            by_path,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Becomes readable when there is something to read.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Watches the directory at `path`, which is at `place` in the file system. Watching it again is harmless, and right
    /// after it moved.
    pub(super) fn add(&mut self, path: &str, place: &Path) -> Result<(), WatchError> {
        let mut mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        if path.is_empty() {
            mask |= WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        }
        let descriptor = match self.inotify.watches().add(place, mask) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => WatchError::Gone,
                    io::ErrorKind::StorageFull => WatchError::NoMore,
                    _ => WatchError::Other(error),
                });
            }
        };
        // A directory that was moved keeps its number: the number's newest path counts.
        let number = descriptor.get_watch_descriptor_id();
        self.by_number.insert(number, (descriptor, path.into()));
        if let Some(older) = self.by_path.insert(path.into(), number)
            && older != number
        {
            self.forget_number(older, path);
        }
        Ok(())
    }

    /// Ends the watches of `path` and everything below, except of those that have moved and are watched there.
    pub(super) fn remove(&mut self, path: &str) {
        let (from, to) = (format!("{path}/"), format!("{path}0"));
        let below = self
            .by_path
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())));
        let mut gone: Vec<_> = below.map(|(path, _)| path.clone()).collect();
        gone.push(path.into());
        for path in gone {
            if let Some(number) = self.by_path.remove(&path) {
                self.forget_number(number, &path);
            }
        }
    }

    fn forget_number(&mut self, number: i32, path: &str) {
        if self.by_number.get(&number).is_some_and(|(_, newest)| **newest == *path)
            && let Some((descriptor, _)) = self.by_number.remove(&number)
        {
            // It fails if the directory is gone, and then it is what was wanted.
            let _ = self.inotify.watches().remove(descriptor);
        }
    }

    /// Everything that waits to be read, up to a limit; `true` if more may be waiting. Names that are not UTF-8 are told
    /// to `unreadable`.
    pub(super) fn read(&mut self, seen: &mut Vec<Seen>, unreadable: &mut dyn FnMut()) -> io::Result<bool> {
        for _ in 0..MAX_READS {
            let events = match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in events {
                let mask = event.mask;
                if mask.contains(EventMask::Q_OVERFLOW) {
                    seen.push(Seen::Everything);
                    continue;
                }
                let number = event.wd.get_watch_descriptor_id();
                let Some((_, parent)) = self.by_number.get(&number) else {
                    continue;
                };
                if mask.contains(EventMask::IGNORED) {
                    // The kernel dropped the watch: the directory is gone.
                    let parent = parent.clone();
                    self.by_number.remove(&number);
                    if self.by_path.get(&parent) == Some(&number) {
                        self.by_path.remove(&parent);
                    }
                    if parent.is_empty() {
                        seen.push(Seen::RootGone);
                    }
                    continue;
                }
                let Some(name) = event.name else {
                    let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
                    if parent.is_empty() && mask.intersects(gone) {
                        seen.push(Seen::RootGone);
                    }
                    continue;
                };
                let Some(path) = names::join(parent, name) else {
                    unreadable();
                    continue;
                };
                seen.push(if !mask.contains(EventMask::ISDIR) {
                    Seen::File(path, mask.intersects(EventMask::MODIFY | EventMask::CLOSE_WRITE))
                } else if mask
                    .intersects(EventMask::CREATE | EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO)
                {
                    Seen::Directory(path)
                } else {
                    continue;
                });
            }
        }
        Ok(true)
    }
}
