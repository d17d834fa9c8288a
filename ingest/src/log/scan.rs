//! Reading one segment: which records stand in it, and where.
//!
//! Bodies are bytes that senders chose, and a checksum has no key: a body may hold what looks like a frame. So only these are taken
//! for records:
//!
//! - the frame that stands right behind the one before and has the next index;
//! - behind a record whose leaf is damaged, what stands where its header says that it ends;
//! - behind a damaged header, a frame whose leaf has the hash that was kept of its index, or, where that entry is damaged too, one
//!   that is followed by such a frame.

use std::collections::BTreeMap;
use std::ops::Range;

use engine::merkle::{Hash, leaf_hash};
use pipeproof_engine as engine;

use super::LogError;
use super::disk::Disk;
use super::erased::Place;
use super::frame::{self, Frame};
use super::hashes::Kept;
use super::recover::{Segment, Slot, read_all};

/// What was read of a segment.
pub(super) struct Scanned {
    pub(super) segment: Segment,
    pub(super) hashes: Vec<Option<Hash>>,
    /// Redacted records, by their frames.
    pub(super) erased: Vec<Place>,
    /// Largest group start of a valid frame.
    pub(super) group: u64,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Whether the header is undamaged.
    pub(super) headed: bool,
}

/// Segments that are read at once, at most.
const AT_ONCE: usize = 8;
/// Bytes of segments that are held at once, if more than one is.
const BYTES_AT_ONCE: u64 = 512 << 20;

/// Reads segments, each up to the index at which the next one takes over: as many at once as there are processors, and memory is to
/// hold.
pub(super) fn scan_all(
    disk: &dyn Disk,
    segments: &[Range<u64>],
    kept: &Kept,
    erased: &BTreeMap<u64, Hash>,
) -> Result<Vec<Scanned>, LogError> {
    let mut largest = 1;
    for records in segments {
        let name = frame::segment_name(records.start);
        let size = disk.open(&name, false).and_then(|file| file.size());
        largest = largest.max(size.map_err(|cause| LogError::io("open", &name, cause))?);
    }
    let fit = usize::try_from(BYTES_AT_ONCE / largest).unwrap_or(AT_ONCE);
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(fit).max(1);
    let mut scanned = Vec::with_capacity(segments.len());
    for some in segments.chunks(at_once) {
        let read: Vec<_> = std::thread::scope(|scope| {
            let reading: Vec<_> =
                some.iter().map(|records| scope.spawn(move || scan(disk, records.clone(), kept, erased))).collect();
            reading.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for segment in read {
            let ended = |_| LogError::io("read", "segments of the log", std::io::Error::other("a thread ended"));
            scanned.push(segment.map_err(ended)??);
        }
    }
    Ok(scanned)
}

/// Reads one segment.
fn scan(disk: &dyn Disk, records: Range<u64>, kept: &Kept, erased: &BTreeMap<u64, Hash>) -> Result<Scanned, LogError> {
    let first = records.start;
    let name = frame::segment_name(first);
    let file = disk.open(&name, false).map_err(|cause| LogError::io("open", &name, cause))?;
    let bytes = read_all(file.as_ref()).map_err(|cause| LogError::io("read", &name, cause))?;
    // A header that was never finished belongs to a segment that holds nothing.
    let headed = bytes.get(..frame::HEADER_BYTES).is_some_and(|header| is_header(header, first));
    let mut scanned = Scanned {
        segment: Segment { first, slots: Vec::new(), end: 0 },
        hashes: Vec::new(),
        erased: Vec::new(),
        group: first,
        len: bytes.len() as u64,
        headed,
    };
    let mut at = frame::HEADER_BYTES.min(bytes.len());
    scanned.segment.end = at as u64;
    let reading = Reading { bytes: &bytes, records, kept, erased };
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let expected = scanned.segment.after();
        // One that was being overwritten fails its checksum, and its header says as before how long it is.
        let redacted = frame::header_of(rest).filter(|(index, ..)| *index == expected && erased.contains_key(index));
        if let Some((index, group, len)) = redacted
            && let Some((start, len)) = u32::try_from(at).ok().zip(u32::try_from(len).ok())
        {
            scanned.segment.slots.push(Slot { at: start, len });
            scanned.hashes.push(None);
            // Its checksum need not hold, so neither need this.
            scanned.group = scanned.group.max(group.min(index));
            let place = Place { segment: first, at: start, len, index, group };
            if !is_overwritten(rest, len) {
                scanned.erased.push(place);
            }
            at += frame::FRAME_BYTES + len as usize;
            scanned.segment.end = at as u64;
            continue;
        }
        let Some(found) = reading.frame(at, expected) else {
            let Some((next, index)) = reading.behind(at, expected).or_else(|| reading.find(at, expected)) else {
                break;
            };
            for _ in expected..index {
                scanned.segment.slots.push(Slot::QUARANTINED);
                scanned.hashes.push(None);
            }
            at = next;
            continue;
        };
        let place = u32::try_from(at).ok().zip(u32::try_from(found.leaf.len()).ok());
        scanned.segment.slots.push(place.map_or(Slot::QUARANTINED, |(at, len)| Slot { at, len }));
        scanned.hashes.push(Some(leaf_hash(found.leaf)));
        scanned.group = scanned.group.max(found.group);
        at += found.bytes();
        scanned.segment.end = at as u64;
    }
    Ok(scanned)
}

/// The bytes of a segment, and what is known of the records in it.
struct Reading<'r> {
    bytes: &'r [u8],
    /// Indices that may stand in it.
    records: Range<u64>,
    kept: &'r Kept,
    erased: &'r BTreeMap<u64, Hash>,
}

