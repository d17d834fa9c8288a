//! Rebuilds the registry at a start: its saved copy, and the control records after it.

use std::path::Path;

use pipeproof_engine::control::Control;
use pipeproof_engine::record::{LeafParts, Record};
use pipeproof_ingest::log::Log;

use crate::node::NodeError;
use crate::registry::Registry;

/// Records read at once.
const READ_RECORDS: usize = 16_384;
/// Bytes read at once.
const READ_BYTES: usize = 32 << 20;

pub(crate) fn rebuild_registry(data: &Path, log: &Log) -> Result<Registry, NodeError> {
    let mut registry = Registry::load(&data.join("registry.json")).map_err(NodeError::part("read the registry"))?;
    let end = *log.durable().borrow();
    if registry.position > end {
        // The copy is of another log, or of a part of this one that is gone: only the log counts.
        registry = Registry::default();
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
