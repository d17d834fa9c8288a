//! The side file that says up to where records were retired: `u64 index ‖ CRC32C of it` for each time, little-endian; the
//! last undamaged entry counts. What is missing below it was removed on purpose, what is missing above it is a gap.

use std::io;

use super::disk::{Disk, append_entries};

/// Name of the file.
pub(crate) const FILE: &str = "retired";
const ENTRY_BYTES: usize = 12;

/// Notes that records below `first` are no longer kept as data. Durable when this returns.
pub(crate) fn mark(disk: &dyn Disk, first: u64) -> io::Result<()> {
    let mut entry = first.to_le_bytes().to_vec();
    entry.extend_from_slice(&crc32c::crc32c(&first.to_le_bytes()).to_le_bytes());
    append_entries(disk, FILE, ENTRY_BYTES, &entry)
}

/// Index of the first record that was not retired; 0 if none was.
pub(crate) fn read(bytes: &[u8]) -> u64 {
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let valid = entries.iter().filter_map(|entry| {
        let (index, crc) = entry.split_first_chunk::<8>()?;
        (crc == crc32c::crc32c(index).to_le_bytes()).then(|| u64::from_le_bytes(*index))
    });
    valid.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    #[test]
    fn a_mark_is_there_after_a_power_cut_also_if_the_one_before_failed_at_any_sync() {
        for syncs in 0..2 {
            let disk = MemoryDisk::default();
            disk.set_syncs(Some(syncs));
            assert!(mark(&disk, 7).is_err(), "{syncs} syncs are too few");
            disk.set_syncs(None);
            mark(&disk, 9).unwrap();
            assert_eq!(read(&disk.crashed(0).bytes(FILE)), 9, "after {syncs} syncs");
        }
    }
}
