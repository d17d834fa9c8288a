//! The bag around a pack's files (RFC 8493, BagIt 1.0): manifests, payload count, and which file may stand where.
//!
//! Every tag file is in the tag manifest except those made after it is signed; their names are a closed list, so that a
//! verifier can tell an added file from one of them.

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::time::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::pack::PackError;

/// Digests of every file of `data/`.
pub const MANIFEST: &str = "manifest-sha256.txt";
/// Digests of the tag files: what is signed.
pub const TAGMANIFEST: &str = "tagmanifest-sha256.txt";
/// Sigstore bundle over the tag manifest.
pub const MESSAGE_BUNDLE: &str = "verify/tagmanifest-sha256.txt.sigstore.json";
/// Sigstore bundle around the statement about the pack.
pub const STATEMENT_BUNDLE: &str = "verify/pack.intoto.sigstore.json";
/// The first bundle's signature alone, DER.
pub const SIGNATURE: &str = "verify/tagmanifest-sha256.txt.sig";
/// Public key of the pack's certificate, PEM.
pub const SIGNING_KEY: &str = "verify/keys/pack-signing.pub";
/// The pack's certificate, PEM.
pub const SIGNING_CERTIFICATE: &str = "verify/keys/pack-signing.pem";
/// How the seal tree grew from the checkpoints in `data/` to the pack's signature.
pub const SEAL_CONSISTENCY: &str = "verify/seal-consistency.json";

/// The files that the tag manifest does not list, because they are made from it.
pub const UNLISTED: [&str; 7] =
    [TAGMANIFEST, MESSAGE_BUNDLE, STATEMENT_BUNDLE, SIGNATURE, SIGNING_KEY, SIGNING_CERTIFICATE, SEAL_CONSISTENCY];

/// Declaration of the bag.
pub const BAGIT: &str = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n";
/// Longest path in the archive; Windows Explorer gives up not far above.
const PATH_CHARS_MAX: usize = 200;

/// A bag in memory.
#[derive(Debug)]
pub struct Bag {
    /// By path inside the bag.
    files: BTreeMap<String, Vec<u8>>,
    /// Tag files that the tag manifest will list.
    tags: BTreeSet<String>,
}

impl Bag {
    /// A bag of these files, whose paths are below `data/`.
    ///
    /// # Errors
    /// [`PackError::Name`] for a path that would not survive every file system.
    pub fn new(name: &str, data: BTreeMap<String, Vec<u8>>) -> Result<Self, PackError> {
        let mut seen = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (path, bytes) in data {
            check_path(&path)?;
            let path = format!("data/{path}");
            if name.len() + 1 + path.len() > PATH_CHARS_MAX {
                return Err(PackError::Name { path, reason: "is too long: 200 characters with the pack's name" });
            }
            if let Some(_other) = seen.insert(path.to_ascii_lowercase(), ()) {
                return Err(PackError::Name { path, reason: "differs from another one in upper and lower case only" });
            }
            files.insert(path, bytes);
        }
        Ok(Self { files, tags: BTreeSet::new() })
    }

    /// Adds a tag file.
    pub fn tag(&mut self, path: &str, bytes: Vec<u8>) {
        self.tags.insert(path.to_owned());
        self.files.insert(path.to_owned(), bytes);
    }

    /// Adds one of the [`UNLISTED`] files.
    pub fn unlisted(&mut self, path: &str, bytes: Vec<u8>) {
        debug_assert!(UNLISTED.contains(&path), "{path} is not made after the tag manifest");
        self.files.insert(path.to_owned(), bytes);
    }

    /// Writes the declaration, the description and both manifests.
    pub fn seal(&mut self, organisation: &str, version: &str, now: Timestamp) {
        let payload = |path: &&String| path.starts_with("data/");
        let (count, bytes) = oxum(self.files.iter().filter(|(path, _)| payload(path)));
        let info = format!(
            "Source-Organization: {}\nBagging-Date: {}\nPayload-Oxum: {bytes}.{count}\nBag-Software-Agent: pipeproof {}\n",
            one_line(organisation),
            now.date(),
            one_line(version),
        );
        let manifest = manifest(self.files.iter().filter(|(path, _)| payload(path)));
        self.tag("bagit.txt", BAGIT.as_bytes().to_vec());
        self.tag("bag-info.txt", info.into_bytes());
        self.tag(MANIFEST, manifest.into_bytes());
        let tags = manifest_of(&self.files, &self.tags);
        self.unlisted(TAGMANIFEST, tags.into_bytes());
    }

