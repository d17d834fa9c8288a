//! The log: append-only segments of records, group commit, and the Merkle tree over their leaves.
//!
//! - [`Log::append`] answers only after the records are on stable storage; records queued meanwhile share one sync.
//! - Readers, roots and proofs never pass the *durable mark*.
//! - After a failed write or sync the segment is abandoned and the log stops accepting; nothing is synced "again".
//!   [`Log::try_heal`] starts a fresh segment once the cause is gone.
//! - One directory holds one partition, and one writer thread owns it. Two processes must not open the same directory:
//!   the caller holds a lock.
//!
//! Bytes on disk: `log/frame.rs` and `log/hashes.rs`. Opening and its judgements: `log/scan.rs` and `log/recover.rs`.

pub mod disk;
mod erased;
mod frame;
mod hashes;
mod recover;
mod retired;
mod scan;
mod tree;
mod writer;

#[cfg(test)]
mod memory_disk;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use engine::merkle::{Hash, Nodes};
use engine::record::RECORD_BYTES_MAX;
use pipeproof_engine as engine;
use tokio::sync::{mpsc, oneshot, watch};

use self::disk::{Disk, Folder};
pub use self::recover::{OpenReport, Quarantine};
use self::recover::{Segment, Slot};
pub use self::tree::HashesChecked;
use self::tree::{BLOCK, BlockLeaves, Found, LogTree};
use self::writer::{Command, Writer};

/// What can be set about a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Log partition, written into each segment.
    pub partition: u32,
    /// A segment that has reached this many bytes is closed. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written; beyond, [`AppendError::Busy`].
    pub queue_bytes_max: usize,
    /// Records that may wait to be written; beyond, [`AppendError::Busy`].
    pub queue_records_max: usize,
    /// Bytes at which a group commit takes no more records.
    pub group_bytes_max: usize,
    /// How long a group waits for more records. Zero is best for most disks: what arrives during a sync forms the
    /// next group anyway.
    pub group_delay: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            partition: 0,
            segment_bytes: 64 << 20,
            queue_bytes_max: 128 << 20,
            queue_records_max: 200_000,
            group_bytes_max: 8 << 20,
            group_delay: Duration::ZERO,
        }
    }
}

/// Why a log cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed.
    #[error("cannot {what} {file}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file of the log.
        file: String,
        /// Its error.
        #[source]
        cause: std::io::Error,
    },
    /// Something stands at a position this log does not have: it is an older copy, or another log.
    #[error(
        "the log ends at record {end}, but position {known} was reached before: restore the newer log, or remove what was derived from it"
    )]
    Behind {
        /// The position.
        known: u64,
        /// Where the log ends.
        end: u64,
    },
    /// Records are not here as data, and their hashes are damaged: the tree cannot be built without knowing them from elsewhere.
    #[error(
        "record {} is not here and its leaf hash is damaged, which is so of {} records: restore the log from a copy",
        .records.first().copied().unwrap_or_default(), .records.len()
    )]
    HashLost {
        /// Their indices, ascending; of very many only the first ones.
        records: Vec<u64>,
    },
    /// A record was damaged after the log was opened.
    #[error("record {index} in {segment} is damaged: restart to quarantine it")]
    Damaged {
        /// Its index.
        index: u64,
        /// The file.
        segment: String,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the log's writer thread")]
    Thread(#[source] std::io::Error),
}

impl LogError {
    fn io(what: &'static str, file: &str, cause: std::io::Error) -> Self {
        Self::Io { what, file: file.to_owned(), cause }
    }
}

/// Why records were not appended. None of them is durable, and none was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full: try again later.
    #[error("the log's queue is full")]
    Busy,
    /// The log does not accept records at present, and why.
    #[error("the log does not accept records: {0}")]
    Stopped(Arc<str>),
    /// A leaf is larger than a record may be.
    #[error("a record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
}

/// Whether the log accepts records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    /// It does.
    Accepting,
    /// It does not since a write or sync failed, and why.
    Stopped(Arc<str>),
    /// It was closed.
    Closed,
}

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Its records.
    pub records: Range<u64>,
    /// Bytes up to the end of the last one.
    pub bytes: u64,
}

/// What was sealed of a log: its first so many records have this root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Number of records.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// What is known of a log before it is opened, from others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knowing<'k> {
    /// The highest position that anything derived from it depends on; 0 if nothing does.
    pub durable: u64,
    /// What was sealed of it last. That it still has this root is for the caller to see.
    pub sealed: Option<Sealed>,
    /// Leaf hashes, of records whose own bytes and hash may be lost. They are asked of no other.
    pub leaves: Option<&'k BTreeMap<u64, Hash>>,
}

