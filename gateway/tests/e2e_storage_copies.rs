//! A data directory put back from an older copy. What came after the copy is lost, and everybody is told.

#[path = "support/support.rs"]
mod support;

use serde_json::Value;
use std::path::Path;
use support::*;

/// As a backup is made and put back, while no program runs there.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn stop(program: Program) {
    program.terminate();
    assert!(program.end().0.success());
}

#[test]
fn after_an_older_copy_is_put_back_every_cursor_means_resync_and_no_version_comes_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    if folder.path().metadata().expect("a folder").created().is_err() {
        println!(
            "SKIPPED: the file system of {:?} does not keep when files were made",
            folder.path()
        );
        return;
    }
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let (program, address) = serve_in(&data, &[]);
    let watched = ["a", "b", "c"];
    let a = publish(address, "a");
    let mut poller = Poller::new(Poll::of(address, &watched));
    poller.up_to(a);
    let before = poller.cursor.clone();
    stop(program);
    copy(&data, &backup);
    // Life goes on: changes that some are told and some are not.
    let (program, address) = serve_in(&data, &[]);
    let b = publish(address, "b");
    let mut poller = Poller::resume(Poll::of(address, &watched), &before);
    poller.up_to(b);
    let after = poller.cursor.clone();
    let lost = publish(address, "c");
    stop(program);
    // Whether the copy is used where it is or copied back.
    std::fs::rename(&data, folder.path().join("broken")).expect("moved");
    copy(&backup, &data);
    let mut fresh = String::new();
    for restored in [&backup, &data] {
        let (program, address) = serve_in(restored, &[]);
        assert_eq!(version_of(address, "c"), None, "it is lost");
        for cursor in [&before, &after] {
            let mut poller = Poller::resume(Poll::of(address, &watched), cursor);
            let heard = poller.up_to(publish(address, "mark"));
            assert_eq!(heard.resyncs.len(), 1, "{heard:?}");
            assert_eq!(heard.resyncs[0]["cause"], "versions_lost");
            fresh = poller.cursor;
        }
        assert!(publish(address, "c") > lost, "no version is given again");
        stop(program);
    }
    // Told once. From now on the copy is as good as any.
    let (_program, address) = serve_in(&data, &[]);
    let heard = Poller::resume(Poll::of(address, &watched), &fresh).up_to(publish(address, "mark"));
    assert_eq!(heard.resyncs, Vec::<Value>::new(), "{heard:?}");
}

#[test]
fn a_folder_that_is_moved_is_no_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, moved) = (folder.path().join("deep/in/data"), folder.path().join("moved"));
    let (program, address) = serve_in(&data, &[]);
    let a = publish(address, "a");
    let mut poller = Poller::new(Poll::of(address, &["a"]));
    poller.up_to(a);
    stop(program);
    std::fs::rename(&data, &moved).expect("moved");
    let (_program, address) = serve_in(&moved, &[]);
    let heard = Poller::resume(Poll::of(address, &["a"]), &poller.cursor).up_to(publish(address, "mark"));
    assert_eq!(heard.resyncs, Vec::<Value>::new(), "{heard:?}");
    assert_eq!(version_of(address, "a"), Some(a));
}
