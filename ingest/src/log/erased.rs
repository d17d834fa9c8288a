//! Records whose payload was dropped from the log: which, and their leaf hashes.
//!
//! The side file says `u64 index ‖ leaf hash ‖ CRC32C of both` for each, little-endian, 44 bytes. An entry is durable before a byte of
//! the record is overwritten, so a record that no longer is what was written is told from a damaged one. The frame keeps its place
//! and length: its leaf is zeros.

use std::collections::BTreeMap;
use std::io;

use engine::merkle::Hash;
use pipeproof_engine as engine;

use super::disk::{Disk, DiskFile, append_entries};
use super::frame;

/// Name of the file.
pub(crate) const FILE: &str = "redacted";
const ENTRY_BYTES: usize = 44;

/// A frame in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// First index of the segment.
    pub(crate) segment: u64,
    /// Offset of the frame.
    pub(crate) at: u32,
    /// Bytes of its leaf.
    pub(crate) len: u32,
    /// Index of the record.
    pub(crate) index: u64,
    /// Index of the first record of its group.
    pub(crate) group: u64,
}

/// Notes that these records are to have no payload. Durable when this returns.
pub(crate) fn mark(disk: &dyn Disk, records: &[(u64, Hash)]) -> io::Result<()> {
    let mut entries = Vec::with_capacity(records.len() * ENTRY_BYTES);
    for (index, hash) in records {
        let start = entries.len();
        entries.extend_from_slice(&index.to_le_bytes());
        entries.extend_from_slice(hash);
        let crc = crc32c::crc32c(entries.get(start..).unwrap_or_default());
        entries.extend_from_slice(&crc.to_le_bytes());
    }
    append_entries(disk, FILE, ENTRY_BYTES, &entries)
}

/// The records of the file with their leaf hashes. A damaged entry is none: its record is then taken for a damaged one.
pub(crate) fn read(bytes: &[u8]) -> BTreeMap<u64, Hash> {
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (fields, crc) = entry.split_last_chunk::<4>()?;
        let (index, hash) = fields.split_first_chunk::<8>()?;
        let hash: Hash = hash.try_into().ok()?;
        (*crc == crc32c::crc32c(fields).to_le_bytes()).then(|| (u64::from_le_bytes(*index), hash))
    };
    entries.iter().filter_map(entry).collect()
}

/// Overwrites the leaves of frames with zeros, in place. Durable when this returns.
pub(crate) fn overwrite(disk: &dyn Disk, places: &[Place]) -> io::Result<()> {
    for of_segment in places.chunk_by(|one, next| one.segment == next.segment) {
        let Some(first) = of_segment.first() else { continue };
        let mut file = disk.open(&frame::segment_name(first.segment), true)?;
        for place in of_segment {
            write(file.as_mut(), place)?;
        }
        file.sync()?;
    }
    Ok(())
}

fn write(file: &mut dyn DiskFile, place: &Place) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(frame::FRAME_BYTES + place.len as usize);
    frame::write(&mut bytes, place.index, place.group, &vec![0; place.len as usize]);
    file.write_at(u64::from(place.at), &bytes)
}

#[cfg(test)]
mod tests {
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    #[test]
    fn entries_read_back_and_a_damaged_or_cut_one_is_none() {
        let disk = MemoryDisk::default();
        mark(&disk, &[(3, [1; 32]), (9, [2; 32])]).unwrap();
        mark(&disk, &[(5, [3; 32])]).unwrap();
        let bytes = disk.bytes(FILE);
        assert_eq!(read(&bytes), BTreeMap::from([(3, [1; 32]), (5, [3; 32]), (9, [2; 32])]));
        let mut bent = bytes.clone();
        bent[50] ^= 1;
        assert_eq!(read(&bent).len(), 2);
        assert_eq!(read(&bytes[..bytes.len() - 1]).len(), 2);
    }

    #[test]
    fn a_mark_is_there_after_a_power_cut_also_if_the_one_before_failed_at_any_sync() {
        for syncs in 0..2 {
            let disk = MemoryDisk::default();
            disk.set_syncs(Some(syncs));
            assert!(mark(&disk, &[(3, [1; 32])]).is_err(), "{syncs} syncs are too few");
            disk.set_syncs(None);
            mark(&disk, &[(3, [1; 32])]).unwrap();
            assert_eq!(read(&disk.crashed(0).bytes(FILE)), BTreeMap::from([(3, [1; 32])]), "after {syncs} syncs");
        }
    }
}
