//! The writer: the one thread that changes a log's files. It takes what is queued, writes it as one group, syncs, moves
//! the durable mark, and only then answers.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::failpoint::Failpoint;
use engine::merkle::{Hash, leaf_hash};
use pipeproof_engine as engine;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::DiskFile;
use super::erased::{self, Place};
use super::recover::{Segment, Slot};
use super::{AppendError, LogState, Shared, frame, hashes, retired};

/// Most a segment may hold: offsets are 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes a disk must take before a stopped log accepts again.
const HEAL_PROBE_BYTES: usize = 1 << 20;

/// How often the log tells that it stops for the same reason.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Append { leaves: Vec<Bytes>, bytes: usize, done: oneshot::Sender<Result<Range<u64>, AppendError>> },
    Heal(oneshot::Sender<Result<(), AppendError>>),
    Retire { below: u64, done: oneshot::Sender<io::Result<u64>> },
    Redact { records: Vec<u64>, done: oneshot::Sender<io::Result<u64>> },
    Close(oneshot::Sender<()>),
}

/// The segment being written.
#[derive(Debug)]
struct Active {
    file: Box<dyn DiskFile>,
    first: u64,
    /// Offset after the last durable record.
    end: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    durable: watch::Sender<u64>,
    next: u64,
    active: Option<Active>,
    hashes: Option<Box<dyn DiskFile>>,
    /// Roots of blocks: a copy, so a failure to write it stops nothing.
    blocks: Box<dyn DiskFile>,
    /// Hashes of the last group may be on disk, so its records must stay as well.
    hashes_unsure: bool,
    stopped: Option<Arc<str>>,
    /// Why it stopped last, and when that was told.
    told: Option<(Arc<str>, Instant)>,
    /// Redacted records that could not be overwritten.
    unfinished: Vec<Place>,
}

/// The open segment, if it goes on, the file of hashes and that of blocks.
type Files = (Option<Box<dyn DiskFile>>, Box<dyn DiskFile>, Box<dyn DiskFile>);

