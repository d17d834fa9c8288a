//! Opening a log: what is on disk is read, checked and judged.
//!
//! - Damage above everything known to be durable is a torn tail: it was never acknowledged, and is cut off.
//! - Damage below is quarantined: those records are lost as data, but stay leaves of the tree (by the side file of
//!   hashes) and become a reported gap.
//! - A log that ends before a position somebody depends on does not open.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use engine::merkle::{Hash, Nodes as _, Tree};
use pipeproof_engine as engine;

use super::disk::{Disk, DiskFile};
use super::erased::{self, Place};
use super::hashes::Kept;
use super::scan::{Scanned, scan_all};
use super::tree::{self, BLOCK, BlockLeaves, LogTree};
use super::{LogError, Sealed, frame, hashes, retired};

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records in the log, quarantined ones included: the next index.
    pub records: u64,
    /// Segment files.
    pub segments: usize,
    /// Records that were retired: their hashes are here, their bytes are not looked for.
    pub retired: u64,
    /// Records without payload because it was redacted: no gap.
    pub redacted: u64,
    /// Bytes of a torn tail that were cut off: written, but never acknowledged.
    pub torn_bytes: u64,
    /// Records that are lost as data, oldest first: evidence gaps.
    pub quarantined: Vec<Quarantine>,
    /// Leaf hashes that had to be computed again because the side file lacked them or was damaged.
    pub hashes_rewritten: u64,
    /// Those among them that stood in the side file and were damaged. Others a crash explains.
    pub hashes_damaged: u64,
    /// Segments whose header was damaged; their records were read by the file's name.
    pub bad_headers: Vec<String>,
    /// Kept roots of blocks of the tree that were not what they should be and are written again: the file is a copy, which a crash may
    /// leave so.
    pub blocks_rewritten: u64,
    /// Leaf hashes that were not read: those of the first so many records. That they are right a sealed root says, up to damage since;
    /// [`Log::check_hashes`](super::Log::check_hashes) reads them.
    pub hashes_unread: u64,
}

/// A range of records that are lost as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Indices.
    pub records: Range<u64>,
    /// File in which they stood.
    pub segment: String,
    /// Why they are quarantined.
    pub reason: &'static str,
}

/// Where a record stands in its segment. A quarantined record has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Offset of its frame.
    pub(crate) at: u32,
    /// Bytes of its leaf; `u32::MAX` when it is quarantined.
    pub(crate) len: u32,
}

impl Slot {
    pub(crate) const QUARANTINED: Self = Self { at: 0, len: u32::MAX };

    pub(crate) const fn is_readable(self) -> bool {
        self.len != u32::MAX
    }
}

/// A segment and where its records stand.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) slots: Vec<Slot>,
    /// Offset after the last record kept.
    pub(crate) end: u64,
}

impl Segment {
    /// Where the frame of a record stands, if it can be read.
    pub(crate) fn place(&self, index: u64) -> Option<Slot> {
        let slot = self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)?;
        slot.is_readable().then_some(*slot)
    }
}

impl Segment {
    pub(crate) fn after(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
}

/// What is left after judging.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) tree: LogTree,
    pub(crate) segments: Vec<Segment>,
    /// The segment to go on writing, if the last one ends cleanly.
    pub(crate) active: Option<Box<dyn DiskFile>>,
    pub(crate) hashes: Box<dyn DiskFile>,
    pub(crate) blocks: Box<dyn DiskFile>,
    pub(crate) report: OpenReport,
    /// Records that are redacted.
    pub(crate) erased: BTreeMap<u64, Hash>,
}

/// The leaves that are read, one after the other.
struct Leaves {
    first: u64,
    hashes: Vec<Hash>,
}

