//! Records that could not be decoded: listed, and read again once they can be. A replay is a control record, and what it
//! reads follows in the log as new records that name the old ones.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::record::{Position, Record};
use pipeproof_ingest::enrich::Decoder;
use pipeproof_record::sql::{Limits, Parameter, Sql};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{Asked, Body, internal};
use super::{Answer, ApiError};
use crate::node::{PARTITION, Shared};
use crate::registry::Caller;

/// Dead letters read from the store at a time.
const PAGE: usize = 1_000;
/// Most dead letters that one call reads again.
const REPLAY_MAX: usize = 20_000;
/// Most records whose outcome is asked for at once.
const RANGES_MAX: usize = 10_000;
/// Ranges of one query over the lake, whose text has a limit.
const RANGES_ASKED: usize = 200;
/// How long the outcome waits for detection, and then for the lake.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    source: Option<String>,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Asked(query): Asked<Query>) -> Answer {
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE);
    let letters = shared.store.dead_letters(query.source.as_deref(), query.after, limit).await;
    let letters = letters.map_err(internal("list dead letters"))?;
    let registry = shared.registry();
    let shown: Vec<Value> = letters
        .iter()
        .map(|stored| {
            let mut shown = serde_json::to_value(stored).unwrap_or_default();
            shown["replayed"] = registry.read_again.contains(&stored.letter.index).into();
            shown
        })
        .collect();
    Ok(Json(json!({ "dead_letters": shown })))
}

/// Which dead letters to read again: all that can be, unless it says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    source: Option<String>,
    records: Option<BTreeSet<u64>>,
}

/// What came of a replay.
#[derive(Debug, Default)]
struct Replay {
    letters: Vec<u64>,
    leaves: Vec<Bytes>,
    undecodable: usize,
    gone: usize,
}

pub(crate) async fn replay(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(which): Body<Which>,
) -> Answer {
    let letters = wanted(&shared, &which).await?;
    let worker = Arc::clone(&shared);
    let work = tokio::task::spawn_blocking(move || read_again(&worker, &letters));
    let replay = work.await.map_err(internal("read dead letters again"))??;
    let (letters, records) = (replay.letters.len(), replay.leaves.len());
    if letters > 0 {
        let control = Control::DeadLettersReplayed { records: replay.letters, actor: format!("token:{}", caller.id) };
        shared.control(control).await.map_err(|error| ApiError::unavailable(error.to_string()))?;
        shared.log.append(replay.leaves).await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    }
    Ok(Json(json!({
        "replayed": letters, "records": records, "undecodable": replay.undecodable, "gone": replay.gone,
    })))
}

/// Indexes of the dead letters that are asked for and were not read again before.
async fn wanted(shared: &Shared, which: &Which) -> Result<Vec<u64>, ApiError> {
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = shared.store.dead_letters(which.source.as_deref(), after, PAGE).await;
        let page = page.map_err(internal("list dead letters"))?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.seq;
        let registry = shared.registry();
        let asked = |index: &u64| which.records.as_ref().is_none_or(|records| records.contains(index));
        let indexes = page.iter().map(|stored| stored.letter.index);
        found.extend(indexes.filter(|index| asked(index) && !registry.read_again.contains(index)));
        if found.len() >= REPLAY_MAX {
            found.truncate(REPLAY_MAX);
            return Ok(found);
        }
    }
}

/// Takes dead letters apart again and keeps what can be decoded now.
fn read_again(shared: &Shared, letters: &[u64]) -> Result<Replay, ApiError> {
    let mut decoder = shared.decoder();
    let mut replay = Replay::default();
    for index in letters {
        let read = shared.log.read(*index, 1, usize::MAX).map_err(internal("read the log"))?;
        let record = read.iter().find(|(at, _)| at == index).and_then(|(_, leaf)| Record::decode(leaf).ok());
        let Some(record) = record else {
            replay.gone += 1;
            continue;
        };
        let again = shared.receiver.again(&record, *index, shared.clock.now());
        let again = again.map_err(|refusal| ApiError::new(refusal.status(), refusal.code(), refusal.to_string()))?;
        if !again.iter().any(|record| is_event(&mut decoder, *index, record)) {
            replay.undecodable += 1;
            continue;
        }
        for record in again {
            let leaf = record.encode().map_err(internal("write a record"))?;
            replay.leaves.push(Bytes::from(leaf));
        }
        replay.letters.push(*index);
    }
    Ok(replay)
}

