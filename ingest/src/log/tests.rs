//! What the log promises, on a disk that fails.

use engine::merkle::{Tree, empty_root, verify_consistency, verify_inclusion};
use proptest::prelude::*;

use super::memory_disk::MemoryDisk;
use super::*;

mod blocks;
mod damage;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 400, ..LogOptions::default() }
}

fn knowing(durable: u64) -> Knowing<'static> {
    Knowing { durable, ..Knowing::default() }
}

fn open(disk: &MemoryDisk, known: u64) -> Opened {
    Log::open_on(Arc::new(disk.clone()), knowing(known), small()).unwrap()
}

fn leaf(number: u64) -> Bytes {
    Bytes::from(format!("leaf {number} {}", "x".repeat(usize::try_from(number % 50).unwrap())))
}

fn leaves(numbers: Range<u64>) -> Vec<Bytes> {
    numbers.map(leaf).collect()
}

fn root_of(leaves: &[Bytes]) -> Hash {
    let mut tree = Tree::new();
    leaves.iter().for_each(|leaf| {
        tree.push(engine::merkle::leaf_hash(leaf));
    });
    tree.root(tree.size()).unwrap()
}

fn all(log: &Log) -> Vec<(u64, Bytes)> {
    log.read(0, usize::MAX, usize::MAX).unwrap()
}

fn numbered(leaves: Vec<Bytes>) -> Vec<(u64, Bytes)> {
    (0..).zip(leaves).collect()
}

/// A closed log of groups of these sizes, each appended in one request.
fn written(sizes: &[u64]) -> MemoryDisk {
    let disk = MemoryDisk::default();
    runtime().block_on(async {
        let log = open(&disk, 0).log;
        let mut next = 0;
        for size in sizes {
            let group = next..next + size;
            assert_eq!(log.append(leaves(group.clone())).await.unwrap(), group);
            next = group.end;
        }
        log.close().await;
    });
    disk
}

fn last_segment(disk: &MemoryDisk) -> (String, Vec<u8>) {
    let name = disk.list().unwrap().into_iter().filter(|name| frame::segment_first(name).is_some()).max().unwrap();
    let bytes = disk.bytes(&name);
    (name, bytes)
}

#[test]
fn appended_records_are_read_back_with_proofs_across_segments_and_restarts() {
    let disk = MemoryDisk::default();
    runtime().block_on(async {
        let mut written = Vec::new();
        for round in 0..5_u64 {
            let Opened { log, report } = open(&disk, round * 10);
            assert_eq!(report.records, round * 10);
            assert_eq!((report.torn_bytes, report.quarantined.len(), report.hashes_rewritten), (0, 0, 0));
            for number in 0..5 {
                let start = round * 10 + number * 2;
                assert_eq!(log.append(leaves(start..start + 2)).await.unwrap(), start..start + 2);
                assert_eq!(*log.durable().borrow(), start + 2);
            }
            written.extend(leaves(round * 10..round * 10 + 10));
            assert_eq!(all(&log), numbered(written.clone()));
            log.close().await;
        }
        let log = open(&disk, 50).log;
        assert!(disk.list().unwrap().len() > 3, "several segments");
        let root = log.root(50).unwrap();
        assert_eq!(root, root_of(&written));
        for index in 0..50 {
            let hash = log.leaf(index).unwrap();
            assert!(verify_inclusion(&hash, index, 50, &log.inclusion_proof(index, 50).unwrap(), &root));
        }
        let old = log.root(20).unwrap();
        assert!(verify_consistency(20, 50, &old, &root, &log.consistency_proof(20, 50).unwrap()));
        assert_eq!(log.root(51), None);
        assert_eq!(open(&MemoryDisk::default(), 0).log.root(0), Some(empty_root()));
    });
}

#[test]
fn reading_keeps_its_limits() {
    let disk = written(&[30]);
    let log = open(&disk, 0).log;
    assert_eq!(log.read(5, 3, usize::MAX).unwrap(), numbered(leaves(0..8))[5..]);
    assert_eq!(log.read(29, 9, usize::MAX).unwrap().len(), 1);
    assert_eq!(log.read(30, 9, usize::MAX).unwrap(), vec![]);
    assert_eq!(log.read(12, 9, 0).unwrap().len(), 1, "at least one, however large");
    let some = log.read(0, usize::MAX, 100).unwrap();
    assert!(some.iter().map(|(_, leaf)| leaf.len()).sum::<usize>() <= 100 && some.len() > 2);
}

