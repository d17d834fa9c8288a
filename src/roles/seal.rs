//! The seal role: once a minute unless set otherwise, and at every pack and stop, a signed checkpoint of the log becomes a leaf of the seal
//! tree. At a start the last one must still hold, or the log is not the log that was sealed.

use std::sync::Arc;

use bytes::Bytes;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::merkle::{Hash, Nodes};
use pipeproof_engine::record::Record;
use pipeproof_ingest::log::{Log, Sealed};
use pipeproof_record::lake::{CheckpointRow, Table};
use pipeproof_reports::checkpoint::Checkpoint;
use pipeproof_reports::keys::Keys;
use pipeproof_reports::seal::{SealError, SealLog, SealedCheckpoint, checkpoint_partition};

use crate::node::{NodeError, PARTITION, Shared};
use crate::upkeep::Upkeep;

/// Leaves of the seal tree that are read at once.
const AT_ONCE: usize = 256;

/// The seal tree over its log.
pub(crate) struct SealedTree<'a>(pub(crate) &'a Log);

impl Nodes for SealedTree<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn node(&self, level: u32, at: u64) -> Option<Hash> {
        self.0.node(level, at)
    }
}

impl SealLog for SealedTree<'_> {
    async fn append(&self, leaf: Vec<u8>) -> Result<u64, SealError> {
        let range = self.0.append(vec![Bytes::from(leaf)]).await;
        range.map(|range| range.start).map_err(|error| SealError::Append(Box::new(error)))
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        if tokio::time::timeout(shared.seal_every, stopping.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        if let Err(error) = seal_now(&shared).await {
            shared.put_off(Upkeep::Seal, &crate::chain(&error));
            // Its log stops at a failed write like any other; the next checkpoint may find it accepting.
            if let Err(error) = shared.seal.try_heal().await {
                tracing::warn!(%error, "the seal tree's log does not accept yet");
            }
        }
    }
}

/// Seals a checkpoint of everything durable and notes it in the lake.
pub(crate) async fn seal_now(shared: &Arc<Shared>) -> Result<SealedCheckpoint, NodeError> {
    let size = *shared.log.durable().borrow();
    let consistent = check_last_checkpoint(&shared.keys, &shared.log, &shared.seal).is_ok();
    Failpoint::SealBeforeAppend.pass();
    let sealed = checkpoint_partition(&shared.keys, &SealedTree(&shared.seal), PARTITION, &shared.log, size)
        .await
        .map_err(NodeError::part("seal a checkpoint"))?;
    Failpoint::SealAfterAppend.pass();
    shared.sealed.send_replace(size);
    note_missing(shared, sealed.seal_index).await?;
    let row = CheckpointRow {
        seq: sealed.seal_index + 1,
        log_id: shared.keys.instance().partition_origin(PARTITION),
        tree_size: size,
        root_hash: hex::encode(sealed.root),
        at: shared.clock.now(),
        consistent_with_prev: consistent,
        anchored_at: None,
        note: sealed.note.clone(),
    };
    note(shared, vec![row]).await?;
    Ok(sealed)
}

async fn note(shared: &Shared, rows: Vec<CheckpointRow>) -> Result<(), NodeError> {
    let noted = shared.lake.append_checkpoints(rows).await;
    noted.map(drop).map_err(NodeError::part("note a checkpoint in the lake"))
}

/// Notes the checkpoints before `end` that the lake lacks: a crash came before they were noted, or tore the commit that did. When they
/// were sealed stands nowhere else, so the time of the last record they cover stands for it.
async fn note_missing(shared: &Shared, end: u64) -> Result<(), NodeError> {
    let origin = shared.keys.instance().partition_origin(PARTITION);
    let fed = shared.lake.fed(Table::Checkpoints).await;
    let mut next = fed.map_err(NodeError::part("read where the lake stands"))?;
    while next < end {
        let leaves =
            shared.seal.read(next, AT_ONCE, usize::MAX).map_err(NodeError::part("read the seal tree's log"))?;
        let Some((last, _)) = leaves.last() else { break };
        next = last + 1;
        let mut rows = Vec::new();
        for (index, leaf) in leaves.iter().filter(|(index, _)| *index < end) {
            let Ok(text) = std::str::from_utf8(leaf) else { continue };
            // Entries of packs stand between them.
            if text.lines().next() == Some(origin.as_str()) {
                rows.push(missing(shared, *index, text, &origin)?);
            }
        }
        if !rows.is_empty() {
            note(shared, rows).await?;
        }
    }
    Ok(())
}

fn missing(shared: &Shared, index: u64, text: &str, origin: &str) -> Result<CheckpointRow, NodeError> {
    let checkpoint = Checkpoint::open(text, origin, &shared.keys.public().checkpoint)
        .map_err(NodeError::part("check the signature of a checkpoint"))?;
    let last = checkpoint.size.saturating_sub(1);
    let covered = shared.log.read(last, 1, 1).map_err(NodeError::part("read the log"))?;
    let covered = covered.first().filter(|(index, _)| *index == last);
    let received = covered.and_then(|(_, leaf)| Record::decode(leaf).ok()).map(|record| record.envelope.received);
    Ok(CheckpointRow {
        seq: index + 1,
        log_id: origin.to_owned(),
        tree_size: checkpoint.size,
        root_hash: hex::encode(checkpoint.root),
        at: received.unwrap_or_else(|| shared.clock.now()),
        consistent_with_prev: shared.log.root(checkpoint.size) == Some(checkpoint.root),
        anchored_at: None,
        note: text.to_owned(),
    })
}

/// How much of the partition the last sealed checkpoint covers, and its note: none for a new folder.
fn last_checkpoint(seal: &Log, origin: &str) -> Result<Option<String>, NodeError> {
    let mut index = *seal.durable().borrow();
    while index > 0 {
        index -= 1;
        let leaves = seal.read(index, 1, 1).map_err(NodeError::part("read the seal tree's log"))?;
        let note = leaves.first().and_then(|(_, leaf)| std::str::from_utf8(leaf).ok());
        if let Some(note) = note.filter(|note| note.lines().next() == Some(origin)) {
            return Ok(Some(note.to_owned()));
        }
    }
    Ok(None)
}

/// What the last sealed checkpoint says; whether it is signed is for [`check_last_checkpoint`]. `None` for a new folder.
pub(crate) fn last_sealed(keys: &Keys, seal: &Log) -> Result<Option<Sealed>, NodeError> {
    let Some(note) = last_checkpoint(seal, &keys.instance().partition_origin(PARTITION))? else { return Ok(None) };
    let checkpoint = Checkpoint::read_unverified(&note).map_err(NodeError::part("read the last checkpoint"))?;
    Ok(Some(Sealed { size: checkpoint.size, root: checkpoint.root }))
}

/// Refuses a log that is not the one the last checkpoint sealed.
pub(crate) fn check_last_checkpoint(keys: &Keys, log: &Log, seal: &Log) -> Result<(), NodeError> {
    let origin = keys.instance().partition_origin(PARTITION);
    let Some(note) = last_checkpoint(seal, &origin)? else { return Ok(()) };
    let checkpoint = Checkpoint::open(&note, &origin, &keys.public().checkpoint)
        .map_err(NodeError::part("check the signature of the last checkpoint"))?;
    if log.root(checkpoint.size) != Some(checkpoint.root) {
        let size = checkpoint.size;
        let reason = format!("the first {size} records are not those that were sealed: restore the log from a copy");
        return Err(NodeError::part("continue this log")(reason));
    }
    Ok(())
}
