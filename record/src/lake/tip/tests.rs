//! The last commit of a table is cut and filled with zeros at every byte, its data files go or are not what they were: no row is lost or
//! there twice once it was appended again.

use std::time::Duration;

use super::super::tests::rows;
use super::super::{Lake, LakeError, Skip, Snapshot, Table};
use super::*;
use crate::store::SqliteStore;
use crate::store::tests::{START, batch, clock, finding};
use engine::commit::{Commit, Store as _};
use pipeproof_engine as engine;
use tokio::runtime::Handle;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(fs::copy(entry.path(), target))
        }
    }
}

/// A lake of three appends; the last one, of records 8 to 13, has two data files.
async fn lake_in(dir: &Path) {
    let lake = Lake::open(dir).await.unwrap();
    for (from, to) in [(0, 4), (4, 8), (8, 14)] {
        lake.append_events(0, from, to, rows(from, to)).await.unwrap();
    }
}

fn tip_of(table: &Path) -> PathBuf {
    let tip = *Listing::of(table).unwrap().commits.last().unwrap();
    table.join(LOG).join(commit_name(tip))
}

/// Opens the lake, which then stands at `archived`, and has it take in everything again.
async fn append_again(dir: &Path, archived: u64) {
    let lake = Lake::open(dir).await.unwrap();
    assert_eq!(lake.archived(0).await.unwrap(), archived);
    lake.append_events(0, archived, 14, rows(archived, 14)).await.unwrap();
    let lake = Lake::open(dir).await.unwrap();
    let records = lake.pin().records(0, &Skip::default()).unwrap();
    assert_eq!(records.map(|record| record.unwrap().index).collect::<Vec<_>>(), (0..14).collect::<Vec<_>>());
    assert_eq!(lake.pin().damaged_files(), []);
}

