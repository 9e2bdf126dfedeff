//! The cursor on disk, so that the next run resumes where this one ended.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tidings_protocol::limits::MAX_CURSOR_BYTES;

/// A file that always holds one whole cursor: it is replaced, never written over.
#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
    saved: Option<String>,
}

impl CursorFile {
    /// Reads what an earlier run left. No file, or an empty one, is a start from now.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| format!("cannot use the cursor in {}: {why}", path.display());
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => {
                // Room for a line break; one byte more shows that it is too long.
                let limit = MAX_CURSOR_BYTES as u64 + 3;
                file.take(limit)
                    .read_to_string(&mut text)
                    .map_err(|error| failed(&error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
        let text = text.trim();
        check(text).map_err(|why| failed(&why))?;
        Ok(Self {
            path: path.to_owned(),
            saved: (!text.is_empty()).then(|| text.to_owned()),
        })
    }

    /// What is on disk.
    pub(super) fn saved(&self) -> Option<&str> {
        self.saved.as_deref()
    }

    /// Replaces the file. On failure it holds what it held.
    pub(super) fn save(&mut self, cursor: &str) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(cursor.as_bytes())?;
                file.write_all(b"\n")?;
                // Else a crash of the machine may leave the new name with nothing in it.
                file.sync_data()
            })
            .and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            // It may not even have been created.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        self.saved = Some(cursor.to_owned());
        Ok(())
    }
}

/// Whether a text may be a cursor at all. What it says only the server knows.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_CURSOR_BYTES {
        return Err(format!("a cursor has at most {MAX_CURSOR_BYTES} bytes"));
    }
    if !text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err("a cursor is one word of visible ASCII characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_cursor_is_read_again_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cursor");
        let mut file = CursorFile::open(&path).expect("no file is a start from now");
        assert_eq!(file.saved(), None);
        file.save("C1").expect("saved");
        file.save("C2").expect("saved");
        assert_eq!(CursorFile::open(&path).expect("readable").saved(), Some("C2"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn what_cannot_be_a_cursor_is_refused_before_it_is_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cursor");
        for content in [
            "x".repeat(MAX_CURSOR_BYTES + 1),
            "two words".to_owned(),
            "x".repeat(1_000_000),
        ] {
            std::fs::write(&path, content).expect("written");
            assert!(CursorFile::open(&path).is_err());
        }
        std::fs::write(&path, "x".repeat(MAX_CURSOR_BYTES) + "\r\n").expect("written");
        assert!(CursorFile::open(&path).is_ok());
    }

    #[test]
    fn a_failed_save_leaves_the_old_cursor() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("missing/cursor");
        let mut file = CursorFile::open(&path).expect("no file is a start from now");
        assert!(file.save("C1").is_err());
        assert_eq!(file.saved(), None);
    }
}
