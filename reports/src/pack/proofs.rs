//! The proofs of a pack: event → partition root → seal root.
//!
//! | file | proves |
//! |---|---|
//! | `40_proofs/records/P-I.tlog-proof` | record I, cited by a row, is leaf I of partition P |
//! | `40_proofs/records-P.json` | every record of the pack is the leaf of P that it says, in one proof |
//! | `40_proofs/checkpoints/P.tlog-proof` | the checkpoint of P is a leaf of the seal tree |
//! | `30_completeness/checkpoint-end-P.txt` | the checkpoint itself; `-start-` the one at the start of the period |
//! | `30_completeness/consistency-proof-P.json` | nothing before the start was changed until the end |
//! | `verify/seal-consistency.json` | the seal tree only grew, up to the pack's own signature |

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::merkle::{Hash, Nodes, leaf_hash};
use pipeproof_engine::record::Position;
use serde::{Deserialize, Serialize};

use crate::checkpoint::write_proof;
use crate::keys::Keys;
use crate::pack::{PackError, PackFile, PackInput, Partition, citations, set_proof};
use crate::seal::{missing, prove_checkpoint};
use crate::signing::entry::base64;

/// Folder of the proofs below `data/`.
pub(crate) const FOLDER: &str = "40_proofs";

/// A proof for many leaves of one partition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetProof {
    pub(crate) partition: u32,
    pub(crate) size: u64,
    pub(crate) root: String,
    pub(crate) hashes: Vec<String>,
}

/// That one tree is a prefix of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) old_size: u64,
    pub(crate) old_root: String,
    pub(crate) new_size: u64,
    pub(crate) new_root: String,
    pub(crate) hashes: Vec<String>,
}

/// Path below `data/` of a cited record's proof.
pub(crate) fn record_path(position: Position) -> String {
    format!("{FOLDER}/records/{position}.tlog-proof")
}

/// The position that [`record_path`] made a path of.
pub(crate) fn record_of(path: &str) -> Option<Position> {
    let name = path.strip_prefix(FOLDER)?.strip_prefix("/records/")?.strip_suffix(".tlog-proof")?;
    let (partition, index) = name.split_once('-')?;
    let position = Position { partition: partition.parse().ok()?, index: index.parse().ok()? };
    (record_path(position) == path).then_some(position)
}

/// Path below `data/` of the proof of all records of a partition.
pub(crate) fn set_path(partition: u32) -> String {
    format!("{FOLDER}/records-{partition}.json")
}

/// Path below `data/` of a checkpoint's place in the seal tree.
pub(crate) fn checkpoint_path(partition: u32) -> String {
    format!("{FOLDER}/checkpoints/{partition}.tlog-proof")
}

/// Path below `data/` of a checkpoint; `end` or `start`.
pub(crate) fn note_path(which: &str, partition: u32) -> String {
    format!("30_completeness/checkpoint-{which}-{partition}.txt")
}

/// Path below `data/` of the proof that start and end are of one history.
pub(crate) fn growth_path(partition: u32) -> String {
    format!("30_completeness/consistency-proof-{partition}.json")
}

