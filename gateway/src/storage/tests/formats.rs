//! A directory that a release before clusters wrote, byte for byte: it opens, and a node that is alone still writes the same.

use super::simulated::{Back, Simulated};
use super::world::{Memory, open_again};
use crate::storage::disk::{self, Disk as _};
use std::collections::BTreeMap;
use tidings_protocol::Version;

const SAMPLE: &str = include_str!("samples/format-1.txt");

/// Files with their bytes, and what was acknowledged.
fn sample() -> (BTreeMap<String, Vec<u8>>, BTreeMap<u64, Version>) {
    let (mut files, mut acked) = (BTreeMap::new(), BTreeMap::new());
    for line in SAMPLE.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["version", object, version] = words[..] {
            let object = u64::from_str_radix(object, 16).expect("a hash");
            acked.insert(object, Version(version.parse().expect("a version")));
        } else {
            let text = words.get(1).copied().unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
            let bytes = (0..text.len()).step_by(2).map(byte).collect();
            files.insert(words[0].to_owned(), bytes);
        }
    }
    (files, acked)
}

#[test]
fn a_directory_of_the_release_before_clusters_opens_whole() {
    let (files, acked) = sample();
    let disk = Simulated::default();
    for (name, bytes) in &files {
        disk::put(&disk, name, bytes).expect("written");
    }
    // The file that tells a copy from an original cannot be put into a disk from outside.
    let ceiling = crate::storage::notes::ceiling(&disk).expect("whole").expect("there");
    crate::storage::notes::put_ceiling(&disk, &ceiling).expect("written");
    let mut world = open_again(&disk, "boot 1", &Memory::default());
    assert_eq!(world.idle.status().metrics().damage.get(), 0);
    for (object, version) in &acked {
        assert_eq!(world.version(*object), *version, "{object:x}");
        assert_eq!(world.floor(*object), world.identity.since, "no floor rose");
    }
    world.memory.acked = acked;
    world.assert_exact("after the first start of this release");
    let memory = world.memory.clone();
    open_again(&disk.back(Back::Process), "boot 1", &memory).assert_exact("after the second");
}

#[test]
fn a_node_that_is_alone_writes_what_the_release_before_clusters_reads() {
    let (files, _) = sample();
    let disk = Simulated::default();
    super::live(&disk);
    let disk = disk.back(Back::Process);
    let mut names = disk.list().expect("names");
    names.sort();
    assert_eq!(names, files.keys().cloned().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert_eq!(&disk.read(name).expect("a file"), bytes, "{name}");
    }
}
