//! Which crate may know which: decisions live in crates without sockets, clocks, files or entropy, and the workspace's own
//! crates import each other in one direction only.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The crates without I/O.
const PURE: [&str; 3] = ["tidings-protocol", "tidings-router", "tidings-membership"];

/// What a pure crate may link with in spite of its name, and why.
const ALLOWED: &[(&str, &[&str], &str)] = &[(
    "tidings-membership",
    &["rand", "rand_core"],
    "the SWIM library takes its generator by their traits, and the generator is seeded with a value that comes in. What \
     draws entropy is `getrandom`, behind features of `rand` that this crate leaves off; others of the workspace may turn \
     them on, but then the functions are forbidden by name in its clippy.toml",
)];

/// What does I/O, reads a clock or draws random numbers, with what a pure crate does instead.
const IMPURE: &[(&str, &[&str])] = &[
    (
        "the gateway owns sockets, tasks and threads",
        &[
            "tokio",
            "mio",
            "async-io",
            "async-std",
            "smol",
            "polling",
            "socket2",
            "hyper",
            "hyper-util",
            "axum",
            "tower-http",
            "tungstenite",
            "tokio-tungstenite",
            "reqwest",
            "ureq",
            "quinn",
            "rayon",
            "crossbeam-channel",
            "inotify",
            "notify",
        ],
    ),
    (
        "randomness comes in as a value",
        &[
            "getrandom",
            "rand",
            "rand_core",
            "rand_chacha",
            "fastrand",
            "oorandom",
            "uuid",
            "ahash",
        ],
    ),
    (
        "time comes in as `Now`",
        &[
            "chrono",
            "time",
            "quanta",
            "coarsetime",
            "web-time",
            "tracing-subscriber",
        ],
    ),
    (
        "files and the system belong to the gateway",
        &[
            "rustix",
            "nix",
            "tempfile",
            "walkdir",
            "config",
            "memmap2",
            "signal-hook",
            "ctrlc",
            "num_cpus",
        ],
    ),
];

/// Which of the workspace's crates each may import. The benchmarks share nothing with what they measure.
const IMPORTS: &[(&str, &[&str])] = &[
    ("tidings-protocol", &[]),
    ("tidings-router", &["tidings-protocol"]),
    ("tidings-membership", &["tidings-protocol"]),
    (
        "tidings",
        &[
            "tidings-consensus",
            "tidings-router",
            "tidings-membership",
            "tidings-protocol",
        ],
    ),
    ("tidings-consensus", &["tidings-router", "tidings-protocol"]),
    ("tidings-bench", &[]),
    ("tidings-client", &["tidings-protocol"]),
    ("tidings-checker", &["tidings-protocol"]),
    ("tidings-report", &[]),
    ("tidings-neighbours", &["tidings-report"]),
    (
        "tidings-loadtest",
        &[
            "tidings-client",
            "tidings-checker",
            "tidings-report",
            "tidings-protocol",
        ],
    ),
    (
        "tidings-fuzz",
        &["tidings-client", "tidings-router", "tidings-protocol"],
    ),
    ("tidings-model", &[]),
    (
        "simulation",
        &["tidings-router", "tidings-membership", "tidings-protocol"],
    ),
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .unwrap()
}

fn id(metadata: &Metadata, name: &str) -> PackageId {
    metadata
        .workspace_packages()
        .into_iter()
        .find(|package| package.name == name)
        .unwrap()
        .id
        .clone()
}

/// What the crate links with, itself left out, each with the way to it.
fn linked(metadata: &Metadata, root: &PackageId) -> BTreeMap<String, String> {
    let nodes: BTreeMap<_, _> = metadata
        .resolve
        .as_ref()
        .unwrap()
        .nodes
        .iter()
        .map(|node| (&node.id, node))
        .collect();
    let mut found = BTreeMap::new();
    let mut open = vec![(root.clone(), metadata[root].name.to_string())];
    let mut seen = BTreeSet::new();
    while let Some((package, way)) = open.pop() {
        for dependency in &nodes[&package].deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal);
            if normal && seen.insert(dependency.pkg.clone()) {
                let name = metadata[&dependency.pkg].name.to_string();
                let way = format!("{way} -> {name}");
                found.insert(name, way.clone());
                open.push((dependency.pkg.clone(), way));
            }
        }
    }
    found
}

