//! The shape of the workspace: which package may name which, one arrow, invariants that name their tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::harness::files;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Names under `[dependencies]` (and build dependencies), and under `[dev-dependencies]`, of a manifest.
fn dependencies(manifest: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut normal, mut dev) = (BTreeSet::new(), BTreeSet::new());
    let mut table = String::new();
    for line in read(manifest).lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
            continue;
        }
        let Some(name) = line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#'))
        else {
            continue;
        };
        let target = table.rsplit('.').next().unwrap_or_default();
        match target {
            "dependencies" | "build-dependencies" if !table.starts_with("workspace") => normal.insert(name.to_owned()),
            "dev-dependencies" => dev.insert(name.to_owned()),
            _ => continue,
        };
    }
    (normal, dev)
}

const PACKAGES: &[&str] = &["engine", "rules", "ingest", "record", "reports"];

#[test]
fn packages_depend_on_each_other_only_as_designed() {
    let allowed = BTreeMap::from([
        ("engine", vec![]),
        ("rules", vec!["engine"]),
        ("ingest", vec!["engine"]),
        ("record", vec!["engine"]),
        ("reports", vec!["engine", "record"]),
    ]);
    for package in PACKAGES {
        let (normal, dev) = dependencies(&format!("{package}/Cargo.toml"));
        for name in normal.iter().chain(&dev) {
            if let Some(other) = name.strip_prefix("pipeproof-") {
                assert!(allowed[package].contains(&other), "{package} depends on {other}");
            }
            assert_ne!(name, "pipeproof", "{package} depends on the program");
        }
        assert!(normal.len() > 2, "{package}: {normal:?} was not read");
    }
}

#[test]
fn heavy_dependencies_are_named_only_where_they_belong() {
    let homes: &[(&str, &[&str])] = &[
        ("rdkafka", &["ingest"]),
        // The fault runs read and break a node's files from outside.
        ("sqlx", &["record", "."]),
        ("deltalake", &["record"]),
        ("datafusion", &["record"]),
        ("tantivy", &["record"]),
        ("parquet", &["record", "reports", "."]),
        ("sigstore-", &["reports"]),
    ];
    for package in PACKAGES.iter().chain(&["."]) {
        let (normal, dev) = dependencies(&format!("{package}/Cargo.toml"));
        for name in normal.iter().chain(&dev) {
            for (heavy, homes) in homes {
                let is_it = name == heavy || (heavy.ends_with('-') && name.starts_with(heavy));
                assert!(!is_it || homes.contains(package), "{package}/Cargo.toml names {name}");
            }
        }
    }
}

#[test]
fn there_is_one_arrow_and_the_versions_are_those_that_fit() {
    let lock = read("Cargo.lock");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) {
            let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
            versions.entry(name).or_default().extend(version);
        }
    }
    assert!(versions.len() > 100, "{} packages in Cargo.lock", versions.len());
    for (name, prefix) in [
        ("arrow-array", "59."),
        ("arrow-schema", "59."),
        ("arrow-buffer", "59."),
        ("parquet", "59."),
        ("datafusion", "55."),
        ("object_store", "0.13."),
        ("deltalake-core", "1."),
    ] {
        let found = &versions[name];
        assert!(found.len() == 1 && found[0].starts_with(prefix), "{name}: {found:?}");
    }
    assert!(!versions.contains_key("sigstore"), "the all-in-one sigstore crate accepts forged bundles");
    // librdkafka speaks TLS with OpenSSL only: its source comes along, no system library is needed to build.
    assert_eq!(
        versions.contains_key("openssl-sys"),
        versions.contains_key("openssl-src"),
        "OpenSSL is built from source"
    );
}

/// Rust files of the workspace with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["src", "tests/scenarios"].into_iter().map(str::to_owned);
    let folders =
        folders.chain(PACKAGES.iter().flat_map(|package| [format!("{package}/src"), format!("{package}/tests")]));
    let all =
        folders.map(|folder| root().join(folder)).filter(|folder| folder.is_dir()).flat_map(|folder| files(&folder));
    all.filter(|file| file.extension().is_some_and(|kind| kind == "rs"))
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            (file, text)
        })
        .collect()
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let page = read("ARCHITECTURE.md");
    let invariants: String = page
        .lines()
        .skip_while(|line| !line.starts_with('#') || !line.to_lowercase().contains("invariant"))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(!invariants.is_empty(), "ARCHITECTURE.md has no section on invariants");
    let mut tests = BTreeSet::new();
    for (_, text) in sources() {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                if is_test {
                    tests.insert(rest.split('(').next().unwrap_or_default().to_owned());
                }
                is_test = false;
            }
        }
    }
    assert!(tests.len() > 50, "only {} tests found", tests.len());
    let named: Vec<&str> = invariants
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.matches('_').count() >= 2
                && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter))
        })
        .collect();
    assert!(named.len() >= 8, "invariants name only {named:?}");
    for name in named {
        let test = name.rsplit("::").next().unwrap_or(name);
        assert!(tests.contains(test), "ARCHITECTURE.md names the test `{name}`, which does not exist");
    }
}

#[test]
fn files_stay_readable_and_open_with_what_they_are() {
    let mut long = Vec::new();
    for (file, text) in sources() {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        assert!(text.starts_with("//!") || text.starts_with("#!"), "{name} does not open with what it is");
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["utils", "util", "common", "types", "helpers", "misc"].contains(&stem.as_str()),
            "{name} tells no subject"
        );
        if text.lines().count() > 800 {
            long.push(format!("{name}: {} lines", text.lines().count()));
        }
    }
    assert!(long.is_empty(), "too long: {long:#?}");
}

#[test]
fn fixtures_are_attributed() {
    let page = read("tests/fixtures/ATTRIBUTION.md");
    for file in files(&root().join("tests/fixtures")) {
        let name = file.strip_prefix(root().join("tests/fixtures")).unwrap().display().to_string();
        let folder = name.split('/').next().unwrap();
        assert!(name == "ATTRIBUTION.md" || page.contains(folder), "{name} is not in ATTRIBUTION.md");
    }
}
