//! Asking many Bloom filters about one item.
//!
//! Filters are split block Bloom filters as Parquet specifies them (BloomFilter.md of parquet-format), written by its library. They are
//! asked here and not there because each of a hundred filters is asked about each new item: the hash is made once for all of them,
//! and nothing branches on what a block holds, so that the processor has fetched the blocks of the next filters by the time it
//! knows about this one. A block is one cache line that is in no cache; waiting for each in turn is what asking costs.

use twox_hash::XxHash64;

/// Words of a block, and bytes of a word.
const WORDS: usize = 8;
const WORD_BYTES: usize = 4;

/// What the specification multiplies by, for each word of a block.
const SALT: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Lies within one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Block([u32; WORDS]);

/// The bits of some items.
#[derive(Debug)]
pub(super) struct Filter(Vec<Block>);

/// What one item asks of every filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Chooses the block: the upper half of the hash.
    block: u64,
    /// Bits that are all set in it if the item is there, from the lower half.
    bits: Block,
}

impl Question {
    pub(super) fn about(item: &[u8]) -> Self {
        let hash = XxHash64::oneshot(0, item);
        let lower = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
        Self { block: hash >> u32::BITS, bits: Block(SALT.map(|salt| 1 << (lower.wrapping_mul(salt) >> 27))) }
    }
}

impl Filter {
    /// A filter from the bits that Parquet's library writes.
    pub(super) fn new(bits: &[u8]) -> Self {
        let block = |bytes: &[u8]| {
            let mut words = [0; WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD_BYTES>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            Block(words)
        };
        Self(bits.as_chunks::<{ WORDS * WORD_BYTES }>().0.iter().map(|bytes| block(bytes)).collect())
    }

    /// Whether the item may be among those of this filter. One without blocks knows nothing, and says so.
    pub(super) fn may_have(&self, question: &Question) -> bool {
        let index = (question.block * self.0.len() as u64) >> u32::BITS;
        let block = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        block.is_none_or(|block| {
            let missing =
                std::iter::zip(block.0, question.bits.0).fold(0, |missing, (has, wants)| missing | (wants & !has));
            missing == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use parquet::bloom_filter::Sbbf;

    use super::*;

    #[test]
    fn answers_are_those_of_the_library_that_writes_filters() {
        for (items, false_hits) in [(1_u64, 0.01), (300, 0.5), (5_000, 0.005)] {
            let mut theirs = Sbbf::new_with_ndv_fpp(items, false_hits).unwrap();
            for item in 0..items {
                theirs.insert(item.to_string().as_str());
            }
            let mut bits = Vec::new();
            theirs.write_bitset(&mut bits).unwrap();
            let ours = Filter::new(&bits);
            let asked = items * 20;
            let has = |item: u64| ours.may_have(&Question::about(item.to_string().as_bytes()));
            assert!((0..items).all(has));
            assert!((0..asked).all(|item| has(item) == theirs.check(item.to_string().as_str())));
            assert!((items..asked).any(|item| !has(item)));
        }
    }

    #[test]
    fn a_filter_without_bits_excludes_nothing() {
        assert!(Filter::new(&[]).may_have(&Question::about(b"any")));
    }
}