#[test]
fn a_torn_tail_leaves_the_exact_prefix_at_every_byte() {
    let disk = written(&[4, 3]);
    let (name, bytes) = last_segment(&disk);
    let ends: Vec<usize> = {
        let mut at = frame::HEADER_BYTES;
        std::iter::from_fn(|| {
            let frame = frame::read(bytes.get(at..)?)?;
            at += frame.bytes();
            Some(at)
        })
        .collect()
    };
    assert_eq!(ends.len(), 7);
    // The hashes of a group are written once it is synced: a torn group has none.
    let disk = disk.with(hashes::FILE, |bytes| bytes.truncate(4 * hashes::ENTRY_BYTES));
    for cut in ends[3]..=bytes.len() {
        let torn = disk.with(&name, |bytes| bytes.truncate(cut));
        let kept = ends.iter().filter(|end| **end <= cut).count();
        let Opened { log, report } = open(&torn, 4);
        assert_eq!(report.records, kept as u64, "cut at {cut}");
        assert_eq!(report.torn_bytes, (cut - ends[kept - 1]) as u64);
        assert_eq!(report.quarantined, []);
        let expected = leaves(0..kept as u64);
        assert_eq!(log.root(kept as u64), Some(root_of(&expected)));
        assert_eq!(all(&log), numbered(expected));
    }
    // A tail of zeros, as file systems leave it, is a torn tail too; and the log goes on behind it.
    let torn = disk.with(&name, |bytes| bytes[ends[4]..].fill(0));
    runtime().block_on(async {
        let log = open(&torn, 4).log;
        assert_eq!(log.append(leaves(5..6)).await.unwrap(), 5..6);
        log.close().await;
        let Opened { log, report } = open(&torn, 6);
        assert_eq!((report.records, report.torn_bytes), (6, 0));
        assert_eq!(all(&log), numbered(leaves(0..6)));
    });
}

