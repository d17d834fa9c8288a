//! The record: what one source item becomes in the log, and the exact bytes of its Merkle leaf.
//!
//! Leaf, version 1 (all integers little-endian):
//!
//! ```text
//! "pipeproof record v1\n"      20 bytes: domain separation and version
//! u32 length ‖ envelope        JSON, fields in the order of [`Envelope`], absent ones left out
//! salt                         16 random bytes, so that a leaf hash cannot be guessed from a small event
//! u32 length ‖ body            what the source sent for this item, after redaction
//! ```
//!
//! The leaf hash is RFC 6962's: SHA-256 over `0x00 ‖ leaf`.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::source::SourceType;
use crate::time::Timestamp;

/// Domain separation and version of the leaf encoding.
pub const LEAF_MAGIC: &[u8; 20] = b"pipeproof record v1\n";
/// Largest record of any source, leaf bytes included: 16 MiB. Only documents (a bill of materials, a scanner's report, a reviewed
/// object) are let grow beyond [`ITEM_BYTES_MAX`].
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Largest record of a source whose items are events, leaf bytes included: 1 MiB.
pub const ITEM_BYTES_MAX: usize = 1 << 20;

/// A place in the log: the next or the given record of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Log partition; one machine has partition 0 only.
    pub partition: u32,
    /// Index of the record in its partition, from 0; also its leaf index in the partition's tree.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.partition, self.index)
    }
}

/// How we know who sent a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authenticity {
    /// Written by this program.
    Own,
    /// A signature over the raw bytes was checked.
    Hmac,
    /// An API token of ours was presented.
    Bearer,
    /// A token that the sender shares with us was presented, as `X-Gitlab-Token` is.
    Token,
    /// An identity token (JWT) that an issuer signed for the sender was checked.
    Jwt,
    /// We fetched it ourselves from the provider's API, over TLS and with our credentials for it.
    Fetched,
    /// Nobody vouches for it: it came from a file or a listener that the operator configured.
    Unverified,
    /// The sender proved on the connection that it has the key of a certificate that was accepted (TLS client
    /// authentication, RFC 8446 §4.4.2).
    Mtls,
}

/// How a record came to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectionMode {
    /// Pushed by its source as it happened.
    #[default]
    Live,
    /// Fetched by a collector as it happened.
    Collected,
    /// History, loaded later: it runs in a lane of its own and counts as retroactive.
    Backfill,
}

/// What we know about a record besides its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Name of the source instance.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub source_type: SourceType,
    /// When we received it.
    pub received: Timestamp,
    /// How we know who sent it.
    pub auth: Authenticity,
    /// Which key or token proved it; an identifier, never the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// What makes it the same item when it is delivered again: `id:` and the source's own id, or `hash:` and the
    /// keyed hash of the raw bytes.
    pub item: String,
    /// How it came.
    #[serde(default, skip_serializing_if = "is_live")]
    pub mode: CollectionMode,
    /// What the transport said that the body does not: webhook event name, job of a log, labels of the source as
    /// `label.NAME`. Redacted like the body.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Secrets that were redacted from body and attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<Redacted>,
}

/// Attribute of history that is loaded again: index of the record of the same item that the lake has, from before the time that
/// detection remembers. No sender can set it.
pub const REPEATS: &str = "repeats.record";

impl Envelope {
    /// Index of the record that this one is known to repeat.
    #[must_use]
    pub fn repeats(&self) -> Option<u64> {
        if self.mode != CollectionMode::Backfill {
            return None;
        }
        self.attributes.get(REPEATS)?.parse().ok()
    }
}

fn is_live(mode: &CollectionMode) -> bool {
    *mode == CollectionMode::Live
}

/// One secret that was redacted from a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redacted {
    /// Family: `github-token`, `aws-access-key`, `private-key`, ...
    pub family: String,
    /// Keyed fingerprint, equal for equal secrets under one key.
    pub fingerprint: String,
    /// How often it occurred.
    pub count: u32,
}

/// One item of a source, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What we know about it.
    pub envelope: Envelope,
    /// Random salt of the leaf.
    pub salt: [u8; 16],
    /// What the source sent, after redaction.
    pub body: Bytes,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The bytes end early, or go on after the record.
    #[error("record of {len} bytes is cut or has trailing bytes at {part}")]
    Length {
        /// Bytes given.
        len: usize,
        /// Where it went wrong.
        part: &'static str,
    },
    /// Another version, or no record at all.
    #[error("bytes do not start with the header of a version 1 record")]
    Magic,
    /// The envelope is not what this version writes.
    #[error("cannot read the envelope of a record")]
    Envelope(#[source] serde_json::Error),
    /// Larger than a record may be.
    #[error("record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
}

