//! Redaction of what was stored: a secret slipped through, and the payload of its record is dropped from log, lake, store and the state of
//! detection.
//!
//! A control record orders it; from then on it happens, also over kills: what is ordered and not done is done at the next start.
//! Detection forgets the record where it reads the order (`roles::detect`), then the store lets go of what rests on it, the lake
//! rewrites its files, the log overwrites the leaf, and the store is written anew. A second control record says that it is done, what
//! was dropped, and what nobody here can reach: packs that were sealed and targets that were told. The leaf's hash stays everywhere, so
//! the log's root and every proof of another record hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::control::{Approval, Control, Dropped, OWN_SOURCE, RedactionDone, RedactionRecord};
use pipeproof_engine::detect::Detector;
use pipeproof_engine::event::EventId;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_engine::record::{Position, Record};
use pipeproof_engine::redaction::Forgotten;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::Redaction;
use pipeproof_record::sql::{Limits, Parameter, Sql};
use pipeproof_record::store::{SqliteStore, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evidence::LOOKBACK;
use crate::node::{NodeError, PARTITION, Shared};
use crate::registry::Registry;

/// How long detection and lake may take to get to the record.
const PATIENCE: Duration = Duration::from_secs(120);
/// Records that one redaction drops at most: repetitions of one item.
const RECORDS_MAX: usize = 10_000;
/// How long a start waits before what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A redaction, as the log tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ordered {
    pub(crate) at: Timestamp,
    pub(crate) order: RedactionRecord,
    /// None: it is under way, or goes on at the next start.
    pub(crate) done: Option<RedactionDone>,
}

impl Ordered {
    /// What stands where the payload was.
    pub(crate) fn note(&self, order: u64) -> String {
        format!("redacted at {} by {}: record {PARTITION}-{order} says why", self.at, self.order.actor)
    }
}

