//! Opening behind a sealed root, which leaves leaf hashes of retired records unread. In these tests a block has four leaves.

use engine::merkle::leaf_hash;

use super::super::tree;
use super::*;

/// A log of 43 records of which the first 30 or so are retired, what was sealed of it, and how many are.
fn retired() -> (MemoryDisk, Sealed, u64) {
    let disk = written(&[10, 10, 10, 10, 3]);
    let (sealed, first) = runtime().block_on(async {
        let log = open(&disk, 43).log;
        let sealed = Sealed { size: 41, root: log.root(41).unwrap() };
        let first = log.retire(35).await.unwrap();
        log.close().await;
        (sealed, first)
    });
    assert_eq!(sealed.root, root_of(&leaves(0..41)));
    assert!((20..=35).contains(&first), "{first}");
    (disk, sealed, first)
}

fn open_sealed(disk: &MemoryDisk, sealed: Sealed) -> Opened {
    let knowing = Knowing { sealed: Some(sealed), ..knowing(43) };
    Log::open_on(Arc::new(disk.clone()), knowing, small()).unwrap()
}

/// Every root and proof is that of the tree over all leaves.
fn is_whole(log: &Log, leaves: &[Bytes]) {
    let mut tree = Tree::new();
    tree.extend(leaves.iter().map(|leaf| leaf_hash(leaf)));
    let end = tree.size();
    assert_eq!(log.size(), end);
    for size in 0..=end {
        assert_eq!(log.root(size), tree.root(size), "{size}");
        assert_eq!(log.consistency_proof(size, end), tree.consistency_proof(size, end), "{size}");
        for index in 0..size {
            assert_eq!(log.inclusion_proof(index, size), tree.inclusion_proof(index, size), "{index} of {size}");
        }
    }
    assert_eq!(log.root(end + 1), None);
    assert_eq!(log.leaf(end), None);
}

#[test]
fn hashes_of_retired_records_are_left_unread_and_everything_is_proved() {
    let (disk, sealed, first) = retired();
    let Opened { log, report } = open_sealed(&disk, sealed);
    assert_eq!(report.hashes_unread, first / 4 * 4);
    assert_eq!((report.records, report.hashes_rewritten, report.blocks_rewritten), (43, 0, 0));
    is_whole(&log, &leaves(0..43));
    runtime().block_on(async {
        assert_eq!(log.append(leaves(43..52)).await.unwrap(), 43..52);
        is_whole(&log, &leaves(0..52));
        log.close().await;
    });
    let Opened { log, report } = open_sealed(&disk, sealed);
    assert_eq!((report.hashes_unread, report.blocks_rewritten), (first / 4 * 4, 0));
    is_whole(&log, &leaves(0..52));
}

#[test]
fn what_the_file_of_blocks_lacks_or_has_wrong_is_computed() {
    let (disk, sealed, first) = retired();
    let whole = first / 4 * 4;
    let length = disk.bytes(tree::FILE).len();
    for bit in 0..length * 8 {
        let bent = disk.with(tree::FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let Opened { log, report } = open_sealed(&bent, sealed);
        assert!(report.hashes_unread <= whole && report.blocks_rewritten == 1, "bit {bit}: {report:?}");
        assert_eq!(log.root(41), Some(sealed.root), "bit {bit}");
        runtime().block_on(log.close());
        let Opened { log, report } = open_sealed(&bent, sealed);
        assert_eq!((report.hashes_unread, report.blocks_rewritten), (whole, 0), "bit {bit} is right again");
        runtime().block_on(log.close());
    }
    for cut in 0..length {
        let Opened { log, report } = open_sealed(&disk.with(tree::FILE, |bytes| bytes.truncate(cut)), sealed);
        assert_eq!((log.root(41), report.blocks_rewritten), (Some(sealed.root), 0), "cut at {cut}");
    }
    // One that is whole and of another log: only the root tells.
    let forged = disk.with(tree::FILE, |bytes| {
        let mut entry = Vec::new();
        hashes::write(&mut entry, &leaf_hash(b"another"));
        bytes[36..72].copy_from_slice(&entry);
    });
    let Opened { log, report } = open_sealed(&forged, sealed);
    assert_eq!((report.hashes_unread, report.blocks_rewritten), (0, 1));
    is_whole(&log, &leaves(0..43));
}

#[test]
fn a_log_that_was_not_sealed_so_is_read_whole_and_shows_it() {
    let (disk, sealed, _) = retired();
    let Opened { log, report } = open_sealed(&disk, Sealed { root: leaf_hash(b"another"), ..sealed });
    assert_eq!((report.hashes_unread, log.root(41)), (0, Some(sealed.root)));
}

#[test]
fn a_damaged_hash_that_was_left_unread_proves_nothing_wrong_and_is_mended() {
    let (disk, sealed, _) = retired();
    let none = BTreeMap::new();
    let one_bit = disk.with(hashes::FILE, |bytes| bytes[6 * 36 + 3] ^= 4);
    let log = open_sealed(&one_bit, sealed).log;
    assert_eq!(log.leaf(6), Some(leaf_hash(&leaf(6))), "one bit is known");
    assert_eq!(log.check_hashes(4, &none).unwrap(), HashesChecked::Mended(1));
    assert_eq!(log.check_hashes(4, &none).unwrap(), HashesChecked::Whole);
    assert_eq!(one_bit.bytes(hashes::FILE), disk.bytes(hashes::FILE));

    let gone = disk.with(hashes::FILE, |bytes| bytes[6 * 36..8 * 36].fill(0xAA));
    let log = open_sealed(&gone, sealed).log;
    assert_eq!(log.root(43), Some(root_of(&leaves(0..43))), "what is above its block is there");
    assert_eq!((log.leaf(6), log.leaf(5), log.inclusion_proof(20, 41).is_some()), (None, None, true));
    assert_eq!(log.check_hashes(5, &none).unwrap(), HashesChecked::Lost(vec![6, 7]));
    let wrong = BTreeMap::from([(6, leaf_hash(b"another")), (7, leaf_hash(&leaf(7)))]);
    assert_eq!(log.check_hashes(5, &wrong).unwrap(), HashesChecked::Lost(vec![4, 5, 6, 7]), "the root says so");
    let right = BTreeMap::from([(6, leaf_hash(&leaf(6))), (7, leaf_hash(&leaf(7)))]);
    assert_eq!(log.check_hashes(5, &right).unwrap(), HashesChecked::Mended(2));
    assert_eq!(gone.bytes(hashes::FILE), disk.bytes(hashes::FILE));
    is_whole(&log, &leaves(0..43));

    // An entry that is whole and of another log.
    let forged = disk.with(hashes::FILE, |bytes| {
        let mut entry = Vec::new();
        hashes::write(&mut entry, &leaf_hash(b"another"));
        bytes[6 * 36..7 * 36].copy_from_slice(&entry);
    });
    let log = open_sealed(&forged, sealed).log;
    assert_eq!((log.leaf(6), log.leaf(8)), (None, Some(leaf_hash(&leaf(8)))));
    assert_eq!(log.check_hashes(4, &none).unwrap(), HashesChecked::Lost(vec![4, 5, 6, 7]));
}
