//! The seal tree: the second level of the two, where every statement an instance signs about its logs is a leaf.
//!
//! Leaves are signed partition checkpoints (C2SP notes) and the log entries of pack signatures (canonical JSON); a note
//! starts with its origin and an entry with `{`, so neither can be taken for the other. What proves an event is the way
//! event → partition root → seal root. This module signs and places leaves; where they are kept is the caller's
//! ([`SealLog`]).

use std::future::Future;
use std::sync::Mutex;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;
use pipeproof_engine::merkle::{self, Hash, Nodes, Tree};
use pipeproof_engine::time::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::checkpoint::{Checkpoint, write_proof};
use crate::keys::{Keys, pem};
use crate::signing::certificate::{self, CertificateError};
use crate::signing::entry::{self, Kind, Placed};
use crate::signing::statement::{Envelope, signed_bytes};

/// The seal tree with a log under it.
pub trait SealLog: Nodes + Send + Sync {
    /// Appends a leaf and returns its index once it is on stable storage and in the tree.
    fn append(&self, leaf: Vec<u8>) -> impl Future<Output = Result<u64, SealError>> + Send;
}

/// Why something cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The log under the seal tree.
    #[error("cannot append to the seal tree's log")]
    Append(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A tree that has fewer leaves than it just said, or a leaf it does not have.
    #[error("the {tree} tree has no {what}")]
    Tree {
        /// Which tree.
        tree: &'static str,
        /// What it does not have.
        what: String,
    },
    /// The certificate.
    #[error("cannot make the certificate of a pack")]
    Certificate(#[from] CertificateError),
    /// JSON.
    #[error("cannot write a signature as json")]
    Json(#[from] serde_json::Error),
}

/// A seal tree in memory, for tests and for packs that outlive nothing.
#[derive(Debug, Default)]
pub struct MemorySeal(Mutex<Tree>);

impl MemorySeal {
    fn with<T>(&self, read: impl FnOnce(&mut Tree) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Nodes for MemorySeal {
    fn size(&self) -> u64 {
        self.with(|tree| tree.size())
    }

    fn node(&self, level: u32, at: u64) -> Option<Hash> {
        self.with(|tree| tree.node(level, at))
    }
}

impl SealLog for MemorySeal {
    async fn append(&self, leaf: Vec<u8>) -> Result<u64, SealError> {
        Ok(self.with(|tree| tree.push(merkle::leaf_hash(&leaf))))
    }
}

/// A partition's checkpoint and its place in the seal tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCheckpoint {
    /// Log partition.
    pub partition: u32,
    /// Leaves of the partition that it covers.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// The signed note: the seal tree's leaf, and what is deposited with an auditor.
    pub note: String,
    /// Index of that leaf.
    pub seal_index: u64,
}

/// Signs the checkpoint of a partition's first `size` leaves and seals it. Sign only what is on stable storage.
///
/// # Errors
/// [`SealError`] when the tree has fewer leaves or the seal tree does not take it.
pub async fn checkpoint_partition<L: SealLog>(
    keys: &Keys,
    log: &L,
    partition: u32,
    tree: &(dyn Nodes + Sync),
    size: u64,
) -> Result<SealedCheckpoint, SealError> {
    let root = tree.root(size).ok_or_else(|| missing("partition", format!("root at size {size}")))?;
    let checkpoint = Checkpoint { origin: keys.instance().partition_origin(partition), size, root };
    let note = checkpoint.sign(&keys.checkpoint);
    let seal_index = log.append(note.clone().into_bytes()).await?;
    Ok(SealedCheckpoint { partition, size, root, note, seal_index })
}

/// The seal tree's own checkpoint at `size`, as a C2SP note.
///
/// # Errors
/// [`SealError::Tree`] when it has fewer leaves.
pub fn seal_checkpoint(keys: &Keys, tree: &dyn Nodes, size: u64) -> Result<String, SealError> {
    let root = tree.root(size).ok_or_else(|| missing("seal", format!("root at size {size}")))?;
    Ok(Checkpoint { origin: keys.instance().seal_origin(), size, root }.sign(&keys.checkpoint))
}

/// Proves that a checkpoint is a leaf of the seal tree, as a `.tlog-proof`: in the tree as it was right after it, so that
/// the proof never changes.
///
/// # Errors
/// [`SealError::Tree`] when it is not there.
pub fn prove_checkpoint(keys: &Keys, tree: &dyn Nodes, sealed: &SealedCheckpoint) -> Result<String, SealError> {
    let (index, size) = (sealed.seal_index, sealed.seal_index + 1);
    if tree.leaf(index) != Some(merkle::leaf_hash(sealed.note.as_bytes())) {
        return Err(missing("seal", format!("leaf {index} that is the checkpoint of partition {}", sealed.partition)));
    }
    let path = tree.inclusion_proof(index, size).ok_or_else(|| missing("seal", format!("leaf {index}")))?;
    Ok(write_proof(index, &path, &seal_checkpoint(keys, tree, size)?))
}

/// A pack's signatures, as files.
#[derive(Clone, Debug)]
pub struct PackSignature {
    /// Sigstore bundle over the tag manifest.
    pub message_bundle: String,
    /// Sigstore bundle around the in-toto statement.
    pub statement_bundle: String,
    /// Public key of the pack's certificate, PEM: for openssl.
    pub public_key: String,
    /// The pack's certificate, PEM: for openssl.
    pub certificate: String,
    /// The bundle's signature, DER: for openssl.
    pub signature: Vec<u8>,
    /// Seal tree as the pack's signature sees it: its number of leaves.
    pub seal_size: u64,
}

/// Signs a pack: a fresh key, a ten-minute certificate for it, a signature over the tag manifest and one over a
/// statement, both entered in the seal tree. The key is dropped before this returns.
///
/// # Errors
/// [`SealError`] when the certificate cannot be made or the seal tree does not take an entry.
pub async fn sign_pack<L: SealLog>(
    keys: &Keys,
    log: &L,
    now: Timestamp,
    tagmanifest: &[u8],
    statement: &Value,
) -> Result<PackSignature, SealError> {
    let key = SigningKey::random(&mut OsRng);
    let certificate = certificate::leaf(keys.instance(), (&keys.ca, &keys.ct), key.verifying_key(), now)?;
    let digest: Hash = Sha256::digest(tagmanifest).into();
    let signature: DerSignature = key.sign(tagmanifest);
    let signature = signature.as_bytes().to_vec();
    let payload = serde_json_canonicalizer::to_vec(statement)?;
    let enveloped: DerSignature = key.sign(&signed_bytes(&payload));
    let envelope = Envelope { payload, signature: enveloped.as_bytes().to_vec() };
    let public_key = pem("PUBLIC KEY", &certificate::spki(key.verifying_key())?);
    drop(key);

    let body = entry::dsse(&envelope, &certificate)?;
    let placed = place(log, body.clone(), now).await?;
    let logged = entry::entry(keys, Kind::Dsse, &body, &placed)?;
    let statement_bundle = pretty(&entry::envelope_bundle(&certificate, &envelope, &logged))?;

    let body = entry::hashedrekord(&digest, &signature, &certificate)?;
    let placed = place(log, body.clone(), now).await?;
    let logged = entry::entry(keys, Kind::HashedRekord, &body, &placed)?;
    let message_bundle = pretty(&entry::message_bundle(&certificate, &digest, &signature, &logged))?;
    let certificate = pem("CERTIFICATE", &certificate);
    Ok(PackSignature { message_bundle, statement_bundle, public_key, certificate, signature, seal_size: placed.size })
}

async fn place<L: SealLog>(log: &L, body: Vec<u8>, now: Timestamp) -> Result<Placed, SealError> {
    let index = log.append(body).await?;
    // The tree right after the entry: others may append meanwhile.
    let size = index + 1;
    let root = log.root(size).ok_or_else(|| missing("seal", format!("root at size {size}")))?;
    let path = log.inclusion_proof(index, size).ok_or_else(|| missing("seal", format!("leaf {index}")))?;
    Ok(Placed { index, size, root, path, time_secs: now.as_micros().div_euclid(1_000_000) })
}

fn pretty(value: &Value) -> Result<String, SealError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

pub(crate) fn missing(tree: &'static str, what: String) -> SealError {
    SealError::Tree { tree, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Proof;
    use crate::signing::statement::statement;
    use crate::signing::trust;
    use pipeproof_engine::clock::{Clock, ManualClock};
    use serde_json::json;
    use sigstore_trust_root::TrustedRoot;
    use sigstore_types::Bundle;
    use sigstore_verify::{VerificationPolicy, Verifier};

    struct Signed {
        keys: Keys,
        artifact: Vec<u8>,
        signature: PackSignature,
    }

    async fn signed() -> Signed {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::parse("2026-03-01T12:00:00.5Z").unwrap());
        let keys = Keys::load_or_create(dir.path(), &clock).unwrap();
        let seal = MemorySeal::default();
        for leaf in 0..5_u8 {
            seal.append(vec![leaf]).await.unwrap();
        }
        let artifact = b"digest  data/file\n".to_vec();
        let statement = statement(&[("tagmanifest-sha256.txt", Sha256::digest(&artifact).into())], &json!({"n": 1}));
        let signature = sign_pack(&keys, &seal, clock.now(), &artifact, &statement).await.unwrap();
        Signed { keys, artifact, signature }
    }

    fn verify(signed: &Signed, root: &Value, bundle: &str) -> Result<(), String> {
        let root = TrustedRoot::from_json(&root.to_string()).map_err(|cause| cause.to_string())?;
        let bundle = Bundle::from_json(bundle).map_err(|cause| cause.to_string())?;
        let policy = VerificationPolicy::new(signed.keys.instance().identity(), crate::keys::Instance::ISSUER);
        let result = Verifier::new(&root)
            .and_then(|verifier| verifier.verify(&signed.artifact[..], &bundle, &policy))
            .map_err(|cause| cause.to_string())?;
        assert!(result.certificate_verified() && result.sct_verified() && result.tlog_verified());
        Ok(())
    }

    #[tokio::test]
    async fn the_public_verifier_accepts_both_bundles() {
        let signed = signed().await;
        let root = trust::trusted_root(signed.keys.public());
        verify(&signed, &root, &signed.signature.message_bundle).unwrap();
        verify(&signed, &root, &signed.signature.statement_bundle).unwrap();
    }

    #[tokio::test]
    async fn every_changed_part_of_a_bundle_is_refused() {
        let mut signed = signed().await;
        let root = trust::trusted_root(signed.keys.public());
        let good: Value = serde_json::from_str(&signed.signature.message_bundle).unwrap();
        let entry = "/verificationMaterial/tlogEntries/0";
        for (pointer, value) in [
            ("/messageSignature/signature", flip(&good, "/messageSignature/signature")),
            ("/verificationMaterial/certificate/rawBytes", flip(&good, "/verificationMaterial/certificate/rawBytes")),
            (
                &format!("{entry}/inclusionPromise/signedEntryTimestamp"),
                flip(&good, &format!("{entry}/inclusionPromise/signedEntryTimestamp")),
            ),
            (&format!("{entry}/inclusionProof/hashes/0"), flip(&good, &format!("{entry}/inclusionProof/hashes/0"))),
            (&format!("{entry}/inclusionProof/rootHash"), flip(&good, &format!("{entry}/inclusionProof/rootHash"))),
            (&format!("{entry}/canonicalizedBody"), flip(&good, &format!("{entry}/canonicalizedBody"))),
            (&format!("{entry}/integratedTime"), json!("1772366401")),
            (&format!("{entry}/inclusionProof/hashes"), json!([])),
            ("/verificationMaterial/tlogEntries", json!([])),
        ] {
            let mut bundle = good.clone();
            *bundle.pointer_mut(pointer).unwrap() = value;
            assert!(verify(&signed, &root, &bundle.to_string()).is_err(), "accepted a changed {pointer}");
        }
        signed.artifact.push(b'\n');
        assert!(verify(&signed, &root, &signed.signature.message_bundle).is_err(), "accepted a changed artifact");
    }

    /// The base64 at `pointer` with one bit in its middle changed.
    fn flip(value: &Value, pointer: &str) -> Value {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        let mut bytes = engine.decode(value.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        json!(engine.encode(bytes))
    }

    #[tokio::test]
    async fn another_instance_is_not_believed() {
        let (one, other) = (signed().await, signed().await);
        let foreign = trust::trusted_root(other.keys.public());
        assert!(verify(&one, &foreign, &one.signature.message_bundle).is_err());
    }

    #[tokio::test]
    async fn a_checkpoint_is_proven_in_the_seal_tree() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::from_secs(1_772_366_400));
        let keys = Keys::load_or_create(dir.path(), &clock).unwrap();
        let (seal, mut tree) = (MemorySeal::default(), Tree::new());
        for leaf in 0..9_u8 {
            tree.push(merkle::leaf_hash(&[leaf]));
        }
        seal.append(b"{}".to_vec()).await.unwrap();
        let sealed = checkpoint_partition(&keys, &seal, 0, &tree, 9).await.unwrap();
        let proof = prove_checkpoint(&keys, &seal, &sealed).unwrap();
        seal.append(b"{}".to_vec()).await.unwrap();
        assert_eq!(prove_checkpoint(&keys, &seal, &sealed).unwrap(), proof, "a proof changed with the tree");
        let leaf = merkle::leaf_hash(sealed.note.as_bytes());
        let origin = keys.instance().seal_origin();
        let seen = Proof::read(&proof).unwrap().verify(&leaf, &origin, &keys.public().checkpoint).unwrap();
        assert_eq!((seen.size, seen.root), (2, seal.root(2).unwrap()));
        assert!(checkpoint_partition(&keys, &seal, 0, &tree, 10).await.is_err());
        let wrong = SealedCheckpoint { seal_index: 0, ..sealed };
        assert!(prove_checkpoint(&keys, &seal, &wrong).is_err());
    }
}