impl Leaves {
    /// Leaves of the tree so far.
    fn size(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    fn push(&mut self, hash: Hash) {
        self.hashes.push(hash);
    }

    fn from(&self, index: u64) -> impl Iterator<Item = (u64, Hash)> {
        let skip = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (self.first..).zip(self.hashes.iter().copied()).skip(skip)
    }
}

/// Reads, checks and judges what is on disk. Hashes of retired records are left unread where the kept roots of their blocks give the
/// sealed root.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    known_durable: u64,
    sealed: Option<Sealed>,
    leaves: &BTreeMap<u64, Hash>,
) -> Result<Recovered, LogError> {
    let Some(sealed) = sealed else { return recover_behind(disk.as_ref(), Tree::new(), known_durable, leaves) };
    let blocks = unread(disk.as_ref(), sealed.size)?;
    if blocks.size() == 0 {
        return recover_behind(disk.as_ref(), blocks, known_durable, leaves);
    }
    let recovered = recover_behind(disk.as_ref(), blocks, known_durable, leaves)?;
    let kept = BlockLeaves::new(Arc::clone(disk));
    if tree::Opened(&recovered.tree, &kept).root(sealed.size) == Some(sealed.root) {
        return Ok(recovered);
    }
    // Either these roots are damaged or the log is not the one that was sealed, which the caller sees.
    tracing::warn!("kept roots of the log do not give the one that was sealed: all leaf hashes are read");
    let before = recovered.report;
    let mut recovered = recover_behind(disk.as_ref(), Tree::new(), known_durable, leaves)?;
    recovered.report.torn_bytes += before.torn_bytes;
    recovered.report.hashes_rewritten += before.hashes_rewritten;
    recovered.report.hashes_damaged += before.hashes_damaged;
    recovered.report.blocks_rewritten += before.blocks_rewritten;
    Ok(recovered)
}

/// The kept roots of blocks whose leaf hashes need not be read: of records that are not here as data, and that were sealed.
fn unread(disk: &dyn Disk, sealed: u64) -> Result<Tree, LogError> {
    let first = segments(disk)?.first().copied().unwrap_or(u64::MAX);
    let retired = retired::read(&read_side_file(disk, retired::FILE)?);
    let hashes = match disk.open(hashes::FILE, false).and_then(|file| file.size()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        size => size.map_err(|cause| LogError::io("read", hashes::FILE, cause))?,
    };
    let below = sealed.min(first).min(retired).min(hashes / hashes::ENTRY_BYTES as u64);
    Ok(tree::kept_blocks(&read_side_file(disk, tree::FILE)?, below / BLOCK))
}

