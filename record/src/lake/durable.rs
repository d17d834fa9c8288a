//! A local file system for the lake that has put a file on stable storage before it says so.
//!
//! `object_store`'s own never calls fsync: after a power cut a Delta commit could name data files that are empty, or be
//! empty itself. Here a file is written beside its place, synced, moved into place by one rename or link, and its folder
//! synced; so whatever a later commit refers to is there.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use engine::failpoint::Failpoint;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use pipeproof_engine as engine;

/// Ending of files that are not in their place yet. One that a crash left behind is never read.
pub(super) const STAGED: &str = "staged";

static STAGED_FILES: AtomicU64 = AtomicU64::new(0);

/// The local file system, rooted at `/`, with fsync.
#[derive(Debug)]
pub struct DurableFileSystem {
    inner: Arc<LocalFileSystem>,
}

impl Default for DurableFileSystem {
    fn default() -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()) }
    }
}

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DurableFileSystem")
    }
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let is_new = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("a conditional update")),
        };
        if !opts.attributes.is_empty() {
            return Err(unsupported("object attributes"));
        }
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || write_durably(&path, &payload, is_new).map_err(|error| failed(&path, error))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let name = location.filename().ok_or_else(|| unsupported("an upload to a folder"))?;
        let staged_name = staged_name(name);
        let folder: Vec<_> = location.parts().collect();
        let parents = folder.len().saturating_sub(1);
        let staged_at = folder.into_iter().take(parents).chain([staged_name.as_str().into()]).collect::<Path>();
        let staged = self.inner.path_to_filesystem(&staged_at)?;
        let inner = self.inner.put_multipart_opts(&staged_at, opts).await?;
        Ok(Box::new(DurableUpload { inner, staged, target }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    // Deleting needs no sync: a file that comes back after a power cut is one no table names.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let target = self.inner.path_to_filesystem(to)?;
        self.make_folder_of(to).await?;
        self.inner.copy_opts(from, to, options).await?;
        blocking(move || sync_file_and_folder(&target).map_err(|error| failed(&target, error))).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (source, target) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        self.make_folder_of(to).await?;
        // The content first: the new name must never be seen with less than all of it.
        let synced = source.clone();
        blocking(move || File::open(&synced).and_then(|file| file.sync_all()).map_err(|error| failed(&synced, error)))
            .await?;
        self.inner.rename_opts(from, to, options).await?;
        blocking(move || {
            sync_folder_of(&target).and_then(|()| sync_folder_of(&source)).map_err(|error| failed(&target, error))
        })
        .await
    }
}

impl DurableFileSystem {
    async fn make_folder_of(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || make_folder_of(&path).map_err(|error| failed(&path, error))).await
    }
}

/// An upload in parts: collected beside its place, synced and moved when complete.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    staged: PathBuf,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await?;
        let (staged, target) = (self.staged.clone(), self.target.clone());
        blocking(move || {
            let moved = File::open(&staged)
                .and_then(|file| file.sync_all())
                .and_then(|()| fs::rename(&staged, &target))
                .and_then(|()| sync_folder_of(&target));
            moved.map_err(|error| failed(&target, error))
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

/// Writes a file so that it is either there whole or not at all. `is_new`: fail if it is there already.
fn write_durably(path: &FilePath, payload: &PutPayload, is_new: bool) -> io::Result<()> {
    make_folder_of(path)?;
    let staged = stage(path, payload)?;
    Failpoint::LakeFileStaged.pass();
    let placed = if is_new {
        let linked = fs::hard_link(&staged, path);
        // Should this fail, a file is left that nothing reads.
        drop(fs::remove_file(&staged));
        linked
    } else {
        fs::rename(&staged, path).inspect_err(|_| drop(fs::remove_file(&staged)))
    };
    placed?;
    // A name that may not survive a power cut must not be relied upon: take it back, so that the write is repeated.
    sync_folder_of(path).inspect_err(|_| drop(fs::remove_file(path)))
}

fn stage(path: &FilePath, payload: &PutPayload) -> io::Result<PathBuf> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    loop {
        let staged = path.with_file_name(staged_name(&name));
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => file,
            // Left behind by an earlier process of the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        let written = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        return match written {
            Ok(()) => Ok(staged),
            Err(error) => {
                drop(fs::remove_file(&staged));
                Err(error)
            }
        };
    }
}

fn staged_name(name: &str) -> String {
    let number = STAGED_FILES.fetch_add(1, Ordering::Relaxed);
    format!(".{name}.{}-{number}.{STAGED}", std::process::id())
}

/// Creates the folders above a file, each synced into the one above it.
fn make_folder_of(path: &FilePath) -> io::Result<()> {
    path.parent().map_or(Ok(()), make_folder)
}

