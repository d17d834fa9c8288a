//! The evidence pack: one ZIP file that holds one BagIt bag (RFC 8493), made in memory, signed once.
//!
//! ```text
//! NAME/
//!   README.txt bagit.txt bag-info.txt manifest-sha256.txt tagmanifest-sha256.txt
//!   verify/   how to check it, keys and trust roots, the signatures
//!   data/     pack.json 10_controls/ 20_kpi/ 30_completeness/ 40_proofs/ 60_raw/ 80_management/ 90_custody/
//! ```
//!
//! `data/` is a function of the input alone: equal input gives equal bytes. `verify/` is made once, and the tag manifest
//! is what is signed: it holds the digest of the manifest, which holds the digest of every file of `data/`. What controls
//! and KPIs say is not decided here; they come as [`PackFile`]s. A pack that lacks something says so in `pack.json`.

pub mod archive;
pub mod bag;
pub mod citations;
mod custody;
mod guide;
mod index;
pub(crate) mod proofs;
pub mod records;
pub(crate) mod set_proof;
pub mod table;

use std::collections::BTreeMap;

use bytes::Bytes;
use pipeproof_engine::merkle::{Hash, Nodes};
use pipeproof_engine::record::Position;
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use self::guide::PACK_SCHEMA;
pub use crate::pack_file::PackFile;

use crate::keys::Keys;
use crate::seal::{self, SealError, SealLog, SealedCheckpoint};
use crate::signing::statement::statement;

/// The half-open span of time that a pack is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// First instant of it.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
}

/// Something that a reader may look for and does not find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// What is not there.
    pub what: String,
    /// Why not.
    pub reason: String,
}

/// A record whose exact leaf bytes go into the pack.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Where it stands in the log.
    pub position: Position,
    /// Its leaf bytes, as [`pipeproof_engine::record::Record::encode`] wrote them.
    pub leaf: Bytes,
}

/// A record whose payload was redacted: its leaf hash is all there is, and is proved like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedRecord {
    /// Where it stands in the log.
    pub position: Position,
    /// RFC 6962 hash of the leaf that was there.
    pub leaf_hash: Hash,
}

/// The pack that this one follows, so that both can be shown to be of one history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousPack {
    /// Its name.
    pub pack: String,
    /// SHA-256 of its tag manifest, hexadecimal.
    pub digest: String,
    /// Leaves of the seal tree that its signature saw.
    pub seal_size: u64,
}

/// What a pack is made of.
#[derive(Clone, Debug)]
pub struct PackInput {
    /// Name of the pack and of the folder in the archive: ASCII letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// `soc2`, `iso27001`.
    pub framework: String,
    /// Organisation whose pipeline it is about.
    pub organisation: String,
    /// What it covers.
    pub period: Period,
    /// Latest knowledge that went into it.
    pub as_of: Timestamp,
    /// What is in scope, in plain words.
    pub scope: String,
    /// Versions of everything that decides the content: program, rules, controls.
    pub versions: BTreeMap<String, String>,
    /// Results of the control tests, for the index.
    pub results: Value,
    /// Files of `data/`.
    pub files: Vec<PackFile>,
    /// Records behind them: at least every record that a row cites.
    pub records: Vec<RawRecord>,
    /// Records among them that have no payload any more.
    pub redacted: Vec<RedactedRecord>,
    /// What is left out, besides what every pack of this version leaves out.
    pub omissions: Vec<Omission>,
    /// The pack before it, if there is one.
    pub previous: Option<PreviousPack>,
}

/// A log partition: its tree, and the checkpoint that the pack proves its records against.
#[derive(Clone, Copy)]
pub struct Partition<'a> {
    /// Checkpoint at or after the pack's last record, already a leaf of the seal tree.
    pub checkpoint: &'a SealedCheckpoint,
    /// Checkpoint at or before the start of the period, if there is one.
    pub start: Option<&'a SealedCheckpoint>,
    /// The partition's tree.
    pub tree: &'a (dyn Nodes + Sync),
}

impl std::fmt::Debug for Partition<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Partition").field("checkpoint", &self.checkpoint).field("start", &self.start).finish()
    }
}

/// A finished pack.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Its name.
    pub name: String,
    /// SHA-256 of its tag manifest, hexadecimal: what the signature is over, and what identifies it.
    pub digest: String,
    /// The ZIP file.
    pub zip: Vec<u8>,
    /// Leaves of the seal tree that its signature saw.
    pub seal_size: u64,
}

impl Pack {
    /// How a later pack names this one.
    #[must_use]
    pub fn as_previous(&self) -> PreviousPack {
        PreviousPack { pack: self.name.clone(), digest: self.digest.clone(), seal_size: self.seal_size }
    }
}

