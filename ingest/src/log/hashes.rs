//! The side file of leaf hashes: `hash ‖ CRC32C of it`, 36 bytes per record, at the place its index says.
//!
//! It keeps the tree whole when a record is damaged, and outlives the segments. It is written after its records were
//! synced, so an entry proves that they had been: what is damaged then is corruption, and no torn tail.

use engine::merkle::Hash;
use pipeproof_engine as engine;

/// Name of the file.
pub(crate) const FILE: &str = "hashes";
/// Bytes per record.
pub(crate) const ENTRY_BYTES: usize = 36;

/// Where the entry of a record stands.
pub(crate) const fn offset(index: u64) -> u64 {
    index.saturating_mul(ENTRY_BYTES as u64)
}

/// Appends an entry.
pub(crate) fn write(out: &mut Vec<u8>, hash: &Hash) {
    out.extend_from_slice(hash);
    out.extend_from_slice(&crc32c::crc32c(hash).to_le_bytes());
}

/// The entries of the file; `None` for a damaged one. What is left of a cut entry at the end is not one.
pub(crate) fn read(bytes: &[u8]) -> Vec<Option<Hash>> {
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    entries
        .iter()
        .map(|entry| {
            let (hash, crc) = entry.split_first_chunk::<32>()?;
            (crc == crc32c::crc32c(hash).to_le_bytes()).then_some(*hash)
        })
        .collect()
}
