//! What a sender put into a body is never taken for a record, and hashes that are damaged come from whoever knows them.

use super::*;

/// A closed log of ten records in groups of these sizes, `host` of which has this body.
fn hosting(sizes: &[u64], host: u64, body: &[u8]) -> (MemoryDisk, Vec<Bytes>) {
    let disk = MemoryDisk::default();
    let records = sizes.iter().sum();
    let all: Vec<Bytes> =
        (0..records).map(|at| if at == host { Bytes::copy_from_slice(body) } else { leaf(at) }).collect();
    runtime().block_on(async {
        let log = open(&disk, 0).log;
        let mut rest = all.as_slice();
        for size in sizes {
            let (group, after) = rest.split_at(usize::try_from(*size).unwrap());
            log.append(group.to_vec()).await.unwrap();
            rest = after;
        }
        log.close().await;
    });
    (disk, all)
}

/// The segment that holds a record, and where its frame starts.
fn place(disk: &MemoryDisk, index: u64) -> (String, usize) {
    for name in disk.list().unwrap().into_iter().filter(|name| frame::segment_first(name).is_some()) {
        let bytes = disk.bytes(&name);
        let mut at = frame::HEADER_BYTES;
        while let Some(found) = frame::read(&bytes[at..]) {
            if found.index == index {
                return (name, at);
            }
            at += found.bytes();
        }
    }
    panic!("record {index} is nowhere");
}

fn planted(index: u64, group: u64) -> Vec<u8> {
    let mut body = b"what a sender sends ".to_vec();
    frame::write(&mut body, index, group, b"what nobody accepted");
    body
}

/// The log opens with everything but this record, and with the tree that was committed to.
fn only_host_is_lost(disk: &MemoryDisk, all_leaves: &[Bytes], host: u64, what: &str) {
    let records = all_leaves.len() as u64;
    for known in [0, records] {
        let Opened { log, report } = open(disk, known);
        assert_eq!(report.records, records, "{what}");
        assert_eq!(report.quarantined.len(), 1, "{what}: {report:?}");
        assert_eq!(report.quarantined[0].records, host..host + 1, "{what}");
        assert_eq!(log.root(records), Some(root_of(all_leaves)), "{what}");
        let others = numbered(all_leaves.to_vec()).into_iter().filter(|(index, _)| *index != host);
        assert_eq!(all(&log), others.collect::<Vec<_>>(), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One bit of the header of a record is wrong, and its body holds a frame that claims any index and any group.
    #[test]
    fn a_frame_in_a_body_is_none(
        host in 0..10_u64,
        index in prop_oneof![0..12_u64, any::<u64>()],
        group in prop_oneof![0..12_u64, any::<u64>()],
        bit in 0..frame::FRAME_BYTES * 8,
    ) {
        let (disk, leaves) = hosting(&[2, 5, 3], host, &planted(index, group));
        let (name, at) = place(&disk, host);
        let bent = disk.with(&name, |bytes| bytes[at + bit / 8] ^= 1 << (bit % 8));
        only_host_is_lost(&bent, &leaves, host, &format!("{index} of group {group}"));
    }
}

#[test]
fn a_damaged_length_does_not_lead_into_the_body() {
    // The body is 64 bytes and 20: without the bit of 64 the record seems to end where the planted frame begins.
    let mut body = vec![b'x'; 20];
    frame::write(&mut body, 4, 0, &[b'y'; 36]);
    assert_eq!(body.len(), 84);
    let (disk, leaves) = hosting(&[10], 3, &body);
    let (name, at) = place(&disk, 3);
    only_host_is_lost(&disk.with(&name, |bytes| bytes[at + 4] ^= 64), &leaves, 3, "its length");
}

#[test]
fn a_frame_in_the_body_of_a_torn_record_is_cut_off_with_it() {
    // The header of the first record of a group never came to the disk, its body did, and the group was never acknowledged.
    for (index, group) in [(4, 4), (5, 4), (4, 0), (1_000_000_000, 999_999_999), (u64::MAX - 1, 4)] {
        let (disk, leaves) = hosting(&[4, 2], 4, &planted(index, group));
        let (name, at) = place(&disk, 4);
        let torn = disk
            .with(&name, |bytes| bytes[at..at + frame::FRAME_BYTES].fill(0))
            .with(hashes::FILE, |bytes| bytes.truncate(4 * hashes::ENTRY_BYTES));
        let Opened { log, report } = open(&torn, 4);
        assert_eq!((report.records, report.quarantined.len()), (4, 0), "{index} of group {group}");
        assert!(report.torn_bytes > 0);
        assert_eq!(all(&log), numbered(leaves[..4].to_vec()));
    }
}

#[test]
fn a_record_whose_hash_is_damaged_too_is_found_by_the_one_behind_it() {
    let (disk, leaves) = hosting(&[10], 3, &planted(3, 0));
    let (name, at) = place(&disk, 3);
    let bent = disk.with(&name, |bytes| bytes[at] ^= 1).with(hashes::FILE, |bytes| bytes[4 * 36 + 7] ^= 0x55);
    only_host_is_lost(&bent, &leaves, 3, "two faults");
}

#[test]
fn a_damaged_hash_of_a_retired_record_is_mended_or_asked_for() {
    let disk = written(&[10, 10, 10]);
    let root = root_of(&leaves(0..30));
    runtime().block_on(async {
        let log = open(&disk, 30).log;
        assert_eq!(log.retire(20).await.unwrap(), 20);
        log.close().await;
    });
    let bent = disk.with(hashes::FILE, |bytes| bytes[7 * 36 + 3] ^= 4);
    let Opened { log, report } = open(&bent, 30);
    assert_eq!((log.root(30), report.hashes_rewritten, report.hashes_damaged), (Some(root), 1, 1));
    runtime().block_on(log.close());
    assert_eq!(open(&bent, 30).report.hashes_rewritten, 0, "it is right again on disk");

    let gone = disk.with(hashes::FILE, |bytes| bytes[7 * 36..9 * 36].fill(0xAA));
    let refused = Log::open_on(Arc::new(gone.clone()), knowing(30), small()).unwrap_err();
    assert!(matches!(&refused, LogError::HashLost { records } if *records == [7, 8]), "{refused}");
    assert!(refused.to_string().starts_with("record 7 is not here and its leaf hash is damaged"), "{refused}");
    let known = (7..9).map(|index| (index, engine::merkle::leaf_hash(&leaf(index)))).collect();
    let Opened { log, report } =
        Log::open_on(Arc::new(gone), Knowing { leaves: Some(&known), ..knowing(30) }, small()).unwrap();
    assert_eq!((log.root(30), report.hashes_damaged, report.quarantined.len()), (Some(root), 2, 0));
}

#[test]
fn the_last_record_that_is_there_is_found_across_gaps() {
    let (disk, _) = hosting(&[2, 5, 3], 6, &planted(0, 0));
    let (name, at) = place(&disk, 6);
    let log = open(&disk.with(&name, |bytes| bytes[at + 30] ^= 1), 10).log;
    assert_eq!(
        [0, 1, 6, 7, 8, 99].map(|end| log.last_before(end)),
        [None, Some(0), Some(5), Some(5), Some(7), Some(9)]
    );
}