impl Record {
    /// The leaf bytes.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] above [`RECORD_BYTES_MAX`]; [`RecordError::Envelope`] if the envelope cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let envelope = serde_json::to_vec(&self.envelope).map_err(RecordError::Envelope)?;
        encode_parts(&envelope, &self.salt, &self.body)
    }

    /// Reads leaf bytes; the body shares their memory.
    ///
    /// # Errors
    /// [`RecordError`] says which part is not as this version writes it.
    pub fn decode(leaf: &Bytes) -> Result<Self, RecordError> {
        let parts = LeafParts::split(leaf)?;
        let envelope = serde_json::from_slice(parts.envelope).map_err(RecordError::Envelope)?;
        Ok(Self { envelope, salt: parts.salt, body: leaf.slice_ref(parts.body) })
    }
}

/// Writes a leaf from its parts: what the lake keeps as columns becomes the exact leaf again.
///
/// # Errors
/// [`RecordError::TooLarge`] above [`RECORD_BYTES_MAX`].
pub fn encode_parts(envelope: &[u8], salt: &[u8; 16], body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let len = LEAF_MAGIC.len() + 4 + envelope.len() + salt.len() + 4 + body.len();
    if len > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge(len));
    }
    let size = |part: &[u8]| u32::try_from(part.len()).map_err(|_| RecordError::TooLarge(len));
    let mut leaf = Vec::with_capacity(len);
    leaf.extend_from_slice(LEAF_MAGIC);
    leaf.extend_from_slice(&size(envelope)?.to_le_bytes());
    leaf.extend_from_slice(envelope);
    leaf.extend_from_slice(salt);
    leaf.extend_from_slice(&size(body)?.to_le_bytes());
    leaf.extend_from_slice(body);
    Ok(leaf)
}

/// The parts of a leaf, borrowed.
#[derive(Debug)]
pub struct LeafParts<'a> {
    /// The envelope's exact JSON text.
    pub envelope: &'a [u8],
    /// The salt.
    pub salt: [u8; 16],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> LeafParts<'a> {
    /// Splits leaf bytes without reading the envelope.
    ///
    /// # Errors
    /// [`RecordError`] says which part is not as this version writes it.
    pub fn split(leaf: &'a [u8]) -> Result<Self, RecordError> {
        let cut = |part| RecordError::Length { len: leaf.len(), part };
        let rest = leaf.strip_prefix(LEAF_MAGIC).ok_or(RecordError::Magic)?;
        let (envelope, rest) = take_block(rest).ok_or_else(|| cut("envelope"))?;
        let (salt, rest) = rest.split_first_chunk::<16>().ok_or_else(|| cut("salt"))?;
        let (body, rest) = take_block(rest).ok_or_else(|| cut("body"))?;
        if !rest.is_empty() {
            return Err(cut("end"));
        }
        Ok(Self { envelope, salt: *salt, body })
    }
}

fn take_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            envelope: Envelope {
                source: "acme".to_owned(),
                source_type: SourceType::Json,
                received: Timestamp::from_secs(1),
                auth: Authenticity::Bearer,
                key_id: None,
                item: "id:1".to_owned(),
                mode: CollectionMode::Live,
                attributes: BTreeMap::new(),
                redacted: Vec::new(),
            },
            salt: [7; 16],
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn leaf_bytes_of_version_1_never_change() {
        let leaf = record().encode().unwrap();
        let envelope =
            br#"{"source":"acme","type":"json","received":"1970-01-01T00:00:01Z","auth":"bearer","item":"id:1"}"#;
        let mut expected = b"pipeproof record v1\n".to_vec();
        expected.extend_from_slice(&(u32::try_from(envelope.len()).unwrap()).to_le_bytes());
        expected.extend_from_slice(envelope);
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(&[2, 0, 0, 0, b'{', b'}']);
        assert_eq!(leaf, expected);
    }

    #[test]
    fn decode_reads_back_and_refuses_every_cut() {
        let leaf = Bytes::from(record().encode().unwrap());
        assert_eq!(Record::decode(&leaf).unwrap(), record());
        for len in 0..leaf.len() {
            assert!(Record::decode(&leaf.slice(..len)).is_err(), "accepted a leaf cut at {len}");
        }
        let mut longer = leaf.to_vec();
        longer.push(0);
        assert!(Record::decode(&Bytes::from(longer)).is_err());
    }

    #[test]
    fn a_record_above_the_limit_is_refused() {
        let mut large = record();
        large.body = Bytes::from(vec![b'x'; RECORD_BYTES_MAX]);
        assert!(matches!(large.encode(), Err(RecordError::TooLarge(_))));
    }
}
