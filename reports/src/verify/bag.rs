//! The bag: every listed file is there with its digest, and every file that is there is listed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::pack::bag::{BAGIT, MANIFEST, TAGMANIFEST, UNLISTED, oxum};
use crate::verify::report::{Check, Report};
use crate::verify::{Unpacked, signature};

/// Tag files without which the rest says nothing; the tag manifest must list them.
const REQUIRED: [&str; 5] = ["bagit.txt", "bag-info.txt", MANIFEST, signature::TRUSTED_ROOT, signature::CHECKPOINT_KEY];

pub(super) fn check(pack: &Unpacked, report: &mut Report) {
    let mut archive = Check::new("archive");
    archive.examined = pack.files().len() as u64;
    for (name, reason) in pack.refused() {
        archive.fail(name, reason);
    }
    report.checks.push(archive);

    let mut check = Check::new("files");
    let tags = listed(pack, TAGMANIFEST, &mut check);
    let payload = listed(pack, MANIFEST, &mut check);
    for path in REQUIRED.iter().filter(|path| !tags.contains_key(**path)) {
        check.fail(*path, format!("is not listed in {TAGMANIFEST}"));
    }
    for (path, digest) in tags.iter().chain(&payload) {
        check.count();
        match pack.get(path) {
            None => check.fail(path, "is missing"),
            Some(bytes) if hex::encode(Sha256::digest(bytes)) != *digest => {
                check.fail(path, "was altered: it does not have the digest that the manifest says");
            }
            Some(_) => {}
        }
    }
    for path in pack.files().keys() {
        let known = if path.starts_with("data/") {
            payload.contains_key(path)
        } else {
            tags.contains_key(path) || UNLISTED.contains(&path.as_str())
        };
        if !known {
            check.fail(path, "was added: no manifest lists it");
        }
    }
    for path in UNLISTED.iter().filter(|path| pack.get(path).is_none()) {
        check.fail(*path, "is missing");
    }
    if pack.text("bagit.txt") != Some(BAGIT) {
        check.fail("bagit.txt", "does not declare BagIt 1.0 in UTF-8");
    }
    let (count, bytes) = oxum(pack.files().iter().filter(|(path, _)| path.starts_with("data/")));
    let expected = format!("{bytes}.{count}");
    let info = pack.text("bag-info.txt").unwrap_or_default();
    match info.lines().find_map(|line| line.strip_prefix("Payload-Oxum: ")) {
        Some(said) if said == expected => {}
        Some(said) => check.fail("bag-info.txt", format!("says Payload-Oxum {said}, but there is {expected}")),
        None => check.fail("bag-info.txt", "has no Payload-Oxum"),
    }
    report.checks.push(check);
    report.checks.push(index(pack));
}

/// The lines of a manifest: digest by path.
fn listed(pack: &Unpacked, manifest: &str, check: &mut Check) -> BTreeMap<String, String> {
    let Some(text) = pack.text(manifest) else {
        check.fail(manifest, "is missing or not text");
        return BTreeMap::new();
    };
    let mut listed = BTreeMap::new();
    for line in text.lines() {
        let parts = line.split_once("  ").filter(|(digest, _)| {
            digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        let Some((digest, path)) = parts else {
            check.fail(manifest, format!("has a line that is no digest and path: {line:.100}"));
            continue;
        };
        if path.starts_with("data/") != (manifest == MANIFEST) {
            check.fail(manifest, format!("lists {path}, which does not belong there"));
        }
        if listed.insert(path.to_owned(), digest.to_owned()).is_some() {
            check.fail(manifest, format!("lists {path} twice"));
        }
    }
    listed
}

#[derive(Deserialize)]
struct Index {
    name: String,
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    path: String,
    bytes: u64,
    sha256: String,
}

/// `data/pack.json` against the files beside it.
fn index(pack: &Unpacked) -> Check {
    const PATH: &str = "data/pack.json";
    let mut check = Check::new("index");
    let index: Index = match serde_json::from_slice(pack.get(PATH).unwrap_or_default()) {
        Ok(index) => index,
        Err(cause) => {
            check.fail(PATH, format!("cannot be read: {cause}"));
            return check;
        }
    };
    if index.name != pack.name() {
        check.fail(PATH, format!("is of pack {:?}, but the folder is {:?}", index.name, pack.name()));
    }
    let mut seen = BTreeSet::new();
    for listed in &index.files {
        check.count();
        let path = format!("data/{}", listed.path);
        match pack.get(&path) {
            None => check.fail(&path, "is in the index but not in the pack"),
            Some(bytes)
                if bytes.len() as u64 != listed.bytes || hex::encode(Sha256::digest(bytes)) != listed.sha256 =>
            {
                check.fail(&path, "is not the file that the index describes");
            }
            Some(_) => {}
        }
        seen.insert(path);
    }
    for path in pack.files().keys().filter(|path| path.starts_with("data/") && *path != PATH) {
        if !seen.contains(path) {
            check.fail(path, "is not in the index");
        }
    }
    check
}
