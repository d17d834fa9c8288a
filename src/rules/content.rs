//! The content of a set of rules: files in layers and the states people gave rules, kept under the digest of both.
//!
//! ```text
//! DATA/rules/DIGEST/set.json      states, and path → SHA-256 of every file; DIGEST is the SHA-256 of this file
//! DATA/rules/DIGEST/library/…     the rules and lists shipped with the program
//! DATA/rules/DIGEST/folder/…      what the configured folder held
//! DATA/rules/DIGEST/deployed/…    what somebody deployed
//! DATA/rules/DIGEST/exceptions/…  exceptions that somebody added
//! ```
//!
//! Sets are never changed and never removed: a replay of old records needs what decided then. Files that a set shares
//! with the one before are links to the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::rule::RuleState;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The layers of a set, each over the one before: of two lists with the same name the later one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Library,
    Folder,
    Deployed,
    Exceptions,
}

impl Layer {
    pub(crate) const ALL: [Self; 4] = [Self::Library, Self::Folder, Self::Deployed, Self::Exceptions];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Folder => "folder",
            Self::Deployed => "deployed",
            Self::Exceptions => "exceptions",
        }
    }
}

/// Most files of a set.
const FILES_MAX: usize = 50_000;
/// Longest path of a file in a set, in bytes.
const PATH_BYTES_MAX: usize = 512;
/// Version of `set.json`.
const VERSION: u32 = 1;
const MANIFEST: &str = "set.json";

/// What a set of rules consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// By path, the layer's name first.
    files: BTreeMap<String, Bytes>,
    /// States people gave rules, by rule id; they stand above what the files say.
    pub(crate) states: BTreeMap<String, RuleState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    states: BTreeMap<String, RuleState>,
    files: BTreeMap<String, String>,
}

/// Why content cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not what its name says: restore the rule set from a copy of the data folder")]
    Damaged { path: PathBuf },
    #[error("`{0}` cannot be the path of a rule file: use names without `..`, a leading `.` or control characters")]
    Path(String),
    #[error("a rule set has {FILES_MAX} files at most")]
    Files,
    #[error("{0} is not UTF-8 text")]
    Text(String),
}