/// An opened log and what opening found.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// What was found.
    pub report: OpenReport,
}

/// A handle to the log; clones share it. Dropping the last one writes what is queued and ends the writer.
#[derive(Clone, Debug)]
pub struct Log {
    commands: mpsc::Sender<Command>,
    durable: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

/// What readers see: only what is durable.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    queued_bytes: AtomicUsize,
    queued_records: AtomicUsize,
    published: RwLock<Published>,
    leaves: BlockLeaves,
}

#[derive(Debug)]
struct Published {
    tree: LogTree,
    segments: Vec<Segment>,
    /// Index of the first record that was not retired.
    retired: u64,
    /// Records without payload, with their leaf hashes.
    erased: BTreeMap<u64, Hash>,
    state: LogState,
}

impl Shared {
    fn published(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn dequeue(&self, records: usize, bytes: usize) {
        self.queued_records.fetch_sub(records, Ordering::AcqRel);
        self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Log {
    /// Records whose leaf hashes are checked at once.
    pub const HASHES_AT_ONCE: u64 = BLOCK;

    /// Opens the log in `dir`, creating it if it is new.
    ///
    /// # Errors
    /// [`LogError::Behind`] if the log ends before what is known to be durable; [`LogError::HashLost`] if damage cannot be fenced
    /// off; [`LogError::Io`].
    pub fn open(dir: &Path, knowing: Knowing<'_>, options: LogOptions) -> Result<Opened, LogError> {
        let folder = Folder::open(dir).map_err(|cause| LogError::io("open", &dir.display().to_string(), cause))?;
        Self::open_on(Arc::new(folder), knowing, options)
    }

    /// Opens the log on a [`Disk`]. See [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(disk: Arc<dyn Disk>, knowing: Knowing<'_>, options: LogOptions) -> Result<Opened, LogError> {
        let none = BTreeMap::new();
        let leaves = knowing.leaves.unwrap_or(&none);
        let recovered = recover::recover(&disk, knowing.durable, knowing.sealed, leaves)?;
        let next = recovered.tree.size();
        let (durable_sender, durable) = watch::channel(next);
        let shared = Arc::new(Shared {
            leaves: BlockLeaves::new(Arc::clone(&disk)),
            disk,
            options,
            queued_bytes: AtomicUsize::new(0),
            queued_records: AtomicUsize::new(0),
            published: RwLock::new(Published {
                tree: recovered.tree,
                segments: recovered.segments,
                retired: recovered.report.retired,
                erased: recovered.erased,
                state: LogState::Accepting,
            }),
        });
        // Each queued request holds at least one record, so the record limit is the tighter one in practice.
        let (commands, queue) = mpsc::channel(shared.options.queue_records_max.clamp(1, 1 << 16));
        let files = (recovered.active, recovered.hashes, recovered.blocks);
        let writer = Writer::new(Arc::clone(&shared), durable_sender, next, files);
        std::thread::Builder::new()
            .name(format!("log-{}", shared.options.partition))
            .spawn(move || writer.run(queue))
            .map_err(LogError::Thread)?;
        Ok(Opened { log: Self { commands, durable, shared }, report: recovered.report })
    }

    /// Appends records by their leaf bytes, in order and next to each other, and returns their indices once they are
    /// on stable storage. If the future is dropped, they may or may not be appended.
    ///
    /// # Errors
    /// [`AppendError`]: none of them was appended, as far as this log will ever tell.
    pub async fn append(&self, leaves: Vec<Bytes>) -> Result<Range<u64>, AppendError> {
        if let Some(large) = leaves.iter().find(|leaf| leaf.len() > RECORD_BYTES_MAX) {
            return Err(AppendError::TooLarge(large.len()));
        }
        if leaves.is_empty() {
            let next = *self.durable.borrow();
            return Ok(next..next);
        }
        if let LogState::Stopped(reason) = &self.shared.published().state {
            return Err(AppendError::Stopped(Arc::clone(reason)));
        }
        let (records, bytes) = (leaves.len(), leaves.iter().map(Bytes::len).sum());
        self.enqueue(records, bytes)?;
        let (done, answer) = oneshot::channel();
        match self.commands.try_send(Command::Append { leaves, bytes, done }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(closed())),
            Err(refused) => {
                self.shared.dequeue(records, bytes);
                Err(match refused {
                    mpsc::error::TrySendError::Full(_) => AppendError::Busy,
                    mpsc::error::TrySendError::Closed(_) => closed(),
                })
            }
        }
    }

    /// Counts a request into the queue. One that is larger than the queue may wait alone.
    fn enqueue(&self, records: usize, bytes: usize) -> Result<(), AppendError> {
        let shared = &self.shared;
        let before_records = shared.queued_records.fetch_add(records, Ordering::AcqRel);
        let before_bytes = shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let full = before_records.saturating_add(records) > shared.options.queue_records_max
            || before_bytes.saturating_add(bytes) > shared.options.queue_bytes_max;
        if full && before_records > 0 {
            shared.dequeue(records, bytes);
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    /// The durable mark: the number of records on stable storage, and its changes.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// Leaf bytes of the records from `from` on, with their indices: at most `records_max` and, beyond the first, at
    /// most `bytes_max` bytes. Quarantined records are left out, so indices may skip. Empty at the durable mark.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::Damaged`] if a record no longer is what was written.
    pub fn read(&self, from: u64, records_max: usize, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, LogError> {
        let mut out = Vec::new();
        let (mut next, mut bytes_left) = (from, bytes_max);
        while out.len() < records_max {
            let Some(stretch) = self.stretch(next, records_max - out.len(), bytes_left, out.is_empty()) else { break };
            bytes_left = bytes_left.saturating_sub(stretch.bytes);
            next = stretch.next;
            self.read_stretch(&stretch, &mut out)?;
        }
        Ok(out)
    }

    /// The next records to read, all of one segment. `None` when there are none, or no more that fit.
    fn stretch(&self, from: u64, records_max: usize, bytes_max: usize, at_least_one: bool) -> Option<Stretch> {
        let published = self.shared.published();
        let segments = &published.segments;
        let number = segments.partition_point(|segment| segment.after() <= from);
        let segment = segments.get(number)?;
        let from = from.max(segment.first);
        let mut stretch = Stretch { segment: segment.first, records: Vec::new(), bytes: 0, next: from };
        let skip = usize::try_from(from - segment.first).ok()?;
        for slot in segment.slots.get(skip..)? {
            if slot.is_readable() {
                let len = slot.len as usize;
                let first = at_least_one && stretch.records.is_empty();
                if stretch.records.len() >= records_max || (!first && stretch.bytes + len > bytes_max) {
                    return (!stretch.records.is_empty()).then_some(stretch);
                }
                stretch.bytes += len;
                stretch.records.push((stretch.next, *slot));
            }
            stretch.next += 1;
        }
        Some(stretch)
    }

    fn read_stretch(&self, stretch: &Stretch, out: &mut Vec<(u64, Bytes)>) -> Result<(), LogError> {
        let (Some((_, first)), Some((_, last))) = (stretch.records.first(), stretch.records.last()) else {
            return Ok(());
        };
        let name = frame::segment_name(stretch.segment);
        let failed = |cause| LogError::io("read", &name, cause);
        let start = u64::from(first.at);
        let end = u64::from(last.at) + frame::FRAME_BYTES as u64 + u64::from(last.len);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(|error| failed(std::io::Error::other(error)))?];
        self.shared.disk.open(&name, false).and_then(|file| file.read_at(start, &mut bytes)).map_err(failed)?;
        let bytes = Bytes::from(bytes);
        for (index, slot) in &stretch.records {
            let damaged = || LogError::Damaged { index: *index, segment: name.clone() };
            let at = (slot.at - first.at) as usize;
            let found = bytes.get(at..).and_then(frame::read).filter(|frame| frame.index == *index);
            out.push((*index, bytes.slice_ref(found.ok_or_else(damaged)?.leaf)));
        }
        Ok(())
    }

    /// Index of the last record before `end` that is here as data.
    #[must_use]
    pub fn last_before(&self, end: u64) -> Option<u64> {
        let published = self.shared.published();
        let readable = |segment: &Segment| {
            let slots = (segment.first..end).zip(&segment.slots);
            slots.filter(|(_, slot)| slot.is_readable()).map(|(index, _)| index).last()
        };
        published.segments.iter().rev().find_map(readable)
    }

    /// Index of the first record that was not retired. Of earlier ones only the hashes are here.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.shared.published().retired
    }

    /// The segments that are here, oldest first; the last one may be written to.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSpan> {
        let published = self.shared.published();
        published.segments.iter().map(|it| SegmentSpan { records: it.first..it.after(), bytes: it.end }).collect()
    }

    /// Removes closed segments all of whose records lie below `below`; hashes, roots and proofs stay. Returns the index of
    /// the first record kept. The caller vouches that everything below is stored elsewhere.
    ///
    /// # Errors
    /// [`LogError::Io`]; what was not removed is removed by the next call.
    pub async fn retire(&self, below: u64) -> Result<u64, LogError> {
        let (done, answer) = oneshot::channel();
        let closed = || LogError::io("retire", "segments", std::io::Error::other("the log was closed"));
        self.commands.send(Command::Retire { below, done }).await.map_err(|_| closed())?;
        let retired = answer.await.map_err(|_| closed())?;
        retired.map_err(|cause| LogError::io("retire", "segments", cause))
    }

    /// Drops the payload of records: it is overwritten in place, their hashes, roots and proofs stay, and reading leaves them out.
    /// Those that are not here as data any more, or were redacted before, are passed over. Returns how many were overwritten. After a
    /// crash in between, opening the log does the rest.
    ///
    /// # Errors
    /// [`LogError::Io`]; what was not overwritten is by the next call, or when the log is opened.
    pub async fn redact(&self, records: Vec<u64>) -> Result<u64, LogError> {
        let (done, answer) = oneshot::channel();
        let closed = || LogError::io("redact records of", "the log", std::io::Error::other("the log was closed"));
        self.commands.send(Command::Redact { records, done }).await.map_err(|_| closed())?;
        let redacted = answer.await.map_err(|_| closed())?;
        redacted.map_err(|cause| LogError::io("redact records of", "the log", cause))
    }

    /// Whether a record's payload was dropped.
    #[must_use]
    pub fn is_redacted(&self, index: u64) -> bool {
        self.shared.published().erased.contains_key(&index)
    }

    /// Leaves of the tree. Each comes before its record counts as durable.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.shared.published().tree.size()
    }

