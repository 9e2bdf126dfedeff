//! The few things that storage asks of a disk, so that a test can put a disk in its place that forgets what was not
//! synced, tears, fills up and fails.
//!
//! All names are names of files in the data directory. It does not know what is in them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// A data directory.
pub trait Disk: Send + Sync + Debug {
    /// A new, empty file that is written from its beginning.
    ///
    /// # Errors
    /// What the system said; also if the file exists.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Everything in a file.
    ///
    /// # Errors
    /// What the system said.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// The names of all files.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Gives a file another name, in place of a file that had it.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Cuts a file and syncs it.
    ///
    /// # Errors
    /// What the system said.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;
    /// Makes names durable: of files created, renamed and removed.
    ///
    /// # Errors
    /// What the system said.
    fn sync_names(&self) -> io::Result<()>;
    /// Makes durable what a file that is being appended to holds now, from any thread. Its writer still has to sync what
    /// it answers for.
    ///
    /// # Errors
    /// What the system said; the writer's next sync fails likewise.
    fn sync_behind(&self, name: &str) -> io::Result<()>;
    /// When a file was made, in nanoseconds, where the disk keeps that. It stays when a file gets another name; a copy has
    /// another one.
    ///
    /// # Errors
    /// What the system said.
    fn birth(&self, name: &str) -> io::Result<Option<u64>>;
}

/// A file that is appended to.
pub trait DiskFile: Send + Debug {
    /// Appends everything or fails; a failure may leave a part of it.
    ///
    /// # Errors
    /// What the system said.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was appended.
    ///
    /// # Errors
    /// What the system said. Afterwards nothing is known about what was appended since the last sync.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes a file beside its place, syncs it and gives it its name, which is durable after [`Disk::sync_names`].
///
/// # Errors
/// What the system said. The file that had the name is as it was.
pub(super) fn put(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    put_born(disk, name, &|_| bytes.to_vec())
}

/// The same for a file that knows its own birth.
///
/// # Errors
/// Likewise.
pub(super) fn put_born(disk: &dyn Disk, name: &str, bytes: &dyn Fn(Option<u64>) -> Vec<u8>) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let created = match disk.create(&unfinished) {
        // Left by an attempt that was cut short.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&unfinished)?;
            disk.create(&unfinished)
        }
        created => created,
    };
    let written = created.and_then(|mut file| {
        file.append(&bytes(disk.birth(&unfinished)?))?;
        file.sync()
    });
    match written {
        Ok(()) => disk.rename(&unfinished, name),
        Err(error) => {
            // A failure to remove it shows again when the name is needed.
            _ = disk.remove(&unfinished);
            Err(error)
        }
    }
}

/// Ends the name of a file that is being written.
pub(super) const UNFINISHED: &str = ".unfinished";

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    // Held as long as the folder is used: the system frees the lock when the process ends, however it ends.
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("another process uses it")]
    InUse,
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Folder {
    /// Makes the folder if it is not there, and takes it for this process alone.
    ///
    /// # Errors
    /// If another process has it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if !path.is_dir() {
            make(path)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        private(&mut options);
        let lock = options.open(path.join("LOCK"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FolderError::InUse),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        make(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    // Its name is durable once the folder around it is synced.
    File::open(parent)?.sync_all()
}

/// Nobody else may read the files: the key is among them.
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        private(&mut options);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn sync_behind(&self, name: &str) -> io::Result<()> {
        // Opened anew: the system tells of a failure once for each time a file was opened, and must tell the writer too.
        File::open(self.path.join(name))?.sync_data()
    }

    fn birth(&self, name: &str) -> io::Result<Option<u64>> {
        let birth = fs::metadata(self.path.join(name))?.created();
        let since = birth.ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
        Ok(since.and_then(|since| u64::try_from(since.as_nanos()).ok()))
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
