//! What this node holds already, for collectors: items in the lake, jobs that the log says have ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeproof_engine::record::{LeafParts, Position, Record};
use pipeproof_ingest::collect::{CollectError, FinishedJob, Held, Seen};
use pipeproof_ingest::decode::decode;
use pipeproof_record::sql::{Limits, Sql};

use crate::node::{PARTITION, Shared};

/// How long the lake may take in what was detected.
const FRESH: Duration = Duration::from_secs(5);
/// How far back items are looked for: longer than repetitions are recognised.
const LOOKED_BACK: Duration = Duration::from_secs(8 * 24 * 3_600);
/// Records of the log read at a time.
const READ_RECORDS: usize = 4_096;
/// Bytes of the log read at a time.
const READ_BYTES: usize = 16 << 20;
/// Longest id that is asked for; what is longer is fetched and then recognised.
const ID_BYTES_MAX: usize = 256;

/// This node.
pub(super) struct Here(pub(super) Arc<Shared>);

impl std::fmt::Debug for Here {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Here")
    }
}

#[async_trait]
impl Held for Here {
    async fn known(&self, source: &str, items: &[String]) -> Result<BTreeSet<String>, CollectError> {
        // They come from outside and become part of a query.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@#".contains(&byte);
        let asked = items.iter().filter(|id| id.len() <= ID_BYTES_MAX && id.bytes().all(plain));
        let list: Vec<String> = asked.map(|id| format!("'id:{id}'")).collect();
        if list.is_empty() {
            return Ok(BTreeSet::new());
        }
        if !self.0.flush_lake(FRESH).await {
            tracing::debug!(source, "what is held is asked before the lake has taken in everything");
        }
        let since = self.0.clock.now().minus(LOOKED_BACK);
        let query = format!(
            "SELECT DISTINCT item FROM events WHERE source = '{source}' AND received >= TIMESTAMP '{since}' AND item IN ({})",
            list.join(", ")
        );
        let pin = self.0.lake.pin();
        let session = Sql::over(&pin, None, Limits::CONSOLE).await.map_err(|error| CollectError::Held(error.into()))?;
        let rows = session.query_json(&query, &[]).await.map_err(|error| CollectError::Held(error.into()))?;
        let ids = rows.rows.iter().filter_map(|row| row.first()?.as_str()?.strip_prefix("id:"));
        Ok(ids.map(ToOwned::to_owned).collect())
    }

    async fn finished(&self, source: &str, from: Option<u64>) -> Result<Seen, CollectError> {
        let (shared, source) = (Arc::clone(&self.0), source.to_owned());
        let read = tokio::task::spawn_blocking(move || finished(&shared, &source, from)).await;
        read.map_err(|error| CollectError::Held(error.into()))?
    }
}

fn finished(shared: &Shared, source: &str, from: Option<u64>) -> Result<Seen, CollectError> {
    let end = *shared.log.durable().borrow();
    let from = from.unwrap_or(end).max(shared.log.first());
    let mut seen = Seen { next: from, ..Seen::default() };
    let leaves = shared.log.read(from, READ_RECORDS, READ_BYTES).map_err(|error| CollectError::Held(error.into()))?;
    // Most records are of other sources: their envelopes need not be read as JSON to know that.
    let own = format!("{{\"source\":\"{source}\",");
    for (index, leaf) in leaves {
        seen.next = index + 1;
        if !LeafParts::split(&leaf).is_ok_and(|parts| parts.envelope.starts_with(own.as_bytes())) {
            continue;
        }
        let Ok(record) = Record::decode(&leaf) else { continue };
        let events = decode(Position { partition: PARTITION, index }, &record).unwrap_or_default();
        seen.jobs.extend(events.iter().filter_map(FinishedJob::of));
    }
    seen.more = seen.next < end;
    Ok(seen)
}
