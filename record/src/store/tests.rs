//! The store from outside: commits are whole or not at all, feeds are in order, deliveries keep an incident's order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::clock::ManualClock;
use engine::commit::{Commit, Completeness, DeadLetter, Duplicate, Excepted, Heard, Message, SourceWindow, Store};
use engine::dedup::First;
use engine::finding::{CitedEvent, Finding};
use engine::incident::{Incident, IncidentStep, Incidents, Status, Verb};
use engine::rule::{Level, RuleState};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row as _};

use super::*;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_763_900_000);

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

pub(crate) fn finding(number: u32) -> Finding {
    Finding {
        id: format!("f-{number:032}"),
        rule_id: "tok-04".into(),
        rule_title: "CI token used from an unexpected network".into(),
        rule_digest: "d".repeat(64),
        level: Level::High,
        risk: Level::High.risk(),
        state: RuleState::Active,
        title: format!("token used {number}"),
        time: START,
        occurred: Some(START.minus(Duration::from_secs(60))),
        available: START,
        fired: START,
        retro: false,
        key: BTreeMap::from([("token.id".into(), format!("ASIA{number}"))]),
        entities: vec!["repo:acme/app".into()],
        events: vec![CitedEvent {
            id: format!("0-{number}-0"),
            source: "aws".into(),
            source_type: "aws.cloudtrail".into(),
            time: START,
            received: START,
            rule: "tok-04".into(),
            fields: serde_json::Map::new(),
        }],
        because: vec!["action equals cloud.api".into()],
        controls: BTreeMap::from([("soc2".into(), vec!["CC7.2".into()])]),
        tags: vec!["attack.t1078".into()],
        incident: None,
    }
}

pub(crate) fn window(hour: i64, records: u64) -> SourceWindow {
    let start = START.hour().plus(Duration::from_secs(3_600 * u64::try_from(hour).unwrap()));
    SourceWindow {
        source: "acme".into(),
        source_type: SourceType::GithubWebhook,
        start,
        end: start.plus(Duration::from_secs(3_600)),
        records,
        events: records,
        duplicates: 0,
        dead_letters: 0,
        max_lag_secs: 2,
        max_skew_secs: 0,
        down_secs: 0,
        status: Completeness::NotEstablished,
        basis: "nothing".into(),
    }
}

fn heard(source: &str, secs: u64, max_skew_secs: i64) -> Heard {
    Heard { source: source.into(), received: START.plus(Duration::from_secs(secs)), max_skew_secs }
}

pub(crate) fn message(number: u32, incident: Option<&str>) -> Message {
    Message {
        id: format!("m-{number}"),
        kind: "finding.created".into(),
        incident: incident.map(str::to_owned),
        at: START,
        body: serde_json::json!({"number": number}),
    }
}

pub(crate) fn batch(from: u64, to: u64) -> Commit {
    Commit { from, to, committed: START, delta: vec![u8::try_from(from).unwrap()], ..Commit::default() }
}

/// A batch with one of everything.
fn full(from: u64) -> (Commit, Incident) {
    let mut commit = batch(from, from + 4);
    let mut found = finding(7);
    let (incident, step) = Incidents::default().admit(&found);
    found.incident = Some(incident.id.clone());
    commit.findings = vec![found];
    commit.incidents = vec![incident.clone()];
    commit.steps = vec![step];
    commit.heard = vec![heard("acme", 3, 2)];
    commit.outbox = vec![message(1, Some(&incident.id)), message(2, None)];
    commit.duplicates = vec![Duplicate { index: from + 1, first: 0 }];
    commit.dead_letters = vec![DeadLetter {
        index: from + 2,
        source: "acme".into(),
        received: START,
        reason: "not JSON \"at\" 1".into(),
    }];
    commit.windows = vec![window(0, 4)];
    commit.handed_over = vec![([7; 16], First { index: from, received: START })];
    commit.excepted = vec![Excepted {
        filter: "release-train".into(),
        filter_digest: "f".repeat(64),
        rule: "deployment_forced".into(),
        rule_digest: "a".repeat(64),
        event: "0-3-0".into(),
        time: START,
        received: START,
    }];
    (commit, incident)
}

async fn open(dir: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap()
}