impl<'r> Reading<'r> {
    /// The frame of record `index` at `at`.
    fn frame(&self, at: usize, index: u64) -> Option<Frame<'r>> {
        let frame = frame::read(self.bytes.get(at..)?)?;
        let is_group = (self.records.start..=index).contains(&frame.group);
        (frame.index == index && is_group && self.records.contains(&index)).then_some(frame)
    }

    /// Where the record behind a damaged one starts, if the header of that says so, and its index.
    fn behind(&self, at: usize, damaged: u64) -> Option<(usize, u64)> {
        let (index, group, len) = frame::header_of(self.bytes.get(at..)?)?;
        let next = at.checked_add(frame::FRAME_BYTES)?.checked_add(len)?;
        if index != damaged || !(self.records.start..=index).contains(&group) {
            return None;
        }
        let frame = self.frame(next, damaged.checked_add(1)?)?;
        // The length may be what is damaged. Of records that were not acknowledged there are no hashes.
        (self.is_unhashed(frame.index) || self.is_record(next, &frame)).then_some((next, frame.index))
    }

    /// Where behind `at` the next record from `expected` on starts that is no bytes of a sender's, and its index.
    fn find(&self, at: usize, expected: u64) -> Option<(usize, u64)> {
        let mut from = at;
        loop {
            from += frame::find(self.bytes.get(from..)?)?;
            if let Some(frame) = self.confirmed(from, expected) {
                return Some((from, frame.index));
            }
            from += 1;
        }
    }

    /// The frame at `at`, if it is that of a record from `expected` on for certain.
    fn confirmed(&self, at: usize, expected: u64) -> Option<Frame<'r>> {
        let (index, ..) = frame::header_of(self.bytes.get(at..)?)?;
        // Nothing is read that cannot be confirmed: a body may be full of such headers.
        if index < expected || self.is_unhashed(index) {
            return None;
        }
        self.frame(at, index).filter(|frame| self.is_record(at, frame))
    }

    /// Whether the side file of hashes ends before a record.
    fn is_unhashed(&self, index: u64) -> bool {
        index >= self.kept.end()
    }

    /// Whether the leaf is the one whose hash was kept; where that entry is damaged, whether the next frame's is.
    fn is_record(&self, at: usize, frame: &Frame<'_>) -> bool {
        self.agrees(frame).unwrap_or_else(|| {
            let next = at.checked_add(frame.bytes()).zip(frame.index.checked_add(1));
            let follower = next.and_then(|(at, index)| self.frame(at, index));
            follower.is_some_and(|follower| self.agrees(&follower) == Some(true))
        })
    }

    /// Whether the leaf is the one whose hash was kept; `None` if none was.
    fn agrees(&self, frame: &Frame<'_>) -> Option<bool> {
        // A redacted record has no leaf that its hash could be compared with.
        if self.erased.contains_key(&frame.index) && frame.leaf.iter().all(|byte| *byte == 0) {
            return Some(true);
        }
        let kept = self.kept.get(frame.index)?;
        Some(kept == leaf_hash(frame.leaf))
    }
}

/// Whether a redacted frame's leaf is zeros, and its checksum says so.
fn is_overwritten(bytes: &[u8], len: u32) -> bool {
    let leaf = frame::read(bytes).map(|frame| frame.leaf);
    leaf.is_some_and(|leaf| leaf.len() == len as usize && leaf.iter().all(|byte| *byte == 0))
}

/// Whether the header is that of the segment, whatever its partition.
fn is_header(header: &[u8], first: u64) -> bool {
    let partition = header.get(16..20).and_then(|bytes| bytes.first_chunk::<4>());
    partition.is_some_and(|bytes| frame::header(u32::from_le_bytes(*bytes), first) == header)
}
