//! Damage inside SQLite's write-ahead log, told from the end that a crash left unfinished.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong and forgets the rest without a word. That is right for a
//! transaction that a crash cut short, and silently drops commits when the frame lies further up. Each commit is synced, so a whole
//! transaction behind a wrong frame proves that the frame had been on stable storage.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The two magic numbers differ in their last bit: set for checksums over big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// Page sizes of SQLite, bytes.
const PAGES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// A running checksum.
type Sum = (u32, u32);

/// The byte at which the log in `path` is damaged, if it is. A missing or empty one is whole, and so is one that only its last
/// transaction lacks something of.
pub(super) fn damage(path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    damage_of(BufReader::with_capacity(1 << 20, file))
}

fn damage_of(mut log: impl Read) -> io::Result<Option<u64>> {
    let mut header = [0; HEADER_BYTES];
    if !fills(&mut log, &mut header)? {
        return Ok(None);
    }
    let [magic, _, page_bytes, _, salt_1, salt_2, sum_1, sum_2] = words(&header);
    let big_endian = magic & 1 == 1;
    let page_bytes = usize::try_from(page_bytes).unwrap_or(0);
    let mut sum = add((0, 0), header.get(..24).unwrap_or(&[]), big_endian);
    if magic & !1 != MAGIC || !PAGES.contains(&page_bytes) || sum != (sum_1, sum_2) {
        // A header is written before its first frame.
        let mut rest = [0; FRAME_HEADER_BYTES];
        return Ok(fills(&mut log, &mut rest)?.then_some(0));
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut at = HEADER_BYTES as u64;
    let mut wrong: Option<Wrong> = None;
    while fills(&mut log, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        let [_, commits, frame_salt_1, frame_salt_2, sum_1, sum_2] = words(head);
        let is_of_this_log = (frame_salt_1, frame_salt_2) == (salt_1, salt_2);
        let stored = (sum_1, sum_2);
        let after = |sum| add(add(sum, head.get(..8).unwrap_or(&[]), big_endian), page, big_endian);
        let computed = after(sum);
        match &mut wrong {
            None if is_of_this_log && computed == stored => {}
            None => {
                // Checksums leave salts out: with the right one, only the salt is wrong.
                let is_committed = commits != 0 && (is_of_this_log || computed == stored);
                wrong = Some(Wrong { at, computed, is_committed });
            }
            Some(wrong) if is_of_this_log => {
                // What is wrong with a frame may be its checksum or what that is of.
                if wrong.is_committed && (computed == stored || after(wrong.computed) == stored) {
                    return Ok(Some(wrong.at));
                }
                wrong.is_committed |= commits != 0;
                wrong.computed = computed;
            }
            // Left from before the log was begun anew.
            Some(_) => {}
        }
        sum = stored;
        at += frame.len() as u64;
    }
    Ok(None)
}

/// The first frame that is not what was written.
struct Wrong {
    at: u64,
    /// What the checksum of the last frame should have been.
    computed: Sum,
    /// Whether a transaction ended since.
    is_committed: bool,
}

/// Whether there are as many bytes left.
fn fills(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The big-endian words that fields are.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

fn add(mut sum: Sum, bytes: &[u8], big_endian: bool) -> Sum {
    let word = |bytes| if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    for [a, b, c, d, e, f, g, h] in bytes.as_chunks::<8>().0 {
        sum.0 = sum.0.wrapping_add(word([*a, *b, *c, *d])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word([*e, *f, *g, *h])).wrapping_add(sum.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{batch, clock};
    use crate::store::{SqliteStore, StoreError};
    use engine::commit::Store as _;
    use pipeproof_engine as engine;

    /// A store and its log as a kill leaves them after so many commits, and where each of these ends in the log.
    async fn killed(dir: &Path, commits: u64) -> Vec<usize> {
        let live = tempfile::tempdir().unwrap();
        let path = live.path().join("store.db");
        SqliteStore::open(&path, clock()).await.unwrap().close().await;
        let store = SqliteStore::open(&path, clock()).await.unwrap();
        let mut ends = Vec::new();
        for number in 0..commits {
            store.commit(&batch(number, number + 1)).await.unwrap();
            ends.push(usize::try_from(std::fs::metadata(live.path().join("store.db-wal")).unwrap().len()).unwrap());
        }
        for name in ["store.db", "store.db-wal"] {
            std::fs::copy(live.path().join(name), dir.join(name)).unwrap();
        }
        ends
    }

    #[tokio::test]
    async fn a_flipped_bit_before_the_last_transaction_is_named_and_a_cut_anywhere_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ends = killed(dir.path(), 4).await;
        let whole = std::fs::read(dir.path().join("store.db-wal")).unwrap();
        assert_eq!(damage_of(whole.as_slice()).unwrap(), None);
        for length in (0..whole.len()).step_by(97) {
            assert_eq!(damage_of(&whole[..length]).unwrap(), None, "cut at {length}");
        }
        let frame = FRAME_HEADER_BYTES + 4_096;
        for at in (0..ends[2]).step_by(61).chain(0..HEADER_BYTES) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            let begin = if at < HEADER_BYTES { 0 } else { (at - HEADER_BYTES) / frame * frame + HEADER_BYTES };
            assert_eq!(damage_of(damaged.as_slice()).unwrap(), Some(begin as u64), "byte {at}");
        }
    }

    #[tokio::test]
    async fn a_store_whose_log_is_damaged_is_refused_and_opens_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let ends = killed(dir.path(), 3).await;
        let (path, log) = (dir.path().join("store.db"), dir.path().join("store.db-wal"));
        let mut bytes = std::fs::read(&log).unwrap();
        bytes[ends[0] - 100] ^= 4;
        std::fs::write(&log, bytes).unwrap();
        let error = SqliteStore::open(&path, clock()).await.unwrap_err();
        assert!(matches!(error, StoreError::DamagedLog { .. }), "{error}");
        assert!(error.to_string().contains("store.db-wal"), "{error}");
        std::fs::rename(&log, dir.path().join("aside")).unwrap();
        assert_eq!(SqliteStore::open(&path, clock()).await.unwrap().position(0).await.unwrap(), 0);
    }

    #[test]
    fn what_an_earlier_log_left_behind_is_no_damage() {
        // A log of another salt behind the end of this one, as after it was begun anew.
        let frame = |sum: Sum, salt: u32, commits: u32| {
            let mut head = [1_u32, commits].map(u32::to_be_bytes).concat();
            let page = vec![7; 512];
            let sum = add(add(sum, &head, false), &page, false);
            head.extend([salt, salt, sum.0, sum.1].map(u32::to_be_bytes).concat());
            ([head, page].concat(), sum)
        };
        let mut header = [MAGIC, 3_007_000, 512, 1, 9, 9].map(u32::to_be_bytes).concat();
        let sum = add((0, 0), &header, false);
        header.extend([sum.0, sum.1].map(u32::to_be_bytes).concat());
        let (first, sum) = frame(sum, 9, 1);
        let (old, old_sum) = frame((3, 3), 8, 1);
        let (older, _) = frame(old_sum, 8, 1);
        assert_eq!(damage_of([&header[..], &first, &old, &older].concat().as_slice()).unwrap(), None);
        let (unfinished, _) = frame(sum, 9, 0);
        assert_eq!(damage_of([&header[..], &first, &older, &unfinished].concat().as_slice()).unwrap(), None);
        let (second, sum) = frame(sum, 9, 1);
        let (third, _) = frame(sum, 9, 1);
        let mut damaged = [&header[..], &first, &second, &third].concat();
        assert_eq!(damage_of(damaged.as_slice()).unwrap(), None);
        damaged[HEADER_BYTES + first.len() + FRAME_HEADER_BYTES] ^= 1;
        assert_eq!(damage_of(damaged.as_slice()).unwrap(), Some((HEADER_BYTES + first.len()) as u64));
    }
}