    /// The tag manifest; empty before [`Bag::seal`].
    #[must_use]
    pub fn tagmanifest(&self) -> &[u8] {
        self.files.get(TAGMANIFEST).map_or(&[], Vec::as_slice)
    }

    /// SHA-256 of a file; of nothing if there is none.
    #[must_use]
    pub fn digest(&self, path: &str) -> [u8; 32] {
        Sha256::digest(self.files.get(path).map_or(&[][..], Vec::as_slice)).into()
    }

    /// All files by path inside the bag.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }
}

fn manifest_of(files: &BTreeMap<String, Vec<u8>>, paths: &BTreeSet<String>) -> String {
    manifest(files.iter().filter(|(path, _)| paths.contains(*path)))
}

/// Lines of digest, two spaces, path: what `sha256sum -c` reads.
fn manifest<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> String {
    files.map(|(path, bytes)| format!("{}  {path}\n", hex::encode(Sha256::digest(bytes)))).collect()
}

/// Number of files and of bytes in them.
pub(crate) fn oxum<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> (usize, u64) {
    files.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes.len() as u64))
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).collect::<Vec<_>>().join(" ")
}

/// Whether a pack's name is one that every file system takes.
///
/// # Errors
/// [`PackError::Name`].
pub fn check_name(name: &str) -> Result<(), PackError> {
    check_path(name)?;
    if name.contains('/') {
        return Err(PackError::Name { path: name.to_owned(), reason: "has a slash" });
    }
    Ok(())
}

/// Whether a path inside the bag is one that every file system takes: parts of ASCII letters, digits, `.`, `_`, `-`.
///
/// # Errors
/// [`PackError::Name`].
pub fn check_path(path: &str) -> Result<(), PackError> {
    let refuse = |reason| Err(PackError::Name { path: path.to_owned(), reason });
    for part in path.split('/') {
        if part.is_empty() || part.starts_with('.') || part.ends_with('.') {
            return refuse("has an empty part, or one that starts or ends with a dot");
        }
        if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return refuse("has a character other than ascii letters, digits, dot, underscore, hyphen");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_do_not_survive_are_refused() {
        for good in ["pack.json", "10_controls/CM-06/population.csv", "a"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\\b", "ä", "a b", "a:b", "con\0", ".hidden", "a."] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_name("a/b").is_err());
    }

    #[test]
    fn files_that_differ_in_case_only_are_refused() {
        let data = BTreeMap::from([("A.csv".to_owned(), vec![]), ("a.csv".to_owned(), vec![])]);
        assert!(matches!(Bag::new("pack", data), Err(PackError::Name { .. })));
        let long = BTreeMap::from([("a".repeat(200), vec![])]);
        assert!(matches!(Bag::new("pack", long), Err(PackError::Name { .. })));
    }

    #[test]
    fn manifests_list_payload_and_tags() {
        let mut bag = Bag::new("pack", BTreeMap::from([("a.txt".to_owned(), b"abc".to_vec())])).unwrap();
        bag.tag("README.txt", vec![]);
        bag.seal("Acme\nInc", "1", Timestamp::from_secs(0));
        let text = |path: &str| String::from_utf8(bag.files()[path].clone()).unwrap();
        assert_eq!(text(MANIFEST), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  data/a.txt\n");
        assert!(text("bag-info.txt").contains("Payload-Oxum: 3.1\n"));
        assert!(text("bag-info.txt").contains("Source-Organization: Acme Inc\nBagging-Date: 1970-01-01\n"));
        let listed: Vec<String> = text(TAGMANIFEST).lines().map(|line| line[66..].to_owned()).collect();
        assert_eq!(listed, ["README.txt", "bag-info.txt", "bagit.txt", MANIFEST]);
    }
}
