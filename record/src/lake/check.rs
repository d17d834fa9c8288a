//! Whether the lake's files still are what was written: each data file carries the start of its digest in its name, and
//! the digests of a table's commits stand in a file beside its log.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::durable::{STAGED, sync_folder_of};
use super::tip::{LOG, checkpoint_name, commit_name};
use super::{LakeError, Snapshot, Table};
use crate::store::{SqliteStore, StoredFinding};

/// Findings that are compared at once.
const FINDINGS: usize = 1_000;
/// Findings that are named at most.
const DIFFERING: usize = 100;

/// File beside a table's log: a line `NAME SHA256` for each file of the log.
const COMMITS: &str = "_commits";

/// Adds the digests of those files of a table's log that have none, as after a crash between a commit and its line.
pub(super) fn note_commits(folder: &Path) -> io::Result<()> {
    let noted = noted_commits(folder)?;
    let mut lines = String::new();
    for entry in fs::read_dir(folder.join(LOG))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_commit(&name) && !noted.contains_key(&name) {
            lines.push_str(&commit_line(folder, &name)?);
        }
    }
    append(folder, &lines)
}

/// Adds the digest of one commit, and of the checkpoint behind it if there is one.
pub(super) fn note_commit(folder: &Path, version: u64) -> io::Result<()> {
    let mut lines = commit_line(folder, &commit_name(version))?;
    let checkpoint = checkpoint_name(version);
    if folder.join(LOG).join(&checkpoint).exists() {
        lines.push_str(&commit_line(folder, &checkpoint)?);
    }
    append(folder, &lines)
}

/// Forgets the digests of other files than these.
pub(super) fn keep_noted(folder: &Path, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut noted = noted_commits(folder)?;
    let before = noted.len();
    noted.retain(|name, _| is_kept(name));
    if noted.len() == before {
        return Ok(());
    }
    let path = folder.join(COMMITS);
    let staged = folder.join(format!(".{COMMITS}.{STAGED}"));
    let lines: String = noted.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    let mut file = File::create(&staged)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, &path)?;
    sync_folder_of(&path)
}

fn is_commit(name: &str) -> bool {
    let Some((version, ending)) = name.split_at_checked(20) else { return false };
    version.bytes().all(|byte| byte.is_ascii_digit()) && matches!(ending, ".json" | ".checkpoint.parquet")
}

fn commit_line(folder: &Path, name: &str) -> io::Result<String> {
    let bytes = fs::read(folder.join(LOG).join(name))?;
    Ok(format!("{name} {}\n", hex::encode(Sha256::digest(&bytes))))
}

fn append(folder: &Path, lines: &str) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    File::options().create(true).append(true).open(folder.join(COMMITS))?.write_all(lines.as_bytes())
}

/// The digests of a table's commits and checkpoints, by the names of their files.
pub(super) fn noted_commits(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let text = match fs::read(folder.join(COMMITS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => String::from_utf8_lossy(&read?).into_owned(),
    };
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    // A line that was cut by a crash, or filled with zeros, is no line.
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let whole = lines.filter(|(name, digest)| is_commit(name) && is_digest(digest));
    Ok(whole.map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect())
}

pub(super) fn damaged_commits(folder: &Path) -> Vec<Damage> {
    let noted = match noted_commits(folder) {
        Ok(noted) => noted,
        Err(error) => return vec![Damage { path: folder.join(COMMITS), why: error.to_string() }],
    };
    let damaged = noted.iter().filter_map(|(name, digest)| {
        let path = folder.join(LOG).join(name);
        let why = match fs::read(&path) {
            // It may have been forgotten since the digests were read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let still = noted_commits(folder).is_ok_and(|noted| noted.contains_key(name));
                still.then(|| error.to_string())?
            }
            Err(error) => error.to_string(),
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == *digest => return None,
            Ok(_) => "it is not the commit that was written".to_owned(),
        };
        Some(Damage { path, why })
    });
    damaged.collect()
}

/// The start of a data file's digest, as its name says it.
pub(super) fn digest_in_name(path: &Path) -> Option<&str> {
    let named = path.file_stem()?.to_str()?.rsplit('-').next()?;
    (named.len() == 12 && named.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(named)
}

/// Whether a data file's content is what its name says. Reads all of it.
pub(super) fn is_as_named(path: &Path) -> io::Result<bool> {
    let digest = sha256(File::open(path)?)?;
    Ok(digest_in_name(path).is_some_and(|named| digest.starts_with(named)))
}

/// SHA-256 of a file, hexadecimal.
pub(super) fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// A file of the lake that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Snapshot {
    /// How many findings the lake has, and the ids of those that the store does not tell alike, a hundred at most. What the store has
    /// beyond them is not looked at: the lake follows it.
    ///
    /// # Errors
    /// [`LakeError`] for what cannot be read on either side.
    pub async fn differing_findings(&self, store: &SqliteStore) -> Result<(u64, Vec<String>), LakeError> {
        let (mut count, mut differing) = (0, Vec::new());
        let (mut after, mut stored) = (0, VecDeque::new());
        for finding in self.findings()? {
            let finding = finding?;
            count += 1;
            if stored.is_empty() {
                stored.extend(store.findings_after(after, FINDINGS).await?);
            }
            let other = stored.pop_front();
            after = other.as_ref().map_or(after, |other: &StoredFinding| other.seq);
            if other.is_none_or(|other| other.finding != finding) && differing.len() < DIFFERING {
                differing.push(finding.id);
            }
        }
        Ok((count, differing))
    }

    /// Reads every commit and every data file and compares them with their digests. Blocks, and returns what is damaged or
    /// missing.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<Damage> {
        let mut damaged: Vec<_> = self.tables.values().flat_map(|pinned| damaged_commits(&pinned.folder)).collect();
        for path in Table::ALL.iter().flat_map(|table| self.files(*table)) {
            let why = match is_as_named(path) {
                Err(error) => Some(error.to_string()),
                Ok(is_named) => (!is_named).then(|| "its content is not what its name says".to_owned()),
            };
            damaged.extend(why.map(|why| Damage { path: path.clone(), why }));
        }
        damaged
    }
}
