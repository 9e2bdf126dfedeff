//! The tree on a real directory.

use super::*;
use std::fs;

struct Garden {
    tree: Tree,
    dir: tempfile::TempDir,
}

impl Garden {
    /// `before` prepares the directory.
    fn new(max_files: usize, before: impl FnOnce(&Path)) -> Result<Self, TreeError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        before(dir.path());
        let root = dir.path().to_owned();
        let options = Options {
            root,
            prefix: "file:".to_owned(),
            all: false,
            initial: false,
            max_files,
            rescan: None,
        };
        let mut tree = Tree::open(&options)?;
        tree.take_for_known(None)?;
        Ok(Self { tree, dir })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Everything that changed until it has been quiet for a while, as `+new ~changed -gone`.
    fn changes(&mut self) -> String {
        let mut changes = Vec::new();
        let mut quiet = 0;
        while quiet < 8 {
            let before = changes.len();
            std::thread::sleep(Duration::from_millis(20));
            self.tree.read_hints(Instant::now()).expect("readable");
            self.tree
                .settle(Instant::now(), usize::MAX, false, &mut changes)
                .expect("few files");
            quiet = if changes.len() > before { 0 } else { quiet + 1 };
        }
        let sign = |kind| match kind {
            Kind::Created => '+',
            Kind::Updated => '~',
            Kind::Deleted => '-',
        };
        let mut lines: Vec<_> = changes
            .iter()
            .map(|(object, kind)| format!("{}{object}", sign(*kind)))
            .collect();
        lines.sort_by(|a, b| a[1..].cmp(&b[1..]));
        lines.join(" ")
    }
}

#[test]
fn created_changed_renamed_and_deleted_files_are_told() {
    let mut garden = Garden::new(100, |dir| fs::write(dir.join("old"), "1").expect("written")).expect("opened");
    assert_eq!(garden.changes(), "", "what was there is known");
    fs::write(garden.path("new"), "1").expect("written");
    fs::write(garden.path("old"), "2").expect("written");
    assert_eq!(garden.changes(), "+file:new ~file:old");
    fs::rename(garden.path("new"), garden.path("newer")).expect("renamed");
    assert_eq!(garden.changes(), "-file:new +file:newer");
    fs::rename(garden.path("newer"), garden.path("old")).expect("renamed over");
    assert_eq!(garden.changes(), "-file:newer ~file:old");
    fs::remove_file(garden.path("old")).expect("removed");
    assert_eq!(garden.changes(), "-file:old");
}

#[test]
fn a_file_created_at_once_in_a_new_nested_directory_is_found() {
    let mut garden = Garden::new(100, |_| {}).expect("opened");
    for round in 0..20 {
        let deep = garden.path(&format!("{round}/b/c"));
        fs::create_dir_all(&deep).expect("created");
        fs::write(deep.join("f"), "1").expect("written");
    }
    assert_eq!(
        garden.changes().split(' ').filter(|line| line.starts_with('+')).count(),
        20
    );
    // Each of them is watched.
    fs::write(garden.path("7/b/c/f"), "22").expect("written");
    fs::write(garden.path("7/b/g"), "1").expect("written");
    assert_eq!(garden.changes(), "~file:7/b/c/f +file:7/b/g");
}

#[test]
fn a_moved_directory_is_told_file_by_file_and_watched_where_it_is() {
    let mut garden = Garden::new(100, |dir| {
        fs::create_dir_all(dir.join("a/b")).expect("created");
        fs::write(dir.join("a/b/f"), "1").expect("written");
    })
    .expect("opened");
    fs::rename(garden.path("a"), garden.path("z")).expect("renamed");
    fs::create_dir(garden.path("a")).expect("created");
    assert_eq!(garden.changes(), "-file:a/b/f +file:z/b/f");
    fs::write(garden.path("z/b/f"), "22").expect("written");
    fs::write(garden.path("a/g"), "1").expect("written");
    assert_eq!(garden.changes(), "+file:a/g ~file:z/b/f");

    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    fs::rename(garden.path("z"), elsewhere.path().join("z")).expect("renamed");
    assert_eq!(garden.changes(), "-file:z/b/f");
    fs::write(elsewhere.path().join("z/b/f"), "333").expect("written");
    assert_eq!(garden.changes(), "", "what moved away is nobody's business any more");
    fs::rename(elsewhere.path().join("z"), garden.path("z")).expect("renamed");
    assert_eq!(garden.changes(), "+file:z/b/f");
    fs::remove_dir_all(garden.path("z")).expect("removed");
    assert_eq!(garden.changes(), "-file:z/b/f");
}

