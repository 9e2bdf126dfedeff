//! Every crate that Cargo.lock names may be used: its licence is on the list in deny.toml, it comes from the public registry (with a
//! checksum) or from this repository, it is not denied, and none is there twice that is not known to be. `cargo deny` checks the
//! same and more where it is installed; advisories are checked by it only.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use cargo_metadata::{MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    let options = vec!["--locked".to_owned()];
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options)
        .exec()
        .unwrap();
    metadata.packages
}

/// The list of deny.toml.
struct Policy {
    allow: BTreeSet<String>,
    exceptions: Vec<(String, BTreeSet<String>)>,
    denied: BTreeSet<String>,
    twice: BTreeSet<String>,
}

fn texts(list: &toml::Value) -> BTreeSet<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

fn name_of(entry: &toml::Value) -> String {
    entry["name"].as_str().unwrap().to_owned()
}

impl Policy {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
        let file: toml::Table = toml::from_str(&text).unwrap();
        let licences = &file["licenses"];
        let exceptions = licences["exceptions"].as_array().unwrap().iter();
        let bans = &file["bans"];
        let denied = bans["deny"].as_array().unwrap().iter();
        Self {
            denied: denied.map(name_of).collect(),
            twice: bans["skip"].as_array().unwrap().iter().map(name_of).collect(),
            allow: texts(&licences["allow"]),
            exceptions: exceptions
                .map(|e| (e["name"].as_str().unwrap().to_owned(), texts(&e["allow"])))
                .collect(),
        }
    }

    fn allows(&self, package: &str, expression: &str) -> Result<bool, String> {
        let mine = self
            .exceptions
            .iter()
            .filter(|(name, _)| name == package)
            .flat_map(|(_, allow)| allow);
        let allowed: BTreeSet<&str> = self.allow.iter().chain(mine).map(String::as_str).collect();
        satisfied(expression, &allowed)
    }
}

/// Whether an SPDX expression can be met with these licences. The old `/` counts as `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let met = any_of(&mut rest, allowed)?;
    if rest.is_empty() {
        Ok(met)
    } else {
        Err(format!("`{expression}`: `{}` stands where nothing may", rest[0]))
    }
}

fn any_of(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Result<bool, String> {
    let mut met = all_of(rest, allowed)?;
    while let ["OR", more @ ..] = rest {
        *rest = more;
        met |= all_of(rest, allowed)?;
    }
    Ok(met)
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Result<bool, String> {
    let mut met = one(rest, allowed)?;
    while let ["AND", more @ ..] = rest {
        *rest = more;
        met &= one(rest, allowed)?;
    }
    Ok(met)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Result<bool, String> {
    match rest {
        ["(", more @ ..] => {
            *rest = more;
            let met = any_of(rest, allowed)?;
            let [")", more @ ..] = rest else {
                return Err("a bracket is not closed".to_owned());
            };
            *rest = more;
            Ok(met)
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            Ok(allowed.contains(format!("{licence} WITH {exception}").as_str()))
        }
        [licence, more @ ..] => {
            *rest = more;
            Ok(allowed.contains(licence))
        }
        [] => Err("a licence is missing".to_owned()),
    }
}

#[test]
fn every_crate_has_an_allowed_licence() {
    let policy = Policy::read();
    let mut refused = Vec::new();
    for package in packages() {
        let licence = package.license.as_deref().unwrap_or("none named");
        match policy.allows(&package.name, licence) {
            Ok(true) => {}
            Ok(false) => refused.push(format!("{} {}: {licence}", package.name, package.version)),
            Err(why) => refused.push(format!("{} {}: {licence}: {why}", package.name, package.version)),
        }
    }
    assert!(
        refused.is_empty(),
        "not on the list of deny.toml:\n{}",
        refused.join("\n")
    );
}

#[test]
fn no_crate_is_denied_and_every_one_that_is_there_twice_is_on_the_list() {
    let policy = Policy::read();
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for package in packages() {
        let name = package.name.to_string();
        assert!(!policy.denied.contains(&name), "{name} is denied by deny.toml");
        versions.entry(name).or_default().insert(package.version.to_string());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: BTreeSet<String> = versions.keys().cloned().collect();
    let new: Vec<_> = versions
        .iter()
        .filter(|(name, _)| !policy.twice.contains(*name))
        .collect();
    assert!(
        new.is_empty(),
        "in several versions, and not on the list `skip` of deny.toml (rather have one): {new:?}"
    );
    let gone: Vec<_> = policy.twice.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "on the list `skip` of deny.toml and there once only: {gone:?}"
    );
}

#[test]
fn no_manifest_takes_any_version_or_a_place_outside() {
    for package in packages().iter().filter(|package| package.source.is_none()) {
        for dependency in &package.dependencies {
            let of_ours = dependency.path.is_some();
            let any = dependency.req.to_string() == "*";
            assert!(
                of_ours || !any,
                "{} takes any version of {}",
                package.name,
                dependency.name
            );
            let source = dependency.source.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(
                of_ours || !source.starts_with("git+"),
                "{} takes {} from {source}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn the_lock_file_has_a_checksum_for_every_crate_of_the_registry() {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = toml::from_str(&text).unwrap();
    let mut checked = 0;
    for package in lock["package"].as_array().unwrap() {
        if package.get("source").is_some() {
            let sum = package.get("checksum").and_then(|sum| sum.as_str());
            assert_eq!(sum.map(str::len), Some(64), "{package}");
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn every_crate_comes_from_the_public_registry_or_from_this_repository() {
    for package in packages() {
        match &package.source {
            Some(source) => assert!(source.is_crates_io(), "{} comes from {source}", package.name),
            None => assert!(
                package.manifest_path.starts_with(root().to_str().unwrap()),
                "{}",
                package.manifest_path
            ),
        }
    }
}

#[test]
fn both_licence_texts_of_the_project_are_here_and_named_in_every_manifest() {
    let text = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    assert!(text("LICENSE-APACHE").contains("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"));
    assert!(text("LICENSE-MIT").contains("Permission is hereby granted, free of charge"));
    for package in packages().iter().filter(|package| package.source.is_none()) {
        assert_eq!(
            package.license.as_deref(),
            Some("Apache-2.0 OR MIT"),
            "{}",
            package.name
        );
    }
}

#[test]
fn an_expression_is_met_as_spdx_means_it() {
    let allowed = BTreeSet::from(["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"]);
    let met = |expression| satisfied(expression, &allowed);
    for fine in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "MIT AND Zlib",
        "(MIT OR GPL-3.0) AND Zlib",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert_eq!(met(fine), Ok(true), "{fine}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR MPL-2.0)",
        "Apache-2.0",
        "Apache-2.0 WITH other",
    ] {
        assert_eq!(met(bad), Ok(false), "{bad}");
    }
    for broken in ["", "(MIT", "MIT Zlib", "MIT OR"] {
        assert!(met(broken).is_err(), "{broken}");
    }
}
