//! Files and folders of the configuration, followed through rotation. How far each was read is kept under
//! `DATA/followed/`, after its lines are durable: after a crash some are read again and recognised.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pipeproof_engine::record::Authenticity;
use pipeproof_ingest::follow::{Chunk, Follower, Marks};
use pipeproof_ingest::receive::Way;
use pipeproof_ingest::redact::Carried;
use sha2::{Digest, Sha256};

use super::reading::{Reader, pause};

/// Folder of the data folder that says how far files were read.
pub(crate) const FOLLOWED: &str = "followed";
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Follows a file or folder for a source until the node stops.
pub(super) async fn follow(reader: Reader, path: PathBuf) {
    let (shared, source) = (Arc::clone(&reader.shared), reader.source.as_str());
    let kept_at = marks_path(&shared.data, source, &path);
    let marks = match read_marks(&kept_at) {
        Ok(marks) => marks,
        Err(error) => {
            // From the beginning: what was read before is recognised.
            tracing::warn!(source, path = %path.display(), error = %error, "cannot read how far a file was read");
            Some(Marks::default())
        }
    };
    let mut follower = Follower::new(path.clone(), marks);
    let mut stopping = shared.stopping.subscribe();
    let mut trouble = false;
    // Private keys that were not written to their end yet, by file.
    let mut open_keys: BTreeMap<String, Carried> = BTreeMap::new();
    loop {
        let (back, read) = match tokio::task::spawn_blocking(move || read(follower)).await {
            Ok(read) => read,
            Err(error) => return tracing::error!(source, error = %error, "following a file ended"),
        };
        follower = back;
        match read {
            Ok(Some(chunk)) => {
                trouble = false;
                let carried = open_keys.remove(chunk.file()).unwrap_or_default();
                if !take(&reader, &chunk, &carried).await {
                    return;
                }
                let carried = carried.next();
                if carried.is_open() {
                    open_keys.insert(chunk.file().to_owned(), carried);
                }
                follower.done(&chunk);
                let (kept_at, marks) = (kept_at.clone(), follower.marks().clone());
                let written = tokio::task::spawn_blocking(move || write_marks(&kept_at, &marks)).await;
                if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    tracing::warn!(source, error = %error, "cannot keep how far a file was read");
                }
                continue;
            }
            Ok(None) => trouble = false,
            Err(error) => {
                if !std::mem::replace(&mut trouble, true) {
                    tracing::warn!(source, path = %path.display(), error = %error, "cannot follow a file");
                }
            }
        }
        if pause(&mut stopping, LOOK_EVERY).await {
            return;
        }
    }
}

fn read(mut follower: Follower) -> (Follower, io::Result<Option<Chunk>>) {
    let read = follower.read();
    (follower, read)
}

async fn take(reader: &Reader, chunk: &Chunk, carried: &Carried) -> bool {
    if chunk.lines.trim_ascii().is_empty() {
        return true;
    }
    let path = chunk.path.display();
    let way = Way {
        proven: Some((Authenticity::Unverified, None)),
        attributes: vec![("file.path", path.to_string())],
        keep: true,
        carried: carried.clone(),
        ..Way::default()
    };
    let place = format!("{path}, {} bytes from byte {} on", chunk.lines.len(), chunk.offset);
    reader.take(&HeaderMap::new(), &chunk.lines, &way, &place).await
}

fn marks_path(data: &Path, source: &str, path: &Path) -> PathBuf {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name = hex::encode(digest.get(..8).unwrap_or_default());
    data.join(FOLLOWED).join(format!("{source}-{name}.json"))
}

/// `None` if the file was never read.
fn read_marks(path: &Path) -> io::Result<Option<Marks>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_marks(path: &Path, marks: &Marks) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(marks)?)?;
    // A rename may reach the disk before what was written: an empty file would have everything read from the beginning.
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}