/// All proofs that stand in `data/`.
pub(crate) fn files(
    input: &PackInput,
    keys: &Keys,
    seal_tree: &dyn Nodes,
    partitions: &[Partition<'_>],
) -> Result<Vec<PackFile>, PackError> {
    let by_number: BTreeMap<u32, &Partition<'_>> =
        partitions.iter().map(|partition| (partition.checkpoint.partition, partition)).collect();
    let held = held(input, &by_number)?;
    let mut files = Vec::new();
    for position in cited(input, &held)? {
        let Some(partition) = by_number.get(&position.partition) else { continue };
        let path = partition.tree.inclusion_proof(position.index, partition.checkpoint.size);
        let path = path.ok_or_else(|| missing("partition", format!("leaf {position}")))?;
        let proof = write_proof(position.index, &path, &partition.checkpoint.note);
        files.push(PackFile::new(record_path(position), proof, format!("record {position} is in the log")));
    }
    for (number, partition) in &by_number {
        let checkpoint = partition.checkpoint;
        let indices: Vec<u64> =
            held.iter().filter(|position| position.partition == *number).map(|position| position.index).collect();
        let hashes = set_proof::prove(partition.tree, checkpoint.size, &indices)
            .ok_or_else(|| missing("partition", format!("proof for {} records", indices.len())))?;
        let set = SetProof {
            partition: *number,
            size: checkpoint.size,
            root: base64(checkpoint.root),
            hashes: hashes.iter().map(base64).collect(),
        };
        files.push(json(set_path(*number), &set, "every record of the pack is in the log, in one proof")?);
        files.push(PackFile::new(
            checkpoint_path(*number),
            prove_checkpoint(keys, seal_tree, checkpoint)?,
            format!("the checkpoint of log partition {number} is in the seal tree"),
        ));
        let what = format!("signed state of log partition {number}");
        files.push(PackFile::new(note_path("end", *number), checkpoint.note.as_bytes(), what.clone()));
        if let Some(start) = partition.start {
            files.push(PackFile::new(note_path("start", *number), start.note.as_bytes(), what));
            let grown = growth(partition.tree, "partition", start.size, checkpoint.size)?;
            files.push(json(
                growth_path(*number),
                &grown,
                "the log only grew from the start checkpoint to the end one",
            )?);
        }
    }
    Ok(files)
}

/// Positions of the records handed in, each checked against the log.
fn held(input: &PackInput, partitions: &BTreeMap<u32, &Partition<'_>>) -> Result<BTreeSet<Position>, PackError> {
    let mut held = BTreeSet::new();
    for record in &input.records {
        let refuse = |reason| PackError::Record { position: record.position, reason };
        let partition =
            partitions.get(&record.position.partition).ok_or(refuse("is of a partition without checkpoint"))?;
        if record.position.index >= partition.checkpoint.size {
            return Err(refuse("is newer than the checkpoint of its partition: make a newer checkpoint first"));
        }
        if partition.tree.leaf(record.position.index) != Some(leaf_hash(&record.leaf)) {
            return Err(refuse("is not the one that the log has there"));
        }
        held.insert(record.position);
    }
    for record in &input.redacted {
        let refuse = |reason| PackError::Record { position: record.position, reason };
        let partition =
            partitions.get(&record.position.partition).ok_or(refuse("is of a partition without checkpoint"))?;
        if partition.tree.leaf(record.position.index) != Some(record.leaf_hash) {
            return Err(refuse("is redacted, and its leaf hash is not the one that the log has there"));
        }
        held.insert(record.position);
    }
    Ok(held)
}

/// Positions that rows cite.
fn cited(input: &PackInput, held: &BTreeSet<Position>) -> Result<BTreeSet<Position>, PackError> {
    let mut cited = BTreeSet::new();
    let found = citations::of_files(&input.files).map_err(|(path, source)| PackError::Table { path, source })?;
    for citation in found {
        match citation.event.map(|event| event.position).filter(|position| held.contains(position)) {
            Some(position) => {
                cited.insert(position);
            }
            None => {
                return Err(PackError::Uncited { path: citation.path, row: citation.row, event: citation.text });
            }
        }
    }
    Ok(cited)
}

/// The file `verify/seal-consistency.json`: from every checkpoint's seal state, and from the previous pack's, to the
/// state that the pack's signature saw.
pub(crate) fn seal_consistency(
    input: &PackInput,
    seal_tree: &dyn Nodes,
    partitions: &[Partition<'_>],
    size: u64,
) -> Result<Vec<u8>, PackError> {
    let mut from: BTreeSet<u64> = partitions.iter().map(|partition| partition.checkpoint.seal_index + 1).collect();
    from.extend(input.previous.iter().map(|previous| previous.seal_size));
    let grown = from.into_iter().map(|old| growth(seal_tree, "seal", old, size)).collect::<Result<Vec<_>, _>>()?;
    let mut bytes = serde_json::to_vec_pretty(&grown)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn growth(tree: &dyn Nodes, name: &'static str, old: u64, new: u64) -> Result<Growth, PackError> {
    let root = |size: u64| -> Result<Hash, PackError> {
        Ok(tree.root(size).ok_or_else(|| missing(name, format!("root at size {size}")))?)
    };
    let hashes =
        tree.consistency_proof(old, new).ok_or_else(|| missing(name, format!("growth from {old} to {new} leaves")))?;
    Ok(Growth {
        old_size: old,
        old_root: base64(root(old)?),
        new_size: new,
        new_root: base64(root(new)?),
        hashes: hashes.iter().map(base64).collect(),
    })
}

fn json<T: Serialize>(path: String, value: &T, description: &str) -> Result<PackFile, PackError> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(PackFile::new(path, bytes, description))
}