#[tokio::test]
async fn a_commit_is_read_back_whole_and_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (commit, incident) = full(0);
    open(&dir).await.commit(&commit).await.unwrap();
    let store = open(&dir).await;
    assert_eq!(store.position(0).await.unwrap(), 4);
    let found = store.finding(&commit.findings[0].id).await.unwrap().unwrap();
    assert_eq!((&found.finding, found.committed, found.seq), (&commit.findings[0], START, 1));
    assert_eq!(store.incident(&incident.id).await.unwrap().unwrap().incident, incident);
    assert_eq!(store.steps(&incident.id).await.unwrap()[0].step, commit.steps[0]);
    let messages: Vec<_> =
        store.messages_after(0, 10).await.unwrap().into_iter().map(|stored| stored.message).collect();
    assert_eq!(messages, commit.outbox);
    assert_eq!(store.duplicates_in(0, 0..4).await.unwrap(), commit.duplicates);
    assert_eq!(store.dead_letters(Some("acme"), 0, 10).await.unwrap()[0].letter, commit.dead_letters[0]);
    assert_eq!(store.windows(window(0, 0).start, window(0, 0).end).await.unwrap()[0].window, commit.windows[0]);
    assert_eq!(store.excepted(Some("release-train"), 0, 10).await.unwrap()[0].excepted, commit.excepted[0]);
    assert!(store.excepted(Some("another"), 0, 10).await.unwrap().is_empty());
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.findings, counts.incidents_open, counts.messages, counts.dead_letters), (1, 1, 2, 1));
}

#[tokio::test]
async fn a_commit_that_does_not_continue_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store.commit(&batch(0, 3)).await.unwrap();
    let (mut again, _) = full(0);
    for (from, to) in [(0, 4), (2, 5), (4, 9)] {
        (again.from, again.to) = (from, to);
        let error = store.commit(&again).await.unwrap_err();
        assert!(matches!(error, StoreError::Position { stands: 3, .. }), "{error}");
    }
    (again.from, again.to) = (3, 3);
    assert!(matches!(store.commit(&again).await.unwrap_err(), StoreError::Malformed { .. }));
    assert_eq!(store.position(0).await.unwrap(), 3);
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, Counts::default());
    // Other partitions stand where they stand.
    store.commit(&Commit { partition: 1, ..batch(0, 1) }).await.unwrap();
}

#[tokio::test]
async fn a_failure_late_in_a_commit_undoes_all_of_it_and_the_batch_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let mut outside = SqliteConnectOptions::new().filename(dir.path().join("store.db")).connect().await.unwrap();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON source_windows BEGIN SELECT raise(ABORT, 'trap'); END";
    sqlx::raw_sql(trap).execute(&mut outside).await.unwrap();
    let (commit, _) = full(0);
    let error = store.commit(&commit).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
    assert_eq!(store.position(0).await.unwrap(), 0);
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    assert_eq!(store.restore(0).await.unwrap(), engine::commit::Restored::default());
    sqlx::raw_sql("DROP TRIGGER trap").execute(&mut outside).await.unwrap();
    store.commit(&commit).await.unwrap();
    assert_eq!(store.counts().await.unwrap().findings, 1);
}

#[tokio::test]
async fn results_with_known_ids_are_not_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (first, incident) = full(0);
    store.commit(&first).await.unwrap();
    let (mut second, _) = full(4);
    second.committed = START.plus(Duration::from_secs(5));
    store.commit(&second).await.unwrap();
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.findings, counts.messages), (1, 2));
    assert_eq!(store.steps(&incident.id).await.unwrap().len(), 1);
    assert_eq!(store.finding(&first.findings[0].id).await.unwrap().unwrap().committed, START);
    assert_eq!(store.incident(&incident.id).await.unwrap().unwrap().committed, START);
}

#[tokio::test]
async fn restoring_gives_the_snapshot_and_the_deltas_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for from in 0..5 {
        store.commit(&batch(from, from + 1)).await.unwrap();
        if from == 2 {
            store.snapshot(0, 3, b"state").await.unwrap();
        }
    }
    let restored = open(&dir).await.restore(0).await.unwrap();
    assert_eq!(restored.position, 5);
    assert_eq!(restored.snapshot, Some((3, b"state".to_vec())));
    assert_eq!(restored.deltas, vec![vec![3], vec![4]]);
    assert!(matches!(store.snapshot(0, 3, b"late").await.unwrap_err(), StoreError::Position { stands: 5, .. }));
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.close().await;
    let path = dir.path().join("store.db");
    let set = async |statement: String| {
        let mut outside = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut outside).await.unwrap();
        sqlx::Connection::close(outside).await.unwrap();
    };
    set(format!("PRAGMA user_version = {}", SCHEMA_VERSION + 1)).await;
    let error = SqliteStore::open(&path, clock()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, .. } if found == SCHEMA_VERSION + 1), "{error}");
    assert!(error.to_string().contains("newer program"), "{error}");
    set("PRAGMA user_version = 1; PRAGMA application_id = 77".into()).await;
    assert!(matches!(SqliteStore::open(&path, clock()).await.unwrap_err(), StoreError::Foreign { .. }));
}

