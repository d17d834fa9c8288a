//! A disk that keeps what it promised and nothing more. What was not synced is there, in part, or not at all after a power cut,
//! in any order; after a failed sync it may never reach the disk although it can still be read.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use pipeproof_ingest::log::disk::{Disk, DiskFile};
use rand::Rng as _;
use rand::rngs::StdRng;

/// Sectors are written whole; several of one write may be written in any order.
const SECTOR: usize = 64;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What is on the medium.
    medium: Vec<u8>,
    /// What was not synced yet, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Removed(String),
}

#[derive(Debug)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    medium_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    random: StdRng,
    /// Operations until the power goes.
    power: Option<u64>,
    /// Syncs that fail from now on.
    failing_syncs: u64,
    /// Bytes that still fit.
    room: Option<usize>,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

fn write_at(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

/// Brings a change to the medium: whole, not at all, or some of its sectors.
fn settle(medium: &mut Vec<u8>, change: &Change, random: &mut StdRng) {
    let fate = random.random_range(0..3);
    match change {
        _ if fate == 0 => {}
        Change::SetLen(len) => medium.resize(*len, 0),
        Change::Write(at, bytes) if fate == 1 => write_at(medium, *at, bytes),
        Change::Write(at, bytes) => {
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if random.random() {
                    // The last one may be cut anywhere.
                    let cut = random.random_range(0..=sector.len());
                    let len = if random.random_range(0..4) == 0 { cut } else { sector.len() };
                    write_at(medium, at + number * SECTOR, &sector[..len]);
                }
            }
        }
    }
}

impl SimulatedDisk {
    pub(crate) fn new(random: StdRng) -> Self {
        Self(Arc::new(Mutex::new(State {
            contents: Vec::new(),
            names: BTreeMap::new(),
            medium_names: BTreeMap::new(),
            pending_names: Vec::new(),
            random,
            power: None,
            failing_syncs: 0,
            room: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power goes after so many more operations.
    pub(crate) fn power_for(&self, operations: u64) {
        self.state().power = Some(operations);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().power == Some(0)
    }

    pub(crate) fn fail_syncs(&self, count: u64) {
        self.state().failing_syncs = count;
    }

    pub(crate) fn fill(&self, room: usize) {
        self.state().room = Some(room);
    }

    /// Every fault is over, but the power stays as it is.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        (state.failing_syncs, state.room) = (0, None);
    }

    /// The power goes, or has gone, and comes back.
    pub(crate) fn power_cut(&self) {
        let mut state = self.state();
        let State { contents, medium_names, pending_names, random, .. } = &mut *state;
        for content in contents.iter_mut() {
            for change in std::mem::take(&mut content.pending) {
                settle(&mut content.medium, &change, random);
            }
            content.cached = content.medium.clone();
        }
        for change in pending_names.drain(..) {
            if random.random() {
                apply(medium_names, change);
            }
        }
        state.names = state.medium_names.clone();
        (state.power, state.failing_syncs, state.room) = (None, 0, None);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Set(name, content) => drop(names.insert(name, content)),
        NameChange::Removed(name) => drop(names.remove(&name)),
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(io::Error::other("the power goes off")) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.operate()?;
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.operate()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.contents.len();
        state.contents.push(Content::default());
        state.names.insert(name.to_owned(), number);
        state.pending_names.push(NameChange::Set(name.to_owned(), number));
        Ok(Box::new(SimulatedFile { disk: self.clone(), number }))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Box<dyn DiskFile>> {
        let number = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), number }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.pending_names.push(NameChange::Removed(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.sync()?;
        state.pending_names.clear();
        state.medium_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl DiskFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[self.number].cached.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let start = usize::try_from(offset).unwrap();
        let bytes = state.contents[self.number].cached.get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.power == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        let fits = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        state.room = state.room.map(|room| room - fits);
        let at = usize::try_from(offset).unwrap();
        let content = &mut state.contents[self.number];
        write_at(&mut content.cached, at, &bytes[..fits]);
        content.pending.push(Change::Write(at, bytes[..fits].to_vec()));
        state.operate()?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        let len = usize::try_from(len).unwrap();
        let content = &mut state.contents[self.number];
        content.cached.resize(len, 0);
        content.pending.push(Change::SetLen(len));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let synced = state.sync();
        let State { contents, random, power, .. } = &mut *state;
        let content = &mut contents[self.number];
        match synced {
            Ok(()) => {
                content.pending.clear();
                content.medium = content.cached.clone();
            }
            Err(_) if *power == Some(0) => {}
            // What was not written is forgotten: another sync succeeds, and proves nothing.
            Err(_) => {
                for change in std::mem::take(&mut content.pending) {
                    settle(&mut content.medium, &change, random);
                }
            }
        }
        synced
    }
}
