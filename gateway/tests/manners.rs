//! What holds for every file of the repository: the manners that no compiler checks.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::path::{Path, PathBuf};

/// A file that is longer was once the nice one: split it into rooms.
const LINES: usize = 600;

/// Folders with files that nobody of us writes.
const FOREIGN: [&str; 5] = [".git", "target", "data", "node_modules", "tidings-data"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of the repository that is text, with its name from the root.
fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                if !FOREIGN.contains(&name) {
                    folders.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(
        found.iter().any(|(name, _)| name == "gateway/tests/manners.rs"),
        "the walk works"
    );
    found
}

fn sources() -> impl Iterator<Item = (String, String)> {
    texts().into_iter().filter(|(name, _)| name.ends_with(".rs"))
}

fn none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let long = sources()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES);
    let long: Vec<_> = long.map(|(name, lines)| format!("{name}: {lines} lines")).collect();
    none(&long, "split these into rooms");
}

#[test]
fn nothing_is_left_to_do_later_or_left_out() {
    // Put together here, so that this file keeps its own rule.
    let left = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
    ];
    let mut broken = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if left.iter().any(|word| line.contains(word)) {
                broken.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(&broken, "finish it, or write it down in docs/status.md");
}

#[test]
fn a_rooms_door_has_its_name() {
    let doors: Vec<_> = sources()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with("/mod.rs"))
        .collect();
    none(&doors, "`edge.rs` beside `edge/`, not `edge/mod.rs`");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent = sources().filter(|(_, text)| !text.starts_with("//!"));
    let silent: Vec<_> = silent.map(|(name, _)| name).collect();
    none(&silent, "begin with a `//!` comment that says what the room is for");
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let mut places = vec![
        "/home/".to_owned(),
        "/Users/".to_owned(),
        "C:\\".to_owned(),
        root().to_str().unwrap().to_owned(),
    ];
    for variable in ["HOME", "CARGO_HOME"] {
        places.extend(
            std::env::var(variable)
                .ok()
                .filter(|path| path.len() > 1 && path.starts_with('/'))
                .map(|path| path + "/"),
        );
    }
    let mut broken = Vec::new();
    for (name, text) in texts() {
        if name == "gateway/tests/manners.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            broken.extend(
                places
                    .iter()
                    .filter(|p| line.contains(*p))
                    .map(|place| format!("{name}:{}: {place}", number + 1)),
            );
        }
    }
    none(&broken, "these places exist on one machine only");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in texts().into_iter().filter(|(name, _)| name.ends_with(".md")) {
        let folder = root().join(&name).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            if !folder.join(file).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    none(&broken, "these links lead nowhere");
}

#[test]
fn lines_end_without_blanks_and_files_with_one_line_break() {
    let mut broken = Vec::new();
    for (name, text) in texts() {
        let ours = [".rs", ".md", ".toml", ".yml"].iter().any(|end| name.ends_with(end))
            || ["test", ".ci/run"].contains(&&*name);
        if !ours {
            continue;
        }
        let blank = text.lines().position(|line| line.ends_with([' ', '\t', '\r']));
        broken.extend(blank.map(|line| format!("{name}:{}: blanks at the end of the line", line + 1)));
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            broken.push(format!("{name}: does not end with one line break"));
        }
    }
    none(&broken, "tidy up");
}

#[cfg(unix)]
#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["test", ".ci/run"] {
        let mode = std::fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
    }
}
