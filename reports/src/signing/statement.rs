//! The in-toto statement (v1) about a pack, and the DSSE envelope it travels in.

use serde_json::{Value, json};

use crate::signing::entry::base64;

/// Type of the predicate: what this program says about a pack.
pub const PREDICATE_TYPE: &str = "https://pipeproof.dev/evidence-pack/v1";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A statement about files, by their digests.
#[must_use]
pub fn statement(subjects: &[(&str, [u8; 32])], predicate: &Value) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(name, digest)| json!({"name": name, "digest": {"sha256": hex::encode(digest)}}))
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    })
}

/// A DSSE envelope with one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The statement's bytes.
    pub payload: Vec<u8>,
    /// Signature over [`signed_bytes`].
    pub signature: Vec<u8>,
}

impl Envelope {
    /// As JSON. There is no `keyid`: an empty one would change the hash that the log entry holds.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "payload": base64(&self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64(&self.signature)}],
        })
    }
}

/// What is signed: DSSE's pre-authentication encoding of the payload.
#[must_use]
pub fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