#[test]
fn every_bit_flip_below_the_durable_mark_is_fenced_off_and_reported() {
    let disk = written(&[1; 6]);
    let expected = leaves(0..6);
    let root = root_of(&expected);
    for name in disk.list().unwrap() {
        for bit in 0..disk.bytes(&name).len() * 8 {
            let bent = disk.with(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let Opened { log, report } = open(&bent, [0, 6][bit % 2]);
            assert_eq!(report.records, 6);
            assert_eq!(log.root(6), Some(root), "{name} bit {bit}");
            let lost: Vec<u64> = report.quarantined.iter().flat_map(|gap| gap.records.clone()).collect();
            let read = all(&log);
            assert!(read.iter().all(|(index, leaf)| expected[usize::try_from(*index).unwrap()] == *leaf));
            assert_eq!(read.len() + lost.len(), 6);
            assert!(read.iter().all(|(index, _)| !lost.contains(index)));
            let rewritten = usize::try_from(report.hashes_rewritten + report.blocks_rewritten).unwrap();
            let seen = lost.len() + report.bad_headers.len() + rewritten;
            assert_eq!(seen, 1, "{name} bit {bit}: exactly what was hit is reported: {report:?}");
        }
    }
}

#[test]
fn a_later_group_proves_that_damage_is_not_a_torn_tail() {
    let disk = written(&[2, 2, 2]);
    let (name, bytes) = last_segment(&disk);
    let second = frame::HEADER_BYTES + frame::read(&bytes[frame::HEADER_BYTES..]).unwrap().bytes();
    let bent = disk.with(&name, |bytes| bytes[second + 30] ^= 1);
    let unhashed =
        |disk: &MemoryDisk, left: usize| disk.with(hashes::FILE, |bytes| bytes.truncate(left * hashes::ENTRY_BYTES));
    let report = open(&unhashed(&bent, 2), 0).report;
    assert_eq!(report.records, 6);
    assert_eq!(report.quarantined.len(), 1);
    assert_eq!(report.quarantined[0].records, 1..2);
    // In the last group nothing proves it: it was never acknowledged.
    let last = bytes.len() - 1;
    let bent = disk.with(&name, |bytes| bytes[last] ^= 1);
    let report = open(&unhashed(&bent, 4), 0).report;
    assert_eq!((report.records, report.quarantined.len()), (5, 0));
    // But its hashes do.
    let report = open(&bent, 0).report;
    assert_eq!((report.records, report.quarantined.len()), (6, 1));
}

#[test]
fn a_forged_record_with_a_fresh_checksum_is_quarantined() {
    let disk = written(&[2]);
    let (name, _) = last_segment(&disk);
    let forged = disk.with(&name, |bytes| {
        bytes.truncate(frame::HEADER_BYTES);
        frame::write(bytes, 0, 0, b"something else entirely");
        frame::write(bytes, 1, 0, &leaf(1));
    });
    let Opened { log, report } = open(&forged, 2);
    assert_eq!(report.quarantined[0].records, 0..1);
    assert_eq!(log.root(2), Some(root_of(&leaves(0..2))), "the tree keeps what was committed to");
    assert_eq!(all(&log), vec![(1, leaf(1))]);
}

#[test]
fn a_missing_segment_and_a_cut_end_below_the_mark_are_gaps_and_the_log_goes_on() {
    let disk = written(&[10, 10, 10]);
    let names: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect();
    assert_eq!(names.len(), 3);
    let root = root_of(&leaves(0..30));
    for (name, expected) in names.iter().zip([0..10, 10..20, 20..30_u64]) {
        let damaged = disk.without(name);
        let Opened { log, report } = open(&damaged, 30);
        let lost: Vec<u64> = report.quarantined.iter().flat_map(|gap| gap.records.clone()).collect();
        assert_eq!(lost, expected.clone().collect::<Vec<_>>());
        assert_eq!(log.root(30), Some(root));
        runtime().block_on(async {
            assert_eq!(log.append(leaves(30..31)).await.unwrap(), 30..31);
            log.close().await;
        });
        let Opened { log, report } = open(&damaged, 31);
        assert_eq!(report.records, 31);
        assert_eq!(all(&log).len(), 21);
    }
    let cut = disk.with(&names[2], |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(open(&cut, 30).report.quarantined[0].records, 29..30);
    assert_eq!(open(&cut, 0).report.quarantined[0].records, 29..30, "its hash is there");
}

#[test]
fn what_cannot_be_opened_says_so() {
    let disk = written(&[3]);
    let refused = Log::open_on(Arc::new(disk.clone()), knowing(4), small()).unwrap_err();
    assert!(matches!(refused, LogError::Behind { known: 4, end: 3 }), "{refused}");
    let (name, _) = last_segment(&disk);
    let cut = disk.with(&name, |bytes| bytes.truncate(bytes.len() - 1)).with(hashes::FILE, |bytes| bytes[80] ^= 3);
    let refused = Log::open_on(Arc::new(cut.clone()), knowing(3), small()).unwrap_err();
    assert!(matches!(&refused, LogError::HashLost { records } if *records == [2]), "{refused}");
    let fresh = Log::open_on(Arc::new(disk.without(hashes::FILE)), knowing(3), small()).unwrap();
    assert_eq!((fresh.report.records, fresh.report.hashes_rewritten), (3, 3));
}

#[test]
fn concurrent_appends_keep_their_order_and_are_durable_when_answered() {
    let disk = MemoryDisk::default();
    runtime().block_on(async {
        let log = open(&disk, 0).log;
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    for number in 0..40_u64 {
                        let sent: Vec<_> = (0..3).map(|part| Bytes::from(format!("{task}-{number}-{part}"))).collect();
                        let range = log.append(sent.clone()).await.unwrap();
                        assert!(*log.durable().borrow() >= range.end);
                        assert_eq!(log.read(range.start, 3, usize::MAX).unwrap().len(), 3);
                        got.extend(range.zip(sent));
                    }
                    got
                })
            })
            .collect();
        let mut expected = Vec::new();
        for task in tasks {
            let got = task.await.unwrap();
            assert!(got.is_sorted_by_key(|(index, _)| *index), "a sender's records keep its order");
            expected.extend(got);
        }
        expected.sort_unstable();
        assert_eq!(all(&log), expected);
        assert_eq!(log.queued(), (0, 0));
        drop(log);
    });
    assert_eq!(open(&disk.crashed(0), 960).report.records, 960, "answered means synced");
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_or_shown_until_healed() {
    let disk = MemoryDisk::default();
    runtime().block_on(async {
        let log = open(&disk, 0).log;
        log.append(leaves(0..3)).await.unwrap();
        disk.set_syncs(Some(0));
        let refused = log.append(leaves(3..5)).await.unwrap_err();
        assert!(matches!(refused, AppendError::Stopped(_)));
        assert!(matches!(log.state(), LogState::Stopped(_)));
        assert_eq!(*log.durable().borrow(), 3);
        assert_eq!((log.root(4), log.leaf(3)), (None, None));
        assert_eq!(all(&log), numbered(leaves(0..3)));
        disk.set_syncs(None);
        assert_eq!(log.append(leaves(3..5)).await, Err(refused), "never by syncing again");
        log.try_heal().await.unwrap();
        assert_eq!(log.state(), LogState::Accepting);
        assert_eq!(log.append(leaves(50..52)).await.unwrap(), 3..5);
        let expected: Vec<_> = leaves(0..3).into_iter().chain(leaves(50..52)).collect();
        assert_eq!(all(&log), numbered(expected.clone()));
        log.close().await;
        for torn in [0, 10, 1000] {
            let Opened { log, report } = open(&disk.crashed(torn), 5);
            assert_eq!(report.quarantined, []);
            assert_eq!(all(&log), numbered(expected.clone()));
            assert_eq!(log.root(5), Some(root_of(&expected)));
        }
    });
}

