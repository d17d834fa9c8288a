//! A folder in memory that fails on demand and forgets at a crash what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

#[derive(Debug, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// By name; what is only in here is not durable by name.
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    synced_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Bytes that still fit; writes beyond are cut short and fail.
    room: Option<usize>,
    /// Syncs that still succeed.
    syncs: Option<usize>,
}

/// The folder; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Sets how many bytes still fit.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    /// Sets how many syncs still succeed.
    pub(crate) fn set_syncs(&self, syncs: Option<usize>) {
        self.state().syncs = syncs;
    }

    /// The power fails: of each file there is left what was synced and `torn` bytes of what was not.
    pub(crate) fn crashed(&self, torn: usize) -> Self {
        let state = self.state();
        let files: BTreeMap<_, _> = state
            .synced_names
            .iter()
            .map(|(name, content)| {
                let content = content.lock().unwrap();
                let mut bytes = content.synced.clone();
                let more = content.written.get(bytes.len()..).unwrap_or_default();
                bytes.extend_from_slice(&more[..torn.min(more.len())]);
                (name.clone(), Arc::new(Mutex::new(Content { written: bytes.clone(), synced: bytes })))
            })
            .collect();
        Self(Arc::new(Mutex::new(State { files: files.clone(), synced_names: files, room: None, syncs: None })))
    }

    /// A copy in which one file is changed.
    pub(crate) fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let copy = self.crashed(usize::MAX);
        {
            let state = copy.state();
            let mut content = state.files[name].lock().unwrap();
            change(&mut content.written);
            content.synced = content.written.clone();
        }
        copy
    }

    /// A copy without one file.
    pub(crate) fn without(&self, name: &str) -> Self {
        let copy = self.crashed(usize::MAX);
        copy.remove(name).unwrap();
        copy.sync_names().unwrap();
        copy
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files[name].lock().unwrap().written.clone()
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    content: Arc<Mutex<Content>>,
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.files.insert(name.to_owned(), Arc::clone(&content));
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Box<dyn DiskFile>> {
        let content = self.state().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        use_sync(&mut state)?;
        state.synced_names = state.files.clone();
        Ok(())
    }
}

fn use_sync(state: &mut State) -> io::Result<()> {
    match &mut state.syncs {
        Some(0) => Err(io::Error::other("injected: input/output error")),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().written.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = content.written.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let fits = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        state.room = state.room.map(|room| room - fits);
        let mut content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let len = content.written.len().max(start + fits);
        content.written.resize(len, 0);
        content.written[start..start + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.content.lock().unwrap().written.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut content = self.content.lock().unwrap();
        use_sync(&mut state)?;
        content.synced = content.written.clone();
        Ok(())
    }
}