#[test]
fn the_pure_crates_link_with_nothing_that_does_io_reads_a_clock_or_draws_random_numbers() {
    let metadata = metadata();
    let mut broken = Vec::new();
    for pure in PURE {
        let linked = linked(&metadata, &id(&metadata, pure));
        assert!(!linked.is_empty(), "{pure} links with something: the walk works");
        let excused: Vec<&str> = ALLOWED
            .iter()
            .filter(|(who, ..)| *who == pure)
            .flat_map(|(_, names, _)| *names)
            .copied()
            .collect();
        let allowed = |name: &str| {
            let way = linked.get(name).map(String::as_str).unwrap_or_default();
            let behind = |excused: &&str| way.contains(&format!("-> {excused} ->"));
            excused.contains(&name) || excused.iter().any(behind)
        };
        for (instead, names) in IMPURE {
            broken.extend(
                names
                    .iter()
                    .filter(|name| !allowed(name))
                    .filter_map(|name| Some(format!("{}: {instead}", linked.get(*name)?))),
            );
        }
    }
    assert!(broken.is_empty(), "a pure crate became impure:\n{}", broken.join("\n"));
}

/// What a crate links with when nobody else of the workspace has a say in the features of what they share.
fn linked_alone(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let tree = std::process::Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            package,
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let names = String::from_utf8(tree.stdout).unwrap();
    names
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn what_a_pure_crate_is_excused_for_is_linked_and_brings_no_entropy() {
    for (who, names, why) in ALLOWED {
        let linked = linked_alone(who);
        for name in *names {
            assert!(linked.contains(*name), "{who} does not need {name} any more: {why}");
        }
        for source in ["getrandom", "rand_chacha", "fastrand", "libc"] {
            assert!(!linked.contains(source), "{who} links with {source}");
        }
    }
    assert!(linked_alone("tidings").contains("getrandom"), "it would be found");
}

#[test]
fn the_pure_crates_do_not_call_the_c_library_themselves() {
    let metadata = metadata();
    for pure in PURE {
        let package = &metadata[&id(&metadata, pure)];
        let direct = package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
            .map(|d| d.name.as_str());
        let direct: Vec<_> = direct
            .filter(|name| matches!(*name, "libc" | "windows-sys" | "winapi"))
            .collect();
        assert!(direct.is_empty(), "{pure} depends on {direct:?}");
    }
}

#[test]
fn the_walk_would_find_an_impure_crate() {
    let metadata = metadata();
    let linked = linked(&metadata, &id(&metadata, "tidings"));
    assert_eq!(linked["tokio"].split(" -> ").next(), Some("tidings"));
    assert!(linked["tokio"].ends_with(" -> tokio"));
}

#[test]
fn the_workspace_imports_in_one_direction() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let names: BTreeSet<_> = members.iter().map(|package| package.name.as_str()).collect();
    let listed: BTreeSet<_> = IMPORTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "every crate of the workspace has its line in IMPORTS");
    for package in &members {
        let allowed = IMPORTS
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .unwrap()
            .1;
        let normal = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development);
        for dependency in normal.filter(|d| names.contains(d.name.as_str())) {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} must not import {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// Owner and edge meet only through peer frames: in one process they travel as values, and there is no second way. What
/// control decides reaches them through their callers.
#[test]
fn control_owner_and_edge_do_not_know_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../router/src");
    let rooms = ["control", "owner", "edge"];
    let pairs = rooms
        .iter()
        .flat_map(|room| rooms.iter().map(move |other| (room, other)));
    for (room, other) in pairs.filter(|(room, other)| room != other) {
        let mut files = vec![source.join(format!("{room}.rs"))];
        files.extend(
            std::fs::read_dir(source.join(room))
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for import in [
                format!("crate::{other}::"),
                format!("use crate::{other};"),
                format!("super::super::{other}"),
            ] {
                assert!(!text.contains(&import), "{} imports `{other}`", file.display());
            }
        }
    }
}