#[test]
fn a_full_disk_stops_the_log_and_room_heals_it() {
    let disk = MemoryDisk::default();
    runtime().block_on(async {
        let log = open(&disk, 0).log;
        log.append(leaves(0..3)).await.unwrap();
        for room in [0, 1, 27, 28, 60, 100] {
            disk.set_room(Some(room));
            assert!(matches!(log.append(leaves(3..9)).await, Err(AppendError::Stopped(_))), "{room}");
            disk.set_room(Some(5000));
            assert!(log.try_heal().await.is_err(), "a little room is not enough");
            disk.set_room(None);
            log.try_heal().await.unwrap();
        }
        assert_eq!(log.append(leaves(3..4)).await.unwrap(), 3..4);
        log.close().await;
        assert_eq!(all(&open(&disk.crashed(0), 4).log), numbered(leaves(0..4)));
    });
}

#[test]
fn a_full_queue_is_busy_and_a_large_record_is_refused() {
    let options = LogOptions { queue_records_max: 4, group_delay: Duration::from_millis(200), ..LogOptions::default() };
    let log = Log::open_on(Arc::new(MemoryDisk::default()), Knowing::default(), options).unwrap().log;
    runtime().block_on(async {
        let first = tokio::spawn({
            let log = log.clone();
            async move { log.append(leaves(0..4)).await }
        });
        while log.queued().0 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.append(leaves(4..5)).await, Err(AppendError::Busy));
        assert_eq!(first.await.unwrap(), Ok(0..4));
        assert_eq!(log.append(leaves(4..5)).await, Ok(4..5), "room again");
        assert_eq!(log.append(leaves(5..15)).await, Ok(5..15), "larger than the queue, but alone");
        let large = Bytes::from(vec![0; RECORD_BYTES_MAX + 1]);
        assert_eq!(log.append(vec![large]).await, Err(AppendError::TooLarge(RECORD_BYTES_MAX + 1)));
        assert_eq!(log.append(vec![]).await, Ok(15..15));
        let other = log.clone();
        log.close().await;
        assert!(matches!(other.append(leaves(0..1)).await, Err(AppendError::Stopped(_))));
        assert_eq!(other.state(), LogState::Closed);
    });
}

#[test]
fn a_real_folder_works_as_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("log/0");
    runtime().block_on(async {
        for round in 0..3 {
            let Opened { log, report } = Log::open(&dir, knowing(round * 7), small()).unwrap();
            assert_eq!(report.records, round * 7);
            log.append(leaves(round * 7..round * 7 + 7)).await.unwrap();
            assert_eq!(all(&log), numbered(leaves(0..round * 7 + 7)));
            log.close().await;
        }
    });
}