/// First indices of the segments, ascending.
fn segments(disk: &dyn Disk) -> Result<Vec<u64>, LogError> {
    let names = disk.list().map_err(|cause| LogError::io("list the files of the log", "", cause))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| frame::segment_first(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads, checks and judges what is on disk behind these blocks.
fn recover_behind(
    disk: &dyn Disk,
    blocks: Tree,
    known_durable: u64,
    leaves: &BTreeMap<u64, Hash>,
) -> Result<Recovered, LogError> {
    let from = blocks.size() * BLOCK;
    let mut report = OpenReport { hashes_unread: from, ..OpenReport::default() };
    let firsts = segments(disk)?;
    report.retired = retired::read(&read_side_file(disk, retired::FILE)?);
    let erased = erased::read(&read_side_file(disk, erased::FILE)?);
    let mut hash_file = open_or_create(disk, hashes::FILE)?;
    let kept = Kept::from_file(hash_file.as_ref(), from, u64::MAX);
    let kept = kept.map_err(|cause| LogError::io("read", hashes::FILE, cause))?;
    let mut known = Known { kept: &kept, erased: &erased, leaves, lost: Vec::new() };
    let limits = firsts.iter().skip(1).copied().chain([u64::MAX]);
    let ranges: Vec<Range<u64>> = firsts.iter().zip(limits).map(|(first, limit)| *first..limit).collect();
    let scanned = scan_all(disk, &ranges, &kept, &erased)?;
    report.segments = scanned.len();
    let headless = scanned.iter().filter(|scan| !scan.headed && !scan.segment.slots.is_empty());
    report.bad_headers = headless.map(|scan| frame::segment_name(scan.segment.first)).collect();
    // What a crash left unfinished is finished before anybody reads.
    let places: Vec<Place> = scanned.iter().flat_map(|scan| scan.erased.iter().copied()).collect();
    erased::overwrite(disk, &places).map_err(|cause| LogError::io("overwrite a redacted record of", "", cause))?;

    // A segment starts only where the log was durable, a group is written only after the one before was synced, and a
    // hash only after its record was.
    let groups = scanned.iter().map(|scan| scan.group.max(scan.segment.first));
    let proven = groups.fold(known_durable.max(kept.proven()).max(report.retired), u64::max);
    let mut read = Leaves { first: from, hashes: Vec::new() };
    let mut judged = Vec::new();
    for (number, scan) in scanned.into_iter().enumerate() {
        if read.size() < scan.segment.first {
            let missing = read.size()..scan.segment.first;
            let name = frame::segment_name(read.size());
            restore_leaves(&mut read, missing.clone(), &mut known);
            quarantine(&mut report, missing.start, missing.end, &name, "the segment is missing");
        }
        let limit = firsts.get(number + 1).copied().unwrap_or(u64::MAX);
        judged.push(judge(scan, limit, proven, &mut known, &mut read, &mut report));
    }
    if read.size() < proven {
        let missing = read.size()..proven;
        if kept.end() < known_durable {
            return Err(LogError::Behind { known: known_durable, end: read.size() });
        }
        let name = judged.last().map_or_else(|| frame::segment_name(0), |last| frame::segment_name(last.segment.first));
        restore_leaves(&mut read, missing.clone(), &mut known);
        if let Some(last) = judged.last_mut() {
            last.segment.slots.extend(missing.clone().map(|_| Slot::QUARANTINED));
            last.clean_end = false;
        } else {
            let slots = missing.clone().map(|_| Slot::QUARANTINED).collect();
            judged.push(Judged { segment: Segment { first: missing.start, slots, end: 0 }, len: 0, clean_end: false });
        }
        quarantine(&mut report, missing.start, missing.end, &name, "the end of the log is missing");
    }
    if !known.lost.is_empty() {
        return Err(LogError::HashLost { records: known.lost });
    }
    report.records = read.size();
    let last_first = judged.last().map_or(0, |last| last.segment.first);
    // In this order, as in a commit: a hash on disk proves that its record was synced.
    let active = reopen_last(disk, judged.last(), proven, &mut report)?;
    (report.hashes_rewritten, report.hashes_damaged) = write_hashes(hash_file.as_mut(), &read, &kept, last_first)?;
    let mut block_file = open_or_create(disk, tree::FILE)?;
    let (tree, rewritten) = grow(LogTree::new(blocks), &read, block_file.as_mut())?;
    report.blocks_rewritten = rewritten;
    disk.sync_names().map_err(|cause| LogError::io("sync the folder of the log", "", cause))?;
    let segments = judged.into_iter().map(|judged| judged.segment).collect();
    report.redacted = erased.range(report.retired..).count() as u64;
    Ok(Recovered { tree, segments, active, hashes: hash_file, blocks: block_file, report, erased })
}

/// The tree with these leaves behind its blocks, whose side file then says the roots of all blocks; and how many entries of it said
/// something else.
fn grow(mut tree: LogTree, leaves: &Leaves, file: &mut dyn DiskFile) -> Result<(LogTree, u64), LogError> {
    let failed = |cause| LogError::io("write", tree::FILE, cause);
    let first = leaves.first / BLOCK;
    let before = Kept::from_file(file, first, u64::MAX).map_err(failed)?;
    let mut wrong = before.end() - first;
    let mut entries = Vec::new();
    for hash in &leaves.hashes {
        if let Some((number, root)) = tree.push(*hash) {
            wrong -= u64::from(before.get(number) == Some(root));
            hashes::write(&mut entries, &root);
        }
    }
    file.set_len(hashes::offset(first)).map_err(failed)?;
    file.write_at(hashes::offset(first), &entries).map_err(failed)?;
    file.sync().map_err(failed)?;
    Ok((tree, wrong))
}

fn open_or_create(disk: &dyn Disk, name: &str) -> Result<Box<dyn DiskFile>, LogError> {
    match disk.open(name, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            disk.create(name).map_err(|cause| LogError::io("create", name, cause))
        }
        opened => opened.map_err(|cause| LogError::io("open", name, cause)),
    }
}

/// The bytes of a side file; none if there is none.
fn read_side_file(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, LogError> {
    let bytes = match disk.open(name, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.and_then(|file| read_all(file.as_ref())),
    };
    bytes.map_err(|cause| LogError::io("read", name, cause))
}

pub(super) fn read_all(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(file.size()?).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

struct Judged {
    segment: Segment,
    len: u64,
    /// Whether more records can be written right behind the last one.
    clean_end: bool,
}

fn judge(
    scanned: Scanned,
    limit: u64,
    proven: u64,
    known: &mut Known<'_>,
    read: &mut Leaves,
    report: &mut OpenReport,
) -> Judged {
    let Scanned { mut segment, hashes, len, headed, .. } = scanned;
    let name = frame::segment_name(segment.first);
    let mut slots = Vec::with_capacity(segment.slots.len());
    let mut end = segment.slots.first().map_or(segment.end, |_| frame::HEADER_BYTES as u64);
    for (slot, computed) in segment.slots.iter().zip(hashes) {
        let index = read.size();
        let stored = known.kept.get(index);
        let durable = index < proven;
        if let Some(hash) = known.erased.get(&index) {
            read.push(stored.unwrap_or(*hash));
            slots.push(Slot::QUARANTINED);
            if slot.is_readable() {
                end = u64::from(slot.at) + frame::FRAME_BYTES as u64 + u64::from(slot.len);
            }
            continue;
        }
        let reason = match computed {
            None if !durable => break,
            None => Some("the record is damaged"),
            // Both checksums hold and yet they differ: one was written by somebody else.
            Some(hash) if durable && stored.is_some_and(|stored| stored != hash) => {
                Some("the record is not the one whose hash was kept")
            }
            Some(_) => None,
        };
        let trusted = if reason.is_some() { known.leaf(index) } else { computed };
        read.push(trusted.unwrap_or_default());
        if let Some(reason) = reason {
            quarantine(report, index, index + 1, &name, reason);
            slots.push(Slot::QUARANTINED);
        } else {
            slots.push(*slot);
        }
        if slot.is_readable() {
            end = u64::from(slot.at) + frame::FRAME_BYTES as u64 + u64::from(slot.len);
        }
    }
    segment.slots = slots;
    segment.end = end;
    if limit != u64::MAX && segment.after() < limit {
        // The next segment takes over later than this one ends: what is between is lost.
        let missing = segment.after()..limit;
        restore_leaves(read, missing.clone(), known);
        segment.slots.extend(missing.clone().map(|_| Slot::QUARANTINED));
        quarantine(report, missing.start, missing.end, &name, "the end of the segment is damaged or missing");
    }
    let clean_end = headed || !segment.slots.is_empty();
    Judged { segment, len, clean_end }
}

/// Records without a hash that are named at once: whoever has more asks again.
const LOST_NAMED_MAX: usize = 1 << 20;

/// What is known of leaf hashes apart from the records themselves.
struct Known<'k> {
    /// Entries of the side file.
    kept: &'k Kept,
    /// Of a redacted record the hash is all there is: it is kept twice.
    erased: &'k BTreeMap<u64, Hash>,
    /// What the caller knows from elsewhere.
    leaves: &'k BTreeMap<u64, Hash>,
    /// Records of which nobody knows the hash.
    lost: Vec<u64>,
}

impl Known<'_> {
    /// The hash of a record that cannot be read, from whoever has it. None is noted.
    fn leaf(&mut self, index: u64) -> Option<Hash> {
        let known = self.kept.get(index).or_else(|| self.erased.get(&index).copied());
        let known = known.or_else(|| self.leaves.get(&index).copied()).or_else(|| self.kept.mended(index));
        if known.is_none() && self.lost.len() < LOST_NAMED_MAX {
            self.lost.push(index);
        }
        known
    }
}

/// Puts leaves there whose records are lost.
fn restore_leaves(read: &mut Leaves, records: Range<u64>, known: &mut Known<'_>) {
    for index in records {
        read.push(known.leaf(index).unwrap_or_default());
    }
}

fn quarantine(report: &mut OpenReport, start: u64, end: u64, segment: &str, reason: &'static str) {
    // What was retired is not missing.
    let start = start.max(report.retired);
    if start >= end {
        return;
    }
    let last = report.quarantined.last_mut();
    if let Some(last) =
        last.filter(|last| last.records.end == start && last.segment == segment && last.reason == reason)
    {
        last.records.end = end;
        return;
    }
    report.quarantined.push(Quarantine { records: start..end, segment: segment.to_owned(), reason });
}

/// Makes the side file say what was read, and returns how many entries were wrong or missing, and how many of them were there.
/// Those from `unsure` on are written again in any case: a sync before may have failed, and then what reads well need not be on the
/// disk.
fn write_hashes(file: &mut dyn DiskFile, leaves: &Leaves, kept: &Kept, unsure: u64) -> Result<(u64, u64), LogError> {
    let failed = |cause| LogError::io("write", hashes::FILE, cause);
    let (mut rewritten, mut damaged) = (0, 0);
    let mut entry = Vec::with_capacity(hashes::ENTRY_BYTES);
    for (index, hash) in leaves.from(leaves.first) {
        if kept.get(index) != Some(hash) {
            entry.clear();
            hashes::write(&mut entry, &hash);
            file.write_at(hashes::offset(index), &entry).map_err(failed)?;
            rewritten += 1;
            damaged += u64::from(index < kept.end());
        }
    }
    let unsure = unsure.max(leaves.first);
    let mut entries = Vec::new();
    leaves.from(unsure).for_each(|(_, hash)| hashes::write(&mut entries, &hash));
    file.write_at(hashes::offset(unsure), &entries).map_err(failed)?;
    let len = hashes::offset(leaves.size());
    if file.size().map_err(failed)? != len {
        file.set_len(len).map_err(failed)?;
    }
    file.sync().map_err(failed)?;
    Ok((rewritten, damaged))
}

/// Cuts the torn tail off the last segment, writes again what nothing proves, and syncs it. What was read may never have been
/// synced; and where a sync failed, what reads well need not be on the disk, and another sync would not bring it there.
fn reopen_last(
    disk: &dyn Disk,
    last: Option<&Judged>,
    proven: u64,
    report: &mut OpenReport,
) -> Result<Option<Box<dyn DiskFile>>, LogError> {
    let Some(last) = last.filter(|last| last.clean_end) else { return Ok(None) };
    let name = frame::segment_name(last.segment.first);
    let mut file = disk.open(&name, true).map_err(|cause| LogError::io("open", &name, cause))?;
    if last.len > last.segment.end {
        report.torn_bytes = last.len - last.segment.end;
        file.set_len(last.segment.end).map_err(|cause| LogError::io("cut", &name, cause))?;
    }
    let skip = usize::try_from(proven.saturating_sub(last.segment.first)).unwrap_or(usize::MAX);
    let unsure = if skip == 0 { Some(0) } else { last.segment.slots.get(skip).map(|slot| u64::from(slot.at)) };
    if let Some(from) = unsure {
        let rewritten = usize::try_from(last.segment.end - from).map_err(std::io::Error::other).and_then(|len| {
            let mut bytes = vec![0; len];
            file.read_at(from, &mut bytes)?;
            file.write_at(from, &bytes)
        });
        rewritten.map_err(|cause| LogError::io("write again", &name, cause))?;
    }
    file.sync().map_err(|cause| LogError::io("sync", &name, cause))?;
    Ok(Some(file))
}