#[tokio::test]
async fn feeds_give_every_row_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for from in 0..6_u32 {
        let mut commit = batch(from.into(), u64::from(from) + 1);
        commit.findings = vec![finding(from * 2), finding(from * 2 + 1)];
        store.commit(&commit).await.unwrap();
    }
    let (mut seq, mut seen) = (0, Vec::new());
    loop {
        let page = store.findings_after(seq, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        seq = last.seq;
        seen.extend(page.into_iter().map(|stored| stored.finding.id));
    }
    assert_eq!(seen, (0..12).map(|number| finding(number).id).collect::<Vec<_>>());
    // The list pages the other way.
    let newest = store.findings(&FindingFilter { limit: 2, ..FindingFilter::default() }).await.unwrap();
    assert_eq!(newest[0].finding.id, finding(11).id);
    let before = FindingFilter { before: Some(newest[1].seq), limit: 1, ..FindingFilter::default() };
    assert_eq!(store.findings(&before).await.unwrap()[0].finding.id, finding(9).id);
    let none = FindingFilter { level_min: Some(Level::Critical), ..FindingFilter::default() };
    assert!(store.findings(&none).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_window_that_changes_moves_to_the_end_of_its_feed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store.commit(&Commit { windows: vec![window(0, 1), window(1, 1)], ..batch(0, 1) }).await.unwrap();
    let seen = store.windows_after(0, 10).await.unwrap().last().unwrap().seq;
    store.commit(&Commit { windows: vec![window(0, 2)], ..batch(1, 2) }).await.unwrap();
    let changed = store.windows_after(seen, 10).await.unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].window, window(0, 2));
    assert_eq!(store.windows(Timestamp::MIN, Timestamp::MAX).await.unwrap().len(), 2);
}

#[tokio::test]
async fn when_a_source_was_last_heard_of_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    assert_eq!(store.heard().await.unwrap(), []);
    store.commit(&Commit { heard: vec![heard("a", 9, 0), heard("b", 1, 0)], ..batch(0, 1) }).await.unwrap();
    store.commit(&Commit { heard: vec![heard("a", 5, 7)], ..batch(1, 2) }).await.unwrap();
    let expected = [heard("a", 9, 7), heard("b", 1, 0)];
    assert_eq!(store.heard().await.unwrap(), expected);
    store.close().await;
    assert_eq!(open(&dir).await.heard().await.unwrap(), expected);
}

#[tokio::test]
async fn incidents_are_listed_newest_first_and_page_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let incidents: Vec<Incident> = (0..3)
        .map(|number| {
            let mut found = finding(number);
            found.fired = START.plus(Duration::from_secs(number.into()));
            Incident::open(&found, None)
        })
        .collect();
    let mut closed = incidents[1].clone();
    closed.apply(Verb::Close, START).unwrap();
    let listed = vec![incidents[0].clone(), closed.clone(), incidents[2].clone()];
    store.commit(&Commit { incidents: listed, ..batch(0, 1) }).await.unwrap();
    let all = store.incidents(&IncidentFilter::default()).await.unwrap();
    assert_eq!(all[0].incident, incidents[2]);
    let rest = IncidentFilter { after: Some(all[0].incident.id.clone()), ..IncidentFilter::default() };
    assert_eq!(store.incidents(&rest).await.unwrap()[0].incident, closed);
    let open = store.incidents(&IncidentFilter { open: true, ..IncidentFilter::default() }).await.unwrap();
    assert_eq!(open.len(), 2);
    let over = IncidentFilter { status: Some(Status::Closed), ..IncidentFilter::default() };
    assert_eq!(store.incidents(&over).await.unwrap().len(), 1);
    let step = IncidentStep {
        incident: closed.id.clone(),
        number: 1,
        verb: Verb::Close,
        at: START,
        actor: "kim".into(),
        note: Some("false alarm".into()),
        finding: None,
    };
    store.commit(&Commit { steps: vec![step.clone()], ..batch(1, 2) }).await.unwrap();
    assert_eq!(store.steps_after(0, 10).await.unwrap()[0].step, step);
}

