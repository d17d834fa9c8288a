//! Items larger than a record may be. They are content, not a mistake that their sender could mend: a provider that got
//! an error would never send them again, nor what came with them. The record keeps the beginning, says that it is cut,
//! and becomes a dead letter when it is decoded.
//!
//! Documents may be larger than events: one bill of materials, report or object is one item however much it lists, its exact bytes are
//! what it vouches for, and cut it says nothing. Their number is small, so that a batch that holds one still fits memory.
//!
//! Only what is redacted already is cut: half a secret is not recognised, but is half a secret.

use engine::record::{ITEM_BYTES_MAX, RECORD_BYTES_MAX, Record, RecordError};
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::identity;
use crate::unwrap::char_boundary;

/// Attribute: how many bytes the whole item has after redaction. The body is the beginning of it.
pub(crate) const BYTES: &str = "truncated.bytes";
/// Attribute: the keyed hash of the whole item after redaction, made like the one that names items without an id.
pub(crate) const HASH: &str = "truncated.hash";
/// Attribute: how many different secrets were redacted, where only the first are listed.
pub(crate) const SECRETS: &str = "truncated.secrets";

/// Envelope and framing of a record with up to [`REDACTED_MAX`] secrets: what may come on top of its body.
const ENVELOPE_BYTES_MAX: usize = 64 << 10;
/// Most redacted secrets that are listed where not all of them fit.
const REDACTED_MAX: usize = 200;

/// A secret's name takes at least so many bytes of an envelope.
const LISTED_BYTES_MIN: usize = 64;

/// Largest record of a type, leaf bytes included.
const fn bytes_max(kind: SourceType) -> usize {
    match kind {
        SourceType::SbomCyclonedx
        | SourceType::SbomSpdx
        | SourceType::Sarif
        | SourceType::Trivy
        | SourceType::Grype
        | SourceType::IntotoStatement
        | SourceType::SigstoreBundle
        | SourceType::RekorEntry
        | SourceType::KyvernoReport
        | SourceType::GatekeeperAudit
        | SourceType::OpaDecision
        | SourceType::KubernetesAdmission
        | SourceType::KubernetesAudit => RECORD_BYTES_MAX,
        _ => ITEM_BYTES_MAX,
    }
}

/// Cuts what does not fit a record, and says so in its attributes.
///
/// # Errors
/// [`RecordError::TooLarge`] if the envelope alone does not fit.
pub(super) fn fit(record: &mut Record, dedup: &[u8; 32]) -> Result<(), RecordError> {
    let bytes_max = bytes_max(record.envelope.source_type);
    let secrets = record.envelope.redacted.len();
    // Without writing the envelope: nearly all records are far from the limit.
    if record.body.len() <= bytes_max - ENVELOPE_BYTES_MAX && secrets <= REDACTED_MAX {
        return Ok(());
    }
    if secrets <= bytes_max / LISTED_BYTES_MIN && fits(record, bytes_max)? {
        return Ok(());
    }
    if secrets > REDACTED_MAX {
        record.envelope.redacted.truncate(REDACTED_MAX);
        record.envelope.attributes.insert(SECRETS.to_owned(), secrets.to_string());
        // One long run of base64 can hold more secrets than a record can list: then nothing else has to go.
        if fits(record, bytes_max)? {
            return Ok(());
        }
    }
    let attributes = &mut record.envelope.attributes;
    attributes.insert(BYTES.to_owned(), record.body.len().to_string());
    attributes.insert(HASH.to_owned(), identity::hash(dedup, &record.body));
    let taken = overhead(record)?;
    let room = bytes_max.checked_sub(taken).ok_or(RecordError::TooLarge(taken))?;
    record.body.truncate(char_boundary(&record.body, room));
    Ok(())
}

fn fits(record: &mut Record, bytes_max: usize) -> Result<bool, RecordError> {
    let body = record.body.len();
    match overhead(record) {
        Ok(overhead) => Ok(overhead + body <= bytes_max),
        // The names of the secrets alone can be larger than a record.
        Err(RecordError::TooLarge(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of a leaf besides its body.
fn overhead(record: &mut Record) -> Result<usize, RecordError> {
    let body = std::mem::take(&mut record.body);
    let leaf = record.encode();
    record.body = body;
    Ok(leaf?.len())
}
