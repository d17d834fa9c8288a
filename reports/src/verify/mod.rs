//! The verifier: whether a pack is what its instance signed, whole, and whether what it says follows from what it holds.
//!
//! It needs nothing but the pack and a trust anchor that the auditor got by another way. Without an anchor it can only say
//! that the pack agrees with itself. It trusts nothing in the pack before the check that establishes it, names every
//! file, row or proof that fails, and reaches no network. Running the queries again is the record's work: the caller hands
//! in what came out ([`Options::reperformed`]).

mod archive;
mod bag;
mod history;
mod records;
mod report;
mod signature;
mod totals;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use self::archive::{ReadError, Unpacked, read, read_bytes};
pub use self::report::{Check, Failure, Outcome, Report, Signer, Verdict};
use crate::pack::table::Totals;

/// What the auditor trusts beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The instance's certificate (`anchor.pem`), or its public key, PEM.
    Key(String),
    /// A trusted root, JSON.
    TrustedRoot(String),
}

/// What the auditor holds of earlier times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// A checkpoint's signed note, as deposited.
    Checkpoint(String),
    /// An earlier pack, unpacked.
    Pack(Box<Unpacked>),
}

/// What a query gave when it was run again over the pack's Parquet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reperformed {
    /// Path below `data/` of the CSV that it must agree with.
    pub table: String,
    /// What came out, or why nothing did.
    pub outcome: Result<Totals, String>,
}

/// What to verify against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Trust anchor.
    pub anchor: Option<Anchor>,
    /// Who must have signed. Alone, it is looked for under the public Sigstore instance.
    pub identity: Option<String>,
    /// Who must have vouched for that identity; needed with the public instance.
    pub issuer: Option<String>,
    /// Something of earlier times to be consistent with.
    pub previous: Option<Previous>,
    /// Results of running the queries again.
    pub reperformed: Option<Vec<Reperformed>>,
}

/// Reads and verifies a pack file.
///
/// # Errors
/// [`ReadError`] if it is no pack that can be looked into; everything else is in the report.
pub fn verify_pack(path: &Path, options: &Options) -> Result<Report, ReadError> {
    Ok(verify(&read(path)?, options))
}

/// Verifies an unpacked pack.
#[must_use]
pub fn verify(pack: &Unpacked, options: &Options) -> Report {
    let mut report = Report::new(pack);
    bag::check(pack, &mut report);
    let signed = signature::check(pack, options, &mut report);
    let records = records::check(pack, &mut report);
    history::check(pack, options, signed.as_ref(), &records, &mut report);
    totals::check(pack, options, &mut report);
    report
}
