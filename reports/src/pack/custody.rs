//! `90_custody/custody.csv`: who did what to which file of the pack, as a chain of rows (ISO/IEC 27037's qualities:
//! auditability, repeatability, reproducibility, justifiability).
//!
//! It stops before signing, because it is itself part of what is signed; signature, release and downloads are records of
//! the instance's own log.

use sha2::{Digest as _, Sha256};

use crate::pack::table::Table;
use crate::pack::{PackError, PackFile, PackInput, records};

const PATH: &str = "90_custody/custody.csv";

/// The custody log of these files.
pub(super) fn custody(input: &PackInput, files: &[PackFile]) -> Result<PackFile, PackError> {
    let mut sorted: Vec<&PackFile> = files.iter().collect();
    sorted.sort_by(|one, other| one.path.cmp(&other.path));
    let columns = ["seq", "item", "sha256", "action", "actor", "role", "system", "at", "reason", "prev_hash"];
    let mut table = Table::new(columns);
    let version = input.versions.get("pipeproof").map_or("", String::as_str);
    let mut previous = String::new();
    for (at, file) in sorted.into_iter().enumerate() {
        let (action, reason) = if file.path.starts_with(records::FOLDER) {
            ("ingested", "copied from the log, byte for byte")
        } else if file.path.ends_with("redactions.csv") {
            ("redacted", "counted from the records of this pack")
        } else {
            ("transformed", "computed from the record at as_of")
        };
        let row = [
            (at + 1).to_string(),
            format!("data/{}", file.path),
            hex::encode(Sha256::digest(&file.bytes)),
            action.to_owned(),
            format!("pipeproof {version}"),
            "service".to_owned(),
            input.name.clone(),
            input.as_of.to_string(),
            reason.to_owned(),
            previous,
        ];
        previous = hex::encode(Sha256::digest(row.join("\n")));
        table.push(row);
    }
    let bytes = table.csv().map_err(|source| PackError::Table { path: PATH.to_owned(), source })?;
    Ok(PackFile::new(
        PATH,
        bytes,
        "chain of custody; prev_hash is the SHA-256 of the row above, cells joined by line feeds",
    ))
}