impl Content {
    /// Replaces a layer by other files, given by their paths inside it.
    pub(crate) fn set_layer(
        &mut self,
        layer: Layer,
        files: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<(), ContentError> {
        let prefix = format!("{}/", layer.name());
        self.files.retain(|path, _| !path.starts_with(&prefix));
        for (path, bytes) in files {
            self.insert(layer, &path, bytes)?;
        }
        Ok(())
    }

    /// Puts a file into a layer.
    pub(crate) fn insert(&mut self, layer: Layer, path: &str, bytes: Bytes) -> Result<(), ContentError> {
        if !is_path(path) {
            return Err(ContentError::Path(path.to_owned()));
        }
        self.files.insert(format!("{}/{path}", layer.name()), bytes);
        if self.files.len() > FILES_MAX { Err(ContentError::Files) } else { Ok(()) }
    }

    /// Takes a file out of a layer; false if it is not there.
    pub(crate) fn remove(&mut self, layer: Layer, path: &str) -> bool {
        self.files.remove(&format!("{}/{path}", layer.name())).is_some()
    }

    /// The files of a layer, by their paths in the set.
    pub(crate) fn layer(&self, layer: Layer) -> impl Iterator<Item = (&str, &Bytes)> {
        let prefix = format!("{}/", layer.name());
        self.files.iter().filter(move |(path, _)| path.starts_with(&prefix)).map(|(path, bytes)| (path.as_str(), bytes))
    }

    /// The text of the file that a table in the file `rule` names, which must stand in the same layer.
    pub(crate) fn beside(&self, rule: &str, file: &str) -> Result<String, String> {
        let missing = || format!("`{file}` is not among the files of the rules");
        let (layer, _) = rule.split_once('/').ok_or_else(missing)?;
        let mut parts: Vec<&str> = rule.split('/').collect();
        parts.pop();
        for part in file.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.len() > 1 => drop(parts.pop()),
                ".." => return Err(missing()),
                name => parts.push(name),
            }
        }
        let bytes = self.files.get(&parts.join("/")).filter(|_| parts.first() == Some(&layer)).ok_or_else(missing)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("`{file}` is not UTF-8 text"))
    }

    /// The digest that names the set.
    pub(crate) fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.manifest()))
    }

    fn manifest(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(path, bytes)| (path.clone(), hex::encode(Sha256::digest(bytes))));
        let manifest = Manifest { version: VERSION, states: self.states.clone(), files: files.collect() };
        // Maps of texts cannot fail to be written.
        serde_json::to_vec(&manifest).unwrap_or_default()
    }

    /// Writes the set below `root`, on stable storage when this returns. Files that the set `like` has as well are
    /// linked from there.
    pub(crate) fn save(&self, root: &Path, like: Option<(&str, &Self)>) -> Result<(), ContentError> {
        let digest = self.digest();
        let target = root.join(&digest);
        if target.is_dir() {
            // It got this name only once it was whole.
            return Ok(());
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ContentError::Io { path, source }
        };
        let building = root.join(format!("new-{digest}"));
        if building.exists() {
            fs::remove_dir_all(&building).map_err(at(&building))?;
        }
        fs::create_dir_all(&building).map_err(at(&building))?;
        let mut folders = vec![building.clone(), root.to_owned()];
        for (path, bytes) in &self.files {
            let file = building.join(path);
            if let Some(parent) = file.parent()
                && !parent.is_dir()
            {
                fs::create_dir_all(parent).map_err(at(parent))?;
                folders.extend(parent.ancestors().take_while(|folder| *folder != building).map(Path::to_owned));
            }
            let shared = like.filter(|(_, other)| other.files.get(path) == Some(bytes));
            let linked = shared.is_some_and(|(name, _)| fs::hard_link(root.join(name).join(path), &file).is_ok());
            if !linked {
                write(&file, bytes).map_err(at(&file))?;
            }
        }
        write(&building.join(MANIFEST), &self.manifest()).map_err(at(&building))?;
        folders.sort();
        folders.dedup();
        for folder in folders.iter().rev() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
        }
        Failpoint::RulesBeforeRename.pass();
        fs::rename(&building, &target).map_err(at(&target))?;
        Failpoint::RulesAfterRename.pass();
        File::open(root).and_then(|root| root.sync_all()).map_err(at(root))
    }

    /// Reads a set back; every byte is checked against the name.
    pub(crate) fn load(root: &Path, digest: &str) -> Result<Self, ContentError> {
        let folder = root.join(digest);
        let read = |path: &Path| fs::read(path).map_err(|source| ContentError::Io { path: path.to_owned(), source });
        let name = folder.join(MANIFEST);
        let text = read(&name)?;
        let manifest: Option<Manifest> =
            serde_json::from_slice(&text).ok().filter(|manifest: &Manifest| manifest.version == VERSION);
        let manifest = manifest.filter(|_| hex::encode(Sha256::digest(&text)) == digest);
        let manifest = manifest.ok_or_else(|| ContentError::Damaged { path: name.clone() })?;
        let mut files = BTreeMap::new();
        for (path, expected) in manifest.files {
            let file = folder.join(&path);
            let bytes = read(&file)?;
            if hex::encode(Sha256::digest(&bytes)) != expected {
                return Err(ContentError::Damaged { path: file });
            }
            files.insert(path, Bytes::from(bytes));
        }
        Ok(Self { files, states: manifest.states })
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether a path stays inside its folder and can stand in a message.
fn is_path(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && !name.starts_with('.') && !name.chars().any(|char| char.is_control() || char == '\\')
    };
    path.len() <= PATH_BYTES_MAX && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let mut content = Content::default();
        content.insert(Layer::Library, "a/one.yml", Bytes::from_static(b"title: one")).unwrap();
        content.insert(Layer::Deployed, "lists/who.txt", Bytes::from_static(b"alice")).unwrap();
        content.states.insert("r".to_owned(), RuleState::Paused);
        content
    }

    #[test]
    fn a_set_is_read_back_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let first = content();
        first.save(root.path(), None).unwrap();
        first.save(root.path(), None).unwrap();
        assert_eq!(Content::load(root.path(), &first.digest()).unwrap(), first);
        let mut second = first.clone();
        second.states.clear();
        assert_ne!(second.digest(), first.digest());
        second.save(root.path(), Some((&first.digest(), &first))).unwrap();
        assert_eq!(Content::load(root.path(), &second.digest()).unwrap(), second);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing half written is left");

        let file = root.path().join(second.digest()).join("deployed/lists/who.txt");
        fs::remove_file(&file).unwrap();
        assert!(matches!(Content::load(root.path(), &second.digest()), Err(ContentError::Io { .. })));
        fs::write(&file, "mallory").unwrap();
        assert!(matches!(Content::load(root.path(), &second.digest()), Err(ContentError::Damaged { .. })));
        assert!(Content::load(root.path(), &first.digest()).is_ok(), "sets do not share what is written anew");
        let name = root.path().join(first.digest()).join(MANIFEST);
        fs::write(&name, fs::read_to_string(&name).unwrap().replace("paused", "active")).unwrap();
        assert!(matches!(Content::load(root.path(), &first.digest()), Err(ContentError::Damaged { .. })));
        assert!(Content::load(root.path(), "unknown").is_err());
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["../x.yml", "/etc/x.yml", "a//b.yml", "a/./b.yml", ".x.yml", "a\\b.yml", "", "a\n.yml"] {
            assert!(content().insert(Layer::Deployed, path, Bytes::new()).is_err(), "{path:?}");
        }
        assert!(content().insert(Layer::Deployed, "ä/regel eins.yml", Bytes::new()).is_ok());
    }

    #[test]
    fn a_table_reads_files_of_its_own_layer_only() {
        let mut content = content();
        content.insert(Layer::Deployed, "tables/t.csv", Bytes::from_static(b"a,b")).unwrap();
        assert_eq!(content.beside("deployed/x/r.yml", "../tables/./t.csv").unwrap(), "a,b");
        assert_eq!(content.beside("deployed/r.yml", "tables/t.csv").unwrap(), "a,b");
        for file in ["../library/a/one.yml", "../../deployed/tables/t.csv", "/etc/passwd", "t.csv", ""] {
            assert!(content.beside("deployed/r.yml", file).is_err(), "{file}");
        }
    }

    #[test]
    fn a_layer_is_replaced_as_a_whole() {
        let mut content = content();
        content.set_layer(Layer::Deployed, [("b.yml".to_owned(), Bytes::from_static(b"x"))]).unwrap();
        let paths: Vec<_> =
            Layer::ALL.into_iter().flat_map(|layer| content.layer(layer)).map(|(path, _)| path).collect();
        assert_eq!(paths, ["library/a/one.yml", "deployed/b.yml"]);
        assert!(content.remove(Layer::Deployed, "b.yml") && !content.remove(Layer::Deployed, "b.yml"));
    }
}