#[test]
fn retired_segments_leave_their_hashes_and_everything_goes_on() {
    let disk = written(&[10, 10, 10]);
    let root = root_of(&leaves(0..30));
    let full = written(&[10, 10, 10]);
    runtime().block_on(async {
        let log = open(&disk, 30).log;
        assert_eq!((log.first(), log.segments().len()), (0, 3));
        assert_eq!(log.retire(9).await.unwrap(), 0, "not whole yet");
        assert_eq!(log.retire(25).await.unwrap(), 20);
        assert_eq!(log.retire(25).await.unwrap(), 20);
        assert_eq!(log.retire(30).await.unwrap(), 20, "the one being written stays");
        assert_eq!(all(&log).first(), Some(&(20, leaf(20))));
        assert_eq!(log.root(30), Some(root));
        assert_eq!(log.append(leaves(30..31)).await.unwrap(), 30..31);
        log.close().await;
    });
    for torn in [0, 5, 1000] {
        let Opened { log, report } = open(&disk.crashed(torn), 31);
        assert_eq!((report.records, report.retired, report.quarantined.len()), (31, 20, 0));
        assert_eq!(log.root(30), Some(root));
        assert!(verify_inclusion(&log.leaf(3).unwrap(), 3, 30, &log.inclusion_proof(3, 30).unwrap(), &root));
        assert_eq!(all(&log), numbered(leaves(0..31))[20..]);
    }
    // Without the mark the same absence is damage, and so is what is missing above it.
    assert_eq!(open(&disk.without(retired::FILE), 31).report.quarantined[0].records, 0..20);
    let names: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect();
    assert_eq!(open(&disk.without(&names[0]), 31).report.quarantined[0].records, 20..30);
    // A crash between mark and removal leaves more than was promised.
    let marked = full.crashed(usize::MAX);
    retired::mark(&marked, 20).unwrap();
    let Opened { log, report } = open(&marked, 30);
    assert_eq!((report.quarantined.len(), all(&log).len()), (0, 30));
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    FailSyncs(u8),
    Fill(u16),
    Recover,
    Retire,
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8).prop_map(Step::Append),
        1 => (0..4_u8).prop_map(Step::FailSyncs),
        1 => (0..300_u16).prop_map(Step::Fill),
        2 => Just(Step::Recover),
        1 => Just(Step::Retire),
        2 => any::<u8>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Whatever fails and whenever the power goes: what was answered is there, at its index, and nothing else is in
    /// its place.
    #[test]
    fn nothing_acknowledged_is_ever_lost(steps in proptest::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            let mut disk = MemoryDisk::default();
            let mut log = open(&disk, 0).log;
            let mut acknowledged: Vec<(u64, Bytes)> = Vec::new();
            let mut seen: BTreeMap<u64, Bytes> = BTreeMap::new();
            let mut sealed = None;
            let mut fresh = 0_u64;
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let sent = leaves(fresh..fresh + u64::from(count));
                        fresh += u64::from(count);
                        if let Ok(range) = log.append(sent.clone()).await {
                            acknowledged.extend(range.zip(sent));
                        }
                    }
                    Step::FailSyncs(after) => disk.set_syncs(Some(usize::from(after))),
                    Step::Fill(room) => disk.set_room(Some(usize::from(room))),
                    Step::Recover => {
                        disk.set_syncs(None);
                        disk.set_room(None);
                        log.try_heal().await.unwrap();
                    }
                    Step::Retire => {
                        let size = log.size();
                        sealed = Some(Sealed { size, root: log.root(size).unwrap() });
                        // It may fail on such a disk, and retires less then.
                        drop(log.retire(size).await);
                    }
                    Step::Crash(torn) => {
                        let known = acknowledged.last().map_or(0, |(index, _)| index + 1);
                        disk = disk.crashed(usize::from(torn));
                        let knowing = Knowing { sealed, ..knowing(known) };
                        let opened = Log::open_on(Arc::new(disk.clone()), knowing, small());
                        let Opened { log: reopened, report } = opened.unwrap();
                        assert_eq!(report.quarantined, []);
                        log = reopened;
                    }
                }
                let (read, end) = (all(&log), log.size());
                // A crash before what is retired was removed leaves more.
                assert!(read.len() as u64 >= end - log.first());
                seen.extend(read);
                assert!(seen.keys().copied().eq(0..end));
                for (index, leaf) in &acknowledged {
                    assert_eq!(seen.get(index), Some(leaf));
                }
                let bytes: Vec<_> = seen.values().cloned().collect();
                let root = log.root(end).unwrap();
                for size in [end, end / 2, end / 3] {
                    let before = log.root(size).unwrap();
                    assert_eq!(before, root_of(&bytes[..usize::try_from(size).unwrap()]));
                    assert!(verify_consistency(size, end, &before, &root, &log.consistency_proof(size, end).unwrap()));
                    if size < end {
                        let (leaf, path) = (log.leaf(size).unwrap(), log.inclusion_proof(size, end).unwrap());
                        assert!(verify_inclusion(&leaf, size, end, &path, &root));
                    }
                }
            }
        });
    }
}

/// Redacts records of a closed log and closes it again.
fn redacted(disk: &MemoryDisk, records: &[u64]) -> u64 {
    runtime().block_on(async {
        let log = open(disk, 0).log;
        let count = log.redact(records.to_vec()).await.unwrap();
        log.close().await;
        count
    })
}

