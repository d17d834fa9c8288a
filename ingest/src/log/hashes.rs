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

/// The hash of a damaged entry of which one bit is wrong. The checksum tells any two entries apart that differ in a few bits, so there
/// is one such hash at most; that it is the right one is seen by the tree's sealed root.
pub(crate) fn mended(bytes: &[u8], index: u64) -> Option<Hash> {
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let (mut hash, crc) = entries.get(usize::try_from(index).ok()?)?.split_first_chunk::<32>().map(|(h, c)| (*h, c))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_wrong_bit_is_mended_and_two_are_not() {
        let hash: Hash = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let mut entries = vec![9; ENTRY_BYTES];
        write(&mut entries, &hash);
        for bit in 0..ENTRY_BYTES * 8 {
            let mut bent = entries.clone();
            bent[ENTRY_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bent)[1], None);
            assert_eq!(mended(&bent, 1), Some(hash), "bit {bit}");
            bent[ENTRY_BYTES + (bit / 8 + 5) % ENTRY_BYTES] ^= 16;
            assert_eq!(mended(&bent, 1), None, "bit {bit} and another");
        }
        assert_eq!(mended(&entries, 2), None, "there is no such entry");
    }
}