fn is_event(decoder: &mut Decoder, index: u64, record: &Record) -> bool {
    let position = Position { partition: PARTITION, index };
    decoder.decode(position, record).is_ok_and(|events| !events.is_empty())
}

/// Ranges of the log, `[from, to)` each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ranges {
    ranges: Vec<(u64, u64)>,
    source: Option<String>,
}

/// What became of the records of these ranges, once detection and the lake have passed them: repetitions as detection judged them,
/// dead letters as it listed them, and events as the lake holds them. Each is counted where it ended up, so that what is lost on
/// the way is missing from the sum.
pub(crate) async fn outcome(State(shared): State<Arc<Shared>>, Body(asked): Body<Ranges>) -> Answer {
    if asked.ranges.len() > RANGES_MAX {
        return Err(ApiError::bad_request(format!("at most {RANGES_MAX} ranges at once")));
    }
    let ranges: Vec<_> = asked.ranges.iter().map(|(from, to)| *from..*to).filter(|range| !range.is_empty()).collect();
    if let Some(last) = ranges.iter().map(|range| range.end - 1).max()
        && !shared.wait_detected(last, PATIENCE).await
    {
        return Err(ApiError::unavailable("detection has not reached these records yet"));
    }
    if !ranges.is_empty() && !shared.flush_lake(PATIENCE).await {
        return Err(ApiError::unavailable("the lake has not taken in these records yet"));
    }
    let mut duplicates = 0;
    for range in &ranges {
        let found = shared.store.duplicates_in(PARTITION, range.clone()).await;
        duplicates += found.map_err(internal("read duplicate verdicts"))?.len();
    }
    let mut dead_letters = 0;
    let mut after = 0;
    loop {
        let page = shared.store.dead_letters(asked.source.as_deref(), after, PAGE).await;
        let page = page.map_err(internal("list dead letters"))?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        dead_letters +=
            page.iter().filter(|stored| ranges.iter().any(|range| range.contains(&stored.letter.index))).count();
    }
    let accepted = accepted(&shared, &ranges, asked.source).await?;
    Ok(Json(json!({ "accepted": accepted, "duplicates": duplicates, "dead_letters": dead_letters })))
}

/// How many records of these ranges the lake holds as events: those of one source, or of all but our own.
async fn accepted(shared: &Shared, ranges: &[Range<u64>], source: Option<String>) -> Result<u64, ApiError> {
    let (comparison, source) = source.map_or_else(|| ("<>", OWN_SOURCE.to_owned()), |source| ("=", source));
    let session = Sql::over(&shared.lake.pin(), None, Limits::EVIDENCE).await.map_err(internal("open the lake"))?;
    let mut accepted = 0;
    for some in ranges.chunks(RANGES_ASKED) {
        let within = |range: &Range<u64>| format!("(\"index\" >= {} AND \"index\" < {})", range.start, range.end);
        let places = some.iter().map(within).collect::<Vec<_>>().join(" OR ");
        // Every record that is no repetition has one row with number 0.
        let query = format!(
            "SELECT count(*) FROM events WHERE source {comparison} :source AND sub = 0 AND dead_letter IS NULL AND ({places})"
        );
        let named = [("source", Parameter::Text(source.clone()))];
        let answer = session.query_json(&query, &named).await.map_err(internal("count records in the lake"))?;
        accepted += answer.rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or(0);
    }
    Ok(accepted)
}