/// Why a pack cannot be made. Nothing is left behind: a pack is whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A path or name that would not survive every file system.
    #[error("pack file name {path:?} {reason}")]
    Name {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table that cannot be read or written.
    #[error("cannot use table {path} in a pack")]
    Table {
        /// Its path.
        path: String,
        /// Why not.
        #[source]
        source: table::TableError,
    },
    /// A row cites a record that is not among the records.
    #[error("{path} row {row} cites event {event}, whose record was not handed in")]
    Uncited {
        /// Table.
        path: String,
        /// Row, from 1, the header not counted.
        row: usize,
        /// The event.
        event: String,
    },
    /// A record that is not what the log has at its position, or of a partition without checkpoint.
    #[error("record {position} {reason}")]
    Record {
        /// Its position.
        position: Position,
        /// What is wrong.
        reason: &'static str,
    },
    /// Parquet.
    #[error("cannot write the records of a pack as parquet")]
    Parquet(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// JSON.
    #[error("cannot write a file of a pack as json")]
    Json(#[from] serde_json::Error),
    /// ZIP.
    #[error("cannot write the archive of a pack")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Sealing.
    #[error("cannot seal a pack")]
    Seal(#[from] SealError),
}

/// Builds, signs and packs. `now` is the time of signing; it does not reach `data/`.
///
/// # Errors
/// [`PackError`]; fails closed, and the seal tree then has at most entries of signatures nobody has seen.
pub async fn build<L: SealLog>(
    input: &PackInput,
    keys: &Keys,
    log: &L,
    partitions: &[Partition<'_>],
    now: Timestamp,
) -> Result<Pack, PackError> {
    bag::check_name(&input.name)?;
    let data = contents(input, keys, log, partitions)?;
    let mut bag = bag::Bag::new(&input.name, data)?;
    for (path, text) in guide::files(input, keys, partitions)? {
        bag.tag(&path, text);
    }
    bag.seal(&input.organisation, input.versions.get("pipeproof").map_or("", String::as_str), now);

    let tagmanifest = bag.tagmanifest().to_vec();
    let digest = <[u8; 32]>::from(Sha256::digest(&tagmanifest));
    let subjects = [
        (bag::TAGMANIFEST, digest),
        (bag::MANIFEST, bag.digest(bag::MANIFEST)),
        ("data/pack.json", bag.digest("data/pack.json")),
    ];
    let predicate = json!({
        "pack": input.name,
        "framework": input.framework,
        "organisation": input.organisation,
        "period": input.period,
        "as_of": input.as_of,
        "versions": input.versions,
        "checkpoints": partitions.iter().map(|partition| index::checkpoint(partition.checkpoint)).collect::<Vec<_>>(),
        "previous": input.previous,
    });
    let signature = seal::sign_pack(keys, log, now, &tagmanifest, &statement(&subjects, &predicate)).await?;
    let consistency = proofs::seal_consistency(input, log, partitions, signature.seal_size)?;
    for (path, bytes) in [
        (bag::MESSAGE_BUNDLE, signature.message_bundle.into_bytes()),
        (bag::STATEMENT_BUNDLE, signature.statement_bundle.into_bytes()),
        (bag::SIGNATURE, signature.signature),
        (bag::SIGNING_KEY, signature.public_key.into_bytes()),
        (bag::SIGNING_CERTIFICATE, signature.certificate.into_bytes()),
        (bag::SEAL_CONSISTENCY, consistency),
    ] {
        bag.unlisted(path, bytes);
    }
    let zip = archive::write(&input.name, bag.files()).map_err(|source| PackError::Archive(Box::new(source)))?;
    Ok(Pack { name: input.name.clone(), digest: hex::encode(digest), zip, seal_size: signature.seal_size })
}

/// Everything below `data/`, by path below it.
///
/// # Errors
/// [`PackError`].
pub fn contents(
    input: &PackInput,
    keys: &Keys,
    seal_tree: &dyn Nodes,
    partitions: &[Partition<'_>],
) -> Result<BTreeMap<String, Vec<u8>>, PackError> {
    let mut files: Vec<PackFile> = input.files.clone();
    files.extend(records::files(&input.records, &input.files)?);
    files.extend(proofs::files(input, keys, seal_tree, partitions)?);
    files.push(guide::versions(input)?);
    files.push(custody::custody(input, &files)?);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.push(index::index(input, keys, &files, partitions)?);
    let mut data = BTreeMap::new();
    for file in files {
        if let Some(_twice) = data.insert(file.path.clone(), file.bytes) {
            return Err(PackError::Name { path: file.path, reason: "is there twice" });
        }
    }
    Ok(data)
}
