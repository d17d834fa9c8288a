//! A copy of the data folder while it is used, and how it comes back.
//!
//! What is derived is copied before what it is derived from: the lake, then the store, then the seal tree that both name leaves of,
//! then the registry and how far files were read, then the log. So in the copy nothing stands ahead of seal and log, and a restore goes
//! on as after a crash at that moment. The manifest comes last; a folder without one is no backup.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::intake::FOLLOWED;
use crate::node::{NodeError, Shared};

/// Name of the manifest.
const MANIFEST: &str = "backup.json";
const STORE: &str = "store.db";

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of this form.
    version: u32,
    /// Of the program that made it.
    program: String,
    pub(crate) at: Timestamp,
    /// Records of the log that were durable when the copy began; the copy may hold more.
    pub(crate) records: u64,
    pub(crate) files: Vec<Entry>,
}

/// One file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    path: String,
    pub(crate) bytes: u64,
    sha256: String,
}

/// Why there is no backup, or none to restore.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("{0}")]
    Asked(String),
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("{} is damaged: {file} is not what the manifest says", backup.display())]
    Damaged { backup: PathBuf, file: String },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io { doing, path: path.to_owned(), source }
}

/// Writes a backup into `to`, a folder that does not exist yet or is empty.
pub(crate) async fn write(shared: &Arc<Shared>, to: &Path) -> Result<Manifest, BackupError> {
    if !to.is_absolute() {
        return Err(BackupError::Asked(format!("{} is not an absolute path", to.display())));
    }
    let _turn = shared.copying.lock().await;
    make_empty(to)?;
    let records = *shared.log.durable().borrow();
    let mut files = copy_in_background(shared, to, &["lake"]).await?;
    shared.store.copy_to(&to.join(STORE)).await.map_err(NodeError::part("copy the store"))?;
    let store = to.join(STORE);
    files.push(entry(to, &store).map_err(io_error("read", &store))?);
    let rest = &["seal", "registry.json", FOLLOWED, "rules", "enrichment", "packs", "keys", "log"];
    files.extend(copy_in_background(shared, to, rest).await?);
    let manifest =
        Manifest { version: 1, program: env!("CARGO_PKG_VERSION").to_owned(), at: shared.clock.now(), records, files };
    Failpoint::BackupBeforeManifest.pass();
    let path = to.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other).map_err(io_error("write", &path))?;
    fs::write(&path, text).and_then(|()| sync(&path)).map_err(io_error("write", &path))?;
    sync_folders(to)?;
    tracing::info!(to = %to.display(), files = manifest.files.len(), "wrote a backup");
    Ok(manifest)
}

async fn copy_in_background(
    shared: &Arc<Shared>,
    to: &Path,
    parts: &'static [&'static str],
) -> Result<Vec<Entry>, BackupError> {
    let (from, to) = (shared.data.clone(), to.to_owned());
    let copy = move || {
        let mut entries = Vec::new();
        for part in parts {
            // What names other files is listed and copied before those are listed: whatever it speaks of is copied too.
            for naming in [true, false] {
                for path in files(&from.join(part), naming).map_err(io_error("list", &from.join(part)))? {
                    let name = path.strip_prefix(&from).unwrap_or(&path);
                    entries.extend(copy_file(&path, &to, name)?);
                }
            }
        }
        Ok(entries)
    };
    tokio::task::spawn_blocking(copy).await.map_err(NodeError::part("copy files"))?
}

/// The files of a folder that name others (the lake's logs, the log's hashes), or the rest.
fn files(root: &Path, naming: bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if path.is_file() && path.extension().is_none_or(|ending| ending != "staged" && ending != "new") {
            found.push(path);
        }
    }
    found.retain(|path| {
        let is_log = path.components().any(|part| part.as_os_str() == "_delta_log");
        naming
            == (is_log
                || path.file_name().is_some_and(|name| {
                    name == "blocks"
                        || name == "hashes"
                        || name == "retired"
                        || name == "redacted"
                        || name == "_commits"
                }))
    });
    found.sort();
    Ok(found)
}

/// Copies and syncs one file. One that is gone meanwhile was staged, and is none.
fn copy_file(from: &Path, to: &Path, name: &Path) -> Result<Option<Entry>, BackupError> {
    let target = to.join(name);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    }
    match fs::copy(from, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        copied => copied.map_err(io_error("copy", from))?,
    };
    sync(&target).map_err(io_error("sync", &target))?;
    entry(to, &target).map(Some).map_err(io_error("read", &target))
}

fn entry(root: &Path, path: &Path) -> io::Result<Entry> {
    let (bytes, sha256) = digest(path)?;
    Ok(Entry { path: path.strip_prefix(root).unwrap_or(path).display().to_string(), bytes, sha256 })
}

fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn make_empty(folder: &Path) -> Result<(), BackupError> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut entries = fs::read_dir(folder).map_err(io_error("list", folder))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::Asked(format!("{} is not empty: nothing was written", folder.display()))),
    }
}

/// Checks a backup whole, then copies it into `data`, a folder that does not exist yet or is empty.
pub(crate) fn restore(backup: &Path, data: &Path) -> Result<Manifest, BackupError> {
    let path = backup.join(MANIFEST);
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(io::Error::other).map_err(io_error("read", &path))?;
    if manifest.version != 1 {
        return Err(BackupError::Asked(format!(
            "{} is of version {}; this program reads 1",
            path.display(),
            manifest.version
        )));
    }
    for expected in &manifest.files {
        let damaged = || BackupError::Damaged { backup: backup.to_owned(), file: expected.path.clone() };
        // A manifest that was tampered with must not reach outside.
        let name = Path::new(&expected.path);
        if !name.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(damaged());
        }
        match digest(&backup.join(name)) {
            Ok((bytes, sha256)) if (bytes, &sha256) == (expected.bytes, &expected.sha256) => {}
            _ => return Err(damaged()),
        }
    }
    make_empty(data)?;
    for file in &manifest.files {
        let name = Path::new(&file.path);
        if copy_file(&backup.join(name), data, name)?.as_ref() != Some(file) {
            return Err(BackupError::Damaged { backup: backup.to_owned(), file: file.path.clone() });
        }
    }
    sync_folders(data)?;
    Ok(manifest)
}

/// Makes the names in a folder and in all below it durable.
fn sync_folders(root: &Path) -> Result<(), BackupError> {
    for folder in folders(root).map_err(io_error("list", root))? {
        sync(&folder).map_err(io_error("sync", &folder))?;
    }
    Ok(())
}

fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while let Some(folder) = found.get(at).cloned() {
        at += 1;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
    }
    Ok(found)
}
