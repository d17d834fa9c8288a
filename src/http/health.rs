//! How sources do: what came last and how much, how late it was, what repeated, what could not be decoded, where we or the
//! source had a gap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use pipeproof_engine::commit::{Completeness, SourceWindow};
use pipeproof_engine::control::OWN_SOURCE;
use pipeproof_engine::detect::StreamStatus;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::sql::{Limits, Sql};
use serde_json::{Value, json};

use super::Answer;
use super::answers::internal;
use crate::node::Shared;

/// What health is told over.
const OVER: Duration = Duration::from_secs(24 * 3_600);
/// What the rate is told over.
const RATE_OVER: Duration = Duration::from_secs(5 * 60);
/// How long the lake may take in what was detected; then it is told from what is there.
const FRESH: Duration = Duration::from_secs(2);

/// Streams of a source that are told one by one.
const STREAMS_TOLD: usize = 20;

/// Latest event, rate and lag of each source, from the lake. Only events that came live and carry a time of their own
/// have a lag; a negative one is a clock that runs ahead.
const QUERY: &str = "
WITH seen AS (
    SELECT source, received, sub,
           CASE WHEN time_known AND mode = 'live' THEN date_part('epoch', received) - date_part('epoch', time) END AS lag
    FROM events WHERE received >= TIMESTAMP '{from}' AND dead_letter IS NULL
)
SELECT source, max(received), count(*), count(*) FILTER (WHERE received >= TIMESTAMP '{recent}'),
       approx_percentile_cont(lag, 0.5), approx_percentile_cont(lag, 0.99), min(lag)
FROM seen WHERE sub = 0 GROUP BY source";

pub(crate) async fn sources(State(shared): State<Arc<Shared>>) -> Answer {
    let now = shared.clock.now();
    let from = now.minus(OVER);
    let windows = shared.store.windows(from, Timestamp::MAX).await.map_err(internal("read the windows of sources"))?;
    let windows: Vec<SourceWindow> = windows.into_iter().map(|stored| stored.window).collect();
    let seen = seen(&shared, from, now).await?;
    let heard = shared.heard().await.map_err(internal("read when sources were last heard of"))?;
    let heard: BTreeMap<&str, Timestamp> = heard.iter().map(|one| (one.source.as_str(), one.received)).collect();
    let status = shared.status();
    let mut known: BTreeMap<String, Value> = shared
        .registry()
        .sources
        .values()
        .map(|source| {
            let about = json!({
                "name": source.name, "type": source.source_type, "labels": source.labels,
                "connected": source.connected, "generation": source.generation,
            });
            (source.name.clone(), about)
        })
        .collect();
    // A token for a type makes a source of that name; one that was removed is none any more.
    let implied = |window: &&SourceWindow| window.records > 0 && window.source == window.source_type.name();
    for window in windows.iter().filter(|window| window.source != OWN_SOURCE).filter(implied) {
        known
            .entry(window.source.clone())
            .or_insert_with(|| json!({ "name": window.source, "type": window.source_type }));
    }
    let sources: Vec<Value> = known
        .into_iter()
        .map(|(name, mut about)| {
            let own: Vec<&SourceWindow> = windows.iter().filter(|window| window.source == name).collect();
            about["last_event"] = json!(heard.get(name.as_str()));
            about["this_hour"] = json!(own.iter().rfind(|window| window.end > now));
            about["last_24h"] = health(&own, seen.get(&name));
            let streams: Vec<&StreamStatus> = status.streams.iter().filter(|stream| stream.source == name).collect();
            if !streams.is_empty() {
                about["sequence"] = numbers(&streams);
            }
            let silence = status.silences.iter().find(|silence| silence.source == name);
            if let (Some(patience), Some(silence)) = (shared.patience, silence) {
                about["silence"] = patience.told(silence);
            }
            let collectors = shared.collecting.told(&shared, &name);
            if !collectors.is_empty() {
                about["collectors"] = json!(collectors);
            }
            let inputs = shared.inputs.told(&shared, &name);
            if !inputs.is_empty() {
                about["inputs"] = json!(inputs);
            }
            about
        })
        .collect();
    Ok(Json(json!({ "sources": sources, "from": from, "to": now })))
}

fn health(windows: &[&SourceWindow], seen: Option<&Vec<Value>>) -> Value {
    let sum = |of: fn(&SourceWindow) -> u64| windows.iter().map(|window| of(window)).sum::<u64>();
    let cell = |at: usize| seen.and_then(|row| row.get(at)).cloned().unwrap_or_default();
    let minutes = RATE_OVER.as_secs_f64() / 60.0;
    let ahead = cell(6).as_f64().map(|least| (-least).max(0.0));
    json!({
        "last_event": cell(1),
        "items": cell(2).as_u64().unwrap_or(0),
        "rate_per_minute": cell(3).as_f64().unwrap_or(0.0) / minutes,
        "lag_p50_s": cell(4), "lag_p99_s": cell(5), "skew_s": ahead,
        "records": sum(|window| window.records),
        "events": sum(|window| window.events),
        "duplicates": sum(|window| window.duplicates),
        "dead_letters": sum(|window| window.dead_letters),
        "gaps": windows.iter().filter(|window| window.status == Completeness::Gap).count(),
        "down_s": windows.iter().map(|window| window.down_secs).sum::<i64>(),
    })
}

/// What the numbers of a source's events say. Of many streams those with a gap come first.
fn numbers(streams: &[&StreamStatus]) -> Value {
    let by_sender = || streams.iter().filter(|stream| stream.by == "sender");
    let sum = |of: fn(&StreamStatus) -> u64| by_sender().map(|stream| of(stream)).fold(0, u64::saturating_add);
    let mut told = streams.to_vec();
    told.sort_by_key(|stream| std::cmp::Reverse(stream.missing));
    told.truncate(STREAMS_TOLD);
    json!({
        "missing": sum(|stream| stream.missing),
        "lost": sum(|stream| stream.lost),
        "restarts": sum(|stream| stream.restarts),
        "streams": streams.len(),
        "told": told,
    })
}

/// The query's rows by source.
async fn seen(
    shared: &Shared,
    from: Timestamp,
    now: Timestamp,
) -> Result<BTreeMap<String, Vec<Value>>, super::ApiError> {
    if !shared.flush_lake(FRESH).await {
        tracing::debug!("the health of sources is told before the lake has taken in everything");
    }
    let query = QUERY.replace("{from}", &from.to_string()).replace("{recent}", &now.minus(RATE_OVER).to_string());
    let session = Sql::over(&shared.lake.pin(), None, Limits::CONSOLE).await.map_err(internal("open the lake"))?;
    let rows = session.query_json(&query, &[]).await.map_err(internal("ask for the health of sources"))?;
    let named = rows.rows.into_iter().filter_map(|row| Some((row.first()?.as_str()?.to_owned(), row)));
    Ok(named.collect())
}
