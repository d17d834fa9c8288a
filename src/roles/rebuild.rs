//! Rebuilds the registry at a start: its saved copy, and the control records after it, from the lake where the log no longer
//! has them.

use std::path::Path;

use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::record::{LeafParts, Record};
use pipeproof_ingest::log::Log;
use pipeproof_record::lake::{Lake, Snapshot};

use crate::node::{NodeError, PARTITION};
use crate::registry::Registry;
use crate::secret_keys::SecretKey;

/// Records read at once.
const READ_RECORDS: usize = 16_384;
/// Bytes read at once.
const READ_BYTES: usize = 32 << 20;

pub(crate) fn rebuild_registry(data: &Path, key: &SecretKey, log: &Log, lake: &Lake) -> Result<Registry, NodeError> {
    let path = data.join("registry.json");
    let saved = Registry::load(&path, key).map_err(NodeError::part("read the registry"))?;
    let mut registry = saved.unwrap_or_else(|| {
        tracing::warn!(
            path = %path.display(),
            "this copy of sources and tokens is not what this program wrote, or of an earlier version: the control records are read again"
        );
        Registry::default()
    });
    if registry.position > *log.durable().borrow() {
        // The copy is of another log, or of a part of this one that is gone: only the log counts.
        registry = Registry::default();
    }
    fold_registry(registry, log, &lake.pin(), None)
}

/// The registry with the control records from its position on, up to `end` or to the end of the log.
pub(crate) fn fold_registry(
    mut registry: Registry,
    log: &Log,
    lake: &Snapshot,
    end: Option<u64>,
) -> Result<Registry, NodeError> {
    let end = end.unwrap_or(u64::MAX);
    if registry.position < log.first() {
        from_lake(&mut registry, log.first().min(end), lake)?;
    }
    while registry.position < end {
        let leaves = log.read(registry.position, READ_RECORDS, READ_BYTES).map_err(NodeError::part("read the log"))?;
        let Some((last, _)) = leaves.last() else { break };
        let next = last + 1;
        for (index, leaf) in leaves.iter().filter(|(index, _)| *index < end) {
            // Most records are not ours: their envelopes need not be read as JSON to know that.
            let own =
                LeafParts::split(leaf).is_ok_and(|parts| parts.envelope.starts_with(br#"{"source":"pipeproof","#));
            if own
                && let Ok(record) = Record::decode(leaf)
                && let Ok(control) = serde_json::from_slice::<Control>(&record.body)
            {
                registry.apply(&control, *index, record.envelope.received);
            }
        }
        registry.position = next.min(end);
    }
    Ok(registry)
}

/// Folds in the control records before `to` that the lake has.
fn from_lake(registry: &mut Registry, to: u64, lake: &Snapshot) -> Result<(), NodeError> {
    let doing = "read the lake for the registry";
    for stored in lake.records_from(PARTITION, OWN_SOURCE, registry.position).map_err(NodeError::part(doing))? {
        let stored = stored.map_err(NodeError::part(doing))?;
        let index = stored.index;
        if index < to
            && let Ok(record) = stored.decode()
            && let Ok(control) = serde_json::from_slice::<Control>(&record.body)
        {
            registry.apply(&control, index, record.envelope.received);
        }
    }
    registry.position = to;
    Ok(())
}
