//! The end of a table's log as a power cut may have left it: what was not written whole is moved aside before the table is opened.
//!
//! A commit is on stable storage before the next one is begun, so only the last one can be torn: cut, filled with zeros, or naming data
//! files that are missing or short. The table then stands where the version before it left off, and with it the position of whoever
//! appends, so the rows come again from where they came from. A checkpoint is derived from commits and goes the same way while these
//! are there. A commit further up is damaged and not torn: it is named, and nothing is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::check;
use super::durable::sync_folder_of;

/// A table's log, below its folder.
pub(super) const LOG: &str = "_delta_log";
/// Where Delta's readers begin: a hint, which they do without.
const HINT: &str = "_last_checkpoint";
/// Ending of what was moved aside. Nothing reads it; who wants to know what was lost finds it.
pub(super) const TORN: &str = "torn";

/// A file that is not what was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Where it stands, or stood.
    pub(super) path: PathBuf,
    /// What is wrong with it.
    pub(super) why: String,
}

/// The files of a table's log.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Versions that have a commit.
    pub(super) commits: BTreeSet<u64>,
    /// Versions that have a checkpoint.
    pub(super) checkpoints: BTreeSet<u64>,
}

impl Listing {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(folder.join(LOG))? {
            let name = entry?.file_name();
            let Some((digits, ending)) = name.to_str().and_then(|name| name.split_at_checked(20)) else { continue };
            let Ok(version) = digits.parse() else { continue };
            match ending {
                ".json" => drop(listing.commits.insert(version)),
                ".checkpoint.parquet" => drop(listing.checkpoints.insert(version)),
                _ => {}
            }
        }
        Ok(listing)
    }

    /// Whether what a checkpoint says follows from what is there without it.
    fn can_do_without(&self, checkpoint: u64) -> bool {
        let from = self.checkpoints.range(..checkpoint).next_back().map_or(0, |before| before + 1);
        (from..=checkpoint).all(|version| self.commits.contains(&version))
    }

    /// The checkpoint with which a reader of a version begins, and the commits that it goes through.
    fn read(&self, version: u64) -> (Option<u64>, impl Iterator<Item = u64>) {
        let checkpoint = self.checkpoints.range(..=version).next_back().copied();
        let from = checkpoint.map_or(0, |checkpoint| checkpoint + 1);
        (checkpoint, self.commits.range(from..).copied().take_while(move |commit| *commit <= version))
    }
}

/// The file of a commit.
pub(super) fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

/// The file of a checkpoint.
pub(super) fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

/// Moves a torn end aside, and says what that was. Nothing is there to be moved in a folder without a table.
pub(super) fn move_torn_aside(folder: &Path) -> io::Result<Vec<Torn>> {
    let mut moved = Vec::new();
    let log = folder.join(LOG);
    if !log.is_dir() {
        return Ok(moved);
    }
    let mut noted = check::noted_commits(folder)?;
    // A crash came between moving and forgetting.
    let is_aside = |name: &str| aside(&log, name).exists() && !log.join(name).exists();
    let mut forgotten: BTreeSet<String> = noted.keys().filter(|name| is_aside(name)).cloned().collect();
    while let Some((name, torn)) = next_torn(folder, &noted)? {
        // Data files first: while the commit is there, it is torn for lack of them.
        for data in torn.iter().skip(1).filter(|data| data.path.exists()) {
            let mut to = data.path.clone().into_os_string();
            to.push(".");
            to.push(TORN);
            fs::rename(&data.path, PathBuf::from(to))?;
            sync_folder_of(&data.path)?;
        }
        if name.ends_with(".parquet") {
            drop(fs::remove_file(log.join(HINT)));
        }
        fs::rename(log.join(&name), aside(&log, &name))?;
        sync_folder_of(&log.join(&name))?;
        noted.remove(&name);
        forgotten.insert(name);
        moved.extend(torn);
    }
    if !forgotten.is_empty() {
        check::keep_noted(folder, |name| !forgotten.contains(name))?;
    }
    Ok(moved)
}

/// Hidden, so that readers of any kind pass over it.
fn aside(log: &Path, name: &str) -> PathBuf {
    log.join(format!(".{name}.{TORN}"))
}

/// The last checkpoint or commit if it is torn: its name, and it with the data files it names that are not what was written.
fn next_torn(folder: &Path, noted: &BTreeMap<String, String>) -> io::Result<Option<(String, Vec<Torn>)>> {
    let listing = Listing::of(folder)?;
    if let Some(&checkpoint) = listing.checkpoints.last()
        && listing.can_do_without(checkpoint)
    {
        let name = checkpoint_name(checkpoint);
        let path = folder.join(LOG).join(&name);
        if let Some(why) = damaged_checkpoint(&path, noted.get(&name))? {
            return Ok(Some((name, vec![Torn { path, why }])));
        }
    }
    // What stands before a checkpoint is read by nobody.
    let Some(tip) = listing.read(u64::MAX).1.last() else { return Ok(None) };
    let name = commit_name(tip);
    let path = folder.join(LOG).join(&name);
    let actions = match whole_commit(&path, noted.get(&name))? {
        Err(why) => return Ok(Some((name, vec![Torn { path, why }]))),
        Ok(actions) => actions,
    };
    let mut torn = Vec::new();
    for add in actions.iter().filter_map(|action| action.get("add")) {
        torn.extend(damaged_data(folder, add)?);
    }
    if torn.is_empty() {
        return Ok(None);
    }
    torn.insert(0, Torn { path, why: "it names data files that are not whole".to_owned() });
    Ok(Some((name, torn)))
}

