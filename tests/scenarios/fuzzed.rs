//! Every fuzz target over its seeds, in an ordinary build: the targets call what is there, and hold what they promise over the fixtures.
//! Fuzzing itself takes a build of its own (`fuzz/run`).

#[allow(unreachable_pub, reason = "it is a library elsewhere")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::harness::{files, has_tool, left_out, tell};

/// Seeds of a target that are run here: of some there are thousands.
const SEEDS_MAX: usize = 600;

fn fuzz() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_is_built() {
    let named: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = files(&fuzz().join("fuzz_targets"));
    let of_files = files.iter().map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(named, of_files, "targets and files");
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &named {
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name} is not built"
        );
    }
}

#[test]
fn every_target_holds_over_its_seeds() {
    if !has_tool("python3") || !has_tool("bash") {
        return left_out("seeds of fuzz targets", "they are written by python3 and bash");
    }
    for (name, run) in targets::TARGETS {
        let folder = tempfile::TempDir::new().unwrap();
        let written = Command::new("bash").arg(fuzz().join("seeds")).arg(name).arg(folder.path()).status().unwrap();
        assert!(written.success(), "seeds of {name}");
        let seeds = files(folder.path());
        assert!(!seeds.is_empty(), "{name} has no seeds");
        // The names are hashes: every so manieth is a choice that says nothing about the content.
        let step = seeds.len().div_ceil(SEEDS_MAX);
        let chosen: Vec<_> = seeds.iter().step_by(step).collect();
        for seed in &chosen {
            run(&std::fs::read(seed).unwrap());
        }
        tell(&format!("fuzz target {name}: {} of {} seeds", chosen.len(), seeds.len()));
    }
}