/// Folders that this process has seen synced into the ones above them.
static SYNCED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// As many as are remembered; one that is not is synced once more.
const SYNCED_MAX: usize = 10_000;

/// Creates a folder and those above it, each synced into the one above it. One that is there may have been made by a call that failed
/// behind it, or is under way: it is synced all the same, once.
pub(super) fn make_folder(folder: &FilePath) -> io::Result<()> {
    make_folder_with(folder, &mut sync_name)
}

/// Makes the name of a folder durable. Where it stands in one that we may not read, or that cannot be synced, a mount or an
/// administrator made it, unless we may write to that one without reading it.
fn sync_name(folder: &FilePath) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    match sync_folder_of(folder) {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem) => Ok(()),
        synced => synced,
    }
}

fn make_folder_with(folder: &FilePath, sync: &mut dyn FnMut(&FilePath) -> io::Result<()>) -> io::Result<()> {
    let synced = || SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = folder.as_os_str().is_empty() || folder.is_dir();
    if is_there && (folder.as_os_str().is_empty() || synced().contains(folder)) {
        return Ok(());
    }
    if !is_there {
        folder.parent().map_or(Ok(()), |parent| make_folder_with(parent, sync))?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    sync(folder)?;
    let mut synced = synced();
    if synced.len() >= SYNCED_MAX {
        synced.clear();
    }
    synced.insert(folder.to_owned());
    Ok(())
}

fn sync_file_and_folder(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_folder_of(path)
}

/// Makes the name of a file durable, or that it has none any more.
pub(super) fn sync_folder_of(path: &FilePath) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(path: &FilePath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        _ => Error::Generic { store: "DurableFileSystem", source: source.into() },
    }
}

fn unsupported(what: &str) -> Error {
    Error::NotSupported { source: format!("the lake's file system does not support {what}").into() }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn at(dir: &tempfile::TempDir, name: &str) -> Path {
        Path::from_absolute_path(dir.path().join(name)).unwrap()
    }

    #[test]
    fn a_folder_whose_name_could_not_be_synced_is_synced_the_next_time_and_then_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("2026-01-01/acme");
        let mut synced = Vec::new();
        for fails_at in [Some("2026-01-01"), Some("acme"), None, None] {
            let mut sync = |path: &FilePath| {
                if fails_at.is_some_and(|name| path.ends_with(name)) {
                    return Err(io::ErrorKind::Other.into());
                }
                synced.push(path.to_owned());
                Ok(())
            };
            assert_eq!(make_folder_with(&folder, &mut sync).is_err(), fails_at.is_some());
        }
        synced.retain(|path| path != dir.path());
        assert_eq!(synced, [folder.parent().unwrap(), &folder], "in this order");
        fs::remove_dir(&folder).unwrap();
        make_folder(&folder).unwrap();
        assert!(folder.is_dir(), "one that was removed is made again");
    }

    #[tokio::test]
    async fn a_put_creates_folders_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        store.put(&at(&dir, "a/b/c.txt"), "one".into()).await.unwrap();
        store.put(&at(&dir, "a/b/c.txt"), "two".into()).await.unwrap();
        let text = store.get(&at(&dir, "a/b/c.txt")).await.unwrap().bytes().await.unwrap();
        assert_eq!(text, "two");
        let files: Vec<_> = store.list(Some(&at(&dir, ""))).try_collect().await.unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[tokio::test]
    async fn create_refuses_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        let options = PutOptions::from(PutMode::Create);
        store.put_opts(&at(&dir, "x"), "one".into(), options.clone()).await.unwrap();
        let error = store.put_opts(&at(&dir, "x"), "two".into(), options).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_upload_appears_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        let target = at(&dir, "folder/big");
        let mut upload = store.put_multipart(&target).await.unwrap();
        upload.put_part("one ".into()).await.unwrap();
        upload.put_part("two".into()).await.unwrap();
        assert!(!dir.path().join("folder/big").exists());
        upload.complete().await.unwrap();
        assert_eq!(fs::read(dir.path().join("folder/big")).unwrap(), b"one two");
        assert_eq!(fs::read_dir(dir.path().join("folder")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn rename_and_copy_move_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        store.put(&at(&dir, "a"), "text".into()).await.unwrap();
        store.copy(&at(&dir, "a"), &at(&dir, "d/b")).await.unwrap();
        store.rename(&at(&dir, "a"), &at(&dir, "e/c")).await.unwrap();
        store.copy_if_not_exists(&at(&dir, "e/c"), &at(&dir, "d/b")).await.unwrap_err();
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs::read(dir.path().join("d/b")).unwrap(), b"text");
        assert_eq!(fs::read(dir.path().join("e/c")).unwrap(), b"text");
    }
}