/// The first file of the log that is read for a version and is not what was written. It is looked for before Delta's reader sees any,
/// which does not survive every bit of a checkpoint.
pub(super) fn damaged(folder: &Path, version: u64) -> io::Result<Option<Torn>> {
    if !folder.join(LOG).is_dir() {
        return Ok(None);
    }
    let noted = check::noted_commits(folder)?;
    let listing = Listing::of(folder)?;
    let (checkpoint, commits) = listing.read(version);
    if let Some(name) = checkpoint.map(checkpoint_name) {
        let path = folder.join(LOG).join(&name);
        if let Some(why) = damaged_checkpoint(&path, noted.get(&name))? {
            return Ok(Some(Torn { path, why }));
        }
    }
    for commit in commits {
        let name = commit_name(commit);
        let path = folder.join(LOG).join(&name);
        if let Err(why) = whole_commit(&path, noted.get(&name))? {
            return Ok(Some(Torn { path, why }));
        }
    }
    Ok(None)
}

/// What is wrong with a checkpoint. Without a digest it is read to its end.
fn damaged_checkpoint(path: &Path, digest: Option<&String>) -> io::Result<Option<String>> {
    if let Some(digest) = digest {
        let differs = check::sha256(File::open(path)?)? != *digest;
        return Ok(differs.then(|| "it is not the checkpoint that was written".to_owned()));
    }
    let file = File::open(path)?;
    let read = move || {
        ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| {
            for batch in builder.build()? {
                batch?;
            }
            Ok(())
        })
    };
    // The reader of Parquet panics at some lengths that do not fit each other.
    Ok(match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(read) => read.err().map(|error| error.to_string()),
        Err(_) => Some("it cannot be read".to_owned()),
    })
}

/// Whether a file ends as a Parquet file does.
pub(super) fn is_parquet(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| ParquetRecordBatchReaderBuilder::try_new(file).is_ok())
}

/// The actions of a commit, or what it lacks.
fn whole_commit(path: &Path, digest: Option<&String>) -> io::Result<Result<Vec<Map<String, Value>>, String>> {
    let bytes = fs::read(path)?;
    if digest.is_some_and(|digest| hex::encode(Sha256::digest(&bytes)) != *digest) {
        return Ok(Err("it is not the commit that was written".to_owned()));
    }
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n');
    let actions: Result<Vec<Map<String, Value>>, _> = lines.map(serde_json::from_slice).collect();
    Ok(match actions {
        Err(error) => Err(format!("it is not whole: {error}")),
        Ok(actions) if !ends(&actions) => Err("it is not whole: it ends between two actions".to_owned()),
        Ok(actions) => Ok(actions),
    })
}

/// Whether what our commits end with is there: they begin with what is done, and name last what makes it count.
fn ends(actions: &[Map<String, Value>]) -> bool {
    let has = |kind: &str| actions.iter().any(|action| action.contains_key(kind));
    let operation = actions.first().and_then(|action| action.get("commitInfo")?.get("operation")?.as_str());
    match operation {
        Some("WRITE") => has("txn"),
        Some("OPTIMIZE" | "UPDATE") => has("add"),
        Some("CREATE TABLE") => has("metaData") && has("protocol"),
        Some("ADD COLUMN") => has("metaData"),
        _ => !actions.is_empty(),
    }
}

/// What is wrong with a data file that a commit adds.
fn damaged_data(folder: &Path, add: &Value) -> io::Result<Option<Torn>> {
    let name = add.get("path").and_then(Value::as_str).unwrap_or_default();
    let path = folder.join(name);
    let found = |why: String| Ok(Some(Torn { path: path.clone(), why }));
    if name.is_empty() || !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return found("it is not a file of this table".to_owned());
    }
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found("it is not there".to_owned()),
        opened => opened?,
    };
    let (size, expected) = (file.metadata()?.len(), add.get("size").and_then(Value::as_u64));
    if Some(size) != expected {
        return found(format!("it has {size} bytes instead of {}", expected.unwrap_or_default()));
    }
    match check::digest_in_name(&path) {
        Some(digest) => match check::sha256(file)?.starts_with(digest) {
            true => Ok(None),
            false => found("its content is not what its name says".to_owned()),
        },
        None if is_parquet(&path) => Ok(None),
        None => found("it does not end as a Parquet file does".to_owned()),
    }
}

#[cfg(test)]
mod tests;