/// What whoever asks says about it.
#[derive(Clone, Debug)]
pub(crate) struct Mandate {
    pub(crate) reason: String,
    pub(crate) actor: String,
    /// Whom the approver is compared with.
    pub(crate) author: String,
    pub(crate) approved_by: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RedactionError {
    /// It cannot be asked for.
    #[error("{0}")]
    Asked(String),
    #[error("{0}")]
    Unknown(String),
    /// Not now.
    #[error("{0}")]
    Later(String),
    #[error("cannot {doing}; the redaction is ordered, and goes on at the next start or when it is asked for again")]
    Unfinished {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn unfinished<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl FnOnce(E) -> RedactionError {
    move |source| RedactionError::Unfinished { doing, source: source.into() }
}

/// The record an argument names: an event's id, or a record's.
pub(crate) fn named(text: &str) -> Result<Position, RedactionError> {
    let of_event = text.parse::<EventId>().ok().map(|id| id.position);
    let of_record = || {
        let (partition, index) = text.split_once('-')?;
        Some(Position { partition: partition.parse().ok()?, index: index.parse().ok()? })
    };
    let found = of_event.or_else(of_record).filter(|position| position.partition == PARTITION);
    found.ok_or_else(|| {
        RedactionError::Asked(format!("`{text}` is no id of an event (0-INDEX-NUMBER) or a record (0-INDEX)"))
    })
}

/// Drops the payload of a record, its repetitions and what was read again of it. Asked for again, it does what is not done, and tells
/// what was.
pub(crate) async fn redact(
    shared: &Arc<Shared>,
    position: Position,
    mandate: &Mandate,
) -> Result<(u64, Ordered), RedactionError> {
    let _turn = shared.redacting.lock().await;
    let known = shared.registry().redaction_of(position.index);
    let order = match known {
        Some((order, _)) => order,
        None => order(shared, position.index, mandate).await?,
    };
    complete(shared, order).await?;
    let registry = shared.registry();
    let ordered = registry.redactions.get(&order).cloned();
    ordered
        .map(|ordered| (order, ordered))
        .ok_or_else(|| RedactionError::Later("the redaction is not known yet".into()))
}

/// Finds out what is meant, and writes down that it is to go.
async fn order(shared: &Arc<Shared>, index: u64, mandate: &Mandate) -> Result<u64, RedactionError> {
    if index >= *shared.log.durable().borrow() {
        return Err(RedactionError::Unknown(format!("there is no record {PARTITION}-{index}")));
    }
    // Which records repeat others is known once detection has passed them, and what the lake has once it followed.
    if !shared.wait_detected(index, PATIENCE).await || !shared.flush_lake(PATIENCE).await {
        return Err(RedactionError::Later("detection or the lake has not come to this record yet: try again".into()));
    }
    let mut found: BTreeMap<u64, Stored> = BTreeMap::new();
    let mut open = BTreeSet::from([index]);
    while let Some(next) = open.pop_first() {
        let stored = stored(shared, next).await?;
        let repeated = shared.store.repetitions_of(PARTITION, next).await;
        open.extend(repeated.map_err(NodeError::part("look for repetitions of a record"))?);
        if let Some(stored) = &stored {
            open.extend(stored.again_of);
            open.extend(read_again(shared, stored).await?);
        }
        found.insert(next, stored.unwrap_or_default());
        open.retain(|index| !found.contains_key(index));
        if found.len() > RECORDS_MAX {
            return Err(RedactionError::Asked(format!("the record has more than {RECORDS_MAX} repetitions")));
        }
    }
    let Some(named) = found.get(&index).filter(|stored| !stored.source.is_empty()) else {
        return Err(RedactionError::Unknown(format!("record {PARTITION}-{index} is a gap: nothing of it is stored")));
    };
    if named.source == OWN_SOURCE {
        let message = "a record of pipeproof itself cannot be redacted: it says what was decided, and when";
        return Err(RedactionError::Asked(message.to_owned()));
    }
    let received = found.values().filter_map(|stored| stored.received);
    let received = received.fold(None, |span: Option<(Timestamp, Timestamp)>, time| {
        Some(span.map_or((time, time), |(first, last)| (first.min(time), last.max(time))))
    });
    let record = RedactionRecord {
        records: found.keys().copied().collect(),
        source: named.source.clone(),
        received: received.unwrap_or_default(),
        moments: found
            .values()
            .flat_map(|stored| stored.moments.iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        reason: mandate.reason.clone(),
        actor: mandate.actor.clone(),
        approved_by: mandate.approved_by.clone(),
        approval: Approval::judge(&mandate.author, mandate.approved_by.as_deref()),
    };
    let order = shared.control(Control::RecordsRedacted(record)).await;
    let order = order.map_err(|error| RedactionError::Later(error.to_string()))?;
    Failpoint::RedactAfterOrder.pass();
    tracing::info!(order, record = index, "a redaction is ordered");
    Ok(order)
}

/// What is known of a record besides its payload.
#[derive(Debug, Default)]
struct Stored {
    source: String,
    item: String,
    received: Option<Timestamp>,
    moments: BTreeSet<Timestamp>,
    /// The dead letter it was read from again.
    again_of: Option<u64>,
}

/// A record as the log has it, or else the lake. Its events are decoded as detection did.
async fn stored(shared: &Arc<Shared>, index: u64) -> Result<Option<Stored>, RedactionError> {
    let read = shared.log.read(index, 1, 1).map_err(NodeError::part("read the log"))?;
    let leaf = read.into_iter().find(|(at, _)| *at == index).map(|(_, leaf)| leaf);
    let rows = rows(
        shared,
        r#"SELECT "time", received, source, item, envelope FROM events WHERE "index" = :I"#,
        &[("I", Parameter::Int(i64::try_from(index).unwrap_or(i64::MAX)))],
    )
    .await?;
    let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut stored = Stored::default();
    for row in &rows {
        stored.moments.extend(Timestamp::parse(&text(row, 0)));
        stored.received = stored.received.or_else(|| Timestamp::parse(&text(row, 1)));
        stored.source = text(row, 2);
        stored.item = text(row, 3);
        stored.again_of = stored.again_of.or_else(|| again_of(&text(row, 4)));
    }
    if let Some(record) = leaf.and_then(|leaf| Record::decode(&leaf).ok()) {
        let envelope = record.envelope;
        stored.received = Some(envelope.received);
        stored.again_of = envelope.attributes.get(AGAIN).and_then(|index| index.parse().ok());
        (stored.source, stored.item) = (envelope.source, envelope.item);
    }
    Ok((!stored.source.is_empty()).then_some(stored))
}

/// Attribute that says of which dead letter a record is a second reading.
const AGAIN: &str = "again.record";

fn again_of(envelope: &str) -> Option<u64> {
    let envelope: Value = serde_json::from_str(envelope).ok()?;
    envelope.get("attributes")?.get(AGAIN)?.as_str()?.parse().ok()
}

/// What was read again of a dead letter.
async fn read_again(shared: &Arc<Shared>, stored: &Stored) -> Result<Vec<u64>, RedactionError> {
    let query = r#"SELECT DISTINCT "index" FROM events WHERE source = :S AND (item = :A OR starts_with(item, :B))"#;
    let parameters = [
        ("S", Parameter::Text(stored.source.clone())),
        ("A", Parameter::Text(format!("{}/again", stored.item))),
        ("B", Parameter::Text(format!("{}/again/", stored.item))),
    ];
    let rows = rows(shared, query, &parameters).await?;
    Ok(rows.iter().filter_map(|row| row.first()?.as_u64()).collect())
}

async fn rows(
    shared: &Arc<Shared>,
    query: &str,
    parameters: &[(&str, Parameter)],
) -> Result<Vec<Vec<Value>>, RedactionError> {
    let doing = "look for the record in the lake";
    let sql = Sql::over(&shared.lake.pin(), None, Limits::CONSOLE).await.map_err(NodeError::part(doing))?;
    let answer = sql.query_json(query, parameters).await.map_err(NodeError::part(doing))?;
    Ok(answer.rows)
}

/// What takes the place of a record is its leaf hash: one that is damaged is mended first, or the order waits for it.
async fn hashes_are_there(shared: &Arc<Shared>, records: &[u64]) -> Result<(), RedactionError> {
    for index in records {
        if shared.log.leaf(*index).is_some() {
            continue;
        }
        let mended = crate::damage::check_hashes(shared, *index).await;
        let mended = mended.map_err(unfinished("read the leaf hash of the record"))?;
        if let Err(problem) = mended {
            return Err(unfinished("find the leaf hash of the record")(problem));
        }
        if shared.log.leaf(*index).is_none() {
            return Err(unfinished("find the leaf hash of the record")(format!("record {index} has none")));
        }
    }
    Ok(())
}

/// Does what an order says, as far as it is not done. Whoever calls holds the turn.
async fn complete(shared: &Arc<Shared>, order: u64) -> Result<(), RedactionError> {
    let Some(ordered) = shared.registry().redactions.get(&order).cloned() else { return Ok(()) };
    if ordered.done.is_some() {
        return Ok(());
    }
    // The lake follows first, so that nothing of the record is on its way any more.
    if !shared.wait_detected(order, PATIENCE).await || !shared.flush_lake(PATIENCE).await {
        return Err(unfinished("wait for detection and lake")("they have not come to the order"));
    }
    // Who reads what is about to go is let finish, and nobody begins.
    let _packs = shared.evidence.lock().await;
    let backtests = shared.backtests.acquire().await;
    let _backtests = backtests.map_err(unfinished("wait for backtests"))?;
    let _copies = shared.copying.lock().await;
    let note = ordered.note(order);
    let forgotten = forgotten(&shared.store, &ordered.order, &note).await;
    let forgotten = forgotten.map_err(unfinished("find what rests on the record"))?;
    let records: Vec<u64> = forgotten.records.iter().copied().collect();
    hashes_are_there(shared, &records).await?;
    let store = shared.store.redact(&forgotten, &note).await.map_err(unfinished("redact the store"))?;
    Failpoint::RedactAfterStore.pass();
    let lake = {
        // What the archive read before the store changed has arrived once it can be held.
        let _archive = shared.archiving.lock().await;
        let hash = |index: &u64| Some((*index, shared.log.leaf(*index)?));
        let hashes = forgotten.records.iter().filter_map(hash).collect();
        let redaction = Redaction {
            partition: PARTITION,
            records: hashes,
            note: note.clone(),
            findings: store.findings.clone(),
            deliveries: store.deliveries.clone(),
        };
        shared.lake.redact(&redaction).await.map_err(unfinished("redact the lake"))?
    };
    let log = shared.log.redact(ordered.order.records.clone()).await.map_err(unfinished("redact the log"))?;
    shared.store.purge().await.map_err(unfinished("write the store anew"))?;
    Failpoint::RedactAfterVacuum.pass();
    let done = RedactionDone {
        redaction: order,
        dropped: Dropped {
            log_records: log,
            lake_rows: lake.rows,
            lake_files: lake.files,
            findings: store.findings.len() as u64,
            incidents: store.incidents,
            messages: store.messages,
            deliveries: store.deliveries.len() as u64,
            dead_letters: store.dead_letters,
        },
        packs: packs(shared, &ordered.order).await?,
        targets: store.targets.into_iter().collect(),
    };
    shared.control(Control::RedactionDone(done)).await.map_err(unfinished("write down that it is done"))?;
    tracing::info!(order, "a redaction is done");
    Ok(())
}

/// Sealed packs that hold the records.
async fn packs(shared: &Shared, order: &RedactionRecord) -> Result<Vec<String>, RedactionError> {
    let packs = shared.store.packs().await.map_err(unfinished("list packs"))?;
    let (first, last) = order.received;
    let holds = packs.iter().filter(|pack| pack.from.minus(LOOKBACK) <= last && first <= pack.as_of);
    Ok(holds.map(|pack| pack.pack.clone()).collect())
}

/// What detection is to forget, as the store tells it.
pub(crate) async fn forgotten(
    store: &SqliteStore,
    order: &RedactionRecord,
    note: &str,
) -> Result<Forgotten, StoreError> {
    let records = order.records.iter().copied().collect();
    store.to_forget(PARTITION, records, order.moments.iter().copied(), note).await
}

/// A detector that a kill stopped between an order and the state without the payload catches up.
pub(crate) async fn catch_up(
    detector: &mut Detector,
    store: &SqliteStore,
    registry: &Registry,
) -> Result<(), NodeError> {
    use pipeproof_engine::commit::Store as _;

    let doing = "forget what was redacted";
    let passed = |(order, ordered): &(&u64, &Ordered)| ordered.done.is_none() && **order < detector.position();
    let pending: Vec<_> = registry.redactions.iter().filter(passed).collect();
    if pending.is_empty() {
        return Ok(());
    }
    for (order, ordered) in pending {
        let forgotten = forgotten(store, &ordered.order, &ordered.note(*order)).await;
        detector.forget(&forgotten.map_err(NodeError::part(doing))?);
    }
    let state = detector.snapshot().map_err(NodeError::part(doing))?;
    store.snapshot(PARTITION, detector.position(), &state).await.map_err(NodeError::part(doing))
}

/// Goes on with what was ordered before the start and is not done.
pub(crate) async fn finish(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let pending: Vec<u64> = {
            let registry = shared.registry();
            let open = registry.redactions.iter().filter(|(_, ordered)| ordered.done.is_none());
            open.map(|(order, _)| *order).collect()
        };
        if pending.is_empty() {
            return;
        }
        for order in pending {
            let _turn = shared.redacting.lock().await;
            if let Err(error) = complete(&shared, order).await {
                tracing::warn!(error = %crate::chain(&error), order, "a redaction is not done yet");
            }
        }
        if tokio::time::timeout(RETRY, stopping.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}