    /// Reads the leaf hashes of record `first` and the 1,023 after it again, which are to have been there when the log was opened, and
    /// mends what is damaged, if need be with what is `given` from elsewhere. What those are is seen by the tree.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn check_hashes(&self, first: u64, given: &BTreeMap<u64, Hash>) -> Result<HashesChecked, LogError> {
        let number = first / BLOCK;
        let (root, mut known) = {
            let published = self.shared.published();
            let Some(root) = published.tree.block(number) else { return Ok(HashesChecked::Whole) };
            // Of a redacted record the hash is kept twice.
            let erased = published.erased.range(number * BLOCK..(number + 1) * BLOCK);
            (root, erased.map(|(index, hash)| (*index, *hash)).collect::<BTreeMap<_, _>>())
        };
        known.extend(given.iter().map(|(index, hash)| (*index, *hash)));
        let checked = tree::check(self.shared.disk.as_ref(), number, root, &known);
        let checked = checked.map_err(|cause| LogError::io("check", hashes::FILE, cause))?;
        if !matches!(checked, HashesChecked::Lost(_)) {
            self.shared.leaves.forget_last();
        }
        Ok(checked)
    }

    /// Whether it accepts records.
    #[must_use]
    pub fn state(&self) -> LogState {
        self.shared.published().state.clone()
    }

    /// Records and bytes that wait to be written.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        let shared = &self.shared;
        (shared.queued_records.load(Ordering::Acquire), shared.queued_bytes.load(Ordering::Acquire))
    }

    /// After [`LogState::Stopped`]: starts a fresh segment at the durable mark and, if the disk takes it, accepts
    /// again. Does nothing while the log accepts.
    ///
    /// # Errors
    /// [`AppendError::Stopped`] with what still fails.
    pub async fn try_heal(&self) -> Result<(), AppendError> {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Heal(done)).await.is_err() {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes what is queued, then ends the writer. Later appends through other handles are refused.
    pub async fn close(self) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // An error means that the writer is gone already, which is what was asked for.
            drop(answer.await);
        }
    }
}

/// The tree over all records, up to the durable mark. Leaves of quarantined and of retired records stay.
impl Nodes for Log {
    fn size(&self) -> u64 {
        *self.durable.borrow()
    }

    fn node(&self, level: u32, at: u64) -> Option<Hash> {
        // The guard is gone before anything is read: a slow disk holds nobody up who writes.
        let found = self.shared.published().tree.find(level, at);
        match found {
            Found::Here(node) => node,
            Found::Below(below) => self.shared.leaves.node(&below),
        }
    }
}

/// Records next to each other in one segment.
struct Stretch {
    segment: u64,
    records: Vec<(u64, Slot)>,
    bytes: usize,
    next: u64,
}

fn closed() -> AppendError {
    AppendError::Stopped("it was closed".into())
}