fn attempt(at: Timestamp, outcome: AttemptOutcome) -> Attempt {
    Attempt {
        at,
        outcome,
        status: Some(503),
        latency_ms: 12,
        response_sha256: Some("ab".repeat(32)),
        response_head: Some("ü".repeat(400)),
        error: None,
    }
}

#[tokio::test]
async fn a_target_gets_an_incidents_messages_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let messages = vec![message(1, Some("i-1")), message(2, Some("i-1")), message(3, Some("i-2")), message(4, None)];
    let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
    store.commit(&Commit { outbox: messages, ..batch(0, 1) }).await.unwrap();
    assert_eq!(store.enqueue("pager", &ids).await.unwrap(), 4);
    assert_eq!(store.enqueue("pager", &ids).await.unwrap(), 0);
    assert!(matches!(store.enqueue("pager", &["m-9".into()]).await.unwrap_err(), StoreError::Missing { .. }));
    let due = async |at| -> Vec<String> {
        store.due("pager", at, 10).await.unwrap().into_iter().map(|due| due.message.id).collect()
    };
    assert_eq!(due(START).await, ["m-1", "m-3", "m-4"]);
    let first = store.due("pager", START, 1).await.unwrap()[0].delivery.id;
    let later = START.plus(Duration::from_secs(30));
    let waiting = store.record_attempt(first, &attempt(START, AttemptOutcome::Retry(later))).await.unwrap();
    assert_eq!((waiting.state, waiting.attempts, waiting.status), (DeliveryState::Retry, 1, Some(503)));
    assert_eq!(waiting.response_head.as_deref().map(str::len), Some(512));
    // The second message of the incident waits for the first, not only for its time.
    assert_eq!(due(START).await, ["m-3", "m-4"]);
    assert_eq!(due(later).await, ["m-1", "m-3", "m-4"]);
    // The clock went back: it was tried in what is now the future.
    assert_eq!(due(START.minus(Duration::from_secs(3_600))).await, ["m-1", "m-3", "m-4"]);
    store.record_attempt(first, &attempt(later, AttemptOutcome::Dead)).await.unwrap();
    assert_eq!(due(later).await, ["m-2", "m-3", "m-4"]);
    // A dead one that is queued again comes first again.
    store.retry(first).await.unwrap();
    assert_eq!(due(later).await, ["m-1", "m-3", "m-4"]);
    let done = store.record_attempt(first, &attempt(later, AttemptOutcome::Delivered)).await.unwrap();
    assert_eq!((done.delivered_at, done.attempts), (Some(later), 3));
    assert!(matches!(store.retry(first).await.unwrap_err(), StoreError::Missing { .. }));
    let again = store.record_attempt(first, &attempt(later, AttemptOutcome::Delivered)).await;
    assert!(matches!(again.unwrap_err(), StoreError::Missing { .. }));
    // Each change is in the feed: four queued, one retry, one dead, one queued again, one delivered.
    let states: Vec<_> =
        store.deliveries_after(4, 10).await.unwrap().iter().map(|change| change.delivery.state).collect();
    assert_eq!(states, [DeliveryState::Retry, DeliveryState::Dead, DeliveryState::Queued, DeliveryState::Delivered]);
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    assert!(store.deliveries(&dead).await.unwrap().is_empty());
    assert_eq!(store.counts().await.unwrap().deliveries_delivered, 1);
}

#[tokio::test]
async fn cursors_packs_and_rule_texts_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store.advance_cursor("pager", 5).await.unwrap();
    store.advance_cursor("pager", 3).await.unwrap();
    assert_eq!((store.cursor("pager").await.unwrap(), store.cursor("other").await.unwrap()), (5, 0));
    let text = RuleText {
        digest: "d".into(),
        id: "tok-04".into(),
        title: "t".into(),
        file: "token/x.yml".into(),
        body: "title: \"it's\"\n".into(),
    };
    store.keep_rule_texts(&[text.clone(), text.clone()]).await.unwrap();
    assert_eq!(store.rule_text("d").await.unwrap(), Some(text));
    let pack = pack();
    store.add_pack(&pack).await.unwrap();
    store.add_pack(&Pack { digest: "other".into(), ..pack.clone() }).await.unwrap();
    assert_eq!(store.packs().await.unwrap(), vec![pack.clone()]);
    assert_eq!(store.pack("p1").await.unwrap(), Some(pack));
}

fn pack() -> Pack {
    Pack {
        pack: "p1".into(),
        framework: "soc2".into(),
        from: START,
        to: START,
        as_of: START,
        path: "packs/p1.zip".into(),
        digest: "00".into(),
        created: START,
        body: serde_json::json!({"tests": 6}),
    }
}