type Waiter = (Vec<Bytes>, usize, oneshot::Sender<Result<Range<u64>, AppendError>>);

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        durable: watch::Sender<u64>,
        next: u64,
        (active, hashes, blocks): Files,
    ) -> Self {
        let last = shared.published().segments.last().map(|segment| (segment.first, segment.end));
        let active = active.zip(last).map(|(file, (first, end))| Active { file, first, end });
        Self {
            shared,
            durable,
            next,
            active,
            hashes: Some(hashes),
            blocks,
            hashes_unsure: false,
            stopped: None,
            told: None,
            unfinished: Vec::new(),
        }
    }

    /// Runs until closed or until every handle is gone.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut pending = None;
        while let Some(command) = pending.take().or_else(|| queue.blocking_recv()) {
            match command {
                Command::Append { leaves, bytes, done } => {
                    let mut group = vec![(leaves, bytes, done)];
                    pending = self.gather(&mut group, bytes, &mut queue);
                    self.answer(group);
                }
                Command::Heal(done) => {
                    let outcome = self.heal().map_err(|error| {
                        let reason: Arc<str> = error.to_string().into();
                        self.stop(Arc::clone(&reason));
                        AppendError::Stopped(reason)
                    });
                    // Nobody waits any more: fine.
                    drop(done.send(outcome));
                }
                Command::Retire { below, done } => drop(done.send(self.retire(below))),
                Command::Redact { records, done } => drop(done.send(self.redact(&records))),
                Command::Close(done) => {
                    queue.close();
                    self.shared.publish().state = LogState::Closed;
                    self.drain(&mut queue);
                    drop((self.active.take(), self.hashes.take()));
                    // Nobody waits any more: fine.
                    done.send(()).unwrap_or_default();
                    return;
                }
            }
        }
        self.shared.publish().state = LogState::Closed;
    }

    /// Takes more queued records into a group; returns a command that is not one.
    fn gather(&self, group: &mut Vec<Waiter>, bytes: usize, queue: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let options = &self.shared.options;
        if !options.group_delay.is_zero() {
            std::thread::sleep(options.group_delay);
        }
        let mut total = bytes;
        while total < options.group_bytes_max {
            match queue.try_recv() {
                Ok(Command::Append { leaves, bytes, done }) => {
                    total += bytes;
                    group.push((leaves, bytes, done));
                }
                Ok(other) => return Some(other),
                Err(_) => return None,
            }
        }
        None
    }

    /// Writes what was queued before closing.
    fn drain(&mut self, queue: &mut mpsc::Receiver<Command>) {
        while let Ok(command) = queue.try_recv() {
            match command {
                Command::Append { leaves, bytes, done } => self.answer(vec![(leaves, bytes, done)]),
                Command::Heal(done) => drop(done.send(Err(super::closed()))),
                Command::Retire { done, .. } | Command::Redact { done, .. } => {
                    drop(done.send(Err(io::Error::other("the log was closed"))));
                }
                Command::Close(done) => done.send(()).unwrap_or_default(),
            }
        }
    }

    fn answer(&mut self, group: Vec<Waiter>) {
        let leaves: Vec<&Bytes> = group.iter().flat_map(|(leaves, _, _)| leaves).collect();
        let outcome = match &self.stopped {
            Some(reason) => Err(Arc::clone(reason)),
            None => self.commit(&leaves).map_err(|error| {
                let reason: Arc<str> = error.to_string().into();
                self.stop(Arc::clone(&reason));
                reason
            }),
        };
        let mut first = outcome.clone().unwrap_or_default();
        for (leaves, bytes, done) in group {
            let count = leaves.len();
            self.shared.dequeue(count, bytes);
            let range = first..first + count as u64;
            first = range.end;
            drop(done.send(outcome.clone().map(|_| range).map_err(AppendError::Stopped)));
        }
    }

    /// One group: write, sync, then let readers see it. Returns the index of its first record.
    fn commit(&mut self, leaves: &[&Bytes]) -> io::Result<u64> {
        let group = self.next;
        let limit = self.shared.options.segment_bytes.min(SEGMENT_BYTES_MAX);
        if self.active.as_ref().is_none_or(|active| active.end >= limit) {
            self.active = Some(self.start_segment()?);
        }
        let (Some(active), Some(hash_file)) = (self.active.as_mut(), self.hashes.as_mut()) else {
            return Err(io::Error::other("the log's files are not open"));
        };
        let size = leaves.iter().map(|leaf| leaf.len() + frame::FRAME_BYTES).sum();
        let mut bytes = Vec::with_capacity(size);
        let mut entries = Vec::with_capacity(leaves.len() * hashes::ENTRY_BYTES);
        let mut new: Vec<(Slot, Hash)> = Vec::with_capacity(leaves.len());
        for (index, leaf) in (group..).zip(leaves) {
            let at = active.end + bytes.len() as u64;
            let place = u32::try_from(at).ok().zip(u32::try_from(leaf.len()).ok());
            let (at, len) = place.ok_or_else(|| io::Error::other("the segment is too long"))?;
            frame::write(&mut bytes, index, group, leaf);
            let hash = leaf_hash(leaf);
            hashes::write(&mut entries, &hash);
            new.push((Slot { at, len }, hash));
        }
        // In this order: a hash on disk proves that its record was synced.
        Failpoint::LogBeforeWrite.pass();
        active.file.write_at(active.end, &bytes)?;
        Failpoint::LogAfterWrite.pass();
        active.file.sync()?;
        Failpoint::LogAfterSync.pass();
        self.hashes_unsure = true;
        hash_file.write_at(hashes::offset(group), &entries)?;
        Failpoint::LogAfterHashWrite.pass();
        hash_file.sync()?;
        self.hashes_unsure = false;
        Failpoint::LogAfterHashSync.pass();

        active.end += bytes.len() as u64;
        self.next += new.len() as u64;
        let mut published = self.shared.publish();
        if published.segments.last().is_none_or(|segment| segment.first != active.first) {
            published.segments.push(Segment { first: active.first, slots: Vec::new(), end: 0 });
        }
        let mut blocks = Vec::new();
        for (slot, hash) in new {
            blocks.extend(published.tree.push(hash));
            if let Some(segment) = published.segments.last_mut() {
                segment.slots.push(slot);
                segment.end = active.end;
            }
        }
        drop(published);
        self.durable.send_replace(self.next);
        self.keep_blocks(&blocks);
        Ok(group)
    }

    /// Keeps the roots of blocks. The next start computes what is missing.
    fn keep_blocks(&mut self, blocks: &[(u64, Hash)]) {
        for (number, root) in blocks {
            let mut entry = Vec::with_capacity(hashes::ENTRY_BYTES);
            hashes::write(&mut entry, root);
            if let Err(error) = self.blocks.write_at(hashes::offset(*number), &entry) {
                tracing::debug!(%error, "the root of a block is not kept");
            }
        }
    }

    /// A new segment that starts at the durable mark, its name durable.
    fn start_segment(&self) -> io::Result<Active> {
        let name = frame::segment_name(self.next);
        let disk = &self.shared.disk;
        let mut file = match disk.create(&name) {
            // Left by a failure: it starts where the log ends, so it holds nothing that is durable.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&name)?;
                disk.create(&name)?
            }
            other => other?,
        };
        file.write_at(0, &frame::header(self.shared.options.partition, self.next))?;
        file.sync()?;
        Failpoint::LogSegmentCreated.pass();
        disk.sync_names()?;
        Failpoint::LogSegmentNamed.pass();
        Ok(Active { file, first: self.next, end: frame::HEADER_BYTES as u64 })
    }

    /// Stops accepting. The segment is abandoned: what it holds beyond the durable mark is unknown.
    fn stop(&mut self, reason: Arc<str>) {
        let (partition, durable) = (self.shared.options.partition, self.next);
        // On a disk that is nearly full it comes and goes: once is enough.
        if self.told.as_ref().is_some_and(|(told, at)| *told == reason && at.elapsed() < TELL_AGAIN) {
            tracing::debug!(partition, durable, %reason, "the log stops accepting once more");
        } else {
            tracing::error!(partition, durable, %reason, "the log stops accepting");
            self.told = Some((Arc::clone(&reason), Instant::now()));
        }
        if let Some(mut active) = self.active.take()
            && !self.hashes_unsure
        {
            // Gives space back if it can; a reader stops at the next segment in any case.
            if let Err(error) = active.file.set_len(active.end) {
                tracing::warn!(%error, "cannot cut the abandoned segment");
            }
        }
        self.hashes = None;
        self.stopped = Some(Arc::clone(&reason));
        self.shared.publish().state = LogState::Stopped(reason);
    }

    /// Removes the segments all of whose records lie below `below`; the one being written stays. Returns the index of the
    /// first record that is kept.
    fn retire(&mut self, below: u64) -> io::Result<u64> {
        let disk = Arc::clone(&self.shared.disk);
        let (gone, first) = {
            let segments = &self.shared.published().segments;
            let closed = segments.len().saturating_sub(1);
            let gone: Vec<u64> =
                segments.iter().take(closed).take_while(|it| it.after() <= below).map(|it| it.first).collect();
            (gone.clone(), segments.get(gone.len()).map_or(self.next, |segment| segment.first))
        };
        if gone.is_empty() {
            return Ok(first);
        }
        // What opening reads instead of the hashes of these records.
        if let Err(error) = self.blocks.sync() {
            tracing::warn!(%error, "roots of blocks may not be on disk; a start computes what is missing");
        }
        // In this order: a segment that is gone without a mark would be taken for damage.
        retired::mark(disk.as_ref(), first)?;
        Failpoint::RetireAfterMark.pass();
        // Readers let go of them first.
        {
            let mut published = self.shared.publish();
            published.segments.drain(..gone.len());
            published.retired = first;
        }
        for segment in gone {
            disk.remove(&frame::segment_name(segment))?;
            Failpoint::RetireAfterRemove.pass();
        }
        disk.sync_names()?;
        Ok(first)
    }

    /// Overwrites the leaves of records. Returns how many were.
    fn redact(&mut self, records: &[u64]) -> io::Result<u64> {
        let disk = Arc::clone(&self.shared.disk);
        let mut places = Vec::new();
        {
            let published = self.shared.published();
            for index in records {
                let number = published.segments.partition_point(|segment| segment.after() <= *index);
                let Some(segment) = published.segments.get(number) else { continue };
                let Some(slot) = segment.place(*index) else { continue };
                places.push((segment.first, *index, slot));
            }
        }
        places.sort_unstable_by_key(|(_, index, ..)| *index);
        let mut marks: Vec<(u64, Hash)> = Vec::new();
        places.dedup_by_key(|(_, index, ..)| *index);
        let mut frames = std::mem::take(&mut self.unfinished);
        for (segment, index, slot) in &places {
            // The group stands in the frame alone, and the hash is that of the leaf there.
            let file = disk.open(&frame::segment_name(*segment), false)?;
            let mut header = vec![0; frame::FRAME_BYTES + slot.len as usize];
            file.read_at(u64::from(slot.at), &mut header)?;
            let damaged = || io::Error::other(format!("record {index} is damaged: restart to quarantine it"));
            let found = frame::read(&header).filter(|found| found.index == *index).ok_or_else(damaged)?;
            let group = found.group;
            marks.push((*index, leaf_hash(found.leaf)));
            frames.push(Place { segment: *segment, at: slot.at, len: slot.len, index: *index, group });
        }
        if frames.is_empty() {
            return Ok(0);
        }
        // In this order: an overwritten record without a mark would be taken for damage.
        erased::mark(disk.as_ref(), &marks)?;
        Failpoint::RedactAfterMark.pass();
        // Readers let go of them first.
        {
            let mut published = self.shared.publish();
            for (index, hash) in &marks {
                published.erased.insert(*index, *hash);
                let number = published.segments.partition_point(|segment| segment.after() <= *index);
                if let Some(segment) = published.segments.get_mut(number)
                    && let Some(slot) =
                        index.checked_sub(segment.first).and_then(|at| segment.slots.get_mut(usize::try_from(at).ok()?))
                {
                    *slot = Slot::QUARANTINED;
                }
            }
        }
        if let Err(error) = erased::overwrite(disk.as_ref(), &frames) {
            self.unfinished = frames;
            return Err(error);
        }
        Failpoint::RedactAfterErase.pass();
        Ok(marks.len() as u64)
    }

    fn heal(&mut self) -> io::Result<()> {
        if self.stopped.is_none() {
            return Ok(());
        }
        let disk = &self.shared.disk;
        // Hashes of records that were never acknowledged must not speak for those that take their place.
        let mut hash_file = disk.open(hashes::FILE, true)?;
        hash_file.set_len(hashes::offset(self.next))?;
        hash_file.sync()?;
        self.hashes = Some(hash_file);
        self.hashes_unsure = false;
        let mut active = self.start_segment()?;
        // A full disk often has room for a header and not for records: see that it takes some.
        active.file.write_at(active.end, &vec![0; HEAL_PROBE_BYTES])?;
        active.file.sync()?;
        active.file.set_len(active.end)?;
        active.file.sync()?;
        self.active = Some(active);
        self.stopped = None;
        self.shared.publish().state = LogState::Accepting;
        tracing::info!(partition = self.shared.options.partition, durable = self.next, "the log accepts again");
        Ok(())
    }
}
