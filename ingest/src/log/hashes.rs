//! The side file of leaf hashes: `hash ‖ CRC32C of it`, 36 bytes per record, at the place its index says.
//!
//! It keeps the tree whole when a record is damaged, and outlives the segments. It is written after its records were
//! synced, so an entry proves that they had been: what is damaged then is corruption, and no torn tail.

use std::io;

use engine::merkle::Hash;
use pipeproof_engine as engine;

use super::disk::DiskFile;

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

/// Entries; `None` for a damaged one. What is left of a cut entry at the end is not one.
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

/// Entries of the file from one record on.
#[derive(Debug)]
pub(crate) struct Kept {
    first: u64,
    bytes: Vec<u8>,
    entries: Vec<Option<Hash>>,
}

impl Kept {
    /// Reads the entries of the records from `first` on and before `end`, as far as there are any.
    pub(crate) fn from_file(file: &dyn DiskFile, first: u64, end: u64) -> io::Result<Self> {
        let (start, end) = (offset(first), offset(end).min(file.size()?));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
        if !bytes.is_empty() {
            file.read_at(start, &mut bytes)?;
        }
        let entries = read(&bytes);
        Ok(Self { first, bytes, entries })
    }

    /// Index of the first record after the last entry, damaged or not.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Index of the first record after the last undamaged entry.
    pub(crate) fn proven(&self) -> u64 {
        self.entries.iter().rposition(Option::is_some).map_or(0, |last| self.first + last as u64 + 1)
    }

    /// The hash of a record, if its entry is undamaged.
    pub(crate) fn get(&self, index: u64) -> Option<Hash> {
        self.entries.get(self.place(index)?).copied().flatten()
    }

    /// The hash of a damaged entry of which one bit is wrong. The checksum tells any two entries apart that differ in a few bits, so
    /// there is one such hash at most; that it is the right one is seen by the tree's sealed root.
    pub(crate) fn mended(&self, index: u64) -> Option<Hash> {
        let (entries, _) = self.bytes.as_chunks::<ENTRY_BYTES>();
        let entry = entries.get(self.place(index)?)?;
        let (mut hash, crc) = entry.split_first_chunk::<32>().map(|(hash, crc)| (*hash, crc))?;
        let crc = u32::from_le_bytes(crc.try_into().ok()?);
        if (crc ^ crc32c::crc32c(&hash)).count_ones() <= 1 {
            return Some(hash);
        }
        for at in 0..hash.len() {
            for bit in 0..8 {
                *hash.get_mut(at)? ^= 1 << bit;
                if crc32c::crc32c(&hash) == crc {
                    return Some(hash);
                }
                *hash.get_mut(at)? ^= 1 << bit;
            }
        }
        None
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(first: u64, bytes: Vec<u8>) -> Kept {
        Kept { first, entries: read(&bytes), bytes }
    }

    #[test]
    fn any_one_wrong_bit_is_mended_and_two_are_not() {
        let hash: Hash = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let mut entries = vec![9; ENTRY_BYTES];
        write(&mut entries, &hash);
        for bit in 0..ENTRY_BYTES * 8 {
            let mut bent = entries.clone();
            bent[ENTRY_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(kept(7, bent.clone()).get(8), None);
            assert_eq!(kept(7, bent.clone()).mended(8), Some(hash), "bit {bit}");
            bent[ENTRY_BYTES + (bit / 8 + 5) % ENTRY_BYTES] ^= 16;
            assert_eq!(kept(7, bent).mended(8), None, "bit {bit} and another");
        }
        assert_eq!(kept(7, entries).mended(9), None, "there is no such entry");
    }
}