fn on_disk(disk: &MemoryDisk, needle: &[u8]) -> bool {
    disk.list().unwrap().iter().any(|name| disk.bytes(name).windows(needle.len()).any(|window| window == needle))
}

#[test]
fn a_redacted_record_is_gone_and_root_and_proofs_stay() {
    let disk = written(&[4, 9, 8]);
    let before = open(&disk, 0).log;
    let (root, text) = (before.root(21).unwrap(), format!("leaf 13 {}", "x".repeat(13)));
    runtime().block_on(before.close());
    assert!(on_disk(&disk, text.as_bytes()), "the search sees what is there");
    assert_eq!(redacted(&disk, &[13, 20, 13]), 2);
    assert!(!on_disk(&disk, text.as_bytes()));
    let Opened { log, report } = open(&disk, 21);
    assert_eq!((report.records, report.redacted), (21, 2));
    assert_eq!((report.torn_bytes, report.quarantined.len(), report.hashes_rewritten), (0, 0, 0));
    assert_eq!(log.root(21), Some(root));
    let kept: Vec<u64> = all(&log).iter().map(|(index, _)| *index).collect();
    assert_eq!(kept, (0..20).filter(|index| *index != 13).collect::<Vec<_>>());
    assert!(log.is_redacted(13) && log.is_redacted(20) && !log.is_redacted(12));
    for index in 0..21 {
        let hash = log.leaf(index).unwrap();
        assert_eq!(hash, engine::merkle::leaf_hash(&leaf(index)));
        assert!(verify_inclusion(&hash, index, 21, &log.inclusion_proof(index, 21).unwrap(), &root));
    }
    runtime().block_on(async {
        assert_eq!(log.append(leaves(21..23)).await.unwrap(), 21..23, "it goes on behind a redacted record");
        log.close().await;
    });
    assert_eq!(open(&disk, 23).report.quarantined, vec![]);
}

#[test]
fn a_crash_at_any_byte_of_overwriting_is_made_good_when_the_log_is_opened() {
    let whole = written(&[4, 9, 8]);
    let root = open(&whole, 21).log.root(21).unwrap();
    for index in [0, 13, 20] {
        let done = whole.crashed(usize::MAX);
        redacted(&done, &[index]);
        let changed: Vec<String> =
            whole.list().unwrap().into_iter().filter(|name| whole.bytes(name) != done.bytes(name)).collect();
        let [segment] = changed.as_slice() else { panic!("{changed:?}") };
        let (old, new) = (whole.bytes(segment), done.bytes(segment));
        for cut in 0..=old.len() {
            // What was written up to here, and everything after it as it was; then the other way round.
            for (first, rest) in [(&new, &old), (&old, &new)] {
                let torn = done.with(segment, |bytes| *bytes = [&first[..cut], &rest[cut..]].concat());
                let Opened { log, report } = open(&torn, 21);
                assert_eq!(
                    (report.records, report.torn_bytes, report.quarantined.len()),
                    (21, 0, 0),
                    "{index} at {cut}"
                );
                assert_eq!(log.root(21), Some(root));
                runtime().block_on(log.close());
                assert_eq!(torn.bytes(segment), new, "{index} at {cut}");
            }
        }
    }
}

#[test]
fn the_hash_of_a_redacted_record_is_kept_twice() {
    let disk = written(&[4, 9]);
    let root = open(&disk, 13).log.root(13).unwrap();
    redacted(&disk, &[5]);
    let disk = disk.with(hashes::FILE, |bytes| bytes[5 * hashes::ENTRY_BYTES] ^= 1);
    let Opened { log, report } = open(&disk, 13);
    assert_eq!((log.root(13), report.quarantined.len(), report.hashes_rewritten), (Some(root), 0, 1));
}

#[test]
fn what_could_not_be_overwritten_is_by_the_next_call() {
    let disk = written(&[4, 9]);
    let text = format!("leaf 11 {}", "x".repeat(11));
    runtime().block_on(async {
        let log = open(&disk, 13).log;
        // The mark and its name are synced; the segment is not.
        disk.set_syncs(Some(2));
        assert!(matches!(log.redact(vec![11]).await, Err(LogError::Io { .. })));
        disk.set_syncs(None);
        assert!(all(&log).iter().all(|(index, _)| *index != 11), "nobody reads it meanwhile");
        assert_eq!(log.redact(vec![11]).await.unwrap(), 0);
        log.close().await;
    });
    let after = disk.crashed(0);
    assert!(!on_disk(&after, text.as_bytes()));
    assert_eq!(open(&after, 13).report.quarantined, vec![]);
}
