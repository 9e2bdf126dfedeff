//! From a file's place below the directory to the ID of an object, and which names are nobody's business.

use std::ffi::OsStr;
use tidings_protocol::id::{IdError, check_object_id};

/// Names that version control, editors and file managers use for themselves.
pub(super) fn is_ignored(name: &str) -> bool {
    let own = [".git", ".hg", ".svn", ".jj", ".DS_Store", "4913"];
    let ends = [
        "~",
        ".swp",
        ".swo",
        ".swx",
        ".kate-swp",
        ".crdownload",
        "___jb_tmp___",
        "___jb_old___",
    ];
    let starts = [".#", ".goutputstream-", ".~lock."];
    own.contains(&name)
        || ends.iter().any(|end| name.ends_with(end))
        || starts.iter().any(|start| name.starts_with(start))
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
}

/// The path of `name` in the directory at `parent` (empty: the root). `None` if it is not UTF-8.
pub(super) fn join(parent: &str, name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    Some(if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    })
}

/// Whether `path` is `parent` or lies below it.
pub(super) fn is_within(path: &str, parent: &str) -> bool {
    parent.is_empty()
        || path
            .strip_prefix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The object that stands for a file.
pub(super) fn object_id(prefix: &str, path: &str) -> Result<String, IdError> {
    let id = format!("{prefix}{path}");
    check_object_id(&id).map(|()| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_its_prefix_is_the_object() {
        assert_eq!(join("", OsStr::new("a")).as_deref(), Some("a"));
        assert_eq!(join("a/b", OsStr::new("c d")).as_deref(), Some("a/b/c d"));
        assert_eq!(object_id("file:", "a/b").as_deref(), Ok("file:a/b"));
    }

    #[test]
    fn names_that_cannot_be_objects_are_told_apart() {
        assert!(object_id("", "line\nbreak").is_err());
        assert!(object_id("file:", &"x".repeat(250)).is_ok());
        assert!(object_id("file:", &"x".repeat(251)).is_err());
        #[cfg(unix)]
        assert_eq!(join("", std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9")), None);
    }

    #[test]
    fn what_editors_leave_behind_is_ignored_and_what_people_write_is_not() {
        for name in [
            ".git",
            "a.txt~",
            ".a.txt.swp",
            ".#a.txt",
            "#a.txt#",
            ".goutputstream-7X",
            "4913",
        ] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["a.txt", ".gitignore", ".env", "#1", "a.swap", "x4913", "#"] {
            assert!(!is_ignored(name), "{name}");
        }
    }

    #[test]
    fn a_directory_holds_its_own_paths_and_no_namesakes() {
        assert!(is_within("a/b", "a") && is_within("a", "a") && is_within("a", ""));
        assert!(!is_within("ab", "a") && !is_within("b/a", "a"));
    }
}
