//! Entries of the seal tree in the words of Rekor v1, and the Sigstore bundles that carry them.
//!
//! Why v1: its signed entry timestamp gives clients the signing time without a timestamp authority, and it is the form
//! that all of sigstore-rust, sigstore-python and `@sigstore/verify` accept for both messages and envelopes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::DerSignature;
use p256::ecdsa::signature::Signer as _;
use pipeproof_engine::merkle::Hash;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::keys::{Keys, PublicKeys, pem};
use crate::signing::statement::Envelope;

/// Media type of a v0.3 bundle.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Standard base64 with padding, as every format here has it.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signature over a digest: `hashedrekord` 0.0.1.
    HashedRekord,
    /// A signed envelope: `dsse` 0.0.1.
    Dsse,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::HashedRekord => "hashedrekord",
            Self::Dsse => "dsse",
        }
    }
}

/// Body of the entry for a signature over an artifact: the leaf of the seal tree, in RFC 8785 form.
///
/// # Errors
/// If JSON cannot be written, which it can.
pub fn hashedrekord(digest: &Hash, signature: &[u8], certificate: &[u8]) -> serde_json::Result<Vec<u8>> {
    serde_json_canonicalizer::to_vec(&json!({
        "apiVersion": "0.0.1",
        "kind": Kind::HashedRekord.name(),
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex::encode(digest)}},
            "signature": {
                "content": base64(signature),
                "publicKey": {"content": base64(pem("CERTIFICATE", certificate))},
            },
        },
    }))
}

/// Body of the entry for an envelope: the leaf of the seal tree, in RFC 8785 form.
///
/// # Errors
/// If JSON cannot be written, which it can.
pub fn dsse(envelope: &Envelope, certificate: &[u8]) -> serde_json::Result<Vec<u8>> {
    let whole = serde_json_canonicalizer::to_vec(&envelope.json())?;
    serde_json_canonicalizer::to_vec(&json!({
        "apiVersion": "0.0.1",
        "kind": Kind::Dsse.name(),
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": hex::encode(Sha256::digest(whole))},
            "payloadHash": {"algorithm": "sha256", "value": hex::encode(Sha256::digest(&envelope.payload))},
            "signatures": [{
                "signature": base64(&envelope.signature),
                "verifier": base64(pem("CERTIFICATE", certificate)),
            }],
        },
    }))
}

/// Id of the seal tree as a log: SHA-256 of its key.
#[must_use]
pub fn log_id(seal: &[u8]) -> Hash {
    Sha256::digest(seal).into()
}

/// Origin line of the seal tree's Rekor-style checkpoint. sigstore-go takes a log for Rekor v1 only if it ends in a
/// number; ours is derived from the key.
#[must_use]
pub fn rekor_origin(keys: &PublicKeys) -> String {
    let id = log_id(&keys.seal);
    let number = id.first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head) >> 1);
    format!("{} - {number}", keys.instance.log_host())
}

/// Where an entry stands and what proves it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Index in the seal tree.
    pub index: u64,
    /// Size of the tree that the proof is for.
    pub size: u64,
    /// Root at that size.
    pub root: Hash,
    /// Audit path.
    pub path: Vec<Hash>,
    /// When it was integrated, in seconds since the Unix epoch.
    pub time_secs: i64,
}

/// The checkpoint of the seal tree in Rekor's form: a note with an ECDSA signature whose key id is the log id's start.
#[must_use]
pub fn rekor_checkpoint(keys: &Keys, size: u64, root: &Hash) -> String {
    let public = keys.public();
    let text = format!("{}\n{size}\n{}\n", rekor_origin(public), base64(root));
    let signature: DerSignature = keys.seal.sign(text.as_bytes());
    let mut hinted = log_id(&public.seal).get(..4).unwrap_or_default().to_vec();
    hinted.extend_from_slice(signature.as_bytes());
    // The name is a part of the log's base URL: that is how @sigstore/verify finds the key.
    format!("{text}\n\u{2014} {} {}\n", public.instance.log_host(), base64(hinted))
}

/// A transparency log entry of a bundle, with timestamp, inclusion proof and checkpoint.
///
/// # Errors
/// If JSON cannot be written, which it can.
pub fn entry(keys: &Keys, kind: Kind, body: &[u8], placed: &Placed) -> serde_json::Result<Value> {
    let id = log_id(&keys.public().seal);
    let promised = serde_json_canonicalizer::to_vec(&json!({
        "body": base64(body),
        "integratedTime": placed.time_secs,
        "logID": hex::encode(id),
        "logIndex": placed.index,
    }))?;
    let promise: DerSignature = keys.seal.sign(&promised);
    Ok(json!({
        "logIndex": placed.index.to_string(),
        "logId": {"keyId": base64(id)},
        "kindVersion": {"kind": kind.name(), "version": "0.0.1"},
        "integratedTime": placed.time_secs.to_string(),
        "inclusionPromise": {"signedEntryTimestamp": base64(promise.as_bytes())},
        "inclusionProof": {
            "logIndex": placed.index.to_string(),
            "rootHash": base64(placed.root),
            "treeSize": placed.size.to_string(),
            "hashes": placed.path.iter().map(base64).collect::<Vec<_>>(),
            "checkpoint": {"envelope": rekor_checkpoint(keys, placed.size, &placed.root)},
        },
        "canonicalizedBody": base64(body),
    }))
}

/// A bundle around a signature over a file.
#[must_use]
pub fn message_bundle(certificate: &[u8], digest: &Hash, signature: &[u8], entry: &Value) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"certificate": {"rawBytes": base64(certificate)}, "tlogEntries": [entry]},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": base64(digest)},
            "signature": base64(signature),
        },
    })
}

/// A bundle around an envelope.
#[must_use]
pub fn envelope_bundle(certificate: &[u8], envelope: &Envelope, entry: &Value) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"certificate": {"rawBytes": base64(certificate)}, "tlogEntries": [entry]},
        "dsseEnvelope": envelope.json(),
    })
}
