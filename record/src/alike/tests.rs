//! What one side tells otherwise than the other is named.

use engine::commit::{Commit, DeadLetter, Store as _};
use engine::incident::Incidents;
use pipeproof_engine as engine;

use super::*;
use crate::lake::Lake;
use crate::lake::tests::rows;
use crate::store::tests::{START, batch, clock, finding, message, window};

async fn store_in(dir: &tempfile::TempDir) -> SqliteStore {
    let store = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap();
    let mut incidents = Incidents::default();
    let (first, step) = incidents.admit(&finding(1));
    let commit = Commit {
        findings: vec![finding(1)],
        incidents: vec![first],
        steps: vec![step.clone(), engine::incident::IncidentStep { number: step.number + 1, ..step }],
        outbox: vec![message(1, None)],
        windows: vec![window(0, 3), window(1, 5)],
        ..batch(0, 3)
    };
    store.commit(&commit).await.unwrap();
    store.enqueue("pager", &["m-1".into()]).await.unwrap();
    store
}

fn all<'a>(compared: &'a BTreeMap<&'static str, Compared>) -> (u64, Vec<&'a str>) {
    let rows = compared.values().map(|compared| compared.rows).sum();
    (rows, compared.values().flat_map(|compared| &compared.differing).map(String::as_str).collect())
}

#[tokio::test]
async fn feeds_that_were_copied_are_told_alike_and_what_was_not_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir).await;
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    assert_eq!(all(&feeds(&lake.pin(), &store).await.unwrap()), (0, vec![]), "nothing was copied yet");
    lake.follow(&store).await.unwrap();
    assert_eq!(all(&feeds(&lake.pin(), &store).await.unwrap()), (5, vec![]));
    // A window that changes has another row; the one before stays in the lake.
    store.commit(&Commit { windows: vec![window(0, 4)], ..batch(3, 4) }).await.unwrap();
    assert_eq!(all(&feeds(&lake.pin(), &store).await.unwrap()), (4, vec![]));
    lake.follow(&store).await.unwrap();
    assert_eq!(all(&feeds(&lake.pin(), &store).await.unwrap()), (5, vec![]));

    let other = Lake::open(&dir.path().join("other")).await.unwrap();
    let mut steps = store.steps_after(0, 10).await.unwrap();
    steps[0].step.actor = "somebody else".into();
    let mut more = steps[1].clone();
    more.seq = 3;
    steps.push(more);
    other.append_steps(steps).await.unwrap();
    let mut windows = store.windows_after(0, 10).await.unwrap();
    windows[0].window.records += 1;
    other.append_windows(windows).await.unwrap();
    let mut deliveries = store.deliveries_after(0, 10).await.unwrap();
    deliveries[0].seq += 7;
    other.append_deliveries(deliveries).await.unwrap();
    let compared = feeds(&other.pin(), &store).await.unwrap();
    assert_eq!(
        all(&compared).1,
        [
            "row 8 of `deliveries` is in the lake and not in the store",
            "row 1 of `deliveries` is in the store and not in the lake",
            "row 1 of `incident_steps` is not told alike by store and lake",
            "row 3 of `incident_steps` is in the lake and not in the store",
            "row 2 of `source_windows` is not told alike by store and lake",
        ]
    );
}

#[tokio::test]
async fn dead_letters_are_those_of_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir).await;
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    lake.append_events(0, 0, 12, rows(0, 12)).await.unwrap();
    // Of these rows, 3, 7 and 11 could not be decoded.
    let letter = |index, reason: &str| DeadLetter {
        index,
        source: "acme/über prod".into(),
        received: START,
        reason: reason.into(),
    };
    let letters = vec![letter(3, "not an object"), letter(5, "too long"), letter(7, "no JSON"), letter(14, "later")];
    store.commit(&Commit { dead_letters: letters, ..batch(3, 15) }).await.unwrap();
    let compared = dead_letters(&lake.pin(), &store, (0, 12), &BTreeSet::new()).await.unwrap();
    assert_eq!(
        compared.differing,
        [
            "record 5 is a dead letter in the store and not in the lake",
            "dead letter 7 is not told alike by store and lake",
            "record 11 is a dead letter in the lake and not in the store",
        ]
    );
    assert_eq!(compared.rows, 3);
    let redacted = [5, 7].into();
    let compared = dead_letters(&lake.pin(), &store, (0, 11), &redacted).await.unwrap();
    assert_eq!(compared.differing, [] as [&str; 0]);
}

#[tokio::test]
async fn items_are_had_by_index() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 12, rows(0, 12)).await.unwrap();
    let found = items(&lake.pin(), 0, &[0, 5, 40].into()).await.unwrap();
    let item = |source: &str, item: &str| Item { source: source.into(), item: item.into() };
    assert_eq!(found, [(0, item("acme", "id:0")), (5, item("acme/über prod", "id:5"))].into());
}
