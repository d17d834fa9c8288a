//! The bytes of a segment: a header, then one frame per record.
//!
//! ```text
//! header   "pipeproof log v1" ‖ u32 partition ‖ u64 first index ‖ u32 CRC32C of the 28 bytes before     32 bytes
//! frame    "PPr1" ‖ u32 length ‖ u64 index ‖ u64 group ‖ u32 CRC32C of length, index, group and leaf    28 bytes
//!          leaf bytes
//! ```
//!
//! All integers are little-endian. `group` is the index of the first record of the group commit the frame was written
//! with: a valid frame of a later group proves that everything before that group had been synced. The magic lets a
//! reader look for the next frame behind damage; what it finds may be bytes of a sender's (`log/scan.rs`).

use engine::record::RECORD_BYTES_MAX;
use pipeproof_engine as engine;

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes of a frame before its leaf.
pub(crate) const FRAME_BYTES: usize = 28;

const SEGMENT_MAGIC: &[u8; 16] = b"pipeproof log v1";
const FRAME_MAGIC: &[u8; 4] = b"PPr1";
const FILE_SUFFIX: &str = ".segment";

/// File name of the segment that starts at `first`: sorts as the index does.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:020}{FILE_SUFFIX}")
}

/// First index of a segment, from its file name; `None` for other files.
pub(crate) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(FILE_SUFFIX)?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// The header of a segment.
pub(crate) fn header(partition: u32, first: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let (fields, crc) = bytes.split_at_mut(HEADER_BYTES - 4);
    let parts = SEGMENT_MAGIC.iter().copied().chain(partition.to_le_bytes()).chain(first.to_le_bytes());
    fields.iter_mut().zip(parts).for_each(|(slot, byte)| *slot = byte);
    crc.copy_from_slice(&crc32c::crc32c(fields).to_le_bytes());
    bytes
}

/// A frame that was read and whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Index of the record.
    pub(crate) index: u64,
    /// Index of the first record of its group.
    pub(crate) group: u64,
    /// Leaf bytes.
    pub(crate) leaf: &'a [u8],
}

impl Frame<'_> {
    /// Bytes the frame takes.
    pub(crate) const fn bytes(&self) -> usize {
        FRAME_BYTES + self.leaf.len()
    }
}

/// Appends the frame of a record.
pub(crate) fn write(out: &mut Vec<u8>, index: u64, group: u64, leaf: &[u8]) {
    // Lengths are checked before: a leaf has at most 16 MiB.
    let len = u32::try_from(leaf.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(FRAME_MAGIC);
    let fields = out.len();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&group.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(out.get(fields..).unwrap_or_default()), leaf);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(leaf);
}

/// Reads the frame at the start of `bytes`; `None` if there is no whole and undamaged one.
pub(crate) fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let rest = bytes.strip_prefix(FRAME_MAGIC)?;
    let (fields, rest) = rest.split_at_checked(20)?;
    let (len, numbers) = fields.split_first_chunk::<4>()?;
    let (index, numbers) = numbers.split_first_chunk::<8>()?;
    let (group, _) = numbers.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= RECORD_BYTES_MAX)?;
    let leaf = rest.get(..len)?;
    if crc32c::crc32c_append(crc32c::crc32c(fields), leaf) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some(Frame { index: u64::from_le_bytes(*index), group: u64::from_le_bytes(*group), leaf })
}

/// What the header of the frame at the start of `bytes` says, whatever its checksum: index, group and bytes of the leaf. `None`
/// if it is none, or does not fit.
pub(crate) fn header_of(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let rest = bytes.strip_prefix(FRAME_MAGIC)?;
    let (len, numbers) = rest.split_first_chunk::<4>()?;
    let (index, numbers) = numbers.split_first_chunk::<8>()?;
    let (group, _) = numbers.split_first_chunk::<8>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= RECORD_BYTES_MAX)?;
    bytes.get(..FRAME_BYTES + len)?;
    Some((u64::from_le_bytes(*index), u64::from_le_bytes(*group), len))
}

/// Looks for the next bytes that a frame may start with.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_every_bit_counts() {
        let mut bytes = Vec::new();
        write(&mut bytes, 7, 5, b"leaf");
        assert_eq!(read(&bytes), Some(Frame { index: 7, group: 5, leaf: b"leaf" }));
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bent), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(segment_first(&segment_name(u64::MAX)), Some(u64::MAX));
        assert_eq!(segment_first("hashes"), None);
        assert_eq!(segment_first("1.segment"), None);
        assert_eq!(header(0, 1).len(), HEADER_BYTES);
    }
}
