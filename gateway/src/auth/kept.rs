//! Revocations of a node that is alone, on its disk. In a cluster they are in the replicated map.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tidings_router::access::Revocations;

const NAME: &str = "revocations.json";

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// What was kept. A file that cannot be read is an error: to go on without it would let in who was revoked.
    pub(super) fn open(folder: &Path) -> Result<(Self, Revocations), String> {
        let path = folder.join(NAME);
        let kept = Self {
            folder: folder.to_owned(),
        };
        let wrong = |error: &dyn std::fmt::Display| {
            let path = path.display();
            format!("{path} cannot be read ({error}): it says which tokens are revoked. Move it away to go on without")
        };
        let revocations = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Revocations::default(),
            Err(error) => return Err(wrong(&error)),
        };
        Ok((kept, revocations))
    }

    /// Writes all of them, synced, in place of what was there.
    pub(super) fn write(&mut self, revocations: &Revocations) -> Result<(), String> {
        let new = self.folder.join(format!("{NAME}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(revocations)?)?;
            file.sync_all()?;
            std::fs::rename(&new, self.folder.join(NAME))?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| error.to_string())
    }
}
