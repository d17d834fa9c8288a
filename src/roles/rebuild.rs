//! Rebuilds the registry at a start: its saved copy, and the control records after it, from the lake where the log no longer
//! has them.

use std::path::Path;

use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::record::{LeafParts, Record};
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::log::Log;
use pipeproof_record::lake::{Lake, Skip};

use crate::node::{NodeError, PARTITION};
use crate::registry::Registry;

/// Records read at once.
const READ_RECORDS: usize = 16_384;
/// Bytes read at once.
const READ_BYTES: usize = 32 << 20;

pub(crate) fn rebuild_registry(data: &Path, log: &Log, lake: &Lake) -> Result<Registry, NodeError> {
    let mut registry = Registry::load(&data.join("registry.json")).map_err(NodeError::part("read the registry"))?;
    let end = *log.durable().borrow();
    if registry.position > end {
        // The copy is of another log, or of a part of this one that is gone: only the log counts.
        registry = Registry::default();
    }
    if registry.position < log.first() {
        from_lake(&mut registry, log.first(), lake)?;
    }
    loop {
        let leaves = log.read(registry.position, READ_RECORDS, READ_BYTES).map_err(NodeError::part("read the log"))?;
        let Some((last, _)) = leaves.last() else { return Ok(registry) };
        let next = last + 1;
        for (index, leaf) in &leaves {
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
        registry.position = next;
    }
}

/// Folds in the control records before `to` that the lake has.
fn from_lake(registry: &mut Registry, to: u64, lake: &Lake) -> Result<(), NodeError> {
    let doing = "read the lake for the registry";
    // Files of other sources are not opened.
    let skip = Skip { before: Some(Timestamp::MAX), kept: Some(OWN_SOURCE.to_owned()) };
    for stored in lake.pin().records(PARTITION, &skip).map_err(NodeError::part(doing))? {
        let stored = stored.map_err(NodeError::part(doing))?;
        let index = stored.index;
        if (registry.position..to).contains(&index)
            && let Ok(record) = stored.decode()
            && let Ok(control) = serde_json::from_slice::<Control>(&record.body)
        {
            registry.apply(&control, index, record.envelope.received);
        }
    }
    registry.position = to;
    Ok(())
}