#[tokio::test]
async fn a_commit_that_is_cut_or_filled_with_zeros_anywhere_is_moved_aside_and_comes_again() {
    let whole = tempfile::tempdir().unwrap();
    lake_in(whole.path()).await;
    let commit = tip_of(&whole.path().join("events")).strip_prefix(whole.path()).unwrap().to_owned();
    let bytes = fs::read(whole.path().join(&commit)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let again = || {
        fs::remove_dir_all(dir.path()).unwrap();
        copy(whole.path(), dir.path());
        // What is noted of a commit is not synced.
        fs::remove_file(dir.path().join("events/_commits")).unwrap();
    };
    again();
    assert_eq!(move_torn_aside(&dir.path().join("events")).unwrap(), []);
    for at in 0..bytes.len() {
        for zeros in [false, true] {
            let mut torn = bytes.clone();
            if zeros {
                torn[at..].fill(0)
            } else {
                torn.truncate(at)
            }
            let path = dir.path().join(&commit);
            fs::write(&path, torn).unwrap();
            if at % 211 == 0 {
                append_again(dir.path(), 8).await;
                again();
            } else {
                let moved = move_torn_aside(&dir.path().join("events")).unwrap();
                assert_eq!(moved.iter().map(|torn| &torn.path).collect::<Vec<_>>(), [&path], "byte {at}");
                assert!(!path.exists());
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_data_files_are_not_whole_comes_again() {
    let whole = tempfile::tempdir().unwrap();
    lake_in(whole.path()).await;
    let text = fs::read_to_string(tip_of(&whole.path().join("events"))).unwrap();
    let added = text.lines().find_map(|line| {
        let action: Value = serde_json::from_str(line).unwrap();
        Some(action.get("add")?.get("path")?.as_str()?.to_owned())
    });
    let added = format!("events/{}", added.unwrap());
    for (case, noted) in
        ["missing", "empty", "short", "zeros", "a flipped bit"].iter().zip([true, false].into_iter().cycle())
    {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        if !noted {
            fs::remove_file(dir.path().join("events/_commits")).unwrap();
        }
        let path = dir.path().join(&added);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match *case {
            "missing" => fs::remove_file(&path).unwrap(),
            "empty" => fs::write(&path, b"").unwrap(),
            "short" => fs::write(&path, &bytes[..middle]).unwrap(),
            "zeros" => {
                bytes[middle..middle + 20].fill(0);
                fs::write(&path, bytes).unwrap();
            }
            _ => {
                bytes[middle] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        append_again(dir.path(), 8).await;
    }
}

#[tokio::test]
async fn digests_that_were_torn_are_no_damage_and_are_noted_again() {
    let whole = tempfile::tempdir().unwrap();
    lake_in(whole.path()).await;
    let noted = fs::read(whole.path().join("events/_commits")).unwrap();
    let all = check::noted_commits(&whole.path().join("events")).unwrap();
    for at in (0..noted.len()).step_by(23) {
        for zeros in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            copy(&whole.path().join("events"), dir.path());
            // Zeros up to where the next line was written after the start.
            let mut torn = noted.clone();
            if zeros {
                let end = noted.len().min(at + 100);
                torn[at..end].fill(0);
            } else {
                torn.truncate(at);
            }
            fs::write(dir.path().join("_commits"), torn).unwrap();
            assert_eq!(move_torn_aside(dir.path()).unwrap(), []);
            assert_eq!(check::damaged_commits(dir.path()), []);
            check::note_commits(dir.path()).unwrap();
            // A line behind one that was cut is noted at the start after that.
            check::note_commits(dir.path()).unwrap();
            assert_eq!(check::noted_commits(dir.path()).unwrap(), all, "byte {at}, zeros: {zeros}");
        }
    }
}

#[tokio::test]
async fn a_commit_further_up_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    lake_in(dir.path()).await;
    let table = dir.path().join("events");
    let last = *Listing::of(&table).unwrap().commits.last().unwrap();
    let path = table.join(LOG).join(commit_name(last - 1));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let error = Lake::open(dir.path()).await.unwrap_err();
    assert!(matches!(&error, LakeError::Commit { table: "events", .. }), "{error}");
    assert!(error.to_string().contains(&commit_name(last - 1)), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len() - 10);
    assert!(table.join(LOG).join(commit_name(last)).exists());
}

#[tokio::test]
async fn a_torn_merge_leaves_the_files_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..16 {
        lake.append_events(0, at * 4, at * 4 + 4, rows(at * 4, at * 4 + 4)).await.unwrap();
    }
    let before = Listing::of(&dir.path().join("events")).unwrap().commits.len();
    assert!(lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap() >= 16);
    // Whatever came behind the first merge is gone, and of that the last action.
    let table = dir.path().join("events");
    let commits: Vec<u64> = Listing::of(&table).unwrap().commits.into_iter().skip(before).collect();
    let merge = commits
        .iter()
        .find(|version| fs::read_to_string(table.join(LOG).join(commit_name(**version))).unwrap().contains("OPTIMIZE"));
    let merge = *merge.unwrap();
    for version in commits.iter().filter(|version| **version > merge) {
        fs::remove_file(table.join(LOG).join(commit_name(*version))).unwrap();
    }
    fs::remove_file(table.join("_commits")).unwrap();
    let path = table.join(LOG).join(commit_name(merge));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.trim_end().rsplit_once('\n').unwrap().0).unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let records = lake.pin().records(0, &Skip::default()).unwrap();
    assert_eq!(records.map(|record| record.unwrap().index).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
    assert_eq!(lake.archived(0).await.unwrap(), 64);
    assert_eq!(lake.pin().damaged_files(), []);
}

#[tokio::test]
async fn a_torn_feed_is_fed_again_and_a_table_that_was_just_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap();
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    store.commit(&Commit { findings: vec![finding(1)], ..batch(0, 3) }).await.unwrap();
    assert_eq!(lake.follow(&store).await.unwrap(), 1);
    store.commit(&Commit { findings: vec![finding(2)], ..batch(3, 4) }).await.unwrap();
    assert_eq!(lake.follow(&store).await.unwrap(), 1);
    let findings = dir.path().join("lake/findings");
    fs::write(tip_of(&findings), b"").unwrap();
    let made = dir.path().join("lake/checkpoints");
    fs::write(tip_of(&made), b"{\"commitInfo\":{\"operation\":\"CREATE TABLE\"}}").unwrap();
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    assert_eq!((lake.fed(Table::Findings).await.unwrap(), lake.fed(Table::Checkpoints).await.unwrap()), (1, 0));
    assert_eq!(lake.follow(&store).await.unwrap(), 1);
    let told: Vec<_> = lake.pin().findings().unwrap().map(|finding| finding.unwrap().id).collect();
    assert_eq!(told, [finding(1).id, finding(2).id]);
    assert_eq!(lake.pin().damaged_files(), []);
}

#[tokio::test]
async fn a_torn_checkpoint_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..105 {
        lake.append_events(0, at, at + 1, Vec::new()).await.unwrap();
    }
    let table = dir.path().join("events");
    let checkpoint = *Listing::of(&table).unwrap().checkpoints.last().unwrap();
    let path = table.join(LOG).join(checkpoint_name(checkpoint));
    let whole = fs::read(&path).unwrap();
    for noted in [true, false] {
        if !noted {
            fs::remove_file(table.join("_commits")).unwrap();
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let lake = Lake::open(dir.path()).await.unwrap();
        assert_eq!(lake.archived(0).await.unwrap(), 105);
        assert_eq!(lake.pin().damaged_files(), []);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_needed_and_not_what_was_written_is_named_before_anything_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..102 {
        lake.append_events(0, at, at + 1, rows(at, at + 1)).await.unwrap();
    }
    drop(lake);
    let table = dir.path().join("events");
    let listing = Listing::of(&table).unwrap();
    let checkpoint = *listing.checkpoints.last().unwrap();
    let path = table.join(LOG).join(checkpoint_name(checkpoint));
    let written = fs::read(&path).unwrap();
    // The commits before it were forgotten, as after a thousand versions.
    for version in listing.commits.range(..checkpoint) {
        fs::remove_file(table.join(LOG).join(commit_name(*version))).unwrap();
    }
    check::keep_noted(&table, |name| name >= format!("{checkpoint:020}").as_str()).unwrap();
    assert!(Snapshot::read_only(dir.path()).await.is_ok());
    for at in (0..written.len()).step_by(written.len() / 40) {
        let mut bent = written.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&path, bent).unwrap();
        for error in [
            Lake::open(dir.path()).await.map(drop).unwrap_err(),
            Snapshot::read_only(dir.path()).await.map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains(&checkpoint_name(checkpoint)), "byte {at}: {error}");
        }
    }
    fs::write(&path, written).unwrap();
    assert_eq!(Lake::open(dir.path()).await.unwrap().archived(0).await.unwrap(), 102);
}
