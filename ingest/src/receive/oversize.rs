//! Items larger than a record may be. They are content, not a mistake that their sender could mend: a provider that got
//! an error would never send them again, nor what came with them. The record keeps the beginning, says that it is cut,
//! and becomes a dead letter when it is decoded.
//!
//! Only what is redacted already is cut: half a secret is not recognised, but is half a secret.

use engine::record::{RECORD_BYTES_MAX, Record, RecordError};
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

/// No record has room for the names of more secrets than this.
const LISTABLE_MAX: usize = RECORD_BYTES_MAX / 64;

/// Cuts what does not fit a record, and says so in its attributes.
///
/// # Errors
/// [`RecordError::TooLarge`] if the envelope alone does not fit.
pub(super) fn fit(record: &mut Record, dedup: &[u8; 32]) -> Result<(), RecordError> {
    let secrets = record.envelope.redacted.len();
    // Without writing the envelope: nearly all records are far from the limit.
    if record.body.len() <= RECORD_BYTES_MAX - ENVELOPE_BYTES_MAX && secrets <= REDACTED_MAX {
        return Ok(());
    }
    if secrets <= LISTABLE_MAX && fits(record)? {
        return Ok(());
    }
    if secrets > REDACTED_MAX {
        record.envelope.redacted.truncate(REDACTED_MAX);
        record.envelope.attributes.insert(SECRETS.to_owned(), secrets.to_string());
        // One long run of base64 can hold more secrets than a record can list: then nothing else has to go.
        if fits(record)? {
            return Ok(());
        }
    }
    let attributes = &mut record.envelope.attributes;
    attributes.insert(BYTES.to_owned(), record.body.len().to_string());
    attributes.insert(HASH.to_owned(), identity::hash(dedup, &record.body));
    let room = RECORD_BYTES_MAX.saturating_sub(overhead(record)?);
    record.body.truncate(char_boundary(&record.body, room));
    Ok(())
}

fn fits(record: &mut Record) -> Result<bool, RecordError> {
    let body = record.body.len();
    match overhead(record) {
        Ok(overhead) => Ok(overhead + body <= RECORD_BYTES_MAX),
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