#[test]
fn a_burst_of_a_thousand_files_is_told_completely_and_each_once() {
    let mut garden = Garden::new(2000, |_| {}).expect("opened");
    for number in 0..1000 {
        fs::write(garden.path(&format!("f{number}")), "1").expect("written");
        fs::write(garden.path(&format!("f{number}")), "22").expect("written");
    }
    let changes = garden.changes();
    assert_eq!(changes.split(' ').filter(|line| line.starts_with('+')).count(), 1000);
    assert_eq!(garden.tree.files(), 1000);
}

#[test]
fn editors_files_links_and_names_that_are_no_objects_are_left_out() {
    let mut garden = Garden::new(100, |dir| fs::create_dir(dir.join(".git")).expect("created")).expect("opened");
    fs::write(garden.path(".git/index"), "1").expect("written");
    fs::write(garden.path("a~"), "1").expect("written");
    fs::create_dir(garden.path(".hg")).expect("created");
    fs::write(garden.path(".hg/x"), "1").expect("written");
    fs::write(garden.path("line\nbreak"), "1").expect("written");
    fs::write(garden.path("a"), "1").expect("written");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(garden.path(".git"), garden.path("link")).expect("linked");
        std::os::unix::fs::symlink(garden.path("a"), garden.path("link2")).expect("linked");
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
        fs::write(garden.dir.path().join(name), "1").expect("written");
    }
    assert_eq!(garden.changes(), "+file:a");
}

#[test]
fn an_editors_save_by_way_of_a_temporary_file_is_one_update() {
    let mut garden = Garden::new(100, |dir| fs::write(dir.join("a"), "1").expect("written")).expect("opened");
    fs::write(garden.path(".a.swp"), "2").expect("written");
    fs::rename(garden.path(".a.swp"), garden.path("a")).expect("renamed");
    assert_eq!(garden.changes(), "~file:a");
}

#[test]
fn too_many_files_are_refused_with_a_clear_message() {
    let three = |dir: &Path| {
        ["a", "b", "c"]
            .iter()
            .for_each(|name| fs::write(dir.join(name), "1").expect("written"))
    };
    let Err(error) = Garden::new(2, three) else {
        panic!("three files are more than two")
    };
    assert!(
        error
            .to_string()
            .contains("more than 2 files below the directory: raise --max-files"),
        "{error}"
    );
}

#[test]
fn without_hints_looking_again_finds_the_same() {
    let mut garden = Garden::new(100, |dir| fs::write(dir.join("a"), "1").expect("written")).expect("opened");
    #[cfg(target_os = "linux")]
    {
        garden.tree.watches = None;
    }
    fs::create_dir(garden.path("d")).expect("created");
    fs::write(garden.path("d/b"), "1").expect("written");
    fs::remove_file(garden.path("a")).expect("removed");
    garden.tree.next_look = Some(Instant::now());
    let changes = garden.changes();
    assert!(
        changes.contains("-file:a") && changes.contains("+file:d/b"),
        "{changes}"
    );
    assert!(garden.tree.next_look.is_some(), "and it will look again");
}

#[cfg(target_os = "linux")]
#[test]
fn an_overflow_of_hints_is_made_good_by_looking_at_everything() {
    let mut garden = Garden::new(100, |dir| fs::write(dir.join("a"), "1").expect("written")).expect("opened");
    // More events than any kernel keeps by default, on two files in turn so that the kernel cannot merge them.
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|limit| limit.trim().parse().ok())
        .unwrap_or(16_384);
    if limit > 100_000 {
        return;
    }
    for _ in 0..limit {
        fs::write(garden.path("x"), "1").expect("written");
        fs::remove_file(garden.path("x")).expect("removed");
    }
    fs::create_dir(garden.path("unhinted")).expect("created");
    fs::write(garden.path("unhinted/b"), "1").expect("written");
    fs::write(garden.path("a"), "22").expect("written");
    let changes = garden.changes();
    assert_eq!(changes, "~file:a +file:unhinted/b");
    fs::write(garden.path("unhinted/b"), "22").expect("written");
    assert_eq!(garden.changes(), "~file:unhinted/b");
}

#[test]
fn a_directory_that_is_removed_is_told_and_the_end() {
    let mut garden = Garden::new(100, |dir| fs::write(dir.join("a"), "1").expect("written")).expect("opened");
    fs::remove_dir_all(garden.dir.path()).expect("removed");
    let mut changes = Vec::new();
    #[cfg(target_os = "linux")]
    assert!(matches!(garden.tree.read_hints(Instant::now()), Err(TreeError::Gone)));
    #[cfg(target_os = "linux")]
    garden
        .tree
        .settle(Instant::now(), usize::MAX, true, &mut changes)
        .expect("settled");
    #[cfg(target_os = "linux")]
    assert_eq!(changes, [("file:a".to_owned(), Kind::Deleted)]);
}
