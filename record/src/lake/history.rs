//! Old versions of a table: their commits go once a checkpoint says what they say, and nobody here has such a version.
//!
//! Every append is a commit, some seventeen thousand a day where ticks come every few seconds. What a reader needs is the last
//! checkpoint and what came after it; more is kept so that a version is found by its number for a while, and so that the last checkpoint
//! can be torn.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::LakeError;
use super::check;
use super::delta::LakeTable;
use super::durable::sync_folder_of;
use super::tip::{self, LOG, Listing, checkpoint_name, commit_name};

/// Versions that are kept at least.
pub(super) const KEPT_VERSIONS: u64 = 1_000;
/// Files that are removed at once: appends wait for no more.
const AT_ONCE: usize = 20_000;

/// What one look at a table's log came to.
struct Forgotten {
    files: usize,
    /// The checkpoint after the one that is now the first.
    next: Option<u64>,
}

impl LakeTable {
    /// Removes commits and checkpoints before the last checkpoint that so many versions follow, and that no version which somebody
    /// here has comes before. Returns how many files that were.
    pub(super) async fn forget_versions(&mut self, kept: u64) -> Result<usize, LakeError> {
        self.refresh().await?;
        let Some(version) = self.delta.version() else { return Ok(0) };
        if version < self.forget_at {
            return Ok(0);
        }
        let needed = self.held().first().copied().unwrap_or(version).min(version.saturating_sub(kept));
        let folder = self.folder.clone();
        let forgotten = tokio::task::spawn_blocking(move || forget(&folder, needed)).await;
        let forgotten = forgotten.map_err(io::Error::other).flatten();
        let Forgotten { files, next } =
            forgotten.map_err(|source| LakeError::Folder { path: self.folder.clone(), source })?;
        // There is nothing more to forget until the next checkpoint is as old.
        self.forget_at = match next {
            _ if files == AT_ONCE => version,
            Some(next) => next.saturating_add(kept).max(version + 1),
            None => version + 1,
        };
        Ok(files)
    }
}

fn forget(folder: &Path, needed: u64) -> io::Result<Forgotten> {
    let log = folder.join(LOG);
    let listing = Listing::of(folder)?;
    let is_whole = |checkpoint: &u64| tip::is_parquet(&log.join(checkpoint_name(*checkpoint)));
    let first = listing.checkpoints.range(..=needed).rev().copied().find(is_whole);
    let next = listing.checkpoints.range(first.map_or(0, |first| first + 1)..).next().copied();
    let Some(first) = first else { return Ok(Forgotten { files: 0, next }) };
    let old = listing.checkpoints.range(..first).map(|version| checkpoint_name(*version));
    let old = old.chain(listing.commits.range(..first).map(|version| commit_name(*version)));
    let old: BTreeSet<String> = old.take(AT_ONCE).collect();
    if old.is_empty() {
        return Ok(Forgotten { files: 0, next });
    }
    check::note_commits(folder)?;
    // Whoever checks the files meanwhile asks again for what is not there.
    check::keep_noted(folder, |name| !old.contains(name))?;
    for name in &old {
        fs::remove_file(log.join(name))?;
    }
    sync_folder_of(&log.join(checkpoint_name(first)))?;
    Ok(Forgotten { files: old.len(), next })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{count, rows};
    use super::super::{Lake, Skip, Table, Versions};
    use super::*;

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder.join(LOG)).unwrap().count()
    }

    #[tokio::test]
    async fn a_log_of_many_commits_stays_short_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(dir.path()).await.unwrap();
        let folder = dir.path().join("events");
        let forget =
            async |lake: &Lake| lake.table(Table::Events).unwrap().lock().await.forget_versions(20).await.unwrap();
        let held = lake.pin();
        for at in 0..=250 {
            // Most of an append every few seconds is a position and no row.
            let of = if at % 50 == 0 { rows(at, at + 1) } else { Vec::new() };
            lake.append_events(0, at, at + 1, of).await.unwrap();
        }
        assert_eq!(forget(&lake).await, 0, "somebody has the first version");
        assert_eq!(lake.pin_at(&held.versions()).await.unwrap().files(Table::Events).len(), 0);
        drop(held);
        assert!(files(&folder) > 250);
        assert!(forget(&lake).await > 150);
        assert_eq!(forget(&lake).await, 0);
        let mut most = 0;
        for at in 251..450 {
            lake.append_events(0, at, at + 1, Vec::new()).await.unwrap();
            forget(&lake).await;
            most = most.max(files(&folder));
        }
        // A hundred up to the first checkpoint that is old enough, a hundred and twenty behind it, three checkpoints and the hint.
        assert!(most <= 240, "{most} files");
        assert!(check::noted_commits(&folder).unwrap().len() <= 240);
        assert_eq!(lake.pin().damaged_files(), []);
        let versions = lake.pin().versions();
        let lake = Lake::open(dir.path()).await.unwrap();
        assert_eq!((lake.archived(0).await.unwrap(), lake.pin().versions()), (450, versions));
        assert_eq!(lake.archived(1).await.unwrap(), 0);
        let records = lake.pin().records(0, &Skip::default()).unwrap();
        assert_eq!(records.map(|record| record.unwrap().index).collect::<Vec<_>>(), [0, 50, 100, 150, 200, 250]);
        assert_eq!(count(&lake.pin(), "(SELECT DISTINCT \"index\" FROM events)").await, 6);
        assert!(lake.pin_at(&Versions([("events".into(), 3)].into())).await.is_err(), "that version is gone");
        assert_eq!(lake.pin().damaged_files(), []);
        // The last checkpoint may be torn all the same.
        let last = *Listing::of(&folder).unwrap().checkpoints.last().unwrap();
        fs::write(folder.join(LOG).join(checkpoint_name(last)), b"PAR1").unwrap();
        let lake = Lake::open(dir.path()).await.unwrap();
        assert_eq!(lake.archived(0).await.unwrap(), 450);
        assert_eq!(lake.pin().damaged_files(), []);
    }
}
