//! The side file that says up to where records were retired: `u64 index ‖ CRC32C of it` for each time, little-endian; the
//! last undamaged entry counts. What is missing below it was removed on purpose, what is missing above it is a gap.

use std::io;

use super::disk::Disk;

/// Name of the file.
pub(crate) const FILE: &str = "retired";
const ENTRY_BYTES: usize = 12;

/// Notes that records below `first` are no longer kept as data. Durable when this returns.
pub(crate) fn mark(disk: &dyn Disk, first: u64) -> io::Result<()> {
    let mut file = match disk.open(FILE, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = disk.create(FILE)?;
            disk.sync_names()?;
            file
        }
        other => other?,
    };
    let mut entry = first.to_le_bytes().to_vec();
    entry.extend_from_slice(&crc32c::crc32c(&first.to_le_bytes()).to_le_bytes());
    // Over what is left of an entry that was never finished.
    let whole = file.size()? / ENTRY_BYTES as u64;
    file.write_at(whole * ENTRY_BYTES as u64, &entry)?;
    file.sync()
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