/// A statement run by somebody else on the file of the store.
async fn from_outside(dir: &tempfile::TempDir, statement: &str) -> u64 {
    let options = SqliteConnectOptions::new().filename(dir.path().join("store.db")).foreign_keys(false);
    let mut outside = options.connect().await.unwrap();
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut outside).await.unwrap();
    sqlx::Connection::close(outside).await.unwrap();
    done.rows_affected()
}

/// A store with a row in every table.
async fn one_of_everything(dir: &tempfile::TempDir) -> SqliteStore {
    let store = open(dir).await;
    let (commit, _) = full(0);
    store.commit(&commit).await.unwrap();
    store.snapshot(0, 4, &[7; 4_096]).await.unwrap();
    store.commit(&batch(4, 5)).await.unwrap();
    store.enqueue("pager", &["m-1".into(), "m-2".into()]).await.unwrap();
    let due = store.due("pager", START, 1).await.unwrap();
    store.record_attempt(due[0].delivery.id, &attempt(START, AttemptOutcome::Delivered)).await.unwrap();
    store.advance_cursor("pager", 5).await.unwrap();
    let text = RuleText { digest: "d".into(), id: "r".into(), title: "t".into(), file: "f".into(), body: "b".into() };
    store.keep_rule_texts(&[text]).await.unwrap();
    store.add_pack(&pack()).await.unwrap();
    store
}

#[tokio::test]
async fn a_change_to_any_column_of_any_table_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = one_of_everything(&dir).await;
    assert_eq!(store.problems().await.unwrap(), Vec::<String>::new());
    let mut columns = Vec::new();
    let list = "SELECT t.name, c.name, c.type FROM sqlite_schema t, pragma_table_info(t.name) c
                WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    for row in sqlx::query(list).fetch_all(store.readers()).await.unwrap() {
        let (table, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        columns.push((table, column, kind));
    }
    let tables: std::collections::BTreeSet<&String> = columns.iter().map(|(table, ..)| table).collect();
    assert_eq!(tables.len(), checksum::ALL.len());
    store.close().await;
    let whole = std::fs::read(dir.path().join("store.db")).unwrap();
    for (table, column, kind) in &columns {
        let other = match (column.as_str(), kind.as_str()) {
            // States are checked by their digests, when they are restored.
            ("state" | "delta", "BLOB") => continue,
            // The table itself allows but few of these words.
            ("state", _) if table == "deliveries" => "'dead'".to_owned(),
            (_, "INTEGER") => format!("coalesce(\"{column}\", 0) + 1000"),
            (_, "BLOB") => "x'00'".to_owned(),
            _ => format!("coalesce(\"{column}\", '') || '.'"),
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.db"), &whole).unwrap();
        let changed = from_outside(&dir, &format!("UPDATE {table} SET \"{column}\" = {other}")).await;
        assert!(changed > 0, "{table} is empty");
        let said = match SqliteStore::open(&dir.path().join("store.db"), clock()).await {
            Err(error) => error.to_string(),
            Ok(store) => {
                let said = store.problems().await.unwrap().join("; ");
                store.close().await;
                said
            }
        };
        assert!(said.contains(table.as_str()), "{table}.{column}: {said:?}");
    }
    assert!(open(&dir).await.problems().await.unwrap().is_empty());
}

#[tokio::test]
async fn damage_is_named_where_the_row_is_read_and_is_not_made_good_by_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = one_of_everything(&dir).await;
    from_outside(&dir, "UPDATE findings SET title = 'nothing'").await;
    let error = store.findings_after(0, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::DamagedRow { table: "findings", .. }), "{error}");
    assert!(error.to_string().contains("row 1 of `findings`"), "{error}");
    from_outside(&dir, "UPDATE deliveries SET target = 'nobody'").await;
    let error = store.retry(2).await.unwrap_err();
    assert!(matches!(error, StoreError::DamagedRow { table: "deliveries", .. }), "{error}");
    from_outside(&dir, "UPDATE cursors SET seq = 900").await;
    assert!(matches!(store.cursor("pager").await.unwrap_err(), StoreError::DamagedRow { .. }));
    assert!(matches!(store.advance_cursor("pager", 9).await.unwrap_err(), StoreError::DamagedRow { .. }));
    store.close().await;
    let error = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap_err();
    assert!(error.to_string().contains("restore the store from a backup"), "{error}");
}

