//! `data/pack.json`: the pack's index for machines. Its JSON Schema travels in `verify/pack.schema.json`.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::keys::Keys;
use crate::pack::{Omission, PackError, PackFile, PackInput, Partition};
use crate::seal::SealedCheckpoint;
use crate::signing::entry::base64;

/// What no pack of this version has.
const NOT_INCLUDED: [(&str, &str); 3] = [
    ("00_report", "the narrative as PDF and the index workbook as XLSX are not produced by this version"),
    ("50_releases", "traces of single releases are not produced by this version"),
    ("70_oscal", "OSCAL documents are not produced by this version"),
];

/// A checkpoint as the index shows it.
pub(super) fn checkpoint(sealed: &SealedCheckpoint) -> Value {
    json!({
        "partition": sealed.partition,
        "size": sealed.size,
        "root": base64(sealed.root),
        "seal_index": sealed.seal_index,
    })
}

/// The index of these files.
pub(super) fn index(
    input: &PackInput,
    keys: &Keys,
    files: &[PackFile],
    partitions: &[Partition<'_>],
) -> Result<PackFile, PackError> {
    let listed: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "bytes": file.bytes.len(),
                "sha256": hex::encode(Sha256::digest(&file.bytes)),
                "description": file.description,
            })
        })
        .collect();
    let always = NOT_INCLUDED
        .iter()
        .filter(|(what, _)| !files.iter().any(|file| file.path.starts_with(what)))
        .map(|(what, reason)| Omission { what: (*what).to_owned(), reason: (*reason).to_owned() });
    let omissions: Vec<Omission> = always.chain(input.omissions.iter().cloned()).collect();
    let value = json!({
        "format": "pipeproof evidence pack 1",
        "name": input.name,
        "framework": input.framework,
        "organisation": input.organisation,
        "instance": {"id": keys.instance().id(), "identity": keys.instance().identity()},
        "period": input.period,
        "as_of": input.as_of,
        "scope": input.scope,
        "versions": input.versions,
        "previous": input.previous,
        "checkpoints": partitions.iter().map(|partition| checkpoint(partition.checkpoint)).collect::<Vec<_>>(),
        "results": input.results,
        "omissions": omissions,
        "files": listed,
    });
    let mut bytes = serde_json::to_vec_pretty(&value)?;
    bytes.push(b'\n');
    Ok(PackFile::new("pack.json", bytes, "this index"))
}