#[tokio::test]
async fn the_space_of_deltas_is_given_back_behind_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    // Nothing that can be compressed: xorshift64.
    let noise = |seed: u64| {
        let mut word = seed + 1;
        let next = |_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        };
        (0..25_000).flat_map(next).collect::<Vec<u8>>()
    };
    for number in 0..40 {
        store.commit(&Commit { delta: noise(number), ..batch(number, number + 1) }).await.unwrap();
    }
    store.fold().await.unwrap();
    let size = || std::fs::metadata(dir.path().join("store.db")).unwrap().len();
    let before = size();
    store.snapshot(0, 40, b"all of it").await.unwrap();
    store.give_back().await.unwrap();
    store.fold().await.unwrap();
    assert!(before > 8_000_000 && size() < 1_000_000, "{before} → {}", size());
    assert_eq!(store.problems().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.restore(0).await.unwrap().snapshot, Some((40, b"all of it".to_vec())));
}

#[tokio::test]
async fn a_table_that_is_defined_otherwise_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.close().await;
    from_outside(&dir, "DROP INDEX findings_by_time").await;
    let error = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap_err();
    assert!(error.to_string().contains("`findings_by_time`"), "{error}");
}

#[tokio::test]
async fn a_store_of_every_version_before_is_taken_over() {
    for version in 1..schema::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let mut before = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(false)
            .connect()
            .await
            .unwrap();
        for statements in &schema::MIGRATIONS[..version] {
            sqlx::raw_sql(*statements).execute(&mut before).await.unwrap();
        }
        let found = serde_json::to_string(&finding(1)).unwrap().replace('\'', "''");
        // Bodies are bytes from the fifth version on.
        let body = if version < 5 { format!("'{found}'") } else { format!("CAST('{found}' AS BLOB)") };
        let rows = format!(
            "PRAGMA user_version = {version}; PRAGMA application_id = {};
             INSERT INTO progress (partition, position, committed) VALUES (0, 3, 5);
             INSERT INTO state_deltas (partition, position, delta) VALUES (0, 3, x'0203');
             INSERT INTO duplicates (partition, record_index, first_index) VALUES (0, 2, 1);
             INSERT INTO findings (id, rule_id, rule_digest, level, state, title, time, fired, retro, committed, body)
             VALUES ('{}', 'r', 'd', 4, 'active', 't', 1, 1, 0, 1, {body})",
            0x7070_7374,
            finding(1).id,
        );
        sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut before).await.unwrap();
        if version >= 4 {
            checksum::seal(&mut before, checksum::FIRST).await.unwrap();
        }
        sqlx::Connection::close(before).await.unwrap();
        let store = open(&dir).await;
        assert_eq!(store.problems().await.unwrap(), Vec::<String>::new(), "version {version}");
        assert_eq!(store.restore(0).await.unwrap().deltas, vec![vec![2, 3]], "version {version}");
        assert_eq!(store.findings_after(0, 9).await.unwrap()[0].finding, finding(1), "version {version}");
        assert_eq!(store.duplicates_in(0, 0..9).await.unwrap().len(), 1, "version {version}");
        store.commit(&batch(3, 4)).await.unwrap();
        assert_eq!(open(&dir).await.position(0).await.unwrap(), 4, "version {version}");
    }
}

#[tokio::test]
async fn verdicts_that_were_forgotten_are_counted_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let repeated =
        |indexes: &[u64]| indexes.iter().map(|index| Duplicate { index: *index, first: 0 }).collect::<Vec<_>>();
    store.commit(&Commit { duplicates: repeated(&[1, 4, 6, 9]), ..batch(0, 12) }).await.unwrap();
    assert_eq!(store.forget_duplicates(0, 5).await.unwrap(), 2);
    assert_eq!(store.forget_duplicates(0, 5).await.unwrap(), 0);
    assert_eq!(store.forget_duplicates(0, 3).await.unwrap(), 0, "never back");
    assert_eq!(store.forget_duplicates(0, 7).await.unwrap(), 1);
    for store in [store, open(&dir).await] {
        assert_eq!(store.forgotten_duplicates(0).await.unwrap(), ForgottenDuplicates { below: 7, count: 3 });
        assert_eq!(store.forgotten_duplicates(1).await.unwrap(), ForgottenDuplicates::default());
        assert_eq!(store.duplicates_from(0, 0, 10).await.unwrap(), repeated(&[9]));
        assert_eq!(store.counts().await.unwrap().duplicates, 4);
        assert_eq!(store.problems().await.unwrap(), [] as [&str; 0]);
    }
}
